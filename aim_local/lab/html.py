"""A self-contained HTML page: skeleton, base style, safe text and data. Knows nothing of what a page shows.

A page opens offline and asks nobody for anything: the Content-Security-Policy lets inline styles, inline scripts and
data: pictures through and nothing else.
"""

from __future__ import annotations

import json
import re
from html import escape as escape_markup
from typing import Any

from ..visible import visible

__all__ = ["embed_json", "escape", "page"]

_CSP = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'"
)

# Colours are variables, so that a page's own css needs no second dark-mode block. Text on --bg and --panel has a
# contrast of at least 4.5 (WCAG AA) in both schemes.
_CSS = """
:root { color-scheme: light dark; --bg: #ffffff; --panel: #f5f6f8; --text: #1b1f24; --muted: #57606a;
  --line: #d4d9df; --grid: #e6e9ed; --accent: #0b5cad; --bad: #b3261e; --warn: #8a5300; --good: #1a6b36; }
@media (prefers-color-scheme: dark) {
  :root { --bg: #14171b; --panel: #1d2126; --text: #e6e8eb; --muted: #a3abb5;
    --line: #3b424b; --grid: #2a3038; --accent: #7db8f5; --bad: #ff8f85; --warn: #f0b95b; --good: #7bd494; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body { margin: 0; background: var(--bg); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main { max-width: 1280px; margin: 0 auto; padding: 20px 24px 48px; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.2rem; line-height: 1.3; margin: 2rem 0 .5rem; }
h1, h2, h3, p, li, dd, code { overflow-wrap: anywhere; }
p, ul { max-width: 46rem; }
a { color: var(--accent); }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: .875em; }
pre { background: var(--panel); padding: .6rem .8rem; border-radius: 6px; margin: .5rem 0; white-space: pre-wrap;
  overflow-wrap: anywhere; }
.muted { color: var(--muted); }
.bad { color: var(--bad); }
.scroll { overflow-x: auto; max-width: 100%; border: 1px solid var(--line); border-radius: 6px; }
.scroll:focus-visible, button:focus-visible, summary:focus-visible { outline: 2px solid var(--accent); }
table { border-collapse: separate; border-spacing: 0; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .65rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
tbody tr:last-child > * { border-bottom: 0; }
thead th { background: var(--panel); vertical-align: bottom; }
th[scope=row], th.text, td.text { text-align: left; }
summary { cursor: pointer; padding: .35rem 0; }
svg { max-width: 100%; }
@media (max-width: 600px) { main { padding: 14px 14px 40px; } h1 { font-size: 1.35rem; } }
"""


def escape(text: str) -> str:
    """Plain text as HTML; what cannot be seen, or turns the text behind it, as an escape (aim_local/visible.py)."""
    return escape_markup(visible(text, keep="\n\t\u200c\u200d"))


def page(title: str, body: str, css: str = "", script: str = "") -> str:
    """A whole document. title: plain text; body: HTML; css: after the base style; script: run after the body.

    Raises ValueError for css or script that would end its own element.
    """
    _inline("style", css)
    _inline("script", script)
    tail = f"<script>\n{script.strip()}\n</script>\n" if script.strip() else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_CSP}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>{_CSS}{css}</style>
</head>
<body>
<main>
{body}
</main>
{tail}</body>
</html>
"""


def embed_json(id: str, value: Any) -> str:
    """A data block that a script reads with JSON.parse(document.getElementById(id).textContent).

    No text in value can end the block or start markup. Raises ValueError for NaN and infinity, which JSON has not.
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return f'<script type="application/json" id="{escape(id)}">{text}</script>'


def _inline(element: str, text: str) -> None:
    if re.search(rf"</{element}|<!--", text, re.IGNORECASE):
        raise ValueError(f"inline {element}: '</{element}' and '<!--' cannot stand in it")
