"""Lists for many users at once: looked up or scored together, equal to those made one by one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recsys_utils.ensembles.rule_settings import Merchandising
from recsys_utils.serving.artifacts import Artifacts
from recsys_utils.serving.lists import Query, look_up, recommend
from recsys_utils.serving.service import Loaded

CELLS = 2_000_000  # users × items scored at once: 8 MB of each model's scores


@dataclass
class Predicted:
    """A user's items by id, best first. new_user: nothing is known of what they bought."""

    items: list[str]
    new_user: bool
    fallback_used: bool = False


def predict_many(now: Loaded, users: Sequence[str], model: str, n: int) -> list[Predicted]:
    """The n items of each user by a model, as it lists them now, of the shop's own catalogue.

    Who has bought since the models' cut is looked up alone, for that changes what rules allow; so
    is everybody where people decide of lists; strangers all get the same.
    """
    art = now.art
    codes = art.hybrid.user_ids_.get_indexer(list(users))
    has_bought = np.array([user in now.online.bought for user in users])
    lines = np.append(np.diff(art.hybrid.line_start_), 0)  # of a stranger, −1, none
    is_arranged = art.hybrid.knobs.merchandising != Merchandising()
    is_plain = (lines[codes] > 0) & ~has_bought & (not is_arranged)
    together = dict(zip(*_together(art, np.unique(codes[is_plain]), model, n)))
    alone: dict[str, Predicted] = {}
    result = []
    for user, code, plain in zip(users, codes.tolist(), is_plain):
        if plain and len(together[code]) == n:
            result.append(Predicted(art.items.index[together[code]].tolist(), False))
            continue
        is_told = code >= 0 or user in now.online.bought or user in art.clients.index
        key = user if is_told else ""
        if key not in alone:
            alone[key] = _alone(now, key, model, n)
        result.append(alone[key])
    return result


def _alone(now: Loaded, user: str, model: str, n: int) -> Predicted:
    target = look_up(Query(user, n, model, prefiltered=True), now.art, now.online)
    ranked = recommend(target)
    items = now.art.items.index[ranked.item].tolist()
    return Predicted(items, not len(target.shopper.items), ranked.fallback_used)


def _together(
    art: Artifacts, codes: np.ndarray, model: str, n: int
) -> tuple[list[int], list[np.ndarray]]:
    """Known users by code, and up to n item codes of each."""
    lists = []
    size = max(1, CELLS // len(art.items))
    for start in range(0, len(codes), size):
        some = codes[start : start + size]
        closed = np.repeat(art.outside_catalogue[None, :], len(some), axis=0)
        if not art.manifest["repeats"]:
            closed |= (art.hybrid.seen_[some] > 0).toarray()
        if model in art.lists:
            lists += _looked_up(art.lists[model].items[some], closed, n)
        else:
            best = art.hybrid.lists_for(some, n, closed)
            lists += [row[row >= 0] for row in best]
    return codes.tolist(), lists


def _looked_up(items: np.ndarray, closed: np.ndarray, n: int) -> list[np.ndarray]:
    is_open = items >= 0
    is_open &= ~np.take_along_axis(closed, np.maximum(items, 0), axis=1)
    return [row[kept][:n] for row, kept in zip(items, is_open)]
