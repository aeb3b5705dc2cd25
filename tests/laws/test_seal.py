"""Seals and registers: every byte counts, scores are those of scipy and of the definitions, no line is lost among processes."""

import dataclasses
import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats

from scaling_jax import laws
from scaling_jax.laws import chain, forms, scoring, seal
from scaling_jax.laws.form import NotTestable
from scaling_jax.records import ConfigError
from tests.laws.planted import AT, POWER, found

BYTES = st.one_of(st.integers(0, 255), st.sampled_from(b" \t\r\n0"))  # spaces change no content, only the bytes


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """Bytes of a seal, a register of three lines, and its head."""
    folder = tmp_path_factory.mktemp("shelf")
    one = seal.seal(found(), AT, folder / "seal.json", note="größer", register=folder / "register.jsonl")
    seal.score(one.path, one.predicted, folder / "register.jsonl")
    seal.score(one.path, 2.0, folder / "register.jsonl")
    return folder


# --- sealing -------------------------------------------------------------------------------------------------


def test_a_seal_opens_as_it_was_closed(tmp_path):
    fit = found()
    one = seal.seal(fit, AT, tmp_path / "seal.json", note="the 10B run")
    again = seal.open_seal(one.path)
    assert again == one and again.content["note"] == "the 10B run" and again.content["at"] == AT
    assert again.predicted == float(fit.predict(AT))
    for kind in ("run", "law"):
        band = fit.band(AT, kind=kind)
        assert again.content[f"band_{kind}"] == [float(band.low[0]), float(band.high[0])]
    assert again.band == tuple(again.content["band_run"])
    thawed = again.fit()
    assert thawed.params == fit.params and np.array_equal(thawed.points.target, fit.points.target)
    assert thawed.band(AT, kind="run").high == pytest.approx(again.band[1])
    assert again.content["outside"].startswith("params = 1e+10 lies above the fitted") and len(again.sha256) == 64
    age = datetime.now(UTC) - datetime.fromisoformat(again.content["sealed_at"])
    assert timedelta(0) <= age < timedelta(minutes=5)
    assert again.content["versions"]["numpy"] == np.__version__


def test_a_seal_is_never_overwritten(sealed):
    before = sealed.path.read_bytes()
    with pytest.raises(ConfigError, match="exists already"):
        seal.seal(found(seed=1), AT, sealed.path)
    assert sealed.path.read_bytes() == before


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(at={"tokens": 1e9}), "expected params"),
        (dict(at={"params": 1e9, "tokens": 1e9}), "expected params"),
        (dict(at={"params": -1.0}), "above zero"),
        (dict(at={"params": [1e9, 1e10]}), "one number"),
        (dict(kind="both"), "kind = 'both'"),
        (dict(level=95), "level = 95"),
        (dict(path="/nowhere/seal.json"), "does not exist"),
    ],
)
def test_mistakes_leave_no_file(tmp_path, change, message):
    with pytest.raises(ConfigError, match=message):
        seal.seal(**(dict(found=found(), at=AT, path=tmp_path / "seal.json") | change))
    assert not list(tmp_path.iterdir())


def decay(x, *, a=(0, np.inf), b=(-np.inf, np.inf)):
    """L = a exp(b x)"""
    return a * np.exp(b * x)


def test_what_cannot_fail_is_not_sealed(tmp_path):
    """Noise alone within a hundredth of the way leaves the end of an exponential anywhere."""
    with pytest.raises(ConfigError, match="no points"):
        seal.seal(dataclasses.replace(found(), points=None), AT, tmp_path / "seal.json")
    x = np.repeat([0.0, 0.5, 1.0], 2)
    wild = laws.fit(decay, {"x": x, "loss": 2 + 0.5 * np.random.default_rng(2).standard_normal(6)})
    with pytest.raises(NotTestable, match="without an end it cannot fail"):
        seal.seal(wild, {"x": 100.0}, tmp_path / "seal.json")
    with pytest.raises(NotTestable, match="fit as well"):
        seal.seal(dataclasses.replace(found(), identified=False, warnings=("others fit as well",)), AT, tmp_path / "seal.json")
    assert not list(tmp_path.iterdir())


# --- edits ---------------------------------------------------------------------------------------------------


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), byte=BYTES, how=st.sampled_from(["change", "drop", "put"]))
def test_any_byte_of_a_seal_is_noticed(shelf, tmp_path, where, byte, how):
    data = (shelf / "seal.json").read_bytes()
    (tmp_path / "seal.json").write_bytes(_edited(data, where, byte, how))
    with pytest.raises(ConfigError):
        seal.open_seal(tmp_path / "seal.json")


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["register.jsonl", "register.jsonl.head"]),
    where=st.floats(0, 1, exclude_max=True),
    byte=BYTES,
    how=st.sampled_from(["change", "drop", "put"]),
)
def test_any_byte_of_a_register_is_noticed(shelf, tmp_path, name, where, byte, how):
    for one in ("register.jsonl", "register.jsonl.head"):
        data = (shelf / one).read_bytes()
        (tmp_path / one).write_bytes(_edited(data, where, byte, how) if one == name else data)
    with pytest.raises(ConfigError):
        seal.register_summary(tmp_path / "register.jsonl")


def _edited(data, where, byte, how):
    """`data` with one byte changed, dropped or put in, never the same."""
    at = int(where * len(data))
    old = data[at]
    if how == "change":
        return data[:at] + bytes([byte if byte != old else (byte + 1) % 256]) + data[at + 1 :]
    return data[:at] + data[at + 1 :] if how == "drop" else data[:at] + bytes([byte]) + data[at:]


def test_lines_that_were_removed_or_moved_are_noticed(shelf, tmp_path):
    path = tmp_path / "register.jsonl"
    rows = (shelf / path.name).read_bytes().splitlines(keepends=True)
    (tmp_path / "register.jsonl.head").write_bytes((shelf / "register.jsonl.head").read_bytes())
    for kept, message in (
        (rows[:2], "1 lines were removed from its end"),
        ([], "3 lines were removed"),
        (rows[1:], "line 1: does not follow"),
        ([rows[0], rows[2]], "line 2: does not follow line 1"),
        ([rows[1], rows[0], rows[2]], "line 1: does not follow"),
        ([*rows, rows[2]], "line 4: does not follow"),
    ):
        path.write_bytes(b"".join(kept))
        with pytest.raises(ConfigError, match=message):
            seal.register_summary(path)
        with pytest.raises(ConfigError, match=message):  # nor does anybody write to it
            seal.score(shelf / "seal.json", 2.0, path)
    path.unlink()
    with pytest.raises(ConfigError, match="removed"):
        seal.register_summary(path)
    path.write_bytes(b"".join(rows))
    (tmp_path / "register.jsonl.head").unlink()
    with pytest.raises(ConfigError, match="is gone"):
        seal.register_summary(path)


def test_a_write_cut_off_before_the_head_is_mended(shelf, tmp_path):
    """The line is there and its chain is whole; the head still counts two."""
    rows = (shelf / "register.jsonl").read_bytes().splitlines(keepends=True)
    path = tmp_path / "register.jsonl"
    path.write_bytes(b"".join(rows))
    (tmp_path / "register.jsonl.head").write_text(f"2 {json.loads(rows[1])['sha256']}\n")
    assert seal.register_summary(path).second == 1
    seal.score(shelf / "seal.json", 2.0, path)
    assert (tmp_path / "register.jsonl.head").read_text().startswith("4 ")
    assert seal.register_summary(path).second == 2


@pytest.mark.parametrize(
    "field, check", [("points", "fitted points"), ("predicted", "sha256"), ("sealed_at", "sha256"), ("fit", "is gone")]
)
def test_the_check_that_failed_is_named(sealed, tmp_path, field, check):
    content = json.loads(sealed.path.read_text())
    if field == "points":
        content["fit"]["points"]["y"][0] += 0.001
    elif field == "fit":
        del content["fit"]
    else:
        content[field] = content[field] + 0.01 if field == "predicted" else "2020-01-01T00:00:00.000000+00:00"
    (tmp_path / "edited.json").write_text(seal._text(content))
    with pytest.raises(ConfigError, match=check):
        seal.open_seal(tmp_path / "edited.json")


def test_files_that_are_no_seals_are_named(tmp_path):
    for text, message in (("", "not JSON"), ("[1]", "not a sealed prediction"), ('{"law": "power"}', "not a sealed prediction")):
        (tmp_path / "other.json").write_text(text)
        with pytest.raises(ConfigError, match=message):
            seal.open_seal(tmp_path / "other.json")
    with pytest.raises(ConfigError, match="cannot be read"):
        seal.open_seal(tmp_path / "none.json")
    with pytest.raises(ConfigError, match="no such file"):
        seal.register_summary(tmp_path / "none.jsonl")
    with chain.opened(tmp_path / "foreign.jsonl", write=True) as book:
        book.append({"entry": "something"})
    with pytest.raises(ConfigError, match="line 1: no entry of predictions"):
        seal.register_summary(tmp_path / "foreign.jsonl")


# --- scores --------------------------------------------------------------------------------------------------


def test_a_score_is_what_the_definitions_say(sealed):
    low, high = sealed.band
    inside = seal.score(sealed.path, sealed.predicted + 0.001)
    assert inside.hit and inside.error == pytest.approx(0.001) and inside.relative == pytest.approx(0.001 / sealed.predicted)
    assert inside.interval_score == pytest.approx(high - low)
    above = seal.score(sealed.path, high + 0.01)
    assert not above.hit and above.interval_score == pytest.approx(high - low + 40 * 0.01)  # 2 / (1 - 0.95) for each unit outside
    below = seal.score(sealed.path, low - 0.02)
    assert not below.hit and below.interval_score == pytest.approx(high - low + 40 * 0.02)
    assert seal.score(sealed.path, high).hit and inside.counts


@pytest.mark.parametrize("loss", ["lsq", "log"])
@pytest.mark.parametrize("runs", [1, 4])
def test_the_log_score_is_the_density_of_scipys_t(tmp_path, loss, runs):
    fit = found(loss)
    one = seal.seal(fit, AT, tmp_path / "seal.json")
    band, freedom = fit.band(AT), fit.n - 3
    noise = np.sqrt(fit.objective / freedom / runs)
    observed = one.predicted * np.linspace(0.99, 1.02, runs)
    scored = seal.score(one.path, observed)
    if loss == "lsq":
        assert scored.value == pytest.approx(observed.mean())
        t = stats.t(freedom, one.predicted, np.hypot(band.se[0], noise))
        assert scored.log_score == pytest.approx(t.logpdf(scored.value))
    else:
        assert scored.value == pytest.approx(stats.gmean(observed))
        t = stats.t(freedom, np.log(one.predicted), np.hypot(band.se[0] / one.predicted, noise))
        step = 1e-6  # the density of the value as the slope of its distribution function
        slope = (t.cdf(np.log(scored.value + step)) - t.cdf(np.log(scored.value - step))) / (2 * step)
        assert scored.log_score == pytest.approx(np.log(slope), rel=1e-6)


def test_huber_has_no_density_and_a_law_kind_no_noise(tmp_path):
    huber = seal.seal(found("huber"), AT, tmp_path / "huber.json")
    assert seal.score(huber.path, 2.0).log_score is None
    law = seal.seal(found(), AT, tmp_path / "law.json", kind="law")
    assert law.band == tuple(law.content["band_law"]) and seal.score(law.path, [1.85, 1.86]).band == law.band
    t = stats.t(found().n - 3, law.predicted, found().band(AT).se[0])
    assert seal.score(law.path, 1.86).log_score == pytest.approx(t.logpdf(1.86))


@pytest.mark.parametrize("loss", ["lsq", "log"])
def test_many_runs_are_held_against_a_narrower_band(tmp_path, loss):
    one = seal.seal(found(loss), AT, tmp_path / "seal.json")
    widths = [np.diff(seal.score(one.path, [one.predicted] * k).band)[0] for k in (1, 2, 16, 10**6)]
    assert (np.diff(widths) < 0).all()
    assert widths[0] == np.diff(one.content["band_run"])[0]
    assert widths[-1] == pytest.approx(np.diff(one.content["band_law"])[0], rel=1e-4)


def test_bands_of_runs_cover_planted_runs_and_means():
    """100 planted worlds: one run, and the mean of five, lie within their bands about as often as promised."""
    hits = {1: 0, 5: 0}
    rng, x = np.random.default_rng(8), np.tile(np.geomspace(1e6, 1e9, 5), 2)
    truth, y = float(forms.power.predict(POWER, AT)), forms.power.predict(POWER, {"params": x})
    for _ in range(100):
        fit = laws.fit(forms.power, {"params": x, "loss": y + 0.01 * rng.standard_normal(len(x))})
        content = seal._content(fit, AT, "run", "", 0.95, None)
        for k in hits:
            hits[k] += scoring.scored(content, (truth + 0.01 * rng.standard_normal(k)).tolist())["hit"]
    for held in hits.values():
        assert stats.binomtest(held, 100, 0.95).pvalue > 0.001


@settings(max_examples=100)
@given(centre=st.floats(-3, 3), width=st.floats(0.1, 5), level=st.sampled_from([0.5, 0.8, 0.95]))
def test_the_interval_score_is_proper(centre, width, level):
    """Of all bands the normal's own central one has the least mean score: Gneiting and Raftery 2007, by exact expectation."""
    tail = (1 - level) / 2
    edge = stats.norm.ppf(1 - tail)
    grid = np.linspace(-8, 8, 2001)
    mass = stats.norm.pdf(grid) * (grid[1] - grid[0])
    mean = lambda low, high: sum(m * scoring.interval_score(y, low, high, level) for m, y in zip(mass[::10] * 10, grid[::10], strict=True))
    assert mean(-edge, edge) <= mean(centre - width, centre + width) + 2e-3


@pytest.mark.parametrize("observed", [np.nan, np.inf, [], [[1.0]], "a lot"])
def test_values_that_no_run_gives_are_refused(sealed, observed):
    with pytest.raises(ConfigError, match="observed = "):
        seal.score(sealed.path, observed)


def test_of_logarithms_the_value_lies_above_zero(tmp_path):
    one = seal.seal(found("log"), AT, tmp_path / "seal.json")
    with pytest.raises(ConfigError, match="above zero"):
        seal.score(one.path, -1.0)
