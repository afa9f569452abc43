"""Other libraries and ours on the same split: `python benchmarks/peers.py online_retail`.

Each library works in an environment of its own, which this script makes (`--envs`), and gets what
our models get: the receipts before the cut. Its models are in `peer_models/with_<library>.py`. Each
has as many tries: the setting with the best precision@5 in the validation window is fitted again on
everything before the test window. Its lists for that window are judged by our judge, once.

Every model runs in a process of its own, with one thread. Results go to `peers.csv`, and lists in
the form that `./run_all.sh --lists` takes to the folder `--lists-to`.
"""

import argparse
import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from recsys_utils import settings

# isort: split
import numpy as np
import pandas as pd
from peer_models.plan import PLAN

from recsys_utils.data.folds import Fold, Stage, load_fold
from recsys_utils.data.outside import read_lists
from recsys_utils.data.registry import spec
from recsys_utils.data.runs import DEPTH
from recsys_utils.evaluation.metrics import per_user
from recsys_utils.evaluation.significance import intervals
from recsys_utils.evaluation.slices import restrict, scopes, warm
from recsys_utils.store import data_dir, digest, read_json, write_json

HERE = Path(__file__).parent
MODELS = HERE / "peer_models"
RESULTS = HERE / "peers.csv"
OURS = "ours"
RECOMMENDED = "two_stage"  # of ours: every lead is against it
HEADLINE = "precision@5"
VALIDATION = "validation precision@5"
LEAD = "precision@5 minus two_stage's, points (95 % interval)"
JUDGED = (("precision", 5), ("recall", 5), ("recall", 10), ("ndcg", 10))
TUNING_DEPTH = 10
MOST_GIB = 8  # of one matrix of items × items
ONE_THREAD = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def main(arguments: list[str] | None = None) -> None:
    """Run what is asked for, write the table and print it."""
    asked = _arguments(arguments)
    for dataset in asked.datasets:
        fold = load_fold(dataset)
        folder = data_dir(spec(dataset).name, "peers", fold.name)
        for name in ("tuning", "testing"):
            write_shop(fold, getattr(fold, name), folder / name)
        rows = []
        for peer in asked.peers or PLAN:
            rows += run_peer(peer, PLAN[peer], fold, folder, asked)
        table = judged(rows, fold)
        write_results(table)
        best = best_of_each(table)
        print(markdown(table), markdown(best), sep="\n\n")
        if asked.lists_to:
            files = hand_over(best[best["peer"] != OURS], asked.lists_to / spec(dataset).name)
            print(f"./run_all.sh --dataset {dataset} {files}")


def write_shop(fold: Fold, stage: Stage, folder: Path) -> None:
    """What a stage's models may see, as `peer_models/shop.py` reads it; never the truth."""
    folder.mkdir(parents=True, exist_ok=True)
    history = stage.history
    text = {"user_id": str, "item_id": str}
    receipts = history.purchases.astype(text)
    receipts.to_parquet(folder / "receipts.parquet", index=False)
    items = fold.items.astype({"item_id": str})
    items = items[items["item_id"].isin(history.item_ids)]
    items.to_parquet(folder / "items.parquet", index=False)
    profiles = fold.users.astype({"user_id": str})
    profiles.to_parquet(folder / "profiles.parquet", index=False)
    users = pd.DataFrame({"user_id": warm_users(stage), "as_of": history.as_of})
    users.to_parquet(folder / "users.parquet", index=False)


def warm_users(stage: Stage) -> list[str]:
    """Shoppers who bought in the window and before it, sorted."""
    return sorted(warm(stage.truth, stage.history)["user_id"].astype(str).unique())


def run_peer(
    peer: str, plan: dict, fold: Fold, folder: Path, asked: argparse.Namespace
) -> list[dict]:
    """A row for each model of a library: what was chosen and what it took, or why it is missing."""
    python, problem = environment(peer, plan["install"], asked.envs)
    rows = []
    for model, grid in plan["models"].items():
        row = {"dataset": spec(fold.dataset).name, "peer": peer, "model": model, "problem": problem}
        row["lines"] = code_lines(MODELS / f"with_{peer}.py", model)
        if model in plan.get("dense", ()):
            row["problem"] = row["problem"] or too_many_pairs(fold)
        if not row["problem"]:
            job = {"peer": peer, "package": plan["package"], "model": model}
            row |= run_model(job, grid, fold, folder, python, asked.minutes)
        rows.append(row)
    return rows


def too_many_pairs(fold: Fold) -> str:
    """Why a model cannot run that holds a number for each pair of items; "" where it can."""
    items = fold.testing.history.shape[1]
    gib = 8 * items**2 / 2**30
    return f"a number for each pair of {items:,} items: {gib:.0f} GiB" if gib > MOST_GIB else ""


def run_model(
    job: dict, grid: list[dict], fold: Fold, folder: Path, python: str, minutes: float
) -> dict:
    """Choose a setting in the validation window, fit it on all before the test window."""
    place = folder / job["peer"] / job["model"]
    best, value = 0, np.nan
    if len(grid) > 1:
        tries = job | {"settings": grid, "k": TUNING_DEPTH, "shop": str(folder / "tuning")}
        answer = run_job(tries, place / "tuning", fold.hash, python, minutes)
        if "problem" in answer:
            return answer
        truth = warm(fold.tuning.truth, fold.tuning.history)
        files = [place / "tuning" / f"{number}.csv" for number in range(len(grid))]
        values = [per_user(read_lists(file), truth, 5)["precision"].mean() for file in files]
        best = int(np.argmax(values))
        value = values[best]
    final = job | {"settings": [grid[best]], "k": DEPTH, "shop": str(folder / "testing")}
    answer = run_job(final, place / "testing", fold.hash, python, minutes)
    if "problem" in answer:
        return answer
    return {
        "version": answer["version"],
        "tries": len(grid),
        "setting": json.dumps(grid[best]),
        VALIDATION: value,
        "seconds": answer["seconds"][0],
        "peak_mib": answer["peak_mib"],
        "lists": str(place / "testing" / "0.csv"),
    }


def run_job(job: dict, folder: Path, fold_hash: str, python: str, minutes: float) -> dict:
    """A process of its own for a job, unless the very same one was done before: its answer."""
    folder.mkdir(parents=True, exist_ok=True)
    job = job | {"code": code_digest(job["peer"]), "fold_hash": fold_hash}
    file = folder / "job.json"
    answer = folder / "answer.json"
    if answer.exists() and read_json(file) == job:
        return read_json(answer)
    answer.unlink(missing_ok=True)
    write_json(job, file)
    print(f"… {job['peer']} {job['model']} {folder.name}", file=sys.stderr, flush=True)
    command = [python, str(MODELS / "run.py"), str(file)]
    env = os.environ | settings() | dict.fromkeys(ONE_THREAD, "1")
    env["PYTHONPATH"] = str(HERE.parent) if job["peer"] == OURS else ""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=env, timeout=60 * minutes
        )
    except subprocess.TimeoutExpired:
        return {"problem": f"not done in {minutes:g} minutes"}
    (folder / "log.txt").write_text(done.stdout + done.stderr)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        return {"problem": said[-1] if said else f"ended with code {done.returncode}"}
    return read_json(answer)


def code_digest(peer: str) -> str:
    """Of all code of this repository that a job runs."""
    files = [MODELS / name for name in ("run.py", "shop.py", f"with_{peer}.py")]
    if peer == OURS:
        files += sorted((HERE.parent / "recsys_utils").rglob("*.py"))
    return digest(*files)


def environment(peer: str, install: list[str], envs: Path) -> tuple[str, str]:
    """The Python of a library's own environment, made where it is missing, and what went wrong."""
    if not install:
        return sys.executable, ""
    folder = envs / peer
    python = str(folder / "bin" / "python")
    made = folder / "installed.json"
    if made.exists() and read_json(made) == {"install": install}:
        return python, ""
    print(f"… an environment for {peer}: {' '.join(install)}", file=sys.stderr, flush=True)
    steps = (
        [sys.executable, "-m", "venv", str(folder)],
        [python, "-m", "pip", "install", "--quiet", *install],
    )
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True)
        if done.returncode:
            return python, f"cannot be installed: {done.stderr.strip().splitlines()[-1]}"
    write_json({"install": install}, made)
    return python, ""


def judged(rows: list[dict], fold: Fold) -> pd.DataFrame:
    """The rows with quality in the test window, and each model's lead over our recommendation.

    The lead is in precision@5 on any purchase, over the same shoppers, with its 95 % interval.
    """
    values = {}
    for number, row in enumerate(rows):
        if "lists" in row:
            values[number] = quality(read_lists(Path(row["lists"])), fold.testing)
    table = pd.DataFrame(rows)
    for number, frame in values.items():
        table.loc[number, frame.columns] = frame.mean().to_numpy()
        table.loc[number, "shoppers"] = len(frame)
    ours = table.index[(table["peer"] == OURS) & (table["model"] == RECOMMENDED)]
    if not len(ours) or ours[0] not in values:
        return table
    base = values[ours[0]][HEADLINE]
    leads = np.column_stack([frame[HEADLINE] - base for frame in values.values()])
    for number, lead in zip(values, intervals(leads)):
        table.loc[number, ["lead", "lead lo", "lead hi"]] = [lead.value, lead.low, lead.high]
    return table


def quality(lists: pd.DataFrame, stage: Stage) -> pd.DataFrame:
    """Warm shoppers × metrics, on any purchase and on items new to the shopper ("new …").

    A shopper without a list counts 0; one who bought nothing new is missing under "new".
    """
    truths = scopes(warm(stage.truth, stage.history), stage.history)
    columns = {}
    for scope, head in (("any", ""), ("new", "new ")):
        if scope not in truths:
            continue
        recs = restrict(lists, scope, stage.history)
        for metric, k in JUDGED:
            columns[f"{head}{metric}@{k}"] = per_user(recs, truths[scope], k)[metric]
    return pd.DataFrame(columns)


def code_lines(path: Path, function: str) -> int:
    """Lines of a file that a function needs: itself, its helpers, their imports; no docstrings."""
    nodes = ast.parse(path.read_text()).body
    bound = {name: node for node in nodes for name in _bound(node)}
    needed, todo = set(), [function]
    while todo:
        node = bound.get(todo.pop())
        if node is None or node in needed:
            continue
        needed.add(node)
        todo += [part.id for part in ast.walk(node) if isinstance(part, ast.Name)]
    return sum(ast.unparse(_without_docstring(node)).count("\n") + 1 for node in needed)


def _bound(node: ast.stmt) -> list[str]:
    """The names that a statement of a module makes."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [(alias.asname or alias.name).split(".")[0] for alias in node.names]
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    return []


def _without_docstring(node: ast.stmt) -> ast.stmt:
    if isinstance(node, ast.FunctionDef) and ast.get_docstring(node):
        node.body = node.body[1:]
    return node


def write_results(table: pd.DataFrame) -> None:
    """Put the rows into `peers.csv`, in the place of older ones of the same data set and model."""
    keys = ["dataset", "peer", "model"]
    table = table.drop(columns="lists", errors="ignore")
    if RESULTS.exists():
        table = pd.concat([pd.read_csv(RESULTS), table]).drop_duplicates(keys, keep="last")
    table.round(6).to_csv(RESULTS, index=False)


def markdown(table: pd.DataFrame) -> str:
    """The table of `benchmarks/README.md`, best first; what is missing comes last, with why."""
    heads = ("model", HEADLINE, "recall@10", "nDCG@10", "new items: precision@5", LEAD)
    lines = [f"| {' | '.join(heads)} | s | MiB | lines |", f"|{'---|' * 9}"]
    if HEADLINE in table:
        table = table.sort_values(HEADLINE, ascending=False, na_position="last")
    for row in table.to_dict("records"):
        name = f"**{row['model']}**" if row["peer"] == OURS else f"{row['model']} ({row['peer']})"
        if row["problem"]:
            lines.append(f"| {name} | left out: {row['problem']} |{' |' * 7}")
            continue
        shares = [row[column] for column in (HEADLINE, "recall@10", "ndcg@10", "new precision@5")]
        cells = [name, *map(_short, shares), _points(row), f"{row['seconds']:.3g}"]
        cells += [f"{row['peak_mib']:,.0f}", str(row["lines"])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _short(share: float) -> str:
    return f"{share:.3f}".lstrip("0")


def _points(row: dict) -> str:
    """A lead over our recommendation in points; a dash for the recommendation itself."""
    if np.isnan(row.get("lead", np.nan)) or (row["peer"], row["model"]) == (OURS, RECOMMENDED):
        return "–"
    low, high = 100 * row["lead lo"], 100 * row["lead hi"]
    return f"{100 * row['lead']:+.1f} ({low:+.1f} to {high:+.1f})"


def best_of_each(table: pd.DataFrame) -> pd.DataFrame:
    """Our recommendation, and each library's model with the best validation precision@5."""
    ran = table[table["problem"] == ""]
    is_ours = (ran["peer"] == OURS) & (ran["model"] == RECOMMENDED)
    others = ran[~is_ours].sort_values(VALIDATION, ascending=False, kind="stable")
    return pd.concat([ran[is_ours], others.drop_duplicates("peer")])


def hand_over(best: pd.DataFrame, folder: Path) -> str:
    """Copy lists to where they are wanted; the arguments by which `./run_all.sh` takes them."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for row in best.itertuples():
        files.append(shutil.copy(row.lists, folder / f"{row.peer}_{row.model}.csv"))
    return " ".join(f"--lists {file}" for file in files)


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("datasets", nargs="+", help="data sets that ./run_all.sh has cut")
    parser.add_argument("--peers", nargs="*", help="only these libraries")
    parser.add_argument("--envs", type=Path, default=data_dir("environments"))
    parser.add_argument("--minutes", type=float, default=20, help="of one process")
    parser.add_argument("--lists-to", type=Path, help="where example lists for --lists go")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
