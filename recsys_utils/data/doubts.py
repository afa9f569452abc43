"""What a person should look at in receipts that were read: told, never changed."""

import ibis
from ibis.expr.types import Table

from recsys_utils.data.engine import fetch
from recsys_utils.data.files import FILE, ROW
from recsys_utils.data.readers import Selected

# Returns worth such a share of the kept money are told.
RETURNS_SHARE = 0.01
# One line with such a share of all money, among so many lines at least.
LINE_SHARE = 0.5
LEAST_LINES = 100


def told_returns(t: Table, currency: str) -> list[str]:
    """A sentence where known shoppers' returns, which are rejected, are worth something.

    t: all rows, with `rejected`.
    """
    if "price" not in t.columns:
        return []
    money = t.quantity * t.price
    is_finite = ~(money.isnull() | money.isnan() | money.isinf())
    is_return = t.rejected.notnull() & t.user_id.notnull() & is_finite & (money < 0)
    sums = t.agg(
        returned=ibis.ifelse(is_return, -money, 0.0).sum(),
        kept=ibis.ifelse(t.rejected.isnull(), money, 0.0).sum(),
    )
    returned, kept = sums.to_pandas().iloc[0].fillna(0)
    if returned <= RETURNS_SHARE * kept:
        return []
    return [
        f"Returns of {currency}{returned:,.0f} are rejected: money ({currency}{kept:,.0f}) is"
        " before returns, and a purchase that was brought back stays, among what lists are judged"
        " by too. If that is wrong, take both lines out of the file."
    ]


def told_heavy_line(t: Table, selected: Selected, currency: str) -> list[str]:
    """A sentence on one line that is most of all money.

    t: rows that are kept.
    """
    if "price" not in t.columns:
        return []
    t = t.mutate(money=t.quantity * t.price)
    facts = t.agg(lines=t.count(), most=t.money.max(), total=t.money.sum()).to_pandas().iloc[0]
    if facts["lines"] < LEAST_LINES or facts["most"] <= LINE_SHARE * facts["total"]:
        return []
    top = fetch(t.filter(t.money == facts["most"]).order_by(FILE, ROW).limit(1)).iloc[0]
    share = top["money"] / facts["total"]
    return [
        f"{top[FILE]}, row {top[ROW]}: this line alone is {share:.0%} of all money,"
        f" {currency}{top['money']:,.0f} ({selected.column('item_id')} '{top['item_id']}',"
        f" quantity {top['quantity']:,.10g}, price {top['price']:,.10g}): if that is a mistake,"
        " correct the file, or reject the line."
    ]
