"""A JSONL file of one's own: what is read, what is set aside, what is refused."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from unified_rl.core.errors import ConfigError, DataError
from unified_rl.core.sample import DrawnImage, Image, Sample, Task, Text
from unified_rl.data import jsonl
from unified_rl.data.jsonl import JsonlSource
from unified_rl.data.jsonl_writer import write_jsonl

GOOD = {"id": "good", "task": "text", "prompt": [{"text": "hello"}]}


def noise(height=24, width=32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def write(tmp_path):
    """Writes rows (dicts, or bytes as they are) and returns the path; `cat.png` lies beside."""
    PillowImage.fromarray(noise()).save(tmp_path / "cat.png")

    def write(*rows):
        lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
        (tmp_path / "rows.jsonl").write_bytes(b"\n".join(lines) + b"\n")
        return str(tmp_path / "rows.jsonl")

    return write


def quarantined(path):
    lines = Path(f"{path}.quarantine.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def drawn(source, count=40):
    return [source.draw(np.random.default_rng(seed)).id for seed in range(count)]


def truncate(file):
    file.write_bytes(file.read_bytes()[:-200])


def test_row_becomes_a_sample(write):
    row = {
        "id": "a",
        "task": "interleaved",
        "prompt": [{"text": "draw"}, {"image": "cat.png"}],
        "target": [{"text": "done"}],
        "facts": {"n": [1, 2]},
    }
    source = JsonlSource(write(row))
    sample = source.sample(0)
    assert (len(source), source.image_size) == (1, None)
    assert (sample.id, sample.task, dict(sample.facts)) == ("a", Task.INTERLEAVED, {"n": [1, 2]})
    assert sample.prompt[0] == Text("draw") and sample.target == (Text("done"),)
    np.testing.assert_array_equal(sample.prompt[1].pixels, noise())


def test_target_and_facts_may_be_absent_and_blank_lines_too(write):
    sample = JsonlSource(write(b"", GOOD, b"  ")).sample(0)
    assert (sample.target, dict(sample.facts)) == ((), {})


def image_row(name, **more):
    return {"id": "x", "task": "text", "prompt": [{"image": name}], **more}


def deep_facts(depth):
    """Python refuses to show or write what is nested nearly as deep as it reads."""
    facts = b"[" * depth + b"]" * depth
    return b'{"id": "x", "task": "text", "prompt": [{"text": "a"}], "facts": {"a": %s}}' % facts


BROKEN = {
    "json": (b'{"id": "x", ', "is not JSON"),
    "not_utf8": (b'{"id": "\xff\xfe"}', "is not JSON"),
    "nested": (b"[" * 200000, "is not JSON"),
    "half_surrogate": (rb'{"id": "x", "task": "text", "prompt": [{"text": "\ud800"}]}', "Unicode"),
    "array": (b"[1]", "is not a JSON object"),
    "no_id": ({"task": "text", "prompt": [{"text": "a"}]}, "has no 'id'"),
    "no_prompt": ({"id": "x", "task": "text"}, "has no 'prompt'"),
    "number_id": ({**GOOD, "id": 3}, "id 3 is not a text"),
    "same_id": (GOOD, "id 'good' is taken by line 1"),
    "task": ({**GOOD, "id": "x", "task": "interleavd"}, "did you mean 'interleaved'?"),
    "task_kind": ({**GOOD, "id": "x", "task": ["text"]}, "task ['text']"),
    "unknown_key": ({**GOOD, "id": "x", "targets": []}, "did you mean 'target'?"),
    "empty_prompt": ({**GOOD, "id": "x", "prompt": []}, "the prompt is empty"),
    "prompt_text": ({**GOOD, "id": "x", "prompt": "hello"}, "prompt is not a list"),
    "segment": ({**GOOD, "id": "x", "prompt": [{"txt": "a"}]}, "prompt[0] is neither"),
    "two_kinds": ({**GOOD, "id": "x", "target": [{"text": "", "image": ""}]}, "target[0] is"),
    "segment_value": ({**GOOD, "id": "x", "prompt": [{"text": 3}]}, "prompt[0] is neither"),
    "facts": ({**GOOD, "id": "x", "facts": []}, "facts are not an object"),
    "no_image": (image_row("dog.png"), "image 'dog.png' does not exist"),
    "folder": (image_row("."), "image '.' does not exist"),
    "null_byte": (image_row("a\0b"), "image 'a\\x00b'"),
    "absolute": (image_row("/etc/hostname"), "is not a path inside image_root"),
    "windows": (image_row("C:\\cat.png"), "is not a path inside image_root"),
    "parent": (image_row("a/../../cat.png"), "is not a path inside image_root"),
    "link": (image_row("link.png"), "leads out of image_root"),
    "text_as_image": (image_row("rows.jsonl"), "is unreadable"),
    "huge": (image_row("huge.png"), "of 8001 x 8000 is over 64000000 pixels"),
    "deep": (image_row("deep.png"), "has not 8 bits a channel"),
    "deep_facts": (deep_facts(900), "is nested deeper than 64 lists and objects"),
    "target_image": ({**GOOD, "id": "x", "target": [{"image": "dog.png"}]}, "does not exist"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_row_is_set_aside_and_listed(write, tmp_path, tmp_path_factory, name):
    row, reason = BROKEN[name]
    if name == "link":
        outside = tmp_path_factory.mktemp("outside") / "cat.png"
        PillowImage.fromarray(noise()).save(outside)
        (tmp_path / "link.png").symlink_to(outside)
    if name == "huge":
        PillowImage.new("1", (8001, 8000)).save(tmp_path / "huge.png")
    if name == "deep":
        PillowImage.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "deep.png")
    path = write(GOOD, row)
    source = JsonlSource(path)
    assert len(source) == 1 and set(drawn(source)) == {"good"}
    (record,) = quarantined(path)
    assert record["line"] == 2 and reason in record["reason"]
    known = isinstance(row, dict) and isinstance(row.get("id"), str)
    assert record["id"] == (row["id"] if known else None)
    assert not list(tmp_path.glob("*.tmp"))


def test_image_that_pillow_takes_for_a_bomb(write, tmp_path):
    # over 2 * 89 Mpx Pillow itself refuses; between 89 and that it warns
    PillowImage.new("1", (13500, 13500)).save(tmp_path / "bomb.png")
    path = write(GOOD, image_row("bomb.png"))
    assert len(JsonlSource(path)) == 1
    assert "is over 64000000 pixels" in quarantined(path)[0]["reason"]


def test_line_over_the_limit_is_refused_in_pieces(write, monkeypatch):
    monkeypatch.setattr(jsonl, "LINE_BYTES", 100)
    last = {**GOOD, "id": "last"}
    # 250 bytes take three reads of at most 101; the rows around them keep their offsets
    path = write(GOOD, b"x" * 250, last)
    source = JsonlSource(path)
    assert [source.sample(index).id for index in range(2)] == ["good", "last"]
    assert quarantined(path) == [{"line": 2, "id": None, "reason": "is longer than 100 bytes"}]


def test_line_of_exactly_the_limit_is_read(write, monkeypatch):
    path = write(GOOD)
    # the newline belongs to the line
    monkeypatch.setattr(jsonl, "LINE_BYTES", len(json.dumps(GOOD)) + 1)
    assert len(JsonlSource(path)) == 1


def test_no_quarantine_file_without_broken_rows(write, tmp_path):
    path = write(GOOD, b"{")
    JsonlSource(path)
    assert quarantined(path)
    JsonlSource(write(GOOD))  # an old list goes
    assert not list(tmp_path.glob("*quarantine*"))


def test_quarantine_goes_where_it_is_told(write, tmp_path):
    path = write(GOOD, b"{")
    JsonlSource(path, quarantine=str(tmp_path / "bad.jsonl"))
    assert len((tmp_path / "bad.jsonl").read_text().splitlines()) == 1
    assert not list(tmp_path.glob("rows.jsonl.quarantine*"))


def test_quarantine_that_cannot_be_written_warns_and_goes_on(write, tmp_path):
    path = write(GOOD, b"{")
    with pytest.warns(UserWarning, match="broken rows are not listed") as caught:
        source = JsonlSource(path, quarantine=str(tmp_path / "nowhere/bad.jsonl"))
    assert len(source) == 1 and len(caught) == 1


def test_truncated_image_is_set_aside_when_drawn(write, tmp_path):
    path = write(GOOD, image_row("cat.png"))
    truncate(tmp_path / "cat.png")
    source = JsonlSource(path)
    assert len(source) == 2  # its header is good
    assert set(drawn(source)) == {"good"}
    (record,) = quarantined(path)
    assert (record["line"], record["id"]) == (2, "x") and "truncated" in record["reason"]
    with pytest.raises(DataError, match="line 2: image 'cat.png' is truncated"):
        source.sample(1)


def test_truncated_image_is_set_aside_when_taken_in_order(write, tmp_path):
    path = write(GOOD, image_row("cat.png"), {**GOOD, "id": "last"})
    source = JsonlSource(path)
    truncate(tmp_path / "cat.png")
    for _ in range(2):
        assert [sample.id for _, sample in source.in_order()] == ["good", "last"]
    assert source.broken_count == len(quarantined(path)) == 1
    assert source.broken_reasons == [
        ("image .. is truncated or damaged: image file is truncated", 1)
    ]
    with pytest.raises(DataError, match="2 of 3 rows are broken"):
        source = JsonlSource(write(b"{", image_row("cat.png"), GOOD), max_broken=0.5)
        list(source.in_order())


def test_names_of_one_image_add_up(write, monkeypatch):
    monkeypatch.setattr("unified_rl.data.interleaved_row.ROW_PIXELS", 2 * 24 * 32)
    many = [{"image": "cat.png"}]
    path = write(image_row("cat.png", target=many), image_row("cat.png", target=many * 2, id="y"))
    assert len(JsonlSource(path).load(0).target) == 1  # two pictures of 24 x 32 are not too many
    with pytest.raises(DataError, match="line 2: shows over 1536 pixels; set image_size"):
        JsonlSource(path).sample(1)
    assert len(JsonlSource(path, image_size=8).sample(1).target) == 2


def test_draw_depends_on_its_generator_alone(write, tmp_path):
    rows = [{**GOOD, "id": str(number)} for number in range(5)]
    path = write(*rows, image_row("cat.png"))
    truncate(tmp_path / "cat.png")
    source, backwards = JsonlSource(path), JsonlSource(path)
    expected = drawn(source)
    assert len(set(expected)) == 5
    # neither the order of draws nor what has been found broken before matters
    ids = [backwards.draw(np.random.default_rng(seed)).id for seed in reversed(range(40))]
    assert ids[::-1] == expected == drawn(source)


def test_too_many_rows_that_break_when_drawn(write, tmp_path):
    path = write(image_row("cat.png"))
    truncate(tmp_path / "cat.png")
    source = JsonlSource(path, max_broken=1.0)
    for _ in range(2):  # and it does not hang afterwards
        with pytest.raises(DataError, match="1 of 1 rows are broken"):
            source.draw(np.random.default_rng(0))


def test_image_gone_since_the_start(write, tmp_path):
    source = JsonlSource(write(GOOD, image_row("cat.png")))
    (tmp_path / "cat.png").unlink()
    assert set(drawn(source)) == {"good"}


def test_share_of_broken_rows_is_bounded(write):
    rows = [GOOD, b"{", b"{", {**GOOD, "id": "b"}]
    assert len(JsonlSource(write(*rows), max_broken=0.5)) == 2  # 2 of 4 is not above 0.5
    with pytest.raises(DataError, match=r"2 of 4 rows.*max_broken=0\.4.*quarantine\.jsonl"):
        JsonlSource(write(*rows), max_broken=0.4)


def test_no_good_row(write):
    with pytest.raises(DataError, match="1 of 1 rows are broken"):
        JsonlSource(write(b"{"), max_broken=1.0)


def test_empty_file(write):
    with pytest.raises(DataError, match="holds no rows"):
        JsonlSource(write(b""))


def test_missing_file_names_the_nearest(write, tmp_path):
    write(GOOD)
    with pytest.raises(DataError, match=r"did you mean 'rows\.jsonl'"):
        JsonlSource(str(tmp_path / "row.jsonl"))
    with pytest.raises(DataError, match="there is no folder"):
        JsonlSource(str(tmp_path / "none/row.jsonl"))


@pytest.mark.parametrize("setting", [{"max_broken": 1.5}, {"image_size": 0}])
def test_setting_out_of_range(write, setting):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        JsonlSource(write(GOOD), **setting)


def test_image_root_elsewhere(write, tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "cat.png").rename(tmp_path / "pictures/cat.png")
    source = JsonlSource(write(image_row("cat.png")), image_root=str(tmp_path / "pictures"))
    assert source.sample(0).prompt[0].pixels.shape == (24, 32, 3)
    with pytest.raises(DataError, match="image_root=nowhere is not a folder"):
        JsonlSource(write(GOOD), image_root="nowhere")


def test_images_are_resized_and_cropped_about_the_centre(write, tmp_path):
    pixels = np.zeros((8, 24, 3), np.uint8)
    pixels[:, 8:16] = 200  # the middle third is what a square crop keeps
    PillowImage.fromarray(pixels).save(tmp_path / "wide.png")
    source = JsonlSource(write(image_row("wide.png")), image_size=16)
    resized = source.sample(0).prompt[0].pixels
    assert source.image_size == 16 and resized.shape == (16, 16, 3)
    assert (resized[:, 4:12] == 200).all()


def test_other_kinds_of_images_become_rgb(write, tmp_path):
    PillowImage.new("LA", (4, 4), (0, 0)).save(tmp_path / "clear.png")
    PillowImage.new("L", (4, 4), 7).save(tmp_path / "grey.jpg")
    source = JsonlSource(write(image_row("clear.png"), image_row("grey.jpg", id="y")))
    assert (source.sample(0).prompt[0].pixels == 255).all()  # what is transparent becomes white
    assert (source.sample(1).prompt[0].pixels == 7).all()


def test_travels_to_a_worker(write):
    source = JsonlSource(write(GOOD, {**GOOD, "id": "b"}))
    assert drawn(pickle.loads(pickle.dumps(source))) == drawn(source)


def invented():
    story = (Text("<think> a <vis>"), Image(noise(seed=1)), Text("\u4e2d \u00fc"))
    return [
        Sample("a", Task.INTERLEAVED, (Text("tell"),), story, {"n": 1, "deep": {"x": [1, None]}}),
        Sample("b", Task.UNDERSTANDING, (Image(noise(seed=1)), Text("what?")), (Text("noise"),)),
        Sample("c", Task.TEXT_TO_IMAGE, (Text("draw"),), (Image(noise(5, 3, seed=2)),)),
    ]


def test_written_samples_come_back(tmp_path):
    path = tmp_path / "deep.jsonl"
    assert write_jsonl(str(path), invented(), "images/all") == 3
    source = JsonlSource(str(path))
    assert len(source) == 3
    for index, sample in enumerate(invented()):
        back = source.sample(index)
        assert (back.id, back.task, back.facts) == (sample.id, sample.task, sample.facts)
        for old, new in zip(sample.prompt + sample.target, back.prompt + back.target, strict=True):
            assert type(old) is type(new)
            if isinstance(old, Text):
                assert old == new
            else:
                np.testing.assert_array_equal(old.pixels, new.pixels)
    # equal images are stored once: two of the three are the same
    assert len(list((tmp_path / "images/all").iterdir())) == 2
    assert sorted(file.name for file in tmp_path.iterdir()) == ["deep.jsonl", "images"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (Sample("a", Task.TEXT, (Text("x"),)), "'a' is empty or given twice"),
        (Sample("", Task.TEXT, (Text("x"),)), "'' is empty or given twice"),
        (Sample("d", Task.TEXT, ()), "'d' has an empty prompt"),
        (Sample("d", Task.TEXT, (Text("x"),), facts={"x": object()}), "'d' cannot be written"),
        (Sample("d", Task.TEXT, (Text("x"),), facts={"x": float("nan")}), "'d' cannot be written"),
        (Sample("d", Task.TEXT, (Text("\ud800"),)), "'d' cannot be written"),
        (Sample("d", Task.TEXT, (Text("x" * (4 * 2**20)),)), "'d' takes"),
        (Sample("d", Task.TEXT, (DrawnImage(np.zeros((9, 2), int)),)), "'d' has codes that a"),
    ],
)
def test_sample_that_would_not_come_back_is_refused(tmp_path, bad, reason):
    path = tmp_path / "rows.jsonl"
    path.write_text("old")
    with pytest.raises(DataError, match=reason):
        write_jsonl(str(path), [*invented(), bad])
    assert path.read_text() == "old" and not list(tmp_path.rglob("*.tmp"))


def test_image_folder_must_lie_beside(tmp_path):
    with pytest.raises(ConfigError, match=r"image_folder=\.\./x must lie inside"):
        write_jsonl(str(tmp_path / "rows.jsonl"), [], "../x")
