"""What a person should look at in receipts that were read: told, never changed."""

import ibis
from ibis.expr.types import Table

# Returns worth such a share of the kept money are told.
RETURNS_SHARE = 0.01


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
