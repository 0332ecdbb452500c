// 卷积：3×3 的窗口在 8×8 的图上走，九个积和它们的和写出来，旁边是扫出来的整张图。
(() => {
  const KERNELS = {
    竖边: [-1, 0, 1, -1, 0, 1, -1, 0, 1],
    横边: [-1, -1, -1, 0, 0, 0, 1, 1, 1],
    模糊: Array(9).fill(1 / 9),
  };
  const OWN = "自己写";

  const padded = (image, p) => {
    const wide = image[0].length + 2 * p, empty = () => Array(wide).fill(0);
    const rows = image.map((row) => [...Array(p).fill(0), ...row, ...Array(p).fill(0)]);
    return [...[...Array(p)].map(empty), ...rows, ...[...Array(p)].map(empty)];
  };
  const moved = (image) => image.map((row) => [0, ...row.slice(0, -1)]);
  const turned = (kernel) => [...kernel].reverse();
  // 输出第 (r, c) 格盖住的九个数，各乘各的。
  const products = (image, kernel, p, s, r, c) => {
    const big = padded(image, p);
    return kernel.map((w, k) => {
      const pixel = big[r * s + Math.floor(k / 3)][c * s + k % 3];
      return { pixel, w, product: pixel * w };
    });
  };
  const total = (list) => list.reduce((sum, one) => sum + one.product, 0);
  const size = (n, p, s) => Math.floor((n + 2 * p - 3) / s) + 1;
  const convolve = (image, kernel, p, s) =>
    [...Array(size(image.length, p, s)).keys()].map((r) =>
      [...Array(size(image[0].length, p, s)).keys()].map((c) => total(products(image, kernel, p, s, r, c))));
  // 图右移一格前后的两张输出，步幅 1 时哪些格子是原来左边那一格挪过来的。
  const followed = (before, after) => after.map((row, r) => row.map((v, c) => c > 0 && v === before[r][c - 1]));

  const show = (v) => String(Number(v.toFixed(3)) || 0).replace("-", "−");
  const signed = (v) => `rgba(${v > 0 ? "20, 92, 173" : "176, 58, 40"}, ${Math.abs(v)})`;

  const mount = (root, { el, button, replace }) => {
    const { images, kernels } = JSON.parse(root.dataset.numbers);
    const presets = Object.assign({}, KERNELS);
    kernels.forEach((kernel, k) => { presets[`文件第 ${k + 1} 个`] = kernel; });
    const state = { which: 0, name: "竖边", kernel: KERNELS.竖边, p: 1, s: 1, flip: false, shift: false, row: 3, col: 3 };

    const select = (label, options, onchoose) => {
      const node = el("select", { "aria-label": label, onchange: () => { onchoose(node.value); draw(); } },
        ...options.map(([value, text]) => el("option", { value }, text)));
      return node;
    };
    const picture = select("图", images.map((_, k) => [k, `第 ${k + 1} 张`]), (v) => { state.which = Number(v); });
    const names = select("模板", [...Object.keys(presets), OWN].map((name) => [name, name]), (v) => {
      state.name = v;
      if (v !== OWN) state.kernel = presets[v];
    });
    const padding = select("补零", [[0, "不补"], [1, "补一圈"]], (v) => { state.p = Number(v); });
    const stride = select("步幅", [[1, "1"], [2, "2"]], (v) => { state.s = Number(v); });
    padding.value = state.p;
    const flag = (key, text) => el("label", { class: "cw-flag" },
      el("input", { type: "checkbox", onchange: (event) => { state[key] = event.target.checked; draw(); } }), ` ${text}`);

    const weights = [...Array(9).keys()].map((k) => el("input", {
      type: "number", step: "any", "aria-label": `模板第 ${Math.floor(k / 3) + 1} 行第 ${k % 3 + 1} 个`,
      onchange: (event) => {
        const value = Number(event.target.value);
        if (event.target.value.trim() !== "" && isFinite(value) && Math.abs(value) <= 1000) {
          state.kernel = state.kernel.map((w, j) => (j === k ? value : w));
          state.name = OWN;
        }
        draw();
      },
    }));

    // 窗口的位置，是输出的行和列。
    const go = (row, col) => {
      const n = size(8, state.p, state.s);
      state.row = Math.min(n - 1, Math.max(0, row));
      state.col = Math.min(n - 1, Math.max(0, col));
    };
    const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    const step = (key) => { go(state.row + STEPS[key][0], state.col + STEPS[key][1]); draw(); };
    const walk = (event) => {
      if (!STEPS[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      step(event.key);
    };
    // 点到哪一格，窗口的中心就去哪一格。
    const reach = (event, board, place) => {
      if (event.type === "pointermove" && !(event.buttons & 1)) return;
      const box = board.getBoundingClientRect(), n = board.children.length ** 0.5;
      const at = (v, low, length) => Math.floor((v - low) / length * n);
      place(at(event.clientY, box.top, box.height), at(event.clientX, box.left, box.width));
      draw();
    };
    const panel = (place) => {
      const board = el("div", {
        class: "cw-board", tabindex: "0", role: "application", onkeydown: walk,
        onpointerdown: (event) => reach(event, board, place), onpointermove: (event) => reach(event, board, place),
      });
      return board;
    };
    const input = panel((y, x) => go(Math.round((y - 1) / state.s), Math.round((x - 1) / state.s)));
    const output = panel((y, x) => go(y, x));
    const arrows = el("div", { class: "cw-row" }, ...[["ArrowLeft", "←", "左"], ["ArrowUp", "↑", "上"], ["ArrowDown", "↓", "下"], ["ArrowRight", "→", "右"]]
      .map(([key, sign, word]) => button(sign, () => step(key), { "aria-label": `窗口往${word}走` })));
    const nine = el("div", { class: "cw-nine" });
    const sum = el("p", { class: "cw-formula", role: "status" });
    const remark = el("p", { class: "cw-muted" });

    const paint = (board, rows, color, marked, label) => {
      board.style.setProperty("--side", rows.length);
      board.setAttribute("aria-label", label);
      replace(board, ...[].concat(...rows.map((row, r) => row.map((v, c) => {
        const dot = el("span", { class: marked(r, c) });
        dot.style.background = color(v);
        return dot;
      }))));
    };

    const told = (out, stayed) => {
      if (!state.shift) return `输出 ${out.length}×${out.length}：(8 + 2×${state.p} − 3) ÷ ${state.s}，取整，再加 1。`;
      const all = out.length * out.length, kept = [].concat(...stayed).filter(Boolean).length;
      return state.s === 1
        ? `图挪了一格，输出里 ${all} 格有 ${kept} 格正是左边那一格原来的数；不是的画了圈。`
        : "图挪了一格，步幅 2 的窗口却没有半格可挪，看到的是另一批像素。";
    };

    const draw = () => {
      go(state.row, state.col);
      const { p, s, row, col } = state;
      const kernel = state.flip ? turned(state.kernel) : state.kernel;
      const image = state.shift ? moved(images[state.which]) : images[state.which];
      const out = convolve(image, kernel, p, s);
      const stayed = followed(convolve(images[state.which], kernel, p, s), out), circled = state.shift && s === 1;
      const list = products(image, kernel, p, s, row, col), value = total(list);
      names.value = state.name;
      weights.forEach((node, k) => { node.value = Number(state.kernel[k].toFixed(4)); });
      const most = Math.max(...[].concat(...image).map(Math.abs), 1e-9);
      const top = Math.max(...[].concat(...out).map(Math.abs), 1e-9);
      const inside = (r, c) => r >= row * s && r < row * s + 3 && c >= col * s && c < col * s + 3;
      const edge = (r, c) => p && (r === 0 || c === 0 || r === 9 || c === 9);
      paint(input, padded(image, p), (v) => `rgba(20, 24, 30, ${Math.abs(v) / most})`,
        (r, c) => `${inside(r, c) ? "in" : ""} ${edge(r, c) ? "pad" : ""}`,
        `图，窗口盖住第 ${row * s + 1} 到 ${row * s + 3} 行、第 ${col * s + 1} 到 ${col * s + 3} 列，用方向键走`);
      paint(output, out, (v) => signed(v / top), (r, c) => `${r === row && c === col ? "in" : ""} ${circled && !stayed[r][c] ? "lost" : ""}`,
        `扫出来的图，${out.length} 行 ${out.length} 列，选中第 ${row + 1} 行第 ${col + 1} 列，用方向键走`);
      replace(nine, ...list.map(({ pixel, w, product }) => el("span", {},
        el("small", {}, `${show(pixel)} × ${show(w)}`), el("b", {}, show(product)))));
      const terms = list.map((one) => show(one.product));
      sum.textContent = `${terms[0]}${terms.slice(1).map((t) => (t[0] === "−" ? ` − ${t.slice(1)}` : ` + ${t}`)).join("")} = ${show(value)}`;
      remark.textContent = told(out, stayed);
      Object.assign(root.dataset, {
        which: state.which, kernel: JSON.stringify(kernel), padding: p, stride: s, flip: state.flip, shift: state.shift,
        row, col, sum: value, output: JSON.stringify(out),
      });
    };

    const column = (caption, ...nodes) => el("figure", {}, ...nodes, el("figcaption", {}, caption));
    replace(root, root.querySelector(".cw-title"),
      el("div", { class: "cw-row" }, ...[["图", picture], ["模板", names], ["补零", padding], ["步幅", stride]]
        .map(([text, node]) => el("label", {}, `${text} `, node))),
      el("div", { class: "cw-columns" },
        column("图，窗口能走", input), column("模板，能改", el("div", { class: "cw-weights" }, ...weights)), column("扫出来的图，蓝正红负", output)),
      el("div", { class: "cw-row" }, arrows, flag("flip", "翻转（模板转 180°）"), flag("shift", "图右移一格")),
      nine, sum, remark);
    draw();
  };

  (window.companionWidgets = window.companionWidgets || [])
    .push({ name: "convolution", mount, convolve, products, moved, turned, followed, kernels: KERNELS });
})();
