"""A first recipe for a table or a folder of images: reads the columns, says what it saw, and runs as it is."""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml as pyyaml

from luodi.core.atomic import write_text
from luodi.core.errors import LuodiError, nearest
from luodi.core.rows import Rows
from luodi.core.yaml import Dumper
from luodi.data.reading.columns import Column, as_input, as_target, shares, tells
from luodi.data.sources.folder import Folder
from luodi.data.sources.table import Table

SIDES = (28, 32, 48, 64, 96, 128)  # pixels that a first image model works on
LOOKED_AT = 200  # images that size and colour are told from
FEWEST = 20  # rows: below, a split leaves parts of one or two


@dataclass(frozen=True)
class Start:
    """What a recipe is written from."""

    name: str
    source: str  # one line of YAML
    rows: int
    inputs: tuple[Column, ...]
    target: Column
    image: str = ""  # fields of the image input
    widths: str = ""  # of a convolutional network

    @property
    def used(self) -> list[Column]:
        return [column for column in self.inputs if column.kind != "skip"]


def write_recipe(path: Path, target: str, out: Path) -> str:
    """Writes a commented recipe to `out` and returns what it holds in a few words; never overwrites a file."""
    if out.exists():
        raise LuodiError(f"{out} is there already; write elsewhere with --out NAME.yaml, or remove it")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as cache:
        start = of_folder(path, target, Path(cache)) if path.is_dir() else of_table(path, target, Path(cache))
    write_text(out, recipe_text(start))
    skipped = [column.name for column in start.inputs if column.kind == "skip"]
    left = f", {len(skipped)} left out ({', '.join(skipped[:5])}{'...' if len(skipped) > 5 else ''})" if skipped else ""
    return (
        f"{out}: learns {start.target.name!r} ({start.target.kind}) from {len(start.used)} columns{left}, "
        f"{start.rows} rows\nlook at it, then: luodi run {out}"
    )


def of_table(path: Path, target: str, cache: Path) -> Start:
    """What a table's columns seem to be; raises LuodiError for a target that is not there or cannot be learned."""
    rows = Table(path=str(path)).open(cache)
    if target not in rows.columns:
        said = f"no column {target!r}" if target else "say which column to learn: --target NAME"
        raise LuodiError(f"{path}: {said}; {nearest(target, rows.columns)}")
    truths = rows.column(target)
    learned = _learnable(as_target(target, truths), len(rows))
    inputs = tuple(_input(rows, name, truths, learned) for name in rows.columns if name != target)
    if all(column.kind == "skip" for column in inputs):
        reasons = "; ".join(f"{column.name}: {column.remark}" for column in inputs)
        raise LuodiError(f"{path}: no column to learn {target!r} from: {reasons or 'there is no other'}")
    pictures = [column.name for column in inputs if column.kind == "image"]
    image, widths = _look(rows, pictures[0]) if pictures else ("", "")
    source = f"{{table: {_flow({'path': path.as_posix()})}}}"
    return Start(_name(path), source, len(rows), inputs, learned, image, widths)


def _input(rows: Rows, name: str, truths: Sequence[object], target: Column) -> Column:
    cells = rows.column(name)
    found = as_input(name, cells)
    if found.kind == "category" and target.kind == "category" and tells(cells, truths):
        return Column(name, "skip", found.missing, f"says the same as {target.name}: is it known beforehand?")
    return found


def of_folder(path: Path, target: str, cache: Path) -> Start:
    """What a folder of images by class holds."""
    if target not in ("", "label"):
        raise LuodiError(f"{path}: a folder of images has one target, label (the name of the class folder)")
    rows = Folder(path=str(path)).open(cache)
    learned = _learnable(as_target("label", rows.column("label")), len(rows))
    image, widths = _look(rows, "image")
    source = f"{{folder: {_flow({'path': path.as_posix()})}}}"
    return Start(_name(path), source, len(rows), (Column("image", "image"),), learned, image, widths)


def _learnable(target: Column, rows: int) -> Column:
    if target.kind == "skip":
        raise LuodiError(f"column {target.name!r} cannot be learned: {target.remark}")
    if target.missing:
        raise LuodiError(f"column {target.name!r} is empty in {target.missing} of {rows} rows: remove those rows first")
    if rows < FEWEST:
        raise LuodiError(f"{rows} rows are too few to train, validate and test on: at least {FEWEST}")
    return target


def _look(rows: Rows, column: str) -> tuple[str, str]:
    """Fields of the image input and widths of the network, from some of the images."""
    from PIL import Image

    chosen = rows.take(np.unique(np.linspace(0, len(rows) - 1, LOOKED_AT).astype(int)))
    sides, gray = [], True
    for cell in chosen.column(column):
        with Image.open(io.BytesIO(cell)) as image:
            sides.append(min(image.size))
            gray = gray and _is_gray(image.convert("RGBA"))
    middle = float(np.median(sides))
    side = min(SIDES, key=lambda one: (abs(one - middle), one))
    widths = "[32, 64]" if side <= 32 else "[32, 64, 128]" if side <= 64 else "[32, 64, 128, 128]"
    return f"{{size: {side}, channels: {1 if gray else 3}}}", widths


def _is_gray(image: object) -> bool:
    pixels = np.asarray(image)
    return bool((pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 1] == pixels[..., 2]).all())


def recipe_text(start: Start) -> str:
    """The recipe, with what was seen as comments."""
    target = start.target
    metric = "accuracy" if target.kind == "category" else "r2"
    seen = f"{len(target.counts)} labels: {shares(target.counts)}" if target.counts else "a number"
    model = f"{{convnet: {{widths: {start.widths}}}}}" if start.widths else "{mlp: {hidden: [64, 32]}}"
    epochs = max(5, min(60, 60_000 // start.rows))  # about as many updates whatever the size
    lines = [
        f"# {start.rows} rows. Change what you like: `luodi show NAME` tells the fields of anything named here,",
        "# `luodi plan` checks the recipe, `luodi run --rehearse` tries all of it on 64 rows.",
        f"name: {_word(start.name)}",
        "task:",
        "  supervised:",
        "    inputs:",
        *(_line(column, start.image) for column in start.inputs),
        "    targets:",
        f"      {_word(target.name)}: {target.kind}  # {_comment(seen)}",
        f"data: {start.source}",
        f"model: {model}",
        "steps:",
        f"  - split: {{validation: {0.1 if start.rows >= 200 else 0.2}, test: 0.2}}  # by a hash of each row",
        f"  - train: {{epochs: {epochs}, patience: {max(3, epochs // 6)}}}  # stops when validation gets no better",
        "  - prune: {sparsity: 0.5}  # half of the weights become zero",
        "  - quantize: {weights: int8}",
        "  - export: {to: onnx}",
        "# Limits that the last bundle must keep to (exit code 3 if it does not):",
        f"# limits: {{p50_ms: 5, size_mb: 1, drop: {{{metric}: 0.01}}}}",
    ]
    return "\n".join(lines) + "\n"


def _line(column: Column, image: str) -> str:
    name = _word(column.name)
    gaps = f"{column.missing} cells are missing" if column.missing else ""
    remark = _comment("; ".join(part for part in (column.remark, gaps) if part))
    if column.kind == "skip":
        return f"      # {name}: left out: {remark}"
    if column.kind == "image":
        field = f"{{image: {image}}}"
    elif column.kind == "category":
        field = "{category: {unseen: other}}"  # a rare label may occur in the held-out rows alone
    else:
        field = "{number: {missing: mean}}" if column.missing else "number"
    return f"      {name}: {field}" + (f"  # {remark}" if remark else "")


def _comment(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029]+", " ", text)


def _flow(value: object) -> str:
    """YAML on one line, quoted wherever it would be read as something else."""
    text = pyyaml.dump(value, Dumper=Dumper, default_flow_style=True, allow_unicode=True, width=1 << 20)
    return text.strip().removesuffix("...").strip()


def _word(text: str) -> str:
    """A key or a name on one line; a list makes the dumper quote it for every place."""
    return _flow([text])[1:-1]


def _name(path: Path) -> str:
    return re.sub(r"[^\w.-]+", "_", path.resolve().stem).strip("_.-") or "recipe"
