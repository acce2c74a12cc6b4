"""What layers with weights do to channels: products, convolutions, norms, tables, attention."""

from __future__ import annotations

from typing import TYPE_CHECKING

from luodi.compress.structure.call import Call, Given
from luodi.compress.structure.ties import Followed, still

if TYPE_CHECKING:
    from collections.abc import Callable


def linear(call: Call) -> Given | None:
    """Outputs are rows of the weight, inputs its columns."""
    x, weight = call.tensor("input"), call.tensor("weight")
    if len(weight.axes) != 2:
        return None
    call.ties.tie(x.axes[-1], weight.axes[1])
    if call["bias"] is not None:
        call.ties.tie(weight.axes[0], call.tensor("bias").axes[0])
    return Followed((*x.axes[:-1], weight.axes[0]))


def product(call: Call) -> Given | None:
    """mm, bmm, matmul."""
    left, right = call.tensors
    if min(len(left.axes), len(right.axes)) < 2:
        return None
    call.ties.tie(left.axes[-1], right.axes[-2])
    rank = max(len(left.axes), len(right.axes))
    before = [Followed(one.axes[:-2]) for one in (left, right) if len(one.axes) > 2]
    outer = call.ties.together(*before).axes if rank > 2 else ()
    return Followed((*outer, left.axes[-2], right.axes[-1]))


def sum_and_product(call: Call) -> Given | None:
    """addmm."""
    left, right = call.tensor("mat1"), call.tensor("mat2")
    call.ties.tie(left.axes[1], right.axes[0])
    return call.ties.together(Followed((left.axes[0], right.axes[1])), call.tensor("self"))


def convolution(call: Call) -> Given | None:
    """Dense, or channel by channel; any other number of groups stays as it is."""
    from torch.nn.modules.conv import _ConvNd

    x, weight, groups = call.tensor("input"), call.tensor("weight"), call["groups"]
    if len(x.axes) != len(weight.axes) or call.arguments.get("transposed"):
        return None
    call.ties.fix(*x.axes[2:], *weight.axes[2:])
    if groups == 1:
        call.ties.tie(x.axes[1], weight.axes[1])
    elif groups == x.shape[1] == weight.shape[0] and isinstance(call.layer, _ConvNd):
        call.ties.tie(x.axes[1], weight.axes[0])
    else:
        return None
    if call["bias"] is not None:
        call.ties.tie(weight.axes[0], call.tensor("bias").axes[0])
    return call.beyond((x.axes[0], weight.axes[0]), call.shapes[0])


def transposed_convolution(call: Call) -> Given | None:
    """The weight's first axis is the inputs."""
    x, weight = call.tensor("input"), call.tensor("weight")
    if call["groups"] != 1 or len(x.axes) != len(weight.axes):
        return None
    call.ties.fix(*x.axes[2:], *weight.axes[2:])
    call.ties.tie(x.axes[1], weight.axes[0])
    if call["bias"] is not None:
        call.ties.tie(weight.axes[1], call.tensor("bias").axes[0])
    return call.beyond((x.axes[0], weight.axes[1]), call.shapes[0])


def batch_norm(call: Call) -> Given | None:
    """A number of each kind for every channel."""
    x = call.tensor("input")
    for name in ("weight", "bias", "running_mean", "running_var"):
        if call[name] is not None:
            call.ties.tie(x.axes[1], call.tensor(name).axes[0])
    return x


def layer_norm(call: Call) -> Given | None:
    """Of one axis, if a layer says how long it is; what is left is normalised by its own mean and deviation."""
    from torch import nn

    x, weight, bias = call.tensor("input"), call["weight"], call.arguments.get("bias")
    count = len(call["normalized_shape"])
    if count == 1 and weight is not None and isinstance(call.layer, nn.LayerNorm | nn.RMSNorm):
        call.ties.tie(x.axes[-1], weight.axes[0], *([] if bias is None else [bias.axes[0]]))
    else:
        call.hold(x, range(-count, 0))
        call.ties.fix(*(axis for one in (weight, bias) if one is not None for axis in one.axes))
    return x


def embedding(call: Call) -> Given | None:
    """Rows of the table stay, its columns go on."""
    weight = call.hold(call.tensor("weight"), [0])
    return Followed((*call.tensor("indices").axes, weight.axes[1]))


def attention(call: Call) -> Given | None:
    """Of q (..., T, E), k (..., S, E), v (..., S, D): heads are followed, and D; the products are scaled by E."""
    q, k, v, mask = call.tensor("query"), call.tensor("key"), call.tensor("value"), call["attn_mask"]
    if not len(q.axes) == len(k.axes) == len(v.axes) or not q.shape[:-2] == k.shape[:-2] == v.shape[:-2]:
        return None
    call.ties.fix(q.axes[-1], k.axes[-1])
    call.ties.tie(k.axes[-2], v.axes[-2])
    outer = [call.ties.tie(*axes) for axes in zip(q.axes[:-2], k.axes[:-2], v.axes[:-2], strict=True)]
    if mask is not None:
        call.ties.together(mask, Followed((*outer, q.axes[-2], k.axes[-2])))
    return Followed((*outer, q.axes[-2], v.axes[-1]))


def pooling(call: Call) -> Given | None:
    """Pooling and resizing: channels stay apart, places do not."""
    x = next(iter(call.tensors))
    if len(x.axes) != len(call.shapes[0]) or len(x.axes) < 3:
        return None
    call.ties.fix(*x.axes[2:])
    found: list[Followed] = [call.beyond(x.axes[:2], shape) for shape in call.shapes]
    return found if len(found) > 1 else found[0]


def padding(call: Call) -> Given | None:
    """An axis that is padded stays."""
    x, sides = call.tensor("self"), call["pad"]
    axes = list(x.axes)
    for place in range(len(sides) // 2):
        if sides[2 * place] or sides[2 * place + 1]:
            call.ties.fix(axes[-1 - place])
            axes[-1 - place] = still(call.shapes[0][-1 - place])
    return Followed(tuple(axes))


LAYERS: dict[str, Callable[[Call], Given | None]] = {
    "linear": linear, "addmm": sum_and_product, "mm": product, "bmm": product, "matmul": product,
    "conv1d": convolution, "conv2d": convolution, "conv3d": convolution, "convolution": convolution,
    "conv_transpose1d": transposed_convolution, "conv_transpose2d": transposed_convolution,
    "conv_transpose3d": transposed_convolution, "batch_norm": batch_norm, "layer_norm": layer_norm,
    "rms_norm": layer_norm, "embedding": embedding, "scaled_dot_product_attention": attention,
    "pad": padding, "constant_pad_nd": padding,
    **dict.fromkeys(
        [f"{kind}_pool{n}d" for kind in ("max", "avg", "adaptive_avg", "adaptive_max") for n in (1, 2, 3)], pooling
    ),
    **dict.fromkeys(
        ["upsample_nearest1d", "upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d"], pooling
    ),
}  # fmt: skip
