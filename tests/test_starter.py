"""`luodi init`: what a first recipe says about a table or a folder, and that it can be trained as it is."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from luodi.core import yaml
from luodi.core.bundle import Bundle
from luodi.core.catalog import resolve
from luodi.core.errors import LuodiError
from luodi.core.recipe import Recipe
from luodi.core.run import Run
from luodi.core.source import Data
from luodi.data.reading.columns import as_input, as_target, shares, tells
from luodi.data.split import Split
from luodi.starter import write_recipe


def table(path: Path, columns: dict[str, list[Any]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_MINIMAL)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def customers(count: int = 120) -> dict[str, list[Any]]:
    dice = np.random.default_rng(0)
    return {
        "id": list(range(1, count + 1)),
        "e-mail": [f"person{at}@example.org" for at in range(count)],
        "age": ["" if at % 10 == 3 else int(dice.integers(18, 80)) for at in range(count)],
        "income": [round(float(dice.normal(3000, 500)), 2) for _ in range(count)],
        "on": [["yes", "no", "", "maybe"][at % 4] for at in range(count)],
        "postal: code, #1": [f"0{10 + at % 7}" for at in range(count)],
        "country": ["CN"] * count,
        "empty": [""] * count,
        "left": ["gone" if at % 3 == 0 else "here" for at in range(count)],
        "churned": ["true" if at % 3 == 0 else "false" for at in range(count)],
    }


def trained_once(recipe: dict[str, Any], cache: Path) -> dict[str, float]:
    """The recipe's own split, task and model: one loss over the training rows, and every held-out row encoded."""
    task = resolve("tasks", recipe["task"])
    rows = resolve("sources", recipe["data"]).open(cache)  # type: ignore[attr-defined]
    bundle = Bundle(task=task, config=resolve("models", recipe["model"]), data=Data({"all": rows}))  # type: ignore[arg-type]
    split = next(step["split"] for step in recipe["steps"] if "split" in step)
    run = Run(cache)
    bundle = Split(**split)(bundle, run).ready(run)
    assert bundle.data is not None and bundle.model is not None
    import torch

    for held in bundle.data.splits.values():
        arrays = bundle.task.encode(bundle.task.samples(held, len(held), run))
        batch = {name: torch.as_tensor(array) for name, array in arrays.items()}
        truth = {name: torch.as_tensor(array) for name, array in bundle.task.truth(held).items()}
        losses = bundle.task.loss(bundle.model.eval(), batch, truth)
        assert all(torch.isfinite(values).all() for values, _, _ in losses.values())
    return {name: float(values.detach().mean()) for name, (values, _, _) in losses.items()}


def test_a_table_of_customers(tmp_path: Path) -> None:
    out = tmp_path / "churn.yaml"
    path = table(tmp_path / "customers 2026.csv", customers())
    told = write_recipe(path, "churned", out)
    text = out.read_text(encoding="utf-8")
    recipe = yaml.parse(text)
    assert recipe["name"] == "customers_2026"
    assert recipe["data"] == {"table": {"path": path.as_posix()}}
    assert recipe["task"]["supervised"] == {
        "inputs": {
            "age": {"number": {"missing": "mean"}},
            "income": "number",
            "on": {"category": {"unseen": "other"}},
            "postal: code, #1": {"category": {"unseen": "other"}},
        },
        "targets": {"churned": "category"},
    }
    for remark in (
        "# id: left out: numbers the rows one by one",
        "e-mail: left out: another value in almost every row",
        "country: left out: the same value everywhere: CN",
        "# empty: left out: every cell is empty",
        "# left: left out: says the same as churned",
        "12 cells are missing",
        "2 labels: false 80 (67%), true 40 (33%)",
    ):
        assert remark in text
    assert "learns 'churned' (category) from 4 columns, 5 left out" in told and f"luodi run {out}" in told
    assert trained_once(recipe, tmp_path)["churned"] == pytest.approx(np.log(2), abs=0.4)
    with pytest.raises(LuodiError, match="is there already"):
        write_recipe(path, "churned", out)


def test_the_recipe_is_one_the_runner_takes(tmp_path: Path) -> None:
    write_recipe(table(tmp_path / "t.csv", customers()), "churned", tmp_path / "t.yaml")
    recipe = Recipe.read(tmp_path / "t.yaml")
    assert recipe.step_names() == ["split", "train", "prune", "quantize", "export"]
    commented = (tmp_path / "t.yaml").read_text().replace("# limits:", "limits:")
    limited = Recipe.of(yaml.parse(commented), commented)
    assert limited.limits.drop == {"accuracy": 0.01} and limited.limits.p50_ms == 5


def test_a_number_is_learned_as_one(tmp_path: Path) -> None:
    dice = np.random.default_rng(1)
    columns = {"size": dice.integers(20, 200, 90).tolist(), "price": dice.normal(100, 9, 90).round(2).tolist()}
    write_recipe(table(tmp_path / "houses.csv", columns), "price", tmp_path / "houses.yaml")
    recipe = yaml.parse((tmp_path / "houses.yaml").read_text())
    assert recipe["task"]["supervised"]["targets"] == {"price": "number"}
    assert "drop: {r2: 0.01}" in (tmp_path / "houses.yaml").read_text()
    assert trained_once(recipe, tmp_path)["price"] < 4


def test_a_folder_of_images(tmp_path: Path) -> None:
    dice = np.random.default_rng(2)
    for at in range(40):
        path = tmp_path / "shapes" / ["round", "no"][at % 2] / f"{at}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(dice.integers(0, 256, (30, 34)).astype(np.uint8)).save(path)
    write_recipe(tmp_path / "shapes", "", tmp_path / "shapes.yaml")
    recipe = yaml.parse((tmp_path / "shapes.yaml").read_text())
    assert recipe["task"]["supervised"]["inputs"] == {"image": {"image": {"size": 28, "channels": 1}}}
    assert recipe["model"] == {"convnet": {"widths": [32, 64]}}
    assert trained_once(recipe, tmp_path)["label"] < 2
    colour = np.zeros((100, 90, 3), np.uint8)
    colour[..., 0] = 200
    for at in range(40):
        Image.fromarray(colour).save(tmp_path / "shapes" / ["round", "no"][at % 2] / f"{at}.png")
    write_recipe(tmp_path / "shapes", "label", tmp_path / "colour.yaml")
    recipe = yaml.parse((tmp_path / "colour.yaml").read_text())
    assert recipe["task"]["supervised"]["inputs"]["image"]["image"] == {"size": 96, "channels": 3}
    with pytest.raises(LuodiError, match="has one target, label"):
        write_recipe(tmp_path / "shapes", "kind", tmp_path / "x.yaml")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("churnd", "no column 'churnd'; did you mean 'churned'"),
        ("", "say which column to learn: --target NAME"),
        ("country", "cannot be learned: the same value everywhere"),
        ("e-mail", "120 different values in 120 rows"),
        ("on", "is empty in 30 of 120 rows"),
    ],
)
def test_a_target_that_cannot_be_learned(tmp_path: Path, target: str, message: str) -> None:
    path = table(tmp_path / "t.csv", customers())
    with pytest.raises(LuodiError, match=message):
        write_recipe(path, target, tmp_path / "t.yaml")
    assert not (tmp_path / "t.yaml").exists()


def test_too_few_rows_and_nothing_to_learn_from(tmp_path: Path) -> None:
    with pytest.raises(LuodiError, match="12 rows are too few"):
        write_recipe(table(tmp_path / "t.csv", customers(12)), "churned", tmp_path / "t.yaml")
    only = {"id": list(range(40)), "label": ["a", "b"] * 20}
    with pytest.raises(LuodiError, match="no column to learn 'label' from: id: numbers the rows"):
        write_recipe(table(tmp_path / "only.csv", only), "label", tmp_path / "t.yaml")


def test_kinds_by_hand() -> None:
    assert as_input("n", [1, 2, 3, 1] * 10).kind == "number"
    assert "`category` if they are codes" in as_input("n", [1, 2, 3, 1] * 10).remark
    assert as_input("customer_id", [7 * at + at % 3 for at in range(50)]).kind == "skip"
    assert as_input("amount", [7 * at + at % 3 for at in range(50)]).kind == "number"
    assert as_input("photo", ["a/1.PNG", "b.jpeg"] * 9).remark.startswith("names of image files")
    assert as_input("review", ["w" * 80, "v" * 90] * 9).remark.startswith("written text")
    assert as_input("x", [1.0, float("inf"), 2.0]).kind == "skip"
    assert as_target("grade", [1, 2, 3, 4, 5] * 20).kind == "category"
    assert as_target("grade", [1.0, 2.0] * 20).counts == (("1", 20), ("2", 20))
    assert as_target("amount", list(range(100))).kind == "number"
    assert as_target("amount", [1.5, 2.5] * 20).kind == "number"
    assert tells(["x", "y", "x"], [1.0, 2.0, 1]) and not tells(["x", "y", "x"], [1, 2, 2])
    assert not tells(["x", "y"], [1, 1])
    assert shares([(str(at), 1) for at in range(12)], 2) == "0 1 (8%), 1 1 (8%), and 10 more"


NAME = st.text(st.characters(exclude_characters="\r\n\x00", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
ODD = st.sampled_from(
    ["on", "no", "012", "null", "1e3", "a: b", "# c", "- d", "[e", "{f}", "*g", "'", '"h', "键", "~", "y"]
)


@given(st.lists(NAME | ODD, min_size=2, max_size=5, unique_by=str.strip))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_column_name_survives_the_recipe(tmp_path: Path, names: list[str]) -> None:
    names = [name.strip() or "blank" for name in names]
    columns: dict[str, list[Any]] = {name: [at * 0.37 % 1 for at in range(30)] for name in [*names, "x"]}
    columns["the target"] = [at % 2 for at in range(30)]
    out = tmp_path / "odd.yaml"
    out.unlink(missing_ok=True)
    write_recipe(table(tmp_path / "odd.csv", columns), "the target", out)
    recipe = yaml.parse(out.read_text(encoding="utf-8"))
    assert list(recipe["task"]["supervised"]["inputs"]) == [name for name in columns if name != "the target"]
