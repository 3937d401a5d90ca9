"""Rules of `trainer.recompute_logprobs=false`: the sampler keeps the policy's hidden states, and nothing is computed twice.

1. What is read from kept states is what a forward pass gives, for episodes that end, that are cut off and whose replies are cut, whatever
   rows their conversations had.
2. With the states of all sequences at hand the policy is not run.
3. States stay in their process; a message holds the episode without them.
4. A training goes on to the bit.
5. A context that starts anew each turn, a critic on a trunk of its own and a sampler that keeps no states are refused.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hiper.config import Constrain, Context, Critic, EnvConfig, ModelConfig, ProtocolConfig, RolloutConfig, RunConfig, Style, TrainerConfig
from hiper.errors import ConfigError
from hiper.model.actor import Actor, load_tokenizer
from hiper.rollout.batch import make_batch
from hiper.rollout.chat import ChatCodec
from hiper.rollout.collect import Collector
from hiper.rollout.episode import Episode
from hiper.rollout.replay import GenerateSampler, Script
from hiper.rollout.samplers.transformers import TransformersSampler
from hiper.runtime.message import decode, encode
from hiper.suites import make_env
from hiper.suites.tasks import Task, TaskIndex
from hiper.train.forward import forward
from tests.train.running import config, goes_on_to_the_bit
from tests.train.test_learner import Choice

CPU = torch.device("cpu")


def play(actor: Actor, codec: ChatCodec, constrain: Constrain, index: TaskIndex) -> list[Episode]:
    """Episodes of one to four turns in three rows, of games that end and games that are cut off; the last with replies too short."""
    found: list[Episode] = []
    for turns, most in ((4, 24), (2, 24), (2, 5)):
        cfg = RunConfig(
            env=EnvConfig(max_turns=turns),
            rollout=RolloutConfig(max_reply_tokens=most, constrain=constrain),
            protocol=ProtocolConfig(style=Style.terse),
        )
        sampler = TransformersSampler(actor, codec, slots=3, max_reply_tokens=most)
        sampler.begin(1.0, torch.Generator().manual_seed(turns), record=True)
        entries = index.split("train")[:4]
        games = [pair for n, one in enumerate(entries) for pair in ((one, make_env(cfg, index.resolve(one))), choice(n))]
        found += Collector(sampler, codec, cfg).play(games, 3, record=True)
    return found


def choice(number: int) -> tuple[Task, Choice]:
    return Task(f"choice {number}", "train", "type", 0), Choice()


@pytest.mark.parametrize("constrain", list(Constrain))
def test_kept_states_say_what_a_forward_pass_says(
    actor: Actor, speaker: Path, task_index: TaskIndex, constrain: Constrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    actor.double()  # so that passes can be compared closely
    episodes = play(actor, ChatCodec(load_tokenizer(speaker)), constrain, task_index)
    ends = {episode.terminated for episode in episodes}
    assert ends == {True, False} or constrain is Constrain.free, "both kinds of end are looked at"
    batch = make_batch(episodes, CPU)
    expected = forward(
        actor, None, make_batch([forget(episode) for episode in episodes], CPU), budget=800, temperature=1.0, with_states=True
    )
    monkeypatch.setattr(actor, "forward", None)  # rule 2: calling it would fail
    found = forward(actor, None, batch, budget=800, temperature=1.0, with_states=True)
    for name in ("logprobs", "entropies", "values", "final_values", "states"):
        assert torch.allclose(getattr(found, name), getattr(expected, name), atol=1e-5), name  # what is written is float32
    assert torch.allclose(found.logprobs, batch.sampled_logprobs, atol=1e-5)


def forget(episode: Episode) -> Episode:
    return replace(episode, sequences=[replace(sequence, hidden=None) for sequence in episode.sequences])


def test_states_stay_in_their_process(actor: Actor, speaker: Path, task_index: TaskIndex) -> None:
    episodes = play(actor, ChatCodec(load_tokenizer(speaker)), Constrain.grammar, task_index)
    for sequence in (sequence for episode in episodes for sequence in episode.sequences):
        assert sequence.hidden is not None and sequence.hidden.shape == (len(sequence.ids), 64)
    read = decode(encode(episodes), list[Episode], "a message")
    assert read == episodes, "states are not compared"
    assert all(sequence.hidden is None for episode in read for sequence in episode.sequences)


def test_a_training_goes_on_to_the_bit(speaker: Path, task_index: TaskIndex, tmp_path: Path) -> None:
    cfg = config(seed=3)
    cfg = replace(cfg, trainer=replace(cfg.trainer, recompute_logprobs=False))
    goes_on_to_the_bit(cfg, speaker, task_index, tmp_path)


def test_what_has_no_states_to_read_is_refused(actor: Actor, speaker: Path) -> None:
    kept = TrainerConfig(recompute_logprobs=False)
    with pytest.raises(ConfigError, match=r"trainer\.recompute_logprobs=False .* protocol\.context=window"):
        RunConfig(trainer=kept, protocol=ProtocolConfig(context=Context.window))
    with pytest.raises(ConfigError, match=r"trainer\.recompute_logprobs=False .* model\.critic=separate"):
        RunConfig(trainer=kept, model=ModelConfig(critic=Critic.separate))
    codec = ChatCodec(load_tokenizer(speaker))
    collector = Collector(GenerateSampler(actor, codec, Script([]), max_reply_tokens=9), codec, RunConfig())
    with pytest.raises(ConfigError, match="GenerateSampler keeps no hidden states"):
        collector.play([choice(0)], 1, record=True)
