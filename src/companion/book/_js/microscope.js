// 显微镜：8 个随机的输入走过几十层，看两样：去的路上每层典型的大小，回来的路上每层收到的推力。
(() => {
  const UNITS = 32, INPUTS = 8, DEEPEST = 50, SEED = 20260, EPS = 1e-5;
  // 每种激活：值，和由输入、输出算斜率。
  const ACTS = {
    ReLU: [(v) => (v > 0 ? v : 0), (v) => (v > 0 ? 1 : 0)],
    tanh: [Math.tanh, (_, out) => 1 - out * out],
    sigmoid: [(v) => 1 / (1 + Math.exp(-v)), (_, out) => out * (1 - out)],
    "不弯": [(v) => v, () => 1],
  };
  const PRESETS = [["torch 默认", 1 / Math.sqrt(3)], ["Glorot", 1], ["He", Math.SQRT2]];

  // 十二个均匀数之和减 6：平均 0，方差 1，近似正态，只用加减，哪里算都一样。
  const source = (seed) => {
    let state = seed;
    return () => {
      let total = -6;
      for (let k = 0; k < 12; k += 1) {
        state = state * 16807 % 2147483647;
        total += state / 2147483647;
      }
      return total;
    };
  };
  const list = (size, next) => [...Array(size)].map(next);
  const draw = source(SEED);
  const inputs = list(INPUTS, () => list(UNITS, draw));
  const arriving = list(INPUTS, () => list(UNITS, draw)); // 最后一层收到的推力
  const weights = list(DEEPEST, () => list(UNITS, () => list(UNITS, draw)));

  const sum = (values) => values.reduce((a, b) => a + b, 0);
  const dot = (a, b) => {
    let total = 0;
    for (let k = 0; k < a.length; k += 1) total += a[k] * b[k];
    return total;
  };
  const size = (rows) => Math.sqrt(sum(rows.map((h) => dot(h, h))) / (rows.length * UNITS));

  // 每个输入自己减平均、除以标准差；back 把推力退回去。
  const normalise = (h) => {
    const mean = sum(h) / UNITS;
    const spread = Math.sqrt(sum(h.map((v) => (v - mean) ** 2)) / UNITS + EPS);
    const out = h.map((v) => (v - mean) / spread);
    const back = (d) => {
      const even = sum(d) / UNITS, along = dot(d, out) / UNITS;
      return d.map((v, k) => (v - even - out[k] * along) / spread);
    };
    return { out, back };
  };
  const plain = (h) => ({ out: h, back: (d) => d });
  // 一层：返回结果，和把推力退回去的函数。
  const layer = (h, k, { gain, act, residual, norm }) => {
    const scale = gain / Math.sqrt(UNITS), [f, slope] = ACTS[act], tidy = norm ? normalise : plain;
    const times = (v) => weights[k].map((row) => dot(row, v) * scale);
    const timesBack = (d) => list(UNITS, (_, j) => scale * sum(weights[k].map((row, i) => row[j] * d[i])));
    const before = residual ? tidy(h) : plain(h), z = times(before.out);
    const after = residual ? plain(z) : tidy(z), out = after.out.map(f);
    const back = (d) => {
      const inner = after.back(d.map((v, j) => v * slope(after.out[j], out[j])));
      const through = before.back(timesBack(inner));
      return residual ? through.map((v, j) => v + d[j]) : through;
    };
    return { out: residual ? out.map((v, j) => h[j] + v) : out, back };
  };
  const run = (options) => {
    const found = [], passed = [];
    let rows = inputs, pushes = arriving;
    for (let k = 0; k < options.depth; k += 1) {
      const done = rows.map((h) => layer(h, k, options));
      rows = done.map((one) => one.out);
      passed.push(done);
      found.push({ size: size(rows) });
    }
    for (let k = options.depth - 1; k >= 0; k -= 1) {
      found[k].push = size(pushes);
      pushes = pushes.map((d, i) => passed[k][i].back(d));
    }
    return found;
  };

  const FEW = 1e-3, MANY = 1e3;
  const verdict = (last, first) => last > MANY || first > MANY ? "大得不成样子：稍微动一动参数，得分就翻天。"
    : last < FEW && first < FEW ? "两头都快没有了：后面的层看不见输入，前面的层收不到推力。"
      : first < FEW ? "去的路上大小还行，回来的路上推力到不了第 1 层。"
        : last < FEW ? "去的路上越走越小，后面的层看不见输入。"
          : "两个方向的大小都没有失控。";

  const short = (v) => (v >= 0.01 && v < 1000 ? String(Number(v.toPrecision(2))) : v.toExponential(0));
  const WIDTH = 440, HEIGHT = 210, LEFT = 52, LIMIT = 14;

  // 图里没有读者写的字，直接拼成一段 SVG。
  const plot = (found) => {
    const x = (k) => LEFT + (WIDTH - LEFT - 12) * (found.length > 1 ? k / (found.length - 1) : 0);
    const y = (v) => {
      const level = Math.min(LIMIT, Math.max(-LIMIT, Math.log10(v || 1e-300)));
      return 10 + (HEIGHT - 40) * (LIMIT - level) / (2 * LIMIT);
    };
    const line = (key) => `<polyline class="cw-${key === "size" ? "forward" : "backward"}" points="${found.map((one, k) => `${x(k)},${y(one[key])}`).join(" ")}"/>`;
    const rules = [[1e12, "1e12"], [1e6, "1e6"], [1, "1"], [1e-6, "1e-6"], [1e-12, "1e-12"]].map(([v, text]) =>
      `<text x="${LEFT - 6}" y="${y(v) + 4}" text-anchor="end">${text}</text>` +
      `<line class="cw-rule" x1="${LEFT}" x2="${WIDTH - 12}" y1="${y(v)}" y2="${y(v)}"/>`);
    return `<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="两条线，对数刻度：去的路上每层典型的大小，回来的路上每层收到的推力">` +
      rules.join("") + line("size") + line("push") +
      `<text x="${LEFT}" y="${HEIGHT - 6}">第 1 层</text>` +
      `<text x="${WIDTH - 12}" y="${HEIGHT - 6}" text-anchor="end">第 ${found.length} 层</text></svg>`;
  };

  const mount = (root, { el, button, replace }) => {
    const state = { gain: 1 / Math.sqrt(3), act: "ReLU", residual: false, norm: false, depth: 30 };
    const choose = el("select", { "aria-label": "激活", onchange: () => { state.act = choose.value; show(); } },
      ...Object.keys(ACTS).map((name) => el("option", { value: name }, name)));
    const slider = (label, min, max, step, key) => {
      const told = el("span", { class: "cw-told" });
      const input = el("input", {
        type: "range", min, max, step, "aria-label": label,
        oninput: () => { state[key] = Number(input.value); show(); },
      });
      return { node: el("label", { class: "cw-slide" }, `${label} `, input, " ", told), input, told };
    };
    const gain = slider("g", 0.5, 2, 0.01, "gain"), depth = slider("层数", 1, DEEPEST, 1, "depth");
    const tick = (label, key) => {
      const box = el("input", { type: "checkbox", onchange: () => { state[key] = box.checked; show(); } });
      return el("label", { class: "cw-tick" }, box, ` ${label}`);
    };
    const presets = PRESETS.map(([name, value]) => button(name, () => { state.gain = value; show(); }));
    const picture = el("div", {});
    const facts = el("dl", { class: "cw-facts" });
    const said = el("p", { class: "cw-formula", role: "status" });

    const show = () => {
      const found = run(state), last = found[found.length - 1].size, first = found[0].push;
      gain.input.value = state.gain;
      gain.told.textContent = state.gain.toFixed(2);
      depth.input.value = state.depth;
      depth.told.textContent = String(state.depth);
      presets.forEach((node, k) => node.setAttribute("aria-pressed", String(state.gain === PRESETS[k][1])));
      picture.innerHTML = plot(found);
      const row = (kind, name, value) => [el("dt", { class: kind }, name), el("dd", {}, short(value))];
      replace(facts, ...row("cw-forward", `去：第 ${state.depth} 层典型的大小`, last), ...row("cw-backward", "回：第 1 层收到的推力", first));
      said.textContent = verdict(last, first);
      Object.assign(root.dataset, { ...state, size: last, push: first });
    };

    replace(root, root.querySelector(".cw-title"),
      el("div", { class: "cw-row" }, ...presets), gain.node, depth.node,
      el("div", { class: "cw-row" }, el("label", {}, "激活 ", choose), tick("归一化", "norm"), tick("残差", "residual")),
      picture, facts, said);
    show();
  };

  (window.companionWidgets = window.companionWidgets || [])
    .push({ name: "microscope", mount, run, source, seed: SEED, acts: Object.keys(ACTS), verdict });
})();
