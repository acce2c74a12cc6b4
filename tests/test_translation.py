"""Translation: one path for greedy, drawn, beams, single, batched and joined midway; read once; scored; exported."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from itertools import product
from math import exp

import numpy as np
import pytest
import torch
from small_data import bundle_of

from luodi import Recipe, run
from luodi.core import records
from luodi.core.apply import apply
from luodi.core.bundle import Bundle
from luodi.core.catalog import resolve
from luodi.core.errors import BadRequest, LuodiError
from luodi.core.predictor import Predictor, TorchForward
from luodi.core.run import Run
from luodi.core.source import rows_of
from luodi.core.statistics import bootstrap
from luodi.core.thing import WrongThing
from luodi.report.panels.writing import Writing as Panel
from luodi.report.table import table_of
from luodi.report.view import View
from luodi.tasks.generation.beams import Beams, Search, likeliest, log_shares
from luodi.tasks.generation.sampling import Sampling
from luodi.tasks.generation.writing import Writing

PAIRS = {
    "red heart": "红心", "blue heart": "蓝心", "green heart": "绿心", "red apple": "红苹果", "green apple": "绿苹果",
    "red book": "红书", "blue book": "蓝书", "green book": "绿书", "cat": "猫", "dog": "狗", "cat face": "猫脸",
}  # fmt: skip
ASKED = ["red heart", "dog face", "", "green apple and a long rest that does not fit", "blue book", "cat"]
SHAPE = {"layers": 1, "width": 32, "heads": 4, "kv_heads": 2, "context": 24, "dropout": 0.0}


def translation(search=None, target=None, **more):
    text = {"tokens": "word", "length": 24, "at_least": 1}
    written = {**text, "tokens": "character", "length": 12, "case": "keep", "forms": "nfc", **(target or {})}
    fields = {"inputs": {"english": {"text": text}}, "targets": {"chinese": {"text": written}}}
    return {"translation": {**fields, "search": search or {}, **more}}


def untrained(**more) -> Bundle:
    rows = rows_of({"english": [*PAIRS] * 6, "chinese": [*PAIRS.values()] * 6})
    held = rows_of({"english": [*PAIRS], "chinese": [*PAIRS.values()]})
    return bundle_of(translation(**more), {"encoder_decoder": SHAPE}, rows, held)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Bundle:
    step = resolve("steps", {"train": {"epochs": 20, "batch_size": 11, "learning_rate": 0.01}})
    return apply(
        step, untrained(search={"beams": 3}, translated=11), Run(tmp_path_factory.mktemp("translation"), threads=1)
    )


@pytest.fixture(scope="module")
def doubtful(trained) -> Bundle:
    """One whose weights were shaken: its texts are odd, differ from source to source, and its beams change places."""
    bundle = trained.fork().replace(task=trained.task.model_copy(update={"search": Search()}))
    dice = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in bundle.model.parameters():
            weight.add_(torch.randn(weight.shape, generator=dice) * 0.05)
    return bundle


def asked(bundle, sources=ASKED, **rules):
    return [bundle.task.read({"english": text, "max_tokens": 10, "beams": 1, **rules}) for text in sources]


def texts(answers):
    return [answer["chinese"]["value"] for answer in answers]


def every(bundle, requests):
    return [bundle.predictor()([request])[0] for request in requests]


# ---- one path --------------------------------------------------------------------------------------------------------


def test_learns_its_pairs_by_heart(trained):
    for beams in (1, 3):
        found = trained.predictor()(asked(trained, [*PAIRS], beams=beams))
        assert texts(found) == [*PAIRS.values()]
        first = {"value": "红心", "tokens": 3, "read": 2, "finish": "end"}
        assert found[0] == {"chinese": first}


@pytest.mark.parametrize(
    "rules", [{}, {"temperature": 1.0, "seed": 7}, {"repetition": 1.4}, {"beams": 4}, {"beams": 3, "length_penalty": 0}]
)
def test_alone_batched_and_without_a_memory_are_the_same_text(doubtful, rules):
    requests = asked(doubtful, **rules)
    together = doubtful.predictor()(requests)
    assert together == every(doubtful, requests)
    assert together == Predictor(doubtful.task, TorchForward(doubtful.model))(requests)
    assert len(set(texts(together))) > 2


def test_texts_that_join_midway_and_leave_change_nobody(doubtful):
    requests = [request for beams in (1, 4, 2) for request in asked(doubtful, beams=beams)]
    alone = every(doubtful, requests)
    flow, answers = doubtful.predictor().open(), {}

    def steps(count):
        for _ in range(count):
            for piece in flow.step():
                answers[piece.ticket] = flow.join(answers.get(piece.ticket), piece.value)

    tickets = flow.add(requests[:8])
    steps(3)
    dropped = flow.add([requests[7], requests[0]])
    tickets += flow.add(requests[8:12])
    steps(2)
    for ticket in dropped:
        flow.drop(ticket)
    tickets += flow.add(requests[12:])
    steps(60)
    assert [answers[ticket] for ticket in tickets] == alone
    assert flow.step() == [] and not flow.sources.held and not flow.memory.lengths


def test_more_rows_than_fit_a_forward_wait_for_each_other(doubtful):
    requests = asked(doubtful, [*PAIRS] * 3, beams=8)
    sizes = []

    def forward(arrays):
        sizes.append(len(next(iter(arrays.values()))))
        return TorchForward(doubtful.model)(arrays)

    found = Predictor(doubtful.task, forward, doubtful.signature())(requests)
    assert found == every(doubtful, requests[:11]) * 3 and max(sizes) <= 64


def test_the_stream_is_the_answer(trained):
    (request,) = asked(trained, ["green apple"])
    pieces = list(trained.predictor().stream([request]))
    assert [piece.value["chinese"]["value"] for piece in pieces] == ["绿", "苹", "果", ""]
    assert [piece.done for piece in pieces] == [False] * 3 + [True]
    whole = [piece.value["chinese"]["value"] for piece in trained.predictor().stream(asked(trained, ["cat"], beams=3))]
    assert whole[-1] == "猫" and not any(whole[:-1])


def test_the_source_is_read_once_for_all_steps(trained):
    given = []

    def forward(arrays):
        given.append(set(arrays))
        return TorchForward(trained.model)(arrays)

    Predictor(trained.task, forward, trained.signature())(asked(trained, ["red apple", "cat"]))
    assert given[0] == {"english", "english_mask"}
    step = {"english_mask", "chinese", "chinese_mask", "memory", "past", "start"}
    assert len(given) == 5 and all(names == step for names in given[1:])


def test_what_is_begun_goes_on(trained):
    (request,) = asked(trained, ["green apple"], chinese="绿苹")
    assert texts(trained.predictor()([request])) == ["果"]
    assert trained.task.read(trained.task.write(request)) == request


def test_a_text_ends_at_the_field_s_length_and_at_max_tokens(doubtful):
    for beams in (1, 4):
        (short,) = doubtful.predictor()(asked(doubtful, ["cat"], max_tokens=1, beams=beams))
        assert short["chinese"]["tokens"] == 1
        (none,) = doubtful.predictor()(asked(doubtful, ["cat"], max_tokens=0, beams=beams))
        assert none == {"chinese": {"value": "", "tokens": 0, "read": 1, "finish": "length"}}
    fresh = untrained().ready(Run(None, seed=0))
    (longest,) = fresh.predictor()(asked(fresh, ["cat"], max_tokens=50))
    assert longest["chinese"]["tokens"] <= 11


# ---- beams -----------------------------------------------------------------------------------------------------------


class Dice:
    """A cutter of so many tokens, of which one is the end."""

    ends, pad, never = (0,), 5, ()

    @staticmethod
    def text(ids):
        return "".join(map(str, ids))


def table(seed, size=4):
    """A language in which the next token's logits hang on the whole text: drawn anew for each."""

    def logits(ids):
        return np.random.default_rng([seed, *ids]).normal(size=size) * 2

    return logits


def searched(logits, most, search):
    way = Beams(Writing(0, "x", Dice, Sampling(), [], 0, most), search)
    while not way.finish:
        _, _ = way.go_on(np.stack([logits(line) for line in way.lines]))
    return way.writing.ids


def exhaustive(logits, most, penalty, size=4):
    """The best of every text: those that end within `most` tokens, and those that are cut there."""
    best = (-np.inf, [])
    for length in range(1, most + 1):
        for ids in product(range(size), repeat=length):
            if 0 in ids[:-1] or (ids[-1] != 0 and length < most):
                continue
            score = sum(float(log_shares(logits(ids[:at])[None])[0, ids[at]]) for at in range(length))
            best = max(best, (score / length**penalty, list(ids)))
    return best[1]


@pytest.mark.parametrize("penalty", [0.0, 0.7, 1.0, 2.0])
def test_a_search_wide_enough_finds_what_trying_every_text_finds(penalty):
    for seed in range(12):
        wide = Search(beams=64, length_penalty=penalty)  # 3 tokens that go on, 3 times: 27 lines, 4 * 27 at the end
        assert searched(table(seed), 4, wide) == exhaustive(table(seed), 4, penalty)


def test_one_beam_is_greedy_and_more_are_never_less_likely_than_it():
    better = 0
    for seed in range(40):
        logits, greedy = table(seed), []
        while len(greedy) < 6 and 0 not in greedy:
            greedy.append(int(logits(greedy).argmax()))
        assert searched(logits, 6, Search(beams=1)) == greedy

        def score(ids, logits=logits):
            return sum(float(log_shares(logits(ids[:at])[None])[0, ids[at]]) for at in range(len(ids))) / len(ids)

        better += score(searched(logits, 6, Search(beams=4))) > score(greedy) + 1e-9
    assert better > 4


def test_beams_follow_the_rows_of_the_memory(doubtful):
    """What the flow finds with its cache is what a plain search over whole forwards finds."""
    for request in asked(doubtful, beams=5):
        arrays = doubtful.task.encode([request])

        def logits(ids, arrays=arrays):
            with torch.no_grad():
                source = {name: torch.as_tensor(arrays[name]) for name in ("english", "english_mask")}
                return doubtful.model(**source, chinese=torch.tensor([ids]))["chinese"][0, -1].numpy()

        writing = Writing(0, "chinese", doubtful.task.written.cutter, Sampling(), request["prompt"], 0, 10)
        way = Beams(writing, Search(beams=5))
        while not way.finish:
            way.go_on(np.stack([logits(line) for line in way.lines]))
        cut = writing.ids[:-1] if writing.finish == "end" else writing.ids
        assert texts(doubtful.predictor()([request])) == [writing.text(cut)]


def test_the_likeliest_come_first_and_ties_in_their_order():
    assert likeliest(np.asarray([1.0, 3.0, 2.0, 3.0, 0.0]), 3).tolist() == [1, 3, 2]
    assert likeliest(np.asarray([1.0, 1.0]), 5).tolist() == [0, 1]


# ---- scores ----------------------------------------------------------------------------------------------------------


def test_the_scores_are_those_of_the_formula_and_of_sacrebleu(doubtful):
    from sacrebleu import corpus_bleu, corpus_chrf

    bundle = replace(doubtful, task=doubtful.task.model_copy(update={"search": Search(beams=3)}))
    rows = bundle.data["validation"]
    exam = bundle.task.examine(bundle.predictor(), rows, 60)
    scores = bundle.task.score(exam)
    assert list(scores) == list(bundle.task.metrics()) and bundle.task.language == "zh"
    cutter, losses, tokens = bundle.task.written.cutter, 0.0, 0
    for source, target in PAIRS.items():
        arrays = bundle.task.encode([bundle.task.read({"english": source})])
        given = {name: torch.as_tensor(arrays[name]) for name in ("english", "english_mask")}
        ids = torch.tensor([[2, *cutter.ids([target])[0], 3]])
        with torch.no_grad():
            logits = bundle.model(**given, chinese=ids)["chinese"][0, :-1]
        losses += float(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))
        tokens += ids.shape[1] - 1
    assert scores["chinese.loss"] == pytest.approx(losses / tokens, rel=1e-5)
    assert scores["chinese.perplexity"] == pytest.approx(exp(losses / tokens), rel=1e-5)
    for end, beams in (("", 1), ("_beam", 3)):
        written = texts(every(bundle, asked(bundle, [*PAIRS], beams=beams, max_tokens=64)))
        assert exam.columns[f"chinese.written{end}"].tolist() == written
        bleu = corpus_bleu(written, [[*PAIRS.values()]], tokenize="zh").score
        chrf = corpus_chrf(written, [[*PAIRS.values()]]).score
        assert scores[f"chinese.bleu{end}"] == pytest.approx(bleu) and scores[f"chinese.chrf{end}"] == pytest.approx(
            chrf
        )
        right = np.mean([one == other for one, other in zip(written, PAIRS.values(), strict=True)])
        assert scores[f"chinese.exact_match{end}"] == right


def test_a_corpus_figure_of_a_resample_is_that_of_its_rows(trained):
    rows = trained.data["validation"]
    exam = trained.task.examine(trained.predictor(), rows, 60)
    found = bootstrap(lambda at: trained.task.score(exam.take(at)), None, len(exam), 20, trained.task.metrics())
    assert found["chinese.exact_match"].value == 1.0 and found["chinese.chrf"].value == pytest.approx(100)
    assert found["chinese.loss"].low < found["chinese.loss"].value < found["chinese.loss"].high


def test_only_so_many_rows_are_translated(doubtful):
    rows = doubtful.data["validation"]
    few = doubtful.task.model_copy(update={"translated": 4})
    exam = few.examine(Predictor(few, TorchForward(doubtful.model), doubtful.signature()), rows, 60)
    assert len(exam) == 11 and exam.columns["chinese.bleu"][4:].sum() == 0
    first = doubtful.task.examine(doubtful.predictor(), rows.take(np.arange(4)), 60)
    for metric in ("bleu", "chrf", "exact_match"):
        assert few.score(exam)[f"chinese.{metric}"] == doubtful.task.score(first)[f"chinese.{metric}"]
    none = doubtful.task.model_copy(update={"translated": 0})
    scores = none.score(none.examine(doubtful.predictor(), rows, 60))
    assert (
        list(scores)
        == list(none.metrics())
        == [f"chinese.{m}" for m in ("loss", "perplexity", "bits_per_byte", "accuracy")]
    )


def test_the_language_is_that_of_the_target():
    fitted = untrained().task.fit(rows_of({"english": ["猫"], "chinese": ["a cat, 猫"]}))
    assert fitted.language == "en"
    assert untrained(language="zh-words").ready(Run(None)).task.language == "zh-words"


# ---- bundles and forms -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_a_form_of_two_graphs_writes_the_same_text(trained, tmp_path, to):
    after = apply(resolve("steps", {"export": {"to": to}}), trained.fork(), Run(tmp_path))
    form = after.forms[to]
    assert form.signature.state == {"past": "new"} and form.drift < 1e-4
    assert form.signature.reading.inputs.keys() == {"english", "english_mask"}
    assert "english" not in form.signature.inputs and (form.folder / "reading").is_dir()
    path = after.save(tmp_path / "bundle")
    opened = Bundle.load(path, form=to)
    assert opened.model is None
    for rules in ({}, {"beams": 3}):
        requests = asked(trained, **rules)
        assert opened.predictor(to)(requests) == trained.predictor()(requests)
    script = (
        "import sys\nfrom pathlib import Path\nfrom luodi.core.bundle import Bundle\n"
        f"opened = Bundle.load(Path({str(path)!r}), form={to!r})\n"
        f"(answer,) = opened.predictor({to!r})([opened.task.read({{'english': 'red book'}})])\n"
        "assert answer['chinese']['value'] == '红书' and 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    damaged = sorted((path / "forms" / to / "reading").iterdir())[0]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\0")
    with pytest.raises(LuodiError, match=f"reading/{damaged.name} was changed"):
        Bundle.load(path, form=to)


def test_a_run_shows_greedy_beside_beams_and_what_was_written(translation_system, tmp_path, quick):
    task = {"translation": {**translation_system.task["translation"], "search": {"beams": 2}}}
    system = replace(translation_system, task=task)
    steps = ("split", {"train": {"epochs": 1, "batch_size": 64}}, "quantize")
    result = run(Recipe.of(system.recipe(*steps, name="names")), out=tmp_path)
    table = table_of(result.evidence)
    assert [column.title for column in table.columns[:4]] == ["bleu", "bleu beam", "chrf", "chrf beam"]
    assert result.evidence[2].measures["chinese.chrf_beam"].change is not None
    view = View(tmp_path / "names")
    page = Panel().html(view)
    rows = view.example(str(records.read(view.folder / "records" / view.last.records).ids[0]))
    assert "8 of 8 rows" in page and page.count("<tr>") == 9
    assert f"<td>{rows['english']}</td><td>{rows['chinese']}</td>" in page and "<th scope='col'>beam</th>" in page


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wire", "said"),
    [({"english": "a", "beam": 1}, "beams"), ({"chinese": "红"}, "missing"), ("a", "object"), ({"english": 3}, "text"),
     ({"english": "a", "beams": 0}, "beams"), ({"english": "a", "beams": 2, "temperature": 1}, "no temperature"),
     ({"english": "a", "beams": 2, "stop": ["."]}, "no stop")],
)  # fmt: skip
def test_wrong_requests_name_the_field(trained, wire, said):
    with pytest.raises(BadRequest, match=said):
        trained.task.read(wire)


def test_a_request_comes_back_from_the_wire(trained):
    for rules in ({"temperature": 0.5, "stop": ["."], "seed": 9}, {"beams": 4, "length_penalty": 0.5}):
        (request,) = asked(trained, ["to be"], **rules)
        assert trained.task.read(trained.task.write(request)) == request


def test_what_cannot_be_a_translation_is_refused():
    with pytest.raises(WrongThing, match="words lose"):
        resolve("tasks", translation(target={"tokens": "word"}))
    with pytest.raises(WrongThing, match="one column"):
        resolve("tasks", {"translation": {"inputs": {"a": "text", "b": "text"}, "targets": {"c": "text"}}})
    with pytest.raises(WrongThing, match="no temperature"):
        resolve("tasks", translation(search={"beams": 2}, sampling={"temperature": 1}))
    with pytest.raises(WrongThing, match="another part"):
        resolve("tasks", {"translation": {"inputs": {"seed": "text"}, "targets": {"c": {"text": {"tokens": "bpe"}}}}})
    with pytest.raises(LuodiError, match="no column 'chinese'"):
        resolve("tasks", translation()).fit(rows_of({"english": ["a"]}))
