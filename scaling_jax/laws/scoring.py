"""How good a sealed forecast was: its error, whether its band held, and two proper scores.

    interval score = (high - low) + 2 / (1 - level) max(low - y, y - high, 0), less is better;    log score = ln p(y), more is better

Both are best, on average, for who states what they believe. Source: Gneiting and Raftery 2007, sections 6.2 and 4.
"""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Score:
    """What came of a prediction.

    observed: the runs. value: their mean on the scale of the law's residuals (geometric where those are of logarithms). band: that of the
    seal, for the mean of this many runs. error: value - predicted; relative: error / predicted. hit: value within the band.
    interval_score: (high - low) + 2 / (1 - level) (how far outside); log_score: ln density of the value under the predictive t
    distribution, None where there is none (Huber's loss, a law with a link).
    first: whether this is the seal's first score in the register. prediction: whether the seal precedes the observation; None: not known.
    late: the seal was not in the register before. counts: first, and not known to be no prediction.
    """

    seal: str
    law: str
    predicted: float
    observed: tuple
    value: float
    band: tuple
    level: float
    error: float
    relative: float | None
    hit: bool
    interval_score: float
    log_score: float | None
    first: bool = True
    prediction: bool | None = None
    late: bool = False

    @property
    def counts(self):
        return self.first and self.prediction is not False


def interval_score(value, low, high, level=0.95):
    """The interval score of a central band: its width, and 2 / (1 - level) for every unit that the value lies outside."""
    return high - low + 2 / (1 - level) * max(low - value, value - high, 0.0)


def log_score(z, spread, dof):
    """ln density of Student's t distribution with this spread, z spreads from its centre."""
    from scipy.special import gammaln

    constant = float(gammaln((dof + 1) / 2) - gammaln(dof / 2)) - 0.5 * math.log(dof * math.pi)
    return constant - (dof + 1) / 2 * math.log1p(z * z / dof) - math.log(spread)


def scored(content, runs):
    """The fields of a Score that a seal's content and the observed runs decide."""
    link, back = _scale(content)
    value = runs[0] if len(runs) == 1 else float(back(link(np.array(runs)).mean()))
    low, high = band(content, len(runs))
    level, predicted = content["level"], content["predicted"]
    return dict(
        seal=content["sha256"],
        law=content["fit"]["law"],
        predicted=predicted,
        observed=tuple(runs),
        value=value,
        band=(low, high),
        level=level,
        error=value - predicted,
        relative=(value - predicted) / predicted if predicted else None,
        hit=low <= value <= high,
        interval_score=interval_score(value, low, high, level),
        log_score=_log_score(content, value, len(runs)),
    )


def band(content, count):
    """The band for the mean of `count` runs: half widths sqrt(h_law^2 + (h_run^2 - h_law^2) / count) on the scale of the residuals.

    Of kind "law" that of the law. With Huber's loss the share of the noise is the quantile of one run's, which for a mean is a bound that
    its heavier tails seldom need.
    """
    link, back = _scale(content)
    ends = content["band_" + content["kind"]]
    if content["kind"] == "law" or count == 1:
        return tuple(ends)
    centre, out = link(content["predicted"]), []
    for of_run, of_law in zip(content["band_run"], content["band_law"], strict=True):
        wide, narrow = float(link(of_run) - centre), float(link(of_law) - centre)
        width = math.sqrt(narrow**2 + max(wide**2 - narrow**2, 0.0) / count)
        out.append(float(back(centre + math.copysign(width, wide))))
    return tuple(out)


def _log_score(content, value, count):
    """Of the mean of `count` runs, or of kind "law" of one without noise; None where nothing says how they scatter."""
    link, _ = _scale(content)
    t = content["predictive"]
    if t is None:
        return None
    noise = t["noise"] ** 2 / count if content["kind"] == "run" else 0.0
    spread = math.sqrt(t["se_law"] ** 2 + noise)
    if not spread > 0:
        return None
    z = float(link(value) - link(content["predicted"])) / spread
    # the density of the value itself, not of its logarithm
    return log_score(z, spread, t["dof"]) - (math.log(value) if content["scale"] == "ln" else 0.0)


def _scale(content):
    """The scale of the residuals, and its inverse."""
    return (np.log, np.exp) if content["scale"] == "ln" else (np.asarray, np.asarray)
