"""Preference pairs by hand.

Preferences, pairs, both losses, the two towers, and users without history.
"""

import ast
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from shops import Shop, receipts

import recsys_utils
from recsys_utils import LabError
from recsys_utils.data.attributes import blocks, hot
from recsys_utils.data.interactions import Interactions
from recsys_utils.models import OwnPurchases, Popular, PreferencePairs, load_model
from recsys_utils.models.preference_pairs import (
    METADATA,
    PreferenceNet,
    _Sampler,
    kl_loss,
    pairwise_loss,
)
from recsys_utils.models.preferences import flips, pairs, preferences

QUICK = {"batch_size": 256, "learning_rate": 0.02}
RANKER = QUICK | {"negatives": 4, "held": 0}
CHARGERS = "u cheap b1 2024-01-01 12 5\nu premium b2 2024-01-02 3 40"
tables = st.lists(st.lists(st.integers(0, 4), min_size=6, max_size=6), min_size=1, max_size=5).map(
    lambda rows: sparse.csr_matrix(np.array(rows, float))
)


def values(data: Interactions, **how: object) -> dict[str, float]:
    """The first client's preferences by item."""
    table = preferences(data, **how)[0]
    return dict(zip(data.item_ids[table.indices], table.data.tolist()))


def brute(table: sparse.csr_matrix) -> set[tuple[int, int, int]]:
    dense = table.toarray()
    return {
        (u, a, b)
        for u in range(len(dense))
        for a in range(dense.shape[1])
        for b in range(dense.shape[1])
        if dense[u, a] > dense[u, b] > 0
    }


def as_set(made: np.ndarray) -> set[tuple[int, int, int]]:
    return set(zip(*made.tolist()))


@pytest.fixture(scope="module")
def learnt(shop: Shop) -> PreferencePairs:
    return PreferencePairs(**RANKER, epochs=6).fit(shop.history)


# ---- preferences


@pytest.mark.spec("S1-03")
def test_quantities_add_up_per_client_and_product(tiny: pd.DataFrame) -> None:
    assert values(Interactions.of(tiny)) == {"milk": 4, "bread": 1, "jam": 1}


@pytest.mark.spec("S1-04")
def test_the_largest_are_kept_and_ties_go_to_the_more_popular_then_the_lower_id() -> None:
    rows = receipts(
        "u c b1 2024-01-01 2 1\nu a b1 2024-01-01 2 1\nu b b1 2024-01-01 2 1\nu d b1 2024-01-01 9"
        " 1\nv c b2 2024-01-02 1 1\nv e b2 2024-01-02 1 1"
    )
    assert values(Interactions.of(rows), top_items=3) == {
        "d": 9,
        "c": 2,
        "a": 2,
    }  # c sells more; a is before b
    assert values(Interactions.of(rows), top_items=1) == {"d": 9}
    assert len(values(Interactions.of(rows), top_items=50)) == 4
    mixed = rows.iloc[[3, 5, 0, 2, 4, 1]]
    assert values(Interactions.of(mixed), top_items=3) == values(Interactions.of(rows), top_items=3)


@pytest.mark.spec("S1-04")
def test_fifty_by_default() -> None:
    rows = receipts("\n".join(f"u i{n:02d} b 2024-01-01 {n + 1} 1" for n in range(60)))
    assert set(values(Interactions.of(rows))) == {f"i{n:02d}" for n in range(10, 60)}


@pytest.mark.spec("S1-06")
def test_the_premium_charger_wins_where_the_price_counts() -> None:
    data = Interactions.of(receipts(CHARGERS))
    assert values(data) == {"cheap": 12, "premium": 3}
    assert values(data, signal="spend") == {"cheap": 60, "premium": 120}
    assert values(data, signal="price_adjusted") == {
        "cheap": 5,
        "premium": 10,
    }  # mean price (12·5 + 3·40) / 15 = 12
    told = flips(data).iloc[0]
    assert (told["more_units"], told["premium"], told["adjusted"], told["premium_adjusted"]) == (
        "cheap",
        "premium",
        5,
        10,
    )
    assert len(flips(data)) == 1
    winner = {
        how: data.item_ids[pairs(preferences(data, how))[1, 0]]
        for how in ("quantity", "price_adjusted")
    }
    assert winner == {"quantity": "cheap", "price_adjusted": "premium"}


@pytest.mark.spec("S1-06")
def test_the_mean_price_is_the_category_s_and_unnamed_categories_are_one() -> None:
    items = pd.DataFrame(
        {
            "item_id": ["cheap", "premium", "sofa", "lamp"],
            "category": ["power", "power", "home", None],
        }
    )
    rows = receipts(CHARGERS + "\nu sofa b3 2024-01-03 1 500\nu lamp b3 2024-01-03 2 30")
    result = values(Interactions.of(rows, items), signal="price_adjusted")
    assert result == {"cheap": 5, "premium": 10, "sofa": 1, "lamp": 2}
    free = values(Interactions.of(receipts("u gift b 2024-01-01 3 0")), signal="price_adjusted")
    assert free == {"gift": 0}


@pytest.mark.spec("S1-06")
@pytest.mark.parametrize("signal", ["spend", "price_adjusted"])
def test_prices_are_asked_for_where_they_are_needed(signal: str, tiny: pd.DataFrame) -> None:
    with pytest.raises(LabError, match="needs prices"):
        preferences(Interactions.of(tiny.drop(columns="price")), signal)
    assert flips(Interactions.of(tiny.drop(columns="price"))).empty


def test_old_purchases_fade_with_tau() -> None:
    data = Interactions.of(receipts("u old b1 2024-01-01 4 1\nu new b2 2024-01-11 2 1"))
    assert values(data, tau=10) == {"old": round(4 * np.exp(-1), 6), "new": 2}


# ---- pairs


@pytest.mark.spec("S1-05")
def test_every_strict_pair_once_and_no_equal_one() -> None:
    table = sparse.csr_matrix(np.array([[3, 1, 3, 2], [1, 1, 0, 0], [0, 0, 5, 0]], float))
    result = pairs(table)
    assert result.dtype == np.int64
    assert result.shape == (3, 5)
    assert as_set(result) == {(0, 0, 3), (0, 0, 1), (0, 2, 3), (0, 2, 1), (0, 3, 1)}


@pytest.mark.spec("S1-05")
@given(tables)
def test_pairs_are_all_ordered_pairs_with_strictly_more(table: sparse.csr_matrix) -> None:
    result = pairs(table)
    assert as_set(result) == brute(table)
    assert result.shape[1] == len(brute(table))


@pytest.mark.spec("S1-05")
@given(tables, st.integers(1, 8), st.integers(0, 5))
def test_max_pairs_per_user_keeps_so_many_different_ones_of_each(
    table: sparse.csr_matrix, most: int, seed: int
) -> None:
    result = pairs(table, most, seed)
    every = np.bincount(pairs(table)[0], minlength=table.shape[0])
    assert as_set(result) <= brute(table)
    assert len(as_set(result)) == result.shape[1]
    assert (
        np.bincount(result[0], minlength=table.shape[0]).tolist()
        == np.minimum(every, most).tolist()
    )


@pytest.mark.spec("S1-05")
def test_a_capped_draw_is_seeded_and_reaches_every_pair() -> None:
    table = sparse.csr_matrix(np.arange(1.0, 9)[None, :])
    draws = [as_set(pairs(table, 5, seed)) for seed in range(60)]
    assert draws[3] == as_set(pairs(table, 5, 3))
    assert set.union(*draws) == brute(table)


@pytest.mark.spec("S1-13")
def test_tensors_of_equal_length(shop: Shop) -> None:
    user, above, below = torch.from_numpy(pairs(preferences(shop.history)))
    assert user.dtype == above.dtype == below.dtype == torch.int64
    assert len(user) == len(above) == len(below) > 1000
    assert not (above == below).any()
    assert int(user.max()) < shop.history.shape[0]
    assert int(above.max()) < shop.history.shape[1]


# ---- losses


@pytest.mark.spec("S1-16")
def test_equal_scores_cost_ln_2_and_the_loss_falls_as_the_gap_grows() -> None:
    assert pairwise_loss(torch.zeros(7)).item() == pytest.approx(np.log(2))
    losses = [pairwise_loss(torch.tensor([gap])).item() for gap in (-5.0, -1.0, 0.0, 1.0, 5.0)]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] == pytest.approx(np.log1p(np.exp(5)))
    assert pairwise_loss(torch.tensor([0.0, 2.0])).item() == pytest.approx(
        (np.log(2) + np.log1p(np.exp(-2))) / 2
    )


@pytest.mark.spec("S1-17")
@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(-8, 8), st.floats(-8, 8)), min_size=1, max_size=6))
def test_kl_is_that_of_two_bernoullis_and_never_negative(
    gaps: list[tuple[float, float]],
) -> None:
    gap, before = torch.tensor(gaps, dtype=torch.float64).T
    p, q = (1 / (1 + np.exp(-x.numpy())) for x in (before, gap))
    expected = np.mean(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))
    assert kl_loss(gap, before).item() == pytest.approx(expected, abs=1e-9)
    assert kl_loss(gap, before).item() >= -1e-12
    assert kl_loss(gap, gap).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.spec("S1-17")
def test_the_reference_gets_no_gradient() -> None:
    gap = torch.tensor([1.0], requires_grad=True)
    before = torch.tensor([0.5], requires_grad=True)
    kl_loss(gap, before).backward()
    assert before.grad is None
    assert gap.grad.item() != 0


@pytest.mark.spec("S1-18")
def test_alpha_weighs_the_kl_against_the_pairwise_loss(shop: Shop) -> None:
    """The more the start holds back, the smaller the embeddings stay.

    The default is the system's own.
    """
    kept = {
        alpha: PreferencePairs(alpha=alpha, epochs=2, **QUICK).fit(shop.history).items_
        for alpha in (0, 0.05, 50)
    }
    spread = {alpha: np.abs(items).mean() for alpha, items in kept.items()}
    assert spread[0] > spread[0.05] > 2 * spread[50]
    assert PreferencePairs().params["alpha"] == 0.05


@pytest.mark.spec("S1-17")
def test_the_reference_may_follow_the_best_epoch(shop: Shop) -> None:
    start, best = (
        PreferencePairs(alpha=5, reference=r, epochs=4, **QUICK).fit(shop.history).curves_[:, 0]
        for r in ("start", "best")
    )
    assert best[0] == start[0]
    assert best[-1] < start[-1] - 0.005


# ---- the network


@pytest.mark.spec("S1-12", "S1-15")
def test_id_plus_metadata_and_a_dot_product() -> None:
    torch.manual_seed(0)
    net = PreferenceNet(5, 7, 3)
    x = torch.eye(3)
    user = torch.tensor([4, 0, 2])
    taste = net.ids.weight[user] + net.tower(x)
    assert torch.equal(net.represent(user, x), taste)
    assert taste.shape == (3, 16)
    above = torch.tensor([1, 2, 3])
    below = torch.tensor([0, 6, 5])
    score = taste @ net.item.weight.T
    assert torch.allclose(
        net(user, x, above, below), score[range(3), above] - score[range(3), below], atol=1e-7
    )
    assert [type(layer).__name__ for layer in net.tower] == [
        "Linear",
        "ReLU",
        "Linear",
    ]
    assert net.tower[0].out_features == 32


@pytest.mark.spec("S1-12")
def test_one_part_alone() -> None:
    user = torch.tensor([1, 3])
    x = torch.rand(2, 3)
    cf = PreferenceNet(5, 7, 3, parts="cf")
    content = PreferenceNet(5, 7, 3, parts="content")
    assert torch.equal(cf.represent(user, x), cf.ids.weight[user])
    assert torch.equal(content.represent(user, x), content.tower(x))


@pytest.mark.spec("S1-15")
def test_embeddings_start_small() -> None:
    torch.manual_seed(0)
    net = PreferenceNet(2000, 2000, 3)
    assert all(
        abs(w.std().item() - 0.01) < 0.0005 and abs(w.mean().item()) < 0.0005
        for w in (net.ids.weight, net.item.weight)
    )


@pytest.mark.spec("S1-15", "S1-22")
def test_scores_are_dot_products_and_torch_agrees(learnt: PreferencePairs, shop: Shop) -> None:
    tower = torch.nn.Sequential(
        torch.nn.Linear(len(learnt.vocabulary_), 32), torch.nn.ReLU(), torch.nn.Linear(32, 16)
    )
    parts = (learnt.weights1_, learnt.bias1_, learnt.weights2_, learnt.bias2_)
    tower.load_state_dict(dict(zip(tower.state_dict(), map(torch.from_numpy, parts))))
    with torch.no_grad():
        told = tower(
            torch.from_numpy(hot(shop.history.users, learnt.vocabulary_).toarray())
        ).numpy()
    assert np.allclose(learnt._content(shop.history.users), told, atol=1e-6)
    users = np.array([3, 0, 8])
    assert np.allclose(
        learnt._scores(users),
        (learnt.users_[users].astype(float) @ learnt.items_.T.astype(float)),
        atol=1e-5,
    )
    assert np.abs(learnt.users_ - told).max() > 0.01  # metadata and, on top of it, the id


# ---- metadata


@pytest.mark.spec("S1-08", "S1-09")
def test_three_blocks_with_exactly_one_1_each_and_no_age(
    learnt: PreferencePairs, shop: Shop
) -> None:
    assert {"age", *METADATA} <= set(shop.history.users)
    assert list(blocks(learnt.vocabulary_)) == list(METADATA)
    table = hot(shop.history.users, learnt.vocabulary_).toarray()
    assert all(
        (table[:, place].sum(axis=1) == 1).all() for place in blocks(learnt.vocabulary_).values()
    )
    assert table.shape[1] == sum(shop.history.users[c].nunique() + 1 for c in METADATA)


@pytest.mark.spec("S1-08")
def test_columns_that_a_shop_lacks_are_left_out(shop: Shop) -> None:
    users = shop.tables["users"][["user_id", "age", "country"]]
    model = PreferencePairs(epochs=1, **QUICK).fit(
        Interactions.of(shop.history.purchases, None, users, shop.history.as_of)
    )
    assert list(blocks(model.vocabulary_)) == ["country"]
    bare = Interactions.of(shop.history.purchases, None, None, shop.history.as_of)
    model = PreferencePairs(epochs=1, **QUICK).fit(bare)
    profile = pd.DataFrame({"segment": ["x"]}, index=pd.Index(["stranger"], name="user_id"))
    assert (
        model.recommend(["stranger"], 5, profiles=profile)["item_id"].tolist()
        == bare.item_ids[:5].tolist()
    )
    with pytest.raises(LabError, match="parts='content'"):
        PreferencePairs(parts="content").fit(bare)


def profiles(shop: Shop, **value: object) -> pd.DataFrame:
    first = shop.history.users.dropna(subset=list(METADATA))[list(METADATA)].iloc[:1]
    return first.assign(**value).set_axis(pd.Index(["stranger"], name="user_id"))


@pytest.mark.spec("S1-10")
def test_a_stranger_s_metadata_scores_alone(learnt: PreferencePairs, shop: Shop) -> None:
    mine = profiles(shop)
    recs = learnt.recommend(["stranger"], 20, profiles=mine)
    expected = learnt._content(mine)[0] @ learnt.items_.T
    assert np.allclose(recs["score"], np.sort(expected)[::-1][:20], atol=1e-5)
    assert set(recs["item_id"].astype(str)) != set(shop.history.item_ids[:20])
    other = (
        shop.history.users.loc[shop.history.users["country"] != mine["country"].iloc[0], "country"]
        .dropna()
        .iloc[0]
    )
    assert (
        learnt.recommend(["stranger"], 20, profiles=mine.assign(country=other))["item_id"].tolist()
        != recs["item_id"].tolist()
    )


@pytest.mark.spec("S1-11")
def test_one_unknown_value_is_its_column_and_three_are_nothing(
    learnt: PreferencePairs, shop: Shop
) -> None:
    popular = shop.history.item_ids[:20].tolist()
    part = profiles(shop, segment="PROSPECT", gender=None)
    lists = [
        learnt.recommend(["stranger"], 20, profiles=p)["item_id"].tolist()
        for p in (part, part.assign(country="BRA"))
    ]
    assert lists[0] != popular
    assert lists[1] == popular
    assert np.isnan(learnt._cold_scores(part.assign(country=None))).all()


@pytest.mark.spec("S1-24")
def test_all_strangers_without_metadata_get_one_list(learnt: PreferencePairs, shop: Shop) -> None:
    lists = learnt.recommend(["a", "b"], 10).groupby("user_id", observed=True)["item_id"].agg(list)
    assert lists["a"] == lists["b"] == shop.history.item_ids[:10].tolist()


@pytest.mark.spec("S1-10")
def test_only_content_learns_of_planted_countries() -> None:
    """Two countries with opposite tastes.

    A stranger's country says which, and ids alone say nothing.
    """
    rng = np.random.default_rng(0)
    lines = []
    for u in range(60):
        for i in rng.permutation(10)[:6]:
            lines += [
                f"u{u:02d} {'ab'[u % 2]}{i} b{u} 2024-01-01 3 1",
                f"u{u:02d} {'ba'[u % 2]}{(i + 1) % 10} b{u} 2024-01-01 1 1",
            ]
    users = pd.DataFrame(
        {
            "user_id": [f"u{u:02d}" for u in range(60)],
            "country": ["AA" if u % 2 == 0 else "BB" for u in range(60)],
        }
    )
    data = Interactions.of(receipts("\n".join(lines)), None, users)
    strangers = pd.DataFrame({"country": ["AA", "BB"]}, index=pd.Index(["x", "y"], name="user_id"))
    recs = (
        PreferencePairs(epochs=20, **QUICK).fit(data).recommend(["x", "y"], 10, profiles=strangers)
    )
    assert (recs["item_id"].astype(str).str[0] == np.repeat(["a", "b"], 10)).mean() > 0.9
    alone = (
        PreferencePairs(parts="cf", epochs=2, **QUICK)
        .fit(data)
        .recommend(["x", "y"], 10, profiles=strangers)
    )
    assert alone["item_id"].tolist() == data.item_ids[:10].tolist() * 2


# ---- training


@pytest.mark.spec("S1-14", "S1-19")
def test_ten_epochs_with_both_curves_and_the_best_epoch(shop: Shop) -> None:
    model = PreferencePairs(**QUICK).fit(shop.history)
    assert model.curves_.shape == (10, 2)
    assert np.isfinite(model.curves_).all()
    assert model.curves_[0, 0] < np.log(2) + 0.01
    assert model.curves_[-1, 0] < model.curves_[0, 0] - 0.2
    assert model.best_epoch == model.curves_[:, 1].argmin() + 1


@pytest.mark.spec("S1-14")
def test_a_fifth_of_the_pairs_is_held_out(shop: Shop) -> None:
    sampler = _Sampler(PreferencePairs(pairs_per_epoch=None), shop.history)
    seen = as_set(sampler.epoch())
    held = as_set(sampler.held)
    assert not seen & held
    assert seen | held == brute(preferences(shop.history))
    assert len(held) == int(0.2 * len(seen | held))
    assert seen == as_set(sampler.epoch())
    few = _Sampler(PreferencePairs(pairs_per_epoch=100), shop.history)
    assert few.epoch().shape == (3, 100)
    assert few.held.shape == (3, 100)


@pytest.mark.spec("S1-19")
def test_early_stop_keeps_the_best_epoch(shop: Shop) -> None:
    small = {"batch_size": 128, "learning_rate": 0.05, "max_pairs_per_user": 30}
    long, short = (
        PreferencePairs(**small, epochs=12, patience=p).fit(shop.history) for p in (None, 2)
    )
    best = long.best_epoch
    assert 1 <= best < 10
    assert len(short.curves_) == best + 2
    assert short.best_epoch == best
    there = PreferencePairs(**small, epochs=best).fit(shop.history)
    assert np.array_equal(short.items_, there.items_)
    assert not np.array_equal(short.items_, long.items_)


@pytest.mark.spec("C7")
def test_the_global_seed_and_threads_are_left_alone(tiny: pd.DataFrame) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1).item()
    threads = torch.get_num_threads()
    torch.manual_seed(5)
    a, b = (
        PreferencePairs(epochs=1, seed=seed).fit(Interactions.of(tiny)).items_ for seed in (1, 2)
    )
    assert torch.rand(1).item() == expected
    assert torch.get_num_threads() == threads
    assert not np.array_equal(a, b)


def test_nothing_to_compare_leaves_popularity() -> None:
    """One unit of everything: no pair is strict."""
    data = Interactions.of(
        receipts(
            "u a b1 2024-01-01 1 1\nu b b1 2024-01-01 1 1\nv b b2 2024-01-01 1 1\nw c b3"
            " 2024-01-01 1 1"
        )
    )
    recs = PreferencePairs().fit(data).recommend(data.user_ids, 3)
    assert recs["item_id"].tolist() == ["b", "a", "c"] * 3
    assert not recs["score"].any()


# ---- the whole catalogue


def test_negatives_are_unbought_and_fresh_in_every_epoch(shop: Shop) -> None:
    sampler = _Sampler(PreferencePairs(negatives=3, pairs_per_epoch=0, held=0), shop.history)
    first = sampler.epoch()
    second = sampler.epoch()
    assert (shop.history.seen[first[0], first[2]].A1 == 0).all()
    assert (shop.history.seen[first[0], first[1]].A1 > 0).all()
    assert 2.4 * len(sampler.cells) < first.shape[1] < 3 * len(sampler.cells)
    assert as_set(first) != as_set(second)


def test_negatives_rank_the_whole_catalogue_and_pairs_alone_do_not(
    learnt: PreferencePairs, shop: Shop
) -> None:
    """The mean place of bought items among all.

    The middle for the original, near the top with negatives.
    """
    seen = shop.history.seen.toarray() > 0
    place = [
        (-model._scores(np.arange(len(seen)))).argsort(axis=1).argsort(axis=1)[seen].mean()
        / seen.shape[1]
        for model in (PreferencePairs(**QUICK).fit(shop.history), learnt)
    ]
    assert place[0] > 0.3
    assert place[1] < 0.2


def test_own_adds_decayed_purchases_to_standardised_scores(
    shop: Shop, learnt: PreferencePairs
) -> None:
    model = PreferencePairs(**RANKER, epochs=6, own=2.5).fit(shop.history)
    users = np.arange(5)
    plain = learnt._scores(users)
    z = (plain - plain.mean(axis=1, keepdims=True)) / plain.std(axis=1, keepdims=True)
    assert np.allclose(
        model._scores(users), z + 2.5 * shop.history.seen[users].toarray(), atol=1e-4
    )
    heavy = (
        PreferencePairs(**RANKER, epochs=1, own=1000, tau=60)
        .fit(shop.history)
        .recommend(shop.history.user_ids, 1)
    )
    own = OwnPurchases(60).fit(shop.history)
    most = own.recommend(shop.history.user_ids, 1)["score"]
    assert np.allclose(own.score(heavy[["user_id", "item_id"]]), most, atol=0.02)


@pytest.mark.spec("S1-20")
def test_what_is_saved_scores_strangers_too(
    learnt: PreferencePairs, shop: Shop, tmp_path: Path
) -> None:
    loaded = load_model(learnt.save(tmp_path / "pairs"))
    one, two = (
        model.recommend(["stranger"], 10, profiles=profiles(shop)) for model in (learnt, loaded)
    )
    assert np.array_equal(one["score"], two["score"])
    assert one["item_id"].tolist() == two["item_id"].tolist()
    assert np.array_equal(loaded.curves_, learnt.curves_, equal_nan=True)


@pytest.mark.spec("S1-07")
def test_codes_are_dense_one_to_one_and_saved(learnt: PreferencePairs, shop: Shop) -> None:
    assert learnt.user_ids_.is_unique
    assert learnt.item_ids_.is_unique
    assert learnt.users_.shape == (len(learnt.user_ids_), 16)
    assert learnt.items_.shape == (
        len(learnt.item_ids_),
        16,
    )


def test_popularity_is_beaten(shop: Shop, learnt: PreferencePairs) -> None:
    """What shoppers bought before is nearer the top than in the popular list.

    An evident lower bound.
    """
    bought = pd.MultiIndex.from_frame(
        shop.history.purchases[["user_id", "item_id"]].drop_duplicates()
    )
    share = [
        pd.MultiIndex.from_frame(
            m.recommend(shop.history.user_ids, 5)[["user_id", "item_id"]].astype(str)
        )
        .isin(bought)
        .mean()
        for m in (learnt, Popular().fit(shop.history))
    ]
    assert share[0] > 1.3 * share[1]


@pytest.mark.spec("C6")
def test_no_loop_over_users_and_no_pickle() -> None:
    package = Path(recsys_utils.__file__).parent
    text = [
        (package / name).read_text()
        for name in ("models/preferences.py", "models/preference_pairs.py")
    ]
    loops = [
        ast.unparse(node.iter)
        for part in text
        for node in ast.walk(ast.parse(part))
        if isinstance(node, ast.For)
    ]
    assert len(loops) == 3
    assert not [loop for loop in loops if "user" in loop]
    assert "pickle" not in "".join(text)
