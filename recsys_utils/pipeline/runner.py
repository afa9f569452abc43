"""What `./run_all.sh` calls: notebooks in order of need, only where something changed, then HTML."""

import argparse
import ast
import hashlib
import json
import os
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

from recsys_utils import LabError
from recsys_utils.data import engine, registry, tables
from recsys_utils.pipeline.imports import imported_files
from recsys_utils.store import ROOT, atomic, data_dir, digest, read_json, report_dir, write_json

NOTEBOOKS = ROOT / "notebooks"
TEMPLATES = ROOT / "recsys_utils" / "report" / "templates"
COMMON = ("DATASET", "FAST", "SEED")
COMPARISON = 13  # the first notebook that reads what the models' notebooks wrote


@dataclass
class Task:
    """One notebook of one run, and what its result depends on."""

    path: Path
    needs: list[str]
    params: dict
    dataset: str

    @property
    def state(self) -> Path:
        """Written last: its presence means that everything else is."""
        return data_dir(self.dataset, "state", f"{self.path.stem}.json")

    @property
    def html(self) -> Path:
        """The page that a person reads."""
        return report_dir(self.dataset) / f"{self.path.stem}.html"


def main(arguments: list[str] | None = None) -> int:
    """Parse, plan, run; the exit code."""
    options = _parse(arguments)
    try:
        _environment(options.engine)
        return run(plan(options), options.jobs, options.save_outputs)
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def plan(options: argparse.Namespace) -> list[Task]:
    """The chosen notebooks with checked parameters."""
    dataset = (
        str(Path(options.dataset).resolve())
        if options.dataset.endswith(".toml")
        else options.dataset
    )
    made = registry.spec(dataset)
    tables.fingerprint(made)  # a missing raw file is said now, not in a notebook
    engine.connect()
    every = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    chosen = [p for p in every if _chosen(p.stem[:2], options)]
    numbers = {p.stem[:2] for p in every}
    if not chosen or (
        options.only and {w.strip().zfill(2) for w in options.only.split(",")} - numbers
    ):
        raise LabError(
            f"no notebook fits --only/--from: there are {', '.join(p.stem[:2] for p in every)}"
        )
    known = {p: parameters(p) for p in chosen}
    asked = {"DATASET": dataset, "FAST": options.fast, "SEED": options.seed} | _overrides(
        options.p, known
    )
    defaults = {"DATASET": "synthetic", "FAST": False, "SEED": 42}
    changed = {k: v for k, v in asked.items() if v != defaults.get(k)}
    return [
        Task(p, _needs(p, every), {k: v for k, v in changed.items() if k in known[p]}, made.name)
        for p in chosen
    ]


def parameters(notebook: Path) -> dict[str, object]:
    """Names and default values of a notebook's tagged `parameters` cell."""
    cells = json.loads(notebook.read_text())["cells"]
    tagged = ["".join(c["source"]) for c in cells if "parameters" in c["metadata"].get("tags", [])]
    return {
        line.targets[0].id: ast.literal_eval(line.value)
        for line in ast.parse("\n".join(tagged)).body
    }


def run(tasks: list[Task], jobs: int, save_outputs: bool = False) -> int:
    """Run what is out of date, each after what it needs; print a line per notebook; 1 if any failed."""
    by_name = {t.path.stem: t for t in tasks}
    order = TopologicalSorter(
        {name: [n for n in t.needs if n in by_name] for name, t in by_name.items()}
    )
    order.prepare()
    started, failed, running = time.perf_counter(), set(), {}
    with ThreadPoolExecutor(jobs) as pool:
        while order.is_active():
            for name in sorted(order.get_ready()):
                running[pool.submit(_step, by_name[name], failed, save_outputs)] = name
            for future in _finished(running):
                name = running.pop(future)
                failed |= set() if future.result() else {name}
                order.done(name)
    index = report_dir(tasks[0].dataset) / "index.html"
    print(
        f"{'FAILED: ' + ', '.join(sorted(failed)) if failed else 'done'} in {time.perf_counter() - started:.1f} s"
        + (f"; read {_short(index)}" if index.exists() else "")
    )
    return 1 if failed else 0


def inputs(task: Task) -> str:
    """Hash of everything a notebook's result depends on: its cells, our code that it imports, parameters, earlier states."""
    cells = [c["source"] for c in json.loads(task.path.read_text())["cells"]]
    files = imported_files(_code(task.path)) | set(TEMPLATES.glob("**/*.*"))
    code = {str(path): path.read_text() for path in sorted(files)}
    before = {
        n: read_json(s)["inputs"]
        for n in task.needs
        if (s := task.state.with_name(f"{n}.json")).exists()
    }
    raw = (
        tables.fingerprint(registry.spec(task.params.get("DATASET", "synthetic")))
        if not task.needs
        else None
    )
    everything = [cells, code, task.params, before, raw, os.environ.get("RECSYS_ENGINE")]
    return hashlib.sha256(json.dumps(everything, sort_keys=True, default=str).encode()).hexdigest()


def _environment(chosen: str) -> None:
    """What kernels inherit: they work in notebooks/, so paths become absolute; progress bars would be kept as outputs."""
    os.environ.update(RECSYS_ENGINE=chosen, TQDM_DISABLE="1")
    os.environ.update(
        {
            name: os.path.abspath(os.environ[name])
            for name in ("RECSYS_DATA", "RECSYS_HOME")
            if os.environ.get(name)
        }
    )


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "./run_all.sh",
        description="Run the notebooks on a data set and write reports/<dataset>/index.html.",
    )
    parser.add_argument(
        "--dataset",
        default="synthetic",
        metavar="NAME|FILE.toml",
        help=f"{', '.join(registry.names())}, or your own TOML file",
    )
    parser.add_argument("--fast", action="store_true", help="smaller grids and fewer epochs")
    parser.add_argument("--only", metavar="NN[,NN]", help="only these notebooks")
    parser.add_argument(
        "--from", dest="start", metavar="NN", help="this notebook and the later ones"
    )
    parser.add_argument(
        "--jobs",
        type=_positive,
        default=min(2, os.cpu_count() or 1),
        metavar="N",
        help="notebooks at the same time, each on one core (default %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=42, metavar="N", help="seed of the models (default 42)"
    )
    parser.add_argument(
        "--engine",
        default=os.environ.get("RECSYS_ENGINE", "duckdb"),
        help="where tables are made: " + ", ".join(engine.ENGINES),
    )
    parser.add_argument(
        "-p",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="override a notebook's parameter",
    )
    parser.add_argument(
        "--save-outputs",
        action="store_true",
        help="write outputs back into notebooks/ (default run only)",
    )
    options = parser.parse_args(arguments)
    if options.save_outputs and (
        options.dataset != "synthetic" or options.fast or options.p or options.seed != 42
    ):
        parser.error(
            "--save-outputs keeps the outputs of the default run only: leave out the other options"
        )
    return options


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of 1 or more")
    return int(text)


def _chosen(number: str, options: argparse.Namespace) -> bool:
    wanted = options.only.split(",") if options.only else None
    return (wanted is None or number in [w.strip().zfill(2) for w in wanted]) and (
        not options.start or number >= options.start.zfill(2)
    )


def _overrides(given: list[str], known: dict[Path, dict]) -> dict[str, object]:
    """NAME=VALUE as values of the type that the notebooks' defaults have; anything else is an error."""
    defaults = {k: v for found in known.values() for k, v in found.items()}
    made = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or name not in defaults or name in COMMON:
            raise LabError(
                f"-p {text}: the chosen notebooks take NAME=VALUE for {', '.join(sorted(set(defaults) - set(COMMON)))}"
            )
        made[name] = _typed(name, value, defaults[name])
    return made


def _typed(name: str, text: str, default: object) -> object:
    try:
        value = (
            text
            if isinstance(default, str)
            else ast.literal_eval(text.capitalize() if text in ("true", "false") else text)
        )
    except (ValueError, SyntaxError):
        value = text
    value = float(value) if isinstance(default, float) and type(value) is int else value
    if default is not None and type(value) is not type(default):
        raise LabError(
            f"-p {name}={text}: {name} is of type {type(default).__name__}, like its default {default!r}"
        )
    return value


def _needs(notebook: Path, every: list[Path]) -> list[str]:
    """01 → 02 → the models, none of which reads another's tables → everything from 13, which reads them all."""
    number = int(notebook.stem[:2])
    last = number - 1 if number < 3 else 2 if number < COMPARISON else COMPARISON - 1
    return [p.stem for p in every if int(p.stem[:2]) <= last]


def _step(task: Task, failed: set[str], save_outputs: bool) -> bool:
    """Run one notebook if it is out of date; True unless it failed."""
    if broken := failed & set(task.needs):
        return _say(task, f"skipped, needs {', '.join(sorted(broken))}", ok=False)
    wanted = inputs(task)
    if _up_to_date(task, wanted) and not save_outputs:
        return _say(task, "up to date")
    from recsys_utils.report import (
        html,  # it and papermill load for seconds, which a run with nothing to do need not wait for
    )

    task.state.unlink(missing_ok=True)
    started, clock = time.perf_counter(), time.time()
    notebook, error = _execute(task)
    html.to_html(notebook, task.html)
    if error:
        return _say(
            task,
            f"FAILED after {time.perf_counter() - started:.1f} s: {error}; see {_short(task.html)}",
            ok=False,
        )
    if save_outputs:
        _save_outputs(notebook, task.path)
    outputs, seconds = _written(task, clock), time.perf_counter() - started
    write_json(
        {
            "inputs": wanted,
            "outputs": outputs,
            "digest": _digest(task, outputs),
            "seconds": round(seconds, 1),
        },
        task.state,
    )
    return _say(task, f"{time.perf_counter() - started:6.1f} s")


def _up_to_date(task: Task, wanted: str) -> bool:
    if not (task.state.exists() and task.html.exists()):
        return False
    state = read_json(task.state)
    return (
        state["inputs"] == wanted
        and all(data_dir(task.dataset, f).exists() for f in state["outputs"])
        and state["digest"] == _digest(task, state["outputs"])
    )


def _written(task: Task, since: float) -> list[str]:
    """Files of the data set that appeared while the notebook ran; of what is served, the manifest, since a service writes beside it."""
    root = data_dir(task.dataset)
    files = [
        p
        for part in ("tables", "folds", "runs", "studies", "models")
        for p in (root / part).rglob("*")
        if p.is_file()
    ]
    files += (root / "serving").glob("manifest.json")
    return sorted(
        str(p.relative_to(root))
        for p in files
        if p.stat().st_mtime >= since and not p.name.endswith(".tmp")
    )


def _digest(task: Task, files: list[str]) -> str:
    """Of everything but JSON, which holds seconds: a parallel notebook's files are counted too, and may be made again."""
    return digest(*(data_dir(task.dataset, f) for f in files if not f.endswith(".json")))


def _execute(task: Task) -> tuple[Path, str]:
    """Execute with papermill; the executed notebook, and the error in one line ('' if none)."""
    import papermill

    from recsys_utils.pipeline.kernel import Quiet

    out = data_dir(task.dataset, "notebooks", task.path.name)
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(
            str(task.path),
            str(out),
            task.params,
            kernel_name="python3",
            cwd=str(task.path.parent),
            progress_bar={"leave": False} if sys.stderr.isatty() else False,
            kernel_manager_class=Quiet,
        )
    except papermill.PapermillExecutionError as error:
        return out, " ".join(f"{error.ename} in cell {error.exec_count}: {error.evalue}".split())
    except Exception as error:  # the kernel itself died, e.g. of memory
        return out if out.exists() else task.path, f"{type(error).__name__}: {error}"
    return out, ""


def _save_outputs(executed: Path, notebook: Path) -> None:
    """Put an executed notebook in the place of the committed one, without times, so that only results differ."""
    import nbformat

    made = nbformat.read(executed, as_version=4)
    made.metadata.pop("papermill", None)
    for cell in made.cells:
        cell.metadata = {k: v for k, v in cell.metadata.items() if k == "tags" and v}
    made.metadata = {"kernelspec": made.metadata["kernelspec"], "language_info": {"name": "python"}}
    with atomic(notebook) as temporary:
        nbformat.write(made, temporary)


def _code(notebook: Path) -> str:
    cells = json.loads(notebook.read_text())["cells"]
    return "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")


def _finished(running: dict[Future, str]) -> set[Future]:
    return wait(running, return_when=FIRST_COMPLETED).done


def _say(task: Task, what: str, ok: bool = True) -> bool:
    print(f"{task.path.stem:<28} {what}", flush=True)
    return ok


def _short(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
