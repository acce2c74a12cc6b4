"""What the text samples' package files hold, as Arrow tables."""

from __future__ import annotations

import bz2
import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import PurePosixPath

import pyarrow as pa

from luodi.data.samples.package import Sample

ROMAN = ("I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII", "XIII", "XIV", "XV")
ORDINAL = ("FIRST", "SECOND", "THIRD", "FOURTH", "FIFTH")
ACT = re.compile(r"(?:ACT|Act) (FIRST|SECOND|THIRD|FOURTH|FIFTH|[IVX]+|\d+)\b\.?(?: SCENE ([IVX]+|\d+)\b.*)?$")
SCENE = re.compile(r"(?:SCENE|Scene) ([IVX]+|\d+)\b")
APART = re.compile(r"(?:THE )?(PROLOGUE|EPILOGUE|INDUCTION)\.?")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")  # fortunes are shown on a terminal


def in_columns(sample: Sample, rows: Iterable[Sequence[str]]) -> pa.Table:
    """Rows of texts as the sample's columns."""
    cells = zip(*rows, strict=True)
    return pa.table({name: pa.array(cell, pa.string()) for name, cell in zip(sample.columns, cells, strict=True)})


def reviews(sample: Sample, files: Mapping[str, bytes]) -> pa.Table:
    """A file a label, a review a line; empty lines are none."""
    cells = [[line.strip() for line in file.decode().split("\n") if line.strip()] for file in files.values()]
    labels = [label for label, lines in zip(sample.labels, cells, strict=True) for _ in lines]
    return in_columns(sample, zip(chain.from_iterable(cells), labels, strict=True))


def rotten(sample: Sample, files: Mapping[str, bytes]) -> pa.Table:
    """The columns text, movie and label; the films' plots, a third kind of text in the file, are left out."""
    (file,) = files.values()
    lines = csv.DictReader(io.StringIO(bz2.decompress(file).decode()))
    rows = [(line["text"], line["movie_name"], line["category"]) for line in lines]
    return in_columns(sample, [row for row in rows if row[-1] in sample.labels])


def tabbed(sample: Sample, files: Mapping[str, bytes]) -> pa.Table:
    """The columns text, part and label of Orange's tables: four lines of head, then label and text."""
    rows = []
    for path in sample.members:
        part = PurePosixPath(path).stem.rpartition("-")[2]
        lines = files[path].decode().split("\n")[4:]
        for label, _, text in (line.partition("\t") for line in lines if line):
            rows.append((text.strip(), part, label))
    return in_columns(sample, rows)


def scenes(sample: Sample, files: Mapping[str, bytes]) -> pa.Table:
    """The columns play, scene and text, in their order, without titles and lists of persons. Poems have no acts."""
    rows = []
    for path in sorted(files):
        lines = [line.rstrip() for line in files[path].decode("ascii").split("\n")]
        if any(ACT.match(line) for line in lines):
            rows += [(_title(lines), scene, text) for scene, text in _scenes(lines)]
    return in_columns(sample, rows)


def _title(lines: Sequence[str]) -> str:
    """`THE HISTORY OF KING HENRY VI` -> `The History of King Henry VI`."""
    first, *words = lines[0].split()
    return " ".join([first.capitalize(), *(_word(word) for word in words)])


def _word(word: str) -> str:
    if re.fullmatch(r"[IVX]+,?", word):
        return word
    return word.lower() if word in ("AND", "AS", "FOR", "OF", "OR,", "THE") else word.capitalize()


def _scenes(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Name and text of each, headings included. What an act has before its first scene belongs to that scene."""
    name: list[str] = []
    held: list[str] = []
    for line in lines:
        found = _heads(line, name)
        if found is not None and name != found[:-1]:  # else the act is open, and this is its first scene
            if name:
                yield ", ".join(name), "\n".join(held).strip("\n")
            held = []
        name = name if found is None else found
        if name:
            held.append(line)
    yield ", ".join(name), "\n".join(held).strip("\n")


def _heads(line: str, name: Sequence[str]) -> list[str] | None:
    """What the line begins, e.g. ["Act 2", "Scene 1"] or ["Act 2"]; None if it is no heading. `name`: where we are."""
    if apart := APART.fullmatch(line):
        act = name if len(name) == 1 else []
        if apart[1] == "PROLOGUE" and len(name) > 1:  # a person of the play within a play
            return None
        return [*(act if apart[1] == "PROLOGUE" else []), apart[1].capitalize()]
    if act := ACT.match(line):
        scene = [f"Scene {_number(act[2])}"] if act[2] else []
        return [f"Act {_number(act[1])}", *scene]
    if scene := SCENE.match(line):
        return [*name[:1], f"Scene {_number(scene[1])}"]
    return None


def _number(word: str) -> int:
    """`IV`, `4` or `FOURTH`."""
    if word.isdigit():
        return int(word)
    return (ROMAN if word in ROMAN else ORDINAL).index(word) + 1


def poems(sample: Sample, files: Mapping[str, bytes]) -> pa.Table:
    """The columns title, author and text of fortunes: `《title》`, `作者：author`, lines, and `%` between poems."""
    (file,) = files.values()
    rows = []
    for poem in COLOUR.sub("", file.decode()).split("\n%\n"):
        if poem.strip():
            title, author, *lines = poem.strip().split("\n")
            rows.append((title.strip("《》"), author.removeprefix("作者："), "\n".join(lines)))
    return in_columns(sample, rows)


def tagged(sample: Sample, files: Mapping[str, bytes]) -> pa.Table:
    """The columns text, words and tags of lines of `word/tag`; words and tags are parted by one space."""
    (file,) = files.values()
    rows = []
    for line in file.decode().split("\n"):
        if line.strip():
            pairs = [pair.rpartition("/") for pair in line.split()]
            words, tags = [word for word, _, _ in pairs], [tag for _, _, tag in pairs]
            rows.append(("".join(words), " ".join(words), " ".join(tags)))
    return in_columns(sample, rows)
