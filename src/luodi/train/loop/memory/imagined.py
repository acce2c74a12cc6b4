"""What a training's device would do, where the meta device does something else."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
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


# Of the workspace that oneDNN's LSTM asks for, what the forward pass writes to and what the backward pass does on top:
# seen as resident memory, at two shapes.
WRITTEN, MORE = 0.3, 0.56
KERNELS = 4_000_000  # bytes of code that it makes for one layer's shape


@contextmanager
def recurrence_of(device: str) -> Generator[None]:
    """The LSTM that a CPU uses: one operation with a workspace, where the meta device goes step by step."""
    import torch
    from torch import nn

    class Layer(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, *weights: Tensor) -> Tensor:
            ctx.save_for_backward(x, *weights)
            ctx.size = _workspace(*x.shape, weights[1].shape[1])
            ctx.workspace = x.new_empty(KERNELS + int(ctx.size * WRITTEN), dtype=torch.uint8)
            return x.new_empty(*x.shape[:2], weights[1].shape[1])

        @staticmethod
        def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
            more = grad_outputs[0].new_empty(int(ctx.size * MORE), dtype=torch.uint8)
            found = tuple(torch.empty_like(one) for one in ctx.saved_tensors)
            del ctx.workspace, more
            return found

    def forward(self: nn.LSTM, input: Tensor, hx: Any = None) -> Any:
        if hx is not None or self.num_layers != 1 or self.bidirectional or self.proj_size or not self.batch_first:
            return whole(self, input, hx)
        last = input.new_empty(1, len(input), self.hidden_size)
        ends = (last, last)
        if not (self.training and torch.is_grad_enabled()):
            return input.new_empty(*input.shape[:2], self.hidden_size), ends
        states: Any = Layer.apply(input.transpose(0, 1).contiguous(), *self._flat_weights)
        return states.transpose(0, 1), ends

    whole = nn.LSTM.forward
    if device == "cpu":
        nn.LSTM.forward = forward
    try:
        yield
    finally:
        nn.LSTM.forward = whole


@lru_cache
def _workspace(length: int, batch: int, width: int, hidden: int) -> int:
    """Bytes, asked of the operation itself: they grow evenly with the length."""
    import torch

    def asked(steps: int) -> int:
        shapes = (
            (4 * hidden, width),
            (4 * hidden, hidden),
            (4 * hidden,),
            (4 * hidden,),
            (batch, hidden),
            (batch, hidden),
        )
        x, *others = (torch.zeros(shape, device="cpu") for shape in ((steps, batch, width), *shapes))
        with torch.enable_grad():  # without it there is no workspace
            return torch.ops.aten.mkldnn_rnn_layer(
                x, *others, False, [], 2, hidden, 1, True, False, False, True
            )[3].nbytes  # fmt: skip

    return asked(1) + (length - 1) * (asked(2) - asked(1))


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
