from __future__ import annotations

import base64
import io
import re
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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
from luodi.serve.app import PAGE, named
from luodi.serve.body import MOST_BYTES
from luodi.serve.intake import MOST_REQUESTS

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


CLIENT = httpx.Client(timeout=60)


def ask(server: Server, **more) -> httpx.Response:
    return CLIENT.post(f"{server.address}/predict", **more)


def counted(server: Server, name: str) -> float:
    lines = CLIENT.get(f"{server.address}/metrics").text.splitlines()
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
