"""int8 weights and int8 activations, against torchao, torch's own fake quantisation, and closed forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_data import Run, images_bundle, table_bundle
from torch import nn
from torch.nn import functional

from luodi.compress.quantize import Quantize
from luodi.core.apply import apply
from luodi.core.bundle import Bundle
from luodi.core.errors import Refused
from luodi.core.weights import fill, materialize, plain_tensors
from luodi.models.layers.int8_dynamic import Int8DynamicLinear, int_product
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
    assert plan == {"eye": "int8 convolution", "head": "int8 dynamic linear"}
    assert left == {
        "words": "Embedding",
        "look.out_proj": "NonDynamicallyQuantizableLinear",
        "up": "ConvTranspose2d",
    }
    model["head"].weight = model["words"].weight
    assert Quantize().plan(model)[1]["head"] == "its weight is shared with another layer"


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
    assert torch.equal(after["direct"](x), wanted)


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
