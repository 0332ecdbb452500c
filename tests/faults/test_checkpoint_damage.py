"""两百种坏法：每一种都按名拒绝，什么也不改写，然后用前一个好存档，并说出跳过了谁。"""

import random
import shutil

import pytest
import torch

from companion.checkpoint import load_checkpoint, newest_good, save_checkpoint, saves, verify
from companion.checkpoint._writing import staging
from companion.errors import CorruptCheckpointError

SEEDS = range(20)  # 每种坏法 20 次，十种一共 200 次


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """两个存档，各有三个文件：``state.pt``、一个分片和清单。"""
    folder = tmp_path_factory.mktemp("template")
    for step in (1, 2):
        random_bytes = random.Random(step).randbytes(9000)
        with staging(folder, step, {"epoch": step}) as directory:
            torch.save({"weights": torch.arange(3000.0) + step}, directory / "state.pt")
            (directory / "shard-0").write_bytes(random_bytes)
    return folder


def any_file(save, rng):
    return rng.choice(sorted(save.iterdir()))


def cut(save, other, rng):
    path = any_file(save, rng)
    raw = path.read_bytes()
    path.write_bytes(raw[: rng.randrange(len(raw))])
    return path.name


def flip_one_bit(save, other, rng):
    path = any_file(save, rng)
    raw = bytearray(path.read_bytes())
    raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    path.write_bytes(raw)
    return path.name


def flip_one_bit_of_the_manifest(save, other, rng):
    path = save / "manifest.json"
    raw = bytearray(path.read_bytes())
    raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    path.write_bytes(raw)
    return path.name


def zero_a_page(save, other, rng):
    path = save / rng.choice(["state.pt", "shard-0"])
    raw = path.read_bytes()
    start = rng.randrange(0, len(raw), 4096)
    page = bytes(len(raw[start : start + 4096]))
    path.write_bytes(raw[:start] + page + raw[start + 4096 :])
    return path.name


def append(save, other, rng):
    path = any_file(save, rng)
    path.write_bytes(path.read_bytes() + rng.choice([b"\n", b"\x00" * 512, rng.randbytes(9)]))
    return path.name


def remove(save, other, rng):
    path = any_file(save, rng)
    path.unlink()
    return path.name


def add(save, other, rng):
    path = save / rng.choice([".hidden", "shard-1", "state.pt.bak", "more/state.pt"])
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(rng.randbytes(rng.randrange(20)))
    return path.relative_to(save).as_posix()


def replace_by_the_one_of_another_save(save, other, rng):
    name = rng.choice(["state.pt", "shard-0"])
    shutil.copyfile(other / name, save / name)
    return name


def stale_manifest(save, other, rng):
    shutil.copyfile(other / "manifest.json", save / "manifest.json")
    return "shard-0"  # 两个都不符，先说清单里排在前面的


def exchange_two_files(save, other, rng):
    one, two = rng.sample(sorted(save.iterdir()), 2)
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    return "manifest.json" if "manifest.json" in (one.name, two.name) else "shard-0"


WAYS = [
    *(cut, flip_one_bit, flip_one_bit_of_the_manifest, zero_a_page, append, remove, add),
    *(replace_by_the_one_of_another_save, stale_manifest, exchange_two_files),
]


def contents(folder):
    """目录里每个文件的字节。"""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_damaged_save_is_refused_by_name_and_the_one_before_is_used(template, tmp_path, way):
    for seed in SEEDS:
        folder = shutil.copytree(template, tmp_path / str(seed))
        old, new = saves(folder)
        whole = contents(new)
        name = way(new, old, random.Random(seed))
        damaged = contents(folder)
        assert contents(new) != whole

        for read in (verify, load_checkpoint):
            with pytest.raises(CorruptCheckpointError, match=new.name) as caught:
                read(new)
            assert name in str(caught.value)
        reports = []
        assert newest_good(folder, reports.append) == (old, {"epoch": 1, "step": 1})
        (line,) = reports
        assert line.startswith(f"跳过：存档 {new.name} 坏了：") and "\n" not in line
        assert torch.equal(load_checkpoint(old)[0]["weights"], torch.arange(3000.0) + 1)
        assert contents(folder) == damaged


def test_two_saves_whose_states_are_exchanged_are_both_refused(template, tmp_path):
    folder = shutil.copytree(template, tmp_path / "saves")
    one, two = (save / "state.pt" for save in saves(folder))
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    reports = []
    assert newest_good(folder, reports.append) is None
    assert [("state.pt" in line, "sha256" in line) for line in reports] == [(True, True)] * 2


def test_every_cut_and_every_byte_of_the_manifest_count(template, tmp_path):
    folder = shutil.copytree(template, tmp_path / "saves")
    path = saves(folder)[-1] / "manifest.json"
    raw = path.read_bytes()
    for i in range(len(raw)):
        for changed in (raw[:i], raw[:i] + bytes([raw[i] ^ 1]) + raw[i + 1 :]):
            path.write_bytes(changed)
            with pytest.raises(CorruptCheckpointError, match=r"manifest\.json"):
                verify(path.parent)
    path.write_bytes(raw)
    assert verify(path.parent) == {"epoch": 2, "step": 2}


def test_a_new_save_stands_beside_the_damaged_one(template, tmp_path):
    folder = shutil.copytree(template, tmp_path / "saves")
    damaged = saves(folder)[-1]
    (damaged / "state.pt").write_bytes(b"")
    before = contents(damaged)
    path = save_checkpoint(folder, {"weights": torch.ones(2)}, step=2)
    assert path.name == "save-00003-step-2"
    assert newest_good(folder) == (path, {"step": 2})
    assert contents(damaged) == before
