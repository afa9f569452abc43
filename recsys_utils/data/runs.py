"""Recommendation tables, which everything that makes or judges lists exchanges.

Columns user_id, item_id, score, rank, and beside each table a small JSON about the model that made
it.
"""

import os
import resource
from collections.abc import Iterable

import numpy as np
import pandas as pd

from recsys_utils import LabError
from recsys_utils.data.folds import Fold
from recsys_utils.store import (
    data_dir,
    digest,
    library_versions,
    read_json,
    read_parquet,
    write_json,
    write_parquet,
)

DEPTH = 200  # places of a list that are kept: enough to find new items behind many repeats
# The variable that holds the name of the notebook that runs.
NOTEBOOK = "RECSYS_NOTEBOOK"
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
    seed_spread: dict[str, float] | None = None,
    made_by: str = "",
    tries: int = 1,
) -> None:
    """Check a model's lists for a fold's test users, and write them.

    The file is `data/<dataset>/runs/<fold>/<model>.parquet`.
    made_by: module and class of a model that can be fitted again with `params`, such as
    recsys_utils.models.popularity:Popular; "" for lists that no single model makes.
    tries: settings that were judged on the validation window before this one was taken.
    """
    _check(recs, fold, model)
    folder = fold.folder("runs")
    (fold.folder("left_out") / f"{model}.json").unlink(missing_ok=True)
    path = write_parquet(recs[list(COLUMNS)], folder / f"{model}.parquet")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux: KiB
    write_json(
        {
            "model": model,
            "family": family,
            "made_by": made_by,
            "notebook": os.environ.get(NOTEBOOK, ""),
            "params": params,
            "tries": tries,
            "note": note,
            "seed_spread": seed_spread or {},
            "fold": fold.name,
            "fold_hash": fold.hash,
            "sha256": digest(path),
            "fit_seconds": round(fit_seconds, 3),
            "recommend_seconds": round(recommend_seconds, 3),
            "peak_mib": round(peak),
            "versions": library_versions(),
        },
        folder / f"{model}.json",
    )


def save_validation(recs: pd.DataFrame, fold: Fold, model: str) -> None:
    """Write a model's lists for the validation window, from which the choice is made."""
    write_table(recs[list(COLUMNS)], fold, "validation", model, {"model": model})


def load_validation(fold: Fold) -> dict[str, pd.DataFrame]:
    """Lists for the validation window of this very fold, by model, of those that have a run."""
    recorded = {meta["model"] for meta in _metas_of(fold, "runs")}
    metas = [meta for meta in _metas_of(fold, "validation") if meta["model"] in recorded]
    return {meta["model"]: _table(fold, "validation", meta["model"], meta) for meta in metas}


def save_left_out(fold: Fold, model: str, reason: str) -> None:
    """Write down that a model does not stand in the leaderboard, and why, for the report."""
    path = fold.folder("left_out") / f"{model}.json"
    write_json({"model": model, "reason": reason, "fold_hash": fold.hash}, path)


def load_left_out(fold: Fold) -> dict[str, str]:
    """Why models are not in the leaderboard of this very fold, by model."""
    return {meta["model"]: meta["reason"] for meta in _metas_of(fold, "left_out")}


def load_runs(
    fold: Fold, models: Iterable[str] | None = None
) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """All tables saved for this very fold, by model, and what is known of them.

    Tables of an older cut are left out. models: only these, in this order, as far as they are
    there.
    """
    metas = load_metas(fold)
    if models is not None:
        metas = metas.loc[[model for model in models if model in metas.index]]
    return {model: _table(fold, "runs", model, meta) for model, meta in metas.iterrows()}, metas


def load_outside(fold: Fold) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """Others' lists for this very fold, by name, and what is known of them; both may be empty."""
    metas = _metas_of(fold, "outside")
    runs = {meta["model"]: _table(fold, "outside", meta["model"], meta) for meta in metas}
    return runs, pd.DataFrame(metas, index=list(runs)).drop(columns="model", errors="ignore")


def remove_runs(dataset: str, notebook: str) -> None:
    """Remove the tables that a notebook saved, of all folds: after a failure they are stale."""
    for path in data_dir(dataset, "runs").glob("*/*.json"):
        if read_json(path).get("notebook") == notebook:
            path.unlink()
            path.with_suffix(".parquet").unlink(missing_ok=True)


def failed_notebooks(dataset: str) -> dict[str, str]:
    """The error of each notebook whose last run failed, by the notebook's name."""
    paths = sorted(data_dir(dataset, "failed").glob("*.json"))
    return {path.stem: read_json(path)["error"] for path in paths}


def save_failure(dataset: str, notebook: str, error: str) -> None:
    """Write down that a notebook failed, and take what it saved out of the report; "": it ran."""
    path = data_dir(dataset, "failed", f"{notebook}.json")
    if error:
        remove_runs(dataset, notebook)
        write_json({"error": error}, path)
    else:
        path.unlink(missing_ok=True)


def recorded_models(dataset: str) -> set[str]:
    """Names of the models that were ever recorded for a data set, of any cut."""
    return {path.stem for path in data_dir(dataset, "runs").glob("*/*.json")}


def has_runs(fold: Fold) -> bool:
    """Whether any table was saved for this very fold."""
    return bool(_metas_of(fold, "runs"))


def load_metas(fold: Fold) -> pd.DataFrame:
    """Family, params, seconds and more of the tables saved for this very fold, by model."""
    metas = _metas_of(fold, "runs")
    if not metas:
        raise LabError(
            f"no recommendation tables in {fold.folder('runs')}:"
            f" run ./run_all.sh --dataset {fold.dataset}"
        )
    older = {"seed_spread": {}, "made_by": "", "tries": 1}  # runs of earlier versions have none
    return pd.DataFrame([older | meta for meta in metas]).set_index("model")


def _metas_of(fold: Fold, kind: str) -> list[dict]:
    """The JSON files beside the tables of this very fold; those of an older cut are left out."""
    metas = [read_json(path) for path in sorted(fold.folder(kind).glob("*.json"))]
    return [meta for meta in metas if meta["fold_hash"] == fold.hash]


def seed_spreads(metas: pd.DataFrame, measure: str = "precision@5") -> pd.Series:
    """Standard deviation over seeds by model, on validation; NaN where it was not measured."""
    spreads = [meta.get(measure, np.nan) for meta in metas["seed_spread"]]
    return pd.Series(spreads, metas.index, dtype=float)


def save_study(table: pd.DataFrame, fold: Fold, name: str, note: str = "") -> None:
    """Write a notebook's result for the report: a tidy table, and a note on what it shows.

    The file is `data/<dataset>/studies/<fold>/<name>.parquet`.
    """
    write_table(table, fold, "studies", name, {"study": name, "note": note})


def load_studies(fold: Fold) -> dict[str, tuple[pd.DataFrame, str]]:
    """Every finding of this very fold by name, with its note; empty where no notebook left one."""
    studies = {}
    for meta in _metas_of(fold, "studies"):
        name = meta["study"]
        studies[name] = (_table(fold, "studies", name, meta), meta["note"])
    return studies


def write_table(table: pd.DataFrame, fold: Fold, kind: str, name: str, about: dict) -> None:
    """Write a table of a fold, and beside it what it is and of which cut."""
    folder = fold.folder(kind)
    path = write_parquet(table, folder / f"{name}.parquet")
    stamp = {"fold_hash": fold.hash, "sha256": digest(path)}
    write_json(about | stamp, folder / f"{name}.json")


def _table(fold: Fold, kind: str, name: str, meta: dict | pd.Series) -> pd.DataFrame:
    """A table that `meta` describes; LabError where it is another than was written."""
    path = fold.folder(kind) / f"{name}.parquet"
    if digest(path) != meta["sha256"]:
        raise LabError(f"{path} was changed after it was written: run its notebook again")
    return read_parquet(path)


def _check(recs: pd.DataFrame, fold: Fold, model: str) -> None:
    if missing := [c for c in COLUMNS if c not in recs]:
        raise LabError(
            f"the table of '{model}' lacks the column {missing[0]}: it needs {', '.join(COLUMNS)}"
        )
    if recs["score"].isna().any() or recs.duplicated(["user_id", "item_id"]).any():
        raise LabError(
            f"the table of '{model}' has an empty score or one item twice for a user: recommend()"
            " gives neither"
        )
    if strangers := set(recs["user_id"].unique()) - set(fold.testing.users):
        raise LabError(
            f"the table of '{model}' has users outside the test window, e.g. {min(strangers)}: use"
            " fold.testing.users"
        )
