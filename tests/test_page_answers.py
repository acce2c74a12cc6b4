"""The page of a bundle that cuts its answers out of a text, in a browser."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest
from conftest import System, build
from playwright.sync_api import Browser
from serving import served
from test_page import Visit, browser, needs_browser

from luodi.core.bundle import Bundle

pytestmark = needs_browser
PICTURES = os.environ.get("PAGE_PICTURES")  # a folder for what a person would see


@pytest.fixture(scope="module")
def opened() -> Generator[Browser]:
    with browser() as one:
        yield one


def test_the_answer_is_marked_in_the_text(opened: Browser, answers_system: System, tmp_path: Path) -> None:
    steps = ({"split": {"near": "off"}}, {"train": {"epochs": 12, "batch_size": 16, "learning_rate": 0.01}})
    path = build(answers_system, tmp_path / "work", *steps).save(tmp_path / "years" / "bundle")
    context = "w1 w2 😀 w3 1911 w4"
    wire = {"question": "which year ?", "context": context}
    bundle = Bundle.load(path, check=False)
    (want,) = bundle.predictor()([bundle.task.read(wire)])
    with served(path) as running:
        visit = Visit(opened, running.address)
        page = visit.page
        assert visit.state() == "waiting" and page.locator("#ask-title").inner_text() == "Write a text"
        page.locator("#cell-question").fill("which year ?")
        page.locator("#cell-context").fill(context)
        page.get_by_role("button", name="Predict").click()
        page.wait_for_selector("#answer[data-state=answered]")
        assert visit.posted() == wire
        assert page.locator(".value").inner_text() == want["answer"]["value"] == "1911"
        assert page.locator(".within mark").inner_text() == "1911"  # behind an emoji of two code units
        assert page.locator(".within").inner_text() == context
        if PICTURES:
            page.screenshot(path=Path(PICTURES) / "answers.png", full_page=True)
        page.locator("#cell-context").fill("w1 w2 w3")
        page.get_by_role("button", name="Predict").click()
        page.wait_for_function("document.querySelector('.within').textContent === 'w1 w2 w3'")
        assert page.locator(".value").inner_text() == "—" and page.locator(".within mark").count() == 0
        visit.close()
