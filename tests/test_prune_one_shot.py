"""Wanda by hand, SparseGPT against the formula of the optimal brain surgeon and least squares, patterns counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from small_data import Run, images_bundle
from torch import Tensor

from luodi.compress.calibration.matrix import matrix_of
from luodi.compress.calibration.sums import Sums
from luodi.compress.calibration.targets import corrected
from luodi.compress.prune import Prune, prunable
from luodi.compress.pruning.masks import channels_first, lowest, patterned
from luodi.compress.pruning.one_shot import sparsegpt, wanda
from luodi.compress.pruning.refit import least_squares
from luodi.core.apply import apply
from luodi.core.bundle import Bundle
from luodi.core.errors import Refused

CONVNET = {"convnet": {"widths": [4, 8], "hidden": 16}}


def correlated(rows: int = 400, columns: int = 32, seed: int = 0) -> tuple[Tensor, Tensor]:
    """(inputs, weight (1, 24, columns)): columns that go with each other, of very different sizes."""
    dice = torch.Generator().manual_seed(seed)
    mixed = torch.randn(rows, columns // 2, generator=dice) @ torch.randn(columns // 2, columns, generator=dice)
    sizes = torch.logspace(-0.5, 0.5, columns)[torch.randperm(columns, generator=dice)]
    x = (mixed + 0.3 * torch.randn(rows, columns, generator=dice)) * sizes
    return x, torch.randn(1, 24, columns, generator=dice)


def error(x: Tensor, weight: Tensor, other: Tensor) -> float:
    return float((x @ (weight - other)[0].T).square().sum())


def test_wanda_by_hand() -> None:
    """Scores are |W| times the norm of the column: 1, 4, 3, 8 and 5, 2, 9, 4 here."""
    matrix = torch.tensor([[[1.0, -2.0, 1.0, 2.0], [-5.0, 1.0, 3.0, -1.0]]])
    squares = torch.tensor([[1.0, 4.0, 9.0, 16.0]])
    wanted = torch.tensor([[[0.0, -2.0, 0.0, 2.0], [-5.0, 0.0, 3.0, 0.0]]])
    assert torch.equal(wanda(matrix, squares, 0.5), wanted)
    assert torch.equal(wanda(matrix, squares, 0.25)[0, 0], torch.tensor([0.0, -2.0, 1.0, 2.0]))
    assert torch.equal(wanda(matrix, squares, 0.5, (2, 4)), wanted)


def test_one_weight_gone_is_the_optimal_brain_surgeons_update() -> None:
    """delta w = -w_q / (H^-1)_qq x (H^-1)_q: the first column, since those before it would be settled."""
    x, weight = correlated()
    products = (x.double().T @ x.double())[None]
    weight = weight[:, :1]
    weight[0, 0, 0] = 0.01  # costs least
    inverse = torch.linalg.inv(products[0])
    wanted = weight[0, 0].double() - weight[0, 0, 0].double() / inverse[0, 0] * inverse[0]
    found = sparsegpt(weight, products, 1 / 32, damp=0)
    assert found[0, 0, 0] == 0
    assert torch.allclose(found[0, 0].double(), wanted, atol=1e-5)
    assert float((wanted - weight[0, 0]).abs()[1:].max()) > 1e-3


def test_what_stays_is_the_least_squares_solution_when_the_first_columns_go() -> None:
    x, weight = correlated()
    products = (x.T @ x)[None]
    weight[:, :, :8] *= 1e-5  # all of them cost least
    found = sparsegpt(weight, products, 0.25, damp=0)
    assert torch.equal(found == 0, (torch.arange(32) < 8).expand(1, 24, 32))
    wanted = torch.linalg.lstsq(x[:, 8:].double(), x.double() @ weight[0].T.double()).solution
    assert torch.allclose(found[0, :, 8:].double(), wanted.T, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("pattern", [None, (2, 4), (4, 8)])
def test_errors_fall_from_magnitude_to_wanda_to_sparsegpt(pattern: Any) -> None:
    x, weight = correlated()
    products, squares = (x.T @ x)[None], x.square().sum(0)[None]
    plain = wanda(weight, torch.ones_like(squares), 0.5, pattern)  # by magnitude, output by output
    errors = [error(x, weight, other) for other in (
        plain, wanda(weight, squares, 0.5, pattern), sparsegpt(weight, products, 0.5, pattern)
    )]  # fmt: skip
    assert errors[0] > 1.2 * errors[1] > 1.2 * 1.2 * errors[2], errors


@pytest.mark.parametrize("sparsity", [0.0, 0.13, 0.5, 0.9])
def test_sparsegpt_counts_are_exact_and_zeros_stay(sparsity: float) -> None:
    x, weight = correlated()
    weight[0, :3, 5] = 0
    found = sparsegpt(weight, (x.T @ x)[None], sparsity, block=8)
    assert int((found == 0).sum()) == max(round(sparsity * weight.numel()), 3)
    assert (found[0, :3, 5] == 0).all()
    if sparsity == 0:
        assert torch.allclose(found, weight, atol=1e-6)


def test_a_column_that_was_always_zero_changes_nothing_else() -> None:
    x, weight = correlated()
    x[:, 3] = 0
    found = sparsegpt(weight, (x.T @ x)[None], 0.5)
    assert torch.isfinite(found).all()
    without = [column for column in range(32) if column != 3]
    assert error(x[:, without], weight[:, :, without], found[:, :, without]) < error(
        x, weight, wanda(weight, x.square().sum(0)[None], 0.5)
    )


def test_parts_are_pruned_as_if_they_were_alone() -> None:
    both = [correlated(seed=seed) for seed in (0, 1)]
    weight = torch.cat([weight for _, weight in both])
    products = torch.stack([x.T @ x for x, _ in both])
    found = sparsegpt(weight, products, 0.5)
    for part, (x, alone) in enumerate(both):
        assert torch.allclose(found[part], sparsegpt(alone, (x.T @ x)[None], 0.5)[0], atol=1e-5)


def test_patterns_and_ties_in_exact_numbers() -> None:
    assert int(lowest(torch.zeros(3, 10), 4).sum()) == 12
    gone = patterned(torch.rand(2, 5, 22), 2, 4)
    assert (gone[..., :20].unflatten(-1, (-1, 4)).sum(-1) == 2).all() and (gone[..., 20:].sum(-1) == 1).all()
    assert (patterned(torch.rand(2, 5, 6), 4, 8).sum(-1) == 3).all()
    layer = torch.nn.Conv1d(4, 2, 3)
    assert channels_first(layer, layer.weight) == [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]


def test_a_corrected_layer_gives_of_changed_inputs_what_it_gave_of_the_old() -> None:
    """Where the inputs were only mixed, x = y A, the correction is W A^-T; with noise, the least squares solution."""
    y, weight = correlated(columns=16)
    mixed = torch.eye(16) + 0.3 * torch.randn(16, 16, generator=torch.Generator().manual_seed(1))
    x = y @ mixed
    sums = Sums()
    sums.add(x[None], products=True, whole=y[None])
    assert error(torch.cat([x, y], 1), torch.cat([corrected(weight, sums), -weight], 2), torch.zeros(1, 24, 32)) < (
        1e-3 * error(x, weight, torch.zeros_like(weight))
    )
    same = Sums()
    same.add(y[None], products=True, whole=y[None])
    assert torch.allclose(corrected(weight, same), weight, atol=1e-3)
    assert corrected(weight, Sums(products=y.T @ y)) is weight


def test_what_stays_is_refitted_to_the_least_squares_solution() -> None:
    x, weight = correlated()
    products = (x.double().T @ x.double())[None]
    begun = wanda(weight, x.square().sum(0)[None], 0.5)
    found = least_squares(weight, begun, products, damp=0)
    assert torch.equal(found == 0, begun == 0)
    for row in range(24):
        stays = begun[0, row] != 0
        wanted = torch.linalg.lstsq(x[:, stays].double(), x.double() @ weight[0, row].double()).solution
        ours, best = (
            x[:, stays].double() @ w.double() - x.double() @ weight[0, row].double()
            for w in (found[0, row, stays], wanted)
        )
        assert float(ours.square().sum()) < 1.001 * float(best.square().sum())


def test_shares_follow_what_weights_cost_the_loss(tmp_path: Path) -> None:
    """Of two linear layers side by side the one whose output counts ten times as much keeps more; counts are exact."""

    class Two(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.near, self.far = torch.nn.Linear(64, 40), torch.nn.Linear(64, 40)
            self.far.load_state_dict(self.near.state_dict())

        def forward(self, **batch: Tensor) -> dict[str, Tensor]:
            x = batch["image"].flatten(1)
            return {
                "label": 10 * self.near(x)[:, :4] + 10 * self.near(x)[:, 4:8] + self.far(x)[:, :4] + self.far(x)[:, 4:8]
            }

    run = Run(tmp_path)
    torch.default_generator.manual_seed(0)
    bundle = images_bundle(CONVNET).ready(run).with_model(Two())
    for by in ("sparsegpt", "corrected"):
        after = apply(Prune(by=by, scope="global", rows=48, sparsity=0.4), bundle.fork(), run)
        zeros = dict(after.notes["sparsity"])
        assert zeros["far"] > zeros["near"] + 0.05 and zeros["near"] + zeros["far"] == pytest.approx(0.8, abs=1e-3)
        assert max(zeros.values()) <= 0.951
    assert Prune(by="corrected", scope="global").facts(frozenset()).needs == {"model", "float", "split", "loss"}


@pytest.mark.parametrize("by", ["magnitude", "wanda", "sparsegpt", "corrected"])
@pytest.mark.parametrize("pattern", ["none", "2:4", "4:8"])
def test_the_step_prunes_every_layer_to_its_count(tmp_path: Path, by: Any, pattern: Any) -> None:
    run = Run(tmp_path)
    step = Prune(by=by, pattern=pattern, rows=32)
    before = images_bundle(CONVNET).ready(run)
    whole = {name: weight.detach().clone() for name, weight in prunable(before.model)}  # ty: ignore[invalid-argument-type]
    after = apply(step, before, run)
    assert after.model is not None and "by_magnitude" not in after.notes
    for name, weight in prunable(after.model):
        matrix = matrix_of(after.model.get_submodule(name), weight)
        share = float((matrix == 0).float().mean())
        assert abs(share - 0.5) < (0.06 if matrix.shape[2] % 8 else 1e-6), (name, share)
        if pattern != "none" and weight.dim() == 4 and weight.shape[1] % 8 == 0:
            of = int(pattern[2])
            assert ((weight == 0).unflatten(1, (-1, of)).sum(2) == of // 2).all(), "along the channels of each place"
        moved = float(((weight - whole[name]).abs() > 1e-7)[weight != 0].float().mean())
        assert (moved > 0.5) is (by in ("sparsegpt", "corrected")), (name, moved)
    loaded = Bundle.load(after.save(tmp_path / "bundle"))
    assert loaded.edits[-1].step == step and loaded.model is not None
    for (_, have), (_, want) in zip(prunable(loaded.model), prunable(after.model), strict=True):
        assert torch.equal(have, want)


def test_rows_are_needed_where_they_count_and_said_before_work(tmp_path: Path) -> None:
    run = Run(tmp_path)
    bundle = images_bundle(CONVNET).ready(run).without_data()
    for by in ("wanda", "sparsegpt", "corrected"):
        with pytest.raises(Refused, match="needs 'split'"):
            apply(Prune(by=by), bundle, run)
    assert apply(Prune(pattern="2:4"), bundle, run).edits


def test_settings_that_say_nothing_are_refused() -> None:
    for wrong in ({"scope": "global", "by": "wanda"}, {"scope": "global", "pattern": "2:4"}):
        with pytest.raises(ValidationError, match="counted in each layer"):
            Prune.model_validate(wrong)
    with pytest.raises(ValidationError, match="half of the weights"):
        Prune(pattern="2:4", sparsity=0.6)
