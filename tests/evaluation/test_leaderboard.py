"""The judge judged: known answers, intervals, tests by hand, scopes and groups; and the tables it reads."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab import scores, shopper
from lab.record import record
from lab.tuning import tune
from scipy.stats import ttest_rel
from shops import Shop

from recsys_utils import LabError
from recsys_utils.data.folds import Fold, Stage, window_parts
from recsys_utils.data.interactions import Interactions
from recsys_utils.data.runs import load_runs, load_studies, save_run, save_study
from recsys_utils.evaluation.leaderboard import (
    KS,
    ensemble_gain,
    leaderboard,
    overlap,
    per_user_values,
)
from recsys_utils.evaluation.metrics import per_user
from recsys_utils.evaluation.significance import bootstrap, holm, letters, paired_tests
from recsys_utils.evaluation.slices import (
    bought_before,
    inside,
    restrict,
    scopes,
    user_groups,
    warm,
)
from recsys_utils.models import ItemCF, OwnPurchases, Popular

SCHEMA = [
    "dataset",
    "protocol",
    "fold",
    "model",
    "family",
    "scope",
    "users_scope",
    "metric",
    "k",
    "value",
    "lo",
    "hi",
    "users",
    "fit_seconds",
    "recommend_seconds",
]
PROBABILITIES = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def table(rows: list[tuple[str, str]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["user_id", "item_id"], dtype=object)
    rank = frame.groupby("user_id").cumcount() + 1
    return frame.assign(score=-rank.astype(float), rank=rank.astype(np.int64))


def oracle(truth: pd.DataFrame) -> pd.DataFrame:
    """Recommends what was then bought, and nothing else."""
    return table(
        list(truth[["user_id", "item_id"]].drop_duplicates().itertuples(index=False, name=None))
    )


@pytest.fixture(scope="module")
def fold(shop: Shop) -> Fold:
    parts = window_parts(shop.tables["purchases"], shop.borders)
    borders = {name: str(border) for name, border in shop.borders.items()}
    return Fold(
        "synthetic",
        "2025-06-10",
        "window",
        borders,
        **parts,
        items=shop.tables["items"],
        users=shop.tables["users"],
        hash="abc",
    )


@pytest.fixture(scope="module")
def runs(shop: Shop) -> dict[str, pd.DataFrame]:
    models = {"own": OwnPurchases(), "popular": Popular(), "cosine": ItemCF("cosine")}
    made = {
        name: model.fit(shop.history).recommend(shop.stage.users, 200)
        for name, model in models.items()
    }
    return made | {"oracle": oracle(shop.truth)}


def metas(runs: dict[str, pd.DataFrame]) -> pd.DataFrame:
    return pd.DataFrame(
        {"family": "x", "fit_seconds": 1.0, "recommend_seconds": 2.0}, index=list(runs)
    )


@pytest.fixture(scope="module")
def board(runs: dict[str, pd.DataFrame], fold: Fold) -> pd.DataFrame:
    return leaderboard(runs, metas(runs), fold, catalogue=fold.testing.history.item_ids[:80])


# ---- known answers


def cell(
    board: pd.DataFrame, model: str, metric: str, k: int, scope: str = "any", users: str = "warm"
) -> pd.Series:
    return board.set_index(["model", "metric", "k", "scope", "users_scope"]).loc[
        (model, metric, k, scope, users)
    ]


@pytest.mark.spec("S3-24")
@pytest.mark.parametrize("k", KS)
def test_an_oracle_gets_what_an_oracle_can_get(board: pd.DataFrame, shop: Shop, k: int) -> None:
    n = warm(shop.truth, shop.history).groupby("user_id")["item_id"].nunique()
    assert cell(board, "oracle", "precision", k)["value"] == pytest.approx(
        (n.clip(upper=k) / k).mean()
    )
    assert cell(board, "oracle", "recall", k)["value"] == pytest.approx(
        (n.clip(upper=k) / n).mean()
    )
    assert all(
        cell(board, "oracle", metric, k)["value"] == pytest.approx(1)
        for metric in ("ndcg", "mrr", "hit_rate")
    )


@pytest.mark.spec("C3")
@pytest.mark.parametrize("scope", ["repeat", "new"])
def test_the_oracle_is_right_in_every_scope(board: pd.DataFrame, scope: str) -> None:
    assert cell(board, "oracle", "ndcg", 5, scope)["value"] == pytest.approx(1)


def test_bought_before_of_no_known_pair(shop: Shop) -> None:
    strangers = pd.DataFrame({"user_id": ["stranger"], "item_id": ["x"]})
    assert bought_before(strangers, shop.history).tolist() == [False]
    assert len(bought_before(strangers[:0], shop.history)) == 0


def test_trap_a_recommender_of_nothing_gets_zero_and_all_users_count(shop: Shop) -> None:
    judged = per_user_values({"nothing": table([])}, shop.stage)
    assert {scope for scope, _ in judged} == {"any", "repeat", "new"}
    for models in judged.values():
        assert len(models["nothing"])
        assert models["nothing"].eq(0).all(axis=None)
    assert judged["any", 5]["nothing"].index.tolist() == shop.stage.users.tolist()


def test_a_model_of_nothing_does_not_stop_the_leaderboard(fold: Fold) -> None:
    board = leaderboard({"nothing": table([])}, metas({"nothing": 0}), fold)
    assert (
        cell(board, "nothing", "precision", 5)["value"]
        == 0
        == cell(board, "nothing", "coverage", 5)["value"]
    )


def test_own_purchases_score_zero_among_new_items_and_an_oracle_of_cold_users_among_warm(
    board: pd.DataFrame, shop: Shop, fold: Fold
) -> None:
    """What was bought before is taken out of a list before it is judged in scope `new`."""
    mine = {"own": OwnPurchases(None).fit(shop.history).recommend(shop.stage.users, 200)}
    lists = restrict(mine["own"], "new", shop.history)
    assert not bought_before(lists, shop.history).any()
    cold = {"cold": oracle(shop.truth[~shop.truth["user_id"].isin(shop.history.user_ids)])}
    if len(cold["cold"]):
        assert cell(leaderboard(cold, metas(cold), fold), "cold", "precision", 5)["value"] == 0


# ---- the leaderboard


def test_the_leaderboard_has_the_columns_of_the_design(board: pd.DataFrame) -> None:
    assert board.columns.tolist() == SCHEMA
    assert not board.duplicated(["model", "scope", "users_scope", "metric", "k"]).any()
    assert board[["dataset", "protocol", "fold"]].drop_duplicates().to_numpy().tolist() == [
        ["synthetic", "window", "2025-06-10"]
    ]
    assert set(board["k"]) == set(KS)
    assert set(board["scope"]) == {
        "any",
        "repeat",
        "new",
        "prefiltered",
    }


def test_the_leaderboard_holds_every_metric_of_the_protocol(board: pd.DataFrame) -> None:
    assert {
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
    } <= set(board["metric"])


def test_its_values_are_means_over_warm_users(board: pd.DataFrame, runs, shop: Shop) -> None:
    mean = per_user(runs["own"], warm(shop.truth, shop.history), 5).mean()
    for metric, value in mean.items():
        assert cell(board, "own", metric, 5)["value"] == pytest.approx(value)


def test_trap_judged_users_are_everyone_not_the_served_or_heavy(
    board: pd.DataFrame, runs, shop: Shop, fold: Fold
) -> None:
    """A model that serves one shopper well is divided by all of them."""
    everyone = warm(shop.truth, shop.history)["user_id"].nunique()
    assert cell(board, "own", "precision", 5)["users"] == everyone
    one = {
        "one": runs["oracle"][
            runs["oracle"]["user_id"] == warm(shop.truth, shop.history)["user_id"].iloc[0]
        ]
    }
    made = cell(leaderboard(one, metas(one), fold), "one", "hit_rate", 5)
    assert made["users"] == everyone
    assert made["value"] == pytest.approx(1 / everyone)


def test_intervals_contain_their_values(board: pd.DataFrame) -> None:
    rows = board.dropna(subset=["lo"])
    assert (rows["lo"] <= rows["value"] + 1e-9).all()
    assert (rows["value"] <= rows["hi"] + 1e-9).all()
    assert (rows["lo"] < rows["hi"]).any()


@pytest.mark.spec("C7")
def test_the_leaderboard_is_seeded(board: pd.DataFrame, runs, fold: Fold) -> None:
    pd.testing.assert_frame_equal(
        leaderboard(runs, metas(runs), fold, fold.testing.history.item_ids[:80]), board
    )


@pytest.mark.spec("S3-02")
def test_the_heavy_subset_is_reported_apart(board: pd.DataFrame, shop: Shop) -> None:
    within = shop.truth[inside(shop.truth, shop.history.item_ids[:80])]
    n = within.groupby("user_id")["item_id"].nunique()
    heavy = board[board["users_scope"] == "heavy"]
    assert set(heavy["scope"]) == {"prefiltered"}
    assert (heavy["users"] == (n >= 5).sum()).all()
    assert cell(board, "oracle", "precision", 5, "prefiltered", "heavy")["value"] == 1


# ---- intervals


def test_bootstrap_intervals_cover_the_truth_19_times_in_20() -> None:
    draws = np.random.default_rng(0).random((150, 400)) < 0.3
    mean, low, high = bootstrap(draws.astype(float), np.random.default_rng(1), times=400)
    assert np.allclose(mean, draws.mean(axis=0))
    assert (low <= mean).all()
    assert (mean <= high).all()
    assert 0.91 < ((low <= 0.3) & (high >= 0.3)).mean() < 0.98


def test_bootstrap_width_is_that_of_the_normal_approximation() -> None:
    x = np.random.default_rng(0).normal(size=(400, 1))
    _, low, high = bootstrap(x, np.random.default_rng(1))
    assert (high - low).item() == pytest.approx(2 * 1.96 * x.std() / 20, rel=0.1)


def test_bootstrap_keeps_shapes_and_constants() -> None:
    mean, low, high = bootstrap(np.full((9, 2, 3), 0.25), np.random.default_rng(0))
    assert mean.shape == low.shape == high.shape == (2, 3)
    assert np.allclose([mean, low, high], 0.25)


# ---- tests of significance


def test_holm_by_hand() -> None:
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.6, 0.9])).tolist() == [1, 1]


@given(PROBABILITIES)
def test_holm_lies_between_the_raw_and_bonferroni_and_keeps_the_order(p: list[float]) -> None:
    raw = np.array(p)
    made = holm(raw)
    assert (made >= raw).all()
    assert (made <= np.minimum(raw * len(raw), 1) + 1e-12).all()
    assert (np.diff(made[np.argsort(raw, kind="stable")]) >= 0).all()


def of(**columns: list[float]) -> pd.DataFrame:
    return pd.DataFrame(columns)


def test_paired_identical_models_have_p_of_one() -> None:
    x = np.random.default_rng(0).random(50)
    assert paired_tests(of(a=x, b=x))["p"].tolist() == [1]


def test_paired_a_clear_winner_has_a_small_p() -> None:
    x = np.random.default_rng(0).random(100)
    made = paired_tests(of(a=x + 0.2, b=x)).iloc[0]
    assert made["p"] < 0.001
    assert made["difference"] == pytest.approx(0.2)


def test_paired_is_the_exact_permutation_test_of_few_users() -> None:
    """Three users, all in favour: 2 of the 8 sign patterns are as extreme. One against two: all patterns of |sum| >= 1."""
    assert paired_tests(of(a=[1, 1, 1], b=[0, 0, 0]))["p"].item() == pytest.approx(2 / 8, abs=0.02)
    assert paired_tests(of(a=[1, 1, 0], b=[0, 0, 1]))["p"].item() == 1
    assert paired_tests(of(a=[3, 1, 1], b=[0, 0, 0]))["p"].item() == pytest.approx(2 / 8, abs=0.02)
    assert paired_tests(of(a=[3, 1, 0], b=[0, 0, 1]))["p"].item() == pytest.approx(6 / 8, abs=0.02)


def test_many_models_do_not_hide_a_clear_winner() -> None:
    """Holm multiplies the smallest p by the number of pairs: with too few flips forty models would all tie."""
    rng = np.random.default_rng(0)
    x = pd.DataFrame(rng.random((300, 40))).add_prefix("m").assign(best=lambda f: f["m0"] + 0.3)
    won = paired_tests(x).query("p_holm < 0.05")
    assert ((won["model_a"] == "best") | (won["model_b"] == "best")).sum() == 40


def test_paired_is_symmetric() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.random(40), rng.random(40)
    ab, ba = paired_tests(of(a=one, b=other)).iloc[0], paired_tests(of(a=other, b=one)).iloc[0]
    assert ab["p"] == ba["p"]
    assert ab["difference"] == -ba["difference"]


def test_paired_agrees_with_the_t_test_where_that_is_right() -> None:
    x = pd.DataFrame(np.random.default_rng(4).random((80, 24)))
    made = paired_tests(x)
    t = ttest_rel(x[made["model_a"]], x[made["model_b"]]).pvalue
    assert len(made) == 24 * 23 / 2
    assert np.abs(made["p"] - t).max() < 0.03
    assert 0.02 < (made["p"] < 0.05).mean() < 0.08


def test_paired_looks_at_the_pairs_not_at_the_spread_between_users() -> None:
    users = np.linspace(0, 1, 60)
    assert paired_tests(of(a=users + 0.01, b=users))["p"].item() < 0.001


def test_letters_name_the_models_beaten() -> None:
    x = np.random.default_rng(0).random(200)
    made = letters(of(low=x, top=x + 1, mid=x + 0.5, twin=x + 0.5))
    assert made.index[0] == "top"
    assert made.index[-1] == "low"
    assert made["letter"].tolist() == list("abcd")
    assert made["beats"].to_dict() == {"top": "b c d", "mid": "d", "twin": "d", "low": ""}
    assert made["mean"].is_monotonic_decreasing


def test_letters_without_a_winner_alone_and_beyond_the_alphabet() -> None:
    x = np.random.default_rng(0).random(30)
    assert letters(of(a=x, b=x))["beats"].tolist() == ["", ""]
    assert letters(of(a=x))["letter"].tolist() == ["a"]
    assert letters(of(**{f"m{i}": x for i in range(30)}))["letter"].is_unique


# ---- scopes


@pytest.fixture
def stage(tiny: pd.DataFrame) -> Stage:
    truth = pd.DataFrame(
        [("ann", "milk"), ("ann", "beer"), ("bob", "jam"), ("dan", "milk"), ("ann", "tea")],
        columns=["user_id", "item_id"],
    )
    return Stage(Interactions.of(tiny), truth)


def pairs(frame: pd.DataFrame) -> set[tuple[str, str]]:
    return set(frame[["user_id", "item_id"]].itertuples(index=False, name=None))


@pytest.mark.spec("C3")
def test_scopes_by_hand(stage: Stage) -> None:
    made = scopes(warm(stage.truth, stage.history), stage.history, pd.Index(["milk", "jam"]))
    assert pairs(made["any"]) == {("ann", "milk"), ("ann", "beer"), ("bob", "jam"), ("ann", "tea")}
    assert pairs(made["repeat"]) == {("ann", "milk")}
    assert pairs(made["new"]) == {
        ("ann", "beer"),
        ("bob", "jam"),
        ("ann", "tea"),
    }
    assert pairs(made["prefiltered"]) == {("ann", "milk"), ("bob", "jam")}


def test_an_empty_scope_is_left_out(stage: Stage) -> None:
    assert set(scopes(stage.truth[1:2], stage.history)) == {"any", "new"}


def test_restricted_lists_are_ranked_anew(stage: Stage) -> None:
    recs = table(
        [("ann", item) for item in ("beer", "milk", "tea", "jam")]
        + [("bob", "milk"), ("bob", "beer")]
    )
    assert restrict(recs, "any", stage.history) is recs
    made = {
        scope: restrict(recs, scope, stage.history, pd.Index(["tea", "jam", "beer"]))
        for scope in ("repeat", "new", "prefiltered")
    }
    assert made["repeat"][["user_id", "item_id", "rank"]].to_numpy().tolist() == [
        ["ann", "milk", 1],
        ["ann", "jam", 2],
        ["bob", "beer", 1],
    ]
    assert made["new"][["user_id", "item_id", "rank"]].to_numpy().tolist() == [
        ["ann", "beer", 1],
        ["ann", "tea", 2],
        ["bob", "milk", 1],
    ]
    assert made["prefiltered"]["item_id"].tolist() == ["beer", "tea", "jam", "beer"]


def test_cold_items_are_those_on_sale_that_nobody_bought(tiny: pd.DataFrame, stage: Stage) -> None:
    data = Interactions.of(tiny, catalogue=pd.Series(["milk", "tea", "rum"]))
    made = scopes(stage.truth, data)
    assert pairs(made["cold items"]) == {("ann", "tea")}
    assert ("ann", "tea") in pairs(made["new"])
    assert "cold items" not in scopes(stage.truth, stage.history)
    recs = table([("ann", item) for item in ("beer", "rum", "milk", "tea")])
    assert restrict(recs, "cold items", data)[["item_id", "rank"]].to_numpy().tolist() == [
        ["rum", 1],
        ["tea", 2],
    ]


def test_a_fold_lists_what_its_shop_lists(fold: Fold, shop: Shop) -> None:
    """From a shop's own files: items not sold yet, and profiles of users without history. From receipts: neither."""
    assert fold.testing.history.sold.all()
    assert fold.testing.profiles is None
    own = replace(fold, listed=True, registered=True).testing
    assert set(own.history.item_ids) == set(shop.tables["items"]["item_id"])
    assert not own.history.sold.all()
    assert own.profiles.index.tolist() == shop.tables["users"]["user_id"].tolist()
    assert "age" in own.profiles


def test_restricting_reads_ranks_not_rows(stage: Stage) -> None:
    recs = table([("ann", item) for item in ("beer", "milk", "tea", "jam")])
    mixed = recs.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(
        restrict(mixed, "new", stage.history), restrict(recs, "new", stage.history)
    )


def test_repeat_and_new_split_any(shop: Shop) -> None:
    made = scopes(warm(shop.truth, shop.history), shop.history)
    assert pairs(made["repeat"]) | pairs(made["new"]) == pairs(made["any"])
    assert not pairs(made["repeat"]) & pairs(made["new"])


# ---- groups of users


def test_warm_and_cold_are_everyone(stage: Stage) -> None:
    groups = user_groups(stage)
    assert groups["warm"].tolist() == ["ann", "bob"]
    assert groups["cold"].tolist() == ["dan"]
    assert groups["history: 2 to 4"].tolist() == ["ann", "bob"]
    assert "history: 1" not in groups


def test_history_groups_partition_the_warm_users(shop: Shop) -> None:
    everybody = Stage(
        shop.history,
        pd.DataFrame({"user_id": [*shop.history.user_ids, "stranger"], "item_id": "x"}),
    )
    groups = user_groups(everybody)
    members = [
        user for name, users in groups.items() if name.startswith("history") for user in users
    ]
    assert sorted(members) == groups["warm"].tolist() == shop.history.user_ids.tolist()
    assert groups["cold"].tolist() == ["stranger"]
    n = shop.history.purchases.groupby("user_id")["basket_id"].nunique()
    assert set(groups["history: 5 to 9"]) == set(n.index[n.between(5, 9)])
    assert set(groups["history: 25 or more"]) == set(n.index[n >= 25])


def test_segments_of_at_least_20_users_are_groups(shop: Shop) -> None:
    everybody = Stage(
        shop.history, pd.DataFrame({"user_id": shop.history.user_ids, "item_id": "x"})
    )
    made = {
        name: users
        for name, users in user_groups(everybody).items()
        if name.startswith(("segment", "country"))
    }
    known = shop.history.users
    assert made
    assert all(len(users) >= 20 for users in made.values())
    for name, users in made.items():
        column, value = name.split(": ")
        assert set(users) == set(known.index[known[column] == value])


@pytest.mark.spec("S3-02")
def test_heavy_users_bought_five_of_the_catalogue(tiny: pd.DataFrame) -> None:
    items = [f"i{n}" for n in range(6)]
    truth = pd.DataFrame(
        [("ann", i) for i in items[:5]]
        + [("bob", i) for i in items[:4]]
        + [("bob", items[0]), ("bob", "out")],
        columns=["user_id", "item_id"],
    )
    assert user_groups(Stage(Interactions.of(tiny), truth), pd.Index(items))["heavy"].tolist() == [
        "ann"
    ]


# ---- overlap and ensembles


def test_overlap_by_hand() -> None:
    a, b, c = (
        table([("u", "x"), ("u", "y"), ("v", "x")]),
        table([("u", "y"), ("u", "x"), ("v", "z")]),
        table([("u", "q"), ("u", "r"), ("v", "q")]),
    )
    made = overlap({"a": a, "b": b, "c": c}, k=2)
    assert np.diag(made).tolist() == [1, 1, 1]
    assert made.loc["a", "b"] == pytest.approx(2 / 3)
    assert made.loc["a", "c"] == 0
    assert overlap({"a": a, "b": b}, k=1).loc["a", "b"] == 0


def test_overlap_of_real_lists(runs: dict[str, pd.DataFrame]) -> None:
    lists = {name: recs for name, recs in runs.items() if name != "oracle"}
    made = overlap(lists, 5)
    assert np.allclose(np.diag(made), 1)
    assert np.allclose(made, made.T)
    assert made.loc["own", "popular"] < 1


def test_ensemble_gain_is_at_least_the_better_model(runs, shop: Shop) -> None:
    judged = per_user_values(runs, shop.stage)["any", 5]
    made = ensemble_gain(judged)
    means = {name: frame["hit_rate"].mean() for name, frame in judged.items()}
    assert np.allclose(np.diag(made), list(means.values()))
    assert np.allclose(made, made.T)
    assert all(made.loc[a, b] >= max(means[a], means[b]) for a in means for b in means)


# ---- tuning


def test_tune_judges_on_its_stage_best_first(fold: Fold) -> None:
    made = tune([Popular(), OwnPurchases(), OwnPurchases(30)], fold.tuning)
    assert made["precision@5"].is_monotonic_decreasing
    assert set(made["tau"].dropna()) == {180, 30}
    again = OwnPurchases().fit(fold.tuning.history).recommend(fold.tuning.users, 5)
    expected = per_user(again, warm(fold.tuning.truth, fold.tuning.history), 5)["precision"].mean()
    assert made.loc[made["tau"] == 180, "precision@5"].item() == pytest.approx(expected)


def test_tune_never_looks_at_the_test_window(fold: Fold) -> None:
    gone = replace(fold, test=fold.test[:0])
    a, b = (
        tune([OwnPurchases()], f.tuning).drop(columns=["seconds", "model"]) for f in (fold, gone)
    )
    pd.testing.assert_frame_equal(a, b)


# ---- the tables on disk


def save(recs: pd.DataFrame, fold: Fold, name: str = "own") -> None:
    save_run(recs, fold, name, "repeat", {"tau": 180}, 0.5, 0.25, "a note")


def test_runs_survive_the_round_trip(home, fold: Fold, runs) -> None:
    for name, recs in runs.items():
        save(recs, fold, name)
    read, known = load_runs(fold)
    assert set(read) == set(runs)
    assert known.loc["own", ["fit_seconds", "recommend_seconds"]].tolist() == [0.5, 0.25]
    for name, recs in runs.items():
        assert (
            read[name].astype({"user_id": str, "item_id": str}).to_numpy().tolist()
            == recs.astype({"user_id": str, "item_id": str}).to_numpy().tolist()
        )
    assert leaderboard(read, known, fold)["family"].unique().tolist() == ["repeat"]


def test_runs_of_an_older_cut_are_left_out(home, fold: Fold, runs) -> None:
    save(runs["own"], fold)
    newer = Fold(
        **{name: getattr(fold, name) for name in Fold.__dataclass_fields__ if name != "hash"},
        hash="def",
    )
    with pytest.raises(LabError, match="no recommendation tables"):
        load_runs(newer)


@pytest.mark.spec("C6")
def test_a_changed_run_is_refused_by_name(home, fold: Fold, runs) -> None:
    save(runs["own"], fold)
    path = next(home.rglob("own.parquet"))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(LabError, match="own.parquet was changed"):
        load_runs(fold)


def test_a_study_survives_the_round_trip_and_an_older_cut_s_is_left_out(home, fold: Fold) -> None:
    table = pd.DataFrame({"n": [10, 20], "recall": [0.1, 0.25]})
    assert load_studies(fold) == {}
    save_study(table, fold, "candidate_recall", "of all candidates")
    ((read, note),) = load_studies(fold).values()
    pd.testing.assert_frame_equal(read, table)
    assert note == "of all candidates"
    newer = Fold(
        **{name: getattr(fold, name) for name in Fold.__dataclass_fields__ if name != "hash"},
        hash="def",
    )
    assert load_studies(newer) == {}
    path = next(home.rglob("candidate_recall.parquet"))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(LabError, match="candidate_recall.parquet was changed"):
        load_studies(fold)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda r: r.drop(columns="rank"), "lacks the column rank"),
        (lambda r: pd.concat([r, r[:1]]), "one item twice"),
        (lambda r: r.assign(score=np.nan), "empty score"),
        (lambda r: r.assign(user_id="stranger").drop_duplicates("item_id"), "stranger"),
    ],
    ids=["column", "twice", "empty", "stranger"],
)
def test_a_spoilt_table_is_not_saved(home, fold: Fold, runs, spoil, message: str) -> None:
    with pytest.raises(LabError, match=message):
        save(spoil(runs["own"]), fold)
    assert not list(home.rglob("own.*"))


# ---- what notebooks show


def test_record_saves_lists_for_every_test_user(home, fold: Fold) -> None:
    recs = record(OwnPurchases(), fold, "own")
    assert set(recs["user_id"]) == set(fold.testing.users)
    assert load_runs(fold)[1].loc["own", "params"] == OwnPurchases().params


def test_summary_and_scopes_agree_with_the_judge(runs, shop: Shop, board: pd.DataFrame) -> None:
    made = scores.summary(runs, shop.stage)
    assert made.index[0] == "oracle"
    assert made.loc["own", "recall"] == pytest.approx(
        cell(board, "own", "recall", 5)["value"], abs=1e-4
    )
    by = scores.by_scope(runs, shop.stage)
    assert by.loc["own", "new"] == pytest.approx(
        cell(board, "own", "precision", 5, "new")["value"], abs=1e-4
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_listed_marks_what_was_bought_before_and_then(shop: Shop, seed: int) -> None:
    user = str(np.random.default_rng(seed).choice(shop.stage.users))
    items = shop.history.item_ids[np.random.default_rng(seed).permutation(40)[:8]]
    made = shopper.listed(user, table([(user, item) for item in items]), shop.stage, 8)
    rows = {"before": shop.history.purchases, "then_bought": shop.truth}
    for column, frame in rows.items():
        assert [mark == "✓" for mark in made[column]] == [
            item in set(frame.loc[frame["user_id"] == user, "item_id"]) for item in items
        ]
