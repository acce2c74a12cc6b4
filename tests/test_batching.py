from __future__ import annotations

import asyncio
import json
import math
import threading
import time
from types import SimpleNamespace

import httpx
import numpy as np
import pytest

from luodi.core.errors import BadRequest
from luodi.core.flow import OneShot, Piece
from luodi.core.predictor import Predictor
from luodi.serve.app import create
from luodi.serve.batching import Batcher, Full
from luodi.serve.refusal import text

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

    def flow(self, forward, signature=None):
        return OneShot(self, forward)


class Numbers:
    """A call of some numbers."""

    streamed = False

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

    task = SimpleNamespace(forward=None, flow=lambda forward, signature: flow)
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
        monkeypatch.setattr("luodi.serve.body.MOST_BYTES_HELD", 40)
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
            await asyncio.sleep(0.01)  # what was delivered is counted by the loop
            figures = (await client.get("/metrics")).text
        return sent, status, figures

    sent, status, figures = call_app(monkeypatch, forward, scenario)
    assert sent == [] and status == 200
    assert 'luodi_requests_total{status="499"} 1.0' in figures


def test_strict_json():
    assert text({"a": [1.5, math.nan, (-math.inf, "é")]}) == '{"a":[1.5,null,[null,"é"]]}'.encode()
    assert json.loads(text("half \ud800")) == "half \ud800"
