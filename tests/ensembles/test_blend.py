"""Fusions of tables: worked by hand, then what must hold of any tables."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shops import Shop

from recsys_utils import LabError
from recsys_utils.data import folds, runs
from recsys_utils.ensembles import blend
from recsys_utils.evaluation.metrics import per_user
from recsys_utils.evaluation.slices import warm
from recsys_utils.models import ALS, CoPurchase, ItemCF, OwnPurchases, Popular

ITEMS = list("abcdef")  # by popularity: a sells most


def table(**users: dict[str, float]) -> pd.DataFrame:
    """A table from {item: score} by user, ranked by score, in the common numbering of items."""
    rows = [
        (user, item, score, rank)
        for user, scores in users.items()
        for rank, (item, score) in enumerate(
            sorted(scores.items(), key=lambda pair: (-pair[1], pair[0])), 1
        )
    ]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "score", "rank"])
    return frame.assign(
        user_id=pd.Categorical(frame["user_id"]), item_id=pd.Categorical(frame["item_id"], ITEMS)
    )


def shown(recs: pd.DataFrame, user: str) -> list[tuple[str, float, str]]:
    mine = recs[recs["user_id"] == user]
    assert mine["rank"].tolist() == list(range(1, len(mine) + 1))
    return [
        (str(i), round(float(s), 4), str(m))
        for i, s, m in zip(mine["item_id"], mine["score"], mine["source"])
    ]


ALS_ = table(u={"a": 10, "b": 20, "c": 30}, v={"a": 5, "b": 5})
CF = table(u={"c": 0.5, "d": 0.1})
POP = table(u={"a": 9, "d": 3}, v={"e": 2}, w={"e": 2, "a": 1})
THREE = {"als": ALS_, "cf": CF, "pop": POP}
DEFAULT = {"als": 0.4, "cf": 0.4, "pop": 0.2}


@pytest.mark.spec("S5-07")
def test_weighted_by_hand() -> None:
    """u: als gives c 1, b ½, a 0; cf c 1, d 0; pop a 1, d 0.

    v: als is constant, so 1, and cf is silent: 0.4 and 0.2 of 0.6.
    """
    result = blend.weighted(THREE, DEFAULT)
    assert shown(result, "u") == [
        ("c", 0.8, "als"),
        ("a", 0.2, "pop"),
        ("b", 0.2, "als"),
        ("d", 0.0, "cf"),
    ]
    assert shown(result, "v") == [("a", 0.6667, "als"), ("b", 0.6667, "als"), ("e", 0.3333, "pop")]
    assert shown(result, "w") == [("e", 1.0, "pop"), ("a", 0.0, "pop")]
    assert blend.weighted(THREE, DEFAULT, 2)["rank"].max() == 2


@pytest.mark.spec("S5-07")
def test_one_weight_reproduces_the_model() -> None:
    result = blend.weighted(THREE, {"als": 1, "cf": 0, "pop": 0})
    assert [item for item, _, _ in shown(result, "u")] == ["c", "b", "a"]
    assert "w" not in set(result["user_id"])
    assert [item for item, _, _ in shown(result, "v")] == ["a", "b"]


@pytest.mark.spec("S5-47")
def test_source_is_the_largest_weighted_contribution() -> None:
    """d is cf's favourite and pop's too: the weights alone decide whose it is."""
    both = {"cf": table(u={"d": 2, "e": 1}), "pop": table(u={"d": 7, "f": 1})}
    assert shown(blend.weighted(both, {"cf": 0.4, "pop": 0.6}), "u")[0] == ("d", 1.0, "pop")
    assert shown(blend.weighted(both, {"cf": 0.6, "pop": 0.4}), "u")[0] == ("d", 1.0, "cf")


@st.composite
def tables(draw: st.DrawFn) -> dict[str, pd.DataFrame]:
    scores = st.dictionaries(st.sampled_from(ITEMS), st.integers(-9, 9), min_size=1)
    users = st.dictionaries(st.sampled_from("uvw"), scores, min_size=1)
    return {name: table(**draw(users)) for name in ("m", "n", "o")}


weights = st.fixed_dictionaries({name: st.integers(1, 5) for name in "mno"})


@pytest.mark.spec("S5-07")
@given(tables(), weights, st.integers(1, 9), st.integers(-9, 9))
def test_rescaling_a_model_changes_nothing(
    made: dict, weight: dict, factor: int, shift: int
) -> None:
    before = blend.weighted(made, weight)
    after = blend.weighted(
        made | {"n": made["n"].assign(score=factor * made["n"]["score"] + shift)}, weight
    )
    pd.testing.assert_frame_equal(before, after)


@pytest.mark.spec("S5-10")
@given(tables(), weights, st.integers(1, 8))
def test_every_fusion_gives_ordered_lists_of_what_the_models_list(
    made: dict, weight: dict, n: int
) -> None:
    choice = pd.Series({"u": "n", "v": "o"})
    fused = {
        "weighted": blend.weighted(made, weight, n),
        "rrf": blend.rrf(made, weights=weight, n=n),
        "cascade": blend.cascade(made, {"m": 2}, n),
        "route": blend.route(made, choice, "m", n),
    }
    listed = set().union(*(zip(recs["user_id"], recs["item_id"]) for recs in made.values()))
    for name, recs in fused.items():
        assert not recs.duplicated(["user_id", "item_id"]).any()
        assert set(zip(recs["user_id"], recs["item_id"])) <= listed
        assert list(recs) == ["user_id", "item_id", "score", "rank", "source"]
        assert recs["rank"].max() <= n
        for _, mine in recs.groupby("user_id", observed=True):
            assert mine["rank"].tolist() == list(range(1, len(mine) + 1)), name
            assert (mine["score"].diff().dropna() <= 0).all(), name
    assert fused["weighted"]["score"].between(0, 1).all()


@given(tables(), weights, st.randoms(use_true_random=False))
def test_rows_in_another_order_change_nothing(made: dict, weight: dict, random: object) -> None:
    mixed = {
        name: recs.sample(frac=1, random_state=random.randint(0, 99)) for name, recs in made.items()
    }
    for fuse in (
        lambda t: blend.weighted(t, weight),
        blend.rrf,
        blend.cascade,
        lambda t: blend.route(t, pd.Series(dtype=object), "n"),
    ):
        pd.testing.assert_frame_equal(fuse(made), fuse(mixed))


def test_ties_go_to_the_more_popular_item_in_any_numbering() -> None:
    """The first table's numbering holds.

    What it lacks comes after, and plain text columns go by id.
    """
    late = pd.DataFrame(
        {
            "user_id": pd.Categorical(["u", "u"]),
            "item_id": pd.Categorical(["z", "b"], ["z", "b"]),
            "score": [1.0, 1.0],
            "rank": [1, 2],
        }
    )
    result = blend.weighted({"als": table(u={"c": 1, "b": 1}), "late": late}, {"als": 1, "late": 1})
    assert shown(result, "u") == [("b", 1.0, "als"), ("c", 0.5, "als"), ("z", 0.5, "late")]
    plain = {name: recs.astype({"user_id": str, "item_id": str}) for name, recs in THREE.items()}
    assert all(
        shown(blend.weighted(plain, DEFAULT), u) == shown(blend.weighted(THREE, DEFAULT), u)
        for u in "uvw"
    )


def test_rrf_by_hand() -> None:
    """u: a stands 3rd in als and 1st in pop, c 1st in als and in cf, d 2nd in cf and in pop."""
    result = shown(blend.rrf(THREE, k=0), "u")
    assert result == [("c", 2.0, "als"), ("a", 1.3333, "pop"), ("d", 1.0, "cf"), ("b", 0.5, "als")]
    heavy = shown(blend.rrf(THREE, k=1, weights={"pop": 10, "als": 1}), "u")
    assert heavy == [
        ("a", 5.25, "pop"),
        ("d", 3.3333, "pop"),
        ("c", 0.5, "als"),
        ("b", 0.3333, "als"),
    ]


def test_cascade_by_hand() -> None:
    """als gives its first, cf one item that is not there yet (d, not c), pop what is left."""
    assert shown(blend.cascade(THREE, {"als": 1, "cf": 1}), "u") == [
        ("c", 1.0, "als"),
        ("d", 0.5, "cf"),
        ("a", 0.3333, "pop"),
    ]
    assert [(i, m) for i, _, m in shown(blend.cascade(THREE), "u")] == [
        ("c", "als"),
        ("b", "als"),
        ("a", "als"),
        ("d", "cf"),
    ]
    assert shown(blend.cascade(THREE, {"als": 0, "cf": 0}), "w") == [
        ("e", 1.0, "pop"),
        ("a", 0.5, "pop"),
    ]


def test_route_by_hand() -> None:
    """v is sent to cf, which has no list of v: the default answers; w has no choice."""
    result = blend.route(THREE, pd.Series({"u": "cf", "v": "cf"}), "pop")
    assert [shown(result, user) for user in "uvw"] == [
        [("c", 0.5, "cf"), ("d", 0.1, "cf")],
        [("e", 2.0, "pop")],
        [("e", 2.0, "pop"), ("a", 1.0, "pop")],
    ]


def test_choose_route_takes_the_best_of_large_segments() -> None:
    users = [f"u{n}" for n in range(10)]
    values = {
        "als": pd.DataFrame({"precision": [1] * 4 + [0] * 6}, users),
        "own": pd.DataFrame({"precision": [0.1] * 4 + [0.9] * 5 + [0]}, users),
    }
    segment = pd.Series(["new"] * 4 + ["loyal"] * 5 + ["odd"], users)
    choice, default = blend.choose_route(values, segment, fewest=4)
    assert default == "own"
    assert choice.to_dict() == {"new": "als", "loyal": "own", "odd": "own"}
    assert blend.choose_route(values, segment, fewest=5)[0]["new"] == "own"
    with pytest.raises(LabError, match="no validation users"):
        blend.choose_route({"als": pd.DataFrame({"precision": []})}, segment)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: blend.weighted(THREE, {"als": -1, "cf": 1}), "als=-1"),
        (lambda: blend.weighted(THREE, {"als": 0}), "every weight is 0"),
        (lambda: blend.weighted(THREE, {"bpr": 1}), "'bpr', of which there is no table"),
        (lambda: blend.weighted(THREE, {"als": np.nan}), "als=nan"),
        (lambda: blend.weighted({}, {}), "every weight is 0"),
        (lambda: blend.rrf({}), "every weight is 0"),
        (lambda: blend.rrf(THREE, k=-1), "k=-1"),
        (lambda: blend.cascade({}), "nothing to blend"),
        (lambda: blend.cascade(THREE, {"als": -2}), "als=-2"),
        (lambda: blend.cascade(THREE, n=0), "n is 0"),
        (lambda: blend.cascade(THREE, {"x": 2}), "'x'"),
        (lambda: blend.route(THREE, pd.Series({"u": "x"}), "als"), "no table of 'x'"),
        (lambda: blend.route(THREE, pd.Series(dtype=str), "y"), "no table of 'y'"),
        (lambda: blend.rrf({"a": ALS_.drop(columns="rank")}), "'a' lacks the column rank"),
        (lambda: blend.rrf({"a": ALS_, "b": CF.assign(score=np.nan)}), "'b' has an empty score"),
        (lambda: blend.rrf({"a": pd.concat([ALS_, ALS_])}), "twice"),
    ],
)
def test_bad_input_is_named(call: Callable, said: str) -> None:
    with pytest.raises(LabError, match=said):
        call()


@pytest.mark.spec("S5-07")
def test_one_shopper_as_among_all_and_quickly(shop: Shop) -> None:
    """What the service asks for one shopper is what the table says, in milliseconds."""
    models = {
        "als": ALS(8, iterations=2, weighting="signal"),
        "item_cf": CoPurchase(),
        "popularity": Popular(None),
    }
    every, seconds = blend.lists(models, shop.stage)
    user = shop.stage.users[3]
    weight = {"als": 0.4, "item_cf": 0.4, "popularity": 0.2}
    one = {name: model.recommend([user], 200) for name, model in models.items()}
    fused = blend.weighted(one, weight)
    whole = blend.weighted(every, weight)
    assert shown(fused, user) == shown(whole, user)
    assert len(fused) == 200
    assert (seconds > 0).all(axis=None)
    assert list(seconds.index) == list(models)
    took = []
    for _ in range(20):
        start = time.perf_counter()
        blend.weighted(one, weight)
        took.append(time.perf_counter() - start)
    assert min(took) < 0.005


def test_a_fusion_costs_what_its_parts_cost(home: Path) -> None:
    (home / "s.csv").write_text(
        "who,what,when\n"
        + "\n".join(f"{n % 9},{n % 5},2024-01-{1 + n // 20:02}" for n in range(600))
    )
    (home / "s.toml").write_text(
        'test_weeks = 1\nvalid_weeks = 1\n[purchases]\nfiles = ["s.csv"]\n'
        '[purchases.columns]\nuser_id = "who"\nitem_id = "what"\nts = "when"\n'
    )
    folds.write_folds(str(home / "s.toml"))
    fold = folds.load_fold(str(home / "s.toml"))
    tables, _ = blend.lists(
        {"popular": Popular(28), "cf": CoPurchase(), "unused": Popular(7)}, fold.testing, 5
    )
    seconds = pd.DataFrame(
        {"fit": [1.0, 2.0, 50.0], "recommend": [0.25, 0.5, 50.0]}, ["popular", "cf", "unused"]
    )
    del tables["unused"]
    result = blend.record(blend.rrf, tables, fold, "blend_rrf", seconds, "note", k=7)
    saved, metas = runs.load_runs(fold)
    meta = metas.loc["blend_rrf"]
    assert (meta["family"], meta["note"], meta["fit_seconds"]) == (
        "hybrid",
        "note",
        3.0,
    )
    assert 0.75 < meta["recommend_seconds"] < 1.75
    assert meta["params"] == {"models": ["popular", "cf"], "k": 7}
    assert len(saved["blend_rrf"]) == len(result) == len(blend.rrf(tables, 7))


def test_choose_weights_reaches_what_it_says_and_beats_each_model(shop: Shop) -> None:
    """The precision it reports is that of the fusion under its weights, and no worse than any
    single model's.
    """
    truth = warm(shop.truth, shop.history)
    tables, _ = blend.lists(
        {"own": OwnPurchases(180), "bm25": ItemCF(), "popular": Popular(28)}, shop.stage
    )
    single = {name: per_user(recs, truth, 5)["precision"].mean() for name, recs in tables.items()}
    for rank_k, fuse in (
        (None, blend.weighted),
        (20, lambda runs, weights: blend.rrf(runs, 20, weights)),
    ):
        weights, reached = blend.choose_weights(tables, truth, rank_k=rank_k)
        assert sum(weights.values()) == pytest.approx(1)
        assert set(weights) <= set(tables)
        assert min(weights.values()) > 0
        assert reached == pytest.approx(
            per_user(fuse(tables, weights=weights), truth, 5)["precision"].mean(), abs=1e-6
        )
        assert reached >= max(single.values()) - 1e-9


def test_choose_weights_by_hand() -> None:
    """Ann buys a and c: als has the one, cf the other, noise neither.

    Only both together hit twice.
    """
    tables = {
        "noise": table(ann={"f": 3, "e": 2}),
        "als": table(ann={"a": 9, "f": 1}),
        "cf": table(ann={"c": 7, "e": 2, "d": 1}),
    }
    weights, reached = blend.choose_weights(
        tables, pd.DataFrame({"user_id": ["ann", "ann", "eve"], "item_id": ["a", "c", "a"]}), k=2
    )
    assert weights == {"als": 0.5, "cf": 0.5}
    # eve, whom nobody serves, counts too
    assert reached == pytest.approx(2 / (2 * 2))
    assert blend.choose_weights(
        tables, pd.DataFrame({"user_id": ["ann"], "item_id": ["f"]}), k=1, rounds=1
    )[0] == {"noise": 1.0}
