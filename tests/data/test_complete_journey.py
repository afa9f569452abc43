"""Real receipts that pip brings: counts, baselines, and the tables beside the receipts.

About two minutes, wherever the package is installed.
"""

import importlib.util
import subprocess
import sys
import tomllib
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest

from recsys_utils.data import registry, tables
from recsys_utils.data.engine import connect
from recsys_utils.data.files import package_folders
from recsys_utils.data.folds import Fold, load_fold, write_folds
from recsys_utils.data.interactions import Interactions
from recsys_utils.data.prefilter import prefilter, rules_of
from recsys_utils.evaluation.metrics import per_user
from recsys_utils.evaluation.slices import bought_before, warm
from recsys_utils.models import OwnPurchases, Popular, Recommender
from recsys_utils.store import ROOT

NAME = "complete_journey"
SPEC = registry.spec(NAME)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec(SPEC.package) is None,
        reason=f"{SPEC.package} is not installed",
    ),
]

# Precision and recall at 5, then at 10.
COLUMNS = [(k, metric) for k in (5, 10) for metric in ("precision", "recall")]
BASELINES = {
    "popular, 28 days": (Popular(28), [0.1780, 0.0324, 0.1348, 0.0448]),
    "own count": (OwnPurchases(None), [0.3775, 0.0689, 0.3042, 0.1023]),
    "own, exp(-age / 180)": (OwnPurchases(180), [0.3895, 0.0704, 0.3190, 0.1063]),
}
# Published for shoppers' own purchases alone, in whole days. The models fill short lists up.
FILLED = 0.0006


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tables.Tables]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECSYS_HOME", str(tmp_path_factory.mktemp("home")))
        patch.delenv("RECSYS_DATA", raising=False)
        yield tables.load(NAME)


@pytest.fixture(scope="module")
def fold(data: tables.Tables) -> Fold:
    write_folds(NAME)
    return load_fold(NAME)


@pytest.fixture(scope="module")
def truth(fold: Fold) -> pd.DataFrame:
    """What shoppers with a history bought in the last three weeks."""
    return warm(fold.testing.truth, fold.testing.history)


def test_the_extra_and_the_pin_bring_what_the_data_set_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["optional-dependencies"]["data"] == [SPEC.requirement]
    assert SPEC.requirement in (ROOT / "requirements.txt").read_text().splitlines()
    assert SPEC.requirement in SPEC.get


def test_counts(data: tables.Tables) -> None:
    summary = data.manifest["summary"]
    assert (summary["lines"], summary["users"], summary["items"]) == (1_458_032, 2_469, 68_192)
    assert data.purchases["store_id"].nunique() == 457
    kept = data.audit.set_index(["table", "rule"])["rows"]
    assert kept["purchases", "kept"] == 1_458_032
    assert kept["purchases"].iloc[:3].sum() == 1_469_307
    assert kept["promotions", "kept"] == 20_940_529
    assert data.users["age"].notna().sum() == 801
    assert len(data.stock) == len(data.events) == 0


@pytest.mark.spec("C1")
def test_columns_ids_and_prices(data: tables.Tables) -> None:
    buys = data.purchases
    assert set(buys) <= set(registry.CANONICAL["purchases"])
    assert (buys["quantity"] > 0).all()
    assert (buys["price"] > 0).all()
    assert buys["discount"].between(0, 1).all()
    line = buys[(buys["basket_id"].astype(str) == "31198570044")].iloc[0]
    assert (line["user_id"], line["item_id"], line["price"]) == ("900", "1095275", 0.5)
    item = data.items.astype({"item_id": str}).set_index("item_id").loc["25671"]
    assert item["name"] == "ICE - CRUSHED/CUBED, 22 LB"
    assert (item["category"], item["subcategory"]) == ("GROCERY", "FRZN ICE")
    assert set(buys["item_id"]) <= set(data.items["item_id"])
    assert not data.items["item_id"].duplicated().any()


def test_nothing_is_copied_and_nothing_imported(data: tables.Tables) -> None:
    """The package is found without running its code."""
    code = (
        "import sys; from recsys_utils.data import registry, tables;"
        f"print(len(tables.fingerprint(registry.spec('{NAME}'))['files']),"
        f" '{SPEC.package}' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    told = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert told.split() == ["8", "False"]


def test_populations(fold: Fold, truth: pd.DataFrame) -> None:
    distinct = truth[["user_id", "item_id"]].drop_duplicates()
    share = bought_before(distinct, fold.testing.history).mean()
    print(f"{truth['user_id'].nunique():,} warm shoppers, {share:.4f} of the truth bought before")
    assert truth["user_id"].nunique() == 1_872
    assert round(share, 3) == 0.438


@pytest.mark.parametrize("name", BASELINES)
def test_baselines(fold: Fold, truth: pd.DataFrame, name: str) -> None:
    """To the fourth digit with shoppers' own purchases alone; as the models are, nearly."""
    model, expected = BASELINES[name]
    stage = fold.testing
    bought = stage.history.purchases
    days = bought.assign(ts=bought["ts"].dt.floor("D"))
    whole = Interactions.of(days, fold.items, fold.users, pd.Timestamp(fold.borders["test"]))
    own = isinstance(model, OwnPurchases)
    found = values(model, whole, truth, own)
    print(f"{name}: {found}, published {expected}, agree {found == expected}")
    assert found == expected
    as_it_is = values(model, stage.history, truth, False)
    assert as_it_is == pytest.approx(expected, abs=FILLED)


def values(
    model: Recommender, history: Interactions, truth: pd.DataFrame, own: bool
) -> list[float]:
    """The values of COLUMNS; own: without the items that fill a list up."""
    recs = model.fit(history).recommend(truth["user_id"].unique(), 10)
    if own:
        recs = recs[bought_before(recs, history)]
    means = {k: per_user(recs, truth, k).mean() for k in (5, 10)}
    return [round(float(means[k][metric]), 4) for k, metric in COLUMNS]


def test_the_prefilter_keeps_2500_products_by_its_own_thresholds(fold: Fold) -> None:
    history = fold.testing.history
    rules = rules_of(SPEC, history.shape[1])
    assert (rules.min_category_items, rules.top, rules.max_user_share) == (150, 2500, 0.20)
    catalogue, funnel = prefilter(history.purchases, fold.items, rules)
    assert len(catalogue) == 2_500
    assert funnel["items"].is_monotonic_decreasing
    assert funnel["items"].iloc[0] == history.purchases["item_id"].nunique()


def test_promotions_lie_in_the_weeks_of_the_receipts(data: tables.Tables) -> None:
    """The week of a receipt by its time is the week that the package gives it, for every line."""
    promotions = data.scan("promotions")
    assert promotions.columns == registry.CANONICAL["promotions"]
    weeks = promotions.select("week").distinct().order_by("week").to_pandas()["week"]
    assert len(weeks) == 53
    file = package_folders(SPEC)[0] / "data" / "transactions.parquet"
    lines = connect().read_parquet(str(file)).select("week", "transaction_timestamp").to_pandas()
    place = np.searchsorted(weeks, lines["transaction_timestamp"], side="right")
    assert (place == lines["week"]).all()


def test_promotions_are_the_rows_of_the_file(data: tables.Tables) -> None:
    """In its order; places and mailers counted."""
    promotions = data.scan("promotions")
    first = promotions.limit(1).to_pandas().astype(str).iloc[0].tolist()
    assert first == ["1000050", "316", "2016-12-26 05:00:00", "9", "0"]
    places = promotions.group_by("place").agg(rows=lambda t: t.count()).to_pandas()
    mailers = promotions.group_by("mailer").agg(rows=lambda t: t.count()).to_pandas()
    assert places.set_index("place")["rows"].to_dict()["A"] == 409_401
    assert mailers.set_index("mailer")["rows"].to_dict()["D"] == 2_557_238
    assert len(places) == 10
    assert len(mailers) == 11


def test_campaigns_coupons_and_redemptions_meet(data: tables.Tables) -> None:
    campaigns, coupons, redemptions = (
        data.scan(name).to_pandas() for name in ("campaigns", "coupons", "redemptions")
    )
    assert (len(campaigns), len(coupons), len(redemptions)) == (6_589, 116_204, 2_102)
    assert campaigns["campaign_id"].nunique() == 27
    assert campaigns["starts"].lt(campaigns["ends"]).all()
    assert set(redemptions["coupon_id"]) <= set(coupons["coupon_id"])
    assert set(coupons["campaign_id"]) <= set(campaigns["campaign_id"])


def test_a_second_load_builds_nothing(data: tables.Tables) -> None:
    assert tables.fingerprint(SPEC) == data.manifest["fingerprint"]
