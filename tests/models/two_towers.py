"""Two towers on a table of transactions: train and save once, then serve from the files alone."""

import sys
from pathlib import Path

import recsys_utils  # noqa: F401 - before numpy, so that every machine computes alike

# isort: split
import numpy as np
import pandas as pd

COLUMNS = {
    "user_cat_cols": ["Customer_ID", "Gender", "City"],  # the id first
    "user_num_cols": ["Age"],
    "item_cat_cols": ["products", "Product_Category"],  # the product first
}


def made_up(rows: int = 3_000) -> pd.DataFrame:
    """Transactions with ratings: women like books, men like tools."""
    rng = np.random.default_rng(0)
    who = rng.integers(0, 150, rows)
    item = rng.integers(0, 20, rows)
    likes = (who % 2) == (item % 2)
    return pd.DataFrame(
        {
            "Customer_ID": 1000 + who,
            "Gender": np.where(who % 2, "Female", "Male"),
            "City": np.array(["London", "Paris", "Rome"])[who % 3],
            "Age": 18 + who % 50,
            "products": np.char.add("product ", item.astype(str)),
            "Product_Category": np.where(item % 2, "Books", "Tools"),
            "Date": pd.Timestamp("2025-01-01") + pd.to_timedelta(rng.integers(0, 300, rows), "D"),
            "Ratings": np.clip(np.where(likes, 4.5, 1.5) + rng.normal(0, 0.5, rows), 1, 5).round(),
        }
    )


def train(folder: Path) -> None:
    """Fit on the first 70 % of the dates, stop by the next 15 %, write the files."""
    from recsys_utils.models.towers.standalone import save_recommender
    from recsys_utils.models.towers.training import prepare, train_two_tower_model

    parts = prepare(made_up(), **COLUMNS, mode="rating", negatives=0)
    sizes = parts.encoder.user_cat_sizes, parts.encoder.item_cat_sizes
    model = train_two_tower_model(parts.train, parts.val, *sizes, COLUMNS["user_num_cols"])
    save_recommender(model, parts.encoder, parts.assets, parts.stats, folder)


def serve(folder: Path) -> None:
    """Three calls, in a process that never saw the transactions."""
    from recsys_utils.models.towers.standalone import StandaloneRecommender

    shop = StandaloneRecommender(
        folder / "best_two_tower_model.safetensors",
        folder / "preproc_artifacts.json",
        folder / "recommendation_assets",
        **COLUMNS,
    )
    print(shop.recommend_for_user(1001, top_k=3))
    print(shop.recommend_for_new_user({"Gender": "Male", "Age": 30}, top_k=3))
    print(f"{shop.predict_rating(1001, 'product 4'):.2f}/5.0")


if __name__ == "__main__":
    {"train": train, "serve": serve}[sys.argv[1]](Path(sys.argv[2]))
