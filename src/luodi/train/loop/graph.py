"""One compiled graph in place of one operation after the other."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from luodi.core.run import Run


class Compiled:
    """The model as torch.compile makes it, over the same weights.

    The first call compiles, which takes seconds to minutes; a last batch of another size compiles once more. Those
    seconds are logged apart.
    """

    def __init__(self, model: nn.Module, run: Run) -> None:
        import torch

        self.run, self.seconds = run, 0.0
        self.graph = torch.compile(model)

    def __call__(self, **batch: Any) -> Any:
        if self.seconds:
            return self.graph(**batch)
        start = time.perf_counter()
        found = self.graph(**batch)
        self.seconds = time.perf_counter() - start
        self.run.log("note", {"text": f"the first forward took {self.seconds:.1f} s: the graph was compiled"})
        return found
