"""Compares the labels of the contestants of `inference.py` and writes a case's section of RESULTS.md.

Labels are compared as the label layers that a user gets (all 47 structures with their overlaps), voxel by voxel: inside
the body (the largest connected piece above -500 HU in any scan), and everywhere.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import psutil
import torch
from inference_race import BY_NAME, CONTESTANTS, ORACLE, PARTS, Contestant, Race, revision

from segrap import anatomy

Run = Mapping[str, Any]


def write_section(results: Path, race: Race) -> None:
    """Put the section of a race, made of all its kept runs, in place of the one that stands there."""
    begin, end = f"<!-- {race.title} -->", f"<!-- end of {race.title} -->"
    section = f"{begin}\n{_section(race)}\n{end}"
    text = results.read_text() if results.exists() else "# Contouring, measured\n"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    known = pattern.search(text)
    results.write_text(pattern.sub(lambda _: section, text) if known else f"{text.rstrip()}\n\n{section}\n")


def _section(race: Race) -> str:
    runs, case = race.runs(), race.case
    dates = sorted({one["date"] for found in runs.values() for one in found})
    threads = len(race.processors)
    other = [one["other_cores"] for found in runs.values() for one in found if "other_cores" in one]
    shape = " × ".join(str(n) for n in reversed(case.shape))
    spacing = " × ".join(f"{n:.3g}" for n in reversed(case.spacing_mm))
    network = " × ".join(str(n) for n in reversed(case.network_shape(race.model)))
    lines = [
        f"## {race.title}: {shape} voxels of {spacing} mm",
        "",
        f"Model {race.model.name} {race.model.version}, {race.model.labels.score_channels} classes, {network} voxels "
        f"for its network{', all 8 mirrorings' if race.mirrored else ''}. {_machine(race.device)}, {threads} "
        f"thread{'s' * (threads > 1)}. {' to '.join(dict.fromkeys((dates[0], dates[-1])))}. "
        f"Engine {revision('segrap')}; {revision('nnunetv2')}. "
        f"Meanwhile other work kept {min(other):.1f} to {max(other):.1f} processors busy.",
        "",
        *_table(race, runs, [c for c in CONTESTANTS if not c.knob]),
    ]
    if knobs := [c for c in CONTESTANTS if c.knob and "cpu_s" in runs.get(c.name, [{}])[0]]:
        lines += ["", "What changes the result, beside what does not:", ""]
        lines += _table(race, runs, [BY_NAME[name] for name in ("segrap", "segrap-quick", "nnunetv2")] + knobs)
    lines += _confidence(runs)
    if parts := _parts(runs):
        listed = ", ".join(f"{name} {value:.0f}" for name, value in parts.items())
        needed = race.needed_gb(BY_NAME["nnunetv2"])
        lines += [
            "",
            f"nnunetv2 as a whole needs about {needed:.0f} GB here. Its parts, in seconds of processor (tiles, classes "
            f"and slices measured on some and multiplied): {listed}; together {sum(parts.values()):.0f}.",
        ]
    return "\n".join(lines)


def _table(race: Race, runs: Mapping[str, list[Run]], contestants: list[Contestant]) -> list[str]:
    comparison = _Comparison(race)
    reference = {key: _reference_s(runs, key) for key in ("cpu_s", "wall_s")}
    head = (
        "",
        "processor s (range)",
        "times faster, processor / clock",
        "wall s (range)",
        "with imports, processor s",
        "peak GB",
        *(["of the GPU"] if race.device != "cpu" else []),
        "as nnunetv2: body / everywhere",
        "as exact: body / everywhere, voxels that differ",
        "Dice, organs / tumours",
        "runs",
    )
    rows = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for contestant in contestants:
        found = runs.get(contestant.name)
        if not found:
            continue
        if "failure" in found[0]:
            rows.append(f"| {contestant.title} | {found[0]['failure']} |" + " |" * (len(head) - 2))
            continue
        faster = [s / median(one[key] for one in found) for key, s in reference.items() if s]
        cells = [
            contestant.title + (f" ({found[-1]['engine']})" if found[-1].get("engine") else ""),
            _spread(found, "cpu_s"),
            " / ".join(f"{times:.1f}" for times in faster),
            _spread(found, "wall_s"),
            f"{median(one['process_cpu_s'] for one in found):.1f}",
            f"{max(max(one['tree_gb'], one['largest_process_gb']) for one in found):.2f}",
            *([f"{max(one['gpu_gb'] for one in found):.2f}"] if race.device != "cpu" else []),
            *comparison.cells(contestant),
            str(len(found)) + ("" if len({one["labels"] for one in found}) == 1 else ", labels differ"),
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def _reference_s(runs: Mapping[str, list[Run]], key: str) -> float | None:
    """Seconds of nnunetv2's defaults, measured whole; those of the processor also as the sum of its parts."""
    whole = [one[key] for one in runs.get("nnunetv2", []) if key in one]
    if whole:
        return median(whole)
    return (sum(_parts(runs).values()) or None) if key == "cpu_s" else None


def _parts(runs: Mapping[str, list[Run]]) -> dict[str, float]:
    """Processor seconds of nnunetv2's parts, if they were measured."""
    return runs.get(PARTS.name, [{}])[0].get("parts", {})


def _confidence(runs: Mapping[str, list[Run]]) -> list[str]:
    """What measuring confidence takes of the engine's processor seconds, each run by itself."""
    found = [one for name in ("segrap", "segrap-quick") for one in runs.get(name, []) if one.get("parts")]
    shares = sorted(100 * one["parts"]["confidence"] / one["cpu_s"] for one in found)
    if not shares:
        return []
    return ["", f"Measuring confidence took {shares[0]:.1f} to {shares[-1]:.1f} % of the processor seconds of segrap."]


def _spread(found: list[Run], key: str) -> str:
    values = [one[key] for one in found]
    return f"{median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


class _Comparison:
    """The label layers of the contestants beside those of nnunetv2, of exact arithmetic and of the truth."""

    def __init__(self, race: Race) -> None:
        self._race = race
        self._plan = race.model.output_plan()
        self._body = race.case.body()
        self._truth = race.case.truth()
        self._nnunetv2 = self._layers(BY_NAME["nnunetv2"])
        self._oracle = self._layers(ORACLE)

    def _layers(self, contestant: Contestant) -> np.ndarray | None:
        path = self._race.labels(contestant)
        if not path.exists():
            return None
        labels = np.load(path)
        return labels if contestant.kind == "segrap" else self._plan.table[:, labels]

    def cells(self, contestant: Contestant) -> list[str]:
        """Agreement with nnunetv2, with exact arithmetic, and Dice."""
        layers = self._layers(contestant)
        if layers is None:
            return ["", "", ""]
        cells = []
        for other, counted in ((self._nnunetv2, False), (self._oracle, True)):
            if other is None or (other is self._nnunetv2 and contestant.name == "nnunetv2"):
                cells.append("")
                continue
            differs = (layers != other).any(axis=0)
            body, everywhere = _equal(differs[self._body]), _equal(differs)
            count = f", {np.count_nonzero(differs[self._body])} / {np.count_nonzero(differs)}" if counted else ""
            cells.append(f"{body} / {everywhere} %{count}")
        return [*cells, self._dice(layers)]

    def _dice(self, layers: np.ndarray) -> str:
        """Mean Dice with the truth over the structures that the scan shows."""
        if self._truth is None:
            return ""
        of: dict[bool, list[float]] = {False: [], True: []}
        for name, (layer, value) in self._plan.placement.items():
            structure = anatomy.structure(name)
            lookup = np.zeros(256, dtype=bool)
            lookup[list(structure.subclasses)] = True
            truth, drawn = lookup[self._truth], layers[layer] == value
            if truth.any():
                both = np.count_nonzero(truth & drawn)
                of[structure.is_target].append(2 * both / (np.count_nonzero(truth) + np.count_nonzero(drawn)))
        return " / ".join(f"{mean(values):.4f}" if values else "none" for values in of.values())


def _equal(differs: np.ndarray) -> str:
    return f"{100 * (1 - np.count_nonzero(differs) / differs.size):.4f}"


def _machine(device: str) -> str:
    """Processor, memory and GPU, without the computer's name."""
    name = platform.processor() or platform.machine()
    listed = Path("/proc/cpuinfo")
    if listed.exists() and (found := re.search(r"model name\s*:\s*(.+)", listed.read_text())):
        name = found[1]
    name = f"{torch.cuda.get_device_name()}, {name}" if device != "cpu" else name
    memory = f"{psutil.virtual_memory().total / 1e9:.0f} GB"
    return f"{name}, {psutil.cpu_count()} processors, {memory}, {platform.system()}, Python {platform.python_version()}"
