"""A shop whose runs are made of lists with known hits, kept one after the other."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path

import pandas as pd
from published import write_toml

from recsys_utils.data import folds, runs
from recsys_utils.data.folds import Stage
from recsys_utils.report import kept
from recsys_utils.report.judged import judge_fold
from recsys_utils.report.kept import KeptRun, load_kept
from recsys_utils.store import report_dir

SHOPPERS = 40
DAYS = count(1)


class Clock(datetime):
    """Each run a day after the one before."""

    @classmethod
    def now(cls, tz: object = None) -> datetime:
        return datetime(2026, 1, 1) + timedelta(days=next(DAYS))


def write_shop(home: Path, name: str, weeks: int = 20, first: int = 0) -> Path:
    """Every shopper buys one product a week, each week another one; the TOML's path."""
    rows = []
    for week in range(weeks):
        day = pd.Timestamp("2025-01-01") + pd.Timedelta(weeks=week)
        for n in range(first, first + SHOPPERS):
            rows.append({"who": f"u{n:03d}", "what": f"i{(n + week) % 30}", "when": day})
    columns = 'ts = "when"'
    return write_toml(home, name, pd.DataFrame(rows), 'title = "Kept"', columns)


def lists(stage: Stage, served: int) -> pd.DataFrame:
    """One item for each shopper, bought in the window by the first so many: 1 hit of 5."""
    bought = stage.truth.astype({"user_id": str, "item_id": str}).drop_duplicates("user_id")
    bought = bought.sort_values("user_id")[["user_id", "item_id"]].reset_index(drop=True)
    bought.loc[served:, "item_id"] = "missed"
    return bought.assign(score=1.0, rank=1)


@dataclass
class KeptShop:
    """Runs of a shop. hits: by model, shoppers with a hit on validation and on the test."""

    toml: Path
    cut: int = 0  # time of the receipts that were cut into folds

    def run(
        self,
        hits: dict[str, tuple[int, int]],
        fast: bool = False,
        report: str = "",
        **options: object,
    ) -> KeptRun:
        """Record these models only, write the leaderboard, and keep the run."""
        receipts = self.toml.with_suffix(".csv").stat().st_mtime_ns
        if self.cut != receipts:
            folds.write_folds(str(self.toml))
            self.cut = receipts
        fold = folds.load_fold(str(self.toml))
        for kind in ("runs", "validation"):
            for path in fold.folder(kind).glob("*"):
                path.unlink()
        for model, (on_validation, on_test) in hits.items():
            runs.save_run(lists(fold.testing, on_test), fold, model, "repeat", {}, 0.5, 0.1)
            runs.save_validation(lists(fold.tuning, on_validation), fold, model)
        judged = judge_fold(fold)
        folder = report_dir(self.toml.stem)
        folder.mkdir(parents=True, exist_ok=True)
        judged.board.to_csv(folder / kept.BOARD, index=False, float_format="%.6g")
        about = {
            "parameters": {"03": {"FAST": fast, "K": 5}},
            "seconds": {"03": 1.5},
            "commit": "abc",
            "report": report,
        }
        return load_kept(kept.keep(judged, about, **options)[0])
