"""Image classifiers of the transformers library."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from luodi.core.spec import Spec
from luodi.models.layers.whole_state import whole_state

# What keys of a config hold that fetch or run something else than the named architecture: the way in which attention
# is computed may be the name of code on a hub, so it is left to the library's default.
FOREIGN = ("auto_map", "attn_implementation", "quantization_config", "pretrained_backbone", "timm_backbone")


class PretrainedImage(nn.Module):
    """An image classifier of the transformers library, made from the name of its class and its config.

    `architecture` is a class for image classification (ViTForImageClassification), `config` what its config.json holds,
    labels left out: there are as many as the target has. One image input, one category target. The tensors are named
    as in the library, behind `network.`. Nothing is downloaded. Raises ValueError for anything else.
    """

    packages = {"transformers": "hub"}

    def __init__(self, inputs: dict[str, Spec], outputs: dict[str, Spec], *, architecture: str, config: dict) -> None:
        super().__init__()
        kinds = ([spec.kind for spec in inputs.values()], [spec.kind for spec in outputs.values()])
        if kinds != (["image"], ["category"]):
            raise ValueError(
                f"pretrained_image takes one image and answers one category, got {kinds[0]} and {kinds[1]}"
            )
        refused = sorted(key for key in _keys(config) if any(word in key for word in FOREIGN))
        if refused:
            raise ValueError(f"pretrained_image: the config may not hold {', '.join(refused)}")
        (self.image,), (self.target,) = inputs, outputs
        self.network = whole_state(_built(architecture, config, outputs[self.target].size))

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        return {self.target: self.network(pixel_values=batch[self.image]).logits}


def _built(architecture: str, config: dict[str, Any], labels: int) -> nn.Module:
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES as KNOWN

    # A bundle may only name what this list holds: no other attribute of the library is reached.
    names = {name for given in KNOWN.values() for name in ((given,) if isinstance(given, str) else given)}
    if architecture not in names:
        raise ValueError(f"pretrained_image: {architecture!r} is no image classifier of transformers")
    kind = getattr(transformers, architecture)
    return kind(kind.config_class.from_dict({**config, "num_labels": labels}))


def _keys(config: Any) -> Iterator[str]:
    """The keys of a config and of the configs inside it, where they are set to something."""
    for key, value in config.items() if isinstance(config, dict) else ():
        if value:
            yield key
        yield from _keys(value)
