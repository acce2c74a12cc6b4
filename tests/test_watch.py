"""The live page: the stream read while it is written, and the page in a real browser, from before a run's start to
after its end. `python tests/test_watch.py runs/digits [runs/...] docs/watch.png` makes the picture of the docs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page
from test_page import CHROMIUM, Visit, browser

from luodi.core.errors import LuodiError
from luodi.core.folder import RunFolder
from luodi.watch import stream
from luodi.watch.app import create
from luodi.watch.watched import Watched, watched

PICTURE = Path(__file__).parents[1] / "docs" / "watch.png"
QUIET = {**os.environ, "OMP_NUM_THREADS": "1"}
needs_browser = pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="no chromium on this machine")
RECIPE = """
name: {name}
task: {{supervised: {{inputs: {{a: number, b: number}}, targets: {{side: category}}}}}}
data: {{table: {{path: {table}}}}}
model: {{mlp: {{hidden: [{width}]}}}}
measure: {{seconds: 0.3, calls: 20, resamples: 100}}
threads: {{train: 1}}
steps:
  - split: {{validation: 0.2, test: 0.2}}
  - train: {{epochs: {epochs}, batch_size: 4, checkpoint_seconds: 0.5, listeners: [layers]}}
"""


# ---- the stream -----------------------------------------------------------------------------------------------------


def line(event: str, **facts: Any) -> bytes:
    return json.dumps({"time": 1.0, "event": event, **facts}, ensure_ascii=False).encode() + b"\n"


def test_a_stream_is_read_from_where_the_last_reading_ended(tmp_path):
    path = tmp_path / "events.jsonl"
    assert stream.read(path) == stream.Piece("", 0, 0, [], False)
    path.write_bytes(line("start")[:9])  # not even the first line is whole
    assert stream.read(path).events == [] and stream.read(path).stamp == ""
    path.write_bytes(line("start") + line("note", text="文") + line("epoch")[:-4])
    first = stream.read(path)
    assert [one["event"] for one in first.events] == ["start", "note"] and first.events[1]["text"] == "文"
    assert first.end == len(line("start") + line("note", text="文")) and first.start == 0
    assert stream.read(path, first.stamp, first.end).events == []
    with path.open("ab") as end:
        end.write(line("epoch")[-4:] + line("end"))
    second = stream.read(path, first.stamp, first.end)
    assert [one["event"] for one in second.events] == ["epoch", "end"] and second.start == first.end


def test_a_line_torn_by_a_kill_costs_itself_alone(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(line("start") + line("epoch", epoch=3)[:20] + line("start", recipe="again") + b"no event\n[1]\n")
    assert [one["event"] for one in stream.read(path).events] == ["start", "start"]


def test_another_stream_under_the_same_name_is_read_anew(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(line("start", recipe="first") + line("end"))
    old = stream.read(path)
    path.write_bytes(line("start", recipe="other") + line("note", text="x" * 99))
    again = stream.read(path, old.stamp, old.end)
    assert again.start == 0 and again.stamp != old.stamp and len(again.events) == 2
    assert stream.read(path, again.stamp, 10**9).start == 0 and stream.read(path, again.stamp, -5).start == 0


def test_a_long_stream_comes_in_pieces_and_numbers_stay_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "MOST", 300)
    path, wanted = tmp_path / "events.jsonl", []
    with path.open("wb") as file:
        for number in range(50):
            wanted.append("x" * (number * 40))  # the last ones are longer than a piece
            file.write(line("note", text=wanted[-1], loss=float("nan")))
    found, stamp, at, pieces, more = [], "", 0, 0, True
    while more:
        piece = stream.read(path, stamp, at)
        stamp, at, more, pieces = piece.stamp, piece.end, piece.more, pieces + 1
        found += piece.events
    assert [one["text"] for one in found] == wanted and pieces > 20 and at == path.stat().st_size
    assert {one["loss"] for one in found} == {None}


def test_who_is_at_work_is_seen_without_touching_the_lock(tmp_path):
    run, folder = Watched(tmp_path), RunFolder(tmp_path)
    assert not run.working()
    with folder.locked():
        assert run.working()
        with pytest.raises(LuodiError, match="another run"), RunFolder(tmp_path).locked():
            pass  # never reached: the lock holds while somebody watches
    assert not run.working() and (tmp_path / ".lock").read_text() == ""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / ".lock").write_text(str(dead.pid))
    assert not run.working()
    (tmp_path / ".lock").write_text(str(os.getpid()))
    assert run.working()
    before = psutil.Process().create_time() - 60
    os.utime(tmp_path / ".lock", (before, before))  # locked before this process began: its number was used again
    assert not run.working()


def test_a_run_that_fails_says_why_in_its_stream(tmp_path):
    folder = RunFolder(tmp_path)
    with pytest.raises(LuodiError), folder.locked():
        folder.log("start", {"steps": ["split"]})
        raise LuodiError("the loss became nan")
    last = stream.read(tmp_path / "events.jsonl").events[-1]
    assert (last["event"], last["text"], last["error"]) == ("stopped", "the loss became nan", "LuodiError")


# ---- what is refused ------------------------------------------------------------------------------------------------


def test_what_is_no_run_is_refused_with_what_to_do(tmp_path):
    runs = tmp_path / "runs"
    (runs / "digits" / "bundle").mkdir(parents=True)
    (runs / "digits" / "events.jsonl").write_bytes(line("start"))
    (runs / "digits" / "bundle" / "bundle.json").write_text("{}")
    (runs / "empty").mkdir()

    def refused(path: Path, *, wait: bool = False) -> str:
        with pytest.raises(LuodiError) as caught:
            watched([path], wait=wait)
        return str(caught.value)

    assert f"did you mean {runs / 'digits'}?" in refused(runs / "digit") and "--wait" in refused(runs / "digit")
    assert f"name those to watch: {runs / 'digits'}" in refused(runs) and refused(runs, wait=True)
    assert f"it lies in the run {runs / 'digits'}" in refused(runs / "digits" / "bundle")
    assert "is a file" in refused(runs / "digits" / "events.jsonl")
    assert "--wait" in refused(runs / "empty")
    assert [run.name for run in watched([runs / "later", runs / "digits", runs / "later"], wait=True)] == [
        "later", "digits",
    ]  # fmt: skip


def test_the_command_refuses_with_exit_code_2(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "luodi", "watch", str(tmp_path / "nothing")], capture_output=True, text=True, env=QUIET
    )
    assert done.returncode == 2 and "luodi list runs" in done.stderr and "Traceback" not in done.stderr


def test_the_server_gives_events_evidence_and_our_files_to_this_machine_alone(tmp_path):
    from starlette.testclient import TestClient

    (tmp_path / "events.jsonl").write_bytes(line("start", steps=[]))
    step = tmp_path / "steps" / "abc"
    (step / "bundle" / "evidence").mkdir(parents=True)
    (step / "step.json").write_text('{"number": 2}')
    evidence = {"name": "train", "number": 2, "form": "torch", "measures": {}, "words": [], "seconds": 1.0,
                "measuring": 2.0, "notes": {"history": [1], "looks": {}, "updates": 7}}  # fmt: skip
    (step / "bundle" / "evidence" / "evidence.json").write_text(json.dumps([evidence]))
    client = TestClient(create([Watched(tmp_path)]), base_url="http://127.0.0.1")
    assert client.get("/runs").json() == [{"number": 0, "name": tmp_path.name, "path": str(tmp_path)}]
    piece = client.get("/runs/0/events").json()
    assert piece["events"][0]["event"] == "start" and piece["working"] is False
    assert client.get(f"/runs/0/events?stamp={piece['stamp']}&at={piece['end']}").json()["events"] == []
    assert client.get("/runs/0/evidence").json()["abc"]["notes"] == {"updates": 7}
    (step / "bundle" / "evidence" / "evidence.json").write_text(json.dumps([evidence])[:40])  # half-written
    assert client.get("/runs/0/evidence").json() == {}
    assert client.get("/runs/1/events").status_code == 404 and client.get("/runs/0/events?at=x").status_code == 422
    assert "default-src 'self'" in client.get("/").headers["content-security-policy"]
    assert client.get("/page/../app.py").status_code == 404
    assert client.get("/runs", headers={"host": "evil.example"}).status_code == 400


# ---- the page -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def opened() -> Generator[Browser]:
    with browser() as one:
        yield one


@contextmanager
def watching(*paths: Path) -> Iterator[str]:
    """`luodi watch` on a free port; its address."""
    command = [sys.executable, "-m", "luodi", "watch", *map(str, paths), "--port", "0", "--wait"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=QUIET)
    assert process.stdout is not None
    first = process.stdout.readline()
    assert first.startswith("watching "), process.communicate(timeout=60)
    try:
        yield first.split(" at ")[1].strip()
    finally:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0 and not err, err


def table(folder: Path) -> Path:
    dice = np.random.default_rng(0)
    x = dice.normal(size=(400, 2))
    rows = [f"{a},{b},{'up' if a + b > 0 else 'down'}" for a, b in x]
    path = folder / "sides.csv"
    path.write_text("\n".join(["a,b,side", *rows]) + "\n")
    return path


@contextmanager
def running(folder: Path, name: str, epochs: int, width: int = 8) -> Iterator[subprocess.Popen[bytes]]:
    """`luodi run` in a process of its own."""
    recipe = folder / f"{name}.yaml"
    recipe.write_text(RECIPE.format(name=name, table=folder / "sides.csv", epochs=epochs, width=width))
    log = (folder / f"{name}.log").open("ab")
    command = [sys.executable, "-m", "luodi", "run", str(recipe), "--out", str(folder / "runs")]
    process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=QUIET)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        log.close()


def until(page: Page, told: Callable[[], Any], seconds: float = 90) -> Any:
    """What `told` gives once it is true."""
    end = time.monotonic() + seconds
    while not (found := told()):
        assert time.monotonic() < end, f"not within {seconds} s: {page.locator('body').inner_text()[:2000]}"
        page.wait_for_timeout(200)
    return found


def points(page: Page) -> int:
    """How many points the first line of the first chart has."""
    line = page.locator(".chart").first.locator("path.line").first
    return (line.get_attribute("d") or "").count("L") + 1 if line.count() else 0


def state(page: Page, run: int = 0) -> str:
    return page.locator(".run").nth(run).locator(".state").inner_text()


def overflowing(page: Page) -> list[str]:
    """Elements whose own text reaches beyond the page or out of their box; what scrolls by itself may."""
    return page.evaluate(
        """() => [...document.querySelectorAll('body *')].filter((one) => {
            if (one.closest('svg, .scroll, .log, select, noscript') || !one.getClientRects().length) return false;
            if (![...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim())) return false;
            const box = one.getBoundingClientRect();
            const inline = getComputedStyle(one).display === 'inline';
            return box.right > innerWidth + 0.5 || (!inline && one.scrollWidth > one.clientWidth + 1);
        }).map((one) => `${one.tagName}.${one.className} ${one.textContent.slice(0, 60)}`)"""
    )


@needs_browser
def test_runs_are_watched_from_before_their_start_to_their_end(opened, tmp_path):
    """Two runs: one killed and started again, one later; no reload, no complaint."""
    table(tmp_path)
    runs = [tmp_path / "runs" / name for name in ("first", "second")]
    with watching(*runs) as address:
        visit = Visit(opened, address)
        page = visit.page
        assert [state(page, place) for place in (0, 1)] == ["waiting for its start"] * 2
        with running(tmp_path, "first", 120) as process:
            until(page, lambda: state(page) == "running")
            few = until(page, lambda: points(page) >= 3 and points(page))
            until(page, lambda: points(page) > few)  # it grows by itself
            assert "step 2 of 2 · train" in page.locator(".run").first.inner_text()
            assert (
                "of 120" in page.locator(".run").first.inner_text()
                and "left" in page.locator(".run").first.inner_text()
            )
            until(page, lambda: page.locator("#layers tbody tr").count() >= 3)
            process.kill()
        until(page, lambda: state(page) == "stopped")
        killed = points(page)
        page.locator(".run").first.click()
        assert page.locator("#steps .step.stopped").count() == 1
        with running(tmp_path, "first", 120) as process:
            until(page, lambda: state(page) == "running")
            until(page, lambda: points(page) > killed + 1)
            assert "going on from the checkpoint" in page.locator("#log").inner_text()
            with running(tmp_path, "second", 30, 16) as other:
                until(page, lambda: state(page, 1) == "running")
                until(page, lambda: page.locator(".chart").first.locator("path.line").count() >= 3)
                assert {process.wait(240), other.wait(240)} == {0}
        until(page, lambda: [state(page, 0), state(page, 1)] == ["finished", "finished"])
        until(page, lambda: page.locator("#steps .measure").count() >= 4)
        assert page.locator("#steps .step.done").count() == 1  # train; split was kept
        assert page.locator("#steps .step.kept").count() == 1
        assert "side" not in page.title() and page.title().startswith("finished · first, second")
        page.locator(".run").nth(1).click()
        assert "second" in page.locator("#steps-card h2").inner_text()
        page.get_by_role("button", name="minutes").click()
        page.locator("#log-scale").check()
        page.locator(".plot").first.hover()
        assert page.locator(".tip").first.inner_text().startswith("minutes ")
        page.wait_for_timeout(1500)
        visit.close()
    done = stream.read(runs[0] / "events.jsonl").events
    assert [one["event"] for one in done if one["event"] in ("start", "end")] == ["start", "start", "end"]


HOSTILE = "<img src=x onerror=document.title='owned'>"


def written(folder: Path, name: str = "written") -> Path:
    """A run's folder as a run leaves it in the middle of its training, with names that are markup."""
    path = folder / name
    path.mkdir()
    lie = {"mean": 0.0, "deviation": 1.0, "norm": 3.0, "zeros": 0.0}
    odd = f"layer.{HOSTILE}"
    looks = [
        {
            "name": odd,
            "kind": "Linear",
            "weights": lie,
            "gradients": {**lie, "norm": 1e-9},
            "slope": 1e-9,
            "update": 0.01,
        },
        {"name": "rectifier", "kind": "ReLU", "activations": {**lie, "zeros": 0.7, "dead": 0.6}},
    ]
    flags = [
        {"layer": odd, "what": "vanish", "value": 1e-9, "threshold": 1e-4, "text": "gradients vanish"},
        {"layer": "rectifier", "what": "dead", "value": 0.6, "threshold": 0.5, "text": "dead"},
        {"layer": "rectifier", "what": "odd", "value": 0.6, "threshold": 0.5, "text": HOSTILE},
    ]
    events = [line("start", recipe=HOSTILE, device="cpu", threads=1, steps=["split", HOSTILE], rehearsal=False),
              line("step", step=2, name=HOSTILE, state="run", key="k")]  # fmt: skip
    about = {"step": 2, "name": HOSTILE}
    for epoch in range(1, 4):
        done = {"done": 10 * epoch, "total": 100, "epoch": epoch, "epochs": 10, "what": "train", "loss": 1.0 / epoch}
        more = {"learning_rate": 1e-3, "examples_a_second": 12.5, "memory_mb": 1234.5, "remaining_seconds": 3700}
        events.append(line("progress", **about, **done, **more))
        checked = {"validation_loss": 1.1 / epoch, "validation": {HOSTILE: 0.3 * epoch, "label.f1": 0.1}}
        events.append(line("epoch", **about, epoch=epoch, train_loss=1.0 / epoch, **checked))
        events.append(line("layers", **about, update=10 * epoch - 1, epoch=epoch, total=100, layers=looks, flags=flags))
    events.append(line("note", **about, text=HOSTILE * 5))
    events.append(line("stopped", **about, text=HOSTILE, error="LuodiError") + b'{"time": 2, "torn')
    (path / "events.jsonl").write_bytes(b"".join(events))
    return path


@needs_browser
def test_what_comes_from_data_stays_text_and_fits_a_phone(opened, tmp_path):
    with watching(written(tmp_path), written(tmp_path, "another-run-with-a-rather-long-name-2026-11-22")) as address:
        for locale, scheme in (("en-US", "light"), ("zh-CN", "dark")):
            visit = Visit(opened, address, locale=locale, color_scheme=scheme)
            page = visit.page
            page.set_viewport_size({"width": 390, "height": 844})
            page.wait_for_timeout(300)
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
            assert overflowing(page) == []
            assert page.locator("img:not(.seal)").count() == 0 and "owned" not in page.title()
            assert HOSTILE in page.locator("#steps").inner_text() and HOSTILE in page.locator("#log").inner_text()
            assert page.locator("select.metrics option").all_inner_texts() == [HOSTILE, "label.f1"]
            shown = page.evaluate("getComputedStyle(document.body).backgroundColor")
            dark = max(map(int, shown.removeprefix("rgb(").removesuffix(")").split(","))) < 60
            assert dark == (scheme == "dark")
            visit.close()


@needs_browser
def test_it_speaks_the_browsers_language_and_findings_are_in_words(opened, tmp_path):
    with watching(written(tmp_path)) as address:
        visit = Visit(opened, address, locale="zh-CN")
        page = visit.page
        assert state(page) == "已停止" and page.locator("html").get_attribute("lang") == "zh-CN"
        assert "梯度消失：是输出层的 1e-9 倍（低于 1e-4）" in page.locator(".flags").inner_text()
        assert page.locator("#charts h2").first.inner_text() == "损失"
        page.get_by_role("button", name="EN", exact=True).click()
        assert "its gradients vanish: 1e-9 times those of the head (under 1e-4)" in page.locator(".flags").inner_text()
        assert "60% of its units are dead" in page.locator(".flags").inner_text()
        page.locator("select.metrics").select_option("label.f1")
        page.reload()
        page.wait_for_selector("html[data-ready]")
        assert state(page) == "stopped"  # remembered
        visit.close()


@needs_browser
def test_words_are_there_in_both_languages_and_a_lost_watcher_is_told(opened, tmp_path):
    with watching(written(tmp_path)) as address:
        visit = Visit(opened, address)
        page = visit.page
        keys = page.evaluate(
            """async () => {
                const text = await (await fetch("/page/words.js")).text();
                const block = (name) => text.split(`  ${name}: {`)[1].split("\\n  },")[0];
                const keys = (name) => [...block(name).matchAll(/^    (\\w+): /gm)].map((found) => found[1]);
                return [keys("en"), keys("zh")];
            }"""
        )
        assert keys[0] == keys[1] and len(keys[0]) > 50
        used = "".join(path.read_text() for path in (PICTURE.parents[1] / "src/luodi/watch/page").glob("*.[jh]*"))
        assert [key for key in keys[0] if key.count("_") < 1 and used.count(f'"{key}"') < 1] == []
        assert not page.locator("#offline").is_visible()
    until(page, lambda: page.locator("#offline").is_visible())
    assert all("ERR_CONNECTION_REFUSED" in one for one in visit.complaints)
    visit.context.close()


def test_the_picture_of_the_docs_is_there_and_small():
    with Image.open(PICTURE) as picture:
        assert picture.format == "PNG" and picture.size[0] == 1280
    assert PICTURE.stat().st_size < 300_000


def make_picture(paths: list[Path], out: Path) -> None:
    """What a person sees of these runs."""
    with watching(*paths) as address, browser() as chromium:
        visit = Visit(chromium, address)
        visit.page.set_viewport_size({"width": 1280, "height": 1000})
        visit.page.wait_for_timeout(1500)
        visit.page.screenshot(path=out)
        visit.close()


if __name__ == "__main__":
    make_picture([Path(one) for one in sys.argv[1:-1]], Path(sys.argv[-1]))
