"""Limits: met, missed, undecided with what it would take, not measured; metric names; nothing else."""

from __future__ import annotations

import math

import pytest

from luodi.core.errors import LuodiError
from luodi.core.evidence import Change, Evidence, Measure
from luodi.core.limits import Limits, full_name, judge


def evidence(**measures: tuple[float, float, float, int]) -> Evidence:
    made = {k: Measure(value=v, low=low, high=high, count=n) for k, (v, low, high, n) in measures.items()}
    return Evidence(step=None, name="export", number=1, form="onnx", measures=made)


@pytest.mark.parametrize(
    ("measured", "allowed", "state"),
    [
        ((4.0, 3.5, 4.5, 1000), 5.0, "met"),
        ((4.0, 3.5, 5.0, 1000), 5.0, "met"),  # the interval may touch the limit
        ((6.0, 5.5, 6.5, 1000), 5.0, "missed"),
        ((4.9, 4.5, 5.3, 1000), 5.0, "undecided"),
        ((5.1, 4.7, 5.5, 1000), 5.0, "undecided"),
    ],
)
def test_interval_decides(measured, allowed, state):
    (verdict,) = judge(Limits(p50_ms=allowed), evidence(p50_ms=measured), {})
    assert verdict.state == state and verdict.limit == "p50_ms" and verdict.value == measured[0]
    assert f"{allowed:g}" in verdict.words


def test_the_distance_is_told():
    (missed,) = judge(Limits(size_mb=2), evidence(size_mb=(3.0, 3.0, 3.0, 1)), {})
    assert "missed by 1 " in missed.words and "50%" in missed.words
    (met,) = judge(Limits(size_mb=4), evidence(size_mb=(3.0, 3.0, 3.0, 1)), {})
    assert "met by 1 " in met.words and "25%" in met.words


def test_undecided_says_how_many_it_would_take():
    # Half the interval is 0.4, the distance 0.1: it must shrink four times, so sixteen times the calls.
    (verdict,) = judge(Limits(p50_ms=5.0), evidence(p50_ms=(4.9, 4.5, 5.3, 1000)), {})
    assert verdict.state == "undecided"
    told = int(verdict.words.partition("about ")[2].partition(" ")[0].replace(",", ""))
    assert 16_000 <= told <= 16_001 and "there were 1,000" in verdict.words
    (on_it,) = judge(Limits(p50_ms=5.0), evidence(p50_ms=(5.0, 4.5, 5.5, 1000)), {})
    assert "no number" in on_it.words


def test_what_was_not_measured_is_not_met():
    (verdict,) = judge(Limits(p99_ms=5), evidence(p50_ms=(1, 1, 1, 40)), {})
    assert verdict.state == "not measured" and verdict.value is None and "not measured" in verdict.words
    (drop,) = judge(Limits(drop={"accuracy": 0.01}), evidence(), {})
    assert drop.state == "not measured"


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_figure_that_is_no_number_is_not_met(broken):
    (verdict,) = judge(Limits(p50_ms=5.0), evidence(p50_ms=(broken, broken, broken, 100)), {})
    assert verdict.state in ("not measured", "missed"), verdict
    lost = {"label.auc": Change(value=math.nan, low=math.nan, high=math.nan)}
    (drop,) = judge(Limits(drop={"auc": 0.1}), evidence(), lost)
    assert drop.state == "not measured"


def test_drops_are_losses_on_the_same_rows():
    last = evidence(**{"label.accuracy": (0.93, 0.92, 0.94, 1000)})
    lost = {"label.accuracy": Change(value=0.012, low=0.004, high=0.02), "label.loss": Change(value=0, low=0, high=0)}
    states = {}
    for allowed in (0.03, 0.015, 0.003):
        (verdict,) = judge(Limits(drop={"accuracy": allowed}), last, lost)
        states[allowed] = verdict.state
        assert verdict.limit == "drop.accuracy"
    assert states == {0.03: "met", 0.015: "undecided", 0.003: "missed"}
    gained = {"label.accuracy": Change(value=-0.02, low=-0.03, high=-0.01)}
    (verdict,) = judge(Limits(drop={"label.accuracy": 0.0}), last, gained)
    assert verdict.state == "met"


def test_a_metric_may_go_without_its_target_while_one_has_it():
    known = ["label.accuracy", "label.f1", "price.rmse", "shop.f1"]
    assert full_name("accuracy", known) == "label.accuracy"
    assert full_name("price.rmse", known) == "price.rmse"
    with pytest.raises(LuodiError, match=r"several targets.*label\.f1, shop\.f1"):
        full_name("f1", known)
    with pytest.raises(LuodiError, match=r"did you mean 'label\.accuracy'"):
        full_name("label.acuracy", known)


def test_limits_are_positive():
    for name in ("p50_ms", "size_mb", "memory_mb", "process_mb"):
        with pytest.raises(ValueError, match="greater than 0"):
            Limits(**{name: 0})
