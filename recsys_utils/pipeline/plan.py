"""The plan of a run: options, the chosen notebooks with checked parameters, what each one needs."""

import argparse
import ast
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path

from recsys_utils import LabError
from recsys_utils.data import engine, outside, registry, tables
from recsys_utils.data.prefilter import Rules
from recsys_utils.data.runs import DEPTH, recorded_models
from recsys_utils.memory import SETTING
from recsys_utils.report.kept import LIMIT
from recsys_utils.store import ROOT, data_dir, report_dir

NOTEBOOKS = ROOT / "notebooks"
# The last notebook that makes models: studies of them follow, then the report.
LAST_MODEL = 12
# The notebook that writes the report from what all earlier ones left.
COMPARISON = 15
# The last notebook that makes the data, which all later ones need.
LAST_OF_DATA = 2
# Notebooks whose tuned models another one compares its own with; the others: RIVAL.
RIVALS = {3: (), 10: (3, 4, 7)}
RIVAL = (3,)
# Studies of displays and of growth, which look at no model of another notebook.
WITHOUT_MODELS = (14, 17)
# Parameters that have options of their own, so that `-p` does not take them.
DEFAULTS = {"DATASET": "synthetic", "FAST": False, "SEED": 42, "LISTS": {}}
OPTIONS = {
    "DATASET": "--dataset NAME",
    "FAST": "--fast",
    "SEED": "--seed N",
    "LISTS": "--lists NAME=FILE",
}
# Parameters of notebook 02, by what they become there.
OF_FOLDS = ("PROTOCOL", "TEST_WEEKS", "VALID_WEEKS", "FOLDS")
OF_PREFILTER = tuple(field.name.upper() for field in fields(Rules))
# The models that a whole run records, on any data set.
MODELS = [
    "als",
    "blend_cascade",
    "blend_routed",
    "blend_rrf",
    "blend_tuned",
    "bpr",
    "co_purchase",
    "ease",
    "hybrid_40_40_20",
    "hybrid_reranked",
    "item_bm25",
    "item_cosine",
    "item_tfidf",
    "lightfm_bpr",
    "lightfm_ids",
    "lightfm_own",
    "lightfm_warp",
    "main_recommender",
    "own_count",
    "own_decayed",
    "own_old_ties",
    "popular_28d",
    "popular_all_time",
    "preference_pairs",
    "preference_pairs_original",
    "progressive",
    "progressive_new",
    "tifuknn",
    "two_stage",
    "two_stage_new",
    "two_stage_original",
    "two_tower",
    "two_tower_own",
    "upcf",
]
# Least and most of the others.
RANGES = {"K": (1, DEPTH), "TRIALS": (1, 1_000), "SHARE": (0.001, 1), "MEMORY": (0.1, 100_000)}


@dataclass
class Task:
    """One notebook of one run, and what its result depends on.

    path: the notebook. needs: names (without suffix) of the notebooks that come first. params: the
    parameters that differ from the notebook's own. dataset: the data set's short name.
    """

    path: Path
    needs: list[str]
    params: dict[str, object]
    dataset: str

    @property
    def state(self) -> Path:
        """Written last: its presence means that everything else is there."""
        return data_dir(self.dataset, "state", f"{self.path.stem}.json")

    @property
    def html(self) -> Path:
        """The page that a person reads."""
        return report_dir(self.dataset) / f"{self.path.stem}.html"


def parse_options(arguments: list[str] | None) -> argparse.Namespace:
    """The options of `./run_all.sh`; argparse ends the process where they are wrong."""
    parser = _parser()
    options = parser.parse_args(arguments)
    common = {"DATASET": options.dataset, "FAST": options.fast, "SEED": options.seed}
    changed = [name for name, value in common.items() if value != DEFAULTS[name]]
    is_default_run = not (changed or options.overrides or options.lists)
    if options.save_outputs and not is_default_run:
        parser.error(
            "--save-outputs keeps the outputs of the default run only: leave out the other options"
        )
    if options.compare and (options.gate or options.plan or options.save_outputs):
        parser.error("--compare runs nothing: leave out --gate, --plan and --save-outputs")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "./run_all.sh",
        usage="./run_all.sh [options]",
        description="Run the notebooks on a data set and write reports/<dataset>/index.html.",
    )
    option = parser.add_argument
    option(
        "--dataset",
        default="synthetic",
        metavar="NAME",
        help=f"{', '.join(registry.names())}, or your own file.toml",
    )
    option("--fast", action="store_true", help="smaller grids and fewer epochs")
    option("--only", metavar="NN[,NN]", help="only these notebooks")
    option("--from", dest="start", metavar="NN", help="this notebook and the later ones")
    option(
        "--jobs",
        type=_positive,
        default=min(4, os.cpu_count() or 1),
        metavar="N",
        help="notebooks at the same time, each on one core (default %(default)s)",
    )
    option("--plan", action="store_true", help="print what the run will cost, and run nothing")
    option("--seed", type=int, default=42, metavar="N", help="seed of the models (default 42)")
    option(
        "--engine",
        default=engine.chosen(),
        metavar="NAME",
        help=f"where tables and folds are made: {', '.join(engine.ENGINES)}",
    )
    option(
        "--memory",
        default=os.environ.get(SETTING),
        metavar="GIB",
        help="what a notebook may use: larger models are left out, tables spill",
    )
    option(
        "--lists",
        action="append",
        default=[],
        metavar="FILE",
        help="judge others' lists too: FILE or NAME=FILE; once for each",
    )
    option("--compare", nargs=2, metavar="RUN", help="what differs between two kept runs")
    option(
        "--gate",
        metavar="RUN",
        help="run, then judge against RUN's choice: ends with 0 better, 10 worse, 20 cannot tell",
    )
    option(
        "--keep",
        type=_positive,
        default=LIMIT,
        metavar="N",
        help="kept runs of a data set, the oldest are removed (default 20)",
    )
    option(
        "-p",
        dest="overrides",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="override a notebook's parameter",
    )
    option(
        "--save-outputs",
        action="store_true",
        help="write outputs back into notebooks/ (default run only)",
    )
    return parser


def make_plan(options: argparse.Namespace) -> list[Task]:
    """The chosen notebooks with checked parameters.

    Raises LabError for a data set that is unknown or lacks a file, an unknown engine, a notebook
    that is not there, and a parameter that no chosen notebook has or that has another type.
    """
    dataset = options.dataset
    if dataset.endswith(".toml"):
        dataset = str(Path(dataset).resolve())
    spec = registry.spec(dataset)
    # A missing raw file or an unknown engine is an error now, not in a notebook.
    tables.fingerprint(spec)
    engine.connect()
    every = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    chosen = _chosen(every, options)
    known = {notebook: parameters(notebook) for notebook in chosen}
    values = {"DATASET": dataset, "FAST": options.fast, "SEED": options.seed}
    overrides = _overrides(options.overrides, known)
    _check_values(overrides, spec)
    values |= overrides
    values["LISTS"] = outside.named_files(options.lists)
    if options.lists and not any("LISTS" in names for names in known.values()):
        raise LabError("--lists: no chosen notebook writes the report: leave out --only")
    if options.gate and not any(map(_is_comparison, chosen)):
        raise LabError("--gate: no chosen notebook writes the report: leave out --only")
    tasks = []
    for notebook in chosen:
        changed = {
            name: value
            for name, value in values.items()
            if name in known[notebook] and not (name in DEFAULTS and value == DEFAULTS[name])
        }
        tasks.append(Task(notebook, _needs(notebook, every), changed, spec.name))
    return tasks


def incumbent_doubt(described: registry.Spec, lists: Iterable[str] = ()) -> str:
    """Why `[worth] incumbent` names nothing that a run will have, in a sentence; "" if it does.

    lists: names of others' lists.
    """
    name = described.worth.incumbent
    known = {*MODELS, *recorded_models(described.name), *lists}
    if not name or name in known:
        return ""
    close = get_close_matches(name, sorted(known), n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(known))}."
    return (
        f"[worth] incumbent = '{name}' is no model that a run makes and no name of --lists: {hint}"
        f" Others' lists are given as --lists {name}=FILE; a model of your own is recorded first"
    )


def parameters(notebook: Path) -> dict[str, object]:
    """Names and default values of a notebook's tagged `parameters` cell."""
    cells = json.loads(notebook.read_text())["cells"]
    tagged = [
        "".join(cell["source"])
        for cell in cells
        if "parameters" in cell["metadata"].get("tags", [])
    ]
    assignments = ast.parse("\n".join(tagged)).body
    return {line.targets[0].id: ast.literal_eval(line.value) for line in assignments}


def writes_report(task: Task) -> bool:
    """Whether this notebook writes the report's page."""
    return _is_comparison(task.path)


def _is_comparison(notebook: Path) -> bool:
    return int(_number(notebook)) == COMPARISON


def _chosen(every: list[Path], options: argparse.Namespace) -> list[Path]:
    """The notebooks that --only and --from choose."""
    numbers = [_number(notebook) for notebook in every]
    wanted = set(numbers)
    if options.only:
        wanted = {text.strip().zfill(2) for text in options.only.split(",")}
    unknown = wanted - set(numbers)
    first = (options.start or "").zfill(2)
    chosen = [
        notebook for notebook in every if _number(notebook) in wanted and _number(notebook) >= first
    ]
    if unknown or not chosen:
        raise LabError(f"no notebook fits --only/--from: there are {', '.join(numbers)}")
    return chosen


def _number(notebook: Path) -> str:
    return notebook.stem[:2]


def _needs(notebook: Path, every: list[Path]) -> list[str]:
    """The notebooks that must run before one.

    The order is 01, then 02, then the models, each after its rivals, then studies of them and the
    service, then the report, which has all studies. Some studies need no model.
    """
    number = int(_number(notebook))
    if number <= LAST_OF_DATA:
        needed = set(range(1, number))
    elif number <= LAST_MODEL:
        needed = {*range(1, LAST_OF_DATA + 1), *RIVALS.get(number, RIVAL)}
    elif number in WITHOUT_MODELS:
        needed = set(range(1, LAST_OF_DATA + 1))
    elif number == COMPARISON:
        needed = set(range(1, COMPARISON))
    else:
        needed = set(range(1, LAST_MODEL + 1))
    return [other.stem for other in every if int(_number(other)) in needed]


def _overrides(given: list[str], known: dict[Path, dict]) -> dict[str, object]:
    """NAME=VALUE as values of the types that the notebooks' defaults have."""
    defaults: dict[str, object] = {}
    for found in known.values():
        defaults |= found
    values = {}
    for text in given:
        name, equals, value = text.partition("=")
        if name in OPTIONS:
            raise LabError(f"-p {text}: {name} has an option of its own, {OPTIONS[name]}")
        if not equals or name not in defaults:
            names = sorted(set(defaults) - set(DEFAULTS))
            known_names = f"NAME=VALUE for {', '.join(names)}" if names else "no parameter"
            raise LabError(f"-p {text}: the chosen notebooks take {known_names}")
        values[name] = _typed(name, value, defaults[name])
    return values


def _typed(name: str, text: str, default: object) -> object:
    """The value that a text stands for; LabError where its type is not the default's."""
    value = text
    if not isinstance(default, str):
        literal = text.capitalize() if text in ("true", "false") else text
        with suppress(ValueError, SyntaxError):  # a plain word stays text
            value = ast.literal_eval(literal)
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    if default is not None and type(value) is not type(default):
        kind = type(default).__name__
        raise LabError(f"-p {name}={text}: {name} is of type {kind}, like its default {default!r}")
    return value


def _check_values(values: dict[str, object], spec: registry.Spec) -> None:
    """LabError for a value that a notebook would refuse after some minutes."""
    for name, value in values.items():
        if name in OF_FOLDS:
            try:
                registry.revised(spec, **{name.lower(): value})
            except LabError as error:
                raise LabError(f"-p {name}={value}: {error}") from error
        if name in OF_PREFILTER:
            is_number = type(value) in (int, float) and value >= 0
            if not (is_number or value in (None, False)):
                raise LabError(
                    f"-p {name}={value}: {name} takes a number of 0 or more, or False, which"
                    " switches the rule off"
                )
        if name in RANGES and not RANGES[name][0] <= value <= RANGES[name][1]:
            least, most = RANGES[name]
            raise LabError(f"-p {name}={value}: {name} takes a number from {least} to {most}")


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of 1 or more")
    return int(text)
