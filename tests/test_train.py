from __future__ import annotations

import json
import math
import multiprocessing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_data import BOTH, SIDES, bundle_of, image_rows, images_bundle, sha, table_bundle, table_rows
from torch import nn

from luodi.core.bundle import Edit
from luodi.core.errors import LuodiError
from luodi.core.run import Run
from luodi.core.thing import WrongThing, dump, make
from luodi.train.loop.gradients import backward, mean_loss
from luodi.train.loop.precision import Arithmetic

CONVNET = {"convnet": {"widths": [4, 8], "hidden": 16, "dropout": 0.2}}
MLP = {"mlp": {"hidden": [16]}}


def trained(bundle, tmp_path, run=None, **fields):
    return make("steps", {"train": {"batch_size": 32, **fields}})(bundle, run or Run(tmp_path))


# ---- the step -------------------------------------------------------------------------------------


def test_learns_images_and_reports(tmp_path):
    events = []
    run = Run(tmp_path, log=lambda event, facts: events.append((event, dict(facts))))
    bundle = trained(images_bundle(CONVNET), tmp_path, run, epochs=12, learning_rate=0.01)
    history = bundle.notes["history"]
    assert history[-1]["validation"]["label.accuracy"] >= 0.95
    assert history[-1]["train_loss"] < 0.3 < history[0]["train_loss"]
    assert [entry["epoch"] for entry in history] == list(range(1, 13))
    assert set(history[0]) == {"epoch", "train_loss", "validation_loss", "validation", "learning_rate", "seconds"}
    assert {"model", "float", "fitted", "exposed"} <= bundle.facts
    assert [type(edit.step).__name__ for edit in bundle.edits] == ["Train"] and bundle.edits[0].plan == {}
    assert [facts["epoch"] for event, facts in events if event == "epoch"] == list(range(1, 13))
    done = [(facts["done"], facts["total"]) for event, facts in events if event == "progress"]
    assert done[-1] == (36, 36) and done == sorted(done)
    assert json.loads(json.dumps(history)) == history
    assert not (tmp_path / "checkpoint").exists()
    assert bundle.model is not None and not bundle.model.training


def test_validation_is_what_the_task_says(tmp_path):
    bundle = trained(images_bundle(CONVNET), tmp_path, epochs=2)
    exam = bundle.task.examine(bundle.predictor(), bundle.data["validation"], math.inf)
    last = bundle.notes["history"][-1]
    assert last["validation"]["label.accuracy"] == bundle.task.score(exam)["label.accuracy"]
    assert last["validation_loss"] == pytest.approx(bundle.task.score(exam)["label.loss"], rel=1e-4)


def test_same_seed_same_bits_other_seed_other_bits(tmp_path):
    fields = {"epochs": 1, "augment": ["affine"]}
    one, two = (sha(trained(images_bundle(CONVNET), tmp_path / name, **fields)) for name in "ab")
    other = sha(trained(images_bundle(CONVNET), tmp_path / "c", Run(tmp_path / "c", seed=1), **fields))
    assert one == two != other


def test_draws_do_not_depend_on_what_ran_before(tmp_path):
    one = sha(trained(images_bundle(CONVNET), tmp_path / "a", epochs=1))
    torch.rand(1000)
    np.random.rand(7)
    assert sha(trained(images_bundle(CONVNET), tmp_path / "b", epochs=1)) == one


def test_batches_read_when_due_give_the_same_bits(tmp_path):
    held = trained(images_bundle(CONVNET), tmp_path / "a", epochs=2)
    read = trained(images_bundle(CONVNET), tmp_path / "b", epochs=2, hold_mb=0.001)
    assert "held in memory" in held.notes["examples"] and "batch by batch" in read.notes["examples"]
    assert sha(held) == sha(read)


def test_torch_is_left_as_it_was(tmp_path):
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    filling = torch.utils.deterministic.fill_uninitialized_memory
    bundle = trained(images_bundle(CONVNET), tmp_path, epochs=1)
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (threads, strict)
    assert torch.utils.deterministic.fill_uninitialized_memory == filling
    assert all(tensor.is_contiguous() for tensor in bundle.model.state_dict().values())


def test_a_rehearsal_is_a_handful_of_updates(tmp_path):
    bundle = trained(table_bundle(SIDES, MLP, 640), tmp_path, Run(tmp_path, rehearse=True), epochs=50, batch_size=8)
    assert bundle.notes["updates"] == 8 and len(bundle.notes["history"]) == 1


def test_pruned_weights_stay_zero_unless_refilled(tmp_path):
    bundle = trained(table_bundle(SIDES, MLP), tmp_path / "a", epochs=1)
    first, bias = bundle.model.layers[0].weight, bundle.model.layers[0].bias
    with torch.no_grad():
        first[first.abs() < first.abs().median()] = 0
        bias[0] = 0
    pruned = (first == 0).clone()
    start = bundle.fork()
    notes = []
    run = Run(tmp_path / "b", log=lambda event, facts: notes.append(facts.get("text")))
    pruned_by = Edit(step=make("steps", "prune"))
    bundle, found = replace(bundle, edits=(*bundle.edits, pruned_by)), start.fork()
    kept = trained(bundle, tmp_path, run, epochs=3, clip=0.5, learning_rate=0.01)
    assert f"{int(pruned.sum())} pruned weights stay zero (zeros: refill lets them grow again)" in notes
    after = kept.model.layers[0]
    assert torch.equal(after.weight == 0, pruned) and after.bias[0] != 0
    assert not torch.equal(after.weight, start.model.layers[0].weight)
    refilled = trained(start, tmp_path / "c", epochs=1, zeros="refill")
    assert (refilled.model.layers[0].weight != 0).all()
    grown = trained(found, tmp_path / "d", epochs=1)  # nobody pruned it: the zeros came with the weights
    assert (grown.model.layers[0].weight != 0).all()


def test_patience_ends_early_and_brings_the_best_weights_back(tmp_path):
    train, validation = table_rows(48, 0), table_rows(48, 1)
    labels = np.random.default_rng(0).permutation(validation.column("side")).tolist()  # nothing can be learned of them
    shuffled = type(validation)(validation.table.set_column(validation.columns.index("side"), "side", [labels]))
    bundle = bundle_of(SIDES, {"mlp": {"hidden": [64]}}, train, shuffled)
    done = trained(bundle, tmp_path, epochs=60, learning_rate=0.02, patience=3, watch="loss")
    history = done.notes["history"]
    losses = [entry["validation_loss"] for entry in history]
    best = int(np.argmin(losses))
    assert len(history) == best + 1 + 3 < 60 and done.notes["best_epoch"] == best + 1
    exam = done.task.examine(done.predictor(), shuffled, math.inf)
    assert done.task.score(exam)["side.loss"] == pytest.approx(losses[best], rel=1e-4)
    assert losses[-1] > losses[best]


def test_patience_without_validation_rows_is_refused(tmp_path):
    with pytest.raises(LuodiError, match="validation share"):
        trained(bundle_of(SIDES, MLP, table_rows(32, 0)), tmp_path, patience=2)


def test_a_loss_that_is_no_number_stops_and_says_where(tmp_path):
    with pytest.raises(
        LuodiError, match=r"the loss became (nan|inf) at update \d+ of 40 \(epoch \d+\); try a learning"
    ):
        trained(
            table_bundle(BOTH, MLP), tmp_path, epochs=10, learning_rate=1e18, schedule="constant", update={"sgd": {}}
        )


def test_facts_and_objection():
    train = make("steps", {"train": {"augment": ["affine"]}})
    assert train.facts(frozenset()).needs == {"split", "loss"}
    assert train.facts(frozenset({"model"})).needs == {"split", "loss", "float"}
    task = make("tasks", SIDES)  # not fitted: objections come before any work
    assert "affine changes an image" in train.objection(task, None)
    assert make("steps", "train").objection(task, None) is None
    assert train.objection(images_bundle(CONVNET).task, None) is None


def test_config_round_trip_and_mistakes():
    step = make("steps", {"train": {"augment": [{"affine": {"degrees": 5}}], "update": {"sgd": {"momentum": 0.5}}}})
    assert make("steps", dump(step)) == step and make("steps", dump(step, short=True)) == step
    for fields in ({"epochs": 0}, {"update": "adamx"}, {"zeros": "lose"}, {"epoch": 3}):
        with pytest.raises(WrongThing):
            make("steps", {"train": fields})


# ---- gradients ------------------------------------------------------------------------------------


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.unused = nn.Linear(3, 1).double(), nn.Linear(3, 1).double(), nn.Linear(1, 1).double()


def _two_losses(model, batch, truth):
    x = batch["x"]
    return {
        "a": ((model.a(x).flatten() - truth["a"]) ** 2, truth["wa"], 1.0),
        "b": ((model.b(model.a(x) + x).flatten() - truth["b"]) ** 2, truth["wb"], 0.25),
    }


def _two_batch(count):
    dice = np.random.default_rng(0)
    truth = {name: torch.from_numpy(dice.normal(size=count)) for name in "ab"}
    masks = {
        f"w{name}": torch.from_numpy((dice.random(count) < share) * 1.0) for name, share in (("a", 0.9), ("b", 0.3))
    }
    truth["a"], truth["b"] = truth["a"] * masks["wa"], truth["b"] * masks["wb"]
    return {"x": torch.from_numpy(dice.normal(size=(count, 3)))}, truth | masks


def _masked(model, batch, truth):
    return {
        name: (each * weights, weights, share)
        for name, (each, weights, share) in _two_losses(model, batch, truth).items()
    }


def test_accumulated_gradients_are_those_of_the_whole_batch():
    torch.manual_seed(0)
    model, (inputs, truth) = TwoHeads(), _two_batch(37)
    loss = backward(_masked, model, list(model.parameters()), [(inputs, truth)], 1, Arithmetic("fp32", "cpu"))
    whole = [p.grad.clone() for p in (*model.a.parameters(), *model.b.parameters())]
    pieces = [({"x": inputs["x"][at]}, {k: v[at] for k, v in truth.items()}) for at in torch.arange(37).split(10)]
    again = backward(_masked, model, list(model.parameters()), pieces, 1, Arithmetic("fp32", "cpu"))
    parts = [p.grad for p in (*model.a.parameters(), *model.b.parameters())]
    assert torch.allclose(loss, again, rtol=1e-12)
    for one, other in zip(whole, parts, strict=True):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-15)
    each = _two_losses(model, inputs, truth)
    expected = sum(float(((e * w).sum() / w.sum()).detach()) * s for e, w, s in each.values())
    assert float(loss) == pytest.approx(expected, rel=1e-12)


def test_a_batch_without_weight_has_no_loss():
    zero = torch.zeros(4, requires_grad=True)
    assert float(mean_loss({"a": (zero * 1, torch.zeros(4), 1.0)}).detach()) == 0.0


def test_accumulation_trains_as_the_larger_batch_does(tmp_path):
    whole = trained(table_bundle(BOTH, MLP), tmp_path / "a", epochs=2, batch_size=32)
    parts = trained(table_bundle(BOTH, MLP), tmp_path / "b", epochs=2, batch_size=8, accumulate=4)
    assert whole.notes["updates"] == parts.notes["updates"] == 8
    for one, other in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        assert torch.allclose(one, other, atol=2e-5)


def _rank(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    run = Run(Path(folder) / "run", rank=rank, world=2)
    done = trained(table_bundle(BOTH, MLP, 100), run.out, run, epochs=2, batch_size=16)  # the last update has 4 rows
    save_file(done.model.state_dict(), f"{folder}/{rank}.safetensors")
    torch.distributed.destroy_process_group()


def test_two_processes_train_as_one_with_their_rows_together(tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "luodi.train.loop.fit", "luodi.tasks.supervised"])
    ranks = [context.Process(target=_rank, args=(rank, str(tmp_path))) for rank in (0, 1)]
    for process in ranks:
        process.start()
    whole = trained(table_bundle(BOTH, MLP, 100), tmp_path / "whole", epochs=2, batch_size=32)
    for process in ranks:
        process.join()
    one, two = (load_file(tmp_path / f"{rank}.safetensors") for rank in (0, 1))
    for name, expected in whole.model.state_dict().items():
        assert torch.equal(one[name], two[name]) and torch.allclose(one[name], expected, atol=2e-5)


def test_clip_is_the_norm_of_the_whole_gradient(tmp_path):
    bundle = table_bundle(SIDES, MLP).ready(Run(tmp_path))
    before = [p.detach().clone() for p in bundle.model.parameters()]
    plain = {"update": {"sgd": {"momentum": 0}}, "schedule": "constant", "learning_rate": 1.0}
    done = trained(bundle, tmp_path, epochs=1, batch_size=128, clip=1e-3, **plain)
    moved = torch.cat([(a - b).flatten() for a, b in zip(before, done.model.parameters(), strict=True)])
    assert float(moved.detach().norm()) == pytest.approx(1e-3, rel=1e-2)


# ---- updates, in float64 against their formulas ---------------------------------------------------


class Curved(nn.Module):
    """A weight that decays and a bias and a scale that do not; its loss is sum(w**2 * c) + sum(b**3) + sum(n**2)."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.float64))
        self.bias = nn.Parameter(torch.tensor([0.7, -0.4], dtype=torch.float64))
        self.norm = nn.LayerNorm((2, 2), bias=False).double()

    def loss(self):
        c = torch.tensor([[1.0, 0.5], [2.0, 0.1]], dtype=torch.float64)
        return (self.weight**2 * c).sum() + (self.bias**3).sum() + (self.norm.weight**2).sum()


def _slopes(w):
    return {
        "weight": 2 * w["weight"] * np.array([[1.0, 0.5], [2.0, 0.1]]),
        "bias": 3 * w["bias"] ** 2,
        "norm": 2 * w["norm"],
    }


def _five_steps(update, formula):
    model = Curved()
    w = {
        "weight": model.weight.detach().numpy().copy(),
        "bias": model.bias.detach().numpy().copy(),
        "norm": np.ones((2, 2)),
    }
    mover, memory = make("updates", update).build(model), {name: {} for name in w}
    for step in range(1, 6):
        model.zero_grad()
        model.loss().backward()
        mover.move(0.1)
        slopes = _slopes(w)
        for name in w:
            w[name] = formula(w[name], slopes[name], memory[name], step, 0.3 if name == "weight" else 0.0)
        for name, parameter in (("weight", model.weight), ("bias", model.bias), ("norm", model.norm.weight)):
            np.testing.assert_allclose(parameter.detach().numpy(), w[name], rtol=1e-10)


def _adam(w, g, memory, step, decay, rate=0.1, one=0.8, two=0.95, eps=1e-6):
    memory["m"] = one * memory.get("m", 0) + (1 - one) * g
    memory["v"] = two * memory.get("v", 0) + (1 - two) * g * g
    return w - rate * (memory["m"] / (1 - one**step)) / (np.sqrt(memory["v"] / (1 - two**step)) + eps)


def test_adamw_five_steps():
    fields = {"betas": [0.8, 0.95], "epsilon": 1e-6, "weight_decay": 0.3}
    _five_steps({"adamw": fields}, lambda w, g, memory, step, decay: _adam(w * (1 - 0.1 * decay), g, memory, step, 0))


def test_adam_five_steps():
    fields = {"betas": [0.8, 0.95], "epsilon": 1e-6, "weight_decay": 0.3}
    _five_steps({"adam": fields}, lambda w, g, memory, step, decay: _adam(w, g + decay * w, memory, step, 0))


@pytest.mark.parametrize("variant", ["plain", "nesterov"])
def test_sgd_five_steps(variant):
    def formula(w, g, memory, step, decay):
        g = g + decay * w
        memory["v"] = 0.8 * memory.get("v", 0) + g
        return w - 0.1 * (g + 0.8 * memory["v"] if variant == "nesterov" else memory["v"])

    _five_steps({"sgd": {"momentum": 0.8, "variant": variant, "weight_decay": 0.3}}, formula)


# ---- schedules ------------------------------------------------------------------------------------


def test_schedules_have_their_stated_values():
    cosine = make("schedules", {"cosine": {"warmup": 0.1, "floor": 0.2}})
    assert [cosine.factor(step, 100) for step in (0, 4, 9, 10)] == pytest.approx([0.1, 0.5, 1.0, 1.0])
    assert cosine.factor(55, 100) == pytest.approx(0.2 + 0.8 * 0.5)
    assert cosine.factor(99, 100) == pytest.approx(0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi * 89 / 90)))
    assert make("schedules", "cosine").factor(0, 1) == 1.0
    constant = make("schedules", {"constant": {"warmup": 0.5}})
    assert [constant.factor(step, 4) for step in range(4)] == [0.5, 1.0, 1.0, 1.0]
    assert make("schedules", "constant").factor(0, 4) == 1.0


def test_the_learning_rate_follows_the_schedule(tmp_path):
    fields = {"epochs": 4, "learning_rate": 0.02, "schedule": {"cosine": {"warmup": 0}}}
    history = trained(table_bundle(SIDES, MLP), tmp_path, **fields).notes["history"]
    expected = [0.02 * 0.5 * (1 + math.cos(math.pi * (4 * epoch - 1) / 16)) for epoch in (1, 2, 3, 4)]
    assert [entry["learning_rate"] for entry in history] == pytest.approx(expected)


# ---- affine ---------------------------------------------------------------------------------------


def _warp(images, fill="border", **changes):
    from luodi.train.loop.augments.image.affine import moved, origins_of

    values = {"angle": 0.0, "lean": 0.0, "size": 1.0, "right": 0.0, "down": 0.0} | changes
    tensors = [torch.full((len(images),), values[name], dtype=torch.float64) for name in values]
    origins = origins_of(*tensors, images.shape[-2] / images.shape[-1])
    return moved(torch.from_numpy(images), origins.to(torch.from_numpy(images)), fill).numpy()


def _pictures(height, width):
    return np.random.default_rng(0).normal(size=(3, 2, height, width))


def test_affine_with_no_range_changes_no_bit():
    images = torch.from_numpy(_pictures(9, 9)).float()
    still = make("augments", {"affine": {"degrees": 0, "shift": 0, "scale": 0, "shear": 0}})
    assert torch.equal(still.apply(images, torch.Generator().manual_seed(1)), images)


def test_affine_turns_counter_clockwise():
    images = _pictures(8, 8)
    for turns in (1, 2, 3):
        np.testing.assert_allclose(_warp(images, angle=90.0 * turns), np.rot90(images, turns, axes=(2, 3)), atol=1e-9)


def test_affine_turns_a_wide_image_without_squashing_it():
    images = np.zeros((1, 1, 5, 11))
    images[0, 0, 2, 3:8] = 1.0  # a bar of five pixels stands up, five pixels high
    expected = np.zeros_like(images)
    expected[0, 0, :, 5] = 1.0
    np.testing.assert_allclose(_warp(images, angle=90.0), expected, atol=1e-9)


def test_affine_shifts_by_whole_pixels():
    images = _pictures(8, 10)
    moved = _warp(images, right=0.2, down=-0.25)  # two pixels to the right, two up
    np.testing.assert_allclose(moved[:, :, :-2, 2:], images[:, :, 2:, :-2], atol=1e-9)
    np.testing.assert_allclose(moved[:, :, -1, 2:], images[:, :, -1, :-2], atol=1e-9)  # border: the nearest pixel
    assert (_warp(images, fill="zero", right=0.2)[:, :, :, :2] == 0).all()


def test_affine_scales_and_shears():
    rows, columns = np.mgrid[0:12, 0:12] - 5.5
    ramp = np.stack([rows, columns])[None].astype(np.float64)
    inner = (slice(None), slice(None), slice(3, 9), slice(3, 9))
    np.testing.assert_allclose(_warp(ramp, size=2.0)[inner], (ramp / 2)[inner], atol=1e-9)
    sheared = _warp(ramp, lean=45.0)  # each row comes from as far to the side as it lies below the centre
    np.testing.assert_allclose(sheared[inner][0, 1], (columns + rows)[3:9, 3:9], atol=1e-9)
    np.testing.assert_allclose(sheared[inner][0, 0], rows[3:9, 3:9], atol=1e-9)


def test_affine_draws_are_its_generators_alone_and_stay_in_range():
    images = torch.from_numpy(_pictures(9, 9)).float()
    affine = make("augments", {"affine": {"degrees": 20, "shift": 0.1, "scale": 0.2, "shear": 5}})
    one, two = (affine.apply(images, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(one, two) and one.dtype == images.dtype and one.shape == images.shape
    assert not torch.equal(one, affine.apply(images, torch.Generator().manual_seed(6)))
    ramp = torch.arange(101.0).reshape(1, 1, 1, 101).expand(500, 1, 1, 101)  # a value is its own place
    shifts = (
        50
        - make("augments", {"affine": {"degrees": 0, "scale": 0, "shear": 0, "shift": 0.1}}).apply(
            ramp, torch.Generator().manual_seed(0)
        )[:, 0, 0, 50]
    )
    assert 9 < float(shifts.abs().max()) <= 10.1 and abs(float(shifts.mean())) < 0.6
    assert float(shifts.std()) == pytest.approx(10.1 / math.sqrt(3), rel=0.06)


def test_augment_changes_training_and_not_validation(tmp_path):
    plain = trained(images_bundle(CONVNET), tmp_path / "a", epochs=1, learning_rate=1e-12)
    moved = trained(images_bundle(CONVNET), tmp_path / "b", epochs=1, learning_rate=1e-12, augment=["affine"])
    one, other = plain.notes["history"][0], moved.notes["history"][0]
    assert one["train_loss"] != other["train_loss"]


def test_rows_with_other_columns_and_bad_cells(tmp_path):
    assert "id" in table_rows(4, 0).columns  # no input: left out without a word
    rows = image_rows(8, 0)
    broken = type(rows).of([{**rows[0], "image": b"no image"}, *[rows[i] for i in range(1, 8)]])
    with pytest.raises(LuodiError, match="image"):
        trained(bundle_of(images_bundle(CONVNET).task, CONVNET, broken), tmp_path)
