"""LightFM: sums of parts by hand, strangers and new items from attributes alone, losses, weights,
own purchases.
"""

import lightfm
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from shops import Shop, receipts

from recsys_utils import LabError
from recsys_utils.data.attributes import hot, vocabulary
from recsys_utils.data.interactions import Interactions
from recsys_utils.models import LightFM, OwnPurchases, load_model
from recsys_utils.models.lightfm import text_columns

fit_partial = lightfm.LightFM.fit_partial
KINDS = pd.DataFrame(
    {
        "item_id": [f"{kind}{i}" for kind in ("food", "tool") for i in range(6)],
        "kind": ["food"] * 6 + ["tool"] * 6,
    }
)
HOMES = pd.DataFrame(
    {
        "user_id": [f"{home}{i}" for home in ("flat", "house") for i in range(8)],
        "home": ["flat"] * 8 + ["house"] * 8,
    }
)
PROFILES = pd.DataFrame(
    {"home": ["flat", "house", None, "castle"]}, index=["f", "h", "nothing", "unheard"]
)
COLD = ["food5", "tool5"]


def clans(users: pd.DataFrame | None = HOMES, items: pd.DataFrame | None = KINDS) -> Interactions:
    """Flats buy food, houses buy tools, four of five items each.

    Nobody buys the sixth, which is on sale.
    """
    lines = [
        f"{home}{u} {kind}{i} {home}{u} 2024-01-01 1 1"
        for home, kind in (("flat", "food"), ("house", "tool"))
        for u in range(8)
        for i in range(5)
        if (u + i) % 5
    ]
    return Interactions.of(receipts("\n".join(lines)), items, users, catalogue=KINDS["item_id"])


def fitted(**options: object) -> LightFM:
    return LightFM(**{"factors": 4, "epochs": 60, "tau": None, **options}).fit(clans())


def gap(model: LightFM, user: str, items: tuple[str, str] = ("food5", "tool5")) -> float:
    """Score of the first item minus that of the second."""
    scores = model.score(pd.DataFrame({"user_id": [user] * 2, "item_id": items}), PROFILES)
    return float(scores[0] - scores[1])


@pytest.mark.spec("S1-08", "S1-09")
@pytest.mark.parametrize("loss", ["warp", "bpr"])
def test_metadata_scores_items_that_nobody_bought(loss: str) -> None:
    model = fitted(loss=loss)
    assert gap(model, "flat0") > 0.3
    assert gap(model, "house0") < -0.3
    best = model.recommend(HOMES["user_id"], 1, only=COLD)
    assert best["item_id"].astype(str).tolist() == ["food5"] * 8 + ["tool5"] * 8


@pytest.mark.spec("S1-10", "S1-11")
@pytest.mark.parametrize("loss", ["warp", "bpr"])
def test_strangers_are_scored_from_their_profile(loss: str) -> None:
    model = fitted(loss=loss)
    bought = ("food0", "tool0")
    assert gap(model, "f", bought) > 0.3
    assert gap(model, "h", bought) < -0.3
    assert gap(model, "f") > 0.1
    # both sides cold
    assert gap(model, "h") < -0.1


@pytest.mark.spec("S1-11")
@pytest.mark.parametrize("who", ["nothing", "unheard", "not in the table"])
def test_a_profile_that_says_nothing_known_gets_what_is_popular_now(who: str) -> None:
    model = fitted()
    recs = model.recommend([who], 12, profiles=PROFILES)
    assert recs["item_id"].astype(str).tolist() == model.item_ids_.tolist()
    assert recs["score"].tolist() == model.recent_.tolist()


def test_without_users_features_no_stranger_is_told_from_another() -> None:
    assert (
        gap(fitted(features="items"), "f", ("food0", "tool0"))
        == gap(fitted(features="none"), "h", ("food0", "tool0"))
        == 0
    )


def test_new_items_without_item_features_are_exact_zeros_not_the_noise_of_initialisation() -> None:
    for features in ("none", "users"):
        model = fitted(features=features)
        unsold = model.item_ids_.isin(COLD)
        assert not model.item_vectors_[unsold].any()
        assert model.item_vectors_[~unsold].any(axis=1).all()


def test_attributes_alone_are_the_whole_of_a_new_item() -> None:
    """Two unsold items of one kind are the same; unsold ones of two kinds are not."""
    items = pd.concat([KINDS, pd.DataFrame({"item_id": ["food6"], "kind": ["food"]})])
    data = clans()
    more = Interactions.of(data.purchases, items, HOMES, catalogue=items["item_id"])
    model = LightFM(4, epochs=5, tau=None).fit(more)
    a, b, c = (
        model.item_vectors_[model.item_ids_ == item][0] for item in ("food5", "food6", "tool5")
    )
    assert np.array_equal(a, b)
    assert not np.allclose(a, c)


def test_a_word_that_only_new_items_say_is_no_noise() -> None:
    items = KINDS.assign(
        name=np.where(KINDS["item_id"].isin(COLD), "quite unheard", KINDS["kind"] + " of old")
    )
    assert "name~unheard" in vocabulary(items, words=["name"])
    told, plain = (
        LightFM(4, epochs=5, tau=None).fit(clans(items=table))
        for table in (items, items.assign(name=items["name"].where(~items["item_id"].isin(COLD))))
    )
    assert np.array_equal(told.item_vectors_, plain.item_vectors_)


def test_never_sold_items_do_not_disturb_what_is_learnt_of_the_others() -> None:
    """They are no negatives: nobody could have bought them."""
    data = clans()
    closed = Interactions.of(data.purchases, KINDS, HOMES)
    a, b = (LightFM(4, epochs=5, tau=None).fit(d) for d in (data, closed))
    assert np.array_equal(a.item_vectors_[:10], b.item_vectors_)
    assert np.array_equal(a.user_vectors_, b.user_vectors_)


def reference(
    data: Interactions, users: np.ndarray, items: np.ndarray, **options: object
) -> lightfm.LightFM:
    """LightFM by its own interface on dense features, all weights 1."""
    model = lightfm.LightFM(4, loss="warp", random_state=7, **options)
    pairs = (data.seen > 0).astype(np.float32).tocoo()
    return model.fit(
        pairs,
        sparse.csr_matrix(users, dtype=np.float32),
        sparse.csr_matrix(items, dtype=np.float32),
        epochs=3,
    )


def test_scores_are_those_that_lightfm_predicts_itself(shop: Shop) -> None:
    """User and item biases included: the user's is a constant of each row."""
    data = shop.history
    once = Interactions.of(
        data.purchases.drop_duplicates(["user_id", "item_id"]),
        data.items.reset_index(),
        data.users.reset_index(),
        data.as_of,
    )
    model = LightFM(4, epochs=3, tau=None, metadata=0.7, seed=7).fit(once)
    sides = [
        (once.users, vocabulary(once.users)),
        (once.items, vocabulary(once.items, words=text_columns(once.items))),
    ]
    dense = [
        np.hstack(
            [
                np.eye(len(f)),
                0.7 * (h := hot(f, v).toarray()) / np.linalg.norm(h, axis=1, keepdims=True),
            ]
        )
        for f, v in sides
    ]
    dense = [d[:, d.any(axis=0)] for d in dense]
    n = once.shape[1]
    theirs = reference(once, *dense)
    for user in (0, 11):
        ours = model.score(pd.DataFrame({"user_id": once.user_ids[user], "item_id": once.item_ids}))
        wide = [sparse.csr_matrix(d, dtype=np.float32) for d in dense]
        difference = ours - theirs.predict(user, np.arange(n), wide[1], wide[0])
        assert np.ptp(difference) < 1e-4
        assert np.ptp(ours) > 0.1


@settings(max_examples=15, deadline=None)
@given(own=st.floats(0.01, 50), seed=st.integers(0, 3))
def test_own_is_added_to_scores_of_mean_zero_and_spread_one(
    own: float, seed: int, shop: Shop
) -> None:
    pure = LightFM(2, epochs=1, seed=seed, features="none").fit(shop.history)._scores(np.arange(20))
    mixed = (
        LightFM(2, epochs=1, seed=seed, features="none", own=own)
        .fit(shop.history)
        ._scores(np.arange(20))
    )
    habit = OwnPurchases().fit(shop.history)._scores(np.arange(20))
    rest = mixed - own * habit
    grain = 1e-5 * own * max(1, habit.max()) + 1e-4
    assert np.allclose(rest.mean(axis=1), 0, atol=grain)
    assert np.allclose(rest.std(axis=1), 1, atol=10 * grain)
    assert all(np.corrcoef(a, b)[0, 1] > 0.999 - 10 * grain for a, b in zip(rest, pure))


def test_a_pair_weighs_its_decayed_baskets_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Days before the cut: 20 and 0 of (u, a), 20 of (u, b), 40 of (v, b), long ago of (v, a).

    Tau is 20 days.
    """
    rows = receipts(
        "u a b1 2024-01-21 1 1\nu a b2 2024-02-10 1 1\nu b b1 2024-01-21 1 1\nv b b3 2024-01-01 1"
        " 1\nv a b4 2020-01-01 1 1"
    )
    told = []
    monkeypatch.setattr(
        lightfm.LightFM,
        "fit_partial",
        lambda self, ones, x, y, weights: (
            told.append((ones, weights)) or fit_partial(self, ones, x, y, weights)
        ),
    )
    data = Interactions.of(rows)
    LightFM(2, epochs=1, tau=20).fit(data)
    ones, weights = told[0]
    e = np.exp(-1)
    expected = pd.DataFrame([[1 + e, e], [0, e * e]], ["u", "v"], ["a", "b"])[data.item_ids]
    assert np.allclose(weights.toarray(), expected / expected.to_numpy()[expected > 0].mean())
    assert np.array_equal(ones.toarray(), expected > 0)


def test_pairs_that_faded_away_teach_nothing_and_a_history_faded_whole_still_fits() -> None:
    lines = [f"u{u} i{i} b{u} 2024-06-01 1 1" for u in range(6) for i in range(4) if u % 2 == i % 2]
    old = receipts("\n".join([*lines, "u0 i1 c 2023-01-01 1 1"]))
    options = {"factors": 3, "epochs": 5, "tau": 20, "features": "none"}
    with_old, without = (
        LightFM(**options).fit(Interactions.of(rows)) for rows in (old, old.iloc[:-1])
    )
    assert np.array_equal(with_old.item_vectors_, without.item_vectors_)
    late = LightFM(**options).fit(Interactions.of(old, as_of=pd.Timestamp("2026-01-01")))
    assert np.isfinite(late.item_vectors_).all()
    assert late.item_vectors_.any()


def test_users_whose_purchases_faded_are_scored_by_their_attributes() -> None:
    data = clans()
    rows = pd.concat([data.purchases, receipts("flat9 tool0 z 2020-01-01 1 1")])
    homes = pd.concat([HOMES, pd.DataFrame({"user_id": ["flat9"], "home": ["flat"]})])
    model = LightFM(4, epochs=60, tau=30).fit(
        Interactions.of(rows, KINDS, homes, catalogue=KINDS["item_id"])
    )
    assert gap(model, "flat9", ("food0", "tool0")) > 0.3
    assert np.allclose(
        model.score(pd.DataFrame({"user_id": ["flat9", "f"], "item_id": "food0"}), PROFILES).std(),
        0,
        atol=1e-6,
    )


def test_metadata_of_zero_is_ids_alone_for_shoppers_with_history() -> None:
    assert gap(fitted(metadata=0), "flat0") == 0
    assert gap(fitted(metadata=0), "f") == 0
    assert abs(gap(fitted(metadata=0), "flat0", ("food0", "tool0"))) > 0.3


@pytest.mark.spec("C7")
def test_another_seed_gives_other_vectors_and_numpy_s_global_seed_is_left_alone() -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    a, b, again = (fitted(seed=seed, epochs=2).item_vectors_ for seed in (1, 2, 1))
    assert np.array_equal(a, again)
    assert not np.allclose(a, b)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_the_losses_differ() -> None:
    assert not np.allclose(fitted(loss="warp").item_vectors_, fitted(loss="bpr").item_vectors_)


@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_rate_that_diverges_is_named() -> None:
    with pytest.raises(LabError, match="learning_rate=10"):
        fitted(learning_rate=10, item_alpha=1, user_alpha=1, epochs=1000)


@pytest.mark.spec("C6")
def test_strangers_are_scored_alike_after_loading(tmp_path) -> None:
    model = fitted()
    loaded = load_model(model.save(tmp_path))
    asked = pd.DataFrame({"user_id": ["f", "h", "flat1"], "item_id": ["food5", "tool0", "tool5"]})
    assert np.array_equal(loaded.score(asked, PROFILES), model.score(asked, PROFILES))


def test_a_shop_without_attributes_is_ids_alone() -> None:
    a, b = (
        LightFM(4, epochs=5, tau=None, features=features).fit(clans(None, None))
        for features in ("both", "none")
    )
    assert np.array_equal(a.item_vectors_, b.item_vectors_)
    assert np.array_equal(a.user_vectors_, b.user_vectors_)
    assert np.isnan(a._cold_scores(pd.DataFrame({"home": ["flat"]}, index=["f"]))).all()


def test_texts_are_columns_of_several_words_not_codes() -> None:
    frame = pd.DataFrame(
        {
            "name": ["red tea cup", "Blue Mug"],
            "genres": ["Drama War", "Comedy"],
            "code": ["CL00072", "D2"],
            "kind": ["food", "tool"],
            "price": [1.0, 2.0],
            "empty": [None, None],
        }
    )
    assert text_columns(frame) == ["name", "genres"]
    assert text_columns(frame[[]]) == []


def test_similar_items_are_of_the_same_clan() -> None:
    result = fitted().similar("food0", 5)
    assert set(result["item_id"]) == {f"food{i}" for i in range(1, 6)}
    assert result["score"].between(-1.0001, 1.0001).all()
