"""名字：包装套在哪一层，存下的名字都与不包时相同；用户自己叫 ``module`` 的层不动。"""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from companion.checkpoint import check_matches, export_weights, import_weights
from companion.data import TensorLoader
from companion.distributed import bare_parameters, bare_state, load_bare, unwrap
from companion.optim import EMA
from companion.run import Run
from companion.train import fit

X = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(40) % 3


def compiled(model):
    return torch.compile(model, backend="eager")


def in_place(model):
    model.compile(backend="eager")
    return model


def plain(model):
    return model


def recomputed(model):
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    return checkpoint_wrapper(model)


class Net(nn.Module):
    """两层都能包；还有共用的权重、缓冲区、不存的缓冲区、参数化、自己的额外状态。"""

    def __init__(self, inner=plain, outer=plain):
        super().__init__()
        self.body = outer(nn.Sequential(inner(nn.Linear(6, 6)), nn.BatchNorm1d(6)))
        self.normed = inner(weight_norm(nn.Linear(6, 6)))
        two = {"module": nn.Linear(6, 3), "_orig_mod": inner(nn.Linear(6, 3))}
        self.module = nn.ModuleDict(two)
        self.tied = nn.Linear(6, 3)
        self.tied.weight = self.module["module"].weight
        self.register_buffer("scratch", torch.zeros(1), persistent=False)

    def forward(self, x):
        x = self.normed(self.body(x))
        return sum(layer(x) for layer in self.module.values()) + self.tied(x)


WRAPS = [plain, compiled, nn.DataParallel, lambda m: nn.DataParallel(compiled(m)), in_place]
NESTS = [*itertools.product(WRAPS, WRAPS[:3])]
PLAIN = list(Net().state_dict())


@pytest.mark.parametrize(("inner", "outer"), NESTS)
def test_the_state_of_any_nesting_has_the_names_of_the_plain_model(inner, outer):
    model = outer(Net(inner, outer))
    assert list(bare_state(model)) == PLAIN
    found = dict(bare_parameters(model))
    assert set(PLAIN) >= set(found) and found["tied.weight"] is found["module.module.weight"]
    other = Net()
    load_bare(other, bare_state(model))
    assert all(map(torch.equal, other.state_dict().values(), model.state_dict().values()))
    back = outer(Net(inner, outer))
    load_bare(back, other.state_dict())
    check_matches(back, other.state_dict())
    assert all(map(torch.equal, other.state_dict().values(), back.state_dict().values()))


@pytest.mark.parametrize("inner", WRAPS)
def test_weights_of_wrapped_layers_go_out_and_in_under_their_bare_names(inner, tmp_path):
    pytest.importorskip("safetensors")
    model, other, third = Net(inner), Net(), Net(inner)
    import_weights(other, export_weights(model, tmp_path / "w.safetensors"))
    import_weights(third, export_weights(other, tmp_path / "w.safetensors"))
    for found in (other, third):
        assert all(map(torch.equal, found.state_dict().values(), model.state_dict().values()))


@pytest.mark.parametrize("inner", WRAPS)
def test_an_average_kept_with_wrapped_layers_goes_into_any_other_model(inner):
    model, other = Net(inner), Net()
    first, second = EMA(model), EMA(other)
    second.load_state_dict(first.state_dict())
    first.load_state_dict(second.state_dict())
    with second.average():
        assert all(map(torch.equal, other.parameters(), model.parameters()))


def test_a_layer_compiled_after_the_average_was_built_is_still_the_same_layer():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    ema = EMA(model)
    model[0] = compiled(model[0])
    ema.update()
    assert list(ema.state_dict()["average"]) == ["0.weight", "0.bias", "1.weight", "1.bias"]


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # 编译时
@pytest.mark.parametrize(("first", "second"), [(plain, compiled), (compiled, plain)])
def test_a_run_begun_with_wrapped_layers_goes_on_with_plain_ones(first, second, tmp_path):
    found = []
    for folder, wraps in (("whole", [plain]), ("cut", [first, second])):
        for epochs, wrap in zip((2,) if len(wraps) == 1 else (1, 2), wraps, strict=True):
            torch.manual_seed(0)
            model = Net(wrap)
            model.normed.requires_grad_(False)
            options = {"optimizer": torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)}
            options |= {"ema": EMA(model), "run": Run(tmp_path / folder, resume=True)}
            options |= {"loss": F.cross_entropy, "progress": False, "epochs": epochs}
            fit(model, TensorLoader(X, Y, batch_size=10), **options)
        found.append(list(bare_state(model).values()))
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize(("first", "second"), [(plain, recomputed), (recomputed, compiled)])
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # 编译时
def test_layers_that_are_recomputed_in_backward_keep_their_names_too(first, second, tmp_path):
    names = ["0.weight", "0.bias", "1.weight", "1.bias"]
    for epochs, wrap in ((1, first), (2, second)):
        model = nn.Sequential(wrap(nn.Linear(6, 6)), nn.Linear(6, 3))
        assert [*bare_state(model)] == [name for name, _ in bare_parameters(model)] == names
        options = {"optimizer": torch.optim.SGD(model.parameters(), lr=0.1), "ema": EMA(model)}
        options |= {"run": Run(tmp_path, resume=True), "progress": False, "epochs": epochs}
        history = fit(model, TensorLoader(X, Y, batch_size=10), loss=F.cross_entropy, **options)
        assert len(history) == epochs
    both = nn.Sequential(
        recomputed(compiled(nn.Linear(2, 2))), compiled(recomputed(nn.Linear(2, 2)))
    )
    assert list(bare_state(both)) == [name for name, _ in bare_parameters(both)] == names
    load_bare(both, nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)).state_dict())


class Counts(nn.Linear):
    def get_extra_state(self):
        return {"calls": 3}

    def set_extra_state(self, state):
        self.calls = state["calls"]


def test_extra_state_of_a_wrapped_layer_finds_its_way_back():
    model, other = nn.Sequential(compiled(Counts(2, 2))), nn.Sequential(Counts(2, 2))
    load_bare(other, bare_state(model))
    assert other[0].calls == 3
    ema = EMA(model)
    ema.update()
    assert list(ema.state_dict()["average"]) == ["0.weight", "0.bias"]


class Delegates(nn.Module):
    """自己没有的属性，问编译过的那一层要。"""

    def __init__(self, wrap=compiled):
        super().__init__()
        self.body, self.head = wrap(nn.Linear(6, 6)), nn.Linear(6, 3)

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("body"), name)

    def forward(self, x):
        return self.head(self.body(x))


@pytest.mark.parametrize("wrap", [compiled, nn.DataParallel])
def test_a_model_that_asks_its_wrapped_layer_for_attributes_is_no_wrapper(wrap):
    model = Delegates(wrap)
    assert unwrap(model) is model
    names = ["body.weight", "body.bias", "head.weight", "head.bias"]
    assert list(EMA(model).state_dict()["average"]) == list(bare_state(model)) == names


class Own(nn.Module):
    """不是包装，只是用了同样的名字。"""

    def __init__(self):
        super().__init__()
        self._orig_mod, self.module = nn.Linear(2, 2), nn.Linear(2, 2)


def test_layers_that_a_user_named_like_a_wrapper_keep_their_names():
    model = nn.Sequential(Own())
    assert unwrap(model[0]) is model[0]
    for wrapped in (model, compiled(model), nn.DataParallel(model)):
        assert list(bare_state(wrapped)) == list(model.state_dict())
    average = torch.optim.swa_utils.AveragedModel(compiled(model))
    bare = torch.optim.swa_utils.AveragedModel(model)
    assert list(bare_state(average)) == list(bare.state_dict())
