"""Questions answered with a piece of a text: places, windows, spans, truths, what is learned and what is served."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import System, build, kept_as_parquet, open_source
from small_data import bundle_of, year_rows

from luodi.core.apply import apply
from luodi.core.bundle import Bundle
from luodi.core.errors import BadRequest, LuodiError
from luodi.core.rows import Rows
from luodi.core.run import Run
from luodi.core.source import rows_of
from luodi.core.thing import make
from luodi.fields.text import Text
from luodi.fields.wording.answers import counts
from luodi.tasks.answering import Answering
from luodi.tasks.spans.best import best_of, characters
from luodi.tasks.spans.truths import place_of
from luodi.tasks.spans.windows import Reader, Window

TEXTS = [
    "The quick brown fox, born in 1972.",
    "",
    "  two  spaces ",
    "Ｆｕｌｌ　ｗｉｄｔｈ １２",
    "繁體中文 and words",
    "e\u0301t\u00e9 😀 ﬁne",
]


def text_field(tokens: str = "word", length: int = 16, **more: Any) -> dict[str, Any]:
    return {"text": {"tokens": tokens, "length": length, "at_least": 1, **more}}


def task_of(length: int = 24, overlap: int = 3, tokens: str = "word", **more: Any) -> dict[str, Any]:
    inputs = {"question": text_field(tokens, 5), "context": text_field(tokens, length)}
    return {"answering": {"inputs": inputs, "overlap": overlap, "longest": 4, **more}}


def fitted(rows: Rows, **more: Any) -> Answering:
    task = make("tasks", task_of(**more)).fit(rows)
    assert isinstance(task, Answering)
    return task


# ---- from tokens back to characters ---------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", ["character", "word", "bpe", "unigram"])
@pytest.mark.parametrize("forms", ["keep", "nfkc"])
def test_tokens_know_their_characters(tokens: str, forms: str) -> None:
    field = make("fields", text_field(tokens, forms=forms, vocabulary=400)).fit(TEXTS)
    assert isinstance(field, Text)
    for text in TEXTS:
        spans = field.spans(text)
        assert all(0 <= start <= end <= len(text) for _, start, end in spans)
        assert [start for _, start, _ in spans] == sorted(start for _, start, _ in spans)
        covered = {place for _, start, end in spans for place in range(start, end)}
        assert {place for place, one in enumerate(text) if not one.isspace()} <= covered
    if forms == "keep":  # composing accents is left out where each character must know its place
        assert [token for token, _, _ in field.spans(TEXTS[0])] == field.cutter.ids([field.settled(TEXTS[0])])[0]


def bert_tokens() -> Any:
    """A BERT tokenizer of a few words: its own marks for one text and for two."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    words = "who made the big red machine ann bob in 19 ##72 , . a b ##s ##e".split()
    known = {word: place for place, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words])}
    made = Tokenizer(models.WordPiece(known, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return made


def test_pairs_and_windows_are_those_of_transformers() -> None:
    """The second implementation: a fast tokenizer with `stride` and overflowing tokens."""
    from transformers import PreTrainedTokenizerFast

    theirs = PreTrainedTokenizerFast(tokenizer_object=bert_tokens(), pad_token="[PAD]", cls_token="[CLS]",
                                     sep_token="[SEP]", unk_token="[UNK]")  # fmt: skip
    fields = [make("fields", {"text": {"tokens": "pretrained", "length": length}}) for length in (6, 16)]
    question, context = (one.given(bert_tokens().to_str().encode(), 0, [3], {}) for one in fields)
    asked = "Who made the machine?"
    for text in ("Ann, in 1972.", "the big red machine " * 9 + "Bob made it in 1972."):
        want = theirs(asked, text, max_length=16, stride=3, truncation="only_second", return_overflowing_tokens=True,
                      return_offsets_mapping=True, padding=True)  # fmt: skip
        spans = context.spans(text)
        windows = Reader(question, context, 3).windows(asked, spans)
        arrays = Reader(question, context, 3).arrays("x", windows)
        np.testing.assert_array_equal(arrays["x"], np.asarray(want["input_ids"]))
        np.testing.assert_array_equal(arrays["x_mask"], np.asarray(want["attention_mask"]))
        for row, window in enumerate(windows):
            ours = [spans[at][1:] for at in range(window.first, window.end)]
            parts = want.sequence_ids(row)
            assert ours == [place for place, part in zip(want["offset_mapping"][row], parts, strict=True) if part == 1]
            assert arrays["x_part"][row].tolist() == [int(part == 1) for part in parts]
    (empty,) = Reader(question, context, 3).windows(asked, [])  # transformers leaves the second text's mark out then
    assert empty.ids == (2, 4, 5, 6, 9, 1, 3, 3) and (empty.first, empty.end) == (0, 0)


def test_the_name_of_a_mark_is_text_with_its_places() -> None:
    field = make("fields", {"text": {"tokens": "pretrained", "length": 16}}).given(
        bert_tokens().to_str().encode(), 0, [3], {}
    )
    spans = field.spans("ann [SEP] bob")
    assert 3 not in [token for token, _, _ in spans]
    assert spans[0][1:] == (0, 3) and spans[-1][1:] == (10, 13)


def test_answers_are_whole_words_without_spaces_around() -> None:
    text = "in 1972, at 北京大学 by  Ann-Lee "
    assert text[slice(*characters(text, [(0, 3, 5)], (0, 1)))] == "1972"
    assert text[slice(*characters(text, [(0, 11, 13)], (0, 1)))] == "北"  # no words parted by spaces: as it was cut
    assert text[slice(*characters(text, [(0, 18, 22), (0, 22, 27)], (0, 2)))] == "by  Ann-Lee"


# ---- the best span --------------------------------------------------------------------------------------------------


def brute(windows: list[Window], logits: list[np.ndarray], most: int) -> dict[tuple[int, int], float]:
    found: dict[tuple[int, int], float] = {}
    for window, rows in zip(windows, logits, strict=True):
        for first in range(window.first, window.end):
            for last in range(first, min(first + most, window.end)):
                at, to = (place - window.first + window.place for place in (first, last))
                score = float(rows[at, 0] + rows[to, 1] - rows[0, 0] - rows[0, 1])
                found[first, last + 1] = max(found.get((first, last + 1), -np.inf), score)
    return found


@pytest.mark.parametrize("none", [False, True])
def test_the_best_span_of_all_windows(none: bool) -> None:
    dice = np.random.default_rng(5)
    windows = [Window((), 3, 0, 6), Window((), 3, 4, 10), Window((), 3, 8, 11)]
    for _ in range(30):
        logits = [dice.normal(size=(12, 2)) for _ in windows]
        scores = brute(windows, logits, 4) | ({(-1, -1): 0.0} if none else {})
        best = max(scores, key=lambda span: scores[span])
        found = best_of(windows, logits, 4, none=none)
        assert found.span == (None if best == (-1, -1) else best)
        whole = sum(np.exp(score) for score in scores.values())
        assert found.probability == pytest.approx(np.exp(scores[best]) / whole)


def test_a_context_without_a_word_has_no_answer() -> None:
    found = best_of([Window((2, 3), 2, 0, 0)], [np.zeros((2, 2))], 4, none=False)
    assert found.span is None and found.probability == 1


# ---- what rows say --------------------------------------------------------------------------------------------------


def test_truths() -> None:
    assert place_of("b", None, "abab") == (("b",), (1, 2))
    assert place_of("b", 3, "abab") == (("b",), (3, 4))
    assert place_of(["ab", "b"], [2, 3], "abab") == (("ab", "b"), (2, 4))
    assert place_of("b", float("nan"), "abab") == (("b",), (1, 2))
    for empty in (None, "", []):
        assert place_of(empty, None, "abab") == (("",), None)
    for cell, start, said in (("c", None, "does not stand in"), ("b", 2, "at character 2"), (3, None, "got int")):
        with pytest.raises(BadRequest, match=said):
            place_of(cell, start, "abab")


LONG = " ".join(["word"] * 40)


def some_rows() -> Rows:
    contexts = ["Ann made it in 1972 .", f"{LONG} Bob made it . {LONG}", "Nobody knows ."]
    cells = {"question": ["who ?"] * 3, "context": contexts, "answer": ["Ann", "Bob", ""]}
    return rows_of({**cells, "start": [0, len(LONG) + 1, None]})


def test_a_training_row_is_one_window_and_its_truth_is_in_it() -> None:
    rows = some_rows()
    task = fitted(rows)
    assert task.may_be_none is True
    requests = task.rows_to_requests(rows)
    arrays, truth = task.encode(requests), task.truth(rows)["answer"]
    field = task.inputs["context"]
    assert arrays["context"].shape == arrays["context_part"].shape and arrays["context"].shape[1] <= field.length
    for row, word in ((0, "Ann"), (1, "Bob")):
        assert truth[row, 0] == truth[row, 1]
        cell = arrays["context"][row, truth[row, 0]]
        assert field.cutter.unit(int(cell)) == word.lower() or (row == 1 and truth[row, 0] == 0)
    assert truth[2].tolist() == [0, 0]
    # As a request without truth, it is read from its beginning.
    plain = task.encode([task.read({"question": "who ?", "context": rows.column("context")[1]})])
    assert plain["context"].shape[1] == field.length


def test_of_several_windows_some_are_learned_where_the_answer_is_not() -> None:
    contexts = [f"n{at} {LONG} Bob made it . {LONG}" for at in range(90)]
    cells = {"question": ["who ?"] * 90, "context": contexts, "answer": ["Bob"] * 90}
    rows = rows_of(cells)
    task = fitted(rows)
    truth = task.truth(rows)["answer"]
    elsewhere = (truth[:, 0] == 0).mean()
    assert 0.2 < elsewhere < 0.5 and (truth >= 0).all()
    cut = task.encode(task.rows_to_requests(rows))["context"]
    field = task.inputs["context"]
    bob = field.cutter.ids(["bob"])[0][0]
    assert ((cut == bob).any(1) == (truth[:, 0] > 0)).all()


def test_an_answer_that_no_window_holds_teaches_nothing() -> None:
    import torch

    rows = rows_of({"question": ["q"], "context": [LONG + " end"], "answer": [LONG]})
    task = fitted(rows)
    assert task.truth(rows)["answer"].tolist() == [[-1, -1]]
    arrays = {name: torch.from_numpy(array) for name, array in task.encode(task.rows_to_requests(rows)).items()}
    truth = {name: torch.from_numpy(array) for name, array in task.truth(rows).items()}

    def model(**batch: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"answer": torch.zeros(*batch["context"].shape, 2)}

    losses, weights, _ = task.loss(model, arrays, truth)["answer"]  # ty: ignore[invalid-argument-type]
    assert losses.tolist() == [0] and weights.tolist() == [0]


def test_the_loss_is_the_mean_of_two_cross_entropies_over_what_can_be_an_answer() -> None:
    import torch

    rows = rows_of({"question": ["q"], "context": ["a b c"], "answer": ["b c"]})
    task = fitted(rows)
    arrays = {name: torch.from_numpy(array) for name, array in task.encode(task.rows_to_requests(rows)).items()}
    part, place = arrays["context_part"][0], task.truth(rows)["answer"][0]
    logits = torch.randn(1, len(part), 2, generator=torch.Generator().manual_seed(1))
    truth = {"answer": torch.from_numpy(place[None])}
    losses, _, _ = task.loss(lambda **_: {"answer": logits}, arrays, truth)["answer"]  # ty: ignore[invalid-argument-type]
    may = part.bool().clone()
    may[0] = True
    want = [float(logits[0, may, at].logsumexp(0) - logits[0, place[at], at]) for at in (0, 1)]
    assert float(losses[0]) == pytest.approx(sum(want) / 2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"context": "text"}, "is no input"),
        ({"target": "question"}, "is an input too"),
        ({"overlap": 4}, "leaves no room"),
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(LuodiError, match=said):
        make("tasks", {"answering": {**task_of()["answering"], **change}})


def test_texts_that_are_cut_differently_are_refused() -> None:
    inputs = {"question": text_field("bpe", 5), "context": text_field("word", 24)}
    with pytest.raises(LuodiError, match="cut alike"):
        make("tasks", {"answering": {"inputs": inputs}})
    with pytest.raises(LuodiError, match="two columns"):
        make("tasks", {"answering": {"inputs": {"context": text_field()}}})


def test_a_wrong_row_is_named() -> None:
    rows = rows_of({"question": ["q", "q"], "context": ["a", "b"], "answer": ["a", "c"]})
    with pytest.raises(BadRequest, match="row 1: 'c' does not stand"):
        fitted(rows)
    with pytest.raises(LuodiError, match="no column 'context'"):
        fitted(rows_of({"question": ["q"], "contexts": ["a"], "answer": ["a"]}))


def test_augments_change_the_question_alone() -> None:
    from luodi.train.loop.changes import kinds_of

    assert kinds_of(make("tasks", task_of())) == {"question": "text"}  # ty: ignore[invalid-argument-type]


# ---- learned, exported, served --------------------------------------------------------------------------------------


TRANSFORMER = {"text_transformer": {"layers": 1, "width": 32, "heads": 2, "context": 24, "dropout": 0.0}}


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    given = bundle_of(task_of(), TRANSFORMER, year_rows(300, 0, 40), year_rows(60, 1, 40))
    train = make("steps", {"train": {"epochs": 8, "batch_size": 16, "learning_rate": 0.01}})
    return apply(train, given, Run(tmp_path_factory.mktemp("learned"), seed=1))  # ty: ignore[invalid-argument-type]


def test_it_learns_and_finds_the_answer_in_a_later_window(learned: Bundle) -> None:
    task: Any = learned.task
    rows = year_rows(80, 9, 40)
    exam = task.examine(learned.predictor(), rows, 60)
    assert task.score(exam)["answer.exact_match"] > 0.9
    context = " ".join(["w1"] * 90 + ["1907"] + ["w2"] * 500)
    (answer,) = learned.predictor()([task.read({"question": "which year ?", "context": context})])
    assert answer["answer"] | {"probability": 0} == {"value": "1907", "start": 270, "end": 274, "probability": 0}
    (answer,) = learned.predictor()([task.read({"question": "which year ?", "context": "w1 w2 w3"})])
    assert answer["answer"]["value"] == "" and answer["answer"]["start"] is None


def test_the_exam_holds_the_metrics_of_each_row(learned: Bundle) -> None:
    task: Any = learned.task
    rows = year_rows(40, 3, 12)
    exam = task.examine(learned.predictor(), rows, 60)
    value, truth = exam.columns["answer.value"].tolist(), rows.column("answer")
    assert exam.columns["answer.truth"].tolist() == truth
    found = task.score(exam)
    assert found["answer.f1"] == pytest.approx(counts(value, truth, "en", "f1")[:, 0].mean())
    assert list(task.metrics()) == ["answer.f1", "answer.exact_match"]


def test_alone_in_a_batch_or_among_others_the_answers_are_equal(learned: Bundle) -> None:
    requests = learned.task.rows_to_requests(year_rows(12, 4, 60))
    predict = learned.predictor()
    together = predict(requests)
    for request, answer in zip(requests, together, strict=True):
        (alone,) = predict([request])
        assert alone["answer"]["value"] == answer["answer"]["value"]
        assert alone["answer"]["probability"] == pytest.approx(answer["answer"]["probability"], abs=1e-5)


def test_a_dropped_question_is_forgotten(learned: Bundle) -> None:
    flow = learned.predictor().open()
    first, second = flow.add(learned.task.rows_to_requests(year_rows(2, 4, 60)))
    flow.drop(first)
    assert [piece.ticket for piece in flow.step()] == [second] and flow.step() == []


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_exported_with_any_length(learned: Bundle, to: str, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    export: Any = make("steps", {"export": {"to": to}})
    done = apply(export, learned.fork(), Run(tmp_path / "work"))
    again = Bundle.load(done.save(tmp_path / "bundle"))
    requests = learned.task.rows_to_requests(year_rows(20, 6, 70))
    for mine, theirs in zip(again.predictor()(requests), learned.predictor()(requests), strict=True):
        assert mine["answer"]["value"] == theirs["answer"]["value"]
        assert mine["answer"]["probability"] == pytest.approx(theirs["answer"]["probability"], abs=1e-3)


def test_the_schemas_hold_what_goes_over_the_wire(learned: Bundle) -> None:
    import jsonschema

    schema: Any = learned.task.wire_schema()
    request = {"question": "which year ?", "context": "in 1911"}
    jsonschema.validate(request, schema["request"])
    for wire in (request, {**request, "context": "no"}):
        jsonschema.validate(learned.predictor()([learned.task.read(wire)])[0], schema["answer"])
    assert schema["answer"]["properties"]["answer"]["x-piece-of"] == "context"
    for wrong in ({"question": "q"}, {**request, "contxt": "c"}, [request]):
        with pytest.raises(BadRequest):
            learned.task.read(wrong)


# ---- without a network ----------------------------------------------------------------------------------------------


def test_the_baseline_is_the_rare_words_nearest_to_shared_ones(tmp_path: Path) -> None:
    texts = [f"the {name} was made by {who} and it was there" for name, who in
             [("alpha", "Ann"), ("beta", "Bob"), ("gamma", "Cid"), ("delta", "Dee")]]  # fmt: skip
    rows = rows_of({"question": ["who made beta ?"] * 4, "context": texts, "answer": ["Ann", "Bob", "Cid", "Dee"]})
    inputs = {"question": text_field(length=6), "context": text_field(length=40)}
    bundle = bundle_of({"answering": {"inputs": inputs, "overlap": 3}}, "overlap", rows)
    (tmp_path / "work").mkdir()
    solved = apply(make("steps", "solve"), bundle, Run(tmp_path / "work"))  # ty: ignore[invalid-argument-type]
    assert solved.notes["solved"]["rows"] == 4
    answers = solved.predictor()(solved.task.rows_to_requests(rows))
    assert answers[1]["answer"]["value"] == "Bob"
    (tmp_path / "export").mkdir()
    export: Any = make("steps", {"export": {"to": "onnx"}})
    done = apply(export, solved.fork(), Run(tmp_path / "export"))
    again = done.predictor()(done.task.rows_to_requests(rows))
    assert [one["answer"]["value"] for one in again] == [one["answer"]["value"] for one in answers]


def test_other_models_say_that_they_find_no_spans() -> None:
    task = fitted(some_rows())
    for name in ("bilstm", "embedding_bag", "tfidf"):
        config: Any = make("models", name)
        with pytest.raises(ValueError, match=r"answer|tfidf"):
            task.build(config)
    supervised: Any = make(
        "tasks", {"supervised": {"inputs": {"text": text_field()}, "targets": {"label": "category"}}}
    )
    with pytest.raises(ValueError, match="overlap answers questions"):
        supervised.fit(rows_of({"text": ["a b"], "label": ["x"]})).build(make("models", "overlap"))


def test_a_published_encoder_says_where_an_answer_is(tmp_path: Path) -> None:
    """A small BERT as a folder of transformers: its tokens, its parts of a pair, its weights."""
    import torch
    from transformers import BertConfig, BertForQuestionAnswering, PreTrainedTokenizerFast

    torch.manual_seed(0)
    config = BertConfig(vocab_size=24, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
                        max_position_embeddings=32)  # fmt: skip
    theirs = BertForQuestionAnswering(config).eval()
    theirs.save_pretrained(tmp_path / "bert")
    PreTrainedTokenizerFast(tokenizer_object=bert_tokens(), pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
                            unk_token="[UNK]").save_pretrained(tmp_path / "bert")  # fmt: skip
    inputs = {"question": {"text": {"tokens": "pretrained", "length": 6}},
              "context": {"text": {"tokens": "pretrained", "length": 30}}}  # fmt: skip
    contexts = [f"{'in ' * at} {name} made the big red one." for at in range(6) for name in ("Ann", "Bob")]
    rows = rows_of({"question": ["Who made it?"] * 12, "context": contexts, "answer": ["Ann", "Bob"] * 6})
    source = kept_as_parquet(rows, tmp_path / "rows.parquet")
    task = {"answering": {"inputs": inputs, "overlap": 4}}
    system = System("spans", task, "pretrained_text", source, open_source(source, tmp_path))
    (tmp_path / "work").mkdir()
    pretrained = {"pretrained": {"weights": str(tmp_path / "bert")}}
    bundle = build(system, tmp_path / "work", {"split": {"near": "off", "test": 0.25, "validation": 0}}, pretrained)
    assert bundle.model is not None
    heads: Any = bundle.model.heads
    with torch.no_grad():
        heads.layers[0].weight.copy_(theirs.qa_outputs.weight)
        heads.layers[0].bias.copy_(theirs.qa_outputs.bias)
    arrays = bundle.task.encode(bundle.task.rows_to_requests(rows))
    found = bundle.predictor("torch").forward(arrays)["answer"]
    with torch.no_grad():
        want = theirs(
            input_ids=torch.from_numpy(arrays["context"]), attention_mask=torch.from_numpy(arrays["context_mask"]),
            token_type_ids=torch.from_numpy(arrays["context_part"]),
        )  # fmt: skip
    real = arrays["context_mask"] > 0
    np.testing.assert_allclose(found[..., 0][real], want.start_logits.numpy()[real], atol=1e-5)
    np.testing.assert_allclose(found[..., 1][real], want.end_logits.numpy()[real], atol=1e-5)


def test_requests_are_json(learned: Bundle) -> None:
    for request in learned.task.examples(16, 3):
        wire = json.loads(json.dumps(learned.task.write(request)))
        assert learned.task.read(wire) == request
