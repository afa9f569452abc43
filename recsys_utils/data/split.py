"""The parts of a fold as expressions: cut by the engine, where the receipts lie.

The same cuts of frames in memory are in `folds`.
"""

import ibis
import pandas as pd
from ibis.expr.types import Table

from recsys_utils import LabError
from recsys_utils.data.engine import keep

NO_BASKET = (
    "line {line:,} of the purchases has no basket_id: map one, or leave basket_id out so that a"
    " basket is a shopper's day"
)


def ends(t: Table) -> pd.Series:
    """The first and the last time of the receipts: what borders are made of."""
    both = t.agg(first=t.ts.min(), last=t.ts.max()).to_pandas().iloc[0]
    return pd.Series([both["first"], both["last"]])


def numbered(t: Table) -> tuple[Table, Table]:
    """Receipts whose baskets are int32 numbers; basket_id and number of each, by sorted names.

    As `folds.with_basket_numbers`. Raises LabError for a line without a basket.
    """
    nameless = t.filter(t.basket_id.isnull()).file_row_number.min().to_pandas()
    if not pd.isna(nameless):
        raise LabError(NO_BASKET.format(line=int(nameless) + 1))
    place = ibis.row_number().over(order_by="basket_id")
    names = keep(t.select("basket_id").distinct().mutate(number=place.cast("int32")))
    rows = t.join(names, "basket_id")
    return keep(rows.mutate(basket_id=rows.number).select(*t.columns)), names


def window_tables(t: Table, borders: dict[str, pd.Timestamp]) -> dict[str, Table]:
    """Rows before validation, in it, and in the test window."""
    valid, test, end = (borders[name].to_pydatetime() for name in ("valid", "test", "end"))
    return {
        "train": t.filter(t.ts < valid),
        "valid": t.filter((t.ts >= valid) & (t.ts < test)),
        "test": t.filter((t.ts >= test) & (t.ts < end)),
    }


def basket_tables(t: Table, back: int = 0) -> dict[str, Table]:
    """Each user's last basket is test, the one before is validation.

    `back` drops that many last baskets first. A user's only basket stays history.
    """
    baskets = t.group_by("user_id", "basket_id").agg(began=t.ts.min())
    latest_first = [ibis.desc("began"), ibis.desc("basket_id")]
    after = ibis.row_number().over(group_by="user_id", order_by=latest_first)
    of_user = ibis._.count().over(group_by="user_id")
    baskets = baskets.mutate(after=after, of_user=of_user)
    left = baskets.after - back
    part = ibis.cases(
        (baskets.after == baskets.of_user - 1, "train"),
        (left == 0, "test"),
        (left == 1, "valid"),
        else_="train",
    )
    parts = baskets.mutate(part=part).filter(left >= 0).select("user_id", "basket_id", "part")
    rows = keep(t.inner_join(parts, ["user_id", "basket_id"]))
    return {
        name: rows.filter(rows.part == name).drop("part") for name in ("train", "valid", "test")
    }


def sizes(parts: dict[str, Table]) -> dict[str, int]:
    """Rows of each part."""
    return {name: int(t.count().to_pandas()) for name, t in parts.items()}


def shoppers(parts: dict[str, Table]) -> tuple[int, int]:
    """How many shoppers the test part has, and how many of these have an earlier receipt."""
    test = parts["test"].select("user_id").distinct()
    before = parts["train"].select("user_id").union(parts["valid"].select("user_id"))
    return (
        int(test.count().to_pandas()),
        int(test.semi_join(before, "user_id").count().to_pandas()),
    )
