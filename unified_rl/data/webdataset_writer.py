"""Writes samples as tar shards, in the layout that `webdataset` reads."""

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image as PillowImage

from unified_rl.core.sample import Image, Sample
from unified_rl.data.interleaved_row import written_pixels, written_row
from unified_rl.data.jsonl import LINE_BYTES
from unified_rl.data.quarantine import beside


def write_shard(path: Path, samples: Sequence[Sample]) -> None:
    """Writes a shard beside its place and renames it; equal samples give equal bytes.

    Args:
        path: of the shard; replaced if it exists.
        samples: in order; their ids must tell them apart in the whole data set.

    Raises:
        DataError: a sample that would not be read back: names its id.
    """
    unfinished = beside(path)
    try:
        with tarfile.open(unfinished, "w", format=tarfile.USTAR_FORMAT) as shard:
            for number, sample in enumerate(samples):
                _put(shard, f"{number:06}", sample)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _put(shard: tarfile.TarFile, key: str, sample: Sample) -> None:
    pictures: list[bytes] = []

    def name_of(image: Image) -> str:
        file = io.BytesIO()
        PillowImage.fromarray(written_pixels(image)).save(file, format="PNG")
        pictures.append(file.getvalue())
        return f"{len(pictures) - 1}.png"

    parts = {"json": written_row(sample, name_of, LINE_BYTES)}
    parts |= {f"{number}.png": content for number, content in enumerate(pictures)}
    for part, content in parts.items():
        member = tarfile.TarInfo(f"{key}.{part}")
        member.size = len(content)
        shard.addfile(member, io.BytesIO(content))
