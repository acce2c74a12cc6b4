"""An image processor of transformers as an image field that gives the same arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from luodi.core.errors import LuodiError
from luodi.core.field import Field
from luodi.core.thing import make

RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "area"}  # Pillow's numbers
WHOLE = 255  # the largest value of a pixel

# Switches that change what a picture becomes, all taken over; any other one that is on is refused.
TAKEN = {"resize", "center_crop", "rescale", "normalize", "convert_rgb", "flip_channel_order"}
MAPS_ONLY = {"reduce_labels"}  # changes label maps of segmentation, never a picture


def image_field(processor: Any, channels: int) -> Field:
    """The image field that does what this image processor does; raises LuodiError for what no image field can do."""
    switches = {name.removeprefix("do_"): value for name, value in vars(processor).items() if name.startswith("do_")}
    unknown = sorted(name for name, on in switches.items() if on and name not in TAKEN | MAPS_ONLY)
    if unknown:
        told = ", ".join(f"do_{name}" for name in unknown)
        raise LuodiError(f"the image processor {_name(processor)} also does {told}, which luodi's image field cannot")
    fields = {
        "channels": channels,
        **_sizes(processor, switches),
        **_scale(processor, switches, channels),
        # Without do_convert_rgb people convert with Pillow, as transformers' pipeline does: that leaves alpha off.
        "background": WHOLE if switches.get("convert_rgb") else None,
        "order": "bgr" if switches.get("flip_channel_order") else "rgb",
    }
    field = make("fields", {"image": fields})
    assert isinstance(field, Field)
    return field


def _sizes(processor: Any, switches: Mapping[str, Any]) -> dict[str, Any]:
    """Fields for resizing and cutting."""
    if not switches.get("resize"):
        raise LuodiError(f"{_name(processor)} has do_resize off: its images have no one size, which a model needs")
    resample = int(processor.resample if processor.resample is not None else 2)
    if resample not in RESAMPLING:
        raise LuodiError(f"{_name(processor)}: resample {resample} is none of Pillow's {sorted(RESAMPLING)}")
    resize = {"resize": RESAMPLING[resample]}
    first, cut = _resized(processor)
    if switches.get("center_crop"):
        crop = processor.crop_size
        cut = (crop.height, crop.width)
    if cut is not None:
        return {**resize, "resize_to": first, "size": cut}
    if isinstance(first, int):
        raise LuodiError(
            f"{_name(processor)} resizes the shorter side to {first} and cuts nothing: its images have no one size; "
            'set do_center_crop and crop_size, or size to {"height": ..., "width": ...}, in preprocessor_config.json'
        )
    return {**resize, "size": first}


def _resized(processor: Any) -> tuple[int | tuple[int, int], tuple[int, int] | None]:
    """(what the processor resizes to: the shorter side, or height and width; what it cuts out while resizing)."""
    size, kind = processor.size, type(processor).__name__
    shorter = size.shortest_edge
    if size.longest_edge or not (shorter or (size.height and size.width)):
        raise LuodiError(f"{_name(processor)}: luodi's image field cannot resize to {dict(size)}")
    if kind.startswith("ConvNext"):  # Below 384 pixels: larger first, then the middle.
        square = (int(shorter), int(shorter))
        return (int(shorter / processor.crop_pct), square) if shorter < 384 else (square, None)
    if kind.startswith("PoolFormer") and processor.crop_pct is not None:
        if not shorter and size.height != size.width:
            return (int(size.height / processor.crop_pct), int(size.width / processor.crop_pct)), None
        return int((shorter or size.height) / processor.crop_pct), None
    if kind.startswith("Levit") and shorter:
        return int((256 / 224) * shorter), None
    return (int(shorter), None) if shorter else ((int(size.height), int(size.width)), None)


def _scale(processor: Any, switches: Mapping[str, Any], channels: int) -> dict[str, Any]:
    """Fields for the numbers: rescaling and normalising as one mean and deviation on the scale 0..1.

    The processor gives (pixel * factor - offset - mean) / std, where a field gives (pixel / 255 - mean) / std.
    """
    factor = float(processor.rescale_factor) if switches.get("rescale") else 1.0
    one = WHOLE * factor  # what a white pixel becomes
    one = 1.0 if abs(one - 1) < 1e-9 else one
    offset = 1.0 if switches.get("rescale") and getattr(processor, "rescale_offset", False) else 0.0
    # MobileViT and its like take no notice of do_normalize: their images stay as they are.
    normalizes = switches.get("normalize") and processor.image_mean is not None
    mean = _each(processor.image_mean, channels) if normalizes else (0.0,) * channels
    std = _each(processor.image_std, channels) if normalizes else (1.0,) * channels
    if getattr(processor, "include_top", False) and type(processor).__name__.startswith("EfficientNet"):
        # EfficientNet divides once more by the deviation.
        std = tuple(value * again for value, again in zip(std, _each(processor.image_std, channels), strict=True))
    if not any(mean) and not offset and set(std) == {1.0} and one in (1.0, WHOLE):
        return {"normalize": "scale" if one == 1.0 else "none"}
    means = tuple((value + offset) / one for value in mean)
    return {"normalize": "standard", "mean": means, "std": tuple(value / one for value in std)}


def _each(given: Any, channels: int) -> tuple[float, ...]:
    """One number a channel."""
    numbers = tuple(map(float, given)) if isinstance(given, list | tuple) else (float(given),) * channels
    if len(numbers) != channels:
        raise LuodiError(f"the image processor has {len(numbers)} means, the model takes {channels} channels")
    return numbers


def _name(processor: Any) -> str:
    return type(processor).__name__
