"""The report of a study: one HTML file that needs no network, and the verdicts as a table for the terminal.

Reading order: what was asked, what came out in a sentence, every claim with the evidence for its verdict, all figures,
then cost and provenance. No number stands without its interval or its count.
"""

import base64
import gzip
import json
from html import escape
from pathlib import Path

from scaling_jax.studies.charts import between, number, there
from scaling_jax.studies.charts_plotly import plotly_figure, recolor
from scaling_jax.studies.charts_svg import drawn
from scaling_jax.studies.report_page import CSS, JS, PAGE, plot, points, table
from scaling_jax.studies.report_verdicts import section, summary, verdict_table

__all__ = ["summary", "verdict_table", "write"]

SCHEMA = 1
MOST_ROWS = 2000  # of the table of all rows; rows.csv has them all


def write(
    path,
    study_title,
    paper,
    question,
    scale,
    verdicts,
    claims=(),
    charts=(),
    rows=None,
    cost=None,
    provenance=None,
    fits=(),
    notes=(),
    estimates=(),
):
    """Writes the report of a study as one self-contained HTML file.

    Args:
      verdicts: `claims.Verdict`s in order. claims: their `Claim`s, for the ablations.
      charts: (key, Chart, texts of the claims it is about), in order.
      rows: pandas frame of the rows claims were measured on. fits: entries as in fit.json.
      estimates: numbers without a claim, as mappings with text, value, ci95, n, unit, paper_value, reason.
      cost: training_seconds, last_start_cpu_seconds, flops, tokens, runs, ...; provenance: commit, versions, device, corpus, command, ...
    """
    charts = list(charts)
    by_text = {claim.text: (i, claim) for i, claim in enumerate(claims, 1)}
    parts = [_header(study_title, paper, question, scale, verdicts), _notes(notes), section(verdicts, by_text, charts, scale)]
    parts += [_figures(charts), _estimates(estimates), _fits(fits), _rows(rows)]
    parts += [_pairs("Cost", {**(cost or {})}, _cost), _pairs("Provenance", {"scale": scale, **(provenance or {})}, _plain)]
    blobs = {"charts": {key: plotly_figure(chart) for key, chart, _ in charts}, "colors": recolor()}
    scripts = [f'<script type="application/json" id="{name}">{_json(value)}</script>' for name, value in blobs.items()]
    if charts:
        scripts.append(f'<script type="text/plain" id="plotly">{_plotly()}</script>')
    scripts.append(f"<script>{JS}</script>")
    page = PAGE.format(
        schema=SCHEMA, title=escape(f"{study_title}: report"), css=CSS, body="\n".join(p for p in parts if p), scripts="\n".join(scripts)
    )
    Path(path).write_text(page, encoding="utf-8")


def _header(title, paper, question, scale, verdicts):
    link = f'<a href="https://arxiv.org/abs/{escape(paper)}">arXiv:{escape(paper)}</a>' if paper else "our own question, no paper"
    return f'<header><h1>{escape(title)}</h1><p class="muted">{link}, scale <b>{escape(scale)}</b></p><p>{escape(question)}</p><p class="summary">{escape(summary(verdicts))}</p></header>'


def _notes(notes):
    return (
        f'<section class="panel"><h3>Before you read on</h3><ul>{"".join(f"<li>{escape(str(n))}</li>" for n in notes)}</ul></section>'
        if notes
        else ""
    )


def _figures(charts):
    out = []
    for key, chart, about in charts:
        tied = f'<p class="muted small">About: {escape("; ".join(about))}</p>' if about else ""
        caption = f"<figcaption><p>{escape(chart.caption)}</p></figcaption>" if chart.caption else ""
        picture = f'<img class="static" alt="{escape(chart.title)}" src="{_picture(chart)}">'
        out.append(
            f'<figure class="panel" id="figure-{escape(key)}"><h3>{escape(chart.title)}</h3>{picture}{plot(key, chart)}{caption}{tied}{points(chart)}</figure>'
        )
    return f'<section id="figures"><h2>Figures</h2>{"".join(out)}</section>' if out else ""


def _estimates(estimates):
    rows = []
    for one in estimates:
        value = (
            f"{number(one['value'])} {one.get('unit', '')} {between(*(one.get('ci95') or (None, None)))}"
            if there(one.get("value"))
            else "not measured"
        )
        rows.append((one["text"], value, str(one.get("n") or "–"), number(one.get("paper_value")), one.get("reason") or ""))
    head = ("estimate", "value [95%]", "runs", "paper", "reason")
    return f'<section><h2>Estimates</h2><div class="panel">{table(head, rows, wide=(0, 4))}</div></section>' if rows else ""


def _fits(fits):
    rows = []
    for fit in fits:
        params, ends = fit.get("params") or {}, fit.get("ci95") or {}
        shown = "; ".join(f"{name} = {number(v)} {between(*(ends.get(name) or (None, None)))}" for name, v in params.items())
        warnings = "; ".join(map(str, fit.get("warnings") or ())) or str(fit.get("reason") or "")
        rows.append(
            (
                str(fit.get("equation") or fit.get("law", "")),
                _plain(fit.get("groups") or fit.get("group") or "all rows"),
                shown,
                str(fit.get("n", "–")),
                number(fit.get("r2")),
                warnings,
            )
        )
    return (
        f'<section><h2>Fitted laws</h2><div class="panel">{table(("law", "rows of", "parameters [95%]", "n", "r²", "warnings"), rows, wide=(0, 2, 5))}</div></section>'
        if rows
        else ""
    )


def _rows(rows):
    if rows is None or not len(rows):
        return ""
    frame = rows.drop(columns=[c for c in ("runs", "team") if c in rows.columns])
    values = [[_cell(v) for v in row] for row in frame.head(MOST_ROWS).itertuples(index=False)]
    more = f", the first {MOST_ROWS} are shown, rows.csv has them all" if len(frame) > MOST_ROWS else ""
    return f'<section><h2>All rows</h2><div class="panel"><details><summary>{len(frame)} rows{more}; each is one run, one team of an ensemble, or one row of a simulation</summary>{table(frame.columns, values)}</details></div></section>'


def _pairs(title, values, show):
    rows = [(name.replace("_", " "), show(value, name) if show is _cost else show(value)) for name, value in values.items()]
    return f'<section><h2>{title}</h2><div class="panel">{table(("what", "value"), rows, wide=(1,))}</div></section>' if rows else ""


def _cell(value):
    return number(value) if isinstance(value, float) else str(value)


def _plain(value):
    return (
        ", ".join(f"{name} {v}" for name, v in value.items())
        if isinstance(value, dict)
        else ", ".join(map(str, value))
        if isinstance(value, (list, tuple))
        else str(value)
    )


def _cost(value, name):
    if not isinstance(value, (int, float)):
        return _plain(value)
    from scaling_jax.parallel import cost

    return cost.duration(value) if name.endswith("seconds") else f"{cost.people(value)} ({value:.6g})" if value >= 1e4 else f"{value:g}"


def _json(value):
    """JSON that may stand inside a script element: no tag can begin or end in it."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _picture(chart):
    return "data:image/svg+xml;base64," + base64.b64encode(drawn(chart)).decode()


def _plotly():
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), 9, mtime=0)).decode()
