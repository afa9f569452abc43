"""System 4 on the command line: train the cold model, apply new event files (from cron, if you like), recommend, and say how things stand."""

import argparse
import sys
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


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0, 2 for bad input (said in one sentence), 3 where another update is running."""
    options = _parser().parse_args(arguments)
    try:
        return COMMANDS[options.command](options)
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 3 if isinstance(error, Busy) else 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m recsys_utils.online",
        description="A model and queues of products that learn from event files.",
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="train|update|recommend|status"
    )
    made = {
        name: commands.add_parser(name, help=text, description=text) for name, text in HELP.items()
    }
    for command in made.values():
        command.add_argument(
            "--state",
            required=True,
            type=Path,
            metavar="FOLDER",
            help="where the database and the model are kept",
        )
    made["train"].add_argument(
        "--history", required=True, type=Path, metavar="FOLDER", help="event files, .csv or .csv.gz"
    )
    made["train"].add_argument(
        "--until",
        type=_time,
        metavar="TIME",
        help="learn events up to this time (UTC), e.g. 2019-11-30; default: all",
    )
    made["train"].add_argument("--seed", type=int, default=42, help="default: 42")
    made["update"].add_argument(
        "--events", required=True, type=Path, metavar="FOLDER", help="event files, .csv or .csv.gz"
    )
    for name in ("train", "update"):
        made[name].add_argument(
            "--batch",
            type=_positive,
            default=50_000,
            metavar="LINES",
            help="most lines of one delta; default: 50000",
        )
        made[name].add_argument(
            "--wait",
            type=float,
            default=0.0,
            metavar="SECONDS",
            help="wait for another update that is running; default: 0",
        )
    which = made["recommend"].add_mutually_exclusive_group()
    which.add_argument("--users", metavar="ID,ID", help="default: all that have a queue")
    which.add_argument("--limit", type=_positive, metavar="N", help="the first N users only")
    made["recommend"].add_argument(
        "-n", type=_positive, default=3, help="products per user; default: 3"
    )
    return parser


def _train(options: argparse.Namespace) -> int:
    report = train_cold(
        options.history,
        options.state,
        now=_now(),
        until=options.until,
        seed=options.seed,
        batch=options.batch,
        wait=options.wait,
    )
    return _say(report)


def _update(options: argparse.Namespace) -> int:
    return _say(
        apply_folder(
            options.events, options.state, now=_now(), batch=options.batch, wait=options.wait
        )
    )


def _recommend(options: argparse.Namespace) -> int:
    users = options.users.split(",") if options.users else None
    shown = recommend(options.state, at=_now(), users=users, limit=options.limit, n=options.n)
    print(
        f"{len(shown):,} products for {shown['user_id'].nunique():,} users: {options.state / 'out' / 'recommendations.csv'}"
    )
    return 0


def _status(options: argparse.Namespace) -> int:
    with Queue(options.state / DATABASE, read_only=True) as queue:
        counts = queue.read(
            "SELECT (SELECT COUNT(*) FROM events) AS events, (SELECT COUNT(*) FROM events WHERE learnt IS NULL) AS fresh, "
            "(SELECT COUNT(*) FROM queue) AS users, (SELECT COUNT(*) FROM purchases) AS purchases"
        ).iloc[0]
        print(
            f"{counts['events']:,} events, {counts['fresh']:,} of them not learnt yet, {counts['purchases']:,} purchases, {counts['users']:,} users; "
            f"last event {queue.watermark[0] if queue.watermark else 'none'}; model version {queue.get('version')}; {queue.size() / 1e6:,.1f} MB"
        )
        wrong = queue.check()
    print(*wrong or ["queues and logs agree"], sep="\n")
    return 2 if wrong else 0


def _say(report: UpdateResult) -> int:
    new, copies, late, purchases = report.counts
    print(
        f"{new:,} new events ({purchases:,} purchases, {late:,} late), {copies:,} copies, {report.rejected.total():,} rows rejected; {report.files:,} "
        f"files read, {report.skipped:,} unchanged, {report.unfinished:,} still being written; model version {report.version}"
    )
    for reason, n in report.rejected.most_common():
        print(f"  rejected {n:,}: {reason}")
    for error in report.errors:
        print(f"error: {error}", file=sys.stderr)
    return 2 if report.errors else 0


def _now() -> pd.Timestamp:
    return pd.Timestamp.now("UTC").tz_localize(None).floor("us")


def _time(text: str) -> pd.Timestamp:
    try:
        made = pd.Timestamp(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"'{text}' is no time like 2019-11-30 or 2019-11-30T12:00"
        ) from error
    if pd.isna(made):
        raise argparse.ArgumentTypeError("give a time like 2019-11-30")
    return made.tz_convert("UTC").tz_localize(None) if made.tz else made


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no number from 1")
    return int(text)


COMMANDS = {"train": _train, "update": _update, "recommend": _recommend, "status": _status}
HELP = {
    "train": "train the cold model on a folder of event files",
    "update": "post and learn what is new in a folder of event files",
    "recommend": "show products to users and write the two CSV files",
    "status": "how the database stands, and whether it is in order",
}

if __name__ == "__main__":
    sys.exit(main())
