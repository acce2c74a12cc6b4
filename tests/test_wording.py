"""Metrics of texts: equal to sacrebleu, rouge-score and jiwer, and to the scripts of SQuAD 2.0 and CMRC 2018."""

from __future__ import annotations

import math
import random
import re
import string
import sys
from collections import Counter
from functools import partial

import numpy as np
import pytest

from luodi.core.errors import LuodiError, MissingExtra
from luodi.fields.wording import answers as short
from luodi.fields.wording import bleu, chrf, edits, likelihood, rouge
from luodi.fields.wording.metrics import METRICS
from luodi.fields.wording.segments import pieces, words

ENGLISH = """the a an cat Cat sat on mat, mat. mat don't 3.5 $2,000 (hi) well-known "so" and & &amp; U.S. 1-2 e.g. the
cat an article, OK! ?? _x_ naïve <b> a the""".split()
CHINESE = [*"我你他的是了猫狗在垫子上，。！？《书》“好”、；：…—々〇豈ｶナのㄅ", "北京", "大学", "自然语言", "处理"]
MIXED = [*ENGLISH[:12], *CHINESE, "GPT-4", "３.５", "ＡＢＣ", "iPhone15", "🙂", "👩‍👩‍👧", "🇨🇳", "\u3000", "𠮷"]
WORDS = {"en": (ENGLISH, " "), "zh": (CHINESE, ""), "mixed": (MIXED, "")}


def text(dice: random.Random, kind: str, longest: int = 14) -> str:
    vocabulary, space = WORDS[kind]
    if dice.random() < 0.08:
        return dice.choice(["", " ", "🙂", "the", "。", "  a  cat "])
    few = dice.sample(vocabulary, dice.choice([2, 6, len(vocabulary)]))  # few words: repetitions and ties
    return (space or dice.choice(["", "", " "])).join(dice.choice(few) for _ in range(dice.randint(1, longest)))


def changed(dice: random.Random, original: str) -> str:
    """The text with some characters gone, doubled or swapped: near misses are where metrics differ."""
    kept = [c * dice.choices([0, 1, 2], [1, 12, 1])[0] for c in original]
    return "".join(kept) if dice.random() < 0.85 else original


def corpora(count: int = 200, several: bool = True) -> list[tuple[str, list[str], list[tuple[str, ...]]]]:
    """(kind, answers, truths): sizes from one row, one to three true texts, now and then another number a row."""
    found = []
    for seed in range(count):
        dice = random.Random(seed)
        kind = ("en", "zh", "mixed")[seed % 3]
        most = dice.randint(1, 3) if several else 1
        truths = [
            tuple(text(dice, kind) for _ in range(most if seed % 2 else dice.randint(1, most)))
            for _ in range(dice.choice([1, 1, 2, 5, 20]))
        ]
        answers = [changed(dice, dice.choice(truth)) if dice.random() < 0.8 else text(dice, kind) for truth in truths]
        found.append((kind, answers, truths))
    return found


def streams(truths: list[tuple[str, ...]]) -> list[list[str | None]]:
    """The true texts as sacrebleu takes them: one list for the first of every row, one for the second, ..."""
    return [[row[i] if i < len(row) else None for row in truths] for i in range(max(map(len, truths)))]


def spaced(one: str) -> str:
    return " ".join(pieces(one, "zh-words"))


# ---- second implementations -----------------------------------------------------------------------------------------


def sacrebleu_bleu(answers, truths, language):
    import sacrebleu

    if language == "zh-words":
        answers, truths = [*map(spaced, answers)], [tuple(map(spaced, row)) for row in truths]
    tokenizer = {"en": "13a", "zh": "zh", "zh-words": "none"}[language]
    return sacrebleu.BLEU(tokenize=tokenizer).corpus_score(answers, streams(truths)).score


def sacrebleu_chrf(answers, truths, language, order=0):
    import sacrebleu

    if language == "zh-words":
        answers, truths = [*map(spaced, answers)], [tuple(map(spaced, row)) for row in truths]
    return sacrebleu.CHRF(word_order=order).corpus_score(answers, streams(truths)).score


def rouge_score(answers, truths, language, kind):
    from rouge_score.rouge_scorer import RougeScorer

    class Cut:
        def tokenize(self, one):
            return words(one, language)

    scorer = RougeScorer([kind], tokenizer=None if language == "en" else Cut())
    return float(np.mean([scorer.score_multi(t, a)[kind].fmeasure for a, t in zip(answers, truths, strict=True)]))


def squad(answers, truths, language, kind):
    """SQuAD 2.0's rules, written from the paper and its script's behaviour, with sets of operations of their own."""

    def clean(one):
        kept = "".join(c for c in one.lower() if c not in set(string.punctuation))
        return re.split(r"\s+", re.sub(r"\b(?:an?|the)\b", " ", kept).strip()) if kept.strip() else [""]

    def f1(mine, theirs):
        mine, theirs = [w for w in mine if w], [w for w in theirs if w]
        if not mine or not theirs:
            return float(mine == theirs)
        left, same = list(theirs), 0
        for word in mine:
            if word in left:
                left.remove(word)
                same += 1
        if not same:
            return 0.0
        precision, recall = same / len(mine), same / len(theirs)
        return 2 * precision * recall / (precision + recall)

    figures = []
    for answer, several in zip(answers, truths, strict=True):
        true = [clean(t) for t in several if any(clean(t))] or [[""]]
        mine = clean(answer)
        figures.append(max(float(mine == t) if kind == "exact_match" else f1(mine, t) for t in true))
    return sum(figures) / len(figures)


CMRC_MARKS = set("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")


def cmrc(answers, truths, language, kind):
    """CMRC 2018's rules: the longest common substring of characters, Latin words whole, the table in full."""

    def cut(one):
        kept = "".join(c for c in one.lower().strip() if c not in CMRC_MARKS)
        return [w for run in re.split(r"([\u4e00-\u9fa5])", kept) for w in run.split()]

    def f1(mine, theirs):
        if not mine and not theirs:
            return 1.0  # ours: CMRC has no such rows
        table, longest = np.zeros((len(mine) + 1, len(theirs) + 1), int), 0
        for i, a in enumerate(mine):
            for j, b in enumerate(theirs):
                table[i + 1, j + 1] = table[i, j] + 1 if a == b else 0
                longest = max(longest, table[i + 1, j + 1])
        if not longest:
            return 0.0
        precision, recall = longest / len(mine), longest / len(theirs)
        return 2 * precision * recall / (precision + recall)

    def same(a, b):
        left, right = ("".join(c for c in one.lower().strip() if c not in CMRC_MARKS) for one in (a, b))
        return float(left == right)

    figures = [
        max(same(a, t) if kind == "exact_match" else f1(cut(a), cut(t)) for t in several)
        for a, several in zip(answers, truths, strict=True)
    ]
    return sum(figures) / len(figures)


def jiwer_rate(answers, truths, language, unit):
    import jiwer

    if language != "en":
        cut = (lambda t: " ".join(pieces(t, language))) if unit == "words" else (lambda t: "".join(t.split()))
        answers, truths = [*map(cut, answers)], [tuple(map(cut, row)) for row in truths]
    measured = jiwer.process_words if unit == "words" else jiwer.process_characters
    # Spaces of other widths: jiwer parts words at U+0020 alone.
    plain = (lambda t: " ".join(t.split())) if unit == "words" else str
    result = measured([plain(row[0]) for row in truths], [plain(a) for a in answers])
    return result.wer if unit == "words" else result.cer


LIBRARY = {
    "bleu": sacrebleu_bleu,
    "chrf": sacrebleu_chrf,
    "chrf_words": partial(sacrebleu_chrf, order=2),
    **{kind: partial(rouge_score, kind=kind) for kind in ("rouge1", "rouge2", "rougeL")},
    "exact_match": partial(squad, kind="exact_match"),
    "f1": partial(squad, kind="f1"),
    "wer": partial(jiwer_rate, unit="words"),
    "cer": partial(jiwer_rate, unit="characters"),
}
SEVERAL = set(METRICS) - {"wer", "cer"}


def close(a: float, b: float) -> bool:
    return a == pytest.approx(b, rel=1e-12, abs=1e-9)


PAIRS = [(name, language) for name in METRICS for language in ("en", "zh", "zh-words")]


# SQuAD is English; Chinese answers are below.
@pytest.mark.parametrize(("name", "language"), [p for p in PAIRS if p[0] not in ("exact_match", "f1") or p[1] == "en"])
def test_equals_the_library_on_random_corpora(name, language):
    metric, seen = METRICS[name], set()
    for kind, answers, truths in corpora(several=name in SEVERAL):
        counts = metric.counts(answers, truths, language)
        assert len(counts) == len(answers)
        found, true = metric.value(counts.sum(axis=0)), LIBRARY[name](answers, truths, language)
        assert close(found, true), (kind, answers, truths)
        seen.add(round(found, 6))
    assert len(seen) > (8 if name == "exact_match" else 40)  # not the same 0 or 100 again and again


@pytest.mark.parametrize("name", ["exact_match", "f1"])
def test_chinese_answers_equal_cmrc(name):
    metric, seen = METRICS[name], set()
    letters = [*"我你他的是了猫狗在垫子上，。！？《书》“好”、；：", "北京", "大学", " GPT ", " 15 ", "-", "Ab "]
    for seed in range(200):
        dice = random.Random(seed)

        def one(dice=dice):
            return "".join(dice.choice(letters) for _ in range(dice.randint(0, 9)))

        truths = [tuple(one() for _ in range(dice.randint(1, 3))) for _ in range(dice.choice([1, 2, 20]))]
        answers = [changed(dice, dice.choice(row)) for row in truths]
        found = metric.value(metric.counts(answers, truths, "zh").sum(axis=0))
        assert close(found, cmrc(answers, truths, "zh", name)), (answers, truths)
        seen.add(round(found, 6))
    assert len(seen) > (8 if name == "exact_match" else 40)


@pytest.mark.parametrize("name", METRICS)
def test_resampling_equals_recomputing(name):
    """What a bootstrap does with counts is what the library says of those texts."""
    metric = METRICS[name]
    dice = np.random.Generator(np.random.PCG64(5))
    for _, answers, truths in corpora(40, several=name in SEVERAL)[::3]:  # the English ones
        counts = metric.counts(answers, truths, "en")
        for _ in range(3):
            rows = dice.integers(0, len(answers), len(answers))
            again = LIBRARY[name]([answers[i] for i in rows], [truths[i] for i in rows], "en")
            assert close(metric.value(counts[rows].sum(axis=0)), again)


@pytest.mark.parametrize(("name", "language"), PAIRS)
def test_a_perfect_and_an_empty_answer(name, language):
    metric = METRICS[name]
    truths = ["one two three four five", "six seven eight nine"]
    if language != "en":  # the English words of ROUGE are those of a to z
        truths = ["one two three four five 六七八九十", "他们在北京大学学习自然语言处理"]
    perfect = metric.counts(truths, truths, language).sum(axis=0)
    assert metric.value(perfect) == pytest.approx(metric.best)
    nothing = metric.value(metric.counts(["", ""], truths, language).sum(axis=0))
    assert nothing == (0 if metric.better == "higher" else 1)


def test_rouge_is_of_rows_and_bleu_of_the_corpus():
    """One row of BLEU with no 4-gram is smoothed; beside another row it is only counted."""
    first, second = (["a b c x"], ["a b c d"]), (["e f g h i"], ["e f g h i"])
    both = (first[0] + second[0], first[1] + second[1])
    one, two, whole = (METRICS["bleu"].counts(*pair, "en").sum(axis=0) for pair in (first, second, both))
    assert bleu.value(one) == pytest.approx(100 * (3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** 0.25)  # exp: 1/2 of one 4-gram
    assert bleu.value(whole) == pytest.approx(100 * (8 / 9 * 6 / 7 * 4 / 5 * 2 / 3) ** 0.25)
    np.testing.assert_array_equal(one + two, whole)


def test_bleu_takes_the_nearest_length():
    """Papineni et al. 2002, example 2: seven times `the` gets 2 of 7; equally near lengths: the shorter."""
    answer = "the the the the the the the"
    truths = [("the cat is on the mat", "there is a cat on the mat")]
    assert bleu.counts([answer], truths, "en")[0].tolist() == [7, 7, 2, 0, 0, 0, 7, 6, 5, 4]
    assert bleu.counts(["a b c"], [("a b c d", "a b")], "en")[0, 1] == 2


def test_chrf_takes_the_best_true_text():
    counts = chrf.counts(["abc"], [("xyz", "abd", "abe")], "en")[0].reshape(-1, 3)
    assert counts[:3].tolist() == [[3, 3, 2], [2, 2, 1], [1, 1, 0]]
    assert counts[3:].tolist() == [[0, 0, 0]] * 3


def test_cuts():
    assert pieces("他说：GPT-4 很ＯＫ🙂", "zh") == ["他", "说", "：", "GPT", "-", "4", "很", "ＯＫ", "🙂"]
    assert pieces("我在北京大学读书。 好", "zh-words") == ["我", "在", "北京大学", "读书", "。", "好"]
    assert pieces(" a  b\u3000c ", "en") == ["a", "b", "c"]
    assert words("他说：GPT-4 很好🙂", "zh") == ["他", "说", "gpt", "4", "很", "好"]
    assert words("Don't, naïve", "en") == ["don", "t", "na", "ve"]
    assert pieces("𠮷野家", "zh") == ["𠮷", "野", "家"]
    assert pieces("", "zh") == pieces("", "zh-words") == words("", "en") == []


def test_jieba_cuts_as_jieba_does(monkeypatch, tmp_path):
    """Our way to its dictionary writes nothing, and cuts as its own way does."""
    import jieba

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    own = jieba.Tokenizer()
    dice = random.Random(1)
    texts = [text(dice, dice.choice(["zh", "mixed"]), 30) for _ in range(100)]
    ours = [pieces(one, "zh-words") for one in texts]
    assert not list(tmp_path.iterdir())
    assert ours == [[w for w in own.lcut(one) if w.strip()] for one in texts]


@pytest.mark.parametrize("seed", range(20))
def test_bits_of_a_number_equal_the_table(seed):
    """Edits and common subsequence against the textbook tables, longer than a machine word too."""
    dice = random.Random(seed)
    first, second = ("".join(dice.choices("abc"[: dice.randint(1, 3)], k=dice.randint(0, 90))) for _ in "12")
    edit = np.zeros((len(first) + 1, len(second) + 1), int)
    edit[:, 0], edit[0] = np.arange(len(first) + 1), np.arange(len(second) + 1)
    same = np.zeros_like(edit)
    for i, a in enumerate(first, 1):
        for j, b in enumerate(second, 1):
            edit[i, j] = min(edit[i - 1, j] + 1, edit[i, j - 1] + 1, edit[i - 1, j - 1] + (a != b))
            same[i, j] = same[i - 1, j - 1] + 1 if a == b else max(same[i - 1, j], same[i, j - 1])
    assert edits.distance(first, second) == edit[-1, -1]
    assert rouge.common(first, second) == same[-1, -1]


def test_without_truths_in_the_error_rate():
    assert METRICS["wer"].value(METRICS["wer"].counts(["a b", ""], ["", ""], "en").sum(axis=0)) == 2
    assert METRICS["wer"].value(METRICS["wer"].counts([""], [""], "en").sum(axis=0)) == 0


def test_short_answers_as_people_write_them():
    def of(answer, truth, language="en"):
        return [float(short.counts([answer], [truth], language, kind)[0, 0]) for kind in ("exact_match", "f1")]

    assert of("The  Eiffel-Tower!", "Eiffeltower") == [1, 1]
    assert of("in the year 1889", "1889") == [0, 0.5]
    assert of("", "") == of("the", "") == of("", "", "zh") == [1, 1]
    assert of("no", "") == [0, 0]
    assert of("《北京》", "北京", "zh") == [1, 1]
    assert of("北京市", "北京", "zh") == [0, 0.8]
    assert of("京北", "北京", "zh")[1] == 0.5  # a run, not a bag
    assert of("自然语言处理", "处理自然语言", "zh-words")[1] == 1  # a bag of words


def test_likelihood_in_closed_form():
    """A model that is evenly unsure over 256 bytes: perplexity 256, 8 bits a byte, whatever the text."""
    texts = ["abc", "", "你好🙂"]
    sizes = np.array([3, 0, 10])
    total = likelihood.counts(np.log(256) * sizes, sizes, texts).sum(axis=0)
    assert total[2] == 13
    assert likelihood.perplexity(total) == pytest.approx(256, rel=1e-12)
    assert likelihood.bits_per_byte(total) == pytest.approx(8, rel=1e-12)
    half = likelihood.counts(np.array([math.log(2) * 5]), np.array([5]), ["你好吗好吗"]).sum(axis=0)
    assert likelihood.bits_per_byte(half) == pytest.approx(1 / 3)  # one bit a character, three bytes
    assert likelihood.perplexity(half) == pytest.approx(2)


def test_likelihood_equals_cross_entropy():
    import torch

    generator = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(40, 11, generator=generator), torch.randint(0, 11, (40,), generator=generator)
    loss = torch.nn.functional.cross_entropy(logits.double(), targets, reduction="none").numpy()
    rows = np.split(loss, [7, 8, 25])
    counts = likelihood.counts(np.array([r.sum() for r in rows]), np.array([len(r) for r in rows]), ["x"] * 4)
    mean = torch.nn.functional.cross_entropy(logits.double(), targets)
    assert likelihood.perplexity(counts.sum(axis=0)) == pytest.approx(float(mean.exp()), rel=1e-12)


def test_likelihood_at_its_ends():
    assert math.isnan(likelihood.perplexity(np.zeros(3))) and math.isnan(likelihood.bits_per_byte(np.zeros(3)))
    assert likelihood.perplexity(np.array([1e6, 1.0, 1.0])) == math.inf
    assert likelihood.counts(np.zeros(1), np.zeros(1), ["\ud83d"])[0, 2] == 3


def test_mistakes_are_told():
    with pytest.raises(LuodiError, match="row 1 has no true text"):
        METRICS["f1"].counts(["a", "b"], ["a", []], "en")
    with pytest.raises(LuodiError, match="2 answers, but 1 truths"):
        METRICS["chrf"].counts(["a", "b"], ["a"], "en")
    with pytest.raises(LuodiError, match="row 0 has 2 true texts: cer takes one"):
        METRICS["cer"].counts(["a"], [("a", "b")], "zh")


def test_without_the_extra(monkeypatch):
    """Only BLEU needs sacrebleu, and only its counts."""
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(MissingExtra, match=r"luodi\[text\]"):
        METRICS["bleu"].counts(["a"], ["a"], "en")
    assert bleu.value(np.array([4, 4, 4, 3, 2, 1, 4, 3, 2, 1])) == pytest.approx(100)
    for name in set(METRICS) - {"bleu"}:
        METRICS[name].counts(["a"], ["a"], "zh")


def test_no_rows():
    for metric in METRICS.values():
        counts = metric.counts([], [], "en")
        assert counts.shape[0] == 0 and counts.ndim == 2
        assert math.isnan(metric.value(counts.sum(axis=0))) or metric.value(counts.sum(axis=0)) == 0


def test_words_in_common_are_counted_as_often_as_both_have_them():
    found = short.counts(["x x y"], ["x y y"], "en", "f1")[0, 0]
    assert found == pytest.approx((Counter("xxy") & Counter("xyy")).total() / 3)
