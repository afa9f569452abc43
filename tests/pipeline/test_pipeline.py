"""What `./run_all.sh` runs, skips, repeats and survives, shown on tiny notebooks."""

import gc
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from recsys_utils.data import outside, registry, runs
from recsys_utils.pipeline import imports, plan
from recsys_utils.pipeline.__main__ import main
from recsys_utils.pipeline.run import _is_result, inputs
from recsys_utils.store import ROOT, data_dir, read_json

PARAMETERS = "DATASET = 'synthetic'\nFAST = False\nSEED = 42\n"
# Notes that it ran, and writes a result where model notebooks write theirs.
BODY = """import os, pathlib
home = pathlib.Path(os.environ["RECSYS_HOME"])
with open(home / "log", "a") as log:
    log.write("{number} ")
result = home / "data" / pathlib.Path(DATASET).stem / "runs" / "{number}.txt"
result.parent.mkdir(parents=True, exist_ok=True)
result.write_text("whole")"""
RECEIPTS = "customer,sku,sold_at\n" + "".join(
    f"{u},{i},2024-01-{d:02d}\n" for u in "xyz" for i in "ab" for d in (1, 9, 17)
)
TOML = """[purchases]
files = ["receipts.csv"]
[purchases.columns]
user_id = "customer"
item_id = "sku"
ts = "sold_at"
"""


@dataclass
class Lab:
    """A home with tiny notebooks, and what the last command printed and ran."""

    home: Path
    capfd: pytest.CaptureFixture
    notebooks: Path

    def notebook(self, number: str, *cells: str, parameters: str = "", body: bool = True) -> Path:
        """Write NN_x.ipynb: a title, tagged parameters, the body, further cells."""
        code = list(cells)
        if body:
            code.insert(0, BODY.format(number=number))
        tagged = new_code_cell(PARAMETERS + parameters, metadata={"tags": ["parameters"]})
        title = new_markdown_cell(f"# {number} · A title")
        notebook = new_notebook(cells=[title, tagged, *map(new_code_cell, code)])
        for n, cell in enumerate(notebook.cells):
            cell["id"] = f"cell-{n}"
        notebook.metadata["kernelspec"] = {
            "name": "python3",
            "display_name": "Python 3",
            "language": "python",
        }
        nbformat.write(notebook, self.notebooks / f"{number}_x.ipynb")
        return self.notebooks / f"{number}_x.ipynb"

    def run(self, *arguments: str) -> tuple[int, list[str], dict[str, str], str]:
        """Exit code, notebooks that ran, what was said of each by number, and stderr."""
        (self.home / "log").write_text("")
        self.capfd.readouterr()
        code = main(list(arguments))
        out, err = self.capfd.readouterr()
        assert "Traceback" not in out + err, err
        # kernels' own noise counts
        assert (code == 2) == bool(err), err
        said = {
            line[:2]: line[5:].strip() for line in out.splitlines() if re.match(r"\d\d_x ", line)
        }
        # A line per notebook, then the last.
        assert len(out.splitlines()) == len(said) + 1 or code == 2, out
        return code, (self.home / "log").read_text().split(), said, err

    def plan(self, *arguments: str) -> list[plan.Task]:
        return plan.make_plan(plan.parse_options(list(arguments)))

    def result(self, number: str, dataset: str = "synthetic") -> Path:
        return self.home / "data" / dataset / "runs" / f"{number}.txt"

    def shop(self, receipts: str = RECEIPTS) -> str:
        (self.home / "receipts.csv").write_text(receipts)
        (self.home / "shop.toml").write_text(TOML)
        return str(self.home / "shop.toml")


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> Lab:
    (tmp_path / "notebooks").mkdir()
    for name, value in {
        "RECSYS_HOME": str(tmp_path),
        "RECSYS_ENGINE": "duckdb",
        "TQDM_DISABLE": "1",
    }.items():
        monkeypatch.setenv(name, value)  # what main sets is undone, too
    monkeypatch.delenv("RECSYS_DATA", raising=False)
    monkeypatch.setattr(plan, "NOTEBOOKS", tmp_path / "notebooks")
    return Lab(tmp_path, capfd, tmp_path / "notebooks")


def test_each_notebook_runs_after_what_it_needs(lab: Lab) -> None:
    """01, 02, models after the rivals whose lists they read, studies and service, the report."""
    for number in ("01", "02", "03", "04", "07", "09", "10", "13", "15", "16"):
        lab.notebook(number)
    needs = {task.path.stem[:2]: [name[:2] for name in task.needs] for task in lab.plan()}
    assert needs == {
        "01": [],
        "02": ["01"],
        "03": ["01", "02"],
        "04": ["01", "02", "03"],
        "07": ["01", "02", "03"],
        "09": ["01", "02", "03"],
        "10": ["01", "02", "03", "04", "07"],
        "13": ["01", "02", "03", "04", "07", "09", "10"],
        "15": ["01", "02", "03", "04", "07", "09", "10", "13"],
        "16": ["01", "02", "03", "04", "07", "09", "10"],
    }


def test_only_what_changed_runs_again(lab: Lab) -> None:
    """Nothing changed, a cell, a parameter, a result and a page gone."""
    for number in ("01", "03", "15"):
        lab.notebook(number, parameters="K = 5" if number == "15" else "")
    code, ran, said, _ = lab.run()
    assert (code, ran) == (0, ["01", "03", "15"])
    assert all(re.fullmatch(r"[\d.]+ s", what) for what in said.values())
    started = time.perf_counter()
    assert lab.run()[:3] == (0, [], dict.fromkeys(said, "up to date"))
    assert time.perf_counter() - started < 2
    lab.notebook("03", "'another cell'")
    assert lab.run()[1] == ["03", "15"]
    assert lab.run("-p", "K=7")[1] == ["15"]
    lab.result("03").unlink()
    (lab.home / "reports" / "synthetic" / "15_x.html").unlink()
    assert lab.run("-p", "K=7")[1] == ["03", "15"]
    assert lab.result("03").exists()


def test_a_changed_result_is_made_again(lab: Lab) -> None:
    """A result that somebody changed is no result of this notebook."""
    lab.notebook("03")
    lab.run()
    lab.result("03").write_text("forged!")
    assert lab.run()[1] == ["03"]
    assert lab.result("03").read_text() == "whole"


def test_changed_raw_files_run_their_notebooks_again(lab: Lab) -> None:
    dataset = lab.shop()
    lab.notebook("01")
    assert [lab.run("--dataset", dataset)[1] for _ in range(2)] == [["01"], []]
    lab.shop(RECEIPTS + "x,c,2024-01-18\n")
    assert lab.run("--dataset", dataset)[1] == ["01"]
    [task] = lab.plan("--dataset", dataset)
    [other] = lab.plan()
    assert inputs(task) == read_json(task.state)["inputs"]
    assert not other.state.exists()
    Path(dataset).write_text(TOML + '[purchases.reject]\n"x" = "customer = \'x\'"\n')
    assert inputs(task) != read_json(task.state)["inputs"]


@pytest.mark.parametrize(
    "line",
    [
        "from recsys_utils import helper",
        "from recsys_utils.helper import f",
        "import recsys_utils.helper",
        "import recsys_utils.helper as h",
        "if True:\n    from recsys_utils import helper",
        "from recsys_utils.models import inner",
        "%%time\nfrom recsys_utils import helper",
        "files = !ls\nfrom recsys_utils import helper",
    ],
)
def test_changed_helpers_run_their_notebooks_again(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    """Helper code that a notebook imports, directly or not, is an input; other code is not."""
    package = lab.home / "recsys_utils"
    files = {
        "__init__.py": "",
        "helper.py": "from recsys_utils import deep\ndef f(): pass",
        "deep.py": "x = 1",
        "other.py": "",
        "models/__init__.py": "",
        "models/inner.py": "from recsys_utils.deep import x",
    }
    for name, text in files.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    monkeypatch.setitem(imports.HOMES, "recsys_utils", lab.home)
    lab.notebook("03", line)
    [task] = lab.plan()
    first = inputs(task)
    (package / "other.py").write_text("x = 1")
    assert inputs(task) == first
    (package / "deep.py").write_text("x = 2")
    assert inputs(task) != first


def test_a_failure_is_named_and_takes_only_its_own_models_out(lab: Lab) -> None:
    """Cell and error are named, the page is left, others and the comparison go on."""
    for number in ("01", "04", "15"):
        lab.notebook(number)
    lab.notebook("03", "before = 1", "raise ValueError('no such\\nshopper')")
    code, ran, said, _ = lab.run("--jobs", "2")
    assert code == 1
    assert sorted(ran) == ["01", "03", "04", "15"]
    assert re.match(
        r"FAILED after [\d.]+ s: ValueError in cell \d+: no such.*shopper; see .*03_x.html$",
        said["03"],
    )
    assert re.fullmatch(r"[\d.]+ s", said["04"])
    assert re.fullmatch(r"[\d.]+ s", said["15"])
    assert "no such" in runs.failed_notebooks("synthetic")["03_x"]
    assert "no such" in (lab.home / "reports" / "synthetic" / "03_x.html").read_text()
    lab.notebook("03")
    code, ran, said, _ = lab.run()
    # 04 compares its models with those of 03, which were not there before.
    assert (code, ran) == (0, ["03", "04", "15"])
    assert runs.failed_notebooks("synthetic") == {}


def test_the_comparison_needs_the_data_and_one_model(lab: Lab) -> None:
    lab.notebook("02", "raise ValueError('no data')")
    lab.notebook("03", "raise ValueError('no model')")
    lab.notebook("15")
    assert lab.run()[2]["15"] == "skipped, needs 02_x"
    lab.notebook("02")
    assert lab.run()[2]["15"] == "skipped, needs 03_x"


def test_lists_of_a_failed_notebook_are_taken_out(lab: Lab) -> None:
    """They are of an earlier run; those of other notebooks stay."""
    folder = lab.home / "data" / "synthetic" / "runs" / "fold"
    folder.mkdir(parents=True)
    for model, notebook in (("old", "03_x"), ("other", "04_x")):
        (folder / f"{model}.json").write_text(f'{{"notebook": "{notebook}"}}')
        (folder / f"{model}.parquet").write_text("lists")
    name = "assert __import__('os').environ['RECSYS_NOTEBOOK'] == '03_x'"
    lab.notebook("03", name, "raise ValueError('no such shopper')")
    code, _, said, _ = lab.run()
    assert code == 1
    assert "no such shopper" in said["03"]
    assert sorted(path.name for path in folder.iterdir()) == ["other.json", "other.parquet"]


def test_the_plan_is_printed_and_nothing_runs(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    for number in ("01", "05"):
        lab.notebook(number)
    assert main(["--plan", "--dataset", lab.shop()]) == 0
    printed = capfd.readouterr().out
    assert "18 lines, 3 shoppers, 2 items" in printed
    assert "05_x" in printed
    assert "left out" not in printed
    assert not (lab.home / "log").exists()
    monkeypatch.setenv("RECSYS_MEMORY", "1e-9")
    assert main(["--plan", "--dataset", lab.shop()]) == 0
    assert "EASE is left out: it needs 0.0 GiB for 2 items" in capfd.readouterr().out
    monkeypatch.delenv("RECSYS_MEMORY")
    assert main(["--plan", "--dataset", lab.shop(), "--memory", "1e-9"]) == 0
    assert "EASE is left out: it needs 0.0 GiB for 2 items" in capfd.readouterr().out
    assert main(["--plan", "--dataset", lab.shop(), "--memory", "much"]) == 2
    assert "RECSYS_MEMORY=much (or --memory) is no number above 0" in capfd.readouterr().err


def test_a_syntax_error_is_a_failure_like_others(lab: Lab) -> None:
    lab.notebook("03", "1 +")
    lab.notebook("04")
    code, ran, said, _ = lab.run()
    assert code == 1
    assert said["03"].startswith("FAILED")
    assert "SyntaxError in cell" in said["03"]
    assert "04" in ran


def test_a_dead_kernel_is_a_failure_like_others(lab: Lab) -> None:
    lab.notebook("03", "import os; os._exit(1)")
    code, _, said, _ = lab.run()
    assert code == 1
    assert "died" in said["03"].lower()


def test_only_and_from_choose(lab: Lab) -> None:
    for number in ("01", "02", "03", "04", "15"):
        lab.notebook(number)
    expected = {
        "--only 3": ["03"],
        "--only 01,04": ["01", "04"],
        "--from 3": ["03", "04", "15"],
        "--from 04 --only 03,15": ["15"],
    }
    for arguments, numbers in expected.items():
        chosen = [task.path.stem[:2] for task in lab.plan(*arguments.split())]
        assert chosen == numbers, arguments


@pytest.mark.parametrize("arguments", ["--only 77", "--only 03,77", "--from 99", "--from x"])
def test_a_notebook_that_is_not_there_is_an_error(lab: Lab, arguments: str) -> None:
    lab.notebook("01")
    lab.notebook("03")
    code, ran, _, err = lab.run(*arguments.split())
    assert (code, ran) == (2, [])
    assert re.fullmatch(r"error: no notebook .* there are 01, 03\n", err)


def test_two_jobs_run_at_the_same_time(lab: Lab) -> None:
    """Each of two notebooks waits for the other."""
    for me, other in ("45", "54"):
        lab.notebook(
            f"0{me}",
            f"import time\n(home / 'at{me}').touch()\nend = time.time() + 15\n"
            f"while not (home / 'at{other}').exists():\n"
            "    assert time.time() < end\n    time.sleep(.02)",
        )
    assert lab.run("--jobs", "2")[0] == 0


def test_a_file_that_another_notebook_takes_away_is_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("done.parquet", ".other.parquet.1.tmp", "gone.parquet"):
        (tmp_path / name).write_text("x")
    is_file = Path.is_file

    def and_then_gone(path: Path) -> bool:
        was_there = is_file(path)
        if path.name == "gone.parquet":
            path.unlink()
        return was_there

    monkeypatch.setattr(Path, "is_file", and_then_gone)
    found = [path.name for path in tmp_path.iterdir() if _is_result(path, 0)]
    assert found == ["done.parquet"]


def test_studies_of_displays_and_of_growth_wait_for_no_model(lab: Lab) -> None:
    for number in ("01", "02", "03", "13", "14", "15", "17"):
        lab.notebook(number)
    needs = {task.path.stem[:2]: task.needs for task in lab.plan()}
    assert needs["14"] == needs["17"] == ["01_x", "02_x"]
    assert needs["13"] == ["01_x", "02_x", "03_x"]


def test_a_long_notebook_does_not_wait_for_short_ones_that_could_start_before(lab: Lab) -> None:
    """10 needs 04 and 07; when they are there, it comes before the others that wait for room."""
    for number in ("03", "04", "05", "06", "07", "10"):
        lab.notebook(number)
    code, ran, _, _ = lab.run("--jobs", "2")
    assert code == 0
    assert sorted(ran) == ["03", "04", "05", "06", "07", "10"]
    assert ran.index("10") < ran.index("05")


GOOD = {
    "K=7": 7,
    "TAU=2": 2.0,
    "TAU=2.5": 2.5,
    "NAME=7": "7",
    "NAME=a=b": "a=b",
    "FLAG=true": True,
    "FLAG=False": False,
    "GRID=[1, 2]": [1, 2],
    "ANY=3": 3,
    "ANY=text": "text",
}
TYPED = "K = 5\nTAU = 1.5\nNAME = 'x'\nFLAG = False\nGRID = [3]\nANY = None"


@pytest.mark.parametrize(("given", "value"), GOOD.items())
def test_parameters_have_the_type_of_their_default(lab: Lab, given: str, value: object) -> None:
    lab.notebook("03", parameters=TYPED)
    lab.notebook("04")
    tasks = lab.plan("-p", given)
    taken = tasks[0].params[given.partition("=")[0]]
    assert taken == value
    assert type(taken) is type(value)
    assert not tasks[1].params


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("KK=7", "ANY, FLAG, GRID, K, NAME, TAU"),
        ("K", "NAME=VALUE for ANY"),
        ("=3", "NAME=VALUE"),
        ("DATASET=x", "has an option of its own, --dataset NAME"),
        ("K=many", "K is of type int"),
        ("K=2.5", "K is of type int"),
        ("K=", "K is of type int"),
        ("TAU=x", "TAU is of type float"),
        ("FLAG=1", "FLAG is of type bool"),
        ("GRID=1", "GRID is of type list"),
        ("K=__import__('os')", "K is of type int"),
    ],
)
def test_wrong_parameters_are_one_line(lab: Lab, given: str, words: str) -> None:
    """Papermill itself lets a typo pass."""
    lab.notebook("03", parameters=TYPED)
    code, ran, _, err = lab.run("-p", given)
    assert (code, ran) == (2, [])
    assert err.startswith(f"error: -p {given}: ")
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("change", ["receipts", "window"])
def test_changed_receipts_are_never_old_news(lab: Lab, change: str) -> None:
    """What is chosen without the notebooks that read them is refused; else all runs again."""
    shop = lab.shop()
    for number in ("01", "02", "03", "15"):
        lab.notebook(number)
    assert lab.run("--dataset", shop)[1] == ["01", "02", "03", "15"]
    assert lab.run("--dataset", shop, "--from", "02")[1] == []
    if change == "receipts":
        lab.shop(RECEIPTS + RECEIPTS.splitlines()[-1].replace("1", "2") + "\n")
    else:
        (lab.home / "shop.toml").write_text("test_weeks = 2\n" + TOML)
    for chosen in (["--only", "15"], ["--from", "02"]):
        code, ran, _, err = lab.run("--dataset", shop, *chosen)
        assert (code, ran) == (2, [])
        assert "changed after notebook 0" in err
        assert "leave out --only and --from" in err
    assert lab.run("--dataset", shop)[1] == ["01", "02", "03", "15"]
    assert lab.run("--dataset", shop, "--only", "15")[1] == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("FOLDS=x", "folds = 'x'"),
        ("FOLDS=0", "greater than or equal to 1"),
        ("TEST_WEEKS=-1", "greater than 0"),
        ("PROTOCOL=weekly", "'window' or 'next_basket'"),
        ("MIN_PRICE=cheap", "takes a number of 0 or more, or False"),
        ("TOP=True", "takes a number of 0 or more, or False"),
        ("K=0", "takes a number from 1 to 200"),
        ("K=1000", "takes a number from 1 to 200"),
        ("SHARE=25.0", "takes a number from 0.001 to 1"),
    ],
)
def test_a_value_that_a_notebook_would_refuse_is_refused_first(
    lab: Lab, given: str, words: str
) -> None:
    names = ("FOLDS", "TEST_WEEKS", "PROTOCOL", "MIN_PRICE", "TOP")
    lab.notebook("02", parameters="\n".join(f"{name} = None" for name in names))
    lab.notebook("03", parameters="K = 5\nSHARE = 0.1")
    code, ran, _, err = lab.run("-p", given)
    assert (code, ran) == (2, [])
    assert err.startswith(f"error: -p {given}: ")
    assert words in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--dataset nonsense", "choose synthetic"),
        ("--dataset gone.toml", "gone.toml does not exist"),
        ("--engine oracle", "engine 'oracle' is unknown"),
        ("--jobs 0", "'0' is not a whole number"),
        ("--jobs x", "'x'"),
        ("--seed x", "'x'"),
        ("--colour", "--colour"),
        ("--fast --save-outputs", "default run"),
        ("--compare latest", "expected 2 arguments"),
        ("--compare a b --gate c", "--compare runs nothing"),
        ("--keep 0", "'0' is not a whole number"),
    ],
)
def test_wrong_options_end_with_2_and_say_why(lab: Lab, arguments: str, words: str) -> None:
    lab.notebook("03")
    try:
        code = main(arguments.split())
    except SystemExit as stop:  # argparse's own way
        code = stop.code
    assert code == 2
    assert words in lab.capfd.readouterr().err.splitlines()[-1]


LOADS = "from recsys_utils.data import tables\nlen(tables.load(DATASET).purchases)"


def test_a_bad_file_is_one_failed_line(lab: Lab) -> None:
    """The sentence reaches the terminal whole, and no manifest makes half-written tables valid."""
    lab.notebook("01", LOADS)
    lab.notebook("03")
    code, ran, said, err = lab.run("--dataset", lab.shop(RECEIPTS + "x,a,yesterday\n"))
    assert (code, ran, said["03"]) == (1, ["01"], "skipped, needs 01_x")
    assert re.match(
        r"FAILED after .* s: LabError in cell \d+: .*receipts.csv, row 19: "
        r"sold_at 'yesterday' is not a date",
        said["01"],
    )
    assert not (lab.home / "data" / "shop" / "tables" / "manifest.json").exists()
    assert not list(lab.home.rglob("*.tmp"))


def test_a_window_longer_than_the_data_is_one_failed_line(lab: Lab) -> None:
    lab.notebook("02", "from recsys_utils.data import folds\nfolds.write_folds(DATASET)")
    code, _, said, _ = lab.run("--dataset", lab.shop())
    assert code == 1
    assert "the data starts 2024-01-01: lower test_weeks, valid_weeks or folds; see" in said["02"]
    assert not (lab.home / "data" / "shop" / "folds").exists()


def test_saved_outputs_stay_up_to_date(lab: Lab) -> None:
    """Outputs go back into the notebook without times, and saving them changes no input."""
    path = lab.notebook("03", "6 * 7")
    assert lab.run("--save-outputs")[0] == 0
    saved = nbformat.read(path, as_version=4)
    assert saved.cells[-1].outputs[0].data["text/plain"] == "42"
    assert "papermill" not in saved.metadata
    assert not [cell for cell in saved.cells if "papermill" in cell.metadata]
    assert lab.run()[1] == []


HANG = """import time
from recsys_utils.store import atomic
if not (home / "hung").exists():
    with atomic(result) as temporary:
        temporary.write_text("half")
        (home / "hung").write_text(str(os.getpid()))
        time.sleep(300)"""


def wait_until(true: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 40
    while not true():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_after_a_kill_the_next_run_goes_on(lab: Lab) -> None:
    """SIGKILL in the middle of 03: 01 is not run again, and no half file is taken for a result."""
    lab.notebook("01")
    start, _, end = BODY.format(number="03").rpartition("\n")
    lab.notebook("03", start, HANG, end, body=False)
    command = (
        "import pathlib, sys; from recsys_utils.pipeline import __main__, plan; "
        "plan.NOTEBOOKS = pathlib.Path(sys.argv[1]); sys.exit(__main__.main([]))"
    )
    victim = subprocess.Popen(
        [sys.executable, "-c", command, str(lab.notebooks)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(
            lambda: (lab.home / "hung").exists() and (lab.home / "hung").read_text() != "",
            "notebook 03",
        )
    finally:
        victim.send_signal(signal.SIGKILL)
        victim.wait()
    kernel = int((lab.home / "hung").read_text())
    wait_until(lambda: not alive(kernel), "the orphaned kernel to end by itself")
    assert (lab.home / "log").read_text().split() == ["01", "03"]
    assert not lab.result("03").exists()
    code, ran, said, _ = lab.run()
    assert (code, ran, said["01"]) == (0, ["03"], "up to date")
    assert lab.result("03").read_text() == "whole"
    states = [read_json(path) for path in lab.home.glob("data/synthetic/state/*.json")]
    assert len(states) == 2
    for state in states:
        assert not [file for file in state["outputs"] if file.endswith(".tmp")]
    assert lab.run()[1] == []


class Garbage:
    """A cycle whose end runs Python: the collector then lets other threads in."""

    def __init__(self) -> None:
        self.me = self

    def __del__(self) -> None:
        sum(range(50))


def test_threads_read_imports_at_once() -> None:
    """CPython 3.11 counts the parser's depth for all threads together: a lock keeps them apart."""
    code = "\n".join(
        f"def f{n}(a, b=({n}, [1, 2, {{3: 4}}])):\n    return [x for x in g(a)(b) if x.y.z > {n}]"
        for n in range(200)
    )

    def read(n: int) -> set:
        garbage = [Garbage() for _ in range(20)]
        del garbage
        return imports.imported_files(f"from recsys_utils import store\nn = {n}\n{code}")

    threshold = gc.get_threshold()
    interval = sys.getswitchinterval()
    gc.set_threshold(50)
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            results = {frozenset(files) for files in pool.map(read, range(60))}
    finally:
        gc.set_threshold(*threshold)
        sys.setswitchinterval(interval)
    assert len(results) == 1


def test_others_lists_run_the_report_again_and_nothing_else(lab: Lab) -> None:
    """Lists given, unchanged, changed, and dropped: only the notebook that takes them runs."""
    lab.notebook("03")
    lab.notebook("15", parameters="LISTS = {}")
    lab.run()
    vendor = lab.home / "vendor.csv"
    vendor.write_text("user_id,item_id,rank\na,b,1\n")
    with_lists = plan.parse_options(["--lists", str(vendor)])
    report = plan.make_plan(with_lists)[-1]
    assert report.params == {"LISTS": {"vendor": str(vendor)}}
    before = inputs(report)
    assert before != read_json(report.state)["inputs"]
    assert inputs(report) == before
    vendor.write_text("user_id,item_id,rank\na,c,1\n")
    assert inputs(report) != before
    assert lab.run()[1] == []
    assert all(
        inputs(task) == read_json(task.state)["inputs"] for task in plan.make_plan(with_lists)[:-1]
    )


def test_wrong_lists_are_refused_before_anything_runs(lab: Lab) -> None:
    lab.notebook("03")
    lab.notebook("15", parameters="LISTS = {}")
    vendor = lab.home / "vendor.csv"
    vendor.write_text("user_id,item_id\na,b\n")
    code, ran, _, error = lab.run("--lists", str(vendor))
    assert (code, ran) == (2, [])
    assert "vendor.csv has no column rank and none score" in error
    vendor.write_text("user_id,item_id,rank\na,b,1\n")
    code, ran, _, error = lab.run("--lists", str(vendor), "--only", "03")
    assert (code, ran) == (2, [])
    assert "no chosen notebook writes the report" in error
    code, _, _, error = lab.run("-p", "LISTS={}")
    assert code == 2
    assert "option of its own, --lists" in error


def test_a_mistyped_incumbent_is_refused_before_anything_runs(lab: Lab) -> None:
    lab.notebook("03")
    lab.notebook("15", parameters="LISTS = {}")
    toml = lab.shop()
    text = Path(toml).read_text()
    Path(toml).write_text(text + "[worth]\nincumbent = 'own_decayd'\n")
    for arguments in ([], ["--plan"], ["--only", "15"]):
        code, ran, _, error = lab.run("--dataset", toml, *arguments)
        assert (code, ran) == (2, [])
        assert "incumbent = 'own_decayd' is no model that a run makes" in error
        assert "did you mean own_decayed?" in error
    # Without the report nobody asks for it.
    assert lab.run("--dataset", toml, "--only", "03")[:2] == (0, ["03"])
    Path(toml).write_text(text + "[worth]\nincumbent = 'own_decayed'\n")
    assert lab.run("--dataset", toml)[:2] == (0, ["15"])


def test_an_incumbent_may_be_anothers_list_or_a_model_of_ones_own(lab: Lab) -> None:
    lab.notebook("15", parameters="LISTS = {}")
    toml = lab.shop()
    Path(toml).write_text(Path(toml).read_text() + "[worth]\nincumbent = 'vendor'\n")
    vendor = lab.home / "vendor.csv"
    vendor.write_text("user_id,item_id,rank\nx,a,1\n")
    code, ran, _, error = lab.run("--dataset", toml)
    assert (code, ran) == (2, [])
    assert "given as --lists vendor=FILE" in error
    tasks = lab.plan("--dataset", toml, "--lists", str(vendor))
    spec = registry.spec(toml)
    assert plan.incumbent_doubt(spec, tasks[-1].params["LISTS"]) == ""
    run = data_dir("shop", "runs", "2024-01-09", "vendor.json")
    run.parent.mkdir(parents=True)
    run.write_text("{}")
    assert plan.incumbent_doubt(spec) == ""


def test_the_models_of_a_run_are_those_of_the_published_one() -> None:
    board = pd.read_csv(ROOT / "reports" / "online_retail" / "leaderboard.csv")
    ours = board.loc[board["family"] != outside.FAMILY, "model"]
    assert sorted(ours.unique()) == plan.MODELS


# Lists with one hit for the first so many shoppers, on validation and on the test.
JUDGED = """from recsys_utils.data import folds, runs
from recsys_utils.report.page import write_report
folds.write_folds(DATASET)
fold = folds.load_fold(DATASET)
def lists(stage, served):
    bought = stage.truth.astype({"user_id": str, "item_id": str}).drop_duplicates("user_id")
    bought = bought.sort_values("user_id")[["user_id", "item_id"]].reset_index(drop=True)
    bought.loc[served:, "item_id"] = "missed"
    return bought.assign(score=1.0, rank=1)
hits = {"old": (20, 10)}
if NEW >= 0:
    hits["new"] = (30, NEW)
for model, (on_validation, on_test) in hits.items():
    runs.save_run(lists(fold.testing, on_test), fold, model, "repeat", {}, 0.5, 0.1)
    runs.save_validation(lists(fold.tuning, on_validation), fold, model)
write_report(DATASET)"""


@pytest.mark.slow
def test_a_gate_ends_with_better_worse_or_cannot_tell(lab: Lab) -> None:
    """The command as a scheduler calls it: each run is kept, and judged against the first."""
    receipts = "customer,sku,sold_at\n"
    for week in range(20):
        day = date(2024, 1, 1) + timedelta(weeks=week)
        receipts += "".join(f"c{n:02d},p{(n + week) % 9},{day}\n" for n in range(40))
    dataset = lab.shop(receipts)
    lab.notebook("15", JUDGED, parameters="NEW = -1", body=False)
    assert main(["--dataset", dataset]) == 0
    kept = lab.home / "reports" / "shop" / "runs"
    [incumbent] = [path.name for path in kept.iterdir()]
    lab.capfd.readouterr()
    for hits, code, word in ((30, 0, "better"), (0, 10, "worse"), (11, 20, "cannot tell")):
        arguments = ["--dataset", dataset, "-p", f"NEW={hits}", "--gate", incumbent]
        assert main(arguments) == code
        line = lab.capfd.readouterr().out.splitlines()[-1]
        assert line.startswith(f"gate: {word}: New against Old, the choice of {incumbent}")
        assert "95 % interval" in line
    assert len(list(kept.iterdir())) == 4
    assert main(arguments) == 20  # nothing changed, nothing is kept again
    assert "up to date" in lab.capfd.readouterr().out
    assert len(list(kept.iterdir())) == 4
    assert read_json(kept / incumbent / "manifest.json")["parameters"]["15"]["NEW"] == -1
    assert main(["--dataset", dataset, "--compare", incumbent, "latest"]) == 0
    printed = " ".join(lab.capfd.readouterr().out.split())
    assert "NEW (notebook 15) -1 11" in printed
    assert "Models only in B: new" in printed
    lab.notebook("15", "raise ValueError('no report')", parameters="NEW = -1", body=False)
    assert main(["--dataset", dataset, "--gate", incumbent]) == 1
    assert lab.capfd.readouterr().out.endswith("gate: not judged, since the run failed\n")


def test_a_gate_without_a_report_or_a_known_run_is_refused_at_once(lab: Lab) -> None:
    lab.notebook("03")
    lab.notebook("15")
    code, ran, _, error = lab.run("--gate", "latest", "--only", "03")
    assert (code, ran) == (2, [])
    assert "no chosen notebook writes the report" in error
    code, ran, _, error = lab.run("--gate", "latest")
    assert (code, ran) == (2, [])
    assert "'latest' is no kept run of 'synthetic'" in error
