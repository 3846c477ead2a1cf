"""From files to a checked CT pair: DICOM series, pixels in HU, two scans on one grid, how well they are aligned."""
