"""`make demo`: real digits from data to a server that answers a real request over HTTP."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np

from luodi.cli import cache_folder
from luodi.command.running import run_recipe
from luodi.core.rows import Rows

RECIPE = Path("recipes/digits.yaml")
OUT = Path("runs")


def main() -> int:
    """Runs the recipe, serves its bundle, asks it one held-out digit, stops it."""
    started = time.monotonic()
    code = run_recipe(RECIPE, (), OUT, cache_folder(), (), rehearse=False, strict=False, json=False)
    if code == 0:
        ask(OUT / "digits")
        print(f"\nthe demo took {time.monotonic() - started:.0f} s")
    return code


def ask(folder: Path) -> None:
    """Starts the server on a free port of the loopback address, sends a digit, prints what it says."""
    command = [sys.executable, "-m", "luodi", "serve", str(folder), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        line = next(line for line in server.stdout if line.startswith("serving"))
        address = line.split(" at ")[-1].strip()
        row = Rows.open(folder / "rows" / "test.arrow")[7]
        print(f"\n{line.strip()}\nPOST {address}/predict with this held-out digit:\n{drawn(row['image'])}")
        body = json.dumps({"image": base64.b64encode(row["image"]).decode()}).encode()
        request = Request(f"{address}/predict", body, {"Content-Type": "application/json"})  # noqa: S310 - loopback
        with urlopen(request, timeout=30) as response:  # noqa: S310
            answer = json.loads(response.read())
        label = answer["answer"]["label"]
        print(
            f"answer {label['value']} (probability {label['probabilities'][label['value']]:.3f}), truth {row['label']}"
        )
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()
        print("the server is stopped")


def drawn(png: bytes) -> str:
    """A picture as text, two rows of pixels a line."""
    import io

    from PIL import Image

    with Image.open(io.BytesIO(png)) as image:
        pixels = np.asarray(image.convert("L"))[::2]
    return "\n".join("  " + "".join(" .:-=+*#%@"[int(value) * 9 // 255] for value in line).rstrip() for line in pixels)


if __name__ == "__main__":
    sys.exit(main())
