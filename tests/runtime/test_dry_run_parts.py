"""What a dry run is made of: changes that are told, sizes, an endpoint, an unknown part refused."""

import json
import urllib.request
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from unified_rl.core.errors import ConfigError
from unified_rl.models.specimens.published import published_model
from unified_rl.runtime.dry_run.change import Changes, lines
from unified_rl.runtime.dry_run.endpoint import scoring_endpoint
from unified_rl.runtime.dry_run.judges import replace_judges
from unified_rl.runtime.dry_run.models import Specimen, replace_model
from unified_rl.runtime.dry_run.rehearsal import Rehearsal
from unified_rl.runtime.dry_run.rows import replace_data

SPECIMEN = Specimen(8, (4, 1, 16))


def changes_of(**tree):
    return Changes(OmegaConf.create(tree))


def test_a_change_is_made_and_told():
    changes = changes_of(a={"b": "???", "c": 1, "d": 2})
    changes.set("a.b", "/x/y/file", "a file, /x/y/file")
    changes.set("a.c", 3)
    changes.set("a.d", 2)  # as it was
    assert OmegaConf.to_container(changes.config) == {"a": {"b": "/x/y/file", "c": 3, "d": 2}}
    told = list(lines(changes.made, Path("/x/y")))
    assert told == ["  a.b  not given -> a file, file", "  a.c  1 -> 3"]


def test_nodes_are_found_in_nodes_and_interpolations_are_left_alone():
    inner = {"_target_": "p.Inner", "size": "${size}"}
    changes = changes_of(size=3, reward={"x": {"_target_": "p.Outer", "inner": inner}})
    assert [key for key, _ in changes.nodes("reward")] == ["reward.x", "reward.x.inner"]
    assert dict(changes.nodes("reward"))["reward.x.inner"]["size"] == "${size}"
    assert list(changes.nodes("data")) == []


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        # the counts of their authors: Janus-Pro-7B 7.4, Show-o 1.3 and its codec, with CLIP-L .3
        ("janus_pro_7b", 7.42),
        ("showo_512", 1.54),
        ("showo_512_vit", 1.83),
        ("vila_u_7b_256", 7.64),
    ],
)
def test_published_models_have_their_size_and_no_weights(name, billions):
    parameters = list(published_model(name).parameters())
    assert all(parameter.is_meta for parameter in parameters)
    assert sum(p.numel() for p in parameters) / 1e9 == pytest.approx(billions, abs=0.02)


def test_an_unknown_size_names_the_nearest():
    with pytest.raises(ConfigError, match=r"model=janus_pro_2b.*janus_pro_"):
        published_model("janus_pro_2b")


def asked(url, text):
    body = json.dumps({"messages": [{"role": "user", "content": text}]}).encode()
    with urllib.request.urlopen(f"{url}/chat/completions", body, timeout=10) as reply:
        return json.load(reply)["choices"][0]["message"]["content"]


def test_the_endpoint_scores_alike_what_is_alike():
    with scoring_endpoint() as url:
        assert url.startswith("http://127.0.0.1:")
        first, again, other = (asked(url, text) for text in ("a", "a", "b"))
    assert first == again != other
    for said in (first, other):
        assert 0 <= int(said.rpartition("Score: ")[2]) <= 100


def test_what_has_no_small_stand_in_is_refused_by_name(tmp_path):
    cases = [
        (replace_model, {"model": {"_target_": "p.other"}}, (), "model._target_=..other"),
        (
            replace_judges,
            {"reward": {"x": {"_target_": "p.Seer", "checkpoint": "???"}}, "stage": {}},
            ("http://127.0.0.1:1/v1",),
            "reward.x, a Seer",
        ),
        (
            replace_data,
            {"data": {"sources": {"x": {"_target_": "p.Tapes", "path": "???"}}}},
            (SPECIMEN,),
            "data.sources.x, a Tapes",
        ),
    ]
    for replace, tree, others, told in cases:
        with pytest.raises(ConfigError, match="a dry run knows no small") as caught:
            replace(changes_of(**tree), tmp_path, *others)
        assert told in str(caught.value)


def test_a_rehearsal_has_a_step_to_walk():
    with pytest.raises(ConfigError, match=r"dry_run.batch_size=0 must be at least 1"):
        Rehearsal("janus_pro_1b", batch_size=0)
