"""一轮的平均：次序、存取、合并，一位不差；坏了的损失说得出在哪一批。"""

import math

import pytest
import torch

from companion.metrics import Accuracy
from companion.train import StepOut
from companion.train._means import EpochMeans


def steps(count, seed=0, classes=3):
    g = torch.Generator().manual_seed(seed)
    for i in range(count):
        outputs = torch.randn(4, classes, generator=g)
        n = torch.tensor(3) if i % 3 == 0 else 4  # 有时是张量
        targets = torch.randint(classes, (4,), generator=g)
        yield StepOut(torch.rand((), generator=g), n, (outputs, targets))


def filled(count, metrics=None, **how):
    means = EpochMeans(metrics, **how)
    for out in steps(count):
        means.add(out)
    return means


@pytest.mark.parametrize("count", [1, 255, 256, 257, 700])
def test_the_mean_is_weighted_and_kept_in_double(count):
    losses = [float(out.loss) for out in steps(count)]
    weights = [int(out.n) for out in steps(count)]
    expected = math.fsum(x * w for x, w in zip(losses, weights, strict=True))
    assert filled(count).finish()["loss"] == pytest.approx(expected / sum(weights), rel=1e-14)


def test_a_block_of_steps_is_read_once(count_reads):
    def reads(count):
        means, outs = EpochMeans(None, finite=True), list(steps(count))
        return count_reads(lambda: [means.add(out) for out in outs])

    assert reads(255) == 0
    assert reads(256 * 4) == 4


def test_asking_for_the_mean_changes_no_bit_of_the_end():
    asked, silent = EpochMeans(None), EpochMeans(None)
    for out in steps(600):
        asked.add(out)
        silent.add(out)
        asked.mean()
    assert asked.mean() == silent.mean()
    assert asked.finish() == silent.finish()


@pytest.mark.parametrize("cut", [0, 1, 256, 300, 599, 600])
def test_a_saved_half_goes_on_to_the_same_bits(cut, tmp_path):
    whole = filled(600, {"accuracy": Accuracy()})
    first, outs = EpochMeans({"accuracy": Accuracy()}), list(steps(600))
    for out in outs[:cut]:
        first.add(out)
    torch.save(first.state_dict(), tmp_path / "half.pt")
    second = EpochMeans({"accuracy": Accuracy()})
    second.add(outs[0])  # 恢复时，手里原有的不算
    second.load_state_dict(torch.load(tmp_path / "half.pt", weights_only=True))
    for out in outs[cut:]:
        second.add(out)
    assert second.batches == 600
    assert second.finish() == whole.finish()


def test_a_loss_whose_memory_is_used_again_is_remembered_as_it_was():
    means, buffer = EpochMeans(None), torch.zeros(())
    for value in (1.0, 2.0, 6.0):
        means.add(StepOut(buffer.fill_(value), 1))
    assert means.finish()["loss"] == 3.0


def test_after_finish_the_next_epoch_starts_from_nothing():
    metrics = {"accuracy": Accuracy()}
    means = filled(10, metrics)
    first = means.finish()
    assert metrics["accuracy"].compute() == first["accuracy"]  # 还能再问
    assert means.state_dict() == EpochMeans(metrics).state_dict() | {"result": first}
    assert means.finish() == first  # 各批之后再断再续，结果就是它
    for out in steps(10):
        means.add(out)
    assert means.finish() == first


def test_a_metric_that_cannot_be_saved_says_what_it_will_miss(capsys):
    class Count:
        def reset(self):
            self.count = 0

        def update(self, *_):
            self.count += 1

        def compute(self):
            return self.count

    state = filled(5, {"count": Count()}).state_dict()
    rest = EpochMeans({"count": Count()})
    rest.load_state_dict(state)
    assert "这一轮的 count 只算恢复之后的批" in capsys.readouterr().out
    for out in steps(3):
        rest.add(out)
    record = rest.finish()
    assert record["count"] == 3


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(("bad", "noticed"), [(0, 256), (255, 256), (256, 300), (299, 300)])
def test_a_broken_loss_is_told_by_its_batch(value, bad, noticed):
    means = EpochMeans(None, finite=True)
    means.epoch = 3
    seen = 0
    with pytest.raises(FloatingPointError, match=f"第 3 轮.*是 {value}，从第 {bad + 1} 批起"):
        for i, out in enumerate(steps(300)):
            seen = i + 1
            means.add(out._replace(loss=torch.tensor(value)) if i == bad else out)
        means.finish()
    assert seen == noticed


@pytest.mark.parametrize("look", [EpochMeans.mean, EpochMeans.state_dict, EpochMeans.finish])
def test_a_broken_loss_is_noticed_whenever_somebody_looks(look):
    means = filled(5, finite=True)
    means.add(StepOut(torch.tensor(math.nan), 1))
    with pytest.raises(FloatingPointError, match="从第 6 批起"):
        look(means)


def test_evaluation_reports_a_broken_loss_instead_of_stopping():
    means = filled(5)
    means.add(StepOut(torch.tensor(math.nan), 1))
    assert math.isnan(means.finish()["loss"])


def test_a_loss_over_no_samples_at_all_is_undefined():
    means = EpochMeans(None)
    means.add(StepOut(torch.tensor(1.0), 0))
    with pytest.raises(ValueError, match="加起来是 0"):
        means.finish()


def merged(monkeypatch, world, state, metrics):
    """``world`` 个进程各自恢复同一份存档之后的样子。"""
    means = []
    for rank in range(world):
        monkeypatch.setattr("companion.train._means.rank", lambda rank=rank: rank)
        monkeypatch.setattr("companion.train._means.world_size", lambda: world)
        one = EpochMeans({"accuracy": Accuracy()} if metrics else None)
        one.load_state_dict(state)
        means.append(one)
    return means


@pytest.mark.parametrize("world", [1, 2, 3])
def test_the_parts_of_two_ranks_are_shared_out_to_any_number_of_ranks(monkeypatch, world):
    halves = [EpochMeans({"accuracy": Accuracy()}) for _ in range(2)]
    for i, out in enumerate(steps(20)):
        halves[i % 2].add(out)
    state = halves[0].state_dict() | {"ranks": [h.state_dict()["ranks"][0] for h in halves]}
    shares = merged(monkeypatch, world, state, metrics=True)
    monkeypatch.undo()
    pieces = [share.state_dict()["ranks"][0] for share in shares]
    final = merged(monkeypatch, 1, state | {"ranks": pieces}, metrics=True)[0]
    monkeypatch.undo()
    whole = filled(20, {"accuracy": Accuracy()}).finish()
    assert final.finish() == pytest.approx(whole, rel=1e-14)


def test_with_several_ranks_a_metric_that_cannot_be_merged_is_refused(monkeypatch):
    class Plain:
        def reset(self): ...
        def update(self, *_): ...
        def compute(self): ...

    class Torchmetrics(Plain):
        dist_sync_on_step = False

    monkeypatch.setattr("companion.train._means.world_size", lambda: 2)
    EpochMeans({"ours": Accuracy(), "theirs": Torchmetrics()})
    with pytest.raises(ValueError, match=r"指标 mine 应有 state_dict\(\) 和 merge"):
        EpochMeans({"mine": Plain()})
