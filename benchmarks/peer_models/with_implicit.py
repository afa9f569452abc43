"""implicit: item neighbours and a factorization. What was bought before is not filtered."""

import numpy as np
import pandas as pd
from implicit.als import AlternatingLeastSquares
from implicit.nearest_neighbours import BM25Recommender, CosineRecommender, TFIDFRecommender
from scipy import sparse
from shop import Shop, lists_of


def bm25(shop: Shop, k: int, days: float | None, **setting) -> pd.DataFrame:
    return _recommended(BM25Recommender(**setting, num_threads=1), shop, k, days)


def tfidf(shop: Shop, k: int, days: float | None, **setting) -> pd.DataFrame:
    return _recommended(TFIDFRecommender(**setting, num_threads=1), shop, k, days)


def cosine(shop: Shop, k: int, days: float | None, **setting) -> pd.DataFrame:
    return _recommended(CosineRecommender(**setting, num_threads=1), shop, k, days)


def als(shop: Shop, k: int, days: float | None, **setting) -> pd.DataFrame:
    model = AlternatingLeastSquares(**setting, num_threads=1, random_state=42)
    return _recommended(model, shop, k, days)


def _recommended(model, shop: Shop, k: int, days: float | None) -> pd.DataFrame:
    pairs = shop.strengths(days)
    user = pairs["user_id"].astype("category").cat
    item = pairs["item_id"].astype("category").cat
    weights = pairs["weight"].astype(np.float32)
    matrix = sparse.csr_matrix((weights, (user.codes, item.codes)))
    model.fit(matrix, show_progress=False)
    rows = user.categories.get_indexer(shop.users)
    found, _ = model.recommend(rows, matrix[rows], k, filter_already_liked_items=False)
    return lists_of(shop.users, ([item.categories[n] for n in row if n >= 0] for row in found))
