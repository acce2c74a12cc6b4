"""Takes whole channels out of layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from luodi.compress.calibration.walk import Calibration, calibration_of
from luodi.compress.structure.choice import Scores, by_magnitude, by_taylor, least, loss_of
from luodi.compress.structure.cut import cut, shaped
from luodi.compress.structure.follow import Place, Structure, follow, try_out
from luodi.core.apply import apply
from luodi.core.bundle import Bundle, Edit, weights_count
from luodi.core.catalog import name_of
from luodi.core.errors import LuodiError
from luodi.core.step import Facts, Step
from luodi.core.thing import Json, ModelConfig, Slot

if TYPE_CHECKING:
    from torch import nn

    from luodi.core.outlook import Forecast, Outlook
    from luodi.core.run import Run
    from luodi.core.spec import Arrays
    from luodi.core.task import Task

EXAMPLES = 3  # rows on which the model is traced
WITHOUT = ("bilstm", "rnn", "tfidf", "constant")  # models without channels that could go
KEPT = frozenset({"channels", "parameters", "sensitivity"})  # notes of its own, which no step inside may replace


class Channels(Step):
    """Takes whole channels, neurons and attention heads out, so that layers really get smaller.

    What belongs together is read off the model's graph: the outputs of a layer, its norm, the inputs of all that read
    them, through residuals, depthwise convolutions, flattening and layers side by side. What goes in and comes out of
    the model stays, and so does what an operation takes part in that is not understood. `by: magnitude` takes the
    components with the smallest weights (squares, over the mean of their kind), `by: taylor` those without which the
    loss on `rows` training rows changes least, to first order (arXiv 1906.10771). Several `rounds` cut little by
    little; after each cut the steps of `recover` are run. `sensitivity` notes the loss with each kind cut alone.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"model", "float"})
    excludes: ClassVar[frozenset[str]] = frozenset({"adapters"})

    share: Annotated[float, Field(gt=0, lt=1)] = 0.25  # of the channels of each kind, or of all of them
    scope: Literal["layer", "global"] = "layer"
    by: Literal["magnitude", "taylor"] = "magnitude"
    multiple: Annotated[int, Field(ge=1)] = 8  # what stays is rounded up to it where there are four times as many
    rounds: Annotated[int, Field(ge=1)] = 1  # cuts until `share` is gone
    recover: tuple[Annotated[Any, Slot("steps")], ...] = ()  # after each cut, as in [{train: {epochs: 1}}]
    rows: Annotated[int, Field(ge=1)] = 128  # of the training split, for taylor and sensitivity
    sensitivity: bool = False

    @classmethod
    def offers(cls) -> Sequence[Mapping[str, Json]]:
        again = [{"train": {"epochs": 1, "learning_rate": 0.0005}}]
        return tuple({"share": share, "by": "taylor", "recover": again} for share in (0.25, 0.5))

    def facts(self, have: frozenset[str]) -> Facts:
        needs, gives, ends, excludes = set(self.needs), set(self.gives), set(self.ends), set(self.excludes)
        if self.by == "taylor" or self.sensitivity:
            needs |= {"split", "loss"}
        now = have | needs
        for step in self.recover:
            one = step.facts(now)
            needs |= one.needs - gives
            excludes |= one.excludes - ends
            gives, ends = (gives - one.ends) | one.gives, (ends | one.ends) - one.gives
            now = (now - one.ends) | one.gives
        return Facts(frozenset(needs), frozenset(gives), frozenset(ends), frozenset(excludes))

    def packages(self) -> Mapping[str, str]:
        return {name: extra for step in self.recover for name, extra in step.packages().items()}

    def objection(self, task: Task, config: ModelConfig | None) -> str | None:
        if config is not None and (name := name_of(type(config))) in WITHOUT:
            return (
                f"the layers of {name} end in its inputs, its outputs or a recurrent state, whose lengths stay: there "
                "are no channels to take out; use prune, factorize or quantize"
            )
        return next((said for step in self.recover if (said := step.objection(task, config))), None)

    def forecast(self, outlook: Outlook) -> Forecast | None:
        """Each round takes what its steps take; the cut itself is short."""
        from luodi.core.outlook import Forecast

        costs = [cost for step in self.recover if (cost := step.forecast(outlook)) is not None]
        if not costs:
            return None
        return Forecast(self.rounds * sum(cost.seconds for cost in costs), max(cost.memory_mb for cost in costs))

    def __call__(self, bundle: Bundle, run: Run) -> Bundle:
        assert bundle.model is not None
        needed = self.by == "taylor" or self.sensitivity
        calibration = calibration_of(bundle, self.rows, run) if needed else None
        structure = self._structure(bundle, run)
        whole = {axes: len(several) for axes, several in structure.groups.items()}
        if not whole:
            raise LuodiError(
                "channels: nothing can be removed: every axis of this model is one of its inputs or outputs, or goes "
                "through an operation whose length is fixed; try prune, factorize or quantize"
            )
        before, first = weights_count(bundle.model), {name: len(tensor) for name, tensor in _layers(bundle.model)}
        notes: dict[str, Any] = {}
        if self.sensitivity:
            assert calibration is not None
            notes["sensitivity"] = self._sensitivity(bundle.model, structure, calibration)
        for number in range(1, self.rounds + 1):
            run.log("progress", {"done": number - 1, "total": self.rounds, "what": "cuts"})
            structure = structure if number == 1 else self._structure(bundle, run)
            bundle, told = self._round(bundle, structure, whole, number, calibration, run)
            notes |= told
        assert bundle.model is not None
        if weights_count(bundle.model) == before:
            raise LuodiError(
                f"channels: a share of {self.share:g} takes no channel of any of these kinds: "
                f"{', '.join(sorted(map(str, whole.values())))} channels; give a larger share or a smaller multiple"
            )
        now = {name: len(tensor) for name, tensor in _layers(bundle.model)}
        changed = {name: [count, now[name]] for name, count in first.items() if now.get(name, count) != count}
        return bundle.noting(**notes, channels=changed, parameters=[before, weights_count(bundle.model)])

    def restore(self, task: Task, model: nn.Module, plan: Mapping[str, Json]) -> nn.Module:
        return shaped(model, plan)

    def _structure(self, bundle: Bundle, run: Run) -> Structure:
        assert bundle.model is not None
        return follow(bundle.model, _example(bundle, run), tuple(bundle.task.outputs_specs()))

    def _round(
        self, bundle: Bundle, structure: Structure, whole: Mapping[frozenset[Place], int], number: int,
        calibration: Calibration | None, run: Run,
    ) -> tuple[Bundle, dict[str, Any]]:  # fmt: skip
        """One cut and what recovers it; and what the steps inside reported."""
        import torch

        assert bundle.model is not None
        share = self.share * number / self.rounds
        scores = self._scores(bundle.model, structure, calibration)
        gone = least(bundle.model, structure.groups, scores, whole, share, self.multiple, self.scope)
        notes: dict[str, Any] = {}
        if not gone:
            return bundle, notes
        edit = Edit(self, cut(bundle.model, structure, gone), self.version, {"torch": torch.__version__})
        try_out(bundle.model, _example(bundle, run))
        bundle = bundle.with_model(bundle.model, edit=edit)
        for place, step in enumerate(self.recover, 1):
            inside = run.at("round", number, place)
            inside.out.mkdir(parents=True, exist_ok=True)
            bundle = apply(step, bundle, inside, place)
            notes |= {name: said for name, said in bundle.notes.items() if name not in KEPT}
        return bundle, notes

    def _scores(self, model: nn.Module, structure: Structure, calibration: Calibration | None) -> Scores:
        if self.by == "magnitude":
            return by_magnitude(model, structure)
        assert calibration is not None
        return by_taylor(model, structure, calibration)

    def _sensitivity(self, model: nn.Module, structure: Structure, calibration: Calibration) -> dict[str, Any]:
        """The loss as it is, and with each kind of channel alone cut by `share`."""
        scores = self._scores(model, structure, calibration)
        found: dict[str, Any] = {"share": self.share, "loss": loss_of(model, calibration), "layers": {}}
        for axes, several in structure.groups.items():
            kinds = {axes: several}
            gone = least(model, kinds, scores, {axes: len(several)}, self.share, self.multiple, "layer")
            one = deepcopy(model)
            cut(one, structure, gone)
            found["layers"][_name(axes)] = loss_of(one, calibration)
        return found


def _example(bundle: Bundle, run: Run) -> Arrays:
    return bundle.task.encode(bundle.task.examples(EXAMPLES, run.seed_for("channels")))


def _layers(model: nn.Module) -> list[tuple[str, Any]]:
    """The weights whose first axis is a layer's outputs, by the layer's name."""
    return [(name.removesuffix(".weight"), one) for name, one in model.named_parameters() if one.dim() > 1]


def _name(axes: frozenset[Place]) -> str:
    """The layers that give these channels; those that only read them are left out."""
    givers = sorted(name.removesuffix(".weight") for name, axis in axes if axis == 0 and name.endswith(".weight"))
    return ", ".join(givers) or ", ".join(sorted(name for name, _ in axes))
