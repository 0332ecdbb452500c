import copy
import functools

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from companion.data import digits_split
from companion.metrics import Accuracy, ConfusionMatrix
from companion.models import MLP, SmallCNN
from companion.train import StepOut, evaluate, fit, train_epoch


def blobs(n=50, batch_size=16):
    """3 类、4 维的一小份数据，最后一批短。"""
    g = torch.Generator().manual_seed(0)
    targets = torch.randint(3, (n,), generator=g)
    inputs = torch.randn(n, 4, generator=g) + F.one_hot(targets, 4) * 3
    return list(zip(inputs.split(batch_size), targets.split(batch_size), strict=True))


def job(batches=None, lr=0.1, **changes):
    """一份能跑的 fit 参数；测试只改自己要改的那一项。"""
    torch.manual_seed(0)
    model = MLP(4, 8, 3)
    batches = blobs() if batches is None else batches
    defaults = {"loss": F.cross_entropy, "epochs": 2, "progress": False}
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    return {"model": model, "train": batches, "optimizer": optimizer} | defaults | changes


def weights(model):
    return copy.deepcopy(model.state_dict())


def same(one, two):
    return all(torch.equal(one[name], two[name]) for name in one) and one.keys() == two.keys()


# —— 训练的是同一件事


def digits_job():
    (inputs, targets), _ = digits_split()
    torch.manual_seed(3)
    model = SmallCNN(width=4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    train = DataLoader(TensorDataset(inputs[:200], targets[:200]), batch_size=64, shuffle=True)
    valid = DataLoader(TensorDataset(inputs[200:300], targets[200:300]), batch_size=64)
    return model, optimizer, train, valid


def test_fit_gives_the_bits_of_the_plain_loop():
    model, optimizer, train, valid = digits_job()
    losses = []
    for _ in range(2):
        model.train()
        total = 0.0
        for inputs, targets in train:
            loss = F.cross_entropy(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(targets)
        losses.append(total / 200)
        model.eval()
        with torch.no_grad():
            hits = sum((model(x).argmax(1) == t).sum().item() for x, t in valid)
    by_hand, random_state = weights(model), torch.get_rng_state()

    model, optimizer, train, valid = digits_job()
    metrics = {"accuracy": Accuracy()}
    history = fit(
        model, train, valid, loss=F.cross_entropy, optimizer=optimizer, epochs=2, metrics=metrics
    )
    assert same(weights(model), by_hand)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert history["train_loss"] == pytest.approx(losses, rel=1e-12)
    assert history["valid_accuracy"][-1] == hits / 100


def test_a_step_of_the_readers_own_gives_the_bits_of_loss():
    def step(model, batch):
        inputs, targets = batch
        return StepOut(F.cross_entropy(model(inputs), targets), len(targets))

    one, two = job(), job(loss=None, step=step)
    assert fit(**one).records == fit(**two).records
    assert same(weights(one["model"]), weights(two["model"]))


def test_train_epoch_fits_into_a_loop_of_the_readers_own():
    ours, theirs = job(epochs=3), job()
    history = fit(**ours)
    for _ in range(3):
        record = train_epoch(
            theirs["model"], theirs["train"], loss=F.cross_entropy, optimizer=theirs["optimizer"]
        )
    assert history["train_loss"][-1] == record["loss"]


def test_the_loss_of_an_epoch_does_not_depend_on_how_it_is_cut_into_batches():
    model = job()["model"]
    whole = torch.cat([x for x, _ in blobs()]), torch.cat([t for _, t in blobs()])
    expected = F.cross_entropy(model(whole[0]), whole[1]).item()
    for size in (1, 16, 49, 50):
        got = evaluate(model, blobs(batch_size=size), loss=F.cross_entropy)["loss"]
        assert got == pytest.approx(expected, rel=1e-6)


def test_the_loss_is_weighted_by_the_n_of_the_step():
    values = iter([(1.0, 10), (4.0, torch.tensor(20))])  # 损失、词元数

    def step(model, batch):
        value, n = next(values)
        return StepOut(torch.tensor(value), n)

    assert evaluate(nn.Identity(), [0, 0], step=step)["loss"] == (1 * 10 + 4 * 20) / 30


def test_a_batch_may_be_a_dict_when_the_step_knows_it():
    batches = [{"x": x, "y": y} for x, y in blobs()]

    def step(model, batch):
        outputs = model(batch["x"])
        return StepOut(F.cross_entropy(outputs, batch["y"]), len(outputs), (outputs, batch["y"]))

    metrics = {"accuracy": Accuracy()}
    history = fit(**job(batches, loss=None, step=step, metrics=metrics))
    assert history.records == fit(**job(metrics=metrics)).records


def test_batches_are_moved_to_the_device_of_the_model():
    seen = []

    def step(model, batch):
        seen.append(batch[0].device.type)
        return StepOut(torch.tensor(1.0), 1)

    evaluate(nn.Linear(4, 3, device="meta"), blobs(), step=step)
    assert set(seen) == {"meta"}


# —— 不该发生的事


def test_nothing_is_read_back_inside_an_epoch(count_reads):
    def reads(number_of_batches, run):
        batches = blobs(n=16 * number_of_batches)
        arguments = job(batches)
        metrics = {"accuracy": Accuracy(), "confusion": ConfusionMatrix()}
        how = {"loss": F.cross_entropy, "metrics": metrics}
        if run is train_epoch:
            how["optimizer"] = arguments["optimizer"]
        return count_reads(lambda: run(arguments["model"], batches, **how))

    for run in (train_epoch, evaluate):
        assert reads(2, run) == reads(20, run) < 10


def test_evaluate_changes_neither_weights_nor_buffers_nor_gradients():
    model = SmallCNN(width=4)
    (inputs, targets), _ = digits_split()
    before = weights(model)
    evaluate(model, [(inputs[:64], targets[:64])], loss=F.cross_entropy)
    assert same(before, weights(model))
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("fails", [False, True])
def test_evaluate_leaves_each_module_in_the_state_it_found(fails):
    model = SmallCNN(width=4)
    model.norm2.eval()  # 读者单独冻结了一层
    before = {name: module.training for name, module in model.named_modules()}
    seen = []

    def step(model, batch):
        seen.append(any(module.training for module in model.modules()))
        if fails:
            raise RuntimeError("中途出错")
        return StepOut(torch.tensor(1.0), 1)

    try:
        evaluate(model, [0], step=step)
    except RuntimeError:
        assert fails
    assert seen == [False]
    assert {name: module.training for name, module in model.named_modules()} == before


def test_train_epoch_trains_in_train_state_even_after_eval():
    arguments = job()
    model = arguments["model"].eval()
    train_epoch(model, blobs(), loss=F.cross_entropy, optimizer=arguments["optimizer"])
    assert all(module.training for module in model.modules())


def test_evaluate_may_be_called_inside_inference_mode_and_training_goes_on():
    metrics = {"accuracy": Accuracy()}
    arguments = job(metrics=metrics)
    with torch.inference_mode():
        inside = evaluate(arguments["model"], blobs(), loss=F.cross_entropy, metrics=metrics)
    assert inside == evaluate(arguments["model"], blobs(), loss=F.cross_entropy, metrics=metrics)
    assert len(fit(**arguments).records) == 2


def test_metrics_do_not_keep_the_graph_alive():
    class Keeper:
        def reset(self):
            self.kept = []

        def update(self, outputs, targets):
            self.kept.append(outputs)

        def compute(self):
            return len(self.kept)

    keeper = Keeper()
    assert fit(**job(metrics={"kept": keeper}, epochs=1)).records[0]["train_kept"] == 4
    assert not any(outputs.requires_grad for outputs in keeper.kept)


def test_a_metric_in_the_manner_of_torchmetrics_is_accepted_and_becomes_a_number():
    class Hits(nn.Module):
        def reset(self):
            self.hits = torch.tensor(0)

        def update(self, preds, target):
            self.hits += (preds.argmax(1) == target).sum()

        def compute(self):
            return self.hits / 50

    metrics = {"theirs": Hits(), "ours": Accuracy()}
    record = evaluate(job()["model"], blobs(), loss=F.cross_entropy, metrics=metrics)
    assert type(record["theirs"]) is float
    assert record["theirs"] == pytest.approx(record["ours"])


# —— fit 的记录、进度和停止


def test_history_has_a_record_per_epoch_and_columns_by_name():
    history = fit(**job(valid=blobs(20), metrics={"accuracy": Accuracy()}, epochs=3))
    names = ["epoch", "train_loss", "train_accuracy", "valid_loss", "valid_accuracy", "lr"]
    assert [list(record) for record in history.records] == [names] * 3
    assert history["epoch"] == [1, 2, 3]
    assert history["train_loss"][2] < history["train_loss"][0]
    assert repr(history).startswith("History(3 轮；最后一轮 train_loss 0.")


def test_a_column_that_does_not_exist_lists_those_that_do():
    with pytest.raises(ValueError, match="'epoch'、'train_loss'、'lr' 之一，实际是 'loss'"):
        fit(**job())["loss"]


def test_progress_prints_one_line_an_epoch_without_tables(capsys):
    metrics = {"accuracy": Accuracy(), "confusion": ConfusionMatrix()}
    record = fit(**job(metrics=metrics, progress=True)).records[-1]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith(f"第 2/2 轮  train_loss {record['train_loss']:.4g}")
    assert lines[1].endswith(f"train_accuracy {record['train_accuracy']:.4g}")


def test_progress_false_prints_nothing(capsys):
    fit(**job())
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("answer", "epochs"), [(False, 2), (None, 5), (True, 5), (0, 5)])
def test_on_epoch_stops_by_returning_false_and_nothing_else(answer, epochs):
    seen = []

    def on_epoch(record):
        seen.append(record)
        return answer if record["epoch"] == 2 else None

    assert fit(**job(epochs=5, on_epoch=on_epoch)).records == seen
    assert len(seen) == epochs


# —— 错误


def test_a_loss_that_is_not_finite_stops_with_the_epoch():
    good, (inputs, targets) = blobs(), blobs()[0]
    bad = [*good, (inputs * float("nan"), targets)]

    class GoodThenBad:
        epoch = 0

        def __iter__(self):
            self.epoch += 1
            return iter(good if self.epoch < 3 else bad)

    with pytest.raises(FloatingPointError, match=r"第 3 轮的平均训练损失是 nan.*学习率"):
        fit(**job(GoodThenBad(), epochs=9))


def generator():
    yield from blobs()


def wrong(batch):
    return job([batch])


X, Y = blobs()[0]
CASES = {
    "空的加载器": (lambda: job([]), ValueError, "至少给出一批.*drop_last"),
    "空的验证集": (lambda: job(valid=[]), ValueError, "至少给出一批"),
    "生成器只能走一遍": (lambda: job(generator()), ValueError, "只能走一遍的生成器"),
    "浮点标签": (lambda: wrong((X, Y.float())), TypeError, r"labels\.long\(\)"),
    "独热标签": (lambda: wrong((X, F.one_hot(Y, 3))), ValueError, "argmax"),
    "标签多一维": (lambda: wrong((X, Y[:, None])), ValueError, r"squeeze\(1\)"),
    "三项一批": (lambda: wrong((X, Y, Y)), ValueError, r"应是 \(inputs, targets\).*step="),
    "字典一批": (lambda: wrong({"x": X}), ValueError, "实际是 dict"),
    "损失不是标量": (
        lambda: job(loss=functools.partial(F.cross_entropy, reduction="none")),
        ValueError,
        r"损失应是标量，实际形状是 \(16,\)",
    ),
    "partial 也认得": (
        lambda: wrong((X, Y.float())) | {"loss": functools.partial(F.cross_entropy)},
        TypeError,
        r"labels\.long\(\)",
    ),
    "step 返回损失": (
        lambda: job(loss=None, step=lambda m, b: F.cross_entropy(m(b[0]), b[1])),
        ValueError,
        "应返回 StepOut.*返回了 Tensor",
    ),
    "step 没给 values": (
        lambda: job(
            loss=None,
            step=lambda m, b: StepOut(F.cross_entropy(m(b[0]), b[1]), 1),
            metrics={"accuracy": Accuracy()},
        ),
        ValueError,
        "要算指标",
    ),
    "loss 和 step 都给": (lambda: job(step=print), ValueError, "应给且只给一个，实际都给了"),
    "loss 和 step 都没给": (lambda: job(loss=None), ValueError, "应给且只给一个，实际都没给"),
    "指标叫 loss": (lambda: job(metrics={"loss": Accuracy()}), ValueError, '不能叫 "loss"'),
    "零轮": (lambda: job(epochs=0), ValueError, "epochs 应为不小于 1"),
    "别人的优化器": (lambda: job(model=MLP(4, 3)), ValueError, "优化器也要重建"),
}


@pytest.mark.parametrize("case", CASES)
def test_mistakes_are_explained_with_the_way_out(case):
    arguments, error, words = CASES[case]
    with pytest.raises(error, match=words) as caught:
        fit(**arguments())
    assert type(caught.value).__module__ == "companion.errors"


def test_a_mistake_in_the_first_batch_leaves_the_weights_alone():
    arguments = wrong((X, Y.float()))
    before = weights(arguments["model"])
    with pytest.raises(TypeError):
        fit(**arguments)
    assert same(before, weights(arguments["model"]))


def test_regression_against_a_column_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="targets 的形状应与输出相同"):
        evaluate(MLP(4, 1), [(X, X[:, 0])], loss=nn.MSELoss())
