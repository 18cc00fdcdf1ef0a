"""Small random judges in the place of published ones."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from unified_rl.core.errors import ConfigError
from unified_rl.rewards import specimens
from unified_rl.rewards.hybrid import HybridReward
from unified_rl.rewards.image_reward_specimen import image_reward_folder
from unified_rl.runtime.dry_run.change import Changes

_REWARDS = "unified_rl.rewards"
CHECKPOINTS: Mapping[str, Callable[[Path], Path]] = {
    "ClipScoreReward": specimens.clip_folder,
    "BlipCaptioner": specimens.blip_folder,
    "BertScore": specimens.bert_folder,
    "ImageReward": image_reward_folder,
}
"""What makes a folder for the setting `checkpoint` of a class."""


class UntestedReward(HybridReward):
    """A hybrid reward whose components are random, so that they tell nothing apart."""

    def self_test(self) -> None:
        """Nothing: random judges would fail it."""


def replace_judges(changes: Changes, folder: Path, endpoint: str) -> None:
    """Gives every model that judges a small random one of its class, on the CPU.

    Judges behind a chat endpoint are asked at one that scores by chance.

    LPIPS and SPICE, whose weights and parsers lie in folders of other packages, make way for the
    micro-world's distance and for BERTScore.

    Args:
        changes: of the configuration.
        folder: where the models are made.
        endpoint: base URL of that one.

    Raises:
        ConfigError: a judge of which nothing small is known.
    """
    for key, node in changes.nodes("reward"):
        name = node["_target_"].rpartition(".")[2]
        if name == "LpipsDistance":
            changes.swap(key, {"_target_": f"{_REWARDS}.perceptual.WorldDistance"}, "WorldDistance")
            continue
        if name == "SpiceScore":
            made = str(specimens.bert_folder(folder / key))
            now = {"_target_": f"{_REWARDS}.caption_scores.BertScore", "checkpoint": made}
            changes.swap(key, now, f"BertScore with a random BERT, {made}")
            continue
        if name == "ChatEndpoint":
            changes.set(f"{key}.base_url", endpoint, "an endpoint here that scores by chance")
            changes.set(f"{key}.model", "chance")
            changes.set(f"{key}.key_variable", None)
            changes.set(f"{key}.cache", None)
        if "checkpoint" in node:
            if name not in CHECKPOINTS:
                raise ConfigError(f"a dry run knows no small model for {key}, a {name}")
            made = str(CHECKPOINTS[name](folder / key))
            changes.set(f"{key}.checkpoint", made, f"random, {made}")
        if "device" in node:
            changes.set(f"{key}.device", "cpu")
    if _has_reward(changes.config.stage):
        target = f"{UntestedReward.__module__}.{UntestedReward.__name__}"
        changes.set("stage.reward._target_", target, "UntestedReward, as these judges are random")


def _has_reward(stage: Mapping[str, Any]) -> bool:
    return "reward" in stage
