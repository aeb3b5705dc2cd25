"""Infinite compute, what is measured: the statistics of its claims and estimates, and the exchanges that are its own."""

from dataclasses import dataclass

import numpy as np

from scaling_jax.laws import derived, fitting, forms
from scaling_jax.laws.form import NotTestable
from scaling_jax.studies import tuning
from scaling_jax.studies.claims import permute

USUAL = 0.1  # the weight decay of standard practice
WEAK = 4.01 * USUAL  # decays up to here are of its order


def compared(data, recipe):
    """Parameters of the best smaller size, best on the tune split, and of the largest."""
    chosen = data.where(stage="sizes", recipe=recipe).by("params", "tune_loss")
    if len(chosen) < 2:
        raise NotTestable(f"one size trained with the {recipe} recipe, the comparison needs two")
    return chosen.iloc[:-1].idxmin(), chosen.index[-1]


def largest_against_best(data, recipe):
    """Test loss of the largest size minus that of the best smaller one."""
    part = data.where(stage="sizes", recipe=recipe)
    best, largest = compared(data, recipe)
    return part.where(params=largest).mean() - part.where(params=best).mean()


def exchanged_sizes(recipe):
    """The null of `largest_against_best`: the runs of the two sizes compared might as well be exchanged.

    The smaller one was chosen on the tune split, so the choice is no part of chance. All other sizes stay where they are: they
    differ by far more than seeds do, and would make chance look wide.
    """
    return permute(
        "params",
        where=lambda data: {"stage": "sizes", "recipe": recipe, "params": compared(data, recipe)},
        moves="loss",
        text=f"runs of the largest and of the best smaller size, {recipe} recipe",
    )


def bigger_is_worse(data):
    """Largest minus best smaller, decay 0.1."""
    return largest_against_best(data, "standard")


def bigger_helps(data):
    """Best smaller minus largest, decay tuned."""
    return -largest_against_best(data, "regularized")


def decay_sweep(data, of=max):
    """Mean loss by weight decay, at the largest (or smallest) size swept."""
    part = data.where(recipe="decay sweep")
    if not len(part):
        raise NotTestable("no decay was swept yet")
    return part.where(params=of(part["params"])).by("weight_decay")


def strong_decay(data):
    """The decay above four times the usual that is nearest to the tuned one, at the largest size swept."""
    part = data.where(recipe="decay sweep")
    if not len(part):
        raise NotTestable("no decay was swept yet")
    part = part.where(params=part["params"].max())
    strong = sorted({v for v in part["weight_decay"].tolist() if v > WEAK})
    if not strong or len(strong) == len(set(part["weight_decay"].tolist())):
        raise NotTestable(f"the decay sweep has no value on one side of {4 * USUAL:g}")
    return tuning.nearest(strong, float(part["tuned_decay"][0]))


def strong_decay_gain(data):
    """Lowest mean loss at a decay of up to four times the usual, minus that at the strong one chosen on tune, at the largest size."""
    chosen, means = strong_decay(data), decay_sweep(data)
    return means[means.index <= WEAK].min() - means[chosen]


def _decays_compared(data):
    means, swept = decay_sweep(data), data.where(recipe="decay sweep")
    weak = means[means.index <= WEAK].idxmin()
    return {"recipe": "decay sweep", "params": swept["params"].max(), "weight_decay": (weak, strong_decay(data))}


# The null of `strong_decay_gain`. The best weak decay is chosen on test, which can only lower the gain; the strong one on tune.
EXCHANGED_DECAYS = permute("weight_decay", where=_decays_compared, moves="loss", text="runs of the strong decay and of the best weak one")


def best_decay_ratio(data, of=max):
    """Decay at the minimum of a parabola in log decay through the lowest mean and two either side, over the usual decay."""
    return derived.parabola_minimum(decay_sweep(data, of)) / USUAL


def single_limit(data):
    """E of L(N) = E + A / N^alpha, decay tuned."""
    return fitting.fit(forms.power, data.where(stage="sizes", recipe="regularized").by("params"))["E"]


def ensemble_limit(data):
    """C of L(K) = C + A / K^b, teams of one size."""
    return fitting.fit(forms.ensemble, data.where(stage="ensembles", best_team=1).by("members"))["C"]


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


# The null of `team_against_single`: a team of that many members might as well be one of them.
LONE_OR_TEAM = permute(
    "members",
    where=lambda data: {"stage": "ensembles", "best_team": 1, "members": (1, matching(data))},
    text="lone members and teams of equal total size",
)


def heavy_alone(data):
    """A heavy member alone minus a tuned one."""
    part = data.where(stage="ensembles")  # the joint stage trains members of every size
    return part.where(recipe="heavy member").mean() - part.where(recipe="tuned member").mean()


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

    def every(self, data):
        return (self._swapped(data, slots) for slots in range(self.arrangements(data)))

    def __call__(self, data, rng):
        return self._swapped(data, int(rng.integers(self.arrangements(data))))

    def _swapped(self, data, slots):
        return data.replace("heavy", data["heavy"] ^ (slots & data["slots"]))


def efficiency(data):
    """Tokens at which the standard recipe would reach the joint limit, over the tokens used."""
    standard = data.where(stage=["sizes", "budgets"], recipe="standard")
    if not len(standard):
        raise NotTestable("the standard recipe was not trained")
    best = {}
    for tokens in sorted(set(standard["tokens"].tolist())):
        part = standard.where(tokens=tokens)
        best[tokens] = part.by("params")[part.by("params", "tune_loss").idxmin()]
    law = fitting.fit(forms.data_power, {"tokens": list(best), "loss": list(best.values())})
    return derived.data_efficiency(law, joint_limit(data)) / min(best)


def joint_limit(data):
    """lim_N lim_K of the loss: C of each size's teams, then E over sizes."""
    return joint_law(data.where(recipe="joint team"))["E"]


def joint_law(teams):
    """The power law in N through the limits in K; `teams` has columns size, params, members, loss."""
    size, params = np.asarray(teams["size"]), np.asarray(teams["params"], float)
    alone = {one: params[size == one].min() for one in dict.fromkeys(size.tolist())}  # parameters of a team of one
    return derived.joint_limit({"params": [alone[one] for one in size.tolist()], "members": teams["members"], "loss": teams["loss"]})[1]
