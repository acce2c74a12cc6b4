"""Our loop, a bare PyTorch loop, the Trainer of transformers and Lightning on the same model and data, in CPU seconds.

    python benchmarks/peers.py [--quick] [--rounds 9] [--model convnet|transformer]

    pip install accelerate lightning      (the peers are no dependency of luodi)

All train fresh copies of the same weights for one epoch of the same 4,000 digits, held encoded in memory, with fused
AdamW, batches of 64 and one thread, the rounds interleaved in turning order; progress bars, logs and checkpoints of the
peers are off. The last lines are the median ratios to the bare loop: examples per CPU second.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import warnings
from collections.abc import Callable
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from loop import BATCH, bare, cpu_seconds, interval, ours, prepare
from torch import Tensor, nn

from luodi.core.bundle import Bundle
from luodi.train.loop.examples import Held

HERE = Path(__file__).parent
MODELS = {
    "convnet": {"convnet": {"widths": [32, 64]}},
    "transformer": {f"{HERE / 'small_transformer.py'}:SmallTransformer": {}},
}


class Rows(torch.utils.data.Dataset):
    """What both peers are given: tensors in memory, a dictionary a row."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, place: int) -> dict[str, Tensor]:
        return {"image": self.x[place], "labels": self.y[place]}


class Answering(nn.Module):
    """A model that gives its own loss, as the Trainer of transformers wants it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, labels: Tensor) -> dict[str, Tensor]:
        scores = self.model(image=image)["label"]
        return {"loss": nn.functional.cross_entropy(scores, labels), "logits": scores}


def trainer(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """The Trainer of transformers."""
    from transformers import Trainer, TrainingArguments

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, num_train_epochs=1, per_device_train_batch_size=BATCH, learning_rate=1e-3,
            optim="adamw_torch_fused", max_grad_norm=0.0, logging_strategy="no", save_strategy="no", report_to=[],
            disable_tqdm=True, use_cpu=True,
        )  # fmt: skip
        Trainer(model=Answering(model), args=arguments, train_dataset=Rows(x, y)).train()


def lightning(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """Lightning."""
    import lightning as library

    class Module(library.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def training_step(self, batch: dict[str, Tensor], place: int) -> Tensor:
            return nn.functional.cross_entropy(self.model(image=batch["image"])["label"], batch["labels"])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=1e-3, fused=True)

    fitted = library.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    fitted.fit(Module(), torch.utils.data.DataLoader(Rows(x, y), batch_size=BATCH, shuffle=True))


def contestants(bundle: Bundle, examples: Held) -> dict[str, Callable[[], None]]:
    x, y = examples.inputs["image"], examples.truth["label"]
    assert bundle.model is not None
    fresh = bundle.model
    return {
        "luodi": lambda: ours(bundle, deepcopy(fresh), examples, 1),
        "bare": lambda: bare(deepcopy(fresh), x, y, 1, "default"),
        "trainer": lambda: trainer(deepcopy(fresh), x, y),
        "lightning": lambda: lightning(deepcopy(fresh), x, y),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 rounds of the convnet: under a minute")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--model", choices=sorted(MODELS), default=None, help="default: both")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "luodi")
    given = parser.parse_args()
    missing = [name for name in ("accelerate", "lightning") if find_spec(name) is None]
    if missing:
        print(f"not run: the peers are not installed; pip install {' '.join(missing)}")
        return
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    rounds = 2 if given.quick else given.rounds
    for name in [given.model] if given.model else ["convnet"] if given.quick else sorted(MODELS):
        bundle, examples = prepare(name, given.cache, MODELS)
        loops = contestants(bundle, examples)
        for loop in loops.values():
            loop()  # warm-up: imports, kernels
        spent: dict[str, list[float]] = {one: [] for one in loops}
        for turn in range(rounds):
            order = list(loops)[turn % len(loops) :] + list(loops)[: turn % len(loops)]
            for one in order:
                spent[one].append(cpu_seconds(loops[one]))
            print(f"{name} {turn + 1}: " + ", ".join(f"{one} {s[-1]:.2f} s" for one, s in spent.items()), flush=True)
        bare_times = np.asarray(spent["bare"])
        for one in ("luodi", "trainer", "lightning"):
            middle, low, high = interval(bare_times / np.asarray(spent[one]))
            print(f"{name}: {one} / bare, examples per CPU second: {middle:.3f} [{low:.3f}, {high:.3f}]", flush=True)


if __name__ == "__main__":
    main()
