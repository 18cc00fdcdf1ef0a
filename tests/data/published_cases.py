"""Cases of COCO captions, LLaVA's conversations and GenEval's prompts."""

import json
from pathlib import Path

from tests.data.adapter_cases import (
    AdapterCase,
    bomb,
    cut,
    hundred_megapixels,
    outside,
    picture,
    replace_bytes,
)
from unified_rl.data.coco_captions import CocoCaptions
from unified_rl.data.geneval_prompts import GenevalPrompts
from unified_rl.data.llava_conversations import LlavaConversations


def write_coco(folder: Path) -> None:
    """Five pictures; annotations 10..16 about them in mixed order."""
    for number in range(5):
        picture(folder / f"train2017/{number:012}.png", number)
    images = [{"id": n, "file_name": f"{n:012}.png", "height": 7, "width": 9} for n in range(5)]
    annotations = [
        {"image_id": 7 * n % 5, "id": 10 + n, "caption": f"A caption été {n}."} for n in range(7)
    ]
    file = {"info": {"year": 2017}, "images": images, "licenses": [], "annotations": annotations}
    (folder / "captions.json").write_text(json.dumps(file, ensure_ascii=False), encoding="utf-8")


def open_coco(folder: Path, **settings: object) -> CocoCaptions:
    root = str(folder / "train2017")
    return CocoCaptions(str(folder / "captions.json"), ask="both", image_root=root, **settings)


COCO = AdapterCase(
    name="coco_captions",
    row_count=14,
    write=write_coco,
    open=open_coco,
    hazards={
        "truncated": lambda folder: (folder / "captions.json").write_bytes(
            (folder / "captions.json").read_bytes()[:-150]
        ),
        "bomb": lambda folder: (folder / "train2017/000000000002.png").write_bytes(bomb()),
        "climbing": lambda folder: replace_bytes(
            folder / "captions.json",
            b"000000000002.png",
            outside(folder / "train2017").encode(),
        ),
        "not_utf8": lambda folder: replace_bytes(
            folder / "captions.json", "été 2".encode(), b"\xe9t\xe9 2"
        ),
        "hundred_megapixels": lambda folder: (folder / "train2017/000000000002.png").write_bytes(
            hundred_megapixels()
        ),
        "missing": lambda folder: (folder / "train2017/000000000002.png").unlink(),
    },
)


def write_llava(folder: Path) -> None:
    """Six records: even ones of two turns, the last without an image."""
    records = []
    for number in range(6):
        picture(folder / f"images/{number}.png", number)
        said = [f"<image>\nWhat is this {number}?", f"This is {number}."]
        said += ["And?", "No more."] if number % 2 == 0 else []
        record = {"id": f"r{number}", "image": f"images/{number}.png", "conversations": []}
        if number == 5:
            del record["image"]
            said[0] = "Hello?"
        for place, text in enumerate(said):
            speaker = "gpt" if place % 2 else "human"
            record["conversations"].append({"from": speaker, "value": text})
        records.append(record)
    (folder / "chat.json").write_text(json.dumps(records, indent=1))


LLAVA = AdapterCase(
    name="llava_conversations",
    row_count=9,
    write=write_llava,
    open=lambda folder, **settings: LlavaConversations(str(folder / "chat.json"), **settings),
    hazards={
        "truncated": lambda folder: cut(folder / "chat.json"),
        "bomb": lambda folder: (folder / "images/2.png").write_bytes(bomb()),
        "climbing": lambda folder: replace_bytes(
            folder / "chat.json", b"images/2.png", outside(folder).encode()
        ),
        "not_utf8": lambda folder: replace_bytes(
            folder / "chat.json", b"What is this 2?", b"What is this \xff?"
        ),
        "hundred_megapixels": lambda folder: (folder / "images/2.png").write_bytes(
            hundred_megapixels()
        ),
        "missing": lambda folder: (folder / "images/2.png").unlink(),
    },
)


def write_geneval(folder: Path) -> None:
    rows = []
    for number, noun in enumerate(("bench", "cow", "bird", "cat", "dog", "clock", "vase")):
        row = {"tag": "single_object", "include": [{"class": noun, "count": 1}]}
        row["prompt"] = f"a photo of a {noun}"
        if number % 2:
            row |= {"question": "What is the main item in this image?", "answer": noun}
        rows.append(row)
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


GENEVAL = AdapterCase(
    name="geneval_prompts",
    row_count=7,
    write=write_geneval,
    open=lambda folder, image_size=None, **settings: GenevalPrompts(
        str(folder / "metadata.jsonl"), **settings
    ),
    hazards={
        "truncated": lambda folder: cut(folder / "metadata.jsonl"),
        "not_utf8": lambda folder: replace_bytes(
            folder / "metadata.jsonl", b"a photo of a cow", b"a photo of a c\xf6w"
        ),
    },
    without=dict.fromkeys(
        ("bomb", "climbing", "hundred_megapixels", "missing"), "it names no other files"
    ),
)

CASES = [COCO, LLAVA, GENEVAL]
