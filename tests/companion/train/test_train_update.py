"""一次更新：攒批、半精度、裁剪、调度器、滑动平均。裁判是一整批的梯度，和 torch 自己的写法。"""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau, StepLR

from companion.metrics import Accuracy
from companion.models import MLP
from companion.optim import EMA, PerStep
from companion.train import StepOut, Update, evaluate, fit, train_epoch
from tests.companion.train.test_train import blobs, job, same, weights


def double_job(sizes):
    """float64 的模型，和大小为 ``sizes`` 的批。"""
    torch.manual_seed(0)
    model = MLP(4, 8, 3).double()
    inputs, targets = (torch.cat(part) for part in zip(*blobs(sum(sizes)), strict=True))
    return model, list(zip(inputs.double().split(sizes), targets.split(sizes), strict=True))


def token_step(as_tensor):
    """标签 0 是填充，不算：n 是不算填充之后的个数。"""

    def step(model, batch):
        inputs, targets = batch
        n = (targets != 0).sum()
        losses = F.cross_entropy(model(inputs), targets, ignore_index=0, reduction="sum")
        return StepOut(losses / n.clamp(min=1), n if as_tensor else int(n))

    return step


class Grads(torch.optim.SGD):
    """记下每次更新用的梯度。"""

    def __init__(self, model, lr=0.0):
        super().__init__(model.parameters(), lr=lr)
        self.seen = []

    def step(self, closure=None):
        self.seen.append([p.grad.clone() for g in self.param_groups for p in g["params"]])
        super().step()


def assert_close(ours, theirs, rtol=1e-12):
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=rtol, atol=1e-15)


# —— 攒批


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize("sizes", [[8, 8, 8, 8], [8, 3, 5, 7, 2], [1, 9, 4]])
def test_accumulated_gradients_are_those_of_the_one_big_batch(sizes, as_tensor):
    model, batches = double_job(sizes)
    step = token_step(as_tensor)
    optimizer = Grads(model)
    train_epoch(model, batches, step=step, optimizer=Update(model, optimizer, accumulate=2))
    assert len(optimizer.seen) == math.ceil(len(sizes) / 2)  # 最后一组可以不足
    for i, seen in enumerate(optimizer.seen):
        window = batches[2 * i : 2 * i + 2]
        big = [torch.cat(part) for part in zip(*window, strict=True)]
        model.zero_grad()
        step(model, big).loss.backward()
        assert_close(seen, [p.grad for p in model.parameters()])


def test_a_first_batch_without_a_single_token_does_not_spoil_the_window():
    model, batches = double_job([4, 4])
    batches[0] = batches[0][0], torch.zeros(4, dtype=torch.int64)  # 全是填充
    for as_tensor in (False, True):
        optimizer = Grads(model)
        update = Update(model, optimizer, accumulate=2)
        train_epoch(model, batches, step=token_step(as_tensor), optimizer=update)
        model.zero_grad()
        token_step(False)(model, batches[1]).loss.backward()
        assert_close(optimizer.seen[0], [p.grad for p in model.parameters()])


def test_accumulation_trains_like_the_big_batches_and_reports_the_same_loss():
    small, big = job(blobs(batch_size=8), accumulate=2), job(blobs(batch_size=16))
    ours, theirs = fit(**small), fit(**big)
    assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-5)
    assert_close(small["model"].parameters(), big["model"].parameters(), rtol=1e-4)


def test_gradients_left_over_by_the_reader_are_not_trained_on():
    clean, dirty = job(), job()
    F.cross_entropy(dirty["model"](blobs()[0][0]), blobs()[0][1]).backward()
    assert fit(**clean).records == fit(**dirty).records


def test_a_window_abandoned_in_the_middle_leaves_nothing_to_the_next():
    arguments = job(blobs(batch_size=8), accumulate=3)
    update = Update(arguments["model"], arguments["optimizer"], accumulate=3)
    how = {"loss": F.cross_entropy, "optimizer": update}
    x, y = blobs()[0]
    with pytest.raises(TypeError):
        train_epoch(arguments["model"], [(x, y), (x, y.float())], **how)
    ours = train_epoch(arguments["model"], arguments["train"], **how)
    assert ours["loss"] == fit(**job(blobs(batch_size=8), accumulate=3)).records[0]["train_loss"]


# —— 裁剪


def test_the_gradient_is_clipped_after_the_window_is_averaged():
    model, batches = double_job([8, 3, 5])
    optimizer = Grads(model)
    update = Update(model, optimizer, accumulate=3, clip_norm=0.05)
    train_epoch(model, batches, loss=F.cross_entropy, optimizer=update)
    big = [torch.cat(part) for part in zip(*batches, strict=True)]
    F.cross_entropy(model(big[0]), big[1]).backward()
    assert nn.utils.clip_grad_norm_(model.parameters(), 0.05) > 0.05
    assert_close(optimizer.seen[0], [p.grad for p in model.parameters()])


# —— 半精度


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_autocast_with_full_precision_weights(precision):
    dtypes = set()

    def step(model, batch):
        outputs = model(batch[0])
        dtypes.add(outputs.dtype)
        return StepOut(F.cross_entropy(outputs, batch[1]), len(batch[1]))

    arguments = job(loss=None, step=step, valid=blobs(20), lr=0.0, precision=precision)
    history = fit(**arguments)
    assert dtypes == {torch.bfloat16 if precision == "bf16" else torch.float16}
    assert {p.dtype for p in arguments["model"].parameters()} == {torch.float32}
    full = fit(**job(valid=blobs(20), lr=0.0))
    for name in ("train_loss", "valid_loss"):
        assert history[name] == pytest.approx(full[name], rel=0.01)
        assert history[name] != full[name]


def test_fp16_gives_the_bits_of_autocast_and_grad_scaler_by_hand():
    arguments = job(precision="fp16", clip_norm=0.5, epochs=1)
    fit(**arguments)
    theirs = job()
    model, optimizer, scaler = theirs["model"], theirs["optimizer"], torch.amp.GradScaler("cpu")
    for inputs, targets in theirs["train"]:
        with torch.autocast("cpu", torch.float16):
            loss = F.cross_entropy(model(inputs), targets)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        scaler.step(optimizer)
        scaler.update()
    assert same(weights(arguments["model"]), weights(model))


def test_an_overflowing_step_moves_neither_weights_nor_schedule_nor_average():
    arguments = job()
    model, optimizer = arguments["model"], arguments["optimizer"]
    scheduler = PerStep(LambdaLR(optimizer, lambda step: 1 / (1 + step)))
    ema = EMA(model, 0.5)
    update = Update(model, optimizer, precision="fp16", scheduler=scheduler, ema=ema)
    before, (inputs, targets) = weights(model), blobs()[0]

    def one(scale):
        update.backward(F.cross_entropy(model(inputs), targets) * scale, 1)
        update.step()

    one(1e38)  # 乘上放大倍数 65536，float32 也装不下
    assert same(before, weights(model))
    assert (scheduler.scheduler.last_epoch, ema.updates) == (0, 0)
    assert update.scaler.get_scale() == 65536 / 2
    one(1)
    assert not same(before, weights(model))
    assert (scheduler.scheduler.last_epoch, ema.updates) == (1, 1)


def test_the_scale_of_fp16_is_saved_and_taken_up_again():
    def fresh(precision):
        arguments = job()
        return Update(arguments["model"], arguments["optimizer"], precision=precision)

    first, second = fresh("fp16"), fresh("fp16")
    first.backward(first.model(blobs()[0][0]).sum() * 1e38, 1)
    first.step()  # 溢出，放大倍数减半
    second.load_state_dict(first.state_dict())
    assert second.scaler.get_scale() == 65536 / 2
    second.load_state_dict(fresh("fp32").state_dict())  # 换了精度：那边没有，就用手里的
    assert second.scaler.get_scale() == 65536 / 2
    fresh("fp32").load_state_dict(first.state_dict())


# —— 调度器


def rates(**changes):
    """每次更新用的学习率；4 批一轮，两轮。"""
    arguments = job(lr=1.0, **changes)
    seen, optimizer = [], arguments["optimizer"]
    optimizer.register_step_pre_hook(lambda *_: seen.append(optimizer.param_groups[0]["lr"]))
    scheduler = changes["scheduler"](optimizer)
    fit(**arguments | {"scheduler": scheduler})
    return seen


def test_a_scheduler_steps_every_epoch_and_in_perstep_every_update():
    def halve(optimizer):
        return StepLR(optimizer, 1, 0.5)

    assert rates(scheduler=halve) == [1] * 4 + [0.5] * 4
    per_step = rates(scheduler=lambda optimizer: PerStep(halve(optimizer)))
    assert per_step == [0.5**k for k in range(8)]
    twice = rates(scheduler=lambda optimizer: PerStep(halve(optimizer)), accumulate=2)
    assert twice == [0.5**k for k in range(4)]


def test_reduce_on_plateau_looks_at_the_validation_loss():
    arguments = job(valid=blobs(20), lr=0.0, epochs=3)  # 学习率 0，损失不动
    scheduler = ReduceLROnPlateau(arguments["optimizer"], patience=0)
    history = fit(**arguments, scheduler=scheduler)
    assert scheduler.num_bad_epochs == 0 and scheduler.last_epoch == 3
    assert scheduler.best == history["valid_loss"][0]


# —— 滑动平均


def test_the_average_is_updated_every_update_and_judged_instead_of_the_weights():
    arguments = job(valid=blobs(20), epochs=3)
    model = arguments["model"]
    ema, by_hand = EMA(model, 0.9), {}
    average = {name: p.detach().clone() for name, p in model.named_parameters()}
    ours = fit(**arguments, ema=ema)
    theirs = job(epochs=3)
    count = 0

    def follow(*_):
        nonlocal count
        decay = min(0.9, (1 + count) / (10 + count))
        count += 1
        for name, p in theirs["model"].named_parameters():
            average[name] = decay * average[name] + (1 - decay) * p.detach()

    theirs["optimizer"].register_step_post_hook(follow)
    fit(**theirs)
    assert same(weights(model), weights(theirs["model"]))  # 训练的还是原来的权重
    by_hand = copy.deepcopy(model)
    by_hand.load_state_dict(average)
    expected = evaluate(by_hand, blobs(20), loss=F.cross_entropy)["loss"]
    assert ours["valid_loss"][-1] == pytest.approx(expected, rel=1e-5)
    assert expected != evaluate(model, blobs(20), loss=F.cross_entropy)["loss"]


# —— 错误


def test_weights_that_are_broken_are_not_handed_to_a_save():
    arguments = job()
    update = Update(arguments["model"], arguments["optimizer"])
    assert update.state_dict() == {"scaler": None}
    with torch.no_grad():
        next(arguments["model"].parameters())[0, 0] = math.inf
    with pytest.raises(FloatingPointError, match="参数应是有限的数"):
        update.state_dict()


def stale_scheduler():
    return StepLR(torch.optim.SGD(MLP(4, 3).parameters(), lr=1), 1)


def plateau():
    arguments = job()
    return arguments | {"scheduler": ReduceLROnPlateau(arguments["optimizer"])}


CASES = {
    "攒零批": (lambda: job(accumulate=0), "accumulate 应为不小于 1"),
    "裁剪到零": (lambda: job(clip_norm=0), "clip_norm 应是大于 0"),
    "裁剪到负数": (lambda: job(clip_norm=-1.0), "clip_norm 应是大于 0"),
    "没有这种精度": (lambda: job(precision="fp8"), "precision 应为 'fp32'、'bf16'、'fp16'"),
    "别人的调度器": (lambda: job(scheduler=stale_scheduler()), "调度器也要重建"),
    "没有验证集": (plateau, "monitor 应是记录里的一列"),
    "耐心是零": (lambda: job(patience=0, valid=blobs()), "patience 应为不小于 1"),
    "耐心没有验证集": (lambda: job(patience=3), "monitor 应是记录里的一列"),
}


@pytest.mark.parametrize("case", CASES)
def test_mistakes_are_named_before_anything_is_trained(case):
    make, words = CASES[case]
    arguments = make()
    before = weights(arguments["model"])
    with pytest.raises(ValueError, match=words) as caught:
        fit(**arguments)
    assert type(caught.value).__module__ == "companion.errors"
    assert same(before, weights(arguments["model"]))


def test_accuracy_is_kept_through_accumulation():
    one = fit(**job(blobs(batch_size=5), lr=0.0, accumulate=4, metrics={"accuracy": Accuracy()}))
    two = fit(**job(blobs(batch_size=50), lr=0.0, metrics={"accuracy": Accuracy()}))
    assert one["train_accuracy"] == two["train_accuracy"]
