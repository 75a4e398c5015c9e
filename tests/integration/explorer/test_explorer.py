"""The explorer in a real browser, against the real server."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import threading
from pathlib import Path

import httpx
import pytest
from browser import (
    ASKED,
    HOSTILE,
    TITLES,
    Held,
    names,
    opened_page,
    served,
    settled,
)
from playwright.sync_api import Browser, Page, expect
from taught_policy import teach

from cluster.writer import open_writer
from r4t.config import Serve
from r4t.http import key_digest
from r4t.serving.version import Version, open_version

pytestmark = pytest.mark.service


def test_typing_a_query_shows_every_methods_set(browser: Browser, url: str) -> None:
    with opened_page(browser, url) as page:
        expect(page.locator("#intro")).to_be_visible()
        page.get_by_label("What are you looking for?").fill("baked apple")
        page.keyboard.press("Enter")
        settled(page)
        assert page.locator("article h2").all_inner_texts() == TITLES
        answer = httpx.post(f"{url}v1/retrieve", json={"query": "baked apple", "k": 10}).json()
        assert names(page, "r4t_diffusion") == [item["name"] for item in answer["sets"][0]["items"]]
        second = page.locator("article[data-method=r4t_diffusion] button.item").nth(1)
        expect(second).to_contain_text(f"adds {answer['sets'][0]['items'][1]['novelty']:.2f}")
        expect(second).to_contain_text(f"row {answer['sets'][0]['items'][1]['row'] + 1}")
        expect(page.locator("#status")).to_contain_text("No fan-out: 10 items")
        assert page.title() == "baked apple · R4T Explorer"


def test_a_language_model_is_compared_where_it_is_loaded(browser: Browser, folder: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(folder / "run", tmp_path / "run"))
    teach(run, ["grilled salmon", "mint"], ["raw leek", "baked rice", "dried mint"])
    spoken = open_version([folder / "exported"], "onnx", 1, open_writer(run))
    with served(folder, spoken) as address, opened_page(browser, f"{address}{ASKED}") as page:
        settled(page)
        assert page.locator("article h2").all_inner_texts() == ["No fan-out", "MMR", "R4T-FOLM", "R4T-Diffusion"]
        first = page.locator("article[data-method=r4t_folm] button.item").first
        expect(first).to_contain_text("“raw leek”")
        assert names(page, "r4t_folm")[0].startswith("raw leek")


def test_an_example_is_a_query_and_methods_can_be_left_out(browser: Browser, url: str) -> None:
    with opened_page(browser, url) as page:
        chip = page.locator("#examples button").first
        text = chip.inner_text()
        chip.click()
        settled(page)
        assert page.get_by_label("What are you looking for?").input_value() == text
        page.get_by_role("checkbox", name="MMR").uncheck()
        settled(page)
        assert page.locator("article h2").all_inner_texts() == ["No fan-out", "R4T-Diffusion"]
        assert page.locator("table.compare tbody th").all_inner_texts() == ["No fan-out", "R4T-Diffusion"]


def test_bars_compare_what_the_server_measured(browser: Browser, url: str) -> None:
    with opened_page(browser, url + ASKED) as page:
        settled(page)
        rows = page.locator("table.compare tbody tr")
        for row, method in zip(rows.all(), ("no_fanout", "mmr", "r4t_diffusion"), strict=True):
            answer = httpx.post(f"{url}v1/retrieve", json={"query": "grilled salmon", "k": 4, "method": method}).json()
            metrics = answer["sets"][0]["metrics"]
            shown = [float(cell) for cell in row.locator("td").all_inner_texts()]
            assert shown[:3] == [round(metrics[key], 2) for key in ("alignment", "diversity", "distinct")]
            bar = row.locator("td").nth(1).locator(".meter > span").evaluate("bar => parseFloat(bar.style.width)")
            assert bar == pytest.approx(100 * metrics["diversity"], abs=1)


def test_sliders_ask_again_and_only_what_has_the_control_moves(browser: Browser, url: str) -> None:
    with opened_page(browser, url + ASKED) as page:
        settled(page)
        before = {method: names(page, method) for method in ("mmr", "r4t_diffusion")}
        page.get_by_role("button", name="Another set").click()
        expect(page).to_have_url(f"{url}{ASKED}&seed=1")
        settled(page)
        assert names(page, "mmr") == before["mmr"]
        assert names(page, "r4t_diffusion") != before["r4t_diffusion"]
        page.get_by_label("Spread").focus()
        page.keyboard.press("Home")
        expect(page).to_have_url(f"{url}{ASKED}&spread=0&seed=1")
        settled(page)
        assert names(page, "r4t_diffusion") == names(page, "no_fanout")  # every row is the query


def test_a_link_brings_everything_back_and_so_does_the_history(browser: Browser, url: str) -> None:
    address = f"{url}?q=raw+leek&k=3&spread=0.5&seed=7&m=no_fanout,r4t_diffusion&f.how=raw&f.how=dried"
    with opened_page(browser, address) as page:
        settled(page)
        there = names(page, "r4t_diffusion")
        assert len(there) == 3
        assert [page.get_by_label(name, exact=True).input_value() for name in ("Items in a set", "Spread", "Seed")] == [
            "3",
            "0.5",
            "7",
        ]
        assert all(name.split()[0] in ("raw", "dried") for name in there)
        page.locator("#query").fill("mint")
        page.keyboard.press("Enter")
        settled(page)
        expect(page).to_have_url(address.replace("raw+leek", "mint"))
        assert names(page, "r4t_diffusion") != there
        page.go_back()
        expect(page.locator("#query")).to_have_value("raw leek")
        settled(page)
        expect(page.locator("article[data-method=r4t_diffusion] .name")).to_have_text(there)
        page.go_forward()
        expect(page.locator("#query")).to_have_value("mint")
    with opened_page(browser, address) as page:
        settled(page)
        assert names(page, "r4t_diffusion") == there


def test_filters_and_a_set_without_items(browser: Browser, url: str) -> None:
    with opened_page(browser, url + ASKED) as page:
        settled(page)
        page.locator("#filters summary", has_text="how").click()
        page.get_by_role("checkbox", name="dried").check()
        settled(page)
        assert all(name.startswith("dried") for method in ("mmr", "r4t_diffusion") for name in names(page, method))
        page.locator("#filters summary", has_text="minutes").click()
        page.locator("#filters").get_by_role("checkbox", name="14", exact=True).check()  # grilled salmon alone
        expect(page.locator("article .none")).to_have_text(["No item passes these filters."] * 3)


def test_the_copied_curl_command_gives_the_same_set(browser: Browser, url: str) -> None:
    with opened_page(
        browser, f"{url}?q=chef's+mint&k=3&seed=2&f.how=raw", permissions=["clipboard-read", "clipboard-write"]
    ) as page:
        settled(page)
        page.locator("article[data-method=r4t_diffusion]").get_by_role("button", name="Copy as curl").click()
        expect(page.locator("#status")).to_have_text("Copied")
        command = shlex.split(page.evaluate("navigator.clipboard.readText()"))
        shown = names(page, "r4t_diffusion")
    assert command[0] == "curl"
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [item["name"] for item in json.loads(done.stdout)["sets"][0]["items"]] == shown


def test_cards_and_map_point_at_each_other(browser: Browser, url: str) -> None:
    with opened_page(browser, url + ASKED) as page:
        settled(page)
        assert page.locator("#map .dot").count() == 12
        card = page.locator("article[data-method=r4t_diffusion] button.item").nth(2)
        card.hover()
        expect(page.locator("#map .dot.on")).not_to_have_count(0)
        expect(page.locator("#map text")).to_have_text(card.locator(".name").inner_text())
        expect(page.locator("#map .link.m-r4t_diffusion")).to_have_count(1)
        page.locator("#query").hover()
        expect(page.locator("#map .dot.on")).to_have_count(0)
        page.locator("#map .dot.m-mmr").first.dispatch_event("click")
        expect(page.locator("article[data-method=mmr] button.item").first).to_be_focused()


def test_everything_works_from_the_keyboard(browser: Browser, url: str) -> None:
    with opened_page(browser, url) as page:
        page.keyboard.press("Tab")
        expect(page.locator(".skip")).to_be_focused()
        for _ in range(3):
            page.keyboard.press("Tab")
        expect(page.locator("#query")).to_be_focused()
        page.keyboard.type("grilled salmon")
        page.keyboard.press("Enter")
        settled(page)
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.matches('button.item')"):
                break
        first = page.locator("article[data-method=no_fanout] button.item")
        expect(first.nth(0)).to_be_focused()
        page.keyboard.press("ArrowDown")
        expect(first.nth(1)).to_be_focused()
        expect(page.locator("#map text")).to_have_text(first.nth(1).locator(".name").inner_text())
        page.keyboard.press("ArrowRight")
        expect(page.locator("article[data-method=mmr] button.item").nth(1)).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("article[data-method=mmr] dl").nth(1)).to_be_visible()
        page.locator("#tab-explore").focus()
        page.keyboard.press("ArrowRight")
        expect(page.locator("#tab-run")).to_be_focused()
        expect(page.locator("#run h1")).to_have_text("Dishes: open-ended retrieval")


def test_names_that_are_markup_stay_text(browser: Browser, url: str) -> None:
    with opened_page(browser, f"{url}?q=beef&k=24") as page:
        settled(page)
        assert HOSTILE in names(page, "no_fanout")
        assert page.locator("main img, main script").count() == 0
        page.locator("#tab-run").click()
        expect(page.locator("#run-samples li").first).to_contain_text(HOSTILE)
        assert page.locator("main img, main script").count() == 0
        assert "owned" not in page.title()


def test_the_run_page_shows_curves_samples_front_and_lineage(browser: Browser, url: str) -> None:
    with opened_page(browser, f"{url}?tab=run") as page:
        for section in ("learning", "samples", "trade-off", "lineage"):
            expect(page.locator(f"#run-{section} h2")).to_be_visible()
        assert page.locator("#run-learning svg").count() == 2
        assert page.locator("#run-samples .set h3").all_inner_texts() == [
            f"Step {step}: reward 0.400" for step in (0, 15, 30)
        ]
        assert page.locator("#run-lineage svg .stage").all_text_contents() == ["prepare", "retriever"]
        page.locator("#tab-explore").click()
        page.go_back()
        expect(page.locator("#run")).to_be_visible()


def test_a_server_that_has_gone_is_named_and_its_return_too(browser: Browser, url: str) -> None:
    with opened_page(browser, url + ASKED) as page:
        settled(page)
        page.context.set_offline(True)
        page.locator("#query").fill("mint")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("The server does not answer")
        expect(page.locator("#results")).to_be_hidden()
        page.context.set_offline(False)
        page.get_by_role("button", name="Try again").click()
        settled(page)
        expect(page.get_by_role("alert")).to_have_count(0)
        assert len(names(page, "mmr")) == 4


def test_a_refused_query_is_explained_beside_it(browser: Browser, url: str) -> None:
    with opened_page(browser, f"{url}?q=bell%07") as page:
        expect(page.locator("#query-error")).to_contain_text("control characters")
        assert page.locator("#query").get_attribute("aria-invalid") == "true"
        page.locator("#query").fill("mint")
        page.keyboard.press("Enter")
        settled(page)
        expect(page.locator("#query-error")).to_be_hidden()


def test_a_full_server_is_named_and_answers_later(browser: Browser, folder: Path, version: Version) -> None:
    held = Held(version)
    with served(folder, held, settings=Serve(max_waiting=1, max_queries=1)) as url:
        occupying = threading.Thread(
            target=httpx.post, args=[f"{url}v1/retrieve"], kwargs={"json": {"query": "mint"}, "timeout": 60}
        )
        occupying.start()
        assert held.asked.wait(20)
        with opened_page(browser, f"{url}?q=mint&m=mmr") as page:
            expect(page.get_by_role("alert")).to_contain_text("Try again in 1 second.")
            held.let.set()
            occupying.join()
            page.get_by_role("button", name="Try again").click()
            settled(page)
            assert len(names(page, "mmr")) == 10


def test_a_server_with_a_key_asks_for_it(browser: Browser, folder: Path, version: Version) -> None:
    with (
        served(folder, version, digest=key_digest("sesame")) as url,
        opened_page(browser, f"{url}?q=mint&m=mmr") as page,
    ):
        expect(page.get_by_role("alert")).to_contain_text("asks for a key")
        page.get_by_label("Key").fill("sesame")
        page.keyboard.press("Enter")
        settled(page)
        assert len(names(page, "mmr")) == 10
        assert "sesame" not in page.url


def test_the_theme_follows_the_system_until_it_is_chosen(browser: Browser, url: str) -> None:
    def paper(page: Page) -> int:
        return int(page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]"))

    with opened_page(browser, url, color_scheme="dark") as page:
        assert paper(page) < 60
        page.get_by_role("button", name="Light theme").click()
        assert paper(page) > 200
        page.reload()
        assert paper(page) > 200
        expect(page.get_by_role("button", name="Dark theme")).to_be_visible()
