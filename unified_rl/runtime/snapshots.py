"""The resumable checkpoints of one run: whole or absent, whatever moment a kill chooses.

000012/state.ckpt       what the strategy writes, a file or a folder
000012/manifest.json    the iteration; size and SHA-256 of every other file
000014.tmp/             being written; nothing reads it
"""

import hashlib
import json
import logging
import shutil
from pathlib import Path

from unified_rl.core import durable

STATE, MANIFEST = "state.ckpt", "manifest.json"
KEPT = 2
"""The last one, and the one before for when the last one is broken."""
_log = logging.getLogger(__name__)


class Snapshots:
    """A folder of checkpoints by iteration.

    Args:
        folder: of the run; made when first written to.
        keep_every: iterations between checkpoints that are never removed; 0 removes all but the
            last two.
    """

    def __init__(self, folder: Path, keep_every: int = 0) -> None:
        self.folder, self.keep_every = folder, keep_every

    def iterations(self) -> list[int]:
        """Of the checkpoints that there are, in rising order; whether they are whole is not asked.

        An iteration is the number of those that were finished.
        """
        if not self.folder.is_dir():
            return []
        return sorted(int(path.name) for path in self.folder.iterdir() if path.name.isdecimal())

    def state(self, iteration: int) -> Path:
        """What Lightning goes on from."""
        return self._place(iteration) / STATE

    def last_whole(self) -> int | None:
        """Iteration of the newest checkpoint that is as it was written; None where there is none.

        Broken ones are warned of.
        """
        iterations = self.iterations()[::-1]
        for index, iteration in enumerate(iterations):
            fault = self.fault(iteration)
            if fault is None:
                return iteration
            others = iterations[index + 1 :]
            way = f"trying iteration {others[0]}" if others else "starting from the beginning"
            _log.warning("%s is broken (%s); %s", self._place(iteration), fault, way)
        return None

    def fault(self, iteration: int) -> str | None:
        """What is wrong with a checkpoint; None where every byte is as it was written."""
        place = self._place(iteration)
        try:
            manifest = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
            written, said = manifest["files"], manifest["iteration"]
            if said != iteration:
                return f"{MANIFEST} speaks of iteration {said}"
            for name, (size, digest) in written.items():
                path = place / name
                if not path.is_file():
                    return f"{name} is missing"
                if path.stat().st_size != size:
                    return f"{name} has {path.stat().st_size} bytes, not {size}"
                if _sha256(path) != digest:
                    return f"{name} has another checksum"
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            return f"{MANIFEST}: {type(error).__name__}"
        return None if STATE in {Path(name).parts[0] for name in written} else f"{STATE} is missing"

    def begin(self, iteration: int) -> None:
        """Makes room for a new checkpoint, which nobody sees before `publish`."""
        beside = self._beside(iteration)
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)

    def beside(self, iteration: int) -> Path:
        """Where to write the state of a new checkpoint, after `begin`."""
        return self._beside(iteration) / STATE

    def seal(self, iteration: int) -> None:
        """Says what was written, and flushes it to the disk."""
        beside = self._beside(iteration)
        files = {
            str(path.relative_to(beside)): (path.stat().st_size, _sha256(path))
            for path in sorted(beside.rglob("*"))
            if path.is_file() and path.name != MANIFEST
        }
        manifest = {"iteration": iteration, "files": files}
        durable.write_text(beside / MANIFEST, json.dumps(manifest, indent=2) + "\n")
        durable.sync_tree(beside)

    def publish(self, iteration: int) -> None:
        """Makes a sealed checkpoint the last one, and removes those that are no longer needed.

        Later ones are removed too: the run did not go on from them, so they are broken.
        """
        if self._place(iteration).exists():
            self._discard(iteration)
        durable.put(self._beside(iteration), self._place(iteration))
        past = [number for number in self.iterations() if number <= iteration]
        for number in self.iterations():
            if number not in past[-KEPT:] and (number > iteration or not self._is_kept(number)):
                self._discard(number)

    def abandon(self, iteration: int) -> None:
        """Removes what was written of a checkpoint that failed."""
        shutil.rmtree(self._beside(iteration), ignore_errors=True)

    def clear(self) -> None:
        """Removes what a finished run needs no more: all but those of `keep_every`."""
        for number in self.iterations():
            if not self._is_kept(number):
                self._discard(number)
        self.tidy()
        if self.folder.is_dir() and not self.iterations():
            shutil.rmtree(self.folder, ignore_errors=True)

    def tidy(self) -> None:
        """Removes what a kill left half written or half removed."""
        for path in self.folder.glob("*.tmp"):
            shutil.rmtree(path, ignore_errors=True)

    def size(self) -> int | None:
        """Bytes of the last checkpoint; None where there is none."""
        iterations = self.iterations()
        if not iterations:
            return None
        files = self._place(iterations[-1]).rglob("*")
        return sum(path.stat().st_size for path in files if path.is_file())

    def _is_kept(self, iteration: int) -> bool:
        return self.keep_every > 0 and iteration % self.keep_every == 0

    def _place(self, iteration: int) -> Path:
        return self.folder / f"{iteration:06d}"

    def _beside(self, iteration: int) -> Path:
        return self.folder / f"{iteration:06d}.tmp"

    def _discard(self, iteration: int) -> None:
        """Out of sight first, so that a kill leaves no half of it under its name."""
        beside = self._beside(iteration).with_suffix(".old.tmp")
        shutil.rmtree(beside, ignore_errors=True)
        self._place(iteration).replace(beside)
        shutil.rmtree(beside, ignore_errors=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
