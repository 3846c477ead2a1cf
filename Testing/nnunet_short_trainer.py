"""A trainer of nnunetv2 for the test of the recipe: two short epochs, and a stop after the first when it is asked to.

nnunetv2 finds it through nnUNet_extTrainer.
"""

import os
from pathlib import Path

from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring import (
    nnUNetTrainer_onlyMirror01,
)


class nnUNetTrainer_onlyMirror01_2epochs(nnUNetTrainer_onlyMirror01):  # noqa: N801
    def __init__(self, plans, configuration, fold, dataset_json, device):  # nnunetv2 asks for these very names
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs, self.save_every = 2, 1
        self.num_iterations_per_epoch = self.num_val_iterations_per_epoch = 1

    def on_epoch_end(self):
        super().on_epoch_end()
        if Path(os.environ["STOP_AFTER_ONE_EPOCH"]).exists():
            raise SystemExit(9)
