"""Questions about entries of a dictionary, whose answers are found in the entries by rule, as an Arrow table.

A rule finds one relation (who made it, where, when, out of what...) by the words around its answer, and asks for it in
other words than these. Of 100 rows drawn at random 99 were right when they were read, after the rules had been mended on
another 100 (docs/cookbook/answers.md).
"""

from __future__ import annotations

import gzip
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256

import pyarrow as pa

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

THING = r"[A-Z0-9][\w'/+#*-]*(?:\.\d[\w-]*)*(?: [A-Z0-9][\w'/+#*-]*(?:\.\d[\w-]*)*)*"
WORD = r"(?:[A-Z]\.(?:-?[A-Z]\.)*|(?![A-Z]\. )[A-Z0-9][\w'/+-]*(?:\.\d[\w-]*)*)"
OFFICE = r"(?:University|Institute|Department|Ministry|School|Laboratory|Bank|College|Center|Centre|Bureau) (?:of|for)"
ONE = (
    rf"(?=[A-Z])(?:{OFFICE} (?:the )?)?{WORD}(?:,? (?:(?:de|van|von|der|den|la|le|du) )?(?:{OFFICE} (?:the )?)?{WORD})*?"
    r"(?:,? (?:Inc|Corp|Ltd|Co)\b\.?)?"
)
MANY = rf"({ONE}(?:,? (?:and|&) {ONE})?(?: et al\b\.?)?)"
END = (
    r"(?=[.,;:)(]| (?:at|in|of|for|to|from|as|on|with|which|who|and|that|based|is|was|by|during|between|while|using|"
    r"around|about|circa|ca|c|under|then|but|when|now|running|since|or|the)\b| <| \[|$)"
)
YEAR = r"((?:19|20)\d\d)\b"
MADE = "designed|developed|written|created|invented|implemented|devised|built|conceived|originated"
PLAIN = r"(?:(?!\b(?:which|that|who|when|where|while|using|used|based|brought|by)\b)[^.;()])"  # no other clause
OTHERS = re.compile(r"(?: (?:of|at|from|in) [^.;]{0,60}?|, [A-Z][^;]{0,80}?)? (?:and|&) ")  # there are more of them


@dataclass(frozen=True)
class Rule:
    """A relation: where its answer stands (the first group), and ways to ask for it ({} is the entry's name)."""

    name: str
    found: re.Pattern[str]
    asked: tuple[str, ...]
    beginning: bool = True  # only the first sentence is about the thing itself


RULES = (
    Rule("maker", re.compile(rf"(?<!those )\b(?:{MADE}|proposed|introduced) (?:[a-z]+ )?by (?:the )?{MANY}{END}"),
         ("Who came up with {}?", "Who is behind {}?", "Who made {}?")),
    Rule("place", re.compile(rf"\b(?:{MADE}|founded)\b[^.;()]{{0,60}}? (?:at|(?<!top )(?<!part )of) (?:the )?({ONE}){END}"),
         ("Where was {} made?", "At which place did {} come into being?")),
    Rule("year", re.compile(rf"(?<!\) )(?<!which )(?<!that )(?<!who )\b(?:{MADE}|introduced|produced)\b{PLAIN}{{0,20}}?(?:by{PLAIN}{{0,60}}?)? (?:in|around) "
                            rf"(?:early |late |about |[A-Z][a-z]+ )?{YEAR}"),
         ("When was {} made?", "From which year is {}?")),
    Rule("start", re.compile(rf"(?<!which )(?<!that )(?<!who )\b(?:founded|formed|established|incorporated|started)\b{PLAIN}{{0,40}}? in "
                             rf"(?:early |late |about |[A-Z][a-z]+ )?{YEAR}"),
         ("When did {} begin?", "Since which year has {} existed?")),
    Rule("release", re.compile(rf"\b(?:released|launched|announced|shipped|published)\b{PLAIN}{{0,30}}? in "
                               rf"(?:early |late |about |[A-Z][a-z]+ )?{YEAR}"),
         ("When did {} come out?", "In what year did {} appear?")),
    Rule("model", re.compile(rf"^[^.;:()]{{0,40}}?\b(?:successor (?:to|of)|derived from|based on|descended from|derivative "
                             rf"of|(?:dialect|extension|superset|subset|variant|descendant|offshoot) (?:of|to)) "
                             rf"(?:the )?({THING}){END}"),
         ("What does {} build upon?", "What did {} grow out of?", "Which older thing is {} akin to?")),
    Rule("kind", re.compile(rf"^[^.;:()]{{0,40}}?\b(?:version|implementation|clone|port|revision) of (?:the )?({THING}){END}"),
         ("What is {} a form of?", "Of what is {} another edition?")),
    Rule("short", re.compile(r"^\(([A-Z][A-Za-z0-9/+-]{1,9})\)"),
         ("What is {} called for short?", "How is {} abbreviated?")),
    Rule("full", re.compile(r"^\(([A-Za-z](?:[A-Za-z0-9' /]|\b-\b){5,60})\)"),
         ("What does {} stand for?", "What is the full name of {}?")),
    Rule("language", re.compile(rf"(?<!s )\b(?:written|implemented|coded) (?:entirely |mostly |largely )?in (?=[A-Z])({THING}){END}"),
         ("What was {} programmed in?", "In which language is the source of {}?")),
    Rule("owner", re.compile(rf"(?<!s )\b(?:sold|marketed|manufactured|distributed|supplied|owned|offered) by (?:the )?{MANY}{END}"),
         ("Which company has {} as its product?", "Whose product is {}?")),
    Rule("origin", re.compile(rf"^(?:An?|The|One of the) [^.,;:()]{{3,60}}?(?<!derived)(?<!descended)(?<!different)(?<!ing) from "
                              rf"(?:the )?({ONE}){END}"),
         ("Who offers {}?", "Where does {} come from?")),
    Rule("seat", re.compile(rf"\b(?:based|headquartered|located) in (?:the )?({ONE}(?:, {ONE})?){END}"),
         ("In what place is {}?", "Where is the seat of {}?")),
    Rule("named", re.compile(rf"(?:^[^.;:]{{0,160}}?\b|\. )[Nn]amed after (?:the )?({ONE})(?!, [A-Z]){END}"),
         ("To whom or what does {} owe its name?", "Where is the name of {} from?"), beginning=False),
    Rule("older", re.compile(rf"^[^.;]{{0,200}}?\b(?:formerly|originally|previously) (?:known as|called|named) \"?({ONE})"
                             rf"\"?{END}"),
         ("What was the earlier name of {}?", "Under what name did {} start?"), beginning=False),
    Rule("standard", re.compile(r"(?:^[^.;]{0,160}|\. (?:It|[A-Z][A-Z-]+s?)(?: [^.;]{0,60})? (?:is|are|was) (?:[a-z]+ )?)"
                                r"\b(?:defined|described|specified|documented) (?:in|by) (RFC \d+)"),
         ("Which document says what {} is?", "Where can one read how {} works?"), beginning=False),
)  # fmt: skip


def dictionary_questions(sample: Sample, files: Mapping[str, bytes]) -> pa.Table:
    """The columns entry, relation, question, context, answer and start (a character of the context)."""
    (file,) = files.values()
    found: list[tuple[str, str, str, str, str, int]] = []
    for name, text in entries(gzip.decompress(file).decode()):
        found += _rows(name, text)
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


def _rows(name: str, text: str) -> Iterator[tuple[str, str, str, str, str, int]]:
    if not SHORTEST <= len(text) <= LONGEST or SENSES.match(text) or not re.search(r"[A-Za-z]", name):
        return
    head = first_sentence(text)
    context = f"{name}: {text}"
    for rule in RULES:
        found = rule.found.search(head if rule.beginning else text)
        if found is None:
            continue
        answer = found[1].removesuffix(",")
        if rule.name in ("maker", "owner", "language", "older") and OTHERS.match(head, found.end(1)):
            continue
        if _fits(rule.name, name, answer, head[: found.start(1)]):
            dice = int.from_bytes(sha256(f"{name}\0{rule.name}".encode()).digest()[:4], "big")
            start = len(name) + 2 + found.start(1)
            yield name, rule.name, rule.asked[dice % len(rule.asked)].format(name), context, answer, start


def _fits(rule: str, name: str, answer: str, before: str) -> bool:
    """Whether the answer can be one: no part of the question, letters of the right words."""
    if answer.lower() in name.lower() or len(answer) < 2:
        return rule == "model" and answer in ("B", "C", "S")
    if rule in ("short", "full"):
        short, whole = (answer, name) if rule == "short" else (name, answer)
        return _shortens(short, whole)
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
