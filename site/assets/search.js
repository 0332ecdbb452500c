// 站内搜索：Ctrl K 打开，边输入边列出小节；备用搜索页也用这里的切词和排序。
// 一份索引有两个办法：knows(词) 是书里有没有它；sections(词, 还没打完) 是哪几节有它，各多少分。
(() => {
  const MAX_HITS = 12, MAX_PAGE_HITS = 30, LONGEST = 100;   // 粘贴进来一整篇，只看开头
  const COMMON = 200;   // 出现在这么多节里的词，说明不了什么
  const base = new URL(document.documentElement.dataset.content_root || "./", location.href);
  const isHan = (text) => /[\u3400-\u9fff]/.test(text);

  // pagefind 的索引里每个汉字词是一个记号：码位的四位十六进制数，数字换成 a 到 p（同 book_ext/words.py）。
  const token = (word) => [...word]
    .map((char) => char.codePointAt(0).toString(16).padStart(4, "0")).join("")
    .replace(/./g, (digit) => String.fromCharCode(97 + parseInt(digit, 16)));

  const term = (word) => (isHan(word) ? token(word) : word);

  async function loadPagefind() {
    const pagefind = await import(new URL("pagefind/pagefind.js", base));
    await pagefind.options({
      baseUrl: base.pathname,
      ranking: { pageLength: 0.4, termFrequency: 0.6, termSimilarity: 2 },
    });
    const known = new Map();

    async function knows(word) {
      if (!known.has(word)) {
        const exact = await pagefind.search(`"${term(word)}"`);
        known.set(word, exact.results.length > 0);
      }
      return known.get(word);
    }

    // 整个词都没有的，只有还没打完的最后一个词才按开头找。
    async function sections(word, unfinished) {
      if (await knows(word)) return (await pagefind.search(term(word))).results;
      if (isHan(word) || !unfinished || word.length < 2) return [];
      const loose = await pagefind.search(word);
      const kept = [];
      for (const result of loose.results.slice(0, MAX_HITS)) {   // 它找不到时会越找越短，直到只剩第一个字母
        const { meta } = await result.data();
        if (`${meta.title} ${meta.text}`.toLowerCase().includes(word.toLowerCase())) kept.push(result);
      }
      return kept;
    }

    await knows("张量");   // 读不到就在这里失败，好换另一份
    return { knows, sections };
  }

  const loadScript = (name) => new Promise((loaded, failed) => {
    const script = document.createElement("script");
    Object.assign(script, { src: new URL(`_static/${name}`, base), onload: loaded, onerror: failed });
    document.head.append(script);
  });

  // 全书的原文，一百多 KB：只有用不了 pagefind 的浏览器才下载。
  async function loadPlain() {
    if (!window.bookSections) await loadScript("search_sections.js");
    if (!window.plainIndex) await loadScript("search_plain.js");
    return window.plainIndex(window.bookSections, base.pathname);
  }

  // pagefind 是 WebAssembly。旧引擎没有，或者被内容安全策略拦下；双击打开的网页读不了它的文件。
  function canPagefind() {
    try {
      return location.protocol !== "file:"
        && Boolean(new WebAssembly.Module(Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0)));
    } catch { return false; }
  }

  let index = null;
  function loadIndex() {
    if (!index) {
      index = canPagefind() ? loadPagefind().catch(loadPlain) : loadPlain();
      index.catch(() => { index = null; });   // 断网了：下次再试
    }
    return index;
  }

  // 一串汉字切成词：每次取索引里有的最长的词；一个都没有就原样返回。
  async function cutRun(from, run) {
    const words = [];
    for (let start = 0; start < run.length;) {
      let length = Math.min(8, run.length - start);
      while (length > 1 && !(await from.knows(run.slice(start, start + length)))) length--;
      if (length > 1 || run.length === 1) words.push(run.slice(start, start + length));
      start += length;
    }
    return words.length ? words : [run];
  }

  // 汉字一串，西文一个词；数字和没有内容的词，一句里还有别的时不查。
  const RUN = /[\u3400-\u9fff]+|[a-z_]\w*(?:\.[a-z_]\w*)*|\d[\w.]*/gi;
  const STOP = /^(\d.*|[的了吗呢是在有和与或把被一个怎么什么为为什么如何哪里怎样不能要会能用看]|怎么|什么|为什么|如何|哪里|怎样|一个|可以|是不是|能不能|要不要|the|of|to|be|is|a|an|and|in|on|for|not|but|at|with|error|torch|nn|np|self|runtimeerror|typeerror|valueerror)$/i;
  const MAX_WORDS = 16;

  // 繁体的查询也能找：技术书里常用的这些字换成简体。
  const FOLD = "張张維维數数據据習习訓训練练網网絡络層层損损運运動动導导圖图標标籤签類类環环裝装"
    + "顯显內内節节報报錯错誤误誰谁過过擬拟測测試试驗验證证優优權权幾几個个來来為为時时開开關关"
    + "對对應应該该轉转換换連连續续斷断計计積积歸归約约廣广學学變变還还輸输與与會会沒没讓让單单";
  const PAIRS = new Map([...FOLD].flatMap((char, i, all) => (i % 2 ? [] : [[char, all[i + 1]]])));
  const simplified = (text) => [...text].map((char) => PAIRS.get(char) || char).join("");

  async function queryWords(from, query) {
    const words = [];
    for (const run of simplified(query.normalize("NFKC")).match(RUN) || []) {
      words.push(...(isHan(run) ? await cutRun(from, run) : [run, run.split(".").pop()]));
    }
    const telling = words.filter((word) => !STOP.test(word));
    return [...new Set(telling.length ? telling : words)].slice(0, MAX_WORDS);
  }

  // 有几个词就算几个词：一个词越少见越要紧，全都有的排最前。
  async function find(from, words) {
    const lists = await Promise.all(
      words.map((word, i) => from.sections(word, i === words.length - 1)));
    const sections = new Map();
    let most = 0;
    for (const results of lists) {
      if (!results.length) continue;
      const rarity = Math.log(1 + COMMON / results.length);
      const best = Math.max(...results.map((result) => result.score));
      most += rarity;
      for (const result of results) {
        const section = sections.get(result.id) || { result, points: 0, share: 0 };
        section.points += rarity * result.score / best;
        section.share += rarity;
        sections.set(result.id, section);
      }
    }
    return [...sections.values()]
      .map(({ result, points, share }) => ({ result, points: points * (share / most) ** 2 + share / 5 }))
      .sort((one, two) => two.points - one.points);
  }

  // 讲它的章节在前，诊所和词典在中间，接口页和测量页在后。
  const standing = (url) => (/chapters\/\d/.test(url) ? 1 : url.includes("/chapters/") ? 0.37 : 0.33);

  // 最要紧的 most 节；total 是一共几节，words 是按哪些词找的。
  async function answer(from, query, most) {
    const words = await queryWords(from, query);
    const found = await find(from, words);
    const hits = await Promise.all(found.slice(0, 2 * most).map(async ({ result, points }) => {
      const hit = await result.data();
      return { hit, points: points * standing(hit.url) };
    }));
    hits.sort((one, two) => two.points - one.points);
    return { words, total: found.length, hits: hits.slice(0, most).map(({ hit }) => hit) };
  }

  function pattern(words) {
    const escaped = words.map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
    return new RegExp(`(${escaped.join("|")})`, "i");
  }

  // 第一处命中前后的一段文字，命中的词放进 <mark>。
  function excerpt(text, words) {
    const match = pattern(words);
    const at = Math.max(0, text.search(match));
    const start = Math.max(0, at - 18);
    const piece = (start ? "…" : "") + text.slice(start, at + 62) + "…";
    return piece.split(match).map((part, i) => {
      if (i % 2 === 0) return part;
      const mark = document.createElement("mark");
      mark.textContent = part;
      return mark;
    });
  }

  function hitElement({ url, meta }, words) {
    const item = document.createElement("li");
    const link = document.createElement("a");
    const title = document.createElement("b");
    const page = document.createElement("small");
    const text = document.createElement("span");
    link.href = url;
    title.textContent = meta.title;
    page.textContent = meta.page === meta.title ? "" : meta.page;
    text.append(...excerpt(meta.text, words));
    link.append(title, page, text);
    item.append(link);
    return item;
  }

  // 查 query，结果放进 list；等的时候又换了查询，就作罢。
  async function fill(status, list, load, query, most) {
    list.dataset.query = query;
    if (!query) {
      status.textContent = list.textContent = "";
      return;
    }
    try {
      const { words, total, hits } = await answer(await load(), query, most);
      if (list.dataset.query !== query) return;
      const more = total > hits.length ? `，列出前 ${hits.length} 节` : "";
      status.textContent = hits.length ? `${total} 节${more}` : "没有找到。换个说法试试。";
      list.textContent = "";
      list.append(...hits.map((hit) => hitElement(hit, words)));
    } catch {
      status.textContent = "读不到搜索索引。连上网再搜一次。";
    }
  }

  function setUpDialog(dialog) {
    const form = dialog.querySelector("form");
    const input = dialog.querySelector("input");
    const status = dialog.querySelector(".search-status");
    const list = dialog.querySelector(".search-hits");
    const search = () =>
      fill(status, list, loadIndex, input.value.trim().slice(0, LONGEST), MAX_HITS);

    function open(event) {
      event.preventDefault();
      if (!dialog.open) dialog.showModal();
      input.select();
      loadIndex().catch(() => {});
    }

    function move(event) {
      const links = [...list.querySelectorAll("a")];
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (!step || !links.length) return;
      event.preventDefault();
      const next = links.indexOf(document.activeElement) + step;
      (links[next] || (next < 0 ? input : links[0])).focus();
    }

    document.querySelector(".search-open").addEventListener("click", open);
    dialog.querySelector(".search-close").addEventListener("click", () => dialog.close());
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    dialog.addEventListener("keydown", move);
    list.addEventListener("click", () => dialog.close());
    input.addEventListener("input", search);
    form.addEventListener("submit", (event) => {
      const first = list.querySelector("a");
      if (!first) return;   // 没有结果：照常提交，到备用搜索页
      event.preventDefault();
      first.click();
    });
    addEventListener("keydown", (event) => {
      if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") open(event);
    });
  }

  // 备用搜索页：?q= 里是查询，谁都能写；只当文字比较。
  function setUpPage(form) {
    const query = (new URLSearchParams(location.search).get("q") || "").slice(0, LONGEST).trim();
    form.querySelector("input").value = query;
    const list = document.getElementById("search-results");
    fill(document.getElementById("search-progress"), list, loadPlain, query, MAX_PAGE_HITS);
  }

  setUpDialog(document.querySelector(".search-dialog"));
  const page = document.querySelector(".search-page");
  if (page) addEventListener("DOMContentLoaded", () => setUpPage(page));   // 等原文的脚本
})();
