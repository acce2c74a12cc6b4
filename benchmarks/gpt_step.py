"""A training step of our GPT against a plain GPT written as its textbooks do, on one thread, alternating.

`python benchmarks/gpt_step.py [seconds]`: forward, cross-entropy, backward and AdamW of 4 layers, width 128, 4 heads,
12 x 64 tokens, a vocabulary of 65. Prints the median of each and the ratio; below 1 ours is faster.
"""

from __future__ import annotations

import sys
from statistics import median
from time import perf_counter, process_time
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from luodi.core.spec import Spec
from luodi.models.gpt import GPT

LAYERS, WIDTH, HEADS, ROWS, TIME, VOCABULARY = 4, 128, 4, 12, 64, 65


class PlainBlock(nn.Module):
    """Pre-norm attention by sdpa, then a layer of four times the width."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH, bias=False) for _ in range(2))
        self.attend, self.project = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.wide, self.narrow = nn.Linear(WIDTH, 4 * WIDTH, bias=False), nn.Linear(4 * WIDTH, WIDTH, bias=False)
        self.gelu = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        rows, time, _ = x.shape
        parts = self.attend(self.norms[0](x)).split(WIDTH, dim=2)
        q, k, v = (part.view(rows, time, HEADS, WIDTH // HEADS).transpose(1, 2) for part in parts)
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.project(y.transpose(1, 2).contiguous().view(rows, time, WIDTH))
        return x + self.narrow(self.gelu(self.wide(self.norms[1](x))))


class PlainGPT(nn.Module):
    """Tokens and learned places, blocks, a tied head."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(TIME, WIDTH)
        self.blocks = nn.ModuleList(PlainBlock() for _ in range(LAYERS))
        self.norm, self.head = nn.LayerNorm(WIDTH, bias=False), nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.tokens.weight = self.head.weight

    def forward(self, text: Tensor) -> dict[str, Tensor]:
        x = self.tokens(text) + self.places(torch.arange(text.shape[1]))
        for block in self.blocks:
            x = block(x)
        return {"text": self.head(self.norm(x))}


def steps_of(model: nn.Module) -> Any:
    """A function that makes one training step and gives its CPU seconds."""
    update = torch.optim.AdamW(model.parameters(), fused=True)
    tokens = torch.randint(VOCABULARY, (ROWS, TIME + 1), generator=torch.Generator().manual_seed(0))

    def step() -> float:
        begun = process_time()
        logits = model(text=tokens[:, :-1])["text"]
        functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
        update.step()
        update.zero_grad()
        return process_time() - begun

    return step


def main(seconds: float) -> None:
    """Alternates one step of each until the time is over."""
    torch.set_num_threads(1)
    text = {"text": Spec(kind="tokens", shape=("length",), size=VOCABULARY, dtype="int64")}
    logits = {"text": Spec(kind="tokens", shape=("length", VOCABULARY), size=VOCABULARY)}
    kinds: dict[str, dict[str, Any]] = {
        "learned, layer norm": {},
        "rotary, rms, gated": {"positions": "rotary", "norm": "rms", "gated": True},
        "rotary, rms, gated, 2 kv heads": {"positions": "rotary", "norm": "rms", "gated": True, "kv_heads": 2},
    }
    models = {"plain": PlainGPT()} | {
        name: GPT(text, logits, layers=LAYERS, width=WIDTH, heads=HEADS, context=TIME, **figures)
        for name, figures in kinds.items()
    }
    steps, spent = {name: steps_of(model) for name, model in models.items()}, {name: [] for name in models}
    for step in steps.values():
        for _ in range(3):
            step()
    end = perf_counter() + seconds
    while perf_counter() < end:
        for name, step in steps.items():
            spent[name].append(step())
    for name, found in spent.items():
        ratio = median(found) / median(spent["plain"])
        print(f"{name}: {median(found) * 1e3:.2f} ms a step, {ratio:.3f} of plain, {len(found)} steps")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 30.0)
