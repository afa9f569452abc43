"""Business rules that narrow the catalogue.

Every rule sees train only; the audit counts what each removes.
"""

from dataclasses import asdict, dataclass

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
from ibis.expr.types import Table

from recsys_utils import LabError
from recsys_utils.data.engine import connect, given, keep
from recsys_utils.data.interactions import by_id
from recsys_utils.data.registry import Spec

TOP = "top sellers by units"
OTHER = "999999"  # stands for every item outside the catalogue in the first stage's history


@dataclass(frozen=True)
class Rules:
    """The thresholds; `None` switches a rule off. Defaults are those of two-stage retail."""

    sold_within_days: int | None = 365
    max_user_share: float | None = 0.20
    min_user_share: float | None = 0.02
    min_category_items: int | None = 150
    min_price: float | None = 1.0
    max_price: float | None = 30.0
    top: int | None = 2500

    def __post_init__(self) -> None:
        if bad := [k for k, v in asdict(self).items() if v is not None and v < 0]:
            raise LabError(
                f"prefilter rule {bad[0]} is {getattr(self, bad[0])}: it takes a number of 0 or"
                " more, or None"
            )


def rules_of(data_set: Spec, n_items: int, **overrides: float | bool | None) -> Rules:
    """The rules of a data set: its own [prefilter], then the defaults; overrides come first.

    False switches a rule off; an override of None is none. n_items: in the catalogue. A category of
    150 is wide for a catalogue of 92,353; unless told otherwise, a smaller one asks for less.
    """
    given = {"min_category_items": min(Rules.min_category_items, n_items // 50)}
    given |= data_set.prefilter
    given |= {name: value for name, value in overrides.items() if value is not None}
    return Rules(**{name: None if value is False else value for name, value in given.items()})


def prefilter(
    purchases: pd.DataFrame | Table, items: pd.DataFrame, rules: Rules = Rules()
) -> tuple[pd.Index, pd.DataFrame]:
    """Apply the rules in order to train purchases; return the ids kept and the funnel.

    The funnel has a row per rule: items, share of users with something left, lines and money left
    after it. purchases: a frame, or a table of an engine, which counts where it lies.
    """
    bought = purchases
    if isinstance(purchases, pd.DataFrame):
        needed = purchases.filter(["user_id", "item_id", "ts", "quantity", "price"])
        rows = pa.Table.from_pandas(needed, preserve_index=False)
        bought = given(rows, connect())
    facts = _facts(bought).to_pandas().set_index("item_id")
    facts["category_items"] = _category_items(facts.index, items)
    pairs = keep(_pairs(bought))
    kept = facts
    funnel = [_left(pairs, facts.index, "all items")]
    for name, ok in _steps(facts, rules):
        kept = kept[ok.reindex(kept.index)]
        funnel.append(_left(pairs, kept.index, name))
    if rules.top is not None:
        best_first = kept.sort_values(["units", "users"], ascending=False, kind="stable")
        kept = best_first.head(rules.top)
        funnel.append(_left(pairs, kept.index, TOP))
    return pd.Index(sorted(kept.index), name="item_id"), pd.DataFrame(funnel)


def relabel(purchases: pd.DataFrame, catalogue: pd.Index) -> pd.DataFrame:
    """Purchases with every item outside the catalogue renamed to the fake item 999999."""
    ids = purchases["item_id"].astype("category")
    names = (
        ids.cat.categories.astype(str).to_series().where(ids.cat.categories.isin(catalogue), OTHER)
    )
    code, known = pd.factorize(names)
    return purchases.assign(item_id=pd.Categorical.from_codes(code[ids.cat.codes], known))


def _facts(t: Table) -> Table:
    """One row per item: users' share, units, days since the last sale, median price."""
    users = t.user_id.nunique().to_pandas()
    last = t.ts.max().to_pandas()
    price = t.price.quantile(0.5) if "price" in t.columns else ibis.null("float64")
    facts = t.group_by("item_id").agg(
        users=t.user_id.nunique(), units=t.quantity.sum(), last=t.ts.max(), price=price
    )
    return facts.mutate(
        share=facts.users / users, unsold_days=ibis.literal(last).delta(facts["last"], unit="day")
    ).order_by("item_id")


def _category_items(ids: pd.Index, items: pd.DataFrame) -> pd.Series:
    """Items on sale in each item's category; NaN where the data set has no categories."""
    if "category" not in items:
        return pd.Series(np.nan, ids)
    category = by_id(items, "item_id")["category"].reindex(ids)
    return category.map(category.value_counts())


def _pairs(t: Table) -> Table:
    money = (t.quantity * t.price).sum() if "price" in t.columns else ibis.null("float64")
    return t.group_by("user_id", "item_id").agg(lines=t.count(), money=money)


def _steps(facts: pd.DataFrame, rules: Rules) -> list[tuple[str, pd.Series]]:
    """The rules that are on and computable, as (what it keeps, mask over items).

    An item whose price or category is unknown passes; a fact that is unknown of all makes no rule.
    """
    days = rules.sold_within_days
    span = "12 months" if days == 365 else f"{days or 0:,} days"
    ranges = [  # what it keeps, the fact, its least and its most
        (f"sold in the last {span}", "unsold_days", None, days),
        ("not the most popular", "share", None, rules.max_user_share),
        ("not the most unpopular", "share", rules.min_user_share, None),
        ("category wide enough", "category_items", rules.min_category_items, None),
        ("not too cheap", "price", rules.min_price, None),
        ("not too expensive", "price", None, rules.max_price),
    ]
    steps = []
    for name, fact, least, most in ranges:
        values = facts[fact]
        if (least is None and most is None) or values.isna().all():
            continue
        is_inside = values >= least if most is None else values <= most
        steps.append((name, values.isna() | is_inside))
    return steps


def _left(pairs: Table, ids: pd.Index, rule: str) -> dict:
    kept = pa.table({"item_id": pa.array(ids.astype(str), pa.string())})
    t = pairs.semi_join(given(kept, pairs.get_backend()), "item_id")
    row = (
        t.agg(users=t.user_id.nunique(), lines=t.lines.sum(), money=t.money.sum())
        .to_pandas()
        .fillna({"lines": 0})
        .iloc[0]
    )
    return {
        "rule": rule,
        "items": len(ids),
        "users": int(row["users"]),
        "lines": int(row["lines"]),
        "money": row["money"],
    }
