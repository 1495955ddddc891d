"""Independent random streams, derived from one seed by the name of their purpose."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose: ``derive(0, "rollout", 12)``.

    Different purposes give unrelated seeds, and so does the same purpose under another ``seed``; the
    value depends on nothing else, so it is the same on every machine and in every process.
    """
    # JSON keeps 1 and "1", and ("a", "b") and ("ab",), apart.
    name = json.dumps([seed, *purpose]).encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator seeded with :func:`derive` of the same arguments."""
    import torch  # the only heavy import; `derive` is used where torch is not needed

    return torch.Generator().manual_seed(derive(seed, *purpose))
