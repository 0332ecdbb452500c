// 步幅：12 个数排成一条内存；每个操作只换说明书（形状、步幅、起点），除非非搬家不可。
(() => {
  const START = { code: "t", memory: [...Array(12).keys()], shape: [3, 4], stride: [4, 1], offset: 0, moved: false };

  const numel = (v) => v.shape[0] * v.shape[1];
  const cellOf = (v, i, j) => v.offset + i * v.stride[0] + j * v.stride[1];
  const read = (v) => [...Array(v.shape[0]).keys()].flatMap((i) =>
    [...Array(v.shape[1]).keys()].map((j) => v.memory[cellOf(v, i, j)]));

  const isContiguous = ({ shape, stride }) =>
    (shape[1] === 1 || stride[1] === 1) && (shape[0] === 1 || stride[0] === shape[1]);

  // 两维能不能并成一维：要么有一维只有 1，要么走完一整行恰好到下一行的开头。
  const mergeable = ({ shape, stride }) =>
    shape[0] === 1 || shape[1] === 1 || stride[0] === shape[1] * stride[1];

  const whyNot = ({ shape, stride }) =>
    `走完一行（${shape[1]} × ${stride[1]} = ${shape[1] * stride[1]}）接不上下一行的开头（${stride[0]}）`;

  const copy = (v, shape) => ({ memory: read(v), shape, stride: [shape[1], 1], offset: 0, moved: true });

  const reshape = (v, shape) => {
    if (numel(v) !== shape[0] * shape[1]) {
      return { error: `shape '[${shape.join(", ")}]' is invalid for input of size ${numel(v)}` };
    }
    if (v.shape.join() === shape.join()) return {};
    if (!mergeable(v)) return copy(v, shape);
    const step = v.shape[1] === 1 ? v.stride[0] : v.stride[1];
    return { shape, stride: [shape[1] * step, step] };
  };

  const OPERATIONS = {
    ".T": ({ shape, stride }) => ({ shape: [shape[1], shape[0]], stride: [stride[1], stride[0]] }),
    "[1:]": ({ shape, stride, offset }) => shape[0] === 1
      ? { error: "只剩 1 行，切掉它就空了" }
      : { shape: [shape[0] - 1, shape[1]], offset: offset + stride[0] },
    "[:, ::2]": ({ shape, stride }) =>
      ({ shape: [shape[0], Math.ceil(shape[1] / 2)], stride: [stride[0], 2 * stride[1]] }),
    "[:, :1]": ({ shape }) => ({ shape: [shape[0], 1] }),
    ".expand(-1, 4)": ({ shape, stride }) => {
      if (shape[1] === 4) return {};
      if (shape[1] === 1) return { shape: [shape[0], 4], stride: [stride[0], 0] };
      return {
        error: `The expanded size of the tensor (4) must match the existing size (${shape[1]}) at ` +
          `non-singleton dimension 1.  Target sizes: [-1, 4].  Tensor sizes: [${shape.join(", ")}]`,
      };
    },
    ".reshape(2, 6)": (v) => reshape(v, [2, 6]),
    ".contiguous()": (v) => (isContiguous(v) ? {} : copy(v, v.shape)),
  };

  // 对说明书 v 做一步操作，返回新的说明书，或 {error}。
  const apply = (v, operation) => {
    const change = OPERATIONS[operation](v);
    return change.error ? change : { ...v, moved: false, ...change, code: v.code + operation };
  };

  const mount = (root, { el, button, replace, grid, tuple }) => {
    let view = START;
    let at = [0, 0];
    const code = el("code", { class: "cw-code" });
    const status = el("p", { class: "cw-verdict", role: "status" });
    const facts = el("dl", { class: "cw-facts" });
    const tensor = el("div", { class: "cw-tensor" });
    const memory = el("div", {});
    const formula = el("p", { class: "cw-formula", role: "status" });
    const inputs = ["i", "j"].map((name, d) => el("input", {
      type: "number", class: "cw-number", min: 0, "aria-label": name,
      oninput: (event) => {
        const value = Math.trunc(Number(event.target.value)) || 0;
        at[d] = Math.max(0, Math.min(view.shape[d] - 1, value));
        draw();
      },
      onblur: (event) => { event.target.value = at[d]; },
    }));

    const fact = (name, value) => [el("dt", {}, name), el("dd", {}, value)];
    const cells = () => [...Array(view.shape[0]).keys()].map((i) =>
      [...Array(view.shape[1]).keys()].map((j) => ({
        text: String(view.memory[cellOf(view, i, j)]),
        kind: i === at[0] && j === at[1] ? "on" : "",
        onclick: () => { at = [i, j]; sync(); },
      })));
    const ticks = () => view.memory.map((_, k) => ({ text: String(k), kind: "tick" }));
    const bar = (here) => {
      const used = new Set();
      cells().forEach((row, i) => row.forEach((_, j) => used.add(cellOf(view, i, j))));
      return view.memory.map((value, k) =>
        ({ text: String(value), kind: k === here ? "on" : used.has(k) ? "" : "ghost" }));
    };

    const draw = () => {
      const here = cellOf(view, ...at);
      const contiguous = isContiguous(view);
      const viewable = mergeable(view);
      code.textContent = `y = ${view.code}`;
      replace(facts,
        ...fact("shape", tuple(view.shape)), ...fact("stride()", tuple(view.stride)),
        ...fact("storage_offset()", String(view.offset)), ...fact("is_contiguous()", contiguous ? "True" : "False"),
        ...fact(`view(${numel(view)})`, viewable ? "✓ 可以" : `✗ 不行：${whyNot(view)}`));
      replace(tensor, el("p", { class: "cw-muted" }, "张量 y"), grid(cells(), `张量 y，选中第 ${at[0]} 行第 ${at[1]} 列`));
      replace(memory, el("p", { class: "cw-muted" }, "内存（下面是编号，虚线框里的 y 读不到）"),
        grid([bar(here), ticks()], `内存，亮着的是第 ${here} 个`));
      formula.textContent = `y[${at[0]}, ${at[1]}]：${view.offset} + ${at[0]} × ${view.stride[0]} + ` +
        `${at[1]} × ${view.stride[1]} = ${here}，内存第 ${here} 个数是 ${view.memory[here]}`;
      Object.assign(root.dataset, {
        expr: view.code, shape: tuple(view.shape), stride: tuple(view.stride), offset: view.offset,
        contiguous, viewable, index: at.join(), cell: here, value: view.memory[here], moved: view.moved,
      });
    };
    const sync = () => {
      inputs.forEach((input, d) => { input.max = view.shape[d] - 1; input.value = at[d]; });
      draw();
    };
    const change = (next) => {
      root.dataset.error = next.error || "";
      status.dataset.mark = next.error ? "wrong" : next.moved ? "moved" : "";
      status.textContent = next.error ? `✗ 这一步做不了：${next.error}`
        : next.moved ? "搬家了：这一步新开了一块内存，把数按新的顺序抄了一遍。" : "没有搬动任何一个数，只换了说明书。";
      if (!next.error) {
        view = next;
        at = at.map((value, d) => Math.min(value, view.shape[d] - 1));
      }
      sync();
    };

    const buttons = Object.keys(OPERATIONS).map((operation) =>
      button(operation, () => change(apply(view, operation)), { class: "cw-button cw-mono" }));
    const restart = button("重来", () => { at = [0, 0]; change(START); status.textContent = ""; }, { class: "cw-again" });
    replace(root, root.querySelector(".cw-title"),
      el("div", { class: "cw-row", role: "group", "aria-label": "对 y 做一步" }, ...buttons, restart),
      el("p", { class: "cw-line" }, code), status, el("div", { class: "cw-columns" }, tensor, facts),
      el("div", { class: "cw-row cw-index" }, ...["i", "j"].map((name, d) => el("label", {}, `${name} = `, inputs[d]))),
      formula, memory);
    sync();
  };

  (window.companionWidgets = window.companionWidgets || [])
    .push({ name: "strides", mount, start: START, apply, isContiguous, mergeable, read });
})();
