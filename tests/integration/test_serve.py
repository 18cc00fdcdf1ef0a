"""`python -m unified_rl.serve`: from start to SIGTERM, and what it refuses."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from tests.rewards.cases import END, FIRST, GOLD, ONE, rollout, told
from unified_rl.core.errors import RewardError
from unified_rl.rewards.hybrid import HybridReward
from unified_rl.rewards.remote import RemoteReward
from unified_rl.rewards.textual import TextualReward
from unified_rl.rewards.visual import VisualReward
from unified_rl.runtime.cli import register_resolvers
from unified_rl.runtime.command_line import check_command_line, parse_arguments
from unified_rl.serve import fingerprint, stopped_by_signals

ROOT = Path(__file__).parents[2]
STORIES = rollout([told(*GOLD, END), told(FIRST, ONE, END)], group_size=2)


def served(tmp_path, *settings):
    """A server of its own process, and where it listens."""
    command = [sys.executable, "-m", "unified_rl.serve", "port=0", "threads=1", *settings]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    )
    lines = iter(process.stdout.readline, "")
    line = next(line for line in lines if line.startswith("serving "))
    return process, line.split()


def ended(process):
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=30)
    return process.returncode, said


def test_from_start_to_sigterm(tmp_path):
    process, (_, *names, _, url) = served(tmp_path, "reward=[visual,textual,cycle]")
    try:
        assert names == ["cycle,", "textual,", "visual"]
        register_resolvers()
        asked = [
            "reward=[format,remote]",
            f"reward.remote.url={url}",
            "reward.remote.reward=visual",
        ]
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            config = compose("train", [*asked, "reward.remote.reward=visual", "stage=unified_grpo"])
        reward = instantiate(config.stage.reward, components=instantiate(config.reward))
        assert isinstance(reward, HybridReward)
        reward.self_test()
        found = reward(STORIES).components["remote"]
        expected = VisualReward()(STORIES)
        assert found.outcome.tolist() == expected.outcome.tolist()
        texts = RemoteReward("textual", url)(STORIES)
        assert texts.outcome.tolist() == TextualReward()(STORIES).outcome.tolist()
    finally:
        code, said = ended(process)
    assert code == 0
    assert "requests in hand are finished first" in said
    with pytest.raises(RewardError, match="has been away"):
        RemoteReward("visual", url, restart_wait_s=0)(STORIES)
    assert list(tmp_path.rglob("*.yaml")) == [], "it leaves nothing behind"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([], "no reward to serve; name one"),
        (["reward=vizual"], "vizual"),
        (["reward=clip_score"], "reward.clip_score.checkpoint has no value"),
        (["reward=matching"], "reward 'matching' asks the policy in training"),
        (["reward=cycle_self"], "reward 'cycle' asks the policy in training"),
        (["reward=visual", "host=0.0.0.0"], "can be reached by others"),
        (["reward=visual", "token_variable=NO_SUCH_TOKEN"], "NO_SUCH_TOKEN is not set"),
        (["reward=visual", "port=99999"], "port=99999 cannot be listened at"),
        (["reward=visual", "server.most_rows=-1"], "most_rows=-1"),
        (
            [
                "reward=textual_judged",
                "reward.textual.judge.base_url=http://127.0.0.1:9",
                "reward.textual.judge.model=critic",
                "reward.textual.judge.attempts=1",
            ],
            "reward 'textual' fails its self-test: JudgedTextReward: the judge left 4 of 4",
        ),
    ],
)
def test_what_is_refused_in_one_line(run_command, settings, message):
    code, _, said = run_command("serve", *settings)
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    assert code in (2, 3)
    assert len(lines) == 1
    assert message in lines[0]


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_is_given_back(kind):
    before = signal.getsignal(kind)
    with stopped_by_signals() as stopped:
        os.kill(os.getpid(), kind)
        assert stopped.wait(5)
    assert signal.getsignal(kind) is before


PAGE = (ROOT / "docs" / "judges.md").read_text()
BLOCKS = "".join(re.findall(r"^```bash\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
COMMANDS = re.findall(
    r"^python -m unified_rl\.(\w+) (.*)$", BLOCKS.replace("\\\n", " "), re.MULTILINE
)


@pytest.mark.parametrize(("entry", "arguments"), COMMANDS, ids=range(len(COMMANDS)))
def test_what_the_page_says_composes(entry, arguments):
    register_resolvers()
    whole = arguments.replace("... ", "experiment=unified_grpo/micro_grpo ")
    check_command_line(ROOT / "conf", entry, parse_arguments(shlex.split(whole)))


def test_a_fingerprint_is_of_what_a_reward_says():
    settings = {"_target_": "x", "weight": 1.0, "judge": {"model": "a", "device": "cpu"}}
    elsewhere = {"_target_": "x", "weight": 0.5, "judge": {"model": "a", "device": "cuda:1"}}
    elsewhere["judge"]["base_url"] = "http://localhost:9"
    other = json.loads(json.dumps(settings).replace('"a"', '"b"'))
    assert fingerprint(settings) == fingerprint(elsewhere) != fingerprint(other)
