"""Fixtures for all tests. Shared data is looked for in $HIPER_SHARED or beside the checkout; tests that need it skip where it is absent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from hiper.integrations.prefect.server import EmbeddedServer
    from hiper.model.actor import Actor
    from hiper.suites.tasks import TaskIndex
    from tests.postgres import Postgres

os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that reaches for the network fails at once instead of waiting
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the processes that share the tests take all cores
# A job that a shell put in the background ignores SIGINT and so do its children: tests of Ctrl-C would wait for nothing.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tensors in tests are small: threads would only wait for each other, and sums would depend on their number."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared(root: Path) -> Path:
    """Recorded reference data, kept outside the repository."""
    folder = Path(os.environ.get("HIPER_SHARED", root.parent / "shared"))
    if not (folder / "conformance").is_dir():  # recordings of other projects, too large to carry: the project works without them
        pytest.skip(f"no reference data in {folder}; set HIPER_SHARED to the folder that holds conformance/ and data/")
    return folder


@pytest.fixture(scope="session")
def official_games(shared: Path) -> Path:
    """The official games unpacked: `2.1.1/` and `2.1.2/`, each laid out as $ALFWORLD_DATA."""
    command = shared / "data" / "unpack"
    if not command.is_file():  # 4,000 games of ALFWorld's authors, not ours to carry
        pytest.skip(f"no official games: {command} is missing")
    return Path(subprocess.run([str(command)], check=True, capture_output=True, text=True).stdout.strip())


@pytest.fixture(scope="session")
def generated_games(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few small generated games in the official layout; shared by all tests, so nobody writes in it."""
    from hiper.suites.alfworld.generate import generate_games
    from hiper.suites.alfworld.settings import ALFWorldConfig

    folder = tmp_path_factory.mktemp("tasks") / "data"
    generate_games(folder, ALFWorldConfig(train=12, valid_seen=6, valid_unseen=6, max_receptacles=8, max_objects=12))
    return folder


@pytest.fixture(scope="session")
def embedded_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """One Prefect server, as `hiper run` starts it, with a database of its own, for all tests; it takes some ten seconds to start."""
    from hiper.integrations.prefect.server import start_embedded_server

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(tmp_path_factory.mktemp("prefect")))
        server = start_embedded_server()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def prefect_server(embedded_server: EmbeddedServer) -> Iterator[None]:
    """Flows of this process report to that server; not longer than a module's, because Prefect's settings are the process's."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: embedded_server.url, PREFECT_API_AUTH_STRING: embedded_server.auth_string}):
        yield
        APILogWorker.instance().drain()
        EventsWorker.drain_all()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One Postgres server for all tests; who stops it starts it again."""
    from tests.postgres import postgres_server

    with postgres_server() as server:
        yield server


@pytest.fixture
def database(postgres: Postgres) -> str:
    """The URL of an empty Postgres database."""
    if not postgres.running:  # a test failed in between
        postgres.start()
    postgres.create("test")
    return postgres.url("test")


SMALL = [
    "experiment=smoke",
    "alfworld.train=12",
    "demos.count=16",
    "env.max_turns=6",
    "sft.max_steps=2",
    "rollout.trajectories=4",
    "trainer.iterations=2",
    "trainer.eval_every=0",
]


@pytest.fixture(scope="session")
def small_settings() -> list[str]:
    """Overrides of a run as small as a whole one can be; add `paths.run`."""
    return list(SMALL)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, small_settings: list[str]) -> Path:
    """A finished run under `small_settings`; shared by all tests, so whoever changes something works on a copy."""
    from hiper.composition.compose import compose
    from hiper.pipeline.stages import STAGES
    from hiper.runs.run_dir import begin_run

    cfg = compose([*small_settings, f"paths.run={tmp_path_factory.mktemp('runs') / 'finished'}"])
    run = begin_run(cfg)
    for stage in STAGES.values():
        stage(cfg)
    return run


@pytest.fixture(scope="session")
def task_index(generated_games: Path) -> TaskIndex:
    """The generated games, indexed."""
    from hiper.suites.alfworld.games import index_games

    return index_games(generated_games)


@pytest.fixture(scope="session")
def demos(task_index: TaskIndex, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Demonstrations of the generated games, tersely prompted: each game as it is, then once renumbered."""
    from hiper.config import DemosConfig, ProtocolConfig, RunConfig, Style
    from hiper.sft.demos import write_demos

    out = tmp_path_factory.mktemp("demos") / "demos.jsonl"
    write_demos(task_index, RunConfig(demos=DemosConfig(count=24), protocol=ProtocolConfig(style=Style.terse)), out)
    return out


@pytest.fixture(scope="session")
def words(demos: Path) -> PreTrainedTokenizerBase:
    """Our word tokenizer, made from the demonstrations."""
    from hiper.model.tokenizer import build_tokenizer
    from hiper.sft.demos import read_demos

    return build_tokenizer(message["content"] for conversation in read_demos(demos) for message in conversation.messages)


@pytest.fixture(scope="session")
def speaker(demos: Path, words: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory that speaks the protocol and no more: a tiny model after a few steps of plain gradient descent."""
    import torch

    from hiper.config import Critic, Init, TinyConfig
    from hiper.model.actor import Actor, save_actor
    from hiper.model.tiny import build_tiny
    from hiper.rollout.chat import ChatCodec
    from hiper.sft.demos import read_demos
    from hiper.sft.encode import encode

    lm = build_tiny(TinyConfig(hidden=64, layers=2, heads=2, kv_heads=2, intermediate=96, init=Init.default), words, seed=0)
    optimizer = torch.optim.AdamW(lm.parameters(), lr=4e-3, weight_decay=0.0)
    examples = sorted(encode(read_demos(demos), ChatCodec(words), 4096), key=lambda example: len(example["input_ids"]))
    for step in range(100):
        few = [{key: torch.tensor(row) for key, row in example.items()} for example in examples[step % 6 :: 6]]
        rows = [torch.nn.utils.rnn.pad_sequence([e[key] for e in few], True, fill) for key, fill in (("input_ids", 0), ("labels", -100))]
        optimizer.zero_grad()
        lm(input_ids=rows[0], labels=rows[1]).loss.backward()
        optimizer.step()
    folder = tmp_path_factory.mktemp("speaker") / "model"
    save_actor(Actor(lm.eval(), Critic.shared), words, folder, ChatCodec(words).generation(40))
    return folder


@pytest.fixture
def actor(speaker: Path) -> Actor:
    """The speaking model with value heads that say something; fresh for each test."""
    import torch

    from hiper.config import ModelConfig
    from hiper.model.actor import load_actor

    made = load_actor(speaker, ModelConfig()).eval()
    with torch.no_grad():
        made.heads.weight.normal_(0.0, 0.3, generator=torch.Generator().manual_seed(1))
        made.heads.bias.copy_(torch.tensor([0.1, 0.2, 0.3]))
    return made


@pytest.fixture(scope="session")
def qwen(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    """Qwen2.5's own byte-level tokenizer and chat template."""
    from hiper.model.actor import load_tokenizer

    source = shared / "data" / "qwen2_5_tokenizer"
    if not (source / "vocab.json").is_file():  # Qwen's, not ours to carry; a network is not to be had in tests
        pytest.skip(f"no tokenizer: {source}/vocab.json is missing")
    folder = tmp_path_factory.mktemp("qwen")
    for name in ("vocab.json", "merges.txt"):
        (folder / name).symlink_to(source / name)
    (folder / "chat_template.jinja").write_text((source / "qwen2_5.chat_template.jinja").read_text(encoding="utf-8"), encoding="utf-8")
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    shape = {"special": True, "lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "pad_token": special[0],
        "eos_token": special[2],
        "additional_special_tokens": special[1:],
        "added_tokens_decoder": {str(151_643 + number): {"content": text, **shape} for number, text in enumerate(special)},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return load_tokenizer(folder)
