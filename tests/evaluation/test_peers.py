"""`benchmarks/peers.py`: what a library is handed, how its lists are judged; no installs."""

import sys
from argparse import Namespace
from pathlib import Path

import pandas as pd
import pytest
from shops import Shop as Cut
from shops import pairs, ranked

from recsys_utils.data.folds import Fold
from recsys_utils.data.outside import fitted_to, read_lists
from recsys_utils.evaluation.slices import bought_before, warm

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path += [str(BENCHMARKS), str(BENCHMARKS / "peer_models")]

import peers  # noqa: E402
from peer_models.plan import PLAN  # noqa: E402
from shop import Shop  # noqa: E402

TRIES = [{"tau": 1}, {"tau": 180}]


@pytest.fixture(scope="module")
def made(shop_fold: Fold, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The table of one model with two settings and one that is left out by name."""
    folder = tmp_path_factory.mktemp("peers")
    for stage in ("tuning", "testing"):
        peers.write_shop(shop_fold, getattr(shop_fold, stage), folder / stage)
    plan = PLAN["ours"] | {"models": {"own_purchases": TRIES, "ease": [{}]}}
    asked = Namespace(envs=folder / "envs", minutes=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peers, "MOST_GIB", 0)
        rows = peers.run_peer("ours", plan, shop_fold, folder, asked)
    return peers.judged(rows, shop_fold)


@pytest.mark.parametrize("stage", ["tuning", "testing"])
def test_a_library_sees_nothing_of_the_window(shop_fold: Fold, tmp_path: Path, stage: str) -> None:
    truth = getattr(shop_fold, stage).truth
    peers.write_shop(shop_fold, getattr(shop_fold, stage), tmp_path)
    seen = Shop.read(tmp_path)
    assert seen.receipts["ts"].max() < seen.as_of <= truth["ts"].min()
    assert set(seen.users) <= set(seen.receipts["user_id"])
    assert set(seen.users) <= set(truth["user_id"])
    assert set(seen.items["item_id"]) == set(seen.receipts["item_id"])


def test_strengths_count_baskets_and_forget() -> None:
    days = pd.to_datetime(["2024-01-01", "2024-01-01", "2024-01-11"])
    receipts = pd.DataFrame({"user_id": "ann", "item_id": "tea", "basket_id": [1, 1, 2]})
    shop = Shop(receipts.assign(ts=days), receipts, receipts, ["ann"], pd.Timestamp("2024-01-11"))
    assert shop.strengths(None)["weight"].tolist() == [2]
    assert shop.strengths(10)["weight"].tolist() == pytest.approx([1 + 1 / 2.718281828])


def test_a_hand_made_list_is_judged_as_it_is(shop_fold: Fold, shop: Cut, tmp_path: Path) -> None:
    stage = shop_fold.testing
    truth = warm(stage.truth, stage.history)
    repeat = bought_before(truth, stage.history)
    both = set(truth["user_id"][repeat]) & set(truth["user_id"][~repeat])
    user = sorted(map(str, both))[0]
    mine = truth["user_id"].astype(str) == user
    hits = [truth["item_id"][mine & kind].astype(str).iloc[0] for kind in (repeat, ~repeat)]
    lists = ranked([(user, item) for item in hits])[["user_id", "item_id", "rank"]]
    values = peers.quality(lists, stage)
    assert len(values) == truth["user_id"].nunique()
    assert values.loc[user, "precision@5"] == pytest.approx(2 / 5)
    assert values.loc[user, "new precision@5"] == pytest.approx(1 / 5)
    assert values.drop(index=user)["precision@5"].max() == 0


def test_the_better_setting_on_validation_is_taken(made: pd.DataFrame) -> None:
    row = made[made["model"] == "own_purchases"].iloc[0]
    assert row["tries"] == 2
    assert row["setting"] in ('{"tau": 1}', '{"tau": 180}')
    assert 0 < row["validation precision@5"] < 1
    assert 0 < row["precision@5"] < 1
    assert row["seconds"] > 0
    assert row["peak_mib"] > 10


def test_its_lists_are_taken_by_the_reader_of_lists(
    made: pd.DataFrame, shop_fold: Fold, tmp_path: Path
) -> None:
    best = peers.best_of_each(made.assign(peer="theirs"))
    arguments = peers.hand_over(best, tmp_path)
    file = tmp_path / "theirs_own_purchases.csv"
    assert arguments == f"--lists {file}"
    lists, counts = fitted_to(shop_fold, read_lists(file), "theirs")
    assert pairs(lists) == pairs(pd.read_csv(file, dtype={"user_id": str, "item_id": str}))
    cold = len(shop_fold.testing.users) - lists["user_id"].nunique()
    assert {what: count for what, count in counts.items() if count} in (
        {"shoppers without a list": cold},
        {},
    )


def test_what_is_left_out_is_named_with_its_reason(made: pd.DataFrame) -> None:
    assert "| **ease** | left out: a number for each pair of" in peers.markdown(made)


def test_lines_of_user_code_are_what_a_model_needs(tmp_path: Path) -> None:
    file = tmp_path / "with_any.py"
    file.write_text(
        '"""About."""\nimport numpy as np\nimport pandas\n\n\ndef model(x):\n    """One."""\n'
        "    # a remark\n    return _help(np.ones(x))\n\n\ndef other():\n    return pandas\n\n\n"
        "def _help(x):\n    return x\n"
    )
    assert peers.code_lines(file, "model") == 5
    assert peers.code_lines(file, "other") == 3


def test_every_model_of_the_plan_has_code_and_no_more_tries_than_others() -> None:
    for peer, plan in PLAN.items():
        assert all("==" in package for package in plan["install"])
        for model, grid in plan["models"].items():
            assert 1 <= len(grid) <= 8
            assert peers.code_lines(peers.MODELS / f"with_{peer}.py", model) > 3
