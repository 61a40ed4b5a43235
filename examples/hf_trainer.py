"""A student of your own in Hugging Face's Trainer: python examples/hf_trainer.py STORE AUDIO [EPOCHS]"""

import sys
import tempfile

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import Trainer, TrainerCallback, TrainingArguments

from logitstore import ReplayDataset, open_store
from logitstore.views.mel import CED


class Student(nn.Module):
    """A small net over masked log-mels (B, 64, T); the Trainer gives it a batch's entries by their names."""

    def __init__(self, classes: int, width: int = 128) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.BatchNorm1d(64),
            nn.Conv1d(64, width, kernel_size=9, stride=4),
            nn.ReLU(),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
            nn.Linear(width, classes),
        )

    def forward(self, log_mel: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.net(log_mel)
        return {"loss": binary_cross_entropy_with_logits(logits, target), "logits": logits}


class NextView(TrainerCallback):
    """Every epoch hears the next view of each clip."""

    def __init__(self, data: ReplayDataset) -> None:
        self.data = data

    def on_epoch_begin(self, args, state, control, **_):
        self.data.set_epoch(int(state.epoch or 0))


if __name__ == "__main__":
    store = open_store(sys.argv[1])
    data = ReplayDataset(store, sys.argv[2], front_end=CED)
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            num_train_epochs=int(sys.argv[3]) if len(sys.argv) > 3 else store.views,
            per_device_train_batch_size=32,
            learning_rate=2e-3,
            remove_unused_columns=False,  # the dataset is no table of the datasets library
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        )
        trainer = Trainer(
            model=Student(len(store.manifest.classes)),
            args=arguments,
            train_dataset=data,
            data_collator=lambda items: {
                name: torch.stack([item[name] for item in items]) for name in ("log_mel", "target")
            },
            callbacks=[NextView(data)],
        )
        print(f"loss {trainer.train().training_loss:.4f}")
