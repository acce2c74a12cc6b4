"""Which weights learn, in which arithmetic, from batches that other processes read."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from small_data import SIDES, images_bundle, sha, table_bundle
from torch import nn

from luodi.core.check import problems
from luodi.core.errors import LuodiError
from luodi.core.recipe import Recipe
from luodi.core.run import Run
from luodi.core.thing import make
from luodi.train.loop import precision
from luodi.train.loop.exact import cautions
from luodi.train.loop.examples import examples_of
from luodi.train.loop.gradients import backward
from luodi.train.loop.learning import Learning, stages_of
from luodi.train.loop.loading import fastest, loaded
from luodi.train.loop.precision import Arithmetic

CONVNET = {"convnet": {"widths": [4, 8], "hidden": 16, "dropout": 0.2}}
MLP = {"mlp": {"hidden": [16, 8]}}
PLAIN = {"schedule": "constant", "update": {"sgd": {"momentum": 0}}, "batch_size": 32}


def trained(bundle, folder, **fields):
    return make("steps", {"train": fields})(bundle, Run(folder))


def keyed(parts):
    return [(part, (place, 0, 0)) for place, part in enumerate(parts)]


def moved(bundle, folder, **fields):
    """Stage -> how far its weights went, of a training from the same fresh start."""
    ready = bundle.ready(Run(folder))
    before = {stage.name: [p.detach().clone() for p in stage.parameters] for stage in stages_of(ready.model)}
    done = trained(ready, folder, **fields)
    assert all(p.requires_grad for p in done.model.parameters()), "something was left frozen"
    return {
        stage.name: max(
            float((a - b).detach().abs().max()) for a, b in zip(before[stage.name], stage.parameters, strict=True)
        )
        for stage in stages_of(done.model)
    }


def test_stages_go_from_the_input_to_the_heads(tmp_path):
    model = table_bundle(SIDES, MLP).ready(Run(tmp_path)).model
    assert [stage.name for stage in stages_of(model)] == ["layers.0", "layers.2", "heads"]
    for parameter in model.layers[0].parameters():
        parameter.requires_grad_(False)
    assert [stage.name for stage in stages_of(model)] == ["layers.2", "heads"]


def test_head_alone_learns_and_running_statistics_stay(tmp_path):
    bundle = images_bundle(CONVNET).ready(Run(tmp_path))
    norm = next(module for module in bundle.model.modules() if isinstance(module, nn.BatchNorm2d))
    mean = norm.running_mean.clone()
    found = moved(bundle, tmp_path, epochs=2, learn="head", **PLAIN)
    assert found["heads"] > 0 and found["trunks.0"] == found["hidden"] == 0
    assert torch.equal(norm.running_mean, mean)


def test_what_stays_frozen_has_no_memory_of_updates(tmp_path):
    """AdamW remembers two numbers a weight: of weights that never learn it needs none; `gradual` may need all."""
    model = table_bundle(SIDES, MLP).ready(Run(tmp_path)).model
    update, sizes = make("updates", "adamw"), {stage.name: stage for stage in stages_of(model)}

    def remembered(scope):
        learning = Learning(model, make("scopes", scope), update)
        learning.begin(0)
        found = {name.split("/")[0] for name in learning.memory.tensors()}
        learning.end()
        return found

    assert remembered("head") == {"heads"}
    assert remembered({"named": {"rate": {"layers.0": 0}}}) == {"layers.2", "heads"}
    assert remembered({"gradual": {"every": 1}}) == set(sizes)


def test_gradual_lets_a_stage_join_every_epoch(tmp_path):
    start = {"epochs": 1, "learn": {"gradual": {"every": 1, "decay": 0.5}}, **PLAIN}
    one = moved(table_bundle(SIDES, MLP), tmp_path / "1", **start)
    assert one["heads"] > 0 and one["layers.2"] == one["layers.0"] == 0
    two = moved(table_bundle(SIDES, MLP), tmp_path / "2", **{**start, "epochs": 2})
    assert two["heads"] > 0 and two["layers.2"] > 0 and two["layers.0"] == 0
    scope = make("scopes", {"gradual": {"every": 2, "decay": 0.5}})
    assert [scope.rates(["a", "b", "c"], epoch) for epoch in (0, 1, 2, 4)] == [
        [0, 0, 1], [0, 0, 1], [0, 0.5, 1], [0.25, 0.5, 1],
    ]  # fmt: skip


@pytest.mark.parametrize("update", ["adamw", {"sgd": {"momentum": 0.9}}, "adam"])
def test_rates_by_stage_are_those_of_torch_s_parameter_groups(tmp_path, update):
    """One full-batch update from the same weights; the second implementation: torch.optim with a rate a group."""
    ready = table_bundle(SIDES, MLP, 64).ready(Run(tmp_path))
    examples, _ = examples_of(ready.task, ready.data["train"], "cpu", 100)
    other = ready.fork().model
    groups = [
        {"params": s.parameters, "lr": 0.01 * 0.5 ** (2 - i), "weight_decay": 0} for i, s in enumerate(stages_of(other))
    ]
    torch_s = {
        "adamw": lambda: torch.optim.AdamW(groups), "adam": lambda: torch.optim.Adam(groups),
    }.get(str(update), lambda: torch.optim.SGD(groups, momentum=0.9))()  # fmt: skip
    backward(
        ready.task.loss,
        other,
        list(other.parameters()),
        [examples.batch(torch.arange(64))],
        1,
        Arithmetic("fp32", "cpu"),
    )
    torch_s.step()
    named = {"adamw": {"weight_decay": 0}} if update == "adamw" else update
    done = trained(ready, tmp_path, epochs=1, batch_size=64, learning_rate=0.01, schedule="constant", update=named,
                   learn={"all": {"decay": 0.5}})  # fmt: skip
    for mine, theirs in zip(done.model.parameters(), other.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6)


def test_named_stages_and_their_mistakes(tmp_path):
    found = moved(table_bundle(SIDES, MLP), tmp_path, epochs=1, learn={"named": {"rate": {"layers.*": 0}}}, **PLAIN)
    assert found["layers.0"] == found["layers.2"] == 0 < found["heads"]
    with pytest.raises(LuodiError, match=r"'body\.\*' fits no stage; there are: layers.0, layers.2, heads"):
        trained(table_bundle(SIDES, MLP), tmp_path / "b", learn={"named": {"rate": {"body.*": 0}}})
    with pytest.raises(LuodiError, match="nothing would learn"):
        trained(table_bundle(SIDES, MLP), tmp_path / "c", learn={"named": {"rate": {"*": 0}}})


def test_all_at_one_rate_is_the_plain_training(tmp_path):
    plain = trained(images_bundle(CONVNET), tmp_path / "a", epochs=2)
    named = trained(images_bundle(CONVNET), tmp_path / "b", epochs=2, learn={"named": {"rate": {"heads": 1.0}}})
    assert sha(plain) == sha(named)


# ---- precision --------------------------------------------------------------------------------------


def test_bf16_learns_with_weights_in_fp32(tmp_path):
    done = trained(images_bundle(CONVNET), tmp_path, epochs=12, batch_size=32, learning_rate=0.01, precision="bf16")
    assert done.notes["history"][-1]["validation"]["label.accuracy"] >= 0.95
    assert {p.dtype for p in done.model.parameters()} == {torch.float32}
    plain = trained(images_bundle(CONVNET), tmp_path / "b", epochs=12, batch_size=32, learning_rate=0.01)
    assert sha(plain) != sha(done)


def test_fp16_on_a_cpu_is_refused_before_any_work(tmp_path):
    recipe = Recipe.model_validate({
        "name": "half", "task": SIDES, "data": {"sample": {"name": "breast_cancer"}}, "model": MLP, "device": "cpu",
        "steps": ["split", {"train": {"precision": "fp16"}}],
    })  # fmt: skip
    found = problems(recipe, recipe.task, recipe.model)
    why = "fp16 is 30 to 100 times slower than fp32 on a CPU; use precision: bf16, or fp32"
    assert found == [f"step 2 train cannot work on cpu: {why}"]
    assert precision.refused("fp16", "cuda:0") is None
    with pytest.raises(LuodiError, match="30 to 100 times slower"):
        trained(table_bundle(SIDES, MLP), tmp_path, precision="fp16")


def test_the_loss_scale_halves_at_an_overflow_and_doubles_after_many_updates():
    arithmetic = Arithmetic("fp16", "cuda")
    weight = nn.Parameter(torch.ones(3))
    weight.grad = torch.full((3,), 2.0**16 * 0.25)
    assert arithmetic.usable([weight]) and torch.equal(weight.grad, torch.full((3,), 0.25))
    assert float(arithmetic.up(torch.tensor(2.0))) == 2.0**17
    weight.grad = torch.tensor([1.0, float("inf"), 1.0])
    assert not arithmetic.usable([weight]) and arithmetic.scale == 2.0**15 and arithmetic.skipped == 1
    for _ in range(precision.GROWS):
        weight.grad = torch.ones(3)
        assert arithmetic.usable([weight])
    assert arithmetic.scale == 2.0**16
    again = Arithmetic("fp16", "cuda")
    again.memory.restore({}, arithmetic.memory.facts())
    assert (again.scale, again.finite, again.skipped) == (2.0**16, precision.GROWS, 1)


def test_where_resuming_is_not_bit_exact_is_said():
    """This list is the promise: whatever is not on it resumes with the same bits."""
    assert cautions("fp32", "cpu", compiled=False) == ()
    compiled = cautions("fp32", "cpu", compiled=True)
    assert len(compiled) == 1 and "compile" in compiled[0]
    assert len(cautions("fp32", "cuda:1", compiled=False)) == 1 and len(cautions("bf16", "cuda", compiled=True)) == 2


@pytest.mark.parametrize("able", (True, False))
def test_bf16_on_a_processor_without_it_is_told(able, monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: able)
    found = cautions("bf16", "cpu", compiled=False)
    assert (found == ()) if able else ("no bf16 instructions" in found[0])


def test_a_compiled_graph_trains_as_the_eager_one(tmp_path):
    notes = []
    run = Run(tmp_path / "a", log=lambda event, facts: notes.append(facts.get("text", "")))
    fields = {"epochs": 1, "batch_size": 64, "learning_rate": 0.01}
    done = make("steps", {"train": {**fields, "compile": True}})(table_bundle(SIDES, MLP), run)
    plain = trained(table_bundle(SIDES, MLP), tmp_path / "b", **fields)
    assert any("the graph was compiled" in note for note in notes)
    for mine, theirs in zip(done.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)


# ---- loading ----------------------------------------------------------------------------------------


def test_workers_give_the_same_bits_in_the_same_order(tmp_path):
    fields = {"epochs": 2, "batch_size": 16, "augment": ["affine"], "hold_mb": 0}
    found = {sha(trained(images_bundle(CONVNET), tmp_path / str(n), **fields, workers=n)) for n in (0, 1, 3, "auto")}
    assert len(found) == 1
    parts = torch.arange(96).split(10)
    bundle = images_bundle(CONVNET).ready(Run(tmp_path))
    examples, _ = examples_of(bundle.task, bundle.data["train"], "cpu", 0)
    for part, (inputs, truth) in zip(parts, loaded(examples, keyed(parts), 2, "cpu"), strict=True):
        expected = examples.batch(part)
        assert torch.equal(inputs["image"], expected[0]["image"]) and torch.equal(truth["label"], expected[1]["label"])


def test_the_probe_times_every_candidate_and_leaves_held_rows_alone(tmp_path):
    bundle = images_bundle(CONVNET).ready(Run(tmp_path))
    read, _ = examples_of(bundle.task, bundle.data["train"], "cpu", 0)
    best, rates = fastest(read, torch.arange(96).split(16), "cpu")
    assert {0, 1} <= rates.keys() and all(rate > 0 for rate in rates.values()) and best in rates
    held, _ = examples_of(bundle.task, bundle.data["train"], "cpu", 100)
    assert fastest(held, torch.arange(96).split(16), "cpu") == (0, {})


def test_workers_are_deaf_to_ctrl_c_and_gone_afterwards(tmp_path):
    bundle = images_bundle(CONVNET).ready(Run(tmp_path))
    examples, _ = examples_of(bundle.task, bundle.data["train"], "cpu", 0)
    before = {child.pid for child in psutil.Process().children()}  # other tests keep processes of their own
    stream = loaded(examples, keyed(torch.arange(96).split(4)), 1, "cpu")
    next(stream)
    new = {child.pid for child in psutil.Process().children()} - before
    workers = [worker for worker in new if _ignores_interrupt(worker)]
    assert workers
    for worker in workers:
        os.kill(worker, signal.SIGINT)
    assert sum(1 for _ in stream) == 23
    assert not [worker for worker in workers if psutil.pid_exists(worker)]


def _ignores_interrupt(process: int) -> bool:
    """Bit 2 of the signals that it ignores (proc(5))."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    ignored = next(line.split()[1] for line in lines if line.startswith("SigIgn"))
    return bool(int(ignored, 16) & (1 << (signal.SIGINT - 1)))


def test_numbers_of_a_larger_batch_than_rows(tmp_path):
    done = trained(table_bundle(SIDES, MLP, 40), tmp_path, epochs=1, batch_size=4096, workers=2, hold_mb=0)
    assert np.isfinite(done.notes["history"][0]["train_loss"]) and done.notes["updates"] == 1
