"""Claims and their verdicts: what a paper says, put to a test that it can lose.

A claim says that a statistic of the rows lies on one side of a threshold. Its verdict is one of
  holds         the 95% interval lies wholly beyond the threshold, and the null test rejects (adjusted p < 0.05);
  fails         the interval lies wholly on the other side;
  undecided     neither; the reason says what is missing, and about how many seeds would settle it;
  not testable  the data cannot answer; the reason says why.
What each guard protects from:
  interval      seed noise. Stratified jackknife over runs, t quantiles: at three seeds a percentile bootstrap covers 75%.
  null test     structure that chance alone gives: the best of several grid points, a curve bent by one lucky cell. Labels are
                permuted as the claim's `exchange` says and the statistic, selection included, is computed again.
  Holm          many claims: one of twenty tests at 5% succeeds on nothing. The adjustment runs over the study's testable claims.
  smallest p    too few relabelings: three seeds against three have 20, so p < 0.05 is out of reach whatever the data say.
  ablation      a claim that holds without its mechanism; the study runner applies it, here it must only be there.
What is not guarded: runs of different cells that share a seed count as independent; the spread is over seeds, not over test sets.
Published runs that err together, of one size say, are one observation only where their rows share a run.
"""

import dataclasses
import hashlib
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from scaling_jax.laws import intervals, statistics
from scaling_jax.laws.form import NotTestable

ALPHA = 0.05


@dataclass(frozen=True)
class Permute:
    """A null hypothesis: inside each stratum of the `within` columns, the values of `column` might as well be exchanged.

    Rows that share a run move together wherever they all have one value of the column: ten evaluations of one run, or
    all teams drawn from three runs, are one observation. Where the column varies inside a run, rows move by themselves.
    Rows outside `where` stay as they are.

    where: column -> value or values, as pairs; or a function of the data that gives them, where they were chosen by the data.
    moves: another column, which moves among the runs while `column` stays: losses between two cells, say, where the
      statistic chose those cells by columns that must not change.
    """

    column: str
    within: tuple[str, ...] = ()
    where: tuple[tuple[str, object], ...] | Callable = ()
    moves: str | None = None
    text: str = ""

    def describe(self):
        """In words: `text` where given, else as "weight_decay within (width, seed)"."""
        if self.text or callable(self.where):
            return self.text or self.column
        within = f" within ({', '.join(self.within)})" if self.within else " over all rows"
        return f"{self.column}{within}" + "".join(f", {name} = {value}" for name, value in self.where)

    def arrangements(self, data):
        """Number of distinct relabelings of `data`, at most `statistics.CAP`; no p value is smaller than its inverse."""
        _, _, stratum, value = _units(self, data)
        return statistics.arrangements(np.split(value, np.flatnonzero(np.diff(stratum)) + 1))

    def __call__(self, data, rng):
        stratum = _units(self, data)[2]
        return self._relabelled(data, np.lexsort((rng.random(len(stratum)), stratum)))  # a random order inside each stratum

    def every(self, data):
        """All distinct relabelings, the data as they are among them; for few `arrangements`."""
        _, _, stratum, value = _units(self, data)
        ends = np.flatnonzero(np.diff(stratum)) + 1
        parts = [statistics.orders(labels) for labels in np.split(value, ends)]
        starts = [0, *ends.tolist()]
        for one in itertools.product(*parts):
            order = np.concatenate([start + np.array(part, int) for start, part in zip(starts, one, strict=True)])
            yield self._relabelled(data, order if self.moves else np.argsort(order))

    def _relabelled(self, data, order):
        """`data` in which unit i has what unit order[i] had."""
        rows, unit, _, value = _units(self, data)
        column = self.moves or self.column
        values = data[column]  # a copy
        if self.moves:
            value = np.empty(len(value), values.dtype)
            value[unit] = values[rows]
            if not np.array_equal(value[unit], values[rows], equal_nan=True):
                raise ValueError(f"permute {self.describe()}: {self.moves} differs between rows of one run, it cannot move with the run")
        values[rows] = value[order][unit]
        return data.replace(column, values)


def permute(column, within=(), where=None, moves=None, text=""):
    """The exchange that permutes `column` within the strata of `within`, among the rows where the columns of `where` have these values.

    where: a mapping, or a function Data -> mapping. moves, text: see `Permute`.
    """
    within = (within,) if isinstance(within, str) else tuple(within)
    if column in within:
        raise ValueError(f"within = {within!r}: permuting {column} within itself changes nothing")
    if not callable(where):
        where = tuple((name, _frozen(value)) for name, value in (where or {}).items())
    return Permute(column, within, where, moves, text)


def _frozen(value):
    """The values of a `where` so that they hash, in an order that is the same in every process."""
    if isinstance(value, (set, frozenset)):
        return tuple(sorted(value))
    return tuple(value) if isinstance(value, (list, range, np.ndarray)) else value


def _units(exchange, data):
    """What moves: rows [R] (positions in the view), unit [R] that moves each; stratum, value [U], sorted by stratum. Kept per view."""
    if exchange in data._memo:
        return data._memo[exchange]
    chosen = data.where(**(exchange.where(data) if callable(exchange.where) else dict(exchange.where)))
    values = chosen[exchange.column]
    within = [chosen[name] for name in exchange.within]
    stratum = statistics.codes(zip(*within, strict=True)) if within else np.zeros(len(chosen), int)
    unit = statistics.clusters(chosen["runs"])
    if _distinct(unit, statistics.codes(values)) > _distinct(unit):
        _refuse_mixture(exchange, unit, values)
        unit = np.arange(len(chosen))
    if _distinct(unit, stratum) > _distinct(unit):
        raise ValueError(
            f"permute {exchange.describe()}: rows that share a run have one {exchange.column} but lie in several strata, and would be "
            f"relabelled apart as if they were independent; leave what varies inside a run out of `within`"
        )
    heads = np.unique(unit, return_index=True)[1]  # a row of each unit
    order = np.argsort(stratum[heads], kind="stable")
    heads = heads[order]
    rows = np.searchsorted(data._rows, chosen._rows)  # both ascend
    data._memo[exchange] = rows, np.argsort(order)[unit], stratum[heads], values[heads]
    return data._memo[exchange]


def _refuse_mixture(exchange, unit, values):
    """Rows move by themselves only if the column varies inside every run: constant ones would count each of their rows as independent."""
    for one in np.unique(unit):
        mine = values[unit == one]
        if len(mine) > 1 and len(set(mine.tolist())) == 1:
            raise ValueError(
                f"permute {exchange.describe()}: {exchange.column} varies inside some runs but is {mine[0]} in all {len(mine)} rows of another; "
                f"choose the rows with `where` so that it varies inside all of them, or inside none"
            )


def _distinct(*codes):
    return len(set(zip(*codes, strict=True)))


@dataclass(frozen=True)
class Claim:
    """One sentence of a paper as something that can be wrong: `statistic(data)` lies on `side` of `threshold`.

    Args:
      text: the sentence. statistic: Data -> float; may raise NotTestable with a reason.
      exchange: what the null hypothesis permutes: `permute(...)`, or any function (data, rng) -> data. Its method
        `arrangements(data)`, where it has one, counts the distinct relabelings; `every(data)` yields them all.
      ablation: dotted override -> value that removes the mechanism; the claim must then lose `holds`.
      unit, paper_value, explain: of the statistic, for the report.
    """

    text: str
    statistic: Callable
    threshold: float
    side: str
    exchange: Callable
    ablation: Mapping
    unit: str = ""
    paper_value: float | None = None
    explain: str = ""

    def __post_init__(self):
        if not isinstance(self.text, str) or not self.text.strip():
            raise ValueError(f"text = {self.text!r}: say in one sentence what is claimed")
        where = f"claim {self.text!r}"
        if self.side not in (">", "<"):
            raise ValueError(f"{where}: side = {self.side!r}, expected '>' or '<'")
        if not math.isfinite(self.threshold):
            raise ValueError(f"{where}: threshold = {self.threshold!r}, expected a finite number")
        if not callable(self.statistic):
            raise ValueError(f"{where}: statistic = {self.statistic!r}, expected a function of Data")
        if not callable(self.exchange):
            raise ValueError(f"{where}: exchange = {self.exchange!r}, expected what chance permutes, as permute('recipe', within='seed')")
        if not isinstance(self.ablation, Mapping) or not self.ablation:
            raise ValueError(f"{where}: ablation = {self.ablation!r}, expected the overrides that remove the mechanism")


@dataclass(frozen=True)
class Verdict:
    """The verdict on a claim and all that it rests on; what could not be computed is None.

    n: independent runs that the statistic uses (`intervals.used`). seeds: the smallest number of them in one cell. se, dof: of the 95%
    interval value +- t_dof se. null_p: raw; adjusted_p: after Holm. seeds_needed: about how many per cell decide an
    undecided claim with 80% power if the effect is as measured; None beyond reach.
    """

    claim: str
    statistic: str
    threshold: float
    side: str
    exchange: str
    unit: str
    paper_value: float | None
    value: float | None = None
    ci95: tuple[float, float] | None = None
    se: float | None = None
    dof: float | None = None
    n: int = 0
    seeds: int = 0
    null_p: float | None = None
    adjusted_p: float | None = None
    verdict: str = "not testable"
    reason: str = ""
    seeds_needed: int | None = None

    @property
    def beyond(self):
        """How far the value lies beyond the threshold; negative on the other side."""
        return self.value - self.threshold if self.side == ">" else self.threshold - self.value


def to_json(verdict):
    """The verdict as an entry of `claims` in verdict.json: plain types, every field present."""
    return {**dataclasses.asdict(verdict), "ci95": None if verdict.ci95 is None else list(verdict.ci95)}


def judge(claims, data, permutations=1000, seed=0):
    """The verdicts on `claims`, in their order.

    holds:  T - t se > threshold (side ">"; mirrored for "<"), and Holm-adjusted p < 0.05 over all testable claims
    fails:  T + t se < threshold

    Args:
      permutations: relabelings drawn per claim, or all of them where there are no more; one on which the statistic cannot be
        computed counts against the claim.
      seed: of the relabelings, together with the claim's text: adding a claim leaves the raw p of the others as they were.
    Raises:
      whatever a statistic raises except NotTestable: a bug is not a verdict. ValueError: two claims with one text.
    """
    claims = tuple(claims)
    texts = [claim.text for claim in claims]
    if len(set(texts)) < len(texts):
        raise ValueError(f"claims: {next(t for t in texts if texts.count(t) > 1)!r} is there twice; a claim is known by its text")
    found = [_evidence(claim, data, permutations, seed) for claim in claims]
    tested = [v.null_p for v in found if v.null_p is not None]
    adjusted = iter(statistics.holm(tested).tolist())
    return [v if v.null_p is None else _decide(dataclasses.replace(v, adjusted_p=next(adjusted)), len(tested)) for v in found]


def _evidence(claim, data, permutations, seed):
    """The claim's verdict so far: not testable with its reason, or value, interval and null p waiting for Holm."""
    found = Verdict(
        claim=claim.text,
        statistic=claim.explain or getattr(claim.statistic, "__name__", ""),
        threshold=float(claim.threshold),
        side=claim.side,
        exchange=_describe(claim.exchange),
        unit=claim.unit,
        paper_value=claim.paper_value,
    )
    try:
        value = _evaluate(claim, data)
        if not math.isfinite(value):
            raise NotTestable(f"the statistic is {value}, not a finite number")
        found = dataclasses.replace(found, value=value)
        found = dataclasses.replace(found, **_interval(lambda dropped: _evaluate(claim, data.drop(dropped)), data.strata))
        _check_smallest_p(claim, data, permutations)
    except NotTestable as error:
        return dataclasses.replace(found, reason=str(error))

    def under_null(relabelled):
        try:
            return _evaluate(claim, relabelled)
        except NotTestable:
            return math.nan  # counts as extreme

    if hasattr(claim.exchange, "every") and claim.exchange.arrangements(data) <= permutations:
        p = statistics.exact_p(value, [under_null(relabelled) for relabelled in claim.exchange.every(data)], claim.side)
    else:
        words = list(hashlib.sha256(claim.text.encode()).digest()[:8])
        draw = lambda rng: under_null(claim.exchange(data, rng))
        p = statistics.permutation_p(value, draw, claim.side, permutations, [seed, *words])
    return dataclasses.replace(found, null_p=p)


def _evaluate(claim, data):
    value = claim.statistic(data)
    if np.ndim(value):
        raise TypeError(f"claim {claim.text!r}: the statistic gave shape {np.shape(value)}, expected one number")
    return float(value)


def _interval(statistic, strata):
    """Fields of a verdict that the jackknife gives."""
    value, without = intervals.deletions(statistic, strata)
    counts = intervals.used(statistic, strata, value, without)
    interval = intervals.from_deletions(value, without, counts=counts)
    if not interval.dof > 0:
        raise NotTestable("no degrees of freedom: no run changes the statistic when left out (a constant, a count, a best grid point)")
    ends = (float(interval.low), float(interval.high))
    return dict(ci95=ends, se=float(interval.se), dof=float(interval.dof), n=sum(counts.values()), seeds=min(counts.values()))


def _check_smallest_p(claim, data, permutations):
    possible = claim.exchange.arrangements(data) if hasattr(claim.exchange, "arrangements") else math.inf
    smallest = 1 / min(possible, permutations + 1)
    if smallest >= ALPHA:
        few = f"{possible} distinct relabelings" if possible <= permutations else f"{permutations} permutations"
        raise NotTestable(f"smallest possible p is {smallest:.3g}, not below {ALPHA}: only {few} of {_describe(claim.exchange)}")


def _decide(v, family):
    """The verdict of a testable claim, Holm over `family` claims done."""
    low, high = v.ci95
    beyond, against = (low > v.threshold, high < v.threshold) if v.side == ">" else (high < v.threshold, low > v.threshold)
    band, at = f"the 95% interval [{low:.4g}, {high:.4g}]", f"{v.threshold:.4g}"
    null = f"chance gives as much in {v.null_p:.2g} of relabelings of {v.exchange} ({v.adjusted_p:.2g} after Holm over {family})"
    if against:
        return dataclasses.replace(v, verdict="fails", reason=f"{band} lies on the other side of {at}")
    if beyond and v.adjusted_p < ALPHA:
        return dataclasses.replace(v, verdict="holds", reason=f"{band} lies beyond {at}, and {null}")
    needed = _seeds_needed(v)
    seeds = f"about {needed} seeds per cell" if needed else f"no number of seeds up to {statistics.MOST_SEEDS}"
    why = f"{band} lies beyond {at}, but {null}" if beyond else f"{band} contains {at}"
    against = ", against the claim" if v.beyond < 0 and needed else ""
    reason = f"{why}; if the effect is as measured, {seeds} would settle it{against} (now {v.seeds})"
    return dataclasses.replace(v, verdict="undecided", reason=reason, seeds_needed=needed)


def _seeds_needed(v):
    clear = abs(v.beyond) > v.ci95[1] - v.value
    for_interval = v.seeds if clear else statistics.seeds_for_interval(v.beyond, v.se, v.dof, v.seeds)
    if v.beyond < 0 or v.adjusted_p < ALPHA or for_interval is None:
        return for_interval  # only `holds` asks for the null test
    for_null = statistics.seeds_for_p(v.null_p, ALPHA * v.null_p / v.adjusted_p, v.seeds)
    return None if for_null is None else max(for_interval, for_null)


def _describe(exchange):
    return exchange.describe() if hasattr(exchange, "describe") else getattr(exchange, "__name__", type(exchange).__name__)
