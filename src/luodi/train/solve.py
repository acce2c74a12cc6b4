"""Learning without a gradient's descent: the model solves itself."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from luodi.core.bundle import Edit
from luodi.core.catalog import name_of
from luodi.core.errors import LuodiError
from luodi.core.step import Facts, Step
from luodi.core.thing import ModelConfig, dump

if TYPE_CHECKING:
    from luodi.core.bundle import Bundle
    from luodi.core.run import Run
    from luodi.core.task import Task
    from luodi.train.loop.examples import Examples, Pair


class Solve(Step):
    """Gives the training rows to a model that solves itself: TF-IDF with a linear layer, and models of that kind.

    Such a model has a method `solve(batches)`. `batches` yields (inputs, truth) as a training would, each a mapping of
    named tensors, every training row once and in order, and may be walked through again. It sets the model's own
    tensors and returns what it wants noted, as plain data. A killed one starts anew.
    """

    needs: ClassVar = frozenset({"split", "loss"})
    gives: ClassVar = frozenset({"model", "float", "fitted", "exposed"})
    ends: ClassVar = frozenset({"private"})

    batch_size: Annotated[int, Field(ge=1)] = 256  # rows that are encoded at a time
    hold_mb: Annotated[float, Field(ge=0)] = 2048.0  # encoded examples up to this size are held in memory

    def facts(self, have: frozenset[str]) -> Facts:
        more = frozenset({"float"}) if "model" in have else frozenset()
        return Facts(self.needs | more, self.gives, self.ends, self.excludes)

    def objection(self, task: Task, config: ModelConfig | None) -> str | None:
        if config is None or not _solves(config):
            got = "a model from elsewhere" if config is None else name_of(type(config))
            return f"only a model with a method `solve` can be solved (tfidf), and {got} learns by training: use train"
        targets: dict[str, Any] = next(iter(dump(task).values())).get("targets") or {}
        for name, field in targets.items():
            ((kind, fields),) = field.items()
            if fields.get("weights") or fields.get("label_smoothing"):
                return f"labels count alike when a model is solved, and {name} has weights or smoothing"
            if kind == "number" and fields.get("distance", "squared") != "squared":
                return f"what is least is the squared error, and {name} is learned by another distance"
        return None

    def __call__(self, bundle: Bundle, run: Run) -> Bundle:
        from luodi.train.loop.examples import examples_of

        if objection := self.objection(bundle.task, bundle.config):
            raise LuodiError(f"solve: {objection}")
        bundle = bundle.ready(run)
        assert bundle.data is not None and bundle.model is not None
        model: Any = bundle.model
        examples, how = examples_of(bundle.task, bundle.data["train"], run.device, self.hold_mb)
        run.log("note", {"text": how})
        said = model.eval().solve(Batches(examples, self.batch_size))
        done = bundle.with_model(model, edit=Edit(step=self))
        return done.replace(facts=(done.facts | self.gives) - self.ends).noting(solved=said, examples=how)


@dataclass(frozen=True)
class Batches:
    """All examples in order, so many at a time, as often as they are walked through."""

    examples: Examples
    size: int

    def __iter__(self) -> Iterator[Pair]:
        import torch

        for rows in torch.arange(self.examples.count).split(self.size):
            yield self.examples.batch(rows)


def _solves(config: ModelConfig) -> bool:
    """Whether the model's class has a method `solve`, read from its source."""
    tree = ast.parse(config.model_path.read_text(encoding="utf-8")).body
    kind = next(node for node in tree if isinstance(node, ast.ClassDef) and node.name == config.model_class)
    return any(isinstance(node, ast.FunctionDef) and node.name == "solve" for node in kind.body)
