"""Numbers that models must reach on the real receipts. Needs RECSYS_DATA; about two minutes."""

import os
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from recsys_utils.data.folds import Fold, Stage, load_fold, write_folds
from recsys_utils.data.interactions import Interactions
from recsys_utils.ensembles.two_stage import TwoStage
from recsys_utils.evaluation.metrics import per_user
from recsys_utils.evaluation.slices import bought_before, warm
from recsys_utils.models import ALS, ItemCF, OwnPurchases, Popular, Recommender

ONLINE = "online_retail"
LGSR = "lets_get_sort_of_real"
FILES = {ONLINE: "online_retail_II.parquet", LGSR: "transactions.parquet"}
DATA = Path(os.environ.get("RECSYS_DATA", "/nowhere"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all((DATA / name / file).is_file() for name, file in FILES.items()),
        reason="RECSYS_DATA does not hold the real receipts",
    ),
]

TOLERANCE = 0.003
COLUMNS = (
    ("precision", 5),
    ("recall", 5),
    ("ndcg", 5),
    ("hit_rate", 5),
    ("precision", 10),
    ("recall", 10),
    ("ndcg", 10),
)
RECENT = Popular(28)
EVER = Popular(None, count="users")
OWN = OwnPurchases(180)
COUNT = OwnPurchases(None, ties="all_time")
COSINE = ItemCF("cosine", "binary", 300, tau=60)
# The model and its values of COLUMNS. The published row "popular" of LGSR is of all time: its seven
# numbers agree to the fourth digit, those of the last 28 days differ in nDCG by .01 (the same first
# five items in another order).
ROWS = {
    (ONLINE, "popular 28 d"): (RECENT, 0.1341, 0.0333, 0.1483, 0.4817, 0.1130, 0.0569, 0.1347),
    (ONLINE, "popular ever"): (EVER, 0.0794, 0.0221, 0.0858, 0.3143, 0.0715, 0.0370, 0.0821),
    (ONLINE, "own decayed"): (OWN, 0.3248, 0.1216, 0.3599, 0.7373, 0.2791, 0.1871, 0.3407),
    (ONLINE, "own count"): (COUNT, 0.2937, 0.1098, 0.3286, 0.7035, 0.2552, 0.1706, 0.3132),
    (ONLINE, "item cosine"): (COSINE, 0.2349, 0.0913, 0.2617, 0.5904, 0.1921, 0.1334, 0.2419),
    (LGSR, "popular ever"): (EVER, 0.2496, 0.0816, 0.2762, 0.6863, 0.1747, 0.1057, 0.2254),
    (LGSR, "own decayed"): (OWN, 0.4746, 0.1548, 0.5241, 0.8248, 0.3785, 0.2256, 0.4646),
    (LGSR, "own count"): (COUNT, 0.4232, 0.1397, 0.4709, 0.8102, 0.3376, 0.2058, 0.4170),
    (LGSR, "item cosine"): (COSINE, 0.2839, 0.0954, 0.3241, 0.7273, 0.1922, 0.1234, 0.2619),
}


@pytest.fixture(scope="module")
def fold(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Fold]:
    """The fold of a data set by name, read once."""
    folds: dict[str, Fold] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECSYS_HOME", str(tmp_path_factory.mktemp("home")))

        def get(name: str) -> Fold:
            if name not in folds:
                write_folds(name)
                folds[name] = load_fold(name)
            return folds[name]

        yield get


def warm_truth(stage: Stage) -> pd.DataFrame:
    """What shoppers with a history bought in the window."""
    return warm(stage.truth, stage.history)


def metrics(model: Recommender, stage: Stage) -> list[float]:
    """The values of COLUMNS."""
    truth = warm_truth(stage)
    recs = model.fit(stage.history).recommend(truth["user_id"].unique(), 10)
    means = {k: per_user(recs, truth, k).mean() for k in (5, 10)}
    return [means[k][metric] for metric, k in COLUMNS]


def every_third_shopper(fold: Fold) -> Stage:
    """A third of the shoppers by id, with all their receipts."""
    stage = fold.testing
    users = sorted(stage.history.user_ids.astype(str))[::3]
    purchases = stage.history.purchases
    history = purchases[purchases["user_id"].astype(str).isin(users)]
    truth = stage.truth[stage.truth["user_id"].astype(str).isin(users)]
    return Stage(
        Interactions.of(history, fold.items, fold.users, fold.borders["test"]), truth, stage.exclude
    )


@pytest.mark.parametrize(
    ("dataset", "users", "all_users", "items", "repeat"),
    [(ONLINE, 1_123, 5_878, 4_631, 0.495), (LGSR, 2_534, 4_962, 4_997, 0.667)],
)
def test_populations(
    fold: Callable, dataset: str, users: int, all_users: int, items: int, repeat: float
) -> None:
    stage = fold(dataset).testing
    truth = warm_truth(stage)
    everything = pd.concat([stage.history.purchases, stage.truth])
    distinct = truth[["user_id", "item_id"]].drop_duplicates()
    assert truth["user_id"].nunique() == users
    assert everything["user_id"].nunique() == all_users
    assert everything["item_id"].nunique() == items
    assert bought_before(distinct, stage.history).mean() == pytest.approx(repeat, abs=0.0006)


@pytest.mark.parametrize(("dataset", "row"), ROWS)
def test_baselines(fold: Callable, dataset: str, row: str) -> None:
    model, *expected = ROWS[dataset, row]
    assert metrics(model, fold(dataset).testing) == pytest.approx(expected, abs=TOLERANCE)


def test_bm25_is_the_best_single_model(fold: Callable) -> None:
    assert metrics(ItemCF("bm25"), fold(ONLINE).testing)[0] >= 0.34


def test_decayed_als_reaches_its_peer(fold: Callable) -> None:
    model = ALS(128, 30, 10, weighting="log", tau=60)
    assert metrics(model, fold(ONLINE).testing)[0] >= 0.258


@pytest.mark.parametrize(
    ("dataset", "target", "least"),
    [(ONLINE, "any", 0.38), (ONLINE, "new", 0.1065), (LGSR, "any", 0.4935)],
)
def test_two_stages_reach_their_goal(
    fold: Callable, dataset: str, target: str, least: float
) -> None:
    """With half the default's windows; on new items with the ranker that learns them alone.

    LGSR's own purchases reach .4746 over all shoppers, and .4784 over this third.
    """
    stage = fold(dataset).testing if dataset == ONLINE else every_third_shopper(fold(dataset))
    truth = warm_truth(stage)
    exclude = None
    if target == "new":
        exclude = "bought"
        truth = truth[~bought_before(truth, stage.history)]
    model = TwoStage(target=target, windows=3).fit(stage.history)
    recs = model.recommend(truth["user_id"].unique(), 5, exclude)
    assert per_user(recs, truth, 5)["precision"].mean() >= least
