"""What a person should look at in receipts that were read: told, never changed."""

from pathlib import Path

import ibis
from ibis.expr.types import Table

from recsys_utils.data.engine import count, fetch, identifier, keep
from recsys_utils.data.files import FILE, ROW
from recsys_utils.data.readers import Selected

# Returns worth such a share of the kept money are told.
RETURNS_SHARE = 0.01
# One line with such a share of all money, among so many lines at least.
LINE_SHARE = 0.5
LEAST_LINES = 100
# What stands in such a share of the baskets, in a shop of so many items at least, may be no goods.
BASKET_SHARE = 0.4
LEAST_ITEMS = 10
NAMED = 5
# A name that ends in one of these, or is nothing else, is no product's: a voucher, "next day
# carriage"; a carriage clock is one.
ENDS = (
    r"postage|carriage|shipping|delivery|charges?|fees?|tax|vat|deposit|vouchers?|gift cards?"
    r"|discount|adjustment"
)
WHOLE = r"manual|test|test (product|item|article)|adjustment .*"
NO_PRODUCT = rf"^((\S+ ){{0,2}}({ENDS})[^a-z]*|({WHOLE}))$"


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


def told_no_products(con: ibis.BaseBackend, folder: Path, selected: Selected) -> list[str]:
    """A sentence on items that look like a fee, a tax or a bag, with the rule that drops them.

    folder: of the tables purchases and items.
    """
    bought = con.read_parquet(str(folder / "purchases.parquet"))
    items = con.read_parquet(str(folder / "items.parquet"))
    baskets, most = _many_baskets(bought)
    is_free = bought.price.max() == 0 if "price" in bought.columns else ibis.literal(False)
    # A merged line is an item in a basket.
    sold = bought.group_by("item_id").agg(lines=bought.count(), is_free=is_free)
    name = ibis.coalesce(items.name, items.item_id) if "name" in items.columns else items.item_id
    words = name.cast("string").lower().re_replace(r"[\s_-]+", " ").strip()
    named = items.select("item_id", name=name, is_named=words.re_search(NO_PRODUCT))
    odd = sold.join(named, "item_id").filter(lambda t: t.is_free | t.is_named | (t.lines > most))
    n = count(odd)
    if not n:
        return []
    top = odd.order_by(ibis.desc("lines"), "item_id").limit(NAMED).to_pandas()
    told = ", ".join(_why_no_product(row, baskets) for row in top.itertuples())
    more = f" and {n - NAMED:,} more" if n > NAMED else ""
    return [
        f"Items that look like no product, and are recommended like one: {told}{more}. If so, add"
        f' to the TOML [purchases.reject] "no product" = {_rule(selected, top["item_id"])}.'
    ]


def _many_baskets(bought: Table) -> tuple[int, float]:
    """How many baskets there are, and how many of them an item may be in without a word."""
    facts = bought.agg(baskets=bought.basket_id.nunique(), items=bought.item_id.nunique())
    baskets, items = facts.to_pandas().iloc[0]
    return int(baskets), float(baskets * (BASKET_SHARE if items >= LEAST_ITEMS else 1))


def _why_no_product(row: tuple, baskets: int) -> str:
    """An item with what is odd about it."""
    if row.is_named and row.name != row.item_id:
        return f"'{row.item_id}' ({row.name})"
    if row.is_free:
        return f"'{row.item_id}' (always free)"
    if row.is_named:
        return f"'{row.item_id}'"
    return f"'{row.item_id}' (in {row.lines / baskets:.0%} of the baskets)"


def told_case(t: Table, selected: Selected) -> list[str]:
    """Sentences about ids that differ in nothing but case, and stay apart.

    t: rows that are kept.
    """
    told = []
    for name in ("user_id", "item_id"):
        ids = t.select(id=t[name]).distinct()
        alike = ids.group_by(low=ids.id.lower())
        alike = alike.agg(n=ids.count(), one=ids.id.min(), other=ids.id.max())
        alike = keep(alike.filter(alike.n > 1))
        if n := count(alike):
            example = alike.order_by("low").limit(1).to_pandas().iloc[0]
            mapped = _in_toml(f"lower({_column(selected, name)})")
            told.append(
                f"Values of {selected.column(name)} that differ in nothing but case, such as"
                f" '{example['one']}' and '{example['other']}', and are not taken for one: {n:,}."
                f" If they are one, map {name} = {mapped}, in every table."
            )
    return told


def _rule(selected: Selected, item_ids: list[str]) -> str:
    """The rule for some items, as a TOML has it."""
    listed = ", ".join("'" + each.replace("'", "''") + "'" for each in item_ids)
    return _in_toml(f"{_column(selected, 'item_id')} IN ({listed})")


def _column(selected: Selected, name: str) -> str:
    """What an id is mapped to, as SQL has it."""
    mapped = selected.source.columns[name]
    is_odd = mapped in selected.raw.columns and not mapped.isidentifier()
    return identifier(mapped) if is_odd else mapped


def _in_toml(sql: str) -> str:
    """SQL between quotes that it does not hold itself."""
    return f"'''{sql} '''" if '"' in sql or "\\" in sql else f'"{sql}"'
