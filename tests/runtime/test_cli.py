"""Every mistake on a command line ends in one line on stderr and its exit code."""

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from unified_rl.core.errors import DataError, RewardError
from unified_rl.runtime import cli

CONF = {
    "train.yaml": """
defaults:
  - model: micro_janus
  - objective: grpo
  - reward: [format]
  - _self_
  - experiment: null
  - override hydra/job_logging: none
  - override hydra/hydra_logging: none
seed: 0
iterations: 10
name: toy
devices: 1
fast: false
tags: [a, b]
hydra:
  run: {dir: outputs/run}
  sweep: {dir: outputs/sweep, subdir: "${shorten:${hydra:job.override_dirname}}"}
""",
    "model/micro_janus.yaml": "width: 8\n",
    "model/large.yaml": "width: 64\ndepth: 4\n",
    "objective/grpo.yaml": "_target_: toy_parts.Objective\nbeta: 0.1\n",
    "reward/format.yaml": "format: {weight: 1.0}\n",
    "reward/visual.yaml": "visual: {weight: 0.5}\n",
    "experiment/unified_grpo/micro_grpo.yaml": "# @package _global_\nseed: 7\n",
}
PARTS = """
class Objective:
    def __init__(self, beta: float, group: object = None) -> None:
        if beta < 0:
            raise ValueError(f"beta={beta} must be at least 0\\nsecond line")
        if beta > 9:
            raise RuntimeError("a fault of the program")
"""
SCRIPT = """
\"\"\"Trains a toy.

A second paragraph.
\"\"\"
import sys
from unified_rl.runtime.cli import run

def main(cfg):
    if cfg.seed == 3:
        print("ready", flush=True)
        import time
        time.sleep(60)
    print("seed", cfg.seed, "torch" in sys.modules)

if __name__ == "__main__":
    sys.exit(run(main, "train", __doc__))
"""
ROOT = Path(cli.__file__).parents[2]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name, text in CONF.items():
        file = tmp_path / "conf" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (tmp_path / "toy_parts.py").write_text(PARTS)
    (tmp_path / "toy.py").write_text(SCRIPT)
    monkeypatch.setenv("UNIFIED_RL_CONF", str(tmp_path / "conf"))
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def start(folder, monkeypatch, capfd):
    """Runs an entry point in this process; gives exit code, stdout, stderr and seen configs."""

    def start(*arguments, main=None):
        seen = []

        def record(cfg: DictConfig) -> int | None:
            seen.append(OmegaConf.to_container(cfg, resolve=False))
            return None if main is None else main(cfg)

        monkeypatch.setattr(sys, "argv", ["toy.py", *arguments])
        try:
            code = cli.run(record, "train", "Trains a toy.\n\nMore.")
        except SystemExit as stop:
            code = stop.code or 0
        assert not GlobalHydra.instance().is_initialized()
        out, err = capfd.readouterr()
        return code, out, err, seen

    return start


def script(folder, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "toy.py", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


MISTAKES = {
    "key": (
        ["objectve.beta=0.02"],
        "objectve.beta is not a setting; did you mean 'objective.beta'?",
    ),
    "nested_key": (["objective.betta=1"], "did you mean 'objective.beta'?"),
    "leaf_alone": (["beta=1"], "beta is not a setting; did you mean 'objective.beta'?"),
    "far_off": (["objective.zzzz=1"], "known: objective._target_, objective.beta"),
    "hydra_key": (["hydra.run.dri=x"], "did you mean 'hydra.run.dir'?"),
    "in_list": (["reward.format.wieght=2"], "did you mean 'reward.format.weight'?"),
    "group": (["modle=large"], "modle is not a setting; did you mean 'model'?"),
    "deleted_key": (["~sed"], "sed is not a setting; did you mean 'seed'?"),
    "key_of_other_option": (["model.depth=2"], "model.depth is not a setting"),
    "option": (
        ["model=micro_jnus"],
        "model=micro_jnus is not an option; did you mean 'micro_janus'? "
        "(conf/model: large, micro_janus)",
    ),
    "several_options": (
        ["reward=[format,vsual]"],
        "reward=vsual is not an option; did you mean 'visual'? (conf/reward: format, visual)",
    ),
    "path": (
        ["experiment=unified_grpo/micro_grp"],
        "experiment=unified_grpo/micro_grp is not an option; "
        "did you mean 'unified_grpo/micro_grpo'?",
    ),
    "path_without_folder": (["experiment=micro_grpo"], "did you mean 'unified_grpo/micro_grpo'?"),
    "added_option": (["+model@other=lrge"], "model=lrge is not an option; did you mean 'large'?"),
    "null_option": (["model=null"], "leave a group out with ~model"),
    "no_value": (["foo"], "foo is not of the form setting=value"),
    "no_key": (["=3"], "=3 has no setting before the ="),
    "bracket": (["tags=[1"], "tags=[1 cannot be read"),
    "exists": (["+seed=1"], "seed exists already; leave the + away: seed=1"),
    "number": (["seed=abc"], "seed=abc gives text where the setting is a number; ++seed=abc"),
    "switch": (["fast=3"], "gives a number where the setting is true or false"),
    "list": (["tags=a"], "tags=a gives text where the setting is a list"),
    "node": (["objective={betta: 1}"], "betta"),
    "below_number": (["seed.x=1"], "seed.x is not a setting"),
    "typed_hydra": (["hydra.job.chdir=maybe"], "hydra.job.chdir=maybe"),
    "interpolation": (
        ["iterations=${sed}"],
        "iterations=${sed}: Interpolation key 'sed' not found",
    ),
    "comma": (["seed=1,2"], "seed=1,2 holds several values; add -m"),
    "swept_key": (["-m", "sed=1,2"], "sed is not a setting; did you mean 'seed'?"),
    "swept_option": (["-m", "model=large,micro_jnus"], "did you mean 'micro_janus'?"),
    "swept_list": (["-m", "reward=[format],[visual,vsual]"], "reward=vsual is not an option"),
    "swept_kind": (["-m", "seed=1,two"], "seed=two gives text"),
    "swept_pair": (["-m", "model=large,micro_janus", "model.depth=1,2"], "model.depth is not a"),
    "wide_sweep": (["-m", "seed=range(0,99)", "model=large,lrge"], "model=lrge is not an option"),
    "endless_sweep": (["-m", "seed=interval(0,1)"], "has no end of values"),
    "empty_sweep": (["-m", "model=glob(z*)"], "sweeps over nothing"),
    "shown": (["--cfg", "job", "sed=1"], "did you mean 'seed'?"),
    "flag": (["--multirn"], "--multirn is not a flag; did you mean '--multirun'?"),
    "flag_value": (["--cfg", "jb"], "invalid choice: 'jb'"),
    "two_flags": (["-m", "--cfg", "job"], "--multirun and --cfg exclude each other"),
    "resolve_alone": (["--resolve"], "--resolve needs --cfg job"),
    "config_name": (["-cn", "trian"], "there is no config 'trian'"),
    "config_path": (["-cp", "/no/such/folder"], "/no/such/folder is not a folder"),
    "config_dir": (["-cd", "/no/such/folder"], "/no/such/folder is not a folder"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_ends_in_one_line_and_code_2(start, name):
    arguments, expected = MISTAKES[name]
    code, out, err, seen = start(*arguments)
    assert (code, out, seen) == (2, "", [])
    assert err.startswith("error: ") and err.count("\n") == 1 and expected in err


RIGHT = {
    "nothing": ([], 0),
    "number": (["seed=4"], 4),
    "experiment": (["experiment=unified_grpo/micro_grpo"], 7),
    "command_line_over_experiment": (["experiment=unified_grpo/micro_grpo", "seed=5"], 5),
    "list_of_options": (["reward=[format,visual]", "reward.visual.weight=2"], 0),
    "option_then_its_key": (["model=large", "model.depth=2"], 0),
    "float_for_int": (["iterations=1e3"], 0),
    "auto": (["devices=auto"], 0),
    "number_for_text": (["name=12"], 0),
    "null": (["name=null"], 0),
    "forced_kind": (["++seed=abc"], "abc"),
    "added": (["+extra.deep=1", "extra.deep=2"], 0),
    "deleted": (["~model", "~name"], 0),
    "interpolation": (["seed=${iterations}"], "${iterations}"),
    "quoted_comma": (["name='a,b'"], 0),
    "hydra": (["hydra.run.dir=elsewhere"], 0),
    "relaunched_by_lightning": (['hydra.run.dir="a/b"', "hydra.job.name=x"], 0),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_command_line_runs(start, name):
    arguments, seed = RIGHT[name]
    code, _, err, seen = start(*arguments)
    assert (code, err) == (0, "")
    assert [cfg["seed"] for cfg in seen] == [seed]


@pytest.mark.parametrize(
    "arguments", [["name=b", "-m", "seed=1,2"], ["hydra.mode=MULTIRUN", "seed=1,2"]]
)
def test_sweep_runs_every_job_wherever_the_flag_stands(start, arguments):
    code, _, _, seen = start(*arguments)
    assert code == 0
    assert [cfg["seed"] for cfg in seen] == [1, 2]


def test_further_config_folder_offers_options(start, folder):
    (folder / "more/model").mkdir(parents=True)
    (folder / "more/model/tiny.yaml").write_text("width: 1\n")
    assert start("-cd", "more", "model=tiny", "model.width=2")[3][0]["model"] == {"width": 2}
    assert "did you mean 'tiny'?" in start("-cd", "more", "model=tny")[2]


def test_broken_yaml_is_named_with_its_line(start, folder):
    (folder / "conf/model/large.yaml").write_text("width: 8\n  depth: [\n")
    code, _, err, _ = start("model=large")
    assert code == 2 and err.count("\n") == 1
    assert "large.yaml line 2 is not YAML" in err


def test_conf_folder_that_is_absent(start, monkeypatch):
    monkeypatch.setenv("UNIFIED_RL_CONF", "nowhere")
    code, _, err, _ = start()
    assert code == 2 and err.count("\n") == 1
    assert "UNIFIED_RL_CONF=nowhere is not a folder" in err


def test_conf_folder_beside_the_package(monkeypatch):
    monkeypatch.delenv("UNIFIED_RL_CONF", raising=False)
    assert cli.conf_folder() == ROOT / "conf"


def test_help_needs_no_torch_and_tells_what_there_is(folder):
    probe = SCRIPT.replace("sys.exit(run", "code = run").replace("__doc__))", "__doc__)")
    (folder / "toy.py").write_text(f"{probe}    assert 'torch' not in sys.modules, code\n")
    done = script(folder, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    for line in (
        "Trains a toy.",
        "  model: large, micro_janus*",
        "  reward: format*, visual",
        "  experiment: unified_grpo/micro_grpo",
        "  python toy.py -m experiment=unified_grpo/micro_grpo seed=1,2,3",
        "  of a run in outputs/run",
    ):
        assert line in done.stdout
    assert "second paragraph" not in done.stdout
    assert done.stdout.count("  python toy.py") == 4


def test_help_with_examples_of_its_own_gets_no_others(folder):
    (folder / "toy.py").write_text(SCRIPT.replace("Trains a toy.", "Runs python toy.py often."))
    done = script(folder, "--help")
    assert (done.returncode, "Examples:" in done.stdout) == (0, False)
    assert "  model: large" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--cfg", "job"], "seed: 0"),
        (["-c", "job", "seed=5"], "seed: 5"),
        (["seed=5", "-c", "job", "--package", "objective"], "beta: 0.1"),
        (["--info", "defaults"], "Defaults List"),
        (["-i", "searchpath"], "Config search path"),
        (["--hydra-help"], "Hydra ("),
        (["--version"], "Hydra 1.3"),
    ],
)
def test_hydras_own_flags_pass_through(folder, arguments, expected):
    done = script(folder, *arguments)
    assert done.returncode == 0
    assert expected in done.stdout


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (DataError("two\nlines"), 2, "error: two lines\n"),
        (RewardError("flat"), 3, "error: flat\n"),
        (
            DataError("Caught in worker 0.\nOriginal Traceback\n  x\npkg.DataError: no rows left"),
            2,
            "error: no rows left\n",
        ),
    ],
)
def test_user_error_is_one_line(start, error, code, line):
    def fail(cfg):
        raise error

    assert start(main=fail)[::2] == (code, line)


def test_user_error_behind_another_error(start):
    def fail(cfg):
        raise RuntimeError("wrapped") from DataError("no rows")

    assert start(main=fail)[::2] == (2, "error: no rows\n")


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("objective.beta=-1", "beta=-1 must be at least 0 second line (at objective)"),
        ("+objective.gamma=1", "unexpected keyword argument 'gamma' (at objective)"),
    ],
)
def test_constructor_that_refuses_is_one_line_with_its_place(start, argument, expected):
    code, _, err, _ = start(argument, main=lambda cfg: instantiate({"objective": cfg.objective}))
    assert code == 2 and err.count("\n") == 1
    assert expected in err


def test_full_error_variable_shows_the_traceback(start, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    code, _, err, _ = start("objective.beta=-1", main=lambda cfg: instantiate(cfg.objective))
    assert code == 2 and "Traceback" in err


@pytest.mark.parametrize("read", [lambda inner: inner.below.needed, lambda inner: inner.other])
def test_value_that_turns_out_to_be_missing_later(start, read):
    inner = OmegaConf.create({"below": {"needed": "???"}, "other": "${below.needed}"})
    code, _, err, _ = start(main=lambda cfg: read(inner))
    assert (code, err) == (2, "error: below.needed has no value; give one with below.needed=...\n")


@pytest.mark.parametrize("flags", [[], ["-m"]])
def test_options_that_would_hide_each_other_are_refused(start, folder, flags):
    (folder / "conf/reward/judged.yaml").write_text("visual: {weight: 2.0}\n")
    code, _, err, seen = start(*flags, "reward=[format,visual,judged]")
    assert (code, seen) == (2, [])
    assert err.startswith("error: reward=visual and reward=judged are both called 'visual', so ")
    assert err.count("\n") == 1
    assert start("reward=[format,judged]")[0] == 0
    assert start("reward=[format,visual,judged]", "--cfg", "job")[0] == 0  # only shown


OPEN = "width: 8\ncheckpoint: ??? # a folder of weights, or of a run\nmore: [{size: '???'}]\n"


@pytest.fixture
def published(folder):
    (folder / "conf/model/published.yaml").write_text(OPEN)


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize("arguments", [["model=published"], ["-m", "model=large,published"]])
def test_values_that_must_be_given_are_named_with_what_they_are(start, arguments):
    code, out, err, seen = start(*arguments, "++model.more=[]")
    assert (code, out, seen) == (2, "", [])
    assert err == (
        "error: model.checkpoint has no value; give model.checkpoint=... "
        "(conf/model/published.yaml: a folder of weights, or of a run)\n"
    )


@pytest.mark.usefixtures("published")
def test_all_values_that_must_be_given_are_named(start):
    assert start("model=published")[2].startswith(
        "error: model.checkpoint and model.more.0.size have no value; give model.checkpoint=... "
    )


@pytest.mark.usefixtures("published")
def test_a_value_without_a_file_is_named_too(start):
    assert start("+needed=???")[2] == "error: needed has no value; give needed=...\n"


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize("given", ["model.checkpoint=a", "+checkpoint=a"])
def test_a_value_that_is_given_by_either_name_runs(start, given):
    code, _, err, seen = start("model=published", "++model.more=[]", given)
    assert (code, err, len(seen)) == (0, "", 1)


@pytest.mark.usefixtures("published")
def test_a_config_with_open_values_is_shown(start):
    code, out, err, _ = start("--cfg", "job", "model=published")
    assert (code, err) == (0, "") and "checkpoint: ???" in out


def test_fault_of_the_program_shows_its_traceback(start):
    code, _, err, _ = start("objective.beta=10", main=lambda cfg: instantiate(cfg.objective))
    assert code == 1
    assert "Traceback" in err and "a fault of the program" in err


def test_bare_value_error_is_a_fault_of_the_program(start):
    code, _, err, _ = start(main=lambda cfg: int("x"))
    assert code == 1 and "Traceback" in err


def test_return_value_is_the_exit_code(start):
    assert start(main=lambda cfg: 5)[0] == 5


def test_failed_job_of_a_sweep_does_not_stop_the_others(start):
    def fail_once(cfg):
        if cfg.seed == 1:
            raise DataError("no rows")

    code, _, err, seen = start("-m", "seed=1,2", main=fail_once)
    assert (code, err) == (2, "error: no rows\n")
    assert [cfg["seed"] for cfg in seen] == [1, 2]


def test_logging_is_left_as_it_was(start):
    root = logging.getLogger()
    before = root.handlers[:], root.level
    during = []

    def record(cfg):
        during.extend(handler.stream for handler in root.handlers)

    assert start("hydra/job_logging=stdout", main=record)[0] == 0
    assert during == [sys.stdout]
    assert (root.handlers, root.level) == before


def interrupt(cfg):
    raise KeyboardInterrupt


def interrupt_as_lightning_does(cfg):
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        sys.exit(1)


@pytest.mark.parametrize("main", [interrupt, interrupt_as_lightning_does])
def test_interrupt_is_one_line(start, main):
    code, _, err, _ = start(main=main)
    assert code == 130
    assert err == "interrupted; the same command goes on from the last checkpoint\n"


def test_signal_ends_a_process_with_130(folder):
    process = subprocess.Popen(
        [sys.executable, "toy.py", "seed=3"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # shells start what runs in the background deaf to this signal
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and err.count("\n") == 1


def test_job_takes_its_name_from_the_script(folder):
    done = script(folder, "hydra.run.dir=outputs/${hydra.job.name}")
    assert done.stdout == "seed 0 False\n"
    assert (folder / "outputs/toy/.hydra/config.yaml").is_file()


@pytest.mark.parametrize(
    ("first", "expected"), [("a", "a"), ("", "b"), (None, "b"), (0, 0), (False, False)]
)
def test_either(first, expected):
    cli.register_resolvers()
    cfg = OmegaConf.create({"a": first, "b": "b", "c": "${either:${a},${b}}"})
    assert cfg.c == expected


def test_shorten():
    assert cli.shorten("model=a/b,seed=1") == "model_a_b_seed_1"
    assert cli.shorten("a" * 80) == "a" * 80
    long, other = cli.shorten("a=" * 60), cli.shorten("a=" * 61)
    # 71 letters of the name, an underscore, 8 of the hash
    assert len(long) == 80 and long.startswith("a_" * 35) and long != other
