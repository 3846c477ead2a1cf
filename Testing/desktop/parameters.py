"""A parameter node wrapper to the contract of Slicer's `slicer.parameterNodeWrapper`, for the types the module uses.

str, bool, list[str] and node types; written into a real vtkMRMLScriptedModuleNode under the names that Slicer gives
them, so that a scene saved by one is read by the other. Anything else is refused, as a reminder to extend this.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_type_hints

import slicer


def parameter_node_wrapper(cls: type) -> type:
    """The class decorator: annotated members become properties kept in the node given to the constructor."""
    names = get_type_hints(cls)
    for name, kind in names.items():
        default = getattr(cls, name, [] if kind == list[str] else None if _is_node(kind) else kind())
        setattr(cls, name, property(*_accessors(name, kind, default)))

    def initialise(self: Any, node: Any) -> None:
        self.parameterNode = node
        self._guis = {}

    def connect_gui(self: Any, ui: Any) -> int:
        widgets = {}
        for widget in vars(ui).values():
            name = widget.property("SlicerParameterName")
            if name:
                if name not in names:
                    raise ValueError(f"Cannot find a param with the given name: {name}")
                widgets[name] = _connector(widget, names[name])
        updating = []

        def show(*_: Any) -> None:
            updating.append(True)
            for name, connector in widgets.items():
                connector.write(getattr(self, name))
            updating.pop()

        def taker(name: str) -> Callable[..., None]:
            def take(*_: Any) -> None:
                if not updating:
                    setattr(self, name, widgets[name].read())

            return take

        show()
        connections = [(connector.changed, taker(name)) for name, connector in widgets.items()]
        for signal, slot in connections:
            signal.connect(slot)
        tag = max(self._guis, default=-1) + 1
        self._guis[tag] = (connections, self.parameterNode.AddObserver("ModifiedEvent", show))
        return tag

    def disconnect_gui(self: Any, tag: int) -> None:
        connections, observer = self._guis.pop(tag)
        for signal, slot in connections:
            signal.disconnect(slot)
        self.parameterNode.RemoveObserver(observer)

    cls.__init__ = initialise  # type: ignore[misc]
    cls.connectGui = connect_gui  # type: ignore[attr-defined]
    cls.disconnectGui = disconnect_gui  # type: ignore[attr-defined]
    cls.AddObserver = lambda self, event, callback, priority=0.0: self.parameterNode.AddObserver(  # type: ignore[attr-defined]
        event, callback, priority
    )
    cls.RemoveObserver = lambda self, tag: self.parameterNode.RemoveObserver(tag)  # type: ignore[attr-defined]
    cls.Modified = lambda self: self.parameterNode.Modified()  # type: ignore[attr-defined]
    return cls


def _is_node(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, slicer.vtkMRMLNode)


def _accessors(name: str, kind: Any, default: Any) -> tuple[Callable[[Any], Any], Callable[[Any, Any], None]]:
    def read(self: Any) -> Any:
        node = self.parameterNode
        if _is_node(kind):
            return node.GetNodeReference(name)
        if kind == list[str]:
            length = node.GetParameter(f"{name}.len")
            return [node.GetParameter(f"{name}.{number}") for number in range(int(length))] if length else list(default)
        text = node.GetParameter(name)
        if kind is bool:
            return text == "True" if text else default
        return text if text or name in node.GetParameterNames() else default

    def write(self: Any, value: Any) -> None:
        node = self.parameterNode
        with slicer.util.NodeModify(node):
            if _is_node(kind):
                node.SetParameter(name, "")  # how Slicer tells None from a parameter that was never set
                node.SetNodeReferenceID(name, value.GetID() if value else None)
            elif kind == list[str]:
                for number, text in enumerate(value):
                    node.SetParameter(f"{name}.{number}", text)
                node.SetParameter(f"{name}.len", str(len(value)))
            elif kind in (bool, str):
                node.SetParameter(name, str(value))
            else:
                raise TypeError(f"{name}: {kind} is not supported by this stand-in")

    return read, write


class _NodeConnector:
    def __init__(self, widget: Any) -> None:
        self.changed = widget.currentNodeChanged
        self.read, self.write = widget.currentNode, widget.setCurrentNode


class _CheckBoxConnector:
    def __init__(self, widget: Any) -> None:
        self.changed = widget.toggled
        self.read = lambda: widget.property("checked")
        self.write = lambda value: widget.setProperty("checked", value)


def _connector(widget: Any, kind: Any) -> Any:
    if _is_node(kind) and isinstance(widget, slicer.qMRMLNodeComboBox):
        return _NodeConnector(widget)
    if kind is bool and widget.metaObject().className() == "QCheckBox":
        return _CheckBoxConnector(widget)
    raise RuntimeError(f"Unable to find a connector for {widget} and {kind}")
