"""The command line, read and checked before anything heavy starts."""

import argparse
import copy
import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from unified_rl.core.errors import ConfigError, nearest
from unified_rl.runtime.config_groups import Groups, compose, open_hydra
from unified_rl.runtime.explaining import one_line
from unified_rl.runtime.missing_values import require_values
from unified_rl.runtime.namesakes import require_no_namesakes
from unified_rl.runtime.setting_check import check_reference, check_setting

CHECKED_COMBINATIONS = 64
"""A sweep up to this size is checked combination by combination, a larger one value by value."""


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
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


def settings_first(arguments: Sequence[str], settings: Sequence[str]) -> list[str]:
    """The arguments with all settings before all flags, each in their order."""
    flags = list(arguments)
    for setting in settings:
        flags.remove(setting)
    return [*settings, *flags]


def check_command_line(conf: Path, config_name: str, args: argparse.Namespace) -> None:
    """Composes every job of the command line before anything heavy starts.

    Args:
        conf: folder of configs.
        config_name: of the primary config.
        args: from `parse_arguments`.

    Raises:
        ConfigError: names the first setting or option that is wrong, and the nearest right one; or,
            where jobs are run and not only shown, options that hide each other, or the settings
            that have no value.
    """
    with open_hydra(conf) as loader:
        names = loader.get_group_options("")
        if config_name.removesuffix(".yaml") not in names:
            raise ConfigError(
                f"there is no config {config_name!r} in {conf}; {nearest(config_name, names)}"
            )
        extra, folders = [], [conf]
        if args.config_dir is not None:
            folders.append(Path(args.config_dir))
            extra.append(f"hydra.searchpath=['file://{Path(args.config_dir).absolute()}']")
        overrides = [_parse_override(text, loader) for text in args.overrides]
        mode = GlobalHydra.instance().hydra.get_mode(config_name, extra + args.overrides)
        sweeping = args.multirun or mode == RunMode.MULTIRUN
        check = _JobCheck(Groups(loader, conf, args.config_dir), config_name, extra)
        only_shown = args.cfg or args.info or args.hydra_help
        for job in _jobs(overrides, sweeping and not args.cfg):
            cfg = check(job)
            if cfg is not None and not only_shown:
                texts = [*extra, *(str(setting.input_line) for setting in job)]
                found = loader.compute_defaults_list(config_name, texts, RunMode.RUN)
                require_no_namesakes(found.defaults, config_name, folders)
                require_values(cfg, config_name, folders)


def _parse_override(text: str, loader: ConfigLoader) -> Override:
    try:
        override = OverridesParser.create(config_loader=loader).parse_overrides([text])[0]
        if not override.key_or_group:
            raise ConfigError(f"{text} has no setting before the =")
        return override
    except HydraException as error:
        if "=" not in text:
            raise ConfigError(f"{text} is not of the form setting=value") from error
        reason = one_line(error).removeprefix(f"Error parsing override '{text}'").strip()
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

    def __call__(self, job: Sequence[Override]) -> DictConfig | None:
        """The composed config of the first job with its options; None for those that follow.

        Raises:
            ConfigError: names the first override that is wrong.
        """
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
            self._composed[lines] = compose(self._config_name, list(lines))
        cfg = copy.deepcopy(self._composed[lines])
        for setting in settings:
            check_setting(setting, cfg, self._groups)
            if setting.is_add() or setting.is_force_add():  # later settings may need it
                with suppress(OmegaConfBaseException):
                    OmegaConf.update(cfg, setting.key_or_group, setting.value(), force_add=True)
        if is_new and settings:  # what only composing finds, and values that refer to others
            texts = [str(setting.input_line) for setting in settings]
            cfg = compose(self._config_name, [*lines, *texts])
            for setting in settings:
                check_reference(setting, cfg)
        return cfg if is_new else None

    def _check_choice(self, choice: Override) -> None:
        value = choice.value()
        if value is None and not choice.is_delete():
            raise ConfigError(f"{choice.input_line}: leave a group out with ~{choice.key_or_group}")
        for option in value if isinstance(value, list) else [value]:
            if value is not None:
                self._groups.check(choice.key_or_group, str(option))
