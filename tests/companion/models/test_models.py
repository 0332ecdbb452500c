import pytest
import torch
from torch.nn import functional as F

from companion.errors import ArgumentError, ShapeError
from companion.models import MLP, SmallCNN


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def test_mlp_has_the_parameters_counted_by_hand():
    assert count(MLP(64, 128, 10)) == (64 + 1) * 128 + (128 + 1) * 10 == 9610
    assert count(MLP(64, 10)) == 650


def test_mlp_equals_the_same_layers_written_by_hand():
    torch.manual_seed(0)
    model, x = MLP(64, 32, 16, 10).double(), torch.randn(5, 1, 8, 8, dtype=torch.float64)
    one, two, three = model.layers
    hidden = torch.relu(x.reshape(5, 64) @ one.weight.T + one.bias)
    hidden = torch.relu(hidden @ two.weight.T + two.bias)
    torch.testing.assert_close(model(x), hidden @ three.weight.T + three.bias)


def test_mlp_output_is_not_squashed_by_a_last_relu():
    torch.manual_seed(0)
    assert (MLP(4, 3)(torch.randn(50, 4)) < 0).any()


@pytest.mark.parametrize("sizes", [(), (64,), (64, 0, 10)])
def test_mlp_needs_two_positive_widths(sizes):
    with pytest.raises(ArgumentError, match="至少要两个正的宽度"):
        MLP(*sizes)


def test_small_cnn_has_the_parameters_counted_by_hand():
    convs = (9 * 1 + 1) * 16 + (9 * 16 + 1) * 32 + (9 * 32 + 1) * 32
    norms, head = 2 * (16 + 32 + 32), (32 * 4 * 4 + 1) * 10
    assert count(SmallCNN()) == convs + norms + head == 19_338
    assert "19 338" in SmallCNN.__doc__


def by_hand(model, x):
    """SmallCNN 在 eval 状态下的每一层，用函数写一遍。"""
    p = dict(model.named_parameters()) | dict(model.named_buffers())
    for i in (1, 2, 3):
        x = F.conv2d(x, p[f"conv{i}.weight"], p[f"conv{i}.bias"], padding=1)
        mean, var = p[f"norm{i}.running_mean"], p[f"norm{i}.running_var"]
        x = (x - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
        x = p[f"norm{i}.weight"][:, None, None] * x + p[f"norm{i}.bias"][:, None, None]
        x = x.clamp(min=0)
        if i == 2:
            x = F.max_pool2d(x, 2)
    return x.reshape(len(x), -1) @ p["head.weight"].T + p["head.bias"]


def test_small_cnn_in_eval_equals_the_same_layers_written_by_hand():
    torch.manual_seed(0)
    model, x = SmallCNN().double(), torch.rand(6, 1, 8, 8, dtype=torch.float64)
    for _ in range(3):
        model(x)  # 让批归一化的统计量不再是初值
    model.eval()
    torch.testing.assert_close(model(x), by_hand(model, x))


def test_small_cnn_drops_at_random_only_in_train():
    torch.manual_seed(0)
    model, x = SmallCNN(), torch.rand(4, 1, 8, 8)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


def test_small_cnn_scores_as_many_classes_as_asked():
    assert SmallCNN(num_classes=3, width=4)(torch.rand(2, 1, 8, 8)).shape == (2, 3)


@pytest.mark.parametrize("shape", [(64, 8, 8), (64, 1, 28, 28), (64, 64)])
def test_small_cnn_explains_inputs_of_another_shape(shape):
    with pytest.raises(ShapeError, match=r"inputs 的形状应为 \(B, 1, 8, 8\)"):
        SmallCNN()(torch.rand(shape))
