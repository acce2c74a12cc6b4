"""EfficientNet-Lite0: the published weights fit name by name, and know what is in a photograph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from luodi.core.catalog import resolve
from luodi.core.spec import Spec
from luodi.data.samples.weights import WEIGHTS, tensors_of
from luodi.fields.image import Image
from luodi.models.layers.inverted import Filtered
from luodi.train.loop.learning import stages_of

LABEL = Spec(kind="category", shape=(1000,), size=1000)
# Numbers of ImageNet's classes.
PALACE, DAISY = 698, 985


def image(height: int, width: int | None = None) -> Spec:
    return Spec(kind="image", shape=(3, height, width or height), size=3)


def built(inputs: dict[str, Spec] | None = None, outputs: dict[str, Spec] | None = None, **config) -> nn.Module:
    torch.default_generator.manual_seed(0)
    made = resolve("models", {"efficientnet_lite": config})
    return made.build(inputs or {"image": image(224)}, outputs or {"label": LABEL}).eval()


@pytest.fixture(scope="module")
def published(cache: Path) -> dict[str, torch.Tensor]:
    tensors = tensors_of("efficientnet_lite0", cache)
    return {name.replace("classifier.", "heads.layers.0."): tensor for name, tensor in tensors.items()}


def test_every_published_tensor_has_its_place(published):
    state = built().state_dict()
    assert {name: (t.shape, t.dtype) for name, t in state.items()} == {
        name: (t.shape, t.dtype) for name, t in published.items()
    }
    assert sum(parameter.numel() for parameter in built().parameters()) == 4_652_008


def test_it_knows_what_is_in_a_photograph(published):
    """A Chinese palace and a flower, photographs of scikit-learn, encoded by our own field as the weights expect."""
    from sklearn.datasets import load_sample_images

    model = built()
    model.load_state_dict(published)
    known = WEIGHTS["efficientnet_lite0"]
    field = Image(size=224, aspect="crop", resize="bicubic", mean=known.mean, std=known.std)
    arrays = field.encode(load_sample_images().images)[""]
    np.testing.assert_allclose(arrays.min(), -127 / 128, atol=1e-6)
    with torch.no_grad():
        shares = model(image=torch.from_numpy(arrays))["label"].softmax(-1)
    assert shares.argmax(-1).tolist() == [PALACE, DAISY]
    # What the authors' own network says of these arrays, to three digits: ours differed from it by 1e-6 of 7.4.
    torch.testing.assert_close(shares[0, PALACE], torch.tensor(0.2992), atol=2e-3, rtol=0)
    torch.testing.assert_close(shares[1, DAISY], torch.tensor(0.2108), atol=2e-3, rtol=0)


@pytest.mark.parametrize("sides", [(32, 32), (65, 65), (97, 130), (224, 224)])
def test_images_of_any_size(sides):
    """Stride 2 five times, each rounded up, as "same" padding does; several rows as one by one."""
    model = built({"image": image(*sides)}, {"label": Spec(kind="category", shape=(3,), size=3)})
    batch = torch.randn(2, 3, *sides, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = model(image=batch)["label"]
        assert found.shape == (2, 3)
        torch.testing.assert_close(model(image=batch[1:])["label"], found[1:], rtol=1e-4, atol=1e-5)
        for stage in model.stages:
            batch = stage(batch)
    assert batch.shape[2:] == tuple(-(-side // 32) for side in sides)


@pytest.mark.parametrize(
    ("kernel", "side", "pads"), [(3, 5, (1, 1)), (3, 6, (0, 1)), (5, 6, (1, 2)), (5, 7, (2, 2)), (1, 6, (0, 0))]
)
def test_padding_is_tensorflows(kernel, side, pads):
    """`SAME` at stride 2: (ceil(n / 2) - 1) x 2 + k - n pixels in all, the odd one last."""
    layer = Filtered(1, 1, kernel, 2, (side, side), linear=True).eval()
    nn.init.ones_(layer.convolution.weight)
    x = torch.arange(float(side * side)).view(1, 1, side, side)
    padded = nn.functional.pad(x, (*pads, *pads))
    wanted = nn.functional.conv2d(padded, layer.convolution.weight, stride=2) / (1 + 1e-3) ** 0.5
    torch.testing.assert_close(layer(x), wanted)
    assert layer.sides == wanted.shape[2:]


def test_norms_are_the_originals():
    norms = [layer for layer in built().modules() if isinstance(layer, nn.BatchNorm2d)]
    assert len(norms) == 49 and {(norm.momentum, norm.eps) for norm in norms} == {(0.01, 1e-3)}


def test_stages_go_from_the_stem_to_the_heads():
    assert [stage.name for stage in stages_of(built())] == [*(f"stages.{number}" for number in range(9)), "heads"]


def test_other_inputs_stand_beside_the_features():
    inputs = {"image": image(32), "age": Spec(kind="number", shape=(1,))}
    model = built(inputs, {"label": LABEL, "size": Spec(kind="number", shape=(1,))})
    x, age = torch.zeros(2, 3, 32, 32), torch.tensor([[0.0], [5.0]])
    found = model(image=x, age=age)
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == {"label": (2, 1000), "size": (2, 1)}
    assert not torch.equal(found["size"][0], found["size"][1])


@pytest.mark.parametrize(
    ("inputs", "why"),
    [
        ({"image": Spec(kind="image", shape=(1, 28, 28), size=1)}, "one image of three channels"),
        ({"age": Spec(kind="number", shape=(1,))}, "one image of three channels"),
        ({"a": image(32), "b": image(32)}, "one image of three channels"),
    ],
)
def test_refused(inputs, why):
    with pytest.raises(ValueError, match=why):
        built(inputs)
    with pytest.raises(ValueError, match="dropout is in"):
        built(dropout=1.5)


def test_it_is_built_without_memory():
    with torch.device("meta"):
        model = built()
    assert all(tensor.is_meta for tensor in model.state_dict().values())
