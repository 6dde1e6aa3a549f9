"""What the end of a trainer means, told by the trial's own process."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import fake_trainers
import pytest

from configs.resolve import resolve, to_dict
from orchestrator.storage.tables import EndReason
from orchestrator.workers.trial_process import TrialSpec, run
from trainers.protocol import ProcessLostError, SilentReporter, Verdict


class Asking(SilentReporter):
    """A reporter that wants something of the trial."""

    def __init__(self, wish: Verdict) -> None:
        self._wish = wish

    def verdict(self) -> Verdict:
        return self._wish


def end_of(trainer: str, folder: Path, reporter: Any) -> EndReason:
    config = to_dict(resolve("stal/srnn_digits", ["--training.epochs=2"]).config)
    folder.mkdir(exist_ok=True)
    return run(TrialSpec(config, f"fake_trainers:{trainer}", folder, "cpu", 1, 1), reporter).reason


@pytest.mark.parametrize(
    ("wish", "reason"),
    [
        (Verdict.CONTINUE, EndReason.FINISHED),
        (Verdict.PREEMPT, EndReason.PREEMPTED),
        (Verdict.STOP, EndReason.CANCELLED),  # whoever stopped it says why
    ],
)
def test_the_trainer_says_whether_it_did_what_was_wanted(tmp_path: Path, wish: Verdict, reason: EndReason) -> None:
    assert end_of("quick", tmp_path, Asking(wish)) is reason


@pytest.mark.parametrize(
    ("code", "reason"), [(-signal.SIGKILL, EndReason.LOST), (-signal.SIGSEGV, EndReason.CRASH), (1, EndReason.CRASH)]
)
def test_a_lost_process_of_several_ends_the_trial_as_if_it_were_the_only_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, reason: EndReason
) -> None:
    def lose(*_: Any, **__: Any) -> None:
        raise ProcessLostError(1, 2, code)

    monkeypatch.setattr(fake_trainers, "quick", lose)
    config = to_dict(resolve("stal/srnn_digits").config)
    end = run(TrialSpec(config, "fake_trainers:quick", tmp_path, "cpu", 1, 1), Asking(Verdict.CONTINUE))
    assert end.reason is reason
    assert end.detail.startswith("process 2 of the 2 that train this run ended without a word")


def test_a_trial_that_was_done_before_it_heard_of_its_stop_has_finished(tmp_path: Path) -> None:
    assert end_of("quick", tmp_path, Asking(Verdict.CONTINUE)) is EndReason.FINISHED
    assert end_of("quick", tmp_path, Asking(Verdict.STOP)) is EndReason.FINISHED  # nothing is left to do
