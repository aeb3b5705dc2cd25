from scaling_jax.laws.fitting import *  # noqa  temporary, goes away
from scaling_jax.laws.form import NotTestable  # noqa
