"""Fixtures that every test file may use: real rows, and small bundles trained on them in seconds."""

from __future__ import annotations

import json
import os

# One thread a process: several test processes share the cores, and threads that wait for a core turn in circles.
os.environ["OMP_NUM_THREADS"] = "1"

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_data import year_rows

from luodi.core import appraise, engine, measure, store
from luodi.core.apply import apply
from luodi.core.bundle import Bundle
from luodi.core.catalog import resolve
from luodi.core.child import Nursery
from luodi.core.rows import Rows
from luodi.core.run import Run
from luodi.core.source import Data, Origin
from luodi.core.thing import dump

DIGITS = {"supervised": {"inputs": {"image": {"image": {"size": 28, "channels": 1}}}, "targets": {"label": "category"}}}
CONVNET = {"convnet": {"widths": [4, 8], "hidden": 16}}
REVIEWS = {
    "supervised": {
        "inputs": {"text": {"text": {"tokens": "character", "length": 24, "vocabulary": 500}}},
        "targets": {"label": "category"},
    }
}
BILSTM = {"bilstm": {"width": 8, "hidden": 8}}
CAPTIONS = {
    "supervised": {
        "inputs": {
            "image": {"image": {"size": 16, "channels": 1}},
            "text": {"text": {"tokens": "character", "length": 16, "vocabulary": 100}},
        },
        "targets": {"label": "category"},
    }
}
FUSION = {"fusion": {"fuse": "cross_attention", "channels": 8, "layers": 1, "width": 8, "heads": 2}}
LANGUAGE = {
    "language": {
        "inputs": {"text": {"text": {"tokens": "character", "length": 24, "vocabulary": 200, "marks": True}}},
        "sampling": {"max_tokens": 8},
    }
}
GPT = {"gpt": {"layers": 2, "width": 16, "heads": 2, "kv_heads": 1, "context": 24}}
VECTORS = {
    "embedding": {
        "inputs": {"english": {"text": {"tokens": "character", "length": 16, "at_least": 1}}},
        "partner": "chinese",
        "width": 8,
    }
}
ANSWERS = {
    "answering": {
        "inputs": {
            "question": {"text": {"at_least": 1, "length": 4}},
            "context": {"text": {"at_least": 1, "length": 24}},
        },
        "overlap": 2,
    }
}
READER = {"text_transformer": {"layers": 1, "width": 16, "heads": 2, "context": 24}}
NAMES = {
    "translation": {
        "inputs": {"english": {"text": {"tokens": "character", "length": 24}}},
        "targets": {"chinese": {"text": {"tokens": "character", "length": 12, "at_least": 1}}},
        "sampling": {"max_tokens": 6},
        "translated": 8,
    }
}
ENCODER_DECODER = {"encoder_decoder": {"layers": 1, "width": 16, "heads": 2, "kv_heads": 1, "context": 24}}
MLP = {"mlp": {"hidden": [16]}}


@dataclass(frozen=True)
class System:
    """A task, a model and rows: what a step is tried on."""

    name: str
    task: Any
    model: Any
    source: Any  # as a recipe says it
    rows: Rows

    def fresh(self) -> Bundle:
        """The bundle before any step."""
        origin = Origin(dump(resolve("sources", self.source)), self.rows.fingerprint)
        data = Data({"all": self.rows}, origin)
        task, model = resolve("tasks", self.task), resolve("models", self.model)
        return Bundle(task=task, config=model, data=data, facts=frozenset({"rows"}))

    def recipe(self, *steps: Any, name: str = "run", **more: Any) -> dict[str, Any]:
        """Plain data of a recipe of these steps; one thread, so that bits can be compared; little is measured."""
        measure = {"seconds": 0.2, "calls": 20, "resamples": 100}
        whole = {"name": name, "task": self.task, "data": self.source, "model": self.model, "steps": list(steps)}
        return {**whole, "measure": measure, "threads": {"train": 1}, "device": "cpu", **more}


def build(system: System, folder: Path, *steps: Any) -> Bundle:
    """The bundle after these steps, each applied as the engine applies it, nothing measured."""
    bundle = system.fresh()
    for number, step in enumerate(steps, 1):
        made: Any = resolve("steps", step)
        inside = Run(folder / str(number), seed=1, scope=(str(number),))
        inside.out.mkdir(parents=True)
        bundle = apply(made, bundle, inside, number)
    return bundle


def column_task(rows: Rows, target: str, kind: str = "category") -> dict[str, Any]:
    """A supervised task of number columns."""
    inputs = {name: "number" for name in rows.columns if name != target}
    return {"supervised": {"inputs": inputs, "targets": {target: kind}}}


def open_source(source: Any, cache: Path) -> Rows:
    """The rows of a source, as a recipe says it."""
    made: Any = resolve("sources", source)
    return made.open(cache)


def kept_as_parquet(rows: Rows, path: Path) -> dict[str, Any]:
    """Rows as a Parquet file; returns the source that reads it."""
    from pyarrow import parquet

    parquet.write_table(rows.table, path)
    return {"table": {"path": str(path)}}


@pytest.fixture(scope="session")
def cache() -> Path:
    return Path(os.environ.get("LUODI_CACHE") or Path.home() / ".cache" / "luodi")


@pytest.fixture(scope="session")
def digits(cache: Path) -> Rows:
    return open_source({"sample": {"name": "digits"}}, cache)


@pytest.fixture(scope="session")
def cancer(cache: Path) -> Rows:
    return open_source({"sample": {"name": "breast_cancer"}}, cache)


@pytest.fixture(scope="session")
def small_digits(digits: Rows) -> Rows:
    return digits.take(np.random.default_rng(0).permutation(len(digits))[:600])


@pytest.fixture(scope="session")
def digits_system(small_digits: Rows, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> System:
    source = kept_as_parquet(small_digits, tmp_path_factory.mktemp("rows") / "digits.parquet")
    return System("images, convnet", DIGITS, CONVNET, source, open_source(source, cache))


@pytest.fixture(scope="session")
def flat_digits_system(digits_system: System) -> System:
    return replace(digits_system, name="images, mlp", model=MLP)


@pytest.fixture(scope="session")
def table_system(cancer: Rows, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> System:
    source = kept_as_parquet(cancer, tmp_path_factory.mktemp("rows") / "cancer.parquet")
    rows = open_source(source, cache)
    return System("tables, mlp", column_task(rows, "diagnosis"), MLP, source, rows)


@pytest.fixture(scope="session")
def number_system(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> System:
    """A number is learned, not a label."""
    rows = open_source({"sample": {"name": "diabetes"}}, cache)
    source = kept_as_parquet(rows, tmp_path_factory.mktemp("rows") / "diabetes.parquet")
    rows = open_source(source, cache)
    return System("numbers, mlp", column_task(rows, "progression", "number"), MLP, source, rows)


@pytest.fixture(scope="session")
def reviews(cache: Path) -> Rows:
    """600 Chinese reviews, each only once."""
    rows = open_source({"sample": {"name": "reviews_zh"}}, cache)
    _, first = np.unique(np.asarray(rows.column("text"), object).astype(str), return_index=True)
    return rows.take(np.random.default_rng(0).permutation(first)[:600])


@pytest.fixture(scope="session")
def text_system(reviews: Rows, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> System:
    source = kept_as_parquet(reviews, tmp_path_factory.mktemp("rows") / "reviews.parquet")
    return System("texts, bilstm", REVIEWS, BILSTM, source, open_source(source, cache))


@pytest.fixture(scope="session")
def captions_system(small_digits: Rows, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> System:
    """Digits, each with a sentence that tells something about it."""
    import pyarrow as pa

    digits = small_digits.take(range(400))
    said = [
        f"{'even 双' if int(label) % 2 == 0 else 'odd 单'} {place}"
        for place, label in enumerate(digits.column("label"))
    ]
    rows = Rows(digits.table.append_column("text", pa.array(said, pa.string())))
    source = kept_as_parquet(rows, tmp_path_factory.mktemp("rows") / "captions.parquet")
    return System("images and texts, fusion", CAPTIONS, FUSION, source, open_source(source, cache))


@pytest.fixture(scope="session")
def language_system(reviews: Rows, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> System:
    rows = Rows(reviews.table.select(["text"]))
    source = kept_as_parquet(rows, tmp_path_factory.mktemp("rows") / "texts.parquet")
    return System("language, gpt", LANGUAGE, GPT, source, open_source(source, cache))


@pytest.fixture(scope="session")
def embedding_system(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> System:
    """The names of 300 characters in two languages."""
    rows = open_source({"sample": {"name": "cldr_pairs"}}, cache)
    rows = Rows(rows.table.select(["english", "chinese"]).slice(0, 300))
    source = kept_as_parquet(rows, tmp_path_factory.mktemp("rows") / "names.parquet")
    bag = {"embedding_bag": {"width": 16}}
    return System("embedding, embedding_bag", VECTORS, bag, source, open_source(source, cache))


@pytest.fixture(scope="session")
def answers_system(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> System:
    source = kept_as_parquet(year_rows(200, 0), tmp_path_factory.mktemp("rows") / "years.parquet")
    return System("answers, text_transformer", ANSWERS, READER, source, open_source(source, cache))


@pytest.fixture(scope="session")
def translation_system(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> System:
    """300 names of characters in English and in Chinese."""
    rows = open_source({"sample": {"name": "cldr_pairs"}}, cache)
    rows = Rows(rows.table.select(["english", "chinese"])).take(np.random.default_rng(0).permutation(len(rows))[:300])
    source = kept_as_parquet(rows, tmp_path_factory.mktemp("rows") / "names.parquet")
    return System("translation, encoder_decoder", NAMES, ENCODER_DECODER, source, open_source(source, cache))


@pytest.fixture(scope="session")
def digits_bundle(digits_system: System, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A convolutional network trained for three epochs on 420 digits, saved."""
    folder = tmp_path_factory.mktemp("digits")
    steps = ("split", {"train": {"epochs": 3, "batch_size": 32, "learning_rate": 0.01}})
    return build(digits_system, folder / "work", *steps).save(folder / "bundle")


@pytest.fixture(scope="session")
def table_bundle(table_system: System, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A multilayer perceptron trained for five epochs on the breast cancer table, saved."""
    folder = tmp_path_factory.mktemp("table")
    steps = ("split", {"train": {"epochs": 5, "batch_size": 32, "learning_rate": 0.01}})
    return build(table_system, folder / "work", *steps).save(folder / "bundle")


@pytest.fixture(scope="session")
def exported_bundle(table_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table's bundle with an ONNX form, which serves."""
    folder = tmp_path_factory.mktemp("exported")
    (folder / "work").mkdir()
    export: Any = resolve("steps", {"export": {"to": "onnx"}})
    return apply(export, Bundle.load(table_bundle), Run(folder / "work")).save(folder / "bundle")


def reseal(folder: Path, change: Callable[[dict[str, Any]], None] = lambda head: None) -> None:
    """Writes a bundle's manifest anew after its files or its head were changed: what a forger would do."""
    head = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    head = {key: value for key, value in head.items() if key not in ("sha256", "digest", "seal")}
    change(head)
    store._seal(folder, head)


def files_of(folder: Path) -> list[str]:
    """Every file in a folder, as a relative name."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def shas(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file in a folder."""
    from luodi.core.atomic import file_sha

    return {name: file_sha(folder / name) for name in files_of(folder)}


def luodi(*words: str, cwd: Path | None = None, give: str | None = None, more: Mapping[str, str] | None = None,
          python: tuple[str, ...] = ("-m", "luodi")) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """The command line in a process of its own."""
    return subprocess.run(
        [sys.executable, *python, *words], cwd=cwd, input=give, capture_output=True, text=True, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", **(more or {})},
    )  # fmt: skip


def write_recipe(path: Path, value: Mapping[str, Any]) -> Path:
    """Plain data as a recipe file."""
    from luodi.core import yaml

    path.write_text(yaml.dump(dict(value)), encoding="utf-8")
    return path


class _Shared(Nursery):
    """A nursery that outlives the runs that use it: starting one takes seconds."""

    def close(self) -> None:
        """Left open."""


@pytest.fixture(scope="session")
def shared_nursery() -> Iterator[Nursery]:
    made = _Shared()
    made.start()
    yield made
    Nursery.close(made)


@contextmanager
def quickly(nursery: Nursery) -> Iterator[None]:
    """Runs of recipes in this process share one nursery, weigh once, and start no server to weigh it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "Nursery", lambda *_: nursery)
        patch.setattr(appraise, "WEIGHINGS", 1)
        patch.setattr(measure, "weigh_server", lambda *_: None)
        yield


@pytest.fixture
def quick(shared_nursery: Nursery) -> Iterator[None]:
    with quickly(shared_nursery):
        yield


@pytest.fixture(scope="session")
def finished(table_system: System, shared_nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run on the table, as the command line leaves it: train, prune, int8, ONNX; runs/cancer below it."""
    from luodi.cli import main

    out = tmp_path_factory.mktemp("finished")
    train = {"train": {"epochs": 2, "batch_size": 64, "learning_rate": 0.01}}
    steps = ({"split": {"validation": 0.1, "test": 0.3}}, train, "prune", "quantize", {"export": {"to": "onnx"}})
    path = write_recipe(out / "cancer.yaml", table_system.recipe(*steps, name="cancer"))
    with quickly(shared_nursery), pytest.raises(SystemExit) as ended:
        main(["run", str(path), "--out", str(out / "runs")])
    assert ended.value.code == 0
    return out
