"""COCO captions: pictures to draw, or to describe, one caption each."""

from collections.abc import Mapping
from typing import Any, Literal

from unified_rl.core.errors import ConfigError, DataError
from unified_rl.core.sample import Sample, Task, Text
from unified_rl.data.adapter import DatasetAdapter
from unified_rl.data.cells import text_of
from unified_rl.data.json_elements import JsonDamageError, Places, json_elements
from unified_rl.data.jsonl import existing_file
from unified_rl.data.quarantine import BrokenRowError

ASKS = {
    "drawing": ("drawing",),
    "description": ("description",),
    "both": ("drawing", "description"),
}
"""What is asked for of a caption."""


class CocoCaptions(DatasetAdapter):
    """Captions of COCO, or of a file in its layout: one sample a caption, or two.

    The file is a JSON object with the arrays "images" (id, file_name) and "annotations" (id,
    image_id, caption). A drawing has the caption as its prompt and the picture as its target. A
    description shows the picture and the instruction; its target and its fact "answer" are the
    caption. Facts: "image_id", "caption".

    Source: the format of captions_train2017.json and captions_val2017.json (cocodataset.org).

    Args:
        path: of the file.
        ask: for "drawing", "description" or "both" (first the drawing).
        instruction: of a description, below the picture; ours, as COCO has none.
        read_target: whether a drawing's picture is read; rewards that do not compare with it can
            do without.
        max_text_length: most characters of a caption; a longer one is broken.
        image_root: folder of the pictures, such as train2017; None is the folder of the file.
        quarantine: see `adapter.DatasetAdapter`, as for the settings that follow.
        image_size: side in pixels.
        image_fit: how pictures are made squares.
        max_broken: share of broken rows.

    Raises:
        ConfigError: a setting outside of its range.
        DataError: no such file, another layout, or too many broken rows.
    """

    def __init__(
        self,
        path: str,
        ask: Literal["drawing", "description", "both"] = "drawing",
        instruction: str = "Describe the picture in one sentence.",
        read_target: bool = True,
        max_text_length: int = 2048,
        image_root: str | None = None,
        quarantine: str | None = None,
        image_size: int | None = None,
        image_fit: Literal["crop", "pad", "stretch"] = "crop",
        max_broken: float = 0.5,
    ) -> None:
        if ask not in ASKS:
            raise ConfigError(f"ask={ask!r} is none of {', '.join(ASKS)}")
        if max_text_length < 1:
            raise ConfigError(f"max_text_length={max_text_length} must be at least 1")
        super().__init__(path, image_root, quarantine, image_size, image_fit, max_broken)
        existing_file(self.path)
        self._asks, self._instruction = ASKS[ask], instruction.strip()
        self._read_target, self._max_text_length = read_target, max_text_length
        self._captions, self._files = Places(), {}
        self._find_rows()
        self._check_rows()

    def __len__(self) -> int:
        """Captions times what is asked for of each."""
        return len(self._captions) * len(self._asks)

    def place(self, index: int) -> str:
        """Which annotation, from 0 as in the file, and what for where there are two."""
        number, turn = divmod(index, len(self._asks))
        asked = f" as {self._asks[turn]}" if len(self._asks) > 1 else ""
        return f"annotations[{number}]{asked}"

    def load(self, index: int) -> Sample:
        """A drawing or a description.

        Raises:
            BrokenRowError: no caption, no entry for its picture, or a picture that is broken.
        """
        number, turn = divmod(index, len(self._asks))
        row = self._captions.read(self.path, number)
        caption = text_of(row.get("caption"), "caption", self._max_text_length)
        file = self._file_of(row)
        facts = {"image_id": row["image_id"], "caption": caption}
        ask = self._asks[turn]
        name = f"{ask}/{self.path.stem}/{number + 1}"
        if ask == "drawing":
            target = (self._image(file),) if self._read_target else ()
            return Sample(name, Task.TEXT_TO_IMAGE, (Text(caption),), target, facts)
        return Sample(
            id=name,
            task=Task.UNDERSTANDING,
            prompt=(self._image(file), Text(self._instruction)),
            target=(Text(caption),),
            facts={**facts, "answer": caption},
        )

    def _file_of(self, row: Mapping[str, Any]) -> str:
        image_id = row.get("image_id")
        if not isinstance(image_id, int | str):
            raise BrokenRowError("has no 'image_id'")
        if image_id not in self._files:
            raise BrokenRowError(f"image_id {image_id!r} is not among the images")
        return self._files[image_id]

    def _find_rows(self) -> None:
        arrays: set[str] = set()
        try:
            for element in json_elements(self.path):
                arrays.add(element.array)
                if element.array == "annotations":
                    self._captions.append(element)
                elif element.array == "images":
                    self._note(element.value)
        except JsonDamageError as error:
            self._lost("the file", str(error))
        if not self._faults and not {"images", "annotations"} <= arrays:
            raise DataError(
                f"{self.path} has no images and annotations as captions_train2017.json does; it "
                f"has {', '.join(sorted(arrays))[:300] or 'no arrays'}"
            )

    def _note(self, image: Any) -> None:
        if isinstance(image, dict):
            image_id, name = image.get("id"), image.get("file_name")
            if isinstance(image_id, int | str) and isinstance(name, str):
                self._files[image_id] = name
