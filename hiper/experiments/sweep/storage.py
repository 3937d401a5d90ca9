"""The database of a study: SQLite for one machine, a Postgres server for several.

What Optuna's own storage leaves open is closed here: calls wait for a server that went away and are repeated without doing their work
twice, and the queue of trials is changed by one process at a time, whichever machine it is on.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import optuna
import sqlalchemy
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, PendingRollbackError, SQLAlchemyError
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from hiper.errors import ConfigError, WorkflowError
from hiper.experiments.sweep.spec import SweepSpec
from hiper.runtime.lock import locked
from hiper.runtime.packages import missing

logger = logging.getLogger("hiper.sweep")

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE = 900.0
"""Seconds that a call waits for a database server that went away."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0
"""Seconds between two attempts; each pause is twice the one before, and none is longer than a worker's heartbeat."""
SILENT = 4
"""Heartbeats a worker may miss before it counts as dead."""
FROZEN = 60
"""Seconds after which the server ends the session of a process that changes the queue and has stopped in the middle."""

CONNECTION = {"connect_timeout": 10, "keepalives_idle": 20, "keepalives_interval": 10, "keepalives_count": 3, "tcp_user_timeout": 60_000}
"""libpq's settings: a server that vanishes without a word is noticed within a minute; by default it takes hours."""


class StorageAway(WorkflowError):
    """The study's database server could not be reached for as long as the call waits."""


def _patient(method: Callable[P, T]) -> Callable[P, T]:
    """The method with patience."""

    @wraps(method)
    def call(*arguments: P.args, **options: P.kwargs) -> T:
        storage: Any = arguments[0]
        return storage._patiently(lambda: method(*arguments, **options))  # type: ignore[no-any-return]

    return call


class Storage(RDBStorage):
    """Optuna's storage, with patience, and with turns for those who change the queue."""

    def __init__(self, spec: SweepSpec, url: sqlalchemy.URL, engine_kwargs: dict[str, Any]) -> None:
        super().__init__(
            url.render_as_string(hide_password=False),
            engine_kwargs=engine_kwargs,
            heartbeat_interval=spec.heartbeat,
            grace_period=SILENT * spec.heartbeat,
        )
        self._spec = spec
        self._of_thread = _OfThread()
        self.scoped_session = _Sessions(self.engine, self._of_thread)
        self._missed_at = float("-inf")

    @property
    def serves_machines(self) -> bool:
        """Whether it is a server's, which other machines use and which may go away."""
        return self.engine.dialect.name != "sqlite"

    def in_turn(self, function: Callable[[], T]) -> T:
        """Call a function while no other process changes the queue of this study.

        On a server the lock and all calls of the function to this storage share one session: when that ends, the lock is gone and no
        further write can succeed. The function is then called again from its beginning, and must look at what it did before.

        Raises:
            StorageAway: the server could not be reached for `PATIENCE` seconds.
        """
        if not self.serves_machines:  # SQLite locks no rows, so two could take the same trial
            with locked(self._spec.place / "trials", wait=True):
                return function()
        return self._patiently(lambda: self._with_lock(function))

    @contextmanager
    def briefly(self) -> Iterator[None]:
        """Inside, in this thread, calls do not wait for a server that went away: they raise StorageAway at once."""
        before, self._of_thread.brief = self._of_thread.brief, True
        try:
            yield
        finally:
            self._of_thread.brief = before

    def _with_lock(self, function: Callable[[], T]) -> T:
        with advisory_lock(self.engine, f"study {self._spec.name}") as connection:
            self._of_thread.connection = connection
            try:
                return function()
            finally:
                self._of_thread.connection = None

    def _patiently(self, call: Callable[[], T]) -> T:
        if not self.serves_machines or self._of_thread.connection is not None:
            return call()
        return _patiently(call, self._spec, 0.0 if self._of_thread.brief else PATIENCE, self._note_miss)

    def _note_miss(self) -> None:
        self._missed_at = time.monotonic()

    @_patient
    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        """Running trials without a recent heartbeat; none shortly after the server was away: until then nobody could give one."""
        grace = SILENT * self._spec.heartbeat
        if self.serves_machines:
            with self.scoped_session() as session:
                up = session.scalar(sqlalchemy.text("SELECT extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())"))
            if float(up or 0) < grace or time.monotonic() - self._missed_at < grace:
                return []
        return super()._get_stale_trial_ids(study_id)


# May be called again after a call whose answer was lost: they read, or write what is there already, or, once a trial has ended, raise
# UpdateFinishedTrialError. `_create_new_trial` and the step from waiting to running are not among them: they belong into a turn.
for _name in (
    "create_new_study", "get_study_id_from_name", "get_study_name_from_id", "get_study_directions", "get_all_studies",
    "get_study_user_attrs", "set_study_user_attr", "get_study_system_attrs", "set_study_system_attr",
    "_set_trial_param", "get_trial_param", "get_trial_user_attrs", "get_trial_system_attrs", "set_trial_state_values",
    "set_trial_intermediate_value", "set_trial_user_attr", "set_trial_system_attr", "get_trial_id_from_study_id_trial_number",
    "get_trial", "_get_trials", "_get_best_trial_id", "record_heartbeat",
):  # fmt: skip
    setattr(Storage, _name, _patient(getattr(RDBStorage, _name)))


def open_storage(spec: SweepSpec, wait: bool = False) -> Storage:
    """The study's database.

    Args:
        spec: the sweep.
        wait: for a server that is away, as later calls do.

    Raises:
        ConfigError: `storage` is no URL of SQLite or Postgres.
        MissingDependencyError: its driver is missing.
        StorageAway: its server cannot be reached.
        WorkflowError: it cannot be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # its warnings of a lost connection show whole queries; ours say it in a line
    try:
        url = sqlalchemy.make_url(spec.storage or f"sqlite:///{(spec.place / 'study.db').resolve()}")
    except sqlalchemy.exc.ArgumentError:
        raise ConfigError("storage is not a database URL, such as postgresql://USER:PASSWORD@HOST/DATABASE.") from None
    try:
        if url.get_backend_name() == "sqlite":
            return quietly(Storage, spec, url, {"connect_args": {"timeout": 60}})
        if url.get_backend_name() != "postgresql":
            raise ConfigError(f"storage={shown(spec)}: studies lie in SQLite or Postgres.")
        return _patiently(lambda: _open_server(spec, url), spec, PATIENCE if wait else 0.0, lambda: None)
    except ImportError as error:
        raise missing(f"storage={shown(spec)}", "psycopg2", error) from error
    except (SQLAlchemyError, StorageInternalError) as error:
        reason = _why_away(error) or type(error).__name__
        raise WorkflowError(f"the study's storage {shown(spec)} cannot be opened ({reason}). See `storage` of the sweep.") from None


def _patiently(call: Callable[[], T], spec: SweepSpec, patience: float, missed: Callable[[], None]) -> T:
    """Call again and again until the server is there; `missed` is called each time it was not."""
    began, pause = time.monotonic(), FIRST_PAUSE
    while True:
        try:
            result = call()
            break
        except (SQLAlchemyError, StorageInternalError, _TurnLost) as error:
            reason = _why_away(error)
            if reason is None:
                raise
        missed()
        waited = time.monotonic() - began
        if waited >= patience:
            raise StorageAway(
                f"the study's storage {shown(spec)} cannot be reached ({reason})"
                + (
                    f"; waited for {waited:.0f} s. What was done is kept: see to the database, then give the command again."
                    if patience
                    else "."
                )
            )
        if pause == FIRST_PAUSE:
            logger.warning("the study's storage cannot be reached (%s); trying again for %.0f minutes", reason, patience / 60)
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE, spec.heartbeat)
    if pause > FIRST_PAUSE:
        logger.info("the study's storage is back after %.0f s", time.monotonic() - began)
    return result


def _open_server(spec: SweepSpec, url: sqlalchemy.URL) -> Storage:
    options: dict[str, Any] = {"pool_pre_ping": True}
    if url.get_driver_name() in ("psycopg2", "psycopg"):
        options["connect_args"] = {name: value for name, value in CONNECTION.items() if name not in url.query}
        # Heartbeats are written in the session's time zone and without it: machines must agree, and none may have a summer.
        options["connect_args"]["options"] = f"{url.query.get('options', '')} -c timezone=UTC".strip()
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool, **{**options, "pool_pre_ping": False})
    with advisory_lock(engine, "tables"):  # two that make the tables at once would find each other's half made
        return quietly(Storage, spec, url, options)


@contextmanager
def advisory_lock(engine: sqlalchemy.Engine, name: str) -> Iterator[sqlalchemy.Connection]:
    """Hold a lock of the Postgres database in a session of its own, with which it ends.

    Yields:
        The session's connection.
    """
    with engine.connect() as connection:
        connection.detach()  # closed afterwards, not pooled
        for setting in ("idle_session_timeout", "idle_in_transaction_session_timeout"):  # the first exists since Postgres 14
            found = sqlalchemy.text("SELECT set_config(name, :most, false) FROM pg_settings WHERE name = :name")
            connection.execute(found, {"name": setting, "most": f"{FROZEN}s"})
        key = int.from_bytes(hashlib.sha256(f"hiper {name}".encode()).digest()[:8], signed=True)
        connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(:key)"), {"key": key})
        connection.commit()
        yield connection


def shown(spec: SweepSpec) -> str:
    """Where the study lies, without a password."""
    if spec.storage is None:
        return str(Path(spec.place) / "study.db")
    try:
        return sqlalchemy.make_url(spec.storage).set(query={}).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        return "(not a database URL)"


def quietly(function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """Call what Optuna calls experimental; the pinned version is the one that was tried."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return function(*arguments, **options)


class _TurnLost(Exception):
    """The session that held the lock has ended. Not Optuna's StorageInternalError, after which Optuna would try again without the lock."""


class _OfThread(threading.local):
    connection: sqlalchemy.Connection | None = None
    """Of the turn this thread is in."""
    brief: bool = False


class _Sessions(scoped_session[Session]):
    """Makes Optuna's sessions; in a turn they use the connection that holds the lock."""

    def __init__(self, engine: sqlalchemy.Engine, of_thread: _OfThread) -> None:
        super().__init__(sessionmaker(bind=engine))
        self._of_thread = of_thread

    def __call__(self, **options: Any) -> Session:
        connection = self._of_thread.connection
        if connection is None:
            return super().__call__(**options)
        if connection.invalidated:
            raise _TurnLost("the session that held the lock has ended")
        return Session(bind=connection)


def _why_away(error: BaseException) -> str | None:
    """Why a call may succeed later: the server is away, starting, out of connections, or out of disk. None: it will fail again."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    if isinstance(cause, OperationalError | InterfaceError) or (isinstance(cause, DBAPIError) and cause.connection_invalidated):
        return " ".join(str(cause.orig).split()) or type(cause.orig).__name__
    if isinstance(cause, PendingRollbackError | _TurnLost):
        return "the connection was lost"
    return None
