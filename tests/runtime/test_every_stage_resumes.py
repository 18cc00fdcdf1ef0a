"""Killed in their second iteration, the other stages too end with the very same weights."""

import pytest

from tests.runtime.runs import OPTIMISATION, go
from tests.runtime.test_training import go_and_die, rows, same
from tests.stages.training import Preferences, pair_dpo, pair_grpo, self_improvement
from tests.toys import build
from unified_rl.data.microworld import DrawingSource
from unified_rl.data.reasoning import ReasonedSource
from unified_rl.data.self_questions import MicroSelfQuestionSource
from unified_rl.stages.image_codec import ImageCodec


def codec(family):
    return ImageCodec(lambda: build(family), OPTIMISATION, iterations=2, seed=0)


STAGES = {
    "pair_grpo": (pair_grpo, lambda family: ReasonedSource("train")),
    "self_improvement": (self_improvement, lambda family: MicroSelfQuestionSource("train")),
    "pair_dpo": (pair_dpo, Preferences),
    "image_codec": (codec, lambda family: DrawingSource("train")),
}


@pytest.mark.parametrize("family", ["janus", "showo", "vila_u"])
@pytest.mark.parametrize("name", STAGES)
def test_a_killed_run_ends_with_the_very_same_weights(name, family, tmp_path):
    make, source = STAGES[name]
    stages = [make(family) for _ in range(3)]
    settings = {"every": 1, "sources": {"only": source(family)}}
    go(tmp_path / "whole", stages[0], **settings)
    go_and_die(tmp_path / "killed", stages[1], at=1, **settings)
    assert go(tmp_path / "killed", stages[2], **settings) == [1]
    assert same(stages[0].state_dict(), stages[2].state_dict())
    one, other = (
        [{k: v for k, v in row.items() if not k.endswith("_s")} for row in rows(tmp_path / where)]
        for where in ("whole", "killed")
    )
    assert one == other and len(one) == 2
