"""The floors of the house: nothing imports upwards, nothing foreign is imported, what is packaged exists."""

import ast
import configparser
import functools
import graphlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "scaling_jax"
# From the ground up; rooms of one floor are neighbours and may not import each other in a circle.
FLOORS = [
    {"_compat", "records", ""},  # "": the package itself
    {"kernels_pallas"},
    {"numerics"},
    {"models", "optim", "data", "laws"},
    {"config"},
    {"tasks"},
    {"parallel"},
    {"train"},
    {"inference"},
    {"rl"},
    {"plan", "studies"},
    {"launch"},
    {"exits"},
    {"cli"},
]
FLOOR = {room: i for i, rooms in enumerate(FLOORS) for room in rooms}
FORBIDDEN = ("tensorflow", "torch", "boto3", "libcloud", "wandb", "tensorboard")


def modules():
    """Every library file, and every kernel's."""
    return sorted([*LIBRARY.rglob("*.py"), *(ROOT / "kernels_pallas").rglob("*.py")])


@functools.cache
def imports(path):
    """Dotted names a file imports, inside functions too; relative ones made absolute."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    out = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            out |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(parts[: len(parts) - node.level]) if node.level else ""
            base = ".".join(part for part in (base, node.module) if part)
            out |= {f"{base}.{alias.name}" for alias in node.names}
    return frozenset(out)


def room(dotted):
    """The room of a dotted name of ours, else None."""
    first, *rest = dotted.split(".")
    if first == "kernels_pallas":
        return first
    if first != "scaling_jax":
        return None
    known = rest and (LIBRARY / rest[0]).is_dir() or rest and (LIBRARY / f"{rest[0]}.py").is_file()
    return rest[0] if known else ""


def room_of_file(path):
    return room(name(path))


def name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", modules(), ids=name)
def test_nothing_imports_upwards(path):
    here = room_of_file(path)
    assert here in FLOOR, f"{name(path)}: give the room {here!r} its floor in this test"
    for dotted in imports(path):
        there = room(dotted)
        if there is not None:
            assert FLOOR[there] <= FLOOR[here], f"{name(path)} imports {dotted}, which lies above it"


def test_rooms_do_not_import_in_a_circle():
    graph = {}
    for path in modules():
        here = room_of_file(path)
        graph.setdefault(here, set()).update(there for d in imports(path) if (there := room(d)) not in (None, here))
    assert len(graph) > 8 and graph["studies"] >= {"config", "laws", "train"}  # the walk sees imports at all
    graphlib.TopologicalSorter(graph).prepare()


def test_kernels_know_nothing_of_the_library():
    for path in (ROOT / "kernels_pallas").rglob("*.py"):
        assert not any(d.split(".")[0] == "scaling_jax" for d in imports(path)), name(path)


@pytest.mark.parametrize("path", modules(), ids=name)
def test_nobody_imports_what_lies_outside(path):
    """Tests, studies and configs are found by name, never imported; of optional programs nothing at import."""
    outside = {d for d in imports(path) if d.split(".")[0] in ("tests", "experiments", "configs", "benchmarks")}
    outside |= {d for d in imports(path) if d.startswith(("scaling_jax.experiments", "scaling_jax.configs"))}
    assert not outside


def test_a_study_imports_the_library_and_not_another_study():
    studies = sorted((ROOT / "experiments").rglob("*.py"))
    assert any("scaling_jax" in {d.split(".")[0] for d in imports(path)} for path in studies)
    for path in studies:
        folder = ".".join(path.parent.relative_to(ROOT).parts)
        for dotted in imports(path):
            first = dotted.split(".")[0]
            own = path.parent not in (ROOT / "experiments", *(ROOT / "experiments").iterdir()) and dotted.startswith(f"{folder}.")
            assert own or first not in ("configs", "experiments", "tests"), f"{name(path)} imports {dotted}"
            assert room(dotted) != "cli", f"{name(path)} imports {dotted}"


HOMES = {
    "orbax": {"train/checkpoint.py"},
    "grain": {"data/stream.py"},
    "matplotlib": {"studies/charts_svg.py", "laws/plot.py"},  # of a report, and of a fit in a notebook
    "tensorboard": {"laws/event_files.py"},
}


@pytest.mark.parametrize("package", HOMES)
def test_a_library_with_one_home(package):
    users = {
        path.relative_to(LIBRARY).as_posix() for path in LIBRARY.rglob("*.py") if any(d.split(".")[0] == package for d in imports(path))
    }
    assert users == HOMES[package]


@pytest.mark.parametrize("path", modules(), ids=name)
def test_no_file_is_too_long(path):
    lines, most = len(path.read_text().splitlines()), 800 if room_of_file(path) == "kernels_pallas" else 400
    assert lines <= most, f"{name(path)} has {lines} lines; split it, {most} are the most"


def packages():
    """(package, its directory) of setup.cfg."""
    options = configparser.ConfigParser()
    options.read(ROOT / "setup.cfg")
    folders = dict(line.replace(" ", "").split("=") for line in options["options"]["package_dir"].split("\n") if line.strip())
    return {p: ROOT / folders.get(p, p.replace(".", "/")) for p in options["options"]["packages"].split()}


def test_what_is_packaged_exists_and_what_exists_is_packaged():
    listed = packages()
    for package, folder in listed.items():
        assert (folder / "__init__.py").is_file(), f"setup.cfg lists {package}, and {folder} has no __init__.py"
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in modules()}
    assert found | {"scaling_jax.configs", "scaling_jax.experiments"} == set(listed)
    assert {package.split(".")[0] for package in listed} <= {"scaling_jax", "kernels_pallas"}


def test_importing_everything_touches_no_device_and_nothing_foreign(tmp_path):
    """With stand-ins on the path, so that an import of something not installed here is seen too."""
    for forbidden in FORBIDDEN:
        (tmp_path / forbidden).mkdir()
        (tmp_path / forbidden / "__init__.py").write_text("")
    every = [name(path) for path in modules()]
    code = (
        "import importlib, sys\n"
        f"for module in {every!r}: importlib.import_module(module)\n"
        "import jax._src.xla_bridge as bridge\n"
        "assert not bridge._backends, 'a device was touched on import'\n"
        "assert not sys.modules['jax'].config.jax_enable_x64\n"
        f"found = [name for name in {FORBIDDEN!r} if name in sys.modules]\n"
        "assert not found, found\n"
    )
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
