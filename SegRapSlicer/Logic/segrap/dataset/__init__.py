"""The benchmark's data: finding it on disk, checking it, turning it into nnU-Net's form, measuring it."""
