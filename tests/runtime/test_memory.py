"""The estimate of a rank's memory, by hand arithmetic."""

import dataclasses

import pytest

from tests.stages.training import SHORT, grpo, pair_grpo
from unified_rl.core.errors import ConfigError
from unified_rl.core.sample import Task
from unified_rl.data.reasoning import ReasonedSource
from unified_rl.runtime.strategies.memory import Load, Sharing, estimate
from unified_rl.runtime.strategies.preflight import described, load_of, require_room, tasks_of

LOAD = Load(
    trained=1000,
    frozen=200,
    weight_bytes=2,
    layers=3,
    width=10,
    vocabulary=50,
    tokens=7,
    cached_tokens=28,
    learnt_rows=2,
)


def test_one_process_holds_everything():
    found = estimate(LOAD, Sharing())
    assert found.weights == 1200 * 2
    assert found.gradients == 1000 * 2
    assert found.optimizer == 1000 * 2 * 2  # two moments in the weights' type
    assert found.reference == 0
    assert found.cache == 28 * 2 * 3 * 10 * 2  # tokens, keys and values, layers, width, bytes
    # a token keeps 17 numbers of the width a layer, and two float32 rows of the vocabulary
    assert found.activations == 2 * 7 * (3 * 17 * 10 * 2 + 2 * 50 * 4)


def test_a_reference_is_a_second_copy():
    with_reference = dataclasses.replace(LOAD, has_reference=True)
    assert estimate(with_reference, Sharing()).reference == 1200 * 2


def test_recomputing_keeps_one_layer_at_a_time():
    found = estimate(dataclasses.replace(LOAD, recomputes=True), Sharing())
    assert found.activations == 2 * 7 * (3 * 10 * 2 + 17 * 10 * 2 + 2 * 50 * 4)


@pytest.mark.parametrize(
    ("stage", "weights", "gradients"),
    [
        (1, 2400, 2000 + 2000),  # handed over whole
        (2, 2400, 2000 + 500),  # a quarter of what is handed over
        (3, 2400 + 600, 2000 + 500),  # a quarter of the weights beside the whole ones
    ],
)
def test_zero_shards(stage, weights, gradients):
    found = estimate(LOAD, Sharing(ranks=4, zero_stage=stage, has_masters=True))
    assert (found.weights, found.gradients) == (weights, gradients)
    assert found.optimizer == 1000 * 12 // 4  # float32 master and two moments


def test_what_is_offloaded_is_not_on_the_device():
    sharing = Sharing(4, 3, has_masters=True, offloads_optimizer=True, offloads_weights=True)
    found = estimate(LOAD, sharing)
    assert (found.optimizer, found.weights) == (0, 2400)


def test_the_peak_is_of_drawing_or_of_learning():
    found = estimate(LOAD, Sharing())
    learning = 2400 + 2000 + 4000 + 19880
    assert found.activations == 19880 and found.peak == learning
    drawing = found._replace(cache=50_000)
    assert drawing.peak == 2400 + 4000 + 50_000


def test_what_cannot_fit_is_refused():
    found = estimate(LOAD, Sharing())
    require_room(found, 8400)
    with pytest.raises(ConfigError, match=r"needs 8.4e-06 GB .* device has 8.4e-06 GB; shard"):
        require_room(found, 8399)


def test_the_line_names_every_part():
    found = estimate(LOAD, Sharing())
    line = described(found, 10**9)
    assert line.startswith("memory a rank, estimated: 2.83e-05 GB of 1 GB (weights 2.4e-06 GB")
    assert "too much" not in line
    assert described(found, 20_000).endswith("; that may be too much")


POSITIONS, PROMPT = 9, 64
"""Of a toy's picture, and what the estimate takes for a prompt."""
WRITTEN = SHORT.max_text_tokens + 1  # and its end
DRAWN = POSITIONS + 2  # and its borders


def loaded(stage, prompts, *tasks):
    stage.configure_model()
    return load_of(stage, prompts, *tasks)


@pytest.mark.parametrize(("guidance", "rows"), [(1.0, 6), (3.0, 12)])
def test_pairs_are_drawn_half_by_half(guidance, rows):
    behaviour = dataclasses.replace(SHORT, guidance_scale=guidance)
    found = loaded(pair_grpo("janus", group_size=3, behaviour=behaviour), 2)
    # twins stand beside drawings alone; a question shows a picture
    drawings, answers = rows * (DRAWN + PROMPT), 6 * (WRITTEN + PROMPT + POSITIONS)
    assert found.cached_tokens == max(drawings, answers)
    assert found.tokens == WRITTEN + PROMPT + POSITIONS


def test_what_is_drawn_depends_on_the_data():
    stage = grpo("janus", group_size=3, rollout_batch_size=4)
    stories = 2 * WRITTEN + DRAWN + PROMPT  # a picture between two texts
    assert loaded(stage, 2).cached_tokens == 4 * stories
    drawings = tasks_of([ReasonedSource("train", unit="drawing")])
    assert loaded(stage, 2, drawings).cached_tokens == 4 * (DRAWN + PROMPT)
    both = tasks_of([ReasonedSource("train", unit="either")])
    assert both == (Task.TEXT_TO_IMAGE, Task.UNDERSTANDING)
    # in one batch, rows that draw wait while others write, and the other way round
    mixed = 2 * WRITTEN + DRAWN + PROMPT + POSITIONS
    assert loaded(stage, 2, both).cached_tokens == 4 * mixed
    assert tasks_of([ReasonedSource("train"), object()]) == (Task.INTERLEAVED,)
