"""Recommendation tables and notebooks' studies on disk: what is read is what was written."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from shops import ranked

from recsys_utils import LabError
from recsys_utils.data.folds import Fold
from recsys_utils.data.runs import load_runs, load_studies, save_run, save_study, seed_spreads
from recsys_utils.store import read_json, write_json


@pytest.fixture
def recs(shop_fold: Fold) -> pd.DataFrame:
    users = shop_fold.testing.users[:3]
    return ranked([(user, item) for user in users for item in ("milk", "tea")])


def save(recs: pd.DataFrame, fold: Fold, name: str = "own") -> None:
    save_run(recs, fold, name, "repeat", {"tau": 180}, 0.5, 0.25, "a note")


def spoil(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"x")


def test_runs_survive_the_round_trip(home: Path, shop_fold: Fold, recs: pd.DataFrame) -> None:
    save(recs, shop_fold, "own")
    save(recs[::2], shop_fold, "half")
    runs, metas = load_runs(shop_fold)
    assert set(runs) == set(metas.index) == {"own", "half"}
    assert metas.loc["own", ["family", "note"]].tolist() == ["repeat", "a note"]
    assert metas.loc["own", ["fit_seconds", "recommend_seconds"]].tolist() == [0.5, 0.25]
    assert metas.loc["own", "params"] == {"tau": 180}
    for name, saved in {"own": recs, "half": recs[::2]}.items():
        read = runs[name].astype({"user_id": str, "item_id": str})
        assert read.to_numpy().tolist() == saved.to_numpy().tolist(), name


def test_runs_of_an_older_cut_are_left_out(home: Path, shop_fold: Fold, recs) -> None:
    save(recs, shop_fold)
    with pytest.raises(LabError, match="no recommendation tables"):
        load_runs(replace(shop_fold, hash="def"))


def test_runs_of_an_earlier_version_have_no_seed_spread(home: Path, shop_fold: Fold, recs) -> None:
    save(recs, shop_fold)
    path = next(home.rglob("own.json"))
    meta = read_json(path)
    del meta["seed_spread"]
    write_json(meta, path)
    assert seed_spreads(load_runs(shop_fold)[1]).isna().all()


@pytest.mark.spec("C6")
def test_a_changed_run_is_refused_by_name(home: Path, shop_fold: Fold, recs) -> None:
    save(recs, shop_fold)
    spoil(next(home.rglob("own.parquet")))
    with pytest.raises(LabError, match="own.parquet was changed"):
        load_runs(shop_fold)


def test_a_study_survives_the_round_trip(home: Path, shop_fold: Fold) -> None:
    table = pd.DataFrame({"n": [10, 20], "recall": [0.1, 0.25]})
    assert load_studies(shop_fold) == {}
    save_study(table, shop_fold, "candidate_recall", "of all candidates")
    ((read, note),) = load_studies(shop_fold).values()
    pd.testing.assert_frame_equal(read, table)
    assert note == "of all candidates"


def test_a_study_of_an_older_cut_is_left_out_and_a_changed_one_refused(home, shop_fold) -> None:
    save_study(pd.DataFrame({"n": [10]}), shop_fold, "candidate_recall")
    assert load_studies(replace(shop_fold, hash="def")) == {}
    spoil(next(home.rglob("candidate_recall.parquet")))
    with pytest.raises(LabError, match="candidate_recall.parquet was changed"):
        load_studies(shop_fold)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda recs: recs.drop(columns="rank"), "lacks the column rank"),
        (lambda recs: pd.concat([recs, recs[:1]]), "one item twice"),
        (lambda recs: recs.assign(score=np.nan), "empty score"),
        (lambda recs: recs[:1].assign(user_id="stranger"), "stranger"),
    ],
    ids=["column", "twice", "empty", "stranger"],
)
def test_a_spoilt_table_is_not_saved(home, shop_fold: Fold, recs, spoil, message: str) -> None:
    with pytest.raises(LabError, match=message):
        save(spoil(recs), shop_fold)
    assert not list(home.rglob("own.*"))
