"""What structures are called in files that leave for a planning system: by TG-263, as SegRap does, or as a site wants.

A site's own names stand in a JSON file, one object of SegRap names and the site's: {"Parotid_L": "Parotis li"}. What
it does not name keeps its TG-263 name.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from segrap import anatomy
from segrap.errors import InputError

Names = Literal["tg263", "segrap"] | Mapping[str, str]
"""Which names: TG-263's, SegRap's, or a site's as `read_names` gives them."""

LONGEST = 64
"""Characters that DICOM has room for in an ROI's name or a segment's label (value representation LO)."""

SHOWN = 16
"""Characters of a name that every planning system shows (TG-263); some cut off the rest."""


def read_names(path: str | Path) -> dict[str, str]:
    """A site's names, {SegRap name: name}, from a JSON file: to know its contours by, in whatever script they are.

    What they may be called in files that leave, `names_of` says.
    Raises InputError when the file cannot be read, names what is no SegRap structure, or gives a name twice.
    """
    path = Path(path)
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise InputError(f"{path.name} is not JSON ({error}).") from error
    if not isinstance(entries, dict) or not all(isinstance(name, str) for name in entries.values()):
        raise InputError(f'{path.name} must hold one object of names, such as {{"Parotid_L": "Parotis li"}}.')
    unknown = [name for name in entries if name not in anatomy.NAMES]
    if unknown:
        raise InputError(f"{path.name} names what is no SegRap structure: {', '.join(unknown)}.")
    _owners(anatomy.NAMES, entries)
    return entries


def names_of(structures: Iterable[str], names: Names = "tg263") -> dict[str, str]:
    """What each of these structures (SegRap names) is called.

    Raises InputError when a name is empty, longer than 64 characters, not plain ASCII (the CT's character set need not
    have more), holds a backslash, is that of another structure, or is given twice in whatever letter case; and when its
    first 16 characters are those of another's, which may be in a file of its own.
    """
    found = _owners(structures, names)
    for structure, name in found.items():
        fault = _fault(name)
        if fault:
            raise InputError(f"{structure} cannot be called '{name}': {fault}.")
    every = _owners(anatomy.NAMES, names)
    shown: dict[str, str] = {}
    for structure, name in every.items():
        owner = shown.setdefault(as_shown(name), structure)
        if owner != structure and (owner in found or structure in found):
            raise InputError(
                f"{owner} and {structure} cannot be called '{every[owner]}' and '{name}': planning systems cut names "
                f"after {SHOWN} characters, and these are one until there."
            )
    return found


def as_shown(name: str) -> str:
    """What is left of a name to know a structure by where names are cut and letter case does not count."""
    return name[:SHOWN].strip().casefold()


def _owners(structures: Iterable[str], names: Names) -> dict[str, str]:
    """What each structure is called; InputError when two have one name, or one has that of another."""
    found: dict[str, str] = {}
    owners: dict[str, str] = {}
    for structure in structures:
        facts = anatomy.structure(structure)
        if names == "segrap":
            name = structure
        else:
            name = facts.tg263_name if names == "tg263" else names.get(structure, facts.tg263_name)
        owner = owners.setdefault(name.casefold(), structure)
        if owner != structure:
            raise InputError(
                f"{owner} and {structure} are both called '{name}'. Every structure needs a name of its own."
            )
        found[structure] = name
    for structure, name in found.items():
        other = _KNOWN.get(name.casefold(), structure)
        if other != structure:
            raise InputError(f"{structure} cannot be called '{name}': that is the name of {other}.")
    return found


_KNOWN = {
    name.casefold(): structure.name
    for structure in anatomy.STRUCTURES
    for name in (structure.name, structure.tg263_name)
}


def _fault(name: str) -> str:
    if not name.strip():
        return "a name needs at least one letter"
    if len(name) > LONGEST:
        return f"it has {len(name)} characters, and DICOM has room for {LONGEST}"
    if not name.isascii() or not name.isprintable():
        return "only plain ASCII letters, digits and signs are sure to arrive"
    if "\\" in name:
        return "a backslash separates values in DICOM"
    if name != name.strip():
        return "spaces at its ends get lost"
    return ""
