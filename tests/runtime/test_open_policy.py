"""A policy is opened by name, and what cannot be opened is said in one line."""

from pathlib import Path

import pytest

from unified_rl.core.errors import CheckpointError, ConfigError
from unified_rl.runtime.open_policy import open_policy, settled_device


@pytest.fixture(autouse=True)
def assets(monkeypatch):
    monkeypatch.setenv("UNIFIED_RL_ASSETS", str(Path(__file__).parents[2] / "assets"))


def test_settings_reach_the_policy_and_its_behaviour():
    asked = ["behaviour.guidance_scale=2.5"]
    policy, behaviour = open_policy("micro_janus", None, "micro", "cpu", asked)
    assert not policy.training
    assert behaviour.guidance_scale == 2.5


@pytest.mark.parametrize(
    ("model", "behaviour", "overrides", "says"),
    [
        ("micro_janos", "micro", [], "micro_janos"),
        ("micro_janus", "mikro", [], "mikro"),
        ("micro_janus", "micro", ["no.such=1"], "no"),
    ],
)
def test_unknown_names_are_one_line(model, behaviour, overrides, says):
    with pytest.raises(ConfigError, match=says) as error:
        open_policy(model, None, behaviour, "cpu", overrides)
    assert "\n" not in str(error.value)


def test_a_checkpoint_that_is_none_is_refused(tmp_path):
    with pytest.raises((CheckpointError, ConfigError)):
        open_policy("micro_janus", str(tmp_path), "micro", "cpu")


def test_devices():
    assert settled_device("cpu") == "cpu"
    with pytest.raises(ConfigError, match="device=nonsense"):
        settled_device("nonsense")
