"""Chains of steps that a search may try: what steps and runtimes offer, in an order that the facts allow."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from luodi.core import catalog, check
from luodi.core.step import Step
from luodi.core.thing import dump, make

if TYPE_CHECKING:
    from luodi.core.bundle import Bundle


@dataclass(frozen=True)
class Chain:
    """Steps one after the other; a form, if there is one, is written by the last."""

    steps: tuple[Step, ...] = ()

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """Each step in words: its name, and what differs from its defaults."""
        return tuple(map(part, self.steps))

    @property
    def name(self) -> str:
        return ", ".join(self.parts) or "as it is"

    @cached_property
    def key(self) -> str:
        """The same for the same steps with the same fields."""
        text = json.dumps([dump(step) for step in self.steps], sort_keys=True)
        return sha256(text.encode()).hexdigest()[:16]

    @property
    def before(self) -> Chain:
        """The chain without its last step."""
        return Chain(self.steps[:-1])


def part(step: Step) -> str:
    """`export to=openvino activations=int8`; steps in a step: `channels recover=[train epochs=1]`."""
    return _named(dump(step, short=True))


def _named(said: Any) -> str:
    if not isinstance(said, dict):
        return str(said)
    ((name, fields),) = said.items()
    return " ".join([name, *(f"{key}={_short(value)}" for key, value in fields.items())])


def _short(value: Any) -> str:
    if isinstance(value, list) and value and all(isinstance(one, dict) and len(one) == 1 for one in value):
        return f"[{', '.join(map(_named, value))}]"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def offered(device: str) -> tuple[list[Step], list[str]]:
    """Every step that can be tried on this device, and what is left out for want of a package."""
    found: list[Step] = []
    lacking: list[str] = []
    for name in catalog.entries("steps"):
        kind: type[Step] = catalog.load("steps", name)
        for fields in kind.offers():
            step: Any = make("steps", {name: dict(fields)})
            missing = catalog.missing(step.packages())
            if missing:
                lacking.append(f"{part(step)} (pip install 'luodi[{','.join(missing)}]')")
            elif step.lacks(device) is None:
                found.append(step)
    return found, lacking


def chains(bundle: Bundle, steps: Iterable[Step], most: int) -> list[Chain]:
    """Every chain of at most `most` steps on the model and one form, each set of steps in one order: of the names'
    alphabetical orders the first that the facts allow. The chain without steps is the first."""
    have = bundle.facts | bundle.task.gives
    found: dict[frozenset[str], Chain] = {}
    for chain in _grown(bundle, tuple(steps), Chain(), have, most):
        found.setdefault(frozenset(chain.parts), chain)
    return list(found.values())


def _grown(bundle: Bundle, steps: tuple[Step, ...], chain: Chain, have: frozenset[str], most: int) -> Iterator[Chain]:
    yield chain
    if chain.steps and "forms" in chain.steps[-1].facts(have).gives:
        return
    for step in steps:
        ends = "forms" in step.facts(have).gives
        if not ends and len(chain.steps) == most:
            continue
        if any(type(step) is type(one) for one in chain.steps):
            continue
        if check.problem(step, have, bundle.task, bundle.config, "") is None:
            facts = step.facts(have)
            after = (have - facts.ends) | facts.gives
            yield from _grown(bundle, steps, Chain((*chain.steps, step)), after, most)
