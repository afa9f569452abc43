"""Two towers that predict ratings: the columns that they use, and their training."""

import pandas as pd

from recsys_utils.models.towers.network import TwoTowerHybrid
from recsys_utils.models.towers.training import (
    NAMES,
    USER_NUM_COLS,
    Prepared,
    prepare,
    train_two_tower_model,
)

RATING = {
    "similarity": "dot",
    "user_hidden": (),
    "embedding": 16,
    "dim": 32,
    "l2": 1e-2,
    "lr": 5e-3,
    "batch_size": 1024,
}
ITEM_COLS = (
    "products",
    "Product_Category",
    "Product_Brand",
    "Product_Type",
    "subcategory",
    "genres",
    "release_year",
)
MAX_VALUES = 500  # a column with more values is an id in disguise


def columns(rows: pd.DataFrame) -> tuple[list[str], list[str], list[str]]:
    """Columns of users, of their numbers, and of items, as far as the transactions have them."""
    numbers = [c for c in USER_NUM_COLS if c in rows]
    people = [
        c
        for c in NAMES.values()
        if c in rows and c not in ("Date", "Ratings", *numbers) and not c.startswith("Product")
    ]
    things = [
        c for c in ITEM_COLS if c in rows and (c == "products" or rows[c].nunique() <= MAX_VALUES)
    ]
    return people, numbers, things


def fit_whole(
    rows: pd.DataFrame, epochs: int | None = None, **options: object
) -> tuple[TwoTowerHybrid, Prepared]:
    """Rating towers fitted on all transactions, and what serving needs: what is to be served.

    epochs: as many as were best on validation; by default a split by date finds out.
    """
    if epochs is None:
        judged = fit_ratings(prepare(rows, *columns(rows), mode="rating", negatives=0), **options)
        epochs = best_epochs(judged)
    rated = rows.dropna(subset="Ratings")
    whole = prepare(rows, *columns(rows), mode="rating", negatives=0, parts=[rated])
    return fit_ratings(whole, **options | {"epochs": epochs, "patience": None}), whole


def best_epochs(model: TwoTowerHybrid) -> int:
    """Epochs up to the one with the lowest validation loss."""
    losses = [row["val_loss"] for row in model.log]
    return losses.index(min(losses)) + 1


def fit_ratings(parts: Prepared, **options: object) -> TwoTowerHybrid:
    """Train for ratings; options beside those that suit ratings."""
    return train_two_tower_model(
        parts.train,
        parts.val,
        parts.encoder.user_cat_sizes,
        parts.encoder.item_cat_sizes,
        parts.encoder.user_num_cols,
        **RATING | options,
    )
