"""The hybrid: the blend, the models to choose from, and one user's explained list.

The contract is in test_models.
"""

import copy
import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import NO_RULES
from shops import Shop, receipts

from recsys_utils import LabError
from recsys_utils.data.interactions import Interactions
from recsys_utils.ensembles import blend, business_rules
from recsys_utils.ensembles.hybrid import MODELS, PARTS, Hybrid, Shopper
from recsys_utils.ensembles.rule_settings import Merchandising, tuned
from recsys_utils.models import ALS, CoPurchase, Popular
from recsys_utils.models.base import min_max

ALS_SMALL = {"factors": 8, "iterations": 5}
DAY = pd.Timedelta(days=1)


def weights(als: float, item_cf: float, popularity: float) -> dict:
    return {"model_weights": {"als": als, "item_cf": item_cf, "popularity": popularity}}


@pytest.fixture(scope="module")
def hybrid(shop: Shop) -> Hybrid:
    return Hybrid(als=ALS_SMALL).fit(shop.history)


@pytest.fixture(scope="module")
def plain(hybrid: Hybrid) -> Hybrid:
    return hybrid.retuned(NO_RULES)


@pytest.fixture(scope="module")
def parts(shop: Shop) -> dict:
    result = {
        "als": ALS(weighting="signal", **ALS_SMALL),
        "item_cf": CoPurchase(),
        "popularity": Popular(None, "mixed"),
    }
    return {name: model.fit(shop.history) for name, model in result.items()}


def with_part(model: Hybrid, part: str, name: str, factor: np.float32) -> Hybrid:
    """The model with one part's learnt array times a factor."""
    changed = copy.copy(model.parts[part])
    setattr(changed, name, getattr(changed, name) * factor)
    model.parts = model.parts | {part: changed}
    return model


def items(recs: pd.DataFrame) -> list[str]:
    return recs["item_id"].astype(str).tolist()


def ids(model: Hybrid, user: str, n: int = 5, **options: object) -> list[str]:
    return items(model.explain_list(user, n, **options).rows)


# ---- popularity


@pytest.mark.spec("S5-06")
def test_popularity_is_lines_buyers_and_units_each_min_max_scaled() -> None:
    """lines a 3, b 2, c 1; buyers 1, 2, 1.

    Units 3, 2, 10. a .4 + 0 + .2/8, b .2 + .4 + 0, c 0 + 0 + .2; over .6.
    """
    old = "u a 1 2024-01-01 1 1\nu a 2 2024-01-02 1 1\nu a 3 2024-01-03 1 1"
    rows = receipts(f"{old}\nu b 4 2024-03-01 1 1\nv b 5 2024-03-01 1 1\nv c 6 2024-03-01 10 1")
    recs = (
        Popular(None, "mixed")
        .fit(Interactions.of(rows))
        .recommend(["u"], 3)
        .astype({"item_id": str})
        .set_index("item_id")["score"]
    )
    assert recs.to_dict() == pytest.approx({"b": 1.0, "a": 0.425 / 0.6, "c": 0.2 / 0.6})
    recent = (
        Popular(28, "mixed")
        .fit(Interactions.of(rows))
        .recommend(["u"], 3)
        .astype({"item_id": str})
        .set_index("item_id")["score"]
    )
    assert recent["a"] == 0
    assert recent["b"] == pytest.approx(1)


# ---- the blend


@pytest.mark.spec("S5-07")
def test_the_blend_is_the_weighted_mean_of_scaled_whole_tables(
    plain: Hybrid, parts: dict, shop: Shop
) -> None:
    users = shop.history.user_ids
    runs = {name: model.recommend(users, 10_000) for name, model in parts.items()}
    expected = blend.weighted(runs, {"als": 0.4, "item_cf": 0.4, "popularity": 0.2}, n=40)
    result = reference.candidates(plain, users)
    text = {"user_id": str, "item_id": str}
    both = (
        result[result["rank"] <= 40]
        .astype(text)
        .merge(expected.astype(text), on=["user_id", "rank"])
    )
    assert len(both) == 40 * len(users)
    assert np.allclose(both["score_x"], both["score_y"], atol=2e-6)
    same = both["item_id_x"] == both["item_id_y"]
    assert same.mean() > 0.98
    assert (both["source_x"].astype(str) == both["source_y"].astype(str))[same].mean() > 0.999


@pytest.mark.spec("S5-07")
@pytest.mark.parametrize(("n", "name"), list(enumerate(PARTS)))
def test_all_weight_on_one_model_is_that_model_s_order(
    plain: Hybrid, parts: dict, shop: Shop, n: int, name: str
) -> None:
    one = [0.0, 0.0, 0.0]
    one[n] = 1.0
    users = shop.history.user_ids
    result, own = (
        model.recommend(users, 20)
        for model in (plain.retuned(NO_RULES | weights(*one)), parts[name])
    )
    # Equal but for the last bit of float32.
    assert np.mean([a == b for a, b in zip(items(result), items(own))]) > 0.98
    weighted = plain.retuned(NO_RULES | weights(*one))
    chosen = reference.candidates(plain, users[:9], part=name)
    assert items(chosen) == items(reference.candidates(weighted, users[:9]))


@pytest.mark.spec("S5-07")
@given(
    st.lists(st.floats(-5, 5, width=16), min_size=2, max_size=6),
    st.sampled_from([0.25, 2.0, 64.0]),
    st.sampled_from([-8.0, 0.0, 3.0]),
)
def test_min_max_ignores_scale_and_shift(scores: list[float], scale: float, shift: float) -> None:
    raw = np.array(scores, np.float64)[None, None]
    scaled = min_max(raw)
    assert np.allclose(scaled, min_max(raw * scale + shift))
    assert scaled.min() == 0
    assert scaled.max() == (len(set(scores)) > 1)


@pytest.mark.spec("S5-07")
@pytest.mark.parametrize(
    ("part", "name"),
    [("als", "user_factors_"), ("item_cf", "similarity_"), ("popularity", "counts_")],
)
def test_rescaling_a_model_s_raw_scores_changes_nothing(
    hybrid: Hybrid, shop: Shop, part: str, name: str
) -> None:
    users = shop.history.user_ids[:40]
    louder = with_part(hybrid.retuned({}), part, name, np.float32(1024))
    assert items(louder.recommend(users, 20)) == items(hybrid.recommend(users, 20))


@pytest.mark.spec("S5-07")
def test_a_model_that_cannot_score_the_user_leaves_its_weight_to_the_others(
    plain: Hybrid, shop: Shop
) -> None:
    """Without factors, what is left is .4 to .2."""
    mute = with_part(plain.retuned(NO_RULES), "als", "user_factors_", np.float32(0))
    two = plain.retuned(NO_RULES | weights(0.0, 2 / 3, 1 / 3))
    users = shop.history.user_ids[:40]
    pd.testing.assert_frame_equal(
        reference.candidates(mute, users), reference.candidates(two, users)
    )


@pytest.mark.spec("S5-08")
def test_every_model_can_be_chosen_and_lists_differ(plain: Hybrid, shop: Shop) -> None:
    lists = {model: plain.explain_list(shop.history.user_ids[0], 10, model) for model in MODELS}
    assert MODELS == ("als", "item_cf", "popularity", "hybrid")
    assert len({tuple(items(a.rows)) for a in lists.values()}) == 4
    assert all(a.primary_model == model and not a.fallback_used for model, a in lists.items())
    assert all(set(lists[model].rows["source"]) == {model} for model in PARTS)


@pytest.mark.spec("S5-08")
def test_an_unknown_model_is_refused_with_the_list(hybrid: Hybrid) -> None:
    with pytest.raises(
        LabError, match="model 'bpr' is unknown: choose als, item_cf, popularity, hybrid"
    ):
        hybrid.explain_list("u", model="bpr")


# ---- strangers


@pytest.mark.spec("S5-09", "S5-48")
@pytest.mark.parametrize("model", MODELS)
def test_a_stranger_gets_popularity_and_is_told_so(
    plain: Hybrid, parts: dict, shop: Shop, model: str
) -> None:
    result = plain.explain_list("stranger", 10, model)
    assert (
        items(result.rows)
        == items(parts["popularity"].recommend(shop.history.user_ids[:1], 10))
        == items(plain.recommend(["stranger"], 10))
    )
    assert result.primary_model == "popularity"
    assert result.fallback_used == (model != "popularity")
    assert result.rows["reason"].str.fullmatch(r"Popular with \d+ shoppers").all()


@pytest.mark.spec("S5-09")
def test_weights_without_popularity_still_serve_strangers(hybrid: Hybrid) -> None:
    result = hybrid.retuned(NO_RULES | weights(0.5, 0.5, 0.0)).explain_list("stranger", 5)
    assert len(result.rows) == 5
    assert (result.primary_model, result.fallback_used) == ("popularity", True)
    assert (result.rows["relevance"] > 0).all()


@pytest.mark.spec("S5-11")
def test_a_stranger_s_list_keeps_the_default_segment_s_limit(hybrid: Hybrid, shop: Shop) -> None:
    limit = (
        1.5
        * business_rules.segment_bounds(
            business_rules.user_prices(shop.history), hybrid.knobs.user_segments
        )[2]
    )
    dearest = [
        model.explain_list("stranger", 50).rows["price"].max()
        for model in (hybrid, hybrid.retuned(NO_RULES))
    ]
    assert dearest[0] <= limit < dearest[1]


def test_a_stranger_s_own_history_is_what_item_cf_goes_by(plain: Hybrid, shop: Shop) -> None:
    """One item bought: its neighbours by co-purchase, best first; ALS still knows nothing."""
    item = shop.history.item_ids[3]
    history = pd.DataFrame({"item_id": [item], "ts": [shop.history.as_of - DAY]})
    result = plain.explain_list("stranger", 6, "item_cf", history=history)
    assert items(result.rows) == [item, *items(plain.similar(item, 5))]
    assert (
        result.primary_model,
        result.fallback_used,
    ) == ("item_cf", False)
    assert result.rows["reason"].tolist()[1] == "Similar to 1 item in your purchase history"
    assert plain.explain_list("stranger", 6, "als", history=history).fallback_used
    both = plain.explain_list("stranger", 6, history=history)
    assert (both.primary_model, both.fallback_used) == ("hybrid", False)
    assert set(both.rows["source"]) <= {"item_cf", "popularity"}
    assert plain.explain_list("stranger", 6, history=history[:0]).fallback_used


@pytest.mark.spec("S5-62")
@pytest.mark.parametrize("bought", [1, 3])
def test_the_neighbours_of_a_stranger_s_few_items_have_the_whole_scale(
    plain: Hybrid, shop: Shop, bought: int
) -> None:
    """The best item that was not bought reaches 1, what was bought no more.

    So neighbours lead popularity, which has half the weight.
    """
    leading = []
    for first in range(0, 60, 3):
        item = np.arange(first, first + bought)
        zeros = np.zeros(bought)
        stranger = Shopper("stranger", -1, plain.as_of, item, zeros, zeros)
        parts, share = plain.shares(stranger, "hybrid")
        part = parts[1, 0] / share[1, 0]
        new = np.setdiff1d(np.arange(len(plain.item_ids_)), item)
        assert part[new].max() == pytest.approx(1)
        assert part[item].max() <= 1
        likest = new[plain.similarity[item].toarray().sum(axis=0)[new].argmax()]
        assert part[likest] == pytest.approx(1)
        assert share[:, 0] == pytest.approx([0, 2 / 3, 1 / 3])
        leading.append(parts[:, 0].sum(axis=0)[new].argmax() == np.flatnonzero(new == likest)[0])
    assert np.mean(leading) > 0.6


def test_an_item_without_neighbours_says_nothing_of_a_stranger(shop: Shop) -> None:
    """Nothing was ever bought beside a, so popularity has to make the list and says so."""
    rows = receipts(
        "u a 1 2024-01-01 1 1\nv b 2 2024-01-02 1 1\nv c 2 2024-01-02 1 1\nw c 3 2024-01-03 1 1"
    )
    model = Hybrid(als=ALS_SMALL, tuning=NO_RULES).fit(Interactions.of(rows))
    day = pd.Timestamp("2024-01-03")
    alone, beside = (
        model.explain_list("x", 3, history=pd.DataFrame({"item_id": [item], "ts": [day]}))
        for item in "ab"
    )
    assert (alone.primary_model, alone.fallback_used, items(alone.rows)[0]) == (
        "popularity",
        True,
        "c",
    )
    assert (beside.primary_model, beside.fallback_used) == ("hybrid", False)
    everything = model.explain_list(
        "x", 3, history=pd.DataFrame({"item_id": ["a", "b", "c"], "ts": day})
    )
    assert everything.fallback_used
    assert len(everything.rows) == 3


@pytest.mark.spec("S5-62")
def test_known_users_are_scored_by_their_receipts_whatever_they_bought_since(
    plain: Hybrid, parts: dict, shop: Shop
) -> None:
    user = shop.history.user_ids[5]
    later = pd.DataFrame({"item_id": [plain.item_ids_[3]], "ts": [plain.as_of]})
    blend, share = plain.shares(plain.shopper(user, None, later), "item_cf")
    raw = parts["item_cf"]._scores(np.array([5]))[0]
    assert np.array_equal(blend[1, 0], (raw - raw.min()) / (raw.max() - raw.min()))
    assert share[:, 0].tolist() == [0, 1, 0]


@pytest.mark.spec("S5-19")
def test_closed_items_are_out_before_the_candidates_are_chosen(plain: Hybrid, shop: Shop) -> None:
    small = plain.retuned(NO_RULES | {"candidate_pool_size": 5})
    ids_ = shop.history.item_ids
    for user in (shop.history.user_ids[2], "stranger"):
        closed = ids_.isin(ids(small, user, 5))
        assert closed.sum() == 5
        assert set(ids(small, user, 5, closed=closed)) == set(
            items(reference.candidates(small, [user], only=ids_[~closed]))
        )
        assert ids(small, user, 5, closed=closed, price_max=2) == items(
            reference.candidates(small, [user], only=ids_[~closed & (small.price_ <= 2)])
        )


def test_a_stranger_s_older_purchases_weigh_less(plain: Hybrid, shop: Shop) -> None:
    """exp(−age / tau) with CoPurchase's tau of 60 days."""
    pair = shop.history.item_ids[[3, 8]]
    near = [
        CoPurchase().fit(shop.history).similarity_[shop.history.item_ids.get_loc(item)].toarray()[0]
        for item in pair
    ]
    for ages in ((0, 90), (90, 0), (30, 50)):
        history = pd.DataFrame(
            {"item_id": pair, "ts": [shop.history.as_of - age * DAY for age in ages]}
        )
        score = sum(np.exp(-age / 60) * row for age, row in zip(ages, near))
        own = [3, 8]
        score[own] = np.minimum(score[own], np.delete(score, own).max())
        expected = shop.history.item_ids[np.argsort(-score, kind="stable")[:6]].tolist()
        result = plain.explain_list("x", 6, "item_cf", history=history).rows
        assert items(result) == expected
        assert np.allclose(result["relevance"], np.sort(score)[:-7:-1] / score.max(), atol=1e-5)


# ---- candidates


@pytest.mark.spec("S5-10")
def test_candidates_are_the_pool_without_duplicates_after_the_filters(
    hybrid: Hybrid, shop: Shop
) -> None:
    small = hybrid.retuned({"candidate_pool_size": 7})
    users = [*shop.history.user_ids[:20], "stranger"]
    free = reference.candidates(small, users)
    assert (free.groupby("user_id", observed=True).size() == 7).all()
    assert not free.duplicated(["user_id", "item_id"]).any()
    allowed = set(shop.history.item_ids[-30:])
    late = reference.candidates(small, users, only=allowed, exclude="bought")
    assert (late.groupby("user_id", observed=True).size() == 7).all()
    assert set(items(late)) <= allowed
    price = pd.Series(hybrid.price_, shop.history.item_ids)
    assert (
        price[items(reference.candidates(small, users, price_min=4, price_max=9))]
        .between(4, 9)
        .all()
    )
    assert len(reference.candidates(hybrid, users)) == 200 * len(users)
    assert reference.candidates(hybrid, []).empty


@pytest.mark.spec("S5-10")
def test_the_rules_reorder_the_pool_only(hybrid: Hybrid, shop: Shop) -> None:
    """With a pool of one, upsell cannot lift anything above level 1's best."""
    users = shop.history.user_ids
    rule = NO_RULES | {"upsell": {"factor": 1.0, "price_boost_weight": 1.0}}
    lists = {
        pool: hybrid.retuned(rule | {"candidate_pool_size": pool}).recommend(users, 1)
        for pool in (1, 200)
    }
    best = items(hybrid.retuned(NO_RULES).recommend(users, 1))
    assert items(lists[1]) == best != items(lists[200])


@pytest.mark.spec("S5-10", "S5-19")
def test_a_range_narrows_the_catalogue_before_the_pool(hybrid: Hybrid, shop: Shop) -> None:
    """Level 2 re-ranks the best of what is in the range, not what of the best is in the range."""
    model = hybrid.retuned(
        NO_RULES | {"candidate_pool_size": 12, "upsell": {"factor": 1.0, "price_boost_weight": 1.0}}
    )
    facts = business_rules.Facts.of(shop.history)
    limits = {"price_min": 1.5, "price_max": 4.0}
    for user in shop.history.user_ids[:30]:
        expected = business_rules.rerank(
            reference.candidates(model, [user], **limits), facts, model.knobs
        )
        assert ids(model, user, 12, **limits) == items(expected)


# ---- level 2 within the model


def test_level_2_on_the_candidates_table_is_the_model_s_own_list(
    hybrid: Hybrid, shop: Shop
) -> None:
    facts = business_rules.Facts.of(shop.history)
    users = [*shop.history.user_ids, "stranger"]
    expected = business_rules.rerank(reference.candidates(hybrid, users), facts, hybrid.knobs)
    expected = expected[expected["rank"] <= 5].astype({"user_id": str, "item_id": str})
    result = hybrid.recommend(users, 5).astype({"user_id": str, "item_id": str})
    both = result.merge(expected, on=["user_id", "rank"])
    assert len(both) == len(expected)
    assert np.allclose(both["score_x"], both["relevance"], atol=1e-6)
    assert (both["item_id_x"] == both["item_id_y"]).mean() > 0.99


@pytest.mark.parametrize(
    "tuning",
    [{}, NO_RULES, {"price_sensitivity": {"mode": "penalty"}}, {"candidate_pool_size": 3}],
    ids=str,
)
def test_one_user_s_list_is_the_batch_s(hybrid: Hybrid, shop: Shop, tuning: dict) -> None:
    model = hybrid.retuned(tuning)
    for user in [*shop.history.user_ids[:25], "stranger"]:
        batch = model.recommend([user], 8)
        one = model.explain_list(user, 8).rows
        kept = batch["score"].to_numpy() > -2.5  # the rest is what the rules drop
        assert items(one) == items(batch[kept])[:8]
        assert tuning == {"candidate_pool_size": 3} or np.allclose(
            one["relevance"], batch["score"][kept], atol=1e-6
        )


@pytest.mark.spec("S5-13", "S5-14")
def test_what_the_rules_drop_comes_last(hybrid: Hybrid, shop: Shop) -> None:
    """Item by item from the receipts: too dear for the user, or bought less than 0.8 cycles ago."""
    rows = shop.history.purchases
    price = pd.Series(hybrid.price_, shop.history.item_ids)
    cycle = reference.cycles(shop.history)["cycle_days"]
    for user in shop.history.user_ids[[1, 7, 30]]:
        recs = hybrid.recommend([user], 10_000).astype({"item_id": str}).set_index("item_id")
        mine = rows[rows["user_id"] == user]
        days = (shop.history.as_of - mine.groupby("item_id")["ts"].max()) / DAY
        expected = (price > 1.5 * mine["price"].mean()) | (days.reindex(price.index) < 0.8 * cycle)
        assert (recs["score"] < -2.5).tolist() == expected[recs.index].tolist()
        assert 0.01 < expected.mean() < 0.9


KNOBS = [
    {"candidate_pool_size": 2},
    weights(0.1, 0.2, 0.7),
    weights(0.7, 0.1, 0.2),
    weights(0.1, 0.7, 0.2),
    {"upsell": {"enabled": False}},
    {"upsell": {"factor": 1.0}},
    {"upsell": {"price_boost_weight": 1.0}},
    {"user_segments": {"enabled": False}},
    {"user_segments": {"small": 0.05}},
    {"user_segments": {"low_average": 0.3}},
    {"user_segments": {"average": 0.95}},
    {"user_segments": {"default": "small"}},
    {"repurchase_cycle": {"enabled": False}},
    {"repurchase_cycle": {"default_cycle_days": 300}},
    {"repurchase_cycle": {"exclusion_factor": 0.2}},
    {"price_sensitivity": {"mode": "penalty"}},
    {"price_sensitivity": {"mode": "off"}},
    {"price_sensitivity": {"budget_tolerance": 1.1}},
    {"price_sensitivity": {"max_penalty": 0.9}},
    {"price_sensitivity": {"full_penalty_at": 9}},
]


@pytest.mark.spec("S5-49")
@pytest.mark.parametrize("knob", KNOBS, ids=str)
def test_each_knob_changes_the_output(hybrid: Hybrid, shop: Shop, knob: dict) -> None:
    """Segments act where the personal cap does not; the penalty's constants in its mode."""
    ((section, values),) = knob.items()
    of_penalty = isinstance(values, dict) and values.keys() & {"max_penalty", "full_penalty_at"}
    mode = "off" if section == "user_segments" else "penalty" if of_penalty else "cap"
    price = {"mode": mode, "budget_tolerance": 1.1 if section == "user_segments" else 1.5}
    base = {"candidate_pool_size": 60, "upsell": {"factor": 0.3}, "price_sensitivity": price}
    changed = base | {
        section: (base.get(section, {}) | values) if isinstance(values, dict) else values
    }
    users = [*shop.history.user_ids, "stranger"]
    lists = [hybrid.retuned(tuning).recommend(users, 20) for tuning in (base, changed)]
    assert items(lists[0]) != items(lists[1])


@pytest.mark.spec("S5-49")
def test_no_knob_is_left_out() -> None:
    """All of them are above, or below where lists do not show them; `high` can only be 1."""

    def leaves(tree: dict) -> set[str]:
        return {
            f"{name}.{leaf}" if leaf else name
            for name, value in tree.items()
            for leaf in (value if isinstance(value, dict) else [""])
        }

    assert leaves(tuned({}).to_dict()) == set().union(*map(leaves, KNOBS)) | {
        "loyal_purchases",
        "popularity_days",
        "user_segments.high",
        # of the lists that are served: tests/serving/test_arrange.py
        *(f"merchandising.{name}" for name in vars(Merchandising())),
    }


@pytest.mark.spec("S5-49")
def test_the_knobs_that_lists_do_not_show(hybrid: Hybrid, shop: Shop) -> None:
    user = shop.history.user_ids[0]
    n = hybrid.user_info(user)["total_purchases"]
    kinds = [
        hybrid.retuned({"loyal_purchases": limit}).user_info(user)["user_type"]
        for limit in (n, n + 1)
    ]
    assert kinds == ["loyal", "new"]
    recent = Hybrid(als=ALS_SMALL, tuning=NO_RULES | {"popularity_days": 28}).fit(shop.history)
    assert items(recent.recommend(["x"], 20)) != items(
        hybrid.retuned(NO_RULES).recommend(["x"], 20)
    )
    with pytest.raises(LabError, match="popularity_days changes what popularity is"):
        hybrid.retuned({"popularity_days": 28})


def test_retuned_is_fitting_anew_and_leaves_the_first_alone(hybrid: Hybrid, shop: Shop) -> None:
    knobs = {"user_segments": {"small": 0.1}, "price_sensitivity": {"mode": "off"}}
    before = hybrid.recommend(shop.history.user_ids, 5)
    users = shop.history.user_ids
    fresh = Hybrid(als=ALS_SMALL, tuning=knobs).fit(shop.history)
    pd.testing.assert_frame_equal(
        hybrid.retuned(knobs).recommend(users, 5), fresh.recommend(users, 5)
    )
    pd.testing.assert_frame_equal(hybrid.recommend(users, 5), before)


# ---- what a request may ask


@pytest.mark.spec("S5-19")
def test_price_ranges_are_inclusive_zero_is_a_value_and_lists_stay_full(
    plain: Hybrid, shop: Shop
) -> None:
    user = shop.history.user_ids[0]
    price = pd.Series(plain.price_, shop.history.item_ids)
    exact = float(price.iloc[0])
    for who in (user, "stranger"):
        result = plain.explain_list(who, 5, price_min=exact, price_max=exact).rows
        assert items(result)
        assert (result["price"] == exact).all()
        assert len(result) == min(5, (price == exact).sum())
        rare = price.nlargest(12).min()
        assert set(ids(plain, who, 20, price_min=rare)) == set(price.index[price >= rare])
        assert ids(plain, who, price_max=0) == []
        assert ids(plain, who, price_min=0) == ids(plain, who)


@pytest.mark.spec("S5-19")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"price_min": 5, "price_max": 4}, "price_min is 5, above price_max, 4"),
        ({"price_min": -1}, "price_min is -1"),
        ({"price_max": float("nan")}, "price_max is nan"),
        ({"n": 0}, "n is 0"),
        ({"n": -3}, "n is -3"),
        ({"n": 2.5}, "n is 2.5"),
        ({"n": True}, "n is True"),
    ],
)
def test_bad_requests_are_refused_by_name(hybrid: Hybrid, options: dict, message: str) -> None:
    with pytest.raises(LabError, match=message):
        hybrid.explain_list("stranger", **options)


@pytest.mark.spec("S5-19")
def test_an_item_without_a_price_is_in_no_range_and_no_prices_at_all_are_said(
    tiny: pd.DataFrame, shop: Shop
) -> None:
    model = Hybrid(als=ALS_SMALL, tuning=NO_RULES).fit(
        Interactions.of(tiny, catalogue=pd.Series(["milk", "new"], name="item_id"))
    )
    assert "new" in ids(model, "ann", 9)
    assert "new" not in ids(model, "ann", 9, price_min=0)
    assert "new" in ids(
        model.retuned(
            {"repurchase_cycle": {"enabled": False}, "price_sensitivity": {"budget_tolerance": 1}}
        ),
        "ann",
        9,
    )
    assert (
        model.explain_list("x", 9).rows.set_index("item_id")["reason"]["new"]
        == "Nobody bought it yet"
    )
    bare = Hybrid(als=ALS_SMALL).fit(Interactions.of(tiny.drop(columns="price")))
    with pytest.raises(LabError, match="these receipts have none"):
        bare.explain_list("ann", price_min=1)
    assert bare.user_info("ann")["avg_item_price"] is None
    assert len(bare.explain_list("x").rows) == 4


@pytest.mark.spec("S5-29")
def test_exclude_purchased_leaves_only_what_was_not_bought_before_the_moment(
    plain: Hybrid, shop: Shop
) -> None:
    rows = shop.history.purchases
    user = rows["user_id"].value_counts().index[0]
    mine = rows[rows["user_id"] == user]
    assert set(ids(plain, user, 20)) & set(mine["item_id"])
    assert not set(ids(plain, user, 20, exclude_purchased=True)) & set(mine["item_id"])
    assert len(ids(plain, user, 20, exclude_purchased=True)) == 20
    middle = mine["ts"].sort_values().iloc[len(mine) // 2]
    before = set(mine.loc[mine["ts"] <= middle, "item_id"])
    after = set(mine["item_id"])
    result = set(ids(plain, user, 10_000, exclude_purchased=True, as_of=middle))
    assert not result & before
    assert after - before <= result
    assert items(plain.recommend([user], 20, exclude="bought")) == ids(
        plain, user, 20, exclude_purchased=True
    )


@pytest.mark.spec("S5-31")
def test_the_timestamp_drives_the_repurchase_rule() -> None:
    """a is bought by u every 30 days, so it stays away for 24 days.

    Absent a day later, present 60 days later.
    """
    rows = receipts(
        "u a 1 2024-01-01 1 1\nu a 2 2024-01-31 1 1\nv b 3 2024-01-31 1 1\nw a 4 2024-01-31 1 1"
    )
    model = Hybrid(als=ALS_SMALL).fit(Interactions.of(rows))
    for days, there in ((1, False), (23.99, False), (24, True), (60, True)):
        moment = pd.Timestamp("2024-01-31") + days * DAY
        assert (
            ("a" in ids(model, "u", as_of=moment))
            == there
            == ("a" in ids(model, "u", as_of=moment.isoformat() + "Z"))
        )
        assert (
            "a" in ids(model, "u", as_of=moment.tz_localize("UTC").tz_convert("America/New_York"))
        ) == there
    reason = model.explain_list("u", as_of="2024-03-31").rows.set_index("item_id")["reason"]
    assert reason["a"] == "Time to restock: usual cycle 30 days"
    assert (
        "restock"
        not in model.explain_list("u", as_of="2024-02-28").rows.set_index("item_id")["reason"]["a"]
    )


@pytest.mark.spec("S5-31")
def test_purchases_since_the_training_count_too(hybrid: Hybrid, shop: Shop) -> None:
    user = shop.history.user_ids[0]
    now = shop.history.as_of + 5 * DAY
    best = ids(hybrid, user, 1, as_of=now)[0]
    bought = pd.DataFrame(
        {"item_id": [best, "unheard of"], "ts": [now - DAY, now - DAY], "price": [2.0, 1.0]}
    )
    assert best not in ids(hybrid, user, 20, as_of=now, history=bought)
    assert best in ids(hybrid, user, 20, as_of=now - 2 * DAY, history=bought)
    known = hybrid.user_info(user, now)
    more = hybrid.user_info(user, now, bought)
    assert more["total_purchases"] == known["total_purchases"] + 1
    assert more["last_purchase_date"] == now - DAY


def test_a_history_without_items_or_times_is_refused_by_name(hybrid: Hybrid) -> None:
    with pytest.raises(LabError, match="history lacks the column ts"):
        hybrid.explain_list("x", history=pd.DataFrame({"item_id": ["a"]}))


# ---- what a list says


@pytest.mark.spec("S5-42", "S5-43")
def test_facts_of_a_user_are_as_of_the_moment(hybrid: Hybrid, shop: Shop) -> None:
    rows = shop.history.purchases
    user = rows["user_id"].value_counts().index[0]
    mine = rows[rows["user_id"] == user].sort_values("ts")
    for n in (0, 1, 9, 10, len(mine)):
        at = mine["ts"].iloc[n - 1] if n else mine["ts"].iloc[0] - DAY
        past = mine[mine["ts"] <= at]
        result = hybrid.user_info(user, at)
        n = len(past)
        assert result["user_type"] == ("unknown" if not n else "loyal" if n >= 10 else "new")
        assert result["total_purchases"] == n
        assert result["unique_items"] == past["item_id"].nunique()
        assert result["last_purchase_date"] == (past["ts"].max() if n else None)
        assert result["avg_item_price"] == (
            pytest.approx(past["price"].mean(), abs=1e-5) if n else None
        )
    assert (
        hybrid.user_info(user)["spending_segment"]
        == reference.profiles(shop.history)["segment"][user]
    )
    assert hybrid.user_info("stranger") == {
        "user_id": "stranger",
        "user_type": "unknown",
        "spending_segment": "average",
        "total_purchases": 0,
        "unique_items": 0,
        "avg_item_price": None,
        "last_purchase_date": None,
    }


HARSH = {
    "price_sensitivity": {
        "mode": "penalty",
        "budget_tolerance": 1,
        "full_penalty_at": 1.1,
        "max_penalty": 1,
    }
}


@pytest.mark.spec("S5-44")
@pytest.mark.parametrize(
    "tuning",
    [
        {},
        {"candidate_pool_size": 2},
        {"upsell": {"factor": 1.0, "price_boost_weight": 1.0}},
        {"price_sensitivity": {"mode": "penalty"}},
        HARSH | {"candidate_pool_size": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("model", MODELS)
def test_relevance_is_in_0_1_and_never_rises(
    hybrid: Hybrid, shop: Shop, tuning: dict, model: str
) -> None:
    for user in [*shop.history.user_ids[:20], "stranger"]:
        relevance = hybrid.retuned(tuning).explain_list(user, 20, model).rows["relevance"]
        assert relevance.between(0, 1).all()
        assert (relevance.diff().dropna() <= 1e-9).all()


@pytest.mark.spec("S5-46", "S5-47")
def test_reasons_and_sources_are_recomputed(hybrid: Hybrid, shop: Shop) -> None:
    """From the parts' own tables and the receipts, without anything of the hybrid."""
    data = shop.history
    cycle = reference.cycles(shop.history)
    near = pd.DataFrame(
        CoPurchase().fit(data).similarity_.toarray() > 0, data.item_ids, data.item_ids
    )
    buyers = data.purchases.groupby("item_id")["user_id"].nunique()
    seen = set()
    for user in [*data.user_ids[:40], "stranger"]:
        mine = data.purchases[data.purchases["user_id"] == user]
        sources = (
            reference.candidates(hybrid, [user])
            .astype({"item_id": str})
            .set_index("item_id")["source"]
            .astype(str)
        )
        for row in hybrid.explain_list(user, 10).rows.itertuples():
            last = mine.loc[mine["item_id"] == row.item_id, "ts"].max()
            n = int(near.loc[sorted(set(mine["item_id"]) - {row.item_id}), row.item_id].sum())
            if (
                pd.notna(last)
                and cycle["observed"][row.item_id]
                and (data.as_of - last) / DAY >= cycle["cycle_days"][row.item_id]
            ):
                expected = (
                    f"Time to restock: usual cycle {round(cycle['cycle_days'][row.item_id])} days"
                )
            elif row.source == "item_cf" and n:
                expected = f"Similar to {n} item{'s' * (n > 1)} in your purchase history"
            else:
                expected = (
                    f"Popular with {buyers[row.item_id]} shoppers"
                    if row.source == "popularity"
                    else "Matches your preferences"
                )
            assert row.reason == expected
            assert row.source == sources.get(row.item_id, row.source)
            seen.add(row.reason.split()[0])
    assert seen == {"Time", "Similar", "Matches", "Popular"}


def test_prices_in_the_list_are_the_items_median_prices(hybrid: Hybrid, shop: Shop) -> None:
    rows = hybrid.explain_list(shop.history.user_ids[2], 10).rows
    assert rows.columns.tolist() == ["item_id", "relevance", "price", "reason", "source"]
    assert (
        rows["price"].tolist()
        == shop.history.purchases.groupby("item_id")["price"].median()[rows["item_id"]].tolist()
    )


@pytest.mark.spec("S5-16", "S5-32")
def test_similar_items_are_those_of_item_cf(hybrid: Hybrid, parts: dict, shop: Shop) -> None:
    item = shop.history.item_ids[4]
    pd.testing.assert_frame_equal(hybrid.similar(item, 5), parts["item_cf"].similar(item, 5))


# ---- parameters


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tuning": {"upsell": {"factor": 2}}}, r"Hybrid\(tuning\): upsell.factor is 2"),
        ({"tuning": {"candidate_pool_size": 0}}, "candidate_pool_size"),
        ({"als": {"factors": 0}}, "factors"),
        ({"item_cf": {"neighbours": 0}}, "neighbours"),
        ({"tuning": weights(0.5, 0.5, 0.5)}, "must sum to 1"),
    ],
)
def test_a_bad_parameter_is_refused_before_fitting(options: dict, message: str) -> None:
    with pytest.raises(LabError, match=message):
        Hybrid(**options)


def test_parameters_are_json_and_reach_the_parts(shop: Shop) -> None:
    model = Hybrid(
        als={"factors": 4, "iterations": 1},
        item_cf={"neighbours": 3},
        tuning={"popularity_days": 28},
    )
    assert json.loads(json.dumps(model.params)) == dataclasses.asdict(model)
    model.fit(shop.history)
    assert model.parts["als"].item_factors_.shape[1] == 4
    assert np.diff(model.similarity.indptr).max() <= 3
    assert np.array_equal(model.popularity, Popular(28, "mixed").fit(shop.history).counts_)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("uvw"),
            st.sampled_from("abcd"),
            st.integers(1, 9),
            st.sampled_from([0, 0.5, 3]),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_any_few_receipts_give_full_finite_lists(rows: list[tuple]) -> None:
    text = "\n".join(f"{u} {i} {u}{n}{d} 2024-01-0{d} 1 {p}" for n, (u, i, d, p) in enumerate(rows))
    data = Interactions.of(receipts(text))
    model = Hybrid(als=ALS_SMALL).fit(data)
    recs = model.recommend([*data.user_ids, "x"], 9)
    assert len(recs) == (data.shape[0] + 1) * data.shape[1]
    assert np.isfinite(recs["score"]).all()
    answer = model.explain_list("x", 9, exclude_purchased=True)
    assert np.isfinite(answer.rows["relevance"]).all()
    assert answer.fallback_used
