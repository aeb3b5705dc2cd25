"""What tests of laws share."""

import pytest

from scaling_jax.laws import seal
from tests.laws.planted import AT, found


@pytest.fixture
def sealed(tmp_path):
    return seal.seal(found(), AT, tmp_path / "seal.json", register=tmp_path / "register.jsonl")
