"""Recipes as YAML with the scalars of YAML 1.2, and the line of every key."""

from __future__ import annotations

import re
from typing import Any

import yaml

from luodi.core.errors import LuodiError

Path = tuple[Any, ...]

# YAML 1.2 core schema, but a number never starts with a needless 0: `012` is text, as are `on`, `no`, `1_000`.
_SCALARS: tuple[tuple[str, str, str], ...] = (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("null", r"^(?:~|null|Null|NULL|)$", "~nN\0"),
    ("int", r"^(?:[-+]?(?:0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+)$", "-+0123456789"),
    (
        "float",
        r"^(?:[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        "-+0123456789.",
    ),
)


class Loader(yaml.SafeLoader):
    """A safe loader that knows the scalars of YAML 1.2 and refuses a key given twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, list | dict):
                raise LuodiError(f"line {key_node.start_mark.line + 1}: a key is a name, not {key!r}")
            if key in seen:
                raise LuodiError(f"line {key_node.start_mark.line + 1}: the key {key!r} is given twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


class Dumper(yaml.SafeDumper):
    """A safe dumper that quotes whatever YAML 1.1 or 1.2 would read as something else than text."""


Loader.yaml_implicit_resolvers = {}
Dumper.yaml_implicit_resolvers = {key: list(value) for key, value in yaml.SafeDumper.yaml_implicit_resolvers.items()}
for _kind, _pattern, _first in _SCALARS:
    for _class in (Loader, Dumper):
        _class.add_implicit_resolver(
            f"tag:yaml.org,2002:{_kind}", re.compile(_pattern), ["" if c == "\0" else c for c in _first]
        )


def _construct_int(loader: Any, node: Any) -> int:
    return int(loader.construct_scalar(node), 0)


def _construct_float(loader: Any, node: Any) -> float:
    return float(loader.construct_scalar(node).lower().replace(".inf", "inf").replace(".nan", "nan"))


def _represent_text(dumper: Any, value: str) -> Any:
    odd = any(character in value for character in "\r\x85\u2028\u2029\ufeff")  # line breaks that readers fold away
    style = '"' if odd else "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)
Dumper.add_representer(str, _represent_text)
Dumper.add_representer(tuple, yaml.SafeDumper.represent_list)


def parse(text: str, where: str = "recipe") -> Any:
    """YAML text as plain data; raises LuodiError with the line."""
    try:
        return yaml.load(text, Loader)  # noqa: S506 - Loader is a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise LuodiError(f"{where}{line}: {error.problem or error.context}") from error
    except LuodiError as error:
        raise LuodiError(f"{where} {error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # odd characters, `!!int x`, nested without end
        raise LuodiError(f"{where}: {error}") from error


def lines(text: str) -> dict[Path, int]:
    """The line (from 1) of every key and item, by its path of keys and indices."""
    found: dict[Path, int] = {}

    def walk(node: Any, at: Path) -> None:
        found.setdefault(at, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                found[(*at, key.value)] = key.start_mark.line + 1
                walk(value, (*at, key.value))
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                walk(item, (*at, index))

    root = yaml.compose(text, Loader)
    if root is not None:
        walk(root, ())
    return found


def dump(value: Any) -> str:
    """Plain data as YAML text that `parse` gives back unchanged."""
    return yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None)
