"""The plain step learns the very same as ours, and the command records what it should."""

import copy
import json
from dataclasses import replace

import pytest
import torch

from benchmarks import gpu, unified_step
from benchmarks.plain_step import Lesson, PlainStep
from unified_rl.core.behaviour import Behaviour
from unified_rl.models.pictures import drawn_codes
from unified_rl.objectives.advantages import group_advantages

GROUP = 3
PARTS = {"rollout_s", "reward_s", "update_s", "whole_s"}


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    torch.set_num_threads(1)


class Noted(unified_step.RandomJudges):
    """Keeps the rollouts that it scores, with their scores."""

    def __call__(self, rollout):
        scores = super().__call__(rollout)
        self.seen = rollout, scores
        return scores


@pytest.fixture(params=["guided", "conditional"])
def learnt(request):
    """A lesson before ours has learnt from it, what ours drew and scored, and its gradient."""
    behaviour = Behaviour(guidance_scale=5.0, logprob=request.param)
    policy = unified_step.policy_of("micro", "cpu")
    samples = unified_step.drawings(policy, 2)
    untouched = copy.deepcopy(policy)
    gradient = {}

    def note(optimizer):
        gradient.update(gradient_of(policy))
        return {}

    noted = Noted(unified_step.judges(policy).components)
    lesson = Lesson(policy, samples, GROUP, behaviour, noted, unified_step.OPTIMISATION)
    unified_step.by_turns(lesson, 1, note)
    noted.bind(untouched, lambda: untouched)
    return replace(lesson, policy=untouched), *noted.seen, gradient


def gradient_of(policy):
    return {n: p.grad.clone() for n, p in policy.named_parameters() if p.grad is not None}


def gap(ones, others):
    """The greatest distance, as a share of the greatest number."""
    assert ones.keys() == others.keys()
    greatest = max(float(other.abs().max()) for other in others.values())
    return max(float((ones[name] - others[name]).abs().max()) for name in ones) / greatest


def plain_gradient(lesson, rollout, outcome):
    plain = PlainStep(lesson)
    codes = drawn_codes(lesson.policy, rollout.trajectory)[..., 0]
    with torch.no_grad():
        old = plain.logprobs(codes)
    optimizer = lesson.optimisation.optimizer(lesson.policy.parameters())
    plain.differentiate(codes, old, group_advantages(outcome, GROUP), optimizer)
    return old, gradient_of(lesson.policy)


def test_gradient_of_the_plain_step_is_ours(learnt):
    lesson, rollout, scores, ours = learnt
    old, plain = plain_gradient(lesson, rollout, scores.outcome)
    recorded = rollout.trajectory.logprobs[rollout.trajectory.action_mask].view(old.shape)
    assert torch.allclose(old, recorded, atol=1e-4)
    assert gap(plain, ours) < 1e-5
    frozen = [n for n, p in lesson.policy.named_parameters() if n not in plain]
    assert any("generation_head" in name for name in frozen)
    assert all(".language_model." in name for name in plain)


def test_other_rewards_have_another_gradient(learnt):
    lesson, rollout, scores, ours = learnt
    _, plain = plain_gradient(lesson, rollout, scores.outcome.flip(0))
    assert gap(plain, ours) > 0.1


def test_rewards_of_plain_pictures_are_those_of_ours(learnt):
    lesson, rollout, scores, _ = learnt
    codes = drawn_codes(lesson.policy, rollout.trajectory)[..., 0]
    again = lesson.reward(PlainStep(lesson).rollout(codes))
    torch.testing.assert_close(again.outcome, scores.outcome, atol=1e-5, rtol=0)


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """Runs the command at its smallest; gives what it has recorded, by the name of its file."""
    monkeypatch.setattr("benchmarks.record.RESULTS", tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    small = ["--size", "micro", "--group", "2", "--repeats", "2", "--threads", "1"]

    def run(*arguments):
        unified_step.main([*small, *arguments])
        (file,) = tmp_path.iterdir()
        return file.name, json.loads(file.read_text())

    return run


def test_command_records_both(recorded):
    name, found = recorded()
    assert name == "unified_step_micro_cpu.json"
    assert found["seconds"]["ours"].keys() == PARTS
    assert found["seconds"]["plain"].keys() == PARTS | {"old_logprobs_s"}
    assert all(value > 0 for way in found["seconds"].values() for value in way.values())
    for times in found["times_as_fast"].values():
        assert 0 < times["least"] <= times["median"] <= times["most"]
    parts = {part.removesuffix("_s") for part in PARTS}
    assert found["times_as_fast"].keys() == parts | {"whole_without_old_logprobs"}
    assert (found["rows"], found["group"], found["positions"]) == (2, 2, 64)
    assert found["command"].startswith("python -m benchmarks.unified_step --size micro")
    assert found["trained"] < found["parameters"]
    assert found["commit"] and found["hardware"]


@pytest.mark.parametrize("way", unified_step.WAYS)
def test_one_way_alone_overwrites_no_comparison(recorded, way):
    name, found = recorded("--only", way)
    assert name == f"unified_step_micro_{way}_of_2_cpu.json"
    assert found["seconds"].keys() == {way}
    assert "times_as_fast" not in found


def test_whole_of_plain_is_compared_without_old_logprobs_too():
    ours = [{"whole_s": 9.0}, {"whole_s": 2.0, "peak_bytes": 3}, {"whole_s": 2.0, "peak_bytes": 3}]
    ours[0]["peak_bytes"] = 5
    plain = [{"whole_s": 9.0, "old_logprobs_s": 1.0}] + 2 * [
        {"whole_s": 8.0, "old_logprobs_s": 2.0}
    ]
    found = unified_step.summary({"ours": ours, "plain": plain})
    assert found["times_as_fast"]["whole"]["median"] == 4  # 8 / 2
    assert found["times_as_fast"]["whole_without_old_logprobs"]["median"] == 3  # (8 - 2) / 2
    assert found["peak_bytes"]["ours"] == 5  # of all steps, the one that warms up too


def test_checklist_of_gpus_runs_commands_that_the_benchmark_knows(monkeypatch):
    class Stopped(Exception):
        pass

    def stop(size, device):
        raise Stopped(size)

    monkeypatch.setattr(unified_step, "policy_of", stop)
    commands = [c[2:] for c in gpu.CHECKS.values() if c[:2] == ("-m", "benchmarks.unified_step")]
    assert len(commands) == 2
    for command in commands:
        with pytest.raises(Stopped, match="1b"):
            unified_step.main(command)
