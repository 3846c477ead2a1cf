"""Organs of one piece: what lies apart from it is removed, where the model's `segrap.json` asks for that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from segrap import anatomy

MANY_PIECES_EXPECTED = frozenset({"GTVnd", "Mastoid_L", "Mastoid_R", "PharynxConst"})
"""Several nodes, separate air cells, a thin muscle in sheets: pieces of these are no sign of a fault."""

# A piece of more than this share of the largest stays: the reviewer must see that a structure was drawn in two places.
STRAY_SHARE = 0.2


def remove_stray_pieces(
    layers: np.ndarray, placement: Mapping[str, tuple[int, int]], spacing_zyx: Sequence[float]
) -> dict[str, float]:
    """Remove, in place, every piece of an organ that is under a fifth of its largest one.

    Nothing is taken from tumours, for a small node is a node, nor from what comes in pieces (MANY_PIECES_EXPECTED).

    layers: (layer, z, y, x) uint8; placement: structure -> (layer, value); spacing_zyx: mm. Pieces are told apart by
    26 neighbours. Returns the volume removed, cc, of each structure that lost something.
    """
    from scipy import ndimage  # not before it is needed: Slicer imports this module when it starts

    removed: dict[str, float] = {}
    voxel_cc = float(np.prod(spacing_zyx)) / 1000
    boxes = [ndimage.find_objects(layer) for layer in layers]
    for name, (layer, value) in placement.items():
        if name in MANY_PIECES_EXPECTED or anatomy.structure(name).is_target:
            continue
        box = boxes[layer][value - 1] if value <= len(boxes[layer]) else None
        if box is None:
            continue
        inside = layers[layer][box]
        pieces, count = ndimage.label(inside == value, np.ones((3, 3, 3)))
        if count < 2:
            continue
        sizes = np.bincount(pieces.ravel())
        sizes[0] = 0
        stray = (sizes > 0) & (sizes < STRAY_SHARE * sizes.max())
        if stray.any():
            inside[stray[pieces]] = 0
            removed[name] = float(sizes[stray].sum()) * voxel_cc
    return removed
