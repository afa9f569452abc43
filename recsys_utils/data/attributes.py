"""Attributes of users and items as features: one vocabulary of `column=value`, with an unknown."""

import re
from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy import sparse

from recsys_utils.data.interactions import codes as positions

BINS = 5  # a number is cut at its quintiles
MAX_VALUES = 2_000
MIN_ROWS = 2  # a word of one item teaches nothing about another
KIND = re.compile(r"([^=≥~]+)([=≥~])(.*)", re.DOTALL)


def vocabulary(
    frame: pd.DataFrame, columns: Iterable[str] | None = None, words: Iterable[str] = ()
) -> np.ndarray:
    """Features of an attribute table.

    `column=value`, `column≥edge` for numbers, `column~word` for texts.

    Each column's block begins with `column=`, which stands for a missing or unknown value. columns:
    by default all that say something: two values or more, and fewer values than half the rows, so
    no ids and no names. words: text columns.
    """
    if columns is None:
        columns = [c for c in frame if _telling(frame[c])]
    result = []
    for c in columns:
        if c in frame:
            result += [f"{c}=", *_entries(frame[c], c)]
    for c in words:
        if c in frame:
            result += _words(frame[c], c)
    return np.array(result, dtype=str)


def blocks(vocab: np.ndarray) -> dict[str, slice]:
    """Where each column's features lie; a text column's name ends with `~`."""
    result = {}
    for place, entry in enumerate(vocab):
        column, kind, _ = KIND.fullmatch(entry).groups()
        name = f"{column}~" if kind == "~" else column
        start = result[name].start if name in result else place
        result[name] = slice(start, place + 1)
    return result


def codes(frame: pd.DataFrame, vocab: np.ndarray) -> np.ndarray:
    """(rows, columns) int64: each value's position in the vocabulary.

    A value that is not in it has its column's first position, the unknown.
    """
    places = {c: place for c, place in blocks(vocab).items() if not c.endswith("~")}
    result = np.empty((len(frame), len(places)), np.int64)
    for n, (c, place) in enumerate(places.items()):
        result[:, n] = place.start
        if c in frame:
            result[:, n] += _codes(frame[c], vocab[place], c)
    return result


def hot(frame: pd.DataFrame, vocab: np.ndarray) -> sparse.csr_matrix:
    """(rows, vocabulary) CSR float32: one 1 per column, and one per known word of a text."""
    single = codes(frame, vocab)
    row = [np.repeat(np.arange(len(frame)), single.shape[1])]
    column = [single.ravel()]
    for name, place in blocks(vocab).items():
        if name.endswith("~") and name[:-1] in frame:
            found = _tokens(frame[name[:-1]])
            at = positions(name + found, pd.Index(vocab[place]))
            row = [*row, found.index.to_numpy()[at >= 0]]
            column = [*column, at[at >= 0] + place.start]
    row = np.concatenate(row)
    column = np.concatenate(column)
    result = sparse.csr_matrix(
        (np.ones(len(row), np.float32), (row, column)), shape=(len(frame), len(vocab))
    )
    result.data[:] = 1  # a word said twice counts once
    return result


def known(frame: pd.DataFrame, vocab: np.ndarray) -> np.ndarray:
    """(rows,) whether any attribute of a row is known to the vocabulary."""
    starts = [s.start for name, s in blocks(vocab).items() if not name.endswith("~")]
    telling = np.setdiff1d(np.arange(len(vocab)), starts)
    return hot(frame, vocab)[:, telling].getnnz(axis=1) > 0


def _telling(column: pd.Series) -> bool:
    values = column.nunique()
    return 2 <= values <= MAX_VALUES and (_is_number(column) or 2 * values <= column.notna().sum())


def _is_number(column: pd.Series) -> bool:
    return (
        pd.api.types.is_numeric_dtype(column)
        and not pd.api.types.is_bool_dtype(column)
        and column.nunique() > 2 * BINS
    )


def _entries(column: pd.Series, name: str) -> list[str]:
    if _is_number(column):
        edges = np.unique(np.nanquantile(column.to_numpy(float), np.arange(BINS) / BINS))
        return [f"{name}≥{edge:g}" for edge in edges]
    return [f"{name}={value}" for value in sorted(set(text(column)) - {""})]


def _words(column: pd.Series, name: str) -> list[str]:
    found = _tokens(column).reset_index().drop_duplicates().iloc[:, 1].value_counts()
    return [f"{name}~{word}" for word in sorted(found.index[found >= MIN_ROWS])]


def _tokens(column: pd.Series) -> pd.Series:
    """Words of each row in lower case, indexed by row number."""
    texts = column.reset_index(drop=True).dropna().astype(str).str.lower()
    return texts.str.findall(r"[^\W\d_]{2,}").explode().dropna()


def _codes(column: pd.Series, block: np.ndarray, name: str) -> np.ndarray:
    """Positions within a block; 0 is unknown."""
    if len(block) > 1 and block[1].startswith(f"{name}≥"):
        edges = np.array([float(entry.split("≥")[-1]) for entry in block[1:]])
        values = pd.to_numeric(column, errors="coerce").to_numpy(float)
        return np.where(np.isnan(values), 0, np.maximum(np.searchsorted(edges, values, "right"), 1))
    return np.maximum(positions(name + "=" + text(column), pd.Index(block)), 0)


def text(column: pd.Series) -> pd.Series:
    """Values as text without outer spaces, "" where missing.

    3 and 3.0 are the same, and no digit is lost.
    """
    place, values = pd.factorize(column)
    texts = []
    for value in values:
        is_whole = isinstance(value, float) and value.is_integer()
        texts.append(str(int(value)) if is_whole else str(value).strip())
    texts.append("")  # for a missing value, whose place is −1
    return pd.Series(np.array(texts, dtype=object)[place], column.index)
