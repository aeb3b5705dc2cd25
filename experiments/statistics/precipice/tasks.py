"""A suite of small sequential decision tasks whose optimal and random returns are known by dynamic programming.

Four families in turn, each task with parameters of its own drawn from the suite's seed: a chain to walk against a current, a
grid with a goal and a pit, a contextual bandit, a random Markov decision process (Garnet). All have four actions and at most
`STATES` states and `BRANCHES` successors, so that every agent's every run on every task is one array operation.

Legend: T tasks, S states, A actions, B branches.
"""

from dataclasses import dataclass

import numpy as np

STATES, ACTIONS, BRANCHES = 36, 4, 4
FAMILIES = ("chain", "grid", "bandit", "garnet")
GAP = 1.0  # return by which the optimal policy beats the random one, at least
ATTEMPTS = 1000


@dataclass(frozen=True, eq=False)
class Suite:
    """Tasks as tables.

    successor: int [T, S, A, B]. probability: [T, S, A, B], sums to 1 over B. reward: its mean [T, S, A], on taking the action;
    noise: its standard deviation [T]. ends: bool [T, S], states that end an episode. start: [T, S]. horizon: int [T].
    """

    successor: np.ndarray
    probability: np.ndarray
    reward: np.ndarray
    noise: np.ndarray
    ends: np.ndarray
    start: np.ndarray
    horizon: np.ndarray


def draw(seed, count, noise=1.0):
    """The suite of `count` tasks of this seed; noise scales slips and the spread of rewards, 0 leaves none of either."""
    return _stack([_one(seed, j, noise) for j in range(count)])


def _one(seed, j, noise):
    """Task j: drawn again until there is something to learn, the optimal return `GAP` above the random one."""
    for attempt in range(ATTEMPTS):
        task = _FAMILIES[j % len(FAMILIES)](np.random.default_rng([seed, j, attempt]), noise)
        alone = _stack([task])
        if optimal_returns(alone)[0] - random_returns(alone)[0] >= GAP:
            return task
    raise ValueError(f"task {j} of suite {seed}: in {ATTEMPTS} draws the optimal policy never beat the random one by {GAP}")


def _stack(found):
    return Suite(*(np.stack(column) for column in zip(*found, strict=True)))


def returns(suite, policy):
    """Expected undiscounted return of an episode under a policy [T, S, A], by backward induction: [T]."""
    return _induction(suite, lambda value: (policy * value).sum(-1))


def random_returns(suite):
    """Expected return of acting uniformly at random: [T]."""
    return returns(suite, np.full(suite.reward.shape, 1 / ACTIONS))


def optimal_returns(suite):
    """The highest expected return of any policy, one that counts steps included: [T]; no stationary policy does better."""
    return _induction(suite, lambda value: value.max(-1))


def _induction(suite, choose):
    """v_h(s) = choose_a [r(s, a) + sum_b p(b | s, a) v_(h - 1)(s_b)] for s that do not end, v_0 = 0; the start's mean of v_horizon."""
    tasks, out = np.arange(len(suite.horizon)), np.zeros(len(suite.horizon))
    value = np.zeros(suite.ends.shape)
    for step in range(1, suite.horizon.max() + 1):
        ahead = (suite.probability * value[tasks[:, None, None, None], suite.successor]).sum(-1)
        value = np.where(suite.ends, 0.0, choose(suite.reward + ahead))
        out = np.where(suite.horizon == step, (suite.start * value).sum(-1), out)
    return out


def _empty():
    """Tables of a task in which nothing happens: every action stays where it is."""
    stay = np.broadcast_to(np.arange(STATES)[:, None, None], (STATES, ACTIONS, BRANCHES)).copy()
    probability = np.zeros((STATES, ACTIONS, BRANCHES))
    probability[..., 0] = 1.0
    return stay, probability, np.zeros((STATES, ACTIONS)), np.zeros(STATES, bool), np.zeros(STATES)


def _chain(rng, noise):
    """A river: one action swims up, which fails often, all others drift down to a small reward; the large one is at the top."""
    successor, probability, reward, ends, start = _empty()
    length, slip, small = int(rng.integers(2, 7)), noise * rng.uniform(0.05, 0.3), rng.uniform(0.02, 0.1)
    state, up = np.arange(length), int(rng.integers(ACTIONS))
    successor[:length] = np.maximum(state - 1, 0)[:, None, None]
    successor[:length, up, 0] = np.minimum(state + 1, length - 1)
    successor[:length, up, 1] = np.maximum(state - 1, 0)
    probability[:length, up, :2] = 1 - slip, slip
    reward[0], reward[length - 1, up] = small, 1.0
    reward[0, up] = 0.0
    start[0] = 1.0
    return successor, probability, reward, noise * 0.1, ends, start, 4 * length


def _grid(rng, noise):
    """Walk to the goal, past a pit; a slip goes to either side. Every step costs."""
    successor, probability, reward, ends, start = _empty()
    high, wide, slip = int(rng.integers(3, 7)), int(rng.integers(3, 7)), noise * rng.uniform(0.0, 0.3)
    y, x = np.divmod(np.arange(high * wide), wide)
    move = lambda dy, dx: np.clip(y + dy, 0, high - 1) * wide + np.clip(x + dx, 0, wide - 1)
    to = np.stack([move(-1, 0), move(0, 1), move(1, 0), move(0, -1)], axis=1)
    here, goal = high * wide, high * wide - 1
    for action in range(ACTIONS):
        successor[:here, action, :3] = to[:, [action, (action + 1) % ACTIONS, (action - 1) % ACTIONS]]
        probability[:here, action, :3] = 1 - slip, slip / 2, slip / 2
    pit = int(rng.integers(1, goal))
    ends[[goal, pit]] = True
    reward[:here] = -0.02 + (probability[:here] * (1.0 * (successor[:here] == goal) - 1.0 * (successor[:here] == pit))).sum(-1)
    start[0] = 1.0
    return successor, probability, reward, 0.0, ends, start, 3 * (high + wide)


def _bandit(rng, noise):
    """A bandit whose best arm depends on a context, drawn anew at every step."""
    successor, probability, reward, ends, start = _empty()
    contexts = int(rng.integers(1, BRANCHES + 1))
    successor[:contexts, :, :contexts] = np.arange(contexts)
    probability[:contexts, :, :contexts] = 1 / contexts
    reward[:contexts] = rng.normal(size=(contexts, ACTIONS))
    start[:contexts] = 1 / contexts
    return successor, probability, reward, noise * rng.uniform(0.5, 3.0), ends, start, 10


def _garnet(rng, noise):
    """A random decision process: three successors per action, rewards in one state of five."""
    successor, probability, reward, ends, start = _empty()
    states, branches = int(rng.integers(8, STATES + 1)), 3
    successor[:states, :, :branches] = rng.integers(states, size=(states, ACTIONS, branches))
    split = rng.dirichlet(np.ones(branches), size=(states, ACTIONS))
    likely = np.eye(branches)[split.argmax(-1)]
    probability[:states, :, :branches] = noise * split + (1 - noise) * likely if noise <= 1 else split
    reward[:states] = rng.normal(size=(states, ACTIONS)) * (rng.random(states) < 0.2)[:, None]
    start[int(rng.integers(states))] = 1.0
    return successor, probability, reward, noise * rng.uniform(0.1, 1.0), ends, start, 20


_FAMILIES = (_chain, _grid, _bandit, _garnet)
