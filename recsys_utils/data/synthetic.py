"""A seeded shop: two years of receipts with planted tastes, habits, seasons and promotions.

Customers are made in chunks, each from its own seed, and written chunk by chunk: the same lines
and seed give the same tables on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.special import ndtri, softmax

from recsys_utils.data.synthetic_words import (
    AGE_BANDS,
    BRANDS,
    CATEGORIES,
    COLLECTIONS,
    COUNTRIES,
    FIRST_ORDER,
    GENDERS,
    INCOMES,
    PLACES,
    STORES,
    TIERS,
)

Rng = np.random.Generator

# Calendar: 104 whole weeks ending on 2025-06-30; day 0 is 2023-07-04. Weeks end where the
# last-3-weeks test window ends.
WEEKS = 104
DAYS = 728
START = np.datetime64("2025-07-01", "us") - np.timedelta64(DAYS, "D")
EVENT_DAYS = 56  # events are kept for the last 8 weeks only: a shop's log is large and short

# Size: every other number follows from `lines`.
LINES_PER_USER = 86  # about 11 baskets of 8 items
# Items grow slower than lines. Shops of ours have 5,305 items in 1.0 million lines (Online Retail
# II), 4,997 in 2.7 (Let's Get Sort-of-Real), 11,997 in 0.6 (Ta-Feng) and 68,509 in 1.5 (Complete
# Journey); Instacart published 49,688 in 33.8. Ours has 4,600 in 1 million and 54,000 in 33.8.
ITEMS_AT_200K = 1_500
GROWTH = 0.7
GROWTH_OF_SMALL = 0.4  # below 200,000 lines
CHUNK = 2_500  # users made at once: bounds memory to some hundred MB

# Activity: few baskets for most, many for some; the shops we measured have medians of 3 and 39.
# share; median and log-spread of the others
ONE_BASKET = 0.15
BASKETS_MEDIAN = 7.5
BASKETS_SPREAD = 0.9
# Who came before day 0; the others join through time, so some are cold in the test window.
OLD_CUSTOMERS = 0.87
STAY_DAYS = 900  # mean days until a customer leaves for good

# Loyalty: staples are bought again in a rhythm, so own purchases beat popularity and being due
# carries signal.
STAPLES = 12.0  # staples a customer has at any time
# Mean life of a staple: people abandon old ones and adopt new ones, so recency helps.
STAPLE_DAYS = 300
# cycle / the customer's usual gap between visits: median and log-spread
CYCLE = 4.0
CYCLE_SPREAD = 0.6
# spread of a due date / cycle; share of due staples left out
JITTER = 0.06
FORGET = 0.1
FINDS = 3.0  # further items per basket, chosen by taste

# Taste: what is chosen among PROPOSALS items met by their popularity of the week. In log-odds:
PROPOSALS = 32
# kinds of people; spread of their tastes (low rank, so neighbours help), and of one's own
KINDS = 12
TASTE = 2.8
OWN_TASTE = 0.3
# what moves the mix of kinds: age, gender, country, income; chance; two years of time
PROFILE = 2.0
PERSON = 2.0
DRIFT = 1.5
OCCASION = 1.6  # for items of the basket's collection: complements across categories
THRIFT = 5.0  # per unit of discount, for an average purse: offers move the price-sensitive most
# ratings: of an item neither liked nor disliked; of the mood
STARS = 2.2
STARS_SPREAD = 0.8

# Popularity: heavy tail (Gumbel), change over two years, share of new and dropped items, share on
# offer in a week, lift for all.
TAIL = 0.48
TREND = 0.75
NEW_ITEMS = 0.16
DROPPED = 0.04
PROMOTED = 0.04
PROMO_LIFT = 3.0


@dataclass(frozen=True)
class Shop:
    """What all customers share; I items, W weeks, F = subcategories + collections + 1 tastes."""

    items: pd.DataFrame  # I rows: the public columns
    traits: dict[
        str, np.ndarray
    ]  # (I,) each: subcategory, collection (codes), tier, loyalty, quality
    weekly: np.ndarray  # (W * I,) cumulated popularity; week w runs from w to w + 1
    discount: np.ndarray  # (W, I) share off, zero where an item is not on offer
    on_sale: np.ndarray  # (W, I) bool: launched and not yet dropped
    kinds: np.ndarray  # (KINDS, F) tastes of the kinds of people, in log-odds
    leaning: dict[str, np.ndarray]  # profile field -> (values, KINDS) log-odds


@dataclass(frozen=True)
class People:
    """A chunk of n customers: `users` is public, the rest is what a recommender has to find out."""

    users: pd.DataFrame
    taste: np.ndarray  # (2n, F) log-odds: the first n rows at the beginning, the others at the end
    purse: np.ndarray  # (n,) price sensitivity, around 1
    span: np.ndarray  # (n, 2) first and last day as a customer
    baskets: np.ndarray  # (n,) number of visits
    appetite: np.ndarray  # (n,) basket size, around 1
    store: np.ndarray  # (n,) id of the store at home


def write(folder: Path | str, lines: int = 200_000, seed: int = 42) -> None:
    """Canonical tables `purchases, items, users, events, stock` as `folder/<table>.parquet`.

    lines: about so many of the receipts; all other tables grow with them. No more than one chunk
    of users is in memory at a time.
    """
    folder = Path(folder)
    writers = {}
    folder.mkdir(parents=True, exist_ok=True)
    for part in _parts(lines, seed):
        for name, frame in part.items():
            table = pa.Table.from_pandas(frame, preserve_index=False)
            if name not in writers:
                writers[name] = pq.ParquetWriter(folder / f"{name}.parquet.tmp", table.schema)
            writers[name].write_table(table)
    for name, writer in writers.items():  # renamed at the end: no reader sees half a file
        writer.close()
        (folder / f"{name}.parquet.tmp").replace(folder / f"{name}.parquet")


def catalogue_size(lines: int) -> int:
    """How many items a shop of so many receipt lines has.

    >>> catalogue_size(200_000), catalogue_size(1_000_000), catalogue_size(64_000_000)
    (1500, 4628, 85054)
    """
    growth = GROWTH if lines > 200_000 else GROWTH_OF_SMALL
    return max(50, round(ITEMS_AT_200K * (lines / 200_000) ** growth))


def _parts(lines: int, seed: int) -> Iterator[dict[str, pd.DataFrame]]:
    """First the shop's tables, then those of one chunk of users after the other."""
    n_users = max(1, round(lines / LINES_PER_USER))
    n_items = catalogue_size(lines)
    n_chunks = -(-n_users // CHUNK)
    first, *others = map(np.random.default_rng, np.random.SeedSequence(seed).spawn(1 + n_chunks))
    shop = _shop(first, n_items)
    yield {"items": shop.items, "stock": _stock(first, shop)}
    borders = np.linspace(0, n_users, n_chunks + 1).astype(int)
    for rng, (low, high) in zip(others, pairwise(borders), strict=True):
        people = _people(rng, shop, np.arange(low, high))
        bought = _lines(rng, shop, people, f"B{low:06d}-")
        yield {
            "purchases": _receipts(rng, shop, people, bought),
            "users": people.users,
            "events": _events(rng, shop, people, bought, f"E{low:06d}-"),
        }


# ---- the shop


def _shop(rng: Rng, n: int) -> Shop:
    """Draw n items, their weekly popularity and offers, and the kinds of people."""
    items, traits, season = _catalogue(rng, n)
    discount = np.where(
        rng.random((WEEKS, n)) < PROMOTED,
        rng.choice([0.1, 0.2, 0.25, 0.3, 0.4, 0.5], (WEEKS, n)),
        0.0,
    )
    on_sale = _on_sale(rng, n)
    years = np.linspace(-1, 1, WEEKS)[:, None]
    log_sales = (
        rng.gumbel(0, TAIL, n)
        + TREND * years * rng.normal(0, 1, n)
        + season
        + PROMO_LIFT * discount
    )
    weight = np.cumsum(np.where(on_sale, np.exp(log_sales), 0), axis=1)
    weekly = (np.arange(WEEKS)[:, None] + weight / weight[:, -1:]).ravel()
    n_tastes = sum(map(len, map(_types, CATEGORIES))) + len(COLLECTIONS) + 1
    sizes = {"age": len(AGE_BANDS) + 1, "gender": 3, "country": len(COUNTRIES), "income": 3}
    # The variances of the four fields add up to PROFILE squared.
    leaning = {field: rng.normal(0, PROFILE / 2, (size, KINDS)) for field, size in sizes.items()}
    kinds = rng.normal(0, TASTE, (KINDS, n_tastes))
    return Shop(items, traits, weekly, discount, on_sale, kinds - kinds.mean(axis=0), leaning)


def _catalogue(rng: Rng, n: int) -> tuple[pd.DataFrame, dict[str, np.ndarray], np.ndarray]:
    """n items, their hidden traits and (W, n) season.

    A sample of collection x type x variant, so names are unique. Where these are too few, each
    comes in several editions.
    """
    grid = _grid(n)
    pick = grid.iloc[rng.choice(len(grid), n, replace=False)].reset_index(drop=True)
    brand = rng.integers(len(BRANDS), size=n)
    tier = TIERS[brand // 6]
    price = pick.price * np.exp(0.25 * tier + rng.normal(0, 0.6, n))
    # Shops like .99 and .49.
    items = pd.DataFrame(
        {
            "item_id": _ids("I", np.arange(n), 5),
            "name": pick.label,
            "category": pick.category,
            "subcategory": pick.subcategory,
            "brand": np.array(BRANDS, object)[brand],
            "type": pick.type,
            "price": np.maximum(np.round(price * 20) / 20 - 0.01, 0.19).round(2),
        }
    )
    hidden = {
        "subcategory": pick.code.to_numpy(),
        "collection": pick.collection.to_numpy(),
        "tier": tier,
        "loyalty": pick.loyalty.to_numpy(),
        "quality": rng.normal(0, 0.5, n),
    }
    season = _near(np.arange(3, DAYS, 7)[:, None], pick.peak.to_numpy(), 40)
    return items, hidden, pick.height.to_numpy() * (season - 0.2)


def _types(category: str) -> dict[str, list[str]]:
    """Subcategories of a category, and the types of products in each."""
    groups = (group.split(": ") for group in CATEGORIES[category][-1].split("; "))
    return {subcategory: types.split(", ") for subcategory, types in groups}


def _grid(n: int) -> pd.DataFrame:
    """Every possible item, one row each: n of them or more."""
    rows = [
        (category, *numbers, subcategory, kind, variant)
        for category, (*numbers, variants, _) in CATEGORIES.items()
        for subcategory, kinds in _types(category).items()
        for kind in kinds
        for variant in variants.split(", ")
    ]
    grid = pd.DataFrame(
        rows,
        columns=[
            "category",
            "peak",
            "height",
            "loyalty",
            "price",
            "subcategory",
            "type",
            "variant",
        ],
    )
    grid["code"] = pd.factorize(grid.category + grid.subcategory)[0]
    grid = grid.merge(
        pd.DataFrame({"collection": range(len(COLLECTIONS)), "prefix": COLLECTIONS}), how="cross"
    )
    first = grid.assign(label=grid.prefix + " " + grid.type + " " + grid.variant)
    others = []
    for edition in range(2, -(-n // len(first)) + 1):
        others.append(first.assign(label=first["label"] + f" No. {edition}"))
    return pd.concat([first, *others], ignore_index=True)


def _on_sale(rng: Rng, n: int) -> np.ndarray:
    """(W, n) bool: whether an item is on sale in a week.

    New items start in the second year, up to the last week but one; dropped ones end in it.
    """
    kind = rng.random(n)
    week = rng.integers(WEEKS // 2, WEEKS - 1, n)
    first = np.where(kind < NEW_ITEMS, week, 0)
    last = np.where(kind > 1 - DROPPED, week, WEEKS)
    weeks = np.arange(WEEKS)[:, None]
    return (first <= weeks) & (weeks <= last)


def _stock(rng: Rng, shop: Shop) -> pd.DataFrame:
    """Units per item and country at the end.

    10 % of the pairs are missing, 12 % of the others sold out.
    """
    stock = shop.items[["item_id"]].merge(pd.DataFrame({"country": COUNTRIES}), how="cross")
    left = rng.negative_binomial(2, 0.05, len(stock)) + 1
    stock["quantity"] = np.where(rng.random(len(stock)) < 0.12, 0, left)
    return stock[rng.random(len(stock)) < 0.9].reset_index(drop=True)


# ---- its customers


def _people(rng: Rng, shop: Shop, number: np.ndarray) -> People:
    """Profiles first; tastes, purse and activity follow from them and from chance."""
    n = len(number)
    age = np.clip(rng.normal(44, 16, n), 18, 90).astype(int)
    place = rng.integers(len(PLACES), size=n)
    country = pd.factorize(PLACES[:, 2])[0]
    gender = rng.choice(3, n, p=[0.52, 0.42, 0.06])
    income = rng.choice(3, n, p=[0.3, 0.5, 0.2])
    codes = {
        "age": np.digitize(age, AGE_BANDS),
        "gender": gender,
        "country": country[place],
        "income": income,
    }
    purse = np.exp(0.5 * (1 - income) + rng.normal(0, 0.3, n))
    rate = np.exp(rng.normal(0, 1, n))  # how eagerly this customer visits
    users = pd.DataFrame(
        {
            "user_id": _ids("U", number, 6),
            "age": age,
            "gender": GENDERS[gender],
            "country": PLACES[place, 2],
            "city": PLACES[place, 0],
            "state": PLACES[place, 1],
            "income": INCOMES[income],
        }
    )
    users = users.assign(**_first_order(rng, rate, income))
    span = _spans(rng, n)
    return People(
        users,
        _tastes(rng, shop, codes),
        purse,
        span,
        _activity(rate * (span[:, 1] - span[:, 0])),
        rng.gamma(6, 1 / 6, n),
        STORES[place],
    )


def _first_order(rng: Rng, rate: np.ndarray, income: np.ndarray) -> dict[str, np.ndarray]:
    """Profile fields written down at sign-up.

    One trial order, and purchases at the shop's former outlet.

    They depend on the hidden rate and income only, never on a receipt of these two years, so they
    cannot leak the future.
    """
    n = len(rate)
    total = np.clip(rng.poisson(3 * rate**0.7), 1, 10)
    segment = np.digitize(np.log(rate) + 0.5 * (income - 1) + rng.normal(0, 0.5, n), [-0.7, 0.9])
    chance = {
        field: rng.choice(np.array(values, object), n, p=p)
        for field, (values, p) in FIRST_ORDER.items()
    }
    return {
        "segment": np.array(["New", "Regular", "Premium"], object)[segment],
        **chance,
        "total_purchases": total,
        "amount": (total * 15 * np.exp(0.3 * (income - 1) + rng.normal(0, 0.4, n))).round(2),
    }


def _tastes(rng: Rng, shop: Shop, codes: dict[str, np.ndarray]) -> np.ndarray:
    """(2n, F) log-odds of each user's tastes, at the beginning and then at the end.

    A mix of the kinds of people, which the profile predicts in part.
    """
    n = len(codes["age"])
    n_tastes = shop.kinds.shape[1]
    logit = sum(shop.leaning[field][code] for field, code in codes.items())
    logit = logit + rng.normal(0, PERSON, (n, KINDS))
    later = logit + rng.normal(0, DRIFT, (n, KINDS))
    own = rng.normal(0, OWN_TASTE, (n, n_tastes))
    own[:, -1] += 0.8 * (codes["income"] - 1)  # better earners like the premium tier
    tastes = [softmax(x, axis=1) @ shop.kinds + own for x in (logit, later)]
    return np.vstack(tastes).astype(np.float32)


def _spans(rng: Rng, n: int) -> np.ndarray:
    """(n, 2) first and last day as a customer."""
    share = rng.random(n)
    join = np.where(share < OLD_CUSTOMERS, 0, (share - OLD_CUSTOMERS) / (1 - OLD_CUSTOMERS) * DAYS)
    return np.column_stack([join, np.minimum(join + rng.exponential(STAY_DAYS, n), DAYS)])


def _activity(eagerness: np.ndarray) -> np.ndarray:
    """(n,) number of baskets of each user.

    The wanted distribution is dealt out by rank, so that totals are right for any number of users.
    """
    rank = (eagerness.argsort().argsort() + 0.5) / len(eagerness)
    z = ndtri(np.maximum(rank - ONE_BASKET, 0) / (1 - ONE_BASKET))
    others = np.ceil(BASKETS_MEDIAN * np.exp(BASKETS_SPREAD * z))
    return 1 + np.where(rank < ONE_BASKET, 0, others).astype(int)


# ---- what they buy


def _choose(
    rng: Rng,
    shop: Shop,
    people: People,
    user: np.ndarray,
    day: np.ndarray,
    occasion: np.ndarray,
    loyalty: float = 0.0,
) -> np.ndarray:
    """(n,) items: each chooser takes the best liked of PROPOSALS items of the week.

    The liking has Gumbel noise.
    """
    week = day.astype(int) // 7
    n_items = len(shop.items)
    met = np.searchsorted(
        shop.weekly, week[:, None] + rng.random((len(user), PROPOSALS)), side="right"
    )
    met = np.minimum(met - week[:, None] * n_items, n_items - 1)
    like = _liking(rng, shop, people, user[:, None], day[:, None], met)
    like += OCCASION * (shop.traits["collection"][met] == occasion[:, None])
    like += THRIFT * people.purse[user][:, None] * shop.discount[week[:, None], met]
    like += loyalty * shop.traits["loyalty"][met] + rng.gumbel(size=met.shape)
    return met[np.arange(len(user)), like.argmax(axis=1)]


def _liking(
    rng: Rng, shop: Shop, people: People, user: np.ndarray, day: np.ndarray, item: np.ndarray
) -> np.ndarray:
    """Log-odds of a user's liking for an item.

    Tastes drift: the later taste is used with probability day / DAYS.
    """
    taste = people.taste
    traits = shop.traits
    row = user + len(people.users) * (rng.random(user.shape) < day / DAYS)
    return (
        taste[row, traits["subcategory"][item]]
        + taste[row, -1] * traits["tier"][item]
        + taste[row, shop.kinds.shape[1] - 1 - len(COLLECTIONS) + traits["collection"][item]]
    )


def _visits(rng: Rng, people: People) -> tuple[np.ndarray, np.ndarray]:
    """User and day of every visit, in order.

    They are evenly spread over the user's span, in days stretched by how busy they are.
    """
    user, k = _expand(people.baskets)
    date = START.astype("datetime64[D]").astype(int) + np.arange(DAYS)
    # 1970-01-01 was a Thursday; Saturdays are busy.
    weekday = np.array([1.0, 1.2, 1.6, 0.5, 0.8, 0.9, 1.0])[date % 7]
    stretched = np.append(0, np.cumsum(weekday * (1 + 0.5 * _near(np.arange(DAYS), 350, 25))))
    begin, end = np.interp(people.span, np.arange(DAYS + 1), stretched).T
    at = begin[user] + (end - begin)[user] * (k + rng.random(len(user))) / people.baskets[user]
    return user, np.minimum(np.interp(at, stretched, np.arange(DAYS + 1)), DAYS - 0.001)


def _lines(rng: Rng, shop: Shop, people: People, prefix: str) -> pd.DataFrame:
    """One row per visit and distinct item, in time order of each user.

    Staples that are due, and finds of one occasion.

    The first find of a visit sets its occasion, a collection that the others then tend to share.
    """
    user, day = _visits(rng, people)
    lead = _choose(rng, shop, people, user, day, np.full(len(user), -1))
    occasion = shop.traits["collection"][lead]
    staple_visit, staple = _staples(rng, shop, people, user, day)
    visit, _ = _expand(rng.poisson(FINDS * people.appetite[user]))
    find = _choose(rng, shop, people, user[visit], day[visit], occasion[visit])
    visits = np.concatenate([np.arange(len(user)), staple_visit, visit])
    items = np.concatenate([lead, staple, find])
    pairs = np.unique(visits * len(shop.items) + items)
    visit, item = np.divmod(pairs, len(shop.items))
    basket = _ids(prefix, np.arange(len(user)), 6)
    store = np.where(rng.random(len(user)) < 0.9, people.store[user], "S00")
    lines = pd.DataFrame(
        {
            "user": user[visit],
            "item": item,
            "day": day[visit],
            "occasion": occasion[visit],
            "basket_id": basket[visit],
            "store_id": store[visit],
        }
    )
    return lines[shop.on_sale[lines.day.astype(int) // 7, item]].reset_index(drop=True)


def _staples(
    rng: Rng, shop: Shop, people: People, user: np.ndarray, day: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Visit and item of every staple bought.

    A staple is bought when it is adopted, and then at the first visit after each tick of its own
    clock.
    """
    length = people.span[:, 1] - people.span[:, 0]
    # STAPLES alive at any time.
    owner, _ = _expand(rng.poisson(STAPLES * people.appetite * (1 + length / STAPLE_DAYS)))
    join, leave = people.span[owner].T
    start = np.maximum(join, rng.uniform(join - STAPLE_DAYS, leave))
    stop = np.minimum(start + rng.exponential(STAPLE_DAYS, len(owner)), DAYS)
    item = _choose(rng, shop, people, owner, start, np.full(len(owner), -1), loyalty=1.0)
    low, high = np.searchsorted(user * DAYS + day, [owner * DAYS + start, owner * DAYS + stop])
    staple, k = _expand(high - low)
    visit = low[staple] + k
    cycle = np.maximum(
        7,
        (length / people.baskets)[owner] * CYCLE * np.exp(rng.normal(0, CYCLE_SPREAD, len(owner))),
    )
    clock = (
        day[visit] / cycle[staple]
        + rng.random(len(owner))[staple]
        + rng.normal(0, JITTER, len(visit))
    )
    due = (k == 0) | (np.diff(np.floor(clock), prepend=0) > 0) & (rng.random(len(visit)) > FORGET)
    return visit[due], item[staple[due]]


def _receipts(rng: Rng, shop: Shop, people: People, lines: pd.DataFrame) -> pd.DataFrame:
    """The public table `purchases`: prices paid per unit, after the discount.

    Ratings on about 30 % of the lines.
    """
    user = lines.user.to_numpy()
    item = lines.item.to_numpy()
    day = lines.day.to_numpy()
    n = len(lines)
    discount = shop.discount[day.astype(int) // 7, item]
    price = (shop.items.price.to_numpy()[item] * (1 - discount)).round(2)
    liking = _liking(rng, shop, people, user, day, item) + shop.traits["quality"][item]
    stars = np.clip(np.rint(STARS + 0.35 * liking + rng.normal(0, STARS_SPREAD, n)), 1, 5)
    return pd.DataFrame(
        {
            "user_id": people.users.user_id.to_numpy()[user],
            "item_id": shop.items.item_id.to_numpy()[item],
            "basket_id": lines.basket_id,
            "ts": _time(day),
            "quantity": 1 + rng.poisson(1 / (1 + price)),
            "price": price,
            "store_id": lines.store_id,
            "discount": discount,
            "rating": np.where(rng.random(n) < 0.3, stars, np.nan),
        }
    )


def _events(rng: Rng, shop: Shop, people: People, lines: pd.DataFrame, prefix: str) -> pd.DataFrame:
    """The log of the last weeks: views, then carts, before each purchase.

    There is also browsing, by the same tastes, that ends in no purchase.
    """
    bought = lines[lines.day >= DAYS - EVENT_DAYS]
    seen = bought[rng.random(len(bought)) < 0.6]
    item = _choose(
        rng, shop, people, seen.user.to_numpy(), seen.day.to_numpy(), seen.occasion.to_numpy()
    )
    both = pd.concat(
        [bought.assign(bought=True), seen.assign(item=item, bought=False)], ignore_index=True
    )
    view, _ = _expand(1 + rng.poisson(0.4, len(both)))
    cart = np.flatnonzero(rng.random(len(both)) < np.where(both.bought, 0.7, 0.3))
    removed = cart[~both.bought.to_numpy(bool)[cart] & (rng.random(len(cart)) < 0.6)]
    steps = {
        "view": (view, 1 + rng.exponential(36, len(view))),
        "cart": (cart, rng.uniform(0.5, 1, len(cart))),
        "remove_from_cart": (removed, rng.uniform(0.1, 0.5, len(removed))),
        "purchase": (np.flatnonzero(both.bought), 0.0),
    }
    logs = []
    for kind, (row, hours) in steps.items():
        ts = _time(both.day.to_numpy()[row], hours)
        logs.append(pd.DataFrame({"row": row, "event_type": kind, "ts": ts}))
    log = pd.concat(logs)
    log = log[log.ts >= _time(np.array(float(DAYS - EVENT_DAYS)))]
    log = log.sort_values(["ts", "row"], kind="stable")
    return pd.DataFrame(
        {
            "event_id": _ids(prefix, np.arange(len(log)), 7),
            "user_id": people.users.user_id.to_numpy()[both.user.to_numpy()[log.row]],
            "item_id": shop.items.item_id.to_numpy()[both.item.to_numpy()[log.row]],
            "event_type": log.event_type.to_numpy(),
            "ts": log.ts.to_numpy(),
        }
    )


# ---- small tools


def _expand(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[2, 0, 1] -> owner [0, 0, 2] and place within the owner [0, 1, 0]."""
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)


def _near(day: np.ndarray, peak: np.ndarray | int, width: float) -> np.ndarray:
    """1 at a day of the year, falling to 0 around it.

    `day` counts from START, the 185th day of its year.
    """
    away = np.abs((day + 185 - peak + 182) % 365 - 182)
    return np.exp(-((away / width) ** 2))


def _time(day: np.ndarray, hours_before: np.ndarray | float = 0.0) -> np.ndarray:
    """Day numbers -> time stamps; the shop is open from 8 to 20 h."""
    seconds = np.floor(day) * 86_400 + (8 + day % 1 * 12 - hours_before) * 3_600
    return START + seconds.astype("timedelta64[s]")


def _ids(prefix: str, numbers: np.ndarray, width: int) -> np.ndarray:
    """Zero-padded names, as Python strings."""
    return np.char.mod(f"{prefix}%0{width}d", numbers).astype(object)
