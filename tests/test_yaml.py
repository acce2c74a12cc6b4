"""Scalars of YAML 1.2, exact round trips, lines, and errors that a person can act on."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from luodi.core import yaml
from luodi.core.errors import LuodiError

SCALARS = [
    ("1e-3", 0.001), ("1E3", 1000.0), ("1.", 1.0), (".5", 0.5), ("-1.5e+2", -150.0), ("0.0", 0.0), ("6.02e23", 6.02e23),
    (".inf", math.inf), ("-.INF", -math.inf), ("+.Inf", math.inf),
    ("0", 0), ("-0", 0), ("12", 12), ("+12", 12), ("-7", -7), ("0x10", 16), ("0xFF", 255), ("0o17", 15),
    ("true", True), ("True", True), ("FALSE", False),
    ("~", None), ("null", None), ("Null", None), ("", None),
    ("on", "on"), ("off", "off"), ("yes", "yes"), ("no", "no"), ("NO", "NO"), ("y", "y"), ("n", "n"),
    ("012", "012"), ("-012", "-012"), ("00", "00"), ("1_000", "1_000"), ("1,000", "1,000"), ("0b101", "0b101"),
    ("0x", "0x"), ("0o8", "0o8"), ("190:20:30", "190:20:30"), ("12:30", "12:30"), ("1e", "1e"), ("e3", "e3"),
    (".", "."), ("-", None), ("inf", "inf"), ("nan", "nan"), ("01.5", "01.5"), ("tRUE", "tRUE"), ("nULL", "nULL"),
    ("2024-01-01", "2024-01-01"), ("2001-12-14t21:59:43.10-05:00", "2001-12-14t21:59:43.10-05:00"),
    ("=", "="), ("<<", "<<"), ("1.2.3", "1.2.3"), ("+", "+"), ("None", "None"), ("'1e-3'", "1e-3"), ('"no"', "no"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), SCALARS, ids=[text or "empty" for text, _ in SCALARS])
def test_scalars(text, value):
    found = yaml.parse(f"a: {text}") if text != "-" else {"a": yaml.parse("-")[0]}
    assert found == {"a": value} and type(found["a"]) is type(value)


def test_not_a_number():
    found = yaml.parse("a: .nan")["a"]
    assert isinstance(found, float) and math.isnan(found)
    assert math.isnan(yaml.parse(yaml.dump({"a": math.nan}))["a"])


@pytest.mark.parametrize("text", [text for text, value in SCALARS if value is not None])
def test_text_that_looks_like_something_else_stays_text(text):
    assert yaml.parse(yaml.dump({"a": text, text: [text]})) == {"a": text, text: [text]}


# C0 controls but tab and newline, DEL, C1 but NEL, surrogates and non-characters are not YAML; PyYAML escapes them.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | texts
plain = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5), max_leaves=20
)


def same(first, second) -> bool:
    """Equal, and 1, 1.0 and True are not the same, nor 0.0 and -0.0."""
    if isinstance(first, dict):
        return (
            isinstance(second, dict) and list(first) == list(second) and all(same(first[k], second[k]) for k in first)
        )
    if isinstance(first, list):
        return isinstance(second, list) and len(first) == len(second) and all(map(same, first, second))
    return type(first) is type(second) and repr(first) == repr(second)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(plain)
@example({"a": " lead\ntrail \n\n", "b": "\n", "c": "x\n", "d": "\tx", "e": "x\r\ny", "f": "\x85", "g": "a: b # c"})
@example({"": {"": []}, "a b": [[], {}, ""], "- x": "? y", "é": "漢字 😀", "x" * 200: 1})
@example(["\u2028 ", "a\u2029b\n", "\ufeff", "\x00", "%", "@x", "`", "!x", "&a", "*a", "|", ">", "---", "...", "{}"])
def test_round_trip(value):
    assert same(yaml.parse(yaml.dump(value)), value), yaml.dump(value)


def test_tuples_are_lists_and_order_stays():
    assert yaml.dump({"b": (1, 2), "a": 0}).splitlines() == ["b: [1, 2]", "a: 0"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: 1\nb: 2\na: 3", r"here line 3: the key 'a' is given twice"),
        ("a:\n  x: 1\n  x: 1", r"line 3: the key 'x' is given twice"),
        ("a: {x: 1, x: 2}", r"line 1: the key 'x'"),
        ("a: [1, 2\nb: 3", r"here line 2"),
        ("a:\n\t- 1", r"here line 2"),
        ("a: !!python/object:os.system x", r"here line 1.*could not determine a constructor"),
        ("a: !!python/object/apply:os.system [ls]", r"here line 1"),
        ("a: !!int x", r"here: "),
        ("? [1, 2]\n: 3", r"here line 1: a key is a name"),
        ("? {a: 1}\n: 3", r"here line 1: a key is a name"),
        ("a: \x01", r"here: "),
        ("a: *x", r"here line 1.*undefined alias"),
        ("a: 1\n---\nb: 2", r"here line 2"),
        ("[" * 600, r"here"),
    ],
)
def test_errors_say_where(text, told):
    with pytest.raises(LuodiError, match=told):
        yaml.parse(text, "here")


def test_lines():
    text = "name: x\nsteps:\n  - split: {validation: 0.1,\n            test: 0.2}\n  - train:\n      epochs: 3\n"
    found = yaml.lines(text)
    assert found["name",] == 1 and found["steps",] == 2
    assert found["steps", 0, "split"] == 3 and found["steps", 0, "split", "test"] == 4
    assert found["steps", 1] == 5 and found["steps", 1, "train", "epochs"] == 6


def test_empty_text_has_no_lines():
    assert yaml.parse("") is None and yaml.lines("") == {}
