"""RecTools: models of its own and wrapped ones. `filter_viewed` is off."""

from datetime import timedelta

import pandas as pd
from implicit.als import AlternatingLeastSquares
from implicit.nearest_neighbours import BM25Recommender
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import (
    EASEModel,
    ImplicitALSWrapperModel,
    ImplicitItemKNNWrapperModel,
    PopularModel,
)
from rectools.models.base import ModelBase
from shop import Shop


def item_knn(shop: Shop, k: int, days: float | None, **setting) -> pd.DataFrame:
    model = ImplicitItemKNNWrapperModel(BM25Recommender(**setting, num_threads=1))
    return _recommended(model, shop, k, days)


def als(shop: Shop, k: int, days: float | None, **setting) -> pd.DataFrame:
    inner = AlternatingLeastSquares(**setting, num_threads=1, random_state=42)
    return _recommended(ImplicitALSWrapperModel(inner), shop, k, days)


def ease(shop: Shop, k: int, days: float | None, **setting) -> pd.DataFrame:
    model = EASEModel(**setting, recommend_n_threads=1, recommend_use_gpu_ranking=False)
    return _recommended(model, shop, k, days)


def popular(shop: Shop, k: int, period: int, **setting) -> pd.DataFrame:
    begin = shop.as_of - timedelta(days=period)
    rows = shop.receipts.rename(columns={"ts": Columns.Datetime})
    model = PopularModel(**setting, begin_from=begin)
    return _lists(model, rows.assign(**{Columns.Weight: 1.0}), shop, k)


def _recommended(model: ModelBase, shop: Shop, k: int, days: float | None) -> pd.DataFrame:
    rows = shop.strengths(days).assign(**{Columns.Datetime: shop.as_of})
    return _lists(model, rows, shop, k)


def _lists(model: ModelBase, rows: pd.DataFrame, shop: Shop, k: int) -> pd.DataFrame:
    columns = [Columns.User, Columns.Item, Columns.Weight, Columns.Datetime]
    data = Dataset.construct(rows[columns])
    found = model.fit(data).recommend(shop.users, data, k, filter_viewed=False)
    return found[[Columns.User, Columns.Item, Columns.Rank]]
