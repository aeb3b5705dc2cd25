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


def fields(state, wait, multiple):
    """What a search and a contest share; `multiple` times as many workers as the study has."""
    return dict(workers=multiple * state["workers"], jobs=state["jobs"], models=state["models"], slope=state["slope"], wait=wait)


def searches(state, trace, scheme, wait, multiple):
    """The units that time every design of `scheme`, one per tuning seed."""
    settings = Search(trace, scheme, mus=mus(state, wait), **fields(state, wait, multiple))
    return [state.simulate(simulate.search, settings, seed, scheme=scheme) for seed in state.seeds(state["tuning_seeds"])]


def crowds(state):
    """(generator, level, memory, `Trace`, multiple) of the traces with more workers: those of short bursts."""
    short = [] if state["trace_file"] else [one for one in settings_of(state, "all") if one[1] == "short"]
    return [(*one, multiple) for one in short for multiple in state["multiples"]]


def search(state):
    asked = [(trace, wait, 1) for wait in state["waits"] for *_, trace in settings_of(state, wait)]
    asked += [(trace, "all", multiple) for *_, trace, multiple in crowds(state)]
    return [unit for trace, wait, multiple in asked for scheme in CODED for unit in searches(state, trace, scheme, wait, multiple)]


def chosen(state, trace, scheme, wait, multiple):
    """The design of `scheme` with the lowest mean time over the tuning seeds."""
    state = state.on("tune")
    found = [state.metrics(unit) for unit in searches(state, trace, scheme, wait, multiple)]
    every = simulate.candidates(scheme, multiple * state["workers"], state["models"], mus(state, wait))
    return min(every, key=lambda one: sum(times[codes.name(one)] for times in found))


def contest(state, generator, level, memory, trace, multiple=1, wait="all"):
    """The best designs against each other on fresh traces, one unit per seed."""
    designs = [chosen(state, trace, scheme, wait, multiple) for scheme in CODED]
    settings = Contest(trace, *designs, batch=multiple * state["batch"], **fields(state, wait, multiple))
    labels = dict(generator=generator, bursts=level, memory=memory, multiple=multiple)
    return [state.simulate(simulate.compete, settings, seed, **labels) for seed in state.seeds(state["seeds"])]


def contests(wait):
    return lambda state: [
        unit for one in (settings_of(state, wait) if wait in state["waits"] else ()) for unit in contest(state, *one, wait=wait)
    ]


def crowded(state):
    return [unit for one in crowds(state) for unit in contest(state, *one)]


STAGES = (
    Stage("search", search, split="tune"),
    Stage("traces", contests("all")),
    Stage("patient", contests("enough")),
    Stage("crowds", crowded),
)


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
    short = frame[(frame["bursts"] == "short") & (frame["wait"] == "all") & (frame["multiple"] == 1)]
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
