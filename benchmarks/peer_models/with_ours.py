"""This repository's own models, by the same rules: what was bought before is not filtered."""

import pandas as pd
from shop import Shop

from recsys_utils import models
from recsys_utils.data.interactions import Interactions
from recsys_utils.ensembles.two_stage import TwoStage


def own_purchases(shop: Shop, k: int, **setting) -> pd.DataFrame:
    return _recommended(models.OwnPurchases(**setting), shop, k)


def item_bm25(shop: Shop, k: int, **setting) -> pd.DataFrame:
    return _recommended(models.ItemCF("bm25", **setting), shop, k)


def als(shop: Shop, k: int, **setting) -> pd.DataFrame:
    return _recommended(models.ALS(**setting), shop, k)


def ease(shop: Shop, k: int, **setting) -> pd.DataFrame:
    return _recommended(models.EASE(**setting), shop, k)


def tifuknn(shop: Shop, k: int, **setting) -> pd.DataFrame:
    return _recommended(models.TIFUKNN(**setting), shop, k)


def upcf(shop: Shop, k: int, **setting) -> pd.DataFrame:
    return _recommended(models.UPCF(**setting), shop, k)


def two_stage(shop: Shop, k: int, **setting) -> pd.DataFrame:
    return _recommended(TwoStage(**setting), shop, k)


def _recommended(model: models.Recommender, shop: Shop, k: int) -> pd.DataFrame:
    catalogue = shop.items["item_id"]
    history = Interactions.of(shop.receipts, shop.items, shop.profiles, shop.as_of, catalogue)
    return model.fit(history).recommend(shop.users, k)[["user_id", "item_id", "rank"]]
