"""Models of transformers: equal to the original, whole after saving, through every other step; what is refused."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from made_elsewhere import LABELS, changed, folder_of
from PIL import Image
from safetensors.torch import load_file, save_file

from luodi.adopt.transformers_folder import adopt
from luodi.core import parity
from luodi.core.apply import apply
from luodi.core.bundle import Bundle
from luodi.core.catalog import resolve
from luodi.core.errors import LuodiError, ParityError
from luodi.core.run import Run
from luodi.core.spec import Spec

MAIN = ("vit", "convnext", "mobilenet")  # resize alone; larger and then the middle; resize and then cut
OTHERS = ("swin", "clip", "mobilevit", "efficientnet", "levit", "poolformer")


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("folders")
    return {kind: folder_of(kind, home / kind) for kind in MAIN}


@pytest.fixture(scope="session")
def adopted(folders, tmp_path_factory) -> dict[str, tuple[dict, Path]]:
    home = tmp_path_factory.mktemp("adopted")
    return {kind: (adopt(str(folder), home / kind), home / kind) for kind, folder in folders.items()}


def pictures() -> dict[str, bytes]:
    """Image files of several sizes and modes, as a browser would send them."""
    dice = np.random.default_rng(3)

    def noise(*shape: int) -> np.ndarray:
        return dice.integers(0, 256, shape, dtype=np.uint8)

    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was held upright
    made = {
        "exact.png": (Image.fromarray(noise(32, 32, 3)), {}),
        "tall.jpg": (Image.fromarray(noise(97, 41, 3)), {"quality": 92}),
        "wide gray.png": (Image.fromarray(noise(33, 140)), {}),
        "tiny.png": (Image.fromarray(noise(3, 2, 3)), {}),
        "alpha.png": (Image.fromarray(noise(50, 61, 4)), {}),
        "gray alpha.png": (Image.merge("LA", [Image.fromarray(noise(40, 45)) for _ in "LA"]), {}),
        "palette.png": (Image.fromarray(noise(64, 64, 3)).quantize(31), {}),
        "bits.png": (Image.fromarray(noise(60, 70)).convert("1"), {}),
        "turned.jpg": (Image.fromarray(noise(40, 90, 3)), {"exif": turned}),
    }
    found = {}
    for name, (image, options) in made.items():
        buffer = io.BytesIO()
        image.save(buffer, format="JPEG" if name.endswith("jpg") else "PNG", **options)
        found[name] = buffer.getvalue()
    return found


@pytest.mark.parametrize("kind", MAIN)
def test_answers_as_the_pipeline_of_transformers(kind, folders, adopted):
    import transformers

    processor = transformers.AutoImageProcessor.from_pretrained(folders[kind], backend="pil")
    pipeline = transformers.pipeline("image-classification", str(folders[kind]), image_processor=processor)
    predict = Bundle.load(adopted[kind][1]).predictor()
    seen = set()
    for name, data in pictures().items():
        wanted = {one["label"]: one["score"] for one in pipeline(Image.open(io.BytesIO(data)), top_k=None)}
        request = predict.task.read({"image": base64.b64encode(data).decode()})
        got = predict([request])[0]["label"]["probabilities"]
        assert list(got) == list(LABELS)
        assert max(abs(got[label] - wanted[label]) for label in LABELS) < 2e-5, name
        seen.add(round(max(wanted.values()), 3))
    assert len(seen) > 4, "the pictures are answered alike, so that the comparison shows nothing"


@pytest.mark.parametrize("kind", MAIN)
def test_the_report_and_the_lineage(kind, folders, adopted):
    from transformers import AutoModelForImageClassification

    from luodi.core.atomic import file_sha

    report, path = adopted[kind]
    original = AutoModelForImageClassification.from_pretrained(folders[kind]).state_dict()
    assert report["drift"] == report["arrays_difference"] == 0.0
    assert report["inputs"] == {"image": "image (3, 32, 32)"} and report["outputs"] == {"label": "category (5,)"}
    bundle = Bundle.load(path)
    assert bundle.model is not None and bundle.golden is not None
    assert report["parameters"] == sum(p.numel() for p in bundle.model.parameters())
    assert bundle.facts == {"model", "float", "fitted"}
    assert len(bundle.golden.requests) == parity.COUNT
    assert bundle.adopted["files"]["model.safetensors"] == file_sha(folders[kind] / "model.safetensors")
    assert bundle.adopted["parity"]["drift"] == report["drift"]
    stored = load_file(path / "weights.safetensors")
    assert {f"network.{name}" for name in original} <= stored.keys()
    assert all(torch.equal(stored[f"network.{name}"], tensor) for name, tensor in original.items())


def test_it_opens_without_the_folder_and_without_a_network(folders, adopted, tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise AssertionError("a bundle was opened over the network")

    shutil.copytree(adopted["vit"][1], tmp_path / "bundle")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert Bundle.load(tmp_path / "bundle").golden is not None
    assert not [p for p in (tmp_path / "bundle").rglob("*") if p.suffix in (".bin", ".pt", ".pkl")]


@pytest.mark.parametrize("kind", OTHERS)
def test_other_preprocessing_and_buffers_that_are_not_in_the_file(kind, tmp_path):
    """Positions that are not stored (swin, clip, levit), alpha laid on white (clip), BGR and a black frame (mobilevit),
    an offset and a second deviation (efficientnet), other factors before the cut (levit, poolformer)."""
    report = adopt(str(folder_of(kind, tmp_path / kind)), tmp_path / "bundle")
    assert report["drift"] < 1e-6 and report["arrays_difference"] < 1e-6
    image = Bundle.load(tmp_path / "bundle").task.inputs["image"]
    assert image.order == ("bgr" if kind == "mobilevit" else "rgb")
    assert image.background == (255 if kind == "clip" else None)


@pytest.mark.parametrize("kind", ("vit", "convnext"))
def test_pruned_quantised_exported_and_served(kind, adopted, tmp_path):
    bundle = Bundle.load(adopted[kind][1])
    steps = ({"prune": {"sparsity": 0.3}}, {"quantize": {}}, {"export": {"to": "onnx"}}, {"export": {"to": "openvino"}})
    requests = bundle.task.examples(6, seed=9)
    arrays = bundle.task.encode(requests)
    for number, said in enumerate(steps):
        out = tmp_path / str(number)
        out.mkdir()
        step = resolve("steps", said)
        apply(step, bundle, Run(out / "work"), number + 1).save(out / "bundle")
        bundle = Bundle.load(out / "bundle")
        assert bundle.adopted["source"] == kind, "the lineage stays"
    kinds = {type(layer).__name__ for layer in bundle.model.modules()}
    assert kinds & {"Int8Linear", "Int8Conv"}
    wanted = bundle.predictor("torch").forward(arrays)
    answer = bundle.task.decode(wanted)[0]["label"]["probabilities"]
    for form in ("onnx", "openvino"):
        assert parity.drift(bundle.predictor(form).forward(arrays), wanted) < 1e-4
        alone = Bundle.load(tmp_path / "3" / "bundle", form=form)
        assert alone.model is None
        assert served(alone, form, requests[0]) == pytest.approx(answer, abs=1e-4)

    path = tmp_path / "3" / "bundle"
    assert (
        imported_by(f"b = Bundle.load(Path({str(path)!r}), form='onnx'); b.predictor('onnx')(b.task.examples(2, 0))")
        == []
    )


def imported_by(code: str) -> list[str]:
    """Which heavy packages a process of its own imports for this."""
    import subprocess
    import sys

    begin = "import sys; from pathlib import Path; from luodi.core.bundle import Bundle"
    end = "print(*sorted({'torch', 'transformers', 'onnx'} & set(sys.modules)))"
    found = subprocess.run(
        [sys.executable, "-c", f"{begin}; {code}; {end}"], capture_output=True, text=True, check=True
    )
    return found.stdout.split()


def served(bundle: Bundle, form: str, request: dict) -> dict[str, float]:
    """The probabilities that a server of this form answers over HTTP."""
    import httpx

    from luodi.serve.app import create

    app = create(bundle, name="made elsewhere", form=form)
    wire = bundle.task.write(request)

    async def ask() -> httpx.Response:
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here")
        async with app.router.lifespan_context(app), client:
            return await client.post("/predict", json=wire)

    response = asyncio.run(ask())
    assert response.status_code == 200, response.text
    return response.json()["answer"]["label"]["probabilities"]


def test_half_precision_extra_tensors_and_labels_that_occur_twice_are_told(folders, tmp_path):
    def twice(config: dict) -> None:
        config["id2label"]["3"] = config["id2label"]["1"]

    folder = changed(folders["vit"], tmp_path / "vit", "config.json", twice)
    tensors = {name: tensor.half() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file({**tensors, "vit.pooler.dense.bias": torch.zeros(16)}, folder / "model.safetensors", {"format": "pt"})
    report = adopt(str(folder), tmp_path / "bundle")
    told = " / ".join(report["notes"])
    assert "F16" in told and "vit.pooler.dense.bias" in told and "bee" in told
    bundle = Bundle.load(tmp_path / "bundle")
    assert bundle.task.targets["label"].values == ("ant", "bee (1)", "cat", "bee (3)", "eel")
    assert all(p.dtype == torch.float32 for p in bundle.model.parameters())


def sharded(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    half = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, chosen in half.items():
        save_file({name: tensors[name] for name in chosen}, folder / file, {"format": "pt"})
    weight_map = {name: file for file, chosen in half.items() for name in chosen}
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()


def test_shards(folders, adopted, tmp_path):
    folder = shutil.copytree(folders["vit"], tmp_path / "vit")
    sharded(folder)
    adopt(str(folder), tmp_path / "bundle")
    whole, parts = (load_file(path / "weights.safetensors") for path in (adopted["vit"][1], tmp_path / "bundle"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
REFUSED = {
    "unknown architecture": (CONFIG, {"model_type": "vitt"}, "no architecture 'vitt'; did you mean 'vit'"),
    "remote code": (CONFIG, {"model_type": "mine", "auto_map": {"AutoModel": "mine.Net"}}, "which luodi never runs"),
    "no head": (CONFIG, {"architectures": ["ViTModel"]}, "supported are the heads ...ForImageClassification"),
    "another head": (CONFIG, {"architectures": ["ViTForMaskedImageModeling"]}, "does not classify images"),
    "no labels": (CONFIG, {"id2label": None, "label2id": None}, "config.json has no id2label"),
    "a gap in the labels": (CONFIG, {"id2label": {"0": "a", "2": "b"}}, "must name the outputs 0, 1, 2"),
    "too few labels": (CONFIG, {"id2label": {"0": "a", "1": "b"}}, r"classifier.weight is \(5, 16\) in the file"),
    "several labels": (CONFIG, {"problem_type": "multi_label_classification"}, "one label of several"),
    "quantised": (CONFIG, {"quantization_config": {"quant_method": "bitsandbytes"}}, "import the float model"),
    "padding": (PROCESSOR, {"do_pad": True}, "also does do_pad"),
    "no one size": (PROCESSOR, {"size": {"shortest_edge": 32}}, "its images have no one size; set do_center_crop"),
    "no resizing": (PROCESSOR, {"do_resize": False}, "do_resize off"),
    "a size by two edges": (PROCESSOR, {"size": {"shortest_edge": 32, "longest_edge": 60}}, "cannot resize to"),
    "a filter Pillow lacks": (PROCESSOR, {"resample": 5}, "resample 5"),
    "another size": (PROCESSOR, {"size": {"height": 40, "width": 40}}, "3 x 40 x 40, which the model refuses"),
    "another channel": (PROCESSOR, {"image_mean": [0.5], "image_std": [0.5]}, "1 means, the model takes 3"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_folders(case, folders, tmp_path):
    file, change, message = REFUSED[case]
    folder = changed(folders["vit"], tmp_path / "vit", file, lambda value: value.update(change))
    with pytest.raises(LuodiError, match=message):
        adopt(str(folder), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_refused_weights(folders, tmp_path):
    folder = shutil.copytree(folders["vit"], tmp_path / "vit")
    tensors = load_file(folder / "model.safetensors")
    wrong = {name.replace("classifier", "clasifier"): tensor for name, tensor in tensors.items()}
    save_file(wrong, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(LuodiError, match=r"classifier.weight is missing; the nearest name in the file is clasifier"):
        adopt(str(folder), tmp_path / "bundle")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(LuodiError, match=r"only pytorch_model.bin: that is pickle.*save_pretrained"):
        adopt(str(folder), tmp_path / "bundle")
    (folder / "pytorch_model.bin").rename(folder / "model.safetensors")
    (folder / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(LuodiError, match="cannot open it"):
        adopt(str(folder), tmp_path / "bundle")


def test_refused_sources(folders, tmp_path, monkeypatch):
    folder = shutil.copytree(folders["vit"], tmp_path / "vit")
    (folder / PROCESSOR).unlink()
    with pytest.raises(
        LuodiError, match=r"no preprocessor_config\.json, so how a picture becomes an array is not known"
    ):
        adopt(str(folder), tmp_path / "bundle")
    (folder / CONFIG).unlink()
    with pytest.raises(LuodiError, match=r"no config\.json"):
        adopt(str(folder), tmp_path / "bundle")
    with pytest.raises(LuodiError, match="is no folder"):
        adopt(str(tmp_path / "nowhere"), tmp_path / "bundle")


def test_a_hub_name_is_fetched_without_pickle_and_code(folders, tmp_path, monkeypatch):
    """The hub is played by a folder: what is asked of it is the real call's arguments."""
    import huggingface_hub

    asked: dict[str, list[str]] = {}
    revision = shutil.copytree(folders["vit"], tmp_path / "0123abc")

    def snapshot_download(name: str, *, allow_patterns: list[str]) -> str:
        asked[name] = allow_patterns
        return str(revision)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    adopt("somebody/vit-tiny", tmp_path / "bundle")
    (patterns,) = asked.values()
    assert {Path(pattern).suffix for pattern in patterns} == {".json", ".safetensors"}
    lineage = Bundle.load(tmp_path / "bundle").adopted
    assert (lineage["source"], lineage["revision"]) == ("somebody/vit-tiny", "0123abc")


def test_a_preprocessing_that_differs_is_refused(folders, tmp_path, monkeypatch):
    """A planted mistake in what was understood of the processor: parity alone must see it."""
    from luodi.adopt import preprocessing

    monkeypatch.setitem(preprocessing.RESAMPLING, 2, "bicubic")
    with pytest.raises(ParityError, match="preprocessing differs from the original's by up to"):
        adopt(str(folders["vit"]), tmp_path / "bundle")
    monkeypatch.undo()
    monkeypatch.setattr(preprocessing, "WHOLE", 256)
    with pytest.raises(ParityError, match="preprocessing differs"):
        adopt(str(folders["vit"]), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_the_middle_is_cut_out_whole_pixels_wide():
    """Closed form: a ramp, resized to itself, cut to odd and even sizes, and framed in black where it is smaller."""
    ramp = np.arange(7 * 5, dtype=np.uint8).reshape(7, 5)
    plain = {"channels": 1, "normalize": "none", "resize": "nearest", "background": None}
    for size, want in (((4, 2), ramp[1:5, 1:3]), ((3, 5), ramp[2:5]), ((7, 5), ramp)):
        field = resolve("fields", {"image": {**plain, "size": size, "resize_to": (7, 5)}})
        assert np.array_equal(field.encode([ramp])[""][0, 0], want)
        shorter = resolve("fields", {"image": {**plain, "size": size, "resize_to": 5}})
        assert np.array_equal(shorter.encode([ramp])[""][0, 0], want)
    wide = resolve("fields", {"image": {**plain, "size": (8, 8), "resize_to": (7, 5)}}).encode([ramp])[""][0, 0]
    assert np.array_equal(wide[1:, 2:7], ramp)
    assert wide.sum() == ramp.sum()


def test_bgr_and_alpha_that_is_left_off():
    value = np.zeros((2, 2, 4), np.uint8)
    value[..., 0], value[..., 2], value[..., 3] = 200, 90, 128
    plain = {"size": 2, "normalize": "none"}
    left = resolve("fields", {"image": {**plain, "background": None}}).encode([value])[""]
    assert left[0, :, 0, 0].tolist() == [200, 0, 90]
    turned = resolve("fields", {"image": {**plain, "background": None, "order": "bgr"}}).encode([value])[""]
    assert turned[0, :, 0, 0].tolist() == [90, 0, 200]
    laid = resolve("fields", {"image": plain}).encode([value])[""]
    assert laid[0, :, 0, 0].tolist() == pytest.approx([227, 127, 172], abs=1)
    for wrong in ({"resize_to": 9, "aspect": "pad"}, {"channels": 1, "order": "bgr"}):
        with pytest.raises(LuodiError, match=r"leave `aspect`|needs `channels: 3`"):
            resolve("fields", {"image": wrong})


IMAGE = Spec(kind="image", shape=(3, 32, 32), size=3)
LABEL = Spec(kind="category", shape=(5,), size=5)
HOSTILE = (
    {"_attn_implementation": "somebody/kernel"},
    {"vision_config": {"attn_implementation": "somebody/kernel"}},
    {"use_pretrained_backbone": True, "backbone": "resnet50"},
    {"quantization_config": {"quant_method": "gptq"}},
    {"auto_map": {"AutoModel": "mine.Net"}},
)


@pytest.mark.parametrize("config", HOSTILE)
def test_a_config_that_would_fetch_or_run_something_is_refused(config):
    made = resolve("models", {"pretrained_image": {"architecture": "ViTForImageClassification", "config": config}})
    with pytest.raises(ValueError, match="may not hold"):
        made.build({"image": IMAGE}, {"label": LABEL})


def test_only_image_classifiers_are_built():
    made = resolve("models", {"pretrained_image": {"architecture": "pipeline", "config": {}}})
    with pytest.raises(ValueError, match="no image classifier"):
        made.build({"image": IMAGE}, {"label": LABEL})
    with pytest.raises(ValueError, match="one image and answers one category"):
        made.build({"image": IMAGE, "more": IMAGE}, {"label": LABEL})
    assert made.packages() == {"transformers": "hub"}
