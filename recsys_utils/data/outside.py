"""Lists that others made: read with care, counted, and judged beside our models.

They have no lists for the validation window, so nobody can choose them; they can be compared, and
be what the shop shows today.
"""

import re
from pathlib import Path

import pandas as pd

from recsys_utils import LabError
from recsys_utils.data.folds import Fold
from recsys_utils.data.handed import ids_of, need_columns, numbers_of, read_rows, refuse
from recsys_utils.data.runs import COLUMNS, DEPTH, load_metas, load_outside, write_table
from recsys_utils.store import digest, library_versions

FAMILY = "outside"  # of these models, and the name of their folder
# Places that the report judges: a list with fewer counts as short.
FULL = 10
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def named_files(given: list[str]) -> dict[str, str]:
    """Absolute paths by name, from `NAME=path` or `path`, whose file's name then counts.

    Every file is read once, so that a wrong one is refused before anything runs.
    Raises LabError for a name that is twice there or has signs that a file's name cannot have.

    >>> named_files([])
    {}
    """
    files = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not equals:
            path = text
            name = Path(text).stem
        if not NAME.fullmatch(name):
            raise LabError(f"--lists {text}: give a name of letters and digits, as NAME={path}")
        if name in files:
            raise LabError(f"--lists {text}: the name {name} is there twice: give NAME={path}")
        read_lists(Path(path))
        files[name] = str(Path(path).resolve())
    return files


def read_lists(path: Path) -> pd.DataFrame:
    """user_id and item_id as text, and rank or score, as the file has them.

    Raises LabError for a missing file, a missing column, an empty id, ids that are no whole
    numbers, a rank or a score that cannot be one, and the two where they disagree.
    """
    table = read_rows(path)
    need_columns(table, ("user_id", "item_id"), path)
    order = next((name for name in ("rank", "score") if name in table), None)
    if order is None:
        raise LabError(f"{path} has no column rank and none score: add the one or the other")
    if not len(table):
        raise LabError(f"{path} has no rows: write a row for each user_id and item_id")
    result = pd.DataFrame({name: ids_of(table[name], path) for name in ("user_id", "item_id")})
    numbers = numbers_of(table[order], path)
    if order == "rank":
        wrong = ((numbers < 1) | (numbers % 1 != 0)).to_numpy()
        refuse(wrong, table[order], path, "but ranks are whole numbers from 1")
    result[order] = numbers
    if order == "rank" and "score" in table:
        _refuse_disagreeing(result, table["score"], path)
    return result


def fitted_to(fold: Fold, table: pd.DataFrame, name: str) -> tuple[pd.DataFrame, dict[str, int]]:
    """Lists of the test window's shoppers in the form of a run, and what was counted on the way.

    table: as `read_lists` gives it. An item twice counts at its better place; what the shop does
    not know is dropped, and the items below move up.
    Raises LabError for two items at one rank, for ids that differ from the shop's by leading zeros
    only, and where no shopper of the test window has a list.
    """
    history = fold.testing.history
    asked = pd.Index(fold.testing.users).astype(str)
    shoppers = history.user_ids.astype(str).union(asked)
    items = history.item_ids.astype(str)
    _refuse_lost_zeros(table["user_id"], shoppers, "user_id", name)
    _refuse_lost_zeros(table["item_id"], items, "item_id", name)
    counts = {"copies of rows": int(table.duplicated().sum())}
    table = _in_order(table.drop_duplicates(), name)
    rules = {
        "rows of unknown shoppers": lambda t: t["user_id"].isin(shoppers),
        "rows of shoppers outside the test window": lambda t: t["user_id"].isin(asked),
        "duplicate items": lambda t: ~t.duplicated(["user_id", "item_id"]),
        "rows of unknown items": lambda t: t["item_id"].isin(items),
    }
    for what, is_kept in rules.items():
        before = len(table)
        table = table[is_kept(table)]
        counts[what] = before - len(table)
    if not len(table):
        raise LabError(
            f"the lists '{name}' hold no known item for any shopper of the test window:"
            f" shoppers are called {', '.join(asked[:3])}, items {', '.join(items[:3])}"
        )
    place = table.groupby("user_id", sort=False).cumcount() + 1
    if "score" in table:
        counts["equal scores, put in the order of ids"] = int(
            table.duplicated(["user_id", "score"]).sum()
        )
    else:
        jumps = table.groupby("user_id", sort=False)["rank"].diff().fillna(table["rank"])
        counts["gaps between ranks, closed"] = int((jumps > 1).sum())
    table = table.assign(rank=place)
    lengths = table.groupby("user_id").size()
    counts[f"lists of fewer than {FULL} items"] = int((lengths < FULL).sum())
    counts["shoppers without a list"] = int((~asked.isin(lengths.index)).sum())
    if "score" not in table:
        table["score"] = 1 / table["rank"]
    table = table[table["rank"] <= DEPTH]
    return table[list(COLUMNS)].reset_index(drop=True), counts


def in_words(counts: dict[str, int], cut: str | None = None) -> str:
    """The counts in sentences, without those that are 0.

    cut: when the test window begins, if it is a window.

    >>> in_words({"duplicate items": 2, "rows of unknown items": 0}, "2025-03-01")[44:]
    'It is judged fairly only if it was made of receipts before 1 March 2025. Duplicate items: 2.'
    """
    found = [f"{what}: {count:,}" for what, count in counts.items() if count]
    text = "; ".join(found)
    told = f" {text[0].upper()}{text[1:]}." if found else ""
    before = f"{pd.Timestamp(cut):%-d %B %Y}" if cut else "each shopper's last basket"
    return (
        "No validation list, so it cannot be chosen. It is judged fairly only if it was made of"
        f" receipts before {before}.{told}"
    )


def record_lists(fold: Fold, files: dict[str, str]) -> dict[str, str]:
    """Write others' lists beside the runs of a fold, in place of those recorded before.

    files: paths by name. Returns what was counted, in words, by name.
    Raises LabError for the name of one of our models.
    """
    ours = load_metas(fold).index
    made = {}
    for name, path in files.items():
        if name in ours:
            raise LabError(f"--lists {name}: a model of this run has that name: take another one")
        made[name] = fitted_to(fold, read_lists(Path(path)), name)
    for old in fold.folder(FAMILY).glob("*.*"):
        old.unlink()
    told = {}
    for name, (lists, counts) in made.items():
        told[name] = in_words(counts, fold.borders.get("test"))
        about = {
            "model": name,
            "family": FAMILY,
            "made_by": "",
            "notebook": "",
            "params": {"file": Path(files[name]).name, "sha256": digest(Path(files[name]))},
            "tries": 1,
            "note": told[name],
            "seed_spread": {},
            "fold": fold.name,
            "fit_seconds": None,
            "recommend_seconds": None,
            "peak_mib": None,
            "versions": library_versions(),
        }
        write_table(lists, fold, FAMILY, name, about)
    return told


def recorded_notes(fold: Fold) -> dict[str, str]:
    """What was counted when others' lists of this very fold were recorded, by name."""
    _, about = load_outside(fold)
    return about["note"].to_dict() if len(about) else {}


def _refuse_disagreeing(lists: pd.DataFrame, score: pd.Series, path: Path) -> None:
    """Scores that rise where the rank says that items get worse; what is no number is let be."""
    scores = pd.to_numeric(score, errors="coerce")
    lists = lists.assign(score=scores).sort_values(["user_id", "rank"], kind="stable")
    rises = lists.groupby("user_id")["score"].diff() > 0
    is_below = lists.groupby("user_id")["rank"].diff() > 0
    wrong = lists[rises & is_below]
    if len(wrong):
        first = wrong.iloc[0]
        raise LabError(
            f"{path}: rank and score disagree: user_id {first['user_id']} has a higher score at"
            f" rank {first['rank']:.0f} than above it ({len(wrong):,} such rows in all). Keep the"
            " column that orders the lists, rank from 1 or score with the highest first"
        )


def _refuse_lost_zeros(ids: pd.Series, known: pd.Index, column: str, name: str) -> None:
    """Ids that nobody knows, but that the shop has with other leading zeros, were misread."""
    unknown = pd.Index(ids.unique()).difference(known)
    bare = pd.Series(known, known.str.lstrip("0"))
    lost = unknown[unknown.str.lstrip("0").isin(bare.index)]
    if len(lost):
        shop = bare.loc[[lost[0].lstrip("0")]].iloc[0]
        raise LabError(
            f"the lists '{name}' write {column} {lost[0]} where the shop has {shop}"
            f" ({len(lost):,} such ids): write ids as text, with their leading zeros"
        )


def _in_order(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Each shopper's rows from the first place on; equal scores by item id."""
    if "score" in table:
        keys = ["user_id", "score", "item_id"]
        return table.sort_values(keys, ascending=[True, False, True], ignore_index=True)
    table = table.sort_values(["user_id", "rank", "item_id"], ignore_index=True)
    tied = table[table.duplicated(["user_id", "rank"])]
    if len(tied):
        first = tied.iloc[0]
        raise LabError(
            f"the lists '{name}' have two items at rank {first['rank']:.0f} of user_id"
            f" {first['user_id']}: give each item of a shopper a rank of its own"
        )
    return table
