"""What a body of OpenAI's API asks, as requests of the bundle's task; what cannot be done is refused."""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from luodi.serve.refusal import Refusal

MOST_TEXTS = 64  # of one call
OTHER_NAMES = {"max_completion_tokens": "max_tokens", "repetition_penalty": "repetition"}
# What is taken and changes nothing.
IDLE = ("user", "metadata", "store", "safety_identifier", "prompt_cache_key", "service_tier", "parallel_tool_calls")
# Name -> the values that ask for nothing, and why others are refused.
ONLY: dict[str, tuple[tuple[Any, ...], str]] = {
    "n": ((1,), "one text a prompt is written; ask again with another seed"),
    "best_of": ((1,), "one text a prompt is written"),
    "logprobs": ((False,), "probabilities of tokens are not kept"),
    "top_logprobs": ((), "probabilities of tokens are not kept"),
    "logit_bias": (({},), "the chances of single tokens cannot be changed"),
    "presence_penalty": ((0,), "use `repetition`, above 1: tokens that are there become rarer"),
    "frequency_penalty": ((0,), "use `repetition`, above 1: tokens that are there become rarer"),
    "echo": ((False,), "the answer is what was written, without the prompt"),
    "suffix": (("",), "a text is written on, not in between"),
    "tools": (([],), "this bundle calls no tools"),
    "tool_choice": (("none", "auto"), "this bundle calls no tools"),
    "functions": (([],), "this bundle calls no functions"),
    "function_call": (("none", "auto"), "this bundle calls no functions"),
    "response_format": (({"type": "text"},), "what is written is text"),
    "modalities": ((["text"],), "what is written is text"),
    "audio": ((), "what is written is text"),
}


@dataclass(frozen=True)
class Options:
    """A body that was understood: the task's requests on the wire, and how the answer is to be sent."""

    wires: list[dict[str, Any]]
    streamed: bool
    usage: bool  # a streamed answer ends with the counts


def parsed(body: bytes) -> dict[str, Any]:
    """The body's object; raises a 400."""
    try:
        value = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise Refusal(400, "the body is no JSON object")
    return {key: part for key, part in value.items() if part is not None}  # null: the default


def for_model(value: dict[str, Any], name: str) -> dict[str, Any]:
    """The body without its `model`; raises a 404 if that is another one."""
    asked = value.pop("model", None)
    if asked is None:
        raise Refusal(400, f"`model` is missing: this server has {name!r}", column="model")
    if asked != name:
        told = f"the model {asked!r} does not exist: this server has {name!r}"
        raise Refusal(404, told, column="model", extra={"code": "model_not_found"})
    return value


def options(value: dict[str, Any], column: str, rules: Collection[str], *, chat: bool) -> Options:
    """The options of a completion; `rules` are the task's own, `column` is the text's."""
    given = "messages" if chat else "prompt"
    if given not in value:
        raise Refusal(400, f"`{given}` is missing", column=given)
    asked = value.pop(given)
    streamed, usage = _streaming(value)
    settings = _settings(value, rules)
    if chat:
        inputs: list[dict[str, Any]] = [{"messages": _turns(asked)}]
    else:
        inputs = [{column: prompt} for prompt in texts_of(asked, "prompt")]
    return Options([{**one, **settings} for one in inputs], streamed, usage)


def _streaming(value: dict[str, Any]) -> tuple[bool, bool]:
    streamed, more = value.pop("stream", False), value.pop("stream_options", {})
    if not isinstance(streamed, bool):
        raise Refusal(400, "`stream` is true or false", column="stream")
    if not isinstance(more, Mapping) or (more and not streamed):
        raise Refusal(400, "`stream_options` is an object, and there only if `stream` is true", column="stream_options")
    return streamed, more.get("include_usage") is True


def _settings(value: dict[str, Any], rules: Collection[str]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for key, part in value.items():
        name = OTHER_NAMES.get(key, key)
        if key in IDLE:
            continue
        if name in rules:
            settings[name] = [part] if name == "stop" and isinstance(part, str) else part
        elif key not in ONLY:
            known = ", ".join(sorted(rules))
            raise Refusal(400, f"unknown option `{key}`; of sampling there are {known}", column=key)
        elif not any(part == idle and isinstance(part, bool) == isinstance(idle, bool) for idle in ONLY[key][0]):
            raise Refusal(400, f"`{key}` {_short(part)} is not supported: {ONLY[key][1]}", column=key)
    # Who gives no seed wants another text each time; the bundle's own seed would give the same one.
    return {"seed": secrets.randbits(62), **settings} if "seed" in rules else settings


def texts_of(asked: Any, key: str) -> list[str]:
    """One text or several, under the key `key` of the body; raises a 400 for anything else."""
    texts = [asked] if isinstance(asked, str) else asked
    if not isinstance(texts, list) or not texts or not all(isinstance(one, str) for one in texts):
        raise Refusal(400, f"`{key}` is a text, or a list of texts (not of tokens)", column=key)
    if len(texts) > MOST_TEXTS:
        raise Refusal(400, f"{len(texts)} texts in one call; at most {MOST_TEXTS}", column=key)
    return texts


def _turns(asked: Any) -> list[dict[str, Any]]:
    """Role and content of each turn; a content in parts is joined."""
    if not isinstance(asked, list):
        raise Refusal(400, "`messages` is a list of objects with role and content", column="messages")
    found = []
    for at, turn in enumerate(asked):
        if not isinstance(turn, dict) or not {"role", "content"} <= set(turn):
            raise Refusal(400, f"turn {at} is no object with role and content", column="messages")
        odd = next(
            (key for key in turn if key not in ("role", "content", "name") and turn[key] not in (None, [])), None
        )
        if odd is not None:
            raise Refusal(400, f"turn {at}: `{odd}` is not supported", column="messages")
        role = "system" if turn["role"] == "developer" else turn["role"]
        found.append({"role": role, "content": _content(turn["content"], at)})
    return found


def _content(content: Any, at: int) -> Any:
    if not isinstance(content, list):
        return content
    parts = [part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in content]
    if not all(isinstance(part, str) for part in parts):
        raise Refusal(400, f"turn {at}: only parts of the type text are read", column="messages")
    return "".join(map(str, parts))


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
