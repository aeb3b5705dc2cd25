"""Sequential gradient coding, what is run: designs searched on traces for tuning, and the best of each scheme against each other on fresh ones."""

from scaling_jax.studies.study import Stage, standard_rows

from . import codes, simulate, traces
from .simulate import Contest, Search
from .traces import Trace

CODED = ("GC", "SR-SGC", "M-SGC")


def settings_of(state, wait):
    """(generator, name of the level of bursts, memory, `Trace`) of every trace that is run with this waiting rule."""
    if state["trace_file"]:  # a cluster has the bursts it has; they stand where the claims look for those of a cluster
        path = str(state["trace_file"])
        times, fingerprint = traces.read(path)
        return [("file", "short", traces.memory(times), Trace("file", path=path, fingerprint=fingerprint))]
    levels = state["memories"] if wait == "all" else {"short": state["memories"]["short"]}
    common = {name: state[name] for name in ("straggle", "slow", "tail", "base", "jitter")}
    return [(g, level, memory, Trace(g, memory=memory, **common)) for g in state["generators"] for level, memory in levels.items()]


def mus(state, wait):
    """The waiting times searched; who may wait for just enough workers need not wait for anything else."""
    return (0.0, *state["mus"]) if wait == "enough" else tuple(state["mus"])


def searches(state, trace, scheme, wait):
    """The units that time every design of `scheme`, one per tuning seed."""
    settings = Search(trace, scheme, state["workers"], state["jobs"], state["models"], state["slope"], wait, mus(state, wait))
    return [state.simulate(simulate.search, settings, seed, scheme=scheme) for seed in state.seeds(state["tuning_seeds"])]


def search(state):
    return [
        unit
        for wait in state["waits"]
        for *_, trace in settings_of(state, wait)
        for scheme in CODED
        for unit in searches(state, trace, scheme, wait)
    ]


def chosen(state, trace, scheme, wait):
    """The design of `scheme` with the lowest mean time over the tuning seeds."""
    state = state.on("tune")
    found = [state.metrics(unit) for unit in searches(state, trace, scheme, wait)]
    every = simulate.candidates(scheme, state["workers"], state["models"], mus(state, wait))
    return min(every, key=lambda one: sum(times[codes.name(one)] for times in found))


def contests(wait):
    def expand(state):
        out = []
        for generator, level, memory, trace in settings_of(state, wait) if wait in state["waits"] else ():
            designs = [chosen(state, trace, scheme, wait) for scheme in CODED]
            settings = Contest(trace, *designs, state["workers"], state["jobs"], state["models"], state["slope"], wait, state["batch"])
            labels = dict(generator=generator, bursts=level, memory=memory)
            out += [state.simulate(simulate.compete, settings, seed, **labels) for seed in state.seeds(state["seeds"])]
        return out

    return expand


STAGES = (Stage("search", search, split="tune"), Stage("traces", contests("all")), Stage("patient", contests("enough")))


def rows(unit, metrics, runs):
    """A row per scheme and trace, without the columns of the nested settings."""
    return [{name: value for name, value in row.items() if "." not in name} for row in standard_rows(unit, metrics, runs)]


def notes(frame):
    """What is simulated and what is not."""
    coded = frame[frame["scheme"] != "uncoded"]
    said = [
        "Delays are drawn from generators, or read from a file of yours; nothing ran on a cluster. How work delays a worker is a straight line in its load, as in the authors' own replays.",
        f"Gradients are real: of small networks, encoded by the workers and decoded by the master in every job. The largest relative error of a decoded gradient is {coded['decode_error'].max():.1e}, the largest change of a final loss {coded['loss_gap'].max():.1e}.",
    ]
    short = frame[(frame["bursts"] == "short") & (frame["wait"] == "all")]
    best = short.drop_duplicates(["generator", "scheme"])
    said += [
        f"Designs chosen on tuning seeds, {generator} traces of short bursts: {', '.join(part.loc[part['scheme'] != 'uncoded', 'design'])}."
        for generator, part in best.groupby("generator")
    ]
    open_codes = frame[(frame["scheme"] == "M-SGC") & (frame["tolerated"] == frame["workers"])]
    if len(open_codes):
        share = len(open_codes) / (frame["scheme"] == "M-SGC").sum()
        said.append(
            f"In {share:.0%} of its runs M-SGC was tuned to lambda = n, where nothing is coded and failed chunks are only done again."
        )
    return said
