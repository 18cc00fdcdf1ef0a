"""What all families share: layout of prompts, interleaved sampling, encoding, replay, decoding."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedTokenizerBase

from unified_rl.core.behaviour import TEACHER, Behaviour
from unified_rl.core.errors import CapabilityError, ConfigError
from unified_rl.core.protocols import Capabilities, TokenStates
from unified_rl.core.sample import Completion, DrawnImage, Image, Sample, Segment, Task, Text
from unified_rl.core.trajectory import Modality, Trajectory
from unified_rl.decoding.cache import KeptCache, PrefixCache
from unified_rl.decoding.decoder import Decoder, LibraryDecoder
from unified_rl.decoding.interleaved import columns_needed, interleave
from unified_rl.decoding.sampling import log_distribution
from unified_rl.decoding.session import Session
from unified_rl.decoding.support import unpack
from unified_rl.decoding.tape import Columns, Kind, Tape, causal_visibility, stack
from unified_rl.models.lean_logprobs import score_in_parts
from unified_rl.models.pictures import (
    as_pixels,
    drawn_images,
    shown_images,
    target_codes,
    to_uint8,
)
from unified_rl.models.soft_images import redrawn_codes, soft_images
from unified_rl.models.states import find_places, hidden_states
from unified_rl.models.targets import check_target
from unified_rl.models.template import Shown, Start, Template, Words

CODEC_IMAGES = 16
"""Images that a codec encodes or decodes in one pass, whose feature maps are large."""
DRAWING_TASKS = (Task.TEXT_TO_IMAGE, Task.INTERLEAVED)
"""Those whose answers may hold images; the answers of the others hold none."""


class UnifiedPolicy(nn.Module):
    """A `Policy` over the hooks that a family fills in.

    Text is always next-token. How an image is drawn and scored is the family's: see
    `next_position.NextPositionPolicy` for families that draw codes in reading order and
    `mask_predict.MaskPredictPolicy` for those that uncover them over a few steps.

    Args:
        tokenizer: text tokenizer that knows every token of `template`.
        template: how a prompt is laid out.
        capabilities: what the family declares.
    """

    closes_images: bool = False
    """Whether an image has an end token even where nothing may follow it."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, template: Template, capabilities: Capabilities
    ) -> None:
        super().__init__()
        self.tokenizer, self.template, self.capabilities = tokenizer, template, capabilities
        self.image_positions = capabilities.image_positions
        self.begin_of_image_id = self._token_id(template.begin_of_image)
        self.end_of_image_id = self._token_id(template.end_of_image)
        self.end_of_text_id = self._token_id(template.end_of_text)
        self.image_trigger_id = self._token_id(template.image_trigger)
        self.pad_id = self._token_id(template.pad)
        self.start_id = self._token_id(template.start)
        self.register_buffer("allowed_text", self._allowed_text(), persistent=False)

    # -- hooks of a family ---------------------------------------------------------------------

    @property
    @abstractmethod
    def text_vocabulary_size(self) -> int:
        """Width of `text_logits`."""

    @abstractmethod
    def embed_text(self, ids: Tensor) -> Tensor:
        """(...,) text ids -> (..., width)."""

    @abstractmethod
    def embed_codes(self, codes: Tensor) -> Tensor:
        """(..., D) codes of a drawn image -> (..., width)."""

    @abstractmethod
    def embed_pixels(self, pixels: Tensor) -> Tensor:
        """(n, 3, H, W) shown images -> (n, positions, width)."""

    @abstractmethod
    def text_logits(self, hidden: Tensor) -> Tensor:
        """(..., width) -> (..., V)."""

    @abstractmethod
    def new_cache(self, columns: int) -> PrefixCache:
        """An empty cache of the language model."""

    @abstractmethod
    def backbone(
        self, embeds: Tensor, mask: Tensor, positions: Tensor, cache: Cache | None
    ) -> Tensor:
        """(B, n, width) -> (B, n, width) under a (B, 1, n, columns) bool mask."""

    @abstractmethod
    def encode_images(self, pixels: Tensor) -> Tensor:
        """(n, 3, H, W) -> (n, positions, D) codes; no gradient."""

    @abstractmethod
    def decode_images(self, codes: Tensor) -> Tensor:
        """(n, positions, D) codes -> (n, 3, H, W) in the range of `pixels`; no gradient."""

    @abstractmethod
    def draw_image(self, session: Session, rows: Tensor, closing: Tensor, segment: Tensor) -> None:
        """Pushes one image for the given rows, with its begin token.

        Its end token follows for the rows in `closing`, which write on, or for all rows where the
        family `closes_images`.
        """

    @abstractmethod
    def logprobs(self, trajectory: Trajectory) -> Tensor:
        """Scores every action again; see `Policy.logprobs`."""

    @abstractmethod
    def parameter_groups(self) -> Mapping[str, tuple[nn.Module, ...]]:
        """All modules with weights, each in one group; `adapter.GROUPS` names the groups.

        A family may lack a group, but not "codec". "language_model" opens with the list of blocks.
        """

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Writes weights, configuration and tokenizer into an existing folder."""

    @abstractmethod
    def relaxed_states(
        self, drawn: Trajectory, generators: Sequence[torch.Generator]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Reads the one image of each row again, as in training.

        Args:
            drawn: text-to-image rows.
            generators: one a row, for families that draw masks.

        Returns:
            states (B, N, width) that predict each position, its codes (B, N, D), and (B, N) bool,
            which positions were to be predicted.
        """

    @abstractmethod
    def image_logits(self, states: Tensor, codes: Tensor) -> Tensor:
        """(R, D, K) logits of given codes (R, D), each given those of the depths before it."""

    @abstractmethod
    def redraw_codes(self, states: Tensor, generator: torch.Generator) -> Tensor:
        """(R, width) -> (R, D) codes from the plain distribution."""

    @abstractmethod
    def code_table(self, depth: int) -> Tensor:
        """(K, E): what stands for each code of a depth before `embed_code_vectors`."""

    @abstractmethod
    def embed_code_vectors(self, vectors: Tensor) -> Tensor:
        """(B, N, D, E) rows of the code tables -> (B, P, width), as a shown image."""

    def export(self, original: Path, destination: Path) -> tuple[str, ...]:
        """Writes the weights as the authors of the family lay them out.

        Args:
            original: the authors' checkpoint that the policy was trained from.
            destination: folder to write; an existing one is replaced once the new one is whole.

        Returns:
            Names of `parameter_groups` that have folders of their own there and are not written.

        Raises:
            CheckpointError: the original does not fit the policy, or writing failed.
        """
        raise CapabilityError(f"{type(self).__name__} has no layout of its authors to export to")

    def text_rows(self) -> tuple[nn.Module, nn.Module]:
        """The embeddings of text tokens and the head that chooses them."""
        raise CapabilityError(f"{type(self).__name__} cannot take new words")

    def grow_text(self, count: int) -> None:
        """Appends so many rows to both of `text_rows`, 0 or more; they are to be filled."""
        raise CapabilityError(
            f"{type(self).__name__} cannot take new words; choose a model of another family, or "
            "policy.words=null"
        )

    def new_decoder(self, columns: int) -> Decoder:
        """What reads the columns of one decoding session."""
        return LibraryDecoder(self.backbone, self.new_cache(columns))

    def code_embedder(self, count: int) -> Callable[[Tensor], Tensor]:
        """What embeds about `count` positions of drawn images, one after another."""
        return self.embed_codes

    @property
    def context_length(self) -> int | None:
        """Greatest number of columns of one row; None where the family has no limit."""
        return None

    @property
    def shown_positions(self) -> int:
        """Columns of an image that a prompt shows; by default those of a drawn one."""
        return self.image_positions

    def visibility(self, kind: Tensor, segment: Tensor, start: int) -> Tensor:
        """(B, C - start, C) bool: what the columns from `start` on may look at.

        Causal unless the family says otherwise. `kind` and `segment` are (B, C).
        """
        return causal_visibility(kind, start)

    def fit_prompt(self, columns: Columns, task: Task) -> Columns:
        """The prompt as the family cuts it; whole, unless the family says otherwise."""
        return columns

    def choose_targets(
        self, tape: Tape, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Which of the gold tokens are actions, and what else replay needs to know."""
        return tape.action_mask, {}

    # -- the Policy protocol -------------------------------------------------------------------

    @torch.no_grad()
    def sample(
        self, samples: Sequence[Sample], behaviour: Behaviour, generator: torch.Generator
    ) -> tuple[Trajectory, tuple[Completion, ...]]:
        """Draws one completion for each sample; see `Policy.sample`.

        Raises:
            ConfigError: a prompt and its longest answer are longer than the context.
        """
        trajectory, finished = self.draw(samples, behaviour, generator)
        return trajectory, self.completions(trajectory, finished.tolist())

    @torch.no_grad()
    def draw(
        self, samples: Sequence[Sample], behaviour: Behaviour, generator: torch.Generator
    ) -> tuple[Trajectory, Tensor]:
        """The tokens of a completion for each sample, and (B,) bool, which were not cut off.

        Raises:
            ConfigError: see `sample`.
        """
        rows = [self._prompt_columns(sample) for sample in samples]
        for sample, row in zip(samples, rows, strict=True):
            self._require_room(sample, len(row.ids), self.longest_answer(sample.task, behaviour))
        tape = self._tape(rows, shown_images(self, samples), left=True)
        tasks = [sample.task for sample in samples]
        columns = self.columns_of_batch(tasks, behaviour)
        draws = torch.tensor([task in DRAWING_TASKS for task in tasks], device=self.device)
        same_as = self._same(samples)
        session = Session(self, tape, behaviour, generator, columns, draws, same_as)
        starts_with_image = [task == Task.TEXT_TO_IMAGE for task in tasks]
        may_continue = [task == Task.INTERLEAVED for task in tasks]
        finished = interleave(
            session,
            torch.tensor(starts_with_image, device=self.device),
            torch.tensor(may_continue, device=self.device),
        )
        return session.trajectory(), finished

    def encode(
        self,
        samples: Sequence[Sample],
        generator: torch.Generator,
        unconditional: Tensor | None = None,
    ) -> Trajectory:
        """The gold targets as a trajectory; see `Policy.encode`.

        Raises:
            ConfigError: a prompt and its target are longer than the context.
        """
        codes = iter(target_codes(self, samples))
        rows = [self._target_columns(sample, codes) for sample in samples]
        for sample, row in zip(samples, rows, strict=True):
            self._require_room(sample, len(row.ids), 0)
        tape = self._tape(rows, shown_images(self, samples))
        if unconditional is not None and bool(unconditional.any()):
            tape = self._hide_text(tape, unconditional.to(self.device), samples)
        action_mask, extra = self.choose_targets(tape, generator)
        modality = torch.where(tape.kind == Kind.CODE, int(Modality.IMAGE), int(Modality.TEXT))
        logprobs = torch.zeros(action_mask.shape, device=self.device)
        fields = tape._replace(action_mask=action_mask)._asdict()
        return Trajectory(
            TEACHER, logprobs, action_mask, modality, tape.segment, {**fields, **extra}
        )

    def states(
        self, samples: Sequence[Sample], layer: int | Literal["embeddings"]
    ) -> tuple[TokenStates, ...]:
        """Hidden states of prompts that show an image; see `Represents.states`."""
        rows = [self._prompt_columns(sample) for sample in samples]
        for sample, row in zip(samples, rows, strict=True):
            self._require_room(sample, len(row.ids), 0)
        places = [find_places(self, sample, row) for sample, row in zip(samples, rows, strict=True)]
        hidden = hidden_states(self, self._tape(rows, shown_images(self, samples)), layer)
        return tuple(
            TokenStates(*(states[place] for place in own))
            for states, own in zip(hidden, places, strict=True)
        )

    def drawn_images(self, trajectory: Trajectory) -> tuple[DrawnImage, ...]:
        """The one image of each text-to-image row, as the codes it was drawn with."""
        return drawn_images(self, trajectory)

    def own_pictures(
        self, trajectory: Trajectory, completions: Sequence[Completion]
    ) -> tuple[Image | DrawnImage, ...]:
        """What a question about the policy's own drawings shows; see `Policy.own_pictures`."""
        if self.capabilities.shared_image_tokens:
            return self.drawn_images(trajectory)
        return tuple(Image(completion.images[0]) for completion in completions)

    def soft_images(
        self, drawn: Trajectory, temperature: float, seeds: Tensor, codes: Tensor | None = None
    ) -> Tensor:
        """The one image of each row with a gradient to its logits; see `DrawsSoftly`."""
        return soft_images(self, drawn, temperature, seeds, codes)

    def redraw(self, drawn: Trajectory, seeds: Tensor) -> tuple[Tensor, tuple[Completion, ...]]:
        """Other codes from the same logits, and the images; see `DrawsSoftly`."""
        codes = redrawn_codes(self, drawn, seeds)
        images = [image for part in codes.split(CODEC_IMAGES) for image in self._drawn(part)]
        return codes, tuple(Completion((Image(image),), True) for image in images)

    def _same(self, samples: Sequence[Sample]) -> Tensor:
        """(B,) int64: for each row the first one of the very same sample, as in a group."""
        first: dict[int, int] = {}
        rows = [first.setdefault(id(sample), row) for row, sample in enumerate(samples)]
        return torch.tensor(rows, device=self.device)

    def longest_answer(self, task: Task, behaviour: Behaviour) -> int:
        """Most tokens that an answer can take."""
        if task == Task.TEXT_TO_IMAGE:
            return self.image_positions + 2  # and its borders
        images = behaviour.max_image_count if task == Task.INTERLEAVED else 0
        return columns_needed(self, behaviour.max_text_tokens, images)

    def columns_of_batch(self, tasks: Sequence[Task], behaviour: Behaviour) -> int:
        """Most tokens that answers drawn at once can take, by their tasks.

        As rows take turns to write and to draw, a mixed batch needs columns for both.
        """
        if Task.INTERLEAVED in tasks:
            return self.longest_answer(Task.INTERLEAVED, behaviour)
        if set(tasks) == {Task.TEXT_TO_IMAGE}:
            return self.longest_answer(Task.TEXT_TO_IMAGE, behaviour)
        images = int(Task.TEXT_TO_IMAGE in tasks)
        return columns_needed(self, behaviour.max_text_tokens, images)

    # -- shared machinery ----------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.allowed_text.device

    def read(self, tape: Tape, kept: KeptCache | None = None) -> Tensor:
        """(B, C, width): hidden states of a whole tape in one pass, which `kept` keeps."""
        features = self.image_features(tape.shown) if tape.shown.shape[1] else None
        embeds = self.embed(tape.ids, tape.kind, features)
        mask = self.visibility(tape.kind, tape.segment, 0)[:, None]
        return self.backbone(embeds, mask, tape.positions, kept)

    def codes_of(self, pixels: Tensor) -> Tensor:
        """(n, 3, H, W) -> (n, positions, D) codes, `CODEC_IMAGES` images at a time."""
        return torch.cat([self.encode_images(part) for part in pixels.split(CODEC_IMAGES)])

    def image_features(self, shown: Tensor) -> Tensor:
        """Pixels, codes or embeddings as in `Tape.shown` -> (B, M * positions, width)."""
        batch, count = shown.shape[:2]
        if shown.dim() == 5:
            shown = self.embed_pixels(shown.flatten(0, 1))
        elif not shown.is_floating_point():
            shown = self.embed_codes(shown)
        return shown.reshape(batch, count * self.shown_positions, -1)

    def embed(self, ids: Tensor, kind: Tensor, features: Tensor | None) -> Tensor:
        """(B, n, D) ids by their (B, n) kinds -> (B, n, width)."""
        is_code = (kind == Kind.CODE)[..., None]
        embeds = self.embed_text(torch.where(is_code, 0, ids)[..., 0])
        if bool(is_code.any()):
            embeds = torch.where(is_code, self.embed_codes(torch.where(is_code, ids, 0)), embeds)
        if features is not None:
            is_pixel = kind == Kind.PIXEL
            index = (is_pixel.cumsum(1) - 1).clamp_min(0)[..., None].expand(*kind.shape, 1)
            shown = features.gather(1, index.expand(-1, -1, features.shape[-1]))
            embeds = torch.where(is_pixel[..., None], shown.to(embeds.dtype), embeds)
        return embeds

    def nullify(self, ids: Tensor, kind: Tensor) -> tuple[Tensor, Tensor]:
        """(B, n) ids and kinds of columns in the unconditional twin.

        Drawn images, borders of images and start tokens stay; everything else becomes padding that
        is read as text, or is left out where the template lays the twin out by itself.
        """
        keep = [self.start_id, self.begin_of_image_id, self.end_of_image_id]
        first = ids[..., 0]
        hidden = (kind == Kind.TEXT) & ~torch.isin(first, first.new_tensor(keep))
        hidden |= kind == Kind.PIXEL
        stand_in = Kind.TEXT if self.template.unconditional is None else Kind.PAD
        return (
            torch.where(hidden, self.pad_id, first),
            torch.where(hidden, int(stand_in), kind),
        )

    def text_log_distribution(
        self, hidden: Tensor, behaviour: Behaviour, support: Tensor | None = None
    ) -> Tensor:
        """(R, width) -> (R, V) log-probabilities of the next text token."""
        allowed = self.allowed_text if behaviour.constrained else None
        return log_distribution(self.text_logits(hidden), behaviour.text, allowed, support)

    def _text_logprobs(self, trajectory: Trajectory, tape: Tape, hidden: Tensor) -> Tensor:
        rows, columns = trajectory.mask_of(Modality.TEXT)[..., 0].nonzero(as_tuple=True)
        support, width = trajectory.tape.get("text_support"), self.text_vocabulary_size

        def score(states: Tensor, ids: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
            kept = None if support is None else unpack(support[rows, columns], width)
            log_probs = self.text_log_distribution(states, trajectory.behaviour, kept)
            return log_probs.gather(-1, ids[:, None]).squeeze(-1)

        # a token is predicted by the state before it
        fields = hidden[rows, columns - 1], tape.ids[rows, columns, 0], rows, columns
        chosen = score_in_parts(score, fields, width)
        result = torch.zeros_like(trajectory.logprobs)
        return result.index_put((rows, columns, torch.zeros_like(rows)), chosen)

    def completions(
        self, trajectory: Trajectory, finished: Sequence[bool]
    ) -> tuple[Completion, ...]:
        """Decodes each row's segments to text and pixels, `CODEC_IMAGES` images at a time."""
        ids, kind, segment = (trajectory.tape[name] for name in ("ids", "kind", "segment"))
        is_code = kind == Kind.CODE
        codes = ids[is_code].reshape(-1, self.image_positions, ids.shape[-1])
        images = (image for part in codes.split(CODEC_IMAGES) for image in self._drawn(part))
        result = []
        for row, done in enumerate(finished):
            segments: list[Segment] = []
            for index in range(int(segment[row].max()) + 1):
                columns = segment[row] == index
                if bool((columns & is_code[row]).any()):
                    segments.append(Image(next(images)))
                else:
                    segments.append(Text(self._text(ids[row, columns, 0].tolist())))
            result.append(Completion(tuple(segments), bool(done)))
        return tuple(result)

    # -- layout --------------------------------------------------------------------------------

    def tokenize(self, text: str) -> list[int]:
        """Text ids without any automatic additions."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def prompt_ids(self, sample: Sample) -> list[int]:
        """Token ids of a prompt without images, as `sample` lays it out."""
        return [ids[0] for ids in self._prompt_columns(sample).ids]

    def _text(self, ids: list[int]) -> str:
        ids = [token for token in ids if token != self.end_of_text_id]
        return self.tokenizer.decode(ids, skip_special_tokens=False).strip()

    def _prompt_columns(self, sample: Sample) -> Columns:
        columns = self.lay_out(self.template.pieces(sample.task, sample.prompt))
        columns = self.fit_prompt(columns, sample.task)
        if self.template.unconditional is not None:
            columns.twin(self.lay_out(self.template.twin_pieces()))
        return columns

    def lay_out(self, pieces: Sequence[Words | Start | Shown]) -> Columns:
        """The pieces of a prompt as columns."""
        columns, border = Columns(self.capabilities.code_depth), self.template.end_of_image
        for index, piece in enumerate(pieces):
            if isinstance(piece, Words) and index and isinstance(pieces[index - 1], Shown):
                # read with the border, as a tokenizer may mark where a text of its own begins
                columns.text(self.tokenize(border + piece.text)[1:])
            elif isinstance(piece, Words):
                columns.text(self.tokenize(piece.text))
            elif isinstance(piece, Start):
                columns.text([self.start_id])
            else:
                columns.text([self.begin_of_image_id]).shown_image(self.shown_positions)
                columns.text([self.end_of_image_id])
        return columns

    def _tape(self, rows: list[Columns], shown: Tensor, left: bool = False) -> Tape:
        tape = stack(rows, shown, left)
        twin_ids, twin_kind = self.nullify(tape.ids, tape.kind)
        if self.template.unconditional is not None:  # then prompts brought their own
            answer = tape.segment >= 0
            twin_ids = torch.where(answer, twin_ids, tape.twin_ids)
            twin_kind = torch.where(answer, twin_kind, tape.twin_kind)
        return tape._replace(twin_ids=twin_ids, twin_kind=twin_kind)

    def _target_columns(self, sample: Sample, codes: Iterator[list[list[int]]]) -> Columns:
        """Prompt and gold answer, laid out exactly as `interleave` would have pushed it."""
        check_target(sample, self.template.image_trigger)
        columns = self._prompt_columns(sample)
        last = len(sample.target) - 1
        for index, segment in enumerate(sample.target):
            if isinstance(segment, Text):
                ids = self.tokenize(segment.text if index else self._opening(segment.text))
                closing = [] if ids and ids[-1] == self.image_trigger_id else [self.end_of_text_id]
                columns.text(ids + closing, index, action=True)
                continue
            columns.text([self.begin_of_image_id], index).codes(next(codes), index)
            interleaved = sample.task == Task.INTERLEAVED
            if interleaved or self.closes_images:
                columns.text([self.end_of_image_id], index)
            if interleaved and index == last:  # say nothing more after the last image
                columns.text([self.end_of_text_id], index + 1, action=True)
        return columns

    def _opening(self, text: str) -> str:
        return self.template.before_answer + text if text else text

    def _require_room(self, sample: Sample, tokens: int, answer_tokens: int) -> None:
        """Positions beyond the context were never trained, and nothing else would say so."""
        limit = self.context_length
        if limit is None or tokens + answer_tokens <= limit:
            return
        if answer_tokens:
            raise ConfigError(
                f"sample {sample.id!r}: a prompt of {tokens} tokens with an answer of up to "
                f"{answer_tokens} does not fit the model's context of {limit}; shorten the prompt, "
                "or lower max_text_tokens or max_image_count of the behaviour"
            )
        raise ConfigError(
            f"sample {sample.id!r} takes {tokens} tokens with its target, but the model's context "
            f"is {limit}; shorten it or take it out of the data"
        )

    def _drawn(self, codes: Tensor) -> list[np.ndarray]:
        return to_uint8(self.decode_images(codes)) if len(codes) else []

    def pixels(self, images: Sequence[Image]) -> Tensor:
        """(n, 3, H, W) float32 in [-1, 1], on the policy's device."""
        size = self.capabilities.image_size
        return torch.stack([as_pixels(image, size) for image in images]).to(self.device)

    def _hide_text(self, tape: Tape, rows: Tensor, samples: Sequence[Sample]) -> Tape:
        """Makes the given rows their own unconditional twins, of which only images are learnt."""
        for sample, hide in zip(samples, rows.tolist(), strict=True):
            if hide and sample.task not in DRAWING_TASKS:
                raise ValueError(f"there is nothing to draw in {sample.task} sample {sample.id!r}")
        twin = tape.twin
        learnt = ~rows[:, None] | (tape.kind == Kind.CODE)
        return tape._replace(
            ids=torch.where(rows[:, None, None], twin.ids, tape.ids),
            kind=torch.where(rows[:, None], twin.kind, tape.kind),
            action_mask=tape.action_mask & learnt[..., None],
        )

    def refresh_allowed_text(self) -> None:
        """Counts anew which text tokens may be chosen, after the tokenizer has grown."""
        self.allowed_text = self._allowed_text().to(self.device)

    def _allowed_text(self) -> Tensor:
        """(V,) bool."""
        allowed = torch.ones(self.text_vocabulary_size, dtype=torch.bool)
        allowed[len(self.tokenizer) :] = False  # rows of a padded head beyond the tokenizer
        allowed[[self._token_id(token) for token in self.template.forbidden]] = False
        return allowed

    def _token_id(self, token: str) -> int:
        found = self.tokenizer.convert_tokens_to_ids(token)
        unknown = self.tokenizer.unk_token  # of some tokenizers the end-of-text token itself
        if found is None or (found == self.tokenizer.unk_token_id and token != unknown):
            raise ConfigError(f"the tokenizer does not know the template's token {token!r}")
        return found
