"""How far a ranker is trusted: by made-up scores, and in a fitted small shop."""

from pathlib import Path

import numpy as np
import pytest
from shops import Shop

from recsys_utils.ensembles.candidates import Candidates
from recsys_utils.ensembles.trust import USUAL, LeftOut, places, precision, trusted, voted
from recsys_utils.ensembles.two_stage import ENOUGH, TwoStage
from recsys_utils.models import load_model

USERS = 200
N = 20  # candidates of a user


def window(seed: int, ranker: float, tifu: float) -> LeftOut:
    """Every user buys five of 20 candidates; scores tell them with so much noise."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(USERS), N)
    item = np.tile(np.arange(N), USERS)
    bought = places(user, rng.random(len(user))) < 5
    noisy = {
        name: bought + rng.normal(0, sd, len(user)) for name, sd in (("tifu", tifu), ("own", 9))
    }
    pairs = Candidates(user, item, noisy)
    return LeftOut(pairs, bought, bought + rng.normal(0, ranker, len(user)))


def test_a_useless_ranker_has_no_share_and_a_perfect_one_much() -> None:
    windows = [window(seed, ranker=50, tifu=0.5) for seed in range(3)]
    assert trusted(windows) == ("tifu", 0)
    windows = [window(seed, ranker=0.1, tifu=2) for seed in range(3)]
    assert trusted(windows)[0] == "tifu"
    assert trusted(windows)[1] >= USUAL


def test_what_noise_alone_prefers_is_not_chosen() -> None:
    """Ranker and single model are the same: no share is better than another."""
    same = window(0, ranker=1, tifu=1)
    same.score = same.pairs.scores["tifu"]
    assert trusted([same]) == ("tifu", USUAL)


def test_a_share_of_none_is_the_single_models_order_and_of_all_the_rankers() -> None:
    one = window(1, ranker=1, tifu=1)
    for share, score in ((0, one.pairs.scores["tifu"]), (1, one.score)):
        order = voted(one.pairs, one.score, "tifu", share)
        assert np.array_equal(places(one.pairs.user, order), places(one.pairs.user, score))


def test_precision_counts_the_first_five_of_each_user() -> None:
    one = window(2, ranker=1, tifu=1)
    mine = one.pairs.user == 7
    first = np.argsort(-one.score[mine])[:5]
    assert precision(one, one.score)[7] == one.bought[mine][first].mean()


@pytest.fixture(scope="module")
def fitted(shop: Shop) -> TwoStage:
    return TwoStage(windows=3).fit(shop.history)


def test_a_small_shop_has_small_trees_and_says_whom_it_trusts(fitted: TwoStage) -> None:
    assert fitted.single_[0] in fitted.weights
    assert 0 <= fitted.share_[0] <= 1
    leaves = max(int(text.split("num_leaves=")[1].split()[0]) for text in fitted.rankers_)
    assert leaves <= 7


def test_a_large_shop_and_a_plain_model_stay_as_they_are(shop: Shop) -> None:
    model = TwoStage(windows=2)
    examples = model.examples(shop.history)
    assert model.sized(examples).leaves == 7
    plain = TwoStage(windows=2, few="plain")
    assert plain.sized(examples) is plain
    many = -(-ENOUGH // sum(int(e.bought.sum()) for e in examples))
    assert model.sized(examples * many) is model


def test_one_window_tells_the_single_model_only(shop: Shop) -> None:
    model = TwoStage(windows=1, rounds=5)
    single, share = model.trust(model.examples(shop.history))
    assert single in model.weights
    assert share == USUAL


def test_what_a_small_shop_serves_is_saved_with_it(fitted: TwoStage, tmp_path: Path) -> None:
    users = fitted.user_ids_[:20]
    one = fitted.recommend(users, 5)
    other = load_model(fitted.save(tmp_path)).recommend(users, 5)
    assert one["item_id"].tolist() == other["item_id"].tolist()
