"""A bundle on disk: safetensors and JSON, hashed, written aside and renamed, opened without running its code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

import luodi
from luodi.core import atomic, catalog, parity
from luodi.core.asset import assets_of
from luodi.core.bundle import Bundle, Edit, Golden
from luodi.core.errors import Damaged, LuodiError, nearest
from luodi.core.evidence import Evidence
from luodi.core.form import Form
from luodi.core.source import Data, Origin
from luodi.core.step import NOT_STORED
from luodi.core.thing import Trust, dump, make, own_hashes

FORMAT = 1
NOT_IN_DIGEST = ("evidence/", "training/", "card.md", "weights.index")


def save(bundle: Bundle, path: Path, *, card: str | None = None) -> Path:
    """Writes the whole folder aside and renames it into place."""
    return atomic.write_folder(path, lambda folder: _write(bundle, folder, card))


def settle(bundle: Bundle, path: Path) -> Bundle:
    """The same bundle with its forms' files where they were saved."""
    forms = {name: form.model_copy(update={"folder": path / "forms" / name}) for name, form in bundle.forms.items()}
    return replace(bundle, forms=forms)


def add(path: Path, evidence: tuple[Evidence, ...] | None = None, card: str | None = None) -> Path:
    """Gives a saved bundle other evidence or another card; its other files are linked, its digest stays."""
    head = peek(path)
    path = located(atomic.mended(path))

    def fill(folder: Path) -> None:
        for name in head["sha256"]:
            replaced = (evidence is not None and name.startswith("evidence/")) or (
                card is not None and name == "card.md"
            )
            if not replaced:
                atomic.link_or_copy(path / name, folder / name)
        _write_extras(folder, evidence if evidence is not None else (), card, write_evidence=evidence is not None)
        _seal(folder, {key: value for key, value in head.items() if key not in ("sha256", "digest", "seal")})

    return atomic.write_folder(path, fill)


def _write(bundle: Bundle, folder: Path, card: str | None) -> None:
    from luodi.core.weights import save_weights

    aliases: dict[str, str] = {}
    if bundle.model is not None:
        aliases = save_weights(bundle.model, folder / "weights.safetensors")
    for name, form in bundle.forms.items():
        for file in sorted(p for p in form.folder.rglob("*") if p.is_file()):
            atomic.link_or_copy(file, folder / "forms" / name / file.relative_to(form.folder))
    if bundle.golden is not None:
        _write_golden(bundle.golden, folder / "golden")
    for asset in assets_of([bundle.task, bundle.config, [edit.step for edit in bundle.edits]]):
        asset.keep(folder / "assets")
    for name, part in bundle.parts.items():
        save(part, folder / "parts" / name)
    _write_extras(folder, bundle.evidence, card)
    _seal(folder, _head(bundle, aliases))


def _write_extras(
    folder: Path, evidence: tuple[Evidence, ...], card: str | None, *, write_evidence: bool = True
) -> None:
    if write_evidence:
        (folder / "evidence").mkdir(exist_ok=True)
        text = "[" + ",\n".join(one.model_dump_json() for one in evidence) + "]\n"
        (folder / "evidence" / "evidence.json").write_text(text, encoding="utf-8")
    if card is not None:
        (folder / "card.md").write_text(card, encoding="utf-8")


def _write_golden(golden: Golden, folder: Path) -> None:
    folder.mkdir()
    lines = "".join(json.dumps(request, ensure_ascii=False) + "\n" for request in golden.requests)
    (folder / "requests.jsonl").write_text(lines, encoding="utf-8")
    (folder / "answers.json").write_text(json.dumps(golden.answers, ensure_ascii=False), encoding="utf-8")
    save_file(
        {name: np.ascontiguousarray(array) for name, array in golden.arrays.items()}, folder / "arrays.safetensors"
    )
    for form, outputs in golden.outputs.items():
        save_file(
            {name: np.ascontiguousarray(array) for name, array in outputs.items()}, folder / f"{form}.safetensors"
        )


def _head(bundle: Bundle, aliases: Mapping[str, str]) -> dict[str, Any]:
    """Everything of a bundle that is JSON, every field of every thing written out."""
    own = own_hashes([bundle.task, bundle.config, [edit.step for edit in bundle.edits]])
    own |= {form.kind: catalog.source_sha(form.kind) for form in bundle.forms.values() if ":" in form.kind}
    return {
        "format": FORMAT,
        "luodi": luodi.__version__,
        "task": dump(bundle.task),
        "config": dump(bundle.config) if bundle.config is not None else None,
        "edits": [
            {"step": dump(e.step), "version": e.version, "plan": dict(e.plan), "packages": dict(e.packages)}
            for e in bundle.edits
        ],
        "forms": {name: {**json.loads(form.model_dump_json()), "folder": name} for name, form in bundle.forms.items()},
        "serving": bundle.serving,
        "facts": sorted(bundle.facts - NOT_STORED),
        "parts": sorted(bundle.parts),
        "aliases": dict(aliases),
        "adopted": dict(bundle.adopted),
        "own": own,
        "origin": asdict(bundle.data.origin) if bundle.data is not None and bundle.data.origin is not None else None,
    }


def _seal(folder: Path, head: dict[str, Any]) -> None:
    """Adds the hashes of all files, the digest of what the bundle is, and the seal over the manifest itself."""
    files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    hashes = {name: atomic.file_sha(folder / name) for name in files if name != "bundle.json"}
    whole = {**head, "sha256": hashes, "digest": _digest(head, hashes)}
    whole["seal"] = sha256(_canonical(whole).encode()).hexdigest()
    atomic.write_text(folder / "bundle.json", json.dumps(whole, ensure_ascii=False, indent=1) + "\n")


def _digest(head: Mapping[str, Any], hashes: Mapping[str, str]) -> str:
    is_part = {name: sha for name, sha in hashes.items() if not name.startswith(NOT_IN_DIGEST)}
    keys = ("task", "config", "edits", "forms", "serving", "parts", "aliases")
    return sha256(_canonical([{key: head[key] for key in keys}, is_part]).encode()).hexdigest()


def _canonical(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def located(path: Path) -> Path:
    """The bundle's folder: the path itself, the bundle of a run folder, or the old version after a kill."""
    for candidate in (path, path / "bundle"):
        found = atomic.present(candidate)
        if found is not None and (found / "bundle.json").is_file():
            return found
    raise LuodiError(f"{path} is no bundle (a folder with bundle.json); `luodi list runs` shows what there is")


def peek(path: Path) -> dict[str, Any]:
    """bundle.json, its seal and format checked; no other file is read."""
    path = located(path)
    try:
        head = json.loads((path / "bundle.json").read_text(encoding="utf-8"))
        written = int(head["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{path}/bundle.json is damaged: {error!r}") from error
    if written > FORMAT:
        raise Damaged(
            f"{path} was written by luodi {head.get('luodi')} in format {written}; "
            f"this is luodi {luodi.__version__}, which reads up to format {FORMAT}: pip install --upgrade luodi"
        )
    seal = head.pop("seal", None)
    if sha256(_canonical(head).encode()).hexdigest() != seal:
        raise Damaged(f"{path}/bundle.json was changed after it was written (its seal does not fit)")
    names = [*head["sha256"], *(f"forms/{form['folder']}" for form in head["forms"].values()), *head["parts"]]
    outside = [name for name in names if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts]
    if outside:
        raise Damaged(f"{path}/bundle.json names files outside the bundle: {', '.join(outside[:3])}")
    return head


def verify(path: Path, head: Mapping[str, Any]) -> None:
    """Compares the SHA-256 of every listed file, also of those not opened; raises Damaged with the file's name."""
    for name, wanted in head["sha256"].items():
        file = path / name
        if not file.is_file():
            raise Damaged(f"{file} is missing")
        if atomic.file_sha(file) != wanted:
            raise Damaged(f"{file} was changed after the bundle was written (SHA-256 differs from bundle.json)")


def load(
    path: Path, *, form: str | None = None, check: bool = True, trust: tuple[str, ...] = (), device: str = "cpu"
) -> Bundle:
    """See Bundle.load; `form="serving"` stands for the form that the bundle serves."""
    path = located(path)
    head = peek(path)
    form = head["serving"] if form == "serving" else form
    known = [*head["forms"], *(["torch"] if "weights.safetensors" in head["sha256"] else [])]
    if form is not None and form not in known:
        raise LuodiError(f"{path} has no form {form!r}; {nearest(form, known)}")
    with_torch = form in (None, "torch") and "weights.safetensors" in head["sha256"]
    verify(path, head)
    bundle = _read(path, head, Trust(tuple(trust), head["own"]))
    if with_torch:
        bundle = replace(bundle, model=_rebuild(bundle, head, path, device))
    if check and bundle.golden is not None:
        parity.check(bundle, (form,) if form else parity.replayable(bundle), where=str(path))
    return bundle


def _read(path: Path, head: Mapping[str, Any], trust: Trust) -> Bundle:
    was: Any = head["origin"]
    origin = Origin(was["source"], was["fingerprint"], tuple(was["steps"]), was["most"], was["own"]) if was else None
    evidence = json.loads((path / "evidence" / "evidence.json").read_text(encoding="utf-8"))
    config: Any = make("models", head["config"], trust) if head["config"] is not None else None
    task: Any = make("tasks", head["task"], trust)
    edits = tuple(_read_edit(edit, trust) for edit in head["edits"])
    for asset in assets_of([task, config, [edit.step for edit in edits]]):
        asset.found(path / "assets")
    for form in head["forms"].values():
        if ":" in form["kind"]:
            trust.check(form["kind"])
    return Bundle(
        task=task,
        config=config,
        parts={name: load(path / "parts" / name, trust=trust.names) for name in head["parts"]},
        data=Data({}, origin) if origin else None,
        edits=edits,
        forms={
            name: Form.model_validate({**form, "folder": path / "forms" / form["folder"]})
            for name, form in head["forms"].items()
        },
        serving=head["serving"],
        facts=frozenset(head["facts"]),
        golden=_read_golden(path / "golden") if (path / "golden").is_dir() else None,
        evidence=tuple(Evidence.model_validate(one) for one in evidence),
        adopted=head.get("adopted", {}),
    )


def _read_edit(edit: Mapping[str, Any], trust: Trust) -> Edit:
    step: Any = make("steps", edit["step"], trust)
    if step.version != edit["version"]:
        raise Damaged(
            f"an edit was made by version {edit['version']} of {next(iter(edit['step']))}, this luodi has version "
            f"{step.version}; open it with the luodi that wrote it (see bundle.json)"
        )
    return Edit(step, edit["plan"], edit["version"], edit["packages"])


def _read_golden(folder: Path) -> Golden:
    lines = (folder / "requests.jsonl").read_text(encoding="utf-8").splitlines()
    outputs = {p.stem: load_file(p) for p in sorted(folder.glob("*.safetensors")) if p.stem != "arrays"}
    answers = json.loads((folder / "answers.json").read_text(encoding="utf-8"))
    return Golden(tuple(map(json.loads, lines)), load_file(folder / "arrays.safetensors"), outputs, tuple(answers))


def _rebuild(bundle: Bundle, head: Mapping[str, Any], path: Path, device: str) -> Any:
    """Fresh layers on the meta device, every edit replayed, then the stored tensors copied in."""
    import torch
    from safetensors.torch import load_file as load_tensors

    from luodi.core.weights import fill, materialize

    assert bundle.config is not None
    with torch.device("meta"):
        try:
            model = bundle.task.build(bundle.config)
        except ValueError as error:
            raise Damaged(f"{path}: its model cannot be built: {error}") from error
        for edit in bundle.edits:
            model = edit.step.restore(bundle.task, model, edit.plan)
    model = fill(materialize(model, "cpu"), load_tensors(path / "weights.safetensors"), head["aliases"], path)
    return model.to(device).eval()
