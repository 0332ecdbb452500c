// 索引：4 行 6 列的 t，写一个下标，看选中哪些格、结果什么形状、是视图还是副本。
(() => {
  const SIZES = [4, 6];
  const PRESETS = ["1", ":, 2", "1:3", "::2, 1:4", "-1", "[0, 2]", "[0, 2], [1, 3]", "None", "...", "t > 10"];
  const UNKNOWN = "这张小图只认识整数、切片、整数列表、None、... 和 t > 10 这样的比较";
  const MASK = /^t(%(\d+))?(>=|<=|==|!=|>|<)(-?\d+)$/;
  const TESTS = {
    ">": (p, q) => p > q, "<": (p, q) => p < q, ">=": (p, q) => p >= q, "<=": (p, q) => p <= q,
    "==": (p, q) => p === q, "!=": (p, q) => p !== q,
  };
  const fail = (text) => { throw new Error(text); };
  const range = (n) => [...Array(n).keys()];

  // 一段下标文字 → 一项：{kind: int | slice | list | none | dots, …}
  const parseItem = (text) => {
    if (text === "None") return { kind: "none" };
    if (text === "...") return { kind: "dots" };
    if (/^-?\d+$/.test(text)) return { kind: "int", value: Number(text) };
    if (/^\[-?\d+(,-?\d+)*,?\]$/.test(text)) {
      return { kind: "list", values: JSON.parse(text.replace(",]", "]")) };
    }
    const parts = text.split(":");
    const numeric = parts.every((part) => /^(-?\d+)?$/.test(part));
    if (!numeric || parts.length < 2 || parts.length > 3) {
      fail(UNKNOWN);
    }
    return { kind: "slice", parts: parts.map((part) => (part === "" ? null : Number(part))) };
  };

  const parse = (text) => {
    const body = text.replace(/,$/, "");
    const items = body.match(/\[[^\]]*\]|[^,]+/g) || fail("方括号里还没有写");
    if (items.join() !== body) fail(UNKNOWN);
    const parsed = items.map((item, place) => ({ ...parseItem(item), place }));
    const used = parsed.filter(({ kind }) => !["none", "dots"].includes(kind)).length;
    if (used > SIZES.length) fail("too many indices for tensor of dimension 2");
    if (parsed.filter(({ kind }) => kind === "dots").length > 1) fail("... 只能写一个，两个就分不清各占几维");
    // 省略的维等于写了冒号；有 ... 就替它，没有就补在末尾。
    const rest = range(SIZES.length - used).map(() => ({ kind: "slice", parts: [null, null] }));
    const dots = parsed.findIndex(({ kind }) => kind === "dots");
    parsed.splice(dots < 0 ? parsed.length : dots, dots < 0 ? 0 : 1, ...rest);
    return parsed;
  };

  const inside = (index, size, dim) =>
    index >= -size && index < size ? (index + size) % size
      : fail(`index ${index} is out of bounds for dimension ${dim} with size ${size}`);

  const slice = ([start, stop, step], size) => {
    if (step === 0) fail("slice step cannot be zero");
    if (step < 0) fail("step must be greater than zero");
    const clamp = (value) => Math.min(size, Math.max(0, value < 0 ? value + size : value));
    const picked = [];
    const end = stop === null ? size : clamp(stop);
    for (let i = start === null ? 0 : clamp(start); i < end; i += step || 1) picked.push(i);
    return picked;
  };

  // 先做整数、切片和 None（只换说明书），再做列表（要搬数），与 torch 的次序相同。
  const basic = (items) => {
    const dims = [];
    const fixed = [];
    let axis = 0;
    for (const { kind, value, values, parts, place } of items) {
      if (kind === "none") { dims.push({ size: 1 }); continue; }
      const size = SIZES[axis];
      if (kind === "int") fixed[axis] = inside(value, size, place);
      else if (kind === "slice") {
        const picked = slice(parts, size);
        dims.push({ size: picked.length, axis, picked });
      } else dims.push({ list: values, axis, full: size });
      axis += 1;
    }
    return { dims, fixed };
  };

  // 列表变成一维：相邻就留在原处，被别的维隔开就挪到最前面。
  const advanced = (dims) => {
    const lists = dims.filter(({ list }) => list);
    if (!lists.length) return dims;
    lists.forEach((dim) => {
      dim.picked = dim.list.map((i) => inside(i, dim.full, dims.indexOf(dim)));
    });
    const size = Math.max(...lists.map(({ list }) => list.length));
    if (lists.some(({ list }) => list.length !== 1 && list.length !== size)) {
      const shapes = lists.map(({ list }) => `[${list.length}]`).join(", ");
      fail(`shape mismatch: indexing tensors could not be broadcast together with shapes ${shapes}`);
    }
    const first = dims.indexOf(lists[0]);
    const together = dims.slice(first, first + lists.length).every(({ list }) => list);
    const rest = dims.filter(({ list }) => !list);
    rest.splice(together ? first : 0, 0, { size, lists });
    return rest;
  };

  const mask = ([, , modulo, sign, bound]) => {
    const cells = range(SIZES[0] * SIZES[1]).filter((v) => TESTS[sign](modulo ? v % modulo : v, Number(bound)));
    return { shape: [cells.length], cells, kind: "copy" };
  };

  // 下标文字 → {shape, cells（按结果的次序，每个数在 t 里的编号）, kind: view | copy} 或 {error}
  const compute = (text) => {
    const clean = text.normalize("NFKC").replace(/\s*([^\w\s])\s*/g, "$1").trim().replace(/^t\[(.*)\]$/, "$1");
    const found = MASK.exec(clean);
    if (found) return mask(found);
    try {
      const items = parse(clean);
      const { dims: before, fixed } = basic(items);
      const dims = advanced(before);
      const cells = dims.reduce((all, dim) => all.flatMap((at) => range(dim.size).map((k) => {
        const next = [...at];
        if (dim.axis !== undefined) next[dim.axis] = dim.picked[k];
        for (const { axis, picked } of dim.lists || []) next[axis] = picked[picked.length === 1 ? 0 : k];
        return next;
      })), [fixed]).map(([i, j]) => i * SIZES[1] + j);
      const copied = items.some(({ kind }) => kind === "list");
      return { shape: dims.map(({ size }) => size), cells, kind: copied ? "copy" : "view" };
    } catch (error) {
      return { error: error.message };
    }
  };

  // 像 torch 打印那样，把一串数按形状套上方括号。
  const nested = (values, shape) => {
    if (!shape.length) return String(values[0]);
    if (shape.length === 1) return `[${values.join(", ")}]`;
    const step = values.length / shape[0] || 0;
    const gap = shape.length === 2 ? ",\n " : ",\n\n ";
    return `[${range(shape[0]).map((i) => nested(values.slice(i * step, (i + 1) * step), shape.slice(1))).join(gap)}]`;
  };

  const mount = (root, { el, button, replace, grid, tuple }) => {
    const input = el("input", {
      class: "cw-input", value: "::2, 1:4", "aria-label": "t 的下标", autocomplete: "off",
      autocapitalize: "off", spellcheck: "false", oninput: () => draw(),
    });
    const picture = el("div", {});
    const verdict = el("p", { class: "cw-verdict", role: "status" });
    const values = el("pre", { class: "cw-values" });

    const tick = (text) => ({ text: String(text), kind: "tick" });
    const draw = () => {
      const { shape, cells = [], kind = "", error = "" } = compute(input.value);
      const picked = new Set(cells);
      const head = [tick(""), ...range(SIZES[1]).map(tick)];
      const rows = range(SIZES[0]).map((i) => [tick(i), ...range(SIZES[1]).map((j) => {
        const v = i * SIZES[1] + j;
        return { text: String(v), kind: picked.has(v) ? "on" : "" };
      })]);
      replace(picture, grid([head, ...rows], error ? "t，4 行 6 列" : `t，4 行 6 列，选中 ${[...picked].join(" ") || "无"}`));
      verdict.dataset.mark = error ? "wrong" : "";
      replace(verdict, error ? el("b", {}, "✗ 取不出来：") : el("b", {}, `形状 ${tuple(shape)}，${cells.length} 个数。`),
        error || (kind === "view" ? "视图：和 t 共用内存，改它就改了 t。" : "副本：数抄到了新内存，改它不动 t。"));
      const width = Math.max(...cells.map((v) => String(v).length));
      values.textContent = error ? "" : nested(cells.map((v) => String(v).padStart(width)), shape);
      Object.assign(root.dataset, {
        expr: input.value, shape: shape ? tuple(shape) : "", kind, error, values: JSON.stringify(cells),
      });
    };
    const presets = PRESETS.map((text) =>
      button(text, () => { input.value = text; draw(); }, { class: "cw-button cw-mono" }));
    replace(root, root.querySelector(".cw-title"),
      el("div", { class: "cw-row", role: "group", "aria-label": "现成的例子" }, ...presets),
      el("label", { class: "cw-line" }, el("code", {}, "t["), input, el("code", {}, "]")),
      picture, verdict, values);
    draw();
  };

  (window.companionWidgets = window.companionWidgets || []).push({ name: "indexing", mount, compute, nested });
})();
