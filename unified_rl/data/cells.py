"""What the cells of a table hold: texts and images, within bounds."""

from pathlib import Path
from typing import Any

from PIL import Image as PillowImage

from unified_rl.data.images import ImageError, check_size, path_inside, read_image, to_rgb
from unified_rl.data.jsonl import BrokenRowError


def text_of(value: Any, name: str, max_length: int) -> str:
    """The text of a cell, white space at its ends left out.

    Args:
        value: of the cell; None where there is none.
        name: of its column.
        max_length: most characters.

    Raises:
        BrokenRowError: no text, an empty or too long one, or half of a surrogate pair.
    """
    if value is None:
        raise BrokenRowError(f"has no {name!r}")
    if not isinstance(value, str):
        raise BrokenRowError(f"{name!r} is a {type(value).__name__}, not a text")
    if len(value) > max_length:
        raise BrokenRowError(f"{name!r} has {len(value)} characters, over {max_length}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BrokenRowError(f"{name!r} is not Unicode: {error.reason}") from error
    if not value.strip():
        raise BrokenRowError(f"{name!r} is empty")
    return value.strip()


def image_of(
    value: Any, name: str, folder: Path | None, allow_absolute: bool = False
) -> PillowImage.Image:
    """The image of a cell as RGB.

    Args:
        value: the content of an image file; the path of one; `{"bytes": .., "path": ..}` as the
            `datasets` library stores images, where bytes go before the path; a picture of Pillow;
            or a list of one of them.
        name: of its column.
        folder: that paths are relative to and cannot leave; None refuses paths.
        allow_absolute: whether absolute paths inside `folder` will do.

    Raises:
        BrokenRowError: none of these, or an image that `images.read_image` refuses.
    """
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, dict) and value and value.keys() <= {"bytes", "path"}:
        content = value.get("bytes")
        value = value.get("path") if content is None else content
    if value is None:
        raise BrokenRowError(f"has no {name!r}")
    label = repr(name)
    try:
        if isinstance(value, bytes):
            return read_image(value)
        if isinstance(value, PillowImage.Image):
            return _converted(value)
        if isinstance(value, str):
            label = f"{name!r} {value[:100]!r}"
            return read_image(_file(value, folder, allow_absolute))
    except ImageError as error:
        raise BrokenRowError(f"{label} {error}") from error
    many = f" of {len(value)}" if isinstance(value, list) else ""
    raise BrokenRowError(f"{name!r} is a {type(value).__name__}{many}, not one image")


def _converted(picture: PillowImage.Image) -> PillowImage.Image:
    check_size(*picture.size)
    try:  # an opened picture is decoded when it is first looked at
        picture.load()
    except Exception as error:  # decoders raise whatever they like
        raise ImageError(f"is truncated or damaged: {error}") from error
    return to_rgb(picture)


def _file(name: str, folder: Path | None, allow_absolute: bool) -> Path:
    if folder is None:
        raise ImageError("is the path of a file, but the table has no folder; set image_root")
    if allow_absolute and Path(name).is_relative_to(folder.absolute()):
        name = str(Path(name).relative_to(folder.absolute()))
    return path_inside(folder, name)
