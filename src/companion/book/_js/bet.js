// 先猜（bet）与十个赌注（quiz）：题目、选项和理由都在页面里，这里只管点击、判断和记住。
(() => {
  const LONGEST = 200;   // 填空题的回答最多几个字

  // 比较时不计空格、全角半角、大小写、末尾逗号；torch.Size([2, 3])、(2, 3) 和 2, 3 算一样。
  // 与 widgets/_questions.py 里的 normal 逐字相同：题库靠它查出重复的回答。
  const normal = (text) => {
    let t = text.normalize("NFKC").replace(/、/g, ",").replace(/[\s`]/g, "").toLowerCase();
    t = t.replace(/^torch\.size\(\[(.*)\]\)$/, "($1)").replace(/,(?=[)\]]|$)/g, "");
    return /^-?\d+(,-?\d+)+$/.test(t) ? `(${t})` : t;
  };

  const readFacts = (node) =>
    [...node.querySelectorAll(".cw-reasons li")].map((li) => ({
      text: li.dataset.text,
      correct: "correct" in li.dataset,
      reason: li.querySelector(".cw-reason").innerHTML,
    }));

  // 选择题认原文（.T 和 .t 是两个选项），填空题认化简后的写法。
  const judge = (facts, text, fallback, form) =>
    facts.find((fact) => form(fact.text) === form(text)) || { correct: false, reason: fallback };

  // 浏览器里存着的可能是旧题的回答，也可能被人改过：不在选项里的、不像回答的，当作没有押过。
  const isAnswer = (text, options) =>
    text !== null && (options ? options.includes(text) : text.trim() !== "" && text.length <= LONGEST);

  const choices = ({ el }, list, submit) => {
    const buttons = [...list.children].map((item) => {
      const node = el("button", { type: "button", class: "cw-option", "aria-pressed": "false" });
      node.innerHTML = `<span>${item.innerHTML}</span><span class="cw-mark"></span>`;
      node.dataset.text = item.dataset.text;
      node.addEventListener("click", () => submit(node.dataset.text));
      return node;
    });
    list.replaceWith(el("div", { class: "cw-options" }, ...buttons));
    const show = (picked, fact) =>
      buttons.forEach((node) => {
        const { correct } = fact(node.dataset.text);
        const mine = node.dataset.text === picked;
        const shown = picked !== null && correct !== undefined && (mine || correct);
        node.setAttribute("aria-pressed", String(mine));
        node.dataset.mark = shown ? (correct ? "right" : "wrong") : "";
        node.lastChild.textContent = shown ? (correct ? "✓" : "✗") : "";
      });
    return { show, focus: () => buttons[0].focus() };
  };

  const blank = ({ el }, place, question, submit) => {
    const input = el("input", {
      class: "cw-input", placeholder: place.dataset.placeholder, "aria-label": `你的答案：${question}`,
      maxlength: LONGEST, autocomplete: "off", autocapitalize: "off", spellcheck: "false",
    });
    const send = () => input.value.trim() && submit(input.value.trim());
    const form = el("form", { class: "cw-typed" }, input, el("button", { class: "cw-button" }, "就押这个"));
    form.addEventListener("submit", (event) => { event.preventDefault(); send(); });
    place.replaceWith(form);
    const show = (picked) => { input.value = picked === null ? "" : picked; };
    return { show, focus: () => input.focus() };
  };

  // 一道题。reveal 为假时只记不判。返回的 state 供小测计分。
  const mountQuestion = (node, kit, { key, reveal, changed = () => {} }) => {
    const { el, button, store } = kit;
    const facts = readFacts(node);
    const list = node.querySelector("ul.cw-options");
    const options = list && [...list.children].map((item) => item.dataset.text);
    const form = list ? (text) => text : normal;
    const recall = (from) => (isAnswer(store.get(from), options) ? store.get(from) : null);
    const details = node.querySelector(".cw-reasons");
    const fallback = node.dataset.default || "";
    const question = node.querySelector("legend").textContent.trim();
    const verdict = el("p", { class: "cw-verdict", role: "status" });
    const again = button("重来", () => { store.remove(key); state.picked = null; draw(); view.focus(); changed(); },
      { class: "cw-again" });
    const state = { picked: recall(key), recall, judge: (text) => judge(facts, text, fallback, form) };

    const draw = (text = state.picked) => {
      view.show(state.picked, (t) => (reveal ? state.judge(t) : {}));
      const open = state.picked === null;
      node.dataset.state = open ? "open" : reveal ? (state.judge(state.picked).correct ? "right" : "wrong") : "kept";
      again.hidden = open;
      if (details) details.hidden = open;
      if (open || !reveal) { verdict.textContent = open ? "" : "记下了。"; return; }
      const { correct, reason } = state.judge(text);
      const first = text === state.picked;
      const lead = correct ? (first ? "✓ 押对了。" : "✓ 这个对。") : first ? "✗ 没押中。" : "✗ 这个不对。";
      verdict.innerHTML = `<b>${lead}</b>${reason}`;
      verdict.dataset.mark = correct ? "right" : "wrong";
    };
    const submit = (text) => {
      if (state.picked === null || !reveal) { state.picked = text; store.set(key, text); }
      draw(text);
      changed();
    };
    const view = list ? choices(kit, list, submit)
      : blank(kit, node.querySelector(".cw-blank"), question, submit);
    if (details) details.querySelector("summary").textContent = "每一项的理由";
    const foot = el("div", { class: "cw-foot" }, ...(details ? [details] : []), again);
    node.append(verdict, foot);
    draw();
    return state;
  };

  const mountBet = (root, kit) =>
    mountQuestion(root, kit, { key: `bet:${root.dataset.name}`, reveal: true });

  const mountQuiz = (root, kit) => {
    const { el, button, store } = kit;
    const { name, when } = root.dataset;
    const nodes = [...root.querySelectorAll("[data-bet]")];
    const keyOf = (node, phase) => `quiz:${name}:${phase}:${node.dataset.bet}`;
    const score = el("p", { class: "cw-score", role: "status" });
    const total = nodes.length;

    const line = () => {
      const done = states.filter((state) => state.picked !== null).length;
      if (done < total) return `已答 ${done} / ${total}`;
      if (when === "before") return `${total} 题都押好了，答案在章末。`;
      const now = states.filter((state) => state.judge(state.picked).correct).length;
      if (when !== "after") return `答对 ${now} / ${total}`;
      const early = nodes.map((node, i) => states[i].recall(keyOf(node, "before")));
      const then = early.filter((text, i) => text !== null && states[i].judge(text).correct).length;
      const missing = early.filter((text) => text === null).length;
      const note = missing ? `（开头有 ${missing} 题没有作答）` : "";
      return `开头答对 ${then} / ${total}，现在答对 ${now} / ${total}${note}`;
    };
    const changed = () => {
      score.textContent = line();
      root.dataset.score = score.textContent;
      restart.hidden = states.every((state) => state.picked === null);
    };
    const restart = button("全部重来", () => {
      nodes.forEach((node) => node.querySelector(".cw-again").click());
      nodes[0].querySelector("button, input").focus();
    });
    const phase = when || "only";
    const states = nodes.map((node) =>
      mountQuestion(node, kit, { key: keyOf(node, phase), reveal: when !== "before", changed: () => changed() }));
    root.append(el("div", { class: "cw-foot" }, score, restart));
    changed();
  };

  const widgets = (window.companionWidgets = window.companionWidgets || []);
  widgets.push({ name: "bet", mount: mountBet, normal });
  widgets.push({ name: "quiz", mount: mountQuiz });
})();
