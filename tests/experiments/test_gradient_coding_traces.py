"""Delay traces of gradient coding: they are what they say, and not the model that the codes assume."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from scaling_jax.records import ConfigError
from scaling_jax.studies import runner, worlds
from tests.experiments.test_gradient_coding import PATH, Trace, traces


@pytest.mark.parametrize("memory", [0.0, 0.1, 0.5, 0.8])
def test_slow_states_are_a_gilbert_chain(memory):
    state = traces.gilbert(400, 500, 0.05, memory, np.random.default_rng(0))
    assert state.mean() == pytest.approx(0.05, abs=0.005)
    again = (state[1:] & state[:-1]).sum() / state[:-1].sum()
    assert again == pytest.approx(0.05 + 0.95 * memory, abs=0.02), "so that a burst has 1 / (0.95 (1 - memory)) rounds in the mean"
    assert traces.memory(np.where(state, 3.0, 1.0)) == pytest.approx(memory, abs=0.02)


@pytest.mark.parametrize("memory", [0.0, 0.7])
def test_slow_periods_are_pareto_times_whatever_the_memory(memory):
    score = traces.autoregression(300, 400, memory, np.random.default_rng(0))
    assert np.corrcoef(score[1:].ravel(), score[:-1].ravel())[0, 1] == pytest.approx(memory, abs=0.01)
    times = traces.pareto(score, 0.05)
    index = np.log(1 / 0.05) / np.log(2)
    assert stats.kstest(times[-1], stats.pareto(index).cdf).pvalue > 0.01  # workers are independent, rounds are not
    assert (times > 2).mean() == pytest.approx(0.05, abs=0.005) and times.min() >= 1


def test_single_times_are_as_measured_on_a_cluster():
    """Quantiles of the authors' published profile: 256 workers of AWS Lambda without load, over the median of the fastest."""
    times = traces.draw(Trace("gilbert", memory=0.1), 400, 256, seed=0)
    ratio = times / times.min(1).mean()
    assert (ratio > 2).mean() == pytest.approx(0.05, abs=0.01)
    assert np.quantile(ratio, [0.5, 0.99, 0.999]) == pytest.approx([1.15, 2.6, 3.2], rel=0.15)


def test_a_trace_is_its_seed_and_no_more_than_its_rounds():
    trace = Trace("slow periods", memory=0.5)
    assert np.array_equal(traces.draw(trace, 20, 8, 3), traces.draw(trace, 20, 8, 3))
    assert not np.array_equal(traces.draw(trace, 20, 8, 3), traces.draw(trace, 20, 8, 4))
    calm = traces.draw(Trace(straggle=0.0), 200, 16, 0)
    assert calm.max() < 1.4 * calm.min()


def test_a_file_takes_the_place_of_the_generators(tmp_path):
    rng = np.random.default_rng(0)
    path, times = tmp_path / "mine.csv", 1 + rng.pareto(3.0, (40, 12))
    path.write_text("# my cluster\n" + "\n".join(",".join(f"{t:.6f}" for t in row) for row in times))
    trace = Trace("file", path=str(path), fingerprint=traces.read(path)[1])
    first, second = traces.draw(trace, 20, 12, 7, tuning=True), traces.draw(trace, 20, 12, 7)
    assert np.allclose(np.sort(first, 1), np.sort(times[:20], 1), atol=1e-6) and np.allclose(
        np.sort(second, 1), np.sort(times[20:], 1), atol=1e-6
    )
    with pytest.raises(ConfigError, match="half of it has 20 rounds of 12 workers, the study needs 21 of 12"):
        traces.draw(trace, 21, 12, 0)
    study, _ = runner.load(str(PATH))
    mine = replace(study, settings={**study.settings, "trace_file": str(path)})
    done = worlds.studies.forecast(mine, mine.at("smoke"))
    assert (
        {u.label["generator"] for u in done["traces"]} == {"file"}
        and len(done["traces"]) == 2
        and {u.label["bursts"] for u in done["traces"]} == {"short"}
    )
    found = worlds.live(mine, "smoke", worlds.World(loss=None), seed=0)
    assert found[0].value is not None and found[4].value is None and "no trace with long bursts" in found[4].reason
    path.write_text(path.read_text() + "\n" + ",".join(["1.5"] * 12))
    with pytest.raises(ConfigError, match="the file has changed"):
        traces.draw(trace, 20, 12, 0)


@pytest.mark.parametrize(
    "text, words",
    [("1,2\n1,x", "line 2: .*'x'"), ("1,2\n1", "line 2: expected 2 positive"), ("1,-2", "line 1: expected"), ("", "no line of times")],
)
def test_a_bad_file_is_named_by_line(tmp_path, text, words):
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(ConfigError, match=words):
        traces.read(tmp_path / "bad.csv")
    with pytest.raises(ConfigError, match="no such file"):
        traces.read(tmp_path / "none.csv")
