"""The shell around every entry point: mistakes end in one line, never in a traceback.

An entry point is a function of the composed config and ends with

    if __name__ == "__main__":
        sys.exit(run(main, "train", __doc__))

Exit codes: 0 done; 1 a fault of the program (traceback); 2 something the user can mend; another
code that a `UserError` names (3 training gave up, 4 the disk is full); 130 interrupted; 143 ended
by SIGTERM. `HYDRA_FULL_ERROR=1` shows tracebacks for all.
"""

import functools
import hashlib
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

import unified_rl
from unified_rl.core.errors import ConfigError, UserError
from unified_rl.runtime.command_help import help_text
from unified_rl.runtime.command_line import check_command_line, parse_arguments, settings_first
from unified_rl.runtime.config_groups import VERSION_BASE
from unified_rl.runtime.explaining import explain

CONF_VARIABLE = "UNIFIED_RL_CONF"
"""Environment variable that names another `conf` folder."""

INTERRUPTED = 130
SHORT_NAME_LENGTH = 80

Main = Callable[[DictConfig], int | None]


def run(main: Main, config_name: str, description: str) -> int:
    """Checks the command line, then runs `main` under Hydra.

    Args:
        main: gets the composed config; what it returns is the exit code, None being 0.
        config_name: of the primary config in the `conf` folder, without ".yaml".
        description: what `--help` shows; its first paragraph is used.

    Returns:
        The exit code; of a sweep the largest one of its jobs.
    """
    register_resolvers()
    try:
        conf = conf_folder()
        args = parse_arguments(sys.argv[1:])
        # Hydra wants all settings side by side; "a=1 -m b=2" is too natural to refuse
        sys.argv[1:] = settings_first(sys.argv[1:], args.overrides)
        config_name = args.config_name or config_name
        if args.config_path is not None:
            conf = Path(args.config_path)
        for folder in (args.config_dir, conf if conf.is_absolute() else None):
            if folder is not None and not Path(folder).is_dir():
                raise ConfigError(f"{folder} is not a folder")
        if args.help:
            print(help_text(conf, config_name, description, args.overrides))
            return 0
        # Hydra itself resolves relative folders and packages, against the file that holds `main`
        if conf.is_absolute() and not (args.experimental_rerun or args.shell_completion):
            check_command_line(conf, config_name, args)
    except UserError as error:
        return _report(error)
    job = _Job(main)
    start = hydra.main(version_base=VERSION_BASE, config_path=str(conf), config_name=config_name)
    try:
        with _logging_kept():
            start(job)()
    except KeyboardInterrupt:
        return _interrupted()
    except SystemExit as stop:
        # Lightning turns an interrupt into sys.exit(1)
        if isinstance(stop.__context__, KeyboardInterrupt):
            return _interrupted()
        raise
    return max(job.codes, default=0)


@contextmanager
def _logging_kept() -> Iterator[None]:
    """Takes back what Hydra does to the root logger, for who calls `run` again.

    Its handlers hold the stdout of this run; a later run whose config leaves logging alone would
    write to that, and it may be closed by then.
    """
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        for handler in set(root.handlers) - set(handlers):
            handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)


def register_resolvers() -> None:
    """Makes our resolvers known to OmegaConf; harmless when repeated."""
    OmegaConf.register_new_resolver("either", either, replace=True)
    OmegaConf.register_new_resolver("shorten", shorten, replace=True)
    OmegaConf.register_new_resolver("choice", choice, replace=True)


def choice(group: str) -> str:
    """The option that was chosen of a config group; "default" outside of a run of Hydra."""
    if not HydraConfig.initialized():
        return "default"
    return HydraConfig.get().runtime.choices.get(group) or "default"


def either(first: Any, second: Any) -> Any:
    """`first`, unless it is empty (null or ""); 0 and false are not empty."""
    return second if first is None or first == "" else first


def shorten(text: str) -> str:
    """A safe file name from e.g. Hydra's `override_dirname`, at most 80 characters long.

    What does not fit is replaced by a hash of the whole, so that different texts stay different.
    """
    name = re.sub(r"[^\w.+-]+", "_", str(text)).strip("_")
    if len(name) <= SHORT_NAME_LENGTH:
        return name
    digest = hashlib.sha256(str(text).encode()).hexdigest()[:8]
    return f"{name[: SHORT_NAME_LENGTH - len(digest) - 1]}_{digest}"


def conf_folder() -> Path:
    """The folder of configs: `UNIFIED_RL_CONF`, or `conf` beside the package.

    Raises:
        ConfigError: there is no such folder.
    """
    named = os.environ.get(CONF_VARIABLE)
    folder = Path(named).expanduser() if named else Path(unified_rl.__file__).parents[1] / "conf"
    if not folder.is_dir():
        what = f"{CONF_VARIABLE}={named}" if named else str(folder)
        raise ConfigError(
            f"{what} is not a folder; set {CONF_VARIABLE} to the repository's conf folder"
        )
    return folder.resolve()


class _Job:
    """`main` as Hydra sees it: failures become lines and codes, so that a sweep goes on."""

    def __init__(self, main: Main) -> None:
        # Hydra reads name, module and file off the wrapped function
        functools.update_wrapper(self, main)
        self.codes: list[int] = []
        self._main, self._process = main, os.getpid()

    def __call__(self, cfg: DictConfig) -> int:
        try:
            code = int(self._main(cfg) or 0)
        except Exception as error:
            if os.getpid() != self._process:
                raise  # a parallel launcher's worker: codes cannot get back from here
            code = _report(error)
        self.codes.append(code)
        return code


def _report(error: Exception) -> int:
    """Prints what went wrong; one line if the user can mend it, else a traceback."""
    line, code = explain(error)
    if line is None or os.environ.get("HYDRA_FULL_ERROR") == "1":
        traceback.print_exception(error)
    else:
        print(f"error: {line}", file=sys.stderr, flush=True)
    return code


def _interrupted() -> int:
    print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
    return INTERRUPTED
