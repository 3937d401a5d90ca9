"""Rules of learning.

1. Credit, worked by hand: A_low on action tokens, A_high on the subgoal tokens of a segment's first turn, A_switch on switch tokens,
   nothing elsewhere; penalties, truncation and normalisation included.
2. A mini-batch is one gradient, however many passes it takes; the number of steps is epochs times mini-batches.
3. A token with positive advantage becomes likelier, one with negative advantage less likely; the critic's values move to their targets.
4. While only the critic learns, the policy's weights stay as they are to the bit.
5. Fitted value heads explain the returns they were fitted to, and only gains move where only gains are to learn.
6. The KL to the reference starts at zero and pulls back; entropy bonuses raise the entropy they name.
7. Collector, learner and estimator together solve a task they can fail.
"""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hiper.algos.hae import HAEConfig, SwitchCredit
from hiper.algos.registry import make_estimator, settings_of
from hiper.algos.types import Credit, ForwardOutputs
from hiper.config import (
    Constrain,
    Context,
    Critic,
    Dialect,
    EnvConfig,
    ModelConfig,
    ProtocolConfig,
    RolloutConfig,
    RunConfig,
    Style,
    Trainable,
    TrainerConfig,
    ValueFit,
)
from hiper.config.algo import AlgoConfig, Bootstrap, KeepMode, KLEstimator, KLPlace, Level, ShapingConfig
from hiper.model.actor import Actor, load_actor, load_tokenizer
from hiper.protocol import BlockId
from hiper.rollout.batch import Batch, make_batch
from hiper.rollout.chat import ChatCodec
from hiper.rollout.collect import Collector
from hiper.rollout.episode import Episode, TokenSequence, TokenTurn
from hiper.rollout.samplers.transformers import TransformersSampler
from hiper.rollout.trajectory import StopReason, Trajectory, Turn
from hiper.suites.base import StepResult
from hiper.suites.tasks import Task
from hiper.train.credit import assign_credit, credit_metrics
from hiper.train.forward import forward
from hiper.train.keep import keep_values
from hiper.train.learner import Learner

Play = dict[tuple[Context, Constrain], list[Episode]]
CPU = torch.device("cpu")
TEMPERATURE = 1.1
NO_PENALTIES = ShapingConfig(invalid=0.0, keep=0.0, keep_mode=KeepMode.off, keep_mismatch=0.0)
# switch switch, subgoal, action action, end token
REPLY = [BlockId.switch, BlockId.switch, BlockId.subgoal, BlockId.action, BlockId.action, BlockId.none]


def by_hand(stop: StopReason = StopReason.terminated) -> Batch:
    """One episode: see `by_hand_episode`."""
    return make_batch([by_hand_episode(stop)], CPU)


def by_hand_episode(stop: StopReason) -> Episode:
    """Three turns: a segment of two, then one of its own; the middle turn is a KEEP of other words with an inadmissible action."""
    turns = [
        Turn("", "", switch, "", "", [], admissible, reward, reward, len(REPLY))
        for switch, admissible, reward in ((True, True, 0.0), (False, False, 0.0), (True, True, 1.0))
    ]
    tokens = [TokenTurn(t, 2 + 8 * t, [int(b) for b in REPLY], 3, [0.0] * 6, [None] * 6) for t in range(3)]
    trajectory = Trajectory("game", "train", "type", "task", True, stop, turns, "")
    final = None if stop is StopReason.terminated else 25
    return Episode(trajectory, [TokenSequence(list(range(5, 31)), tokens, final)], [False, True, False], [False, True, False])


VALUES = torch.tensor([[[0.1, 0.4, 0.6], [0.2, 9.0, 0.7], [0.3, 0.5, 0.8]]])  # V_low, V_high, V_switch; the middle V_high is read by nobody
FINAL = torch.tensor([[0.25, 0.75, 5.0]])


def given(batch: Batch) -> ForwardOutputs:
    zeros = torch.zeros(batch.tokens)
    return ForwardOutputs(zeros, zeros, zeros, VALUES, FINAL * (~batch.terminated)[:, None], zeros)


def algo(name: str = "hae", **settings: object) -> AlgoConfig:
    given: dict[str, object] = {"gamma": 1.0, "shaping": NO_PENALTIES}
    if name in ("hae", "gae", "turn_gae"):
        given["normalize"] = False
    if name == "hae":
        given |= {"lam_low": 1.0, "lam_high": 0.95, "lam_end": 0.0}
    return settings_of(name)(**(given | settings))  # type: ignore[arg-type]


def credited(batch: Batch, outputs: ForwardOutputs, settings: AlgoConfig) -> Credit:
    return assign_credit(make_estimator(settings), batch, outputs)


def on_tokens(turns: list[tuple[float, float, float]]) -> list[float]:
    """(switch, subgoal, action) of each turn, laid on the tokens of `REPLY`."""
    return [value for switch, subgoal, action in turns for value in (switch, switch, subgoal, action, action, 0.0)]


def test_credit_by_hand() -> None:
    """gamma = lam_low = 1, lam_high = 0.95, rewards 0 0 1, segments {0, 1} and {2}, terminated.

    A_low:  turn 2: 1 - 0.3 = 0.7;  turn 1: V_high(2) - V_low(1) = 0.5 - 0.2 = 0.3;  turn 0: 0.2 - 0.1 + 0.3 = 0.4
    A_high: turn 2: 1 - 0.5 = 0.5;  turn 0: 0 + 0.5 - 0.4 + 0.95 * 0.5 = 0.575
    G:      turn 2: 1;  turns 1 and 0: V_high(2) = 0.5;   A_switch = G - V_switch = -0.1, -0.2, 0.2
    """
    batch = by_hand()
    credit = credited(batch, given(batch), algo())
    assert credit.shaped.tolist() == [[0.0, 0.0, 1.0]]
    expected = on_tokens([(-0.1, 0.575, 0.4), (-0.2, 0.0, 0.3), (0.2, 0.5, 0.7)])
    assert credit.advantages.tolist() == pytest.approx(expected)
    kept_subgoal = 6 + REPLY.index(BlockId.subgoal)
    assert credit.loss_mask.tolist() == [block != BlockId.none and token != kept_subgoal for token, block in enumerate(REPLY * 3)]
    low, high, switch = (value.target for value in credit.values)
    assert low.tolist()[0] == pytest.approx([0.5, 0.5, 1.0])
    assert switch.tolist()[0] == pytest.approx([0.5, 0.5, 1.0])
    assert [high[0, t].item() for t in (0, 2)] == pytest.approx([0.975, 1.0])


def test_credit_over_the_end_of_a_segment_by_hand() -> None:
    """With lam_end = 1/2 the end of segment {0, 1} is worth V_high(2) + A_high(2) / 2 = 0.75, a quarter more than in the test above."""
    batch = by_hand()
    credit = credited(batch, given(batch), algo(lam_end=0.5))
    expected = on_tokens([(0.15, 0.575, 0.65), (0.05, 0.0, 0.55), (0.2, 0.5, 0.7)])
    assert credit.advantages.tolist() == pytest.approx(expected)


def two_by_hand() -> Batch:
    """`by_hand` twice, as a group: won in three turns, and cut off in the same first state after one without reward."""
    first, second = by_hand_episode(StopReason.terminated), by_hand_episode(StopReason.turn_limit)
    turn = replace(second.trajectory.turns[0], observation="a room")
    first.trajectory.turns[0] = turn
    second = Episode(
        replace(second.trajectory, turns=[turn]),
        [replace(second.sequences[0], turns=second.sequences[0].turns[:1], final=9)],
        [False],
        [False],
    )
    return make_batch([first, second], CPU)


FLAT = {
    # Returns 1 and 0: deviation sqrt(1/2), A = +-1/sqrt 2.
    "grpo": [0.5**0.5] * 3 + [-(0.5**0.5)],
    "rloo": [1.0] * 3 + [-1.0],
    # Returns to go 1 1 1 and 0: mean 3/4, deviation sqrt(3)/4.
    "reinforce_pp": [3**-0.5] * 3 + [-(3**0.5)],
    # Turns without words are one state, met by turns 1 and 2 with return 1 each; "a room" twice, with 1 and 0.
    "gigpo": [2 * 0.5**0.5, 0.5**0.5, 0.5**0.5, -2 * 0.5**0.5],
    # 1 - V_high: 0.4, 9 and 0.5. The second: 0 + its final V_high of 0.75, less 0.4.
    "turn_gae": [0.6, -8.0, 0.5, 0.35],
}


@pytest.mark.parametrize("name", FLAT)
def test_flat_estimators_by_hand(name: str) -> None:
    """One advantage for every token of a reply, those outside the blocks and a KEEP's subgoal too."""
    batch = two_by_hand()
    scores = given(batch)._replace(values=VALUES.repeat(2, 1, 1), final_values=FINAL.repeat(2, 1) * (~batch.terminated)[:, None])
    credit = credited(batch, scores, algo(name, group_size=2))
    assert credit.advantages.tolist() == pytest.approx([value for value in FLAT[name] for _ in REPLY], abs=1e-5)
    assert credit.loss_mask.all()
    assert [(value.level, value.target[batch.mask].tolist()) for value in credit.values] == (
        [(Level.high, pytest.approx([1.0, 1.0, 1.0, 0.75]))] if name == "turn_gae" else []
    )


@pytest.mark.parametrize("levels", [[Level.low], [Level.high], [Level.switch, Level.low]])
def test_levels_left_out_do_not_learn(levels: list[Level]) -> None:
    batch = by_hand()
    whole, part = (credited(batch, given(batch), algo(levels=chosen)) for chosen in (list(Level), levels))
    blocks = {Level.low: BlockId.action, Level.high: BlockId.subgoal, Level.switch: BlockId.switch}
    wanted = [block in {blocks[level] for level in levels} for block in REPLY * 3]
    assert part.loss_mask.tolist() == [
        is_trained and is_wanted for is_trained, is_wanted in zip(whole.loss_mask.tolist(), wanted, strict=True)
    ]
    assert all(torch.equal(mine.target, theirs.target) for mine, theirs in zip(part.values, whole.values, strict=True))


def test_advantages_carry_what_the_sampler_misjudged() -> None:
    batch = by_hand()
    scores = given(batch)._replace(logprobs=torch.full((batch.tokens,), 0.5))
    plain, weighted = (credited(batch, scores, algo(tis_cap=cap)) for cap in (None, 1.2))
    torch.testing.assert_close(weighted.advantages, torch.where(plain.loss_mask, 1.2 * plain.advantages, plain.advantages))
    assert credited(batch, scores, algo(tis_cap=9.0)).advantages[0].item() == pytest.approx(-0.1 * math.exp(0.5))


def test_option_value_credit_by_hand() -> None:
    """beta: 0.25 where SWITCH was written with that probability, 1 - 0.5 beside a KEEP of 0.5. The first start is no decision.

    A_switch: turn 1: (0 - 0.5) * (9.0 - 0.2) = -4.4;  turn 2: (1 - 0.25) * (0.5 - 0.9) = -0.3
    """
    batch = by_hand()
    chances = [1.0, 0.5, 0.25]
    half = [math.log(chance) / 2 for chance in chances]  # each block has two tokens
    logprobs = torch.tensor([half[t] if block == BlockId.switch else -9.0 for t in range(3) for block in REPLY])
    scores = given(batch)._replace(logprobs=logprobs, keep_values=torch.tensor([[0.0, 0.2, 0.9]]))
    credit = credited(batch, scores, algo(switch_credit=SwitchCredit.option_value))
    assert credit.levels[Level.switch].tolist()[0] == pytest.approx([0.0, -4.4, -0.3])
    assert [value.level for value in credit.values] == [Level.low, Level.high], "nobody reads V_switch"


def test_kl_taken_off_the_reward() -> None:
    """k1 of a token is 0.5 - 0.2 = 0.3; six tokens a turn, weight 0.1: each turn pays 0.18."""
    batch = by_hand()
    scores = given(batch)._replace(logprobs=torch.full((batch.tokens,), 0.5), ref_logprobs=torch.full((batch.tokens,), 0.2))
    settings = {"kl_coef": 0.1, "kl_estimator": KLEstimator.k1, "kl_in": KLPlace.reward}
    credit = credited(batch, scores, algo(**settings))
    assert credit.shaped.tolist()[0] == pytest.approx([-0.18, -0.18, 0.82])
    batch.forced[:6] = True  # what had no alternative has no divergence
    assert credited(batch, scores, algo(**settings)).shaped.tolist()[0] == pytest.approx([0.0, -0.18, 0.82])


def test_gae_over_tokens_by_hand() -> None:
    """gamma = 1, lam = 1/2, values 0.5 everywhere: a token's advantage is half the next one's; the last token's is 1 - 0.5."""
    batch = by_hand()
    scores = given(batch)._replace(token_values=torch.full((batch.tokens,), 0.5))
    credit = credited(batch, scores, algo("gae", lam=0.5))
    expected = [0.5 * 0.5 ** (batch.tokens - 1 - place) for place in range(batch.tokens)]
    assert credit.advantages.tolist() == pytest.approx(expected)
    assert credit.token_target is not None and credit.token_target.tolist() == pytest.approx([0.5 + value for value in expected])
    assert not credit.values and credit.loss_mask.all()
    assert credit.levels[Level.low][0, 2].item() == pytest.approx(sum(expected[-len(REPLY) :]) / len(REPLY))


def test_penalties_by_hand() -> None:
    """The middle turn is invalid (-0.1), a KEEP (-0.3) of other words (-0.2): -0.6, on top of the rewards doubled."""
    batch = by_hand()
    shaping = ShapingConfig(invalid=-0.1, keep=-0.3, keep_mode=KeepMode.fixed, keep_mismatch=-0.2, success_scale=2.0)
    credit = credited(batch, given(batch), algo(shaping=shaping))
    assert credit.shaped.tolist()[0] == pytest.approx([0.0, -0.6, 2.0])
    # A_low: 1.7 | -0.6 + 0.5 - 0.2 = -0.3 | 0.1 - 0.3 = -0.2.  A_high: 1.5 | -0.6 + 0.5 - 0.4 + 0.95 * 1.5 = 0.925.  G: 2 | -0.1 | -0.1
    assert credit.advantages.tolist() == pytest.approx(on_tokens([(-0.7, 0.925, -0.2), (-0.8, 0.0, -0.3), (1.2, 1.5, 1.7)]))


@pytest.mark.parametrize(
    ("bootstrap", "low", "high"), [(Bootstrap.none, 0.0, 0.0), (Bootstrap.current, 0.3, 0.5), (Bootstrap.next, 0.25, 0.75)]
)
def test_what_follows_a_truncation(bootstrap: Bootstrap, low: float, high: float) -> None:
    batch = by_hand(StopReason.turn_limit)
    credit = credited(batch, given(batch), algo(bootstrap=bootstrap))
    assert credit.levels[Level.low][0, 2].item() == pytest.approx(1 + low - 0.3)
    assert credit.levels[Level.high][0, 2].item() == pytest.approx(1 + high - 0.5)
    assert credit.levels[Level.switch][0, 2].item() == pytest.approx(1 + high - 0.8)
    ended = by_hand()
    assert credited(ended, given(ended), algo(bootstrap=bootstrap)).levels[Level.low][0, 2].item() == pytest.approx(0.7)


def test_each_level_is_standardised_over_its_own_turns(actor: Actor, play: Play) -> None:
    batch = make_batch(play[Context.append, Constrain.admissible], CPU)
    scores = forward(actor, None, batch, budget=4000, temperature=TEMPERATURE)
    plain = credited(batch, scores, algo(shaping=ShapingConfig()))
    credit = credited(batch, scores, algo(normalize=True, shaping=ShapingConfig()))
    assert torch.equal(credit.loss_mask, plain.loss_mask)
    blocks, rows, turns = batch.flat(batch.blocks), batch.token_row, batch.flat(batch.turns)
    for block in (BlockId.switch, BlockId.subgoal, BlockId.action):
        mine = {
            (int(rows[i]), int(turns[i])): float(credit.advantages[i]) for i in (credit.loss_mask & (blocks == block)).nonzero().flatten()
        }
        values = torch.tensor(list(mine.values()), dtype=torch.float64)
        assert len(values) > 2
        assert float(values.mean()) == pytest.approx(0.0, abs=1e-5)
        assert float(values.std(correction=0)) == pytest.approx(1.0, abs=1e-4)


def config(critic: Critic = Critic.shared, algo: AlgoConfig | None = None, **trainer: object) -> RunConfig:
    settings = {"lr_actor": 1e-3, "lr_critic": 1e-2, "minibatch": 5, "max_grad_norm": 1e9, "microbatch_tokens": 4000} | trainer
    return RunConfig(
        threads=1,
        device="cpu",
        model=ModelConfig(critic=critic),
        rollout=RolloutConfig(temperature=TEMPERATURE),
        algo=algo or HAEConfig(kl_coef=0.0),
        trainer=TrainerConfig(**settings),  # type: ignore[arg-type]
    )


def learner(actor: Actor, cfg: RunConfig) -> Learner:
    return Learner.create(actor, cfg, torch.Generator().manual_seed(0))


def scored(actor: Actor, batch: Batch, cfg: RunConfig, reference: Actor | None = None) -> tuple[ForwardOutputs, Credit]:
    fitted = cfg.trainer.value_fit is ValueFit.least_squares
    scores = forward(actor, reference, batch, budget=4000, temperature=TEMPERATURE, with_states=fitted)
    return scores, credited(batch, scores, cfg.algo)


def gradients(actor: Actor) -> list[torch.Tensor]:
    return [parameter.grad.clone() for parameter in actor.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("context", Context)
@pytest.mark.parametrize("critic", Critic)
def test_a_minibatch_is_one_gradient_however_it_is_split(speaker: Path, actor: Actor, play: Play, context: Context, critic: Critic) -> None:
    batch = make_batch(play[context, Constrain.admissible], CPU)
    start = load_actor(speaker, ModelConfig(critic=critic))
    start.heads.load_state_dict(actor.heads.state_dict())
    found = []
    for budget in (10**9, 1):
        network = copy.deepcopy(start).double()
        cfg = config(critic, HAEConfig(kl_coef=0.1, entropy_coef=0.1, switch_entropy_coef=0.1), microbatch_tokens=budget)
        reference = copy.deepcopy(start)
        with torch.no_grad():
            reference.lm.get_output_embeddings().weight.mul_(0.9)
        scores, credit = scored(network, batch, cfg, reference.double())
        metrics = learner(network, cfg).update(batch, scores, credit, critic_only=False)
        found.append((metrics, gradients(network)))
    (whole_metrics, whole), (split_metrics, split) = found
    assert len(whole) == len(split) == len(list(start.parameters()))
    for ours, theirs in zip(whole, split, strict=True):
        scale = float(ours.abs().max())
        assert scale > 0
        torch.testing.assert_close(ours, theirs, atol=1e-4 * scale, rtol=0)
    assert split_metrics == pytest.approx(whole_metrics, rel=1e-4, abs=1e-6)


def test_steps_are_epochs_times_minibatches(actor: Actor, play: Play) -> None:
    batch = make_batch(play[Context.append, Constrain.free], CPU)
    cfg = config(minibatch=2, epochs=3)
    taught = learner(actor, cfg)
    taught.update(batch, *scored(actor, batch, cfg), critic_only=False)
    steps = {int(state["step"]) for state in taught.optimizer.state.values()}
    assert steps == {9}, "five trajectories two at a time, three times"


def test_the_first_step_is_taken_from_where_the_policy_stands(actor: Actor, play: Play) -> None:
    batch = make_batch(play[Context.append, Constrain.admissible], CPU)
    cfg = config(algo=HAEConfig(kl_coef=0.01))
    scores, credit = scored(actor, batch, cfg, copy.deepcopy(actor))
    metrics = learner(actor, cfg).update(batch, scores, credit, critic_only=False)
    for key in ("optim/approx_kl", "optim/clip_fraction", "optim/kl_ref"):
        assert metrics[key] == pytest.approx(0.0, abs=1e-6), key
    assert metrics["optim/grad_norm"] > 0
    watched = credit_metrics(batch, scores, credit)
    assert watched["rollout/logprob_gap"] < 1e-4
    assert 0 < watched["hae/mask_coverage"] <= 1
    assert watched["optim/entropy"] > 0
    assert all(torch.tensor(list({**metrics, **watched}.values())).isfinite())


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_credit_moves_a_tokens_probability(actor: Actor, play: Play, sign: float) -> None:
    batch = make_batch(play[Context.append, Constrain.free], CPU)
    cfg = config(lr_actor=1e-4, algo=HAEConfig(kl_coef=0.0, value_coef=0.0))
    scores, credit = scored(actor, batch, cfg)
    token = int(((scores.logprobs < -0.7) & credit.loss_mask).nonzero()[3])
    chosen = torch.zeros(batch.tokens, dtype=torch.bool)
    chosen[token] = True
    credit = credit._replace(advantages=torch.where(chosen, sign, 0.0), loss_mask=chosen)
    learner(actor, cfg).update(batch, scores, credit, critic_only=False)
    after = forward(actor, None, batch, budget=4000, temperature=TEMPERATURE).logprobs[token]
    assert sign * float(after - scores.logprobs[token]) > 1e-4


@pytest.mark.parametrize("critic", Critic)
def test_while_the_critic_warms_up_the_policy_stays(speaker: Path, play: Play, critic: Critic) -> None:
    network = load_actor(speaker, ModelConfig(critic=critic))
    before = copy.deepcopy(network.state_dict())
    batch = make_batch(play[Context.append, Constrain.free], CPU)
    cfg = config(critic, epochs=2)
    scores, credit = scored(network, batch, cfg)
    metrics = learner(network, cfg).update(batch, scores, credit, critic_only=True)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("lm."), name
    assert "optim/policy_loss" not in metrics
    assert metrics["value/loss"] > 0
    after = forward(network, None, batch, budget=4000, temperature=TEMPERATURE)
    assert torch.equal(after.logprobs, scores.logprobs)


@pytest.mark.parametrize("critic", Critic)
def test_values_move_to_their_targets(speaker: Path, play: Play, critic: Critic) -> None:
    network = load_actor(speaker, ModelConfig(critic=critic))
    batch = make_batch(play[Context.append, Constrain.free], CPU)
    lr = 2e-2 if critic is Critic.shared else 2e-3  # a linear map, or a whole trunk
    cfg = config(critic, HAEConfig(kl_coef=0.0, value_clip=100.0), lr_critic=lr, lr_actor=1e-9, epochs=20)
    scores, credit = scored(network, batch, cfg)
    learner(network, cfg).update(batch, scores, credit, critic_only=critic is Critic.shared)
    after = forward(network, None, batch, budget=4000, temperature=TEMPERATURE).values
    targets = torch.stack([value.target for value in credit.values], -1)
    for level in range(3):
        mask = batch.mask & batch.segment_starts if level == 1 else batch.mask
        before, now = (float(((values[..., level] - targets[..., level])[mask] ** 2).mean()) for values in (scores.values, after))
        assert now < 0.5 * before, level


def test_fitted_heads_explain_what_they_were_fitted_to(actor: Actor, play: Play) -> None:
    cfg = config(value_fit=ValueFit.least_squares, value_ridge=1e-6, algo=HAEConfig(lam_low=1.0, lam_high=1.0))
    batch = make_batch(play[Context.append, Constrain.free], CPU)
    scores, credit = scored(actor, batch, cfg)
    before = [p.clone() for p in actor.lm.parameters()]
    learner(actor, cfg).update(batch, scores, credit, critic_only=True)
    assert all(torch.equal(old, new) for old, new in zip(before, actor.lm.parameters(), strict=True))
    after, _ = scored(actor, batch, cfg)
    wanted = credit.values[2].target[batch.mask]
    error = (after.values[..., 2][batch.mask] - wanted).square().mean()
    assert error < 0.05 * (scores.values[..., 2][batch.mask] - wanted).square().mean()


@pytest.mark.parametrize("value_fit", ValueFit)
@pytest.mark.parametrize(("value_heads", "unread"), [(2, [2]), (1, [1, 2])])
def test_levels_share_an_output(speaker: Path, play: Play, value_fit: ValueFit, value_heads: int, unread: list[int]) -> None:
    network = load_actor(speaker, ModelConfig(value_heads=value_heads))
    batch = make_batch(play[Context.append, Constrain.free], CPU)
    cfg = config(value_fit=value_fit, algo=HAEConfig(kl_coef=0.0))
    learner(network, cfg).update(batch, *scored(network, batch, cfg), critic_only=True)
    assert [not row.any() for row in network.heads.weight] == [output in unread for output in range(3)]
    values = forward(network, None, batch, budget=4000, temperature=TEMPERATURE).values[batch.mask]
    assert torch.equal(values[:, 1], values[:, 2]), "both are read at the first token"
    assert not torch.equal(values[:, 0], values[:, 1]), "V_low is read after the subgoal"


@pytest.mark.parametrize("context", Context)
def test_the_value_of_keeping_is_read_after_a_keep_that_was_not_written(speaker: Path, actor: Actor, play: Play, context: Context) -> None:
    episodes = play[context, Constrain.grammar]
    batch = make_batch(episodes, CPU)
    values = forward(actor, None, batch, budget=4000, temperature=TEMPERATURE).values
    tokenizer = load_tokenizer(speaker)
    found = keep_values(
        actor, batch, episodes, values, lambda text: tokenizer.encode(text, add_special_tokens=False), Dialect.full, budget=4000
    )
    kept = batch.mask & ~batch.segment_starts
    switched = batch.mask & batch.segment_starts
    switched[:, 0] = False
    assert kept.any() and switched.any()
    assert torch.equal(found[kept], values[..., 0][kept])
    assert not found[~(kept | switched)].any()
    row, turn = switched.nonzero()[0].tolist()
    turns = episodes[row].trajectory.turns
    sequence = next(s for s in episodes[row].sequences for reply in s.turns if reply.turn == turn)
    start = next(reply.start for reply in sequence.turns if reply.turn == turn)
    written = f"<switch>KEEP</switch> <subgoal>{turns[turn - 1].subgoal}</subgoal>"
    ids = sequence.ids[:start] + tokenizer.encode(written, add_special_tokens=False)
    assert found[row, turn].item() == pytest.approx(actor(torch.tensor([ids])).values[0, -1, 0].item(), abs=1e-5)


def test_the_pace_scales_the_learning_rates(speaker: Path, play: Play) -> None:
    cfg = config(minibatch=100)
    batch = make_batch(play[Context.append, Constrain.free], CPU)
    steps = []
    for lr_scale in (1.0, 0.25):
        network = load_actor(speaker, ModelConfig()).eval()
        before = network.lm.get_input_embeddings().weight.detach().clone()
        learner(network, cfg).update(batch, *scored(network, batch, cfg), critic_only=False, lr_scale=lr_scale)
        steps.append((network.lm.get_input_embeddings().weight.detach() - before).norm().item())
    assert steps[1] == pytest.approx(0.25 * steps[0], rel=1e-2)


def test_gains_alone(actor: Actor, play: Play) -> None:
    cfg = config(trainable=Trainable.norms_and_biases)
    batch = make_batch(play[Context.append, Constrain.free], CPU)
    before = {name: p.clone() for name, p in actor.lm.named_parameters()}
    learner(actor, cfg).update(batch, *scored(actor, batch, cfg), critic_only=False)
    moved = {name for name, p in actor.lm.named_parameters() if not torch.equal(p, before[name])}
    assert moved
    assert all(name.endswith(("norm.weight", "layernorm.weight", "bias")) for name in moved)


def test_the_reference_pulls_back(actor: Actor, play: Play) -> None:
    batch = make_batch(play[Context.append, Constrain.free], CPU)
    reference = copy.deepcopy(actor)
    with torch.no_grad():
        for parameter in actor.lm.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    cfg = config(algo=HAEConfig(kl_coef=1.0, value_coef=0.0), lr_actor=3e-4, epochs=8)
    scores, credit = scored(actor, batch, cfg, reference)
    assert not torch.equal(scores.logprobs, scores.ref_logprobs)
    credit = credit._replace(advantages=torch.zeros_like(credit.advantages))

    def distance(found: ForwardOutputs) -> float:
        gap = found.ref_logprobs - found.logprobs
        return float((gap.exp() - gap - 1)[credit.loss_mask].mean())

    learner(actor, cfg).update(batch, scores, credit, critic_only=False)
    assert distance(forward(actor, reference, batch, budget=4000, temperature=TEMPERATURE)) < 0.7 * distance(scores)


@pytest.mark.parametrize("name", ["entropy_coef", "switch_entropy_coef"])
def test_an_entropy_bonus_raises_its_entropy(actor: Actor, play: Play, name: str) -> None:
    batch = make_batch(play[Context.append, Constrain.admissible], CPU)
    settings = HAEConfig(kl_coef=0.0, value_coef=0.0)
    cfg = config(algo=replace(settings, **{name: 1.0}), lr_actor=1e-4, epochs=3)
    scores, credit = scored(actor, batch, cfg)
    credit = credit._replace(advantages=torch.zeros_like(credit.advantages))
    learner(actor, cfg).update(batch, scores, credit, critic_only=False)
    after = forward(actor, None, batch, budget=4000, temperature=TEMPERATURE)
    mine = credit.loss_mask & (batch.flat(batch.blocks) == BlockId.switch) if name == "switch_entropy_coef" else credit.loss_mask
    assert float(after.entropies[mine].mean()) > float(scores.entropies[mine].mean()) + 1e-3


@pytest.mark.parametrize("target", [0.02, 0.9])
@pytest.mark.parametrize("budget", [10**9, 1])
def test_the_switch_rate_moves_to_its_target(actor: Actor, play: Play, target: float, budget: int) -> None:
    batch = make_batch(play[Context.append, Constrain.grammar], CPU)
    settings = HAEConfig(kl_coef=0.0, value_coef=0.0, switch_rate_target=target, switch_rate_coef=3.0)
    cfg = config(algo=settings, lr_actor=1e-3, epochs=10, microbatch_tokens=budget)
    scores, credit = scored(actor, batch, cfg)
    credit = credit._replace(advantages=torch.zeros_like(credit.advantages))
    learner(actor, cfg).update(batch, scores, credit, critic_only=False)
    after = forward(actor, None, batch, budget=4000, temperature=TEMPERATURE)
    later = batch.mask.clone()
    later[:, 0] = False
    before, now = (batch.switch_probability(found.logprobs)[later].mean().item() for found in (scores, after))
    assert abs(now - target) < 0.7 * abs(before - target)


class Choice:
    """A task of one decision: two shelves, one of which ends the episode with a reward."""

    task = "find a mug"

    def __init__(self) -> None:
        self.won = False

    @property
    def admissible_commands(self) -> list[str]:
        return ["go to cabinet 1", "go to drawer 1", "go to fridge 1"]

    @property
    def score(self) -> float:
        return float(self.won)

    def reset(self) -> str:
        self.won = False
        return "You are in the middle of a room. You see a cabinet 1, a drawer 1, and a fridge 1.\n\nYour task is to: find a mug."

    def step(self, command: str) -> StepResult:
        self.won = command == "go to drawer 1"
        return StepResult("You see nothing.", float(self.won), self.won)

    def state(self) -> bool:
        return self.won

    def restore(self, state: bool) -> None:
        self.won = state


def test_the_loop_learns_what_is_rewarded(speaker: Path) -> None:
    codec = ChatCodec(load_tokenizer(speaker))
    network = load_actor(speaker, ModelConfig(critic=Critic.separate))
    cfg = RunConfig(
        threads=1,
        device="cpu",
        env=EnvConfig(max_turns=1),
        rollout=RolloutConfig(constrain=Constrain.admissible, max_reply_tokens=24),
        protocol=ProtocolConfig(style=Style.terse),
        algo=HAEConfig(kl_coef=0.0, normalize=False, shaping=ShapingConfig(keep=0.0, keep_mode=KeepMode.off)),
        trainer=TrainerConfig(lr_actor=7e-4, lr_critic=5e-3, minibatch=16),
    )
    taught = learner(network, cfg)
    sampler = TransformersSampler(network, codec, slots=32, max_reply_tokens=24)
    sampler.begin(1.0, torch.Generator().manual_seed(0))
    collector = Collector(sampler, codec, cfg)
    won: list[float] = []
    for _ in range(15):
        games = [(Task(str(n), "train", "type", 0), Choice()) for n in range(32)]
        episodes = collector.play(games, 32)
        won.append(sum(episode.trajectory.won for episode in episodes) / 32)
        batch = make_batch(episodes, CPU)
        scores = forward(network, None, batch, budget=20_000, temperature=1.0)
        taught.update(batch, scores, credited(batch, scores, cfg.algo), critic_only=False)
    assert won[0] < 0.6, "a task solved from the start teaches nothing"
    assert sum(won[-3:]) / 3 > max(0.65, won[0] + 0.25), won
