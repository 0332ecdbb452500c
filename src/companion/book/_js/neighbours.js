// 邻居：一条线上六个数，一个是你。拖别人，看练（同批的统计）和考（记下的统计）时你各变成多少。
(() => {
  const EPS = 1e-5, MOMENTUM = 0.1, HIGH = 12;
  const START = [1, 2, 3, 4, 5, 9];
  const FRESH = { mean: 0, variance: 1 };

  const average = (list) => list.reduce((a, b) => a + b, 0) / list.length;
  const statistics = (values) => {
    const mean = average(values);
    return { mean, variance: average(values.map((v) => (v - mean) ** 2)) };
  };
  const normalise = (values, { mean, variance }) => values.map((v) => (v - mean) / Math.sqrt(variance + EPS));
  // 一批走过之后记下的：方差记的是除以 n − 1 的那一种。
  const remember = (running, values) => {
    const { mean, variance } = statistics(values), n = values.length;
    return {
      mean: (1 - MOMENTUM) * running.mean + MOMENTUM * mean,
      variance: (1 - MOMENTUM) * running.variance + MOMENTUM * variance * n / (n - 1),
    };
  };

  const show = (v) => (Number(v.toFixed(2)) || 0).toFixed(2).replace("-", "−");
  const short = (v) => String(Number(v.toFixed(1)));
  const left = (v) => 100 * v / HIGH;
  const below = (v) => Math.min(100, Math.max(0, 50 + 100 * v / 6));

  const mount = (root, { el, button, replace }) => {
    const state = { values: [...START], training: true, running: [FRESH], passes: 0 };
    const last = () => state.running[state.running.length - 1];
    const set = (k, value) => {
      state.values[k] = Math.min(HIGH, Math.max(0, Math.round(2 * value) / 2));
      draw();
    };
    const track = el("div", { class: "cw-track-line" });
    const pull = (k) => (event) => {
      if (event.type === "pointerdown") event.currentTarget.setPointerCapture(event.pointerId);
      else if (!(event.buttons & 1)) return;
      const box = track.getBoundingClientRect();
      set(k, (event.clientX - box.left) / box.width * HIGH);
    };
    const MOVES = { ArrowLeft: -0.5, ArrowDown: -0.5, ArrowRight: 0.5, ArrowUp: 0.5, PageDown: -2, PageUp: 2, Home: -HIGH, End: HIGH };
    const nudge = (k) => (event) => {
      if (!(event.key in MOVES) || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      set(k, state.values[k] + MOVES[event.key]);
    };
    const knobs = START.map((_, k) => k === 0
      ? el("span", { class: "cw-knob you" }, "你")
      : el("span", {
        class: "cw-knob", role: "slider", tabindex: "0", "aria-label": `第 ${k} 个邻居`, "aria-valuemin": 0, "aria-valuemax": HIGH,
        onpointerdown: pull(k), onpointermove: pull(k), onkeydown: nudge(k),
      }));
    const ticks = (list, place) => list.map((v) => {
      const node = el("span", { class: "cw-at" }, String(v).replace("-", "−"));
      node.style.left = `${place(v)}%`;
      return node;
    });
    track.append(...ticks([0, 3, 6, 9, 12], left), ...knobs);
    const lines = el("div", { class: "cw-strings" });
    const dots = START.map((_, k) => el("span", { class: k ? "cw-dot" : "cw-dot you" }));
    const after = el("div", { class: "cw-track-line after" }, ...ticks([-3, -2, -1, 0, 1, 2, 3], below), ...dots);

    const modes = [[true, "练 train()"], [false, "考 eval()"]].map(([training, text]) =>
      button(text, () => { state.training = training; draw(); }));
    const pass = button("走一批", () => {
      if (state.training) state.running.push(remember(last(), state.values));
      state.passes += 1;
      draw();
    });
    const again = button("重来", () => {
      Object.assign(state, { values: [...START], training: true, running: [FRESH], passes: 0 });
      draw();
    }, { class: "cw-again" });
    const facts = el("dl", { class: "cw-facts" });
    const verdict = el("p", { class: "cw-formula", role: "status" });
    const history = el("p", { class: "cw-muted" });

    const draw = () => {
      const batch = statistics(state.values), used = state.training ? batch : last();
      const out = normalise(state.values, used);
      state.values.forEach((v, k) => {
        knobs[k].style.left = `${left(v)}%`;
        dots[k].style.left = `${below(out[k])}%`;
        if (k) {
          knobs[k].setAttribute("aria-valuenow", v);
          knobs[k].setAttribute("aria-valuetext", short(v));
        }
      });
      // 图里没有读者写的字，直接拼成一段 SVG。
      lines.innerHTML = `<svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">${state.values.map((v, k) =>
        `<line class="${k ? "" : "you"}" x1="${left(v)}" y1="0" x2="${below(out[k])}" y2="10" vector-effect="non-scaling-stroke"/>`).join("")}</svg>`;
      modes.forEach((node, k) => node.setAttribute("aria-pressed", String(state.training === (k === 0))));
      const pair = ({ mean, variance }) => `均值 ${show(mean)}，方差 ${show(variance)}`;
      const row = (name, value, on) => [el("dt", { class: on ? "cw-used" : "" }, name), el("dd", {}, value)];
      replace(facts, ...row("这一批", pair(batch), state.training), ...row("记下的", pair(last()), !state.training));
      verdict.textContent = `你是 ${short(state.values[0])}，变成 (${short(state.values[0])} − ${show(used.mean)}) ÷ √${show(used.variance)} = ${show(out[0])}。` +
        (state.training ? "用的是这一批的，动一个邻居，你就跟着变。" : "用的是记下的，邻居怎么动，你都不变。");
      const means = state.running.map((r) => show(r.mean)).slice(-7);
      history.textContent = `记下的均值，一批一个：${state.running.length > 7 ? "… → " : ""}${means.join(" → ")}` +
        (state.passes > state.running.length - 1 ? "（考的时候走一批，不记。）" : "");
      Object.assign(root.dataset, {
        values: JSON.stringify(state.values), mode: state.training ? "train" : "eval", mine: out[0], out: JSON.stringify(out),
        mean: last().mean, variance: last().variance, history: JSON.stringify(state.running.map((r) => r.mean)),
      });
    };

    replace(root, root.querySelector(".cw-title"),
      el("div", { class: "cw-row" }, ...modes, pass, again),
      el("div", { class: "cw-lines" }, track, lines, after), verdict, facts, history);
    draw();
  };

  (window.companionWidgets = window.companionWidgets || [])
    .push({ name: "neighbours", mount, statistics, normalise, remember, start: START, fresh: FRESH });
})();
