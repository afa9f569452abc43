"""Cold start: what is held out is gone, the draw is fair, and metadata then beats popularity where tastes follow it."""

import numpy as np
import pandas as pd
import pytest
from lab.coldstart import PopularEver, UsualCategory, cold_items, hold_out, judge
from shops import Shop, receipts

from recsys_utils import LabError
from recsys_utils.data import synthetic
from recsys_utils.data.folds import Stage, window_borders
from recsys_utils.data.interactions import Interactions
from recsys_utils.models import LightFM, Popular


def staged(tables: dict[str, pd.DataFrame], cut: pd.Timestamp) -> Stage:
    """A shop with a catalogue and profiles of its own, cut."""
    rows, users = tables["purchases"], tables["users"]
    history = Interactions.of(
        rows[rows["ts"] < cut], tables["items"], users, cut, tables["items"]["item_id"]
    )
    return Stage(
        history, rows[rows["ts"] >= cut], None, users.astype({"user_id": str}).set_index("user_id")
    )


@pytest.fixture(scope="module")
def stage(shop: Shop) -> Stage:
    return staged(shop.tables, shop.borders["test"])


@pytest.fixture(scope="module")
def larger() -> Stage:
    """Enough shoppers for planted tastes to show."""
    tables = synthetic.generate(lines=100_000, seed=1)
    return staged(tables, window_borders(tables["purchases"]["ts"])["test"])


def pairs(frame: pd.DataFrame) -> set[tuple[str, str]]:
    return set(zip(frame["user_id"].astype(str), frame["item_id"].astype(str)))


@pytest.mark.spec("S1-10")
@pytest.mark.parametrize("truth", ["window", "ever"])
def test_held_out_users_are_gone_and_their_purchases_are_the_truth(
    stage: Stage, truth: str
) -> None:
    made = hold_out(stage, 0.5, 1, "users", truth)
    held = set(stage.history.user_ids) - set(made.history.user_ids)
    asked = pd.concat([stage.history.purchases, stage.truth]) if truth == "ever" else stage.truth
    candidates = stage.history.user_ids.intersection(asked["user_id"].unique())
    assert len(held) == round(0.5 * len(candidates)) > 5
    assert held <= set(candidates)
    assert pairs(made.truth) == {pair for pair in pairs(asked) if pair[0] in held}
    assert pairs(made.history.purchases) == {
        pair for pair in pairs(stage.history.purchases) if pair[0] not in held
    }
    assert made.history.as_of == stage.history.as_of
    assert set(made.history.item_ids) == set(stage.history.item_ids)
    assert made.profiles.loc[sorted(held)].notna().any(axis=1).all()


@pytest.mark.spec("S1-11")
@pytest.mark.parametrize("truth", ["window", "ever"])
def test_held_out_items_stay_on_sale_with_their_attributes(stage: Stage, truth: str) -> None:
    made = hold_out(stage, 0.2, 1, "items", truth)
    held = set(cold_items(made)) - set(cold_items(stage))
    asked = pd.concat([stage.history.purchases, stage.truth]) if truth == "ever" else stage.truth
    assert len(held) == round(0.2 * stage.history.sold.sum())
    assert set(cold_items(stage)) < set(cold_items(made))
    assert pairs(made.truth) == {pair for pair in pairs(asked) if pair[1] in held}
    assert not {item for _, item in pairs(made.history.purchases)} & held
    assert made.history.items.loc[sorted(held), "category"].notna().all()


def test_profiles_come_from_the_history_where_the_shop_has_no_file(stage: Stage) -> None:
    made = hold_out(Stage(stage.history, stage.truth), 0.3, 1)
    held = stage.history.user_ids.difference(made.history.user_ids)
    pd.testing.assert_frame_equal(made.profiles.sort_index(), stage.history.users.loc[held])


@pytest.mark.spec("C7")
@pytest.mark.parametrize("who", ["users", "items"])
def test_the_draw_depends_on_seed_and_ids_not_on_rows(stage: Stage, who: str) -> None:
    data, rows = stage.history, stage.history.purchases.sample(frac=1, random_state=3)
    mixed = Interactions.of(
        rows,
        data.items.reset_index(),
        data.users.reset_index(),
        data.as_of,
        data.item_ids.to_series(),
    )
    a, b, other = (
        hold_out(stage, 0.3, 1, who),
        hold_out(Stage(mixed, stage.truth[::-1]), 0.3, 1, who),
        hold_out(stage, 0.3, 2, who),
    )
    assert pairs(a.truth) == pairs(b.truth) != pairs(other.truth)
    assert a.history.item_ids.equals(b.history.item_ids)


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


TWO_KINDS = Interactions.of(
    receipts(
        "u tea b1 2024-01-01 1 1\nu tea b2 2024-01-02 1 1\nu jam b2 2024-01-02 1 1\nv saw b3 2024-01-03 1 1\nw tea b4 2024-01-03 1 1"
    ),
    pd.DataFrame(
        {
            "item_id": ["tea", "jam", "cake", "saw", "axe"],
            "category": ["food", "food", "food", "tools", "tools"],
        }
    ),
    catalogue=pd.Series(["cake", "axe"], name="item_id"),
)


def test_usual_category_is_purchases_per_item_sold_of_it() -> None:
    model = UsualCategory().fit(TWO_KINDS)
    asked = pd.DataFrame(
        {"user_id": list("uuvvw"), "item_id": ["cake", "axe", "axe", "jam", "cake"]}
    )
    assert model.score(asked).tolist() == [1.5, 0, 1, 0, 0.5]


def test_judge_by_hand_with_chance_and_only_cold_items() -> None:
    stage = Stage(
        TWO_KINDS,
        receipts(
            "u cake b5 2024-01-09 1 1\nv axe b6 2024-01-09 1 1\nv cake b6 2024-01-09 1 1\nx axe b7 2024-01-09 1 1"
        ),
    )
    assert cold_items(stage).tolist() == ["axe", "cake"]
    board = judge({"usual": UsualCategory()}, stage, cold_items(stage), k=1)
    assert board["users"].tolist() == [2, 2]  # x has no history
    assert board.loc["usual", ["precision", "recall", "hit_rate", "error"]].tolist() == [
        1,
        0.75,
        1,
        0,
    ]
    assert board.loc["chance", ["precision", "recall"]].tolist() == [0.75, 0.5]
    assert judge({"usual": UsualCategory()}, stage, k=1)["users"].tolist() == [3]


def test_popular_ever_serves_strangers_from_all_times() -> None:
    rows = receipts("u old b1 2023-01-01 1 1\nv old b2 2023-01-01 1 1\nw new b3 2024-01-01 1 1")
    profiles = pd.DataFrame(index=["stranger"])
    first = [
        m.fit(Interactions.of(rows)).recommend(["stranger"], 1, profiles=profiles)["item_id"][0]
        for m in (PopularEver(), Popular())
    ]
    assert first == ["old", "new"]


@pytest.mark.spec("S1-10")
def test_metadata_beats_popularity_for_strangers(larger: Stage) -> None:
    """Planted: age, gender, country and income move tastes. The truth is of all times, so is the popularity to beat."""
    models = {
        "popular": PopularEver(),
        "lightfm": LightFM(16, features="users", tau=None),
        "ids": LightFM(16, features="none", epochs=1),
    }
    board = judge(models, hold_out(larger, 0.5, 1, "users", "ever"))
    precision, error = board["precision"], board["error"]
    assert precision["lightfm"] > precision["popular"] + 3 * np.hypot(
        error["lightfm"], error["popular"]
    )
    assert precision["ids"] < precision["popular"]  # ids know no strangers: recent popularity


@pytest.mark.spec("S1-11")
def test_metadata_beats_popularity_chance_and_the_usual_category_on_items_without_history(
    larger: Stage,
) -> None:
    held = hold_out(larger, 0.2, 1, "items", "ever")
    board = judge(
        {
            "popular": Popular(),
            "usual": UsualCategory(),
            "lightfm": LightFM(16, features="items", tau=None),
        },
        held,
        cold_items(held),
    )["precision"]
    assert board["lightfm"] > 1.5 * board.drop("lightfm").max()
