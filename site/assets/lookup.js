// 报错词典的输入框：贴一行报错，指到那一条。数字是几不管；含着的句子里，最长的算数。
const lookup = {
  // 与 companion/book/_explain.py 里的 masked 相同。
  masked: (text) => text.replace(/\p{Nd}+/gu, "#").replace(/\s+/gu, " ").trim().toLowerCase(),

  // entries 是 [{target, phrases, …}]；返回一条，或 null。
  find(text, entries) {
    const said = lookup.masked(text);
    let best = null, longest = 0;
    for (const entry of entries) {
      for (const phrase of entry.phrases.map(lookup.masked)) {
        if (phrase.length > longest && said.includes(phrase)) [best, longest] = [entry, phrase.length];
      }
    }
    return best;
  },
};

(() => {
  if (typeof document === "undefined") return;   // 单元测试里没有页面
  const form = document.querySelector(".lookup");
  if (!form) return;
  const box = form.querySelector("textarea"), answer = form.querySelector("output");
  const entries = [...form.querySelectorAll("li")].map((item) => ({
    target: item.dataset.target,
    phrases: JSON.parse(item.dataset.phrases),
    when: item,
  }));

  const element = (name, text, attributes = {}) =>
    Object.assign(document.createElement(name), { textContent: text }, attributes);

  // 两页各有一半条目，不在这一页的去另一页。
  function link(entry) {
    const here = document.getElementById(entry.target);
    const page = entry.target.startsWith("err-") ? form.dataset.errors : form.dataset.old;
    const href = `${here ? "" : page}#${entry.target}`;
    return element("a", entry.phrases[0], { href });
  }

  function show() {
    const text = box.value.slice(0, 20000);
    answer.textContent = "";
    if (!text.trim()) return;
    const entry = lookup.find(text, entries);
    if (entry) {
      const when = element("p", "");
      when.append(...entry.when.cloneNode(true).childNodes);
      answer.append(link(entry), when);
      return;
    }
    answer.append(
      element("p", "没找到这一条。可以这样接着查："),
      element("p", "① 看看贴的是不是最后一行：写着“某某 Error:”的那一行才是原因。"),
      element("p", "② 去掉里面的数字、文件名和你自己起的名字，挑三四个词，用页首的搜索。"),
      element("p", "③ 把出错的那一句单独拿出来，印出每个输入的 shape、dtype 和 device，先看哪一个不是你以为的。"),
    );
  }

  form.hidden = false;
  box.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
})();
