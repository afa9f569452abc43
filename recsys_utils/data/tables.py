"""Canonical tables: cleaned once, counted rule by rule in rows and money, written as parquet."""

import re
from dataclasses import dataclass
from pathlib import Path

import ibis
import pandas as pd
from ibis.expr.types import Table

from recsys_utils import LabError
from recsys_utils.data import databases, synthetic
from recsys_utils.data.engine import connect
from recsys_utils.data.readers import raw_files, read_raw, select
from recsys_utils.data.registry import EVENT_TYPES, Source, Spec, spec
from recsys_utils.store import atomic, data_dir, digest, read_json, read_parquet, write_json

TABLES = ("purchases", "items", "users", "events", "stock", "stores")
PERSONAL = re.compile(
    r"^name$|(^|_)((first|last|full|sur|user|customer|client|shopper)_?name|e?_?mail|(tele)?phone|mobile|\w*address|street)($|_)"
)
KEYS = {"items": "item_id", "users": "user_id", "stores": "store_id"}
READING = ("readers", "databases", "drivers", "downloads", "urls")
MAKERS = [
    Path(__file__).with_name(f"{name}.py")
    for name in (*READING, "registry", "tables", "synthetic", "synthetic_words")
]
MICROSECONDS = "timestamp(6)"


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

    @property
    def audit(self) -> pd.DataFrame:
        """What cleaning kept and rejected: rule, rows, money."""
        return pd.DataFrame(self.manifest["audit"], columns=["table", "rule", "rows", "money"])


def load(dataset: str) -> Tables:
    """Read the canonical tables, after building them where the raw files or their description
    changed.
    """
    result = spec(dataset)
    folder = data_dir(result.name, "tables")
    wanted = fingerprint(result)
    current = folder / "manifest.json"
    if not current.exists() or read_json(current).get("fingerprint") != wanted:
        build(result, folder, wanted)
    frames = {
        t: (
            read_parquet(folder / f"{t}.parquet")
            if (folder / f"{t}.parquet").exists()
            else pd.DataFrame()
        )
        for t in TABLES
    }
    return Tables(result, read_json(current), **frames)


def fingerprint(made: Spec) -> dict:
    """What the tables depend on.

    The description, the raw files' names, sizes and times, what tells that a database changed, and
    the code that makes them.
    """
    sources = [s for s in (getattr(made, t) for t in TABLES) if s]
    files = sorted({path for source in sources for path in raw_files(source, made)})
    stamps = [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    return {
        "spec": made.model_dump(mode="json"),
        "files": stamps,
        "databases": databases.stamps(sources, made),
        "code": digest(*MAKERS),
    }


def build(made: Spec, folder: Path, wanted: dict) -> None:
    """Write every table of a data set and then its manifest, which makes them valid."""
    (folder / "manifest.json").unlink(missing_ok=True)
    for old in folder.glob("*.parquet"):
        old.unlink()
    if made.synthetic:
        synthetic.write(folder, made.lines, seed=42)
        audit = _synthetic_audit(folder)
        dropped = []
        raw = []
    else:
        con = connect()
        cleaned, path = _clean(con, made)
        audit = _purchases(con, made, cleaned, path, folder)
        dropped = [d for table in KEYS for d in _attributes(con, made, table, cleaned, folder)]
        for table in ("events", "stock"):
            audit += _plain(con, made, table, folder) if getattr(made, table) else []
        raw = [
            {"file": Path(f).name, "sha256": digest(Path(f)), "bytes": size}
            for f, size, _ in wanted["files"]
        ] + wanted["databases"]
    write_json(
        {
            "audit": audit,
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
    row = (
        t.agg(
            lines=t.count(),
            users=t.user_id.nunique(),
            items=t.item_id.nunique(),
            baskets=t.basket_id.nunique(),
            money=money,
            first=t.ts.min(),
            last=t.ts.max(),
        )
        .to_pandas()
        .iloc[0]
    )
    return {
        k: (
            None
            if pd.isna(v)
            else str(v)
            if isinstance(v, pd.Timestamp)
            else float(v)
            if k == "money"
            else int(v)
        )
        for k, v in row.items()
    }


def _clean(con: ibis.BaseBackend, made: Spec) -> tuple[Table, Path]:
    """All receipt rows with canonical types, `rejected`, and the attributes that items and users
    take from them.
    """
    source = made.purchases
    riders = {
        f"{table}__{c}": v
        for table in KEYS
        if (s := getattr(made, table)) and not s.has_place
        for c, v in _public(s, table).items()
        if c != KEYS[table]
    }
    source = source.model_copy(update={"columns": source.columns | riders})
    raw, path = read_raw(con, source, made)
    typed = _typed(select(raw, source, "purchases", path), source, path)
    return con.create_table("cleaned", _with_rules(typed, source), temp=True), path


def _purchases(
    con: ibis.BaseBackend, made: Spec, cleaned: Table, path: Path, folder: Path
) -> list[dict]:
    """Count what the rules reject, merge the rest to one line per (user, item, basket), write.

    Return the audit.
    """
    audit = _audit(cleaned)
    if audit[-1]["rows"] == 0:
        worst = max(audit[:-1], key=lambda row: row["rows"])
        raise LabError(
            f"every row of {path} was rejected, most by '{worst['rule']}': check [purchases] of"
            f" '{made.name}'"
        )
    _write(
        _merge(cleaned.filter(cleaned.rejected.isnull())),
        folder / "purchases.parquet",
        ("ts", "basket_id", "user_id", "item_id"),
    )
    lines = con.read_parquet(str(folder / "purchases.parquet")).count().to_pandas()
    return audit + [
        {
            "table": "purchases",
            "rule": "kept, merged to one line per user, item and basket",
            "rows": int(lines),
            "money": audit[-1]["money"],
        }
    ]


def _typed(t: Table, source: Source, path: Path) -> Table:
    """Canonical types; a value that cannot become a date or a number is an error that names its
    row.
    """
    numbers = [c for c in ("quantity", "price", "discount", "rating", "order") if c in t.columns]
    result = {c: _text(t[c]) for c in t.columns if c.endswith("_id")} | {
        c: t[c].try_cast("float64") for c in numbers
    }
    if "ts" in t.columns:
        result["ts"] = _time(t.ts, source.ts_format)
    _complain(t, {c: result[c] for c in result if not c.endswith("_id")}, source, path)
    t = t.mutate(**result)
    if "order" in t.columns and (most := t.order.abs().max().to_pandas()) > 1e6:
        raise LabError(
            f"{path}: order ({source.columns['order']}) goes up to {most:.0f}: number each"
            " shopper's baskets 1, 2, 3, …"
        )
    if (
        "order" in t.columns
    ):  # no dates: the n-th basket stands on the n-th day of a made-up calendar
        t = t.mutate(
            ts=ibis.timestamp("2000-01-01 00:00:00") + t.order.cast("int64").as_interval("D")
        ).drop("order")
    if source.ts_format == "unix" and (last := t.ts.max().to_pandas()) > pd.Timestamp("2200-01-01"):
        raise LabError(
            f"{path}: ts ({source.columns['ts']}) reaches the year {last.year} when read as"
            ' seconds: set ts_format = "unix_ms"'
        )
    defaults = {"quantity": ibis.literal(1.0)} if "quantity" not in t.columns else {}
    if "basket_id" not in t.columns:
        defaults["basket_id"] = t.user_id + "@" + t.ts.cast("date").cast("string")
    return t.mutate(ts=t.ts.cast(MICROSECONDS), **defaults)


def _text(column: ibis.expr.types.Column) -> ibis.expr.types.Column:
    """An id as text, without the '.0' that a spreadsheet's numbers bring; empty is null."""
    whole = (
        column.cast("int64").cast("string")
        if column.type().is_floating()
        else column.cast("string")
    )
    return whole.strip().re_replace(r"^(\d+)\.0$", r"\1").nullif("")


def _time(column: ibis.expr.types.Column, form: str | None) -> ibis.expr.types.Column:
    if form in ("unix", "unix_ms"):
        seconds = column.try_cast("float64") / (1000 if form == "unix_ms" else 1)
        return seconds.cast("int64").as_timestamp("s").cast(MICROSECONDS)
    if form:
        return column.cast("string").as_timestamp(form)
    return column.try_cast(MICROSECONDS)


def _complain(
    t: Table, casts: dict[str, ibis.expr.types.Column], source: Source, path: Path
) -> None:
    """Raise where a value is present and its cast is not.

    One pass over all columns, a second only to find the row.
    """
    lost = {
        c: t[c].notnull() & (t[c].cast("string").strip() != "") & cast.isnull()
        for c, cast in casts.items()
    }
    try:
        counts = (
            t.agg(**{c: bad.sum() for c, bad in lost.items()}).to_pandas().iloc[0].fillna(0)
            if lost
            else {}
        )
    except Exception as error:  # a pattern that does not fit is an error of the engine, not a null
        why = str(error).splitlines()[0]
        raise LabError(
            f"{path}: {source.columns.get('ts')} does not fit ts_format '{source.ts_format}': {why}"
        ) from error
    for column, n in counts.items():
        if n:
            first = (
                t.mutate(__row=ibis.row_number() + 1)
                .filter(lost[column])
                .order_by("__row")
                .limit(1)
                .to_pandas()
                .iloc[0]
            )
            kind = (
                "a date: set ts_format"
                if column == "ts"
                else "a number: correct the file or the mapping"
            )
            raise LabError(
                f"{path}, row {first['__row']}: {source.columns[column]} '{first[column]}' is not"
                f" {kind} ({int(n):,} such rows)"
            )


def _with_rules(t: Table, source: Source) -> Table:
    """Add the built-in rules after the data set's own.

    `rejected` is the first rule that a row breaks.
    """
    rules = [
        (t.user_id.isnull(), "no customer"),
        (t.item_id.isnull(), "no item"),
        (t.ts.isnull(), "no date"),
        (t.basket_id.isnull(), "no basket"),
        (_odd(t.quantity) | (t.quantity <= 0), "quantity not above 0"),
    ]
    if "price" in t.columns:
        zero = [(t.price == 0, "price of 0")] if source.zero_price == "reject" else []
        rules += [(_odd(t.price) | (t.price < 0), "price missing or below 0"), *zero]
    first = ibis.cases(*rules, else_=ibis.null("string"))
    return t.mutate(rejected=ibis.coalesce(t.rejected, first))


def _odd(number: ibis.expr.types.Column) -> ibis.expr.types.Column:
    return number.isnull() | number.isnan() | number.isinf()


def _audit(t: Table) -> list[dict]:
    """Rows and money per rule, most rows first, then what was kept."""
    money = (t.quantity * t.price).sum() if "price" in t.columns else ibis.null("float64")
    counts = t.group_by("rejected").agg(rows=t.count(), money=money).to_pandas()
    counts = counts.assign(kept=counts["rejected"].isna()).sort_values(
        ["kept", "rows"], ascending=[True, False]
    )
    rows = [
        {
            "table": "purchases",
            "rule": "kept" if r.kept else r.rejected,
            "rows": int(r.rows),
            "money": None if pd.isna(r.money) else round(float(r.money), 2),
        }
        for r in counts.itertuples()
    ]
    return (
        rows
        if rows and rows[-1]["rule"] == "kept"
        else rows + [{"table": "purchases", "rule": "kept", "rows": 0, "money": 0}]
    )


def _merge(t: Table) -> Table:
    """One line per (user, item, basket).

    Quantities add up, the price is their money divided by them.
    """
    measures = {"ts": t.ts.min(), "quantity": t.quantity.sum()}
    if (
        "price" in t.columns
    ):  # rounded: a parallel sum of floats differs in its last bits from run to run
        measures["price"] = ((t.quantity * t.price).sum() / t.quantity.sum()).round(4)
    measures |= {c: t[c].mean().round(4) for c in ("discount", "rating") if c in t.columns}
    measures |= {c: t[c].min() for c in ("store_id",) if c in t.columns}
    return t.group_by("user_id", "item_id", "basket_id").agg(**measures)


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
    con: ibis.BaseBackend, made: Spec, table: str, cleaned: Table, folder: Path
) -> list[str]:
    """Write items, users or stores: one row per id, the first-seen value of each attribute.

    Return personal columns dropped.

    First seen, not most frequent: a later row then never changes what a model fitted before it has
    seen.
    """
    source = getattr(made, table)
    key = KEYS[table]
    columns = _public(source, table) if source else {}
    if table == "stores" and (not source or key not in cleaned.columns):
        if source:
            raise LabError(
                f"[stores] of '{made.name}' has nothing to join on: map store_id in"
                " [purchases.columns]"
            )
        return []
    if source and source.has_place:
        rows = _own_rows(con, made, source, table, columns)
    else:
        rows = cleaned.filter(cleaned.rejected.isnull()).select(
            key, "ts", **{c: cleaned[f"{table}__{c}"] for c in columns if c != key}
        )
    ids = con.read_parquet(str(folder / "purchases.parquet")).select(key).distinct()
    if (
        table == "items" and source and source.has_place
    ):  # the shop's own list: what nobody bought yet is on sale too
        ids = ids.union(rows.filter(rows[key].notnull()).select(key), distinct=True)
    for column in (c for c in columns if c != key):
        ids = ids.left_join(_first_seen(rows, key, column), key).drop(f"{key}_right")
    _write(ids, folder / f"{table}.parquet", (key,))
    return sorted(source.columns.keys() - columns.keys()) if source else []


def _own_rows(
    con: ibis.BaseBackend, made: Spec, source: Source, table: str, columns: dict[str, str]
) -> Table:
    """Rows of the table's own file; their order in it takes the place of time."""
    raw, path = read_raw(con, source, made)
    t = select(raw, source.model_copy(update={"columns": columns}), table, path)
    return t.mutate(ts=ibis.row_number(), **{c: _text(t[c]) for c in columns if c.endswith("_id")})


def _first_seen(t: Table, key: str, column: str) -> Table:
    """(key, column): the earliest value that is not empty; of several at once the smallest."""
    seen = (
        t.filter(t[column].notnull(), t[key].notnull()).group_by(key, column).agg(first=t.ts.min())
    )
    nth = ibis.row_number().over(group_by=key, order_by=["first", column])
    return seen.mutate(nth=nth).filter(lambda s: s.nth == 0).select(key, column)


def _plain(con: ibis.BaseBackend, made: Spec, table: str, folder: Path) -> list[dict]:
    """Write events or stock as they are, after checking types and event names."""
    source = getattr(made, table)
    raw, path = read_raw(con, source, made)
    t = _typed_plain(select(raw, source, table, path), source, path)
    if table == "events":
        t = t.mutate(event_type=t.event_type.cast("string"))
        kinds = t.filter(t.event_type.notin(EVENT_TYPES)).event_type.first().to_pandas()
        if isinstance(kinds, str):
            raise LabError(
                f"{path}: event_type '{kinds}' is unknown, it takes {', '.join(EVENT_TYPES)}"
            )
        if "event_id" not in t.columns:
            t = t.mutate(
                event_id=ibis.row_number()
                .over(order_by=["ts", "user_id", "item_id", "event_type"])
                .cast("string")
            )
    total = int(t.count().to_pandas())
    t = t.drop("rejected").drop_null()
    _write(
        t,
        folder / f"{table}.parquet",
        ("ts", "event_id") if table == "events" else ("item_id", "country"),
    )
    kept = int(t.count().to_pandas())
    gaps = (
        [{"table": table, "rule": "a value missing", "rows": total - kept, "money": None}]
        if kept < total
        else []
    )
    return gaps + [{"table": table, "rule": "kept", "rows": kept, "money": None}]


def _typed_plain(t: Table, source: Source, path: Path) -> Table:
    result = {c: _text(t[c]) for c in t.columns if c.endswith("_id")}
    checked = (
        {"ts": _time(t.ts, source.ts_format)}
        if "ts" in t.columns
        else {"quantity": t.quantity.try_cast("float64")}
    )
    _complain(t, checked, source, path)
    return t.mutate(**result, **checked)


def _write(t: Table, path: Path, order: tuple[str, ...]) -> None:
    with atomic(path) as temporary:
        t.order_by(*order).to_parquet(str(temporary))


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
