"""The page's other tabs: analyst, new customer, queue, knobs, and the key that writing needs."""

from pathlib import Path

import pytest
from page_walk import walk_analyst, walk_customer, walk_key, walk_queue
from pages import DESK, PHONE, Page, Served, expect, needs_browser, opened, serving, settled

from recsys_utils.serving.settings import QueueSettings, Settings

pytestmark = needs_browser


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


@pytest.mark.spec("S5-46")
def test_an_explanation_is_of_the_moment_that_was_asked_for(page: Page, served: Served) -> None:
    panel = opened(page, served, "analyst", user=served.known[0], timestamp="2024-06-01T00:00:00")
    with page.expect_request("**/explain*") as asked:
        panel.get_by_role("button", name="Why").first.click()
    assert "timestamp=2024-06-01T00" in asked.value.url


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


def test_the_queue_shows_nothing_that_is_sold_out(page: Page, served: Served) -> None:
    panel = opened(page, served, "queue", user=served.known[2])
    for _ in range(4):
        with page.expect_response("**/next") as answer:
            panel.get_by_role("button", name="Show the next products").click()
        assert "out_of_stock" not in {item["stock"] for item in answer.value.json()["shown"]}


def test_the_queue_shows_as_many_as_the_settings_say(
    page: Page, trained: Path, tmp_path: Path
) -> None:
    with serving(trained, tmp_path, Settings(queue=QueueSettings(shown=2))) as two:
        panel = opened(page, two, "queue", user="a-pair")
        panel.get_by_role("button", name="Show the next products").click()
        expect(panel.locator("li.card")).to_have_count(2)


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


def test_writing_asks_for_the_key_and_goes_on_with_it(
    page: Page, locked: Served, served: Served
) -> None:
    panel = opened(page, locked, "queue", user="key-shopper")
    panel.get_by_role("button", name="Show the next products").click()
    dialog = page.get_by_role("dialog", name="API key")
    expect(dialog).to_be_visible()
    dialog.get_by_label("Key", exact=True).fill("wrong")
    dialog.get_by_role("button", name="Use this key").click()
    panel.get_by_role("button", name="Show the next products").click()
    expect(panel.get_by_role("alert")).to_contain_text("A key is needed")
    dialog.get_by_label("Key", exact=True).fill("sesame-7")
    dialog.get_by_role("button", name="Use this key").click()
    panel.get_by_role("button", name="Show the next products").click()
    expect(panel.locator("li.card")).to_have_count(3)
    expect(panel.get_by_role("alert")).to_have_count(0)
