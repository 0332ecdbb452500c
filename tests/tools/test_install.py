"""备好 .venv：什么都没变就不装；该先检查的先检查；没装成不留凭据。"""

import subprocess
from collections import namedtuple
from pathlib import Path

import pytest

from tools import install
from tools.install import Place, ready
from tools.preflight import Stop

Done = namedtuple("Done", "returncode stdout stderr")


class Machine:
    """假机器：记下先后发生的事，不真的建环境、不联网。"""

    def __init__(self, monkeypatch, tmp_path: Path) -> None:
        self.events: list[str] = []
        self.version = ""  # .venv 里的 Python；空串表示还没有
        self.offline_ok = False
        self.broken: str | None = None  # 哪一步失败
        self.place = Place(tmp_path / "我的 笔记")
        self.place.root.mkdir()
        self.write("requirements.txt", "torch==2.15.0\ntorchvision==0.29.2\nnumpy==2.4.6\n")
        self.write("constraints.txt", "pillow==12.0.0\n")
        self.write("pyproject.toml", "[project]\n")
        monkeypatch.setattr(subprocess, "run", self.run)
        for name in ("check_venv_module", "check_disk", "check_registry"):
            monkeypatch.setattr(install, name, lambda *_, name=name: self.check(name))
        monkeypatch.delenv("BOOK_TORCH_INDEX", raising=False)

    def write(self, name: str, text: str) -> None:
        (self.place.root / name).write_text(text, encoding="utf-8")

    def check(self, name: str) -> None:
        self.events.append(name)
        if self.broken == name:
            raise Stop(name)

    def run(self, command, **_) -> Done:
        words = [str(word) for word in command]
        if "sys.version_info" in words[-1]:
            return Done(0 if self.version else 1, self.version.encode(), b"")
        if "--dry-run" in words:
            return Done(0 if self.offline_ok else 1, b"", b"")
        if words[1:3] == ["-m", "venv"]:
            self.place.venv.mkdir(exist_ok=True)
            self.version = "3.11.7"
            return self.done("venv")
        if "-e" in words:
            return self.done("companion")
        if "--index-url" in words:
            return self.done("cpu torch: " + " ".join(words[words.index("--index-url") + 1 :]))
        assert words[-4:] == ["-r", str(self.place.requirements), "-c", str(self.place.constraints)]
        return self.done("pins offline" if "--no-index" in words else "pins")

    def done(self, event: str) -> Done:
        self.events.append(event)
        return Done(int(event == self.broken), b"", b"ERROR: disk on fire")


@pytest.fixture
def machine(monkeypatch, tmp_path):
    return Machine(monkeypatch, tmp_path)


EVERYTHING = ["check_venv_module", "check_disk", "venv"]
EVERYTHING += ["check_disk", "check_registry", "pins", "companion"]


def test_a_bare_machine_is_checked_before_each_thing_is_installed(machine):
    assert ready(machine.place) == machine.place.python
    assert machine.events == EVERYTHING


def test_another_venv_is_made_by_another_python(machine, monkeypatch):
    made = []
    other = Place(machine.place.root, ".venv-3.13", "python3.13")
    machine.place = other
    run = machine.run
    monkeypatch.setattr(
        subprocess, "run", lambda command, **_: made.append(command) or run(command)
    )
    assert ready(other) == other.python and other.venv.name == ".venv-3.13"
    assert ["python3.13", "-m", "venv", "--clear", str(other.venv)] in made


def test_nothing_is_run_again_while_nothing_changes(machine):
    ready(machine.place)
    machine.events.clear()
    ready(machine.place)
    assert machine.events == []


@pytest.mark.parametrize("name", ["requirements.txt", "constraints.txt", "pyproject.toml"])
def test_a_changed_file_installs_again_into_the_same_venv(machine, name):
    ready(machine.place)
    machine.events.clear()
    machine.write(name, "numpy==2.5.0\n")
    ready(machine.place)
    assert machine.events == ["check_disk", "check_registry", "pins", "companion"]


def test_another_python_in_the_venv_installs_again(machine):
    ready(machine.place)
    machine.events.clear()
    machine.version = "3.12.1"
    ready(machine.place)
    assert "pins" in machine.events and "venv" not in machine.events


def test_a_broken_venv_is_made_again(machine):
    ready(machine.place)
    machine.events.clear()
    machine.version = ""
    ready(machine.place)
    assert machine.events == EVERYTHING


def test_a_venv_of_an_old_python_is_refused_before_pip(machine):
    machine.version = "3.10.13"
    with pytest.raises(Stop, match=r"3\.10"):
        ready(machine.place)
    assert machine.events == []


def test_with_all_pins_present_the_registry_is_not_asked(machine):
    machine.version, machine.offline_ok = "3.11.7", True
    machine.place.venv.mkdir()
    ready(machine.place)
    assert machine.events == ["pins offline", "companion"]


@pytest.mark.parametrize("name", ["check_venv_module", "check_disk", "check_registry"])
def test_a_failed_check_stops_before_anything_is_downloaded(machine, name):
    machine.broken = name
    with pytest.raises(Stop, match=name):
        ready(machine.place)
    assert "pins" not in machine.events


@pytest.mark.parametrize("step", ["venv", "pins", "companion"])
def test_a_failed_install_says_why_and_leaves_no_stamp(machine, step):
    machine.broken = step
    with pytest.raises(Stop, match="disk on fire"):
        ready(machine.place)
    assert not machine.place.stamp.exists()


def test_cpu_torch_comes_first_and_only_torch_comes_from_that_index(machine, monkeypatch):
    monkeypatch.setenv("BOOK_TORCH_INDEX", "file:///wheels")
    ready(machine.place)
    first = machine.events.index("cpu torch: file:///wheels torch==2.15.0 torchvision==0.29.2")
    assert first < machine.events.index("pins")


def test_a_slow_interpreter_is_not_mistaken_for_a_broken_venv(machine, monkeypatch):
    ready(machine.place)

    def slow(command, timeout, **_):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", slow)
    with pytest.raises(Stop, match="等等再来"):
        ready(machine.place)
    assert machine.place.stamp.exists()
