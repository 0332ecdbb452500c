"""test_distributed.py 用两个进程跑的脚本：每个函数是一个事实，成立就印一行 ok。

有一个不成立，那个进程印 bad 就结束；连接断了，另一个也停下。两边的次序不会错开。
单独跑不会通过：``launch("tests/companion/distributed/ranks_facts.py", args=[临时目录])``。
"""

import os
import sys
import traceback
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed as dist
from torch import nn
from torch.nn import functional as F

from companion.checkpoint import load_sharded, load_sharded_weights, newest_good, save_sharded
from companion.distributed import (
    any_rank,
    defer_sync,
    gather_objects,
    init,
    rank,
    shutdown,
    unwrap,
    world_size,
    wrap,
)
from companion.distributed._init import _fresh_store
from companion.errors import ArgumentError, CheckpointError, CorruptCheckpointError, MismatchError
from companion.optim import EMA


class Block(nn.Module):
    def __init__(self, width=6):
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.norm = nn.BatchNorm1d(width)

    def forward(self, x):
        return x + torch.tanh(self.norm(self.linear(x)))


def make(seed=0, width=6):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, width), Block(width), Block(width), nn.Linear(width, 3))


def batch(seed=0):
    source = torch.Generator().manual_seed(seed)
    return torch.randn(8, 5, generator=source), torch.randint(0, 3, (8,), generator=source)


def train(model, optimizer, steps=3):
    for step in range(steps):
        inputs, targets = batch(step)
        F.cross_entropy(model(inputs), targets).backward()  # 各进程同样的数据：与单进程同一个结果
        optimizer.step()
        optimizer.zero_grad()


def adam(model):
    return torch.optim.AdamW(model.parameters(), lr=0.01)


def whole(tensor):
    """切了片的凑成整个。"""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def everything(model, optimizer):
    """模型和优化器的全部张量，凑成整个，按名字。"""
    found = {name: whole(value).clone() for name, value in model.state_dict().items()}
    for i, values in optimizer.state_dict()["state"].items():
        found |= {f"{i}.{key}": whole(value).clone() for key, value in values.items()}
    return found


def averages(state):
    """EMA 的状态里的平均，凑成整个。"""
    return {name: whole(value).clone() for name, value in state["average"].items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def error_of(kind, action):
    try:
        action()
    except kind as error:
        return str(error)
    raise AssertionError(f"应抛出 {kind.__name__}")


def the_ranks_are_numbered_and_hear_each_other(folder):
    assert (rank(), world_size()) == (int(os.environ["RANK"]), 2)
    assert gather_objects({"rank": rank()}) == [{"rank": 0}, {"rank": 1}]
    assert any_rank(rank() == 1) and not any_rank(False)
    assert dist.get_backend_config().count("gloo") and torch.get_num_threads() == 1
    assert init(timeout_s=60).type == "cpu"  # 再调用一次，什么也不做


def ddp_starts_from_rank_0_and_averages_the_gradients(folder):
    model = wrap(make(seed=rank()))
    assert all(map(torch.equal, unwrap(model).state_dict().values(), make(0).state_dict().values()))
    model.eval()
    inputs, targets = batch(rank())
    F.cross_entropy(model(inputs), targets).backward()
    expected = gradients(make(0).eval(), [batch(0), batch(1)])
    for ours, theirs in zip(model.parameters(), expected, strict=True):
        assert torch.equal(ours.grad, theirs)  # 两个数相加再除以 2，没有次序之分


def gradients(model, batches):
    for inputs, targets in batches:
        (F.cross_entropy(model(inputs), targets) / len(batches)).backward()
    return [parameter.grad for parameter in model.parameters()]


def fsdp_shards_every_block_and_averages_the_gradients(folder):
    model = wrap(make(seed=rank()).eval(), "fsdp", blocks=[Block])
    assert unwrap(model) is model and type(model).__name__ == "FSDPSequential"
    assert [type(block).__name__ for block in model[1:3]] == ["FSDPBlock", "FSDPBlock"]
    assert all(
        p.to_local().shape[0] in (p.shape[0] // 2, (p.shape[0] + 1) // 2)
        for p in model.parameters()
    )
    assert all(map(torch.equal, map(whole, model.parameters()), make(0).parameters()))
    inputs, targets = batch(rank())
    F.cross_entropy(model(inputs), targets).backward()
    expected = gradients(make(0).eval(), [batch(0), batch(1)])
    for ours, theirs in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(whole(ours.grad), theirs, rtol=1e-6, atol=1e-8)


def deferred_gradients_stay_local_until_the_next_backward(folder):
    for kind in ("ddp", "fsdp"):
        model = wrap(make().eval(), kind)
        with defer_sync(model):
            inputs, targets = batch(rank())
            (F.cross_entropy(model(inputs), targets) / 2).backward()
        if kind == "ddp":
            local = next(model.parameters()).grad
            assert not torch.equal(*gather_objects(local))
        inputs, targets = batch(2 + rank())
        (F.cross_entropy(model(inputs), targets) / 2).backward()
        expected = gradients(make().eval(), [batch(i) for i in range(4)])
        for ours, theirs in zip(model.parameters(), expected, strict=True):
            torch.testing.assert_close(whole(ours.grad), theirs, rtol=1e-5, atol=1e-7)


def models_that_differ_between_ranks_are_refused_by_name(folder):
    for kind in ("ddp", "fsdp"):
        said = error_of(ArgumentError, lambda kind=kind: wrap(make(width=6 + rank()), kind))
        assert "0 号的 0.weight (6, 5)" in said and "1 号的 0.weight (7, 5)" in said
    frozen = make()
    frozen[3].weight.requires_grad_(rank() == 0)
    said = error_of(ArgumentError, lambda: wrap(frozen))
    assert "3.weight" in said and "求导=False" in said


def a_sharded_save_is_loaded_bit_for_bit(folder):
    model = wrap(make(), "fsdp", blocks=[Block])
    optimizer, ema = adam(model), EMA(model, decay=0.5)
    train(model, optimizer)
    ema.update()
    expected = everything(model, optimizer), averages(ema.state_dict())
    if rank() == 0:
        torch.save(expected, folder / "two.pt")
    rest = {"epoch": 3, "ema": ema.state_dict()}
    path = save_sharded(folder / "two", model, optimizer, rest, step=3, info={"a": 1})
    assert gather_objects(path) == [path, path]
    assert (path.name, newest_good(path.parent).info) == ("save-00001-step-3", {"a": 1, "step": 3})
    assert {f"__{r}_0.distcp" for r in range(2)} < {file.name for file in path.iterdir()}
    other = wrap(make(seed=5), "fsdp")  # 分组不同也行
    fresh, average = torch.optim.AdamW(other.parameters(), lr=0.5), EMA(other)
    rest = load_sharded(path, other, fresh)
    average.load_state_dict(rest["ema"])
    assert rest["epoch"] == 3 and same(averages(average.state_dict()), expected[1])
    assert same(everything(other, fresh), expected[0]) and fresh.param_groups[0]["lr"] == 0.01
    train(model, optimizer)
    train(other, fresh)
    torch.testing.assert_close(everything(other, fresh), everything(model, optimizer))
    third = wrap(make(seed=6), "fsdp")
    load_sharded_weights(path, third)
    weights = {name: whole(value) for name, value in third.state_dict().items()}
    assert all(torch.equal(value, expected[0][name]) for name, value in weights.items())


def a_save_of_one_process_is_loaded_by_two(folder):
    expected = torch.load(folder / "one.pt")
    path = newest_good(folder / "one").path
    for kind in ("fsdp", "ddp"):
        model = wrap(make(seed=9), kind)
        fresh = adam(model)
        assert load_sharded(path, model, fresh) == {"from": "one"}
        assert same(everything(unwrap(model), fresh), expected)


def a_failure_on_one_rank_fails_the_save_on_all_and_keeps_the_old(folder):
    model = wrap(make(), "fsdp")
    optimizer = adam(model)
    old = save_sharded(folder / "fail", model, optimizer, {}, step=1)
    said = []
    for failing in (0, 1):
        if rank() == failing:
            break_writing()
        said.append(
            error_of(
                CheckpointError,
                lambda: save_sharded(folder / "fail", model, optimizer, {}, step=2),
            )
        )
        mend_writing()
    assert "0 号进程" in said[0] and "1 号进程" in said[1], said
    assert all("磁盘满了" in line and "旧存档都没有动" in line for line in said), said
    dist.barrier()  # 报错之后，0 号进程才删临时目录
    left = [entry.name for entry in (folder / "fail").iterdir()]
    assert gather_objects(left) == [[old.name]] * 2  # 都看完了，下面才建新的临时目录
    assert newest_good(old.parent).path == old
    said = error_of(
        ArgumentError, lambda: save_sharded(folder / "fail", model, optimizer, {"f": len}, step=3)
    )
    assert "state.rest.f" in said


def break_writing():
    from torch.distributed.checkpoint import filesystem

    def full(*args, **kwargs):
        raise OSError(28, "磁盘满了")

    filesystem._write_item, break_writing.kept = full, filesystem._write_item


def mend_writing():
    from torch.distributed.checkpoint import filesystem

    if hasattr(break_writing, "kept"):
        filesystem._write_item = break_writing.kept


def damage_is_found_by_rank_0_and_reported_by_all(folder):
    model = wrap(make(), "fsdp")
    optimizer = adam(model)
    path = save_sharded(folder / "damaged", model, optimizer, {}, step=1)
    if rank() == 0:
        shard = path / "__1_0.distcp"
        content = bytearray(shard.read_bytes())
        content[len(content) // 2] ^= 1
        shard.write_bytes(content)
    dist.barrier()
    before = everything(model, optimizer)
    said = error_of(CorruptCheckpointError, lambda: load_sharded(path, model, optimizer))
    assert "__1_0.distcp" in said
    other = wrap(make(width=8), "fsdp")
    good = save_sharded(folder / "good", model, optimizer, {}, step=1)
    said = error_of(MismatchError, lambda: load_sharded(good, other, adam(other)))
    assert "0.weight 应为 (8, 5)，实际是 (6, 5)" in said
    assert same(everything(model, optimizer), before)


def every_join_finds_the_others_under_names_of_its_own(folder):
    first, second = (_fresh_store(timedelta(seconds=20)) for _ in range(2))
    first.set("address", "已经关了的")
    assert first.check(["address"]) and not second.check(["address"])


FACTS = {
    function.__name__: function
    for function in (
        the_ranks_are_numbered_and_hear_each_other,
        ddp_starts_from_rank_0_and_averages_the_gradients,
        fsdp_shards_every_block_and_averages_the_gradients,
        deferred_gradients_stay_local_until_the_next_backward,
        models_that_differ_between_ranks_are_refused_by_name,
        a_sharded_save_is_loaded_bit_for_bit,
        a_save_of_one_process_is_loaded_by_two,
        a_failure_on_one_rank_fails_the_save_on_all_and_keeps_the_old,
        damage_is_found_by_rank_0_and_reported_by_all,
        every_join_finds_the_others_under_names_of_its_own,
    )
}


def main():
    init(timeout_s=20)
    for name, function in FACTS.items():
        try:
            function(Path(sys.argv[1]))
        except Exception:
            print("bad", name, traceback.format_exc())
            return
        print("ok", name)
    shutdown()
    assert (rank(), world_size()) == (0, 1)


if __name__ == "__main__":
    main()
