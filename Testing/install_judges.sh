#!/bin/sh
# The independent programs that judge our RTSTRUCT files in the tests.
here=$(dirname "$0")
sh "$here/install_debian.sh" dicom3tools "command -v dciodvfy" "judges DICOM conformance; its tests are skipped"
sh "$here/install_debian.sh" plastimatch "command -v plastimatch" "reads RTSTRUCT back; its tests are skipped"
# What Qt needs to draw without a screen, for the tests of the panel.
for package in libegl1 libgl1 libxkbcommon0 libdbus-1-3 libfontconfig1 libglib2.0-0 fonts-dejavu-core; do
    sh "$here/install_debian.sh" "$package" "dpkg -s $package" "for the tests of the panel"
done
