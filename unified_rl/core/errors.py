"""The errors a user is meant to read: one line that names the value and the mend."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can mend; entry points print it in one line and exit with `exit_code`."""

    exit_code = 2


class ConfigError(UserError):
    """A setting that is unknown, of the wrong kind, or does not fit another setting."""


class CheckpointError(UserError):
    """A checkpoint that is missing, truncated or made for another architecture."""


class StorageError(CheckpointError):
    """A disk that is full or cannot be written; nothing that was saved before is lost."""

    exit_code = 4


class DataError(UserError):
    """A dataset that cannot be read, or in which too little is left to train on."""


class CapabilityError(UserError):
    """A stage asks for something that the policy's family does not offer."""


class RewardError(UserError):
    """A reward that fails its self-test, is flat for too long, or is not finite."""

    exit_code = 3


class TrainingError(UserError):
    """Training that cannot go on: a loss or gradient that is not finite."""

    exit_code = 3


def nearest(name: str, known: Iterable[str]) -> str:
    """A clause that names the closest known spelling, or lists what there is."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(known)}" if known else "nothing is known here"
