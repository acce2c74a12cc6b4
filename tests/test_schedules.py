"""Every schedule against torch's or its closed form, and the range finder."""

from __future__ import annotations

import math
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from small_data import SIDES, TOTALS, bundle_of, sha, table_bundle, table_rows
from test_averages import stopped_at
from torch import nn
from torch.optim import lr_scheduler

from luodi.core.catalog import entries
from luodi.core.errors import LuodiError
from luodi.core.run import Run
from luodi.core.thing import dump, make
from luodi.train.loop.gradients import mean_loss
from luodi.train.loop.rates import steepest
from luodi.train.loop.slots import Check

MLP = {"mlp": {"hidden": [16]}}


def factors(schedule, total):
    made = make("schedules", schedule)
    return [made.factor(step, total) for step in range(total)]


def of_torch(total, make_one, rate=1.0):
    """The rates of a scheduler of torch, one step of it an update."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    scheduler, found = make_one(optimizer), []
    for _ in range(total):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_step_is_torchs():
    wanted = of_torch(100, lambda o: lr_scheduler.MultiStepLR(o, [30, 80], gamma=0.2))
    assert factors({"step": {"falls": [0.3, 0.8], "times": 0.2}}, 100) == pytest.approx(wanted, rel=1e-12)
    wanted = of_torch(100, lambda o: lr_scheduler.StepLR(o, 15, gamma=0.5))
    assert factors({"step": {"falls": 0.15, "times": 0.5}}, 100) == pytest.approx(wanted, rel=1e-12)


def test_exponential_is_torchs_and_its_stairs_touch_it():
    wanted = of_torch(80, lambda o: lr_scheduler.ExponentialLR(o, 0.01 ** (1 / 80)))
    smooth = factors({"exponential": {"end": 0.01}}, 80)
    assert smooth == pytest.approx(wanted, rel=1e-9)
    stairs = factors({"exponential": {"end": 0.01, "stair": 0.25}}, 80)
    assert stairs == pytest.approx(of_torch(80, lambda o: lr_scheduler.StepLR(o, 20, gamma=0.01**0.25)), rel=1e-12)
    assert [stairs[at] == smooth[at] for at in (0, 20, 40, 60)] == [True] * 4 and len(set(stairs)) == 4


def test_linear_is_torchs():
    wanted = of_torch(90, lambda o: lr_scheduler.LinearLR(o, 1.0, 0.2, total_iters=90))
    assert factors({"linear": {"warmup": 0.1, "floor": 0.2}}, 100)[10:] == pytest.approx(wanted, rel=1e-9)
    assert factors({"linear": {"warmup": 0.1}}, 100)[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])


def test_cosine_is_torchs():
    wanted = of_torch(90, lambda o: lr_scheduler.CosineAnnealingLR(o, 90, eta_min=0.2))
    assert factors({"cosine": {"warmup": 0.1, "floor": 0.2}}, 100)[10:] == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize(("shape", "called"), [("cosine", "cos"), ("linear", "linear")])
@pytest.mark.parametrize("total", [10, 97])
def test_one_cycle_is_torchs(shape, called, total):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    scheduler = lr_scheduler.OneCycleLR(
        optimizer, 0.5, total_steps=total, pct_start=0.3, anneal_strategy=called, cycle_momentum=False, div_factor=10,
        final_div_factor=100,
    )  # fmt: skip
    expected = [optimizer.param_groups[0]["lr"]]
    for _ in range(total - 1):
        optimizer.step()
        scheduler.step()
        expected.append(optimizer.param_groups[0]["lr"])
    ours = factors({"one_cycle": {"rise": 0.3, "start": 0.1, "end": 0.001, "shape": shape}}, total)
    assert [0.5 * factor for factor in ours] == pytest.approx(expected, rel=1e-9)
    assert ours[0] == pytest.approx(0.1) and ours[-1] == pytest.approx(0.001) and max(ours) <= 1


CYCLED = {
    "sgd": ({"momentum": 0.95, "variant": "nesterov"}, lambda p: torch.optim.SGD(p, momentum=0.95, nesterov=True)),
    "adamw": ({"betas": [0.95, 0.98]}, lambda p: torch.optim.AdamW(p, betas=(0.95, 0.98), weight_decay=0.01)),
    "rmsprop": ({"momentum": 0.95}, lambda p: torch.optim.RMSprop(p, momentum=0.95)),
}


@pytest.mark.parametrize("shape", ["cosine", "linear"])
@pytest.mark.parametrize("update", CYCLED)
def test_one_cycle_moves_momentum_as_torchs_does(update, shape):
    """A regression in two numbers, ten updates long: the same weights after each, rate and momentum both torch's."""
    dice = np.random.default_rng(0)
    x, y = (torch.from_numpy(dice.normal(size=shape)) for shape in ((20, 2), (20,)))
    fields, reference = CYCLED[update]
    ours, theirs = (nn.Linear(2, 1, bias=False, dtype=torch.float64) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    optimizer = reference(theirs.parameters())
    scheduler = lr_scheduler.OneCycleLR(
        optimizer, 0.05, total_steps=10, anneal_strategy=shape[:3] if shape == "cosine" else shape,
        base_momentum=0.85, max_momentum=0.95, div_factor=25, final_div_factor=1e4,
    )  # fmt: skip
    mover = make("updates", {update: fields}).build(ours)
    schedule = make("schedules", {"one_cycle": {"shape": shape, "momentum": 0.85 / 0.95}})
    seen = []
    for number in range(10):
        for model in (ours, theirs):
            model.zero_grad()
            (model(x).flatten() - y).square().mean().backward()
        mover.move(0.05 * schedule.factor(number, 10), schedule.damping(number, 10))
        group = optimizer.param_groups[0]
        seen.append(group["momentum"] if "momentum" in group else group["betas"][0])
        assert schedule.damping(number, 10) * 0.95 == pytest.approx(seen[-1], rel=1e-12)
        optimizer.step()
        if number < 9:
            scheduler.step()
        assert torch.allclose(ours.weight, theirs.weight, rtol=1e-10, atol=0), number
    assert seen[0] == pytest.approx(0.95) and min(seen) == pytest.approx(0.85) and seen[-1] == pytest.approx(0.95)


def test_momentum_stands_still_where_it_is_told_to_or_there_is_none():
    still = make("schedules", {"one_cycle": {"momentum": 1.0}})
    assert {still.damping(step, 30) for step in range(30)} == {1.0}
    others = [make("schedules", name) for name in set(entries("schedules")) - {"one_cycle"}]
    assert {one.damping(step, 30) for one in others for step in range(30)} == {1.0}
    for update in ("adagrad", "adafactor", "schedule_free", {"sgd": {"momentum": 0.0}}, "rmsprop"):
        ends = []
        for damping in (1.0, 0.5):
            model = nn.Linear(3, 2, bias=False)
            nn.init.ones_(model.weight)
            mover = make("updates", update).build(model)
            for number in range(3):
                model.zero_grad()
                model(torch.arange(3.0 + number)[-3:]).square().sum().backward()
                mover.move(0.01, damping)
            ends.append(model.weight.detach().clone())
        assert torch.equal(*ends), update


@pytest.mark.parametrize(
    "update", sorted(set(entries("updates")) - {"adagrad", "adafactor", "schedule_free", "rmsprop"})
)
def test_every_momentum_hears_of_it(update):
    """A damped update goes as one does whose own momentum is that much lower."""
    fields = {
        "sgd": lambda m: {"momentum": m}, "muon": lambda m: {"momentum": m, "betas": [m, 0.9]},
        "l1": lambda m: {"of": {"sgd": {"momentum": m}}},
    }.get(update, lambda m: {"betas": [m, 0.9]})  # fmt: skip
    ends = []
    for momentum, damping in ((0.8, 0.5), (0.4, 1.0), (0.8, 1.0)):
        torch.default_generator.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 1))
        mover = make("updates", {update: fields(momentum)}).build(model)
        for number in range(4):
            model.zero_grad()
            model(torch.linspace(-1, 1 + number, 64)).square().sum().backward()
            mover.move(0.01, damping)
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.allclose(ends[0], ends[1], rtol=1e-6, atol=1e-7) and not torch.allclose(ends[0], ends[2], rtol=1e-4)


@pytest.mark.parametrize("patience", [0, 1, 3])
@pytest.mark.parametrize("cooldown", [0, 2])
def test_plateau_is_torchs(patience, cooldown):
    """Random losses, falling on the whole: after each check the rate that ReduceLROnPlateau has."""
    dice = np.random.default_rng(patience * 10 + cooldown)
    losses = np.exp(-np.arange(60) / 30) + dice.normal(0, 0.15, 60) + 1
    fields = {"times": 0.5, "patience": patience, "cooldown": cooldown, "floor": 0.01, "least": 1e-2}
    made = make("schedules", {"plateau": fields})
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = lr_scheduler.ReduceLROnPlateau(
        optimizer, "min", factor=0.5, patience=patience, cooldown=cooldown, min_lr=0.01, threshold=1e-2, eps=0
    )
    checks = []
    for loss in losses:
        scheduler.step(float(loss))
        checks.append(Check(float(loss), math.nan))
        assert made.factor(500, 1000, checks) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
    assert made.factor(0, 1000) == 1.0 > made.factor(0, 1000, checks)


def test_plateau_of_a_metric_wants_it_higher():
    made = make("schedules", {"plateau": {"watch": "metric", "patience": 1}})
    assert made.fallen([Check(1.0, score) for score in (0.1, 0.2, 0.3, 0.4)]) == 0
    assert made.fallen([Check(1.0 - score, score) for score in (0.4, 0.3, 0.35, 0.36)]) == 1
    assert made.fallen([Check(1.0, math.nan)] * 4) == 2  # undefined is nothing better


@pytest.mark.parametrize("name", sorted(entries("schedules")))
def test_whatever_the_length(name):
    """Finite and in [0, 1] at every update of trainings of any length; a plain value that comes back from JSON."""
    made = make("schedules", name)
    for total in (1, 2, 3, 7, 50):
        found = [made.factor(step, total) for step in range(total)]
        assert all(math.isfinite(factor) and 0 <= factor <= 1 for factor in found) and max(found) > 0
    assert make("schedules", dump(made)) == made


@pytest.mark.parametrize("name", sorted(set(entries("schedules")) - {"one_cycle"}))
def test_warm_up(name):
    made = make("schedules", {name: {"warmup": 0.2}})
    rising = [made.factor(step, 50) for step in range(10)]
    assert rising[0] < 0.11 and rising == sorted(rising) and made.factor(10, 50) > 0.6


def trained(folder, log=None, bundle=None, **fields):
    run = Run(folder) if log is None else Run(folder, log=log)
    return make("steps", {"train": {"batch_size": 16, **fields}})(bundle or table_bundle(SIDES, MLP), run)


def shuffled_bundle():
    """Validation labels that nothing can be learned of: the loss soon gets worse."""
    train, validation = table_rows(48, 0), table_rows(48, 1)
    labels = np.random.default_rng(0).permutation(validation.column("side")).tolist()
    held_out = type(validation)(validation.table.set_column(validation.columns.index("side"), "side", [labels]))
    return bundle_of(SIDES, {"mlp": {"hidden": [64]}}, train, held_out)


def test_plateau_in_a_training_goes_on_bit_for_bit(tmp_path):
    fields = {"epochs": 8, "learning_rate": 0.02, "schedule": {"plateau": {"patience": 1}}}
    whole = trained(tmp_path / "whole", bundle=shuffled_bundle(), **fields)
    rates = [entry["learning_rate"] for entry in whole.notes["history"]]
    assert rates[0] == 0.02 and rates[-1] <= 0.002 and rates == sorted(rates, reverse=True)
    fields["checkpoint_seconds"] = 1e-6
    stopped_at(tmp_path, lambda log: trained(tmp_path, log, bundle=shuffled_bundle(), **fields), epoch=6)
    again = trained(tmp_path, bundle=shuffled_bundle(), **fields)
    assert sha(again) == sha(whole) and [entry["learning_rate"] for entry in again.notes["history"]] == rates


@pytest.mark.parametrize("update", [{"sgd": {"momentum": 0.95}}, {"adamw": {"betas": [0.95, 0.99]}}], ids=str)
def test_one_cycle_in_a_training_is_torchs_and_goes_on_bit_for_bit(tmp_path, update):
    """One batch an epoch, so that the order of the rows is no matter: a bare loop with torch's scheduler beside it."""
    fields = {"epochs": 8, "batch_size": 64, "learning_rate": 0.02, "update": update}
    fields["schedule"] = {"one_cycle": {"momentum": 0.85 / 0.95}}
    bundle = bundle_of(SIDES, MLP, table_rows(48, 0), table_rows(48, 1)).ready(Run(tmp_path))
    reference, task, data = deepcopy(bundle.model), bundle.task, bundle.data
    whole = trained(tmp_path / "whole", bundle=bundle, **fields)
    inputs = {
        name: torch.from_numpy(array) for name, array in task.encode(task.rows_to_requests(data["train"])).items()
    }
    truth = {name: torch.from_numpy(array) for name, array in task.truth(data["train"]).items()}
    if "sgd" in update:
        optimizer = torch.optim.SGD(reference.parameters(), 0.02, momentum=0.95)
    else:
        decayed = [p for p in reference.parameters() if p.dim() > 1]
        spared = [{"params": [p for p in reference.parameters() if p.dim() < 2], "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW([{"params": decayed}, *spared], 0.02, betas=(0.95, 0.99))
    scheduler = lr_scheduler.OneCycleLR(optimizer, 0.02, total_steps=8, div_factor=25, final_div_factor=1e4)
    for number in range(8):
        optimizer.zero_grad()
        mean_loss(task.loss(reference, inputs, truth)).backward()
        optimizer.step()
        if number < 7:
            scheduler.step()
    for name, weight in whole.model.named_parameters():
        assert torch.allclose(weight, reference.get_parameter(name), rtol=1e-4, atol=1e-6), name
    fields["checkpoint_seconds"] = 1e-6

    def again(log=None):
        rows = table_rows(48, 0), table_rows(48, 1)
        return trained(tmp_path, log, bundle_of(SIDES, MLP, *rows), **fields)

    stopped_at(tmp_path, again, epoch=5)
    assert sha(again()) == sha(whole)


def test_plateau_without_validation_rows_is_refused(tmp_path):
    with pytest.raises(LuodiError, match="this schedule needs validation rows"):
        trained(tmp_path, bundle=bundle_of(SIDES, MLP, table_rows(32, 0)), schedule="plateau")


@pytest.mark.parametrize("name", sorted(entries("schedules")))
def test_learns(tmp_path, name):
    history = trained(tmp_path, epochs=6, learning_rate=0.02, schedule=name).notes["history"]
    assert history[-1]["validation_loss"] < 0.6 * math.log(2) and history[-1]["train_loss"] < history[0]["train_loss"]


# ---- the range finder ---------------------------------------------------------------------------------------------


def test_the_steepest_descent_is_found():
    """A sigmoid over the logarithm of the rate: steepest at its middle, whatever comes after the lowest point."""
    rates = np.logspace(-6, 1, 100)
    falling = 2.3 - 2 / (1 + np.exp(-3 * (np.log(rates) - math.log(3e-3))))
    rising = np.where(rates > 0.1, 4 * np.log(rates / 0.1), 0)
    dice = np.random.default_rng(0)
    difficulty = dice.normal(0, 0.5, 100)  # of the batches: the same for both copies
    losses = falling + rising + difficulty + dice.normal(0, 0.02, 100)
    found = steepest(_curve(rates, losses, 2.3 + difficulty))
    assert found is not None and 3e-3 / 1.5 < found < 3e-3 * 1.5
    assert steepest(_curve(rates, np.linspace(2.3, 3, 100) + difficulty, 2.3 + difficulty)) is None
    assert steepest(_curve(rates[:2], [2.0, 1.0], [2.0, 2.0])) is None


def _curve(rates, losses, still):
    return [{"rate": r, "loss": a, "still": b} for r, a, b in zip(rates, losses, still, strict=True)]


def test_auto_is_a_rate_that_learns_and_its_curve_is_told(tmp_path):
    notes = []
    log = lambda event, facts: notes.append(facts["text"]) if event == "note" else None  # noqa: E731
    done = trained(tmp_path, log, epochs=6, learning_rate="auto")
    curve, rate = done.notes["rates"], done.notes["learning_rate"]
    assert 10 < len(curve) <= 100 and [each["rate"] for each in curve] == sorted(each["rate"] for each in curve)
    assert curve[0]["rate"] == 1e-6 and curve[1]["rate"] / curve[0]["rate"] == pytest.approx(1e7 ** (1 / 99))
    assert all(math.isfinite(each["loss"]) for each in curve) and any(each["rate"] == rate for each in curve)
    assert any(note.startswith(f"learning rate {rate:.2g}") for note in notes)
    assert done.notes["history"][-1]["validation_loss"] < 0.6 * math.log(2)
    given = trained(tmp_path / "given", epochs=6, learning_rate=rate)
    assert sha(given) == sha(done)  # the search leaves no trace in the training but the rate
    assert list(tmp_path.rglob("rates*")) == []


def test_auto_stops_at_a_loss_that_is_no_number(tmp_path):
    update = {"sgd": {"momentum": 0.0}}
    done = trained(tmp_path, bundle=table_bundle(TOTALS, MLP), epochs=4, learning_rate="auto", update=update)
    assert len(done.notes["rates"]) < 100 and done.notes["learning_rate"] < 1
    history = done.notes["history"]
    assert history[-1]["train_loss"] < history[0]["train_loss"]


def test_auto_without_a_descent_is_refused(tmp_path):
    still = f"{Path(__file__).with_name('own_update.py')}:Uphill"
    with pytest.raises(LuodiError, match="no rate at which the loss falls"):
        trained(tmp_path, learning_rate="auto", update=still)


@pytest.mark.parametrize(
    "fields", [{}, {"average": "ema", "accumulate": 2, "batch_size": 8}], ids=["plain", "averaged"]
)
def test_auto_goes_on_bit_for_bit(tmp_path, fields, monkeypatch):
    fields = {"epochs": 4, "learning_rate": "auto", "update": "rmsprop", **fields}
    whole = trained(tmp_path / "whole", **fields)
    stopped_at(tmp_path, lambda log: trained(tmp_path, log, checkpoint_seconds=1e-6, **fields), epoch=2)
    monkeypatch.setattr("luodi.train.loop.rates._tried", lambda *_: pytest.fail("searched again"))
    again = trained(tmp_path, checkpoint_seconds=1e-6, **fields)
    assert sha(again) == sha(whole) and again.notes["rates"] == whole.notes["rates"]


def test_a_rehearsal_tries_a_handful(tmp_path):
    run = Run(tmp_path, rehearse=True)
    done = make("steps", {"train": {"learning_rate": "auto"}})(table_bundle(SIDES, MLP), run)
    assert len(done.notes["rates"]) == 8 and done.notes["updates"] <= 8


def test_the_report_draws_the_curve():
    from luodi.core.evidence import Evidence
    from luodi.report.panels.rates import Rates

    curve = [{"rate": 1e-3, "loss": 2.0, "still": 2.0}, {"rate": 1e-2, "loss": 1.5, "still": 2.1}]

    class Seen:
        evidence = tuple(
            Evidence(step=None, form="torch", number=number, name="train", notes=notes)
            for number, notes in enumerate([{"rates": curve, "learning_rate": 1e-2}, {}])
        )

    panel = Rates()
    assert panel.wanted(Seen())
    html = panel.html(Seen())
    assert html.count("<figure") == 1 and "0.01" in html and '"type": "log"' in html
