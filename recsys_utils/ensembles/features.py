"""Features of (user, item) pairs on the day of the cut: habits, rhythm, price, season.

One row per pair; nothing from later than the cut.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import ibis
import numpy as np
import pandas as pd
from ibis.expr.types import Table
from scipy import sparse

from recsys_utils.data.attributes import blocks, vocabulary
from recsys_utils.data.attributes import codes as attribute_codes
from recsys_utils.data.engine import connect, drop, given, keep
from recsys_utils.data.interactions import Interactions, codes
from recsys_utils.ensembles.candidates import Candidates, places
from recsys_utils.ensembles.discovery import Finders
from recsys_utils.models.item_cf import normalize_rows
from recsys_utils.models.next_basket import basket_positions

WINDOW = 21  # days that a list is for
YEAR = 364  # whole weeks: the same weekdays
TAUS = (15, 60, 365)
STEPS = (3, 10)  # decay by the shopper's own baskets
SPANS = (7, 28, 91, 364)
LEAN = 20  # shoppers that the shop's mean counts for
PAIRS = 1 << 18  # whose stores are looked at in one go: bounds their memory


@dataclass
class Aggregates:
    """What a history says, whatever the pairs: made once for all of them.

    What there is of every (user, item) stays in the engine, of which a block of users asks its
    rows.
    """

    history: Interactions
    pair: Table  # by user and item code
    user: pd.DataFrame  # a row for each user code
    item: pd.DataFrame  # a row for each item code

    @cached_property
    def weights(self) -> np.ndarray:
        """(lines,) what a line counts by its age, float64."""
        return np.exp(-self.history.age / TAUS[1])

    @cached_property
    def everywhere(self) -> np.ndarray:
        """(items,) share of an item in the recent sales of the whole shop."""
        sold = np.bincount(self.history.item, self.weights, self.history.shape[1])
        return sold / self.weights.sum()

    @cached_property
    def by_store(self) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
        """Users × stores, shares of their visits; stores × items, shares of their sales."""
        store = codes(self.history.purchases["store_id"])
        visits = sparse.csr_matrix((self.weights, (self.history.user, store)))
        sales = sparse.csr_matrix((self.weights, (store, self.history.item)))
        return normalize_rows(visits), normalize_rows(sales)

    @cached_property
    def of_users(self) -> dict[str, tuple[np.ndarray, np.ndarray, sparse.csr_matrix]]:
        """By attribute: each user's value, and how common it is among shoppers.

        With them values × items, shares of what its users bought.
        """
        result = {}
        for column, value in _values(self.history.users):
            common = np.bincount(value) / len(value)
            at = value[self.history.user], self.history.item
            sales = normalize_rows(sparse.csr_matrix((self.weights, at)))
            result[column] = value, common[value], sales
        return result

    @cached_property
    def of_items(self) -> dict[str, np.ndarray]:
        """By attribute: (items,) the share of recent sales that have the item's value."""
        result = {}
        for column, value in _values(self.history.items):
            sold = np.bincount(value[self.history.item], self.weights, value.max() + 1)
            result[column] = (sold / self.weights.sum())[value]
        return result

    @cached_property
    def finders(self) -> Finders:
        """What finds new items."""
        return Finders(self.history)


def build(
    pairs: Candidates,
    history: Interactions,
    embeddings: tuple[np.ndarray, np.ndarray] | None = None,
    known: Aggregates | None = None,
    discovery: bool = False,
) -> pd.DataFrame:
    """(pairs, features) float32, in the order of the pairs.

    The history ends at its `as_of`: Interactions refuses later rows. known: its aggregates, where
    they are made already.

    Groups, told by prefix: `pair_` what this user did with this item, `user_`, `item_`, `price_` of
    both, `category_`, `subcategory_` and `store_` where the receipts tell them, `attribute_` of
    users and items, `score_`, `share_` and `rank_` of each generator among the user's candidates;
    `latent_` are the embeddings (users × f, items × f), each joined by its own side.
    discovery: also what finds new items, `words_` of names and `momentum_` of sales.
    """
    known = aggregates(history) if known is None else known
    pair = _joined(pairs, known.pair)
    user = known.user.to_numpy()
    item = known.item.to_numpy()
    result = {f"pair_{c}": pair[c].to_numpy() for c in pair}
    result |= {f"user_{c}": user[pairs.user, n] for n, c in enumerate(known.user)}
    result |= {f"item_{c}": item[pairs.item, n] for n, c in enumerate(known.item)}
    result |= _both(result) | _kinds(pairs, history) | _stores(pairs, known)
    result |= _attributes(pairs, known) | _generators(pairs)
    if discovery:
        result |= known.finders.words(pairs) | known.finders.momentum(pairs)
    for side, factors, code in zip(("user", "item"), embeddings or (), (pairs.user, pairs.item)):
        result |= {f"latent_{side}_{n}": column[code] for n, column in enumerate(factors.T)}
    return pd.DataFrame(result, dtype=np.float32)


def aggregates(history: Interactions) -> Aggregates:
    """Tables of the engine by (user, item), user and item code."""
    con = connect()
    lines = given(_lines(history), con)
    pair = keep(_pair(lines))  # asked often, made once
    user = keep(_user(lines, pair))
    users, items = history.shape
    of_user = user.to_pandas().set_index("user").reindex(range(users))
    of_item = _item(lines, pair, user).to_pandas().set_index("item").reindex(range(items))
    drop(lines)
    return Aggregates(history, pair, of_user, of_item)


def _lines(history: Interactions) -> pd.DataFrame:
    """A row per receipt line: codes, age in days, how many baskets ago, units, price."""
    rows = history.purchases
    return pd.DataFrame(
        {
            "user": history.user,
            "item": history.item,
            "age": history.age,
            "place": basket_positions(history)[0].astype(np.int32),
            "quantity": rows["quantity"].to_numpy(float),
            "price": rows["price"].to_numpy(float) if "price" in rows else np.nan,
        }
    )


def _pair(t: Table) -> Table:
    """How often, how long ago, in which rhythm a user bought an item."""
    result = t.group_by("user", "item").agg(
        times=t.count(),
        last=t.age.min(),
        first=t.age.max(),
        baskets_ago=t.place.min(),
        units=t.quantity.sum(),
        paid=t.price.mean(),
        in_last_3=(t.place < 3).sum(),
        season=((t.age > YEAR - WINDOW - 7) & (t.age <= YEAR + 7)).sum(),
        **{f"decayed_{tau}": (-t.age / tau).exp().sum() for tau in TAUS},
        **{f"by_basket_{step}": (-t.place / step).exp().sum() for step in STEPS},
    )
    gap = ibis.ifelse(
        result.times > 1, (result["first"] - result["last"]) / (result.times - 1), None
    )
    return result.mutate(gap=gap, due=result["last"] / (gap + 1))


def _user(t: Table, pair: Table) -> Table:
    """A user's habits, and how many items of their last window they had bought before."""
    baskets = t.group_by("user", "place").agg(
        size=t.count(), money=(t.quantity * t.price).sum(), age=t.age.max()
    )
    visits = baskets.group_by("user").agg(
        baskets=baskets.count(),
        recency=baskets.age.min(),
        tenure=baskets.age.max(),
        basket_size=baskets["size"].mean(),
        basket_money=baskets.money.mean(),
        baskets_91=(baskets.age <= 91).sum(),
    )
    items = t.group_by("user").agg(items=t.item.nunique(), lines=t.count(), price=t.price.mean())
    lately = pair.group_by("user").agg(
        last_items=(pair["last"] <= WINDOW).sum(),
        last_again=((pair["last"] <= WINDOW) & (pair["first"] > WINDOW)).sum(),
    )
    result = visits.join(items, "user").join(lately, "user")
    gap = (result.tenure - result.recency) / (result.baskets - 1).nullif(0)
    return result.mutate(
        repeat=1 - result["items"] / result.lines,
        gap=gap,
        due=result.recency / (gap + 1),
        last_repeat=result.last_again / result.last_items.nullif(0),
    )


def _item(t: Table, pair: Table, user: Table) -> Table:
    """An item's sales now, before and in the same weeks of last year; its repeats; its price.

    Sales also as shares of the shop's.
    """

    def sold(low: float, high: float) -> ibis.expr.types.IntegerScalar:
        return ((t.age > low) & (t.age <= high)).sum()

    sales = t.group_by("item").agg(
        **{f"sold_{days}": sold(-1, days) for days in SPANS},
        sold_ever=t.count(),
        season=sold(YEAR - WINDOW, YEAR),
        before_season=sold(YEAR, YEAR + 28),
        last_sale=t.age.min(),
        first_sale=t.age.max(),
        price=t.price.mean(),
        price_28=t.price.mean(where=t.age <= 28),
        units=t.quantity.mean(),
    )
    result = sales.join(_again(pair.join(user.select("user", "recency"), "user")), "item")
    shares = {
        f"share_{name}": result[name] / result[name].sum().nullif(0)
        for name in ("sold_7", "sold_28", "sold_91", "season", "before_season")
    }
    places = {
        f"place_{days}": ibis.rank().over(order_by=ibis.desc(result[f"sold_{days}"]))
        for days in SPANS[:3]
    }
    return result.mutate(
        **shares,
        **places,
        trend=(result.sold_28 + 1) / (result.sold_91 / 3.25 + 1),
        trend_week=(4 * result.sold_7 + 1) / (result.sold_28 + 1),
        season_trend=(result.season + 1) / (result.before_season + 1),
    )


def _again(pair: Table) -> Table:
    """How an item is bought again: ever, and in the last window by the shoppers who came then.

    For few shoppers the value is shrunk towards the shop's mean.
    """
    due = (pair["first"] > WINDOW) & (pair.recency <= WINDOW)
    back = (pair["first"] > WINDOW) & (pair["last"] <= WINDOW)
    result = pair.group_by("item").agg(
        buyers=pair.count(),
        repeat=(pair.times > 1).mean(),
        usual_gap=pair.gap.mean(),
        due=due.sum(),
        back=back.sum(),
        found=(pair["first"] <= WINDOW).sum(),
    )
    usual = result.back.sum() / result.due.sum().nullif(0)
    return result.mutate(
        rebuy=(result.back + LEAN * usual) / (result.due + LEAN),
        found_share=result.found / result.found.sum().nullif(0),
    ).drop("due", "back")


def _joined(pairs: Candidates, known: Table) -> pd.DataFrame:
    """The pair table's rows for candidates.

    What was never bought counts 0 times and has no ages.
    """
    asked = ibis.memtable(pd.DataFrame({"user": pairs.user, "item": pairs.item}))
    found = known.semi_join(asked, ["user", "item"]).to_pandas()
    candidates = pd.MultiIndex.from_arrays([pairs.user, pairs.item])
    result = found.set_index(["user", "item"]).reindex(candidates).reset_index(drop=True)
    counts = [
        c
        for c in result
        if c in ("times", "units", "in_last_3", "season") or c.startswith(("decayed", "by_basket"))
    ]
    return result.fillna(dict.fromkeys(counts, 0.0))


def _both(made: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What only user and item together say."""
    return {
        "pair_share": made["pair_times"] / made["user_baskets"],
        "pair_due_item": made["pair_last"] / (made["item_usual_gap"] + 1),
        "price_to_user": made["item_price"] / np.maximum(made["user_price"], 0.01),
        "price_now": made["item_price_28"] / np.maximum(made["item_price"], 0.01),
        "price_to_paid": made["item_price_28"] / np.maximum(made["pair_paid"], 0.01),
    }


def _kinds(pairs: Candidates, history: Interactions) -> dict[str, np.ndarray]:
    """What the user buys of the item's category and subcategory, by recency.

    How much it is, its share of all, and this item's share of it.
    """
    result = {}
    row, habits = _habits(pairs, history)
    for column in (c for c in ("category", "subcategory") if c in history.items):
        # −1, what has no category, is the last column.
        of, values = pd.factorize(history.items[column])
        member = sparse.csr_matrix(
            (np.ones(len(of), np.float32), (np.arange(len(of)), of % (len(values) + 1))),
            (len(of), len(values) + 1),
        )
        for tau, own in habits.items():
            kind = own @ member
            bought = cells(kind, row, of[pairs.item])
            whole = np.asarray(kind.sum(axis=1)).ravel()[row]
            result |= {
                f"{column}_decayed_{tau}": bought,
                f"{column}_share_{tau}": bought / np.maximum(whole, 1e-9),
                f"{column}_item_{tau}": (cells(own, row, pairs.item) / np.maximum(bought, 1e-9)),
            }
    return result


def _habits(
    pairs: Candidates, history: Interactions
) -> tuple[np.ndarray, dict[float, sparse.csr_matrix]]:
    """(pairs,) row of each pair's user; by decay what these users bought, users × items."""
    users, row = np.unique(pairs.user, return_inverse=True)
    number = np.full(history.shape[0], -1, np.int32)
    number[users] = np.arange(len(users))
    lines = np.flatnonzero(number[history.user] >= 0)
    at = number[history.user[lines]], history.item[lines]
    habits = {}
    for tau in TAUS[:2]:
        weights = np.exp(-history.age[lines] / tau)
        own = sparse.csr_matrix((weights, at), (len(users), history.shape[1]))
        habits[tau] = own.astype(np.float32)
    return row, habits


def _stores(pairs: Candidates, known: Aggregates) -> dict[str, np.ndarray]:
    """The item's share of sales in the stores that the user visits, by recency.

    And that share over the item's share everywhere.
    """
    if "store_id" not in known.history.purchases:
        return {}
    visits, sales = known.by_store
    share = np.empty(len(pairs), np.float32)
    for start in range(0, len(pairs), PAIRS):
        block = slice(start, start + PAIRS)
        share[block] = _products(visits, sales, pairs.user[block], pairs.item[block])
    return {
        "store_share": share,
        "store_lift": share / np.maximum(known.everywhere[pairs.item], 1e-9),
    }


def _products(
    left: sparse.csr_matrix, right: sparse.csr_matrix, row: np.ndarray, column: np.ndarray
) -> np.ndarray:
    """(pairs,) float64 cells of `left @ right`, of which no other cell is made."""
    first = left.indptr[row]
    count = left.indptr[row + 1] - first
    pair = np.repeat(np.arange(len(row)), count)
    place = np.arange(len(pair)) + np.repeat(first - (np.cumsum(count) - count), count)
    cell = np.asarray(right[left.indices[place], column[pair]]).ravel()
    return np.bincount(pair, left.data[place] * cell, len(row))


def _attributes(pairs: Candidates, known: Aggregates) -> dict[str, np.ndarray]:
    """What users and items are, as numbers that mean the same in every window.

    `user`, `item`: how common the value is among shoppers, or in recent sales. `like`: the item's
    share of what shoppers with the user's value bought lately, over its share of all sales.
    """
    everywhere = known.everywhere[pairs.item]
    result = {}
    for column, (value, common, sales) in known.of_users.items():
        share = cells(sales, value[pairs.user], pairs.item)
        result[f"attribute_user_{column}"] = common[pairs.user]
        result[f"attribute_like_{column}"] = share / np.maximum(everywhere, 1e-9)
    for column, share in known.of_items.items():
        result[f"attribute_item_{column}"] = share[pairs.item]
    return result


def _values(frame: pd.DataFrame) -> Iterator[tuple[str, np.ndarray]]:
    """Each column that says something, and the number of each row's value; 0 is unknown."""
    vocab = vocabulary(frame)
    every = attribute_codes(frame, vocab)
    for n, (column, block) in enumerate(blocks(vocab).items()):
        yield column, every[:, n] - block.start


def cells(x: sparse.csr_matrix, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Values of a CSR matrix at (row, column) pairs, float32; column −1 is the last."""
    return np.asarray(x[row, column], np.float32).ravel()


def _generators(pairs: Candidates) -> dict[str, np.ndarray]:
    """Each generator's score of the candidates, its share of the user's best, and its rank."""
    starts = np.flatnonzero(np.diff(pairs.user, prepend=-1))
    sizes = np.diff(np.append(starts, len(pairs)))
    result = {}
    for name, score in pairs.scores.items():
        best = np.repeat(np.maximum.reduceat(score, starts), sizes)
        result |= {
            f"score_{name}": score,
            f"share_{name}": score / np.where(best > 0, best, 1),
            f"rank_{name}": places(pairs.user, score),
        }
    return result
