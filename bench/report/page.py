"""A report as one page of HTML that needs nothing else."""

import base64
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment

from bench.report.table import Cell, Figure, Table, letters, marks

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 80rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin: 2.5rem 0 .5rem; }
nav a { margin-right: 1rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; border-top: 2px solid; border-bottom: 2px solid;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { padding: .2rem .7rem; text-align: left; vertical-align: top; }
thead tr:last-child th { border-bottom: 1px solid; }
sup { line-height: 0; }
th { font-weight: 600; vertical-align: bottom; }
th.group { text-align: center; border-bottom: 1px solid #888; }
td.number, th.number { text-align: right; }
td.number { white-space: nowrap; }
td:first-child { min-width: 9rem; }
tr.rule td { border-top: 1px solid; }
.second { text-decoration: underline; text-underline-offset: 2px; }
.below { font-size: .85rem; color: #444; margin: .4rem 0 0; padding-left: 1.2rem; max-width: 60rem;
  overflow-wrap: anywhere; }
img { max-width: 100%; }
@media (prefers-color-scheme: dark) {
  body { background: #16181b; color: #e6e6e6; } .below { color: #aaa; } a { color: #8ab4f8; }
  img { background: white; } }
"""
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>{{ style }}</style>
</head>
<body>
<h1>{{ title }}</h1>
{% if methods %}<p>{{ methods }}</p>
{% endif %}<nav>{% for table in tables %}<a href="#{{ table.name }}">{{ kind(table) }}</a>
{% endfor %}</nav>
{% for table in tables %}<section id="{{ table.name }}">
<h2>{{ kind(table) }}</h2>
<div class="scroll"><table>
<caption>{{ table.caption }}</caption>
<thead>
{% set groups = grouped(table) %}{% if groups %}<tr>{% for text, width in groups -%}
<th colspan="{{ width }}"{% if text %} class="group"{% endif %}>{{ text }}</th>
{%- endfor %}</tr>
{% endif %}<tr>{% for header in table.headers -%}
<th{% if table.is_numeric(loop.index0) %} class="number"{% endif %}>{{ header.title }}</th>
{%- endfor %}</tr>
</thead>
<tbody>
{% for row in table.rows %}<tr{% if loop.index0 in table.rules %} class="rule"{% endif %}>
{%- for cell in row -%}
<td{% if table.is_numeric(loop.index0) %} class="number"{% endif %}>
{%- if is_figure(cell) -%}
{% if cell.rank == "best" %}<b>{{ cell.number }}</b>
{%- elif cell.rank == "second" %}<span class="second">{{ cell.number }}</span>
{%- else %}{{ cell.number }}{% endif %}
{%- if cell.spread_text %} ± {{ cell.spread_text }}{% endif %}
{%- else %}{{ cell.text }}{% endif %}
{%- if cell.notes %}<sup>{{ marks(cell) }}</sup>{% endif %}</td>
{%- endfor %}</tr>
{% endfor %}</tbody>
</table></div>
<ul class="below">
{% for text in table.footnotes %}<li><sup>{{ letters(loop.index0) }}</sup> {{ text }}</li>
{% endfor %}{% if table.card %}<li><i>Protocol.</i> {% for term, text in table.card -%}
{{ term }}: {{ text }}{{ "." if loop.last else "; " }}{% endfor %}</li>
{% endif %}{% for note in table.notes %}<li>{{ note }}</li>
{% endfor %}</ul>
</section>
{% endfor %}{% for alt, data in pictures %}<section>
<h2>{{ alt }}</h2>
<img alt="{{ alt }}" src="data:image/png;base64,{{ data }}">
</section>
{% endfor %}{% if notes %}<ul class="below">
{% for note in notes %}<li>{{ note }}</li>
{% endfor %}</ul>
{% endif %}</body>
</html>
"""


def page(
    title: str,
    tables: Sequence[Table],
    methods: str,
    pictures: Sequence[tuple[str, Path]],
    notes: Sequence[str],
) -> str:
    """Write the page.

    Args:
        methods: plain text.
        pictures: a title and a PNG file each, which becomes part of the page.
    """
    environment = Environment(autoescape=True, keep_trailing_newline=True)
    shown = [(alt, base64.b64encode(file.read_bytes()).decode()) for alt, file in pictures]
    return environment.from_string(PAGE).render(
        title=title,
        style=STYLE,
        tables=tables,
        methods=methods,
        pictures=shown,
        notes=notes,
        kind=_kind,
        grouped=_grouped,
        is_figure=_is_figure,
        letters=letters,
        marks=marks,
    )


def _kind(table: Table) -> str:
    return table.kind.replace("_", " ").capitalize()


def _is_figure(cell: Cell) -> bool:
    return isinstance(cell, Figure)


def _grouped(table: Table) -> list[tuple[str, int]]:
    """Return the groups of headers with their widths; none where there is no group."""
    if not any(header.group for header in table.headers):
        return []
    groups: list[tuple[str, int]] = []
    for header in table.headers:
        if groups and groups[-1][0] == header.group:
            groups[-1] = (header.group, groups[-1][1] + 1)
        else:
            groups.append((header.group, 1))
    return groups
