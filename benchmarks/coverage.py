"""What the intervals of fitted laws really cover: planted worlds with known truth, at the designs that studies use.

    python benchmarks/coverage.py --worlds 1000 --json benchmarks/results/law_coverage_DATE.json
    python benchmarks/coverage.py --table benchmarks/results/law_coverage_DATE.json      the table of docs/laws.md

A world plants a law, adds noise, fits it as a user would and asks for intervals of 95%. Bootstraps run on the first --resampled worlds
only, with 1000 resamples each; the standard error of every share is sqrt(c (1 - c) / worlds).
"""

import argparse
import collections
import dataclasses
import json
import math
import platform
import time
import warnings

import numpy as np
import scipy

from scaling_jax import laws
from scaling_jax.laws import derived, forms, intervals, measured
from scaling_jax.laws.form import NotTestable

COUNT = 1000  # resamples of a bootstrap
ROBUST = ("profile", "jackknife", "percentile", "bca")


@dataclasses.dataclass(frozen=True)
class Design:
    """One design: a law with its true parameters at inputs [n], noise (rng, n) on the scale of the residuals, and what is asked of it."""

    form: object
    truth: dict
    columns: dict
    noise: object
    asked: dict
    runs: dict  # name -> inputs of one new run
    loss: str | None = None
    clusters: np.ndarray | None = None
    methods: tuple = ROBUST

    @property
    def logarithmic(self):
        return (self.loss or self.form.loss) != "lsq"


def normal(sd):
    return lambda rng, n: sd * rng.standard_normal(n)


def outliers(sd, share=0.05, times=8.0):
    """Normal noise, a share of it so many times as wide."""
    return lambda rng, n: sd * rng.standard_normal(n) * np.where(rng.random(n) < share, times, 1.0)


def heavy(sd, dof=3):
    return lambda rng, n: sd * rng.standard_t(dof, n)


def falling(compute, largest=0.03, smallest=0.003):
    """Normal noise that falls with compute [n], as that of published runs does: from `largest` to `smallest`, and so beyond the points."""
    share = np.log(compute / compute.min()) / np.log(compute.max() / compute.min())
    sd = largest * (smallest / largest) ** share
    return lambda rng, n: (sd if n == len(sd) else smallest) * rng.standard_normal(n)


def shared(sd_seed, sd_rest, seeds):
    """A seed's effect on all its sizes, and noise of every run alone; seeds: label of each row."""

    def draw(rng, n):
        label = seeds if n == len(seeds) else np.arange(n)  # other runs are of seeds of their own
        return sd_seed * rng.standard_normal(label.max() + 1)[label] + sd_rest * rng.standard_normal(n)

    return draw


def grid(seeds, **axes):
    """Columns of all combinations, each `seeds` times, and the seed of each row."""
    mesh = np.meshgrid(*axes.values(), np.arange(seeds), indexing="ij")
    return {name: values.ravel() for name, values in zip(axes, mesh, strict=False)}, mesh[-1].ravel()


def law_at(form, **at):
    return intervals.law_at(form, {name: np.array([float(value)]) for name, value in at.items()})


def reach(loss, tokens):
    """Tokens that data_power needs for `loss`, as a multiple of `tokens`: derived.data_efficiency, infinite below the floor."""

    def needed(p):
        gap = loss - p["E"]
        with np.errstate(all="ignore"):
            return np.where(gap > 0, (p["B"] / np.where(gap > 0, gap, 1.0)) ** (1 / p["beta"]) / tokens, np.inf)

    return needed


def power(sizes, seeds, clustered=False, noise=0.02, decades=None):
    """Power law in N: `sizes` over one to two decades from 1e7 on."""
    truth = {"E": 1.7, "A": 400.0, "alpha": 0.34}
    x = 10 ** (7 + (decades or {4: 1.0, 5: 1.25, 6: 1.5, 8: 2.0}[sizes]) * np.linspace(0, 1, sizes))
    columns, label = grid(seeds, params=x)
    asked = {name: name for name in truth} | {"loss at 10x N": law_at(forms.power, params=10 * x[-1])}
    runs = {"new run at the largest N": {"params": x[-1]}, "new run at 10x N": {"params": 10 * x[-1]}}
    if clustered:
        return Design(forms.power, truth, columns, shared(0.7 * noise, 0.7 * noise, label), asked, runs, clusters=label)
    return Design(forms.power, truth, columns, normal(noise), asked, runs)


def data_power(budgets, seeds):
    """Power law in D, and what data efficiency and speed-up are made of it."""
    truth = {"E": 1.9, "B": 2000.0, "beta": 0.37}
    x = 1e8 * 2.0 ** np.arange(budgets)
    columns, _ = grid(seeds, tokens=x)
    better, faster = (float(forms.data_power.predict(truth, {"tokens": [d]})[0]) for d in (4 * x[-1], 1.3 * x[-2]))
    asked = {name: name for name in truth} | {"loss at 10x D": law_at(forms.data_power, tokens=10 * x[-1])}
    asked |= {"data efficiency of 4": reach(better, x[-1]), "speed-up of 1.3": reach(faster, x[-2])}
    return Design(forms.data_power, truth, columns, normal(0.02), asked, {"new run at 10x D": {"tokens": 10 * x[-1]}})


def ensemble():
    """K = 1 to 8 models, one team of each size."""
    truth = {"C": 2.2, "A": 0.4, "b": 1.0}
    k = np.arange(1.0, 9.0)
    asked = {name: name for name in truth} | {"loss at K = 16": law_at(forms.ensemble, members=16)}
    return Design(forms.ensemble, truth, {"members": k}, normal(0.01), asked, {"new run at K = 16": {"members": 16.0}})


CHINCHILLA = {"E": 1.82, "A": 482.0, "B": 2085.0, "alpha": 0.348, "beta": 0.366}


def chinchilla(columns, noise, loss):
    compute = 10 * float((6 * columns["params"] * columns["tokens"]).max())

    def path_loss(p):
        size, data = derived.compute_optimal(p, compute)
        with np.errstate(all="ignore"):
            return p["E"] + p["A"] * size ** -p["alpha"] + p["B"] * data ** -p["beta"]

    size, data = (float(v) for v in derived.compute_optimal(CHINCHILLA, compute))
    asked = {name: name for name in CHINCHILLA}
    asked |= {"a = beta / (alpha + beta)": lambda p: p["beta"] / (p["alpha"] + p["beta"])}
    asked |= {"N_opt at 10x compute": lambda p: derived.compute_optimal(p, compute)[0], "loss at 10x compute": path_loss}
    return Design(
        forms.chinchilla, CHINCHILLA, columns, noise, asked, {"new run at 10x compute": {"params": size, "tokens": data}}, loss=loss
    )


def chinchilla_grid(sizes, budgets, seeds, noise, loss):
    columns, _ = grid(seeds, params=10 ** np.linspace(7.5, 9.5, sizes), tokens=10 ** np.linspace(9, 11, budgets))
    return chinchilla(columns, noise, loss)


def chinchilla_random(n, noise, loss="huber"):
    """Points scattered over sizes and tokens; noise: a draw, or a function of their compute that returns one."""
    rng = np.random.default_rng(0)
    columns = {"params": 10 ** rng.uniform(7.6, 10.2, n), "tokens": 10 ** rng.uniform(9, 12, n)}
    return chinchilla(columns, noise(6 * columns["params"] * columns["tokens"]) if noise is falling else noise, loss)


def parscale():
    truth = {"E": 0.7, "A": 2e7, "alpha": 0.19, "k": 0.35}
    columns, _ = grid(1, params=10 ** np.linspace(8.7, 9.7, 6), streams=[1.0, 2.0, 4.0, 8.0])
    asked = {name: name for name in truth} | {"loss at 10x N, P = 8": law_at(forms.parscale, params=5e10, streams=8)}
    return Design(forms.parscale, truth, columns, normal(0.002), asked, {"new run at 10x N": {"params": 5e10, "streams": 8.0}})


def over_training(runs):
    truth = {"E": 1.5, "a": 140.0, "b": 190.0, "eta": 0.12}
    pairs = [(1.1e7, 20), (1.1e7, 320), (7.9e7, 20), (1.5e8, 20), (4.1e8, 20)]
    if runs == 12:
        pairs = [(n, m) for n in (1.1e7, 4e7, 1.5e8, 4.1e8) for m in (20, 80, 320)]
    size = np.array([n for n, _ in pairs])
    columns = {"params": size, "tokens": size * np.array([m for _, m in pairs])}
    far = {"params": 1.4e9, "tokens": 1.4e9 * 80}
    asked = {name: name for name in truth} | {"loss at 1.4e9 params, M = 80": law_at(forms.over_training, **far)}
    return Design(forms.over_training, truth, columns, normal(0.01), asked, {"new run at 1.4e9 params, M = 80": far})


def one_input(form, truth, x, sd, ahead, loss=None):
    name = form.inputs[0]
    asked = {p: p for p in truth} | {f"law at {name} = {ahead:g}": law_at(form, **{name: ahead})}
    return Design(
        form, truth, {name: np.asarray(x, np.float64)}, normal(sd), asked, {f"new run at {name} = {ahead:g}": {name: ahead}}, loss
    )


def designs():
    """All designs by name."""
    out = {}
    for sizes in (4, 5, 6, 8):
        for seeds in (3, 4, 5):
            out[f"power, {sizes} sizes x {seeds} seeds"] = power(sizes, seeds)
    for sizes in (4, 8):
        for seeds in (3, 4, 5):
            out[f"power, {sizes} sizes x {seeds} seeds shared"] = power(sizes, seeds, clustered=True)
    out["power, 4 sizes x 5 seeds shared, over half a decade"] = power(4, 5, clustered=True, decades=0.5)
    out["power, 4 sizes x 1 seed over two decades, noise 0.01"] = power(4, 1, noise=0.01, decades=2.0)
    out["power, 4 sizes x 3 seeds, noise 0.03"] = power(4, 3, noise=0.03)
    out["power, 4 sizes x 3 seeds over half a decade"] = power(4, 3, decades=0.5)
    for budgets in (4, 5, 6):
        out[f"data_power, {budgets} budgets x 3 seeds"] = data_power(budgets, 3)
    out["ensemble, K = 1 to 8"] = ensemble()
    for sizes, budgets, seeds in ((4, 4, 1), (4, 4, 3), (5, 4, 2), (6, 5, 1), (6, 5, 3)):
        out[f"chinchilla log, {sizes} x {budgets} x {seeds}, normal"] = chinchilla_grid(sizes, budgets, seeds, normal(0.01), "log")
    for sizes, budgets, seeds in ((4, 4, 1), (4, 4, 3), (6, 5, 1), (6, 5, 3)):
        out[f"chinchilla huber, {sizes} x {budgets} x {seeds}, 5% outliers"] = chinchilla_grid(
            sizes, budgets, seeds, outliers(0.01), "huber"
        )
    out["chinchilla huber, 6 x 5 x 1, normal"] = chinchilla_grid(6, 5, 1, normal(0.01), "huber")
    out["chinchilla huber, 240 points, normal"] = chinchilla_random(240, normal(0.01))
    out["chinchilla huber, 240 points, t of 3"] = chinchilla_random(240, heavy(0.01))
    for n in (60, 120, 240):
        out[f"chinchilla huber, {n} points, noise that falls with compute"] = chinchilla_random(n, falling)
    out["chinchilla log, 240 points, noise that falls with compute"] = chinchilla_random(240, falling, "log")
    out["parscale huber, 6 x 4, normal"] = parscale()
    out["over_training, 5 runs"], out["over_training, 12 runs"] = over_training(5), over_training(12)
    out["coverage, 10 counts"] = one_input(forms.coverage, {"a": -1.0, "b": -0.3}, 10 ** np.linspace(0, 3, 10), 0.02, 1e4)
    out["beta_binomial, 10 counts"] = one_input(forms.beta_binomial, {"alpha": 0.3, "beta": 3.0}, 10 ** np.linspace(0, 3, 10), 0.01, 1e4)
    reward = {"R_0": 0.2, "A": 0.6, "C_mid": 2000.0, "B": 1.5}
    out["sigmoid, 16 checkpoints"] = one_input(forms.sigmoid, reward, 10 ** np.linspace(2, 4.5, 16), 0.01, 1e6)
    out["saturation, 8 counts"] = one_input(forms.saturation, {"F_max": 0.7, "p": 0.1}, 2.0 ** np.arange(8), 0.01, 1000.0)
    return out


def measure(design, worlds, resampled, seed):
    """{method: {quantity: Coverage}} of one design."""
    at = {name: np.atleast_1d(np.asarray(values, np.float64)) for name, values in design.columns.items()}
    law, n = design.form.predict(design.truth, at), len(next(iter(at.values())))
    arrays = {name: np.float64(value) for name, value in design.truth.items()}
    truth = {name: float(arrays[one] if isinstance(one, str) else one(arrays)) for name, one in design.asked.items()}
    found, new = collections.defaultdict(list), collections.defaultdict(list)
    refused, seconds = collections.Counter(), collections.Counter()
    unlink = (lambda mean, e: mean * np.exp(e)) if design.logarithmic else (lambda mean, e: mean + e)
    ahead = {key: np.array([where[key] for where in design.runs.values()]) for key in design.form.inputs} if design.runs else {}
    plain = tuple(m for m in design.methods if m in ("profile", "jackknife"))
    for world in range(worlds):
        rng = np.random.default_rng([seed, world])
        data = at | {design.form.y: unlink(law, design.noise(rng, n))}
        fitted = laws.fit(design.form, data, loss=design.loss)
        for method in design.methods if world < resampled else plain:
            clusters = None if method == "profile" else design.clusters  # which takes rows as independent: how wrong is that?
            begin = time.process_time()
            try:
                ends = intervals.several(fitted, list(design.asked.values()), method=method, clusters=clusters, count=COUNT, seed=world)
            except NotTestable:
                refused[method] += 1
                continue
            finally:
                seconds[method] += time.process_time() - begin
            for name, one in zip(design.asked, ends, strict=True):
                found[method, name].append(one)
        if design.runs:
            whole = fitted if design.clusters is None else laws.fit(design.form, data, loss=design.loss, clusters=design.clusters)
            band = whole.band(ahead, kind="run")
            drawn = unlink(design.form.predict(design.truth, ahead), design.noise(rng, len(design.runs)))
            for name, *point in zip(design.runs, band.low, band.high, drawn, strict=True):
                new[name].append(tuple(map(float, point)))
    out = {m: {name: measured.tally(truth[name], found[m, name], refused[m]) for name in design.asked} for m in design.methods}
    if new:
        out["band"] = {name: measured.tally([y for *_, y in ends], [end[:2] for end in ends]) for name, ends in new.items()}
    return out, {name: spent / worlds for name, spent in seconds.items()}


def main():
    """Prints and writes, per design, method and quantity, how often the interval held the truth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=1000)
    parser.add_argument("--resampled", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="designs whose name contains this")
    parser.add_argument("--methods", help="only these, with commas")
    parser.add_argument("--json")
    parser.add_argument("--table", help="print the table of this result and do nothing else")
    args = parser.parse_args()
    if args.table:
        with open(args.table, encoding="utf-8") as file:
            print(table(json.load(file)))
        return
    out = {
        "worlds": args.worlds,
        "worlds_resampled": min(args.worlds, args.resampled),
        "resamples": COUNT,
        "seed": args.seed,
        "machine": platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "designs": {},
    }
    begin = time.process_time()
    for name, design in designs().items():
        if args.only and args.only not in name:
            continue
        if args.methods:
            design = dataclasses.replace(design, methods=tuple(args.methods.split(",")))
        start = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            covered, seconds = measure(design, args.worlds, args.resampled, args.seed)
        spent = time.process_time() - start
        out["designs"][name] = {
            "n": len(next(iter(design.columns.values()))),
            "cpu_seconds": round(spent, 1),
            "coverage": {m: {q: plain(one) for q, one in by.items()} for m, by in covered.items()},
        }
        print(f"{name}: {spent:.0f} CPU s")
        for method, by in covered.items():
            for quantity, one in by.items():
                mark = " " if one.worlds == 0 or 0.92 <= one.covered <= 0.98 else "!"
                print(
                    f"  {mark} {method:10s} {quantity:30s} {one.covered:6.1%} +- {one.error:.1%}  misses low {one.below:5.1%} high {one.above:5.1%}"
                    f"  unbounded {one.unbounded:5.1%}  refused {one.refused:5.1%}  width {one.width:.4g}  ({one.worlds})",
                    flush=True,
                )
    out["cpu_seconds"] = round(time.process_time() - begin, 1)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(out, file, indent=1)


def table(result):
    """The table of docs/laws.md: per design, lowest and highest coverage over its quantities, in percent, and how many lie outside 92-98."""
    out = ["| design | n | profile | jackknife | percentile | BCa | new run |", "|---|---|---|---|---|---|---|"]
    for name, design in result["designs"].items():
        cells = []
        for method in (*ROBUST, "band"):
            asked = {quantity: one for quantity, one in design["coverage"].get(method, {}).items() if one["worlds"]}
            shares = [100 * one["covered"] for one in asked.values()]
            outside = [share for share in shares if not 92 <= share <= 98]
            ends = sorted({f"{share:.0f}" for share in (min(shares), max(shares))}) if shares else ()
            cells.append("-".join(sorted(ends, key=int)) + (f" ({len(outside)}/{len(shares)})" if outside else ""))
        out.append(f"| {name} | {design['n']} | {' | '.join(cells)} |")
    return "\n".join(out)


def plain(one):
    """A Coverage as JSON: four digits, None for what is not finite."""
    return {k: None if not math.isfinite(v) else v if isinstance(v, int) else float(f"{v:.4g}") for k, v in dataclasses.asdict(one).items()}


if __name__ == "__main__":
    main()
