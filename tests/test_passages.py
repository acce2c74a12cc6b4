"""Long texts in pieces: nothing is lost, nothing is too long, and one text's pieces stay on one side of the split."""

from __future__ import annotations

import pytest
from small_data import bundle_of

from luodi.core.apply import apply
from luodi.core.catalog import resolve
from luodi.core.errors import LuodiError
from luodi.core.run import Run
from luodi.core.source import Data, rows_of
from luodi.core.thing import WrongThing

POEM = "床前明月光，疑是地上霜。举头望明月，低头思故乡。"
LONG = f"One two three. Four five!\nSix seven eight nine ten eleven twelve.\n\n{POEM}"
TASK = {"language": {"inputs": {"text": {"text": {"tokens": "character"}}}}}


def passages(**fields):
    return resolve("steps", {"passages": fields})


@pytest.mark.parametrize("at", ["any", "line", "sentence", "paragraph"])
@pytest.mark.parametrize("characters", [7, 20, 60])
def test_nothing_is_lost_and_nothing_is_too_long(at, characters):
    found = list(passages(characters=characters, at=at).pieces(LONG))
    assert "".join(found).replace("\n", "") == LONG.replace("\n", "")
    assert max(map(len, found)) <= characters


def test_a_passage_ends_where_a_sentence_does():
    assert list(passages(characters=30).pieces(LONG))[:2] == [
        "One two three. Four five!\n",
        "Six seven eight nine ten eleve",
    ]
    assert list(passages(characters=20).pieces(POEM)) == [
        "床前明月光，疑是地上霜。",
        "举头望明月，低头思故乡。",
    ]


def test_passages_overlap_by_so_many_characters():
    found = list(passages(characters=10, at="any", overlap=3).pieces("abcdefghijklmnopqrstuvwxyz"))
    assert found == ["abcdefghij", "hijklmnopq", "opqrstuvwx", "vwxyz"]
    assert list(passages(characters=10, at="any", least=10).pieces("abcdefghijklm")) == ["abcdefghij"]


def test_the_other_columns_stay_and_the_split_keeps_a_text_together(tmp_path):
    rows = rows_of({"text": [LONG + str(place) for place in range(40)], "who": [f"w{place}" for place in range(40)]})
    bundle = bundle_of(TASK, "gpt", rows)
    bundle = bundle.replace(data=Data({"all": rows}), facts=frozenset({"rows", "loss"}))
    after = apply(passages(characters=30), bundle, Run(tmp_path))
    cut = after.data["all"]
    assert cut.columns == rows.columns and len(cut) > 3 * len(rows) and len(set(cut.ids)) == len(cut)
    assert after.notes["rows_in"] == 40 and after.notes["rows_out"] == len(cut)
    foreseen = passages(characters=30).foresee_rows({"all": rows}, bundle.task)
    assert len(foreseen["all"]) == len(cut)
    thirds = resolve("steps", {"split": {"validation": 0.25, "test": 0.25}}).foresee_rows(foreseen, bundle.task)
    assert [len(thirds[part]) for part in ("validation", "test")] == [round(len(cut) / 4)] * 2
    drawn = resolve("steps", {"sample": {"count": 17}}).foresee_rows(thirds, bundle.task)
    assert len(drawn["train"]) == 17 and drawn["test"] is thirds["test"]
    split = apply(resolve("steps", {"split": {"group": "who", "near": "off"}}), after, Run(tmp_path))
    parts = {name: set(part.column("who")) for name, part in split.data.splits.items()}
    assert parts["train"] and parts["test"] and not parts["train"] & parts["test"]


def test_wrong_settings_are_refused(tmp_path):
    with pytest.raises(WrongThing, match="overlap"):
        passages(characters=5, overlap=5)
    rows = rows_of({"text": ["a"], "n": [1]})
    bundle = bundle_of(TASK, "gpt", rows).replace(data=Data({"all": rows}), facts=frozenset({"rows", "loss"}))
    with pytest.raises(LuodiError, match="no column 'texts'"):
        apply(passages(column="texts"), bundle, Run(tmp_path))
    with pytest.raises(LuodiError, match="is no text"):
        apply(passages(column="n"), bundle, Run(tmp_path))
    with pytest.raises(LuodiError, match="no text of 'text' has 9 characters"):
        apply(passages(least=9), bundle, Run(tmp_path))
