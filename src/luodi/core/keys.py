"""When is a step the same step: the key of everything that its result depends on."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from luodi.core import catalog
from luodi.core.thing import ImportPath, ModelConfig, Thing


def key_of(
    thing: Thing, others: Iterable[Any], parent: tuple[str, str], fields: Mapping[str, Any]
) -> tuple[str, dict[str, str]]:
    """(16 hex digits, the sources behind them) of a step: itself, the things it works on, its parent's key and digest,
    and further fields (seed, scope, fingerprint, device, threads...)."""
    files = _files_behind([thing, *others])
    sources = {_short(name): sha for name, sha in files.items()}
    texts = sorted((_short(name), sha) for name, sha in files.items())  # two files of a user may have one name
    whole = [parent, thing_text(thing), [thing_text(o) for o in others], dict(fields), texts, libraries_of(files)]
    return sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:16], sources


def thing_text(thing: Any) -> str:
    """A thing with all its fields, as one line of text."""
    from luodi.core.thing import dump

    return json.dumps(dump(thing), sort_keys=True) if isinstance(thing, Thing) else json.dumps(thing, sort_keys=True)


def sources_of(things: Iterable[Any]) -> dict[str, str]:
    """File -> SHA-256 of its text: the files of these things, of the things inside them, and all they import from
    luodi, however deep."""
    return {_short(name): sha for name, sha in _files_behind(things).items()}


def _files_behind(things: Iterable[Any]) -> dict[str, str]:
    """Absolute path -> SHA-256."""
    found: dict[str, str] = {}
    waiting = sorted({path for thing in things for path in _files(thing)})
    while waiting:
        path = waiting.pop()
        if str(path) not in found:
            text = path.read_bytes()
            found[str(path)] = sha256(text).hexdigest()
            waiting += [p for p in _imports(str(path), found[str(path)])[0] if str(p) not in found]
    return {name: found[name] for name in sorted(found)}


def _short(name: str) -> str:
    path = Path(name)
    return path.relative_to(catalog.ROOT).as_posix() if path.is_relative_to(catalog.ROOT) else path.name


def _files(thing: Any) -> set[Path]:
    if isinstance(thing, Mapping):
        return set().union(*map(_files, thing.values()))
    if isinstance(thing, list | tuple):
        return set().union(*map(_files, thing))
    if isinstance(thing, ImportPath):
        return {catalog.own_file(thing)}
    if isinstance(thing, Path):
        return {thing.resolve()}
    if not isinstance(thing, Thing):
        return set()
    inner = _files([getattr(thing, name) for name in type(thing).model_fields])
    if isinstance(thing, ModelConfig):
        return {*inner, type(thing).model_path.resolve()}
    module = sys.modules[type(thing).__module__]
    return {*inner, Path(module.__file__ or "").resolve()} if getattr(module, "__file__", None) else inner


@cache
def _imports(name: str, sha: str) -> tuple[tuple[Path, ...], frozenset[str]]:
    """(files of luodi, other top-level packages) that a file imports, anywhere in it."""
    ours: list[Path] = []
    others: set[str] = set()
    for node in ast.walk(ast.parse(Path(name).read_text(encoding="utf-8"))):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for module in modules:
            head, *rest = module.split(".")
            if head != "luodi":
                others.add(head)
            elif rest:
                path = catalog.ROOT.joinpath(*rest)
                ours += [p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()]
    return tuple(ours), frozenset(others)


def libraries_of(files: Mapping[str, str]) -> dict[str, str]:
    """Distribution -> version of every package that these files (absolute path -> SHA-256) import."""
    names = {name for path, sha in files.items() for name in _imports(path, sha)[1]}
    distributions = _distributions()
    found = {d for name in names for d in distributions.get(name, ())}
    return {name: importlib.metadata.version(name) for name in sorted(found)}


@cache
def _distributions() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()
