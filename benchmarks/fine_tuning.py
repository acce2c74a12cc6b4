"""Fine-tuning a published encoder: our loop and the Trainer of transformers; batches of like length and padded ones.

    python benchmarks/fine_tuning.py [--quick] [--rounds 7] [--rows 512]

    pip install accelerate      (the Trainer wants it; it is no dependency of luodi)

MiniLM (6 layers of 384) on sentences of film reviews, in batches of 32, fused AdamW, a constant rate, one thread. Our
loop and the Trainer get the same model, the same rows in the same order and the same padding (to the longest of a
batch); dropout is off, so both must end with the same weights, which is checked first. Then our loop with batches of
like length (`bucketed`, the default of `train`), and with every text padded to the longest of all (`padded`). Rounds
are interleaved in turning order. The last lines are median ratios of sentences a CPU second.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loop import cpu_seconds, interval
from torch import Tensor, nn

from luodi.core.bundle import Bundle
from luodi.core.run import Run
from luodi.core.source import Data
from luodi.core.thing import make
from luodi.train.loop.checkpoint import Checkpoint
from luodi.train.loop.examples import Held, examples_of
from luodi.train.loop.fit import fit
from luodi.train.loop.patience import Patience
from luodi.train.loop.plan import Plan
from luodi.train.loop.sampler import Bucketed, Shuffled

TEXT = {"text": {"tokens": "pretrained", "length": 64}}
TASK = {"supervised": {"inputs": {"text": TEXT}, "targets": {"label": "category"}}}
BATCH, RATE = 32, 1e-4
SAME = 1e-4  # largest difference of two weights after an epoch, relative to the largest change of one


def prepare(rows: int, cache: Path) -> tuple[Bundle, Held, Run]:
    """The published encoder with fresh heads and without dropout, and so many encoded sentences."""
    everything = make("sources", {"sample": {"name": "rotten_tomatoes"}}).open(cache)
    some = everything.take(np.random.default_rng(0).permutation(len(everything))[:rows])
    run = Run(Path(tempfile.mkdtemp()), threads=1, cache=cache)
    model = make("models", {"pretrained_text": {"dropout": 0.0}})
    begun = Bundle(
        task=make("tasks", TASK), config=model, data=Data({"train": some}), facts=frozenset({"rows", "split"})
    )
    bundle = make("steps", {"pretrained": {"weights": "minilm_l6"}})(begun, run)
    assert bundle.model is not None
    for layer in bundle.model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    examples, _ = examples_of(bundle.task, some, "cpu", 1000)
    assert isinstance(examples, Held)
    return bundle, examples, run


def ours(bundle: Bundle, model: nn.Module, examples: Held, run: Run, sampler: Any) -> None:
    """`fit` as the train step calls it, without validation, which the Trainer does not do either."""
    with tempfile.TemporaryDirectory() as folder:
        told: list[object] = []
        here = Run(Path(folder), threads=1, log=lambda event, facts: told.append((event, facts)))
        plan = Plan(
            sampler, bundle.task.loss, make("updates", {"adamw": {"weight_decay": 0.0}}), make("schedules", "constant"),
            listeners=(here.log,), epochs=1, batch_size=BATCH, learning_rate=RATE,
        )  # fmt: skip
        fit(model, examples, plan, here, Checkpoint(here.out / "checkpoint", {}, 600.0), Patience(None, "loss", {}))


class Rows(torch.utils.data.Dataset):
    """What the Trainer is given: the ids of a row without padding, in the order in which they are to be learned."""

    def __init__(self, examples: Held, order: Tensor) -> None:
        lengths, ids, truth = examples.lengths["text"], examples.inputs["text"], examples.truth["label"]
        self.rows = [(ids[row, : lengths[row]], truth[row]) for row in order.tolist()]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor]:
        return self.rows[place]


class Answering(nn.Module):
    """A model that gives its own loss, as the Trainer wants it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, text: Tensor, text_mask: Tensor, labels: Tensor) -> dict[str, Tensor]:
        scores = self.model(text=text, text_mask=text_mask)["label"]
        return {"loss": nn.functional.cross_entropy(scores, labels), "logits": scores}


def collated(rows: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Padded to the longest of the batch."""
    ids = nn.utils.rnn.pad_sequence([text for text, _ in rows], batch_first=True)
    mask = nn.utils.rnn.pad_sequence([torch.ones_like(text) for text, _ in rows], batch_first=True)
    return {"text": ids, "text_mask": mask, "labels": torch.stack([label for _, label in rows])}


def trainer(model: nn.Module, rows: Rows) -> None:
    """The Trainer of transformers, its logs and checkpoints off."""
    from transformers import Trainer, TrainingArguments

    class InOrder(Trainer):
        def _get_train_sampler(self, *given: Any) -> Any:
            return torch.utils.data.SequentialSampler(rows)

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, num_train_epochs=1, per_device_train_batch_size=BATCH, learning_rate=RATE,
            lr_scheduler_type="constant", optim="adamw_torch_fused", max_grad_norm=0.0, weight_decay=0.0,
            logging_strategy="no", save_strategy="no", report_to=[], disable_tqdm=True, use_cpu=True,
        )  # fmt: skip
        InOrder(model=Answering(model), args=arguments, train_dataset=rows, data_collator=collated).train()


def apart(one: nn.Module, other: nn.Module, before: nn.Module) -> float:
    """The largest difference of two weights over the largest change of one."""
    trio = list(zip(one.parameters(), other.parameters(), before.parameters(), strict=True))
    moved = max(float((a - c).detach().abs().max()) for a, _, c in trio)
    return max(float((a - b).detach().abs().max()) for a, b, _ in trio) / moved


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 rounds of 128 sentences: about a minute")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "luodi")
    given = parser.parse_args()
    if find_spec("accelerate") is None:
        print("not run: the peer is not installed; pip install accelerate")
        return
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    rounds, count = (2, 128) if given.quick else (given.rounds, given.rows)
    bundle, examples, run = prepare(count, given.cache)
    fresh, shuffled = bundle.model, Shuffled(examples.count, run)
    assert fresh is not None and examples.sizes is not None
    bucketed, rows = Bucketed(examples.sizes, BATCH, run), Rows(examples, shuffled.order(0))
    whole = replace(examples, lengths={})
    ways: dict[str, Callable[[nn.Module], None]] = {
        "luodi": lambda model: ours(bundle, model, examples, run, shuffled),
        "trainer": lambda model: trainer(model, rows),
        "bucketed": lambda model: ours(bundle, model, examples, run, bucketed),
        "padded": lambda model: ours(bundle, model, whole, run, shuffled),
    }
    ends = {name: deepcopy(fresh) for name in ("luodi", "trainer")}
    for name, model in ends.items():  # also the warm-up
        ways[name](model)
    off = apart(ends["luodi"], ends["trainer"], fresh)
    print(f"after an epoch the weights differ by {off:.1e} of the largest change", flush=True)
    assert off < SAME, "the two loops did not train the same"
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds):
        for name in list(ways)[turn % 4 :] + list(ways)[: turn % 4]:
            model = deepcopy(fresh)
            spent[name].append(cpu_seconds(lambda name=name, model=model: ways[name](model)))
        print(f"{turn + 1}: " + ", ".join(f"{name} {count / s[-1]:.1f}/s" for name, s in spent.items()), flush=True)
    times = {name: np.asarray(found) for name, found in spent.items()}
    for one, other in (("bucketed", "padded"), ("bucketed", "luodi"), ("bucketed", "trainer"), ("luodi", "trainer")):
        middle, low, high = interval(times[other] / times[one])
        print(f"{one} / {other}, sentences a CPU second: {middle:.3f} [{low:.3f}, {high:.3f}]", flush=True)


if __name__ == "__main__":
    main()
