"""Cleaning: what is found is what was planted, held-out rows stay, and what went comes back the same."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from small_data import SIDES, bundle_of, table_rows

from luodi.core.apply import apply, reopen
from luodi.core.bundle import Bundle
from luodi.core.catalog import resolve
from luodi.core.errors import LuodiError, Refused
from luodi.core.rows import Rows
from luodi.core.run import Run
from luodi.core.source import Data, Origin, rows_of
from luodi.core.thing import dump
from luodi.core.words import rows_told
from luodi.data.clean import Clean
from luodi.data.cleaning.doubtful import confident, doubtful, joint, thresholds
from luodi.data.cleaning.outliers import beyond_quartiles, robust_scores
from luodi.data.likeness.pairs import close_pairs, firsts, groups
from luodi.data.likeness.pictures import Pictures, lowest, thumbnail, thumbnails
from luodi.data.likeness.texts import Texts, jaccard, pieces_of, signature

OFF: dict[str, Any] = dict.fromkeys(
    ("missing", "duplicates", "conflicts", "near", "copies", "outliers", "labels", "columns"), "off"
)
TEXTS = {"supervised": {"inputs": {"text": "category"}, "targets": {"label": "category"}}}


def clean(bundle: Bundle, folder: Path, **fields: Any) -> Bundle:
    return apply(Clean(**{**OFF, **fields}), bundle, Run(folder))


def ids(bundle: Bundle, part: str = "train") -> list[str]:
    assert bundle.data is not None
    return bundle.data[part].ids.tolist()


def named(rows: Rows) -> Rows:
    return rows.with_ids(np.asarray([f"r{at}" for at in range(len(rows))], object))


def mixed() -> Bundle:
    """Training rows with two copies, one conflict and one copy of a held-out row."""
    train = {"x0": [1.0, 2.0, 1.0, 3.0, 2.0, 4.0], "x1": [0.0] * 6, "x2": [0.0] * 6,
             "side": ["up", "up", "up", "up", "down", "up"]}  # fmt: skip
    held = {"x0": [4.0, 9.0], "x1": [0.0] * 2, "x2": [0.0] * 2, "side": ["down", "down"]}
    return bundle_of(SIDES, {"mlp": {"hidden": [4]}}, named(rows_of(train)), rows_of(held))


# ---- copies ----------------------------------------------------------------------------------------------------------


def test_copies_conflicts_and_held_out_copies(tmp_path: Path) -> None:
    done = clean(mixed(), tmp_path, duplicates="drop", conflicts="report", copies="drop", near="report")
    assert ids(done) == ["r0", "r1", "r3", "r4"]
    assert done.notes["dropped"] == {"duplicates": 1, "copies": 1} and done.notes["reported"] == {"conflicts": 2}
    assert (done.notes["rows_in"], done.notes["rows_out"]) == (6, 4)
    assert rows_told(done.notes) == (
        "6 -> 4 training rows: 1 copy, 1 copy of a held-out row dropped",
        "reported only: 2 with conflicting targets",
    )
    listed = done.notes["listed"]["duplicates"]
    assert listed == [{"id": "r2", "row": 2, "why": "a copy of r0"}]
    assert "held-out row" in done.notes["listed"]["copies"][0]["why"]


def test_held_out_rows_are_never_touched(tmp_path: Path) -> None:
    bundle = mixed()
    done = clean(bundle, tmp_path, duplicates="drop", conflicts="drop", copies="drop", outliers="drop")
    assert done.data is not None and bundle.data is not None
    assert done.data["validation"] is bundle.data["validation"]
    with pytest.raises(Refused, match="must not come after 'split'"):
        clean(bundle, tmp_path, on="all")
    fresh = bundle.replace(data=Data({"all": bundle.data["train"]}), facts=frozenset({"rows"}))
    assert len(ids(clean(fresh, tmp_path, on="all", duplicates="drop"), "all")) == 5
    with pytest.raises(Refused, match="needs 'split'"):
        clean(fresh, tmp_path, duplicates="drop")


def test_what_went_can_be_looked_at_and_put_back(tmp_path: Path) -> None:
    from pyarrow import parquet

    done = clean(mixed(), tmp_path, duplicates="drop", conflicts="report")
    table = parquet.read_table(tmp_path / done.notes["file"])
    assert table.column("__id__").to_pylist() == ["r2", "r1", "r4"]
    assert table.column("__went__").to_pylist() == ["yes", "no", "no"]
    assert table.column("x0").to_pylist() == [1.0, 2.0, 2.0]
    back = clean(mixed(), tmp_path, duplicates="drop", keep=("r2",))
    assert ids(back) == [f"r{at}" for at in range(6)] and back.notes["kept_by_you"] == 1
    assert ids(clean(mixed(), tmp_path, drop=("r1", 5))) == ["r0", "r2", "r3", "r4"]
    with pytest.raises(LuodiError, match="no row 'r9' here"):
        clean(mixed(), tmp_path, drop=("r9",))
    with pytest.raises(ValueError, match="in `keep` and in `drop`"):
        Clean(keep=("a",), drop=("a",))


def test_opening_a_bundle_again_drops_the_same_rows_without_looking(
    table_system: Any, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = apply(resolve("steps", "split"), table_system.fresh(), Run(tmp_path))
    done = apply(Clean(labels="drop", outliers="drop"), bundle, Run(tmp_path, scope=("clean", 0)))
    again = Bundle.load(done.save(tmp_path / "bundle"))
    for name in ("outliers", "duplicates", "near"):
        monkeypatch.setattr(f"luodi.data.clean.{name}", lambda *_: pytest.fail("looked for again"))
    back = reopen(again, cache, Run(tmp_path))
    assert done.data is not None and back.data is not None and len(ids(done)) < len(ids(bundle))
    for part in ("train", "validation", "test"):
        assert back.data[part].fingerprint == done.data[part].fingerprint


# ---- unreadable ------------------------------------------------------------------------------------------------------


def test_rows_that_cannot_be_read_go(tmp_path: Path) -> None:
    cells = {"x0": [1.0, None, 3.0, 4.0], "x1": [0.0] * 4, "x2": [0.0] * 4, "side": ["up", "up", None, "down"]}
    held = {"x0": [1.0], "x1": [0.0], "x2": [0.0], "side": ["up"]}
    bundle = bundle_of(SIDES, {"mlp": {}}, named(rows_of(cells)), rows_of(held))
    done = clean(bundle, tmp_path, missing="drop")
    assert ids(done) == ["r0", "r3"] and done.notes["empty_cells"] == {"x0": 1, "side": 1}
    whys = [one["why"] for one in done.notes["listed"]["missing"]]
    assert "x0: a number is missing" in whys[0] and "side: a label is missing" in whys[1]
    kept = clean(bundle, tmp_path, missing="report", outliers="report")  # what cannot be read is not looked at further
    assert len(ids(kept)) == 4
    gap = bundle_of(SIDES, {"mlp": {}}, table_rows(30, 0), rows_of({**held, "x0": [None]}))
    with pytest.raises(LuodiError, match=r"1 validation rows cannot be read .*put clean before split"):
        clean(gap, tmp_path, missing="drop")


def test_a_recipe_whose_rows_need_cleaning_is_not_refused(cache: Path, tmp_path: Path, quick: None) -> None:
    from luodi.core import engine
    from luodi.core.recipe import Recipe

    table = table_rows(120, 0).table
    gaps = pa.array([None if at % 20 == 0 else cell for at, cell in enumerate(table.column("x0").to_pylist())])
    pa.parquet.write_table(table.set_column(0, "x0", gaps), tmp_path / "gaps.parquet")
    recipe = {
        "name": "gaps", "task": SIDES, "model": {"mlp": {"hidden": [4]}}, "threads": {"train": 1}, "device": "cpu",
        "data": {"table": {"path": str(tmp_path / "gaps.parquet")}},
        "measure": {"seconds": 0.2, "calls": 20, "resamples": 100},
        "steps": [{"clean": {"on": "all", "labels": "off"}}, "split", {"train": {"epochs": 1}}],
    }  # fmt: skip
    result = engine.run(Recipe.of(recipe), out=tmp_path, cache=cache)
    assert result.evidence[0].words[0] == "120 -> 114 rows: 6 unreadable dropped"
    first = next(p for p in (result.folder / "steps").iterdir() if (p / "aside").is_dir())
    assert (first / "aside" / "rows.parquet").is_file()
    with pytest.raises(Refused, match="the model cannot be built: x0"):
        engine.run(Recipe.of({**recipe, "steps": recipe["steps"][1:]}), out=tmp_path, cache=cache)


# ---- near copies -----------------------------------------------------------------------------------------------------


def test_close_hashes_are_those_of_brute_force() -> None:
    dice = np.random.default_rng(0)
    hashes = dice.integers(0, 1 << 63, 300).astype(np.uint64)
    hashes[200:] = hashes[:100] ^ (np.uint64(1) << dice.integers(0, 64, 100).astype(np.uint64))
    every = np.argwhere(np.triu(np.bitwise_count(hashes[:, None] ^ hashes[None]) <= 3, 1))
    assert len(every) >= 100 and np.array_equal(close_pairs(hashes, 3), every)


@pytest.mark.parametrize("most", [0, 1, 6, 12])
def test_close_hashes_of_crowds_are_those_of_brute_force(most: int) -> None:
    """Few differing bits, so that many agree in many bands: each pair once, in order."""
    dice = np.random.default_rng(most)
    hashes = np.uint64(0xDEADBEEF00FF1234) ^ (np.uint64(1) << dice.integers(0, 64, (400, 4)).astype(np.uint64)).sum(1)
    hashes[300:] = hashes[:100]
    every = np.argwhere(np.triu(np.bitwise_count(hashes[:, None] ^ hashes[None]) <= most, 1))
    assert len(every) >= 100 and np.array_equal(close_pairs(hashes, most), every)
    for count in (0, 1, 2):
        assert close_pairs(hashes[:count], most).shape == ((1, 2) if count == 2 and most == 12 else (0, 2))


def test_thumbnails_together_are_those_of_each_picture() -> None:
    dice, shapes = (
        np.random.default_rng(0),
        [(28, 28), (28, 28, 3), (28, 28, 4), (32, 32), (40, 20, 3), (7, 191), (191, 191), (192, 192)],
    )
    pictures = [dice.integers(0, 256, shape, dtype=np.uint8) for shape in shapes for _ in range(3)]
    some = list(thumbnails(iter(pictures)))
    assert [len(one) for one in some] == [3, 3, 3, 3, *[1] * 6, 3, 1, 1, 1]
    for one, picture in zip(np.concatenate(some), pictures, strict=True):
        assert np.array_equal(one, thumbnail(picture))


def test_groups_and_what_stays() -> None:
    pairs = np.asarray([[0, 1], [1, 2], [4, 5]])
    assert groups(6, pairs).tolist() == [0, 0, 0, 3, 4, 4]
    assert firsts(pairs) == {1: 0, 5: 4}  # 2 is near to 1, which is gone, and not to 0: it stays


def test_the_cosine_transform_is_scipys() -> None:
    fft = pytest.importorskip("scipy.fft")
    small = np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)
    np.testing.assert_allclose(lowest(small)[0], fft.dctn(small, norm="ortho")[:8, :8].ravel(), rtol=1e-3, atol=1e-4)


def test_altered_pictures_are_found_and_others_are_not(digits: Rows) -> None:
    pictures = [Image.open(io.BytesIO(cell)) for cell in digits.column("image")[:400]]

    def jpeg(image: Image.Image) -> Image.Image:
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=60)
        return Image.open(stream)

    altered = [
        [jpeg(one) for one in pictures[:50]],
        [one.resize((56, 56), Image.Resampling.BICUBIC) for one in pictures[:50]],
        [one.point(lambda value: min(int(value * 1.08), 255)) for one in pictures[:50]],
    ]
    for copies in altered:
        found = {tuple(pair) for pair in Pictures.of(map(np.asarray, [*pictures, *copies])).pairs().tolist()}
        wanted = {(at, 400 + at) for at in range(50)}
        assert len(found & wanted) >= 48 and len(found - wanted) == 0
    flat = [np.full((9, 9), shade, np.uint8) for shade in (10, 11, 200)]
    assert Pictures.of(flat).pairs().tolist() == [[0, 1]]
    clear = np.zeros((9, 9, 4), np.uint8)
    assert thumbnail(clear).min() == 255  # what is transparent is white


def test_minhash_estimates_the_share_and_pairs_are_exact() -> None:
    dice = np.random.default_rng(0)
    for share in (0.3, 0.6, 0.9):
        both = int(2000 * share / (1 + share))
        values = dice.integers(0, 1 << 62, 2000 - both)
        one = np.unique(values[:1000].astype(np.uint64))
        other = np.unique(np.concatenate([values[:both], values[1000:]]).astype(np.uint64))
        exact = jaccard(one, other)
        guess = (signature(one) == signature(other)).mean()
        assert abs(guess - exact) < 4 * np.sqrt(exact * (1 - exact) / 128)
    texts = [
        "房间很干净，服务员态度也很好，下次还会来住的！",
        "房间很干净 服务员态度也很好 下次还会来住的",
        "房间很脏，服务员不理人",
        "The room was clean, and I would come again.",
        "the room was clean and i would come again",
        "::",
        ":)",
    ]
    assert Texts.of(texts).pairs().tolist() == [[0, 1], [3, 4]]
    assert jaccard(pieces_of("abcd"), pieces_of("abce")) == pytest.approx(1 / 3)


def test_near_copies_go_and_the_first_stays(tmp_path: Path) -> None:
    def png(pixels: np.ndarray) -> bytes:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        return stream.getvalue()

    dice = np.random.default_rng(0)
    pictures = [dice.integers(0, 250, (4, 4)).astype(np.uint8).repeat(8, 0).repeat(8, 1) for _ in range(6)]
    cells = [png(one) for one in pictures] + [png(one + np.uint8(2)) for one in pictures[:3]]
    labels = ["a"] * 6 + ["a", "a", "b"]
    task = {
        "supervised": {"inputs": {"image": {"image": {"size": 8, "channels": 1}}}, "targets": {"label": "category"}}
    }
    held = rows_of({"image": [png(pictures[5] + np.uint8(3))], "label": ["a"]})
    bundle = bundle_of(task, {"mlp": {}}, named(rows_of({"image": cells, "label": labels})), held)
    done = clean(bundle, tmp_path, near="drop", copies="report")
    assert ids(done) == ["r0", "r1", "r2", "r3", "r4", "r5", "r8"]  # another label is no copy
    assert [one["id"] for one in done.notes["listed"]["copies"]] == ["r5"]
    assert done.notes["listed"]["near"][0]["why"] == "nearly the same as r0"


# ---- numbers and columns ---------------------------------------------------------------------------------------------


def test_scores_by_hand() -> None:
    values = np.asarray([1.0, 2.0, 3.0, 4.0, 100.0, np.nan])
    assert robust_scores(values)[4] == pytest.approx(97 / 1.482602) and robust_scores(values)[5] == 0
    mostly = np.asarray([5.0] * 9 + [6.0])
    assert robust_scores(mostly)[9] == pytest.approx(1 / (1.253314 * 0.1))
    assert beyond_quartiles(np.asarray([0.0, 1, 2, 3, 4, 10]))[5] == pytest.approx((10 - 3.75) / 2.5)
    assert beyond_quartiles(np.ones(3)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("by", ["score", "quartiles"])
def test_planted_outliers(by: str, tmp_path: Path) -> None:
    table = table_rows(200, 0).table
    cells = table.column("x1").to_pylist()
    cells[7], cells[100] = 60.0, -80.0
    rows = named(Rows(table.set_column(1, "x1", pa.array(cells))))
    done = clean(bundle_of(SIDES, {"mlp": {}}, rows), tmp_path, outliers="drop", outlier_by=by)
    assert {"r7", "r100"} <= {one["id"] for one in done.notes["listed"]["outliers"]}
    assert len(ids(done)) >= 195
    assert len(ids(clean(bundle_of(SIDES, {"mlp": {}}, rows), tmp_path, outliers="drop", outlier_limit=20))) == 198


def test_constant_and_identifier_columns(tmp_path: Path) -> None:
    table = table_rows(60, 0).table
    table = table.append_column("same", pa.array([3.0] * 60)).append_column(
        "name", pa.array([f"n{i}" for i in range(60)])
    )
    inputs = {"x0": "number", "x1": "number", "x2": "number", "same": "number", "id": "number", "name": "category"}
    task = {"supervised": {"inputs": inputs, "targets": {"side": "category"}}}
    bundle = bundle_of(task, {"mlp": {}}, Rows(table))
    told = clean(bundle, tmp_path, columns="report")
    assert list(told.notes["columns"]) == ["same", "id", "name"] and told.task == bundle.task
    done = clean(bundle, tmp_path, columns="drop")
    assert list(done.task.inputs_specs()) == ["x0", "x1", "x2"]  # x0..x2 differ everywhere too, but count nothing
    assert "dropped: column same (constant: 3.0 in every row)" in done.notes["told"]
    trained = apply(resolve("steps", {"train": {"epochs": 1}}), done, Run(tmp_path))
    with pytest.raises(Refused, match="must not come after 'fitted'"):
        clean(trained, tmp_path, columns="drop")


# ---- labels ----------------------------------------------------------------------------------------------------------


def test_confident_learning_by_hand() -> None:
    given = np.asarray([0, 0, 0, 1, 1, 1])
    shares = np.asarray([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.3, 0.7], [0.2, 0.8], [0.7, 0.3]])
    assert thresholds(given, shares) == pytest.approx([0.6, 0.6])
    assert confident(given, shares).tolist() == [0, 0, 1, 1, 1, 0]
    assert doubtful(given, shares) == [(2, 1), (5, 0)]  # the larger margin first: 0.8, then 0.4
    np.testing.assert_allclose(joint(given, shares), [[1 / 3, 1 / 6], [1 / 6, 1 / 3]])
    unsure = np.asarray([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]])
    assert confident(np.asarray([0, 0, 1]), unsure).tolist() == [0, -1, 1]


def test_the_joint_of_planted_noise() -> None:
    """Shares that tell the truth: the joint is the planted one."""
    dice = np.random.default_rng(0)
    true = dice.integers(0, 3, 6000)
    given = np.where(dice.random(6000) < 0.2, (true + 1) % 3, true)
    wanted = np.zeros((3, 3))
    np.add.at(wanted, (given, true), 1 / 6000)
    shares = np.full((6000, 3), 0.05)
    shares[np.arange(6000), true] = 0.9
    np.testing.assert_allclose(joint(given, shares), wanted, atol=1e-9)


@pytest.mark.parametrize("by", [(), ({"train": {"epochs": 8, "learning_rate": 0.02, "batch_size": 32}},)])
def test_planted_wrong_labels_are_found(by: tuple[Any, ...], tmp_path: Path) -> None:
    table = table_rows(400, 0).table
    sides = table.column("side").to_pylist()
    sure = [at for at, total in enumerate(table.column("total").to_pylist()) if abs(total) > 1.5]
    wrong = sure[::12]
    for at in wrong:
        sides[at] = "up" if sides[at] == "down" else "down"
    rows = named(Rows(table.set_column(table.column_names.index("side"), "side", pa.array(sides))))
    done = clean(bundle_of(SIDES, {"mlp": {"hidden": [16]}}, rows, table_rows(40, 1)), tmp_path, labels="drop", by=by)
    found = {int(name[1:]) for name in set(rows.ids) - set(ids(done))}
    assert len(wrong) >= 12 and len(found & set(wrong)) >= 0.9 * len(wrong) and len(found) < 2 * len(wrong)
    assert done.model is None and "is likely" in done.notes["listed"]["labels"][0]["why"]


def test_only_labels_can_be_doubted(tmp_path: Path) -> None:
    task = {"supervised": {"inputs": {"x0": "number"}, "targets": {"total": "number"}}}
    bundle = bundle_of(task, {"mlp": {}}, table_rows(40, 0))
    assert clean(bundle, tmp_path, labels="report").notes["reported"] == {}
    with pytest.raises(Refused, match="only labels can be doubted"):
        clean(bundle, tmp_path, labels="drop")
    assert Clean().packages() == {"sklearn": "data"} and Clean(labels="off").packages() == {}
    assert dump(Clean(), short=True) == "clean" and Origin  # the name alone
