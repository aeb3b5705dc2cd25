"""Fantastic pretraining optimizers (arXiv:2509.02046), its published losses: AdamW's data laws, and how much faster others are.

A size's law L(D) = E + B / D^beta is fitted, by plain least squares, to all AdamW runs of that size: four, and five where a run at 16
times exists (130m, 300m); D counts in multiples of 20 tokens per parameter. Leaving the run at 16 times out changes 130m's exponent
from 0.435 to 0.495, and only with it do the authors' constants come out. Four points for three parameters leave one degree of freedom:
no bootstrap and no jackknife, and profile intervals of the speed-ups that are wide wherever the law bends.
"""

from pathlib import Path

import numpy as np

from scaling_jax.laws import derived, fitting, forms, tables

TABLE = Path(__file__).resolve().parents[2] / "published" / "optimizers_best.csv"
SIZES = ("130m", "300m", "520m", "1.2b")


def losses():
    """The lowest published losses as a frame: optimizer, size, ratio (D / 20 N), loss."""
    return tables.read_points(TABLE, needed=("ratio", "loss")).astype({"ratio": int})


def data_law(frame, size, most=np.inf, optimizer="adamw"):
    """L(D) of one optimizer and size, from its runs at ratios up to `most`: a Fit of forms.data_power with tokens in multiples of 20 N.

    Raises:
      NotTestable: three runs or fewer, as of optimizers without a run at eight times and `most` of 4.
    """
    part = frame[(frame["optimizer"] == optimizer) & (frame["size"] == size) & (frame["ratio"] <= most)]
    return fitting.fit(forms.data_power, {"tokens": part["ratio"].to_numpy(float), "loss": part["loss"].to_numpy()})


def speed_ups(frame, optimizer, size):
    """{ratio: D_eff / D}: how many times as many tokens AdamW needs for the optimizer's loss, by AdamW's law at that size."""
    law, part = data_law(frame, size), frame[(frame["optimizer"] == optimizer) & (frame["size"] == size)]
    return {row.ratio: derived.effective_data(law, row.loss, row.ratio) for row in part.itertuples()}


def speed_up_interval(frame, optimizer, size, ratio, level=0.95):
    """The profile interval of one speed-up: AdamW's runs vary about their law, the optimizer's own loss is taken as it is.

    With four runs of AdamW there is one degree of freedom, t = 12.7 at 95%; with five, two, t = 4.3. An end may be infinite: there the
    law's floor can lie above the loss.
    """
    law = data_law(frame, size)
    part = frame[(frame["optimizer"] == optimizer) & (frame["size"] == size) & (frame["ratio"] == ratio)]
    (loss,) = part["loss"]

    def quantity(p):
        gap = np.maximum(loss - p["E"], np.finfo(float).tiny)
        return np.exp(np.log(p["B"] / gap) / p["beta"]) / ratio

    return law.interval(quantity, level)
