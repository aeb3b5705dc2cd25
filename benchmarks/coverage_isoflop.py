"""What the intervals of Chinchilla's approaches 1 and 2 cover: planted laws at grids like those of users, noise of 0.1% to 1%.

    python benchmarks/coverage_isoflop.py --worlds 300 --json benchmarks/results/isoflop_coverage_DATE.json

What an interval has to hold is the approach's own noise-free value on that grid, its bias included. D_opt = C / (6 N_opt) is covered where
N_opt is. Approach 3 is in coverage.py. The standard error of a share is sqrt(c (1 - c) / worlds). `sd` is that of the estimates of a and
of ln N_opt themselves; of a normal estimate the interval's width is 3.92 of them.
"""

import argparse
import dataclasses
import json
import platform
import time
import warnings

import numpy as np
import scipy
from coverage import CHINCHILLA, falling, normal, outliers, plain, shared

from scaling_jax.laws import derived, forms, isoflop


@dataclasses.dataclass(frozen=True)
class Design:
    """Inputs [n], labels of their budgets [n] (None: by compute), and the noise of ln(loss), (rng, n) -> [n]."""

    columns: dict
    noise: object
    approach: str

    @property
    def budget(self):
        return "budget" if "budget" in self.columns else None


def envelope(sizes, counts, noise):
    """Training curves of `sizes` sizes over 2.5 decades, each with its loss at `counts` token counts; noise may be a function of the columns."""
    size, tokens = (g.ravel() for g in np.meshgrid(np.geomspace(3e7, 1e10, sizes), np.geomspace(1e9, 1e12, counts), indexing="ij"))
    columns = {"params": size, "tokens": tokens}
    return Design(columns, noise(columns), "1 envelope")


def parabolas(budgets, sizes, noise, width=6.0, centre=1.0):
    """`sizes` sizes at each of `budgets` budgets of 1e18 to 1e21 FLOPs, spread by `width` both ways around `centre` times the optimum."""
    compute = np.geomspace(1e18, 1e21, budgets)
    size = (derived.compute_optimal(CHINCHILLA, compute)[0][:, None] * centre * np.geomspace(1 / width, width, sizes)).ravel()
    columns = {"params": size, "tokens": np.repeat(compute, sizes) / (6 * size), "budget": np.repeat(np.arange(budgets), sizes)}
    return Design(columns, noise(columns), "2 parabolas")


def designs():
    """All designs by name."""
    out = {}
    for sizes in (4, 8):
        out[f"envelope, {sizes} sizes x 12 token counts, noise 0.03%"] = envelope(sizes, 12, lambda columns: normal(0.0003))
    for sd in (0.001, 0.003, 0.01):
        same = lambda columns, sd=sd: normal(sd)
        for sizes, counts in ((4, 12), (5, 12), (8, 12), *(((20, 30),) if sd != 0.003 else ())):
            out[f"envelope, {sizes} sizes x {counts} token counts, noise {sd:.1%}"] = envelope(sizes, counts, same)
        for budgets, sizes in ((3, 3), (5, 5), (7, 7)):
            out[f"parabolas, {budgets} budgets x {sizes} sizes, noise {sd:.1%}"] = parabolas(budgets, sizes, same)
        out[f"parabolas, 5 budgets x 9 sizes three times too large, noise {sd:.1%}"] = parabolas(5, 9, same, centre=3.0)
    for sd in (0.01, 0.015, 0.02):
        name = f"parabolas, 5 budgets x 5 sizes close together, noise {sd:.1%}"
        out[name] = parabolas(5, 5, lambda columns, sd=sd: normal(sd), width=2.5)
    curve = lambda columns: np.unique(columns["params"], return_inverse=True)[1]
    others = {
        "0.3%, 5% of it eight times as wide": lambda columns: outliers(0.003),
        "1.0% falling with compute to 0.1%": lambda columns: falling(columns["params"] * columns["tokens"], 0.01, 0.001),
    }
    others_of_curves = {
        "0.3%, half of its variance shared by a size": lambda columns: shared(0.0021, 0.0021, curve(columns)),
        "0.3%, nearly all shared by a size": lambda columns: shared(0.003, 0.0003, curve(columns)),
    }
    for name, noise in others.items():
        out[f"parabolas, 7 budgets x 7 sizes, noise {name}"] = parabolas(7, 7, noise)
    for name, noise in (others | others_of_curves).items():
        out[f"envelope, 8 sizes x 12 token counts, noise {name}"] = envelope(8, 12, noise)
    return out


def spread(design, worlds, seed, compute):
    """Standard deviations of the estimates of a and ln N_opt themselves, over the worlds that have one."""
    law = forms.chinchilla.predict(CHINCHILLA, design.columns)
    noise = [design.noise(np.random.default_rng([seed, world, 1]), len(law)) for world in range(worlds)]
    approach = isoflop.approaches(design.columns["params"], design.columns["tokens"], design.columns.get("budget"))[design.approach]()
    a, log_k = approach.lines(law * np.exp(noise)).T
    return np.nanstd(a), np.nanstd(log_k + a * np.log(compute))


def measure(design, worlds, seed):
    """{quantity: Coverage as a dict, with the sd of the estimates} of one design, and the bias of a."""
    n = len(design.columns["params"])
    compute = 10 * float((6 * design.columns["params"] * design.columns["tokens"]).max())
    of = dict(noise=lambda rng: design.noise(rng, n), budget=design.budget, worlds=worlds, seed=seed, third=False)
    seen = isoflop.covered(CHINCHILLA, design.columns, compute, **of)[design.approach]
    free = isoflop.noise_free(CHINCHILLA, design.columns, design.budget)
    sd = dict(zip(("a", "N_opt"), spread(design, worlds, seed, compute), strict=True))
    out = {name: plain(one) | {"sd": float(f"{sd[name]:.4g}")} for name, one in seen.items()}
    return out, float(f"{free[design.approach][0] - free['3 law'][0]:.4g}")


def main():
    """Prints and writes, per design and quantity, how often the interval held the noise-free value."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="designs whose name contains this")
    parser.add_argument("--json")
    args = parser.parse_args()
    out = {"worlds": args.worlds, "seed": args.seed, "device": f"CPU, {platform.machine()}", "python": platform.python_version()}
    out |= {"numpy": np.__version__, "scipy": scipy.__version__, "drawn_per_interval": isoflop.WORLDS, "designs": {}}
    begin = time.process_time()
    for i, (name, design) in enumerate(designs().items()):
        if args.only and args.only not in name:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            covered, bias = measure(design, args.worlds, 1000 * args.seed + i)
        out["designs"][name] = {"n": len(design.columns["params"]), "bias_of_a": bias, "coverage": covered}
        print(name)
        for quantity, one in covered.items():
            mark = " " if one["worlds"] and 0.92 <= one["covered"] <= 0.98 else "!"
            missed = (
                f"misses low {one['below']:.1%} high {one['above']:.1%}, refused {one['refused']:.1%}" if one["worlds"] else "refused all"
            )
            print(f"  {mark} {quantity:6s} {one['covered'] or 0:6.1%}  {missed}, sd {one['sd']:.3g}, width {one['width']}", flush=True)
    out["cpu_seconds"] = round(time.process_time() - begin, 1)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(out, file, indent=1)


if __name__ == "__main__":
    main()
