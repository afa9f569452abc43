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

from recsys_utils.data.interactions import Interactions, fixed_sample
from recsys_utils.ensembles.candidates import Candidates, held, together
from recsys_utils.ensembles.features import Aggregates, aggregates, build
from recsys_utils.ensembles.trust import USUAL, LeftOut, trusted, voted
from recsys_utils.models import (
    ALS,
    TIFUKNN,
    ItemCF,
    MainRecommender,
    NeighbourFinds,
    OwnPurchases,
    Popular,
    Recommender,
    TakeUp,
)
from recsys_utils.models.base import check_params, standardised

# Rows below which a second thread costs more than it gives; it never changes the trees.
THREADED = 100_000
FEW = 20_000  # rows from which a ranker learns, if there are as many
# Bought candidates of all windows from which the ranker stands by itself. With fewer it is made of
# smaller trees, and shares the order with the best single model.
ENOUGH = 10_000
SMALLER = {"leaves": 7, "min_leaf": 50, "rounds": 60}
FOLDS = 3  # of the windows, each left out once to tell how far the ranker is trusted
CHUNK = 8_000  # users ranked at once: bounds the memory of their features
# By name: each generator and its weight in the vote for candidates; one with 0 only scores.
# "lab" proposes on any purchase, "finds" in its place where only new items are asked for.
GENERATORS = {
    "lab": {
        "own": (OwnPurchases(180), 0),
        "tifu": (TIFUKNN(), 1),
        "bm25": (ItemCF(tau=60), 1),
        "als": (ALS(64, 10), 1),
        "popular": (Popular(28), 0),
        "near": (TIFUKNN(alpha=0), 1),
    },
    "finds": {
        "finds": (NeighbourFinds(), 1),
        "uptake": (TakeUp(), 1),
        "als": (ALS(64, 10), 1),
        "bm25": (ItemCF(tau=60), 0),
        "popular": (Popular(28), 0),
        "near": (TIFUKNN(alpha=0), 0),
    },
    "original": {
        "main": (MainRecommender(), 1),
        "als": (ALS(50, 0.001, 1.0, weighting="bm25", tau=None), 0),
    },
}


@dataclass
class Examples:
    """One window as the ranker sees it: candidates, their features, and whether they were bought.

    bought is None where it is not known yet.
    """

    pairs: Candidates
    table: pd.DataFrame
    bought: np.ndarray | None = None
    returned: int = 0  # shoppers of before who bought within the window, sampled or not
    axes: pd.DataFrame | None = None  # items × factors whose coordinates the embeddings have

    @property
    def sizes(self) -> np.ndarray:
        """(users,) number of candidates of each user, in their order."""
        return np.unique(self.pairs.user, return_counts=True)[1]


@dataclass
class TwoStage(Recommender):
    """Candidates of several models, ordered by gradient-boosted trees on as-of features.

    The ranker learns from `windows` stretches of `days` before the cut: for each, the generators
    and the features see only what was before it, and what was bought within it is the label.
    target="new": candidates and labels are items new to the user, and the generators ("lab") are
    those that find them. candidates: items of each user that the generators choose together.
    draws: rankers of each objective, each with random numbers of its own, whose scores are
    averaged. sample: share of the candidates that were not bought which each draw learns from,
    another share each time. embeddings: ALS factors are features too, turned so that a coordinate
    means the same in every window. patience: a tenth of the users is held out, and boosting stops
    when they gain nothing for so many rounds.
    few: what becomes of lists on any purchase where there is little to learn from. "shrink" makes
    smaller trees, and the order is the rankers' and the best generator's, by shares that windows
    left out tell (see `trust`); "plain" does nothing. learners: shoppers of each window from whom
    the rankers learn, drawn at random where more returned; everybody gets a list.
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
    candidates: int = 100
    draws: int = 3
    sample: float = 1 / 3
    rounds: int = 100
    patience: int | None = None
    leaves: int = 31
    learning_rate: float = 0.1
    min_leaf: int = 100
    few: Literal["shrink", "plain"] = "shrink"
    learners: int = 10_000
    seed: int = 42

    def __post_init__(self) -> None:
        check_params(
            self,
            windows=(1, 1000),
            days=(0.01, 10_000),
            candidates=(1, 100_000),
            draws=(1, 100),
            sample=(0.001, 1),
            rounds=(1, 100_000),
            patience=(1, 100_000),
            leaves=(2, 10_000),
            learning_rate=(1e-6, 10),
            min_leaf=(1, 1e6),
            learners=(1, 1e9),
        )

    @property
    def note(self) -> str:
        """That the rankers learnt from a sample of the shoppers, where they did."""
        returned = self.returned_[0]
        if returned <= self.learners:
            return ""
        return (
            f"The rankers learn from {self.learners:,} shoppers of each window, drawn from"
            f" {returned:,} or fewer who returned."
        )

    @property
    def weights(self) -> dict[str, float]:
        """Of each generator in the vote for candidates."""
        return {name: weight for name, (_, weight) in self._first_stage.items()}

    @property
    def _first_stage(self) -> dict[str, tuple[Recommender, float]]:
        """Each generator and its weight, by name."""
        if self.target == "new" and self.generators == "lab":
            return GENERATORS["finds"]
        return GENERATORS[self.generators]

    def fit_seeds(self, data: Interactions, seeds: Iterable[int]) -> Iterator[Self]:
        """The model fitted with one seed after another: only the rankers draw random numbers."""
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
        self.returned_ = np.array([max((e.returned for e in examples), default=0)])
        model = self.sized(examples)
        self.single_, self.share_ = np.array([]), np.array([1.0])
        if model is not self:
            single, share = model.trust(examples)
            self.single_, self.share_ = np.array([single]), np.array([share])
        rankers = []
        if examples:
            rankers = train(model.options(), examples, self.patience, self.sample)
        self.rankers_ = np.array([ranker.model_to_string() for ranker in rankers], dtype=str)
        self.lists_ = self._ranked(data, rankers, examples[-1].axes if examples else None)

    def examples(self, data: Interactions) -> list[Examples]:
        """What the rankers learn from: the windows before the cut, newest first.

        Those in which nobody returned are left out.
        """
        oldest_first = range(self.windows, 0, -1)
        result = []
        for n in tqdm(oldest_first, desc="windows", leave=False, disable=None):
            window = self._window(data, n, result[0].axes if result else None)
            if window:
                result.append(window)
        return result[::-1]

    def sized(self, examples: list[Examples]) -> Self:
        """The model itself; one of smaller trees where little was bought in the windows."""
        bought = sum(int(e.bought.sum()) for e in examples)
        if self.few == "plain" or self.target == "new" or not examples or bought >= ENOUGH:
            return self
        sizes = {name: min(getattr(self, name), size) for name, size in SMALLER.items()}
        return replace(self, **sizes)

    def trust(self, examples: list[Examples]) -> tuple[str, float]:
        """The best single generator, and the rankers' share of the order against it.

        Each window is ranked by rankers of the other windows. One window alone tells only which
        generator is best, and the share is the usual one.
        """
        quick = replace(self, draws=1)
        windows = []
        for n in range(FOLDS):
            asked = examples[n::FOLDS]
            seen = [e for place, e in enumerate(examples) if place % FOLDS != n]
            rankers = train(quick.options(), seen, self.patience, self.sample) if seen else []
            windows += [LeftOut(e.pairs, e.bought, score(rankers, e)) for e in asked]
        single, share = trusted(windows)
        return single, share if len(examples) > 1 else USUAL

    def fitted_generators(self, history: Interactions) -> dict[str, Recommender]:
        """The first stage on a history, by name."""
        return {
            name: type(model)(**model.params).fit(history)
            for name, (model, _) in self._first_stage.items()
        }

    def proposed(self, generators: dict[str, Recommender], users: np.ndarray) -> Candidates:
        """Candidates of users (ascending codes) by fitted generators."""
        return together(generators, users, self.weights, self.candidates, self.target == "new")

    def asked(
        self,
        history: Interactions,
        generators: dict[str, Recommender],
        users: np.ndarray,
        axes: pd.DataFrame | None = None,
        known: Aggregates | None = None,
    ) -> Examples:
        """Candidates of users (ascending codes), and their features on the last day of the history.

        axes: item factors of the oldest window, in whose coordinates the embeddings are given.
        known: the history's aggregates, where they are made already.
        """
        pairs = self.proposed(generators, users)
        is_new = self.target == "new"
        if not self.embeddings:
            return Examples(pairs, build(pairs, history, known=known, discovery=is_new))
        als = generators["als"]
        factors = pd.DataFrame(als.item_factors_, als.item_ids_)
        if axes is None:
            axes = factors
        turn = rotation(factors, axes)
        embeddings = als.user_factors_ @ turn, als.item_factors_ @ turn
        table = build(pairs, history, embeddings, known, is_new)
        return Examples(pairs, table, axes=axes)

    def options(self) -> list[dict]:
        """LightGBM's parameters, a set for each objective and draw."""
        objectives = ("lambdarank", "binary") if self.objective == "both" else (self.objective,)
        # So far apart that models of neighbouring seeds share no ranker.
        seeds = [self.seed + 1000 * n for n in range(self.draws)]
        drawn = [(objective, seed) for objective in objectives for seed in seeds]
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
                "seed": seed,
            }
            for objective, seed in drawn
        ]

    def _window(self, data: Interactions, n: int, axes: pd.DataFrame | None) -> Examples | None:
        """The n-th window before the cut."""
        start = data.as_of - pd.Timedelta(days=self.days * n)
        end = data.as_of - pd.Timedelta(days=self.days * (n - 1))
        rows = data.purchases
        past = rows[rows["ts"] < start]
        then = rows[(rows["ts"] >= start) & (rows["ts"] < end)]
        returned = np.intersect1d(
            past["user_id"].unique().astype(str), then["user_id"].unique().astype(str)
        )
        if not len(returned):
            return None
        users = returned[fixed_sample(len(returned), self.learners)]
        people = data.users.reset_index() if len(data.users.columns) else None
        history = Interactions.of(
            past.reset_index(drop=True), data.items.reset_index(), people, as_of=start
        )
        codes = history.user_ids.get_indexer(users)
        result = self.asked(history, self.fitted_generators(history), codes, axes)
        result.bought = held(result.pairs, then, history)
        result.returned = len(returned)
        return result

    def _ranked(
        self, data: Interactions, rankers: list[lightgbm.Booster], axes: pd.DataFrame | None
    ) -> sparse.csr_matrix:
        """Users × items CSR of candidates' scores, above 1."""
        generators = self.fitted_generators(data)
        known = aggregates(data)  # once, not for every chunk
        parts = []
        for users in tqdm(list(_chunks(data.shape[0])), desc="ranking", leave=False, disable=None):
            result = self.asked(data, generators, users, axes, known)
            order = score(rankers, result)
            if len(self.single_):
                order = voted(result.pairs, order, self.single_[0], self.share_[0])
            parts.append((result.pairs.user, result.pairs.item, order))
        user, item, order = (np.concatenate(column) for column in zip(*parts))
        return sparse.csr_matrix((order - order.min() + 1, (user, item)), shape=data.shape).astype(
            np.float32
        )

    def _scores(self, users: np.ndarray) -> np.ndarray:
        """Candidates above everything else, which follows by recent popularity."""
        rest = self.recent_ / (self.recent_.max() + 1)
        result = self.lists_[users].toarray()
        return np.where(result > 0, result, rest).astype(np.float32)


def score(rankers: list[lightgbm.Booster], example: Examples) -> np.ndarray:
    """(pairs,) sum of the rankers' standardised scores; the first generator's without rankers."""
    if not rankers:
        return next(iter(example.pairs.scores.values())).astype(float)
    x = example.table.to_numpy()
    return sum(standardised(ranker.predict(x, raw_score=True)) for ranker in rankers)


def rotation(factors: pd.DataFrame, reference: pd.DataFrame) -> np.ndarray:
    """The rotation that brings factors closest to a reference on the ids that both have.

    Factors of two fits mean the same only up to a rotation (orthogonal Procrustes, Schönemann
    1966).
    """
    shared = factors.index.intersection(reference.index)
    u, _, v = np.linalg.svd(factors.loc[shared].to_numpy().T @ reference.loc[shared].to_numpy())
    return (u @ v).astype(np.float32)


def train(
    options: list[dict],
    examples: list[Examples],
    patience: int | None = None,
    sample: float = 1.0,
) -> list[lightgbm.Booster]:
    """A ranker for each set of options on windows of examples.

    patience: every tenth user is held out whole, and tells when to stop.
    sample: share of the candidates that were not bought which each draw, told by its seed, sees.
    """
    rows = sample * sum(len(e.pairs) for e in examples)
    options = [each | {"num_threads": 1 + (rows > THREADED)} for each in options]
    late = [_every_tenth(e) for e in examples]
    is_checked = bool(patience) and any(rows.any() for rows in late)
    rankers = {}
    for seed in dict.fromkeys(each["seed"] for each in options):
        seen = _sampled(examples, sample, seed)
        check = None
        if is_checked:
            seen = [rows & ~held for rows, held in zip(seen, late)]
        learn = _dataset([part(e, rows) for e, rows in zip(examples, seen)], options[0])
        if is_checked:
            held_out = [part(e, rows) for e, rows in zip(examples, late)]
            check = _dataset(held_out, options[0], learn)
        for place, each in enumerate(options):
            if each["seed"] == seed:
                rankers[place] = _trained(each, learn, check, patience)
    return [rankers[place] for place in range(len(options))]


def _trained(
    options: dict, learn: lightgbm.Dataset, check: lightgbm.Dataset | None, patience: int | None
) -> lightgbm.Booster:
    if check is None:
        return lightgbm.train(options, learn)
    stop = lightgbm.early_stopping(patience, verbose=False)
    return lightgbm.train(options, learn, valid_sets=[check], callbacks=[stop])


def _every_tenth(example: Examples) -> np.ndarray:
    """(pairs,) bool: those of every tenth user."""
    return np.unique(example.pairs.user, return_inverse=True)[1] % 10 == 9


def _sampled(examples: list[Examples], share: float, seed: int) -> list[np.ndarray]:
    """(pairs,) bool of each window: all that was bought, and a random share of the rest.

    A larger share where it would be fewer than `FEW` rows: small shops have none to spare.
    """
    rng = np.random.default_rng(seed)
    share = max(share, FEW / sum(len(e.pairs) for e in examples))
    return [e.bought | (rng.random(len(e.pairs)) < share) for e in examples]


def _dataset(
    examples: list[Examples], options: dict, reference: lightgbm.Dataset | None = None
) -> lightgbm.Dataset:
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
        reference=reference,
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
