"""Recommendation tables: the only currency. (user_id, item_id, score, rank) plus a small JSON about who made it."""

import resource
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from recsys_utils import LabError
from recsys_utils.data.folds import Fold
from recsys_utils.data.tables import spec
from recsys_utils.store import (
    LIBRARIES,
    data_dir,
    digest,
    read_json,
    read_parquet,
    write_json,
    write_parquet,
)

DEPTH = 200
COLUMNS = ("user_id", "item_id", "score", "rank")


def save_run(
    recs: pd.DataFrame,
    fold: Fold,
    model: str,
    family: str,
    params: dict,
    fit_seconds: float,
    recommend_seconds: float,
    note: str = "",
) -> None:
    """Check and write a model's lists for a fold's test users, `data/<dataset>/runs/<fold>/<model>.parquet`."""
    _check(recs, fold, model)
    folder = data_dir(spec(fold.dataset).name, "runs", fold.name)
    path = write_parquet(recs[list(COLUMNS)], folder / f"{model}.parquet")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux: KiB
    write_json(
        {
            "model": model,
            "family": family,
            "params": params,
            "note": note,
            "fold": fold.name,
            "fold_hash": fold.hash,
            "sha256": digest(path),
            "fit_seconds": round(fit_seconds, 3),
            "recommend_seconds": round(recommend_seconds, 3),
            "peak_mib": round(peak),
            "versions": {lib: version(lib) for lib in LIBRARIES},
        },
        folder / f"{model}.json",
    )


def load_runs(fold: Fold) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """All tables saved for this very fold, by model, and what is known of them; tables of an older cut are left out."""
    metas = load_metas(fold)
    folder = data_dir(spec(fold.dataset).name, "runs", fold.name)
    return {
        model: read_parquet(_unchanged(folder / f"{model}.parquet", meta))
        for model, meta in metas.iterrows()
    }, metas


def load_metas(fold: Fold) -> pd.DataFrame:
    """What is known of the tables saved for this very fold, by model: family, params, seconds, …"""
    folder = data_dir(spec(fold.dataset).name, "runs", fold.name)
    metas = [read_json(path) for path in sorted(folder.glob("*.json"))]
    metas = [m for m in metas if m["fold_hash"] == fold.hash]
    if not metas:
        raise LabError(
            f"no recommendation tables in {folder}: run ./run_all.sh --dataset {fold.dataset}"
        )
    return pd.DataFrame(metas).set_index("model")


def save_study(table: pd.DataFrame, fold: Fold, name: str, note: str = "") -> None:
    """Write a notebook's finding for the report, `data/<dataset>/studies/<fold>/<name>.parquet`: a tidy table and what it shows."""
    folder = data_dir(spec(fold.dataset).name, "studies", fold.name)
    path = write_parquet(table, folder / f"{name}.parquet")
    write_json(
        {"study": name, "note": note, "fold_hash": fold.hash, "sha256": digest(path)},
        folder / f"{name}.json",
    )


def load_studies(fold: Fold) -> dict[str, tuple[pd.DataFrame, str]]:
    """Every finding of this very fold by name, with its note; empty where no notebook left one."""
    folder = data_dir(spec(fold.dataset).name, "studies", fold.name)
    metas = [
        m for m in map(read_json, sorted(folder.glob("*.json"))) if m["fold_hash"] == fold.hash
    ]
    return {
        m["study"]: (read_parquet(_unchanged(folder / f"{m['study']}.parquet", m)), m["note"])
        for m in metas
    }


def _unchanged(path: Path, meta: dict) -> Path:
    if digest(path) != meta["sha256"]:
        raise LabError(f"{path} was changed after it was written: run its notebook again")
    return path


def _check(recs: pd.DataFrame, fold: Fold, model: str) -> None:
    if missing := [c for c in COLUMNS if c not in recs]:
        raise LabError(
            f"the table of '{model}' lacks the column {missing[0]}: it needs {', '.join(COLUMNS)}"
        )
    if recs["score"].isna().any() or recs.duplicated(["user_id", "item_id"]).any():
        raise LabError(
            f"the table of '{model}' has an empty score or one item twice for a user: recommend() gives neither"
        )
    if strangers := set(recs["user_id"].unique()) - set(fold.testing.users):
        raise LabError(
            f"the table of '{model}' has users outside the test window, e.g. {min(strangers)}: use fold.testing.users"
        )
