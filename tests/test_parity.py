"""Damage planted with the manifest written anew, so that only the replay of golden requests can see it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import System, build, reseal
from safetensors.torch import load_file, save_file

from luodi.core import parity, store
from luodi.core.apply import apply
from luodi.core.bundle import Bundle
from luodi.core.catalog import resolve
from luodi.core.errors import ParityError
from luodi.core.run import Run
from luodi.core.spec import Arrays


def damaged(bundle: Path, folder: Path, change: Callable[[Path], None] | None = None,
            head: Callable[[dict[str, Any]], None] = lambda head: None) -> Path:  # fmt: skip
    """A copy whose files or head were changed, and then sealed as if nothing had happened."""
    path = Path(shutil.copytree(bundle, folder / "damaged", dirs_exist_ok=True))
    if change is not None:
        change(path)
    reseal(path, head)
    return path


def with_tensor(name: str, value: torch.Tensor) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        tensors = load_file(path / "weights.safetensors")
        assert tensors[name].shape == value.shape and tensors[name].dtype == value.dtype
        save_file({**tensors, name: value}, path / "weights.safetensors")

    return change


def test_resealing_alone_is_not_noticed(digits_bundle, tmp_path):
    """The control: what follows is caught because of the damage, not because of how it was planted."""
    assert Bundle.load(damaged(digits_bundle, tmp_path)).golden is not None


@pytest.fixture(scope="module")
def int8_bundle(digits_bundle, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("int8")
    step: Any = resolve("steps", "quantize")
    return apply(step, Bundle.load(digits_bundle), Run(folder)).save(folder / "bundle")


def layers_with_weights(path: Path) -> list[str]:
    """Every stored tensor of two or more dimensions: the weight of a layer; norms have one."""
    return [name for name, tensor in load_file(path / "weights.safetensors").items() if tensor.dim() >= 2]


@pytest.mark.parametrize("which", ["digits_bundle", "table_bundle", "int8_bundle"])
def test_the_sign_of_the_largest_weight_of_each_layer(which, request, tmp_path):
    bundle = request.getfixturevalue(which)
    tensors = load_file(bundle / "weights.safetensors")
    names = [name for name in layers_with_weights(bundle) if not name.endswith("scale")]
    assert len(names) >= (4 if which == "digits_bundle" else 2)
    for name in names:
        value = tensors[name].clone()
        flat = value.view(-1)
        scale = tensors[name.removesuffix("q") + "scale"] if name.endswith(".q") else 1
        place = int((value.to(torch.float32) * scale).abs().argmax())
        flat[place] = -flat[place] if flat[place] != -128 else 127
        with pytest.raises(ParityError, match="torch form drifts"):
            Bundle.load(damaged(bundle, tmp_path, with_tensor(name, value)))
    print(f"\n{which}: caught in {', '.join(names)}")


@pytest.mark.parametrize("which", ["digits_bundle", "table_bundle"])
def test_every_bias_and_norm(which, request, tmp_path):
    """Also what has one dimension: each vector that reaches an output, moved by a hundredth of its size."""
    bundle = request.getfixturevalue(which)
    tensors = load_file(bundle / "weights.safetensors")
    vectors = {n: t for n, t in tensors.items() if t.dim() == 1 and t.is_floating_point()}
    assert vectors
    for name, tensor in vectors.items():
        with pytest.raises(ParityError):
            Bundle.load(damaged(bundle, tmp_path, with_tensor(name, tensor * 1.01 + 0.01 * tensor.abs().max())))


def test_smallest_relative_change_of_a_weight_tensor(digits_bundle, table_bundle, tmp_path):
    """By bisection: the smallest change of one weight tensor, relative to its own size, that is refused."""
    found: dict[str, float] = {}
    for bundle in (digits_bundle, table_bundle):
        whole = Bundle.load(bundle)
        tolerance = parity.torch_tolerance(whole)
        state = whole.model.state_dict()
        for name in layers_with_weights(bundle):
            original = state[name].clone()

            def refused(change: float, whole=whole, tensor=state[name], original=original) -> bool:
                tensor.copy_(original * (1 + change))
                try:
                    parity.check(whole, ("torch",), "here")
                except ParityError:
                    return True
                finally:
                    tensor.copy_(original)
                return False

            low, high = 0.0, 1.0
            assert refused(high), name
            while high - low > 0.02 * high:
                middle = (low + high) / 2
                low, high = (low, middle) if refused(middle) else (middle, high)
            found[name] = high
            assert tolerance / 10 < high < 100 * tolerance, f"{name}: {high}"
    for name, change in found.items():
        print(f"\n{name}: the smallest relative change that is caught is {change:.1e}", end="")
    # The replay sees in every layer what a person would call nothing: a thousandth of a percent to a tenth.
    assert max(found.values()) < 1e-2 and min(found.values()) < 3e-4
    name = min(found, key=lambda key: found[key])
    bundle = digits_bundle if name in load_file(digits_bundle / "weights.safetensors") else table_bundle
    tensor = load_file(bundle / "weights.safetensors")[name]
    with pytest.raises(ParityError):  # the same through the file
        Bundle.load(damaged(bundle, tmp_path, with_tensor(name, tensor * (1 + 2 * found[name]))))


def in_field(side: str, column: str, **changes: Any) -> Callable[[dict[str, Any]], None]:
    """Changes constants of one field in a manifest."""

    def change(head: dict[str, Any]) -> None:
        (fields,) = head["task"]["supervised"][side][column].values()
        for name, value in changes.items():
            assert fields[name] != value
            fields[name] = value

    return change


def field_of(bundle: Path, side: str, column: str) -> dict[str, Any]:
    (fields,) = store.peek(bundle)["task"]["supervised"][side][column].values()
    return fields


@pytest.mark.parametrize("relative", [1e-2, 1e-4])
@pytest.mark.parametrize("constant", ["mean", "std"])
def test_one_constant_of_an_image_field(constant, relative, digits_bundle, tmp_path):
    (value,) = field_of(digits_bundle, "inputs", "image")[constant]
    with pytest.raises(ParityError, match="preprocessing gives other arrays for input 'image'"):
        Bundle.load(
            damaged(digits_bundle, tmp_path, head=in_field("inputs", "image", **{constant: [value * (1 + relative)]}))
        )


def test_each_constant_of_each_number_field(table_bundle, tmp_path):
    columns = store.peek(table_bundle)["task"]["supervised"]["inputs"]
    assert len(columns) == 30
    for column in columns:
        for constant, value in field_of(table_bundle, "inputs", column).items():
            if isinstance(value, float) and constant in ("mean", "std", "deviation", "low", "high"):
                with pytest.raises(ParityError, match="preprocessing gives other arrays"):
                    path = damaged(table_bundle, tmp_path, head=in_field("inputs", column, **{constant: value * 1.001}))
                    Bundle.load(path)


@pytest.mark.parametrize("other", ["nearest", "area", "bicubic", "lanczos"])
def test_another_resize_filter(other, digits_bundle, tmp_path):
    with pytest.raises(ParityError, match="preprocessing gives other arrays"):
        Bundle.load(damaged(digits_bundle, tmp_path, head=in_field("inputs", "image", resize=other)))


@pytest.mark.parametrize(
    "changes", [{"normalize": "scale"}, {"background": 0}, {"background": None}, {"aspect": "pad"}, {"aspect": "crop"}]
)
def test_other_preprocessing(changes, digits_bundle, tmp_path):
    with pytest.raises(ParityError, match="preprocessing gives other arrays"):
        Bundle.load(damaged(digits_bundle, tmp_path, head=in_field("inputs", "image", **changes)))


@pytest.mark.parametrize(("first", "second"), [(0, 1), (3, 8), (8, 9)])
def test_two_labels_swapped(first, second, digits_bundle, tmp_path):
    values = list(field_of(digits_bundle, "targets", "label")["values"])
    assert len(values) == 10
    values[first], values[second] = values[second], values[first]
    with pytest.raises(ParityError, match="golden request 0 is answered"):
        Bundle.load(damaged(digits_bundle, tmp_path, head=in_field("targets", "label", values=values)))


def test_two_labels_swapped_of_two(table_bundle, tmp_path):
    values = list(field_of(table_bundle, "targets", "diagnosis")["values"])
    with pytest.raises(ParityError, match="is answered"):
        Bundle.load(damaged(table_bundle, tmp_path, head=in_field("targets", "diagnosis", values=values[::-1])))


@pytest.fixture(scope="module")
def other_run(table_system: System, tmp_path_factory) -> Path:
    """The same recipe with another seed, exported."""
    folder = tmp_path_factory.mktemp("other")
    train = {"train": {"epochs": 5, "batch_size": 32, "learning_rate": 0.011}}
    return build(table_system, folder / "work", "split", train, {"export": {"to": "onnx"}}).save(folder / "bundle")


def test_another_runs_onnx_file(exported_bundle, other_run, tmp_path):
    def change(path: Path) -> None:
        shutil.copy2(other_run / "forms/onnx/model.onnx", path / "forms/onnx/model.onnx")

    path = damaged(exported_bundle, tmp_path, change)
    for form in ("onnx", "serving", None):
        with pytest.raises(ParityError, match="onnx form drifts"):
            Bundle.load(path, form=form)
    assert Bundle.load(path, form="torch").model is not None, "the torch model is whole"


def test_every_form_is_replayed_and_not_only_the_one_that_serves(exported_bundle, other_run, tmp_path):
    def change(path: Path) -> None:
        shutil.copy2(other_run / "forms/onnx/model.onnx", path / "forms/onnx/model.onnx")

    def head(head: dict[str, Any]) -> None:
        head["serving"] = "torch"

    path = Path(shutil.copytree(exported_bundle, tmp_path / "torch serves"))
    answers = Bundle.load(path)
    served = json.loads(json.dumps(answers.task.decode(answers.golden.outputs["torch"])))
    (path / "golden/answers.json").write_text(json.dumps(served))
    reseal(path, head)
    assert Bundle.load(path).serving == "torch"
    with pytest.raises(ParityError, match="onnx form drifts"):
        Bundle.load(damaged(path, tmp_path, change))


def test_the_int8_form_of_another_run(table_bundle, other_run, tmp_path):
    """A form's tolerance is against its own golden outputs: a lossy form is as closely guarded."""
    export: Any = resolve("steps", {"export": {"to": "onnx", "activations": "int8"}})
    paths = []
    for number, start in enumerate((table_bundle, other_run)):
        bundle = Bundle.load(start)
        from luodi.core.apply import reopen

        opened = reopen(bundle, tmp_path / "cache", Run(tmp_path))
        paths.append(apply(export, opened, Run(tmp_path)).save(tmp_path / str(number)))
    (name,) = (n for n in Bundle.load(paths[0]).forms if "int8" in n)
    form = Bundle.load(paths[0]).forms[name]
    assert form.drift > form.tolerance > 0, "the loss against torch would hide the damage"

    def change(path: Path) -> None:
        shutil.copy2(paths[1] / f"forms/{name}/model.onnx", path / f"forms/{name}/model.onnx")

    with pytest.raises(ParityError, match="drifts"):
        Bundle.load(damaged(paths[0], tmp_path, change))


def test_golden_answers_that_were_changed(digits_bundle, tmp_path):
    def change(path: Path) -> None:
        answers = json.loads((path / "golden/answers.json").read_text())
        answers[3]["label"]["value"] = str((int(answers[3]["label"]["value"]) + 1) % 10)
        (path / "golden/answers.json").write_text(json.dumps(answers))

    with pytest.raises(ParityError, match="golden request 3 is answered"):
        Bundle.load(damaged(digits_bundle, tmp_path, change))


def test_golden_requests_cover_the_task(digits_bundle, table_bundle):
    golden = Bundle.load(digits_bundle).golden
    assert len(golden.requests) == parity.COUNT == len(golden.answers)
    task = Bundle.load(digits_bundle).task
    shapes = {task.read(wire)["image"].shape for wire in golden.requests}
    assert len({shape[:2] for shape in shapes}) >= 4 and {len(shape) for shape in shapes} == {2, 3}
    for answer in golden.answers:
        probabilities = answer["label"]["probabilities"]
        assert list(probabilities) == [str(digit) for digit in range(10)]
        assert sum(probabilities.values()) == pytest.approx(1, abs=1e-6)
    assert list(Bundle.load(table_bundle).golden.answers[0]) == ["diagnosis"]


def test_golden_requests_are_no_real_rows(digits_bundle, digits_system: System):
    task = Bundle.load(digits_bundle).task
    real = {task.read({"image": cell})["image"].tobytes() for cell in digits_system.rows.column("image")}
    golden = Bundle.load(digits_bundle).golden
    assert not real & {task.read(wire)["image"].tobytes() for wire in golden.requests}


def arrays(**named: Any) -> Arrays:
    return {name: np.asarray(value, dtype=np.float32) for name, value in named.items()}


def test_drift():
    wanted = arrays(y=[[1.0, -4.0], [2.0, 0.0]])
    assert parity.drift(wanted, wanted) == 0
    assert parity.drift(arrays(y=[[1.0, -4.0], [2.0, 0.04]]), wanted) == pytest.approx(0.01)
    assert parity.drift(arrays(z=[[1.0, -4.0], [2.0, 0.0]]), wanted) == float("inf")
    assert parity.drift(arrays(y=[1.0, -4.0, 2.0, 0.0]), wanted) == float("inf")
    assert parity.drift(arrays(y=[[1.0, -4.0], [2.0, np.nan]]), wanted) == float("inf")
    assert parity.drift(arrays(y=[[1.0, -4.0], [2.0, np.inf]]), wanted) == float("inf")
    assert parity.drift({}, {}) == 0
    # A small output is not hidden behind a large one.
    two = arrays(big=[[1e6]], small=[[1.0]])
    assert parity.drift(arrays(big=[[1e6]], small=[[1.1]]), two) == pytest.approx(0.1, rel=1e-3)


def test_a_model_that_answers_nothing_is_refused(digits_bundle, tmp_path):
    bundle = Bundle.load(digits_bundle)
    with torch.no_grad():
        next(iter(bundle.model.parameters())).fill_(float("nan"))
    with pytest.raises(ParityError, match="NaN or infinity in"):
        parity.record(bundle)


def test_a_step_that_keeps_the_answers_is_held_to_it(table_bundle, tmp_path):
    from typing import ClassVar

    from luodi.core.step import Step

    class Nudge(Step):
        """Moves a bias."""

        keeps: ClassVar = "answers"
        by: float = 0.1

        def __call__(self, bundle: Bundle, run: Run) -> Bundle:
            with torch.no_grad():
                list(bundle.model.parameters())[-1].add_(self.by)
            return bundle.with_model(bundle.model)

    with pytest.raises(ParityError, match="must keep the answers, but the torch form drifts"):
        apply(Nudge(by=0.5), Bundle.load(table_bundle), Run(tmp_path))
    assert apply(Nudge(by=0.0), Bundle.load(table_bundle), Run(tmp_path)).golden is not None


def test_load_without_the_check_replays_nothing(digits_bundle, tmp_path):
    path = damaged(digits_bundle, tmp_path, head=in_field("inputs", "image", resize="nearest"))
    assert Bundle.load(path, check=False).golden is not None
