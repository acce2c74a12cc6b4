"""Anything written in a recipe: its name, or its name with its fields."""

from __future__ import annotations

import ast
import importlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic_core import ErrorDetails, core_schema

from luodi.core import catalog
from luodi.core.errors import LuodiError, nearest

if TYPE_CHECKING:
    from torch import nn

    from luodi.core.spec import Spec

# What a thing from outside luodi must derive from.
NOUNS = {
    "steps": "luodi.core.step:Step", "tasks": "luodi.core.task:Task", "fields": "luodi.core.field:Field",
    "sources": "luodi.core.source:Source", "runtimes": "luodi.core.form:Runtime",
}  # fmt: skip

# How pydantic names one type of several that a field may have, at the end of an error's place.
UNION = re.compile(r"(constrained-)?(int|float|str|bool)|literal\[.*\]|none")

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


class ImportPath(str):
    """A field's value that names a class or function outside luodi: `package.module:Name` or `./file.py:Name`.

    A bundle that holds one opens only if it is trusted by name, and hashes its file; nothing is imported before `load`.
    """

    __slots__ = ()

    def load(self) -> Any:
        """What the path names."""
        return catalog._own(str(self))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        return core_schema.with_info_plain_validator_function(
            lambda value, info: cls.checked(value, info.context),
            serialization=core_schema.to_string_ser_schema(),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> Any:
        return {"type": "string", "pattern": "^[^:]+:[^:]+$"}

    @classmethod
    def checked(cls, value: Any, context: Any) -> ImportPath:
        """The path; ValueError if it is none, WrongThing if it comes from a bundle (pydantic's context says so) and was
        not trusted by name."""
        trust: Trust | None = (context or {}).get("trust")
        where, _, name = value.partition(":") if isinstance(value, str) else ("", "", "")
        if not where or not name.isidentifier():
            raise ValueError("expected an import path, package.module:Name or ./file.py:Name")
        if trust is not None:
            trust.check(str(value))
        return cls(value)


class ModelConfig(Thing):
    """What a fresh model is built from: made by the catalog from a module's keyword-only arguments."""

    model_name: ClassVar[str]
    model_path: ClassVar[Path]
    model_class: ClassVar[str]
    model_packages: ClassVar[Mapping[str, str]] = {}

    def packages(self) -> Mapping[str, str]:
        """{package: extra} that building imports: the class's own `packages`."""
        return self.model_packages

    def build(self, inputs: Mapping[str, Spec], outputs: Mapping[str, Spec]) -> nn.Module:
        """A fresh module for these named tensors, initialised from torch's default generator."""
        for package, extra in self.packages().items():
            catalog.require(package, extra)
        kind = _model_kind(self.model_name, self.model_path, self.model_class)
        given = {name: getattr(self, name) for name in type(self).model_fields}
        loaded = {name: value.load() if isinstance(value, ImportPath) else value for name, value in given.items()}
        return kind(dict(inputs), dict(outputs), **loaded)


def _model_kind(name: str, path: Path, class_name: str) -> Any:
    if ":" in name:
        return catalog._own(name)
    return getattr(importlib.import_module(catalog.find("models", name).module), class_name)


def config_of(name: str, path: Path, class_name: str) -> type[ModelConfig]:
    """The pydantic config of a model class, read from the source without importing torch.

    An argument of type `type` is an import path in the config; the model is given what it names. Annotations are
    evaluated, so `path` must be our own folder, an installed package, or a file the user named.
    """
    tree = ast.parse(path.read_text(encoding="utf-8")).body
    kind = next(node for node in tree if isinstance(node, ast.ClassDef) and node.name == class_name)
    init = next(node for node in kind.body if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    fields: dict[str, Any] = {}
    for argument, default in zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True):
        assert argument.annotation is not None, f"{path}: {argument.arg} needs a type"
        annotation = eval(ast.unparse(argument.annotation), {"Literal": Literal})  # noqa: S307 - see the docstring
        annotation = ImportPath if annotation is type else annotation
        fields[argument.arg] = (annotation, ast.literal_eval(default) if default is not None else ...)
    made = create_model(class_name, __base__=ModelConfig, __doc__=ast.get_docstring(kind), **fields)
    made.model_name, made.model_path, made.model_class = name, path, class_name
    made.model_packages = _packages(kind)
    return made


def _packages(kind: ast.ClassDef) -> Mapping[str, str]:
    """The class's `packages = {package: extra}`, or nothing."""
    for node in kind.body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["packages"]:
            return ast.literal_eval(node.value)
    return {}


@dataclass(frozen=True)
class Trust:
    """Which import paths a bundle may use, and the SHA-256 that each file had when the bundle was written."""

    names: tuple[str, ...] = ()
    hashes: Mapping[str, str | None] = field(default_factory=dict)

    def check(self, name: str) -> None:
        """Raises WrongThing unless this import path was trusted by name and its file is unchanged."""
        if name not in self.names:
            raise WrongThing([((), f"{name} is code outside luodi; it runs only if you trust it: --trust {name}")])
        path = Path(name.partition(":")[0])
        wanted = self.hashes.get(name)
        if path.suffix == ".py" and (not path.is_file() or sha256(path.read_bytes()).hexdigest() != wanted):
            raise WrongThing([((), f"{name}: the file is not the one this bundle was made with (SHA-256 {wanted})")])


def make(slot: str, value: Any, trust: Trust | None = None) -> Thing:
    """A thing from its name, `{name: {field: value}}`, or itself; raises WrongThing with every problem.

    `trust`: None for what the user wrote; for what a bundle says, the import paths that were trusted by name.
    """
    if isinstance(value, Thing):
        return value
    if isinstance(value, str):
        name, fields = value, {}
    elif isinstance(value, Mapping) and len(value) == 1:
        name, fields = next(iter(value.items()))
    else:
        raise WrongThing([((), f"expected a name or one name with its fields, got {value!r}")])
    if trust is not None and ":" in str(name):
        trust.check(str(name))
    try:
        kind = catalog.load(slot, str(name))
    except LuodiError as error:
        raise WrongThing([((name,) if isinstance(value, Mapping) else (), str(error))]) from error
    if ":" in name and slot in NOUNS:
        module, _, noun = NOUNS[slot].partition(":")
        if not issubclass(kind, getattr(importlib.import_module(module), noun)):
            raise WrongThing([((), f"{name} is no {slot.rstrip('s')}: it must derive from luodi's {noun}")])
    if not isinstance(fields, Mapping | None):
        raise WrongThing([((name,), f"expected fields (key: value), got {fields!r}")])
    try:
        return kind.model_validate(dict(fields or {}), context={"trust": trust})
    except ValidationError as error:
        raise WrongThing([((name, *at), what) for at, what in problems_of(error, kind)]) from error


def problems_of(error: ValidationError, kind: type[BaseModel]) -> list[Problem]:
    """Every problem of a pydantic error, in our words, with nested things unfolded."""
    found: list[Problem] = []
    choices: dict[tuple[Any, ...], list[str]] = {}  # where either of several types is allowed: what each wants
    for detail in error.errors():
        cause = detail.get("ctx", {}).get("error")
        if isinstance(cause, WrongThing):
            found += [((*detail["loc"], *at), what) for at, what in cause.problems]
        elif detail["loc"] and UNION.fullmatch(str(detail["loc"][-1])):
            choices.setdefault(detail["loc"][:-1], []).append(_words(detail, kind))
        else:
            found.append((detail["loc"], _words(detail, kind)))
    return found + [(at, _either(wants)) for at, wants in choices.items()]


def _either(wants: list[str]) -> str:
    """One sentence of several that end alike: what is allowed, then what was given."""
    got = wants[0].rpartition(", got ")[2]
    parts = [want.removesuffix(f", got {got}") for want in wants]
    others = [part.removeprefix("Input should be ") for part in parts[1:]]
    return f"{' or '.join([parts[0], *others])}, got {got}"


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
    within = False  # a mapping: the next name is one of the user's
    for name in at:
        if within:
            within = False
            continue
        inner = kind.model_fields[name].annotation if name in kind.model_fields else None
        if get_origin(inner) is dict:
            inner, within = get_args(inner)[1], True
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


def own_names(thing: Any) -> set[str]:
    """Import paths among a thing and the things inside it: what a bundle must name and hash."""
    if isinstance(thing, Mapping):
        return set().union(*map(own_names, thing.values()))
    if isinstance(thing, list | tuple):
        return set().union(*map(own_names, thing))
    if isinstance(thing, ImportPath):
        return {str(thing)}
    if not isinstance(thing, Thing):
        return set()
    name = catalog.name_of(type(thing))
    inner = own_names([getattr(thing, key) for key in type(thing).model_fields])
    return inner | ({name} if ":" in name else set())


def own_hashes(thing: Any) -> dict[str, str | None]:
    """Import path -> SHA-256 of its file, of a thing and the things inside it."""
    return {name: catalog.source_sha(name) for name in sorted(own_names(thing))}


@dataclass(frozen=True)
class Slot:
    """Marks a field as a thing looked up in a slot: `Annotated[Any, Slot("steps")]`."""

    name: str

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return core_schema.with_info_plain_validator_function(
            lambda value, info: make(self.name, value, (info.context or {}).get("trust")),
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda thing, info: dump(thing, short=bool((info.context or {}).get("short"))), info_arg=True
            ),
        )

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> Any:
        return {"x-slot": self.name}  # pydantic looks a reference up at once: `luodi schema` writes it later


def Named(slot: str) -> Any:
    """The field type of a thing that is looked up in a slot."""
    return Annotated[Any, Slot(slot)]
