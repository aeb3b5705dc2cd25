"""Tabular agents that learn on every task of a suite, all runs at once, and their normalised scores.

Agents differ in the target they learn towards and in how they explore:
  q        Q-learning: r + gamma max_a Q(s', a)                                   (Watkins 1989)
  sarsa    r + gamma Q(s', a') with the action a' it goes on to take              (Rummery and Niranjan 1994)
  double   two tables: one chooses the action, the other values it                (van Hasselt 2010)
  ucb      Q-learning that acts by Q(s, a) + bonus sqrt(ln t / n(s, a))           (after Auer et al. 2002)
A run ends with evaluation episodes of its greedy policy; their mean return is scored as (return - random) / (optimal - random).

Legend: T tasks, L lanes (one for each task and run, tasks slowest), S states, A actions, B branches.
"""

from dataclasses import dataclass

import numpy as np

from scaling_jax.records import field

from . import tasks

BLOCK = 100  # steps whose random numbers are drawn at once
AGENTS = ("q", "sarsa", "double", "ucb")
UNTRIED = 1e-6  # tries of an action never tried: its upper confidence term is beyond any other


@dataclass(frozen=True)
class Agent:
    """How an agent learns and explores.

    rate: a visit moves a value by this share of its error. explore: chance of a random action, falling linearly to a tenth of it.
    bonus: weight of the upper confidence term.
    """

    rate: float = field(0.2, above=0.0, at_most=1.0)
    explore: float = field(0.2, at_least=0.0, at_most=1.0)
    bonus: float = field(0.0, at_least=0.0)


@dataclass(frozen=True)
class Training:
    """The suite, what every run shares, and each agent's own hyper-parameters."""

    suite: int = field(0, at_least=0, doc="seed of the suite of tasks")
    tasks: int = field(16, at_least=1)
    noise: float = field(1.0, at_least=0.0, at_most=1.0, doc="scales slips and the spread of rewards")
    steps: int = field(1000, at_least=2, doc="environment steps a run learns from")
    episodes: int = field(10, at_least=1, doc="evaluation episodes that make a score")
    discount: float = field(0.95, at_least=0.0, at_most=1.0)
    q: Agent = field(Agent(rate=0.2))
    sarsa: Agent = field(Agent(rate=0.2))
    double: Agent = field(Agent(rate=0.4))
    ucb: Agent = field(Agent(rate=0.2, explore=0.0, bonus=0.3))


@dataclass(frozen=True, eq=False)
class Lanes:
    """A suite laid out for L walks at once: tables by flat index, and what each lane has of its own."""

    successor: np.ndarray
    below: np.ndarray
    reward: np.ndarray
    ends: np.ndarray
    first: np.ndarray  # [L]: flat index of the lane's task in state 0
    noise: np.ndarray
    horizon: np.ndarray
    start: np.ndarray  # [L, S - 1]: cumulative


def scores(training, runs, seed):
    """Normalised scores of `runs` runs of every agent on every task: [agent, run, task]; 0 is acting at random, 1 is optimal."""
    suite = tasks.draw(training.suite, training.tasks, training.noise)
    low, high = tasks.random_returns(suite)[:, None], tasks.optimal_returns(suite)[:, None]
    found = []
    for name, stream in zip(AGENTS, np.random.SeedSequence(seed).spawn(len(AGENTS)), strict=True):
        rng = np.random.default_rng(stream)
        policy = learn(suite, name, getattr(training, name), runs, training.steps, training.discount, rng)
        found.append(((evaluate(suite, policy, training.episodes, rng) - low) / (high - low)).T)
    return np.stack(found)


def learn(suite, kind, agent, runs, steps, discount, rng):
    """The greedy policy of every run after `steps` steps of agent `kind`: int [T, runs, S]."""
    lanes = lay_out(suite, runs)
    lane, draws = np.arange(lanes.first.size), _draws(rng, 5, lanes.first.size)
    # equal values are told apart at random; lanes lie behind each other, so that one index finds a lane's state
    fresh = 1e-9 * rng.random((lane.size * tasks.STATES, tasks.ACTIONS))
    tables = (fresh, fresh.copy()) if kind == "double" else (fresh,)
    tried = np.full(fresh.shape, UNTRIED)
    state, age, last = begin(lanes, rng.random(lane.size)), np.zeros(lane.size, int), None
    for step in range(steps):
        (u, v, coin, ahead, again), z = next(draws)
        place = lane * tasks.STATES + state
        values = [table[place] for table in tables]
        wish = sum(values)
        if agent.bonus:
            wish = wish + agent.bonus * np.sqrt(np.log(step + 1.0) / tried[place])
        action = np.where(u < agent.explore * (1 - 0.9 * step / steps), (v * tasks.ACTIONS).astype(np.intp), wish.argmax(1))
        tried[place, action] += 1
        if last is not None:
            _update(kind, tables, values, action, coin, last, agent.rate, discount)
        state, age, reward, ended = walk(lanes, state, age, action, ahead, again, z)
        last = place, action, reward, ended
    return sum(tables).reshape(len(suite.horizon), runs, tasks.STATES, tasks.ACTIONS).argmax(-1)


def _update(kind, tables, values, action, coin, last, rate, discount):
    """Moves the value of the last action towards its target, now that the next state's values [L, A] and action are known."""
    place, acted, reward, ended = last
    lane = np.arange(len(action))
    if kind == "double":
        heads = coin < 0.5
        mine, yours = np.where(heads[:, None], values[0], values[1]), np.where(heads[:, None], values[1], values[0])
        following = yours[lane, mine.argmax(1)]
        learning = ((tables[0], heads), (tables[1], ~heads))
    else:
        following = values[0][lane, action] if kind == "sarsa" else values[0].max(1)
        learning = ((tables[0], slice(None)),)
    target = reward + discount * np.where(ended, 0.0, following)
    for table, who in learning:
        at = place[who], acted[who]
        table[at] += rate * (target[who] - table[at])


def evaluate(suite, policy, episodes, rng):
    """Mean return of `episodes` episodes of each policy, int [T, runs, S]: [T, runs]."""
    count, runs, _ = policy.shape
    lanes = lay_out(suite, runs * episodes)
    flat, lane = np.repeat(policy, episodes, axis=1).reshape(-1), np.arange(lanes.first.size) * tasks.STATES
    draws, state, age = _draws(rng, 2, lane.size), begin(lanes, rng.random(lane.size)), np.zeros(lane.size, int)
    total, running = np.zeros(lane.size), np.ones(lane.size, bool)
    for _ in range(suite.horizon.max()):
        (ahead, again), z = next(draws)
        state, age, reward, ended = walk(lanes, state, age, flat[lane + state], ahead, again, z)
        total += np.where(running, reward, 0.0)
        running &= ~ended
    return total.reshape(count, runs, episodes).mean(-1)


def lay_out(suite, runs):
    """`Lanes` of `runs` walks on every task."""
    task = np.repeat(np.arange(len(suite.horizon)), runs)
    return Lanes(
        successor=suite.successor.reshape(-1, tasks.BRANCHES),
        below=np.cumsum(suite.probability, -1).reshape(-1, tasks.BRANCHES)[:, :-1],
        reward=suite.reward.reshape(-1),
        ends=suite.ends.reshape(-1),
        first=task * tasks.STATES,
        noise=suite.noise[task],
        horizon=suite.horizon[task],
        start=np.cumsum(suite.start, -1)[task, :-1],
    )


def begin(lanes, u):
    """A state to start in, for uniform u: int [L]."""
    return (u[:, None] >= lanes.start).sum(1)


def walk(lanes, state, age, action, u, again, z):
    """One step: (state, age, reward, ended), each [L]; an episode that ended, its time up or at an end, stands at a new start, age 0.

    u: uniform, chooses the successor; again: uniform, the new start; z: normal, the reward's noise.
    """
    index = (lanes.first + state) * tasks.ACTIONS + action
    reward = lanes.reward[index] + lanes.noise * z
    state = lanes.successor[index, (u[:, None] >= lanes.below[index]).sum(1)]
    age = age + 1
    ended = lanes.ends[lanes.first + state] | (age >= lanes.horizon)
    if ended.any():
        state, age = np.where(ended, begin(lanes, again), state), np.where(ended, 0, age)
    return state, age, reward, ended


def _draws(rng, uniforms, size):
    """Endless (uniform [uniforms, size], normal [size])."""
    while True:
        yield from zip(rng.random((BLOCK, uniforms, size)), rng.standard_normal((BLOCK, size)), strict=True)
