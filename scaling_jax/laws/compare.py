"""Which law predicts: fitted without the largest points, judged on them; and several groups fitted with parameters in common."""

import numpy as np

from scaling_jax.laws.fitting import fit
from scaling_jax.laws.form import Form, NotTestable, as_form


def held_out(laws, data, by, share=0.2, above=None, **options):
    """Laws fitted to the points with the smallest `by` and judged on those with the largest.

    Args:
      laws: Forms or plain functions that predict one column. data: frame with their inputs and that column.
      by: the column that says what is large ("params", "compute", ...). share: of points held out, at least one; points that tie with the
        smallest held out are held out too. above: hold out what lies above this value instead.
      options: of fitting.fit.
    Returns:
      pandas frame indexed by law, best first: fitted, held_out (counts), median_error, worst_error (relative, of the held-out points),
      log_score (mean log density of the held-out residuals under a normal with the fit's own spread), aic (nan where the laws are not
      fitted by one loss: give `loss`), note.
    """
    import pandas as pd

    forms = [as_form(law) for law in laws]
    if len({form.name for form in forms}) < len(forms):
        raise ValueError(f"laws: two are called {next(f.name for f in forms if [g.name for g in forms].count(f.name) > 1)!r}; rename one")
    data, weights, clusters = _chosen(data, options.pop("where", None), options.pop("weights", None), options.pop("clusters", None))
    if by not in data:
        raise ValueError(f"by = {by!r}: the data have no such column; they have {', '.join(map(str, data))}")
    size = np.asarray(data[by], np.float64)
    if not np.isfinite(size).all():
        raise ValueError(f"{by}: every row needs a finite value to say which are the largest")
    cut = np.sort(size)[::-1][max(1, round(share * len(size))) - 1] if above is None else above
    largest = size >= cut if above is None else size > above
    if largest.all() or not largest.any():
        raise NotTestable(f"{int(largest.sum())} of {len(size)} points lie in the part held out by {by}; choose another share or `above`")
    take = lambda mask: {name: np.asarray(data[name])[mask] for name in data}
    small, large, rows = take(~largest), take(largest), {}
    one_loss = options.get("loss") is not None or len({form.loss for form in forms}) == 1
    for form in forms:
        y = options.get("y") or form.y
        row = {"fitted": int((~largest).sum()), "held_out": int(largest.sum()), "note": ""}
        try:
            part = lambda labels: None if labels is None else labels[~largest]
            found = fit(form, small, weights=part(weights), clusters=part(clusters), **options)
            error = found.predict(large) - np.asarray(large[y], np.float64)
            relative = np.abs(error) / np.abs(np.asarray(large[y], np.float64))
            spread = np.sqrt(
                np.mean((found.predict(small) - np.asarray(small[y], np.float64)) ** 2) * found.n / (found.n - len(found.free))
            )
            score = -0.5 * np.mean((error / spread) ** 2) - np.log(spread * np.sqrt(2 * np.pi)) if spread > 0 else float("nan")
            row |= {"median_error": float(np.median(relative)), "worst_error": float(relative.max()), "log_score": float(score)}
            row |= {"aic": found.aic if one_loss else float("nan"), "note": "; ".join(found.warnings)}
        except NotTestable as error:
            row["note"] = str(error)
        rows[form.name] = row
    columns = ["fitted", "held_out", "median_error", "worst_error", "log_score", "aic", "note"]
    return pd.DataFrame.from_dict(rows, orient="index").reindex(columns=columns).sort_values("median_error")


def _chosen(data, where, *labels):
    """The rows of `where` as a mapping, and what belongs to each row, such as its weight, of those rows."""
    keep = np.ones(len(np.asarray(data[next(iter(data))])), bool)
    for name, value in (where or {}).items():
        keep &= np.isin(np.asarray(data[name]), value if isinstance(value, (list, tuple)) else [value])
    return {name: np.asarray(data[name])[keep] for name in data}, *(None if one is None else np.asarray(one)[keep] for one in labels)


def pooled(law, groups, shared):
    """The law of several groups with the parameters `shared` in common, to be fitted: a Form whose input "group" is 0, 1, ...

    `laws.fit(pooled(forms.chinchilla, ["c4", "rw"], ("alpha", "beta")), {..., "group": codes})` has alpha, beta, E[c4], E[rw], ...
    """
    form = as_form(law)
    if strange := [name for name in shared if name not in form.params]:
        raise ValueError(f"shared: {form.name} has no parameter {strange[0]!r}; it has {', '.join(form.params)}")
    own = [name for name in form.params if name not in shared]
    names = (*shared, *(f"{name}[{group}]" for name in own for group in groups))
    origin = {name: name.partition("[")[0] for name in names}

    def function(p, columns):
        if strange := set(np.unique(columns["group"]).tolist()) - set(range(len(groups))):
            raise ValueError(f"group = {sorted(strange)[0]:g}: expected 0 to {len(groups) - 1}, the positions in {list(groups)}")
        which = [columns["group"] == i for i in range(len(groups))]
        local = {name: p[name] for name in shared}
        for name in own:
            local[name] = sum(p[f"{name}[{group}]"] * mask for group, mask in zip(groups, which, strict=True))
        return form.function(local, columns)

    return Form(
        name=f"{form.name} with {', '.join(shared) or 'nothing'} in common",
        equation=form.equation,
        inputs=(*form.inputs, "group"),
        params=names,
        function=function,
        bounds={name: form.bounds[origin[name]] for name in names},
        linear=tuple(name for name in names if origin[name] in form.linear),
        starts={name: form.starts[origin[name]] for name in names if origin[name] in form.starts},
        positive=form.inputs if form.positive is True else form.positive or (),
        loss=form.loss,
        link=form.link,
        y=form.y,
        source=form.source,
    )
