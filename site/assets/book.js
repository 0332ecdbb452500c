// 主题切换、手机上的目录、复制按钮、当前小节，以及让溢出的框可用键盘滚动。
(() => {
  const root = document.documentElement;
  const MODES = { auto: "跟随系统", light: "浅色", dark: "深色" };
  const system = matchMedia("(prefers-color-scheme: dark)");

  function applyMode(mode, button) {
    root.dataset.mode = mode;
    root.dataset.theme = mode === "auto" ? (system.matches ? "dark" : "light") : mode;
    const label = `切换主题（现在：${MODES[mode]}）`;
    button.setAttribute("aria-label", label);
    button.title = label;
  }

  function setUpTheme() {
    const button = document.querySelector(".theme-switch");
    const names = Object.keys(MODES);
    button.hidden = false;
    applyMode(root.dataset.mode, button);
    button.addEventListener("click", () => {
      const mode = names[(names.indexOf(root.dataset.mode) + 1) % names.length];
      applyMode(mode, button);
      try { localStorage.setItem("mode", mode); } catch { /* 禁用了本地存储，只管本页 */ }
    });
    system.addEventListener("change", () => applyMode(root.dataset.mode, button));
  }

  function setUpNav() {
    const opener = document.querySelector(".nav-open");
    const toggle = (open) => {
      root.dataset.nav = open ? "open" : "";
      opener.setAttribute("aria-expanded", open);
    };
    opener.setAttribute("role", "button");
    toggle(false);
    opener.addEventListener("click", (event) => {
      event.preventDefault();
      toggle(!root.dataset.nav);
    });
    addEventListener("keydown", (event) => event.key === "Escape" && toggle(false));
  }

  async function copyText(text) {
    if (navigator.clipboard) return navigator.clipboard.writeText(text);
    const box = document.createElement("textarea");   // 局域网 http 下没有 clipboard
    box.value = text;
    document.body.append(box);
    box.select();
    document.execCommand("copy");
    box.remove();
  }

  function setUpCopy() {
    const boxes = document.querySelectorAll(".article div[class*=highlight-]:not(.output)");
    for (const box of boxes) {
      const button = document.createElement("button");
      Object.assign(button, { type: "button", className: "copy", textContent: "复制" });
      button.addEventListener("click", async () => {
        const code = box.querySelector("pre").textContent.replace(/^(>>> |\.\.\. |\$ )/gm, "");
        const copied = await copyText(code.trimEnd()).then(() => true, () => false);
        button.textContent = copied ? "已复制" : "没有复制成，请选中后按 Ctrl C";
        setTimeout(() => { button.textContent = "复制"; }, 1500);
      });
      box.append(button);
    }
  }

  function markScrollers() {
    for (const box of document.querySelectorAll("pre, .table-box, .math-block")) {
      if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
  }

  function followSections() {
    const links = new Map();
    for (const link of document.querySelectorAll(".page-toc a")) {
      const section = document.getElementById(decodeURIComponent(link.hash.slice(1)));
      if (section) links.set(section, link);
    }
    const seen = new Set();
    const observer = new IntersectionObserver((entries) => {
      for (const entry of entries) seen[entry.isIntersecting ? "add" : "delete"](entry.target);
      const current = [...links.keys()].filter((section) => seen.has(section)).pop();
      for (const [section, link] of links) {
        if (section === current) link.setAttribute("aria-current", "location");
        else link.removeAttribute("aria-current");
      }
    }, { rootMargin: "-70px 0px -65% 0px" });
    for (const section of links.keys()) observer.observe(section);
  }

  // 打印出来的总是浅色，折起来的都展开；印完恢复原样。
  function setUpPrint() {
    let theme = "";
    let folds = [];
    addEventListener("beforeprint", () => {
      theme = root.dataset.theme;
      root.dataset.theme = "light";
      folds = [...document.querySelectorAll("article details:not([open])")];
      for (const fold of folds) fold.open = true;
    });
    addEventListener("afterprint", () => {
      root.dataset.theme = theme;
      for (const fold of folds) fold.open = false;
    });
  }

  // 从折起来的目录里点了一条，就把目录合上。
  function setUpFold() {
    const fold = document.querySelector(".toc-fold");
    if (fold) fold.addEventListener("click", (event) => {
      if (event.target.closest("a")) fold.open = false;
    });
  }

  setUpTheme();
  setUpPrint();
  setUpFold();
  setUpNav();
  setUpCopy();
  markScrollers();
  followSections();
  addEventListener("resize", markScrollers);
  addEventListener("load", markScrollers);
  if (document.fonts) document.fonts.ready.then(markScrollers);   // 字体到了，公式会变宽
})();
