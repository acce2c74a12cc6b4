"""Channels taken out: what is dead goes first and changes nothing, and layers really get smaller."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from small_data import BOTH, SIDES, Run, bundle_of, image_rows, images_bundle, table_bundle, table_rows
from torch import nn

from luodi.compress.calibration.walk import calibration_of
from luodi.compress.structure.choice import by_magnitude, by_taylor, least
from luodi.compress.structure.cut import cut, shaped
from luodi.compress.structure.follow import Structure, follow, try_out
from luodi.core.apply import apply
from luodi.core.bundle import Bundle
from luodi.core.errors import LuodiError, Refused
from luodi.core.spec import Spec
from luodi.core.thing import make
from luodi.models.layers.inverted import Inverted

CONVNET = {"convnet": {"widths": [8, 16], "hidden": 16}}
LABEL = {"y": Spec(kind="category", shape=(4,), size=4)}
TEXT = {
    "t": Spec(kind="tokens", shape=("length",), size=30, dtype="int64", most=24),
    "t_mask": Spec(kind="mask", shape=("length",), dtype="int64"),
}
WORDS = {"t": np.arange(1, 22).reshape(3, 7), "t_mask": np.array([[1] * 7, [1] * 5 + [0] * 2, [1] * 7])}
PICTURE = {"i": Spec(kind="image", shape=(1, 16, 16))}
PIXELS = {"i": np.random.default_rng(0).normal(size=(3, 1, 16, 16)).astype(np.float32)}


def step(name: str, **fields: Any) -> Any:
    return make("steps", {name: fields})


def trained(bundle: Bundle, folder: Any, epochs: int = 1) -> Bundle:
    return apply(step("train", epochs=epochs, learning_rate=0.01), bundle, Run(folder))


def answers(model: nn.Module, example: Any) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        return model(**{name: torch.as_tensor(array) for name, array in example.items()})["y"]


def kill(model: nn.Module, structure: Structure, gone: set[int]) -> None:
    """All weights of these components become 0."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            for axis, places in enumerate(structure.tensors.get(name, ())):
                weight.index_fill_(axis, torch.from_numpy(np.flatnonzero(np.isin(places, list(gone)))), 0.0)


class Depthwise(nn.Module):
    """Two inverted blocks with squeeze and excitation between, then a flattened map."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Inverted(1, 8, 3, 2, 4, (16, 16)), Inverted(8, 8, 3, 1, 2, (8, 8))
        self.squeeze, self.excite = nn.Linear(8, 4), nn.Linear(4, 8)
        self.last = nn.Linear(8 * 64, 4)

    def forward(self, **batch: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.first(batch["i"])
        told = torch.sigmoid(self.excite(torch.relu(self.squeeze(x.mean((2, 3))))))
        return {"y": self.last(self.second(x * told[:, :, None, None]).flatten(1))}


def networks() -> dict[str, tuple[nn.Module, Any]]:
    from luodi.models.convnet import ConvNet
    from luodi.models.fusion import Fusion
    from luodi.models.mlp import MLP
    from luodi.models.resnet import ResNet
    from luodi.models.text_transformer import TextTransformer

    torch.default_generator.manual_seed(0)
    beside = {
        "a": Spec(kind="number", shape=(1,)),
        "b": Spec(kind="category", shape=(), size=6, dtype="int64"),
    }
    columns = {"a": np.array([[0.1], [0.2], [0.3]], np.float32), "b": np.array([0, 3, 5])}
    turned = {"positions": "rotary", "norm": "rms", "heads": 4, "kv_heads": 2, "gated": True}
    fusion = {"fuse": "cross_attention", "channels": 16, "layers": 1, "width": 8, "heads": 2}
    return {
        "convnet": (ConvNet({**PICTURE, **beside}, LABEL, widths=(4, 8), hidden=8), {**PIXELS, **columns}),
        "resnet": (ResNet(PICTURE, LABEL, width=16, stem="small"), PIXELS),
        "depthwise": (Depthwise(), PIXELS),
        "mlp": (MLP(beside, LABEL, hidden=(8, 6), activation="gelu"), columns),
        "text_transformer": (TextTransformer(TEXT, LABEL, layers=2, width=16, **turned), WORDS),
        "fusion": (Fusion({**PICTURE, **TEXT}, LABEL, **fusion), {**PIXELS, **WORDS}),
    }


def over_norms(structure: Structure, model: nn.Module) -> set[frozenset]:
    """Kinds over which a layer norm takes its mean: to lose one changes the others, dead or not."""
    norms = {name for name, one in model.named_modules() if isinstance(one, nn.LayerNorm | nn.RMSNorm)}
    return {axes for axes in structure.groups if {name.rpartition(".")[0] for name, _ in axes} & norms}


@pytest.mark.parametrize("which", ["convnet", "resnet", "depthwise", "mlp", "text_transformer", "fusion"])
def test_dead_channels_go_first_and_nothing_changes(which):
    """Closed form: a channel all of whose weights are 0 says nothing to anybody."""
    model, example = networks()[which]
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.uniform_(-1, 1)
                layer.weight.uniform_(0.5, 2)
    structure = follow(model, example, ("y",))
    kinds = {axes: one for axes, one in structure.groups.items() if axes not in over_norms(structure, model)}
    assert kinds
    dead = {one for several in kinds.values() for one in several[: len(several) // 4 + (len(several) < 4)]}
    kill(model, structure, dead)
    before, count = answers(model, example), sum(weight.numel() for weight in model.parameters())
    scores = by_magnitude(model, structure)
    gone = set()
    for axes, several in kinds.items():
        share = len(dead & set(several)) / len(several)
        gone |= least(model, {axes: several}, scores, {}, share, 1, "layer")
    assert gone == dead
    plan = cut(model, structure, gone)
    assert sum(weight.numel() for weight in model.parameters()) < count
    assert all(list(dict(model.state_dict())[name].shape) == shape for name, shape in plan.items())
    assert torch.allclose(answers(model, example), before, atol=1e-5)
    again, _ = networks()[which]
    shaped(again, plan).load_state_dict(model.state_dict())
    assert torch.equal(answers(again, example), answers(model, example))
    assert follow(again, example, ("y",)).groups.keys() <= structure.groups.keys()


def test_what_belongs_together():
    model, example = networks()["resnet"]
    groups = [{name for name, _ in axes} for axes in follow(model, example, ("y",)).groups]
    stream = next(one for one in groups if "conv1.weight" in one)
    assert {"bn1.running_mean", "layer1.0.conv2.weight", "layer1.1.bn2.bias", "layer2.0.downsample.0.weight"} <= stream
    assert not any("heads.layers.0.bias" in one for one in groups), "the answers stay"
    model, example = networks()["text_transformer"]
    sizes = {axes: len(several) for axes, several in follow(model, example, ("y",)).groups.items()}
    heads = next(count for axes, count in sizes.items() if ("reader.blocks.0.attention.qkv.weight", 0) in axes)
    assert heads == 2, "4 heads of queries share 2 of keys and values: they go two by two"
    gated = next(count for axes, count in sizes.items() if ("reader.blocks.0.feed.up.weight", 0) in axes)
    assert 2 * gated == model.reader.blocks[0].feed.up.out_features, "a gate goes with its value"


def test_what_is_not_understood_stays():
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 4)
            self.d, self.unused = nn.Linear(4, 8), nn.Linear(8, 8)

        def forward(self, **batch: torch.Tensor) -> dict[str, torch.Tensor]:
            x = torch.cumsum(self.a(batch["x"]), 1)
            written_out = self.d(batch["x"]).view(3, 8)
            return {"y": self.c(torch.relu(self.b(x) + written_out)) + self.unused.weight[0, 0]}

    example = {"x": np.ones((3, 4), np.float32)}
    assert not follow(Odd(), example, ("y",)).groups


def test_lengths_outside_the_graph_stay_or_are_told():
    class Checked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.attention = nn.Linear(4, 8), nn.Linear(8, 4), nn.MultiheadAttention(8, 2)
            self.c, self.d, self.wide = nn.Linear(4, 6), nn.Linear(6, 4), 6

        def forward(self, **batch: torch.Tensor) -> dict[str, torch.Tensor]:
            x = self.a(batch["x"])
            y = self.c(batch["x"])
            assert y.shape[1] == self.wide
            return {"y": self.b(self.attention(x, x, x)[0] + x) + self.d(y)}

    model, example = Checked(), {"x": np.ones((3, 4), np.float32)}
    structure = follow(model, example, ("y",))
    ((axes, several),) = structure.groups.items()
    assert ("c.weight", 0) in axes, "the attention of torch compares lengths with its own: they stay"
    try_out(model, example)
    cut(model, structure, set(several[:2]))
    with pytest.raises(LuodiError, match="hold lengths of their own"):
        try_out(model, example)


def test_taylor_is_the_direct_computation(tmp_path):
    bundle = trained(table_bundle(BOTH, {"mlp": {"hidden": [5, 4]}}), tmp_path)
    model: Any = bundle.model
    example = bundle.task.encode(bundle.task.examples(3, 0))
    structure = follow(model, example, tuple(bundle.task.outputs_specs()))
    calibration = calibration_of(bundle, 20, Run(tmp_path))
    found = by_taylor(model, structure, calibration)
    (axes,) = [one for one in structure.groups if ("layers.2.weight", 0) in one]
    for place, component in enumerate(structure.groups[axes]):
        slow = 0.0
        for inputs, truth in calibration.batches():
            model.zero_grad()
            losses = bundle.task.loss(model, inputs, truth).values()
            sum(share * each.sum() / weights.sum() for each, weights, share in losses).backward()
            layer, heads = model.layers[2], model.heads.layers
            slow += (layer.weight * layer.weight.grad)[place].abs().sum().item()
            slow += (layer.bias * layer.bias.grad)[place].abs().item()
            slow += sum((head.weight * head.weight.grad)[:, place].abs().sum().item() for head in heads)
        assert found[component] == pytest.approx(slow, rel=1e-4)


def test_cut_twice_save_load_export_and_quantize(tmp_path):
    bundle = trained(images_bundle(CONVNET), tmp_path)
    told = bundle.task.encode(bundle.task.examples(8, 1))
    once = apply(step("channels", share=0.25), bundle.fork(), Run(tmp_path))
    assert once.notes["channels"] == {"trunks.0.0": [8, 6], "trunks.0.5": [16, 12], "hidden": [16, 12]}
    twice = apply(step("channels", share=0.5, by="taylor", rows=32, scope="global"), once, Run(tmp_path))
    before, after = twice.notes["parameters"]
    assert after < before < sum(tensor.numel() for tensor in bundle.model.state_dict().values())
    assert len(twice.edits) == 3 and all(edit.plan for edit in twice.edits[1:])
    model: Any = twice.model
    assert model.hidden.in_features == model.hidden.weight.shape[1]
    assert model.trunks[0][5].in_channels == len(model.trunks[0][0].weight) == model.trunks[0][2].num_features
    new = twice.predictor().forward(told)["label"]
    loaded = Bundle.load(twice.save(tmp_path / "saved"))
    assert np.array_equal(loaded.predictor().forward(told)["label"], new)
    exported = apply(step("export", to="onnx"), loaded.fork(), Run(tmp_path / "onnx"))
    assert np.allclose(exported.predictor().forward(told)["label"], new, atol=1e-5)
    small = apply(step("quantize"), loaded, Run(tmp_path))
    with pytest.raises(Refused, match="needs 'float'"):
        apply(step("channels"), small, Run(tmp_path))


def test_rounds_cut_little_by_little_and_recover(tmp_path):
    bundle = trained(images_bundle(CONVNET), tmp_path, epochs=3)
    again = [{"train": {"epochs": 1, "learning_rate": 0.01}}]
    many = step("channels", share=0.5, rounds=2, recover=again, sensitivity=True, rows=32)
    assert {"split", "loss"} <= many.facts(bundle.facts).needs
    after = apply(many, bundle.fork(), Run(tmp_path))
    assert [type(edit.step).__name__ for edit in after.edits] == ["Train", "Channels", "Train", "Channels", "Train"]
    assert after.notes["channels"] == {"trunks.0.0": [8, 4], "trunks.0.5": [16, 8], "hidden": [16, 8]}
    losses = after.notes["sensitivity"]
    assert set(losses["layers"]) == {"trunks.0.0, trunks.0.2", "trunks.0.5, trunks.0.6", "hidden"}
    assert all(loss != losses["loss"] for loss in losses["layers"].values()) and len(after.notes["history"]) == 1
    same = apply(many, bundle.fork(), Run(tmp_path / "again"))
    for name, tensor in after.model.state_dict().items():
        assert torch.equal(tensor, same.model.state_dict()[name])


def test_refused_with_a_reason(tmp_path):
    bare = trained(table_bundle(SIDES, {"mlp": {"hidden": []}}), tmp_path)
    with pytest.raises(LuodiError, match="nothing can be removed"):
        apply(step("channels"), bare, Run(tmp_path))
    narrow = trained(bundle_of(SIDES, {"mlp": {"hidden": [8]}}, table_rows(64, 0)), tmp_path)
    with pytest.raises(LuodiError, match="takes no channel"):
        apply(step("channels", share=0.1), narrow.fork(), Run(tmp_path))
    without = narrow.without_data()
    assert apply(step("channels"), without.fork(), Run(tmp_path)).edits
    with pytest.raises(Refused, match="needs 'split'"):
        apply(step("channels", by="taylor"), without, Run(tmp_path))


def test_a_strided_convolution_of_1_by_1_keeps_8(tmp_path):
    rows = image_rows(32, 0)
    bundle = bundle_of(images_bundle(CONVNET).task, {"resnet": {"width": 16, "stem": "small"}}, rows).ready(
        Run(tmp_path)
    )
    after = apply(step("channels", share=0.75, multiple=1), bundle, Run(tmp_path))
    assert after.notes["channels"]["conv1"] == [16, 8] and after.notes["channels"]["layer1.0.conv1"] == [16, 4]


def test_the_report_draws_what_each_kind_costs():
    from types import SimpleNamespace

    from luodi.report.panels.channels import Channels

    losses = {"share": 0.5, "loss": 0.25, "layers": {"first": 0.75, "<b>": 0.2}}
    notes = {"channels": {"first": [8, 4], "<b>": [16, 8]}, "parameters": [1000, 250], "sensitivity": losses}
    view: Any = SimpleNamespace(evidence=[SimpleNamespace(number=3, name="channels", notes=notes)])
    assert Channels().wanted(view)
    page = Channels().html(view)
    assert "1,000 parameters became 250, 75% fewer" in page and "<td>8</td><td>4</td>" in page
    assert "0.5" in page and "-0.05" in page and "<b>" not in page
