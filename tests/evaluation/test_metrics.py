"""Metrics against ranx, against hand-worked cases, and against the usual traps."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from shops import Shop, ranked

from recsys_utils import LabError
from recsys_utils.data.interactions import Interactions
from recsys_utils.evaluation import metrics
from recsys_utils.evaluation.metrics import beyond_accuracy, gini, per_user

# As ranx names them, in our order of columns.
ACCURACY = ["precision", "recall", "ndcg", "map", "mrr", "hit_rate"]
USERS = st.sampled_from("uvwxyz")
ITEMS = st.integers(0, 30)
LISTS = st.dictionaries(USERS, st.lists(ITEMS, unique=True, max_size=15), max_size=6)
BASKETS = st.lists(ITEMS, unique=True, min_size=1, max_size=15)
TRUTHS = st.dictionaries(USERS, BASKETS, min_size=1)


def table(lists: dict[str, list]) -> pd.DataFrame:
    """Ranked lists from items by user; as truth, what each user bought."""
    return ranked([(user, str(item)) for user, items in lists.items() for item in items])


def values_of(lists: dict[str, list], truth: dict[str, list], k: int = 5) -> pd.DataFrame:
    return per_user(table(lists), table(truth), k)


# ---- against ranx


def ranx_values(recs: pd.DataFrame, truth: pd.DataFrame, k: int) -> pd.DataFrame:
    qrels = {user: dict.fromkeys(rows["item_id"], 1) for user, rows in truth.groupby("user_id")}
    run = {u: dict(zip(rows["item_id"], rows["score"])) for u, rows in recs.groupby("user_id")}
    metrics = [f"{metric}@{k}" for metric in ACCURACY]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ranx import Qrels, Run, evaluate

        values = evaluate(Qrels(qrels), Run(run), metrics, return_mean=False, make_comparable=True)
    return pd.DataFrame(values, index=list(qrels)).sort_index().set_axis(ACCURACY, axis=1)


def random_case(seed: int, ties: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Lists and truth of 200 users; some have no list or a short one.

    ties: runs of equal scores that are all hits or all misses.
    """
    rng = np.random.default_rng(seed)
    users = [f"u{n:03d}" for n in range(200)]
    truth = table({u: rng.choice(60, rng.integers(1, 25), replace=False) for u in users})
    served = [user for user in users if rng.random() < 0.9]
    recs = table({u: rng.choice(60, rng.integers(1, 40), replace=False) for u in served})
    if ties:
        keys = ["user_id", "item_id"]
        hit = recs[keys].merge(truth[keys].assign(hit=True), how="left")["hit"].notna()
        run_starts = (hit != hit.shift(fill_value=False)) | (recs["rank"] == 1)
        recs["score"] = -run_starts.cumsum().astype(float)
    return recs, truth


@pytest.mark.spec("C3")
@pytest.mark.parametrize("k", [1, 5, 10, 50])
@pytest.mark.parametrize("ties", [False, True])
def test_accuracy_is_that_of_ranx(k: int, ties: bool) -> None:
    """ranx orders equal scores as it likes: its numbers are defined if they are equally right."""
    recs, truth = random_case(k + 100 * ties, ties)
    ours = per_user(recs, truth, k)[ACCURACY]
    theirs = ranx_values(recs, truth, k)
    assert recs.duplicated(["user_id", "score"]).any() == ties
    assert ours.index.tolist() == theirs.index.tolist()
    assert theirs.to_numpy().any()
    assert np.abs(ours.to_numpy() - theirs.to_numpy()).max() < 1e-9


# ---- by hand


@pytest.mark.spec("S3-24")
@pytest.mark.spec("C3")
def test_precision_of_two_hits_in_five_and_of_no_list() -> None:
    values = values_of({"u": list("abcde")}, {"u": list("bex"), "v": ["a"]})
    assert values["precision"].to_dict() == {"u": 0.4, "v": 0.0}


def test_every_metric_by_hand() -> None:
    """Hits at ranks 2 and 5 of three bought items."""
    row = values_of({"u": list("abcde")}, {"u": list("bex")}).loc["u"]
    best_gain = 1 + 1 / np.log2(3) + 1 / 2
    assert row["recall"] == pytest.approx(2 / 3)
    assert row["hit_rate"] == 1
    assert row["mrr"] == 0.5
    assert row["map"] == pytest.approx((1 / 2 + 2 / 5) / 3)
    assert row["ndcg"] == pytest.approx((1 / np.log2(3) + 1 / np.log2(6)) / best_gain)


def test_trap_short_lists_divide_by_k() -> None:
    assert values_of({"u": ["a"]}, {"u": ["a", "b"]})["precision"]["u"] == 0.2


def test_trap_idcg_is_over_the_shorter_of_k_and_truth() -> None:
    """One bought item at rank 1 is perfect; so are the first k of many."""
    assert values_of({"u": list("abcde")}, {"u": ["a"]})["ndcg"]["u"] == 1
    assert values_of({"u": range(5)}, {"u": range(20)})["ndcg"]["u"] == pytest.approx(1)


def test_an_ideal_of_all_purchases_is_out_of_reach_of_a_short_list() -> None:
    """Two places for three bought items: both hits, and 1 + 1 / log2(3) of the three's gain."""
    recs, truth = table({"u": list("ab"), "v": list("xa")}), table({"u": list("abc"), "v": ["a"]})
    values = per_user(recs, truth, 2, ideal="all")
    two = 1 + 1 / np.log2(3)
    assert values["ndcg"]["u"] == pytest.approx(two / (two + 1 / 2))
    assert values["ndcg"]["v"] == pytest.approx(1 / np.log2(3))
    assert per_user(recs, truth, 2)["ndcg"]["u"] == 1


def test_the_ideal_changes_ndcg_alone_and_only_of_baskets_longer_than_the_list() -> None:
    recs, truth = random_case(7, ties=False)
    reachable = per_user(recs, truth, 10)
    every = per_user(recs, truth, 10, ideal="all")
    bought = truth.groupby("user_id").size()
    changed = (every["ndcg"] < reachable["ndcg"]) | (reachable["ndcg"] == 0)
    assert changed[bought > 10].all()
    pd.testing.assert_frame_equal(every[bought <= 10], reachable[bought <= 10])
    pd.testing.assert_frame_equal(every.drop(columns="ndcg"), reachable.drop(columns="ndcg"))


def test_an_unknown_ideal_is_refused() -> None:
    with pytest.raises(LabError, match="ideal is 'k': choose reachable, all"):
        per_user(table({}), table({"u": ["a"]}), 5, ideal="k")


def test_trap_unserved_users_count_as_zero() -> None:
    values = values_of({"u": ["a"]}, {"u": ["a"], "v": ["a"], "w": ["b"]})
    assert values.index.tolist() == ["u", "v", "w"]
    assert values.loc[["v", "w"]].eq(0).all(axis=None)
    assert values["hit_rate"].mean() == pytest.approx(1 / 3)


def test_a_table_of_nothing_is_zero_for_everyone() -> None:
    values = values_of({}, {"u": ["a"], "v": ["b"]})
    assert len(values) == 2
    assert values.eq(0).all(axis=None)


def test_users_without_truth_are_not_judged() -> None:
    values = values_of({"u": ["a"], "stranger": ["a"]}, {"u": ["a"]})
    assert values.index.tolist() == ["u"]


def test_truth_is_distinct_items() -> None:
    once = values_of({"u": ["a"]}, {"u": ["a", "b"]})
    several = values_of({"u": ["a"]}, {"u": ["a", "a", "a", "b"]})
    pd.testing.assert_frame_equal(several, once)


def test_revenue_is_what_the_shopper_then_spent_on_the_hits() -> None:
    truth = table({"u": ["a", "a", "b", "c"], "v": ["a"]})
    truth = truth.assign(quantity=[1, 2, 1, 1, 1], price=[2.0, 3.0, 4.0, 8.0, 0.0])
    values = per_user(table({"u": ["a", "b", "x"], "v": ["a"]}), truth, 5)
    assert values["revenue"].to_dict() == {"u": 12.0, "v": 0.0}
    assert values["revenue_share"].to_dict() == {"u": 0.6, "v": 0.0}


def test_no_prices_no_revenue() -> None:
    assert "revenue" not in values_of({"u": ["a"]}, {"u": ["a"]})


# ---- properties


@given(LISTS, TRUTHS, st.integers(1, 12))
def test_values_lie_between_zero_and_one(lists: dict, truth: dict, k: int) -> None:
    values = values_of(lists, truth, k)
    assert values.index.tolist() == sorted(truth)
    assert values.notna().all(axis=None)
    assert values.ge(0).all(axis=None)
    assert values.le(1 + 1e-12).all(axis=None)


@given(LISTS, TRUTHS, st.integers(1, 12))
def test_precision_and_recall_count_the_same_hits(lists: dict, truth: dict, k: int) -> None:
    values = values_of(lists, truth, k)
    hits = [len(set(lists.get(user, [])[:k]) & set(truth[user])) for user in values.index]
    bought = [len(truth[user]) for user in values.index]
    assert np.allclose(values["precision"] * k, hits)
    assert np.allclose(values["recall"] * bought, hits)


@given(TRUTHS, st.integers(1, 12))
def test_the_truth_itself_is_the_best_list(truth: dict, k: int) -> None:
    values = values_of(truth, truth, k)
    assert np.allclose(values[["ndcg", "mrr", "hit_rate"]], 1)
    assert np.allclose(values["precision"], [min(k, len(truth[u])) / k for u in values.index])


@pytest.mark.spec("C4")
@given(LISTS, TRUTHS, st.integers(0, 99))
def test_rows_in_another_order_change_nothing(lists: dict, truth: dict, seed: int) -> None:
    recs, bought = table(lists), table(truth)
    shuffled = recs.sample(frac=1, random_state=seed), bought.sample(frac=1, random_state=seed + 1)
    pd.testing.assert_frame_equal(per_user(*shuffled, 5), per_user(recs, bought, 5))


@given(LISTS, TRUTHS)
def test_categories_and_text_are_judged_alike(lists: dict, truth: dict) -> None:
    recs, bought = table(lists), table(truth)
    ids = {"user_id": "category", "item_id": "category"}
    values = per_user(recs.astype(ids), bought.astype(ids), 5)
    pd.testing.assert_frame_equal(values, per_user(recs, bought, 5))


@settings(max_examples=50)
@given(LISTS, TRUTHS)
def test_moving_a_hit_up_never_hurts(lists: dict, truth: dict) -> None:
    user = next(iter(truth))
    assume(lists.get(user))
    hits_first = sorted(lists[user], key=lambda item: item not in truth[user])
    before = values_of({user: lists[user]}, {user: truth[user]})
    after = values_of({user: hits_first}, {user: truth[user]})
    assert (after >= before - 1e-12).all(axis=None)


# ---- all lists together


@pytest.mark.parametrize(("counts", "value"), [([3, 3, 3], 0), ([0, 0, 0, 8], 0.75), ([0, 0], 0)])
def test_gini_of_known_counts(counts: list, value: float) -> None:
    assert gini(np.array(counts)) == value


@given(st.lists(st.integers(0, 50), min_size=1, max_size=30), st.integers(1, 9))
def test_gini_is_the_mean_difference_and_has_no_unit(counts: list[int], times: int) -> None:
    assume(sum(counts))
    x = np.array(counts, float)
    mean_difference = np.abs(x[:, None] - x).mean()
    assert gini(x) == pytest.approx(mean_difference / (2 * x.mean()))
    assert gini(times * x) == pytest.approx(gini(x))


def test_beyond_accuracy_by_hand(tiny: pd.DataFrame) -> None:
    """Buyers: jam and milk ann and cat, beer bob, bread ann and bob. Prices 4, 1, 1.5, 2."""
    recs = table({"ann": ["jam", "milk"], "bob": ["jam", "bread"]})
    values = beyond_accuracy(recs, Interactions.of(tiny), 2)
    jam_and_milk, jam_and_bread = 1, 0.5  # cosines: all buyers in common, one of two
    assert values["coverage"] == 0.75
    assert values["repeat_share"] == 0.75
    assert values["gini"] == pytest.approx(gini(np.array([2, 1, 0, 1])))
    assert values["novelty"] == pytest.approx(-np.log2(2 / 3))
    assert values["mean_price"] == pytest.approx((4 + 1 + 4 + 2) / 4)
    assert values["diversity"] == pytest.approx(1 - (jam_and_milk + jam_and_bread) / 2)


def test_beyond_accuracy_looks_at_the_first_k_only(tiny: pd.DataFrame) -> None:
    recs = table({"ann": ["jam", "milk", "beer"], "bob": ["jam", "beer", "milk"]})
    assert beyond_accuracy(recs, Interactions.of(tiny), 1)["coverage"] == 0.25


def test_diversity_is_the_mean_over_pairs(shop: Shop) -> None:
    rng = np.random.default_rng(0)
    history = shop.history
    users = history.user_ids[:20]
    lists = {user: rng.choice(history.item_ids, 6, replace=False) for user in users}
    bought = (history.matrix().toarray() > 0).astype(float)
    unit = pd.DataFrame((bought / np.linalg.norm(bought, axis=0)).T, history.item_ids)
    means = []
    for items in lists.values():
        cosines = (unit.loc[items] @ unit.loc[items].T).to_numpy()
        means.append(cosines[np.triu_indices(6, 1)].mean())
    diversity = beyond_accuracy(table(lists), history, 6)["diversity"]
    assert diversity == pytest.approx(1 - np.mean(means))


def _diversity_by_vectors(recs: pd.DataFrame, history: Interactions) -> float:
    """Of lists of one size, from the length of the sum of each list's unit vectors of buyers."""
    bought = (history.matrix().toarray() > 0).astype(float)
    unit = (bought / np.maximum(np.linalg.norm(bought, axis=0), 1)).T
    cosines = []
    for _, items in recs.groupby("user_id")["item_id"]:
        total = unit[history.item_ids.get_indexer(items)].sum(axis=0)
        size = len(items)
        cosines.append((total @ total - size) / (size * (size - 1)))
    return 1 - np.mean(cosines)


@pytest.mark.parametrize("block", [1, 50, 1 << 20])
def test_diversity_is_that_of_whole_vectors_in_blocks_of_any_size(
    shop: Shop, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "LOOKED_UP", block)
    history = shop.history
    listed = pd.Series(["a new one", "another", *history.item_ids])
    shelf = Interactions.of(history.purchases, as_of=history.as_of, catalogue=listed)
    assert not shelf.sold.all()
    rng = np.random.default_rng(3)
    lists = {user: rng.choice(shelf.item_ids, 8, replace=False) for user in shelf.user_ids[:40]}
    recs = table(lists)
    diversity = beyond_accuracy(recs, shelf, 8)["diversity"]
    assert diversity == pytest.approx(_diversity_by_vectors(recs, shelf), abs=1e-12)


def test_users_without_history_repeat_nothing(tiny: pd.DataFrame) -> None:
    recs = table({"stranger": ["jam", "milk"]})
    assert beyond_accuracy(recs, Interactions.of(tiny), 5)["repeat_share"] == 0


def test_without_prices_there_is_no_mean_price(tiny: pd.DataFrame) -> None:
    history = Interactions.of(tiny.drop(columns="price"))
    assert "mean_price" not in beyond_accuracy(table({"ann": ["jam"]}), history, 5)


@pytest.mark.parametrize("metric", ["coverage", "gini", "novelty", "diversity", "repeat_share"])
def test_a_table_of_nothing_is_zero_in_all(tiny: pd.DataFrame, metric: str) -> None:
    assert beyond_accuracy(table({}), Interactions.of(tiny), 5)[metric] == 0


def test_an_item_that_nobody_bought_is_not_of_the_catalogue(tiny: pd.DataFrame) -> None:
    """A model that knows attributes recommends new items too."""
    recs = table({"ann": ["jam", "brand-new"]})
    assert beyond_accuracy(recs, Interactions.of(tiny), 5)["coverage"] == 0.25


def test_an_item_twice_in_a_list_is_refused() -> None:
    """It would be counted as two hits: recall 1.5."""
    recs = pd.DataFrame({"user_id": "u", "item_id": ["a", "a", "b"], "rank": [1, 2, 3]})
    truth = pd.DataFrame({"user_id": "u", "item_id": ["a", "b"]})
    with pytest.raises(LabError, match="recs list item a twice for user u"):
        per_user(recs, truth, 5)


def test_ids_that_are_floating_numbers_are_refused() -> None:
    """1.0 and 1 would be two people, and every value zero."""
    recs = pd.DataFrame({"user_id": [1.0], "item_id": ["a"], "rank": [1]})
    truth = pd.DataFrame({"user_id": [1], "item_id": ["a"]})
    with pytest.raises(LabError, match="user_id of recs is float64"):
        per_user(recs, truth, 5)
    assert per_user(recs.astype({"user_id": int}), truth, 5)["precision"].tolist() == [0.2]
