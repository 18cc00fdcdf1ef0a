"""The hash of a configuration: what changes a number changes it, where things lie does not."""

import copy

import pytest

from unified_rl.runtime.provenance import config_hash

CONFIG = {
    "seed": 0,
    "model": {"checkpoint": "a/checkpoint", "dtype": "float32"},
    "stage": {"policy": {"checkpoint": "a/checkpoint"}, "reward": [{"checkpoint": "judge"}]},
    "paths": {"output": "a"},
    "logger": {"group": "one"},
}


def changed(**parts):
    config = copy.deepcopy(CONFIG)
    for name, value in parts.items():
        config[name] = value
    return config_hash(config)


def test_a_run_that_was_moved_has_the_same_hash():
    moved = copy.deepcopy(CONFIG)
    moved["model"]["checkpoint"] = moved["stage"]["policy"]["checkpoint"] = "b/checkpoint"
    moved |= {"paths": {"output": "b"}, "logger": {"group": "two"}}
    assert config_hash(moved) == config_hash(CONFIG)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"model": {"checkpoint": "a/checkpoint", "dtype": "bfloat16"}},
        {"model": {"checkpoint": None, "dtype": "float32"}},
        {"stage": {"policy": {"checkpoint": "a/checkpoint"}, "reward": [{"checkpoint": "other"}]}},
    ],
)
def test_a_setting_that_changes_a_number_changes_the_hash(change):
    assert changed(**change) != config_hash(CONFIG)
