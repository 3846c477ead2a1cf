"""The few errors that leave the rooms of segrap, each with the exit status that the command line returns for it.

The message of every one of them is written for the person in front of the screen: what is wrong, with the numbers that
show it, and what to do next. Nothing else is raised on purpose; any other exception is a defect of this software.
"""

from __future__ import annotations


class SegRapError(Exception):
    """Base of all errors with a message for the user; `exit_status` is what `segrap` returns to the shell.

    about: what the person may choose otherwise ("output", "device", "model", "demonstration", "order"), "" for none.
    Where it is chosen differs, so the message does not say it: the terminal and the panel add their own words.
    """

    exit_status = 1

    def __init__(self, message: str = "", about: str = "") -> None:
        super().__init__(message)
        self.about = about


class UsageError(SegRapError):
    """The command or call contradicts itself (an unknown structure name, an option without its partner)."""

    exit_status = 2


class InputError(SegRapError):
    """The images, contours or DICOM files that were given cannot be used."""

    exit_status = 3


class ModelError(SegRapError):
    """The model folder is incomplete, unsafe, or asks for something that cannot be honoured exactly."""

    exit_status = 4


class ResourceError(SegRapError):
    """Something the job needs is not there: memory, or the device that was asked for."""

    exit_status = 5


class OutputError(ResourceError):
    """The result cannot be written: the disk is full or the folder is read-only. Nothing partial is left behind."""


class Cancelled(SegRapError):
    """The user stopped the job."""

    exit_status = 130
