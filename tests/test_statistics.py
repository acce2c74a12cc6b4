"""Intervals against closed forms, coverage counted, paired against unpaired."""

from __future__ import annotations

import math

import numpy as np
import pytest

from luodi.core.evidence import Change, Measure
from luodi.core.statistics import bootstrap, exact, judge, quantile, repeated


def share(values: np.ndarray):
    return lambda rows: {"accuracy": float(values[rows].mean())}


@pytest.mark.parametrize(("count", "rate"), [(400, 0.5), (1000, 0.9), (2000, 0.2)])
def test_interval_of_a_share_is_the_binomial_one(count, rate):
    """The bootstrap of a mean of zeros and ones is Binomial(n, p) / n: 1.96 standard errors each way."""
    values = (np.arange(count) < rate * count).astype(float)
    found = bootstrap(share(values), None, count, 4000, {"accuracy": "higher"})["accuracy"]
    half = 1.96 * math.sqrt(rate * (1 - rate) / count)
    assert found.value == pytest.approx(rate) and found.count == count
    assert found.low == pytest.approx(rate - half, abs=0.12 * half)
    assert found.high == pytest.approx(rate + half, abs=0.12 * half)
    assert found.change is None and found.verdict is None


def test_same_data_same_interval():
    values = np.random.default_rng(0).random(50)
    first, second = (bootstrap(share(values), None, 50, 100, {}) for _ in range(2))
    assert first == second


def test_paired_interval_is_the_closed_form_and_narrower():
    """20 of 1,000 rows get worse, 10 better: the change is -0.01, its error that of the differences."""
    dice = np.random.default_rng(1)
    before = (dice.random(1000) < 0.9).astype(float)
    after = before.copy()
    after[np.flatnonzero(before == 1)[:20]] = 0
    after[np.flatnonzero(before == 0)[:10]] = 1
    found = bootstrap(share(after), share(before), 1000, 4000, {"accuracy": "higher"})["accuracy"]
    change = found.change
    assert change is not None and change.value == pytest.approx(-0.01)
    half = 1.96 * float(np.std(after - before)) / math.sqrt(1000)
    assert (change.high - change.low) / 2 == pytest.approx(half, rel=0.1)
    unpaired = 1.96 * math.sqrt((np.var(after) + np.var(before)) / 1000)
    assert (change.high - change.low) / 2 < 0.6 * unpaired
    assert found.verdict == "undecided"


def test_a_paired_loss_is_found_where_the_unpaired_is_noise():
    before = (np.random.default_rng(2).random(500) < 0.9).astype(float)
    after = before.copy()
    after[np.flatnonzero(before == 1)[:12]] = 0
    found = bootstrap(share(after), share(before), 500, 1000, {"accuracy": "higher"})["accuracy"]
    assert found.verdict == "worse"
    assert found.high > share(before)(np.arange(500))["accuracy"] - 0.024  # alone, the interval holds no verdict
    same = bootstrap(share(before), share(before), 500, 200, {"accuracy": "higher"})["accuracy"]
    unseen = 1 - 0.025 ** (1 / 500)  # no row moved: the verdict is of these rows, the bounds of all that they stand for
    assert same.verdict == "same" and same.change == Change(value=0, low=-unseen, high=unseen)


def test_rows_that_are_all_right_do_not_show_that_all_are():
    found = bootstrap(share(np.ones(36)), None, 36, 100, {"accuracy": "higher"})["accuracy"]
    assert found.value == found.high == 1
    assert abs(found.low - 0.902607) < 1e-6  # Clopper and Pearson's exact lower bound of 36 in 36


def test_coverage_of_the_bootstrap():
    """95% intervals hold the true mean in about 95% of 200 samples (3 standard errors are 4.6%)."""
    dice = np.random.default_rng(3)
    held = 0
    for _ in range(200):
        values = (dice.random(200) < 0.7).astype(float)
        found = bootstrap(share(values), None, 200, 200, {})["accuracy"]
        held += found.low <= 0.7 <= found.high
    assert held / 200 >= 0.904, held / 200


@pytest.mark.parametrize(("count", "part"), [(40, 0.5), (200, 0.5), (1000, 0.95), (1000, 0.99)])
def test_coverage_of_a_quantile(count, part):
    """Order statistics hold the true quantile of a skewed distribution in 95% of samples or a little more."""
    dice = np.random.default_rng(4)
    true = float(np.exp(0.5 * _normal_quantile(part)))
    held = 0
    for _ in range(400):
        found = quantile(np.exp(0.5 * dice.normal(size=count)), part)
        held += found.low <= true <= found.high
        assert found.low <= found.value <= found.high and found.count == count
    assert 0.925 <= held / 400 <= 0.995, held / 400


def _normal_quantile(part: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(part)


def test_quantile_of_few_calls_stays_inside():
    found = quantile(np.asarray([3.0, 1.0, 2.0]), 0.95)
    assert found.low >= 1.0 and found.high == 3.0


def test_paired_calls_share_their_disturbance():
    """Both run slow at the same moments; 5% faster is still seen, and equal calls are not told apart."""
    dice = np.random.default_rng(5)
    weather = np.repeat(np.exp(dice.normal(0, 0.4, 50)), 20)
    before = weather * np.exp(dice.normal(0, 0.02, 1000))
    again = weather * np.exp(dice.normal(0, 0.02, 1000))
    assert quantile(0.8 * again, 0.5, before).verdict == "better"
    assert quantile(1.25 * again, 0.5, before).verdict == "worse"
    assert quantile(again, 0.5, before).verdict == "undecided"


def test_false_verdicts_are_rare():
    """Of 40 comparisons of a model with itself at most 5 give a verdict (2 are expected)."""
    dice = np.random.default_rng(6)
    wrong = sum(
        quantile(dice.lognormal(0, 0.3, 100), 0.5, dice.lognormal(0, 0.3, 100)).verdict != "undecided"
        for _ in range(40)
    )
    assert wrong <= 5, wrong


def test_judge():
    assert judge(Change(value=1, low=0.5, high=2), "higher") == "better"
    assert judge(Change(value=1, low=0.5, high=2), "lower") == "worse"
    assert judge(Change(value=-1, low=-2, high=-0.5), "lower") == "better"
    assert judge(Change(value=1, low=-0.5, high=2), "higher") == "undecided"
    assert judge(Change(value=0, low=0, high=0), "higher") == "same"
    assert judge(Change(value=math.nan, low=math.nan, high=math.nan), "higher") == "undecided"


def test_exact_and_repeated():
    assert exact(3.0, 4.0).verdict == "better" and exact(4.0, 4.0).verdict == "same" and exact(1.0).change is None
    weighed = repeated([10.0, 30.0, 12.0])
    assert (weighed.value, weighed.low, weighed.high, weighed.count) == (12.0, 10.0, 30.0, 3)
    old = Measure(value=50, low=40, high=60, count=3)
    assert repeated([10.0, 30.0, 12.0], old).verdict == "better"
    assert repeated([10.0, 45.0, 12.0], old).verdict == "undecided"


def test_a_metric_without_a_value_in_a_resample_does_not_poison_the_interval():
    """Areas under curves are nan where a resample holds one class only."""
    values = np.arange(20.0)
    draws = iter(range(10_000))

    def score(rows: np.ndarray) -> dict[str, float]:
        return {"auc": math.nan if next(draws) % 7 == 3 else float(values[rows].mean())}

    found = bootstrap(score, None, 20, 100, {"auc": "higher"})["auc"]
    assert math.isfinite(found.low) and found.low < 9.5 < found.high
