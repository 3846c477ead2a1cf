"""The choice of a model: which there are, what each covers, and why one cannot be used as things stand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from slicer.i18n import tr as _

from segrap.contouring import coverage
from segrap.models.cards import ModelCard, list_cards


class ModelChoice:
    """Works a QComboBox of model names and the QLabel beneath. `chosen` is called with a name when the user chooses."""

    def __init__(self, combo_box: Any, label: Any, chosen: Callable[[str], None]) -> None:
        self._combo_box = combo_box
        self._label = label
        self._chosen = chosen
        self._cards: dict[str, ModelCard] = {}
        self._showing = False
        combo_box.currentIndexChanged.connect(self._on_changed)

    def list_models(self) -> None:
        """Read the library anew: models may have come and gone."""
        self._cards = {card.entry.name: card for card in list_cards()}
        self._showing = True
        self._combo_box.clear()
        self._combo_box.addItems(list(self._cards))
        self._showing = False

    def show(self, name: str) -> ModelCard | None:
        """Show the model of that name, or the first one when there is none of that name; returns its card."""
        card = self._cards.get(name) or next(iter(self._cards.values()), None)
        self._showing = True
        self._combo_box.currentIndex = list(self._cards).index(card.entry.name) if card else -1
        self._showing = False
        self._label.text = describe(card) if card else _("There is no model yet.")
        return card

    def _on_changed(self, *_ignored: Any) -> None:
        # What Qt 5 passes is the index or the text, whichever overload was found; ask for the index.
        if not self._showing:
            self._chosen(list(self._cards)[self._combo_box.currentIndex])


def describe(card: ModelCard) -> str:
    """A model's card in a few words."""
    if card.fault:
        return card.fault
    uses = {
        "demonstration": _("FOR DEMONSTRATION ONLY, never for a real patient"),
        "research": _("for research"),
        "clinical": _("for clinical use as its makers state"),
    }
    inputs = _("needs both CTs") if card.wants_pair else _("needs one CT")
    facts = f"{coverage(card.structures)}; {inputs}; {uses.get(card.entry.intended_use, card.entry.intended_use)}"
    return _("Version {version}, licence {licence}: {facts}.").format(
        version=card.entry.version, licence=card.entry.licence, facts=facts
    )


def why_not(card: ModelCard | None, contrast: Any, structures: list[str]) -> str:
    """Why a job with these choices cannot start, "" when it can."""
    if not card:
        return _("There is no model. Install one first.")
    if card.fault:
        return card.fault
    if card.wants_pair and not contrast:
        return _("{model} needs a contrast CT too. Choose it.").format(model=card.entry.name)
    return "" if structures else _("No structure is ticked.")
