"""Every command that README.md and notebooks/README.md name, run in a fresh shell of a clean clone.

Set-up is real but for pip, which would load for minutes: the clone's `.venv` has this Python, which
finds the clone's code first. Commands of the environment are run after README's own line that
activates it. Long commands are run with the arguments of `SHORTER`.
"""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError

import pandas as pd
import pytest
from shops import synthetic_tables

from recsys_utils.evaluation.ab_test import arms
from recsys_utils.online.events import write_csv

ROOT = Path(__file__).parents[2]
BOOKS = [ROOT / name for name in ("README.md", "notebooks/README.md") if (ROOT / name).exists()]
ACTIVATE = "source .venv/bin/activate"
# Commands that take minutes: a pattern, and what is added to the command here.
SHORTER = {
    r"\./run_all\.sh": "--fast --only 01",
    r"\./run_tests\.sh": "tests/core/test_topk.py",
    r"\./run_all\.sh --dataset path/to/my_shop\.toml": "--fast --only 01,02,03",
    r"\./run_all\.sh --dataset path/to/my_shop\.toml --engine sail": "--fast --only 01,02",
    r"\./run_all\.sh --dataset (?!path)\S+": "--fast --only 01",
    r"\./run_all\.sh --dataset (?!path)\S+ -p FOLDS=\d": "--fast --only 02",
    r"\./run_all\.sh --dataset (?!path)\S+ --only [\d,]+": "--help",
    # Of an option that is given twice the last one counts: a small shop instead of the synthetic.
    r"python -m recsys_utils\.serving train .*": (
        "--dataset path/to/my_shop.toml --models own_decayed"
    ),
    r"python -m recsys_utils\.ensembles\.training .*": "--data-path path/to/my_shop.toml",
}
# Commands that do not end by themselves: a pattern, what is added, and an address that answers.
SERVERS = {
    r"python -m recsys_utils\.serving( --dataset synthetic)?": (
        "--port {port}",
        "/api/v1/health",
    ),
    r"jupyter lab notebooks/?": (
        "--no-browser --allow-root --port {port} --IdentityProvider.token=secret",
        "/api/kernelspecs?token=secret",
    ),
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout"),
]


def commands(book: Path) -> list[str]:
    """The commands of all bash blocks: comments dropped, lines that end in a backslash joined."""
    blocks = re.findall(r"^```bash\n(.*?)^```", book.read_text(), re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    without_comments = [re.sub(r"(^|\s+)#.*", "", line) for line in lines]
    return [" ".join(line.split()) for line in without_comments if line.strip()]


COMMANDS = list(dict.fromkeys(command for book in BOOKS for command in commands(book)))
COMMANDS = [command for command in COMMANDS if command != ACTIVATE]


def in_shell(command: str, arguments: str) -> list[str]:
    """The command as a person types it, after README's activation where it is no script of ours."""
    line = f"{command} {arguments}"
    if not command.startswith("./"):
        line = f"./run_all.sh --help >/dev/null && {ACTIVATE} && {line}"
    return ["bash", "-c", line]


def added(command: str) -> str | None:
    """What is added to a long command; None where the command is only looked up."""
    for pattern, arguments in SHORTER.items():
        if re.fullmatch(pattern, command):
            return arguments
    return ""


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, default_run: Path) -> Path:
    """A clean clone after `./run_all.sh`, with a shop's files where README says."""
    root = tmp_path_factory.mktemp("clone") / "retail-recsys-lab"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(root)], check=True)
    make_environment(root)
    served = Path("data") / "synthetic" / "serving"
    shutil.copytree(default_run / served, root / served)
    write_shop(root)
    write_events(root)
    write_results(root)
    # A kernel of somebody else's, under the name that notebooks ask for.
    kernel = root.parent / "home" / ".local" / "share" / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text(
        json.dumps({"argv": ["/nowhere/python"], "display_name": "Other", "language": "python"})
    )
    return root


def make_environment(root: Path) -> None:
    """`.venv` with the packages of this Python; its pip does nothing."""
    place = root / ".venv"
    subprocess.run(["python3.11", "-m", "venv", "--without-pip", str(place)], check=True)
    packages = place / "lib" / "python3.11" / "site-packages"
    here = Path(pytest.__file__).parents[1]
    (packages / "clone.pth").write_text(f"{root}\n{root / 'notebooks'}\n{here}\n")
    (packages / "pip").mkdir()
    (packages / "pip" / "__main__.py").write_text("")
    for name in ("jupyter", "jupyter-lab"):
        script = (Path(sys.prefix) / "bin" / name).read_text().split("\n", 1)[1]
        (place / "bin" / name).write_text(f"#!{place / 'bin' / 'python'}\n{script}")
        (place / "bin" / name).chmod(0o755)
    shared = place / "share" / "jupyter"
    shared.mkdir(parents=True)
    for folder in (Path(sys.prefix) / "share" / "jupyter").iterdir():
        # Set-up writes the kernel itself.
        if folder.name != "kernels":
            (shared / folder.name).symlink_to(folder)


def write_shop(root: Path) -> None:
    """README's own TOML block and the receipts that it describes."""
    [toml] = re.findall(r"^```toml\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    assert set(tomllib.loads(toml)) <= {"currency", "purchases"}
    receipts = synthetic_tables(lines=6_000, seed=3)["purchases"]
    folder = root / "path" / "to"
    folder.mkdir(parents=True)
    (folder / "my_shop.toml").write_text(toml)
    table = pd.DataFrame(
        {
            "customer": receipts["user_id"],
            "sku": receipts["item_id"],
            "sold_at": receipts["ts"],
            "receipt": receipts["basket_id"],
            "units": receipts["quantity"],
            "line_total": receipts["price"] * receipts["quantity"],
        }
    )
    table.to_csv(folder / "receipts.csv", index=False)


def write_events(root: Path) -> None:
    """Event files of a shop, the last day's in the inbox."""
    tables = synthetic_tables(lines=6_000, seed=3)
    events = tables["events"]
    is_late = events["ts"] >= events["ts"].max() - pd.Timedelta(days=1)
    write_csv(events[~is_late], tables["items"], root / "history")
    write_csv(events[is_late], tables["items"], root / "inbox")


def write_results(root: Path) -> None:
    """What came out of a test with README's salt: its arms, and some spending."""
    users = [f"c{n}" for n in range(1000)]
    table = pd.DataFrame({"user_id": users, "arm": arms(users, "spring")})
    table.assign(spend=[n % 50 for n in range(1000)]).to_csv(root / "results.csv", index=False)


def fresh_shell(clone: Path) -> dict[str, str]:
    """What a new terminal has."""
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(clone.parent / "home"),
        "LANG": "C.UTF-8",
    }
    if "RECSYS_DATA" in os.environ:
        environment["RECSYS_DATA"] = os.environ["RECSYS_DATA"]
    return environment


def real_data_is_missing(command: str) -> bool:
    dataset = re.search(r"(?:--dataset|--data-path) (\w+)( |$)", command)
    return bool(dataset) and dataset[1] != "synthetic" and "RECSYS_DATA" not in os.environ


@pytest.mark.parametrize(
    "command", [c for c in COMMANDS if not any(re.fullmatch(p, c) for p in SERVERS)]
)
def test_a_command_runs_as_it_is_written(clone: Path, command: str) -> None:
    arguments = added(command)
    if arguments is None:
        # Measurements take minutes: the file they name must be there and be Python.
        script = shlex.split(command)[1]
        compile((clone / script).read_text(), script, "exec")
        return
    result = subprocess.run(
        in_shell(command, arguments),
        cwd=clone,
        env=fresh_shell(clone),
        capture_output=True,
        text=True,
        timeout=300,
    )
    printed = result.stdout + result.stderr
    if real_data_is_missing(command) and "--help" not in arguments:
        assert result.returncode == 2, printed
        assert "is missing" in printed
    else:
        assert result.returncode == 0, printed


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


@contextmanager
def started(clone: Path, command: list[str], log: Path) -> Iterator[None]:
    """The command in a shell of its own, stopped with everything that it started."""
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            cwd=clone,
            env=fresh_shell(clone),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def answer(address: str, log: Path) -> dict:
    """The JSON at an address, as soon as somebody answers there."""
    end = time.monotonic() + 90
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(address, timeout=5) as response:
                return json.load(response)
        except (URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    pytest.fail(f"{address} does not answer: {log.read_text()[-2000:]}")


def serve(clone: Path, tmp_path: Path, pattern: str) -> dict:
    """Run the README's one command of this pattern; what its address answers."""
    matching = [command for command in COMMANDS if re.fullmatch(pattern, command)]
    assert matching, f"README names no command like {pattern}"
    arguments, path = SERVERS[pattern]
    port = free_port()
    log = tmp_path / "log"
    with started(clone, in_shell(matching[0], arguments.format(port=port)), log):
        return answer(f"http://127.0.0.1:{port}{path}", log)


def test_the_service_starts(clone: Path, tmp_path: Path) -> None:
    service, _ = SERVERS
    assert serve(clone, tmp_path, service)


def test_jupyterlab_opens_on_the_kernel_of_this_project(clone: Path, tmp_path: Path) -> None:
    _, jupyterlab = SERVERS
    kernels = serve(clone, tmp_path, jupyterlab)
    assert kernels["default"] == "python3"
    kernel = kernels["kernelspecs"]["python3"]["spec"]["argv"][0]
    assert kernel == str(clone / ".venv" / "bin" / "python")


def test_a_newcomer_is_told_how_to_activate_the_environment() -> None:
    """Before the first command that needs it."""
    text = (ROOT / "README.md").read_text()
    needs_it = re.search(r"^(python|jupyter) ", text, re.MULTILINE)
    assert ACTIVATE in text[: needs_it.start()]
    for command in COMMANDS:
        assert command.split()[0] in ("./run_all.sh", "./run_tests.sh", "python", "jupyter")
