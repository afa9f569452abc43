"""Candidates: what cheap models propose together.

They are judged by the share of the truth that they hold, before there is any ranker.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from recsys_utils.data.interactions import Interactions, codes, pair_ids
from recsys_utils.evaluation.slices import bought_before
from recsys_utils.models import Recommender
from recsys_utils.topk import BLOCK_BYTES, in_blocks, top_k

VOTE = 20  # places: a small number lets the first places of one generator decide
DEEP = 400  # places of a generator that have a vote
TOGETHER = "all together"


@dataclass
class Candidates:
    """(user, item) pairs by code, sorted by both, with each generator's score of every pair.

    A pair has all generators' scores, whichever of them proposed it.
    """

    user: np.ndarray  # (pairs,) int32
    item: np.ndarray  # (pairs,) int32
    scores: dict[str, np.ndarray]  # (pairs,) float32 by generator

    def __len__(self) -> int:
        return len(self.user)


def together(
    generators: Mapping[str, Recommender],
    users: np.ndarray,
    weights: Mapping[str, float],
    n: int,
    new: bool = False,
) -> Candidates:
    """The n items of each user that the generators place highest together, none twice.

    Each generator gives an item weight / (VOTE + place), which is reciprocal rank fusion
    (Cormack, Clarke and Büttcher 2009). One with weight 0 only scores what others propose.
    users: codes, ascending. new: items that the user bought are no candidates.
    The generators are fitted on the same interactions, so that codes mean the same.
    """
    first = next(iter(generators.values()))
    size = max(1, BLOCK_BYTES // (4 * len(first.item_ids_)))
    closed = first.seen_ if new else None
    parts = list(
        in_blocks(
            len(users),
            size,
            lambda rows: _block(generators, users[rows], weights, n, closed),
        )
    )
    user, item, *scores = (np.concatenate(columns) for columns in zip(*parts))
    return Candidates(user, item, dict(zip(generators, scores)))


def _block(
    generators: Mapping[str, Recommender],
    users: np.ndarray,
    weights: Mapping[str, float],
    n: int,
    banned: sparse.csr_matrix | None,
) -> tuple[np.ndarray, ...]:
    """User codes, item codes and each generator's scores of some users' candidates."""
    scores = {
        name: np.asarray(model._scores(users), np.float32) for name, model in generators.items()
    }
    is_closed = np.zeros(next(iter(scores.values())).shape, bool)
    if banned is not None:
        is_closed = banned[users].toarray() > 0
    for each in scores.values():
        is_closed |= each == -np.inf
    voters = [name for name in scores if weights[name]]
    open_scores = {name: np.where(is_closed, -np.inf, scores[name]) for name in voters}
    votes = fused(open_scores, weights, n)
    chosen = np.zeros_like(is_closed)
    np.put_along_axis(chosen, top_k(votes, n), True, axis=1)
    row, item = np.nonzero(chosen & (votes > 0) & ~is_closed)
    return (
        users[row].astype(np.int32),
        item.astype(np.int32),
        *(each[row, item] for each in scores.values()),
    )


def fused(scores: Mapping[str, np.ndarray], weights: Mapping[str, float], n: int) -> np.ndarray:
    """(users, items) votes of all generators: weight / (VOTE + place), 0 below place `DEEP` or n.

    >>> scores = {"a": np.array([[3.0, 2.0, 1.0]]), "b": np.array([[1.0, 2.0, 3.0]])}
    >>> np.round(fused(scores, {"a": 2, "b": 1}, 1).astype(float), 3).tolist()
    [[0.139, 0.136, 0.135]]
    """
    votes = np.zeros(next(iter(scores.values())).shape, np.float32)
    for name, each in scores.items():
        if weights[name]:
            best = top_k(each, max(n, DEEP))
            vote = weights[name] / (VOTE + 1 + np.arange(best.shape[1], dtype=np.float32))
            votes[np.arange(len(best))[:, None], best] += vote
    return votes


def held(candidates: Candidates, truth: pd.DataFrame, data: Interactions) -> np.ndarray:
    """(pairs,) bool: whether the user bought the item in the truth."""
    user = codes(truth["user_id"], data.user_ids).astype(np.int64)
    item = codes(truth["item_id"], data.item_ids)
    known = (user >= 0) & (item >= 0)
    return np.isin(
        pair_ids(candidates.user, candidates.item, data.shape[1]),
        pair_ids(user[known], item[known], data.shape[1]),
    )


def recall_curve(
    generators: Mapping[str, Recommender],
    weights: Mapping[str, float],
    truth: pd.DataFrame,
    data: Interactions,
    depths: tuple[int, ...] = (10, 25, 50, 100, 200, 400),
    new: bool = False,
) -> pd.DataFrame:
    """Share of the warm truth's pairs among n candidates per user: generator, n, recall.

    Of each generator alone, and of all `TOGETHER` as `together` chooses them, so that every row
    of one n has the same number of candidates. new: only what a user had not bought before is a
    candidate, or counts.
    """
    known = codes(truth["user_id"], data.user_ids) >= 0
    truth = truth[known][["user_id", "item_id"]].drop_duplicates()
    if new:
        truth = truth[~bought_before(truth, data)]
    closed = data.seen if new else None
    users, row = np.unique(codes(truth["user_id"], data.user_ids), return_inverse=True)
    item = codes(truth["item_id"], data.item_ids)
    size = max(1, BLOCK_BYTES // (4 * data.shape[1]))
    of_blocks = []
    for rows in (slice(start, start + size) for start in range(0, len(users), size)):
        mine = (row >= rows.start) & (row < rows.stop) & (item >= 0)
        at = row[mine] - rows.start, item[mine]
        of_blocks.append(_places(generators, weights, users[rows], at, max(depths), closed))
    place = np.concatenate(of_blocks, axis=1)
    table = []
    for n in depths:
        for name, of_generator in zip((*generators, TOGETHER), place):
            table.append((name, n, (of_generator < n).sum() / len(truth)))
    return pd.DataFrame(table, columns=["generator", "n", "recall"])


def places(user: np.ndarray, score: np.ndarray) -> np.ndarray:
    """(pairs,) place of each candidate among its user's, from 0; pairs are sorted by user.

    >>> places(np.array([0, 0, 1]), np.array([1.0, 2.0, 1.0])).tolist()
    [1, 0, 0]
    """
    place = np.empty(len(user), np.int64)
    place[np.lexsort((-score, user))] = np.arange(len(user)) - np.searchsorted(user, user)
    return place


def _places(
    generators: Mapping[str, Recommender],
    weights: Mapping[str, float],
    users: np.ndarray,
    at: tuple[np.ndarray, np.ndarray],
    n: int,
    closed: sparse.csr_matrix | None,
) -> np.ndarray:
    """(generators + 1, pairs) place from 0 of some cells, of each generator and of all together."""
    scores = {
        name: np.asarray(model._scores(users), np.float32) for name, model in generators.items()
    }
    if closed is not None:
        is_closed = closed[users].toarray() > 0
        scores = {name: np.where(is_closed, -np.inf, each) for name, each in scores.items()}
    of_each = [_ranks(each, n)[at] for each in scores.values()]
    votes = fused(scores, weights, n)
    if closed is not None:
        votes[is_closed] = -np.inf
    return np.stack([*of_each, _ranks(votes, n)[at]])


def _ranks(scores: np.ndarray, n: int) -> np.ndarray:
    """Rank of every item from 0; n for all below the n-th."""
    first = top_k(scores, n)
    ranks = np.full(scores.shape, n, np.int16)
    np.put_along_axis(ranks, first, np.arange(first.shape[1], dtype=np.int16)[None, :], axis=1)
    return ranks
