import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock as TorchvisionBlock

from companion.errors import ArgumentError, ShapeError
from companion.models import BasicBlock, LeNet, ResNet


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def overfit(model, x, y, steps, lr):
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    return (model(x).argmax(1) == y).float().mean().item()


# LeNet


def test_lenet_has_the_parameters_counted_by_hand():
    convs = (25 * 1 + 1) * 6 + (25 * 6 + 1) * 16
    dense = (400 + 1) * 120 + (120 + 1) * 84 + (84 + 1) * 10
    assert count(LeNet()) == convs + dense == 61_706
    assert "61 706" in LeNet.__doc__
    assert count(LeNet(in_channels=3, size=32)) == 61_706 + 25 * 2 * 6 + (576 - 400) * 120


def test_lenet_equals_the_same_layers_written_by_hand():
    torch.manual_seed(0)
    model, x = LeNet().double(), torch.rand(3, 1, 28, 28, dtype=torch.float64)
    p = dict(model.named_parameters())
    h = F.avg_pool2d(torch.tanh(F.conv2d(x, p["conv1.weight"], p["conv1.bias"], padding=2)), 2)
    h = F.avg_pool2d(torch.tanh(F.conv2d(h, p["conv2.weight"], p["conv2.bias"])), 2)
    assert h.shape == (3, 16, 5, 5)
    h = torch.tanh(h.reshape(3, 400) @ p["fc1.weight"].T + p["fc1.bias"])
    h = torch.tanh(h @ p["fc2.weight"].T + p["fc2.bias"])
    torch.testing.assert_close(model(x), h @ p["head.weight"].T + p["head.bias"])


@pytest.mark.parametrize("size", [12, 13, 29, 32])
def test_lenet_fits_the_size_it_was_built_for(size):
    x = torch.zeros(2, 3, size, size)
    assert LeNet(num_classes=7, in_channels=3, size=size)(x).shape == (2, 7)


def test_lenet_explains_other_sizes():
    with pytest.raises(ShapeError, match=r"应为 \(B, 1, 28, 28\)，实际是 \(2, 1, 32, 32\)"):
        LeNet()(torch.zeros(2, 1, 32, 32))
    with pytest.raises(ArgumentError, match="size 至少为 12，实际是 8"):
        LeNet(size=8)


def test_lenet_learns_a_small_batch_by_heart():
    torch.manual_seed(0)
    assert overfit(LeNet(), torch.rand(8, 1, 28, 28), torch.arange(8), steps=60, lr=3e-3) == 1.0


# ResNet


def test_resnet_20_has_the_parameters_counted_by_hand():
    convs = 9 * (3 * 16 + 6 * 16 * 16)
    convs += 9 * (16 * 32 + 5 * 32 * 32) + 9 * (32 * 64 + 5 * 64 * 64)
    norms = 2 * (7 * 16 + 6 * 32 + 6 * 64)
    assert count(ResNet()) == convs + norms + (64 + 1) * 10 == 269_722
    assert "269 722" in ResNet.__doc__


def test_depth_counts_the_layers_with_weights():
    for depth in (8, 20, 32):
        layers = [m for m in ResNet(depth=depth).modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        assert len(layers) == depth


class PaddedShortcut(nn.Module):
    def forward(self, x):
        half = x[:, :, ::2, ::2]
        return torch.cat([half, torch.zeros_like(half)], dim=1)


@pytest.mark.parametrize(("n_out", "stride"), [(4, 1), (8, 2)])
def test_a_block_equals_that_of_torchvision(n_out, stride):
    torch.manual_seed(0)
    shortcut = PaddedShortcut() if stride == 2 else None
    theirs = TorchvisionBlock(4, n_out, stride, shortcut).double()
    ours = BasicBlock(4, n_out, stride).double()
    ours.load_state_dict(theirs.state_dict())
    for size in (8, 7):  # 奇数边长，两支也要一样大
        x = torch.randn(3, 4, size, size, dtype=torch.float64)
        torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(dict(ours.state_dict()), dict(theirs.state_dict()))  # 统计量也同


def test_resnet_halves_the_image_twice_and_averages_the_rest():
    model, shapes = ResNet(num_classes=7, depth=8), []
    for block in model.blocks:
        block.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape[1:])))
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 7)
    assert shapes == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]
    assert model(torch.rand(2, 3, 28, 30)).shape == (2, 7)


def test_resnet_in_eval_is_deterministic_and_treats_each_image_alone():
    torch.manual_seed(0)
    model, x = ResNet(depth=8).double(), torch.rand(5, 3, 16, 16, dtype=torch.float64)
    model(x)
    model.eval()
    order = torch.tensor([3, 0, 4, 1, 2])
    assert torch.equal(model(x), model(x))
    torch.testing.assert_close(model(x[order]), model(x)[order])
    torch.testing.assert_close(model(x[:1]), model(x)[:1])


def test_resnet_learns_a_small_batch_by_heart():
    torch.manual_seed(0)
    model, x = ResNet(depth=8, width=8), torch.rand(8, 3, 16, 16)
    assert overfit(model, x, torch.arange(8), steps=40, lr=1e-2) == 1.0


def test_resnet_explains_other_depths_and_inputs():
    with pytest.raises(ArgumentError, match=r"6n \+ 2.*实际是 18"):
        ResNet(depth=18)
    with pytest.raises(ShapeError, match=r"应为 \(B, 3, H, W\)，实际是 \(2, 1, 8, 8\)"):
        ResNet()(torch.zeros(2, 1, 8, 8))
