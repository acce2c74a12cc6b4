"""Attention and blocks: equal to PyTorch's own, to grouped-query sdpa, and to the written-out arithmetic."""

from __future__ import annotations

from math import sqrt
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from luodi.models.layers.attention import Attention, CrossAttention, attention_of, written_out
from luodi.models.layers.feed_forward import FeedForward, usual_hidden
from luodi.models.layers.positions import rotation, sinusoids, turned
from luodi.models.layers.products import Products
from luodi.models.layers.transformer_block import TransformerBlock

WIDTH, HEADS = 24, 4
REAL = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0, 0]]).bool()


def near(have: Tensor, want: Tensor) -> None:
    assert want.abs().max() > 0.1
    torch.testing.assert_close(have, want, atol=1e-5, rtol=0)


def dice(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=dice(seed))


def shaken(module: Any, seed: int = 1) -> Any:
    """Weights, norms and biases far from where they begin."""
    generator = dice(seed)
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.2)
    return module.eval()


def copy_attention(ours: Attention | CrossAttention, theirs: nn.MultiheadAttention, back: bool = False) -> None:
    """Their weights into ours, or `back`."""
    for kind in ("weight", "bias"):
        joined = theirs.get_parameter(f"in_proj_{kind}")
        if isinstance(ours, Attention):
            pairs = [(ours.qkv.get_parameter(kind), joined)]
        else:
            pairs = [(ours.q.get_parameter(kind), joined[: theirs.embed_dim])]
            pairs += [(ours.kv.get_parameter(kind), joined[theirs.embed_dim :])]
        pairs += [(ours.out.get_parameter(kind), theirs.out_proj.get_parameter(kind))]
        with torch.no_grad():
            for mine, its in pairs:
                (its if back else mine).copy_(mine if back else its)


# ---- against PyTorch ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_self_attention_is_that_of_pytorch(causal, masked):
    theirs = shaken(nn.MultiheadAttention(WIDTH, HEADS, batch_first=True))
    ours = Attention(WIDTH, HEADS, causal=causal).eval()
    copy_attention(ours, theirs)
    x = drawn(3, 7, WIDTH)
    hidden = torch.ones(7, 7).triu(1).bool() if causal else None
    want, weights = theirs(
        x, x, x, key_padding_mask=~REAL if masked else None, attn_mask=hidden, average_attn_weights=False
    )
    have, (k, v) = ours(x, mask=REAL if masked else None)
    near(have, want)
    assert k.shape == v.shape == (3, HEADS, 7, WIDTH // HEADS)
    explicit: Any = written_out(ours)
    near(explicit(x, mask=REAL if masked else None)[0], want)
    near(explicit.products.kept, weights)


@pytest.mark.parametrize("masked", [False, True])
def test_cross_attention_is_that_of_pytorch(masked):
    theirs = shaken(nn.MultiheadAttention(WIDTH, HEADS, batch_first=True))
    ours = CrossAttention(WIDTH, HEADS).eval()
    copy_attention(ours, theirs)
    x, memory = drawn(3, 5, WIDTH), drawn(3, 7, WIDTH, seed=1)
    mask = REAL if masked else None
    want, weights = theirs(
        x, memory, memory, key_padding_mask=None if mask is None else ~mask, average_attn_weights=False
    )
    near(ours(x, ours.read(memory), mask), want)
    explicit: Any = written_out(ours)
    near(explicit(x, explicit.read(memory), mask), want)
    near(explicit.products.kept, weights)


def copy_block(ours: Any, theirs: Any, cross: bool, back: bool = False) -> None:
    """Their weights into ours, or `back`."""
    copy_attention(ours.attention, theirs.self_attn, back)
    pairs = [(ours.attention_norm, theirs.norm1), (ours.feed.up, theirs.linear1), (ours.feed.down, theirs.linear2)]
    if cross:
        copy_attention(ours.cross, theirs.multihead_attn, back)
        pairs += [(ours.cross_norm, theirs.norm2), (ours.feed_norm, theirs.norm3)]
    else:
        pairs += [(ours.feed_norm, theirs.norm2)]
    for mine, its in pairs:
        (its if back else mine).load_state_dict((mine if back else its).state_dict())


@pytest.mark.parametrize("first", [True, False], ids=["pre-norm", "post-norm"])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_an_encoder_block_is_that_of_pytorch(first, activation):
    theirs = shaken(nn.TransformerEncoderLayer(WIDTH, HEADS, 40, 0.1, activation, batch_first=True, norm_first=first))
    ours = TransformerBlock(WIDTH, HEADS, causal=False, first=first, hidden=40, activation=activation).eval()
    copy_block(ours, theirs, cross=False)
    x = drawn(3, 7, WIDTH)
    have, _ = ours(x, mask=REAL)
    near(have[REAL], theirs(x, src_key_padding_mask=~REAL)[REAL])


@pytest.mark.parametrize("first", [True, False], ids=["pre-norm", "post-norm"])
def test_a_decoder_block_is_that_of_pytorch(first):
    theirs = shaken(nn.TransformerDecoderLayer(WIDTH, HEADS, 40, batch_first=True, norm_first=first))
    ours = TransformerBlock(
        WIDTH, HEADS, causal=True, cross=True, first=first, hidden=40, activation="relu"
    ).eval()  # fmt: skip
    copy_block(ours, theirs, cross=True)
    x, memory = drawn(3, 5, WIDTH), drawn(3, 7, WIDTH, seed=1)
    hidden = torch.ones(5, 5).triu(1).bool()
    want = theirs(x, memory, tgt_mask=hidden, memory_key_padding_mask=~REAL)
    near(ours(x, memory=ours.cross.read(memory), memory_mask=REAL)[0], want)


@pytest.mark.parametrize("kv_heads", [1, 2, 3, 6])
@pytest.mark.parametrize("causal", [False, True])
def test_grouped_queries_are_those_of_sdpa(kv_heads, causal):
    q, k, v = drawn(2, 6, 5, 8), drawn(2, kv_heads, 5, 8, seed=1), drawn(2, kv_heads, 5, 8, seed=2)
    want = functional.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True)
    products = Products(causal=causal, dropout=0.0)
    near(products(q, k, v), want)
    products.explicit = True
    near(products(q, k, v), want)


def rotated(x: Tensor, turn: Any) -> Tensor:
    """With heads before time, as transformers has it."""
    return turned(x.transpose(1, 2), turn).transpose(1, 2)


def test_rotary_positions_are_those_of_llama():
    from transformers.models.llama.configuration_llama import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

    config = LlamaConfig(
        hidden_size=64, num_attention_heads=4, rope_parameters={"rope_type": "default", "rope_theta": 500.0}
    )
    q, k = drawn(2, 4, 9, 16), drawn(2, 4, 9, 16, seed=1)
    places = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 7, 8], [100, 101, 102, 103, 104, 105, 106, 107, 108]])
    turn = rotation(places, 16, 500.0)
    cosines, sines = LlamaRotaryEmbedding(config)(q, places)
    for have, want in zip(
        (rotated(q, turn), rotated(k, turn)), apply_rotary_pos_emb(q, k, cosines, sines), strict=True
    ):
        near(have, want)
    # The scores say how far two tokens are apart, not where they are.
    from_zero = rotation(places[0], 16, 500.0)
    moved, still = (rotated(q, at) @ rotated(k, at).mT / sqrt(16) for at in (turn, from_zero))
    near(moved[1], still[1])


# ---- closed forms -------------------------------------------------------------------------------------------------


def test_sinusoids_are_those_of_the_paper():
    found = sinusoids(torch.arange(50), 8)
    for place in (0, 1, 17, 49):
        for pair in range(4):
            angle = torch.tensor(place / 10000 ** (2 * pair / 8), dtype=torch.float64)
            assert float(found[place, 2 * pair]) == pytest.approx(float(angle.sin()), abs=1e-5)
            assert float(found[place, 2 * pair + 1]) == pytest.approx(float(angle.cos()), abs=1e-5)


def test_gated_layer_is_swiglu_and_as_large_as_a_plain_one():
    layer = shaken(FeedForward(8, 12, gated=True))
    x = drawn(3, 8)
    gate, value = layer.up.weight[:12], layer.up.weight[12:]
    inside = functional.silu(x @ gate.T + layer.up.bias[:12]) * (x @ value.T + layer.up.bias[12:])
    near(layer(x), inside @ layer.down.weight.T + layer.down.bias)
    counts = [sum(p.numel() for p in FeedForward(768, usual_hidden(768, g), gated=g).parameters()) for g in (0, 1)]
    assert counts[1] == pytest.approx(counts[0], rel=0.02)


def test_a_row_of_padding_alone_is_finite_forward_and_back():
    """Both ways: the plain mean of what is there, as if nothing were hidden; half precision too."""
    for kind in (torch.float32, torch.bfloat16):
        q, k, v = (drawn(2, 4, 3, 8, seed=seed).to(kind).requires_grad_() for seed in range(3))
        mask = torch.tensor([[True, True, False], [False, False, False]])
        answers = []
        for explicit in (False, True):
            products = Products(causal=False, dropout=0.0)
            products.explicit = explicit
            answers.append(products(q, k, v, mask))
            grads = torch.autograd.grad(answers[-1].float().sum(), (q, k, v))
            assert all(grad.isfinite().all() for grad in grads)
        tolerance = 1e-5 if kind == torch.float32 else 0.05
        for found in answers:
            torch.testing.assert_close(found[1], v[1].mean(1, keepdim=True).expand(-1, 3, -1), atol=tolerance, rtol=0)
        torch.testing.assert_close(answers[0], answers[1], atol=tolerance, rtol=0)


def test_what_is_held_is_as_if_it_were_joined():
    """Keys beyond `held` hold rubbish; of several new tokens each sees those before it."""
    q, k, v = drawn(2, 6, 3, 8), drawn(2, 2, 3, 8, seed=1), drawn(2, 2, 3, 8, seed=2)
    past, held = (drawn(2, 2, 5, 8, seed=3), drawn(2, 2, 5, 8, seed=4)), torch.tensor([4, 2])
    products = Products(causal=True, dropout=0.0)
    products.explicit = True
    have = products.extended(q, k, v, past, held)
    for row, count in enumerate(held.tolist()):
        joined = [
            torch.cat([old[row, :, :count], new[row]], dim=1)[None] for old, new in zip(past, (k, v), strict=True)
        ]
        seen = torch.ones(3, count + 3).tril(count).bool()
        want = functional.scaled_dot_product_attention(q[row : row + 1], *joined, seen, enable_gqa=True)
        near(have[row : row + 1], want)
    assert products.kept is not None and products.kept.shape == (2, 6, 3, 8)
    torch.testing.assert_close(products.kept.sum(-1), torch.ones(2, 6, 3))
    assert products.kept[1, :, :, 2:5].abs().max() == 0


def test_dropout_is_of_the_weights_and_only_in_training():
    products = Products(causal=False, dropout=0.5)
    q, k, v = drawn(1, 2, 4, 8), drawn(1, 2, 400, 8, seed=1), torch.ones(1, 2, 400, 8)
    near(products.eval()(q, k, v), torch.ones(1, 2, 4, 8))
    torch.default_generator.manual_seed(0)
    for explicit in (False, True):
        products.explicit = explicit
        found = products.train()(q, k, v)
        assert found.std() > 0.01 and float(found.mean()) == pytest.approx(1, abs=5 / sqrt(400))


def test_attention_of_leaves_the_model_as_it_is():
    """In training mode, with hooks: nothing of the model changes, and no gradient is kept."""
    block = TransformerBlock(WIDTH, HEADS, 2, causal=False, dropout=0.3).train()
    before = {name: dict(vars(layer)) for name, layer in block.named_modules()}
    found = attention_of(block, {"x": drawn(2, 5, WIDTH)})
    assert {name: each.shape for name, each in found.items()} == {"attention": (2, HEADS, 5, 5)}
    torch.testing.assert_close(found["attention"].sum(-1), torch.ones(2, HEADS, 5))
    assert not found["attention"].requires_grad
    assert {name: dict(vars(layer)) for name, layer in block.named_modules()} == before
    assert attention_of(nn.Identity(), {"input": drawn(1, 2)}) == {}
