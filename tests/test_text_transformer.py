"""TextTransformer: padding changes nothing, the order of the words does, and ONNX Runtime agrees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from luodi.core.spec import Signature, Spec
from luodi.models.layers.attention import attention_of, written_out
from luodi.models.layers.reading import pooled
from luodi.models.text_transformer import TextTransformer
from luodi.train.loop.learning import stages_of

V = 29
TOKENS = Spec(kind="tokens", shape=("length",), size=V, dtype="int64")
MASK = Spec(kind="mask", shape=("length",), dtype="int64")
INPUTS = {"text": TOKENS, "text_mask": MASK}
OUTPUTS = {"label": Spec(kind="category", shape=(3,), size=3), "price": Spec(kind="number", shape=(1,))}
KINDS: dict[str, dict[str, Any]] = {
    "bert": {"first": False},
    "gpt": {"positions": "sinusoidal", "pooling": "first"},
    "llama": {"positions": "rotary", "norm": "rms", "gated": True, "kv_heads": 2, "bias": False},
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def reader(inputs: dict[str, Spec] = INPUTS, **figures: Any) -> TextTransformer:
    model = TextTransformer(inputs, OUTPUTS, **{"layers": 2, "width": 32, "context": 64, **figures}).eval()
    dice = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=dice) * 0.15)
    return model


def batch_of(lengths: list[int], room: int, padding: int = 0) -> dict[str, Tensor]:
    tokens = torch.randint(V, (len(lengths), room), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(room) < torch.tensor(lengths)[:, None]).long()
    return {"text": torch.where(mask > 0, tokens, padding), "text_mask": mask}


def same(have: dict[str, Tensor], want: dict[str, Tensor]) -> None:
    assert have.keys() == want.keys() == {"label", "price"}
    torch.testing.assert_close(have, want, atol=1e-5, rtol=0)


@every_kind
def test_padding_changes_nothing(kind):
    """Alone, in a batch, with more padding, and with other ids at it."""
    model = reader(**KINDS[kind])
    want = model(**batch_of([9, 4, 1], 9))
    other = batch_of([9, 4, 1], 9, padding=7)
    other = {
        "text": nn.functional.pad(other["text"], (0, 5)),
        "text_mask": nn.functional.pad(other["text_mask"], (0, 5)),
    }
    same(model(**other), want)
    for row, length in enumerate([9, 4, 1]):
        alone = {name: each[row : row + 1, :length] for name, each in batch_of([9, 4, 1], 9).items()}
        same(model(**alone), {name: each[row : row + 1] for name, each in want.items()})


@every_kind
def test_the_order_of_words_and_the_last_word_count(kind):
    model, batch = reader(**KINDS[kind]), batch_of([8, 8], 8)
    want = model(**batch)["label"]
    turned = {**batch, "text": batch["text"].clone()}
    turned["text"][:, [2, 5]] = batch["text"][:, [5, 2]]
    last = {**batch, "text": torch.cat([batch["text"][:, :7], (batch["text"][:, 7:] + 1) % V], 1)}
    for other in (turned, last):
        assert (model(**other)["label"] - want).abs().amax(1).min() > 1e-3


def test_an_empty_text_has_a_finite_answer():
    model = reader()
    batch = batch_of([0, 5], 5)
    found = model(**batch)
    assert all(each.isfinite().all() for each in found.values())
    same({name: each[1:] for name, each in found.items()}, model(**{name: each[1:] for name, each in batch.items()}))
    model.train()
    sum(each.sum() for each in model(**batch).values()).backward()  # ty: ignore[unresolved-attribute]
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())


def test_pooling_in_numbers():
    x = torch.tensor([[[1.0], [3.0], [float("nan")]], [[5.0], [7.0], [9.0]]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    assert pooled(x, mask, "mean").flatten().tolist() == [2.0, 7.0]
    assert pooled(x, mask, "first").flatten().tolist() == [1.0, 5.0]
    assert pooled(x[1:], None, "mean").flatten().tolist() == [7.0]


def test_two_texts_and_their_stages():
    """Each text its own encoder, also under names that modules may not have; a text without padding needs no mask."""
    inputs = {"the question.": TOKENS, "the question._mask": MASK, "answer": TOKENS}
    model = reader(inputs)
    one, two = batch_of([3, 6], 6), batch_of([4, 4], 4)
    batch = {"the question.": one["text"], "the question._mask": one["text_mask"], "answer": two["text"]}
    want = model(**batch)["label"]
    for name in ("the question.", "answer"):
        changed = {**batch, name: (batch[name] + 1) % V}
        assert (model(**changed)["label"] - want).abs().max() > 1e-3
    names = [stage.name for stage in stages_of(reader())]
    assert names[-1] == "heads" and [name for name in names if "blocks" in name] == [
        "reader.blocks.0",
        "reader.blocks.1",
    ]


@every_kind
def test_attention_arrays(kind):
    model, batch = reader(**KINDS[kind]), batch_of([6, 2], 6)
    found = attention_of(model, batch)
    assert {name: each.shape for name, each in found.items()} == {
        f"reader.blocks.{place}.attention": (2, 4, 6, 6) for place in range(2)
    }
    for each in found.values():
        torch.testing.assert_close(each.sum(-1), torch.ones(2, 4, 6))
        assert each[1, :, :, 2:].abs().max() == 0
    same(written_out(model)(**batch), model(**batch))


def test_learns_which_of_two_words_came_first():
    """Needs positions and attention: a bag of words cannot know."""
    torch.default_generator.manual_seed(0)
    model = TextTransformer(
        INPUTS, {"label": Spec(kind="category", shape=(2,), size=2)}, layers=1, width=32, dropout=0.0
    )
    tokens = torch.randint(3, V, (256, 8))
    first, labels = torch.randint(0, 4, (256,)), torch.randint(0, 2, (256,))
    rows = torch.arange(256)
    tokens[rows, first], tokens[rows, first + 4] = 1 + labels, 2 - labels
    update = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        logits = model(text=tokens, text_mask=torch.ones_like(tokens))["label"]
        loss = nn.functional.cross_entropy(logits, labels)
        update.zero_grad()
        loss.backward()
        update.step()
    assert float((logits.argmax(1) == labels).float().mean()) > 0.95


def test_onnx_with_other_lengths_than_traced(tmp_path: Path):
    import onnxruntime

    from luodi.export.tracing.graph import write_onnx

    model = reader(layers=1, **KINDS["llama"])
    example = {name: each.numpy() for name, each in batch_of([5, 3, 4], 5).items()}
    write_onnx(model, example, Signature(inputs=INPUTS, outputs=OUTPUTS), tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    for lengths, room in (([5, 3, 4], 5), ([1], 1), ([17, 0], 20)):
        batch = batch_of(lengths, room)
        want = model(**batch)
        have = session.run(list(OUTPUTS), {name: each.numpy() for name, each in batch.items()})
        for name, each in zip(OUTPUTS, have, strict=True):
            np.testing.assert_allclose(each, want[name].detach().numpy(), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("inputs", "figures", "told"),
    [
        ({}, {}, "no tokens"),
        ({"age": Spec(kind="number", shape=(1,))}, {}, "age"),
        ({**INPUTS, "other_mask": MASK}, {}, "other_mask"),
        (INPUTS, {"heads": 5}, "heads 5"),
        (INPUTS, {"layers": 0}, "layers 0"),
        (INPUTS, {"width": 12, "positions": "rotary"}, "even width"),
        (INPUTS, {"width": 5, "heads": 1, "positions": "sinusoidal"}, "even width"),
    ],
)
def test_what_it_cannot_be_is_said(inputs, figures, told):
    with pytest.raises(ValueError, match=told):
        TextTransformer(inputs, OUTPUTS, **figures)
