"""Image files of any mode and size, read within bounds, as the square pixels that a policy takes.

Read: PNG, JPEG and WebP of one frame, up to `IMAGE_BYTES` and `IMAGE_PIXELS`; greys of 16 bits keep
their upper eight; what is transparent becomes white; a photograph is turned as its EXIF says.
"""

import io
import warnings
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Literal

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageOps, UnidentifiedImageError

from unified_rl.core.errors import ConfigError, nearest

IMAGE_PIXELS = 64 * 10**6
"""A larger image is refused by its header, before it is decoded."""
IMAGE_BYTES = 4 * IMAGE_PIXELS
"""A larger file is refused unopened; four channels of `IMAGE_PIXELS` need no more."""
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP")
EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
SIXTEEN_BIT_MODES = ("I;16", "I;16B", "I;16L", "I;16N")
PADDING = (127, 127, 127)
SHORTEST_PADDED = 14
"""Pixels that the shorter side keeps under padding, however long the other is."""
STRIP = 64
"""How many times as long as wide an image may be before its ends are cut unscaled."""

_BICUBIC = PillowImage.Resampling.BICUBIC


class ImageError(ValueError):
    """What is wrong with an image: a clause to put behind its name."""


def read_image(source: Path | bytes) -> PillowImage.Image:
    """An image file, or the content of one, as RGB.

    Raises:
        ImageError: no such file, of another format, animated, too large, of a mode without a known
            range, or damaged.
    """
    check_header(source)
    try:
        with PillowImage.open(_opened(source), formats=IMAGE_FORMATS) as opened:
            return to_rgb(opened)
    except Exception as error:  # decoders raise whatever they like
        raise ImageError(f"is truncated or damaged: {error}") from error


def check_header(source: Path | bytes) -> str:
    """Reads no more than the header of a file or of its content; the mode that it names.

    Raises:
        ImageError: see `read_image`; damage behind the header is not noticed.
    """
    try:
        if _byte_count(source) > IMAGE_BYTES:
            raise ImageError(f"is over {IMAGE_BYTES} bytes; scale it down")
        with warnings.catch_warnings():
            warnings.simplefilter("error", PillowImage.DecompressionBombWarning)
            with PillowImage.open(_opened(source), formats=IMAGE_FORMATS) as image:
                (width, height), mode = image.size, image.mode
                # the further pictures in a camera's JPEG (MPO) are previews and other views of it
                frame_count = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError("is unreadable; save it as PNG, JPEG or WebP") from error
    except (PillowImage.DecompressionBombError, PillowImage.DecompressionBombWarning) as error:
        raise ImageError(f"is over {IMAGE_PIXELS} pixels; scale it down") from error
    except Exception as error:  # decoders raise whatever they like
        raise ImageError(f"is unreadable: {error}") from error
    check_size(width, height)
    if frame_count > 1:
        raise ImageError(f"is an animation of {frame_count} frames; save one of them")
    _check_mode(mode)
    return mode


def check_size(width: int, height: int) -> None:
    """Raises ImageError for an image with no pixels or with more than `IMAGE_PIXELS`."""
    if width * height > IMAGE_PIXELS:
        raise ImageError(f"of {width} x {height} is over {IMAGE_PIXELS} pixels; scale it down")
    if not width * height:
        raise ImageError(f"of {width} x {height} has no pixels")


def to_rgb(image: PillowImage.Image) -> PillowImage.Image:
    """Upright RGB over white.

    Raises:
        ImageError: a mode whose range is not known.
    """
    _check_mode(image.mode)
    image = ImageOps.exif_transpose(image)
    if image.mode in SIXTEEN_BIT_MODES:
        image = PillowImage.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = PillowImage.alpha_composite(PillowImage.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def fit(
    image: PillowImage.Image, size: int, how: Literal["crop", "pad", "stretch"] = "crop"
) -> np.ndarray:
    """Square RGB pixels, uint8 of shape (size, size, 3), scaled bicubically.

    A strip of one by millions of pixels takes no more memory than it has itself.

    Args:
        image: of any mode that `to_rgb` takes.
        size: side in pixels.
        how: "crop" scales the shorter side to `size` and cuts the longer about its centre (Show-o);
            "pad" scales the longer side and fills the rest with grey (Janus); "stretch" gives the
            proportions up (VILA-U).

    Raises:
        ImageError: a mode whose range is not known.
        ConfigError: another `how`.

    Source: the authors' preprocessing of the families named.
    """
    check_fit(how)
    return np.array(_RULES[how](to_rgb(image), size))


def check_fit(how: str, setting: str = "image_fit") -> None:
    """Raises ConfigError for a rule that `fit` does not know, under the name of its setting."""
    if how not in _RULES:
        raise ConfigError(f"{setting}={how!r} is not a rule; {nearest(how, _RULES)}")


def path_inside(root: Path, name: str) -> Path:
    """The file `name` in the folder `root`, from which no name leads out.

    Raises:
        ImageError: an absolute path, one that leads out of `root`, or no file.
    """
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    if posix.is_absolute() or windows.drive or windows.root or ".." in windows.parts:
        raise ImageError("is not a path inside image_root")
    try:
        path = root / name
        inside = path.resolve().is_relative_to(root.resolve())  # symbolic links
        if inside and path.is_file():
            return path
    except (OSError, ValueError) as error:
        # an OSError's text repeats the name, however long
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"cannot be opened: {reason}") from error
    raise ImageError("does not exist" if inside else "leads out of image_root")


def _opened(source: Path | bytes) -> Path | io.BytesIO:
    return io.BytesIO(source) if isinstance(source, bytes) else source


def _byte_count(source: Path | bytes) -> int:
    if isinstance(source, bytes):
        return len(source)
    if not source.is_file():
        raise ImageError("is a folder or device" if source.exists() else "does not exist")
    return source.stat().st_size


def _check_mode(mode: str) -> None:
    if mode not in EIGHT_BIT_MODES + SIXTEEN_BIT_MODES:
        raise ImageError(f"of mode {mode} has no known range; save it with 8 bits a channel")


def _stretch(image: PillowImage.Image, size: int) -> PillowImage.Image:
    return image.resize((size, size), _BICUBIC)


def _crop(image: PillowImage.Image, size: int) -> PillowImage.Image:
    shorter = min(image.size)
    image = _middle(image, *(min(side, STRIP * shorter) for side in image.size))
    scaled = image.resize([size * side // shorter for side in image.size], _BICUBIC)
    return _middle(scaled, size, size)


def _middle(image: PillowImage.Image, width: int, height: int) -> PillowImage.Image:
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


def _pad(image: PillowImage.Image, size: int) -> PillowImage.Image:
    longer, shortest = max(image.size), min(SHORTEST_PADDED, size)
    scaled = [max(int(side / longer * size), shortest) for side in image.size]
    square = PillowImage.new("RGB", (size, size), PADDING)
    square.paste(image.resize(scaled, _BICUBIC), tuple((size - side) // 2 for side in scaled))
    return square


_RULES = {"crop": _crop, "pad": _pad, "stretch": _stretch}
