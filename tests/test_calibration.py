"""What layers are given, summed on a walk: against what hooks and unfolding by hand give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_data import Run, images_bundle, table_bundle
from torch import nn
from torch.nn import functional

from luodi.compress.calibration.matrix import matrix_of, places_of, seen_columns, weight_of
from luodi.compress.calibration.sums import Sums
from luodi.compress.calibration.walk import Calibration, calibration_of, holding, walk
from luodi.compress.prune import prunable

LAYERS: list[tuple[nn.Module, tuple[int, ...]]] = [
    (nn.Linear(6, 5, bias=False), (3, 6)),
    (nn.Linear(6, 5, bias=False), (2, 4, 6)),
    (nn.Conv1d(4, 6, 3, padding=1, stride=2, bias=False), (2, 4, 9)),
    (nn.Conv1d(4, 6, 4, padding="same", padding_mode="reflect", bias=False), (2, 4, 9)),
    (nn.Conv2d(4, 6, (3, 2), padding=(1, 0), stride=(2, 1), bias=False), (2, 4, 9, 8)),
    (nn.Conv2d(4, 8, 3, groups=4, dilation=2, bias=False), (2, 4, 9, 8)),
    (nn.Conv2d(4, 4, 3, groups=4, padding=1, bias=False), (2, 4, 5, 5)),
    (nn.Conv2d(4, 8, 3, padding=(2, 1), padding_mode="circular", groups=2, bias=False), (4, 9, 8)),
    (nn.Conv3d(2, 3, (1, 3, 2), padding=(0, 1, 1), bias=False), (2, 2, 3, 4, 5)),
]


@pytest.mark.parametrize(("layer", "shape"), LAYERS)
def test_what_a_layer_sees_times_its_matrix_is_what_it_gives(layer: Any, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    matrix = matrix_of(layer, layer.weight)
    products = seen_columns(layer, x) @ matrix.mT  # (P, N, R)
    wanted = layer(x)
    batched = isinstance(layer, nn.Linear) or x.dim() == len(layer.kernel_size) + 2
    outputs = wanted if isinstance(layer, nn.Linear) else wanted.movedim(1 if batched else 0, -1)
    assert torch.allclose(products.transpose(0, 1).reshape(outputs.shape), outputs, atol=1e-5)
    assert torch.equal(weight_of(layer, matrix, tuple(layer.weight.shape)), layer.weight)


def test_a_transposed_convolution_lays_its_products_over_each_other() -> None:
    """With a step as wide as the kernel nothing overlaps: the products are the outputs."""
    layer = nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2, bias=False)
    x = torch.randn(3, 4, 5, 5)
    products = seen_columns(layer, x) @ matrix_of(layer, layer.weight).mT  # (2, 3 * 25, 3 * 2 * 2)
    tiles = products.unflatten(1, (3, 5, 5)).unflatten(-1, (3, 2, 2))  # (part, batch, h, w, out, kh, kw)
    laid = tiles.permute(1, 0, 4, 2, 5, 3, 6).reshape(3, 6, 10, 10)
    assert torch.allclose(laid, layer(x), atol=1e-5)
    assert torch.equal(weight_of(layer, matrix_of(layer, layer.weight), tuple(layer.weight.shape)), layer.weight)
    assert places_of(layer, layer.weight) == 1


def calibrated(model: object, run: Run, count: int = 40) -> tuple[nn.Module, Calibration]:
    bundle = images_bundle(model).ready(run)
    assert bundle.model is not None
    return bundle.model, calibration_of(bundle, count, run)


def test_the_sums_are_those_of_all_rows_at_once(tmp_path: Path) -> None:
    model, calibration = calibrated({"convnet": {"widths": [4, 8], "hidden": 16}}, Run(tmp_path))
    weights = dict(prunable(model))
    inputs = torch.cat([pair[0]["image"] for pair in calibration.batches()])
    assert len(inputs) == 40
    caught: dict[str, torch.Tensor] = {}
    hooks = [
        model.get_submodule(name).register_forward_pre_hook(lambda _, args, name=name: caught.update({name: args[0]}))
        for name in weights
    ]
    with torch.no_grad():
        model.eval()(image=inputs)
    for hook in hooks:
        hook.remove()
    found = dict(walk(calibration, model, holding(model, weights), products=True, order="once"))
    assert found.keys() == weights.keys()
    for name, sums in found.items():
        layer: Any = model.get_submodule(name)
        seen = caught[name]
        if isinstance(layer, nn.Conv2d):
            seen = functional.unfold(seen, layer.kernel_size, padding=layer.padding).transpose(1, 2).flatten(0, 1)
        assert sums.count == len(seen)
        assert sums.squares is not None and sums.products is not None and sums.sizes is not None
        assert torch.allclose(sums.products[0], seen.T @ seen, rtol=1e-4, atol=1e-3)
        assert torch.allclose(sums.squares[0], seen.square().sum(0), rtol=1e-4, atol=1e-3)
        assert torch.allclose(sums.sizes[0], seen.abs().sum(0), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("order", ["layers", "blocks", "once"])
def test_later_layers_see_what_the_changed_ones_give(tmp_path: Path, order: Any) -> None:
    """Every layer is set to zero as the walk goes by: the later ones then see only biases, and the whole model's
    inputs are still there beside them."""
    run = Run(tmp_path)
    model, calibration = calibrated({"mlp": {"hidden": [12, 8]}}, run)
    whole, _ = calibrated({"mlp": {"hidden": [12, 8]}}, run)
    weights = dict(prunable(model))
    plain = dict(walk(calibration, whole, holding(whole, dict(prunable(whole))), products=True, order="once"))
    met: list[str] = []
    for name, sums in walk(calibration, model, holding(model, weights), products=True, order=order, whole=whole):
        met.append(name)
        changed = len(met) > 1 and order != "once"
        assert sums.products is not None and sums.crossed is not None
        assert torch.allclose(sums.products, plain[name].products, rtol=1e-4) is not changed
        diagonal = torch.allclose(sums.crossed, sums.products, rtol=1e-4, atol=1e-3)
        assert diagonal is not changed
        with torch.no_grad():
            weights[name].zero_()
    assert met == list(weights)


def test_layers_that_never_work_have_no_sums_and_shared_ones_one(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.twin, self.idle = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)
            self.twin.weight = self.first.weight

        def forward(self, **batch: torch.Tensor) -> dict[str, torch.Tensor]:
            x = torch.cat([batch[f"x{place}"] for place in range(3)], 1)
            return {"total": self.twin(self.first(x)).sum(1, keepdim=True)}

    run = Run(tmp_path)
    task = {"supervised": {"inputs": dict.fromkeys(("x0", "x1", "x2"), "number"), "targets": {"total": "number"}}}
    bundle = table_bundle(task, "mlp").ready(run).with_model(Odd())
    assert bundle.model is not None
    weights = dict(prunable(bundle.model))
    assert list(weights) == ["first", "idle"]
    calibration = calibration_of(bundle, 1000, run)
    found = dict(walk(calibration, bundle.model, holding(bundle.model, weights), products=False))
    assert found["first"].count == 2 * 128 and found["first"].products is None
    assert found["idle"] == Sums()


def test_rows_are_chosen_by_the_dice_alone(tmp_path: Path) -> None:
    def images(seed: int) -> torch.Tensor:
        _, calibration = calibrated("mlp", Run(tmp_path, seed=seed), 24)
        return torch.cat([pair[0]["image"] for pair in calibration.batches()])

    assert torch.equal(images(0), images(0)) and not torch.equal(images(0), images(1))
