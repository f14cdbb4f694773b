"""The exception tree: every mistake a user can make has a class here, and a message with value, limit and remedy.

The command line prints the message of an `OpenworkError` in one line and exits with code 2; anything else is a bug.
"""


class OpenworkError(Exception):
    """Base of everything Openwork raises on purpose."""


class UsageError(OpenworkError):
    """A wrong argument: an unknown name, a value out of range, a missing file."""


class RecipeError(OpenworkError):
    """A recipe that cannot be read, fails validation, or does not fit the model."""


class ShapeError(OpenworkError):
    """A tensor whose shape a constraint, an operator or an engine cannot hold."""


class ModelError(OpenworkError):
    """A model that cannot be built, or whose weights cannot be used (NaN, zero-size)."""


class DataError(OpenworkError):
    """Data that is missing, of the wrong layout, or empty."""


class RunError(OpenworkError):
    """A run folder that cannot be written, or belongs to another recipe or model."""


class TrainingError(OpenworkError):
    """Training that went wrong while running: a loss or a penalty without limit."""


class CaptureError(OpenworkError):
    """A model that `torch.export` cannot capture."""


class CompileError(OpenworkError):
    """A captured graph that cannot be turned into a correct program."""


class ArtifactError(OpenworkError):
    """A file that is not a whole and valid artifact."""


class EngineError(OpenworkError):
    """An engine asked for something that it cannot run: a wrong input, too many threads."""


class MissingDependencyError(OpenworkError):
    """An optional library that is needed for this call is not installed."""


class OpenworkNotice(UserWarning):
    """Something is done differently than was asked for, or slower than it could be: results are right, once said."""


class PeerError(OpenworkError):
    """An engine to compare with that cannot run a network; `bench` leaves it out and says so."""
