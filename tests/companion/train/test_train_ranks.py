"""两个进程一起训练：梯度和平均都应等于一个进程看全部数据。样本数故意分得不匀。"""

import os
import traceback

import pytest
import torch
from torch import distributed as dist
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from companion.metrics import Accuracy, ConfusionMatrix
from companion.run import Run
from companion.train import Update, evaluate, fit, train_epoch
from tests.companion.train.test_train import blobs, job, weights
from tests.companion.train.test_train_update import Grads, assert_close, double_job, token_step
from tests.faults.children import start_child, wait_child

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="要用 fork 分出进程")
WORLD = 2


@pytest.fixture
def on_two_ranks(tmp_path):
    """``on_two_ranks(action)``：两个进程各做 ``action(编号)``，返回两个结果。"""

    def child(rank, action):
        dist.init_process_group(
            "gloo",
            store=dist.FileStore(str(tmp_path / "store"), WORLD),
            rank=rank,
            world_size=WORLD,
        )
        try:
            answer = action(rank)
        except Exception as error:
            traceback.print_exc()
            answer = error
        torch.save(answer, tmp_path / f"answer-{rank}")
        dist.destroy_process_group()

    def run(action):
        pids = [start_child(lambda rank=rank: child(rank, action)) for rank in range(WORLD)]
        assert [wait_child(pid) for pid in pids] == [0] * WORLD
        return [torch.load(tmp_path / f"answer-{r}", weights_only=False) for r in range(WORLD)]

    return run


def grads_of(model):
    return [parameter.grad for parameter in model.parameters()]


CASES = [(1, False), (1, True), (2, False), (2, True)]  # 攒几批，n 是不是张量


def test_gradients_are_those_of_the_big_batch_over_all_ranks(on_two_ranks):
    sizes = [5, 2, 7, 3, 1, 6]  # 0 号拿 5、7、1，1 号拿 2、3、6

    def action(rank):
        seen = []
        for accumulate, as_tensor in CASES:
            model, batches = double_job(sizes)
            wrapped = DistributedDataParallel(model)
            optimizer = Grads(wrapped)
            update = Update(wrapped, optimizer, accumulate=accumulate)
            train_epoch(wrapped, batches[rank::2], step=token_step(as_tensor), optimizer=update)
            seen.append(optimizer.seen)
        return seen

    model, batches = double_job(sizes)
    for (accumulate, _), *both in zip(CASES, *on_two_ranks(action), strict=True):
        for i, (first, second) in enumerate(zip(*both, strict=True)):
            window = batches[2 * accumulate * i : 2 * accumulate * (i + 1)]
            big = [torch.cat(part) for part in zip(*window, strict=True)]
            model.zero_grad()
            token_step(False)(model, big).loss.backward()
            assert_close(first, grads_of(model))
            assert_close(second, grads_of(model))


def test_a_rank_without_a_single_token_spoils_nothing(on_two_ranks):
    def action(rank):
        model, batches = double_job([4, 4])
        batches[0] = batches[0][0], torch.zeros(4, dtype=torch.int64)
        wrapped = DistributedDataParallel(model)
        optimizer = Grads(wrapped)
        train_epoch(wrapped, batches[rank::2], step=token_step(True), optimizer=optimizer)
        return optimizer.seen[0]

    model, batches = double_job([4, 4])
    token_step(False)(model, batches[1]).loss.backward()
    for seen in on_two_ranks(action):
        assert_close(seen, grads_of(model))


def test_gradients_travel_once_a_window(on_two_ranks):
    def action(rank):
        arguments = job()
        model = DistributedDataParallel(arguments["model"])
        travelled = []

        def hook(state, bucket):
            travelled.append(1)
            future = dist.all_reduce(bucket.buffer() / WORLD, async_op=True).get_future()
            return future.then(lambda done: done.value()[0])

        model.register_comm_hook(None, hook)
        update = Update(model, arguments["optimizer"], accumulate=3)
        train_epoch(model, blobs(56, 8), loss=F.cross_entropy, optimizer=update)  # 7 批，3 组
        return len(travelled)

    one, two = on_two_ranks(action)
    assert one == two == 3


def metrics():
    return {"accuracy": Accuracy(), "confusion": ConfusionMatrix()}


def test_fit_counts_every_sample_of_every_rank_once_and_prints_on_one(on_two_ranks, capfd):
    def action(rank):
        arguments = job(blobs(50)[rank::2], valid=blobs(45, 7)[rank::2], metrics=metrics())
        arguments["progress"] = True
        arguments["model"] = DistributedDataParallel(arguments["model"])
        return fit(**arguments).records

    one, two = on_two_ranks(action)
    big = [[torch.cat(part) for part in zip(*blobs(50)[i : i + 2], strict=True)] for i in (0, 2)]
    alone = fit(**job(big, valid=blobs(45, 7), metrics=metrics())).records
    for ours, theirs, expected in zip(one, two, alone, strict=True):
        assert torch.equal(ours["valid_confusion"], expected["valid_confusion"])
        assert ours["valid_confusion"].sum() == 45
        for name in ("train_loss", "train_accuracy", "valid_loss", "valid_accuracy"):
            assert ours[name] == theirs[name] == pytest.approx(expected[name], rel=1e-6)
    lines = capfd.readouterr().out.splitlines()
    assert [line[:9] for line in lines] == ["第 1/2 轮  ", "第 2/2 轮  "]


def test_a_loss_broken_on_one_rank_stops_both(on_two_ranks):
    def action(rank):
        batches = blobs()[rank::2]
        if rank == 1:
            batches[-1] = batches[-1][0] * float("nan"), batches[-1][1]
        arguments = job(batches)
        with pytest.raises(FloatingPointError) as caught:
            fit(**arguments | {"model": DistributedDataParallel(arguments["model"])})
        return str(caught.value)

    one, two = on_two_ranks(action)
    assert "第 1 轮别的进程上有 nan" in one
    assert "从第 2 批起" in two


def test_sharded_models_get_the_same_gradients_and_the_same_clipping(on_two_ranks):
    def action(rank):
        from companion.distributed import wrap

        model, batches = double_job([5, 2, 7, 3])
        wrap(model, "fsdp")
        optimizer = Grads(model)
        update = Update(model, optimizer, accumulate=2, clip_norm=0.05)
        train_epoch(model, batches[rank::2], loss=F.cross_entropy, optimizer=update)
        assert update.state_dict() == {"scaler": None}
        return [grad.full_tensor() for grad in optimizer.seen[0]]

    model, batches = double_job([5, 2, 7, 3])
    big = [torch.cat(part) for part in zip(*batches, strict=True)]
    F.cross_entropy(model(big[0]), big[1]).backward()
    assert nn.utils.clip_grad_norm_(model.parameters(), 0.05) > 0.05
    for seen in on_two_ranks(action):
        assert_close(seen, grads_of(model))


def test_a_fit_of_two_ranks_goes_on_to_the_same_bits(on_two_ranks, tmp_path):
    class Killed(BaseException):
        pass

    def once(rank, folder, die_at=None, **run):
        arguments = job(blobs(60, 5)[rank::2], valid=blobs(45, 7)[rank::2], metrics=metrics())
        model = arguments["model"] = DistributedDataParallel(arguments["model"])
        seen = []

        def loss(outputs, targets):
            seen.append(torch.is_grad_enabled())
            if sum(seen) == die_at:
                raise Killed
            return F.cross_entropy(outputs, targets)

        run = Run(tmp_path / folder, **run)
        history = fit(**arguments | {"loss": loss, "run": run, "accumulate": 2})
        return (weights(model.module), history.records), sum(seen)

    def action(rank):
        expected, batches = once(rank, "whole")
        with pytest.raises(Killed):
            once(rank, "run", die_at=9, save_every=1)  # 第 2 轮的第 3 批
        ours, rest = once(rank, "run", save_every=1, resume=True)
        torch.testing.assert_close(ours, expected, rtol=0, atol=0)
        return batches, rest

    assert on_two_ranks(action) == [(12, 4)] * 2  # 12 批练完；从第 8 批接着练，还有 4 批


def test_a_model_that_nobody_wrapped_is_refused(monkeypatch):
    monkeypatch.setattr("companion.train._checks.world_size", lambda: 2)
    arguments = job()
    with pytest.raises(ValueError, match=r"有 2 个进程.*各练各的.*wrap\(model"):
        Update(arguments["model"], arguments["optimizer"])


def test_a_sampler_that_pads_is_refused_by_evaluate_only_when_it_pads():
    def loader(samples):
        data = TensorDataset(*(torch.cat(part) for part in zip(*blobs(samples), strict=True)))
        sampler = DistributedSampler(data, num_replicas=2, rank=0, shuffle=False)
        return DataLoader(data, 8, sampler=sampler)

    arguments = job()
    with pytest.raises(ValueError, match=r"51 个样本当成 52 个.*loaders\(\)"):
        evaluate(arguments["model"], loader(51), loss=F.cross_entropy)
    with pytest.raises(ValueError, match=r"loaders\(\)"):
        fit(**arguments, valid=loader(51))
    evaluate(arguments["model"], loader(50), loss=F.cross_entropy)
