"""A recipe: task, data, model, steps, limits. YAML and Python are the same thing."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError, model_validator

from luodi.core import catalog, yaml
from luodi.core.errors import LuodiError, nearest
from luodi.core.limits import Limits
from luodi.core.thing import Problem, Slot, Thing, problems_of

NAME = r"^[\w][\w.-]*$"  # may name a file
DOT = re.compile(r'\.(?=(?:[^"]*"[^"]*")*[^"]*$)')  # between two names of a path: not inside quotes
Device = Literal["auto", "cpu", "cuda", "mps", "xpu"]


class Threads(Thing):
    """How many threads work: both numbers are part of every evidence."""

    train: int = Field(0, ge=0)  # 0: all cores
    serve: int = Field(1, ge=1)  # measuring and serving


class Rival(Thing):
    """Another recipe on the same rows: its model or task, and its steps in place of those that work on the model."""

    task: Annotated[Any, Slot("tasks")] | None = None  # None: the recipe's
    model: Annotated[Any, Slot("models")] | None = None  # None: the recipe's
    steps: tuple[Annotated[Any, Slot("steps")], ...] = Field((), min_length=1)


class Budget(Thing):
    """What the evidence of a step may cost."""

    seconds: float = Field(10.0, gt=0)  # of scoring and timing, a step
    rows: int | None = Field(None, ge=1)  # most held-out rows; None: as many as fit the seconds
    calls: int = Field(1000, ge=20)  # timed calls of one request; p99 needs 1,000
    resamples: int = Field(400, ge=100)  # of every bootstrap
    without: tuple[str, ...] = ()  # names of steps whose worth is found by running the recipe without them, too
    against: dict[Annotated[str, Field(pattern=NAME)], Rival] = {}  # name -> whom the end is compared with

    def cost(self) -> dict[str, Any]:
        """What one step's evidence may cost, as plain data: no word of other recipes."""
        return self.model_dump(exclude={"without", "against"})


class Recipe(Thing):
    """Everything that makes a bundle. `start` (in YAML: `from`) continues a bundle instead of task and model."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, ser_json_inf_nan="strings")
    name: str = Field(pattern=NAME)
    start: str | None = Field(None, alias="from")  # path of a bundle
    task: Annotated[Any, Slot("tasks")] | None = None
    data: Annotated[Any, Slot("sources")] | None = None
    model: Annotated[Any, Slot("models")] | None = None
    rows: bool = True  # false: a bundle goes on without the rows it was made from, and what needs rows is refused
    steps: tuple[Annotated[Any, Slot("steps")], ...] = ()
    limits: Limits = Limits()
    measure: Budget = Budget()
    seed: int = 0
    device: Device = "auto"
    threads: Threads = Threads()
    keep: Literal["all", "last"] = "all"  # bundles of single steps: `last` gives up caching them

    @model_validator(mode="after")
    def _whole(self) -> Recipe:
        if self.start is None and self.task is None:
            raise ValueError("a recipe needs a task, or a bundle to start from (from: PATH)")
        if self.start is not None and (self.task is not None or self.model is not None):
            raise ValueError("a recipe that starts from a bundle takes its task and model from there")
        if not self.rows and (self.start is None or self.data is not None):
            raise ValueError("rows: false is for a recipe that starts from a bundle and names no data")
        for name in self.measure.without:
            if name not in self.step_names():
                raise ValueError(f"measure.without: no step is named {name!r}; {nearest(name, self.step_names())}")
            if set(self.step_names()) == {name}:
                raise ValueError(f"measure.without: without {name} the recipe has no steps")
        for name, rival in self.measure.against.items():
            if self.start is not None and (rival.task is not None or rival.model is not None):
                raise ValueError(f"measure.against.{name}: a recipe that starts from a bundle lends its task and model")
        return self

    @model_validator(mode="after")
    def _told(self) -> Recipe:
        object.__setattr__(self, "steps", tuple(step.within(self) for step in self.steps))
        return self

    @classmethod
    def of(cls, value: Any, text: str | None = None, where: str = "recipe") -> Recipe:
        """A recipe from plain data; raises LuodiError with every problem, its line and the nearest name."""
        if not isinstance(value, dict):
            raise LuodiError(f"{where}: expected keys and values, got {type(value).__name__}")
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            places = yaml.lines(text) if text is not None else {}
            told = [_tell(problem, places) for problem in problems_of(error, cls)]
            raise LuodiError(f"{where}:\n" + "\n".join(f"  {one}" for one in told)) from error

    @classmethod
    def read(cls, path: Path, settings: Sequence[str] = ()) -> Recipe:
        """A recipe file, with `--set` settings applied to it."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise LuodiError(f"cannot read {path}: {error.strerror}; `luodi list recipes` shows some") from error
        except UnicodeDecodeError as error:
            raise LuodiError(f"cannot read {path}: recipes are UTF-8 text, and byte {error.start} is not") from error
        value = yaml.parse(text, str(path))
        for setting in settings if isinstance(value, dict) else ():
            apply_setting(value, setting)
        return cls.of(value, text, str(path))

    def plain(self, *, short: bool = True) -> dict[str, Any]:
        """The recipe as plain data: what differs from defaults, or every field."""
        text = self.model_dump_json(by_alias=True, exclude_defaults=short, context={"short": short})
        return json.loads(text)

    def yaml(self, *, short: bool = True) -> str:
        """The recipe as YAML that reads back as an equal recipe."""
        return yaml.dump(self.plain(short=short))

    def step_names(self) -> list[str]:
        """The recipe names of the steps, in order."""
        return [catalog.name_of(type(step)) for step in self.steps]


def _tell(problem: Problem, places: dict[yaml.Path, int]) -> str:
    at, what = problem
    what = what.removeprefix("Value error, ")
    known = next((at[:end] for end in range(len(at), 0, -1) if at[:end] in places), None)
    line = f"line {places[known]}, " if known else ""
    return f"{line}{'.'.join(map(str, at))}: {what}" if at else what


def apply_setting(value: Any, setting: str) -> None:
    """`steps.train.epochs=5` on plain data, in place. A step's name stands for it while it occurs once; else its
    number from 0 precedes it: `steps.1.train.epochs=5`. Or in quotes: `limits.drop."label.accuracy"=0`."""
    path, equals, text = setting.partition("=")
    if not equals or not path:
        raise LuodiError(f"--set {setting}: expected path=value, as in steps.train.epochs=5")
    keys = [key.strip('"') for key in DOT.split(path)]
    node, index = value, 0
    while index < len(keys) - 1:
        node, index = _descend(node, keys, index, setting)
    if not isinstance(node, dict):
        raise LuodiError(f"--set {setting}: {'.'.join(keys[:-1])} has no keys")
    node[keys[-1]] = yaml.parse(text, f"--set {setting}")


def _descend(node: Any, keys: list[str], index: int, setting: str) -> tuple[Any, int]:
    key = keys[index]
    if isinstance(node, list):
        names = [next(iter(item), "") if isinstance(item, dict) else str(item) for item in node]
        if key.isdigit() and int(key) < len(node):
            place, index = int(key), index + 1
            if index < len(keys) and keys[index] != names[place]:
                raise LuodiError(f"--set {setting}: step {place} is {names[place]!r}, not {keys[index]!r}")
        elif names.count(key) == 1:
            place = names.index(key)
        else:
            many = f"{key!r} occurs {names.count(key)} times: put its number before it, as in steps.1.{key}"
            raise LuodiError(f"--set {setting}: {many if key in names else f'no {key!r}; {nearest(key, names)}'}")
        if not isinstance(node[place], dict):
            node[place] = {names[place]: {}}
        name = names[place]
        node[place][name] = node[place][name] or {}
        return node[place][name], index + 1
    if not isinstance(node, dict):
        raise LuodiError(f"--set {setting}: {'.'.join(keys[:index])} has no keys")
    if isinstance(node.get(key), str) and index + 1 < len(keys):
        node[key] = {node[key]: {}}  # a name alone, opened to take a field
    if node.get(key) is None:
        node[key] = {}
    return node[key], index + 1
