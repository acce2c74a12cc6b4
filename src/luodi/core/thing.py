"""Anything written in a recipe: its name, or its name with its fields."""

from __future__ import annotations

import ast
import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, ValidationError, create_model
from pydantic_core import ErrorDetails

from luodi.core import catalog
from luodi.core.errors import LuodiError, nearest

if TYPE_CHECKING:
    from torch import nn

    from luodi.core.spec import Spec

Json = Any  # None, bool, int, float, str, list, dict of these
Problem = tuple[tuple[Any, ...], str]  # where in the recipe, what is wrong


class WrongThing(ValueError, LuodiError):
    """One or more problems of a thing's name or fields, each with its place."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("; ".join(f"{'.'.join(map(str, at))}: {what}" if at else what for at, what in problems))


class Thing(BaseModel):
    """Anything written in a recipe: frozen, unknown fields forbidden, plain field types."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings", protected_namespaces=())


class ModelConfig(Thing):
    """What a fresh model is built from: made by the catalog from a module's keyword-only arguments."""

    model_name: ClassVar[str]
    model_path: ClassVar[Path]
    model_class: ClassVar[str]

    def build(self, inputs: Mapping[str, Spec], outputs: Mapping[str, Spec]) -> nn.Module:
        """A fresh module for these named tensors, initialised from torch's default generator."""
        kind = _model_kind(self.model_name, self.model_path, self.model_class)
        return kind(dict(inputs), dict(outputs), **{name: getattr(self, name) for name in type(self).model_fields})


def _model_kind(name: str, path: Path, class_name: str) -> Any:
    if ":" in name:
        return catalog._own(name)
    return getattr(importlib.import_module(catalog.find("models", name).module), class_name)


def config_of(name: str, path: Path, class_name: str) -> type[ModelConfig]:
    """The pydantic config of a model class, read from the source without importing torch.

    Annotations are evaluated, so `path` must be our own folder, an installed package, or a file the user named.
    """
    tree = ast.parse(path.read_text(encoding="utf-8")).body
    kind = next(node for node in tree if isinstance(node, ast.ClassDef) and node.name == class_name)
    init = next(node for node in kind.body if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    fields: dict[str, Any] = {}
    for argument, default in zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True):
        assert argument.annotation is not None, f"{path}: {argument.arg} needs a type"
        annotation = eval(ast.unparse(argument.annotation), {"Literal": Literal})  # noqa: S307 - see the docstring
        fields[argument.arg] = (annotation, ast.literal_eval(default) if default is not None else ...)
    made = create_model(class_name, __base__=ModelConfig, __doc__=ast.get_docstring(kind), **fields)
    made.model_name, made.model_path, made.model_class = name, path, class_name
    return made


def make(slot: str, value: Any) -> Thing:
    """A thing from its name, `{name: {field: value}}`, or itself; raises WrongThing with every problem."""
    if isinstance(value, Thing):
        return value
    if isinstance(value, str):
        name, fields = value, {}
    elif isinstance(value, Mapping) and len(value) == 1:
        name, fields = next(iter(value.items()))
    else:
        raise WrongThing([((), f"expected a name or one name with its fields, got {value!r}")])
    try:
        kind = catalog.load(slot, str(name))
    except LuodiError as error:
        raise WrongThing([((), str(error))]) from error
    if not isinstance(fields, Mapping | None):
        raise WrongThing([((name,), f"expected fields (key: value), got {fields!r}")])
    try:
        return kind.model_validate(dict(fields or {}))
    except ValidationError as error:
        raise WrongThing([((name, *at), what) for at, what in problems_of(error, kind)]) from error


def problems_of(error: ValidationError, kind: type[BaseModel]) -> list[Problem]:
    """Every problem of a pydantic error, in our words, with nested things unfolded."""
    found: list[Problem] = []
    for detail in error.errors():
        cause = detail.get("ctx", {}).get("error")
        if isinstance(cause, WrongThing):
            found += [((*detail["loc"], *at), what) for at, what in cause.problems]
        else:
            found.append((detail["loc"], _words(detail, kind)))
    return found


def _words(detail: ErrorDetails, kind: type[BaseModel]) -> str:
    last = detail["loc"][-1] if detail["loc"] else ""
    if detail["type"] == "extra_forbidden":
        known = kind.model_fields if len(detail["loc"]) == 1 else _fields_at(kind, detail["loc"][:-1])
        return f"unknown key {last!r}; {nearest(str(last), known)}"
    if detail["type"] == "missing":
        return f"{last!r} is required"
    got = "" if isinstance(detail["input"], Mapping | list) else f", got {detail['input']!r}"
    return f"{detail['msg']}{got}"


def _fields_at(kind: type[BaseModel], at: tuple[Any, ...]) -> list[str]:
    for name in at:
        inner = kind.model_fields[name].annotation if name in kind.model_fields else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        kind = inner
    return list(kind.model_fields)


def dump(thing: Thing, *, short: bool = False) -> Json:
    """A thing as plain data: `{name: every field}`, or short: its name alone, or with what differs from defaults."""
    text = thing.model_dump_json(exclude_defaults=short, context={"short": short})
    fields = json.loads(text)
    name = catalog.name_of(type(thing))
    return name if short and not fields else {name: fields}


def Named(slot: str) -> Any:
    """The field type of a thing that is looked up in a slot: `steps: tuple[Named("steps"), ...]`."""
    return Annotated[
        Thing,
        BeforeValidator(lambda value: make(slot, value)),
        PlainSerializer(lambda thing, info: dump(thing, short=bool((info.context or {}).get("short")))),
    ]
