"""Averages of the weights: against their formulas, validated and kept, and resumed bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_data import SIDES, bundle_of, images_bundle, sha, table_rows
from torch import nn

from luodi.core.run import Run
from luodi.core.thing import make
from luodi.train.loop.averaging import Lending, estimate_statistics

CONVNET = {"convnet": {"widths": [4, 8], "hidden": 16, "dropout": 0.2}}


def trained(bundle, folder, run=None, **fields):
    return make("steps", {"train": {"batch_size": 16, **fields}})(bundle, run or Run(folder))


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, dtype=torch.float64))
        self.frozen = nn.Parameter(torch.ones(1), requires_grad=False)
        self.register_buffer("seen", torch.zeros(1, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))


def _walk(average, updates):
    """The weights after each update, and the averager that was told of them."""
    model, dice, path = Two(), np.random.default_rng(0), []
    averager = make("averages", average).build(model)
    for done in range(1, updates + 1):
        path.append(dice.normal(size=2))
        with torch.no_grad():
            model.weight.copy_(torch.from_numpy(path[-1]))
            model.seen.fill_(float(done))
            model.count.add_(1)
        averager.after(done, updates)
    return model, averager, np.array(path)


def test_ema_is_its_formula_buffers_included():
    model, averager, path = _walk({"ema": {"decay": 0.6}}, 30)
    expected, seen = path[0], 1.0
    for done, weights in enumerate(path[1:], 2):
        decay = min(0.6, (1 + done) / (10 + done))
        expected, seen = decay * expected + (1 - decay) * weights, decay * seen + (1 - decay) * done
    with Lending(averager, model=model).lent():
        np.testing.assert_allclose(model.weight.detach().numpy(), expected, rtol=1e-12)
        assert float(model.seen) == pytest.approx(seen, rel=1e-12) and int(model.count) == 30
    np.testing.assert_array_equal(model.weight.detach().numpy(), path[-1])
    assert float(model.seen) == 30 and {id(tensor) for tensor, _ in averager.pairs()} == {
        id(model.weight),
        id(model.seen),
    }


def test_swa_is_the_mean_from_its_start_on():
    model, averager, path = _walk({"swa": {"start": 0.6}}, 25)
    Lending(averager, model=model).finish()
    np.testing.assert_allclose(model.weight.detach().numpy(), path[15:].mean(0), rtol=1e-12)


def test_swa_before_its_start_lends_nothing():
    model, averager, path = _walk({"swa": {"start": 0.9}}, 8)
    early = make("averages", {"swa": {"start": 0.9}}).build(model)
    early.after(3, 8)
    assert not early.pairs() and averager.pairs()
    with Lending(early, model=model).lent():
        np.testing.assert_array_equal(model.weight.detach().numpy(), path[-1])


def test_statistics_are_those_of_torch():
    torch.manual_seed(0)
    layers = [
        nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2), nn.BatchNorm1d(2)) for _ in "ab"
    ]
    layers[1].load_state_dict(layers[0].state_dict())
    batches = [torch.randn(16, 3) * 3 + 1 for _ in range(7)]

    class Named(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(x)

    ours, theirs = Named(layers[0]).eval(), layers[1]
    estimate_statistics(ours, [{"x": batch} for batch in batches])
    torch.optim.swa_utils.update_bn(batches, theirs)
    for one, other in zip(ours.inner.buffers(), theirs.buffers(), strict=True):
        assert torch.equal(one, other)
    assert not ours.training and all(norm.momentum == 0.1 for norm in (ours.inner[1], ours.inner[4]))


@pytest.mark.parametrize("average", [{"ema": {"decay": 0.9}}, {"swa": {"start": 0.4}}], ids=lambda a: next(iter(a)))
def test_averages_are_validated_and_kept(tmp_path, average):
    """What comes out answers as the last check said; the path of the trained weights is that without an average."""
    plain = trained(images_bundle(CONVNET), tmp_path / "a", epochs=3, schedule="constant", learning_rate=0.01)
    done = trained(
        images_bundle(CONVNET), tmp_path / "b", epochs=3, schedule="constant", learning_rate=0.01, average=average
    )
    one, other = ([entry["train_loss"] for entry in bundle.notes["history"]] for bundle in (plain, done))
    assert one == other and sha(plain) != sha(done)
    exam = done.task.examine(done.predictor(), done.data["validation"], np.inf)
    loss = done.notes["history"][-1]["validation_loss"]
    assert done.task.score(exam)["label.loss"] == pytest.approx(loss, rel=1e-4)
    assert loss != plain.notes["history"][-1]["validation_loss"]
    assert all(torch.isfinite(tensor).all() for tensor in done.model.state_dict().values())


def test_patience_brings_averaged_weights_back(tmp_path):
    train, validation = table_rows(48, 0), table_rows(48, 1)
    labels = np.random.default_rng(0).permutation(validation.column("side")).tolist()
    shuffled = type(validation)(validation.table.set_column(validation.columns.index("side"), "side", [labels]))
    bundle = bundle_of(SIDES, {"mlp": {"hidden": [64]}}, train, shuffled)
    fields = {"epochs": 60, "learning_rate": 0.02, "patience": 3, "watch": "loss", "average": {"ema": {"decay": 0.8}}}
    done = trained(bundle, tmp_path, **fields)
    losses = [entry["validation_loss"] for entry in done.notes["history"]]
    best = int(np.argmin(losses))
    assert len(losses) == best + 1 + 3 < 60
    exam = done.task.examine(done.predictor(), shuffled, np.inf)
    assert done.task.score(exam)["side.loss"] == pytest.approx(losses[best], rel=1e-4)


@pytest.mark.parametrize(
    "fields",
    [
        {"average": {"ema": {"decay": 0.9}}},
        {"average": {"swa": {"start": 0.3}}, "patience": 3},
        {"average": {"swa": {"start": 0.3}}, "augment": ["affine"], "accumulate": 2, "batch_size": 8},
    ],
    ids=["ema", "swa and patience", "swa, augmented"],
)
def test_a_stopped_training_goes_on_bit_for_bit(tmp_path, fields):
    whole = trained(images_bundle(CONVNET), tmp_path / "whole", epochs=4, **fields)
    stopped_at(tmp_path, lambda log: trained(images_bundle(CONVNET), tmp_path, Run(tmp_path, log=log), epochs=4,
                                             checkpoint_seconds=1e-6, **fields))  # fmt: skip
    again = trained(images_bundle(CONVNET), tmp_path, epochs=4, checkpoint_seconds=1e-6, **fields)
    assert sha(again) == sha(whole)
    assert _told(again) == _told(whole)


def stopped_at(folder, train, epoch=3):
    """Ends a training in the middle, after a checkpoint."""

    def log(event, facts):
        if event == "epoch" and facts["epoch"] == epoch:
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        train(log)
    assert (folder / "checkpoint" / "state.safetensors").exists()


def _told(bundle):
    return [{name: value for name, value in entry.items() if name != "seconds"} for entry in bundle.notes["history"]]
