"""Runs a plan: each notebook after what it needs, only where something changed, then its page."""

import hashlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from graphlib import TopologicalSorter
from pathlib import Path

from recsys_utils import LabError
from recsys_utils.data import registry, runs, tables
from recsys_utils.pipeline.imports import imported_files
from recsys_utils.pipeline.plan import (
    COMPARISON,
    LAST_MODEL,
    LAST_OF_DATA,
    Task,
    parameters,
    writes_report,
)
from recsys_utils.store import ROOT, atomic, data_dir, digest, read_json, report_dir, write_json

TEMPLATES = ROOT / "recsys_utils" / "report" / "templates"
# Folders of a data set in which notebooks leave their results.
RESULTS = ("tables", "folds", "runs", "validation", "studies", "models")


def run_plan(tasks: list[Task], jobs: int, save_outputs: bool = False) -> int:
    """Run what is out of date, each after what it needs, and print a line per notebook.

    jobs: notebooks at the same time. save_outputs: put the outputs into the notebooks themselves,
    which are then run even if up to date. Returns the exit code: 1 if any failed, else 0.
    """
    refuse_old_data(tasks)
    started = time.perf_counter()
    by_name = {task.path.stem: task for task in tasks}
    order: TopologicalSorter[str] = TopologicalSorter()
    for name, task in by_name.items():
        order.add(name, *(need for need in task.needs if need in by_name))
    order.prepare()
    failed: set[str] = set()
    ready: set[str] = set()
    running: dict[Future, str] = {}
    with ThreadPoolExecutor(jobs) as pool:
        while order.is_active():
            ready.update(order.get_ready())
            for name in _in_order(ready, tasks, jobs)[: jobs - len(running)]:
                ready.remove(name)
                running[pool.submit(_run_task, by_name[name], failed, save_outputs)] = name
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                name = running.pop(future)
                if not future.result():
                    failed.add(name)
                order.done(name)
    errors = sorted(runs.failed_notebooks(tasks[0].dataset).keys() & failed)
    result = f"FAILED: {', '.join(errors)}" if failed else "done"
    index = report_dir(tasks[0].dataset) / "index.html"
    is_older = any(writes_report(task) and task.path.stem in failed for task in tasks)
    hint = f"; read {short(index)}" if index.exists() and not is_older else ""
    print(f"{result} in {time.perf_counter() - started:.1f} s{hint}")
    return 1 if failed else 0


def inputs(task: Task) -> str:
    """SHA-256 of all that a notebook's result depends on.

    These are its cells, our code that it imports, the page's templates, its parameters, the inputs
    of what it needs, the engine, others' lists, the raw files if it makes the data, and the
    settings of worth and guardrails if it writes the report.
    """
    cells = json.loads(task.path.read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    files = imported_files(code) | set(TEMPLATES.glob("**/*.*"))
    earlier = {}
    for name in task.needs:
        state = task.state.with_name(f"{name}.json")
        if state.exists():
            earlier[name] = read_json(state)["inputs"]
    described = _data_set(task)
    of_data_set = None
    if _makes_data(task):
        of_data_set = tables.fingerprint(described)
    elif writes_report(task):
        of_data_set = described.model_dump(mode="json", include={"worth", "guardrails"})
    everything = [
        [cell["source"] for cell in cells],
        {str(path): path.read_text() for path in sorted(files)},
        task.params,
        earlier,
        of_data_set,
        os.environ.get("RECSYS_ENGINE"),
        [digest(Path(path)) for path in task.params.get("LISTS", {}).values()],
    ]
    return hashlib.sha256(json.dumps(everything, sort_keys=True, default=str).encode()).hexdigest()


def refuse_old_data(tasks: list[Task]) -> None:
    """LabError where notebooks would go on with tables and folds of receipts that have changed.

    The notebooks that make the data find it out themselves, if they are chosen.
    """
    chosen = {task.path.stem for task in tasks}
    described = _data_set(tasks[0])
    now = _stamp(described)
    for path in sorted(data_dir(tasks[0].dataset, "state").glob("0[1-9]_*.json")):
        made_of = read_json(path).get("data", now)
        if path.stem not in chosen and made_of != now:
            raise LabError(
                f"the receipts or the TOML of '{described.name}' changed after notebook"
                f" {path.stem[:2]} had read them: leave out --only and --from"
            )


def _data_set(task: Task) -> registry.Spec:
    """The description of the data set that a notebook runs on."""
    return registry.spec(task.params.get("DATASET", "synthetic"))


def _makes_data(task: Task) -> bool:
    return int(task.path.stem[:2]) <= LAST_OF_DATA


def _stamp(described: registry.Spec) -> str:
    """Raw files and what the TOML says of them; our code may change without a word."""
    found = {name: value for name, value in tables.fingerprint(described).items() if name != "code"}
    return hashlib.sha256(json.dumps(found, sort_keys=True, default=str).encode()).hexdigest()


def about_run(tasks: list[Task]) -> dict[str, dict]:
    """Parameters and seconds by notebook, of all whose results the report tells.

    A notebook that was not chosen now has those of its last run.
    """
    dataset = tasks[0].dataset
    states = {}
    for path in sorted(data_dir(dataset, "state").glob("[0-9][0-9]_*.json")):
        if int(path.stem[:2]) <= COMPARISON:
            states[path.stem[:2]] = read_json(path)
    given = {task.path.stem[:2]: all_parameters(task) for task in tasks}
    known = {number: state["params"] for number, state in states.items() if "params" in state}
    now = {number: values for number, values in given.items() if number in states}
    return {
        "parameters": known | now,
        "seconds": {number: state["seconds"] for number, state in states.items()},
    }


def is_up_to_date(task: Task) -> bool:
    """Whether a notebook's results are there, made of what there is now."""
    return _up_to_date(task, inputs(task))


def all_parameters(task: Task) -> dict[str, object]:
    """A notebook's parameters and their values, but for the data set."""
    values = parameters(task.path) | task.params
    return {name: value for name, value in values.items() if name != "DATASET"}


def _in_order(ready: Iterable[str], tasks: list[Task], jobs: int) -> list[str]:
    """Notebooks in the order in which they should start, once there is room for one.

    Where others run meanwhile, first what most others wait for, then the later ones: they take
    longer.
    """
    if jobs == 1:
        return sorted(ready)
    waiting = Counter(need for task in tasks for need in task.needs)
    return sorted(ready, key=lambda name: (waiting[name], name), reverse=True)


def _run_task(task: Task, failed: set[str], save_outputs: bool) -> bool:
    """Run one notebook if it is out of date; False if it failed."""
    if broken := _broken(task, failed):
        _report(task, f"skipped, needs {', '.join(sorted(broken))}")
        return False
    wanted = inputs(task)
    if _up_to_date(task, wanted) and not save_outputs:
        _report(task, "up to date")
        return True
    # nbconvert and papermill load for seconds, which a run with nothing to do need not wait for.
    from recsys_utils.report import html

    task.state.unlink(missing_ok=True)
    stamp = _stamp(_data_set(task))
    clock = time.time()
    started = time.perf_counter()
    notebook, error = _execute(task)
    html.to_html(notebook, task.html)
    runs.save_failure(task.dataset, task.path.stem, error)
    if error:
        seconds = time.perf_counter() - started
        _report(task, f"FAILED after {seconds:.1f} s: {error}; see {short(task.html)}")
        return False
    if save_outputs:
        _save_outputs(notebook, task.path)
    outputs = _results_since(task, clock)
    seconds = time.perf_counter() - started
    state = {
        "inputs": wanted,
        "params": all_parameters(task),
        "outputs": outputs,
        "digest": _digest(task, outputs),
        "seconds": round(seconds, 1),
    }
    if _makes_data(task):
        state["data"] = stamp
    write_json(state, task.state)
    _report(task, f"{seconds:6.1f} s")
    return True


def _broken(task: Task, failed: set[str]) -> set[str]:
    """The failed notebooks without which this one cannot run.

    All need the data. A model can do without its rivals; the comparison and what follows it go on
    with the models that there are.
    """
    broken = failed & set(task.needs)
    models = {name for name in task.needs if int(name[:2]) > LAST_OF_DATA}
    of_data = broken - models
    is_model = int(task.path.stem[:2]) <= LAST_MODEL
    if of_data or is_model or (models and not models <= failed):
        return of_data
    return broken


def _up_to_date(task: Task, wanted: str) -> bool:
    """Whether the same inputs have given results that are still there, unchanged."""
    if not (task.state.exists() and task.html.exists()):
        return False
    state = read_json(task.state)
    if state["inputs"] != wanted:
        return False
    if not all(data_dir(task.dataset, file).exists() for file in state["outputs"]):
        return False
    return state["digest"] == _digest(task, state["outputs"])


def _results_since(task: Task, start: float) -> list[str]:
    """Files of the data set that were written since `start` (seconds of the epoch).

    Of what is served only the manifest, since a service writes into the same folder.
    """
    root = data_dir(task.dataset)
    candidates = list((root / "serving").glob("manifest.json"))
    for folder in RESULTS:
        candidates += (root / folder).rglob("*")
    return sorted(str(path.relative_to(root)) for path in candidates if _is_result(path, start))


def _is_result(path: Path, start: float) -> bool:
    """Whether a path is a file that was written since `start`, and is not being written."""
    if path.suffix == ".tmp":
        return False
    try:
        return path.is_file() and path.stat().st_mtime >= start
    except FileNotFoundError:  # of another notebook, which replaces it now
        return False


def _digest(task: Task, files: list[str]) -> str:
    """Digest of all files but JSON, which holds seconds.

    Files of a notebook that ran at the same time are counted too; they may be made again.
    """
    return digest(*(data_dir(task.dataset, file) for file in files if not file.endswith(".json")))


def _execute(task: Task) -> tuple[Path, str]:
    """Execute with papermill; the executed notebook, and the error in one line ("" if none)."""
    import papermill

    from recsys_utils.pipeline.kernel import kernel_of

    executed = data_dir(task.dataset, "notebooks", task.path.name)
    executed.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(
            str(task.path),
            str(executed),
            task.params,
            kernel_name="python3",
            cwd=str(task.path.parent),
            progress_bar={"leave": False} if sys.stderr.isatty() else False,
            kernel_manager_class=kernel_of(task.path.stem),
        )
    except papermill.PapermillExecutionError as error:
        message = f"{error.ename} in cell {error.exec_count}: {error.evalue}"
        return executed, " ".join(message.split())
    except Exception as error:
        # The kernel itself died, for example of memory.
        left = executed if executed.exists() else task.path
        return left, f"{type(error).__name__}: {error}"
    return executed, ""


def _save_outputs(executed: Path, notebook: Path) -> None:
    """Put an executed notebook in the committed one's place, without times: only results differ."""
    import nbformat

    content = nbformat.read(executed, as_version=4)
    for cell in content.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = {"tags": tags} if tags else {}
    content.metadata = {
        "kernelspec": content.metadata["kernelspec"],
        "language_info": {"name": "python"},
    }
    with atomic(notebook) as temporary:
        nbformat.write(content, temporary)


def _report(task: Task, text: str) -> None:
    # In one piece: two notebooks may end at the same time.
    sys.stdout.write(f"{task.path.stem:<28} {text}\n")
    sys.stdout.flush()


def short(path: Path) -> str:
    """The path as a person would type it here."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
