#!/bin/sh
# The independent programs that judge our RTSTRUCT files in the tests.
here=$(dirname "$0")
sh "$here/install_debian.sh" dicom3tools "command -v dciodvfy" "judges DICOM conformance; its tests are skipped"
sh "$here/install_debian.sh" plastimatch "command -v plastimatch" "reads RTSTRUCT back; its tests are skipped"
