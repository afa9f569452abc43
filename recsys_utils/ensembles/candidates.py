"""Candidates: what cheap models would offer, together.

Judged by how much of the truth they hold before any ranker exists.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from recsys_utils.data.interactions import Interactions, codes, pair_ids
from recsys_utils.models import Recommender
from recsys_utils.topk import BLOCK_BYTES, in_blocks, top_k


@dataclass
class Candidates:
    """(user, item) pairs by code, sorted by both, with each generator's score of every pair,
    whoever proposed it.
    """

    user: np.ndarray  # (pairs,) int32
    item: np.ndarray  # (pairs,) int32
    scores: dict[str, np.ndarray]  # (pairs,) float32 by generator

    def __len__(self) -> int:
        return len(self.user)


def union(
    generators: Mapping[str, Recommender],
    users: np.ndarray,
    n: Mapping[str, int],
    new: bool = False,
) -> Candidates:
    """The first n[name] items of each generator for each user, none twice.

    new: items that the user bought are no candidates.

    users: codes, ascending. n[name] = 0: it only scores what others propose. The generators are
    fitted on the same interactions, so that codes mean the same.
    """
    first = next(iter(generators.values()))
    size = max(1, BLOCK_BYTES // (4 * len(first.item_ids_)))
    parts = list(
        in_blocks(
            len(users),
            size,
            lambda rows: _block(generators, users[rows], n, first.seen_ if new else None),
        )
    )
    user, item, *scores = (np.concatenate(columns) for columns in zip(*parts))
    return Candidates(user, item, dict(zip(generators, scores)))


def _block(
    generators: Mapping[str, Recommender], users: np.ndarray, n: Mapping[str, int], banned: object
) -> tuple[np.ndarray, ...]:
    scores = {
        name: np.asarray(model._scores(users), np.float32) for name, model in generators.items()
    }
    closed = (
        np.zeros((len(users), next(iter(scores.values())).shape[1]), bool)
        if banned is None
        else banned[users].toarray() > 0
    )
    chosen = np.zeros_like(closed)
    for name, each in scores.items():
        closed |= each == -np.inf
        if n[name]:
            np.put_along_axis(chosen, top_k(np.where(closed, -np.inf, each), n[name]), True, axis=1)
    row, item = np.nonzero(chosen & ~closed)
    return (
        users[row].astype(np.int32),
        item.astype(np.int32),
        *(each[row, item] for each in scores.values()),
    )


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
    truth: pd.DataFrame,
    data: Interactions,
    depths: tuple[int, ...] = (10, 25, 50, 100, 200, 400),
) -> pd.DataFrame:
    """Share of the warm truth's pairs among each generator's first n items, and among the union of
    all: generator, n, recall, candidates.

    candidates: mean number per user. Each generator scores once, for the deepest n.
    """
    truth = truth[codes(truth["user_id"], data.user_ids) >= 0][
        ["user_id", "item_id"]
    ].drop_duplicates()
    users, row = np.unique(codes(truth["user_id"], data.user_ids), return_inverse=True)
    item = codes(truth["item_id"], data.item_ids)
    size = max(1, BLOCK_BYTES // (4 * data.shape[1]))
    parts = list(
        in_blocks(
            len(users), size, lambda rows: _reached(generators, users, rows, row, item, depths)
        )
    )
    ranks = np.concatenate([part[0] for part in parts], axis=1)
    sizes = sum(part[1] for part in parts)
    return pd.DataFrame(
        [
            (name, n, (ranks[i] < n).sum() / len(truth), sizes[i, j] / len(users))
            for j, n in enumerate(depths)
            for i, name in enumerate((*generators, "union"))
        ],
        columns=["generator", "n", "recall", "candidates"],
    )


def _reached(
    generators: Mapping[str, Recommender],
    users: np.ndarray,
    rows: slice,
    row: np.ndarray,
    item: np.ndarray,
    depths: tuple[int, ...],
) -> tuple[np.ndarray, np.ndarray]:
    """(generators + 1, truth's pairs of these users that are known) ranks, and (generators + 1,
    depths) numbers of candidates.
    """
    ranks = [
        _ranks(np.asarray(model._scores(users[rows]), np.float32), max(depths))
        for model in generators.values()
    ]
    ranks.append(np.minimum.reduce(ranks))
    mine = (row >= rows.start) & (row < rows.stop) & (item >= 0)
    return np.stack([r[row[mine] - rows.start, item[mine]] for r in ranks]), np.array(
        [[(r < n).sum() for n in depths] for r in ranks]
    )


def _ranks(scores: np.ndarray, n: int) -> np.ndarray:
    """Rank of every item from 0; n for all below the n-th."""
    first = top_k(scores, n)
    ranks = np.full(scores.shape, n, np.int16)
    np.put_along_axis(ranks, first, np.arange(first.shape[1], dtype=np.int16)[None, :], axis=1)
    return ranks
