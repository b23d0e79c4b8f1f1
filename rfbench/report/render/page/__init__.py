"""The report as one HTML file that needs nothing else: no network, no other file."""

from rfbench.report.render.page.writing import Plot, write_page

__all__ = ["Plot", "write_page"]
