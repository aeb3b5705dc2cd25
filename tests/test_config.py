"""From a file to a frozen run: every mistake named before any device work, identities pinned, program keys as promised."""

import dataclasses
import re
import subprocess
import sys

import numpy as np
import pytest
from ml_collections import ConfigDict

from scaling_jax import config as cfg
from scaling_jax import records
from scaling_jax.data.corpus import Corpus
from scaling_jax.records import ConfigError
from scaling_jax.train import state

BASE = {
    "model": {"width": 32, "layers": 2, "heads": 4},
    "data": {"sequence": 16, "batch": 8, "unique_tokens": 4096, "eval_sequences": 8},
    "train": {"epochs": 2.0},
}
TOKENS = {"train": 8193, "tune": 400, "test": 300}


def corpus(vocab=256, fingerprint="0123456789abcdef"):
    """Stands for a corpus: identity may read its fingerprint, vocabulary and sizes only."""
    splits = {split: np.zeros(n, np.uint8) for split, n in TOKENS.items()}
    return Corpus("made-up", vocab, splits, dict.fromkeys(splits), fingerprint)


CORPUS = corpus()
RUN = cfg.resolve(BASE)


def identity(run):
    return cfg.identity(run, CORPUS)


def leaves(record, path=""):
    """Dotted name -> (field, value) of every leaf."""
    out = {}
    for f in dataclasses.fields(record):
        value = getattr(record, f.name)
        if dataclasses.is_dataclass(value):
            out |= leaves(value, f"{path}{f.name}.")
        else:
            out[f"{path}{f.name}"] = (f, value)
    return out


# --- resolve -----------------------------------------------------------------------------------------------------

OVERRIDES = [
    ({"model.widht": "3"}, "config.model.widht = '3': no such field (did you mean 'width'?)"),
    ({"model.widht": 3}, "config.model.widht: no such field (did you mean 'width'?)"),
    (
        {"modle.width": 3},
        "config.modle.width = 3: no such field (did you mean 'model'?); config has model, data, optimizer, schedule, train",
    ),
    ({"model": 3}, "config.model = 3: this is a group, set one of its fields instead, such as --config.model.name=..."),
    ({"optimizer": {}}, "config.optimizer = {}: this is a group"),
    ({"model.width.x": 3}, "config.model.width.x = 3: config.model.width = 32 is a single value, it has no fields"),
    ({"model.width.x": "3"}, "config.model.width.x = '3': config.model.width is a single value, it has no field 'x'"),
    ({"data.synthetic.tokenz": 3}, "config.data.synthetic.tokenz: no such field (did you mean 'tokens'?)"),
    ({"data.synthetic": 3}, "config.data.synthetic = 3: expected a group of fields (tokens"),
    ({"model.width": "wide"}, "config.model.width = 'wide': expected int, not text"),
    ({"model.width": True}, "config.model.width = True: expected int, not bool"),
    ({"model.width": 32.0}, "config.model.width = 32.0: expected int, not float"),
    ({"model.width": 0}, "config.model.width = 0: must be at least 1"),
    ({"model.layers": -1}, "config.model.layers = -1: must be at least 1"),
    ({"model.width": 30}, "model.width = 30: not divisible by model.heads = 4; use model.heads = 3"),
    ({"model.kv_heads": 3}, "model.kv_heads = 3: must divide model.heads = 4"),
    ({"model.head_dim": 7}, "model.head_dim = 7: rotary positions need an even head dim"),
    ({"model.mlp": "relu"}, "config.model.mlp = 'relu': not one of 'swiglu', 'gelu'"),
    ({"model.name": "transfomer"}, "config.model.name = 'transfomer': not one of 'transformer' (did you mean 'transformer'?)"),
    ({"model.name": 5}, "config.model.name = 5: expected text, one of 'transformer'"),
    ({"model.name": "no.such.module"}, "config.model.name = 'no.such.module': cannot be imported (No module named 'no')"),
    ({"model.name": ".relative"}, "config.model.name = '.relative': cannot be imported"),
    ({"model.name": ":half"}, "config.model.name = ':half': cannot be imported"),
    ({"model.name": "os.path"}, "config.model.name = 'os.path': has no dataclass Config; a model file defines one"),
    ({"optimizer.name": "adam"}, "config.optimizer.name = 'adam': not one of 'adamw' (did you mean 'adamw'?)"),
    ({"optimizer.learning_rate": 0}, "config.optimizer.learning_rate = 0.0: must be greater than 0.0"),
    ({"optimizer.weight_decay": -0.1}, "config.optimizer.weight_decay = -0.1: must be at least 0.0"),
    ({"optimizer.b2": 1.0}, "config.optimizer.b2 = 1.0: must be less than 1.0"),
    ({"schedule.name": "linear"}, "config.schedule.name = 'linear': not one of 'cosine', 'wsd', 'constant'"),
    ({"schedule.warmup": 1.5}, "config.schedule.warmup = 1.5: must be at most 1.0"),
    ({"data.batch": 0}, "config.data.batch = 0: must be at least 1"),
    ({"model.dtype": "float64"}, "config.model.dtype = 'float64': JAX computes in float32 unless told; set JAX_ENABLE_X64=1"),
    ({"train.steps": 0}, "config.train.steps = 0: must be at least 1"),
    ({"train.steps": 2**31}, "config.train.steps = 2147483648: must be at most 2147483647"),
    ({"train.epochs": 0}, "config.train.epochs = 0.0: must be greater than 0.0"),
    ({"train.epochs": None}, "config.train.steps = None, config.train.epochs = None: give exactly one of them"),
    ({"train.clip_norm": 0.0}, "config.train.clip_norm = 0.0: must be greater than 0.0"),
    ({"train.accumulate": 3}, "config.train.accumulate = 3: must divide config.data.batch = 8"),
    (
        {"train.evaluate": ("test", "tset")},
        "config.train.evaluate = ('test', 'tset'): not one of 'tune', 'test' (did you mean 'test'?)",
    ),
    ({"train.evaluate": "tset"}, "config.train.evaluate = ('tset',): not one of"),
    (
        {"train.objective": "cross-entropy"},
        "config.train.objective = 'cross-entropy': not one of 'cross_entropy' (did you mean 'cross_entropy'?)",
    ),
    ({"train.objective": "os.path"}, "config.train.objective = 'os.path': not a function; name it as 'package.module:function'"),
    ({"seed": -1}, "config.seed = -1: must be at least 0"),
    ({"seed": 2**32}, "config.seed = 4294967296: must be at most 4294967295"),
    ({"seed": "two"}, "config.seed = 'two': expected int, not text"),
    ({"seed": True}, "config.seed = True: expected int, not bool"),
    ({"seed": None}, "config.seed = None: expected int, not None"),
]


@pytest.mark.parametrize(("overrides", "message"), OVERRIDES, ids=[str(o) for o, _ in OVERRIDES])
def test_a_mistake_is_named(overrides, message):
    with pytest.raises(ConfigError) as caught:
        cfg.resolve(BASE, overrides)
    assert message in str(caught.value)
    with pytest.raises(ConfigError, match=re.escape(message)):  # a run refuses what a file does
        RUN.replace(**overrides)


@pytest.mark.parametrize(
    ("config", "overrides", "message"),
    [
        (None, {}, "config = None: expected a ConfigDict or a nested dict"),
        ([], {}, "config = []: expected a ConfigDict or a nested dict"),
        ({}, {}, "config.train.steps = None, config.train.epochs = None: give exactly one"),
        (
            {**BASE, "trian": {}},
            {},
            "config.trian: no such field (did you mean 'train'?); config has model, data, optimizer, schedule, train, seed",
        ),
        ({**BASE, "optimizer": {}}, {}, "config.optimizer = {}: an empty group would drop every setting"),
        ({**BASE, "optimizer": None}, {}, "config.optimizer = None: expected a group of fields (name, learning_rate"),
        ({**BASE, "model": 3}, {}, "config.model = 3: expected a group of fields (name, vocab"),
        ({**BASE, "model": 3}, {"model.width": 8}, "config.model.width = 8: config.model = 3 is a single value, it has no fields"),
        ({**BASE, "train": {"steps": 3, "epochs": 1.0}}, {}, "config.train.steps = 3, config.train.epochs = 1.0: give exactly one"),
        ({**BASE, "data": {"synthetic": 5}}, {"data.synthetic.order": 1}, "config.data.synthetic = 5 is a single value"),
        ({**BASE, "seed": 1.0}, {}, "config.seed = 1.0: expected int, not float"),
    ],
)
def test_a_mistake_in_the_file_is_named(config, overrides, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        cfg.resolve(config, overrides)


def test_overrides_are_typed_by_their_fields():
    texts = {"model.width": "128", "model.tie_head": "true", "train.clip_norm": "None", "train.evaluate": "tune,test"}
    texts |= {"optimizer.learning_rate": "1e-2", "data.synthetic.order": "1", "seed": "7", "model.dtype": "bfloat16"}
    values = {"model.width": 128, "model.tie_head": True, "train.clip_norm": None, "train.evaluate": ("tune", "test")}
    values |= {"optimizer.learning_rate": 0.01, "data.synthetic.order": 1, "seed": 7, "model.dtype": "bfloat16"}
    found = cfg.resolve(BASE, texts)
    assert found == cfg.resolve(BASE, values) == cfg.resolve(ConfigDict(BASE), texts) == RUN.replace(**texts)
    assert found.model.width == 128 and found.train.clip_norm is None and found.data.synthetic.order == 1 and found.seed == 7
    assert RUN.model.width == 32 and BASE["model"] == {"width": 32, "layers": 2, "heads": 4}  # nothing was changed in place


def test_steps_and_epochs_replace_each_other():
    assert (found := RUN.replace(**{"train.steps": 5}).train).steps == 5 and found.epochs is None
    assert (found := RUN.replace(**{"train.steps": 5}).replace(**{"train.epochs": 3}).train).epochs == 3.0 and found.steps is None


def test_a_run_is_frozen_and_hashable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RUN.seed = 3
    assert {RUN: 1}[cfg.resolve(BASE)] == 1 and RUN.replace(seed=1) != RUN
    assert cfg.resolve(RUN) == RUN and cfg.resolve(records.to_dict(RUN)) == RUN


def test_components():
    assert cfg.component("adamw", cfg.OPTIMIZERS).__name__ == "scaling_jax.optim.adamw"
    assert cfg.component("scaling_jax.records:digest", {}) is records.digest
    own = cfg.resolve(BASE, {"model.name": "scaling_jax.models.transformer", "optimizer.name": "scaling_jax.optim.adamw"})
    assert own.model.width == 32 and own.optimizer == dataclasses.replace(RUN.optimizer, name="scaling_jax.optim.adamw")
    with pytest.raises(ConfigError, match="'scaling_jax.records:nothing': cannot be imported"):
        cfg.component("scaling_jax.records:nothing", {})


# --- files -------------------------------------------------------------------------------------------------------


def test_files(tmp_path):
    own = tmp_path / "own.py"
    own.write_text("def get_config():\n    return {'train': {'steps': 3}}\n")
    assert cfg.resolve(cfg.load(str(own))).train.steps == 3
    assert cfg.resolve(cfg.load("tiny")).train.epochs == 16.0
    own.write_text("STEPS = 3\n")
    with pytest.raises(ConfigError, match=r"--config=.*own.py has no get_config\(\); a config file defines get_config\(\)"):
        cfg.load(str(own))
    with pytest.raises(ConfigError, match="missing.py: no such file"):
        cfg.load(str(tmp_path / "missing.py"))
    with pytest.raises(ConfigError, match=r"tinny: not a file, and not one of configs: .*tiny.* \(did you mean 'tiny'\?\)"):
        cfg.load("tinny")


def test_resolving_touches_no_device():
    code = (
        "import sys\n"
        "from scaling_jax import config\n"
        "assert 'jax' not in sys.modules or not sys.modules['jax']._src.xla_bridge._backends, 'on import'\n"
        "run = config.resolve(config.load('tiny'), {'model.width': '64'})\n"
        "config.program_key(run)\n"
        "import jax._src.xla_bridge as bridge\n"
        "assert not bridge._backends, bridge._backends\n"
        "import jax.numpy; jax.numpy.zeros(1)\n"
        "assert bridge._backends\n"  # this is how a touched device shows
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=cfg.Path(cfg.__file__).parents[1])
    assert done.returncode == 0, done.stderr


# --- bind --------------------------------------------------------------------------------------------------------


def test_bind_fills_vocabulary_and_steps():
    bound = cfg.bind(RUN, CORPUS)
    assert bound.model.vocab == 256 and bound.train.steps == 2 * (4096 // 16) // 8
    assert cfg.bind(bound, CORPUS) == bound
    assert cfg.bind(bound.replace(**{"train.epochs": 4}), CORPUS).train.steps == 2 * bound.train.steps
    assert cfg.bind(bound.replace(**{"data.batch": 4}), CORPUS).train.steps == 2 * bound.train.steps  # steps follow from epochs
    assert cfg.bind(RUN.replace(**{"train.steps": 9}), CORPUS).train.steps == 9


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"model.vocab": 300}, "config.model.vocab = 300: the corpus 'made-up' has 256 tokens; leave model.vocab out"),
        ({"data.sequence": 8193}, "config.data.sequence = 8193: split .* the largest possible is"),
        (
            {"data.sequence": 300, "data.eval_sequences": 1},
            "config.data.sequence = 300: split 'test' .* 300 tokens; the largest possible is 299",
        ),
        ({"data.unique_tokens": 8}, "config.data.unique_tokens = 8: not one window of data.sequence = 16; the least is 16"),
        ({"data.unique_tokens": 8208}, "config.data.unique_tokens = 8208: .* the largest possible is 8192"),
        ({"data.eval_sequences": 19}, "config.data.eval_sequences = 19: .* the largest possible is 18"),
    ],
)
@pytest.mark.parametrize("length", [{"train.epochs": 1.0}, {"train.steps": 1}])
def test_bind_refuses_what_the_data_cannot_give(overrides, message, length):
    with pytest.raises(ConfigError, match=message):
        cfg.bind(RUN.replace(**overrides, **length), CORPUS)


# --- identity ----------------------------------------------------------------------------------------------------

# Another valid value of every leaf. A field added later must appear here, with `off` set so that PINNED stays.
CHANGED = {
    "model.name": "scaling_jax.models.transformer",
    "model.vocab": None,  # see the test of equal identities
    "model.width": 64,
    "model.layers": 3,
    "model.heads": 2,
    "model.kv_heads": 2,
    "model.head_dim": 6,
    "model.mlp": "gelu",
    "model.mlp_width": 40,
    "model.tie_head": True,
    "model.qk_norm": True,
    "model.rope_theta": 500.0,
    "model.norm_epsilon": 1e-5,
    "model.embedding_scale": 0.1,
    "model.dtype": "bfloat16",
    "model.head_dtype": "bfloat16",
    "model.scan_layers": True,
    "model.remat": True,
    "data.source": "markov",
    "data.tokenizer": "bpe",
    "data.vocab": 64,
    "data.path": "tokens.bin",
    "data.dtype": "uint8",
    "data.separator": 0,
    "data.document_tokens": 512,
    "data.sequence": 8,
    "data.batch": 4,
    "data.unique_tokens": 2048,
    "data.eval_sequences": 4,
    "data.subset_seed": 1,
    "data.synthetic.tokens": 1000,
    "data.synthetic.held_out": 1000,
    "data.synthetic.seed": 1,
    "data.synthetic.order": 1,
    "data.synthetic.states": 4,
    "data.synthetic.stay": 0.9,
    "data.synthetic.zipf": 0.5,
    "data.synthetic.spread": 0.25,
    "optimizer.name": "scaling_jax.optim.adamw",
    "optimizer.learning_rate": 2e-3,
    "optimizer.weight_decay": 0.0,
    "optimizer.b1": 0.8,
    "optimizer.b2": 0.99,
    "optimizer.epsilon": 1e-7,
    "schedule.name": "wsd",
    "schedule.warmup": 0.1,
    "schedule.final": 0.1,
    "schedule.cooldown": 0.5,
    "train.steps": 5,
    "train.epochs": 3.0,
    "train.clip_norm": None,
    "train.accumulate": 2,
    "train.objective": "scaling_jax.train.objectives:cross_entropy",
    "train.evaluate": ("tune",),
    "train.evaluate_every": 7,
    "train.log_every": 1,
    "train.checkpoint_every": 7,
    "train.members": "map",
    "seed": 1,
}
RECORDED = {"model.scan_layers", "model.remat", "data.path"}
RECORDED |= {"train.evaluate_every", "train.log_every", "train.checkpoint_every", "train.members"}
TRACED = {name for name in CHANGED if name.startswith(("optimizer.", "schedule.")) and not name.endswith(".name")}
TRACED |= {"seed", "train.steps", "train.epochs", "data.unique_tokens", "data.subset_seed"}


def test_every_field_is_changed_below():
    assert set(leaves(RUN)) == set(CHANGED)
    assert {name for name, (f, _) in leaves(RUN).items() if f.metadata["recorded"]} == RECORDED


@pytest.mark.parametrize("name", sorted(set(CHANGED) - {"model.vocab"}))
def test_identity_changes_exactly_with_what_changes_the_result(name):
    changed = RUN.replace(**{name: CHANGED[name]})
    assert changed != RUN
    assert (identity(changed) == identity(RUN)) == (name in RECORDED)


@pytest.mark.parametrize("name", sorted(set(CHANGED) - {"model.vocab"}))
def test_runs_share_a_program_exactly_when_only_traced_numbers_differ(name):
    changed = RUN.replace(**{name: CHANGED[name]})
    shared = cfg.program_key(changed) == cfg.program_key(RUN)
    assert shared == (name in TRACED)
    assert not shared or state.static(cfg.bind(changed, CORPUS)) == state.static(cfg.bind(RUN, CORPUS))  # what jit compiles for


def test_equal_runs_said_differently_have_one_identity():
    steps = cfg.bind(RUN, CORPUS).train.steps
    said = [
        RUN.replace(**{"train.steps": steps}),
        RUN.replace(**{"model.vocab": 256}),
        cfg.bind(RUN, CORPUS),
        cfg.resolve(ConfigDict(BASE)),
    ]
    said.append(RUN.replace(**{"optimizer.weight_decay": "1e-1"}))
    assert {identity(run) for run in said} == {identity(RUN)}
    assert identity(RUN.replace(**{"train.clip_norm": 1})) == identity(RUN)  # 1 and 1.0


def test_the_corpus_and_the_schema_are_part_of_the_identity(monkeypatch):
    assert cfg.identity(RUN, corpus(fingerprint="f" * 16)) != identity(RUN)
    assert cfg.identity(RUN, corpus(vocab=64)) != identity(RUN)
    before = identity(RUN)
    monkeypatch.setattr(cfg, "SCHEMA", cfg.SCHEMA + 1)
    assert identity(RUN) != before


# A changed hash means that every stored run is trained again. Give a new field its `off` value, or raise SCHEMA and say so.
PINNED = {
    "": {},
    "seed": {"seed": 1},
    "width": {"model.width": 64},
    "grouped": {"model.kv_heads": 2, "model.tie_head": True},
    "steps": {"train.steps": 100},
    "rates": {"optimizer.learning_rate": 3e-4, "optimizer.weight_decay": 3.2},
    "wsd": {"schedule.name": "wsd", "schedule.cooldown": 0.3},
    "all data": {"data.unique_tokens": None},
    "markov": {"data.source": "markov", "data.synthetic.order": 1},
    "no clipping": {"train.clip_norm": None, "train.evaluate": ("tune", "test")},
}
HASHES = {
    "": "76e1104f6b59b372",
    "seed": "dc0410b1a6511261",
    "width": "b3a45fb7d4ba6232",
    "grouped": "581cdb171d79d263",
    "steps": "3ac6fcb45600f390",
    "rates": "be5c4a26e1100ed0",
    "wsd": "03823bba42b41fc5",
    "all data": "37ae66e10df4fe4d",
    "markov": "a7681f445a3fb9c6",
    "no clipping": "c1a554190f6030a4",
}


def test_ten_identities_are_pinned():
    assert {name: identity(RUN.replace(**overrides)) for name, overrides in PINNED.items()} == HASHES


def test_a_file_cut_into_less_than_windows_is_refused():
    file = {"data.source": "file", "data.path": "t.bin"}
    short = RUN.replace(**file, **{"data.document_tokens": 16})
    with pytest.raises(
        ConfigError, match=r"config.data.document_tokens = 16: .* windows of data.sequence = 16 .*; set data.document_tokens far above"
    ):
        cfg.bind(short, CORPUS)
    for fine in ({"data.document_tokens": 512}, {"data.document_tokens": 16, "data.separator": 0}):
        cfg.bind(RUN.replace(**file, **fine), CORPUS)
