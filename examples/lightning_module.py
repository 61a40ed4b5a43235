"""A student of your own as a Lightning module: python examples/lightning_module.py STORE AUDIO [EPOCHS]

The data module moves the dataset on to the next view of every clip at the start of each epoch; the workers follow.
"""

import sys

import lightning
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader

from logitstore import ReplayDataset, open_store
from logitstore.views.mel import CED


class Student(lightning.LightningModule):
    """A small net over masked log-mels (B, 64, T), held to what the teachers said."""

    def __init__(self, classes: int, width: int = 128) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(
            nn.BatchNorm1d(64),
            nn.Conv1d(64, width, kernel_size=9, stride=4),
            nn.ReLU(),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
            nn.Linear(width, classes),
        )

    def forward(self, log_mel: torch.Tensor) -> torch.Tensor:
        return self.net(log_mel)

    def training_step(self, batch: dict[str, torch.Tensor], number: int) -> torch.Tensor:
        loss = binary_cross_entropy_with_logits(self(batch["log_mel"]), batch["target"])
        self.log("loss", loss, prog_bar=True, on_epoch=True, batch_size=len(batch["target"]))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=2e-3)


class Replayed(lightning.LightningDataModule):
    """The views of a store, in every epoch the next of each clip."""

    def __init__(self, store: str, audio: str) -> None:
        super().__init__()
        self.data = ReplayDataset(store, audio, front_end=CED)

    def train_dataloader(self) -> DataLoader:
        self.data.set_epoch(self.trainer.current_epoch)
        return DataLoader(self.data, batch_size=32, shuffle=True)


if __name__ == "__main__":
    store = open_store(sys.argv[1])
    trainer = lightning.Trainer(
        max_epochs=int(sys.argv[3]) if len(sys.argv) > 3 else store.views,
        reload_dataloaders_every_n_epochs=1,  # so that every epoch hears the next view
        accelerator="auto",
        logger=False,
        enable_checkpointing=False,
    )
    trainer.fit(Student(len(store.manifest.classes)), datamodule=Replayed(sys.argv[1], sys.argv[2]))
    print(f"loss {float(trainer.callback_metrics['loss_epoch']):.4f}")
