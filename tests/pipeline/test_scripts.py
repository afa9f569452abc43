"""The commands and lists at the root of the repository."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from recsys_utils.pipeline.__main__ import main

ROOT = Path(__file__).parents[2]
SCRIPTS = ["run_all.sh", "run_tests.sh", ".ci/setup.sh", ".ci/run"]
PINS = [
    line
    for line in (ROOT / "requirements.txt").read_text().splitlines()
    if line.strip() and not line.startswith("#")
]


def name(requirement: str) -> str:
    """The package that a requirement names, as pip compares names."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def run(*command: str, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | env,
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The scripts in a folder of their own, and an active conda environment.

    Its python only notes how it is called.
    """
    for file in (*SCRIPTS, "requirements.txt", "pyproject.toml"):
        (tmp_path / "lab" / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / "lab" / file)
    python = tmp_path / "conda" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(
        f'#!/bin/sh\necho "$*" >> {tmp_path}/calls\n'
        'case "$*" in *pip*) exit ${PIP:-0};; *"ruff check"*) exit ${RUFF:-0};; esac\n'
    )
    python.chmod(0o755)
    return tmp_path


def start_script(
    copy: Path, script: str, *arguments: str, **env: str
) -> subprocess.CompletedProcess:
    """Run a copied script from elsewhere."""
    (copy / "calls").write_text("")
    return run(
        str(copy / "lab" / script),
        *arguments,
        CONDA_PREFIX=str(copy / "conda"),
        CONDA_DEFAULT_ENV="recsys",
        **env,
    )


def calls_of_python(copy: Path) -> list[str]:
    return (copy / "calls").read_text().splitlines()


def start(copy: Path, *arguments: str, **env: str) -> tuple[int, list[str], str]:
    """Run the copied run_all.sh: exit code, calls of python, stderr."""
    result = start_script(copy, "run_all.sh", *arguments, **env)
    return result.returncode, calls_of_python(copy), result.stderr


def test_setup_runs_once_and_arguments_go_through(copy: Path) -> None:
    """Set up once, then only the notebooks; again when the pins change."""
    code, calls, _ = start(copy, "--dataset", "my shop.toml")
    assert code == 0
    assert sum("-m pip" in c for c in calls) == 2
    code, calls, err = start(copy, "--dataset", "my shop.toml")
    assert (code, err) == (0, "")
    asks_settings, runs_pipeline = calls
    assert "recsys_utils.settings()" in asks_settings
    assert runs_pipeline == "-m recsys_utils.pipeline --dataset my shop.toml"
    with open(copy / "lab" / "requirements.txt", "a") as file:
        file.write("one-more==1\n")
    assert sum("-m pip" in c for c in start(copy)[1]) == 2


def test_a_failed_setup_says_so_and_is_tried_again(copy: Path) -> None:
    code, calls, err = start(copy, PIP="1")
    assert code == 1
    assert err.splitlines()[-1].startswith("setup: pip could not install requirements.txt")
    assert not [c for c in calls if "pipeline" in c]
    assert start(copy)[1][-1].endswith("-m recsys_utils.pipeline")


def test_all_tests_are_run_after_a_failure_which_is_named_at_the_end(copy: Path) -> None:
    result = start_script(copy, "run_tests.sh", RUFF="1")
    assert result.returncode == 1
    calls = "\n".join(calls_of_python(copy))
    for step in ("ruff format", "recsys_utils.pipeline", "--cov=recsys_utils", "--doctest-modules"):
        assert step in calls
    last_lines = result.stdout.partition("=== seconds\n")[2].splitlines()
    assert last_lines[-1] == "FAILED: lint"
    assert len(last_lines) > 7
    for line in last_lines[:-1]:
        assert re.fullmatch(r" *\d+ s  [a-z ,-]+", line)
    assert start_script(copy, "run_tests.sh").returncode == 0


def test_run_tests_with_arguments_is_pytest(copy: Path) -> None:
    start_script(copy, "run_tests.sh", "tests/core", "-x")
    assert calls_of_python(copy)[-1] == "-m pytest tests/core -x"


def test_help_fits_a_screen(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `./run_all.sh --help` prints, at most 24 lines of 100 columns, names every option."""
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    text = capsys.readouterr().out
    assert len(text.splitlines()) <= 24, text
    assert max(map(len, text.splitlines())) <= 100, text
    for option in (
        "--dataset",
        "--fast",
        "--only",
        "--from",
        "--jobs",
        "--seed",
        "--engine",
        "--compare RUN RUN",
        "--gate RUN",
        "--keep N",
        "-p NAME=VALUE",
    ):
        assert option in text


def test_the_real_command_says_bad_input_in_one_line() -> None:
    """No traceback on the terminal."""
    result = run(sys.executable, "-m", "recsys_utils.pipeline", "--dataset", "nonsense")
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: data set 'nonsense' is unknown: choose synthetic,")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_valid_bash(script: str) -> None:
    assert run("bash", "-n", script).returncode == 0
    text = (ROOT / script).read_text()
    if os.access(ROOT / script, os.X_OK):
        assert text.startswith("#!/usr/bin/env bash\n")
        assert "set -euo pipefail" in text


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_nothing_generated_is_tracked() -> None:
    """Only the published example's page and leaderboard, and tables of benchmarks."""
    tracked = run("git", "ls-files").stdout.splitlines()
    kinds = r"\.(parquet|csv|csv\.gz|xlsx?|pkl|pickle|joblib|npz|pt|db|sqlite3?|tmp)$"
    generated = {file for file in tracked if re.search(kinds, file)}
    folders = r"data/[^/]+/|.*/\.ipynb_checkpoints/|.*__pycache__"
    assert "run_all.sh" in tracked
    tables = {f"benchmarks/{name}.csv" for name in ("scale", "small_shops", "peers", "discovery")}
    assert generated <= {"reports/online_retail/leaderboard.csv", *tables}
    assert not [file for file in tracked if re.match(folders, file)]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
@pytest.mark.parametrize(
    "path",
    [
        "reports/online_retail/runs/2026-01-01T000000-0a1b2c3d/leaderboard.csv",
        "data/synthetic/tables/purchases.parquet",
        "data/raw/online_retail/online_retail_II.xlsx",
        "reports/synthetic/index.html",
        "reports/index.html",
        "reports/online_retail/15_comparison.html",
        "data/my_shop.toml",
    ],
)
def test_generated_files_are_ignored(path: str) -> None:
    assert run("git", "check-ignore", "-q", path).returncode == 0


def test_every_requirement_is_pinned_once() -> None:
    assert len(PINS) > 50
    assert not [line for line in PINS if not re.fullmatch(r"[\w.-]+==[\w.!]+", line)]
    assert len({name(line) for line in PINS}) == len(PINS)


def test_pins_satisfy_the_ranges() -> None:
    """Every direct dependency of pyproject.toml, and of the extras of tests, within its range."""
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = {name(line): line.split("==")[1] for line in PINS}
    extras = project["optional-dependencies"]
    for line in project["dependencies"] + extras["test"] + extras["data"]:
        wanted = Requirement(line)
        assert wanted.specifier.contains(pinned.get(name(wanted.name), "0")), wanted


def test_the_conda_environment_repeats_nothing() -> None:
    """Python and pip, and the one list of pins."""
    parts = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(p["pip"] for p in parts if isinstance(p, dict))
    named = {name(part) for part in parts if isinstance(part, str)}
    named |= {name(part) for part in pip if not part.startswith("-")}
    assert named == {"python", "pip"}
    assert not named & {name(line) for line in PINS}
    assert "-r requirements.txt" in pip
    assert "python=3.11" in parts
