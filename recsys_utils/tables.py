"""Canonical tables: cleaned once, counted rule by rule in rows and money, written as parquet."""

import re
from dataclasses import dataclass
from pathlib import Path

import ibis
import pandas as pd
from ibis.expr.types import Table

from . import LabError, synthetic
from .datasets import EVENT_TYPES, Source, Spec, raw_files, read_raw, select, spec
from .engine import connect
from .store import atomic, data_dir, digest, read_json, read_parquet, write_json

TABLES = ("purchases", "items", "users", "events", "stock")
PERSONAL = re.compile(r"(^|_)(((first|last|full|sur|user)_?)?name|e?_?mail|phone|mobile|address|street)($|_)")
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

    @property
    def audit(self) -> pd.DataFrame:
        """What cleaning kept and rejected: rule, rows, money."""
        return pd.DataFrame(self.manifest["audit"], columns=["table", "rule", "rows", "money"])


def load(dataset: str) -> Tables:
    """Read the canonical tables, after building them where the raw files or their description changed."""
    made = spec(dataset)
    folder = data_dir(made.name, "tables")
    wanted = fingerprint(made)
    current = folder / "manifest.json"
    if not current.exists() or read_json(current).get("fingerprint") != wanted:
        build(made, folder, wanted)
    frames = {t: read_parquet(folder / f"{t}.parquet") if (folder / f"{t}.parquet").exists() else pd.DataFrame() for t in TABLES}
    return Tables(made, read_json(current), **frames)


def fingerprint(made: Spec) -> dict:
    """What the tables depend on: the description and the raw files' names, sizes and times."""
    sources = [s for s in (getattr(made, t) for t in TABLES) if s]
    files = sorted({path for source in sources for path in raw_files(source, made)})
    stamps = [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    return {"spec": made.model_dump(mode="json"), "files": stamps}


def build(made: Spec, folder: Path, wanted: dict) -> None:
    """Write every table of a data set and then its manifest, which makes them valid."""
    (folder / "manifest.json").unlink(missing_ok=True)
    for old in folder.glob("*.parquet"):
        old.unlink()
    if made.synthetic:
        synthetic.write(folder, made.lines, seed=42)
        audit, dropped, raw = _synthetic_audit(folder), [], []
    else:
        con = connect()
        audit = _purchases(con, made, folder)
        dropped = [d for table in ("items", "users") for d in _attributes(con, made, table, folder)]
        for table in ("events", "stock"):
            audit += _plain(con, made, table, folder) if getattr(made, table) else []
        raw = [{"file": Path(f).name, "sha256": digest(Path(f)), "bytes": size} for f, size, _ in wanted["files"]]
    write_json({"audit": audit, "personal_columns_dropped": dropped, "raw": raw, "summary": summary(folder),
                "tables": {p.stem: digest(p) for p in sorted(folder.glob("*.parquet"))}, "fingerprint": wanted},
               folder / "manifest.json")


def summary(folder: Path) -> dict:
    """Lines, users, items, baskets, money and dates of the purchases table, computed by the engine."""
    t = connect().read_parquet(str(folder / "purchases.parquet"))
    money = (t.quantity * t.price).sum().round(2) if "price" in t.columns else ibis.null("float64")
    row = t.agg(lines=t.count(), users=t.user_id.nunique(), items=t.item_id.nunique(), baskets=t.basket_id.nunique(),
                money=money, first=t.ts.min(), last=t.ts.max()).to_pandas().iloc[0]
    return {k: (None if pd.isna(v) else str(v) if isinstance(v, pd.Timestamp) else float(v) if k == "money" else int(v))
            for k, v in row.items()}


def _purchases(con: ibis.BaseBackend, made: Spec, folder: Path) -> list[dict]:
    """Clean, count, merge to one line per (user, item, basket), write; return the audit."""
    source = made.purchases
    raw, path = read_raw(con, source, made)
    t = _typed(select(raw, source, "purchases", path), source, path)
    t = con.create_table("cleaned", _with_rules(t, source), temp=True, overwrite=True)
    audit = _audit(t)
    kept = t.filter(t.rejected.isnull())
    if audit[-1]["rows"] == 0:
        worst = max(audit[:-1], key=lambda row: row["rows"], default={"rule": "an empty file"})
        raise LabError(f"every row of {path} was rejected, most by '{worst['rule']}': check [purchases] of '{made.name}'")
    merged = _merge(kept)
    _write(merged, folder / "purchases.parquet", ("ts", "basket_id", "user_id", "item_id"))
    lines = con.read_parquet(str(folder / "purchases.parquet")).count().to_pandas()
    return audit + [{"table": "purchases", "rule": "kept, merged to one line per user, item and basket", "rows": int(lines),
                     "money": audit[-1]["money"]}]


def _typed(t: Table, source: Source, path: Path) -> Table:
    """Canonical types; a value that cannot become a date or a number is an error that names its row."""
    numbers = [c for c in ("quantity", "price", "discount", "rating", "order") if c in t.columns]
    made = {c: _text(t[c]) for c in t.columns if c.endswith("_id")} | {c: t[c].try_cast("float64") for c in numbers}
    if "ts" in t.columns:
        made["ts"] = _time(t.ts, source.ts_format)
    for column in made.keys() - {c for c in t.columns if c.endswith("_id")}:
        _complain(t, made[column], column, source, path)
    t = t.mutate(**made)
    if "order" in t.columns:        # no dates: the n-th basket stands on the n-th day of a made-up calendar
        t = t.mutate(ts=ibis.timestamp("2000-01-01 00:00:00") + t.order.cast("int64").as_interval("D")).drop("order")
    defaults = {"quantity": ibis.literal(1.0)} if "quantity" not in t.columns else {}
    if "basket_id" not in t.columns:
        defaults["basket_id"] = t.user_id + "@" + t.ts.cast("date").cast("string")
    return t.mutate(ts=t.ts.cast(MICROSECONDS), **defaults)


def _text(column: ibis.expr.types.Column) -> ibis.expr.types.Column:
    """An id as text, without the '.0' that a spreadsheet's numbers bring; empty is null."""
    whole = column.cast("int64").cast("string") if column.type().is_floating() else column.cast("string")
    return whole.strip().nullif("")


def _time(column: ibis.expr.types.Column, form: str | None) -> ibis.expr.types.Column:
    if form in ("unix", "unix_ms"):
        seconds = column.try_cast("float64") / (1000 if form == "unix_ms" else 1)
        return seconds.cast("int64").as_timestamp("s").cast(MICROSECONDS)
    if form:
        return column.cast("string").as_timestamp(form)
    return column.try_cast(MICROSECONDS)


def _complain(t: Table, cast: ibis.expr.types.Column, column: str, source: Source, path: Path) -> None:
    """Raise where a value is present and its cast is not."""
    numbered = t.mutate(__row=ibis.row_number() + 1, __cast=cast)
    try:
        bad = numbered.filter(numbered[column].notnull() & (numbered[column].cast("string") != "") & numbered.__cast.isnull())
        rows = bad.order_by("__row").limit(1).to_pandas()
    except Exception as error:      # a pattern that does not fit is an error of the engine, not a null
        why = str(error).splitlines()[0]
        raise LabError(f"{path}: {column} ({source.columns[column]}) does not fit ts_format '{source.ts_format}': {why}") from error
    if len(rows):
        kind = "a date: set ts_format" if column == "ts" else "a number: correct the file or the mapping"
        raise LabError(f"{path}, row {rows['__row'][0]}: {source.columns[column]} '{rows[column][0]}' is not {kind}")


def _with_rules(t: Table, source: Source) -> Table:
    """Add the built-in rules after the data set's own; `rejected` is the first rule that a row breaks."""
    rules = [(t.user_id.isnull(), "no customer"), (t.item_id.isnull(), "no item"), (t.ts.isnull(), "no date"),
             (t.basket_id.isnull(), "no basket"), (t.quantity.isnull() | (t.quantity <= 0), "quantity not above 0")]
    if "price" in t.columns:
        zero = [(t.price == 0, "price of 0")] if source.zero_price == "reject" else []
        rules += [(t.price.isnull() | t.price.isnan() | (t.price < 0), "price missing or below 0"), *zero]
    first = ibis.cases(*rules, else_=ibis.null("string"))
    return t.mutate(rejected=ibis.coalesce(t.rejected, first))


def _audit(t: Table) -> list[dict]:
    """Rows and money per rule, most rows first, then what was kept."""
    money = (t.quantity * t.price).sum() if "price" in t.columns else ibis.null("float64")
    counts = t.group_by("rejected").agg(rows=t.count(), money=money).to_pandas()
    counts = counts.assign(kept=counts["rejected"].isna()).sort_values(["kept", "rows"], ascending=[True, False])
    rows = [{"table": "purchases", "rule": "kept" if r.kept else r.rejected, "rows": int(r.rows),
             "money": None if pd.isna(r.money) else round(float(r.money), 2)} for r in counts.itertuples()]
    return rows if rows and rows[-1]["rule"] == "kept" else rows + [{"table": "purchases", "rule": "kept", "rows": 0, "money": 0}]


def _merge(t: Table) -> Table:
    """One line per (user, item, basket): quantities add up, the price is their money divided by them."""
    measures = {"ts": t.ts.min(), "quantity": t.quantity.sum()}
    if "price" in t.columns:        # rounded: a parallel sum of floats differs in its last bits from run to run
        measures["price"] = ((t.quantity * t.price).sum() / t.quantity.sum()).round(4)
    measures |= {c: t[c].mean().round(4) for c in ("discount", "rating") if c in t.columns}
    measures |= {c: t[c].min() for c in ("store_id",) if c in t.columns}
    return t.group_by("user_id", "item_id", "basket_id").agg(**measures)


def _attributes(con: ibis.BaseBackend, made: Spec, table: str, folder: Path) -> list[str]:
    """Write items or users: one row per id, the first-seen value of each attribute; return personal columns dropped.

    First seen, not most frequent: a later row then never changes what a model fitted before it has seen.
    """
    source, key = getattr(made, table), f"{table[:-1]}_id"
    bought = con.read_parquet(str(folder / "purchases.parquet"))
    if source is None:
        _write(bought.select(key).distinct(), folder / f"{table}.parquet", (key,))
        return []
    personal = [c for c in source.columns if table == "users" and PERSONAL.search(c)]
    mapped = {c: v for c, v in source.columns.items() if c not in personal}
    t = _own_rows(con, made, source, table, mapped) if source.files else _receipt_rows(con, made, mapped)
    firsts = {c: t[c].first(order_by=["__ts", "__row"], include_null=False) for c in mapped if c != key}
    t = t.filter(t[key].notnull()).group_by(key).agg(**firsts)
    _write(t.semi_join(bought, key), folder / f"{table}.parquet", (key,))
    return personal


def _own_rows(con: ibis.BaseBackend, made: Spec, source: Source, table: str, mapped: dict[str, str]) -> Table:
    """Rows of the table's own file, in the file's order."""
    raw, path = read_raw(con, source, made)
    t = select(raw, source.model_copy(update={"columns": mapped}), table, path)
    return t.mutate(__row=ibis.row_number(), __ts=ibis.literal(0), **{c: _text(t[c]) for c in mapped if c.endswith("_id")})


def _receipt_rows(con: ibis.BaseBackend, made: Spec, mapped: dict[str, str]) -> Table:
    """Attributes as they stand on the receipts that were kept, oldest first."""
    source = made.purchases.model_copy(update={"columns": made.purchases.columns | mapped})
    raw, path = read_raw(con, source, made)
    t = _with_rules(_typed(select(raw, source, "purchases", path), source, path), source)
    return t.filter(t.rejected.isnull()).mutate(__row=ibis.row_number(), __ts=t.ts)


def _plain(con: ibis.BaseBackend, made: Spec, table: str, folder: Path) -> list[dict]:
    """Write events or stock as they are, after checking types and event names."""
    source = getattr(made, table)
    raw, path = read_raw(con, source, made)
    t = _typed_plain(select(raw, source, table, path), source, path)
    if table == "events":
        kinds = t.filter(t.event_type.notin(EVENT_TYPES)).event_type.first().to_pandas()
        if isinstance(kinds, str):
            raise LabError(f"{path}: event_type '{kinds}' is unknown, it takes {', '.join(EVENT_TYPES)}")
        if "event_id" not in t.columns:
            t = t.mutate(event_id=ibis.row_number().over(order_by=["ts", "user_id", "item_id", "event_type"]).cast("string"))
    t = t.drop("rejected").drop_null()
    _write(t, folder / f"{table}.parquet", ("ts", "event_id") if table == "events" else ("item_id", "country"))
    return [{"table": table, "rule": "kept", "rows": int(t.count().to_pandas()), "money": None}]


def _typed_plain(t: Table, source: Source, path: Path) -> Table:
    made = {c: _text(t[c]) for c in t.columns if c.endswith("_id")}
    checked = {"ts": _time(t.ts, source.ts_format)} if "ts" in t.columns else {"quantity": t.quantity.try_cast("float64")}
    for column, cast in checked.items():
        _complain(t, cast, column, source, path)
    return t.mutate(**made, **checked)


def _write(t: Table, path: Path, order: tuple[str, ...]) -> None:
    with atomic(path) as temporary:
        t.order_by(*order).to_parquet(str(temporary))


def _synthetic_audit(folder: Path) -> list[dict]:
    made = summary(folder)
    return [{"table": "purchases", "rule": "generated", "rows": made["lines"], "money": made["money"]}]
