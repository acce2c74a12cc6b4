"""Relations that a dictionary's entries state in set phrases: where the answer stands, and ways to ask for it."""

from __future__ import annotations

import re
from dataclasses import dataclass

# What the patterns below call by a name in <>. A name ends at END, which is appended to each pattern that has one.
_OFFICE = r"(?:University|Institute|Department|Ministry|School|Laboratory|Bank|College|Center|Centre|Bureau) (?:of|for)"
_WORD = r"(?:[A-Z]\.(?:-?[A-Z]\.)*|(?![A-Z]\. )[A-Z0-9][\w'/+-]*(?:\.\d[\w-]*)*)"
_AND_WORD = rf"(?:,? (?:(?:de|van|von|der|den|la|le|du) )?(?:{_OFFICE} (?:the )?)?{_WORD})"
_ONE = rf"(?=[A-Z])(?:{_OFFICE} (?:the )?)?{_WORD}{_AND_WORD}*?(?:,? (?:Inc|Corp|Ltd|Co)\b\.?)?"
_THING = r"[A-Z0-9][\w'/+#*-]*(?:\.\d[\w-]*)*"
_END = (
    r"(?=[.,;:)(]| (?:at|in|of|for|to|from|as|on|with|which|who|and|that|based|is|was|by|during|between|while|using|"
    r"around|about|circa|ca|c|under|then|but|when|now|running|since|or|the)\b| <| \[|$)"
)
_NAMED = {
    "MADE": "designed|developed|written|created|invented|implemented|devised|built|conceived|originated",
    "ONE": _ONE,
    "MANY": rf"({_ONE}(?:,? (?:and|&) {_ONE})?(?: et al\b\.?)?)",
    "THING": rf"{_THING}(?: {_THING})*",
    "YEAR": r"(?:early |late |about |[A-Z][a-z]+ )?((?:19|20)\d\d)\b",
    "CLAUSE": r"(?:(?!\b(?:which|that|who|when|where|while|using|used|based|brought|by)\b)[^.;()])",  # and no other
    "PASSIVE": r"(?<!which )(?<!that )(?<!who )\b",
}


@dataclass(frozen=True)
class Relation:
    """The pattern's first group is the answer; `asked` are questions, {} the entry's name."""

    name: str
    pattern: re.Pattern[str]
    asked: tuple[str, ...]
    beginning: bool = True  # it is looked for in the first sentence, which is about the thing itself
    alone: bool = False  # "A and B" is no answer unless the pattern holds both


def _pattern(text: str, end: str = "") -> re.Pattern[str]:
    return re.compile(re.sub(r"<([A-Z]+)>", lambda found: _NAMED[found[1]], text) + end)


RELATIONS = (
    Relation(
        "maker",
        _pattern(r"(?<!those )\b(?:<MADE>|proposed|introduced) (?:[a-z]+ )?by (?:the )?<MANY>", _END),
        ("Who came up with {}?", "Who is behind {}?", "Who made {}?"),
        alone=True,
    ),
    Relation(
        "place",
        _pattern(r"\b(?:<MADE>|founded)\b[^.;()]{0,60}? (?:at|(?<!top )(?<!part )of) (?:the )?(<ONE>)", _END),
        ("Where was {} made?", "At which place did {} come into being?"),
    ),
    Relation(
        "year",
        _pattern(
            r"(?<!\) )<PASSIVE>(?:<MADE>|introduced|produced)\b<CLAUSE>{0,20}?(?:by<CLAUSE>{0,60}?)? "
            r"(?:in|around) <YEAR>"
        ),
        ("When was {} made?", "From which year is {}?"),
    ),
    Relation(
        "start",
        _pattern(r"<PASSIVE>(?:founded|formed|established|incorporated|started)\b<CLAUSE>{0,40}? in <YEAR>"),
        ("When did {} begin?", "Since which year has {} existed?"),
    ),
    Relation(
        "release",
        _pattern(r"\b(?:released|launched|announced|shipped|published)\b<CLAUSE>{0,30}? in <YEAR>"),
        ("When did {} come out?", "In what year did {} appear?"),
    ),
    Relation(
        "model",
        _pattern(
            r"^[^.;:()]{0,40}?\b(?:successor (?:to|of)|derived from|based on|descended from|derivative of|"
            r"(?:dialect|extension|superset|subset|variant|descendant|offshoot) (?:of|to)) (?:the )?(<THING>)",
            _END,
        ),
        ("What does {} build upon?", "What did {} grow out of?", "Which older thing is {} akin to?"),
    ),
    Relation(
        "kind",
        _pattern(r"^[^.;:()]{0,40}?\b(?:version|implementation|clone|port|revision) of (?:the )?(<THING>)", _END),
        ("What is {} a form of?", "Of what is {} another edition?"),
    ),
    Relation(
        "short",
        _pattern(r"^\(([A-Z][A-Za-z0-9/+-]{1,9})\)"),
        ("What is {} called for short?", "How is {} abbreviated?"),
    ),
    Relation(
        "full",
        _pattern(r"^\(([A-Za-z](?:[A-Za-z0-9' /]|\b-\b){5,60})\)"),
        ("What does {} stand for?", "What is the full name of {}?"),
    ),
    Relation(
        "language",
        _pattern(r"(?<!s )\b(?:written|implemented|coded) (?:entirely |mostly |largely )?in (?=[A-Z])(<THING>)", _END),
        ("What was {} programmed in?", "In which language is the source of {}?"),
        alone=True,
    ),
    Relation(
        "owner",
        _pattern(
            r"(?<!s )\b(?:sold|marketed|manufactured|distributed|supplied|owned|offered) by (?:the )?<MANY>", _END
        ),
        ("Which company has {} as its product?", "Whose product is {}?"),
        alone=True,
    ),
    Relation(
        "origin",
        _pattern(
            r"^(?:An?|The|One of the) [^.,;:()]{3,60}?(?<!derived)(?<!descended)(?<!different)(?<!ing) from "
            r"(?:the )?(<ONE>)",
            _END,
        ),
        ("Who offers {}?", "Where does {} come from?"),
    ),
    Relation(
        "seat",
        _pattern(r"\b(?:based|headquartered|located) in (?:the )?(<ONE>(?:, <ONE>)?)", _END),
        ("In what place is {}?", "Where is the seat of {}?"),
    ),
    Relation(
        "named",
        _pattern(r"(?:^[^.;:]{0,160}?\b|\. )[Nn]amed after (?:the )?(<ONE>)(?!, [A-Z])", _END),
        ("To whom or what does {} owe its name?", "Where is the name of {} from?"),
        beginning=False,
    ),
    Relation(
        "older",
        _pattern(r"^[^.;]{0,200}?\b(?:formerly|originally|previously) (?:known as|called|named) \"?(<ONE>)\"?", _END),
        ("What was the earlier name of {}?", "Under what name did {} start?"),
        beginning=False,
        alone=True,
    ),
    Relation(
        "standard",
        _pattern(
            r"(?:^[^.;]{0,160}|\. (?:It|[A-Z][A-Z-]+s?)(?: [^.;]{0,60})? (?:is|are|was) (?:[a-z]+ )?)"
            r"\b(?:defined|described|specified|documented) (?:in|by) (RFC \d+)"
        ),
        ("Which document says what {} is?", "Where can one read how {} works?"),
        beginning=False,
    ),
)
