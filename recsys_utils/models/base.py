"""What every model is: fitted on interactions, it gives one recommendation table."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from importlib import import_module
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
import pandas as pd
from scipy import sparse

from recsys_utils import LabError
from recsys_utils.data.interactions import Interactions, codes, distinct
from recsys_utils.models.costs import require_memory
from recsys_utils.store import load_bundle, save_bundle
from recsys_utils.topk import BLOCK_BYTES, in_blocks, top_k

BYTES_PER_LINE = 200  # of receipts, in the sparse matrices of a model that is being fitted
REGISTRY: dict[str, type["Recommender"]] = {}


class NotSupported(NotImplementedError):
    """The model has no answer of this kind, by its nature."""


@dataclass
class Recommender:
    """A model.

    Its parameters are dataclass fields; what fitting learns are attributes that end with `_`.

    A family implements `_fit(data)` and `_scores(users)`, and `_cold_scores(profiles)` if it learns
    from attributes; everything else is common to all.
    """

    family: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        REGISTRY[cls.__name__] = cls

    @property
    def params(self) -> dict:
        """The parameters by name."""
        return asdict(self)

    @property
    def learns_attributes(self) -> bool:
        """Whether users without history are told apart by their attributes."""
        return type(self)._cold_scores is not Recommender._cold_scores

    @property
    def note(self) -> str:
        """What to know of the fitted model beside its parameters, a sentence; "" for nothing."""
        return ""

    def memory(self, users: int, items: int, lines: int) -> int:
        """Bytes at the peak of a fit, by rule of thumb: matrices of the lines, and vectors."""
        factors = getattr(self, "factors", None) or getattr(self, "dim", None) or 0
        return BYTES_PER_LINE * lines + 16 * factors * (users + items)

    def fit(self, data: Interactions) -> Self:
        """Learn from purchases before `data.as_of`.

        Raises TooLarge, before anything is done, where there is not the memory for it.
        """
        if not len(data.purchases):
            raise LabError(
                f"{type(self).__name__} was given no purchases: widen the history before the cut"
            )
        users, items = data.shape
        lines = len(data.purchases)
        shop = f"{users:,} shoppers, {items:,} items and {lines:,} lines"
        require_memory(type(self).__name__, self.memory(users, items, lines), shop)
        self.as_of = data.as_of
        self.user_ids_ = data.user_ids
        self.item_ids_ = data.item_ids
        self.seen_ = data.seen
        self.recent_ = data.recent.astype(np.float32)
        self._fit(data)
        return self

    def fit_seeds(self, data: Interactions, seeds: Iterable[int]) -> Iterator[Self]:
        """The model fitted with one seed after another, on the same purchases."""
        for seed in seeds:
            yield replace(self, seed=seed).fit(data)

    def recommend(
        self,
        users: Iterable[str],
        k: int = 10,
        exclude: "pd.DataFrame | Iterable[str] | Literal['bought'] | None" = None,
        only: Iterable[str] | None = None,
        profiles: pd.DataFrame | None = None,
    ) -> pd.DataFrame:
        """The k best items for each user: user_id, item_id, score, rank 1…k.

        exclude: "bought", item ids, or a table of (user_id, item_id). only: item ids that may
        appear at all. profiles: attributes by user_id, from which a model that learnt from
        attributes scores users without history. The others, and users without a profile, get the
        most popular items of the last 28 days. Ties go to the more popular item, then the lower id.
        Lists are shorter than k only where fewer items are left.
        """
        _check_k(k)
        users = pd.Index(pd.unique(pd.Series(users, dtype=str)), name="user_id")
        known = self.user_ids_.get_indexer(users)
        banned = self._banned(users, exclude)
        closed = (
            np.zeros(len(self.item_ids_), bool)
            if only is None
            else ~self.item_ids_.isin([str(item) for item in only])
        )
        size = max(1, BLOCK_BYTES // (4 * len(self.item_ids_)))
        blocks = in_blocks(
            len(users),
            size,
            lambda rows: self._block(
                self._all_scores(known[rows], users[rows], profiles),
                banned[rows] if banned is not None else None,
                closed,
                k,
            ),
        )
        columns, scores = (
            (np.concatenate(part) for part in zip(*blocks))
            if len(users)
            else (np.zeros((0, 1), int), np.zeros((0, 1)))
        )
        return self._table(users, columns, scores)

    def score(self, pairs: pd.DataFrame, profiles: pd.DataFrame | None = None) -> np.ndarray:
        """Scores of (user_id, item_id) pairs, in their order.

        NaN for an item the model has never seen.
        """
        users = distinct(pairs["user_id"])
        item = codes(pairs["item_id"], self.item_ids_)
        row = codes(pairs["user_id"], users)
        known = self.user_ids_.get_indexer(users)
        result = np.full(len(pairs), np.nan, np.float32)
        size = max(1, BLOCK_BYTES // (4 * len(self.item_ids_)))
        for start in range(0, len(users), size):
            mine = np.flatnonzero((row >= start) & (row < start + size) & (item >= 0))
            scores = self._all_scores(
                known[start : start + size], users[start : start + size], profiles
            )
            result[mine] = scores[row[mine] - start, item[mine]]
        return result

    def similar(self, item_id: str, k: int = 10) -> pd.DataFrame:
        """The k items most alike to one: item_id, score."""
        _check_k(k)
        code = self.item_ids_.get_indexer([str(item_id)])[0]
        if code < 0:
            raise LabError(
                f"item '{item_id}' is not among the {len(self.item_ids_):,} items that"
                f" {type(self).__name__} was fitted on"
            )
        scores = np.asarray(self._similar(code), np.float32).copy()
        scores[code] = -np.inf
        best = top_k(scores[None, :], k)[0]
        best = best[scores[best] > -np.inf]
        return pd.DataFrame({"item_id": self.item_ids_[best], "score": scores[best]})

    def save(self, folder: Path) -> Path:
        """Write parameters and learnt arrays with a manifest; no pickle."""
        arrays = {}
        for name, value in self.learnt().items():
            arrays[name] = value.to_numpy(str) if isinstance(value, pd.Index) else value
        meta = {
            "model": type(self).__name__,
            "module": type(self).__module__,
            "params": self.params,
        }
        return save_bundle(folder, "model", {"arrays.npz": arrays}, meta, self.as_of)

    def told(self, profiles: pd.DataFrame) -> np.ndarray:
        """(len(profiles),) bool: whose attributes are enough for a list without any history."""
        result = np.zeros(len(profiles), bool)
        if not self.learns_attributes:
            return result
        size = max(1, BLOCK_BYTES // (4 * len(self.item_ids_)))
        for start in range(0, len(profiles), size):
            block = self._cold_scores(profiles.iloc[start : start + size])
            result[start : start + size] = ~np.isnan(block[:, 0])
        return result

    def learnt(self) -> dict:
        """What fitting learnt: arrays and ids, by the attributes' names."""
        return {name: value for name, value in vars(self).items() if name.endswith("_")}

    def restore(self, learnt: dict, as_of: pd.Timestamp) -> None:
        """Take back what `learnt` gave."""
        self.as_of = as_of
        for name, value in learnt.items():
            if name in ("user_ids_", "item_ids_"):
                value = pd.Index(np.asarray(value, object), name=name.removesuffix("s_"))
            setattr(self, name, value)

    def _fit(self, data: Interactions) -> None:
        raise NotImplementedError

    def _scores(self, users: np.ndarray) -> np.ndarray:
        """(len(users), items) float32 scores of known users' codes."""
        raise NotImplementedError

    def _similar(self, item: int) -> np.ndarray:
        raise NotSupported(f"{type(self).__name__} has no notion of similar items")

    def _cold_scores(self, profiles: pd.DataFrame) -> np.ndarray:
        """(len(profiles), items) scores from attributes alone.

        A row of NaN means that no attribute is known; recent popularity takes its place.
        """
        return np.repeat(self.recent_[None, :], len(profiles), axis=0)

    def _all_scores(
        self, users: np.ndarray, names: pd.Index, profiles: pd.DataFrame | None
    ) -> np.ndarray:
        """Scores of any users by code and id.

        Code −1 is a user without history, scored by profile or by recent popularity.
        """
        known = np.flatnonzero(users >= 0)
        cold = np.flatnonzero(users < 0)
        if not len(cold):
            return self._scores(users)
        scores = np.repeat(self.recent_[None, :], len(users), axis=0)
        if profiles is not None:
            result = self._cold_scores(profiles.reindex(names[cold]))
            told = ~np.isnan(result[:, 0])
            scores[cold[told]] = result[told]
        if len(known):
            scores[known] = self._scores(users[known])
        return scores

    def _block(
        self, scores: np.ndarray, banned: sparse.csr_matrix | None, closed: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        scores = np.array(scores, np.float32)
        if banned is not None:
            scores[
                np.repeat(np.arange(len(scores)), np.diff(banned.indptr)), banned.indices
            ] = -np.inf
        scores[:, closed] = -np.inf
        columns = top_k(scores, k)
        return columns, np.take_along_axis(scores, columns, axis=1)

    def _banned(self, users: pd.Index, exclude: object) -> sparse.csr_matrix | None:
        """Users × items CSR whose stored cells may not be recommended."""
        if exclude is None:
            return None
        if isinstance(exclude, str):
            if exclude != "bought":
                raise LabError(
                    f"exclude is '{exclude}': it takes 'bought', a list of item ids or a table of"
                    " user_id, item_id"
                )
            empty = sparse.csr_matrix((1, len(self.item_ids_)), dtype=np.float32)
            return sparse.vstack([self.seen_, empty], format="csr")[
                self.user_ids_.get_indexer(users)
            ]  # code −1 takes the empty last row
        if not isinstance(exclude, pd.DataFrame):
            exclude = pd.DataFrame({"item_id": list(exclude)}).merge(
                pd.DataFrame({"user_id": users}), how="cross"
            )
        row = codes(exclude["user_id"], users)
        column = codes(exclude["item_id"], self.item_ids_)
        known = (row >= 0) & (column >= 0)
        return sparse.csr_matrix(
            (np.ones(known.sum()), (row[known], column[known])),
            shape=(len(users), len(self.item_ids_)),
        )

    def _table(self, users: pd.Index, columns: np.ndarray, scores: np.ndarray) -> pd.DataFrame:
        rank = np.broadcast_to(np.arange(1, columns.shape[1] + 1, dtype=np.int16), columns.shape)
        row = np.broadcast_to(np.arange(len(users), dtype=np.int32)[:, None], columns.shape)
        kept = scores > -np.inf
        return pd.DataFrame(
            {
                "user_id": pd.Categorical.from_codes(row[kept], users),
                "item_id": pd.Categorical.from_codes(columns[kept], self.item_ids_),
                "score": scores[kept],
                "rank": rank[kept],
            }
        )


def cosines(vectors: np.ndarray, item: int) -> np.ndarray:
    """Cosine of every row with one of them; 0 where a row is zero."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    return unit @ unit[item]


def with_habits(scores: np.ndarray, own: float, habits: sparse.csr_matrix) -> np.ndarray:
    """Scores standardised per user, plus `own` times what they buy anyway.

    habits: users × items, decayed counts. Where own is 0 the scores stay as they are.
    """
    return np.asarray(standardised(scores) + own * habits.toarray(), np.float32) if own else scores


def standardised(scores: np.ndarray) -> np.ndarray:
    """Scores with mean 0 and standard deviation 1 along the last axis; all 0 where they are equal.

    >>> standardised(np.array([[1.0, 3.0], [5.0, 5.0]])).tolist()
    [[-1.0, 1.0], [0.0, 0.0]]
    """
    mean = scores.mean(axis=-1, keepdims=True)
    return (scores - mean) / np.maximum(scores.std(axis=-1, keepdims=True), 1e-9)


def min_max(scores: np.ndarray) -> np.ndarray:
    """Scores from 0 to 1 along the last axis; all 0 where they are equal.

    >>> min_max(np.array([[1.0, 2.0, 5.0], [3.0, 3.0, 3.0]])).tolist()
    [[0.0, 0.25, 1.0], [0.0, 0.0, 0.0]]
    """
    low = scores.min(axis=-1, keepdims=True)
    span = scores.max(axis=-1, keepdims=True) - low
    return (scores - low) / np.where(span > 0, span, 1)


def load_model(folder: Path) -> Recommender:
    """Load what `save` wrote; a changed byte or an unknown model is refused by name."""
    parts, meta = load_bundle(folder, "model", "train and save the model")
    kind = model_class(meta["module"], meta["model"], f"{folder}/manifest.json")
    model = kind(**meta["params"])
    model.restore(parts["arrays.npz"], pd.Timestamp(meta["cut"]))
    return model


def model_class(module: str, name: str, where: str) -> type[Recommender]:
    """The class of a model by name; LabError, naming where the name stands, if there is none."""
    # A model of ours joins the registry when its file is loaded; a user's own must be imported.
    if name not in REGISTRY and module.startswith("recsys_utils."):
        with suppress(ModuleNotFoundError):
            import_module(module)
    if name not in REGISTRY:
        raise LabError(
            f"{where} names the unknown model '{name}': this version has {', '.join(REGISTRY)}"
        )
    return REGISTRY[name]


def from_params(kind: type[Recommender], params: dict) -> Recommender:
    """A model with parameters as JSON keeps them: lists are tuples, unknown names are left out."""
    known = {each.name for each in fields(kind)}
    kept = {name: value for name, value in params.items() if name in known}
    return kind(**{n: tuple(v) if isinstance(v, list) else v for n, v in kept.items()})


def recorded_model(made_by: str, params: dict, where: str) -> Recommender:
    """The unfitted model of a run, from what the run's file says of it.

    made_by: module:class. where: names the run in the LabError for an unknown class.
    """
    module, kind = made_by.split(":")
    return from_params(model_class(module, kind, where), params)


def _check_k(k: int) -> None:
    if k < 1:
        raise LabError(f"k is {k}: ask for 1 or more items")


def check_params(model: Recommender, **bounds: tuple[float, float]) -> None:
    """Raise where a parameter is outside its range; None is always allowed."""
    for name, (low, high) in bounds.items():
        value = getattr(model, name)
        if value is not None and not low <= value <= high:
            raise LabError(
                f"{type(model).__name__}({name}={value}): {name} takes {low:g} to {high:g}"
            )
    for field in fields(model):
        options = getattr(field.type, "__args__", ())
        if (
            options
            and all(isinstance(o, str) for o in options)
            and getattr(model, field.name) not in options
        ):
            raise LabError(
                f"{type(model).__name__}({field.name}='{getattr(model, field.name)}'): choose"
                f" {', '.join(options)}"
            )
