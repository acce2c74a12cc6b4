"""Images a second from a folder: our rows, read and encoded batch by batch, against a plain DataLoader.

    python benchmarks/loading.py [--quick] [--images 3000] [--rounds 7] [--workers 0]

The folder holds JPEG files of 160 x 120 pixels in four class folders, drawn from a fixed seed. Both give batches of 64
images of 64 x 64 as float tensors, in the same shuffled order, from files that the system has in its cache; the rounds
are interleaved. The DataLoader opens each file with Pillow, resizes and stacks. Without worker processes seconds are
those of the processor. The last line is the median ratio.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from loop import interval
from PIL import Image
from torch import Tensor

from luodi.core.thing import make
from luodi.train.loop.examples import Read
from luodi.train.loop.loading import loaded

BATCH, SIDE, CLASSES = 64, 64, 4


def draw(folder: Path, count: int) -> None:
    """Pictures with edges and noise, so that decoding costs what photographs cost."""
    dice = np.random.default_rng(0)
    for number in range(count):
        low = dice.integers(0, 256, (15, 20, 3), dtype=np.uint8)
        picture = Image.fromarray(low).resize((160, 120), Image.Resampling.BICUBIC)
        home = folder / f"class{number % CLASSES}"
        home.mkdir(parents=True, exist_ok=True)
        picture.save(home / f"{number:05}.jpg", quality=90)


class Files(torch.utils.data.Dataset):
    """What most people write."""

    def __init__(self, folder: Path) -> None:
        self.files = sorted(folder.glob("*/*.jpg"))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        image = Image.open(self.files[place]).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.asarray(image, dtype=np.float32) / 255).permute(2, 0, 1)
        return pixels, int(self.files[place].parent.name[-1])


def rate(batches: object, count: int, clock: Callable[[], float]) -> float:
    start = clock()
    for _ in batches:  # ty: ignore[not-iterable]
        pass
    return count / (clock() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="800 images, 3 rounds: under a minute")
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--workers", type=int, default=0)
    given = parser.parse_args()
    count, rounds = (800, 3) if given.quick else (given.images, given.rounds)
    torch.set_num_threads(1)
    # What others do on the machine is no matter where this process does all the work.
    clock, second = (time.perf_counter, "second") if given.workers else (time.process_time, "CPU second")
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "pictures"
        draw(folder, count)
        rows = make("sources", {"folder": {"path": str(folder)}}).open(Path(home) / "cache")
        inputs = {"image": {"image": {"size": SIDE, "channels": 3}}}
        task = make("tasks", {"supervised": {"inputs": inputs, "targets": {"label": "category"}}}).fit(rows)
        examples, files = Read(task, rows), Files(folder)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
        found: dict[str, list[float]] = {"luodi": [], "plain": []}
        for turn in range(rounds + 1):  # the first warms the system's cache
            plain = torch.utils.data.DataLoader(
                files, batch_size=BATCH, sampler=order.tolist(), num_workers=given.workers
            )
            streams = {
                "luodi": loaded(examples, [(part, (0, 0, 0)) for part in order.split(BATCH)], given.workers, "cpu"),
                "plain": plain,
            }
            for name in list(streams) if turn % 2 else list(streams)[::-1]:
                speed = rate(streams[name], count, clock)
                if turn:
                    found[name].append(speed)
        ratios = np.asarray(found["luodi"]) / np.asarray(found["plain"])
        for name, speeds in found.items():
            print(f"{name}: {np.median(speeds):,.0f} images a {second}, {given.workers} workers")
        print(f"luodi / plain DataLoader, images a {second}: {{:.2f}} [{{:.2f}}, {{:.2f}}]".format(*interval(ratios)))


if __name__ == "__main__":
    main()
