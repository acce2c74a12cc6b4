"""Recipes: YAML and Python are the same thing; errors give the line and the nearest name; `--set`; the JSON Schema."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import System, luodi, write_recipe
from hypothesis import given, settings
from hypothesis import strategies as st

from luodi.command.schema import recipe_schema
from luodi.core import yaml
from luodi.core.catalog import load
from luodi.core.errors import LuodiError
from luodi.core.limits import Limits
from luodi.core.recipe import Budget, Recipe, Threads, apply_setting

RECIPES = sorted(Path(__file__).parents[1].joinpath("recipes").glob("*.yaml"))
DIGITS = """\
name: digits
task:
  supervised:
    inputs: {image: {image: {size: 28, channels: 1}}}
    targets: {label: category}
data: {sample: {name: digits}}
model: {convnet: {widths: [32, 64]}}
steps:
  - split: {validation: 0.1, test: 0.2}
  - train: {epochs: 10, learning_rate: 1e-3}
  - prune
  - quantize: {weights: int8}
limits: {p50_ms: 5, size_mb: 1, drop: {accuracy: 0.01}}
"""


def python_recipe() -> Recipe:
    """The same in Python."""
    supervised, image, category = load("tasks", "supervised"), load("fields", "image"), load("fields", "category")
    split, train, prune, quantize = (load("steps", name) for name in ("split", "train", "prune", "quantize"))
    return Recipe(
        name="digits",
        task=supervised(inputs={"image": image(size=28, channels=1)}, targets={"label": category()}),
        data=load("sources", "sample")(name="digits"),
        model=load("models", "convnet")(widths=(32, 64)),
        steps=(split(validation=0.1, test=0.2), train(epochs=10, learning_rate=0.001), prune(), quantize()),
        limits=Limits(p50_ms=5, size_mb=1, drop={"accuracy": 0.01}),
    )


def test_yaml_is_python():
    assert Recipe.of(yaml.parse(DIGITS)) == python_recipe()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
@pytest.mark.parametrize("short", [True, False], ids=["short", "full"])
def test_round_trip_of_our_recipes(path, short):
    recipe = Recipe.read(path)
    text = recipe.yaml(short=short)
    again = Recipe.of(yaml.parse(text), text)
    assert again == recipe and again.yaml(short=short) == text
    assert again.plain(short=False) == recipe.plain(short=False)


def test_there_are_recipes():
    assert {"digits"} <= {path.stem for path in RECIPES}


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
fields = st.sampled_from(["number", "category", {"number": {"missing": "mean"}}, {"image": {"size": [4, 8]}}])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    inputs=st.dictionaries(texts, fields, min_size=1, max_size=4), seed=st.integers(0, 2**63 - 1),
    rate=st.floats(1e-12, 1e6), allowed=st.floats(0, 1e9), start=texts,
)  # fmt: skip
def test_round_trip_of_any_names_and_numbers(inputs, seed, rate, allowed, start):
    task = {"supervised": {"inputs": inputs, "targets": {"the target": "number"}}}
    steps = ["split", {"train": {"learning_rate": rate}}]
    value = {"name": "a.b-1", "task": task, "steps": steps, "seed": seed, "limits": {"drop": {"rmse": allowed}}}
    for recipe in (Recipe.of(value), Recipe.of({"name": "x", "from": start, "steps": ["prune"]})):
        for short in (True, False):
            assert Recipe.of(yaml.parse(recipe.yaml(short=short))) == recipe


def test_the_short_form_holds_what_differs():
    plain = python_recipe().plain()
    assert plain["steps"][2] == "prune" and plain["limits"] == {
        "p50_ms": 5.0,
        "size_mb": 1.0,
        "drop": {"accuracy": 0.01},
    }
    assert "seed" not in plain and "threads" not in plain
    full = python_recipe().plain(short=False)
    assert full["steps"][2]["prune"]["sparsity"] == 0.5 and full["threads"] == {"train": 0, "serve": 1}
    assert set(full) == {field.alias or name for name, field in Recipe.model_fields.items()}


def test_the_full_form_holds_every_field_of_every_thing():
    def walk(thing, plain) -> int:
        assert set(plain) == set(type(thing).model_fields)
        return len(plain)

    recipe = python_recipe()
    full = recipe.plain(short=False)
    for step, said in zip(recipe.steps, full["steps"], strict=True):
        (fields_said,) = said.values()
        assert walk(step, fields_said) >= 1
    assert set(full["task"]["supervised"]["inputs"]["image"]["image"]) == set(load("fields", "image").model_fields)


@pytest.mark.parametrize(
    ("change", "line", "told"),
    [
        (("train: {epochs", "trian: {epochs"), 10, "did you mean 'train'"),
        (("epochs: 10", "epoch: 10"), 10, "unknown key 'epoch'; did you mean 'epochs'"),
        (("epochs: 10", "epochs: ten"), 10, "got 'ten'"),
        (("epochs: 10", "epochs: 0"), 10, "greater than or equal to 1"),
        (("learning_rate: 1e-3", "learning_rate: on"), 10, "got 'on'"),
        (("widths: [32, 64]", "width: [32, 64]"), 7, "did you mean 'widths'"),
        (("widths: [32, 64]", "widths: [32, x]"), 7, "got 'x'"),
        (("convnet", "convent"), 7, "did you mean 'convnet'"),
        (("{size: 28,", "{sizes: 28,"), 4, "did you mean 'size'"),
        (("channels: 1", "channels: 2"), 4, "1 or 3"),
        (("label: category", "label: categorie"), 5, "did you mean 'category'"),
        (("supervised", "superwised"), 3, "did you mean 'supervised'"),
        (("{name: digits}", "{name: digitz}"), 6, "got 'digitz'"),
        (("sample", "sampel"), 6, "did you mean 'sample'"),
        (("p50_ms: 5", "p50: 5"), 13, "did you mean 'p50_ms'"),
        (("p50_ms: 5", "p50_ms: -5"), 13, "greater than 0"),
        (("limits:", "limit:"), 13, "did you mean 'limits'"),
        (("weights: int8", "weights: int9"), 12, "'int8'"),
        (("  - prune\n", "  - {prune: {sparsity: 1}}\n"), 11, "less than 1"),
        (("  - prune\n", "  - 3\n"), 11, "expected a name or one name with its fields"),
        (("  - prune\n", "  - {prune: {}, split: {}}\n"), 11, "expected a name or one name with its fields"),
        (("  - prune\n", "  - prune: 5\n"), 11, "expected fields"),
        (("name: digits\n", "name: a/b\n"), 1, "name"),
    ],
    ids=lambda part: part[1].strip()[:30] if isinstance(part, tuple) else None,
)
def test_errors_give_the_line_and_the_nearest_name(change, line, told, tmp_path):
    before, after = change
    assert before in DIGITS
    path = tmp_path / "recipe.yaml"
    path.write_text(DIGITS.replace(before, after, 1))
    with pytest.raises(LuodiError) as caught:
        Recipe.read(path)
    message = str(caught.value)
    assert f"line {line}, " in message and told in message and str(path) in message, message
    assert message.count("line ") == 1, message


def test_several_problems_at_once():
    text = DIGITS.replace("epochs: 10", "epoch: 10").replace("widths", "width").replace("p50_ms: 5", "p50_ms: x")
    with pytest.raises(LuodiError) as caught:
        Recipe.of(yaml.parse(text), text)
    message = str(caught.value)
    for line, name in ((7, "width"), (10, "epoch"), (13, "p50_ms")):
        assert f"line {line}, " in message and name in message, message
    assert len(message.splitlines()) == 4


def test_a_recipe_starts_from_a_task_or_a_bundle():
    with pytest.raises(LuodiError, match="needs a task, or a bundle"):
        Recipe.of({"name": "x"})
    with pytest.raises(LuodiError, match="takes its task and model from there"):
        Recipe.of({"name": "x", "from": "a", "task": yaml.parse(DIGITS)["task"]})
    with pytest.raises(LuodiError, match="expected keys and values, got list"):
        Recipe.of([1])
    with pytest.raises(LuodiError, match=r"name: 'name' is required"):
        Recipe.of({"from": "a"})
    assert Recipe.of({"name": "x", "from": "a"}).start == "a"


def test_plain_cases_have_names():
    value = yaml.parse(DIGITS)
    value["task"] = {"classification": value["task"]["supervised"]}
    assert Recipe.of(value) == python_recipe()


def set_on(*settings: str, text: str = DIGITS) -> Recipe:
    value = yaml.parse(text)
    for setting in settings:
        apply_setting(value, setting)
    return Recipe.of(value)


def test_settings():
    assert set_on("steps.train.epochs=5").steps[1].epochs == 5
    assert set_on("steps.1.train.epochs=5") == set_on("steps.train.epochs=5")
    assert set_on("steps.prune.sparsity=0.9").steps[2].sparsity == 0.9  # a name alone is opened
    assert set_on("steps.train.learning_rate=1e-4").steps[1].learning_rate == 1e-4
    assert set_on("seed=7", "threads.train=2", "limits.p99_ms=3").threads == Threads(train=2)
    assert set_on("measure.calls=50").measure == Budget(calls=50)
    assert set_on("model.convnet.widths=[8, 16]").model.widths == (8, 16)
    assert set_on("data.sample.name=iris").data.name == "iris"
    assert (
        set_on("task.supervised.targets.label.category.label_smoothing=0.1").task.targets["label"].label_smoothing
        == 0.1
    )
    assert set_on("model=mlp").model == load("models", "mlp")()
    assert set_on("steps.train.augment=[affine]").steps[1].augment[0] == load("augments", "affine")()
    assert set_on("name=no").name == "no"
    assert set_on('limits.drop."label.accuracy"=0.02').limits.drop["label.accuracy"] == 0.02


TWICE = DIGITS.replace("  - prune\n", "  - prune\n  - train: {epochs: 2}\n")


def test_a_step_that_occurs_twice_needs_its_number():
    assert set_on("steps.3.train.epochs=5", text=TWICE).steps[3].epochs == 5
    with pytest.raises(LuodiError, match=r"'train' occurs 2 times: put its number before it, as in steps\.1\.train"):
        set_on("steps.train.epochs=5", text=TWICE)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("steps.train.epochs", "expected path=value"),
        ("=5", "expected path=value"),
        ("steps.trian.epochs=5", "no 'trian'; did you mean 'train'"),
        ("steps.9.epochs=5", "no '9'"),
        ("steps..epochs=5", "no ''"),
        ("steps.1.prune.sparsity=0.5", "step 1 is 'train', not 'prune'"),
        ("steps.train.epoch=5", "did you mean 'epochs'"),
        ("stebs.train.epochs=5", "did you mean 'steps'"),
        ("name.first=5", "name"),
        ("steps.train.epochs=[", "--set steps.train.epochs=["),
        ("steps.train.epochs.x=5", "has no keys"),
        ("model.convnet.widths.0.x=5", "--set model.convnet.widths.0.x=5|valid"),
        ("seed.x.y=1", "seed"),
    ],
)
def test_settings_that_cannot_be(setting, told):
    with pytest.raises(LuodiError) as caught:
        set_on(setting)
    assert any(part in str(caught.value) for part in told.split("|")), caught.value


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(LuodiError, match=r"cannot read .*No such file.*luodi list recipes"):
        Recipe.read(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes("name: größe\n".encode("latin-1"))
    with pytest.raises(LuodiError, match="UTF-8"):
        Recipe.read(tmp_path / "latin.yaml")
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(LuodiError, match="expected keys and values"):
        Recipe.read(tmp_path / "empty.yaml", ["seed=1"])


SCHEMA = recipe_schema()


def errors_of(value) -> list[str]:
    from jsonschema import Draft202012Validator

    return [error.message for error in Draft202012Validator(SCHEMA).iter_errors(value)]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_schema_takes_our_recipes(path):
    assert errors_of(yaml.parse(path.read_text(encoding="utf-8"))) == []
    assert errors_of(Recipe.read(path).plain(short=False)) == []


def test_schema_is_a_schema():
    from jsonschema import Draft202012Validator

    Draft202012Validator.check_schema(SCHEMA)
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("train: {epochs", "trian: {epochs"), ("epochs: 10", "epoch: 10"), ("epochs: 10", "epochs: ten"),
        ("widths", "width"), ("label: category", "label: categorie"), ("limits:", "limit:"), ("p50_ms", "p50"),
        ("channels: 1", "channels: 2"), ("weights: int8", "weights: int9"), ("name: digits}", "name: digitz}"),
    ],
)  # fmt: skip
def test_schema_refuses_a_typo(before, after):
    assert before in DIGITS and errors_of(yaml.parse(DIGITS)) == []
    assert errors_of(yaml.parse(DIGITS.replace(before, after, 1)))


def test_schema_takes_own_things_and_bundles():
    value = yaml.parse(DIGITS)
    value["steps"] += ["./my_step.py:MyStep", {"my_pkg.steps:Other": {"strength": 2}}]
    assert errors_of(value) == []
    assert errors_of({"name": "x", "from": "runs/digits", "steps": ["prune"]}) == []


OWN_STEP = '''
from __future__ import annotations

from luodi.core.bundle import Edit
from luodi.core.step import Step


class Halve(Step):
    """Halves every weight."""

    by: float = 2.0

    def __call__(self, bundle, run):
        import torch

        with torch.no_grad():
            for parameter in bundle.model.parameters():
                parameter /= self.by
        return bundle.with_model(bundle.model, edit=Edit(step=self)).noting(halved=True)


class NoStep:
    """Something else."""
'''


def test_own_step_runs_without_registration(table_system: System, tmp_path: Path):
    """In a process of its own, from the command line; the bundle then names the file and its hash."""
    (tmp_path / "halve_it.py").write_text(OWN_STEP)
    train = {"train": {"epochs": 1, "batch_size": 64}}
    value = table_system.recipe("split", train, {"./halve_it.py:Halve": {"by": 4.0}}, name="own")
    write_recipe(tmp_path / "own.yaml", value)
    done = luodi("run", "own.yaml", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    last = json.loads(done.stdout)["evidence"][-1]
    assert last["step"] == {"./halve_it.py:Halve": {"by": 4.0}} and last["notes"] == {"halved": True}
    head = json.loads((tmp_path / "runs/own/bundle/bundle.json").read_text())
    assert list(head["own"]) == ["./halve_it.py:Halve"] and len(head["own"]["./halve_it.py:Halve"]) == 64
    again = luodi("run", "own.yaml", "--json", cwd=tmp_path)
    assert again.returncode == 0 and json.loads(again.stdout)["done"] == 0, again.stderr


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("./none.py:Halve", "no file ./none.py"),
        ("./halve_it.py:Halv", "did you mean 'Halve'"),
        ("./halve_it.py:NoStep", "must derive from luodi's Step"),
        ("./broken.py:X", "cannot be loaded"),
        ("no_such_package.x:Y", "cannot import no_such_package"),
        ("./halve_it.py:", "has no ''"),
    ],
)
def test_own_steps_that_cannot_be(name, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "halve_it.py").write_text(OWN_STEP)
    (tmp_path / "broken.py").write_text("import\n")
    value = yaml.parse(DIGITS) | {"steps": ["split", name]}
    with pytest.raises(LuodiError) as caught:
        Recipe.of(value)
    assert told in str(caught.value), caught.value


def test_the_resolved_recipe_is_saved_whole(table_system: System, cache: Path, quick, tmp_path: Path, monkeypatch):
    """Every field, and nothing of the environment: what holds a token or a password is nowhere in the run."""
    from luodi.core.engine import run

    for name in ("HF_TOKEN", "PIP_INDEX_URL", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, f"https://me:swordfish-{name}@example.org")
    recipe = Recipe.of(table_system.recipe({"split": {"test": 0.3}}, {"train": {"epochs": 1}}))
    run(recipe, out=tmp_path, cache=cache)
    for path in (tmp_path / "run").rglob("*"):
        assert not path.is_file() or b"swordfish" not in path.read_bytes(), path
    text = (tmp_path / "run" / "recipe.yaml").read_text(encoding="utf-8")
    assert Recipe.of(yaml.parse(text)) == recipe
    saved = yaml.parse(text)
    assert set(saved) == {field.alias or name for name, field in Recipe.model_fields.items()}
    assert saved["steps"][0]["split"] == {**load("steps", "split")().model_dump(mode="json"), "test": 0.3}
