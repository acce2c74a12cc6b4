"""Questions about entries of a dictionary, whose answers are found in the entries by rule, as an Arrow table.

A rule finds one relation (who made it, where, when, out of what...) by the words around its answer, and asks for it in
other words than these. Of 100 rows drawn at random 99 were right when they were read, after the rules had been mended
on another 100 (docs/cookbook/answers.md).
"""

from __future__ import annotations

import gzip
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from hashlib import sha256

import pyarrow as pa

from luodi.data.samples.asking.relations import RELATIONS
from luodi.data.samples.package import Sample

SHORTEST, LONGEST = 100, 4000  # characters of an entry
MOST = 160  # rows of one relation: of some there are very many

LINK = re.compile(r"\{?\s*\(?(?:https?|ftp|news|mailto):[^\s)}]*\)?\s*\}?|<[^<>\s]+@[^<>\s]+>|\[[^\[\]]*\?\]")
DATE = re.compile(r"\(\d{4}-\d\d-\d\d\)\s*$")
KIND = re.compile(r"<([^<>]*)> ?")
SAID = re.compile(r"/[^/]+/(?:(?:,| or) /[^/]+/)* ?")  # how it is pronounced
SENSES = re.compile(r"\b[12]\. ")
STOP = re.compile(r"[.;](?= [A-Z\[(\"])")
NO_STOP = re.compile(r"(?:\b(?:vs|St|Dr|cf|Inc|Corp|Ltd|Co|al|e\.g|i\.e|ca|c|Univ|U)|(?<!\b(?:of|in|to) )\b[A-Z])$")

OTHERS = re.compile(r"(?: (?:of|at|from|in) [^.;]{0,60}?|, [A-Z][^;]{0,80}?)? (?:and|&) ")  # there are more of them


def dictionary_questions(sample: Sample, files: Mapping[str, bytes]) -> pa.Table:
    """The columns entry, relation, question, context, answer and start (a character of the context)."""
    (file,) = files.values()
    found: list[tuple[str, str, str, str, str, int]] = []
    for name, text in entries(gzip.decompress(file).decode()):
        found += questions_on(name, text)
    # Of a relation with too many rows those with the smallest hashes: which ones does not depend on the others.
    counts: Counter[str] = Counter()
    kept = set()
    for row in sorted(found, key=lambda row: sha256(repr(row[:2]).encode()).digest()):
        counts[row[1]] += 1
        if counts[row[1]] <= MOST:
            kept.add(row)
    cells = list(zip(*[row for row in found if row in kept], strict=True))
    columns = [pa.array(cell, pa.int64() if name == "start" else pa.string())
               for name, cell in zip(sample.columns, cells, strict=True)]  # fmt: skip
    return pa.table(columns, names=list(sample.columns))


def entries(text: str) -> Iterator[tuple[str, str]]:
    """First name and text of each entry: names begin a line, with empty lines around them, the text is indented."""
    name, body = "", list[str]()
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        if lines[at][:1].strip() and not lines[at - 1].strip():
            end = next((one for one in range(at, len(lines)) if not lines[one][:1].strip()), len(lines))
            if end == len(lines) or not lines[end].strip():
                if name:
                    yield name, cleaned("\n".join(body))
                name, body, at = lines[at].split("%%%")[0].strip(), [], end
                continue
        body.append(lines[at])
        at += 1
    if name:
        yield name, cleaned("\n".join(body))


def cleaned(body: str) -> str:
    """An entry's text in one line, without links, dates of change, the field it is of, and pronunciation."""
    text = re.sub(r"\s+", " ", DATE.sub("", LINK.sub("", body).rstrip())).strip()
    text = re.sub(r" (?=[,.;)])", "", text.replace("{", "").replace("}", ""))
    for head in (KIND, SAID):
        found = head.match(text)
        text = text[found.end() :] if found else text
    return text.strip()


def first_sentence(text: str) -> str:
    """Up to its full stop, or to a semicolon; stops behind initials and shortened words end none."""
    for found in STOP.finditer(text):
        if found[0] == ";" or not NO_STOP.search(text[: found.start()]):
            return text[: found.end()]
    return text


def questions_on(name: str, text: str) -> Iterator[tuple[str, str, str, str, str, int]]:
    """The rows of one entry: entry, relation, question, context, answer and start."""
    if not SHORTEST <= len(text) <= LONGEST or SENSES.match(text) or not re.search(r"[A-Za-z]", name):
        return
    head = first_sentence(text)
    context = f"{name}: {text}"
    for relation in RELATIONS:
        found = relation.pattern.search(head if relation.beginning else text)
        if found is None or (relation.alone and OTHERS.match(head, found.end(1))):
            continue
        answer = found[1].removesuffix(",")
        if _fits(relation.name, name, answer):
            dice = int.from_bytes(sha256(f"{name}\0{relation.name}".encode()).digest()[:4], "big")
            question = relation.asked[dice % len(relation.asked)].format(name)
            yield name, relation.name, question, context, answer, len(name) + 2 + found.start(1)


def _fits(relation: str, name: str, answer: str) -> bool:
    """Whether the answer can be one: no part of the question, letters of the right words."""
    if answer.lower() in name.lower() or len(answer) < 2:
        return relation == "model" and answer in ("B", "C", "S")  # languages
    if relation in ("short", "full"):
        return _shortens(*((answer, name) if relation == "short" else (name, answer)))
    return True


def _shortens(short: str, whole: str) -> bool:
    """Whether each letter begins a word of the whole, or goes on in one, in order; the first ones begin both."""
    letters = [one for one in short.lower() if one.isalnum()]
    if len(letters) < 2 or sum(one.isupper() for one in short) < 2 or " " in short or " " not in whole.strip():
        return False
    rest = whole.lower()
    if not rest.startswith(letters[0]):
        return False
    for letter in letters:
        at = rest.find(letter)
        if at < 0:
            return False
        rest = rest[at + 1 :]
    return True
