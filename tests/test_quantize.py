"""int8 weights and int8 activations, against torchao, torch's own fake quantisation, and closed forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_data import Run, bundle_of, images_bundle, table_bundle
from texts_elsewhere import LINES, text_folder
from torch import nn
from torch.nn import functional

from luodi.compress.quantize import Quantize
from luodi.core.apply import apply
from luodi.core.bundle import Bundle
from luodi.core.catalog import resolve
from luodi.core.errors import Refused
from luodi.core.source import rows_of
from luodi.core.weights import fill, materialize, plain_tensors
from luodi.models.layers.int8_dynamic import Int8DynamicLinear, int_product
from luodi.models.layers.int8_embedding import Int8Embedding
from luodi.models.layers.int8_weight import Int8Conv, Int8Linear, int8_channels

SMALL = {"convnet": {"widths": [4, 8], "hidden": 16}}


def seeded(seed: int = 0) -> None:
    torch.default_generator.manual_seed(seed)


def quantised(model: nn.Module, activations: str = "float") -> nn.Module:
    step = Quantize(activations=activations)
    return step.restore(images_bundle(SMALL).task, model, step.plan(model)[0])


def test_linear_integers_are_torchaos() -> None:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    seeded()
    peer = nn.Sequential(nn.Linear(96, 200))
    ours = Int8Linear(peer[0])
    quantize_(peer, Int8WeightOnlyConfig())
    theirs: Any = peer[0].weight
    off = (theirs.qdata.int() - ours.q.int()).abs()
    assert float((off == 0).float().mean()) >= 0.99
    assert int(off.max()) <= 1
    x = torch.randn(5, 96)
    assert torch.allclose(ours(x), peer(x), atol=2e-2)


def test_convolution_weights_are_torchs_fake_quantised_ones() -> None:
    seeded()
    layer = nn.Conv2d(8, 16, 3)
    scale = layer.weight.detach().abs().amax(dim=(1, 2, 3)) / 127.5
    zero = torch.zeros(16, dtype=torch.int32)
    wanted = torch.fake_quantize_per_channel_affine(layer.weight.detach(), scale, zero, 0, -128, 127)
    # A tie of the rounding may fall to the other side: torch multiplies by 1 / scale, we divide.
    steps = (Int8Conv(layer).weight - wanted).abs() / scale[:, None, None, None]
    assert float((steps < 1e-3).float().mean()) >= 0.99
    assert float(steps.max()) <= 1.001


def test_rounding_stays_within_half_a_step() -> None:
    seeded()
    weight = torch.randn(32, 77)
    q, scale = int8_channels(weight)
    assert q.dtype == torch.int8
    assert torch.equal(scale, weight.abs().amax(1, keepdim=True) / 127.5)
    error = (q * scale - weight).abs() / scale
    assert float(error[weight.abs() < 127.5 * scale * 0.99].max()) <= 0.5 + 1e-4
    assert q.int().abs().amax(1).min() >= 127


OPTIONS: list[tuple[type[nn.Module], dict[str, Any], tuple[int, ...]]] = [
    (nn.Conv1d, {"kernel_size": 5, "padding": 2, "stride": 2}, (9,)),
    (nn.Conv1d, {"kernel_size": 4, "padding": "same", "padding_mode": "reflect"}, (9,)),
    (nn.Conv2d, {"kernel_size": (3, 2), "padding": (1, 0), "stride": (2, 1), "bias": False}, (9, 8)),
    (nn.Conv2d, {"kernel_size": 3, "dilation": 2, "groups": 4}, (9, 8)),
    (nn.Conv2d, {"kernel_size": 3, "padding": "same", "dilation": (2, 1)}, (9, 8)),
    (nn.Conv2d, {"kernel_size": (4, 3), "padding": "same", "padding_mode": "circular", "dilation": 1}, (9, 8)),
    (nn.Conv2d, {"kernel_size": 3, "padding": "valid", "padding_mode": "reflect"}, (9, 8)),
    (nn.Conv2d, {"kernel_size": 3, "padding": (2, 1), "padding_mode": "replicate", "groups": 2}, (9, 8)),
    (nn.Conv3d, {"kernel_size": (1, 3, 2), "padding": (0, 1, 1), "padding_mode": "circular"}, (4, 5, 6)),
]


@pytest.mark.parametrize(("kind", "options", "size"), OPTIONS)
def test_every_convolution_option_is_kept(kind: Any, options: dict[str, Any], size: tuple[int, ...]) -> None:
    seeded()
    layer = kind(4, 8, **options)
    ours = Int8Conv(layer)
    layer.weight.data = ours.weight
    x = torch.randn(2, 4, *size)
    assert torch.equal(ours(x), layer(x))


@pytest.mark.parametrize("kind", [Int8Linear, Int8DynamicLinear])
def test_a_channel_of_zeros_stays_zeros(kind: Any) -> None:
    layer = nn.Linear(6, 3, bias=False)
    layer.weight.data[1] = 0
    y = kind(layer)(torch.randn(4, 6))
    assert torch.isfinite(y).all()
    assert torch.equal(y[:, 1], torch.zeros(4))
    assert torch.equal(kind(layer)(torch.zeros(4, 6)), torch.zeros(4, 3))


def test_the_dynamic_layer_is_its_formula_in_float64() -> None:
    seeded()
    layer = nn.Linear(40, 12)
    ours, x = Int8DynamicLinear(layer), torch.randn(3, 5, 40)
    step = x.abs().amax(-1, keepdim=True) / 127
    rounded = (x / step).round().double()
    wanted = rounded @ ours.q.double().t() * step.double() * ours.scale.double() + ours.bias.double()
    assert torch.allclose(ours(x).double(), wanted, rtol=1e-6, atol=1e-6)
    assert float((ours(x) - layer(x)).detach().abs().max()) < 0.02 * float(layer(x).detach().abs().max())


def test_integer_products_are_exact() -> None:
    seeded()
    rows, q = (torch.randint(-128, 128, (n, 300), dtype=torch.int8) for n in (5, 7))
    assert torch.equal(int_product(rows, q).long(), rows.long() @ q.long().t())


def test_the_plan_names_what_was_touched_and_what_stays() -> None:
    model = nn.ModuleDict(
        {
            "words": nn.Embedding(9, 8),
            "look": nn.MultiheadAttention(8, 2),
            "up": nn.ConvTranspose2d(1, 2, 3),
            "eye": nn.Conv2d(1, 2, 3),
            "head": nn.Linear(8, 9),
        }
    )
    plan, left = Quantize(activations="int8").plan(model)
    assert plan == {"words": "int8 embedding", "eye": "int8 convolution", "head": "int8 dynamic linear"}
    assert left == {
        "look.out_proj": "NonDynamicallyQuantizableLinear",
        "up": "ConvTranspose2d",
    }
    model["head"].weight = model["words"].weight
    assert Quantize().plan(model)[0]["head"] == "int8 linear of the table words"
    model["again"] = nn.Linear(8, 9)
    model["head"].weight = model["again"].weight
    assert Quantize().plan(model)[1]["head"] == "its weight is shared with another layer"
    assert Quantize().plan(nn.Sequential(nn.Embedding(9, 4)))[1] == {"0": "a table of 4 numbers a row"}
    assert Quantize().plan(nn.Sequential(nn.Embedding(9, 8, max_norm=1.0)))[1] == {"0": "Embedding"}


def test_a_layer_under_two_names_stays_one_layer() -> None:
    seeded()
    inner = nn.Linear(4, 4)
    block = nn.Sequential(nn.Linear(4, 4), inner)
    model = nn.ModuleDict({"one": block, "two": block, "direct": inner})
    x = torch.randn(2, 4)
    wanted = functional.linear(x, Int8Linear(inner).weight, inner.bias)
    after: Any = quantised(model)
    assert after["one"] is after["two"]
    assert after["one"][1] is after["direct"]
    torch.testing.assert_close(after["direct"](x), wanted)


@pytest.mark.parametrize("activations", ["float", "int8"])
def test_a_fresh_model_takes_the_plan_on_the_meta_device(activations: str) -> None:
    def fresh() -> nn.Module:
        return nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(16, 5, bias=False), nn.Linear(5, 2))

    seeded()
    model = quantised(fresh(), activations)
    with torch.device("meta"):
        again = quantised(fresh(), activations)
    tensors, aliases = plain_tensors(model)
    filled = fill(materialize(again, "cpu"), tensors, aliases, Path("x"))
    x = torch.randn(3, 2, 4, 4)
    assert torch.equal(filled(x), model(x))


@pytest.mark.parametrize("activations", ["float", "int8"])
def test_a_saved_bundle_is_small_and_answers_bit_for_bit(tmp_path: Path, activations: str) -> None:
    run = Run(tmp_path)
    before = images_bundle({"convnet": {"widths": [32, 64], "hidden": 64}}).ready(run)
    whole = (before.save(tmp_path / "whole") / "weights.safetensors").stat().st_size
    after = apply(Quantize(activations=activations), before, run)
    assert "float" not in after.facts
    assert after.edits[-1].packages == {"torch": torch.__version__}
    small = (after.save(tmp_path / "small") / "weights.safetensors").stat().st_size
    assert small < 0.3 * whole
    loaded = Bundle.load(tmp_path / "small")
    arrays = before.task.encode(before.task.examples(6, 0))
    have, want = loaded.predictor().forward(arrays), after.predictor().forward(arrays)
    assert all((have[name] == want[name]).all() for name in want)
    with pytest.raises(Refused, match="float"):
        apply(Quantize(), after, run)


def test_answers_stay_close_on_a_table(tmp_path: Path) -> None:
    run = Run(tmp_path)
    before = table_bundle({"supervised": {"inputs": {"x0": "number"}, "targets": {"total": "number"}}}, "mlp").ready(
        run
    )
    arrays = before.task.encode(before.task.examples(32, 0))
    want = before.fork().predictor().forward(arrays)["total"]
    for activations in ("float", "int8"):
        have = apply(Quantize(activations=activations), before.fork(), run).predictor().forward(arrays)["total"]
        assert abs(have - want).max() < 0.02 * abs(want).max()


# ---- tables of vectors -----------------------------------------------------------------------------------------------


class Times(nn.Embedding):
    """As Gemma's tables in transformers: the rows times a number."""

    def __init__(self, rows: int, width: int, factor: float) -> None:
        super().__init__(rows, width)
        self.register_buffer("embed_scale", torch.tensor(factor))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return super().forward(ids) * self.embed_scale


class Odd(nn.Embedding):
    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return super().forward(ids) + 1


class Tied(nn.Module):
    """A table, a second name of its weight, and an output layer whose weight it is."""

    def __init__(self, table: nn.Embedding) -> None:
        super().__init__()
        self.words, self.out = table, nn.Linear(table.embedding_dim, table.num_embeddings)
        self.out.weight = table.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.out(self.words(ids))


@pytest.mark.parametrize("table", [nn.Embedding(50, 24), nn.Embedding(50, 24, padding_idx=3), Times(50, 24, 4.9)])
def test_a_table_has_a_scale_a_row_and_gives_its_rows(table: nn.Embedding) -> None:
    seeded()
    nn.init.normal_(table.weight)
    wanted, ours = table.weight.detach().clone(), Int8Embedding(table)
    q, scale = int8_channels(wanted)
    ids = torch.randint(0, 50, (3, 7))
    factor = float(getattr(table, "embed_scale", 1.0))
    assert ours.q.dtype == torch.int8 and ours.scale.shape == (50, 1)
    assert torch.equal(ours(ids), (q * scale)[ids] * factor)
    assert torch.equal(ours.weight, q * scale)
    error = (ours(ids) - table(ids)).abs() / (factor * scale[ids])
    assert float(error.detach().max()) <= 1.0  # half a step, one at the clipped end


@pytest.mark.parametrize("activations", ["float", "int8"])
@pytest.mark.parametrize("kind", [lambda: nn.Embedding(90, 16), lambda: Times(90, 16, 4.0)])
def test_a_tied_output_stays_tied_and_is_stored_once(kind: Any, activations: str) -> None:
    seeded()
    model = Tied(kind())
    ids = torch.randint(0, 90, (2, 5))
    separate = Int8Linear(model.out) if activations == "float" else Int8DynamicLinear(model.out)
    wanted = separate(Int8Embedding(model.words)(ids))
    after: Any = quantised(model, activations)
    assert torch.equal(after(ids), wanted)
    tensors, aliases = plain_tensors(after)
    step, task = Quantize(activations=activations), images_bundle(SMALL).task
    plan, _ = step.plan(Tied(kind()))
    with torch.device("meta"):
        again = step.restore(task, Tied(kind()), plan)
    filled = fill(materialize(again, "cpu"), tensors, aliases, Path("x"))
    assert torch.equal(filled(ids), wanted)
    assert sum(tensor.numel() for tensor in tensors.values() if tensor.dtype == torch.int8) == 90 * 16


def test_two_tables_of_one_weight_become_one_and_odd_ones_stay() -> None:
    seeded()
    model = nn.ModuleDict({"read": nn.Embedding(20, 8), "write": nn.Embedding(20, 8), "odd": Odd(20, 8)})
    model["write"].weight = model["read"].weight
    plan, left = Quantize().plan(model)
    assert plan == {"read": "int8 embedding", "write": "int8 embedding of the table read"}
    assert left == {"odd": "Odd"}
    after: Any = quantised(model)
    assert after["read"] is after["write"]


def texts_bundle(model: Any) -> Bundle:
    words = [f"w{place}" for place in range(3000)]
    texts = [" ".join(words[(7 * row + 11 * place) % 3000] for place in range(3 + row % 9)) for row in range(1500)]
    rows = rows_of({"text": texts, "label": ["even" if row % 2 == 0 else "odd" for row in range(1500)]})
    text = {"text": {"text": {"tokens": "word", "length": 16, "at_least": 1}}}
    task = {"supervised": {"inputs": text, "targets": {"label": "category"}}}
    return bundle_of(task, model, rows, rows[:50])


@pytest.mark.parametrize("activations", ["float", "int8"])
def test_a_vocabulary_is_small_on_disk_and_in_every_form(tmp_path: Path, activations: str) -> None:
    """Nearly all of the network is its table: 3,000 words of 64 numbers."""
    run = Run(tmp_path)
    before = texts_bundle({"embedding_bag": {"width": 64, "hidden": [16]}}).ready(run)
    whole = (before.save(tmp_path / "whole") / "weights.safetensors").stat().st_size
    after = apply(Quantize(activations=activations), before, run)
    assert after.notes["left_float"] == {}
    small = (after.save(tmp_path / "small") / "weights.safetensors").stat().st_size
    assert small < 0.28 * whole
    loaded = Bundle.load(tmp_path / "small")
    arrays = after.task.encode(after.task.examples(6, 0))
    wanted = after.predictor().forward(arrays)["label"]
    assert (loaded.predictor().forward(arrays)["label"] == wanted).all()
    for to in ("onnx", "openvino"):
        form = apply(resolve("steps", {"export": {"to": to}}), after, run).forms[to]
        weights = sum(file.stat().st_size for file in form.folder.glob("model.*n*"))
        assert weights < 0.28 * whole + 5000
        assert form.drift < (1e-5 if activations == "float" else 5e-3)


def test_a_published_language_models_table_and_output_stay_one(tmp_path: Path) -> None:
    """Gemma's table is multiplied by sqrt(width), and its output layer has the table's weight."""
    folder, run = text_folder("gemma", tmp_path / "gemma"), Run(tmp_path)
    task = {"language": {"inputs": {"text": {"text": {"tokens": "pretrained", "length": 32}}}}}
    begun = bundle_of(task, "constant", rows_of({"text": list(LINES)})).replace(config=None)
    before = apply(resolve("steps", {"pretrained": {"weights": str(folder)}}), begun, run)
    arrays = before.task.encode(before.task.examples(4, 0))
    wanted = before.fork().predictor().forward(arrays)["text"]
    after = apply(Quantize(), before, run)
    assert "int8 linear of the table" in str(after.notes["layers"])
    table = max(
        (layer for layer in after.model.modules() if isinstance(layer, Int8Embedding)), key=lambda it: it.q.numel()
    )
    tensors, _ = plain_tensors(after.model)
    assert [name for name, tensor in tensors.items() if tensor.shape == table.q.shape] == [
        "network.model.embed_tokens.q"
    ]
    loaded = Bundle.load(after.save(tmp_path / "small"))
    have = loaded.predictor().forward(arrays)["text"]
    assert abs(have - wanted).max() < 0.05 * abs(wanted).max()
    assert (have == after.predictor().forward(arrays)["text"]).all()
