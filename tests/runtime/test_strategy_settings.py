"""What cannot work is refused in one line, before any process starts."""

import pytest

from unified_rl.core.errors import ConfigError
from unified_rl.runtime.provenance import config_hash
from unified_rl.runtime.strategies.replicated import single
from unified_rl.runtime.strategies.zero import ZeroStrategy


@pytest.mark.parametrize("devices", [1, "1", [3]])
def test_one_process_needs_no_strategy(devices):
    assert single(devices) == "auto"


@pytest.mark.parametrize("devices", [2, "auto", -1, [0, 1]])
def test_several_processes_need_one(devices):
    with pytest.raises(ConfigError, match=r"trainer\.devices=.*add strategy=ddp"):
        single(devices)


@pytest.mark.parametrize("stage", [0, 4])
def test_zero_has_three_stages(stage):
    with pytest.raises(ConfigError, match=rf"strategy\.stage={stage} is none of 1, 2, 3"):
        ZeroStrategy(stage)


def test_whole_weights_are_not_offloaded():
    with pytest.raises(
        ConfigError, match=r"offload_parameters=true needs strategy\.stage=3, not 2"
    ):
        ZeroStrategy(2, offload_parameters=True)


def test_how_work_is_shared_is_no_part_of_a_run():
    trainer = {"devices": 1, "accelerator": "cpu"}
    alone = config_hash({"trainer": trainer, "strategy": {"devices": 1}})
    shared = {"trainer": {**trainer, "devices": 8, "num_nodes": 2}, "strategy": {"stage": 3}}
    assert config_hash(shared) == alone
    assert config_hash({"trainer": trainer}) == alone  # as before there was a choice
    assert config_hash({"trainer": {**trainer, "accelerator": "gpu"}}) != alone
