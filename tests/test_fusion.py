"""A picture and a text read together: what each way of fusing computes, what it can learn, and what it refuses."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_data import bundle_of
from texts_elsewhere import LINES, text_folder

from luodi.core.apply import apply
from luodi.core.bundle import Bundle
from luodi.core.catalog import resolve
from luodi.core.errors import LuodiError, Refused
from luodi.core.rows import Rows
from luodi.core.run import Run
from luodi.core.source import rows_of
from luodi.core.spec import Spec
from luodi.core.thing import WrongThing, make
from luodi.data.samples.weights import tensors_of
from luodi.models.layers.attention import attention_of
from luodi.models.layers.modulation import Modulation

WAYS = ("concatenation", "cross_attention", "modulation")
IMAGE = {"image": Spec(kind="image", shape=(3, 32, 32))}
TEXT = {
    "text": Spec(kind="tokens", shape=("text_length",), size=30, dtype="int64", most=12),
    "text_mask": Spec(kind="mask", shape=("text_length",), dtype="int64", most=12),
}
OUT = {"label": Spec(kind="category", shape=(3,), size=3)}
SMALL = {"channels": 8, "layers": 1, "width": 8, "heads": 2}


def built(inputs: dict[str, Spec] | None = None, **config: Any) -> Any:
    torch.default_generator.manual_seed(0)
    return resolve("models", {"fusion": {**SMALL, **config}}).build(inputs or {**IMAGE, **TEXT}, OUT).eval()


def batch(rows: int = 2, length: int = 5) -> dict[str, torch.Tensor]:
    dice = torch.Generator().manual_seed(1)
    return {
        "image": torch.randn(rows, 3, 32, 32, generator=dice),
        "text": torch.randint(0, 30, (rows, length), generator=dice),
        "text_mask": torch.ones(rows, length, dtype=torch.int64),
    }


# ---- what is computed -----------------------------------------------------------------------------------------------


def test_a_modulation_scales_and_shifts_each_channel():
    """FiLM: (1 + scale) x + shift, both linear in the vector; at first it changes nothing."""
    layer = Modulation(2, 3)
    features, vector = torch.randn(2, 3, 4, 5), torch.tensor([[1.0, 0.0], [2.0, -1.0]])
    assert torch.equal(layer(features, vector), features)
    with torch.no_grad():
        layer.layer.weight.copy_(torch.arange(12.0).reshape(6, 2))
        layer.layer.bias.fill_(0.5)
    scale, shift = np.array([[0.5, 2.5, 4.5], [-0.5, 1.5, 3.5]]), np.array([[6.5, 8.5, 10.5], [5.5, 7.5, 9.5]])
    want = features.numpy() * (1 + scale)[:, :, None, None] + shift[:, :, None, None]
    np.testing.assert_allclose(layer(features, vector).detach().numpy(), want, rtol=1e-6)


@pytest.mark.parametrize("image", ["resnet", "efficientnet_lite"])
def test_a_modulated_network_begins_as_the_image_alone(image):
    """The same weights by name, and the same answer, until the modulation has learned."""
    both, alone = built(fuse="modulation", image=image), built(IMAGE, image=image)
    state = both.state_dict()
    alone.load_state_dict({name: state[name] for name in alone.state_dict()})
    given = batch()
    torch.testing.assert_close(both(**given)["label"], alone(image=given["image"])["label"])
    with torch.no_grad():
        for layer in both.image.modulations:
            layer.layer.bias.add_(0.3)
    assert len(both.image.modulations) == 4
    assert not torch.allclose(both(**given)["label"], alone(image=given["image"])["label"], atol=1e-4)


@pytest.mark.parametrize("fuse", WAYS)
def test_padding_and_other_rows_change_nothing(fuse):
    model, given = _moved(built(fuse=fuse)), batch()
    padded = {**given, "text": torch.cat([given["text"], torch.full((2, 4), 7)], 1),
              "text_mask": torch.cat([given["text_mask"], torch.zeros(2, 4, dtype=torch.int64)], 1)}  # fmt: skip
    answer = model(**given)["label"]
    torch.testing.assert_close(model(**padded)["label"], answer, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(model(**{name: one[:1] for name, one in padded.items()})["label"], answer[:1],
                               atol=1e-6, rtol=1e-5)  # fmt: skip


@pytest.mark.parametrize("fuse", WAYS)
def test_both_inputs_matter_and_all_weights_learn(fuse):
    model, given = _moved(built(fuse=fuse)), batch()
    answer = model(**given)["label"]
    for name in ("image", "text"):
        other = {**given, name: given[name].flip(0)}
        assert not torch.allclose(model(**other)["label"], answer, atol=1e-4), name
    answer.square().sum().backward()
    assert [name for name, one in model.named_parameters() if one.grad is None] == []


def test_cells_and_tokens_look_at_each_other():
    """The attention of a batch: 1 for each query, nothing for padding; (32 / 32)^2 cells of a resnet are one."""
    model = built({**TEXT, "image": Spec(kind="image", shape=(3, 64, 64))}, fuse="cross_attention")
    given = {**batch(2, 5), "image": torch.randn(2, 3, 64, 64)}
    given["text_mask"][1, 3:] = 0
    found = attention_of(model, given)
    told, shown = found["crossing.to_tokens"], found["crossing.to_cells"]
    assert told.shape == (2, 2, 4, 5) and shown.shape == (2, 2, 5, 4)
    for one in (told, shown):
        torch.testing.assert_close(one.sum(-1), torch.ones(one.shape[:-1]))
    assert told[1, :, :, 3:].abs().max() == 0 and told[0, :, :, 3:].min() > 0


def test_with_one_input_less_the_layers_are_the_same():
    whole = {name: one.shape for name, one in built().state_dict().items() if not name.startswith(("heads", "joined"))}
    for inputs, gone in ((IMAGE, ("words", "read", "text_norm")), (TEXT, ("image", "see", "image_norm"))):
        left = {name: one.shape for name, one in built(inputs).state_dict().items() if not name.startswith("heads")}
        assert left == {name: shape for name, shape in whole.items() if name.split(".")[0] not in gone}
        for fuse in WAYS:
            assert built(inputs, fuse=fuse).state_dict().keys() == built(inputs).state_dict().keys()


def test_numbers_join_and_odd_inputs_are_refused():
    more = {**IMAGE, **TEXT, "age": Spec(kind="number", shape=(1,))}
    assert built(more).heads.layers[0].in_features == 9
    two = {**IMAGE, "other": IMAGE["image"]}
    for inputs, said in ((two, "one image"), ({"age": more["age"]}, "one image"), ({"text": TEXT["text"]}, "its mask")):
        with pytest.raises(ValueError, match=said):
            built(inputs)
    with pytest.raises(ValueError, match="three channels"):
        built({"image": Spec(kind="image", shape=(1, 32, 32))}, image="efficientnet_lite")


def _moved(model: Any) -> Any:
    """A modulation that has learned something."""
    with torch.no_grad():
        for name, one in model.named_parameters():
            if "modulations" in name:
                one.normal_(generator=torch.Generator().manual_seed(2), std=0.1)
    return model


# ---- what is learned ------------------------------------------------------------------------------------------------


def exclusive(count: int, seed: int) -> Rows:
    """A picture that is light or dark, a text that says yes or no; the label is whether they agree."""
    dice = np.random.default_rng(seed)
    light, yes = dice.integers(0, 2, count), dice.integers(0, 2, count)
    cells = []
    for one in light:
        stream = io.BytesIO()
        Image.fromarray((dice.integers(0, 60, (8, 8)) + 150 * one).astype(np.uint8)).save(stream, "PNG")
        cells.append(stream.getvalue())
    texts = [f"they say {'yes' if one else 'no'} {dice.integers(0, 5)}" for one in yes]
    return rows_of(
        {
            "image": cells,
            "text": texts,
            "label": ["same" if a == b else "other" for a, b in zip(light, yes, strict=True)],
        }
    )


INPUTS = {"image": {"image": {"size": 8, "channels": 1}}, "text": {"text": {"tokens": "word", "length": 8}}}


@pytest.mark.parametrize(("fuse", "given", "low", "high"), [
    ("concatenation", ("image",), 0.3, 0.7), ("concatenation", ("text",), 0.3, 0.7),
    *((fuse, ("image", "text"), 0.95, 1.0) for fuse in WAYS),
])  # fmt: skip
def test_what_neither_input_tells_alone(fuse, given, low, high, tmp_path):
    task = {"supervised": {"inputs": {name: INPUTS[name] for name in given}, "targets": {"label": "category"}}}
    model = {"fusion": {**SMALL, "width": 16, "fuse": fuse, "dropout": 0.0}}
    bundle = bundle_of(task, model, exclusive(256, 0), exclusive(64, 1))
    step: Any = make("steps", {"train": {"epochs": 20, "batch_size": 16, "learning_rate": 0.005}})
    done = apply(step, bundle, Run(tmp_path, seed=1))
    exam = done.task.examine(done.predictor(), exclusive(200, 2), 60)
    assert low <= done.task.score(exam)["label.accuracy"] <= high


# ---- weights trained elsewhere --------------------------------------------------------------------------------------


def captions(size: int = 32) -> Bundle:
    rows = exclusive(len(LINES), 0)
    rows = rows_of({**{name: rows.column(name) for name in ("image", "label")}, "text": list(LINES)})
    inputs = {"image": {"image": {"size": size}}, "text": {"text": {"tokens": "pretrained", "length": 16}}}
    task = {"supervised": {"inputs": inputs, "targets": {"label": "category"}}}
    return bundle_of(task, {"fusion": {**SMALL, "image": "efficientnet_lite"}}, rows, rows)


def parts(bundle: Bundle, folder: Path, **fields: Any) -> Bundle:
    folder.mkdir(exist_ok=True)
    step: Any = make("steps", {"pretrained_parts": fields})
    return apply(step, bundle, Run(folder))


def test_both_parts_hold_the_published_tensors(cache, tmp_path):
    import transformers

    path = text_folder("bert", tmp_path / "bert")
    done = parts(captions(), tmp_path / "run", image="efficientnet_lite0", text=str(path))
    state = done.model.state_dict()
    published = tensors_of("efficientnet_lite0", cache)
    for name, tensor in published.items():
        if not name.startswith("classifier"):
            assert torch.equal(state[f"image.{name}"], tensor), name
    network = transformers.AutoModel.from_pretrained(path).eval()
    words = transformers.AutoTokenizer.from_pretrained(path)
    theirs = words(list(LINES[:4]), padding=True, truncation=True, max_length=16, return_tensors="pt")
    arrays = done.task.encode(done.task.rows_to_requests(done.data["train"].take(range(4))))
    with torch.no_grad():
        ours = done.model.words.eval()(torch.from_numpy(arrays["text"]), torch.from_numpy(arrays["text_mask"]))
        mask = theirs["attention_mask"].bool()
        torch.testing.assert_close(ours[mask], network(**theirs).last_hidden_state[mask], atol=1e-5, rtol=1e-5)
    assert done.notes["parts"]["text"]["share"] == done.notes["parts"]["image"]["share"] == 1.0
    again = Bundle.load(done.save(tmp_path / "saved"))
    requests = done.task.examples(3, seed=1)
    assert again.predictor()(requests) == done.predictor()(requests)


def test_folds_foresee_what_their_weights_bring(tmp_path):
    """A plan knows tokenizer and network of a text that waits for them, also inside folds."""
    path = text_folder("bert", tmp_path / "bert")
    inner = {"pretrained_parts": {"text": str(path)}}
    bundle = captions()
    for step in (inner, {"folds": {"steps": [inner, "train"]}}):
        made: Any = make("steps", step)
        task, config = made.foresee(bundle.task, bundle.config, tmp_path)
        assert task.inputs["text"].learned is not None and config.architecture == "BertModel"
        assert config.image == "efficientnet_lite" and config.width == SMALL["width"]


def test_weights_that_have_no_place_are_refused(tmp_path):
    bundle = captions()
    with pytest.raises(Refused, match="only the model fusion has parts, not constant"):
        parts(bundle.replace(config=make("models", "constant")), tmp_path, image="efficientnet_lite0")
    with pytest.raises(Refused, match="goes into image: efficientnet_lite"):
        parts(bundle.replace(config=make("models", "fusion")), tmp_path, image="efficientnet_lite0")
    images = bundle.task.model_copy(update={"inputs": {"image": bundle.task.inputs["image"]}})
    with pytest.raises(Refused, match="no input is of the kind text"):
        parts(bundle.replace(task=images), tmp_path, text="minilm_l6")
    for fields, said in (({}, "give `image`, `text`"), ({"image": "minilm_l6"}, "is one of"),
                         ({"text": "efficientnet_lite0"}, "network that reads")):  # fmt: skip
        with pytest.raises(WrongThing, match=said):
            make("steps", {"pretrained_parts": fields})


# ---- rows -----------------------------------------------------------------------------------------------------------


def rowed(columns: dict[str, Any]) -> Bundle:
    inputs = {name: "text" for name in columns if name not in ("label", "folder")}
    task: Any = make("tasks", {"supervised": {"inputs": inputs, "targets": {"label": "category"}}})
    bundle = bundle_of(task, "embedding_bag", rows_of(columns))
    return bundle.replace(facts=bundle.facts - {"split"} | {"rows"}, data=_whole(bundle))


def _whole(bundle: Bundle) -> Any:
    from luodi.core.source import Data

    return Data({"all": bundle.data["train"]})


def after(bundle: Bundle, step: Any, folder: Path, **more: Any) -> Bundle:
    made: Any = make("steps", step)
    return apply(made, bundle, Run(folder, **more))


def test_rare_labels_become_one(tmp_path):
    labels = ["a"] * 5 + ["b"] * 4 + ["c"] * 2 + ["d"]
    bundle = rowed({"text": [f"t{place}" for place in range(12)], "label": labels})
    done = after(bundle, {"merge_labels": {"fewest": 3, "into": "rest"}}, tmp_path)
    assert done.data["all"].column("label") == ["a"] * 5 + ["b"] * 4 + ["rest"] * 3
    assert list(done.data["all"].ids) == list(bundle.data["all"].ids)
    assert done.notes["told"] == ["2 labels with 3 rows are now 'rest'"]
    named = after(bundle, {"merge_labels": {"labels": ["b", "d"]}}, tmp_path)
    assert named.data["all"].column("label") == ["a"] * 5 + ["other"] * 4 + ["c"] * 2 + ["other"]
    rehearsed = after(bundle, {"merge_labels": {"fewest": 30}}, tmp_path, rehearse=True)
    assert rehearsed.notes["labels"]["out"] == {"a": 5, "b": 4, "other": 3}
    with pytest.raises(LuodiError, match="only one label would be left"):
        after(bundle, {"merge_labels": {"fewest": 30}}, tmp_path)
    with pytest.raises(WrongThing, match="give `fewest`"):
        make("steps", "merge_labels")


def test_words_of_labels_are_taken_out(tmp_path):
    english = ["A berry, and two Berries.", "The FOX and the box.", "foxglove!", "a class of classes", "Fruit"]
    chinese = ["两种水果和动物。", "动物园里的动物", "花", "无", "苹果"]
    folders = ["food/fruit/berries", "animals/foxes", "plants", "town/class", "food/fruit"]
    bundle = rowed({"english": english, "chinese": chinese, "label": list("ababa"), "folder": folders})
    done = after(bundle, {"mask_words": {"of": ["folder"], "words": ["动物", "水果"]}}, tmp_path)
    rows = done.data["all"]
    assert rows.column("english") == ["A, and two.", "The and the box.", "foxglove!", "a of", ""]
    assert rows.column("chinese") == ["两种和。", "园里的", "花", "无", "苹果"]
    assert list(rows.ids) == list(bundle.data["all"].ids) and rows.column("label") == list("ababa")
    assert done.notes["words"] == {"动物": 3, "berry": 1, "berries": 1, "fox": 1, "class": 1, "classes": 1, "fruit": 1,
                                   "水果": 1}  # fmt: skip
    one = after(bundle, {"mask_words": {"columns": ["english"], "words": ["fox"], "mask": "it"}}, tmp_path)
    assert one.data["all"].column("english")[1] == "The it and the box."
    assert one.data["all"].column("chinese") == chinese
    with pytest.raises(LuodiError, match="no column 'foldr'; did you mean 'folder'"):
        after(bundle, {"mask_words": {"of": ["foldr"]}}, tmp_path)
    nothing = after(bundle, "mask_words", tmp_path)
    assert nothing.data is bundle.data and nothing.notes["told"] == ["no words to take out"]
