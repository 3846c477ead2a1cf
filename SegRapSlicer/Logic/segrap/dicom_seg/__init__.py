"""Contours as DICOM Segmentation objects: writing and reading."""
