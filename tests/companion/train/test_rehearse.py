"""试跑：看得出毛病，又什么也不动。"""

import copy
import functools

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.parameter import is_lazy
from torch.utils.data import DataLoader, TensorDataset

from companion.data import TensorLoader, digits_split
from companion.errors import ArgumentError
from companion.metrics import Accuracy
from companion.models import MLP, SmallCNN
from companion.train import StepOut, dry_run, fit, overfit_one_batch
from tests.companion.train.test_train import blobs, job, same, weights

X, Y = blobs()[0]


# —— 背一批


def noise():
    (images, _), _ = digits_split()
    return images[:32], torch.randint(10, (32,), generator=torch.Generator().manual_seed(0))


def test_a_sound_model_memorises_a_batch_of_noise(capsys):
    torch.manual_seed(0)
    losses = overfit_one_batch(SmallCNN(), noise(), loss=F.cross_entropy, steps=60)
    assert len(losses) == 60 and losses[-1] < 0.05 * losses[0]
    assert "同一批练 60 步" in (said := capsys.readouterr().out) and "：背下来了" in said


def test_a_frozen_layer_is_found_and_named(capsys):
    torch.manual_seed(0)
    model = SmallCNN()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name == "head.bias")
    losses = overfit_one_batch(model, noise(), loss=F.cross_entropy, steps=60)
    assert losses[-1] > 1
    assert "没有背下来。先看没有梯度的参数：" in (said := capsys.readouterr().out)
    assert "等" in said and "head.bias" not in said


def test_a_cut_graph_is_found_and_named(capsys):
    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(4, 8), nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.body(x).detach() * 0)

    overfit_one_batch(Cut(), (X, Y), loss=F.cross_entropy)
    assert "没有梯度的参数：body.weight、body.bias、head.weight。" in capsys.readouterr().out


def test_labels_that_cannot_be_learnt_are_not_blamed_on_gradients(capsys):
    same_inputs = X[:1].expand(16, 4)
    overfit_one_batch(MLP(4, 8, 3), (same_inputs, Y), loss=F.cross_entropy)
    assert "没有背下来。梯度都有：先查标签" in capsys.readouterr().out


def test_memorising_leaves_model_and_random_numbers_alone(capsys):
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3)).eval()
    before, random_state = weights(model), torch.get_rng_state()
    overfit_one_batch(model, (X, Y), loss=F.cross_entropy, steps=5)
    assert same(before, weights(model)) and not model.training
    assert torch.equal(random_state, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_nothing_to_train_and_too_few_steps_are_refused():
    with pytest.raises(ValueError, match="全冻结了"):
        overfit_one_batch(MLP(4, 3).requires_grad_(False), (X, Y), loss=F.cross_entropy)
    with pytest.raises(ValueError, match="至少为 2，实际是 1"):
        overfit_one_batch(MLP(4, 3), (X, Y), loss=F.cross_entropy, steps=1)


# —— 试跑


def trying(arguments):
    arguments = {k: v for k, v in arguments.items() if k not in ("epochs", "progress")}
    return dry_run(**arguments)


def test_a_dry_run_tells_the_shapes_and_gives_the_record_of_fit(capsys):
    metrics = {"accuracy": Accuracy()}
    record = trying(job(valid=blobs(20), metrics=metrics))
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("试跑通过：2 批训练、1 批验证")
    assert said[1:3] == ["  一批  float32 (16, 4)，int64 (16,)", "  输出  float32 (16, 3)"]
    expected = fit(**job(blobs()[:2], valid=blobs(20)[:1], metrics=metrics, epochs=1)).records[0]
    assert record == expected
    shown = f"训练 {expected['train_loss']:.4g}，验证 {expected['valid_loss']:.4g}"
    assert said[3] == f"  损失  {shown}"


def test_batches_of_another_structure_are_described(capsys):
    def step(model, batch):
        return StepOut(F.cross_entropy(model(batch["x"]), batch["y"]), len(batch["y"]))

    trying(job([{"x": X, "y": Y, "name": "甲"}], loss=None, step=step))
    said = capsys.readouterr().out
    assert "1 批训练，" in said
    assert "一批  x: float32 (16, 4)，y: int64 (16,)，name: str" in said


def test_a_dry_run_changes_nothing_at_all(capsys):
    data = TensorDataset(*(torch.cat(part) for part in zip(*blobs(), strict=True)))
    generator = torch.Generator().manual_seed(1)
    train = DataLoader(data, 8, shuffle=True, generator=generator)
    valid = TensorLoader(data, batch_size=8, shuffle=True)
    metrics = {"accuracy": Accuracy()}
    arguments = job(train, valid=valid, metrics=metrics)
    model, optimizer = arguments["model"], arguments["optimizer"]
    optimizer.param_groups[0]["momentum"] = 0.9
    F.cross_entropy(model(X), Y).backward()
    optimizer.step()
    metrics["accuracy"].update(model(X), Y)
    before = weights(model), copy.deepcopy(optimizer.state_dict()), metrics["accuracy"].compute()
    grads = [parameter.grad.clone() for parameter in model.parameters()]
    states = torch.get_rng_state(), generator.get_state(), valid.state_dict()
    trying(arguments)
    assert same(before[0], weights(model))
    torch.testing.assert_close(optimizer.state_dict(), before[1], rtol=0, atol=0)
    assert metrics["accuracy"].compute() == before[2]
    assert all(map(torch.equal, grads, [p.grad for p in model.parameters()]))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert torch.equal(generator.get_state(), states[1])
    assert valid.state_dict() == states[2]


CASES = {
    "空的": (lambda: job([]), "至少给出一批"),
    "空的验证集": (lambda: job(valid=[]), "至少给出一批"),
    "生成器": (lambda: job(iter(blobs())), "只能走一遍的生成器"),
    "浮点标签": (lambda: job([(X, Y.float())]), r"labels\.long"),
    "别人的优化器": (lambda: job(model=MLP(4, 3)), "优化器也要重建"),
    "损失是 nan": (lambda: job([(X * float("nan"), Y)]), "从第 1 批起"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_fit_would_refuse_is_refused(case):
    make, words = CASES[case]
    with pytest.raises(Exception, match=words) as caught:
        trying(make())
    assert type(caught.value).__module__ == "companion.errors"


# —— 试的是交来的副本；用到了原来的模型就说，原来的一样不动


def norm_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))


def out(model, batch):
    return StepOut(F.cross_entropy(model(batch[0]), batch[1]), len(batch[1]))


class Trainer:
    def __init__(self, model):
        self.model = model

    def step(self, model, batch):
        return out(self.model, batch)


def penalised(net):
    def step(model, batch):
        loss = F.cross_entropy(model(batch[0]), batch[1])
        return StepOut(loss + sum(p.square().sum() for p in net.parameters()), len(batch[1]))

    return step


def changing(change):
    def make(net):
        def step(model, batch):
            with torch.no_grad():
                change(net)
            return out(model, batch)

        return step

    return make


WRONG = {
    "closure": lambda net: lambda model, batch: out(net, batch),
    "method": lambda net: Trainer(net).step,
    "partial": lambda net: functools.partial(lambda net, model, batch: out(net, batch), net),
    "forward": lambda net: lambda model, batch: out(net.forward, batch),
    "penalty": penalised,
    "clipped weights": changing(lambda net: [p.clamp_(-0.01, 0.01) for p in net.parameters()]),
    "zeroed gradients": changing(lambda net: net.zero_grad(set_to_none=False)),
}


def everything(model):
    grads = [p.grad for p in model.parameters()]
    rest = [module.training for module in model.modules()], torch.get_rng_state()
    return copy.deepcopy((list(model.state_dict().values()), grads, *rest))


def rehearsals(model, **how):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    yield lambda: dry_run(model, [(X, Y)], optimizer=optimizer, **how)
    yield lambda: overfit_one_batch(model, (X, Y), steps=3, **how)


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
@pytest.mark.parametrize("kind", WRONG)
def test_a_step_that_reaches_the_original_is_told_how_and_the_original_stays(kind, compiled):
    model = norm_net()
    if compiled:
        model = torch.compile(model, backend="eager")
    out(model, (X, Y)).loss.backward()
    before = everything(model)
    for rehearse in rehearsals(model, step=WRONG[kind](model)):
        with pytest.raises(ArgumentError, match=r"请写成 def step\(model, batch\)"):
            rehearse()
        torch.testing.assert_close(everything(model), before, rtol=0, atol=0, equal_nan=True)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_model_whose_lambda_holds_itself_cannot_be_rehearsed_as_a_copy(capsys):
    class Held(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)
            self.call = lambda x: self.layer(x)

        def forward(self, x):
            return self.call(x)

    for rehearse in rehearsals(Held(), loss=F.cross_entropy):
        with pytest.raises(ArgumentError, match="模型里的 lambda"):
            rehearse()


def test_a_step_that_only_switches_the_original_is_put_right_again(capsys):
    model = norm_net()
    model[1].eval()
    out(model, (X, Y)).loss.backward()
    before = everything(model)

    def step(given, batch):
        model.train()
        model.zero_grad()
        return out(given, batch)

    for rehearse in rehearsals(model, step=step):
        rehearse()
        torch.testing.assert_close(everything(model), before, rtol=0, atol=0)


class Penalty(nn.Module):
    """拿着模型、也有自己的参数的损失。"""

    def __init__(self, model):
        super().__init__()
        self.model, self.scale = model, nn.Parameter(torch.tensor(2.0))

    def forward(self, outputs, targets):
        size = sum(p.square().mean() for p in self.model.parameters())
        return F.cross_entropy(outputs, targets) + self.scale * size


def test_a_loss_that_holds_the_model_is_copied_with_it(capsys):
    model = norm_net()
    loss = Penalty(model)
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.1)
    before = everything(loss)
    record = dry_run(model, [(X, Y), (X, Y)], loss=loss, optimizer=optimizer)
    losses = overfit_one_batch(model, (X, Y), loss=loss, steps=30)
    torch.testing.assert_close(everything(loss), before, rtol=0, atol=0)
    trained = fit(model, [(X, Y)] * 2, loss=loss, optimizer=optimizer, epochs=1, progress=False)
    assert record["train_loss"] == trained.records[0]["train_loss"]
    assert losses[-1] < losses[0]


def test_a_lazy_model_is_rehearsed_and_stays_lazy(capsys):
    model = nn.Sequential(nn.LazyLinear(5), nn.LazyBatchNorm1d(), nn.LazyLinear(3))
    for rehearse in rehearsals(model, loss=F.cross_entropy):
        rehearse()
    assert all(map(is_lazy, [*model.parameters(), model[1].running_mean]))
