"""Work in a process of its own: a small clean process, with torch imported, that forks one child for each job.

It is started as a plain command, so that a user's script is never imported again, and it knows nothing of the heap of
the process that asks: what a child is found to use is its own. Where there is no fork, each job is a fresh process.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from luodi.core.errors import LuodiError

PRELOADED = ("torch", "luodi.core.measure")


class ChildDied(LuodiError):
    """A child ended without a result: killed (out of memory, say) or crashed."""

    exit_code = 1


class Nursery:
    """A process that forks children; jobs are done one after the other. Use it as a context manager."""

    def __init__(self, preload: tuple[str, ...] = PRELOADED) -> None:
        self.preload = preload
        self.process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def start(self) -> None:
        """Starts the process without waiting: importing goes on while the caller works."""
        if self.process is None or self.process.poll() is not None:
            command = [sys.executable, "-m", "luodi.core.child", *self.preload]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def call(self, name: str, **arguments: Any) -> Any:
        """The JSON result of `module:function(**arguments)` in a child; its LuodiError is raised here again."""
        self.start()
        assert self.process is not None and self.process.stdin is not None and self.process.stdout is not None
        with tempfile.TemporaryDirectory(prefix="luodi-child-") as folder:
            answer = Path(folder) / "answer.json"
            self.process.stdin.write(json.dumps({"call": name, "arguments": arguments, "answer": str(answer)}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
            if not answer.is_file():
                raise ChildDied(f"{name}: the child process ended without a result ({line.strip() or 'it is gone'})")
            result = json.loads(answer.read_text(encoding="utf-8"))
        if "refused" in result:
            raise LuodiError(result["refused"])
        if "error" in result:
            raise RuntimeError(f"{name} failed in its child process:\n{result['error']}")
        return result["value"]

    def close(self) -> None:
        """Ends the process; it also ends by itself when its parent is gone."""
        if self.process is not None:
            assert self.process.stdin is not None and self.process.stdout is not None
            self.process.stdin.close()
            self.process.wait()
            self.process.stdout.close()
            self.process = None


def _do(job: dict[str, Any]) -> None:
    """One job, in the child: its result goes to a file, written whole before the child ends."""
    try:
        module, _, function = job["call"].partition(":")
        result = {"value": getattr(importlib.import_module(module), function)(**job["arguments"])}
    except LuodiError as error:
        result = {"refused": str(error)}
    except Exception:
        result = {"error": traceback.format_exc()}
    aside = Path(job["answer"] + ".part")
    with suppress(FileNotFoundError):  # who asked has stopped and taken its folder away
        aside.write_text(json.dumps(result), encoding="utf-8")
        aside.replace(job["answer"])


def _serve(preload: list[str]) -> None:
    """The nursery itself: reads jobs from standard input, forks, tells how each child ended."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a traceback
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not get between the answers
    for name in preload:
        importlib.import_module(name)
    for line in sys.stdin:
        job = json.loads(line)
        if not hasattr(os, "fork"):
            _do(job)
            lines.write("done\n")
            continue
        child = os.fork()
        if child == 0:
            _do(job)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)  # no clean-up of what belongs to the parent
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        lines.write("done\n" if status == 0 else f"exit code {status}\n")


if __name__ == "__main__":
    _serve(sys.argv[1:])
