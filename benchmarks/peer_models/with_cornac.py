"""Cornac: its next-basket models, and two others. `remove_seen` is off, as it is by default."""

import pandas as pd
from cornac.data import BasketDataset, Dataset
from cornac.models import EASE, UPCF, GPTop, ItemKNN, NextBasketRecommender, Recommender
from cornac.models import TIFUKNN as TIFU
from shop import Shop, lists_of


def upcf(shop: Shop, k: int, **setting) -> pd.DataFrame:
    return _next_basket(UPCF(**setting), shop, k)


def tifuknn(shop: Shop, k: int, **setting) -> pd.DataFrame:
    return _next_basket(TIFU(**setting), shop, k)


def gptop(shop: Shop, k: int, **setting) -> pd.DataFrame:
    return _next_basket(GPTop(**setting), shop, k)


def ease(shop: Shop, k: int, days: float | None, **setting) -> pd.DataFrame:
    return _recommended(EASE(**setting, verbose=False), shop, k, days)


def item_knn(shop: Shop, k: int, days: float | None, neighbours: int, **setting) -> pd.DataFrame:
    model = ItemKNN(**setting, k=neighbours, seed=42, verbose=False)
    return _recommended(model, shop, k, days)


def _recommended(model: Recommender, shop: Shop, k: int, days: float | None) -> pd.DataFrame:
    triples = shop.strengths(days).itertuples(index=False, name=None)
    model.fit(Dataset.from_uir(list(triples)))
    return lists_of(shop.users, (model.recommend(user, k) for user in shop.users))


def _next_basket(model: NextBasketRecommender, shop: Shop, k: int) -> pd.DataFrame:
    rows = shop.receipts.sort_values("ts", kind="stable")[["user_id", "basket_id", "item_id"]]
    data = BasketDataset.from_ubi(list(rows.drop_duplicates().itertuples(index=False, name=None)))
    model.fit(data)
    baskets = {user: items for [user], _, [items] in data.ubi_iter()}
    ids = data.item_ids
    lists = []
    for user in shop.users:
        number = data.uid_map[user]
        order, _ = model.rank(number, history_baskets=baskets[number])
        lists.append([ids[item] for item in order[:k]])
    return lists_of(shop.users, lists)
