"""A scene-graph score of any captions, without Java: a published T5 parses, SPICE's F1 compares."""

import functools
import re
from collections.abc import Sequence
from typing import Literal

import torch

from unified_rl.core.errors import ConfigError
from unified_rl.rewards.caption_scores import scores_of_told
from unified_rl.rewards.local_model import load_judge, load_tokenizer, require_judge
from unified_rl.rewards.nouns import Words, nouns

PREFIX = "Generate Scene Graph: "
"""What the published parsers were trained to read before a sentence."""
SENTENCE_TOKENS = 64
"""Of a sentence the parser reads so many."""
MOST_SENTENCES = 8
"""Of a text; the parser was trained on single sentences, so each is parsed apart."""

Tuple = tuple[str, ...]
Graph = frozenset[Tuple]


class ParsedSceneGraphScore:
    """F1 over the objects, attributes and relations that two texts state, in [0, 1].

    A graph's tuples are its objects (dog), their attributes and numbers (dog, brown), (dogs, 2),
    and their relations (dog, on, sofa), each once. A tuple of the caption matches one of the
    reference that is alike in each place; objects are alike in singular and plural and under
    everyday synonyms, see `nouns`. Two texts of which one states nothing score 0. As in SPICE,
    true details that the reference lacks lower the score.

    Source: CoRL 3.3.1, eq. 3; Anderson et al. 2016, SPICE; Li et al. 2023, FACTUAL, the parser.
    Departs: SPICE parses with Stanford's CoreNLP and rules, in Java, and takes WordNet's synsets
    for synonyms of every word; here a T5 parses, and only objects have synonyms, of a short list.
    Scores of the two are alike in kind and not comparable in value. The parser's own code ends a
    search once as many graphs as beams are finished, which can cut a graph short; here it goes on.

    Args:
        checkpoint: folder of lizhuang144/flan-t5-base-VG-factual-sg or a like T5, weights as
            safetensors.
        beam_count: beams of the search; 5 is the parser's own default, 1 is faster.
        max_new_tokens: limit of a sentence's graph; what is cut off states nothing.
        batch_size: sentences in one pass.
        device: as torch names it.
        dtype: of the weights. T5 overflows in float16.

    Raises:
        CheckpointError: the folder is missing, damaged or of another model.
        ConfigError: a setting out of its range.
    """

    def __init__(
        self,
        checkpoint: str,
        beam_count: int = 5,
        max_new_tokens: int = 128,
        batch_size: int = 32,
        device: str = "cpu",
        dtype: Literal["float32", "bfloat16"] = "float32",
    ) -> None:
        from transformers import T5ForConditionalGeneration

        counts = {"beam_count": beam_count, "max_new_tokens": max_new_tokens}
        for name, value in {**counts, "batch_size": batch_size}.items():
            if value < 1:
                raise ConfigError(f"{name}={value} must be at least 1")
        if dtype == "float16":
            raise ConfigError("dtype='float16' overflows in T5; use bfloat16 or float32")
        setting = "caption_score.checkpoint"
        folder = require_judge(checkpoint, setting, "t5")
        self._tokenizer = load_tokenizer(folder, setting)
        self._model = load_judge(T5ForConditionalGeneration, folder, setting, device, dtype)
        self.beam_count = beam_count
        self.max_new_tokens = max_new_tokens
        self.batch_size = batch_size

    def __call__(self, references: Sequence[str], captions: Sequence[str]) -> list[float]:
        """One score a pair; 0 where one of them is blank."""
        return scores_of_told(references, captions, self._scores)

    def graphs(self, texts: Sequence[str]) -> list[Graph]:
        """What each text states; sentences that several texts share are parsed once."""
        split = [_sentences(text) for text in texts]
        once = list(dict.fromkeys(sentence for own in split for sentence in own))
        parsed: dict[str, Graph] = {}
        for start in range(0, len(once), self.batch_size):
            some = once[start : start + self.batch_size]
            parsed |= dict(zip(some, map(read_graph, self._parse(some)), strict=True))
        return [frozenset().union(*(parsed[sentence] for sentence in own)) for own in split]

    def _scores(self, references: list[str], captions: list[str]) -> list[float]:
        graphs = self.graphs([*references, *captions])
        pairs = zip(graphs[: len(references)], graphs[len(references) :], strict=True)
        return [graph_f1(reference, caption) for reference, caption in pairs]

    @torch.no_grad()
    def _parse(self, sentences: Sequence[str]) -> list[str]:
        # a T5 takes a written "</s>" for the end of its text
        shown = [PREFIX + re.sub("[<>]", " ", sentence) for sentence in sentences]
        words = self._tokenizer(
            shown,
            padding=True,
            truncation=True,
            max_length=SENTENCE_TOKENS,
            return_tensors="pt",
        ).to(self._model.device)
        ids = self._model.generate(
            input_ids=words["input_ids"],
            attention_mask=words["attention_mask"],
            max_new_tokens=self.max_new_tokens,
            num_beams=self.beam_count,
            do_sample=False,
            early_stopping=False,
        )
        return self._tokenizer.batch_decode(ids, skip_special_tokens=True)


def read_graph(written: str) -> Graph:
    """The tuples of a graph as the parser writes it, such as "( dog , on , sofa )".

    "( dog , is , brown )" is an attribute, "( dog )" an object. What stands in no pair of brackets
    is left out, such as a last fact that was cut off.
    """
    found: set[Tuple] = set()
    for fact in re.findall(r"\(([^()]*)\)", written.lower()):
        parts = [" ".join(part.split()) for part in fact.split(",")]
        if not all(parts):
            continue
        subject, *middle, last = parts[0], *parts[1:-1], parts[-1]
        found.add((subject,))
        if middle in ([], ["is"]):
            if len(parts) > 1:
                found.add((subject, last))
        else:
            found |= {(last,), (subject, " ".join(middle), last)}
    return frozenset(found)


def graph_f1(reference: Graph, caption: Graph) -> float:
    """2 matches / (tuples of both); each tuple matches at most one, equal ones first."""
    if not reference or not caption:
        return 0.0
    equal = reference & caption
    left = sorted(reference - equal)
    matches = len(equal)
    for told in sorted(caption - equal):
        like = next((other for other in left if _alike(told, other)), None)
        if like is not None:
            left.remove(like)
            matches += 1
    return 2 * matches / (len(reference) + len(caption))


def _alike(a: Tuple, b: Tuple) -> bool:
    """Whether two tuples differ at most in how they name their objects."""
    if len(a) != len(b) or a[1:2] != b[1:2]:
        return False
    return all(_same_object(one, other) for one, other in zip(a[::2], b[::2], strict=True))


def _same_object(a: str, b: str) -> bool:
    return a == b or _words(a) in _ways(b) or _words(b) in _ways(a)


def _words(name: str) -> Words:
    return tuple(re.findall(r"[a-z0-9]+", name))


@functools.lru_cache(maxsize=4096)
def _ways(name: str) -> frozenset[Words]:
    """How an object may be named, by words."""
    return frozenset(nouns((name,)))


def _sentences(text: str) -> list[str]:
    parts = (part.strip() for part in re.split(r"(?<=[.!?;])\s|\n", text))
    return [part for part in parts if part][:MOST_SENTENCES]
