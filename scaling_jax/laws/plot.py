"""A figure of a fitted law: its points, the curve and its band; one panel, as a Matplotlib figure or a file."""

import numpy as np

BEYOND = 4.0  # how far past the last point the curve is drawn, as a factor
LEVELS = 6  # most values of a second input that get a curve of their own
AT = 40  # points of a curve
BANDED = 33  # of them where the band is computed, a profile each


def of_fit(found, path=None):
    """Draws `found`; writes it to `path` (.svg, .png, .pdf) where given, and returns the Matplotlib figure.

    A law of one input is drawn over it with its 95% band, a law of two over the first with a curve for each value of the second (at most
    six, spread evenly), any other as measured against predicted.
    """
    from matplotlib.figure import Figure

    if found.points is None:
        raise ValueError("this fit has no points to draw; fit again, or keep them in fit.json")
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    names = found.form.inputs
    if len(names) == 1:
        _one(axes, found, names[0])
    elif len(names) == 2:
        _two(axes, found, *names)
    else:
        _against(axes, found)
    axes.set_title(found.form.equation, fontsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if path is not None:
        figure.savefig(path)
    return figure


def _one(axes, found, name):
    x, y = found.points.columns[name], found.points.target
    log = bool((x > 0).all())
    low, high = x.min(), x.max() * BEYOND if log else x.max()
    spread = np.geomspace if log else np.linspace
    grid, few = spread(low, high, AT), spread(low, high, BANDED)
    (line,) = axes.plot(grid, found.predict({name: grid}), lw=1.4, label=_label(found))
    if found.identified and found.n > len(found.free):
        band = found.band({name: few})
        finite = np.isfinite(band.low) & np.isfinite(band.high)
        axes.fill_between(
            few[finite], band.low[finite], band.high[finite], alpha=0.2, lw=0, color=line.get_color(), label="95% band of the law"
        )
    axes.plot(x, y, "o", ms=4, color="black", alpha=0.7, label=f"{found.n} points")
    if log:
        axes.set_xscale("log")
        axes.axvline(x.max(), lw=0.6, ls=":", color="gray", label=f"largest {name} fitted")
    axes.set_xlabel(name)
    axes.set_ylabel(found.form.y)
    axes.legend(frameon=False, fontsize=8)


def _two(axes, found, first, second):
    from matplotlib import colormaps

    x, z, y = found.points.columns[first], found.points.columns[second], found.points.target
    values = np.unique(z)
    shown = values[np.unique(np.linspace(0, len(values) - 1, LEVELS).round().astype(int))]
    scale = lambda v: np.log(v) if (values > 0).all() else v
    span = max(scale(values[-1]) - scale(values[0]), 1e-12)
    colour = lambda v: colormaps["viridis"](0.9 * (scale(v) - scale(values[0])) / span)
    grid = np.geomspace(x.min(), x.max() * BEYOND, AT) if (x > 0).all() else np.linspace(x.min(), x.max(), AT)
    for one in shown:
        axes.plot(grid, found.predict({first: grid, second: np.full(AT, one)}), lw=1.2, color=colour(one), label=f"{second} {one:.3g}")
    axes.scatter(x, y, s=12, c=[colour(v) for v in z], zorder=3)
    if (x > 0).all():
        axes.set_xscale("log")
        axes.axvline(x.max(), lw=0.6, ls=":", color="gray", label=f"largest {first} fitted")
    axes.set_xlabel(first)
    axes.set_ylabel(found.form.y)
    axes.legend(frameon=False, fontsize=8, title=_label(found), title_fontsize=8)


def _against(axes, found):
    fitted, y = found.predict(found.points.columns), found.points.target
    ends = [min(fitted.min(), y.min()), max(fitted.max(), y.max())]
    axes.plot(ends, ends, lw=1, color="gray")
    axes.plot(fitted, y, "o", ms=4, alpha=0.7, label=f"{_label(found)}, {found.n} points")
    axes.set_xlabel(f"{found.form.y}, fitted")
    axes.set_ylabel(f"{found.form.y}, measured")
    axes.legend(frameon=False, fontsize=8)


def _label(found):
    return f"{found.form.name}, r2 {found.r2:.4f}"
