"""What the tests of pipelines share: a model of random weights, and evaluations that are quick."""

from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from unified_rl.models.checkpoint import write_folder
from unified_rl.runtime.cli import register_resolvers

ROOT = Path(__file__).parents[2]
EVALUATED = [
    "suite.story_count=2",
    "suite.drawings_per_category=1",
    "suite.questions_per_category=1",
    "suite.batch_size=16",
]


def save_random_model(assets):
    """The demo's own architecture, of random weights."""
    register_resolvers()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("train", ["model.checkpoint=null"])
    torch.manual_seed(0)
    write_folder(assets / "micro_janus", instantiate(config.model, _convert_="all")().save)
