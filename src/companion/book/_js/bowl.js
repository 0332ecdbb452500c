// 碗：y = ax + b 的平方误差，画成 (a, b) 平面上的椭圆；换一个学习率，看梯度下降怎么走。
(() => {
  // 2×2 对称矩阵 [[p, q], [q, r]]：弯得最急和最平的两个方向，各弯多少。
  const bends = ([[p, q], [, r]]) => {
    const middle = (p + r) / 2, half = Math.hypot((p - r) / 2, q);
    const steep = middle + half, flat = (p * r - q * q) / steep;
    const along = p >= r ? [steep - r, q] : [q, steep - p];
    const size = Math.hypot(...along);
    const u = size ? along.map((v) => v / size) : [1, 0];
    return { steep, flat, directions: [u, [-u[1], u[0]]] };
  };
  const away = ({ bottom }, at) => at.map((v, k) => v - bottom[k]);
  const slope = (bowl, at) => {
    const d = away(bowl, at);
    return bowl.hessian.map((row) => row[0] * d[0] + row[1] * d[1]);
  };
  const loss = (bowl, at) => {
    const d = away(bowl, at), g = slope(bowl, at);
    return bowl.least + (d[0] * g[0] + d[1] * g[1]) / 2;
  };
  // 从 start 出发的每一步，连出发点。
  const path = (bowl, start, rate, steps) => {
    const points = [start];
    for (let k = 0; k < steps; k += 1) {
      const at = points[k], g = slope(bowl, at);
      points.push(at.map((v, i) => v - rate * g[i]));
    }
    return points;
  };
  const STARTS = ["(0, 0)", "只沿最急的方向", "只沿最平的方向"];
  const reach = ({ bottom }) => Math.max(Math.hypot(...bottom), 1);
  const startOf = (bowl, k) => {
    if (k === 0) return [0, 0];
    const u = bends(bowl.hessian).directions[k - 1];
    return bowl.bottom.map((v, i) => v - reach(bowl) * u[i]);
  };

  const short = (v) => (v !== 0 && (Math.abs(v) >= 1e4 || Math.abs(v) < 1e-3) ? v.toExponential(1) : String(Number(v.toPrecision(3))));
  const SIZE = 300, FAR = 4000;
  const clip = (v) => Math.min(FAR, Math.max(-FAR, v));

  // 碗：几圈椭圆、谷底、走过的路。两个轴一样的比例，图外的剪掉。
  const drawBowl = (bowl, points) => {
    const { steep, flat, directions: [u] } = bends(bowl.hessian), radius = 1.3 * reach(bowl);
    const place = (at) => away(bowl, at).map((v, k) => clip(SIZE / 2 + (k ? -v : v) / radius * SIZE / 2));
    const turn = -Math.atan2(u[1], u[0]) * 180 / Math.PI;
    const rings = [0.15, 0.35, 0.6, 0.9, 1.3].map((part) => {
      const long = part * SIZE / 2;
      return `<ellipse rx="${long * Math.sqrt(flat / steep)}" ry="${long}" transform="translate(${SIZE / 2} ${SIZE / 2}) rotate(${turn})"/>`;
    });
    const places = points.map(place), dots = places.map(([x, y], k) => `<circle cx="${x}" cy="${y}" r="${k === places.length - 1 ? 5 : 2.5}"/>`);
    return `<svg viewBox="0 0 ${SIZE} ${SIZE}" role="img" aria-label="碗：横轴是斜率 a，纵轴是截距 b，一圈椭圆上的损失相同">${rings.join("")}` +
      `<path class="cw-bottom" d="M ${SIZE / 2 - 6} ${SIZE / 2} h 12 M ${SIZE / 2} ${SIZE / 2 - 6} v 12"/>` +
      `<polyline points="${places.map((p) => p.join(",")).join(" ")}"/>${dots.join("")}` +
      `<text x="${SIZE - 6}" y="${SIZE / 2 - 6}" text-anchor="end">a</text><text x="${SIZE / 2 + 6}" y="14">b</text></svg>`;
  };

  // 点和眼下的直线。
  const drawLine = (bowl, [a, b]) => {
    const xs = bowl.points.map((p) => p[0]), ys = bowl.points.map((p) => p[1]);
    const range = (list) => [Math.min(...list), Math.max(...list)].map((v, k, [low, high]) => v + (k ? 0.3 : -0.3) * (high - low || 1));
    const [[left, right], [low, high]] = [range(xs), range(ys)];
    const place = (x, y) => [clip((x - left) / (right - left) * SIZE), clip((high - y) / (high - low) * SIZE)];
    const dots = bowl.points.map(([x, y]) => place(x, y)).map(([x, y]) => `<circle cx="${x}" cy="${y}" r="2.5"/>`);
    const ends = [left, right].map((x) => place(x, a * x + b).join(","));
    return `<svg viewBox="0 0 ${SIZE} ${SIZE}" role="img" aria-label="数据的点，和眼下这条直线 ${short(a)} x + ${short(b)}">` +
      `${dots.join("")}<polyline points="${ends.join(" ")}"/></svg>`;
  };

  const verdictOf = (factor, apart, before, steps) => {
    const size = Math.abs(factor);
    if (!steps) return "还没有走。按“走一步”。";
    if (size > 1 + 1e-9) {
      return apart > before ? `最急的方向上，每步乘 ${short(factor)}：越跳越远。`
        : `最急的方向上，每步乘 ${short(factor)}，迟早越跳越远；只是那个方向上眼下还没有差。`;
    }
    if (size > 1 - 1e-9) return "最急的方向上，每步只换个正负号：来回跳，不近也不远。";
    return factor < 0 ? `最急的方向上，每步乘 ${short(factor)}：来回跳，越跳越近。` : `最急的方向上，每步乘 ${short(factor)}：一直在靠近。`;
  };

  const mount = (root, { el, button, replace }) => {
    const bowl = JSON.parse(root.dataset.numbers), { steep, flat } = bends(bowl.hessian), limit = 2 / steep;
    const state = { part: 0.5, steps: 10, start: 0 };
    const value = el("output", {});
    const slider = el("input", {
      type: "range", min: 0.02, max: 1.2, step: 0.01, value: state.part, "aria-label": "学习率，是上限的几倍",
      oninput: () => { state.part = Number(slider.value); draw(); },
    });
    const choose = el("select", { "aria-label": "起点", onchange: () => { state.start = Number(choose.value); draw(); } },
      ...STARTS.map((text, k) => el("option", { value: k }, text)));
    const go = (steps) => { state.steps = Math.min(steps, 200); draw(); };
    const left = el("div", {}), right = el("div", {}), facts = el("dl", { class: "cw-facts" });
    const verdict = el("p", { class: "cw-formula", role: "status" });

    const draw = () => {
      const rate = state.part * limit, points = path(bowl, startOf(bowl, state.start), rate, state.steps);
      const at = points[points.length - 1], factors = [1 - rate * steep, 1 - rate * flat];
      const [apart, before] = [at, points[0]].map((p) => Math.hypot(...away(bowl, p)));
      value.textContent = `${short(rate)}，上限 ${short(limit)} 的 ${state.part.toFixed(2)} 倍`;
      left.innerHTML = drawBowl(bowl, points);
      right.innerHTML = drawLine(bowl, at);
      const rows = [["走了", `${state.steps} 步`], ["a、b", `${short(at[0])}、${short(at[1])}`],
        ["损失", `${short(loss(bowl, at))}，谷底 ${short(bowl.least)}`], ["离谷底", short(apart)],
        ["每步乘", `最急的方向 ${short(factors[0])}，最平的 ${short(factors[1])}`]];
      replace(facts, ...[].concat(...rows.map(([name, text]) => [el("dt", {}, name), el("dd", {}, text)])));
      verdict.textContent = verdictOf(factors[0], apart, before, state.steps);
      Object.assign(root.dataset, {
        rate, limit, start: state.start, steps: state.steps, a: at[0], b: at[1], loss: loss(bowl, at), apart, steepest: factors[0], flattest: factors[1],
      });
    };

    replace(root, root.querySelector(".cw-title"),
      el("label", { class: "cw-slide" }, "学习率 ", slider, " ", value),
      el("div", { class: "cw-row" }, el("label", {}, "起点 ", choose), button("走一步", () => go(state.steps + 1)),
        button("走十步", () => go(state.steps + 10)), button("回起点", () => go(0), { class: "cw-button cw-again" })),
      el("div", { class: "cw-columns" }, left, right), facts, verdict);
    draw();
  };

  (window.companionWidgets = window.companionWidgets || [])
    .push({ name: "bowl", mount, bends, path, loss, startOf });
})();
