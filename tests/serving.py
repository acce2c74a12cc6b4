"""A server as a process of its own, for the tests of the server and of its page."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from luodi.core import parity
from luodi.core.bundle import Bundle
from luodi.core.catalog import resolve
from luodi.core.form import Form

QUIET = {**os.environ, "OMP_NUM_THREADS": "1"}


@dataclass
class Server:
    """A running server: its address, and once it has ended everything it printed."""

    address: str
    process: subprocess.Popen[str]
    printed: list[str] = field(default_factory=list)  # stdout, stderr

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Asks it to end; the exit code."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        out, err = self.process.communicate(timeout=60)
        self.printed += [out, err]
        return self.process.returncode


@contextmanager
def served(path: Path, *more: str) -> Generator[Server]:
    """`luodi serve` on a free port of the loopback address, once it accepts calls."""
    command = [sys.executable, "-m", "luodi", "serve", str(path), "--port", "0", *more]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=QUIET)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("serving "), process.communicate(timeout=60)
    server = Server(line.split(" at ")[1].strip(), process, [line])
    try:
        yield server
    finally:
        if process.poll() is None:
            server.stop()


def with_onnx(source: Path, path: Path) -> Path:
    """The saved bundle with an ONNX form, which serves."""
    bundle = Bundle.load(source, check=False)
    runtime: Any = resolve("runtimes", "onnx")
    folder = path.parent / "form"
    folder.mkdir(parents=True)
    assert bundle.model is not None
    written = runtime.write(
        bundle.model, bundle.task.encode(bundle.task.examples(2, 0)), bundle.signature(), folder, None
    )
    facts = {"arithmetic": written.arithmetic, "properties": written.properties, "tolerance": 1e-4, "drift": 0.0}
    form = Form(kind="onnx", folder=folder, signature=bundle.signature(), **facts)
    return parity.record(bundle.with_form("onnx", form)).save(path)


def png(pixels: np.ndarray) -> bytes:
    """A picture as the bytes of a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
