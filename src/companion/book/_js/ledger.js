// 账本：四个小账本，前向算出值，往回一页一页地走；两个开关能把它走错。
(() => {
  const RULES = {
    "+": { value: (a, b) => a + b, shares: (g) => [g, g] },
    "*": { value: (a, b) => a * b, shares: (g, a, b) => [g * b, g * a] },
    relu: { value: (a) => Math.max(a, 0), shares: (g, a) => [a > 0 ? g : 0] },
    exp: { value: Math.exp, shares: (g, a) => [g * Math.exp(a)] },
  };
  // 每一行：名字、运算、父亲；输入写初值。最后一行是结果。
  const BOOKS = {
    "ab + a": [["a", 2], ["b", 3], ["c", "*", "a", "b"], ["d", "+", "c", "a"]],
    "a · a": [["a", 3], ["c", "*", "a", "a"]],
    "relu(ab + c)": [["a", 2], ["b", -1], ["c", 3], ["d", "*", "a", "b"], ["e", "+", "d", "c"], ["f", "relu", "e"]],
    "翻倍四次": [["a", 1], ["b", "+", "a", "a"], ["c", "+", "b", "b"], ["d", "+", "c", "c"], ["e", "+", "d", "d"]],
    "exp(a) · a": [["a", 1], ["c", "exp", "a"], ["d", "*", "c", "a"]],
  };

  const forward = (book, inputs) => {
    const values = {};
    for (const [name, op, ...parents] of book) {
      values[name] = typeof op === "number" ? (name in inputs ? inputs[name] : op)
        : RULES[op].value(...parents.map((p) => values[p]));
    }
    return values;
  };

  // 往回走的全部脚步：走到谁、带着多少、分给谁多少。add 是 +=，ordered 是等收齐再走。
  const backward = (book, inputs, { add = true, ordered = true } = {}) => {
    const values = forward(book, inputs), rows = {}, grads = {}, steps = [];
    for (const row of book) rows[row[0]] = row;
    const receive = (name, g) => { grads[name] = add && name in grads ? grads[name] + g : g; };
    const walk = (name, g) => {
      const [, op, ...parents] = rows[name];
      const shares = typeof op === "number" ? [] : RULES[op].shares(g, ...parents.map((p) => values[p]));
      const step = { name, g, gives: parents.map((p, k) => [p, shares[k]]) };
      steps.push(step);
      parents.forEach((p, k) => {
        receive(p, shares[k]);
        if (!ordered) { step.grads = { ...grads }; walk(p, shares[k]); }
      });
      if (!step.grads) step.grads = { ...grads };
    };
    const last = book[book.length - 1][0];
    receive(last, 1);
    if (ordered) for (const row of [...book].reverse()) walk(row[0], grads[row[0]]);
    else walk(last, 1);
    return { values, steps, grads };
  };

  const show = (v) => (v === undefined ? "" : String(Number(v.toPrecision(5))));
  const formula = ([name, op, ...parents]) => typeof op === "number" ? "输入"
    : op === "+" || op === "*" ? `${parents[0]} ${op === "*" ? "×" : "+"} ${parents[1]}` : `${op}(${parents[0]})`;

  const mount = (root, { el, button, replace }) => {
    const state = { title: "ab + a", inputs: {}, add: true, ordered: true, step: 0 };
    const choose = el("select", {
      "aria-label": "算式", onchange: (event) => { Object.assign(state, { title: event.target.value, inputs: {}, step: 0 }); draw(); },
    }, ...Object.keys(BOOKS).map((title) => el("option", { value: title }, title)));
    const flag = (key, on, off) => {
      const input = el("input", { type: "checkbox", onchange: () => { state[key] = input.checked; state.step = 0; draw(); } });
      input.checked = state[key];
      return el("label", { class: "cw-flag" }, input, ` ${on}（关掉：${off}）`);
    };
    const body = el("tbody", {});
    const sheet = el("table", { class: "cw-ledger" },
      el("thead", {}, el("tr", {}, ...["名字", "怎么来的", "值", "斜率"].map((text) => el("th", { scope: "col" }, text)))), body);
    const note = el("p", { class: "cw-formula", role: "status" });
    const go = (next) => { state.step = next; draw(); };
    const back = button("往回走一步", () => go(state.step + 1));
    const end = button("走到底", () => go(1e9));
    const again = button("重来", () => go(0), { class: "cw-again" });

    const cell = (row, values) => {
      if (typeof row[1] !== "number") return show(values[row[0]]);
      return el("input", {
        type: "number", step: "any", class: "cw-number", value: values[row[0]], "aria-label": `${row[0]} 的值`,
        onchange: (event) => {
          const value = Number(event.target.value);
          if (event.target.value.trim() === "" || !isFinite(value)) { draw(); return; }
          state.inputs[row[0]] = value;
          state.step = 0;
          draw();
        },
      });
    };

    const draw = () => {
      const book = BOOKS[state.title], run = backward(book, state.inputs, state), all = run.steps.length;
      state.step = Math.min(state.step, all);
      const step = run.steps[state.step - 1];
      const last = book[book.length - 1][0];
      const grads = step ? step.grads : { [last]: 1 };
      replace(body, ...book.map((row) => el("tr", { class: step && step.name === row[0] ? "on" : "" },
        el("th", { scope: "row" }, row[0]), el("td", {}, formula(row)), el("td", {}, cell(row, run.values)), el("td", {}, show(grads[row[0]])))));
      const right = backward(book, state.inputs).grads;
      const wrong = state.step === all && book.some(([name]) => show(run.grads[name]) !== show(right[name]));
      const gives = step ? step.gives.map(([p, share]) => `给 ${p} ${show(share)}`).join("，") : "";
      note.textContent = !step ? `从 ${last} 自己的斜率 1 开始，往回走。`
        : `第 ${state.step} 步，共 ${all} 步：走到 ${step.name}，带着 ${show(step.g)}${gives ? `，分${gives}` : "，到头了"}。` +
          (wrong ? ` 走完了，可是不对：a 的斜率应是 ${show(right.a)}。` : state.step === all ? " 走完了。" : "");
      back.disabled = end.disabled = state.step === all;
      Object.assign(root.dataset, {
        book: state.title, at: state.step, steps: all, grads: JSON.stringify(grads), values: JSON.stringify(run.values), wrong,
      });
    };

    replace(root, root.querySelector(".cw-title"),
      el("div", { class: "cw-row" }, el("label", {}, "算式 ", choose), back, end, again),
      el("div", { class: "cw-wide" }, sheet), note,
      el("div", { class: "cw-row" }, flag("add", "收到的加起来，+=", "后来的盖掉先来的，="),
        flag("ordered", "等收齐再往回传", "沿着每条路各走一遍")));
    draw();
  };

  (window.companionWidgets = window.companionWidgets || [])
    .push({ name: "ledger", mount, forward, backward, books: BOOKS });
})();
