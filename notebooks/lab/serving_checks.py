"""Checks of the running service: scores, milliseconds, its page, and what a date changes."""

import io
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import Image
from matplotlib.axes import Axes
from PIL import Image as Pixels

from lab.serving_tour import API, Server
from recsys_utils import LabError
from recsys_utils.ensembles.hybrid import MODELS, Hybrid
from recsys_utils.online.queue import Queue
from recsys_utils.online.update import DATABASE
from recsys_utils.report.style import PALETTE, axes, legend
from recsys_utils.serving.artifacts import Artifacts
from recsys_utils.store import read_parquet

# how near a score has to be: of it where it is above 1, as single precision has no more digits
CLOSE = 1e-6
MOST = 20  # places that the API gives
# milliseconds that 95 % of the answers may take, and how much more on a busy machine
GOAL = 100
SLACK = 2
GAP = 24  # pixels between pictures
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--no-first-run",
    "--virtual-time-budget=6000",
)


def shoppers(server: Server, known: pd.Index, n: int, seed: int) -> list[str]:
    """Known users drawn at random, and a stranger as the last.

    Nobody with events posted since the models' cut, which the models cannot know.
    """
    cut = pd.Timestamp(server.json(f"{API}/models")["as_of"])
    with Queue(server.path / DATABASE, read_only=True) as queue:
        late = queue.read(
            "SELECT DISTINCT user_id FROM events WHERE event_time > ?", (cut.value // 1000,)
        )["user_id"]
    return [
        *np.random.default_rng(seed).permutation(known.difference(late).to_numpy(object))[:n],
        "a stranger",
    ]


def filters(server: Server, user: str) -> dict:
    """Filters that this shop's data can answer, by what the shopper's list holds."""
    rows = pd.DataFrame(server.json(f"{API}/recommendations/{user}", n=MOST)["recommendations"])
    result = {
        "exclude_purchased": True,
        "category": rows["category"].mode().get(0),
        "price_range_max": rows["item_price"].max(),
    }
    return {name: value for name, value in result.items() if pd.notna(value)} | (
        {"in_stock_only": True} if (rows["stock"] == "in_stock").any() else {}
    )


def newcomer(server: Server) -> tuple[dict, dict | str]:
    """The profile of a new customer, and a product, by the form's first fields."""
    form = server.json(f"{API}/new-customer/fields")
    values = {
        field["field"]: field["options"][0] if field["options"] else field["minimum"]
        for field in form["fields"] + form["item_fields"]
    }
    named = [
        {field["field"]: values[field["field"]] for field in form[part][:2]}
        for part in ("fields", "item_fields")
    ]
    return named[0] or {"Age": 28}, named[1] or "any product"


def event(user: str, item: str, kind: str, n: int) -> dict:
    """Something that a shopper of the tour did, with an id: the same one again changes nothing."""
    return {"user_id": user, "item_id": item, "event_type": kind, "event_id": f"tour {n}"}


def restocked(server: Server, users: Iterable[str], days: Sequence[int] = (1, 60)) -> pd.DataFrame:
    """A shopper's list so many days after a purchase.

    Where the item stands in it, and what the repurchase rule says.

    The first shopper who bought something that is back in the list after the longest time; empty
    where there is none.
    """
    for user in users:
        known = server.json(f"{API}/users/{user}/profile")
        lines = known["profile"]["history"] if known["is_known_user"] else []
        last = [
            line
            for line in lines
            if line["last_purchase_date"] == known["user_info"]["last_purchase_date"]
        ]
        for line in last:
            rows = [_after(server, user, line, day) for day in days]
            if rows[0]["place"] == "not listed" and rows[-1]["place"] != "not listed":
                return pd.DataFrame(rows).set_index(["user", "item", "days after"])
    return pd.DataFrame()


def _after(server: Server, user: str, line: dict, days: int) -> dict:
    moment = (pd.Timestamp(line["last_purchase_date"]) + pd.Timedelta(days=days)).isoformat()
    rows = server.json(f"{API}/recommendations/{user}", n=MOST, timestamp=moment)["recommendations"]
    rules = server.json(
        f"{API}/recommendations/{user}/explain", item_id=line["item_id"], timestamp=moment
    )["rules"]
    place = {row["item_id"]: row["rank"] for row in rows}.get(line["item_id"], "not listed")
    effect = next(
        (rule["effect"] for rule in rules if rule["rule"] == "repurchase_cycle"), ""
    ).removeprefix("left out: ")
    return {
        "user": user,
        "item": line["item_name"],
        "days after": days,
        "place": place,
        "what the rule knows": effect,
    }


def agreement(
    server: Server,
    users: list[str],
    art: Artifacts,
    hybrid: Hybrid,
    tables: dict[str, tuple[str, pd.DataFrame]],
) -> pd.DataFrame:
    """The API's scores against the notebook's, by model.

    Users, places compared, largest difference, whether the items are the same.

    hybrid: fitted here. tables: what a model recommends the users, by name, and where that table is
    from. LabError where they differ.
    """
    repeats = art.manifest["repeats"]
    own = {
        model: ("fitted here", _explained(hybrid, users, model, not repeats))
        for model in ("hybrid", *MODELS[:-1])
    } | tables
    rows = [
        _compared(model, origin, served(server, model, users), table)
        for model, (origin, table) in own.items()
    ]
    items = list(server.json(f"{API}/items/popular", n=50)["items"])
    rows.append(
        _compared(
            "similar items",
            "fitted here",
            *_similar(server, hybrid, [item["item_id"] for item in items]),
        )
    )
    if art.tower is not None:
        rows.append(_compared("ratings of new customers", "its files", *_rated(server, art)))
    result = pd.DataFrame(rows).set_index("model")
    if len(bad := result[~result["same items"] | (result["largest difference"] > CLOSE)]):
        raise LabError(f"the service and the notebook differ:\n{bad.to_string()}")
    return result


def served(server: Server, model: str, users: Iterable[str]) -> pd.DataFrame:
    """The API's lists: user_id, rank, item_id, score."""
    rows = [
        {"user_id": user} | row
        for user in users
        for row in server.json(f"{API}/recommendations/{user}", model=model, n=MOST)[
            "recommendations"
        ]
    ]
    return pd.DataFrame(rows)[["user_id", "rank", "item_id", "score"]]


def saved(folder: Path, manifest: dict, model: str) -> pd.DataFrame:
    """The table that training left of a model."""
    return read_parquet(folder / manifest["folder"] / "lists" / f"{model}.parquet")


def _explained(hybrid: Hybrid, users: Iterable[str], model: str, new_only: bool) -> pd.DataFrame:
    parts = {
        user: hybrid.explain_list(user, MOST, model, exclude_purchased=new_only).rows
        for user in users
    }
    result = pd.concat(parts, names=["user_id", "row"]).reset_index()
    return result.assign(rank=result["row"] + 1, score=result["relevance"])


def _similar(server: Server, hybrid: Hybrid, items: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    have = [
        {"user_id": item, "rank": n, "item_id": row["item_id"], "score": row["relevance_score"]}
        for item in items
        for n, row in enumerate(server.json(f"{API}/items/{item}/similar", n=5)["similar_items"])
    ]
    want = pd.concat(
        [
            hybrid.similar(item, 5)
            .query("score > 0")
            .assign(user_id=item, rank=lambda rows: range(len(rows)))
            for item in items
        ]
    )
    return pd.DataFrame(have, columns=["user_id", "rank", "item_id", "score"]), want


def _rated(server: Server, art: Artifacts) -> tuple[pd.DataFrame, pd.DataFrame]:
    profiles = art.tower.profiles[art.tower.fields].iloc[:10].to_dict("records")
    profiles = [
        {name: value for name, value in each.items() if pd.notna(value)} for each in profiles
    ]
    want = []
    have = []
    for n, each in enumerate(profiles):
        answer = server.client.post(
            f"{API}/new-customer/recommendations", json={"profile": each, "top_k": MOST}
        ).json()["recommendations"]
        have += [(str(n), rank, str(row["item"]), row["rating"]) for rank, row in enumerate(answer)]
        want += [
            (str(n), rank, str(item), rating)
            for rank, (item, rating) in enumerate(art.tower.recommend_for_new_user(each, MOST))
        ]
    return tuple(
        pd.DataFrame(rows, columns=["user_id", "rank", "item_id", "score"]) for rows in (have, want)
    )


def _compared(model: str, origin: str, have: pd.DataFrame, want: pd.DataFrame) -> dict:
    """Two tables place by place; a user whom a table does not know is not compared."""
    have = have[have["user_id"].isin(want["user_id"].astype(str))]
    want = want[want["rank"] <= MOST].astype({"user_id": str, "item_id": str})
    both = have.merge(want, on=["user_id", "rank"], suffixes=("", "_own"))
    gap = (both["score"] - both["score_own"]).abs() / both["score_own"].abs().clip(lower=1)
    return {
        "model": model,
        "compared with": origin,
        "users": both["user_id"].nunique(),
        "places": len(both),
        "largest difference": float(gap.max()),
        "same items": (
            len(both) == len(have) and bool((both["item_id"] == both["item_id_own"]).all())
        ),
    }


def latency(server: Server, folder: Path | str, n: int = 500, seed: int = 42) -> pd.DataFrame:
    """Milliseconds of mixed calls, one after the other: kind, cache (off, on), ms.

    LabError if 95 % without the cache take too long.

    server: with the cache on, asked the same calls twice; the second time counts. folder: what a
    server without it serves.
    """
    calls = mixed(server, n, seed)
    with Server(folder, cache_seconds=0) as other:
        other.json(f"{API}/models")  # the first answer opens the connection
        off = _timed(other, calls)
    _timed(server, calls)
    _check(off["ms"])
    return pd.concat(
        [off.assign(cache="off"), _timed(server, calls).assign(cache="on")], ignore_index=True
    )


def _check(ms: pd.Series) -> None:
    if (p95 := ms.quantile(0.95)) > GOAL * SLACK:
        raise LabError(
            f"95 % of {len(ms)} answers took up to {p95:.0f} ms, the goal is {GOAL}: is the machine"
            " busy, or the catalogue very large?"
        )


def percentiles(frame: pd.DataFrame) -> pd.DataFrame:
    """p50, p95 and p99 of milliseconds by kind of call and of all, slowest last.

    Without and with the cache.
    """
    both = pd.concat([frame.assign(kind="all"), frame])
    table = (
        both.groupby(["cache", "kind"])["ms"]
        .quantile([0.5, 0.95, 0.99])
        .unstack()
        .rename(columns=lambda q: f"p{100 * q:g}")
    )
    result = (
        table.unstack("cache")
        .swaplevel(axis=1)[["off", "on"]]
        .rename(columns={"off": "cache off", "on": "cache on"}, level=0)
    )
    result[("", "calls")] = (
        frame[frame["cache"] == "off"]
        .groupby("kind")
        .size()
        .reindex(result.index, fill_value=(frame["cache"] == "off").sum())
    )
    order = [*result.drop("all").sort_values(("cache off", "p95")).index, "all"]
    return result.loc[order].round(1)


def strips(frame: pd.DataFrame) -> Axes:
    """Every call as a dot by kind, on a log scale, with the goal drawn."""
    order = list(percentiles(frame).index[:-1])
    ax = axes(1 + 0.25 * len(order), "x")
    rng = np.random.default_rng(0)
    for cache, shade in (("off", PALETTE["two stage"]), ("on", PALETTE["factorization"])):
        rows = frame[frame["cache"] == cache]
        y = rows["kind"].map(order.index) + rng.uniform(-0.3, 0.3, len(rows))
        ax.scatter(
            rows["ms"], y, s=9, color=shade, alpha=0.55, linewidths=0, label=f"cache {cache}"
        )
    for at in (20, GOAL):
        ax.axvline(at, color=PALETTE["popularity"], lw=1)
        ax.annotate(
            f"{at} ms",
            (at, -0.75),
            (3, 0),
            textcoords="offset points",
            va="center",
            annotation_clip=False,
        )
    ax.set_xscale("log")
    ticks = [
        at
        for at in (1, 2, 5, 10, 20, 50, 100, 200)
        if frame["ms"].min() / 2 < at < 2 * max(frame["ms"].max(), GOAL)
    ]
    ax.set(
        yticks=range(len(order)),
        yticklabels=order,
        ylim=(len(order) - 0.4, -1.1),
        xlabel="Milliseconds from request to answer (log scale)",
    )
    ax.set_xticks(ticks, ticks)
    ax.minorticks_off()
    legend(ax).set_alpha(1)
    return ax


def mixed(server: Server, n: int, seed: int) -> list[tuple[str, tuple]]:
    """Calls of every kind by chance: kind and (method, path, query, body)."""
    rng = np.random.default_rng(seed)
    groups = server.json(f"{API}/users")["users"]
    users = groups["loyal"] + groups["new"]
    items = [row["item_id"] for row in server.json(f"{API}/items/popular", n=100)["items"]]
    models = [model["name"] for model in server.json(f"{API}/models")["models"]]
    kinds = {
        model: lambda user, item, model=model: (
            "GET",
            f"{API}/recommendations/{user}",
            {"model": model},
            None,
        )
        for model in models
    }
    view = {"user_id": "tour", "event_type": "view"}
    kinds |= {
        "new items only": lambda user, item: (
            "GET",
            f"{API}/recommendations/{user}",
            {"exclude_purchased": True, "exclude_items": item},
            None,
        ),
        "custom history": lambda user, item: (
            "POST",
            f"{API}/recommendations/custom",
            {},
            {"items": [item]},
        ),
        "explain": lambda user, item: (
            "GET",
            f"{API}/recommendations/{user}/explain",
            {"item_id": item},
            None,
        ),
        "similar": lambda user, item: ("GET", f"{API}/items/{item}/similar", {}, None),
        "profile": lambda user, item: ("GET", f"{API}/users/{user}/profile", {}, None),
        "event": lambda user, item: (
            "POST",
            f"{API}/events",
            {},
            {"events": [view | {"item_id": item}]},
        ),
        "queue": lambda user, item: ("POST", f"{API}/queue/tour/next", {}, None),
    }
    names = rng.permutation(np.resize(list(kinds), n)).tolist()
    return [(name, kinds[name](str(rng.choice(users)), str(rng.choice(items)))) for name in names]


def _timed(server: Server, calls: list[tuple[str, tuple]]) -> pd.DataFrame:
    return pd.DataFrame(
        [(kind, _milliseconds(server, *call)) for kind, call in calls], columns=["kind", "ms"]
    )


def _milliseconds(server: Server, method: str, path: str, query: dict, body: dict | None) -> float:
    start = time.perf_counter()
    answer = server.client.request(method, path, params=query, json=body)
    if answer.status_code != 200:
        raise LabError(f"{method} {path} answered {answer.status_code}: {answer.text[:200]}")
    return (time.perf_counter() - start) * 1e3


def pictures(
    server: Server, views: Sequence[tuple[str, int, int]], height: int = 720
) -> Image | None:
    """The page as a browser draws it, one picture per view, side by side.

    views: (address, width, height of the window in pixels). None where there is no Chromium.
    """
    browser = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if browser is None:
        return None
    parts = [
        _shot(browser, f"{server.url}/{address}", server.path / f"{n}.png", width, tall)
        for n, (address, width, tall) in enumerate(views)
    ]
    parts = [
        part.resize((round(part.width * height / part.height), height), Pixels.Resampling.LANCZOS)
        for part in parts
    ]
    sheet = Pixels.new("RGB", (sum(part.width + GAP for part in parts) - GAP, height), "white")
    at = 0
    for part in parts:
        sheet.paste(part, (at, 0))
        at += part.width + GAP
    buffer = io.BytesIO()
    sheet.quantize(64).save(buffer, "PNG", optimize=True)  # a committed notebook stays small
    return Image(buffer.getvalue(), alt="; ".join(address for address, _, _ in views))


def _shot(browser: str, url: str, path: Path, width: int, height: int) -> Pixels.Image:
    command = [
        browser,
        *FLAGS,
        f"--user-data-dir={path.parent / 'browser'}",
        f"--window-size={width},{height}",
        f"--screenshot={path}",
        url,
    ]
    subprocess.run(command, check=False, capture_output=True, timeout=120)
    if not path.is_file():
        raise LabError(f"{browser} drew no picture of {url}: open it by hand")
    return Pixels.open(path).convert("RGB")
