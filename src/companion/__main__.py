"""``python -m companion``：打印一段环境信息，提问题时贴上它。"""

from dataclasses import asdict

from companion import __book__, __version__
from companion._common import emit
from companion.repro import environment

__all__ = ["report"]


def report() -> str:
    """环境报告，一行一项。"""
    now = environment()
    lines = [f"《{__book__}》companion {__version__}", repr(now)]
    lines += [f"  {name:<8} {value}" for name, value in asdict(now).items()]
    return "\n".join(lines)


if __name__ == "__main__":
    emit(report() + "\n")
