"""The page around a report: one HTML file that needs no network, draws its figures when they come into view."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

STYLE = """
:root { --ink: #22272e; --soft: #5c6570; --line: #e1e4e8; --paper: #fff; --ground: #f5f6f8; --accent: #0072b2; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
header, main, footer { max-width: 1180px; margin: 0 auto; padding: 0 20px; }
header { padding-top: 28px; }
h1 { font-size: 28px; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 19px; margin: 0 0 2px; }
p { margin: 4px 0 12px; max-width: 80ch; }
.soft { color: var(--soft); }
nav { position: sticky; top: 0; z-index: 5; background: var(--ground); border-bottom: 1px solid var(--line);
  margin: 16px 0 20px; }
nav div { max-width: 1180px; margin: 0 auto; padding: 8px 20px; display: flex; gap: 4px 18px; flex-wrap: wrap; }
nav a { color: var(--accent); text-decoration: none; font-size: 14px; }
nav a:hover { text-decoration: underline; }
section { background: var(--paper); border: 1px solid var(--line); border-radius: 8px; padding: 18px 20px;
  margin-bottom: 18px; scroll-margin-top: 56px; }
.state { display: inline-block; font-size: 13px; border-radius: 10px; padding: 1px 10px; vertical-align: middle;
  background: #dceaf4; color: #00507d; }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(46%, 210px), 1fr)); gap: 12px;
  margin-top: 18px; }
.fact { background: var(--paper); border: 1px solid var(--line); border-radius: 8px; padding: 10px 14px; }
.fact b { display: block; font-size: 18px; font-weight: 600; overflow-wrap: anywhere; }
.fact b.long { font-size: 14px; line-height: 27px; }
.fact span { color: var(--soft); font-size: 13px; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
.wide { min-width: 760px; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 320px), 1fr)); gap: 8px; }
.grid > div { min-width: 0; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr)); gap: 8px 16px; }
.pair > div { min-width: 0; }
.note { background: #fff6e5; border-left: 4px solid #e69f00; padding: 8px 14px; margin: 0 0 12px; }
h3 { font-size: 15px; margin: 22px 0 0; }
.scroll + .scroll, div + .scroll { margin-top: 10px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th { text-align: left; color: var(--soft); font-weight: 600; white-space: nowrap;
  border-bottom: 2px solid var(--line); }
th, td { padding: 6px 14px 6px 0; vertical-align: top; }
td { border-bottom: 1px solid var(--line); }
td.number, th.number { width: 1%; text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
tr.command td { padding-top: 0; }
tr.headed td { border-bottom: 0; }
code { font: 12.5px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
.command code { background: var(--ground); border-radius: 4px; padding: 3px 8px; }
button { font: inherit; font-size: 12px; color: var(--accent); background: none; border: 1px solid var(--line);
  border-radius: 4px; padding: 1px 8px; margin-left: 8px; cursor: pointer; }
footer { color: var(--soft); font-size: 13px; padding-bottom: 32px; }
@media (max-width: 640px) {
  header, main, footer, nav div { padding-left: 10px; padding-right: 10px; }
  section { padding: 12px; }
  nav div { flex-wrap: nowrap; overflow-x: auto; white-space: nowrap; }
}
@media print { nav, button { display: none; } section { break-inside: avoid; border: 0; } }
"""

SCRIPT = """
const draw = place => {
  if (place.dataset.drawn) return;
  place.dataset.drawn = "yes";
  const figure = JSON.parse(document.getElementById(place.dataset.figure).textContent);
  Plotly.newPlot(place, figure.data, figure.layout, {
    responsive: true, displaylogo: false, showSendToCloud: false,
    displayModeBar: place.clientHeight > 300 ? "hover" : false,
    modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d", "zoomIn2d", "zoomOut2d"],
    toImageButtonOptions: { format: "svg", filename: place.dataset.figure },
  });
};
const places = document.querySelectorAll("[data-figure]");
const drawVisible = entries => entries.filter(entry => entry.isIntersecting).forEach(entry => draw(entry.target));
const watcher = new IntersectionObserver(drawVisible, { rootMargin: "600px" });
places.forEach(place => watcher.observe(place));
addEventListener("beforeprint", () => places.forEach(draw));
addEventListener("click", event => {
  const text = event.target.dataset && event.target.dataset.copy;
  if (!text) return;
  navigator.clipboard.writeText(text).then(() => {
    event.target.textContent = "copied";
    setTimeout(() => { event.target.textContent = "copy"; }, 1500);
  });
});
"""

# Nothing may be loaded from anywhere; plotly.js compiles its shaders, which counts as eval.
POLICY = "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:"


@dataclass
class Page:
    """Collect the sections of a page, then write it as one text."""

    title: str
    header: str
    footer: str
    _sections: list[tuple[str, str, str]] = field(default_factory=list)
    _figures: list[go.Figure] = field(default_factory=list)

    def section(self, key: str, title: str, *parts: str) -> None:
        """Add a section; `parts` are HTML."""
        self._sections.append((key, title, "\n".join(parts)))

    def figure(self, figure: go.Figure, *, wide: bool = False) -> str:
        """Take in a figure and return the HTML of its place.

        Args:
            figure: the figure, with a height.
            wide: keep it readable by scrolling sideways where the screen is narrow.
        """
        self._figures.append(figure)
        height = int(figure.layout.height or figure.layout.template.layout.height)
        place = f'<div data-figure="figure-{len(self._figures)}" style="height: {height}px"></div>'
        return f'<div class="scroll"><div class="wide">{place}</div></div>' if wide else f"<div>{place}</div>"

    def render(self) -> str:
        """Return the whole file."""
        links = "".join(f'<a href="#{key}">{text(title)}</a>' for key, title, _ in self._sections)
        sections = "\n".join(
            f'<section id="{key}"><h2>{text(title)}</h2>\n{body}\n</section>' for key, title, body in self._sections
        )
        data = "\n".join(
            f'<script type="application/json" id="figure-{number}">{json_text(figure)}</script>'
            for number, figure in enumerate(self._figures, 1)
        )
        return (
            f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{text(self.title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
            f"<header>{self.header}</header>\n<nav><div>{links}</div></nav>\n<main>\n{sections}\n</main>\n"
            f"<footer>{self.footer}</footer>\n{data}\n"
            f"<script>{get_plotlyjs()}</script>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
        )


def text(value: object) -> str:
    """Return a value as text that is safe inside HTML and its attributes."""
    return html.escape(str(value), quote=True)


def json_text(figure: go.Figure) -> str:
    """Return a figure as JSON that cannot end the script element it stands in."""
    return str(figure.to_json(validate=False))  # plotly writes < and > as escapes


def paragraph(sentence: str, *, kind: str = "soft") -> str:
    """Return a paragraph of plain text."""
    return f'<p class="{kind}">{text(sentence)}</p>'


def copyable(command: str) -> str:
    """Return a command with a button that copies it."""
    return f'<code>{text(command)}</code><button data-copy="{text(command)}">copy</button>'


def table(headings: Sequence[tuple[str, bool]], rows: Iterable[str]) -> str:
    """Return a table.

    Args:
        headings: text of each column, and whether it holds numbers.
        rows: HTML of the rows.
    """
    head = "".join(f"<th{NUMBER if number else ''}>{text(heading)}</th>" for heading, number in headings)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


NUMBER = ' class="number"'


def cell(value: object, *, number: bool = False) -> str:
    """Return a cell of plain text."""
    return f"<td{NUMBER if number else ''}>{text(value)}</td>"
