"""The networks: shapes, closed forms, the meta device, export with a free batch, what they refuse."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from luodi.core.catalog import resolve
from luodi.core.spec import Spec
from luodi.models.convnet import ConvNet
from luodi.models.layers.one_argument import OneArgument
from luodi.models.mlp import MLP

IMAGE = Spec(kind="image", shape=(1, 28, 28), size=1)
NUMBER = Spec(kind="number", shape=(1,))
PLACE = Spec(kind="category", shape=(), size=7, dtype="int64")
LABEL = Spec(kind="category", shape=(10,), size=10)
# Names that a dict of modules would refuse ("values", a dot) or Python could not write as an argument.
MANY = {"image": IMAGE, "mean radius": NUMBER, "values": PLACE, "a.b": NUMBER}
TWO = {"label": LABEL, "keys.x": NUMBER}
KINDS = [("mlp", {"hidden": [32, 16]}), ("convnet", {"widths": [8, 16]}), ("convnet", {"norm": "group", "hidden": 32})]


def batch_of(inputs: dict[str, Spec], count: int, seed: int = 0) -> dict[str, torch.Tensor]:
    dice = torch.Generator().manual_seed(seed)
    return {
        name: torch.randint(0, spec.size, (count,), generator=dice)
        if spec.dtype == "int64"
        else torch.randn((count, *map(int, spec.shape)), generator=dice)
        for name, spec in inputs.items()
    }


def built(name: str, config: dict, inputs=None, outputs=None) -> nn.Module:
    torch.default_generator.manual_seed(0)
    return resolve("models", {name: config}).build(inputs or MANY, outputs or TWO).eval()


@pytest.mark.parametrize(("name", "config"), KINDS)
def test_several_inputs_and_targets(name, config):
    model = built(name, config)
    batch = batch_of(MANY, 5)
    outputs = model(**batch)
    assert {key: tuple(value.shape) for key, value in outputs.items()} == {"label": (5, 10), "keys.x": (5, 1)}
    alone = model(**{key: value[2:3] for key, value in batch.items()})
    for key, value in alone.items():
        torch.testing.assert_close(value[0], outputs[key][2])
    for changed in MANY:  # every input reaches every output
        other = {**batch, changed: (batch[changed] + 1) % 7 if changed == "values" else batch[changed] + 1}
        assert all((value != outputs[key]).any() for key, value in model(**other).items()), changed


@pytest.mark.parametrize(("name", "config"), KINDS)
def test_the_order_of_columns_changes_nothing(name, config):
    model = built(name, config)
    turned = built(name, config, dict(reversed(MANY.items())), dict(reversed(TWO.items())))
    turned.load_state_dict(model.state_dict())
    batch = batch_of(MANY, 3)
    for key, value in model(**batch).items():
        torch.testing.assert_close(turned(**batch)[key], value, rtol=0, atol=0)


@pytest.mark.parametrize(("name", "config"), KINDS)
def test_built_on_the_meta_device_then_filled_it_answers_alike(name, config):
    model = built(name, config)
    with torch.device("meta"):
        empty = resolve("models", {name: config}).build(MANY, TWO)
    assert all(tensor.is_meta for tensor in empty.state_dict().values())
    assert empty.state_dict().keys() == model.state_dict().keys()
    assert sum(1 for _ in empty.buffers()) == len(empty.state_dict()) - sum(1 for _ in empty.parameters())
    empty.to_empty(device="cpu").load_state_dict(model.state_dict())
    batch = batch_of(MANY, 3)
    for key, value in empty.eval()(**batch).items():
        torch.testing.assert_close(value, model(**batch)[key], rtol=0, atol=0)


@pytest.mark.parametrize(("name", "config"), KINDS)
def test_exports_with_a_free_batch(name, config, tmp_path):
    ort = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, batch = built(name, config), batch_of(MANY, 2)
    free = {key: {0: torch.export.Dim("batch", min=1, max=65536)} for key in batch}
    path = tmp_path / "model.onnx"
    torch.onnx.export(
        OneArgument(model, tuple(sorted(TWO))).eval(), (), path, kwargs={"batch": batch}, dynamo=True,
        dynamic_shapes={"batch": free}, input_names=list(batch), output_names=sorted(TWO), verbose=False,
    )  # fmt: skip
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    for count in (1, 2, 9):
        given = batch_of(MANY, count, seed=count)
        with torch.inference_mode():
            expected = model(**given)
        found = session.run(sorted(TWO), {key: value.numpy() for key, value in given.items()})
        for key, array in zip(sorted(TWO), found, strict=True):
            np.testing.assert_allclose(array, expected[key].numpy(), rtol=1e-4, atol=1e-5)


def test_mlp_of_one_input_is_plain_linear_and_rectifier():
    model = built("mlp", {"hidden": [32, 16]}, {"image": IMAGE}, {"label": LABEL})
    assert isinstance(model, MLP)
    assert [type(layer) for layer in model.layers] == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU]
    first, second, head = model.layers[0], model.layers[2], model.heads.layers[0]
    assert sum(p.numel() for p in model.parameters()) == 784 * 32 + 32 + 32 * 16 + 16 + 16 * 10 + 10
    x = batch_of({"image": IMAGE}, 4)["image"].double()
    by_hand = x.reshape(4, 784)
    for layer in (first, second):
        by_hand = torch.clamp(by_hand @ layer.weight.double().T + layer.bias.double(), min=0)
    by_hand = by_hand @ head.weight.double().T + head.bias.double()
    torch.testing.assert_close(model.double()(image=x)["label"], by_hand.detach(), rtol=1e-12, atol=1e-12)


def test_mlp_without_hidden_layers_is_a_linear_model():
    model = built("mlp", {"hidden": []}, {"x": NUMBER}, {"y": NUMBER})
    assert sum(p.numel() for p in model.parameters()) == 2
    for name, kind in (("gelu", nn.GELU), ("tanh", nn.Tanh)):
        layers = built("mlp", {"activation": name, "dropout": 0.5}).layers
        assert [type(layer) for layer in layers] == [nn.Linear, kind, nn.Dropout]


def test_convnet_is_the_closed_form():
    model = built("convnet", {"widths": [4, 6], "hidden": 8}, {"image": IMAGE}, {"label": LABEL})
    assert isinstance(model, ConvNet)
    model.train()(image=torch.randn(16, 1, 28, 28))  # running statistics that are not the initial ones
    model.eval()
    x = value = batch_of({"image": IMAGE}, 3)["image"]
    convolutions = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    for conv, norm in zip(convolutions, norms, strict=True):
        value = nn.functional.conv2d(value, conv.weight, padding=1)
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        value = (value - norm.running_mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]
        value = nn.functional.max_pool2d(value.relu(), 2)
    value = (value.flatten(1) @ model.hidden.weight.T + model.hidden.bias).relu()
    head = model.heads.layers[0]
    torch.testing.assert_close(model(image=x)["label"], value @ head.weight.T + head.bias, rtol=1e-4, atol=1e-5)


def test_convnet_size_of_the_digits():
    model = built("convnet", {"widths": [32, 64]}, {"image": IMAGE}, {"label": LABEL})
    assert 70_000 < sum(p.numel() for p in model.parameters()) < 250_000


@pytest.mark.parametrize(("side", "cells"), [(4, 1), (28, 49), (32, 64), (64, 64), (224, 49), (225, 49)])
def test_convnet_stays_small_on_large_images(side, cells):
    spec = Spec(kind="image", shape=(3, side, side), size=3)
    model = built("convnet", {"widths": [4, 8], "hidden": 5}, {"image": spec}, {"label": LABEL})
    assert model.hidden.in_features == 8 * cells
    assert model(image=torch.randn(2, 3, side, side))["label"].shape == (2, 10)


def test_convnet_takes_images_of_different_sizes():
    specs = {"front": IMAGE, "back": Spec(kind="image", shape=(3, 17, 30), size=3)}
    model = built("convnet", {"widths": [4]}, specs, {"label": LABEL})
    assert model(**batch_of(specs, 2))["label"].shape == (2, 10)


def test_what_a_network_refuses():
    table = {"x": NUMBER}
    with pytest.raises(ValueError, match=r"needs an image input, got x \(number\); use mlp"):
        built("convnet", {}, table, {"label": LABEL})
    with pytest.raises(ValueError, match="too small for 3 halvings"):
        built("convnet", {"widths": [4, 4, 4]}, {"image": Spec(kind="image", shape=(1, 7, 7))}, {"label": LABEL})
    for config in ({"widths": []}, {"widths": [0]}, {"hidden": 0}, {"dropout": 1.0}):
        with pytest.raises(ValueError, match="at least 1"):
            built("convnet", config, {"image": IMAGE}, {"label": LABEL})
    for config in ({"hidden": [0]}, {"dropout": -0.1}):
        with pytest.raises(ValueError, match="at least 1"):
            built("mlp", config, table, {"label": LABEL})
    with pytest.raises(ValueError, match="words: this network takes images, numbers and categories"):
        built("mlp", {}, {"words": Spec(kind="tokens", shape=("length",), size=9)}, {"label": LABEL})


@pytest.mark.parametrize(("name", "config"), KINDS)
def test_it_learns_and_the_config_survives_json(name, config):
    written = json.loads(resolve("models", {name: config}).model_dump_json())
    model = built(name, written).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    batch = batch_of(MANY, 40)
    truth = torch.arange(40) % 10
    batch["image"] *= 0.1
    batch["image"][torch.arange(40), 0, 2 * truth + 4] += 3  # a bright line at the label's height
    losses = []
    for _ in range(60):
        outputs = model(**batch)
        loss = nn.functional.cross_entropy(outputs["label"], truth) + outputs["keys.x"].square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert all(parameter.grad is not None for parameter in model.parameters())
