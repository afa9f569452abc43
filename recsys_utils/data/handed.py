"""Small files that people hand over: lists of others, results of a test. All is text at first."""

import csv
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from recsys_utils import LabError
from recsys_utils.data.files import separator

SUFFIXES = (".csv", ".parquet")


def read_rows(path: Path) -> pd.DataFrame:
    """The rows of a .csv as text, or of a .parquet as they are; LabError for another file."""
    if path.suffix not in SUFFIXES:
        raise LabError(f"{path} is no {' or '.join(SUFFIXES)}: write it as one of these")
    if not path.is_file():
        raise LabError(f"{path} does not exist: give the path of a file")
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        return _read_csv(path)
    except LabError:
        raise
    except UnicodeDecodeError as error:
        raise LabError(f"{path} is not UTF-8: save it as a .csv in UTF-8") from error
    except (ValueError, OSError, pd.errors.ParserWarning) as error:
        reason = str(error).splitlines()[0]
        raise LabError(f"{path} cannot be read ({reason}): write it again") from error


def _read_csv(path: Path) -> pd.DataFrame:
    """Columns of text, each under its own name; more fields than names are an error.

    Between the columns stands what parts the names: a comma, a semicolon, a tab or a bar.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        sep = separator(file.readline())
        file.seek(0)
        names = next(csv.reader(file, delimiter=sep), [])
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise LabError(f"{path} has the column '{twice[0]}' twice: keep one")
    with warnings.catch_warnings():
        # Else pandas drops the fields that are too many, or takes the first column for names.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        return pd.read_csv(
            path, sep=sep, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False
        )


def check_out(path: Path, suffixes: Iterable[str], given: Path | None = None) -> None:
    """Refuse a path to write to that has another ending, no folder, or is the file that is read."""
    if path.suffix not in suffixes:
        raise LabError(f"--out {path}: the file ends in {', '.join(suffixes)}")
    if not path.absolute().parent.is_dir():
        raise LabError(
            f"--out {path}: there is no folder {path.parent}: make it, or choose another"
        )
    if given is not None and path.resolve() == given.resolve():
        raise LabError(f"--out {path}: it is the file that is read: choose another name")


def need_columns(table: pd.DataFrame, names: tuple[str, ...], path: Path) -> None:
    """LabError for the first column that is not there."""
    for name in names:
        if name not in table:
            raise LabError(f"{path} has no column {name}: it has {', '.join(map(str, table))}")


def ids_of(column: pd.Series, path: Path) -> pd.Series:
    """Ids as text, without blanks around them; LabError for an empty one, and for decimals.

    7.0 is what is left of 7 beside an empty cell.
    """
    if pd.api.types.is_float_dtype(column):
        raise LabError(f"{path} has decimals as {column.name}: write ids as text")
    text = column.astype("string").str.strip()
    refuse((text.isna() | (text == "")).to_numpy(bool), column, path, "which is empty")
    return text.astype(object)


def numbers_of(column: pd.Series, path: Path) -> pd.Series:
    """A column as finite numbers; LabError that names the first row that has none."""
    numbers = pd.to_numeric(column, errors="coerce").astype(float)
    refuse(~np.isfinite(numbers.to_numpy()), column, path, "which is no number such as 12.5")
    return numbers


def refuse(wrong: np.ndarray, column: pd.Series, path: Path, why: str) -> None:
    """LabError that names the first wrong row; rows count from 1, below the heading."""
    if wrong.any():
        row = int(np.argmax(wrong))
        raise LabError(
            f"{path}, row {row + 1}: {column.name} is '{column.iloc[row]}', {why}"
            f" ({wrong.sum():,} such rows in all): mend the file"
        )
