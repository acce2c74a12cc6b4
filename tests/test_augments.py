"""Augments of images, their blends in the loop, and what holds for every augment; texts and sounds: test_augments_*."""

from __future__ import annotations

import math
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file, save_file
from small_data import IMAGES, SIDES, bundle_of, image_rows, images_bundle, sha
from torch import nn
from torch.nn import functional

from luodi.core.catalog import entries
from luodi.core.errors import LuodiError
from luodi.core.run import Run
from luodi.core.thing import WrongThing, dump, make
from luodi.train.loop.augments.drawing.draw import beta, chosen
from luodi.train.loop.augments.drawing.tones import autocontrasted, equalized, posterized, solarized
from luodi.train.loop.augments.image.colour import hue_turned
from luodi.train.loop.augments.image.crop import shifted
from luodi.train.loop.blending import Blended, blended, losses_of
from luodi.train.loop.gradients import mean_loss
from luodi.train.loop.slots import Blend

CONVNET = {"convnet": {"widths": [4, 8], "hidden": 16, "dropout": 0.2}}
MLP = {"mlp": {"hidden": [16]}}
STILL = {"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0}
SETTINGS = [
    {"affine": {}}, {"affine": {"fill": "zero", "share": 0.5}}, {"flip": {"vertical": 0.5}}, {"crop": {}},
    {"crop": {"fill": "mirror", "margin": 1.0}}, {"crop": {"how": "resized", "area": [0.1, 0.9]}},
    {"colour": {"hue": 30}}, {"noise": {}}, {"erase": {}}, {"erase": {"fill": "mean"}}, {"rand_augment": {}},
    {"rand_augment": {"operations": 5, "magnitude": 30, "fill": "zero"}}, {"mixup": {}}, {"cutmix": {}},
]  # fmt: skip
NOTHING = [
    {"affine": {"share": 0}}, {"flip": {"horizontal": 0}}, {"crop": {"share": 0}}, {"crop": {"margin": 0}},
    {"crop": {"how": "resized", "share": 0}}, {"colour": {"share": 0}}, {"colour": STILL}, {"noise": {"share": 0}},
    {"noise": {"deviation": 0}}, {"erase": {"share": 0}}, {"rand_augment": {"share": 0}},
    {"rand_augment": {"among": ["nothing"]}}, {"mixup": {"share": 0}}, {"cutmix": {"share": 0}},
]  # fmt: skip
IMAGE = {"affine", "flip", "crop", "colour", "noise", "erase", "rand_augment", "mixup", "cutmix"}


def dice(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(*shape, dtype=torch.float32):
    found = torch.from_numpy(np.random.default_rng(0).normal(size=shape))
    return found.to(dtype)


def applied(thing, values, seed=0):
    augment = make("augments", thing)
    if isinstance(augment, Blend):
        return augment.blend(values, values.roll(1, 0), dice(seed))[0]
    return augment.apply(values, dice(seed))


def trained(bundle, tmp_path, run=None, **fields):
    return make("steps", {"train": {"batch_size": 32, **fields}})(bundle, run or Run(tmp_path))


# ---- every augment of images ----------------------------------------------------------------------


def test_all_are_here():
    assert set(entries("augments")) >= IMAGE
    assert {next(iter(one)) for one in SETTINGS} == {next(iter(one)) for one in NOTHING} == IMAGE


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(6, 3, 8, 8), (5, 1, 7, 12), (2, 4, 1, 9), (1, 1, 1, 1)], ids=str)
@pytest.mark.parametrize("thing", SETTINGS, ids=str)
def test_any_size_same_keys_same_bits(thing, shape, dtype):
    values = pictures(*shape, dtype=dtype)
    before = values.clone()
    one, two = applied(thing, values), applied(thing, values)
    assert torch.equal(one, two) and one.shape == values.shape and one.dtype == dtype
    assert torch.isfinite(one).all() and torch.equal(values, before)
    if len(values) > 2:
        assert any(not torch.equal(one, applied(thing, values, seed)) for seed in range(1, 9))


@pytest.mark.parametrize("thing", NOTHING, ids=str)
def test_nothing_to_do_leaves_every_bit(thing):
    values = -pictures(6, 3, 8, 8).abs()
    values[0, 0, 0, 0] = -0.0
    found = applied(thing, values)
    assert torch.equal(found.view(torch.int32), values.view(torch.int32))


@pytest.mark.parametrize("thing", [*SETTINGS, *NOTHING], ids=str)
def test_config_round_trip(thing):
    augment = make("augments", thing)
    assert make("augments", dump(augment)) == augment == make("augments", dump(augment, short=True))


@pytest.mark.parametrize(
    "thing",
    [
        {"flip": {"horizontal": 1.5}}, {"crop": {"area": [0.9, 0.1]}}, {"crop": {"ratio": [2, 1]}},
        {"noise": {"share": -1}}, {"erase": {"area": [0.4, 0.1]}}, {"mixup": {"alpha": 0}},
        {"rand_augment": {"magnitude": 31}}, {"rand_augment": {"among": ["sharpen"]}}, {"colour": {"hue": 181}},
        {"flipp": {}},
    ],
    ids=str,
)  # fmt: skip
def test_mistakes_are_refused(thing):
    with pytest.raises(WrongThing):
        make("augments", thing)


def test_half_precision_stays_half():
    values = pictures(4, 3, 8, 8).to(torch.bfloat16)
    for thing in ({"flip": {}}, {"noise": {}}, {"colour": {}}, {"erase": {}}, {"mixup": {}}, {"cutmix": {}}):
        assert applied(thing, values).dtype == torch.bfloat16


# ---- draws ----------------------------------------------------------------------------------------


def test_draws_have_their_moments():
    found = beta(20000, 0.4, dice())
    assert float(found.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(found.var()) == pytest.approx(1 / (4 * (2 * 0.4 + 1)), abs=0.004)
    assert int(chosen(20000, 0.3, dice()).sum()) / 20000 == pytest.approx(0.3, abs=0.01)
    assert not chosen(1000, 0.0, dice()).any() and chosen(1000, 1.0, dice()).all()


# ---- flip, crop -----------------------------------------------------------------------------------


def test_flip_twice_is_nothing_and_its_shares_are_kept():
    values = pictures(400, 1, 4, 6)
    both = {"flip": {"horizontal": 0.25, "vertical": 0.6}}
    once = applied(both, values)
    assert torch.equal(applied(both, once), values)
    kinds = {"none": values, "h": values.flip(3), "v": values.flip(2), "hv": values.flip(2, 3)}
    counts = {name: int((once == kind).all((1, 2, 3)).sum()) for name, kind in kinds.items()}
    assert sum(counts.values()) == 400
    for name, share in {"none": 0.3, "h": 0.1, "v": 0.45, "hv": 0.15}.items():
        assert counts[name] / 400 == pytest.approx(share, abs=0.08)
    assert torch.equal(applied({"flip": {"horizontal": 1}}, values), values.flip(3))


@pytest.mark.parametrize(("fill", "mode"), [("zero", "constant"), ("border", "edge"), ("mirror", "reflect")])
def test_crop_is_a_window_of_the_padded_image(fill, mode):
    values = pictures(300, 2, 8, 12)
    found = applied({"crop": {"margin": 0.25, "fill": fill}}, values).numpy()
    padded = np.pad(values.numpy(), ((0, 0), (0, 0), (2, 2), (3, 3)), mode=mode)
    seen = set()
    for image, around in zip(found, padded, strict=True):
        places = [
            (down, right)
            for down in range(5)
            for right in range(7)
            if np.array_equal(around[:, down : down + 8, right : right + 12], image)
        ]
        assert len(places) == 1
        seen.add(places[0])
    assert len(seen) == 35


def test_shifted_by_more_than_the_image():
    values = torch.arange(3.0).reshape(1, 1, 1, 3)
    far = torch.tensor([3])
    none = torch.tensor([0])
    assert shifted(values, none, far, "zero").flatten().tolist() == [0, 0, 0]
    assert shifted(values, none, far, "border").flatten().tolist() == [2, 2, 2]
    assert shifted(values, none, far, "mirror").flatten().tolist() == [1, 0, 1]  # 0 1 2 1 0 1 ...
    assert shifted(values, none, -far, "mirror").flatten().tolist() == [1, 2, 1]


def test_crop_resized_has_its_area_and_ratio_and_stays_inside():
    rows, columns = torch.meshgrid(torch.arange(40.0), torch.arange(60.0), indexing="ij")
    ramps = torch.stack([rows, columns]).expand(500, 2, 40, 60).double()
    found = applied({"crop": {"how": "resized", "area": [0.3, 0.5], "ratio": [0.8, 1.25]}}, ramps)
    assert float(found.min()) >= 0 and float(found[:, 0].max()) <= 39 and float(found[:, 1].max()) <= 59
    tall = (found[:, 0, 25, 30] - found[:, 0, 15, 30]) / 10  # source pixels a pixel: the window's share of the height
    wide = (found[:, 1, 20, 40] - found[:, 1, 20, 20]) / 20
    area, ratio = tall * wide, wide * 60 / (tall * 40)
    assert float(area.min()) >= 0.3 - 1e-6 and float(area.max()) <= 0.5 + 1e-6
    assert float(area.mean()) == pytest.approx(0.4, abs=0.01)
    assert float(ratio.min()) >= 0.8 - 1e-6 and float(ratio.max()) <= 1.25 + 1e-6
    assert abs(float(ratio.log().mean())) < 0.02
    middle = found[:, 0, 19:21, 30].mean(1)
    assert float(middle.min()) < 14 and float(middle.max()) > 26  # anywhere, not only in the middle
    whole = applied({"crop": {"how": "resized", "area": [1, 1], "ratio": [1, 1]}}, pictures(2, 1, 8, 8))
    assert torch.allclose(whole, pictures(2, 1, 8, 8), atol=1e-6)


# ---- colour, noise --------------------------------------------------------------------------------


def test_brightness_moves_by_a_share_of_the_spread():
    values = pictures(500, 3, 6, 6, dtype=torch.float64) * 40 + 7
    moved = applied({"colour": {**STILL, "brightness": 0.5}}, values) - values
    shares = moved.mean((1, 2, 3)) / values.std((1, 2, 3), correction=0)
    assert torch.allclose(moved, moved.mean((1, 2, 3), keepdim=True).expand_as(moved), atol=1e-9)
    assert 0.48 < float(shares.abs().max()) <= 0.5 and abs(float(shares.mean())) < 0.04


def test_contrast_is_the_same_whatever_the_normalisation():
    values = pictures(50, 3, 6, 6, dtype=torch.float64)
    shift, scale = (torch.rand(1, 3, 1, 1, generator=dice(9), dtype=torch.float64) * 90 + 1 for _ in range(2))
    only = {"colour": {**STILL, "contrast": 1.0}}
    changed = applied(only, values)
    assert torch.allclose(applied(only, values * scale + shift), changed * scale + shift, rtol=1e-10)
    assert torch.allclose(changed.mean((2, 3)), values.mean((2, 3)), atol=1e-12)
    factors = (changed.std((1, 2, 3)) / values.std((1, 2, 3))).log2()
    assert float(factors.abs().max()) <= 1.01 and float(factors.min()) < -0.8 and float(factors.max()) > 0.8


def test_saturation_and_hue_turn_around_the_grays():
    values = pictures(50, 3, 6, 6, dtype=torch.float64)
    gray = values.mean(1)
    off = (values - gray[:, None]).square().sum((1, 2, 3))
    strong = applied({"colour": {**STILL, "saturation": 1.0}}, values)
    turned = applied({"colour": {**STILL, "hue": 180}}, values)
    for changed in (strong, turned):
        assert torch.allclose(changed.mean(1), gray, atol=1e-12)
    factors = ((strong - gray[:, None]).square().sum((1, 2, 3)) / off).sqrt()
    assert 0.5 <= float(factors.min()) < 0.6 and 1.8 < float(factors.max()) <= 2
    assert torch.allclose((turned - gray[:, None]).square().sum((1, 2, 3)), off)
    for degrees, channels in ((0.0, [0, 1, 2]), (120.0, [2, 0, 1]), (-120.0, [1, 2, 0]), (360.0, [0, 1, 2])):
        angle = torch.full((50,), degrees, dtype=torch.float64)
        assert torch.allclose(hue_turned(values, angle), values[:, channels], atol=1e-12)
    one = values[:, :1]
    assert torch.equal(applied({"colour": {**STILL, "saturation": 1, "hue": 90}}, one), one)


def test_noise_is_a_share_of_the_images_own_spread():
    values = pictures(8, 3, 50, 50, dtype=torch.float64) * torch.arange(1.0, 9.0).reshape(8, 1, 1, 1)
    added = applied({"noise": {"deviation": 0.2}}, values) - values
    for image, noise in zip(values, added, strict=True):
        assert float(noise.std() / image.std()) == pytest.approx(0.2, rel=0.03)
        assert abs(float(noise.mean() / noise.std())) < 0.05
    flat = torch.full((2, 1, 4, 4), 3.0)
    assert torch.equal(applied({"noise": {}}, flat), flat)


# ---- erase ----------------------------------------------------------------------------------------


def test_erase_fills_one_rectangle_of_the_stated_size():
    values = pictures(600, 2, 20, 30, dtype=torch.float64) + 100
    found = applied({"erase": {"share": 0.4, "area": [0.06, 0.06], "ratio": 1, "fill": "zero"}}, values)
    gone = (found == 0).all(1)
    counts = gone.sum((1, 2))
    assert set(counts.tolist()) == {0, 36}  # six pixels high and wide
    assert float((counts > 0).double().mean()) == pytest.approx(0.4, abs=0.06)
    assert torch.equal(found[~gone[:, None].expand_as(found)], values[~gone[:, None].expand_as(found)])
    for image in gone[counts > 0]:
        rows, columns = image.any(1).nonzero(), image.any(0).nonzero()
        assert len(rows) == len(columns) == 6 and int(rows[-1] - rows[0]) == int(columns[-1] - columns[0]) == 5
    assert gone.any(0).any(0).all() and gone.any(0).any(1).all()  # every row and column is hit, the edges too


def test_erase_fills_with_the_channels_own_numbers():
    values = pictures(200, 2, 20, 20, dtype=torch.float64) * torch.tensor([1.0, 50.0]).reshape(1, 2, 1, 1)
    mean = applied({"erase": {"share": 1, "fill": "mean"}}, values)
    for image, before in zip(mean, values, strict=True):
        changed = image != before
        assert torch.allclose(image[0][changed[0]], before[0].mean()) and changed[0].equal(changed[1])
    noise = applied({"erase": {"share": 1, "area": [0.4, 0.4], "fill": "noise"}}, values)
    changed = (noise != values)[:, 0]
    assert float(changed.double().mean()) == pytest.approx(0.4, abs=0.05)
    for channel, deviation in ((0, 1.0), (1, 50.0)):
        new = noise[:, channel][changed]
        assert float(new.std()) == pytest.approx(deviation, rel=0.03) and abs(float(new.mean())) < 0.03 * deviation


# ---- RandAugment ----------------------------------------------------------------------------------


def test_rand_augment_draws_each_operation_as_often_and_as_strong():
    values = pictures(3000, 3, 4, 4, dtype=torch.float64)
    one = {"operations": 1, "magnitude": 15, "among": ["nothing", "brightness", "contrast"]}
    found = applied({"rand_augment": one}, values)
    moved = found - values
    same = (moved == 0).all((1, 2, 3))
    spread = values.std((1, 2, 3), correction=0)
    bright = torch.isclose((moved.mean((1, 2, 3)) / spread).abs(), torch.tensor(0.5).double()) & ~same
    for kind in (same, bright, ~same & ~bright):
        assert float(kind.double().mean()) == pytest.approx(1 / 3, abs=0.03)
    assert float((moved[bright].mean((1, 2, 3)) > 0).double().mean()) == pytest.approx(0.5, abs=0.05)
    rest = ~same & ~bright
    centred = values[rest] - values[rest].mean((2, 3), keepdim=True)
    factors = ((moved[rest] + values[rest] - values[rest].mean((2, 3), keepdim=True)) / centred).median(1)[0].flatten()
    expected = torch.tensor([2.5**-0.5, 2.5**0.5]).double()
    assert torch.isclose(factors[:, None], expected).any(1).all()


def test_rand_augment_moves_as_far_as_it_says():
    ramp = torch.arange(100.0).reshape(1, 1, 1, 100).expand(64, 1, 3, 100).double()
    moved = applied({"rand_augment": {"operations": 1, "magnitude": 20, "among": ["right"]}}, ramp)
    assert set((ramp - moved)[:, 0, 1, 50].round(decimals=6).tolist()) == {30.0, -30.0}  # 0.45 * 20 / 30
    square = applied({"rand_augment": {"operations": 1, "magnitude": 30, "among": ["erase"]}}, pictures(9, 1, 10, 20))
    assert {int((a != b).sum()) for a, b in zip(square, pictures(9, 1, 10, 20), strict=True)} == {50}


def test_rand_augment_spares_gray_images_what_they_have_not():
    gray = pictures(50, 1, 6, 6)
    assert torch.equal(applied({"rand_augment": {"among": ["saturation", "hue"]}}, gray), gray)
    assert not torch.equal(applied({"rand_augment": {}}, gray), gray)


# Pillow's operation on uint8, and ours; what Pillow rounds down at the end, ours leaves as it is.
TONES = {
    "posterize": (lambda image: ImageOps.posterize(image, 5), lambda x: posterized(x, torch.full((len(x),), 5)), 0),
    "solarize": (lambda image: ImageOps.solarize(image, 100), lambda x: solarized(x, torch.full((len(x),), 100)), 0),
    "negative": (ImageOps.invert, lambda x: solarized(x, torch.zeros(len(x))), 0),
    "equalize": (ImageOps.equalize, equalized, 0),
    "autocontrast": (
        lambda image: ImageOps.autocontrast(image, cutoff=7),
        lambda x: autocontrasted(x, torch.full((len(x),), 0.07).double()), 1,
    ),
}  # fmt: skip


def toned(count, channels, side=24):
    """uint8 pictures, smooth and noisy, some dark and some light, whose channels all hold 0 and 255."""
    seeded, found = np.random.default_rng(4), []
    for number in range(count):
        low = seeded.normal(60 + 12 * number, 50, (5, 7, channels)).clip(0, 255).astype(np.uint8)
        planes = [
            Image.fromarray(low[:, :, c]).resize((side + 3, side), Image.Resampling.BICUBIC) for c in range(channels)
        ]
        image = np.stack([np.asarray(plane) for plane in planes], -1).copy()
        image[0, 0], image[-1, -1] = 0, 255
        found.append(image)
    return np.stack(found)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", TONES)
def test_tones_are_pillows_whatever_the_normalisation(name, channels):
    reference, ours, off = TONES[name]
    images = toned(12, channels)
    expected = np.stack([
        np.asarray(reference(Image.fromarray(one[:, :, 0] if channels == 1 else one))).reshape(one.shape)
        for one in images
    ])  # fmt: skip
    assert (expected != images).any((1, 2, 3)).all()
    planes = torch.from_numpy(images).permute(0, 3, 1, 2)
    mean, deviation = (
        torch.tensor([90.0, 120, 60])[:channels, None, None],
        torch.tensor([50.0, 20, 80])[:channels, None, None],
    )
    for dtype, close in ((torch.float64, 1e-9), (torch.float32, 1e-3)):
        encoded = (planes.to(dtype) - mean.to(dtype)) / deviation.to(dtype)
        found = (ours(encoded) * deviation + mean).permute(0, 2, 3, 1).numpy()
        assert found.shape == expected.shape
        gap = found - expected
        assert gap.min() > -close and gap.max() < close + off, (dtype, gap.min(), gap.max())
    batch = ours(planes.float())
    for place in (0, 5):
        assert torch.equal(ours(planes[place : place + 1].float())[0], batch[place])  # nothing of the others


@pytest.mark.parametrize("name", TONES)
def test_tones_of_a_channel_are_on_its_own_range(name):
    """An image of a third of the range is changed as the same one of the whole range is; one tone stays."""
    ours = TONES[name][1]
    whole = torch.from_numpy(toned(6, 3)).permute(0, 3, 1, 2).double()
    part = whole / 3 + 40
    assert torch.allclose(ours(part), ours(whole) / 3 + 40, atol=1e-9)
    flat = torch.full((2, 3, 4, 4), -1.7)
    assert torch.equal(ours(flat), flat)
    assert ours(part.to(torch.bfloat16)).dtype == torch.bfloat16


def test_rand_augment_is_as_strong_on_tones_as_it_says():
    values = torch.from_numpy(toned(8, 3)).permute(0, 3, 1, 2).double()
    cases = {
        "posterize": posterized(values, torch.full((8,), 6)), "solarize": solarized(values, torch.full((8,), 128.0)),
        "equalize": equalized(values), "autocontrast": autocontrasted(values, torch.full((8,), 0.05).double()),
    }  # fmt: skip
    for name, expected in cases.items():
        found = applied({"rand_augment": {"operations": 1, "magnitude": 15, "among": [name]}}, values)
        assert torch.equal(found, expected) and not torch.equal(found, values), name
    for name in ("posterize", "solarize", "autocontrast"):
        still = applied({"rand_augment": {"operations": 1, "magnitude": 0, "among": [name]}}, values)
        assert torch.allclose(still, values, atol=1e-9), name


# ---- blends ---------------------------------------------------------------------------------------


def test_mixup_is_the_mean_of_two_in_its_shares():
    values, partners = pictures(2000, 1, 2, 2, dtype=torch.float64), pictures(2000, 1, 2, 2).double().flip(0)
    found, own = make("augments", {"mixup": {"alpha": 0.5, "share": 0.6}}).blend(values, partners, dice())
    kept = own.reshape(-1, 1, 1, 1)
    assert torch.allclose(found, kept * values + (1 - kept) * partners)
    assert float((own == 1).double().mean()) == pytest.approx(0.4, abs=0.04)
    drawn = own[own < 1]
    assert float(drawn.mean()) == pytest.approx(0.5, abs=0.03) and float(drawn.var()) == pytest.approx(1 / 8, abs=0.01)


def test_cutmix_puts_a_rectangle_in_and_counts_its_pixels():
    values, partners = torch.zeros(3000, 2, 12, 18, dtype=torch.float64), torch.ones(3000, 2, 12, 18).double()
    found, own = make("augments", {"cutmix": {"share": 0.7}}).blend(values, partners, dice())
    assert torch.allclose(1 - found.mean((1, 2, 3)), own)
    for image in found[:300, 0]:
        rows, columns = image.any(1), image.any(0)
        assert torch.equal(image, (rows[:, None] & columns).double())
        assert int(rows.sum()) * int(columns.sum()) == int(image.sum())
    # The whole box is a share u of the area, u uniform; its middle is anywhere, so what stays inside is less.
    sides = torch.linspace(0, 1, 2001).double()[:, None].sqrt()
    at = torch.linspace(0, 1, 1001).double()
    inside = ((at + sides / 2).clamp(max=1) - (at - sides / 2).clamp(min=0)).mean(1)
    assert float(1 - own.mean()) == pytest.approx(0.7 * float((inside**2).mean()), abs=0.03)


class Linear(nn.Module):
    """Counts its forwards."""

    def __init__(self):
        super().__init__()
        self.label, self.size, self.forwards = nn.Linear(4, 3).double(), nn.Linear(4, 1).double(), 0

    def forward(self, x):
        self.forwards += 1
        x = x.flatten(1)
        return {"label": self.label(x), "size": self.size(x)}


def both_losses(model, batch, truth):
    outputs = model(**batch)
    label = functional.cross_entropy(outputs["label"], truth["label"], reduction="none")
    size = (outputs["size"].flatten() - truth["size"]) ** 2
    return {"label": (label, torch.ones_like(label), 1.0), "size": (size * truth["w"], truth["w"], 0.3)}


def blended_batch(count=40):
    values = pictures(count, 1, 2, 2, dtype=torch.float64)
    truth = {
        "label": torch.arange(count) % 3,
        "size": torch.linspace(-1, 1, count).double(),
        "w": (torch.arange(count) % 4 > 0).double(),
    }
    return values, truth


def soft_loss(model, x, labels, weights, sized):
    """The closed form: cross-entropy against the blended labels, and weighted squared errors of every part."""
    outputs = model(x=x)
    label = -(labels * outputs["label"].log_softmax(1)).sum(1).mean()
    return label + 0.3 * sum((w * (outputs["size"].flatten() - s) ** 2).sum() for s, w in sized) / weights.sum()


def test_blended_losses_are_their_closed_form_from_one_forward():
    torch.default_generator.manual_seed(0)
    model, (values, truth) = Linear(), blended_batch()
    x, mixed = blended(make("augments", {"mixup": {"alpha": 1}}), values, truth, dice(3))
    loss = mean_loss(losses_of(both_losses, model, {"x": x}, mixed))
    assert model.forwards == 1 and isinstance(mixed, Blended) and dict(mixed) == truth and len(mixed) == 3
    found = torch.autograd.grad(loss, list(model.parameters()))
    own, other = mixed.share, mixed.partner
    labels = functional.one_hot(truth["label"], 3) * own[:, None]
    labels = labels + functional.one_hot(other["label"], 3) * (1 - own)[:, None]
    sized = [(truth["size"], own * truth["w"]), (other["size"], (1 - own) * other["w"])]
    expected = soft_loss(model, x, labels, sized[0][1] + sized[1][1], sized)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-12)
    for one, two in zip(found, torch.autograd.grad(expected, list(model.parameters())), strict=True):
        assert torch.allclose(one, two, rtol=1e-10, atol=1e-14)


def test_a_blend_of_blends_has_four_truths_and_one_forward():
    model, (values, truth) = Linear(), blended_batch()
    truth["w"] = torch.ones(40).double()
    x, once = blended(make("augments", {"mixup": {"alpha": 1}}), values, truth, dice(3))
    x, twice = blended(make("augments", "cutmix"), x, once, dice(4))
    loss = mean_loss(losses_of(both_losses, model, {"x": x}, twice))
    assert model.forwards == 1
    labels, sized = torch.zeros(40, 3).double(), []
    for half, share in ((twice.own, twice.share), (twice.partner, 1 - twice.share)):
        for quarter, inner in ((half.own, half.share), (half.partner, 1 - half.share)):
            labels = labels + functional.one_hot(quarter["label"], 3) * (share * inner)[:, None]
            sized.append((quarter["size"], share * inner))
    assert torch.allclose(labels.sum(1), torch.ones(40).double())
    expected = soft_loss(model, x, labels, truth["w"], sized)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-12)


def test_partners_are_of_the_same_piece():
    """Accumulation and ranks: a row's partner is among the rows of its own forward, and its truth comes along."""
    x = torch.arange(6.0).reshape(6, 1, 1, 1)
    mixed, truth = blended(make("augments", {"mixup": {"alpha": 1}}), x, {"y": torch.arange(6.0)}, dice(1))
    expected = truth.share * truth["y"] + (1 - truth.share) * truth.partner["y"]
    assert torch.allclose(mixed.flatten(), expected)
    assert sorted(truth.partner["y"].tolist()) == list(range(6))


# ---- in the loop ----------------------------------------------------------------------------------

ALL = ["flip", "crop", "colour", "noise", "erase", "rand_augment", {"mixup": {"share": 0.5}}, "cutmix"]


@pytest.mark.parametrize("augment", sorted(IMAGE))
def test_a_training_with_each_is_repeatable_and_another_one(augment, tmp_path):
    fields = {"epochs": 1, "augment": [augment]}
    one, two = (sha(trained(images_bundle(CONVNET, 64), tmp_path / name, **fields)) for name in "ab")
    plain = sha(trained(images_bundle(CONVNET, 64), tmp_path / "c", epochs=1))
    assert one == two != plain


def test_blends_learn(tmp_path):
    bundle = trained(
        images_bundle(CONVNET), tmp_path, epochs=14, learning_rate=0.01, augment=[{"mixup": {"alpha": 0.4}}, "cutmix"]
    )
    history = bundle.notes["history"]
    assert history[-1]["validation"]["label.accuracy"] >= 0.9
    assert history[-1]["train_loss"] > 2 * history[-1]["validation_loss"] > 0  # blended rows cannot be fitted


def test_blends_in_bf16_and_with_averaged_weights(tmp_path):
    fields = {"epochs": 2, "augment": ["mixup", "cutmix"], "precision": "bf16", "average": "ema"}
    one, two = (trained(images_bundle(CONVNET), tmp_path / name, **fields) for name in "ab")
    assert sha(one) == sha(two) and math.isfinite(one.notes["history"][-1]["train_loss"])


class Killed(RuntimeError):
    pass


@pytest.mark.parametrize("fields", [{"batch_size": 12}, {"batch_size": 8, "accumulate": 2}], ids=str)
def test_a_killed_training_goes_on_with_the_same_bits(fields, tmp_path):
    fields = {**fields, "epochs": 3, "augment": ALL, "checkpoint_seconds": 1e-6}
    whole = sha(trained(images_bundle(CONVNET), tmp_path / "whole", **fields))
    ticks = []

    def dies(event, facts):
        ticks.append(event)
        if event == "epoch" and ticks.count("epoch") == 2:
            raise Killed

    with pytest.raises(Killed):
        trained(images_bundle(CONVNET), tmp_path / "cut", Run(tmp_path / "cut", log=dies), **fields)
    notes = []
    run = Run(tmp_path / "cut", log=lambda event, facts: notes.append(facts.get("text", "")))
    assert sha(trained(images_bundle(CONVNET), tmp_path / "cut", run, **fields)) == whole
    assert any("going on from the checkpoint" in str(note) for note in notes)


def _rank(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    run = Run(Path(folder) / "run", rank=rank, world=2)
    done = trained(images_bundle(MLP, 50), run.out, run, epochs=2, batch_size=16, augment=["mixup", "cutmix", "crop"])
    save_file(done.model.state_dict(), f"{folder}/{rank}.safetensors")
    torch.distributed.destroy_process_group()


def test_two_processes_blend_and_stay_one_model(tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "luodi.train.loop.fit", "luodi.tasks.supervised"])
    ranks = [context.Process(target=_rank, args=(rank, str(tmp_path))) for rank in (0, 1)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    one, two = (load_file(tmp_path / f"{rank}.safetensors") for rank in (0, 1))
    assert all(torch.equal(one[name], two[name]) and torch.isfinite(one[name]).all() for name in one)


def test_a_blended_update_of_two_ranks_is_that_of_their_rows_together():
    """What each rank would draw, put together by hand, gives the gradient that one process gets from both pieces."""
    from luodi.train.loop.gradients import sum_of

    model, (values, truth) = Linear(), blended_batch()
    pieces = []
    for rank, rows in enumerate(torch.arange(40).tensor_split(2)):
        run = Run(Path("nowhere"), rank=rank, world=2)
        generator = run.generator("augment", 0, 5, 0, run.rank)
        part = {name: tensor[rows] for name, tensor in truth.items()}
        pieces.append(blended(make("augments", {"mixup": {"alpha": 1}}), values[rows], part, generator))
    assert not torch.equal(pieces[0][1].share, pieces[1][1].share)
    found = [losses_of(both_losses, model, {"x": x}, mixed)["size"] for x, mixed in pieces]
    loss = sum_of([each.sum() for each, _, _ in found]) / sum_of([weights.sum() for _, weights, _ in found])
    together = torch.cat([x for x, _ in pieces])
    output = model(x=together)["size"].flatten()
    own = torch.cat([mixed.share * mixed["w"] for _, mixed in pieces])
    rest = torch.cat([(1 - mixed.share) * mixed.partner["w"] for _, mixed in pieces])
    here, there = torch.cat([m["size"] for _, m in pieces]), torch.cat([m.partner["size"] for _, m in pieces])
    expected = (own * (output - here) ** 2 + rest * (output - there) ** 2).sum() / (own + rest).sum()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-12)


def test_what_cannot_be_is_refused_before_work(tmp_path):
    def objection(task, **fields):
        return make("steps", {"train": fields}).objection(make("tasks", task), None)

    assert "text_mask changes a text, and no input of this task is one" in objection(IMAGES, augment=["text_mask"])
    assert "speed changes a sound, and no input" in objection(IMAGES, augment=["speed"])
    assert "batch_size is 1" in objection(IMAGES, augment=["mixup"], batch_size=1)
    fused = {"supervised": {"inputs": {"image": "image", "age": "number"}, "targets": {"label": "category"}}}
    assert "shares of one input; this task has image, age" in objection(fused, augment=["cutmix"])
    assert objection(fused, augment=["flip"]) is None and objection(IMAGES, augment=ALL) is None
    assert "mixup changes an image" in objection(SIDES, augment=["mixup"])
    with pytest.raises(LuodiError):
        make("steps", {"train": {"augment": ["mixupp"]}})


def test_a_number_target_is_blended_too(tmp_path):
    rows = image_rows(64, 0)
    numbers = type(rows)(rows.table.append_column("size", [[float(name[1]) for name in rows.column("label")]]))
    targets = {"label": "category", "size": {"number": {"weight": 0.5}}}
    task = {"supervised": {"inputs": IMAGES["supervised"]["inputs"], "targets": targets}}
    done = trained(bundle_of(task, MLP, numbers, numbers), tmp_path, epochs=30, learning_rate=0.01, augment=["mixup"])
    last = done.notes["history"][-1]["validation"]
    assert last["label.accuracy"] > 0.9 and last["size.rmse"] < 0.6 and math.isfinite(last["label.loss"])
