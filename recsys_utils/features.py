"""What is known of a (user, item) pair on the day of the cut: habits, rhythm, price, season. One row per pair, nothing from later."""

from collections.abc import Mapping

import ibis
import numpy as np
import pandas as pd
from ibis.expr.types import Table

from .candidates import Candidates
from .engine import connect
from .interactions import Interactions
from .models.next_basket import basket_positions

WINDOW = 21         # days that a list is for
YEAR = 364          # whole weeks: the same weekdays
TAUS = (15, 60, 365)
STEPS = (3, 10)     # decay by the shopper's own baskets
SPANS = (7, 28, 91, 364)


def build(pairs: Candidates, history: Interactions, embeddings: tuple[np.ndarray, np.ndarray] | None = None) -> pd.DataFrame:
    """(pairs, features) float32, in the order of the pairs. The history ends at its `as_of`: Interactions refuses later rows.

    Groups, told by prefix: `pair_` what this user did with this item, `user_`, `item_`, `price_` of both, `score_`, `share_`
    and `rank_` of each generator among the user's candidates; `latent_` are the embeddings (users × f, items × f), each joined by its own side.
    """
    tables = aggregates(history)
    pair = _joined(pairs, tables["pair"])
    user, item = (tables[side].reindex(range(n)).to_numpy() for side, n in zip(("user", "item"), history.shape))
    made = {f"pair_{c}": pair[c].to_numpy() for c in pair}
    made |= {f"user_{c}": user[pairs.user, n] for n, c in enumerate(tables["user"])}
    made |= {f"item_{c}": item[pairs.item, n] for n, c in enumerate(tables["item"])}
    made |= _both(made) | _generators(pairs)
    for side, factors, codes in zip(("user", "item"), embeddings or (), (pairs.user, pairs.item)):
        made |= {f"latent_{side}_{n}": column[codes] for n, column in enumerate(factors.T)}
    return pd.DataFrame(made, dtype=np.float32)


def aggregates(history: Interactions) -> dict[str, pd.DataFrame]:
    """Tables of the engine by `pair` (user, item), `user` and `item` code."""
    lines = connect().create_table("lines", _lines(history), temp=True)
    pair = _pair(lines)
    return {"pair": pair.to_pandas().set_index(["user", "item"]).sort_index(), "user": _user(lines).to_pandas().set_index("user").sort_index(),
            "item": _item(lines, pair).to_pandas().set_index("item").sort_index()}


def _lines(history: Interactions) -> pd.DataFrame:
    """A row per receipt line: codes, age in days, how many baskets ago, units, price."""
    rows = history.purchases
    return pd.DataFrame({"user": history.user, "item": history.item, "age": history.age, "place": basket_positions(history)[0],
                         "quantity": rows["quantity"].to_numpy(float), "price": rows["price"].to_numpy(float) if "price" in rows else np.nan})


def _pair(t: Table) -> Table:
    """How often, how long ago, in which rhythm a user bought an item."""
    made = t.group_by("user", "item").agg(
        times=t.count(), last=t.age.min(), first=t.age.max(), baskets_ago=t.place.min(), units=t.quantity.sum(), paid=t.price.mean(),
        in_last_3=(t.place < 3).sum(), **{f"decayed_{tau}": (-t.age / tau).exp().sum() for tau in TAUS},
        **{f"by_basket_{step}": (-t.place / step).exp().sum() for step in STEPS})
    gap = ibis.ifelse(made.times > 1, (made["first"] - made["last"]) / (made.times - 1), None)
    return made.mutate(gap=gap, due=made["last"] / (gap + 1))


def _user(t: Table) -> Table:
    """A user's habits at large."""
    baskets = t.group_by("user", "place").agg(size=t.count(), money=(t.quantity * t.price).sum(), age=t.age.max())
    visits = baskets.group_by("user").agg(baskets=baskets.count(), recency=baskets.age.min(), tenure=baskets.age.max(), basket_size=baskets["size"].mean(),
                                          basket_money=baskets.money.mean(), baskets_91=(baskets.age <= 91).sum())
    items = t.group_by("user").agg(items=t.item.nunique(), lines=t.count(), price=t.price.mean())
    made = visits.join(items, "user")
    return made.mutate(repeat=1 - made["items"] / made.lines, gap=(made.tenure - made.recency) / (made.baskets - 1).nullif(0))


def _item(t: Table, pair: Table) -> Table:
    """An item's sales now, before and in the same weeks of last year; how it is bought again; its price."""
    def sold(low: float, high: float) -> ibis.expr.types.IntegerScalar:
        return ((t.age > low) & (t.age <= high)).sum()
    sales = t.group_by("item").agg(
        **{f"sold_{days}": sold(-1, days) for days in SPANS}, sold_ever=t.count(), season=sold(YEAR - WINDOW, YEAR), before_season=sold(YEAR, YEAR + 28),
        last_sale=t.age.min(), first_sale=t.age.max(), price=t.price.mean(), price_28=t.price.mean(where=t.age <= 28), units=t.quantity.mean())
    again = pair.group_by("item").agg(buyers=pair.count(), repeat=(pair.times > 1).mean(), usual_gap=pair.gap.mean())
    made = sales.join(again, "item")
    return made.mutate(trend=(made.sold_28 + 1) / (made.sold_91 / 3.25 + 1), trend_week=(4 * made.sold_7 + 1) / (made.sold_28 + 1),
                       season_trend=(made.season + 1) / (made.before_season + 1))


def _joined(pairs: Candidates, table: pd.DataFrame) -> pd.DataFrame:
    """The pair table's rows for candidates; what was never bought counts 0 times and has no ages."""
    rows = table.index.get_indexer(pd.MultiIndex.from_arrays([pairs.user, pairs.item]))
    made = table.iloc[rows].reset_index(drop=True)
    counts = [c for c in table if c in ("times", "units", "in_last_3") or c.startswith(("decayed", "by_basket"))]
    made.loc[rows < 0] = np.nan
    return made.fillna(dict.fromkeys(counts, 0.0))


def _both(made: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What only user and item together say."""
    return {"pair_share": made["pair_times"] / made["user_baskets"], "pair_due_item": made["pair_last"] / (made["item_usual_gap"] + 1),
            "price_to_user": made["item_price"] / np.maximum(made["user_price"], 0.01), "price_now": made["item_price_28"] / np.maximum(made["item_price"], 0.01),
            "price_to_paid": made["item_price_28"] / np.maximum(made["pair_paid"], 0.01)}


def _generators(pairs: Candidates) -> dict[str, np.ndarray]:
    """Each generator's score, the same as a share of the user's best, and its rank among the user's candidates."""
    starts = np.flatnonzero(np.diff(pairs.user, prepend=-1))
    sizes, made = np.diff(np.append(starts, len(pairs))), {}
    for name, score in pairs.scores.items():
        best = np.repeat(np.maximum.reduceat(score, starts), sizes)
        rank = np.empty(len(pairs))
        rank[np.lexsort((-score, pairs.user))] = np.arange(len(pairs)) - np.repeat(starts, sizes)
        made |= {f"score_{name}": score, f"share_{name}": score / np.where(best > 0, best, 1), f"rank_{name}": rank}
    return made
