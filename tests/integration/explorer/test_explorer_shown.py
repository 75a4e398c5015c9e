"""What the explorer shows beyond the sets: times, map, links, mistakes; on a phone, and to axe-core."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from browser import (
    ASKED,
    METHODS,
    THEMES,
    TITLES,
    chromium,
    grave,
    names,
    opened_page,
    served,
    settled,
)
from playwright.sync_api import Browser, Locator, expect

from r4t.serving.methods import Writer
from r4t.serving.version import open_version

pytestmark = pytest.mark.service


def test_k_and_seed_sliders_change_the_answer(browser: Browser, url: str) -> None:
    with opened_page(browser, url + ASKED) as page:
        settled(page)
        page.get_by_label("Items in a set").focus()
        page.keyboard.press("ArrowRight")
        expect(page).to_have_url(f"{url}?q=grilled+salmon&k=5")
        settled(page)
        assert {method: len(names(page, method)) for method in METHODS} == dict.fromkeys(METHODS, 5)
        before = names(page, "r4t_diffusion")
        page.get_by_label("Seed", exact=True).focus()
        page.keyboard.press("ArrowRight")
        expect(page).to_have_url(f"{url}?q=grilled+salmon&k=5&seed=1")
        settled(page)
        answer = httpx.post(f"{url}v1/retrieve", json={"query": "grilled salmon", "k": 5, "seed": 1}).json()
        assert names(page, "r4t_diffusion") == [item["name"] for item in answer["sets"][0]["items"]] != before


def test_every_method_says_how_long_it_took(browser: Browser, url: str) -> None:
    with opened_page(browser, url + ASKED) as page:
        settled(page)
        for method in METHODS:
            shown = page.locator(f"article[data-method={method}] .time")
            expect(shown).to_have_text(re.compile(r"^\d+(\.\d+)? ms in total: encode \d.* ms"))
            said = float(shown.inner_text().split(" ms")[0])
            assert said > 0
        cells = page.locator("table.compare tbody td:last-child").all_inner_texts()
        assert [float(cell) > 0 for cell in cells] == [True] * 3
        expect(page.locator("table.compare thead th").last).to_have_text("ms")


def test_the_map_shows_the_query_and_every_row_at_once(browser: Browser, url: str) -> None:
    with opened_page(browser, url + ASKED) as page:
        settled(page)
        found = httpx.post(f"{url}v1/retrieve", json={"query": "grilled salmon", "k": 4, "map": True}).json()["sets"][0]
        star = page.locator("#map svg[role=img] .query")
        expect(star).to_have_count(1)
        expect(star).to_be_visible()
        crosses = page.locator("#map .every .row")
        assert crosses.count() == page.locator("#map .every .row.m-r4t_diffusion").count() == len(found["map"]["rows"])
        assert f"{len(found['map']['rows'])} rows" in str(
            page.locator("#map svg[role=img]").get_attribute("aria-label")
        )

        def centre(place: Locator) -> tuple[float, float]:
            box = place.bounding_box()
            assert box is not None
            return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

        (x, y), drawn = centre(star), [centre(cross) for cross in crosses.all()]
        apart = [found["map"]["rows"][place][0] - found["map"]["query"][0] for place in range(len(drawn))]
        assert [shown - x > 0 for shown, _ in drawn] == [wide > 0 for wide in apart], "as the server places them"
        assert any(abs(across - y) > 2 for _, across in drawn)
        page.locator("article[data-method=r4t_diffusion] button.item").first.hover()
        expect(page.locator("#map .rows .row")).to_have_count(1)


def test_a_method_that_fails_is_told_beside_the_sets_of_the_others(browser: Browser, folder: Path) -> None:
    def write(queries: list[str], _seeds: list[int]) -> list[tuple[str, ...]]:
        if queries != ["warm"]:
            raise RuntimeError("secret of the engine")
        return [("warm",)]

    broken = open_version([folder / "exported"], "onnx", 1, Writer(write=write, lineage="policy"))  # type: ignore[arg-type]
    with served(folder, broken) as address, opened_page(browser, address + ASKED) as page:
        settled(page)
        failed = page.locator("article[data-method=r4t_folm] .failed")
        expect(failed).to_contain_text("The server failed on this request")
        expect(failed.get_by_role("button", name="Try again")).to_be_visible()
        assert {method: len(names(page, method)) for method in METHODS} == dict.fromkeys(METHODS, 4)
        expect(page.locator("#status")).to_contain_text("1 of 4 methods failed.")
        assert page.locator("table.compare tbody th").all_inner_texts() == TITLES
        assert "secret" not in page.content()


def test_the_copied_link_is_the_page(browser: Browser, url: str) -> None:
    allowed = ["clipboard-read", "clipboard-write"]
    with opened_page(browser, f"{url}{ASKED}&seed=3&f.how=raw", permissions=allowed) as page:
        settled(page)
        page.get_by_role("button", name="Another set").click()
        expect(page).to_have_url(re.compile("seed=4"))
        settled(page)
        shown = names(page, "r4t_diffusion")
        page.get_by_role("button", name="Copy link").click()
        expect(page.locator("#status")).to_have_text("Copied")
        link = page.evaluate("navigator.clipboard.readText()")
        assert link == page.url
    with opened_page(browser, link) as other:
        settled(other)
        assert names(other, "r4t_diffusion") == shown


def test_a_link_that_asks_for_too_much_says_what_is_shown_instead(browser: Browser, url: str) -> None:
    with opened_page(browser, f"{url}?q=mint&k=999&spread=-2&seed=x&m=mmr,other&f.how=fried&f.how=raw") as page:
        settled(page)
        said = page.locator("#adjusted")
        expect(said).to_be_visible()
        expect(said).to_have_attribute("role", "status")
        for part in (
            "Items in a set is 24, not “999”",
            "Spread is 0, not “-2”",
            "Seed is 0, not “x”",
            "there is no method “other”",
            "nothing is filtered by how “fried”",
        ):
            expect(said).to_contain_text(part)
        assert page.get_by_label("Items in a set").input_value() == "24"
        page.get_by_role("button", name="Another set").click()
        expect(said).to_be_hidden()
    with opened_page(browser, url + ASKED) as page:
        settled(page)
        expect(page.locator("#adjusted")).to_be_hidden()


@pytest.mark.parametrize("where", [ASKED, "?tab=run", ""])
def test_a_phone_scrolls_in_one_direction(browser: Browser, url: str, where: str) -> None:
    with opened_page(browser, url + where, width=360, height=740, has_touch=True) as page:
        if where != "?tab=run":
            page.locator("#settings > summary").click()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.parametrize("theme", THEMES)
def test_sets_are_compared_on_a_phone(browser: Browser, url: str, theme: str) -> None:
    phone = {"has_touch": True, "is_mobile": True, "color_scheme": theme, "reduced_motion": "reduce"}
    with opened_page(browser, url, width=360, height=740, **phone) as page:
        page.get_by_label("What are you looking for?").tap()
        page.keyboard.type("baked apple")
        page.keyboard.press("Enter")
        settled(page)
        assert {method: len(names(page, method)) for method in METHODS} == dict.fromkeys(METHODS, 10)
        assert page.locator("table.compare tbody th").all_inner_texts() == TITLES
        for part in (*page.locator("table.compare td").all(), page.locator("#map svg[role=img]")):
            box = part.bounding_box()
            assert box is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= 360
        page.locator("article[data-method=mmr] button.item").first.tap()
        expect(page.locator("article[data-method=mmr] dl").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert grave(page) == []


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("where", ["", ASKED, "?tab=run"])
def test_axe_finds_nothing_serious(browser: Browser, url: str, where: str, theme: str) -> None:
    with opened_page(browser, url + where, color_scheme=theme, reduced_motion="reduce") as page:
        assert grave(page) == []


def test_without_a_browser_continuous_integration_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("R4T_CHROMIUM", "R4T_WITHOUT", "R4T_CI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(pytest.skip.Exception, match="no Chromium on this machine"):
        chromium()
    monkeypatch.setenv("R4T_CI", "1")
    with pytest.raises(pytest.fail.Exception, match="chromium is missing"):
        chromium()
