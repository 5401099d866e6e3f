"""What all pages that people mail share: one file, no network, plotly in it once, one style."""

import html
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

_CONFIG = {"displayModeBar": False, "responsive": True, "scrollZoom": False}
STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1080px; padding: 24px 20px 64px; background: #fff; color: #222;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .2em; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.4em 0 .3em; padding-top: .9em; border-top: 1px solid #ddd; }
h3 { font-size: 1rem; margin: 1.2em 0 .2em; }
p { margin: .4em 0; max-width: 46em; }
.quiet { color: #595959; font-size: .9rem; overflow-wrap: anywhere; }
.verdict { border-left: 6px solid; padding: .7em 1em; margin: 1.2em 0; font-size: 1.1rem;
  font-weight: 600; border-radius: 4px; max-width: none; }
.good { border-color: #009E73; background: #e9f7f2; }
.fair { border-color: #E69F00; background: #fff6e0; }
.bad { border-color: #D55E00; background: #fdeee5; }
ul.findings { list-style: none; padding: 0; margin: 1em 0; }
ul.findings li { border: 1px solid #ddd; border-radius: 6px; padding: .7em 1em; margin: .6em 0; }
.tag { display: inline-block; font-size: .78rem; font-weight: 700; padding: .05em .6em;
  border-radius: 1em; margin-right: .5em; color: #fff; }
.problem { background: #b84400; } .warning { background: #8a6100; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: .6em;
  margin: 1.2em 0; padding: 0; }
.facts div { background: #f5f6f7; border-radius: 6px; padding: .6em .9em; }
.facts dt { color: #595959; font-size: .85rem; } .facts dd { margin: 0; font-size: 1.3rem; }
.facts small { font-size: .8rem; color: #595959; display: block; }
.two { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 420px), 1fr));
  gap: 0 24px; }
.two > * { min-width: 0; }
.figure { width: 100%; min-width: 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; margin: .5em 0; }
th, td { text-align: right; padding: .25em .8em .25em 0; border-bottom: 1px solid #eee;
  font-variant-numeric: tabular-nums; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
summary { cursor: pointer; color: #005a8f; padding: .3em 0; }
summary:focus-visible, .wide:focus-visible { outline: 3px solid #0072B2; outline-offset: 2px; }
@media (max-width: 480px) { body { padding: 16px 12px 48px; } }
"""


def document(title: str, body: str, plotly: bool, style: str = "") -> str:
    """A whole page around *body*, which is HTML; *title* is text."""
    script = f"<script>{get_plotlyjs()}</script>" if plotly else ""
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title>"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><style>{STYLE}{style}</style>{script}</head>\n'
        f"<body><main>\n{body}</main></body>\n</html>\n"
    )


def figure(drawn: go.Figure, label: str) -> str:
    """A figure of plotly; *label* says what it is to those who cannot see it."""
    inside = drawn.to_html(
        full_html=False, include_plotlyjs=False, default_width="100%", config=_CONFIG
    )
    return f'<div class="figure" role="img" aria-label="{html.escape(label)}">{inside}</div>'


def details(summary: str, body: str) -> str:
    """What is read on demand; *body* is HTML."""
    return f"<details><summary>{html.escape(summary)}</summary>{body}</details>"


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Values as text, the first column to the left."""
    head = "".join(f'<th scope="col">{html.escape(column)}</th>' for column in columns)
    body = "".join(
        f"<tr>{''.join(f'<td>{html.escape(cell(value))}</td>' for value in row)}</tr>"
        for row in rows
    )
    return (
        f'<div class="wide" tabindex="0"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def cell(value: Any) -> str:
    """A value as a person reads it."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6f}" if abs(value) < 0.01 else f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
