(root => {
  let mode = "auto";
  try {
    const kept = localStorage.getItem("mode");
    if (kept === "light" || kept === "dark") mode = kept;
  } catch (blocked) { /* 浏览器不让用本地存储 */ }
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.mode = mode;
  root.dataset.theme = mode === "auto" ? (dark ? "dark" : "light") : mode;
})(document.documentElement);
