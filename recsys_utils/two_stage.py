"""Two stages: cheap models propose, a ranker that has seen earlier windows orders. Itself an ordinary model."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import lightgbm
import numpy as np
import pandas as pd
from scipy import sparse
from tqdm import tqdm

from .candidates import Candidates, held, union
from .features import build
from .interactions import Interactions
from .models import ALS, TIFUKNN, ItemCF, OwnPurchases, Popular, Recommender
from .models.base import check_params

CHUNK = 2_000       # users ranked at once: bounds the memory of their features
GENERATORS = {"own": (OwnPurchases(180), 150), "tifu": (TIFUKNN(), 150), "bm25": (ItemCF(tau=60), 100), "als": (ALS(64, 10), 50), "popular": (Popular(28), 50)}


@dataclass
class TwoStage(Recommender):
    """Candidates of several models, ordered by gradient-boosted trees on as-of features.

    The ranker learns from `windows` stretches of `days` before the cut: for each, the generators and the features see only
    what was before it, and what was bought within it is the label. target="new": candidates and labels are items new to the
    user. depth: multiplies the generators' numbers of candidates. Everything is ranked once, at the end of fitting. Where
    nobody bought both before and within a window there is nothing to learn from: TIFU-KNN's order stays.
    """

    family: ClassVar[str] = "two stage"
    windows: int = 6
    days: float = 21
    target: Literal["any", "new"] = "any"
    objective: Literal["lambdarank", "binary", "both"] = "lambdarank"
    depth: float = 1.0
    rounds: int = 200
    leaves: int = 31
    learning_rate: float = 0.05
    min_leaf: int = 100
    seed: int = 42

    def __post_init__(self) -> None:
        check_params(self, windows=(1, 1000), days=(0.01, 10_000), depth=(0.01, 100), rounds=(1, 100_000), leaves=(2, 10_000),
                     learning_rate=(1e-6, 10), min_leaf=(1, 1e6))

    def _fit(self, data: Interactions) -> None:
        tables = [table for n in tqdm(range(1, self.windows + 1), desc="windows", leave=False, disable=None) if (table := self._examples(data, n))]
        rankers = [_trained(self._options(objective), tables) for objective in self._objectives()] if tables else []
        self.rankers_ = np.array([ranker.model_to_string() for ranker in rankers], dtype=str)
        self.lists_ = self._ranked(data, rankers)

    def _examples(self, data: Interactions, n: int) -> tuple[pd.DataFrame, np.ndarray, np.ndarray] | None:
        """Features, labels and users' numbers of candidates of the n-th window before the cut."""
        start, end = (data.as_of - pd.Timedelta(days=self.days * back) for back in (n, n - 1))
        rows = data.purchases
        past, then = rows[rows["ts"] < start], rows[(rows["ts"] >= start) & (rows["ts"] < end)]
        users = np.intersect1d(past["user_id"].unique().astype(str), then["user_id"].unique().astype(str))
        if not len(users):
            return None
        history = Interactions.of(past.reset_index(drop=True), as_of=start)
        pairs = self._candidates(history, self._generators(history), history.user_ids.get_indexer(users))
        return build(pairs, history), held(pairs, then, history), np.unique(pairs.user, return_counts=True)[1]

    def _generators(self, history: Interactions) -> dict[str, Recommender]:
        return {name: type(model)(**model.params).fit(history) for name, (model, _) in GENERATORS.items()}

    def _candidates(self, history: Interactions, generators: dict[str, Recommender], users: np.ndarray) -> Candidates:
        n = {name: max(1, round(self.depth * n)) for name, (_, n) in GENERATORS.items()}
        return union(generators, users, n, self.target == "new")

    def _objectives(self) -> tuple[str, ...]:
        return ("lambdarank", "binary") if self.objective == "both" else (self.objective,)

    def _options(self, objective: str) -> dict:
        return {"objective": objective, "num_leaves": self.leaves, "learning_rate": self.learning_rate, "min_data_in_leaf": self.min_leaf,
                "num_iterations": self.rounds, "feature_fraction": 0.5, "bagging_fraction": 0.7, "bagging_freq": 1, "lambda_l2": 5.0,
                "lambdarank_truncation_level": 20, "deterministic": True, "force_row_wise": True, "verbose": -1, "seed": self.seed, "num_threads": 1}

    def _ranked(self, data: Interactions, rankers: list[lightgbm.Booster]) -> sparse.csr_matrix:
        """Users × items CSR of candidates' scores, above 1."""
        generators, parts = self._generators(data), []
        for users in tqdm(list(_chunks(data.shape[0])), desc="ranking", leave=False, disable=None):
            pairs = self._candidates(data, generators, users)
            table = build(pairs, data).to_numpy() if rankers else None
            scores = [_standard(ranker.predict(table, raw_score=True)) for ranker in rankers] or [pairs.scores["tifu"].astype(float)]
            parts.append((pairs.user, pairs.item, sum(scores)))
        user, item, score = (np.concatenate(column) for column in zip(*parts))
        return sparse.csr_matrix((score - score.min() + 1, (user, item)), shape=data.shape).astype(np.float32)

    def _scores(self, users: np.ndarray) -> np.ndarray:
        """Candidates above everything else, which follows by recent popularity."""
        rest = self.recent_ / (self.recent_.max() + 1)
        made = self.lists_[users].toarray()
        return np.where(made > 0, made, rest).astype(np.float32)


def _trained(options: dict, tables: list[tuple[pd.DataFrame, np.ndarray, np.ndarray]]) -> lightgbm.Booster:
    features, labels, sizes = zip(*tables)
    group = np.concatenate(sizes) if options["objective"] == "lambdarank" else None
    names = features[0].columns.tolist()
    data = lightgbm.Dataset(np.concatenate([f.to_numpy() for f in features]), np.concatenate(labels).astype(np.float32), group=group, feature_name=names)
    return lightgbm.train(options, data)


def _standard(score: np.ndarray) -> np.ndarray:
    return (score - score.mean()) / max(score.std(), 1e-9)


def _chunks(n: int) -> Iterator[np.ndarray]:
    for start in range(0, n, CHUNK):
        yield np.arange(start, min(start + CHUNK, n))
