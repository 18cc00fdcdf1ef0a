"""A stand-in of the CLIP score for the micro-world: which words fit, not what belongs to what."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from unified_rl.core.sample import Sample
from unified_rl.microworld.language import read
from unified_rl.microworld.scene import COLORS
from unified_rl.rewards.pictures import PictureReward
from unified_rl.rewards.sight import objects

MOST_COUNTED = 10
"""A prompt's larger numbers count as this many."""


class WorldClipReward(PictureReward):
    """How far the words of a prompt are those of its picture, in [0, 1].

    A coarse score of the whole, standing in for CLIP's: an oracle names the shape and the colour of
    each object that the verifier sees; the prompt's shapes and colours are likewise put into a bag,
    a number multiplying its own. The score is the bags' overlap, the sum of the smaller counts over
    the sum of the larger ones. Colours count only if the prompt names one.

    It does not see which colour belongs to which object, nor where anything lies: a blue circle and
    a red square satisfy "a red circle and a blue square" in full. That is the limit for which the
    paper gives CLIP up. Other tasks: outcome 0, no step scores.

    Source: CoRL 3.2 has the CLIP score, 3.3.1 says what it lacks.
    Departs: no learned model, and counts are exact, which CLIP's are not.

    Args:
        weight: factor in a hybrid reward, 0 or more.
    """

    def judge(self, samples: Sequence[Sample], pictures: Sequence[np.ndarray]) -> list[float]:
        """Overlaps in [0, 1]; a prompt that names nothing gives 0.

        Raises:
            RewardError: a picture of another size than the micro-world's.
        """
        return [_overlap(*pair) for pair in zip(samples, pictures, strict=True)]


def _overlap(sample: Sample, picture: np.ndarray) -> float:
    asked = _words_of(sample.prompt_text)
    seen = Counter(word for o in objects(sample, picture) for word in (o.shape, o.color))
    if not any(color in asked for color in COLORS):
        seen = Counter({word: count for word, count in seen.items() if word not in COLORS})
    larger = (asked | seen).total()
    return (asked & seen).total() / larger if asked else 0.0


def _words_of(text: str) -> Counter[str]:
    words: Counter[str] = Counter()
    for mention in read(text).mentions:
        count = 1 if mention.number is None else min(mention.number, MOST_COUNTED)
        for word in (mention.shape, mention.color):
            if word is not None:
                words[word] += count
    return +words
