"""`luodi predict`: files, folders, JSON Lines and standard input, answered in batches, one JSON line an answer."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from luodi.core.bundle import Bundle
from luodi.core.errors import BadRequest, LuodiError
from luodi.core.flow import MOST
from luodi.core.predictor import Predictor

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
TABLES = (".csv", ".tsv", ".parquet", ".json")

Named = tuple[str, Any]  # where a request comes from, the request on the wire


def predict_inputs(
    bundle: Path, inputs: list[str], texts: list[str], form: str, trust: tuple[str, ...], threads: int
) -> int:
    """Prints one line an answer, in order; what cannot be read is told on standard error. 2 if anything was."""
    if not (inputs or texts):
        raise LuodiError(
            'nothing to answer: give files, folders, `-` for JSON Lines on standard input, or --text "..."'
        )
    opened = Bundle.load(bundle, form=form, trust=trust)
    predictor = opened.predictor(None if form == "serving" else form, threads=threads)
    bad = 0
    image, text = (_only_input(opened, kind) for kind in ("image", "tokens"))
    requests = chain(wires(inputs, image, text), _typed(texts, text))
    while batch := list(islice(requests, MOST)):
        bad += _answer(predictor, batch)
    if bad:
        print(f"luodi: {bad} of the inputs could not be read", file=sys.stderr)
    return 2 if bad else 0


def _answer(predictor: Predictor, batch: list[Named]) -> int:
    good: list[Named] = []
    for where, wire in batch:
        try:
            good.append((where, predictor.task.read(wire)))
        except BadRequest as error:
            print(f"luodi: {where}: {error}", file=sys.stderr)
    for (where, _), answer in zip(good, predictor([request for _, request in good]), strict=True):
        print(json.dumps({"input": where, **answer}, ensure_ascii=False))
    return len(batch) - len(good)


def _only_input(bundle: Bundle, kind: str) -> str | None:
    """The input that a picture (kind image) or a bare text (kind tokens) stands for: the only one, if it is of that
    kind."""
    needed = bundle.task.wire_schema()["request"].get("required")
    specs = {
        name: spec
        for name, spec in bundle.task.inputs_specs().items()
        if spec.kind != "mask" and (needed is None or name in needed)
    }
    found = [name for name, spec in specs.items() if spec.kind == kind]
    return found[0] if len(specs) == 1 and found else None


def wires(inputs: list[str], image: str | None, text: str | None) -> Iterator[Named]:
    """Requests on the wire, each with the place it comes from."""
    for name in inputs:
        path = Path(name)
        if name == "-":
            yield from _lines("line", sys.stdin)
        elif path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGES and p.is_file())
            if not found:
                raise LuodiError(f"{path} holds no images ({', '.join(IMAGES)})")
            for file in found:
                yield _picture(file, image)
        elif not path.is_file():
            hint = "; to ask about these words themselves: --text" if text else ""
            raise LuodiError(f"no file or folder {path}; `-` reads JSON Lines from standard input{hint}")
        elif path.suffix.lower() == ".txt":
            yield from _text_lines(path, text)
        elif path.suffix.lower() in IMAGES:
            yield _picture(path, image)
        elif path.suffix.lower() in TABLES:
            yield from _table(path)
        elif path.suffix.lower() in (".jsonl", ".ndjson"):
            with path.open(encoding="utf-8") as stream:
                yield from _lines(f"{path} line", stream)
        else:
            raise LuodiError(
                f"{path}: expected an image ({', '.join(IMAGES)}) , rows ({', '.join(TABLES)}, .jsonl) or .txt"
            )


def _picture(path: Path, image: str | None) -> Named:
    if image is None:
        raise LuodiError(f"{path} is a picture, but this bundle needs more than one image: give it rows (.jsonl, .csv)")
    return str(path), {image: path.read_bytes()}


def _text_lines(path: Path, text: str | None) -> Iterator[Named]:
    """One text a line; empty lines are left out."""
    if text is None:
        raise LuodiError(f"{path} holds texts, but this bundle needs more than one text: give it rows (.jsonl, .csv)")
    with path.open(encoding="utf-8-sig") as stream:
        try:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield f"{path} line {number}", {text: line.rstrip("\r\n")}
        except UnicodeDecodeError as error:
            raise LuodiError(f"{path} is not UTF-8 ({error.reason}): save it as UTF-8") from error


def _typed(texts: list[str], text: str | None) -> Iterator[Named]:
    if texts and text is None:
        raise LuodiError("--text is for a bundle whose only input is a text: give this one rows (.jsonl, .csv)")
    yield from ((f"text {number}", {text: one}) for number, one in enumerate(texts, 1))


def _lines(where: str, stream: Any) -> Iterator[Named]:
    for number, line in enumerate(stream, 1):
        if line.strip():
            try:
                yield f"{where} {number}", json.loads(line)
            except ValueError as error:
                raise LuodiError(f"{where} {number} is not JSON: {error}") from error


def _table(path: Path) -> Iterator[Named]:
    from luodi.data.sources.table import Table

    with TemporaryDirectory(prefix="luodi-predict-") as cache:
        for number, row in enumerate(Table(path=str(path)).open(Path(cache)), 1):
            yield f"{path} row {number}", row
