"""Folds: history | validation | test, by calendar weeks or by each user's last baskets."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from ibis.expr.types import Table
from pandas.api.types import is_integer_dtype

from recsys_utils import LabError
from recsys_utils.data import engine, split, tables
from recsys_utils.data.interactions import Interactions, by_id, distinct
from recsys_utils.data.registry import Spec, revised, spec
from recsys_utils.store import data_dir, digest, read_json, read_parquet, write_json

PARTS = ("train", "valid", "test")
LIST_DAYS = 21
# Beside the parts: the name of each basket, whose number is its place.
BASKETS = "baskets.parquet"
EVENT_COLUMNS = ["user_id", "item_id", "event_type", "ts"]


@dataclass
class Stage:
    """What a model is judged on: a history, the users to make lists for, and what they then bought.

    history: what models see. truth: what `users` then bought. exclude: "bought" on data in which
    nothing is bought twice; nothing is left out elsewhere. profiles: attributes by user_id of all
    users in the shop's own file, for those without history.
    """

    history: Interactions
    truth: pd.DataFrame
    exclude: Literal["bought"] | None = None
    profiles: pd.DataFrame | None = None

    @property
    def users(self) -> pd.Index:
        """Everyone who bought in the window, warm or cold, sorted."""
        return distinct(self.truth["user_id"])


@dataclass
class Fold:
    """Three disjoint parts of the receipts.

    `train` is before `valid`, which is before `test`, for each user. Baskets have numbers there,
    whose names `basket_names` gives.

    listed, registered: items, users come from files of the shop's own, not from receipts. So items
    that nobody bought before the cut are on sale too, and users without a purchase before it have a
    profile.
    """

    dataset: str
    name: str
    protocol: str
    borders: dict[str, str]
    train: pd.DataFrame
    valid: pd.DataFrame
    test: pd.DataFrame
    items: pd.DataFrame
    users: pd.DataFrame
    hash: str = ""
    repeats: bool = True
    listed: bool = False
    registered: bool = False
    is_dated: bool = True  # False: receipts have an order of baskets only
    # Views, carts, removals, purchases, where the shop keeps a log of them.
    events: pd.DataFrame | None = None

    @property
    def list_days(self) -> int:
        """Days that a list is for: where there are no dates, one, on which the next basket is."""
        return LIST_DAYS if self.is_dated else 1

    def folder(
        self,
        kind: Literal["folds", "runs", "validation", "studies", "left_out", "outside"] = "folds",
    ) -> Path:
        """Where the fold's own files lie, the models' lists for it, or the notebooks' findings."""
        return data_dir(spec(self.dataset).name, kind, self.name)

    @cached_property
    def tuning(self) -> Stage:
        """For choosing parameters: a window as wide as the test window, at the end of validation.

        Its history is everything older.
        """
        if self.protocol == "next_basket":
            return self._stage(self.train, self.valid, None)
        start = pd.Timestamp(self.borders["tuning"])
        late = self.valid["ts"] >= start
        return self._stage(
            pd.concat([self.train, self.valid[~late]], ignore_index=True), self.valid[late], start
        )

    @cached_property
    def testing(self) -> Stage:
        """For the final lists: train and validation are history."""
        cut = pd.Timestamp(self.borders["test"]) if self.protocol == "window" else None
        return self._stage(pd.concat([self.train, self.valid], ignore_index=True), self.test, cut)

    def frozen(self, days: float) -> Stage:
        """For models that were fitted so many days before the test window and not since.

        Raises LabError where the protocol has no calendar, or nothing is left to learn from.
        """
        if self.protocol != "window":
            raise LabError(f"fold {self.name} has no calendar: a model has no age there")
        cut = pd.Timestamp(self.borders["test"]) - pd.Timedelta(days=days)
        history = pd.concat([self.train, self.valid], ignore_index=True)
        history = history[history["ts"] < cut]
        if history.empty:
            raise LabError(f"fold {self.name} has no purchase {days:g} days before its test window")
        return self._stage(history.reset_index(drop=True), self.test, cut)

    def _stage(
        self, history: pd.DataFrame, truth: pd.DataFrame, as_of: pd.Timestamp | None
    ) -> Stage:
        catalogue = self.items["item_id"] if self.listed else None
        profiles = by_id(self.users, "user_id") if self.registered else None
        result = Interactions.of(
            history,
            self.items,
            self.users,
            as_of,
            catalogue,
            self._events(history, as_of),
            self.is_dated,
        )
        return Stage(
            result, truth.reset_index(drop=True), None if self.repeats else "bought", profiles
        )

    def _events(self, history: pd.DataFrame, as_of: pd.Timestamp | None) -> pd.DataFrame | None:
        """Events before the cut; None where the shop has none.

        Without a common cut, each shopper's events up to their last receipt in the history.
        """
        if self.events is None:
            return None
        if as_of is not None:
            return self.events[self.events["ts"] < as_of]
        last = history.groupby(history["user_id"].astype(str))["ts"].max()
        return self.events[self.events["ts"] <= self.events["user_id"].astype(str).map(last)]


def window_borders(
    ts: pd.Series, test_weeks: float = 3, valid_weeks: float = 6, back: int = 0
) -> dict[str, pd.Timestamp]:
    """Calendar borders: `valid` <= `tuning` <= `test` < `end`.

    `back` moves them whole test windows into the past.

    Windows are whole days and end with the last day of the data, so three weeks are exactly the
    last 21 days.

    >>> days = pd.Series(pd.to_datetime(["2025-01-01 09:00", "2025-06-30 18:00"]))
    >>> {name: str(day.date()) for name, day in window_borders(days).items()}
    {'valid': '2025-04-29', 'tuning': '2025-05-20', 'test': '2025-06-10', 'end': '2025-07-01'}
    """
    test = pd.Timedelta(weeks=test_weeks)
    valid = pd.Timedelta(weeks=valid_weeks)
    end = ts.max().floor("D") + pd.Timedelta(days=1) - back * test
    borders = {
        "valid": end - test - valid,
        "tuning": end - 2 * min(test, (test + valid) / 2),
        "test": end - test,
        "end": end,
    }
    if borders["valid"] <= ts.min():
        raise LabError(
            f"{test_weeks:g} test weeks, {valid_weeks:g} validation weeks and {back} folds more"
            f" reach back to {borders['valid']:%Y-%m-%d}, the data starts {ts.min():%Y-%m-%d}:"
            " lower test_weeks, valid_weeks or folds"
        )
    return borders


def window_parts(
    purchases: pd.DataFrame, borders: dict[str, pd.Timestamp]
) -> dict[str, pd.DataFrame]:
    """Rows before validation, in it, and in the test window."""
    ts = purchases["ts"]
    inside = {
        "train": ts < borders["valid"],
        "valid": (ts >= borders["valid"]) & (ts < borders["test"]),
        "test": (ts >= borders["test"]) & (ts < borders["end"]),
    }
    return {part: purchases[rows].reset_index(drop=True) for part, rows in inside.items()}


def basket_parts(purchases: pd.DataFrame, back: int = 0) -> dict[str, pd.DataFrame]:
    """Each user's last basket is test, the one before is validation.

    `back` drops that many last baskets first.

    >>> buys = pd.DataFrame({"user_id": "u", "basket_id": list("abc"), "item_id": "tea"})
    >>> buys["ts"] = pd.to_datetime(["2025-01-01", "2025-01-02", "2025-01-03"])
    >>> {part: rows["basket_id"].tolist() for part, rows in basket_parts(buys).items()}
    {'train': ['a'], 'valid': ['b'], 'test': ['c']}
    """
    rows = purchases[["user_id", "basket_id", "ts"]].assign(
        **{engine.PLACE: np.arange(len(purchases))}
    )
    ids = [name for name in ("user_id", "basket_id") if not is_integer_dtype(rows[name].dtype)]
    t = engine.given(rows.astype(dict.fromkeys(ids, str)), engine.local())
    result = {}
    for name, part in split.basket_tables(t, back).items():
        places = np.sort(part[engine.PLACE].to_pandas())
        result[name] = purchases.iloc[places].reset_index(drop=True)
    return result


def cut(
    purchases: pd.DataFrame, made: Spec, back: int = 0
) -> tuple[dict[str, pd.Timestamp], dict[str, pd.DataFrame]]:
    """Borders and parts of a fold by the data set's own protocol; next_basket has no borders.

    back: folds before the newest. Raises LabError where the receipts do not reach that far back.
    """
    if made.protocol == "next_basket":
        return {}, basket_parts(purchases, back)
    borders = window_borders(purchases["ts"], made.test_weeks, made.valid_weeks, back)
    return borders, window_parts(purchases, borders)


def returning(parts: dict[str, pd.DataFrame]) -> set:
    """Shoppers of the test part with an earlier receipt: those that can be judged by a list."""
    before = set(parts["train"]["user_id"]) | set(parts["valid"]["user_id"])
    return before & set(parts["test"]["user_id"])


@engine.explained()
def write_folds(dataset: str, **overrides: object) -> list[Path]:
    """Cut the data set's purchases into folds, and write them below `data/<dataset>/folds`.

    overrides: protocol, test_weeks, valid_weeks, folds instead of the data set's own; None keeps
    its own. Returns the folders, newest fold first.
    """
    result = revised(tables.ready(dataset), **overrides)
    bought = engine.read(data_dir(result.name, "tables", "purchases.parquet"), engine.connect())
    written = []
    for back in range(result.folds):
        borders, parts = _cut_tables(bought, result, back)
        rows = split.sizes(parts)
        name = f"{borders['test']:%Y-%m-%d}" if borders else f"last-basket-{back}"
        if not rows["test"] and result.protocol == "next_basket" and not back:
            raise LabError(
                f"no shopper of '{result.name}' has a second basket, so no list for a shopper can"
                " be judged: map user_id to something that lasts, such as a card or an account"
            )
        if not rows["test"] or not rows["train"]:
            raise LabError(
                f"fold {name} of '{result.name}' has no"
                f" {'train' if rows['test'] else 'test'} rows: lower folds"
            )
        _check_returning(parts, name, result)
        folder = data_dir(result.name, "folds", name)
        written.append(_write_fold(folder, result, borders, parts, rows))
    write_json(
        {"folds": [path.name for path in written]}, data_dir(result.name, "folds", "folds.json")
    )
    return written


def _cut_tables(
    bought: Table, made: Spec, back: int
) -> tuple[dict[str, pd.Timestamp], dict[str, Table]]:
    """`cut` where the receipts lie on an engine."""
    if made.protocol == "next_basket":
        return {}, split.basket_tables(bought, back)
    borders = window_borders(split.ends(bought), made.test_weeks, made.valid_weeks, back)
    return borders, split.window_tables(bought, borders)


def _check_returning(parts: dict[str, Table], name: str, made: Spec) -> None:
    """A list for somebody needs a past: LabError where nobody of the test part has one."""
    shoppers, known = split.shoppers(parts)
    if not known:
        raise LabError(
            f"fold {name} of '{made.name}': none of the {shoppers:,} shoppers of the test part"
            " has an earlier receipt, so no list for a shopper can be judged: map user_id to"
            " something that lasts, such as a card or an account, or take receipts over a longer"
            " time"
        )


def has_folds(name: str) -> bool:
    """Whether a data set, by name, was cut already."""
    return data_dir(name, "folds", "folds.json").exists()


def fold_names(name: str, cure: str = "run ./run_all.sh") -> list[str]:
    """Names of a data set's folds, newest first."""
    return read_json(data_dir(name, "folds", "folds.json"), cure)["folds"]


def basket_names(fold: Fold) -> pd.Series:
    """The names of the baskets that a fold numbers, by number."""
    return read_parquet(fold.folder() / BASKETS)["basket_id"].astype(str)


def load_fold(dataset: str, name: str | None = None) -> Fold:
    """A written fold, the newest by default."""
    result = spec(dataset)
    cure = f"run ./run_all.sh --dataset {dataset} --only 02"
    name = name or fold_names(result.name, cure)[0]
    folder = data_dir(result.name, "folds", name)
    data = data_dir(result.name, "tables")
    meta = read_json(folder / "fold.json", cure)
    # Together: the parts share their categories.
    rows = read_parquet(*(folder / f"{part}.parquet" for part in PARTS), cure=cure)
    ends = np.cumsum([0, *meta["rows"]])
    parts = {}
    for part, start, end in zip(PARTS, ends, ends[1:]):
        parts[part] = rows[start:end].set_axis(pd.RangeIndex(end - start), copy=False)
    events = None
    if (data / "events.parquet").exists():
        events = read_parquet(data / "events.parquet", columns=EVENT_COLUMNS)
    return Fold(
        dataset,
        name,
        meta["protocol"],
        meta["borders"],
        **parts,
        items=read_parquet(data / "items.parquet"),
        users=read_parquet(data / "users.parquet"),
        hash=meta["hash"],
        repeats=meta["repeats"],
        listed=has_own_file(result, "items"),
        registered=has_own_file(result, "users"),
        is_dated=result.is_dated,
        events=events,
    )


def load_folds(dataset: str) -> Iterator[Fold]:
    """Every written fold, newest first."""
    for name in fold_names(spec(dataset).name):
        yield load_fold(dataset, name)


def describe(fold: Fold) -> pd.DataFrame:
    """One line per part: dates, lines, users, items, baskets."""
    rows = []
    for part in PARTS:
        frame = getattr(fold, part)
        row = {
            "part": part,
            "from": frame["ts"].min(),
            "to": frame["ts"].max(),
            "lines": len(frame),
            "users": frame["user_id"].nunique(),
            "items": frame["item_id"].nunique(),
            "baskets": frame["basket_id"].nunique(),
        }
        rows.append(row)
    return pd.DataFrame(rows).set_index("part")


def has_own_file(made: Spec, table: str) -> bool:
    """Whether the items or users are listed by the shop, not only found in receipts."""
    source = getattr(made, table)
    return made.synthetic or bool(source and source.has_place)


def _write_fold(
    folder: Path, made: Spec, borders: dict, parts: dict[str, Table], rows: dict[str, int]
) -> Path:
    (folder / "fold.json").unlink(missing_ok=True)
    parts, names = split.numbered(parts)
    engine.write(names, folder / BASKETS, ("number",), columns=("basket_id",))
    paths = [folder / f"{part}.parquet" for part in PARTS]
    for part, path in zip(PARTS, paths):
        engine.write(parts[part], path, (engine.PLACE,))
    write_json(
        {
            "protocol": made.protocol,
            "repeats": made.repeats,
            "borders": {k: str(v) for k, v in borders.items()},
            "hash": digest(*paths),
            "rows": [rows[part] for part in PARTS],
        },
        folder / "fold.json",
    )
    return folder
