"""The service seen from outside: a process is started, asked for every endpoint, and stopped."""

import atexit
import json
import os
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote

import httpx
import pandas as pd

from recsys_utils import LabError
from recsys_utils.online.update import DATABASE
from recsys_utils.serving.settings import Settings

API = "/api/v1"
WAIT = 120  # seconds that a start may take
WIDTH = 104  # characters of a line
# What differs from run to run.
VARIES = {
    "processing_time_ms",
    "generated_at",
    "model_version",
    "previous_version",
    "timestamp",
    "trained_at",
    "version",
    "model_path",
    "seconds",
    "model_load_time",
    "latency_ms",
    "request_id",
}


class Server:
    """The service as a process on a free port of this machine, with a copy of the queue's database.

    Nothing is written into the shop's own.
    """

    def __init__(self, folder: Path | str, cache_seconds: float = 3600) -> None:
        self.home = tempfile.TemporaryDirectory()
        self.key = secrets.token_hex(8)
        self.url = f"http://127.0.0.1:{_free_port()}"
        self.client = self.connect()
        self.command = [
            sys.executable,
            "-m",
            "recsys_utils.serving",
            "--artifacts",
            str(folder),
            "--db",
            str(_copied(Path(folder, "online"), self.path)),
            "--port",
            self.url.rpartition(":")[2],
        ]
        self.env = _clean() | {"API_KEY": self.key, "CACHE_TTL_SECONDS": f"{cache_seconds:g}"}
        self.start()

    def start(self) -> None:
        """Start it, also again after it was killed, and wait until it is ready."""
        with (self.path / "out").open("w") as out, (self.path / "log").open("w") as log:
            self.process = subprocess.Popen(self.command, stdout=out, stderr=log, env=self.env)
        atexit.register(self.process.kill)  # a notebook that fails half-way leaves nothing running
        self._wait()

    def connect(self) -> httpx.Client:
        """A client that has the key."""
        return httpx.Client(
            base_url=self.url,
            timeout=60,
            headers={"X-API-Key": self.key, "Accept": "application/json"},
        )

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def path(self) -> Path:
        """Where its database and its logs are."""
        return Path(self.home.name)

    @property
    def said(self) -> str:
        """What it printed at its start."""
        return (self.path / "out").read_text().strip()

    @property
    def log(self) -> list[str]:
        """What it logged, line by line."""
        return (self.path / "log").read_text().splitlines()

    def json(self, path: str, **params: object) -> dict:
        """The answer to a GET; LabError if it is an error."""
        answer = self.client.get(path, params=params)
        if answer.status_code != 200:
            raise LabError(f"GET {path} answered {answer.status_code}: {answer.text[:200]}")
        return answer.json()

    def stop(self) -> int:
        """End it as a supervisor does; its exit code."""
        self.client.close()
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()

    @property
    def listens(self) -> bool:
        """Whether anything answers at its port."""
        with closing(socket.socket()) as probe:
            return probe.connect_ex(("127.0.0.1", self.client.base_url.port)) == 0

    def _wait(self) -> None:
        end = time.monotonic() + WAIT
        while self.process.poll() is None and time.monotonic() < end:
            try:
                if self.client.get(f"{API}/health/ready").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        self.stop()
        raise LabError(
            f"the service did not start: {(self.path / 'log').read_text()[-500:].strip()}"
        )


class Tour:
    """Requests and answers, shown; and a book of the endpoints that were walked."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.book = {}

    def ask(self, route: str, body: dict | None = None, **params: object) -> httpx.Response:
        """The answer of one endpoint.

        route: method and path; params: what the path and the query take.
        """
        method, path = route.split()
        given = {name: params.pop(name) for name in list(params) if f"{{{name}}}" in path}
        answer = self.server.client.request(method, path.format(**given), params=params, json=body)
        self.book[route] = answer.status_code
        return answer

    def show(
        self, route: str, body: dict | None = None, few: int = 2, deep: int = 9, **params: object
    ) -> None:
        """Ask one endpoint and print request and answer.

        few: entries of a list that are shown; deep: levels of the answer that are.
        """
        answer = self.ask(route, body, **params)
        print(
            f"{route.split()[0]} {unquote(answer.request.url.raw_path.decode())}"
            + (f"\n{_pretty(body)}" if body else "")
        )
        print(f"→ {answer.status_code} {shown(answer, few, deep)}\n")

    def walked(self) -> pd.DataFrame:
        """Every endpoint of the service's own description with what it is for and what it answered.

        LabError names what was left out.
        """
        paths = self.server.json("/openapi.json")["paths"]
        there = {
            f"{method.upper()} {path}": about["description"].split(". ")[0].rstrip(".")
            for path, each in paths.items()
            for method, about in each.items()
        }
        if missing := set(there) ^ set(self.book):
            raise LabError(
                f"the tour and the service's description differ in {', '.join(sorted(missing))}"
            )
        return pd.DataFrame(
            {"what for": there.values(), "answered": [self.book[route] for route in there]},
            index=pd.Index(there, name="endpoint"),
        )


def shown(answer: httpx.Response, few: int = 2, deep: int = 9) -> str:
    """An answer shortened for people to read.

    Numbers have three digits, lists their first entries; "…" stands for what is deeper or differs
    from run to run.
    """
    if "json" not in answer.headers["content-type"]:
        return "\n".join(
            line
            for line in answer.text.splitlines()
            if line.startswith(("recommendations_total", "new_clients_total"))
        )
    return _pretty(
        _cut(json.loads(answer.text, parse_float=lambda text: round(float(text), 3)), few, deep)
    )


def _cut(value: object, few: int, deep: int) -> object:
    if isinstance(value, dict | list) and value and not deep:
        return "…"
    if isinstance(value, dict):
        return {
            name: "…" if name in VARIES and part is not None else _cut(part, few, deep - 1)
            for name, part in value.items()
        }
    if isinstance(value, list):
        most = few if value and isinstance(value[0], dict) else few + 3
        return [_cut(part, few, deep - 1) for part in value[:most]] + (
            [f"… {len(value) - most:,} more"] if len(value) > most else []
        )
    return value if not isinstance(value, str) or len(value) <= 160 else f"{value[:159]}…"


def _pretty(value: object, indent: str = "", before: int = 0) -> str:
    """JSON with as much on a line as fits.

    Of what does not, each part that has parts begins a line. before: characters already there.
    """
    text = json.dumps(value, ensure_ascii=False)
    if len(indent) + before + len(text) < WIDTH or not isinstance(value, dict | list):
        return text
    named = isinstance(value, dict)
    deeper = indent + "  "
    lines = []
    open_line = False
    for name, part in value.items() if named else enumerate(value):
        label = f"{json.dumps(name, ensure_ascii=False)}: " if named else ""
        new = label + _pretty(part, deeper, len(label))
        plain = not isinstance(part, dict | list)
        if plain and open_line and len(deeper) + len(lines[-1]) + len(new) + 3 <= WIDTH:
            lines[-1] += f", {new}"
        else:
            lines.append(new)
        open_line = plain
    return (
        f"{'{' if named else '['}\n"
        + ",\n".join(deeper + line for line in lines)
        + f"\n{indent}{'}' if named else ']'}"
    )


def refusals(server: Server, user: str) -> pd.DataFrame:
    """What is refused: request, status, and the sentence that names the field and the cure."""
    lists = f"{API}/recommendations"
    events = f"{API}/events"
    view = {"events": [{"user_id": "a", "item_id": "b", "event_type": "view"}]}
    asked = [
        ("GET", f"{lists}/{user}?n=0", {}),
        ("GET", f"{lists}/{user}?model=magic", {}),
        ("GET", f"{lists}/{user}?timestamp=soon", {}),
        ("GET", f"{lists}/{user}?price_min=9&price_max=2", {}),
        ("POST", lists, {"json": {"user": user}}),
        ("POST", lists, {"content": "{"}),
        ("GET", f"{API}/items/nothing/similar", {}),
        ("POST", events, {"json": {"events": []}}),
        ("POST", f"{events} without its key", {"json": view, "headers": {"X-API-Key": ""}}),
        (
            "POST",
            f"{events} from another site's page",
            {"json": view, "headers": {"Origin": "https://elsewhere.example"}},
        ),
        ("GET", f"{API}/models of another host's name", {"headers": {"Host": "elsewhere.example"}}),
        ("GET", "/nowhere", {}),
    ]
    rows = []
    for method, path, sent in asked:
        answer = server.client.request(method, path.split()[0], **sent)
        body = (
            json.dumps(sent["json"])
            if "json" in sent and "headers" not in sent
            else sent.get("content", "")
        )
        what = f"{method} {path} {body}"
        rows.append(
            {"request": what.strip(), "status": answer.status_code, "error": answer.json()["error"]}
        )
    return pd.DataFrame(rows).set_index("request")


def _copied(online: Path, folder: Path) -> Path:
    """The queue's database as it is now, with the model that it names."""
    uri = f"{(online / DATABASE).absolute().as_uri()}?mode=ro"
    with (
        closing(sqlite3.connect(uri, uri=True)) as old,
        closing(sqlite3.connect(folder / DATABASE)) as new,
    ):
        old.backup(new)
    for model in online.glob("model-*.npz"):
        shutil.copy(model, folder)
    return folder / DATABASE


def _clean() -> dict[str, str]:
    """The environment without settings of another service."""
    ours = {name.upper() for name in Settings.model_fields} | {"TUNING_PATH"}
    return {name: value for name, value in os.environ.items() if name not in ours}


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
