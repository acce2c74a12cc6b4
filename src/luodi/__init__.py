"""luodi takes a large model from the lab to production: a bundle goes through steps, and every step is measured."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Bundle": "luodi.core.bundle",
    "Recipe": "luodi.core.recipe",
    "Run": "luodi.core.run",
    "Rows": "luodi.core.rows",
    "Step": "luodi.core.step",
    "Task": "luodi.core.task",
    "Field": "luodi.core.field",
    "Target": "luodi.core.field",
    "Predictor": "luodi.core.predictor",
    "apply": "luodi.core.engine",
    "run": "luodi.core.engine",
}


def __getattr__(name: str) -> Any:
    """Names are imported when they are first used, so that the command line stays quick."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'luodi' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*_HOMES, "__version__"])
