"""Stages over adapted policies: ratios, references, what moves, and runs that are killed."""

import functools
from pathlib import Path

import lightning
import pytest
import torch
from safetensors.torch import load_file

from tests.runtime import runs
from tests.stages.training import SHORT, Gradients, grpo, run, sft, weights
from tests.toys import TEMPLATE, build
from tests.toys.samples import mixed
from unified_rl.core.errors import ConfigError
from unified_rl.models.adapter import Adapter, adapt
from unified_rl.models.adapter_folder import adapted, save
from unified_rl.models.janus.load import janus
from unified_rl.stages.image_codec import ImageCodec
from unified_rl.stages.optimisation import Optimisation

DROPPED = Adapter("lora", rank=4, dropout=0.1)
SAVING = Adapter("lora", rank=4, dropout=0.1, gradient_checkpointing=True)


def policy_of(folder, adapter):
    """What Hydra makes of `${policy}`."""
    model = functools.partial(janus, checkpoint=str(folder), template=TEMPLATE)
    return adapted(model, adapter, str(folder))


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """Folder of a random Janus of two layers."""
    folder = tmp_path_factory.mktemp("base")
    build("janus").save(folder)
    return folder


@pytest.fixture(scope="module")
def warm(base, tmp_path_factory) -> Path:
    """Folder of an adapter on it that is far from zero, as a warm-up leaves one."""
    folder = tmp_path_factory.mktemp("warm")
    policy = policy_of(base, DROPPED)
    generator = torch.Generator().manual_seed(1)
    for parameter in policy.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    save(policy, folder)
    return folder


def with_warm_adapter(folder, adapter=DROPPED):
    """In the place of a stage's toy."""
    return lambda toy: policy_of(folder, adapter)


# -- D18: dropout ----------------------------------------------------------------------------------


@pytest.mark.parametrize("adapter", [DROPPED, SAVING], ids=["plain", "checkpointed"])
@pytest.mark.parametrize("updates", [1, 3])
def test_the_first_ratio_is_exactly_one_with_dropout_configured(warm, updates, adapter):
    stage = grpo(
        "janus", beta=0.04, updates_per_rollout=updates, change=with_warm_adapter(warm, adapter)
    )
    metrics = run(stage, batches=1).callback_metrics
    assert stage.objective.gaps[0] == 0.0
    assert all(gap > 0 for gap in stage.objective.gaps[1:])
    assert float(stage.objective.terms[0].ratio_mean) == 1.0
    assert metrics["replay_error"] <= 1e-5


def test_that_dropout_would_show(warm):
    policy = policy_of(warm, DROPPED).eval()
    trajectory, _ = policy.sample(mixed(), SHORT, torch.Generator().manual_seed(0))
    with torch.no_grad():
        gap = (policy.train().logprobs(trajectory) - trajectory.logprobs).abs().max()
    assert gap > 1e-2


# -- D19: the reference ----------------------------------------------------------------------------


class Scores(lightning.Callback):
    """Log-probs of one trajectory, before and after training."""

    def __init__(self, trajectory):
        self.trajectory = trajectory
        self.policy, self.reference = [], []

    def on_train_start(self, trainer, stage):
        with torch.no_grad():
            self.policy.append(stage.policy.eval().logprobs(self.trajectory))
        self.reference.append(stage.reference_logprobs(self.trajectory))

    on_train_end = on_train_start


@pytest.mark.parametrize("adapter", [DROPPED, SAVING, Adapter()], ids=["lora", "saving", "full"])
def test_the_reference_has_the_adapter_that_the_stage_began_with(warm, adapter):
    plain = build("janus")
    trajectory, _ = plain.sample(mixed(), SHORT, torch.Generator().manual_seed(0))
    scores = Scores(trajectory)
    run(
        grpo("janus", beta=0.04, change=with_warm_adapter(warm, adapter)),
        batches=3,
        callbacks=[scores],
    )
    with torch.no_grad():
        without = plain.logprobs(trajectory)
    assert torch.equal(scores.reference[0], scores.policy[0])
    assert (scores.reference[0] - without).abs().max() > 0.1  # not the base without its adapter
    assert torch.equal(scores.reference[0], scores.reference[1])
    assert (scores.policy[1] - scores.policy[0]).abs().max() > 1e-3


# -- what moves ------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [sft, grpo])
def test_only_what_is_trainable_moves(make, family):
    adapter = Adapter("lora", ["language_model", "heads"], rank=4)
    start = weights(adapt(build(family), adapter))
    stage = make(family, change=lambda policy: adapt(policy, adapter))
    run(stage)
    after = weights(stage.policy)
    heads = {p for module in stage.policy.parameter_groups()["heads"] for p in module.parameters()}
    heads = {name for name, p in stage.policy.named_parameters() if p in heads}
    moved = {name for name in after if not torch.equal(start[name], after[name])}
    assert heads <= moved
    assert {name for name in moved - heads if "lora_" not in name} == set()
    assert any("lora_B" in name for name in moved)


def test_nothing_else_gets_a_gradient(warm):
    kept = Gradients()
    run(sft("janus", change=with_warm_adapter(warm)), batches=1, callbacks=[kept])
    names = set(kept.steps[0])
    assert any("lora_A" in name for name in names)
    assert not [n for n in names if "base_layer" in n or "vision_model" in n or "vqmodel" in n]


@pytest.mark.parametrize("make", [sft, grpo])
def test_only_the_codec_stage_trains_the_codec(make):
    stage = make("janus", change=lambda policy: adapt(policy, Adapter(trainable=["codec"])))
    with pytest.raises(ConfigError, match="which only stage=image_codec trains"):
        run(stage, batches=1)


def test_the_codec_stage_trains_the_codec_alone():
    make = functools.partial(adapt, build("janus"), Adapter(trainable=["codec"]))
    stage = ImageCodec(make, Optimisation(), iterations=1, seed=0)
    stage.configure_model()
    moving = {name for name, p in stage.policy.named_parameters() if p.requires_grad}
    codec = {f"janus.model.vqmodel.{name}" for name, _ in stage.policy.codec.named_parameters()}
    assert moving == codec - {"janus.model.vqmodel.quantize.embedding.weight"}  # moves by EMA


# -- whole runs ------------------------------------------------------------------------------------


def sft_from(folder):
    return runs.sft(policy=lambda: policy_of(folder, DROPPED))


def grpo_from(folder):
    stage = runs.grpo()
    stage._make_policy = lambda: policy_of(folder, DROPPED)
    return stage


STAGES = {"sft": sft_from, "grpo": grpo_from}


class Killed(RuntimeError):
    """What ends a run too early."""


class Killer(lightning.Callback):
    """Ends a run at the start of its last iteration, and says what was saved by then."""

    def __init__(self, output):
        self.output, self.saved = output, {}

    def on_train_batch_start(self, trainer, stage, batch, batch_idx):
        if stage.iteration == runs.ITERATIONS - 1:
            (path,) = self.output.glob("resumable/*/*/state.ckpt")
            self.saved = torch.load(path, weights_only=True)["state_dict"]
            raise Killed


@pytest.fixture(params=STAGES)
def make(request):
    return STAGES[request.param]


def test_a_killed_run_ends_with_the_very_same_adapter(make, warm, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    runs.go(whole, make(warm))
    killer = Killer(killed)
    with pytest.raises(Killed):
        runs.go(killed, make(warm), killer)
    torch.rand(7)
    assert runs.go(killed, make(warm)) == [3, 4, 5]
    one, other = (
        load_file(f / "checkpoint" / "adapter_model.safetensors") for f in (whole, killed)
    )
    start = load_file(warm / "adapter_model.safetensors")
    assert one.keys() == other.keys() == start.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not any(torch.equal(one[name], start[name]) for name in one if "lora_B" in name)
    assert killer.saved and not [n for n in killer.saved if "base_layer" in n or "vqmodel" in n]


def test_the_adapter_of_a_run_is_what_it_trained(warm, base, tmp_path):
    stage = sft_from(warm)
    runs.go(tmp_path, stage)
    back = policy_of(tmp_path / "checkpoint", None)
    trajectory, _ = stage.policy.eval().sample(mixed(), SHORT, torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(back.eval().logprobs(trajectory), stage.policy.logprobs(trajectory))
    assert back.adapted_from.checkpoint == str(base)
