"""Sequential gradient coding for straggler mitigation (arXiv:2211.13802).

Work lost to slow workers can be done again a round later, or be coded from the start: which finishes a sequence of jobs first?
At `tiny` 32 workers (and 64, 128) do 60 jobs in three minutes of one core, at `pod` the paper's 256 workers 480 jobs in two hours.
"""

from scaling_jax.studies.claims import Claim
from scaling_jax.studies.figures import curves
from scaling_jax.studies.study import Estimate, Study

from . import stages
from .statistics import BURSTS, CROWD, more_with_bursts, saved_in_crowd, saving, swapped

FREE_WORK = {"slope": 0.0}  # ablation: redundant work costs no time
NO_STRAGGLERS = {"straggle": 0.0}


def faster(text, scheme, over, ablation=None, paper_value=None, **where):
    """The claim that `scheme` finishes all jobs before `over`."""
    return Claim(
        text,
        saving(scheme, over, **where),
        threshold=0,
        side=">",
        exchange=swapped(scheme, over, **where),
        ablation=ablation or FREE_WORK,
        unit="of the time",
        paper_value=paper_value,
        explain=f"share of the time of {over} that {scheme} saves, mean over generators",
    )


CLAIMS = (
    faster("M-SGC finishes before GC where bursts are as short as on a cluster", "M-SGC", "GC", paper_value=0.16),
    faster("SR-SGC finishes before GC", "SR-SGC", "GC"),
    faster("M-SGC finishes before SR-SGC", "M-SGC", "SR-SGC"),
    faster("gradient coding finishes before uncoded work", "GC", "uncoded", NO_STRAGGLERS),
    Claim(
        "the advantage of M-SGC over GC comes from bursts: it is larger with long ones than without",
        more_with_bursts,
        threshold=0,
        side=">",
        exchange=BURSTS,
        ablation={"memories": {"none": 0.0, "short": 0.0, "long": 0.0}},
        unit="of the time",
        explain="share of the time saved with long bursts minus that without bursts, one distribution of single times",
    ),
    faster("M-SGC finishes before GC where bursts are long", "M-SGC", "GC", bursts="long"),
    faster("M-SGC finishes before GC if both wait only until they can decode", "M-SGC", "GC", wait="enough"),
    Claim(
        "M-SGC finishes before GC with several times as many workers too",
        saved_in_crowd,
        threshold=0,
        side=">",
        exchange=CROWD,
        ablation=FREE_WORK,
        unit="of the time",
        explain="share of the time of GC that M-SGC saves with the largest number of workers, short bursts",
    ),
)

STUDY = Study(
    paper="2211.13802",
    title="Sequential gradient coding for straggler mitigation",
    question="When workers are slow for a while: does coding over rounds finish a sequence of gradient jobs before coding within each round?",
    base=None,
    settings=dict(
        workers=32,
        jobs=60,
        models=4,  # of the paper: four networks trained in turn, so a gradient may come three rounds late
        batch=256,
        # Delays as the authors measured them on AWS Lambda (256 workers, without load): median 0.64 s, the fastest 0.56 s, 5% of the
        # times above twice the fastest, 1% above 2.6 times, 0.1% above 3.2 times; 2.2 s more per unit of load.
        slope=2.2,
        base=0.64,
        jitter=0.05,
        straggle=0.05,
        slow=1.75,
        tail=0.3,
        generators=("gilbert", "slow periods"),
        memories={"none": 0.0, "short": 0.1, "long": 0.5, "very long": 0.8},  # they measured 0.05 to 0.17, by what counts as slow
        mus=(0.1, 0.25, 0.5, 1.0),
        waits=("all", "enough"),
        multiples=(2, 4),  # of the workers, for the same claim in larger crowds
        tuning_seeds=3,
        seeds=10,
        trace_file=None,  # a CSV of seconds, one line per round and one column per worker, in place of the generators
    ),
    stages=stages.STAGES,
    scales={
        "smoke": dict(
            workers=8,
            jobs=8,
            batch=32,
            mus=(1.0,),
            memories={"none": 0.0, "short": 0.1, "long": 0.5},
            multiples=(2,),
            tuning_seeds=1,
            seeds=2,
        ),
        "tiny": {},
        "small": dict(workers=64, jobs=160, batch=1024),
        "pod": dict(workers=256, jobs=480, batch=4096, multiples=()),
    },
    rows=stages.rows,
    notes=stages.notes,
    claims=CLAIMS,
    estimates=(
        Estimate("time M-SGC saves over GC, short bursts", saving("M-SGC", "GC"), "of the time", paper_value=0.16),
        Estimate("time M-SGC saves over GC, no bursts", saving("M-SGC", "GC", bursts="none"), "of the time"),
        *(
            Estimate(f"time M-SGC saves over GC, long bursts, {g}", saving("M-SGC", "GC", bursts="long", generator=g), "of the time")
            for g in ("gilbert", "slow periods")
        ),
        Estimate("time SR-SGC saves over GC, short bursts", saving("SR-SGC", "GC"), "of the time"),
        Estimate("time M-SGC saves over uncoded work, short bursts", saving("M-SGC", "uncoded"), "of the time"),
    ),
    figures=tuple(
        curves(
            f"Seconds per job, {generator}",
            x="memory",
            y="seconds_per_job",
            by="scheme",
            where={"generator": generator, "wait": "all", "multiple": 1},
            x_label="correlation of one round with the next",
            y_label="seconds per job",
            x_log=False,
            claims=(1, 2, 3, 4, 6),
            caption="Each scheme at the design chosen for these traces on tuning seeds; one distribution of single times, ever longer bursts.",
        )
        for generator in ("gilbert", "slow periods")
    )
    + (
        curves(
            "Time saved against gradient coding",
            x="memory",
            y="saved_against_gc",
            by="generator",
            where={"scheme": "M-SGC", "wait": "all", "multiple": 1},
            x_label="correlation of one round with the next",
            y_label="share of the time of GC that M-SGC saves",
            x_log=False,
            claims=(1, 5, 6),
            caption="Above zero M-SGC is faster. The paper reports 0.16 on AWS Lambda, where that correlation was 0.05 to 0.17.",
        ),
        curves(
            "Time saved with more workers",
            x="workers",
            y="saved_against_gc",
            by=("scheme", "generator"),
            where={"scheme": ("SR-SGC", "M-SGC"), "wait": "all", "bursts": "short"},
            x_label="workers",
            y_label="share of the time of GC saved",
            claims=(1, 2, 8),
            caption="Short bursts. The more workers there are, the more often one is slow twice within a window, and the master waits for all.",
        ),
    ),
)
