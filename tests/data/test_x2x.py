"""CoRL's rows as drawings, questions and pairs; what is set aside and what is refused."""

import inspect
import io
import itertools
import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from hydra import compose, initialize_config_dir
from hydra.utils import get_object, instantiate
from PIL import Image as PillowImage

from unified_rl.core import sample as core_sample
from unified_rl.core.errors import ConfigError, DataError
from unified_rl.core.sample import Completion, Pair, Task, Text
from unified_rl.data import x2x
from unified_rl.data.mixture import MixtureStream, SampleDataModule
from unified_rl.data.reader import OrderedReader
from unified_rl.data.tables import open_table
from unified_rl.data.x2x import PairSource, answer_in
from unified_rl.rewards.accuracy import AccuracyReward
from unified_rl.rewards.reasoning_format import ReasoningFormatReward
from unified_rl.runtime.cli import register_resolvers

CONF = Path(__file__).parents[2] / "conf"
MCQ = {
    "prompt": "a cat on a red sofa",
    "qa_problem": "What does the cat lie on?\nA. a bed\nB. a sofa\nC. a car\nThink first.",
    "qa_solution": "<think>It lies on a sofa.</think><answer>B</answer>",
    "qa_type": "MC",
}
VQA = {
    "prompt": "three dogs on grass",
    "qa_problem": "How many dogs are there?",
    "qa_solution": "<think>One, two, three.</think>\n<answer> three </answer>",
    "qa_type": "OE",
}


def pixels(seed=0, size=(6, 8)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def png(seed=0, size=(6, 8)):
    buffer = io.BytesIO()
    PillowImage.fromarray(pixels(seed, size)).save(buffer, "PNG")
    return buffer.getvalue()


class Rows:
    """A table of anything, which files cannot hold."""

    def __init__(self, rows, folder=None):
        self.path, self.folder = "rows", folder
        self.rows, self.columns = rows, tuple(dict.fromkeys(itertools.chain(*rows)))
        self.read = []

    def __len__(self):
        return len(self.rows)

    def number(self, index):
        return index + 1

    def row(self, index, names):
        self.read.append(index)
        return {name: self.rows[index][name] for name in names if name in self.rows[index]}

    def column(self, name):
        return (row.get(name) for row in self.rows)


def good(count=1, **more):
    return [{**(MCQ, VQA)[i % 2], "real_image": png(i), **more} for i in range(count)]


def only(source):
    """What is drawn of a source of one row."""
    return source.draw(np.random.default_rng(0))


def test_rows_of_a_kind_are_read_in_order_and_resumed():
    rows = PairSource(Rows(good(7)), unit="question", kind="open")
    # MC and OE alternate, MC first: rows 2, 4 and 6 of seven are open
    assert [rows.place(index) for index in range(len(rows))] == [2, 4, 6]
    reader = OrderedReader(rows, epochs=2)
    read = [next(reader) for _ in range(4)]
    assert [place for place, _ in read] == [0, 1, 2, 3]
    goes_on = OrderedReader(rows, epochs=2)
    goes_on.load_state_dict(reader.state_dict())
    assert [sample.id[-1] for _, sample in (*read, *goes_on)] == list("246246")


def test_pairs_are_shared_by_ranks():
    rows = PairSource(Rows(good(5)))
    shares = [[pair.drawing.id[-1] for _, pair in rows.in_order(rank, 2)] for rank in range(2)]
    assert shares == [["1", "3", "5"], ["2", "4"]]


# -- what becomes of a row -------------------------------------------------------------------------


def test_a_row_becomes_a_pair():
    pair = only(PairSource(Rows(good())))
    assert isinstance(pair, Pair)
    drawing, question = pair.drawing, pair.question
    assert (drawing.id, drawing.task) == ("drawing/rows/1", Task.TEXT_TO_IMAGE)
    assert drawing.prompt == (Text("a cat on a red sofa"),)
    np.testing.assert_array_equal(drawing.target[0].pixels, pixels())
    assert (question.id, question.task) == ("question/rows/1", Task.UNDERSTANDING)
    np.testing.assert_array_equal(question.prompt[0].pixels, pixels())
    assert question.prompt[1:] == (Text(MCQ["qa_problem"]),)
    assert question.target == (Text(MCQ["qa_solution"]),)
    assert question.facts == {"answer": "B", "qa_type": "MC"}


def test_a_row_becomes_a_drawing():
    row = {"prompt": "a cat", "real_image": png()}
    sample = only(PairSource(Rows([row]), unit="drawing"))
    assert (sample.task, sample.prompt, len(sample.target)) == (
        Task.TEXT_TO_IMAGE,
        (Text("a cat"),),
        1,
    )


def test_a_drawing_can_do_without_a_picture():
    source = PairSource(Rows([{"prompt": "a cat"}]), unit="drawing", columns={"image": None})
    assert only(source).target == ()


def test_columns_are_named_otherwise():
    row = {"pic": png(), "q": "how many", "a": "3"}
    columns = {"image": "pic", "problem": "q", "solution": "a", "kind": None}
    sample = only(PairSource(Rows([row]), unit="question", columns=columns))
    assert (sample.prompt[1], sample.target) == (Text("how many"), (Text("3"),))
    assert sample.facts == {"answer": "3"}


@pytest.mark.parametrize(
    ("instruction", "problem"),
    [
        ("", VQA["qa_problem"]),
        ("Think first.", f"{VQA['qa_problem']}\nThink first."),
        ("How many", VQA["qa_problem"]),  # it is there
    ],
)
def test_an_instruction_is_put_behind_problems_that_lack_it(instruction, problem):
    rows = Rows([{**VQA, "real_image": png()}])
    sample = only(PairSource(rows, unit="question", instruction=instruction))
    assert sample.prompt[1] == Text(problem)


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        ("<think>a</think><answer> B </answer>", "B"),
        ("a red sofa", "a red sofa"),
        ("<think>in <answer>A</answer> or so</think><answer>B</answer>.", "B"),
        ("<answer>two\nlines</answer>", "two\nlines"),
    ],
)
def test_the_answer_of_a_solution(solution, answer):
    assert answer_in(solution) == answer


def test_images_are_made_square():
    pair = only(PairSource(Rows(good()), image_size=4, image_fit="stretch"))
    assert pair.drawing.target[0].pixels.shape == (4, 4, 3)


def wide():
    """64 x 16, red where x is under 16 and white elsewhere."""
    colours = np.full((16, 64, 3), 255, np.uint8)
    colours[:, :16] = (255, 0, 0)
    return PillowImage.fromarray(colours)


def grey_rows(image):
    return int((image.pixels == 127).all(axis=(1, 2)).sum())


def test_the_real_picture_of_a_drawing_has_no_bars_when_questions_are_padded():
    """To a side of 32 the height would be 8, but padding keeps 14 rows: (32 - 14) are grey."""
    rows = Rows(good(real_image=wide()))
    pair = only(PairSource(rows, image_size=32, image_fit="pad"))
    assert grey_rows(pair.question.prompt[0]) == 18
    assert grey_rows(pair.drawing.target[0]) == 0
    drawing = only(PairSource(rows, unit="drawing", image_size=32, image_fit="pad"))
    assert grey_rows(drawing.target[0]) == 0


@pytest.mark.parametrize(
    ("settings", "left", "grey"),
    [
        ({}, (255, 0, 0), 0),  # all of the picture is there
        ({"target_fit": "crop"}, (255, 255, 255), 0),  # x from 24 to 40 is white
        ({"target_fit": "pad"}, (255, 0, 0), 18),
    ],
)
def test_how_the_real_picture_is_made_square(settings, left, grey):
    rows = Rows(good(real_image=wide()))
    pair = only(PairSource(rows, image_size=32, image_fit="crop", **settings))
    target, shown = pair.drawing.target[0], pair.question.prompt[0]
    assert tuple(target.pixels[16, 1]) == left and grey_rows(target) == grey
    assert tuple(shown.pixels[16, 1]) == (255, 255, 255)


def test_the_tags_of_an_answer_are_the_cores():
    assert x2x.ANSWER is core_sample.ANSWER and x2x.ANSWER_END is core_sample.ANSWER_END


@pytest.mark.parametrize(("kind", "expected"), [("choice", {"MC"}), ("open", {"OE", "VQA"})])
def test_questions_of_a_kind(kind, expected):
    kinds = ["MC", "OE", "VQA", None, 3]
    rows = [{**VQA, "real_image": png(), "qa_type": kind} for kind in kinds]
    source = PairSource(Rows(rows), unit="question", kind=kind)
    drawn = [source.draw(np.random.default_rng(seed)) for seed in range(30)]
    assert {sample.facts["qa_type"] for sample in drawn} == expected


def test_a_kind_that_is_not_there_says_what_is():
    with pytest.raises(DataError, match=r"none of 1 rows is of kind=open; 'qa_type' holds 'MC'"):
        PairSource(Rows(good()), kind="open")


# -- containers and encodings ----------------------------------------------------------------------


def in_jsonl(folder, encoding):
    path = "1.png" if encoding == "path" else {"bytes": None, "path": "1.png"}
    (folder / "rows.jsonl").write_text(json.dumps({**MCQ, "real_image": path}))
    return folder / "rows.jsonl"


IMAGES = {
    "bytes": lambda: png(),
    "path": lambda: "1.png",
    "feature": lambda: {"bytes": png(), "path": "somewhere/else.png"},
    "feature_path": lambda: {"bytes": None, "path": "1.png"},
    "list": lambda: [png()],
}


def in_parquet(folder, encoding):
    table = pa.Table.from_pylist([{**MCQ, "real_image": IMAGES[encoding]()}])
    pq.write_table(table, folder / "rows.parquet")
    return folder / "rows.parquet"


def saved(folder, encoding):
    row = {**MCQ, "real_image": IMAGES[encoding]()}
    Dataset.from_list([row]).save_to_disk(folder / "rows")
    (folder / "1.png").rename(folder / "rows" / "1.png")
    return folder / "rows"


def saved_pillow(folder, encoding):
    """As people make them: pictures of Pillow under the Image feature."""
    features = Features(real_image=ImageFeature(), **dict.fromkeys(MCQ, Value("string")))
    image = PillowImage.fromarray(pixels())
    Dataset.from_list([{**MCQ, "real_image": image}], features).save_to_disk(folder / "rows")
    return folder / "rows"


def parquet_pillow(folder, encoding):
    features = Features(real_image=ImageFeature(), **dict.fromkeys(MCQ, Value("string")))
    image = PillowImage.fromarray(pixels())
    dataset = Dataset.from_list([{**MCQ, "real_image": image}], features)
    dataset.to_parquet(str(folder / "rows.parquet"))
    return folder / "rows.parquet"


STORED = [
    (in_jsonl, "path"),
    (in_jsonl, "feature_path"),
    *((write, encoding) for write in (in_parquet, saved) for encoding in IMAGES),
    (saved_pillow, "pillow"),
    (parquet_pillow, "pillow"),
]


@pytest.mark.parametrize(("write", "encoding"), STORED)
def test_samples_do_not_depend_on_how_they_are_stored(tmp_path, write, encoding):
    (tmp_path / "1.png").write_bytes(png())
    table = open_table(str(write(tmp_path, encoding)), cache_folder=str(tmp_path / "cache"))
    stored, expected = only(PairSource(table)), only(PairSource(Rows(good())))
    assert stored.id == expected.id
    for one, other in ((stored.drawing, expected.drawing), (stored.question, expected.question)):
        assert (one.id, one.task, one.facts) == (other.id, other.task, other.facts)
        assert one.prompt_text == other.prompt_text
    image = stored.drawing.target[0].pixels
    np.testing.assert_array_equal(image, expected.drawing.target[0].pixels)
    assert stored.question.target == expected.question.target
    assert not list(tmp_path.glob("*.quarantine.jsonl"))


def test_pictures_of_pillow_in_memory_are_read():
    rows = good(real_image=PillowImage.open(io.BytesIO(png())))
    np.testing.assert_array_equal(only(PairSource(Rows(rows))).drawing.target[0].pixels, pixels())


def test_absolute_paths_are_read_in_a_folder_that_is_named(tmp_path):
    (tmp_path / "1.png").write_bytes(png())
    rows = Rows(good(real_image=str(tmp_path / "1.png")))
    assert only(PairSource(rows, image_root=str(tmp_path)))
    with pytest.raises(DataError, match="is not a path inside image_root"):
        own = Rows(rows.rows, folder=tmp_path)  # the table's folder, which nobody named
        PairSource(own, quarantine=str(tmp_path / "broken.jsonl"))
    (tmp_path / "inside").mkdir()
    with pytest.raises(DataError, match="is not a path inside image_root"):
        PairSource(rows, image_root=str(tmp_path / "inside"))


# -- broken rows -----------------------------------------------------------------------------------


def bomb():
    buffer = io.BytesIO()
    PillowImage.new("1", (8001, 8000)).save(buffer, "PNG")
    return buffer.getvalue()


BROKEN = {
    "no_prompt": ({"prompt": None}, "has no 'prompt'"),
    "empty_prompt": ({"prompt": " \n"}, "'prompt' is empty"),
    "number": ({"prompt": 3}, "'prompt' is a int, not a text"),
    "list": ({"qa_problem": ["what"]}, "'qa_problem' is a list, not a text"),
    "bytes": ({"qa_solution": b"B"}, "'qa_solution' is a bytes, not a text"),
    "long": ({"qa_problem": "a" * 10**6}, "'qa_problem' has 1000000 characters, over 8192"),
    "surrogate": ({"prompt": "a \ud800"}, "'prompt' is not Unicode"),
    "long_solution": ({"qa_solution": "a" * 8193}, "'qa_solution' has 8193 characters, over 8192"),
    "empty_answer": ({"qa_solution": "<think>a</think><answer> </answer>"}, "has an empty answer"),
    "open_answer": ({"qa_solution": "<answer>B"}, "opens <answer> without closing it"),
    "no_image": ({"real_image": None}, "has no 'real_image'"),
    "null_image": ({"real_image": {"bytes": None, "path": None}}, "has no 'real_image'"),
    "no_bytes": ({"real_image": b""}, "'real_image' is unreadable"),
    "truncated": ({"real_image": png(size=(99, 99))[:-900]}, "is truncated or damaged"),
    "bomb": ({"real_image": bomb()}, "of 8001 x 8000 is over 64000000 pixels"),
    "pickle": ({"real_image": pickle.dumps([1])}, "'real_image' is unreadable"),
    "two": ({"real_image": [png(), png()]}, "'real_image' is a list of 2, not one image"),
    "image_number": ({"real_image": 3}, "'real_image' is a int, not one image"),
    "other_keys": ({"real_image": {"bytes": png(), "url": ""}}, "is a dict, not one image"),
    "missing": ({"real_image": "dog.png"}, "'real_image' 'dog.png' does not exist"),
    "absolute": ({"real_image": "/etc/passwd"}, "is not a path inside image_root"),
    "parent": ({"real_image": "../1.png"}, "is not a path inside image_root"),
    "parent_path": ({"real_image": {"bytes": None, "path": "a/../../1.png"}}, "is not a path"),
    "address": ({"real_image": "https://example.com/1.png"}, "does not exist"),
    "link": ({"real_image": "link.png"}, "leads out of image_root"),
    "huge_picture": ({"real_image": PillowImage.new("1", (8001, 8000))}, "is over 64000000 pixels"),
    "no_pixels": ({"real_image": PillowImage.new("RGB", (0, 4))}, "of 0 x 4 has no pixels"),
    "float_picture": ({"real_image": PillowImage.new("F", (4, 4))}, "of mode F has no known range"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_row_is_passed_over_and_listed(tmp_path, tmp_path_factory, caplog, name):
    change, reason = BROKEN[name]
    outside = tmp_path_factory.mktemp("outside") / "1.png"
    outside.write_bytes(png())
    (tmp_path / "link.png").symlink_to(outside)
    rows = Rows([*good(2), {**MCQ, "real_image": png(), **change}], folder=tmp_path)
    listed = tmp_path / "broken.jsonl"
    source = PairSource(rows, quarantine=str(listed))
    assert (len(source), source.broken_count) == (3, 1)
    drawn = {source.draw(np.random.default_rng(seed)).drawing.id for seed in range(30)}
    assert drawn == {"drawing/rows/1", "drawing/rows/2"}
    (record,) = [json.loads(line) for line in listed.read_text().splitlines()]
    assert record["line"] == 3 and reason in record["reason"]
    (warning,) = caplog.messages
    assert warning.startswith("rows row 3 ") and reason in warning
    assert len(warning) < 300


def test_prompts_are_limited_apart_from_solutions():
    """A row whose prompts are short enough is kept however long its reasoning."""
    row = {
        **MCQ,
        "real_image": png(),
        "qa_solution": f"<think>{'a' * 99}</think><answer>B</answer>",
    }
    longest = max(len(row["prompt"]), len(row["qa_problem"]))
    assert longest < len(row["qa_solution"])
    assert only(PairSource(Rows([row]), max_text_length=longest))
    for limits in ({"max_text_length": longest - 1}, {"max_solution_length": 99}):
        with pytest.raises(DataError, match="characters, over"):
            PairSource(Rows([row]), **limits)


def test_a_table_without_a_folder_reads_no_paths():
    with pytest.raises(DataError, match="the table has no folder; set image_root"):
        PairSource(Rows(good(real_image="1.png")))


def spread(count, broken):
    """Rows of which some are broken, none of them among the 32 that are read at the start."""
    rows = good(count)
    checked = set(np.linspace(0, count - 1, 32).astype(int).tolist())
    places = [place for place in range(count) if place not in checked][:broken]
    for place in places:
        rows[place]["prompt"] = None
    return rows


def test_only_so_many_rows_are_read_at_the_start():
    rows = Rows(good(200))
    PairSource(rows)
    assert len(rows.read) == len(set(rows.read)) == 32
    assert (min(rows.read), max(rows.read)) == (0, 199)


def test_rows_found_broken_later_are_listed_once(tmp_path):
    source = PairSource(Rows(spread(64, 8)), quarantine=str(tmp_path / "broken.jsonl"))
    assert source.broken_count == 0 and not (tmp_path / "broken.jsonl").exists()
    rng = np.random.default_rng(0)
    assert all(source.draw(rng).drawing.prompt_text for _ in range(500))
    # a row escapes 500 draws of 64 with a chance of (63/64) ** 500 = 4e-4
    assert source.broken_count == 8
    assert len((tmp_path / "broken.jsonl").read_text().splitlines()) == 8


def test_an_old_list_is_removed(tmp_path):
    (tmp_path / "broken.jsonl").write_text("untrue")
    PairSource(Rows(good()), quarantine=str(tmp_path / "broken.jsonl"))
    assert not (tmp_path / "broken.jsonl").exists()


def test_too_many_broken_rows_stop_a_run():
    """32 rows are read and good; of 320 more 288 are not: at 4 broken ones 4 / (32 + ..) > 10%."""
    source = PairSource(Rows(spread(320, 288)), max_broken=0.1)
    rng = np.random.default_rng(0)
    with pytest.raises(DataError, match=r"rows: \d of \d\d rows read are broken, more than max_"):
        for _ in range(200):
            source.draw(rng)
    assert source.broken_count == 4  # 3 of 35 are 8.6%, 4 of 36 are 11%


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_table_of_broken_rows_is_refused(share):
    reason = "2 of 2 rows read are broken, .* or all of them; row 1 has no 'prompt'"
    with pytest.raises(DataError, match=reason):
        PairSource(Rows(good(2, prompt=None)), max_broken=share)


def test_a_third_of_broken_rows_is_too_much_if_it_is_said_so():
    rows = [*good(2), *good(1, prompt=None)]  # 1 / 3
    assert PairSource(Rows(rows), max_broken=0.34).broken_count == 1
    with pytest.raises(DataError, match=r"1 of 3 rows read are broken, more than max_broken=0\.33"):
        PairSource(Rows(rows), max_broken=0.33)


# -- settings --------------------------------------------------------------------------------------


def test_a_missing_column_says_what_there_is():
    rows = [{"real_img": png(), **MCQ}]
    expected = (
        "rows has no column 'real_image' for the image; did you mean 'real_img'? It has prompt, "
        "qa_problem, qa_solution, qa_type, real_img; set columns.image"
    )
    with pytest.raises(ConfigError) as caught:
        PairSource(Rows(rows))
    assert str(caught.value) == expected


def test_a_missing_kind_matters_only_if_it_is_asked_for():
    rows = Rows([{key: value for key, value in good()[0].items() if key != "qa_type"}])
    assert only(PairSource(rows)).question.facts == {"answer": "B"}
    for settings in ({"kind": "open"}, {"columns": {"kind": "qa_type"}}):
        with pytest.raises(ConfigError, match="set columns.kind, to null if there is none"):
            PairSource(rows, **settings)


WRONG = {
    "unit": ({"unit": "pairs"}, "unit='pairs' is none of pair, drawing, question"),
    "kind": ({"kind": "mc"}, "kind='mc' is none of any, choice, open"),
    "size": ({"image_size": 0}, "image_size=0 must be at least 1"),
    "length": ({"max_text_length": 0}, "max_text_length=0 must be at least 1"),
    "solution": ({"max_solution_length": 0}, "max_solution_length=0 must be at least 1"),
    "fit": ({"image_fit": "cut"}, "image_fit='cut'"),
    "target_fit": ({"target_fit": "cut"}, "target_fit='cut' is not a rule"),
    "share": ({"max_broken": 1.5}, "max_broken=1.5 must be from 0 to 1"),
    "part": ({"columns": {"solutions": "a"}}, "columns.solutions .*did you mean 'solution'"),
    "null": ({"columns": {"problem": None}}, "columns.problem=null, but unit=pair"),
    "null_image": ({"columns": {"image": None}}, "columns.image=null, but unit=pair"),
    "null_kind": ({"columns": {"kind": None}, "kind": "open"}, "with kind=open needs it"),
}


@pytest.mark.parametrize("name", WRONG)
def test_settings_that_cannot_be_are_refused(name):
    settings, reason = WRONG[name]
    with pytest.raises(ConfigError, match=reason):
        PairSource(Rows(good()), **settings)


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "rows.jsonl").write_text("\n")
    with pytest.raises(DataError, match="holds no rows"):
        PairSource(open_table(str(tmp_path / "rows.jsonl")))


def test_a_folder_of_images_that_is_not_there_is_refused():
    with pytest.raises(DataError, match="image_root=nowhere is not a folder"):
        PairSource(Rows(good()), image_root="nowhere")


# -- streams ---------------------------------------------------------------------------------------


def test_a_draw_depends_on_its_generator_alone():
    """Broken rows too are drawn and passed over, whether they are known or not."""
    fresh, worn = (PairSource(Rows(spread(64, 16))) for _ in range(2))
    for seed in range(300):
        worn.draw(np.random.default_rng(seed))
    assert worn.broken_count == 16
    for seed in range(20):
        one, other = (source.draw(np.random.default_rng(seed)) for source in (worn, fresh))
        assert one.id == other.id


def batches(source, seen, count):
    data = SampleDataModule({"x2x": source}, {"x2x": 1.0}, batch_size=4, seed=0)
    data.load_state_dict({"batches_seen": seen})
    return list(itertools.islice(data.train_dataloader(), count))


def test_pairs_pass_unchanged_and_a_stream_goes_on_in_the_middle():
    rows = Rows(spread(64, 16))
    whole, rest = batches(PairSource(rows), 0, 6), batches(PairSource(rows), 4, 2)
    assert all(isinstance(pair, Pair) for batch in whole for pair in batch)
    names = [[pair.id for pair in batch] for batch in whole]
    assert [[pair.id for pair in batch] for batch in rest] == names[4:]
    assert len({name for batch in names for name in batch}) > 12
    stream = MixtureStream({"x2x": PairSource(rows)}, {"x2x": 1.0}, 0, start=9)
    assert next(iter(stream)).id == names[2][1]


def test_a_path_of_a_million_characters_is_not_repeated(tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps({**MCQ, "real_image": "<" * 10**6}))
    with pytest.raises(DataError, match="cannot be opened: File name too long") as caught:
        PairSource(open_table(str(tmp_path / "rows.jsonl")))
    assert len(str(caught.value)) < 800


# -- rewards and configs ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "right", "wrong"),
    [
        (MCQ, ("B", "a sofa", "B. a sofa", "The answer is B."), ("C", "a car", "A or B", "")),
        (VQA, ("three", "3", "Three."), ("two", "3 or 4", "dogs")),
    ],
)
def test_rewards_score_answers_to_published_rows(row, right, wrong):
    rows = Rows([{**row, "real_image": png()}])
    sample = only(PairSource(rows, unit="question"))
    accuracy, form = AccuracyReward(), ReasoningFormatReward()
    for answers, value in ((right, 1.0), (wrong, 0.0)):
        for answer in answers:
            said = f"<think>i look</think><answer>{answer}</answer>"
            completion = Completion((Text(said),), finished=True)
            assert accuracy.score(sample, completion).outcome == value, answer
    gold = Completion(sample.target, finished=True)
    bare = Completion((Text(sample.facts["answer"]),), finished=True)
    assert accuracy.score(sample, gold).outcome == form.score(sample, gold).outcome == 1.0
    assert form.score(sample, bare).outcome == 0.0


@pytest.mark.parametrize(
    ("name", "batch_size", "expected"),
    [
        ("x2x", 16, Pair),
        ("x2x_drawings", 16, Task.TEXT_TO_IMAGE),
        ("mcot_choice", 32, Task.UNDERSTANDING),
        ("mcot_open", 32, Task.UNDERSTANDING),
    ],
)
def test_configs_give_batches_of_the_papers_table_5(tmp_path, name, batch_size, expected):
    (tmp_path / "1.png").write_bytes(png())
    row = {**MCQ, "real_image": "1.png", "image": "1.png"}
    row |= {"problem": row["qa_problem"], "solution": row["qa_solution"]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    register_resolvers()
    source = "mcot" if name.startswith("mcot") else "x2x"
    with initialize_config_dir(str(CONF), version_base="1.3"):
        setting = f"data.sources.{source}.table.path={tmp_path / 'rows.jsonl'}"
        config = compose("train", [f"data={name}", setting])
    data = instantiate(config.data, _convert_="all")
    batch = next(iter(data.train_dataloader()))
    assert len(batch) == batch_size
    for item in batch:
        assert isinstance(item, Pair) if expected is Pair else item.task == expected
        question = item.question if expected is Pair else item
        images = [part for part in (*question.prompt, *question.target) if hasattr(part, "pixels")]
        assert images[0].pixels.shape == (24, 24, 3)


NOT_APPLICABLE = {
    "x2x": set(),
    "x2x_drawings": {"kind", "instruction", "image_fit", "max_solution_length"},
    "mcot_choice": {"target_fit"},
    "mcot_open": {"target_fit"},
}
"""Settings of the half of a pair that a file does not read, and that are not in it."""


@pytest.mark.parametrize("name", NOT_APPLICABLE)
def test_configs_hold_every_setting_so_that_the_command_line_can(name):
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        (source,) = compose("train", [f"data={name}"]).data.sources.values()
    for node, absent in ((source, NOT_APPLICABLE[name]), (source.table, set())):
        settings = inspect.signature(get_object(node["_target_"])).parameters
        assert set(settings) - set(node) == absent
        for setting in set(settings) - absent - {"path", "table", "columns"}:
            # what is listed is the constructor's own value, the policy's size and the unit aside
            default = settings[setting].default
            assert setting in ("unit", "image_size") or node[setting] == default, setting


@pytest.mark.parametrize(
    ("name", "length", "target_fit", "judges"),
    [
        ("unified", 1700, "stretch", 2),
        ("unified_released", 1700, "stretch", 3),
        ("refined_t2i", 1000, "stretch", 2),
        ("refined_mc", 1700, None, 0),
        ("refined_oe", 1700, None, 0),
    ],
)
def test_presets_of_full_scale_hold_table_5s_prompts_and_judge_on_the_gpu(
    name, length, target_fit, judges
):
    """LPIPS and BLIP are two judges with a device, BERT the third; SPICE has none."""
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", [f"experiment=corl/{name}", "paths.output=unused"])
    (source,) = config.data.sources.values()
    assert source.max_text_length == length
    assert source.get("target_fit") == target_fit
    parts = config.reward.cycle.values() if judges else ()
    devices = [part["device"] for part in parts if hasattr(part, "keys") and "device" in part]
    assert devices == ["cuda"] * judges
