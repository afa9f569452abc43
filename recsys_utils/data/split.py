"""The parts of a fold as expressions: cut by the engine, where the receipts lie."""

import ibis
import pandas as pd
from ibis.expr.types import Table

from recsys_utils import LabError
from recsys_utils.data.engine import count, keep

NO_BASKET = (
    "a line of the purchases has no basket_id: map one, or leave basket_id out so that a basket is"
    " a shopper's day"
)


def ends(t: Table) -> pd.Series:
    """The first and the last time of the receipts: what borders are made of."""
    both = t.agg(first=t.ts.min(), last=t.ts.max()).to_pandas().iloc[0]
    return pd.Series([both["first"], both["last"]])


def numbered(parts: dict[str, Table]) -> tuple[dict[str, Table], Table]:
    """Parts whose baskets are int32 numbers; basket_id and number of each basket.

    Numbers go by part, then time of the first line, then name, so that those of a history do not
    depend on what comes after it. A shop has nearly as many baskets as lines: their names would
    take more memory and time than all else. Raises LabError for a line without a basket.
    """
    rows = [t.select("basket_id", "ts").mutate(part=n) for n, t in enumerate(parts.values())]
    every = ibis.union(*rows)
    if count(every.filter(every.basket_id.isnull())):
        raise LabError(NO_BASKET)
    baskets = every.group_by("basket_id").agg(part=every.part.min(), began=every.ts.min())
    place = ibis.row_number().over(order_by=["part", "began", "basket_id"])
    names = keep(baskets.mutate(number=place.cast("int32")).select("basket_id", "number"))
    result = {}
    for name, t in parts.items():
        joined = t.join(names, "basket_id")
        result[name] = keep(joined.mutate(basket_id=joined.number).select(*t.columns))
    return result, names


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
    return {name: count(t) for name, t in parts.items()}


def shoppers(parts: dict[str, Table]) -> tuple[int, int]:
    """How many shoppers the test part has, and how many of these have an earlier receipt."""
    test = parts["test"].select("user_id").distinct()
    before = parts["train"].select("user_id").union(parts["valid"].select("user_id"))
    return count(test), count(test.semi_join(before, "user_id"))
