"""A model folder of the transformers library: found or fetched, checked, read. No pickle, no code of the folder."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from luodi.core import atomic
from luodi.core.catalog import require
from luodi.core.errors import LuodiError
from luodi.data.pretraining.mismatch import told_mismatch

WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
TOKENS = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt",
          "vocab.json", "merges.txt", "*.model", "chat_template.jinja")  # fmt: skip
TEXTS = ("config.json", "generation_config.json", *TOKENS, *WEIGHTS)  # all that is fetched of a model of texts
# Of a config: what names files, labels or versions, and what is only about how it was trained or loaded.
LEFT = ("id2label", "label2id", "num_labels", "architectures", "transformers_version", "dtype", "torch_dtype",
        "auto_map", "attn_implementation", "name_or_path", "problem_type")  # fmt: skip


@dataclass(frozen=True)
class Folder:
    """A model folder that was read: where it is, what config.json holds; `source` is its name for people."""

    path: Path
    source: str
    config: dict[str, Any]
    revision: str | None = None  # the hub's commit

    @property
    def architecture(self) -> str:
        """The class that it was saved from; empty if it does not say."""
        return str((self.config.get("architectures") or [""])[0])


def opened(source: str, wanted: Sequence[str] = TEXTS, revision: str | None = None) -> Folder:
    """The folder of that path or hub name, which is fetched; raises LuodiError for anything but whole safetensors."""
    path, found = located(source, wanted, revision)
    config = read_json(path / "config.json", source)
    if (path / "adapter_config.json").is_file():
        raise LuodiError(f"{source} holds an adapter, not a whole model: merge it into its model first")
    if config.get("quantization_config"):
        raise LuodiError(f"{source} is quantised already; take the float model and add quantize: to a recipe")
    check_weights(path, source, "AutoModel", "the tokenizer's files")
    return Folder(path, source, config, found)


def located(source: str, wanted: Sequence[str], revision: str | None = None) -> tuple[Path, str | None]:
    """(the local folder, the hub's revision): a hub name is fetched, without pickle and without code."""
    if Path(source).is_dir():
        return Path(source), None
    if source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise LuodiError(f"{source} is no folder; give a folder with config.json, or a hub name such as owner/model")
    hub = require("huggingface_hub", "hub")
    pinned = {"revision": revision} if revision else {}
    try:
        folder = Path(hub.snapshot_download(source, allow_patterns=list(wanted), **pinned))
    except (OSError, ValueError) as error:
        why = str(error).split("\n", 1)[0]
        raise LuodiError(f"there is no folder {source} here, and it cannot be fetched from the hub: {why}") from error
    return folder, folder.name


def is_folder(path: str) -> bool:
    """Whether a model folder lies there."""
    return (Path(path) / "config.json").is_file()


def digest_of(path: Path) -> str:
    """The SHA-256 over all files that are read of a local folder."""
    files = sorted({file for pattern in TEXTS for file in path.glob(pattern)})
    return sha256(repr([(file.name, atomic.file_sha(file)) for file in files]).encode()).hexdigest()


def read_json(path: Path, source: str) -> dict[str, Any]:
    """What a JSON file of the folder holds; raises LuodiError if it is missing or none."""
    if not path.is_file():
        raise LuodiError(f"{source} has no {path.name}: it is no model folder of transformers")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LuodiError(f"{source}: {path.name} is no JSON ({error})") from error


def check_weights(folder: Path, source: str, kind: str, beside: str) -> None:
    """Raises LuodiError unless the weights are safetensors; `kind` and `beside` are for the way out that it tells."""
    if any(folder.glob("*.safetensors")):
        return
    pickled = sorted(path.name for path in (*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")))
    if not pickled:
        raise LuodiError(f"{source} has no model.safetensors (nor model.safetensors.index.json with its shards)")
    raise LuodiError(
        f"{source} has only {', '.join(pickled)}: that is pickle, which can run code when it is opened, so luodi does "
        f'not. Where you trust the file, convert it: python -c "from transformers import {kind}'
        f" as M; M.from_pretrained('{source}').save_pretrained('converted')\", copy {beside} to it, "
        "and import that"
    )


def network_of(kind: Any, folder: Path, unused: Sequence[str] = (), **given: Any) -> tuple[Any, list[str]]:
    """(the model as transformers opens it, in float32, notes on tensors that it leaves out).

    Raises LuodiError where tensors are missing (those whose name begins with one of `unused` may be) or do not fit.
    """
    import torch
    from safetensors import SafetensorError

    try:
        with quiet():
            network, found = kind.from_pretrained(
                folder, use_safetensors=True, local_files_only=True, dtype=torch.float32, ignore_mismatched_sizes=True,
                output_loading_info=True, **given,
            )  # fmt: skip
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise LuodiError(f"{folder}: transformers cannot open it as {kind.__name__}: {error}") from error
    shapes = {name: (tuple(have), tuple(want)) for name, have, want in found["mismatched_keys"]}
    extra = sorted(found["unexpected_keys"])
    missing = [name for name in sorted(found["missing_keys"]) if not name.startswith(tuple(unused) or "\0")]
    wrong = told_mismatch(missing, extra, shapes)
    if wrong:
        raise LuodiError(f"{folder}: its weights are not those of {kind.__name__} with this config.json:\n{wrong}")
    shown = ", ".join(extra[:6]) + (f" and {len(extra) - 6} more" if len(extra) > 6 else "")
    return network.eval(), [f"tensors that {kind.__name__} does not use: {shown}"] if extra else []


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """What transformers tells of tensors that do not fit is told by us, once."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def plain(config: Any) -> Any:
    """A config without what names files, labels or code, in the configs inside it too."""
    if not isinstance(config, dict):
        return config
    return {key: plain(value) for key, value in config.items() if key.lstrip("_").removesuffix("_internal") not in LEFT}


def dtype_note(folder: Path) -> list[str]:
    """A note if the weights lie there in another precision."""
    from safetensors import safe_open

    kinds: set[str] = set()
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            kinds |= {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 - no mapping
    halves = sorted(kinds & {"F16", "BF16"})
    return [f"weights stored as {', '.join(halves)} are float32 here"] if halves else []
