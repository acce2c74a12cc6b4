"""The folder is the registry: finds every named thing by reading the sources, imports one only when it is used."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luodi.core.errors import LuodiError, MissingExtra, nearest

if TYPE_CHECKING:
    from luodi.core.thing import Thing

ROOT = Path(__file__).resolve().parents[1]

# The one list of slots. A sub-folder that is not here holds helpers, not entries.
SLOTS: dict[str, tuple[str, ...]] = {
    "steps": ("data", "train", "tune", "evaluate", "explain", "compress", "protect", "export"),
    "tasks": ("tasks",),
    "fields": ("fields",),
    "models": ("models",),
    "sources": ("data/sources",),
    "runtimes": ("export/runtimes",),
    "updates": ("train/loop/updates",),
    "scopes": ("train/loop/scopes",),
    "schedules": ("train/loop/schedules",),
    "averages": ("train/loop/averages",),
    "augments": ("train/loop/augments/image", "train/loop/augments/text", "train/loop/augments/sound"),
    "listeners": ("train/loop/listeners",),
    "panels": ("report/panels",),
}

# Old names and plain-case names that stay valid: {slot: {name: name today}}.
MOVED: dict[str, dict[str, str]] = {"tasks": {"classification": "supervised", "regression": "supervised"}}


@dataclass(frozen=True)
class Entry:
    """One named thing: where it is and the first line of its docstring."""

    slot: str
    name: str
    path: Path
    class_name: str
    summary: str

    @property
    def module(self) -> str:
        return ".".join(("luodi", *self.path.relative_to(ROOT).with_suffix("").parts))


@cache
def entries(slot: str) -> dict[str, Entry]:
    """All entries of a slot by name, read with `ast`: imports nothing."""
    found: dict[str, Entry] = {}
    for folder in SLOTS[slot]:
        for path in sorted((ROOT / folder).glob("*.py")):
            if path.name == "__init__.py":
                continue
            entry = _read(slot, path)
            assert entry.name not in found, f"{slot}: {entry.name} is in two folders"
            found[entry.name] = entry
    return found


def class_node(path: Path) -> ast.ClassDef:
    """The class that gives a catalog file its meaning: named as the file, in CamelCase."""
    wanted = path.stem.replace("_", "")
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name.lower() == wanted:
            return node
    raise AssertionError(f"{path} holds no class named as the file")


def _read(slot: str, path: Path) -> Entry:
    node = class_node(path)
    summary = (ast.get_docstring(node) or "").split("\n")[0]
    return Entry(slot, path.stem, path, node.name, summary)


def find(slot: str, name: str) -> Entry:
    """The entry of that name; raises LuodiError with the nearest name."""
    known = entries(slot)
    name = MOVED.get(slot, {}).get(name, name)
    if name not in known:
        raise LuodiError(f"no {slot.rstrip('s')} is named {name!r}; {nearest(name, known)}")
    return known[name]


@cache
def load(slot: str, name: str) -> type[Any]:
    """The class behind a name; a model's is the pydantic config made from its keyword-only arguments.

    `name` may be an import path, `package.module:Class` or `./file.py:Class` (that file alone is loaded).
    """
    if ":" in name:
        found = _own(name)
        if slot == "models":
            from luodi.core.thing import config_of

            return config_of(name, Path(sys.modules[found.__module__].__file__ or ""), found.__name__)
        return found
    entry = find(slot, name)
    if slot == "models":
        from luodi.core.thing import config_of

        return config_of(entry.name, entry.path, entry.class_name)
    return getattr(importlib.import_module(entry.module), entry.class_name)


_own_names: dict[type, str] = {}


def _own(name: str) -> type[Any]:
    """A thing from a user's own package or file; the current folder is never put on the import path."""
    where, _, class_name = name.partition(":")
    if where.endswith(".py"):
        path = Path(where).resolve()
        if not path.is_file():
            raise LuodiError(f"{name}: no file {where}")
        label = f"luodi_own_{sha256(str(path).encode()).hexdigest()[:12]}"
        spec = importlib.util.spec_from_file_location(label, path)
        assert spec and spec.loader
        module = sys.modules.get(label) or importlib.util.module_from_spec(spec)
        if label not in sys.modules:
            sys.modules[label] = module
            try:
                spec.loader.exec_module(module)
            except Exception as error:
                del sys.modules[label]
                raise LuodiError(f"{name}: {where} cannot be loaded: {type(error).__name__}: {error}") from error
    else:
        try:
            module = importlib.import_module(where)
        except ModuleNotFoundError as error:
            raise LuodiError(f"{name}: cannot import {where}: {error}") from error
    if not hasattr(module, class_name):
        names = [n for n, v in vars(module).items() if isinstance(v, type) and v.__module__ == module.__name__]
        raise LuodiError(f"{name}: {where} has no {class_name!r}; {nearest(class_name, names)}")
    found = getattr(module, class_name)
    _own_names[found] = name
    return found


def name_of(kind: type[Any]) -> str:
    """The name a thing's class has in recipes and bundles."""
    if kind in _own_names:
        return _own_names[kind]
    if "model_name" in vars(kind):
        return kind.model_name
    if kind.__module__.startswith("luodi."):
        return kind.__module__.rpartition(".")[2]
    return f"{kind.__module__}:{kind.__qualname__}"


def source_sha(name: str) -> str | None:
    """The SHA-256 of the file behind an import path (`./file.py:Class`), None for names of the catalog."""
    return sha256(own_file(name).read_bytes()).hexdigest() if ":" in name else None


def own_file(name: str) -> Path:
    """The file behind an import path: the one it names, or its module's."""
    where = name.partition(":")[0]
    if where.endswith(".py"):
        return Path(where).resolve()
    return Path(sys.modules[_own(name).__module__].__file__ or "").resolve()


def resolve(slot: str, value: Any) -> Thing:
    """A thing from its name, `{name: {field: value}}`, or itself; raises WrongThing with every problem."""
    from luodi.core.thing import make

    return make(slot, value)


def require(package: str, extra: str) -> Any:
    """Imports a heavy package inside a call; the error names the extra that brings it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingExtra(
            f"{package} is not installed ({error}); it comes with the extra: pip install 'luodi[{extra}]'"
        ) from error


def missing(packages: Mapping[str, str]) -> list[str]:
    """Which of {package: extra} are not installed, without importing them."""
    return sorted({extra for package, extra in packages.items() if importlib.util.find_spec(package) is None})
