"""The page in a real browser. `python tests/test_page.py runs/digits docs/page.png` makes the picture of the README."""

from __future__ import annotations

import base64
import io
import json
import math
import shutil
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright
from serving import Server, served, with_onnx

from luodi.core.bundle import Bundle

ARGUMENTS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
PICTURE = Path(__file__).parents[1] / "docs" / "page.png"
needs_browser = pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="no chromium on this machine")
pytestmark = needs_browser


def arc(x: float, y: float, across: float, down: float, start: float, end: float) -> list[tuple[float, float]]:
    """Points on an ellipse, in shares of the board, angles in radians."""
    angles = np.linspace(start, end, 24)
    return [(x + across * math.cos(angle), y + down * math.sin(angle)) for angle in angles]


THREE = [
    [
        *arc(0.49, 0.32, 0.17, 0.15, -2.7, 1.45),
        *arc(0.48, 0.645, 0.2, 0.175, -1.5, 2.5),
    ]
]
ONE = [[(0.4, 0.28), (0.53, 0.16), (0.52, 0.5), (0.5, 0.84)]]


@contextmanager
def browser() -> Generator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield opened
        opened.close()


class Visit:
    """A page that was opened, with everything it asked for and complained of."""

    def __init__(self, opened: Browser, address: str, **context: Any) -> None:
        self.context = opened.new_context(viewport={"width": 1200, "height": 800}, **{"locale": "en-US", **context})
        self.page: Page = self.context.new_page()
        self.asked: list[Any] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda one: self.asked.append(one))
        self.page.on("console", lambda line: self.complaints.append(line.text) if line.type == "error" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(address)
        self.page.wait_for_selector("html[data-ready]")
        self.address = address

    def draw(self, strokes: list[list[tuple[float, float]]]) -> None:
        """Moves the mouse as a hand would, stroke by stroke, then waits for the answer."""
        box = self.page.locator("canvas.board").bounding_box()
        assert box is not None
        for stroke in strokes:
            places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]
            self.page.mouse.move(*places[0])
            self.page.mouse.down()
            for place in places[1:]:
                self.page.mouse.move(*place, steps=2)
            with self.page.expect_response("**/predict"):
                self.page.mouse.up()
        self.page.wait_for_selector("[data-state=answered]")

    def posted(self) -> dict[str, Any]:
        """The newest request for an answer."""
        asked = [one for one in self.asked if one.url.endswith("/predict")]
        return json.loads(asked[-1].post_data)

    def shown(self) -> tuple[str, list[tuple[str, str]]]:
        """The answer in large, and the bars from the top."""
        rows = self.page.locator(".bar")
        bars = [(row.locator(".label").inner_text(), row.locator(".chance").inner_text()) for row in rows.all()]
        order = [float(row.get_attribute("aria-posinset") or 0) for row in rows.all()]
        return self.page.locator(".value").inner_text(), [bars[place] for place in np.argsort(order)]

    def state(self) -> str | None:
        return self.page.locator("#answer").get_attribute("data-state")

    def close(self, complaints: int = 0) -> None:
        """Nothing was asked of any other host, nothing went wrong (but so many refusals)."""
        assert [one.url for one in self.asked if not one.url.startswith((self.address, "data:", "blob:"))] == []
        assert len(self.complaints) == complaints and all("422" in one for one in self.complaints), self.complaints
        self.context.close()


@pytest.fixture(scope="module")
def opened() -> Generator[Browser]:
    with browser() as one:
        yield one


@pytest.fixture(scope="module")
def onnx_digits(digits_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_onnx(digits_bundle, tmp_path_factory.mktemp("page") / "digits" / "bundle")


@pytest.fixture(scope="module")
def server(onnx_digits: Path) -> Generator[Server]:
    with served(onnx_digits) as running:
        yield running


@pytest.fixture(scope="module")
def table(table_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    with served(with_onnx(table_bundle, tmp_path_factory.mktemp("page") / "cancer" / "bundle")) as running:
        yield running


def wanted(path: Path, request: dict[str, Any]) -> dict[str, Any]:
    """What the bundle's own torch model answers."""
    bundle = Bundle.load(path, form="torch", check=False)
    return bundle.predictor("torch")([bundle.task.read(request)])[0]["label"]


def test_a_drawn_digit_is_answered(opened, server, onnx_digits, tmp_path):
    visit = Visit(opened, server.address)
    assert visit.state() == "waiting" and visit.page.title() == "digits · luodi"
    visit.draw(THREE)
    posted = visit.posted()
    assert set(posted) == {"image"}
    sent = np.asarray(Image.open(io.BytesIO(base64.b64decode(posted["image"]))).convert("L"), np.float64)
    assert sent.shape == (28, 28) and sent.max() > 240 and sent[0].max() == sent[:, 0].max() == 0  # white on black
    rows, columns = np.nonzero(sent > 60)
    assert max(np.ptp(rows), np.ptp(columns)) + 1 in (19, 20, 21)  # the ink fills 20 of 28 pixels, as in the data
    mass = [float((sent.sum(axis) * np.arange(28)).sum() / sent.sum()) for axis in (1, 0)]
    assert mass == pytest.approx([13.5, 13.5], abs=0.8)
    want = wanted(onnx_digits, posted)
    value, bars = visit.shown()
    assert value == want["value"] == "3"
    best = sorted(want["probabilities"], key=lambda label: -want["probabilities"][label])
    assert [label for label, _ in bars] == best and len(bars) == 10
    assert float(bars[0][1].rstrip("%")) == pytest.approx(100 * want["probabilities"]["3"], abs=0.1)
    assert "ms" in visit.page.locator("#trip").inner_text()
    assert "onnx" in visit.page.locator("#facts").inner_text()
    visit.page.wait_for_timeout(400)  # bars in their places
    made = tmp_path / "page.png"
    visit.page.screenshot(path=made)
    assert 20_000 < made.stat().st_size < 200_000
    visit.close()


def test_undo_clear_and_escape_empty_the_board(opened, server):
    visit = Visit(opened, server.address)
    undo, clear = visit.page.get_by_role("button", name="Undo"), visit.page.get_by_role("button", name="Clear")
    assert undo.is_disabled() and clear.is_disabled()
    visit.draw([*ONE, [(0.3, 0.84), (0.7, 0.84)]])
    two = visit.posted()
    with visit.page.expect_response("**/predict"):
        undo.click()
    one = visit.posted()
    assert one != two
    clear.click()
    assert visit.state() == "waiting"
    visit.draw(ONE)
    assert visit.posted() == one
    visit.page.keyboard.press("Escape")
    assert visit.state() == "waiting"
    visit.close()


def test_without_centring_the_picture_is_sent_as_drawn(opened, server):
    visit = Visit(opened, server.address)
    corner = [[(x * 0.4, y * 0.4) for x, y in ONE[0]]]
    visit.draw(corner)
    with visit.page.expect_response("**/predict"):
        visit.page.get_by_label("Centre my drawing").uncheck()
    sent = np.asarray(Image.open(io.BytesIO(base64.b64decode(visit.posted()["image"]))).convert("L"))
    assert sent[:12, :8].max() > 200 and sent[14:].max() == sent[:, 12:].max() == 0
    visit.close()


def test_an_uploaded_or_dropped_file_is_sent_as_it_is(opened, server, onnx_digits, small_digits):
    visit = Visit(opened, server.address)
    first, second = small_digits.column("image")[:2]
    with visit.page.expect_response("**/predict"):
        visit.page.set_input_files("input[type=file]", {"name": "a.png", "mimeType": "image/png", "buffer": first})
    assert base64.b64decode(visit.posted()["image"]) == first
    visit.page.wait_for_selector("[data-state=answered]")
    assert visit.shown()[0] == wanted(onnx_digits, visit.posted())["value"]
    text = base64.b64encode(second).decode()
    with visit.page.expect_response("**/predict"):
        visit.page.evaluate(
            """async (text) => {
                const carried = new DataTransfer();
                const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
                carried.items.add(new File([bytes], "b.png", { type: "image/png" }));
                const drop = new DragEvent("drop", { dataTransfer: carried, bubbles: true, cancelable: true });
                document.querySelector(".slate").dispatchEvent(drop);
            }""",
            text,
        )
    assert base64.b64decode(visit.posted()["image"]) == second
    visit.draw(ONE)  # a drawing takes the file's place
    assert base64.b64decode(visit.posted()["image"]) != second
    visit.close()


def test_an_error_is_shown_in_words_and_the_page_goes_on(opened, server):
    visit = Visit(opened, server.address)
    visit.page.set_input_files("input[type=file]", {"name": "a.png", "mimeType": "image/png", "buffer": b"no picture"})
    visit.page.wait_for_selector("[data-state=refused]")
    told = visit.page.locator("#problem").inner_text()
    assert told.startswith("This could not be answered") and "image: expected an image" in told
    visit.draw(ONE)
    assert visit.state() == "answered" and not visit.page.locator("#problem").is_visible()
    visit.close(complaints=1)


def test_a_phone_a_finger_and_the_dark(opened, server):
    visit = Visit(opened, server.address, is_mobile=True, has_touch=True, color_scheme="dark", device_scale_factor=2)
    visit.page.set_viewport_size({"width": 360, "height": 740})
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= 360
    box = visit.page.locator("canvas.board").bounding_box()
    assert box is not None and box["width"] > 280 and box["y"] + box["height"] < 740
    finger = visit.context.new_cdp_session(visit.page)
    points = [{"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"]} for x, y in THREE[0]]
    with visit.page.expect_response("**/predict"):
        finger.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": points[:1]})
        for point in points[1:]:
            finger.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [point]})
        finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    visit.page.wait_for_selector("[data-state=answered]")
    assert visit.shown()[0] == "3" and visit.page.evaluate("scrollY") == 0  # the finger drew, it did not scroll
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= 360
    dark = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(map(int, dark.removeprefix("rgb(").removesuffix(")").split(","))) < 40
    buttons = visit.page.locator("button:visible, label.button:visible")
    assert min((button.bounding_box() or {"height": 0})["height"] for button in buttons.all()) >= 30
    visit.close()


def test_the_language_is_the_browsers_and_can_be_switched(opened, server):
    visit = Visit(opened, server.address, locale="zh-CN")
    assert visit.page.locator("#answer h2").inner_text() == "答案"
    assert visit.page.locator("html").get_attribute("lang") == "zh-CN"
    visit.page.get_by_role("button", name="EN").click()
    assert visit.page.locator("#answer h2").inner_text() == "Answer"
    visit.page.reload()
    visit.page.wait_for_selector("html[data-ready]")
    assert visit.page.locator("#answer h2").inner_text() == "Answer"  # remembered
    visit.page.locator("#code summary").click()
    assert f"curl {server.address}/predict -F file=@picture.png" in visit.page.locator("#snippet").inner_text()
    visit.close()


def test_a_row_of_a_table(opened, table):
    visit = Visit(opened, table.address)
    entries = visit.page.locator(".cell input")
    assert entries.count() == 30 and entries.first.get_attribute("placeholder")
    visit.page.get_by_role("button", name="Predict").click()
    assert "mean radius" in visit.page.locator("#problem").inner_text()
    with visit.page.expect_response("**/predict"):
        visit.page.get_by_role("button", name="Example").click()
    visit.page.wait_for_selector("[data-state=answered]")
    value, bars = visit.shown()
    assert value in {"benign", "malignant"} and {label for label, _ in bars} == {"benign", "malignant"}
    assert len(visit.posted()) == 30 and all(isinstance(cell, float | int) for cell in visit.posted().values())
    with visit.page.expect_response("**/predict"):
        entries.first.fill("abc")  # an answered row is asked again while it is edited
    visit.page.wait_for_selector("[data-state=refused]")
    assert "mean radius: expected a number, got 'abc'" in visit.page.locator("#problem").inner_text()
    visit.close(complaints=1)


def test_the_readmes_picture_is_there_and_small():
    with Image.open(PICTURE) as picture:
        assert picture.format == "PNG" and picture.size == (1200, 800)
    assert PICTURE.stat().st_size < 200_000


def make_picture(path: Path, out: Path) -> None:
    """Draws on the page of that bundle and keeps what a person sees."""
    with served(path) as running, browser() as opened:
        visit = Visit(opened, running.address)
        visit.draw(THREE)
        visit.page.mouse.move(5, 5)
        visit.page.wait_for_timeout(800)
        visit.page.screenshot(path=out)
        visit.close()


if __name__ == "__main__":
    make_picture(Path(sys.argv[1]), Path(sys.argv[2]))
