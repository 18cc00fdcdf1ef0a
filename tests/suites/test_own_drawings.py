"""A policy that is shown, or learns, the very codes it has drawn."""

import numpy as np
import pytest
import torch

from tests.suites.trajectories import PLAIN, seeded, trim
from tests.toys.samples import drawings, questions
from unified_rl.core.errors import CapabilityError, ConfigError, DataError
from unified_rl.core.sample import DrawnImage, Sample, Task, Text
from unified_rl.decoding.tape import Kind
from unified_rl.models.base import UnifiedPolicy


def asked(pictures, words=("is the circle red", "what")) -> list[Sample]:
    """A question about each picture, of different length."""
    return [
        Sample(
            f"own/{row}",
            Task.UNDERSTANDING,
            (picture, Text(words[row % len(words)])),
            (Text("red"),),
        )
        for row, picture in enumerate(pictures)
    ]


def drawn(policy: UnifiedPolicy, count: int = 3):
    trajectory, completions = policy.sample(drawings(count), PLAIN, seeded())
    return trajectory, completions, policy.drawn_images(trajectory)


def test_drawn_images_are_the_codes_on_the_tape(policy):
    trajectory, completions, images = drawn(policy)
    own = policy.capabilities
    for row, image in enumerate(images):
        assert image.codes.shape == (own.image_positions, own.code_depth)
        is_code = trajectory.tape["kind"][row] == Kind.CODE
        assert trajectory.tape["ids"][row, is_code].tolist() == image.codes.tolist()
        pixels = policy._drawn(torch.from_numpy(image.codes)[None])[0]
        assert np.array_equal(pixels, completions[row].images[0])


def test_its_own_pictures_are_codes_where_it_sees_what_it_draws(policy):
    trajectory, completions, images = drawn(policy)
    pictures = policy.own_pictures(trajectory, completions)
    for picture, image, completion in zip(pictures, images, completions, strict=True):
        if policy.capabilities.shared_image_tokens:
            assert np.array_equal(picture.codes, image.codes)
        else:
            assert np.array_equal(picture.pixels, completion.images[0])


def test_a_row_without_one_image_has_no_drawing(policy):
    trajectory, _ = policy.sample([drawings(1)[0], questions(1)[0]], PLAIN, seeded())
    with pytest.raises(ValueError, match=r"rows with \[0, 1\] images"):
        policy.drawn_images(trajectory)


def test_a_drawn_target_is_learnt_as_it_was_drawn(policy):
    trajectory, _, images = drawn(policy)
    targets = [
        Sample(s.id, s.task, s.prompt, (image,))
        for s, image in zip(drawings(3), images, strict=True)
    ]
    gold = trim(policy.encode(targets, seeded()))
    for name in ("ids", "kind", "segment"):
        assert torch.equal(gold.tape[name], trim(trajectory).tape[name])


def test_targets_of_pixels_and_codes_keep_their_order(policy):
    _, _, images = drawn(policy, 1)
    painted = drawings(2)[1]
    samples = [painted, Sample("own", Task.TEXT_TO_IMAGE, painted.prompt, images), painted]
    together = policy.encode(samples, seeded())
    is_code = together.tape["kind"] == Kind.CODE
    codes = together.tape["ids"][is_code].unflatten(0, (3, -1))
    assert codes[1].tolist() == images[0].codes.tolist()
    alone = policy.encode([painted], seeded()).tape
    assert torch.equal(codes[0], alone["ids"][alone["kind"] == Kind.CODE])
    assert torch.equal(codes[0], codes[2])


def test_shown_codes_are_embedded_as_drawn_ones(policy):
    _, _, images = drawn(policy, 2)
    samples = asked(images)
    if not policy.capabilities.shared_image_tokens:
        with pytest.raises(CapabilityError, match="show it the pixels"):
            policy.encode(samples, seeded())
        return
    gold = policy.encode(samples, seeded())
    codes = torch.stack([torch.from_numpy(image.codes) for image in images])
    assert torch.equal(gold.tape["shown"], codes[:, None])
    features = policy.image_features(gold.tape["shown"])
    assert torch.equal(features, policy.embed_codes(codes))
    # embeddings that stand ready are taken as they are
    given = policy.image_features(features[:, None])
    assert torch.equal(given, features)
    scores = policy.logprobs(gold)
    ready = gold._replace(tape={**gold.tape, "shown": features[:, None]})
    assert torch.equal(policy.logprobs(ready), scores)
    # and what is seen is that picture, not another
    other = gold._replace(tape={**gold.tape, "shown": gold.tape["shown"].flip(0)})
    assert not torch.allclose(policy.logprobs(other), scores, atol=1e-6)


def test_answers_about_own_drawings_are_replayed_exactly(policy):
    trajectory, completions, _ = drawn(policy)
    samples = asked(policy.own_pictures(trajectory, completions))
    said, _ = policy.sample(samples, PLAIN, seeded())
    torch.testing.assert_close(policy.logprobs(said), said.logprobs, atol=2e-5, rtol=0)
    for row in range(len(samples)):
        alone = policy.logprobs(trim(said.select(slice(row, row + 1))))
        width = alone.shape[1]
        torch.testing.assert_close(
            policy.logprobs(said)[row, :width], alone[0], atol=1e-5, rtol=1e-5
        )


def test_pixels_and_codes_are_asked_about_apart(policy):
    _, _, images = drawn(policy, 1)
    painted = questions(1)[0]
    with pytest.raises(ConfigError, match="ask apart"):
        policy.encode([*asked(images), painted], seeded())


@pytest.mark.parametrize("wrong", ["short", "deep", "high", "low"])
def test_codes_that_it_cannot_have_drawn_are_refused(policy, wrong):
    _, _, (image,) = drawn(policy, 1)
    codes = image.codes.copy()
    if wrong == "short":
        codes = codes[:-1]
    elif wrong == "deep":
        codes = np.concatenate([codes, codes], 1)
    else:
        codes[0, 0] = policy.capabilities.codebook_size if wrong == "high" else -1
    sample = Sample("own", Task.TEXT_TO_IMAGE, (Text("red circle"),), (DrawnImage(codes),))
    with pytest.raises(DataError, match="that this model has drawn"):
        policy.encode([sample], seeded())


def test_a_drawn_image_needs_codes_of_whole_numbers():
    with pytest.raises(ValueError, match="int64"):
        DrawnImage(np.zeros((4, 1), np.float32))
