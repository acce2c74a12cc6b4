"""The labels of a classifier of the transformers library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from luodi.core.errors import LuodiError


def refuse_other_problems(config: Mapping[str, Any], source: str) -> None:
    """Raises LuodiError unless the model says one label of several, in floats."""
    problem = config.get("problem_type") or "single_label_classification"
    if problem != "single_label_classification":
        raise LuodiError(f"{source}: its problem_type is {problem}; a bundle's category is one label of several")
    if config.get("quantization_config"):
        raise LuodiError(f"{source} is quantised already; import the float model and add quantize: to a recipe")


def labels_of(config: Mapping[str, Any], source: str) -> tuple[list[str], list[str]]:
    """(label names in the order of the logits, a note if some were told apart)."""
    given = config.get("id2label")
    if not given:
        raise LuodiError(
            f'{source}: config.json has no id2label, so nobody could read the answers; add "id2label": '
            '{"0": "first label", "1": "second label", ...} in the order of the outputs'
        )
    if len(given) < 2 or sorted(map(int, given)) != list(range(len(given))):
        raise LuodiError(f"{source}: id2label must name the outputs 0, 1, 2..., at least two; got {sorted(given)[:8]}")
    names = [str(given[key]) for key in sorted(given, key=int)]
    twice = {name for name in names if names.count(name) > 1}
    if not twice:
        return names, []
    # ImageNet has two cranes: answers need names that differ.
    apart = [f"{name} ({index})" if name in twice else name for index, name in enumerate(names)]
    return apart, [f"labels that occur twice have their number now: {', '.join(sorted(twice))}"]
