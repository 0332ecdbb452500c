"""另外两个 Python：找得到才算数，跑不了的如实说。"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools import pythons
from tools.preflight import Stop

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
    step = pythons._step("3.12", Path("python"), tmp_path, "单元测试", prepare=False)
    assert step.part_of == "单元测试" and step.command[0] == "python3.12"
    assert any(Path(word).name == runs for word in step.command)
    assert ("没有 torch" in step.note) != has_torch


def test_what_did_not_run_says_how_to_run_it(monkeypatch, tmp_path):
    monkeypatch.setattr(pythons, "find_python", lambda *_: "python3.12")
    monkeypatch.setattr(pythons, "_output", lambda _: None)
    monkeypatch.setattr(pythons, "_borrow_pytest", lambda *_: tmp_path)
    step = pythons._step("3.12", Path("python"), tmp_path, "单元测试", prepare=False)
    assert "python tools/book.py pythons" in step.note


@pytest.mark.parametrize(
    ("value", "runs"), [(None, False), ("", False), ("false", False), ("0", False), ("true", True)]
)
def test_only_ci_installs_torch_elsewhere_unasked(monkeypatch, tmp_path, value, runs):
    monkeypatch.delenv("CI", raising=False)
    if value is not None:
        monkeypatch.setenv("CI", value)
    monkeypatch.setattr(pythons, "find_python", lambda *_: "python3")
    monkeypatch.setattr(pythons, "_borrow_pytest", lambda *_: tmp_path)
    monkeypatch.setattr(pythons, "_output", lambda _: None)
    for step in pythons.other_python_steps(Path("python"), tmp_path, "单元测试"):
        assert ("tools/pythons.py" in step.command) == runs
    asked = pythons.other_python_steps(Path("python"), tmp_path, "单元测试", prepare=True)
    assert [step.command[-1] for step in asked] == list(pythons.VERSIONS)


def test_each_version_gets_its_own_venv_and_the_exit_code_of_pytest(monkeypatch, tmp_path):
    ran = []

    def run(command, **_):
        ran.append(command)
        return subprocess.CompletedProcess(command, 1 if "3.12" in str(command[0]) else 0)

    monkeypatch.setattr(pythons, "find_python", lambda version, *_, **__: f"python{version}")
    monkeypatch.setattr(pythons, "ready", lambda place: place.python)
    monkeypatch.setattr(subprocess, "run", run)
    codes = [pythons.main(v, "--junitxml=x.xml", root=tmp_path) for v in ("3.12", "3.13")]
    assert codes == [1, 0]
    assert [Path(command[0]).parts[-3] for command in ran] == [".venv-3.12", ".venv-3.13"]
    assert all(command[-2:] == ["tests/companion", "--junitxml=x.xml"] for command in ran)


def test_an_absent_version_stops_with_one_line(bare):
    with pytest.raises(Stop, match=r"没有找到 Python 3\.99"):
        pythons.main("3.99", root=bare)


@pytest.mark.skipif(os.name == "nt", reason="Windows 建链接要管理员")
def test_a_venv_is_not_made_by_the_python_inside_it(bare):
    link(bare / f".venv-{OWN}/bin/python", sys.executable)
    assert pythons.find_python(OWN, bare) is not None
    assert pythons.find_python(OWN, bare, own=False) is None


def test_every_plain_test_file_exists():
    names = [f"test_{name}.py" for name in pythons.PLAIN_TESTS]
    assert [name for name in names if not (ROOT / "tests" / "tools" / name).exists()] == []
