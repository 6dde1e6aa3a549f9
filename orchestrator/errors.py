"""Errors of the orchestrator; the whole tree is drawn in `configs.problems.SpikebenchError`."""

from configs.problems import SpikebenchError


class OrchestratorError(SpikebenchError):
    """Root of what can go wrong between a study, its database and its workers."""


class StorageError(OrchestratorError):
    """The database cannot be reached, opened, written or read."""


class StudyMismatchError(OrchestratorError):
    """The study exists already, with a space that does not fit the one given."""


class StudyNotFoundError(OrchestratorError):
    """No study of that name is in the database."""


class TrialNotFoundError(OrchestratorError):
    """The study has no trial of that number."""


class ControlError(OrchestratorError):
    """What is asked of a study or trial does not fit what it is doing."""


class ReplayError(OrchestratorError):
    """A stored trial has nothing that a replay could be compared with."""


class StudyBusyError(OrchestratorError):
    """Another controller holds the study."""


class LeaseLostError(OrchestratorError):
    """This worker's job was given to another; nothing it writes counts any more."""


class TrainerNotFoundError(OrchestratorError):
    """A space names a trainer that cannot be imported."""


class TrackingError(OrchestratorError):
    """A service that a configuration asks for cannot be used here."""
