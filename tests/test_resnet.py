"""Residual networks: torchvision's published figures, and the outputs of a second implementation."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from luodi.core.catalog import resolve
from luodi.core.spec import Spec
from luodi.models.layers.residual import residual_layers
from luodi.train.loop.learning import stages_of

LABEL = Spec(kind="category", shape=(1000,), size=1000)


def built(sides: tuple[int, int] = (224, 224), channels: int = 3, **config: Any) -> Any:
    torch.default_generator.manual_seed(0)
    image = Spec(kind="image", shape=(channels, *sides))
    return resolve("models", {"resnet": config}).build({"image": image}, {"label": LABEL}).eval()


@pytest.mark.parametrize(("depth", "parameters", "tensors"), [(18, 11_689_512, 122), (34, 21_797_672, 218)])
def test_as_many_parameters_as_torchvision_publishes(depth, parameters, tensors):
    model = built(depth=depth)
    assert sum(one.numel() for one in model.parameters()) == parameters
    names = list(model.state_dict())
    assert len(names) == tensors
    assert names[:8] == ["conv1.weight", *(f"bn1.{one}" for one in ("weight", "bias", "running_mean", "running_var",
                         "num_batches_tracked")), "layer1.0.conv1.weight", "layer1.0.bn1.weight"]  # fmt: skip
    assert {"layer2.0.downsample.0.weight", "layer2.0.downsample.1.running_var", "layer4.1.bn2.bias"} <= set(names)
    assert not any(name.startswith("layer1.0.downsample") for name in names)


@pytest.mark.parametrize("depth", [18, 34])
def test_outputs_equal_those_of_transformers(depth):
    """Name by name from its basic ResNet, weights at random, running statistics too."""
    import transformers

    blocks = {18: [2, 2, 2, 2], 34: [3, 4, 6, 3]}[depth]
    config = transformers.ResNetConfig(layer_type="basic", hidden_sizes=[8, 16, 32, 64], depths=blocks,
                                       embedding_size=8, num_labels=1000)  # fmt: skip
    torch.default_generator.manual_seed(1)
    theirs: Any = transformers.ResNetForImageClassification(config).eval()
    for name, tensor in theirs.state_dict().items():
        if "running" in name:
            tensor.uniform_(0.5, 1.5)
    model = built((65, 50), depth=depth, width=8)
    model.load_state_dict({_ours(name): tensor for name, tensor in theirs.state_dict().items()})
    batch = torch.randn(2, 3, 65, 50)
    with torch.no_grad():
        torch.testing.assert_close(model(image=batch)["label"], theirs(batch).logits, atol=1e-5, rtol=1e-5)


def _ours(name: str) -> str:
    """`resnet.encoder.stages.1.layers.0.layer.1.normalization.weight` -> `layer2.0.bn2.weight`."""
    parts = name.split(".")
    kind = {"convolution": "conv", "normalization": "bn"}
    if parts[0] == "classifier":
        return f"heads.layers.0.{parts[-1]}"
    if parts[1] == "embedder":
        return f"{kind[parts[3]]}1.{parts[-1]}"
    block = f"layer{int(parts[3]) + 1}.{parts[5]}"
    if parts[6] == "shortcut":
        return f"{block}.downsample.{0 if parts[7] == 'convolution' else 1}.{parts[-1]}"
    return f"{block}.{kind[parts[8]]}{int(parts[7]) + 1}.{parts[-1]}"


SIDES = [
    ("large", (224, 224), (7, 7)),
    ("large", (1, 40), (1, 2)),
    ("small", (32, 32), (4, 4)),
    ("small", (28, 20), (4, 3)),
]


@pytest.mark.parametrize(("stem", "sides", "left"), SIDES)
def test_images_of_any_size(stem, sides, left):
    features = torch.randn(2, 3, *sides)
    for layer in residual_layers(3, 18, 8, stem).values():
        features = layer(features)
    assert features.shape == (2, 64, *left)
    assert built(sides, width=8, stem=stem)(image=torch.randn(2, 3, *sides))["label"].shape == (2, 1000)


def test_stages_go_from_the_image_to_the_heads():
    names = [stage.name for stage in stages_of(built(width=8))]
    assert names[:3] == ["conv1", "bn1", "layer1.0"] and names[-2:] == ["layer4.1", "heads"]


def test_other_inputs_join_before_the_heads_and_two_images_are_refused():
    image, age = Spec(kind="image", shape=(1, 16, 16)), Spec(kind="number", shape=(1,))
    model = resolve("models", {"resnet": {"width": 8}}).build({"image": image, "age": age}, {"label": LABEL})
    assert model.heads.layers[0].in_features == 65
    with pytest.raises(ValueError, match="takes one image"):
        resolve("models", "resnet").build({"one": image, "two": image}, {"label": LABEL})
    with pytest.raises(ValueError, match="8 channels at least, got 4"):
        built(width=4)
