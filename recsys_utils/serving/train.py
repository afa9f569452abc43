"""Offline training of everything that the service loads.

The hybrid, every leaderboard model's lists, confidence, the towers, and the queue with its cold
model.
"""

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from recsys_utils import LabError, __version__
from recsys_utils.data import tables
from recsys_utils.data.folds import Stage, fold_names, has_folds, load_fold
from recsys_utils.data.interactions import Interactions
from recsys_utils.data.prefilter import prefilter, rules_of
from recsys_utils.data.runs import has_runs, load_runs, load_studies, load_validation
from recsys_utils.ensembles.hybrid import MODELS, Hybrid
from recsys_utils.ensembles.new_for_you import NEW_FOR_YOU
from recsys_utils.ensembles.rule_settings import load_tuning
from recsys_utils.ensembles.training import save_models
from recsys_utils.ensembles.two_stage import TwoStage
from recsys_utils.evaluation.slices import restrict
from recsys_utils.models import (
    TIFUKNN,
    ItemCF,
    MainRecommender,
    OwnPurchases,
    PreferencePairs,
    Progressive,
    Recommender,
)
from recsys_utils.models.base import from_params
from recsys_utils.models.towers.ratings import fit_whole
from recsys_utils.models.towers.standalone import save_recommender
from recsys_utils.models.towers.training import NAMES, product_names, transactions
from recsys_utils.models.towers.two_tower import TwoTower
from recsys_utils.online.events import write_csv
from recsys_utils.online.update import DATABASE, train_cold
from recsys_utils.report.choice import choose, validation_values
from recsys_utils.serving.artifacts import KIND
from recsys_utils.serving.confidence import DEPTH as CHECKED
from recsys_utils.serving.confidence import fit_places
from recsys_utils.store import data_dir, read_json, write_manifest, write_parquet

LISTS = {
    "two_stage": TwoStage,
    NEW_FOR_YOU: TwoStage,
    "main_recommender": MainRecommender,
    "tifuknn": TIFUKNN,
    "item_bm25": ItemCF,
    "preference_pairs": PreferencePairs,
    "progressive": Progressive,
    "own_decayed": OwnPurchases,
}
UNTUNED = {NEW_FOR_YOU: {"target": "new"}}  # parameters where no notebook chose any
OF_PROFILES = {"two_tower": TwoTower}  # serves newcomers by their profiles
DEPTH = 100  # places of a list that are kept
SETTINGS = {"any": None, "new": "bought"}  # of confidence, and what its lists leave out
WINDOW = pd.Timedelta(days=21)  # the last weeks, which confidence is learnt from
BATCH = 200_000  # events that are posted together
RATINGS = 1_000  # fewer teach the towers nothing


def train(
    dataset: str,
    folder: Path | str | None = None,
    models: Iterable[str] = tuple(LISTS),
    now: pd.Timestamp | None = None,
    say: Callable[[str], None] = print,
    fast: bool = False,
) -> dict:
    """Fit everything on all that the data set has and write it below `folder`.

    The manifest, which comes last and names the new version.

    fast: fewer epochs of the queue's and the ratings' networks. A running service and a killed
    training are safe: a version has a folder of its own, and the manifest is replaced in one step.
    """
    data = tables.load(dataset)
    now = now or pd.Timestamp.now("UTC").tz_localize(None).floor("us")
    folder = Path(folder or data_dir(data.spec.name, "serving"))
    if odd := [name for name in models if name not in LISTS]:
        raise LabError(f"model '{odd[0]}' is unknown: choose of {', '.join(LISTS)}")
    result = folder / f"v-{now:%Y%m%dT%H%M%S%f}"
    try:
        about = _written(data, dataset, result, list(models), say, fast)
        _timed(say, "online queue", lambda: _online(data, folder / "online", now, fast))
        return _named(
            folder,
            result,
            about
            | {
                "trained_at": f"{now.isoformat(timespec='seconds')}Z",
                "dataset": data.spec.name,
            },
        )
    except BaseException:
        shutil.rmtree(result, ignore_errors=True)
        raise


def _written(
    data: tables.Tables,
    dataset: str,
    folder: Path,
    models: list[str],
    say: Callable[[str], None],
    fast: bool,
) -> dict:
    """Every file of a version but the manifest; what the manifest says of the data."""
    receipts = data.interactions()
    result = data.spec
    hybrid = _timed(say, "hybrid", lambda: Hybrid(tuning=load_tuning().to_dict()).fit(receipts))
    save_models(
        hybrid, folder / "hybrid", {"data": result.name, "n_purchases": len(receipts.purchases)}
    )
    fitted = {
        name: _timed(say, name, lambda name=name: chosen_model(name, result.name).fit(receipts))
        for name in models
    }
    for name, model in fitted.items():
        exclude = None if result.repeats and name != NEW_FOR_YOU else "bought"
        recs = model.recommend(receipts.user_ids, DEPTH, exclude)
        write_parquet(recs, folder / "lists" / f"{name}.parquet")
    newcomers = _newcomers(fitted, receipts, data, folder / "newcomers")
    _facts(receipts, data, folder)
    if (
        cells := _timed(say, "confidence", lambda: _confidence(data, dataset, models, say))
    ) is not None:
        write_parquet(cells, folder / "confidence.parquet")
    _timed(say, "towers", lambda: _towers(data, folder / "tower", fast))
    shipped, note = _of_notebooks(dataset, result.name, models, folder)
    return {
        "title": result.title,
        "currency": result.currency,
        "synthetic": result.synthetic,
        "repeats": result.repeats,
        "cut": str(receipts.as_of),
        "newcomers": newcomers,
        "shipped": shipped,
        "knob_costs": note,
        "lists": {
            name: {"family": model.family, "params": model.params} for name, model in fitted.items()
        },
    }


def _named(folder: Path, made: Path, about: dict) -> dict:
    """Let the manifest name a version, then remove the older ones."""
    paths = sorted(path for path in made.rglob("*") if path.is_file())
    files = {path.relative_to(made).as_posix(): path for path in paths}
    meta = {"version": __version__, "folder": made.name, **about}
    cut = meta.pop("cut")
    manifest = write_manifest(folder / "manifest.json", KIND, files, meta, cut)
    for old in set(folder.glob("v-*")) - {made}:
        shutil.rmtree(old, ignore_errors=True)
    return manifest


def _timed(say: Callable[[str], None], name: str, work: Callable[[], object]) -> object:
    start = time.perf_counter()
    result = work()
    say(f"{name:<18} {time.perf_counter() - start:6.1f} s")
    return result


def chosen_model(name: str, dataset: str) -> Recommender:
    """A leaderboard model, with the parameters that the notebooks chose for this data set.

    Where they have not run, with its defaults.
    """
    return from_params(
        (LISTS | OF_PROFILES)[name], _chosen_params(name, dataset) or UNTUNED.get(name, {})
    )


def _chosen_params(name: str, dataset: str) -> dict | None:
    """The parameters that the notebooks chose for the newest cut; None where they have not run."""
    if not has_folds(dataset):
        return None
    newest = fold_names(dataset)[0]
    path = data_dir(dataset, "runs", newest, f"{name}.json")
    fold = read_json(data_dir(dataset, "folds", newest, "fold.json"))
    meta = read_json(path) if path.exists() else {}
    is_of_this_cut = meta.get("fold_hash") == fold["hash"]
    return meta["params"] if is_of_this_cut else None


def _newcomers(
    fitted: dict[str, Recommender], receipts: Interactions, data: tables.Tables, folder: Path
) -> list[str]:
    """Clients who bought nothing yet, and lists for them; the names of the models that made some.

    Only models whose parameters were chosen on this shop: as it was published, a model that learnt
    from attributes may be far below what sells. A client of whom no model knows an attribute is
    left to what sells, as a stranger is.
    """
    clients = data.clients(receipts).sort_index()
    if clients.empty:
        return []
    write_parquet(clients.reset_index(), folder / "clients.parquet")
    names = []
    for name, model in fitted.items():
        told = clients[model.told(clients)]
        if len(told) and _chosen_params(name, data.spec.name) is not None:
            recs = model.recommend(told.index, DEPTH, profiles=told)
            write_parquet(recs, folder / f"{name}.parquet")
            names.append(name)
    return names


def _of_notebooks(
    dataset: str, name: str, models: list[str], folder: Path
) -> tuple[dict, str | None]:
    """The models that validation chooses, and the note of the study of the rules' costs.

    report: the model that the report ships. served: the best of the served ones by the same rule.
    The study's table is written into `folder`.
    """
    if not has_folds(name):
        return {}, None
    fold = load_fold(dataset)
    values = validation_values(load_validation(fold), fold.tuning)
    shipped = {}
    if (best := choose(values)) is not None:
        served = choose(values[values.columns.intersection(models)])
        shipped = {"report": best.model, "served": served.model if served else None}
    table, note = load_studies(fold).get("knob_costs", (None, None))
    if table is not None:
        write_parquet(table, folder / "knob_costs.parquet")
    return shipped, note


def _facts(receipts: Interactions, data: tables.Tables, folder: Path) -> None:
    """Items and users as people read them, in the order of the models' codes; stock as it is."""
    items = receipts.items.drop(columns=["price"], errors="ignore").assign(
        price=receipts.price,
        units=np.bincount(
            receipts.item, receipts.purchases["quantity"].to_numpy(float), receipts.shape[1]
        ),
        lines=np.bincount(receipts.item, minlength=receipts.shape[1]),
    )
    baskets = receipts.purchases["basket_id"].groupby(receipts.user).nunique()
    users = receipts.users.assign(
        baskets=baskets.reindex(range(receipts.shape[0]), fill_value=0).to_numpy()
    )
    write_parquet(items.reset_index(), folder / "items.parquet")
    write_parquet(users.reset_index(), folder / "users.parquet")
    if len(data.stock):
        write_parquet(data.stock, folder / "stock.parquet")
    if data.spec.prefilter:
        rules = rules_of(data.spec, receipts.shape[1])
        ids, _ = prefilter(receipts.purchases, data.items, rules)
        write_parquet(pd.DataFrame({"item_id": ids}), folder / "catalogue.parquet")


def _confidence(
    data: tables.Tables, dataset: str, models: list[str], say: Callable[[str], None]
) -> pd.DataFrame | None:
    """How often what each model suggests is bought, by score and history, in the last weeks.

    Learnt for each of SETTINGS: lists as they are, and lists without what was bought before, of
    which far less is bought. The hybrid is asked under the knobs that are served. None where nobody
    returned in those weeks.
    """
    stage, lists = _last_window(data, dataset)
    buyers = pd.Index(stage.truth["user_id"].unique().astype(str))
    users = stage.history.user_ids.intersection(buyers)
    if not len(users):
        return None
    missing = [name for name in models if name not in lists]
    if missing:
        say(
            f"confidence: no notebook's lists of {', '.join(missing)}, so they are fitted once more"
        )
    for name in missing:
        model = chosen_model(name, data.spec.name).fit(stage.history)
        lists[name] = model.recommend(users, DEPTH, stage.exclude)
    knobs = load_tuning().to_dict()
    hybrid = Hybrid(tuning=knobs).fit(stage.history)
    parts = []
    for setting, exclude in SETTINGS.items():
        asked = {name: restrict(lists[name], setting, stage.history) for name in models}
        for name in MODELS:
            alone = hybrid.retuned(_alone(name, knobs))
            asked[name] = alone.recommend(users, CHECKED, exclude)
        cells = fit_places(asked, stage.truth, stage.history)
        parts.append(cells.assign(setting=setting))
    return pd.concat(parts, ignore_index=True)


def _last_window(data: tables.Tables, dataset: str) -> tuple[Stage, dict[str, pd.DataFrame]]:
    """The last weeks as a judgement, and the lists that the notebooks made for them.

    Where no notebook has run, the weeks are cut here and there are no lists yet. What is there and
    damaged is an error.
    """
    if has_folds(data.spec.name):
        fold = load_fold(dataset)
        return fold.testing, load_runs(fold)[0] if has_runs(fold) else {}
    cut = data.purchases["ts"].max().floor("D") + pd.Timedelta(days=1) - WINDOW
    has_past = (data.purchases["ts"] < cut).any()
    history = data.interactions(cut if has_past else None)
    truth = data.purchases[data.purchases["ts"] >= max(cut, history.as_of)]
    return Stage(history, truth, None if data.spec.repeats else "bought"), {}


def _alone(model: str, knobs: dict) -> dict:
    """The knobs, with all the weight on one part of the hybrid; unchanged for the hybrid itself."""
    if model == "hybrid":
        return knobs
    return knobs | {"model_weights": {part: float(part == model) for part in MODELS[:-1]}}


def _towers(data: tables.Tables, folder: Path, fast: bool) -> None:
    """Files of the towers for ratings and for lists, where the receipts hold ratings."""
    if "rating" not in data.purchases or data.purchases["rating"].notna().sum() < RATINGS:
        return
    rows = transactions(data.purchases, data.users, data.items)
    model, whole = fit_whole(rows, **{"epochs": 3} if fast else {})
    lists = chosen_model("two_tower", data.spec.name)
    if fast:
        lists.epochs = 1
    save_recommender(
        model,
        whole.encoder,
        whole.assets,
        whole.stats,
        folder,
        rows["Date"].max(),
        lists.fit(data.interactions()).vectors().renamed(NAMES, product_names(data.items)),
    )


def _online(data: tables.Tables, state: Path, now: pd.Timestamp, fast: bool) -> None:
    """Post purchases and events as the shop's files would bring them, and train the cold model.

    What was posted since then stays.
    """
    log = data.interactions().log
    with tempfile.TemporaryDirectory() as inbox:
        # Two years of days would be posted in hundreds of steps.
        write_csv(log, data.items, Path(inbox), daily=False)
        report = train_cold(
            inbox,
            state,
            now=max(now, log["ts"].max()),
            batch=BATCH,
            wait=60,
            **{"epochs": 5} if fast else {},
        )
    if report.errors:
        raise LabError(f"{state / DATABASE}: {report.errors[0]}")


def main(options: object) -> int:
    """`python -m recsys_utils.serving train`: 0, or 2 with the error in one sentence."""
    start = time.perf_counter()
    try:
        models = options.models.split(",") if options.models else tuple(LISTS)
        manifest = train(options.dataset, options.artifacts, models)
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(
        f"{manifest['title']}: {len(manifest['sha256'])} files in"
        f" {time.perf_counter() - start:.0f} s"
    )
    return 0
