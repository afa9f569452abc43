"""Numbers as shops write them: decimal comma or point, thousands, currency signs, brackets."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import ibis
from ibis.expr.types import Column, Table

from recsys_utils import LabError

# What stands beside a number and is no part of it. An apostrophe or a blank parts thousands.
DECORATION = "[\\s\u00a0\u202f'’€$£¥₹]|EUR|USD|GBP|CHF|SEK|NOK|DKK|PLN|CZK|kr|zł|Kč"
WITH_POINT = re.compile(r"[+-]?(\d{1,3}(,\d{3})+|\d*)(\.\d+)?([eE][+-]?\d+)?$")
WITH_COMMA = re.compile(r"[+-]?(\d{1,3}(\.\d{3})+|\d*)(,\d+)?$")
# Fits both, and is a thousand times more in one reading than in the other.
EITHER = re.compile(r"[+-]?[1-9]\d{0,2}[.,]\d{3}$")
# Shops write a round price as 12,- or 12.--: no cents, and no minus sign.
NO_CENTS = "[.,][-–—]+$"
# Signs of money, of which a column should have one.
CURRENCIES = {
    "€": "EUR",
    "EUR": "EUR",
    "$": "USD",
    "USD": "USD",
    "£": "GBP",
    "GBP": "GBP",
    "CHF": "CHF",
    "SEK": "SEK",
    "NOK": "NOK",
    "DKK": "DKK",
    "PLN": "PLN",
    "zł": "PLN",
    "CZK": "CZK",
    "Kč": "CZK",
    "¥": "¥",
    "₹": "₹",
}
NO_NUMBER = ("", "nan", "inf", "-inf", "+inf", "null", "none", "n/a", "na", "#n/a", "-")
# Different texts of one column that are looked at.
LOOK_AT = 200_000


@dataclass
class Notation:
    """How the numbers of a column are written.

    plain: as a programming language writes them. doubtful: one that has thousands or decimals, and
    is read as the other columns are written.
    """

    plain: bool = True
    decimal: str = "."
    doubtful: str = ""

    def numbers(self, text: Column) -> Column:
        """The column as float64, null where it is no number."""
        if self.plain:
            return text.try_cast("float64")
        bare = text.re_replace(DECORATION, "").replace("−", "-").re_replace(NO_CENTS, "")
        in_brackets = bare.startswith("(") & bare.endswith(")")
        after = ~in_brackets & bare.endswith("-")
        is_negative = in_brackets | after
        bare = ibis.ifelse(in_brackets, bare.substr(1, bare.length() - 2), bare)
        bare = ibis.ifelse(after, bare.substr(0, bare.length() - 1), bare)
        if self.decimal == ",":
            bare = bare.replace(".", "").replace(",", ".")
        else:
            bare = bare.replace(",", "")
        number = bare.try_cast("float64")
        return ibis.ifelse(is_negative, -number, number)


def find_notations(
    t: Table, columns: Iterable[str], decimal: str | None, where: dict[str, str]
) -> dict[str, Notation]:
    """The notation of each text column, found from all its rows.

    decimal: the TOML's own word, for all columns. where: how each column is named in what is
    raised. A column whose texts fit both notations follows the other columns.
    Raises LabError where texts contradict each other, or where nothing tells.
    """
    texts = {column: _unusual_texts(t, column, where[column]) for column in columns}
    found = {}
    open_columns = {}
    for column, values in texts.items():
        if decimal is not None and values:
            _check_given(values, decimal, where[column])
            found[column] = Notation(plain=False, decimal=decimal)
        elif not values:
            found[column] = Notation()
        elif sign := _decimal(values, where[column]):
            found[column] = Notation(False, sign)
        else:
            open_columns[column] = [value for value in values if EITHER.match(value)]
    known = {notation.decimal for notation in found.values() if not notation.plain}
    for column, values in open_columns.items():
        if len(known) != 1:
            raise LabError(
                f"{where[column]} '{values[0]}' may have thousands or decimals: set decimal = \".\""
                ' or decimal = ","'
            )
        found[column] = Notation(False, next(iter(known)), doubtful=values[0])
    return found


def _unusual_texts(t: Table, column: str, where: str) -> list[str]:
    """Different texts of a column, bare of signs; none if every number is plainly written.

    Raises LabError where they are money of several currencies.
    """
    text = t[column].strip()
    is_plain = text.try_cast("float64").notnull() | (text == "") | text.isnull()
    may_be_thousands = text.contains(".") & (text.length() - text.find(".") == 4)
    counts = t.agg(odd=(~is_plain).sum(), thousands=may_be_thousands.sum()).to_pandas().iloc[0]
    if not counts["odd"] and not counts["thousands"]:
        return []
    distinct = t.select(text=text).filter(lambda s: s.text.notnull()).distinct()
    values = distinct.order_by("text").limit(LOOK_AT).to_pandas()["text"]
    _check_currency(values, where)
    bare = {_bare(value) for value in values if value.lower() not in NO_NUMBER}
    if not counts["odd"] and _is_decided_point(bare):
        return []
    return sorted(bare - {""})


def is_number(text: str) -> bool:
    """Whether a text is a number in some notation.

    >>> is_number("1.234,56 €"), is_number("gratis")
    (True, False)
    """
    bare = _bare(text.strip())
    return bool(bare) and bool(WITH_POINT.match(bare) or WITH_COMMA.match(bare))


def _bare(value: str) -> str:
    bare = re.sub(DECORATION, "", value)
    return re.sub(NO_CENTS, "", bare).strip("()-−")


def _check_currency(values: Iterable[str], where: str) -> None:
    """Refuse money of several currencies: 5 of one and 5 of another are not 10 of anything."""
    examples = {}
    for value in values:
        for sign in re.findall(DECORATION, value):
            if sign in CURRENCIES:
                examples.setdefault(CURRENCIES[sign], value)
    if len(examples) > 1:
        first, second, *_ = examples.values()
        raise LabError(
            f"{where} has '{first}' and '{second}', two currencies: write all prices in one"
        )


def _check_given(values: list[str], decimal: str, where: str) -> None:
    """Refuse a number that cannot be written with the decimal sign that the TOML tells."""
    fitting, other = (WITH_COMMA, WITH_POINT) if decimal == "," else (WITH_POINT, WITH_COMMA)
    odd = [value for value in values if other.match(value) and not fitting.match(value)]
    if odd:
        raise LabError(
            f"{where} has '{odd[0]}', which does not fit decimal = \"{decimal}\": correct the file"
        )


def _is_decided_point(values: Iterable[str]) -> bool:
    """Whether some number shows that the point parts decimals."""
    return any("." in value and not EITHER.match(value) for value in values)


def _decimal(values: list[str], where: str) -> str:
    """The decimal sign of the texts, "" if none tells; LabError where they disagree."""
    point = [v for v in values if WITH_POINT.match(v) and not WITH_COMMA.match(v)]
    comma = [v for v in values if WITH_COMMA.match(v) and not WITH_POINT.match(v)]
    if point and comma:
        raise LabError(
            f"{where} has '{point[0]}' with a decimal point and '{comma[0]}' with a decimal comma:"
            " correct the file"
        )
    if point or comma:
        return "," if comma else "."
    return "" if any(EITHER.match(value) for value in values) else "."
