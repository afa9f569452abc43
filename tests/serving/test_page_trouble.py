"""The page where something goes wrong, by keys alone, and for who sees or hears it otherwise."""

import os
import re
from pathlib import Path

import pytest
from pages import (
    HOSTILE,
    TABS,
    Page,
    Served,
    copied,
    expect,
    needs_browser,
    opened,
    settled,
)

from recsys_utils.serving.app import create_app

pytestmark = needs_browser


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
    expect(settled(page, "shopper").get_by_label("Shopper ID")).to_have_value(served.known[0])


def test_the_page_outlives_a_service_that_stops(page: Page, trained: Path, tmp_path: Path) -> None:
    database = copied(trained, tmp_path)
    own = Served(lambda: create_app(trained, database))
    own.start()
    panel = opened(page, own, "queue", user="brave")
    own.stop()
    panel.get_by_role("button", name="Show the next products").click()
    expect(panel.get_by_role("alert")).to_contain_text("No connection")
    own.start()
    panel.get_by_role("button", name="Show the next products").click()
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
