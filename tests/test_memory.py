"""What a training needs in memory: predicted by a walk on the meta device, kept to by rungs, survived in a process of
its own. Limits are of this machine's kernel (Linux)."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_data import IMAGES, SIDES, Run, bundle_of, image_rows, images_bundle, sha, table_bundle
from torch import nn

from luodi.core.errors import LuodiError
from luodi.core.rows import Rows
from luodi.core.source import rows_of
from luodi.core.thing import make
from luodi.train.loop.memory import within
from luodi.train.loop.memory.imagined import KERNELS
from luodi.train.loop.memory.ladder import lower, lower_until, smaller, still_to_go
from luodi.train.loop.memory.ledger import counted
from luodi.train.loop.memory.prediction import blank
from luodi.train.loop.memory.recompute import blocks_in, recomputed
from luodi.train.loop.memory.room import Peak, room_mb, short_of_memory

CONVNET = {"convnet": {"widths": [4, 8], "hidden": 16, "dropout": 0.3}}
LARGE = {"convnet": {"widths": [64, 64], "hidden": 16, "dropout": 0.3}}
DEEP = {"mlp": {"hidden": [128] * 12, "dropout": 0.3}}  # 4 MB of activations a layer and 4096 rows
linux = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the kernel's limits are Linux's")


def trained(bundle, folder, log=None, **fields):
    step = make("steps", {"train": {"epochs": 1, "batch_size": 32, **fields}})
    return step(bundle, Run(folder, seed=3, **({"log": log} if log else {})))


def deep_bundle():
    return table_bundle(SIDES, DEEP, 4096)


def notes_of(events):
    return [facts["text"] for event, facts in events if event == "note"]


def predicted(bundle, **fields):
    step = make("steps", {"train": {"batch_size": 32, **fields}}).settled()
    return within._Within(step, within._fitted(bundle), Run(Path())).prediction(step)


# ---- the ledger and the prediction ----------------------------------------------------------------------------------


def test_the_ledger_counts_storages_while_they_are_there():
    with counted() as ledger, torch.device("meta"):
        one = torch.empty(1000)
        view = one.view(10, 100)  # the same storage
        two = one + 1
        assert ledger.live == 8000
        del two
        assert (ledger.live, ledger.peak) == (4000, 8000)
        del one
        assert ledger.live == 4000, "a view keeps its storage"
        ledger.mark()
        del view
    assert (ledger.live, ledger.peak) == (0, 4000)


def test_a_walk_counts_what_the_same_computation_counts_with_values():
    def work(device):
        with counted() as ledger:
            layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4))
            layers.to(device)
            images = torch.zeros(16, 3, 8, 8, device=device)
            ledger.mark()
            layers(images).sum().backward()
        return ledger.peak

    assert work("meta") == pytest.approx(work("cpu"), rel=0.02)


@pytest.mark.parametrize(("update", "numbers"), [("sgd", 1), ("adamw", 2), ({"sgd": {"momentum": 0}}, 0)])
def test_prediction_of_weights_gradients_and_optimizer(update, numbers):
    found = predicted(table_bundle(SIDES, {"mlp": {"hidden": [1000, 1000]}}), update=update)
    weights = 4 * (3 * 1000 + 1000 + 1000 * 1000 + 1000 + 1000 * 2 + 2) / 1e6
    assert found.weights == pytest.approx(weights, rel=1e-6) and found.gradients == pytest.approx(weights, rel=1e-6)
    assert found.optimizer == pytest.approx(numbers * weights, rel=0.01, abs=1e-4)


def test_prediction_of_activations_is_at_least_what_autograd_keeps():
    """`saved_tensors_hooks` on a real forward is the second implementation: unique storages, parameters left out."""
    bundle = within._fitted(images_bundle(LARGE))
    model = bundle.task.build(bundle.config)
    own, kept = {p.untyped_storage()._cdata for p in (*model.parameters(), *model.buffers())}, {}

    def pack(tensor):
        kept[tensor.untyped_storage()._cdata] = tensor  # held, so that no storage takes another's place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(image=torch.zeros(256, 1, 8, 8))
    saved = sum(t.untyped_storage().nbytes() for key, t in kept.items() if key not in own) / 1e6
    found = predicted(images_bundle(LARGE), batch_size=256)
    assert saved < found.activations < 2 * saved


def test_prediction_follows_the_fields():
    def mb(**fields):
        return predicted(images_bundle(LARGE, 600), batch_size=256, **fields).mb

    deep = {
        on: predicted(deep_bundle(), batch_size=4096, **{on: True}).mb for on in ("recompute", "offload", "compile")
    }
    assert deep["recompute"] < 0.8 * deep["compile"] and deep["offload"] < 0.6 * deep["compile"]
    assert mb(effective_batch=512) == pytest.approx(mb(), rel=0.1)  # two forwards, one after the other
    assert predicted(images_bundle(LARGE), batch_size=512).activations == pytest.approx(
        2 * predicted(images_bundle(LARGE), batch_size=256).activations, rel=0.05
    )
    assert mb(precision="bf16") < mb()
    held = predicted(images_bundle(CONVNET, 600)).held
    assert held == pytest.approx((600 + 48) * (8 * 8 * 4 + 8) / 1e6, rel=1e-6)
    assert predicted(images_bundle(CONVNET, 600), hold_mb=0.0).held == 0


def test_the_walk_leaves_nothing_behind():
    before = nn.functional.scaled_dot_product_attention
    predicted(images_bundle(CONVNET))
    assert nn.functional.scaled_dot_product_attention is before
    import torch._dynamo  # its stand-in is gone

    assert torch._dynamo.__file__ and torch.nn.functional.relu(torch.tensor(-1.0)) == 0


@linux
def test_prediction_and_real_peak_are_noted(tmp_path):
    """The figure itself, on ten shapes, is benchmarks/memory.py; this is one shape, with its libraries."""
    events = []
    rows = image_rows(1100, 0)
    bundle = bundle_of(IMAGES, {"mlp": {"hidden": [3000, 3000]}}, rows, image_rows(48, 1))
    done = trained(bundle, tmp_path, lambda event, facts: events.append((event, facts)), batch_size=512, memory_mb=2000)
    memory = done.notes["memory"]
    assert memory["apart"] and memory["predicted_mb"] == pytest.approx(memory["real_mb"], rel=0.1)
    assert memory["predicted_mb"] > 0.95 * memory["real_mb"] and "told" not in done.notes
    assert any("process of its own" in note for note in notes_of(events)) and not (tmp_path / "apart").exists()
    assert [facts["epoch"] for event, facts in events if event == "epoch"] == [1], "events come back from the process"


def test_what_prediction_and_measurement_differ_by_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(within, "WORTH_TELLING", 0.0)
    done = trained(images_bundle(CONVNET), tmp_path)
    assert done.notes["memory"]["apart"] is False and done.notes["memory"]["rungs"] == []
    assert "MB predicted" in done.notes["told"][-1]


def test_room_and_errors():
    assert 0 < room_mb("cpu") < float("inf")
    said = "[enforce fail at alloc_cpu.cpp:1] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to ..."
    assert short_of_memory(RuntimeError(said)) and short_of_memory(MemoryError())
    assert not short_of_memory(RuntimeError("shapes differ")) and not short_of_memory(ValueError("out of memory"))
    peak, held = Peak("cpu"), np.ones(40_000_000, np.uint8)
    assert held.sum() and (peak.mb() is None or 35 < peak.mb() < 60)


# ---- the same bits with less ----------------------------------------------------------------------------------------

FIELDS = {"epochs": 2, "augment": ["affine"], "clip": 1.0, "patience": 3}


@pytest.mark.parametrize("thrift", [{"recompute": True}, {"offload": True}, {"recompute": True, "offload": True}])
@pytest.mark.parametrize("more", [{}, {"effective_batch": 40}, {"precision": "bf16"}], ids=str)
def test_recompute_and_offload_change_no_bit(tmp_path, thrift, more):
    """Dropout draws the same, running statistics move once."""
    plain = trained(images_bundle(CONVNET), tmp_path / "a", **FIELDS, **more)
    thrifty = trained(images_bundle(CONVNET), tmp_path / "b", **FIELDS, **more, **thrift)
    assert sha(plain) == sha(thrifty)
    assert not any("forward" in vars(module) for module in thrifty.model.modules())


def test_a_killed_training_goes_on_with_another_thrift(tmp_path):
    """What changes no bit is no part of a checkpoint's identity."""

    def stop(event, facts):
        if event == "epoch":
            raise KeyboardInterrupt

    events = []
    with pytest.raises(KeyboardInterrupt):
        trained(images_bundle(CONVNET), tmp_path / "a", stop, epochs=3, checkpoint_seconds=1e-6)
    log = lambda event, facts: events.append((event, facts))  # noqa: E731
    done = trained(images_bundle(CONVNET), tmp_path / "a", log, epochs=3, checkpoint_seconds=1e-6, recompute=True)
    assert any("going on from the checkpoint" in note for note in notes_of(events))
    assert sha(done) == sha(trained(images_bundle(CONVNET), tmp_path / "b", epochs=3))


def test_recompute_gives_torchs_own_gradients():
    """Against torch.utils.checkpoint, on a block with dropout, a norm, and an output that is used twice."""
    from torch.utils.checkpoint import checkpoint

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), nn.GELU(), nn.Dropout(0.5))

        def forward(self, values, scale=1.0):
            found = self.inner(values)
            return found * found.sigmoid() * scale + values

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(Block() for _ in range(3))

        def forward(self, values, through=lambda block, values: block(values, scale=2.0)):
            for block in self.blocks:
                values = through(block, values)
            return values.square().sum()

    net, values = Net(), torch.randn(5, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)

    def slopes(run):
        net.zero_grad()
        values.grad = None
        torch.default_generator.manual_seed(1)
        run().backward()
        return [values.grad.clone(), *(p.grad.clone() for p in net.parameters())]

    expected = slopes(lambda: net(values, lambda block, x: checkpoint(block, x, scale=2.0, use_reentrant=False)))
    assert blocks_in(net) == 3
    with recomputed(net):
        found = slopes(lambda: net(values))
        torch.default_generator.manual_seed(1)
        twice = torch.autograd.grad(net(values), [values], retain_graph=True)[0]
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert torch.equal(twice, found[0])


def test_a_block_that_changes_its_input_is_refused():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, values):
            return self.layer(values.mul_(2))

    net = nn.ModuleList([Block()])
    with recomputed(net), pytest.raises(LuodiError, match="changes its input in place"):
        net[0](torch.ones(2, 3))


def test_effective_batch_is_exact(tmp_path):
    """An update of 40 rows in forwards of 32 and 8 has the gradient of 40 rows at once."""
    model = {"mlp": {"hidden": [16]}}
    whole = trained(table_bundle(SIDES, model), tmp_path / "a", batch_size=40)
    cut = trained(table_bundle(SIDES, model), tmp_path / "b", batch_size=32, effective_batch=40)
    assert cut.notes["updates"] == whole.notes["updates"] == 4
    assert cut.notes["memory"]["accumulate"] == 2
    for one, other in zip(whole.model.parameters(), cut.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_fields_that_contradict_are_refused():
    bundle = within._fitted(images_bundle(CONVNET))

    def said(**fields):
        return make("steps", {"train": fields}).objection(bundle.task, bundle.config)

    assert "follows from effective_batch" in said(effective_batch=64, accumulate=2)
    assert "recompute" in said(recompute=True, compile=True)
    assert said(effective_batch=64) is None


# ---- the ladder -----------------------------------------------------------------------------------------------------


def test_rungs():
    bundle = within._fitted(images_bundle(CONVNET))
    step = make("steps", {"train": {"batch_size": 64, "ladder": ["accumulate", "recompute", "optimizer", "offload"]}})
    fresh = lambda: blank(bundle.task, bundle.config)  # noqa: E731
    half, told = lower(step, "accumulate", fresh)
    assert (half.batch_size, half.accumulate, half.effective_batch) == (32, 2, 64) and told.startswith("2 forwards")
    assert lower(half, "accumulate", fresh)[0].accumulate == 4
    assert lower(step, "recompute", fresh)[0].recompute and lower(step, "offload", fresh)[0].offload
    smaller_one = lower(step, "optimizer", fresh)[0]
    assert "no smaller one" in lower(smaller_one, "optimizer", fresh)
    assert "one row already" in lower(step.model_copy(update={"batch_size": 1}), "accumulate", fresh)
    flat = within._fitted(table_bundle(SIDES, {"mlp": {"hidden": []}}))
    assert "no blocks" in lower(step, "recompute", lambda: nn.Linear(2, 2)) and flat.config is not None
    needs = lambda one: 10.0 + one.batch_size  # noqa: E731
    assert lower_until(step, needs, 20.0)[0].batch_size == 8
    assert "next to nothing" in lower_until(step, lambda one: 100.0 + one.batch_size / 64, 20.0)
    assert still_to_go(step, ["accumulate"]) == ("recompute", "optimizer", "offload")
    assert still_to_go(step, list(step.ladder)) == ("accumulate",)


def test_smaller_inputs_belong_to_the_bundle(tmp_path):
    bundle = within._fitted(images_bundle({"convnet": {"widths": [4], "hidden": 8}}))
    less, told = smaller(bundle)
    assert less.task.inputs["image"].size == 4 and "4 in place of 8" in told
    assert "made for this size" in smaller(bundle.ready(Run(tmp_path)))
    assert "too small" in smaller(within._fitted(images_bundle({"convnet": {"widths": [4, 4, 4]}})))
    assert "no input is an image" in smaller(within._fitted(table_bundle(SIDES, {"mlp": {}})))


def test_a_prediction_that_does_not_fit_walks_the_ladder_before_any_work(tmp_path, monkeypatch):
    tried = []

    def apart(step, bundle, run, limit):
        tried.append(step)
        return step.here(bundle, run).noting(peak_mb=1.0)

    monkeypatch.setattr(within, "train_apart", apart)
    bundle = images_bundle(LARGE, 600)
    whole = predicted(bundle, batch_size=512)
    limit = whole.mb - 0.6 * whole.activations
    done = trained(bundle, tmp_path, batch_size=512, memory_mb=limit)
    (step,) = tried
    assert step.rows_per_update == 512 and step.batch_size < 512
    assert done.notes["memory"]["rungs"] == ["accumulate"] and "forwards of" in done.notes["told"][0]
    less = trained(bundle, tmp_path, batch_size=512, memory_mb=limit, ladder=["inputs"])
    assert less.task.inputs["image"].size == 4 and less.notes["memory"]["rungs"] == ["inputs"]
    assert less.predictor()(less.task.examples(3, 0)), "what is served takes the smaller images"


def test_nothing_left_to_give_up(tmp_path, monkeypatch):
    def apart(step, bundle, run, limit):
        raise within.OutOfMemory("killed")

    monkeypatch.setattr(within, "train_apart", apart)
    with pytest.raises(
        LuodiError, match=r"out of memory \(\d+ MB predicted\): killed. Tried before: .*recompute"
    ) as no:
        trained(images_bundle(CONVNET), tmp_path, memory_mb=1.0)
    assert no.value.exit_code == 2


def test_out_of_memory_in_this_process_goes_on_apart(tmp_path, monkeypatch):
    """A fresh model is begun again; given weights were changed, which is said."""
    kind = type(make("steps", "train"))

    def full(self, bundle, run, *, exact=False):
        raise MemoryError

    def apart(step, bundle, run, limit):
        monkeypatch.undo()
        return step.here(bundle, run).noting(peak_mb=1.0)

    monkeypatch.setattr(kind, "here", full)
    with pytest.raises(LuodiError, match="memory_mb"):
        trained(images_bundle(CONVNET).ready(Run(tmp_path)), tmp_path / "a")
    monkeypatch.setattr(within, "train_apart", apart)
    done = trained(images_bundle(CONVNET), tmp_path / "b", ladder=["recompute"])
    assert done.notes["memory"]["rungs"] == ["recompute"] and done.notes["memory"]["apart"]


# ---- a process that runs out of memory ------------------------------------------------------------------------------

TIGHT = {"epochs": 2, "batch_size": 4096, "ladder": ["recompute"], "checkpoint_seconds": 1e-6}


@pytest.fixture(scope="module")
def unlimited(tmp_path_factory):
    return sha(trained(deep_bundle(), tmp_path_factory.mktemp("whole"), **TIGHT))


@pytest.fixture
def blind(monkeypatch):
    blinded(monkeypatch)


def blinded(monkeypatch):
    """As with a model that torch cannot walk through: nothing is known before."""

    def cannot(step, subject):
        raise NotImplementedError("no kernel")

    monkeypatch.setattr(within, "predict", cannot)


def between() -> float:
    """MB with which recomputing fits and keeping every activation does not."""
    plain, less = (predicted(deep_bundle(), batch_size=4096, recompute=on).mb for on in (False, True))
    assert plain > less + 15
    return (plain + less) / 2


@linux
def test_the_allocators_error_is_survived(tmp_path, monkeypatch, unlimited):
    limit = between()
    monkeypatch.setattr(
        within, "predict", lambda step, subject: (_ for _ in ()).throw(NotImplementedError("no kernel"))
    )
    events = []
    log = lambda event, facts: events.append((event, facts))  # noqa: E731
    done = trained(deep_bundle(), tmp_path, log, memory_mb=limit, **TIGHT)
    assert done.notes["memory"]["rungs"] == ["recompute"] and done.notes["memory"]["real_mb"] < limit
    told = notes_of(events)
    assert any(note.startswith("out of memory: ") and "memory" in note[15:].lower() for note in told), told
    assert sum("process of its own" in note for note in told) == 2
    assert sha(done) == unlimited
    assert done.notes["told"][0].startswith("recompute: ")


@linux
def test_a_plain_kill_is_survived_and_no_epoch_is_lost(tmp_path, blind):
    """A watcher kills the first process in its second epoch, once it holds more than it did when it began: SIGKILL."""
    events, watched = [], []

    def watch(process):
        while not any(event == "epoch" for event, _ in events):
            time.sleep(0.01)
        while int(Path(f"/proc/{process}/statm").read_text().split()[1]) * 4096 < 100e6:
            time.sleep(0.01)
        os.kill(process, signal.SIGKILL)

    def log(event, facts):
        events.append((event, dict(facts)))
        if "process" in facts and not watched:
            watched.append(threading.Thread(target=watch, args=(facts["process"],)))
            watched[0].start()

    fields = {**TIGHT, "epochs": 12}
    done = trained(deep_bundle(), tmp_path / "a", log, memory_mb=4000, **fields)
    watched[0].join()
    told = notes_of(events)
    assert any("signal 9" in note for note in told) and any("going on from the checkpoint" in note for note in told)
    assert done.notes["memory"]["rungs"] == ["recompute"] and len(done.notes["history"]) == 12
    assert [facts["epoch"] for event, facts in events if event == "epoch"][-1] == 12
    assert sha(done) == sha(trained(deep_bundle(), tmp_path / "b", **fields))


@linux
def test_control_c_reaches_the_process_once(tmp_path):
    stopped = []

    def stop(event, facts):
        if event == "epoch" and not stopped:
            stopped.append(facts["epoch"])
            os.kill(os.getpid(), signal.SIGINT)

    fields = {"epochs": 30, "batch_size": 64, "checkpoint_seconds": 1e-6, "memory_mb": 2000}
    with pytest.raises(KeyboardInterrupt):
        trained(images_bundle(CONVNET, 1024), tmp_path / "a", stop, **fields)
    assert (tmp_path / "a" / "checkpoint" / "state.safetensors").exists() and not (tmp_path / "a" / "apart").exists()
    events = []
    log = lambda event, facts: events.append((event, facts))  # noqa: E731
    done = trained(images_bundle(CONVNET, 1024), tmp_path / "a", log, **fields)
    assert any("going on from the checkpoint" in note for note in notes_of(events))
    assert sha(done) == sha(trained(images_bundle(CONVNET, 1024), tmp_path / "b", **{**fields, "memory_mb": None}))


@linux
def test_given_weights_and_edits_go_into_the_process_and_come_back(tmp_path):
    first = trained(images_bundle(CONVNET), tmp_path / "first")
    here = trained(first.fork(), tmp_path / "a", learning_rate=0.01)
    apart = trained(first.fork(), tmp_path / "b", learning_rate=0.01, memory_mb=2000)
    assert sha(here) == sha(apart) and len(apart.edits) == 2 and apart.facts == here.facts
    with pytest.raises(LuodiError, match="the loss became"):
        trained(first.fork(), tmp_path / "c", learning_rate=1e30, update="sgd", epochs=3, memory_mb=2000)


@linux
def test_a_tokenizer_goes_into_the_process(tmp_path):
    texts = [f"word{at % 7} other{at % 5} {'long ' * (at % 9)}" for at in range(96)]
    rows = rows_of({"text": texts, "label": [str(at % 7) for at in range(96)]})
    task = {
        "supervised": {
            "inputs": {"text": {"text": {"tokens": "bpe", "vocabulary": 90}}},
            "targets": {"label": "category"},
        }
    }
    sums = [sha(trained(bundle_of(task, {"bilstm": {"width": 8, "hidden": 8}}, rows), tmp_path / str(mb), memory_mb=mb))
            for mb in (None, 2000)]  # fmt: skip
    assert sums[0] == sums[1]


def test_a_recurrent_layer_is_predicted_with_its_workspace():
    task = {
        "supervised": {
            "inputs": {"text": {"text": {"tokens": "character", "length": 64}}},
            "targets": {"label": "category"},
        }
    }
    rows = rows_of({"text": ["a" * 64, "b" * 64] * 8, "label": ["x", "y"] * 8})
    bundle = bundle_of(task, {"bilstm": {"width": 64, "hidden": 32}}, rows)
    made = 2 * KERNELS / 1e6  # code, the same for any batch
    small, large = (predicted(bundle, batch_size=size).activations - made for size in (64, 256))
    assert 3.6 < large / small < 4.4, "in proportion to the batch"
    # Each direction's input (64), its own copy of it (64) and what comes out (32), in fp32, are the least of it.
    assert large > 2 * 256 * 64 * (64 + 64 + 32) * 4 / 1e6


# ---- rows larger than the memory ------------------------------------------------------------------------------------


@linux
def test_rows_several_times_larger_than_the_memory(tmp_path):
    """240 MB of pictures in an Arrow file; the process may grow by 60 MB, and the rows are shuffled and chosen."""
    import io

    from PIL import Image

    dice, cells = np.random.default_rng(0), []
    for _ in range(40):
        stream = io.BytesIO()
        Image.fromarray(dice.integers(0, 256, (320, 320, 3), np.uint8)).save(stream, "BMP")
        cells.append(stream.getvalue())
    count = 800
    labels = [f"q{at % 4}" for at in range(count)]
    path = rows_of({"image": [cells[at % 40] for at in range(count)], "label": labels}).save(tmp_path / "rows.arrow")
    assert path.stat().st_size > 4 * 60e6
    rows = Rows.open(path)
    train, validation = rows.take(dice.permutation(count)[:760]), rows.take(np.arange(40))
    assert train.chosen is not None and train.path == path
    task = {"supervised": {"inputs": {"image": {"image": {"size": 16, "normalize": "scale"}}},
                           "targets": {"label": "category"}}}  # fmt: skip
    bundle = bundle_of(task, {"convnet": {"widths": [4]}}, train, validation)
    step = make("steps", {"train": {"epochs": 1, "batch_size": 16, "hold_mb": 0.0, "memory_mb": 60, "ladder": []}})
    done = step(bundle, Run(tmp_path / "run", seed=3, rehearse=True))
    assert done.notes["updates"] == 8 and done.notes["memory"]["apart"] and done.notes["memory"]["real_mb"] < 60
    assert "batch by batch" in done.notes["examples"]


def test_chosen_rows_are_those_that_a_copy_holds(tmp_path):
    path = image_rows(50, 0).save(tmp_path / "rows.arrow")
    mapped, held = Rows.open(path), Rows(Rows.open(path).table, Rows.open(path).ids)
    order = np.random.default_rng(0).permutation(50)[:20]
    one, other = mapped.take(order).take([3, 1, 7]), held.take(order).take([3, 1, 7])
    assert one.path and other.path is None and len(one) == 3
    assert one.fingerprint == other.fingerprint and list(one) == list(other) and one[-1] == other[-1]
    assert one.column("label") == other.column("label") == list(one.cells("label"))
    assert one.table.equals(other.table) and list(one.ids) == list(other.ids) and one.with_ids(other.ids)[0] == other[0]
    assert Rows.open(one.save(tmp_path / "three.arrow")).fingerprint == one.fingerprint
    assert list(mapped[10:12]) == list(held[10:12])


# ---- the batch size -------------------------------------------------------------------------------------------------


@linux
def test_batch_size_is_found_kept_and_told(tmp_path):
    events, stopped = [], []

    def log(event, facts):
        events.append((event, facts))
        if event == "epoch" and not stopped:
            stopped.append(1)
            raise RuntimeError("stopped")

    fields = {"batch_size": "auto", "epochs": 2, "checkpoint_seconds": 1e-6}
    bundle = images_bundle(CONVNET, 640)
    with pytest.raises(RuntimeError, match="stopped"):
        trained(bundle, tmp_path, log, **fields)
    found = json.loads((tmp_path / "checkpoint" / "settled.json").read_text())
    size = found["step"]["train"]["batch_size"]
    assert size in (8, 16, 32) and "rows" in found["told"][0]  # 20 updates an epoch: 32 rows at most
    events.clear()
    done = trained(bundle, tmp_path, log, **fields)
    assert done.notes["memory"]["batch_size"] == size and done.notes["updates"] == 2 * -(-640 // size)
    assert not any("process of its own" in note for note in notes_of(events)), "found once"
    assert done.notes["told"] == tuple(found["told"]) or list(done.notes["told"]) == found["told"]
    assert done.edits[-1].step.batch_size == size, "the lineage says what was done"


def test_the_search_stops_where_it_no_longer_pays(tmp_path, monkeypatch):
    from luodi.train.loop.memory import batch

    rates = {8: 100.0, 16: 190.0, 32: 300.0, 64: 310.0, 128: 314.0}
    asked = []

    def probes(steps, bundle, run, limit):
        asked.extend(step.batch_size for step in steps)
        for step in steps:
            if step.batch_size > 128:
                raise batch.OutOfMemory("no more")
            run.log("probe", {"rows": step.batch_size, "rate": rates[step.batch_size], "mb": 1.0})

    monkeypatch.setattr(batch, "probed_apart", probes)
    bundle, run = within._fitted(images_bundle(CONVNET, 20 * 256)), Run(tmp_path)
    step = make("steps", {"train": {"batch_size": "auto"}})
    taken, told = batch.chosen(step, bundle, run, 100.0, lambda one: float(one.batch_size) / 10)
    assert taken.batch_size == 32 and asked == [8, 16, 32, 64, 128, 256] and "64 rows 310/s" in told
    small, _ = batch.chosen(step, bundle, run, 100.0, lambda one: 0.0 if one.batch_size < 20 else 101.0)
    assert small.batch_size == 16, "what is predicted not to fit is not tried"
    assert not batch.no_longer_pays([100.0, 90.0]) and not batch.no_longer_pays([100.0, 90.0, 106.0])
    assert batch.no_longer_pays([50.0, 100.0, 104.0, 99.0])
    fixed = make("steps", {"train": {"batch_size": "auto", "effective_batch": 96}})
    kept, told = batch.chosen(fixed, bundle, run, 100.0, lambda one: 1.0)
    assert (kept.batch_size, kept.accumulate, kept.rows_per_update) == (32, 3, 96) and "3 of them" in told


def test_several_processes_want_a_number(tmp_path):
    step = make("steps", {"train": {"batch_size": "auto"}})
    with pytest.raises(LuodiError, match="of one process"):
        step(images_bundle(CONVNET), replace(Run(tmp_path), world=2))
