"""Dates of any shop: the one format that fits every row, or a sentence that asks for it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import ibis
import pandas as pd
from ibis.expr.types import Column, Table

from recsys_utils import LabError
from recsys_utils.data.engine import MICROSECONDS

FIRST = pd.Timestamp("1970-01-01")
EPOCHS = {"unix": 1, "unix_ms": 1000}
EXCEL = "excel"
# Formats that the dates of a shop may have, by the shape of their text. Of several that fit all
# rows none is taken.
THREE_NUMBERS = re.compile(r"(\d{1,4})([-/. ])(\d{1,2})\2(\d{1,4})$")
MONTH_BY_NAME = (
    ("%d{0}%b{0}%Y", re.compile(r"\d{1,2}([-/. ])[A-Za-z]{3}\1\d{4}$")),
    ("%d{0}%b{0}%y", re.compile(r"\d{1,2}([-/. ])[A-Za-z]{3}\1\d{2}$")),
    ("%d{0}%B{0}%Y", re.compile(r"\d{1,2}([-/. ])[A-Za-z]{4,}\1\d{4}$")),
    ("%b %d, %Y", re.compile(r"[A-Za-z]{3} \d{1,2}, \d{4}$")),
    ("%B %d, %Y", re.compile(r"[A-Za-z]{4,} \d{1,2}, \d{4}$")),
)
TIMES = (
    ("", re.compile(r"$")),
    ("%H:%M", re.compile(r"9{1,2}:99$")),
    ("%H:%M:%S", re.compile(r"9{1,2}:99:99$")),
    ("%H:%M:%S.%f", re.compile(r"9{1,2}:99:99\.9{1,6}$")),
    ("%I:%M %p", re.compile(r"9{1,2}:99 [AP]M$")),
    ("%I:%M%p", re.compile(r"9{1,2}:99[AP]M$")),
    ("%I:%M:%S %p", re.compile(r"9{1,2}:99:99 [AP]M$")),
    ("%I:%M:%S%p", re.compile(r"9{1,2}:99:99[AP]M$")),
)
ISO = r"^\d{4}-\d{1,2}-\d{1,2}($|[ T].*[^mM]$)"  # an hour with AM or PM is no ISO 8601
ZONE = r":\d{2}(\.\d+)?\s*(Z|UTC|GMT|[+-]\d{2}(:?\d{2})?)$"
CLOCK = r"[ T,]+\d{1,2}:.*$"
# Share of rows that may lie outside FIRST to today before another reading is asked for.
ODD_SHARE = 0.01


@ibis.udf.scalar.builtin
def try_strptime(value: str, form: str) -> ibis.dtype("timestamp"):
    """The engine's own reading of a text by a format, null where it does not fit."""


@dataclass
class Reading:
    """How the dates of a column are read.

    formats: strptime formats, tried in order; empty for dates that begin with a four-digit year and
    are read as ISO 8601. example: a text of the column, for what is told. zoned: whether the texts
    end with a time zone; they become UTC.
    """

    formats: list[str] = field(default_factory=list)
    example: str = ""
    zoned: bool = False

    def times(self, text: Column) -> Column:
        """The column as timestamps, null where no format fits."""
        text = text.strip()
        if self.zoned:
            return text.try_cast("timestamp('UTC', 6)").cast(MICROSECONDS)
        if not self.formats:
            return text.try_cast(MICROSECONDS)
        return ibis.coalesce(*(try_strptime(text, form) for form in self.formats)).cast(
            MICROSECONDS
        )


def as_times(column: Column, form: str | list[str] | None, reading: Reading | None) -> Column:
    """Timestamps of a column: by the TOML's `ts_format`, by what was found out, or as it is."""
    if form in (*EPOCHS, EXCEL):
        number = column.try_cast("float64")
        seconds = (number - 25_569) * 86_400 if form == EXCEL else number / EPOCHS[form]
        return seconds.round().cast("int64").as_timestamp("s").cast(MICROSECONDS)
    if form:
        formats = [form] if isinstance(form, str) else form
        return Reading(formats).times(column.cast("string"))
    if column.type().is_string():
        return (reading or Reading()).times(column)
    return column.try_cast(MICROSECONDS)


def find_reading(t: Table, column: str, where: str) -> Reading:
    """The one way to read all dates of a text column.

    where: names file and column in what is raised.
    Raises LabError where two formats fit and give different dates, where rows need different
    formats, and where numbers stand for dates; each names the `ts_format` that settles it.
    """
    dated = t.select(text=t[column].strip()).filter(lambda s: s.text != "")
    counts = dated.agg(
        n=dated.count(),
        iso=dated.text.re_search(ISO).sum(),
        zoned=dated.text.re_search(ZONE).sum(),
    )
    counts = counts.to_pandas().iloc[0]
    if not counts["n"]:
        return Reading()
    if 0 < counts["zoned"] < counts["n"]:
        raise LabError(
            f"{where} holds times with a zone and times without one, so nobody can tell which came"
            " first: write all of them one way"
        )
    if counts["iso"] == counts["n"]:
        return Reading(zoned=counts["zoned"] > 0)
    days = _distinct_days(dated)
    days_format = _days_format(days, where)
    if not days_format:  # no row holds a date: ISO 8601 will find the first of them
        return Reading()
    formats = [f"{days_format}{clock}" for clock in _clocks(dated, where)]
    return Reading(formats, days["day"].iloc[0])


def outside(ts: Column) -> Column:
    """Whether a time is no time of a receipt: before 1970, or after today."""
    return (ts < FIRST.to_pydatetime()) | (ts > _tomorrow())


def _tomorrow() -> datetime:
    """A day is added for shops east of this clock."""
    return datetime.now() + timedelta(days=1)


def _distinct_days(dated: Table) -> pd.DataFrame:
    """The texts without their time of day: day, rows; the most frequent first."""
    counts = dated.group_by(day=dated.text.re_replace(CLOCK, "")).agg(rows=dated.count())
    return counts.order_by(ibis.desc("rows"), "day").to_pandas()


def _clocks(dated: Table, where: str) -> list[str]:
    """Formats of the times of day, each with the text that comes before it."""
    shape = dated.text.re_extract(CLOCK, 0).upper().re_replace(r"\d", "9")
    shapes = dated.select(shape=shape).distinct().to_pandas()["shape"].fillna("")
    result = []
    for shape in sorted(shapes):
        before, time = re.fullmatch(r"([ T,]*)(.*)", shape).groups()
        fitting = [form for form, pattern in TIMES if pattern.match(time)]
        if not fitting:
            raise LabError(
                f"{where}: the time of day '{time}' (9 is any digit) is not understood: set"
                " ts_format"
            )
        result.append(before + fitting[0])
    return sorted(set(result), key=len, reverse=True)


def _days_format(days: pd.DataFrame, where: str) -> str:
    """The format of the days, "" if none is a date; LabError where there is more than one."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for row, day in enumerate(days["day"]):
        groups.setdefault(_candidates(day), []).append(row)
    unread = groups.pop((), [])
    if unread and (number := _number_of_a_date(days["day"].iloc[unread[0]])):
        raise LabError(f"{where} '{days['day'].iloc[unread[0]]}' {number}")
    if not groups:
        return ""
    chosen = {}
    for candidates, rows in groups.items():
        chosen[_chosen(days.iloc[rows], candidates, where)] = days["day"].iloc[rows[0]]
    if len(chosen) > 1:
        examples = " and ".join(f"'{value}'" for value in list(chosen.values())[:2])
        formats = ", ".join(f'"{form}"' for form in chosen)
        raise LabError(
            f"{where} holds dates of several forms, such as {examples}: if these are right, set"
            f" ts_format = [{formats}]"
        )
    return next(iter(chosen))


def _candidates(day: str) -> tuple[str, ...]:
    """The formats that a text of this shape may have."""
    if match := THREE_NUMBERS.match(day):
        first, sep, _, last = match.groups()
        if len(first) == 4 and len(last) <= 2:
            orders = ["%Y{0}%m{0}%d"]
        elif len(first) <= 2 and len(last) == 4:
            orders = ["%d{0}%m{0}%Y", "%m{0}%d{0}%Y"]
        elif len(first) <= 2 and len(last) == 2:
            orders = ["%d{0}%m{0}%y", "%m{0}%d{0}%y", "%y{0}%m{0}%d"]
        elif len(first) == 2 and len(last) == 1:
            orders = ["%y{0}%m{0}%d"]
        else:
            orders = []
        return tuple(order.format(sep) for order in orders)
    if re.fullmatch(r"(19|20)\d{6}", day):
        return ("%Y%m%d",)
    if re.fullmatch(r"(19|20)\d{12}", day):
        return ("%Y%m%d%H%M%S",)
    for form, pattern in MONTH_BY_NAME:
        if match := pattern.match(day):
            return (form.format(*match.groups()),)
    return ()


def _chosen(days: pd.DataFrame, candidates: Sequence[str], where: str) -> str:
    """Of the candidates the one that fits the days, all of the same shape."""
    parsed = {
        form: pd.to_datetime(days["day"], format=form, errors="coerce") for form in candidates
    }
    lost = {form: days["rows"][dates.isna()].sum() for form, dates in parsed.items()}
    least = min(lost.values())
    if least > ODD_SHARE * days["rows"].sum() and (sentence := _contradiction(days, parsed)):
        raise LabError(f"{where} {sentence}")
    fitting = [form for form in candidates if lost[form] == least]
    latest = pd.Timestamp(_tomorrow())
    odd = {
        form: days["rows"][(parsed[form] > latest) | (parsed[form] < FIRST)].sum()
        for form in fitting
    }
    likely = [form for form in fitting if odd[form] <= ODD_SHARE * days["rows"].sum()]
    fitting = likely or fitting
    first = parsed[fitting[0]]
    for form in fitting[1:]:
        differs = (parsed[form] != first) & first.notna()
        if differs.any():
            day = days["day"][differs].iloc[0]
            readings = [parsed[each][differs].iloc[0] for each in (fitting[0], form)]
            raise LabError(
                f"{where} '{day}' may be {readings[0]:%-d %B %Y} or {readings[1]:%-d %B %Y}, and"
                f' no row tells which: set ts_format = "{fitting[0]}" or "{form}"'
                " (with the time of day where there is one)"
            )
    return fitting[0]


def _contradiction(days: pd.DataFrame, parsed: dict[str, pd.Series]) -> str:
    """Two values that no one format can read, in a sentence; "" if there are none."""
    names = list(parsed)
    only = []
    for form in names:
        alone = parsed[form].notna()
        for other in names:
            alone &= parsed[other].isna() | (other == form)
        if alone.any():
            only.append((days["day"][alone].iloc[0], form))
    if len(only) < 2:
        return ""
    (one, its_format), (other, other_format) = only[:2]
    return (
        f"mixes two orders of day and month: '{one}' is only a date as {its_format}, '{other}' only"
        f" as {other_format}: correct the file, since the other rows fit both"
    )


def _number_of_a_date(day: str) -> str:
    """What a number that is no date may stand for; "" if nothing."""
    if re.fullmatch(r"\d{5}(\.\d+)?", day):
        date = pd.Timestamp("1899-12-30") + pd.Timedelta(days=int(float(day)))
        return f'looks like a spreadsheet\'s number for {date:%-d %B %Y}: set ts_format = "excel"'
    for name, digits in (("unix", 10), ("unix_ms", 13)):
        if re.fullmatch(rf"\d{{{digits}}}(\.\d+)?", day):
            date = pd.Timestamp(float(day) / EPOCHS[name], unit="s")
            return f'looks like {date:%-d %B %Y} in {name}: set ts_format = "{name}"'
    return ""
