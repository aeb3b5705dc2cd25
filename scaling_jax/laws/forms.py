"""Forms of scaling laws: small pure functions with named, bounded parameters, each with its equation and source.

`laws.fit(forms.chinchilla, frame)` fits one; your own function needs no registration (see form.as_form). Parameters carry the
papers' names. Losses are in nats per token; params (N) are parameters, tokens (D) tokens, members (K) models of an ensemble,
streams (P) parallel streams, compute (C) FLOPs unless a form says otherwise, samples (k) attempts per problem.
"""

import dataclasses

import numpy as np

from scaling_jax.laws import implicit
from scaling_jax.laws.form import Form

INF = np.inf
EXPONENTS = (0.01, 5.0)  # beyond these a few points over a decade or two cannot tell an exponent from a constant or a step
POSITIVE = (0.0, INF)


def _power(x, exponent):
    """x ** exponent for x > 0; one logarithm per point, not one per set of parameters."""
    return np.exp(exponent * np.log(x))


def _logarithm_above_one(x):
    """ln x where x > 1, nan elsewhere."""
    return np.where(x > 1, np.log(np.where(x > 1, x, 2.0)), np.nan)


def offset_power(name, x, params, source, exponents=EXPONENTS):
    """The form `offset + scale / x ** exponent` with its own names: offset and scale non-negative, the exponent within `exponents`."""
    offset, scale, exponent = params

    def partials(p, columns):
        shape = _power(columns[x], -p[exponent])
        term = p[scale] * shape
        return p[offset] + term, {offset: 1.0, scale: shape, exponent: -term * np.log(columns[x])}

    return Form(
        name=name,
        equation=f"L({x}) = {offset} + {scale} / {x}^{exponent}",
        inputs=(x,),
        params=params,
        function=lambda p, columns: p[offset] + p[scale] * _power(columns[x], -p[exponent]),
        bounds={offset: POSITIVE, scale: POSITIVE, exponent: exponents},
        exponent=exponent,
        source=source,
        linear=(offset, scale),
        partials=partials,
    )


power = offset_power("power", "params", ("E", "A", "alpha"), "arXiv:2203.15556, eq. 2 at infinite data; arXiv:2509.14786")
data_power = offset_power("data_power", "tokens", ("E", "B", "beta"), "arXiv:2203.15556, eq. 2 at infinite size; arXiv:2509.14786")
# Averaging K independent members gains 1/K to first order, and the paper finds b near 1. A slower law than K ** -0.25 cannot be told from
# a constant over a handful of members, and its limit would be far below every loss seen.
ensemble = offset_power("ensemble", "members", ("C", "A", "b"), "arXiv:2509.14786: loss of K averaged models of one size", (0.25, 4.0))


def _chinchilla_partials(p, columns):
    size, data = _power(columns["params"], -p["alpha"]), _power(columns["tokens"], -p["beta"])
    by_size, by_data = p["A"] * size, p["B"] * data
    slopes = {"E": 1.0, "A": size, "B": data}
    slopes |= {"alpha": -by_size * np.log(columns["params"]), "beta": -by_data * np.log(columns["tokens"])}
    return p["E"] + by_size + by_data, slopes


chinchilla = Form(
    name="chinchilla",
    equation="L(N, D) = E + A / N^alpha + B / D^beta",
    inputs=("params", "tokens"),
    params=("E", "A", "B", "alpha", "beta"),
    function=lambda p, x: p["E"] + p["A"] * _power(x["params"], -p["alpha"]) + p["B"] * _power(x["tokens"], -p["beta"]),
    bounds={"E": POSITIVE, "A": POSITIVE, "B": POSITIVE, "alpha": EXPONENTS, "beta": EXPONENTS},
    linear=("E", "A", "B"),
    partials=_chinchilla_partials,
    starts={"alpha": (0.08, 0.15, 0.25, 0.35, 0.5, 0.8, 1.3), "beta": (0.08, 0.15, 0.25, 0.35, 0.5, 0.8, 1.3)},
    loss="huber",
    source="arXiv:2203.15556, eq. 2 and 3, approach 3; summed as in arXiv:2404.10102",
)

over_training = Form(
    name="over_training",
    equation="L(C, M) = E + (a M^eta + b M^-eta) C^-eta,  C = 6 N D, M = D / N",
    inputs=("params", "tokens"),
    params=("E", "a", "b", "eta"),
    function=lambda p, x: p["E"] + p["a"] * _power(6 * x["params"] ** 2, -p["eta"]) + p["b"] * _power(6 * x["tokens"] ** 2, -p["eta"]),
    bounds={"E": POSITIVE, "a": POSITIVE, "b": POSITIVE, "eta": (0.005, 2.5)},
    linear=("E", "a", "b"),
    source="arXiv:2403.08540, eq. 4; (M C)^eta = (6 D^2)^eta and (C / M)^eta = (6 N^2)^eta",
)

downstream_error = Form(
    name="downstream_error",
    equation="Err(L) = epsilon - k exp(-gamma L)",
    inputs=("loss",),
    params=("epsilon", "k", "gamma"),
    function=lambda p, x: p["epsilon"] - p["k"] * np.exp(-p["gamma"] * x["loss"]),
    bounds={"epsilon": POSITIVE, "k": POSITIVE, "gamma": (0.01, 10.0)},
    linear=("epsilon", "k"),
    y="error",
    source="arXiv:2403.08540, eq. 5: average top-1 error against loss",
    signed=True,
)

parscale = Form(
    name="parscale",
    equation="L(N, P) = E + (A / (N (1 + k ln P)))^alpha",
    inputs=("params", "streams"),
    params=("E", "A", "alpha", "k"),
    function=lambda p, x: p["E"] + _power(p["A"] / (x["params"] * (1 + p["k"] * np.log(x["streams"]))), p["alpha"]),
    bounds={"E": POSITIVE, "A": POSITIVE, "alpha": EXPONENTS, "k": POSITIVE},
    starts={"E": (0.3, 0.7, 1.3, 1.7), "A": (1e3, 1e5, 1e7, 1e9), "alpha": (0.1, 0.2, 0.35, 0.6), "k": (0.1, 0.3, 0.8)},
    loss="huber",
    source="arXiv:2505.10475, eq. 5; P streams act like 1 + k ln P times the parameters",
)

parscale_power = Form(
    name="parscale_power",
    equation="L(N, P) = E + (A / (N P^k))^alpha",
    inputs=("params", "streams"),
    params=("E", "A", "alpha", "k"),
    function=lambda p, x: p["E"] + _power(p["A"] / (x["params"] * _power(x["streams"], p["k"])), p["alpha"]),
    bounds={"E": POSITIVE, "A": POSITIVE, "alpha": EXPONENTS, "k": POSITIVE},
    starts=parscale.starts,
    loss="huber",
    source="the rival of arXiv:2505.10475, eq. 5: streams as a power of the parameters",
)

kaplan_size = Form(
    name="kaplan_size",
    equation="L(N) = (N_c / N)^alpha_N",
    inputs=("params",),
    params=("N_c", "alpha_N"),
    function=lambda p, x: _power(p["N_c"] / x["params"], p["alpha_N"]),
    bounds={"N_c": POSITIVE, "alpha_N": (0.005, 2.0)},
    starts={"N_c": (1e6, 1e10, 1e14)},
    loss="log",
    source="arXiv:2001.08361, eq. 1.1; arXiv:2403.06563",
)

kaplan = Form(
    name="kaplan",
    equation="L(N, S_min) = (N_c / N)^alpha_N + (S_c / S_min)^alpha_S",
    inputs=("params", "steps_min"),
    params=("N_c", "alpha_N", "S_c", "alpha_S"),
    function=lambda p, x: _power(p["N_c"] / x["params"], p["alpha_N"]) + _power(p["S_c"] / x["steps_min"], p["alpha_S"]),
    bounds={"N_c": POSITIVE, "alpha_N": (0.005, 2.0), "S_c": POSITIVE, "alpha_S": EXPONENTS},
    starts={"N_c": (1e5, 1e8, 1e11, 1e14), "alpha_N": (0.05, 0.1, 0.3), "S_c": (10.0, 1e3, 1e5), "alpha_S": (0.3, 0.7, 1.2)},
    loss="log",
    source="arXiv:2001.08361, eq. 1.6; arXiv:2403.06563",
)

critical_batch = Form(
    name="critical_batch",
    equation="B_crit(L) = B_star / L^(1 / alpha_B), in tokens",
    inputs=("loss",),
    params=("B_star", "alpha_B"),
    function=lambda p, x: p["B_star"] * _power(x["loss"], -1 / p["alpha_B"]),
    bounds={"B_star": POSITIVE, "alpha_B": (0.02, 5.0)},
    linear=("B_star",),
    loss="log",
    y="batch_critical",
    source="arXiv:2001.08361, eq. 1.4; arXiv:1812.06162",
)

batch_tradeoff = Form(
    name="batch_tradeoff",
    equation="(S / S_min - 1) (T / T_min - 1) = 1 with T = S B: steps S = S_min + T_min / B to one loss; B_crit = T_min / S_min",
    inputs=("batch",),
    params=("S_min", "T_min"),
    function=lambda p, x: p["S_min"] + p["T_min"] / x["batch"],
    bounds={"S_min": POSITIVE, "T_min": POSITIVE},
    linear=("S_min", "T_min"),
    y="steps",
    loss="log",
    source="arXiv:1812.06162, eq. 2.11",
)


_TRAJECTORY_BOUNDS = {
    "N_c": POSITIVE,
    "alpha_N": (0.005, 2.0),
    "S_c": POSITIVE,
    "alpha_S": (0.05, 5.0),
    "B_star": POSITIVE,
    "alpha_B": (0.02, 5.0),
}
trajectory = Form(
    name="trajectory",
    equation="L = (N_c / N)^alpha_N + (S_c / S (1 + B_star / (B L^(1 / alpha_B))))^alpha_S, L on both sides; B in tokens per step",
    inputs=("params", "steps", "batch"),
    params=tuple(_TRAJECTORY_BOUNDS),
    function=implicit.loss,
    partials=implicit.partials,
    bounds=_TRAJECTORY_BOUNDS,
    starts=implicit.STARTS,
    loss="log",
    source="arXiv:2001.08361, eq. 1.6 with 5.4; arXiv:2403.06563, the whole trajectory at any batch size",
)

trajectory_floor = dataclasses.replace(
    trajectory,
    name="trajectory_floor",
    equation="L = E + (N_c / N)^alpha_N + (S_c / S (1 + B_star / (B L^(1 / alpha_B))))^alpha_S, L on both sides; B in tokens per step",
    params=("E", *trajectory.params),
    bounds={"E": (0.0, 20.0), **trajectory.bounds},  # with an end it is searched as it is: its logarithm would run to that of zero
    starts={"E": (0.1, 1.0), **implicit.STARTS},
    source="the form `trajectory` with the entropy of the text, which arXiv:2001.08361 leaves out; compare arXiv:2203.15556, eq. 2",
)


def _qat(p, x):
    per_byte = x["params"] * x["bits"] / 8
    s_fp, s_qat, bits = x["tokens_fp"] / per_byte, x["tokens_qat"] / per_byte, x["bits"] * np.log(2.0)
    loss = p["alpha"] + p["beta"] * _power(x["tokens_fp"] + x["tokens_qat"], -p["gamma"]) + p["zeta"] * _power(x["params"], -p["eta"])
    loss = loss + p["theta"] * np.exp(-p["kappa"] * bits)
    loss = loss + p["phi"] * np.exp(-p["chi"] * bits) * _power(x["params"], -p["psi"]) * _power(s_qat, -p["omega"])
    both = _power(x["params"], -p["nu"]) * _power(s_fp, -p["xi"]) * _power(s_qat, -p["rho"])
    return loss + p["lambda"] * np.exp(-p["mu"] * bits) * both


_QAT_SCALES, _QAT_RATES = (
    ("alpha", "beta", "zeta", "theta", "phi", "lambda"),
    ("gamma", "eta", "kappa", "chi", "psi", "omega", "mu", "nu", "xi", "rho"),
)
qat = Form(
    name="qat",
    equation="L = alpha + beta / (D_fp + D_qat)^gamma + zeta / N^eta + theta 2^(-kappa B) + phi 2^(-chi B) / (N^psi S_qat^omega)"
    " + lambda 2^(-mu B) / (N^nu S_fp^xi S_qat^rho),  S = D / (N B / 8)",
    inputs=("params", "tokens_fp", "tokens_qat", "bits"),
    params=(*_QAT_SCALES, *_QAT_RATES),
    function=_qat,
    bounds=dict.fromkeys(_QAT_SCALES, POSITIVE) | dict.fromkeys(_QAT_RATES, (0.0, 4.0)),
    linear=_QAT_SCALES,
    starts=dict.fromkeys(_QAT_RATES, (0.3,)) | {"kappa": (0.5, 1.5), "chi": (0.5, 1.5), "mu": (0.5, 1.5)},
    loss="huber",
    source="arXiv:2509.22935, loss law with QAT error; the paper's constants are not at hand, fit your own runs",
)

qat_fraction = Form(
    name="qat_fraction",
    equation="f*(N, D, B) = exp(-a / ln S_total),  S_total = D / (N B / 8) > 1",
    inputs=("params", "tokens", "bits"),
    params=("a",),
    function=lambda p, x: np.exp(-p["a"] / _logarithm_above_one(x["tokens"] / (x["params"] * x["bits"] / 8))),
    bounds={"a": (0.0, 100.0)},
    y="fraction",
    source="arXiv:2509.22935: a = 6.7297; share of all tokens that quantisation-aware training should get",
    signed=True,
)

sparsing_relu = Form(
    name="sparsing_relu",
    equation="A(D) = exp(b - c D^alpha) + A_0,  D in 1e9 tokens",
    inputs=("tokens",),
    params=("alpha", "b", "c", "A_0"),
    function=lambda p, x: np.exp(p["b"] - p["c"] * _power(x["tokens"] / 1e9, p["alpha"])) + p["A_0"],
    bounds={"alpha": EXPONENTS, "b": (-12.0, 4.0), "c": POSITIVE, "A_0": (0.0, 1.0)},
    starts={"alpha": (0.1, 0.4, 0.8, 1.5), "b": (-4.0, -2.0, 0.0), "c": (1e-4, 1e-2, 0.3, 3.0), "A_0": (0.02, 0.06, 0.2)},
    y="activation_ratio",
    source="arXiv:2411.02335, eq. 4: activation ratio of ReLU models falls with data",
)

sparsing_silu = Form(
    name="sparsing_silu",
    equation="A(D) = A_0 - c / D^alpha,  D in 1e9 tokens",
    inputs=("tokens",),
    params=("A_0", "c", "alpha"),
    function=lambda p, x: p["A_0"] - p["c"] * _power(x["tokens"] / 1e9, -p["alpha"]),
    bounds={"A_0": (0.0, 1.0), "c": POSITIVE, "alpha": EXPONENTS},
    linear=("A_0", "c"),
    y="activation_ratio",
    source="arXiv:2411.02335, eq. 5: activation ratio of SiLU models rises with data",
)

coverage = Form(
    name="coverage",
    equation="log10 c(k) = a k^b",
    inputs=("samples",),
    params=("a", "b"),
    function=lambda p, x: np.exp(np.log(10.0) * p["a"] * _power(x["samples"], p["b"])),
    bounds={"a": (-50.0, 0.0), "b": (-5.0, -0.001)},
    starts={"a": (-3.0, -1.5, -0.5, -0.1), "b": (-1.0, -0.5, -0.3, -0.1)},
    loss="log",
    y="coverage",
    source="arXiv:2407.21787, eq. 2; the published a is to base 10 and fitted in log space",
)


def _beta_binomial(p, x):
    from scipy.special import loggamma

    # B(alpha, beta + k) / B(alpha, beta), the share of problems that k samples all miss
    return 1 - np.exp(
        loggamma(p["beta"] + x["samples"])
        - loggamma(p["beta"])
        + loggamma(p["alpha"] + p["beta"])
        - loggamma(p["alpha"] + p["beta"] + x["samples"])
    )


beta_binomial = Form(
    name="beta_binomial",
    equation="c(k) = 1 - B(alpha, beta + k) / B(alpha, beta): success rates of problems are Beta(alpha, beta)",
    inputs=("samples",),
    params=("alpha", "beta"),
    function=_beta_binomial,
    bounds={"alpha": (1e-4, 1e3), "beta": (1e-4, 1e6)},
    starts={"alpha": (0.05, 0.2, 0.5, 1.5), "beta": (0.5, 2.0, 20.0, 300.0)},
    y="coverage",
    source="arXiv:2502.17578; coverage falls short of 1 like k^-alpha",
    signed=True,
)

saturation = Form(
    name="saturation",
    equation="F(N) = F_max (1 - (1 - p)^N)",
    inputs=("samples",),
    params=("F_max", "p"),
    function=lambda p, x: p["F_max"] * (1 - np.exp(x["samples"] * np.log(1 - p["p"]))),
    bounds={"F_max": (0.0, 1.0), "p": (1e-6, 0.999)},
    linear=("F_max",),
    starts={"p": (0.001, 0.01, 0.05, 0.2, 0.6)},
    y="coverage",
    source="arXiv:2505.20522: N samples or rounds that each succeed with probability p",
    signed=True,
)

ALLOCATION_EPS = 0.01  # the paper prints log(theta + eps) and no eps; counts of zero need one
ALLOCATION_MAP = (3.30, 1.81, 0.46, -2.18)  # sigma(x) = 3.30 / (1 + exp(-1.81 (x + 0.46))) - 2.18, arXiv:2410.04343, table 2


def allocation_map(x):
    """sigma(x), from the linear predictor of `allocation` to normalised performance."""
    height, slope, shift, base = ALLOCATION_MAP
    return height / (1 + np.exp(-slope * (x + shift))) + base


def allocation_unmap(y):
    """The inverse of `allocation_map`; nan outside (-2.18, 1.12)."""
    height, slope, shift, base = ALLOCATION_MAP
    return np.log((y - base) / (height - (y - base))) / slope - shift


def _allocation(p, x):
    total = p["c"]
    for name in ("documents", "shots", "iterations"):
        gain = p[f"b_{name}"] * x[f"gain_{name}"] if name != "iterations" else 0.0
        total = total + (p[f"a_{name}"] + gain) * np.log(x[name] + ALLOCATION_EPS)
    return allocation_map(total)


allocation = Form(
    name="allocation",
    equation="P = sigma(sum_j (a_j + b_j i_j) ln(theta_j + eps) + c), j: documents, shots, iterations (b = 0); i_j: gain of one over none",
    inputs=("documents", "shots", "iterations", "gain_documents", "gain_shots"),
    params=("a_documents", "a_shots", "a_iterations", "b_documents", "b_shots", "c"),
    function=_allocation,
    bounds=dict.fromkeys(("a_documents", "a_shots", "a_iterations", "b_documents", "b_shots", "c"), (-20.0, 20.0)),
    linear=("a_documents", "a_shots", "a_iterations", "b_documents", "b_shots", "c"),
    positive=False,
    link=allocation_unmap,
    y="performance",
    source="arXiv:2410.04343, eq. 2 and table 8; ordinary least squares of sigma^-1(P)",
)

sigmoid = Form(
    name="sigmoid",
    equation="R(C) = R_0 + (A - R_0) / (1 + (C_mid / C)^B), C in the unit of the column",
    inputs=("compute",),
    params=("R_0", "A", "C_mid", "B"),
    function=lambda p, x: p["R_0"] + (p["A"] - p["R_0"]) / (1 + _power(p["C_mid"] / x["compute"], p["B"])),
    bounds={"R_0": (-INF, INF), "A": (-INF, INF), "C_mid": POSITIVE, "B": (0.1, 10.0)},
    starts={"C_mid": lambda x: np.quantile(x["compute"], (0.1, 0.3, 0.5, 0.8)), "B": (0.5, 1.0, 2.0, 4.0)},
    linear=("R_0", "A"),
    y="reward",
    source="arXiv:2510.13786, eq. 1: pass rate against RL compute",
    signed=True,
)

languini = Form(
    name="languini",
    equation="ln L(C) = ln A - alpha ln C: a line of log loss against log accelerator seconds",
    inputs=("seconds",),
    params=("A", "alpha"),
    function=lambda p, x: p["A"] * _power(x["seconds"], -p["alpha"]),
    bounds={"A": POSITIVE, "alpha": (-2.0, 5.0)},
    linear=("A",),
    loss="log",
    source="arXiv:2309.11197, section on scaling: classes of equal compute in accelerator time",
)
