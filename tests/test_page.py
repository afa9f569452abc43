"""The page in a real browser against the real service: every tab and dialog, keys, phones, what goes wrong. SPEC S1-21 to S1-27, S5-54 to S5-59."""

import json
import re
import shutil
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import pytest
import uvicorn

from recsys_utils.serving.app import create_app
from recsys_utils.serving.settings import Settings
from recsys_utils.serving.train import train

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
playwright = pytest.importorskip("playwright.sync_api", reason="the page's tests need playwright: pip install -e .[test]")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="the page's tests need Chromium on the PATH")
expect, Locator, Page = playwright.expect, playwright.Locator, playwright.Page

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
TOML = 'title = "A small <b>made-up</b> shop"\ncurrency = "£"\nsynthetic = true\nlines = 6000\n'
HOSTILE = "<img src=x onerror=alert(1)>'; DROP TABLE queue;--"
TABS = ("shopper", "analyst", "customer", "queue")
PHONE = {"width": 390, "height": 844}


@dataclass
class Served:
    """A running service that can be stopped and started again at the same address."""

    app: Callable[[], object]
    port: int = 0
    known: list[str] = field(default_factory=list)

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


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECSYS_HOME", str(home))
        (home / "small.toml").write_text(TOML)
        train(str(home / "small.toml"), home / "serving", ["preference_pairs", "item_bm25"])
    return home / "serving"


@pytest.fixture(scope="module")
def served(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    database = copied(trained, tmp_path_factory.mktemp("open"))
    made = Served(lambda: create_app(trained, database))
    made.start()
    made.known = made.get("users?limit=20")["users"]["loyal"]
    yield made
    made.stop()


@pytest.fixture
def locked(trained: Path, tmp_path: Path) -> Iterator[Served]:
    database = copied(trained, tmp_path)
    made = Served(lambda: create_app(trained, database, Settings(api_key="sesame-7")))
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with playwright.sync_playwright() as driver:
        made = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield made
        made.close()


@pytest.fixture
def page(browser: object, served: Served) -> Iterator[Page]:
    """A page that must not complain, nor ask any other origin for anything."""
    made, said, asked = browser.new_page(), [], []
    made.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    made.on("pageerror", lambda error: said.append(str(error)))
    made.on("dialog", lambda dialog: (said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    made.on("request", lambda request: asked.append(request.url))
    made.set_default_timeout(10_000)
    yield made
    made.close()
    # The browser reports every 4xx, 5xx and refused connection by itself: these the tests cause on purpose.
    assert [text for text in said if not text.startswith("Failed to load resource")] == []
    assert asked and {re.match(r"\w+://[^/]*", url)[0].split(":")[1] for url in asked} == {"//127.0.0.1"}
    assert len({re.match(r"\w+://[^/]*", url)[0] for url in asked}) == 1


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
    page.goto(f"{served.url}/#{tab}" + ("?" + "&".join(f"{k}={quote(str(v))}" for k, v in params.items()) if params else ""))
    expect(page.locator("#health")).to_contain_text("Data until")
    return settled(page, tab)


def names(panel: Locator, of: str = ".results li h3") -> list[str]:
    return panel.locator(of).all_inner_texts()


def widths(panel: Locator, label: str) -> list[float]:
    """Each meter's width as a share of its track."""
    script = "all => all.map(m => m.querySelector('.fill').getBoundingClientRect().width / m.querySelector('.track').getBoundingClientRect().width)"
    return panel.get_by_role("meter", name=label).evaluate_all(script)


def test_s1_21_an_empty_client_id_warns_and_keeps_the_focus(page: Page, served: Served) -> None:
    panel = opened(page, served, "shopper")
    panel.get_by_role("button", name="Show products").click()
    expect(panel.get_by_role("alert")).to_contain_text("Enter a client ID")
    box = panel.get_by_label("Client ID")
    expect(box).to_be_focused()
    expect(box).to_have_attribute("aria-invalid", "")
    box.fill("x")
    expect(panel.get_by_role("alert")).to_have_count(0)


def test_s1_22_s1_26_a_known_client_gets_the_services_list_as_cards(page: Page, served: Served) -> None:
    user = served.known[0]
    panel = opened(page, served, "shopper", user=user, model="preference_pairs")
    wanted = served.get(f"recommendations/{user}?model=preference_pairs")["recommendations"]
    cards = panel.locator("li.card")
    expect(cards).to_have_count(5)
    for n, (card, item) in enumerate(zip(cards.all(), wanted)):
        said = {"in_stock": "In stock", "out_of_stock": "Sold out", "unknown": "Stock unknown"}[item["stock"]]
        for text in (item["item_name"], f"£{item['item_price']:.2f}", said, item["recommendation_reason"], str(n + 1)):
            expect(card).to_contain_text(text)


def test_s1_24_an_unknown_client_sees_what_is_popular_and_is_told(page: Page, served: Served) -> None:
    panel = opened(page, served, "shopper", user="nobody-1")
    popular = [item["item_name"] for item in served.get("recommendations/nobody-2")["recommendations"]]
    assert names(panel) == popular
    expect(panel.locator(".heading")).to_contain_text("new to us")


def test_s5_62_without_an_id_a_few_products_make_a_list(page: Page, served: Served) -> None:
    panel = opened(page, served, "shopper")
    first, second = served.get("items?q=a&limit=2")["items"]
    panel.get_by_text("No client ID?").click()
    for item in (first, second):
        panel.get_by_label("Product you like").fill(item["item_name"])
        panel.get_by_role("option", name=item["item_name"]).first.click()
        expect(panel.get_by_role("button", name=f"Take away {item['item_name']}")).to_be_visible()
    expect(panel.get_by_role("heading", name="With what you named in mind")).to_be_visible()
    settled(page, "shopper")
    assert names(panel) == [item["item_name"] for item in custom(served, [first["item_id"], second["item_id"]])]
    panel.get_by_role("button", name=f"Take away {first['item_name']}").click()
    expect(panel.locator(".chip")).to_have_count(1)
    settled(page, "shopper")
    assert names(panel) == [item["item_name"] for item in custom(served, [second["item_id"]])]
    panel.get_by_role("button", name=f"Take away {second['item_name']}").click()
    expect(panel.get_by_role("heading", name="What most people buy")).to_be_visible()
    expect(panel.locator(".chip")).to_have_count(0)


def custom(served: Served, items: list[str]) -> list[dict]:
    body = json.dumps({"items": items, "n": 5}).encode()
    asked = urllib.request.Request(f"{served.url}/api/v1/recommendations/custom", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked) as answer:
        return json.load(answer)["recommendations"]


def test_s1_25_only_what_is_in_stock_on_request(page: Page, served: Served) -> None:
    panel = opened(page, served, "shopper", user=served.known[0], n=20)
    assert {"In stock", "Sold out"} & set(panel.locator(".badge").all_inner_texts())
    panel.get_by_label("Only what is in stock").check()
    panel.get_by_role("button", name="Show products").click()
    settled(page, "shopper")
    assert set(panel.locator(".badge").all_inner_texts()) == {"In stock"}
    assert "stock=true" in page.url


def test_s1_27_the_title_is_the_shops_and_synthetic_data_are_named_so(page: Page, served: Served) -> None:
    opened(page, served, "shopper")
    expect(page.get_by_role("heading", level=1)).to_have_text("A small <b>made-up</b> shop")
    expect(page.get_by_text("Synthetic data: this shop")).to_be_visible()
    assert "gradient" in page.locator(".hero").evaluate("hero => getComputedStyle(hero).backgroundImage")


def test_s5_54_every_model_is_selectable_and_two_stand_side_by_side(page: Page, served: Served) -> None:
    panel = opened(page, served, "analyst", user=served.known[1])
    models = {model["name"] for model in served.get("models")["models"]}
    offered = panel.get_by_label("Model").locator("option").evaluate_all("all => all.map(one => one.value)")
    assert set(offered) == models >= {"hybrid", "als", "item_cf", "popularity", "preference_pairs"}
    panel.get_by_label("Model").select_option("als")
    panel.get_by_label("Beside it").select_option("popularity")
    panel.get_by_role("button", name="Recommend").click()
    expect(panel.locator(".column")).to_have_count(2)
    lists = [[item["item_name"] for item in served.get(f"recommendations/{served.known[1]}?model={model}")["recommendations"]]
             for model in ("als", "popularity")]
    assert [names(column, "li h3") for column in panel.locator(".column").all()] == lists
    expect(panel.get_by_text("in both", exact=True)).to_have_count(2 * len(set(lists[0]) & set(lists[1])))


def test_s5_55_similar_items_open_from_a_card_and_the_focus_comes_back(page: Page, served: Served) -> None:
    panel = opened(page, served, "analyst", user=served.known[0])
    button = panel.locator(".results").get_by_role("button", name="Items similar to").first
    first = served.get(f"recommendations/{served.known[0]}")["recommendations"][0]
    button.click()
    dialog = page.get_by_role("dialog", name=f"Similar to {first['item_name']}")
    wanted = served.get(f"items/{first['item_id']}/similar?n=5")["similar_items"]
    expect(dialog.locator("li")).to_have_count(len(wanted))
    assert names(dialog, "li h3") == [item["item_name"] for item in wanted]
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(button).to_be_focused()


def test_s5_46_the_explanation_names_the_reason_the_parts_and_the_rules(page: Page, served: Served) -> None:
    panel = opened(page, served, "analyst", user=served.known[0])
    first = served.get(f"recommendations/{served.known[0]}")["recommendations"][0]
    panel.get_by_role("button", name="Why", exact=False).first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(first["recommendation_reason"])
    why = served.get(f"recommendations/{served.known[0]}/explain?item_id={first['item_id']}&model=hybrid")
    shown = [float(text) for text in dialog.get_by_role("table").first.locator("td:last-child").all_inner_texts()]
    assert shown == [pytest.approx(part["contribution"], abs=0.0051) for part in why["parts"]]
    dialog.get_by_role("button", name="Close").click()
    expect(dialog).to_have_count(0)


def test_s5_56_the_profile_shows_segment_attributes_and_history(page: Page, served: Served) -> None:
    panel = opened(page, served, "analyst", user=served.known[2]).locator(".profile")
    wanted = served.get(f"users/{served.known[2]}/profile")
    expect(panel).to_contain_text(wanted["user_info"]["spending_segment"].replace("_", " "))
    panel.get_by_text("Attributes and what was bought").click()
    expect(panel.get_by_role("row")).to_have_count(1 + len(wanted["profile"]["history"]))
    expect(panel).to_contain_text(str(next(iter(wanted["profile"]["attributes"].values()))))


def test_s5_57_popular_items_have_a_search_icon_for_similar_ones(page: Page, served: Served) -> None:
    panel = opened(page, served, "analyst").locator(".popular")
    wanted = [item["item_name"] for item in served.get("items/popular?n=10")["items"]]
    expect(panel.locator("tbody tr")).to_have_count(10)
    for row, name in zip(panel.locator("tbody tr").all(), wanted):
        expect(row).to_contain_text(name)
    panel.get_by_role("button", name=f"Items similar to {wanted[3]}").click()
    expect(page.get_by_role("dialog", name=f"Similar to {wanted[3]}").locator("li").first).to_be_visible()


def test_s5_58_bars_are_as_wide_as_their_values(page: Page, served: Served) -> None:
    panel = opened(page, served, "analyst", user=served.known[0], n=7).locator(".results")
    wanted = served.get(f"recommendations/{served.known[0]}?n=7")["recommendations"]
    for label, key in (("Relevance", "relevance_score"), ("Confidence", "confidence_score")):
        assert widths(panel, label) == pytest.approx([item[key] or 0 for item in wanted], abs=0.01)


def test_s5_59_a_shopper_is_found_by_keys_alone(page: Page, served: Served) -> None:
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


def test_s5_27_filters_reach_the_service_and_stay_in_the_address(page: Page, served: Served) -> None:
    panel = opened(page, served, "analyst", user=served.known[0], n=20)
    panel.get_by_text("Filters and moment").click()
    panel.get_by_label("Price from").fill("2")
    panel.get_by_label("Price to").fill("4")
    panel.get_by_role("button", name="Recommend").click()
    settled(page, "analyst")
    prices = [float(text.split("£")[1].split()[0]) for text in panel.locator(".results .what p").all_inner_texts()]
    assert prices and all(2 <= price <= 4 for price in prices)
    page.reload()
    panel = settled(page, "analyst")
    expect(panel.get_by_label("Price to")).to_have_value("4")
    panel.get_by_label("Price from").fill("9")
    panel.get_by_role("button", name="Recommend").click()
    expect(panel.locator(".results").get_by_role("alert")).to_contain_text("price")
    page.go_back()
    settled(page, "analyst")
    expect(panel.get_by_label("Price from")).to_have_value("2")


def test_s5_37_the_configuration_is_shown(page: Page, served: Served) -> None:
    panel = opened(page, served, "analyst").locator(".service")
    panel.get_by_text("Service: knobs").click()
    row = panel.get_by_role("row").filter(has_text="tuning.candidate_pool_size")
    expect(row).to_contain_text(str(served.get("config")["config"]["tuning"]["candidate_pool_size"]))


def test_s2_25_s2_26_a_profile_gets_products_and_a_rating(page: Page, served: Served) -> None:
    panel = opened(page, served, "customer")
    fields = served.get("new-customer/fields")
    assert fields["available"]
    for one in fields["fields"]:
        expect(panel.locator(f"form.panel [name='{one['field']}']").first).to_be_visible()
    panel.get_by_label("Age").fill("34")
    choice = next(one for one in fields["fields"] if one["kind"] == "choice")
    panel.locator(f"#customer-{choice['field']}").select_option(choice["options"][0])
    with page.expect_request("**/new-customer/recommendations") as sent:
        panel.get_by_role("button", name="Recommend").click()
    assert sent.value.post_data_json["profile"] == {"Age": 34, choice["field"]: choice["options"][0]}
    cards = panel.locator("li.card")
    expect(cards).to_have_count(6)
    rated = [float(card.get_by_role("img").get_attribute("aria-label").split()[0]) for card in cards.all()]
    assert rated == sorted(rated, reverse=True) and all(1 <= value <= 5 for value in rated)
    product = panel.locator(f"#rating-{fields['item_fields'][0]['field']}")
    product.fill(fields["item_fields"][0]["options"][0])
    product.press("Escape")
    panel.get_by_role("button", name="Predict").click()
    expect(panel.locator(".rating .rated")).to_be_visible()
    panel.get_by_label("Known customer").fill("who?")
    panel.get_by_role("button", name="Predict").click()
    expect(panel.locator(".rating").get_by_role("alert")).to_contain_text("who?")


def test_s4_18_view_cart_remove_and_buy_move_the_pool(page: Page, served: Served) -> None:
    panel = opened(page, served, "queue", user="page-shopper")
    panel.get_by_role("button", name="Show the next 3").click()
    expect(panel.locator("li.card")).to_have_count(3)
    pool = panel.get_by_role("table")
    expect(pool.locator("tbody tr")).to_have_count(6)
    name = panel.locator("li.card h3").first.inner_text()
    row = pool.locator("tbody tr").filter(has=page.get_by_role("button", name=f"View: {name}", exact=True))
    expect(row.get_by_role("cell").first).to_contain_text("1")
    for press, score in (("View", 1), ("View", 2), ("To cart", 5), ("Remove", 4)):
        button = row.get_by_role("button", name=f"{press}: {name}", exact=True)
        button.click()
        expect(row.get_by_role("cell").nth(1)).to_contain_text(re.compile(rf"^{score}\b"))
        expect(button).to_be_focused()
    expect(row.get_by_role("cell").nth(1)).to_contain_text("−1")
    row.get_by_role("button", name=f"Buy: {name}", exact=True).click()
    expect(row).to_have_count(0)
    expect(panel.get_by_role("button", name="Show the next 3")).to_be_focused()
    expect(panel.locator("li.card")).to_have_count(2)
    expect(panel.locator("details.panel")).to_contain_text("never shown again: 1")
    expect(panel.get_by_role("log")).to_contain_text(f"{name} bought.")
    page.reload()
    settled(page, "queue")
    expect(pool.locator("tbody tr")).to_have_count(5)
    assert served.get("queue/page-shopper")["purchased"] and name not in names(panel, "tbody th")


def test_s4_14_any_product_can_be_looked_up_and_viewed(page: Page, served: Served) -> None:
    panel = opened(page, served, "queue", user="page-visitor")
    item = served.get("items?q=a&limit=5")["items"][3]
    panel.get_by_label("Product").fill(item["item_name"])
    panel.get_by_role("option").first.click()
    panel.get_by_role("button", name="To cart").click()
    expect(panel.get_by_role("table")).to_contain_text(item["item_name"])
    assert served.get("queue/page-visitor")["pool"] == [[item["item_id"], 0, 3]]


def test_writing_asks_for_the_key_and_goes_on_with_it(page: Page, locked: Served, served: Served) -> None:
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


@pytest.mark.parametrize("tab", ["shopper", "analyst", "queue"])
def test_html_and_sql_in_an_id_are_shown_as_text(page: Page, served: Served, tab: str) -> None:
    panel = opened(page, served, tab, user=HOSTILE)
    expect(panel.get_by_role("heading", name=HOSTILE)).to_be_visible()
    assert page.locator("main img[src]").count() == 0


@pytest.mark.parametrize("user", ["..", ".", "?#&=%", "\u202e日本 🛒"])
def test_any_id_gets_its_own_answer(page: Page, served: Served, user: str) -> None:
    panel = opened(page, served, "shopper", user=user)
    expect(panel.get_by_role("heading", name=f"For {user}")).to_be_visible()


def test_a_refusal_is_said_with_the_request_id(page: Page, served: Served) -> None:
    panel = opened(page, served, "analyst", user=served.known[0], n=21)
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


def test_a_failure_of_the_service_is_said_and_can_be_tried_again(page: Page, served: Served) -> None:
    page.route("**/recommendations/anonymous*", lambda route: route.fulfill(status=500, body="<h1>oops</h1>"), times=1)
    panel = opened(page, served, "shopper")
    expect(panel.get_by_role("alert")).to_contain_text("The service has a problem")
    assert "oops" not in panel.inner_text()
    panel.get_by_role("button", name="Try again").click()
    expect(panel.locator("li.card")).to_have_count(5)


def test_a_late_answer_does_not_replace_a_newer_one(page: Page, served: Served) -> None:
    slow, held = served.known[0], []
    page.route("**/api/v1/recommendations",
               lambda route: held.append(route) if route.request.post_data_json["user_id"] == slow else route.continue_())
    page.goto(f"{served.url}/#shopper?user={slow}")
    expect(page.locator("#view-shopper .ghost").first).to_be_visible()
    page.evaluate(f"location.hash = 'shopper?user={served.known[1]}'")
    expect(page.get_by_role("heading", name=f"For {served.known[1]}")).to_be_visible()
    with page.expect_event("requestfinished"):
        held[0].continue_()
    page.wait_for_timeout(100)
    expect(page.get_by_role("heading", name=f"For {served.known[1]}")).to_be_visible()


def test_tabs_follow_the_arrow_keys_and_remember_what_they_showed(page: Page, served: Served) -> None:
    opened(page, served, "shopper", user=served.known[0])
    tabs = page.get_by_role("tab")
    tabs.first.focus()
    for key, at in (("ArrowLeft", 3), ("Home", 0), ("End", 3), ("ArrowRight", 0), ("ArrowRight", 1)):
        page.keyboard.press(key)
        expect(tabs.nth(at)).to_be_focused()
        settled(page, TABS[at])
        assert tabs.evaluate_all("all => all.map(tab => [tab.getAttribute('aria-selected'), tab.tabIndex])") == [
            ["true", 0] if n == at else ["false", -1] for n in range(4)]
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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_scrolls_sideways(page: Page, served: Served, scheme: str) -> None:
    page.set_viewport_size(PHONE)
    page.emulate_media(color_scheme=scheme)
    for tab in TABS:
        panel = opened(page, served, tab, user=served.known[0], versus="als")
        if tab == "queue":
            panel.get_by_role("button", name="Show the next 3").click()
            expect(panel.locator("li.card")).to_have_count(3)
        wide = page.evaluate("[...document.querySelectorAll('main *')].filter(one => !one.closest('.scroll, .vh, .options')"
                             " && one.getBoundingClientRect().right > 391).map(one => one.className || one.tagName)")
        assert wide == [] and page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_contrast_of_text_is_enough_in_light_and_dark(page: Page, served: Served) -> None:
    opened(page, served, "analyst", user=served.known[0])
    pairs = (("--ink", "--bg"), ("--soft", "--bg"), ("--soft", "--card"), ("--accent", "--bg"), ("--accent", "--wash"), ("--on", "--accent"),
             ("--good", "--goodbg"), ("--bad", "--badbg"), ("--note", "--notebg"), ("--accent", "--card"))
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for pair in pairs:
            colours = [page.evaluate(f"getComputedStyle(document.documentElement).getPropertyValue('{name}')").strip() for name in pair]
            assert contrast(*colours) >= 4.5, (scheme, pair, colours)


def contrast(one: str, other: str) -> float:
    """WCAG 2 contrast of two colours, #rgb or #rrggbb."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    digits = colour.lstrip("#")
    parts = [int(digits[n * len(digits) // 3:(n + 1) * len(digits) // 3] * (2 if len(digits) == 3 else 1), 16) / 255 for n in range(3)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
