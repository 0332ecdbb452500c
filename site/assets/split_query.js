// Sphinx 自带搜索把一串汉字当成一个词，查不到「自动求导」。这里按索引里的词表做正向最大匹配。
var splitQuery = (query) => {
  const index = typeof Search === "undefined" ? null : Search._index;
  const known = (word) =>
    index && (Object.hasOwn(index.terms, word) || Object.hasOwn(index.titleterms, word));
  const words = [];
  for (const run of query.toLowerCase().match(/[\u3400-\u9fff]+|[\p{L}\p{N}_.]+/gu) || []) {
    if (!/[\u3400-\u9fff]/.test(run)) {
      words.push(...run.split(".").filter(Boolean));
      continue;
    }
    for (let start = 0; start < run.length;) {
      let length = Math.min(8, run.length - start);
      while (length > 1 && !known(run.slice(start, start + length))) length--;
      if (length > 1 || run.length === 1) words.push(run.slice(start, start + length));
      start += length;
    }
  }
  return words;
};
