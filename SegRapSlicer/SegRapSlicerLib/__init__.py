"""Parts of the SegRapSlicer module's panel that deserve a file of their own. Qt and Slicer live here, work does not."""
