"""`python -m recsys_utils.pipeline`, which ./run_all.sh calls."""

import argparse
import os
import sys
from pathlib import Path

from recsys_utils import LabError
from recsys_utils.data import registry
from recsys_utils.data.folds import load_fold
from recsys_utils.data.outside import recorded_notes
from recsys_utils.memory import SETTING, in_bytes
from recsys_utils.pipeline.plan import (
    Task,
    incumbent_doubt,
    make_plan,
    parse_options,
    writes_report,
)
from recsys_utils.pipeline.run import about_run, inputs, is_up_to_date, run_plan, short
from recsys_utils.report.kept import (
    BOARD,
    KeptRun,
    find_report,
    find_run,
    keep,
    kept_runs,
    load_kept,
    remove_oldest,
)
from recsys_utils.store import report_dir


def main(arguments: list[str] | None = None) -> int:
    """Parse, plan, run, keep the run.

    Returns 0, 1 if a notebook failed, 2 for bad input, 130 if stopped; with --gate 0 only where
    this run is better, 10 where it is worse and 20 where that cannot be told.
    """
    options = parse_options(arguments)
    try:
        _set_environment(options.engine, options.memory)
        if options.compare:
            return _compare(options)
        tasks = make_plan(options)
        _check_incumbent(options.dataset, tasks)
        if options.plan:
            from recsys_utils.pipeline.estimate import estimate

            table, sentences = estimate(options.dataset, tasks, options.fast, options.jobs)
            print(table.to_string(index=False), *sentences, sep="\n")
            return 0
        # A gate that is wrong is an error now, not after the run.
        incumbent = _incumbent(options.gate, tasks[0].dataset) if options.gate else None
        code = run_plan(tasks, options.jobs, options.save_outputs)
        if options.lists and code == 0:
            for name, note in recorded_notes(load_fold(options.dataset)).items():
                print(f"{name}: {note}")
        kept = _keep(options, tasks, incumbent)
        return _gate(code, kept, incumbent) if incumbent else code
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def _check_incumbent(dataset: str, tasks: list[Task]) -> None:
    """LabError where the report would find nothing that is called as today's list."""
    for task in filter(writes_report, tasks):
        if doubt := incumbent_doubt(registry.spec(dataset), task.params.get("LISTS", ())):
            raise LabError(doubt)


def _incumbent(text: str, dataset: str) -> KeptRun:
    """The run that is named as gate."""
    _tell_ignored(dataset)
    run = find_run(dataset, text)
    if run.about["dataset"] != dataset:
        raise LabError(
            f"--gate {text}: it is a run of '{run.about['dataset']}', not of '{dataset}'"
        )
    if run.choice is None:
        raise LabError(f"--gate {text}: it made no choice on validation: name another run")
    return run


def _tell_ignored(dataset: str) -> None:
    """Name the folders of kept runs that are not whole."""
    for folder in kept_runs(dataset)[1]:
        print(f"ignored: {short(folder)} is not a whole run, remove it", file=sys.stderr)


def _keep(options: argparse.Namespace, tasks: list[Task], incumbent: KeptRun | None) -> Path | None:
    """Keep the run if its report stands; the folder that holds it, and None without a report."""
    reports = [task for task in tasks if writes_report(task)]
    dataset = tasks[0].dataset
    if not (reports and is_up_to_date(reports[0]) and (report_dir(dataset) / BOARD).exists()):
        return None
    report = inputs(reports[0])
    if known := find_report(dataset, report):
        spared = {known, incumbent.folder if incumbent else None}
        remove_oldest(kept_runs(dataset)[0], options.keep, spared)
        return known
    # Judging loads for seconds, which a run with nothing to do need not wait for.
    from recsys_utils.report.judged import judge_fold
    from recsys_utils.report.page import commit

    needed = (incumbent.choice,) if incumbent and incumbent.choice else ()
    spared = incumbent.folder if incumbent else None
    about = about_run(tasks) | {"report": report, "commit": commit()}
    judged = judge_fold(load_fold(options.dataset))
    folder, is_new = keep(judged, about, needed, options.keep, spared)
    if is_new:
        print(f"kept as {short(folder)}")
    return folder


def _gate(code: int, kept: Path | None, incumbent: KeptRun) -> int:
    """Say whether this run's choice beats the incumbent's; the exit code."""
    if code or kept is None:
        print("gate: not judged, since the run failed")
        return code or 1
    from recsys_utils.report.two_runs import gate

    result = gate(load_kept(kept), incumbent)
    print(f"gate: {result.sentence}")
    return result.code


def _compare(options: argparse.Namespace) -> int:
    """Print what differs between two kept runs, and write it as a page."""
    from recsys_utils.report.two_runs import compare, told, write_page

    dataset = registry.spec(options.dataset).name
    _tell_ignored(dataset)
    comparison = compare(*(find_run(dataset, text) for text in options.compare))
    print(told(comparison))
    print(f"\npage: {short(write_page(comparison))}")
    return 0


def _set_environment(engine: str, memory: str | None) -> None:
    """What kernels inherit. They work in notebooks/, so paths become absolute."""
    os.environ["RECSYS_ENGINE"] = engine
    if memory is not None:
        in_bytes(memory)  # says at once what is wrong with it
        os.environ[SETTING] = memory
    # Progress bars would be kept as outputs.
    os.environ["TQDM_DISABLE"] = "1"
    for name in ("RECSYS_DATA", "RECSYS_HOME"):
        if os.environ.get(name):
            os.environ[name] = os.path.abspath(os.environ[name])


if __name__ == "__main__":
    sys.exit(main())
