"""What a training's device would do, where the meta device does something else."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

# Functions that mixed precision gives 16-bit numbers (docs/source/amp.rst of torch: "can autocast to bfloat16").
LOWERED = frozenset(
    "linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d matmul mm bmm addmm addbmm "
    "baddbmm scaled_dot_product_attention __matmul__ __rmatmul__".split()
)


@contextmanager
def attention_of(device: str) -> Generator[None]:
    """The attention that a CPU uses in training, where it can: it never holds the square of the scores, as what the
    meta device falls back on does."""
    import torch
    from torch.nn import functional as torch_functional

    functional: Any = torch_functional
    whole = functional.scaled_dot_product_attention

    def attention(
        query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, dropout_p: float = 0.0,
        is_causal: bool = False, *, scale: float | None = None, enable_gqa: bool = False,
    ) -> Tensor:  # fmt: skip
        if attn_mask is not None or dropout_p or enable_gqa:
            return whole(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
        flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        return flash(query, key, value, 0.0, is_causal, scale=scale)[0]

    if device == "cpu":
        functional.scaled_dot_product_attention = attention
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = whole


def mixed(precision: str) -> AbstractContextManager[Any]:
    """Mixed precision, which torch itself switches on for tensors of its own device alone."""
    import torch
    from torch.overrides import TorchFunctionMode

    if precision == "fp32":
        return nullcontext()
    kind = torch.bfloat16 if precision == "bf16" else torch.float16

    def lower(value: Any) -> Any:
        return value.to(kind) if isinstance(value, torch.Tensor) and value.dtype == torch.float32 else value

    class Lowering(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if getattr(func, "__name__", "") in LOWERED:
                args, kwargs = tuple(map(lower, args)), {name: lower(value) for name, value in kwargs.items()}
            return func(*args, **kwargs)

    return Lowering()
