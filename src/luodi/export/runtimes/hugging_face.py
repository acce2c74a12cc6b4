"""Hugging Face folders answered by the transformers library."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from luodi.core.catalog import name_of, require
from luodi.core.errors import LuodiError
from luodi.core.form import Runtime, Written
from luodi.core.spec import Arrays, Signature
from luodi.core.thing import Json, ModelConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

    from luodi.core.task import Forward, Task

HEADS = "heads.safetensors"  # our own heads of an encoder, which the library's classes do not have
MODELS = ("gpt", "pretrained_language", "pretrained_text", "pretrained_classifier")


class HuggingFace(Runtime):
    """A Hugging Face folder: config, safetensors and tokenizer, for transformers and all that reads such folders.

    A language model opens as AutoModelForCausalLM, an encoder as AutoModel (its heads lie beside it), both with
    AutoTokenizer. `open` answers by transformers and so imports torch, which no other runtime does: the form is there
    to be passed on; a server is better off with another one.
    """

    library: ClassVar[str] = "transformers"

    def packages(self) -> Mapping[str, str]:
        return {"transformers": "hub", "tokenizers": "text"}

    def objection(self, task: Task, config: ModelConfig | None) -> str | None:
        if self.activations != "float":
            return "a Hugging Face folder holds floats; static int8 is of onnx and openvino"
        if config is None or name_of(type(config)) in MODELS:
            texts = list(vars(task).get("inputs") or {})
            if len(texts) > 1:
                return f"a Hugging Face folder reads one text here, and this task reads {' and '.join(texts)}"
            return _own_ways(vars(config)) if config is not None and name_of(type(config)) == "gpt" else None
        return f"the transformers library has no class for {name_of(type(config))}; it has one for {', '.join(MODELS)}"

    def write(
        self, model: nn.Module, example: Arrays, signature: Signature, folder: Path, calibration: Arrays | None
    ) -> Written:
        from safetensors.torch import save_file

        require("transformers", "hub")
        inner: Any = model
        (text,) = (name for name, spec in signature.inputs.items() if spec.kind == "tokens")
        kind, told = type(model).__name__, {"text": text}
        if kind == "GPT":
            from luodi.models.naming.hugging_face import to_hugging_face

            try:
                config, tensors = to_hugging_face(inner)
            except ValueError as error:
                raise LuodiError(f"export to hugging_face: {error}") from error
        elif hasattr(inner, "network"):
            config, tensors = _of_the_library(inner.network)
        else:
            raise LuodiError(f"export to hugging_face: the transformers library has no class for {kind}")
        if kind == "PretrainedText":
            heads = {name: tensor.detach().contiguous() for name, tensor in inner.heads.state_dict().items()}
            save_file(heads, folder / HEADS, {"format": "pt"})
            told |= {"pooling": inner.pooling}
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        save_file(plain, folder / "model.safetensors", {"format": "pt"})
        outputs: dict[str, Json] = {name: list(spec.shape) for name, spec in signature.outputs.items()}
        return Written(arithmetic="float32", properties={**told, "architecture": kind, "outputs": outputs})

    def beside(self, task: Task, folder: Path) -> None:
        ((_, field),) = vars(task)["inputs"].items()
        language = name_of(type(task)) == "language"
        words, settings = field.published(prompts=language)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        ends = list(field.cutter.ends)
        marks = {"pad_token_id": field.cutter.pad, "eos_token_id": ends[0] if ends else None}
        marks["bos_token_id"] = next(iter(field.cutter.frame[0]), None)
        if language:
            config |= marks
            _write(
                folder / "generation_config.json", _generation(vars(task)["sampling"], {**marks, "eos_token_id": ends})
            )
        elif "num_labels" in config or config["architectures"][0].endswith("ForSequenceClassification"):
            ((_, target),) = vars(task)["targets"].items()
            config |= {"id2label": dict(enumerate(target.values)), "pad_token_id": field.cutter.pad}
            config |= {"label2id": {label: place for place, label in enumerate(target.values)}}
        _write(folder / "config.json", config)
        _write(folder / "tokenizer.json", words)
        _write(folder / "tokenizer_config.json", settings)

    def open(self, folder: Path, properties: Mapping[str, Json], threads: int) -> Forward:
        import torch

        transformers = require("transformers", "hub")
        architecture = json.loads((folder / "config.json").read_text(encoding="utf-8"))["architectures"][0]
        network = getattr(transformers, architecture).from_pretrained(
            str(folder), use_safetensors=True, local_files_only=True, dtype=torch.float32
        ).eval()  # fmt: skip
        answer = {"PretrainedText": _encoded, "PretrainedClassifier": _classified}.get(
            properties["architecture"], _continued
        )
        heads = _read(folder / HEADS) if (folder / HEADS).is_file() else {}

        def forward(arrays: Arrays) -> Arrays:
            with torch.inference_mode():
                batch = {name: torch.as_tensor(array) for name, array in arrays.items()}
                return {name: one.numpy() for name, one in answer(network, batch, properties, heads).items()}

        return forward


def _own_ways(said: Mapping[str, Any]) -> str | None:
    """What of a `gpt` neither GPT-2 nor Llama has."""
    wanted = {"learned": ("layer", False), "rotary": ("rms", True)}.get(said["positions"])
    if wanted is None:
        return f"positions: {said['positions']} has no counterpart in GPT-2 or Llama; learned and rotary have"
    if (said["norm"], said["gated"]) != wanted:
        norm, gated = wanted
        return f"with {said['positions']} positions transformers has norm: {norm} and gated: {str(gated).lower()} alone"
    if said["positions"] == "learned" and said["kv_heads"] not in (None, said["heads"]):
        return "kv_heads below heads have no counterpart in GPT-2; positions: rotary (Llama) have"
    return None


def _of_the_library(network: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(config, the tensors that its own class stores); LuodiError where layers were replaced: adapters, integers."""
    import torch

    with torch.device("meta"):
        fresh = type(network)(network.config)
    given = dict(network.state_dict(keep_vars=True))
    wanted = {name: tensor.shape for name, tensor in fresh.state_dict().items() if not name.startswith("pooler.")}
    odd = [name for name, shape in wanted.items() if name not in given or given[name].shape != shape]
    if odd:
        raise LuodiError(f"export to hugging_face: layers were replaced ({odd[0]}); merge adapters, and export floats")
    found: dict[int, tuple[str, Tensor]] = {}
    for name in wanted:  # tied tables are stored once, under their first name
        found.setdefault(id(given[name]), (name, given[name]))
    config = json.loads(network.config.to_json_string(use_diff=False))
    return {**config, "architectures": [type(network).__name__], "dtype": "float32"}, dict(found.values())


def _generation(sampling: Any, marks: dict[str, Any]) -> dict[str, Any]:
    """How a text goes on if nobody says otherwise: the task's rules, in the library's words."""
    drawn = {"temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p,
             "min_p": sampling.min_p or None}  # fmt: skip
    rules = {"do_sample": sampling.temperature > 0, "max_new_tokens": sampling.max_tokens or None,
             "repetition_penalty": sampling.repetition, **(drawn if sampling.temperature > 0 else {})}  # fmt: skip
    return {key: value for key, value in {**marks, **rules}.items() if value not in (None, [])}


def _continued(network: Any, batch: Mapping[str, Any], said: Mapping[str, Any], heads: Any) -> dict[str, Any]:
    from luodi.models.layers.remembered import remembered

    logits, new = remembered(network, batch[said["text"]], batch.get("past"), batch.get("start"))
    size = said["outputs"][said["text"]][-1]
    return {said["text"]: logits[..., :size], **({"new": new} if "past" in batch else {})}


def _classified(network: Any, batch: Mapping[str, Any], said: Mapping[str, Any], heads: Any) -> dict[str, Any]:
    (target,) = said["outputs"]
    return {target: network(input_ids=batch[said["text"]], attention_mask=batch[f"{said['text']}_mask"]).logits}


def _encoded(network: Any, batch: Mapping[str, Any], said: Mapping[str, Any], heads: Any) -> dict[str, Any]:
    """The encoder by transformers, then pooling and heads as `pretrained_text` has them."""
    from torch.nn.functional import linear

    from luodi.models.layers.words import mean_of

    mask = batch[f"{said['text']}_mask"]
    states = network(input_ids=batch[said["text"]], attention_mask=mask).last_hidden_state
    pooled = mean_of(states, mask) if said["pooling"] == "mean" else states[:, 0]
    names = sorted(said["outputs"])
    return {
        name: linear(pooled, heads[f"layers.{place}.weight"], heads[f"layers.{place}.bias"]).unflatten(
            1, said["outputs"][name]
        )
        for place, name in enumerate(names)
    }


def _read(path: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(path)


def _write(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
