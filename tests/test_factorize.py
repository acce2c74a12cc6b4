"""Layers of low rank: the smallest error that a rank can have, and the same answers at full rank."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from small_data import SIDES, Run, bundle_of, images_bundle, table_bundle, table_rows
from torch import nn

from luodi.compress.factorize import Factorize
from luodi.core.apply import apply
from luodi.core.bundle import Bundle
from luodi.core.errors import LuodiError
from luodi.core.thing import make
from luodi.models.layers.low_rank import LowRank


def step(name: str, **fields: Any) -> Any:
    return make("steps", {name: fields})


def trained(bundle: Bundle, folder: Any) -> Bundle:
    return apply(step("train", epochs=3, learning_rate=0.01), bundle, Run(folder))


def correlated(count: int = 64, columns: int = 24) -> torch.Tensor:
    """Inputs of which a few directions say nearly all."""
    dice = torch.Generator().manual_seed(0)
    return torch.randn(count, 4, generator=dice) @ torch.randn(4, columns, generator=dice) + 0.05 * torch.randn(
        count, columns, generator=dice
    )


def test_the_error_is_that_of_the_singular_values_left_out():
    weight = torch.randn(20, 24, generator=torch.Generator().manual_seed(1))
    values = torch.linalg.svdvals(weight.double())
    for energy in (0.5, 0.9, 1.0):
        first, second, kept = Factorize(energy=energy)._halves(weight, None)
        rank = len(first)
        assert kept >= energy - 1e-9 and (
            rank == 1 or values[: rank - 1].square().sum() < energy * values.square().sum()
        )
        error = (second @ first - weight).double().norm() ** 2  # Eckart and Young 1936
        assert error.item() == pytest.approx(values[rank:].square().sum().item(), rel=1e-3, abs=1e-6)


def test_by_inputs_the_energy_is_that_of_what_the_layer_gives():
    weight, x = torch.randn(20, 24, generator=torch.Generator().manual_seed(1)), correlated()
    products = x.T @ x
    first, second, kept = Factorize(energy=0.9, by="inputs")._halves(weight, products)
    whole = x @ weight.T
    error = ((x @ (second @ first).T - whole).norm() ** 2 / whole.norm() ** 2).item()
    assert error == pytest.approx(1 - kept, rel=1e-3)
    plain_first, plain_second, _ = Factorize(share=len(first) * 44 / 480 + 1e-9)._halves(weight, None)
    assert len(plain_first) == len(first)
    plain = ((x @ (plain_second @ plain_first).T - whole).norm() ** 2 / whole.norm() ** 2).item()
    assert error < plain / 3, "the inputs lie in few directions: knowing them is worth much"


@pytest.mark.parametrize("kind", [nn.Linear, nn.Conv2d])
def test_at_full_rank_nothing_changes(kind):
    layer: Any = nn.Linear(24, 20) if kind is nn.Linear else nn.Conv2d(6, 20, 3, stride=2, padding=1)
    x = correlated() if kind is nn.Linear else torch.randn(2, 6, 9, 9)
    from luodi.compress.calibration.matrix import matrix_of
    from luodi.compress.factorize import _filled

    with torch.no_grad():
        first, second, _ = Factorize(energy=1.0)._halves(matrix_of(layer, layer.weight)[0], None)
        assert torch.allclose(_filled(layer, first, second)(x), layer(x), atol=1e-5)


def test_a_model_gets_smaller_answers_alike_and_comes_back(tmp_path):
    bundle = trained(images_bundle({"convnet": {"widths": [16, 32], "hidden": 64}}), tmp_path)
    before = sum(p.numel() for p in bundle.model.parameters())
    requests = bundle.task.examples(8, 1)
    told = bundle.task.encode(requests)
    old = bundle.predictor().forward(told)["label"]
    after = apply(step("factorize", energy=0.99, by="inputs", rows=64), bundle.fork(), Run(tmp_path))
    assert after.model is not None
    assert sum(p.numel() for p in after.model.parameters()) < before
    assert any(isinstance(layer, LowRank) for layer in after.model.modules())
    new = after.predictor().forward(told)["label"]
    assert np.abs(new - old).max() < 0.35 * np.abs(old).max()
    again = Bundle.load(after.save(tmp_path / "saved"))
    assert np.array_equal(again.predictor().forward(told)["label"], new)
    small = apply(step("quantize"), again, Run(tmp_path))
    exported = apply(step("export", to="onnx"), small, Run(tmp_path / "export"))
    assert exported.serving == "onnx" and exported.forms["onnx"].drift < 1e-4


def test_shared_and_grouped_layers_stay_and_nothing_smaller_is_an_error(tmp_path):
    bundle = trained(table_bundle(SIDES, {"mlp": {"hidden": [8]}}), tmp_path)
    with pytest.raises(LuodiError, match="no layer would get smaller"):
        apply(step("factorize", energy=1.0), bundle, Run(tmp_path))

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Conv2d(4, 4, 3, groups=2)
            self.d = self.b
            self.e = nn.Linear(4, 4)
            self.f = nn.Linear(4, 4)
            self.f.weight = self.e.weight

    from luodi.compress.factorize import _layers

    assert list(_layers(Twice())) == ["a"]


def test_rows_are_needed_only_where_they_are_looked_at(tmp_path):
    bundle = trained(bundle_of(SIDES, {"mlp": {"hidden": [64, 64]}}, table_rows(128, 0)), tmp_path)
    bare = bundle.without_data()
    assert apply(step("factorize", energy=0.5), bare.fork(), Run(tmp_path)).edits
    with pytest.raises(LuodiError, match="needs 'split'"):
        apply(step("factorize", by="inputs"), bare, Run(tmp_path))
