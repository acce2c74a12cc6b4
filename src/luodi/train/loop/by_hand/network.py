"""A multilayer perceptron in plain arrays: forward pass, losses and gradients, written out.

Shapes: B rows of a batch, I numbers into a layer, O numbers out of it, K labels. A layer's weight is (O, I), as in
torch's Linear, so that x @ weight.T + bias is its output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Layer:
    """A linear layer's weight (O, I) and bias (O,)."""

    weight: np.ndarray
    bias: np.ndarray


def forward(layers: Sequence[Layer], x: np.ndarray) -> list[np.ndarray]:
    """What goes into each layer, (B, I) each, and last what comes out of the network, (B, K).

    Every layer but the last is followed by the rectifier, max(0, x).
    """
    values = [x]
    for layer in layers[:-1]:
        values.append(np.maximum(values[-1] @ layer.weight.T + layer.bias, 0))
    values.append(values[-1] @ layers[-1].weight.T + layers[-1].bias)
    return values


def backward(layers: Sequence[Layer], values: Sequence[np.ndarray], slope: np.ndarray) -> list[Layer]:
    """The gradient of every weight and bias, by the chain rule from the last layer to the first.

    `values` is what `forward` gave; `slope` (B, K) is the gradient of the loss with respect to the network's output.
    """
    found: list[Layer] = []
    for layer, entering in zip(reversed(layers), reversed(values[:-1]), strict=True):
        # out = entering @ weight.T + bias: each weight's slope is its input times its output's slope, over the batch.
        found.append(Layer(slope.T @ entering, slope.sum(axis=0)))
        # The rectifier let through what was above 0; the first layer's input has no rectifier and is not needed.
        slope = (slope @ layer.weight) * (entering > 0)
    return found[::-1]


def softmax(scores: np.ndarray) -> np.ndarray:
    """Scores (B, K) to probabilities; the largest score is taken off first, so that no exponential overflows."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def cross_entropy(scores: np.ndarray, labels: np.ndarray, smoothing: float = 0.0) -> tuple[float, np.ndarray]:
    """(mean of -sum(wanted * log probability), its slope (B, K)) for labels (B,) int64.

    `wanted` is 1 for the true label; `smoothing` is the share of that 1 spread evenly over all labels.
    """
    count, kinds = scores.shape
    wanted = np.full_like(scores, smoothing / kinds)
    wanted[np.arange(count), labels] += 1 - smoothing
    shifted = scores - scores.max(axis=1, keepdims=True)
    logarithms = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return float(-(wanted * logarithms).sum() / count), (softmax(scores) - wanted) / count


def squared_error(output: np.ndarray, truth: np.ndarray) -> tuple[float, np.ndarray]:
    """(mean of (output - truth) ** 2, its slope), both (B, 1)."""
    off = output - truth
    return float((off**2).mean()), 2 * off / off.size


@dataclass(frozen=True)
class Momentum:
    """Gradient descent with momentum: velocity = momentum * velocity + gradient; weight -= rate * velocity."""

    layers: Sequence[Layer]
    velocities: Sequence[Layer]
    momentum: float

    @classmethod
    def still(cls, layers: Sequence[Layer], momentum: float) -> Momentum:
        """Nothing moves yet."""
        zeros = [Layer(np.zeros_like(layer.weight), np.zeros_like(layer.bias)) for layer in layers]
        return cls(layers, zeros, momentum)

    def move(self, gradients: Sequence[Layer], rate: float) -> None:
        """One update, in place."""
        for layer, velocity, gradient in zip(self.layers, self.velocities, gradients, strict=True):
            for value, speed, slope in (
                (layer.weight, velocity.weight, gradient.weight),
                (layer.bias, velocity.bias, gradient.bias),
            ):
                speed *= self.momentum
                speed += slope
                value -= rate * speed
