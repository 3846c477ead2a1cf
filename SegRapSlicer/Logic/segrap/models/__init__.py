"""Models: nnU-Net v2 model folders, read without running any code of theirs, and the networks that they describe.

`folder` reads and checks one folder, `network` builds the U-Net and loads its weights, `library` keeps the models that
ship with segrap and those that the user installed. Only `network` imports torch when it is imported.
"""
