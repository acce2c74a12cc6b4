"""Golden requests replayed: preprocessing equal, outputs within the stated tolerance, answers equal. Fails closed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from luodi.core import catalog
from luodi.core.bundle import Bundle, Golden
from luodi.core.errors import ParityError
from luodi.core.form import TOLERANCE
from luodi.core.spec import Arrays

if TYPE_CHECKING:
    from luodi.core.task import Task

COUNT = 16  # golden requests of a bundle


def drift(got: Arrays, wanted: Arrays) -> float:
    """The largest absolute difference of any output over the largest absolute wanted output; inf if names, shapes
    or finiteness differ."""
    if got.keys() != wanted.keys():
        return float("inf")
    worst = 0.0
    for name, want in wanted.items():
        have = np.asarray(got[name])
        if have.shape != want.shape or not np.isfinite(have).all():
            return float("inf")
        scale = max(float(np.abs(want).max(initial=0.0)), 1e-12)
        worst = max(worst, float(np.abs(have.astype(np.float64) - want).max(initial=0.0)) / scale)
    return worst


def torch_tolerance(bundle: Bundle) -> float:
    """fp32's, or bf16's if a layer says that it computes in int8: its rounding may flip on another processor."""
    assert bundle.model is not None
    kinds = {getattr(module, "arithmetic", "float32") for module in bundle.model.modules()}
    return TOLERANCE["float32"] if kinds == {"float32"} else TOLERANCE["bfloat16"]


def record(bundle: Bundle) -> Bundle:
    """The bundle with golden requests, made from a fixed seed, and what every form and the served one answer."""
    wires = [json.loads(json.dumps(bundle.task.write(r))) for r in bundle.task.examples(COUNT, seed=0)]
    arrays = bundle.task.encode([bundle.task.read(wire) for wire in wires])
    names = [*(["torch"] if bundle.model is not None else []), *bundle.forms]
    outputs = {name: dict(bundle.task.kept(bundle.predictor(name).forward(arrays))) for name in names}
    for name, form_outputs in outputs.items():
        broken = [key for key, array in form_outputs.items() if not np.isfinite(array).all()]
        if broken:
            raise ParityError(f"the {name} form answers golden requests with NaN or infinity in {broken}")
    answers = tuple(json.loads(json.dumps(list(bundle.task.decode(outputs[bundle.serving])))))
    return replace(bundle, golden=Golden(tuple(wires), arrays, outputs, answers))


def replayable(bundle: Bundle) -> tuple[str, ...]:
    """torch, the serving form, and every other form whose runtime is installed: the next step records them all anew."""

    def here(name: str) -> bool:
        runtime: Any = catalog.resolve("runtimes", bundle.forms[name].kind)
        return name == bundle.serving or not runtime.library or not catalog.missing({runtime.library: name})

    return ("torch", *filter(here, bundle.forms))


def check(bundle: Bundle, forms: tuple[str, ...], where: str) -> None:
    """Replays the golden requests through these forms; raises ParityError with what differs, and by how much."""
    golden = bundle.golden
    assert golden is not None
    arrays = bundle.task.encode([bundle.task.read(wire) for wire in golden.requests])
    _same_arrays(arrays, golden.arrays, where)
    for name in forms:
        if name == "torch" and bundle.model is None:
            continue
        if name not in golden.outputs:
            raise ParityError(f"{where}: there are no golden outputs of the form {name!r}")
        tolerance = torch_tolerance(bundle) if name == "torch" else bundle.forms[name].tolerance
        found = drift(bundle.task.kept(bundle.predictor(name).forward(arrays)), golden.outputs[name])
        if not found <= tolerance:
            raise ParityError(
                f"{where}: the {name} form drifts by {found:.2g} from its golden outputs (allowed {tolerance:.2g}); "
                "it does not answer as it did when it was made"
            )
    _same_answers(bundle.task, golden, bundle.serving, where)


def _same_arrays(got: Arrays, wanted: Arrays, where: str) -> None:
    for name, want in wanted.items():
        have = got.get(name)
        if have is None or have.shape != want.shape or have.dtype != want.dtype or not np.array_equal(have, want):
            size = "another shape or type"
            if have is not None and have.shape == want.shape:
                size = f"a difference of up to {float(np.abs(have.astype(np.float64) - want).max(initial=0.0)):.2g}"
            raise ParityError(f"{where}: preprocessing gives other arrays for input {name!r} than golden ones ({size})")


def _same_answers(task: Task, golden: Golden, serving: str, where: str) -> None:
    """Answers are decoded from the golden outputs, so a near tie on another processor cannot flip one."""
    got = json.loads(json.dumps(list(task.decode(golden.outputs[serving]))))
    for index, (have, want) in enumerate(zip(got, golden.answers, strict=True)):
        if not _close(have, want):
            raise ParityError(f"{where}: golden request {index} is answered {_short(have)} instead of {_short(want)}")


def _close(have: Any, want: Any) -> bool:
    if isinstance(want, dict):
        # The order counts: the names of labels are the columns of the output.
        return isinstance(have, dict) and list(have) == list(want) and all(_close(have[k], want[k]) for k in want)
    if isinstance(want, list):
        return isinstance(have, list) and len(have) == len(want) and all(map(_close, have, want))
    if isinstance(want, float) and isinstance(have, float):
        return abs(have - want) <= 1e-6 * max(1.0, abs(want))
    return have == want


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 160 else text[:157] + "..."
