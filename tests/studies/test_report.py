"""The report as a file: complete, escaped, free of the network, and readable when nothing could be judged."""

import base64
import dataclasses
import gzip
import html.parser
import json
import math
import re
import shutil
import subprocess

import pandas as pd
import pytest

from scaling_jax.studies import claims as claims_
from scaling_jax.studies import figures, report
from scaling_jax.studies.charts import number
from tests.studies.test_figures import world

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
VOID = {"meta", "link", "img", "br", "rect", "circle", "line", "input"}


class Page(html.parser.HTMLParser):
    """Reads a page: its tags with attributes, its text outside scripts, and whether every tag that opens is closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.words, self.scripts = [], [], [], []
        self.feed(text)
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        (self.scripts if self.open and self.open[-1] in ("script", "style") else self.words).append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))


def gap(data):
    return data.where(recipe="standard").mean() - data.where(recipe="regularized").mean()


def sweep(data):
    return data.where(recipe="decay sweep", weight_decay=0.4).mean() - data.where(recipe="decay sweep", weight_decay=3.2).mean()


def study_claims():
    recipes = claims_.permute("recipe", "params", {"recipe": ["standard", "regularized"]})
    decays = claims_.permute("weight_decay", (), {"recipe": "decay sweep", "weight_decay": [0.4, 3.2]})

    def impossible(data):
        raise claims_.NotTestable("the published range starts at 1.4B parameters")

    return (
        claims_.Claim(
            "Regularization lowers the loss", gap, 0, ">", recipes, {"decays": (0.1,)}, "nats", 0.29, "standard less regularized"
        ),
        claims_.Claim("It lowers the loss by 0.3", gap, 0.3, ">", recipes, {"decays": (0.1,)}, "nats", 0.43),
        claims_.Claim("Thirty times the usual decay is best", sweep, 0, ">", decays, {"decays": (0.1,)}, "nats"),
        claims_.Claim(
            "Ensembles <script>alert(1)</script> & more",
            impossible,
            0,
            ">",
            claims_.permute("members"),
            {"average": "losses"},
            "nats",
            math.nan,
        ),
    )


@pytest.fixture(scope="module")
def study():
    data, claims = world(4), study_claims()
    figure = figures.curves(
        "Loss </script><b>by</b> size",
        "params",
        by="recipe",
        where={"recipe": ["standard", "regularized"]},
        claims=(1, 4),
        caption="Means & <i>bands</i>",
    )
    plots = (figure, figures.optimum("Weight decay", "weight_decay", where={"recipe": "decay sweep"}, claims=(3,)))
    charts = [(f.key, f(data), figures.claim_texts(f, claims)) for f in plots]
    return dict(verdicts=claims_.judge(claims, data, permutations=300), claims=claims, charts=charts, rows=data.frame)


def written(folder, **parts):
    path = folder / "report.html"
    report.write(path, "A study <of> loss", "2509.14786", "How far & why?", "tiny", **{"verdicts": [], **parts})
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(study, tmp_path_factory):
    fits = [
        {
            "law": "power",
            "groups": {"recipe": "standard"},
            "params": {"E": 2.61, "A": 58.0},
            "ci95": {"E": [2.55, 2.66]},
            "n": 16,
            "r2": 0.99,
            "warnings": ["near a bound"],
        }
    ]
    more = dict(
        cost={"cpu_seconds": 75.0, "flops": 3.2e14, "runs": 96},
        provenance={"commit": "abc<1>", "versions": {"jax": "0.10.2"}},
        fits=fits,
        notes=["two <corpora>"],
    )
    more["estimates"] = [
        {"text": "limit <in> N", "value": 2.5, "ci95": (2.25, 2.75), "n": 16, "unit": "nats", "paper_value": 3.43},
        {"text": "joint limit", "value": None, "reason": "too few sizes"},
    ]
    return written(tmp_path_factory.mktemp("report"), **study, **more)


def test_verdicts_of_the_fixture_are_one_of_each(study):
    assert [v.verdict for v in study["verdicts"]] == ["holds", "fails", "undecided", "not testable"]


def test_says_everything_it_was_given(page):
    text = Page(page).text
    for wanted in (
        "A study <of> loss",
        "How far & why?",
        "1 of 4 claims holds on your machine, 1 fails, 1 undecided, 1 not testable here.",
        "The published range starts at 1.4B parameters.",
        "two <corpora>",
        "Ensembles <script>alert(1)</script> & more",
        "E = 2.61 [2.55, 2.66]; A = 58 no interval",
        "limit <in> N",
        "2.5 nats [2.25, 2.75]",
        "too few sizes",
        "1 min 15 s",
        "320T",
        "abc<1>",
        "jax 0.10.2",
        "4 seeds a cell",
        "--ablate=1",
        "--scale=small",
    ):
        assert wanted in text, wanted


def test_every_verdict_shows_value_interval_and_counts(study, page):
    text = Page(page).text
    for v in study["verdicts"][:3]:
        assert f"{number(v.value)} nats" in text and f"[{number(v.ci95[0])}, {number(v.ci95[1])}]" in text
        assert v.reason[1:] in text
    assert f"About {study['verdicts'][2].seeds_needed} seeds per cell instead of 4" in text


def test_points_of_a_chart_are_listed_beside_its_claim(study, page):
    line = study["charts"][0][1].series[0]
    for y, low, high in zip(line.y, line.low, line.high, strict=True):
        assert page.count(f"<td>{number(y)}</td><td>[{number(low)}, {number(high)}]</td><td>4</td>") == 3  # two rows, one figure


def test_loads_nothing(page):
    for tag, attributes in Page(page).tags:
        for name in ("src", "href", "data", "action", "srcset", "poster"):
            target = attributes.get(name) or ""
            allowed = target.startswith(("data:", "#")) or (tag == "a" and target == "https://arxiv.org/abs/2509.14786")
            assert not target or allowed, (tag, target[:80])
    own = "".join(s for s in Page(page).scripts if "Plotly.react" in s or "@media" in s)
    assert "showSendToCloud: false" in own and 'plotlyServerURL: ""' in own  # plotly would offer to upload the data
    assert "http" not in own and "@import" not in own and "url(" not in own


def test_texts_cannot_leave_their_place(page):
    assert "<script>alert" not in page and "<b>by</b>" not in page
    assert len(re.findall(r"</script>", page)) == 4  # charts, colours, plotly, ours
    blob = re.search(r'id="charts">(.*?)</script>', page, re.S).group(1)
    assert "<" not in blob and len(json.loads(blob)) == 2


def test_plotly_travels_inside(page):
    code = gzip.decompress(base64.b64decode(re.search(r'id="plotly">(.*?)</script>', page, re.S).group(1)))
    assert b"plotly.js" in code[:500]


def test_same_input_same_bytes(study, page, tmp_path):
    one, two = (written(tmp_path, **study) for _ in range(2))
    assert one == two


def test_nothing_judged_nothing_drawn(tmp_path):
    page = written(tmp_path)
    text = Page(page).text
    assert "No claim has been judged yet." in text and "Nothing to judge yet." in text
    assert 'id="plotly"' not in page and len(page) < 40_000


def test_only_untestable_and_not_a_number(tmp_path):
    blank = claims_.Verdict("c", "", 0.5, "<", "", "", None)
    odd = dataclasses.replace(
        blank, claim="d", value=math.nan, ci95=(math.nan, math.nan), null_p=math.nan, adjusted_p=math.nan, paper_value=math.nan
    )
    half = dataclasses.replace(blank, claim="e", value=1.0, reason="no interval: one run")
    rows = pd.DataFrame({"loss": [math.nan, 1.0], "runs": [("a",), ("b",)]})
    text = Page(written(tmp_path, verdicts=[blank, odd, half], rows=rows)).text
    assert "0 of 3 claims hold on your machine, 3 not testable here." in text
    assert "Nothing could be measured; the claim asks for less than 0.5." in text and "without an interval" in text
    assert not re.search(r"\bnan\b", text.lower())


@pytest.mark.parametrize("width", (100, 80))
def test_terminal_table(study, width):
    from rich.console import Console

    console = Console(width=width, record=True, file=open("/dev/null", "w"))
    with console.file:
        console.print(report.verdict_table(study["verdicts"], width))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    for wanted in ("✓ holds", "✗ fails", "? undecided", "– not testable", "> 0.3", "32 (4)", "nats"):
        assert wanted in text, wanted
    assert "0.29" in text and "paper" in text, "the paper's value"
    assert "p (" in text or "\u2502 p" in text or " p " in text, "and p"


def test_terminal_table_is_coloured_and_takes_brackets_as_text(study):
    from rich.console import Console

    odd = dataclasses.replace(study["verdicts"][0], claim="[red]not markup[/red]")
    console = Console(width=100, record=True, force_terminal=True, color_system="standard", file=open("/dev/null", "w"))
    with console.file:
        console.print(report.verdict_table([odd]))
    styled = console.export_text(styles=True, clear=False)
    assert "\x1b[32m✓ holds" in styled and "[red]not" in console.export_text()


@pytest.mark.system
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")
@pytest.mark.parametrize("fragment", ("", "#open-rows"))
def test_browser_draws_the_plots_without_a_complaint(page, tmp_path, fragment):
    path = tmp_path / "report.html"
    path.write_text(page, encoding="utf-8")
    quiet = (
        "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"
    )
    command = [
        CHROMIUM,
        "--headless",
        *quiet.split(),
        f"--user-data-dir={tmp_path / 'profile'}",
        "--window-size=1280,9000",
        "--virtual-time-budget=8000",
    ]
    done = subprocess.run(
        [*command, "--enable-logging=stderr", "--dump-dom", f"{path.as_uri()}{fragment}"], capture_output=True, text=True, timeout=120
    )
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert done.returncode == 0 and complaints == []
    plots = re.findall(r'class="[^"]*js-plotly-plot', done.stdout)
    assert len(plots) == (5 if fragment else 2)  # the figures; with the rows open also their three plots
    assert len(re.findall(r'class="scatterlayer', done.stdout)) == len(plots)
