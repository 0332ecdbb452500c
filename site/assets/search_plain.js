// 不靠 WebAssembly 的索引：在全书各小节的原文（search_sections.js）里直接找。
// 旧浏览器、双击打开的网页、备用搜索页用它；办法和 search.js 里 pagefind 的那份一样。
window.plainIndex = (rows, root) => {
  const SLOW = 1.2, LENGTH = 0.4;   // 多出现几次、节长一些，各要紧多少
  const HAN = /[\u3400-\u9fff]/;

  // 标题和另外的说法，在章节、诊所和词典、别处各重几倍。
  const weight = (url) => (/^chapters\/\d/.test(url) ? 10 : url.startsWith("chapters/") ? 6 : 2);

  // 一节是 [网址, 标题, 页名, 正文, 代码, 另外的说法]。
  const sections = rows.map(([url, title, page, prose, code, extra], id) => ({
    id, head: `${title} ${extra}`.toLowerCase(), body: prose.toLowerCase(), code: code.toLowerCase(),
    times: weight(url), size: prose.length + code.length,
    data: () => ({ url: root + url, meta: { title, page, text: `${prose} ${code}` } }),
  }));
  const average = sections.reduce((sum, { size }) => sum + size, 0) / sections.length;

  // 数 text 里有几个 word：汉字不分词界；西文要整个词，还没打完的只看开头。
  function counter(word, unfinished) {
    if (HAN.test(word)) return (text) => text.split(word).length - 1;
    const escaped = word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
    const whole = new RegExp(`(^|[^a-z0-9_])${escaped}${unfinished ? "" : "(?![a-z0-9_])"}`, "g");
    return (text) => (text.match(whole) || []).length;
  }

  function search(word, unfinished) {
    const count = counter(word.toLowerCase(), unfinished);
    const results = [];
    for (const { id, head, body, code, times, size, data } of sections) {
      const found = times * count(head) + count(body) + count(code) / 2;
      const slow = SLOW * (1 - LENGTH + LENGTH * size / average);
      if (found) results.push({ id, score: found / (found + slow), data });
    }
    return results;
  }

  const known = new Map();
  function knows(word) {
    if (!known.has(word)) known.set(word, search(word, false).length > 0);
    return known.get(word);
  }

  return { knows, sections: (word, unfinished) => search(word, unfinished && !knows(word)) };
};
