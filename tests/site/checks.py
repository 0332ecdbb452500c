"""一页该守的规矩。每条收打开的页面和它的记录，返回毛病，一处一行；没有就是空表。"""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from .conftest import PREFIX, Log
from .settings import FULL, PHONE, spread

__all__ = ["CHECKS", "axe", "misses", "policy_of", "settled"]

KB = 1024
PLAIN, FORMULAS, WIDGET = 200 * KB, 200 * KB, 20 * KB  # 后两项是加在第一项上的
EAGER = """Promise.all([...document.images].map(image => {
  image.loading = "eager";
  return image.decode().then(() => [], () => [image.src]);
})).then(bad => bad.flat())"""
TOLERANCE = 100  # 像素
OFFSET = """id => {
  const heading = document.getElementById(id).querySelector("h1, h2, h3, h4");
  const bar = document.querySelector(".topbar").getBoundingClientRect().bottom;
  const room = document.documentElement.scrollHeight - innerHeight - scrollY;
  return [heading.getBoundingClientRect().top - bar, room];
}"""
# 颜色对比占 axe 八成的时间，却只由样子决定：字色、字号、粗细、底色都相同的，查头、中、尾三处
AXE = """async everything => {
  const clear = "rgba(0, 0, 0, 0) none 1", grounds = new Map([[null, ""]]), looks = new Map();
  const ground = node => {
    if (!grounds.has(node)) {
      const style = getComputedStyle(node), under = ground(node.parentElement);
      const own = `${style.backgroundColor} ${style.backgroundImage} ${style.opacity}`;
      grounds.set(node, own === clear ? under : `${under} | ${own}`);
    }
    return grounds.get(node);
  };
  const speaks = node => [...node.childNodes].some(n => n.nodeType === 3 && n.data.trim());
  for (const node of document.body.querySelectorAll("*")) {
    if (!speaks(node) || !node.checkVisibility({visibilityProperty: true})) continue;
    const {color, fontSize, fontWeight, textShadow} = getComputedStyle(node);
    const look = [color, fontSize, fontWeight, textShadow, ground(node)].join();
    looks.set(look, [...looks.get(look) ?? [], node]);
  }
  const some = nodes => [nodes[0], nodes[nodes.length >> 1], nodes.at(-1)];
  const include = everything ? [document] : [...new Set([...looks.values()].flatMap(some))];
  const results = [
    await axe.run({resultTypes: ["violations"], rules: {"color-contrast": {enabled: false}}}),
    await axe.run({include}, {resultTypes: ["violations"], runOnly: ["color-contrast"]}),
  ];
  return results.flatMap(result => result.violations)
    .flatMap(({id, nodes}) => nodes.map(node => `${id}: ${node.html.slice(0, 160)}`));
}"""


def axe(page: Page, *, everything: bool = FULL) -> list[str]:
    """返回 axe 找到的毛病；``everything`` 为假时，同一种样子的字只查三处的颜色对比。"""
    page.evaluate(Axe().axe_script)
    return page.evaluate(AXE, everything)


def weight(page: Page, log: Log) -> list[str]:
    """空缓存首次打开时传输的字节，文本按 gzip；图片另算，不在预算里。"""
    sizes = {url: size for url, size in log.sizes.items() if not url.endswith(".png")}
    has_formula = page.locator(".katex").count() > 0
    widgets = sum("/companion/" in url and url.endswith(".js") for url in sizes)
    budget = PLAIN + FORMULAS * has_formula + WIDGET * widgets
    if PLAIN // 40 < sum(sizes.values()) <= budget:
        return []
    listing = "\n".join(f"{size:8d} {url}" for url, size in sorted(sizes.items()))
    return [f"不在预算 {budget} 字节之内：\n{listing}"]


def settled(page: Page) -> None:
    """滚动停了，图也下载完了。"""
    page.wait_for_load_state("networkidle")
    page.wait_for_function(
        """async () => {
          const before = scrollY;
          await new Promise(done => setTimeout(done, 150));
          return before === scrollY;
        }"""
    )


def misses(page: Page, anchor: str) -> list[str]:
    """锚点没有落在标题附近就说差多少；页尾滚不动的不算。"""
    distance, room = page.evaluate(OFFSET, anchor)
    if -TOLERANCE < distance < TOLERANCE or (room < 2 and distance > 0):
        return []
    return [f"{anchor} 差 {distance:.0f} 像素"]


def contents(page: Page, log: Log) -> list[str]:
    """点本页目录里的一项，停在它的标题那里；下面的图这时还没有取。"""
    faults, links = [], page.locator(".page-toc a")
    for i in spread(range(links.count()), links.count() if FULL else 4):
        links.nth(i).click()
        settled(page)
        anchor = links.nth(i).evaluate("link => decodeURIComponent(link.hash.slice(1))")
        faults += misses(page, anchor)
    return faults


def silence(page: Page, log: Log) -> list[str]:
    """从头滚到尾，不连外网，控制台没有话。"""
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    page.wait_for_load_state("networkidle")
    return log.problems()


def names(page: Page, log: Log) -> list[str]:
    """语言、唯一的大标题、窗口标题、每张图的替代文字。"""
    headings = page.locator("h1").all_inner_texts()
    wordless = page.locator("article img:not([alt]), article img[alt='']").count()
    facts = {
        "语言不是 zh-CN": page.evaluate("document.documentElement.lang") == "zh-CN",
        f"h1 有 {len(headings)} 个": len(headings) == 1,
        f"窗口标题 {page.title()} 不是大标题": page.title().startswith(
            headings[0].rstrip("#").strip() if headings else "没有"
        ),
        f"{wordless} 张图没有替代文字": wordless == 0,
    }
    return [fault for fault, fine in facts.items() if not fine]


def formulas(page: Page, log: Log) -> list[str]:
    """有公式才取公式的样式；不在浏览器里排公式。"""
    styled = page.locator("link[href*='katex']").count() > 0
    used = page.locator(".katex").count() > 0
    engines = page.locator("script[src*='mathjax' i]").count()
    faults = [] if styled == used else [f"有公式：{used}，取了样式：{styled}"]
    return faults + ["用了 MathJax"] * engines


def licenses(page: Page, log: Log) -> list[str]:
    """页脚通到许可页。"""
    path = page.locator(".page-foot a").evaluate("link => link.pathname")
    return [] if path == f"{PREFIX}licenses.html" else [f"页脚通到 {path}"]


def policy_of(page: Page) -> dict[str, str]:
    """返回这一页的安全策略：项 → 允许的来源。"""
    meta = page.locator("meta[http-equiv='Content-Security-Policy']")
    content = meta.get_attribute("content") or ""
    return {rule.split()[0]: " ".join(rule.split()[1:]) for rule in content.split(";")}


def policy(page: Page, log: Log) -> list[str]:
    """只放行那一段写在页里的脚本。"""
    rules = policy_of(page)
    scripts, default = rules["script-src"], rules["default-src"]
    inline = page.locator("script:not([src])").all_text_contents()
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in inline]
    handlers = page.locator("[onclick], [onerror], [onload], style").count()
    facts: dict[str, Any] = {
        f"default-src 是 {default}": default == "'none'",
        f"script-src 太宽：{scripts}": "unsafe-inline" not in scripts,
        f"script-src 放行了 eval：{scripts}": "'unsafe-eval'" not in scripts,
        f"页里写了 {len(inline)} 段脚本，或散列对不上": len(digests) == 1
        and f"'sha256-{digests[0]}'" in scripts,
        f"{handlers} 处写在标签里的脚本或样式": handlers == 0,
    }
    return [fault for fault, fine in facts.items() if not fine]


def pictures(page: Page, log: Log) -> list[str]:
    """每张图都解得开。"""
    return [f"解不开：{url}" for url in page.evaluate(EAGER)]


def fits_a_phone(page: Page, log: Log) -> list[str]:
    """手机那么宽时不横向滚动。"""
    before = page.viewport_size
    page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
    width = page.evaluate("document.documentElement.scrollWidth")
    page.set_viewport_size(before)  # type: ignore[arg-type]
    return [] if width == PHONE[0] else [f"{PHONE[0]} 像素的屏幕上宽 {width}"]


# 次序要紧：先称重，再点目录，最后滚到底；滚过之后图才都来取
CHECKS = (weight, contents, silence, names, formulas, licenses, policy, pictures, fits_a_phone)
