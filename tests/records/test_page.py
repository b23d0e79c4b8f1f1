"""docs/records.md says what the models say."""

from rfbench_benchmarks.pages import records as records_page


def test_the_page_is_written_from_the_models() -> None:
    assert records_page.PAGE.read_text(encoding="utf-8") == records_page.page(), (
        "run `python -m rfbench_benchmarks.pages.records`"
    )
