"""Offline training of the hybrid: receipts in, six files out, which a service loads at start."""

import argparse
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from recsys_utils import LabError, __version__
from recsys_utils.data.interactions import Interactions
from recsys_utils.data.segments import SPENDING
from recsys_utils.ensembles.business_rules import segment_bounds, segments
from recsys_utils.ensembles.hybrid import Hybrid
from recsys_utils.ensembles.rule_settings import load_tuning
from recsys_utils.store import load_bundle, read_manifest, read_parquet, save_bundle

COMMAND = "python -m recsys_utils.ensembles.training --data-path NAME --output-path FOLDER"
CURE = f"run {COMMAND}"
KIND = "hybrid"
METADATA = "metadata.json"
# What each file holds, by the names of `Hybrid.learnt`.
ARRAYS = {
    "als_model.npz": ("als.user_factors_", "als.item_factors_"),
    "item_cf_similarities.npz": (
        "item_cf.similarity_",
        "item_cf.taste_",
        "seen_",
        "last_",
        "line_item_",
        "line_age_",
        "line_price_",
        "line_start_",
    ),
}
FRAMES = {
    "user_profiles.parquet": {"mean_price": "mean_price_"},
    "item_features.parquet": {
        "price": "price_",
        "popularity": "popularity.counts_",
        "recent_purchases": "recent_",
        "unique_buyers": "shoppers_",
    },
    "repurchase_cycles.parquet": {},
}
FILES = (*ARRAYS, *FRAMES)


def train_models(
    data_path: Path | str,
    output_path: Path | str,
    tuning_path: Path | str | None = None,
    **params: object,
) -> dict:
    """Fit the hybrid on all receipts and write its six files; the metadata.

    About 10 s per million lines.

    data_path: a data set's name, the path of its TOML file, or a folder with purchases.parquet in
    canonical columns (and items.parquet). params: of `Hybrid`, e.g. als={"factors": 128}.
    """
    start = time.perf_counter()
    knobs = load_tuning(tuning_path)
    data = _receipts(data_path)
    model = Hybrid(tuning=knobs.to_dict(), **params).fit(data)
    ts = data.purchases["ts"]
    return save_models(
        model,
        output_path,
        {
            "data": str(data_path),
            "n_purchases": len(ts),
            "first_purchase": str(ts.min()),
            "last_purchase": str(ts.max()),
            "seconds": round(time.perf_counter() - start, 2),
        },
    )


def save_models(model: Hybrid, output_path: Path | str, about: dict | None = None) -> dict:
    """Write a fitted hybrid as five files and metadata.json, which vouches for them; the metadata.

    about: what else the metadata should say of the data.
    """
    folder = Path(output_path)
    learnt = model.learnt()
    arrays = {file: {name: learnt[name] for name in names} for file, names in ARRAYS.items()}
    meta = {
        "version": __version__,
        "trained_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "n_users": len(model.user_ids_),
        "n_items": len(model.item_ids_),
        "params": model.params,
        "config": model.knobs.to_dict(),
        **(about or {}),
    }
    parts = arrays | _frames(model)
    save_bundle(folder, KIND, parts, meta, model.as_of, manifest=METADATA, fixed_names=True)
    return load_metadata(folder)


def load_models(path: Path | str) -> Hybrid:
    """Restore the hybrid that `save_models` wrote; refuse a missing or changed file by name."""
    parts, meta = load_bundle(Path(path), KIND, CURE, manifest=METADATA)
    model = Hybrid(**meta["params"])
    learnt = _learnt_of_frames(parts, model)
    for file in ARRAYS:
        learnt |= parts[file]
    model.restore(learnt, pd.Timestamp(meta["cut"]))
    return model


def load_metadata(path: Path | str) -> dict:
    """What was trained, when and on what: metadata.json, checked."""
    return read_manifest(Path(path) / METADATA, KIND, CURE)


def main(arguments: list[str] | None = None) -> int:
    """Train from the command line; 0, or 2 with the error in one sentence."""
    parser = argparse.ArgumentParser(
        "python -m recsys_utils.ensembles.training",
        description="Train the hybrid; write the files that the service loads.",
    )
    parser.add_argument(
        "--data-path",
        required=True,
        metavar="NAME|FILE.toml|FOLDER",
        help="a data set, or a folder with purchases.parquet",
    )
    parser.add_argument("--output-path", required=True, metavar="FOLDER", help="where the files go")
    parser.add_argument(
        "--tuning", metavar="FILE.toml", help="knobs that differ from data/tuning.toml"
    )
    options = parser.parse_args(arguments)
    try:
        meta = train_models(options.data_path, options.output_path, options.tuning)
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(
        f"{meta['n_purchases']:,} lines, {meta['n_users']:,} users, {meta['n_items']:,} items,"
        f" {meta['seconds']:.1f} s: {options.output_path}"
    )
    return 0


def _receipts(data_path: Path | str) -> Interactions:
    """Every receipt of a data set; the attributes play no part."""
    folder = Path(data_path)
    if (folder / "purchases.parquet").is_file():
        items = (
            pd.read_parquet(folder / "items.parquet")
            if (folder / "items.parquet").is_file()
            else None
        )
        return Interactions.of(
            read_parquet(folder / "purchases.parquet"),
            catalogue=None if items is None else items["item_id"],
        )
    if folder.is_dir():
        raise LabError(
            f"{folder} has no purchases.parquet: give a data set's name, a .toml file or a folder"
            " that has one"
        )
    from recsys_utils.data.tables import load  # what only loads models goes without Ibis

    data = load(str(data_path))
    return Interactions.of(
        data.purchases,
        catalogue=data.items["item_id"] if len(data.items) else None,
        is_dated=data.spec.is_dated,
    )


def _frames(model: Hybrid) -> dict[str, pd.DataFrame]:
    """Users, items and cycles as tables that people can read, by file."""
    learnt = model.learnt()
    segment = segments(model.mean_price_, model.bounds_, model.knobs.user_segments)
    newest = model.line_age_[model.line_start_[1:] - 1]
    users = pd.DataFrame(
        {
            "purchases": np.diff(model.line_start_),
            "unique_items": np.diff(model.seen_.indptr),
            "mean_price": model.mean_price_,
            "last_purchase": (model.as_of - pd.to_timedelta(newest, unit="D")).round("us"),
            "segment": np.array(SPENDING)[segment],
        },
        model.user_ids_,
    )
    columns = FRAMES["item_features.parquet"]
    items = pd.DataFrame(
        {column: learnt[name] for column, name in columns.items()}, model.item_ids_
    )
    is_observed = ~np.isnan(model.cycle_)
    default = model.knobs.repurchase_cycle.default_cycle_days
    cycles = pd.DataFrame(
        {"cycle_days": np.where(is_observed, model.cycle_, default), "observed": is_observed},
        model.item_ids_,
    )
    return dict(zip(FRAMES, (users, items, cycles)))


def _learnt_of_frames(parts: dict, model: Hybrid) -> dict:
    """What `_frames` wrote, by the names of `Hybrid.learnt`."""
    users = parts["user_profiles.parquet"]
    items = parts["item_features.parquet"]
    cycles = parts["repurchase_cycles.parquet"]
    learnt = {"user_ids_": users.index, "item_ids_": items.index}
    for file, frame in (("user_profiles.parquet", users), ("item_features.parquet", items)):
        for column, name in FRAMES[file].items():
            learnt[name] = frame[column].to_numpy()
    learnt["cycle_"] = np.where(cycles["observed"], cycles["cycle_days"], np.nan)
    learnt["bounds_"] = segment_bounds(learnt["mean_price_"], model.knobs.user_segments)
    return learnt


if __name__ == "__main__":
    sys.exit(main())
