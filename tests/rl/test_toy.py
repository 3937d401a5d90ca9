"""A two-level world small enough to write down every trajectory, so that expectations are sums and not samples.

Rules pinned here, at gamma = lam = 1 with exact critics:

- the estimator is unbiased: its mean over all trajectories is the gradient of the expected return, to rounding, for both switch credits;
- so is the mean of sampled trajectories, within three standard errors;
- no level's advantage has a larger mean square, at any turn, than the flat one (return to go minus value): a theorem, since HAE's are
  conditional means of the same return, less a baseline that knows more;
- the variance of the gradient estimate is lower too where the policy is undecided. That is no theorem: errors of different turns and
  levels may cancel in the flat estimate. Over 100 random policies of each of four sharpnesses the mean ratio to flat was 0.80, 0.84,
  0.90, 0.93 with `segment_return` and 0.72, 0.75, 0.80, 0.86 with `option_value`, yet single sharp policies exceeded 1.5;
- each level alone is right: its part of the mean is the gradient with respect to its own parameters;
- critics that know nothing bias the credit of actions and switches, which ends in V_high, unless `lam_end` is 1, too;
- wrong credit (A_high on the actions) would be caught.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from hiper.rl.gae import turn_advantages
from hiper.rl.hae import SWITCH_CREDITS, HierarchicalAdvantages, hierarchical_advantages

# States 0 and 1 (2 ends the episode), subgoals 0 and 1, actions 0 and 1, at most 4 turns. Turn 0 always starts a segment.
STATES, SUBGOALS, ACTIONS, HORIZON, END = 2, 2, 2, 4, 2
NEXT = ((1, 0), (2, 1))
"""NEXT[s][a]."""
REWARD = ((0.3, -0.5), (1.0, 0.2))
"""REWARD[s][a], paid on leaving s by a."""
SIZES = {"switch": (STATES, SUBGOALS), "subgoal": (STATES, SUBGOALS), "action": (STATES, SUBGOALS, ACTIONS)}
PARAMETERS = 4 + 4 + 8
LEVELS = {"switch": slice(0, 4), "subgoal": slice(4, 8), "action": slice(8, 16)}


class World(NamedTuple):
    """Every trajectory: N rows of HORIZON turns, padded on the right."""

    state: Tensor
    held: Tensor
    """Subgoal in force before the turn; 0 on turn 0, where it has no meaning."""
    subgoal: Tensor
    action: Tensor
    segment_starts: Tensor
    reward: Tensor
    mask: Tensor


def all_trajectories() -> World:
    paths: list[list[tuple[int, int, int, int, bool]]] = []

    def grow(path: list[tuple[int, int, int, int, bool]], state: int, held: int) -> None:
        if state == END or len(path) == HORIZON:
            paths.append(path)
            return
        choices = [(True, subgoal) for subgoal in range(SUBGOALS)] + ([(False, held)] if path else [])
        for start, subgoal in choices:
            for action in range(ACTIONS):
                grow([*path, (state, held, subgoal, action, start)], NEXT[state][action], subgoal)

    grow([], 0, 0)
    table = torch.zeros(len(paths), HORIZON, 5, dtype=torch.long)
    for row, path in zip(table, paths, strict=True):
        row[: len(path)] = torch.tensor(path)
    mask = torch.arange(HORIZON) < torch.tensor([len(path) for path in paths])[:, None]
    state, held, subgoal, action, start = table.unbind(2)
    reward = torch.tensor(REWARD, dtype=torch.float64)[state, action] * mask
    return World(state, held, subgoal, action, start.bool(), reward, mask)


WORLD = all_trajectories()


def unpack(theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities: switch (S, O, 2) with SWITCH at 1, subgoal (S, O), action (S, O, A)."""
    switch, subgoal, action = (theta[LEVELS[name]].reshape(size) for name, size in SIZES.items())
    keep_or_switch = torch.stack((torch.nn.functional.logsigmoid(-switch), torch.nn.functional.logsigmoid(switch)), dim=2)
    return keep_or_switch, subgoal.log_softmax(1), action.log_softmax(2)


def decision_logprobs(theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(N, T) log-probability of each switch decision, subgoal and action; zero where there was no such decision."""
    switch, subgoal, action = unpack(theta)
    decides = WORLD.mask.clone()
    decides[:, 0] = False
    return (
        switch[WORLD.state, WORLD.held, WORLD.segment_starts.long()] * decides,
        subgoal[WORLD.state, WORLD.subgoal] * (WORLD.segment_starts & WORLD.mask),
        action[WORLD.state, WORLD.subgoal, WORLD.action] * WORLD.mask,
    )


def probabilities(theta: Tensor) -> Tensor:
    """(N,) of each trajectory."""
    return torch.stack(decision_logprobs(theta)).sum(dim=(0, 2)).exp()


def expected_return(theta: Tensor) -> Tensor:
    return (probabilities(theta) * WORLD.reward.sum(1)).sum()


class Critics(NamedTuple):
    """Exact values at every turn of every trajectory, (N, T)."""

    low: Tensor
    """V_low(s_t, o_t)."""
    high: Tensor
    """V_high(s_t), a new subgoal being due."""
    before: Tensor
    """V(s_t, o_{t-1}), the switch not yet decided."""
    keep: Tensor
    """V_low(s_t, o_{t-1})."""


def exact_critics(theta: Tensor) -> Critics:
    """By dynamic programming over the turns left."""
    switch, subgoal, action = (table.exp() for table in unpack(theta))
    lows: list[Tensor] = []
    highs: list[Tensor] = []
    befores: list[Tensor] = []
    before = torch.zeros(STATES + 1, SUBGOALS, dtype=torch.float64)
    for _ in range(HORIZON):
        low = torch.zeros(STATES, SUBGOALS, dtype=torch.float64)
        for s in range(STATES):
            for a in range(ACTIONS):
                low[s] += action[s, :, a] * (REWARD[s][a] + before[NEXT[s][a]])
        high = (subgoal * low).sum(1)
        before = torch.zeros(STATES + 1, SUBGOALS, dtype=torch.float64)
        before[:STATES] = switch[..., 1] * high[:, None] + switch[..., 0] * low
        lows, highs, befores = [low, *lows], [high, *highs], [before, *befores]
    turn = torch.arange(HORIZON)
    low, high, before = torch.stack(lows), torch.stack(highs), torch.stack(befores)
    first = high[turn, WORLD.state]
    undecided = before[turn, WORLD.state, WORLD.held]
    undecided[:, 0] = first[:, 0]
    return Critics(low[turn, WORLD.state, WORLD.subgoal], first, undecided, low[turn, WORLD.state, WORLD.held])


def advantages(theta: Tensor, switch_credit: str, critics: Critics | None = None, lam_end: float = 0.0) -> HierarchicalAdvantages:
    critics = critics or exact_critics(theta)
    return hierarchical_advantages(
        WORLD.reward,
        critics.low,
        critics.high,
        critics.before,
        WORLD.segment_starts,
        torch.ones(len(WORLD.mask), dtype=torch.bool),
        WORLD.mask,
        gamma=1.0,
        lam_low=1.0,
        lam_high=1.0,
        lam_end=lam_end,
        switch_credit=switch_credit,
        switch_probability=unpack(theta)[0][..., 1].exp()[WORLD.state, WORLD.held],
        v_low_keep=critics.keep,
    )


def estimates(theta: Tensor, switch: Tensor, high: Tensor, low: Tensor) -> Tensor:
    """(N, parameters): the policy-gradient estimate each trajectory gives."""

    def surrogate(parameters: Tensor) -> Tensor:
        a, b, c = decision_logprobs(parameters)
        return (a * switch + b * high + c * low).sum(1)

    jacobian: Tensor = torch.func.jacrev(surrogate)(theta)
    return jacobian


def policy(seed: int) -> Tensor:
    return torch.randn(PARAMETERS, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def exact_gradient(theta: Tensor) -> Tensor:
    gradient: Tensor = torch.func.grad(expected_return)(theta)
    return gradient


def test_the_world_is_written_down_right() -> None:
    theta = policy(0)
    assert probabilities(theta).sum().item() == pytest.approx(1.0)
    assert len(WORLD.mask) > 100 and WORLD.mask.sum(1).min() == 2 and WORLD.mask.sum(1).max() == HORIZON
    # The critics know the return of the policy before the first decision.
    assert exact_critics(theta).high[0, 0].item() == pytest.approx(expected_return(theta).item())


@pytest.mark.parametrize("switch_credit", SWITCH_CREDITS)
@pytest.mark.parametrize("seed", range(5))
def test_unbiased_over_all_trajectories(seed: int, switch_credit: str) -> None:
    theta = policy(seed)
    result = advantages(theta, switch_credit)
    mean = probabilities(theta) @ estimates(theta, result.switch, result.high, result.low)
    exact = exact_gradient(theta)
    for name, level in LEVELS.items():
        assert exact[level].abs().max() > 1e-3, "the toy must have something to learn on each level"
        torch.testing.assert_close(mean[level], exact[level], atol=1e-12, rtol=1e-9, msg=name)


@pytest.mark.parametrize("seed", range(5))
def test_wrong_critics_bend_the_action_s_credit_unless_it_hears_of_what_follows(seed: int) -> None:
    theta = policy(seed)
    p, exact = probabilities(theta), exact_gradient(theta)
    blind = Critics(*(torch.zeros_like(values) for values in exact_critics(theta)))

    def error(lam_end: float) -> dict[str, float]:
        result = advantages(theta, "segment_return", blind, lam_end)
        mean = p @ estimates(theta, result.switch, result.high, result.low)
        return {name: float((mean - exact)[level].abs().max()) for name, level in LEVELS.items()}

    published, open_ = error(0.0), error(1.0)
    assert published["subgoal"] < 1e-12  # the planner's credit crosses segments as it is
    assert published["action"] > 1e-2 and published["switch"] > 1e-3
    assert max(open_.values()) < 1e-12


@pytest.mark.parametrize("switch_credit", SWITCH_CREDITS)
def test_unbiased_over_sampled_trajectories(switch_credit: str) -> None:
    theta = policy(1)
    result = advantages(theta, switch_credit)
    each = estimates(theta, result.switch, result.high, result.low)
    drawn = each[torch.multinomial(probabilities(theta), 20_000, replacement=True, generator=torch.Generator().manual_seed(0))]
    error = drawn.std(dim=0) / len(drawn) ** 0.5
    assert ((drawn.mean(dim=0) - exact_gradient(theta)).abs() <= 3 * error + 1e-12).all()


def flat_advantages(theta: Tensor) -> Tensor:
    """Return to go minus the exact value before the turn, (N, T): what every token of the turn gets without a hierarchy."""
    ended = torch.ones(len(WORLD.mask), dtype=torch.bool)
    return turn_advantages(WORLD.reward, exact_critics(theta).before, ended, WORLD.mask, gamma=1.0, lam=1.0).advantages


@pytest.mark.parametrize("switch_credit", SWITCH_CREDITS)
@pytest.mark.parametrize("seed", range(5))
def test_no_advantage_is_noisier_than_flat(seed: int, switch_credit: str) -> None:
    theta = policy(seed)
    p, flat, result = probabilities(theta), flat_advantages(theta), advantages(theta, switch_credit)
    for level, mask in ((result.low, WORLD.mask), (result.high, WORLD.segment_starts & WORLD.mask), (result.switch, WORLD.mask)):
        mean_square, flat_mean_square = (p @ (level**2 * mask), p @ (flat**2 * mask))
        assert (mean_square <= flat_mean_square + 1e-12).all()
    # Knowing the subgoal and stopping at the segment's end take noise away on the first turn at least.
    assert (p @ result.low**2)[0] < 0.999 * (p @ flat**2)[0]


@pytest.mark.parametrize("switch_credit", SWITCH_CREDITS)
@pytest.mark.parametrize("seed", range(5))
def test_gradient_variance_is_below_flat_for_undecided_policies(seed: int, switch_credit: str) -> None:
    theta = 0.1 * policy(seed)
    p, flat, result = probabilities(theta), flat_advantages(theta), advantages(theta, switch_credit)

    def variance(each: Tensor) -> float:
        return float((p @ (each - p @ each) ** 2).sum())

    flat_estimates = estimates(theta, flat, flat, flat)
    torch.testing.assert_close(p @ flat_estimates, exact_gradient(theta))  # the rival is unbiased too
    ratio = variance(estimates(theta, result.switch, result.high, result.low)) / variance(flat_estimates)
    print(f"variance of the gradient, HAE ({switch_credit}) over flat GAE, policy {seed}: {ratio:.3f}")
    assert ratio < 0.9


def test_wrong_credit_would_be_caught() -> None:
    theta = policy(0)
    result = advantages(theta, "segment_return")
    p, exact = probabilities(theta), exact_gradient(theta)
    wrong = p @ estimates(theta, result.switch, result.high, result.high)  # the subgoal's credit on the action
    assert (wrong - exact)[LEVELS["action"]].abs().max() > 1e-2
