// 组件公用的小工具。各组件把自己放进 companionWidgets 队列，先来后到都行，重复加载也不要紧。
(() => {
  const queue = (window.companionWidgets = window.companionWidgets || []);
  if (queue.kit) return;

  const el = (tag, attrs = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attrs)) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (value !== undefined) node.setAttribute(name, value);
    }
    node.append(...children);
    return node;
  };

  const button = (label, onclick, attrs = {}) =>
    el("button", { type: "button", class: "cw-button", onclick, ...attrs }, label);

  // 换掉里面的全部东西；replaceChildren 老浏览器没有。
  const replace = (node, ...children) => {
    node.textContent = "";
    node.append(...children);
  };

  // 浏览器可能不让存（隐私模式、嵌在别的网页里），那就只是不记得，不出错。
  const store = {
    get(key) {
      try { return localStorage.getItem(`companion:${key}`); } catch { return null; }
    },
    set(key, value) {
      try { localStorage.setItem(`companion:${key}`, value); } catch { /* 不记 */ }
    },
    remove(key) {
      try { localStorage.removeItem(`companion:${key}`); } catch { /* 不记 */ }
    },
  };

  // 一个格子图；cells 是二维数组，每格 {text, kind}。
  const grid = (cells, label) => {
    const node = el("div", { class: "cw-grid", role: "img", "aria-label": label });
    node.style.setProperty("--columns", cells[0].length);
    for (const { text, kind, onclick } of cells.flat()) {
      node.append(el("span", { class: `cw-cell ${kind || ""}`, onclick: onclick || (() => {}) }, text));
    }
    return node;
  };

  const tuple = (sizes) => `(${sizes.join(", ")}${sizes.length === 1 ? "," : ""})`;

  const mountAll = ({ name, mount }) => {
    document.querySelectorAll(`[data-widget="${name}"]:not([data-ready])`).forEach((root) => {
      root.dataset.ready = "";
      mount(root, queue.kit);
    });
  };

  // JupyterLab 会抢走组件里的键（b 加一格、dd 删一格），被按的元素带这个属性它才放手。
  // 带 Ctrl 的键和 Shift+Enter 仍归它，存盘、运行照旧；输入框里的复制、撤销归输入框。
  const keepKeys = ({ target, key, ctrlKey, metaKey, altKey, shiftKey }) => {
    const root = target.closest && target.closest("[data-ready]");
    if (!root) return;
    const editing = target.matches("input") && "acvxyz".includes(key.toLowerCase());
    const theirs = ((ctrlKey || metaKey) && !editing) || (key === "Enter" && (shiftKey || altKey));
    for (const node of [target, root]) node.toggleAttribute("data-lm-suppress-shortcuts", !theirs);
  };

  queue.kit = { el, button, replace, store, grid, tuple };
  queue.forEach(mountAll);
  queue.push = mountAll;
  window.addEventListener("keydown", keepKeys, true);
})();
