"""Raw files in, Ibis tables out: csv, parquet and xlsx; columns and rules of a data set applied."""

import csv
import glob
import gzip
import os
import re
from collections import Counter
from pathlib import Path

import ibis
import pandas as pd
from ibis.expr.types import Table

from recsys_utils import LabError
from recsys_utils.data import databases, downloads, urls
from recsys_utils.data.registry import Source, Spec
from recsys_utils.store import home


def raw_files(source: Source, spec: Spec) -> list[Path]:
    """The source's first file that exists in any of the data set's folders, or all that match it if
    it has a *; [] where it names none.
    """
    if urls.scheme(source.url) in urls.REMOTE_FILES:
        return downloads.files(source, spec)
    files = urls.file_patterns(source.files, source.url)
    roots = [Path(os.environ["RECSYS_DATA"]) / spec.name] if os.environ.get("RECSYS_DATA") else []
    roots += [home() / "data" / "raw" / spec.name] + ([spec.folder] if spec.folder else [])
    found = [paths for file in files for root in roots if (paths := _matching(root, file))]
    if files and not found:
        looked = ", ".join(str(root) for root in roots)
        raise LabError(
            f"{' or '.join(files)} of data set '{spec.name}' was not found in {looked}: {spec.get}"
        )
    return found[0] if found else []


def read_raw(con: ibis.BaseBackend, source: Source, spec: Spec) -> tuple[Table, Path]:
    """The raw rows of a source (its own, or else the purchases') and the first file, or the table
    of a database, that they came from.
    """
    origin = source if source.has_place else spec.purchases
    if urls.database(origin.url):
        raw, place = databases.read(con, source, origin, spec)
    else:
        raw, place = _read_files(con, source, origin, spec)
    if origin.drop_copies:
        raw = raw.mutate(is_copy=ibis.row_number().over(group_by=raw.columns) > 0)
    return raw, place


def _read_files(
    con: ibis.BaseBackend, source: Source, origin: Source, spec: Spec
) -> tuple[Table, Path]:
    paths = raw_files(origin, spec)
    raws = [_read_one(con, path, origin, source.columns) for path in paths]
    names = ", ".join(_identifier(name) for name in raws[0].columns)
    try:
        raw = (
            raws[0]
            if len(raws) == 1
            else con.sql(
                " UNION ALL ".join(f"SELECT {names} FROM {raw.get_name()}" for raw in raws)
            )
        )
    except Exception as error:
        raise LabError(
            f"{paths[0]} and the other files of '{spec.name}' do not fit together:"
            f" {_first_line(error)}"
        ) from error
    return raw, paths[0]


def select(raw: Table, source: Source, table: str, path: Path) -> Table:
    """Raw rows with the mapped columns under their canonical names, plus `rejected`.

    The first rule a row breaks.
    """
    parts = [f"{_sql(raw, source, name, table, path)} AS {name}" for name in source.columns]
    rules = [(why, f"NOT coalesce({rule}, FALSE)") for why, rule in source.only.items()]
    rules = (
        [("copy of another line", "is_copy")] * source.drop_copies
        + [(f"not {why}", rule) for why, rule in rules]
        + list(source.reject.items())
    )
    cases = " ".join(f"WHEN {rule} THEN {_quoted(why)}" for why, rule in rules)
    if cases:
        _query(raw, f"count(CASE {cases} END) AS n", f"[{table}] rules of {path.name}", run=True)
    parts.append(f"CASE {cases} END AS rejected" if cases else "CAST(NULL AS VARCHAR) AS rejected")
    return _query(raw, ", ".join(parts), f"[{table}] rules of {path.name}")


def _matching(root: Path, file: str) -> list[Path]:
    """The file, or those that match it in the order of their names."""
    return [
        root / name
        for name in (
            sorted(glob.glob(file, root_dir=root, recursive=True)) if "*" in file else [file]
        )
        if (root / name).is_file()
    ]


def _read_one(con: ibis.BaseBackend, path: Path, origin: Source, columns: dict[str, str]) -> Table:
    readers = {".parquet": _parquet, ".xlsx": _xlsx, ".xls": _xlsx}
    try:
        raw = readers.get(path.suffix.lower(), _csv)(con, path, origin, columns)
        empty = raw.limit(1).count().to_pandas() == 0
    except LabError:
        raise
    except Exception as error:
        raise LabError(f"{path} cannot be read: {_first_line(error)}") from error
    if empty:
        raise LabError(f"{path} has a header and no rows")
    return raw


def _parquet(con: ibis.BaseBackend, path: Path, source: Source, columns: dict[str, str]) -> Table:
    return con.read_parquet(str(path))


def _csv(con: ibis.BaseBackend, path: Path, source: Source, columns: dict[str, str]) -> Table:
    if path.suffix == ".gz":
        _check_gzip(path)
    sep, header = _header(path, source)
    text = _texts(source, columns, header)
    if source.encoding.lower() not in ("utf-8", "utf8"):
        frame = pd.read_csv(
            path,
            sep=sep,
            encoding=source.encoding,
            dtype=dict.fromkeys(text, str),
            keep_default_na=False,
            na_values=[""],
        )
        return con.create_table(ibis.util.gen_name("raw"), frame, temp=True)
    # Everything but text DuckDB finds out from the whole file.
    try:
        rows = con.read_csv(
            str(path), sample_size=-1, header=True, delim=sep, **({"types": text} if text else {})
        )
        return con.create_table(
            ibis.util.gen_name("raw"), rows, temp=True
        )  # now, so that a broken row is found here
    except Exception as error:
        _check_rows(path, sep, len(header))
        raise error


def _check_rows(path: Path, sep: str, width: int) -> None:
    """Name the first row that has more or fewer fields than the header."""
    with (gzip.open if path.suffix == ".gz" else open)(
        path, "rt", encoding="utf-8", errors="replace", newline=""
    ) as file:
        for n, row in enumerate(csv.reader(file, delimiter=sep)):
            if row and len(row) != width:
                raise LabError(
                    f"{path}, row {n}: it has {len(row)} fields, the header {width}: correct it, or"
                    " set sep"
                )
            if any("\ufffd" in field for field in row):
                raise LabError(
                    f'{path}, row {n} is not utf-8: set encoding, e.g. encoding = "latin-1"'
                )


def _texts(source: Source, columns: dict[str, str], header: list[str]) -> dict[str, str]:
    """Columns that stay text.

    007 must not become 7, nor 01.02.2024 what the reader makes of it where a pattern is given.
    """
    return {
        raw: "VARCHAR"
        for name, raw in columns.items()
        if raw in header and (name.endswith("_id") or (name == "ts" and source.ts_format))
    }


def _header(path: Path, source: Source) -> tuple[str, list[str]]:
    """The separator, given or the most frequent in the first line, and the column names."""
    if source.sep is not None and len(source.sep) != 1:
        raise LabError(f"sep = '{source.sep}' for {path.name} is not one character")
    try:
        with (gzip.open if path.suffix == ".gz" else open)(
            path, "rt", encoding=source.encoding.lower().replace("utf-8", "utf-8-sig")
        ) as file:
            line = file.readline().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise LabError(
            f'{path} is not {source.encoding}: set encoding, e.g. encoding = "latin-1"'
        ) from error
    if not line:
        raise LabError(f"{path} is empty")
    sep = source.sep or max(",;\t|", key=re.sub(r'"[^"]*"', "", line).count)
    names = next(csv.reader([line], delimiter=sep))
    if twice := [name for name, n in Counter(names).items() if n > 1]:
        raise LabError(f"{path} has the column '{twice[0]}' twice: rename one")
    return sep, names


def _check_gzip(path: Path) -> None:
    """DuckDB reads a truncated gzip in silence, so read it to its end once."""
    try:
        with gzip.open(path) as file:
            while file.read(1 << 24):
                pass
    except (EOFError, OSError) as error:
        raise LabError(
            f"{path} is a damaged or truncated gzip file ({error}): fetch it again"
        ) from error


def _xlsx(con: ibis.BaseBackend, path: Path, source: Source, columns: dict[str, str]) -> Table:
    with pd.ExcelFile(path, engine="calamine") as book:
        if missing := [sheet for sheet in source.sheets if sheet not in book.sheet_names]:
            raise LabError(
                f"{path} has no sheet '{missing[0]}': it has"
                f" {', '.join(map(str, book.sheet_names))}"
            )
        wanted = source.sheets or book.sheet_names[:1]
        text = dict.fromkeys(
            _texts(source.model_copy(update={"ts_format": None}), columns, list(columns.values())),
            str,
        )
        sheets = [
            book.parse(sheet, dtype=text, keep_default_na=False, na_values=[""]) for sheet in wanted
        ]
    if source.drop_overlap:
        if absent := [
            s for s, sheet in zip(wanted, sheets) if source.columns.get("ts") not in sheet
        ]:
            raise LabError(
                f"{path}, sheet '{absent[0]}' has no column '{source.columns.get('ts')}', which"
                " drop_overlap compares"
            )
        sheets = _without_overlap(sheets, source.columns["ts"])
    frame = pd.concat(sheets, ignore_index=True)
    mixed = frame.select_dtypes("object").columns  # a column of codes holds both numbers and text
    frame[mixed] = frame[mixed].astype("string")
    return con.create_table(ibis.util.gen_name("raw"), frame, temp=True)


def _without_overlap(sheets: list[pd.DataFrame], ts: str) -> list[pd.DataFrame]:
    """Later sheets lose the rows of the time that earlier sheets cover."""
    kept = sheets[:1]
    for sheet in sheets[1:]:
        kept.append(sheet[sheet[ts] > max(k[ts].max() for k in kept)])
    return kept


def _sql(raw: Table, source: Source, name: str, table: str, path: Path) -> str:
    """SQL of one mapped column: the quoted raw column, or the expression as it stands."""
    value = source.columns[name]
    table, name = (
        name.split("__") if "__" in name else (table, name)
    )  # an attribute that rides on the receipts
    if value in raw.columns:
        return _identifier(value)
    hint = f": it was read as one column, set sep in [{table}]" if len(raw.columns) == 1 else ""
    known = re.fullmatch(r"[\w.]+ - [\w.]+", value)
    if re.fullmatch(r"[\w .:-]+", value) and not known and not value.replace(".", "").isdigit():
        raise LabError(
            f"{path} has no column '{value}' (mapped to {name}), it has"
            f" {', '.join(raw.columns)}{hint}"
        )
    _query(
        raw,
        f"max({value}) AS most",
        f"[{table}.columns] {name} = '{value}' for {path.name}",
        run=True,
    )
    return value


def _query(raw: Table, what: str, where: str, run: bool = False) -> Table:
    """SELECT `what` from the raw rows; `run` finds out what fails on a value."""
    view = ibis.util.gen_name("raw")
    try:
        result = raw.alias(view).sql(f"SELECT {what} FROM {view}")
        return result.to_pandas() if run else result
    except Exception as error:
        for column in (c for c in raw.columns if c in what and raw[c].type().is_string()):
            words = (
                raw.filter(raw[column].notnull() & raw[column].try_cast("float64").isnull())
                .select(column)
                .limit(1)
                .to_pandas()[column]
            )
            if len(words) and "No function matches" in str(error):
                raise LabError(
                    f"{where} cannot be computed: {column} '{words[0]}' is not a number"
                ) from error
        raise LabError(
            f"{where} is not valid: {_first_line(error)}; the file has {', '.join(raw.columns)}"
        ) from error


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _first_line(error: Exception) -> str:
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return re.sub(r"^([A-Z]\w+ )+Error: ", "", line)
