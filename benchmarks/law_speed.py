"""CPU seconds of fits and bootstraps, one thread, against the usual script and against vpnls.

    python benchmarks/law_speed.py --json benchmarks/results/law_speed_DATE.json [--community SCRIPT] [--vpnls PYTHON]

The usual script (arXiv:2203.15556, approach 3, as it is written everywhere): SciPy's BFGS with numeric gradients of Huber's loss of log
losses, from 4500 starts, then 4000 bootstraps from the best. A sample of both is timed and multiplied. --community runs such a script
instead of the one below and fits its points. --vpnls names a Python in whose environment the package vpnls (0.1.0, arXiv:2603.22339,
least squares of the loss itself, no bootstrap) is installed; it is compared on that loss, at equal objective.
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before NumPy is loaded

import argparse
import importlib.util
import itertools
import json
import pathlib
import platform
import subprocess
import sys
import time

import numpy as np
import scipy
from scipy import optimize

from scaling_jax import laws
from scaling_jax.laws import forms, resample

TRUTH = {"E": 1.82, "A": 482.0, "B": 2085.0, "alpha": 0.348, "beta": 0.366}
DELTA, STARTS, BOOTSTRAPS = 1e-3, 4500, 4000
TARGET = 1 / 50  # of the usual script's CPU time


def planted(n=240):
    """n points of the Chinchilla law with 1% of normal noise, over the paper's ranges."""
    rng = np.random.default_rng(0)
    size, data = 10 ** rng.uniform(7.6, 10.2, n), 10 ** rng.uniform(9, 12, n)
    loss = forms.chinchilla.predict(TRUTH, {"params": size, "tokens": data}) * np.exp(0.01 * rng.standard_normal(n))
    return {"params": size, "tokens": data, "loss": loss}


def usual_loss(x, size, data, loss):
    """Huber's loss of the log-sum-exp form: x = (ln A, ln B, ln E, alpha, beta), inputs logarithms."""
    terms = np.array([x[0] - x[3] * size, x[1] - x[4] * data, np.full(len(size), x[2])])
    r = np.abs(np.logaddexp.reduce(terms) - loss)
    return np.where(r <= DELTA, r * r / 2, DELTA * (r - DELTA / 2)).sum()


def usual_script(points, starts=60, bootstraps=40):
    """CPU seconds of all starts and of all bootstraps, from samples of each, and the least objective seen."""
    logs = tuple(np.log(points[name]) for name in ("params", "tokens", "loss"))
    scales, floors, exponents = np.arange(0, 26, 5.0), np.arange(-1, 1.1, 0.5), np.arange(0, 2.1, 0.5)
    grid = np.array(list(itertools.product(scales, scales, floors, exponents, exponents)))
    assert len(grid) == STARTS
    rng, best = np.random.default_rng(1), None
    begin = time.process_time()
    for i in rng.choice(STARTS, starts, replace=False):
        one = optimize.minimize(usual_loss, grid[i], logs, method="BFGS")
        best = one if best is None or one.fun < best.fun else best
    from_starts = (time.process_time() - begin) * STARTS / starts
    begin = time.process_time()
    for _ in range(bootstraps):
        rows = rng.integers(0, len(logs[0]), len(logs[0]))
        optimize.minimize(usual_loss, best.x, tuple(column[rows] for column in logs), method="BFGS")
    return from_starts, (time.process_time() - begin) * BOOTSTRAPS / bootstraps, float(best.fun)


def load(path):
    spec = importlib.util.spec_from_file_location("community", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def community_script(path):
    """What the script at `path` prints of itself: cpu_s_grid, cpu_s_4000_bootstraps, objective."""
    printed = subprocess.run([sys.executable, path], check=True, capture_output=True, text=True).stdout
    said = json.loads(printed.strip().splitlines()[-1])
    return said["cpu_s_grid"], said["cpu_s_4000_bootstraps"], said["objective"]


def ours(points, repeats=5):
    """CPU seconds of the optimum (best of `repeats`) and of the bootstrap, the objective, and the share of refits that converged."""
    spent = []
    for _ in range(repeats):
        begin = time.process_time()
        found = laws.fit(forms.chinchilla, points, loss="huber", delta=DELTA)
        spent.append(time.process_time() - begin)
    begin = time.process_time()
    drawn = resample.bootstrap(found, BOOTSTRAPS)
    return min(spent), time.process_time() - begin, found.objective, 1 - drawn.lost


VPNLS = """
import json, sys, time
import numpy as np
from vpnls.api import fit_vpnls
points = json.load(sys.stdin)
size, data, loss = (np.array(points[name]) for name in ("params", "tokens", "loss"))
out = []
for method, resolution in (("grid", 0.01), ("grid", 0.001), ("scipy", 0.05), ("scipy", 0.01)):
    spent = []
    for _ in range(5):
        begin = time.process_time()
        found = fit_vpnls(size / 1e6, data / 1e9, loss, method=method, resolution=resolution)
        spent.append(time.process_time() - begin)
    out.append(dict(method=method, resolution=resolution, cpu_ms=1e3 * min(spent), rss=float(found.rss)))
print(json.dumps(out))
"""


def against_vpnls(python, points):
    """vpnls and our fit on the squared residuals of the loss itself: CPU milliseconds and sums of squares."""
    feed = json.dumps({name: values.tolist() for name, values in points.items()})
    printed = subprocess.run([python, "-c", VPNLS], input=feed, check=True, capture_output=True, text=True).stdout
    spent = []
    for _ in range(5):
        begin = time.process_time()
        found = laws.fit(forms.chinchilla, points, loss="lsq")
        spent.append(time.process_time() - begin)
    return {"ours": {"cpu_ms": 1e3 * min(spent), "rss": found.objective}, "vpnls": json.loads(printed)}


def every_form(repeats=5):
    """CPU milliseconds of one fit of every form to the points that its test plants, 1% of noise added: median of `repeats`."""
    sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
    from tests.laws.test_forms import FORMS, WORLDS

    out = {}
    for name, (columns, truth) in WORLDS.items():
        form, spent = FORMS[name], []
        law = form.predict(truth, columns)
        for seed in range(repeats):
            noise = np.random.default_rng(seed).standard_normal(len(law))
            y = law * np.exp(0.01 * noise) if form.loss != "lsq" else law + 0.01 * law.mean() * noise
            begin = time.process_time()
            laws.fit(form, {**columns, form.y: y})
            spent.append(time.process_time() - begin)
        out[name] = {"points": len(law), "params": len(form.params), "cpu_ms": round(1e3 * float(np.median(spent)), 2)}
    return out


def main():
    """Prints and writes the times; fails where ours ends at a higher objective or takes more than a fiftieth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--community", metavar="PATH", help="a script that prints cpu_s_grid, cpu_s_4000_bootstraps and objective as JSON")
    parser.add_argument("--vpnls", metavar="PYTHON", help="a Python that has vpnls")
    parser.add_argument("--json")
    args = parser.parse_args()
    points = planted()
    if args.community:
        points = dict(zip(("params", "tokens", "loss"), load(args.community).points(), strict=True))
    optimum, boots, objective, converged = ours(points)
    out = {
        "machine": platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "threads": 1,
        "ours": {"cpu_s_optimum": optimum, "cpu_s_4000_bootstraps": boots, "objective": objective, "refits_converged": converged},
    }
    print(f"ours: optimum {optimum:.3f} s, 4000 bootstraps {boots:.2f} s, objective {objective:.12g}, refits converged {converged:.2%}")
    grid, usual_boots, usual_objective = community_script(args.community) if args.community else usual_script(points)
    ratio = (optimum + boots) / (grid + usual_boots)
    out["usual"] = {"script": "given" if args.community else "of this file", "cpu_s_4500_starts": grid}
    out["usual"] |= {"cpu_s_4000_bootstraps": usual_boots, "objective": usual_objective, "ours_over_usual": ratio}
    print(
        f"usual script: 4500 starts {grid:.0f} s, 4000 bootstraps {usual_boots:.0f} s, objective {usual_objective:.12g}; ours takes 1/{1 / ratio:.0f}"
    )
    if args.vpnls:
        out["least_squares"] = against_vpnls(args.vpnls, points)
        print(f"least squares of the loss: ours {out['least_squares']['ours']}")
        for one in out["least_squares"]["vpnls"]:
            print(f"  vpnls {one}")
    out["forms"] = every_form()
    for name, one in out["forms"].items():
        print(f"  {name:18s} {one['points']:4d} points, {one['params']:2d} parameters: {one['cpu_ms']:8.2f} CPU ms a fit")
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(out, file, indent=1)
    assert objective <= usual_objective * (1 + 1e-9), "the usual script ends lower"
    assert ratio <= TARGET, f"ours takes 1/{1 / ratio:.0f} of the usual script, at most 1/{1 / TARGET:.0f} was asked"


if __name__ == "__main__":
    main()
