"""Transfer: published weights and those of a bundle in a new task; what then learns; the drawings."""

from __future__ import annotations

import io
from collections import defaultdict
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from made_elsewhere import folder_of
from PIL import Image
from small_data import bundle_of, image_rows, images_bundle, sha
from test_sources import debian_archive

from luodi.adopt.transformers_folder import adopt
from luodi.core.apply import apply
from luodi.core.bundle import Bundle
from luodi.core.errors import LuodiError, Refused
from luodi.core.recipe import Recipe
from luodi.core.rows import Rows
from luodi.core.run import Run
from luodi.core.thing import make
from luodi.data.samples.clipart import clipart, near_groups, small, waves
from luodi.data.samples.pinned import CLIPART, SAMPLES
from luodi.data.samples.weights import WEIGHTS, tensors_of
from luodi.data.sources.sample import Sample

RECIPES = Path(__file__).parents[1] / "recipes"
CONVNET = {"convnet": {"widths": [4, 8], "hidden": 16}}
COLOUR = {"image": {"image": {"size": 32, "mean": [0.498] * 3, "std": [0.502] * 3}}}
FOUR = {"supervised": {"inputs": COLOUR, "targets": {"label": "category"}}}
PUBLISHED = {"pretrained": {"weights": "efficientnet_lite0"}}
HEAD = {"train": {"epochs": 2, "batch_size": 24, "learning_rate": 0.01, "learn": "head"}}


def after(bundle, folder, *steps, said=None, cache=None):
    for number, step in enumerate(steps, 1):
        log = (lambda event, facts: said.append(facts.get("text", ""))) if said is not None else None
        run = Run(folder / str(number), seed=1, scope=(str(number),), **({"log": log} if log else {}),
                  **({"cache": cache} if cache else {}))  # fmt: skip
        run.out.mkdir(parents=True, exist_ok=True)
        bundle = apply(make("steps", step), bundle, run, number)
    return bundle


def quarters(model: object = None, task: object = FOUR) -> Bundle:
    """Pictures of one bright quarter, in colour through the field; without a model if none is given."""
    train, validation = image_rows(48, 0), image_rows(24, 1)
    return bundle_of(task, model or "mlp", train, validation).replace(**({} if model else {"config": None}))


# ---- published weights ----------------------------------------------------------------------------------------------


def test_published_weights_come_in_but_for_the_heads(cache, tmp_path):
    said: list[str] = []
    bundle = after(quarters("efficientnet_lite"), tmp_path, PUBLISHED, said=said, cache=cache)
    state, published = bundle.model.state_dict(), tensors_of("efficientnet_lite0", cache)
    fresh = [name for name in state if name not in published or not torch.equal(state[name], published[name])]
    assert fresh == ["heads.layers.0.weight", "heads.layers.0.bias"] == bundle.notes["fresh"]
    assert {"model", "float", "fitted"} <= bundle.facts and "exposed" not in bundle.facts
    assert not [text for text in said if "trained on" in text]
    opened = Bundle.load(bundle.save(tmp_path / "saved"))  # from its own file: no weights are fetched
    assert sha(opened) == sha(bundle)


def test_nothing_is_fetched_where_a_bundle_is_opened(cache, tmp_path, monkeypatch):
    bundle = after(quarters("efficientnet_lite"), tmp_path, PUBLISHED, cache=cache)
    saved = bundle.save(tmp_path / "saved")
    monkeypatch.setattr("luodi.data.pretrained.tensors_of", lambda *_: pytest.fail("weights were asked for"))
    assert Bundle.load(saved).model is not None


def test_pixels_that_the_weights_do_not_expect_are_told(cache, tmp_path):
    said: list[str] = []
    plain = {"supervised": {"inputs": {"image": {"image": {"size": 32}}}, "targets": {"label": "category"}}}
    after(quarters("efficientnet_lite", plain), tmp_path, PUBLISHED, said=said, cache=cache)
    assert any(
        text.startswith("image is encoded as {'mean'") and "these weights were trained on" in text for text in said
    )


def test_frozen_features_then_gradually_more(cache, tmp_path):
    """First the head alone, running statistics included; then one more stage an epoch, from the top."""
    first = after(quarters("efficientnet_lite"), tmp_path / "a", PUBLISHED, HEAD, cache=cache)
    published, state = tensors_of("efficientnet_lite0", cache), first.model.state_dict()
    assert all(torch.equal(state[name], published[name]) for name in state if not name.startswith("heads."))
    before = {name: tensor.clone() for name, tensor in state.items()}
    gradual = {"train": {"epochs": 3, "batch_size": 24, "learning_rate": 0.01, "learn": {"gradual": {"every": 1}}}}
    second = after(first, tmp_path / "b", gradual).model.state_dict()
    moved = {name.split(".")[1] if name.startswith("stages") else "heads"
             for name in second if not torch.equal(second[name], before[name])}  # fmt: skip
    assert moved == {"7", "8", "heads"}


def test_weights_of_another_network_are_refused():
    with pytest.raises(Refused, match="efficientnet_lite0 goes into the model efficientnet_lite, not into convnet"):
        after(images_bundle(CONVNET), Path(), PUBLISHED)
    with pytest.raises(Refused, match="give the recipe model: efficientnet_lite"):
        after(quarters(), Path(), PUBLISHED)


# ---- weights of a bundle --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vision_transformer(tmp_path_factory) -> Path:
    """A tiny ViT of the transformers library with five labels, imported."""
    folder = tmp_path_factory.mktemp("vit")
    adopt(str(folder_of("vit", folder / "source")), folder / "bundle")
    return folder / "bundle"


def test_an_imported_network_learns_new_labels(vision_transformer, tmp_path):
    """The recipe names no model: it is the bundle's. Four labels stand where there were five."""
    donor = Bundle.load(vision_transformer)
    step = {"pretrained": {"weights": str(vision_transformer)}}
    bundle = after(quarters(), tmp_path / "a", step)
    assert bundle.config == donor.config and bundle.task.outputs_specs()["label"].size == 4
    state, given = bundle.model.state_dict(), donor.model.state_dict()
    fresh = [
        name for name in state if state[name].shape != given[name].shape or not torch.equal(state[name], given[name])
    ]
    assert fresh == bundle.notes["fresh"] == ["network.classifier.weight", "network.classifier.bias"]
    frozen = after(bundle.fork(), tmp_path / "b", HEAD)
    found = frozen.model.state_dict()
    assert [name for name in found if not torch.equal(found[name], state[name])] == fresh
    whole = after(bundle, tmp_path / "c", {"train": {"epochs": 1, "batch_size": 24, "learn": {"all": {"decay": 0.9}}}})
    opened = Bundle.load(whole.save(tmp_path / "saved"))
    request = {"image": np.zeros((9, 9, 3), np.uint8)}
    assert set(opened.predictor()([request])[0]["label"]["probabilities"]) == {"q0", "q1", "q2", "q3"}


def test_lora_on_an_imported_network(vision_transformer, tmp_path):
    steps = ({"pretrained": {"weights": str(vision_transformer)}}, {"lora": {"rank": 2, "layers": ["*attention*"]}},
             {"train": {"epochs": 1, "batch_size": 24}}, "merge")  # fmt: skip
    bundle = after(quarters(), tmp_path, *steps)
    plain = bundle.task.build(bundle.config)
    assert bundle.model.state_dict().keys() == plain.state_dict().keys() and "adapters" not in bundle.facts


def test_the_heads_start_anew_even_if_they_would_fit(tmp_path):
    trained = after(images_bundle(CONVNET), tmp_path / "a", {"train": {"epochs": 1}})
    path = trained.save(tmp_path / "bundle")
    bundle = after(images_bundle(CONVNET), tmp_path / "b", {"pretrained": {"weights": str(path)}})
    assert bundle.notes["fresh"] == ["heads.layers.0.weight", "heads.layers.0.bias"]
    assert "exposed" in bundle.facts, "the donor had seen rows"


def test_what_is_no_such_bundle_is_refused(tmp_path):
    trained = after(images_bundle(CONVNET), tmp_path / "a", {"train": {"epochs": 1}})
    path = trained.save(tmp_path / "bundle")
    step = make("steps", {"pretrained": {"weights": str(path)}})
    assert step.digest is not None, "written down when the recipe is read"
    wider = images_bundle({"convnet": {"widths": [6, 12], "hidden": 16}})
    with pytest.raises(
        LuodiError, match=r"has \d+ of the model's \d+ tensors, \d+% of its numbers; it lacks trunks.0.0"
    ):
        after(wider, tmp_path / "b", {"pretrained": {"weights": str(path)}})
    small = after(trained.fork(), tmp_path / "c", "quantize").save(tmp_path / "small")
    with pytest.raises(LuodiError, match="holds no float weights"):
        after(images_bundle(CONVNET), tmp_path / "d", {"pretrained": {"weights": str(small)}})
    with pytest.raises(LuodiError, match="'efficientnet_lite' is no bundle"):
        after(images_bundle(CONVNET), tmp_path / "e", {"pretrained": {"weights": "efficientnet_lite"}})
    again = after(trained, tmp_path / "f", {"train": {"epochs": 1}})
    again.save(path)
    with pytest.raises(LuodiError, match="is another bundle now"):
        apply(step, images_bundle(CONVNET), Run(tmp_path / "f"))


# ---- recipes --------------------------------------------------------------------------------------------------------


def test_the_recipes_fit_together():
    """The same rows held out; pixels as the weights expect them."""
    clip, transfer = (Recipe.read(RECIPES / f"{name}.yaml") for name in ("clipart", "transfer"))
    assert clip.steps[0] == transfer.steps[0] and clip.data == transfer.data
    field, known = transfer.task.inputs["image"], WEIGHTS["efficientnet_lite0"]
    values = [np.full((1, 1, 3), shade, np.uint8) for shade in (0, 127, 255)]
    encoded = field.model_copy(update={"size": 1}).encode(values)[""][:, 0, 0, 0]
    np.testing.assert_allclose(encoded, [-127 / 128, 0, 1], atol=2e-3)
    np.testing.assert_allclose((known.mean[0], known.std[0]), (127 / 255, 128 / 255))


# ---- the drawings ---------------------------------------------------------------------------------------------------


def drawing(seed: int, side: int = 120, tint: tuple[int, int, int] = (200, 30, 30)) -> Image.Image:
    """A few filled shapes on a transparent ground."""
    from PIL import ImageDraw

    dice = np.random.default_rng(seed)
    image = Image.new("RGBA", (side, side))
    pen = ImageDraw.Draw(image)
    for corners in dice.uniform(0.05, 0.95, (4, 3, 2)):
        pen.polygon([tuple(corner * side) for corner in corners], fill=(*tint, 255))
    return image


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def test_copies_and_other_tints_are_near_and_other_drawings_are_not():
    pictures = [png(drawing(seed)) for seed in range(12)]
    pictures += [png(drawing(seed, side=300)) for seed in range(4)]
    pictures += [png(drawing(seed, tint=(20, 90, 20))) for seed in range(4)]
    groups = near_groups(np.stack([waves(small(one)) for one in pictures]))
    assert groups == [*range(12), 0, 1, 2, 3, 0, 1, 2, 3]


def test_waves_are_the_cosine_transform():
    """Against the sum written out, on a picture of the thumbnail's own size."""
    array = np.random.default_rng(0).integers(0, 256, (32, 32)).astype(np.uint8)
    n = np.arange(32)
    wave = [np.cos(np.pi * (2 * n + 1) * k / 64) * np.sqrt((1 if k == 0 else 2) / 32) for k in range(8)]
    wanted = np.array([(np.outer(wave[i], wave[j]) * array).sum() for i in range(8) for j in range(8)])[1:]
    found = waves(Image.fromarray(array))
    np.testing.assert_allclose(found, wanted / np.linalg.norm(wanted), atol=1e-12)


def test_the_sample_from_its_package(tmp_path, monkeypatch):
    """A stand-in of the Debian package: kinds that are no class are left out, large ones too, links are no files."""
    files = {f"usr/share/openclipart/png/animals/deep/{n}.png": png(drawing(n)) for n in range(3)}
    files["usr/share/openclipart/png/signs_and_symbols/0.png"] = png(drawing(0, tint=(0, 0, 200)))
    files["usr/share/openclipart/png/unsorted/9.png"] = png(drawing(9))
    huge = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + (9000).to_bytes(4, "big") * 2
    files["usr/share/openclipart/png/food/huge.png"] = huge
    (root,) = SAMPLES["openclipart"].members
    lines = "".join(f"{sha256(files[path]).hexdigest()}  {path}\n" for path in sorted(files))
    members = {root: sha256(lines.encode()).hexdigest()}
    sample = type(SAMPLES["openclipart"])(**{**vars(SAMPLES["openclipart"]), "members": members, "rows": 4})
    monkeypatch.setitem(SAMPLES, "openclipart", sample)
    (tmp_path / "packages").mkdir()
    more = {"usr/share/doc/openclipart-png/copyright": b"public domain"}
    archive = tmp_path / "packages" / f"{CLIPART.name}_{CLIPART.version.replace(':', '%3a')}_all.deb"
    archive.write_bytes(debian_archive({**files, **more}))
    rows = Sample(name="openclipart").open(tmp_path)
    assert list(rows.columns) == ["image", "group", "label"]
    assert rows.column("label") == ["animals"] * 3 + ["signs and symbols"]
    assert rows.column("group") == [0, 1, 2, 0]
    first = Image.open(io.BytesIO(rows.column("image")[0]))
    assert first.size == (96, 96) and first.mode == "RGB" and first.getpixel((0, 0)) == (255, 255, 255)


def test_near_drawings_stay_on_one_side(tmp_path):
    """`split: {id: group}` as the recipes say it, on drawings of which each has two copies."""
    (root,) = SAMPLES["openclipart"].members
    sizes = (100, 140, 210)
    seeds = [("animals", seed) for seed in range(12)] + [("food", seed) for seed in range(20, 32)]
    files = {f"{root}{kind}/{seed}-{side}.png": png(drawing(seed, side=side)) for kind, seed in seeds for side in sizes}
    rows = Rows(clipart(SAMPLES["openclipart"], files))
    split = Recipe.read(RECIPES / "clipart.yaml").steps[0]
    bundle = bundle_of(FOUR, "mlp", rows)
    bundle = bundle.replace(data=type(bundle.data)({"all": rows}), facts=bundle.facts - {"split"})
    parts = apply(split, bundle, Run(tmp_path)).data.splits
    sides = defaultdict(set)
    for part, some in parts.items():
        for group in some.column("group"):
            sides[group].add(part)
    assert len(sides) == 24 and all(len(found) == 1 for found in sides.values())
    assert sum(map(len, parts.values())) == 72


def test_a_constant_answers_the_most_frequent_class(tmp_path):
    """The log-odds of its biases are those of the labels' shares; no input moves it."""
    rows = image_rows(96, 0)
    frequent = [at for at, label in enumerate(rows.column("label")) if label == "q1"]
    rows = rows.take([*range(96), *frequent, *frequent])
    plain = {"epochs": 40, "batch_size": 36, "learning_rate": 0.5, "update": {"sgd": {"momentum": 0}}}
    bundle = after(bundle_of(FOUR, "constant", rows), tmp_path, {"train": plain})
    labels = rows.column("label")
    shares = [labels.count(f"q{number}") / len(labels) for number in range(4)]
    answers = bundle.predictor()(bundle.task.rows_to_requests(rows))
    assert {answer["label"]["value"] for answer in answers} == {"q1"}
    found = [answers[0]["label"]["probabilities"][f"q{number}"] for number in range(4)]
    np.testing.assert_allclose(found, shares, atol=0.01)
    assert answers[0] == answers[-1]
