// 骗：一张图，十个模板；往梯度的方向、硬币的方向，或者朝某个数字，每格最多动 eps。
(() => {
  const sum = (list) => list.reduce((a, b) => a + b, 0);
  const clamp = (v) => Math.min(16, Math.max(0, v));

  const distances = (x, templates) => templates.map((m) => sum(m.map((v, k) => (x[k] - v) ** 2)));
  const chances = (x, templates) => {
    const d = distances(x, templates), least = Math.min(...d);
    const e = d.map((v) => Math.exp((least - v) / 100));
    return e.map((v) => v / sum(e));
  };
  // 损失 −ln p_y 对每一格的斜率：Σ (p_k − Y_k)·2(m_k − x)/100；p − Y 加起来是 0，x 那一项消掉。
  const slopes = (x, templates, answer) => {
    const p = chances(x, templates);
    return x.map((_, k) => sum(templates.map((m, j) => (p[j] - (j === answer ? 1 : 0)) * m[k])) / 50);
  };
  const coin = (size, seed) => {
    let state = 48271 * (seed + 1) % 2147483647;
    return [...Array(size)].map(() => {
      state = state * 16807 % 2147483647;
      return state < 1073741823 ? -1 : 1;
    });
  };
  // 每一格的方向：−1、0 或 1。toward 是要变成的数字。
  const direction = (x, templates, answer, way, toward) => way === "硬币" ? coin(x.length, answer)
    : way === "梯度" ? slopes(x, templates, answer).map(Math.sign)
      : slopes(x, templates, toward).map((g) => -Math.sign(g));
  const moved = (x, signs, eps) => x.map((v, k) => clamp(v + eps * signs[k]));
  const guess = (x, templates) => {
    const d = distances(x, templates);
    return d.indexOf(Math.min(...d));
  };
  // 最少要动多少才会改口（不管 0 和 16 的边界）。
  const budget = (x, templates) => {
    const d = distances(x, templates), a = d.indexOf(Math.min(...d));
    return Math.min(...templates.map((m, b) => b === a ? Infinity
      : (d[b] - d[a]) / (2 * sum(m.map((v, k) => Math.abs(v - templates[a][k]))))));
  };

  const mount = (root, { el, replace }) => {
    const { pictures, answers, templates } = JSON.parse(root.dataset.numbers);
    const state = { which: 0, way: "梯度", toward: 8, eps: 0 };
    const select = (label, key, options) => {
      const node = el("select", { "aria-label": label, onchange: () => { state[key] = key === "way" ? node.value : Number(node.value); draw(); } },
        ...options.map(([value, text]) => el("option", { value }, text)));
      node.value = state[key];
      return el("label", {}, `${label} `, node);
    };
    const size = el("output", {});
    const slider = el("input", {
      type: "range", min: 0, max: 4, step: 0.1, value: 0, "aria-label": "每格最多动多少",
      oninput: () => { state.eps = Number(slider.value); draw(); },
    });
    const before = el("div", { class: "cw-ink" }), after = el("div", { class: "cw-ink" }), change = el("div", { class: "cw-ink" });
    const bars = el("ol", { class: "cw-bars" });
    const verdict = el("p", { class: "cw-formula", role: "status" });
    const target = select("朝", "toward", templates.map((_, k) => [k, String(k)]));

    const ink = (node, values, label, color) => {
      node.setAttribute("role", "img");
      node.setAttribute("aria-label", label);
      replace(node, ...values.map((v) => {
        const dot = el("span", {});
        dot.style.background = color(v);
        return dot;
      }));
    };
    const grey = (v) => `rgba(20, 24, 30, ${v / 16})`;
    const sign = (v) => `rgba(${v > 0 ? "176, 58, 40" : "20, 92, 173"}, ${Math.abs(v) / 4})`;

    const draw = () => {
      const x = pictures[state.which], answer = answers[state.which];
      const signs = direction(x, templates, answer, state.way, state.toward);
      const now = moved(x, signs, state.eps), p = chances(now, templates), said = guess(now, templates);
      target.hidden = state.way !== "朝一个数字";
      size.textContent = `±${state.eps.toFixed(1)}，一共 16 级`;
      ink(before, x, `原图，写的是 ${answer}`, grey);
      ink(change, now.map((v, k) => v - x[k]), "改动，红的加深，蓝的变浅", sign);
      ink(after, now, `改过的图，机器认作 ${said}`, grey);
      const top = p.map((v, k) => [v, k]).sort((a, b) => b[0] - a[0]).slice(0, 3);
      replace(bars, ...top.map(([v, k]) => {
        const bar = el("span", { class: k === answer ? "cw-bar right" : "cw-bar" });
        bar.style.width = `${100 * v}%`;
        return el("li", {}, el("b", {}, String(k)), el("span", { class: "cw-track" }, bar), `${(100 * v).toFixed(1)}%`);
      }));
      const least = budget(x, templates);
      verdict.textContent = (said === answer ? `还认作 ${said}。` : `认作 ${said} 了，写的是 ${answer}。`) +
        `照最省的方向，每格动 ${least.toFixed(2)} 就会改口。`;
      Object.assign(root.dataset, { which: state.which, way: state.way, eps: state.eps, guess: said, chance: p[said], budget: least });
    };

    const panel = (name, node) => el("figure", {}, node, el("figcaption", {}, name));
    replace(root, root.querySelector(".cw-title"),
      el("div", { class: "cw-row" }, select("图", "which", answers.map((k, i) => [i, `写的是 ${k}`])),
        select("方向", "way", ["梯度", "硬币", "朝一个数字"].map((way) => [way, way])), target),
      el("label", { class: "cw-slide" }, "每格最多动 ", slider, " ", size),
      el("div", { class: "cw-columns" }, panel("原图", before), panel("改动", change), panel("现在", after), bars),
      verdict);
    draw();
  };

  (window.companionWidgets = window.companionWidgets || [])
    .push({ name: "deception", mount, chances, slopes, direction, moved, guess, budget });
})();
