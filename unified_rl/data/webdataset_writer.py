"""Writes samples as tar shards, in the layout that `webdataset` reads."""

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

from PIL import Image as PillowImage

from unified_rl.core.sample import Image, Sample
from unified_rl.data.interleaved_row import written_pixels, written_row
from unified_rl.data.jsonl import LINE_BYTES
from unified_rl.data.quarantine import beside


class ShardWriter:
    """One shard, written beside its place and renamed when it is whole.

    Equal samples give equal bytes. A context: what raises leaves nothing.

    Args:
        path: of the shard; replaced if it exists.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._unfinished = path, beside(path)
        self._count = 0

    def __enter__(self) -> "ShardWriter":
        self._shard = tarfile.open(self._unfinished, "w", format=tarfile.USTAR_FORMAT)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._shard.close()
            if kind is None:
                self._unfinished.replace(self._path)
        finally:
            self._unfinished.unlink(missing_ok=True)

    def put(self, sample: Sample) -> None:
        """Writes a sample behind the others.

        Raises:
            DataError: it would not be read back: names its id. The shard stays whole.
        """
        pictures: list[bytes] = []

        def name_of(image: Image) -> str:
            file = io.BytesIO()
            PillowImage.fromarray(written_pixels(image)).save(file, format="PNG")
            pictures.append(file.getvalue())
            return f"{len(pictures) - 1}.png"

        parts = {"json": written_row(sample, name_of, LINE_BYTES)}
        parts |= {f"{number}.png": content for number, content in enumerate(pictures)}
        for part, content in parts.items():
            member = tarfile.TarInfo(f"{self._count:06}.{part}")
            member.size = len(content)
            self._shard.addfile(member, io.BytesIO(content))
        self._count += 1


def write_shard(path: Path, samples: Iterable[Sample]) -> None:
    """Writes a shard of samples, whose ids must tell them apart in the whole data set.

    Raises:
        DataError: a sample that would not be read back: names its id; `path` is left untouched.
    """
    with ShardWriter(path) as shard:
        for sample in samples:
            shard.put(sample)
