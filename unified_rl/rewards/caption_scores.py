"""How far a caption says what a reference says: SPICE, BERTScore, and a stand-in of SPICE."""

import importlib.util
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from unified_rl.core.errors import ConfigError, RewardError
from unified_rl.microworld.language import read
from unified_rl.microworld.scene import RELATIONS, inverse
from unified_rl.rewards.local_model import load_judge, load_tokenizer, require_judge

TEXT_LIMIT = 1000
"""Characters of a text that learned and Java scores read; what follows is cut off."""
SPICE_MODELS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
"""What pycocoevalcap downloads into its folder `spice/lib` on first use."""


class SceneGraphScore:
    """F1 over what two texts of the micro-world state, in [0, 1].

    A text states the objects that it names (circle), their colours (circle, red), their numbers
    above one (circle, 3) and their relations (circle, left of, square); each counts once, wherever
    it stands, and "a right of b" is "b left of a". Unknown words count nothing. Two texts of which
    one states nothing score 0.

    A stand-in for SPICE, with its arithmetic but the micro-world's grammar as the parser, and
    without synonyms. As in SPICE, true details that the reference lacks lower the score.

    Source: Anderson et al. 2016, the F-score of SPICE.
    """

    def __call__(self, references: Sequence[str], captions: Sequence[str]) -> list[float]:
        """One score a pair."""
        pairs = zip(references, captions, strict=True)
        return [_f1(stated(reference), stated(caption)) for reference, caption in pairs]


def stated(text: str) -> frozenset[tuple[str, ...]]:
    """The tuples of a text's scene graph; see `SceneGraphScore`."""
    reading = read(text)
    found: set[tuple[str, ...]] = set()
    names = [mention.shape or "object" for mention in reading.mentions]
    for name, mention in zip(names, reading.mentions, strict=True):
        if mention.number == 0:
            continue  # "zero circles" states that there is none
        if mention.shape is not None:
            found.add((name,))
        if mention.color is not None:
            found.add((name, mention.color))
        if mention.number is not None and mention.number > 1:
            found.add((name, str(mention.number)))
    for subject, kind, other in reading.relations:
        if RELATIONS.index(kind) % 2:
            subject, kind, other = other, inverse(kind), subject
        found.add((names[subject], kind, names[other]))
    return frozenset(found)


class BertScore:
    """BERTScore's F1, not rescaled, of the last layer, in [0, 1] by torchmetrics.

    Source: the released code of CoRL, which has it in SPICE's place, with bert-base-uncased.

    Args:
        checkpoint: folder of a text encoder, weights as safetensors.
        device: as torch names it.
        dtype: of the weights.

    Raises:
        CheckpointError: the folder is missing or damaged.
        ConfigError: a device that is not there.
    """

    def __init__(
        self,
        checkpoint: str,
        device: str = "cpu",
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    ) -> None:
        from transformers import AutoModel

        setting = "caption_score.checkpoint"
        folder = require_judge(checkpoint, setting)
        self._tokenizer = load_tokenizer(folder, setting)
        self._model = load_judge(AutoModel, folder, setting, device, dtype)
        self.device = device
        positions = getattr(self._model.config, "max_position_embeddings", 512)
        self._max_length = min(512, positions)

    def __call__(self, references: Sequence[str], captions: Sequence[str]) -> list[float]:
        """One score a pair; 0 where one of them is blank."""
        return scores_of_told(references, captions, self._scores)

    def _scores(self, references: list[str], captions: list[str]) -> list[float]:
        # torchmetrics 1.9 sorts candidates and references by length, each apart, and undoes it
        # with the permutation in place of its inverse: of three pairs and more it compares the
        # wrong ones. One pair a call cannot be mixed up.
        return [self._pair(*pair) for pair in zip(references, captions, strict=True)]

    def _pair(self, reference: str, caption: str) -> float:
        from torchmetrics.functional.text.bert import bert_score

        if not (self._has_tokens(reference) and self._has_tokens(caption)):
            return 0.0
        found = bert_score(
            [caption],
            [reference],
            model=self._model,
            user_tokenizer=self._tokenizer,
            device=self.device,
            max_length=self._max_length,
            truncation=True,
        )
        # of a precision that is NaN torchmetrics makes an F1 of 0
        precision, recall, f1 = (float(found[name]) for name in ("precision", "recall", "f1"))
        return f1 if math.isfinite(precision + recall) else math.nan

    def _has_tokens(self, text: str) -> bool:
        """False for a text of control characters alone, say."""
        return bool(self._tokenizer(text, add_special_tokens=False)["input_ids"])


class SpiceScore:
    """SPICE's F-score over all tuples, in [0, 1], by the package pycocoevalcap.

    Java parses the texts, some seconds a call; 8 GB of memory are asked for. The package writes
    into its own folder and keeps parses there, so two processes must not share an installation.

    Source: CoRL 3.3.1, eq. 3; Anderson et al. 2016.

    Raises:
        ConfigError: the package, Java or the parser's models are missing; nothing is downloaded.
    """

    def __init__(self) -> None:
        missing = _missing_for_spice()
        if missing:
            raise ConfigError(f"SPICE needs {', and '.join(missing)}")
        from pycocoevalcap.spice.spice import Spice

        self._spice: Any = Spice()

    def __call__(self, references: Sequence[str], captions: Sequence[str]) -> list[float]:
        """One score a pair; 0 where one of them is blank.

        Raises:
            RewardError: the Java program failed.
        """
        return scores_of_told(references, captions, self._scores)

    def _scores(self, references: list[str], captions: list[str]) -> list[float]:
        # Integers as names: the package answers in the order of the sorted names.
        told = {row: [text] for row, text in enumerate(references)}
        said = {row: [text] for row, text in enumerate(captions)}
        try:
            _, scores = self._spice.compute_score(told, said)
        except Exception as error:  # whatever a failing Java program leads to
            reason = str(error).splitlines()[0] if str(error) else ""
            raise RewardError(
                f"SPICE failed on {len(captions)} captions ({type(error).__name__}: {reason}); "
                "it is made for Java 8 and takes 8 GB of memory"
            ) from error
        return [float(score["All"]["f"]) for score in scores]


def _missing_for_spice() -> list[str]:
    """What is not there, each with how to get it."""
    missing = []
    spec = importlib.util.find_spec("pycocoevalcap")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if not folders:
        missing.append("the package pycocoevalcap (pip install 'unified-rl[spice]')")
    if shutil.which("java") is None:
        missing.append("Java on the PATH (version 8 is the safe one)")
    libraries = [Path(folder) / "spice" / "lib" for folder in folders]
    if not any(all((lib / jar).is_file() for jar in SPICE_MODELS) for lib in libraries):
        missing.append("Stanford's parser (python -m pycocoevalcap.spice.get_stanford_models)")
    return missing


def scores_of_told(
    references: Sequence[str],
    captions: Sequence[str],
    score: Callable[[list[str], list[str]], list[float]],
) -> list[float]:
    """0 for pairs with a blank text, the others' scores in their places."""
    pairs = zip(references, captions, strict=True)
    cut = [(reference[:TEXT_LIMIT], caption[:TEXT_LIMIT]) for reference, caption in pairs]
    rows = [row for row, (a, b) in enumerate(cut) if a.strip() and b.strip()]
    values = [0.0] * len(cut)
    if rows:
        told = score([cut[row][0] for row in rows], [cut[row][1] for row in rows])
        for row, value in zip(rows, told, strict=True):
            values[row] = value
    return values


def _f1(reference: frozenset[tuple[str, ...]], caption: frozenset[tuple[str, ...]]) -> float:
    """2 matches / (tuples of both), which is the harmonic mean of precision and recall."""
    if not reference or not caption:
        return 0.0
    return 2 * len(reference & caption) / (len(reference) + len(caption))
