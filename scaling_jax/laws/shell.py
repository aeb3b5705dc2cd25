"""The shell's side of laws: the options of `scaling-jax fit` and `scaling-jax predict`."""

from scaling_jax.laws.shell_fit import fit_points
from scaling_jax.laws.shell_predict import predict


def add_parsers(commands):
    """Adds `fit` and `predict` to the command line."""
    one = commands.add_parser("fit", help="a law fitted to your own points, with intervals", description=fit_points.__doc__)
    one.add_argument("points", metavar="POINTS.csv", help="CSV, TSV, Parquet or JSON lines; columns named by the law's variables")
    one.add_argument(
        "--trajectories",
        metavar="last|min|STEP,...",
        help="POINTS are trajectories (tables, W&B exports, TensorBoard files, our run folders): a point per run, there",
    )
    one.add_argument("--law", metavar="NAME", help="one of laws/forms.py, or package.module:name; left out, the laws are listed")
    one.add_argument("--columns", default="", metavar="params=N,...", help="which column of the file holds which variable")
    one.add_argument("--group", metavar="COLUMN", help="a fit of its own for each value of this column")
    one.add_argument("--loss", choices=("lsq", "log", "huber"), help="default: the law's own")
    one.add_argument("--delta", type=float, default=1e-3, help="where Huber's loss of ln y turns from squares to absolute values")
    one.add_argument("--fixed", default="", metavar="alpha=0.34,...", help="parameters that are given, not fitted")
    one.add_argument("--weights", metavar="COLUMN", help="column of row weights: inverse variances, up to a factor")
    one.add_argument("--clusters", metavar="COLUMN", help="rows that share a value are one observation, such as a seed's")
    one.add_argument(
        "--bootstrap", type=int, default=0, metavar="COUNT", help="percentile intervals of COUNT resamples instead of profiles"
    )
    one.add_argument("--seed", type=int, default=0, help="of the bootstrap, of --check, and of the worlds behind --isoflop")
    one.add_argument("--check", type=int, default=0, metavar="WORLDS", help="measure what the intervals cover at these very points")
    one.add_argument("--solver", choices=("newton", "scipy"), default="newton")
    one.add_argument("--isoflop", action="store_true", help="compute-optimal size by Chinchilla's approaches 1, 2 and 3")
    one.add_argument("--budget", metavar="COLUMN", help="with --isoflop: which runs share a compute budget; default: by 6 N D")
    one.add_argument("--json", metavar="FILE", help="write the fit, for `predict`")
    one.add_argument("--figure", metavar="FILE.svg", help="draw points, law and band")
    one.set_defaults(command=fit_points, quick=True)
    two = commands.add_parser("predict", help="a fitted law somewhere else, with its band", description=predict.__doc__)
    two.add_argument("fit", metavar="FIT.json", help="what `fit --json` wrote, or a sealed prediction")
    two.add_argument("--at", action="append", default=[], metavar="params=7e9,tokens=2e12", help="where; may be given again")
    two.add_argument("--group", metavar="VALUE", help="which of the file's fits")
    two.add_argument("--seal", metavar="FILE", help="freeze fit and forecast in FILE, before the run is made")
    two.add_argument("--next", metavar="CANDIDATES.csv", help="which of these runs, made next, narrows the interval most per FLOP")
    two.add_argument("--of", metavar="PARAMETER", help="with --next: the interval of this parameter instead of the forecast's")
    two.add_argument("--score", action="store_true", help="FIT.json is a sealed prediction: compare it with what was observed")
    two.add_argument("--observed", metavar="VALUE,...", help="what the run, or runs, gave")
    two.add_argument(
        "--register", metavar="FILE", help="register of sealed and scored predictions, appended to; default: register.jsonl beside the seal"
    )
    two.set_defaults(command=predict, quick=True)
