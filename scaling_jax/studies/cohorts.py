"""From units to programs: which runs train together, what that costs, in which order.

Runs that share a program and a number of steps form cohorts of at most `LARGEST` members. A cohort's
membership is written to plan.json when it is first planned and never changes afterwards: a study that was
killed continues the same cohorts.
"""

from dataclasses import dataclass
from pathlib import Path

from scaling_jax import config as cfg
from scaling_jax.parallel import cost
from scaling_jax.train import state, trajectory

SCHEMA = 1
LARGEST = 16


@dataclass(frozen=True)
class Cohort:
    """Training units that run as one program for one number of steps."""

    units: tuple

    @property
    def name(self):
        """What a person reads: sizes, steps, members."""
        first = self.units[0].config
        return f"width {getattr(first.model, 'width', '?')} x {first.train.steps} steps x {len(self.units)} runs"

    @property
    def flops(self):
        """Training FLOPs of all members."""
        return sum(cost.of_run(unit.config).flops for unit in self.units)

    @property
    def seconds(self):
        """Expected time of all members."""
        return cost.expected_seconds([unit.config for unit in self.units])


def group(units, planned=(), known=None):
    """Cohorts of the training `units`, cheapest first.

    Args:
      planned: cohorts of an earlier start, as lists of identities. One that holds any of `units` is run again whole, its
        finished members too: a cohort's checkpoint is of all its members.
      known: identity -> unit, where members that are not among `units` are found.
    """
    by_id = {unit.identity: unit for unit in units if unit.kind == "train"}
    known = by_id if known is None else known
    cohorts, taken = [], set()
    for ids in planned:
        if (set(ids) & set(by_id)) - taken and all(i in known for i in ids):
            cohorts.append(Cohort(tuple(known[i] for i in ids)))
            taken |= set(ids)
    together = {}
    for identity, unit in by_id.items():
        if identity not in taken:
            together.setdefault((cfg.program_key(unit.config), unit.config.train.steps), []).append(unit)
    for members in together.values():
        cohorts += [Cohort(tuple(members[i : i + LARGEST])) for i in range(0, len(members), LARGEST)]
    return sorted(cohorts, key=lambda c: c.flops / len(c.units))


def read_plan(workdir):
    """The cohorts planned so far, as lists of identities."""
    path = Path(workdir) / "plan.json"
    return [c["members"] for c in trajectory.read_json(path)["cohorts"]] if path.is_file() else []


def write_plan(workdir, study, scale, cohorts, simulations=()):
    """Adds cohorts to plan.json, with what each of them costs, and the identities of `simulations` by function."""
    path = Path(workdir) / "plan.json"
    plan = trajectory.read_json(path) if path.is_file() else {"schema": SCHEMA, "study": study, "scale": scale, "cohorts": []}
    known = {tuple(c["members"]) for c in plan["cohorts"]}
    for cohort in cohorts:
        ids = [unit.identity for unit in cohort.units]
        if tuple(ids) not in known:
            first = cohort.units[0].config
            one = cost.of_run(first)
            plan["cohorts"].append(
                {
                    "members": ids,
                    "program": cfg.program_key(first),
                    "steps": first.train.steps,
                    "parameters": one.parameters,
                    "flops": cohort.flops,
                    "bytes": one.bytes * len(ids),
                }
            )
    for unit in simulations:
        members = plan.setdefault("simulations", {}).setdefault(unit.config.function.__qualname__, {})
        members[unit.identity] = {"seed": unit.config.seed, "cell": unit.cell}
    trajectory.write_json(path, plan)


def table(cohorts, finished):
    """The plan as a rich table: a row per program, then the sum."""
    from rich.table import Table

    rows = {}
    for cohort in cohorts:
        rows.setdefault(state.static(cohort.units[0].config), []).append(cohort)
    out = Table(title=None, box=None, pad_edge=False, header_style="bold")
    for column in ("program", "parameters", "members", "steps", "FLOPs", "memory", "expected"):
        out.add_column(column, justify="left" if column == "program" else "right", no_wrap=True)
    total = 0.0
    for group_ in rows.values():
        first = group_[0].units[0].config
        one = cost.of_run(first)
        flops = sum(c.flops for c in group_)
        steps = sorted({c.units[0].config.train.steps for c in group_})
        members = sum(len(c.units) for c in group_)
        memory = one.bytes * max(len(c.units) for c in group_)
        seconds = sum(c.seconds for c in group_)
        total += seconds
        span = f"{steps[0]}" if len(steps) == 1 else f"{steps[0]}-{steps[-1]}"
        out.add_row(
            _name(first),
            cost.people(one.parameters),
            str(members),
            span,
            cost.people(flops),
            cost.people(memory, "B"),
            cost.duration(seconds),
        )
    every = sum(len(c.units) for c in cohorts)
    out.add_row(
        f"{len(rows)} programs, {len(cohorts)} cohorts",
        "",
        str(every),
        "",
        cost.people(sum(c.flops for c in cohorts)),
        "",
        cost.duration(total),
        style="bold",
    )
    if finished:
        out.caption = f"{finished} units are finished already and are not run again"
    return out


def _name(run):
    return f"{run.model.name} {getattr(run.model, 'width', '?')} x {getattr(run.model, 'layers', '?')}"
