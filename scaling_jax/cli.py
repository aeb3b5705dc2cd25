"""The console entry: scaling-jax train | study | fit | predict. How a command ends stands in exits.py."""

import argparse
import os
import sys


def main(argv=None):
    """Parses the command line and runs one command; a user's mistake prints one line and exits with 2."""
    argv = list(sys.argv[1:] if argv is None else argv)
    args, rest = _parser().parse_known_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from scaling_jax import exits

    quick = getattr(args, "quick", False)
    if not quick:
        _compile_cache()
    return exits.code(lambda: args.command(args, rest), resumable=not quick)


def _parser():
    parser = argparse.ArgumentParser(prog="scaling-jax", description="A laboratory for scaling experiments.")
    commands = parser.add_subparsers(required=True, metavar="train|study|fit|predict")
    train = commands.add_parser("train", help="one training run", description="Trains one run; --config.x.y=value overrides a field.")
    train.add_argument("--config", required=True, metavar="FILE_OR_NAME", help="a config file, or the name of one of configs/")
    train.add_argument("--workdir", required=True, metavar="DIR")
    train.set_defaults(command=_train)
    study = commands.add_parser("study", help="a paper's question, from grid to verdict")
    study.add_argument("name", metavar="NAME_OR_FILE")
    study.add_argument("--scale", default="tiny", metavar="smoke|tiny|small|pod")
    study.add_argument("--workdir", required=True, metavar="DIR")
    study.add_argument("--until", metavar="STAGE", help="stop after this stage; run again without it for the rest")
    study.add_argument("--dry-run", action="store_true", help="print the plan and its cost, train nothing")
    study.add_argument("--ablate", type=int, metavar="CLAIM", help="number of a claim whose mechanism is taken out: it should not hold")
    study.set_defaults(command=_study)
    from scaling_jax.laws import shell

    shell.add_parsers(commands)
    return parser


def _train(args, rest):
    from scaling_jax import config as cfg
    from scaling_jax.data import stream
    from scaling_jax.data.corpus import described, open_corpus
    from scaling_jax.parallel import cost
    from scaling_jax.train import lock, loop, same_data
    from scaling_jax.train.progress import Progress

    run = cfg.resolve(cfg.load(args.config), cfg.overrides(rest))
    corpus = open_corpus(run.data)
    run = cfg.bind(run, corpus)
    same_data.refuse_changed(args.workdir, run, corpus)
    identity = cfg.identity(run, corpus)
    with lock.held(args.workdir), Progress(total=cost.expected_seconds([run])) as progress:
        progress.print(described(corpus))
        metrics = loop.result(args.workdir, identity) or loop.train([run], corpus, args.workdir, progress)[identity]
        losses = "  ".join(f"{name} {metrics[name]:.4f} nats/token" for name in metrics if name.endswith("loss"))
        bits = stream.bits_per_byte(metrics["test/loss"], corpus, "test") if "test/loss" in metrics else None
        losses += f"  test {bits:.4f} bits/byte" if bits is not None else ""
        progress.print(f"run {identity}: {run.train.steps} steps  {losses}")
        progress.print(f"trajectory, config and weights: {args.workdir}/runs/{identity}")
    return 0


def _study(args, rest):
    from scaling_jax import config as cfg
    from scaling_jax.studies import runner

    runner.run(
        args.name, args.scale, args.workdir, until=args.until, dry_run=args.dry_run, ablate=args.ablate, overrides=cfg.overrides(rest)
    )
    return 0


def _compile_cache():
    """Compiled programs are kept per user, so a second start costs seconds less (set JAX_COMPILATION_CACHE_DIR to move it)."""
    import jax

    from scaling_jax.data.corpus import cache_dir

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "programs"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)  # a small study compiles a dozen small programs


if __name__ == "__main__":
    sys.exit(main())
