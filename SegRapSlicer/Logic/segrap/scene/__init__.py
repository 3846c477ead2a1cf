"""Contours and CTs in a real MRML scene; the same code in Slicer, in tests and on a server."""
