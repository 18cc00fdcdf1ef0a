"""GenEval's own code judged these: random boxes, scores and colours for 168 of its prompts.

`official_verdicts.jsonl` was recorded by running `evaluate` and `relative_position` of
github.com/djghosh13/geneval (MIT), evaluation/evaluate_images.py: 14 right and 14 wrong pictures of
each task. Scores of a picture differ, as the order of equal ones is not defined there.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from unified_rl.evaluation.geneval.detections import Found
from unified_rl.evaluation.geneval.metadata import TAGS, request_of
from unified_rl.evaluation.geneval.scoring import Thresholds, kept, verdict

LINES = Path(__file__).with_name("official_verdicts.jsonl").read_text().splitlines()
RECORDED = [json.loads(line) for line in LINES]


@pytest.mark.parametrize("tag", TAGS)
def test_verdicts_are_the_official_ones(tag):
    cases = [case for case in RECORDED if case["row"]["tag"] == tag]
    assert [case["correct"] for case in cases].count(True) == len(cases) // 2 == 14
    for case in cases:
        painted = {}
        detections = {}
        for name, rows in case["found"].items():
            objects = [Found(np.array(row[:4], np.float64), row[4]) for row in rows]
            detections[name] = objects
            painted |= dict(zip(map(id, objects), case["colours"][name], strict=True))
        thresholds = Thresholds(max_overlap=case["max_overlap"])
        objects = kept(detections, tag == "counting", thresholds)
        assert {n: [o.score for o in some] for n, some in objects.items()} == case["kept"]
        judged = verdict(
            request_of(case["row"]), objects, lambda some, name, p=painted: [p[id(o)] for o in some]
        )
        assert judged.correct == case["correct"], case
        assert len(judged.reason.splitlines()) == case["failed_clauses"], case
