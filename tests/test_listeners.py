"""Listeners: what they say against a second computation, and that the weights do not depend on them."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from small_data import SIDES, images_bundle, sha, table_bundle
from torch import nn

from luodi.command.terminal import Terminal, said
from luodi.core import catalog
from luodi.core.bundle import Bundle
from luodi.core.errors import LuodiError, MissingExtra
from luodi.core.folder import RunFolder, Ticks
from luodi.core.run import Run
from luodi.core.thing import make
from luodi.train.loop import progress as progress_module
from luodi.train.loop.audience import title_of
from luodi.train.loop.figures import Figures
from luodi.train.loop.layerwise.flags import Thresholds, flags_of
from luodi.train.loop.layerwise.look import Layer, Look
from luodi.train.loop.layerwise.statistics import dead, spread
from luodi.train.loop.progress import Pace

CONVNET = {"convnet": {"widths": [4, 8], "hidden": 16, "dropout": 0.3}}
LIMITS = Thresholds(vanishing=1e-4, exploding=1e4, dead=0.5, update=0.1)
Told = list[tuple[str, dict[str, Any]]]


def train(out: Path, model: Any = CONVNET, **fields: Any) -> tuple[Bundle, Told]:
    events: Told = []
    run = Run(out, seed=3, log=lambda event, facts: events.append((event, dict(facts))))
    step = make("steps", {"train": {"epochs": 3, "batch_size": 16, **fields}})
    return step(images_bundle(model), run), events  # ty: ignore[call-non-callable]


def of(events: Told, kind: str) -> list[dict[str, Any]]:
    return [facts for event, facts in events if event == kind]


# ---- statistics -----------------------------------------------------------------------------------------------------


def test_spread_and_dead_units_are_the_closed_form():
    mean, deviation, norm, zeros, square = spread(torch.tensor([[0.0, 3.0], [4.0, 1.0]])).tolist()
    assert (mean, zeros) == (2.0, 0.25)
    assert deviation == pytest.approx(math.sqrt((4 + 1 + 4 + 1) / 4))
    assert norm == pytest.approx(math.sqrt(26)) and square == pytest.approx(math.sqrt(26 / 4))
    maps = torch.zeros(2, 4, 3, 3)  # four channels: one lives at one place of one row, one everywhere
    maps[1, 0, 2, 2], maps[:, 1] = 1.0, -1.0
    assert float(dead(maps)) == 0.5
    words = torch.zeros(2, 5, 3)  # (rows, places, units)
    words[0, 4, 2] = 1.0
    assert float(dead(words)) == pytest.approx(2 / 3)
    assert float(dead(torch.tensor([[0.0, 1.0], [0.0, 0.0]]))) == 0.5


def test_a_look_sees_what_autograd_and_the_update_did():
    torch.default_generator.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4, 1))
    x, rate = torch.randn(8, 3), 0.1
    first, last = model[0], model[3]
    hidden = first(x).detach()
    look = Look(model)
    look.begin()
    model(x).square().mean().backward()
    before = first.weight.detach().clone()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= rate * parameter.grad
    layers = {layer.name: layer for layer in look.end()}
    assert [(layer.name, layer.kind) for layer in layers.values()] == [("0", "Linear"), ("1", "ReLU"), ("3", "Linear")]
    seen = layers["0"]
    assert seen.gradients["norm"] == pytest.approx(float(first.weight.grad.norm()), rel=1e-4)
    assert seen.weights["mean"] == pytest.approx(float(first.weight.detach().mean()), rel=1e-4)
    assert seen.update == pytest.approx(rate * float(first.weight.grad.norm() / before.norm()), rel=1e-4)
    assert seen.slope == pytest.approx(float(first.weight.grad.square().mean().sqrt()), rel=1e-6)
    assert seen.activations["deviation"] == pytest.approx(float(hidden.std(correction=0)), rel=1e-4)
    assert layers["1"].activations["zeros"] == pytest.approx(float((hidden <= 0).double().mean()))
    assert layers["1"].activations["dead"] == float((hidden <= 0).all(0).double().mean())
    assert layers["1"].weights is None and layers["1"].slope is None
    assert "dead" not in layers["3"].activations and last.weight.grad is not None
    assert not first._forward_hooks and not model[1]._forward_hooks


def test_a_deep_sigmoid_network_vanishes_and_a_large_one_explodes():
    """The gradient of a sigmoid is at most 1/4 a layer: after nine, under 4e-6 (Hochreiter 1991)."""
    torch.default_generator.manual_seed(0)
    parts = [part for _ in range(9) for part in (nn.Linear(8, 8), nn.Sigmoid())]
    model = nn.Sequential(*parts, nn.Linear(8, 1))
    look = Look(model)
    look.begin()
    model(torch.randn(16, 8)).sum().backward()
    flags = flags_of(look.end(), LIMITS)
    assert {flag.what for flag in flags} == {"vanish"} and flags[0].layer == "0"
    assert flags[0].value is not None and flags[0].value < 4e-6
    assert flags[0].text == f"gradients of 0 vanish: {flags[0].value:.0e} of those of the head (18), under 0.0001"
    # The gradient of y = w9 ... w1 x by w1 is (w9 ... w2) x: with x = 1e-6, w1 = 1e-3 and the others 10, the first
    # layer's is 10^8 * 1e-6 = 100, the head's 10^7 * 1e-3 * 1e-6 = 0.01.
    deep = nn.Sequential(*(nn.Linear(1, 1, bias=False) for _ in range(9)))
    with torch.no_grad():
        for layer in deep:
            layer.weight.fill_(10.0)
        deep[0].weight.fill_(1e-3)
    look = Look(deep)
    look.begin()
    deep(torch.full((4, 1), 1e-6)).mean().backward()
    (flag,) = flags_of(look.end(), Thresholds(vanishing=1e-4, exploding=9e3, dead=0.5, update=0.1))
    assert (flag.layer, flag.what, flag.value) == ("0", "explode", pytest.approx(1e4, rel=1e-4))
    assert flag.text == "gradients of 0 explode: 1e+04 of those of the head (8), over 9000"


def test_thresholds_are_said_and_a_gradient_that_is_no_number():
    layers = [
        Layer("a", "Linear", slope=math.nan),
        Layer("relu", "ReLU", activations={"dead": 0.6}),
        Layer("b", "Linear", slope=1.0, update=0.3),
        Layer("c", "Linear", slope=1.0, update=0.05),
    ]
    texts = [flag.text for flag in flags_of(layers, LIMITS)]
    assert texts == [
        "gradients of a are not finite numbers",
        "60% of the units of relu are dead: zero for every row of a batch, over 50%",
        "one update moves b by 30% of its weights, over 10%",
    ]
    assert flags_of([Layer("a", "Linear", slope=0.0), Layer("c", "Linear", slope=0.0)], LIMITS) == []


# ---- in a training --------------------------------------------------------------------------------------------------


def test_layers_are_looked_at_once_an_epoch_and_the_bits_stay(tmp_path):
    plain, before = train(tmp_path / "plain")
    looked, events = train(tmp_path / "looked", listeners=["layers"])
    often, more = train(tmp_path / "often", listeners=[{"layers": {"every": 1}}], accumulate=2, batch_size=8)
    same, _ = train(tmp_path / "same", accumulate=2, batch_size=8)
    assert sha(plain) == sha(looked) and sha(often) == sha(same)
    assert plain.notes["history"][0]["train_loss"] == looked.notes["history"][0]["train_loss"]
    assert [facts["update"] for facts in of(events, "layers")] == [5, 11, 17]  # of 6 updates an epoch the last but one
    assert [facts["update"] for facts in of(more, "layers")] == list(range(1, 19))
    assert not of(before, "layers") and "looks" not in plain.notes
    last = of(events, "layers")[-1]
    assert looked.notes["looks"] == last == json.loads(json.dumps(last))
    names = [layer["name"] for layer in last["layers"]]
    assert names[0] == "trunks.0.0" and names[-1].startswith("heads.") and "rectifier" in names
    assert all(layer["gradients"]["norm"] > 0 for layer in last["layers"] if "weights" in layer)
    assert all(0 <= layer["activations"]["zeros"] <= 1 for layer in last["layers"])


def test_a_resumed_training_looks_at_the_same_updates(tmp_path):
    whole, told = train(tmp_path / "whole", listeners=["layers"])
    seen: Told = []

    class Killed(Exception):
        pass

    def log(event: str, facts: Any) -> None:
        seen.append((event, dict(facts)))
        if event == "epoch" and facts["epoch"] == 2:
            raise Killed

    step: Any = make("steps", {"train": {"epochs": 3, "batch_size": 16, "listeners": ["layers"],
                                         "checkpoint_seconds": 1e-6}})  # fmt: skip
    out = tmp_path / "killed"
    with pytest.raises(Killed):
        step(images_bundle(CONVNET), Run(out, seed=3, log=log))
    again: Told = []
    done = step(images_bundle(CONVNET), Run(out, seed=3, log=lambda event, facts: again.append((event, dict(facts)))))
    assert any("going on from the checkpoint" in facts["text"] for facts in of(again, "note"))
    assert sha(done) == sha(whole) and done.notes["looks"] == whole.notes["looks"] == of(told, "layers")[-1]


def test_a_listener_is_a_thing_of_a_slot_and_a_wrong_one_is_refused():
    assert set(catalog.entries("listeners")) == {"layers", "mlflow", "swanlab", "tensorboard", "wandb"}
    with pytest.raises(LuodiError, match="did you mean 'tensorboard'"):
        make("steps", {"train": {"listeners": ["tensorbord"]}})
    with pytest.raises(LuodiError, match=r"layers.*vanishing"):
        make("steps", {"train": {"listeners": [{"layers": {"vanishing": 2}}]}})
    step: Any = make(
        "steps", {"train": {"listeners": ["layers", "tensorboard", "wandb", {"mlflow": {"to": "http://x"}}]}}
    )
    assert step.packages() == {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}


@pytest.mark.parametrize("name", ["mlflow", "swanlab", "tensorboard", "wandb"])
def test_a_tracker_that_is_not_installed_names_its_extra(name, tmp_path, monkeypatch):
    real = importlib.import_module

    def without(package: str, *rest: Any) -> Any:
        if package.partition(".")[0] in (name, "alembic", "sqlalchemy"):
            raise ImportError(package)
        return real(package, *rest)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(MissingExtra, match=rf"pip install 'luodi\[{name}\]'"):
        train(tmp_path, {"convnet": {"widths": [4]}}, listeners=[name])


# ---- trackers, each read back with its own reader -------------------------------------------------------------------


def expected(events: Told) -> dict[str, list[tuple[int, float]]]:
    """Every number of a training by name: (update, value)."""
    found: dict[str, list[tuple[int, float]]] = {}

    def keep(done: int, numbers: Any) -> None:
        for key, value in numbers.items():
            found.setdefault(key, []).append((done, value))

    hear = Figures(keep)
    for event, facts in events:
        hear(event, facts)
    return found


def test_figures_have_the_update_they_belong_to():
    found = expected([
        ("note", {"text": "nothing"}),
        ("progress", {"done": 4, "total": 8, "what": "train", "loss": 1.5, "learning_rate": 0.1, "memory_mb": 9.0}),
        ("epoch", {"epoch": 1, "train_loss": 1.25, "validation_loss": None, "validation": {"y": math.nan}}),
        ("layers", {"update": 6, "layers": [{"name": "a", "gradients": {"norm": 3.0, "mean": None}, "update": 0.01}]}),
    ])  # fmt: skip
    assert found == {
        "train/loss": [(4, 1.5)], "train/learning_rate": [(4, 0.1)], "memory/process_mb": [(4, 9.0)],
        "epoch/train_loss": [(4, 1.25)],
        "layers/a/gradients.norm": [(6, 3.0)], "layers/a/update": [(6, 0.01)],
    }  # fmt: skip


def needs(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"{package} is not installed")


@needs("tensorboard")
def test_tensorboard_holds_every_number(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    plain, _ = train(tmp_path / "plain")
    done, events = train(tmp_path / "run", listeners=["layers", "tensorboard"])
    assert sha(done) == sha(plain)
    (folder,) = (tmp_path / "run" / "tensorboard").iterdir()
    read = EventAccumulator(str(folder)).Reload()
    wanted = expected(events)
    assert set(read.Tags()["scalars"]) == set(wanted) and len(wanted) > 50
    for name in ("train/loss", "validation/label.accuracy", "layers/hidden/gradients.norm"):
        got = [(one.step, one.value) for one in read.Scalars(name)]
        assert got == [(step, pytest.approx(value, rel=1e-6)) for step, value in wanted[name]]


@needs("mlflow")
def test_mlflow_holds_every_number_and_a_training_that_goes_on_keeps_its_run(tmp_path):
    pytest.importorskip("sqlalchemy")
    from mlflow import MlflowClient, active_run

    done, events = train(tmp_path / "run", listeners=["mlflow"])
    assert sha(done) == sha(train(tmp_path / "plain")[0]) and active_run() is None
    client = MlflowClient(f"sqlite:///{tmp_path / 'run' / 'mlflow.db'}")
    number = client.get_experiment_by_name("run").experiment_id
    (found,) = client.search_runs([number])
    assert found.info.status == "FINISHED" and found.data.params["epochs"] == "3"
    got = [(one.step, one.value) for one in client.get_metric_history(found.info.run_id, "validation/label.accuracy")]
    assert got == expected(events)["validation/label.accuracy"]
    train(tmp_path / "run", listeners=["mlflow"])
    assert len(client.search_runs([number])) == 1


@needs("wandb")
def test_wandb_offline_writes_a_run(tmp_path):
    done, _ = train(tmp_path / "run", listeners=["wandb"])
    assert sha(done) == sha(train(tmp_path / "plain")[0])
    (title,) = (tmp_path / "run" / "wandb").iterdir()
    files = list(title.rglob("run-*.wandb"))
    assert len(files) == 1 and files[0].stat().st_size > 1000
    text = files[0].read_bytes()
    assert b"validation/label.accuracy" in text and b"train/learning_rate" in text


@needs("swanlab")
def test_swanlab_local_writes_an_experiment(tmp_path):
    done, _ = train(tmp_path / "run", listeners=["swanlab"])
    assert sha(done) == sha(train(tmp_path / "plain")[0])
    texts = [path.read_bytes() for path in (tmp_path / "run" / "swanlab").rglob("*") if path.is_file()]
    assert any(b"validation/label.accuracy" in text for text in texts)


def test_titles_tell_trainings_apart(tmp_path):
    run = Run(tmp_path, seed=1, scope=("train", 0))
    title = title_of({"train": {"epochs": 1}}, run)
    assert title.startswith("train-") and title == title_of({"train": {"epochs": 1}}, run)
    others = [
        title_of({"train": {"epochs": 2}}, run),
        title_of({"train": {"epochs": 1}}, Run(tmp_path, scope=("train", 1))),
    ]
    assert len({title, *others}) == 3


# ---- progress -------------------------------------------------------------------------------------------------------


def test_pace_is_the_recent_speed_and_leaves_pauses_out():
    pace = Pace()
    pace.note(0.0, 0, 0)
    pace.note(10.0, 10, 100)  # one update a second
    assert pace.speed() == (1.0, 10.0)
    pace.rest(50.0)
    for second in range(1, 31):  # then four a second
        pace.note(60.0 + second, 10 + 4 * second, 100 + 40 * second)
    assert pace.speed() == pytest.approx((4.0, 40.0)) and pace.pause == 50.0


def test_progress_counts_the_pauses_that_are_to_come(monkeypatch, tmp_path):
    """10 updates an epoch of 1 s each, 5 s of validation, 4 epochs: 60 s in all."""
    now = [0.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    told: Told = []

    class State:
        total, step, epoch, at, checks = 40, 0, 0, 0, ()
        losses = torch.zeros(10)

        def read_losses(self) -> torch.Tensor:
            return self.losses[: self.at].double()

    state: Any = State()
    bar = progress_module.Progress(
        [lambda event, facts: told.append((event, dict(facts)))], lambda step, total, checks: step / 10
    )
    for epoch in range(4):
        state.epoch, state.at = epoch, 0
        for _ in range(10):
            bar.begin(state, 8)
            now[0] += 1.0
            state.step, state.at = state.step + 1, state.at + 1
            bar.tick(state)
        bar.tell(state)
        now[0] += 5.0
    by_step = {facts["done"]: facts for facts in of(told, "progress")}
    assert by_step[5]["remaining_seconds"] == 35.0 and by_step[5]["remaining_is_least"]
    assert by_step[15]["remaining_seconds"] == 25.0 + 3 * 5.0 and "remaining_is_least" not in by_step[15]
    assert by_step[40]["remaining_seconds"] == 5.0
    assert {facts["examples_a_second"] for facts in by_step.values()} == {8.0}
    assert by_step[7]["learning_rate"] == 0.6 and by_step[7]["epochs"] == 4 and by_step[7]["memory_mb"] > 50


def test_the_stream_keeps_few_ticks(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("luodi.core.folder.time.monotonic", lambda: now[0])
    ticks, kept = Ticks(), 0
    for _ in range(72_000):  # two hours, ten a second
        now[0] += 0.1
        kept += ticks.due({"step": 2, "what": "train", "done": 1, "total": 9})
    assert 900 < kept < 2000
    assert ticks.due({"step": 2, "what": "train", "done": 9, "total": 9})
    folder, heard = RunFolder(tmp_path, lambda event, facts: None), []
    folder.listener = lambda event, facts: heard.append(event)
    for done in range(20):
        folder.log("progress", {"done": done, "total": 100, "what": "train"})
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [line["done"] for line in lines] == [0] and len(heard) == 20


def test_the_terminal_says_loss_rate_speed_memory_and_time(capsys):
    facts = {
        "what": "train", "done": 3, "total": 9, "loss": 0.25, "learning_rate": 0.003, "examples_a_second": 5210.4,
        "memory_mb": 812.0, "device_mb": 40.0, "remaining_seconds": 3723.0,
    }  # fmt: skip
    assert said(facts) == "loss 0.2500, rate 0.003, 5,210/s, 812 MB, 40 MB of the device, 1:02:03 left"
    assert said({"remaining_seconds": 62.0, "remaining_is_least": True}) == "over 1:02 left" and said({}) == ""
    terminal = Terminal()
    flag = {"layer": "a", "what": "dead", "text": "60% of the units of a are dead"}
    for _ in range(2):
        terminal("layers", {"flags": [flag, {"layer": "b", "what": "vanish", "text": "gradients of b vanish"}]})
    assert capsys.readouterr().err.splitlines() == [
        "      ! 60% of the units of a are dead",
        "      ! gradients of b vanish",
    ]


def test_listeners_hear_a_table_too(tmp_path):
    events: Told = []
    run = Run(tmp_path, log=lambda event, facts: events.append((event, dict(facts))))
    step: Any = make("steps", {"train": {"epochs": 2, "listeners": ["layers"]}})
    step(table_bundle(SIDES, {"mlp": {"hidden": [8]}}), run)
    assert [facts["epoch"] for facts in of(events, "layers")] == [1, 2]
