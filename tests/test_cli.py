"""Every verb, in a process of its own, as a person types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import System, luodi, write_recipe
from jsonschema import Draft202012Validator

from luodi.core.rows import Rows

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def run_folder(table_system: System, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the table: split, train, prune."""
    home = tmp_path_factory.mktemp("cli")
    steps = ["split", {"train": {"epochs": 2, "learning_rate": 0.01}}, {"prune": {"sparsity": 0.3}}]
    recipe = write_recipe(home / "recipe.yaml", table_system.recipe(*steps, name="table"))
    done = luodi("run", str(recipe), "--out", str(home / "runs"))
    assert done.returncode == 0, done.stderr
    assert "report" in done.stdout and "luodi serve" in done.stdout
    return home / "runs" / "table"


def row_of(system: System) -> dict[str, Any]:
    row = dict(system.rows[0])
    row.pop("diagnosis")
    return row


def test_a_run_leaves_what_it_promises(run_folder: Path) -> None:
    for name in ("recipe.yaml", "events.jsonl", "limits.json", "report.html", "report.json", "bundle/card.md"):
        assert (run_folder / name).is_file(), name
    events = [json.loads(line)["event"] for line in (run_folder / "events.jsonl").read_text().splitlines()]
    assert events[0] == "start" and events[-1] == "end" and events.count("step") == 3


def test_json_for_machines(run_folder: Path, table_system: System, tmp_path: Path) -> None:
    done = luodi("run", str(run_folder.parents[1] / "recipe.yaml"), "--out", str(run_folder.parent), "--json")
    said = json.loads(done.stdout)
    assert (said["done"], said["kept"]) == (0, 3)
    assert [one["name"] for one in said["evidence"]] == ["split", "train", "prune"]
    listed = json.loads(luodi("list", "runs", "--out", str(run_folder.parent), "--json").stdout)
    assert listed[0]["run"] == "table" and listed[0]["figures"]["size_mb"] > 0
    plan = json.loads(luodi("plan", str(run_folder.parents[1] / "recipe.yaml"), "--json").stdout)
    assert [step["name"] for step in plan["steps"]] == ["split", "train", "prune"] and plan["problems"] == []
    assert plan["model"]["parameters"] == 30 * 16 + 16 + 16 * 2 + 2


def test_plan_touches_nothing(run_folder: Path, tmp_path: Path) -> None:
    more = {"LUODI_CACHE": str(tmp_path / "cache")}
    done = luodi("plan", str(run_folder.parents[1] / "recipe.yaml"), cwd=tmp_path, more=more)
    assert done.returncode == 0 and "can be run" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_plan_tells_every_problem(table_system: System, tmp_path: Path) -> None:
    wrong = write_recipe(tmp_path / "r.yaml", table_system.recipe("quantize", "split", {"train": {"epochs": 1}}))
    done = luodi("plan", str(wrong))
    assert done.returncode == 2
    assert "step 1 quantize needs 'float'" in done.stdout


@pytest.mark.parametrize("kind", ["jsonl", "stdin", "csv"])
def test_predict_reads(kind: str, run_folder: Path, table_system: System, tmp_path: Path) -> None:
    row = row_of(table_system)
    if kind == "csv":
        file = tmp_path / "rows.csv"
        file.write_text(",".join(row) + "\n" + "\n".join([",".join(map(str, row.values()))] * 3) + "\n")
        done, count = luodi("predict", str(run_folder), str(file)), 3
    else:
        text = (json.dumps(row) + "\n") * 70  # more than one batch
        (tmp_path / "rows.jsonl").write_text(text)
        given = str(tmp_path / "rows.jsonl") if kind == "jsonl" else "-"
        done, count = luodi("predict", str(run_folder), given, give=text if kind == "stdin" else None), 70
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == count
    assert set(answers[0]["diagnosis"]["probabilities"]) == {"benign", "malignant"}


def test_predict_reads_pictures(digits_bundle: Path, small_digits: Rows, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(small_digits[number]["image"])
    done = luodi("predict", str(digits_bundle), str(tmp_path), str(tmp_path / "0.png"))
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == 4 and answers[0]["label"] == answers[3]["label"]


def test_predict_tells_what_is_wrong(
    digits_bundle: Path, run_folder: Path, table_system: System, tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    done = luodi("predict", str(digits_bundle), str(tmp_path / "bad.png"))
    assert done.returncode == 2 and "bad.png" in done.stderr and "Traceback" not in done.stderr
    row = {**row_of(table_system), "mean radius": "wide"}
    done = luodi("predict", str(run_folder), "-", give=json.dumps(row) + "\n")
    assert done.returncode == 2 and "mean radius" in done.stderr
    for words, told in (
        (["predict", str(tmp_path / "nothing"), "-"], "is no bundle"),
        (["predict", str(digits_bundle), str(tmp_path / "nothing.png")], "no file or folder"),
        (["predict", str(digits_bundle), "-", "--form", "onxx"], "has no form 'onxx'"),
        (["run", str(tmp_path / "nothing.yaml")], "cannot read"),
        (["rum"], "run"),
        (["run", "r.yaml", "--rehears"], "--rehearse"),
        (["show", "prun"], "did you mean 'prune'"),
        (["list", "step"], "did you mean 'steps'"),
        (["report", str(tmp_path)], str(tmp_path)),
    ):
        done = luodi(*words)
        assert done.returncode == 2, (words, done)
        assert told in done.stderr and "Traceback" not in done.stderr, (words, done.stderr)


def test_compare_and_report(run_folder: Path, table_bundle: Path) -> None:
    done = luodi("compare", str(run_folder), str(run_folder))
    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout
    assert json.loads(luodi("compare", str(run_folder), str(run_folder), "--json").stdout)
    done = luodi("report", str(run_folder))
    assert done.returncode == 0 and "report.html" in done.stdout


def test_init_writes_a_recipe_that_runs(table_system: System, tmp_path: Path) -> None:
    from pyarrow import csv

    csv.write_csv(table_system.rows.table, tmp_path / "cancer.csv")
    done = luodi("init", "cancer.csv", "--target", "diagnosis", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = luodi("plan", "recipe.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    wrong = luodi("init", "cancer.csv", "--target", "diagnose", "--out", "other.yaml", cwd=tmp_path)
    assert wrong.returncode == 2 and "diagnosis" in wrong.stderr


def test_list_show_schema_version() -> None:
    assert "prune" in luodi("list", "steps").stdout
    assert "sparsity" in luodi("show", "prune").stdout
    assert json.loads(luodi("show", "convnet", "--json").stdout)[0]["fields"][0]["name"] == "widths"
    schema = json.loads(luodi("schema").stdout)
    Draft202012Validator.check_schema(schema)
    assert luodi("--version").stdout.startswith("luodi ")
    assert luodi("list", "recipes", cwd=ROOT).stdout.splitlines()


def test_a_missed_limit_is_exit_code_3(run_folder: Path) -> None:
    recipe, out = str(run_folder.parents[1] / "recipe.yaml"), str(run_folder.parent)
    done = luodi("run", recipe, "--out", out, "--set", "limits.size_mb=1e-6")
    assert done.returncode == 3 and "limit missed: size_mb" in done.stderr
    done = luodi("run", recipe, "--out", out, "--set", "limits.size_mb=100")
    assert done.returncode == 0 and "limit met: size_mb" in done.stdout
