"""Weights of 2 to 8 bits and bfloat16: packed, small on disk, exported, and rounded by GPTQ and AWQ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from small_data import Run, bundle_of, images_bundle
from torch import Tensor, nn

from luodi.compress.prune import Prune, prunable
from luodi.compress.quantization.awq import awq, output_error
from luodi.compress.quantization.codes import nearest
from luodi.compress.quantization.gptq import gptq
from luodi.compress.quantization.grids import Grid, Lines
from luodi.compress.quantize import Quantize
from luodi.core.apply import apply
from luodi.core.bundle import Bundle
from luodi.core.catalog import resolve
from luodi.core.errors import Refused
from luodi.core.source import rows_of
from luodi.core.weights import fill, materialize, plain_tensors
from luodi.models.layers.stored.bits import bytes_of, packed, unpacked
from luodi.models.layers.stored.stores import Rounded

CONVNET = {"convnet": {"widths": [32, 64], "hidden": 64}}
WIDTHS = [2, 3, 4, 5, 6, 7, 8]


def correlated(seed: int = 0, columns: int = 48) -> tuple[Tensor, Tensor]:
    """(inputs (500, columns), weight (1, 20, columns)); some columns far larger than others."""
    dice = torch.Generator().manual_seed(seed)
    mixed = torch.randn(500, columns // 3, generator=dice) @ torch.randn(columns // 3, columns, generator=dice)
    sizes = torch.logspace(-0.7, 0.7, columns)[torch.randperm(columns, generator=dice)]
    x = (mixed + 0.5 * torch.randn(500, columns, generator=dice)) * sizes
    return x, torch.randn(1, 20, columns, generator=dice)


def error(x: Tensor, weight: Tensor, other: Tensor) -> float:
    return float((x @ (weight - other)[0].T).square().sum())


# ---- packing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("count", [1, 7, 8, 100])
def test_integers_come_back_from_their_bytes(bits: int, count: int) -> None:
    values = torch.randint(0, 2**bits, (3, count), generator=torch.Generator().manual_seed(bits))
    stream = packed(values, bits)
    assert stream.dtype == torch.uint8 and stream.shape == (3, bytes_of(count, bits))
    assert torch.equal(unpacked(stream, bits, count).long(), values)


@pytest.mark.parametrize("bits", WIDTHS)
def test_the_stream_is_the_integers_bits_one_after_the_other(bits: int) -> None:
    """Against numpy: lowest bits first, integer after integer."""
    values = np.arange(64) * 37 % 2**bits
    wanted = np.packbits(((values[:, None] >> np.arange(bits)) & 1).flatten().astype(np.uint8), bitorder="little")
    assert packed(torch.from_numpy(values), bits).tolist() == wanted.tolist()


def test_four_bits_are_two_a_byte() -> None:
    assert packed(torch.tensor([1, 2, 15, 0]), 4).tolist() == [0x21, 0x0F, 0, 0]


@pytest.mark.parametrize("by_row", [False, True])
@pytest.mark.parametrize("whole", [False, True])
def test_a_store_gives_what_its_grid_says_and_rows_of_it(by_row: bool, whole: bool) -> None:
    matrix = torch.randn(1, 6, 20, generator=torch.Generator().manual_seed(0))
    grid = Grid(3, "tensor" if whole else 8, symmetric=False)
    codes = nearest(matrix, grid)
    store = Rounded((6, 4, 5), 3, grid.size(20), whole=whole, zeros=True, by_row=by_row)
    codes.into(store)
    assert torch.equal(store(), codes.real().reshape(6, 4, 5))
    assert torch.equal(store(), grid.rounded(matrix, codes.lines).reshape(6, 4, 5))
    if by_row:
        assert torch.equal(store.looked_up(torch.tensor([[4, 0]])), codes.real()[:, [4, 0]])


# ---- grids -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group", ["channel", "tensor", 7])
@pytest.mark.parametrize("bits", WIDTHS)
def test_rounding_stays_within_half_a_step_and_keeps_zero(bits: int, group: Any, symmetric: bool) -> None:
    matrix = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(0)) + (0 if symmetric else 0.4)
    matrix[:, :, ::5] = 0
    grid = Grid(bits, group, symmetric)
    lines = grid.fitted(matrix)
    found = grid.rounded(matrix, lines)
    steps = ((found - matrix) / grid.spread(lines.scale, 24)).abs()
    # At the ends of the range a number may lie half a step beyond it, and the scale is rounded to three digits.
    assert float(steps.max()) < (0.5 + 2**bits * 2**-8 + (0 if symmetric else 0.5))
    assert float((steps <= 0.5 + 1e-4).float().mean()) > 0.8
    assert torch.equal(found == 0, (found == 0) | (matrix == 0)) and (found[matrix == 0] == 0).all()
    assert torch.equal(lines.scale, lines.scale.bfloat16().float())


# ---- GPTQ and AWQ ----------------------------------------------------------------------------------------------------


def slow_gptq(matrix: Tensor, products: Tensor, grid: Grid) -> Tensor:
    """Rounding one weight at a time, all that follow moved to the optimum by solving for them anew, in float64.

    After columns 0..c are settled at Q, the others minimise |x (Q + rest - W)|^2: rest = W + H_rr^-1 H_rc (W - Q).
    """
    h = products.double() + 0.01 * products.double().diagonal().mean() * torch.eye(len(products))
    w = matrix.double()
    now, settled, count = w.clone(), w.clone(), w.shape[1]
    lines: Any = None
    for c in range(count):
        if lines is None or (isinstance(grid.group, int) and c % grid.group == 0):
            span = now if not isinstance(grid.group, int) else now[:, c : c + grid.group]
            lines = [line[0, :, 0].double() for line in grid.fitted(span[None].float())]
        scale, zero = lines
        whole = ((now[:, c] / scale).round() + zero).clamp(0, grid.most)
        settled[:, c] = torch.where(matrix[:, c] == 0, 0.0, (whole - zero) * scale)
        gone, left = slice(0, c + 1), slice(c + 1, count)
        if c + 1 < count:
            move = torch.linalg.solve(h[left, left], h[left, gone] @ (w - settled)[:, gone].T)
            now[:, left] = w[:, left] + move.T
    return settled


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group", ["channel", 16])
def test_gptq_is_the_slow_direct_way(group: Any, symmetric: bool) -> None:
    x, weight = correlated()
    weight[0, :, 7] = 0
    grid = Grid(4, group, symmetric)
    products = x.double().T @ x.double()
    for block in (128, 8, 20):
        integers, lines = gptq(weight, products[None], grid, block=block)
        found, wanted = grid.real(integers, lines)[0].double(), slow_gptq(weight[0], products, grid)
        same = (found - wanted).abs() < 1e-4
        assert float(same.double().mean()) > 0.97, "a tie of the rounding may fall to the other side"
        assert (found[:, 7] == 0).all()


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group", ["channel", "tensor", 16])
def test_gptq_and_awq_lose_less_than_the_nearest(bits: int, group: Any) -> None:
    x, weight = correlated()
    products, sizes = (x.T @ x)[None], x.abs().sum(0)[None]
    grid = Grid(bits, group, symmetric=False)
    plain = error(x, weight, nearest(weight, grid).real())
    for columns in ("stored", "largest"):
        found = grid.real(*gptq(weight, products, grid, columns))  # ty: ignore[invalid-argument-type]
        assert error(x, weight, found) < 0.7 * plain
    factors = awq(weight, products, sizes, grid)
    scaled = weight * factors
    assert error(x, weight, grid.rounded(scaled, grid.fitted(scaled)) / factors) < plain
    assert float((factors.max() * factors.min()).log().abs()) < 1e-4


def test_the_largest_columns_come_first_on_grids_fitted_before() -> None:
    x, weight = correlated()
    products, grid = (x.T @ x)[None], Grid(3, 16, symmetric=False)
    order = x.square().sum(0).argsort(descending=True)
    lines = grid.fitted(weight)
    spread = Lines(*(grid.spread(line, 48)[:, :, order] for line in lines))
    wanted, _ = gptq(weight[:, :, order], products[:, order][:, :, order], Grid(3, 1), lines=spread)
    found, same = gptq(weight, products, grid, "largest")
    assert torch.equal(found[:, :, order], wanted) and torch.equal(same.scale, lines.scale)


def test_awqs_error_is_that_of_the_outputs() -> None:
    x, weight = correlated()
    other = nearest(weight, Grid(3)).real()
    assert float(output_error(weight - other, (x.T @ x)[None]).sum()) == pytest.approx(
        error(x, weight, other), rel=1e-4
    )


# ---- the step --------------------------------------------------------------------------------------------------------

VARIANTS: list[dict[str, Any]] = [
    *({"weights": f"int{bits}", "group": 16} for bits in WIDTHS),
    {"weights": "int4", "group": "tensor", "grid": "asymmetric"},
    {"weights": "int3", "grid": "asymmetric"},
    {"weights": "int4", "group": 32, "by": "gptq", "grid": "asymmetric"},
    {"weights": "int4", "group": 32, "by": "gptq", "columns": "largest"},
    {"weights": "int4", "group": 32, "by": "awq"},
    {"weights": "int5", "tables": "same"},
    {"weights": "int3", "group": 32, "by": "corrected", "grid": "asymmetric"},
    {"weights": "bf16"},
]


def closed_form(after: Bundle, step: Quantize) -> int:
    """Bytes of all layers that were changed, from widths and groups alone; the others as float32."""
    assert after.model is not None
    total = 0
    for name, kind in dict(after.notes["layers"]).items():
        layer: Any = after.model.get_submodule(name)
        rows, columns = layer.weight.shape[0], layer.weight[0].numel()
        bits = {"bf16": 16, "int8": 8}.get(kind.split()[0]) or int(kind[0])
        groups = 0 if bits == 16 else 1 if step.group == "tensor" else rows
        if isinstance(step.group, int) and kind[0] != "i":
            groups = rows * -(-columns // step.group)
        each = 0 if bits == 16 else 4 if kind.startswith("int8") else 3 if step.grid == "asymmetric" else 2
        total += rows * columns * bits // 8 + groups * each
        total += 4 * columns if step.by == "awq" and "embedding" not in kind else 0
        total += 4 * rows if getattr(layer, "bias", None) is not None else 0
    return total


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_a_saved_bundle_is_as_small_as_its_numbers_and_answers_bit_for_bit(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    run, step = Run(tmp_path), Quantize.model_validate({**settings, "rows": 32})
    before = images_bundle(CONVNET).ready(run)
    arrays = before.task.encode(before.task.examples(6, 0))
    whole = before.fork().predictor().forward(arrays)["label"]
    after = apply(step, before, run)
    assert "float" not in after.facts and "nearest" not in after.notes
    loaded = Bundle.load(after.save(tmp_path / "small"))
    have, want = loaded.predictor().forward(arrays)["label"], after.predictor().forward(arrays)["label"]
    assert (have == want).all() and loaded.edits[-1].step == step
    bits = step.bits
    assert abs(want - whole).max() < {2: 3.0, 3: 0.8, 4: 0.4}.get(bits, 4.0 * 2.0**-bits + 0.03) * abs(whole).max()
    file = tmp_path / "small" / "weights.safetensors"
    header = 8 + int.from_bytes(file.read_bytes()[:8], "little")
    size = file.stat().st_size - header
    norms = sum(p.numel() * 4 for n, p in after.model.named_parameters())  # ty: ignore[unresolved-attribute]
    other = sum(b.numel() * b.element_size() for n, b in after.model.named_buffers() if "running" in n or "num_b" in n)  # ty: ignore[unresolved-attribute]
    assert size == pytest.approx(closed_form(after, step) + norms + other, rel=0.03)


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_a_fresh_model_takes_the_plan_on_the_meta_device(settings: dict[str, Any]) -> None:
    def fresh() -> nn.Module:
        return nn.Sequential(nn.Embedding(9, 8), nn.Conv1d(5, 4, 3), nn.Flatten(), nn.Linear(24, 5), nn.Linear(5, 2))

    step, task = Quantize.model_validate(settings), images_bundle(CONVNET).task
    torch.default_generator.manual_seed(0)
    model = step.restore(task, (begun := fresh()), step.plan(begun)[0])
    with torch.device("meta"):
        blank = fresh()
        again = step.restore(task, blank, step.plan(blank)[0])
    tensors, aliases = plain_tensors(model)
    filled = fill(materialize(again, "cpu"), tensors, aliases, Path("x"))
    ids = torch.randint(0, 9, (3, 5))
    assert torch.equal(filled(ids), model(ids))


@pytest.mark.parametrize("to", ["onnx", "openvino"])
@pytest.mark.parametrize("settings", [VARIANTS[at] for at in (1, 9, 11, 14)], ids=str)
def test_exported_it_answers_as_in_torch_and_stays_small(tmp_path: Path, to: str, settings: dict[str, Any]) -> None:
    run = Run(tmp_path)
    after = apply(Quantize.model_validate({**settings, "rows": 32}), images_bundle(CONVNET).ready(run), run)
    saved = (after.save(tmp_path / "small") / "weights.safetensors").stat().st_size
    form = apply(resolve("steps", {"export": {"to": to}}), after, run).forms[to]
    assert form.drift < 1e-5 and form.arithmetic == "float32"
    size = sum(file.stat().st_size for file in form.folder.glob("model.*n*"))
    assert size < saved + 15_000  # of which the graph itself is about 10,000


def test_pruned_weights_stay_zero_however_they_are_rounded(tmp_path: Path) -> None:
    run = Run(tmp_path)
    pruned = apply(Prune(by="sparsegpt", rows=32), images_bundle(CONVNET).ready(run), run)
    assert pruned.model is not None
    zeros = {name: weight == 0 for name, weight in prunable(pruned.model)}
    for settings in VARIANTS:
        after = apply(Quantize.model_validate({**settings, "rows": 32}), pruned.fork(), run)
        assert after.model is not None
        for name, gone in zeros.items():
            layer: Any = after.model.get_submodule(name)
            assert bool((layer.weight[gone] == 0).all()), (settings, name)


def test_eight_bits_of_random_weights_move_outputs_by_two_percent_at_most() -> None:
    dice = torch.Generator().manual_seed(0)
    for shape, group in (((256, 256), "channel"), ((64, 300), 32), ((64, 300), "tensor")):
        weight = torch.randn(1, *shape, generator=dice)
        x = torch.randn(100, shape[1], generator=dice)
        for symmetric in (True, False):
            other = nearest(weight, Grid(8, group, symmetric)).real()
            assert error(x, weight, other) ** 0.5 < 0.02 * float((x @ weight[0].T).norm())


def test_rows_are_needed_where_they_count_and_said_before_work(tmp_path: Path) -> None:
    run = Run(tmp_path)
    bundle = images_bundle(CONVNET).ready(run).without_data()
    for by in ("gptq", "awq", "corrected"):
        with pytest.raises(Refused, match="needs 'split'"):
            apply(Quantize(weights="int4", by=by), bundle, run)
    assert apply(Quantize(weights="int4"), bundle, run).edits


def test_settings_that_say_nothing_are_refused() -> None:
    with pytest.raises(ValidationError, match="bf16 has no scales"):
        Quantize(weights="bf16", group=32)
    with pytest.raises(ValidationError, match="plain int8 weights"):
        Quantize(weights="int4", activations="int8")


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.out = nn.Embedding(50, 24), nn.Linear(24, 50)
        self.out.weight = self.words.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(self.words(ids))


@pytest.mark.parametrize(("settings", "kinds"), [
    ({"weights": "int4"}, ("int8 embedding", "int8 linear of the table words")),
    ({"weights": "int4", "tables": "same", "group": 8}, ("4-bit embedding", "4-bit linear of the table words")),
    ({"weights": "bf16"}, ("bf16 embedding", "bf16 linear of the table words")),
])  # fmt: skip
def test_what_is_tied_to_a_table_stays_tied(settings: dict[str, Any], kinds: tuple[str, str]) -> None:
    step, model = Quantize.model_validate(settings), Tied()
    wanted = model(ids := torch.randint(0, 50, (2, 9), generator=torch.Generator().manual_seed(0)))
    plan, left = step.plan(model)
    assert (plan["words"], plan["out"]) == kinds and left == {}
    after: Any = step.restore(images_bundle(CONVNET).task, model, plan)
    assert after.out.table is after.words
    assert float((after(ids) - wanted).detach().abs().max()) < 0.35 * float(wanted.detach().abs().max())


def test_a_language_model_is_rounded_by_what_it_reads(tmp_path: Path) -> None:
    lines = [f"the {a} {b} saw the {c}" for a in ("old", "red", "new") for b in ("cat", "dog") for c in ("sun", "sea")]
    task = {"language": {"inputs": {"text": {"text": {"tokens": "character", "length": 24}}}}}
    config = {"gpt": {"layers": 2, "width": 32, "heads": 2, "context": 24}}
    run = Run(tmp_path)
    bundle = bundle_of(task, config, rows_of({"text": lines * 4})).ready(run)
    arrays = bundle.task.encode(bundle.task.rows_to_requests(rows_of({"text": lines})))
    wanted = bundle.fork().predictor().forward(arrays)["text"]

    def moved(**settings: Any) -> float:
        after = apply(Quantize.model_validate({"weights": "int3", "group": 16, **settings}), bundle.fork(), run)
        return float(np.square(after.predictor().forward(arrays)["text"] - wanted).sum())

    plain = moved()
    assert moved(by="gptq") < 0.8 * plain and moved(by="awq") < plain
    assert moved(by="corrected", rows=48) < 0.8 * plain
