"""HermesFlow's baseline: better drawings and answers of one's own against worse ones."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from unified_rl.core.errors import ConfigError
from unified_rl.core.preference import Preference
from unified_rl.core.protocols import Policy
from unified_rl.core.sample import Sample
from unified_rl.core.trajectory import Trajectory, join
from unified_rl.objectives.preference import PreferenceTerms, preference_terms, summed
from unified_rl.stages.base import Stage
from unified_rl.stages.optimisation import Optimisation

GENERATION, UNDERSTANDING = "generation", "understanding"


class PairDPO(Stage):
    """Makes better drawings and answers likelier than worse ones, against a frozen reference.

    The reference is the policy as this stage found it. A family that predicts masked codes hides
    the same codes of both drawings of a pair, from policy and reference alike.

    Source: HermesFlow (arXiv 2502.12148), Pair-DPO as its released code has it; UniRL 4.2 compares
        with it.
    Departs: a preference may lack one half; each half's loss is the mean over those of the batch
        that have it. There is no dropout, so that policy and reference start out equal.

    Args:
        policy, optimisation, iterations, seed: see `Stage`.
        beta: see `preference_terms`.
        generation_weight: factor on the loss of drawings, 0 or more; 0 leaves them out.
        understanding_weight: factor on the loss of answers, 0 or more; 0 leaves them out.
        micro_batch_size: pairs of one half that are differentiated at once; 0 takes the whole
            batch. Changes no number.
        reference_device: where the reference lives; None keeps it beside the policy.
    """

    progress_metrics = ("loss", "generation_accuracy", "understanding_accuracy")
    takes = Preference

    def __init__(
        self,
        policy: Callable[[], Policy],
        optimisation: Optimisation,
        iterations: int,
        seed: int,
        beta: float = 0.2,
        generation_weight: float = 1.0,
        understanding_weight: float = 1.0,
        micro_batch_size: int = 0,
        reference_device: str | None = None,
    ) -> None:
        super().__init__(policy, optimisation, iterations, seed)
        if not 0 < beta < float("inf"):
            raise ConfigError(f"stage.beta={beta} must be finite and above 0")
        weights = generation_weight, understanding_weight
        if min(weights) < 0 or not any(weights):
            raise ConfigError(
                f"stage.generation_weight={generation_weight} and stage.understanding_weight="
                f"{understanding_weight} must be 0 or more, and not both 0"
            )
        if micro_batch_size < 0:
            raise ConfigError(f"stage.micro_batch_size={micro_batch_size} must be 0 or more")
        self.beta = beta
        self.weights = {GENERATION: generation_weight, UNDERSTANDING: understanding_weight}
        self.micro_batch_size = micro_batch_size
        self.reference_device = reference_device

    def configure_model(self) -> None:
        """Builds the policy, and freezes a copy of its start before a resumed run loads weights."""
        super().configure_model()
        self.start()

    def training_step(self, batch: list[Preference], batch_idx: int) -> None:
        """Encode both of each pair, score them twice, follow the gradient."""
        self.policy.eval()
        halves = {
            GENERATION: [item.drawings for item in batch if item.drawings is not None],
            UNDERSTANDING: [item.answers for item in batch if item.answers is not None],
        }
        halves = {name: pairs for name, pairs in halves.items() if self.weights[name]}
        counts = {name: self.ranks.mean(len(pairs)) for name, pairs in halves.items()}
        halves = {name: pairs for name, pairs in halves.items() if pairs}
        terms: dict[str, list[PreferenceTerms]] = {name: [] for name in halves}
        norm = self.descend(self._losses(halves, counts, terms))
        metrics = {"gradient_norm": norm, "learning_rate": self.optimizers().param_groups[0]["lr"]}
        loss = 0.0
        for name, parts in terms.items():
            whole = PreferenceTerms(*(torch.cat(values) for values in zip(*parts, strict=True)))
            loss += self.weights[name] * float(whole.loss.sum()) / counts[name]
            metrics |= _described(name, whole)
        self.report(metrics | {"loss": loss})

    def encode(self, pairs: Sequence[tuple[Sample, Sample]]) -> Trajectory:
        """Better and worse ones as (2 P, ...): row i was preferred to row P + i.

        Both are encoded with randomness in the same state, so that their masks are the same.
        """
        wins, losses = zip(*pairs, strict=True)
        return join([self.policy.encode(side, self.generator()) for side in (wins, losses)])

    def _losses(
        self,
        halves: dict[str, list[tuple[Sample, Sample]]],
        counts: dict[str, float],
        terms: dict[str, list[PreferenceTerms]],
    ) -> Iterator[Tensor]:
        """The batch's loss in parts that add up; what to log is appended to `terms`.

        `counts` are the ranks' mean numbers of pairs.
        """
        for name, pairs in halves.items():
            rows, count = self.encode(pairs), len(pairs)
            places = torch.arange(count, device=rows.segment.device)
            for part in places.split(self.micro_batch_size or count):
                found = self._compare(rows.select(torch.cat([part, count + part])).trimmed())
                terms[name].append(found._replace(loss=found.loss.detach()))
                yield self.weights[name] / counts[name] * found.loss.sum()

    def _compare(self, rows: Trajectory) -> PreferenceTerms:
        own = summed(self.policy.logprobs(rows), rows.action_mask)
        reference = summed(self.start_logprobs(rows), rows.action_mask)
        return preference_terms(*own.chunk(2), *reference.chunk(2), self.beta)


def _described(name: str, terms: PreferenceTerms) -> dict[str, float]:
    return {
        f"{name}_loss": float(terms.loss.mean()),
        f"{name}_accuracy": float(terms.is_right.mean()),
        f"{name}_margin": float(terms.margin.mean()),
        f"{name}_win_reward": float(terms.win_reward.mean()),
        f"{name}_lose_reward": float(terms.lose_reward.mean()),
    }
