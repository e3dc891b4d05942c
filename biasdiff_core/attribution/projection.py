"""Random projections that keep inner products in expectation, E⟨Px, Py⟩ = ⟨x, y⟩, accumulated a parameter at a time.

countsketch   every coordinate of every parameter goes to one of `dim` buckets with a random sign (Charikar et al. 2002; SJLT with
              s = 1): one operation a coordinate
rademacher    a dense matrix of random signs over √dim, the law of TRAK's projector that LESS and the paper use: `dim` operations a
              coordinate

Both have Var⟨Px, Py⟩ = (‖x‖²‖y‖² + ⟨x, y⟩² − 2 Σ x²y²) / dim. Buckets and signs come from an integer hash of (seed, parameter name,
coordinate), not from a random-number generator, so CPU and GPU agree and the order of the modules does not matter.
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from biasdiff_core.config.gradients import ProjectionKind

SKETCH_VERSION = 1
RADEMACHER_VERSION = 1
WORD = 64  # signs of one hash
# Rows that share one making of the signs, which costs a CPU as much as projecting some tens of rows (`python -m benchmarks.projection`).
HELD_ROWS = 256
_BLOCK = 1 << 20  # entries of the matrix at a time, 4 MB in fp32: larger blocks leave the cache
# [256, 8]: the signs of each byte's bits, lowest first.
_SIGNS_OF_BYTE = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little").astype(np.float32) * 2 - 1


class Projection(Protocol):
    """Projection to `dim` dimensions; `label` says which and with which seed, in a store's identity."""

    @property
    def dim(self) -> int: ...

    @property
    def label(self) -> str: ...

    def add(self, sketch: Tensor, name: str, vectors: Tensor) -> None:
        """`sketch` [B, dim] += the projection of `vectors` [B, n], the part of parameter `name`; at the latest in `flush`."""

    def flush(self) -> None:
        """Carry out what `add` has put off."""


def blank_sketch(count: int, dim: int, device: torch.device) -> Tensor:
    """Zeros [count, dim] to add to, laid out by bucket, so that CountSketch adds to them where they lie."""
    return torch.zeros((dim, count), device=device).T


def make_projection(kind: ProjectionKind, dim: int, seed: int) -> Projection:
    """The projection `kind`."""
    return CountSketch(dim, seed) if kind == "countsketch" else Rademacher(dim, seed)


def hashed_words(stream: str, first: int, count: int) -> np.ndarray:
    """64 random bits for each place from `first` on of the stream of that name, [count] uint64.

    The hash is the finaliser of SplitMix64 (Steele et al. 2014) over a counter that starts at a point of the stream's own.
    """
    start = int.from_bytes(hashlib.sha256(stream.encode()).digest()[:8], "little")
    with np.errstate(over="ignore"):
        z = np.uint64(start) + np.arange(first + 1, first + count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def hashed_coordinates(seed: int, name: str, size: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Bucket [size] int64 in [0, dim) and sign [size] float32 ±1 of each coordinate of the parameter `name`."""
    z = hashed_words(f"{SKETCH_VERSION}:{seed}:{name}", 0, size)
    buckets = ((z >> np.uint64(1)) % np.uint64(dim)).astype(np.int64)
    signs = np.where(z & np.uint64(1), np.float32(1), np.float32(-1))
    return buckets, signs


@dataclass
class CountSketch:
    """One signed entry a coordinate, applied as a sparse matrix."""

    dim: int
    seed: int
    _matrices: dict[str, Tensor] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return f"countsketch-v{SKETCH_VERSION}-seed{self.seed}"

    def add(self, sketch: Tensor, name: str, vectors: Tensor) -> None:
        """As `Projection.add`, at once."""
        sketch.T.addmm_(self._matrix(name, vectors), vectors.T)

    def flush(self) -> None:
        """Nothing is put off."""

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


@dataclass
class Rademacher:
    """Dense signs over √dim. The matrix, millions of rows of `dim`, is never whole: signs are made a block at a time, for many vectors.

    So `add` holds vectors back, at most `HELD_ROWS` of each parameter: that many full gradients are in memory.
    """

    dim: int
    seed: int
    _held: dict[str, list[tuple[Tensor, Tensor]]] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return f"rademacher-v{RADEMACHER_VERSION}-seed{self.seed}"

    def add(self, sketch: Tensor, name: str, vectors: Tensor) -> None:
        """As `Projection.add`, later."""
        held = self._held.setdefault(name, [])
        held.append((sketch, vectors))
        if sum(len(rows) for _, rows in held) >= HELD_ROWS:
            self._project(name)

    def flush(self) -> None:
        """Project all that is held back."""
        for name in list(self._held):
            self._project(name)

    def _project(self, name: str) -> None:
        held = self._held.pop(name)
        vectors = torch.cat([rows for _, rows in held])
        projected = torch.zeros((len(vectors), self.dim), dtype=vectors.dtype, device=vectors.device)
        step = max(1, _BLOCK // self.dim)
        for first in range(0, vectors.shape[1], step):
            part = vectors[:, first : first + step]
            projected.addmm_(part, self.signs(name, first, part.shape[1]).to(part))
        projected /= self.dim**0.5
        for (sketch, _), rows in zip(held, torch.split(projected, [len(rows) for _, rows in held]), strict=True):
            sketch += rows

    def signs(self, name: str, first: int, count: int) -> Tensor:
        """The signs ±1 [count, dim] fp32 of the parameter's coordinates from `first` on: the bits of its words, lowest first."""
        words = -(-self.dim // WORD)
        hashed = hashed_words(f"rademacher:{RADEMACHER_VERSION}:{self.seed}:{name}", first * words, count * words)
        signs = np.take(_SIGNS_OF_BYTE, hashed.astype("<u8").view(np.uint8), axis=0).reshape(count, words * WORD)
        return torch.from_numpy(signs[:, : self.dim])
