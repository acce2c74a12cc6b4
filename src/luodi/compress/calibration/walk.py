"""A walk through a model, layer by layer in the order in which they work, with sums of what each is given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from luodi.compress.calibration.matrix import seen_columns
from luodi.compress.calibration.sums import Sums

if TYPE_CHECKING:
    from torch import Tensor, nn

    from luodi.core.bundle import Bundle
    from luodi.core.run import Run
    from luodi.core.task import Task
    from luodi.train.loop.examples import Examples, Pair

Order = Literal["layers", "blocks", "once"]  # when a layer is looked at: after all before it were changed, or not

Layers = Mapping[str, Sequence["nn.Module"]]  # name -> the layers that hold its weight: more than one if it is shared

BATCH = 16  # rows of one forward


class _Enough(BaseException):  # no `except Exception` of a model may stop it
    """The rest of a forward is not needed."""


@dataclass(frozen=True)
class Calibration:
    """Rows of the training split, and how the task gives them to a model."""

    task: Task
    examples: Examples

    def batches(self) -> Iterator[Pair]:
        import torch

        for rows in torch.arange(self.examples.count).split(BATCH):
            yield self.examples.batch(rows)

    def forward(self, model: nn.Module, pair: Pair) -> None:
        """As in training: a language is given its own next words."""
        import torch

        with torch.no_grad():
            if "loss" in self.task.gives:
                self.task.loss(model, *pair)
            else:
                model(**pair[0])


def sensitivity(calibration: Calibration, model: nn.Module, layers: Layers) -> dict[str, float]:
    """The mean square of the loss's slope at each layer's outputs; 0 of a layer that never works."""
    import torch

    model.eval()
    squares, counts = dict.fromkeys(layers, 0.0), dict.fromkeys(layers, 0)
    frozen = [weight for weight in model.parameters() if not weight.requires_grad]
    outputs: list[tuple[str, Tensor]] = []
    hooks = [
        layer.register_forward_hook(lambda layer, given, output, name=name: outputs.append((name, output)))
        for name, held in layers.items()
        for layer in held
    ]
    try:
        for pair in calibration.batches():
            with torch.enable_grad():
                for weight in frozen:
                    weight.requires_grad_(True)
                losses = calibration.task.loss(model, *pair).values()
                total = sum((share * loss.sum() for loss, _, share in losses), torch.zeros(()))
                slopes = torch.autograd.grad(total, [output for _, output in outputs], materialize_grads=True)
            for (name, _), slope in zip(outputs, slopes, strict=True):
                squares[name] += float(slope.double().square().sum())
                counts[name] += slope.numel()
            outputs.clear()
    finally:
        for weight in frozen:
            weight.requires_grad_(False)
        for hook in hooks:
            hook.remove()
    return {name: squares[name] / max(counts[name], 1) for name in layers}


def calibration_of(bundle: Bundle, rows: int, run: Run) -> Calibration:
    """`rows` rows of the training split (all, if it has fewer), chosen by the run's dice alone."""
    from luodi.train.loop.examples import examples_of

    assert bundle.data is not None
    train = bundle.data["train"]
    chosen = sorted(run.dice("calibration").permutation(len(train))[:rows].tolist())
    return Calibration(bundle.task, examples_of(bundle.task, train.take(chosen), run.device, hold_mb=512.0)[0])


def holding(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, list[nn.Module]]:
    """The linear and convolution layers that hold each weight, by the name that it goes by."""
    from torch import nn
    from torch.nn.modules.conv import _ConvNd

    found: dict[int, list[nn.Module]] = {}
    for layer in model.modules():
        if isinstance(layer, nn.Linear | _ConvNd) and layer._parameters.get("weight") is not None:
            found.setdefault(id(layer._parameters["weight"]), []).append(layer)
    return {name: found[id(weight)] for name, weight in weights.items()}


def walk(
    calibration: Calibration, model: nn.Module, layers: Layers, *, products: bool, order: Order = "layers",
    whole: nn.Module | None = None,
) -> Iterator[tuple[str, Sums]]:  # fmt: skip
    """(name, sums of its inputs) of each layer in the order of their work; of one that never works, no sums.

    The caller changes each layer in place before it asks for the next: unless `order` is "once", later layers see what
    the changed ones give. Layers that are given the same tensor are looked at together. `whole` is the model as it
    was: its inputs are summed against the changed model's. What is held are sums and one batch.
    """
    model.eval()
    groups, repeated = _groups(calibration, model, layers, order)
    for group in groups:
        chosen = {name: layers[name] for name in group}
        found = _sums(calibration, model, chosen, products=products, cut=not repeated, whole=whole)
        yield from found.items()
    met = {name for group in groups for name in group}
    yield from ((name, Sums()) for name in layers if name not in met)


def _groups(calibration: Calibration, model: nn.Module, layers: Layers, order: Order) -> tuple[list[list[str]], bool]:
    """Names in groups that are summed in one pass, and whether a layer works more than once."""
    calls: list[tuple[str, bool]] = []  # (name, whether it belongs to the one before)
    before: list[Any] = []

    def look(name: str, layer: nn.Module, x: Tensor) -> None:
        key = {"layers": id(x), "blocks": _block(name), "once": None}[order]
        calls.append((name, bool(before) and before[0] == key))
        before[:] = [key, x]  # the tensor is held, so that no other gets its id

    with _hooked(layers, look):
        calibration.forward(model, next(calibration.batches()))
    groups: list[list[str]] = []
    met: set[str] = set()
    for name, joins in calls:
        if name not in met:
            groups[-1].append(name) if joins else groups.append([name])
            met.add(name)
    return groups, max(Counter(name for name, _ in calls).values(), default=1) > 1


def _sums(
    calibration: Calibration, model: nn.Module, layers: Layers, *, products: bool, cut: bool, whole: nn.Module | None
) -> dict[str, Sums]:
    found = {name: Sums() for name in layers}
    for pair in calibration.batches():
        given = _given(calibration, whole, model, layers, pair, cut=cut) if whole is not None else {}
        left = set(layers)

        def add(name: str, layer: nn.Module, x: Tensor, given: Any = given, left: set[str] = left) -> None:
            other = seen_columns(layer, given[name].pop(0)) if given else None
            found[name].add(seen_columns(layer, x), products=products, whole=other)
            _end(left, name, cut=cut)

        with _hooked(layers, add):
            _until_enough(calibration, model, pair)
    return found


def _given(
    calibration: Calibration, whole: nn.Module, model: nn.Module, layers: Layers, pair: Pair, *, cut: bool
) -> dict[str, list[Tensor]]:
    """What the whole model gives these layers on one batch."""
    names = {id(module): name for name, module in model.named_modules()}
    twins = {name: [whole.get_submodule(names[id(layer)]) for layer in held] for name, held in layers.items()}
    given: dict[str, list[Tensor]] = {name: [] for name in layers}
    left = set(layers)

    def keep(name: str, layer: nn.Module, x: Tensor) -> None:
        given[name].append(x)
        _end(left, name, cut=cut)

    with _hooked(twins, keep):
        _until_enough(calibration, whole.eval(), pair)
    return given


def _end(left: set[str], name: str, *, cut: bool) -> None:
    """Ends a forward once each of its layers was met, if it is met only once."""
    left.discard(name)
    if cut and not left:
        raise _Enough


def _until_enough(calibration: Calibration, model: nn.Module, pair: Pair) -> None:
    try:
        calibration.forward(model, pair)
    except _Enough:
        return


@contextmanager
def _hooked(layers: Layers, told: Callable[[str, nn.Module, Any], None]) -> Generator[None]:
    """While it is open, `told(name, layer, input)` is called before each layer works."""

    def hook(name: str) -> Callable[..., None]:
        return lambda layer, args, kwargs: told(name, layer, args[0] if args else kwargs["input"])

    hooks = [
        layer.register_forward_pre_hook(hook(name), with_kwargs=True) for name, held in layers.items() for layer in held
    ]
    try:
        yield
    finally:
        for one in hooks:
            one.remove()


def _block(name: str) -> str:
    """A layer's path up to its first number."""
    parts = name.split(".")
    numbers = [place for place, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[: numbers[0] + 1]) if numbers else name
