"""Pictures of which visual tokens were merged, ranked and kept: contact sheets, heat maps and an HTML page.

Draws traces (results.Trace). What is kept, and why, is decided elsewhere; `explain` asks a model and keeps what is
needed to draw.
"""

from .asking import Explanation, explain
from .report import heading, page_html, report, sheet_image
from .writing import write_files

__all__ = ["Explanation", "explain", "heading", "page_html", "report", "sheet_image", "write_files"]
