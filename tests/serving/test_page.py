"""The page in a real browser against the real service.

Every tab and dialog, keys, phones, what goes wrong.
"""

import json
import os
import re
import shutil
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

import pytest
import uvicorn

from recsys_utils.serving.app import create_app
from recsys_utils.serving.settings import Settings
from recsys_utils.serving.train import train

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
playwright = pytest.importorskip(
    "playwright.sync_api", reason="the page's tests need playwright: pip install -e .[test]"
)
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="the page's tests need Chromium on the PATH")
expect = playwright.expect
Locator = playwright.Locator
Page = playwright.Page

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
TOML = 'title = "A small <b>made-up</b> shop"\ncurrency = "£"\nsynthetic = true\nlines = 6000\n'
HOSTILE = "<img src=x onerror=alert(1)>'; DROP TABLE queue;--"
TABS = ("shopper", "analyst", "customer", "queue", "knobs")
DESK = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
STOCK = {"in_stock": "In stock", "out_of_stock": "Sold out", "unknown": "Stock unknown"}
# Controls without a name, ids that stand twice, headings that leave out a level.
NAMELESS = """(() => {
  const seen = (...kinds) => [...document.querySelectorAll(kinds)]
    .filter(one => one.checkVisibility({visibilityProperty: true}));
  const ids = [...document.querySelectorAll('[id]')].map(one => one.id);
  const levels = seen('h1, h2, h3, h4').map(one => Number(one.tagName[1]));
  const nameless = one => !(one.labels?.length || one.ariaLabel || one.textContent.trim());
  return [...seen('input, select, button, a[href], summary, dialog[open]').filter(nameless),
    ...ids.filter((id, n) => ids.indexOf(id) !== n),
    ...levels.filter((level, n) => level > (levels[n - 1] ?? 0) + 1)].map(String);
})()"""
# What is wider than the screen, and what is wider than its own frame.
WIDE = """[...document.querySelectorAll('header *, main *, dialog[open], dialog[open] *')]
  .filter(one => !one.closest('.vh, .options')).filter(one =>
    (!one.closest('.scroll, .swipe') && one.getBoundingClientRect().right > innerWidth + 1)
    || (one.matches('button, .badge, .tag, .tabs, .scroll')
      && one.scrollWidth > one.clientWidth + 1)).map(one => one.outerHTML.slice(0, 120))"""


@dataclass
class Served:
    """A running service that can be stopped and started again at the same address."""

    app: Callable[[], object]
    port: int = 0

    def start(self) -> None:
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        self.server = uvicorn.Server(uvicorn.Config(self.app(), log_level="error"))
        self.thread = threading.Thread(target=self.server.run, args=([listener],), daemon=True)
        self.thread.start()
        while not self.server.started or self.get("health")["status"] == "initializing":
            time.sleep(0.02)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(20)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str) -> dict:
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}") as answer:
            return json.load(answer)

    def post(self, path: str, **body: object) -> dict:
        asked = urllib.request.Request(
            f"{self.url}/api/v1/{path}",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(asked) as answer:
            return json.load(answer)

    @cached_property
    def about(self) -> dict:
        return self.get("models")

    @cached_property
    def stocked(self) -> bool:
        return any(item["stock"] != "unknown" for item in self.get("items?limit=100")["items"])

    def listed(self, user: str, **asked: object) -> list[dict]:
        """What the shopper's tab shows of a user: habits first, nothing that is sold out."""
        asked = {"model_type": self.about["page"], "in_stock_only": self.stocked} | asked
        found = self.post("recommendations", user_id=user, **asked)["recommendations"]
        return habits_first(found)

    @cached_property
    def known(self) -> list[str]:
        return self.get("users?limit=20")["users"]["loyal"]


def habits_first(items: list[dict]) -> list[dict]:
    """A list as the page groups it; each keeps its rank."""
    return sorted(items, key=lambda item: item["last_purchase_date"] is None)


@contextmanager
def serving(artifacts: Path, folder: Path, settings: Settings | None = None) -> Iterator[Served]:
    """What was trained, behind HTTP; its queue is a copy, so nothing trained is written to."""
    database = copied(artifacts, folder)
    result = Served(lambda: create_app(artifacts, database, settings))
    result.start()
    yield result
    result.stop()


@contextmanager
def chromium() -> Iterator[object]:
    """A browser; whoever needs one is skipped where there is none."""
    if not CHROMIUM:
        pytest.skip("the page's tests need Chromium on the PATH")
    with playwright.sync_playwright() as driver:
        result = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield result.new_context(
            viewport=DESK, reduced_motion="reduce"
        )  # one for all pages is cheaper than one for each
        result.close()


@contextmanager
def watched(browser: object) -> Iterator[Page]:
    """A page that must not complain, nor ask any other origin for anything."""
    result = browser.new_page()
    said = []
    asked = []
    result.on(
        "console",
        lambda message: (
            said.append(message.text)
            if message.args or message.type in ("error", "warning")
            else None
        ),
    )
    result.on("pageerror", lambda error: said.append(str(error)))
    result.on("dialog", lambda dialog: (said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    result.on("request", lambda request: asked.append(request.url))
    result.set_default_timeout(10_000)
    yield result
    result.close()
    # The browser reports every 4xx, 5xx and refused connection by itself: these the tests cause on
    # purpose.
    assert [text for text in said if not text.startswith("Failed to load resource")] == []
    assert len({re.match(r"\w+://[^/]*", url)[0] for url in asked}) == 1
    assert asked[0].startswith("http://127.0.0.1:")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECSYS_HOME", str(home))
        (home / "small.toml").write_text(TOML)
        train(str(home / "small.toml"), home / "serving", ["item_bm25"], fast=True)
    return home / "serving"


@pytest.fixture(scope="module")
def served(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(trained, tmp_path_factory.mktemp("open")) as result:
        yield result


@pytest.fixture
def locked(trained: Path, tmp_path: Path) -> Iterator[Served]:
    with serving(trained, tmp_path, Settings(api_key="sesame-7")) as result:
        yield result


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with chromium() as result:
        yield result


@pytest.fixture
def page(browser: object) -> Iterator[Page]:
    with watched(browser) as result:
        yield result


def copied(trained: Path, folder: Path) -> Path:
    """The queue's database beside its networks, to write in."""
    shutil.copytree(trained / "online", folder / "online")
    return folder / "online" / "recommendation.db"


def settled(page: Page, tab: str) -> Locator:
    """A tab's panel, once nothing in it is being loaded."""
    panel = page.locator(f"#view-{tab}")
    expect(panel).to_be_visible()
    expect(page.locator("[aria-busy]")).to_have_count(0)
    return panel


def opened(page: Page, served: Served, tab: str, **params: object) -> Locator:
    """A tab by its deep link."""
    page.goto(
        f"{served.url}/#{tab}"
        + ("?" + "&".join(f"{k}={quote(str(v))}" for k, v in params.items()) if params else "")
    )
    expect(page.locator("#health")).to_contain_text("Data until")
    page.evaluate(
        "new Promise(done => setTimeout(done))"
    )  # a new address in the same page is noticed in a task of its own
    return settled(page, tab)


def names(panel: Locator, of: str = ".results li h3") -> list[str]:
    return panel.locator(of).all_inner_texts()


def widths(panel: Locator, label: str) -> list[float]:
    """Each meter's width as a share of its track."""
    script = (
        "all => all.map(m => m.querySelector('.fill').getBoundingClientRect().width /"
        " m.querySelector('.track').getBoundingClientRect().width)"
    )
    return panel.get_by_role("meter", name=label).evaluate_all(script)


def plain(text: str) -> str:
    """A text as the browser shows it: one space between words."""
    return " ".join(text.split())


def told(served: Served, rows: Locator, items: list[dict], *more: str) -> None:
    """Rows or cards tell rank, name, price and stock of the service's items, in its order."""
    expect(rows).to_have_count(len(items))
    for n, (row, item) in enumerate(zip(rows.all_inner_texts(), items), start=1):
        cents = item["item_price"] is not None and Decimal(repr(item["item_price"])).quantize(
            Decimal("0.01"), ROUND_HALF_UP
        )
        price = f"{served.about['currency']}{cents:,}" if cents is not False else "No price"
        for text in (
            str(item.get("rank", n)),
            item["item_name"],
            price,
            *(item[name] for name in more),
        ):
            assert plain(text) in plain(row), (n, text, row)
        assert [said for said in STOCK.values() if said in row] == (
            [STOCK[item["stock"]]] if served.stocked else []
        )


def fits(page: Page) -> None:
    """Nothing is wider than a desk's or a phone's screen, in light and dark.

    Nothing shows what only a program can read.
    """
    for size in (DESK, PHONE):
        page.set_viewport_size(size)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            wide = page.evaluate(WIDE)
            assert wide == [], (page.url, size, scheme, wide)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (
                page.url,
                size,
                scheme,
                wide,
            )
    page.set_viewport_size(DESK)
    assert page.evaluate(NAMELESS) == []
    assert (
        re.findall(
            r"undefined|\bNaN\b|\bnull\b|\[object|\d\.\d{5,}", page.locator("main").inner_text()
        )
        == []
    )


def walk(page: Page, served: Served) -> None:
    """Every tab and dialog of whatever is served.

    Names, prices, bars and counts are the service's own.
    """
    for one in (walk_shopper, walk_analyst, walk_customer, walk_queue, walk_knobs, walk_key):
        one(page, served)


def walked(artifacts: Path, folder: Path) -> None:
    """Serve what was trained and walk it in a browser of its own."""
    with chromium() as browser, serving(artifacts, folder) as served, watched(browser) as page:
        walk(page, served)


def walk_shopper(page: Page, served: Served) -> None:
    user = served.known[0]
    panel = opened(page, served, "shopper")
    expect(page.get_by_role("heading", level=1)).to_have_text(served.about["title"])
    assert page.get_by_text("Synthetic data: this shop").is_visible() == served.about["synthetic"]
    assert "gradient" in page.locator(".hero").evaluate(
        "hero => getComputedStyle(hero).backgroundImage"
    )
    for label, there in (
        ("Show sold-out products too", served.stocked),
        ("Category", bool(served.get("items?limit=1")["categories"])),
    ):
        assert panel.get_by_label(label).is_visible() == there
    told(
        served,
        panel.locator("li.card"),
        best_sellers(served),
        "recommendation_reason",
    )
    panel = opened(page, served, "shopper", user=user, n=10)
    wanted = served.listed(user, num_recommendations=10)
    told(served, panel.locator(".results li.card"), wanted, "recommendation_reason")
    walk_discoveries(panel, served, user, wanted)
    fits(page)
    button = panel.get_by_role("button", name="More like").first
    near(page, served, button, wanted[0], in_stock_only=served.stocked)
    panel = opened(page, served, "shopper", user="walker-1")
    told(served, panel.locator("li.card"), served.listed("walker-2"))
    expect(panel.locator(".heading")).to_contain_text("new to us")


def walk_discoveries(panel: Locator, served: Served, user: str, listed: list[dict]) -> None:
    """A row of what the shopper never bought, below the list and without what it holds."""
    models = {model["name"] for model in served.about["models"]}
    asked = {
        "model_type": "two_stage_new" if "two_stage_new" in models else served.about["page"],
        "exclude_items": [item["item_id"] for item in listed],
    }
    promise = {"new_items": 5, "exclude_purchased": True, "in_stock_only": served.stocked}
    answer = served.post("recommendations", user_id=user, **asked, **promise)
    row = panel.locator(".discoveries")
    expect(row.get_by_role("heading", level=3).first).to_have_text("New for you")
    told(served, row.locator("li.card"), answer["recommendations"], "recommendation_reason")
    assert {item["last_purchase_date"] for item in answer["recommendations"]} == {None}
    for note in answer["notes"]:
        expect(row).to_contain_text(note)


def best_sellers(served: Served, query: str = "") -> list[dict]:
    """What the shopper's tab shows to nobody in particular."""
    stock = "true" if served.stocked else "false"
    path = f"recommendations/anonymous?in_stock_only={stock}{query}"
    return served.get(path)["recommendations"]


def near(
    page: Page, served: Served, button: Locator, item: dict, in_stock_only: bool = False
) -> None:
    """The similar items' dialog; the focus comes back from it."""
    button.click()
    dialog = page.get_by_role("dialog", name=f"Similar to {plain(item['item_name'])}")
    expect(dialog.locator("li").first).to_be_visible()
    wanted = served.get(
        f"items/{quote(item['item_id'], safe='')}/similar?n=5&in_stock_only={in_stock_only}"
    )["similar_items"]
    told(served, dialog.locator("li"), wanted)
    shown_where_telling(dialog, "Relevance", wanted, "relevance_score")
    fits(page)
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(button).to_be_focused()


def shown_where_telling(panel: Locator, label: str, items: list[dict], key: str) -> None:
    """Bars stand where they tell the items apart, and are as long as the service's numbers."""
    known = [item[key] for item in items if item[key] is not None]
    wanted = known if len({f"{value:.2f}" for value in known}) > 1 else []
    assert widths(panel, label) == pytest.approx(wanted, abs=0.01)


def walk_analyst(page: Page, served: Served) -> None:
    """Two models side by side, the profile, why an item is there, what is popular and how the
    service is set.
    """
    user = served.known[0]
    panel = opened(page, served, "analyst", user=user, model="hybrid", versus="als", n=7)
    lists = [
        served.get(f"recommendations/{quote(user)}?n=7&model={model}")["recommendations"]
        for model in ("hybrid", "als")
    ]
    for column, wanted in zip(panel.locator(".column").all(), lists, strict=True):
        told(served, column.locator("li"), wanted, "recommendation_reason")
        for label, key in (("Relevance", "relevance_score"), ("Confidence", "confidence_score")):
            shown_where_telling(column, label, wanted, key)
    for label in ("Model", "Beside it"):
        offered = (
            panel.get_by_label(label)
            .locator("option")
            .evaluate_all("all => all.map(one => one.value)")
        )
        assert set(offered) - {"none"} == {model["name"] for model in served.about["models"]}
    for column, mine, other in zip(panel.locator(".column").all(), lists, lists[::-1]):
        there = {item["item_id"]: item["rank"] for item in other}
        wanted = [difference(item, there) for item in mine]
        marks = column.locator("li .tag:is(.only, .both)").all_inner_texts()
        assert [re.split(r" place|\s*\n", mark)[0] for mark in marks] == wanted
    known(served, panel.locator(".profile"), user)
    fits(page)
    near(
        page,
        served,
        panel.locator(".results").get_by_role("button", name="Items similar to").first,
        lists[0][0],
    )
    why(
        page,
        served,
        panel.locator(".results").get_by_role("button", name="Why").first,
        user,
        lists[0][0],
    )
    best = served.get("items/popular?n=10")["items"]
    rows = panel.locator(".popular tbody tr")
    told(served, rows, best)
    assert widths(panel.locator(".popular"), "Popularity") == pytest.approx(
        [item["popularity_score"] for item in best], abs=0.01
    )
    for row, item in zip(rows.all_inner_texts(), best):
        assert {f"{item['purchase_count']:,}", f"{item['unique_buyers']:,}"} <= set(row.split())
    near(page, served, rows.nth(3).get_by_role("button"), best[3])
    panel.get_by_text("Service: knobs").click()
    size = served.get("config")["config"]["tuning"]["candidate_pool_size"]
    expect(panel.get_by_role("row").filter(has_text="tuning.candidate_pool_size")).to_contain_text(
        str(size)
    )
    fits(page)


def difference(item: dict, there: dict[str, int]) -> str:
    """What marks an item beside another list: item → rank."""
    if item["item_id"] not in there:
        return "only here"
    moved = there[item["item_id"]] - item["rank"]
    return "same" if not moved else f"{'↑' if moved > 0 else '↓'} {abs(moved)}"


def known(served: Served, panel: Locator, user: str) -> None:
    """The profile's facts and what was bought."""
    wanted = served.get(f"users/{quote(user)}/profile")
    info = wanted["user_info"]
    bought = wanted["profile"]["history"]
    for text in (
        user,
        info["user_type"],
        info["spending_segment"].replace("_", " "),
        f"{info['total_purchases']:,}",
        f"{info['unique_items']:,}",
    ):
        expect(panel).to_contain_text(text)
    panel.get_by_text("Attributes and what was bought").click()
    rows = panel.locator("tbody tr").all_inner_texts()
    assert len(rows) == len(bought)
    assert all(plain(item["item_name"]) in plain(row) for row, item in zip(rows, bought))
    for value in wanted["profile"]["attributes"].values():
        expect(panel.locator("details")).to_contain_text(str(value))


def why(page: Page, served: Served, button: Locator, user: str, item: dict) -> None:
    """The explanation's dialog: the reason, the models' shares and every rule."""
    button.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(plain(item["recommendation_reason"]))
    wanted = served.get(
        f"recommendations/{quote(user)}/explain?item_id={quote(item['item_id'])}&model=hybrid"
    )
    shares = [
        float(text)
        for text in dialog.get_by_role("table").first.locator("td:last-child").all_inner_texts()
    ]
    assert shares == [pytest.approx(part["contribution"], abs=0.0051) for part in wanted["parts"]]
    assert sum(shares) > 0
    for rule in wanted["rules"]:
        expect(
            dialog.get_by_role("row").filter(has_text=rule["rule"].replace("_", " "))
        ).to_contain_text(rule["effect"])
    fits(page)
    dialog.get_by_role("button", name="Close").click()
    expect(button).to_be_focused()


def walk_customer(page: Page, served: Served) -> None:
    """A profile of every field gets the service's products and rating.

    Without ratings the tab says so.
    """
    form = served.get("new-customer/fields")
    panel = opened(page, served, "customer")
    fits(page)
    asked = [one["field"] for one in form["fields"] if one["asked"]]
    there = panel.locator(".form [name]:visible")
    assert sorted(there.evaluate_all("all => all.map(one => one.name)")) == sorted(asked)
    if form["available"]:
        assert 3 <= len(asked) <= 4
        panel.get_by_text("more answers").click()
    if not form["available"]:
        expect(panel).to_contain_text("No ratings here")
        expect(panel.locator("button:visible, input:visible")).to_have_count(0)
        return
    profile = {
        one["field"]: one["options"][-1] if one["options"] else one["minimum"]
        for one in form["fields"]
    }
    for one in form["fields"]:
        control = panel.locator(f"#customer-{one['field']}")
        (
            control.select_option(profile[one["field"]])
            if one["kind"] == "choice"
            else control.fill(str(profile[one["field"]]))
        )
    panel.get_by_role("button", name="Recommend").click()
    wanted = served.post("new-customer/recommendations", profile=profile, top_k=6)[
        "recommendations"
    ]
    product = form["item_fields"][0]["field"]
    expect(panel.locator("li.card")).to_have_count(6)
    told(served, panel.locator("li.card"), wanted, "reason")
    assert panel.locator("li.card b").all_inner_texts() == [
        f"{one['rating']:.2f}" for one in wanted
    ]
    panel.locator(f"#rating-{product}").fill(wanted[0]["item"][product])
    panel.locator(f"#rating-{product}").press("Escape")
    panel.get_by_role("button", name="Predict").click()
    rated = served.post(
        "new-customer/rating", profile=profile, item={product: wanted[0]["item"][product]}
    )
    expect(panel.locator(".rating")).to_contain_text(rated["text"])
    fits(page)


def walk_queue(page: Page, served: Served) -> None:
    """Three products are shown and counted.

    View, cart, remove and buy move the pool as the database has it.
    """
    user = served.known[-1]
    panel = opened(page, served, "queue", user=user)
    before = {item: counter for item, counter, _ in standing(page, served, user)}
    with page.expect_response("**/next?n=3") as answer:
        panel.get_by_role("button", name="Show the next 3").click()
    shown = answer.value.json()["shown"]
    told(served, panel.locator("li.card"), shown)
    pool = {item: (counter, score) for item, counter, score in standing(page, served, user)}
    assert [pool[item["item_id"]][0] for item in shown] == [
        before.get(item["item_id"], 0) + 1 for item in shown
    ]
    _, score = pool[shown[0]["item_id"]]
    before_cart = score + 2
    item = shown[0]["item_id"]
    row = panel.locator(".pool tbody tr").filter(
        has=page.locator("th", has_text=re.compile(rf"\b{re.escape(item)}\s*$"))
    )
    remove = row.get_by_role("button", name="Remove")
    for press, change in (("View", 1), ("View", 1), ("To cart", 3), ("To cart", 3), ("Remove", -1)):
        expect(remove).to_have_count(int(score >= before_cart + 3))
        button = row.get_by_role("button", name=press)
        button.click()
        score += change
        expect(row.get_by_role("cell").nth(1)).to_have_text(
            f"{score} {'+' if change > 0 else '−'}{abs(change)}"
        )
        expect(button).to_be_focused()
    fits(page)
    row.get_by_role("button", name="Buy").click()
    expect(row).to_have_count(0)
    expect(panel.locator("li.card")).to_have_count(2)
    expect(panel.get_by_role("button", name="Show the next 3")).to_be_focused()
    expect(panel.get_by_role("log")).to_contain_text(f"{plain(shown[0]['item_name'])} bought.")
    page.reload()
    settled(page, "queue")
    assert item not in [row[0] for row in standing(page, served, user)]
    assert item in served.get(f"queue/{quote(user)}")["purchased"]


def standing(page: Page, served: Served, user: str) -> list[list]:
    """The pool as the service has it, which is what the table shows."""
    answer = served.get(f"queue/{quote(user)}")
    rows = page.locator(".pool tbody tr").evaluate_all(
        "all => all.map(row => [...row.cells].slice(0, 3).map(cell => cell.firstChild.textContent))"
    )
    assert rows == [
        [answer["names"][item], f"{counter:,}", f"{score:,}"]
        for item, counter, score in answer["pool"]
    ]
    return answer["pool"]


def walk_knobs(page: Page, served: Served) -> None:
    """A knob that is moved changes the list as the service says, and not what is in force."""
    user = served.known[0]
    panel = opened(page, served, "knobs", user=user)
    before = served.get("config")["config"]["tuning"]
    expect(panel).to_contain_text("Nothing differs from what is in force")
    with page.expect_response("**/preview") as answer:
        panel.get_by_label("Part of its usual cycle to wait").fill("0.1")
    wanted = answer.value.json()
    settled(page, "knobs")
    columns = panel.locator(".column").all()
    for column, key in zip(columns, ("before", "after"), strict=True):
        told(served, column.locator("li"), wanted[key]["recommendations"], "recommendation_reason")
    change = wanted["changes"][0]
    row = panel.get_by_role("row").filter(has_text=change["knob"])
    expect(row).to_contain_text("0.1")
    if change["precision"] is not None:
        expect(row).to_contain_text(f"{100 * change['precision']:+.1f} pts".replace("-", "−"))
    expect(panel.locator(".toml")).to_have_text("[repurchase_cycle]\nexclusion_factor = 0.1")
    fits(page)
    assert served.get("config")["config"]["tuning"] == before
    panel.get_by_role("button", name="Back to what is in force").click()
    expect(panel).to_contain_text("Nothing differs from what is in force")


def walk_key(page: Page, served: Served) -> None:
    """The key's dialog keeps a key for this tab, and forgets it."""
    button = page.get_by_role("button", name="API key")
    dialog = page.get_by_role("dialog", name="API key")
    for press, kept in (("Use this key", "sesame-7"), ("Forget it", None)):
        button.click()
        dialog.get_by_label("Key", exact=True).fill("sesame-7")
        fits(page)
        dialog.get_by_role("button", name=press).click()
        expect(button).to_be_focused()
        # A dialog tells its page that it was closed a moment after it has gone.
        page.wait_for_function(
            "kept => sessionStorage.getItem('recsys-api-key') === kept", arg=kept, timeout=5000
        )


@pytest.mark.spec("S1-21")
def test_an_empty_client_id_warns_and_keeps_the_focus(page: Page, served: Served) -> None:
    panel = opened(page, served, "shopper")
    panel.get_by_role("button", name="Show products").click()
    expect(panel.get_by_role("alert")).to_contain_text("Enter a client ID")
    box = panel.get_by_label("Client ID")
    expect(box).to_be_focused()
    expect(box).to_have_attribute("aria-invalid", "")
    box.fill("x")
    expect(panel.get_by_role("alert")).to_have_count(0)


@pytest.mark.spec("S1-22", "S1-23", "S1-24", "S1-25", "S1-26", "S1-27")
def test_the_shopper_tab(page: Page, served: Served) -> None:
    walk_shopper(page, served)


@pytest.mark.spec("S1-23")
def test_a_model_of_the_leaderboard_can_be_chosen(page: Page, served: Served) -> None:
    panel = opened(page, served, "shopper", user=served.known[0], model="item_bm25")
    wanted = served.listed(served.known[0], model_type="item_bm25")
    told(served, panel.locator(".results li.card"), wanted, "recommendation_reason")


def test_a_known_client_sees_a_row_of_new_products_and_who_chose_it(
    page: Page, served: Served
) -> None:
    """This shop was trained without the model for them, as the row says; a stranger has none."""
    panel = opened(page, served, "shopper", user=served.known[0])
    walk_discoveries(panel, served, served.known[0], served.listed(served.known[0]))
    row = panel.locator(".discoveries")
    expect(row).to_contain_text("was not trained for this shop: Item neighbours (BM25) chose")
    expect(row.get_by_role("list", name="New for you").locator("li")).to_have_count(5)
    panel = opened(page, served, "shopper", user="walker-3")
    expect(panel.locator(".discoveries li")).to_have_count(0)


@pytest.mark.spec("S5-62")
def test_without_an_id_a_few_products_make_a_list(page: Page, served: Served) -> None:
    panel = opened(page, served, "shopper")
    first, second = served.get("items?q=a&limit=2")["items"]
    panel.get_by_text("No client ID?").click()
    for item in (first, second):
        panel.get_by_label("Product you like").fill(item["item_name"])
        panel.get_by_role("option", name=item["item_name"]).first.click()
        expect(panel.get_by_role("button", name=f"Take away {item['item_name']}")).to_be_visible()
    expect(panel.get_by_role("heading", name="With what you named in mind")).to_be_visible()
    settled(page, "shopper")
    told(
        served,
        panel.locator("li.card"),
        custom(served, first["item_id"], second["item_id"]),
    )
    panel.get_by_role("button", name=f"Take away {first['item_name']}").click()
    expect(panel.locator(".chip")).to_have_count(1)
    settled(page, "shopper")
    told(
        served,
        panel.locator("li.card"),
        custom(served, second["item_id"]),
    )
    panel.get_by_role("button", name=f"Take away {second['item_name']}").click()
    expect(panel.get_by_role("heading", name="What most people buy")).to_be_visible()
    expect(panel.locator(".chip")).to_have_count(0)


def custom(served: Served, *items: str) -> list[dict]:
    """What the shopper's tab shows to who names some products."""
    asked = {"items": items, "in_stock_only": served.stocked}
    return habits_first(served.post("recommendations/custom", **asked)["recommendations"])


@pytest.mark.spec("S5-62")
def test_filters_act_on_named_products_and_without_any(page: Page, served: Served) -> None:
    likes = [item["item_id"] for item in served.get("items?q=a&limit=3")["items"]]
    own = served.post("recommendations/custom", items=likes, n=20)["recommendations"]
    category = own[-1]["category"]
    for params, path in (
        ({"likes": "\n".join(likes)}, None),
        ({}, "recommendations/anonymous?n=10&in_stock_only=true&category="),
    ):
        panel = opened(page, served, "shopper", n=10, category=category, fresh="true", **params)
        wanted = (
            served.get(path + quote(category))
            if path
            else served.post(
                "recommendations/custom",
                items=likes,
                n=10,
                category=category,
                in_stock_only=True,
                exclude_purchased=True,
            )
        )
        told(served, panel.locator("li.card"), habits_first(wanted["recommendations"]))
        assert {item["category"] for item in wanted["recommendations"]} == {category}
        assert not {item["item_id"] for item in wanted["recommendations"]} & (
            set() if path else set(likes)
        )
        expect(panel.get_by_label("Category")).to_have_value(category)


def test_a_product_that_only_the_address_names_gets_its_name_and_goes_by_keys(
    page: Page, served: Served
) -> None:
    first, second = served.get("items?q=a&limit=2")["items"]
    panel = opened(page, served, "shopper", likes=f"{first['item_id']}\n{second['item_id']}")
    expect(panel.locator(".chip")).to_have_text(
        [f"{first['item_name']} ✕", f"{second['item_name']} ✕"]
    )
    panel.locator(".chip").first.focus()
    page.keyboard.press("Enter")
    expect(panel.locator(".chip")).to_have_count(1)
    expect(panel.get_by_label("Product you like")).to_be_focused()


@pytest.mark.spec("S1-25")
def test_sold_out_products_only_on_request(page: Page, served: Served) -> None:
    panel = opened(page, served, "shopper", user=served.known[0], n=20)
    assert set(panel.locator(".badge").all_inner_texts()) == {"In stock"}
    panel.get_by_label("Show sold-out products too").check()
    panel.get_by_role("button", name="Show products").click()
    settled(page, "shopper")
    assert "Sold out" in panel.locator(".badge").all_inner_texts()
    assert "sold=true" in page.url


@pytest.mark.spec("S5-46", "S5-54", "S5-55", "S5-56", "S5-57", "S5-58")
def test_the_analyst_tab(page: Page, served: Served) -> None:
    walk_analyst(page, served)


@pytest.mark.spec("S5-59")
def test_a_shopper_is_found_by_keys_alone(page: Page, served: Served) -> None:
    panel = opened(page, served, "shopper")
    page.get_by_role("tab", name="Shopper").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Analyst")).to_be_focused()
    panel = settled(page, "analyst")
    page.keyboard.press("Tab")
    expect(panel.get_by_label("Shopper")).to_be_focused()
    page.keyboard.type(served.known[4][-3:])
    found = served.get(f"users?q={served.known[4][-3:]}&limit=8")["users"]
    options = panel.locator(".options").get_by_role("option")
    expect(options).to_have_count(len(found["loyal"]) + len(found["new"]))
    page.keyboard.press("ArrowDown")
    expect(options.first).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Enter")
    expect(panel.locator(".profile h2")).to_contain_text((found["loyal"] + found["new"])[0])
    expect(options).to_have_count(0)
    page.keyboard.press("ArrowDown")
    expect(options.first).to_be_visible()
    page.keyboard.press("Escape")
    expect(options).to_have_count(0)


@pytest.mark.spec("S5-27")
def test_filters_reach_the_service_and_stay_in_the_address(page: Page, served: Served) -> None:
    panel = opened(page, served, "analyst", user=served.known[0], n=20, versus="none")
    panel.get_by_text("Filters and moment").click()
    panel.get_by_label("Price from").fill("2")
    panel.get_by_label("Price to").fill("4")
    panel.get_by_role("button", name="Recommend").click()
    settled(page, "analyst")
    prices = [
        float(text.split("£")[1].split()[0])
        for text in panel.locator(".results .what p").all_inner_texts()
    ]
    assert prices
    assert all(2 <= price <= 4 for price in prices)
    page.reload()
    panel = settled(page, "analyst")
    expect(panel.get_by_label("Price to")).to_have_value("4")
    panel.get_by_label("Price from").fill("9")
    panel.get_by_role("button", name="Recommend").click()
    expect(panel.locator(".results").get_by_role("alert")).to_contain_text("price")
    page.go_back()
    settled(page, "analyst")
    expect(panel.get_by_label("Price from")).to_have_value("2")


@pytest.mark.spec("S2-25", "S2-26")
def test_the_new_customers_tab(page: Page, served: Served) -> None:
    walk_customer(page, served)


@pytest.mark.spec("S2-25")
def test_only_what_was_filled_in_is_sent(page: Page, served: Served) -> None:
    panel = opened(page, served, "customer")
    choice = next(
        one
        for one in served.get("new-customer/fields")["fields"]
        if one["kind"] == "choice" and one["asked"]
    )
    if not panel.get_by_label("Age").is_visible():
        panel.get_by_text("more answers").click()
    panel.get_by_label("Age").fill("34")
    panel.locator(f"#customer-{choice['field']}").select_option(choice["options"][0])
    with page.expect_request("**/new-customer/recommendations") as sent:
        panel.get_by_role("button", name="Recommend").click()
    assert sent.value.post_data_json == {
        "profile": {"Age": 34, choice["field"]: choice["options"][0]},
        "top_k": 6,
    }
    panel.get_by_role("button", name="Predict").click()
    expect(panel.locator(".rating").get_by_role("alert")).to_contain_text("Name a product")
    panel.locator(".rating select").first.select_option(index=1)
    panel.get_by_label("Known customer").fill("who?")
    panel.get_by_role("button", name="Predict").click()
    expect(panel.locator(".rating").get_by_role("alert")).to_contain_text("who?")


@pytest.mark.spec(
    "S4-14",
    "S4-15",
    "S4-16",
    "S4-17",
    "S4-18",
    "S4-19",
    "S4-20",
    "S4-21",
    "S4-22",
    "S4-23",
    "S4-24",
)
def test_the_queue_tab(page: Page, served: Served) -> None:
    walk_queue(page, served)
    walk_key(page, served)


@pytest.mark.spec("S4-14")
def test_any_product_can_be_looked_up_and_viewed(page: Page, served: Served) -> None:
    panel = opened(page, served, "queue", user="page-visitor")
    item = served.get("items?q=a&limit=5")["items"][3]
    panel.get_by_label("Product").fill(item["item_name"])
    panel.get_by_role("option").first.click()
    panel.get_by_role("button", name="To cart").click()
    expect(panel.get_by_role("table")).to_contain_text(item["item_name"])
    assert served.get("queue/page-visitor")["pool"] == [[item["item_id"], 0, 3]]


def test_writing_asks_for_the_key_and_goes_on_with_it(
    page: Page, locked: Served, served: Served
) -> None:
    panel = opened(page, locked, "queue", user="key-shopper")
    panel.get_by_role("button", name="Show the next 3").click()
    dialog = page.get_by_role("dialog", name="API key")
    expect(dialog).to_be_visible()
    dialog.get_by_label("Key", exact=True).fill("wrong")
    dialog.get_by_role("button", name="Use this key").click()
    panel.get_by_role("button", name="Show the next 3").click()
    expect(panel.get_by_role("alert")).to_contain_text("A key is needed")
    dialog.get_by_label("Key", exact=True).fill("sesame-7")
    dialog.get_by_role("button", name="Use this key").click()
    panel.get_by_role("button", name="Show the next 3").click()
    expect(panel.locator("li.card")).to_have_count(3)
    expect(panel.get_by_role("alert")).to_have_count(0)


def test_html_and_sql_in_an_id_are_shown_as_text(page: Page, served: Served) -> None:
    for tab in ("shopper", "analyst", "queue"):
        panel = opened(page, served, tab, user=HOSTILE)
        expect(panel.get_by_role("heading", name=HOSTILE)).to_be_visible()
        assert page.locator("main img[src]").count() == 0


def test_any_id_gets_its_own_answer(page: Page, served: Served) -> None:
    for user in ("..", ".", "a/b", "?#&=%", "\u202e日本 🛒"):
        expect(
            opened(page, served, "shopper", user=user).get_by_role(
                "heading", name=f"For {user}", exact=True
            )
        ).to_be_visible()
    for tab, said in (("analyst", "a/b?#&=% unknown shopper"), ("queue", "Queue of a/b?#&=%")):
        expect(
            opened(page, served, tab, user="a/b?#&=%").get_by_role("heading", name=said, exact=True)
        ).to_be_visible()


def test_a_refusal_is_said_with_the_request_id(page: Page, served: Served) -> None:
    panel = opened(page, served, "analyst", user=served.known[0], n=21, versus="none")
    alert = panel.locator(".results").get_by_role("alert")
    expect(alert).to_contain_text("21")
    expect(alert.locator("code")).to_have_text(re.compile(r"\S{6,}"))
    panel.get_by_label("Items", exact=True).fill("3")
    panel.get_by_role("button", name="Recommend").click()
    expect(panel.locator(".results li")).to_have_count(3)


def test_a_number_out_of_range_is_stopped_before_it_is_sent(page: Page, served: Served) -> None:
    panel = opened(page, served, "analyst", user=served.known[0])
    panel.get_by_label("Items", exact=True).fill("21")
    panel.get_by_role("button", name="Recommend").click()
    expect(panel.get_by_label("Items", exact=True)).to_be_focused()
    assert "n=21" not in page.url


def test_a_failure_of_the_service_is_said_and_can_be_tried_again(
    page: Page, served: Served
) -> None:
    page.route(
        "**/recommendations/anonymous*",
        lambda route: route.fulfill(status=500, body="<h1>oops</h1>"),
        times=1,
    )
    panel = opened(page, served, "shopper")
    expect(panel.get_by_role("alert")).to_contain_text("The service has a problem")
    assert "oops" not in panel.inner_text()
    panel.get_by_role("button", name="Try again").press("Enter")
    expect(panel.locator("li.card")).to_have_count(5)
    expect(panel.locator(".results")).to_be_focused()


def test_a_late_answer_does_not_replace_a_newer_one(page: Page, served: Served) -> None:
    slow = served.known[0]
    held = []
    page.route(
        "**/api/v1/recommendations",
        lambda route: (
            held.append(route)
            if route.request.post_data_json["user_id"] == slow
            else route.continue_()
        ),
    )
    page.goto(f"{served.url}/#shopper?user={slow}")
    expect(page.locator("#view-shopper .ghost").first).to_be_visible()
    page.evaluate(f"location.hash = 'shopper?user={served.known[1]}'")
    expect(page.get_by_role("heading", name=f"For {served.known[1]}")).to_be_visible()
    with page.expect_event("requestfinished"):
        held[0].continue_()
    page.wait_for_timeout(100)
    expect(page.get_by_role("heading", name=f"For {served.known[1]}")).to_be_visible()


def test_tabs_follow_the_arrow_keys_and_remember_what_they_showed(
    page: Page, served: Served
) -> None:
    opened(page, served, "shopper", user=served.known[0])
    tabs = page.get_by_role("tab")
    tabs.first.focus()
    for key, at in (
        ("ArrowLeft", 4),
        ("Home", 0),
        ("End", 4),
        ("ArrowRight", 0),
        ("ArrowRight", 1),
    ):
        page.keyboard.press(key)
        expect(tabs.nth(at)).to_be_focused()
        settled(page, TABS[at])
        assert tabs.evaluate_all(
            "all => all.map(tab => [tab.getAttribute('aria-selected'), tab.tabIndex])"
        ) == [["true", 0] if n == at else ["false", -1] for n in range(5)]
        assert page.get_by_role("tabpanel").count() == 1
    page.keyboard.press("Home")
    expect(settled(page, "shopper").get_by_label("Client ID")).to_have_value(served.known[0])


def test_the_page_outlives_a_service_that_stops(page: Page, trained: Path, tmp_path: Path) -> None:
    database = copied(trained, tmp_path)
    own = Served(lambda: create_app(trained, database))
    own.start()
    panel = opened(page, own, "queue", user="brave")
    own.stop()
    panel.get_by_role("button", name="Show the next 3").click()
    expect(panel.get_by_role("alert")).to_contain_text("No connection")
    own.start()
    panel.get_by_role("button", name="Show the next 3").click()
    expect(panel.locator("li.card")).to_have_count(3)
    expect(panel.get_by_role("alert")).to_have_count(0)
    own.stop()


def test_untrained_the_page_says_what_to_do(page: Page, tmp_path: Path) -> None:
    own = Served(lambda: create_app(tmp_path / "nothing", tmp_path / "recommendation.db"))
    own.start()
    page.goto(own.url)
    expect(page.get_by_role("alert")).to_contain_text("Not ready yet")
    expect(page.get_by_role("alert")).to_contain_text("recsys_utils.serving train")
    own.stop()


def test_with_reduced_motion_nothing_moves(page: Page, served: Served) -> None:
    held = []
    page.emulate_media(reduced_motion="reduce")
    page.route("**/recommendations/anonymous*", lambda route: held.append(route))
    page.goto(served.url)
    ghost = page.locator("#view-shopper .ghost").first
    moving = "one => getComputedStyle(one).animationName"
    expect(ghost).to_be_visible()
    assert ghost.evaluate(moving) == "none"
    page.emulate_media(reduced_motion="no-preference")
    assert ghost.evaluate(moving) == "ghost"
    held[0].continue_()
    settled(page, "shopper")


def test_what_is_new_is_announced_and_what_has_the_focus_is_seen(
    page: Page, served: Served
) -> None:
    panel = opened(page, served, "shopper", user=served.known[0])
    expect(page.locator("#said")).to_have_text(f"For {served.known[0]}: 5 shown")
    panel.get_by_role("button", name="Show products").focus()
    for _ in range(9):  # two checks, two summaries, five cards
        page.keyboard.press("Tab")
        ring = page.evaluate(
            "(({outlineStyle, outlineWidth}) => [outlineStyle,"
            " parseFloat(outlineWidth)])(getComputedStyle(document.activeElement))"
        )
        assert ring[0] != "none"
        assert ring[1] >= 2
    panel.get_by_role("button", name="More like").first.press("Enter")
    expect(page.locator("#said")).to_have_text(re.compile(r"shown$"))


def test_an_address_with_unknown_choices_falls_back_to_the_defaults(
    page: Page, served: Served
) -> None:
    panel = opened(page, served, "shopper", model="gone", category="gone", n=7)
    chosen_by = served.about["page"]
    for label, value in (("Chosen by", chosen_by), ("Category", ""), ("Products", "5")):
        expect(panel.get_by_label(label, exact=True)).to_have_value(value)
    opened(page, served, "analyst", n=21)
    expect(opened(page, served, "analyst").get_by_label("Items", exact=True)).to_have_value("5")


@pytest.mark.spec("S5-46")
def test_an_explanation_is_of_the_moment_that_was_asked_for(page: Page, served: Served) -> None:
    panel = opened(page, served, "analyst", user=served.known[0], timestamp="2024-06-01T00:00:00")
    with page.expect_request("**/explain*") as asked:
        panel.get_by_role("button", name="Why").first.click()
    assert "timestamp=2024-06-01T00" in asked.value.url


def test_contrast_of_text_is_enough_in_light_and_dark(page: Page, served: Served) -> None:
    opened(page, served, "analyst", user=served.known[0])
    pairs = (
        ("--ink", "--bg"),
        ("--soft", "--bg"),
        ("--soft", "--card"),
        ("--accent", "--bg"),
        ("--accent", "--wash"),
        ("--on", "--accent"),
        ("--good", "--goodbg"),
        ("--bad", "--badbg"),
        ("--note", "--notebg"),
        ("--accent", "--card"),
    )
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for pair in pairs:
            colours = [
                page.evaluate(
                    f"getComputedStyle(document.documentElement).getPropertyValue('{name}')"
                ).strip()
                for name in pair
            ]
            assert contrast(*colours) >= 4.5, (scheme, pair, colours)


def contrast(one: str, other: str) -> float:
    """WCAG 2 contrast of two colours, #rgb or #rrggbb."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    digits = colour.lstrip("#")
    parts = [
        int(
            digits[n * len(digits) // 3 : (n + 1) * len(digits) // 3]
            * (2 if len(digits) == 3 else 1),
            16,
        )
        / 255
        for n in range(3)
    ]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_habits_and_discoveries_are_told_apart(page: Page, served: Served) -> None:
    for user in served.known:
        wanted = served.listed(user, num_recommendations=20)
        bought = [item for item in wanted if item["last_purchase_date"]]
        if bought and len(bought) < len(wanted):
            break
    else:
        pytest.fail("nobody is shown both habits and discoveries")
    panel = opened(page, served, "shopper", user=user, n=20)
    habits = panel.get_by_role("list", name="Buys again").locator("li")
    told(served, habits, bought)
    assert all("Last bought" in text for text in habits.all_inner_texts())
    new = panel.get_by_role("list", name="New to try").locator("li")
    told(served, new, wanted[len(bought) :])
    assert not any("Last bought" in text for text in new.all_inner_texts())


def test_one_sentence_says_who_speaks_and_how_fresh_the_receipts_are(
    page: Page, served: Served
) -> None:
    panel = opened(page, served, "shopper", user=served.known[0])
    title = {one["name"]: one["title"] for one in served.about["models"]}[served.about["page"]]
    expect(panel.locator(".heading").first).to_contain_text(
        re.compile(rf"{title} chose these from [\d,]+ purchases\. Receipts until \d+ \w+ \d{{4}}")
    )


def test_an_id_with_a_slip_offers_the_ones_that_may_be_meant(page: Page, served: Served) -> None:
    meant = served.known[0]
    panel = opened(page, served, "shopper", user=meant[:-2] + meant[-1])
    expect(panel.locator(".heading").first).to_contain_text("new to us")
    expect(panel.locator(".chain")).to_contain_text("→ Popularity: made the list")
    panel.get_by_role("button", name=meant, exact=True).click()
    expect(panel.get_by_role("heading", name=f"For {meant}", exact=True)).to_be_visible()
    analyst = opened(page, served, "analyst", user=meant.lower())
    analyst.locator(".profile").get_by_role("button", name=meant, exact=True).click()
    expect(analyst.get_by_role("heading", name=meant, exact=True)).to_be_visible()


def test_a_dialog_closes_when_the_shopper_changes(page: Page, served: Served) -> None:
    panel = opened(page, served, "shopper", user=served.known[0])
    panel.get_by_role("button", name="More like").first.click()
    expect(page.get_by_role("dialog")).to_have_count(1)
    page.evaluate(f"location.hash = 'shopper?user={served.known[1]}'")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_two_lists_are_swiped_on_a_phone(page: Page, served: Served) -> None:
    page.set_viewport_size(PHONE)
    panel = opened(page, served, "analyst", user=served.known[0])
    lists = panel.get_by_role("region", name="Lists side by side")
    first, second = (one.bounding_box() for one in lists.locator(".column").all())
    assert abs(first["y"] - second["y"]) < 1
    assert second["x"] < PHONE["width"] < second["x"] + second["width"]
    lists.evaluate("one => one.scrollTo({left: one.scrollWidth})")
    page.wait_for_timeout(300)
    second = lists.locator(".column").last.bounding_box()
    assert second["x"] >= 0
    assert second["x"] + second["width"] <= PHONE["width"]
    page.set_viewport_size(DESK)


def test_the_queue_shows_nothing_that_is_sold_out(page: Page, served: Served) -> None:
    panel = opened(page, served, "queue", user=served.known[2])
    for _ in range(4):
        with page.expect_response("**/next?n=3") as answer:
            panel.get_by_role("button", name="Show the next 3").click()
        assert "out_of_stock" not in {item["stock"] for item in answer.value.json()["shown"]}


def test_pins_and_weights_are_tried_on_the_knobs_tab(page: Page, served: Served) -> None:
    item = served.get("items?limit=100")["items"][40]
    panel = opened(page, served, "knobs", user=served.known[0])
    panel.get_by_label("Comes first").fill(item["item_name"])
    panel.locator(".options").get_by_role("option").first.click()
    column = panel.locator(".column").last
    expect(column.locator("li").first).to_contain_text("Picked by the shop")
    panel.get_by_label("ALS").fill("0")
    expect(panel.get_by_role("row").filter(has_text="Weight of ALS")).to_contain_text("0")
    expect(panel.locator(".toml")).to_contain_text("[merchandising]")


@pytest.mark.skipif(not os.environ.get("AXE_CORE"), reason="AXE_CORE names no axe.min.js")
def test_axe_core_finds_nothing_serious_on_any_tab(page: Page, served: Served) -> None:
    """`AXE_CORE=path/to/axe.min.js pytest …`: the script is not part of this repository."""
    script = Path(os.environ["AXE_CORE"]).read_text()
    user = served.known[0]
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for tab in TABS:
            opened(page, served, tab, **({} if tab == "customer" else {"user": user}))
            page.evaluate(script)
            found = page.evaluate("axe.run().then(result => result.violations)")
            serious = [one for one in found if one["impact"] in ("serious", "critical")]
            told_of = [
                (one["id"], [node["html"][:90] for node in one["nodes"][:3]]) for one in serious
            ]
            assert told_of == [], (tab, scheme)
