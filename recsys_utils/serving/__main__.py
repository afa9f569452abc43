"""The service on the command line: serve what was trained, or train it."""

import argparse
import os
import signal
import socket
import sys
from pathlib import Path

import uvicorn

from recsys_utils import LabError
from recsys_utils.data.registry import spec
from recsys_utils.online.queue import DATABASE
from recsys_utils.serving.app import create_app
from recsys_utils.serving.artifacts import service_manifest
from recsys_utils.serving.connections import KEEP_ALIVE_SECONDS, Punctual
from recsys_utils.serving.settings import QueueSettings, Settings
from recsys_utils.serving.telemetry import log_to_stderr
from recsys_utils.store import data_dir

DRAIN = 10  # seconds that requests have to end in after a stop
# Seconds after which a thread lets another one go on: a batch must not hold up single lists.
TURN = 0.0005


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0, or 2 with the error in one sentence."""
    options = _parser().parse_args(arguments)
    try:
        options.artifacts = _folder(options)
        return _train(options) if options.command == "train" else _serve(options)
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m recsys_utils.serving",
        description="Serve recommendations, or train what is served.",
    )
    parser.add_argument("command", nargs="?", choices=("serve", "train"), default="serve")
    parser.add_argument(
        "--dataset", default="synthetic", metavar="NAME|FILE.toml", help="default: synthetic"
    )
    parser.add_argument(
        "--artifacts",
        type=Path,
        metavar="FOLDER",
        help="default: $MODEL_PATH, or data/<dataset>/serving",
    )
    parser.add_argument(
        "--models",
        metavar="NAME,NAME",
        help="train: the leaderboard models whose lists are made; default: all",
    )
    parser.add_argument(
        "--db",
        type=Path,
        metavar="FILE",
        help="serve: the queue's database; default: online/recommendation.db of the artifacts",
    )
    parser.add_argument(
        "--new-db", action="store_true", help="serve: start an empty database where there is none"
    )
    parser.add_argument(
        "--queue",
        type=Path,
        metavar="FILE.toml",
        help="serve: shown, min_pool, max_pool, [event_weights] of queues; default: $QUEUE_PATH",
    )
    parser.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1, this machine only")
    parser.add_argument("--port", type=int, default=8000, help="default: 8000")
    return parser


def _folder(options: argparse.Namespace) -> Path:
    return options.artifacts or Path(
        os.environ.get("MODEL_PATH", "").strip() or data_dir(spec(options.dataset).name, "serving")
    )


def _train(options: argparse.Namespace) -> int:
    from recsys_utils.serving.train import main as train  # brings in everything that trains

    return train(options)


def _serve(options: argparse.Namespace) -> int:
    settings = Settings.from_env().placed(options.artifacts, options.host)
    if options.queue is not None:
        settings = settings.model_copy(update={"queue": QueueSettings.load(options.queue)})
    manifest = _trained(options)
    database = options.db or options.artifacts / "online" / DATABASE
    if not database.is_file() and not options.new_db:
        raise LabError(
            f"{database} does not exist: correct --db, or add --new-db to start an empty database"
        )
    _check_address(options.host, options.port)
    print(
        f"{manifest['title']}{' (synthetic data)' if manifest['synthetic'] else ''}, trained"
        f" {manifest['trained_at']}: hybrid, als, item_cf, popularity,"
        f" {', '.join(manifest['lists'])}\nhttp://{options.host}:{options.port}",
        flush=True,
    )
    log_to_stderr(settings.debug)
    sys.setswitchinterval(TURN)
    # The server raises it once more when it has ended in peace: then it is no error.
    signal.signal(signal.SIGTERM, lambda *_: None)
    uvicorn.run(
        create_app(options.artifacts, options.db, settings),
        host=options.host,
        port=options.port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=DRAIN,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        http=Punctual,
        server_header=False,
    )
    return 0


def _check_address(host: str, port: int) -> None:
    """LabError where nobody could listen: before anything is loaded."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except (OSError, OverflowError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise LabError(
            f"port {port} of {host} cannot be opened ({said}): choose another --port or --host"
        ) from error


def _trained(options: argparse.Namespace) -> dict:
    try:
        return service_manifest(options.artifacts)
    except LabError as error:
        raise LabError(
            str(error).replace("--dataset NAME", f"--dataset {options.dataset}")
        ) from error


if __name__ == "__main__":
    sys.exit(main())
