"""The looks of a report: its style sheet and its script, kept as text so that the page is one file, and its repeated parts."""

from html import escape

from scaling_jax.studies.charts import between, number

CSS = """
:root { color-scheme: light dark;
  --ink: #1c2530; --muted: #5b6670; --paper: #ffffff; --ground: #f4f6f8; --line: #dde3e8; --link: #0060a0;
  --holds: #00664a; --fails: #b03a00; --undecided: #7a5c00; --untestable: #55606a; }
@media (prefers-color-scheme: dark) { :root {
  --ink: #e8edf2; --muted: #a9b4be; --paper: #171d24; --ground: #0f1419; --line: #323c47; --link: #7cc0f0;
  --holds: #2fc79a; --fails: #ff8a4a; --undecided: #e0b43c; --untestable: #a9b4be; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 24px 16px 64px; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 4px; } h2 { font-size: 1.2rem; margin: 40px 0 12px; } h3 { font-size: 1rem; margin: 0 0 6px; }
p { margin: 0 0 10px; max-width: 75ch; } ul { margin: 0; padding-left: 20px; } a { color: var(--link); }
.muted { color: var(--muted); } .small { font-size: .875rem; }
.summary { font-size: 1.15rem; font-weight: 600; margin-top: 14px; }
.panel { background: var(--paper); border: 1px solid var(--line); border-radius: 8px; padding: 16px; margin: 0 0 16px; }
.bar { display: flex; flex-wrap: wrap; gap: 8px 18px; align-items: center; margin-bottom: 10px; }
.key { display: inline-flex; align-items: center; gap: 6px; font-size: .875rem; }
.key i { width: 22px; height: 6px; border-radius: 3px; background: currentColor; }
button { font: inherit; font-size: .875rem; color: var(--ink); background: var(--paper); border: 1px solid var(--line); border-radius: 6px; padding: 4px 12px; cursor: pointer; margin-left: auto; }
.holds { color: var(--holds); } .fails { color: var(--fails); } .undecided { color: var(--undecided); } .untestable { color: var(--untestable); }
.chip { display: inline-block; border: 1.5px solid currentColor; border-radius: 99px; padding: 1px 11px; font-size: .875rem; font-weight: 600; white-space: nowrap; }
.claims { padding: 0; overflow: hidden; }
.head, .claim > summary { display: grid; grid-template-columns: 30px minmax(0, 1fr) 170px 108px 88px 68px 70px 126px; gap: 12px; padding: 12px 16px; align-items: start; }
.head > :last-child { justify-self: end; }
.head { font-size: .8rem; color: var(--muted); padding-block: 8px; border-bottom: 1px solid var(--line); }
.claim + .claim { border-top: 1px solid var(--line); }
.claim > summary { cursor: pointer; list-style: none; } .claim > summary::-webkit-details-marker { display: none; }
.claim > summary:hover { background: color-mix(in srgb, var(--link) 7%, transparent); }
.claim > summary > :last-child { justify-self: end; }
summary:focus-visible, a:focus-visible, button:focus-visible, .scroll:focus-visible { outline: 3px solid var(--link); outline-offset: -3px; }
.claim > summary .no::before { content: "\\25B8\\00A0"; } .claim[open] > summary .no::before { content: "\\25BE\\00A0"; }
.no { white-space: nowrap; color: var(--muted); font-variant-numeric: tabular-nums; }
.num { font-variant-numeric: tabular-nums; font-size: .9rem; overflow-wrap: anywhere; } .num small { display: block; color: var(--muted); }
.strip { display: block; width: 104px; height: 23px; margin-top: 2px; }
.what { font-size: .875rem; color: var(--muted); display: block; }
.open { padding: 4px 16px 18px 54px; }
.open dl { margin: 0 0 12px; display: grid; grid-template-columns: 196px minmax(0, 1fr); gap: 6px 12px; }
code { white-space: nowrap; font-size: .9em; }
dt { color: var(--muted); } dd { margin: 0; overflow-wrap: anywhere; max-width: 75ch; }
.label { display: none; }
.plot { width: 100%; height: 440px; display: none; } .live .plot { display: block; } .live .static, .live .still { display: none; } .static { width: 100%; max-width: 760px; height: auto; background: #fff; border-radius: 6px; display: block; }
figure { margin: 0; } figcaption { margin-top: 8px; } .notes { color: var(--undecided); font-size: .875rem; margin: 6px 0 0; padding-left: 18px; }
.scroll { overflow-x: auto; max-height: 420px; overflow-y: auto; border: 1px solid var(--line); border-radius: 6px; margin: 8px 0; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; width: 100%; }
th, td { text-align: left; padding: 5px 12px; border-bottom: 1px solid var(--line); white-space: nowrap; }
tr:last-child td { border-bottom: 0; } thead th { position: sticky; top: 0; background: var(--paper); color: var(--muted); font-weight: 600; }
td.wide { white-space: normal; min-width: 220px; overflow-wrap: anywhere; } td.n, th.n { text-align: right; }
@media (max-width: 860px) {
  .head { display: none; } .label { display: inline; color: var(--muted); font-size: .8rem; }
  .claim > summary { grid-template-columns: 30px 1fr 1fr; gap: 4px 12px; }
  .claim > summary > .text { grid-column: 2 / 4; } .claim > summary > .value { grid-column: 2 / 4; } .claim > summary > .spark { grid-column: 2 / 4; }
  .claim > summary > .n { grid-column: 2 / 4; } .claim > summary > .p { grid-column: 2; } .claim > summary > .paper { grid-column: 3; }
  .claim > summary > .n, .claim > summary > .p, .claim > summary > .paper { order: 2; justify-self: start; }
  .claim > summary > .value, .claim > summary > .spark { order: 1; } .claim > summary > .chipbox { grid-column: 2 / 4; justify-self: start; }
  .num small { display: inline; } .open { padding-left: 16px; }
}
@media (max-width: 560px) { .plot { height: 400px; } .open dl { grid-template-columns: 1fr; gap: 0; } .open dd { margin-bottom: 8px; } .panel { padding: 12px; } .claims { padding: 0; } h1 { font-size: 1.35rem; } }
@media print {
  :root { --ground: #fff; --paper: #fff; --ink: #000; --link: #0060a0; --line: #bbb; --muted: #444; --holds: #00664a; --fails: #b03a00; --undecided: #7a5c00; --untestable: #55606a; }
  button, .live .plot { display: none; } .live .static, .live .still { display: block; } .scroll { max-height: none; overflow: visible; } figure, .claim { break-inside: avoid; } th, td { white-space: normal; padding: 3px 6px; }
}
"""

# Plots are drawn when they come near the screen, so a closed row costs nothing and an opened one has its width.
# plotly.js travels compressed, a third of its size; where a browser cannot unpack it the static picture stays. Its mode
# bar would offer an upload to the maker's cloud; the buttons are listed so that nothing leaves the page.
JS = """
(() => {
  "use strict";
  const read = id => JSON.parse(document.getElementById(id).textContent);
  const charts = read("charts"), pairs = read("colors"), dark = matchMedia("(prefers-color-scheme: dark)");
  const config = {responsive: true, displaylogo: false, showSendToCloud: false, plotlyServerURL: "",
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]]};
  const exchange = new Map(pairs), plots = [...document.querySelectorAll(".plot")], drawn = new Set();
  const paint = value => typeof value === "string" ? (exchange.get(value) ?? value) : Array.isArray(value) ? value.map(paint) :
    value && typeof value === "object" ? Object.fromEntries(Object.entries(value).map(([k, v]) => [k, k === "text" || k === "name" ? v : paint(v)])) : value;
  const figure = (name, narrow) => {
    const chart = dark.matches ? paint(charts[name]) : charts[name], layout = {...chart.layout};
    if (narrow) { layout.margin = {...layout.margin, l: 44, r: 8}; layout.font = {...layout.font, size: 12}; }
    return [chart.data, layout];
  };
  const draw = div => {
    const [data, layout] = figure(div.dataset.chart, div.clientWidth < 520);
    drawn.add(div);
    return Plotly.react(div, structuredClone(data), structuredClone(layout), config);
  };
  const start = () => {
    document.documentElement.classList.add("live");
    const watch = new IntersectionObserver(seen => seen.forEach(({isIntersecting, target}) => {
      if (isIntersecting && !drawn.has(target)) draw(target);
    }), {rootMargin: "400px"});
    plots.forEach(div => watch.observe(div));
    dark.addEventListener("change", () => drawn.forEach(draw));
  };
  const unpack = async () => {
    const packed = document.getElementById("plotly").textContent.trim();
    const bytes = Uint8Array.from(atob(packed), c => c.charCodeAt(0));
    const code = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
    const script = document.createElement("script");
    script.textContent = code;
    document.head.append(script);
  };
  const rows = [...document.querySelectorAll("details.claim")], button = document.getElementById("all");
  const say = () => { if (button) button.textContent = rows.every(row => row.open) ? "Close all rows" : "Open all rows"; };
  button?.addEventListener("click", () => { const open = !rows.every(row => row.open); rows.forEach(row => { row.open = open; }); });
  rows.forEach(row => row.addEventListener("toggle", say));
  addEventListener("beforeprint", () => rows.forEach(row => { row.open = true; }));
  if (location.hash === "#open-rows") rows.forEach(row => { row.open = true; });
  if (plots.length && "DecompressionStream" in window) unpack().then(start);
})();
"""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="scaling_jax report {schema}">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{css}</style>
</head>
<body>
<main>
{body}
</main>
{scripts}
</body>
</html>
"""


def plot(key, chart):
    notes = f'<ul class="notes">{"".join(f"<li>{escape(note)}</li>" for note in chart.notes)}</ul>' if chart.notes else ""
    return f'<div class="plot" data-chart="{escape(key)}" role="img" aria-label="{escape(chart.title)}"></div>{notes}'


def points(chart):
    """What a chart shows, as a table."""
    names = dict(chart.ticks)
    rows = []
    for one in chart.series:
        if one.style not in ("points", "line") or len(one.x) > 100:
            continue  # fitted curves and trajectories are functions, not points
        for i, (x, y) in enumerate(zip(one.x, one.y, strict=True)):
            ends = between(one.low[i], one.high[i]) if one.low is not None else "no interval"
            rows.append((one.name, names.get(x, number(x)), number(y), ends, str(one.counts[i]) if one.counts else "–"))
    rows += [(level.text, "–", number(level.y), between(level.low, level.high), "fit") for level in chart.levels]
    rows += [
        (mark.text, f"{number(mark.x)} {between(mark.low, mark.high)}", number(mark.y), "at the minimum", "fit") for mark in chart.marks
    ]
    head = ("series", chart.x_label or "x", chart.y_label or "y", "95% interval", "rows")
    return f'<details class="small"><summary>{len(rows)} data points</summary>{table(head, rows)}</details>' if rows else ""


def table(head, rows, wide=()):
    cells = lambda row: "".join(
        f'<td class="wide">{escape(str(v))}</td>' if i in wide else f"<td>{escape(str(v))}</td>" for i, v in enumerate(row)
    )
    titles = "".join(f'<th scope="col">{escape(str(name))}</th>' for name in head)
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{titles}</tr></thead><tbody>{"".join(f"<tr>{cells(row)}</tr>" for row in rows)}</tbody></table></div>'
