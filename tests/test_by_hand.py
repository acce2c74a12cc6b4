from __future__ import annotations

import numpy as np
import pytest
import torch
from small_data import BOTH, IMAGES, SIDES, TOTALS, bundle_of, image_rows, images_bundle, sha, table_bundle, table_rows

from luodi.core.errors import LuodiError
from luodi.core.run import Run
from luodi.core.thing import dump, make
from luodi.train.loop.by_hand.bridge import flat, layers_of
from luodi.train.loop.by_hand.network import Momentum, backward, cross_entropy, forward, squared_error

MLP = {"mlp": {"hidden": [16, 8]}}


def by_hand(bundle, tmp_path, run=None, **fields):
    return make("steps", {"by_hand": fields})(bundle, run or Run(tmp_path))


def _losses(task, model, batch, truth):
    return sum(share * each.sum() / weights.sum() for each, weights, share in task.loss(model, batch, truth).values())


LABEL = {"category": {"label_smoothing": 0.1, "weight": 0.7}}
SMOOTH = {"supervised": {"inputs": IMAGES["supervised"]["inputs"], "targets": {"label": LABEL}}}


@pytest.mark.parametrize("kind", ["labels", "smoothed", "numbers"])
def test_gradients_are_those_of_autograd(tmp_path, kind):
    tasks = {"labels": IMAGES, "smoothed": SMOOTH, "numbers": TOTALS}
    rows = table_rows(40, 0) if kind == "numbers" else image_rows(40, 0)
    bundle = bundle_of(tasks[kind], MLP, rows).ready(Run(tmp_path))
    model, task = bundle.model.double(), bundle.task
    inputs, truth = task.encode(task.rows_to_requests(rows)), task.truth(rows)
    inputs = {name: array.astype(np.float64) for name, array in inputs.items()}
    (name,) = truth
    if kind == "numbers":
        truth[name] = truth[name].astype(np.float64)
    loss = _losses(
        task, model, {k: torch.from_numpy(v) for k, v in inputs.items()}, {name: torch.from_numpy(truth[name])}
    )
    loss.backward()

    layers = layers_of(model)
    values = forward(layers, flat(inputs))
    ours = squared_error if kind == "numbers" else cross_entropy
    smoothing = {"smoothing": 0.1} if kind == "smoothed" else {}
    mean, slope = ours(values[-1], truth[name], **smoothing)
    share = 0.7 if kind == "smoothed" else 1.0
    assert share * mean == pytest.approx(float(loss.detach()), rel=1e-9)
    linear = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    for found, module in zip(backward(layers, values, share * slope), linear, strict=True):
        for one, other in ((found.weight, module.weight.grad), (found.bias, module.bias.grad)):
            assert np.abs(one - other.numpy()).max() <= 1e-6 * np.abs(other.numpy()).max()


def test_gradients_are_those_of_small_differences():
    dice = np.random.default_rng(0)
    from luodi.train.loop.by_hand.network import Layer

    layers = [
        Layer(dice.normal(size=(5, 3)), dice.normal(size=5)),
        Layer(dice.normal(size=(4, 5)), dice.normal(size=4)),
    ]
    x, labels = dice.normal(size=(6, 3)), dice.integers(0, 4, 6)
    values = forward(layers, x)
    found = backward(layers, values, cross_entropy(values[-1], labels)[1])
    for layer, slope in zip(layers, found, strict=True):
        for array, slopes in ((layer.weight, slope.weight), (layer.bias, slope.bias)):
            place = tuple(int(dice.integers(side)) for side in array.shape)
            before, step, ends = array[place], 1e-6, []
            for sign in (1, -1):
                array[place] = before + sign * step
                ends.append(cross_entropy(forward(layers, x)[-1], labels)[0])
            array[place] = before
            assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(slopes[place], rel=1e-5, abs=1e-9)


def test_momentum_is_that_of_torch():
    torch.manual_seed(0)
    model, x = (
        torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2)).double(),
        torch.randn(9, 3),
    )
    twin, labels = (
        torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2)).double(),
        torch.arange(9) % 2,
    )
    twin.load_state_dict(model.state_dict())
    optimizer, x = torch.optim.SGD(twin.parameters(), lr=0.3, momentum=0.8), x.double()
    layers = layers_of(model)
    update = Momentum.still(layers, 0.8)
    for _ in range(5):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(twin(x), labels).backward()
        optimizer.step()
        values = forward(layers, x.numpy())
        update.move(backward(layers, values, cross_entropy(values[-1], labels.numpy())[1]), 0.3)
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-14)


def test_large_scores_do_not_overflow():
    mean, slope = cross_entropy(np.array([[1000.0, 0.0], [-1000.0, 1000.0]]), np.array([0, 0]))
    assert mean == pytest.approx(1000.0) and np.isfinite(slope).all()


def test_learns_images_and_the_weights_are_the_models_own(tmp_path):
    events = []
    run = Run(tmp_path, log=lambda event, facts: events.append(event))
    bundle = by_hand(images_bundle(MLP, 200), tmp_path, run, epochs=15)
    history = bundle.notes["history"]
    assert history[-1]["validation"]["label.accuracy"] >= 0.95 and history[-1]["train_loss"] < history[0]["train_loss"]
    assert events.count("epoch") == 15 and "progress" in events
    assert {"model", "float", "fitted", "exposed"} <= bundle.facts and not (tmp_path / "checkpoint").exists()
    assert [type(edit.step).__name__ for edit in bundle.edits] == ["ByHand"]
    rows = bundle.data["validation"]
    arrays = bundle.task.encode(bundle.task.rows_to_requests(rows))
    ours = forward(layers_of(bundle.model), flat(arrays))[-1]
    np.testing.assert_allclose(ours, bundle.predictor().forward(arrays)["label"], atol=1e-5)
    trained = make("steps", {"train": {"epochs": 1}})(
        bundle, Run(tmp_path / "more")
    )  # ordinary weights, ordinary steps
    assert trained.notes["history"][0]["train_loss"] < history[0]["train_loss"]


def test_learns_numbers(tmp_path):
    history = by_hand(table_bundle(TOTALS, MLP), tmp_path, epochs=30).notes["history"]
    assert history[-1]["validation"]["total.r2"] > 0.95


def test_same_seed_same_bits(tmp_path):
    one, two = (sha(by_hand(table_bundle(SIDES, MLP), tmp_path / name, epochs=2)) for name in "ab")
    assert one == two != sha(by_hand(table_bundle(SIDES, MLP), tmp_path / "c", Run(tmp_path / "c", seed=1), epochs=2))


def test_pruned_weights_stay_zero(tmp_path):
    bundle = by_hand(table_bundle(SIDES, MLP), tmp_path / "a", epochs=1)
    weight = bundle.model.layers[0].weight
    with torch.no_grad():
        weight[weight.abs() < weight.abs().median()] = 0
    pruned = (weight == 0).clone()
    assert torch.equal(by_hand(bundle, tmp_path / "b", epochs=2, zeros="keep").model.layers[0].weight == 0, pruned)
    assert (by_hand(bundle, tmp_path / "c", epochs=1, zeros="refill").model.layers[0].weight != 0).all()


def test_a_rehearsal_and_a_loss_that_is_no_number(tmp_path):
    notes = by_hand(table_bundle(SIDES, MLP), tmp_path / "a", Run(tmp_path / "a", rehearse=True), batch_size=4).notes
    assert notes["updates"] == 8 and len(notes["history"]) == 1
    with pytest.raises(LuodiError, match=r"the loss became (nan|inf) at update"), np.errstate(all="ignore"):
        by_hand(table_bundle(TOTALS, MLP), tmp_path / "b", learning_rate=1e9)


@pytest.mark.parametrize(
    ("task", "model", "reason"),
    [
        (SIDES, {"mlp": {"dropout": 0.1}}, "rectifier without dropout"),
        (SIDES, {"mlp": {"activation": "tanh"}}, "rectifier without dropout"),
        (IMAGES, "convnet", "not of convnet"),
        (BOTH, MLP, "this task has 2"),
        ({"supervised": {"inputs": {"x0": "category"}, "targets": {"side": "category"}}}, MLP, "x0 would need"),
        (
            {"supervised": {"inputs": {"x0": "number"}, "targets": {"total": {"number": {"distance": "huber"}}}}},
            MLP,
            "total is learned by another",
        ),
    ],
)
def test_objections_say_the_reason(task, model, reason):
    step = make("steps", "by_hand")
    assert reason in step.objection(make("tasks", task), make("models", model))
    assert step.objection(make("tasks", SIDES), make("models", MLP)) is None
    assert step.objection(make("tasks", IMAGES), make("models", "mlp")) is None


def test_a_model_that_is_no_chain_is_refused():
    class Branches(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = torch.nn.Linear(3, 4), torch.nn.Linear(5, 2)

    with pytest.raises(LuodiError, match="side branches"):
        layers_of(Branches())
    with pytest.raises(LuodiError, match="holds BatchNorm1d"):
        layers_of(torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)))


def test_config_round_trip():
    step = make("steps", {"by_hand": {"momentum": 0.5}})
    assert make("steps", dump(step)) == step
