"""Canonical tables: cleaned once, counted rule by rule in rows and money, written as parquet."""

import re
from dataclasses import dataclass
from pathlib import Path

import ibis
import pandas as pd
from ibis.expr.types import Column, Table

from recsys_utils import LabError
from recsys_utils.data import cleaning, databases, doubts, synthetic
from recsys_utils.data.dates import as_times, find_reading
from recsys_utils.data.engine import connect, count, explained, in_order, keep, move, reader, write
from recsys_utils.data.files import FILE, ROW, raw_files
from recsys_utils.data.interactions import Interactions, by_id
from recsys_utils.data.readers import Raw, Selected, read_raw, select, text_ids
from recsys_utils.data.registry import EVENT_TYPES, OPTIONAL, REQUIRED, Source, Spec, spec
from recsys_utils.store import (
    atomic,
    data_dir,
    digest,
    home,
    read_json,
    read_parquet,
    write_json,
)

TABLES = ("purchases", "items", "users", "events", "stock", "stores")
PERSONAL = re.compile(
    r"^name$|(^|_)((first|last|full|sur|user|customer|client|shopper)_?name|e?_?mail|(tele)?phone|mobile|\w*address|street)($|_)"
)
SHOP = "shop.json"  # whose results lie in a data set's folder
TIMES = ("ts", "week", "starts", "ends")  # of the optional tables
TEXTS = ("place", "mailer", "kind")
EVERY = (*TABLES, *OPTIONAL)
KEYS = {"items": "item_id", "users": "user_id", "stores": "store_id"}
MAKERS = [
    Path(__file__).with_name(f"{name}.py")
    for name in (
        "cleaning",
        "databases",
        "dates",
        "doubts",
        "downloads",
        "drivers",
        "engine",
        "files",
        "numbers",
        "readers",
        "registry",
        "spark",
        "tables",
        "synthetic",
        "synthetic_words",
        "urls",
    )
]


@dataclass
class Tables:
    """The canonical tables of a data set; a table that it does not have is empty."""

    spec: Spec
    manifest: dict
    purchases: pd.DataFrame
    items: pd.DataFrame
    users: pd.DataFrame
    events: pd.DataFrame
    stock: pd.DataFrame
    stores: pd.DataFrame

    def scan(self, table: str, con: ibis.BaseBackend | None = None) -> Table:
        """A table as the engine reads it where it lies, in `con` if it is to meet others there.

        Promotions may be larger than memory: aggregate them before they become a frame.
        """
        if table not in EVERY:
            raise LabError(f"'{table}' is no table of a data set: choose {', '.join(EVERY)}")
        path = data_dir(self.spec.name, "tables", f"{table}.parquet")
        if not path.exists():
            raise LabError(
                f"data set '{self.spec.name}' has no {table}: describe them as [{table}] in its"
                " TOML, see data/README.md"
            )
        return (con or connect()).read_parquet(str(path))

    @property
    def audit(self) -> pd.DataFrame:
        """What cleaning kept and rejected: rule, rows, money."""
        return pd.DataFrame(self.manifest["audit"], columns=["table", "rule", "rows", "money"])

    def clients(self, receipts: Interactions) -> pd.DataFrame:
        """Attributes by user_id of those whom the shop knows and some receipts do not."""
        users = by_id(self.users, "user_id")
        return users[~users.index.isin(receipts.user_ids)]

    def interactions(self, until: pd.Timestamp | None = None) -> Interactions:
        """All receipts and events, or those before a time, as models take them."""
        events = self.events if len(self.events) else None
        purchases = self.purchases
        if until is not None:
            purchases = purchases[purchases["ts"] < until].reset_index(drop=True)
            if events is not None:
                events = events[events["ts"] < until].reset_index(drop=True)
        catalogue = self.items["item_id"] if len(self.items) else None
        return Interactions.of(
            purchases, self.items, self.users, until, catalogue, events, self.spec.is_dated
        )


def load(dataset: str) -> Tables:
    """Read the canonical tables; build them first where raw files or their description changed."""
    result = ready(dataset)
    folder = data_dir(result.name, "tables")
    frames = {}
    for table in TABLES:
        path = folder / f"{table}.parquet"
        frames[table] = read_parquet(path) if path.exists() else pd.DataFrame()
    return Tables(result, read_json(folder / "manifest.json"), **frames)


def ready(dataset: str) -> Spec:
    """Build the canonical tables where the raw files or their description changed; the latter."""
    result = spec(dataset)
    _check_name(result)
    folder = data_dir(result.name, "tables")
    wanted = fingerprint(result)
    current = folder / "manifest.json"
    if not current.exists() or read_json(current).get("fingerprint") != wanted:
        build(result, folder, wanted)
    _note_name(result)
    return result


def _check_name(made: Spec) -> None:
    """Refuse a shop whose name is that of another one, whose results would be taken for its own."""
    place = data_dir(made.name, SHOP)
    if made.folder is None or not place.exists():
        return
    known = home() / read_json(place)["toml"]
    if known != home() / _toml_of(made) and known.is_file():
        raise LabError(
            f"{_toml_of(made)}: the results in {place.parent} are those of {known}, another shop of"
            " the same name: rename one of the two files"
        )


def _note_name(made: Spec) -> None:
    """Write down whose results lie under this name."""
    place = data_dir(made.name, SHOP)
    if made.folder is None:
        return
    wanted = {"toml": _toml_of(made)}
    if not place.exists() or read_json(place) != wanted:
        write_json(wanted, place)


def _toml_of(made: Spec) -> str:
    """The file that describes a shop; inside the home without it, so that both can be copied."""
    path = made.folder / f"{made.name}.toml"
    root = home().resolve()
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def fingerprint(made: Spec) -> dict:
    """What the tables depend on.

    The description without what only the report reads, the raw files' names, sizes and times, what
    tells that a database changed, and the code that makes them.
    """
    sources = [source for table in EVERY if (source := getattr(made, table))]
    sources += [source.join for source in sources if source.join]
    files = sorted({path for source in sources for path in raw_files(source, made)})
    stamps = [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    return {
        "spec": made.model_dump(mode="json", exclude={"worth", "guardrails"}),
        "files": stamps,
        "databases": databases.stamps(sources, made),
        "code": digest(*MAKERS),
    }


@explained()
def build(made: Spec, folder: Path, wanted: dict) -> None:
    """Write every table of a data set and then its manifest, which makes them valid.

    Raw files are read, and the SQL of a TOML is run, by DuckDB in this process; the rows that come
    of it are cleaned and put together on the engine that `connect` opens.
    """
    (folder / "manifest.json").unlink(missing_ok=True)
    for old in folder.glob("*.parquet"):
        old.unlink()
    notes: list[str] = []
    readings: list[list[str]] = []
    dropped: list[str] = []
    raw: list[dict] = []
    if made.synthetic:
        synthetic.write(folder, made.lines, seed=42)
        audit = _synthetic_audit(folder)
    else:
        con = connect()
        cleaned, selected = _clean(con, made, notes)
        readings = _readings(selected)
        audit = _purchases(con, made, cleaned, selected.raw, folder, notes)
        for table in KEYS:
            dropped += _attributes(con, made, table, cleaned, folder, notes)
        notes += doubts.told_no_products(con, folder, selected)
        for table in ("events", "stock"):
            if getattr(made, table):
                audit += _plain(con, made, table, folder, notes)
        for table in OPTIONAL:
            if getattr(made, table):
                audit += _optional(reader(con), made, table, folder, notes)
        notes += _told_reading(selected, readings)
        raw = [
            {"file": Path(f).name, "sha256": digest(Path(f)), "bytes": size}
            for f, size, _ in wanted["files"]
        ] + wanted["databases"]
    write_json(
        {
            "audit": audit,
            "notes": notes,
            "readings": readings,
            "personal_columns_dropped": dropped,
            "raw": raw,
            "summary": summary(folder),
            "tables": {p.stem: digest(p) for p in sorted(folder.glob("*.parquet"))},
            "fingerprint": wanted,
        },
        folder / "manifest.json",
    )


def summary(folder: Path) -> dict:
    """Lines, users, items, baskets, money and dates of the purchases, computed by the engine."""
    t = connect().read_parquet(str(folder / "purchases.parquet"))
    money = (t.quantity * t.price).sum().round(2) if "price" in t.columns else ibis.null("float64")
    found = t.agg(
        lines=t.count(),
        users=t.user_id.nunique(),
        items=t.item_id.nunique(),
        baskets=t.basket_id.nunique(),
        money=money,
        first=t.ts.min(),
        last=t.ts.max(),
    )
    kinds = {"money": float, "first": str, "last": str}
    row = found.to_pandas().iloc[0]
    return {k: None if pd.isna(v) else kinds.get(k, int)(v) for k, v in row.items()}


def _clean(con: ibis.BaseBackend, made: Spec, notes: list[str]) -> tuple[Table, Selected]:
    """All receipt rows with canonical types and `rejected`, and the rows as they were selected.

    The first also hold the attributes that items and users take from receipts. Remarks for the
    reader are added to `notes`.
    """
    source = made.purchases
    riders = {
        f"{table}__{name}": value
        for table in KEYS
        if (own := getattr(made, table)) and not own.has_place
        for name, value in _public(own, table).items()
        if name != KEYS[table]
    }
    source = source.model_copy(update={"columns": source.columns | riders})
    raw = read_raw(reader(con), source, made)
    selected = select(raw, source, "purchases")
    typed = move(cleaning.typed(selected), con)
    rows = keep(cleaning.with_rules(typed, source))
    notes += cleaning.check_outside(rows, selected)
    notes += cleaning.merged_ids(selected)
    notes += cleaning.told_numbers(selected)
    notes += cleaning.told_zone(selected)
    notes += cleaning.told_copies(selected)
    if "ts" in source.columns:
        end, sentence = cleaning.end_of_trading(rows.filter(rows.rejected.isnull()))
        if end is not None:
            is_late = rows.rejected.isnull() & (rows.ts >= end.to_pydatetime())
            late = ibis.ifelse(is_late, "after the end of trading", rows.rejected)
            rows = keep(rows.mutate(rejected=late))
            notes.append(sentence)
    if "basket_id" in source.columns:
        rows, sentence = cleaning.with_own_baskets(rows)
        if sentence:
            notes.append(sentence)
    notes += _doubts(rows, selected, made)
    return rows, selected


def _doubts(rows: Table, selected: Selected, made: Spec) -> list[str]:
    """What a person should look at in the rows, which have `rejected`."""
    kept = rows.filter(rows.rejected.isnull())
    told = doubts.told_heavy_line(kept, selected, made.currency)
    told += doubts.told_case(kept, selected)
    sentence = cleaning.heavy_shopper(kept, made.purchases.columns["user_id"])
    told += [sentence] if sentence else []
    return told + doubts.told_returns(rows, made.currency)


def _readings(selected: Selected) -> list[list[str]]:
    """Texts of the earliest, the latest and the first row's date, and how each is read."""
    t = selected.table
    if "ts" not in t.columns or not t.ts.type().is_string():
        return []
    times = as_times(t.ts, selected.source.ts_format, selected.reading)
    seen = t.select(text=t.ts, ts=times).filter(lambda s: s.ts.notnull())
    ends = seen.agg(
        first=seen.text.argmin(seen.ts), last=seen.text.argmax(seen.ts), some=seen.text.max()
    )
    texts = list(dict.fromkeys(ends.to_pandas().iloc[0].dropna()))
    read = seen.filter(seen.text.isin(texts)).distinct().order_by("ts", "text").to_pandas()
    return [[row.text, f"{row.ts:%-d %B %Y %H:%M}"] for row in read.itertuples()]


def _told_reading(selected: Selected, readings: list[list[str]]) -> list[str]:
    """How dates that do not begin with the year were read, in a sentence."""
    if not (selected.reading and selected.reading.formats and readings):
        return []
    formats = " or ".join(selected.reading.formats)
    return [
        f"Dates such as '{selected.reading.example}' are read as {formats}, from"
        f" {readings[0][1]} to {readings[-1][1]}."
    ]


def _purchases(
    con: ibis.BaseBackend, made: Spec, cleaned: Table, raw: Raw, folder: Path, notes: list[str]
) -> list[dict]:
    """Write the purchases, one line per (user, item, basket), without the rejected lines.

    Returns the audit: what each rule rejects.
    """
    audit = cleaning.audit(cleaned)
    if audit[-1]["rows"] == 0:
        worst = max(audit[:-1], key=lambda row: row["rows"])
        raise LabError(
            f"every row of {raw.name} was rejected, most by '{worst['rule']}': check [purchases] of"
            f" '{made.name}'"
        )
    merged = cleaning.merge(cleaned.filter(cleaned.rejected.isnull()), made)
    path = folder / "purchases.parquet"
    write(merged, path, ("ts", "basket_id", "user_id", "item_id"))
    kept = audit[-1]["money"]
    row, told = cleaning.merged_audit(con.read_parquet(str(path)), kept, made.currency)
    notes += told
    return [*audit, row]


def _public(source: Source, table: str) -> dict[str, str]:
    """Mapped columns without those that name a person."""
    return {
        c: v
        for c, v in source.columns.items()
        if table != "users" or not (_personal(c) or _personal(v))
    }


def _personal(name: str) -> bool:
    return bool(PERSONAL.search(re.sub(r"[\W_]+", "_", name.strip()).lower()))


def _attributes(
    con: ibis.BaseBackend, made: Spec, table: str, cleaned: Table, folder: Path, notes: list[str]
) -> list[str]:
    """Write items, users or stores: one row per id, the first-seen value of each attribute.

    In a table of their own the first row of an id counts, where its rows contradict one another.
    Return personal columns dropped.

    First seen, not most frequent: a later row then never changes what a model fitted before it has
    seen.
    """
    source = getattr(made, table)
    key = KEYS[table]
    columns = _public(source, table) if source else {}
    attributes = [c for c in columns if c != key]
    if table == "stores" and (not source or key not in cleaned.columns):
        if source:
            raise LabError(
                f"[stores] of '{made.name}' has nothing to join on: map store_id in"
                " [purchases.columns]"
            )
        return []
    ids = con.read_parquet(str(folder / "purchases.parquet")).select(key).distinct()
    if source and source.has_place:
        rows, raw = _own_rows(con, made, source, table, columns)
        notes += _meeting(ids, rows, key, raw, table)
    else:
        rows = cleaned.filter(cleaned.rejected.isnull()).select(
            key, "ts", **{c: cleaned[f"{table}__{c}"] for c in attributes}
        )
    if table in ("items", "users") and source and source.has_place:
        # The shop's own list: what nobody bought is on sale, and who bought nothing is a client.
        ids = ids.union(rows.filter(rows[key].notnull()).select(key), distinct=True)
    if source and source.has_place:
        rows, told = _one_row_each(rows, key, f"{raw.paths[0].name} ([{table}])")
        notes += told
    for column in attributes:
        ids = ids.left_join(_first_seen(rows, key, column), key).drop(f"{key}_right")
    write(ids, folder / f"{table}.parquet", (key,))
    return sorted(source.columns.keys() - columns.keys()) if source else []


def _meeting(sold: Table, rows: Table, key: str, raw: Raw, table: str) -> list[str]:
    """How many ids of the receipts a table has, in a sentence; LabError if it has none.

    sold: the distinct ids of the receipts. rows: of the table, from `raw`.
    """
    listed = keep(rows.select(key).filter(rows[key].notnull()).distinct())
    n = count(sold)
    met = count(sold.semi_join(listed, key))
    by_case = 0
    if met < n:
        apart = keep(sold.anti_join(listed, key))
        low = listed.select(low=listed[key].lower())
        by_case = count(apart.select(low=apart[key].lower()).semi_join(low, "low"))
    lower = f'map {key} = "lower(<column>)" in both tables'
    if met:
        share = f"{100 * met // n}%" if met < n else "all"
        more = f", and {by_case:,} more in other case: {lower}" * bool(by_case)
        where = f"{raw.paths[0].name} ([{table}])"
        return [f"{where} has {share} of the {n:,} {key}s of the receipts{more}."]
    example = sold.order_by(key).limit(1).to_pandas()[key][0]
    other = listed.order_by(key).limit(1).to_pandas()[key]
    bare = listed.select(bare=listed[key].re_replace("^0+", ""))
    by_zeros = sold.select(bare=sold[key].re_replace("^0+", "")).semi_join(bare, "bare")
    cure = "map the column that holds the receipts' ids"
    if by_case:
        cure = f"case differs, so {lower}"
    elif count(by_zeros):
        cure = f"leading zeros differ, so map {key} = \"ltrim(<column>, '0')\" in both tables"
    raise LabError(
        f"{raw.name} ([{table}]) has no {key} of the receipts: they have '{example}', it has"
        f" '{other[0] if len(other) else ''}'; {cure}"
    )


def _own_rows(
    con: ibis.BaseBackend, made: Spec, source: Source, table: str, columns: dict[str, str]
) -> tuple[Table, Raw]:
    """Rows of the table's own file, whose order takes the place of time; and the raw rows."""
    raw = read_raw(reader(con), source, made)
    t = select(raw, source.model_copy(update={"columns": columns}), table).table
    t = t.filter(t.rejected.isnull())
    order = ibis.row_number().over(order_by=[FILE, ROW])
    return move(t.mutate(ts=order, **text_ids(t)).drop(ROW, FILE), con), raw


def _one_row_each(t: Table, key: str, where: str) -> tuple[Table, list[str]]:
    """Rows that say something, without those that contradict an earlier one of the same id.

    And a sentence on these. Values of one row are never mixed with those of another that says
    something else. t: rows of a table's own file, whose order is ts.
    """
    attributes = [name for name in t.columns if name not in (key, "ts", "rejected")]
    if not attributes:
        return t, []
    says_something = ibis.or_(*(t[name].notnull() for name in attributes))
    t = keep(t.filter(t[key].notnull(), says_something))
    values = t.group_by(key).agg(**{name: t[name].nunique() for name in attributes})
    several = keep(values.filter(ibis.or_(*(values[name] > 1 for name in attributes))))
    numbers = {name: (several[name] > 1).sum() for name in attributes}
    found = several.agg(ids=several.count(), **numbers).to_pandas().iloc[0]
    n = int(found["ids"])
    if not n:
        return t, []
    column = max(attributes, key=lambda name: found[name])
    example = several.filter(several[column] > 1).order_by(key).limit(1).to_pandas()[key][0]
    said = t.filter(t[key] == example, t[column].notnull()).order_by("ts").to_pandas()[column]
    first, second = said.astype("string").drop_duplicates().head(2)
    firsts = t.semi_join(several, key).group_by(key).agg(ts=lambda rows: rows.ts.min())
    rows = t.anti_join(several, key).union(t.semi_join(firsts, [key, "ts"]))
    ids = f"1 {key}" if n == 1 else f"{n:,} {key}s"
    return rows, [
        f"{where} has {ids} more than once with different values, such as {column} of '{example}':"
        f" '{first}' and '{second}'. The first row counts: take the others out of the file."
    ]


def _first_seen(t: Table, key: str, column: str) -> Table:
    """(key, column): the earliest value that is not empty; of several at once the smallest."""
    seen = (
        t.filter(t[column].notnull(), t[key].notnull()).group_by(key, column).agg(first=t.ts.min())
    )
    nth = ibis.row_number().over(group_by=key, order_by=["first", column])
    return seen.mutate(nth=nth).filter(lambda s: s.nth == 0).select(key, column)


def _plain(
    con: ibis.BaseBackend, made: Spec, table: str, folder: Path, notes: list[str]
) -> list[dict]:
    """Write events or stock as they are, after checking types and event names."""
    source = getattr(made, table)
    selected = select(read_raw(reader(con), source, made), source, table)
    t = move(cleaning.with_types(selected), con)
    if table == "events":
        t = _checked_events(t, selected)
    t = keep(t)
    rejected = t.group_by("rejected").agg(rows=lambda rows: rows.count()).to_pandas()
    rejected = rejected.dropna().sort_values(["rows", "rejected"], ascending=[False, True])
    t = t.filter(t.rejected.isnull())
    total = count(t)
    t = t.drop("rejected", ROW, FILE).drop_null()
    items = con.read_parquet(str(folder / "items.parquet")).select("item_id")
    if source.has_place:
        notes += _meeting(items, t, "item_id", selected.raw, table)
    order = ("ts", "event_id") if table == "events" else ("item_id", "country")
    write(t, folder / f"{table}.parquet", order)
    kept = count(t)
    gaps = [("a value missing", total - kept)] if kept < total else []
    broken = list(rejected.itertuples(index=False, name=None))
    return _audit(table, [*broken, *gaps, ("kept", kept)])


def _checked_events(t: Table, selected: Selected) -> Table:
    """Events with known types and an id each."""
    t = t.mutate(event_type=t.event_type.cast("string"))
    kinds = t.filter(t.event_type.notin(EVENT_TYPES)).event_type.first().to_pandas()
    if isinstance(kinds, str):
        raise LabError(
            f"{selected.raw.name}: event_type '{kinds}' is unknown, it takes"
            f" {', '.join(EVENT_TYPES)}"
        )
    if "event_id" in t.columns:
        return t
    order = ["ts", "user_id", "item_id", "event_type"]
    return t.mutate(event_id=ibis.row_number().over(order_by=order).cast("string"))


def _audit(table: str, counts: list[tuple[str, int]]) -> list[dict]:
    """Rows by rule, of a table without money."""
    return [{"table": table, "rule": why, "rows": int(n), "money": None} for why, n in counts]


def _optional(
    con: ibis.BaseBackend, made: Spec, table: str, folder: Path, notes: list[str]
) -> list[dict]:
    """Write an optional table in the order of its files, without ever holding it in memory.

    con: DuckDB, since a server does not keep an order.
    """
    source = getattr(made, table)
    selected = select(read_raw(con, source, made), source, table)
    t = selected.table
    times = {name: _time(selected, name) for name in TIMES if name in t.columns}
    cleaning.complain(selected, times)
    texts = {name: t[name].cast("string") for name in TEXTS if name in t.columns}
    t = t.mutate(**text_ids(t), **texts, **times)
    is_whole = ibis.and_(*(t[name].notnull() for name in REQUIRED[table]))
    rule = ibis.coalesce(t.rejected, ibis.ifelse(is_whole, ibis.null("string"), "a value missing"))
    path = folder / f"{table}.parquet"
    with atomic(path) as temporary, in_order(con):
        t.filter(rule.isnull()).select(*source.columns).to_parquet(str(temporary))
    sold = con.read_parquet(str(folder / "purchases.parquet"))
    rows = con.read_parquet(str(path))
    for key in ("item_id", "user_id", "store_id"):
        if key in source.columns and key in sold.columns:
            notes += _meeting(sold.select(key).distinct(), rows, key, selected.raw, table)
    counts = [("kept", count(rows))]
    if counts[0][1] < count(t):
        left_out = t.filter(rule.notnull()).group_by(rule=rule).agg(rows=lambda r: r.count())
        told = left_out.order_by("rule").to_pandas()
        counts = [*told.itertuples(index=False, name=None), *counts]
    return _audit(table, counts)


def _time(selected: Selected, name: str) -> Column:
    """A column of times; LabError where numbers stand for them and the TOML does not say how."""
    column = selected.table[name]
    form = selected.source.ts_format
    where = f"{selected.raw.name}: {selected.column(name)}"
    if column.type().is_numeric() and not form:
        raise LabError(
            f"{where} is a number: map it to a date, a week to the day on which it begins, such as"
            " \"DATE '2024-01-01' + CAST(7 * (week - 1) AS INTEGER)\", or set ts_format"
        )
    is_text = column.type().is_string() and not form
    reading = find_reading(selected.table, name, where) if is_text else None
    return as_times(column, form, reading)


def _synthetic_audit(folder: Path) -> list[dict]:
    result = summary(folder)
    return [
        {
            "table": "purchases",
            "rule": "generated",
            "rows": result["lines"],
            "money": result["money"],
        }
    ]
