"""From raw files to the rows that a data set's TOML describes: columns, types, rules."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import ibis
from ibis.expr.types import Column, Table

from recsys_utils import LabError
from recsys_utils.data import databases, urls
from recsys_utils.data.databases import Origin
from recsys_utils.data.dates import Reading, as_times, find_reading
from recsys_utils.data.engine import MICROSECONDS, identifier, keep, mentions
from recsys_utils.data.files import (
    FILE,
    ROW,
    first_line,
    id_text,
    is_text,
    raw_files,
    read_file,
)
from recsys_utils.data.numbers import LOOK_AT, Notation, find_notations, is_number
from recsys_utils.data.registry import NUMBERS, Layout, Source, Spec

NOTHING = ("", "nan", "inf", "null", "none", "n/a", "na", "#n/a", "-")
ISO_DAY = r"^\d{4}-\d{2}-\d{2}"
HIDDEN = "_id_"  # before the name of an id that an expression makes
TRUTHS = ("true", "false")


@dataclass
class Raw:
    """The raw rows of a source, all files as one table, and how the files are named in errors."""

    table: Table
    paths: list[Path | Origin]
    is_text: bool = False  # columns have no types of their own
    # How the numbers are written that expressions reckon with.
    notations: dict[str, Notation] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        """The columns that the files have."""
        return [name for name in _visible(self.table) if not name.startswith(HIDDEN)]

    @property
    def name(self) -> str:
        """The first file, and how many more."""
        more = len(self.paths) - 1
        files = "file" if more == 1 else "files"
        return f"{self.paths[0]}" + (f" and {more} more {files}" if more else "")


@dataclass
class Selected:
    """Rows under their canonical names, with `rejected`, and how dates and numbers are read."""

    table: Table
    raw: Raw
    source: Source
    reading: Reading | None = None
    notations: dict[str, Notation] = field(default_factory=dict)

    def column(self, name: str) -> str:
        """How a canonical column is named in what is raised."""
        return f"{name} ({self.source.columns.get(name, name)})"


def read_raw(con: ibis.BaseBackend, source: Source, spec: Spec) -> Raw:
    """The raw rows of a source: of its own files, or else of the purchases'."""
    origin = source if source.has_place else spec.purchases
    if urls.database(origin.url):
        rows, place = databases.read(con, source, origin, spec)
        rows = rows.mutate(**{ROW: ibis.row_number() + 1, FILE: ibis.literal(place.name)})
        return _without_copies(Raw(rows, [place]), origin)
    paths = raw_files(origin, spec)
    ids = _id_columns([spec.purchases, source])
    rows = _read_files(con, paths, origin, ids, list(origin.columns.values()))
    if origin.split:
        rows = _split(rows, origin, paths[0])
    if origin.unpivot:
        rows = _unpivot(rows, origin, paths[0])
    if origin.join:
        rows = _join(con, rows, origin, spec, ids)
    return _without_copies(Raw(rows, paths, is_text(paths[0])), origin)


def _without_copies(raw: Raw, origin: Source) -> Raw:
    """Mark what is equal to another line in every column, where that is a mistake."""
    if origin.drop_copies:
        copy = ibis.row_number().over(group_by=raw.columns) > 0
        raw.table = raw.table.mutate(is_copy=copy)
    return raw


def select(raw: Raw, source: Source, table: str) -> Selected:
    """Raw rows with the mapped columns under their canonical names, plus `rejected`.

    `rejected` is the first of the data set's own rules that a row breaks. Rows keep their number
    and their file. Ids, dates and numbers are text still, where the files are text.
    """
    rules = _rules(source)
    raw = _with_id_expressions(raw, source, table)
    t = _expression_types(raw, source, [rule for _, rule in rules])
    parts = [
        f"{_sql(raw, t, source, name, table)} AS {identifier(name)}" for name in source.columns
    ]
    where = f"[{table}] rules of {raw.paths[0].name}"
    rejected = "CAST(NULL AS VARCHAR)"
    if rules:
        cases = " ".join(f"WHEN {rule} THEN {_quoted(why)}" for why, rule in rules)
        rejected = f"CASE {cases} END"
        _query(t, f"{rejected} AS rejected", where, run=True)
    parts += [f"{rejected} AS rejected", identifier(ROW), identifier(FILE)]
    result = Selected(_query(t, ", ".join(parts), where), raw, source)
    return _with_attribute_types(result) if raw.is_text else result


def dates_and_numbers(selected: Selected) -> dict[str, Column]:
    """The dates as timestamps and the numbers as float64, null where a text is none."""
    _find_reading(selected)
    result = _numbers(selected)
    if "ts" in selected.table.columns:
        form = selected.source.ts_format
        result["ts"] = as_times(selected.table.ts, form, selected.reading)
    return result


def text_ids(t: Table) -> dict[str, Column]:
    """The ids of a table as text."""
    return {name: id_text(t[name]) for name in t.columns if name.endswith("_id")}


def _find_reading(selected: Selected) -> None:
    """Find out how the dates are written, where the TOML does not say it."""
    t = selected.table
    if "ts" not in t.columns or selected.source.ts_format:
        return
    if t.ts.type().is_numeric():
        # 20240131 is a day, 45292 a spreadsheet's number: what it is shows in its text.
        t = selected.table = t.mutate(ts=id_text(t.ts))
    if t.ts.type().is_string():
        where = f"{selected.raw.name}: {selected.column('ts')}"
        selected.reading = find_reading(t, "ts", where)


def _numbers(selected: Selected) -> dict[str, Column]:
    t = selected.table
    names = [name for name in NUMBERS if name in t.columns]
    texts = [name for name in names if t[name].type().is_string()]
    where = {name: f"{selected.raw.name}: {selected.column(name)}" for name in texts}
    selected.notations = find_notations(t, texts, selected.source.decimal, where)
    result = {name: t[name].try_cast("float64") for name in names}
    return result | {name: selected.notations[name].numbers(t[name]) for name in texts}


def _read_files(
    con: ibis.BaseBackend, paths: list[Path], layout: Layout, ids: list[str], wanted: list[str]
) -> Table:
    """All files as one table, by the names of their columns."""
    plain = _header_columns(layout, wanted)
    parts = [read_file(con, path, layout, ids, plain) for path in paths]
    if len(parts) == 1:
        return parts[0]
    every = {name for part in parts for name in part.columns}
    for path, part in zip(paths, parts):
        absent = [name for name in every - set(part.columns) if _is_used(name, layout, wanted)]
        if absent:
            raise LabError(
                f"{path} has no column '{min(absent)}', which other files of the same table have:"
                f" it has {', '.join(_visible(part))}"
            )
    try:
        views = [con.create_view(ibis.util.gen_name("part"), part) for part in parts]
        names = " UNION ALL BY NAME ".join(f"SELECT * FROM {view.get_name()}" for view in views)
        return keep(con.sql(names))
    except Exception as error:
        raise LabError(
            f"{paths[0]} and the other files do not fit together: {first_line(error)}"
        ) from error


def _header_columns(layout: Layout, wanted: list[str]) -> list[str]:
    """Columns that the file itself must have, by which its header is found below a title."""
    if isinstance(layout, Source) and (layout.unpivot or layout.join):
        return []
    return [value for value in wanted if re.fullmatch(r"[^\W\d][\w .:#%-]*", value)]


def _is_used(name: str, layout: Layout, wanted: list[str]) -> bool:
    """Whether a raw column is mapped, or named in an expression or a rule."""
    if name == getattr(layout, "on", None):
        return True
    rules = [rule for _, rule in _rules(layout)] if isinstance(layout, Source) else []
    return any(mentions(value, name) for value in [*wanted, *rules])


def _why_not(t: Table, column: str) -> str:
    """Why an expression cannot compute with a column, as far as its type tells; "" if it can."""
    if t[column].type().is_numeric():
        return "is read as a number already, 1.234,56 too: leave functions of text out"
    if not t[column].type().is_string():
        return ""
    is_word = t[column].notnull() & t[column].try_cast("float64").isnull()
    words = t.filter(is_word).select(column).distinct().order_by(column).limit(LOOK_AT)
    words = words.to_pandas()[column].tolist()
    # 3,48 is a number, where all the others are.
    words = [word for word in words if not is_number(word)] or words
    return f"'{words[0]}' is not a number" if words else ""


def _visible(t: Table) -> list[str]:
    return [name for name in t.columns if name not in (ROW, FILE)]


def _split(rows: Table, source: Source, path: Path) -> Table:
    """A list in a cell becomes a row per product."""
    column = source.columns["item_id"]
    if column not in rows.columns:
        raise LabError(f"{path}: split parts the column of item_id, and '{column}' is none")
    parts = rows[column].cast("string").split(source.split)
    t = rows.mutate(**{column: parts.unnest().re_replace(r'^[\s"]+|[\s"]+$', "").nullif("")})
    return t.filter(t[column].notnull())


def _unpivot(rows: Table, source: Source, path: Path) -> Table:
    """A column per product becomes a row per product; empty cells make no row."""
    wanted = source.unpivot
    chosen = [
        name
        for name in _visible(rows)
        if any(fnmatchcase(name, pattern) for pattern in wanted.columns)
    ]
    if not chosen:
        raise LabError(
            f"{path} has no column that fits unpivot.columns = {wanted.columns}: it has"
            f" {', '.join(_visible(rows))}"
        )
    t = rows.mutate(**{name: rows[name].cast("string") for name in chosen})
    t = t.pivot_longer(ibis.selectors.cols(*chosen), names_to=wanted.name, values_to=wanted.value)
    value = t[wanted.value].strip()
    return t.filter(t[wanted.value].notnull() & (value != ""))


def _join(con: ibis.BaseBackend, rows: Table, source: Source, spec: Spec, ids: list[str]) -> Table:
    """Rows with the columns of the second file; a row without a partner keeps them empty."""
    join = source.join
    paths = raw_files(join, spec)
    wanted = list(source.columns.values())
    other = _read_files(con, paths, join, [*ids, join.on], wanted)
    for path, t in ((raw_files(source, spec)[0], rows), (paths[0], other)):
        if join.on not in t.columns:
            raise LabError(
                f"{path} has no column '{join.on}' (join.on): it has {', '.join(_visible(t))}"
            )
    key = id_text(other[join.on])
    twice = other.group_by(key=key).agg(n=lambda t: t.count()).filter(lambda t: t.n > 1)
    example = twice.order_by("key").limit(1).to_pandas()
    if len(example):
        raise LabError(
            f"{paths[0]} has {join.on} '{example['key'][0]}' more than once: a row of receipts"
            " belongs to one row of it"
        )
    new = [name for name in _visible(other) if name not in rows.columns]
    other = other.select(__key=key, **{name: other[name] for name in new})
    return keep(rows.left_join(other, id_text(rows[join.on]) == other["__key"]).drop("__key"))


def _id_columns(sources: Iterable[Source]) -> list[str]:
    """Raw columns that ids are made of, plainly or in an expression, by name or as words."""
    values = [value for source in sources for value in source.ids.values()]
    words = [word for value in values for word in re.findall(r'"[^"]+"|\w+', value)]
    return list(dict.fromkeys(values + [word.strip('"') for word in words]))


def _rules(source: Source) -> list[tuple[str, str]]:
    """Why a row is rejected, and the SQL that says so."""
    copies = [("copy of another line", "is_copy")] * source.drop_copies
    only = [(f"not {why}", f"NOT coalesce({rule}, FALSE)") for why, rule in source.only.items()]
    return copies + only + list(source.reject.items())


def _with_id_expressions(raw: Raw, source: Source, table: str) -> Raw:
    """Ids that are made by an expression, from columns that are still the text of the file.

    One that computes with numbers is left to the typed columns.
    """
    if not raw.is_text:
        return raw
    t = raw.table
    for name, value in source.ids.items():
        if value in raw.columns:
            continue
        try:
            sql = _sql(raw, raw.table, source, name, table)
            t = _query(t, f"*, {sql} AS {identifier(HIDDEN + name)}", f"[{table}.columns] {name}")
        except LabError as error:
            if "cannot be computed" not in str(error) and "No function" not in str(error):
                raise
    return Raw(t, raw.paths, is_text=True)


def _expression_types(raw: Raw, source: Source, rules: list[str]) -> Table:
    """Text columns that expressions use as what all their values are: number, date or truth.

    Columns that are ids stay text.
    """
    t = raw.table
    if not raw.is_text:
        return t
    expressions = [*source.columns.values(), *rules]
    used = []
    for name in raw.columns:
        is_plain_text = t[name].type().is_string() and name not in source.ids.values()
        if is_plain_text and any(value != name and mentions(value, name) for value in expressions):
            used.append(name)
    return t.mutate(**_typed_texts(t, used, source, raw)) if used else t


def _with_attribute_types(selected: Selected) -> Selected:
    """Attributes that are written as plain numbers or dates get these types."""
    t = selected.table
    roles = (*NUMBERS, "ts", "rejected", "event_type", FILE, ROW)
    texts = [
        name
        for name in t.columns
        if t[name].type().is_string() and not name.endswith("_id") and name not in roles
    ]
    if texts:
        selected.table = t.mutate(**_typed_texts(t, texts))
    return selected


def _typed_texts(
    t: Table, names: list[str], source: Source | None = None, raw: Raw | None = None
) -> dict[str, Column]:
    """Text columns by what every value of them is; what is nothing in particular stays text.

    With a source numbers may be written in any notation, without one plainly.
    """
    result = {}
    others = []
    for name in names:
        counts = _facts(t, name)
        n = counts["said"]
        text = t[name].strip().nullif("")
        if not n or counts["coded"]:
            continue
        if counts["day"] == n:
            day = text.try_cast(MICROSECONDS)
            result[name] = day if counts["long"] else day.cast("date")
        elif counts["truth"] == n and source:
            result[name] = text.lower() == "true"
        elif counts["whole"] == n:
            result[name] = text.try_cast("int64")
        elif source:
            others.append(name)
        elif counts["number"] == n:
            result[name] = text.try_cast("float64")
    return result | (_noted_numbers(t, others, source, raw) if others else {})


def _facts(t: Table, name: str) -> dict[str, int]:
    """How many different texts of a column say something, and are a day, a truth or a number."""
    values = t.select(text=t[name].strip()).distinct()
    values = values.filter(values.text.lower().notin(NOTHING))
    text = values.text
    facts = values.agg(
        said=values.count(),
        day=(text.re_search(ISO_DAY) & text.try_cast(MICROSECONDS).notnull()).sum(),
        long=(text.length() > 10).sum(),
        truth=text.lower().isin(TRUTHS).sum(),
        number=text.try_cast("float64").notnull().sum(),
        whole=(text.try_cast("int64").notnull() & ~text.contains(".")).sum(),
        coded=text.re_search(r"^[+-]?0\d").sum(),
    )
    return facts.to_pandas().iloc[0].fillna(0).to_dict()


def _noted_numbers(t: Table, names: list[str], source: Source, raw: Raw) -> dict[str, Column]:
    """Those of the columns that hold numbers in some notation."""
    numeric = []
    for name in names:
        sample = t.filter(t[name].notnull()).select(name).limit(200).to_pandas()[name]
        has_words = sample.str.contains(r"[a-zA-Z]{4}").any()
        if sample.str.contains(r"\d").mean() > 0.5 and not has_words:
            numeric.append(name)
    where = {name: f"{raw.name}: {name}" for name in numeric}
    notations = find_notations(t, numeric, source.decimal, where)
    raw.notations |= notations
    numbers = {name: notation.numbers(t[name]) for name, notation in notations.items()}
    lost = {
        name: (t[name].strip().lower().notin(NOTHING) & number.isnull()).sum()
        for name, number in numbers.items()
    }
    counts = t.agg(**lost).to_pandas().iloc[0].fillna(0) if lost else {}
    return {name: number for name, number in numbers.items() if not counts[name]}


def _sql(raw: Raw, t: Table, source: Source, name: str, table: str) -> str:
    """SQL of one mapped column: the quoted raw column, or the expression as it stands."""
    value = source.columns[name]
    if HIDDEN + name in t.columns:
        return identifier(HIDDEN + name)
    # An attribute that rides on the receipts.
    table, name = name.split("__") if "__" in name else (table, name)
    if value in t.columns:
        return identifier(value)
    hint = f": it was read as one column, set sep in [{table}]" if len(raw.columns) == 1 else ""
    known = re.fullmatch(r"[\w.]+ - [\w.]+", value)
    if re.fullmatch(r"[\w .:-]+", value) and not known and not value.replace(".", "").isdigit():
        raise LabError(
            f"{raw.paths[0]} has no column '{value}' (mapped to {name}), it has"
            f" {', '.join(raw.columns)}{hint}"
        )
    where = f"[{table}.columns] {name} = '{value}' for {raw.paths[0].name}"
    _query(t, f"{value} AS most", where, run=True)
    return value


def _query(t: Table, what: str, where: str, run: bool = False) -> Table:
    """SELECT `what` from the raw rows; `run` finds out what fails on a value."""
    view = ibis.util.gen_name("raw")
    try:
        result = t.alias(view).sql(f"SELECT {what} FROM {view}")
        return result.agg(n=result[0].count()).to_pandas() if run else result
    except Exception as error:
        columns = _visible(t)
        if "No function matches" in str(error):
            for column in (name for name in columns if mentions(what, name)):
                if why := _why_not(t, column):
                    raise LabError(f"{where} cannot be computed: {column} {why}") from error
        raise LabError(
            f"{where} is not valid: {first_line(error)}; the file has {', '.join(columns)}"
        ) from error


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
