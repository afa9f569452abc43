"""The page's tab for shoppers: lists, new products, products that are named, and dialogs."""

import re
from urllib.parse import quote

import pytest
from page_walk import (
    walk_discoveries,
    walk_shopper,
)
from pages import Page, Served, expect, habits_first, needs_browser, opened, settled, told

pytestmark = needs_browser


@pytest.mark.spec("S1-21")
def test_an_empty_client_id_warns_and_keeps_the_focus(page: Page, served: Served) -> None:
    panel = opened(page, served, "shopper")
    panel.get_by_role("button", name="Show products").click()
    expect(panel.get_by_role("alert")).to_contain_text("Enter a shopper ID")
    box = panel.get_by_label("Shopper ID")
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
    expect(row).to_contain_text("was not trained for this shop: Hybrid chose what is new.")
    expect(row.get_by_role("list", name="New for you").locator("li")).to_have_count(5)
    panel = opened(page, served, "shopper", user="walker-3")
    expect(panel.locator(".discoveries li")).to_have_count(0)


@pytest.mark.spec("S5-62")
def test_without_an_id_a_few_products_make_a_list(page: Page, served: Served) -> None:
    panel = opened(page, served, "shopper")
    first, second = served.get("items?q=a&limit=2")["items"]
    panel.get_by_text("No shopper ID?").click()
    for item in (first, second):
        panel.get_by_label("Product you like").fill(item["item_name"])
        panel.get_by_role("option", name=item["item_name"]).first.click()
        expect(panel.get_by_role("button", name=f"Take away {item['item_name']}")).to_be_visible()
    expect(panel.get_by_role("heading", name="Based on the products you named")).to_be_visible()
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
