"""Members of a cohort: one program, many models.

`how` says how: "loop" calls the lone program for each member, from as many threads as there are cores (bit-identical to a
lone run, one compile whatever the number of members); "map" is lax.map over a stacked member axis (one dispatch; equal to a lone
run up to rounding, since the loop's body is fused anew); "vmap" batches the members (fast on accelerators, equal up to
rounding).
"""

import functools
import operator
import os
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp


def resolve(how, platform=None):
    """The way "auto" stands for: loop on CPU, where batched members cost 1.3-1.8 x more, vmap elsewhere."""
    if how != "auto":
        return how
    return "loop" if (platform or jax.default_backend()) == "cpu" else "vmap"


def over_members(function, how, donate=()):
    """Lifts `function(*member_args)` to all members, jitted; arguments and results are as `gather` makes them."""
    if how == "loop":
        lone = jax.jit(function, donate_argnums=donate)

        def loop(*args):
            first, *rest = zip(*args, strict=True)
            done = lone(*first)  # by itself: two threads would compile the same program twice
            return _columns([done, *_threads().map(lambda member: lone(*member), rest)])

        return loop
    mapped = jax.vmap(function) if how == "vmap" else lambda *args: jax.lax.map(lambda member: function(*member), args)
    return jax.jit(mapped, donate_argnums=donate)


def at_once(how, count):
    """Members that compute at the same time: every core takes one in a loop, which leaves most of a small program's cores idle."""
    return min(count, _cores()) if how == "loop" else 1


def gather(members, how):
    """A list of member trees as the form `how` works on: the list itself (loop), or one tree with a leading member axis."""
    members = list(members)
    return members if how == "loop" else stack(members)


def split(members, how):
    """The inverse of `gather`: a list with one tree per member."""
    if how == "loop":
        return members
    count = len(jax.tree.leaves(members)[0])
    return [jax.tree.map(operator.itemgetter(i), members) for i in range(count)]


def stack(members):
    """Stacks a list of equal trees along a new leading member axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)


def _cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def _threads():
    return ThreadPoolExecutor(_cores(), thread_name_prefix="member")


def _columns(results):
    """[(a, b), (a, b)] -> ([a, a], [b, b]); plain results stay a list."""
    return tuple(map(list, zip(*results, strict=True))) if isinstance(results[0], tuple) else results
