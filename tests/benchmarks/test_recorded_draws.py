"""With the seeds of the official runs, our own sampling draws the very same images."""

import pytest
import torch

from benchmarks.parity import janus, showo_policy, vila_u_drawing, vila_u_policy
from benchmarks.parity.janus_drawing import INFO
from benchmarks.parity.numbered import words
from benchmarks.parity.showo_drawing import ARGUMENTS, schedule_of
from tests.benchmarks.golden_folders import golden_of
from unified_rl.core.behaviour import Behaviour, Sampling
from unified_rl.core.sample import Sample, Task, Text
from unified_rl.decoding.tape import Kind

TORCH = torch.__version__.split("+")[0]


def same_stream(golden):
    """Skips where torch's random numbers may be others."""
    recorded = golden.config["torch"].split("+")[0]
    if recorded != TORCH:
        pytest.skip(f"recorded with torch {recorded}; this is {TORCH}")


def drawn(policy, texts, behaviour, seed):
    """(B, N) codes of one image for each text."""
    samples = [Sample(text, Task.TEXT_TO_IMAGE, (Text(text),)) for text in texts]
    trajectory, _ = policy.sample(samples, behaviour, torch.Generator().manual_seed(seed))
    codes = trajectory.tape["ids"][trajectory.tape["kind"] == Kind.CODE]
    return codes.view(len(texts), policy.image_positions)


def runs(golden, ending):
    notes = golden.config["notes"]
    return {n.removesuffix(ending): note for n, note in notes.items() if n.endswith(ending)}


def test_janus_draws_what_the_official_code_drew():
    golden = golden_of("Janus")
    same_stream(golden)
    policy = janus.golden_policy(golden)
    text = words(policy.tokenizer, golden.config["cfg"]["prompt"][1:-1])
    sampled = {run: info for run, info in runs(golden, INFO).items() if not info["greedy"]}
    assert sampled
    for run, info in sampled.items():
        policy.replay(None)
        behaviour = Behaviour(
            image=Sampling(temperature=info["temperature"]), guidance_scale=info["cfg_weight"]
        )
        codes = drawn(policy, [text] * info["parallel_size"], behaviour, info["seed"])
        assert torch.equal(codes, golden.io[f"{run}.tokens"]), run


def test_showo_draws_what_the_official_code_drew():
    golden = golden_of("Show-o")
    same_stream(golden)
    policy = showo_policy.golden_policy(golden)
    sampled = {
        run: arguments
        for run, arguments in runs(golden, ARGUMENTS).items()
        if arguments["multinomial"] != "argmax" and f"{run}.known" not in golden.io
    }
    assert sampled
    for run, arguments in sampled.items():
        behaviour = Behaviour(
            guidance_scale=1 + arguments["guidance_scale"],
            image_step_count=arguments["timesteps"],
            mask_schedule=schedule_of(run, arguments),
            mask_noise=arguments["temperature"],
        )
        texts = golden.config["cfg"]["texts_t2i"]
        codes = drawn(policy, texts, behaviour, arguments["generator_seed"])
        assert torch.equal(codes, golden.io[f"{run}.tokens"]), run


def test_vila_u_draws_what_the_official_code_drew():
    golden = golden_of("VILA-U")
    same_stream(golden)
    policy = vila_u_policy.golden_policy(golden)
    draw_codes = policy.draw_codes

    def with_a_word(conditional, unconditional, behaviour, generator):
        # Behind each position the official code draws a word for every row, twins too, which it
        # then ignores. Only its random numbers matter here, and they depend on nothing but sizes.
        drawn = draw_codes(conditional, unconditional, behaviour, generator)
        words = torch.ones(2 * len(conditional), policy.text_vocabulary_size)
        torch.multinomial(words, 1, generator=generator)
        return drawn

    policy.draw_codes = with_a_word
    sampled = {r: i for r, i in runs(golden, vila_u_drawing.INFO).items() if not i["greedy"]}
    assert sampled
    for run, info in sampled.items():
        policy.replay(None)
        samples = vila_u_drawing.image_samples(policy, golden)
        behaviour = vila_u_drawing.official_behaviour(info)
        generator = torch.Generator().manual_seed(info["seed"])
        trajectory, _ = policy.sample(samples, behaviour, generator)
        codes = trajectory.tape["ids"][trajectory.tape["kind"] == Kind.CODE]
        recorded = golden.io[f"{run}.depth_samples"]
        assert torch.equal(codes.view(recorded.shape), recorded), run
