"""Where things lie on disk, and how they get there whole: atomic writes and one bundle format.

A bundle is a folder of files and a manifest. The manifest is written last. It names the kind of
the bundle, the cut (what was fitted saw nothing later), the versions of the libraries, and the
SHA-256 of every file, and it vouches for itself by a seal. Nothing here reads or writes pickle.
"""

import hashlib
import io
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import sparse

from recsys_utils import LabError

ROOT = Path(__file__).resolve().parents[1]  # of the repository
SCHEMA = 2  # of a manifest
# How often a bundle is read, and seconds between, before it counts as damaged.
ATTEMPTS = 4
PAUSE = 0.1
MANIFEST = "manifest.json"
LIBRARIES = (
    "duckdb",
    "implicit",
    "lightgbm",
    "numpy",
    "pandas",
    "rectools-lightfm",
    "scikit-learn",
    "scipy",
    "torch",
)

Arrays = dict[str, np.ndarray | sparse.csr_matrix]
Part = Arrays | pd.DataFrame | dict | str | bytes


def home() -> Path:
    """The repository's root, or `$RECSYS_HOME`: the folder that holds `data/` and `reports/`."""
    return Path(os.environ.get("RECSYS_HOME", ROOT)).resolve()


def data_dir(dataset: str, *parts: str) -> Path:
    """`data/<dataset>/…`, the generated files of a data set."""
    return home().joinpath("data", dataset, *parts)


def report_dir(dataset: str) -> Path:
    """`reports/<dataset>`, what a person reads."""
    return home() / "reports" / dataset


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, renamed onto it on success and removed on failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_parquet(frame: pd.DataFrame, path: Path) -> Path:
    """Write a frame; timestamps stay in microseconds, categories become dictionaries."""
    with atomic(path) as temporary:
        frame.to_parquet(temporary, index=False, coerce_timestamps="us")
    return path


def read_parquet(
    *paths: Path, cure: str = "run ./run_all.sh", columns: list[str] | None = None
) -> pd.DataFrame:
    """Read generated frames, one below the other, or say in one sentence how to make them.

    Ids come as categories: a quarter of the memory, and numbered already. columns: only these.
    """
    if missing := [path for path in paths if not path.exists()]:
        raise LabError(f"{missing[0]} is missing: {cure} first")
    fields = pq.read_schema(paths[0])
    ids = [f.name for f in fields if f.name.endswith("_id") and not pa.types.is_integer(f.type)]
    return (
        pa.concat_tables(
            pq.read_table(path, columns=columns, read_dictionary=ids) for path in paths
        )
        .unify_dictionaries()
        .to_pandas()
    )


def write_json(value: object, path: Path) -> Path:
    """Write JSON, sorted so that equal values are equal bytes."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, sort_keys=True, default=str) + "\n")
    return path


def read_json(path: Path, cure: str = "run ./run_all.sh") -> dict:
    """Read JSON, or say in one sentence how to make it."""
    if not path.exists():
        raise LabError(f"{path} is missing: {cure} first")
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise LabError(f"{path} is damaged: {cure} again") from error


def digest(*paths: Path) -> str:
    """SHA-256 over the bytes of files, in the order given."""
    total = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                total.update(block)
    return total.hexdigest()


def library_versions() -> dict[str, str]:
    """Versions of the libraries that results depend on, of those that are installed."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def save_bundle(
    folder: Path,
    kind: str,
    parts: Mapping[str, Part],
    meta: Mapping[str, object],
    cut: object,
    *,
    manifest: str = MANIFEST,
    fixed_names: bool = False,
) -> Path:
    """Write parts and the manifest that vouches for them; the folder.

    Nothing is put in its place before everything is written, and the manifest comes last.

    kind: what this is, for example "model"; a reader asks for it.
    parts: by file name. `.npz` takes named arrays (dense or CSR), `.parquet` a frame, `.json` what
        JSON can hold; other suffixes take text or bytes.
    meta: what else the manifest should say; JSON.
    cut: the time before which everything lies that this was fitted on; None for what has none.
    fixed_names: keep the parts' names on disk; who reads while it is written waits a moment.
        Otherwise a file's name carries its digest, and files of the version before are removed
        once the new manifest stands.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = save_bundle(folder, "prices", {"p.json": {"tea": 2.5}}, {"shop": "ours"}, None)
    >>> parts, about = load_bundle(folder, "prices", "save the prices")
    >>> parts["p.json"], about["shop"]
    ({'tea': 2.5}, 'ours')
    """
    names = {}
    with ExitStack() as stack:  # closed in reverse order: the manifest is put in its place last
        manifest_path = stack.enter_context(atomic(folder / manifest))
        written = {}
        for part, content in parts.items():
            raw = _encode(part, content)
            names[part] = part if fixed_names else _name_with_digest(part, raw)
            written[part] = stack.enter_context(atomic(folder / names[part]))
            written[part].write_bytes(raw)
        extra = {} if fixed_names else {"names": names}
        write_manifest(manifest_path, kind, written, {**meta, **extra}, cut)
    if not fixed_names:
        _remove_older(folder, names)
    return folder


def load_bundle(
    folder: Path, kind: str, cure: str, *, manifest: str = MANIFEST
) -> tuple[dict[str, Part], dict]:
    """The parts and the manifest that `save_bundle` wrote.

    Raises LabError that names the file that is missing, changed, of another kind or version. What
    is being saved at this moment looks changed, so it is read again before that is said.
    """
    for attempt in range(ATTEMPTS):
        meta = read_manifest(folder / manifest, kind, cure)
        names = meta.get("names") or {part: part for part in meta["sha256"]}
        raws = {part: _read_bytes(folder / name) for part, name in names.items()}
        wrong = [
            part
            for part, sha in meta["sha256"].items()
            if hashlib.sha256(raws[part]).hexdigest() != sha
        ]
        if not wrong:
            return {part: _decode(part, raw) for part, raw in raws.items()}, meta
        if attempt < ATTEMPTS - 1:
            time.sleep(PAUSE)
    path = folder / names[wrong[0]]
    raise LabError(f"{path} {_fault(path)}: {cure} again")


def write_manifest(
    path: Path, kind: str, files: Mapping[str, Path], meta: Mapping[str, object], cut: object
) -> dict:
    """Write a sealed manifest of files that are on disk already; its content."""
    manifest = {
        **meta,
        "schema": SCHEMA,
        "kind": kind,
        "cut": None if cut is None else str(cut),
        "libraries": library_versions(),
        "sha256": {name: digest(file) for name, file in files.items()},
    }
    write_json({**manifest, "seal": _seal(manifest)}, path)
    return manifest


def read_manifest(path: Path, kind: str, cure: str) -> dict:
    """A manifest without its seal, after checking seal, schema and kind.

    cure: what to do where it is missing or wrong, for example "train the model".
    """
    meta = read_json(path, cure)
    schema = meta.get("schema") if isinstance(meta, dict) else None
    if schema != SCHEMA:
        raise LabError(f"{path} has schema {schema}, this version reads {SCHEMA}: {cure} again")
    if meta.pop("seal", None) != _seal(meta):
        raise LabError(f"{path} was changed after it was saved: {cure} again")
    if meta["kind"] != kind:
        raise LabError(f"{path} describes a {meta['kind']}, not a {kind}: {cure} again")
    return meta


def verify_files(manifest: dict, files: Mapping[str, Path], cure: str) -> None:
    """Refuse by name a file that is missing, or that is not the one the manifest describes."""
    for name, path in files.items():
        if not path.is_file() or digest(path) != manifest["sha256"].get(name):
            raise LabError(f"{path} {_fault(path)}: {cure} again")


def _read_bytes(path: Path) -> bytes:
    """The bytes of a file, none where it is missing or has just been removed."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _fault(path: Path) -> str:
    if path.is_file():
        return "was changed after it was saved, or belongs to another bundle"
    return "is missing"


def _seal(manifest: dict) -> str:
    """Of what a reader of the JSON sees, where every key is text."""
    as_read = json.loads(json.dumps(manifest, default=str))
    return hashlib.sha256(json.dumps(as_read, sort_keys=True).encode()).hexdigest()


def _name_with_digest(part: str, raw: bytes) -> str:
    stem, dot, suffix = part.partition(".")
    return f"{stem}-{hashlib.sha256(raw).hexdigest()[:16]}{dot}{suffix}"


def _remove_older(folder: Path, names: Mapping[str, str]) -> None:
    """Delete the parts of earlier versions of a bundle."""
    for part, name in names.items():
        stem, dot, suffix = part.partition(".")
        for path in folder.glob(f"{stem}-{'?' * 16}{dot}{suffix}"):
            if path.name != name:
                path.unlink()


def _encode(part: str, content: Part) -> bytes:
    """A part as the bytes of its file."""
    if isinstance(content, bytes):
        return content
    if isinstance(content, str):
        return content.encode()
    if isinstance(content, pd.DataFrame):
        buffer = io.BytesIO()
        content.to_parquet(buffer, coerce_timestamps="us")
        return buffer.getvalue()
    if part.endswith(".npz"):
        buffer = io.BytesIO()
        np.savez(buffer, **_dense(content))
        return buffer.getvalue()
    return json.dumps(content, indent=1, sort_keys=True, default=str).encode()


def _decode(part: str, raw: bytes) -> Part:
    """What `_encode` took; text and bytes of other suffixes come as bytes."""
    if part.endswith(".npz"):
        with np.load(io.BytesIO(raw), allow_pickle=False) as file:
            return _sparse_again(dict(file))
    if part.endswith(".parquet"):
        return pd.read_parquet(io.BytesIO(raw))
    if part.endswith(".json"):
        return json.loads(raw)
    return raw


def _dense(arrays: Arrays) -> dict[str, np.ndarray]:
    """Named arrays as dense ones only, which is what an npz file can hold.

    A CSR matrix becomes `name:data`, `name:indices`, `name:indptr` and `name:shape`.
    """
    dense = {}
    for name, array in arrays.items():
        if sparse.issparse(array):
            dense[f"{name}:data"] = array.data
            dense[f"{name}:indices"] = array.indices
            dense[f"{name}:indptr"] = array.indptr
            dense[f"{name}:shape"] = np.array(array.shape)
        else:
            dense[name] = array
    return dense


def _sparse_again(dense: dict[str, np.ndarray]) -> Arrays:
    """What `_dense` took apart."""
    arrays = {name: array for name, array in dense.items() if ":" not in name}
    for key, shape in dense.items():
        name, _, piece = key.partition(":")
        if piece == "shape":
            pieces = (dense[f"{name}:data"], dense[f"{name}:indices"], dense[f"{name}:indptr"])
            arrays[name] = sparse.csr_matrix(pieces, shape=tuple(shape))
    return arrays


def model_path(folder: Path, sha: str) -> Path:
    """Where the purchase network of a digest lies."""
    return Path(folder) / f"model-{sha[:16]}.npz"
