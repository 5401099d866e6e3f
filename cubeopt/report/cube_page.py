"""One page that shows what a cube does, in 3D and in words; it needs no network."""

import html
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from cubeopt import atomic
from cubeopt.emergence.record import Emergence
from cubeopt.report import cube, cube_figures

_SCRIPTS = Path(__file__).parent / "scripts"
PLAYER_STYLE = """
.controls { display: flex; flex-wrap: wrap; gap: .8em 1.6em; margin: 1em 0 .4em; }
.controls label { display: flex; flex-direction: column; font-size: .9rem; font-weight: 600; }
.controls select, .controls input { font: inherit; min-width: 13em; max-width: 90vw; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr)); }
.figures > div { min-width: 0; }
"""
_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 24px 20px 64px; background: #fff; color: #222;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .2em; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2em 0 .3em; }
p { margin: .4em 0; max-width: 60em; }
.quiet { color: #595959; font-size: .9rem; overflow-wrap: anywhere; }
ul.findings { list-style: none; padding: 0; margin: 1em 0; }
ul.findings li { border-left: 5px solid #0072B2; padding: .35em .9em; margin: .5em 0;
  background: #f3f7fa; border-radius: 3px; }
ul.findings li.trouble { border-color: #D55E00; background: #fdeee5; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; margin: .5em 0; }
th, td { text-align: right; padding: .25em .9em .25em 0; border-bottom: 1px solid #eee;
  font-variant-numeric: tabular-nums; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
summary { cursor: pointer; color: #005a8f; padding: .3em 0; }
:focus-visible { outline: 3px solid #0072B2; outline-offset: 2px; }
@media (max-width: 480px) { body { padding: 16px 12px 48px; } }
"""


def write(found: Emergence, path: Path) -> None:
    """Write the page of *found*, whole or not at all."""
    atomic.write(page(found).encode(), path)


def page(found: Emergence) -> str:
    """The page of *found*."""
    title = html.escape(f"Cube {'x'.join(map(str, found.size))}, epoch {found.epoch}")
    facts = cube.facts(found)
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><style>{_STYLE}{PLAYER_STYLE}</style>'
        f"<script>{get_plotlyjs()}</script></head>\n<body><main>\n<h1>{title}</h1>"
        f'<p class="quiet">{html.escape(facts["checkpoint"])} · {html.escape(facts["cube"])} · '
        f"{html.escape(facts['dataset'])} · {html.escape(facts['rows'])}</p>"
        f"{fragment(found)}{_tables(found)}</main></body>\n</html>\n"
    )


def fragment(found: Emergence) -> str:
    """The cells and what they show, within any page that has plotly and `PLAYER_STYLE`."""
    played = json.dumps(cube_figures.player(found)).replace("<", "\\u003c")
    view, controls = (
        (_SCRIPTS / f"{name}.js").read_text(encoding="utf-8") for name in ("cube_view", "cube_page")
    )
    script = view.replace("export function", "function") + controls
    return (
        f"{_findings(found)}{_PLAYER}"
        f'<script type="application/json" id="player">{played}</script>\n'
        f'<script type="module">{script}</script>\n'
    )


_PLAYER = """
<h2 id="cells">The cells</h2>
<div class="controls" role="group" aria-labelledby="cells">
<label>Colour the cells by <select id="colouring"></select></label>
<label>Step <span><input id="step" type="range" min="0" step="1"> <output id="at"></output></span>
</label></div>
<p id="explained"></p><p id="caption" aria-live="polite"></p>
<div class="figures"><div id="cube"></div><div id="layers"></div></div>
<details><summary>The layers as a table</summary><div class="wide" tabindex="0" role="region"
aria-label="Layers"><table id="by-layer"><thead><tr><th scope="col">layer z</th>
<th scope="col">mean, or the commonest</th></tr></thead><tbody></tbody></table></div></details>
"""


def _findings(found: Emergence) -> str:
    items = [
        f"<li{' class=trouble' if each.trouble else ''}><strong>"
        f"{html.escape(f'{each.kind} {each.subject}'.strip())}</strong>: "
        f"{html.escape(each.sentence)}.</li>"
        for each in found.findings
    ]
    return f'<ul class="findings">{"".join(items)}</ul>'


def _tables(found: Emergence) -> str:
    return (
        "<h2>Step by step</h2><p>Means over the cells; of activity, change and response root mean "
        "squares.</p>"
        + _table("Steps", cube.step_rows(found))
        + "<h2>How far a change of the input reaches</h2><p>By distance from the nearest cell that "
        "is written; 1 is as far as those moved.</p>"
        + _table("Distances", cube.ring_rows(found))
        + "<h2>What the gate chose</h2>"
        + _table(
            "Metrics", [{"metric": name, "value": each} for name, each in found.metrics.items()]
        )
    )


def _table(name: str, rows: Sequence[dict[str, Any]]) -> str:
    head = "".join(f'<th scope="col">{html.escape(key)}</th>' for key in rows[0])
    body = "".join(f"<tr>{_cells(row.values())}</tr>" for row in rows)
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{name}"><table><thead><tr>{head}'
        f"</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cells(values: Iterable[Any]) -> str:
    return "".join(
        f"<td>{'-' if each is None else html.escape(_shown(each))}</td>" for each in values
    )


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
