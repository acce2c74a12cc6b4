"""Every verb end to end: what it prints, its exit code, and that `--json` is JSON."""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from conftest import files_of, luodi, shas, write_recipe

from luodi import __version__
from luodi.cli import VERBS, main
from luodi.core import catalog, yaml
from luodi.core.bundle import Bundle
from luodi.core.recipe import Recipe


@pytest.fixture
def say(capsys, monkeypatch):
    """Runs the command line here: (exit code, standard output, standard error)."""

    def run(*words: Any, give: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(give))
        monkeypatch.setattr(sys, "argv", ["luodi", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        told = capsys.readouterr()
        return int(ended.value.code or 0), told.out, told.err

    return run


# ---- looking around -----------------------------------------------------------------------------------------------


def test_no_verb_and_wrong_ones(say):
    code, out, _ = say()
    assert code == 2 and all(verb in out for verb in VERBS)
    assert say("--version") == (0, f"luodi {__version__}\n", "")
    code, out, _ = say("--help")
    assert code == 0 and out.count("\n") < 40 and all(verb in out for verb in VERBS)
    code, _, err = say("rnu", "x.yaml")
    assert code == 2 and "did you mean run?" in err and "Traceback" not in err
    code, _, err = say("run", "x.yaml", "--strickt")
    assert code == 2 and "did you mean --strict" in err
    code, _, err = say("run")
    assert code == 2 and "luodi run --help" in err


@pytest.mark.parametrize("verb", list(VERBS))
def test_every_verb_says_what_it_does(verb, say):
    code, out, _ = say(verb, "--help")
    assert code == 0 and (VERBS[verb].__doc__ or "x").split("\n")[0].rstrip(".") in out.replace("\n", " ")


def test_list(say):
    code, out, _ = say("list")
    assert code == 0
    for slot in catalog.SLOTS:
        if slot != "panels":
            for entry in catalog.entries(slot).values():
                assert f"{entry.name} " in out and entry.summary in out, entry
    code, out, _ = say("list", "--json")
    assert json.loads(out)["steps"]["prune"] == catalog.entries("steps")["prune"].summary
    code, out, _ = say("list", "models")
    assert code == 0 and "mlp" in out and "prune" not in out
    code, _, err = say("list", "stebs")
    assert code == 2 and "did you mean 'steps'" in err


def test_list_recipes(say, tmp_path, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[1])
    assert "recipes/digits.yaml" in json.loads(say("list", "recipes", "--json")[1])
    monkeypatch.chdir(tmp_path)
    assert "luodi init" in say("list", "recipes")[1]


def test_list_runs(say, finished, tmp_path):
    code, out, _ = say("list", "runs", "--out", finished / "runs")
    assert code == 0 and "cancer" in out and "done" in out and "accuracy" in out and "size_mb" in out
    (row,) = json.loads(say("list", "runs", "--out", finished / "runs", "--json")[1])
    files = [p for p in (finished / "runs/cancer").rglob("*") if p.is_file()]
    real = sum({p.stat().st_ino: p.stat().st_size for p in files}.values()) / 1e6
    assert row["run"] == "cancer" and row["state"] == "done" and row["form"] == "onnx"
    assert row["mb"] == pytest.approx(real, abs=0.01) and "diagnosis.accuracy" in row["figures"]
    assert "luodi run" in say("list", "runs", "--out", tmp_path)[1]


def test_list_runs_with_one_that_did_not_finish(say, finished, tmp_path):
    shutil.copytree(finished / "runs", tmp_path / "runs")
    shutil.rmtree(tmp_path / "runs/cancer/bundle")
    code, out, _ = say("list", "runs", "--out", tmp_path / "runs")
    assert code == 0 and "unfinished" in out


@pytest.mark.parametrize("name", sorted({e.name for slot in catalog.SLOTS for e in catalog.entries(slot).values()}))
def test_show(name, say):
    code, out, _ = say("show", name)
    assert code == 0 and name in out
    (first, *_) = json.loads(say("show", name, "--json")[1])
    assert first["name"] == name and first["about"]
    if first["slot"] == "panels":
        return
    kind = catalog.load(first["slot"], name)
    inherited = (
        set(kind.model_fields) - set(vars(kind).get("__annotations__", {})) if first["slot"] != "models" else set()
    )
    assert {field["name"] for field in first["fields"]} == set(kind.model_fields) - inherited


def test_show_nothing(say):
    code, _, err = say("show", "prun")
    assert code == 2 and "did you mean 'prune'" in err


def test_schema(say):
    code, out, _ = say("schema")
    assert code == 0 and json.loads(out)["properties"]["steps"]


def test_a_closed_pipe_is_no_error():
    command = f"{sys.executable} -m luodi schema | head -c 10"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=120)
    assert done.stderr == "" and len(done.stdout) == 10


# ---- plan and run -------------------------------------------------------------------------------------------------


def test_plan(say, table_system, tmp_path):
    path = write_recipe(tmp_path / "r.yaml", table_system.recipe("split", "train", "prune", "quantize"))
    code, out, _ = say("plan", path, "--out", tmp_path / "runs")
    assert code == 0 and "can be run" in out and "cpu" in out
    for number, name in enumerate(("split", "train", "prune", "quantize"), 1):
        assert f"{number}. {name}" in out
    assert files_of(tmp_path) == ["r.yaml"], "it touches nothing"
    code, out, _ = say("plan", path, "--out", tmp_path / "runs", "--json")
    facts = json.loads(out)
    assert code == 0 and facts["problems"] == [] and facts["steps"][0]["name"] == "split"
    # 30 numbers, 16 hidden, 2 labels: 30 * 16 + 16 + 16 * 2 + 2 parameters
    assert facts["model"]["parameters"] == 530


def test_plan_tells_every_problem(say, table_system, tmp_path):
    path = write_recipe(tmp_path / "r.yaml", table_system.recipe("train", "split", "quantize", "prune"))
    code, out, _ = say("plan", path)
    assert code == 2 and "step 1 train needs 'split'" in out and "step 4 prune needs 'float'" in out
    code, out, _ = say("plan", path, "--json")
    assert code == 2 and len(json.loads(out)["problems"]) >= 2
    code, _, err = say("plan", tmp_path / "none.yaml")
    assert code == 2 and "luodi list recipes" in err
    code, _, err = say("plan", path, "--set", "steps.trian.epochs=3")
    assert code == 2 and "did you mean 'train'" in err


def test_plan_knows_what_a_step_took(say, finished):
    code, out, _ = say("plan", finished / "cancer.yaml", "--out", finished / "runs", "--json")
    assert code == 0 and all(step["last_time_seconds"] is not None for step in json.loads(out)["steps"])


def test_a_finished_run(finished):
    """What `luodi run` leaves: the recipe, events, limits, report, records, and a bundle with a card."""
    names = set(files_of(finished / "runs/cancer"))
    wanted = {"recipe.yaml", "events.jsonl", "limits.json", "report.html", "report.json", "rows/test.arrow",
              "bundle/bundle.json", "bundle/card.md", "bundle/forms/onnx/model.onnx"}  # fmt: skip
    assert wanted <= names, wanted - names
    assert not [name for name in names if ".part" in name or ".old" in name]
    evidence = json.loads((finished / "runs/cancer/bundle/evidence/evidence.json").read_text())
    assert [one["name"] for one in evidence] == ["split", "train", "prune", "quantize", "export"]
    assert evidence[-1]["form"] == "onnx"
    assert Bundle.load(finished / "runs/cancer").serving == "onnx", "a run's folder stands for its bundle"


def test_run_again(say, quick, finished, tmp_path):
    out = Path(shutil.copytree(finished / "runs", tmp_path / "runs"))
    before = shas(out / "cancer/bundle")
    code, told, err = say("run", finished / "cancer.yaml", "--out", out)
    assert code == 0, err
    assert "nothing to do: all 5 steps were kept" in told and "luodi serve" in told and "report.html" in told
    for word in ("train", "export", "accuracy"):
        assert word in told, "the table"
    assert shas(out / "cancer/bundle") == before
    code, told, _ = say("run", finished / "cancer.yaml", "--out", out, "--json")
    whole = json.loads(told)
    assert code == 0 and (whole["done"], whole["kept"]) == (0, 5) and len(whole["evidence"]) == 5


def test_run_what_cannot_be(say, table_system, tmp_path):
    path = write_recipe(tmp_path / "r.yaml", table_system.recipe("prune"))
    code, out, err = say("run", path, "--out", tmp_path / "runs")
    assert code == 2 and "step 1 prune needs" in err and "Traceback" not in err and out == ""
    good = write_recipe(tmp_path / "good.yaml", table_system.recipe("split"))
    code, _, err = say("run", good, "--set", "device=xpu", "--out", tmp_path / "runs")
    assert code == 2 and "device 'xpu' is not on this machine" in err and "cpu" in err
    path.write_text("name: x\nsteps: [")
    code, _, err = say("run", path)
    assert code == 2 and "line" in err


BROKEN = """
from luodi.core.step import Step


class Broken(Step):
    '''Fails.'''

    def __call__(self, bundle, run):
        return 1 / 0
"""


def test_our_own_mistake_is_no_users_mistake(quick, table_system, tmp_path, monkeypatch):
    """It goes through with its traceback, so that Python ends with 1."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken_step.py").write_text(BROKEN)
    path = write_recipe(tmp_path / "r.yaml", table_system.recipe("./broken_step.py:Broken"))
    with pytest.raises(ZeroDivisionError):
        main(["run", str(path), "--out", str(tmp_path / "runs")])


# ---- predict ------------------------------------------------------------------------------------------------------


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_predict_pictures(say, digits_bundle, small_digits, tmp_path):
    for index in range(3):
        (tmp_path / f"{index}.png").write_bytes(small_digits[index]["image"])
    bundle = Bundle.load(digits_bundle)
    wanted = bundle.predictor()([bundle.task.read(small_digits[index]) for index in range(3)])
    code, out, err = say("predict", digits_bundle, tmp_path / "1.png")
    (one,) = lines(out)
    assert code == 0 and err == "" and one["input"] == str(tmp_path / "1.png")
    assert one["label"]["value"] == wanted[1]["label"]["value"]
    code, out, _ = say("predict", digits_bundle, tmp_path)
    found = lines(out)
    assert code == 0 and [one.pop("input") for one in found] == [str(tmp_path / f"{index}.png") for index in range(3)]
    for have, want in zip(found, wanted, strict=True):
        assert have["label"]["value"] == want["label"]["value"]
        assert have["label"]["probabilities"] == pytest.approx(want["label"]["probabilities"], abs=1e-6)


def test_predict_rows(say, table_bundle, cancer, tmp_path):
    bundle = Bundle.load(table_bundle)
    rows = [cancer[index] for index in range(4)]
    wanted = [one["diagnosis"]["value"] for one in bundle.predictor()([bundle.task.read(row) for row in rows])]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    code, out, err = say("predict", table_bundle, "-", give=text + "\n")
    assert code == 0, err
    assert [one["input"] for one in lines(out)] == [f"line {n}" for n in (1, 2, 3, 4)]
    assert [one["diagnosis"]["value"] for one in lines(out)] == wanted
    (tmp_path / "rows.jsonl").write_text(text)
    header = list(rows[0])
    table = "\n".join([",".join(header), *(",".join(str(row[name]) for name in header) for row in rows)])
    (tmp_path / "rows.csv").write_text(table + "\n")
    for name in ("rows.jsonl", "rows.csv"):
        code, out, err = say("predict", table_bundle, tmp_path / name)
        assert code == 0 and [one["diagnosis"]["value"] for one in lines(out)] == wanted, err


def test_predict_more_than_one_batch(say, table_bundle, cancer, tmp_path):
    """150 rows, two of them bad: the others are answered, in order."""
    rows = [dict(cancer[index % len(cancer)]) for index in range(150)]
    rows[3]["mean area"] = "large"
    rows[100]["mean area"] = "large"
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, err = say("predict", table_bundle, tmp_path / "rows.jsonl")
    places = [int(one["input"].rpartition(" ")[2]) for one in lines(out)]
    assert code == 2 and places == [n for n in range(1, 151) if n not in (4, 101)]
    assert "2 of the inputs could not be read" in err and "line 101" in err


def test_predict_tells_each_bad_input_and_answers_the_others(say, digits_bundle, small_digits, tmp_path):
    (tmp_path / "a.png").write_bytes(small_digits[0]["image"])
    (tmp_path / "b.png").write_bytes(b"no picture")
    (tmp_path / "c.png").write_bytes(small_digits[1]["image"])
    code, out, err = say("predict", digits_bundle, tmp_path)
    assert code == 2 and [Path(one["input"]).name for one in lines(out)] == ["a.png", "c.png"]
    assert "b.png: image:" in err and "1 of the inputs could not be read" in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"mean radius": "wide"}, "mean radius:"),
        ({"mean radios": 1.0}, "did you mean 'mean radius'"),
        ({"mean radius": None}, "mean radius:"),
        ([1, 2], "expected an object"),
        (3, "expected an object"),
    ],
)
def test_predict_bad_rows(row, told, say, table_bundle, cancer):
    good = {name: value for name, value in cancer[0].items() if name != "diagnosis"}
    wire = {**good, **row} if isinstance(row, dict) else row
    code, out, err = say("predict", table_bundle, "-", give=json.dumps(good) + "\n" + json.dumps(wire) + "\n")
    assert code == 2 and len(lines(out)) == 1 and told in err and "line 2" in err


def test_predict_what_cannot_be(say, digits_bundle, table_bundle, small_digits, tmp_path):
    (tmp_path / "one.png").write_bytes(small_digits[0]["image"])
    (tmp_path / "text.docx").write_text("x")
    (tmp_path / "empty").mkdir()
    for words, told in (
        ((digits_bundle, tmp_path / "none.png"), "no file or folder"),
        ((digits_bundle, tmp_path / "text.docx"), "expected an image"),
        ((digits_bundle, tmp_path / "empty"), "holds no images"),
        ((table_bundle, tmp_path / "one.png"), "is a picture"),
        ((digits_bundle, tmp_path / "one.png", "--form", "onnx"), "no form 'onnx'"),
        ((tmp_path / "nothing", tmp_path / "one.png"), "is no bundle"),
    ):
        code, out, err = say("predict", *words)
        assert code == 2 and told in err and out == "" and "Traceback" not in err, (words, err)
    code, _, err = say("predict", table_bundle, "-", give="{broken\n")
    assert code == 2 and "line 1 is not JSON" in err


def test_predict_with_the_form_that_serves(say, exported_bundle, table_bundle, cancer):
    text = json.dumps(cancer[0])
    answers = [lines(say("predict", path, "-", give=text)[1])[0] for path in (exported_bundle, table_bundle)]
    assert answers[0]["diagnosis"]["value"] == answers[1]["diagnosis"]["value"]


# ---- report, compare, serve, init, import ---------------------------------------------------------------------------


def test_report(say, finished, tmp_path):
    out = Path(shutil.copytree(finished / "runs", tmp_path / "runs")) / "cancer"
    (out / "report.html").unlink()
    (out / "report.json").unlink()
    code, told, err = say("report", out)
    assert code == 0 and told.strip() == str(out / "report.html"), err
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<html" in page and "http://" not in page.replace("http://www.w3.org", "")
    json.loads((out / "report.json").read_text(encoding="utf-8"))
    code, _, err = say("report", tmp_path / "none")
    assert code == 2 and "Traceback" not in err


def test_compare(say, finished):
    run = finished / "runs/cancer"
    said = [json.loads(path.read_text()) for path in run.glob("steps/*/step.json")]
    (train,) = [run / "steps" / one["key"] / "bundle" for one in said if one["name"] == "train"]
    code, out, err = say("compare", train, run)
    assert code == 0 and "accuracy" in out and "size" in out, err
    code, out, _ = say("compare", train, run, "--json")
    assert code == 0 and json.loads(out)
    code, _, err = say("compare", train, finished / "none")
    assert code == 2 and "is no bundle" in err


def test_serve(finished, cancer):
    """Starts, says where, answers as the bundle does, ends when asked."""
    command = [sys.executable, "-m", "luodi", "serve", str(finished / "runs/cancer"), "--port", "0"]
    process = subprocess.Popen(command, stdout=-1, text=True)
    try:
        line = next(line for line in process.stdout if line.startswith("serving"))
        address = next(word for word in line.split() if word.startswith("http://"))
        row = {name: value for name, value in cancer[3].items() if name != "diagnosis"}
        request = Request(
            f"{address.rstrip('/')}/predict", json.dumps(row).encode(), {"content-type": "application/json"}
        )
        with urlopen(request, timeout=60) as response:
            answer = json.load(response)
        bundle = Bundle.load(finished / "runs/cancer", form="serving")
        (wanted,) = bundle.predictor()([bundle.task.read(row)])
        assert json.dumps(wanted["diagnosis"]["value"]) in json.dumps(answer)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) in (0, -signal.SIGTERM, 143)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_init_writes_a_recipe_that_can_be_run(say, cancer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    header = cancer.columns
    table = "\n".join([",".join(header), *(",".join(str(row[name]) for name in header) for row in cancer)])
    (tmp_path / "cells.csv").write_text(table + "\n")
    code, out, err = say("init", "cells.csv", "--target", "diagnosis", "--out", "mine.yaml")
    assert code == 0 and "mine.yaml" in out and "luodi run mine.yaml" in out, err
    recipe = Recipe.read(Path("mine.yaml"))
    assert list(recipe.task.targets) == ["diagnosis"] and len(recipe.task.inputs) == 30
    assert "#" in Path("mine.yaml").read_text(), "it is commented"
    assert yaml.parse(Path("mine.yaml").read_text())["steps"]
    assert say("plan", "mine.yaml")[0] == 0
    code, _, err = say("init", "cells.csv", "--target", "diagnosis", "--out", "mine.yaml")
    assert code == 2 and "there already" in err
    code, _, err = say("init", "cells.csv", "--target", "diagnose", "--out", "other.yaml")
    assert code == 2 and "did you mean 'diagnosis'" in err
    code, _, err = say("init", "none.csv", "--target", "x", "--out", "other.yaml")
    assert code == 2 and "Traceback" not in err and not Path("other.yaml").exists()


OTHER = """
from torch import cat, nn


class Other(nn.Module):
    '''A network of somebody else.'''

    def __init__(self, width=4):
        super().__init__()
        self.first, self.last = nn.Linear(2, width), nn.Linear(width, 3)

    def forward(self, a, b):
        return self.last(self.first(cat([a, b], dim=1)).relu())
"""


def test_import(say, tmp_path, monkeypatch):
    import torch

    monkeypatch.chdir(tmp_path)
    Path("other_net.py").write_text(OTHER)
    space: dict[str, Any] = {}
    exec(OTHER, space)
    torch.save(space["Other"](5).state_dict(), "other.pt")
    column = {"number": {"mean": 0.0, "scale": 1.0}}
    task = {
        "supervised": {
            "inputs": {"a": column, "b": column},
            "targets": {"y": {"category": {"values": ["p", "q", "r"]}}},
        }
    }
    Path("task.yaml").write_text(yaml.dump(task))
    words = ["import", "./other_net.py:Other", "--out", "made", "--weights", "other.pt", "--task", "task.yaml"]
    code, out, err = say(*words, "--arguments", '{"width": 5}', "--json")
    assert code == 0, err
    assert json.loads(out)
    code, out, err = say("predict", "made", "-", "--trust", "./other_net.py:Other", give='{"a": 1.0, "b": -2.0}')
    assert code == 0 and lines(out)[0]["y"]["value"] in "pqr", err
    code, _, err = say("predict", "made", "-", give="{}")
    assert code == 2 and "--trust ./other_net.py:Other" in err
    for change, told in (
        (["--weights", "none.pt"], "none.pt"), (["--task", "none.yaml"], "none.yaml"), (["--arguments", "{"], "JSON"),
    ):  # fmt: skip
        code, _, err = say(*words, *change)
        assert code == 2 and told in err and "Traceback" not in err, err


def test_the_module_is_the_command(tmp_path):
    done = luodi("list", "runs", cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
