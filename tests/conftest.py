"""Every test runs on CPU, with strict rank promotion and a compile cache of its own."""

import os
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(tempfile.gettempdir(), f"scaling_jax_test_programs_{os.getuid()}"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")

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
    """Prints what each room of the suite took against its budget, and how many tests were skipped."""
    spent = dict.fromkeys(BUDGETS, 0.0)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if hasattr(report, "duration"):
                parts = report.nodeid.split("::")[0].split("/")
                spent[parts[1] if len(parts) > 2 else "tests"] += report.duration
    skipped = len(terminalreporter.stats.get("skipped", []))
    shown = "  ".join(f"{room} {seconds:.0f}/{BUDGETS[room]}" for room, seconds in spent.items() if seconds)
    terminalreporter.write_line(f"seconds against budget: {shown}  (skipped tests: {skipped})")
