"""LightFM: vectors of users and items are sums over their attributes.

So users and items without history have vectors too.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import lightfm
import numpy as np
import pandas as pd
from scipy import sparse
from tqdm import tqdm

from recsys_utils import LabError
from recsys_utils.data.attributes import hot, known, vocabulary
from recsys_utils.data.interactions import Interactions
from recsys_utils.models.base import Recommender, check_params, cosines, with_habits
from recsys_utils.models.popularity import OwnPurchases

WORDS = 1.2  # a column whose values have more words than this on average is read as text
# A pair decayed below this, four tau ago, teaches little and costs as much as any other.
FAINT = 0.02


@dataclass
class LightFM(Recommender):
    """User vector · item vector + item bias; vectors are sums of an own part and of attributes.

    Kula (2015). Ranking loss is WARP (Weston, Bengio, Usunier 2011) or BPR (Rendle et al. 2009), on
    one thread, so that a seed gives the same result. A pair counts its baskets, each exp(−age in
    days / tau). features: whose attributes are read; "none" leaves pure ids. metadata: length of
    the attributes' part, relative to 1 of the own part. Users and items without purchases have no
    own part. own: weight of the own baskets, as OwnPurchases decays them, added to scores
    standardised per user; 0 is LightFM alone.
    """

    family: ClassVar[str] = "lightfm"
    factors: int = 32
    loss: Literal["warp", "bpr"] = "warp"
    features: Literal["both", "users", "items", "none"] = "both"
    metadata: float = 0.5
    learning_rate: float = 0.05
    epochs: int = 8
    user_alpha: float = 0.0
    item_alpha: float = 0.0
    tau: float | None = 60
    own: float = 0.0
    seed: int = 42

    def __post_init__(self) -> None:
        check_params(
            self,
            factors=(1, 4096),
            metadata=(0, 100),
            learning_rate=(0, 10),
            epochs=(1, 10_000),
            user_alpha=(0, 1),
            item_alpha=(0, 1),
            tau=(0.01, 100_000),
            own=(0, 100),
        )

    def _fit(self, data: Interactions) -> None:
        self.own_ = data.matrix(OwnPurchases.tau)
        users = data.users if self.features in ("both", "users") else data.users[[]]
        items = data.items if self.features in ("both", "items") else data.items[[]]
        self.user_words_ = vocabulary(users)
        item_words = vocabulary(items[data.sold], words=text_columns(items))
        x = self._described(users, self.user_words_)
        y = self._described(items, item_words)
        user_parts, item_parts = self._trained(data.matrix(self.tau), x, y, data.sold)
        self.user_vectors_ = _with_one(x @ user_parts)
        self.item_vectors_ = y @ item_parts
        self.user_parts_ = user_parts[data.shape[0] :].copy()

    def _described(self, frame: pd.DataFrame, words: np.ndarray) -> sparse.csr_matrix:
        """(rows, rows + vocabulary): each row's own part, then its attributes."""
        return sparse.hstack(
            [sparse.eye_array(len(frame), dtype=np.float32), self._told(frame, words)], format="csr"
        )

    def _told(self, frame: pd.DataFrame, words: np.ndarray) -> sparse.csr_matrix:
        """(rows, vocabulary) attributes as rows of length `metadata`.

        Ten columns must not outweigh the own part.
        """
        told = hot(frame, words)
        told.data *= self.metadata / np.sqrt(np.repeat(np.diff(told.indptr), np.diff(told.indptr)))
        return told

    def _trained(
        self,
        taste: sparse.csr_matrix,
        users: sparse.csr_matrix,
        items: sparse.csr_matrix,
        sold: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Vectors of all own parts and attributes, of items with a last coordinate for the bias.

        Zero, not noise, where no pair taught any.

        Items that never sold are no negatives: nobody could have bought them.
        """
        model = lightfm.LightFM(
            self.factors,
            loss=self.loss,
            learning_rate=self.learning_rate,
            user_alpha=self.user_alpha,
            item_alpha=self.item_alpha,
            random_state=self.seed,
        )
        ones, weights = _heard(taste[:, sold])
        # WARP draws its negatives from all items, BPR from those bought.
        met = slice(None) if self.loss == "warp" else np.unique(ones.col)
        user = users[np.unique(ones.row)].sum(axis=0) > 0
        item = items[sold][met].sum(axis=0) > 0
        try:
            for _ in tqdm(range(self.epochs), "LightFM", leave=False, disable=None):
                model.fit_partial(ones, users[:, user], items[sold][:, item], weights)
        except ValueError as error:
            raise LabError(
                f"LightFM(learning_rate={self.learning_rate:g}) diverged: lower learning_rate,"
                " user_alpha or item_alpha"
            ) from error
        return _spread(model.user_embeddings, user), _spread(
            np.column_stack([model.item_embeddings, model.item_biases]), item
        )

    def _scores(self, users: np.ndarray) -> np.ndarray:
        return with_habits(
            self.user_vectors_[users] @ self.item_vectors_.T, self.own, self.own_[users]
        )

    def _cold_scores(self, profiles: pd.DataFrame) -> np.ndarray:
        scores = (
            _with_one(self._told(profiles, self.user_words_) @ self.user_parts_)
            @ self.item_vectors_.T
        )
        scores[~known(profiles, self.user_words_)] = np.nan
        return scores

    def _similar(self, item: int) -> np.ndarray:
        return cosines(self.item_vectors_[:, :-1], item)  # the last is the bias


def text_columns(frame: pd.DataFrame) -> list[str]:
    """Columns of texts: names, lists of genres; not codes and one-word categories."""
    said = {
        c: frame[c].dropna().astype(str).str.count(r"[^\W\d_]{2,}").mean()
        for c in frame
        if not pd.api.types.is_numeric_dtype(frame[c])
    }
    return [column for column, words in said.items() if words > WORDS]


def _heard(taste: sparse.csr_matrix) -> tuple[sparse.coo_matrix, sparse.coo_matrix]:
    """The pairs that have not faded away: as ones, and as weights of mean 1."""
    pairs = taste.tocoo()
    loud = pairs.data >= min(FAINT, pairs.data.max())
    at = (pairs.row[loud], pairs.col[loud])
    weights = pairs.data[loud] / max(pairs.data[loud].mean(), 1e-30)
    return sparse.coo_matrix((np.ones_like(weights), at), pairs.shape), sparse.coo_matrix(
        (weights, at), pairs.shape
    )


def _spread(rows: np.ndarray, where: np.ndarray) -> np.ndarray:
    result = np.zeros((len(where), rows.shape[1]), np.float32)
    result[where] = rows
    return result


def _with_one(vectors: np.ndarray) -> np.ndarray:
    """A last coordinate of 1, which meets the item's bias."""
    return np.column_stack([vectors, np.ones(len(vectors))]).astype(np.float32)
