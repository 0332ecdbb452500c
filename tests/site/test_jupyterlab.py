"""在真正的 JupyterLab 里：点选项、只用键盘，组件都照常工作，快捷键抢不走按键。

服务器只听 127.0.0.1，设置和运行文件都在临时文件夹里，不碰用户自己的，也不联网。
"""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from playwright.sync_api import Browser, Page, expect

from companion.book import bet, broadcasting
from companion.book.widgets._questions import find_bet
from tools.nb_format import canonical_text
from tools.reader_words import Book, page_targets
from tools.readers import reader_text

pytest.importorskip("jupyterlab", reason="没有安装 jupyterlab")
CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="没有 chromium，开不了浏览器")

NAME, TOKEN, BET = "第一章.ipynb", "test", "ch01.uint8-minus"
READERS = "读者版.ipynb"
OPTIONS = [
    *("--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1"),
    *(f"--IdentityProvider.token={TOKEN}", "--LabApp.extension_manager=readonly"),
    *("--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"),
]
QUIET = "SETTINGS/@jupyterlab/apputils-extension/notification.jupyterlab-settings"


def stored_notebook() -> str:
    """仓库里存的样子：有输出，脚本和样式只剩名字。"""
    cells = [new_code_cell("from companion.book import bet, broadcasting", id="setup")]
    widgets = {f'bet("{BET}")': bet(BET), "broadcasting()": broadcasting()}
    for source, widget in widgets.items():
        output = new_output("execute_result", {"text/html": widget._repr_html_()})
        cells.append(new_code_cell(source, id=source.partition("(")[0], outputs=[output]))
    return canonical_text(new_notebook(cells=cells))


def readers_notebook() -> str:
    """网站上下载的样子；没有签名，JupyterLab 不信任它的输出。"""
    failed = new_output("error", ename="ValueError", evalue="长度不等")
    widget = new_output("execute_result", {"text/html": bet(BET)._repr_html_()})
    cells = [
        new_markdown_cell("# 小章\n\n先看{ref}`sec-far`。", id="title"),
        new_code_cell("wrong()", id="wrong", outputs=[failed]),
        new_code_cell(f'bet("{BET}")', id="bet", outputs=[widget]),
        new_code_cell("\n".join(["x = 1"] * 200), id="long"),
        new_markdown_cell("(sec-far)=\n## ★ 远处，很远\n\n:::{solution-start} ex\n:::", id="far"),
        new_code_cell("answer = 42", id="sol"),
        new_markdown_cell(":::{solution-end}\n:::", id="end"),
    ]
    notebook, document = new_notebook(cells=cells), "chapters/01_small"
    book = Book({document: "小章"}, dict(page_targets(document, notebook)))
    return reader_text(notebook, document, book)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """JupyterLab 的地址，以 ``/`` 结尾；用完请它自己关，内核一并停下。"""
    home = tmp_path_factory.mktemp("实验室")
    notebook = home / "root" / NAME
    for path in (notebook, home / QUIET):
        path.parent.mkdir(parents=True)
    (home / QUIET).write_text('{"fetchNews": "false"}', encoding="utf-8")
    notebook.write_text(stored_notebook(), encoding="utf-8", newline="\n")
    notebook.with_name(READERS).write_text(readers_notebook(), encoding="utf-8", newline="\n")
    places = {f"JUPYTER_{name}_DIR": str(home / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    places |= {f"JUPYTERLAB_{name}_DIR": str(home / name) for name in ("SETTINGS", "WORKSPACES")}
    env = os.environ | places | {"IPYTHONDIR": str(home / "ipython"), "OMP_NUM_THREADS": "1"}
    python, root = [sys.executable, "-m"], f"--ServerApp.root_dir={notebook.parent}"
    subprocess.run([*python, "nbformat.sign", notebook], env=env, check=True, capture_output=True)
    with (home / "log.txt").open("wb") as log:
        command = [*python, "jupyterlab", *OPTIONS, root]
        server = subprocess.Popen(command, env=env, stdout=log, stderr=log)
        try:
            url = wait_for_url(home / "RUNTIME", server)
            yield url
            urllib.request.urlopen(f"{url}api/shutdown?token={TOKEN}", b"", timeout=10).close()
            server.wait(20)
        finally:
            server.kill()
            server.wait()


def wait_for_url(runtime: Path, server: subprocess.Popen[bytes]) -> str:
    for _ in range(300):
        assert server.poll() is None, "JupyterLab 没有启动成功"
        for text in [path.read_text(encoding="utf-8") for path in runtime.glob("jpserver-*.json")]:
            if text.endswith("}"):
                return json.loads(text)["url"]
        time.sleep(0.1)
    raise AssertionError("等了 30 秒，JupyterLab 还没有启动好")


@pytest.fixture(scope="module")
def page(lab: str, browser: Browser) -> Iterator[Page]:
    """打开了这本笔记的页面，还没有运行；想连外网就算失败。"""
    outside: list[str] = []
    page = browser.new_page(viewport={"width": 1300, "height": 1000})
    page.on("request", lambda r: r.url.startswith((lab, "data:", "blob:")) or outside.append(r.url))
    page.goto(f"{lab}lab/tree/{NAME}?reset&token={TOKEN}")
    page.get_by_text("结果是 (3, 4)").wait_for()
    yield page
    page.close()
    assert outside == []


def test_stored_widgets_are_readable_before_running_and_work_by_keyboard_after(page: Page) -> None:
    node, figure = page.locator('[data-widget="bet"]'), page.locator('[data-widget="broadcasting"]')
    status, options = node.get_by_role("status"), find_bet(BET).options
    first, second, third = [option.reason.replace("`", "") for option in options]
    assert node.get_by_text(options[0].text, exact=True).first.is_visible()
    assert not node.get_by_text(first).is_visible()
    node.locator("summary").click()
    assert node.get_by_text(first).is_visible()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    node.get_by_role("button", name=options[0].text).click(timeout=60_000)
    assert status.inner_text() == f"✗ 没押中。{first}"
    for key, reason in (("Space", second), ("Enter", third)):
        page.keyboard.press("Tab")
        page.keyboard.press(key)
        assert status.inner_text().endswith(reason)
    for key in "abddxxmj":  # 命令模式下会加、删、改单元的键
        page.keyboard.press(key)
    assert page.locator(".jp-Notebook .jp-CodeCell").count() == 3
    assert page.locator(":focus").inner_text().startswith(options[2].text)

    figure.get_by_label("a 的第 −2 维").press("ArrowDown")
    assert figure.get_by_role("status").inner_text() == "✓ 结果的形状是 (4, 4)。"
    with page.expect_request(lambda r: r.method == "PUT" and "/api/contents/" in r.url):
        page.keyboard.press("Control+s")


def test_a_readers_notebook_shows_errors_folds_solutions_and_follows_its_links(
    lab: str, browser: Browser
) -> None:
    page, wrong = browser.new_page(viewport={"width": 1300, "height": 1000}), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: said.type == "error" and wrong.append(said.text))
    page.goto(f"{lab}lab/tree/{READERS}?reset&token={TOKEN}")
    shown = page.locator(".jp-OutputArea-output")
    shown.get_by_text("ValueError: 长度不等").wait_for()
    shown.get_by_text("运行这一格，就能在这里作答。").wait_for()
    heading = page.locator(".jp-Notebook h2", has_text="★ 远处，很远¶")
    heading.wait_for(state="attached")
    expect(heading).not_to_be_in_viewport()
    page.get_by_role("link", name="远处，很远", exact=True).click()
    expect(heading).to_be_in_viewport()
    answer = page.locator("details").get_by_text("answer = 42")
    expect(answer).not_to_be_visible()
    page.get_by_text("解答", exact=True).last.click()
    expect(answer).to_be_visible()
    page.close()
    assert wrong == []
