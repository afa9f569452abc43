"""Two stages: cheap models propose, a ranker that has seen earlier windows orders.

Itself an ordinary model.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import lightgbm
import numpy as np
import pandas as pd
from scipy import sparse
from tqdm import tqdm

from recsys_utils.data.interactions import Interactions
from recsys_utils.ensembles.candidates import Candidates, held, union
from recsys_utils.ensembles.features import build
from recsys_utils.models import (
    ALS,
    TIFUKNN,
    ItemCF,
    MainRecommender,
    OwnPurchases,
    Popular,
    Recommender,
)
from recsys_utils.models.base import check_params, standardised

THREADED = (
    100_000  # rows below which a second thread costs more than it gives; it never changes the trees
)
CHUNK = 8_000  # users ranked at once: bounds the memory of their features
# By name: each generator, and how many items it proposes; 0 leaves it to score what the others
# propose.
GENERATORS = {
    "lab": {
        "own": (OwnPurchases(180), 60),
        "tifu": (TIFUKNN(), 60),
        "bm25": (ItemCF(tau=60), 40),
        "als": (ALS(64, 10), 20),
        "popular": (Popular(28), 20),
        "near": (TIFUKNN(alpha=0), 0),
    },
    "original": {
        "main": (MainRecommender(), 200),
        "als": (ALS(50, 0.001, 1.0, weighting="bm25", tau=None), 0),
    },
}


@dataclass
class Examples:
    """One window as the ranker sees it.

    Candidates, a row of features for each, and whether it was bought (None: not known yet).
    """

    pairs: Candidates
    table: pd.DataFrame
    bought: np.ndarray | None = None

    @property
    def sizes(self) -> np.ndarray:
        """(users,) number of candidates of each user, in their order."""
        return np.unique(self.pairs.user, return_counts=True)[1]


@dataclass
class TwoStage(Recommender):
    """Candidates of several models, ordered by gradient-boosted trees on as-of features.

    The ranker learns from `windows` stretches of `days` before the cut: for each, the generators
    and the features see only what was before it, and what was bought within it is the label.
    target="new": candidates and labels are items new to the user. depth: multiplies the generators'
    numbers of candidates. embeddings: ALS factors of user and item are features too. patience: a
    tenth of the users is held out, and boosting stops when they gain nothing for so many rounds.
    Everything is ranked once, at the end of fitting. Where nobody bought both before and within a
    window there is nothing to learn from: the first generator's order stays.
    """

    family: ClassVar[str] = "two stage"
    windows: int = 6
    days: float = 21
    target: Literal["any", "new"] = "any"
    objective: Literal["lambdarank", "binary", "both"] = "both"
    generators: Literal["lab", "original"] = "lab"
    embeddings: bool = False
    depth: float = 1.0
    rounds: int = 100
    patience: int | None = None
    leaves: int = 31
    learning_rate: float = 0.1
    min_leaf: int = 100
    seed: int = 42

    def __post_init__(self) -> None:
        check_params(
            self,
            windows=(1, 1000),
            days=(0.01, 10_000),
            depth=(0.01, 100),
            rounds=(1, 100_000),
            patience=(1, 100_000),
            leaves=(2, 10_000),
            learning_rate=(1e-6, 10),
            min_leaf=(1, 1e6),
        )

    def fit_seeds(self, data: Interactions, seeds: Iterable[int]) -> Iterator[Self]:
        """The model fitted with one seed after another: only the ranker draws random numbers."""
        examples = self.examples(data)
        for seed in seeds:
            model = replace(self, seed=seed)
            model._examples = examples
            yield model.fit(data)

    def _fit(self, data: Interactions) -> None:
        # Not kept: they are many times larger than what is learnt from them.
        examples = self.__dict__.pop("_examples", None)
        if examples is None:
            examples = self.examples(data)
        rankers = train(self.options(), examples, self.patience) if examples else []
        self.rankers_ = np.array([ranker.model_to_string() for ranker in rankers], dtype=str)
        self.lists_ = self._ranked(data, rankers)

    def examples(self, data: Interactions) -> list[Examples]:
        """What the ranker learns from: the windows before the cut, newest first.

        Those in which nobody returned are left out.
        """
        result = (
            self._window(data, n)
            for n in tqdm(range(1, self.windows + 1), desc="windows", leave=False, disable=None)
        )
        return [example for example in result if example]

    def fitted_generators(self, history: Interactions) -> dict[str, Recommender]:
        """The first stage on a history, by name."""
        return {
            name: type(model)(**model.params).fit(history)
            for name, (model, _) in GENERATORS[self.generators].items()
        }

    def asked(
        self, history: Interactions, generators: dict[str, Recommender], users: np.ndarray
    ) -> Examples:
        """Candidates of users (ascending codes) and their features on the day that the history
        ends.
        """
        n = {name: round(self.depth * n) for name, (_, n) in GENERATORS[self.generators].items()}
        pairs = union(generators, users, n, self.target == "new")
        factors = generators["als"] if self.embeddings else None
        return Examples(
            pairs, build(pairs, history, factors and (factors.user_factors_, factors.item_factors_))
        )

    def options(self) -> list[dict]:
        """LightGBM's parameters, a set for each objective."""
        objectives = ("lambdarank", "binary") if self.objective == "both" else (self.objective,)
        return [
            {
                "objective": objective,
                "num_leaves": self.leaves,
                "learning_rate": self.learning_rate,
                "min_data_in_leaf": self.min_leaf,
                "num_iterations": self.rounds,
                "feature_fraction": 0.5,
                "bagging_fraction": 0.7,
                "bagging_freq": 1,
                "lambda_l2": 5.0,
                "max_bin": 127,
                "lambdarank_truncation_level": 20,
                "deterministic": True,
                "force_row_wise": True,
                "verbose": -1,
                "seed": self.seed,
            }
            for objective in objectives
        ]

    def _window(self, data: Interactions, n: int) -> Examples | None:
        """The n-th window before the cut."""
        start, end = (data.as_of - pd.Timedelta(days=self.days * back) for back in (n, n - 1))
        rows = data.purchases
        past = rows[rows["ts"] < start]
        then = rows[(rows["ts"] >= start) & (rows["ts"] < end)]
        users = np.intersect1d(
            past["user_id"].unique().astype(str), then["user_id"].unique().astype(str)
        )
        if not len(users):
            return None
        history = Interactions.of(
            past.reset_index(drop=True), data.items.reset_index(), as_of=start
        )
        result = self.asked(
            history, self.fitted_generators(history), history.user_ids.get_indexer(users)
        )
        return Examples(result.pairs, result.table, held(result.pairs, then, history))

    def _ranked(self, data: Interactions, rankers: list[lightgbm.Booster]) -> sparse.csr_matrix:
        """Users × items CSR of candidates' scores, above 1."""
        generators = self.fitted_generators(data)
        parts = []
        for users in tqdm(list(_chunks(data.shape[0])), desc="ranking", leave=False, disable=None):
            result = self.asked(data, generators, users)
            scores = [
                standardised(ranker.predict(result.table.to_numpy(), raw_score=True))
                for ranker in rankers
            ]
            parts.append(
                (
                    result.pairs.user,
                    result.pairs.item,
                    (
                        sum(scores)
                        if scores
                        else next(iter(result.pairs.scores.values())).astype(float)
                    ),
                )
            )
        user, item, score = (np.concatenate(column) for column in zip(*parts))
        return sparse.csr_matrix((score - score.min() + 1, (user, item)), shape=data.shape).astype(
            np.float32
        )

    def _scores(self, users: np.ndarray) -> np.ndarray:
        """Candidates above everything else, which follows by recent popularity."""
        rest = self.recent_ / (self.recent_.max() + 1)
        result = self.lists_[users].toarray()
        return np.where(result > 0, result, rest).astype(np.float32)


def train(
    options: list[dict], examples: list[Examples], patience: int | None = None
) -> list[lightgbm.Booster]:
    """A ranker for each set of options on windows of examples.

    patience: every tenth user is held out whole, and tells when to stop.
    """
    options = [
        each | {"num_threads": 1 + (sum(len(e.pairs) for e in examples) > THREADED)}
        for each in options
    ]
    held_out = (
        [np.unique(e.pairs.user, return_inverse=True)[1] % 10 == 9 for e in examples]
        if patience
        else []
    )
    if not any(late.any() for late in held_out):
        learn = _dataset(examples, options[0])
        return [lightgbm.train(each, learn) for each in options]
    learn, check = (
        _dataset([part(e, rows == late) for e, rows in zip(examples, held_out)], options[0])
        for late in (False, True)
    )
    check.reference = learn
    return [
        lightgbm.train(
            each,
            learn,
            valid_sets=[check],
            callbacks=[lightgbm.early_stopping(patience, verbose=False)],
        )
        for each in options
    ]


def _dataset(examples: list[Examples], options: dict) -> lightgbm.Dataset:
    """Binned once for every objective; a binary classifier does not look at the groups."""
    binning = {
        name: options[name]
        for name in ("max_bin", "min_data_in_leaf", "force_row_wise", "verbose", "num_threads")
    }
    return lightgbm.Dataset(
        np.concatenate([e.table.to_numpy() for e in examples]),
        np.concatenate([e.bought for e in examples]).astype(np.float32),
        group=np.concatenate([e.sizes for e in examples]),
        feature_name=examples[0].table.columns.tolist(),
        params=binning,
    )


def part(
    example: Examples, rows: np.ndarray | slice, columns: pd.Index | slice = slice(None)
) -> Examples:
    """Some rows of a window, and some of its features."""
    pairs = Candidates(
        example.pairs.user[rows],
        example.pairs.item[rows],
        {name: score[rows] for name, score in example.pairs.scores.items()},
    )
    return Examples(pairs, example.table.loc[rows, columns], example.bought[rows])


def _chunks(n: int) -> Iterator[np.ndarray]:
    for start in range(0, n, CHUNK):
        yield np.arange(start, min(start + CHUNK, n))
