"""Makefile、CI、README、许可：和 tools/book.py 说的是同一回事。"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools import book

ROOT = Path(__file__).resolve().parents[2]


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_makefile_only_calls_book_py_with_known_commands():
    lines = [line for line in text_of("Makefile").splitlines() if re.match(r"[a-z-]+:", line)]
    assert 2 <= len(lines) <= 12
    for line in lines:
        name = line.split(":")[0]
        assert line.startswith(f"{name}: ; @$(PYTHON) tools/book.py {name}"), line
        assert name in book.COMMANDS


def test_the_ci_script_is_strict_and_runs_test_book_site_test_in_order():
    script = text_of(".ci/run")
    assert script.splitlines()[1] == "set -euo pipefail"
    assert "|| true" not in script
    positions = [script.index(f"make {name}\n") for name in ("test", "book", "site-test")]
    assert positions == sorted(positions)


@pytest.mark.skipif(sys.platform == "win32", reason="没有 bash")
def test_the_ci_script_is_valid_bash():
    subprocess.run(["bash", "-n", str(ROOT / ".ci/run")], check=True)


@pytest.mark.skipif(sys.platform == "win32", reason="没有 bash")
@pytest.mark.parametrize(("broken", "runs"), [("none", 3), ("book", 2), ("test", 1)])
def test_the_ci_script_stops_at_the_first_failure(tmp_path, broken, runs):
    make = f'#!/bin/sh\necho "make $1" >> "{tmp_path}/seen"\n[ "$1" != {broken} ]\n'
    stubs = {"make": make, "fc-list": "#!/bin/sh\necho 黑体\n"}
    stubs |= dict.fromkeys(("chromium", "python3"), "#!/bin/sh\n")
    for name, text in stubs.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    command = ["bash", str(ROOT / ".ci/run")]
    done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True)
    seen = (tmp_path / "seen").read_text(encoding="utf-8").splitlines()
    assert seen == ["make test", "make book", "make site-test"][:runs]
    assert (done.returncode == 0) == (broken == "none")
    assert done.stdout.decode("utf-8").count("秒") == (3 if broken == "none" else 0)


def test_workflow_actions_are_pinned_and_say_they_were_not_run_here():
    workflow = text_of(".github/workflows/ci.yml")
    uses = re.findall(r"uses: (\S+)", workflow)
    assert uses and all(re.fullmatch(r"[\w-]+/[\w-]+@v[\d.]+", name) for name in uses)
    assert "没有在这里运行过" in workflow and r"py tools\book.py test" in workflow


def test_the_readme_names_both_commands_on_both_systems():
    readme = text_of("README.md")
    for name in ("book", "test"):
        assert f"make {name}" in readme and rf"py tools\book.py {name}" in readme
    assert "BOOK_TORCH_INDEX" in readme and len(readme.splitlines()) <= 80


PAPERS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff", "Makefile"]
PAPERS += [".ci/run", ".github/workflows/ci.yml"]
KNOWN_HOSTS = {"127.0.0.1", "creativecommons.org", "keepachangelog.com", "semver.org"}


@pytest.mark.parametrize("name", PAPERS)
def test_no_registry_mirror_or_public_address_is_written_down(name):
    assert set(re.findall(r"https?://([\w.-]+)", text_of(name))) <= KNOWN_HOSTS


def test_the_licence_covers_code_and_text_apart():
    licence = text_of("LICENSE")
    assert "TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION" in licence
    assert "CC BY-SA 4.0" in licence and "Apache-2.0" in text_of("CITATION.cff")
