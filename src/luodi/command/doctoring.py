"""`luodi doctor`: what holds a training back, what to change, and what that gave when it was tried."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from luodi.core.child import ChildDied, Nursery
from luodi.core.errors import LuodiError
from luodi.core.recipe import Recipe


def doctor_recipe(
    path: Path, settings: Sequence[str], cache: Path, trust: tuple[str, ...], seconds: float, *, json: bool
) -> int:
    """Prints the diagnosis of a recipe's first training; nothing is written. Raises LuodiError for wrong recipes."""
    if not 0.1 <= seconds <= 600:
        raise LuodiError(f"doctor: --seconds is between 0.1 and 600, got {seconds:g}")
    Recipe.read(path, settings)  # its mistakes are told here
    with Nursery(("torch", "luodi.doctor.probe")) as nursery:
        try:
            found = nursery.call(
                "luodi.doctor.probe:examine", recipe=str(path.resolve()), settings=list(settings), cache=str(cache),
                trust=list(trust), seconds=seconds,
            )  # fmt: skip
        except ChildDied as error:
            raise LuodiError(
                f"device memory: the probe was ended by the system ({error}); take a smaller batch_size or model"
            ) from error
    print(jsonlib.dumps(found, ensure_ascii=False, indent=1) if json else _text(path, found))
    return 0


def _text(path: Path, found: dict[str, Any]) -> str:
    from luodi.doctor.trials import Trial, advice

    reading, tried = found["reading"], [Trial(**one) for one in found["trials"]]
    share = ", ".join(f"{name} {part:.0%}" for name, part in reading["shares"].items())
    lines = [
        f"{path}: held back by {found['bottleneck']}",
        f"  {found['words']}",
        "",
        f"  time      {share}",
        f"  speed     {reading['rate']:,.0f} examples a second, {reading['updates']} updates in "
        f"{reading['seconds']:.1f} s, {reading['processor']:.1f} cores busy",
        f"  memory    {reading['peak_mb']:,.0f} MB at its peak, {found['parameters']:,} parameters",
    ]
    if found["flops_per_second"]:
        reached, most = found["flops_per_second"] / 1e9, found["flops_reachable"] / 1e9
        lines.append(f"  work      {reached:.1f} GFLOP/s of the {most:.0f} that a large matrix product reaches here")
    lines += ["", "tried:" if tried else "nothing to try for this bottleneck"]
    for one in tried:
        gain = f"{one.gain:.2f}x [{one.low:.2f}, {one.high:.2f}]" if one.gain is not None else "-"
        lines.append(f"  {one.change:<24} {gain:<20} {one.note}".rstrip())
    return "\n".join([*lines, "", advice(tried)])
