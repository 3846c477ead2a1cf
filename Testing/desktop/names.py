"""The modules `qt` and `ctk` as Slicer's Python has them: Qt's classes by plain names, properties as attributes."""

from __future__ import annotations

import sys
from types import ModuleType

import __feature__
from PySide6 import QtCore, QtGui, QtWidgets

TRUE_PROPERTY = 2
"""PySide6's feature that makes a Qt property an attribute, as PythonQt does: `label.text = "..."`."""


def use_properties_as_attributes(module_name: str) -> None:
    """Switch true properties on for the code of one module."""
    # PySide6 reads the source of every module there is, which torch's make-believe modules do not survive.
    unreal = {name: module for name, module in sys.modules.items() if type(module) is not ModuleType}
    for name in unreal:
        del sys.modules[name]
    try:
        __feature__.set_selection(TRUE_PROPERTY, module_name)
    finally:
        sys.modules.update(unreal)


def install(ui_loader: type, ctk_widgets: dict[str, type]) -> None:
    """Make `import qt` and `import ctk` work."""
    qt, ctk = ModuleType("qt"), ModuleType("ctk")
    for source in (QtCore, QtGui, QtWidgets):
        for name in dir(source):
            if name.startswith("Q"):
                setattr(qt, name, getattr(source, name))
    qt.QUiLoader = ui_loader  # type: ignore[attr-defined]
    qt.Signal = QtCore.Signal  # type: ignore[attr-defined]
    for name, widget in ctk_widgets.items():
        setattr(ctk, name, widget)
    # PythonQt's other word for objectName.
    QtCore.QObject.name = property(lambda self: self.property("objectName"))  # type: ignore[attr-defined]
    sys.modules.update(qt=qt, ctk=ctk)
