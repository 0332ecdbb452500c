"""核对轮子：标记按目标系统算；用手造的轮子和真的 pip，不联网。"""

import os
import zipfile
from pathlib import Path

import pytest

from tools import pins
from tools.pins import SOURCE_ONLY, TARGETS, resolve, split_pins

LINUX, WINDOWS, MAC = TARGETS
ROOT = Path(__file__).resolve().parents[2]


def make_wheel(folder: Path, name: str, tag: str, requires: str = "") -> None:
    info = f"{name}-1.0.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{requires}"
    wheel = f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n"
    with zipfile.ZipFile(folder / f"{name}-1.0-{tag}.whl", "w") as file:
        file.writestr(f"{info}/METADATA", metadata)
        file.writestr(f"{info}/WHEEL", wheel)
        file.writestr(f"{info}/RECORD", "")


@pytest.fixture
def shelf(monkeypatch, tmp_path):
    """一个只有手造轮子的软件源。"""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    return tmp_path


def test_a_wheel_of_one_system_does_not_serve_another(shelf):
    make_wheel(shelf, "alpha", "cp312-cp312-win_amd64")
    assert resolve(["alpha==1.0"], "3.12", WINDOWS) == ""
    assert "alpha" in resolve(["alpha==1.0"], "3.12", LINUX)
    assert "alpha" in resolve(["alpha==1.0"], "3.13", WINDOWS)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_markers_are_those_of_the_target_not_of_this_machine(shelf, target):
    make_wheel(shelf, "beta", "py3-none-any", 'Requires-Dist: nosuch; sys_platform == "darwin"\n')
    reason = resolve(["beta==1.0"], "3.12", target)
    assert ("nosuch" in reason) == (target is MAC)


def test_an_older_manylinux_wheel_serves_linux(shelf):
    make_wheel(shelf, "gamma", "cp313-cp313-manylinux_2_17_x86_64")
    assert resolve(["gamma==1.0"], "3.13", LINUX) == ""
    make_wheel(shelf, "delta", "cp313-cp313-manylinux_2_34_x86_64")
    assert "delta" in resolve(["delta==1.0"], "3.13", LINUX)


def test_pins_are_split_and_comments_dropped():
    text = "# 说明\n\ntorch==2.15.0  # 主角\njieba==0.42.1\n"
    assert split_pins(text) == (["torch==2.15.0"], ["jieba==0.42.1"])


def test_every_requirement_of_the_book_is_pinned_exactly():
    with_wheels, source_only = split_pins((ROOT / "requirements.txt").read_text(encoding="utf-8"))
    assert all("==" in pin for pin in with_wheels + source_only)
    assert [pin.split("==")[0] for pin in source_only] == list(SOURCE_ONLY)


@pytest.mark.parametrize(("reason", "code"), [("", 0), ("ERROR: 没有轮子", 1)])
def test_the_exit_code_says_whether_every_cell_is_good(monkeypatch, capsys, reason, code):
    monkeypatch.setattr(pins, "resolve", lambda *_: reason)
    monkeypatch.setattr(pins, "builds_pure_wheel", lambda _: "")
    assert pins.main() == code
    shown = capsys.readouterr().out
    assert shown.count("macOS 14 arm64") == 3 and ("✗" in shown) == bool(code)
