"""Files behind https:// and s3://, copied beside the other raw files and kept up to date."""

import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx
from pyarrow import fs

from recsys_utils import LabError
from recsys_utils.data import urls
from recsys_utils.data.registry import Source, Spec
from recsys_utils.store import atomic, digest, home, read_json, write_json

SECONDS = 60  # without an answer
STATE = ".state.json"  # what the server said of each copied file
AS_IT_IS = {"Accept-Encoding": "identity"}  # a .csv.gz arrives as it lies there


def files(source: Source, spec: Spec) -> list[Path]:
    """Local copies of the files that the source's url names, in the order of their names.

    They lie in `data/raw/<name>/fetched/`, and only what changed since is copied again.
    Raises LabError where the url cannot be read or nothing matches it.
    """
    name = sha256(source.url.encode()).hexdigest()[:12]
    folder = home() / "data" / "raw" / spec.name / "fetched" / name
    refresh = _s3 if urls.scheme(source.url) == "s3" else _web
    with _explained(source.url):
        return refresh(urls.filled(source.url), folder)


@contextmanager
def _explained(url: str) -> Iterator[None]:
    """One sentence, without secrets, for whatever the network says."""
    try:
        yield
    except LabError as error:
        raise LabError(urls.masked(str(error), url)) from None
    except Exception as error:
        why = urls.one_line(error, url)
        # `from None`: the error of a library may hold the filled url.
        raise LabError(
            f"{url} cannot be read: {why}: check the address and the variables it needs"
        ) from None


def _web(url: str, folder: Path) -> list[Path]:
    """The one file of a url, fetched where the server says that it changed."""
    for name in ("httpx", "httpcore"):  # they would log the url, which may hold a token
        logging.getLogger(name).setLevel(logging.WARNING)
    address, login = urls.without_login(url)
    path = folder / _plain(unquote(urlsplit(address).path))
    with httpx.Client(auth=login, follow_redirects=True, timeout=SECONDS) as client:
        before = _state(folder).get(path.name)
        stamp = _web_stamp(client.head(address, headers=AS_IT_IS))
        if stamp is None or stamp != before or not path.is_file():
            with client.stream("GET", address, headers=AS_IT_IS) as answer:
                if not answer.is_success:
                    why = f"{answer.status_code} {answer.reason_phrase}"
                    raise OSError(f"the server answers {why}")
                _replace(path, lambda file: _write_all(answer, file))
            write_json({path.name: stamp}, folder / STATE)
    return [path]


def _web_stamp(answer: httpx.Response) -> list[str] | None:
    """What tells one state of the file from the next; None where the server does not say."""
    tags = [answer.headers.get(key, "") for key in ("etag", "last-modified", "content-length")]
    return tags if answer.is_success and any(tags[:2]) else None


def _write_all(answer: httpx.Response, file: Path) -> None:
    with open(file, "wb") as out:
        for block in answer.iter_raw(1 << 20):
            out.write(block)


def _s3(url: str, folder: Path) -> list[Path]:
    """All files that match an s3 url with wildcards; what is gone there goes here too."""
    pattern = unquote(url.partition("://")[2].partition("?")[0])
    bucket = _bucket(pattern.partition("/")[0])
    before = _state(folder)
    state = {}
    for found in _matching(bucket, pattern):
        name = found.path
        if ".." in Path(name).parts:
            raise ValueError(f"the name {name} leads out of its folder")
        state[name] = [found.size, str(found.mtime_ns)]
        if before.get(name) != state[name] or not (folder / name).is_file():
            _replace(folder / name, partial(_copy, bucket, name))
    if not state:
        raise FileNotFoundError("no such file")
    for gone in before.keys() - state.keys():
        (folder / gone).unlink(missing_ok=True)
    write_json(state, folder / STATE)
    return [folder / name for name in sorted(state)]


def _bucket(name: str) -> fs.S3FileSystem:
    """S3 with the credentials that the environment, its profile or the machine's role has."""
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not region and not endpoint:
        region = fs.resolve_s3_region(name)
    return fs.S3FileSystem(region=region, endpoint_override=endpoint)


def _matching(bucket: fs.FileSystem, pattern: str) -> list[fs.FileInfo]:
    """Files of a bucket; a * stands for part of one name, ** for any number of folders."""
    fixed = re.split(r"[*?]", pattern)[0]
    if fixed == pattern:
        found = [bucket.get_file_info(pattern)]
    else:
        folder = fixed.rpartition("/")[0]
        found = bucket.get_file_info(fs.FileSelector(folder, recursive=True, allow_not_found=True))
    form = re.compile(_regex(pattern))
    return [f for f in found if f.type == fs.FileType.File and form.fullmatch(f.path)]


def _regex(pattern: str) -> str:
    parts = {"**/": "(.*/)?", "*": "[^/]*", "?": "[^/]"}
    pieces = re.split(r"(\*\*/|\*|\?)", pattern)
    return "".join(parts.get(piece, re.escape(piece)) for piece in pieces)


def _copy(bucket: fs.FileSystem, source: str, target: Path) -> None:
    with bucket.open_input_stream(source) as stream, open(target, "wb") as out:
        shutil.copyfileobj(stream, out, 1 << 20)


def _replace(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file whole; where its bytes are the old ones, the old file keeps its time."""
    with atomic(path) as temporary:
        write(temporary)
        if path.is_file() and digest(path) == digest(temporary):
            shutil.copystat(path, temporary)


def _plain(path: str) -> str:
    """A file name made of the last part of a url's path."""
    return re.sub(r"[^\w.-]", "_", path.rpartition("/")[2]).lstrip(".") or "file.csv"


def _state(folder: Path) -> dict:
    return read_json(folder / STATE) if (folder / STATE).is_file() else {}
