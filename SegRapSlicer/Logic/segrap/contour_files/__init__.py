"""Contours to and from files: Slicer's .seg.nrrd, the challenge's stacks, one NIfTI per structure, a table."""
