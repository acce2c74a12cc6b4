"""`luodi import`: a model made elsewhere becomes a bundle."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path

from luodi.core.errors import LuodiError


def import_source(
    source: str, out: Path, weights: Path | None, task: Path | None, arguments: str, *, json: bool
) -> str:
    """Imports a transformers folder or hub name, or a PyTorch class with its state dict; says what parity was found."""
    if ":" in source:
        from luodi.adopt.torch_module import adopt as adopt_module
        from luodi.core import yaml

        if weights is None or task is None:
            raise LuodiError(f"{source} is a PyTorch class: give its state dict (--weights) and its task (--task)")
        try:
            given = jsonlib.loads(arguments)
        except ValueError as error:
            raise LuodiError(f"--arguments is not JSON: {error}") from error
        try:
            text = task.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise LuodiError(f"cannot read the task {task}: {error}") from error
        said = yaml.parse(text, str(task))
        report = adopt_module(source, weights, given, said, out)
    else:
        from luodi.adopt.transformers_folder import adopt as adopt_folder

        report = adopt_folder(source, out)
    if json:
        return jsonlib.dumps(report, default=str)
    return "\n".join(f"{name:<18} {value}" for name, value in report.items())
