"""The built wheel works outside the checkout and brings nothing but scaling_jax."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.full
def test_the_wheel_runs_a_study_elsewhere(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path / "dist"), str(ROOT)], check=True, capture_output=True
    )
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"scaling_jax"}
    assert "scaling_jax/experiments/pretraining/infinite_compute/study.py" in names
    assert "scaling_jax/experiments/published/infinite_compute_tuned.csv" in names and "scaling_jax/configs/tiny.py" in names
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); import scaling_jax; assert 'site' in scaling_jax.__file__; from scaling_jax import cli; sys.exit(cli.main(sys.argv[1:]))"
    done = subprocess.run(
        [
            sys.executable,
            "-S",
            "-c",
            "import site; site.main(); " + code,
            "study",
            "infinite_compute",
            "--scale=smoke",
            f"--workdir={tmp_path / 'w'}",
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "w" / "report.html").is_file()
