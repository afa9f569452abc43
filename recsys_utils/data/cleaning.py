"""Rules of receipts: what is rejected, set aside or told, counted in rows and money."""

from collections.abc import Callable
from pathlib import Path

import ibis
import pandas as pd
from ibis.expr.types import BooleanValue, Column, Table

from recsys_utils import LabError
from recsys_utils.data.dates import ODD_SHARE, outside
from recsys_utils.data.engine import MICROSECONDS, count, fetch, keep
from recsys_utils.data.files import FILE, ROW, id_text
from recsys_utils.data.readers import NOTHING, Selected, dates_and_numbers, text_ids
from recsys_utils.data.registry import Source, Spec

ORDER_MOST = 1e6
MADE_UP_DAY = ibis.timestamp("2000-01-01 00:00:00")
OUTSIDE = "date before 1970 or after today"
# Trading has ended where so many days follow without a receipt, twice as many as ever before, and
# then less than this share of the lines.
QUIET_DAYS = 21
TAIL_SHARE = 0.01
# A receipt that goes on so long after it began is another one with the same number.
BASKET_HOURS = 6
# A shopper with such a share of all lines, and so many times as many as the next one.
HEAVY_SHARE = 0.05
HEAVY_TIMES = 10
# A price below this keeps nine decimals, not four.
SMALL_PRICE = 0.1
# Money that differs by such a share after prices were rounded is told.
MONEY_SHARE = 0.001


def typed(selected: Selected) -> Table:
    """Canonical types; a value that cannot become a date or a number is an error with its row."""
    t = with_types(selected)
    t = t.mutate(user_id=ibis.ifelse(t.user_id.lower().isin(NOTHING), ibis.null(), t.user_id))
    if "order" in t.columns:
        t = _made_up_calendar(t, selected)
    _check_seconds(t, selected)
    defaults = {} if "quantity" in t.columns else {"quantity": ibis.literal(1.0)}
    if "basket_id" not in t.columns:
        defaults["basket_id"] = t.user_id + "@" + t.ts.cast("date").cast("string")
    return t.mutate(ts=t.ts.cast(MICROSECONDS), **defaults)


def with_types(selected: Selected) -> Table:
    """The rows with ids as text, dates and numbers; LabError for a value that is none."""
    casts = dates_and_numbers(selected)
    complain(selected, casts)
    return selected.table.mutate(**casts, **text_ids(selected.table))


def complain(selected: Selected, casts: dict[str, Column]) -> None:
    """Raise where a value is present and its cast is not.

    One pass over all columns, a second only to find the row.
    """
    t = selected.table
    lost = {}
    for name, cast in casts.items():
        if not t[name].type().is_string() and not selected.source.ts_format:
            continue  # a number or a time already: nothing can be lost
        said = t[name].cast("string").strip()
        # A number that is spelled as nothing is a missing one, for the rules to count.
        is_lost = t[name].notnull() & said.lower().notin(NOTHING) & cast.isnull()
        # What the shop's own rules reject need not be readable.
        lost[name] = is_lost & t.rejected.isnull()
    if not lost:
        return
    try:
        counts = t.agg(**{name: bad.sum() for name, bad in lost.items()}).to_pandas().iloc[0]
    except Exception as error:
        # A pattern that the engine does not know is an error of the engine.
        why = str(error).splitlines()[0]
        raise LabError(
            f"{selected.raw.name}: {selected.column('ts')} does not fit ts_format"
            f" '{selected.source.ts_format}': {why}"
        ) from error
    for name, n in counts.fillna(0).items():
        if n:
            where, value = first_row(selected, t, lost[name], name)
            form = selected.source.ts_format
            if casts[name].type().is_timestamp():
                kind = f"a date as ts_format '{form}' has it" if form else "a date: set ts_format"
            else:
                kind = "a number: correct the file or the mapping"
            column = selected.source.columns[name]
            raise LabError(f"{where}: {column} '{value}' is not {kind} ({int(n):,} such rows)")


def first_row(selected: Selected, t: Table, bad: BooleanValue, name: str) -> tuple[str, object]:
    """File and row of the first bad row, and its value."""
    rows = fetch(t.filter(bad).order_by(FILE, ROW).limit(1)).iloc[0]
    paths = {path.name: path for path in selected.raw.paths}
    return f"{paths.get(rows[FILE], rows[FILE])}, row {rows[ROW]}", rows[name]


def with_rules(t: Table, source: Source) -> Table:
    """Add the built-in rules after the data set's own; `rejected` is the first that is broken."""
    rules = [
        (t.user_id.isnull(), "no customer"),
        (t.item_id.isnull(), "no item"),
        (t.ts.isnull(), "no date"),
        (t.basket_id.isnull(), "no basket"),
        (_odd(t.quantity) | (t.quantity <= 0), "quantity not above 0"),
    ]
    if "order" not in source.columns:
        rules.append((outside(t.ts), OUTSIDE))
    if "price" in t.columns:
        rules.append((_odd(t.price) | (t.price < 0), "price missing or below 0"))
        if source.zero_price == "reject":
            rules.append((t.price == 0, "price of 0"))
    first = ibis.cases(*rules, else_=ibis.null("string"))
    return t.mutate(rejected=ibis.coalesce(t.rejected, first))


def check_outside(t: Table, selected: Selected) -> list[str]:
    """A few dates of no receipt are told; more of them are a wrong reading, and an error."""
    is_outside = t.rejected == OUTSIDE
    counts = t.agg(rows=t.count(), outside=is_outside.fill_null(False).sum()).to_pandas().iloc[0]
    if not counts["outside"]:
        return []
    where, date = first_row(selected, t, is_outside, "ts")
    share = counts["outside"] / counts["rows"]
    if share > 10 * ODD_SHARE or (share > ODD_SHARE and counts["outside"] > 1):
        raise LabError(
            f"{where}: {selected.column('ts')} is read as {date:%-d %B %Y}, and so"
            f" {int(counts['outside']):,} of {int(counts['rows']):,} dates lie before 1970 or after"
            " today: set ts_format, or reject these rows"
        )
    return [
        f"Rows left out for a date before 1970 or after today: {int(counts['outside']):,}; the"
        f" first is {date:%-d %B %Y} ({where})."
    ]


def end_of_trading(t: Table) -> tuple[pd.Timestamp | None, str]:
    """The day after which only strays are left, and the sentence that tells it; None if none are.

    t: rows that are kept, with ts.
    """
    days = t.group_by(day=t.ts.truncate("D")).agg(rows=lambda r: r.count()).order_by("day")
    days = days.to_pandas()
    if len(days) < 3:
        return None, ""
    gaps = days["day"].diff().dt.days.fillna(0).to_numpy()
    after = days["rows"][::-1].cumsum()[::-1].to_numpy()
    for place in range(1, len(days)):
        is_tail = after[place] < TAIL_SHARE * after[0]
        if is_tail and gaps[place] >= max(QUIET_DAYS, 2 * gaps[:place].max()):
            end = days["day"].iloc[place - 1]
            sentence = (
                f"Rows left out after {int(gaps[place])} days without a receipt, from"
                f" {days['day'].iloc[place]:%-d %B %Y} on: {after[place]:,}; trading is taken to"
                f" end on {end:%-d %B %Y}."
            )
            return end + pd.Timedelta(days=1), sentence
    return None, ""


def with_own_baskets(t: Table) -> tuple[Table, str]:
    """A receipt number that starts again is another basket: of another day, store or shopper.

    Returns the rows, and the sentence that tells how many numbers that were.
    """
    kept = t.filter(t.rejected.isnull())
    stores = kept.store_id.nunique() if "store_id" in t.columns else ibis.literal(1)
    seen = kept.group_by("user_id", "basket_id").agg(
        first=kept.ts.min(), last=kept.ts.max(), stores=stores
    )
    is_long = seen.last.epoch_seconds() - seen["first"].epoch_seconds() > BASKET_HOURS * 3600
    several_days = is_long & (seen.last.date() != seen["first"].date())
    shoppers = ibis._.count().over(group_by="basket_id")
    seen = seen.mutate(days=several_days, shops=seen.stores > 1, shared=shoppers > 1)
    reused = seen.filter(lambda s: s.days | s.shops | s.shared)
    reused = keep(reused.select("user_id", "basket_id", "days", "shops", "shared"))
    n = int(reused.basket_id.nunique().to_pandas())
    if not n:
        return t, ""
    joined = t.left_join(reused, ["user_id", "basket_id"])
    new = joined.basket_id
    new = ibis.ifelse(joined.shared, joined.user_id + ":" + new, new)
    new = ibis.ifelse(joined.days, new + "@" + joined.ts.date().cast("string"), new)
    if "store_id" in t.columns:
        new = ibis.ifelse(joined.shops, new + "/" + joined.store_id, new)
    named = joined.mutate(basket_id=ibis.coalesce(new, joined.basket_id))
    return keep(named.select(t.columns)), (
        "Receipt numbers that come again on another day, in another store or with another"
        f" shopper: {n:,}. Each of these is a basket of its own."
    )


def heavy_shopper(t: Table, column: str) -> str:
    """A sentence on a shopper who is likely to be everybody without a card; "" if none is.

    column: the shoppers' column in the file, for the rule that drops them.
    """
    lines = t.group_by("user_id").agg(lines=lambda r: r.count())
    top = lines.order_by(ibis.desc("lines"), "user_id").limit(2).to_pandas()
    total = count(t)
    if len(top) < 2:
        return ""
    (user, most), (_, next_one) = top.itertuples(index=False)
    if most < HEAVY_SHARE * total or most < HEAVY_TIMES * next_one:
        return ""
    quoted = user.replace("'", "''")
    if column.isidentifier():
        rule = f"\"{column} = '{quoted}'\""
    else:
        rule = f"'''\"{column}\" = '{quoted}' '''"
    return (
        f"Shopper '{user}' has {most / total:.0%} of all lines, {most // next_one} times as many as"
        " any other: if that is everybody without a card, add to the TOML [purchases.reject]"
        f' "no card" = {rule}.'
    )


def merged_ids(selected: Selected) -> list[str]:
    """Sentences about ids that differ in the file and are one afterwards, such as 10 and 10.0."""
    raw = selected.table
    names = [
        name
        for name in ("user_id", "item_id", "basket_id")
        if name in raw.columns and raw[name].type().is_string()
    ]
    told = []
    odd = {name: (raw[name] != id_text(raw[name])).sum() for name in names}
    counts = raw.agg(**odd).to_pandas().iloc[0].fillna(0) if odd else {}
    for name in (name for name in names if counts[name]):
        spellings = raw.select(raw=raw[name], id=id_text(raw[name])).distinct()
        several = spellings.group_by("id").agg(n=lambda s: s.count()).filter(lambda s: s.n > 1)
        n = count(several)
        if n:
            example = several.order_by("id").limit(1).to_pandas()["id"][0]
            told.append(
                f"Values of {selected.column(name)} that stand in the file in two spellings, such"
                f" as {example} with blanks, with .0 or in two forms of Unicode, and are taken for"
                f" one: {n:,}."
            )
    return told


def audit(t: Table) -> list[dict]:
    """Rows and money per rule, most rows first, then what was kept."""
    money = (t.quantity * t.price).sum() if "price" in t.columns else ibis.null("float64")
    counts = t.group_by("rejected").agg(rows=t.count(), money=money).to_pandas()
    counts["kept"] = counts["rejected"].isna()
    counts = counts.sort_values(["kept", "rows", "rejected"], ascending=[True, False, True])
    rows = [
        {
            "table": "purchases",
            "rule": "kept" if row.kept else row.rejected,
            "rows": int(row.rows),
            "money": None if pd.isna(row.money) else round(float(row.money), 2),
        }
        for row in counts.itertuples()
    ]
    if not rows or rows[-1]["rule"] != "kept":
        rows.append({"table": "purchases", "rule": "kept", "rows": 0, "money": 0})
    return rows


def merge(t: Table, made: Spec) -> Table:
    """One line per (user, item, basket): quantities add up, the price is their money by them."""
    measures: dict[str, Callable | Column] = {"ts": t.ts.min(), "quantity": t.quantity.sum()}
    if "price" in t.columns:
        measures["price"] = _rounded((t.quantity * t.price).sum() / t.quantity.sum(), made)
    for name in ("discount", "rating"):
        if name in t.columns:
            measures[name] = t[name].mean().round(4)
    if "store_id" in t.columns:
        measures["store_id"] = t.store_id.min()
    merged = t.group_by("user_id", "item_id", "basket_id").agg(**measures)
    return merged if made.is_dated else _on_own_clocks(merged)


def merged_audit(merged: Table, kept: float | None, currency: str) -> tuple[dict, list[str]]:
    """The row of the merged lines, with their own money; a sentence where that is another.

    kept: the money of the rows that were merged.
    """
    money = (merged.quantity * merged.price).sum() if "price" in merged.columns else None
    money = None if money is None else round(float(money.to_pandas()), 2)
    row = {
        "table": "purchases",
        "rule": "kept, merged to one line per user, item and basket",
        "rows": count(merged),
        "money": money,
    }
    if money is None or abs(money - kept) <= max(0.01, MONEY_SHARE * kept):
        return row, []
    return row, [
        f"Money is {currency}{money:,.2f} after prices were rounded, and {currency}{kept:,.2f}"
        " before: write quantity in larger units, such as kilograms, and price by them."
    ]


def _rounded(price: Column, made: Spec) -> Column:
    """Rounded, since a parallel sum of floats differs in its last bits from run to run.

    Goods that are sold by gram or millilitre cost less than four decimals can tell. Built-in data
    sets keep four, with which their results are published.
    """
    if made.folder is None:
        return price.round(4)
    return ibis.ifelse(price < SMALL_PRICE, price.round(9), price.round(4))


def _on_own_clocks(t: Table) -> Table:
    """Give baskets with an order but no dates a calendar of their own.

    Every shopper's last basket is on the same day, the one before it a day earlier. So settings in
    days count a shopper's baskets, and nobody seems to have bought longer ago because they bought
    less often.
    """
    ago = ibis.dense_rank().over(group_by="user_id", order_by=ibis.desc("ts"))
    t = t.mutate(ago=ago.cast("int64"))
    return t.mutate(ts=MADE_UP_DAY - t.ago.as_interval("D")).drop("ago")


def told_numbers(selected: Selected) -> list[str]:
    """Sentences about columns whose numbers may have thousands or decimals."""
    found = {selected.column(name): each for name, each in selected.notations.items()}
    told = []
    for column, notation in (selected.raw.notations | found).items():
        if notation.doubtful:
            sign = "decimals" if notation.decimal in notation.doubtful else "thousands"
            told.append(
                f"{column} such as '{notation.doubtful}' is read as {sign}, because other columns"
                " are written so: if that is wrong, correct the file."
            )
    return told


def told_zone(selected: Selected) -> list[str]:
    """A sentence where times have a zone: whose days are meant."""
    ts = selected.table.ts if "ts" in selected.table.columns else None
    is_zoned = bool(selected.reading and selected.reading.zoned)
    if ts is not None and ts.type().is_timestamp() and ts.type().timezone:
        is_zoned = True
    if not is_zoned:
        return []
    return [
        "Times have a zone and are read as UTC, so a day ends at midnight UTC, not the shop's:"
        " write them in the shop's own time if baskets or windows should follow its days."
    ]


def told_copies(selected: Selected) -> list[str]:
    """A sentence where lines are copies of others in every column, and nothing says what of it."""
    raw = selected.raw
    # Of a database only the columns that are used were read.
    if selected.source.drop_copies or not isinstance(raw.paths[0], Path):
        return []
    copies = count(raw.table) - count(raw.table.select(raw.columns).distinct())
    if not copies:
        return []
    lines = "1 line is a copy" if copies == 1 else f"{copies:,} lines are copies"
    return [
        f"{lines} of another in every column, and counted as bought again: where a line stands for"
        " all units of an item, set drop_copies = true."
    ]


def _made_up_calendar(t: Table, selected: Selected) -> Table:
    """Without dates the n-th basket stands on the n-th day of a made-up calendar."""
    orders = t.agg(
        low=t.order.min(),
        high=t.order.max(),
        far=t.order.abs().max(),
        broken=(t.order != t.order.floor()).sum(),
        rows=t.count(),
    )
    orders = orders.to_pandas().iloc[0]
    where = f"{selected.raw.name}: order ({selected.source.columns['order']})"
    if orders["broken"]:
        raise LabError(
            f"{where} is no whole number in {orders['broken']:.0f} rows: number each shopper's"
            " baskets 1, 2, 3, …"
        )
    if orders["far"] > ORDER_MOST:
        raise LabError(
            f"{where} goes up to {orders['far']:.0f}: number each shopper's baskets 1, 2, 3, …"
        )
    if orders["rows"] > 1 and orders["low"] == orders["high"]:
        raise LabError(
            f"{where} is {orders['low']:g} in every row: map it to the number of each shopper's"
            " basket, 1, 2, 3, …; without any order nothing can be held out for the judgement"
        )
    days = t.order.cast("int64").as_interval("D")
    return t.mutate(ts=MADE_UP_DAY + days).drop("order")


def _check_seconds(t: Table, selected: Selected) -> None:
    """Milliseconds that are read as seconds end thousands of years from now."""
    if selected.source.ts_format != "unix":
        return
    last = t.ts.max().to_pandas()
    if last > pd.Timestamp("2200-01-01"):
        raise LabError(
            f"{selected.raw.name}: {selected.column('ts')} reaches the year {last.year} when read"
            ' as seconds: set ts_format = "unix_ms"'
        )


def _odd(number: Column) -> BooleanValue:
    return number.isnull() | number.isnan() | number.isinf()
