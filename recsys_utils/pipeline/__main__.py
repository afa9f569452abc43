"""`python -m recsys_utils.pipeline`, which ./run_all.sh calls."""

import os
import sys

from recsys_utils import LabError
from recsys_utils.data.folds import load_fold
from recsys_utils.data.outside import recorded_notes
from recsys_utils.memory import SETTING, in_bytes
from recsys_utils.pipeline.plan import make_plan, parse_options
from recsys_utils.pipeline.run import run_plan


def main(arguments: list[str] | None = None) -> int:
    """Parse, plan, run. Returns 0, 1 if a notebook failed, 2 for bad input, 130 if stopped."""
    options = parse_options(arguments)
    try:
        _set_environment(options.engine, options.memory)
        tasks = make_plan(options)
        if options.plan:
            from recsys_utils.pipeline.estimate import estimate

            table, sentences = estimate(options.dataset, tasks, options.fast, options.jobs)
            print(table.to_string(index=False), *sentences, sep="\n")
            return 0
        code = run_plan(tasks, options.jobs, options.save_outputs)
        if options.lists and code == 0:
            for name, note in recorded_notes(load_fold(options.dataset)).items():
                print(f"{name}: {note}")
        return code
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130


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
