"""The benchmarks' YAMLs: each composes, and builds once its files are named."""

from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from tests.evaluation.drawers import lines
from tests.evaluation.drawings.test_question_graphs import table
from tests.evaluation.drawings.test_wise import prompts
from tests.evaluation.geneval.test_mask2former import folder as mask2former_folder
from tests.evaluation.geneval.test_scorer import RESULT
from unified_rl.rewards.specimens import clip_folder
from unified_rl.runtime.cli import register_resolvers

CONF = Path(__file__).parents[2] / "conf"
SUITES = [
    *("geneval", "geneval_pictures", "geneval_detections", "geneval_official"),
    *("dpg_pictures", "dpg_judge", "dsg_pictures", "dsg_judge", "wise", "clip_score"),
]
TABLE_JUDGE = "tests.evaluation.drawings.answering.TableJudge"
ROW = {"tag": "colors", "include": [{"class": "dog", "count": 1}], "prompt": "a dog"}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return str(clip_folder(tmp_path_factory.mktemp("clip")))


def settings(suite, tmp_path, clip):
    metadata = lines(tmp_path / "metadata.jsonl", [ROW])
    csv = str(table(tmp_path, [("a", 1, "0"), ("a", 2, "1")]))
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "a.txt").write_text("a dog")
    (tmp_path / "detections").mkdir()
    judge = f"suite.answerer.judge={{_target_:{TABLE_JUDGE},reply:yes}}"
    dpg = [f"suite.prompts={tmp_path / 'prompts'}", f"suite.table={csv}"]
    dpg.append("suite.skip_first_row=false")
    colours = f"suite.scorer.colours.checkpoint={clip}"
    return {
        "geneval_pictures": [f"suite.metadata={metadata}"],
        "geneval_detections": [
            f"suite.metadata={metadata}",
            f"suite.scorer.detector.folder={tmp_path / 'detections'}",
            colours,
        ],
        "geneval_official": [
            f"suite.metadata={metadata}",
            f"suite.scorer.results={lines(tmp_path / 'results.jsonl', [RESULT])}",
        ],
        "dpg_pictures": dpg,
        "dpg_judge": [*dpg, judge],
        "dsg_pictures": [f"suite.table={csv}"],
        "dsg_judge": [f"suite.table={csv}", judge],
        "wise": [f"suite.prompts={prompts(tmp_path, [1])}"],
        "clip_score": [
            f"suite.geneval={metadata}",
            f"suite.dsg={csv}",
            f"suite.scorer.checkpoint={clip}",
        ],
        "geneval": [
            f"suite.metadata={metadata}",
            colours,
            "suite.scorer.detector.checkpoint=" + str(tmp_path / "mask2former"),
        ],
    }[suite]


@pytest.mark.parametrize("suite", SUITES)
def test_a_suite_builds_once_its_files_are_named(suite, tmp_path, clip):
    register_resolvers()
    if suite == "geneval":
        mask2former_folder(tmp_path / "mask2former")
    given = [f"suite={suite}", "behaviour@suite.behaviour=corl", "seed=7"]
    given += [f"paths.output={tmp_path / 'out'}", *settings(suite, tmp_path, clip)]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("evaluate", given)
    assert not OmegaConf.missing_keys(config.suite)
    made = instantiate(config.suite, _convert_="all")
    drawing = made.settings["drawing"]
    assert drawing["behaviour"]["guidance_scale"] == 5.0  # CoRL's
    assert drawing["seed"] == 7
    assert drawing["pictures"] == str(tmp_path / "out" / "pictures")
    if suite == "geneval":
        pixels = np.zeros((24, 24, 3), np.uint8)
        request = made._requests[0]
        assert not made._scorer("00000/samples/00000.png", pixels, request).correct
