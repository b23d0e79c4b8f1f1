"""The page, driven in a real browser, from a file, without a network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rfbench.report import analyse, write
from tests.report.run_writer import write_run, write_samples

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HOSTILE = "<script>document.title = 'owned'</script> </script><img src=x onerror=\"document.title='owned'\"> {{ 7*7 }}"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
FLAGS += ["--disable-background-networking", "--disable-component-update"]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of two algorithms, three seeds, samples, and text that tries to be code."""
    root = tmp_path_factory.mktemp("runs")
    for seed in range(3):
        prdp = write_run(
            root, "prdp", seed, [1.0, 2.0, 3.0, 4.0, 5.0 + 0.01 * seed], held_out=[0.5, 0.6, 0.7, 0.8, 0.9]
        )
        ddpo = write_run(root, "ddpo", seed, [1.0, 3.0, 4.0, 2.0, 0.5], held_out=[0.5, 0.6, 0.5, 0.4, 0.3])
        if seed == 0:
            write_samples(prdp, [HOSTILE, "a dog"])
            write_samples(ddpo, [HOSTILE, "a dog"])
    write_run(root, "rwr", 0, status="failed", error=HOSTILE)
    page = root / "report.html"
    write(analyse([root]), root / "out", html=page)
    return page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        pytest.skip("no browser driver: pip install playwright")
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("no browser: apt-get install -y --no-install-recommends chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def opened(browser: Browser, report: Path) -> tuple[Page, list[str]]:
    """A window of the browser, and what the page in it said or fetched that it should not have."""
    page = browser.new_page()
    trouble: list[str] = []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("request", lambda r: None if r.url.startswith(("data:", report.as_uri())) else trouble.append(r.url))
    return page, trouble


@pytest.fixture
def page(opened: tuple[Page, list[str]], report: Path) -> Iterator[Page]:
    """The page as it opens from file://; leaving the test checks that nothing failed and nothing was fetched."""
    page, trouble = opened
    page.set_viewport_size({"width": 1280, "height": 900})
    page.emulate_media(color_scheme="light")
    page.goto(report.as_uri())
    yield page
    assert trouble == []


def column(page: Page, table: int, index: int) -> list[str]:
    rows = page.locator("table.sortable").nth(table).locator("tbody tr")
    return [row.locator("td").nth(index).inner_text() for row in rows.all()]


def test_the_verdict_stands_on_top(page: Page) -> None:
    assert page.locator(".headline").first.inner_text().startswith("prdp wins: it ends at 5.010")
    assert page.locator(".headline").first.bounding_box()["y"] < 300  # type: ignore[index]
    assert "ddpo hacks" not in page.locator(".verdict").inner_text()
    assert "ddpo collapsed in 3 of 3 seeds" in page.locator(".verdict").inner_text()


def test_a_click_sorts_and_a_second_turns_the_order(page: Page) -> None:
    heading = page.locator("table.sortable").first.locator("th", has_text="final").first
    before = column(page, 0, 5)
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    values = [float(text.split()[0]) for text in column(page, 0, 5)]
    assert values == sorted(values, reverse=True)
    heading.locator("button").click()
    assert [float(text.split()[0]) for text in column(page, 0, 5)] == sorted(values)
    assert sorted(before) == sorted(column(page, 0, 5))


def test_the_keyboard_sorts_and_moves_the_slider(page: Page) -> None:
    page.locator("table.sortable").first.locator("th button").first.focus()
    page.keyboard.press("Enter")
    assert column(page, 0, 0) == sorted(column(page, 0, 0))
    slider = page.locator("input[type=range]")
    slider.focus()
    page.keyboard.press("Home")
    assert page.locator(".slider output").inner_text() == "0"
    page.keyboard.press("ArrowRight")
    assert page.locator(".slider output").inner_text() == "5"
    assert slider.get_attribute("aria-valuetext") == "epoch 5"


def test_the_slider_changes_the_pictures(page: Page) -> None:
    tiles = page.locator("table.samples").first.locator(".tile")
    background = "e => getComputedStyle(e).backgroundImage"
    base, last = tiles.nth(0).evaluate(background), tiles.nth(2).evaluate(background)
    assert base.startswith('url("data:image/webp')
    assert base != last
    page.locator("input[type=range]").fill("0")
    assert tiles.nth(0).evaluate(background) == base
    assert tiles.nth(2).evaluate(background) == base  # before training every column is the base model
    page.locator("input[type=range]").fill("2")
    assert tiles.nth(2).evaluate(background) not in (base, last)


def test_text_from_runs_is_never_code(page: Page, report: Path) -> None:
    assert page.title() == "rfbench: toy"
    assert page.locator("img, iframe, object").count() == 0
    assert page.locator("th", has_text="<script>document.title").first.is_visible()
    assert "{{ 7*7 }}" in page.locator("#runs").inner_text()
    assert "<script>document" not in report.read_text()


def test_dark_and_light(page: Page) -> None:
    shade = "getComputedStyle(document.body).backgroundColor"
    ink = "getComputedStyle(document.querySelector('figure svg')).color"
    light = page.evaluate(shade), page.evaluate(ink)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(shade), page.evaluate(ink)
    assert light[0] != dark[0]
    assert light[1] != dark[1]
    page.locator("#theme").click()
    assert (page.evaluate(shade), page.evaluate(ink)) == light


def test_a_phone_scrolls_down_only(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.locator(".tile").nth(2).bounding_box()["x"] < 360  # type: ignore[index]


def test_the_page_needs_nothing_else(report: Path) -> None:
    text = report.read_text()
    for needle in ("src=", "@import", "<link rel=stylesheet", "//cdn", "fetch("):
        assert needle not in text.replace("src=x", "")


@pytest.mark.slow
def test_hundreds_of_runs_stay_under_the_limit(tmp_path: Path) -> None:
    for seed in range(100):
        for algorithm in ("prdp", "ddpo", "dpok", "rwr"):
            folder = write_run(tmp_path, algorithm, seed, [1.0, 2.0])
            if seed == 0:
                write_samples(folder, [f"prompt {i}" for i in range(8)], epochs=range(0, 500, 5), tile=64)
    page = tmp_path / "report.html"
    write(analyse([tmp_path]), tmp_path / "out", html=page)
    assert page.stat().st_size < 20_000_000
    assert page.read_text().count("seed-") >= 400
