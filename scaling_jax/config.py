"""From a config file to a frozen run: ConfigDict at the edge, hashable records inside.

`load` runs a file's `get_config()`, `resolve` makes a `RunConfig` of it (strictly), `bind` completes it with
its corpus (vocabulary, number of steps) and checks what only the data can tell. None of them touches a device.
"""

import dataclasses
import importlib
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jax

from scaling_jax import records
from scaling_jax.data.corpus import DataConfig
from scaling_jax.optim.schedules import ScheduleConfig
from scaling_jax.records import ConfigError, field

SCHEMA = 1  # raised when the same config would no longer give the same numbers
MODELS = {"transformer": "scaling_jax.models.transformer"}
OPTIMIZERS = {"adamw": "scaling_jax.optim.adamw"}
OBJECTIVES = {"cross_entropy": "scaling_jax.train.objectives:cross_entropy"}
SEEDS = {"at_least": 0, "at_most": 2**32 - 1}  # a program takes it as uint32


@dataclass(frozen=True)
class TrainConfig:
    """Length and mechanics of a training run."""

    steps: int | None = field(None, at_least=1, at_most=2**31 - 1, doc="optimizer steps; or give epochs")
    epochs: float | None = field(None, above=0.0, doc="passes over the unique data; or give steps")
    clip_norm: float | None = field(1.0, above=0.0, doc="largest global gradient norm; None: no clipping")
    accumulate: int = field(1, at_least=1, doc="micro-batches per step")
    objective: str = field("cross_entropy", doc="name, or package.module:function of your own")
    evaluate: tuple[str, ...] = field(("test",), choices=("tune", "test"), doc="splits evaluated")
    evaluate_every: int | None = field(None, at_least=1, recorded=True, doc="steps between evaluations; None: at the end only")
    log_every: int = field(10, at_least=1, recorded=True, doc="steps between trajectory lines")
    checkpoint_every: int = field(1000, at_least=1, recorded=True, doc="steps between checkpoints")
    members: str = field(
        "auto",
        choices=("auto", "map", "vmap", "loop"),
        recorded=True,
        doc="how members of a cohort share a program; auto: loop on CPU, vmap elsewhere",
    )


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a training run; its hash is the run's identity."""

    model: object
    data: DataConfig
    optimizer: object
    schedule: ScheduleConfig
    train: TrainConfig
    seed: int = field(0, **SEEDS)

    def replace(self, **leaves):
        """A copy with dotted leaves replaced, checked again: replace(**{"model.width": 96, "seed": 1})."""
        return resolve(self, leaves)


def component(name, table):
    """The module or function a config names: from the literal table of ours, or "package.module[:name]" of the user's."""
    if not isinstance(name, str):
        raise ConfigError(f"{name!r}: expected text, one of {', '.join(map(repr, table))}, or 'package.module:name' of your own")
    target = table.get(name, name)
    if target == name and "." not in name and ":" not in name:
        raise ConfigError(
            f"{name!r}: not one of {', '.join(map(repr, table))}{records.suggest(name, table)}; your own is named 'package.module:name'"
        )
    module, _, attribute = target.partition(":")
    try:
        module = importlib.import_module(module)
        return getattr(module, attribute) if attribute else module
    except (ImportError, AttributeError, TypeError, ValueError) as error:  # the last two: '.name' and ':name'
        raise ConfigError(f"{name!r}: cannot be imported ({error})") from error


def resolve(config, overrides=None):
    """Makes a `RunConfig` from a nested mapping, a ConfigDict or another RunConfig.

    Args:
      overrides: dotted leaf -> value; text values are read as typed by the field (command line).
    Raises:
      ConfigError naming field, value and remedy.
    """
    tree = _tree(config)
    hints = _groups(tree)
    unknown = [key for key in tree if key not in hints and key != "seed"]
    if unknown:
        known = [*hints, "seed"]
        raise ConfigError(f"config.{unknown[0]}: no such field{records.suggest(unknown[0], known)}; config has {', '.join(known)}")
    for dotted, value in (overrides or {}).items():
        _override(tree, hints, dotted, value)
        hints = _groups(tree)  # model.name or optimizer.name may just have changed
    groups = {name: records.build(cls, tree[name], f"config.{name}") if name in tree else cls() for name, cls in hints.items()}
    seed = records.check(int, tree.get("seed", 0), "config.seed", SEEDS)
    run = RunConfig(**groups, seed=seed)
    return _consistent(run)


def bind(run, corpus):
    """Completes `run` with its corpus: vocabulary and steps filled in; raises ConfigError where they do not fit."""
    from scaling_jax.data import stream

    vocab = run.model.vocab
    if vocab is not None and vocab != corpus.vocab:
        raise ConfigError(f"config.model.vocab = {vocab}: the corpus {corpus.name!r} has {corpus.vocab} tokens; leave model.vocab out")
    steps = run.train.steps
    if steps is None:
        steps = stream.epochs_to_steps(corpus, run.data, run.train.epochs)
    data = run.data
    if data.source == "file" and data.separator is None and data.document_tokens <= data.sequence:
        raise ConfigError(
            f"config.data.document_tokens = {data.document_tokens}: the file is cut into documents of this length, which go to different splits "
            f"and in another order, so windows of data.sequence = {data.sequence} would hold unrelated pieces; set data.document_tokens far above, "
            f"or data.separator to the token that ends a document"
        )
    for split in run.train.evaluate:
        stream.evaluation(corpus, run.data, split)
    stream.unique_sequences(corpus, run.data)
    return dataclasses.replace(
        run, model=dataclasses.replace(run.model, vocab=corpus.vocab), train=dataclasses.replace(run.train, steps=steps)
    )


def identity(run, corpus):
    """The run's content address: hash of the bound config's result-changing fields, the corpus fingerprint and `schema`."""
    config = records.canonical(bind(run, corpus))
    config["train"].pop("epochs", None)  # steps say it
    return records.digest({"kind": "train", "schema": SCHEMA, "config": config, "corpus": corpus.fingerprint})


def load(name):
    """The ConfigDict of a config file, given by path or by the name of one of ours."""
    path = find("configs", name)
    module = import_file(path)
    if not hasattr(module, "get_config"):
        raise ConfigError(f"--config={name}: {path} has no get_config(); a config file defines get_config() -> ml_collections.ConfigDict")
    return module.get_config()


def find(folder, name):
    """The file `name` (a path, or a bare name searched below `folder`): in the checkout first, then in the installed package."""
    if Path(name).suffix == ".py":
        if not Path(name).is_file():
            raise ConfigError(f"{name}: no such file")
        return Path(name).resolve()
    package = Path(__file__).resolve().parent
    known = {}
    for root in (package, package.parent):  # later wins: the checkout
        if root == package or (root / "setup.cfg").is_file():
            files = [p for p in sorted((root / folder).rglob("*.py")) if not p.stem.startswith("_")]
            folders = {p.parent for p in files if p.name == "study.py"}  # a study may be a folder: study.py and its private modules
            known |= {
                p.parent.name if p.name == "study.py" else p.stem: p for p in files if p.name == "study.py" or p.parent not in folders
            }
    if name not in known:
        raise ConfigError(f"{name}: not a file, and not one of {folder}: {', '.join(sorted(known))}{records.suggest(name, known)}")
    return known[name]


def import_file(path):
    """Imports a Python file by its path; one called study.py as part of its folder, so that it finds its private modules."""
    path = Path(path)
    if path.name == "study.py":
        package = f"scaling_jax_folder_{path.parent.name}"
        _import(package, path.with_name("__init__.py"), [str(path.parent)])
        return _import(f"{package}.study", path)
    return _import(f"scaling_jax_file_{path.stem}", path)


def _import(name, path, search=None):
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=search)
    module = importlib.util.module_from_spec(spec)
    if search is not None or "." in name:
        sys.modules[name] = module  # relative imports look their package up
    spec.loader.exec_module(module)
    return module


def program_key(run):
    """What two runs must share to train as one program: all but the seed and the traced numbers."""
    config = records.canonical(run)
    for name, group in (("optimizer", run.optimizer), ("schedule", run.schedule)):
        for key in hyper_names(group):
            config[name][key] = None
    config.pop("seed")
    for key in ("steps", "epochs"):
        config["train"].pop(key)
    for key in ("subset_seed", "unique_tokens"):
        config["data"].pop(key, None)
    config["how"] = records.recorded(run)
    return records.digest(config)


def hyper_names(group):
    """The traced fields of a record: every float of an optimizer or schedule. Integers that set shapes are not traced."""
    return [f.name for f in dataclasses.fields(group) if f.type in (float, "float")]


def _tree(config):
    if isinstance(config, RunConfig):
        tree = records.to_dict(config)
        if config.train.epochs is not None:
            tree["train"]["steps"] = None  # a bound run has both; its steps follow from its epochs
        return tree
    if hasattr(config, "to_dict"):
        config = config.to_dict()
    if not isinstance(config, Mapping):
        raise ConfigError(f"config = {config!r}: expected a ConfigDict or a nested dict")
    return {k: dict(v) if isinstance(v, Mapping) else v for k, v in config.items()}


def _groups(tree):
    """The record class of every group; model and optimizer classes come from the file their `name` names."""
    chosen = {}
    for group, table, default in (("model", MODELS, "transformer"), ("optimizer", OPTIMIZERS, "adamw")):
        mapping = tree.get(group, {})
        name = mapping.get("name", default) if isinstance(mapping, Mapping) else default
        try:
            chosen[group] = getattr(component(name, table), "Config", None)
        except ConfigError as error:
            raise ConfigError(f"config.{group}.name = {error}") from None
        if not (isinstance(chosen[group], type) and dataclasses.is_dataclass(chosen[group])):
            raise ConfigError(
                f"config.{group}.name = {name!r}: has no dataclass Config; a {group} file defines one, as {table[default]} does"
            )
    return {
        "model": chosen["model"],
        "data": DataConfig,
        "optimizer": chosen["optimizer"],
        "schedule": ScheduleConfig,
        "train": TrainConfig,
    }


def _override(tree, hints, dotted, value):
    group, _, leaf = dotted.partition(".")
    if dotted == "seed":
        tree["seed"] = records.check(int, records._literal(int, value) if isinstance(value, str) else value, "config.seed", SEEDS)
        return
    if group not in hints:
        known = [*hints, "seed"]
        raise ConfigError(f"config.{dotted} = {value!r}: no such field{records.suggest(group, known)}; config has {', '.join(known)}")
    if not leaf:
        raise ConfigError(
            f"config.{group} = {value!r}: this is a group, set one of its fields instead, such as --config.{group}.{dataclasses.fields(hints[group])[0].name}=..."
        )
    if isinstance(value, str):
        value = records.parse(hints[group], leaf, value, f"config.{group}")
    *path, last = leaf.split(".")
    node, where = tree.setdefault(group, {}), f"config.{group}"
    for step in [*path, None]:
        if not isinstance(node, Mapping):
            raise ConfigError(f"config.{dotted} = {value!r}: {where} = {node!r} is a single value, it has no fields")
        if step is not None:
            inner = node.get(step)
            node[step] = dict(inner) if isinstance(inner, Mapping) else {} if inner is None else inner
            node, where = node[step], f"{where}.{step}"
    node[last] = value
    if group == "train" and last in ("steps", "epochs") and value is not None:
        tree["train"]["epochs" if last == "steps" else "steps"] = None  # one replaces the other


def _consistent(run):
    train, data = run.train, run.data
    if (train.steps is None) == (train.epochs is None):
        raise ConfigError(f"config.train.steps = {train.steps}, config.train.epochs = {train.epochs}: give exactly one of them")
    wide = [name for name in ("dtype", "head_dtype") if getattr(run.model, name, None) == "float64"]
    if wide and not jax.config.jax_enable_x64:
        raise ConfigError(
            f"config.model.{wide[0]} = 'float64': JAX computes in float32 unless told; set JAX_ENABLE_X64=1, or use 'float32'"
        )
    if data.batch % train.accumulate:
        raise ConfigError(f"config.train.accumulate = {train.accumulate}: must divide config.data.batch = {data.batch}")
    if train.objective not in OBJECTIVES:
        try:
            found = component(train.objective, OBJECTIVES)
        except ConfigError as error:
            raise ConfigError(f"config.train.objective = {error}") from None
        if not callable(found):
            raise ConfigError(f"config.train.objective = {train.objective!r}: not a function; name it as 'package.module:function'")
    return run


def overrides(rest):
    """["--config.model.width=128"] -> {"model.width": "128"}: what is left of a command line; text, typed later by the field it names."""
    out = {}
    for argument in rest:
        name, equals, value = argument.partition("=")
        if not name.startswith("--config.") or not equals:
            raise ConfigError(f"{argument}: expected --config.group.field=value")
        out[name.removeprefix("--config.")] = value
    return out
