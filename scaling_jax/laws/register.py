"""A register of sealed predictions: which were sealed, which were scored, and how often their bands held."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from scaling_jax.laws import chain
from scaling_jax.laws.scoring import Score
from scaling_jax.laws.seeds import clopper_pearson
from scaling_jax.records import ConfigError

SCHEMA = 1  # of a seal and of a register's lines


@dataclass(frozen=True)
class Tally:
    """Hits of `scored` predictions, of `sealed` ones. coverage: hits / scored, with its 95% Clopper-Pearson interval low, high, which
    takes them as independent; seals of one fit are not. nominal: what the bands promise, their mean level. interval_score, log_score:
    means; the log score's over those that have one. None: nothing scored."""

    sealed: int
    scored: int
    hits: int
    coverage: float | None
    low: float
    high: float
    nominal: float | None
    interval_score: float | None
    log_score: float | None


@dataclass(frozen=True)
class Summary:
    """A register in numbers: overall, and by law; `pending` are the entries sealed and not yet scored, oldest first.

    second: later scores of a seal, kept and not counted. not_predictions: seals whose run was observed before them. late: seals that
    entered the register only with their score. head: the register's digest, to be published.
    """

    overall: Tally
    by_law: Mapping
    pending: tuple
    second: int
    not_predictions: int
    late: int
    head: str


def register_summary(register):
    """How the predictions of a register did: see Summary.

    Raises:
      ConfigError: no register, or an edited one; names the line.
    """
    with chain.opened(register) as book:
        entries, head = entries_of(book), book.head
    scores = [entry for entry in entries if entry["entry"] == "score"]
    firsts = {entry["seal"]: entry for entry in scores if entry["first"]}
    seals = {entry["seal"]: entry for entry in reversed(entries)}  # its oldest entry
    laws = sorted({entry["law"] for entry in seals.values()})
    counted = {name: entry for name, entry in firsts.items() if entry["prediction"] is not False}
    of_law = lambda named, law: [entry for entry in named.values() if entry["law"] == law]
    pending = [entry for entry in entries if entry["entry"] == "sealed" and entry["seal"] not in firsts]
    return Summary(
        overall=_tally(list(seals.values()), list(counted.values())),
        by_law={law: _tally(of_law(seals, law), of_law(counted, law)) for law in laws},
        pending=tuple(pending),
        second=len(scores) - len(firsts),
        not_predictions=len(firsts) - len(counted),
        late=sum(entry["late"] for entry in firsts.values()),
        head=head,
    )


def _tally(sealed, scored):
    hits, count = sum(entry["hit"] for entry in scored), len(scored)
    mean = lambda name: math.fsum(values) / len(values) if (values := [e[name] for e in scored if e[name] is not None]) else None
    low, high = clopper_pearson(hits, count) if count else (0.0, 1.0)
    coverage = hits / count if count else None
    return Tally(len(sealed), count, hits, coverage, low, high, mean("level"), mean("interval_score"), mean("log_score"))


def entries_of(book):
    """What a register holds, refused where it is some other chain of lines."""
    for number, entry in enumerate(book.entries, 1):
        if entry.get("entry") not in ("sealed", "score") or entry.get("schema") != SCHEMA:
            raise ConfigError(
                f"register {book.path}, line {number}: no entry of predictions of schema {SCHEMA}; give a file that `seal` wrote"
            )
    return list(book.entries)


def lines(result):
    """A Score or a Summary in words, a list of lines."""
    return _score_lines(result) if isinstance(result, Score) else _summary_lines(result)


def _score_lines(score):
    runs = f"mean of {len(score.observed)} runs {score.value:.5g}" if len(score.observed) > 1 else f"observed {score.value:.5g}"
    share = "" if score.relative is None else f", {score.relative:+.2%}"
    out = [f"{runs}, predicted {score.predicted:.5g}: off by {score.error:+.3g}{share}"]
    out.append(f"{'within' if score.hit else 'outside'} the {score.level:.0%} band, {score.band[0]:.5g} to {score.band[1]:.5g}")
    logarithmic = "" if score.log_score is None else f", log score {score.log_score:.3g}"
    out.append(f"interval score {score.interval_score:.3g}{logarithmic}")
    if not score.first:
        out.append("not counted: this seal was scored before")
    if score.prediction is False:
        out.append("not a prediction: the result was known before the seal")
    if score.late:
        out.append("the seal entered the register only now, with its result known")
    return out


def _summary_lines(found):
    out = [_tally_line("", found.overall)]
    if len(found.by_law) > 1:
        out += [_tally_line(f"{law}: ", tally) for law, tally in found.by_law.items()]
    for entry in found.pending:
        at = ", ".join(f"{name}={value:g}" for name, value in entry["at"].items())
        out.append(f"waiting since {entry['sealed_at'][:10]}: {entry['law']} at {at}, {entry['band'][0]:.5g} to {entry['band'][1]:.5g}")
    for count, what in ((found.second, "later scores of a seal"), (found.not_predictions, "sealed after the result was known")):
        if count:
            out.append(f"not counted: {count} {what}")
    if found.late:
        out.append(f"{found.late} entered the register only with their result")
    return out


def _tally_line(name, tally):
    if not tally.scored:
        return f"{name}{tally.sealed} sealed, none scored"
    interval = f"{tally.coverage:.0%}, 95% interval {tally.low:.0%} to {tally.high:.0%}"
    held = f"{tally.hits} of {tally.scored} bands held ({interval}; promised {tally.nominal:.0%})"
    return f"{name}{tally.sealed} sealed, {held}, mean interval score {tally.interval_score:.3g}"
