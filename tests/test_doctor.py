"""Bottlenecks that were planted, and what the doctor says of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from small_data import SIDES, images_bundle, table_bundle, table_rows

from luodi.core.errors import LuodiError
from luodi.core.recipe import Recipe
from luodi.core.run import Run
from luodi.core.thing import make
from luodi.doctor.diagnosis import diagnose
from luodi.doctor.probe import Patient, admit, examine, probe
from luodi.doctor.trials import Trial, advice, trials

SLOW = Path(__file__).with_name("slow_parts.py")
WAITING = {f"x{place}": f"{SLOW}:Waiting" for place in range(3)}


TRIES = 5  # a probe beside another test process may find the processor taken: it is then made anew, for longer


def seen(wanted, bundle, folder, **train):
    """The patient, its reading and a diagnosis: the first of some that is the one wanted, or the last."""
    for more in range(1, TRIES + 1):
        patient, reading, found = looked_at(bundle, folder / str(more), 0.4 * more, **train)
        if found.bottleneck == wanted:
            break
    return patient, reading, found


def tried_of(patient, found, **gains):
    """The trials by the field that they change: the first set that shows these gains, or the last."""
    for more in range(1, TRIES + 1):
        tried = {one.change.partition(":")[0]: one for one in trials(patient, found, 0.6 * more)}
        if all((tried[name].gain or 0) > least for name, least in gains.items()):
            break
    return tried


def looked_at(bundle, folder, seconds, **train):
    run = Run(folder)
    patient = Patient(bundle.ready(run), make("steps", {"train": train}), run)
    reading = probe(patient, seconds)
    larger = min(patient.step.batch_size * 4, len(bundle.data["train"]))
    return patient, reading, diagnose(patient, reading, probe(patient.with_(batch_size=larger), seconds))


def test_a_slow_reader_is_storage_and_workers_or_memory_are_the_cure(tmp_path):
    task = {"supervised": {"inputs": WAITING, "targets": {"side": "category"}}}
    patient, reading, found = seen(
        "storage", table_bundle(task, {"mlp": {"hidden": [8]}}), tmp_path, batch_size=32, hold_mb=0
    )
    assert found.bottleneck == "storage" and reading.shares["load"] > 0.6 and reading.waiting > 0.5
    assert "waiting with an idle processor" in found.words
    tried = tried_of(patient, found, hold_mb=3, workers=1.1)
    assert tried["hold_mb"].gain > 3, "rows encoded once are not read again"
    assert tried["workers"].gain > 1.1
    assert advice(list(tried.values())).startswith("change hold_mb: ")


def test_an_expensive_augment_is_the_processor_s(tmp_path):
    augment = [f"{SLOW}:Computing"]
    patient, reading, found = seen(
        "CPU", images_bundle({"convnet": {"widths": [4], "hidden": 8}}), tmp_path, batch_size=32, augment=augment
    )
    assert found.bottleneck == "CPU" and "augmenting (computing)" in found.words and reading.shares["augment"] > 0.6
    assert tried_of(patient, found, augment=2)["augment"].gain > 2


def test_a_tiny_batch_costs_more_than_its_arithmetic(tmp_path):
    patient, _, found = seen("CPU", table_bundle(SIDES, {"mlp": {"hidden": [16]}}), tmp_path, batch_size=2)
    assert found.bottleneck == "CPU" and "an update of 2 rows costs more than its arithmetic" in found.words
    tried = tried_of(patient, found, batch_size=1.5)
    assert tried["batch_size"].change == "batch_size: 8" and tried["batch_size"].gain > 1.5


def test_a_huge_model_is_held_back_by_memory(tmp_path):
    model = {"mlp": {"hidden": [2048, 2048]}}
    _, reading, found = seen("device memory", table_bundle(SIDES, model), tmp_path, batch_size=1)
    assert found.bottleneck == "device memory" and "memory bandwidth" in found.words
    assert found.parameters == 2048 * 3 + 2048 + 2048 * 2048 + 2048 + 2048 * 2 + 2
    assert reading.peak_mb > 3 * 4 * found.parameters / 1e6, "gradients and two moments are there"


def test_a_plain_network_is_arithmetic(tmp_path):
    patient, reading, found = seen(
        "device compute", images_bundle({"convnet": {"widths": [64, 64], "hidden": 8}}), tmp_path, batch_size=48
    )
    assert found.bottleneck == "device compute"
    assert sum(reading.shares.values()) == pytest.approx(1, abs=0.02)
    assert 0 < found.flops_per_second < found.flops_reachable * 1.5
    assert patient.bundle.model is not None and not patient.run.out.joinpath("checkpoint").exists()


def test_advice_needs_a_gain_that_every_pair_shows():
    assert advice([Trial("workers: 2", 1.5, 0.9, 1.8)]) == "nothing that was tried helps by a tenth or more"
    assert advice([Trial("compile: true", None), Trial("workers: 2", 1.5, 1.2, 1.8)]) == (
        "change workers: 2: 1.50 times as many examples a second"
    )


@pytest.fixture
def recipe(tmp_path):
    rows = table_rows(200, 0)
    table = tmp_path / "rows.csv"
    rows.table.to_pandas().to_csv(table, index=False)
    path = tmp_path / "sides.yaml"
    inputs = "{x0: number, x1: number, x2: number}"
    path.write_text(
        f"name: sides\ntask: {{supervised: {{inputs: {inputs}, targets: {{side: category}}}}}}\n"
        f"data: {{table: {{path: {table}}}}}\nmodel: {{mlp: {{hidden: [16]}}}}\nthreads: {{train: 1}}\n"
        "steps:\n  - split\n  - train: {batch_size: 4}\n"
    )
    return path


def test_the_whole_examination_of_a_recipe(recipe, tmp_path):
    for more in range(1, TRIES + 1):
        found = examine(str(recipe), [], str(tmp_path / "cache"), [], 0.3 * more)
        if found["bottleneck"] == "CPU":
            break
    assert found["bottleneck"] == "CPU" and found["reading"]["rate"] > 0 and found["trials"]
    assert json.loads(json.dumps(found)) == found
    patient = admit(Recipe.read(recipe, ["seed=3"]), tmp_path / "cache", ())
    assert len(patient.bundle.data["train"]) == 140 and patient.run.seed == 3


def test_the_command(recipe, tmp_path):
    command = [sys.executable, "-m", "luodi", "doctor", str(recipe), "--seconds", "0.3"]
    said = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True).stdout
    assert "held back by CPU" in said and "batch_size: 16" in said and "examples a second" in said
    assert not (tmp_path / "runs").exists()
    wrong = subprocess.run([*command[:-1], "0"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert wrong.returncode == 2 and "--seconds is between 0.1 and 600" in wrong.stderr
    none = [*command, "--set", "steps=[split]"]
    refused = subprocess.run(none, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert refused.returncode == 2 and "Traceback" not in refused.stderr


def test_a_recipe_without_training_has_no_patient(recipe, tmp_path):
    text = recipe.read_text().replace("  - train: {batch_size: 4}\n", "")
    recipe.write_text(text)
    with pytest.raises(LuodiError, match="the doctor looks at a `train` step"):
        admit(Recipe.read(recipe, []), tmp_path / "cache", ())
