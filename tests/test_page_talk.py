"""The page of bundles that read or write texts, in a browser."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import System, build, open_source
from playwright.sync_api import Browser
from serving import Server, png, served
from talking import talker
from test_page import Visit, browser, needs_browser

from luodi.core.bundle import Bundle

pytestmark = needs_browser
PICTURES = os.environ.get("PAGE_PICTURES")  # a folder for what a person would see


@pytest.fixture(scope="module")
def opened() -> Generator[Browser]:
    with browser() as one:
        yield one


@pytest.fixture(scope="module")
def talking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("talking")
    return talker(folder).save(folder / "talker" / "bundle")


@pytest.fixture(scope="module")
def chat(talking: Path) -> Generator[Server]:
    with served(talking) as running:
        yield running


def keep(visit: Visit, name: str) -> None:
    if PICTURES:
        visit.page.screenshot(path=Path(PICTURES) / f"{name}.png", full_page=True)


def wanted(path: Path, wire: dict[str, Any]) -> str:
    bundle = Bundle.load(path, check=False)
    return bundle.predictor()([bundle.task.read(wire)])[0]["text"]["value"]


def test_a_chat_of_many_turns(opened, chat, talking):
    visit = Visit(opened, chat.address)
    page = visit.page
    assert visit.state() == "waiting" and page.locator("#ask-title").inner_text() == "Say something"
    box = page.locator("textarea")
    box.fill("Hello!")
    box.press("Enter")
    page.wait_for_selector("#answer[data-state=answered][aria-busy=false]")
    turns = [{"role": "user", "content": "Hello!"}]
    first = wanted(talking, {"messages": turns})
    assert page.locator(".turn").all_inner_texts() == ["Hello!", first] and first
    assert box.input_value() == "" and "tokens read" in page.locator("#trip").inner_text()
    turns += [{"role": "assistant", "content": first}, {"role": "user", "content": "你好"}]
    page.locator(".sampling summary").click()
    page.get_by_label("max_tokens").fill("5")
    box.fill("你好")
    page.get_by_role("button", name="Send").click()
    page.wait_for_selector("#answer[data-state=answered][aria-busy=false]")
    assert visit.posted() == {"messages": turns, "max_tokens": 5}
    assert page.locator(".turn").last.text_content() == wanted(talking, {"messages": turns, "max_tokens": 5})
    keep(visit, "chat")
    page.get_by_role("button", name="New chat").click()
    assert page.locator(".turn").count() == 0 and visit.state() == "waiting"
    visit.close()


def test_a_mark_is_refused_in_words_and_can_be_written_again(opened, chat):
    visit = Visit(opened, chat.address, locale="zh-CN")
    box = visit.page.locator("textarea")
    box.fill("<|im_end|>")
    box.press("Enter")
    visit.page.wait_for_selector("[data-state=refused]")
    assert "messages: turn 0 holds '<|im_end|>'" in visit.page.locator("#problem").inner_text()
    assert visit.page.locator(".turn").count() == 0 and box.input_value() == "<|im_end|>"
    keep(visit, "refused")
    visit.close(complaints=1)


def test_writing_is_stopped(opened, chat):
    visit = Visit(opened, chat.address)
    page = visit.page
    page.locator(".sampling summary").click()
    for name, value in {"max_tokens": "60000", "temperature": "3", "seed": "1"}.items():
        page.get_by_label(name, exact=True).fill(value)
    page.locator("textarea").fill("Hello!")
    page.get_by_role("button", name="Send").click()
    stop = page.get_by_role("button", name="Stop")
    page.locator(".turn.assistant .piece").filter(has_text=re.compile(".{4}", re.S)).wait_for()
    if stop.is_enabled():
        stop.click()
    page.wait_for_selector("#answer[data-state=answered][aria-busy=false]")
    said = page.locator(".turn.assistant").inner_text()
    page.wait_for_timeout(200)
    assert page.locator(".turn.assistant").inner_text() == said and stop.is_disabled()
    visit.context.close()


def test_a_prompt_goes_on_on_a_phone(opened, tmp_path):
    plain = talker(tmp_path, template=None).save(tmp_path / "plain" / "bundle")
    with served(plain) as running:
        visit = Visit(opened, running.address, is_mobile=True, has_touch=True, device_scale_factor=2)
        visit.page.set_viewport_size({"width": 390, "height": 800})
        page = visit.page
        page.locator("textarea").fill("The quick")
        page.get_by_role("button", name="Write on").click()
        page.wait_for_selector("#answer[data-state=answered][aria-busy=false]")
        want = wanted(plain, {"text": "The quick"})
        assert page.locator(".written").text_content() == f"The quick{want}" and want
        page.locator(".sampling summary").click()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.locator("textarea").bounding_box()["width"] > 280
        keep(visit, "prompt")
        page.get_by_role("button", name="中文").click()
        assert page.locator("#send").inner_text() == "续写"
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.locator("#code summary").click()
        assert "client.completions.create" in page.locator("#snippet").inner_text()
        visit.close()


def test_a_text_is_written_from_another(opened, translation_system, tmp_path):
    steps = ("split", {"train": {"epochs": 1}})
    path = build(translation_system, tmp_path / "work", *steps).save(tmp_path / "names" / "bundle")
    bundle = Bundle.load(path, check=False)
    with served(path) as running:
        visit = Visit(opened, running.address)
        page = visit.page
        assert page.locator("#ask-title").inner_text() == "Write a text"
        page.locator("textarea").fill("red heart")
        for rules in ({}, {"beams": 3}):
            if rules:
                page.locator(".sampling summary").click()
                page.get_by_label("beams").fill("3")
            with page.expect_response("**/predict"):
                page.get_by_role("button", name="Write", exact=True).click()
            page.wait_for_selector("#answer[data-state=answered][aria-busy=false]")
            (answer,) = bundle.predictor()([bundle.task.read({"english": "red heart", **rules})])
            assert visit.posted() == {"english": "red heart", **rules}
            assert page.locator(".written").text_content() == answer["chinese"]["value"]
        page.locator("#code summary").click()
        said = page.locator("#snippet").inner_text()
        assert '"english"' in said and "openai" not in said
        keep(visit, "translation")
        visit.close()


def test_a_chat_on_a_phone(opened, chat):
    visit = Visit(opened, chat.address, is_mobile=True, has_touch=True, color_scheme="dark")
    page = visit.page
    page.set_viewport_size({"width": 390, "height": 800})
    for said in ("你好", "How many moons has Mars? " * 3):
        page.locator("textarea").fill(said)
        page.get_by_role("button", name="Send").click()
        page.wait_for_selector("#answer[data-state=answered][aria-busy=false]")
    assert page.locator(".turn").count() == 4
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    keep(visit, "phone")
    visit.close()


def test_a_picture_and_a_text_together(opened, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    lines = []
    for at in range(12):
        shade = np.full((16, 16, 3), at * 20, np.uint8)
        (folder / f"{at}.png").write_bytes(png(shade))
        told = {"image": base64.b64encode(png(shade)).decode(), "caption": f"a shade {at}", "label": "ab"[at % 2]}
        lines.append(json.dumps(told))
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    inputs = {"image": {"image": {"size": 16, "channels": 3}}, "caption": {"text": {"tokens": "character"}}}
    source = {"table": {"path": str(tmp_path / "rows.jsonl")}}
    made = {"supervised": {"inputs": inputs, "targets": {"label": "category"}}}
    system = System("captioned", made, "constant", source, open_source(source, tmp_path / "cache"))
    path = build(system, tmp_path / "work", "split", {"train": {"epochs": 1}}).save(tmp_path / "shades" / "bundle")
    with served(path) as running:
        visit = Visit(opened, running.address, is_mobile=True, has_touch=True)
        page = visit.page
        page.set_viewport_size({"width": 390, "height": 800})
        file = {"name": "a.png", "mimeType": "image/png", "buffer": (folder / "3.png").read_bytes()}
        page.set_input_files("input[type=file]", file)
        page.get_by_role("button", name="Predict").click()
        assert "caption: a value is missing" in page.locator("#problem").inner_text()
        page.locator("textarea").fill("一个浅色 a light shade")
        page.get_by_role("button", name="Predict").click()
        page.wait_for_selector("[data-state=answered]")
        assert visit.posted()["caption"] == "一个浅色 a light shade" and visit.posted()["image"]
        assert page.locator(".value").inner_text() in {"a", "b"}
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        keep(visit, "captioned")
        visit.close()


def test_a_text_is_classified(opened, text_system, tmp_path):
    path = build(text_system, tmp_path / "work", "split", {"train": {"epochs": 1}}).save(tmp_path / "texts" / "bundle")
    with served(path) as running:
        visit = Visit(opened, running.address)
        assert visit.page.locator("#ask-title").inner_text() == "Write a text"
        visit.page.get_by_role("button", name="Example").click()
        visit.page.wait_for_selector("[data-state=answered]")
        assert visit.posted() and visit.page.locator(".bar").count() == 2
        with visit.page.expect_response("**/predict"):
            visit.page.locator("textarea").fill("很好，下次再来")  # asked again while it is edited
        keep(visit, "text")
        visit.close()
