"""Where things lie on disk, and how they get there whole: atomic writes, digests, manifests. No pickle."""

import hashlib
import io
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import sparse

from recsys_utils import LabError

ROOT = Path(__file__).resolve().parents[1]  # of the repository
SCHEMA = 1
LIBRARIES = ("numpy", "scipy", "pandas", "implicit", "duckdb")


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


def read_parquet(*paths: Path, cure: str = "run ./run_all.sh") -> pd.DataFrame:
    """Read generated frames, one below the other, or say in one sentence how to make them.

    Ids come as categories: a quarter of the memory, and numbered already.
    """
    if missing := [path for path in paths if not path.exists()]:
        raise LabError(f"{missing[0]} is missing: {cure} first")
    ids = [name for name in pq.read_schema(paths[0]).names if name.endswith("_id")]
    return (
        pa.concat_tables(pq.read_table(path, read_dictionary=ids) for path in paths)
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


def save_arrays(
    arrays: dict[str, np.ndarray | sparse.csr_matrix], meta: dict, folder: Path
) -> Path:
    """Save named arrays (dense or CSR) and a manifest that vouches for every byte of them.

    The arrays' file is named by its digest, so a reader holding the old manifest still finds the old arrays.
    """
    buffer = io.BytesIO()
    np.savez(buffer, **flatten(arrays))
    sha = hashlib.sha256(buffer.getbuffer()).hexdigest()
    path = folder / f"arrays-{sha[:16]}.npz"
    with atomic(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())
    shapes = {k: list(a.shape) for k, a in arrays.items() if sparse.issparse(a)}
    libraries = {lib: version(lib) for lib in LIBRARIES}
    manifest = {
        "schema": SCHEMA,
        "file": path.name,
        "sha256": sha,
        "sparse": shapes,
        "libraries": libraries,
        **meta,
    }
    write_sealed(manifest, folder / "manifest.json")
    for old in set(folder.glob("arrays-*.npz")) - {path}:
        old.unlink()
    return folder


def load_arrays(folder: Path) -> tuple[dict[str, np.ndarray | sparse.csr_matrix], dict]:
    """Load what `save_arrays` wrote; refuse a missing, changed or foreign file by name."""
    meta = _manifest(folder)
    path = folder / meta["file"]
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        content = b""
    if hashlib.sha256(content).hexdigest() != meta["sha256"]:
        if _manifest(folder) != meta:  # saved anew while we were reading
            return load_arrays(folder)
        raise LabError(f"{path} is missing or was changed after it was saved: train again")
    with np.load(io.BytesIO(content), allow_pickle=False) as flat:
        return unflatten(dict(flat), meta["sparse"]), meta


def write_sealed(manifest: dict, path: Path) -> Path:
    """Write a manifest that vouches for itself as well."""
    return write_json(manifest | {"seal": _seal(manifest)}, path)


def read_sealed(path: Path, schema: int, cure: str) -> dict:
    """A manifest, after checking its schema and that nobody edited it."""
    meta = read_json(path, cure)
    found = meta.get("schema") if isinstance(meta, dict) else None
    if found != schema:
        raise LabError(f"{path} has schema {found}, this version reads {schema}: train again")
    if meta.pop("seal", None) != _seal(meta):
        raise LabError(f"{path} was changed after it was saved: train again")
    return meta


def _manifest(folder: Path) -> dict:
    return read_sealed(folder / "manifest.json", SCHEMA, "train and save the model")


def _seal(manifest: dict) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True, default=str).encode()).hexdigest()


def flatten(arrays: dict) -> dict[str, np.ndarray]:
    """Named arrays, dense or CSR, as dense ones only: what an npz can hold."""
    flat = {}
    for key, a in arrays.items():
        parts = (
            {"data": a.data, "indices": a.indices, "indptr": a.indptr}
            if sparse.issparse(a)
            else None
        )
        flat |= {f"{key}:{part}": x for part, x in parts.items()} if parts else {key: a}
    return flat


def unflatten(flat: dict[str, np.ndarray], shapes: dict[str, list[int]]) -> dict:
    """The arrays that `flatten` made flat; shapes: of the sparse ones."""
    arrays = {key: a for key, a in flat.items() if ":" not in key}
    for key, shape in shapes.items():
        parts = tuple(flat[f"{key}:{part}"] for part in ("data", "indices", "indptr"))
        arrays[key] = sparse.csr_matrix(parts, shape=shape)
    return arrays
