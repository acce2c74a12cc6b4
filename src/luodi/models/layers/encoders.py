"""The two sides of a fusion: a picture becomes a map of features, a text a state for each of its tokens."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

from luodi.core.spec import Spec
from luodi.models.efficientnet_lite import FEATURES, STAGES, stages
from luodi.models.layers.modulation import Modulation
from luodi.models.layers.reading import Reading
from luodi.models.layers.residual import residual_layers
from luodi.models.layers.transformer_block import begin
from luodi.models.pretrained_text import encoder_of

MODULATED = 4  # of a network's last stages


class ImageEncoder(nn.Module):
    """A convolutional network without its end: (batch, channels, height, width) to (batch, `width`, h, w).

    With `told` above 0 a vector (batch, told) modulates what each of the last four stages gives. The tensors are named
    as in `resnet` and `efficientnet_lite`. Raises ValueError for an image that the network does not take.
    """

    def __init__(
        self, spec: Spec, kind: Literal["resnet", "efficientnet_lite"], *, depth: Literal[18, 34], channels: int,
        told: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        colours, height, width = (int(side) for side in spec.shape)
        if kind == "resnet":
            layers = residual_layers(colours, depth, channels, "large")
            for name, layer in layers.items():
                self.add_module(name, layer)
            self.names, widths = list(layers), [channels << place for place in range(4)]
        else:
            if colours != 3:
                raise ValueError(f"efficientnet_lite takes an image of three channels, got {colours}")
            self.stages = stages((height, width))
            self.names = [f"stages.{place}" for place in range(len(self.stages))]
            widths = [*(after for _, _, _, after, _ in STAGES[-MODULATED + 1 :]), FEATURES]
        self.width = widths[-1]
        self.modulations = nn.ModuleList(Modulation(told, width) for width in widths if told)

    def forward(self, image: Tensor, told: Tensor | None = None) -> Tensor:
        features, first = image, len(self.names) - len(self.modulations)
        for place, name in enumerate(self.names):
            features = self.get_submodule(name)(features)
            if told is not None and place >= first:
                features = self.modulations[place - first](features, told)
        return features


class TextEncoder(nn.Module):
    """Tokens (batch, time) and a mask, true at real ones, to (batch, time, `width`).

    Of the transformers library if `architecture` and `config` name a network of it, else a Transformer from scratch.
    """

    def __init__(
        self, spec: Spec, architecture: str | None, config: dict[str, Any] | None, *, layers: int, width: int,
        heads: int, dropout: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.own = architecture is None
        if architecture is not None:
            self.network, known = encoder_of(architecture, config, spec.size, "fusion")
            self.width = known.hidden_size
            return
        if layers < 1:
            raise ValueError(f"fusion: layers are at least 1, got {layers}")
        self.reader, self.width = Reading(
            spec.size, layers=layers, width=width, heads=heads, kv_heads=None, context=spec.most or 512,
            positions="learned", norm="layer", first=True, gated=False, dropout=dropout, bias=True,
        ), width  # fmt: skip
        begin(self, layers)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        if self.own:
            return self.reader(tokens, mask > 0)
        # The library looks whether a mask hides something: on the meta device there is nothing yet.
        return self.network(input_ids=tokens, attention_mask=None if mask.is_meta else mask).last_hidden_state
