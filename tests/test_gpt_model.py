"""GPT: equal to transformers' GPT-2 and Llama, to itself with a cache, and in ONNX Runtime."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from luodi.core.spec import Signature, Spec
from luodi.core.weights import plain_tensors
from luodi.models.gpt import GPT
from luodi.models.layers.attention import attention_of, written_out
from luodi.models.naming.hugging_face import from_hugging_face, to_hugging_face

V = 37
TEXT = {"text": Spec(kind="tokens", shape=("length",), size=V, dtype="int64")}
LOGITS = {"text": Spec(kind="tokens", shape=("length", V), size=V)}
KINDS: dict[str, dict[str, Any]] = {
    "gpt2": {"positions": "learned", "norm": "layer", "bias": True, "activation": "gelu_tanh"},
    "llama": {"positions": "rotary", "norm": "rms", "gated": True, "kv_heads": 2, "tied": False},
    "plain": {"positions": "sinusoidal", "norm": "rms", "kv_heads": 1},
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def gpt(spread: float = 0.12, **figures: Any) -> GPT:
    """A model whose weights are far from 0, norms and biases too, so that no part of it can be left out unseen."""
    figures = {"layers": 2, "width": 32, "heads": 4, "context": 64, **figures}
    model = GPT(TEXT, LOGITS, **figures).eval()
    dice = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(torch.randn(weight.shape, generator=dice) * spread + ("norm" in name and "bias" not in name))
    return model


def ids(rows: int, length: int, seed: int = 0) -> Tensor:
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


# ---- against transformers -----------------------------------------------------------------------------------------


def theirs(config: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
    import transformers

    name = config["architectures"][0]
    made = getattr(transformers, name)(getattr(transformers, name).config_class.from_dict(config)).eval()
    missing, odd = made.load_state_dict(tensors, strict=False)
    assert not odd and set(missing) <= ({"lm_head.weight"} if config["tie_word_embeddings"] else set())
    made.tie_weights()
    return made


@pytest.mark.parametrize(
    ("architecture", "figures"),
    [
        ("GPT2LMHeadModel", KINDS["gpt2"]),
        ("GPT2LMHeadModel", {"bias": False, "tied": False, "hidden": 48, "epsilon": 1e-3, "activation": "gelu"}),
        ("GPT2LMHeadModel", {"activation": "relu"}),
        ("LlamaForCausalLM", KINDS["llama"]),
        ("LlamaForCausalLM", {**KINDS["llama"], "bias": True, "tied": True, "theta": 500.0, "epsilon": 1e-3}),
        ("LlamaForCausalLM", {**KINDS["llama"], "kv_heads": None, "hidden": 40}),
    ],
)
def test_equal_to_transformers(architecture, figures):
    model, tokens = gpt(**figures), ids(3, 19)
    config, tensors = to_hugging_face(model)
    assert config["architectures"] == [architecture]
    other = theirs(config, tensors)
    want = other(input_ids=tokens).logits
    assert want.std() > 0.3
    torch.testing.assert_close(model(text=tokens)["text"], want, atol=1e-5, rtol=0)
    # The whole way back, from their own config and tensors.
    figures_back, tensors_back = from_hugging_face(other.config.to_dict() | config, other.state_dict())
    back = GPT(TEXT, LOGITS, **figures_back)
    back.load_state_dict(tensors_back)
    torch.testing.assert_close(back.eval()(text=tokens)["text"], want, atol=1e-5, rtol=0)
    assert figures_back == {**model.figures, "bias": figures_back["bias"], "theta": figures_back["theta"]}


def test_their_cache_and_ours_give_the_same_tokens():
    model = gpt(**KINDS["llama"])
    tokens = ids(2, 6)
    other = theirs(*to_hugging_face(model))
    want = other.generate(tokens, max_new_tokens=20, do_sample=False, eos_token_id=None, pad_token_id=0)[:, 6:]
    assert len(set(want.flatten().tolist())) > 4
    assert torch.equal(greedy(model, list(tokens), 20), want)


@pytest.mark.parametrize(
    ("field", "figures"),
    [
        ("positions", KINDS["plain"]),
        ("norm", {"norm": "rms"}),
        ("gated", {"gated": True}),
        ("kv_heads", {"kv_heads": 2}),
        ("norm", {"positions": "rotary", "gated": True}),
        ("gated", {"positions": "rotary", "norm": "rms"}),
    ],
)
def test_what_they_do_not_have_is_named(field, figures):
    with pytest.raises(ValueError, match=f"^{field}: "):
        to_hugging_face(gpt(**figures))


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("gpt2", {"activation_function": "silu"}),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
        ("gpt2", {"resid_pdrop": 0.3}),
        ("gpt2", {"architectures": ["GPTJForCausalLM"]}),
        ("llama", {"hidden_act": "gelu"}),
        ("llama", {"head_dim": 16}),
        ("llama", {"mlp_bias": True}),
        ("llama", {"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}),
    ],
)
def test_what_we_do_not_have_is_named(kind, change):
    config, tensors = to_hugging_face(gpt(**KINDS[kind]))
    assert from_hugging_face(config, tensors)
    with pytest.raises(ValueError, match=next(iter(change))):
        from_hugging_face({**config, **change}, tensors)


def test_tensors_too_few_too_many_and_changed_layers_are_named():
    from luodi.models.layers.int8_weight import Int8Linear

    model = gpt(**KINDS["llama"])
    config, tensors = to_hugging_face(model)
    with pytest.raises(ValueError, match=r"left\.weight"):
        from_hugging_face(config, {**tensors, "left.weight": torch.ones(1)})
    del tensors["model.layers.1.mlp.up_proj.weight"]
    with pytest.raises(ValueError, match=r"layers\.1\.mlp\.up_proj\.weight.*missing"):
        from_hugging_face(config, tensors)
    block: Any = model.blocks[1]
    block.feed.up = Int8Linear(block.feed.up)
    with pytest.raises(ValueError, match=r"blocks\.1\.feed\.up.*Int8Linear"):
        to_hugging_face(model)


# ---- the cache ----------------------------------------------------------------------------------------------------


def nothing_held(model: GPT, rows: int, room: int = 0) -> Tensor:
    shape = [room if side == "held" else side for side in model.states["past"][0].shape]
    return torch.zeros(rows, *map(int, shape))


def greedy(model: GPT, prompts: list[Tensor], steps: int) -> Tensor:
    """Every prompt read alone, then all of them in one batch, each at its own place."""
    lengths = [len(prompt) for prompt in prompts]
    past, last = nothing_held(model, len(prompts), max(lengths) + steps), []
    for row, prompt in enumerate(prompts):
        start = torch.zeros(1, dtype=torch.int64)
        read = model(text=prompt[None], past=nothing_held(model, 1), start=start)
        past[row, ..., : lengths[row], :] = read["new"][0]
        last.append(read["text"][0, -1].argmax())
    chosen = [torch.stack(last)]
    start = torch.tensor(lengths)
    for _ in range(steps - 1):
        said = model(text=chosen[-1][:, None], past=past, start=start)
        for row, at in enumerate(start.tolist()):
            past[row, ..., at, :] = said["new"][row, ..., 0, :]
        start = start + 1
        chosen.append(said["text"][:, -1].argmax(-1))
    return torch.stack(chosen, dim=1)


def greedy_without(model: GPT, prompt: Tensor, steps: int) -> Tensor:
    for _ in range(steps):
        prompt = torch.cat([prompt, model(text=prompt[None])["text"][0, -1:].argmax(-1)])
    return prompt[-steps:]


@every_kind
def test_with_cache_as_without(kind):
    """Three rows with 5, 7 and 0 tokens held, garbage after these, and 4 tokens more at once."""
    model, tokens, lengths = gpt(**KINDS[kind]), ids(3, 12), [5, 7, 0]
    want = model(text=tokens)["text"]
    past = torch.randn(nothing_held(model, 3, 9).shape) * 50
    for row, length in enumerate(lengths):
        start = torch.zeros(1, dtype=torch.int64)
        read = model(text=tokens[row : row + 1, :length], past=nothing_held(model, 1), start=start)
        past[row, ..., :length, :] = read["new"][0]
    more = torch.stack([tokens[row, length : length + 4] for row, length in enumerate(lengths)])
    said = model(text=more, past=past, start=torch.tensor(lengths))
    assert said["new"].shape == nothing_held(model, 3, 4).shape
    for row, length in enumerate(lengths):
        torch.testing.assert_close(said["text"][row], want[row, length : length + 4], atol=1e-5, rtol=0)


@every_kind
def test_greedy_tokens_do_not_depend_on_cache_or_neighbours(kind):
    model = gpt(**KINDS[kind])
    prompts = [ids(1, length, seed=length)[0] for length in (3, 9, 5)]
    together = greedy(model, prompts, 16)
    for row, prompt in enumerate(prompts):
        assert torch.equal(together[row], greedy_without(model, prompt, 16))
        assert torch.equal(together[row], greedy(model, [prompt], 16)[0])


@every_kind
def test_of_each_row_the_logits_of_one_place(kind):
    model, last = gpt(**KINDS[kind]), torch.tensor([4, 0, 2])
    whole = model(text=ids(3, 5))["text"]
    torch.testing.assert_close(model(text=ids(3, 5), last=last)["text"], whole[torch.arange(3), last][:, None])
    empty = {"past": nothing_held(model, 3), "start": torch.zeros(3, dtype=torch.int64)}
    torch.testing.assert_close(model(text=ids(3, 5), last=last, **empty)["text"][:, 0], whole[torch.arange(3), last])


@every_kind
def test_what_comes_later_changes_nothing(kind):
    model, tokens = gpt(**KINDS[kind]), ids(2, 10)
    other = torch.cat([tokens[:, :6], (tokens[:, 6:] + 1) % V], dim=1)
    one, two = model(text=tokens)["text"], model(text=other)["text"]
    torch.testing.assert_close(one[:, :6], two[:, :6], atol=1e-6, rtol=0)
    assert (one[:, 6:] - two[:, 6:]).abs().max() > 0.1


@every_kind
def test_attention_arrays(kind):
    model, tokens = gpt(**KINDS[kind]), ids(2, 10)
    found = attention_of(model, {"text": tokens})
    assert list(found) == ["blocks.0.attention", "blocks.1.attention"]
    for each in found.values():
        assert each.shape == (2, 4, 10, 10)
        torch.testing.assert_close(each.sum(-1), torch.ones(2, 4, 10))
        assert each.triu(1).abs().max() == 0
    torch.testing.assert_close(written_out(model)(text=tokens), model(text=tokens), atol=1e-5, rtol=0)
    assert all(weight is same for weight, same in zip(model.parameters(), written_out(model).parameters(), strict=True))
    assert attention_of(model, {"text": tokens}).keys() == found.keys()
    assert not any(layer.__dict__.get("explicit") for layer in model.modules())


# ---- as a part of luodi -------------------------------------------------------------------------------------------


@every_kind
def test_builds_on_the_meta_device_and_hides_no_tensor(kind):
    with torch.device("meta"):
        empty = GPT(TEXT, LOGITS, **KINDS[kind])
    real = GPT(TEXT, LOGITS, **KINDS[kind])
    tensors, aliases = plain_tensors(real)
    assert not aliases and not list(real.named_buffers())
    assert {name: each.shape for name, each in plain_tensors(empty)[0].items()} == {
        name: each.shape for name, each in tensors.items()
    }
    assert ("heads.weight" in tensors) == (kind == "llama")


OPENED = """
import sys, torch
from luodi.core.spec import Spec
from luodi.models.gpt import GPT
with torch.device("meta"):
    GPT({"text": Spec(kind="tokens", size=5)}, {"text": Spec(kind="tokens", shape=("length", 5), size=5)}, tied=False)
sys.exit("torch._dynamo" in sys.modules)
"""


def test_the_meta_device_needs_no_compiler():
    assert subprocess.run([sys.executable, "-c", OPENED]).returncode == 0


def test_first_weights_are_those_of_gpt2():
    torch.default_generator.manual_seed(0)
    model = GPT(TEXT, LOGITS, layers=8, width=128, heads=4, positions="learned", bias=True)
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            assert weight.abs().max() == 0
        elif "norm" in name:
            assert (weight == 1).all()
        else:
            added = name.endswith(("attention.out.weight", "feed.down.weight"))
            assert float(weight.std()) == pytest.approx(0.02 / (4 if added else 1), rel=0.05), name
    loss = torch.nn.functional.cross_entropy(model(text=ids(4, 64)).get("text").flatten(0, 1), ids(4, 64, 1).flatten())
    assert float(loss) == pytest.approx(np.log(V), rel=0.02)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_onnx_with_other_lengths_than_traced(kind, tmp_path: Path):
    import onnxruntime

    from luodi.export.tracing.graph import write_onnx

    model = gpt(**KINDS[kind], layers=1)
    state = model.states["past"][0]
    signature = Signature(
        inputs={**TEXT, "past": state, "start": Spec(kind="number", dtype="int64")},
        outputs={**LOGITS, "new": state},
        state={"past": "new"},
    )
    write_onnx(model, batch_of(model, 3, 2, 9), signature, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    for rows, length, held in ((3, 2, 9), (1, 1, 1), (2, 5, 0), (5, 1, 40), (1, 64, 0)):
        batch = batch_of(model, rows, length, held)
        want = model(**{name: torch.as_tensor(each) for name, each in batch.items()})
        # By place: in a graph an output may not be named as an input is.
        for name, have in zip(("text", "new"), session.run(None, batch), strict=True):
            np.testing.assert_allclose(have, want[name].numpy(), atol=1e-5, rtol=0)


def batch_of(model: GPT, rows: int, length: int, held: int) -> dict[str, np.ndarray]:
    dice = np.random.default_rng(rows * length)
    past = dice.standard_normal(nothing_held(model, rows, held).shape, dtype=np.float32)
    return {"text": ids(rows, length).numpy(), "past": past, "start": dice.integers(0, held + 1, rows)}


@pytest.mark.parametrize(
    ("inputs", "outputs", "figures", "told"),
    [
        ({}, LOGITS, {}, "one input of tokens"),
        ({**TEXT, "age": Spec(kind="number", shape=(1,))}, LOGITS, {}, "age"),
        (TEXT, {"other": LOGITS["text"]}, {}, "answers text"),
        (TEXT, {"text": Spec(kind="category", shape=(V,), size=V)}, {}, "answers text"),
        (TEXT, LOGITS, {"heads": 3}, "heads 3"),
        (TEXT, LOGITS, {"heads": 4, "kv_heads": 3}, "kv_heads 3"),
        (TEXT, LOGITS, {"heads": 0}, "at least 1"),
        (TEXT, LOGITS, {"layers": 0}, "layers 0"),
        (TEXT, LOGITS, {"dropout": 1.0}, "dropout 1.0"),
        (TEXT, LOGITS, {"width": 12, "heads": 4, "positions": "rotary"}, "even width"),
    ],
)
def test_what_it_cannot_be_is_said(inputs, outputs, figures, told):
    with pytest.raises(ValueError, match=told):
        GPT(inputs, outputs, **figures)


def test_a_mask_beside_the_text_is_allowed():
    mask = {"text_mask": Spec(kind="mask", shape=("length",))}
    model = GPT({**TEXT, **mask}, LOGITS)
    assert model(text=ids(2, 5), text_mask=torch.ones(2, 5))["text"].shape == (2, 5, V)
