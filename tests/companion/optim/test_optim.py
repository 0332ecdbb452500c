import copy
import io

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parametrizations, parametrize

from companion.errors import ArgumentError, MismatchError
from companion.optim import EMA, LAMB, decay_groups


def net(dtype=torch.float64):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).to(dtype)


def train_step(model, optimizer, seed=0):
    g = torch.Generator().manual_seed(seed)
    dtype = next(model.parameters()).dtype
    optimizer.zero_grad()
    model(torch.randn(8, 3, generator=g).to(dtype)).square().mean().backward()
    optimizer.step()


def snapshot(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


# EMA


@pytest.mark.parametrize("warmup", [False, True])
def test_ema_equals_the_formula_written_by_hand(warmup):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    ema, expected = EMA(model, decay=0.7, warmup=warmup), snapshot(model)
    for n in range(40):
        train_step(model, optimizer, seed=n)
        ema.update()
        decay = min(0.7, (1 + n) / (10 + n)) if warmup else 0.7
        for name, value in model.state_dict().items():
            mixed = decay * expected[name] + (1 - decay) * value
            expected[name] = mixed if value.is_floating_point() else value.clone()
    with ema.average():
        torch.testing.assert_close(snapshot(model), expected)
    assert expected["1.num_batches_tracked"] == 40


def test_average_swaps_weights_and_buffers_in_and_back_even_on_error():
    model = net()
    ema = EMA(model)
    train_step(model, torch.optim.SGD(model.parameters(), lr=0.5))
    before, average = snapshot(model), ema.state_dict()["average"]
    with pytest.raises(KeyError), ema.average():
        for name, value in model.state_dict().items():
            assert torch.equal(value, average[name])
        assert not torch.equal(model[0].weight, before["0.weight"])
        assert not torch.equal(model[1].running_mean, before["1.running_mean"])
        raise KeyError
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_ema_in_half_precision_does_not_lose_small_changes():
    model = nn.Linear(1, 1, bias=False).bfloat16()
    nn.init.constant_(model.weight, 1.0)
    ema = EMA(model, decay=0.999, warmup=False)
    nn.init.constant_(model.weight, 2.0)
    for _ in range(100):
        ema.update()  # 每次只改千分之一，bfloat16 只有三位有效数字
    average = ema.state_dict()["average"]["weight"]
    assert average.item() == pytest.approx(2 - 0.999**100, rel=1e-5)
    with ema.average():
        assert model.weight.dtype == torch.bfloat16
        assert model.weight.item() == average.bfloat16().item() != 1.0


def test_ema_keeps_tied_weights_tied_and_updates_them_once():
    model = nn.ModuleDict({"one": nn.Linear(2, 2, bias=False), "two": nn.Linear(2, 2, bias=False)})
    model["two"].weight = model["one"].weight
    nn.init.constant_(model["one"].weight, 0.0)
    ema = EMA(model, decay=0.5, warmup=False)
    nn.init.constant_(model["one"].weight, 1.0)
    ema.update()
    assert list(ema.state_dict()["average"]) == ["one.weight"]
    with ema.average():
        assert torch.equal(model["two"].weight, torch.full((2, 2), 0.5))
        assert model["two"].weight is model["one"].weight
    assert torch.equal(model["two"].weight, torch.ones(2, 2))


def test_ema_copies_a_mask_of_infinities_instead_of_averaging_it():
    model = nn.Linear(2, 2)
    model.register_buffer("mask", torch.full((2, 2), float("-inf")).triu(1))
    ema = EMA(model)
    ema.update()
    with ema.average():
        assert torch.equal(model.mask, torch.full((2, 2), float("-inf")).triu(1))


def test_ema_continues_from_a_saved_state_as_if_never_stopped():
    straight, stopped = net(), net()
    long, first = EMA(straight, 0.9), EMA(stopped, 0.9)
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.5) for m in (straight, stopped)]
    for n in range(6):
        train_step(straight, optimizers[0], n)
        long.update()
        train_step(stopped, optimizers[1], n)
        if n == 3:
            file = io.BytesIO()
            torch.save(first.state_dict(), file)
            file.seek(0)
            first = EMA(stopped, 0.9)
            first.load_state_dict(torch.load(file, weights_only=True))
        first.update()
    with long.average(), first.average():
        for ours, theirs in zip(straight.parameters(), stopped.parameters(), strict=True):
            assert torch.equal(ours, theirs)


def test_ema_refuses_the_average_of_another_model_and_keeps_its_own():
    ema = EMA(nn.Linear(2, 3))
    kept = copy.deepcopy(ema.state_dict())
    for other in (nn.Linear(2, 4), nn.Linear(2, 3, bias=False)):
        with pytest.raises(MismatchError, match=r"如 bias：应为 \(3,\)，实际是"):
            ema.load_state_dict(EMA(other).state_dict())
    torch.testing.assert_close(ema.state_dict(), kept, rtol=0, atol=0)


@pytest.fixture
def one_rank():
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


def test_ema_names_are_the_same_with_and_without_ddp(one_rank):
    model = net()
    wrapped = EMA(DistributedDataParallel(model))
    assert list(wrapped.state_dict()["average"]) == list(EMA(model).state_dict()["average"])


def test_ema_and_lamb_do_the_same_to_sharded_weights(one_rank):
    averages = []
    for mesh in (None, one_rank):
        model = net()
        if mesh is not None:
            fully_shard(model, mesh=mesh)  # 参数成了 DTensor，批归一化的统计量还是普通张量
        ema = EMA(model, decay=0.5)
        optimizer = LAMB(decay_groups(model, 0.1), lr=0.1)
        for n in range(3):
            train_step(model, optimizer, seed=n)
            ema.update()
        with ema.average():
            full = [p.full_tensor() if mesh else p for p in model.parameters()]
            averages.append([p.detach().clone() for p in full])
    torch.testing.assert_close(*averages)


def test_ema_never_reads_a_value_back(count_reads):
    ema = EMA(net())
    assert count_reads(ema.update) == 0


@pytest.mark.parametrize("decay", [-0.1, 1.0, 2])
def test_ema_needs_a_decay_below_one(decay):
    with pytest.raises(ArgumentError, match="decay 应在 0 到 1 之间"):
        EMA(nn.Linear(1, 1), decay=decay)


def holding(value):
    model = nn.Linear(1, 1)
    kind = nn.Parameter if value.is_floating_point() or value.is_complex() else nn.Buffer
    model.value = kind(value)
    return model


NARROW = (torch.float8_e4m3fn, torch.float8_e5m2, torch.float16, torch.bfloat16, torch.complex32)


@pytest.mark.parametrize("dtype", NARROW, ids=str)
@pytest.mark.filterwarnings("ignore:ComplexHalf")
def test_ema_averages_every_narrow_dtype_in_a_wider_one(dtype):
    model = holding(torch.ones(2).to(dtype))
    ema = EMA(model, decay=0.75, warmup=False)
    model.value.data = torch.tensor([2.0, -3.0]).to(dtype)
    ema.update()
    ema.load_state_dict(copy.deepcopy(ema.state_dict()))
    expected = torch.tensor([1.25, 0.0])
    assert torch.equal(
        ema.state_dict()["average"]["value"],
        expected.to(torch.complex64) if dtype.is_complex else expected,
    )
    with ema.average():
        assert model.value.dtype == dtype
        assert torch.equal(model.value.to(torch.complex64), expected.to(torch.complex64))
    assert torch.equal(model.value.to(torch.complex64), torch.tensor([2.0 + 0j, -3.0]))


COPIED = {
    "int64": torch.tensor([3]),
    "bool": torch.tensor([True]),
    "uint64": torch.tensor([-1]).to(torch.uint64),
    "inf in float8": torch.tensor([float("inf"), 1]).to(torch.float8_e5m2),
    "float4": torch.zeros(2, dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
}


@pytest.mark.parametrize("kind", COPIED)
def test_ema_copies_what_has_no_mean(kind):
    model = nn.Linear(1, 1)
    model.register_buffer("value", COPIED[kind])
    ema = EMA(model)
    ema.update()
    with ema.average():
        same = [x.view(torch.uint8) for x in (model.value, COPIED[kind])]
        assert torch.equal(*same)


def test_a_mask_filled_after_the_average_was_built_is_never_nan():
    model = nn.BatchNorm1d(2)
    model.register_buffer("mask", torch.zeros(2))
    ema = EMA(model, decay=0.5, warmup=False)
    model.mask[0], model.running_mean[:] = float("-inf"), 4.0
    for _ in range(3):
        ema.update()
    with ema.average():
        assert model.mask.tolist() == [float("-inf"), 0.0]
        assert model.running_mean.tolist() == [3.5, 3.5]


def test_an_expanded_buffer_is_averaged_and_put_back():
    model = nn.Linear(1, 1)
    model.register_buffer("value", torch.ones(1, 3).expand(2, 3))
    ema = EMA(model, decay=0.5, warmup=False)
    model.value = torch.full((1, 3), 2.0).expand(2, 3)
    ema.update()
    with ema.average():
        assert torch.equal(model.value, torch.full((2, 3), 1.5))
    assert torch.equal(model.value, torch.full((2, 3), 2.0))


def later(change):
    model = nn.Linear(2, 2)
    ema = EMA(model)
    change(model)
    return ema


CHANGED = {
    "added": (
        lambda m: m.register_buffer("late", torch.ones(2)),
        r"late 那时是 没有，现在是 \(2,\)",
    ),
    "dropped": (lambda m: setattr(m, "bias", None), r"bias 那时是 \(2,\)，现在是 没有"),
    "reshaped": (lambda m: setattr(m, "bias", nn.Parameter(torch.ones(1))), r"现在是 \(1,\)"),
}


@pytest.mark.parametrize("change", CHANGED)
def test_ema_says_that_the_model_was_changed_after_it_was_built(change):
    ema = later(CHANGED[change][0])
    for action in (ema.update, lambda: ema.average().__enter__()):
        with pytest.raises(ArgumentError, match=CHANGED[change][1]):
            action()


def test_ema_refuses_numbers_out_of_its_range_and_other_kinds():
    ema, kept = EMA(nn.Linear(1, 1)), torch.tensor([1e300], dtype=torch.float64)
    for bad in (kept, torch.tensor([1]), torch.tensor([1j])):
        before = copy.deepcopy(ema.state_dict())
        with pytest.raises(MismatchError, match=r"bias 应为 torch\.float32，实际是"):
            ema.load_state_dict({"updates": 1, "average": before["average"] | {"bias": bad}})
        torch.testing.assert_close(ema.state_dict(), before, rtol=0, atol=0)


UNNUMBERED = {
    "meta": lambda: torch.ones(2, device="meta"),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(1), torch.ones(2)]),
    "sparse": lambda: torch.eye(2).to_sparse(),
}


@pytest.mark.parametrize("kind", UNNUMBERED)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested")
def test_ema_refuses_tensors_without_dense_numbers_by_name(kind):
    with pytest.raises(ArgumentError, match=r"实际 value .*，再建 EMA。"):
        EMA(holding(UNNUMBERED[kind]()))


# LAMB


def lamb_by_hand(x, grads, lr, betas, eps, weight_decay):
    """论文算法 2，一行对一行；范数为 0 时不缩放。"""
    m, v = torch.zeros_like(x), torch.zeros_like(x)
    for t, g in enumerate(grads, start=1):
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        r = (m / (1 - betas[0] ** t)) / ((v / (1 - betas[1] ** t)).sqrt() + eps)
        u = r + weight_decay * x
        trust = x.norm() / u.norm() if x.norm() > 0 and u.norm() > 0 else 1.0
        x = x - lr * trust * u
    return x


def follow(optimizer, parameter, grads):
    for grad in grads:
        parameter.grad = grad.clone()
        optimizer.step()
    return parameter.detach()


def fixed(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


SETTINGS = {"lr": 0.03, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1}


@pytest.mark.parametrize("start", ["random", "zero"])
def test_lamb_equals_algorithm_2_written_by_hand(start):
    x = fixed(4, 3, seed=0) * (start == "random")
    grads = [fixed(4, 3, seed=i) for i in range(1, 8)]
    parameter = nn.Parameter(x.clone())
    ours = follow(LAMB([parameter], **SETTINGS), parameter, grads)
    torch.testing.assert_close(ours, lamb_by_hand(x, grads, **SETTINGS), rtol=1e-12, atol=1e-12)


def test_lamb_without_scaling_is_adamw():
    x, grads = fixed(4, 3, seed=0), [fixed(4, 3, seed=i) for i in range(1, 8)]
    one, two = nn.Parameter(x.clone()), nn.Parameter(x.clone())
    ours = follow(LAMB([{"params": [one], "adapt": False}], **SETTINGS), one, grads)
    theirs = follow(torch.optim.AdamW([two], **SETTINGS), two, grads)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_a_lamb_step_is_lr_times_the_length_of_the_parameter():
    x = fixed(5, 5, seed=0)
    parameter = nn.Parameter(x.clone())
    moved = follow(LAMB([parameter], lr=0.01), parameter, [1e-3 * fixed(5, 5, seed=1)])
    assert (moved - x).norm() == pytest.approx(0.01 * x.norm().item())


def test_lamb_resumes_exactly_from_a_state_of_plain_types():
    grads = [fixed(4, 3, seed=i) for i in range(8)]
    straight, first = nn.Parameter(fixed(4, 3, seed=9)), nn.Parameter(fixed(4, 3, seed=9))
    follow(LAMB([straight], **SETTINGS), straight, grads)
    optimizer, file = LAMB([first], **SETTINGS), io.BytesIO()
    follow(optimizer, first, grads[:4])
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    second = nn.Parameter(first.detach().clone())
    optimizer = LAMB([second], lr=99.0)
    optimizer.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(follow(optimizer, second, grads[4:]), straight.detach())


def test_lamb_skips_parameters_without_gradient_and_returns_the_loss_of_the_closure():
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))

    def closure():
        loss = used.square().sum()
        loss.backward()
        return loss

    assert LAMB([used, unused], lr=0.1).step(closure).item() == 2.0
    assert torch.equal(unused, torch.ones(2))
    assert not torch.equal(used, torch.ones(2))


def test_lamb_never_reads_a_value_back(count_reads):
    parameter = nn.Parameter(torch.ones(3))
    parameter.grad = torch.ones(3)
    optimizer = LAMB([parameter])
    assert count_reads(optimizer.step) == 0


@pytest.mark.parametrize("bad", [{"lr": -1.0}, {"betas": (0.9, 1.0)}, {"weight_decay": -0.1}])
def test_lamb_explains_impossible_settings(bad):
    with pytest.raises(ArgumentError, match=next(iter(bad))):
        LAMB([nn.Parameter(torch.ones(1))], **bad)


# decay_groups


class Everything(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(5, 4)
        self.conv = nn.Conv2d(1, 2, 3)
        self.norms = nn.ModuleList(
            [nn.BatchNorm2d(2), nn.GroupNorm(1, 2), nn.LayerNorm((2, 4)), nn.RMSNorm((2, 4))]
        )
        self.lstm = nn.LSTM(4, 4)
        self.attention = nn.MultiheadAttention(4, 2, add_bias_kv=True)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.scale = nn.Parameter(torch.ones(()))
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.table.weight  # 共用


def named(model, group):
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {names[parameter] for parameter in group["params"]}


def test_only_weight_matrices_decay_and_nothing_is_lost_or_doubled():
    model = Everything()
    decayed, spared = decay_groups(model, 0.1)
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    assert named(model, decayed) == {
        *("conv.weight", "lstm.weight_ih_l0", "lstm.weight_hh_l0"),
        *("attention.in_proj_weight", "attention.out_proj.weight"),
    }
    both = [*decayed["params"], *spared["params"]]
    assert len(both) == len(set(both))
    assert set(both) == {p for p in model.parameters() if p.requires_grad}


def test_embeddings_decay_when_asked_and_a_tied_one_is_counted_once():
    model = Everything()
    assert "table.weight" in named(model, decay_groups(model, 0.1)[1])
    assert "table.weight" in named(model, decay_groups(model, 0.1, embeddings=True)[0])


def test_the_groups_train_with_any_optimizer():
    model = net()
    biases = model[0].bias.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    weight = model[0].weight.detach().clone()
    torch.optim.SGD(decay_groups(model, 0.5), lr=0.1).step()  # 梯度是 0，只剩衰减
    torch.testing.assert_close(model[0].weight.detach(), weight * (1 - 0.1 * 0.5))
    assert torch.equal(model[0].bias, biases)
    assert torch.equal(model[1].weight, torch.ones(4, dtype=torch.float64))


def parametrized(make):
    """同一种模型的各层，原样的和参数化过的。"""
    plain, other = make(), make()
    for tensor in ("weight", "bias"):
        if getattr(other[0], tensor, None) is not None:
            parametrize.register_parametrization(other[0], tensor, Scaled())
    return plain, other


class Scaled(nn.Module):
    """存的是除以 2 拉平了的，所以看存的那个就看错了。"""

    def forward(self, flat):
        return 2 * flat.view(self.shape)

    def right_inverse(self, value):
        self.shape = value.shape
        return value.flatten() / 2


LAYERS = {
    "linear": lambda: nn.Linear(3, 2),
    "conv": lambda: nn.Conv2d(1, 2, 3),
    "embedding": lambda: nn.Embedding(5, 4),
    "bag": lambda: nn.EmbeddingBag(5, 4),
    "layer norm": lambda: nn.LayerNorm((2, 3)),
    "batch norm": lambda: nn.BatchNorm2d(3),
}


@pytest.mark.parametrize("embeddings", [False, True])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_parametrized_layer_is_grouped_as_the_plain_one(kind, embeddings):
    plain, other = parametrized(lambda: nn.Sequential(LAYERS[kind]()))
    expected = [named(plain, g) for g in decay_groups(plain, 0.1, embeddings=embeddings)]
    groups = decay_groups(other, 0.1, embeddings=embeddings)
    short = [{f"0.{n.split('.')[2]}" for n in named(other, group)} for group in groups]
    assert short == expected


def test_both_parts_of_a_normed_weight_decay_and_spectral_norm_is_not_moved():
    model = nn.Sequential(
        parametrizations.weight_norm(nn.Linear(3, 2)),
        parametrizations.spectral_norm(nn.Linear(2, 2)),
        parametrizations.weight_norm(nn.Embedding(5, 4)),
    )
    before = snapshot(model)
    decayed, spared = decay_groups(model, 0.1)
    weight = "parametrizations.weight.original"
    assert named(model, decayed) == {f"0.{weight}0", f"0.{weight}1", f"1.{weight}"}
    assert named(model, spared) == {"0.bias", "1.bias", f"2.{weight}0", f"2.{weight}1"}
    assert all(torch.equal(value, before[name]) for name, value in snapshot(model).items())
    assert model.training and model[1].parametrizations.weight[0].training


def test_a_layer_without_shapes_cannot_be_grouped_yet():
    model = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(ArgumentError, match=r"LazyLinear 的 weight 还没有。请先用一批数据"):
        decay_groups(model, 0.1)
    model(torch.ones(1, 2))
    assert named(model, decay_groups(model, 0.1)[0]) == {"0.weight"}
