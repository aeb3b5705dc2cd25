"""A known floor: does the loss law of models trained on text of known entropy end where the entropy is? (Ours, no paper.)

This tests the laboratory itself: text, evaluation, training, fit and interval meet in one number that is known beforehand, the loss of
the text's own generator on the windows that models are tested on.

At `tiny` (six seeds, models of 14.7k parameters, 33k to 524k tokens) the law in data ends 0.02% [-0.02, 0.07] above the floor of a
first-order chain and 0.09% [0.02, 0.17] above that of a hidden Markov text; the best models lie 0.14% and 0.18% above it, none below. Laws
without a floor, or with one 2% too high, predict the most tokens worse.

"Within half a percent" is not "covered": the 95% profile interval covers on the chain (and for 5 of 6 single seeds), but on the hidden
Markov text it lies 0.03% to 0.13% above the floor (3 of 6 single seeds cover). No power law is exact there: with three times the tokens a
run on the tune split still falls, to 0.15% above the floor, and to 0.11% with a second layer.

The joint law in size and data fails: its floor is 6.9% [4.4, 9.3] too low, and it is the wrong law for this text. The chain's table has full
rank, 32: a model of width 32 can hold it and narrower ones cannot, so the excess falls ever more steeply with size, faster than any power of
N (slope -0.43 [-0.55, -0.32] steeper between the two largest sizes than between the two smallest). Its interval takes the law as
true and does not cover. On a second-order chain models rest at the entropy of shorter contexts first; no power law in data has that shape,
the fitted floor is 0, and no claim is made.

A first run with equal weights and four seeds left the first claim undecided, 0.38% [-3.4, 4.2]: seeds differ by a share of the excess, and a
slow start of one short run moved the floor. Tuning seeds on the tune split show the same; since then points are weighted by inverse
variances, and the verdicts above are of languages not seen before, thresholds as they were. That run's joint law was off by 7.4% [4.6, 10.2].
"""

from scaling_jax.studies.claims import Claim
from scaling_jax.studies.study import Estimate, Stage, Study

from . import charts, stages, statistics

WITHIN = 0.5  # percent of the true floor: of the law in data, whose models come within 0.2% of it on the tune split
JOINT_WITHIN = 2.0  # percent, of the law in size and data
SAME_TOKENS = {"same_tokens": True}
FOREIGN = {"foreign": 0.2}

CLAIMS = (
    Claim(
        f"the floor of the law in data lies within {WITHIN}% of the true one, on the first-order chain and on the hidden Markov text",
        statistics.worst_gap,
        threshold=WITHIN,
        side="<",
        exchange=statistics.TOKENS,
        ablation=SAME_TOKENS,
        unit="% of the true floor",
        explain="the larger |E / true floor - 1| of the two texts, L = E + B / D^beta at the largest size",
    ),
    Claim(
        f"the floor of the law in size and data lies within {JOINT_WITHIN:g}% of the true one, on the first-order chain",
        statistics.joint_gap,
        threshold=JOINT_WITHIN,
        side="<",
        exchange=statistics.SIZES,
        ablation=SAME_TOKENS,
        unit="% of the true floor",
        explain="|E / true floor - 1|, L = E + A / N^alpha + B / D^beta over all sizes",
    ),
    Claim(
        "no model lies below the true floor",
        statistics.smallest_excess,
        threshold=0,
        side=">",
        exchange=statistics.Mirrored(),
        ablation=FOREIGN,
        unit="% of the true floor",
        explain="smallest mean over seeds of loss / true floor - 1, over texts, sizes and numbers of tokens",
    ),
    Claim(
        "a law without a floor is rejected: it predicts the most tokens worse than one with a fitted floor",
        statistics.gain(0.0),
        threshold=0,
        side=">",
        exchange=statistics.TOKENS,
        ablation=SAME_TOKENS,
        unit="% of the loss",
        explain="mean error with E = 0 minus that with E fitted, at the two largest numbers of tokens",
    ),
    Claim(
        "a floor 2% too high is rejected: it predicts the most tokens worse than the true one",
        statistics.gain(1.02, 1.0),
        threshold=0,
        side=">",
        exchange=statistics.TOKENS,
        ablation=SAME_TOKENS,
        unit="% of the loss",
        explain="mean error with E 2% above the true floor minus that with E at the true floor, at the two largest numbers of tokens",
    ),
)


def width(value, layers=1, heads=1):
    return {"model.width": value, "model.heads": heads, "model.layers": layers}


def chain(vocab, order=1, **more):
    return {"data.source": "markov", "data.vocab": vocab, "data.synthetic.order": order, **more}


def hidden(vocab, states, **more):
    return {
        "data.source": "hidden",
        "data.vocab": vocab,
        "data.synthetic.states": states,
        "data.synthetic.stay": 0.7,
        "data.synthetic.zipf": 1.5,
        **more,
    }


COMMON = {"schedule.name": "cosine", "schedule.warmup": 0.1, "optimizer.weight_decay": 0.0, "data.unique_tokens": None}
COMMON |= {"train.log_every": 1000, "train.checkpoint_every": 100_000}

STUDY = Study(
    paper=None,
    title="A known floor",
    question="Does the loss law of models trained on text of known entropy end at that entropy?",
    base="tiny",
    settings=dict(
        sources={"order 1": chain(32), "order 2": chain(6, 2), "hidden": hidden(32, 4)},
        sizes={
            "order 1": {f"width {w}": width(w) for w in (4, 8, 16, 32)},
            "order 2": {"width 16": width(16)},
            "hidden": {"width 32": width(32)},
        },
        steps=(64, 96, 128, 192, 256, 384, 512, 768, 1024),
        size_steps=(64, 128, 256, 512, 1024),
        tuned=(64, 512),
        rates=(0.0025, 0.005, 0.01, 0.02, 0.04),
        start=0.01,
        tuning_seeds=2,
        seeds=6,
        same_tokens=False,
        foreign=0.0,
    ),
    stages=(
        Stage("tune", stages.tune, split="tune"),
        Stage("data", stages.data),
        Stage("sizes", stages.sizes),
    ),
    scales={
        "smoke": dict(
            sources={"order 1": chain(16, **{"data.synthetic.tokens": 20_000, "data.synthetic.held_out": 2_000})},
            sizes={"order 1": {"width 8": width(8)}},
            steps=(4, 8, 12, 16, 24, 32),
            size_steps=(),
            tuned=(8,),
            rates=(0.01, 0.03),
            start=0.01,
            tuning_seeds=1,
            seeds=2,
            **COMMON,
            **{
                **chain(16),
                "data.synthetic.tokens": 20_000,
                "data.synthetic.held_out": 2_000,
                "data.sequence": 16,
                "data.batch": 8,
                "data.eval_sequences": 64,
            },
        ),
        "tiny": {**COMMON, **chain(32), "data.synthetic.seed": 1, "data.sequence": 32, "data.batch": 16, "data.eval_sequences": 2048},
        "small": dict(
            sources={
                "order 1": chain(128, **{"data.synthetic.tokens": 4_500_000, "data.synthetic.held_out": 600_000}),
                "order 2": chain(12, 2, **{"data.synthetic.tokens": 4_500_000, "data.synthetic.held_out": 600_000}),
                "hidden": hidden(128, 8, **{"data.synthetic.tokens": 4_500_000, "data.synthetic.held_out": 600_000}),
            },
            sizes={
                "order 1": {f"width {w}": width(w) for w in (16, 32, 64, 128)},
                "order 2": {"width 64": width(64, 2, 2)},
                "hidden": {"width 128": width(128, 2, 4)},
            },
            steps=(64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048),
            size_steps=(64, 128, 256, 512, 1024, 2048),
            tuned=(64, 512),
            rates=(0.00125, 0.0025, 0.005, 0.01, 0.02, 0.04),
            start=0.005,
            seeds=8,
            **COMMON,
            **{
                **chain(128),
                "data.synthetic.tokens": 4_500_000,
                "data.synthetic.held_out": 600_000,
                "data.sequence": 64,
                "data.batch": 32,
                "data.eval_sequences": 8192,
            },
        ),
        "pod": dict(
            sources={"order 1": chain(2048, **{"data.synthetic.tokens": 1_000_000_000, "data.synthetic.held_out": 20_000_000})},
            sizes={
                "order 1": {
                    "1M": width(144, 4, 9),
                    "10M": width(288, 10, 9),
                    "60M": width(576, 15, 9),
                    "1B": width(2048, 20, 16),
                }
            },
            steps=(128, 192, 256, 384, 512, 768, 1024, 1536, 2048),
            size_steps=(128, 256, 512, 1024, 2048),
            tuned=(128, 1024),
            rates=(0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008),
            start=0.001,
            seeds=3,
            **COMMON,
            **{
                **chain(2048),
                "data.sequence": 512,
                "data.batch": 512,
                "data.eval_sequences": 8192,
                "train.accumulate": 8,
                "model.dtype": "bfloat16",
                "model.scan_layers": True,
                "model.remat": True,
            },
        ),
    },
    rows=stages.rows,
    notes=stages.notes,
    claims=CLAIMS,
    estimates=(
        *(
            Estimate(f"{source}: fitted floor, all numbers of tokens, minus the true one", statistics.gap(source), "%")
            for source in ("order 1", "hidden", "order 2")
        ),
        Estimate("order 1: fitted floor minus the exact entropy rate, so with the luck of the test windows", statistics.rate_gap, "%"),
        *(
            Estimate(f"{source}: fitted floor without the two largest numbers of tokens, minus the true one", statistics.afar(source), "%")
            for source in ("order 1", "hidden")
        ),
        *(
            Estimate(f"{source}: excess of the largest size at the most tokens", statistics.last_excess(source), "%")
            for source in ("order 1", "hidden", "order 2")
        ),
        Estimate("order 1: floor of the law in size and data, minus the true one", statistics.signed_joint_gap, "%"),
        Estimate("order 1: slope of ln excess in ln N, largest two sizes minus smallest two", statistics.size_steepening),
        *(
            Estimate(f"held-out error, {name}", statistics.error(floor), "%")
            for name, floor in (
                ("floor fitted", None),
                ("true floor", 1.0),
                ("no floor", 0.0),
                ("floor 2% too high", 1.02),
                ("floor 5% too high", 1.05),
                ("floor 2% too low", 0.98),
                ("floor 5% too low", 0.95),
            )
        ),
    ),
    figures=(
        charts.data_law(
            "Excess over the true floor against tokens",
            "Points: means over seeds of the largest size of each text, single runs as dots. Dashes: E + B / D^beta fitted to the means; where "
            "E lies above the true floor they level off, where it lies below they bend down.",
            (1, 3, 4, 5),
        ),
        charts.joint_law(
            "Excess of every size against tokens",
            "The first-order chain. Dashes: E + A / N^alpha + B / D^beta fitted to all points.",
            (2,),
        ),
    ),
)
