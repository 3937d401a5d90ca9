"""Rules of batches and passes.

1. A batch says of every turn and every reply token what the episodes say, once each.
2. What the network says of a token or a turn does not depend on which others share its pass: any budget gives the same numbers.
3. Log-probabilities are those the sampler recorded; values are read where the definitions put them, the final state's included.
4. Only the chosen trajectories are run.
"""

from __future__ import annotations

import pytest
import torch

from hiper.config import Constrain, Context
from hiper.model.actor import Actor
from hiper.rollout.batch import Batch, make_batch
from hiper.rollout.episode import Episode
from hiper.train.microbatch import MicroBatch, microbatches

TEMPERATURE = 1.1
Play = dict[tuple[Context, Constrain], list[Episode]]
CPU = torch.device("cpu")


@pytest.fixture
def actor(actor: Actor) -> Actor:
    """In double precision: a value read one position off must not hide behind rounding."""
    return actor.double()


@pytest.fixture(params=[(context, constrain) for context in Context for constrain in Constrain], ids=lambda pair: "-".join(pair))
def episodes(request: pytest.FixtureRequest, play: Play) -> list[Episode]:
    return play[request.param]


@torch.no_grad()
def run(actor: Actor, batch: Batch, budget: int, chosen: list[int] | None = None) -> list[MicroBatch]:
    rows = torch.tensor(range(len(batch.mask)) if chosen is None else chosen)
    return list(microbatches(actor, batch, rows, budget=budget, temperature=TEMPERATURE, with_entropies=True))


def gathered(batch: Batch, found: list[MicroBatch]) -> dict[str, torch.Tensor]:
    """The passes' results put in the batch's order."""
    flat = torch.full((2, batch.tokens), torch.nan)
    values = torch.full((*batch.mask.shape, 3), torch.nan)
    final = torch.full((len(batch.mask), 3), torch.nan)
    for part in found:
        assert flat[0, part.tokens].isnan().all(), "no token twice"
        flat[0, part.tokens], flat[1, part.tokens] = part.logprobs, part.entropies
        assert values[part.turns[:, 0], part.turns[:, 1]].isnan().all(), "no turn twice"
        values[part.turns[:, 0], part.turns[:, 1]] = part.values.float()
        final[part.final_rows] = part.final_values.float()
    return {"logprobs": flat[0], "entropies": flat[1], "values": values, "final": final}


def test_a_batch_says_what_the_episodes_say(episodes: list[Episode]) -> None:
    batch = make_batch(episodes, CPU)
    assert len({len(episode.trajectory.turns) for episode in episodes}) > 1, "ragged, or padding goes untested"
    assert batch.mask.sum(1).tolist() == [len(episode.trajectory.turns) for episode in episodes]
    assert batch.terminated.tolist() == [episode.terminated for episode in episodes]
    assert batch.read_tokens == sum(len(sequence.ids) for episode in episodes for sequence in episode.sequences)
    for row, episode in enumerate(episodes):
        turns = episode.trajectory.turns
        count = len(turns)
        assert batch.mask[row].tolist() == [True] * count + [False] * (batch.mask.shape[1] - count)
        assert batch.rewards[row, :count].tolist() == [turn.reward for turn in turns]
        assert batch.segment_starts[row, :count].tolist() == [turn.switch for turn in turns]
        assert batch.invalid[row, :count].tolist() == [bool(turn.faults) or not turn.admissible for turn in turns]
        assert batch.keep[row, :count].tolist() == episode.keeps
        assert batch.mismatch[row, :count].tolist() == episode.mismatches
        replies = [(tokens, sequence) for sequence in episode.sequences for tokens in sequence.turns]
        of_row = batch.token_row == row
        assert batch.token_id[of_row].tolist() == [i for t, s in replies for i in s.ids[t.start : t.start + len(t.blocks)]]
        length = int(of_row.sum())
        assert batch.blocks[row].tolist() == [b for t, _ in replies for b in t.blocks] + [0] * (batch.blocks.shape[1] - length)
        assert batch.turns[row, :length].tolist() == [t.turn for t, _ in replies for _ in t.blocks]
        assert batch.sampled_logprobs[of_row].tolist() == pytest.approx([p for t, _ in replies for p in t.logprobs])
        assert [batch.allowed[i] for i in of_row.nonzero().flatten().tolist()] == [a for t, _ in replies for a in t.allowed]
    seen = {}  # equal observations have equal numbers, others others; so have games that are played in a row
    for episode, anchors in zip(episodes, batch.anchors.tolist(), strict=True):
        for turn, anchor in zip(episode.trajectory.turns, anchors, strict=False):
            assert seen.setdefault(turn.observation, anchor) == anchor
    assert len(set(seen.values())) == len(seen) > 1
    assert [episode.trajectory.task_id for episode in episodes] == [
        list(dict.fromkeys(e.trajectory.task_id for e in episodes))[group] for group in batch.groups
    ]
    ids = [batch.sequences[s].ids[p] for s, p in zip(batch.token_sequence.tolist(), batch.token_position.tolist(), strict=True)]
    assert ids == batch.token_id.tolist()
    assert (batch.final_sequence >= 0).tolist() == [not episode.terminated for episode in episodes]


def test_tables_and_flat_tokens_are_two_views(episodes: list[Episode]) -> None:
    batch = make_batch(episodes, CPU)
    numbers = torch.arange(1.0, batch.tokens + 1)
    table = batch.by_row(numbers)
    assert torch.equal(batch.flat(table), numbers)
    assert int((table != 0).sum()) == batch.tokens
    assert torch.equal(batch.flat(batch.turns), batch.turns[batch.token_row, batch.token_column])


@pytest.mark.parametrize("budget", [1, 700, 10**9])
def test_the_budget_changes_nothing(actor: Actor, episodes: list[Episode], budget: int) -> None:
    batch = make_batch(episodes, CPU)
    parts = run(actor, batch, budget)
    if budget == 1:
        assert len(parts) == len(batch.sequences)
    if budget == 10**9:
        assert len(parts) == 1
    found, expected = gathered(batch, parts), gathered(batch, run(actor, batch, 2000))
    for name in found:
        torch.testing.assert_close(found[name], expected[name], atol=1e-5, rtol=1e-5, equal_nan=True, msg=name)
    assert torch.equal(found["logprobs"].isnan(), batch.forced)
    assert torch.equal(~found["values"].isnan().any(-1), batch.mask)
    assert torch.equal(~found["final"].isnan().any(-1), ~batch.terminated)


def test_the_learner_and_the_sampler_agree(actor: Actor, episodes: list[Episode]) -> None:
    batch = make_batch(episodes, CPU)
    open_ = ~batch.forced
    found = gathered(batch, run(actor, batch, 2000))["logprobs"]
    torch.testing.assert_close(found[open_], batch.sampled_logprobs[open_], atol=1e-5, rtol=0)
    assert not batch.sampled_logprobs[batch.forced].any(), "a token without an alternative is certain"


@torch.no_grad()
def test_values_are_read_where_the_definitions_put_them(actor: Actor, episodes: list[Episode]) -> None:
    """V_high and V_switch at the state that predicts the reply's first token, V_low at the one that predicts its `low` token."""
    batch = make_batch(episodes, CPU)
    found = gathered(batch, run(actor, batch, 2000))
    for row, episode in enumerate(episodes):
        for sequence in episode.sequences:
            plain = actor(torch.tensor([sequence.ids])).values[0].float()
            for tokens in sequence.turns:
                expected = torch.stack([plain[tokens.start + tokens.low - 1, 0], *plain[tokens.start - 1, 1:]])
                torch.testing.assert_close(found["values"][row, tokens.turn], expected, atol=1e-5, rtol=1e-5)
            if sequence.final is not None:
                torch.testing.assert_close(found["final"][row], plain[sequence.final], atol=1e-5, rtol=1e-5)
    assert float(found["values"][batch.mask].std(0).min()) > 0.01, "values that are all alike would fit any position"


@torch.no_grad()
def test_entropies_are_those_of_the_limited_distribution(actor: Actor, play: Play) -> None:
    batch = make_batch(play[Context.append, Constrain.admissible], CPU)
    found = gathered(batch, run(actor, batch, 2000))["entropies"]
    bound = torch.tensor([float(actor.lm.config.vocab_size) if limit is None else float(len(limit.ids)) for limit in batch.allowed]).log()
    assert batch.forced.any()
    assert torch.equal(found.isnan(), batch.forced), "a token without an alternative has no entropy to compute"
    open_ = (~batch.forced).nonzero().flatten()
    assert bool((found[open_] <= bound[open_] + 1e-5).all())
    assert bool((found[open_] >= -1e-6).all())
    token = int(open_[5])
    ids = batch.sequences[int(batch.token_sequence[token])].ids[: int(batch.token_position[token])]
    logits = actor.logits(actor(torch.tensor([ids])).hidden[0, -1:])[0] / TEMPERATURE
    limit = batch.allowed[token]
    logits = logits if limit is None else logits[limit.ids]
    assert float(found[token]) == pytest.approx(float(torch.distributions.Categorical(logits=logits).entropy()), abs=1e-3)


def test_only_the_chosen_are_run(actor: Actor, episodes: list[Episode]) -> None:
    batch = make_batch(episodes, CPU)
    parts = run(actor, batch, 2000, chosen=[1, 3])
    assert set(torch.cat([batch.token_row[part.tokens] for part in parts]).tolist()) == {1, 3}
    assert set(torch.cat([part.turns[:, 0] for part in parts]).tolist()) == {1, 3}
    assert sum(len(part.tokens) for part in parts) == int((torch.isin(batch.token_row, torch.tensor([1, 3])) & ~batch.forced).sum())


@torch.no_grad()
def test_values_and_entropies_can_be_left_out(actor: Actor, episodes: list[Episode]) -> None:
    batch = make_batch(episodes, CPU)
    (part,) = microbatches(actor, batch, torch.arange(5), budget=10**9, temperature=TEMPERATURE, with_values=False)
    assert part.values.numel() == part.entropies.numel() == part.final_values.numel() == 0
    torch.testing.assert_close(part.logprobs, run(actor, batch, 10**9)[0].logprobs)
