import pytest
import torch
from torch import nn

from companion.errors import ArgumentError
from companion.measure import summary
from companion.models import SmallCNN


def rows(result):
    return {layer.name: layer for layer in result.layers}


def test_linear_has_the_parameters_and_flops_counted_by_hand():
    layer = summary(nn.Linear(30, 20), torch.zeros(8, 30)).layers[0]
    assert layer.params == 30 * 20 + 20
    assert layer.flops == 2 * 8 * 30 * 20  # 2·m·n·k；加偏置不算
    assert (layer.output, layer.calls) == ("(8, 20)", 1)


def test_small_cnn_adds_up_to_its_hand_counted_total():
    result = summary(SmallCNN(), torch.zeros(2, 1, 8, 8))
    convs = 16 * 64 * 9 * 1 + 32 * 64 * 9 * 16 + 32 * 16 * 9 * 32  # 输出的个数 × 卷积核的大小
    assert result.flops == 2 * 2 * (convs + 512 * 10)
    assert result.params == sum(layer.params for layer in result.layers) == 19_338
    assert rows(result)["conv3"].output == "(2, 32, 4, 4)"
    assert [layer.name for layer in result.layers][:3] == ["conv1", "norm1", "conv2"]


B, T, D, H = 2, 3, 8, 5


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad])
@pytest.mark.parametrize(
    ("model", "inputs", "flops"),
    [
        (nn.LSTM(D, H, batch_first=True), 1, 2 * B * T * 4 * H * (D + H)),
        (nn.GRU(D, H, batch_first=True), 1, 2 * B * T * 3 * H * (D + H)),
        (
            nn.MultiheadAttention(D, 2, batch_first=True),
            3,
            2 * B * T * D * 4 * D + 2 * 2 * B * T * T * D,
        ),
        (
            nn.TransformerEncoderLayer(D, 2, dim_feedforward=H, batch_first=True),
            1,
            2 * B * T * D * 4 * D + 2 * 2 * B * T * T * D + 2 * 2 * B * T * D * H,
        ),
    ],
    ids=["lstm", "gru", "attention", "encoder-layer"],
)
def test_recurrent_and_attention_layers_are_counted_though_torch_fuses_them(
    model, inputs, flops, mode
):
    with mode():
        assert summary(model.eval(), *[torch.zeros(B, T, D)] * inputs).flops == flops


class Everything(nn.Module):
    """字典输出、共用的层、共用的权重、自己会变的缓冲区、随机数，一样不少。"""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 4, bias=False)
        self.head.weight = self.body.weight
        self.unused = nn.Linear(4, 4).requires_grad_(False)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("last", torch.zeros(1))

    def forward(self, x, scale=1.0):
        self.calls += 1  # 就地改
        self.last = torch.rand(3)  # 换成新的
        x = self.drop(self.norm(self.body(self.body(x)))) + torch.rand(4)
        return {"logits": self.head(x) * scale, "both": (x, [x.sum()])}


def test_shared_layers_and_tied_weights_are_counted_once():
    result = summary(Everything(), torch.zeros(6, 4))
    table = rows(result)
    assert (table["body"].calls, table["body"].flops) == (2, 2 * 2 * 6 * 4 * 4)
    assert (table["body"].params, table["head"].params) == (20, 0)  # head 与 body 共用权重
    assert (table["unused"].output, table["unused"].flops) == ("—", 0)
    assert (result.trainable, result.frozen) == (20 + 8, 20)


class Whole(nn.Module):
    """有自己的参数，所以自己占一行，名字是空的。"""

    def __init__(self):
        super().__init__()
        self.own, self.inner = nn.Parameter(torch.zeros(4)), Everything()

    def forward(self, x):
        return self.inner(x + self.own)


def test_dict_and_tuple_outputs_show_every_shape():
    whole = rows(summary(Whole(), torch.zeros(6, 4)))[""]
    assert whole.output == "{logits: (6, 4), both: [(6, 4), [()]]}"
    lstm = summary(nn.LSTM(4, 5), torch.zeros(6, 4)).layers[0]
    assert lstm.output == "[(6, 5), [(1, 5), (1, 5)]]"


def test_summary_leaves_everything_as_it_was():
    torch.manual_seed(0)
    model = Everything()
    model.drop.eval()  # 有人单独冻结了一层
    model(torch.rand(6, 4))["logits"].sum().backward()
    modes = [module.training for module in model.modules()]
    tensors = {name: value.clone() for name, value in model.state_dict().items()}
    identities = [id(buffer) for buffer in model.buffers()]
    grads = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    random = torch.get_rng_state()
    backends = (torch.backends.mkldnn.enabled, torch.backends.cudnn.enabled)
    summary(model, torch.rand(6, 4, generator=torch.Generator().manual_seed(1)), 2.0)
    assert [module.training for module in model.modules()] == modes
    assert [id(buffer) for buffer in model.buffers()] == identities
    torch.testing.assert_close(dict(model.state_dict()), tensors, rtol=0, atol=0)
    for parameter, grad in zip(model.parameters(), grads, strict=True):
        assert (parameter.grad is None) == (grad is None)
        assert grad is None or torch.equal(parameter.grad, grad)
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert (torch.backends.mkldnn.enabled, torch.backends.cudnn.enabled) == backends
    assert torch.backends.mha.get_fastpath_enabled()


def test_everything_is_put_back_when_the_forward_fails():
    model = SmallCNN()
    random = torch.get_rng_state()
    with pytest.raises(ValueError, match="inputs 的形状"):
        summary(model, torch.zeros(1, 1, 9, 9))
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.backends.mkldnn.enabled == torch.backends.mkldnn.is_available()


def test_on_the_meta_device_a_huge_model_costs_nothing():
    with torch.device("meta"):
        result = summary(nn.Linear(10**6, 10**6), torch.zeros(3, 10**6))
    assert result.params == 10**12 + 10**6
    assert result.flops == 2 * 3 * 10**12


def test_lazy_layers_are_explained_not_initialised():
    model = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(ArgumentError, match=r"实际 0\.weight 还没有"):
        summary(model, torch.zeros(2, 4))
    assert model[0].has_uninitialized_params()


def test_the_table_reads_line_by_line():
    model = nn.Sequential(nn.Linear(300, 4), nn.ReLU())
    model[0].bias.requires_grad_(False)
    assert repr(summary(model, torch.zeros(2, 300))).splitlines() == [
        "层          输出形状   参数  FLOPs",
        "──────────────────────────────────",
        "0 (Linear)  (2, 4)    1 204  4 800",
        "1 (ReLU)    (2, 4)        0      0",
        "──────────────────────────────────",
        "合计                  1 204  4 800",
        "要训练 1 200，冻结 4",
    ]


def test_an_expanded_buffer_is_left_as_it_was():
    model = nn.Linear(2, 2)
    model.register_buffer("value", torch.ones(1, 3).expand(2, 3))
    assert summary(model, torch.ones(1, 2)).params == 6
    assert torch.equal(model.value, torch.ones(2, 3))


def test_a_lazy_buffer_is_explained_as_a_lazy_parameter_is():
    with pytest.raises(ArgumentError, match=r"实际 0\.running_mean 还没有"):
        summary(nn.Sequential(nn.LazyBatchNorm1d(affine=False)), torch.ones(2, 3))
