"""Our hot paths beside the libraries' own, in one process and in turn."""

import statistics
import time
from collections.abc import Callable

import recsys_utils  # noqa: F401 - sets the BLAS threads before numpy loads

# isort: split
import numpy as np
import pandas as pd
from scipy import sparse

from recsys_utils.evaluation.metrics import per_user
from recsys_utils.topk import in_blocks, top_k

USERS = 100_000
ITEMS = 5_000
FACTORS = 64
SEEN = 50
K = 10


def measure(name: str) -> dict:
    """Median seconds of ours and theirs over three turns, and theirs / ours."""
    ours, theirs = {"top-k": _top_k, "top-k filtered": _top_k_filtered, "metrics": _metrics}[name]()
    ours(), theirs()
    pairs = [(_seconds(ours), _seconds(theirs)) for _ in range(3)]
    mine, other = (statistics.median(side) for side in zip(*pairs))
    return {
        "seconds": round(mine, 3),
        "theirs": round(other, 3),
        "ratio": round(statistics.median(b / a for a, b in pairs), 2),
    }


def _factors() -> tuple[np.ndarray, np.ndarray, sparse.csr_matrix]:
    rng = np.random.default_rng(0)
    users, items = (rng.standard_normal((n, FACTORS), dtype=np.float32) for n in (USERS, ITEMS))
    columns = np.sort(rng.integers(0, ITEMS, (USERS, SEEN)), axis=1).ravel()
    seen = sparse.csr_matrix(
        (np.ones(len(columns), np.float32), columns, np.arange(0, len(columns) + 1, SEEN)),
        shape=(USERS, ITEMS),
    )
    return users, items, seen


def _ours(
    users: np.ndarray, items: np.ndarray, seen: sparse.csr_matrix | None
) -> Callable[[], np.ndarray]:
    """Scores and top k in blocks, as Recommender.recommend does."""
    across = np.ascontiguousarray(items.T)

    def block(rows: slice) -> np.ndarray:
        scores = users[rows] @ across
        if seen is not None:
            part = seen[rows]
            scores[np.repeat(np.arange(len(scores)), np.diff(part.indptr)), part.indices] = -np.inf
        return top_k(scores, K)

    return lambda: np.vstack(list(in_blocks(USERS, 256, block)))


def _implicit(
    users: np.ndarray, items: np.ndarray, seen: sparse.csr_matrix, filtered: bool
) -> Callable[[], object]:
    from implicit.cpu.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(FACTORS)
    model.user_factors = users
    model.item_factors = items
    return lambda: model.recommend(np.arange(USERS), seen, N=K, filter_already_liked_items=filtered)


def _top_k() -> tuple[Callable, Callable]:
    users, items, seen = _factors()
    return _ours(users, items, None), _implicit(users, items, seen, filtered=False)


def _top_k_filtered() -> tuple[Callable, Callable]:
    users, items, seen = _factors()
    return _ours(users, items, seen), _implicit(users, items, seen, filtered=True)


def _metrics() -> tuple[Callable, Callable]:
    """Five metrics at 10 of 100,000 users, from tables.

    ranx gets its own objects, so its conversion is not counted.
    """
    from ranx import Qrels, Run, evaluate

    rng = np.random.default_rng(0)
    names = pd.Index([f"i{i}" for i in range(ITEMS)])
    users = pd.Index([f"u{u}" for u in range(USERS)])
    row = np.repeat(np.arange(USERS), K)
    recs = pd.DataFrame(
        {
            "user_id": pd.Categorical.from_codes(row, users),
            "rank": np.tile(np.arange(1, K + 1), USERS),
            "item_id": pd.Categorical.from_codes(
                ((row * 7 + np.tile(np.arange(K), USERS) * 13) % ITEMS), names
            ),
        }
    )
    truth = pd.DataFrame(
        {
            "user_id": pd.Categorical.from_codes(row, users),
            "item_id": pd.Categorical.from_codes(
                rng.integers(0, 200, len(row)) * 25 % ITEMS, names
            ),
        }
    ).drop_duplicates()
    text = truth.astype(str).assign(one=1)
    scored = recs.astype({"user_id": str, "item_id": str}).assign(score=1.0 / recs["rank"])
    qrels = Qrels.from_df(text, "user_id", "item_id", "one")
    run = Run.from_df(scored, "user_id", "item_id", "score")
    wanted = [f"{m}@{K}" for m in ("precision", "recall", "ndcg", "map", "mrr")]
    return (lambda: per_user(recs, truth, K)), (lambda: evaluate(qrels, run, wanted))


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
