"""Features that find items new to a shopper: the words of names, and what sells lately.

One value per candidate, from receipts before the cut only. A shop without names has no words.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.utils.extmath import randomized_svd

from recsys_utils.data.interactions import Interactions, pair_ids
from recsys_utils.ensembles.candidates import Candidates
from recsys_utils.models.next_basket import basket_positions
from recsys_utils.topk import BLOCK_BYTES

WORD = re.compile(r"[^\W\d_]{2,}")  # letters: sizes and codes tell little of what a thing is
TASTES = (15, 60, 365)  # days of decay
TOPICS = 64  # dimensions of the words' embedding
LATELY = (3, 7, 14)  # days
USUAL = 91  # days that tell what is usual
PAUSE = 28  # days without a sale after which an item is back


@dataclass
class Finders:
    """What a history tells of new items, made once for all blocks of candidates."""

    history: Interactions

    def words(self, pairs: Candidates) -> dict[str, np.ndarray]:
        """How alike a candidate's name is to the names of what else the shopper bought.

        `words_15`, `words_60`, `words_365`: mean cosine of TF-IDF vectors, weighted by recency;
        `words_last`: to the last basket; `words_topic_…`: the same of an embedding of the words
        learnt from the shop's own names (latent semantic analysis, Deerwester et al. 1990);
        `words_trend`: sales lately over usual of items with the same words. Nothing where items
        have no names.
        """
        if not self.vectors.nnz:
            return {}
        result = {}
        for name, taste in self.tastes.items():
            result[f"words_{name}"] = _alike(pairs, taste, self.vectors)
        for name in ("60", "last"):
            result[f"words_topic_{name}"] = _alike(pairs, self.tastes[name], self.topics)
        result["words_trend"] = self.trend[pairs.item]
        return result

    def momentum(self, pairs: Candidates) -> dict[str, np.ndarray]:
        """What the shop sells more of than usual.

        `momentum_3`, `_7`, `_14`: the item's sales of so many days over what its sales of 91 days
        let expect, both plus one; `momentum_found_…`: its share of all first purchases by a
        shopper; `momentum_finders`: those over expected; `momentum_back`: days since it sold again
        after 28 days without a sale, NaN without such a pause.
        """
        return {name: value[pairs.item] for name, value in self.by_item.items()}

    @cached_property
    def vectors(self) -> sparse.csr_matrix:
        """(items, words) CSR: see `word_vectors`."""
        return word_vectors(self.history)

    @cached_property
    def topics(self) -> sparse.csr_matrix:
        """(items, topics) CSR embedding of names."""
        return sparse.csr_matrix(_topics(self.vectors))

    @cached_property
    def tastes(self) -> dict[str, sparse.csr_matrix]:
        """Users × items, what was bought by decay in days, and in the last basket."""
        history = self.history
        place = basket_positions(history)[0]
        result = {str(tau): history.matrix(tau) for tau in TASTES}
        result["last"] = history.matrix(weights=(place == 0).astype(float))
        return result

    @cached_property
    def trend(self) -> np.ndarray:
        """(items,) sales lately over usual of items with the same words."""
        kind = self.vectors.power(2)
        lately = kind @ (kind.T @ _share(self.history, LATELY[-1]))
        usual = kind @ (kind.T @ _share(self.history, USUAL))
        return lately / np.maximum(usual, 1e-9)

    @cached_property
    def by_item(self) -> dict[str, np.ndarray]:
        """(items,) each of the columns of `momentum`."""
        history = self.history
        n_items = history.shape[1]
        first = pd.Series(history.age).groupby(pair_ids(history.user, history.item, n_items)).max()
        found = first.index.to_numpy() % n_items, first.to_numpy()
        sold = history.item, history.age
        result = {f"momentum_{days}": _over_usual(*sold, n_items, days) for days in LATELY}
        for days in LATELY[1:]:
            counts = _lately(*found, n_items, days)
            result[f"momentum_found_{days}"] = counts / max(counts.sum(), 1)
        result["momentum_finders"] = _over_usual(*found, n_items, LATELY[-1])
        result["momentum_back"] = _back(history)
        return result


def word_vectors(history: Interactions) -> sparse.csr_matrix:
    """(items, words) CSR float32: TF-IDF of the names' words, rows of length 1.

    A word of one item alone says nothing of another, and is left out.
    """
    names = history.items["name"] if "name" in history.items else pd.Series(dtype=str)
    found = names.fillna("").astype(str).str.lower().map(lambda name: sorted({*WORD.findall(name)}))
    row = np.repeat(np.arange(len(found)), found.map(len).to_numpy(int))
    column, vocab = pd.factorize(found.explode().dropna(), sort=True)
    items = np.bincount(column, minlength=len(vocab))
    rarity = np.log(len(found) / items[column])
    x = sparse.csr_matrix((rarity, (row, column)), (history.shape[1], len(vocab)))[:, items > 1]
    length = np.sqrt(np.asarray(x.multiply(x).sum(axis=1)).ravel())
    scaled = x.multiply(1 / np.maximum(length, 1e-12)[:, None])
    return sparse.csr_matrix(scaled, dtype=np.float32)


def _topics(vectors: sparse.csr_matrix) -> np.ndarray:
    """(items, topics) float32 embedding of names, rows of length 1 or 0."""
    size = min(TOPICS, min(vectors.shape) - 1)
    if size < 1:
        return vectors.toarray()
    u, s, _ = randomized_svd(vectors, size, n_iter=3, random_state=0)
    result = u * s
    return (result / np.maximum(np.linalg.norm(result, axis=1, keepdims=True), 1e-9)).astype(
        np.float32
    )


def _alike(pairs: Candidates, taste: sparse.csr_matrix, vectors: sparse.csr_matrix) -> np.ndarray:
    """(pairs,) mean similarity of the candidate to the shopper's other items, weighted by taste.

    NaN for a shopper without other items. taste: users × items; vectors: items × dimensions.
    """
    like = np.empty(len(pairs))
    for rows in _blocks(pairs.user, vectors.shape[1]):
        like[rows] = _products(pairs.user[rows], pairs.item[rows], taste, vectors)
    own = np.asarray(taste[pairs.user, pairs.item]).ravel()
    others = np.asarray(taste.sum(axis=1)).ravel()[pairs.user] - own
    itself = np.asarray(vectors.multiply(vectors).sum(axis=1)).ravel()[pairs.item]
    has_others = others > 1e-6 * (own + others)
    return np.where(has_others, (like - own * itself) / np.where(has_others, others, 1), np.nan)


def _products(
    user: np.ndarray, item: np.ndarray, taste: sparse.csr_matrix, vectors: sparse.csr_matrix
) -> np.ndarray:
    """(pairs,) product of the user's profile, taste @ vectors, and the item's vector."""
    users, place = np.unique(user, return_inverse=True)
    profile = (taste[users] @ vectors).toarray()
    mine = vectors[item]
    pair = np.repeat(np.arange(len(item)), np.diff(mine.indptr))
    products = mine.data * profile[place[pair], mine.indices]
    return np.bincount(pair, products, len(item))


def _blocks(user: np.ndarray, width: int) -> Iterator[slice]:
    """Stretches of pairs, sorted by user, whose users' dense profiles take a bounded memory."""
    starts = np.flatnonzero(np.diff(user, prepend=-1))
    edges = np.append(starts[:: max(1, BLOCK_BYTES // (4 * width))], len(user))
    return (slice(a, b) for a, b in zip(edges, edges[1:]))


def _lately(item: np.ndarray, age: np.ndarray, n: int, days: float) -> np.ndarray:
    """(items,) how many of the rows are at most so many days old."""
    return np.bincount(item[age <= days], minlength=n)


def _share(history: Interactions, days: float) -> np.ndarray:
    """(items,) share of the shop's lines of the last days."""
    counts = _lately(history.item, history.age, history.shape[1], days)
    return counts / max(counts.sum(), 1)


def _over_usual(item: np.ndarray, age: np.ndarray, n: int, days: float) -> np.ndarray:
    """(items,) rows of the last days over those expected from 91 days, both plus one."""
    lately = _lately(item, age, n, days)
    usual = _lately(item, age, n, USUAL)
    return (lately + 1) / (usual * lately.sum() / max(usual.sum(), 1) + 1)


def _back(history: Interactions) -> np.ndarray:
    """(items,) days since the first sale after the latest pause, NaN without a pause."""
    n_days = int(history.age.max()) + 1
    sold_on = pair_ids(history.item, history.age.astype(np.int64), n_days)
    sales = np.sort(pd.unique(sold_on))
    item = sales // n_days
    day = sales % n_days  # of an item the newest first
    ends_pause = (item[1:] == item[:-1]) & (np.diff(day) >= PAUSE)
    latest = pd.Series(day[:-1][ends_pause]).groupby(item[:-1][ends_pause]).min()
    return latest.reindex(range(history.shape[1])).to_numpy(float)
