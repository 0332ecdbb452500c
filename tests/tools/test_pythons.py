"""另外两个 Python：找得到才算数，跑不了的如实说。"""

import os
import sys
from pathlib import Path

import pytest

from tools import pythons

ROOT = Path(__file__).resolve().parents[2]
OWN = f"3.{sys.version_info.minor}"


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """PATH 和家目录里什么都没有的机器。"""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    return tmp_path


def link(path: Path, target: str) -> None:
    path.parent.mkdir(parents=True)
    path.symlink_to(target)


def test_a_machine_without_others_says_so_and_runs_nothing(bare):
    steps = pythons.other_python_steps(Path(sys.executable), bare, "单元测试")
    assert [step.name for step in steps] == [
        f"单元测试 · {version}" for version in pythons.VERSIONS if version != OWN
    ]
    assert all(step.command == () and "没有找到" in step.note for step in steps)


@pytest.mark.skipif(os.name == "nt", reason="Windows 建链接要管理员")
@pytest.mark.parametrize("place", [".venv-{}/bin/python", ".pyenv/versions/{}.9/bin/python"])
def test_an_interpreter_is_found_where_readers_keep_it(bare, place):
    link(bare / place.format(OWN), sys.executable)
    assert pythons.find_python(OWN, bare) is not None


@pytest.mark.skipif(os.name == "nt", reason="Windows 建链接要管理员")
def test_a_folder_that_lies_about_its_version_is_not_believed(bare):
    link(bare / ".venv-3.99/bin/python", sys.executable)
    assert pythons.find_python("3.99", bare) is None


@pytest.mark.parametrize(("has_torch", "runs"), [(True, "tests"), (False, "test_book.py")])
def test_without_torch_only_the_plain_tests_run(monkeypatch, tmp_path, has_torch, runs):
    monkeypatch.setattr(pythons, "find_python", lambda *_: "python3.12")
    monkeypatch.setattr(pythons, "_output", lambda _: "ok" if has_torch else None)
    monkeypatch.setattr(pythons, "_borrow_pytest", lambda *_: tmp_path)
    step = pythons._step("3.12", Path("python"), tmp_path, "单元测试")
    assert step.part_of == "单元测试" and step.command[0] == "python3.12"
    assert any(Path(word).name == runs for word in step.command)
    assert ("没有 torch" in step.note) != has_torch


def test_every_plain_test_file_exists():
    names = [f"test_{name}.py" for name in pythons.PLAIN_TESTS]
    assert [name for name in names if not (ROOT / "tests" / "tools" / name).exists()] == []
