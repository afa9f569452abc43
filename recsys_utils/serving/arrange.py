"""What people decide of a list, whatever model made it.

Products that come first or weigh more, how unlike one another the products are, and how relevant
they must be. A request's wishes stand above those of the settings.
"""

from dataclasses import dataclass

import numpy as np

from recsys_utils import LabError
from recsys_utils.ensembles.business_rules import arranged
from recsys_utils.ensembles.hybrid import Hybrid
from recsys_utils.ensembles.rule_settings import Merchandising

DEEP = 100  # places that a list is arranged from
SHOP = "shop"  # the source of what was pinned
PINNED = "Picked by the shop"


@dataclass(frozen=True)
class Wishes:
    """What holds for one list. pin, boost: item codes, in the order of the wishes."""

    pin: np.ndarray
    boost: np.ndarray
    boost_factor: float
    diversity: float
    min_relevance: float

    @property
    def is_plain(self) -> bool:
        """Whether lists stay as the models made them."""
        is_bare = not len(self.pin) and not len(self.boost)
        return is_bare and not self.diversity and not self.min_relevance

    def bonus(self, n_items: int) -> np.ndarray | None:
        """(items,) what is added to the blend of a hybrid; None for nothing."""
        if not len(self.boost):
            return None
        bonus = np.zeros(n_items, np.float32)
        bonus[self.boost] = self.boost_factor
        return bonus


@dataclass
class RankedList:
    """A list by item code, best first.

    relevance: scores over the attainable maximum, NaN where a model's scores have none.
    place: in the model's list before any filter, from 1; NaN where that is not known.
    primary_model: the model that made it. fallback_used: it is not the one asked for.
    """

    item: np.ndarray
    relevance: np.ndarray
    score: np.ndarray
    place: np.ndarray
    reason: list[str]
    source: list[str]
    primary_model: str
    fallback_used: bool

    def at(self, rows: np.ndarray) -> "RankedList":
        """Some rows, in this order."""
        return RankedList(
            self.item[rows],
            self.relevance[rows],
            self.score[rows],
            self.place[rows],
            [self.reason[row] for row in rows],
            [self.source[row] for row in rows],
            self.primary_model,
            self.fallback_used,
        )

    def with_pins(self, pins: np.ndarray) -> "RankedList":
        """The same with some items in front; of those that it does not hold no score is known."""
        rows = np.flatnonzero(~np.isin(self.item, pins))
        rest = self.at(rows)
        where = np.array([self._row_of(item) for item in pins], int)
        known = [np.append(column, np.nan)[where] for column in self._numbers()]
        numbers = [np.append(*pair) for pair in zip(known, rest._numbers(), strict=True)]
        return RankedList(
            np.append(pins, rest.item).astype(int),
            *numbers,
            [PINNED] * len(pins) + rest.reason,
            [SHOP] * len(pins) + rest.source,
            self.primary_model,
            self.fallback_used,
        )

    def followed_by(self, other: "RankedList") -> "RankedList":
        """The same with another list's rows behind it."""
        pairs = zip(self._numbers(), other._numbers(), strict=True)
        return RankedList(
            np.append(self.item, other.item).astype(int),
            *(np.append(*pair) for pair in pairs),
            self.reason + other.reason,
            self.source + other.source,
            self.primary_model,
            self.fallback_used,
        )

    def _numbers(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.relevance, self.score, self.place

    def _row_of(self, item: int) -> int:
        found = np.flatnonzero(self.item == item)
        return int(found[0]) if len(found) else -1


def checked_wishes(
    knobs: Merchandising,
    pin: tuple[str, ...],
    boost: tuple[str, ...],
    diversity: float | None,
    min_relevance: float | None,
    hybrid: Hybrid,
) -> Wishes:
    """The wishes of a request above those of the settings; LabError for an unknown item."""
    return Wishes(
        known_codes("pin_items", (*pin, *knobs.pin), hybrid),
        known_codes("boost_items", (*boost, *knobs.boost), hybrid),
        knobs.boost_factor,
        knobs.diversity if diversity is None else diversity,
        knobs.min_relevance if min_relevance is None else min_relevance,
    )


def known_codes(field: str, ids: tuple[str, ...], hybrid: Hybrid) -> np.ndarray:
    """Item codes of ids, each once; LabError that names the field and an unknown one."""
    ids = tuple(dict.fromkeys(ids))
    codes = hybrid.item_ids_.get_indexer(list(ids))
    if (codes < 0).any():
        odd = ids[int((codes < 0).argmax())]
        raise LabError(
            f"{field} names '{odd[:60]}', which is not in the catalogue: find items at"
            " /api/v1/items?q="
        )
    return codes


def with_new(
    ranked: RankedList, others: RankedList, is_bought: np.ndarray, new: int, n: int
) -> RankedList:
    """The n first items of a list, `new` of them new to the shopper as far as `others` has any.

    The rule of `ensembles.new_for_you.with_new`, for one shopper's arrays: what was bought before
    and stands lowest makes room for the first new items of `others`, at the end of the list.
    is_bought: (items,) bool.
    """
    ranked = ranked.at(np.arange(min(n, len(ranked.item))))
    habits = is_bought[ranked.item]
    lacking = max(0, new - int((~habits).sum()))
    is_offered = ~is_bought[others.item] & ~np.isin(others.item, ranked.item)
    added = others.at(np.flatnonzero(is_offered)[:lacking])
    leaving = max(0, len(ranked.item) + len(added.item) - n)
    places = np.flatnonzero(habits)
    stays = np.ones(len(habits), bool)
    stays[places[len(places) - leaving :]] = False
    return ranked.at(np.flatnonzero(stays)).followed_by(added)


def arrange(
    ranked: RankedList,
    wishes: Wishes,
    closed: np.ndarray,
    n: int,
    hybrid: Hybrid,
    has_scale: bool,
) -> RankedList:
    """The n items of a deep list that the wishes ask for.

    Pinned items come first unless a filter leaves them out (closed). Where a model's scores have no
    scale (has_scale), what an item is worth falls evenly from 1 down the list.
    """
    worth = 1 - np.arange(len(ranked.item)) / max(len(ranked.item), 1)
    if has_scale:
        worth = np.nan_to_num(ranked.relevance)
        ranked = ranked.at(np.flatnonzero(worth >= wishes.min_relevance))
        worth = worth[worth >= wishes.min_relevance]
    else:
        worth = worth + wishes.boost_factor * np.isin(ranked.item, wishes.boost)
        order = np.argsort(-worth, kind="stable")
        ranked = ranked.at(order)
        worth = np.minimum(worth[order], 1)
    pins = wishes.pin[~closed[wishes.pin]]
    worth = np.append(np.ones(len(pins)), worth[~np.isin(ranked.item, pins)])
    ranked = ranked.with_pins(pins)
    if not wishes.diversity:
        return ranked.at(np.arange(min(n, len(worth))))
    alike = hybrid.alike(ranked.item)
    return ranked.at(arranged(worth, alike, n, wishes.diversity, len(pins)))
