import pytest
import torch
from torch import nn
from torch.nn import functional as F

from companion.errors import ArgumentError, ShapeError
from companion.models import GPT, Block, CausalAttention

FUTURE = nn.Transformer.generate_square_subsequent_mask(6, dtype=torch.float64)


def fixed(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def small(**how):
    torch.manual_seed(0)
    return GPT(vocab=11, context=8, width=16, heads=4, depth=2, **how)


def words(*shape, seed=0):
    return torch.randint(11, shape, generator=torch.Generator().manual_seed(seed))


def test_attention_equals_that_of_torch():
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(12, 3, batch_first=True).double()
    nn.init.normal_(theirs.in_proj_bias)
    ours, x = CausalAttention(12, 3).double(), fixed(2, 6, 12)
    copy_attention(theirs, ours)
    expected, _ = theirs(x, x, x, attn_mask=FUTURE, need_weights=False)
    torch.testing.assert_close(ours(x), expected)


def copy_attention(theirs, ours):
    ours.qkv.weight.data, ours.qkv.bias.data = theirs.in_proj_weight.data, theirs.in_proj_bias.data
    ours.out.load_state_dict(theirs.out_proj.state_dict())


def test_a_block_equals_the_encoder_layer_of_torch_with_norm_first():
    torch.manual_seed(0)
    theirs = nn.TransformerEncoderLayer(
        12, 3, 48, dropout=0.0, activation="gelu", norm_first=True, batch_first=True
    ).double()
    ours, x = Block(12, 3).double(), fixed(2, 6, 12)
    copy_attention(theirs.self_attn, ours.attention)
    pairs = [(ours.norm1, theirs.norm1), (ours.norm2, theirs.norm2)]
    for one, two in [*pairs, (ours.up, theirs.linear1), (ours.down, theirs.linear2)]:
        one.load_state_dict(two.state_dict())
    torch.testing.assert_close(ours(x), theirs(x, src_mask=FUTURE, is_causal=True))


def test_gpt_is_embeddings_blocks_norm_and_the_transposed_table():
    model, tokens = small().double(), words(3, 5)
    x = model.tokens.weight[tokens] + model.positions.weight[:5]
    for block in model.blocks:
        x = block(x)
    x = F.layer_norm(x, (16,), model.norm.weight, model.norm.bias)
    torch.testing.assert_close(model(tokens), x @ model.tokens.weight.T)


def test_gpt_has_the_parameters_of_the_formula_with_the_table_counted_once():
    vocab, context, width, depth = 11, 8, 16, 2
    expected = (vocab + context) * width + depth * (12 * width**2 + 13 * width) + 2 * width
    assert sum(p.numel() for p in small().parameters()) == expected
    model = small()
    assert model.head.weight is model.tokens.weight


def test_no_position_sees_the_future():
    model, tokens = small().double(), words(1, 8)
    seen = []
    model.drop.register_forward_hook(lambda _, __, x_BTD: seen.append(x_BTD))
    logits_BTV = model(tokens)
    for t in range(8):
        (gradient,) = torch.autograd.grad(logits_BTV[0, t].sum(), seen, retain_graph=True)
        reached = gradient[0].abs().sum(dim=1) > 0
        assert reached.tolist() == [True] * (t + 1) + [False] * (7 - t)


def test_a_prefix_has_the_same_scores_as_the_start_of_the_whole():
    model, tokens = small().double(), words(2, 8)
    torch.testing.assert_close(model(tokens[:, :5]), model(tokens)[:, :5])


def test_each_sequence_is_treated_alone_and_order_within_it_matters():
    model, tokens, order = small().double(), words(4, 8), torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(model(tokens[order]), model(tokens)[order])
    swapped = tokens[:, [1, 0, *range(2, 8)]]
    changed = (tokens[:, 0] != tokens[:, 1]).nonzero()[0]
    assert not torch.allclose(model(swapped)[changed, -1], model(tokens)[changed, -1])


def test_dropout_acts_in_train_and_not_in_eval():
    model, tokens = small(dropout=0.2), words(2, 8)
    assert not torch.equal(model(tokens), model(tokens))
    model.eval()
    assert torch.equal(model(tokens), model(tokens))
    torch.testing.assert_close(model(tokens), small().eval()(tokens))


def test_the_first_guess_is_nearly_uniform():
    loss = F.cross_entropy(small()(words(16, 8)).flatten(0, 1), words(16, 8, seed=1).flatten())
    assert loss.item() == pytest.approx(torch.tensor(11.0).log().item(), abs=0.02)


def test_gpt_learns_a_small_batch_by_heart_and_recites_it():
    model, tokens = small(), words(4, 9)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(120):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5
    # 前几个词元可能重样，之后就只有一种接法
    assert torch.equal(model.generate(tokens[:, :4], 5, temperature=0), tokens)


def test_generate_draws_from_its_own_generator_and_keeps_the_mode():
    model, start = small(dropout=0.5), words(3, 4)
    model.blocks[0].eval()
    before, modes = torch.get_rng_state(), [m.training for m in model.modules()]
    one, again = model.generate(start, 20, seed=1), model.generate(start, 20, seed=1)
    assert one.shape == (3, 24)
    assert torch.equal(one, again)
    assert torch.equal(one[:, :4], start)
    assert not torch.equal(one, model.generate(start, 20, seed=2))
    assert torch.equal(torch.get_rng_state(), before)
    assert [m.training for m in model.modules()] == modes


def test_generate_draws_with_the_probabilities_of_the_last_position():
    model = small()
    model.norm.weight.data.mul_(20)  # 让各词的概率差得开
    start = words(1, 4).expand(4000, 4)
    drawn = model.generate(start, 1, temperature=2.0)[:, -1]
    chances = (model(start[:1])[0, -1] / 2.0).softmax(0)
    assert chances.max() > 0.2
    frequency = drawn.bincount(minlength=11) / 4000
    assert (frequency - chances).abs().max() < 4 * (0.25 / 4000) ** 0.5  # 四个标准差


def test_top_k_draws_only_from_the_best():
    model, start = small(), words(1, 4).expand(500, 4)
    best = model(start[:1])[0, -1].topk(3).indices.tolist()
    assert sorted(model.generate(start, 1, top_k=3)[:, -1].unique().tolist()) == sorted(best)
    greedy = model.generate(start[:1], 3, temperature=0)
    assert torch.equal(model.generate(start[:1], 3, top_k=1), greedy)
    assert model.generate(start[:1], 1, top_k=99).shape == (1, 5)  # 多于词表，就是全部


def test_wrong_inputs_are_explained():
    with pytest.raises(ShapeError, match=r"最长 8，实际是 9.*context"):
        small()(words(1, 9))
    with pytest.raises(ShapeError, match=r"应为 \(B, T\)，实际是 \(4,\).*tokens\[None\]"):
        small()(words(4))
    with pytest.raises(ArgumentError, match="width 应是 heads 的倍数，实际是 10 和 4"):
        GPT(vocab=5, context=4, width=10, heads=4)
    for bad in ({"temperature": -1.0}, {"top_k": 0}):
        with pytest.raises(ArgumentError, match="temperature 不能是负数"):
            small().generate(words(1, 2), 1, **bad)


def test_the_weights_that_add_into_the_residual_stream_start_smaller_the_deeper_the_net():
    torch.manual_seed(0)
    for depth in (2, 8):
        net = GPT(vocab=64, context=8, width=256, heads=4, depth=depth)
        for name, parameter in net.named_parameters():
            if parameter.ndim == 2:
                adds = name.endswith(("out.weight", "down.weight"))
                expected = 0.02 / (2 * depth) ** 0.5 if adds else 0.02
                assert parameter.std().item() == pytest.approx(expected, rel=0.05), name
