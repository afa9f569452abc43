"""Metrics against ranx, against hand-worked cases, and against the usual traps."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from shops import Shop

from recsys_utils.data.interactions import Interactions
from recsys_utils.evaluation.metrics import beyond_accuracy, gini, per_user

ACCURACY = (
    "precision",
    "recall",
    "ndcg",
    "map",
    "mrr",
    "hit_rate",
)  # as ranx names them, in our order of columns

LISTS = st.dictionaries(
    st.sampled_from("uvwxyz"), st.lists(st.integers(0, 30), unique=True, max_size=15), max_size=6
)
TRUTHS = st.dictionaries(
    st.sampled_from("uvwxyz"),
    st.lists(st.integers(0, 30), unique=True, min_size=1, max_size=15),
    min_size=1,
)


def pairs(lists: dict[str, list]) -> pd.DataFrame:
    rows = [(user, str(item)) for user, items in lists.items() for item in items]
    return pd.DataFrame(rows, columns=["user_id", "item_id"], dtype=object)


def table(lists: dict[str, list]) -> pd.DataFrame:
    frame = pairs(lists)
    rank = frame.groupby("user_id").cumcount() + 1
    return frame.assign(rank=rank.astype(np.int64), score=-rank.astype(float))


def judge(lists: dict[str, list], truth: dict[str, list], k: int = 5) -> pd.DataFrame:
    return per_user(table(lists), pairs(truth), k)


# ---- against ranx


def of_ranx(recs: pd.DataFrame, truth: pd.DataFrame, k: int) -> pd.DataFrame:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ranx import Qrels, Run, evaluate

        qrels = Qrels(
            {user: dict.fromkeys(rows["item_id"], 1) for user, rows in truth.groupby("user_id")}
        )
        run = Run(
            {
                user: dict(zip(rows["item_id"], rows["score"]))
                for user, rows in recs.groupby("user_id")
            }
        )
        made = evaluate(
            qrels,
            run,
            [f"{metric}@{k}" for metric in ACCURACY],
            return_mean=False,
            make_comparable=True,
        )
    return pd.DataFrame(made, index=list(qrels.qrels)).sort_index().set_axis(list(ACCURACY), axis=1)


def random_case(seed: int, ties: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
    """200 users, some unserved or with short lists. ties: runs of equal scores that are all hits or all misses."""
    rng = np.random.default_rng(seed)
    truth = {
        f"u{u:03d}": rng.choice(60, rng.integers(1, 25), replace=False).tolist() for u in range(200)
    }
    recs = table(
        {
            user: rng.choice(60, rng.integers(1, 40), replace=False).tolist()
            for user in truth
            if rng.random() < 0.9
        }
    )
    if ties:
        hit = pd.MultiIndex.from_frame(recs[["user_id", "item_id"]]).isin(
            pd.MultiIndex.from_frame(pairs(truth))
        )
        new = (hit != pd.Series(hit).shift(fill_value=False)) | (recs["rank"] == 1)
        recs["score"] = -new.cumsum().astype(float)
    return recs, pairs(truth)


@pytest.mark.spec("C3")
@pytest.mark.parametrize("k", [1, 5, 10, 50])
@pytest.mark.parametrize("ties", [False, True])
def test_accuracy_is_that_of_ranx(k: int, ties: bool) -> None:
    """Ties: ranx orders equal scores as it likes, so its numbers are defined where equal scores are equally right."""
    recs, truth = random_case(k + 100 * ties, ties)
    ours, theirs = per_user(recs, truth, k)[list(ACCURACY)], of_ranx(recs, truth, k)
    assert ties == recs.duplicated(["user_id", "score"]).any()
    assert ours.index.tolist() == theirs.index.tolist()
    assert theirs.to_numpy().any()
    assert np.abs(ours.to_numpy() - theirs.to_numpy()).max() < 1e-9


# ---- by hand


@pytest.mark.spec("S3-24")
@pytest.mark.spec("C3")
def test_the_example_of_the_specification() -> None:
    """Rec [a,b,c,d,e], bought {b,e,x} → 0.4; empty list → 0."""
    made = judge({"u": list("abcde")}, {"u": list("bex"), "v": ["a"]})
    assert made["precision"].to_dict() == {"u": 0.4, "v": 0.0}


def test_every_metric_by_hand() -> None:
    """Hits at ranks 2 and 5 of three bought items."""
    row = judge({"u": list("abcde")}, {"u": list("bex")}).loc["u"]
    assert row["recall"] == pytest.approx(2 / 3)
    assert row["hit_rate"] == 1
    assert row["mrr"] == 0.5
    assert row["map"] == pytest.approx((1 / 2 + 2 / 5) / 3)
    assert row["ndcg"] == pytest.approx(
        (1 / np.log2(3) + 1 / np.log2(6)) / (1 + 1 / np.log2(3) + 1 / 2)
    )


def test_trap_short_lists_divide_by_k() -> None:
    assert judge({"u": ["a"]}, {"u": ["a", "b"]})["precision"]["u"] == 0.2


def test_trap_idcg_is_over_the_shorter_of_k_and_truth() -> None:
    """One bought item at rank 1 is perfect; so are the first k of many."""
    assert judge({"u": list("abcde")}, {"u": ["a"]})["ndcg"]["u"] == 1
    assert judge({"u": range(5)}, {"u": range(20)})["ndcg"]["u"] == pytest.approx(1)


def test_trap_unserved_users_count_as_zero() -> None:
    made = judge({"u": ["a"]}, {"u": ["a"], "v": ["a"], "w": ["b"]})
    assert made.index.tolist() == ["u", "v", "w"]
    assert made.loc[["v", "w"]].eq(0).all(axis=None)
    assert made["hit_rate"].mean() == pytest.approx(1 / 3)


def test_a_table_of_nothing_is_zero_for_everyone() -> None:
    made = judge({}, {"u": ["a"], "v": ["b"]})
    assert len(made) == 2
    assert made.eq(0).all(axis=None)


def test_users_without_truth_are_not_judged() -> None:
    assert judge({"u": ["a"], "stranger": ["a"]}, {"u": ["a"]}).index.tolist() == ["u"]


def test_truth_is_distinct_items() -> None:
    once, twice = pairs({"u": ["a", "b"]}), pairs({"u": ["a", "a", "a", "b"]})
    pd.testing.assert_frame_equal(
        per_user(table({"u": ["a"]}), once, 5), per_user(table({"u": ["a"]}), twice, 5)
    )


def test_revenue_is_what_the_shopper_then_spent_on_the_hits() -> None:
    truth = pairs({"u": ["a", "a", "b", "c"], "v": ["a"]}).assign(
        quantity=[1, 2, 1, 1, 1], price=[2.0, 3.0, 4.0, 8.0, 0.0]
    )
    made = per_user(table({"u": ["a", "b", "x"], "v": ["a"]}), truth, 5)
    assert made["revenue"].to_dict() == {"u": 12.0, "v": 0.0}
    assert made["revenue_share"].to_dict() == {"u": 0.6, "v": 0.0}


def test_no_prices_no_revenue() -> None:
    assert "revenue" not in judge({"u": ["a"]}, {"u": ["a"]})


# ---- properties


@given(LISTS, TRUTHS, st.integers(1, 12))
def test_values_lie_between_zero_and_one(lists: dict, truth: dict, k: int) -> None:
    made = judge(lists, truth, k)
    assert made.index.tolist() == sorted(truth)
    assert made.notna().all(axis=None)
    assert made.ge(0).all(axis=None)
    assert made.le(1 + 1e-12).all(axis=None)


@given(LISTS, TRUTHS, st.integers(1, 12))
def test_precision_and_recall_count_the_same_hits(lists: dict, truth: dict, k: int) -> None:
    made = judge(lists, truth, k)
    hits = [len(set(lists.get(user, [])[:k]) & set(truth[user])) for user in made.index]
    assert np.allclose(made["precision"] * k, hits)
    assert np.allclose(made["recall"] * [len(truth[user]) for user in made.index], hits)


@given(TRUTHS, st.integers(1, 12))
def test_the_truth_itself_is_the_best_list(truth: dict, k: int) -> None:
    made = judge(truth, truth, k)
    assert np.allclose(made[["ndcg", "mrr", "hit_rate"]], 1)
    assert np.allclose(made["precision"], [min(k, len(truth[u])) / k for u in made.index])


@pytest.mark.spec("C4")
@given(LISTS, TRUTHS, st.randoms())
def test_rows_in_another_order_change_nothing(lists: dict, truth: dict, random) -> None:
    recs, true = table(lists), pairs(truth)
    mixed = (
        recs.sample(frac=1, random_state=random.randrange(99)),
        true.sample(frac=1, random_state=random.randrange(99)),
    )
    pd.testing.assert_frame_equal(per_user(*mixed, 5), per_user(recs, true, 5))


@given(LISTS, TRUTHS)
def test_categories_and_text_are_judged_alike(lists: dict, truth: dict) -> None:
    recs, true, ids = table(lists), pairs(truth), {"user_id": "category", "item_id": "category"}
    pd.testing.assert_frame_equal(
        per_user(recs.astype(ids), true.astype(ids), 5), per_user(recs, true, 5)
    )


@settings(max_examples=50)
@given(LISTS, TRUTHS)
def test_moving_a_hit_up_never_hurts(lists: dict, truth: dict) -> None:
    user = next(iter(truth))
    assume(lists.get(user))
    better = {user: sorted(lists[user], key=lambda item: item not in truth[user])}
    assert (
        judge(better, {user: truth[user]})
        >= judge({user: lists[user]}, {user: truth[user]}) - 1e-12
    ).all(axis=None)


# ---- what a set of lists is like


def test_gini_of_known_counts() -> None:
    assert gini(np.array([3, 3, 3])) == 0
    assert gini(np.array([0, 0, 0, 8])) == 0.75
    assert gini(np.zeros(3)) == 0


@given(st.lists(st.integers(0, 50), min_size=1, max_size=30), st.integers(1, 9))
def test_gini_is_the_mean_absolute_difference_and_has_no_unit(
    counts: list[int], times: int
) -> None:
    assume(sum(counts))
    x = np.array(counts, float)
    assert gini(x) == pytest.approx(np.abs(x[:, None] - x).mean() / (2 * x.mean()))
    assert gini(times * x) == pytest.approx(gini(x))


def test_whole_by_hand(tiny: pd.DataFrame) -> None:
    """Items: jam (ann, cat; 4.0), milk (ann, cat; 1.0), beer (bob; 1.5), bread (ann, bob; 2.0)."""
    made = beyond_accuracy(
        table({"ann": ["jam", "milk"], "bob": ["jam", "bread"]}), Interactions.of(tiny), 2
    )
    assert made["coverage"] == 0.75
    assert made["repeat_share"] == 0.75
    assert made["gini"] == pytest.approx(gini(np.array([2, 1, 0, 1])))
    assert made["novelty"] == pytest.approx(-np.log2(2 / 3))
    assert made["mean_price"] == pytest.approx((4 + 1 + 4 + 2) / 4)
    assert made["diversity"] == pytest.approx(
        1 - (1 + 0.5) / 2
    )  # jam–milk share all buyers, jam–bread one of two


def test_whole_looks_at_the_first_k_only(tiny: pd.DataFrame) -> None:
    recs = table({"ann": ["jam", "milk", "beer"], "bob": ["jam", "beer", "milk"]})
    assert beyond_accuracy(recs, Interactions.of(tiny), 1)["coverage"] == 0.25


def test_whole_diversity_is_the_mean_over_pairs(shop: Shop) -> None:
    rng, history = np.random.default_rng(0), shop.history
    lists = {
        user: rng.choice(history.item_ids, 6, replace=False).tolist()
        for user in history.user_ids[:20]
    }
    x = (history.matrix().toarray() > 0).astype(float)
    unit = pd.DataFrame((x / np.linalg.norm(x, axis=0)).T, history.item_ids)
    cosine = [
        np.mean((unit.loc[items] @ unit.loc[items].T).to_numpy()[np.triu_indices(6, 1)])
        for items in lists.values()
    ]
    assert beyond_accuracy(table(lists), history, 6)["diversity"] == pytest.approx(
        1 - np.mean(cosine)
    )


def test_whole_of_users_without_history(tiny: pd.DataFrame) -> None:
    assert (
        beyond_accuracy(table({"stranger": ["jam", "milk"]}), Interactions.of(tiny), 5)[
            "repeat_share"
        ]
        == 0
    )


def test_whole_without_prices_has_no_mean_price(tiny: pd.DataFrame) -> None:
    assert "mean_price" not in beyond_accuracy(
        table({"ann": ["jam"]}), Interactions.of(tiny.drop(columns="price")), 5
    )


def test_whole_of_a_table_of_nothing(tiny: pd.DataFrame) -> None:
    made = beyond_accuracy(table({}), Interactions.of(tiny), 5)
    assert made["coverage"] == 0
    assert made["diversity"] == 0


def test_whole_of_an_item_that_nobody_has_bought_yet(tiny: pd.DataFrame) -> None:
    """A model that knows attributes recommends new items: they are none of the catalogue's."""
    assert (
        beyond_accuracy(table({"ann": ["jam", "brand-new"]}), Interactions.of(tiny), 5)["coverage"]
        == 0.25
    )
