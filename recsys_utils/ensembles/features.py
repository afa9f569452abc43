"""What is known of a (user, item) pair on the day of the cut: habits, rhythm, price, season.

One row per pair, nothing from later.
"""

from collections.abc import Iterator, Mapping

import ibis
import numpy as np
import pandas as pd
from ibis.expr.types import Table
from scipy import sparse

from recsys_utils.data.attributes import blocks, vocabulary
from recsys_utils.data.attributes import codes as attribute_codes
from recsys_utils.data.engine import connect
from recsys_utils.data.interactions import Interactions, codes
from recsys_utils.ensembles.candidates import Candidates
from recsys_utils.ensembles.discovery import momentum, words
from recsys_utils.models.item_cf import normalize_rows
from recsys_utils.models.next_basket import basket_positions

WINDOW = 21  # days that a list is for
YEAR = 364  # whole weeks: the same weekdays
TAUS = (15, 60, 365)
STEPS = (3, 10)  # decay by the shopper's own baskets
SPANS = (7, 28, 91, 364)
LEAN = 20  # shoppers that the shop's mean counts for


def build(
    pairs: Candidates,
    history: Interactions,
    embeddings: tuple[np.ndarray, np.ndarray] | None = None,
    discovery: bool = False,
) -> pd.DataFrame:
    """(pairs, features) float32, in the order of the pairs.

    The history ends at its `as_of`: Interactions refuses later rows.

    Groups, told by prefix: `pair_` what this user did with this item, `user_`, `item_`, `price_` of
    both, `category_`, `subcategory_` and `store_` where the receipts tell them, `attribute_` of
    users and items, `score_`, `share_` and `rank_` of each generator among the user's candidates;
    `latent_` are the embeddings (users × f, items × f), each joined by its own side.
    discovery: also what finds new items, `words_` of names and `momentum_` of sales.
    """
    tables = aggregates(history)
    pair = _joined(pairs, tables["pair"])
    user, item = (
        tables[side].reindex(range(n)).to_numpy()
        for side, n in zip(("user", "item"), history.shape)
    )
    result = {f"pair_{c}": pair[c].to_numpy() for c in pair}
    result |= {f"user_{c}": user[pairs.user, n] for n, c in enumerate(tables["user"])}
    result |= {f"item_{c}": item[pairs.item, n] for n, c in enumerate(tables["item"])}
    result |= _both(result) | _kinds(pairs, history) | _stores(pairs, history)
    result |= _attributes(pairs, history) | _generators(pairs)
    if discovery:
        result |= words(pairs, history) | momentum(pairs, history)
    for side, factors, code in zip(("user", "item"), embeddings or (), (pairs.user, pairs.item)):
        result |= {f"latent_{side}_{n}": column[code] for n, column in enumerate(factors.T)}
    return pd.DataFrame(result, dtype=np.float32)


def aggregates(history: Interactions) -> dict[str, pd.DataFrame]:
    """Tables of the engine by `pair` (user, item), `user` and `item` code."""
    con = connect()
    lines = con.create_table("lines", _lines(history), temp=True)
    pair = con.create_table("pairs", _pair(lines), temp=True)  # asked three times, made once
    user = con.create_table("users", _user(lines, pair), temp=True)
    return {
        "pair": pair.to_pandas().set_index(["user", "item"]).sort_index(),
        "user": user.to_pandas().set_index("user").sort_index(),
        "item": _item(lines, pair, user).to_pandas().set_index("item").sort_index(),
    }


def _lines(history: Interactions) -> pd.DataFrame:
    """A row per receipt line: codes, age in days, how many baskets ago, units, price."""
    rows = history.purchases
    return pd.DataFrame(
        {
            "user": history.user,
            "item": history.item,
            "age": history.age,
            "place": basket_positions(history)[0],
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
    """A user's habits at large, and how many of the items of the last window they had bought
    before.
    """
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
    """An item's sales now, before and in the same weeks of last year, also as shares of the shop's.

    How it is bought again; its price.
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
    """How an item is bought again: ever; and in the last window, of those shoppers who came then.

    Few shoppers lean to the shop's mean.
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


def _joined(pairs: Candidates, table: pd.DataFrame) -> pd.DataFrame:
    """The pair table's rows for candidates.

    What was never bought counts 0 times and has no ages.
    """
    rows = table.index.get_indexer(pd.MultiIndex.from_arrays([pairs.user, pairs.item]))
    result = table.iloc[rows].reset_index(drop=True)
    counts = [
        c
        for c in table
        if c in ("times", "units", "in_last_3", "season") or c.startswith(("decayed", "by_basket"))
    ]
    result.loc[rows < 0] = np.nan
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

    How much, its share of all, and this item's share of it.
    """
    result = {}
    habits = {tau: history.matrix(tau) for tau in TAUS[:2]}
    for column in (c for c in ("category", "subcategory") if c in history.items):
        of, values = pd.factorize(
            history.items[column]
        )  # −1, what has no category, is the last column
        member = sparse.csr_matrix(
            (np.ones(len(of), np.float32), (np.arange(len(of)), of % (len(values) + 1))),
            (len(of), len(values) + 1),
        )
        for tau, own in habits.items():
            kind = own @ member
            bought = cells(kind, pairs.user, of[pairs.item])
            whole = np.asarray(kind.sum(axis=1)).ravel()[pairs.user]
            result |= {
                f"{column}_decayed_{tau}": bought,
                f"{column}_share_{tau}": bought / np.maximum(whole, 1e-9),
                f"{column}_item_{tau}": (
                    cells(own, pairs.user, pairs.item) / np.maximum(bought, 1e-9)
                ),
            }
    return result


def _stores(pairs: Candidates, history: Interactions) -> dict[str, np.ndarray]:
    """The item's share of sales in the stores that the user visits, by recency, and that over its
    share everywhere.
    """
    if "store_id" not in history.purchases:
        return {}
    store = codes(history.purchases["store_id"])
    weights = np.exp(-history.age / TAUS[1])
    visits, sales = (
        sparse.csr_matrix((weights, at)) for at in ((history.user, store), (store, history.item))
    )
    shares = normalize_rows(visits) @ normalize_rows(sales)
    share = cells(shares, pairs.user, pairs.item)
    everywhere = np.bincount(history.item, weights, history.shape[1]) / weights.sum()
    return {"store_share": share, "store_lift": share / np.maximum(everywhere[pairs.item], 1e-9)}


def _attributes(pairs: Candidates, history: Interactions) -> dict[str, np.ndarray]:
    """What users and items are, as numbers that mean the same in every window.

    `user`, `item`: how common the value is among shoppers, or in recent sales. `like`: the item's
    share of what shoppers with the user's value bought lately, over its share of all sales.
    """
    weights = np.exp(-history.age / TAUS[1])
    everywhere = np.bincount(history.item, weights, history.shape[1]) / weights.sum()
    result = {}
    for column, value in _values(history.users):
        sales = sparse.csr_matrix((weights, (value[history.user], history.item)))
        share = cells(normalize_rows(sales), value[pairs.user], pairs.item)
        common = np.bincount(value) / len(value)
        result[f"attribute_user_{column}"] = common[value][pairs.user]
        result[f"attribute_like_{column}"] = share / np.maximum(everywhere[pairs.item], 1e-9)
    for column, value in _values(history.items):
        sold = np.bincount(value[history.item], weights, value.max() + 1) / weights.sum()
        result[f"attribute_item_{column}"] = sold[value][pairs.item]
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
    """Each generator's score, the same as a share of the user's best, and its rank among the user's
    candidates.
    """
    starts = np.flatnonzero(np.diff(pairs.user, prepend=-1))
    sizes = np.diff(np.append(starts, len(pairs)))
    result = {}
    for name, score in pairs.scores.items():
        best = np.repeat(np.maximum.reduceat(score, starts), sizes)
        rank = np.empty(len(pairs))
        rank[np.lexsort((-score, pairs.user))] = np.arange(len(pairs)) - np.repeat(starts, sizes)
        result |= {
            f"score_{name}": score,
            f"share_{name}": score / np.where(best > 0, best, 1),
            f"rank_{name}": rank,
        }
    return result
