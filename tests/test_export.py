"""Forms for other runtimes: same answers, small files, no torch to open them, refused when they drift."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from small_data import Run, bundle_of, image_rows, images_bundle

from luodi.core.apply import apply
from luodi.core.bundle import Bundle, weights_count
from luodi.core.catalog import resolve
from luodi.core.errors import Damaged, LuodiError, Refused
from luodi.core.form import TOLERANCE
from luodi.core.source import rows_of
from luodi.core.thing import WrongThing
from luodi.export.export import Export
from luodi.export.tracing import graph

FORMS = [("onnx", "float"), ("onnx", "int8"), ("openvino", "float"), ("openvino", "int8")]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A trained perceptron over 30 columns whose names hold spaces, and every form of it."""
    from sklearn.datasets import load_breast_cancer

    found: Any = load_breast_cancer()
    names = [str(name) for name in found.feature_names]
    order = np.random.default_rng(0).permutation(len(found.target))
    columns = dict(zip(names, found.data[order].T.tolist(), strict=True))
    rows = rows_of({**columns, "diagnosis": [str(label) for label in found.target[order]]})
    task = {"supervised": {"inputs": dict.fromkeys(names, "number"), "targets": {"diagnosis": "category"}}}
    run = Run(tmp_path_factory.mktemp("table"))
    bundle = bundle_of(task, {"mlp": {"hidden": [64, 64]}}, rows[:400], rows[400:])
    train = {"train": {"epochs": 8, "batch_size": 32, "learning_rate": 0.003}}
    bundle = apply(resolve("steps", train), bundle, run)
    for to, activations in FORMS:
        bundle = apply(Export(to=to, activations=activations), bundle, run)
    return bundle


def held_out(bundle: Bundle) -> dict[str, np.ndarray]:
    assert bundle.data is not None
    return dict(bundle.task.encode(bundle.task.rows_to_requests(bundle.data["validation"])))


def apart(have: Any, want: Any) -> float:
    return max(float(np.abs(have[name] - want[name]).max() / np.abs(want[name]).max()) for name in want)


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    run = Run(tmp_path_factory.mktemp("picture"))
    bundle = images_bundle({"convnet": {"widths": [16, 32], "hidden": 32}}, 256)
    step = resolve("steps", {"train": {"epochs": 4, "batch_size": 32, "learning_rate": 0.01}})
    return apply(step, bundle, run)


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_float_forms_answer_as_torch_does(table: Bundle, name: str) -> None:
    arrays, form = held_out(table), table.forms[name]
    want = table.predictor("torch").forward(arrays)
    assert apart(table.predictor(name).forward(arrays), want) < 1e-5
    assert form.arithmetic == "float32"
    assert form.drift < form.tolerance == TOLERANCE["float32"]


@pytest.mark.parametrize("name", ["onnx-int8", "openvino-int8"])
def test_static_int8_of_a_table_moves_its_answers_little(table: Bundle, name: str) -> None:
    arrays, form = held_out(table), table.forms[name]
    want, have = table.predictor("torch").forward(arrays), table.predictor(name).forward(arrays)
    assert apart(have, want) < 0.1
    assert float(np.sqrt(np.square(have["diagnosis"] - want["diagnosis"]).mean())) < 0.02 * want["diagnosis"].std()
    assert form.drift < 0.1
    assert (have["diagnosis"].argmax(1) == want["diagnosis"].argmax(1)).mean() > 0.98
    assert form.arithmetic == "int8"
    assert 1e-3 <= form.tolerance <= 2e-2


def test_every_form_takes_one_row_and_many(table: Bundle) -> None:
    arrays = held_out(table)
    many = {name: np.tile(array, (4, 1)) for name, array in arrays.items()}
    for name in table.forms:
        forward = table.predictor(name).forward
        whole, rows = forward(many)["diagnosis"], len(many["mean radius"])
        one = forward({key: array[5:6] for key, array in many.items()})["diagnosis"]
        assert whole.shape == (rows, 2)
        assert np.allclose(one[0], whole[5], atol=1e-5)


def test_integers_make_the_file_small(table: Bundle) -> None:
    size = {name: sum(file.stat().st_size for file in form.folder.iterdir()) for name, form in table.forms.items()}
    assert size["onnx-int8"] < 0.6 * size["onnx"]
    weights = {
        name: (form.folder / "model.bin").stat().st_size for name, form in table.forms.items() if "openv" in name
    }
    assert weights["openvino-int8"] < 0.4 * weights["openvino"]


def test_a_form_is_opened_without_torch(table: Bundle) -> None:
    script = (
        "import sys, json\nfrom pathlib import Path\nimport numpy as np\nfrom luodi.core.catalog import resolve\n"
        "for kind, folder, properties, names in json.loads(sys.argv[1]):\n"
        "    forward = resolve('runtimes', kind).open(Path(folder), properties, 1)\n"
        "    print(forward({n: np.zeros((2, 1), np.float32) for n in names})['diagnosis'].shape)\n"
        "print(sorted({'torch', 'nncf', 'onnxscript', 'onnx'} & sys.modules.keys()))"
    )
    names = list(table.task.inputs_specs())
    said = [[form.kind, str(form.folder), dict(form.properties), names] for form in table.forms.values()]
    found = subprocess.run(
        [sys.executable, "-c", script, json.dumps(said)], capture_output=True, text=True, check=False
    )
    assert found.stdout.split("\n")[:-1] == ["(2, 2)"] * 4 + ["[]"], found.stderr


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_a_form_answers_many_threads_at_once(table: Bundle, name: str) -> None:
    arrays, forward = held_out(table), table.predictor(name).forward
    pieces = [{key: array[start : start + 1 + start % 3] for key, array in arrays.items()} for start in range(60)]
    alone = [forward(piece)["diagnosis"] for piece in pieces]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda piece: forward(piece)["diagnosis"], pieces * 4))
    assert all(np.array_equal(have, want) for have, want in zip(together, alone * 4, strict=True))


def test_an_answer_is_not_overwritten_by_the_next_call(table: Bundle) -> None:
    arrays, forward = held_out(table), table.predictor("openvino").forward
    first = forward({key: array[:1] for key, array in arrays.items()})["diagnosis"]
    kept = first.copy()
    forward({key: array[1:2] for key, array in arrays.items()})
    assert np.array_equal(first, kept)


def test_a_saved_bundle_serves_its_last_form(table: Bundle, tmp_path: Path) -> None:
    assert table.serving == "openvino-int8"
    loaded = Bundle.load(table.save(tmp_path / "bundle"), form="openvino-int8")
    arrays = held_out(table)
    have = loaded.predictor().forward(arrays)["diagnosis"]
    assert np.array_equal(have, table.predictor().forward(arrays)["diagnosis"])
    assert loaded.forms["openvino-int8"].properties["INFERENCE_PRECISION_HINT"] == "f32"


@pytest.mark.parametrize(("to", "activations"), [("onnx", "float"), ("onnx", "int8"), ("openvino", "float")])
def test_the_same_model_gives_the_same_bytes(table: Bundle, tmp_path: Path, to: str, activations: str) -> None:
    again = Export(to=to, activations=activations)(table, Run(tmp_path))
    for file in again.forms[again.serving].folder.iterdir():
        assert file.read_bytes() == (table.forms[again.serving].folder / file.name).read_bytes(), file.name


def test_weight_only_int8_stays_int8_in_the_file(picture: Bundle, tmp_path: Path) -> None:
    run = Run(tmp_path)
    whole = Export(to="onnx")(picture, run.at("whole"))
    small = picture.fork()
    small = apply(resolve("steps", "quantize"), small, run)
    small = apply(Export(to="onnx"), small, run)
    proto = onnx.load(small.forms["onnx"].folder / "model.onnx")
    held = {str(onnx.TensorProto.DataType.Name(t.data_type)): 0 for t in proto.graph.initializer}
    for tensor in proto.graph.initializer:
        held[onnx.TensorProto.DataType.Name(tensor.data_type)] += int(np.prod(tensor.dims))
    assert held["INT8"] > 10 * held["FLOAT"]
    size = [bundle.forms["onnx"].folder.joinpath("model.onnx").stat().st_size for bundle in (whole, small)]
    assert size[1] < 0.5 * size[0]
    assert small.forms["onnx"].arithmetic == "float32"
    assert small.forms["onnx"].drift < 1e-5


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_dynamic_int8_is_exported_as_integer_products(picture: Bundle, tmp_path: Path, to: str) -> None:
    bundle = apply(resolve("steps", {"quantize": {"activations": "int8"}}), picture.fork(), Run(tmp_path))
    bundle = apply(Export(to=to), bundle, Run(tmp_path))
    assert bundle.forms[to].arithmetic == "int8"
    assert bundle.forms[to].drift < 5e-3
    assert bundle.model is not None
    assert sum(file.stat().st_size for file in bundle.forms[to].folder.glob("model.*n*")) < 2 * weights_count(
        bundle.model
    )
    assert (
        apart(bundle.predictor(to).forward(held_out(bundle)), bundle.predictor("torch").forward(held_out(bundle)))
        < 5e-3
    )


def test_an_openvino_form_may_not_bring_other_settings(table: Bundle, tmp_path: Path) -> None:
    form = table.forms["openvino"]
    with pytest.raises(Damaged, match="CACHE_DIR"):
        resolve("runtimes", "openvino").open(form.folder, {**form.properties, "CACHE_DIR": str(tmp_path)}, 1)


def test_activations_are_not_quantised_twice(picture: Bundle, tmp_path: Path) -> None:
    for activations in ("float", "int8"):
        step = resolve("steps", {"quantize": {"activations": activations}})
        bundle = apply(step, picture.fork(), Run(tmp_path))
        with pytest.raises(Refused, match="float"):
            apply(Export(to="onnx", activations="int8"), bundle, Run(tmp_path))


def test_static_int8_needs_training_rows() -> None:
    step = Export(to="onnx", activations="int8")
    assert step.facts(frozenset({"model", "float", "rows"})).needs == {"model", "float", "split"}
    assert step.facts(frozenset({"model", "float", "world"})).needs == {"model", "float"}
    assert Export(to="onnx").facts(frozenset({"model"})).needs == {"model"}


def test_ranges_come_from_training_rows_alone(picture: Bundle, tmp_path: Path) -> None:
    """Other held-out rows leave the file as it was; other training rows do not."""
    assert picture.data is not None
    step = Export(to="onnx", activations="int8", calibration=64)

    def file(place: str, **splits: Any) -> bytes:
        data = replace(picture.data, splits={**picture.data.splits, **splits})
        return (
            step(picture.replace(data=data), Run(tmp_path / place)).forms["onnx-int8"].folder / "model.onnx"
        ).read_bytes()

    kept = file("one")
    assert file("two", validation=image_rows(48, 7)) == kept
    assert file("three", train=image_rows(96, 9)) != kept


def test_an_unknown_runtime_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(WrongThing, match="did you mean 'openvino'"):
        resolve("steps", {"export": {"to": "openvine"}})


DRIFTING = '''
from luodi.core.form import Runtime, Written
from luodi.core.catalog import resolve

class Drifting(Runtime):
    """Answers one part in a thousand too much."""
    def write(self, model, example, signature, folder, calibration):
        return resolve("runtimes", "onnx").write(model, example, signature, folder, calibration)
    def open(self, folder, properties, threads):
        inner = resolve("runtimes", "onnx").open(folder, properties, threads)
        return lambda arrays: {name: array * 1.001 for name, array in inner(arrays).items()}
'''


def test_a_form_that_drifts_is_refused(picture: Bundle, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(DRIFTING)
    with pytest.raises(LuodiError, match=r"0\.001 of the largest output, float32 allows 0\.0001"):
        Export(to=f"{tmp_path}/own.py:Drifting")(picture, Run(tmp_path))


def test_exporting_is_silent_and_leaves_logging_alone(
    picture: Bundle, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    levels = {name: logging.getLogger(name).level for name in ("", "torch.onnx", "onnxscript")}
    capfd.readouterr()
    Export(to="onnx", activations="int8")(picture, Run(tmp_path))
    assert capfd.readouterr() == ("", "")
    assert {name: logging.getLogger(name).level for name in levels} == levels


@pytest.mark.parametrize("activations", ["float", "int8"])
def test_large_weights_lie_beside_the_graph(
    picture: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, activations: str
) -> None:
    monkeypatch.setattr(graph, "LARGEST", 1000)
    after = Export(to="onnx", activations=activations)(picture, Run(tmp_path))
    form = after.forms[after.serving]
    assert sorted(file.name for file in form.folder.iterdir()) == ["model.onnx", "model.onnx.data"]
    assert form.drift < 0.1


def test_the_file_names_no_folder_of_this_machine(table: Bundle) -> None:
    for form in table.forms.values():
        for file in form.folder.iterdir():
            content = file.read_bytes()
            assert b"site-packages" not in content
            assert str(Path.cwd()).encode() not in content


@pytest.mark.skipif(sys.platform != "linux", reason="the signal stack of Linux")
def test_a_signal_after_openvino_does_not_end_the_process(table: Bundle) -> None:
    script = (
        "import faulthandler, gc, os, signal, sys\nfrom pathlib import Path\nfrom luodi.core.catalog import resolve\n"
        "from luodi.export.tracing.signals import _Stack, ctypes\nfaulthandler.enable()\n"
        "heard = []\nsignal.signal(signal.SIGUSR1, lambda *_: heard.append(1))\n"
        "def where():\n    stack = _Stack()\n    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack))\n"
        "    return stack.start, stack.size\n"
        "before = where()\nforward = resolve('runtimes', 'openvino').open(Path(sys.argv[1]), {}, 1)\n"
        "assert where() == before, (where(), before)\ndel forward\ngc.collect()\n"
        "os.kill(os.getpid(), signal.SIGUSR1)\nprint(heard, where() == before)"
    )
    folder = str(table.forms["openvino"].folder)
    found = subprocess.run([sys.executable, "-c", script, folder], capture_output=True, text=True, check=False)
    assert found.stdout == "[1] True\n", (found.returncode, found.stderr)
