"""Text classifiers of the transformers library."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from luodi.core.spec import Spec
from luodi.models.layers.named import built, refuse_foreign
from luodi.models.layers.whole_state import whole_state
from luodi.models.layers.words import texts_of


class PretrainedClassifier(nn.Module):
    """A text classifier of the transformers library with its own head, made from the name of its class and its config.

    `architecture` is a class for sequence classification (BertForSequenceClassification), `config` what its config.json
    holds, labels left out: there are as many as the target has. One text, one category target. The tensors are named as
    in the library, behind `network.`. Nothing is downloaded. Raises ValueError for anything else.
    """

    packages = {"transformers": "hub"}

    def __init__(self, inputs: dict[str, Spec], outputs: dict[str, Spec], *, architecture: str, config: dict) -> None:
        super().__init__()
        names, kinds = texts_of(inputs, "pretrained_classifier"), [spec.kind for spec in outputs.values()]
        if len(names) != 1 or kinds != ["category"]:
            raise ValueError(f"pretrained_classifier takes one text and answers one category, got {names} and {kinds}")
        refuse_foreign(config, "pretrained_classifier")
        (self.text,), (self.target,) = names, outputs
        network: Any = _built(architecture, config, outputs[self.target].size)
        self.network, known = whole_state(network), network.config
        if known.vocab_size < inputs[self.text].size:
            raise ValueError(
                f"pretrained_classifier: the texts have {inputs[self.text].size} tokens, the model knows "
                f"{known.vocab_size}; they are not of one kind"
            )

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        mask = batch[f"{self.text}_mask"]
        seen = None if mask.is_meta else mask  # the library looks whether a mask hides something: there is nothing yet
        return {self.target: self.network(input_ids=batch[self.text], attention_mask=seen).logits}


def _built(architecture: str, config: dict[str, Any], labels: int) -> nn.Module:
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as KNOWN

    kind = built(architecture, KNOWN, "text classifier")
    return kind(kind.config_class.from_dict({**config, "num_labels": labels}))
