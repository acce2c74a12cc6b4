"""Which training a checkpoint belongs to."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING

from luodi.core.thing import dump
from luodi.core.weights import plain_tensors

if TYPE_CHECKING:
    from torch import nn

    from luodi.core.bundle import Bundle
    from luodi.core.run import Run
    from luodi.core.step import Step


def identity(step: Step, bundle: Bundle, run: Run) -> dict[str, str]:
    """All that decides the bits of a training, by name: to be called before its first update."""
    assert bundle.model is not None and bundle.data is not None
    rows = {name: part.fingerprint for name, part in bundle.data.splits.items() if name in ("train", "validation")}
    return {
        "step": json.dumps(dump(step), sort_keys=True),
        "seed": repr((run.seed, run.scope, run.rehearse, run.world)),
        "device and threads": repr((run.device.partition(":")[0], run.threads)),
        "task": sha256(json.dumps(dump(bundle.task), sort_keys=True).encode()).hexdigest(),
        "rows": repr(sorted(rows.items())),
        "starting weights": weights_sha(bundle.model),
    }


def weights_sha(model: nn.Module) -> str:
    """The SHA-256 of all weights and buffers with their names, shapes and types."""
    import torch

    whole = sha256()
    for name, tensor in sorted(plain_tensors(model)[0].items()):
        whole.update(repr((name, tuple(tensor.shape), str(tensor.dtype))).encode())
        whole.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return whole.hexdigest()
