"""Augments of sounds against sines, powers and counts; and their way into the loop."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from small_data import bundle_of, sha

from luodi.core.errors import LuodiError
from luodi.core.run import Run
from luodi.core.source import rows_of
from luodi.core.thing import WrongThing, dump, make
from luodi.train.loop.augments.hearing.resample import resampled
from luodi.train.loop.augments.hearing.vocoder import sound, spectrum, stretched
from luodi.train.loop.augments.hearing.warp import places_of, read_between

CLIP = f"{Path(__file__).with_name('own_fields.py')}:Clip"
SETTINGS = [
    {"sound_noise": {}}, {"speed": {}}, {"pitch": {"window": 256}}, {"spec_augment": {}}, {"spec_augment": {"warp": 0}},
]  # fmt: skip
NOTHING = [
    {"sound_noise": {"share": 0}}, {"speed": {"share": 0}}, {"speed": {"range": 0}}, {"pitch": {"share": 0}},
    {"pitch": {"semitones": 0}}, {"spec_augment": {"share": 0}},
]  # fmt: skip
TIME = torch.arange(8000, dtype=torch.float64)


def dice(seed=0):
    return torch.Generator().manual_seed(seed)


def sines(*pitches, length=8000):
    return torch.stack([torch.sin(2 * math.pi * pitch * TIME[:length]) for pitch in pitches])


def pitch_of(values):
    """The strongest frequency of each row, in cycles a sample, to a fraction of a bin."""
    window = torch.hann_window(values.shape[1], dtype=values.dtype)
    return torch.fft.rfft(values * window, n=8 * values.shape[1]).abs().argmax(1) / (8 * values.shape[1])


def applied(thing, values, seed=0):
    return make("augments", thing).apply(values, dice(seed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("length", [1, 100, 3001])
@pytest.mark.parametrize("thing", SETTINGS, ids=str)
def test_any_length_same_keys_same_bits(thing, length, dtype):
    values = torch.randn(5, length, generator=dice(1), dtype=dtype)
    before = values.clone()
    one, two = applied(thing, values), applied(thing, values)
    assert torch.equal(one, two) and one.shape == values.shape and one.dtype == dtype
    assert torch.isfinite(one).all() and torch.equal(values, before)
    if length > 1:
        assert not torch.equal(one, values) and not torch.equal(one, applied(thing, values, 1))


@pytest.mark.parametrize("thing", NOTHING, ids=str)
def test_nothing_to_do_leaves_every_bit(thing):
    values = torch.randn(5, 700, generator=dice(1))
    assert torch.equal(applied(thing, values), values)


@pytest.mark.parametrize("thing", [*SETTINGS, *NOTHING], ids=str)
def test_config_round_trip(thing):
    augment = make("augments", thing)
    assert make("augments", dump(augment)) == augment and augment.kind == "sound"


def test_mistakes_are_refused():
    for thing in (
        {"sound_noise": {"decibels": [9, 1]}},
        {"pitch": {"window": 1000}},
        {"spec_augment": {"bands": 2}},
        {"spec_augment": {"warp": 0.5}},
    ):
        with pytest.raises(WrongThing):
            make("augments", thing)
    for name in ("speed", "pitch"):
        with pytest.raises(LuodiError, match=r"\(batch, samples\), and this input is \(2, 8, 9\)"):
            applied(name, torch.zeros(2, 8, 9))


def test_noise_has_its_power():
    values = sines(0.01, 0.2, 0.3) * torch.tensor([1.0, 100.0, 0.0])[:, None]
    added = applied({"sound_noise": {"decibels": [20, 20]}}, values) - values
    assert torch.allclose(added[:2].square().mean(1) / values[:2].square().mean(1), torch.tensor(0.01).double())
    assert (added[2] == 0).all()
    many = sines(0.1).expand(400, 8000)
    power = (applied({"sound_noise": {"decibels": [10, 30]}}, many) - many).square().mean(1)
    decibels = -10 * (power / 0.5).log10()
    assert 10 <= float(decibels.min()) < 11 and 29 < float(decibels.max()) <= 30.01
    assert float(decibels.mean()) == pytest.approx(20, abs=1)


def test_resampled_sines_are_sines_and_what_is_too_high_goes():
    pitches = (0.003, 0.03, 0.11, 0.2)
    for speed in (0.8, 1.0, 1.25, 2.0):
        found = resampled(sines(*pitches), torch.full((4,), speed), 3500)
        expected = sines(*(pitch * speed for pitch in pitches), length=3500)
        inside = slice(100, -100)
        assert float((found - expected)[:, inside].abs().max()) < 2e-3, speed
    gone = resampled(sines(0.45), torch.tensor([1.5]), 4000)
    assert float(gone[:, 100:-100].abs().max()) < 1e-3  # 0.675 of a sample would fold back to 0.325
    assert torch.allclose(
        resampled(sines(0.1), torch.tensor([2.0]), 6000)[:, 4100:], torch.zeros(1).double(), atol=1e-3
    )


def test_speed_changes_pitch_and_length_by_the_same():
    values = sines(0.05).expand(60, 8000)
    found = applied({"speed": {"range": 0.5, "share": 0.7}}, values)
    still = (found == values).all(1)
    assert float(still.double().mean()) == pytest.approx(0.3, abs=0.15)
    ratio = pitch_of(found) / 0.05
    assert 1 / 1.5 - 0.01 < float(ratio.min()) < 0.8 and 1.25 < float(ratio.max()) < 1.51
    for one, faster in zip(found, ratio, strict=True):
        if faster > 1.02:
            end = math.ceil(8000 / float(faster))
            assert float(one[end + 40 :].abs().max()) < 2e-2 < 0.9 < float(one[end - 200 : end - 40].abs().max())


def test_spectrum_and_back_is_the_same_sound():
    values = torch.randn(3, 2111, generator=dice(2), dtype=torch.float64)
    assert torch.allclose(sound(spectrum(values, 256), 256, 2111), values, atol=1e-12)
    same = stretched(values, torch.ones(3), 256)
    assert same.shape == values.shape and torch.allclose(same[:, 300:-300], values[:, 300:-300], atol=1e-9)


def test_stretched_is_longer_at_the_same_pitch_and_loudness():
    found = stretched(sines(0.02, 0.1, 0.23), torch.tensor([1.5, 0.75, 1.0]), 1024)
    assert found.shape == (3, 12000)
    assert torch.allclose(pitch_of(found[:, 500:5500]), torch.tensor([0.02, 0.1, 0.23]), atol=2e-4)
    assert torch.allclose(found[:, 1000:5000].square().mean(1), torch.tensor(0.5).double(), atol=0.01)
    assert float(found[0, 10000:11000].abs().max()) > 0.9 and float(found[1, 7200:].abs().max()) < 0.01


@pytest.mark.parametrize("semitones", [1, 12])
def test_pitch_changes_by_semitones_and_nothing_else(semitones):
    values = sines(0.05).expand(40, 8000)
    found = applied({"pitch": {"semitones": semitones}}, values)
    steps = 12 * (pitch_of(found[:, 1000:7000]) / 0.05).log2()
    assert float(steps.abs().max()) <= semitones + 0.05 and float(steps.max()) > 0.7 * semitones
    assert float(steps.min()) < -0.7 * semitones
    assert torch.allclose(found[:, 1000:7000].square().mean(1), torch.tensor(0.5).double(), atol=0.02)


def test_spec_augment_counts_its_masks():
    values = torch.rand(2000, 40, 50, generator=dice(3)) + 1
    one = {"warp": 0, "bands": 0.25, "num_bands": 1, "time": 0.1, "num_times": 0}
    gone = (applied({"spec_augment": one}, values) == 0).all(2)
    widths = gone.sum(1)
    assert set(widths.tolist()) == set(range(11)) and float(widths.double().mean()) == pytest.approx(5, abs=0.25)
    assert all(int(row.diff().abs().sum()) <= 2 for row in gone.int())  # in one piece
    both = applied({"spec_augment": {**one, "num_times": 2}}, values) == 0
    frames = both.all(1).sum(1)
    assert 0 < float(frames.double().mean()) <= 5 and int(frames.max()) <= 10
    mean = applied({"spec_augment": {**one, "fill": "mean"}}, values)
    for row, before, hidden in zip(mean[:50], values, gone, strict=False):
        assert torch.allclose(row[hidden], before.mean()) and torch.equal(row[~hidden], before[~hidden])


def test_spec_augment_on_samples_takes_a_pitch_out():
    values = sines(0.1) + sines(0.4)
    whole = make("augments", {"spec_augment": {"warp": 0, "bands": 0.5, "num_bands": 1, "num_times": 0}})
    powers = torch.stack([whole.apply(values, dice(seed))[0, 1000:7000].square().mean() for seed in range(60)])
    for power in (0.5, 1.0):  # one of the two is gone, or none
        assert torch.isclose(powers, torch.tensor(power).double(), atol=0.01).any()


WARP = {"warp": 0.2, "num_bands": 0, "num_times": 0}


def slowly(frames, moment, moved):
    """Time warping of one spectrum, a number at a time, as the paper tells it: the moment goes to `moved`, the ends
    stay, and each frame in between keeps its share of the way."""
    bands, last = frames.shape[0], frames.shape[1] - 1
    found = np.zeros_like(frames)
    for at in range(last + 1):
        if at <= moved:
            place = at / moved * moment if moved > 0 else 0.0
        else:
            place = moment + (at - moved) / (last - moved) * (last - moment)
        before = min(int(place), last - 1)
        for band in range(bands):
            one, other = frames[band, before], frames[band, before + 1]
            found[band, at] = one * (1 - (place - before)) + other * (place - before)
    return found


def test_warped_spectra_are_the_slow_ones():
    frames = torch.randn(40, 6, 31, generator=dice(5), dtype=torch.float64)
    moment = torch.rand(40, generator=dice(6), dtype=torch.float64) * 30
    moved = (moment + torch.randn(40, generator=dice(7), dtype=torch.float64) * 5).clamp(0, 30)
    found = read_between(frames, places_of(moment, moved, 31))
    for place in range(40):
        expected = slowly(frames[place].numpy(), float(moment[place]), float(moved[place]))
        np.testing.assert_allclose(found[place].numpy(), expected, rtol=0, atol=1e-9)
    assert torch.equal(read_between(frames, places_of(moment, moment, 31)).round(decimals=9), frames.round(decimals=9))


def test_spec_augment_warps_as_far_as_it_says():
    """A ramp shows where each frame was read: two straight lines, the ends where they were."""
    ramp = torch.arange(101.0, dtype=torch.float64).expand(3000, 2, 101)
    places = applied({"spec_augment": WARP}, ramp)[:, 0]
    assert torch.allclose(places[:, [0, -1]], torch.tensor([0.0, 100]).double())
    slopes = places.diff()
    assert float(slopes.min()) > 0
    first, second = slopes[:, 0], slopes[:, -1]  # before the moment, and after it
    moved = 100 * (1 - second) / (first - second)
    moment, far = first * moved, (first - 1) * moved
    sure = far.abs() > 0.5
    assert float(far[sure].abs().max()) <= 20 + 1e-6 and float(far.abs().max()) > 19.5
    assert abs(float(far[sure].mean())) < 0.7 and float(far[sure].abs().mean()) == pytest.approx(10.25, abs=0.5)
    assert 20 - 1e-6 <= float(moment[sure].min()) < 21 and 79 < float(moment[sure].max()) <= 80 + 1e-6
    noise = torch.randn(3000, 2, 101, generator=dice(8), dtype=torch.float64)
    found = applied({"spec_augment": WARP}, noise)  # the same dice
    for row in range(20):
        if sure[row]:
            expected = slowly(noise[row].numpy(), float(moment[row]), float(moved[row]))
            np.testing.assert_allclose(found[row].numpy(), expected, atol=1e-6)


def test_a_warped_sound_keeps_its_pitch_and_its_ends():
    """A click before and after the middle: moved, while the tone under them stays as high as it was."""
    tone = sines(0.05).expand(30, 8000)
    found = applied({"spec_augment": WARP}, tone)
    assert torch.allclose(pitch_of(found[:, 1000:7000]), torch.tensor(0.05), atol=3e-4)
    assert torch.allclose(found[:, 1000:7000].square().mean(1), torch.tensor(0.5).double(), atol=0.02)
    loud = (TIME > 4000).double() * sines(0.05)[0]
    starts = (applied({"spec_augment": WARP}, loud.expand(60, 8000)).abs() > 0.5).double().argmax(1)
    assert int(starts.min()) < 3200 and int(starts.max()) > 4800
    assert int(starts.min()) > 4000 - 0.2 * 8000 - 300 and int(starts.max()) < 4000 + 0.2 * 8000 + 300
    assert (applied({"spec_augment": WARP}, loud.expand(60, 8000))[:, -1000:-300].square().mean(1) > 0.45).all()


# ---- in the loop ----------------------------------------------------------------------------------


def calls(count, seed):
    one = np.random.default_rng(seed)
    labels = one.integers(0, 2, count)
    times = np.arange(512)
    cells = [
        (np.sin(2 * math.pi * (0.02 if label else 0.03) * times + one.normal() * 0.1)).astype(np.float32).tolist()
        for label in labels
    ]
    return rows_of({"call": cells, "label": [f"k{label}" for label in labels]})


def test_a_training_on_sounds(tmp_path):
    task = {"supervised": {"inputs": {"call": CLIP}, "targets": {"label": "category"}}}

    def trained(name, *augment):
        bundle = bundle_of(task, {"mlp": {"hidden": [16]}}, calls(64, 0), calls(32, 1))
        fields = {"batch_size": 16, "epochs": 4, "learning_rate": 0.01, "augment": list(augment)}
        return make("steps", {"train": fields})(bundle, Run(tmp_path / name))

    every = ("sound_noise", {"speed": {"range": 0.02}}, {"pitch": {"semitones": 0.3, "window": 256}}, "spec_augment")
    one, two, plain = trained("a", *every), trained("b", *every), trained("c")
    assert sha(one) == sha(two) != sha(plain)
    assert one.notes["history"][-1]["validation"]["label.accuracy"] > 0.9
    objection = make("steps", {"train": {"augment": ["flip"]}}).objection(make("tasks", task), None)
    assert objection == "flip changes an image, and no input of this task is one"
