"""The network of a model folder as one of our models: its config, and its tensors by our names."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from luodi.core.catalog import name_of, require
from luodi.core.errors import LuodiError, nearest
from luodi.core.thing import ModelConfig, make
from luodi.data.pretraining.folder import Folder, network_of, plain

if TYPE_CHECKING:
    from torch import Tensor

TEXT, LANGUAGE, OWN = "pretrained_text", "pretrained_language", "gpt"
TABLES = ("embedding_bag", "bilstm")  # our models that begin with a table of tokens: of a network they take its table


def config_of(folder: Folder, given: ModelConfig | None, *, language: bool) -> ModelConfig:
    """The model config for this folder; what the recipe's own model says besides (pooling, dropout) is kept."""
    if given is not None and not language and name_of(type(given)) in TABLES:
        return _as_wide(folder, given)
    name, fields = _language(folder) if language else (TEXT, _encoder_fields(folder))
    if given is not None:
        said = name_of(type(given))
        if said not in ((LANGUAGE, OWN) if language else (TEXT,)):
            raise LuodiError(f"{folder.source} becomes the model {name}, not {said}: leave the recipe's model out")
        if said == LANGUAGE and name == OWN:  # the library's own layers were asked for
            name, fields = LANGUAGE, _fields(folder, folder.architecture)
        if said == name:
            kept = {key: getattr(given, key) for key in given.model_fields_set}
            fields |= {key: value for key, value in kept.items() if key not in ("architecture", "config")}
    made = make("models", {name: fields})
    assert isinstance(made, ModelConfig)
    return made


def tensors_of(folder: Folder, config: ModelConfig, size: int) -> dict[str, Tensor]:
    """The folder's tensors by the names of our model, which knows `size` tokens; of TABLES the table."""
    if name_of(type(config)) == OWN:
        return _own_tensors(folder, size)
    if name_of(type(config)) in TABLES:
        return _table(folder, size)
    architecture = vars(config)["architecture"]
    kind: Any = getattr(require("transformers", "hub"), architecture)
    network, _ = network_of(kind, folder.path, ("pooler",), **_bare(kind))
    held = {**dict(network.named_parameters(remove_duplicate=False)), **dict(network.named_buffers())}
    return {f"network.{name}": tensor.detach() for name, tensor in held.items()}


def whole_config(folder: Folder, kind: Any) -> dict[str, Any]:
    """config.json with the defaults of its class filled in."""
    try:
        known = kind.config_class.from_dict(dict(folder.config))
    except (TypeError, ValueError, KeyError) as error:
        raise LuodiError(f"{folder.source}: transformers cannot read its config.json: {error}") from error
    return json.loads(known.to_json_string(use_diff=False))


def _fields(folder: Folder, architecture: str) -> dict[str, Any]:
    kind = getattr(require("transformers", "hub"), architecture)
    return {"architecture": architecture, "config": plain(whole_config(folder, kind))}


def _encoder_fields(folder: Folder) -> dict[str, Any]:
    """The base class of the folder's kind, whatever head it was saved with."""
    require("transformers", "hub")
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES as KNOWN

    kind = folder.config.get("model_type")
    if kind not in KNOWN:
        raise LuodiError(
            f"{folder.source}: transformers has no encoder of the kind {kind!r}; {nearest(str(kind), KNOWN)}"
        )
    if folder.config.get("is_encoder_decoder"):
        raise LuodiError(f"{folder.source} holds an encoder and a decoder ({kind}); a text classifier takes an encoder")
    base: Any = KNOWN[kind]
    return _fields(folder, base if isinstance(base, str) else base[0])


def _as_wide(folder: Folder, given: ModelConfig) -> ModelConfig:
    """The recipe's own model, its table as wide as the network's."""
    width = _width(folder)
    if "width" in given.model_fields_set and vars(given)["width"] != width:
        raise LuodiError(f"the tokens of {folder.source} are {width} numbers wide, not {vars(given)['width']}")
    return given.model_copy(update={"width": width})


def _width(folder: Folder) -> int:
    kind = getattr(require("transformers", "hub"), _encoder_fields(folder)["architecture"])
    return int(kind.config_class.from_dict(dict(folder.config)).hidden_size)


def _table(folder: Folder, size: int) -> dict[str, Tensor]:
    """The rows of the encoder's tokens, as the first table of our model."""
    architecture = _encoder_fields(folder)["architecture"]
    kind: Any = getattr(require("transformers", "hub"), architecture)
    network, _ = network_of(kind, folder.path, ("pooler",), **_bare(kind))
    rows = network.get_input_embeddings().weight.detach()
    if len(rows) < size:
        raise LuodiError(f"{folder.source}: the tokenizer has {size} tokens, the model knows {len(rows)}")
    return {"tables.0.weight": rows[:size]}


def _bare(kind: Any) -> dict[str, Any]:
    """Without the pooler, a layer that only the library's own heads use."""
    return {"add_pooling_layer": False} if "add_pooling_layer" in inspect.signature(kind.__init__).parameters else {}


def _language(folder: Folder) -> tuple[str, dict[str, Any]]:
    """(our model's name, its fields): `gpt` where it has all that the architecture has."""
    transformers = require("transformers", "hub")
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as KNOWN

    known = {name for one in KNOWN.values() for name in ((one,) if isinstance(one, str) else one)}
    architecture = folder.architecture or KNOWN.get(folder.config.get("model_type", ""), "")
    if architecture not in known:
        raise LuodiError(
            f"{folder.source} holds {architecture or 'no named architecture'}, which is no causal language model; "
            f"{nearest(architecture, known)}"
        )
    from luodi.models.naming.hugging_face import figures_of

    whole = {**whole_config(folder, getattr(transformers, architecture)), "architectures": [architecture]}
    try:
        return OWN, figures_of(whole)
    except ValueError:  # another architecture, or a setting of these two that our layers do not have
        return LANGUAGE, _fields(folder, architecture)


def _own_tensors(folder: Folder, size: int) -> dict[str, Tensor]:
    """As `gpt` names them; rows of a padded vocabulary that no token has are left off."""
    from safetensors.torch import load_file

    from luodi.models.naming.hugging_face import from_hugging_face

    transformers = require("transformers", "hub")
    stored: dict[str, Tensor] = {}
    for path in sorted(folder.path.glob("*.safetensors")):
        stored |= load_file(path)
    architecture = folder.architecture
    whole: Mapping[str, Any] = whole_config(folder, getattr(transformers, architecture))
    try:
        _, found = from_hugging_face({**whole, "architectures": [architecture]}, stored)
    except ValueError as error:
        raise LuodiError(f"{folder.source}: {error}") from error
    tables = [name for name in found if name.endswith(("tokens.weight", "heads.weight"))]
    for name in tables:
        if len(found[name]) < size:
            raise LuodiError(f"{folder.source}: the tokenizer has {size} tokens, the model knows {len(found[name])}")
    return {name: (tensor[:size] if name in tables else tensor).float() for name, tensor in found.items()}
