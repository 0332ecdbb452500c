// 备用搜索页：在全书各小节的原文（search_sections.js）里直接找，双击打开的网页也能用。
// 查询是谁都能写进网址的：只当文字比较，从不当对象的键；多长都只取开头。
// 这一页给读不到索引的人用，所以只用老浏览器也认得的写法。
(() => {
  const LONGEST = 100, MOST_WORDS = 8, MOST_HITS = 30, LONGEST_WORD = 8;
  const HAN = /[\u3400-\u9fff]/;
  const count = (text, word) => text.split(word, 6).length - 1;   // 多于 5 次的，算 5 次

  // 一节是 [网址, 标题, 页名, 原文, 另外的说法]。
  const sections = (window.bookSections || []).map(([url, title, page, text, extra]) => ({
    url, title, page, text, head: `${title} ${extra}`.toLowerCase(), body: text.toLowerCase(),
  }));
  const book = sections.map(({ head, body }) => `${head}\n${body}`).join("\n");

  // 一串汉字切成词：每次取书里有的最长的一段；一段都没有就原样返回。
  function cutRun(run) {
    const words = [];
    for (let start = 0; start < run.length;) {
      let length = Math.min(LONGEST_WORD, run.length - start);
      while (length > 1 && !book.includes(run.substr(start, length))) length--;
      if (length > 1 || run.length === 1) words.push(run.substr(start, length));
      start += length;
    }
    return words.length ? words : [run];
  }

  function queryWords(query) {
    const words = [];
    for (const run of query.match(/[\u3400-\u9fff]+|[^\s\u3400-\u9fff]+/g) || []) {
      words.push(...(HAN.test(run) ? cutRun(run) : [run]));
    }
    return words.filter((word, i) => words.indexOf(word) === i).slice(0, MOST_WORDS);
  }

  // 标题里有的分量重，章节比附录重；0 是一个词也没有。
  function score({ url, head, body }, words) {
    let total = 0;
    for (const word of words) total += 10 * head.includes(word) + count(body, word);
    return url.startsWith("chapters/") ? 2 * total : total;
  }

  // 每个词都有的排前面；没有这样的一节，才看只有几个词的。
  function find(words) {
    const has = ({ head, body }) => (word) => head.includes(word) || body.includes(word);
    const full = sections.filter((section) => words.every(has(section)));
    return (full.length ? full : sections.filter((section) => words.some(has(section))))
      .map((section) => ({ section, points: score(section, words) }))
      .sort((a, b) => b.points - a.points)
      .map(({ section }) => section);
  }

  // 第一处命中前后的一段文字，命中的词放进 <mark>。
  function excerpt({ text, body }, words) {
    const places = words.map((word) => body.indexOf(word)).filter((place) => place >= 0);
    const start = places.length ? Math.max(0, Math.min(...places) - 18) : 0;
    const piece = text.slice(start, start + 90);
    const escaped = words.map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
    const parts = piece.split(new RegExp(`(${escaped.join("|")})`, "i"));
    const nodes = parts.map((part, i) => {
      if (i % 2 === 0) return document.createTextNode(part);
      const mark = document.createElement("mark");
      mark.textContent = part;
      return mark;
    });
    return [start ? "…" : "", ...nodes, "…"];
  }

  function hitElement(section, words) {
    const item = document.createElement("li");
    const link = document.createElement("a");
    const title = document.createElement("b");
    const page = document.createElement("small");
    const text = document.createElement("span");
    link.href = section.url;
    title.textContent = section.title;
    page.textContent = section.page === section.title ? "" : section.page;
    text.append(...excerpt(section, words));
    link.append(title, page, text);
    item.append(link);
    return item;
  }

  function readQuery() {
    const query = new URLSearchParams(location.search).get("q") || "";
    return query.slice(0, LONGEST).replace(/\s+/g, " ").trim();
  }

  const query = readQuery();
  const words = queryWords(query.toLowerCase());
  const hits = words.length ? find(words) : [];
  const status = document.getElementById("search-progress");
  document.querySelector(".search-page input").value = query;
  document.getElementById("search-results")
    .append(...hits.slice(0, MOST_HITS).map((section) => hitElement(section, words)));
  if (words.length) {
    const more = hits.length > MOST_HITS ? `，列出前 ${MOST_HITS} 节` : "";
    status.textContent = hits.length ? `${hits.length} 节${more}` : "没有找到。换个说法试试。";
  }
})();
