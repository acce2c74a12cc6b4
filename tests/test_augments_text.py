"""Augments of texts: never within what a reader sees as one character; and their way into the loop."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st
from small_data import bundle_of, sha

from luodi.core.run import Run
from luodi.core.source import rows_of
from luodi.core.thing import WrongThing, dump, make
from luodi.train.loop.augments.writing.graphemes import changeable, class_of, graphemes, pieces
from luodi.train.loop.changes import texts_of

LETTERS = f"{Path(__file__).with_name('own_fields.py')}:Letters"
MLP = {"mlp": {"hidden": [16]}}
WHOLE = [  # each is one character to a reader
    "a", "好", "𠮷", "e\u0301", "👍🏽", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🇨🇳", "1️⃣", "한", "각", "क्षि", "நி", "\r\n",
    "🏴\U000e0067\U000e0062\U000e007f", "葛\U000e0100", "ｶﾞ", "น้ำ",
]  # fmt: skip
MIXED = "这家酒店很好，I don't like the 早餐 👨‍👩‍👧‍👦👍🏽 at 7:30 e\u0301te\u0301 🇨🇳🇫🇷！\n房间 is old."
TEXTS = [MIXED, "", "   ", "好", "one two three four", "很好很好吃", "🇨🇳🇫🇷", "a\r\nb"]
KINDS = ["text_mask", "text_delete", "text_swap", "text_noise"]


def dice(seed=0):
    return np.random.Generator(np.random.PCG64(seed))


def changed(name, texts, seed=0, **fields):
    return make("augments", {name: fields}).apply_text(texts, dice(seed))


def seen(text):
    return regex.findall(r"\X", text)


# ---- taking apart ---------------------------------------------------------------------------------


def test_graphemes_are_what_a_reader_sees():
    assert graphemes("".join(WHOLE[:9])) == seen("".join(WHOLE[:9])) == WHOLE[:9]
    for one in WHOLE:
        assert graphemes(f"x{one}y")[1:-1] == [one], one
        assert graphemes(one * 3) == [one] * 3, one
    assert graphemes(MIXED) == seen(MIXED)
    assert graphemes("\ud83d\ude00a") == ["\ud83d\ude00", "a"]  # two halves that were never put together
    assert graphemes("🇨🇳🇫🇷🇩") == ["🇨🇳", "🇫🇷", "🇩"]


ODD = "a好👍🏽👨\u200d🇨🇳\u0301\u094dक\u0ddaก\u0e33\r\n\u200c각\u1100\u1161\u11a8\ufe0f\u20e3\u0600𠮷 '9ﾞ\x00\u00ad"


@pytest.mark.parametrize("before", ["a", "👨\u200d", "ᄀ"])
def test_no_character_is_torn_from_what_it_extends(before):
    """Nearly every character that is no Han and no Korean syllable, against the tables that `regex` brings."""
    whole = regex.compile(r"\X")
    for code in (*range(0x3400), *range(0xA000, 0xAC00), *range(0xD7A4, 0x1FC00), *range(0xE0000, 0xE0200)):
        text = before + chr(code)
        if len(graphemes(text)) > 1:
            assert len(whole.findall(text)) > 1 or 0xD800 <= code < 0xE000, hex(code)


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.text(max_size=12), st.text(alphabet=ODD, max_size=14)))
@example("👨‍👩‍👧‍👦 好")
def test_never_within_a_grapheme(text):
    found = graphemes(text)
    assert "".join(found) == text and all(found)
    cuts, at = set(), 0
    for one in found:
        at += len(one)
        cuts.add(at)
    theirs, at = {0}, 0
    for one in seen(text):
        at += len(one)
        theirs.add(at)
    assert cuts <= theirs
    assert "".join(pieces(text, "word")) == text


def test_words_are_runs_of_letters_and_han_are_alone():
    assert pieces("I don't like 早餐!", "word") == ["I", " ", "don't", " ", "like", " ", "早", "餐", "!"]
    assert pieces("x86机器 ete\u0301", "word") == ["x86", "机", "器", " ", "ete\u0301"]
    assert pieces("'quoted'", "word") == ["'", "quoted", "'"]
    assert pieces("ラーメン", "word") == ["ラ", "ー", "メ", "ン"]
    classes = {"好": "han", "カ": "kana", "7": "digit", "a": "latin lower", "É": "latin upper", "ж": "CYRILLIC lower"}
    assert {one: class_of(one) for one in classes} == classes
    assert not changeable(" ") and not changeable("\n") and changeable("!")


# ---- every augment --------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["character", "word"])
@pytest.mark.parametrize("name", KINDS)
def test_same_dice_same_texts_and_no_share_no_change(name, unit):
    one, two = (changed(name, TEXTS, 1, unit=unit, share=0.4) for _ in range(2))
    assert one == two and len(one) == len(TEXTS) and one != TEXTS
    assert one != changed(name, TEXTS, 2, unit=unit, share=0.4)
    assert changed(name, TEXTS, unit=unit, share=0) == TEXTS
    assert one[1:3] == ["", "   "]
    augment = make("augments", {name: {"unit": unit, "share": 0.4}})
    assert make("augments", dump(augment)) == augment and augment.kind == "text"


@pytest.mark.parametrize("name", KINDS)
def test_what_comes_out_are_characters_that_went_in(name):
    known = {*seen("".join(TEXTS)), *"[MASK]"}
    for seed in range(30):
        for text in changed(name, TEXTS, seed, unit="character", share=0.5):
            assert set(seen(text)) <= known, text


def test_mistakes_are_refused():
    for thing in ({"text_mask": {"share": 2}}, {"text_swap": {"reach": 0}}, {"text_noise": {"slips": []}}):
        with pytest.raises(WrongThing):
            make("augments", thing)


def test_mask_hits_its_share_and_leaves_spaces():
    found = changed("text_mask", ["a b " * 5000], share=0.3, mask="#")[0]
    assert Counter(found)[" "] == 10000 and Counter(found)["#"] / 10000 == pytest.approx(0.3, abs=0.02)
    assert changed("text_mask", ["这里 good"], share=1)[0] == "[MASK][MASK] [MASK]"
    assert changed("text_mask", ["go 👨‍👩‍👧‍👦"], share=1, unit="character", mask="_")[0] == "__ _"


def test_delete_keeps_order_one_piece_and_single_spaces():
    for seed in range(50):
        found = changed("text_delete", ["one two three four"], seed, share=0.5)[0]
        words = found.split(" ")
        assert words and all(words[1:-1]) and "  " not in found
        left = iter(["one", "two", "three", "four"])
        assert all(word in left for word in words if word)
        assert changed("text_delete", ["一二三"], seed, share=1)[0] in ("一", "二", "三")
    counts = [len(changed("text_delete", ["好" * 2000], seed, share=0.25)[0]) for seed in range(5)]
    assert np.mean(counts) / 2000 == pytest.approx(0.75, abs=0.02)


def test_swap_moves_and_neither_makes_nor_loses():
    for seed in range(30):
        found = changed("text_swap", [MIXED], seed, share=0.5, reach=3, unit="character")[0]
        assert Counter(graphemes(found)) == Counter(graphemes(MIXED))
        spaces = [place for place, one in enumerate(graphemes(found)) if one.isspace()]
        assert spaces == [place for place, one in enumerate(graphemes(MIXED)) if one.isspace()]
    assert changed("text_swap", ["ab cd"], share=1, unit="character")[0] == "ba dc"
    assert changed("text_swap", ["go on now"], share=1)[0] == "on go now"
    text = "".join(map(chr, range(0x4E00, 0x4E00 + 500)))
    far = changed("text_swap", [text], share=0.6, reach=4)[0]
    away = [abs(far.index(one) - place) for place, one in enumerate(text)]
    assert max(away) == 4 and far != text


def test_noise_takes_like_for_like_from_the_batch():
    texts = ["好坏大小" * 50, "abc XYZ 123" * 20]
    replaced = changed("text_noise", texts, share=1, slips=["replace"])
    for before, after in zip(texts, replaced, strict=True):
        assert list(map(class_of, before)) == list(map(class_of, after)) and before != after
    assert set(replaced[0]) == set("好坏大小")
    assert changed("text_noise", ["好吃 👍🏽"], share=1, slips=["repeat"]) == ["好好吃吃 👍🏽👍🏽"]
    longer = changed("text_noise", ["好坏" * 2000], share=0.1, slips=["insert"])[0]
    assert len(longer) / 4000 == pytest.approx(1.1, abs=0.02)


# ---- in the loop ----------------------------------------------------------------------------------


def reviews(count, seed):
    one = dice(seed)
    labels = one.integers(0, 2, count)
    texts = ["".join(one.choice(list("abcd" if label else "efgh"), 8)) + "好坏"[label] for label in labels]
    return rows_of({"review": texts, "label": [f"k{label}" for label in labels]})


def task():
    return {"supervised": {"inputs": {"review": LETTERS}, "targets": {"label": "category"}}}


def trained(tmp_path, run=None, **fields):
    bundle = bundle_of(task(), MLP, reviews(96, 0), reviews(48, 1))
    return make("steps", {"train": {"batch_size": 16, "epochs": 3, "learning_rate": 0.01, **fields}})(
        bundle, run or Run(tmp_path)
    )


def test_texts_change_before_they_are_encoded_at_each_update(tmp_path):
    plain = trained(tmp_path / "a")
    done = trained(tmp_path / "b", augment=[{"text_delete": {"share": 0.3}}, "text_noise"])
    again = trained(tmp_path / "c", augment=[{"text_delete": {"share": 0.3}}, "text_noise"])
    assert sha(done) == sha(again) != sha(plain)
    assert "held in memory" in plain.notes["examples"]
    assert done.notes["examples"] == "96 examples read and encoded batch by batch: their texts change each time"
    assert done.notes["history"][-1]["validation"]["label.accuracy"] == 1.0


def test_what_a_text_becomes_is_a_function_of_update_piece_and_rank(tmp_path):
    augment = make("augments", {"text_mask": {"share": 0.5, "mask": "_", "unit": "character"}})
    texts = texts_of([augment, make("augments", "flip")], make("tasks", task()), Run(tmp_path))
    assert bool(texts) and not texts_of([make("augments", "flip")], make("tasks", task()), Run(tmp_path))
    requests = [{"review": "abcdefghabcdefgh", "other": 1}] * 3
    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    found = {key: texts.changed(requests, key) for key in keys}
    assert found[0, 0, 0] == texts.changed(requests, (0, 0, 0))
    assert len({str(one) for one in found.values()}) == 4
    assert requests[0]["review"] == "abcdefghabcdefgh" and all(one["other"] == 1 for one in found[0, 0, 0])


def test_processes_that_read_ahead_change_texts_alike(tmp_path):
    fields = {"augment": ["text_swap", "text_mask"], "accumulate": 2, "batch_size": 8, "epochs": 1}
    assert sha(trained(tmp_path / "a", **fields)) == sha(trained(tmp_path / "b", workers=2, **fields))


class Killed(RuntimeError):
    pass


def test_a_killed_training_of_texts_goes_on_with_the_same_bits(tmp_path):
    fields = {"augment": ["text_swap", "text_mask"], "accumulate": 2, "batch_size": 8, "checkpoint_seconds": 1e-6}
    whole = sha(trained(tmp_path / "whole", **fields))

    def dies(event, facts):
        if event == "epoch" and facts["epoch"] == 2:
            raise Killed

    with pytest.raises(Killed):
        trained(tmp_path / "cut", Run(tmp_path / "cut", log=dies), **fields)
    assert sha(trained(tmp_path / "cut", **fields)) == whole
