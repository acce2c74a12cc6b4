"""Small models as other people keep them: transformers folders and a PyTorch class, random weights, no download."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

LABELS = ("ant", "bee", "cat", "dog", "eel")
NET = '''
"""A network of somebody's own."""

from pathlib import Path

import torch
from torch import nn

MARK = Path("imported.txt")
MARK.write_text("once more\\n")


class Net(nn.Module):
    def __init__(self, width: int = 8, labels: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3, stride=2)
        self.register_buffer("grid", torch.linspace(0, 1, 13), persistent=False)
        self.kind = nn.Linear(width, labels)
        self.size = nn.Linear(width, 1)

    def forward(self, picture, age):
        x = torch.relu(self.conv(picture)) * self.grid
        x = x.mean((2, 3)) + 0.1 * age
        return self.kind(x), self.size(x).squeeze(-1)


class Named(Net):
    def forward(self, picture, age):
        kind, size = super().forward(picture, age)
        return {"extra": kind + 1, "weight": size, "kind": kind}


class Soft(Net):
    def forward(self, picture, age):
        kind, size = super().forward(picture, age)
        return kind.softmax(-1), size


def not_a_module():
    return 3
'''
TASK = {"supervised": {
    "inputs": {"picture": {"image": {"size": 28, "channels": 1, "normalize": "scale"}},
               "age": {"number": {"mean": 30, "scale": 10}}},
    "targets": {"kind": {"category": {"values": ["a", "b", "c"]}}, "weight": {"number": {"normalize": "none"}}},
}}  # fmt: skip


def folder_of(kind: str, path: Path) -> Path:
    """A transformers folder: vit (resize), convnext (larger, then the middle), mobilenet (resize, then cut), ...."""
    config, network, processor = PARTS[kind]()
    torch.default_generator.manual_seed(7)
    model = network(config).eval()
    spread(model)
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return path


def spread(model: nn.Module) -> None:
    """Weights such that every pixel moves every output, and the norms' statistics of some noise."""
    dice = torch.Generator().manual_seed(5)
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.dim() > 1:
                tensor.copy_(torch.randn(tensor.shape, generator=dice) * tensor[0].numel() ** -0.5)
        if norms:
            for norm in norms:
                norm.momentum = None  # the statistics of this one batch
            model.train()
            model(torch.randn(32, 3, 64, 64, generator=dice))
            model.eval()


def changed(source: Path, path: Path, file: str, change: Callable[[dict[str, Any]], Any]) -> Path:
    """A copy of a folder with one JSON file changed."""
    shutil.copytree(source, path)
    value = json.loads((path / file).read_text(encoding="utf-8"))
    change(value)
    (path / file).write_text(json.dumps(value), encoding="utf-8")
    return path


def _names() -> dict[str, Any]:
    return {"id2label": dict(enumerate(LABELS)), "label2id": {name: i for i, name in enumerate(LABELS)}}


def _vit() -> tuple[Any, Any, Any]:
    import transformers as t
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    config = t.ViTConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
                         image_size=32, patch_size=8, **_names())  # fmt: skip
    return config, t.ViTForImageClassification, ViTImageProcessorPil(
        size={"height": 32, "width": 32}, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]
    )  # fmt: skip


def _convnext() -> tuple[Any, Any, Any]:
    import transformers as t
    from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil

    config = t.ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], image_size=32, **_names())
    return config, t.ConvNextForImageClassification, ConvNextImageProcessorPil(size={"shortest_edge": 32})


def _mobilenet() -> tuple[Any, Any, Any]:
    import transformers as t
    from transformers.models.mobilenet_v2.image_processing_pil_mobilenet_v2 import MobileNetV2ImageProcessorPil

    config = t.MobileNetV2Config(depth_multiplier=0.25, image_size=32, **_names())
    return config, t.MobileNetV2ForImageClassification, MobileNetV2ImageProcessorPil(
        size={"shortest_edge": 37}, crop_size={"height": 32, "width": 32}
    )  # fmt: skip


def _swin() -> tuple[Any, Any, Any]:
    import transformers as t
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    config = t.SwinConfig(embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4, image_size=32, patch_size=4,
                          **_names())  # fmt: skip
    return config, t.SwinForImageClassification, ViTImageProcessorPil(size={"height": 32, "width": 32})


def _clip() -> tuple[Any, Any, Any]:
    import transformers as t
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = t.CLIPConfig(vision_config={**small, "image_size": 32, "patch_size": 8},
                          text_config={**small, "vocab_size": 10}, **_names())  # fmt: skip
    crop = {"height": 32, "width": 32}
    return config, t.CLIPForImageClassification, CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=crop)


def _mobilevit() -> tuple[Any, Any, Any]:
    import transformers as t
    from transformers.models.mobilevit.image_processing_pil_mobilevit import MobileViTImageProcessorPil

    config = t.MobileViTConfig(image_size=32, hidden_sizes=[8, 8, 8], neck_hidden_sizes=[4, 4, 4, 8, 8, 8, 8],
                               num_attention_heads=2, patch_size=1, **_names())  # fmt: skip
    return config, t.MobileViTForImageClassification, MobileViTImageProcessorPil(
        size={"shortest_edge": 28}, crop_size={"height": 32, "width": 32}
    )  # fmt: skip


def _efficientnet() -> tuple[Any, Any, Any]:
    import transformers as t
    from transformers.models.efficientnet.image_processing_pil_efficientnet import EfficientNetImageProcessorPil

    config = t.EfficientNetConfig(image_size=32, width_coefficient=0.25, depth_coefficient=0.1, hidden_dim=320,
                                  **_names())  # fmt: skip
    return config, t.EfficientNetForImageClassification, EfficientNetImageProcessorPil(
        size={"height": 36, "width": 34}, crop_size={"height": 32, "width": 32}, do_center_crop=True,
        rescale_factor=1 / 127.5, rescale_offset=True,
    )  # fmt: skip


def _levit() -> tuple[Any, Any, Any]:
    import transformers as t
    from transformers.models.levit.image_processing_pil_levit import LevitImageProcessorPil

    config = t.LevitConfig(image_size=64, hidden_sizes=[16, 16, 16], num_attention_heads=[1, 1, 1], depths=[1, 1, 1],
                           key_dim=[8, 8, 8], mlp_ratio=[2, 2, 2], **_names())  # fmt: skip
    crop = {"height": 64, "width": 64}
    return config, t.LevitForImageClassification, LevitImageProcessorPil(size={"shortest_edge": 64}, crop_size=crop)


def _poolformer() -> tuple[Any, Any, Any]:
    import transformers as t
    from transformers.models.poolformer.image_processing_pil_poolformer import PoolFormerImageProcessorPil

    config = t.PoolFormerConfig(hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], image_size=32, **_names())
    crop = {"height": 32, "width": 32}
    processor = PoolFormerImageProcessorPil(size={"shortest_edge": 32}, crop_size=crop)
    return config, t.PoolFormerForImageClassification, processor


PARTS = {
    "vit": _vit, "convnext": _convnext, "mobilenet": _mobilenet, "swin": _swin, "clip": _clip,
    "mobilevit": _mobilevit, "efficientnet": _efficientnet, "levit": _levit, "poolformer": _poolformer,
}  # fmt: skip
