"""Running tiles and adding them up, in less memory when it runs out: fewer at once, half the ring, then the CPU.

The tiles that are done are kept: a ring is converted or moved slice by slice, and only the tiles that failed are run
again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from segrap.engine.backends import CPU, GPU_TOO_SMALL, Backend, out_of_memory
from segrap.engine.confidence import ShellMargins
from segrap.engine.memory import Accumulators
from segrap.engine.prepare import NetworkInput
from segrap.engine.stream import FeatureRing, LayerPainter

Start = tuple[int, int, int]

HALF_SUMS = "For want of memory the sums of tiles were kept in float16: a few voxels at borders of contours may differ."
OTHER_STEP = "Tiles lay {:g} of their size apart (nnU-Net's: 0.5): contours may differ from the model's usual ones."
FEWER_AT_ONCE = "For want of memory fewer tiles are run at once."
ON_CPU = "For want of GPU memory the CPU went on."


class TileRun:
    """Runs tiles and adds them up in `ring`; `backend` and ring change when memory runs out.

    make_ring: gives an empty ring of that type on that device. accumulators: the type to begin with; float16 if that
    does not fit, and the CPU if nothing fits on the GPU.
    batch: how many tiles to run at once, to begin with.
    open_on_cpu: makes the networks ready on the CPU, and nothing else. say: told each step down, a sentence.
    remarks: the steps that the reader of the contours should know of.
    """

    def __init__(
        self,
        backend: Backend,
        make_ring: Callable[[torch.dtype, torch.device], FeatureRing],
        accumulators: Accumulators,
        batch: int,
        source: NetworkInput,
        open_on_cpu: Callable[[], Backend],
        say: Callable[[str], None],
    ) -> None:
        self.backend, self.batch = backend, batch
        self._source, self._open_on_cpu, self._say = source, open_on_cpu, say
        ring = _first_that_fits(make_ring, accumulators, backend.device)
        too_small = ring is None and backend.device != CPU
        if too_small:
            self.backend, self.batch = open_on_cpu(), 1
            ring = _first_that_fits(make_ring, accumulators, CPU)
        if ring is None:
            raise MemoryError
        self.ring = ring
        self.followers: Sequence[LayerPainter | ShellMargins] = ()  # what works on the same device as the ring
        self.remarks = [GPU_TOO_SMALL] * too_small + [HALF_SUMS] * (ring.dtype == torch.float16)

    def add(self, starts: Sequence[Start]) -> None:
        """Run the tiles at `starts` at once, or fewer when memory runs out, and add them up.

        Raises MemoryError when even the smallest way is too large.
        """
        if len(starts) > self.batch:
            half = len(starts) // 2
            self.add(starts[:half])
            self.add(starts[half:])
            return
        maps = self._maps(starts)
        if maps is None:
            self._step_down(len(starts))
            self.add(starts)
            return
        for one, start in zip(maps, starts, strict=True):
            self.ring.add(one, start)

    def _maps(self, starts: Sequence[Start]) -> torch.Tensor | None:
        """The tiles' maps, (tile, z, y, x, maps), or None when memory ran out."""
        try:
            return self.backend.features(np.stack([self._source.patch(start) for start in starts]))
        except (MemoryError, RuntimeError) as fault:
            if not out_of_memory(fault):
                raise
            return None  # only now, with the error, goes what the network held

    def _step_down(self, tiles: int) -> None:
        words = FEWER_AT_ONCE
        if tiles > 1:
            self.batch = tiles // 2
        elif self.ring.dtype == torch.float32:
            self.ring.to_float16()
            words = HALF_SUMS
        elif self.backend.runs_on != CPU:
            self.ring.to(CPU)
            self.backend, self.batch = self._open_on_cpu(), 1
            for follower in self.followers:
                follower.to(CPU, self.backend.head)
            words = ON_CPU
        else:
            raise MemoryError
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if words != FEWER_AT_ONCE:
            self.remarks.append(words)
        self._say(words)


def _first_that_fits(
    make_ring: Callable[[torch.dtype, torch.device], FeatureRing], accumulators: Accumulators, device: torch.device
) -> FeatureRing | None:
    for dtype in (torch.float32, torch.float16) if accumulators == "float32" else (torch.float16,):
        try:
            return make_ring(dtype, device)
        except (MemoryError, RuntimeError) as fault:
            if not out_of_memory(fault):
                raise
    return None
