"""Adapters of low rank: against the peft library, the answers they keep, what learns, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_data import BOTH, images_bundle, sha, table_bundle
from torch import nn

from luodi.core.apply import apply
from luodi.core.bundle import Bundle
from luodi.core.errors import LuodiError, Refused
from luodi.core.run import Run
from luodi.core.thing import make
from luodi.models.layers.lora import LowRank

CONVNET = {"convnet": {"widths": [4, 8], "hidden": 16}}
TRAIN = {"train": {"epochs": 2, "batch_size": 16, "learning_rate": 0.01}}


def after(bundle, folder, *steps):
    for number, step in enumerate(steps, 1):
        run = Run(folder / str(number), seed=1, scope=(str(number),))
        run.out.mkdir(parents=True, exist_ok=True)
        bundle = apply(make("steps", step), bundle, run, number)
    return bundle


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


LAYERS = {
    "linear": lambda: nn.Linear(12, 7),
    "without bias": lambda: nn.Linear(12, 7, bias=False),
    "convolution": lambda: nn.Conv2d(6, 8, 3, stride=2, padding=1),
    "narrow": lambda: nn.Conv2d(6, 8, (3, 1), stride=(1, 2), bias=False),  # peft forgets the dilation
}


@pytest.mark.parametrize("variant", ["plain", "dora"])
@pytest.mark.parametrize("which", LAYERS)
def test_forward_gradients_and_merge_are_those_of_peft(which, variant):
    from peft import LoraConfig, get_peft_model

    torch.default_generator.manual_seed(0)
    base = LAYERS[which]()
    ours = LowRank(base, 4, 8 / 4, 0.0, variant).begin(generator(1))
    with torch.no_grad():
        ours.up.normal_(generator=generator(2))
        if ours.magnitude is not None:
            ours.magnitude.mul_(1.3)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["0"], use_dora=variant == "dora", lora_dropout=0.0)
    theirs = get_peft_model(nn.Sequential(LAYERS[which]()), config)
    layer = theirs.base_model.model[0]
    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    with torch.no_grad():
        layer.base_layer.weight.copy_(base.weight)
        if base.bias is not None:
            layer.base_layer.bias.copy_(base.bias)
        down.copy_(ours.down.view_as(down))
        up.copy_(ours.up.view_as(up))
        if ours.magnitude is not None:
            magnitude = layer.lora_magnitude_vector["default"].weight
            magnitude.copy_(ours.magnitude.view_as(magnitude))
    shape = (5, 12) if which in ("linear", "without bias") else (5, 6, 9, 9)
    x = torch.randn(shape, generator=generator(3))
    mine, other = ours(x), theirs(x)
    torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)
    mine.square().sum().backward()
    other.square().sum().backward()
    torch.testing.assert_close(ours.down.grad.view_as(down), down.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.up.grad.view_as(up), up.grad, rtol=1e-4, atol=1e-4)
    if ours.magnitude is not None:
        grad = layer.lora_magnitude_vector["default"].weight.grad
        torch.testing.assert_close(ours.magnitude.grad.view_as(grad), grad, rtol=1e-4, atol=1e-4)
    theirs.merge_adapter()
    merged = ours.merged()
    torch.testing.assert_close(merged.weight, layer.base_layer.weight, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(merged(x), mine, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("variant", ["plain", "dora"])
def test_a_depthwise_convolution(variant):
    """peft wants groups that divide the rank; the formula in NumPy does not."""
    torch.default_generator.manual_seed(0)
    layer = LowRank(nn.Conv2d(6, 6, 3, padding=1, groups=6), 2, 0.5, 0.0, variant).begin(generator(1))
    with torch.no_grad():
        layer.up.normal_(generator=generator(2))
    x = torch.randn(2, 6, 5, 5, generator=generator(3))
    weight = layer.base.weight.detach().numpy().reshape(6, -1)
    whole = weight + 0.5 * layer.up.detach().numpy() @ layer.down.detach().numpy()
    if variant == "dora":
        whole *= np.linalg.norm(weight, axis=1, keepdims=True) / np.linalg.norm(whole, axis=1, keepdims=True)
    kernels = torch.from_numpy(whole).view(6, 1, 3, 3)
    wanted = nn.functional.conv2d(x, kernels, layer.base.bias, padding=1, groups=6)
    torch.testing.assert_close(layer(x), wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layer.merged()(x), wanted, rtol=1e-5, atol=1e-5)


def test_a_filter_of_zeros_is_no_division_by_zero():
    """Among the filters of EfficientNet-Lite0 some are zero."""
    base = nn.Linear(4, 3, bias=False)
    with torch.no_grad():
        base.weight[1] = 0
    layer = LowRank(base, 2, 1.0, 0.0, "dora").begin(generator(0))
    x = torch.randn(5, 4, generator=generator(1))
    torch.testing.assert_close(layer(x), base(x))
    layer(x).square().sum().backward()
    assert all(p.grad.isfinite().all() for p in (layer.up, layer.down, layer.magnitude))
    torch.testing.assert_close(layer.merged()(x), layer(x))


def test_dropout_acts_on_the_change_alone():
    layer = LowRank(nn.Linear(8, 8), 2, 1.0, 0.5, "plain").begin(generator(0))
    x = torch.randn(4, 8, generator=generator(1))
    layer.train()
    torch.testing.assert_close(layer(x), layer.base(x))  # `up` is zero
    with torch.no_grad():
        layer.up.normal_(generator=generator(2))
    assert not torch.equal(layer(x), layer(x))
    assert torch.equal(layer.eval()(x), layer(x))


@pytest.mark.parametrize("variant", ["plain", "dora"])
def test_lora_then_merge(variant, tmp_path):
    """The answers stay at both ends; in between only changes and heads move; the end is a plain model."""
    plain = after(images_bundle(CONVNET), tmp_path / "a", TRAIN)
    before = {name: tensor.clone() for name, tensor in plain.model.state_dict().items()}
    arrays = plain.golden.arrays
    given = plain.predictor().forward(arrays)["label"]
    lora = after(plain, tmp_path / "b", {"lora": {"rank": 2, "alpha": 4.0, "variant": variant}})
    assert "adapters" in lora.facts
    np.testing.assert_allclose(lora.predictor().forward(arrays)["label"], given, rtol=1e-4, atol=1e-5)
    learns = {name for name, parameter in lora.model.named_parameters() if parameter.requires_grad}
    ends = ("down", "up", "magnitude") if variant == "dora" else ("down", "up")
    assert all(name.endswith(ends) or name.startswith("heads.") for name in learns) and len(learns) > 6
    assert lora.notes["trained"] == sum(p.numel() for p in lora.model.parameters() if p.requires_grad)
    opened = Bundle.load(lora.save(tmp_path / "saved"))
    assert {n for n, p in opened.model.named_parameters() if p.requires_grad} == learns
    again = after(opened.replace(data=lora.data, facts=lora.facts), tmp_path / "c", TRAIN)
    trained = after(lora, tmp_path / "d", TRAIN)
    assert sha(again) == sha(trained), "training after loading is the same training"
    state = {name.replace(".base.", ".").replace(".layer.", "."): t for name, t in trained.model.state_dict().items()}
    for name, tensor in before.items():
        moved = not torch.equal(state[name], tensor)
        assert moved == name.startswith("heads."), name
    answers = trained.predictor().forward(arrays)["label"]
    assert np.abs(answers - given).max() > 0.1
    merged = after(trained, tmp_path / "e", "merge")
    assert "adapters" not in merged.facts and merged.model.state_dict().keys() == before.keys()
    assert all(parameter.requires_grad for parameter in merged.model.parameters())
    np.testing.assert_allclose(merged.predictor().forward(arrays)["label"], answers, rtol=1e-3, atol=1e-4)
    back = Bundle.load(merged.save(tmp_path / "merged"))
    assert sha(back) == sha(merged)
    assert [str(layer) for layer in back.model.modules()] == [str(layer) for layer in plain.blank().ready(
        Run(tmp_path)).model.modules()]  # fmt: skip


def test_of_two_targets_both_heads_learn(tmp_path):
    bundle = after(table_bundle(BOTH, {"mlp": {"hidden": [16, 8]}}), tmp_path / "a", TRAIN, {"lora": {"rank": 2}})
    learns = {name for name, p in bundle.model.named_parameters() if p.requires_grad}
    assert {name for name in learns if name.startswith("heads.")} == {
        f"heads.layers.{place}.{part}" for place in (0, 1) for part in ("weight", "bias")
    }


def test_only_the_layers_that_a_pattern_fits(tmp_path):
    trained = after(table_bundle(BOTH, {"mlp": {"hidden": [16, 8]}}), tmp_path / "a", TRAIN)
    bundle = after(trained, tmp_path / "b", {"lora": {"layers": ["layers.2"]}})
    assert bundle.notes["layers"] == ["layers.2"]
    with pytest.raises(LuodiError, match=r"'hidden\*' fits no layer; there are: layers.0, layers.2"):
        after(trained.fork(), tmp_path / "c", {"lora": {"layers": ["hidden*"]}})


def test_refused(tmp_path):
    trained = after(table_bundle(BOTH, {"mlp": {"hidden": [8]}}), tmp_path / "a", TRAIN)
    with pytest.raises(Refused, match="merge needs 'adapters'"):
        after(trained, tmp_path / "b", "merge")
    adapted = after(trained, tmp_path / "c", {"lora": {"rank": 2}})
    with pytest.raises(Refused, match="must not come after 'adapters'"):
        after(adapted, tmp_path / "d", "lora")
    heads = after(table_bundle(BOTH, {"mlp": {"hidden": []}}), tmp_path / "e", TRAIN)
    with pytest.raises(LuodiError, match="no linear or 2-d convolution layer before its heads"):
        after(heads, tmp_path / "f", "lora")


@pytest.mark.parametrize("variant", ["plain", "dora"])
def test_adapters_may_be_exported_and_stand_on_int8_weights(variant, tmp_path):
    trained = after(images_bundle(CONVNET), tmp_path / "a", TRAIN, {"lora": {"rank": 2, "variant": variant}}, TRAIN)
    exported = after(trained.fork(), tmp_path / "b", {"export": {"to": "onnx"}})
    arrays = exported.golden.arrays
    np.testing.assert_allclose(
        exported.predictor("onnx").forward(arrays)["label"], trained.predictor().forward(arrays)["label"],
        rtol=1e-3, atol=1e-4,
    )  # fmt: skip
    small = after(trained.fork(), tmp_path / "c", "quantize")
    assert np.abs(small.predictor().forward(arrays)["label"] - trained.predictor().forward(arrays)["label"]).max() < 0.2
    again = Bundle.load(small.save(tmp_path / "small"))
    assert sha(again) == sha(small)
    with pytest.raises(Refused, match="merge needs 'float'"):
        after(small, tmp_path / "d", "merge")
