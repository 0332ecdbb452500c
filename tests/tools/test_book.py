"""两个命令：命令表、Makefile、CI 与 README 说的是同一回事；出错时说人话。"""

import re
import sys
from pathlib import Path

import pytest

from tools import book, pythons, recipes
from tools.preflight import Stop
from tools.steps import Interrupted, Result, Step

ROOT = Path(__file__).resolve().parents[2]


def test_help_lists_every_command(capsys):
    assert book.main([]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in book.COMMANDS)


def test_unknown_command_shows_the_list_and_exits_2(capsys):
    assert book.main(["bok"]) == 2
    shown = capsys.readouterr().err
    assert "没有 bok 这个命令" in shown and "site-test" in shown


def test_a_stop_is_one_line_and_exit_code_1(monkeypatch, capsys):
    def stop(*_):
        raise Stop("这个盘只剩 3 GB。")

    monkeypatch.setattr(recipes, "run", stop)
    assert book.main(["book"]) == 1
    assert capsys.readouterr().err == "✗ 这个盘只剩 3 GB。\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (KeyboardInterrupt(), "✗ 已按 Ctrl-C 停下；做完的都留着，再运行一次会接着做。\n"),
        (Interrupted("✗ 停在 01_tensors 单元 setup"), "✗ 停在 01_tensors 单元 setup\n"),
    ],
)
def test_ctrl_c_is_one_line_and_exit_code_130(monkeypatch, capsys, error, line):
    def interrupt(*_):
        raise error

    monkeypatch.setattr(recipes, "run", interrupt)
    assert book.main(["test"]) == 130
    assert capsys.readouterr().out == line


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """让菜谱在空文件夹里跑，只记下要运行的命令；``failing`` 里的词让命令失败。"""
    seen: list[str] = []
    seen_failing: set[str] = set()

    def fake(command, _env, _cwd, **_):
        line = " ".join(map(str, command[1:]))
        seen.append(line)
        return int(any(word in line for word in seen_failing)), fake.output

    monkeypatch.setattr(recipes, "ready", lambda place: place.python)
    monkeypatch.setattr(recipes, "stream", fake)
    monkeypatch.setattr(recipes, "other_python_steps", lambda *_, **__: [])
    (tmp_path / "_build" / "html").mkdir(parents=True)
    (tmp_path / "_build" / "html" / "index.html").touch()
    fake.seen, fake.failing, fake.root, fake.output = seen, seen_failing, tmp_path, ""
    return fake


def test_book_executes_then_builds_strictly_then_adds_the_wheel(calls, capsys):
    stats = '{"chapters/01_tensors": {"seconds": 12.3}}'
    (calls.root / "_build" / "stats.json").write_text(stats, encoding="utf-8")
    assert recipes.run("book", [], calls.root) == 0
    execute, build, wheel = calls.seen
    assert execute == "tools/execute.py"
    assert wheel == f"tools/wheel.py {calls.root / '_build' / 'html'}"
    assert build.endswith("build . -W -n --keep-going")
    shown = capsys.readouterr().out
    assert "12.3 秒  chapters/01_tensors" in shown
    assert str(calls.root / "_build" / "html" / "index.html") in shown


def test_book_does_not_build_after_a_failing_cell(calls):
    calls.failing.add("execute.py")
    assert recipes.run("book", [], calls.root) == 1
    assert calls.seen == ["tools/execute.py"]


def test_a_failed_build_shows_its_warnings_and_stops(calls, capsys):
    calls.failing.add("build .")
    calls.output = "reading\n\x1b[91mintro.md:3: WARNING: 找不到 term-x\x1b[39;49;00m\nwriting\n"
    with pytest.raises(Stop, match="没有建成"):
        recipes.run("book", [], calls.root)
    shown = capsys.readouterr().out
    assert shown.endswith("WARNING: 找不到 term-x\n") and "reading" not in shown
    log = (calls.root / "_build" / "site.log").read_text(encoding="utf-8")
    assert log == "reading\nintro.md:3: WARNING: 找不到 term-x\nwriting\n"


@pytest.fixture
def built(calls):
    """一本刚建成的小书。"""
    (calls.root / "chapters").mkdir()
    (calls.root / "chapters" / "01_x.ipynb").write_text("一", encoding="utf-8")
    recipes.run("book", [], calls.root)
    calls.seen.clear()
    return calls


def test_an_unchanged_book_is_not_built_again(built):
    assert recipes.run("book", [], built.root) == 0
    assert built.seen == ["tools/execute.py"]


@pytest.mark.parametrize("name", ["chapters/01_x.ipynb", "intro.md", "site/book.css"])
def test_any_changed_source_builds_again(built, name):
    (built.root / name).parent.mkdir(exist_ok=True)
    (built.root / name).write_text("二", encoding="utf-8")
    recipes.run("book", [], built.root)
    assert len(built.seen) == 3


def test_after_a_failed_build_the_next_one_builds_again(built):
    (built.root / "intro.md").write_text("二", encoding="utf-8")
    built.failing.add("build .")
    with pytest.raises(Stop):
        recipes.run("book", [], built.root)
    built.failing.clear()
    (built.root / "intro.md").unlink()  # 改回建成时的样子也不能当作建好了
    recipes.run("book", [], built.root)
    assert [line.split()[0] for line in built.seen].count("-c") == 2  # 建了两次站


def test_execute_stores_the_outputs_of_the_named_chapters(calls):
    assert recipes.run("execute", ["01_tensors"], calls.root) == 0
    assert calls.seen == ["tools/execute.py --write 01_tensors"]


def test_site_test_needs_a_built_site(calls):
    (calls.root / "_build" / "html" / "index.html").unlink()
    with pytest.raises(Stop, match="make book"):
        recipes.run("site-test", [], calls.root)


def test_children_get_the_fixed_arithmetic_and_the_venv_first(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "elsewhere")
    env = recipes._environment(tmp_path / "bin" / "python")
    assert env["OMP_NUM_THREADS"] == "1" and env["MKL_CBWR"] == "AVX2"
    assert env["ATEN_CPU_CAPABILITY"] == "avx2" and env["ONEDNN_MAX_CPU_ISA"] == "AVX2"
    assert env["PATH"].startswith(str(tmp_path / "bin"))


@pytest.mark.parametrize(("failed", "code"), [(0, 0), (1, 1)])
def test_the_exit_code_follows_the_summary(monkeypatch, tmp_path, capsys, failed, code):
    results = [Result("x", failed, 1 - failed, failed, 0, 0.1)]
    monkeypatch.setattr(recipes, "ready", lambda place: place.python)
    monkeypatch.setattr(recipes, "run_steps", lambda *_: results)
    assert recipes.run("check", [], tmp_path) == code
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"{1 - failed} passed, {failed} failed, 0 skipped"


@pytest.fixture
def no_copies(monkeypatch, tmp_path):
    monkeypatch.setattr(pythons, "_borrow_pytest", lambda *_: tmp_path)


def test_test_does_everything_that_check_does_and_more(no_copies):
    python = Path(sys.executable)
    quick = recipes._check_steps(python, ROOT)
    full = recipes._test_steps(python, ROOT)
    assert full[: len(quick)] == quick
    tail = [" ".join(map(str, step.command)) for step in full[len(quick) :]]
    assert "pytest tests --ignore" in tail[0]
    assert "execute.py" in tail[-2] and tail[-1].endswith("tests/exercises tests/chapters")
    assert all(step.tests != ("execute.py" in str(step.command)) for step in full[len(quick) :])
    assert [step.name[-4:] for step in full if step.part_of] == [
        version for version in ("3.12", "3.13") if version != f"3.{sys.version_info.minor}"
    ]


@pytest.mark.parametrize("command", ["check", "test"])
def test_every_script_that_a_step_calls_exists(no_copies, command):
    steps = getattr(recipes, f"_{command}_steps")(Path(sys.executable), ROOT)
    words = [str(word) for step in steps for word in step.command]
    scripts = [word for word in words if re.fullmatch(r"(tools|tests)/.+\.py", word)]
    assert len(scripts) >= 4
    assert [name for name in scripts if not (ROOT / name).exists()] == []


def test_steps_of_an_absent_python_run_nothing():
    assert Step("x", part_of="y").command == ()


def test_clean_keeps_the_venv_and_clean_all_does_not(tmp_path):
    for name in ("_build/html", ".venv", ".venv-3.13", "chapters"):
        (tmp_path / name).mkdir(parents=True)
    assert recipes.run("clean", [], tmp_path) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == [".venv", ".venv-3.13", "chapters"]
    assert recipes.run("clean", ["--all"], tmp_path) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["chapters"]


def test_clean_all_refuses_to_remove_the_python_it_runs_on(monkeypatch, tmp_path):
    (tmp_path / ".venv").mkdir()
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    with pytest.raises(Stop, match="系统的 Python"):
        recipes.run("clean", ["--all"], tmp_path)
    assert (tmp_path / ".venv").exists()
