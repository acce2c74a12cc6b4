"""Language models: what is drawn, one path for single, batched, streamed and joined midway, and what is scored."""

from __future__ import annotations

from math import exp, log

import numpy as np
import pytest
import torch
from small_data import bundle_of

from luodi.core.apply import apply
from luodi.core.bundle import Bundle
from luodi.core.catalog import resolve
from luodi.core.errors import BadRequest, LuodiError
from luodi.core.predictor import Predictor, TorchForward
from luodi.core.run import Run
from luodi.core.source import rows_of
from luodi.core.thing import WrongThing
from luodi.tasks.generation.sampling import Sampling, chosen, draw, whole_part

LINES = [
    "to be, or not to be: that is the question",
    "all the world's a stage",
    "床前明月光，疑是地上霜。",
    "举头望明月，低头思故乡。",
]
PROMPTS = ["to be", "床前", "", "all the world's a stage and much more than fits", "x"]


def language(**more):
    text = {"tokens": "character", "length": 32, "at_least": 1, "marks": True, "case": "keep", "forms": "nfc", **more}
    return {"language": {"inputs": {"text": {"text": text}}}}


def language_bundle(model=None, **more) -> Bundle:
    rows = rows_of({"text": LINES * 8})
    shape = model or {
        "gpt": {"layers": 2, "width": 32, "heads": 4, "kv_heads": 2, "context": 32, "positions": "rotary"}
    }
    return bundle_of(language(**more), shape, rows, rows.take(np.arange(4)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Bundle:
    step = resolve("steps", {"train": {"epochs": 30, "batch_size": 8, "learning_rate": 0.01}})
    return apply(step, language_bundle(), Run(tmp_path_factory.mktemp("language"), threads=1))


def asked(bundle, prompts=PROMPTS, **rules):
    return [bundle.task.read({"text": text, "max_tokens": 20, **rules}) for text in prompts]


def texts(answers):
    return [answer["text"]["value"] for answer in answers]


# ---- what is drawn ---------------------------------------------------------------------------------------------------


def shares_drawn(logits, count=4000, **rules):
    found = [
        chosen(np.asarray(logits, np.float32), Sampling(temperature=1, seed=seed, **rules), (), 0)
        for seed in range(count)
    ]
    return np.bincount(found, minlength=len(logits)) / count


def test_draws_follow_the_probabilities():
    shares = np.asarray([0.5, 0.3, 0.15, 0.05])
    assert np.abs(shares_drawn(np.log(shares)) - shares).max() < 0.03
    hot = np.exp(np.log(shares) / 2)
    found = [chosen(np.log(shares), Sampling(temperature=2, seed=seed), (), 0) for seed in range(4000)]
    assert np.abs(np.bincount(found) / 4000 - hot / hot.sum()).max() < 0.03


@pytest.mark.parametrize(
    ("rules", "left"),
    [({"top_k": 2}, [0, 1]), ({"top_p": 0.8}, [0, 1]), ({"top_p": 0.81}, [0, 1, 2]), ({"top_p": 0.5}, [0]),
     ({"min_p": 0.29}, [0, 1, 2]), ({"min_p": 0.61}, [0])],
)  # fmt: skip
def test_what_narrows_the_choice_keeps_the_rest_in_their_shares(rules, left):
    shares = np.asarray([0.5, 0.3, 0.15, 0.05])
    found = shares_drawn(np.log(shares), **rules)
    wanted = np.where(np.isin(np.arange(4), left), shares, 0)
    assert np.abs(found - wanted / wanted.sum()).max() < 0.03 and not found[wanted == 0].any()


def test_repetition_divides_what_is_positive_and_multiplies_what_is_not():
    logits = np.asarray([2.0, 1.5, -0.5, -0.6])
    rule = Sampling(repetition=2.0)
    assert chosen(logits, rule, (), 0) == 0 and chosen(logits, rule, (0,), 0) == 1
    assert chosen(logits, rule, (0, 1), 0) == 0  # 1.0 against 0.75
    assert chosen(np.asarray([-1.0, -0.6, -0.5]), rule, (2,), 0) == 1  # -0.5 becomes -1


def test_a_draw_is_a_function_of_seed_and_place():
    assert draw(3, 5) == draw(3, 5) != draw(3, 6) != draw(4, 6)
    assert 0.45 < np.mean([draw(0, place) for place in range(2000)]) < 0.55


@pytest.mark.parametrize(
    ("text", "stops", "shown"),
    [("one. two", (".",), ("one", True)), ("one", ("e!",), ("on", False)), ("one", (), ("one", False)),
     ("好\ufffd", (), ("好", False)), ("a##", ("###",), ("a", False)), ("a#b", ("###",), ("a#b", False))],
)  # fmt: skip
def test_stop_strings_and_half_characters_are_held_back(text, stops, shown):
    assert whole_part(text, stops) == shown


# ---- one path --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rules", [{}, {"temperature": 1.0, "seed": 7, "top_p": 0.9}, {"repetition": 1.3}])
def test_alone_batched_and_without_a_memory_are_the_same_text(trained, rules):
    requests = asked(trained, **rules)
    together = trained.predictor()(requests)
    assert together == [trained.predictor()([request])[0] for request in requests]
    assert together == Predictor(trained.task, TorchForward(trained.model))(requests)
    assert any(texts(together)) and all(answer["text"]["finish"] in ("end", "length") for answer in together)


def test_texts_that_join_midway_and_leave_change_nobody(trained):
    requests = asked(trained, max_tokens=12)
    alone = [trained.predictor()([request])[0] for request in requests]
    flow, answers = trained.predictor().open(), {}

    def steps(count):
        for _ in range(count):
            for piece in flow.step():
                answers[piece.ticket] = flow.join(answers.get(piece.ticket), piece.value)

    tickets = flow.add(requests[:2])
    steps(5)
    tickets += flow.add([*requests[2:4], requests[0]])
    steps(3)
    flow.drop(tickets.pop())
    tickets += flow.add(requests[4:])
    steps(60)
    assert [answers[ticket] for ticket in tickets] == alone
    assert flow.step() == []


def test_the_stream_is_the_answer(trained):
    (request,) = asked(trained, ["床前"], max_tokens=30)
    pieces = list(trained.predictor().stream([request]))
    assert "".join(piece.value["text"]["value"] for piece in pieces) == texts(trained.predictor()([request]))[0]
    assert [piece.done for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert texts(trained.predictor()([request]))[0].startswith("明月光")  # it was learned by heart


def test_a_text_goes_on_beyond_the_length_of_the_model(trained):
    (request,) = asked(trained, ["to be, or not"], max_tokens=100)
    (answer,) = trained.predictor()([dict(request, rules=request["rules"].model_copy(update={"repetition": 1.5}))])
    assert answer["text"]["tokens"] > 32 or answer["text"]["finish"] == "end"
    bundle = language_bundle(marks=False)
    made = bundle.ready(Run(None, seed=0))
    (longer,) = made.predictor()(asked(made, ["to be"], max_tokens=100))
    assert longer["text"]["tokens"] == 100 and longer["text"]["finish"] == "length"


def test_a_stop_string_ends_a_text(trained):
    (answer,) = trained.predictor()(asked(trained, ["床前"], stop=["光，"]))
    assert answer["text"] == {"value": "明月", "tokens": 4, "read": 3, "finish": "stop"}


def test_no_tokens_are_written_where_none_are_wanted(trained):
    (answer,) = trained.predictor()(asked(trained, ["a"], max_tokens=0))
    assert answer == {"text": {"value": "", "tokens": 0, "read": 3, "finish": "length"}}


# ---- scores ----------------------------------------------------------------------------------------------------------


def test_the_scores_are_those_of_the_formula(trained):
    rows = trained.data["validation"]
    scores = trained.task.score(trained.task.examine(trained.predictor(), rows, 60))
    losses, tokens, size = 0.0, 0, 0
    for text in rows.column("text"):
        ids = torch.tensor([[2, *trained.task.text.cutter.ids([text])[0], 3]])[:, :32]
        with torch.no_grad():
            logits = trained.model(text=ids)["text"][0, :-1]
        losses += float(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))
        tokens, size = tokens + ids.shape[1] - 1, size + len(text.encode())
    assert scores["text.loss"] == pytest.approx(losses / tokens, rel=1e-5)
    assert scores["text.perplexity"] == pytest.approx(exp(losses / tokens), rel=1e-5)
    assert scores["text.bits_per_byte"] == pytest.approx(losses / log(2) / size, rel=1e-5)
    assert scores["text.accuracy"] > 0.8


def test_a_fresh_model_knows_nothing():
    made = language_bundle().ready(Run(None))
    scores = made.task.score(made.task.examine(made.predictor(), made.data["validation"], 60))
    assert scores["text.loss"] == pytest.approx(log(made.task.text.cutter.size), abs=0.1)


def test_what_is_no_text_is_never_written():
    made = language_bundle(marks=False).ready(Run(None, seed=0))
    cutter = made.task.text.cutter

    def forward(arrays):  # the unknown token is the likeliest everywhere, the fifth one next
        logits = np.zeros((*arrays["text"].shape, cutter.size), np.float32)
        logits[..., [0, 1, 2, 5]] = 9, 10, 8, 5
        return {"text": logits}

    for rules in ({}, {"temperature": 2.0, "seed": 3}):
        for answer in Predictor(made.task, forward)(asked(made, **rules)):
            assert "\N{REPLACEMENT CHARACTER}" not in answer["text"]["value"]
            assert rules or answer["text"]["value"] == cutter.units[5] * 20


# ---- bundles and forms -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_an_exported_form_writes_the_same_text(trained, tmp_path, to):
    after = apply(resolve("steps", {"export": {"to": to}}), trained.fork(), Run(tmp_path))
    assert after.forms[to].signature.state == {"past": "new"} and after.forms[to].drift < 1e-4
    path = after.save(tmp_path / "bundle")
    opened = Bundle.load(path, form=to)
    assert opened.model is None
    requests = asked(trained)
    assert opened.predictor(to)(requests) == trained.predictor()(requests)


def test_large_vocabularies_keep_few_golden_places(trained):
    outputs = {"text": np.zeros((16, 40, 262_144), np.float16)}
    assert trained.task.kept(outputs)["text"].shape == (16, 4, 262_144)
    small = {"text": np.zeros((16, 40, 100), np.float32)}
    assert trained.task.kept(small) is small


def test_where_logits_are_many_a_few_rows_go_at_a_time(trained, monkeypatch):
    """The same scores, losses and texts; no forward had more logits than allowed, or more than one row's."""
    rows, size = trained.data["validation"], trained.task.text.cutter.size
    model, seen = TorchForward(trained.model), []
    arrays = trained.task.encode(trained.task.rows_to_requests(rows))
    batch = {name: torch.as_tensor(array) for name, array in arrays.items()}

    def forward(arrays):
        seen.append(arrays["text"].size * size)
        return model(arrays)

    def found():
        predictor = Predictor(trained.task, forward, trained.signature())
        with torch.no_grad():
            loss = trained.task.loss(trained.model, batch, {})["text"]
        return trained.task.score(trained.task.examine(predictor, rows, 60)), predictor(asked(trained)), loss

    scores, answers, loss = found()
    most, seen[:] = max(seen), []
    monkeypatch.setattr("luodi.tasks.generation.likelihood.AT_ONCE", 2 * 32 * size)
    few, same, parts = found()
    assert same == answers and few == pytest.approx(scores, rel=1e-6)
    assert max(seen) <= 2 * 32 * size < most
    torch.testing.assert_close(parts[0], loss[0])
    assert torch.equal(parts[1], loss[1])


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wire", "said"),
    [({"text": "a", "temprature": 1}, "temperature"), ({"text": "a", "top_p": 0}, "top_p"), ({}, "missing"),
     ("a", "object"), ({"text": 3}, "expected a text"), ({"text": "a", "stop": [""]}, "stop")],
)  # fmt: skip
def test_wrong_requests_name_the_field(trained, wire, said):
    with pytest.raises(BadRequest, match=said):
        trained.task.read(wire)


def test_a_request_comes_back_from_the_wire(trained):
    (request,) = asked(trained, ["to be"], temperature=0.5, stop=["."], seed=9)
    assert trained.task.read(trained.task.write(request)) == request


def test_what_a_language_model_cannot_learn_is_refused():
    with pytest.raises(WrongThing, match="words lose"):
        resolve("tasks", language(tokens="word"))
    with pytest.raises(WrongThing, match="one column"):
        resolve("tasks", {"language": {"inputs": {"x": "number"}}})
    with pytest.raises(LuodiError, match="no column 'text'"):
        resolve("tasks", language()).fit(rows_of({"texts": ["a"]}))
