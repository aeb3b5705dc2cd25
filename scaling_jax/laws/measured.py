"""What intervals of fitted laws really cover: worlds with a known truth, fitted and asked for intervals like the real points."""

from dataclasses import dataclass

import numpy as np

from scaling_jax.laws.form import NotTestable


@dataclass(frozen=True)
class Coverage:
    """How often an interval held the truth.

    covered: share of the worlds with an answer whose interval held it; error: its standard error, sqrt(c (1 - c) / worlds). below, above:
    shares whose interval lay wholly below, or above, the truth. unbounded: share with an infinite end. width: median of high - low.
    worlds: with an answer. refused: share of all worlds that were NotTestable.
    """

    truth: float
    covered: float
    error: float
    below: float
    above: float
    unbounded: float
    width: float
    worlds: int
    refused: float

    def __str__(self):
        refused = f", {self.refused:.0%} more had no interval" if self.refused else ""
        return f"covers {self.covered:.1%} +- {self.error:.1%}, measured in {self.worlds} worlds{refused}"


def tally(truth, found, refused=0):
    """The Coverage of a list of Interval (or of (low, high)) for the truth, a number or one per interval."""
    low, high = np.array([(one.low, one.high) if hasattr(one, "low") else one for one in found], np.float64).reshape(-1, 2).T
    count, truth = len(low), np.asarray(truth, np.float64)
    if not count:
        nan = float("nan")
        return Coverage(float(truth.mean()), nan, nan, nan, nan, nan, nan, 0, 1.0 if refused else 0.0)
    below, above = float((high < truth).mean()), float((low > truth).mean())
    covered = float(((low <= truth) & (truth <= high)).mean())
    error = float(np.sqrt(max(covered * (1 - covered), 0.25 / count) / count))
    unbounded, width = float((np.isinf(low) | np.isinf(high)).mean()), float(np.median(high - low))
    return Coverage(float(truth.mean()), covered, error, below, above, unbounded, width, count, refused / (count + refused))


def measured_coverage(found, quantities, worlds=200, seed=0, level=0.95, method=None, clusters=None, count=1000):
    """What `intervals.several` of these quantities really covers at the very inputs, weights and clusters of a fit: {name: Coverage}.

    Each world takes the fitted law as the truth, draws the noise anew, fits as the points were fitted, and asks for the intervals. The
    noise is normal with the variance of the residuals, for least squares; with Huber's loss it is drawn from the residuals without the p
    smallest, which are zero because the law goes through p points; with clusters it is normal, an effect of the cluster and a rest.

    Args:
      quantities: names of parameters, or {name: parameter or function}. worlds: 200 tell 95% from 90%, 1000 to +-0.7%.
      method, clusters, count: as of intervals.interval.
    Raises:
      NotTestable: no degree of freedom to know the noise by; a law with a link of its own, whose inverse is not known.
    """
    from scaling_jax.laws import intervals
    from scaling_jax.laws.fitting import fit

    if not isinstance(quantities, dict):
        quantities = {name: name for name in ([quantities] if isinstance(quantities, str) else quantities)}
    form, points = found.form, found.points
    intervals.answerable(found)
    if form.link is not None:
        raise NotTestable(f"{form.name} has a link of its own, whose inverse is not known")
    labels = points.clusters if clusters is None else np.asarray(clusters)[points.rows]
    draw = _noise(found, labels)
    law = found.predict(points.columns)
    arrays = {name: np.asarray(value) for name, value in found.params.items()}
    truth = {name: float(arrays[one] if isinstance(one, str) else one(arrays)) for name, one in quantities.items()}
    ends, refused = {name: [] for name in quantities}, 0
    for world in range(worlds):
        noise = draw(np.random.default_rng([seed, world]))
        data = {**points.columns, form.y: law + noise if found.loss == "lsq" else law * np.exp(noise)}
        if (points.target > 0).all() and (data[form.y] <= 0).any():  # noise that this law's points cannot have had
            refused += 1
            continue
        how = dict(loss=found.loss, fixed=found.fixed, weights=points.weights)
        try:
            again = fit(form, data, **how, **(dict(delta=found.delta) if found.loss == "huber" else {}))
            seen = intervals.several(again, list(quantities.values()), level, method, labels, count, world)
        except NotTestable:
            refused += 1
            continue
        for name, one in zip(quantities, seen, strict=True):
            ends[name].append(one)
    return {name: tally(truth[name], ends[name], refused) for name in quantities}


def _noise(found, clusters):
    """rng -> noise [n] like that of a fit, on the scale of its residuals."""
    residual, w = found.residuals(), found.points.weights
    n, freedom = found.n, found.n - len(found.free)
    if freedom < 1:
        raise NotTestable(f"{n} points and {len(found.free)} free parameters leave no degree of freedom to know the noise by")
    if clusters is not None:
        return _effects(residual * np.sqrt(n / freedom), clusters)
    if found.loss == "huber":
        kept = residual[np.argsort(np.abs(residual), kind="stable")[n - freedom :]]
        return lambda rng: rng.choice(kept, n)
    sd = np.sqrt(found.objective / freedom / w)
    return lambda rng: sd * rng.standard_normal(n)


def _effects(residual, clusters):
    """rng -> an effect of each cluster and a rest, normal, with the variances between and within that the residuals have."""
    _, label, size = np.unique(clusters, return_inverse=True, return_counts=True)
    mean = np.bincount(label, residual) / size
    inner = float(((residual - mean[label]) ** 2).sum()) / max(len(residual) - len(size), 1)
    between = max(float((mean**2).mean()) - inner * float((1 / size).mean()), 0.0)
    return lambda rng: np.sqrt(between) * rng.standard_normal(len(size))[label] + np.sqrt(inner) * rng.standard_normal(len(residual))
