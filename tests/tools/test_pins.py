"""核对轮子：标记按目标系统算；用手造的轮子和真的 pip，不联网。"""

import os
import re
import sys
import zipfile
from pathlib import Path

import pytest

from tools import pins
from tools.pins import (
    ELSEWHERE,
    SOURCE_ONLY,
    TARGETS,
    canonical,
    installed,
    read_constraints,
    resolve,
    split_pins,
    write_constraints,
)

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


def test_constraints_are_names_and_versions_and_nothing_else():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert [x for x in lines if not re.fullmatch(r"[a-z0-9-]+==[0-9][A-Za-z0-9.!]*", x)] == []
    names = [line.partition("==")[0] for line in lines]
    assert names == sorted(set(names)) and set(ELSEWHERE) <= set(names)


def test_requirements_and_constraints_agree():
    with_wheels, source_only = split_pins((ROOT / "requirements.txt").read_text(encoding="utf-8"))
    for pin in with_wheels + source_only:
        name, _, wanted = pin.partition("==")
        assert read_constraints()[canonical(name.partition("[")[0])] == wanted


@pytest.mark.skipif(not Path(sys.prefix, ".book-stamp").exists(), reason="不是本书备好的环境")
def test_everything_installed_for_the_book_is_pinned():
    pinned, here = read_constraints(), installed()
    if here["torch"] != pinned["torch"]:
        pytest.skip("有意换了 torch 的版本，正在试新的")
    loose = {name: version for name, version in here.items() if pinned.get(name) != version}
    assert loose == {}, "重写 constraints.txt：.venv/bin/python tools/pins.py --write"


def test_a_constraint_holds_an_indirect_dependency(shelf, tmp_path):
    make_wheel(shelf, "alpha", "py3-none-any", "Requires-Dist: beta\n")
    make_wheel(shelf, "beta", "py3-none-any")
    limits = tmp_path / "limits.txt"
    for version, fits in (("1.0", True), ("2.0", False)):
        limits.write_text(f"beta=={version}\n", encoding="utf-8")
        assert (resolve(["alpha==1.0"], "3.12", LINUX, limits) == "") == fits


def test_rewriting_keeps_what_is_installed_only_elsewhere(monkeypatch, tmp_path):
    old = "colorama==0.4.6\ngone==1.0\nnumpy==1.0\n"
    (tmp_path / "constraints.txt").write_text(old, encoding="utf-8")
    monkeypatch.setattr(pins, "installed", lambda: {"numpy": "2.4.6", "attrs": "26.1"})
    write_constraints(tmp_path)
    assert read_constraints(tmp_path) == {"attrs": "26.1", "colorama": "0.4.6", "numpy": "2.4.6"}


@pytest.mark.parametrize(("reason", "code"), [("", 0), ("ERROR: 没有轮子", 1)])
def test_the_exit_code_says_whether_every_cell_is_good(monkeypatch, capsys, reason, code):
    monkeypatch.setattr(pins, "resolve", lambda *_: reason)
    monkeypatch.setattr(pins, "builds_pure_wheel", lambda _: "")
    assert pins.main() == code
    shown = capsys.readouterr().out
    assert shown.count("macOS 14 arm64") == 3 and ("✗" in shown) == bool(code)
