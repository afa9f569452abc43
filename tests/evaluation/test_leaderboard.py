"""The leaderboard: known answers, its columns, who is judged, overlap and ensembles."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from shops import Shop, ranked

from recsys_utils.data.folds import Fold
from recsys_utils.evaluation.leaderboard import (
    COLUMNS,
    KS,
    ensemble_gain,
    leaderboard,
    overlap,
    per_user_values,
)
from recsys_utils.evaluation.metrics import per_user
from recsys_utils.evaluation.slices import STRATA, bought_before, inside, restrict, warm
from recsys_utils.models import ItemCF, OwnPurchases, Popular

METRICS = {
    "precision",
    "recall",
    "ndcg",
    "map",
    "mrr",
    "hit_rate",
    "revenue",
    "revenue_share",
    "coverage",
    "gini",
    "novelty",
    "diversity",
    "repeat_share",
    "mean_price",
}


def oracle(truth: pd.DataFrame) -> pd.DataFrame:
    """Recommends what was then bought, and nothing else."""
    bought = truth[["user_id", "item_id"]].drop_duplicates()
    return ranked(list(bought.itertuples(index=False, name=None)))


@pytest.fixture(scope="module")
def runs(shop: Shop) -> dict[str, pd.DataFrame]:
    models = {"own": OwnPurchases(), "popular": Popular(), "cosine": ItemCF("cosine")}
    runs = {}
    for name, model in models.items():
        runs[name] = model.fit(shop.history).recommend(shop.stage.users, 200)
    return runs | {"oracle": oracle(shop.truth)}


@pytest.fixture(scope="module")
def catalogue(shop_fold: Fold) -> pd.Index:
    return shop_fold.testing.history.item_ids[:80]


@pytest.fixture(scope="module")
def board(runs: dict[str, pd.DataFrame], shop_fold: Fold, catalogue: pd.Index) -> pd.DataFrame:
    return board_of(runs, shop_fold, catalogue)


def board_of(
    runs: dict[str, pd.DataFrame], fold: Fold, catalogue: pd.Index | None = None
) -> pd.DataFrame:
    known = {"family": "x", "fit_seconds": 1.0, "recommend_seconds": 2.0, "tries": 3}
    return leaderboard(runs, pd.DataFrame(known, index=list(runs)), fold, catalogue)


def cell(
    board: pd.DataFrame, model: str, metric: str, k: int = 5, scope: str = "any", who: str = "warm"
) -> pd.Series:
    keys = ["model", "metric", "k", "scope", "users_scope"]
    return board.set_index(keys).loc[(model, metric, k, scope, who)]


@pytest.mark.spec("S3-24")
@pytest.mark.parametrize("k", KS)
def test_an_oracle_gets_what_an_oracle_can_get(board: pd.DataFrame, shop: Shop, k: int) -> None:
    bought = warm(shop.truth, shop.history).groupby("user_id")["item_id"].nunique()
    hits = bought.clip(upper=k)
    expected = {
        "precision": (hits / k).mean(),
        "recall": (hits / bought).mean(),
        "ndcg": 1,
        "mrr": 1,
        "hit_rate": 1,
    }
    for metric, value in expected.items():
        assert cell(board, "oracle", metric, k)["value"] == pytest.approx(value), metric


@pytest.mark.spec("C3")
@pytest.mark.parametrize("scope", ["repeat", "new"])
def test_the_oracle_is_right_in_every_scope(board: pd.DataFrame, scope: str) -> None:
    assert cell(board, "oracle", "ndcg", 5, scope)["value"] == pytest.approx(1)


def test_trap_a_recommender_of_nothing_gets_zero_and_all_users_count(shop: Shop) -> None:
    values = per_user_values({"nothing": ranked([])}, shop.stage)
    assert {scope for scope, _ in values} == {"any", "repeat", "new", *STRATA}
    for key, models in values.items():
        assert len(models["nothing"]), key
        assert models["nothing"].eq(0).all(axis=None), key
    assert values["any", 5]["nothing"].index.tolist() == shop.stage.users.tolist()


@pytest.mark.parametrize("metric", ["precision", "coverage"])
def test_a_model_of_nothing_does_not_stop_the_leaderboard(shop_fold: Fold, metric: str) -> None:
    board = board_of({"nothing": ranked([])}, shop_fold)
    assert cell(board, "nothing", metric)["value"] == 0


def test_what_was_bought_before_is_taken_out_of_lists_of_new_items(shop: Shop) -> None:
    recs = OwnPurchases(None).fit(shop.history).recommend(shop.stage.users, 200)
    assert not bought_before(restrict(recs, "new", shop.history), shop.history).any()


def test_an_oracle_of_cold_users_gets_nothing_among_warm_ones(shop_fold: Fold) -> None:
    strangers = shop_fold.test[:3].assign(user_id="stranger")
    fold = replace(shop_fold, test=pd.concat([shop_fold.test, strangers]))
    board = board_of({"cold": oracle(strangers)}, fold)
    assert cell(board, "cold", "hit_rate", who="cold")["value"] == 1
    assert cell(board, "cold", "hit_rate", who="warm")["value"] == 0


def test_the_leaderboard_has_its_columns_and_one_row_per_number(board: pd.DataFrame) -> None:
    assert tuple(board.columns) == COLUMNS
    assert not board.duplicated(["model", "scope", "users_scope", "metric", "k"]).any()
    assert board["dataset"].unique().tolist() == ["synthetic"]
    assert board["protocol"].unique().tolist() == ["window"]
    assert board["fold"].unique().tolist() == ["2025-06-10"]
    assert set(board["k"]) == set(KS)
    assert set(board["scope"]) == {"any", "repeat", "new", "prefiltered", *STRATA}
    assert set(board["metric"]) == METRICS


def test_its_values_are_means_over_warm_users(board: pd.DataFrame, runs, shop: Shop) -> None:
    mean = per_user(runs["own"], warm(shop.truth, shop.history), 5).mean()
    for metric, value in mean.items():
        assert cell(board, "own", metric)["value"] == pytest.approx(value), metric


def test_trap_judged_users_are_everyone_not_the_served_or_heavy(
    board: pd.DataFrame, runs, shop: Shop, shop_fold: Fold
) -> None:
    """A model that serves one shopper well is divided by all of them."""
    users = warm(shop.truth, shop.history)["user_id"]
    assert cell(board, "own", "precision")["users"] == users.nunique()
    recs = runs["oracle"]
    one = board_of({"one": recs[recs["user_id"] == users.iloc[0]]}, shop_fold)
    hit_rate = cell(one, "one", "hit_rate")
    assert hit_rate["users"] == users.nunique()
    assert hit_rate["value"] == pytest.approx(1 / users.nunique())


def test_intervals_contain_their_values(board: pd.DataFrame) -> None:
    rows = board.dropna(subset=["lo"])
    assert (rows["lo"] <= rows["value"] + 1e-9).all()
    assert (rows["value"] <= rows["hi"] + 1e-9).all()
    assert (rows["lo"] < rows["hi"]).any()


@pytest.mark.parametrize("k", KS)
def test_hits_in_the_strata_of_popularity_are_all_hits(shop: Shop, runs, k: int) -> None:
    values = per_user_values(runs, shop.stage)
    for model in runs:
        hits = [values[stratum, k][model]["precision"].sum() for stratum in STRATA]
        assert sum(hits) == pytest.approx(values["any", k][model]["precision"].sum()), model


def test_the_bestsellers_find_nothing_in_the_tail(board: pd.DataFrame) -> None:
    recall = {s: cell(board, "popular", "recall", 10, s)["value"] for s in STRATA}
    assert recall["head"] > recall["tail"] == 0


@pytest.mark.spec("C7")
def test_the_leaderboard_is_seeded(board, runs, shop_fold: Fold, catalogue: pd.Index) -> None:
    pd.testing.assert_frame_equal(board_of(runs, shop_fold, catalogue), board)


@pytest.mark.spec("S3-02")
def test_the_heavy_subset_is_reported_apart(board, shop: Shop, catalogue: pd.Index) -> None:
    bought = shop.truth[inside(shop.truth, catalogue)].groupby("user_id")["item_id"].nunique()
    heavy = board[board["users_scope"] == "heavy"]
    assert set(heavy["scope"]) == {"prefiltered"}
    assert (heavy["users"] == (bought >= 5).sum()).all()
    assert cell(board, "oracle", "precision", 5, "prefiltered", "heavy")["value"] == 1


def test_overlap_by_hand() -> None:
    a = ranked([("u", "x"), ("u", "y"), ("v", "x")])
    b = ranked([("u", "y"), ("u", "x"), ("v", "z")])
    c = ranked([("u", "q"), ("u", "r"), ("v", "q")])
    shares = overlap({"a": a, "b": b, "c": c}, k=2)
    assert np.diag(shares).tolist() == [1, 1, 1]
    assert shares.loc["a", "b"] == pytest.approx(2 / 3)
    assert shares.loc["a", "c"] == 0
    assert overlap({"a": a, "b": b}, k=1).loc["a", "b"] == 0


def test_overlap_of_real_lists(runs: dict[str, pd.DataFrame]) -> None:
    shares = overlap({name: runs[name] for name in ("own", "popular", "cosine")}, 5)
    assert np.allclose(np.diag(shares), 1)
    assert np.allclose(shares, shares.T)
    assert shares.loc["own", "popular"] < 1


def test_ensemble_gain_is_at_least_the_better_model(runs, shop: Shop) -> None:
    values = per_user_values(runs, shop.stage)["any", 5]
    gain = ensemble_gain(values)
    alone = pd.Series({name: frame["hit_rate"].mean() for name, frame in values.items()})
    assert np.allclose(np.diag(gain), alone)
    assert np.allclose(gain, gain.T)
    assert (gain.to_numpy() >= np.maximum.outer(alone.to_numpy(), alone.to_numpy())).all()
