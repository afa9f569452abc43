"""Exact top-k with a fixed order of ties, against a stable sort."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_utils.topk import in_blocks, top_k


def slow(scores: np.ndarray, k: int) -> np.ndarray:
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


@pytest.mark.spec("C4")
@settings(max_examples=150)
@given(
    rows=st.integers(1, 6),
    n=st.integers(1, 700),
    k=st.integers(1, 250),
    levels=st.sampled_from([1, 2, 3, 20, 10_000]),
    seed=st.integers(0, 2**32 - 1),
)
def test_top_k_is_a_stable_sort(rows: int, n: int, k: int, levels: int, seed: int) -> None:
    """Few levels: many ties, so that the crowded rows are thinned; many levels: none."""
    scores = np.random.default_rng(seed).integers(0, levels, (rows, n)).astype(np.float32)
    assert np.array_equal(top_k(scores, k), slow(scores, k))


@settings(max_examples=60)
@given(
    n=st.integers(1, 300),
    k=st.integers(1, 60),
    closed=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_forbidden_columns_come_last_even_where_all_are_forbidden(
    n: int, k: int, closed: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    scores = np.where(rng.random((3, n)) < closed, -np.inf, rng.integers(0, 5, (3, n))).astype(
        np.float32
    )
    assert np.array_equal(top_k(scores, k), slow(scores, k))


def test_k_above_the_number_of_columns_gives_all_columns() -> None:
    assert top_k(np.array([[1.0, 3.0, 2.0]]), 9).tolist() == [[1, 2, 0]]


def test_equal_scores_stay_in_order_of_columns() -> None:
    assert top_k(np.zeros((2, 5_000), np.float32), 3).tolist() == [[0, 1, 2]] * 2


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    scores = np.random.default_rng(0).integers(0, 4, (40, 400)).astype(np.float32)
    alone = np.concatenate([top_k(row[None], 20) for row in scores])
    assert np.array_equal(top_k(scores, 20), alone)


def test_the_input_is_left_as_it_was() -> None:
    scores = np.random.default_rng(0).random((4, 300))
    before = scores.copy()
    top_k(scores, 5)
    assert np.array_equal(scores, before)


@given(n=st.integers(0, 50), size=st.integers(1, 60))
def test_blocks_cover_everything_once_in_order(n: int, size: int) -> None:
    assert [i for block in in_blocks(n, size, lambda rows: range(n)[rows]) for i in block] == list(
        range(n)
    )
