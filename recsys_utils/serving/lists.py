"""One user's list by any model: filters act before anything is cut off, and whatever falls short is filled by what sells."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from recsys_utils import LabError
from recsys_utils.ensembles.hybrid import MODELS
from recsys_utils.evaluation.calibration import confidence
from recsys_utils.serving.artifacts import IN, UNKNOWN, Artifacts
from recsys_utils.serving.online import Online

TITLES = {
    "hybrid": "Hybrid",
    "als": "ALS",
    "item_cf": "Item-item",
    "popularity": "Popularity",
    "two_stage": "Two-stage ranker",
    "main_recommender": "Main recommender",
    "tifuknn": "Next basket (TIFU-KNN)",
    "item_bm25": "Item neighbours (BM25)",
    "preference_pairs": "Preference pairs",
    "progressive": "Progressive online",
    "own_decayed": "Own purchases",
}
STOCK = {UNKNOWN: "unknown", IN: "in_stock", 0: "out_of_stock"}
STRANGER = ""  # no id is empty, so nobody's history is meant


@dataclass(frozen=True)
class Ask:
    """A request for a list; equal ones are answered from the cache. history: what a made-up shopper bought."""

    user_id: str
    n: int = 5
    model: str = "hybrid"
    as_of: pd.Timestamp | None = None
    exclude_purchased: bool = False
    exclude_items: tuple[str, ...] = ()
    price_min: float | None = None
    price_max: float | None = None
    category: str | None = None
    in_stock_only: bool = False
    history: tuple[str, ...] | None = None


@dataclass
class Made:
    """A list by item code, best first."""

    item: np.ndarray
    relevance: np.ndarray
    score: np.ndarray
    reason: list[str]
    source: list[str]
    primary: str
    fell: bool


def made(art: Artifacts, ask: Ask, since: pd.DataFrame | None) -> Made:
    """The list that was asked for. since: what the user bought after the models' cut (item_id, ts)."""
    if ask.model not in (*MODELS, *art.lists):
        raise LabError(
            f"model '{ask.model[:60]}' is unknown: choose {', '.join((*MODELS, *art.lists))}"
        )
    closed = barred(art, ask, since)
    return live(art, ask, since, closed) if ask.model in MODELS else listed(art, ask, since, closed)


def barred(art: Artifacts, ask: Ask, since: pd.DataFrame | None) -> np.ndarray:
    """(items,) bool: what the filters leave out."""
    ids = art.items.index
    closed = art.hybrid.outside(ask.price_min, ask.price_max) | ids.isin(ask.exclude_items)
    if ask.category is not None:
        closed |= art.categories != ask.category
    if ask.in_stock_only:
        if not art.stocks:
            raise LabError(
                "in_stock_only needs a stock table, and this shop's data have none: leave it out"
            )
        closed |= art.stock_of(ids_of(art, ask.user_id)) != IN
    if ask.exclude_purchased or not art.manifest["repeats"]:
        closed |= bought(art, ask, since)
    return closed


def bought(art: Artifacts, ask: Ask, since: pd.DataFrame | None) -> np.ndarray:
    """(items,) bool: what the user bought until the moment asked for."""
    there = np.zeros(len(art.items), bool)
    there[art.hybrid.lines(ask.user_id, ask.as_of, since)[0]] = True
    return there


def live(art: Artifacts, ask: Ask, since: pd.DataFrame | None, closed: np.ndarray) -> Made:
    """By the hybrid or one of its parts, computed now."""
    answer = art.hybrid.explain_list(
        ask.user_id, ask.n, ask.model, ask.as_of, history=since, closed=closed
    )
    rows = answer.rows
    relevance = np.clip(rows["relevance"].to_numpy(float), 0, 1)
    return Made(
        art.items.index.get_indexer(rows["item_id"]),
        relevance,
        relevance,
        rows["reason"].tolist(),
        rows["source"].tolist(),
        answer.primary_model,
        answer.fallback_used,
    )


def listed(art: Artifacts, ask: Ask, since: pd.DataFrame | None, closed: np.ndarray) -> Made:
    """By a table made in training; what is missing to n comes from the items that sell most."""
    user = ids_of(art, ask.user_id)
    item, score = (
        art.lists[ask.model].of_user(user)
        if user >= 0
        else (np.zeros(0, np.int32), np.zeros(0, np.float32))
    )
    kept, relevance = ~closed[item], scaled(score)
    item, score, relevance = item[kept][: ask.n], score[kept][: ask.n], relevance[kept][: ask.n]
    extra = art.by_units[~closed[art.by_units] & ~np.isin(art.by_units, item)][: ask.n - len(item)]
    share = art.items["units"].to_numpy(float)[extra] / max(art.items["units"].max(), 1e-12)
    reason = _reasons(ask.model, item, bought(art, ask, since), art) + _popular(extra, art)
    relevance = np.append(relevance, share * (relevance[-1] if len(item) else 1.0))
    source = [ask.model] * len(item) + ["popularity"] * len(extra)
    fell = not len(item)
    return Made(
        np.append(item, extra).astype(int),
        relevance,
        np.append(score, art.hybrid.counts_[extra]),
        reason,
        source,
        "popularity" if fell else ask.model,
        fell,
    )


def scaled(score: np.ndarray) -> np.ndarray:
    """A list's scores in 0…1: its best is 1, its last 0."""
    if not len(score):
        return np.zeros(0)
    span = float(score[0] - score[-1])
    return (
        np.clip((score - score[-1]) / span, 0, 1).astype(float) if span > 0 else np.ones(len(score))
    )


def confidences(
    art: Artifacts, ask: Ask, made: Made, since: pd.DataFrame | None
) -> np.ndarray | None:
    """(n,) how often such suggestions were bought on validation; None where that could not be learnt."""
    if art.cells is None:
        return None
    user = ids_of(art, ask.user_id)
    baskets = (art.users["baskets"].iat[user] if user >= 0 else 0) + (
        since["ts"].nunique() if since is not None else 0
    )
    models = {
        source: source if ask.model not in MODELS else made.primary for source in set(made.source)
    }
    parts = {
        source: confidence(art.cells, name, made.score, int(baskets))
        for source, name in models.items()
    }
    return np.array([parts[source][n] for n, source in enumerate(made.source)])


def ids_of(art: Artifacts, user: str) -> int:
    """A user's code, −1 for a stranger."""
    return int(art.hybrid.user_ids_.get_indexer([user])[0])


def history(art: Artifacts, ask: Ask, online: Online) -> pd.DataFrame | None:
    """What counts beside the receipts (item_id, ts, price): what was bought since, or a made-up history at the moment asked for."""
    past = (
        online.since(ask.user_id)
        if ask.history is None
        else pd.DataFrame(
            {
                "item_id": list(ask.history),
                "ts": ask.as_of if ask.as_of is not None else art.hybrid.as_of,
            }
        )
    )
    return (
        past
        if past is None
        else past.assign(
            price=np.append(art.hybrid.price_, np.nan)[art.items.index.get_indexer(past["item_id"])]
        )
    )


def moved(ask: Ask, art: Artifacts, since: pd.DataFrame | None) -> Ask:
    """Without a time of its own, a request means the last moment that is known of the user: the models' cut, or a later purchase."""
    if ask.as_of is not None or since is None:
        return ask
    return replace(ask, as_of=max(art.hybrid.as_of, since["ts"].max()))


def _reasons(model: str, item: np.ndarray, bought: np.ndarray, art: Artifacts) -> list[str]:
    return [
        "You bought it before"
        if bought[i]
        else _popular([i], art)[0]
        if model == "own_decayed"
        else f"Chosen by: {TITLES[model]}"
        for i in item
    ]


def _popular(item: np.ndarray, art: Artifacts) -> list[str]:
    counts = art.hybrid.shoppers_[item].tolist()
    return [
        f"Popular with {n:,} shopper{'s' * (n != 1)}" if n else "Nobody bought it yet"
        for n in counts
    ]
