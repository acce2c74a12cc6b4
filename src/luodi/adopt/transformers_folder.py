"""A folder or hub name of a transformers image classifier as a bundle."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from luodi.adopt.naming import told_mismatch
from luodi.adopt.preprocessing import image_field
from luodi.adopt.proof import Original, fill_from, prove_and_save
from luodi.core import atomic
from luodi.core.bundle import Bundle
from luodi.core.catalog import require
from luodi.core.errors import LuodiError, nearest
from luodi.core.spec import Arrays
from luodi.core.task import Task
from luodi.core.thing import ModelConfig, make

if TYPE_CHECKING:
    from luodi.core.task import Request

IMAGE, LABEL = "image", "label"  # the columns of the bundle's task
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
WANTED = ("config.json", *PROCESSORS, "*.safetensors", "*.safetensors.index.json")  # all that is fetched from a hub
# Of a config: what names files, labels or versions, and what is only about how it was trained or loaded.
LEFT = ("id2label", "label2id", "num_labels", "architectures", "transformers_version", "dtype", "torch_dtype",
        "auto_map", "attn_implementation", "name_or_path", "problem_type")  # fmt: skip


def adopt(source: str, out: Path) -> dict[str, Any]:
    """Saves a bundle at `out` that answers as the model of this folder or hub name does; returns what was found.

    Code of the folder or hub is never run and pickle never read. Raises LuodiError for what is missing or no image
    classifier, ParityError if the bundle would answer otherwise.
    """
    require("transformers", "hub")
    folder, revision = _folder(source)
    config = _read_json(folder / "config.json", source)
    kind = _architecture(config, source)
    _refuse_other_problems(config, source)
    _check_weights(folder, source)
    labels, renamed = _labels(config, source)
    processor = _processor(folder, source)
    network, left_out = _original(kind, folder, len(labels))
    channels = getattr(network.config, "num_channels", 3) or 3
    task = make("tasks", {"supervised": {
        "inputs": {IMAGE: image_field(processor, channels)}, "targets": {LABEL: {"category": {"values": labels}}},
    }})  # fmt: skip
    plain = _plain(json.loads(network.config.to_json_string(use_diff=False)))
    given = make("models", {"pretrained_image": {"architecture": kind.__name__, "config": plain}})
    assert isinstance(task, Task) and isinstance(given, ModelConfig)
    model = task.build(given).eval()
    fill_from(model, network)
    bundle = Bundle(task, given, model, facts=frozenset({"model", "float", "fitted"}))
    original = Original(_arrays(processor, channels), _forward(network))
    notes = [*renamed, *left_out, *_dtype_note(folder)]
    about = _about(source, folder, revision, kind.__name__, type(processor).__name__, notes)
    return prove_and_save(bundle, original, out, about)


def _folder(source: str) -> tuple[Path, str | None]:
    """(the local folder, the hub's revision): a hub name is fetched, without pickle and without code."""
    if Path(source).is_dir():
        return Path(source), None
    if source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise LuodiError(f"{source} is no folder; give a folder with config.json, or a hub name such as owner/model")
    hub = require("huggingface_hub", "hub")
    try:
        folder = Path(hub.snapshot_download(source, allow_patterns=list(WANTED)))
    except (OSError, ValueError) as error:
        why = str(error).split("\n", 1)[0]
        raise LuodiError(f"there is no folder {source} here, and it cannot be fetched from the hub: {why}") from error
    return folder, folder.name


def _read_json(path: Path, source: str) -> dict[str, Any]:
    if not path.is_file():
        raise LuodiError(f"{source} has no {path.name}: it is no model folder of transformers")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LuodiError(f"{source}: {path.name} is no JSON ({error})") from error


def _architecture(config: Mapping[str, Any], source: str) -> Any:
    """The class of the model; raises LuodiError unless it classifies images in pixels."""
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES as KNOWN

    model_type, named = config.get("model_type"), (config.get("architectures") or [None])[0]
    version = f"transformers {transformers.__version__}"
    if model_type not in CONFIG_MAPPING_NAMES:
        remote = " (its auto_map names code in that folder, which luodi never runs)" if "auto_map" in config else ""
        known = nearest(str(model_type), KNOWN)
        raise LuodiError(f"{source}: {version} has no architecture {model_type!r}{remote}; {known}")
    heads = {name for given in KNOWN.values() for name in ((given,) if isinstance(given, str) else given)}
    if named is None and model_type in KNOWN:
        named = KNOWN[model_type] if isinstance(KNOWN[model_type], str) else KNOWN[model_type][0]
    if named not in heads:
        raise LuodiError(
            f"{source} holds {named or model_type}, which does not classify images; supported are the heads "
            f"...ForImageClassification; {nearest(str(named), heads)}"
        )
    kind = getattr(transformers, named)
    if kind.main_input_name != "pixel_values" or model_type == "timm_wrapper":
        raise LuodiError(
            f"{source}: {named} takes {kind.main_input_name}, not an image in pixels; it cannot be imported"
        )
    return kind


def _refuse_other_problems(config: Mapping[str, Any], source: str) -> None:
    problem = config.get("problem_type") or "single_label_classification"
    if problem != "single_label_classification":
        raise LuodiError(f"{source}: its problem_type is {problem}; a bundle's category is one label of several")
    if config.get("quantization_config"):
        raise LuodiError(f"{source} is quantised already; import the float model and add quantize: to a recipe")


def _check_weights(folder: Path, source: str) -> None:
    """Raises LuodiError unless the weights are safetensors."""
    if any(folder.glob("*.safetensors")):
        return
    pickled = sorted(path.name for path in (*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")))
    if not pickled:
        raise LuodiError(f"{source} has no model.safetensors (nor model.safetensors.index.json with its shards)")
    raise LuodiError(
        f"{source} has only {', '.join(pickled)}: that is pickle, which can run code when it is opened, so luodi does "
        'not. Where you trust the file, convert it: python -c "from transformers import AutoModelForImageClassification'
        f" as M; M.from_pretrained('{source}').save_pretrained('converted')\", copy preprocessor_config.json to it, "
        "and import that"
    )


def _labels(config: Mapping[str, Any], source: str) -> tuple[list[str], list[str]]:
    """(label names in the order of the logits, a note if some were told apart)."""
    given = config.get("id2label")
    if not given:
        raise LuodiError(
            f'{source}: config.json has no id2label, so nobody could read the answers; add "id2label": '
            '{"0": "first label", "1": "second label", ...} in the order of the outputs'
        )
    if len(given) < 2 or sorted(map(int, given)) != list(range(len(given))):
        raise LuodiError(f"{source}: id2label must name the outputs 0, 1, 2..., at least two; got {sorted(given)[:8]}")
    names = [str(given[key]) for key in sorted(given, key=int)]
    twice = {name for name in names if names.count(name) > 1}
    if not twice:
        return names, []
    # ImageNet has two cranes: answers need names that differ.
    apart = [f"{name} ({index})" if name in twice else name for index, name in enumerate(names)]
    return apart, [f"labels that occur twice have their number now: {', '.join(sorted(twice))}"]


def _processor(folder: Path, source: str) -> Any:
    """The image processor, in Pillow and NumPy: the one whose pictures are the same on every machine."""
    import transformers

    if not any((folder / name).is_file() for name in PROCESSORS):
        raise LuodiError(
            f"{source} has no preprocessor_config.json, so how a picture becomes an array is not known; copy it from "
            "where the model was trained, or save it with the image processor's save_pretrained"
        )
    try:
        return transformers.AutoImageProcessor.from_pretrained(
            folder, backend="pil", trust_remote_code=False, local_files_only=True
        )
    except (ValueError, OSError, ImportError) as error:
        raise LuodiError(f"{source}: its image processor cannot be opened: {str(error)[:300]}") from error


def _original(kind: Any, folder: Path, num_labels: int) -> tuple[Any, list[str]]:
    """(the model as transformers opens it, notes on tensors that it leaves out)."""
    import torch
    from safetensors import SafetensorError

    try:
        with _quiet():
            network, found = kind.from_pretrained(
                folder, use_safetensors=True, local_files_only=True, dtype=torch.float32, ignore_mismatched_sizes=True,
                output_loading_info=True,
            )  # fmt: skip
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise LuodiError(f"{folder}: transformers cannot open it as {kind.__name__}: {error}") from error
    shapes = {name: (tuple(have), tuple(want)) for name, have, want in found["mismatched_keys"]}
    extra = sorted(found["unexpected_keys"])
    wrong = told_mismatch(sorted(found["missing_keys"]), extra, shapes)
    if wrong:
        raise LuodiError(f"{folder}: its weights are not those of {kind.__name__} with this config.json:\n{wrong}")
    if network.config.num_labels != num_labels:
        raise LuodiError(f"{folder}: id2label names {num_labels} labels, the head has {network.config.num_labels}")
    shown = ", ".join(extra[:6]) + (f" and {len(extra) - 6} more" if len(extra) > 6 else "")
    return network.eval(), [f"tensors that {kind.__name__} does not use: {shown}"] if extra else []


@contextlib.contextmanager
def _quiet() -> Generator[None]:
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


def _plain(config: Any) -> Any:
    """A config without what names files, labels or code, in the configs inside it too."""
    if not isinstance(config, dict):
        return config
    return {
        key: _plain(value) for key, value in config.items() if key.lstrip("_").removesuffix("_internal") not in LEFT
    }


def _arrays(processor: Any, channels: int) -> Any:
    """What the original's own preprocessing makes of requests."""

    def arrays(requests: Sequence[Request]) -> Arrays:
        from PIL.Image import fromarray

        found = []
        for request in requests:
            image = fromarray(request[IMAGE])
            if channels == 1 or not getattr(processor, "do_convert_rgb", False):
                # Such a processor takes no gray and no alpha: whoever calls it converts first, as the pipeline does.
                image = image.convert("L" if channels == 1 else "RGB")
            found.append(processor(images=image, return_tensors="np")["pixel_values"][0])
        shapes = sorted({array.shape for array in found})
        if len(shapes) > 1:
            raise LuodiError(f"{type(processor).__name__} makes arrays of several sizes, {shapes[0]}, {shapes[1]}...")
        return {IMAGE: np.stack(found)}

    return arrays


def _forward(network: Any) -> Any:
    def forward(arrays: Arrays) -> Arrays:
        import torch

        with torch.inference_mode():
            try:
                return {LABEL: network(pixel_values=torch.as_tensor(arrays[IMAGE])).logits.float().numpy()}
            except (ValueError, RuntimeError) as error:
                sides = " x ".join(map(str, arrays[IMAGE].shape[1:]))
                raise LuodiError(f"the image processor makes {sides}, which the model refuses: {error}") from error

    return forward


def _dtype_note(folder: Path) -> list[str]:
    from safetensors import safe_open

    kinds: set[str] = set()
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as opened:
            kinds |= {opened.get_slice(name).get_dtype() for name in opened.keys()}  # noqa: SIM118 - no mapping
    halves = sorted(kinds & {"F16", "BF16"})
    return [f"weights stored as {', '.join(halves)} are float32 here"] if halves else []


def _about(
    source: str, folder: Path, revision: str | None, architecture: str, processor: str, notes: list[str]
) -> dict[str, Any]:
    """The lineage: what it was, and the SHA-256 of every file that was read."""
    files = sorted({path for pattern in WANTED for path in folder.glob(pattern)})
    return {
        "kind": "transformers",
        "source": source if revision else folder.resolve().name,
        "revision": revision,
        "architecture": architecture,
        "image_processor": processor,
        "files": {path.name: atomic.file_sha(path) for path in files},
        "packages": {name: importlib.metadata.version(name) for name in ("transformers", "torch", "pillow")},
        "notes": notes,
    }
