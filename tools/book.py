"""本书的命令行入口：``python tools/book.py 命令``，不带命令时列出全部命令。

只用标准库。语法停在 Python 3.7：旧 Python 也要能读到"请装新的"那句话。
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.preflight import Stop, check_python  # noqa: E402  先有上一行才找得到

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "book": "装依赖、执行章节、建站，最后给出首页的路径",
    "test": "装依赖，再做全部检查和测试，最后给出一张小结",
    "check": "几十秒的快查：风格、类型、笔记本规范、覆盖数",
    "execute": "只执行章节并存下文字输出；可以跟章节名，如 execute 01_tensors",
    "serve": "在本机打开建好的网站",
    "format": "把笔记本、代码和中文排版整理成规范的样子",
    "site-test": "用浏览器检查建好的网站",
    "faults": "全部故障测试：杀进程、坏文件、断点续训逐步核对，十几分钟",
    "pythons": "在 3.12 和 3.13 上也装好依赖，跑伴学包的单元测试",
    "bench": "全部测量：与同行并排跑，结果写进 benchmarks/results",
    "pins": "核对每个依赖在三种系统、三个 Python 上都有轮子；--write 重写 constraints.txt",
    "clean": "删掉 _build；clean --all 连 .venv、.venv-3.12 等也删",
    "help": "列出这些命令",
}


def main(arguments: "list[str]") -> int:
    """返回退出码：0 成功，1 没过，2 命令写错，130 被 Ctrl-C 打断。"""
    for out in (sys.stdout, sys.stderr):
        if hasattr(out, "reconfigure"):
            out.reconfigure(encoding="utf-8", errors="replace")
    name, rest = (arguments[0], arguments[1:]) if arguments else ("help", [])
    try:
        if name in ("help", "-h", "--help"):
            print(help_text())
            return 0
        if name not in COMMANDS:
            print(f"没有 {name} 这个命令。\n\n{help_text()}", file=sys.stderr)
            return 2
        check_python(sys.version_info)
        from tools import recipes

        return recipes.run(name, rest, ROOT)
    except Stop as stop:
        print(f"✗ {stop}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        line = getattr(error, "line", "")
        print(line or "✗ 已按 Ctrl-C 停下；做完的都留着，再运行一次会接着做。")
        return 130


def help_text() -> str:
    """返回命令清单，一行一个。"""
    width = max(len(name) for name in COMMANDS) + 2
    lines = [f"  {name.ljust(width)}{text}" for name, text in COMMANDS.items()]
    return "\n".join(["用法：python tools/book.py 命令", "", *lines])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
