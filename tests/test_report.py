"""The report: the table, the page, the card, the comparison; numbers pinned to the evidence and to scikit-learn."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_run import bundle_of, write_run

from luodi.core import catalog, records
from luodi.core.bundle import Bundle
from luodi.core.errors import LuodiError
from luodi.core.evidence import Change, Evidence, Measure
from luodi.core.rows import Rows
from luodi.core.task import Exam
from luodi.report.answers import Answers, mean_curve, thinned
from luodi.report.card import card
from luodi.report.compare import as_json, compare, comparison, sign_test, text
from luodi.report.page import build, panels, report
from luodi.report.picture import data_url, is_picture
from luodi.report.table import print_table, table_of
from luodi.report.units import duration, signed, three
from luodi.report.view import View

BROWSER = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-sync"
HOSTILE = ("</script><script>window.hit=1</script>", "<img src=x onerror='window.hit=2'>", '"><b>', "a&amp;b", "o'k",
           "5", "six | six", "<a href='https://example.com/'>7</a>", "八", "javascript:window.hit=3")  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_run(tmp_path_factory.mktemp("runs") / "digits")
    build(folder)
    return folder


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_run(tmp_path_factory.mktemp("hostile") / "digits", labels=HOSTILE)
    build(folder)
    return folder


def test_numbers_have_three_digits_and_sizes_their_words() -> None:
    said = [three(x) for x in (0.98534, 0.99961, 12.345, 1234.5, 0, -0.02, 1e-9, 99.96, float("nan"))]
    assert said == ["0.985", "1.00", "12.3", "1,230", "0", "-0.0200", "1.00e-09", "100", "not a number"]
    assert (signed(0.5), signed(-0.5), signed(0)) == ("+0.500", "-0.500", "0")
    assert (duration(0.42), duration(75), duration(200), duration(7300)) == (
        "0.420 s",
        "75 s",
        "3 min 20 s",
        "2 h 1 min",
    )


def test_table_has_a_line_a_step_and_fits_its_medium(run: Path) -> None:
    evidence = View(run).evidence
    table = table_of(evidence)
    assert [c.name for c in table.columns] == ["label.accuracy", "p50_ms", "size_mb", "memory_mb"]
    assert len(table.lines) == len(evidence) == 6
    for width in (120, 100, 80, 60, 40):
        text = table.text(width)
        assert max(map(len, text.splitlines())) <= width
        assert all(line.label in text for line in table.lines)
        flat = " ".join(text.split())
        assert three(evidence[-1].measures["label.accuracy"].value) in flat
        assert "0.171 ms ▲" in flat if width <= 80 else "0.171 ▲" in flat
    assert "3,500 train" in table.text(120), "a step without a model has its row and its words"
    assert "MORE memory" not in table.text(120)
    wide = " ".join(table.text(200).split())
    assert all(word in wide for one in evidence for word in one.words), "words are laid out whole"


def test_table_never_says_a_verdict_by_colour_alone(run: Path) -> None:
    table = table_of(View(run).evidence)
    signs = {"better": "▲", "worse": "▼", "same": "=", "undecided": "?"}
    for line, printed in zip(table.lines, table.markdown().splitlines()[2:], strict=False):
        cells = [cell.strip() for cell in printed.split(" | ")][2:]
        for column, cell in zip(table.columns, cells, strict=False):
            verdict = line.measures[column.name].verdict if column.name in line.measures else None
            assert cell.endswith(signs[verdict]) if verdict else cell[-1] not in "▲▼=?"
    for verdict, sign in signs.items():
        assert f"{sign} {verdict}" in table.html()


def test_table_is_plain_where_there_is_no_terminal(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_table(list(View(run).evidence))
    assert capsys.readouterr().out == table_of(View(run).evidence).text(120)
    assert "\x1b" not in table_of(View(run).evidence).text()


def test_table_keeps_every_number_as_json_and_other_columns_on_request(run: Path) -> None:
    evidence = View(run).evidence
    table = table_of(evidence, ["p95_ms", "process_mb"])
    for one, line in zip(evidence, json.loads(json.dumps(table.json())), strict=True):
        for name in ("p95_ms", "process_mb"):
            found = line["measures"][name]
            assert (found is None) == (name not in one.measures)
            assert found is None or Measure.model_validate(found) == one.measures[name]


def test_markdown_cells_cannot_break_the_table() -> None:
    one = Evidence(step={"x": {}}, name="a|b\n<i>", number=1, form="torch", words=("c | d",), measures={
        "y.r2": Measure(value=0.5, low=0.4, high=0.6, count=9)})  # fmt: skip
    line = table_of([one]).markdown().splitlines()[2]
    assert line == r"| 1 a\|b &lt;i> | torch | 0.500 [0.400, 0.600] | c \| d |"


def answers_of(seed: int, rows: int, labels: int, *, rounded: bool = False) -> Answers:
    dice = np.random.default_rng(seed)
    names = np.asarray([f"k{k}" for k in range(labels)], dtype=object)
    truth = dice.integers(0, labels, rows)
    logits = dice.normal(size=(rows, labels)) + 1.5 * np.eye(labels)[truth]
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    chances = (chances.round(1) if rounded else chances).astype(np.float32)  # rounded: many ties
    ids = np.asarray([f"r{k}" for k in range(rows)], dtype=object)
    return Answers("y", ids, names[chances.argmax(axis=1)], names[truth], chances, tuple(names))


@pytest.mark.parametrize(
    ("rows", "labels", "rounded"), [(400, 5, False), (300, 3, True), (200, 2, False), (50, 2, True)]
)
def test_curves_and_confusion_are_those_of_scikit_learn(rows: int, labels: int, rounded: bool) -> None:
    from sklearn import metrics

    a = answers_of(rows, rows, labels, rounded=rounded)
    assert a.probabilities is not None
    expected = metrics.confusion_matrix(a.truth.astype(str), a.value.astype(str), labels=list(a.labels))
    np.testing.assert_array_equal(a.confusion(), expected)
    for k, label in enumerate(a.labels):
        truth, score = a.truth == label, a.probabilities[:, k]
        x, y, _ = metrics.roc_curve(truth, score, drop_intermediate=False)
        roc = a.roc(k)
        np.testing.assert_allclose(np.c_[roc.x, roc.y], np.c_[x, y])
        assert roc.area == pytest.approx(metrics.roc_auc_score(truth, score), abs=1e-12)
        precision, recall, _ = metrics.precision_recall_curve(truth, score)
        curve = a.precision_recall(k)
        np.testing.assert_allclose(np.c_[curve.x, curve.y], np.c_[recall, precision][::-1])
        assert curve.area == pytest.approx(metrics.average_precision_score(truth, score), abs=1e-12)
    macro = mean_curve([a.roc(k) for k in a.present()]).area
    if labels > 2 and not rounded:
        assert macro == pytest.approx(
            metrics.roc_auc_score(a.truth.astype(str), a.probabilities / a.probabilities.sum(1, keepdims=True),
                                  multi_class="ovr", labels=list(a.labels)), abs=1e-6)  # fmt: skip


def test_calibration_is_the_closed_form() -> None:
    chances = np.asarray([[0.95, 0.05]] * 4 + [[0.65, 0.35]] * 6, dtype=np.float64)
    truth = np.asarray(["a", "a", "a", "b", *"aaabbb"], dtype=object)
    a = Answers("y", np.arange(10).astype(object), np.asarray(["a"] * 10, dtype=object), truth, chances, ("a", "b"))
    bins = a.calibration()
    assert bins.error == pytest.approx(0.4 * abs(0.95 - 0.75) + 0.6 * abs(0.65 - 0.5))
    np.testing.assert_allclose(bins.confidence, [0.65, 0.95])
    np.testing.assert_allclose(bins.right, [0.5, 0.75])
    assert bins.rows.tolist() == [6, 4]


def test_labels_that_were_never_learned_are_counted_and_have_no_curve() -> None:
    a = answers_of(0, 60, 3)
    truth = a.truth.copy()
    truth[:7] = "new"
    changed = Answers("y", a.ids, a.value, truth, a.probabilities, a.known)
    assert changed.labels == ("k0", "k1", "k2", "new")
    assert changed.confusion()[3].sum() == 7
    assert changed.confusion()[:, 3].sum() == 0
    assert 3 not in changed.present()


def test_mistakes_come_surest_first_and_thinning_keeps_ends_and_area() -> None:
    a = answers_of(3, 500, 4)
    wrong = a.mistakes()
    assert set(wrong) == set(np.flatnonzero(a.value != a.truth))
    assert (np.diff(a.confidence[wrong]) <= 0).all()
    curve = a.roc(0)
    thin = thinned(curve, 60)
    assert len(thin.x) < len(curve.x)
    assert (thin.x[0], thin.y[0], thin.x[-1], thin.y[-1]) == (0, 0, 1, 1)
    assert thin.area == curve.area


def test_every_panel_is_an_entry_with_words_and_its_own_place() -> None:
    found = panels()
    assert {name for name, _ in found} == set(catalog.entries("panels"))
    assert len({panel.order for _, panel in found}) == len(found) >= 12
    for name, panel in found:
        summary = catalog.entries("panels")[name].summary
        assert summary.endswith(".") and len(summary) > 30, name
        assert panel.title


def test_page_says_what_the_evidence_says(run: Path) -> None:
    page = (run / "report.html").read_text(encoding="utf-8")
    view = View(run)
    text = html.unescape(re.sub(r"<[^>]+>", " ", re.sub(r"<(script|style).*?</\1>", " ", page, flags=re.S)))
    flat = " ".join(text.split())
    for one in view.evidence:
        assert f"{one.number} {one.name}" in flat
        assert all(word in flat for word in one.words)
        for name in ("label.accuracy", "p50_ms", "size_mb", "memory_mb"):
            assert name not in one.measures or three(one.measures[name].value) in flat
    for limit in view.limits:
        assert three(limit["allowed"]) in flat and three(limit["value"]) in flat
    last = view.final["label"]
    wrong = int((last.value != last.truth).sum())
    assert f"{wrong:,} of 1,000 answers are wrong" in flat
    cells = re.findall(r"<td class='(?:right|wrong)[^>]*><button[^>]*>(\d+)</button>", page)
    assert sum(map(int, cells)) == 1000
    assert "Example CPU 2.4 GHz" in flat
    assert "wrong since" in flat


def test_wrong_since_names_the_first_step_that_broke_it(run: Path) -> None:
    from luodi.report.panels.mistakes import _since

    view = View(run)
    found = _since(view, view.final["label"])
    history = [view.answers(one)["label"] for one in view.measured]
    names = ["train", "prune", "quantize", "export onnx", "export openvino-int8"]
    for row in view.final["label"].mistakes():
        identity = view.final["label"].ids[row]
        right = [bool(a.right[list(a.ids).index(identity)]) for a in history]
        last_right = max((k for k, ok in enumerate(right) if ok), default=None)
        assert found.get(identity, "") == ("" if last_right is None else names[last_right + 1])


def test_report_json_holds_the_evidence_whole(run: Path) -> None:
    found = json.loads((run / "report.json").read_text(encoding="utf-8"))
    view = View(run)
    assert tuple(Evidence.model_validate(one) for one in found["evidence"]) == view.evidence
    assert found == json.loads(json.dumps(report(view)))
    assert found["answers"]["label"]["confusion"] == view.final["label"].confusion().tolist()
    assert found["limits"] == view.limits
    assert found["recipe"]["name"] == found["name"] == "digits"
    assert found["learning"]["2 train"] == view.evidence[1].notes["history"]
    assert found["machine"]["processor"] == "Example CPU 2.4 GHz"


def test_page_of_another_run_is_only_what_it_has(run: Path, tmp_path: Path) -> None:
    bare = write_run(tmp_path / "bare", rehearsal=True)
    for name in ("limits.json", "recipe.yaml", "events.jsonl"):
        (bare / name).unlink()
    for path in [*(bare / "records").iterdir(), *(bare / "rows").iterdir()]:
        path.unlink()
    page = build(bare).read_text(encoding="utf-8")
    shown = re.findall(r"<section class='panel' id='(\w+)'", page)
    assert shown == ["summary", "steps", "moves", "learning", "machine", "lineage"]
    assert "no limits were stated" in page and "A rehearsal" in page
    assert "A rehearsal" not in (run / "report.html").read_text(encoding="utf-8")
    assert set(shown) < set(re.findall(r"<section class='panel' id='(\w+)'", (run / "report.html").read_text("utf-8")))
    with pytest.raises(LuodiError, match="no evidence"):
        build(tmp_path)


def test_a_target_of_numbers_has_its_own_panels(tmp_path: Path) -> None:
    folder = tmp_path / "prices"
    dice = np.random.default_rng(0)
    rows = Rows.of([{"age": float(k % 60), "price": float(k)} for k in range(300)])
    truth = np.arange(300.0)
    value = truth + dice.normal(0, 3, 300)
    value[17] += 100
    records.write(Exam(rows.ids, {"price.value": value, "price.truth": truth}), folder / "records" / "a.parquet")
    rows.save(folder / "rows" / "test.arrow")
    measure = Measure(value=0.9, low=0.88, high=0.92, count=300)
    one = Evidence(step={"train": {}}, name="train", number=1, form="torch", rows=rows.fingerprint, records="a.parquet",
                   measures={"price.r2": measure})  # fmt: skip
    bundle_of([one], ("0", "1")).save(folder / "bundle")
    page = build(folder).read_text(encoding="utf-8")
    shown = re.findall(r"<section class='panel' id='(\w+)'", page)
    assert shown == ["summary", "steps", "numbers", "mistakes", "lineage"]
    said = re.findall(r"said ([\d,.-]+), is ([\d,.-]+)", page)
    assert said[0] == (three(value[17]), three(truth[17])), "the answer furthest off comes first"
    figure = json.loads(re.findall(r"<script type='application/json'>(.*?)</script>", page, flags=re.S)[0])
    np.testing.assert_allclose(figure["data"][1]["y"], value, atol=1e-5)
    np.testing.assert_allclose(figure["data"][1]["x"], truth, atol=1e-5)
    assert json.loads((folder / "report.json").read_text())["answers"]["price"]["mean_absolute_error"] == pytest.approx(
        np.abs(value - truth).mean()
    )


def test_only_pictures_are_shown_as_pictures() -> None:
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (900, 700, 3), np.uint8)).save(out, "PNG")
    assert is_picture(out.getvalue())
    assert not is_picture(b"<svg onload='alert(1)'/>") and not is_picture("\x89PNG")
    url, small = data_url(out.getvalue())
    assert url.startswith("data:image/jpeg;base64,") and len(url) < 40_000 and not small


def test_recipe_is_shown_letter_by_letter(run: Path) -> None:
    from luodi.report.panels.recipe import _line

    for line in [
        *View(run).recipe_text.splitlines(),
        "  - a: '<b>' # <i>",
        "x: {y: [1, -2.5e-3, no]}",
        "- ./s.py:S",
        "",
    ]:
        assert html.unescape(re.sub(r"<[^>]+>", "", _line(line))) == line
    assert "<span class='key'>epochs</span>: <span class='digit'>10</span>" in _line("  - train: {epochs: 10}")


def test_card_states_facts_and_only_those(run: Path) -> None:
    bundle = Bundle.load(run, check=False)
    said = card(bundle, "digits")
    assert said == card(bundle, "digits")
    for fact in ("# digits", "split -> train -> prune", "`c0ffeec0ffee", "3,500 train, 500 validation, 1,000 test",
                 "BSD-3-Clause", "epochs: 10", "Example CPU 2.4 GHz", "held-out rows", "luodi serve ."):  # fmt: skip
        assert fact in said, fact
    for one in bundle.evidence:
        assert all(three(m.value) in said for n, m in one.measures.items() if n in ("label.accuracy", "p50_ms"))
    assert "p99 latency, throughput, privacy epsilon" in said, "what was not measured is named"
    evil = card(bundle, "x\n\n<script>1</script>")
    assert "<script>" not in evil and evil.startswith("# x &lt;script>")


def other_run(run: Path, folder: Path, flip: int) -> Path:
    """The same run, with the first `flip` answers of its last step made wrong."""
    import shutil

    shutil.copytree(run, folder)
    last = View(folder).last
    assert last is not None
    path = folder / "records" / last.records
    exam = records.read(path)
    value = exam.columns["label.value"].copy()
    for row in range(flip):
        value[row] = "0" if exam.columns["label.truth"][row] != "0" else "1"
    records.write(Exam(exam.ids, {**exam.columns, "label.value": value}), path)
    return folder


def test_compare_pairs_the_same_rows_and_lists_what_flipped(run: Path, tmp_path: Path) -> None:
    other = other_run(run, tmp_path / "other", 40)
    found = comparison(run, other)
    old, new = View(run).final["label"], View(other).final["label"]
    gained, lost = int((~old.right & new.right).sum()), int((old.right & ~new.right).sum())
    (flips,) = found.flips
    assert (flips.gained, flips.lost) == (gained, lost) == (0, lost)
    assert flips.both_right + flips.both_wrong + gained + lost == 1000
    change = next(one for one in found.differences if one.name == "label.accuracy").change
    assert change is not None
    assert change.value == pytest.approx(-lost / 1000)
    half = 1.96 * np.sqrt(lost / 1000 * (1 - lost / 1000) / 1000)
    assert (change.low, change.high) == pytest.approx((-lost / 1000 - half, -lost / 1000 + half), abs=0.004)
    said = text(found)
    assert f"{lost} right in the first and wrong in the second, 0 the other way" in said and "▼ worse" in said
    assert flips.examples[0]["id"] in said
    assert max(map(len, said.splitlines())) <= 140
    whole = json.loads(json.dumps(as_json(found)))
    assert Change.model_validate(whole["measures"]["label.accuracy"]["change"]) == change


def test_compare_says_plainly_what_it_cannot_compare(run: Path, tmp_path: Path) -> None:
    bundle = Bundle.load(run, check=False)
    fewer = tuple(
        one.model_copy(update={"rows": "other" * bool(one.rows), "machine": {**one.machine, "processor": "Another"}})
        for one in bundle.evidence
    )
    away = bundle.replace(evidence=fewer).save(tmp_path / "away")
    said = compare(run, away)
    assert json.loads(compare(run, away, json=True)) == json.loads(json.dumps(as_json(comparison(run, away))))
    assert "quality is not comparable: the two were scored on different rows" in said
    assert "different machines" in said
    found = {one.name: one for one in comparison(run, away).differences}
    assert found["label.accuracy"].change is None and found["p50_ms"].change is None
    assert found["size_mb"].verdict == "same", "bytes on disk are the same everywhere"
    alone = bundle.save(tmp_path / "alone" / "bundle")
    assert "are not beside it" in compare(run, alone)
    empty = bundle.replace(evidence=()).save(tmp_path / "empty")
    with pytest.raises(LuodiError, match="nothing in it was measured"):
        compare(run, empty)
    assert "no answer went from right to wrong" in compare(run, run / "bundle")


def test_sign_test_is_the_exact_binomial() -> None:
    from scipy.stats import binomtest

    for gained, lost in ((0, 1), (3, 9), (12, 5), (7, 7), (0, 40), (200, 260)):
        assert sign_test(gained, lost) == pytest.approx(binomtest(gained, gained + lost).pvalue, rel=1e-9)


@pytest.fixture(scope="module")
def chromium() -> Any:
    from playwright.sync_api import sync_playwright

    if not Path("/usr/bin/chromium").exists():
        pytest.skip("no Chromium at /usr/bin/chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=BROWSER.split())
        yield browser
        browser.close()


def opened(chromium: Any, folder: Path, width: int = 1240, scheme: str = "light") -> tuple[Any, list[str], list[str]]:
    """The page, what the console said, and the addresses it asked for."""
    page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto((folder / "report.html").as_uri())
    page.wait_for_function("document.querySelectorAll('.plot .main-svg').length >= 10")
    return page, said, [url for url in asked if not url.startswith("data:")]


def test_page_opens_offline_and_draws_everything(run: Path, chromium: Any) -> None:
    page, said, asked = opened(chromium, run)
    assert said == []
    assert asked == [(run / name).as_uri() for name in ("report.html", "plotly.min.js")]
    charts = page.evaluate("[...document.querySelectorAll('.plot')].map(e => e.querySelectorAll('.main-svg').length)")
    assert len(charts) >= 13 and min(charts) >= 1
    assert page.evaluate(
        "[...document.images].every(i => i.complete && i.naturalWidth > 0) && document.images.length > 20"
    )
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    line = "document.querySelector('.plot .xtick text').style.fill"
    before = page.evaluate(line)
    page.emulate_media(color_scheme="dark")
    page.wait_for_timeout(400)
    assert page.evaluate(line) != before
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    page.close()


def test_a_cell_of_the_confusion_shows_its_examples(run: Path, chromium: Any) -> None:
    page, _, _ = opened(chromium, run)
    button = page.locator(".matrix td.wrong button").first
    truth, answer = button.get_attribute("data-truth"), button.get_attribute("data-answer")
    count = int(button.inner_text())
    button.click()
    shown = page.evaluate("[...document.querySelectorAll('.mistake')].filter(e => !e.hidden).map(e => e.innerText)")
    assert len(shown) == count
    assert all(f"said {answer}, is {truth}" in one for one in shown)
    page.locator("button[data-act=all]").click()
    assert page.evaluate("[...document.querySelectorAll('.mistake')].filter(e => !e.hidden).length") == 24
    page.close()


def test_names_from_data_stay_inert_and_the_page_fits(hostile: Path, chromium: Any) -> None:
    page, said, asked = opened(chromium, hostile)
    for width in (380, 760, 1240):
        page.set_viewport_size({"width": width, "height": 900})
        for _ in range(60):  # charts follow the width in their own time
            page.wait_for_timeout(300)
            if page.evaluate("document.documentElement.scrollWidth") <= width:
                break
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("window.hit") is None
    assert page.evaluate("document.querySelectorAll('main a[href^=http], .plot a, main b > b').length") == 0
    assert said == [] and len(asked) == 2
    assert "<img src=x onerror='window.hit=2'>" in page.evaluate("document.querySelector('.matrix').innerText")
    page.close()


def test_what_is_not_finite_is_said_and_leaves_a_gap(tmp_path: Path) -> None:
    nan = float("nan")
    history = [{"epoch": 1, "train_loss": 0.5, "validation_loss": nan}, {"epoch": 2, "train_loss": float("inf")}]
    measures = {"label.auc": Measure(value=nan, low=nan, high=nan, count=3)}
    one = Evidence(
        step={"train": {}}, name="train", number=1, form="torch", measures=measures, notes={"history": history}
    )
    bundle_of([one, one.model_copy(update={"number": 2})], ("a", "b")).save(tmp_path / "odd" / "bundle")
    page = build(tmp_path / "odd").read_text(encoding="utf-8")
    assert "not a number" in page
    figures = [json.loads(one) for one in re.findall(r"<script type='application/json'>(.*?)</script>", page, re.S)]
    losses = next(figure for figure in figures if figure["data"][0].get("name") == "training")
    assert losses["data"][0]["y"] == [0.5, None]
    whole = (tmp_path / "odd" / "report.json").read_text(encoding="utf-8")
    json.loads(whole, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
