"""Which numbers the forward and backward passes are made of; weights and updates stay fp32."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from luodi.train.loop.memories import Plain

if TYPE_CHECKING:
    from torch import Tensor, nn

FIRST, LARGEST = 2.0**16, 2.0**24  # fp16's loss scale at the start, and at most
GROWS = 2000  # finite updates in a row after which it doubles

PROCESSOR = Path("/proc/cpuinfo")  # Linux alone says so in a file
BF16 = ("avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16")  # x86, x86, x86, Arm

Precision = Literal["fp32", "bf16", "fp16"]


def refused(precision: Precision, device: str) -> str | None:
    """Why a device cannot train in a precision, None if it can."""
    if precision == "fp16" and device.partition(":")[0] == "cpu":
        return "fp16 is 30 to 100 times slower than fp32 on a CPU; use precision: bf16, or fp32"
    return None


def slow(precision: Precision, device: str, processor: Path = PROCESSOR) -> str | None:
    """What there is to say of a precision that this processor has no instructions for, None if it has or is unknown."""
    if precision != "bf16" or device.partition(":")[0] != "cpu" or not processor.is_file():
        return None
    told = processor.read_text(encoding="utf-8", errors="replace")
    flags = next((line for line in told.splitlines() if line.startswith(("flags", "Features"))), "")
    if not flags or any(one in flags.split() for one in BF16):
        return None
    return "bf16: this processor has no instructions for it, and may take ten times as long as in fp32"


class Arithmetic:
    """The precision of one training, and the loss scale that fp16 needs (arXiv 1710.03740)."""

    def __init__(self, precision: Precision, device: str) -> None:
        self.precision, self.kind = precision, device.partition(":")[0]
        self.scale = FIRST if precision == "fp16" else 1.0
        self.finite = 0  # updates in a row
        self.skipped = 0  # updates whose gradients overflowed

    def forward(self) -> AbstractContextManager[object]:
        """Inside, matrix products and convolutions are computed in this precision."""
        if self.precision == "fp32":
            return nullcontext()
        import torch

        return torch.autocast(self.kind, torch.bfloat16 if self.precision == "bf16" else torch.float16)

    def up(self, loss: Tensor) -> Tensor:
        """The loss times the scale, so that small gradients do not vanish in fp16."""
        return loss if self.precision != "fp16" else loss * self.scale

    def usable(self, parameters: Sequence[nn.Parameter]) -> bool:
        """Divides the gradients by the scale; False if one is not finite: the update is skipped, the scale halved."""
        if self.precision != "fp16":
            return True
        import torch

        slopes = [parameter.grad for parameter in parameters if parameter.grad is not None]
        torch._foreach_div_(slopes, self.scale)
        if bool(torch.stack([slope.isfinite().all() for slope in slopes]).all()):
            self.finite += 1
            if self.finite % GROWS == 0:
                self.scale = min(self.scale * 2, LARGEST)
            return True
        self.scale, self.finite, self.skipped = max(self.scale / 2, 1.0), 0, self.skipped + 1
        return False

    @property
    def memory(self) -> Plain:
        """The loss scale, for the checkpoint."""
        return Plain(self, ("scale", "finite", "skipped"))
