"""For notebook 09 and the ratings benchmark: rating errors, learning curves, a map of items."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from sklearn.manifold import TSNE

from recsys_utils.data.folds import Fold
from recsys_utils.data.interactions import Interactions
from recsys_utils.data.registry import spec
from recsys_utils.data.tables import load
from recsys_utils.models.towers.network import TwoTowerHybrid
from recsys_utils.models.towers.ratings import RATING, best_epochs, columns, fit_ratings, fit_whole
from recsys_utils.models.towers.standalone import (
    StandaloneRecommender,
    format_rating,
    save_recommender,
)
from recsys_utils.models.towers.training import (
    NAMES,
    Prepared,
    prepare,
    product_names,
    transactions,
)
from recsys_utils.models.towers.two_tower import TwoTower
from recsys_utils.report import figures
from recsys_utils.store import data_dir


def rating_parts(fold: Fold) -> Prepared | None:
    """The fold's rated transactions, cut 70/15/15 by date and encoded.

    None where the receipts hold no ratings.
    """
    purchases = pd.concat([fold.train, fold.valid, fold.test], ignore_index=True)
    if "rating" not in purchases or purchases["rating"].notna().sum() < 1_000:
        return None
    rows = transactions(purchases, fold.users, fold.items)
    return prepare(rows, *columns(rows), mode="rating", negatives=0)


def stars(labels: np.ndarray) -> np.ndarray:
    """Soft labels or probabilities as ratings 1 to 5."""
    return 1 + 4 * np.asarray(labels, float)


@torch.inference_mode()
def predicted(model: TwoTowerHybrid, parts: Prepared) -> np.ndarray:
    """Ratings of the test part as the service would give them.

    A customer is known by the profile of the training part's end, not by what the rows say.
    """
    data = parts.test
    user_cat, user_num, item_cat, _ = data.rows(torch.arange(len(data.user)))
    profile_cat, profile_num = parts.encoder.users(parts.assets["user_profiles"])
    row_of = np.full(parts.encoder.user_cat_sizes[parts.encoder.user_cat_cols[0]], -1)
    row_of[profile_cat[:, 0]] = np.arange(len(profile_cat))
    row = row_of[user_cat[:, 0].numpy()]
    is_known = torch.as_tensor((row >= 0) & (user_cat[:, 0].numpy() > 0))
    user_cat[is_known] = torch.as_tensor(profile_cat[row])[is_known]
    user_num[is_known] = torch.as_tensor(profile_num[row])[is_known]
    return stars(model(user_cat, user_num, item_cat[:, 0]))


def guesses(models: Mapping[str, TwoTowerHybrid], parts: Prepared) -> dict[str, np.ndarray]:
    """Ratings of the test part by the constant mean, by user and item means, and by each model."""
    train = stars(parts.train.label[:, 0])
    simple = {
        "constant mean": np.full(len(parts.test.user), train.mean()),
        "user and item means": _means(parts, train),
    }
    return simple | {name: predicted(model, parts) for name, model in models.items()}


def rating_errors(models: Mapping[str, TwoTowerHybrid], parts: Prepared) -> pd.DataFrame:
    """MAE and RMSE on the test part, best first.

    Of each model, of the constant mean, and of user and item means.
    """
    truth = stars(parts.test.label[:, 0])
    rows = {
        name: {
            "MAE": np.abs(g - truth).mean(),
            "RMSE": np.sqrt(((g - truth) ** 2).mean()),
            "lowest": g.min(),
            "highest": g.max(),
        }
        for name, g in guesses(models, parts).items()
    }
    return pd.DataFrame(rows).T.sort_values("MAE", kind="stable").round(3)


def _means(parts: Prepared, train: np.ndarray, damping: float = 5.0) -> np.ndarray:
    """Mean + item deviation + user deviation, each shrunk by `damping` ratings (Koren 2009).

    The deviation of an unseen user or item is 0.
    """
    result = np.full(len(parts.test.user), train.mean())
    rest = train - train.mean()
    for key in ("item", "user"):
        seen = getattr(parts.train, key)
        asked = getattr(parts.test, key)
        size = max(seen.max(), asked.max()) + 1
        effect = np.bincount(seen, rest, size) / (np.bincount(seen, minlength=size) + damping)
        result = result + np.where(asked >= 0, effect[asked], 0)
        rest = rest - effect[seen]
    return np.clip(result, 1, 5)


def learning_curves(log: Sequence[Mapping], ax: Axes | None = None) -> Axes:
    """Training and validation loss by epoch."""
    frame = pd.DataFrame(log).melt("epoch", ["train_loss", "val_loss"], "part", "loss")
    return figures.curve(
        frame.replace({"train_loss": "train", "val_loss": "validation"}),
        "epoch",
        "loss",
        "part",
        ax,
    )


def item_map(
    model: TwoTower, data: Interactions, per_group: int = 3, groups: int = 8, items: int = 600
) -> Axes:
    """The vectors of the most popular items in two dimensions (t-SNE of cosines).

    Coloured by category; a few items of each category are named.
    """
    unit = model.item_vectors_ / np.maximum(
        np.linalg.norm(model.item_vectors_, axis=1, keepdims=True), 1e-9
    )
    kind = (
        data.items["category"].astype(str)
        if "category" in data.items
        else pd.Series("all items", data.item_ids)
    )
    name = (
        data.items["name"].astype(str)
        if "name" in data.items
        else pd.Series(data.item_ids, data.item_ids)
    )
    top = kind[data.sold].value_counts().index[:groups]
    shown = np.flatnonzero(kind.isin(top) & data.sold)[:items]
    place = TSNE(
        2,
        perplexity=max(1, min(30, (len(shown) - 1) // 3)),
        metric="cosine",
        init="random",
        random_state=0,
    ).fit_transform(unit[shown])
    x, y = (pd.Series(axis) for axis in place.T)
    ax = plt.subplots(figsize=(9, 6.5), layout="constrained")[1]
    named = []
    for shade, group in zip(plt.get_cmap("tab10").colors, top):
        mine = np.flatnonzero(kind.iloc[shown] == group)
        ax.scatter(x[mine], y[mine], s=16, color=shade, alpha=0.7, lw=0, label=group)
        named += _apart(x, y, mine, named, per_group)
    ax.set(xticks=[], yticks=[])
    ax.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=min(8, groups),
        frameon=False,
        fontsize=8,
        columnspacing=1,
        handletextpad=0.1,
    )
    for n in named:
        ax.annotate(
            textwrap.shorten(name.iloc[shown[n]], 26, placeholder="…").replace("$", r"\$"),
            (x[n], y[n]),
            (3, 3),
            textcoords="offset points",
            fontsize=7,
        )
        ax.scatter(x[n], y[n], s=30, facecolors="none", edgecolors="black", linewidths=0.8)
    return ax


def _apart(
    x: pd.Series, y: pd.Series, candidates: np.ndarray, named: list[int], most: int
) -> list[int]:
    """The first candidates whose names would not lie on another's."""
    result = []
    for n in candidates[:40]:
        far = ((x[named + result] - x[n]).abs() > 0.2 * np.ptp(x)) | (
            (y[named + result] - y[n]).abs() > 0.03 * np.ptp(y)
        )
        if far.all() and x[n] < x.min() + 0.82 * np.ptp(x) and len(result) < most:
            result.append(int(n))
    return result


def search(parts: Prepared, trials: int, seed: int = 42, **options: object) -> pd.DataFrame:
    """The rating model's defaults and random draws of a few parameters, best first.

    Judged by validation loss only.
    """
    rng = np.random.default_rng(seed)
    rows = []
    space = {
        "dim": [16, 32, 64],
        "l2": [3e-3, 1e-2, 3e-2],
        "lr": [3e-3, 5e-3, 1e-2],
        "similarity": ["dot", "cosine"],
    }
    for trial in range(trials):
        drawn = {
            name: values[rng.integers(len(values))] if trial else RATING[name]
            for name, values in space.items()
        }
        model = fit_ratings(parts, **options | drawn, seed=seed)
        rows.append(
            {
                **drawn,
                "epochs": best_epochs(model),
                "val_loss": min(row["val_loss"] for row in model.log),
                "model": model,
            }
        )
    return pd.DataFrame(rows).sort_values("val_loss", kind="stable", ignore_index=True)


def serve(fold: Fold, epochs: int, lists: TwoTower, **options: object) -> StandaloneRecommender:
    """Fit what was judged once more on everything, save it below the data set's folder, open it.

    epochs, options: of the rating towers. lists: the towers for lists, as they were recorded.
    """
    everything = load(fold.dataset)
    rows = transactions(everything.purchases, everything.users, everything.items)
    model, whole = fit_whole(rows, epochs, **options)
    vectors = replace(lists).fit(everything.interactions()).vectors()
    paths = save_recommender(
        model,
        whole.encoder,
        whole.assets,
        whole.stats,
        data_dir(spec(fold.dataset).name, "two_tower"),
        rows["Date"].max(),
        vectors.renamed(NAMES, product_names(everything.items)),
    )
    return StandaloneRecommender(
        **paths,
        user_cat_cols=whole.encoder.user_cat_cols,
        user_num_cols=whole.encoder.user_num_cols,
        item_cat_cols=whole.encoder.item_cat_cols,
    )


def as_table(listed: Sequence[tuple[dict, float]]) -> pd.DataFrame:
    """A standalone list for reading: each product's attributes and its rating out of five."""
    return pd.DataFrame(
        [{**item, "rating": format_rating(rating)} for item, rating in listed],
        index=range(1, len(listed) + 1),
    )
