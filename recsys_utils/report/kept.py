"""Runs that are kept: a small folder each, so that two of them can be compared later.

`reports/<dataset>/runs/<when>-<hash>/` holds the leaderboard, each shopper's values of the metrics
at 5, and a manifest of parameters, fold, versions, choice and seconds. When is UTC; the hash is of
what the run found and by what, so an identical run is not kept twice.
"""

import hashlib
import io
import json
import os
import shutil
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import pandas as pd

from recsys_utils import LabError
from recsys_utils.data.registry import Spec, spec
from recsys_utils.evaluation.leaderboard import best_first
from recsys_utils.evaluation.metrics import per_user
from recsys_utils.evaluation.slices import warm
from recsys_utils.report.compared import todays_list
from recsys_utils.report.judged import Judged
from recsys_utils.store import (
    MANIFEST,
    library_versions,
    load_bundle,
    read_manifest,
    report_dir,
    save_bundle,
)

KIND = "kept run"
CURE = "remove this folder, or run ./run_all.sh"
BOARD = "leaderboard.csv"
VALUES = "values.parquet"
K = 5
METRICS = ("precision", "recall", "ndcg", "revenue_share")
LIMIT = 20  # runs that are kept of a data set
MOST_ROWS = 2_000_000  # of the values: beyond, only the models that matter
SECONDS = ["fit_seconds", "recommend_seconds"]
# What a shop's TOML says of the judgement; where its files lie is nobody's business.
SETTINGS = ("protocol", "test_weeks", "valid_weeks", "repeats", "prefilter", "worth", "guardrails")


@dataclass
class KeptRun:
    """One kept run. table: model, user_id and METRICS at 5 of warm shoppers, as far as there."""

    folder: Path
    about: dict
    board: pd.DataFrame
    table: pd.DataFrame

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def choice(self) -> str | None:
        """The model that was chosen on validation."""
        return self.about["choice"] and self.about["choice"]["model"]

    @property
    def metrics(self) -> list[str]:
        """Those that this shop has: no revenue without prices."""
        return [name for name in METRICS if name in self.table]

    @cached_property
    def values(self) -> dict[str, pd.DataFrame]:
        """By metric: shoppers × models. Six decimals: 0.2 is 0.2 again, not what float32 holds."""
        table = self.table.astype({"model": str, "user_id": str})
        wide = table.pivot(index="user_id", columns="model", values=self.metrics)
        wide = wide.astype(float).round(6)
        return {name: wide[name] for name in self.metrics}


def runs_dir(dataset: str) -> Path:
    """Where a data set's runs are kept; dataset: its short name."""
    return report_dir(dataset) / "runs"


def kept_runs(dataset: str) -> tuple[list[Path], list[Path]]:
    """Folders of whole runs, oldest first, and those that are not whole."""
    whole, broken = [], []
    for folder in sorted(runs_dir(dataset).glob("*/")):
        try:
            about = read_manifest(folder / MANIFEST, KIND, CURE)
            files = [folder / name for name in about["sha256"]]
            is_whole = folder.name[0] != "." and all(file.is_file() for file in files)
        except LabError:
            is_whole = False
        (whole if is_whole else broken).append(folder)
    return whole, broken


def find_report(dataset: str, report: str) -> Path | None:
    """The kept run whose report had these inputs, as `keep` was told them; None without one."""
    for folder in kept_runs(dataset)[0]:
        if read_manifest(folder / MANIFEST, KIND, CURE)["report"] == report:
            return folder
    return None


def load_kept(folder: Path) -> KeptRun:
    """A kept run. Raises LabError, naming the file, where one is missing or was changed."""
    parts, about = load_bundle(folder, KIND, CURE)
    return KeptRun(folder, about, pd.read_csv(io.BytesIO(parts[BOARD])), parts[VALUES])


def find_run(dataset: str, text: str) -> KeptRun:
    """A run by its folder's name, the beginning of it, its path, `latest` or `previous`.

    dataset: the short name. Raises LabError that lists what there is, if not one run fits.
    """
    if (Path(text) / MANIFEST).is_file():
        return load_kept(Path(text))
    folders, _ = kept_runs(dataset)
    places = {"latest": -1, "previous": -2}
    if text in places:
        fitting = folders[places[text] :][:1] if len(folders) >= -places[text] else []
    else:
        fitting = [folder for folder in folders if folder.name == text]
        fitting = fitting or [folder for folder in folders if folder.name.startswith(text)]
    if len(fitting) != 1:
        fit = "fits several runs" if fitting else "is no kept run"
        there = ", ".join(folder.name for folder in fitting or folders)
        raise LabError(
            f"'{text}' {fit} of '{dataset}': take latest, previous or one of"
            f" {there or 'none yet, a whole run keeps the first'}"
        )
    return load_kept(fitting[0])


def keep(
    judged: Judged,
    about: dict,
    needed: tuple[str, ...] = (),
    limit: int = LIMIT,
    spared: Path | None = None,
) -> tuple[Path, bool]:
    """Keep the run whose report was written last; its folder, and whether it is a new one.

    about: `parameters` and `seconds` by notebook, `commit`, and `report`, the hash of the report's
        inputs. needed: models whose values must be kept. limit: runs to keep; the oldest are
        removed, never the one that is `spared`.
    """
    described = spec(judged.fold.dataset)
    folder = runs_dir(described.name)
    parts, found = _parts(judged, described, needed)
    content = _hash(parts, found | {"parameters": about["parameters"]})
    whole, _ = kept_runs(described.name)
    for path in whole:
        if path.name.endswith(f"-{content}"):
            remove_oldest(whole, limit, {path, spared})
            return path, False
    path = folder / f"{datetime.now(UTC):%Y-%m-%dT%H%M%S}-{content}"
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    cut = judged.fold.borders.get("test")
    try:
        save_bundle(temporary, KIND, parts, about | found, cut, fixed_names=True)
        os.replace(temporary, path)
        remove_oldest([*whole, path], limit, {path, spared})
    except OSError as error:
        raise LabError(
            f"{folder}: {error.strerror}: the report is written, but the run was not kept"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return path, True


def _parts(judged: Judged, described: Spec, needed: tuple[str, ...]) -> tuple[dict, dict]:
    """The files of a run, and what its manifest says of them."""
    text = (report_dir(described.name) / BOARD).read_text()
    board = pd.read_csv(io.StringIO(text))
    choice = judged.choice
    first = [choice.model] if choice else []
    first += [*needed, todays_list(board, described.worth.incumbent)]
    order = [model for model in [*first, *best_first(board)["model"]] if model in judged.runs]
    fold = judged.fold
    found = {
        "dataset": described.name,
        "settings": described.model_dump(mode="json", include=set(SETTINGS)),
        "fold": {"name": fold.name, "hash": fold.hash, "borders": fold.borders},
        "models": {model: dict(meta) for model, meta in judged.metas["params"].items()},
        "choice": asdict(choice) if choice else None,
    }
    return {BOARD: text, VALUES: _values(judged, list(dict.fromkeys(order)))}, found


def _values(judged: Judged, order: list[str]) -> pd.DataFrame:
    """Metrics at 5 of every warm shopper, of as many models as fit, the first of the order."""
    stage = judged.fold.testing
    truth = warm(stage.truth, stage.history)
    most = max(2, MOST_ROWS // max(1, truth["user_id"].nunique()))
    frames = []
    for model in order[:most]:
        values = per_user(judged.runs[model], truth, K)
        values = values[[name for name in METRICS if name in values]].astype("float32")
        frames.append(values.rename_axis("user_id").reset_index().assign(model=model))
    table = pd.concat(frames, ignore_index=True)
    return table.astype({"model": "category", "user_id": str}).astype({"user_id": "category"})


def _hash(parts: dict, about: dict) -> str:
    """Eight hexadecimal digits of what a run found and of how it was made.

    Seconds, dates and the code's commit are left out. So are the receipts' files: the fold's own
    hash stands for them.
    """
    board = pd.read_csv(io.StringIO(parts[BOARD])).drop(columns=SECONDS)
    total = hashlib.sha256()
    for table in (board, parts[VALUES].astype({"model": str, "user_id": str})):
        total.update(pd.util.hash_pandas_object(table, index=False).to_numpy().tobytes())
    known = about | {"libraries": library_versions()}
    total.update(json.dumps(known, sort_keys=True, default=str).encode())
    return total.hexdigest()[:8]


def remove_oldest(folders: list[Path], limit: int, spared: set[Path | None]) -> None:
    """Remove runs beyond the limit, the first of the list, and the pages that compare them.

    Each is first renamed, so that nobody reads half a run.
    """
    removable = [folder for folder in folders if folder not in spared]
    for folder in removable[: max(0, len(folders) - limit)]:
        hidden = folder.with_name(f".{folder.name}.removed.tmp")
        os.replace(folder, hidden)
        shutil.rmtree(hidden)
        for page in folder.parent.glob(f"*{folder.name}*.html"):
            page.unlink()
