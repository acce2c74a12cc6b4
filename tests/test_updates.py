"""Every update: five steps against torch, torchao or the paper; the same bits after a checkpoint; learning."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from small_data import SIDES, images_bundle, sha, table_bundle
from test_averages import stopped_at
from torch import nn

from luodi.core.catalog import entries
from luodi.core.run import Run
from luodi.core.thing import WrongThing, dump, make

RATE = 0.1
# Settings that differ from the defaults, so that each of them is seen at work.
UPDATES = {
    "sgd": {"momentum": 0.8, "variant": "nesterov", "weight_decay": 0.3},
    "rmsprop": {"keep": 0.9, "momentum": 0.5, "epsilon": 1e-6, "centered": True, "weight_decay": 0.3},
    "adagrad": {"epsilon": 1e-6, "weight_decay": 0.3},
    "adam": {"betas": [0.8, 0.95], "weight_decay": 0.3},
    "adamw": {"betas": [0.8, 0.95], "weight_decay": 0.3},
    "lion": {"betas": [0.8, 0.95], "weight_decay": 0.3},
    "adafactor": {"forget": -0.7, "smallest": 1e-2, "clip": 1.0, "weight_decay": 0.3},
    "muon": {"momentum": 0.9, "rounds": 4, "betas": [0.8, 0.95], "weight_decay": 0.3},
    "schedule_free": {"betas": [0.8, 0.95], "epsilon": 1e-6, "weight_decay": 0.3},
    "adamw8bit": {"betas": [0.8, 0.95], "weight_decay": 0.3},
    "l1": {"of": {"sgd": {"momentum": 0.8}}, "strength": 0.05},
}


class Small(nn.Module):
    """A matrix that decays, a bias and a scale that do not, and a head."""

    def __init__(self, kind=torch.float64, side=3):
        super().__init__()
        torch.manual_seed(1)
        self.hidden = nn.Linear(side, side, dtype=kind)
        self.norm = nn.LayerNorm(side, bias=False, dtype=kind)
        self.heads = nn.Linear(side, 2, dtype=kind)
        self.x = torch.randn(20, side, dtype=kind)

    def loss(self):
        return (self.heads(self.norm(torch.tanh(self.hidden(self.x)))) - self.x[:, :2] ** 2).square().mean()

    def slopes(self):
        self.zero_grad()
        self.loss().backward()


def test_every_update_is_here():
    assert set(UPDATES) == set(entries("updates"))


def _beside(update, reference, kind=torch.float64, side=3, steps=5, exact=True):
    """Our model and another that `reference(model)` moves: the same weights after each step."""
    ours, theirs = Small(kind, side), Small(kind, side)
    mover, step = make("updates", {update: UPDATES[update]}).build(ours), reference(theirs)
    for number in range(steps):
        ours.slopes()
        theirs.slopes()
        rate = RATE / (1 + number)  # a schedule's
        mover.move(rate)
        step(rate)
        for name, one in ours.named_parameters():
            other = theirs.get_parameter(name)
            assert torch.allclose(one, other, rtol=1e-12 if exact else 1e-6, atol=0 if exact else 1e-7), (name, number)
    assert not torch.allclose(ours.hidden.weight, Small(kind, side).hidden.weight)


def _of_torch(kind, **fields):
    """A step of an optimizer of torch with the same groups."""

    def reference(model):
        decayed = [model.hidden.weight, model.heads.weight]
        others = [model.hidden.bias, model.norm.weight, model.heads.bias]
        groups = [{"params": decayed, "weight_decay": 0.3}, {"params": others, "weight_decay": 0.0}]
        optimizer = kind(groups, lr=RATE, **fields)

        def step(rate):
            for group in optimizer.param_groups:
                group["lr"].fill_(rate) if isinstance(group["lr"], torch.Tensor) else group.update(lr=rate)
            optimizer.step()

        return step

    return reference


def _by_formula(formula, matrices_only=False):
    """A step of a formula over NumPy arrays: (weights, slopes, memory, step, rate, decay) -> weights."""

    def reference(model):
        memory, count = {name: {} for name, _ in model.named_parameters()}, [0]

        def step(rate):
            count[0] += 1
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    decay = 0.3 if name in ("hidden.weight", "heads.weight") else 0.0
                    w, g = parameter.numpy().copy(), parameter.grad.numpy()
                    parameter.copy_(torch.from_numpy(formula(w, g, memory[name], count[0], rate, decay)))

        return step

    return reference


def test_rmsprop_is_torchs():
    _beside("rmsprop", _of_torch(torch.optim.RMSprop, alpha=0.9, momentum=0.5, eps=1e-6, centered=True, foreach=False))


def test_rmsprop_is_its_formula():
    def formula(w, g, memory, step, rate, decay):
        g = g + decay * w
        memory["s"] = 0.9 * memory.get("s", 0) + 0.1 * g * g
        memory["g"] = 0.9 * memory.get("g", 0) + 0.1 * g
        memory["v"] = 0.5 * memory.get("v", 0) + g / (np.sqrt(memory["s"] - memory["g"] ** 2) + 1e-6)
        return w - rate * memory["v"]

    _beside("rmsprop", _by_formula(formula))


def test_adagrad_is_torchs():
    _beside("adagrad", _of_torch(torch.optim.Adagrad, eps=1e-6))


def test_adagrad_is_its_formula():
    def formula(w, g, memory, step, rate, decay):
        g = g + decay * w
        memory["s"] = memory.get("s", 0) + g * g
        return w - rate * g / (np.sqrt(memory["s"]) + 1e-6)

    _beside("adagrad", _by_formula(formula))


def test_adam_and_adamw_are_torchs():
    _beside("adam", _of_torch(torch.optim.Adam, betas=(0.8, 0.95)))
    _beside("adamw", _of_torch(torch.optim.AdamW, betas=(0.8, 0.95)))


def test_sgd_is_torchs():
    _beside("sgd", _of_torch(torch.optim.SGD, momentum=0.8, nesterov=True))


def test_lion_is_its_formula():
    def formula(w, g, memory, step, rate, decay):
        m = memory.get("m", 0)
        memory["m"] = 0.95 * m + 0.05 * g
        return w - rate * (np.sign(0.8 * m + 0.2 * g) + decay * w)

    _beside("lion", _by_formula(formula))


def test_adafactor_is_torchs():
    _beside("adafactor", _of_torch(torch.optim.Adafactor, beta2_decay=-0.7, eps=(None, 1e-2), d=1.0))


def test_adafactor_is_its_formula():
    """Algorithm 4 and 5 of the paper, with torch's eps1: the machine's."""

    def formula(w, g, memory, step, rate, decay):
        keep, tiny, rms = 1 - step**-0.7, np.finfo(w.dtype).eps, lambda a: np.sqrt(np.mean(a * a))
        size = max(1e-2, rms(w)) * min(rate, 1 / math.sqrt(step))
        w = w * (1 - rate * decay)
        if w.ndim == 2:
            memory["r"] = keep * memory.get("r", 0) + (1 - keep) * (g * g).mean(1, keepdims=True)
            memory["c"] = keep * memory.get("c", 0) + (1 - keep) * (g * g).mean(0, keepdims=True)
            square = memory["r"] @ memory["c"] / memory["r"].mean()
        else:
            square = memory["v"] = keep * memory.get("v", 0) + (1 - keep) * g * g
        move = g / np.sqrt(np.maximum(square, tiny * tiny))
        return w - size * move / max(1, rms(move))

    _beside("adafactor", _by_formula(formula))


def test_adafactor_remembers_rows_and_columns_alone():
    model = Small(side=64)
    mover = make("updates", "adafactor").build(model)
    model.slopes()
    mover.move(RATE)
    kept = sum(tensor.numel() for tensor in mover.memory.tensors().values())
    assert kept < 0.12 * sum(parameter.numel() for parameter in model.parameters())


def _orthogonal(g, rounds):
    """Newton and Schulz as the paper has them."""
    a, b, c = 3.4445, -4.775, 2.0315
    x = g / np.linalg.norm(g)
    for _ in range(rounds):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def test_muon_is_its_formula():
    def formula(w, g, memory, step, rate, decay):
        w = w * (1 - rate * decay)
        if w.shape == (3, 3):
            memory["m"] = 0.9 * memory.get("m", 0) + 0.1 * g
            return w - rate * 0.2 * math.sqrt(3) * _orthogonal(0.1 * g + 0.9 * memory["m"], 4)
        return _adam(w, g, memory, step, rate)

    _beside("muon", _by_formula(formula))


def test_muon_in_bf16_is_torchs(monkeypatch):
    def reference(model):
        muon = torch.optim.Muon(
            [model.hidden.weight], momentum=0.9, ns_steps=4, weight_decay=0.3, adjust_lr_fn="match_rms_adamw"
        )
        rest = torch.optim.AdamW(
            [{"params": [model.heads.weight], "weight_decay": 0.3},
             {"params": [model.hidden.bias, model.norm.weight, model.heads.bias], "weight_decay": 0.0}],
            betas=(0.8, 0.95),
        )  # fmt: skip

        def step(rate):
            for optimizer in (muon, rest):
                for group in optimizer.param_groups:
                    group["lr"] = rate
                optimizer.step()

        return step

    monkeypatch.setattr("luodi.train.loop.updates.muon.arithmetic", lambda weight: torch.bfloat16)
    _beside("muon", reference)
    _beside("muon", reference, torch.float32, 20, exact=False)


def test_muon_moves_are_nearly_orthogonal_and_of_adamws_size():
    torch.manual_seed(0)
    for shape in ((30, 70), (70, 30), (50, 50)):
        layer = nn.Linear(*shape, bias=False)
        before = layer.weight.detach().clone()
        layer.weight.grad = torch.randn_like(layer.weight) ** 3
        make("updates", {"muon": {"weight_decay": 0.0}}).build(nn.ModuleDict({"a": layer})).move(0.01)
        moved = (layer.weight.detach() - before) / 0.01
        values = torch.linalg.svdvals(moved) / (0.2 * math.sqrt(max(shape)))
        assert 0.5 < float(values.median()) < 1.3 and float(values.max()) < 1.3
        assert 0.1 < float(moved.square().mean().sqrt()) < 0.25


def test_muon_leaves_tables_and_convolutions_to_adamw():
    from luodi.train.loop.updates.muon import hidden_matrices

    model = nn.ModuleDict(
        {
            "a": nn.Conv1d(2, 3, 3),
            "b": nn.Embedding(4, 5),
            "c": nn.Linear(5, 6),
            "heads": nn.ModuleList([nn.Linear(6, 2)]),
        }
    )
    assert [id(one) for one in hidden_matrices(model)] == [id(model["c"].weight)]
    conv = nn.ModuleDict({"a": nn.Conv1d(2, 3, 3)})
    assert (
        make("updates", "muon").build(conv).memory.tensors().keys()
        == make("updates", "adamw").build(conv).memory.tensors().keys()
    )


def _adam(w, g, memory, step, rate, one=0.8, two=0.95, eps=1e-8):
    memory["m"] = one * memory.get("m", 0) + (1 - one) * g
    memory["v"] = two * memory.get("v", 0) + (1 - two) * g * g
    return w - rate * (memory["m"] / (1 - one**step)) / (np.sqrt(memory["v"] / (1 - two**step)) + eps)


def test_schedule_free_is_its_formula():
    """Algorithm 1 of the paper: z moves, x is the mean of z by squared rates, gradients at y between them."""
    ours = Small()
    mover = make("updates", {"schedule_free": UPDATES["schedule_free"]}).build(ours)
    z = {name: p.detach().numpy().copy() for name, p in ours.named_parameters()}
    x, v, weight, largest = {name: w.copy() for name, w in z.items()}, dict.fromkeys(z, 0.0), 0.0, 0.0
    rates = [0.02, 0.06, 0.1, 0.1, 0.05]
    for step, rate in enumerate(rates, 1):
        ours.slopes()
        slopes = {name: p.grad.numpy().copy() for name, p in ours.named_parameters()}
        mover.move(rate)
        largest = max(largest, rate)
        weight += largest**2
        for name, parameter in ours.named_parameters():
            y = 0.2 * z[name] + 0.8 * x[name]
            v[name] = 0.95 * v[name] + 0.05 * slopes[name] ** 2
            decay = 0.3 if name in ("hidden.weight", "heads.weight") else 0.0
            move = slopes[name] / (np.sqrt(v[name] / (1 - 0.95**step)) + 1e-6) + decay * y
            z[name] = z[name] - rate * move
            x[name] += largest**2 / weight * (z[name] - x[name])
            np.testing.assert_allclose(parameter.detach().numpy(), 0.2 * z[name] + 0.8 * x[name], rtol=1e-9)
    shown = {id(tensor): value for tensor, value in mover.shown.pairs()}
    for name, parameter in ours.named_parameters():
        np.testing.assert_allclose(shown[id(parameter)].numpy(), x[name], rtol=1e-9)


def test_schedule_free_is_validated_and_kept_as_its_average(tmp_path):
    fields = {"update": "schedule_free", "schedule": "constant", "learning_rate": 0.01, "epochs": 3, "batch_size": 16}
    done = make("steps", {"train": fields})(images_bundle({"convnet": {"widths": [4, 8], "hidden": 16}}), Run(tmp_path))
    exam = done.task.examine(done.predictor(), done.data["validation"], math.inf)
    assert done.task.score(exam)["label.loss"] == pytest.approx(done.notes["history"][-1]["validation_loss"], rel=1e-4)


def test_adamw8bit_is_torchaos():
    from torchao.optim import AdamW8bit

    with torch.compiler.set_stance("force_eager"):
        _beside("adamw8bit", _of_torch(AdamW8bit, betas=(0.8, 0.95)), torch.float32, 64, exact=False)


def test_adamw8bit_has_a_quarter_of_the_memory():
    kept = {}
    for name in ("adamw", "adamw8bit"):
        model = Small(torch.float32, 256)
        mover = make("updates", name).build(model)
        kept[name] = sum(tensor.numel() * tensor.element_size() for tensor in mover.memory.tensors().values())
    assert kept["adamw8bit"] < 0.3 * kept["adamw"]


def test_l1_is_soft_thresholding():
    """On orthonormal inputs the least squares with L1 has a closed form: each weight of plain least squares, less the
    strength, down to zero itself."""
    dice = np.random.default_rng(0)
    inputs, _ = np.linalg.qr(dice.normal(size=(40, 8)))
    truth = dice.normal(size=(40, 1)) + inputs @ (np.arange(8.0)[:, None] - 3)
    plain = inputs.T @ truth
    expected = np.sign(plain) * np.maximum(np.abs(plain) - 1.5, 0)
    model = nn.Linear(8, 1, bias=False, dtype=torch.float64)
    mover = make("updates", {"l1": {"of": {"sgd": {"momentum": 0.0}}, "strength": 1.5}}).build(model)
    x, y = torch.from_numpy(inputs), torch.from_numpy(truth)
    for _ in range(300):
        model.zero_grad()
        ((model(x) - y).square().sum() / 2).backward()
        mover.move(0.3)
    np.testing.assert_allclose(model.weight.detach().numpy().T, expected, atol=1e-9)
    assert ((model.weight.detach().numpy().T == 0) == (expected == 0)).all() and 0 < (expected == 0).sum() < 8


def test_l1_spares_biases_and_norms_and_moves_as_what_it_holds():
    def formula(w, g, memory, step, rate, decay):
        memory["v"] = 0.8 * memory.get("v", 0) + g
        w = w - rate * memory["v"]
        return np.sign(w) * np.maximum(np.abs(w) - rate * 0.05, 0) if decay else w

    _beside("l1", _by_formula(formula))


def test_l1_of_schedule_free_is_refused():
    with pytest.raises(WrongThing, match="keeps what it trains"):
        make("updates", {"l1": {"of": "schedule_free"}})
    nested = make("updates", {"l1": {"of": {"l1": {"strength": 0.1}}}})
    assert make("updates", json.loads(json.dumps(dump(nested)))) == nested


# ---- checkpoints --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(UPDATES))
def test_restored_it_goes_on_with_the_same_bits(name):
    """Five steps, and two steps, a restore into a fresh mover and three more: equal to the last bit."""
    update = make("updates", {name: UPDATES[name]})
    one, two = Small(torch.float32, 64), Small(torch.float32, 64)
    whole, first = update.build(one), update.build(two)
    for _ in range(2):
        two.slopes()
        first.move(0.01)
    tensors = {key: tensor.clone() for key, tensor in first.memory.tensors().items()}
    assert all(type(tensor) is torch.Tensor for tensor in tensors.values())  # what safetensors takes
    facts = json.loads(json.dumps(first.memory.facts()))
    again = Small(torch.float32, 64)
    again.load_state_dict(two.state_dict())
    second = update.build(again)
    second.memory.restore(tensors, facts)
    for step in range(5):
        one.slopes()
        whole.move(0.01)
        if step >= 2:
            again.slopes()
            second.move(0.01)
    for a, b in zip(one.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", sorted(UPDATES))
def test_a_stopped_training_goes_on_bit_for_bit(tmp_path, name):
    def train(folder, log=None, **more):
        bundle = images_bundle({"convnet": {"widths": [4, 8], "hidden": 16, "dropout": 0.3}})
        run = Run(folder) if log is None else Run(folder, log=log)
        fields = {"epochs": 3, "batch_size": 24, "learning_rate": 0.01, "update": name, **more}
        return make("steps", {"train": fields})(bundle, run)

    whole = train(tmp_path / "whole")
    stopped_at(tmp_path, lambda log: train(tmp_path, log, checkpoint_seconds=1e-6), epoch=2)
    again = train(tmp_path, checkpoint_seconds=1e-6)
    assert sha(again) == sha(whole)
    losses = [entry["train_loss"] for entry in whole.notes["history"]]
    assert losses == [entry["train_loss"] for entry in again.notes["history"]]


# ---- learning -----------------------------------------------------------------------------------------------------

RATES = {"sgd": 0.05, "adagrad": 0.05, "adafactor": 0.05, "muon": 0.05, "schedule_free": 0.05}  # others: 0.01


@pytest.mark.parametrize("name", sorted(UPDATES))
def test_learns(tmp_path, name):
    fields = {"epochs": 6, "batch_size": 16, "learning_rate": RATES.get(name, 0.01), "update": name}
    done = make("steps", {"train": fields})(table_bundle(SIDES, {"mlp": {"hidden": [16]}}), Run(tmp_path))
    history = done.notes["history"]
    assert history[-1]["validation_loss"] < 0.6 * math.log(2) < history[0]["train_loss"] + 0.3
    assert all(math.isfinite(entry["train_loss"]) for entry in history)
