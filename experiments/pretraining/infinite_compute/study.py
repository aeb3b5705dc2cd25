"""Pre-training under infinite compute (arXiv:2509.14786).

With a fixed amount of data and no limit on compute: how far do epochs, weight decay, size and ensembles go?
At `tiny` the data are 12k bytes of the Python standard library's own sources and N runs from 6k to 80k.
"""

from scaling_jax.laws import forms
from scaling_jax.studies.claims import Claim, permute
from scaling_jax.studies.figures import curves, optimum, trajectories
from scaling_jax.studies.study import Estimate, Law, Stage, Study

from . import stages, statistics

NO_REPEATS = {"repeat": False}
USUAL_DECAY = {"decays": (statistics.USUAL,)}
NO_TEAM = {"average": "losses"}
K_MATTERS = permute("members", where={"stage": "ensembles", "best_team": 1}, text="numbers of members among all teams of one size")

CLAIMS = (
    Claim(
        "at weight decay 0.1, epochs tuned, the largest model is worse than a smaller one",
        statistics.bigger_is_worse,
        threshold=0,
        side=">",
        exchange=statistics.exchanged_sizes("standard"),
        ablation=NO_REPEATS,
        unit="nats/token",
        paper_value=3.76432 - 3.74974,
        explain="loss of the largest minus that of the best smaller size",
    ),
    Claim(
        "the best weight decay at the largest size is more than four times the usual 0.1",
        statistics.strong_decay_gain,
        threshold=0,
        side=">",
        exchange=statistics.EXCHANGED_DECAYS,
        ablation=NO_REPEATS,
        unit="nats/token",
        explain="lowest loss at decays up to 0.4 minus that at the decay above which tuning prefers",
    ),
    Claim(
        "with decay tuned, the largest model is the best",
        statistics.bigger_helps,
        threshold=0,
        side=">",
        exchange=statistics.exchanged_sizes("regularized"),
        ablation=USUAL_DECAY,
        unit="nats/token",
        explain="loss of the best smaller size minus that of the largest",
    ),
    Claim(
        "ever more models of one size end lower than one ever larger model",
        statistics.limit_gap,
        threshold=0,
        side=">",
        exchange=K_MATTERS,
        ablation=NO_TEAM,
        unit="nats/token",
        paper_value=3.43 - 3.27,
        explain="limit in N of single models minus limit in K of a team",
    ),
    Claim(
        "a team of small models beats one large model of as many parameters",
        statistics.team_against_single,
        threshold=0,
        side=">",
        exchange=statistics.LONE_OR_TEAM,
        ablation=NO_TEAM,
        unit="nats/token",
        explain="loss of the largest single model minus that of the team",
    ),
    Claim(
        "past its own optimum (twice the epochs, half the decay) a model alone is worse",
        statistics.heavy_alone,
        threshold=0,
        side=">",
        exchange=permute("recipe", within="seed", where={"stage": "ensembles", "recipe": ("tuned member", "heavy member")}),
        ablation={"heavier": (1, 1.0)},
        unit="nats/token",
        explain="loss of such a model minus that of a tuned one",
    ),
    Claim(
        "past its own optimum a model is better in a team of four",
        statistics.heavy_together,
        threshold=0,
        side=">",
        exchange=statistics.SwapMembers(),
        ablation={"heavier": (1, 1.0)},
        unit="nats/token",
        explain="loss of a team of tuned models minus that of a team of such models",
    ),
    Claim(
        "the joint limit in size and team uses the data better than the standard recipe",
        statistics.efficiency,
        threshold=1,
        side=">",
        exchange=permute("members", within="size", where={"recipe": "joint team"}),
        ablation={**USUAL_DECAY, **NO_TEAM},
        unit="times",
        paper_value=5.17,
        explain="tokens the standard recipe would need, over the tokens used",
    ),
)


def width(value):
    """A size of the `tiny` family: heads of 16, or one head where that does not divide."""
    return {"model.width": value, "model.heads": value // 16 if value % 16 == 0 else 1}


def paper_size(hidden, ffn, heads, kv_heads, layers):
    """A size of the paper, untied, with the Llama 3 vocabulary."""
    return {"model.width": hidden, "model.mlp_width": ffn, "model.heads": heads, "model.kv_heads": kv_heads, "model.layers": layers}


STUDY = Study(
    paper="2509.14786",
    title="Pre-training under infinite compute",
    question="When data run out and compute does not: how far do epochs, weight decay, size and ensembles go?",
    base="tiny",
    settings=dict(
        tokens=12_288,
        sizes={f"{w}": width(w) for w in (8, 16, 24, 32, 48)},
        epochs=(4, 8, 16, 32, 64),
        decays=(0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4),
        rates=(1e-2,),
        start={"standard": {"epochs": 8}, "regularized": {"epochs": 16, "decay": 0.8}},
        published=False,
        tuning_seeds=2,
        seeds=5,
        sweep=(0.1, 0.4, 0.8, 1.6, 3.2, 6.4),
        sweep_sizes=("16", "48"),
        ensemble_size="24",
        members=8,
        teams=20,
        heavier=(2, 0.5),
        average="logits",
        repeat=True,
        budgets=(24_576, 49_152, 98_304),
        budget_sizes=("24", "32", "48"),
        joint_members=5,
    ),
    stages=(
        stages.tune("standard"),
        stages.tune("regularized"),
        Stage("sizes", stages.sizes),
        Stage("decays", stages.decays),
        Stage("tune_members", stages.tune_members, split="tune"),
        Stage("ensembles", stages.ensembles),
        Stage("tune_budgets", stages.tune_budgets, split="tune"),
        Stage("budgets", stages.budgets),
        Stage("joint", stages.joint),
    ),
    scales={
        "smoke": dict(
            tokens=1_024,
            sizes={"16": width(16)},
            epochs=(1, 2),
            decays=(0.1, 0.8),
            start={"standard": {"epochs": 1}, "regularized": {"epochs": 1, "decay": 0.8}},
            tuning_seeds=1,
            seeds=1,
            sweep=(0.1, 0.8),
            sweep_sizes=("16",),
            ensemble_size="16",
            members=2,
            budgets=(2_048,),
            budget_sizes=("16",),
            joint_members=2,
            **{
                "data.source": "markov",
                "data.vocab": 32,
                "data.synthetic.tokens": 20_000,
                "data.synthetic.held_out": 2_000,
                "data.sequence": 16,
                "data.eval_sequences": 32,
                "model.layers": 1,
            },
        ),
        "tiny": {},
        "small": dict(
            tokens=1_048_576,
            sizes={f"{w}": {"model.width": w, "model.heads": w // 64} for w in (128, 192, 256, 384, 512)},
            rates=(1e-3, 3e-3),
            sweep_sizes=("128", "512"),
            ensemble_size="192",
            budgets=(2_097_152,),
            budget_sizes=("192", "256", "384"),
            **{
                "data.tokenizer": "bpe",
                "data.vocab": 4096,
                "data.sequence": 256,
                "data.batch": 32,
                "model.layers": 6,
                "model.dtype": "bfloat16",
            },
        ),
        "pod": dict(
            tokens=209_715_200,
            sizes={
                "150M": paper_size(512, 1792, 8, 8, 6),
                "300M": paper_size(768, 2688, 12, 12, 12),
                "600M": paper_size(1024, 3584, 16, 8, 24),
                "1.4B": paper_size(2048, 7168, 16, 8, 16),
            },
            published=True,
            tuning_seeds=1,
            sweep_sizes=("150M", "1.4B"),
            ensemble_size="300M",
            budgets=(419_430_400, 838_860_800, 1_677_721_600),
            budget_sizes=("150M", "300M", "600M", "1.4B"),
            **{
                "data.source": "file",
                "data.dtype": "uint32",
                "data.document_tokens": 131_072,
                "data.vocab": 128_256,
                "data.sequence": 4096,
                "data.batch": 64,
                "data.eval_sequences": 1024,
                "train.accumulate": 32,
                "model.dtype": "bfloat16",
                "model.scan_layers": True,
                "model.remat": True,
                "schedule.warmup": 0.01,
                "train.evaluate_every": 1000,
            },
        ),
    },
    rows=stages.rows,
    notes=stages.notes,
    claims=CLAIMS,
    estimates=(
        Estimate("best weight decay at the largest size, over the usual 0.1", statistics.best_decay_ratio, "times", paper_value=32.0),
        Estimate(
            "best weight decay at the smaller size swept, over the usual 0.1",
            lambda data: statistics.best_decay_ratio(data, min),
            "times",
            paper_value=8.0,
        ),
        Estimate("limit in N of single models, decay tuned", statistics.single_limit, "nats/token", paper_value=3.43),
        Estimate("limit in K of teams of one size", statistics.ensemble_limit, "nats/token", paper_value=3.273),
        Estimate("joint limit in N and K", statistics.joint_limit, "nats/token", paper_value=3.169),
    ),
    laws=(
        Law("single models", forms.power, "params", {"stage": "sizes", "recipe": "regularized"}),
        Law(
            "teams",
            forms.ensemble,
            "members",
            {"stage": "ensembles", "recipe": ("tuned team", "heavy team"), "average": "as claimed"},
            by="recipe",
        ),
    ),
    figures=(
        curves(
            "Loss against size",
            x="params",
            by="recipe",
            where={"stage": "sizes"},
            claims=(1, 3),
            caption="Each point is a size at its tuned epochs; the band is the 95% interval over seeds, the dots are the seeds.",
        ),
        optimum(
            "Loss against weight decay",
            x="weight_decay",
            by="params",
            where={"recipe": "decay sweep"},
            claims=(2,),
            caption="A small and the largest size, each at its tuned epochs; a mark is the minimum of a parabola in log decay.",
        ),
        curves(
            "Loss against team size",
            x="members",
            by="recipe",
            where={"stage": "ensembles", "recipe": ["tuned team", "heavy team"], "average": "as claimed"},
            form=forms.ensemble,
            level="C",
            claims=(4, 5, 6, 7),
            caption="Logits averaged over K models of one size; each dot is a team, the band leaves out one model at a time.",
        ),
        trajectories(
            "Training loss over epochs",
            by=("recipe", "size"),
            where={"extreme": 1},
            claims=(1, 3),
            caption="The smallest and the largest size. One epoch is one pass over the same unique tokens.",
        ),
    ),
)
