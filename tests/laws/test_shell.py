"""`scaling-jax fit` and `predict` as a person types them: what is printed, what is written, and what every mistake says."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scaling_jax import cli, laws
from scaling_jax.laws import forms

TRUTH = {"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658}


def planted(noise=0.003, seed=0, n=40):
    rng = np.random.default_rng(seed)
    size, tokens = 10 ** rng.uniform(7, 10, n), 10 ** rng.uniform(9, 12, n)
    loss = forms.chinchilla.predict(TRUTH, {"params": size, "tokens": tokens}) * np.exp(noise * rng.standard_normal(n))
    return pd.DataFrame({"N": size, "D": tokens, "loss": loss, "set": np.where(np.arange(n) % 2, "web", "code")})


@pytest.fixture
def points(tmp_path):
    path = tmp_path / "points.csv"
    planted().to_csv(path, index=False)
    return path


def run(capsys, *argv):
    """Exit code, standard output and standard error, each with its white space folded."""
    code = cli.main([str(a) for a in argv])
    out, err = capsys.readouterr()
    return code, " ".join(out.split()), " ".join(err.split())


def fit_it(capsys, points, *more):
    return run(capsys, "fit", points, "--law=chinchilla", "--columns=params=N,tokens=D", *more)


def test_fit_prints_every_parameter_with_an_interval(capsys, points):
    code, out, err = fit_it(capsys, points)
    found = laws.fit(forms.chinchilla, planted().rename(columns={"N": "params", "D": "tokens"}))
    assert code == 0 and err == ""
    for name, value in found.params.items():
        assert f"{name} {value:.5g} [" in out
    assert "40 points, Huber of logarithms, delta 0.001" in out and "N_opt ~ C^a, a" in out
    assert "next: scaling-jax fit" in out


def test_fit_writes_what_predict_reads(capsys, points, tmp_path):
    file = tmp_path / "fit.json"
    assert fit_it(capsys, points, f"--json={file}", f"--figure={tmp_path / 'fit.svg'}")[0] == 0
    entry = json.loads(file.read_text())["fits"][0]
    assert entry["law"] == "chinchilla" and entry["n"] == 40 and set(entry["ci95"]) == set(TRUTH)
    assert (tmp_path / "fit.svg").read_text().lstrip().startswith("<?xml")
    code, out, _ = run(capsys, "predict", file, "--at", "params=70B,tokens=1.4T", "--at", "params=1e9,tokens=2e10")
    found = laws.fit(forms.chinchilla, planted().rename(columns={"N": "params", "D": "tokens"}))
    assert code == 0
    for size, tokens in ((70e9, 1.4e12), (1e9, 2e10)):
        assert f"loss at params = {size:g}, tokens = {tokens:g}: {float(found.predict(params=size, tokens=tokens)):.5g}" in out
    band = found.band(params=70e9, tokens=1.4e12)
    assert f"95% band of the law [{band.low[0]:.4g}, {band.high[0]:.4g}]" in out and "95% band of one new run [" in out
    assert "params lies" in out and "compute lies" in out  # 70B is beyond the largest, and so is its compute


def test_groups_and_bootstrap(capsys, points, tmp_path):
    file = tmp_path / "fit.json"
    code, out, _ = fit_it(capsys, points, "--group=set", "--bootstrap=200", "--seed=3", f"--json={file}")
    assert code == 0 and "code: 20 points" in out and "web: 20 points" in out and "bootstrap, 200 resamples" in out
    entries = json.loads(file.read_text())["fits"]
    assert [entry["group"] for entry in entries] == ["code", "web"]
    assert entries[0]["seed"] == 3 and 150 < len(entries[0]["samples"]["alpha"]) <= 200
    code, _, err = run(capsys, "predict", file, "--at", "params=1e9,tokens=1e10")
    assert code == 2 and "--group: " in err and "2 fits (code, web); say which" in err
    assert run(capsys, "predict", file, "--group=web", "--at", "params=1e9,tokens=1e10")[0] == 0
    code, _, err = run(capsys, "predict", file, "--group=weB", "--at", "params=1e9,tokens=1e10")
    assert code == 2 and "did you mean 'web'" in err


def test_a_bootstrap_is_that_of_its_seed(capsys, points, tmp_path):
    files = [tmp_path / f"{i}.json" for i in range(3)]
    for file, seed in zip(files, (1, 1, 2), strict=True):
        fit_it(capsys, points, "--bootstrap=100", f"--seed={seed}", f"--json={file}")
    first, same, other = (json.loads(file.read_text())["fits"][0]["samples"] for file in files)
    assert first == same != other


def test_a_law_of_your_own(points, tmp_path):
    """By the installed command, in the folder that holds it."""
    (tmp_path / "mylaws.py").write_text(
        "def mine(params, *, a=(0, 9), b=(0.01, 2)):\n    'L = a N^-b'\n    return a * (params / 1e8) ** -b\n"
    )
    command = Path(sys.executable).with_name("scaling-jax")
    call = lambda *argv: subprocess.run([command, *argv], cwd=tmp_path, capture_output=True, text=True)
    done = call("fit", points, "--law=mylaws:mine", "--columns=params=N", "--json=fit.json")
    assert done.returncode == 0 and "L = a N^-b" in done.stdout, done.stderr
    assert call("predict", "fit.json", "--at", "params=1e9").returncode == 0
    done = call("fit", points, "--law=mylaws:yours")
    assert done.returncode == 2 and "--law=mylaws:yours" in done.stderr


# --- mistakes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--law=chinchila"], "--law=chinchila: not one of .*did you mean 'chinchilla'"),
        ([], "--law: which one"),
        (["--law=chinchilla"], "no column 'params'.*--columns=params=COLUMN"),
        (["--law=chinchilla", "--columns=params:N"], "'params:N' is not name=value"),
        (["--law=chinchilla", "--columns=params=N,token=D"], "chinchilla has no variable 'token' .did you mean 'tokens'"),
        (["--law=chinchilla", "--columns=params=N,tokens=D", "--group=sett"], "sett.*set"),
        (["--law=power", "--columns=params=N", "--fixed=alpha=abc"], "--fixed=alpha = abc"),
        (["--law=power", "--columns=params=N", "--nonsense=3"], "--nonsense=3: no such option"),
        (["--law=power", "--columns=params=N", "--bootstrap=1"], "--bootstrap=1: too few.*100 or more"),
        (["--law=power", "--columns=params=N", "--bootstrap=-5"], "--bootstrap=-5: too few"),
        (["--law=power", "--columns=params=N", "--check=-3"], "--check=-3: too few.*20 or more"),
        (["--law=power", "--columns=params=N", "--seed=-1"], "--seed=-1: expected an integer from 0"),
        (["--law=power", "--columns=params=N", "--delta=-1"], "--delta=-1: expected a positive number"),
        (["--law=power", "--columns=params=N", "--fixed=alfa=1"], "--fixed=alfa: power has no parameter 'alfa'.*did you mean 'alpha'"),
        (["--law=power", "--columns=params=N", "--figure=a.foo"], "--figure=a.foo: expected a name that ends in .svg"),
        (["--law=power", "--columns=params=N", "--json=nowhere/a.json"], "--json=nowhere/a.json: its directory does not exist"),
    ],
)
def test_a_mistake_in_the_command(capsys, points, argv, message):
    import re

    code, _, err = run(capsys, "fit", points, *argv)
    assert code == 2 and re.search(message, err), err


@pytest.mark.parametrize(
    "at, message",
    [
        ("params=1e9", "tokens is missing"),
        ("params=1e9,tokens=1e10,x=3", "has no input 'x'"),
        ("params=1e9,tokens=-1", "above zero"),
        ("params=1e9,tokens=many", "--at tokens = many"),
        ("params=1e9,params=1e9,tokens=1", "given twice"),
    ],
)
def test_a_mistake_in_where(capsys, points, tmp_path, at, message):
    file = tmp_path / "fit.json"
    fit_it(capsys, points, f"--json={file}")
    code, _, err = run(capsys, "predict", file, "--at", at)
    assert code == 2 and message in err


def edited(points, line, before, after):
    lines = points.read_text().splitlines()
    lines[line - 1] = lines[line - 1].replace(before, after) if before else after
    points.write_text("\n".join(lines) + "\n")


def test_a_typo_and_an_empty_cell_are_named(capsys, points):
    lines = points.read_text().splitlines()
    cells = lines[6].split(",")
    edited(points, 7, cells[2], "3.l4")
    code, _, err = fit_it(capsys, points)
    assert code == 2 and "line 7" in err and "'loss'" in err and "3.l4" in err
    edited(points, 7, "3.l4", "")
    code, _, err = fit_it(capsys, points)
    assert code == 2 and "line 7" in err and "'loss'" in err


def test_a_constant_column_is_named(capsys, tmp_path):
    path = tmp_path / "points.csv"
    planted().assign(D=1e10).to_csv(path, index=False)
    code, out, _ = fit_it(capsys, path)
    assert code == 2 and "not fitted: tokens is 1e+10 in every row" in out and "vary tokens" in out


def test_a_huge_outlier_is_named_by_its_line_and_moves_huber_little(capsys, tmp_path):
    frame = planted()
    frame.loc[12, "loss"] *= 30
    path = tmp_path / "points.csv"
    frame.to_csv(path, index=False)
    code, out, _ = fit_it(capsys, path)
    assert code == 0 and "line 14 lies" in out and "robust standard deviations off" in out
    clean, dirty = (laws.fit(forms.chinchilla, f.rename(columns={"N": "params", "D": "tokens"})) for f in (planted(), frame))
    assert dirty["E"] == pytest.approx(clean["E"], rel=0.02)


def test_too_few_points(capsys, points):
    points.write_text("\n".join(points.read_text().splitlines()[:6]) + "\n")
    code, out, _ = fit_it(capsys, points)
    assert code == 2 and "no degree of freedom: chinchilla has 5 parameters and there are 5 distinct params, tokens; needs 6" in out


def test_a_loss_that_is_not_positive_is_named_by_its_line(capsys, points):
    edited(points, 9, points.read_text().splitlines()[8].split(",")[2], "-2.5")
    code, out, _ = fit_it(capsys, points)
    assert code == 2 and "loss = -2.5 in line 9" in out


def test_a_file_that_is_no_fit(capsys, tmp_path):
    (tmp_path / "x.json").write_text("[1, 2")
    code, _, err = run(capsys, "predict", tmp_path / "x.json", "--at", "params=1")
    assert code == 2 and "not a fit that" in err


def test_trajectories_become_points(capsys, tmp_path):
    """A W&B panel: a column per run, the last value of each a point; params come from a column of long rows."""
    size = np.geomspace(1e6, 1e9, 6)
    rows = [(f"r{i}", step, n, 2 + (n / 1e6) ** -0.4 + 5 / step) for i, n in enumerate(size) for step in (10, 100, 1000)]
    path = tmp_path / "runs.csv"
    pd.DataFrame(rows, columns=["run", "step", "params", "loss"]).to_csv(path, index=False)
    file = tmp_path / "fit.json"
    code, out, _ = run(capsys, "fit", path, "--law=power", "--trajectories=last", f"--json={file}")
    assert code == 0 and "6 points" in out
    assert json.loads(file.read_text())["fits"][0]["params"]["E"] == pytest.approx(2.005, abs=1e-4)
    code, out, _ = run(capsys, "fit", path, "--law=power", "--trajectories=10,1000")
    assert code == 0 and "12 points" in out
    code, _, err = run(capsys, "fit", path, "--law=power", "--trajectories=7")
    assert code == 2 and "no run logged loss at this step" in err


def test_fit_starts_without_jax():
    """A fit of a table should not wait for an accelerator library."""
    code = "import sys, scaling_jax.laws.shell\nassert 'jax' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_isoflop(capsys, tmp_path):
    path = tmp_path / "points.csv"
    rows = []
    for compute in (1e18, 1e19, 1e20, 1e21):
        for size in np.geomspace(0.2, 5, 7) * (compute / 6) ** 0.5 / 5:
            rows.append((size, compute / 6 / size))
    frame = pd.DataFrame(rows, columns=["params", "tokens"])
    noise = np.exp(0.001 * np.random.default_rng(0).standard_normal(len(frame)))
    frame.assign(loss=forms.chinchilla.predict(TRUTH, frame) * noise).to_csv(path, index=False)
    code, _, err = run(capsys, "fit", path, "--isoflop", "--loss=lsq")
    assert code == 2 and "--loss=lsq: has no meaning with --isoflop" in err
    code, out, _ = run(capsys, "fit", path, "--isoflop")
    assert code == 0 and "2 parabolas" in out and "3 law" in out and "bias" in out
    assert "without noise, their bias included" in out and "covers" not in out
    assert run(capsys, "fit", path, "--isoflop", "--seed=1")[1] != out  # other worlds, other ends
    code, out, _ = run(capsys, "fit", path, "--isoflop", "--check=10")
    assert code == 0 and "2 parabolas, a: a stated 95% interval covers" in out and "3 law, N_opt and D_opt: a stated" in out
    assert out.count("measured in 10 worlds") == 4
    code, _, err = run(capsys, "fit", path, "--isoflop", "--delta=0.01")
    assert code == 2 and "--delta" in err


def test_what_the_intervals_cover_is_measured_on_demand(capsys, points, tmp_path):
    file = tmp_path / "fit.json"
    code, out, _ = run(capsys, "fit", points, "--law=power", "--columns=params=N", "--check=25", f"--json={file}")
    assert code == 0 and "alpha: a stated 95% interval covers" in out and "measured in 25 worlds" in out
    assert json.loads(file.read_text())["fits"][0]["coverage"]["E"]["worlds"] == 25


def test_which_run_next(capsys, points, tmp_path):
    file, candidates = tmp_path / "fit.json", tmp_path / "candidates.csv"
    fit_it(capsys, points, f"--json={file}")
    pd.DataFrame({"params": [1e7, 1e8, 1e9], "tokens": [1e10, 1e10, 1e9]}).to_csv(candidates, index=False)
    code, out, _ = run(capsys, "predict", file, "--at", "params=70B,tokens=1.4T", f"--next={candidates}")
    assert code == 0 and "narrows the interval of loss at params = 7e+10, tokens = 1.4e+12" in out and "narrower by" in out
    assert run(capsys, "predict", file, "--of=E", f"--next={candidates}")[0] == 0
    code, _, err = run(capsys, "predict", file, "--of=e", f"--next={candidates}")
    assert code == 2 and "--of=e: chinchilla has fitted E" in err


def test_a_sealed_prediction(capsys, points, tmp_path):
    file, seal = tmp_path / "fit.json", tmp_path / "forecast.json"
    fit_it(capsys, points, f"--json={file}")
    code, out, _ = run(capsys, "predict", file, "--at", "params=70B,tokens=1.4T", f"--seal={seal}")
    assert code == 0 and "sha256" in out
    code, out, _ = run(capsys, "predict", seal, "--score", "--observed=1.95")
    assert code == 0 and "in the band" in out or "outside" in out
    code, _, err = run(capsys, "predict", file, "--at", "params=70B,tokens=1.4T", f"--seal={seal}")
    assert code == 2 and "forecast.json" in err
    seal.write_text(seal.read_text().replace('"E"', '"F"', 1))
    assert run(capsys, "predict", seal, "--score", "--observed=1.95")[0] == 2
