"""Stable splits: the same key falls into the same split on every machine and in every run."""

import hashlib
from collections.abc import Iterable

SPLITS = ("train", "validation", "test")


def stable_hash(text: str) -> int:
    """A 64-bit hash that does not depend on the process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def check_split(split: str) -> None:
    """Raises ValueError for a split that does not exist."""
    if split not in SPLITS:
        raise ValueError(f"split={split!r} is not one of {SPLITS}")


def cut(keys: Iterable[str], validation: float, test: float) -> dict[str, str]:
    """The split of each key: sorted by hash, then cut, so that none of the splits is empty.

    Args:
        keys: At least three distinct strings; repeats count once.
        validation: Share of the validation split, in (0, 1).
        test: Share of the test split, in (0, 1).

    Raises:
        ValueError: For fewer than three keys.
    """
    ranked = sorted(set(keys), key=stable_hash)
    if len(ranked) < len(SPLITS):
        raise ValueError(f"{len(ranked)} keys cannot fill {len(SPLITS)} splits")
    validation_count = max(1, round(validation * len(ranked)))
    test_count = max(1, round(test * len(ranked)))
    names = ["validation"] * validation_count + ["test"] * test_count
    names += ["train"] * (len(ranked) - len(names))
    return dict(zip(ranked, names, strict=True))
