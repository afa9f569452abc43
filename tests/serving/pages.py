"""A browser and a service for tests of the page, and what every one of them looks at."""

import json
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


needs_browser = pytest.mark.skipif(
    not CHROMIUM, reason="the page's tests need Chromium on the PATH"
)


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
        # One for all pages is cheaper than one for each.
        yield result.new_context(viewport=DESK, reduced_motion="reduce")
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


@pytest.fixture(scope="session")
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
    # A new address in the same page is noticed in a task of its own.
    page.evaluate("new Promise(done => setTimeout(done))")
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
