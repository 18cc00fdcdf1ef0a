"""Cases of the data sets that the papers use, COCO and LLaVA aside, for `test_every_adapter.py`."""

import csv
import importlib.util
import io
import json
import os
import shutil
import tarfile
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.data.adapter_cases import (
    AdapterCase,
    bomb,
    cut,
    hundred_megapixels,
    outside,
    picture,
    replace_bytes,
)
from tests.data.videos import write_video
from unified_rl.data.activitynet import ActivityNetCaptions
from unified_rl.data.genhowto import GenHowTo
from unified_rl.data.journeydb import JourneyDB
from unified_rl.data.keyframes import KeyframeRule
from unified_rl.data.openstory import OpenStory
from unified_rl.data.tables import open_table
from unified_rl.data.x2x import PairSource


def listed_reasons(path: Path) -> str:
    """Why rows of a data set are broken, as its quarantine file says."""
    lines = Path(f"{path}.quarantine.jsonl").read_text().splitlines()
    return " | ".join(json.loads(line)["reason"] for line in lines)


# -- JourneyDB -------------------------------------------------------------------------------------


def write_journeydb(folder: Path) -> None:
    with (folder / "anno.jsonl").open("w") as file:
        for number in range(6):
            name = f"00{number % 2}/picture_{number}.png"
            picture(folder / "imgs" / name, number)
            row = {
                "img_path": f"./{name}",
                "prompt": f"castle {number} --v 4",
                "Task2": {"Caption": f"castle number {number}"},
            }
            file.write(json.dumps(row) + "\n")


def open_journeydb(folder: Path, **settings) -> JourneyDB:
    return JourneyDB(str(folder / "anno.jsonl"), str(folder / "imgs"), **settings)


JOURNEYDB = AdapterCase(
    name="journeydb",
    row_count=6,
    write=write_journeydb,
    open=open_journeydb,
    hazards={
        "truncated": lambda folder: cut(folder / "anno.jsonl"),
        "bomb": lambda folder: (folder / "imgs/000/picture_2.png").write_bytes(bomb()),
        "climbing": lambda folder: replace_bytes(
            folder / "anno.jsonl", b"./000/picture_2.png", outside(folder / "imgs").encode()
        ),
        "not_utf8": lambda folder: replace_bytes(
            folder / "anno.jsonl", b"castle 2 --v", b"castle \xff --v"
        ),
        "hundred_megapixels": lambda folder: (folder / "imgs/000/picture_2.png").write_bytes(
            hundred_megapixels()
        ),
        "missing": lambda folder: (folder / "imgs/000/picture_2.png").unlink(),
    },
)


def write_archives(folder: Path) -> None:
    """The same with its pictures in two archives."""
    write_journeydb(folder)
    for number in range(2):
        pack(folder, number)


def pack(folder: Path, number: int, **spoilt: bytes) -> None:
    """An archive of the pictures `picture_<digit>`, or of what is given under such a name."""
    with tarfile.open(folder / f"imgs/{number:03}.tar", "w") as archive:
        for digit in range(number, 6, 2):
            name = f"picture_{digit}"
            member = tarfile.TarInfo(f"./{number:03}/{name}.png")
            picture(folder / f"imgs/{number:03}/{name}.png", digit)
            content = (folder / f"imgs/{number:03}/{name}.png").read_bytes()
            content = spoilt.get(name, content)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    shutil.rmtree(folder / f"imgs/{number:03}")


def climb_out_of_archive(folder: Path) -> None:
    """The name of picture 2 leads out of the archive, in its header and in the annotations."""
    outside(folder / "imgs")
    replace_bytes(folder / "anno.jsonl", b"./000/picture_2.png", b"../outside.png")
    with tarfile.open(folder / "imgs/000.tar") as archive:
        members = [(member, archive.extractfile(member).read()) for member in archive]
    with tarfile.open(folder / "imgs/000.tar", "w") as archive:
        for member, content in members:
            if member.name.endswith("picture_2.png"):
                member.name = "../outside.png"
            archive.addfile(member, io.BytesIO(content))


ARCHIVES = AdapterCase(
    name="journeydb_archives",
    row_count=6,
    write=write_archives,
    open=open_journeydb,
    hazards={
        # a member takes two blocks of 512 bytes: it ends in the second one's content
        "truncated": lambda folder: os.truncate(folder / "imgs/001.tar", 2000),
        "bomb": lambda folder: pack(folder, 0, picture_2=bomb()),
        "climbing": climb_out_of_archive,
        "not_utf8": lambda folder: replace_bytes(
            folder / "imgs/000.tar", b"picture_2.png", b"picture_\xff.png"
        ),
        "hundred_megapixels": lambda folder: pack(folder, 0, picture_2=hundred_megapixels()),
        "missing": lambda folder: (folder / "imgs/001.tar").unlink(),
    },
)

# -- OpenStory++ -----------------------------------------------------------------------------------

STORY_FRAMES = 2


def story_key(number: int, frame: int) -> str:
    video = f"video-{number}".ljust(11, "_")
    return f"{video}_keyframe_0-0-{frame}-250"


def write_openstory(folder: Path) -> None:
    (folder / "story").mkdir()
    for shard in range(2):
        rows = [
            {
                "__key__": story_key(number, frame),
                "json": {"caption": f"part {frame} of {number}"},
                "png": b"a mask",
            }
            for number in range(3 * shard, 3 * shard + 3)
            for frame in range(STORY_FRAMES)
        ]
        for row in rows:
            name = row["__key__"]
            picture(folder / f"frames/{name[:11]}/{name}.png", len(name))
        pq.write_table(
            pa.Table.from_pylist(rows),
            folder / f"story/train-{shard:05d}.parquet",
            compression="none",
            write_statistics=False,  # so that a text stands in the file once
        )


def open_openstory(folder: Path, **settings) -> OpenStory:
    return OpenStory(
        str(folder / "story"),
        frames=str(folder / "frames"),
        frame_name="{video}/{frame}.png",
        **settings,
    )


def story_frame(folder: Path) -> Path:
    name = story_key(2, 1)
    return folder / f"frames/{name[:11]}/{name}.png"


def link_outside(folder: Path) -> None:
    outside(folder)
    story_frame(folder).unlink()
    story_frame(folder).symlink_to(folder.parent / "outside.png")


OPENSTORY = AdapterCase(
    name="openstory",
    row_count=6,
    write=write_openstory,
    open=open_openstory,
    hazards={
        "truncated": lambda folder: cut(folder / "story/train-00001.parquet"),
        "bomb": lambda folder: story_frame(folder).write_bytes(bomb()),
        "climbing": link_outside,
        "not_utf8": lambda folder: replace_bytes(
            folder / "story/train-00000.parquet", b"part 1 of 2", b"part \xff of 2"
        ),
        "hundred_megapixels": lambda folder: story_frame(folder).write_bytes(hundred_megapixels()),
        "missing": lambda folder: story_frame(folder).unlink(),
    },
)

# -- GenHowTo --------------------------------------------------------------------------------------


def write_genhowto(folder: Path) -> None:
    for table, column in (("states", "FRAME_S2_PROMPT"), ("actions", "FRAME_AC_PROMPT")):
        with (folder / f"{table}.heldout.txt").open("w", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(["VID_ID", "DS_CAT", "FRAME_S1", "FRAME_S2", "FRAME_AC", column])
            for number in range(6):
                text = f"{table} of apple {number}, cut"
                rows.writerow([f"video-{number}__-", 0, number, 30 + number, 10 + number, text])
    for number in range(6):
        for second in (number, 10 + number, 30 + number):
            picture(folder / f"frames/video-{number}__-/{second}.jpg", second)


def open_genhowto(folder: Path, **settings) -> GenHowTo:
    return GenHowTo(
        str(folder / "states.heldout.txt"),
        partner=str(folder / "actions.heldout.txt"),
        images=str(folder / "frames"),
        **settings,
    )


def climb_out_of_frames(folder: Path) -> None:
    for table in ("states", "actions"):
        replace_bytes(folder / f"{table}.heldout.txt", b"video-2__-", b"../video-2__-")
    (folder / "frames/video-2__-").rename(folder / "video-2__-")


GENHOWTO = AdapterCase(
    name="genhowto",
    row_count=6,
    write=write_genhowto,
    open=open_genhowto,
    hazards={
        "truncated": lambda folder: cut(folder / "states.heldout.txt"),
        "bomb": lambda folder: (folder / "frames/video-2__-/12.jpg").write_bytes(bomb()),
        "climbing": climb_out_of_frames,
        "not_utf8": lambda folder: replace_bytes(
            folder / "states.heldout.txt", b"states of apple 2", b"states \xff of apple 2"
        ),
        "hundred_megapixels": lambda folder: (folder / "frames/video-2__-/12.jpg").write_bytes(
            hundred_megapixels()
        ),
        "missing": lambda folder: (folder / "frames/video-2__-/32.jpg").unlink(),
    },
)

# -- ActivityNet Captions --------------------------------------------------------------------------


def write_activitynet(folder: Path) -> None:
    captions = {}
    for number in range(6):
        write_video(folder / f"videos/v_video-{number}.mp4", count=20)
        captions[f"v_video-{number}"] = {
            "duration": 2.0,
            "timestamps": [[1.0, 2.0], [0.0, 1.0]],
            "sentences": [f"Then {number} ends.", f"First {number} begins."],
        }
    (folder / "train.json").write_text(json.dumps(captions))


def open_activitynet(folder: Path, **settings) -> ActivityNetCaptions:
    return ActivityNetCaptions(
        str(folder / "train.json"),
        str(folder / "videos"),
        KeyframeRule(seconds_per_frame=1.0),
        **settings,
    )


def climb_out_of_videos(folder: Path) -> None:
    replace_bytes(folder / "train.json", b"v_video-2", b"../v_video-2")
    (folder / "videos/v_video-2.mp4").rename(folder / "v_video-2.mp4")


ACTIVITYNET = AdapterCase(
    name="activitynet",
    row_count=6,
    write=write_activitynet,
    open=open_activitynet,
    hazards={
        "truncated": lambda folder: cut(folder / "videos/v_video-2.mp4"),
        # some kilobytes that unpack to frames of 24 megapixels
        "bomb": lambda folder: write_video(
            folder / "videos/v_video-2.mp4", count=1, size=(6000, 4000)
        ),
        "climbing": climb_out_of_videos,
        "not_utf8": lambda folder: replace_bytes(
            folder / "train.json", b"First 2 begins.", b"First \xff begins."
        ),
        "missing": lambda folder: (folder / "videos/v_video-2.mp4").unlink(),
    },
    without={"hundred_megapixels": "a video of 24 megapixels is refused already; see bomb"},
)

# -- CoRL's tables ---------------------------------------------------------------------------------


def write_x2x(folder: Path) -> None:
    with (folder / "rows.jsonl").open("w") as file:
        for number in range(9):
            picture(folder / f"images/{number}.png", number)
            row = {
                "real_image": f"images/{number}.png",
                "prompt": f"picture {number} of noise",
                "qa_problem": f"what is picture {number} of?",
                "qa_solution": "<think>It is grey.</think><answer>noise</answer>",
                "qa_type": "OE" if number % 3 else "MC",
            }
            file.write(json.dumps(row) + "\n")


def open_x2x(folder: Path, unit: str, **settings) -> PairSource:
    return PairSource(open_table(str(folder / "rows.jsonl")), unit=unit, **settings)


X2X_HAZARDS = {
    "truncated": lambda folder: cut(folder / "rows.jsonl"),
    "bomb": lambda folder: (folder / "images/2.png").write_bytes(bomb()),
    "climbing": lambda folder: replace_bytes(
        folder / "rows.jsonl", b"images/2.png", outside(folder).encode()
    ),
    "not_utf8": lambda folder: replace_bytes(
        folder / "rows.jsonl", b"picture 2 of?", b"pictur\xff of?"
    ),
    "hundred_megapixels": lambda folder: (folder / "images/2.png").write_bytes(
        hundred_megapixels()
    ),
    "missing": lambda folder: (folder / "images/2.png").unlink(),
}
DRAWINGS, QUESTIONS = (
    AdapterCase(
        name=f"x2x_{unit}",
        row_count=9,
        write=write_x2x,
        open=partial(open_x2x, unit=unit),
        hazards=X2X_HAZARDS,
    )
    for unit in ("drawing", "question")
)

CASES = [JOURNEYDB, ARCHIVES, OPENSTORY, GENHOWTO, DRAWINGS, QUESTIONS]
if importlib.util.find_spec("av") is not None:
    CASES.append(ACTIVITYNET)
