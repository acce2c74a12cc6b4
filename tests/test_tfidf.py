"""TF-IDF and its step: equal to scikit-learn's where no hashes meet, and the same answers in every form."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import System
from small_data import Run, bundle_of

from luodi.core.apply import apply
from luodi.core.bundle import Bundle
from luodi.core.catalog import resolve
from luodi.core.errors import Refused
from luodi.core.rows import Rows
from luodi.core.source import rows_of
from luodi.core.spec import Spec
from luodi.models.layers.bags import FACTORS, MOST, counted, ngrams_of
from luodi.models.tfidf import TfIdf

LABELS, FEATURES = ("a", "b", "c"), 2**18


def texts(count: int = 240, vocabulary: int = 40, seed: int = 0) -> tuple[list[list[int]], np.ndarray]:
    """Rows of ids from 4 on, of 0 to 30 tokens; a label makes some tokens likelier."""
    dice = np.random.default_rng(seed)
    labels = dice.integers(0, len(LABELS), count)
    rows = []
    for label in labels:
        usual = dice.integers(4, vocabulary, dice.integers(0, 24))
        own = dice.integers(4 + 4 * label, 8 + 4 * label, dice.integers(0, 6))
        rows.append(dice.permutation([*usual, *own]).astype(int).tolist() or [1])
    return rows, labels


def batch_of(rows: list[list[int]], wider: int = 0) -> dict[str, torch.Tensor]:
    width = max(map(len, rows)) + wider
    ids, mask = np.zeros((len(rows), width), np.int64), np.zeros((len(rows), width), np.int64)
    for place, row in enumerate(rows):
        ids[place, : len(row)], mask[place, : len(row)] = row, 1
    return {"text": torch.from_numpy(ids), "text_mask": torch.from_numpy(mask)}


def model_of(outputs: dict[str, Spec], **config: Any) -> TfIdf:
    tokens = Spec(kind="tokens", shape=("length",), size=64, dtype="int64", most=64)
    mask = Spec(kind="mask", shape=("length",), dtype="int64", most=64)
    return TfIdf({"text": tokens, "text_mask": mask}, outputs, **config)


def category(size: int) -> dict[str, Spec]:
    return {"label": Spec(kind="category", shape=(size,), size=size)}


def runs(row: list[int], lengths: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [tuple(row[at : at + size]) for size in lengths for at in range(len(row) - size + 1)]


def bucket(gram: tuple[int, ...]) -> int:
    """The bucket of one n-gram, as the model has it."""
    row = torch.tensor([gram])
    return int(ngrams_of(row, torch.ones_like(row), (len(gram),), FEATURES, 0)[0, 0])


def vectorised(rows: list[list[int]], lengths: tuple[int, ...], sublinear: bool) -> tuple[Any, Any]:
    """scikit-learn's own TF-IDF over the same n-grams, and its matrix; no two of them share a bucket."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectors = TfidfVectorizer(analyzer=lambda row: runs(row, lengths), sublinear_tf=sublinear)
    matrix = vectors.fit_transform(rows)
    assert len({bucket(gram) for gram in vectors.vocabulary_}) == len(vectors.vocabulary_)
    return vectors, matrix


@pytest.mark.parametrize(("lengths", "sublinear", "size"), [((1, 2), False, 3), ((1, 2), True, 2), ((1, 3), False, 2)])
def test_equal_to_scikit_learn(lengths: tuple[int, ...], sublinear: bool, size: int) -> None:
    from sklearn.linear_model import LogisticRegression

    rows, labels = texts()
    labels = labels % size
    vectors, matrix = vectorised(rows, lengths, sublinear)
    theirs = LogisticRegression(C=2.0, max_iter=5000, tol=1e-9).fit(matrix, labels)
    model = model_of(category(size), ngrams=lengths, sublinear=sublinear, c=2.0)
    truth = torch.from_numpy(labels)
    batches = [(batch_of(rows[at : at + 50]), {"label": truth[at : at + 50]}) for at in range(0, len(rows), 50)]
    noted = model.solve(batches)
    assert noted == {"rows": len(rows), "ngrams": matrix.shape[1], "features": FEATURES}
    places, frequencies = model.frequencies(batch_of(rows))
    dense = np.zeros((len(rows), FEATURES))
    np.put_along_axis(dense, places.numpy(), 0.0, 1)
    for row, column, value in zip(
        np.repeat(np.arange(len(rows)), places.shape[1]), places.flatten().tolist(),
        model.weighed(places, frequencies).flatten().tolist(), strict=True,
    ):  # fmt: skip
        dense[row, column] += value
    order = [bucket(gram) for gram in vectors.get_feature_names_out()]
    assert np.abs(dense[:, order] - matrix.toarray()).max() < 1e-6
    with torch.no_grad():
        mine = torch.softmax(model(**batch_of(rows))["label"].double(), 1).numpy()
    assert np.abs(mine - theirs.predict_proba(matrix)).max() < 1e-4
    weight = model.layers[0].weight.detach().numpy()[:, order]
    weight = weight[1] - weight[0] if size == 2 else weight
    assert np.abs(weight - theirs.coef_).max() < 1e-3 * np.abs(theirs.coef_).max()
    assert (mine.argmax(1) == theirs.predict(matrix)).all()
    with torch.no_grad():  # their weights in our layer: their scores, to the last digits of float32
        theirs_here = np.zeros((size, FEATURES), np.float32)
        theirs_here[:, order] = theirs.coef_ if size > 2 else np.concatenate([-theirs.coef_, theirs.coef_]) / 2
        model.layers[0].weight.copy_(torch.from_numpy(theirs_here))
        bias = theirs.intercept_ if size > 2 else np.concatenate([-theirs.intercept_, theirs.intercept_]) / 2
        model.layers[0].bias.copy_(torch.from_numpy(bias))
        scores = model(**batch_of(rows))["label"].numpy()
    scores = scores[:, 1] - scores[:, 0] if size == 2 else scores
    assert np.abs(scores - theirs.decision_function(matrix)).max() < 1e-5


def test_a_number_is_solved_as_ridge_regression() -> None:
    from sklearn.linear_model import Ridge

    rows, labels = texts(120)
    truth = (labels * 1.5 + np.asarray([len(row) for row in rows]) / 10).astype(np.float32)
    _, matrix = vectorised(rows, (1,), False)
    model = model_of({"size": Spec(kind="number", shape=(1,))}, ngrams=(1,), sublinear=False, c=0.5)
    model.solve([(batch_of(rows), {"size": torch.from_numpy(truth)[:, None]})])
    theirs = Ridge(alpha=2.0, solver="lsqr", tol=1e-10).fit(matrix, truth).predict(matrix)
    with torch.no_grad():
        assert np.abs(model(**batch_of(rows))["size"][:, 0].numpy() - theirs).max() < 1e-3


def test_padding_and_neighbours_change_nothing() -> None:
    rows, _ = texts(20)
    model = model_of(category(3), ngrams=(1, 2, 3))
    with torch.no_grad():
        whole = model(**batch_of(rows))["label"]
        assert torch.allclose(model(**batch_of(rows, wider=7))["label"], whole, atol=1e-6)
        for place in range(20):
            assert torch.allclose(model(**batch_of(rows[place : place + 1]))["label"][0], whole[place], atol=1e-6)


def test_counts_are_those_of_a_counter() -> None:
    dice = np.random.default_rng(1)
    places = torch.from_numpy(dice.integers(0, 8, (50, 17)))  # 7: padding
    found, counts = counted(places, 7)
    for row, mine, often in zip(places.tolist(), found.tolist(), counts.tolist(), strict=True):
        wanted = Counter(one for one in row if one != 7)
        assert {one: count for one, count in zip(mine, often, strict=True) if count} == wanted


def test_hashing_is_exact_in_float32_and_keeps_frequent_pairs_apart() -> None:
    assert max(FACTORS) * MOST + 2**18 < 2**24
    pairs = torch.cartesian_prod(torch.arange(300), torch.arange(300))
    found = ngrams_of(pairs, torch.ones_like(pairs), (2,), FEATURES, 0)[:, 0]  # the second place is past the end
    assert len(torch.unique(found)) == len(pairs)
    assert int(found.min()) >= 0 and int(found.max()) < FEATURES


# ---- as a bundle ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def solved(reviews: Rows, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    task = {"supervised": {"inputs": {"text": {"text": {"tokens": "character"}}}, "targets": {"label": "category"}}}
    bundle = bundle_of(task, {"tfidf": {"features": 2**14}}, reviews[:400], reviews[400:])
    return apply(resolve("steps", "solve"), bundle, Run(tmp_path_factory.mktemp("solved")))


def accuracy(bundle: Bundle) -> float:
    assert bundle.data is not None
    held = bundle.data["validation"]
    said = [one["label"]["value"] for one in bundle.predictor()(bundle.task.rows_to_requests(held))]
    return float(np.mean(np.asarray(said) == np.asarray(held.column("label"), object).astype(str)))


def test_it_learns_and_comes_back_from_disk(solved: Bundle, tmp_path: Path) -> None:
    assert accuracy(solved) > 0.7
    assert {"model", "float", "fitted", "exposed"} <= solved.facts and solved.notes["solved"]["rows"] == 400
    again = Bundle.load(solved.save(tmp_path / "bundle"))
    requests = solved.task.examples(5, seed=1)
    assert again.predictor()(requests) == solved.predictor()(requests)


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_every_runtime_answers_the_same(solved: Bundle, tmp_path: Path, to: str) -> None:
    exported = apply(resolve("steps", {"export": {"to": to}}), solved.fork(), Run(tmp_path))
    assert solved.data is not None
    form = exported.forms[to]
    for rows in (solved.data["validation"][:40], solved.data["validation"][50:51], rows_of({"text": ["", "好"]})):
        arrays = solved.task.encode(solved.task.rows_to_requests(rows))
        want = solved.predictor("torch").forward(arrays)["label"]
        assert np.abs(exported.predictor(to).forward(arrays)["label"] - want).max() < 1e-4
    assert form.drift < form.tolerance


def test_pruned_and_quantised(solved: Bundle, tmp_path: Path) -> None:
    pruned = apply(resolve("steps", {"prune": {"sparsity": 0.5}}), solved.fork(), Run(tmp_path))
    assert pruned.notes["sparsity"]["layers.0"] == pytest.approx(0.5)
    small = apply(resolve("steps", "quantize"), pruned, Run(tmp_path))
    assert small.notes["layers"] == {"layers.0": "int8 linear"}
    assert abs(accuracy(small) - accuracy(solved)) < 0.05


def test_who_cannot_be_solved(table_system: System, text_system: System, tmp_path: Path) -> None:
    step = resolve("steps", "solve")
    rows = text_system.rows
    with pytest.raises(Refused, match="only a model with a method `solve` can be solved"):
        apply(step, bundle_of(text_system.task, text_system.model, rows), Run(tmp_path))
    task = {"supervised": {"inputs": {"text": "text"}, "targets": {"label": {"category": {"label_smoothing": 0.1}}}}}
    with pytest.raises(Refused, match="labels count alike"):
        apply(step, bundle_of(task, "tfidf", rows), Run(tmp_path))
