"""预检：每种不合适一句话，说清怎么办；都不靠弄坏机器来测。"""

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from tools import preflight
from tools.preflight import Stop
from tools.pythons import find_python

ROOT = Path(__file__).resolve().parents[2]
Usage = namedtuple("Usage", "total used free")
Done = namedtuple("Done", "returncode stderr")


def said(call, *arguments) -> str:
    with pytest.raises(Stop) as caught:
        call(*arguments)
    return str(caught.value)


def test_old_python_is_told_both_versions_and_the_way_out():
    text = said(preflight.check_python, (3, 10, 13))
    assert "3.11" in text and "3.10" in text and "tools/book.py book" in text


@pytest.mark.parametrize("version", [(3, 11, 0), (3, 13, 1), (4, 0)])
def test_new_enough_python_passes(version):
    preflight.check_python(version)


@pytest.mark.parametrize("name", ["venv", "ensurepip"])
def test_missing_venv_module_names_the_package_to_install(monkeypatch, name):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == name else real(n))
    text = said(preflight.check_venv_module)
    assert name in text and "apt-get install python3-venv" in text


def test_full_disk_is_told_how_much_is_left(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 9_940_000_000))
    text = said(preflight.check_disk, tmp_path)
    assert "9.9 GB" in text and "10 GB" in text


def test_ten_free_gigabytes_are_enough(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 10_000_000_000))
    preflight.check_disk(tmp_path)


@pytest.fixture
def pins(tmp_path):
    path = tmp_path / "requirements.txt"
    path.write_text("# 说明\ntorch==9.9.9\nnbclient==0.11.0\n", encoding="utf-8")
    return path


def test_registry_is_tried_with_one_small_pin(monkeypatch, pins):
    commands = []
    monkeypatch.setattr(
        subprocess, "run", lambda command, **_: commands.append(command) or Done(0, b"")
    )
    preflight.check_registry(Path("py"), pins)
    (command,) = commands
    assert command[:4] == ["py", "-m", "pip", "download"]
    assert "nbclient==0.11.0" in command and "--no-deps" in command
    assert not any(word.startswith("torch") for word in command)


def test_refused_registry_is_one_sentence_with_the_last_word_of_pip(monkeypatch, pins):
    answer = Done(1, b"WARNING: retrying\nERROR: No matching distribution found\n\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: answer)
    text = said(preflight.check_registry, Path("py"), pins)
    assert "\n" not in text and "retrying" not in text
    assert "index-url" in text and "No matching distribution found" in text


def test_silent_registry_is_given_up(monkeypatch, pins):
    def never(command, timeout, **_):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", never)
    assert "没有回音" in said(preflight.check_registry, Path("py"), pins)


def test_real_pip_reports_a_closed_port_as_unreachable(monkeypatch, pins):
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    assert "软件源取不到包" in said(preflight.check_registry, Path(sys.executable), pins)


@pytest.mark.parametrize("name", ["book.py", "preflight.py"])
def test_old_python_can_read_the_files_that_refuse_it(name):
    text = (ROOT / "tools" / name).read_text(encoding="utf-8")
    ast.parse(text, feature_version=(3, 7))
    assert "from __future__" not in text


def test_a_real_old_python_gets_the_sentence_not_a_traceback():
    old = next(filter(None, (find_python(f"3.{n}", ROOT) for n in (7, 8, 9, 10))), None)
    if old is None:
        pytest.skip("这台机器上没有旧 Python")
    done = subprocess.run([old, ROOT / "tools/book.py", "book"], capture_output=True, timeout=60)
    text = done.stderr.decode("utf-8")
    assert done.returncode == 1 and "需要 Python 3.11" in text and "Traceback" not in text
