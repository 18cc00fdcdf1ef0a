"""The shell around every entry point: mistakes end in one line, never in a traceback.

An entry point is a function of the composed config and ends with

    if __name__ == "__main__":
        sys.exit(run(main, "train", __doc__))

Exit codes: 0 done; 1 a fault of the program (traceback); 2 something the user can mend; another
code that a `UserError` names; 130 interrupted. `HYDRA_FULL_ERROR=1` shows tracebacks for all.
"""

import argparse
import copy
import difflib
import functools
import hashlib
import inspect
import itertools
import math
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import hydra
import yaml
from hydra._internal.utils import get_args_parser
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, InstantiationException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import (
    InterpolationKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

import unified_rl
from unified_rl.core.errors import ConfigError, UserError, nearest

CONF_VARIABLE = "UNIFIED_RL_CONF"
"""Environment variable that names another `conf` folder."""

VERSION_BASE = "1.3"
INTERRUPTED = 130
SHORT_NAME_LENGTH = 80
CHECKED_COMBINATIONS = 64
"""A sweep up to this size is checked combination by combination, a larger one value by value."""
LISTED_NAMES = 15
"""How many names an error line lists at most."""

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
        args = _parse_arguments(sys.argv[1:])
        # Hydra wants all settings side by side; "a=1 -m b=2" is too natural to refuse
        sys.argv[1:] = _settings_first(sys.argv[1:], args.overrides)
        config_name = args.config_name or config_name
        if args.config_path is not None:
            conf = Path(args.config_path)
        for folder in (args.config_dir, conf if conf.is_absolute() else None):
            if folder is not None and not Path(folder).is_dir():
                raise ConfigError(f"{folder} is not a folder")
        if args.help:
            print(_help(conf, config_name, description, args.overrides))
            return 0
        # Hydra itself resolves relative folders and packages, against the file that holds `main`
        if conf.is_absolute() and not (args.experimental_rerun or args.shell_completion):
            check_command_line(conf, config_name, args)
    except UserError as error:
        return _report(error)
    job = _Job(main)
    start = hydra.main(version_base=VERSION_BASE, config_path=str(conf), config_name=config_name)
    try:
        start(job)()
    except KeyboardInterrupt:
        return _interrupted()
    except SystemExit as stop:
        # Lightning turns an interrupt into sys.exit(1)
        if isinstance(stop.__context__, KeyboardInterrupt):
            return _interrupted()
        raise
    return max(job.codes, default=0)


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
    line, code = _explain(error)
    if line is None or os.environ.get("HYDRA_FULL_ERROR") == "1":
        traceback.print_exception(error)
    else:
        print(f"error: {line}", file=sys.stderr, flush=True)
    return code


def _explain(error: BaseException) -> tuple[str | None, int]:
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
            return _one_line(link) + where, link.exit_code
        if isinstance(link, MissingMandatoryValue):
            return f"{link.full_key} has no value; give one with {link.full_key}=...", 2
    built = any(isinstance(link, InstantiationException) for link in chain)
    if built and isinstance(chain[-1], ValueError | TypeError):  # raised in a constructor
        return f"{_one_line(chain[-1])}{where}; HYDRA_FULL_ERROR=1 shows the traceback", 2
    return None, 1


def _one_line(error: BaseException) -> str:
    """The message on one line, without what libraries put around it."""
    text = str(error)
    if "Original Traceback" in text:  # raised in a DataLoader's worker
        text = text.strip().splitlines()[-1].partition(": ")[2]
    if isinstance(error, OmegaConfBaseException):
        text = text.partition("\n")[0]
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        text = f"{mark.name} line {mark.line + 1} is not YAML: {error.problem}"
    text = re.sub(r"See https?://\S+ for details", "", text)
    return " ".join(text.split()) or type(error).__name__


def _interrupted() -> int:
    print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
    return INTERRUPTED


def _parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Hydra's own flags, with a one-line error in place of a usage text."""
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        unknown = message.partition("unrecognized arguments: ")[2].split()
        if unknown and unknown[0].startswith("-"):
            flags = [flag for action in parser._actions for flag in action.option_strings]
            message = f"{unknown[0]} is not a flag; {nearest(unknown[0], flags)}"
        raise ConfigError(message)

    parser.error = refuse  # type: ignore[method-assign]
    args = parser.parse_intermixed_args(arguments)
    commands = {
        "--run": args.run,
        "--multirun": args.multirun,
        "--cfg": args.cfg is not None,
        "--info": args.info is not None,
        "--shell-completion": args.shell_completion,
    }
    given = [name for name, present in commands.items() if present]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} exclude each other; give one of them")
    if args.resolve and not (args.cfg or args.help):
        raise ConfigError("--resolve needs --cfg job beside it")
    return args


def _settings_first(arguments: Sequence[str], settings: Sequence[str]) -> list[str]:
    flags = list(arguments)
    for setting in settings:
        flags.remove(setting)
    return [*settings, *flags]


def check_command_line(conf: Path, config_name: str, args: argparse.Namespace) -> None:
    """Composes every job of the command line before anything heavy starts.

    Raises:
        ConfigError: names the first setting or option that is wrong, and the nearest right one.
    """
    with _hydra(conf) as loader:
        names = loader.get_group_options("")
        if config_name.removesuffix(".yaml") not in names:
            raise ConfigError(
                f"there is no config {config_name!r} in {conf}; {nearest(config_name, names)}"
            )
        extra = []
        if args.config_dir is not None:
            extra.append(f"hydra.searchpath=['file://{Path(args.config_dir).absolute()}']")
        overrides = [_parse_override(text, loader) for text in args.overrides]
        mode = GlobalHydra.instance().hydra.get_mode(config_name, extra + args.overrides)
        sweeping = args.multirun or mode == RunMode.MULTIRUN
        check = _JobCheck(Groups(loader, conf, args.config_dir), config_name, extra)
        for job in _jobs(overrides, sweeping and not args.cfg):
            check(job)


@contextmanager
def _hydra(conf: Path) -> Iterator[ConfigLoader]:
    """Hydra on a folder of configs, cleared afterwards; its warnings wait for the real run."""
    GlobalHydra.instance().clear()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with hydra.initialize_config_dir(config_dir=str(conf), version_base=VERSION_BASE):
                yield GlobalHydra.instance().config_loader()
    finally:
        GlobalHydra.instance().clear()


class Groups:
    """The config groups and their options.

    Args:
        loader: Hydra's.
        conf: folder that error lines name.
        config_dir: a further folder from the command line.
    """

    def __init__(self, loader: ConfigLoader, conf: Path, config_dir: str | None = None) -> None:
        self._loader, self._conf_name = loader, conf.name
        self._extra = None if config_dir is None else Path(config_dir)

    def options(self, group: str) -> list[str]:
        """Options of a group, those of its folders as "folder/option"; empty if it is none."""
        found = set(self._loader.get_group_options(group, ObjectType.CONFIG))
        for folder in self._loader.get_group_options(group, ObjectType.GROUP):
            found.update(f"{folder}/{option}" for option in self.options(f"{group}/{folder}"))
        if self._extra is not None:
            root = self._extra / group
            files = root.rglob("*.yaml")
            found.update(file.relative_to(root).with_suffix("").as_posix() for file in files)
        return sorted(found)

    def names(self) -> list[str]:
        """The groups of the conf folder."""
        return [name for name in self._loader.list_groups("") if name != "hydra"]

    def check(self, group: str, option: str) -> None:
        """Raises ConfigError unless the group has the option."""
        options = self.options(group)
        if option in options or option.removesuffix(".yaml") in options or "${" in option:
            return
        # a bare name may be meant for an option within a folder
        leaves = {known.rpartition("/")[2]: known for known in options}
        close = difflib.get_close_matches(option, options, n=1, cutoff=0.5)
        close = close or [leaves[m] for m in difflib.get_close_matches(option, leaves, n=1)]
        hint = f"; did you mean {close[0]!r}?" if close else ""
        listing = f"({self._conf_name}/{group}: {_listing(options)})"
        raise ConfigError(f"{group}={option} is not an option{hint} {listing}")


def _listing(names: Sequence[str]) -> str:
    more = len(names) - LISTED_NAMES
    return ", ".join(names[:LISTED_NAMES]) + (f" and {more} more" if more > 0 else "")


def _parse_override(text: str, loader: ConfigLoader) -> Override:
    try:
        override = OverridesParser.create(config_loader=loader).parse_overrides([text])[0]
        if not override.key_or_group:
            raise ConfigError(f"{text} has no setting before the =")
        return override
    except HydraException as error:
        if "=" not in text:
            raise ConfigError(f"{text} is not of the form setting=value") from error
        reason = _one_line(error).removeprefix(f"Error parsing override '{text}'").strip()
        raise ConfigError(
            f"{text} cannot be read ({reason}); quote values with special characters: "
            f"\"{text.partition('=')[0]}='...'\""
        ) from error


def _jobs(overrides: Sequence[Override], sweeping: bool) -> Iterator[list[Override]]:
    """The overrides of each job of a sweep; of one job where nothing is swept."""
    axes: list[list[Override]] = []
    for override in overrides:
        if not override.is_sweep_override():
            axes.append([override])
            continue
        if not sweeping:
            key = override.get_key_element()
            raise ConfigError(
                f"{override.input_line} holds several values; add -m to run one job for each, "
                f"or quote a text with commas: \"{key}='...'\""
            )
        if not override.is_discrete_sweep():
            raise ConfigError(
                f"{override.input_line} has no end of values; write the values out, or range(..)"
            )
        axes.append(_swept(override))
    if math.prod(len(axis) for axis in axes) <= CHECKED_COMBINATIONS:
        yield from (list(job) for job in itertools.product(*axes))
        return
    first = [axis[0] for axis in axes]
    yield first
    for place, axis in enumerate(axes):
        for value in axis[1:]:
            yield [*first[:place], value, *first[place + 1 :]]


def _swept(override: Override) -> list[Override]:
    """One override for each value of a sweep."""
    values = list(override.sweep_string_iterator())
    if not values:
        raise ConfigError(f"{override.input_line} sweeps over nothing")
    return [
        _parse_override(f"{override.get_key_element()}={value}", override.config_loader)
        for value in values
    ]


class _JobCheck:
    """Checks jobs one by one; jobs of the same options share the composed config, for speed."""

    def __init__(self, groups: Groups, config_name: str, extra: Sequence[str]) -> None:
        self._groups, self._config_name, self._extra = groups, config_name, extra
        self._composed: dict[tuple[str, ...], DictConfig] = {}

    def __call__(self, job: Sequence[Override]) -> None:
        """Raises ConfigError for the first override that is wrong."""
        choices, settings = [], []
        for override in job:
            is_dict = isinstance(override.value(), dict)
            is_choice = not is_dict and self._groups.options(override.key_or_group)
            (choices if is_choice else settings).append(override)
        for choice in choices:
            self._check_choice(choice)
        lines = (*self._extra, *(str(choice.input_line) for choice in choices))
        is_new = lines not in self._composed
        if is_new:
            self._composed[lines] = _compose(self._config_name, list(lines))
        cfg = copy.deepcopy(self._composed[lines])
        for setting in settings:
            _check_setting(setting, cfg, self._groups)
            if setting.is_add() or setting.is_force_add():  # later settings may need it
                with suppress(OmegaConfBaseException):
                    OmegaConf.update(cfg, setting.key_or_group, setting.value(), force_add=True)
        if is_new and settings:  # what only composing finds, and values that refer to others
            texts = [str(setting.input_line) for setting in settings]
            cfg = _compose(self._config_name, [*lines, *texts])
            for setting in settings:
                _check_reference(setting, cfg)

    def _check_choice(self, choice: Override) -> None:
        value = choice.value()
        if value is None and not choice.is_delete():
            raise ConfigError(f"{choice.input_line}: leave a group out with ~{choice.key_or_group}")
        for option in value if isinstance(value, list) else [value]:
            if value is not None:
                self._groups.check(choice.key_or_group, str(option))


def _check_reference(setting: Override, cfg: DictConfig) -> None:
    """Raises ConfigError for an interpolation of something that does not exist."""
    try:
        if "${" in str(setting.input_line):
            OmegaConf.select(cfg, setting.key_or_group)
    except InterpolationKeyError as error:
        raise ConfigError(f"{setting.input_line}: {_one_line(error)}") from error
    except OmegaConfBaseException:
        return  # ${hydra:...} and the like have values only while a job runs


def _compose(config_name: str, overrides: list[str]) -> DictConfig:
    try:
        return hydra.compose(config_name, overrides, return_hydra_config=True)
    except Exception as error:  # nothing but the user's settings and YAML files is at work here
        line = _one_line(error)
        if isinstance(error.__cause__, OmegaConfBaseException):
            line = f"{line}: {_one_line(error.__cause__)}"
        if isinstance(error, MissingConfigException):
            line = line.partition(" Config search path:")[0]
        raise ConfigError(line) from error


def _check_setting(setting: Override, cfg: DictConfig, groups: Groups) -> None:
    """Raises ConfigError for a key that does not exist or a value of another kind."""
    key = setting.key_or_group
    present = setting.package is None and _has(cfg, key)
    if setting.is_force_add() or (setting.is_add() and not present):
        return
    if setting.is_add():
        raise ConfigError(f"{key} exists already; leave the + away: {str(setting.input_line)[1:]}")
    if not present:
        raise ConfigError(f"{key} is not a setting; {_suggestion(key, cfg, groups)}")
    if setting.is_delete() or setting.is_hydra_override():
        return  # Hydra's own settings are typed: composing checks them
    old, new = _kind(OmegaConf.to_container(cfg), key), setting.value()
    text = isinstance(new, str) and ("${" in new or new == "auto")
    if old is None or new is None or text or old == _kind_of(new):
        return
    if old == TEXT and not isinstance(new, dict | list):
        return  # "auto", "32-true" and the like often stand for a number
    raise ConfigError(
        f"{setting.input_line} gives {_kind_of(new)} where the setting is {old}; "
        f"++{setting.input_line} sets it all the same"
    )


def _has(cfg: DictConfig, key: str) -> bool:
    """Whether a dotted key exists, whatever its value."""
    head, _, last = key.replace("[", ".").replace("]", "").rpartition(".")
    try:
        parent = OmegaConf.select(cfg, head) if head else cfg
        if isinstance(parent, ListConfig):
            return last.isdigit() and int(last) < len(parent)
        return isinstance(parent, DictConfig) and last in parent.keys()  # noqa: SIM118
    except OmegaConfBaseException:
        return True  # behind an interpolation that cannot be resolved yet: composing decides


TEXT = "text"


def _kind_of(value: Any) -> str | None:
    """The kind of a value in words; None where any value fits."""
    if value is None or (isinstance(value, str) and (value == "???" or "${" in value)):
        return None
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, dict):
        return "a group of settings"
    return "a list" if isinstance(value, list) else TEXT


def _kind(tree: Any, key: str) -> str | None:
    """The kind of what the config holds at a dotted key; None behind an interpolation."""
    for part in key.replace("[", ".").replace("]", "").split("."):
        if isinstance(tree, dict) and part in tree:
            tree = tree[part]
        elif isinstance(tree, list) and part.isdigit() and int(part) < len(tree):
            tree = tree[int(part)]
        else:
            return None
    return _kind_of(tree)


def _suggestion(key: str, cfg: DictConfig, groups: Groups) -> str:
    """Names the setting that was probably meant, else what there is at that place."""
    tree = OmegaConf.to_container(cfg)
    if not key.startswith("hydra"):
        tree.pop("hydra", None)
    known = [*_paths(tree), *groups.names()]
    above = {path for path in known if key.startswith(f"{path}.")}
    above = {path for path in above if any(name.startswith(f"{path}.") for name in known)}
    leaf = key.rpartition(".")[2]

    def likeness(path: str) -> float:
        ours, theirs = key.split("."), path.split(".")
        while len(ours) > 1 and len(theirs) > 1 and ours[0] == theirs[0]:
            del ours[0], theirs[0]  # what both begin with says nothing about the mistake
        ratio = difflib.SequenceMatcher(None, ".".join(ours), ".".join(theirs)).ratio()
        return ratio + 0.2 * (theirs[-1] == leaf)

    best = max(set(known) - above, key=likeness, default="")
    if likeness(best) >= 0.6 or best.rpartition(".")[2] == leaf:
        return f"did you mean {best!r}?"
    parent = key
    while parent:
        parent = parent.rpartition(".")[0]
        inside = [path for path in known if path.rpartition(".")[0] == parent]
        if inside:
            return f"known: {_listing(sorted(set(inside)))}"
    return "the config is empty"


def _paths(tree: Any, prefix: str = "") -> Iterator[str]:
    """All dotted keys of a tree of dicts and lists."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        path = f"{prefix}{key}"
        yield path
        if isinstance(value, dict | list):
            yield from _paths(value, f"{path}.")


def _help(conf: Path, config_name: str, description: str, overrides: list[str]) -> str:
    """What the entry point does, the options of each group, examples, where outputs go."""
    if not conf.is_absolute():
        raise ConfigError(f"--help needs an absolute folder, not --config-path {conf}")
    with _hydra(conf) as loader:
        groups = Groups(loader, conf)
        options = {name: groups.options(name) for name in groups.names()}
        cfg = _compose(config_name, overrides)
        defaults = loader.compute_defaults_list(config_name, overrides, RunMode.RUN).defaults
    chosen = {default.config_path for default in defaults}
    places = OmegaConf.to_container(cfg.hydra)
    lines = [inspect.cleandoc(description).partition("\n\n")[0], ""]
    lines += [f"Config groups in {conf} (group=option; * is chosen unless you say otherwise):"]
    for group, names in options.items():
        marked = [f"{name}*" if f"{group}/{name}" in chosen else name for name in names]
        lines.append(f"  {group}: {', '.join(marked)}")
    del cfg.hydra
    lines += ["", "Examples:", *_examples(_command(), options, OmegaConf.to_container(cfg))]
    lines += [
        "",
        "Outputs (${...} is filled in when a run starts):",
        f"  of a run in {places['run']['dir']}",
        f"  of a sweep in {places['sweep']['dir']}/{places['sweep']['subdir']}",
        "",
        "Every setting: --cfg job    Where they come from: --info    Hydra's flags: --hydra-help",
    ]
    return "\n".join(lines)


def _examples(command: str, options: dict[str, list[str]], tree: dict[str, Any]) -> Iterator[str]:
    """Four command lines made from what the config offers."""
    group = "experiment" if options.get("experiment") else next(iter(options), "")
    choice = f" {group}={options[group][0]}" if group else ""
    number = next(
        (path for path in sorted(_paths(tree), key=len) if _kind(tree, path) == "a number"), "seed"
    )
    number = "seed" if "seed" in tree else number
    examples = {
        f"{command}{choice}": "run it",
        f"{command}{choice} {number}=1": "with another value of one setting",
        f"{command} -m{choice} {number}=1,2,3": "a sweep: one job for each value",
        f"{command} --cfg job{choice}": "show the settings, run nothing",
    }
    width = max(map(len, examples))
    yield from (f"  {line:<{width}}  # {what}" for line, what in examples.items())


def _command() -> str:
    """How this program was called."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return f"python {sys.argv[0]}" if spec is None else f"python -m {spec.name}"
