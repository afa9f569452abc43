"""What notebook 10 shows of two stages: what each part is worth, the original's claim, seconds."""

import resource
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from tqdm import tqdm

from recsys_utils.data.folds import Fold, Stage
from recsys_utils.data.interactions import Interactions, codes
from recsys_utils.data.prefilter import OTHER, relabel
from recsys_utils.data.runs import DEPTH, save_run, save_validation
from recsys_utils.ensembles.candidates import TOGETHER, VOTE, held
from recsys_utils.ensembles.two_stage import Examples, TwoStage, part, train
from recsys_utils.evaluation import significance, slices
from recsys_utils.evaluation.metrics import per_user
from recsys_utils.models import Recommender
from recsys_utils.models.base import standardised
from recsys_utils.store import read_parquet

# Two-stage retail as its text describes it: own purchases or ALS propose 200 candidates, and six
# weeks teach a binary classifier that also sees the embeddings.
ORIGINAL = {
    "generators": "original",
    "candidates": 200,
    "windows": 1,
    "days": 42,
    "objective": "binary",
    "embeddings": True,
    "rounds": 500,
    "patience": 50,
    "few": "plain",
}
ROWS = 30_000  # of all windows together that a variant learns from
JUDGED = 5_000  # users
OBJECTIVES = ("binary", "lambdarank")
SCORES = ("score", "share", "rank")
TELLING = (
    "pair_due",
    "pair_last",
    "user_basket_size",
    "item_trend",
    "price_to_user",
    "rank_bm25",
    "rank_main",
)


# ---- what each part is worth


@dataclass
class Bench:
    """What all variants of a two-stage model share: their examples and the candidates to order."""

    model: TwoStage
    generators: dict[str, Recommender]
    examples: list[Examples]
    asked: Examples
    users: np.ndarray  # codes of those judged, ascending
    bought: int  # (user, item) pairs of theirs in the window, candidates or not

    @cached_property
    def scores(self) -> dict[str, np.ndarray]:
        """Standardised scores of the judged users' candidates, by objective.

        Where there is nothing to learn from they are those of the first generator.
        """
        if not self.examples:
            return {"stage 1": next(iter(self.asked.pairs.scores.values()))}
        x = self.asked.table.to_numpy()
        options = self.model.options()
        rankers = train(options, self.examples, self.model.patience)
        scores = dict.fromkeys(dict.fromkeys(each["objective"] for each in options), 0.0)
        for each, ranker in zip(options, rankers):
            score = standardised(ranker.predict(x, raw_score=True))
            scores[each["objective"]] = scores[each["objective"]] + score
        return scores


def bench(model: TwoStage, stage: Stage, rows: int = ROWS) -> Bench:
    """Build everything once.

    rows: as many to learn from are kept, all that was bought and a random share of the rest.

    The rest is what is plenty; to choose it by rank would tell the ranker what was bought.
    """
    history = stage.history
    truth = slices.warm(stage.truth, stage.history)
    if model.target == "new":
        truth = truth[~slices.bought_before(truth, history)]
    user = codes(truth["user_id"], history.user_ids)
    users = np.unique(user)[:: max(1, -(-len(np.unique(user)) // JUDGED))]
    generators = model.fitted_generators(history)
    pairs = truth[np.isin(user, users)][["user_id", "item_id"]].drop_duplicates()
    examples = model.examples(history)
    axes = examples[-1].axes if examples else None
    asked = model.asked(history, generators, users, axes)
    asked.bought = held(asked.pairs, truth, history)
    thinned = _thinned(examples, rows, model.seed)
    return Bench(model.sized(examples), generators, thinned, asked, users, len(pairs))


def learnt(b: Bench) -> np.ndarray:
    """Scores of the judged users' candidates by rankers trained on the bench's examples."""
    return sum(b.scores.values())


def precision(b: Bench, score: np.ndarray, k: int = 5) -> np.ndarray:
    """(users,) precision at k of candidates in the order of a score; 0 for who has none."""
    place = np.searchsorted(b.users, b.asked.pairs.user)
    order = np.lexsort((-score, place))
    # Pairs are sorted by user: places ascend.
    nth = np.arange(len(order)) - np.searchsorted(place, place)
    return np.bincount(place[order], b.asked.bought[order] & (nth < k), len(b.users)) / k


def ablation(b: Bench, k: int = 5, seed: int = 0) -> pd.DataFrame:
    """The model without a group of features, without a generator, and ordered otherwise.

    Kind, without, precision, change, low, high.

    change: of precision against the full model on the same users, with its paired bootstrap 95 %
    interval.
    """
    full = precision(b, learnt(b), k)
    steps = tqdm(_variants(b), desc="ablation", leave=False, disable=None)
    kinds, names, values = zip(
        *(
            (kind, name, precision(part, learnt(part) if score is None else score, k))
            for kind, name, part, score in steps
        )
    )
    mean, low, high = significance.bootstrap(
        np.stack(values, axis=1) - full[:, None], np.random.default_rng(seed)
    )
    return pd.DataFrame(
        {
            "kind": kinds,
            "without": names,
            "precision": full.mean() + mean,
            "change": mean,
            "low": low,
            "high": high,
        }
    )


def by_windows(b: Bench, k: int = 5, seed: int = 0) -> pd.DataFrame:
    """Precision of rankers that learn from the newest windows only, by their number.

    Columns: windows, precision@k, and lo and hi, its bootstrap 95 % interval over users.
    """
    counts = sorted({n for n in (1, 2, 4, 8, len(b.examples)) if n <= len(b.examples)})
    parts = [replace(b, examples=b.examples[:n]) if n < len(b.examples) else b for n in counts]
    mean, low, high = significance.bootstrap(
        np.stack([precision(part, learnt(part), k) for part in parts], axis=1),
        np.random.default_rng(seed),
    )
    return pd.DataFrame({"windows": counts, f"precision@{k}": mean, "lo": low, "hi": high})


def features(b: Bench) -> pd.DataFrame:
    """By group: number of features, and one of them of a candidate that was then bought."""
    row = b.asked.table.iloc[int(b.asked.bought.argmax())]
    result = {}
    for group, columns in groups(b.asked.table).items():
        shown = next(
            (c for c in (*TELLING, *columns) if c in columns and np.isfinite(row[c])), columns[0]
        )
        result[group] = {
            "features": len(columns),
            "for example": shown,
            "of a candidate": round(float(row[shown]), 2),
        }
    return pd.DataFrame(result).T.rename_axis("group")


def groups(table: pd.DataFrame) -> dict[str, list[str]]:
    """Columns of a table of features by group: pair, user, item, price, latent, …

    The generators' scores and ranks are one group, `scores`.
    """
    prefix = table.columns.str.split("_").str[0]
    return {
        str(name): table.columns[at].tolist()
        for name, at in pd.Series(range(len(prefix))).groupby(
            prefix.where(~prefix.isin(SCORES), "scores"), sort=False
        )
    }


def _variants(b: Bench) -> Iterator[tuple[str, str, Bench, np.ndarray | None]]:
    """(kind, name, bench, score); without a score it is to be learnt."""
    columns = b.asked.table.columns
    for group, gone in groups(b.asked.table).items():
        yield "features", f"{group} features", _cut(b, columns.difference(gone, sort=False)), None
    for name in b.model.weights:
        gone = [f"{prefix}_{name}" for prefix in SCORES]
        kept = columns.difference(gone, sort=False)
        yield "generators", f"scores of {name}", _cut(b, kept), None
    missing = [o for o in OBJECTIVES if b.examples and o not in b.scores]
    scores = b.scores | {
        o: learnt(replace(b, model=replace(b.model, objective=o))) for o in missing
    }
    for name, score in (scores | {"both": sum(scores.values())}).items():
        if name != b.model.objective and b.examples:
            yield "ranker", f"ranker: {name}", b, score
    first = next(iter(b.asked.pairs.scores))
    yield "ranker", f"stage 1: order of {first}", b, b.asked.pairs.scores[first]
    yield "ranker", f"stage 1: {TOGETHER}", b, _votes(b)
    # Items are numbered by popularity.
    yield "ranker", "order of popularity", b, -b.asked.pairs.item.astype(float)


def _votes(b: Bench) -> np.ndarray:
    """(pairs,) votes that the candidates were chosen by."""
    votes = np.zeros(len(b.asked.pairs))
    for name, weight in b.model.weights.items():
        votes += weight / (VOTE + 1 + b.asked.table[f"rank_{name}"].to_numpy())
    return votes


def _cut(b: Bench, columns: pd.Index) -> Bench:
    """With some features only."""
    examples = [part(example, slice(None), columns) for example in b.examples]
    return replace(b, examples=examples, asked=part(b.asked, slice(None), columns))


def _thinned(examples: list[Examples], rows: int, seed: int) -> list[Examples]:
    """All candidates that were bought and a random share of the others, about `rows` in all.

    Where the bought ones alone would be more than a quarter of `rows`, only every n-th user stays.
    """
    every = max(1, -(-4 * sum(e.bought.sum() for e in examples) // rows))
    some = [part(e, np.unique(e.pairs.user, return_inverse=True)[1] % every == 0) for e in examples]
    bought = sum(e.bought.sum() for e in some)
    rng = np.random.default_rng(seed)
    share = (rows - bought) / max(1, sum(len(e.pairs) for e in some) - bought)
    return [part(e, e.bought | (rng.random(len(e.pairs)) < share)) for e in some]


# ---- the original's claim


def catalogue(fold: Fold) -> pd.Index:
    """Item ids of notebook 02's prefiltered catalogue.

    Where it is missing or empty, the items that were sold before the test window.
    """
    path = fold.folder() / "catalogue.parquet"
    ids = read_parquet(path)["item_id"].astype(str) if path.exists() else []
    return (
        pd.Index(ids, name="item_id")
        if len(ids)
        else fold.testing.history.item_ids[fold.testing.history.sold]
    )


def relabelled(history: Interactions, ids: pd.Index) -> Interactions:
    """The history with every item outside a catalogue named 999999."""
    users = history.users.reset_index() if len(history.users.columns) else None
    return Interactions.of(
        relabel(history.purchases, ids), history.items.reset_index(), users, history.as_of
    )


def record_within(
    model: Recommender, fold: Fold, name: str, ids: pd.Index, note: str = ""
) -> pd.DataFrame:
    """As `record`, with lists from a catalogue only.

    Items outside are the fake item 999999 in the history, and are never listed.
    """
    kept = ids.drop(OTHER, errors="ignore")
    tuning = fold.tuning
    earlier = replace(model).fit(relabelled(tuning.history, ids))
    lists = earlier.recommend(tuning.users, DEPTH, tuning.exclude, only=kept)
    save_validation(lists, fold, name)
    start = time.perf_counter()
    model.fit(relabelled(fold.testing.history, ids))
    fitted = time.perf_counter()
    recs = model.recommend(fold.testing.users, DEPTH, fold.testing.exclude, only=kept)
    save_run(
        recs,
        fold,
        name,
        model.family,
        model.params,
        fitted - start,
        time.perf_counter() - fitted,
        note,
    )
    return recs


def claim(
    lists: Mapping[str, pd.DataFrame], stage: Stage, ids: pd.Index, of: str, k: int = 5
) -> pd.DataFrame:
    """Precision within a catalogue, of all its warm buyers and of those who bought five or more.

    lead: precision of the model `of` minus that of each other, on the same shoppers, with its
    paired 95 % interval.
    """
    truth = stage.truth[slices.inside(stage.truth, ids)]
    known = slices.user_groups(stage, ids)
    each = {
        name: per_user(slices.restrict(recs, "prefiltered", stage.history, ids), truth, k)[
            "precision"
        ]
        for name, recs in lists.items()
    }
    result = []
    for label, group in {f"{slices.HEAVY} purchases or more": "heavy", "all": "warm"}.items():
        values = pd.DataFrame(
            {name: value[value.index.isin(known.get(group, []))] for name, value in each.items()}
        )
        if len(values):
            leads = values[[of]].to_numpy() - values.to_numpy()
            lead, low, high = significance.bootstrap(leads, np.random.default_rng(0))
            table = pd.DataFrame({"shoppers": label, "n": len(values)}, index=values.columns)
            table[f"precision@{k}"] = values.mean()
            result.append(table.assign(lead=lead, low=low, high=high))
    if not result:
        return pd.DataFrame()
    table = pd.concat(result).rename_axis("model").reset_index()
    return table.set_index(["shoppers", "n", "model"])


# ---- cost


def profile(b: Bench, stage: Stage) -> pd.DataFrame:
    """Seconds of each step for one cut, how often a fit takes it, and the process's peak MiB."""
    steps = {
        "generators, fitted": lambda: b.model.fitted_generators(stage.history),
        "candidates": lambda: b.model.proposed(b.generators, b.users),
        "candidates and features": lambda: b.model.asked(stage.history, b.generators, b.users),
        "ranker, trained and asked": lambda: learnt(replace(b)),
    }
    seconds = {}
    for name, step in steps.items():
        start = time.perf_counter()
        step()
        seconds[name] = time.perf_counter() - start
    seconds["features"] = seconds.pop("candidates and features") - seconds["candidates"]
    table = pd.DataFrame(
        {"seconds": pd.Series(seconds).round(2), "times in a fit": b.model.windows + 1}
    )
    table.loc["ranker, trained and asked", "times in a fit"] = 1
    return table.assign(peak_mib=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
