"""LensKit: item neighbours, ALS and EASE. Its selector of candidates excludes nothing."""

import pandas as pd
from lenskit.als import ImplicitMFScorer
from lenskit.basic import TrainingItemsCandidateSelector
from lenskit.batch import recommend
from lenskit.data import from_interactions_df
from lenskit.knn import EASEScorer, ItemKNNScorer
from lenskit.pipeline import Component, RecPipelineBuilder
from lenskit.training import TrainingOptions
from shop import Shop


def item_knn(shop: Shop, k: int, **setting) -> pd.DataFrame:
    scorer = ItemKNNScorer(feedback="implicit", **setting)
    return _recommended(scorer, shop, k, None)


def als(shop: Shop, k: int, days: float | None, **setting) -> pd.DataFrame:
    scorer = ImplicitMFScorer(use_ratings=True, **setting)
    return _recommended(scorer, shop, k, days)


def ease(shop: Shop, k: int, **setting) -> pd.DataFrame:
    return _recommended(EASEScorer(**setting), shop, k, None)


def _recommended(scorer: Component, shop: Shop, k: int, days: float | None) -> pd.DataFrame:
    rows = shop.strengths(days).rename(columns={"weight": "rating"})
    data = from_interactions_df(rows)
    builder = RecPipelineBuilder()
    builder.scorer(scorer)
    builder.candidate_selector(TrainingItemsCandidateSelector, {"exclude": None})
    pipeline = builder.build()
    pipeline.train(data, TrainingOptions(rng=42))
    found = recommend(pipeline, shop.users, k, n_jobs=1).to_df()
    return found[["user_id", "item_id", "rank"]]
