"""The panels of layers, in the report and on the live page, in a real browser: every number against NumPy's, found from
the weights of trainings one update apart."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser
from report_run import bundle_of as reported
from small_data import SIDES, bundle_of, table_rows
from test_page import CHROMIUM, Visit, browser
from test_watch import line, watching

from luodi.core.evidence import Evidence
from luodi.core.run import Run
from luodi.core.thing import make
from luodi.report.page import build

pytestmark = pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="no chromium on this machine")
RATE, UPDATES = 0.5, 3


@pytest.fixture(scope="module")
def opened() -> Generator[Browser]:
    with browser() as one:
        yield one


@dataclass(frozen=True)
class Seen:
    """What a training of three updates said, and what NumPy makes of the weights before and after each."""

    events: list[tuple[str, dict[str, Any]]]
    looks: dict[str, Any]
    weights: list[dict[str, np.ndarray]]  # after 0, 1, 2, 3 updates
    inputs: np.ndarray

    @property
    def matrices(self) -> list[str]:
        return [name for name in self.weights[0] if name.endswith("weight")]

    def norms(self, matrix: str) -> list[float]:
        """The gradient's norm at each update: plain descent moves by the rate times it."""
        return [float(np.linalg.norm(b[matrix] - a[matrix])) / RATE for a, b in pairwise(self.weights)]

    def outputs(self) -> list[np.ndarray]:
        """What the hidden layer, its rectifier and the head gave at the last update."""
        (w, b), (head, bias) = (
            (self.weights[-2][name], self.weights[-2][name.replace("weight", "bias")]) for name in self.matrices
        )
        hidden = self.inputs @ w.T + b
        return [hidden, np.maximum(hidden, 0), np.maximum(hidden, 0) @ head.T + bias]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """Every row in one batch, constant rate, no momentum; one hidden unit that is dead."""
    weights: list[dict[str, np.ndarray]] = []
    for updates in range(UPDATES + 1):
        events: list[tuple[str, dict[str, Any]]] = []
        run = Run(tmp_path_factory.mktemp("run"), log=_keeps(events))
        bundle = bundle_of(SIDES, {"mlp": {"hidden": [6]}}, table_rows(48, 0), table_rows(48, 1)).ready(run)
        next(one for name, one in bundle.model.named_parameters() if name.endswith("bias")).data[2] = -99
        if updates:
            fields = {"epochs": updates, "batch_size": 64, "learning_rate": RATE, "schedule": "constant"}
            more = {"update": {"sgd": {"momentum": 0.0}}, "listeners": [{"layers": {"every": 1, "dead": 0.1}}]}
            bundle = make("steps", {"train": {**fields, **more}})(bundle, run)
        weights.append({name: one.detach().double().numpy().copy() for name, one in bundle.model.named_parameters()})
    encoded = bundle.task.encode(bundle.task.rows_to_requests(bundle.data["train"]))
    inputs = np.concatenate([encoded[name] for name in ("x0", "x1", "x2")], axis=1).astype(np.float64)
    return Seen(events, bundle.notes["looks"], weights, inputs)


def _keeps(events: list[tuple[str, dict[str, Any]]]) -> Callable[[str, Mapping[str, Any]], None]:
    return lambda event, facts: events.append((event, dict(facts)))


def stream(seen: Seen, folder: Path) -> None:
    """The events as a run writes them that was killed after its second update, which it does again."""
    about = {"step": 1, "name": "train"}
    looks = [line(event, **about, **facts) for event, facts in seen.events if event == "layers"]
    assert len(looks) == UPDATES
    old = json.loads(looks[1])
    for layer in old["layers"]:
        layer.update(
            {"update": 77.0} | ({"gradients": {**layer["gradients"], "norm": 1e9}} if "gradients" in layer else {})
        )
    begun = line("start", recipe="r", device="cpu", threads=1, steps=["train"], rehearsal=False)
    step = line("step", **about, state="run", key="k")
    again = [begun, step, looks[0], json.dumps(old).encode() + b"\n", begun, step, looks[1], looks[2]]
    (folder / "events.jsonl").write_bytes(b"".join(again))


def close(cell: str, expected: float) -> bool:
    """Two digits of it are right; a share is in per cent."""
    value = float(cell.rstrip("%").replace(",", "")) / (100 if cell.endswith("%") else 1)
    slack = 0.00501 if cell.endswith("%") else 0.051 * abs(expected) + 1e-12
    return math.isclose(value, expected, rel_tol=0, abs_tol=slack)


def check_table(rows: list[list[str]], seen: Seen) -> None:
    """Rows of [name and kind, gradient norm, weights, update over weights, activations, zeros, dead]."""
    outputs, kinds = seen.outputs(), ["Linear", "ReLU", "Linear"]
    assert [row[0].split()[-1] for row in rows] == kinds
    for place, (_, norm, weights, update, activations, zeros, dead) in enumerate(rows):
        mean, deviation = activations.split(" ± ")
        output = outputs[place]
        assert close(mean, output.mean()) and close(deviation, output.std())
        assert close(zeros, float((output == 0).mean()))
        assert close(dead, float((output == 0).all(0).mean())) if place == 1 else dead == ""
        if place == 1:
            assert (norm, weights, update) == ("", "", "")
            continue
        matrix = seen.matrices[place // 2]
        assert rows[place][0].split()[0] == matrix.removesuffix(".weight")
        before, after = (w[matrix] for w in seen.weights[-2:])
        mean, deviation = weights.split(" ± ")
        assert close(norm, seen.norms(matrix)[-1]) and close(mean, after.mean()) and close(deviation, after.std())
        assert close(update, float(np.linalg.norm(after - before) / np.linalg.norm(before)))


def test_the_live_pages_panel_shows_the_numbers_of_the_training(opened: Browser, seen: Seen, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    stream(seen, tmp_path / "run")
    with watching(tmp_path / "run") as address:
        visit = Visit(opened, address)
        table = visit.page.locator("#layers table")
        heads = table.locator("thead th").all_inner_texts()
        assert [head.lower() for head in heads] == [
            "layer", "gradient", "", "weights", "update / weights", "activations", "zeros", "dead",
        ]  # fmt: skip
        rows = [
            [row.locator("th").inner_text(), *row.locator("td").all_inner_texts()]
            for row in table.locator("tbody tr").all()
        ]
        check_table([row[:2] + row[3:] for row in rows], seen)
        for place, matrix in ((0, seen.matrices[0]), (2, seen.matrices[1])):
            path = table.locator("tbody tr").nth(place).locator("svg.spark path").get_attribute("d") or ""
            points = [tuple(map(float, one.split())) for one in path.removeprefix("M").split("L")]
            logs = np.log10(seen.norms(matrix))
            wanted = 16 - 14 * (logs - logs.min()) / np.ptp(logs)
            np.testing.assert_allclose(points, list(zip([2, 32, 62], wanted, strict=True)), atol=0.02)
        assert visit.page.locator("#layers .of").inner_text() == f"update {UPDATES}, epoch {UPDATES}"
        assert table.locator("tr.flagged").count() == len({flag["layer"] for flag in seen.looks["flags"]}) >= 1
        share = f"{float((seen.outputs()[1] == 0).all(0).mean()):.0%}"
        assert f"{share} of its units are dead: zero for every row of a batch (over 10%)" in (
            visit.page.locator("#layers .flags").inner_text()
        )
        visit.close()


def test_the_reports_panel_shows_the_numbers_of_the_training(opened: Browser, seen: Seen, tmp_path: Path) -> None:
    stream(seen, tmp_path)
    one = Evidence(step={"train": {}}, form="torch", number=1, name="train", notes={"looks": seen.looks}, seconds=1.0)
    reported([one], ("a", "b")).save(tmp_path / "bundle")
    page = opened.new_page()
    page.goto(build(tmp_path).as_uri())
    page.wait_for_selector("#layers .plot .main-svg")
    rows = [
        [row.locator("th").inner_text(), *row.locator("td").all_inner_texts()]
        for row in page.locator("#layers tbody tr").all()
    ]
    check_table(rows, seen)
    assert "1 train: update 3, epoch 3." in page.locator("#layers .note").first.inner_text()
    share = f"{float((seen.outputs()[1] == 0).all(0).mean()):.0%}"
    assert f"{share} of the units of" in page.locator("#layers li").first.inner_text()
    drawn = page.evaluate(
        "document.querySelector('#layers .plot').data.map((one) => ({name: one.name, x: one.x, y: one.y}))"
    )
    assert [one["name"] for one in drawn] == [matrix.removesuffix(".weight") for matrix in seen.matrices]
    for one, matrix in zip(drawn, seen.matrices, strict=True):
        assert one["x"] == [1, 2, 3]
        np.testing.assert_allclose(one["y"], np.log10(seen.norms(matrix)), atol=2e-3)
    page.close()
