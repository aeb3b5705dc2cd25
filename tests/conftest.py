"""Every test runs on CPU, with strict rank promotion and a compile cache of its own."""

import os
import tempfile

import hypothesis

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(tempfile.gettempdir(), f"scaling_jax_test_programs_{os.getuid()}"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")

hypothesis.settings.register_profile("untimed", deadline=None)  # no test fails for the time it takes
hypothesis.settings.load_profile("untimed")

SMOKE_BUDGET = 12  # CPU seconds of a smoke study with its imports (about five) and a cold compile cache; printed as well

# Seconds that the tests of a room may take one after another on an idle core; printed, and no test fails for them. Two run at a time.
BUDGETS = {
    "data": 30,
    "experiments": 150,
    "inference": 20,
    "laws": 150,
    "models": 40,
    "optim": 20,
    "parallel": 20,
    "studies": 150,
    "train": 60,
    "tests": 40,
}


def pytest_terminal_summary(terminalreporter):
    """Prints what each room of the suite and each smoke study took against its budget, and how many tests were skipped."""
    spent, smokes = dict.fromkeys(BUDGETS, 0.0), []
    for reports in terminalreporter.stats.values():
        for report in reports:
            if hasattr(report, "duration"):
                parts = report.nodeid.split("::")[0].split("/")
                spent[parts[1] if len(parts) > 2 else "tests"] += report.duration
                smokes += [value for name, value in report.user_properties if name == "cpu_seconds" and report.when == "call"]
    skipped = len(terminalreporter.stats.get("skipped", []))
    shown = "  ".join(f"{room} {seconds:.0f}/{BUDGETS[room]}" for room, seconds in spent.items() if seconds)
    terminalreporter.write_line(f"seconds against budget: {shown}  (skipped tests: {skipped})")
    if smokes:
        terminalreporter.write_line(f"CPU seconds of smoke studies, {SMOKE_BUDGET} budgeted for each: {'  '.join(sorted(smokes))}")
