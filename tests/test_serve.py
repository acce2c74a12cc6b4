from __future__ import annotations

import asyncio
import base64
import io
import json
import math
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
import schemathesis
from conftest import luodi, reseal
from hypothesis import HealthCheck, given, settings
from PIL import Image
from schemathesis import GenerationMode
from schemathesis import checks as oa
from serving import QUIET, Server, png, served, with_onnx

from luodi.core import store
from luodi.core.bundle import Bundle
from luodi.core.errors import BadRequest
from luodi.core.flow import OneShot, Piece
from luodi.core.predictor import Predictor
from luodi.serve.app import PAGE, create, named
from luodi.serve.batching import Batcher, Full
from luodi.serve.intake import MOST_REQUESTS
from luodi.serve.predict import MOST_BYTES
from luodi.serve.refusal import text

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def onnx_digits(digits_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_onnx(digits_bundle, tmp_path_factory.mktemp("served") / "digits" / "bundle")


@pytest.fixture(scope="module")
def server(onnx_digits: Path):
    with served(onnx_digits) as running:
        yield running


@pytest.fixture(scope="module")
def pictures(small_digits) -> list[bytes]:
    return small_digits.column("image")[:64]


def wire(picture: bytes) -> dict[str, str]:
    return {"image": base64.b64encode(picture).decode()}


def ask(server: Server, **more) -> httpx.Response:
    return httpx.post(f"{server.address}/predict", timeout=60, **more)


def counted(server: Server, name: str) -> float:
    lines = httpx.get(f"{server.address}/metrics").text.splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} "))


# ---- a real server: what it answers ---------------------------------------------------------------


def test_every_way_of_asking_gives_the_predictors_answer(server, onnx_digits, pictures):
    bundle = Bundle.load(onnx_digits, form="onnx")
    wanted = bundle.predictor("onnx")([bundle.task.read(wire(picture)) for picture in pictures[:3]])
    shown = pictures[0]
    one = ask(server, json=wire(shown))
    many = ask(server, json={"requests": [wire(picture) for picture in pictures[:3]]})
    assert one.status_code == many.status_code == 200
    assert set(one.json()) == {"answer", "bundle", "form"} and set(many.json()) == {"answers", "bundle", "form"}
    assert one.json()["bundle"] == store.peek(onnx_digits)["digest"] and one.json()["form"] == "onnx"
    pixels = np.asarray(Image.open(io.BytesIO(shown))).tolist()
    others = [
        ask(server, content=shown, headers={"Content-Type": "image/png"}),
        ask(server, files={"image": ("seven.png", shown, "image/png")}),
        ask(server, files={"any name": ("seven.png", shown)}),
        ask(server, json={"image": "data:image/png;base64," + wire(shown)["image"]}),
        ask(server, json={"image": pixels}),
        ask(server, json=wire(shown), headers={"Content-Type": "application/json; charset=utf-8"}),
    ]
    answers = [one.json()["answer"], *(other.json()["answer"] for other in others)]
    for answer, want in [
        *((answer, wanted[0]) for answer in answers),
        *zip(many.json()["answers"], wanted, strict=True),
    ]:
        assert answer["label"]["value"] == want["label"]["value"]
        assert answer["label"]["probabilities"] == pytest.approx(want["label"]["probabilities"], rel=1e-4, abs=1e-7)


def test_calls_at_once_share_steps_and_each_gets_its_own_answer(server, pictures):
    alone = [ask(server, json=wire(picture)).json()["answer"]["label"] for picture in pictures]
    sizes, steps = counted(server, "luodi_batch_size_sum"), counted(server, "luodi_batch_size_count")
    spoiled = [*pictures, *[b"no image"] * 16]
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda picture: ask(server, json=wire(picture)), spoiled))
    assert [answer.status_code for answer in found] == [200] * len(pictures) + [422] * 16
    for answer, want in zip(found[: len(pictures)], alone, strict=True):
        assert answer.json()["answer"]["label"]["value"] == want["value"]
        assert answer.json()["answer"]["label"]["probabilities"] == pytest.approx(want["probabilities"], abs=1e-5)
    assert counted(server, "luodi_batch_size_sum") - sizes == len(pictures)
    assert counted(server, "luodi_batch_size_count") - steps <= len(pictures)


def refused(server: Server, status: int, **more) -> dict:
    answer = ask(server, **more)
    error = answer.json()["error"]
    assert answer.status_code == status, answer.text
    assert {"column", "message", "expected"} <= error.keys() and error["message"]
    assert "Traceback" not in answer.text
    return error


def test_bad_requests_are_told_what_is_expected(server, pictures):
    good = wire(pictures[0])
    whole = '{"image": ...} or {"requests": [...]}'
    table = [
        (400, {"content": b'{"image": ', "headers": JSON}, None, "not JSON", whole),
        (400, {"content": b"\xff\xfe\x00", "headers": JSON}, None, "not JSON", whole),
        (400, {"content": b"", "headers": JSON}, None, "not JSON", whole),
        (400, {"content": b"[" * 200_000, "headers": JSON}, None, "not JSON", whole),
        (400, {"content": b'{"image": NaN}', "headers": JSON}, None, "NaN", whole),
        (400, {"content": b'{"image": 1' + b"0" * 5000 + b"}", "headers": JSON}, None, "not JSON", whole),
        (422, {"json": [good]}, None, "a list", whole),
        (422, {"content": b"null", "headers": JSON}, None, "null", whole),
        (422, {"json": {}}, "image", "missing", "base64"),
        (422, {"json": {"image": None}}, "image", "nothing", "28 x 28"),
        (422, {"json": {"image": 7}}, "image", "int", "28 x 28"),
        (422, {"json": {"image": "AAAA"}}, "image", "no image", "28 x 28"),
        (422, {"json": {"image": "not base64!"}}, "image", "base64", "28 x 28"),
        (422, {"json": {"image": wire(pictures[0][:80])["image"]}}, "image", "damaged", "28 x 28"),
        (422, {"json": {"image": [[0, 1], [2]]}}, "image", "rectangle", "28 x 28"),
        (422, {"json": {"image": [[[[0]]]]}}, "image", "shape", "28 x 28"),
        (422, {"json": {"image": [[300]]}}, "image", "300", "28 x 28"),
        (422, {"json": {"imag": good["image"]}}, "imag", "unknown", whole),
        (422, {"json": {"requests": []}}, "requests", "empty", "1 to"),
        (422, {"json": {"requests": "x"}}, "requests", "a string", "1 to"),
        (422, {"json": {"requests": [good] * (MOST_REQUESTS + 1)}}, "requests", "257", "at most 256"),
        (422, {"json": {"requests": [good], "image": 1}}, "image", "unknown key", whole),
        (422, {"json": {"requests": [good, 3]}}, None, "a number", whole),
        (415, {"content": b"x", "headers": {"Content-Type": "text/plain"}}, None, "text/plain", "image/*"),
        (415, {"content": b"x"}, None, "no Content-Type", "application/json"),
        (400, {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, None, "boundary", "multipart"),
        (422, {"files": [("image", pictures[0]), ("image", pictures[1])]}, "image", "twice", "28 x 28"),
        (422, {"files": {"image": pictures[0]}, "data": {"colour": "red"}}, "colour", "unknown", whole),
        (422, {"content": b"GIF89a", "headers": {"Content-Type": "image/gif"}}, "image", "", "28 x 28"),
    ]
    for status, more, column, said, expected in table:
        error = refused(server, status, **more)
        assert error["column"] == column, (more, error)
        assert said.lower() in error["message"].lower() and expected in error["expected"], (more, error)
    assert refused(server, 422, json={"requests": [good, {"image": "AAAA"}]})["index"] == 1
    assert ask(server, json=good).status_code == 200


def test_too_large_a_body_is_refused_before_it_is_read(server):
    host, port = server.address.removeprefix("http://").split(":")
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {50_000_000}\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=20) as raw:
        raw.sendall(head.encode())  # not one byte of the body
        assert raw.recv(100).startswith(b"HTTP/1.1 413")
    assert "20 MB" in refused(server, 413, content=b"x" * 50_000_000, headers={"Content-Type": "image/png"})["expected"]
    pieces = (b"x" * 1_000_000 for _ in range(50))
    assert refused(server, 413, content=pieces, headers={"Content-Type": "image/png"})
    assert MOST_BYTES == 20_000_000
    assert refused(server, 422, content=b"x" * MOST_BYTES, headers={"Content-Type": "image/png"})["column"] == "image"


def test_the_other_paths(server, onnx_digits):
    get = lambda path: httpx.get(server.address + path)  # noqa: E731
    assert get("/health/live").json() == {"status": "live"} and get("/health/ready").json() == {"status": "ready"}
    about = get("/about").json()
    assert about["name"] == "digits" and about["digest"] == store.peek(onnx_digits)["digest"]
    assert about["inputs"][0]["name"] == "image" and about["inputs"][0]["shape"] == [1, 28, 28]
    assert (
        about["inputs"][0]["schema"]
        == Bundle.load(onnx_digits, form="onnx").task.wire_schema()["request"]["properties"]["image"]
    )
    assert get("/nothing").status_code == 404 and get("/nothing").json()["error"]["message"] == "Not Found"
    wrong = get("/predict")
    assert wrong.status_code == 405 and wrong.headers["allow"] == "POST"
    assert wrong.json()["error"]["expected"] == "POST /predict"
    assert get("/docs").status_code == get("/redoc").status_code == 404  # they would load scripts from elsewhere
    before = counted(server, 'luodi_requests_total{status="422"}')
    refused(server, 422, json={})
    assert counted(server, 'luodi_requests_total{status="422"}') == before + 1
    assert f'digest="{about["digest"]}",form="onnx",name="digits"' in get("/metrics").text


def test_the_page_loads_nothing_from_elsewhere(server):
    for file in PAGE.iterdir():
        inside = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "://" not in inside.replace("${location.origin}", ""), file
        answer = httpx.get(f"{server.address}/page/{file.name}")
        assert answer.status_code == 200 and answer.content == file.read_bytes()
    page = httpx.get(server.address)
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["content-security-policy"].startswith("default-src 'self';")


# ---- OpenAPI --------------------------------------------------------------------------------------


def test_the_documented_examples_are_answered(server, onnx_digits):
    document = httpx.get(f"{server.address}/openapi.json").json()
    task = Bundle.load(onnx_digits, form="onnx").task
    assert document["components"]["schemas"]["Request"] == task.wire_schema()["request"]
    assert document["components"]["schemas"]["Answer"] == task.wire_schema()["answer"]
    examples = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["examples"]
    assert set(examples) == {"one", "many"}
    for example in examples.values():
        assert ask(server, json=example["value"]).status_code == 200


CHECKS = [
    oa.not_a_server_error, oa.status_code_conformance, oa.content_type_conformance, oa.response_schema_conformance,
    oa.response_headers_conformance, oa.unsupported_method,
]  # fmt: skip


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_answers_keep_to_the_schema(server, mode):
    api = schemathesis.openapi.from_url(f"{server.address}/openapi.json")
    asked = Counter()
    for found in api.get_all_operations():
        operation = found.ok()
        if mode is GenerationMode.NEGATIVE and operation.path != "/predict":
            continue  # a path that takes nothing cannot be asked wrongly

        @settings(
            max_examples=40, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def holds(case):
            answer = case.call()
            asked[case.operation.path, answer.status_code] += 1
            case.validate_response(answer, checks=CHECKS)

        holds()
    wanted = {"/predict", "/about", "/metrics", "/health/live", "/health/ready"}
    assert {path for path, _ in asked} == (wanted if mode is GenerationMode.POSITIVE else {"/predict"})
    assert all(status < 500 for _, status in asked)


# ---- starting and ending --------------------------------------------------------------------------


def test_an_onnx_server_imports_no_torch(onnx_digits):
    script = (
        "import sys; from pathlib import Path; from luodi.core.bundle import Bundle\n"
        "from luodi.serve.app import create\n"
        "path = Path(sys.argv[1]); bundle = Bundle.load(path, form='onnx'); create(bundle, name='x')\n"
        "print(sorted({'torch', 'pyarrow', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script, str(onnx_digits)], capture_output=True, text=True, env=QUIET)
    assert done.stdout.strip() == "['onnxruntime']", done.stderr


def test_the_image_installs_all_that_serving_needs(onnx_digits):
    """The Dockerfile leaves out torch and everything else that serving does not import."""
    root = Path(__file__).parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = lambda lines: {re.split(r"[<>=\[ ]", line)[0] for line in lines}  # noqa: E731
    extras = project["optional-dependencies"]
    installed = re.search(
        r"pip install [^\n]*\\\n(.*?)\n(?=[A-Z])", (root / "Dockerfile").read_text(encoding="utf-8"), re.S
    )
    assert installed is not None
    given = set(installed[1].replace("\\", " ").split()) - {'"$RUNTIME"'} | {"onnxruntime"}
    wanted = names(project["dependencies"]) | names(extras["serve"]) | names(extras["export"])
    assert given <= wanted | {"uvloop", "httptools"}  # those two come with uvicorn[standard]
    assert names(extras["serve"]) <= given
    constrained = names((root / "constraints.txt").read_text(encoding="utf-8").splitlines())
    assert given <= constrained
    absent = [name.replace("-", "_") for name in wanted - given]
    assert {"torch", "pyarrow"} <= set(absent)
    script = (
        f"import sys\nfor name in {absent!r}: sys.modules[name] = None\nfrom luodi.cli import main\nmain(sys.argv[1:])"
    )
    command = [sys.executable, "-c", script, "serve", str(onnx_digits), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=QUIET)
    assert process.stdout is not None
    line = process.stdout.readline()
    process.terminate()
    assert line.startswith("serving digits (onnx)"), process.communicate(timeout=60)
    assert process.wait(60) == 0


def test_one_line_on_stdout_and_calls_in_flight_are_answered_before_it_ends(onnx_digits):
    noise = np.random.default_rng(0).integers(0, 256, (500, 500), np.uint8)  # slow to read, so the call is long
    with served(onnx_digits) as server, ThreadPoolExecutor(1) as pool:
        call = pool.submit(ask, server, json={"requests": [wire(png(noise))] * 40})
        until = time.monotonic() + 30
        while not counted(server, "luodi_waiting") and not call.done() and time.monotonic() < until:
            time.sleep(0.002)
        assert not call.done(), "the call was answered before the server could be stopped"
        server.process.send_signal(signal.SIGTERM)
        assert call.result().status_code == 200 and len(call.result().json()["answers"]) == 40
        assert server.wait() == 0
        assert "".join(server.printed[:-1]) == f"serving digits (onnx) at {server.address}\n"
        assert server.printed[-1] == ""


def test_torch_form_ctrl_c_and_a_warning_when_others_can_reach_it(onnx_digits, pictures):
    with served(onnx_digits, "--form", "torch", "--host", "0.0.0.0") as server:
        server.address = server.address.replace("0.0.0.0", "127.0.0.1")
        assert ask(server, json=wire(pictures[0])).json()["form"] == "torch"
        assert server.stop(signal.SIGINT) == 0
        assert server.printed[-1].startswith("warning: 0.0.0.0 can be reached")


def test_a_bundle_that_answers_differently_is_not_served(onnx_digits, tmp_path):
    import shutil

    damaged = tmp_path / "digits"
    shutil.copytree(onnx_digits, damaged)

    def darker(head):
        head["task"]["supervised"]["inputs"]["image"]["image"]["mean"] = [0.2]

    reseal(damaged, darker)
    done = luodi("serve", str(damaged), "--port", "0")
    assert done.returncode == 2 and "serving" not in done.stdout
    assert "preprocessing gives other arrays" in done.stderr and "Traceback" not in done.stderr


def test_a_port_in_use_and_an_unknown_form_are_told(onnx_digits):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = luodi("serve", str(onnx_digits), "--port", str(port))
    assert done.returncode == 2 and f"cannot listen on 127.0.0.1:{port}" in done.stderr and "--port" in done.stderr
    done = luodi("serve", str(onnx_digits), "--port", "0", "--form", "onx")
    assert done.returncode == 2 and "did you mean 'onnx'" in done.stderr


def test_names_of_served_bundles():
    assert named(Path("/runs/digits/bundle")) == named(Path("/runs/digits")) == "digits"


# ---- the loop over a flow, with a model made for the test -----------------------------------------


class Echo:
    """A task whose requests are numbers, answered with themselves."""

    def __init__(self, forward=None) -> None:
        self.forward, self.steps = forward or (lambda arrays: arrays), []

    def encode(self, requests):
        self.steps.append(list(requests))
        if "unfit" in requests:
            raise BadRequest("number", "unfit when encoded")
        return {"number": np.asarray(requests)}

    def decode(self, outputs):
        return [{"value": value} for value in outputs["number"].tolist()]

    def flow(self, forward):
        return OneShot(self, forward)


class Numbers:
    """A call of some numbers."""

    def __init__(self, *numbers) -> None:
        self.numbers = numbers

    def read(self):
        if "bad" in self.numbers:
            raise BadRequest("number", "bad")
        return self.numbers

    def write(self, answers):
        return text([answer["value"] for answer in answers])


def run_batcher(scenario, task, most=512):
    """Runs `scenario(batcher)` in an event loop, then stops the batcher."""

    async def whole():
        batcher = Batcher(Predictor(task, task.forward), lambda answers: None, most)
        batcher.start()
        try:
            return await scenario(batcher)
        finally:
            await batcher.stop()
            assert batcher.calls == 0 and not batcher.alive

    return asyncio.run(asyncio.wait_for(whole(), 30))


async def outcomes(calls):
    return await asyncio.gather(*(call.future for call in calls), return_exceptions=True)


def gate():
    """A forward that waits at its first call until it is let go."""
    reached, opened = threading.Event(), threading.Event()

    def forward(arrays):
        reached.set()
        assert opened.wait(20)
        return arrays

    return forward, reached, opened


def test_what_waits_shares_a_step_and_only_the_bad_call_fails():
    forward, reached, opened = gate()
    task = Echo(forward)

    async def scenario(batcher):
        first = batcher.submit(Numbers(0))
        await asyncio.to_thread(reached.wait, 20)
        calls = [batcher.submit(Numbers(*numbers)) for numbers in ((1,), ("bad",), (2, 3), (4,))]
        opened.set()
        return await outcomes([first, *calls])

    found = run_batcher(scenario, task)
    assert found[:2] == [b"[0]", b"[1]"] and found[3:] == [b"[2,3]", b"[4]"] and isinstance(found[2], BadRequest)
    assert task.steps == [[0], [1, 2, 3, 4]]


def test_a_step_that_fails_is_repeated_call_by_call():
    forward, reached, opened = gate()
    task = Echo(forward)

    async def scenario(batcher):
        first = batcher.submit(Numbers(0))
        await asyncio.to_thread(reached.wait, 20)
        calls = [batcher.submit(Numbers(*numbers)) for numbers in (("a",), ("unfit",), ("b", "c"))]
        opened.set()
        return await outcomes([first, *calls, batcher.submit(Numbers("later"))])

    found = run_batcher(scenario, task)
    assert found[1] == b'["a"]' and found[3:] == [b'["b","c"]', b'["later"]'] and isinstance(found[2], BadRequest)


def test_more_calls_than_allowed_are_refused_and_gone_ones_make_room():
    forward, reached, opened = gate()
    task = Echo(forward)

    async def scenario(batcher):
        calls = [batcher.submit(Numbers(0))]
        await asyncio.to_thread(reached.wait, 20)
        calls += [batcher.submit(Numbers(1)), batcher.submit(Numbers(2))]
        with pytest.raises(Full):
            batcher.submit(Numbers(3))
        batcher.drop(calls[1])
        opened.set()
        found = await outcomes(calls)
        return found, await outcomes([batcher.submit(Numbers(4))])

    found, later = run_batcher(scenario, task, most=3)
    assert found[0] == b"[0]" and isinstance(found[1], asyncio.CancelledError) and found[2] == b"[2]"
    assert later == [b"[4]"] and task.steps == [[0], [2], [4]]  # 1 never reached the model


class Counting:
    """A flow whose answers take as many steps as the request says: calls join midway and leave one by one."""

    def __init__(self) -> None:
        self.left, self.next, self.dropped = {}, 0, []

    def add(self, requests):
        tickets = list(range(self.next, self.next + len(requests)))
        self.next += len(requests)
        self.left.update(zip(tickets, requests, strict=True))
        return tickets

    def step(self):
        time.sleep(0.002)
        self.left = {ticket: left - 1 for ticket, left in self.left.items()}
        pieces = [Piece(ticket, {"value": left}, left == 0) for ticket, left in self.left.items()]
        self.left = {ticket: left for ticket, left in self.left.items() if left}
        return pieces

    def drop(self, ticket):
        self.dropped.append(ticket)
        self.left.pop(ticket, None)

    def join(self, sofar, piece):
        return {"value": [*(sofar["value"] if sofar else []), piece["value"]]}


def test_a_flow_of_many_steps_takes_calls_midway_and_forgets_those_that_left():
    flow = Counting()

    async def scenario(batcher):
        calls = [batcher.submit(Numbers(40)), batcher.submit(Numbers(500_000))]
        await asyncio.sleep(0.02)
        calls.append(batcher.submit(Numbers(3)))
        short = await calls[2].future
        assert not calls[0].future.done()
        batcher.drop(calls[1])
        return short, await calls[0].future

    task = SimpleNamespace(forward=None, flow=lambda forward: flow)
    short, long = run_batcher(scenario, task)
    assert json.loads(short) == [[2, 1, 0]] and json.loads(long) == [list(range(39, -1, -1))]
    assert flow.dropped == [1] and not flow.left


# ---- the application over a bundle made for the test ----------------------------------------------


class Table(Echo):
    """A task of one number over the wire."""

    def wire_schema(self):
        return {
            "request": {"type": "object", "properties": {"number": {"type": "number"}}, "required": ["number"]},
            "answer": {"type": "object", "properties": {"twice": {"type": "object"}}},
        }

    def inputs_specs(self):
        return {}

    outputs_specs = metrics = inputs_specs

    def read(self, wire):
        return float(wire["number"])

    def examples(self, count, seed):
        return [0.5] * count


def call_app(monkeypatch, forward, scenario):
    """Runs `scenario(client)` against an application over that forward."""
    task = Table(forward)
    monkeypatch.setattr("luodi.serve.card.dump", lambda thing: {"table": {}})
    bundle = SimpleNamespace(
        task=task, serving="made", evidence=(), predictor=lambda form, threads: Predictor(task, forward)
    )

    async def whole():
        app = create(bundle, name="made")  # ty: ignore[invalid-argument-type]
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://made") as client:
                return await scenario(client, app)

    return asyncio.run(asyncio.wait_for(whole(), 30))


def test_not_a_number_becomes_null(monkeypatch):
    async def scenario(client, app):
        return await client.post("/predict", json={"requests": [{"number": 1}, {"number": 2}, {"number": 3}]})

    def forward(arrays):
        return {"number": np.asarray([math.nan, math.inf, 6.0])[: len(arrays["number"])]}

    found = call_app(monkeypatch, forward, scenario)
    assert found.status_code == 200 and '"answers":[{"value":null},{"value":null},{"value":6.0}]' in found.text


def test_a_failure_of_ours_has_an_id_and_its_story_in_the_log(monkeypatch, caplog):
    def forward(arrays):
        if arrays["number"][0] == 13.0:
            raise RuntimeError("secret detail")
        return arrays

    async def scenario(client, app):
        return await client.post("/predict", json={"number": 13}), await client.post("/predict", json={"number": 1})

    failed, fine = call_app(monkeypatch, forward, scenario)
    error = failed.json()["error"]
    assert failed.status_code == 500 and "secret" not in failed.text and fine.status_code == 200
    record = next(record for record in caplog.records if error["id"] in record.getMessage())
    assert record.exc_info and "secret detail" in str(record.exc_info[1])


def test_a_full_server_says_when_to_come_back(monkeypatch):
    hold, reached, opened = gate()
    warm = iter([True])

    def forward(arrays):
        return arrays if next(warm, False) else hold(arrays)

    async def scenario(client, app):
        monkeypatch.setattr("luodi.serve.predict.MOST_BYTES_HELD", 40)
        first = asyncio.create_task(client.post("/predict", json={"number": 1}))
        await asyncio.to_thread(reached.wait, 20)
        second = await client.post("/predict", json={"number": 1, "more": "x" * 30})
        opened.set()
        return await first, second

    first, second = call_app(monkeypatch, forward, scenario)
    assert first.status_code == 200
    assert second.status_code == 503 and second.headers["retry-after"] == "1"
    assert "busy" in second.json()["error"]["message"]


def test_a_client_that_left_is_dropped_and_counted(monkeypatch):
    hold, reached, opened = gate()
    warm = iter([True])

    def forward(arrays):
        return arrays if next(warm, False) else hold(arrays)

    async def scenario(client, app):
        first = asyncio.create_task(client.post("/predict", json={"number": 1}))
        await asyncio.to_thread(reached.wait, 20)
        body, sent = json.dumps({"number": 2}).encode(), []
        messages = iter([{"type": "http.request", "body": body}, {"type": "http.disconnect"}])

        async def receive():
            return next(messages)

        async def send(message):
            sent.append(message)

        scope = {
            "type": "http", "method": "POST", "path": "/predict", "headers": [(b"content-type", b"application/json")],
            "query_string": b"", "root_path": "", "http_version": "1.1",
        }  # fmt: skip
        await app(scope, receive, send)  # returns while the model is still held: nobody waits any more
        opened.set()
        status, figures = (await first).status_code, ""
        while "luodi_waiting 0.0" not in figures:  # the whole scenario has its time limit
            figures = (await client.get("/metrics")).text
        return sent, status, figures

    sent, status, figures = call_app(monkeypatch, forward, scenario)
    assert sent == [] and status == 200
    assert 'luodi_requests_total{status="499"} 1.0' in figures


def test_strict_json():
    assert text({"a": [1.5, math.nan, (-math.inf, "é")]}) == '{"a":[1.5,null,[null,"é"]]}'.encode()
    assert json.loads(text("half \ud800")) == "half \ud800"
