"""Items and users as the API shows them."""

import numpy as np
import pandas as pd

from recsys_utils.serving.answers import Bought, Item, PopularItem, Profile, SimilarItem
from recsys_utils.serving.answers_live import Shown
from recsys_utils.serving.artifacts import OUT, UNKNOWN, Artifacts
from recsys_utils.serving.confidence import of_places
from recsys_utils.serving.lists import STOCK, STRANGER, Target
from recsys_utils.serving.service import Loaded, number_or_none

HISTORY = 20  # latest items of a profile
DEEP = 200  # similar items that are looked through for those in stock
# what the receipts tell, and a file of clients may tell otherwise
COUNTED = ("total_purchases", "amount", "baskets", "order_status")


def popular(art: Artifacts, n: int) -> list[PopularItem]:
    """What sells best by the hybrid's popularity."""
    model = art.hybrid
    best = np.argsort(-model.popularity, kind="stable")[:n].tolist()
    score = model.popularity / max(model.popularity.max(), 1e-12)
    cells = art.cells_of("any")
    sure = None if cells is None else of_places(cells, "popularity", np.arange(1, n + 1), 0)
    lines = art.items["lines"].to_numpy()
    stock = art.stock_of(STRANGER)
    return [
        PopularItem(
            item_id=art.items.index[i],
            item_name=art.names[i],
            category=art.categories[i],
            item_price=number_or_none(model.price_[i]),
            stock=STOCK[stock[i]],
            popularity_score=float(score[i]),
            confidence_score=None if sure is None else float(sure[place]),
            purchase_count=int(lines[i]),
            unique_buyers=int(model.shoppers_[i]),
        )
        for place, i in enumerate(best)
    ]


def similar(art: Artifacts, item: int, n: int, in_stock_only: bool = False) -> list[SimilarItem]:
    """Items bought with one, most alike first; on request none that is sold out."""
    rows = art.hybrid.similar(art.items.index[item], DEEP if in_stock_only else n)
    rows = rows[rows["score"] > 0]
    others = art.items.index.get_indexer(rows["item_id"])
    if in_stock_only:
        is_there = art.stock_of(STRANGER)[others] != OUT
        rows = rows[is_there].head(n)
        others = others[is_there][:n]
    mine = art.buyers[:, [item]]
    both = np.asarray(art.buyers[:, others].multiply(mine).sum(axis=0)).ravel() / max(1, mine.nnz)
    stock = art.stock_of(STRANGER)
    return [
        SimilarItem(
            item_id=art.items.index[i],
            item_name=art.names[i],
            category=art.categories[i],
            relevance_score=min(max(float(score), 0), 1),
            confidence_score=float(share),
            item_price=number_or_none(art.hybrid.price_[i]),
            stock=STOCK[stock[i]],
        )
        for i, score, share in zip(others.tolist(), rows["score"], both)
    ]


def queue_rows(art: Artifacts, user: str, rows: pd.DataFrame) -> list[Shown]:
    """Rows of a queue with what the shop knows of the products.

    Columns rank, item_id, score, counter, source, purchase_probability. The queue may hold products
    that the shop does not know.
    """
    rows = rows.astype({"purchase_probability": object})
    rows = rows.where(rows.notna(), None)
    codes = art.items.index.get_indexer(rows["item_id"])
    stock = np.append(art.stock_of(user), UNKNOWN)
    price = np.append(art.hybrid.price_, np.nan)
    categories = np.append(art.categories, None)
    return [
        Shown(
            **row,
            item_name=art.name_of.get(row["item_id"], row["item_id"]),
            category=categories[i],
            item_price=number_or_none(price[i]),
            stock=STOCK[stock[i]],
        )
        for i, row in zip(codes.tolist(), rows.to_dict("records"))
    ]


def catalogue(art: Artifacts, words: str, limit: int) -> dict:
    """Items that have the words in name, id or category; how many do, and every category."""
    found = np.flatnonzero(art.text.str.contains(words.strip().casefold(), regex=False).to_numpy())
    stock = art.stock_of(STRANGER)
    rows = [
        Item(
            item_id=art.items.index[i],
            item_name=art.names[i],
            category=art.categories[i],
            item_price=number_or_none(art.hybrid.price_[i]),
            stock=STOCK[stock[i]],
        )
        for i in found[:limit].tolist()
    ]
    return {
        "count": len(found),
        "items": rows,
        "categories": sorted({c for c in art.categories if c}),
    }


def users(now: Loaded, words: str, limit: int, offset: int) -> dict:
    """Ids of loyal and new users that hold some words."""
    model = now.art.hybrid
    ids = pd.Series(model.user_ids_.to_numpy(object))
    found = ids.str.casefold().str.contains(words.strip().casefold(), regex=False).to_numpy()
    loyal = np.diff(model.line_start_) >= model.knobs.loyal_purchases
    groups = {name: ids[found & rows] for name, rows in (("loyal", loyal), ("new", ~loyal))}
    return {f"{name}_count": len(group) for name, group in groups.items()} | {
        "users": {
            name: group.iloc[offset : offset + limit].tolist() for name, group in groups.items()
        }
    }


def profile(target: Target) -> Profile:
    """Attributes and the latest items of a user."""
    art = target.artifacts
    shopper = target.shopper
    attributes = art.attributes(target.query.user_id)
    lines = pd.DataFrame({"item": shopper.items, "days": shopper.days})
    items = lines.groupby("item")["days"].agg(["size", "min"])
    latest = items.sort_values("min", kind="stable").head(HISTORY)
    history = [
        Bought(
            item_id=art.items.index[row.Index],
            item_name=art.names[row.Index],
            times=row.times,
            last_purchase_date=(shopper.moment - pd.Timedelta(days=row.last)).round("us"),
        )
        for row in latest.set_axis(["times", "last"], axis=1).itertuples()
    ]
    known = {
        name: value for name, value in attributes.items() if pd.notna(value) and name not in COUNTED
    }
    return Profile(attributes=known, history=history)
