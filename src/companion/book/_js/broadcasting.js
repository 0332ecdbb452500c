// 广播：改两个形状，看它们怎样右对齐、谁被拉长、结果是什么，或者卡在哪一维。
(() => {
  const PRESETS = [
    [[3, 1], [4]], [[2, 3], [3]], [[5, 1], [5]], [[3, 4], [3]], [[2, 3, 1], [3, 4]],
  ];
  const MAX_DIMS = 3;
  const MAX_SIZE = 5;

  // 两个形状相加：{shape} 或 {error}，外加逐维的说法 notes（从右往左数，notes[0] 是最后一维）。
  const compute = (a, b) => {
    const ndim = Math.max(a.length, b.length);
    const notes = [];
    const shape = [];
    let error = "";
    for (let k = 1; k <= ndim; k++) {
      const [p, q] = [a[a.length - k], b[b.length - k]];
      const fits = p === undefined || q === undefined || p === q || p === 1 || q === 1;
      if (!fits && !error) {
        error = `The size of tensor a (${p}) must match the size of tensor b (${q}) ` +
          `at non-singleton dimension ${ndim - k}`;
      }
      shape.unshift(p === undefined ? q : q === undefined ? p : p === 1 ? q : p);
      notes.push({ fits, text: explain(p, q) });
    }
    return error ? { error, notes } : { shape, notes, values: add(a, b, shape) };
  };

  const explain = (p, q) => {
    if (p === undefined || q === undefined) {
      const [name, size] = p === undefined ? ["a", q] : ["b", p];
      return size === 1 ? `${name} 没有这一维，补成 1` : `${name} 没有这一维，补成 1，再拉长到 ${size}`;
    }
    if (p === q) return "一样长，对得上";
    if (p === 1) return `a 是 1，拉长到 ${q}`;
    if (q === 1) return `b 是 1，拉长到 ${p}`;
    return `${p} 和 ${q} 不相等，也都不是 1，对不上`;
  };

  // 结果里的每个位置，对应原张量里第几个数；长度是 1 或缺的维，永远读第 0 个。
  const source = (shape, index) => {
    const tail = index.slice(index.length - shape.length);
    return shape.reduce((flat, size, d) => flat * size + (size === 1 ? 0 : tail[d]), 0);
  };

  const positions = (shape) =>
    shape.reduce((all, size) => all.flatMap((at) => [...Array(size).keys()].map((i) => [...at, i])), [[]]);

  // a 的数是 0、10、20……，b 的数是 0、1、2……，和的每一位都看得出来自谁。
  const add = (a, b, shape) => positions(shape).map((at) => 10 * source(a, at) + source(b, at));

  const mount = (root, { el, button, replace, grid, tuple }) => {
    const sizes = { a: PRESETS[0][0], b: PRESETS[0][1] };
    const selects = { a: [], b: [] };

    const sizeSelect = (name, k) => {
      const options = ["无", ...Array(MAX_SIZE).keys()].map((v) =>
        el("option", { value: v === "无" ? "" : v + 1 }, v === "无" ? "无" : String(v + 1)));
      return el("select", { class: "cw-select", "aria-label": `${name} 的第 −${k} 维`, onchange: () => read() }, ...options);
    };
    const row = (name) => {
      selects[name] = [3, 2, 1].map((k) => sizeSelect(name, k));
      return [el("span", { class: "cw-name" }, name), ...selects[name]];
    };
    const head = [3, 2, 1].map((k) => el("span", { class: "cw-muted" }, `第 −${k} 维`));
    const outcome = [3, 2, 1].map(() => el("span", { class: "cw-size" }));
    const table = el("div", { class: "cw-dims" }, el("span", {}), ...head, ...row("a"), ...row("b"),
      el("span", { class: "cw-name" }, "a + b"), ...outcome);
    const verdict = el("p", { class: "cw-verdict", role: "status" });
    const notes = el("ul", { class: "cw-notes" });
    const panels = el("div", { class: "cw-panels" });

    // 一个张量拉长之后的样子：按最后两维画成格子，更前面的维一块一块排开。
    const panel = (name, title, shape, cell) => {
      const full = [...Array(Math.max(0, 2 - shape.length)).fill(1), ...shape];
      const [rows, columns] = full.slice(-2);
      const cells = positions(shape).map(cell);
      const node = el("div", { class: `cw-panel cw-${name}` }, el("p", { class: "cw-muted" }, title));
      for (let start = 0; start < cells.length; start += rows * columns) {
        const block = [...Array(rows).keys()].map((i) =>
          cells.slice(start + i * columns, start + (i + 1) * columns));
        node.append(grid(block, `${title}：${block.map((r) => r.map((c) => c.text).join(" ")).join("；")}`));
      }
      return node;
    };
    const stretched = (name, shape) => {
      const own = sizes[name];
      const unit = name === "a" ? 10 : 1;
      const title = own.join() === shape.join() ? `${name}` : `${name}，拉长到 ${tuple(shape)}`;
      return panel(name, title, shape, (at) => {
        const tail = at.slice(at.length - own.length);
        const real = at.slice(0, at.length - own.length).every((i) => i === 0) &&
          own.every((size, d) => size > 1 || tail[d] === 0);
        return { text: String(unit * source(own, at)), kind: real ? "" : "ghost" };
      });
    };

    const draw = () => {
      const result = compute(sizes.a, sizes.b);
      outcome.forEach((node, i) => {
        const note = result.notes[MAX_DIMS - 1 - i];
        const size = result.shape ? result.shape[result.shape.length - MAX_DIMS + i] : "·";
        node.textContent = !note ? "" : note.fits ? String(size) : "✗";
        node.dataset.mark = note && !note.fits ? "wrong" : "";
      });
      replace(notes, ...result.notes.map(({ text, fits }, k) =>
        el("li", { "data-mark": fits ? "" : "wrong" }, `第 −${k + 1} 维：${text}。`)));
      root.dataset.result = result.shape ? tuple(result.shape) : "";
      root.dataset.error = result.error || "";
      root.dataset.values = JSON.stringify(result.values || []);
      verdict.dataset.mark = result.error ? "wrong" : "right";
      replace(verdict, el("b", {}, result.error ? "✗ 不能相加。" : `✓ 结果的形状是 ${tuple(result.shape)}。`));
      if (result.error) verdict.append("torch 会说：", el("code", {}, result.error));
      replace(panels);
      if (!result.error) {
        let flat = 0;
        panels.append(stretched("a", result.shape), stretched("b", result.shape),
          panel("sum", "a + b", result.shape, () => ({ text: String(result.values[flat++]) })));
      }
    };

    // 右边那一维还是「无」，左边就不许有；选项里的「无」只留给最左边已有的那一维及更左。
    const sync = () => {
      for (const name of ["a", "b"]) {
        selects[name].forEach((node, i) => {
          const at = sizes[name].length - MAX_DIMS + i;
          node.value = at < 0 ? "" : String(sizes[name][at]);
          node.disabled = at < -1;
        });
      }
      draw();
    };
    const read = () => {
      for (const name of ["a", "b"]) {
        const values = selects[name].map((node) => node.value);
        sizes[name] = values.slice(values.lastIndexOf("") + 1).map(Number);
      }
      sync();
    };
    const presets = PRESETS.map(([a, b]) => button(`${tuple(a)} + ${tuple(b)}`, () => {
      [sizes.a, sizes.b] = [a, b];
      sync();
    }));
    replace(root, root.querySelector(".cw-title"),
      el("div", { class: "cw-row", role: "group", "aria-label": "现成的例子" }, ...presets),
      table, verdict, notes, panels);
    sync();
  };

  (window.companionWidgets = window.companionWidgets || []).push({ name: "broadcasting", mount, compute });
})();
