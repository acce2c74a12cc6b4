"""The image field: every wire form and mode, limits, damage, normalisation, aspect ratio."""

from __future__ import annotations

import base64
import io
import json
import math
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image as Pillow

from luodi.core.errors import BadRequest, LuodiError
from luodi.fields.image import Image

dice = np.random.default_rng(7)
GRAY = dice.integers(0, 256, (9, 7), dtype=np.uint8)
COLOUR = dice.integers(0, 256, (9, 7, 3), dtype=np.uint8)
ALPHA = dice.integers(0, 256, (9, 7, 4), dtype=np.uint8)


def file_of(image: Pillow.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def png(value: np.ndarray) -> bytes:
    return file_of(Pillow.fromarray(value))


@pytest.mark.parametrize("value", [GRAY, COLOUR, ALPHA], ids=["gray", "colour", "alpha"])
def test_every_wire_form_of_an_image_is_one_value(value):
    field, data = Image(), png(value)
    text = base64.b64encode(data).decode()
    wrapped = "\n".join(text[start : start + 60] for start in range(0, len(text), 60))
    forms = [data, bytearray(data), memoryview(data), text, wrapped, f"data:image/png;base64,{text}", value]
    forms += [value.tolist(), value.astype(np.int64), value.astype(np.float32), np.asfortranarray(value)]
    for form in forms:
        found = field.read(form)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, value)
    assert field.read(file_of(Pillow.fromarray(COLOUR), "JPEG", quality=95)).shape == (9, 7, 3)
    np.testing.assert_array_equal(field.read(GRAY[:, :, None]), GRAY)
    np.testing.assert_array_equal(field.read(GRAY > 127), np.where(GRAY > 127, 255, 0))


@settings(max_examples=60, deadline=None)
@given(st.tuples(st.integers(1, 12), st.integers(1, 12), st.sampled_from([1, 3, 4])), st.data())
def test_image_write_read_round_trip(shape, data):
    value = data.draw(arrays(np.uint8, shape[:2] if shape[2] == 1 else shape))
    field = Image()
    np.testing.assert_array_equal(field.read(json.loads(json.dumps(field.write(value)))), value)


def test_every_mode_of_a_file():
    gray, colour = Pillow.fromarray(GRAY), Pillow.fromarray(COLOUR)
    read = Image().read
    bits = gray.convert("1", dither=Pillow.Dither.NONE)
    np.testing.assert_array_equal(read(file_of(bits)), np.where(GRAY > 127, 255, 0))
    palette = colour.convert("P")
    np.testing.assert_array_equal(read(file_of(palette)), np.asarray(palette.convert("RGB")))
    np.testing.assert_array_equal(read(file_of(palette, "GIF")), np.asarray(palette.convert("RGB")))
    assert read(file_of(palette, transparency=int(np.asarray(palette)[0, 0])))[0, 0, 3] == 0
    both = Pillow.merge("LA", [gray, gray])
    np.testing.assert_array_equal(read(file_of(both)), np.stack([GRAY] * 4, axis=-1))
    cmyk = colour.convert("CMYK")
    np.testing.assert_array_equal(read(file_of(cmyk, "TIFF")), np.asarray(cmyk.convert("RGB")))
    deep = (GRAY.astype(np.uint16) << 8) + 77  # 16 bits keep their high byte
    for kind in ("PNG", "TIFF"):
        np.testing.assert_array_equal(read(file_of(Pillow.fromarray(deep), kind)), GRAY)
    with pytest.raises(BadRequest, match="floating-point"):
        read(file_of(Pillow.fromarray(GRAY.astype(np.float32)), "TIFF"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_camera_rotation_is_applied(kind):
    picture = np.zeros((16, 24), np.uint8)
    picture[:8, :12] = 255  # bright at the top left
    exif = Pillow.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    found = Image().read(file_of(Pillow.fromarray(picture), kind, exif=exif))
    assert found.shape[:2] == (24, 16)
    corners = [found[2, 2], found[2, -3], found[-3, 2], found[-3, -3]]
    assert [bool(np.mean(corner) > 128) for corner in corners] == [False, True, False, False]


@pytest.mark.parametrize(
    ("wire", "says"),
    [
        (None, "expected an image"),
        (7, "got int"),
        ({"bytes": 1}, "got dict"),
        (b"", "no bytes"),
        (b"%PDF-1.7 not a picture", "no image"),
        (png(COLOUR)[:70], "cut off or damaged"),
        ("not base64!", "base64"),
        ("", "no bytes"),
        ("data:image/png,abc", "data URL"),
        ([[1, 2], [3]], "rectangle"),
        ([], "shape"),
        ([[]], "shape"),
        ([1, 2, 3], "shape"),
        (np.zeros((3, 8, 8), np.uint8), "height, width"),
        ([[0, 256]], "256"),
        ([[0, -1]], "-1"),
        ([[0.25, 1.0]], "0.25"),
        ([[math.nan]], "nan"),
        ([["a", "b"]], "whole numbers"),
        ([[None, 1]], "whole numbers"),
    ],
)
def test_what_is_no_image_is_refused_in_words(wire, says):
    with pytest.raises(BadRequest, match=says):
        Image().read(wire)


def test_a_picture_beyond_the_limit_is_refused_before_it_is_decoded():
    small = Image(max_pixels=100)
    assert small.read(np.zeros((10, 10), np.uint8)).shape == (10, 10)
    for wire in (np.zeros((10, 11), np.uint8), png(np.zeros((10, 11), np.uint8))):
        with pytest.raises(BadRequest, match="at most 100 pixels, got 11 x 10"):
            small.read(wire)
    bomb = bytearray(png(np.zeros((4, 4), np.uint8)))
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2  # the header alone claims 3.6 gigapixels
    bomb[29:33] = zlib.crc32(bytes(bomb[12:29])).to_bytes(4, "big")
    with pytest.raises(BadRequest, match="at most 40000000 pixels"):
        Image().read(bytes(bomb))


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_damaged_files_are_read_or_refused_never_anything_else():
    throws = np.random.default_rng(5)
    refused = 0
    for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM"):
        whole = file_of(Pillow.fromarray(COLOUR), kind)
        for _ in range(60):
            data = bytearray(whole)
            for place in throws.integers(0, len(data), throws.integers(1, 6)):
                data[place] = throws.integers(0, 256)
            try:
                value = Image().read(bytes(data[: throws.integers(1, len(data) + 1)]))
            except BadRequest:
                refused += 1
            else:
                assert value.dtype == np.uint8
    assert refused > 100


def test_standard_normalisation_is_the_closed_form():
    pictures = dice.integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    field = Image(size=8).fit([png(picture) for picture in pictures])
    pixels = pictures.reshape(-1, 3) / 255
    np.testing.assert_allclose(field.mean, pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(field.std, pixels.std(0), rtol=1e-9)
    found = field.encode(list(pictures))[""]
    expected = ((pictures / 255 - pixels.mean(0)) / pixels.std(0)).transpose(0, 3, 1, 2)
    assert found.dtype == np.float32 and found.flags.c_contiguous
    np.testing.assert_allclose(found, expected, atol=2e-6)
    scaled, raw = Image(size=8, normalize="scale"), Image(size=8, normalize="none")
    np.testing.assert_allclose(scaled.encode(list(pictures))[""], pictures.transpose(0, 3, 1, 2) / 255, atol=1e-7)
    np.testing.assert_array_equal(raw.encode(list(pictures))[""], pictures.transpose(0, 3, 1, 2))
    assert scaled.fit([]) == scaled


def test_given_blanks_are_kept_and_checked():
    field = Image(size=4, channels=1, mean=(0.5,)).fit([GRAY])
    assert field.mean == (0.5,) and field.std is not None
    assert Image(size=4, channels=1).fit([np.full((4, 4), 9, np.uint8)]).std == (1.0,)
    with pytest.raises(ValueError, match="one number a channel: 3"):
        Image(mean=(0.5,))
    with pytest.raises(ValueError, match="above 0"):
        Image(channels=1, std=(0.0,))
    with pytest.raises(LuodiError, match="none"):
        Image().fit([])


def test_alpha_lies_over_the_background():
    red = np.zeros((4, 4, 4), np.uint8)
    red[..., 0], red[..., 3] = 200, 51  # a fifth
    for background in (0, 255):
        found = Image(size=4, normalize="none", background=background).encode([red])[""][0, :, 0, 0]
        np.testing.assert_allclose(found, [0.2 * 200 + 0.8 * background, 0.8 * background, 0.8 * background], atol=1)


def test_aspect_ratio():
    wide = np.tile(np.repeat(np.asarray([10, 200, 90], np.uint8), 4), (4, 1))  # three squares in a row, 4 x 12

    def encoded(aspect):
        return Image(size=4, channels=1, normalize="none", resize="area", aspect=aspect).encode([wide])[""][0, 0]

    np.testing.assert_array_equal(encoded("crop"), np.full((4, 4), 200))  # the middle square alone
    np.testing.assert_allclose(encoded("stretch")[0], [10, (10 + 400) / 3, (400 + 90) / 3, 90], atol=1)
    padded = encoded("pad")
    assert (padded[[0, 2, 3]] == 255).all() and padded[1, 0] < 128  # one line of picture, the rest background


def test_every_constant_of_an_image_field_is_visible_in_its_examples():
    whole = Image(size=28, channels=1, mean=(0.13,), std=(0.31,))
    values = whole.example(8, seed=0)
    before = whole.encode(values)[""]
    changes = [{"resize": kind} for kind in ("nearest", "area", "bicubic", "lanczos")]
    changes += [{"aspect": "pad"}, {"aspect": "crop"}, {"background": 250}, {"mean": (0.1301,)}, {"std": (0.3101,)}]
    for change in changes:
        assert np.abs(whole.model_copy(update=change).encode(values)[""] - before).max() > 1e-4, change
    shapes = {value.shape for value in values}
    assert len(shapes) >= 5 and {value.ndim for value in values} == {2, 3}
