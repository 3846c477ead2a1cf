"""Checks of contours against the anatomy that all patients share: sides, heights, neighbours, likeness, density.

Each is wide enough to let a tumour, an operation, a turned head and a scan that cuts organs off pass: what it finds is
nearly always wrong. Called by `segrap.quality.check`, beside the checks of each structure by itself. What the limits
were measured on stands beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations

import numpy as np

from segrap import anatomy
from segrap.contours import Contours
from segrap.image import AxisOrder, Image
from segrap.midline import Landmark, bone_middles, landmarks, middle_plane, stem_of
from segrap.quality.findings import Finding, middle_voxel, only_plane, words_for_cc

# A side's centre this far beyond the middle plane is on the wrong one: the most medial (optic nerve) lies 18 mm off it.
WRONG_SIDE_MM = 10.0

_SIDED = {name: anatomy.structure(name).laterality for name in anatomy.NAMES if anatomy.structure(name).laterality}


def _both(*stems: str) -> frozenset[str]:
    """The structures of these names, of both sides where they have sides."""
    return frozenset(name for name in anatomy.NAMES if stem_of(name) in stems)


_HEAD = _both("Brain", "BrainStem", "Chiasm", "TemporalLobe", "Hippocampus", "Eye", "Lens", "OpticNerve", "Pituitary")
_HEAD |= _both("MiddleEar", "IAC", "TympanicCavity", "VestibulSemi", "Cochlea", "ETbone", "Mastoid", "TMjoint")
_MOUTH = _both("OralCavity", "Mandible", "Submandibular", "Parotid")
_LARYNX = _both("Larynx", "Larynx_Glottic", "Larynx_Supraglot")
_LOW = _both("Thyroid", "Trachea", "Esophagus")

_ABOVE = (
    (_HEAD, _MOUTH | _LARYNX | _LOW | _both("PharynxConst", "SpinalCord")),
    (_MOUTH, _LARYNX | _LOW),
    (_LARYNX | _both("PharynxConst"), _LOW),
)
"""Whose centre lies above whose, from head to feet, in every patient: by 27 mm and more in an adult."""
# Nodding, and what the scan cuts off, move centres by this much and less.
WRONG_ORDER_MM = 20.0

FOLLOW_ON = (("BrainStem", "SpinalCord"), ("PharynxConst", "Esophagus"), ("Larynx", "Trachea"))
"""(upper, lower): the lower begins where the upper ends."""
# Of 183 OpenKBP patients none has a slice between brainstem and cord.
GAP_MM, GAP_SLICES = 8.0, 1

# The larger side's volume over the smaller's. Of 190 OpenKBP patients' parotids 95 % lie below 1.4, three (of which the
# lower slices of one gland are not drawn) above 1.7; of 132 mandibles all below 1.25 but one, half of it removed. The
# others were not measured on patients.
LIKE_SIDES = {"Eye": 1.4, "Mandible": 1.5, "Parotid": 1.7, "TemporalLobe": 1.5}
LIKE_SIDES_ELSEWHERE = 2.0
# Air cells, and the fluid in them, differ between the sides.
UNLIKE_SIDES = frozenset({"Mastoid", "MiddleEar", "TympanicCavity", "ETbone"})
LEAST_VOXELS = 100  # a volume of fewer is a matter of where the grid lies

THICK_MM = 5.05  # 5 mm as a scanner writes it

# Between which HU the median of a structure lies. Bone begins at 200; iodine shines in the thyroid, bone into the
# pituitary, and a tumour grows into bone. That a solid organ lies in air is found by `quality.check` itself; what holds
# air is mostly so at -500. Measured on 203 OpenKBP patients: soft organs -65 to 80, mandible 430 to 1090, larynx from
# -330; the esophagus above -31, but for four that were drawn in air (-199 to -1000).
_SOFT = _both("Brain", "BrainStem", "Chiasm", "TemporalLobe", "Hippocampus", "Eye", "Lens", "OpticNerve", "SpinalCord")
_SOFT |= _both("Submandibular", "Parotid")
MEDIAN_HU: dict[str, tuple[float, float]] = {
    **dict.fromkeys(_SOFT, (-np.inf, 200)),
    **dict.fromkeys(_both("OralCavity", "PharynxConst", "Larynx"), (-500, 200)),
    **dict.fromkeys(_both("Pituitary", "Thyroid", "GTVp", "GTVnd"), (-np.inf, 350)),
    **dict.fromkeys(_both("Mandible"), (100, np.inf)),
    "Esophagus": (-150, 200),
    "Trachea": (-np.inf, -200),
}


def check_anatomy(contours: Contours, image: Image | None) -> list[Finding]:
    """All that these checks find, in no order. image: the CT in HU on the grid of the contours."""
    centres = {name: _centre_zyx_mm(contours, name) for name in contours.structures if not contours.is_empty(name)}
    findings = _exchanged_sides(contours, centres) + _wrong_sides(contours, centres, image)
    findings += _wrong_order(contours, centres)
    findings += _torn_apart(contours) + _unlike_sides(contours) + _thick_slices(contours)
    return findings if image is None else findings + _hounsfield(contours, image)


def _centre_zyx_mm(contours: Contours, name: str) -> np.ndarray:
    """The centre of a structure in the patient's own axes (LPS), turned round as `segrap.midline` wants it."""
    mask, box = contours.mask_in_box(name)
    centre = []
    for axis in range(3):
        counts = np.count_nonzero(mask, axis=tuple(other for other in range(3) if other != axis))
        centre.append(box[axis].start + counts @ np.arange(len(counts)) / counts.sum())
    return contours.geometry.to_lps(np.array(centre[::-1]))[::-1]


def _exchanged_sides(contours: Contours, centres: Mapping[str, np.ndarray]) -> list[Finding]:
    findings = []
    for left, centre in centres.items():
        right = f"{stem_of(left)}_R"
        if _SIDED.get(left) != "left" or right not in centres or centre[2] > centres[right][2]:
            continue
        message = (
            f"Lies {centres[right][2] - centre[2]:.0f} mm to the patient's right of {right}: "
            "left and right are exchanged, or the scan is mirrored. Do not use either before this is settled."
        )
        findings.append(Finding(left, "side", "fault", message, middle_voxel(*contours.mask_in_box(left)), right))
    return findings


def _wrong_sides(contours: Contours, centres: Mapping[str, np.ndarray], image: Image | None) -> list[Finding]:
    marks = landmarks(centres)
    if image is not None:
        turned = AxisOrder.towards_lps(image.geometry).turn(image)
        middles = bone_middles(turned.array, turned.geometry.spacing_mm[::-1])
        marks += [Landmark("bone", point[::-1]) for point in turned.geometry.to_lps(middles[:, ::-1])]
    findings = []
    for name, centre in centres.items():
        if name not in _SIDED:
            continue
        towards_left = 1 if _SIDED[name] == "left" else -1
        twin = f"{stem_of(name)}_{'R' if towards_left > 0 else 'L'}"
        if twin in centres and (centre - centres[twin])[2] * towards_left <= 0:
            continue  # left and right are exchanged, and that is said of them
        plane = middle_plane([mark for mark in marks if mark.name != stem_of(name)], centre[0])
        beyond_mm = -towards_left * float(plane.left_mm(centre)) if plane else 0.0
        if beyond_mm > WRONG_SIDE_MM:
            side, other = ("left", "right") if towards_left > 0 else ("right", "left")
            message = (
                f"Lies on the patient's {other}, {beyond_mm:.0f} mm beyond the middle plane that "
                f"{'other structures' if image is None else 'other structures and the bones'} show; a {side} one "
                "belongs on the other side of it. Draw it there, or give it the name of the side on which it lies."
            )
            findings.append(Finding(name, "side", "fault", message, middle_voxel(*contours.mask_in_box(name))))
    return findings


def _wrong_order(contours: Contours, centres: Mapping[str, np.ndarray]) -> list[Finding]:
    """The structures whose height contradicts that of others: first the one that most others contradict."""
    wrong: dict[str, dict[str, float]] = {}  # structure -> other, and how far it is above (below: negative) that one
    for upper, lower in permutations(centres, 2):
        too_high_mm = centres[lower][0] - centres[upper][0]
        if too_high_mm > 0 and _contradicts(upper, lower, too_high_mm):
            wrong.setdefault(lower, {})[upper] = too_high_mm
            wrong.setdefault(upper, {})[lower] = -too_high_mm
    findings = []
    while wrong:
        name = max(wrong, key=lambda one: (len(wrong[one]), sum(map(abs, wrong[one].values()))))
        others = wrong.pop(name)
        for other in others:
            del wrong[other][name]
        wrong = {one: left for one, left in wrong.items() if left}
        worst = max(others, key=lambda other: abs(others[other]))
        above = "above" if others[worst] > 0 else "below"
        blame = (
            f"{len(others) - 1} other structures contradict its height too: it" if len(others) > 1 else "One of the two"
        )
        message = (
            f"Its middle lies {abs(others[worst]):.0f} mm {above} that of {worst}, which belongs {above} it. {blame} "
            "is in the wrong place, or the scan is upside down."
        )
        place = middle_voxel(*contours.mask_in_box(name))
        findings.append(Finding(name, "order", "fault", message, place, worst))
    return findings


def _contradicts(upper: str, lower: str, too_high_mm: float) -> bool:
    """Whether `lower`, whose centre lies that far above that of `upper`, belongs below it."""
    if (upper, lower) == ("Larynx_Supraglot", "Larynx_Glottic"):
        return True  # by definition
    return too_high_mm > WRONG_ORDER_MM and any(upper in above and lower in below for above, below in _ABOVE)


def _torn_apart(contours: Contours) -> list[Finding]:
    order = AxisOrder.towards_lps(contours.geometry)
    axis = order.transposition[0]
    slice_mm = contours.geometry.spacing_mm[2 - axis]
    findings = []
    for upper, lower in FOLLOW_ON:
        if any(name not in contours.structures or contours.is_empty(name) for name in (upper, lower)):
            continue
        above = contours.mask_in_box(upper)[1][axis]
        mask, box = contours.mask_in_box(lower)
        head_first = axis in order.flips
        between = box[axis].start - above.stop if head_first else above.start - box[axis].stop
        if between <= GAP_SLICES or between * slice_mm <= GAP_MM:
            continue
        message = (
            f"Begins {between * slice_mm:.0f} mm ({between} slices) below the lowest slice of {upper}, to which it is "
            f"joined in the patient. Draw what is missing of {upper} or of this one."
        )
        top = only_plane(mask, axis, 0 if head_first else mask.shape[axis] - 1)
        findings.append(Finding(lower, "gap", "unusual", message, middle_voxel(top, box), upper))
    return findings


def _unlike_sides(contours: Contours) -> list[Finding]:
    findings = []
    for left in contours.structures:
        stem, right = stem_of(left), f"{stem_of(left)}_R"
        if _SIDED.get(left) != "left" or right not in contours.structures or stem in UNLIKE_SIDES:
            continue
        facts = {name: contours.structures[name] for name in (left, right)}
        if any(one.voxels < LEAST_VOXELS or one.touches_edge for one in facts.values()):
            continue
        larger, smaller = sorted(facts, key=lambda name: -facts[name].volume_cc)
        ratio, limit = facts[larger].volume_cc / facts[smaller].volume_cc, LIKE_SIDES.get(stem, LIKE_SIDES_ELSEWHERE)
        if ratio <= limit:
            continue
        # The one to look at first is that which is further from the ordinary.
        odd = max(facts, key=lambda name: abs(np.log(facts[name].volume_cc / anatomy.structure(name).volume_mean_cc)))
        other = larger if odd == smaller else smaller
        here, there = (words_for_cc(facts[name].volume_cc) for name in (odd, other))
        message = (
            f"{here} cc against {there} cc of {other}: the larger is {ratio:.1f} times the smaller, where more than "
            f"{limit:g} times is rare. Check both, unless a tumour or an operation explains it."
        )
        findings.append(Finding(odd, "volume", "unusual", message, None, other))
    return findings


def _thick_slices(contours: Contours) -> list[Finding]:
    """One finding for the whole scan, at the structure that suffers most."""
    axis = AxisOrder.towards_lps(contours.geometry).transposition[0]
    slice_mm = contours.geometry.spacing_mm[2 - axis]
    heights = {name: facts.box[axis] for name, facts in contours.structures.items() if facts.box}
    if slice_mm <= THICK_MM or not heights:
        return []
    name = min(heights, key=lambda one: heights[one].stop - heights[one].start)
    count = heights[name].stop - heights[name].start
    message = (
        f"The slices of this CT lie {slice_mm:g} mm apart, where 3 mm are usual and 5 mm the most. It lies in "
        f"{count} of them; the volumes and upper and lower ends of all structures are uncertain by as much."
    )
    return [Finding(name, "slices", "unusual", message)]


def _hounsfield(contours: Contours, image: Image) -> list[Finding]:
    findings = []
    for name, (low, high) in MEDIAN_HU.items():
        if name not in contours.structures or contours.is_empty(name):
            continue
        mask, box = contours.mask_in_box(name)
        median = float(np.median(image.array[box][mask]))
        if low <= median <= high:
            continue
        more, bound, most = ("more", high, "most") if median > high else ("less", low, "least")
        message = (
            f"Half of it measures {more} than {median:.0f} HU, where {bound:g} HU is the {most} to expect. It lies in "
            "something else, or the Hounsfield units of the scan are wrong."
        )
        findings.append(Finding(name, "density", "unusual", message))
    return findings
