"""Networks of the transformers library by the name of their class: only what its own lists hold is reached."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

# What keys of a config hold that fetch or run something else than the named architecture: the way in which attention
# is computed may be the name of code on a hub, so it is left to the library's default.
FOREIGN = ("auto_map", "attn_implementation", "quantization_config", "pretrained_backbone", "timm_backbone")


def refuse_foreign(config: Mapping[str, Any], who: str) -> None:
    """Raises ValueError if a config names code or weights that lie elsewhere."""
    refused = sorted(key for key in _keys(config) if any(word in key for word in FOREIGN))
    if refused:
        raise ValueError(f"{who}: the config may not hold {', '.join(refused)}")


def named(architecture: str | None, config: dict[str, Any] | None, who: str) -> tuple[str, dict[str, Any]]:
    """Both of them; ValueError unless both are there."""
    if architecture is None or config is None:
        raise ValueError(f"{who} needs an architecture and a config: put the step `pretrained` first, which knows them")
    return architecture, config


def built(architecture: str, known: Mapping[str, Any], what: str) -> Any:
    """The class of that name; ValueError unless the library's list of such classes holds it."""
    import transformers

    names = {name for given in known.values() for name in ((given,) if isinstance(given, str) else given)}
    if architecture not in names:
        raise ValueError(f"{architecture!r} is no {what} of transformers")
    return getattr(transformers, architecture)


def _keys(config: Any) -> Iterator[str]:
    """The keys of a config and of the configs inside it, where they are set to something."""
    for key, value in config.items() if isinstance(config, dict) else ():
        if value:
            yield key
        yield from _keys(value)
