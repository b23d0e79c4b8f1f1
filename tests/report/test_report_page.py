"""The page, driven in a real browser, from a file, without a network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from rfbench.report import analyse, write
from rfbench.report.render.page import write_page
from tests.report.run_writer import write_run, write_samples

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HOSTILE = "<script>document.title = 'owned'</script> </script><img src=x onerror=\"document.title='owned'\"> {{ 7*7 }}"
REFERENCE = Path(__file__).parents[2] / "results" / "reference"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
FLAGS += ["--disable-background-networking", "--disable-component-update"]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of three algorithms, one of them far below the rest, samples, and text that tries to be code."""
    root = tmp_path_factory.mktemp("runs")
    gold = {"prdp": [0.5, 0.6, 0.7, 0.8, 0.9], "ddpo": [0.5, 0.6, 0.5, 0.4, 0.3], "dpok": [0.5, 0.4, 0.3, 0.2, 0.1]}
    curves = {
        "prdp": [1.0, 2.0, 3.0, 4.0, 5.0],
        "ddpo": [1.0, 3.0, 4.0, 2.0, 0.5],
        "dpok": [1.0, 0.5, -30.0, -50.0, -60.0],
    }
    for seed in range(3):
        for name, curve in curves.items():
            values = [curve[0], *(value + 0.1 * (seed - 1) for value in curve[1:])]
            folder = write_run(root, name, seed, values, held_out=gold[name], kl=[0.0, 1.0, 2.0, 3.0, 4.0])
            if seed == 0:
                write_samples(folder, [HOSTILE, "a dog"])
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


def column(page: Page, index: int) -> list[str]:
    """The shown cells of one column of the table of rewards."""
    rows = page.locator("table.sortable").first.locator("tbody tr:visible")
    return [row.locator("td").nth(index).inner_text() for row in rows.all()]


def unfold(page: Page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")


def drawn(page: Page, chart: int = 0) -> set[str]:
    """The algorithms that a chart draws."""
    curves = page.locator(".chart").nth(chart).locator("[data-curve]")
    return {curve.get_attribute("data-curve") or "" for curve in curves.all()}


def path(page: Page, name: str, chart: int = 0) -> list[tuple[float, float]]:
    """Where the first panel of a chart draws an algorithm's points, in pixels."""
    line = page.locator(".chart").nth(chart).locator(f"[data-curve={name}] polyline").first
    return [
        (float(x), float(y)) for x, _, y in (p.partition(",") for p in (line.get_attribute("points") or "").split())
    ]


def test_a_line_per_suite_stands_on_top_with_winner_lead_cost_and_who_collapsed(page: Page) -> None:
    text = page.locator(".overview tbody tr").inner_text()
    for part in ("toy", "prdp wins", "+4.50", "prdp over ddpo", "prdp: 400 calls, 100 s", "ddpo 3 of 3, dpok 3 of 3"):
        assert part in text
    assert page.locator(".overview tbody tr").bounding_box()["y"] < 200  # type: ignore[index]
    facts = page.locator(".facts").inner_text()
    for part in ("2,560 reward queries: 128 in each of 20 epochs", "3 (0, 1, 2)", "commit fffffff", "2026-01-01"):
        assert part in facts


def test_the_verdict_comes_next(page: Page) -> None:
    assert page.locator(".headline").first.inner_text().startswith("prdp wins: it ends at 5.00")
    assert page.locator(".headline").first.bounding_box()["y"] < 450  # type: ignore[index]
    assert "ddpo collapsed in 3 of 3 seeds" in page.locator(".verdict").inner_text()


def test_the_standings_say_in_words_what_their_bars_show(page: Page) -> None:
    rows = page.locator(".standings tbody tr")
    assert [row.locator("th").inner_text() for row in rows.all()] == ["prdp", "ddpo", "dpok"]
    assert "+4.00\n[3.75, 4.25]" in rows.nth(0).inner_text()
    assert "below the axis" in rows.nth(2).inner_text()  # one far below leaves the others their room
    assert "below the axis" not in rows.nth(1).inner_text()


def test_everything_else_is_folded_and_the_filters_choose_its_rows(page: Page) -> None:
    assert page.locator(".everything details[open]").count() == 0
    unfold(page)
    assert set(column(page, 1)) == {"preference (training)"}
    page.locator("select.measure").select_option("gold")
    page.locator("select.set").select_option("unseen")
    assert set(column(page, 1)) == {"gold (held-out)"}
    assert set(column(page, 2)) == {"unseen"}
    assert page.locator(".matrix:visible caption").all_inner_texts() == ["gold (held-out), unseen prompts"]
    page.locator("select.measure").select_option("")
    page.locator("select.set").select_option("")
    assert page.locator(".matrix:visible").count() == 4


def test_pairs_are_a_matrix_that_reads_the_same_from_either_side(page: Page) -> None:
    unfold(page)
    matrix = page.locator(".matrix").first
    rows = [row.locator("th, td").all_inner_texts() for row in matrix.locator("tbody tr").all()]
    assert [row[0] for row in rows] == ["prdp", "ddpo", "dpok"]
    assert rows[0][1] == "·"
    assert rows[0][2].split("\n")[0] == "+4.50"
    assert rows[1][1].split("\n")[0] == "-4.50"
    assert matrix.locator("td.better").count() == 3
    assert matrix.locator("td.worse").count() == 3
    assert "not corrected" in page.locator("details", has=matrix).locator(".note").inner_text()


def test_a_click_sorts_and_a_second_turns_the_order(page: Page) -> None:
    unfold(page)
    heading = page.locator("table.sortable").first.locator("th", has_text="final").first
    before = column(page, 5)
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    values = [float(text.split()[0]) for text in column(page, 5)]
    assert values == sorted(values, reverse=True)
    heading.locator("button").click()
    assert [float(text.split()[0]) for text in column(page, 5)] == sorted(values)
    assert sorted(before) == sorted(column(page, 5))


def test_a_pointer_reads_off_every_algorithm(page: Page) -> None:
    plot = page.locator(".plot").first
    assert not plot.locator(".tip").is_visible()
    x, y = path(page, "prdp")[3]
    plot.hover(position={"x": x, "y": y})
    tip = plot.locator(".tip").inner_text()
    assert "epoch 15, 1,920 reward queries" in tip
    assert "prdp\t+3.00\t[2.75, 3.25]\t4.00" in tip
    assert "dpok" in tip
    page.mouse.move(2, 2)
    assert not plot.locator(".tip").is_visible()


def test_the_keyboard_reads_off_the_same(page: Page) -> None:
    plot = page.locator(".plot").first
    plot.focus()
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    assert plot.get_attribute("aria-valuetext") == "epoch 15: prdp +3.00, ddpo +1.00, dpok -51.00"
    assert plot.locator(".tip").is_visible()
    page.keyboard.press("Home")
    assert (plot.get_attribute("aria-valuetext") or "").startswith("epoch 0: ")


def test_a_chip_hides_an_algorithm_everywhere_and_leaves_the_axes(page: Page) -> None:
    before = path(page, "prdp")
    chip = page.locator(".curves .chip", has_text="ddpo")
    chip.focus()
    page.keyboard.press("Enter")
    assert drawn(page) == drawn(page, 1) == {"prdp", "dpok"}
    assert path(page, "prdp") == before
    assert not page.locator("table.samples th", has_text="ddpo").first.is_visible()
    assert [c.get_attribute("aria-pressed") for c in page.locator(".chip", has_text="ddpo").all()] == ["false", "false"]
    chip.click()
    assert drawn(page) == {"prdp", "ddpo", "dpok"}


def test_a_collapsed_run_cannot_squash_the_axes(page: Page) -> None:
    heights = [y for _, y in path(page, "ddpo")]
    assert max(heights) - min(heights) > 100  # of some 190 pixels
    assert "Beyond the axes: dpok, which ends at -61.00." in page.locator(".panel").first.inner_text()
    page.locator(".chart").first.locator(".whole").click()
    heights = [y for _, y in path(page, "ddpo")]
    assert max(heights) - min(heights) < 20
    assert not page.locator(".outside").first.is_visible() or "Beyond" not in page.locator(".chart").first.inner_text()


@pytest.mark.parametrize(("x", "last"), [("queries", "2,560"), ("steps", "40"), ("calls", "400"), ("seconds", "100")])
def test_curves_by_every_cost(page: Page, x: str, last: str) -> None:
    chart = page.locator(".chart").first
    chart.locator("select.x").select_option(x)
    plot = chart.locator(".plot").first
    plot.focus()
    page.keyboard.press("End")
    assert last in plot.locator(".tip").inner_text()


def test_gains_against_the_divergence_and_against_another_reward(page: Page) -> None:
    chart = page.locator(".chart").nth(1)
    assert chart.locator("select.x").input_value() == "kl"
    chart.locator("select.y").select_option("gold")
    chart.locator("select.x").select_option("preference")
    xs, ys = zip(*path(page, "ddpo", 1), strict=True)
    assert xs[1] > xs[0]  # it gains in both at first,
    assert ys[1] < ys[0]
    assert xs[4] < xs[0]  # and ends below the base model in both
    assert ys[4] > ys[0]


def test_the_slider_moves_pictures_and_scores_by_keyboard(page: Page) -> None:
    slider = page.locator("input[type=range]")
    slider.focus()
    page.keyboard.press("Home")
    assert page.locator(".slider output").inner_text() == "0"
    page.keyboard.press("ArrowRight")
    assert page.locator(".slider output").inner_text() == "5"
    assert slider.get_attribute("aria-valuetext") == "epoch 5"
    assert page.locator("table.samples .score:first-child").nth(1).inner_text() == "1.80"


def test_the_winner_stands_beside_the_base_model(page: Page) -> None:
    heads = page.locator("table.samples").first.locator("thead th").all_inner_texts()
    assert heads == ["prompt", "base model", "prdp", "ddpo", "dpok"]
    scores = (
        page.locator("table.samples").first.locator("tbody tr").nth(1).locator(".score:first-child").all_inner_texts()
    )
    assert scores == ["1.00", "4.90", "0.40", "-60.10"]


def test_base_model_and_prompt_stay_in_view(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    table = page.locator("table.samples").first
    before = [table.locator("tbody tr").first.locator("th, td").nth(i).bounding_box() for i in range(3)]
    page.locator(".samples-scroll").first.evaluate("(element) => { element.scrollLeft = 60; }")
    after = [table.locator("tbody tr").first.locator("th, td").nth(i).bounding_box() for i in range(3)]
    assert [box["x"] for box in after[:2]] == pytest.approx([box["x"] for box in before[:2]], abs=1)  # type: ignore[index]
    assert after[2]["x"] < before[2]["x"] - 20  # type: ignore[index]


def test_the_slider_changes_the_pictures(page: Page) -> None:
    row = page.locator("table.samples").first.locator("tbody tr").first
    base_tile, tile = (row.locator("td").nth(i).locator(".tile").first for i in range(2))
    background = "e => getComputedStyle(e).backgroundImage"
    base, last = base_tile.evaluate(background), tile.evaluate(background)
    assert base.startswith('url("data:image/webp')
    assert base != last
    page.locator("input[type=range]").fill("0")
    assert base_tile.evaluate(background) == base
    assert tile.evaluate(background) == base  # before training every column is the base model
    page.locator("input[type=range]").fill("2")
    assert tile.evaluate(background) not in (base, last)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_no_rule_of_axe_is_broken(page: Page, scheme: Literal["light", "dark"], width: int) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python")
    page.set_viewport_size({"width": width, "height": 844})
    page.emulate_media(color_scheme=scheme)
    for _ in range(2):
        found = axe.Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        unfold(page)
        page.locator(".plot").first.focus()
        page.keyboard.press("ArrowLeft")


def test_text_from_runs_is_never_code(page: Page, report: Path) -> None:
    assert page.title() == "rfbench: toy"
    assert page.locator("img, iframe, object").count() == 0
    assert page.locator("th", has_text="<script>document.title").first.is_visible()
    unfold(page)
    assert "{{ 7*7 }}" in page.locator("#runs").inner_text()
    assert "<script>document" not in report.read_text()


def test_dark_and_light(page: Page) -> None:
    shade = "getComputedStyle(document.body).backgroundColor"
    ink = "getComputedStyle(document.querySelector('.curve')).color"
    light = page.evaluate(shade), page.evaluate(ink)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(shade), page.evaluate(ink)
    assert light[0] != dark[0]
    assert light[1] != dark[1]
    page.locator("#theme").click()
    assert (page.evaluate(shade), page.evaluate(ink)) == light


def test_a_phone_scrolls_down_only(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    unfold(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.locator(".tile").nth(2).bounding_box()["x"] < 360  # type: ignore[index]


def test_without_scripts_the_drawn_plots_stand_in(browser: Browser, report: Path) -> None:
    page = browser.new_page(java_script_enabled=False)
    page.goto(report.as_uri())
    plots = page.locator("figure svg[role=img]")
    assert plots.count() == 4
    assert plots.first.is_visible()
    assert (plots.first.get_attribute("aria-label") or "").startswith("Each reward against reward queries")
    assert page.locator(".chip, .slider, select").filter(visible=True).count() == 0
    page.close()


def test_the_shipped_results_open_within_6000_pixels(browser: Browser, tmp_path: Path) -> None:
    report = tmp_path / "page.html"
    write_page(analyse([REFERENCE]), [], report, "queries")
    assert report.stat().st_size < 9_000_000
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(report.as_uri())
    assert page.evaluate("document.documentElement.scrollHeight") <= 6000
    assert page.locator(".overview tbody tr").count() == page.locator(".suite").count() > 1
    page.close()


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
