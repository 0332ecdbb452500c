import pytest
import torch
from torch import nn
from torch.nn import functional as F

from companion.errors import ArgumentError, ShapeError
from companion.models import LSTM, LSTMCell, RNNClassifier


def fixed(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_hand_written_cell_equals_that_of_torch():
    torch.manual_seed(0)
    theirs = nn.LSTMCell(3, 5)
    torch.manual_seed(0)
    ours = LSTMCell(3, 5)
    assert all(map(torch.equal, ours.parameters(), theirs.parameters()))  # 初值也同
    ours, theirs = ours.double(), theirs.double()
    x, state = fixed(4, 3), (fixed(4, 5, seed=1), fixed(4, 5, seed=2))
    torch.testing.assert_close(ours(x, state), theirs(x, state))


def test_the_hand_written_lstm_equals_that_of_torch_gradients_included():
    ours, theirs = LSTM(3, 5).double(), nn.LSTM(3, 5, batch_first=True).double()
    names = dict(theirs.named_parameters())
    ours.load_state_dict({f"cell.{name[:-3]}": value for name, value in names.items()})
    results = []
    for model in (ours, theirs):
        x = fixed(4, 7, 3).requires_grad_()
        h_BTH, (h_BH, c_BH) = model(x)
        h_BTH.square().sum().backward()
        results.append((h_BTH, h_BH.reshape(4, 5), c_BH.reshape(4, 5), x.grad))
    torch.testing.assert_close(*results)
    for one, two in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad)


def test_the_last_output_of_the_lstm_is_its_state():
    h_BTH, (h_BH, _) = LSTM(2, 3)(torch.randn(2, 4, 2))
    assert torch.equal(h_BTH[:, -1], h_BH)


def test_the_classifier_has_the_parameters_counted_by_hand():
    gates = {"rnn": 1, "gru": 3, "lstm": 4}
    for cell, n in gates.items():
        model = RNNClassifier(8, 16, 10, cell=cell)
        expected = n * 16 * (8 + 16 + 2) + (16 + 1) * 10
        assert sum(p.numel() for p in model.parameters()) == expected


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_what_follows_the_end_of_a_sequence_changes_nothing(cell):
    torch.manual_seed(0)
    model = RNNClassifier(3, 5, 2, cell=cell, num_layers=2).double()
    x, lengths = fixed(4, 6, 3), torch.tensor([6, 1, 3, 5])
    alone = torch.cat([model(x[i : i + 1, :n]) for i, n in enumerate(lengths)])
    torch.testing.assert_close(model(x, lengths), alone)
    torch.testing.assert_close(model(x), model(x, torch.full((4,), 6)))


def test_each_sequence_is_treated_alone():
    torch.manual_seed(0)
    model, x, order = RNNClassifier(3, 5, 2).double(), fixed(4, 6, 3), torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(model(x[order]), model(x)[order])
    assert torch.equal(model(x), model(x))


def test_the_classifier_learns_a_small_batch_by_heart():
    torch.manual_seed(0)
    model, x, y = RNNClassifier(3, 16, 6), fixed(6, 5, 3).float(), torch.arange(6)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    assert torch.equal(model(x).argmax(1), y)


def test_wrong_cells_and_shapes_are_explained():
    with pytest.raises(ArgumentError, match="'rnn'、'gru'、'lstm' 之一"):
        RNNClassifier(3, 5, 2, cell="LSTM")
    with pytest.raises(ShapeError, match=r"inputs 的形状应为 \(B, T, 3\)，实际是 \(4, 3\)"):
        RNNClassifier(3, 5, 2)(torch.zeros(4, 3))
    with pytest.raises(ShapeError, match=r"lengths 的形状应为 \(4,\)"):
        RNNClassifier(3, 5, 2)(torch.zeros(4, 6, 3), torch.ones(3).long())
    with pytest.raises(ShapeError, match=r"应为 \(B, 3\)，实际是 \(4, 6, 3\).*一个时间步"):
        LSTMCell(3, 5)(torch.zeros(4, 6, 3), (torch.zeros(4, 5), torch.zeros(4, 5)))
    with pytest.raises(ShapeError, match=r"应为 \(B, T, 3\)"):
        LSTM(3, 5)(torch.zeros(4, 6, 2))
