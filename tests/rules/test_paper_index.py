"""The paper index says what the experiments do: all that they set, and as they set it."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from unified_rl.runtime.cli import register_resolvers

ROOT = Path(__file__).parents[2]
CONF, PAGE = ROOT / "conf", ROOT / "docs" / "papers.md"
EXPERIMENTS = sorted(
    str(path.relative_to(CONF / "experiment").with_suffix(""))
    for path in (CONF / "experiment").rglob("*.yaml")
    if "micro" not in str(path.relative_to(CONF))
)
HEADING = re.compile(r"^### (.*)$", re.M)
ROW = re.compile(r"^\| `([^`]+)` \| `([^`]*)` \| ([^|]*) \| ([^|]*) \|$", re.M)


class Row(dict):
    """A line of a table: value, where and says."""


def index(page: str) -> dict[str, dict[str, Row]]:
    """Rows by experiment and setting."""
    found: dict[str, dict[str, Row]] = {}
    parts = HEADING.split(page)
    for heading, body in zip(parts[1::2], parts[2::2], strict=True):
        rows = {
            key: Row(value=value, where=where.strip(), says=says.strip())
            for key, value, where, says in ROW.findall(body)
        }
        for name in re.findall(r"`experiment=([^`]+)`", heading):
            found[name] = rows
    return found


INDEX = index(PAGE.read_text(encoding="utf-8"))


@pytest.fixture(scope="module", autouse=True)
def conf() -> Iterator[None]:
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def composed(experiment: str, *settings: str) -> DictConfig:
    return compose("train", [f"experiment={experiment}", *settings], return_hydra_config=True)


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def set_by(experiment: str) -> set[str]:
    """Groups that its file chooses and settings that it gives."""
    content = yaml.safe_load((CONF / "experiment" / f"{experiment}.yaml").read_text())
    listed = content.pop("defaults")
    chosen = {key for entry in listed if isinstance(entry, dict) for key in entry}
    open_ones = {key for key in leaves(content) if at(content, key) == "???"}
    return {key.removeprefix("override /") for key in chosen} | set(leaves(content)) - open_ones


def at(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree[part]
    return tree


def test_the_page_has_every_experiment_of_full_scale_and_no_other():
    assert sorted(INDEX) == EXPERIMENTS


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_value_on_the_page_is_the_experiments(experiment):
    config = composed(experiment)
    choices = config.hydra.runtime.choices
    for key, row in INDEX[experiment].items():
        told = yaml.safe_load(row["value"])
        if key == "reward":  # Hydra keeps no record of a choice of several
            assert composed(experiment, f"reward={row['value']}").reward == config.reward
            continue
        found = choices[key] if key in choices else OmegaConf.select(config, key)
        if OmegaConf.is_config(found):
            found = OmegaConf.to_container(found)
        assert found == told, f"{key}: the page says {told}, the experiment {found}"
        assert row["where"] and row["says"], key


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_value_of_an_experiment_is_on_the_page(experiment):
    assert set_by(experiment) <= set(INDEX[experiment])


def test_a_page_that_lies_would_be_found_out():
    heading, table = "### `experiment=corl/unified`\n\n", "| setting | value |\n|---|---|\n"
    page = heading + table + "| `stage.group_size` | `9` | Table 5 | nine |\n"
    assert index(page) == {
        "corl/unified": {"stage.group_size": {"value": "9", "where": "Table 5", "says": "nine"}}
    }
    assert composed("corl/unified").stage.group_size == 8
