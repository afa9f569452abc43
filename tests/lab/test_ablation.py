"""Notebook 10's numbers: recall before a ranker, what parts are worth, the original's claim.

Its stage 2 row by row.
"""

from dataclasses import replace
from pathlib import Path

import lightgbm
import numpy as np
import pandas as pd
import pytest
from lab import ablation as study
from lab.ablation import (
    ORIGINAL,
    Bench,
    ablation,
    bench,
    catalogue,
    claim,
    groups,
    learnt,
    precision,
    record_within,
    relabelled,
)
from shops import Shop, cut_shop, receipts

from recsys_utils.data.folds import Fold, Stage
from recsys_utils.data.interactions import Interactions
from recsys_utils.data.prefilter import OTHER
from recsys_utils.ensembles import two_stage
from recsys_utils.ensembles.candidates import TOGETHER, Candidates, held, recall_curve, together
from recsys_utils.ensembles.two_stage import GENERATORS, Examples, TwoStage, train
from recsys_utils.evaluation import slices
from recsys_utils.evaluation.metrics import per_user
from recsys_utils.models.base import load_model

SMALL = {"rounds": 20, "leaves": 7, "min_leaf": 5, "objective": "lambdarank"}
SMALL3 = ORIGINAL | SMALL | {"objective": "binary"}


@pytest.fixture(scope="module")
def larger() -> Shop:
    return cut_shop(lines=20_000, seed=5)


@pytest.fixture(scope="module")
def made(larger: Shop) -> Bench:
    return bench(TwoStage(windows=2, **SMALL), larger.stage)


@pytest.fixture(scope="module")
def kept(larger: Shop) -> pd.Index:
    """A catalogue of most of what is sold, bestsellers left out."""
    return larger.history.item_ids[larger.history.sold][5:]


@pytest.fixture(scope="module")
def original(larger: Shop, kept: pd.Index) -> tuple[TwoStage, Interactions]:
    data = relabelled(larger.history, kept)
    return TwoStage(**SMALL3).fit(data), data


# ---- candidates


@pytest.mark.spec("S3-21")
def test_candidate_recall_is_that_of_lists_cut_at_every_depth(larger: Shop, made: Bench) -> None:
    truth = slices.warm(larger.truth, larger.history)[["user_id", "item_id"]].drop_duplicates()
    table = recall_curve(
        made.generators, made.model.weights, larger.truth, larger.history, (1, 5, 20)
    )
    users = larger.history.user_ids.get_indexer(sorted(set(truth["user_id"])))
    for row in table.itertuples():
        weights = {name: float(name == row.generator) for name in made.generators}
        if row.generator == TOGETHER:
            weights = made.model.weights
        pairs = together(made.generators, users, weights, row.n)
        assert row.recall == pytest.approx(held(pairs, truth, larger.history).sum() / len(truth))
        assert len(pairs) == row.n * len(users)
    assert table["recall"].nunique() > 10


@pytest.mark.spec("S3-21")
def test_candidate_recall_by_hand(tiny: pd.DataFrame) -> None:
    """ann bought milk, bread, jam.

    Then milk, beer and something unheard of: own purchases hold 1 of 3, the whole catalogue 2.
    """
    data = Interactions.of(tiny)
    truth = pd.DataFrame(
        [("ann", "milk"), ("ann", "milk"), ("ann", "beer"), ("ann", "rum"), ("dan", "milk")],
        columns=["user_id", "item_id"],
    )
    own = {"own": two_stage.OwnPurchases(None).fit(data)}
    table = recall_curve(own, {"own": 1}, truth, data, (1, 4)).set_index(["generator", "n"])
    assert table.loc[("own", 1), "recall"] == pytest.approx(1 / 3)
    assert table.loc[("own", 4), "recall"] == pytest.approx(2 / 3)
    assert table.loc[(TOGETHER, 4), "recall"] == pytest.approx(2 / 3)


# ---- the bench and the ablation


def toy() -> Bench:
    """Two judged users with two generators, `own` (2 items) and `popular` (1).

    Their codes are 3 and 7; user 9 has no candidates.
    """
    user = np.array([3, 3, 3, 7, 7, 7], np.int32)
    item = np.array([0, 4, 8, 0, 1, 2], np.int32)
    own = np.array([0, 9, 8, 7, 0, 6], np.float32)
    table = pd.DataFrame(
        {"pair_times": own, "rank_own": [2, 0, 1, 0, 2, 1], "rank_popular": [0, 1, 2, 0, 1, 2]},
        dtype=np.float32,
    )
    asked = Examples(
        Candidates(user, item, {"own": own, "popular": -item.astype(np.float32)}),
        table,
        np.array([1, 1, 0, 0, 0, 1], bool),
    )
    return Bench(TwoStage(), {}, [], asked, np.array([3, 7, 9]), 4)


@pytest.mark.spec("S3-24")
def test_precision_by_hand() -> None:
    b = toy()
    assert precision(b, b.asked.pairs.scores["own"], 1).tolist() == [1, 0, 0]
    assert precision(b, b.asked.pairs.scores["own"], 2).tolist() == [0.5, 0.5, 0]
    assert precision(b, b.asked.pairs.scores["popular"], 1).tolist() == [1, 0, 0]
    assert precision(b, np.zeros(6), 1).tolist() == [
        1,
        0,
        0,
    ]  # ties: the more popular item, the lower code
    assert precision(b, b.asked.pairs.scores["own"]).tolist() == [
        0.4,
        0.2,
        0,
    ]  # short lists divide by k too


@pytest.mark.spec("S3-24")
def test_precision_is_the_judge_s(larger: Shop, made: Bench) -> None:
    score = learnt(made)
    frame = pd.DataFrame(
        {
            "user_id": larger.history.user_ids[made.asked.pairs.user],
            "item_id": larger.history.item_ids[made.asked.pairs.item],
            "score": score,
        }
    )
    frame["rank"] = (
        frame.groupby("user_id")["score"].rank(ascending=False, method="first").astype(int)
    )
    truth = slices.warm(larger.truth, larger.history)
    assert np.allclose(precision(made, score), per_user(frame, truth, 5)["precision"])


@pytest.mark.spec("S3-27")
def test_without_a_generator_its_columns_are_gone() -> None:
    b = toy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(GENERATORS, "lab", {"own": (None, 1), "popular": (None, 1)})
        without = {name: v for kind, name, v, _ in study._variants(b) if kind == "generators"}
    assert without["scores of own"].asked.table.columns.tolist() == ["pair_times", "rank_popular"]
    assert without["scores of popular"].asked.table.columns.tolist() == ["pair_times", "rank_own"]
    assert without["scores of own"].asked.pairs.item.tolist() == b.asked.pairs.item.tolist()
    assert b.asked.table.shape == (6, 3)  # the bench itself is left as it was


@pytest.mark.spec("S3-27")
def test_ablation_recomputed_by_hand(larger: Shop, made: Bench) -> None:
    """Change of one group of features, one generator and one order, with LightGBM called here."""
    table = ablation(made).set_index("without")
    assert table.columns.tolist() == ["kind", "precision", "change", "low", "high"]
    assert set(table["kind"]) == {"features", "generators", "ranker"}
    assert (table["low"] <= table["change"]).all()
    assert (table["change"] <= table["high"]).all()
    full = precision(made, learnt(made))

    def judged(columns: list[str]) -> np.ndarray:
        data = lightgbm.Dataset(
            np.concatenate([e.table[columns] for e in made.examples]),
            np.concatenate([e.bought for e in made.examples]).astype(np.float32),
            group=np.concatenate([e.sizes for e in made.examples]),
        )
        frame = pd.DataFrame({"user": made.asked.pairs.user, "bought": made.asked.bought})
        frame["score"] = 0.0
        for options in made.model.options():
            score = lightgbm.train(options, data).predict(made.asked.table[columns].to_numpy())
            frame["score"] += (score - score.mean()) / score.std()
        best = (
            frame.sort_values(["user", "score"], ascending=[True, False], kind="stable")
            .groupby("user")
            .head(5)
        )
        return best.groupby("user")["bought"].sum().reindex(made.users, fill_value=0).to_numpy() / 5

    gone = ("score_own", "share_own", "rank_own")
    by_hand = {
        "price features": judged([c for c in made.asked.table if not c.startswith("price_")]),
        "scores of own": judged([c for c in made.asked.table if c not in gone]),
    }
    for name, values in by_hand.items():
        assert table.loc[name, "precision"] == pytest.approx(values.mean())
        assert table.loc[name, "change"] == pytest.approx(values.mean() - full.mean())
    assert table.loc["order of popularity", "precision"] == pytest.approx(
        precision(made, -made.asked.pairs.item.astype(float)).mean()
    )
    assert table.loc["order of popularity", "high"] < 0


@pytest.mark.spec("S3-27")
def test_the_same_model_changes_nothing(made: Bench) -> None:
    assert np.array_equal(learnt(made), learnt(made))


@pytest.mark.spec("S3-18")
def test_groups_are_told_by_prefix_and_hold_every_column_once(made: Bench) -> None:
    made_groups = groups(made.asked.table)
    assert {"pair", "user", "item", "price", "scores"} <= set(made_groups)
    assert sorted(c for columns in made_groups.values() for c in columns) == sorted(
        made.asked.table.columns
    )
    assert all(c.split("_")[0] in ("score", "share", "rank") for c in made_groups["scores"])


def test_fewer_rows_keep_all_that_was_bought(larger: Shop, made: Bench) -> None:
    some = bench(made.model, larger.stage, rows=3_000)
    for few, all_of_it in zip(some.examples, made.examples):
        assert few.bought.sum() == all_of_it.bought.sum()
        assert len(few.table) == len(few.pairs) == len(few.bought) < len(all_of_it.pairs)
        assert all(len(score) == len(few.pairs) for score in few.pairs.scores.values())
    assert sum(len(e.pairs) for e in some.examples) == pytest.approx(3_000, rel=0.1)
    assert len(some.asked.pairs) == len(made.asked.pairs)


def test_where_purchases_alone_are_too_many_rows_whole_users_go(larger: Shop, made: Bench) -> None:
    bought = sum(e.bought.sum() for e in made.examples)
    some = bench(made.model, larger.stage, rows=bought)
    kept = sum(e.bought.sum() for e in some.examples)
    rows = sum(len(e.pairs) for e in some.examples)
    assert rows == pytest.approx(bought, rel=0.15)
    # the rest is still there to be told from
    assert 0 < kept < 0.5 * rows
    for few, all_of_it in zip(some.examples, made.examples):
        users = np.unique(few.pairs.user)
        assert few.bought.sum() == all_of_it.bought[np.isin(all_of_it.pairs.user, users)].sum()
        assert len(users) < len(np.unique(all_of_it.pairs.user)) / 3


def test_new_items_are_judged_on_what_is_new(larger: Shop) -> None:
    b = bench(TwoStage(windows=1, target="new", **SMALL), larger.stage)
    new = ~slices.bought_before(larger.truth, larger.history) & larger.truth["user_id"].isin(
        larger.history.user_ids
    )
    assert len(b.users) == larger.truth[new]["user_id"].nunique()
    assert not np.asarray(larger.history.seen[b.asked.pairs.user, b.asked.pairs.item]).any()
    assert b.asked.bought.any()


def test_without_examples_stage_1_s_order_stays() -> None:
    assert np.array_equal(learnt(toy()), toy().asked.pairs.scores["own"])
    assert study.by_windows(toy())[["windows", "precision@5"]].to_numpy().tolist() == [
        [0, pytest.approx(0.2)]
    ]


def test_fewer_windows_are_the_newest_ones(made: Bench) -> None:
    table = study.by_windows(made)
    assert table["windows"].tolist() == [1, 2]
    assert table["precision@5"][1] == pytest.approx(precision(made, learnt(made)).mean())
    assert (table["lo"] < table["precision@5"]).all()
    assert (table["precision@5"] < table["hi"]).all()
    assert table["precision@5"][0] == pytest.approx(
        precision(made, learnt(replace(made, examples=made.examples[:1]))).mean()
    )


def test_one_feature_of_each_group_is_shown_of_what_was_bought(larger: Shop, made: Bench) -> None:
    table = study.features(made)
    assert table["features"].sum() == made.asked.table.shape[1]
    assert set(table.index) == set(groups(made.asked.table))
    row = made.asked.table.iloc[np.flatnonzero(made.asked.bought)[0]]
    assert all(
        np.isclose(row[name], value, atol=0.006)
        for name, value in zip(table["for example"], table["of a candidate"])
    )


def test_what_was_bought_is_counted_whether_it_is_a_candidate_or_not(
    larger: Shop, made: Bench
) -> None:
    truth = slices.warm(larger.truth, larger.history)[["user_id", "item_id"]].drop_duplicates()
    assert made.bought == len(truth) > made.asked.bought.sum() > 0


def test_the_profile_has_a_line_per_step(larger: Shop, made: Bench) -> None:
    table = study.profile(made, larger.stage)
    assert set(table.index) == {
        "generators, fitted",
        "candidates",
        "features",
        "ranker, trained and asked",
    }
    assert (table["peak_mib"] > 50).all()
    assert table["times in a fit"].tolist() == [3, 3, 1, 3]


# ---- stage 2 of the original


@pytest.mark.spec("S3-17")
def test_everyone_of_both_windows_is_served(larger: Shop, original: tuple, kept: pd.Index) -> None:
    model, _ = original
    start = larger.history.as_of - pd.Timedelta(days=42)
    rows = larger.tables["purchases"]
    users = rows[rows["ts"] >= start]["user_id"].unique()
    assert set(larger.truth["user_id"]) < set(users)
    assert len(set(users) - set(larger.history.user_ids))
    recs = model.recommend(users, 5, only=kept)
    assert recs.groupby("user_id", observed=True).size().eq(5).all()
    assert recs["user_id"].nunique() == len(users)


@pytest.fixture(scope="module")
def window(original: tuple) -> tuple[Examples, Interactions]:
    """The six weeks as the classifier sees them, and the history before them."""
    model, data = original
    start = data.as_of - pd.Timedelta(days=42)
    past = data.purchases[data.purchases["ts"] < start]
    return model.examples(data)[0], Interactions.of(
        past.reset_index(drop=True), data.items.reset_index(), as_of=start
    )


@pytest.mark.spec("S3-18")
def test_features_are_unique_on_their_keys(window: tuple) -> None:
    example, history = window
    table = example.table.assign(user=example.pairs.user, item=example.pairs.item)
    assert len(table) == len(table[["user", "item"]].drop_duplicates()) == len(example.pairs)
    for key in ("user", "item"):
        columns = [c for c in example.table if c.startswith(f"{key}_")]
        assert len(columns) > 5
        assert (table.groupby(key)[columns].nunique(dropna=False) == 1).all(axis=None)
    assert np.array_equal(np.unique(example.pairs.user), np.sort(np.unique(example.pairs.user)))
    assert history.shape[0] > example.pairs.user.max()


@pytest.mark.spec("S3-19")
def test_embeddings_are_joined_by_user_and_by_item(window: tuple, original: tuple) -> None:
    example, history = window
    model, _ = original
    als = model.fitted_generators(history)["als"]
    for side, codes, factors in (
        ("user", example.pairs.user, als.user_factors_),
        ("item", example.pairs.item, als.item_factors_),
    ):
        columns = [f"latent_{side}_{n}" for n in range(50)]
        assert np.allclose(example.table[columns], factors[codes], atol=1e-4)
        assert example.table[columns].notna().all(axis=None)


@pytest.mark.spec("S3-20")
def test_the_target_is_whether_the_pair_was_bought_in_the_six_weeks(
    window: tuple, original: tuple
) -> None:
    example, history = window
    _, data = original
    late = data.purchases[data.purchases["ts"] >= history.as_of]
    bought = set(zip(late["user_id"].astype(str), late["item_id"].astype(str)))
    pairs = list(zip(history.user_ids[example.pairs.user], history.item_ids[example.pairs.item]))
    assert example.bought.tolist() == [pair in bought for pair in pairs]
    assert 0 < example.bought.mean() < 0.5


@pytest.mark.spec("S3-10")
def test_the_fake_item_is_no_candidate_no_target_and_in_no_list(
    window: tuple, original: tuple, kept: pd.Index
) -> None:
    example, history = window
    model, data = original
    assert OTHER in history.item_ids
    assert (data.purchases["item_id"] == OTHER).sum() > 100
    assert history.item_ids.get_loc(OTHER) not in set(example.pairs.item)
    assert not model.lists_[:, data.item_ids.get_loc(OTHER)].nnz
    recs = model.recommend([*data.user_ids, "stranger"], 5, only=kept)
    assert OTHER not in set(recs["item_id"].astype(str))
    assert set(recs["item_id"].astype(str)) <= set(kept)


@pytest.mark.spec("S3-21")
def test_no_user_teaches_and_checks(window: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    example, _ = window
    seen = []
    real = two_stage._dataset
    monkeypatch.setattr(
        two_stage,
        "_dataset",
        lambda examples, *rest: seen.append(set(examples[0].pairs.user)) or real(examples, *rest),
    )
    options = TwoStage(**SMALL3 | {"rounds": 300, "draws": 1}).options()
    (ranker,) = train(options, [example], patience=5)
    learn, check = seen
    assert not learn & check
    assert learn | check == set(example.pairs.user)
    assert len(check) == pytest.approx(len(learn | check) / 10, abs=1)
    assert 0 < ranker.best_iteration < 300  # it stopped early


@pytest.mark.spec("S3-22")
def test_one_call_trains_and_one_saves_trees_as_text(original: tuple, tmp_path: Path) -> None:
    model, data = original
    assert len(model.rankers_) == model.draws == 3
    assert all(ranker.startswith("tree\n") for ranker in model.rankers_)
    assert all("objective=binary" in ranker for ranker in model.rankers_)
    assert len(set(model.rankers_)) == 3
    again = load_model(model.save(tmp_path))
    users = data.user_ids[:30]
    pd.testing.assert_frame_equal(again.recommend(users, 5), model.recommend(users, 5))
    assert not list(tmp_path.rglob("*.pkl")) + list(tmp_path.rglob("*.joblib"))


@pytest.mark.spec("S3-23")
def test_the_list_is_the_five_most_probable_candidates(original: tuple) -> None:
    _, data = original
    model = TwoStage(**SMALL3 | {"draws": 1}).fit(data)
    axes = model.examples(data)[-1].axes
    asked = model.asked(data, model.fitted_generators(data), np.array([4]), axes)
    (ranker,) = model.rankers_
    probability = lightgbm.Booster(model_str=str(ranker)).predict(asked.table.to_numpy())
    assert ((probability > 0) & (probability < 1)).all()
    wanted = data.item_ids[asked.pairs.item[np.argsort(-probability, kind="stable")[:5]]].tolist()
    assert model.recommend([data.user_ids[4]], 5)["item_id"].astype(str).tolist() == wanted


@pytest.mark.spec("S3-14")
def test_two_shoppers_with_different_histories_get_different_lists(
    original: tuple, kept: pd.Index
) -> None:
    """In the original everybody got the same."""
    model, data = original
    baskets = data.purchases.groupby("user_id")["basket_id"].nunique()
    lists = (
        model.recommend(baskets.index[baskets >= 3], 5, only=kept)
        .groupby("user_id", observed=True)["item_id"]
        .agg(tuple)
    )
    assert lists.nunique() > 0.9 * len(lists)


# ---- the claim


@pytest.mark.spec("S3-02")
def test_the_claim_by_hand() -> None:
    """ann bought five items of the catalogue, bob one, cat only what is outside.

    Of list places only those within count.
    """
    history = Interactions.of(
        receipts(
            "ann a 1 2024-01-01 1 1\nbob a 2 2024-01-01 1 1\ncat a 3 2024-01-01 1 1\nann x 1"
            " 2024-01-01 1 1"
        )
    )
    truth = pd.DataFrame(
        [("ann", item) for item in "abcdex"] + [("bob", "a"), ("cat", "x"), ("dan", "a")],
        columns=["user_id", "item_id"],
    )
    recs = pd.DataFrame(
        [(user, item, n) for user in ("ann", "bob", "cat") for n, item in enumerate("xabz", 1)],
        columns=["user_id", "item_id", "rank"],
    )
    other = recs.assign(item_id=recs["item_id"].replace({"a": "z"}))
    lists = {"ours": recs, "other": other}
    table = claim(lists, Stage(history, truth), pd.Index(list("abcde")), "ours", k=2)
    assert table.loc[("5 purchases or more", 1), "precision@2"].to_dict() == {
        "ours": 1,
        "other": 0.5,
    }
    assert table.loc[("all", 2), "precision@2"].to_dict() == {"ours": 0.75, "other": 0.25}
    assert table.loc[("all", 2), "lead"].to_dict() == {"ours": 0, "other": 0.5}
    assert table.loc[("all", 2, "other"), ["low", "high"]].tolist() == [0.5, 0.5]


@pytest.mark.spec("S3-02")
def test_without_anybody_the_claim_is_empty() -> None:
    history = Interactions.of(receipts("ann a 1 2024-01-01 1 1"))
    truth = pd.DataFrame([("ann", "a")], columns=["user_id", "item_id"])
    recs = pd.DataFrame([("ann", "a", 1)], columns=["user_id", "item_id", "rank"])
    assert claim({"ours": recs}, Stage(history, truth), pd.Index(["b"]), "ours").empty


def fold_of(shop: Shop) -> Fold:
    rows = shop.history.purchases
    late = (rows["ts"] >= shop.borders["valid"]).to_numpy()
    borders = {name: str(at) for name, at in shop.borders.items()}
    return Fold(
        "synthetic",
        "toy",
        "window",
        borders,
        rows[~late],
        rows[late],
        shop.truth,
        shop.tables["items"],
        shop.tables["users"],
        "abc",
    )


@pytest.mark.spec("S3-10")
def test_a_recorded_list_is_of_the_catalogue_for_strangers_too(
    home: Path, larger: Shop, kept: pd.Index
) -> None:
    fold = fold_of(larger)
    recs = record_within(TwoStage(**SMALL3), fold, "two_stage_original", kept)
    assert set(recs["item_id"].astype(str)) <= set(kept)
    assert recs["user_id"].nunique() == len(fold.testing.users)
    assert (home / "data/synthetic/runs/toy/two_stage_original.parquet").exists()


def test_without_a_catalogue_everything_that_was_sold_is_one(home: Path, larger: Shop) -> None:
    fold = fold_of(larger)
    assert set(catalogue(fold)) == set(larger.history.purchases["item_id"].astype(str))
    path = home / "data/synthetic/folds/toy/catalogue.parquet"
    path.parent.mkdir(parents=True)
    pd.DataFrame({"item_id": ["a", "b"]}).to_parquet(path)
    assert catalogue(fold).tolist() == ["a", "b"]
    pd.DataFrame({"item_id": pd.Series([], dtype=str)}).to_parquet(path)
    assert len(catalogue(fold)) > 100


# ---- bad input


def test_a_window_in_which_nobody_returned_leaves_stage_1_s_order(tiny: pd.DataFrame) -> None:
    model = TwoStage(**SMALL3).fit(Interactions.of(tiny, as_of=pd.Timestamp("2025-06-01")))
    assert not len(model.rankers_)
    assert model.recommend(["ann"], 4)["item_id"].astype(str).tolist() == [
        "milk",
        "jam",
        "bread",
        "beer",
    ]


def test_one_single_shopper_and_no_prices(tiny: pd.DataFrame) -> None:
    data = Interactions.of(tiny[tiny["user_id"] == "ann"].drop(columns="price"))
    recs = TwoStage(**SMALL3 | {"min_leaf": 1}).fit(data).recommend(["ann", "bob"], 3)
    assert len(recs) == 6
    assert np.isfinite(recs["score"]).all()


def test_a_shop_without_prices_has_an_ablation(larger: Shop) -> None:
    rows = larger.history.purchases.drop(columns="price")
    stage = Stage(
        Interactions.of(rows, as_of=larger.history.as_of), larger.truth.drop(columns="price")
    )
    table = ablation(bench(TwoStage(windows=1, **SMALL | {"rounds": 5}), stage))
    row = table[table["without"] == "price features"].iloc[0]
    assert np.isfinite(table[["precision", "change", "low", "high"]].to_numpy()).all()
    assert row["change"] == pytest.approx(0, abs=0.03)
