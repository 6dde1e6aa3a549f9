"""Errors of the orchestrator; the whole tree is drawn in `configs.problems.SpikebenchError`."""

from configs.problems import SpikebenchError


class OrchestratorError(SpikebenchError):
    """Root of what can go wrong between a study, its database and its workers."""


class StorageError(OrchestratorError):
    """The database cannot be reached, opened, written or read."""


class WrongStorageError(StorageError):
    """What was given can be no database of studies: a wrong URL, a missing file, a place where databases break."""

    wrong_input = True


class NoTablesError(WrongStorageError):
    """The database has no tables of spikebench yet."""


class StudyMismatchError(OrchestratorError):
    """The study exists already, with a space that does not fit the one given."""

    wrong_input = True


class StudyNotFoundError(OrchestratorError):
    """No study of that name is in the database."""

    wrong_input = True


class TrialNotFoundError(OrchestratorError):
    """The study has no trial of that number."""

    wrong_input = True


class ControlError(OrchestratorError):
    """What is asked of a study or trial does not fit what it is doing."""

    wrong_input = True


class ReplayError(OrchestratorError):
    """A stored trial has nothing that a replay could be compared with."""

    wrong_input = True


class OutputError(OrchestratorError):
    """A file that a command was to write cannot be written."""


class OutputExistsError(OutputError):
    """A file to write is there already, and may be worth keeping."""

    wrong_input = True


class StudyBusyError(OrchestratorError):
    """Another controller holds the study."""


class LeaseLostError(OrchestratorError):
    """This worker's job was given to another; nothing it writes counts any more."""


class TrainerNotFoundError(OrchestratorError):
    """A space names a trainer that cannot be imported."""

    wrong_input = True


class TrackingError(OrchestratorError):
    """A service that a configuration asks for cannot be used here."""
