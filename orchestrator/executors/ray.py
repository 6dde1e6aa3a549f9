"""Workers on a Ray cluster; a process of this machine drives Ray Tune, which carries them."""

from __future__ import annotations

import contextlib
import importlib.util
import multiprocessing
import time
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from orchestrator.errors import OrchestratorError
from orchestrator.executors.ray_cluster import HOW_TO_INSTALL, Places
from orchestrator.executors.ray_driver import Serve, Trouble, log_path, main
from orchestrator.executors.ray_plan import RayPlan
from orchestrator.machine.forkserver import no_main_module
from orchestrator.machine.slots import Slot
from orchestrator.workers.doorbell import Ring

CONNECT_SECONDS = 120.0  # Ray itself gives up sooner
LEAVE_SECONDS = 4.0  # for workers without a trial to say good-bye
STOP_SECONDS = 15.0  # for Ray's own processes
MOST_SHORT_LIVES = 3
SHORT_LIFE_SECONDS = 30.0


class RayExecutor:
    """Keep as many workers on a Ray cluster as a study has jobs for.

    The driver is a process of its own: Ray and Tune catch signals, print, and end their process when they lose the
    cluster; none of that may touch the controller. When the controller goes, the driver hears it, has the trials
    checkpointed and goes too; when the driver goes, Ray ends the workers, and their jobs go on elsewhere.

    Args:
        plan: what runs where.

    Raises:
        OrchestratorError: Ray is absent or out of reach, or no node can carry a trial.
        StorageError: the database is a file, and the cluster has other machines.
    """

    def __init__(self, plan: RayPlan) -> None:
        if not _is_installed():
            raise OrchestratorError(HOW_TO_INSTALL)
        self._plan = plan
        self._order: Serve | None = None
        self._leaving = False
        self._short_lives = 0
        self._launch()

    @property
    def slots(self) -> list[Slot]:
        """Places for workers; their devices are Ray's to choose."""
        return [Slot("ray", self._plan.threads)] * self._places.count

    @property
    def described(self) -> str:
        """The places, for people."""
        count = self._places.count
        return f"{count} worker{'s' * (count > 1)} by {self._places.where}"

    def serve(self, study_id: int, study: str) -> None:
        """Say which study the workers are for.

        Args:
            study_id: key in `sb_studies`.
            study: its name.
        """
        self._order = Serve(study_id, study)

    def start(self) -> None:
        """Have the driver start workers."""
        self._say(self._order)

    def sources(self) -> list[Connection]:
        """Return the driver's wire."""
        return [self._wire]

    def tend(self) -> None:
        """Take what the driver says, and start it again if it has died.

        Raises:
            OrchestratorError: it says that it cannot go on, or the cluster is gone.
        """
        if not self._take_news() and not self._leaving:
            self._process.join(STOP_SECONDS)
            early = time.monotonic() - self._born < SHORT_LIFE_SECONDS
            self._short_lives = self._short_lives + 1 if early else 0
            if self._short_lives >= MOST_SHORT_LIVES:
                raise OrchestratorError(f"Ray Tune ends right after its start; log: {log_path(self._plan)}")
            self._wire.close()
            self._launch()
            self.start()

    def wake(self) -> None:
        """Do nothing: workers look for work once a second."""

    def leave(self) -> None:
        """Ask every worker to checkpoint its trial, give it back and end."""
        self._leaving = True
        self._say(Ring.LEAVE)

    def living(self) -> int:
        """Return 1 while the driver has not ended: it ends after the last worker."""
        return int(self._process.is_alive())

    def kill(self) -> None:
        """End every worker at once; those without a trial that were asked to leave get the time to do so."""
        if self._leaving:
            self._process.join(LEAVE_SECONDS)
        self._leaving = True
        self._process.terminate()
        self._process.join(STOP_SECONDS)
        self._process.kill()  # Ray's processes of this machine end with it, those of a cluster notice
        self._process.join()
        self._wire.close()

    def _launch(self) -> None:
        self._born = time.monotonic()
        context = multiprocessing.get_context("spawn")
        self._wire, theirs = context.Pipe()
        self._process: SpawnProcess = context.Process(
            target=main, args=(self._plan, theirs), name="ray-driver", daemon=True
        )
        with no_main_module():
            self._process.start()
        theirs.close()
        self._places = self._connected()

    def _connected(self) -> Places:
        try:
            news = self._wire.recv() if self._wire.poll(CONNECT_SECONDS) else None
        except (EOFError, OSError):
            news = None
        if isinstance(news, Places):
            return news
        self._process.kill()
        self._process.join()
        if isinstance(news, Trouble):
            raise OrchestratorError(news.why)
        raise OrchestratorError(f"Ray does not start or does not answer; log: {log_path(self._plan)}")

    def _take_news(self) -> bool:
        """Take what has come; False when the driver has ended."""
        try:
            while self._wire.poll(0):
                news = self._wire.recv()
                if isinstance(news, Places):
                    self._places = news
                elif isinstance(news, Trouble) and not self._leaving:
                    raise OrchestratorError(news.why)
        except (EOFError, OSError):
            return False
        return True

    def _say(self, what: object) -> None:
        with contextlib.suppress(OSError):
            self._wire.send(what)


def _is_installed() -> bool:
    try:
        return importlib.util.find_spec("ray") is not None
    except ImportError:
        return False
