"""Magnitude pruning: exact counts, the right weights, nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from small_data import Run, images_bundle
from torch import nn
from torch.nn.utils import prune as oracle

from luodi.compress.prune import Prune, prunable
from luodi.core.apply import apply
from luodi.core.bundle import Bundle

CONVNET = {"convnet": {"widths": [4, 8], "hidden": 16}}


def network() -> nn.Sequential:
    torch.default_generator.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(24, 10), nn.Linear(10, 3))


def pruned(model: nn.Module, step: Prune, run: Run) -> nn.Module:
    bundle = images_bundle(CONVNET).with_model(model)
    made = step(bundle, run).model
    assert made is not None
    return made


def ready(run: Run) -> Bundle:
    return images_bundle(CONVNET).ready(run)


def test_each_layer_loses_what_torch_prune_removes(tmp_path: Path) -> None:
    before, after = network(), pruned(network(), Prune(sparsity=0.7), Run(tmp_path))
    for index in (0, 3, 4):
        oracle.l1_unstructured(before[index], "weight", amount=0.7)
        assert torch.equal(after[index].weight, before[index].weight)
        assert torch.equal(after[index].bias, before[index].bias)


def test_global_scope_removes_what_torch_prune_removes_globally(tmp_path: Path) -> None:
    before, after = network(), pruned(network(), Prune(sparsity=0.6, scope="global"), Run(tmp_path))
    layers = [before[index] for index in (0, 3, 4)]
    oracle.global_unstructured([(layer, "weight") for layer in layers], oracle.L1Unstructured, amount=0.6)
    for index in (0, 3, 4):
        assert torch.equal(after[index].weight, before[index].weight)
    share = {index: float((after[index].weight == 0).float().mean()) for index in (0, 3, 4)}
    assert share[0] < 0.6 < share[3], "wide layers have smaller weights and lose more of them"


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5, 0.99])
def test_ties_do_not_change_the_count(tmp_path: Path, scope: str, sparsity: float) -> None:
    model = network()
    with torch.no_grad():
        for _, weight in prunable(model):
            weight.fill_(-0.5)
    after = pruned(model, Prune(sparsity=sparsity, scope=scope), Run(tmp_path))
    sizes = {name: weight.numel() for name, weight in prunable(after)}
    zeros = {name: int((weight == 0).sum()) for name, weight in prunable(after)}
    if scope == "layer":
        assert zeros == {name: round(sparsity * size) for name, size in sizes.items()}
    else:
        assert sum(zeros.values()) == round(sparsity * sum(sizes.values()))


def test_a_shared_weight_is_pruned_once_and_embeddings_stay(tmp_path: Path) -> None:
    model = nn.ModuleDict({"words": nn.Embedding(7, 4), "head": nn.Linear(4, 7, bias=False), "twin": nn.Linear(4, 7)})
    model["twin"].weight = model["head"].weight
    words = model["words"].weight.detach().clone()
    assert [name for name, _ in prunable(model)] == ["head"]
    after = pruned(model, Prune(sparsity=0.5, scope="global"), Run(tmp_path))
    assert int((after["twin"].weight == 0).sum()) == 14
    assert torch.equal(after["words"].weight, words)


def test_the_step_reports_each_layer_and_its_edit_changes_no_shape(tmp_path: Path) -> None:
    run = Run(tmp_path)
    after = apply(Prune(sparsity=0.5), ready(run), run)
    assert after.edits[-1].step == Prune(sparsity=0.5)
    assert after.edits[-1].plan == {}
    assert after.notes["sparsity"] == pytest.approx(dict.fromkeys(after.notes["sparsity"], 0.5), abs=0.02)
    assert len(after.notes["sparsity"]) == 4
    loaded = Bundle.load(after.save(tmp_path / "bundle"))
    assert after.model is not None
    assert loaded.model is not None
    for (_, have), (_, want) in zip(prunable(loaded.model), prunable(after.model), strict=True):
        assert torch.equal(have, want)


def test_pruning_needs_float_weights() -> None:
    assert Prune().facts(frozenset({"model"})).needs == {"model", "float"}


@pytest.mark.parametrize("sparsity", [-0.1, 1.0])
def test_sparsity_out_of_range_is_refused(sparsity: float) -> None:
    with pytest.raises(ValidationError, match="sparsity"):
        Prune(sparsity=sparsity)
