"""Weights that were trained elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import model_validator

from luodi.core import store
from luodi.core.catalog import name_of
from luodi.core.errors import LuodiError, nearest
from luodi.core.step import Step
from luodi.core.thing import ModelConfig
from luodi.data.pretraining import bundles, folder, networks, tokens
from luodi.data.pretraining.filling import filled
from luodi.data.pretraining.kinds import OWNED, kind_of
from luodi.data.samples.networks import NETWORKS, folder_of, kept_folder, not_agreed, terms_of
from luodi.data.samples.weights import WEIGHTS, tensors_of

if TYPE_CHECKING:
    from torch import Tensor

    from luodi.core.bundle import Bundle
    from luodi.core.run import Run
    from luodi.core.task import Task


class Pretrained(Step):
    """Puts weights that were trained elsewhere into a fresh model; its last layers start anew.

    `weights` is the name of published ones, fetched once into the cache with their SHA-256 checked; the path of a
    bundle; a model folder of transformers (safetensors alone); or owner/model on the hub. The last three give the model
    too, if the recipe names none. Text fields with `tokens: pretrained` get the tokenizer that belongs to the weights.
    Of a bundle every tensor of the same name and shape is taken, the heads stay as they were drawn; a language model is
    taken whole; embedding_bag and bilstm take the table of tokens alone. Published weights with terms of their own are
    refused, before anything is fetched, until `accept` names these. Raises LuodiError if less than half of the network
    is there.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"split"})
    gives: ClassVar[frozenset[str]] = frozenset({"model", "float", "fitted"})
    excludes: ClassVar[frozenset[str]] = frozenset({"model"})

    weights: str  # efficientnet_lite0, minilm_l6, gemma3_270m..., the path of a bundle or a folder, or owner/model
    accept: str | None = None  # the terms that you agree to: gemma (`luodi plan` shows them)
    digest: str | None = None  # of a bundle or folder, written down when the recipe is read; a commit of the hub

    @model_validator(mode="before")
    @classmethod
    def _pinned(cls, given: Any) -> Any:
        path = given.get("weights") if isinstance(given, dict) else None
        if path in OWNED and not Path(path).exists():
            given = {**given, "weights": OWNED[path]}
        if not isinstance(path, str) or given.get("digest") is not None:
            return given
        kind = kind_of(path)
        if kind == "bundle":
            return {**given, "digest": store.peek(Path(path))["digest"]}
        return {**given, "digest": folder.digest_of(Path(path))} if kind == "folder" else given

    def packages(self) -> Mapping[str, str]:
        texts = kind_of(self.weights) in ("network", "folder", "hub")
        return {"transformers": "hub", "tokenizers": "text"} if texts else {}

    def objection(self, task: Task, config: ModelConfig | None) -> str | None:
        kind = kind_of(self.weights)
        if refusal := self.not_agreed():
            return refusal
        name = name_of(type(config)) if config is not None else None
        if kind in ("network", "folder", "hub"):
            language = _is_language(task)
            fits = (networks.OWN, networks.LANGUAGE) if language else (*networks.TABLES, networks.TEXT)
            if not any(vars(one).get("tokens") == "pretrained" for one in (vars(task).get("inputs") or {}).values()):
                return f"{self.weights} reads texts in tokens of its own: no input is a text with tokens: pretrained"
            return None if name in (None, *fits) else f"{self.weights} goes into the model {fits[-1]}, not into {name}"
        if kind != "published":
            return None
        known = WEIGHTS[self.weights]
        if name is None:
            return f"{self.weights} goes into a model: give the recipe model: {known.model}"
        return None if name == known.model else f"{self.weights} goes into the model {known.model}, not into {name}"

    def not_agreed(self) -> str | None:
        """Why these weights are not to be had yet: nobody has agreed to their terms."""
        if self.weights in NETWORKS:
            return not_agreed(self.weights, self.accept)
        return f"{self.weights} has no terms to accept; leave `accept` out" if self.accept else None

    def cautions(self, device: str) -> tuple[str, ...]:
        known = NETWORKS.get(self.weights)
        if known is None:
            return ()
        about = f"{known.summary}; {known.size_mb:g} MB are fetched unless they are in the cache; {known.licence}"
        return (about, *([known.terms] if known.terms and self.not_agreed() is None else []))

    def foresee(self, task: Task, config: ModelConfig | None, cache: Path) -> tuple[Task, ModelConfig | None] | None:
        kind = kind_of(self.weights)
        if kind == "bundle":
            donor, theirs = bundles.told(self.weights)
            return bundles.with_its_tokens(task, donor, self.weights), config or theirs
        if kind in ("published", "unknown"):
            return task, config
        found = self.kept(cache)
        if found is None:
            return None
        whole = tokens.with_tokens(task, tokens.tokens_of(found), self.weights)
        return whole, networks.config_of(found, config, language=_is_language(task))

    def kept(self, cache: Path) -> folder.Folder | None:
        """The folder of a network if it is here; nothing is fetched."""
        path = kept_folder(self.weights, cache) if kind_of(self.weights) == "network" else Path(self.weights)
        return None if path is None or not path.is_dir() else folder.opened(str(path))

    def __call__(self, bundle: Bundle, run: Run) -> Bundle:
        if kind_of(self.weights) in ("network", "folder", "hub"):
            return self._from_folder(bundle, run)
        donor, tensors = self._donor(run)
        if donor is not None:
            task = bundles.with_its_tokens(bundle.task, donor.task, self.weights)
            bundle = bundle.replace(task=task, config=bundle.config or donor.config)
        bundle = bundle.ready(run)
        theirs = self._pictures(donor)
        for name, odd in bundles.odd_pictures(bundle.task, theirs).items():
            run.log("note", {"text": f"{name} is encoded as {odd}; these weights were trained on {theirs}"})
        facts = bundle.facts | (donor.facts & {"exposed", "private"} if donor is not None else frozenset())
        return self._filled(bundle.replace(facts=facts), tensors)

    def _from_folder(self, bundle: Bundle, run: Run) -> Bundle:
        """The tokens, the config and the weights of a model folder."""
        found, language = self.fetched(run), _is_language(bundle.task)
        task = tokens.with_tokens(bundle.task, tokens.tokens_of(found), self.weights)
        config = networks.config_of(found, bundle.config, language=language)
        bundle = bundle.replace(task=task, config=config).ready(run)
        size = max(spec.size for spec in bundle.task.inputs_specs().values())
        done = self._filled(bundle, networks.tensors_of(found, config, size))
        told = [*folder.dtype_note(found.path), *([f"commit {found.revision}"] if found.revision else [])]
        done = done.noting(model=name_of(type(config)), architecture=found.architecture, **self.terms())
        return done.noting(told=told) if told else done

    def terms(self) -> dict[str, str]:
        """{"terms": what whoever is given the bundle has to be told}, or nothing."""
        told = terms_of(self.weights) if self.weights in NETWORKS else ""
        return {"terms": told} if told else {}

    def fetched(self, run: Run) -> folder.Folder:
        """The folder, fetched if need be; raises LuodiError if nobody agreed to its terms, or if it changed."""
        kind = kind_of(self.weights)
        if refusal := self.not_agreed():
            raise LuodiError(refusal)
        if kind == "network":
            return folder.opened(str(folder_of(self.weights, run.cache)))
        if kind == "hub":
            return folder.opened(self.weights, revision=self.digest)
        now = folder.digest_of(Path(self.weights))
        if self.digest not in (None, now):
            raise LuodiError(f"{self.weights} has other files now ({now[:12]}, not {self.digest[:12]})")
        return folder.opened(self.weights)

    def _filled(self, bundle: Bundle, tensors: Mapping[str, Tensor]) -> Bundle:
        assert bundle.model is not None
        whole = _is_language(bundle.task)
        taken, left = filled(bundle.model, tensors, heads=whole)
        numbers = {name: tensor.numel() for name, tensor in bundle.model.state_dict().items()}
        share = sum(numbers[name] for name in taken) / max(sum(numbers.values()), 1)
        table = name_of(type(bundle.config)) in networks.TABLES
        lent = table and len(taken) == len(tensors)  # a table was all there is
        if (share < 0.5 and not lent) or (whole and left):
            raise LuodiError(
                f"{self.weights} has {len(taken)} of the model's {len(numbers)} tensors, {share:.0%} "
                f"of its numbers; it lacks {', '.join(left[:4])}"
            )
        return bundle.noting(taken=len(taken), share=share, fresh=left)

    def _donor(self, run: Run) -> tuple[Bundle | None, Mapping[str, Tensor]]:
        """The bundle that the weights are of, None for published ones, and the tensors by name."""
        if self.weights in WEIGHTS:
            return None, tensors_of(self.weights, run.cache)
        if not bundles.is_bundle(self.weights):
            raise LuodiError(
                f"{self.weights!r} is no bundle and no folder; {nearest(self.weights, [*WEIGHTS, *NETWORKS])}"
            )
        donor = bundles.opened(self.weights, self.digest, run.device)
        assert donor.model is not None
        return donor, donor.model.state_dict()

    def _pictures(self, donor: Bundle | None) -> dict[str, Any]:
        """Mean and deviation of the pictures' channels that the weights were trained with."""
        if donor is None:
            known = WEIGHTS[self.weights]
            return {"mean": known.mean, "std": known.std}
        found = list(bundles.pictures_of(donor.task).values())
        return found[0] if found else {}


def _is_language(task: Task) -> bool:
    return name_of(type(task)) == "language"
