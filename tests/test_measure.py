"""Weighing, timing in turn, and children that are killed, refuse or crash."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from luodi.core import measure, records, statistics
from luodi.core.bundle import Bundle
from luodi.core.child import ChildDied, Nursery
from luodi.core.errors import LuodiError
from luodi.core.predictor import Predictor
from luodi.core.rows import Rows
from luodi.core.task import Exam

BUDGET = {"seconds": 0.5, "rows": None, "calls": 40, "resamples": 100}


# ---- memory -----------------------------------------------------------------------------------------------------


def weighed(script: str) -> float:
    """What `peak` says of `work`, in a process of its own."""
    text = f"from luodi.core.measure import peak, MB\nimport numpy as np, mmap, os\n{script}\nprint(peak(work) / MB)"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=120, check=True)
    return float(done.stdout.split()[-1])


def test_peak_finds_a_planted_allocation():
    """200 MB that are held when it ends, 200 MB that are gone by then, and 100 on top of 100: each within 5%."""
    assert weighed("kept = []\ndef work(): kept.append(np.ones(25_000_000))") == pytest.approx(200, rel=0.05)
    assert weighed("def work(): np.ones(25_000_000).sum()") == pytest.approx(200, rel=0.05)
    both = "def work():\n a = np.ones(12_500_000)\n b = np.ones(12_500_000)\n return a.sum() + b.sum()"
    assert weighed(both) == pytest.approx(200, rel=0.05)


def test_peak_is_not_fooled_by_what_came_before():
    """The lifetime maximum of a process (ru_maxrss) would say 0 here: 600 MB came and went before."""
    before = "big = np.ones(75_000_000); big.sum(); del big"
    assert weighed(f"{before}\ndef work(): np.ones(25_000_000).sum()") == pytest.approx(200, rel=0.05)


def test_peak_of_nothing_is_nothing():
    assert weighed("def work(): pass") < 2


def test_size_is_what_serves(exported_bundle):
    onnx = sum(p.stat().st_size for p in (exported_bundle / "forms/onnx").rglob("*"))
    assert measure.size_mb(exported_bundle, "onnx") == pytest.approx(onnx / 1e6)
    weights = (exported_bundle / "weights.safetensors").stat().st_size
    assert measure.size_mb(exported_bundle, "torch") == pytest.approx(weights / 1e6)


# ---- timing -----------------------------------------------------------------------------------------------------


class Spy:
    """A forward that notes when it was called."""

    def __init__(self, predictor: Predictor, name: str, calls: list[tuple[str, int]]) -> None:
        self.inner, self.name, self.calls = predictor.forward, name, calls

    def __call__(self, arrays: Any) -> Any:
        self.calls.append((self.name, len(next(iter(arrays.values())))))
        return self.inner(arrays)


def test_calls_alternate(table_bundle):
    """Warm-up, then both in turn, in alternating order, one request a call."""
    bundle = Bundle.load(table_bundle)
    plain, calls = bundle.predictor(), []
    new, old = (Predictor(bundle.task, Spy(plain, name, calls)) for name in ("new", "old"))
    found, busy = measure.time_calls(new, old, None, {**BUDGET, "seconds": 600})
    single = [name for name, rows in calls if rows == 1]
    assert single[:20] == ["new"] * 10 + ["old"] * 10, "warm-up"
    timed = single[20:]
    assert len(timed) == 80
    assert timed[:8] == ["new", "old", "old", "new", "new", "old", "old", "new"]
    assert timed == ["new", "old", "old", "new"] * 20
    assert len(single) == len(calls), "no batches"
    assert set(found) == {"p50_ms", "p95_ms"} and isinstance(busy, bool)
    assert found["p50_ms"].count == 40 and found["p50_ms"].change is not None
    assert found["p50_ms"].low <= found["p50_ms"].value <= found["p95_ms"].value


def test_p99_needs_a_thousand_calls(table_bundle):
    predictor = Bundle.load(table_bundle).predictor()
    few = measure.time_calls(predictor, None, None, {**BUDGET, "calls": 999, "seconds": 600})[0]
    assert "p99_ms" not in few and few["p95_ms"].count == 999
    many = measure.time_calls(predictor, None, None, {**BUDGET, "calls": 1000, "seconds": 600})[0]
    assert many["p99_ms"].count == 1000 and many["p99_ms"].value >= many["p95_ms"].value


def test_a_budget_of_seconds_ends_the_calls(table_bundle):
    predictor = Bundle.load(table_bundle).predictor()
    found = measure.time_calls(predictor, None, None, {**BUDGET, "calls": 10**9, "seconds": 0.2})[0]
    assert 20 <= found["p50_ms"].count < 10**6


# ---- scoring ----------------------------------------------------------------------------------------------------


def exam(truth: str, said: str, start: int = 0) -> Exam:
    names = np.asarray([f"row {start + i}" for i in range(len(truth))], dtype=object)
    columns = {"y.value": np.asarray(list(said), dtype=object), "y.truth": np.asarray(list(truth), dtype=object)}
    return Exam(names, columns)


def test_records_come_back_as_they_were(tmp_path):
    dice = np.random.default_rng(0)
    whole = Exam(
        np.asarray(["b", "a", "c"], dtype=object),
        {"y.value": np.asarray(["x", "ü", ""], dtype=object), "y.probabilities": dice.random((3, 4), np.float32),
         "z.value": np.asarray([1.5, np.nan, -np.inf]), "z.count": np.asarray([1, 2, 3])},
    )  # fmt: skip
    again = records.read(records.write(whole, tmp_path / "deep" / "r.parquet"))
    assert list(again.ids) == list(whole.ids) and list(again.columns) == list(whole.columns)
    for name, column in whole.columns.items():
        np.testing.assert_array_equal(again.columns[name], column)
        assert again.columns[name].dtype == column.dtype
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["r.parquet"]


def test_only_shared_rows_are_compared():
    after, before = exam("aabb", "aabb"), exam("bbcc", "xxyy", start=2)
    new, old = records.shared(after, before)
    assert list(new.ids) == list(old.ids) == ["row 2", "row 3"]
    assert list(new.columns["y.value"]) == ["b", "b"] and list(old.columns["y.value"]) == ["x", "x"]
    none = records.shared(after, exam("a", "a", start=99))
    assert len(none[0]) == len(none[1]) == 0


class Share:
    """A task with one metric."""

    def metrics(self) -> dict[str, str]:
        return {"y.accuracy": "higher"}

    def score(self, exam: Exam) -> dict[str, float]:
        return {"y.accuracy": float((exam.columns["y.value"] == exam.columns["y.truth"]).mean())}


def test_a_value_comes_from_every_row_and_its_change_from_the_shared_ones():
    predictor: Any = Predictor(Share(), lambda arrays: arrays)  # ty: ignore[invalid-argument-type]
    after, before = exam("a" * 30, "a" * 24 + "b" * 6), exam("a" * 20, "b" * 4 + "a" * 16)
    found = measure.score(predictor, after, before, 200)["y.accuracy"]
    assert found.value == pytest.approx(24 / 30) and found.count == 30
    assert found.change is not None and found.change.value == pytest.approx(0.2)
    assert found.verdict == "better"
    alone = measure.score(predictor, after, None, 200)["y.accuracy"]
    assert alone.value == found.value and alone.change is None


# ---- children ---------------------------------------------------------------------------------------------------

WORK = """
import os
import signal
import sys

from luodi.core.errors import LuodiError


def add(first, second):
    print("noise on standard output")
    return {"sum": first + second, "process": os.getpid()}


def refuse():
    raise LuodiError("the row 3 is odd")


def crash():
    return [][1]


def die(number):
    os.kill(os.getpid(), number)


def leave(code):
    os._exit(code)


def loaded():
    return sorted(set(sys.modules) & {"torch", "pytest", "conftest", "test_measure"})
"""


@pytest.fixture(scope="module")
def nursery(tmp_path_factory):
    folder = tmp_path_factory.mktemp("child")
    (folder / "child_work.py").write_text(WORK)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = f"{folder}{os.pathsep}{before or ''}"
    try:
        with Nursery(preload=("luodi.core.errors",)) as made:
            made.start()
            yield made
    finally:
        del os.environ["PYTHONPATH"]
        if before is not None:
            os.environ["PYTHONPATH"] = before


def test_a_child_gives_its_result(nursery):
    first, second = (nursery.call("child_work:add", first=2, second=k) for k in (3, 4))
    assert (first["sum"], second["sum"]) == (5, 6)
    assert len({first["process"], second["process"], os.getpid(), nursery.process.pid}) == 4


def test_a_child_is_clean(nursery):
    assert nursery.call("child_work:loaded") == [], "nothing of the process that asks is in a child"


def test_a_users_mistake_crosses(nursery):
    with pytest.raises(LuodiError, match=r"^the row 3 is odd$") as caught:
        nursery.call("child_work:refuse")
    assert caught.value.exit_code == 2


def test_our_mistake_crosses_with_its_traceback(nursery):
    with pytest.raises(RuntimeError, match=r"(?s)child_work:crash failed.*IndexError"):
        nursery.call("child_work:crash")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_child_is_told_and_the_next_one_works(nursery, number):
    with pytest.raises(ChildDied, match=f"ended without a result .*exit code -{int(number)}") as caught:
        nursery.call("child_work:die", number=int(number))
    assert caught.value.exit_code == 1
    assert nursery.call("child_work:add", first=1, second=1)["sum"] == 2


def test_a_child_that_leaves_without_a_word(nursery):
    with pytest.raises(ChildDied, match="exit code 7"):
        nursery.call("child_work:leave", code=7)


def test_the_nursery_itself_may_be_killed(nursery):
    nursery.call("child_work:add", first=1, second=1)
    os.kill(nursery.process.pid, signal.SIGKILL)
    nursery.process.wait()
    assert nursery.call("child_work:add", first=1, second=2)["sum"] == 3


def test_it_ends_with_its_parent():
    script = (
        "from luodi.core.child import Nursery; n = Nursery(preload=()); n.start(); print(n.process.pid, flush=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script + "; import os, signal; os.kill(os.getpid(), signal.SIGKILL)"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    child = int(done.stdout)
    for _ in range(600):
        if not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text().split()[2]:
            return
        signal.sigtimedwait([], 0.1)
    raise AssertionError("the nursery outlived its parent")


def test_a_weighed_server_ends_with_its_run(exported_bundle):
    """A run that is killed while it weighs a server leaves none behind; one that is not gets a plausible weight."""
    script = (
        "from pathlib import Path; from luodi.core import measure\n"
        f"print(measure.weigh_server(Path({str(exported_bundle)!r}), 'onnx', ()), flush=True)"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert 30 < float(done.stdout) < 1000, done.stderr
    process = subprocess.Popen(command, stdout=-3)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    ends = time.monotonic() + 60
    while not (found := children.read_text().split()) and time.monotonic() < ends:
        time.sleep(0.01)
    (server,) = found
    time.sleep(0.2)  # between fork and exec it is not yet a server
    process.kill()
    process.wait()
    while time.monotonic() < ends:
        stat = Path(f"/proc/{server}/stat")
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.05)
    raise AssertionError("the server outlived the run")


# ---- whole evidence of saved bundles ------------------------------------------------------------------------------


def test_assess(table_system, table_bundle, exported_bundle, tmp_path):
    """The exported bundle against its parent, on the same rows: equal answers, so the change is exactly nothing."""
    rows = table_system.rows.take(np.arange(80)).save(tmp_path / "rows.arrow")
    common = {"rows": str(rows), "budget": BUDGET, "threads": 1, "device": "cpu", "trust": []}
    first = measure.assess(
        str(table_bundle), "torch", None, None, records_path=str(tmp_path / "1.parquet"), before_records=None,
        before_rows="", **common,
    )  # fmt: skip
    second = measure.assess(
        str(exported_bundle), "onnx", str(table_bundle), "torch", records_path=str(tmp_path / "2.parquet"),
        before_records=str(tmp_path / "1.parquet"), before_rows=first["rows"], **common,
    )  # fmt: skip
    json.dumps(second)
    assert first["rows"] == second["rows"] == Rows.open(rows).fingerprint
    old, new = (measure.as_measures(one["measures"]) for one in (first, second))
    name = "diagnosis.accuracy"
    assert old[name].count == 80 and old[name].change is None and new[name].verdict == "same"
    assert old[name].value == pytest.approx(
        float(np.mean(_column(tmp_path / "1.parquet", "value") == _column(tmp_path / "1.parquet", "truth")))
    )
    assert new["p50_ms"].change is not None and new["p50_ms"].verdict in ("better", "worse", "undecided")
    other = measure.assess(
        str(exported_bundle), "onnx", None, None, records_path=str(tmp_path / "3.parquet"),
        before_records=str(tmp_path / "1.parquet"), before_rows="other rows", **common,
    )  # fmt: skip
    assert measure.as_measures(other["measures"])[name].change is None, "other rows: not comparable"


def _column(path: Path, part: str) -> np.ndarray:
    return records.read(path).columns[f"diagnosis.{part}"]


def test_what_is_measured_is_checked_first(exported_bundle, tmp_path):
    path = Path(shutil.copytree(exported_bundle, tmp_path / "copy"))
    file = path / "forms/onnx/model.onnx"
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(LuodiError, match=r"model\.onnx was changed"):
        measure.assess(
            str(path), "onnx", None, None, rows=None, records_path="", before_records=None, before_rows="",
            budget=BUDGET, threads=1, device="cpu", trust=[],
        )  # fmt: skip


def test_machine_names_what_decides_a_figure():
    said = measure.machine(2, "cpu")
    assert said["threads"] == 2 and said["device"] == "cpu" and said["torch"] and said["processor"]
    json.dumps(said)


def test_measures_survive_json():
    whole = {"a": statistics.repeated([1.0, 2.0]), "b": statistics.exact(float("nan"))}
    again = measure.as_measures({name: one.model_dump(mode="json") for name, one in whole.items()})
    assert again["a"] == whole["a"] and np.isnan(again["b"].value)
