"""What every step costs as a shop grows: `python benchmarks/scale.py [million lines …]`.

Synthetic shops of 1 and 4 million lines, or of the sizes that are given. Each step runs in a
process of its own, so that its peak memory is its own, and leaves its result in
`benchmarks/results/scale`: started again, the same command goes on from there, and `--again`
forgets everything. At the end it writes `scale.csv` and `scale.png` beside this file: seconds of
the processor, peak memory, and the exponent of the seconds with its 95 % interval. An exponent of 1
means twice the seconds for twice the lines.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from recsys_utils import settings

# isort: split
import numpy as np
import pandas as pd
from scipy import stats

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "scale"
MODELS = ("OwnPurchases", "ItemCF", "CoPurchase", "ALS", "EASE", "TIFUKNN", "UPCF", "TwoStage")
GENERATE = "generate and write"
STEPS = (
    GENERATE,
    "read tables",
    "split",
    "load a fold",
    "number shoppers and items",
    "prefilter with its audit",
    "aggregates",
    "features of 8,000 shoppers",
    *MODELS,
    "judge one model",
)
# A step is measured so often in its process, unless it has taken so many seconds already.
TURNS = 3
ENOUGH = 30
SHOPPERS = 8_000  # whose features are made: a block of the two-stage model
TOML = """title = "Synthetic shop of {size:g} million lines"
licence = "MIT"
get = "nothing to get: it is generated from the seed"
synthetic = true
currency = "€"
lines = {lines}
"""
Work = Callable[[], object]


def main(sizes: list[float], again: bool) -> None:
    """Measure what is not measured yet; write the table and the picture."""
    if again:
        shutil.rmtree(RESULTS, ignore_errors=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    rows = []
    for size in sizes:
        shop = RESULTS / f"shop_{size:g}m.toml"
        shop.write_text(TOML.format(size=size, lines=round(size * 1e6)))
        rows += [_result(step, shop, size) for step in STEPS]
    table = summary(rows)
    table.to_csv(HERE / "scale.csv", float_format="%.3g")
    _picture(rows, HERE / "scale.png")
    print(table.round(2).to_string())


def summary(rows: list[dict]) -> pd.DataFrame:
    """A line for each step: median seconds and peak memory by size, and how the seconds grow.

    rows: step, million lines, seconds of each turn, peak_mib; `refused` where memory was short.
    The exponent is the slope of log seconds over log lines, by least squares over all turns; its
    interval is Student's.
    """
    table = {}
    for step in dict.fromkeys(row["step"] for row in rows):
        every = [row for row in rows if row["step"] == step]
        mine = [row for row in every if "refused" not in row]
        line = {}
        for row in mine:
            line[f"seconds, {row['size']:g} M"] = float(np.median(row["seconds"]))
        for row in mine:
            line[f"peak GiB, {row['size']:g} M"] = row["peak_mib"] / 1024
        turns = [(row["size"], seconds) for row in mine for seconds in row["seconds"]]
        size, seconds = np.log(turns).T if turns else np.empty((2, 0))
        if len(np.unique(size)) > 1 and len(size) > 2:
            fitted = stats.linregress(size, seconds)
            half = stats.t.ppf(0.975, len(size) - 2) * fitted.stderr
            line |= {"exponent": fitted.slope}
            line |= {"low": fitted.slope - half, "high": fitted.slope + half}
        refused = [f"{row['size']:g} M" for row in every if "refused" in row]
        table[step] = line | {"left out at": ", ".join(refused)}
    return pd.DataFrame.from_dict(table, orient="index").rename_axis("step")


def measured(step: str, dataset: str) -> dict:
    """One step, in this process: seconds of the processor of each turn, and the peak memory.

    What other steps made is read first, and not counted in the seconds.
    """
    from recsys_utils.models.costs import TooLarge

    work = _prepared(step, dataset)
    seconds = []
    start = time.perf_counter()
    while len(seconds) < (1 if step == GENERATE else TURNS):
        began = time.process_time()
        try:
            work()
        except TooLarge as error:
            return {"refused": str(error)}
        seconds.append(time.process_time() - began)
        if time.perf_counter() - start > ENOUGH:
            break
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024  # Linux: KiB
    return {"seconds": seconds, "peak_mib": peak}


def _prepared(step: str, dataset: str) -> Work:
    """A step as a function without arguments."""
    from recsys_utils import models
    from recsys_utils.data import folds, tables
    from recsys_utils.data.prefilter import prefilter
    from recsys_utils.ensembles.features import aggregates
    from recsys_utils.ensembles.two_stage import TwoStage

    if step in (GENERATE, "read tables"):
        return lambda: tables.load(dataset)
    if step == "split":
        return lambda: folds.write_folds(dataset)
    if step == "load a fold":
        return lambda: folds.load_fold(dataset)
    fold = folds.load_fold(dataset)
    if step == "number shoppers and items":
        return lambda: replace(fold).testing
    history = fold.testing.history
    if step == "prefilter with its audit":
        return lambda: prefilter(history.purchases, fold.items)
    if step == "aggregates":
        return lambda: aggregates(history)
    if step.startswith("features"):
        return _features(history)
    if step == "judge one model":
        return _judge(fold)
    model = TwoStage() if step == "TwoStage" else getattr(models, step)()
    users = _known_users(fold)
    return lambda: model.fit(history).recommend(users, 10)


def _features(history: object) -> Work:
    """Features of the candidates of a block of shoppers, their aggregates at hand."""
    from recsys_utils.ensembles.candidates import together
    from recsys_utils.ensembles.features import aggregates, build
    from recsys_utils.models import OwnPurchases, Popular

    generators = {"own": OwnPurchases().fit(history), "popular": Popular().fit(history)}
    users = np.arange(min(SHOPPERS, history.shape[0]))
    pairs = together(generators, users, {"own": 1, "popular": 1}, 100)
    known = aggregates(history)
    return lambda: build(pairs, history, known=known)


def _judge(fold: object) -> Work:
    """All metrics, scopes and intervals of one model's lists."""
    from recsys_utils.evaluation.leaderboard import leaderboard
    from recsys_utils.models import OwnPurchases

    model = OwnPurchases().fit(fold.testing.history)
    runs = {"own": model.recommend(_known_users(fold), 200)}
    about = {"family": model.family, "fit_seconds": 0.0, "recommend_seconds": 0.0, "tries": 1}
    return lambda: leaderboard(runs, pd.DataFrame([about], index=["own"]), fold)


def _known_users(fold: object) -> pd.Index:
    """Shoppers of the test window who bought before."""
    users = fold.testing.users
    return users[users.isin(fold.testing.history.user_ids)]


def _result(step: str, shop: Path, size: float) -> dict:
    """A step's result: as it was written down, or measured in a fresh process."""
    kept = RESULTS / "steps" / shop.stem / f"{step.replace(' ', '_').replace(',', '')}.json"
    if not kept.exists():
        print(f"… {size:g} million lines: {step}", file=sys.stderr, flush=True)
        done = subprocess.run(
            [sys.executable, __file__, "--step", step, str(shop)],
            capture_output=True,
            text=True,
            env=os.environ | settings() | {"RECSYS_HOME": str(RESULTS)},
        )
        if done.returncode:
            told = (done.stderr.strip().splitlines() or [f"signal {-done.returncode}"])[-1]
            raise SystemExit(f"{step} of {size:g} million lines failed: {told}")
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(".part")
        part.write_text(done.stdout.splitlines()[-1])
        part.replace(kept)
    return {"step": step, "size": size, **json.loads(kept.read_text())}


def _picture(rows: list[dict], path: Path) -> None:
    """Seconds and peak memory over lines, both logarithmic; the dashed line is twice for twice."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = ("load a fold", "aggregates", "ItemCF", "ALS", "TIFUKNN", "judge one model")
    figure, axes = plt.subplots(1, 2, figsize=(8.5, 3.4))
    for step in shown:
        mine = [row for row in rows if row["step"] == step and "refused" not in row]
        size = [row["size"] for row in mine]
        axes[0].plot(size, [np.median(row["seconds"]) for row in mine], "o-", label=step)
        axes[1].plot(size, [row["peak_mib"] / 1024 for row in mine], "o-")
    ends = np.array(sorted({row["size"] for row in rows}))
    axes[0].plot(ends, ends, "--", color="grey", label="1 s a million lines")
    axes[0].set_ylabel("seconds of the processor")
    axes[1].set_ylabel("peak memory, GiB")
    for ax in axes:
        ax.set(xscale="log", yscale="log", xlabel="million lines")
        ax.set_xticks(ends, [f"{each:g}" for each in ends])
        ax.minorticks_off()
        ax.spines[["top", "right"]].set_visible(False)
    axes[1].set_yticks([0.5, 1, 2, 4, 8], ["0.5", "1", "2", "4", "8"])
    figure.legend(loc="outside right center", fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0, 0.8, 1))
    figure.savefig(path, dpi=80)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sizes", nargs="*", type=float, default=[1, 4], metavar="MILLION_LINES")
    parser.add_argument("--again", action="store_true", help="forget what was measured")
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    options = _options()
    if options.step:
        print(json.dumps(measured(*options.step)))
    else:
        main(sorted(options.sizes), options.again)
