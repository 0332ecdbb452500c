// 斜率：同一点的斜率，步子 h 从 1 缩到 1e-12，在 float32 和 float64 里各量一遍，和真值比。
(() => {
  const same = (v) => v;
  // 每一步的中间结果都按 round 取整：float32 用 Math.fround，float64 不动。
  const FUNCTIONS = {
    "x²": { at: (x, round) => round(x * x), slope: (x) => 2 * x },
    "x³ − x": { at: (x, round) => round(round(round(x * x) * x) - x), slope: (x) => 3 * x * x - 1 },
    "sin x": { at: (x, round) => round(Math.sin(x)), slope: Math.cos },
    "|x|": { at: Math.abs, slope: Math.sign },
  };

  // 两头各走一步量出来的斜率。
  const measure = (name, x, h, round) => {
    const { at } = FUNCTIONS[name];
    const here = round(x), step = round(h);
    const up = at(round(here + step), round), down = at(round(here - step), round);
    return round(round(up - down) / round(2 * step));
  };
  const error = (name, x, h, round) => {
    const truth = FUNCTIONS[name].slope(x);
    return Math.abs(measure(name, x, h, round) - truth) / Math.max(Math.abs(truth), 1e-300);
  };
  const STEPS = [...Array(25).keys()].map((k) => 10 ** (-k / 2));
  const table = (name, x) => STEPS.map((h) =>
    ({ h, single: error(name, x, h, Math.fround), double: error(name, x, h, same) }));

  const short = (v) => (v === 0 ? "0" : Math.abs(v) >= 1e-3 && Math.abs(v) < 1e4 ? String(Number(v.toPrecision(4))) : v.toExponential(1));

  const WIDTH = 420, HEIGHT = 200, LOW = -16, HIGH = 1;
  const left = (h) => 56 + (Math.log10(h) + 12) / 12 * (WIDTH - 76);
  const top = (e) => {
    const level = Math.min(HIGH, Math.max(LOW, Math.log10(e || 1e-16)));
    return 12 + (HIGH - level) / (HIGH - LOW) * (HEIGHT - 44);
  };

  // 图里没有读者写的字，直接拼成一段 SVG。
  const plot = (rows, h) => {
    const line = (key) => `<polyline class="cw-${key}" points="${rows.map((r) => `${left(r.h)},${top(r[key])}`).join(" ")}"/>`;
    const words = [[0, "全错"], [-8, "对 8 位"], [-16, "对 16 位"]].map(([level, text]) =>
      `<text x="0" y="${top(10 ** level) + 4}">${text}</text>`);
    const ticks = [0, -4, -8, -12].map((power) =>
      `<text x="${left(10 ** power)}" y="${HEIGHT - 6}" text-anchor="middle">1e${power}</text>`);
    return `<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="误差曲线：横轴是 h，纵轴是相对误差，先降后升">` +
      `<line class="cw-here" x1="${left(h)}" x2="${left(h)}" y1="8" y2="${HEIGHT - 28}"/>` +
      line("double") + line("single") + words.join("") + ticks.join("") + "</svg>";
  };

  const mount = (root, { el, replace }) => {
    const state = { name: "x³ − x", x: 1.3, power: -2 };
    const choose = el("select", { "aria-label": "函数", onchange: (event) => { state.name = event.target.value; draw(); } },
      ...Object.keys(FUNCTIONS).map((name) => el("option", { value: name }, name)));
    choose.value = state.name;
    const slider = (label, min, max, step, key) => {
      const shownValue = el("output", {});
      const input = el("input", {
        type: "range", min, max, step, value: state[key], "aria-label": label,
        oninput: (event) => { state[key] = Number(event.target.value); draw(); },
      });
      return { node: el("label", { class: "cw-slide" }, `${label} `, input, " ", shownValue), shownValue };
    };
    const point = slider("x", -2, 2, 0.1, "x");
    const step = slider("h 的指数", -12, 0, 0.5, "power");
    const picture = el("div", {});
    const facts = el("dl", { class: "cw-facts" });
    const verdict = el("p", { class: "cw-formula", role: "status" });

    const draw = () => {
      const h = 10 ** state.power, truth = FUNCTIONS[state.name].slope(state.x);
      const single = measure(state.name, state.x, h, Math.fround);
      const double = measure(state.name, state.x, h, same);
      const off = [Math.fround, same].map((round) => error(state.name, state.x, h, round));
      point.shownValue.textContent = state.x.toFixed(1);
      step.shownValue.textContent = `h = ${short(h)}`;
      const rows = [["真的斜率", truth, 0], ["float32 量的", single, off[0]], ["float64 量的", double, off[1]]];
      replace(facts, ...[].concat(...rows.map(([name, value, e], k) => [
        el("dt", { class: ["", "cw-single", "cw-double"][k] }, name),
        el("dd", {}, short(value) + (k ? `，差 ${e < 1e-16 ? "不到 1e-16" : short(e)}` : "")),
      ])));
      picture.innerHTML = plot(table(state.name, state.x), h);
      verdict.textContent = truth === 0 ? "这一点斜率是 0，相对误差没有意义，换一个 x。"
        : off[0] > 0.1 ? "float32 已经不能信了：两个函数值靠得太近，减出来只剩舍入。"
          : off[0] < 1e-3 ? "这个 h，float32 还行。" : "差得看得见了。";
      Object.assign(root.dataset, { name: state.name, x: state.x, h, truth, single, double });
    };

    replace(root, root.querySelector(".cw-title"),
      el("div", { class: "cw-row" }, el("label", {}, "函数 ", choose), point.node, step.node),
      picture, facts, verdict);
    draw();
  };

  (window.companionWidgets = window.companionWidgets || [])
    .push({ name: "secants", mount, measure, error, table, names: Object.keys(FUNCTIONS) });
})();
