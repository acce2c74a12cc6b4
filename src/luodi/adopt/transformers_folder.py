"""A folder or hub name of a transformers model as a bundle: image classifiers here, texts in their own file."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from luodi.adopt import transformers_text
from luodi.adopt.labels import labels_of, refuse_other_problems
from luodi.adopt.preprocessing import image_field
from luodi.adopt.proof import Original, fill_from, prove_and_save
from luodi.adopt.transformers_text import of_texts
from luodi.core import atomic
from luodi.core.bundle import Bundle
from luodi.core.catalog import require
from luodi.core.errors import LuodiError, nearest
from luodi.core.spec import Arrays
from luodi.core.task import Task
from luodi.core.thing import ModelConfig, make
from luodi.data.pretraining.folder import check_weights, dtype_note, located, network_of, plain, read_json

if TYPE_CHECKING:
    from luodi.core.task import Request

IMAGE, LABEL = "image", "label"  # the columns of the bundle's task
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
WANTED = ("config.json", *PROCESSORS, "*.safetensors", "*.safetensors.index.json")  # all that is fetched from a hub


def adopt(source: str, out: Path) -> dict[str, Any]:
    """Saves a bundle at `out` that answers as the model of this folder or hub name does; returns what was found.

    Code of the folder or hub is never run and pickle never read. Raises LuodiError for what is missing or not
    known, ParityError if the bundle would answer otherwise.
    """
    require("transformers", "hub")
    folder, revision = located(source, WANTED)
    config = read_json(folder / "config.json", source)
    if of_texts(config):
        return transformers_text.adopt(source, out)
    kind = _architecture(config, source)
    refuse_other_problems(config, source)
    check_weights(folder, source, "AutoModelForImageClassification", "preprocessor_config.json")
    labels, renamed = labels_of(config, source)
    processor = _processor(folder, source)
    network, left_out = _original(kind, folder, len(labels))
    channels = getattr(network.config, "num_channels", 3) or 3
    task = make("tasks", {"supervised": {
        "inputs": {IMAGE: image_field(processor, channels)}, "targets": {LABEL: {"category": {"values": labels}}},
    }})  # fmt: skip
    flat = plain(json.loads(network.config.to_json_string(use_diff=False)))
    given = make("models", {"pretrained_image": {"architecture": kind.__name__, "config": flat}})
    assert isinstance(task, Task) and isinstance(given, ModelConfig)
    model = task.build(given).eval()
    fill_from(model, network)
    bundle = Bundle(task, given, model, facts=frozenset({"model", "float", "fitted"}))
    original = Original(_arrays(processor, channels), _forward(network))
    notes = [*renamed, *left_out, *dtype_note(folder)]
    about = _about(source, folder, revision, kind.__name__, type(processor).__name__, notes)
    return prove_and_save(bundle, original, out, about)


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
            f"{source} holds {named or model_type}, which does not classify images or texts nor write "
            f"text; of images, supported are the heads ...ForImageClassification; {nearest(str(named), heads)}"
        )
    kind = getattr(transformers, named)
    if kind.main_input_name != "pixel_values" or model_type == "timm_wrapper":
        raise LuodiError(
            f"{source}: {named} takes {kind.main_input_name}, not an image in pixels; it cannot be imported"
        )
    return kind


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
    network, notes = network_of(kind, folder)
    if network.config.num_labels != num_labels:
        raise LuodiError(f"{folder}: id2label names {num_labels} labels, the head has {network.config.num_labels}")
    return network, notes


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
