"""Writing token by token: our generation on every form of a GPT-2 of 124 million weights, and transformers' `generate`.

    python benchmarks/decoding.py [--quick] [--rounds 7] [--tokens 64] [--forms torch,onnx,openvino] [--bf16]

The weights are random, as a GPT-2's are at first, and the same for all: transformers opens the folder that `export`
writes. One text at a time, 16 tokens of prompt, the likeliest token each time, a key-value cache, one thread. Ours goes
the way that a server goes: request, flow, choice, text. bf16 is left out where the processor has no instructions for
it, unless `--bf16`. Checked first: in float32 all write the same tokens; of int8 it is told how many of the next tokens
are the same after the same text. Rounds are interleaved in turning order. The floor is the time to read every weight
once, by the bandwidth measured in the same run. The last lines are median ratios of tokens a CPU second.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loop import cpu_seconds, interval

from luodi.core.apply import apply
from luodi.core.bundle import Bundle, weights_count
from luodi.core.predictor import Predictor
from luodi.core.rows import Rows
from luodi.core.run import Run
from luodi.core.source import Data
from luodi.core.thing import make

VOCABULARY, CONTEXT, PROMPT = 50_257, 1024, 16
TEXT = {"tokens": "character", "length": CONTEXT, "vocabulary": VOCABULARY, "at_least": 1, "forms": "nfc"}
TASK = {"language": {"inputs": {"text": {"text": TEXT}}}}
MODEL = {"gpt": {"layers": 12, "width": 768, "heads": 12, "context": CONTEXT, "bias": True, "activation": "gelu_tanh"}}
Way = Callable[[list[int], int], list[int]]  # a prompt's ids and how many tokens to the tokens written


def prepare(folder: Path) -> tuple[Bundle, Run]:
    """The fresh network, over as many letters as GPT-2 has tokens."""
    letters = "".join(map(chr, [*range(0x3400, 0x4DC0), *range(0x4E00, 0x9FD0), *range(0x20000, 0x2A6E0)]))
    texts = [letters[at : at + 500] for at in range(0, VOCABULARY, 500)]
    run = Run(folder, threads=1)
    rows = Rows.of([{"text": text} for text in texts])
    bundle = Bundle(
        task=make("tasks", TASK), config=make("models", MODEL), data=Data({"train": rows}),
        facts=frozenset({"rows", "split"}),
    )  # fmt: skip
    return bundle.ready(run), run


def done(bundle: Bundle, run: Run, name: str, *steps: Any) -> Bundle:
    """The bundle after these steps; the model is copied first."""
    bundle = bundle.fork()
    for number, step in enumerate(steps):
        here = Run(run.out / f"{name}{number}", threads=1)
        here.out.mkdir(parents=True)
        bundle = apply(make("steps", step), bundle, here)
    return bundle


def ours(predictor: Predictor) -> Way:
    """Our generation, as the server calls it."""
    task: Any = predictor.task

    def write(prompt: list[int], tokens: int) -> list[int]:
        request = task.read({"text": task.text.cutter.text(prompt), "max_tokens": tokens, "temperature": 0})
        (answer,) = predictor([request])
        (ids,) = task.text.cutter.ids([answer["text"]["value"]])
        return ids

    return write


def theirs(folder: Path, kind: torch.dtype) -> Way:
    """transformers' `generate` on the folder that `export` wrote."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=kind).eval()

    def write(prompt: list[int], tokens: int) -> list[int]:
        with torch.inference_mode():
            ids = torch.tensor([prompt])
            said = model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False, use_cache=True,
                pad_token_id=0,
            )  # fmt: skip
        return said[0, len(prompt) :].tolist()

    return write


def bandwidth() -> float:
    """Bytes a second that one thread reads, the best of several passes over 512 MB."""
    array = torch.ones(2**27)
    times = []
    for _ in range(6):
        start = time.perf_counter()
        array.sum()
        times.append(time.perf_counter() - start)
    return array.numel() * 4 / min(times)


def same_next(one: Predictor, other: Predictor, rows: np.ndarray) -> float:
    """Share of places at which both find the same token likeliest, given the same text (rows, time)."""
    arrays = {"text": rows, "text_mask": np.ones_like(rows)}
    return float((one.forward(arrays)["text"].argmax(2) == other.forward(arrays)["text"].argmax(2)).mean())


def has_bf16() -> bool:
    path = Path("/proc/cpuinfo")
    return path.exists() and any(flag in path.read_text() for flag in ("avx512_bf16", "amx_bf16"))


def ways_of(given: argparse.Namespace, forms: list[str], folder: Path) -> tuple[dict[str, Way], dict[str, Predictor]]:
    """Every way to write by its name, the peer first, and our predictors among them."""
    bundle, run = prepare(folder)
    assert bundle.model is not None
    print(f"{weights_count(bundle.model) / 1e6:.1f} million weights, {VOCABULARY:,} tokens", flush=True)
    whole = done(bundle, run, "hf", {"export": {"to": "hugging_face"}}).forms["hugging_face"].folder
    kinds = {"float32": torch.float32, **({"bfloat16": torch.bfloat16} if given.bf16 or has_bf16() else {})}
    if "bfloat16" not in kinds:
        print("bfloat16: left out, this processor has no instructions for it", flush=True)
    ways = {f"generate {name}": theirs(whole, kind) for name, kind in kinds.items()}
    predictors: dict[str, Predictor] = {}
    for name, steps in {"float32": [], "int8": ["quantize"]}.items():
        for form in forms:
            more = [] if form == "torch" else [{"export": {"to": form}}]
            if name == "float32" and form != "torch" and given.quick:
                continue
            made = done(bundle, run, f"{name}-{form}", *steps, *more)
            predictors[f"{form} {name}"] = made.predictor(form, threads=1)
    return {**ways, **{name: ours(predictor) for name, predictor in predictors.items()}}, predictors


def check(ways: dict[str, Way], predictors: dict[str, Predictor], prompts: list[list[int]], tokens: int) -> None:
    """The same tokens in float32, as many as the machine's rounding leaves in int8; also the warm-up."""
    said = {name: write(prompts[0], tokens) for name, write in ways.items()}
    for name, ids in said.items():
        assert len(ids) == tokens, f"{name} wrote {len(ids)} tokens"
        if name.endswith("float32"):
            assert ids == said["generate float32"], f"{name} writes other tokens than generate"
    rows = np.asarray([[*prompts[0], *said["generate float32"]]])
    for name, predictor in predictors.items():
        if name.endswith("int8"):
            share = same_next(predictors["torch float32"], predictor, rows)
            equal = sum(a == b for a, b in zip(said[name], said["generate float32"], strict=True))
            print(f"{name}: {share:.1%} of the next tokens as in float32, {equal} of {tokens} written alike")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 rounds of 24 tokens, of exported forms int8 alone")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--forms", default="torch,onnx,openvino")
    parser.add_argument("--bf16", action="store_true", help="also where the processor has no instructions for it")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    rounds, tokens = (3, 24) if given.quick else (given.rounds, given.tokens)
    dice = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        ways, predictors = ways_of(given, given.forms.split(","), Path(folder))
        prompts = [dice.integers(10, VOCABULARY - 100, PROMPT).tolist() for _ in range(rounds)]
        check(ways, predictors, prompts, tokens)
        spent: dict[str, list[float]] = {name: [] for name in ways}
        names = list(ways)
        for turn, prompt in enumerate(prompts):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                spent[name].append(cpu_seconds(lambda name=name, prompt=prompt: ways[name](prompt, tokens)))
            rates = ", ".join(f"{name} {tokens / found[-1]:.1f}" for name, found in spent.items())
            print(f"{turn + 1}: tokens a CPU second: {rates}", flush=True)
    speed = bandwidth()
    for name, size in (("float32", 4), ("int8", 1)):
        print(f"floor {name}: {speed / 1e9:.1f} GB/s / {124.4 * size:.0f} MB = {speed / 124.4e6 / size:.0f} tokens/s")
    for name, found in list(spent.items())[1:]:
        middle, low, high = interval(np.asarray(spent["generate float32"]) / np.asarray(found))
        rate = tokens / np.median(found)
        print(f"{name} / generate float32: {middle:.2f} [{low:.2f}, {high:.2f}] ({rate:.1f} tokens/s)", flush=True)


if __name__ == "__main__":
    main()
