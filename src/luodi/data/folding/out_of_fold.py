"""Every training row's probabilities from a model that did not learn from it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from luodi.core.bundle import Bundle
from luodi.core.catalog import require
from luodi.core.rows import Rows
from luodi.core.run import Run
from luodi.core.spec import Arrays, Spec
from luodi.core.step import Step
from luodi.core.task import Task
from luodi.data.columns.fields import texts
from luodi.data.folding.folds import Fold, folds_of
from luodi.data.folding.members import asked

SIDE = 16  # pixels that a picture is averaged to for a linear model
PENALTIES = (0.001, 0.01, 0.1, 1.0)  # scikit-learn's C, of which each fold has its own
INNER, MOST = 3, 1000  # folds inside a fold, and rows of it, by which the penalty is chosen
CHUNK = 512  # rows encoded at a time


def out_of_fold(
    bundle: Bundle, rows: Rows, target: str, steps: Sequence[Step], count: int, run: Run
) -> tuple[list[str], np.ndarray]:
    """(labels, their probabilities (rows, labels)): by `steps` on the bundle's own model, or with none by a linear
    model of scikit-learn on the encoded inputs."""
    given = texts(rows, target)
    labels = sorted(set(given))
    shares = np.zeros((len(rows), len(labels)))
    places = {label: place for place, label in enumerate(labels)}
    names = [str(name) for name in rows.ids]
    encoded = None if steps else features(bundle.task.fit(rows), rows)  # fitted on all: every label is known
    for number, fold in enumerate(folds_of(names, given, count, seed=0)):
        inside = run.at("fold", number)
        inside.out.mkdir(parents=True, exist_ok=True)
        if encoded is None:
            answered = asked(bundle, rows, steps, fold, inside)
            known, found = answered.labels[target], answered.exam.columns[f"{target}.probabilities"]
        else:
            known, found = _linear(encoded, given, fold, penalty_of(encoded, given, names, fold))
        for place, label in enumerate(known):
            if label in places:
                shares[fold.asked, places[label]] = found[:, place]
        run.log("progress", {"done": number + 1, "total": count, "what": "folds"})
    return labels, shares


def penalty_of(encoded: np.ndarray, given: Sequence[str], names: Sequence[str], fold: Fold) -> float:
    """The strongest penalty under which rows of the fold, asked about in folds of their own, have their labels about as
    probably as under the best one: within one standard error of the paired difference, since labels may be wrong.

    Only rows that the fold learns from are looked at, every so-manieth of many.
    """
    rows = fold.learned[:: -(-len(fold.learned) // MOST)]
    losses: dict[float, list[float]] = {penalty: [] for penalty in PENALTIES}
    for inner in folds_of([names[row] for row in rows], [given[row] for row in rows], INNER, seed=0):
        one = Fold(rows[inner.learned], rows[inner.asked])
        if len({given[row] for row in one.learned}) < 2:
            continue
        for penalty in PENALTIES:
            known, found = _linear(encoded, given, one, penalty)
            places = {label: place for place, label in enumerate(known)}
            right = [found[at, places[given[row]]] if given[row] in places else 0 for at, row in enumerate(one.asked)]
            losses[penalty] += (-np.log(np.maximum(right, 1e-12))).tolist()
    if not losses[PENALTIES[0]]:
        return PENALTIES[0]
    table = np.array([losses[penalty] for penalty in PENALTIES])
    more = table - table[table.mean(axis=1).argmin()]
    near = more.mean(axis=1) <= more.std(axis=1) / np.sqrt(more.shape[1])
    return PENALTIES[int(near.argmax())]


def _linear(encoded: np.ndarray, given: Sequence[str], fold: Fold, penalty: float) -> tuple[list[str], np.ndarray]:
    """(labels, probabilities) of multinomial logistic regression on standardised inputs."""
    require("sklearn", "data")
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=100))
    model.fit(encoded[fold.learned], [given[row] for row in fold.learned])
    return [str(label) for label in model.classes_], model.predict_proba(encoded[fold.asked])


def features(task: Task, rows: Rows) -> np.ndarray:
    """(rows, numbers) float32: encoded inputs side by side, pictures averaged to 16 x 16, labels as ones and zeros."""
    specs = task.inputs_specs()
    parts = []
    for start in range(0, len(rows), CHUNK):
        arrays = task.encode(task.rows_to_requests(rows.take(np.arange(start, min(start + CHUNK, len(rows))))))
        parts.append(_flat(arrays, specs))
    return np.concatenate(parts)


def _flat(arrays: Arrays, specs: dict[str, Spec]) -> np.ndarray:
    found = []
    for name, array in arrays.items():
        spec = specs[name]
        if spec.kind == "category":
            array = np.eye(spec.size or 1, dtype=np.float32)[array]
        elif spec.kind == "image":
            array = _averaged(_averaged(array, 2), 3)
        found.append(array.reshape(len(array), -1).astype(np.float32))
    return np.concatenate(found, axis=1)


def _averaged(array: np.ndarray, axis: int) -> np.ndarray:
    """At most SIDE means along an axis."""
    size = array.shape[axis]
    if size <= SIDE:
        return array
    edges = np.linspace(0, size, SIDE + 1).astype(np.int64)
    shape = [1] * array.ndim
    shape[axis] = SIDE
    return np.add.reduceat(array, edges[:-1], axis=axis) / np.diff(edges).reshape(shape)
