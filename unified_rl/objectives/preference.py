"""Direct preference optimisation: what is preferred becomes likelier than what is not."""

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional


class PreferenceTerms(NamedTuple):
    """What pairs of a better and a worse completion say; (P,) each.

    Attributes:
        loss: to be minimised, log 2 where the policy is the reference; the only one with a
            gradient.
        win_reward: beta times the log-ratio of policy and reference, of the better ones.
        lose_reward: the same of the worse ones.
    """

    loss: Tensor
    win_reward: Tensor
    lose_reward: Tensor

    @property
    def margin(self) -> Tensor:
        """(P,) how much higher the implicit rewards of the better ones are."""
        return self.win_reward - self.lose_reward

    @property
    def is_right(self) -> Tensor:
        """(P,) float, 1 where the implicit reward ranks the pair as given; 0 for a tie."""
        return (self.margin > 0).float()


def summed(logprobs: Tensor, action_mask: Tensor) -> Tensor:
    """(B,): log-probability of all actions of a row.

    Args:
        logprobs: (B, L, D); what lies outside `action_mask` may be anything, and gets no gradient.
        action_mask: (B, L, D) bool.
    """
    return logprobs.masked_fill(~action_mask, 0.0).sum((1, 2))


def preference_terms(
    win: Tensor, lose: Tensor, reference_win: Tensor, reference_lose: Tensor, beta: float
) -> PreferenceTerms:
    """-log sigmoid(beta ((win - reference_win) - (lose - reference_lose))) of each pair.

    Source: DPO (arXiv 2305.18290), eq. 7; HermesFlow's training code, which sums log-probs over
        labelled tokens and takes beta = 0.2 for drawings and answers alike.

    Args:
        win: (P,) log-probabilities of the better completions, with gradient.
        lose: (P,) of the worse ones, with gradient.
        reference_win: (P,) of the better ones under the frozen reference.
        reference_lose: (P,) of the worse ones under the frozen reference.
        beta: above 0; the greater, the less the policy has to move to tell a pair apart.

    Raises:
        ValueError: a beta that is not above 0, or shapes that differ.
    """
    if not 0 < beta < float("inf"):
        raise ValueError(f"beta={beta} must be finite and above 0")
    shapes = {tuple(values.shape) for values in (win, lose, reference_win, reference_lose)}
    if len(shapes) != 1 or win.ndim != 1:
        raise ValueError(f"log-probabilities of pairs have shapes {sorted(shapes)}, not one (P,)")
    win_reward = beta * (win - reference_win.detach())
    lose_reward = beta * (lose - reference_lose.detach())
    loss = -functional.logsigmoid(win_reward - lose_reward)
    return PreferenceTerms(loss, win_reward.detach(), lose_reward.detach())
