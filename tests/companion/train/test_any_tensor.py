"""什么样的张量都行，或者说清楚：包着的、惰性的、复数的、稀疏的，留着中间结果的模型。"""

import copy
import threading

import pytest
import torch
from torch import nn, optim
from torch.nn import functional as F

from companion.checkpoint import export_weights, import_weights
from companion.data import TensorLoader
from companion.errors import ArgumentError
from companion.measure import memory
from companion.optim import EMA, LAMB
from companion.run import Run
from companion.train import Update, dry_run, fit, overfit_one_batch

X = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(40) % 3


def compiled(model):
    return torch.compile(model, backend="eager")


WRAPS = [lambda m: m, compiled, nn.DataParallel, lambda m: nn.DataParallel(compiled(m))]


@pytest.mark.parametrize("wrap", WRAPS)
def test_weights_of_a_wrapped_model_have_the_bare_names_both_ways(wrap, tmp_path):
    model, other = nn.Linear(6, 3), nn.Linear(6, 3)
    path = export_weights(wrap(model), tmp_path / "w.safetensors")
    import_weights(other, path)
    assert torch.equal(other.weight, model.weight)
    import_weights(wrap(nn.Linear(6, 3)), path)


@pytest.mark.parametrize("first", WRAPS)
@pytest.mark.parametrize("second", WRAPS[:2])
def test_a_run_begun_with_a_wrapped_model_goes_on_with_any_other(first, second, tmp_path):
    for epochs, wrap in ((1, first), (2, second)):
        torch.manual_seed(0)
        model = wrap(nn.Linear(6, 3))
        options = {"optimizer": torch.optim.SGD(model.parameters(), lr=0.1), "ema": EMA(model)}
        data = TensorLoader(X, Y, batch_size=10)
        run = Run(tmp_path, resume=True)
        options |= {"loss": F.cross_entropy, "progress": False, "run": run}
        assert len(fit(model, data, epochs=epochs, **options)) == epochs


def test_a_lazy_model_is_saved_and_loaded_into_one_that_is_still_lazy(tmp_path):
    trained = []
    for folder, epochs in (("whole", 2), ("cut", 1), ("cut", 2)):
        torch.manual_seed(0)
        model = nn.Sequential(nn.LazyLinear(8), nn.Linear(8, 3))
        torch.manual_seed(1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        run = Run(tmp_path / folder, resume=True)
        options = {"loss": F.cross_entropy, "progress": False, "run": run, "epochs": epochs}
        fit(model, TensorLoader(X, Y, batch_size=10), optimizer=optimizer, **options)
        trained.append(model[0].weight.detach())
    assert torch.equal(trained[0], trained[2])


def test_a_model_without_shapes_yet_is_named_where_its_values_are_needed(tmp_path):
    for action in (EMA, lambda m: export_weights(m, tmp_path / "w.safetensors")):
        with pytest.raises(ArgumentError, match="还没有形状"):
            action(nn.LazyLinear(3))


def test_complex_weights_are_averaged_as_complex_numbers():
    model = nn.Module()
    model.w = nn.Parameter(torch.ones(1, dtype=torch.complex64))
    ema = EMA(model, decay=0.5, warmup=False)
    with torch.no_grad():
        model.w.fill_(3 + 2j)
    ema.update()
    with ema.average():
        assert model.w.item() == 2 + 1j


def test_lamb_without_scaling_is_adamw_on_complex_weights_too():
    found = []
    for make in (torch.optim.AdamW, lambda p, **k: LAMB(p, adapt=False, **k)):
        weight = nn.Parameter(torch.tensor([1 + 2j, -3 + 0.5j]))
        optimizer = make([weight], lr=0.1, eps=1e-6, weight_decay=0.1)
        for _ in range(5):
            optimizer.zero_grad()
            (weight - 3).abs().square().sum().backward()
            optimizer.step()
        found.append(weight.detach())
    assert torch.allclose(*found, rtol=1e-6)


def test_lamb_moves_a_conjugate_as_it_moves_the_same_numbers_written_out():
    found = []
    numbers = torch.tensor([1 + 2j, -3 + 0.5j])
    for start in (numbers.clone(), numbers.conj().resolve_conj().conj()):
        weight = nn.Parameter(start)
        optimizer = LAMB([weight], lr=0.1, weight_decay=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            (weight - 3).abs().square().sum().backward()
            optimizer.step()
        found.append(weight.detach().resolve_conj())
    assert weight.is_conj() and torch.allclose(*found, rtol=1e-6)


def sparse_net():
    return nn.Sequential(nn.EmbeddingBag(20, 4, sparse=True), nn.Linear(4, 3))


def test_sparse_gradients_are_refused_by_lamb_before_anything_changes():
    model, words = sparse_net(), torch.randint(20, (8, 5))
    before = copy.deepcopy(model.state_dict())
    F.cross_entropy(model(words), Y[:8]).backward()
    with pytest.raises(ArgumentError, match="LAMB 的梯度应是稠密的"):
        LAMB(model.parameters()).step()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    with pytest.raises(ArgumentError, match="要稠密的梯度"):
        overfit_one_batch(model, (words, Y[:8]), loss=F.cross_entropy)


@pytest.mark.parametrize("layout", ["coo", "csr"])
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_sparse_buffers_are_counted_or_refused_in_one_clear_line(layout, tmp_path):
    table = torch.eye(4).to_sparse() if layout == "coo" else torch.eye(4).to_sparse_csr()
    weight = nn.Parameter(torch.ones(4, 2))
    assert memory(lambda: torch.sparse.mm(table, weight).sum().backward()).saved_bytes > 0
    model = nn.Linear(2, 2)
    model.register_buffer("table", table)
    for action in (EMA, lambda m: export_weights(m, tmp_path / "w.safetensors")):
        with pytest.raises(ArgumentError, match="稀疏"):
            action(model)


class Keeps(nn.Module):
    """留着中间结果，好画出来。"""

    def __init__(self):
        super().__init__()
        self.layer, self.seen = nn.Linear(6, 3), {"all": []}

    def forward(self, x):
        self.features = self.layer(x)
        self.seen["all"].append(self.features)
        return self.features


def test_a_model_that_keeps_its_features_can_be_rehearsed_and_is_left_as_it_was():
    model = Keeps()
    model(X[:8])
    features, weight = model.features, model.layer.weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    dry_run(model, [(X[:8], Y[:8])], loss=F.cross_entropy, optimizer=optimizer)
    overfit_one_batch(model, (X[:8], Y[:8]), loss=F.cross_entropy, steps=3)
    assert model.features is features and len(model.seen["all"]) == 1
    assert torch.equal(model.layer.weight, weight)


def test_a_model_that_cannot_be_copied_is_told_why():
    model = nn.Linear(6, 3)
    model.lock = threading.Lock()
    with pytest.raises(ArgumentError, match="模型应能复制一份"):
        overfit_one_batch(model, (X, Y), loss=F.cross_entropy)


def test_the_average_of_another_model_is_refused():
    model = nn.Linear(6, 3)
    options = {
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "ema": EMA(nn.Linear(6, 3)),
    }
    with pytest.raises(ArgumentError, match="ema 应平均这个 model"):
        fit(model, [(X, Y)], loss=F.cross_entropy, epochs=1, progress=False, **options)


DENSE_ONLY = [
    optim.Adam,
    optim.AdamW,
    optim.NAdam,
    optim.RAdam,
    optim.Adamax,
    optim.Adadelta,
    optim.RMSprop,
    optim.Rprop,
    optim.ASGD,
]
DENSE_ONLY += [optim.Adafactor, LAMB, lambda p: optim.SGD(p, lr=0.1, weight_decay=0.1)]
DENSE_ONLY += [
    lambda p: optim.Adagrad(p, weight_decay=0.1),
    lambda p: optim.SGD(p, lr=0.1, fused=True),
]
ANY = [lambda p: optim.SGD(p, lr=0.1, momentum=0.9), optim.Adagrad]
WORDS = torch.randint(20, (8, 5), generator=torch.Generator().manual_seed(0))


def trained(model, make):
    options = {"loss": F.cross_entropy, "epochs": 1, "progress": False}
    return fit(model, [(WORDS, Y[:8])] * 2, optimizer=make(model.parameters()), **options)


@pytest.mark.parametrize("make", DENSE_ONLY)
def test_an_optimizer_that_wants_dense_gradients_is_refused_before_the_first_step(make):
    model = sparse_net()
    optimizer = make(model.parameters())
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ArgumentError, match=r"请去掉.*sparse=True") as caught:
        Update(model, optimizer)
    assert "\n" not in str(caught.value)
    torch.testing.assert_close(optimizer.state_dict(), before, rtol=0, atol=0)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize("make", ANY)
def test_an_optimizer_that_takes_sparse_gradients_trains_and_was_not_moved_by_the_question(make):
    model = sparse_net()
    twin = copy.deepcopy(model)
    trained(model, make)
    optimizer = make(twin.parameters())
    for _ in range(2):
        optimizer.zero_grad()
        F.cross_entropy(twin(WORDS), Y[:8]).backward()
        optimizer.step()
    assert all(map(torch.equal, model.parameters(), twin.parameters()))


class Functional(nn.Module):
    """稀疏的梯度来自函数，看层看不出来。"""

    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Parameter(torch.ones(20, 4)), nn.Linear(4, 3)

    def forward(self, words):
        return self.head(F.embedding(words, self.table, sparse=True).mean(1))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_sparse_gradients_that_no_layer_announces_are_explained_at_the_step(precision):
    model = Functional()
    optimizer = optim.AdamW(model.parameters())
    update = Update(model, optimizer, precision=precision)
    update.backward(F.cross_entropy(model(WORDS), Y[:8]), 8)
    with pytest.raises(ArgumentError, match="AdamW 应收得下模型的梯度，实际不收"):
        update.step()
    with pytest.raises(ArgumentError, match="SparseAdam 应收得下模型的梯度，实际不收"):
        trained(sparse_net(), optim.SparseAdam)


def test_a_table_shared_with_a_dense_layer_or_frozen_trains_with_any_optimizer():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = nn.Embedding(20, 4, sparse=True), nn.Linear(4, 20, bias=False)
            self.head.weight = self.table.weight

        def forward(self, words):
            return self.head(self.table(words).mean(1))

    frozen = sparse_net()
    frozen[0].requires_grad_(False)
    for model in (Shared(), frozen):
        assert len(trained(model, optim.AdamW)) == 1


def test_an_error_of_the_optimizer_about_something_else_stays_what_it_is():
    model = nn.Linear(6, 3)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    update = Update(model, optimizer)
    optimizer.register_step_pre_hook(lambda *_: torch.ones(2) + torch.ones(3))
    update.backward(model(X).sum(), 40)
    with pytest.raises(RuntimeError, match="must match the size"):
        update.step()
