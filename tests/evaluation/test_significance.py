"""Intervals and tests against known answers: by hand, by simulation, by the t-test."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from recsys_utils.evaluation.significance import bootstrap, holm, letters, paired_tests

PROBABILITIES = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def uniform(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(n)


def p_of(a: list[float], b: list[float]) -> float:
    return paired_tests(pd.DataFrame({"a": a, "b": b}))["p"].item()


def test_bootstrap_intervals_cover_the_truth_19_times_in_20() -> None:
    draws = np.random.default_rng(0).random((150, 400)) < 0.3
    mean, low, high = bootstrap(draws.astype(float), np.random.default_rng(1), times=400)
    covered = (low <= 0.3) & (high >= 0.3)
    assert np.allclose(mean, draws.mean(axis=0))
    assert (low <= mean).all()
    assert (mean <= high).all()
    assert 0.91 < covered.mean() < 0.98


def test_bootstrap_width_is_that_of_the_normal_approximation() -> None:
    x = np.random.default_rng(0).normal(size=(400, 1))
    _, low, high = bootstrap(x, np.random.default_rng(1))
    assert (high - low).item() == pytest.approx(2 * 1.96 * x.std() / 20, rel=0.1)


def test_bootstrap_keeps_shapes_and_constants() -> None:
    for part in bootstrap(np.full((9, 2, 3), 0.25), np.random.default_rng(0)):
        assert part.shape == (2, 3)
        assert np.allclose(part, 0.25)


@pytest.mark.parametrize(
    ("p", "corrected"),
    [([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]), ([0.6, 0.9], [1, 1])],
)
def test_holm_by_hand(p: list[float], corrected: list[float]) -> None:
    assert holm(np.array(p)) == pytest.approx(corrected)


@given(PROBABILITIES)
def test_holm_lies_between_the_raw_and_bonferroni_and_keeps_the_order(p: list[float]) -> None:
    raw = np.array(p)
    corrected = holm(raw)
    assert (corrected >= raw).all()
    assert (corrected <= np.minimum(raw * len(raw), 1) + 1e-12).all()
    assert (np.diff(corrected[np.argsort(raw, kind="stable")]) >= 0).all()


def test_identical_models_have_p_of_one() -> None:
    assert p_of(uniform(50), uniform(50)) == 1


def test_a_clear_winner_has_a_small_p() -> None:
    x = uniform(100)
    test = paired_tests(pd.DataFrame({"a": x + 0.2, "b": x})).iloc[0]
    assert test["p"] < 0.001
    assert test["difference"] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("a", "b", "p"),
    [
        ([1, 1, 1], [0, 0, 0], 2 / 8),  # two of the eight sign patterns are as extreme
        ([1, 1, 0], [0, 0, 1], 1),  # all patterns are
        ([3, 1, 1], [0, 0, 0], 2 / 8),
        ([3, 1, 0], [0, 0, 1], 6 / 8),
    ],
)
def test_few_users_get_the_exact_permutation_test(a: list, b: list, p: float) -> None:
    assert p_of(a, b) == pytest.approx(p, abs=0.02)


def test_many_models_do_not_hide_a_clear_winner() -> None:
    """Holm multiplies the smallest p by the number of pairs: with few flips all would tie."""
    values = pd.DataFrame(np.random.default_rng(0).random((300, 40))).add_prefix("m")
    values["best"] = values["m0"] + 0.3
    won = paired_tests(values).query("p_holm < 0.05")
    assert ((won["model_a"] == "best") | (won["model_b"] == "best")).sum() == 40


def test_the_test_is_symmetric() -> None:
    a, b = uniform(40, 0), uniform(40, 1)
    ab = paired_tests(pd.DataFrame({"a": a, "b": b})).iloc[0]
    ba = paired_tests(pd.DataFrame({"b": b, "a": a})).iloc[0]
    assert ab["p"] == ba["p"]
    assert ab["difference"] == -ba["difference"]


def test_the_test_agrees_with_the_t_test_where_that_is_right() -> None:
    values = pd.DataFrame(np.random.default_rng(4).random((80, 24)))
    tests = paired_tests(values)
    t_test = ttest_rel(values[tests["model_a"]], values[tests["model_b"]]).pvalue
    assert len(tests) == 24 * 23 / 2
    assert np.abs(tests["p"] - t_test).max() < 0.03
    assert 0.02 < (tests["p"] < 0.05).mean() < 0.08


def test_the_test_looks_at_pairs_not_at_the_spread_between_users() -> None:
    users = np.linspace(0, 1, 60)
    assert p_of(users + 0.01, users) < 0.001


def test_letters_name_the_models_beaten() -> None:
    x = uniform(200)
    values = pd.DataFrame({"low": x, "top": x + 1, "mid": x + 0.5, "twin": x + 0.5})
    ranking = letters(values)
    assert ranking.index.tolist() == ["top", "mid", "twin", "low"]
    assert ranking["letter"].tolist() == list("abcd")
    assert ranking["beats"].tolist() == ["b c d", "d", "d", ""]
    assert ranking["mean"].is_monotonic_decreasing


def test_letters_without_a_winner_alone_and_beyond_the_alphabet() -> None:
    x = uniform(30)
    assert letters(pd.DataFrame({"a": x, "b": x}))["beats"].tolist() == ["", ""]
    assert letters(pd.DataFrame({"a": x}))["letter"].tolist() == ["a"]
    many = letters(pd.DataFrame({f"m{n}": x for n in range(30)}))["letter"]
    assert many.is_unique
    assert many.iloc[-1] == "d1"
