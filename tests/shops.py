"""Shops that tests judge by: one written by hand, and a small synthetic one, cut."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from recsys_utils.data import synthetic
from recsys_utils.data.folds import Fold, Stage, window_borders, window_parts
from recsys_utils.data.interactions import Interactions

TINY = """
ann  milk  a1 2024-01-01 2 1.0
ann  bread a1 2024-01-01 1 2.0
ann  milk  a2 2024-02-01 1 1.0
ann  milk  a3 2024-03-01 1 1.0
ann  jam   a3 2024-03-01 1 4.0
bob  beer  b1 2024-02-10 6 1.5
bob  bread b1 2024-02-10 1 2.0
bob  beer  b2 2024-03-09 6 1.5
cat  milk  c1 2024-03-10 1 1.0
cat  jam   c1 2024-03-10 2 4.0
"""


def receipts(text: str) -> pd.DataFrame:
    """Purchases from lines of `user item basket day quantity price`."""
    rows = [line.split() for line in text.strip().splitlines()]
    frame = pd.DataFrame(
        rows, columns=["user_id", "item_id", "basket_id", "ts", "quantity", "price"]
    )
    return frame.astype({"ts": "datetime64[us]", "quantity": float, "price": float})


@dataclass
class Shop:
    """The synthetic shop, cut: what models see, what was then bought, and all its tables."""

    tables: dict[str, pd.DataFrame]
    borders: dict[str, pd.Timestamp]
    stage: Stage

    @property
    def history(self) -> Interactions:
        return self.stage.history

    @property
    def truth(self) -> pd.DataFrame:
        return self.stage.truth


def synthetic_tables(lines: int = 200_000, seed: int = 42) -> dict[str, pd.DataFrame]:
    """The canonical tables of a synthetic shop, by name."""
    with tempfile.TemporaryDirectory() as folder:
        synthetic.write(folder, lines, seed)
        return {path.stem: pd.read_parquet(path) for path in sorted(Path(folder).iterdir())}


def cut_shop(lines: int, seed: int) -> Shop:
    """A synthetic shop of some size, cut where its test window begins."""
    tables = synthetic_tables(lines, seed)
    borders = window_borders(tables["purchases"]["ts"])
    parts = window_parts(tables["purchases"], borders)
    before = pd.concat([parts["train"], parts["valid"]], ignore_index=True)
    history = Interactions.of(before, tables["items"], tables["users"], borders["test"])
    return Shop(tables, borders, Stage(history, parts["test"]))


def fold_of(shop: Shop) -> Fold:
    """The fold that a shop was cut from."""
    parts = window_parts(shop.tables["purchases"], shop.borders)
    borders = {name: str(border) for name, border in shop.borders.items()}
    attributes = {"items": shop.tables["items"], "users": shop.tables["users"]}
    return Fold("synthetic", "2025-06-10", "window", borders, **parts, **attributes, hash="abc")


def ranked(rows: list[tuple[str, str]]) -> pd.DataFrame:
    """A recommendation table from (user_id, item_id) in the order of each user's list."""
    recs = pd.DataFrame(rows, columns=["user_id", "item_id"], dtype=object)
    rank = recs.groupby("user_id").cumcount() + 1
    return recs.assign(score=-rank.astype(float), rank=rank.astype("int64"))


def pairs(rows: pd.DataFrame) -> set[tuple[str, str]]:
    """The (user_id, item_id) of some rows."""
    return set(zip(rows["user_id"].astype(str), rows["item_id"].astype(str)))
