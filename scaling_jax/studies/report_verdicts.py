"""Verdicts for people: a sentence, a table for the terminal, and the rows of the report that open to their evidence."""

import re
import shutil
from html import escape

from scaling_jax.studies.charts import between, number, there
from scaling_jax.studies.report_page import plot, points

SIGNS = {"holds": "✓", "fails": "✗", "undecided": "?", "not testable": "–"}
COLORS = {"holds": "green", "fails": "red", "undecided": "yellow", "not testable": "bright_black"}
MEANING = {
    "holds": "the whole 95% interval lies beyond the claimed value, and chance does not explain it",
    "fails": "the whole 95% interval lies on the other side",
    "undecided": "the interval allows both sides, or chance could have given as much",
    "not testable": "these runs cannot answer",
}
LARGER = {"smoke": "tiny", "tiny": "small", "small": "pod"}


def summary(verdicts):
    """One sentence: "5 of 8 claims hold on your machine, 2 fail, 1 undecided"."""
    if not verdicts:
        return "No claim has been judged yet."
    count = {name: sum(v.verdict == name for v in verdicts) for name in SIGNS}
    total, held = len(verdicts), count["holds"]
    verb = "holds" if held == 1 and total == 1 else "hold" if held != 1 else "holds"
    rest = [
        f"{n} {words}"
        for n, words in (
            (count["fails"], "fail" if count["fails"] > 1 else "fails"),
            (count["undecided"], "undecided"),
            (count["not testable"], "not testable here"),
        )
        if n
    ]
    return f"{held} of {total} claim{'s' if total > 1 else ''} {verb} on your machine{', ' if rest else ''}{', '.join(rest)}."


def verdict_table(verdicts, width=None):
    """The verdicts as a rich table; below 90 columns, of `width` or else of the terminal, p and the paper's value stand below the value."""
    from rich.box import HORIZONTALS
    from rich.table import Table
    from rich.text import Text

    slim = (width or shutil.get_terminal_size((100, 24)).columns) < 90
    table = Table(show_lines=True, box=HORIZONTALS, expand=False)
    table.add_column("claim", ratio=1, min_width=18)
    for name in ("value [95%]", "claimed"):
        table.add_column(name, no_wrap=False)
    for name in ("n",) if slim else ("n", "p", "paper"):
        table.add_column(name, justify="right")
    table.add_column("verdict", no_wrap=True, min_width=14)
    for i, v in enumerate(verdicts, 1):
        value = f"{number(v.value)} {v.unit}\n{_ends(v)}".strip() if there(v.value) else "–"
        if slim:
            value += f"\np {_p(v)}" if v.null_p is not None else ""
            value += f"\npaper {number(v.paper_value)}" if there(v.paper_value) else ""
        why = f"\n({v.reason})" if v.verdict == "not testable" else ""
        cells = [f"{i}. {v.claim}{why}", value, f"{v.side} {number(v.threshold)}", _count(v)]
        cells += [] if slim else [_p(v), number(v.paper_value)]
        table.add_row(*map(Text, cells), Text(f"{SIGNS[v.verdict]} {v.verdict}", style=COLORS[v.verdict]))
    return table


def section(verdicts, by_text, charts, scale):
    keys = "".join(
        f'<span class="key {_class(name)}"><i></i><span><b>{SIGNS[name]} {name}</b> <span class="muted">{why}</span></span></span>'
        for name, why in MEANING.items()
    )
    head = "".join(
        f"<span>{name}</span>" for name in ("", "claim", "value [95% interval]", "threshold", "runs", "p (Holm)", "paper", "verdict")
    )
    rows = [_claim(v, *by_text.get(v.claim, (i, None)), charts, scale) for i, v in enumerate(verdicts, 1)]
    body = (
        f'<div class="panel claims"><div class="head" aria-hidden="true">{head}</div>{"".join(rows)}</div>'
        if rows
        else '<p class="muted">Nothing to judge yet.</p>'
    )
    button = '<button id="all" type="button">Open all rows</button>' if rows else ""
    hint = "Each row opens to its evidence. The bar is the 95% interval, the dot the measured value, the upright line what the claim must pass, the shaded side where it holds."
    return f'<section id="verdicts"><h2>Verdicts</h2><div class="bar">{keys}</div><div class="bar"><span class="muted small">{hint}</span>{button}</div>{body}</section>'


def _claim(v, index, claim, charts, scale):
    mine = [(key, chart) for key, chart, about in charts if v.claim in about]
    unit = f" {v.unit}" if v.unit else ""
    value = f"{number(v.value)}{escape(unit)} <small>{_ends(v)}</small>" if there(v.value) else "– <small>not measured</small>"
    explain = f'<span class="what">{escape(v.statistic)}</span>' if " " in v.statistic else ""  # else it is the name of a function
    cells = [
        f'<span class="no">{index}</span>',
        f'<span class="text"><b>{escape(v.claim)}</b>{explain}</span>',
        f'<span class="num value"><span class="label">value </span>{value}</span>',
        f'<span class="num spark">{_strip(v)}claimed {escape(v.side)} {number(v.threshold)}</span>',
        f'<span class="num n"><span class="label">runs </span>{v.n or "–"} <small>{_per_cell(v)}</small></span>',
        f'<span class="num p"><span class="label">p (Holm) </span>{_p(v)}</span>',
        f'<span class="num paper"><span class="label">paper </span>{number(v.paper_value)}</span>',
        f'<span class="chipbox"><span class="chip {_class(v.verdict)}">{SIGNS[v.verdict]} {v.verdict}</span></span>',
    ]
    facts = {
        "In plain words": _effect(v),
        "Why this verdict": _sentence(v.reason or "no reason was recorded"),
        "What would change it": _change(v, index, claim, scale),
    }
    if v.exchange:
        facts["The null test exchanges"] = v.exchange
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{_options(text)}</dd>" for name, text in facts.items())
    still = lambda key: f'<p class="still"><a href="#figure-{escape(key)}">See the figure below</a></p>'
    plots = "".join(f"<h3>{escape(chart.title)}</h3>{plot(key, chart)}{still(key)}{points(chart)}" for key, chart in mine)
    plots = plots or '<p class="muted small">No figure is tied to this claim; its rows are in the table of all rows.</p>'
    return f'<details class="claim" id="claim-{index}"><summary>{"".join(cells)}</summary><div class="open"><dl>{facts}</dl>{plots}</div></details>'


def _effect(v):
    """The measurement as a sentence."""
    unit = f" {v.unit}" if v.unit else ""
    claimed = f"the claim asks for {'more' if v.side == '>' else 'less'} than {number(v.threshold)}{unit}"
    paper = f"; the paper reports {number(v.paper_value)}{unit}" if there(v.paper_value) else ""
    if not there(v.value):
        return f"Nothing could be measured; {claimed}{paper}."
    ends = f", 95% interval {number(v.ci95[0])} to {number(v.ci95[1])}" if v.ci95 else ", without an interval"
    where = f"{number(abs(v.beyond), 2)}{unit} {'above' if (v.beyond > 0) == (v.side == '>') else 'below'} that"
    return f"Measured {number(v.value)}{unit}{ends}, from {v.n} runs; {claimed}, and the value lies {where}{paper}."


def _change(v, index, claim, scale):
    """What would turn the verdict over."""
    out = []
    if v.verdict == "holds":
        out.append("More seeds whose interval reaches the claimed value, or a null test that gives as much.")
    elif v.verdict == "undecided" and v.seeds_needed:
        against = ", and then against the claim" if v.beyond < 0 else ""
        out.append(
            f"About {v.seeds_needed} seeds per cell instead of {v.seeds}, if the effect is as measured{against}; "
            "the number of seeds is a setting in the study's file."
        )
    elif v.verdict == "undecided":
        out.append("More seeds alone will not: the effect is too small against its noise, or leans the other way.")
    elif v.verdict == "fails":
        out.append("Another setting rather than more seeds: the measured effect points the other way.")
    else:
        out.append("What the reason names: usually more seeds or more cells.")
    if v.verdict != "holds" and scale in LARGER:
        out.append(f"The next larger scale is --scale={LARGER[scale]}.")
    if claim is not None:
        without = ", ".join(f"{name} = {value}" for name, value in claim.ablation.items())
        if v.verdict == "holds":
            out.append(f"With --ablate={index} ({without}) the mechanism is gone, and the claim must lose its verdict.")
        else:
            out.append(f"Should it come to hold, --ablate={index} ({without}) must take the verdict away again.")
    return " ".join(out)


def _strip(v):
    """The interval against the claimed value, as a small picture."""
    if not there(v.value) or not v.ci95 or not all(map(there, v.ci95)):
        return ""
    low, high = min(v.ci95[0], v.threshold), max(v.ci95[1], v.threshold)
    room = 0.08 * (high - low or 1.0)
    place = lambda at: 100 * (at - low + room) / (high - low + 2 * room)
    a, b, c, t = (f"{place(at):.1f}" for at in (*v.ci95, v.value, v.threshold))
    x, w = (t, f"{100 - float(t):.1f}") if v.side == ">" else ("0", t)
    shapes = f'<rect x="{x}" y="2" width="{w}" height="18" fill="currentColor" opacity=".10"/><rect x="{a}" y="8.5" width="{max(float(b) - float(a), 1):.1f}" height="5" rx="2.5" fill="currentColor" opacity=".65"/>'
    shapes += f'<circle cx="{c}" cy="11" r="4" fill="currentColor"/><line x1="{t}" x2="{t}" y1="1" y2="21" style="stroke: var(--ink)" stroke-width="1.5"/>'
    return f'<svg class="strip {_class(v.verdict)}" viewBox="0 0 100 22" aria-hidden="true">{shapes}</svg>'


def _options(text):
    """Text with its command-line options in one piece."""
    return re.sub(r"(?<!\S)(--[a-z]+(=\w+)?)", r"<code>\1</code>", escape(text))


def _sentence(text):
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _class(verdict):
    return "untestable" if verdict == "not testable" else verdict


def _ends(v):
    return between(*v.ci95) if v.ci95 else "no interval"


def _count(v):
    return f"{v.n} ({v.seeds})" if v.n else "–"


def _per_cell(v):
    return f"{v.seeds} seed{'s' if v.seeds != 1 else ''} a cell" if v.seeds else ""


def _p(v):
    if not there(v.adjusted_p):
        return "–"
    return "< 0.001" if v.adjusted_p < 0.001 else f"{v.adjusted_p:.2g}"
