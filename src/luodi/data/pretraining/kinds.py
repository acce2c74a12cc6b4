"""What a name of weights stands for."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from luodi.data.pretraining import bundles, folder
from luodi.data.samples.networks import NETWORKS
from luodi.data.samples.weights import WEIGHTS

# Names of the hub from before names had owners, which the hub itself still leads on.
OWNED = {
    **{f"bert-base-{kind}": f"google-bert/bert-base-{kind}"
       for kind in ("chinese", "uncased", "cased", "multilingual-cased")},
    "distilbert-base-uncased": "distilbert/distilbert-base-uncased",
    "roberta-base": "FacebookAI/roberta-base", "xlm-roberta-base": "FacebookAI/xlm-roberta-base",
    "gpt2": "openai-community/gpt2",
}  # fmt: skip
Kind = Literal["published", "network", "bundle", "folder", "hub", "unknown"]


def kind_of(weights: str) -> Kind:
    """Where weights of this name, path or address come from."""
    if weights in WEIGHTS:
        return "published"
    if weights in NETWORKS:
        return "network"
    if bundles.is_bundle(weights):
        return "bundle"
    if folder.is_folder(weights):
        return "folder"
    hub = weights.count("/") == 1 and not weights.startswith((".", "/", "~")) and not Path(weights).exists()
    return "hub" if hub and all(weights.split("/")) else "unknown"
