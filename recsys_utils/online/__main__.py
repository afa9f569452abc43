"""The progressive online system on the command line: train, update, recommend, status."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from recsys_utils import LabError
from recsys_utils.online.queue import Queue
from recsys_utils.online.update import (
    DATABASE,
    Busy,
    UpdateResult,
    apply_folder,
    recommend,
    train_cold,
)

COUNTS = """
SELECT (SELECT COUNT(*) FROM events), (SELECT COUNT(*) FROM events WHERE learnt IS NULL),
    (SELECT COUNT(*) FROM purchases), (SELECT COUNT(*) FROM queue)
"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0, or 2 for bad input (in one sentence), 3 if another update is running."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 3 if isinstance(error, Busy) else 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m recsys_utils.online",
        description="A model and queues of products that learn from event files.",
    )
    commands = parser.add_subparsers(required=True, metavar="train|update|recommend|status")
    state, reading = _shared_options()
    files = {"type": Path, "metavar": "FOLDER", "help": "event files, .csv or .csv.gz"}

    train = _command(commands, "train", _train, state, reading)
    train.add_argument("--history", required=True, **files)
    train.add_argument(
        "--until",
        type=_time,
        metavar="TIME",
        help="learn events up to this time (UTC), e.g. 2019-11-30; default: all",
    )
    train.add_argument("--seed", type=_seed, default=42, help="default: 42")

    update = _command(commands, "update", _update, state, reading)
    update.add_argument("--events", required=True, **files)

    show = _command(commands, "recommend", _recommend, state)
    chosen = show.add_mutually_exclusive_group()
    chosen.add_argument("--users", metavar="ID,ID", help="default: all that have a queue")
    chosen.add_argument("--limit", type=_positive, metavar="N", help="the first N users only")
    show.add_argument("-n", type=_positive, default=3, help="products per user; default: 3")

    _command(commands, "status", _status, state)
    return parser


def _shared_options() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """Of all commands; of those that read event files."""
    state = argparse.ArgumentParser(add_help=False)
    state.add_argument(
        "--state",
        required=True,
        type=Path,
        metavar="FOLDER",
        help="where the database and the model are kept",
    )
    reading = argparse.ArgumentParser(add_help=False)
    reading.add_argument(
        "--batch",
        type=_positive,
        default=50_000,
        metavar="LINES",
        help="most lines of one update; default: 50000",
    )
    reading.add_argument(
        "--wait",
        type=_seconds,
        default=0.0,
        metavar="SECONDS",
        help="wait for another update that is running; default: 0",
    )
    return state, reading


def _command(
    commands: argparse._SubParsersAction,
    name: str,
    run: Callable[[argparse.Namespace], int],
    *parents: argparse.ArgumentParser,
) -> argparse.ArgumentParser:
    """Add a command that `run` answers; its docstring is the help."""
    text = run.__doc__
    command = commands.add_parser(name, help=text, description=text, parents=list(parents))
    command.set_defaults(run=run)
    return command


def _train(options: argparse.Namespace) -> int:
    """train the cold model on a folder of event files"""
    result = train_cold(
        options.history,
        options.state,
        now=_now(),
        until=options.until,
        seed=options.seed,
        batch=options.batch,
        wait=options.wait,
    )
    return _report(result)


def _update(options: argparse.Namespace) -> int:
    """post and learn what is new in a folder of event files"""
    result = apply_folder(
        options.events, options.state, now=_now(), batch=options.batch, wait=options.wait
    )
    return _report(result)


def _recommend(options: argparse.Namespace) -> int:
    """show products to users and write the two CSV files"""
    users = _users(options.users)
    shown = recommend(options.state, at=_now(), users=users, limit=options.limit, n=options.n)
    path = options.state / "out" / "recommendations.csv"
    print(f"{len(shown):,} products for {shown['user_id'].nunique():,} users: {path}")
    return 0


def _status(options: argparse.Namespace) -> int:
    """how the database stands, and whether it is in order"""
    with Queue(options.state / DATABASE, read_only=True) as queue:
        events, fresh, purchases, users = queue.read(COUNTS).iloc[0]
        last = queue.watermark[0] if queue.watermark else "none"
        print(
            f"{events:,} events, {fresh:,} of them not learnt yet, {purchases:,} purchases, "
            f"{users:,} users; last event {last}; model version {queue.get('version')}; "
            f"{queue.size() / 1e6:,.1f} MB"
        )
        wrong = queue.check()
    print(*wrong or ["queues and logs agree"], sep="\n")
    return 2 if wrong else 0


def _report(result: UpdateResult) -> int:
    counts = result.counts
    print(
        f"{counts.new:,} new events ({counts.purchases:,} purchases, {counts.late:,} late), "
        f"{counts.copies:,} copies, {result.rejected.total():,} rows rejected; "
        f"{result.files:,} files read, {result.skipped:,} unchanged, "
        f"{result.unfinished:,} still being written; model version {result.version}"
    )
    if counts.reused:
        print(f"  refused {counts.reused:,}: event_id was given to another event before")
    for reason, n in result.rejected.most_common():
        print(f"  rejected {n:,}: {reason}")
    for error in result.errors:
        print(f"error: {error}", file=sys.stderr)
    return 2 if result.errors else 0


def _now() -> pd.Timestamp:
    return pd.Timestamp.now("UTC").tz_localize(None).floor("us")


def _time(text: str) -> pd.Timestamp:
    try:
        time = pd.Timestamp(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"'{text}' is no time like 2019-11-30 or 2019-11-30T12:00"
        ) from error
    if pd.isna(time):
        raise argparse.ArgumentTypeError("give a time like 2019-11-30")
    return time.tz_convert("UTC").tz_localize(None) if time.tz else time


def _users(text: str | None) -> list[str] | None:
    """Ids of `--users`; None where it is not given, which means everybody."""
    if text is None:
        return None
    users = [user.strip() for user in text.split(",")]
    if not all(users):
        raise LabError(f"--users '{text}' names an empty id: take it out")
    return users


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number from 0")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is no number of seconds from 0")
    return seconds


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no number from 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
