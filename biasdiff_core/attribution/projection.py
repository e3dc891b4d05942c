"""CountSketch: a random projection that keeps inner products in expectation, E⟨Sx, Sy⟩ = ⟨x, y⟩.

Every coordinate of every parameter goes to one of `dim` buckets with a random sign (Charikar et al. 2002; SJLT with s = 1).
Bucket and sign come from an integer hash of (seed, parameter name, coordinate), not from a random-number generator, so CPU
and GPU agree and the order of the modules does not matter. Var⟨Sx, Sy⟩ ≤ (‖x‖²‖y‖² + ⟨x, y⟩²) / dim, as of a dense matrix.
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

SKETCH_VERSION = 1


def hashed_coordinates(seed: int, name: str, size: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Bucket [size] int64 in [0, dim) and sign [size] float32 ±1 of each coordinate of the parameter `name`.

    The hash is the finaliser of SplitMix64 (Steele et al. 2014) over a counter that starts at a point of the name's own.
    """
    start = int.from_bytes(hashlib.sha256(f"{SKETCH_VERSION}:{seed}:{name}".encode()).digest()[:8], "little")
    with np.errstate(over="ignore"):
        z = np.uint64(start) + np.arange(1, size + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    buckets = ((z >> np.uint64(1)) % np.uint64(dim)).astype(np.int64)
    signs = np.where(z & np.uint64(1), np.float32(1), np.float32(-1))
    return buckets, signs


@dataclass
class CountSketch:
    """Projection to `dim` dimensions, accumulated a parameter at a time."""

    dim: int
    seed: int
    _matrices: dict[str, Tensor] = field(default_factory=dict)

    def add(self, sketch: Tensor, name: str, vectors: Tensor) -> None:
        """`sketch` [B, dim] += the projection of `vectors` [B, n], the part of parameter `name`."""
        sketch += (self._matrix(name, vectors) @ vectors.T).T

    def _matrix(self, name: str, vectors: Tensor) -> Tensor:
        """Sparse [dim, n] with one signed entry a column; made once for each parameter."""
        if name not in self._matrices:
            size = vectors.shape[1]
            buckets, signs = hashed_coordinates(self.seed, name, size, self.dim)
            columns = np.argsort(buckets, kind="stable")
            starts = np.concatenate([[0], np.cumsum(np.bincount(buckets, minlength=self.dim))])
            parts = [torch.from_numpy(array).to(vectors.device) for array in (starts, columns, signs[columns])]
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta", category=UserWarning)
                self._matrices[name] = torch.sparse_csr_tensor(
                    parts[0], parts[1], parts[2].to(vectors.dtype), (self.dim, size), check_invariants=True
                )
        return self._matrices[name]
