"""Business rules that narrow the catalogue (system 3). Every rule sees train only; the audit counts what each removes."""

from dataclasses import asdict, dataclass

import ibis
import pandas as pd
from ibis.expr.types import Table

from . import LabError
from .engine import connect

OTHER = "999999"        # stands for every item outside the catalogue in the first stage's history


@dataclass(frozen=True)
class Rules:
    """The thresholds; `None` switches a rule off. Defaults are system 3's."""

    sold_within_days: int | None = 365
    max_user_share: float | None = 0.20
    min_user_share: float | None = 0.02
    min_category_items: int | None = 150
    min_price: float | None = 1.0
    max_price: float | None = 30.0
    top: int | None = 2500

    def __post_init__(self) -> None:
        if bad := [k for k, v in asdict(self).items() if v is not None and v < 0]:
            raise LabError(f"prefilter rule {bad[0]} is {getattr(self, bad[0])}: it takes a number of 0 or more, or None")


def prefilter(purchases: pd.DataFrame, items: pd.DataFrame, rules: Rules = Rules()) -> tuple[pd.Index, pd.DataFrame]:
    """Apply the rules in order to train purchases; return the ids kept and the funnel.

    The funnel has a row per rule: items, share of users with something left, lines and money left after it.
    """
    con = connect()
    bought = con.create_table("bought", purchases.astype({"user_id": str, "item_id": str}), temp=True)
    facts = _facts(bought, con.create_table("items", items.astype({"item_id": str}), temp=True)).to_pandas().set_index("item_id")
    kept, funnel = facts, [_left(bought, facts.index, "all items")]
    for name, ok in _steps(facts, rules):
        kept = kept[ok.reindex(kept.index)] if name != "top sellers by units" else kept.sort_values(
            ["units", "users"], ascending=False, kind="stable").head(rules.top)
        funnel.append(_left(bought, kept.index, name))
    return pd.Index(sorted(kept.index), name="item_id"), pd.DataFrame(funnel)


def relabel(purchases: pd.DataFrame, catalogue: pd.Index) -> pd.DataFrame:
    """Purchases with every item outside the catalogue renamed to the fake item 999999."""
    inside = purchases["item_id"].astype(str).isin(catalogue)
    return purchases.assign(item_id=purchases["item_id"].astype(str).where(inside, OTHER))


def _facts(t: Table, items: Table) -> Table:
    """One row per item: users' share, units, days since the last sale, median price, size of its category."""
    users, last = t.user_id.nunique().to_pandas(), t.ts.max().to_pandas()
    price = t.price.quantile(0.5) if "price" in t.columns else ibis.null("float64")
    facts = t.group_by("item_id").agg(users=t.user_id.nunique(), units=t.quantity.sum(), last=t.ts.max(), price=price)
    facts = facts.mutate(share=facts.users / users, unsold_days=ibis.literal(last).delta(facts["last"], unit="day"))
    if "category" in items.columns:
        facts = facts.left_join(items.select("item_id", "category"), "item_id").drop("item_id_right")
        facts = facts.mutate(category_items=facts.count().over(group_by="category"))
    else:
        facts = facts.mutate(category_items=ibis.null("int64"))
    return facts.order_by("item_id")


def _steps(facts: pd.DataFrame, rules: Rules) -> list[tuple[str, pd.Series]]:
    """The rules that are on and computable, as (what it keeps, mask over items)."""
    unknown_price, unknown_category = facts["price"].isna(), facts["category_items"].isna()
    steps = [
        ("sold in the last 12 months", rules.sold_within_days, facts["unsold_days"] <= (rules.sold_within_days or 0)),
        ("not the most popular", rules.max_user_share, facts["share"] <= (rules.max_user_share or 0)),
        ("not the most unpopular", rules.min_user_share, facts["share"] >= (rules.min_user_share or 0)),
        ("category wide enough", rules.min_category_items if not unknown_category.all() else None,
         unknown_category | (facts["category_items"] >= (rules.min_category_items or 0))),
        ("not too cheap", rules.min_price if not unknown_price.all() else None,
         unknown_price | (facts["price"] >= (rules.min_price or 0))),
        ("not too expensive", rules.max_price if not unknown_price.all() else None,
         unknown_price | (facts["price"] <= (rules.max_price or 0))),
        ("top sellers by units", rules.top, unknown_price),
    ]
    return [(name, ok) for name, threshold, ok in steps if threshold is not None]


def _left(bought: Table, ids: pd.Index, rule: str) -> dict:
    t = bought.filter(bought.item_id.isin(ibis.memtable(pd.DataFrame({"item_id": ids})).item_id))
    money = (t.quantity * t.price).sum() if "price" in t.columns else ibis.null("float64")
    row = t.agg(users=t.user_id.nunique(), lines=t.count(), money=money).to_pandas().iloc[0]
    return {"rule": rule, "items": len(ids), "users": int(row["users"]), "lines": int(row["lines"]), "money": row["money"]}
