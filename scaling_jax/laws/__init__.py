"""Scaling laws: `fit = laws.fit(forms.chinchilla, frame)`, then fit.params, fit.interval("alpha"), fit.band(...), fit.plot()."""

from scaling_jax.laws.fitting import Fit, fit
from scaling_jax.laws.form import Form, NotTestable

__all__ = ["Fit", "Form", "NotTestable", "fit"]
