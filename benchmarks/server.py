"""Requests a second of `luodi serve` against the shortest FastAPI endpoint that calls the same model.

Both servers are processes of their own with the same uvicorn settings; a third process sends the same PNG over loopback
in a closed loop at 1, 4 and 16 connections. Bursts are interleaved in alternating order; each pair of bursts gives one
ratio, and the interval is a bootstrap over pairs. The last line is the result: above 1, luodi is faster.

    python benchmarks/server.py [--quick] [--bundle runs/digits/bundle] [--form onnx]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import psutil

CONNECTIONS = (1, 4, 16)


class Running(NamedTuple):
    """A server that answers."""

    port: int
    process: psutil.Process

    def cpu(self) -> float:
        """CPU seconds it has used."""
        times = self.process.cpu_times()
        return times.user + times.system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="under a minute")
    parser.add_argument("--bundle", type=Path, help="default: a fresh, untrained convolutional network for digits")
    parser.add_argument("--form", default="onnx")
    parser.add_argument("--role", choices=["luodi", "plain", "load"], help=argparse.SUPPRESS)
    parser.add_argument("--load", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.role == "load":
        print(json.dumps(asyncio.run(burst(**json.loads(asked.load)))))
    elif asked.role == "luodi":
        from luodi.serve.app import serve

        serve(asked.bundle, "127.0.0.1", 0, asked.form, 1, ())
    elif asked.role == "plain":
        plain(asked.bundle, asked.form)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            bundle = asked.bundle or fresh(Path(scratch) / "digits" / "bundle", asked.form)
            compare(bundle, asked.form, *((4, 0.8, 13.0) if asked.quick else (20, 2.0, 150.0)))


def fresh(path: Path, form: str) -> Path:
    """An untrained network of the demo's shape, in one form: latency does not depend on what was learned."""
    from luodi.core import parity
    from luodi.core.bundle import Bundle
    from luodi.core.catalog import resolve
    from luodi.core.form import Form
    from luodi.core.rows import Rows
    from luodi.core.run import Run
    from luodi.core.source import Data

    image: dict[str, Any] = {"image": {"size": 28, "channels": 1}}
    task: Any = resolve("tasks", {"supervised": {"inputs": {"image": image}, "targets": {"label": "category"}}})
    config: Any = resolve("models", {"convnet": {"widths": [32, 64]}})
    rows = Rows.of([{"image": png(place), "label": str(place)} for place in range(10)])
    bundle = Bundle(task=task, config=config, data=Data({"all": rows})).ready(Run(out=path)).without_data()
    if form != "torch":
        runtime: Any = resolve("runtimes", form)
        folder = path.parent / "form"
        folder.mkdir(parents=True)
        assert bundle.model is not None
        example = bundle.task.encode(bundle.task.examples(2, 0))
        written = runtime.write(bundle.model.eval(), example, bundle.signature(), folder, None)
        facts = {"arithmetic": written.arithmetic, "properties": written.properties, "tolerance": 1e-4, "drift": 0.0}
        bundle = bundle.with_form(form, Form(kind=form, folder=folder, signature=bundle.signature(), **facts))
    return parity.record(bundle).save(path)


def png(seed: int) -> bytes:
    from io import BytesIO

    import numpy as np
    from PIL import Image

    pixels = np.zeros((28, 28), np.uint8)
    dice = np.random.default_rng(seed)
    pixels[4:24, 6:22] = dice.integers(0, 256, (20, 16)) * (dice.random((20, 16)) < 0.4)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def plain(path: Path, form: str) -> None:
    """The server that a person writes in ten minutes, with the bundle's own reading and decoding."""
    import socket

    import uvicorn
    from fastapi import FastAPI
    from pydantic import create_model

    from luodi.core.bundle import Bundle

    bundle = Bundle.load(path, form=form, check=True)
    task, forward = bundle.task, bundle.predictor(form, threads=1).forward
    columns: dict[str, Any] = dict.fromkeys(task.wire_schema()["request"]["properties"], (Any, ...))
    body = create_model("Body", **columns)
    app = FastAPI()

    def predict(request: Any) -> dict[str, Any]:
        arrays = task.encode([task.read(request.model_dump())])
        return {"answer": task.decode(forward(arrays))[0]}

    predict.__annotations__ = {"request": body, "return": dict[str, Any]}
    app.post("/predict")(predict)
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    config = uvicorn.Config(app, access_log=False, log_level="warning", lifespan="on", server_header=False)
    print(f"serving plain ({form}) at http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
    uvicorn.Server(config).run(sockets=[listening])


async def burst(port: int, body: str, connections: int, seconds: float) -> dict[str, Any]:
    """Each connection asks again as soon as it is answered; milliseconds of every answer, and this process's share."""
    head = f"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    asked = (head + body).encode()
    times: list[float] = []

    async def one(until: float) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (began := time.perf_counter()) < until:
            writer.write(asked)
            told = await reader.readuntil(b"\r\n\r\n")
            assert told.startswith(b"HTTP/1.1 200"), told
            length = int(told.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            times.append((time.perf_counter() - began) * 1000)
        writer.close()

    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    await asyncio.gather(*(one(began + seconds) for _ in range(connections)))
    took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"times": [round(value, 4) for value in times], "seconds": took, "cpu": used / took}


@contextmanager
def server(role: str, bundle: Path, form: str) -> Generator[Running]:
    """A server's process, once it is ready."""
    import psutil

    command = [sys.executable, __file__, "--role", role, "--bundle", str(bundle), "--form", form]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("serving"), f"the {role} server did not start"
        yield Running(int(line.rpartition(":")[2]), psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait(30)


def load(port: int, body: str, connections: int, seconds: float) -> dict[str, Any]:
    """One burst from a process of its own."""
    facts = json.dumps({"port": port, "body": body, "connections": connections, "seconds": seconds})
    command = [sys.executable, __file__, "--role", "load", "--load", facts]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def compare(bundle: Path, form: str, pairs: int, seconds: float, most: float) -> None:
    """Prints a line for each server and level, then the ratios; no pair begins after `most` seconds of a level."""
    from luodi.core.bundle import Bundle

    opened = Bundle.load(bundle, form=form, check=False)
    body = json.dumps(opened.task.write(opened.task.examples(1, 0)[0]))
    print(f"{form} form, {len(body)} bytes a request, {os.cpu_count()} cores, {pairs} pairs of {seconds} s bursts")
    with server("luodi", bundle, form) as ours, server("plain", bundle, form) as theirs:
        servers = {"luodi": ours, "plain": theirs}
        for each in servers.values():
            load(each.port, body, 4, 0.5)  # warm
        ratios = [one_level(servers, body, connections, pairs, seconds, most) for connections in CONNECTIONS]
    print("luodi / plain FastAPI, requests a second: " + "; ".join(ratios))


def one_level(servers: dict[str, Running], body: str, connections: int, pairs: int, seconds: float, most: float) -> str:
    """Interleaved bursts at one number of connections, then what they showed."""
    bursts: dict[str, list[dict[str, Any]]] = {name: [] for name in servers}
    began = time.monotonic()
    for pair in range(pairs):
        if pair > 1 and time.monotonic() - began > most:
            break
        for name in sorted(servers, reverse=bool(pair % 2)):
            before = servers[name].cpu()
            found = load(servers[name].port, body, connections, seconds)
            bursts[name].append({**found, "used": servers[name].cpu() - before})
    return told(connections, bursts)


def told(connections: int, bursts: dict[str, list[dict[str, Any]]]) -> str:
    """Prints a line for each server; returns the ratio of requests a second with its interval, in words."""
    import numpy as np

    rates, costs = {}, {}
    for name, each in bursts.items():
        times = [value for burst in each for value in burst["times"]]
        rates[name] = np.asarray([len(burst["times"]) / burst["seconds"] for burst in each])
        costs[name] = sum(burst["used"] for burst in each) / len(times) * 1000
        p50, p95, p99 = np.percentile(times, [50, 95, 99])
        print(
            f"{connections:>3} connections  {name:<6} {np.median(rates[name]):8.0f} requests/s   p50 {p50:.2f} ms  "
            f"p95 {p95:.2f} ms  p99 {p99:.2f} ms  {costs[name]:.2f} ms of CPU a request"
        )
    share = np.mean([burst["cpu"] for each in bursts.values() for burst in each])
    cost = costs["luodi"] / costs["plain"]
    print(f"{'':16} luodi takes {cost:.2f} times the CPU of plain; load generator: {share:.0%} of a core")
    ratios = rates["luodi"] / rates["plain"]
    drawn = np.median(np.random.default_rng(0).choice(ratios, (2000, len(ratios))), axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return f"{connections} connections {np.median(ratios):.2f} [{low:.2f}, {high:.2f}] of {len(ratios)} pairs"


if __name__ == "__main__":
    main()
