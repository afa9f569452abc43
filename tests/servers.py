"""Real database servers on loopback ports, and small web servers, for the tests of sources."""

import base64
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, quote, unquote, urlsplit

import psycopg
import pymysql

PASSWORD = "geheim@7/x:y%z'ü"  # nothing in it may need care from the shop


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def server_user() -> dict:
    """Database servers refuse to run as root: who runs them instead, for subprocess."""
    return {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}


@contextmanager
def server_folder() -> Iterator[Path]:
    """A folder that the servers' user may enter, which pytest's own is not."""
    folder = Path(tempfile.mkdtemp(prefix="lab_db_"))
    if who := server_user():
        shutil.chown(folder, who["user"], who["group"])
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def postgres_programs() -> Path | None:
    """The folder of initdb and pg_ctl, or None where no server is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    in_path = shutil.which("initdb")
    return Path(in_path).parent if in_path else None


@contextmanager
def postgres(programs: Path) -> Iterator[int]:
    """A PostgreSQL server with user and database shop; yields its port."""
    port = free_port()
    with server_folder() as folder:
        (folder / "password").write_text(PASSWORD, encoding="utf-8")
        (folder / "password").chmod(0o644)
        login = ["-U", "shop", "-A", "scram-sha-256", f"--pwfile={folder}/password"]
        first = [programs / "initdb", "-D", folder / "db", "-E", "UTF8", "--no-sync", *login]
        _run(first, folder)
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c fsync=off -k {folder}"
        control = [programs / "pg_ctl", "-D", folder / "db", "-w", "-l", folder / "log"]
        _run([*control, "-o", options, "start"], folder)
        try:
            with postgres_admin(port, "postgres") as admin:
                admin.execute("CREATE DATABASE shop")
            yield port
        finally:
            _run([*control, "-m", "immediate", "stop"], folder)


def postgres_admin(port: int, database: str = "shop") -> psycopg.Connection:
    return psycopg.connect(
        host="127.0.0.1",
        port=port,
        user="shop",
        password=PASSWORD,
        dbname=database,
        autocommit=True,
    )


@contextmanager
def mysql() -> Iterator[int]:
    """A MariaDB server with user and database shop; yields its port."""
    port = free_port()
    with server_folder() as folder:
        normal = "--auth-root-authentication-method=normal"
        _run(["mariadb-install-db", "--no-defaults", f"--datadir={folder}/db", normal], folder)
        files = [f"--datadir={folder}/db", f"--socket={folder}/socket", f"--pid-file={folder}/pid"]
        command = ["mariadbd", "--no-defaults", "--bind-address=127.0.0.1", f"--port={port}"]
        with open(folder / "log", "w") as log:
            server = subprocess.Popen(
                [*command, *files], stdout=log, stderr=log, cwd=folder, **server_user()
            )
        try:
            root = _patiently(lambda: pymysql.connect(unix_socket=f"{folder}/socket", user="root"))
            with root, root.cursor() as cursor:
                cursor.execute("CREATE DATABASE shop")
                cursor.execute("CREATE USER shop@localhost IDENTIFIED BY %s", [PASSWORD])
                cursor.execute("GRANT ALL ON shop.* TO shop@localhost")
            yield port
        finally:
            server.terminate()
            server.wait(30)


def mysql_admin(port: int) -> pymysql.Connection:
    return pymysql.connect(
        host="127.0.0.1",
        port=port,
        user="shop",
        password=PASSWORD.encode(),  # it would take a text for latin-1
        database="shop",
        autocommit=True,
    )


def _run(command: list, folder: Path) -> None:
    with open(folder / "setup.log", "a") as log:
        subprocess.run(
            command, check=True, stdout=log, stderr=log, cwd=folder, timeout=120, **server_user()
        )


def _patiently(
    connect: Callable[[], pymysql.Connection], seconds: float = 30
) -> pymysql.Connection:
    end = time.monotonic() + seconds
    while True:
        try:
            return connect()
        except pymysql.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


class Web:
    """Files by path, and what was asked for them: (method, path with query, headers)."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str, dict]] = []
        self.says_tags = True
        self.login: str | None = None  # user:password that it wants
        self.port = 0

    def gets(self) -> list[str]:
        return [path for method, path, _ in self.asked if method == "GET"]

    @contextmanager
    def running(self) -> Iterator["Web"]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.port = server.server_port
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def _handler(web: Web) -> type[BaseHTTPRequestHandler]:
    """Plain files, and of S3 the list of a bucket (version 2)."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            headers = {key.lower(): value for key, value in self.headers.items()}
            web.asked.append((self.command, self.path, headers))
            path = unquote(urlsplit(self.path).path)
            query = parse_qs(urlsplit(self.path).query)
            wanted = web.login and f"Basic {base64.b64encode(web.login.encode()).decode()}"
            if wanted and self.headers.get("Authorization") != wanted:
                self.answer(401, b"")
            elif "list-type" in query:
                self.answer(200, _listing(web, path.strip("/"), query.get("prefix", [""])[0]))
            elif path in web.files:
                self.answer(200, web.files[path], tags=web.says_tags)
            else:
                self.answer(404, b"")

        def answer(self, status: int, body: bytes, tags: bool = False) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if tags:
                self.send_header("ETag", f'"{md5(body).hexdigest()}"')
                self.send_header("Last-Modified", formatdate(0, usegmt=True))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    return Handler


def _listing(web: Web, bucket: str, prefix: str) -> bytes:
    keys = [path.removeprefix(f"/{bucket}/") for path in web.files if path.startswith(f"/{bucket}")]
    entries = "".join(
        f"<Contents><Key>{quote(key)}</Key><Size>{len(web.files[f'/{bucket}/{key}'])}</Size>"
        f"<LastModified>2024-01-0{len(web.files[f'/{bucket}/{key}']) % 9 + 1}T00:00:00.000Z"
        "</LastModified></Contents>"
        for key in sorted(keys)
        if key.startswith(prefix)
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult>'
        f"<Name>{bucket}</Name><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"
    ).encode()
