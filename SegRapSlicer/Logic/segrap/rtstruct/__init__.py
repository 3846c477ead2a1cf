"""RTSTRUCT, the file in which contours travel to a treatment planning system: written, read, and checked."""
