"""本书的 Sphinx 扩展：公式、章首事实、站内搜索与页面瘦身、伴学包的接口页，一件事一个模块。"""

from __future__ import annotations

import hashlib
import os
from importlib import import_module
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config

from . import notebooks

SITE = Path(__file__).resolve().parents[1]
PARTS = ("anchors", "api", "benches", "katex", "chapters", "prose", "folds", "facts", "notebooks")
PARTS += ("translator", "page", "outputs", "clinic", "dictionary", "routes", "home", "search")
PARTS += ("public", "shipped")


def digest(srcdir: str | Path) -> str:
    """本扩展、它用到的工具、模板与执行记录的摘要；变了就重写全部页面。"""
    files = [p for ext in ("*.py", "*.html", "*.js", "*.txt") for p in SITE.rglob(ext)]
    files += (SITE.parent / "tools").glob("*.py")
    files += [Path(srcdir, "_build", "stats.json")]
    content = b"".join(p.read_bytes() for p in sorted(files) if p.is_file())
    return hashlib.sha256(content).hexdigest()[:16]


def configure(app: Sphinx, config: Config) -> None:
    """填上只有构建时才知道的配置：执行缓存的位置、扩展的摘要。"""
    config.book_digest = digest(app.srcdir)
    # 主题是我们自己的模板，Jupyter Book 传来的选项里只有仓库地址有用。
    config.book_repository = dict(config.html_theme_options)
    config.html_theme_options = {}
    cache = os.environ.get("BOOK_CACHE")
    config.nb_execution_cache_path = cache or str(notebooks.cache_path(Path(app.srcdir)))


def setup(app: Sphinx) -> dict[str, object]:
    app.add_config_value("book_digest", "", "html")
    app.add_config_value("book_repository", {}, "html")
    app.add_config_value("comments_config", {}, "")  # Jupyter Book 总会给它一个值
    app.connect("config-inited", configure, priority=400)
    for part in PARTS:
        import_module(f"{__name__}.{part}").setup(app)
    return {"parallel_read_safe": True, "parallel_write_safe": False}
