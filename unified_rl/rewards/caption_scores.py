"""How far a caption says what a reference says: SPICE, BERTScore, and a stand-in of SPICE."""

import importlib.util
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

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
    """BERTScore's F1, not rescaled, of the last layer, in [0, 1].

    Each token of one text is matched with the one of the other text whose state is nearest, by
    cosine, at least 0; recall is the mean over the reference's tokens, precision over the
    caption's. The tokens that open and close a text count nothing.

    Source: the released code of CoRL, which has it in SPICE's place, with bert-base-uncased;
    Zhang et al. 2020, BERTScore.
    Departs: the released code has torchmetrics, which compares the wrong texts when it is given
    three pairs or more (its release 1.9); of one pair it says the same.

    Args:
        checkpoint: folder of a text encoder, weights as safetensors.
        batch_size: texts in one pass.
        device: as torch names it.
        dtype: of the weights.

    Raises:
        CheckpointError: the folder is missing or damaged.
        ConfigError: a setting out of its range, or a device that is not there.
    """

    def __init__(
        self,
        checkpoint: str,
        batch_size: int = 64,
        device: str = "cpu",
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    ) -> None:
        from transformers import AutoModel

        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size} must be at least 1")
        setting = "caption_score.checkpoint"
        folder = require_judge(checkpoint, setting)
        self._tokenizer = load_tokenizer(folder, setting)
        self._model = load_judge(AutoModel, folder, setting, device, dtype)
        positions = getattr(self._model.config, "max_position_embeddings", 512)
        self._max_length = min(512, positions)
        self.batch_size = batch_size

    def __call__(self, references: Sequence[str], captions: Sequence[str]) -> list[float]:
        """One score a pair; 0 where one of them is blank."""
        return scores_of_told(references, captions, self._scores)

    def _scores(self, references: list[str], captions: list[str]) -> list[float]:
        states = self._states([*references, *captions])
        pairs = zip(references, captions, strict=True)
        return [_matched_f1(states[reference], states[caption]) for reference, caption in pairs]

    @torch.no_grad()
    def _states(self, texts: list[str]) -> dict[str, Tensor]:
        """The states of each text's tokens, (tokens, width) of unit length, float32."""
        once = sorted(set(texts), key=len)  # texts of like length are padded little
        found: dict[str, Tensor] = {}
        for start in range(0, len(once), self.batch_size):
            some = once[start : start + self.batch_size]
            words = self._tokenizer(
                some,
                padding=True,
                truncation=True,
                max_length=self._max_length,
                return_special_tokens_mask=True,
                return_tensors="pt",
            )
            told = (words.pop("special_tokens_mask") == 0) & (words["attention_mask"] == 1)
            states = self._model(**words.to(self._model.device)).last_hidden_state
            states = functional.normalize(states.float(), dim=-1)
            for text, own, mask in zip(some, states, told, strict=True):
                found[text] = own[mask.to(own.device)]
        return found


def _matched_f1(reference: Tensor, caption: Tensor) -> float:
    """Of states (r, width) and (c, width) of unit length; 0 where there are none."""
    if not len(reference) or not len(caption):  # a text of control characters alone, say
        return 0.0
    cosines = (reference @ caption.T).clamp(min=0)
    recall, precision = cosines.amax(1).mean().item(), cosines.amax(0).mean().item()
    together = precision + recall
    return 2 * precision * recall / together if together else 0.0


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
