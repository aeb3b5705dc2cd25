"""Which worker does what in which round, whom the master waits for, and when each job can be decoded.

Job t starts in round t. All times are given; what is computed here is the order of work that the schemes of arXiv:2211.13802
(section 3) prescribe and the master's rule (section 2): wait (1 + mu) times as long as for the fastest worker and count the others
as stragglers, unless the pattern of stragglers then leaves the scheme's model; then wait longer.
"""

from dataclasses import dataclass

import numpy as np

from . import codes


@dataclass(frozen=True)
class Schedule:
    """What happened.

    seconds: of each round [rounds]. finished: round at whose end each job is decoded [jobs]. answers: per job, what a decoder
    gets: tuples of workers, one per gradient code (one for GC and SR-SGC, B of them for M-SGC; none for lambda = n).
    stragglers: [rounds, n]. waited: rounds in which the master had to wait longer.
    """

    seconds: np.ndarray
    finished: np.ndarray
    answers: tuple
    stragglers: np.ndarray
    waited: int

    @property
    def total(self):
        """Seconds until the last job is decoded."""
        return float(self.seconds.sum())


def run(design, delays, jobs, slope, wait="all"):
    """The `Schedule` of a design on delays [rounds >= jobs + T, n]; work takes `slope` seconds per unit of load on top.

    wait: where the pattern leaves the model, "all" waits for every worker (the paper), "enough" until the pattern is within it again.
    """
    n = delays.shape[1]
    codes.check(design, n)
    book = (_Multiplexed if design.scheme == "M-SGC" else _Repeating)(design, n, jobs)
    last, work = jobs + codes.delay(design), slope * codes.load(design, n)
    stragglers, counted, seconds, waited = np.zeros((last, n), bool), np.zeros((last, n), bool), [], 0
    for t in range(last):
        if (book.finished >= 0).all():
            break
        busy = book.assign(t)
        if not busy.any():  # all jobs have started, and none is due to be repeated in this round
            seconds.append(0.0)
            continue
        times = np.where(busy, delays[t] + work, -np.inf)
        allowed = lambda late, t=t: book.harmless(t, late) or fits(design, counted, t, late)
        took = min((1 + design.mu) * times[busy].min(), times.max())
        if not allowed(times > took):
            waited += 1
            later = np.sort(times[times > took]) if wait == "enough" else [times.max()]
            took = next(one for one in later if allowed(times > one))
        stragglers[t] = late = times > took
        counted[t] = late & (not book.harmless(t, late))
        seconds.append(float(took))
        book.receive(t, busy & ~late)
    return Schedule(np.array(seconds), book.finished, tuple(book.answers), stragglers[: len(seconds)], waited)


def fits(design, stragglers, t, late):
    """Whether the workers `late` [n] of round t, after the `stragglers` [rounds, n] of earlier ones, are within the design's model.

    At most s of them; or, for SR-SGC and M-SGC, (B, W, lambda)-bursty: in the W rounds that end with t at most lambda workers straggle,
    and none that straggles in t has done so in rounds t - W + 1 ... t - B.
    """
    if design.scheme in ("uncoded", "GC"):
        return late.sum() <= codes.tolerated(design)
    first = max(0, t + 1 - design.W)
    if (stragglers[first:t].any(0) | late).sum() > design.lam:
        return False
    return not (stragglers[first : max(0, t + 1 - design.B)].any(0) & late).any()


class _Repeating:
    """GC; and SR-SGC, where what job t - T still lacks is done again in round t, by workers that did not deliver it."""

    def __init__(self, design, n, jobs):
        self.n, self.jobs, self.need, self.T = n, jobs, n - codes.tolerated(design), codes.delay(design)
        self.got = np.zeros((jobs, n), bool)
        self.task = np.full(n, -1)
        self.finished, self.answers = np.full(jobs, -1), [()] * jobs

    def assign(self, t):
        self.task = np.full(self.n, t if t < self.jobs else -1)
        old = t - self.T
        if self.T and 0 <= old < self.jobs and self.finished[old] < 0:
            self.task[np.flatnonzero(~self.got[old])[: self.need - self.got[old].sum()]] = old
        return self.task >= 0

    def harmless(self, t, late):
        """Rounds of SR-SGC in which nothing is repeated and the code alone suffices are left out of the pattern, as the authors do."""
        return bool(self.T and (self.task == t).all() and self.n - late.sum() >= self.need)

    def receive(self, t, answered):
        for job in (t - self.T, t):
            if 0 <= job < self.jobs and self.finished[job] < 0:
                self.got[job] |= answered & (self.task == job)
                if self.got[job].sum() >= self.need:
                    self.finished[job] = t
                    self.answers[job] = (tuple(np.flatnonzero(self.got[job]).tolist()),)
        _promised(self, t - self.T)


class _Multiplexed:
    """M-SGC: W - 1 chunks of its own per worker and job, done again where they failed, and B coded minitasks for who has none to repeat."""

    def __init__(self, design, n, jobs):
        self.n, self.jobs, self.T, self.own, self.B = n, jobs, codes.delay(design), design.W - 1, design.B
        self.need = n - design.lam if design.lam < n else None
        self.done = np.zeros((jobs, n, self.own), bool)
        self.coded = np.zeros((jobs, self.B, n), bool)
        self.finished, self.answers = np.full(jobs, -1), [()] * jobs
        self.attempts = []

    def assign(self, t):
        """attempts: (job, chunk [n] of its own that a worker tries, or -1; group of the coded minitask the others try, or None)."""
        self.attempts, busy = [], np.zeros(self.n, bool)
        for slot in range(self.T + 1):
            job = t - slot
            if not 0 <= job < self.jobs or self.finished[job] >= 0:
                continue
            if slot < self.own:
                chunk, group = np.full(self.n, slot), None
            else:
                lacking = ~self.done[job]
                chunk = np.where(lacking.any(1), lacking.argmax(1), -1)
                group = slot - self.own if self.need is not None else None
            self.attempts.append((job, chunk, group))
            busy |= (chunk >= 0) | (group is not None)
        return busy

    def harmless(self, t, late):
        return not late.any()

    def receive(self, t, answered):
        for job, chunk, group in self.attempts:
            own = np.flatnonzero(answered & (chunk >= 0))
            self.done[job, own, chunk[own]] = True
            if group is not None:
                self.coded[job, group] = answered & (chunk < 0)
            groups = self.coded[job] if self.need is not None else self.coded[job, :0]
            if self.done[job].all() and (groups.sum(1) >= (self.need or 0)).all():
                self.finished[job] = t
                self.answers[job] = tuple(tuple(np.flatnonzero(group).tolist()) for group in groups)
        _promised(self, t - self.T)


def _promised(book, job):
    """What the schemes prove, checked: within its model a job is decoded in time."""
    if 0 <= job < book.jobs and book.finished[job] < 0:
        raise RuntimeError(f"job {job} is not decodable {book.T} rounds after its start, although the stragglers are within the model")
