"""EncoderDecoder: equal to PyTorch's blocks put together, read once, cached, and masked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_attention import copy_block
from torch import Tensor, nn

from luodi.core.spec import Signature, Spec
from luodi.models.encoder_decoder import EncoderDecoder
from luodi.models.layers.attention import attention_of, written_out
from luodi.models.layers.positions import sinusoids

V = 23
SOURCE = Spec(kind="tokens", shape=("source_length",), size=31, dtype="int64")
MASK = Spec(kind="mask", shape=("source_length",), dtype="int64")
TARGET = Spec(kind="tokens", shape=("length",), size=V, dtype="int64")
INPUTS = {"english": SOURCE, "english_mask": MASK, "chinese": TARGET}
OUTPUTS = {"chinese": Spec(kind="tokens", shape=("length", V), size=V)}
KINDS: dict[str, dict[str, Any]] = {
    "paper": {"first": False},
    "gpt": {"positions": "learned", "tied": False},
    "llama": {"positions": "rotary", "norm": "rms", "gated": True, "kv_heads": 2, "bias": False},
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def translator(**figures: Any) -> EncoderDecoder:
    model = EncoderDecoder(INPUTS, OUTPUTS, **{"layers": 2, "width": 32, "context": 64, **figures}).eval()
    dice = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=dice) * 0.12)
    return model


def ids(size: int, rows: int, length: int, seed: int) -> Tensor:
    return torch.randint(size, (rows, length), generator=torch.Generator().manual_seed(seed))


def source(lengths: list[int], room: int) -> dict[str, Tensor]:
    mask = (torch.arange(room) < torch.tensor(lengths)[:, None]).long()
    return {"english": ids(31, len(lengths), room, 1) * mask, "english_mask": mask}


def batch_of(lengths: list[int], room: int, written: int) -> dict[str, Tensor]:
    return {**source(lengths, room), "chinese": ids(V, len(lengths), written, 2)}


def near(have: Tensor, want: Tensor) -> None:
    assert want.abs().max() > 0.1
    torch.testing.assert_close(have, want, atol=1e-5, rtol=0)


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


@pytest.mark.parametrize("first", [True, False], ids=["pre-norm", "post-norm"])
def test_is_the_transformer_of_pytorch(first):
    """Their encoder and decoder layers with our weights, between our tables; sinusoids of the paper."""
    model, batch = translator(first=first), batch_of([7, 3, 5], 7, 6)
    hidden = ~(batch["english_mask"] > 0)
    x = model.encoder.placed.tokens(batch["english"]) * 32**0.5 + sinusoids(torch.arange(7), 32)
    y = model.placed.tokens(batch["chinese"]) * 32**0.5 + sinusoids(torch.arange(6), 32)
    for block in model.encoder.blocks:
        layer = nn.TransformerEncoderLayer(32, 4, 128, 0.0, "gelu", batch_first=True, norm_first=first).eval()
        copy_block(block, layer, cross=False, back=True)
        x = layer(x, src_key_padding_mask=hidden)
    x = model.encoder.norm(x)
    for block in model.blocks:
        layer = nn.TransformerDecoderLayer(32, 4, 128, 0.0, "gelu", batch_first=True, norm_first=first).eval()
        copy_block(block, layer, cross=True, back=True)
        y = layer(y, x, tgt_mask=torch.ones(6, 6).triu(1).bool(), memory_key_padding_mask=hidden)
    near(model(**batch)["chinese"], model.norm(y) @ model.placed.tokens.weight.T)


def nothing_held(model: EncoderDecoder, rows: int, room: int = 0) -> Tensor:
    return torch.zeros(rows, *(room if side == "held" else int(side) for side in model.states["past"][0].shape))


@every_kind
def test_read_once_and_written_step_by_step(kind):
    """Each token by itself, over a memory that was read once, with rubbish in the cache after what is held."""
    model, batch = translator(**KINDS[kind]), batch_of([7, 3, 5], 7, 6)
    want = model(**batch)["chinese"]
    read = model.read(**source([7, 3, 5], 7))
    wanted = model.memories["memory"].shape
    assert read["memory"].shape == (3, *(7 if side == "source_length" else side for side in wanted))
    given = {**read, "english_mask": batch["english_mask"]}
    past = torch.randn(nothing_held(model, 3, 6).shape) * 30
    for place in range(6):
        start, said = torch.full((3,), place), batch["chinese"][:, place : place + 1]
        found = model(
            chinese=said, past=past[..., : max(place, 1), :] if place else nothing_held(model, 3), start=start, **given
        )
        past[..., place, :] = found["new"][..., 0, :]
        near(found["chinese"][:, 0], want[:, place])
    near(model(chinese=batch["chinese"], **given)["chinese"], want)


@every_kind
def test_rows_do_not_depend_on_neighbours_padding_or_what_comes_later(kind):
    model, batch = translator(**KINDS[kind]), batch_of([7, 3, 5], 7, 6)
    want = model(**batch)["chinese"]
    for row, length in enumerate([7, 3, 5]):
        alone = {name: each[row : row + 1, : 6 if name == "chinese" else length] for name, each in batch.items()}
        near(model(**alone)["chinese"][0], want[row])
    later = {**batch, "chinese": torch.cat([batch["chinese"][:, :4], (batch["chinese"][:, 4:] + 1) % V], 1)}
    near(model(**later)["chinese"][:, :4], want[:, :4])
    other = {**batch, "english": (batch["english"] + batch["english_mask"]) % 31}
    assert (model(**other)["chinese"] - want).abs().amax((1, 2)).min() > 1e-3


@every_kind
def test_attention_arrays(kind):
    model, batch = translator(**KINDS[kind]), batch_of([7, 3], 7, 6)
    shapes = {name: tuple(each.shape[2:]) for name, each in attention_of(model, batch).items()}
    assert shapes == {
        **{f"encoder.blocks.{place}.attention": (7, 7) for place in range(2)},
        **{f"blocks.{place}.attention": (6, 6) for place in range(2)},
        **{f"blocks.{place}.cross": (6, 7) for place in range(2)},
    }
    for name, each in attention_of(model, batch).items():
        torch.testing.assert_close(each.sum(-1), torch.ones(each.shape[:-1]))
        assert "cross" not in name or each[1, :, :, 3:].abs().max() == 0
    near(written_out(model)(**batch)["chinese"], model(**batch)["chinese"])


def test_first_weights_are_as_large_as_the_width_wants_them():
    """Times sqrt(width) they have the variance of the paper's 3.4; places add one half."""
    model = EncoderDecoder(INPUTS, OUTPUTS, width=64)
    for placed in (model.encoder.placed, model.placed):
        assert float((placed.tokens.weight * 8).std()) == pytest.approx(1, abs=0.1)
    rotary = EncoderDecoder(INPUTS, OUTPUTS, width=64, positions="rotary")
    assert float(rotary.placed.tokens.weight.std()) == pytest.approx(0.02, abs=0.002)
    query = rotary.blocks[0].cross.q.weight  # uniform within sqrt(6 / (64 + 64))
    assert float(query.std()) == pytest.approx((2 / 128) ** 0.5, rel=0.05) and query.abs().max() <= (6 / 128) ** 0.5


def test_learns_to_write_a_text_backwards():
    """Greedy, without teacher: what is written is the source from its end, of sources it never saw."""
    torch.default_generator.manual_seed(0)
    tokens = {"a": Spec(kind="tokens", shape=("n",), size=8, dtype="int64"), "b": TARGET.model_copy(update={"size": 8})}
    model = EncoderDecoder(
        tokens, {"b": Spec(kind="tokens", shape=("length", 8), size=8)}, layers=1, width=32, dropout=0.0
    )
    update = torch.optim.AdamW(model.parameters(), lr=5e-3)
    begin = torch.zeros(64, 1, dtype=torch.int64)
    for _ in range(250):
        a = torch.randint(1, 8, (64, 5))
        with torch.enable_grad():
            logits = model(a=a, b=torch.cat([begin, a.flip(1)[:, :-1]], 1))["b"]
            nn.functional.cross_entropy(logits.flatten(0, 1), a.flip(1).flatten()).backward()
        update.step()
        update.zero_grad()
    a, written = torch.randint(1, 8, (64, 5)), begin
    for _ in range(5):
        written = torch.cat([written, model.eval()(a=a, b=written)["b"][:, -1:].argmax(-1)], 1)
    assert float((written[:, 1:] == a.flip(1)).float().mean()) > 0.95


def test_onnx_of_reading_and_writing(tmp_path: Path):
    """Two graphs: the source is read once; other lengths than traced."""
    import onnxruntime

    from luodi.export.tracing.graph import write_onnx

    model = translator(layers=1, **KINDS["llama"])
    state, memory = model.states["past"][0], model.memories["memory"]
    signature = Signature(
        inputs={
            "chinese": TARGET, "english_mask": MASK, "memory": memory, "past": state,
            "start": Spec(kind="number", dtype="int64"),
        },
        outputs={**OUTPUTS, "new": state},
    )  # fmt: skip

    def batch(lengths: list[int], room: int, written: int, held: int) -> dict[str, Tensor]:
        start = torch.arange(len(lengths)) % (held + 1)
        past = torch.randn(nothing_held(model, len(lengths), held).shape)
        given = {"chinese": ids(V, len(lengths), written, 5), "past": past, "start": start}
        return {**given, **model.read(**source(lengths, room)), "english_mask": source(lengths, room)["english_mask"]}

    arrays = {name: each.numpy() for name, each in batch([4, 2, 3], 4, 2, 5).items()}
    write_onnx(model, arrays, signature, tmp_path / "write.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "write.onnx"))
    for lengths, room, written, held in (([4, 2, 3], 4, 2, 5), ([6], 6, 1, 9), ([9, 8], 9, 3, 0)):
        given = batch(lengths, room, written, held)
        want = model(**given)
        have = session.run(None, {name: each.numpy() for name, each in given.items()})
        for name, each in zip(("chinese", "new"), have, strict=True):
            np.testing.assert_allclose(each, want[name].numpy(), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("inputs", "outputs", "figures", "told"),
    [
        ({"chinese": TARGET}, OUTPUTS, {}, "two tokens"),
        (INPUTS, {"other": OUTPUTS["chinese"]}, {}, "two tokens"),
        ({**INPUTS, "age": Spec(kind="number", shape=(1,))}, OUTPUTS, {}, "age"),
        (INPUTS, {"chinese": Spec(kind="category", shape=(V,), size=V)}, {}, "answers chinese"),
        (INPUTS, OUTPUTS, {"heads": 5}, "heads 5"),
        (INPUTS, OUTPUTS, {"context": 0}, "context 0"),
        (
            {**INPUTS, "english": SOURCE.model_copy(update={"most": 40})},
            OUTPUTS,
            {"context": 32, "positions": "learned"},
            "texts to 40 tokens",
        ),
    ],
)
def test_what_it_cannot_be_is_said(inputs, outputs, figures, told):
    with pytest.raises(ValueError, match=told):
        EncoderDecoder(inputs, outputs, **figures)
