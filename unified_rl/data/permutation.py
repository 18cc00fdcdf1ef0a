"""A shuffled order of any length that takes no memory: any place of it is computed alone."""

import hashlib
import operator

_ROUNDS = 6


class Permutation:
    """A permutation of 0..length-1 that depends on (length, seed, epoch) alone.

    A Feistel network permutes the next power of two; what falls outside of the range is permuted
    again until it falls inside (fewer than two times on average).

    Source: Black and Rogaway, "Ciphers with Arbitrary Finite Domains" (CT-RSA 2002), cycle walking
    over a generalised Feistel network. Departs: the round function is a keyed hash.

    Args:
        length: number of places, one at least.
        seed: of the order.
        epoch: each has an order of its own.
    """

    def __init__(self, length: int, seed: int, epoch: int = 0) -> None:
        self._length = length
        bits = max((length - 1).bit_length(), 2)
        self._left_bits, self._right_bits = bits // 2, bits - bits // 2
        self._keys = [
            hashlib.blake2b(f"{length} {seed} {epoch} {turn}".encode(), digest_size=16).digest()
            for turn in range(_ROUNDS)
        ]

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, place: int) -> int:
        """What stands at a place.

        Raises:
            IndexError: there is no such place.
        """
        place = operator.index(place)
        if not 0 <= place < self._length:
            raise IndexError(f"place {place} is outside 0..{self._length - 1}")
        while True:
            place = self._once(place)
            if place < self._length:
                return place

    def _once(self, value: int) -> int:
        left, right = value >> self._right_bits, value & (1 << self._right_bits) - 1
        for turn, key in enumerate(self._keys):
            if turn % 2:
                right ^= _mixed(key, left) & (1 << self._right_bits) - 1
            else:
                left ^= _mixed(key, right) & (1 << self._left_bits) - 1
        return left << self._right_bits | right


def _mixed(key: bytes, value: int) -> int:
    digest = hashlib.blake2b(value.to_bytes(8, "big"), key=key, digest_size=8).digest()
    return int.from_bytes(digest, "big")
