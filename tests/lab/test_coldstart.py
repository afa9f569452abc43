"""Cold start: what is held out is gone, the draw is fair, metadata beats popularity."""

import numpy as np
import pandas as pd
import pytest
from lab.coldstart import PopularEver, UsualCategory, cold_items, hold_out, judge
from shops import Shop, pairs, receipts, synthetic_tables

from recsys_utils import LabError
from recsys_utils.data.folds import Stage, window_borders
from recsys_utils.data.interactions import Interactions
from recsys_utils.models import LightFM, Popular


def staged(tables: dict[str, pd.DataFrame], cut: pd.Timestamp) -> Stage:
    """A shop with a catalogue and profiles of its own, cut."""
    rows = tables["purchases"]
    items = tables["items"]
    users = tables["users"]
    history = Interactions.of(rows[rows["ts"] < cut], items, users, cut, items["item_id"])
    profiles = users.astype({"user_id": str}).set_index("user_id")
    return Stage(history, rows[rows["ts"] >= cut], None, profiles)


@pytest.fixture(scope="module")
def stage(shop: Shop) -> Stage:
    return staged(shop.tables, shop.borders["test"])


@pytest.fixture(scope="module")
def larger() -> Stage:
    """Enough shoppers for planted tastes to show."""
    tables = synthetic_tables(lines=100_000, seed=1)
    return staged(tables, window_borders(tables["purchases"]["ts"])["test"])


def judged_rows(stage: Stage, truth: str) -> pd.DataFrame:
    if truth == "ever":
        return pd.concat([stage.history.purchases, stage.truth])
    return stage.truth


@pytest.mark.spec("S1-10")
@pytest.mark.parametrize("truth", ["window", "ever"])
def test_held_out_users_are_gone_and_their_purchases_are_the_truth(
    stage: Stage, truth: str
) -> None:
    result = hold_out(stage, 0.5, 1, "users", truth)
    held = set(stage.history.user_ids) - set(result.history.user_ids)
    judged = judged_rows(stage, truth)
    candidates = stage.history.user_ids.intersection(judged["user_id"].unique())
    left = stage.history.purchases[~stage.history.purchases["user_id"].isin(held)]
    assert len(held) == round(0.5 * len(candidates)) > 5
    assert held <= set(candidates)
    assert pairs(result.truth) == pairs(judged[judged["user_id"].isin(held)])
    assert pairs(result.history.purchases) == pairs(left)
    assert result.history.as_of == stage.history.as_of
    assert set(result.history.item_ids) == set(stage.history.item_ids)
    assert result.profiles.loc[sorted(held)].notna().any(axis=1).all()


@pytest.mark.spec("S1-11")
@pytest.mark.parametrize("truth", ["window", "ever"])
def test_held_out_items_stay_on_sale_with_their_attributes(stage: Stage, truth: str) -> None:
    result = hold_out(stage, 0.2, 1, "items", truth)
    held = set(cold_items(result)) - set(cold_items(stage))
    judged = judged_rows(stage, truth)
    assert len(held) == round(0.2 * stage.history.sold.sum())
    assert set(cold_items(stage)) < set(cold_items(result))
    assert pairs(result.truth) == pairs(judged[judged["item_id"].isin(held)])
    assert not result.history.purchases["item_id"].isin(held).any()
    assert result.history.items.loc[sorted(held), "category"].notna().all()


def test_profiles_come_from_the_history_where_the_shop_has_no_file(stage: Stage) -> None:
    result = hold_out(Stage(stage.history, stage.truth), 0.3, 1)
    held = stage.history.user_ids.difference(result.history.user_ids)
    pd.testing.assert_frame_equal(result.profiles.sort_index(), stage.history.users.loc[held])


@pytest.mark.spec("C7")
@pytest.mark.parametrize("who", ["users", "items"])
def test_the_draw_depends_on_seed_and_ids_not_on_rows(stage: Stage, who: str) -> None:
    data = stage.history
    shuffled = Interactions.of(
        data.purchases.sample(frac=1, random_state=3),
        data.items.reset_index(),
        data.users.reset_index(),
        data.as_of,
        data.item_ids.to_series(),
    )
    first = hold_out(stage, 0.3, 1, who)
    again = hold_out(Stage(shuffled, stage.truth[::-1]), 0.3, 1, who)
    other_seed = hold_out(stage, 0.3, 2, who)
    assert pairs(first.truth) == pairs(again.truth)
    assert first.history.item_ids.equals(again.history.item_ids)
    assert pairs(first.truth) != pairs(other_seed.truth)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"share": 0}, "share=0"),
        ({"share": 1}, "share=1"),
        ({"share": -1}, "share=-1"),
        ({"who": "shops"}, "shops"),
        ({"truth": "never"}, "never"),
        ({"share": 1, "who": "items"}, "share=1"),
        ({"share": 2}, "share=2"),
    ],
)
def test_impossible_holds_are_named(stage: Stage, options: dict, named: str) -> None:
    with pytest.raises(LabError, match=named):
        hold_out(stage, **{"truth": "ever", **options})


@pytest.fixture
def two_kinds() -> Interactions:
    """Food (tea, jam, unsold cake) and tools (saw, unsold axe)."""
    rows = receipts("""
    u tea b1 2024-01-01 1 1
    u tea b2 2024-01-02 1 1
    u jam b2 2024-01-02 1 1
    v saw b3 2024-01-03 1 1
    w tea b4 2024-01-03 1 1
    """)
    kinds = {"tea": "food", "jam": "food", "cake": "food", "saw": "tools", "axe": "tools"}
    items = pd.DataFrame(kinds.items(), columns=["item_id", "category"])
    return Interactions.of(rows, items, catalogue=pd.Series(["cake", "axe"], name="item_id"))


def test_usual_category_is_purchases_per_item_sold_of_it(two_kinds: Interactions) -> None:
    users = list("uuvvw")
    items = ["cake", "axe", "axe", "jam", "cake"]
    model = UsualCategory().fit(two_kinds)
    scores = model.score(pd.DataFrame({"user_id": users, "item_id": items}))
    assert scores.tolist() == [1.5, 0, 1, 0, 0.5]


@pytest.fixture
def unsold_then_bought(two_kinds: Interactions) -> Stage:
    """Stranger x buys too."""
    truth = receipts("""
    u cake b5 2024-01-09 1 1
    v axe  b6 2024-01-09 1 1
    v cake b6 2024-01-09 1 1
    x axe  b7 2024-01-09 1 1
    """)
    return Stage(two_kinds, truth)


def test_judge_by_hand_on_cold_items(unsold_then_bought: Stage) -> None:
    stage = unsold_then_bought
    assert cold_items(stage).tolist() == ["axe", "cake"]
    board = judge({"usual": UsualCategory()}, stage, cold_items(stage), k=1)
    expected = {"precision": 1, "recall": 0.75, "hit_rate": 1, "error": 0, "users": 2}
    assert board.loc["usual"].to_dict() == expected
    assert board.loc["chance", ["precision", "recall"]].tolist() == [0.75, 0.5]
    # A list of five holds both items, however they are drawn: all is found, in two of five places.
    wide = judge({"usual": UsualCategory()}, stage, cold_items(stage), k=5)
    assert wide.loc["chance", ["precision", "recall"]].tolist() == [0.3, 1]


def test_judge_on_all_items_has_strangers_and_no_chance(unsold_then_bought: Stage) -> None:
    board = judge({"usual": UsualCategory()}, unsold_then_bought, k=1)
    assert board["users"].to_dict() == {"usual": 3}


@pytest.mark.parametrize(("model", "item"), [(PopularEver(), "old"), (Popular(), "new")])
def test_strangers_get_what_is_popular(model: Popular, item: str) -> None:
    rows = receipts("""
    u old b1 2023-01-01 1 1
    v old b2 2023-01-01 1 1
    w new b3 2024-01-01 1 1
    """)
    profiles = pd.DataFrame(index=["stranger"])
    recs = model.fit(Interactions.of(rows)).recommend(["stranger"], 1, profiles=profiles)
    assert recs["item_id"][0] == item


@pytest.mark.spec("S1-10")
def test_metadata_beats_popularity_for_strangers(larger: Stage) -> None:
    """Age, gender, country and income move the planted tastes. The truth is of all times."""
    models = {
        "popular": PopularEver(),
        "lightfm": LightFM(16, features="users", tau=None),
        "ids": LightFM(16, features="none", epochs=1),  # knows no strangers: recent popularity
    }
    board = judge(models, hold_out(larger, 0.5, 1, "users", "ever"))
    precision = board["precision"]
    error = np.hypot(board["error"]["lightfm"], board["error"]["popular"])
    assert precision["lightfm"] > precision["popular"] + 3 * error
    assert precision["ids"] < precision["popular"]


@pytest.mark.spec("S1-11")
def test_metadata_beats_other_models_on_items_without_history(larger: Stage) -> None:
    stage = hold_out(larger, 0.2, 1, "items", "ever")
    models = {
        "popular": Popular(),
        "usual": UsualCategory(),
        "lightfm": LightFM(16, features="items", tau=None),
    }
    precision = judge(models, stage, cold_items(stage))["precision"]
    assert precision["lightfm"] > 1.5 * precision.drop("lightfm").max()
