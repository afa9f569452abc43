"""Seconds and peak memory of every step: `python benchmarks/run.py [dataset …]`.

Writes a table and a picture. Each step runs in a process of its own, so its peak memory is its own.
Ratios to implicit's top-k and to ranx are taken in one process, in turn, so that they hold on a
noisy machine.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from recsys_utils import settings

# isort: split
import pandas as pd

HERE = Path(__file__).parent
MODELS = (
    "Popular()",
    "OwnPurchases()",
    "ItemCF()",
    "CoPurchase()",
    "ALS()",
    "EASE()",
    "BPR()",
    "LightFM()",
    "TIFUKNN()",
    "UPCF()",
    "PreferencePairs()",
    "TwoTower()",
    "TwoStage()",
    "Hybrid()",
)
STEPS = ("load", "split", "prefilter", *MODELS, "judge", "report")
RATIOS = ("top-k", "top-k filtered", "metrics")


def main(datasets: list[str]) -> None:
    """Measure every step of every data set and every ratio; write results.csv and results.png."""
    # Tables and runs of a measurement stay out of the reader's leaderboard.
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RECSYS_HOME"] = folder
        rows = [_child(step, dataset) for dataset in datasets for step in STEPS]
        rows += [_child(name, "") for name in RATIOS]
    table = pd.DataFrame(rows)
    (HERE / "results").mkdir(exist_ok=True)
    table.to_csv(HERE / "results" / "results.csv", index=False)
    _picture(table[table["dataset"] != ""], HERE / "results" / "results.png")
    print(table.to_string(index=False))


def step(name: str, dataset: str) -> dict:
    """One measured step, in this process."""
    from recsys_utils.data import folds, runs, tables
    from recsys_utils.data.prefilter import prefilter
    from recsys_utils.evaluation import leaderboard
    from recsys_utils.report import page

    if name == "load":
        return _timed(lambda: tables.load(dataset))
    if name == "split":
        return _timed(lambda: folds.write_folds(dataset))
    fold = folds.load_fold(dataset)
    stage = fold.testing
    if name == "prefilter":
        return _timed(lambda: prefilter(stage.history.purchases, fold.items))
    if name == "report":
        return _timed(lambda: page.write_report(dataset))
    if name == "judge":
        return _timed(lambda: leaderboard.leaderboard(*runs.load_runs(fold), fold))
    return _model(name, stage, fold)


def _model(name: str, stage: object, fold: object) -> dict:
    """Fit, then the top 10 for all users of the history."""
    from lab.record import record

    from recsys_utils import models
    from recsys_utils.ensembles import hybrid, two_stage

    # The name is one of MODELS above.
    model = eval(name, vars(models) | vars(two_stage) | vars(hybrid))  # noqa: S307
    fit = _timed(lambda: model.fit(stage.history))
    top = _timed(lambda: model.recommend(stage.history.user_ids, 10))
    record(model, fold, type(model).__name__.lower())
    return fit | {"top-k seconds": top["seconds"], "users": len(stage.history.user_ids)}


def ratio(name: str) -> dict:
    """The library's seconds per ours, the median of three turns: above 1, ours is faster."""
    sys.path.insert(0, str(HERE))
    import ratios

    return ratios.measure(name)


def _timed(work: object) -> dict:
    start = time.perf_counter()
    work()
    return {"seconds": round(time.perf_counter() - start, 3)}


def _child(name: str, dataset: str) -> dict:
    """Run one step in a fresh process and read its one line of JSON."""
    print(f"… {dataset} {name}", file=sys.stderr, flush=True)
    result = subprocess.run(
        [sys.executable, __file__, "--step", name, dataset],
        capture_output=True,
        text=True,
        env=os.environ | settings(),
    )
    if result.returncode:
        raise SystemExit(f"{name} on '{dataset}' failed: {result.stderr.strip().splitlines()[-1]}")
    return {"dataset": dataset, "step": name, **json.loads(result.stdout.splitlines()[-1])}


def _picture(table: pd.DataFrame, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, 2, figsize=(10, 0.45 * table["step"].nunique() + 1.2), sharey=True
    )
    for ax, column, label in zip(
        axes, ("seconds", "peak_mib"), ("seconds (fit, where a model)", "peak memory, MiB")
    ):
        table.pivot(index="step", columns="dataset", values=column).reindex(STEPS[::-1]).plot.barh(
            ax=ax, width=0.8, legend=ax is axes[1]
        )
        ax.set(xlabel=label, ylabel="", xscale="log" if column == "seconds" else "linear")
        ax.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--step"]:
        _, _, name, dataset = sys.argv
        result = step(name, dataset) if dataset else ratio(name)
        result["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(json.dumps(result))
    else:
        main(sys.argv[1:] or ["synthetic"])
