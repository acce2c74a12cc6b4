"""Image classifiers of the transformers library."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from luodi.core.spec import Spec
from luodi.models.layers.named import built, refuse_foreign
from luodi.models.layers.whole_state import whole_state


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
        refuse_foreign(config, "pretrained_image")
        (self.image,), (self.target,) = inputs, outputs
        self.network = whole_state(_built(architecture, config, outputs[self.target].size))

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        return {self.target: self.network(pixel_values=batch[self.image]).logits}


def _built(architecture: str, config: dict[str, Any], labels: int) -> nn.Module:
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES as KNOWN

    kind = built(architecture, KNOWN, "image classifier")
    return kind(kind.config_class.from_dict({**config, "num_labels": labels}))
