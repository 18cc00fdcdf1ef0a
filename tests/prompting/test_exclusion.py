"""Nothing that GenEval asks for is written: by digests, and by its list where there is one."""

import json
from pathlib import Path

import pytest

from unified_rl.core.errors import DataError
from unified_rl.prompting.builder import PromptBuilder
from unified_rl.prompting.categories import CATEGORIES
from unified_rl.prompting.everyday import COCO, OWN, everyday_world
from unified_rl.prompting.exclusion import (
    LINE_BYTES,
    Exclusion,
    benchmark_digests,
    digest,
    geneval_digests,
)
from unified_rl.prompting.keys import KeyReader

WORLD = everyday_world()
READER = KeyReader(WORLD)
METADATA = Path(__file__).parents[3] / "shared" / "data" / "geneval_metadata.jsonl"


def ours():
    return PromptBuilder(WORLD, excludes=Exclusion(WORLD, geneval_digests()))


@pytest.fixture
def listed(tmp_path):
    def write(*lines):
        path = tmp_path / "prompts.txt"
        path.write_text("\n".join(lines), "utf-8")
        return path

    return write


# -- GenEval ---------------------------------------------------------------------------------------


def test_a_digest_is_what_it_was():
    # printf '1 - bench' | b2sum -l 64
    assert digest("1 - bench") == "ead2cf74eb4ae3b2"
    assert digest("1 - bench") in geneval_digests()


def test_of_single_objects_our_own_remain():
    # GenEval asks for each of COCO's 80
    prompts = {item.include[0]["class"] for item in ours().all_items("single")}
    assert prompts == set(OWN)
    assert not prompts & set(COCO)


def test_as_many_are_excluded_as_geneval_has():
    # 80 counting prompts; 94 colours; 99 pairs, which can be said in two orders; 100 positions,
    # one of them told in both directions, which leaves 99 that can be told in two
    builder = ours()
    assert builder.count("counting") == 160 * 3 - 80
    assert builder.count("colors") == 159 * 10 - 94
    assert builder.count("two") == 160 * 159 - 2 * 99
    assert builder.count("position") == 160 * 159 * 4 - 2 * 99


def test_digests_are_as_many_as_different_prompts():
    assert len(geneval_digests()) == 552  # of 553; see positions above


@pytest.mark.skipif(not METADATA.is_file(), reason="no copy of GenEval's metadata")
def test_the_digests_are_those_of_the_list():
    digests, count = benchmark_digests(METADATA, WORLD)
    assert (digests, count) == (geneval_digests(), 553)


@pytest.mark.skipif(not METADATA.is_file(), reason="no copy of GenEval's metadata")
@pytest.mark.parametrize("category", CATEGORIES)
def test_nothing_of_the_list_is_written(category):
    prompts = [json.loads(line)["prompt"] for line in METADATA.read_text().splitlines()]
    keys = {READER.of_text(prompt) for prompt in prompts}
    assert None not in keys
    builder = ours()
    for index in range(10_000):
        prompt = builder.item(category, index).prompt
        assert READER.of_text(prompt) not in keys
        assert prompt not in prompts


# -- files of one's own ----------------------------------------------------------------------------


def test_prompts_and_metadata_may_stand_in_one_file(listed):
    path = listed(
        "A picture of two lamps",
        "",
        json.dumps({"tag": "two_object", "prompt": "a photo of a sock and a boot", "include": []}),
        "a castle in the clouds",
    )
    digests, count = benchmark_digests(path, WORLD)
    assert (digests, count) == ({digest("2 - lamp"), digest("1 - boot + 1 - sock")}, 3)
    builder = PromptBuilder(WORLD, excludes=Exclusion(WORLD, digests))
    assert builder.count("counting") == 480 - 1
    assert builder.count("two") == 160 * 159 - 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": 3}', "line 2 has no text under 'prompt'"),
        ('{"text": "a dog"}', r"line 2 has no text under 'prompt'; its keys: \['text'\]"),
        ('{"prompt": "a dog"', "line 2 is not JSON"),
        ('{"a": ' * 100_000, "line 2 is not JSON"),
        ('{"prompt": "a dog", "n": ' + "9" * 5000 + "}", "line 2 is not JSON"),
        ("x" * (LINE_BYTES + 1), f"line 2 is longer than {LINE_BYTES} bytes"),
    ],
    ids=["number", "missing", "open", "deep", "digits", "long"],
)
def test_a_broken_line_is_named(listed, line, message):
    with pytest.raises(DataError, match=message):
        benchmark_digests(listed("a dog", line), WORLD)


def test_files_that_are_none_are_named(tmp_path, listed):
    with pytest.raises(DataError, match="none.txt cannot be read: No such file"):
        benchmark_digests(tmp_path / "none.txt", WORLD)
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        benchmark_digests(tmp_path, WORLD)
    with pytest.raises(DataError, match="holds no prompts"):
        benchmark_digests(listed("", " "), WORLD)
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(DataError, match="line 1 is not UTF-8"):
        benchmark_digests(tmp_path / "picture.png", WORLD)


def test_a_byte_order_mark_does_not_matter(tmp_path):
    (tmp_path / "prompts.txt").write_bytes(b"\xef\xbb\xbftwo lamps\r\n")
    assert benchmark_digests(tmp_path / "prompts.txt", WORLD) == ({digest("2 - lamp")}, 1)
