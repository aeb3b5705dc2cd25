"""Pre-training under infinite compute (arXiv:2509.14786).

With a fixed amount of data and no limit on compute: how far do epochs, weight decay, size and ensembles go?
At `tiny` the data are 12k bytes of the Python standard library's own sources and N runs from 7k to 80k.
"""

import csv
import functools
import math
from dataclasses import dataclass
from pathlib import Path

from scaling_jax.inference.ensemble import all_teams
from scaling_jax.laws import fit, forms
from scaling_jax.laws.fit import NotTestable
from scaling_jax.studies import tuning
from scaling_jax.studies.claims import Claim, permute
from scaling_jax.studies.figures import curves, optimum, trajectories
from scaling_jax.studies.study import Estimate, Law, Stage, Study, standard_rows
from scaling_jax.studies.units import EnsembleConfig, score

USUAL = 0.1  # the weight decay of standard practice
RECIPES = ("standard", "regularized")  # epochs tuned at the usual decay; epochs and decay tuned


# --- points: one training run of this study ------------------------------------------------------------------


def run(state, size, point, seed, tokens=None, **labels):
    """The unit that trains `size` at `point` (epochs, decay, rate) on `tokens` unique tokens; labelled by size and recipe."""
    tokens = tokens or state["tokens"]
    epochs = point["epochs"]
    if not state["repeat"]:  # ablation: as many steps, on fresh tokens
        tokens, epochs = int(tokens * epochs), 1
    overrides = {
        **state["sizes"][size],
        "data.unique_tokens": tokens,
        "train.epochs": float(epochs),
        "optimizer.weight_decay": point["decay"],
        "optimizer.learning_rate": point["rate"],
        "seed": seed,
    }
    return state.run(overrides, size=size, **labels)


def descent(state, size, recipe, tokens=None):
    """Coordinate descent of one size and recipe over (epochs, decay, rate) on the tune split."""
    state, tokens = state.on("tune"), tokens or state["tokens"]
    axes = {"epochs": state["epochs"], "decay": (USUAL,) if recipe == "standard" else state["decays"], "rate": state["rates"]}
    known = lambda point: [state.loss(run(state, size, point, seed, tokens)) for seed in state.seeds(state["tuning_seeds"])]
    losses = lambda point: None if None in known(point) else known(point)
    if state["published"]:  # at `pod` the paper's own points are taken as they are
        return tuning.Descent(published()[recipe, size, tokens], (), True, (), ())
    start = {axis: tuning.nearest(values, state["start"][recipe].get(axis)) for axis, values in axes.items()}
    noise = tuning.seed_noise([losses(p) for p in tuning.descend(axes, start, losses).visited if losses(p)])
    return tuning.descend(axes, start, losses, noise)


@functools.cache
def published():
    """(recipe, size, tokens) -> the point the paper's authors settled on."""
    path = Path(__file__).resolve().parents[1] / "published" / "infinite_compute_tuned.csv"
    with open(path, encoding="utf-8") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return {
            (r["recipe"], r["size"], int(r["tokens"])): {"epochs": int(r["epochs"]), "decay": float(r["decay"]), "rate": float(r["rate"])}
            for r in rows
        }


def tuned(state, size, recipe, tokens=None):
    """The point a finished descent settled on; as labels, its mean loss on the tune split and the axes on whose edge it lies."""
    found, view = descent(state, size, recipe, tokens), state.on("tune")
    if state["published"]:
        return found.point, {"edge": "", "tune_loss": math.nan}
    losses = [view.loss(run(view, size, found.point, seed, tokens)) for seed in view.seeds(state["tuning_seeds"])]
    return found.point, {"edge": ",".join(found.edges), "tune_loss": tuning.mean(losses)}


def heavier(state, point):
    """A member's point past its own optimum: twice the epochs, half the decay."""
    more, less = state["heavier"]
    return {**point, "epochs": point["epochs"] * more, "decay": point["decay"] * less}


# --- stages --------------------------------------------------------------------------------------------------


def tune(recipe):
    """Tunes every size of `recipe` at the main budget."""
    return Stage(f"tune_{recipe}", lambda state: _tuning(state, recipe, state["sizes"], (state["tokens"],)), split="tune")


def tune_budgets(state):
    """Tunes the standard recipe at the other budgets."""
    return _tuning(state, "standard", state["budget_sizes"], state["budgets"])


def _tuning(state, recipe, sizes, budgets):
    units = []
    for tokens in budgets:
        for size in sizes:
            for point in descent(state, size, recipe, tokens).visited:
                units += [run(state, size, point, seed, tokens, recipe=recipe) for seed in state.seeds(state["tuning_seeds"])]
    return units


def sizes(state):
    """Every size at its tuned point, both recipes, fresh seeds."""
    out = []
    for recipe in RECIPES:
        for size in state["sizes"]:
            point, flags = tuned(state, size, recipe)
            out += [run(state, size, point, seed, recipe=recipe, **flags) for seed in state.seeds(state["seeds"])]
    return out


def decays(state):
    """The largest size at its tuned epochs, over all decays, fresh seeds."""
    size = list(state["sizes"])[-1]
    point, _ = tuned(state, size, "regularized")
    return [
        run(state, size, {**point, "decay": decay}, seed, recipe="decay sweep")
        for decay in state["sweep"]
        for seed in state.seeds(state["seeds"])
    ]


def tune_members(state):
    """Which members make the better team: tuned ones, or ones past their own optimum; settled on the tune split."""
    usual, heavy = (members(state, state["ensemble_size"], recipe, state["tuning_seeds"]) for recipe in ("tuned", "heavy"))
    return [*usual, *heavy, _contest(state, usual, heavy)]


def members(state, size, recipe, count):
    """`count` runs of a size, "tuned" alone or "heavy": past their own optimum."""
    point = descent(state, size, "regularized").point
    point = heavier(state, point) if recipe == "heavy" else point
    return [run(state, size, point, seed, recipe=f"{recipe} member") for seed in state.seeds(count)]


def better_members(state):
    """The recipe whose team won on the tune split; at `pod` the paper's."""
    if state["published"]:
        return "heavy"
    state = state.on("tune")
    usual, heavy = (members(state, state["ensemble_size"], recipe, state["tuning_seeds"]) for recipe in ("tuned", "heavy"))
    losses = state.team_losses(_contest(state, usual, heavy))
    return "heavy" if losses[1] < losses[0] else "tuned"


def _contest(state, usual, heavy):
    count = len(usual)
    return score(EnsembleConfig(state["average"], "tune", (tuple(range(count)), tuple(range(count, 2 * count)))), [*usual, *heavy])


def ensembles(state):
    """Teams of one size: tuned members, members past their own optimum, and mixed teams of four for the null."""
    size, count = state["ensemble_size"], state["members"]
    usual, heavy = (members(state, size, recipe, count) for recipe in ("tuned", "heavy"))
    pure = [*all_teams(count, most=state["teams"]), *cyclic(count)]
    mixed = [tuple(slot + count * (mix >> i & 1) for i, slot in enumerate(team)) for team in cyclic(count) for mix in range(1, 15)]
    every = dict.fromkeys([*pure, *[tuple(slot + count for slot in team) for team in pure], *mixed])
    rows = dict.fromkeys(tuple(range(first, first + k)) for first in (0, count) for k in range(1, count + 1))
    labels = {"size": size, "better": f"{better_members(state)} team"}
    return [
        *usual,
        *heavy,
        score(EnsembleConfig(state["average"], teams=tuple(every)), [*usual, *heavy], average="as claimed", **labels),
        score(EnsembleConfig("probabilities", teams=tuple(rows)), [*usual, *heavy], average="probabilities", **labels),
    ]


def cyclic(count):
    """Teams of four in which every slot appears equally often: {i, i+1, i+2, i+4} modulo count."""
    return [tuple(sorted((i + step) % count for step in (0, 1, 2, 4))) for i in range(count)] if count >= 5 else []


def budgets(state):
    """The standard recipe, tuned, at the other budgets."""
    out = []
    for tokens in state["budgets"]:
        for size in state["budget_sizes"]:
            point, flags = tuned(state, size, "standard", tokens)
            out += [run(state, size, point, seed, tokens, recipe="standard", **flags) for seed in state.seeds(state["seeds"])]
    return out


def joint(state):
    """Teams at every size, of the members that won the contest: the limit in K, then in N."""
    out, count, recipe = [], state["joint_members"], better_members(state)
    for size in state["sizes"]:
        team = members(state, size, recipe, count)
        out += [
            *team,
            score(
                EnsembleConfig(state["average"], teams=tuple(all_teams(count))), team, size=size, average="as claimed", recipe="joint team"
            ),
        ]
    return out


def rows(unit, metrics, runs):
    """The standard columns; of a team also its slots (seeds) and which of them hold heavy members, as bit masks."""
    out = standard_rows(unit, metrics, runs)
    if unit.kind == "score" and "recipe" not in unit.label:
        count = len(unit.parents) // 2
        for row in out:
            row["slots"] = sum(1 << i % count for i in row["team"])
            row["heavy"] = sum(1 << i - count for i in row["team"] if i >= count)
            row["recipe"] = {0: "tuned team", row["slots"]: "heavy team"}.get(row["heavy"], "mixed team")
            row["best_team"] = int(row["recipe"] == row.pop("better") and row["average"] == "as claimed")
    return [{"slots": 0, "heavy": 0, "best_team": 0, "tune_loss": math.nan, "edge": "", "average": "", **row} for row in out]


# --- statistics ----------------------------------------------------------------------------------------------


def largest_against_best(data, recipe):
    """Test loss of the largest size minus that of the best smaller one, best on the tune split."""
    part = data.where(stage="sizes", recipe=recipe)
    loss, chosen = part.by("params"), part.by("params", "tune_loss")
    if len(loss) < 2:
        raise NotTestable(f"one size trained with the {recipe} recipe, the comparison needs two")
    return loss.iloc[-1] - loss[chosen.iloc[:-1].idxmin()]


def bigger_is_worse(data):
    """Largest minus best smaller, decay 0.1."""
    return largest_against_best(data, "standard")


def bigger_helps(data):
    """Best smaller minus largest, decay tuned."""
    return -largest_against_best(data, "regularized")


def strong_decay_gain(data):
    """Lowest mean loss at a decay of up to four times the usual, minus the lowest above."""
    means = data.where(recipe="decay sweep").by("weight_decay")
    weak, strong = means[means.index <= 4.01 * USUAL], means[means.index > 4.01 * USUAL]
    if not len(weak) or not len(strong):
        raise NotTestable("the decay sweep has no value on one side of 0.4")
    return weak.min() - strong.min()


def best_decay_ratio(data):
    """Decay at the minimum of a parabola in log decay through the lowest mean and two either side, over the usual decay."""
    return fit.parabola_minimum(data.where(recipe="decay sweep").by("weight_decay")) / USUAL


def single_limit(data):
    """E of L(N) = E + A / N^alpha, decay tuned."""
    return fit.fit(forms.power, data.where(stage="sizes", recipe="regularized").by("params"))["E"]


def ensemble_limit(data):
    """C of L(K) = C + A / K^b, teams of one size."""
    return fit.fit(forms.ensemble, data.where(stage="ensembles", best_team=1).by("members"))["C"]


def limit_gap(data):
    """Single-model limit in N minus the limit in K at one size."""
    return single_limit(data) - ensemble_limit(data)


def team_against_single(data):
    """Largest single model minus a team of the small size with at most as many parameters in all."""
    single = data.where(stage="sizes", recipe="regularized")
    return single.where(params=single["params"].max()).mean() - data.where(stage="ensembles", best_team=1, members=matching(data)).mean()


def matching(data):
    """Members of the small size that together have at most the parameters of the largest single model."""
    single, teams = data.where(stage="sizes", recipe="regularized"), data.where(stage="ensembles", best_team=1)
    if not len(teams) or not len(single):
        raise NotTestable("no team or no single model yet")
    count = int(single["params"].max() // teams["params"].min())
    if count < 2:
        raise NotTestable("the largest model is not twice the size of a team's members")
    return count


@dataclass(frozen=True)
class LoneOrTeam:
    """The null of `team_against_single`: a team of that many members might as well be one of them."""

    def describe(self):
        return "lone members and teams of equal total size"

    def arrangements(self, data):
        return self._permute(data).arrangements(data)

    def __call__(self, data, rng):
        return self._permute(data)(data, rng)

    def _permute(self, data):
        return permute("members", where={"stage": "ensembles", "best_team": 1, "members": (1, matching(data))})


def heavy_alone(data):
    """A heavy member alone minus a tuned one."""
    return data.where(recipe="heavy member", stage="ensembles").mean() - data.where(recipe="tuned member").mean()


def heavy_together(data):
    """Teams of four tuned members minus the same teams of heavy ones, every seed equally often."""
    teams = data.where(stage="ensembles", average="as claimed", members=4)
    slots, heavy, loss = teams["slots"], teams["heavy"], teams["loss"]
    full = {s for s in set(slots.tolist()) if (slots == s).sum() == 16}
    if not full:
        raise NotTestable("no team of four with all its mixtures; needs five members or more")
    balanced = [s in full for s in slots.tolist()]
    return float(loss[balanced & (heavy == 0)].mean() - loss[balanced & (heavy == slots)].mean())


@dataclass(frozen=True)
class SwapMembers:
    """The null of `heavy_together`: in every seed the tuned and the heavy member might as well be exchanged, in all teams at once."""

    def describe(self):
        return "tuned and heavy member of each seed"

    def arrangements(self, data):
        return 2 ** int(max(data["slots"], default=0)).bit_length()

    def __call__(self, data, rng):
        swapped = int(rng.integers(self.arrangements(data)))
        return data.replace("heavy", data["heavy"] ^ (swapped & data["slots"]))


def efficiency(data):
    """Tokens at which the standard recipe would reach the joint limit, over the tokens used."""
    standard = data.where(stage=["sizes", "budgets"], recipe="standard")
    if not len(standard):
        raise NotTestable("the standard recipe was not trained")
    best = {}
    for tokens in sorted(set(standard["tokens"].tolist())):
        part = standard.where(tokens=tokens)
        best[tokens] = part.by("params")[part.by("params", "tune_loss").idxmin()]
    law = fit.fit(forms.data_power, {"tokens": list(best), "loss": list(best.values())})
    return forms.data_efficiency(law, joint_limit(data)) / min(best)


def joint_limit(data):
    """lim_N lim_K of the loss: C of each size's teams, then E over sizes."""
    teams = data.where(recipe="joint team")
    limits = {params: fit.fit(forms.ensemble, teams.where(size=size).by("members"))["C"] for params, size in _alone(teams)}
    return fit.fit(forms.power, {"params": list(limits), "loss": list(limits.values())})["E"]


def _alone(teams):
    """(parameters of one member, size) of every size."""
    return sorted({(int(p / m), s) for p, m, s in zip(teams["params"], teams["members"], teams["size"], strict=True)})


# --- the study -----------------------------------------------------------------------------------------------

NO_REPEATS = {"repeat": False}
USUAL_DECAY = {"decays": (USUAL,)}
NO_TEAM = {"average": "losses"}
K_MATTERS = permute("members", where={"stage": "ensembles", "best_team": 1})

CLAIMS = (
    Claim(
        "at weight decay 0.1, epochs tuned, the largest model is worse than a smaller one",
        bigger_is_worse,
        threshold=0,
        side=">",
        exchange=permute("params", where={"stage": "sizes", "recipe": "standard"}),
        ablation=NO_REPEATS,
        unit="nats/token",
        paper_value=3.76432 - 3.74974,
        explain="loss of the largest minus that of the best smaller size",
    ),
    Claim(
        "the best weight decay at the largest size is more than four times the usual 0.1",
        strong_decay_gain,
        threshold=0,
        side=">",
        exchange=permute("weight_decay", within="seed", where={"recipe": "decay sweep"}),
        ablation=NO_REPEATS,
        unit="nats/token",
        explain="lowest loss at decays up to 0.4 minus the lowest above",
    ),
    Claim(
        "with decay tuned, the largest model is the best",
        bigger_helps,
        threshold=0,
        side=">",
        exchange=permute("params", where={"stage": "sizes", "recipe": "regularized"}),
        ablation=USUAL_DECAY,
        unit="nats/token",
        explain="loss of the best smaller size minus that of the largest",
    ),
    Claim(
        "ever more models of one size end lower than one ever larger model",
        limit_gap,
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
        team_against_single,
        threshold=0,
        side=">",
        exchange=LoneOrTeam(),
        ablation=NO_TEAM,
        unit="nats/token",
        explain="loss of the largest single model minus that of the team",
    ),
    Claim(
        "past its own optimum (twice the epochs, half the decay) a model alone is worse",
        heavy_alone,
        threshold=0,
        side=">",
        exchange=permute("recipe", within="seed", where={"stage": "ensembles", "recipe": ("tuned member", "heavy member")}),
        ablation={"heavier": (1, 1.0)},
        unit="nats/token",
        explain="loss of such a model minus that of a tuned one",
    ),
    Claim(
        "past its own optimum a model is better in a team of four",
        heavy_together,
        threshold=0,
        side=">",
        exchange=SwapMembers(),
        ablation={"heavier": (1, 1.0)},
        unit="nats/token",
        explain="loss of a team of tuned models minus that of a team of such models",
    ),
    Claim(
        "the joint limit in size and team uses the data better than the standard recipe",
        efficiency,
        threshold=1,
        side=">",
        exchange=permute("members", within="params_body", where={"recipe": "joint team"}),
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
        seeds=4,
        sweep=(0.1, 0.4, 0.8, 1.6, 3.2, 6.4),
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
        tune("standard"),
        tune("regularized"),
        Stage("sizes", sizes),
        Stage("decays", decays),
        Stage("tune_members", tune_members, split="tune"),
        Stage("ensembles", ensembles),
        Stage("tune_budgets", tune_budgets, split="tune"),
        Stage("budgets", budgets),
        Stage("joint", joint),
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
            seeds=3,
            ensemble_size="300M",
            budgets=(419_430_400, 838_860_800, 1_677_721_600),
            budget_sizes=("150M", "300M", "600M", "1.4B"),
            **{
                "data.source": "file",
                "data.dtype": "uint32",
                "data.vocab": 128_256,
                "data.sequence": 4096,
                "data.batch": 64,
                "data.eval_sequences": 1024,
                "model.dtype": "bfloat16",
                "model.scan_layers": True,
                "model.remat": True,
                "schedule.warmup": 0.01,
                "train.evaluate_every": 1000,
            },
        ),
    },
    rows=rows,
    claims=CLAIMS,
    estimates=(
        Estimate("best weight decay at the largest size, over the usual 0.1", best_decay_ratio, "times", paper_value=32.0),
        Estimate("limit in N of single models, decay tuned", single_limit, "nats/token", paper_value=3.43),
        Estimate("limit in K of teams of one size", ensemble_limit, "nats/token", paper_value=3.273),
        Estimate("joint limit in N and K", joint_limit, "nats/token", paper_value=3.169),
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
            caption="The largest size at its tuned epochs; the mark is the minimum of a parabola in log decay.",
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
            where={"stage": "sizes", "size": ["8", "48"]},
            claims=(1, 3),
            caption="One epoch is one pass over the same unique tokens.",
        ),
    ),
)
