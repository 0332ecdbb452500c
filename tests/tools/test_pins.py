"""核对轮子：标记按目标系统算；用手造的轮子和真的 uv，不联网。"""

import importlib.metadata
import os
import re
import sys
import zipfile
from pathlib import Path

import pytest

from tools import pins
from tools.pins import (
    SOURCE_ONLY,
    TARGETS,
    NoWheel,
    install_uv,
    pins_of,
    problems,
    resolve,
    uv_folder,
    write_constraints,
)
from tools.pythons import in_ci

LINUX, WINDOWS, MAC = "Linux x86-64", "Windows x86-64", "macOS 14 arm64"
ROOT = Path(__file__).resolve().parents[2]


def make_wheel(folder: Path, name: str, tag: str, requires: str = "", version: str = "1.0") -> None:
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}"
    wheel = f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n"
    with zipfile.ZipFile(folder / f"{name}-{version}-{tag}.whl", "w") as file:
        file.writestr(f"{info}/METADATA", metadata)
        file.writestr(f"{info}/WHEEL", wheel)
        file.writestr(f"{info}/RECORD", "")


@pytest.fixture
def shelf(monkeypatch, tmp_path):
    """一个只有手造轮子的软件源。"""
    if in_ci():
        install_uv()
    if not uv_folder().exists():
        pytest.skip("没有 uv：运行一次 make pins 就有了")
    for name in [name for name in os.environ if name.startswith("UV_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path))
    return tmp_path


def want(shelf: Path, *lines: str) -> Path:
    file = shelf / "requirements.txt"
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


def test_a_wheel_of_one_system_does_not_serve_another(shelf):
    make_wheel(shelf, "alpha", "cp312-cp312-win_amd64")
    alpha = want(shelf, "alpha==1.0")
    assert resolve(alpha, "3.12", WINDOWS) == {"alpha": "1.0"}
    for version, platform in (("3.12", LINUX), ("3.12", MAC), ("3.13", WINDOWS)):
        with pytest.raises(NoWheel, match="alpha"):
            resolve(alpha, version, platform)


@pytest.mark.parametrize("platform", [LINUX, WINDOWS, MAC])
def test_markers_are_those_of_the_target_not_of_this_machine(shelf, platform):
    make_wheel(shelf, "beta", "py3-none-any", 'Requires-Dist: extra; sys_platform == "darwin"\n')
    make_wheel(shelf, "extra", "py3-none-any")
    assert ("extra" in resolve(want(shelf, "beta"), "3.12", platform)) == (platform == MAC)


@pytest.mark.parametrize(
    ("platform", "tag", "serves"),
    [
        (LINUX, "manylinux_2_17_x86_64", True),
        (LINUX, "manylinux2014_x86_64", True),
        (LINUX, "manylinux_2_34_x86_64", False),
        (LINUX, "manylinux_2_28_aarch64", False),
        (MAC, "macosx_11_0_arm64", True),
        (MAC, "macosx_14_0_arm64", True),
        (MAC, "macosx_15_0_arm64", False),
    ],
)
def test_a_wheel_for_an_older_system_serves_and_one_for_a_newer_does_not(
    shelf, platform, tag, serves
):
    make_wheel(shelf, "gamma", f"cp313-cp313-{tag}")
    try:
        assert (resolve(want(shelf, "gamma"), "3.13", platform) == {"gamma": "1.0"}) == serves
    except NoWheel:
        assert not serves


def test_a_source_package_does_not_serve(shelf):
    with zipfile.ZipFile(shelf / "delta-1.0.zip", "w") as file:
        file.writestr("delta-1.0/setup.py", "from setuptools import setup; setup(name='delta')")
    with pytest.raises(NoWheel, match="delta"):
        resolve(want(shelf, "delta"), "3.12", LINUX)


@pytest.fixture
def book(shelf):
    """一本小书：``alpha`` 要 ``beta``，``beta`` 有两个版本，旧的那个写在 constraints.txt 里。"""
    make_wheel(shelf, "alpha", "py3-none-any", "Requires-Dist: beta\n")
    make_wheel(shelf, "beta", "py3-none-any")
    make_wheel(shelf, "beta", "py3-none-any", version="2.0")
    want(shelf, "alpha==1.0")
    (shelf / "constraints.txt").write_text("alpha==1.0\nbeta==1.0\n", encoding="utf-8")
    uv_folder(shelf).parent.mkdir()
    uv_folder(shelf).symlink_to(uv_folder())
    return shelf


links = pytest.mark.skipif(os.name == "nt", reason="Windows 建链接要管理员")


def wrong(root: Path) -> list[str]:
    return [reason for _, reason in problems(root) if reason]


@links
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("alpha==1.0\n", "constraints.txt 里应有 beta==2.0"),
        ("alpha==1.0\nbeta==1.5\n", "constraints.txt 里应有 beta==2.0"),
        ("alpha==1.0\nbeta==1.0\ngone==1.0\n", "多了 gone"),
    ],
)
def test_each_constraint_is_needed_and_each_need_is_constrained(monkeypatch, book, text, reason):
    monkeypatch.setattr(pins, "SOURCE_ONLY", ())
    assert wrong(book) == []
    (book / "constraints.txt").write_text(text, encoding="utf-8")
    assert set(wrong(book)) == {reason}


@links
def test_rewriting_keeps_versions_that_still_fit(monkeypatch, book):
    monkeypatch.setattr(pins, "SOURCE_ONLY", ())
    make_wheel(book, "gamma", "cp313-cp313-win_amd64")
    want(book, "gamma; sys_platform == 'win32' and python_version == '3.13'", "alpha")
    text = "alpha==0.9\nbeta==1.0\ngone==1.0\n"
    (book / "constraints.txt").write_text(text, encoding="utf-8")
    write_constraints(book)
    assert (book / "constraints.txt").read_bytes() == b"alpha==1.0\nbeta==1.0\ngamma==1.0\n"
    assert wrong(book) == []


def requirements() -> dict[str, str]:
    """requirements.txt：小写的名字到版本；不是钉死的一行会让它停下。"""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    rows = [line.split("#")[0].strip() for line in lines]
    pinned = [re.fullmatch(r"([\w.-]+)(\[\w+\])?==([\w.!]+)", row) for row in rows if row]
    assert None not in pinned
    return {match[1].lower(): match[3] for match in pinned}


def constraints() -> dict[str, str]:
    return pins_of((ROOT / "constraints.txt").read_text(encoding="utf-8"))


def test_every_requirement_of_the_book_is_pinned_exactly_as_the_constraints_say():
    assert requirements().items() <= constraints().items()
    assert set(SOURCE_ONLY) <= set(requirements())


def test_constraints_are_names_and_versions_and_nothing_else():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert [x for x in lines if not re.fullmatch(r"[a-z0-9-]+==[0-9][A-Za-z0-9.!]*", x)] == []
    names = [line.partition("==")[0] for line in lines]
    assert names == sorted(set(names))


@pytest.mark.skipif(not Path(sys.prefix, ".book-stamp").exists(), reason="不是本书备好的环境")
def test_everything_installed_for_the_book_is_pinned():
    here = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
    here = {re.sub(r"[-_.]+", "-", name).lower(): v.split("+")[0] for name, v in here.items()}
    if here["torch"] != constraints()["torch"]:
        pytest.skip("有意换了 torch 的版本，正在试新的")
    loose = here.items() - constraints().items()
    assert {name for name, _ in loose} <= {"paodetong", "pip"}, (
        "先 python tools/book.py pins --write"
    )


@pytest.mark.parametrize("reason", ["", "没有轮子"])
def test_the_exit_code_says_whether_every_cell_is_good(monkeypatch, capsys, reason):
    def resolve(*_):
        if reason:
            raise NoWheel(reason)
        return constraints()

    monkeypatch.setattr(pins, "install_uv", lambda _: None)
    monkeypatch.setattr(pins, "resolve", resolve)
    monkeypatch.setattr(pins, "builds_pure_wheel", lambda _: "")
    assert pins.main([]) == bool(reason)
    shown = capsys.readouterr().out
    assert shown.count("macOS 14 arm64") == 3 and shown.count("✗") == len(TARGETS) * bool(reason)


@pytest.mark.parametrize("arguments", [[], ["--write"]])
def test_no_uv_stops_with_one_line(monkeypatch, capsys, arguments):
    def offline(_):
        raise NoWheel("没有网")

    monkeypatch.setattr(pins, "install_uv", offline)
    assert pins.main(arguments) == 1
    assert capsys.readouterr().err == "✗ 没有网\n"
