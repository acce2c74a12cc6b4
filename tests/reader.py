"""A reader of the documentation: takes a page's blocks apart and does what they say in a folder of its own."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
SERVER = "http://127.0.0.1:8000"  # what the pages write
WATCHER = "http://127.0.0.1:8001"
WHOLE = {"wine"}  # a small table, run in earnest: a rehearsal decides no limit
LITTLE = "--set measure.seconds=0.5 --set measure.calls=40 --set measure.resamples=100".split()


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, its lines, and what stands right above it."""

    kind: str
    lines: tuple[str, ...]
    above: str
    line: int

    @property
    def first(self) -> str:
        return self.lines[0]

    @property
    def file(self) -> str | None:
        """The file that the block is, if its first line is a comment with a file's name."""
        found = re.fullmatch(r"# ([\w./]+\.(?:yaml|py))", self.first)
        return found.group(1) if found else None

    def commands(self) -> list[tuple[str, list[str]]]:
        """Commands with the lines that are shown below each of them."""
        if self.kind == "bash":
            return [("\n".join(self.lines), [])]
        found: list[tuple[str, list[str]]] = []
        for line in self.lines:
            if line.startswith("$ "):
                found.append((line[2:], []))
            elif found and not found[-1][1] and found[-1][0].endswith("\\"):
                found[-1] = (f"{found[-1][0]}\n{line}", [])
            else:
                found[-1][1].append(line)
        return found


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in BLOCK.finditer(text):
        above = text[: match.start()].rstrip().rpartition("\n\n")[2]
        lines = tuple(line.removeprefix(match.group(1)) for line in match.group(3).splitlines())
        found.append(Block(match.group(2), lines, above, text[: match.start()].count("\n") + 1))
    return found


@dataclass
class Session:
    """A reader at work in a folder: what was started runs until the page ends."""

    folder: Path
    cache: Path
    servers: list[subprocess.Popen[str]] = field(default_factory=list)
    address: str = SERVER

    @property
    def around(self) -> dict[str, str]:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "LUODI_CACHE": str(self.cache), "COLUMNS": "120"}

    def shell(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", command], cwd=self.folder, env=self.around, capture_output=True, text=True, timeout=300,
            check=False,
        )  # fmt: skip

    def python(self, text: str) -> subprocess.CompletedProcess[str]:
        kept = f"Path({str(self.cache)!r})"
        text = re.sub(r"\brun\((\w+)\)", rf"run(\1, rehearse=True, cache={kept})", text)
        text = text.replace('Path.home() / ".cache" / "luodi"', kept)
        return subprocess.run(
            [sys.executable, "-c", text], cwd=self.folder, env=self.around, capture_output=True, text=True,
            timeout=300, check=False,
        )  # fmt: skip

    def rehearsed(self, command: str) -> str:
        """The command as it is run here: recipes rehearsed (small tables in earnest), servers where they are."""
        if command.startswith("luodi run "):
            text = (self.folder / command.split()[2]).read_text(encoding="utf-8")
            name = re.search(r"^name: (\S+)", text, re.MULTILINE)
            more = LITTLE if name and name.group(1) in WHOLE else ["--rehearse"]
            command = " ".join([command, *more])
        return command.replace(SERVER, self.address).replace(WATCHER, self.address)

    def linked(self) -> None:
        """A rehearsal under the name of the run that it stands for."""
        for path in (self.folder / "runs").glob("*.rehearsal"):
            name = path.with_name(path.name.removesuffix(".rehearsal"))
            if not name.exists():
                name.symlink_to(path.name)

    def serve(self, command: str) -> None:
        """Starts a server on a free port and waits until it says that it serves."""
        words = [*re.sub(r"--port \d+", "", command.rstrip("& ")).split(), "--port", "0"]
        process = subprocess.Popen(
            [sys.executable, "-m", *words], cwd=self.folder, env=self.around, stdout=subprocess.PIPE, text=True
        )
        self.servers.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith(("serving ", "watching ")) and " at http://" in line, f"{command}: {line or 'it ended'}"
        self.address = line.split(" at ")[1].strip()
        port = int(self.address.rpartition(":")[2])
        socket.create_connection(("127.0.0.1", port), timeout=10).close()

    def end(self) -> None:
        for process in self.servers:
            process.terminate()
            process.communicate(timeout=60)
