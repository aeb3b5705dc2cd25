"""How often the laboratory is wrong: infinite_compute on planted worlds, tuning included, nothing trained.

    python benchmarks/error_rates.py --worlds 200 --json benchmarks/results/error_rates_DATE.json

null: no field of a run matters and a team is as good as its mean member. true: every claim of the study is true, by 0.05 to 0.3
nats (data efficiency: by a factor of about ten), against a seed noise of 0.02.
"""

import argparse
import collections
import json
import math
import platform
import time

from scaling_jax.studies import runner, worlds


def true_loss(run):
    """A smooth loss with an optimum in epochs and decay, the more decay the larger the model."""
    size = run.model.width / 32
    decay = math.log(max(run.optimizer.weight_decay, 0.01) / (0.8 * size))
    epochs = math.log2(max(run.train.steps * run.data.batch * run.data.sequence / run.data.unique_tokens, 0.01) / 16)
    data = 0.8 * (run.data.unique_tokens / 12288) ** -0.5
    return 1.2 + data + 0.15 / size + 0.03 * size * decay**2 + 0.02 * epochs**2


def true_team(losses, runs):
    """Teams gain with their size, and more where members were trained longer."""
    longer = sum(run.train.steps * run.data.batch * run.data.sequence / run.data.unique_tokens / 16 for run in runs) / len(runs)
    return float(losses.mean() - (0.15 + 0.15 * longer) * (1 - 1 / len(losses)))


WORLDS = {"null": worlds.World(lambda run: 2.2), "true": worlds.World(true_loss, true_team)}


def main():
    """Prints and writes, per world and claim, how often each verdict came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=200)
    parser.add_argument("--scale", default="tiny")
    parser.add_argument("--permutations", type=int, default=1000)
    parser.add_argument("--only", choices=tuple(WORLDS))
    parser.add_argument("--json")
    args = parser.parse_args()
    study, _ = runner.load("infinite_compute")
    out = {
        "study": "infinite_compute",
        "scale": args.scale,
        "worlds": args.worlds,
        "machine": platform.machine(),
        "python": platform.python_version(),
    }
    for name, world in WORLDS.items() if args.only is None else [(args.only, WORLDS[args.only])]:
        begin, counts, any_holds = time.process_time(), [collections.Counter() for _ in study.claims], 0
        for seed in range(args.worlds):
            verdicts = worlds.live(study, args.scale, world, seed, permutations=args.permutations)
            any_holds += any(v.verdict == "holds" for v in verdicts)
            for count, verdict in zip(counts, verdicts, strict=True):
                count[verdict.verdict] += 1
        claims = {claim.text: dict(count) for claim, count in zip(study.claims, counts, strict=True)}
        out[name] = {"worlds_with_any_holds": any_holds, "claims": claims, "cpu_seconds": time.process_time() - begin}
        print(f"{name}: `holds` somewhere in {any_holds} of {args.worlds} worlds")
        for text, count in claims.items():
            print(
                f"  {count.get('holds', 0):4d} hold  {count.get('fails', 0):4d} fail  {count.get('undecided', 0):4d} undecided  {count.get('not testable', 0):4d} not testable  {text}"
            )
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(out, file, indent=1)


if __name__ == "__main__":
    main()
