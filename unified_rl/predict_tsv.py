"""Answers a benchmark of VLMEvalKit greedily and writes the predictions that it scores.

python -m unified_rl.predict_tsv tsv=POPE.tsv checkpoint=FOLDER model=janus_pro_1b
"""

import csv
import hashlib
import io
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from unified_rl.core.errors import ConfigError, DataError
from unified_rl.runtime.cli import run

if TYPE_CHECKING:
    from unified_rl.data.benchmark_tsv import BenchmarkTsv, TsvRow
    from unified_rl.runtime.answerer import Answerer


def main(config: DictConfig) -> int:
    """Answers what is not answered yet, then writes the predictions.

    Args:
        config: composed from `conf/predict_tsv.yaml`.
    """
    from hydra.utils import instantiate

    from unified_rl.data.benchmark_tsv import BenchmarkTsv
    from unified_rl.evaluation.answer_folder import weights_digest
    from unified_rl.runtime.answerer import Answerer
    from unified_rl.runtime.open_policy import settled_device
    from unified_rl.runtime.provenance import provenance
    from unified_rl.runtime.quiet import quieten

    quieten()
    if config.token_limit < 1:
        raise ConfigError(f"token_limit={config.token_limit} must be at least 1")
    if config.checkpoint is not None:
        config.model.checkpoint = config.checkpoint
    path = Path(config.tsv)
    benchmark = BenchmarkTsv(path)
    dataset = config.dataset or path.stem
    device = settled_device(config.device)  # before the weights are read
    policy = instantiate(config.policy, _convert_="all")().eval().to(device)
    behaviour = instantiate(config.behaviour, _convert_="all")
    answerer = Answerer(policy, behaviour, config.batch_size)
    folder = Path(config.output)
    folder.mkdir(parents=True, exist_ok=True)
    card = provenance(OmegaConf.to_container(config, resolve=True), 0)
    origin = {
        "tsv": _digest(path),
        "weights": weights_digest(policy),
        "behaviour": repr(behaviour),
        "suffix": config.suffix,
        "token_limit": config.token_limit,
    }
    kept = _Kept(folder / f"progress_{dataset}.jsonl", origin)
    unanswered = _answer(benchmark, answerer, kept, config.suffix, config.token_limit)
    target = folder / f"{config.name}_{dataset}.tsv"
    count = _write(benchmark, kept, target)
    card["benchmark"] = origin | {
        "rows": count,
        "broken_rows": [list(row) for row in benchmark.broken],
        "unanswered": unanswered,
        "too_long": answerer.unasked_count,
    }
    (folder / f"provenance_{dataset}.json").write_text(json.dumps(card, indent=2) + "\n")
    print(f"{count} predictions in {target}")
    odd = len(benchmark.broken) + len(unanswered)
    if odd:
        print(f"{odd} rows could not be asked; see {folder}/provenance_{dataset}.json")
    return 0


class _Kept:
    """Predictions on disk by index, so that a killed run goes on."""

    def __init__(self, path: Path, origin: dict[str, object]) -> None:
        from unified_rl.evaluation.kept_rows import KeptRows

        self._rows = KeptRows(path, origin, ["index", "prediction"], "output")
        self.answers = {row["index"]: row["prediction"] for row in self._rows.found}

    def add(self, indices: Sequence[str], answers: Sequence[str]) -> None:
        """Keeps a batch; on return it is on the disk."""
        pairs = list(zip(indices, answers, strict=True))
        self._rows.append([{"index": index, "prediction": answer} for index, answer in pairs])
        self.answers |= dict(pairs)


def _answer(
    benchmark: "BenchmarkTsv", answerer: "Answerer", kept: _Kept, suffix: str, token_limit: int
) -> dict[str, str]:
    """Asks what is left; why some rows could not be asked, by their index."""
    from unified_rl.data.images import ImageError, read_image
    from unified_rl.data.jsonl import BrokenRowError
    from unified_rl.runtime.progress import counting

    unanswered: dict[str, str] = {}
    total = sum(1 for _ in benchmark.rows())
    if not total:
        reason = f"; row {benchmark.broken[0][0]} {benchmark.broken[0][1]}" * bool(benchmark.broken)
        raise DataError(f"the TSV holds no question that can be asked{reason}")
    with counting("predict") as progress:
        done = 0
        for batch in _batches(benchmark.rows(), answerer.batch_size):
            samples, indices = [], []
            for row in batch:
                if row.index in kept.answers:
                    continue
                try:
                    pictures = [read_image(content) for content in benchmark.images(row)]
                    samples.append(answerer.question(row.index, row.prompt(suffix), pictures))
                    indices.append(row.index)
                except (BrokenRowError, ImageError) as error:
                    unanswered[row.index] = str(error)
            kept.add(indices, list(answerer.answer(samples, token_limit)))
            done += len(batch)
            progress(done, total)
    return unanswered


def _batches(rows: Iterator["TsvRow"], size: int) -> Iterator[list["TsvRow"]]:
    batch: list[TsvRow] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _write(benchmark: "BenchmarkTsv", kept: _Kept, target: Path) -> int:
    """Every good row without its image, with its prediction ("" where there is none)."""
    columns = [name for name in benchmark.columns if name != "image"]
    buffer = io.StringIO(newline="")
    # all in quotes: Python 3.11 leaves a carriage return bare, which readers take for a line end
    writer = csv.writer(buffer, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow([*columns, "prediction"])
    count = 0
    for row in benchmark.rows():
        answer = kept.answers.get(row.index, "")
        writer.writerow([*(row.cells[name] for name in columns), answer])
        count += 1
    beside = target.with_name(f".{target.name}.tmp")
    beside.write_text(buffer.getvalue(), encoding="utf-8", newline="")
    beside.replace(target)
    return count


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


if __name__ == "__main__":
    sys.exit(run(main, "predict_tsv", __doc__))
