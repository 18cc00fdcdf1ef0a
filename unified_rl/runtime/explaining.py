"""What went wrong, as the one line that a user can act on."""

import re

import yaml
from hydra.errors import InstantiationException
from omegaconf.errors import (
    InterpolationToMissingValueError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from unified_rl.core.durable import disk_is_full
from unified_rl.core.errors import StorageError, UserError
from unified_rl.core.printable import printable

_TORCHVISION = (
    "torchvision, which is installed here, was built for another torch than this one, and nothing "
    "of transformers loads beside it; take both from one index, such as pip install torchvision "
    "--index-url https://download.pytorch.org/whl/cpu, or remove it: pip uninstall torchvision"
)


def explain(error: BaseException) -> tuple[str | None, int]:
    """The line for an error that the user can mend (else None), and the exit code."""
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    where = ""
    for link in chain:
        if isinstance(link, InstantiationException):
            found = re.search(r"full_key: (\S+)", str(link))
            where = f" (at {found[1]})" if found else where
    for link in chain:
        if isinstance(link, UserError):
            return one_line(link) + where, link.exit_code
        if isinstance(link, MissingMandatoryValue | InterpolationToMissingValueError):
            found = re.search(r"Missing mandatory value: (\S+)", str(link))
            key = found[1] if found else link.full_key
            return f"{key} has no value; give one with {key}=...", 2
    if any("torchvision::nms" in str(link) for link in chain):
        return _TORCHVISION, 2
    if disk_is_full(error):
        mend = "free some space, then the same command goes on from what is whole"
        return f"a file could not grow ({one_line(chain[-1])}); {mend}", StorageError.exit_code
    built = any(isinstance(link, InstantiationException) for link in chain)
    if built and isinstance(chain[-1], ValueError | TypeError):  # raised in a constructor
        return f"{one_line(chain[-1])}{where}; HYDRA_FULL_ERROR=1 shows the traceback", 2
    return None, 1


def one_line(error: BaseException) -> str:
    """The message on one line that steers no terminal, without what libraries put around it."""
    text = str(error)
    if "Original Traceback" in text:  # raised in a DataLoader's worker
        text = text.strip().splitlines()[-1].partition(": ")[2]
    if isinstance(error, OmegaConfBaseException):
        text = text.partition("\n")[0]
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        text = f"{mark.name} line {mark.line + 1} is not YAML: {error.problem}"
    text = re.sub(r"See https?://\S+ for details", "", text)
    return " ".join(printable(text).split()) or type(error).__name__
