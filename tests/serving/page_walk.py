"""A walk through every tab and dialog of whatever is served.

Names, prices, bars and counts on the page are the service's own.
"""

import re
from collections import Counter
from pathlib import Path
from urllib.parse import quote

import pytest
from pages import (
    Locator,
    Page,
    Served,
    chromium,
    expect,
    fits,
    opened,
    plain,
    serving,
    settled,
    told,
    watched,
    widths,
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
    """Bars stand where they tell the items apart, and are as long as the service's numbers.

    No value stands in four of five rows.
    """
    known = [item[key] for item in items if item[key] is not None]
    often = Counter(f"{value:.2f}" for value in known).most_common(1)
    wanted = known if often and often[0][1] < 0.8 * len(known) else []
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
    for label in ("Model", "Compared with"):
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
    with page.expect_response("**/next") as answer:
        panel.get_by_role("button", name="Show the next products").click()
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
    expect(panel.get_by_role("button", name="Show the next products")).to_be_focused()
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
    expect(panel).to_contain_text("Nothing differs from the current settings")
    with page.expect_response("**/preview") as answer:
        panel.get_by_label("Share of its usual cycle to wait").fill("0.1")
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
    panel.get_by_role("button", name="Back to the current settings").click()
    expect(panel).to_contain_text("Nothing differs from the current settings")


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
