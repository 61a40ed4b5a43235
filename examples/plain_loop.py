"""A student of your own in a plain PyTorch loop: python examples/plain_loop.py STORE AUDIO [EPOCHS]"""

import sys

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader

from logitstore import ReplayDataset, open_store
from logitstore.views.mel import CED

store = open_store(sys.argv[1])
epochs = int(sys.argv[3]) if len(sys.argv) > 3 else store.views

# every item: a log-mel (64 bands, 10 ms) of the view that the teachers heard, its masks filled in, and what they said
data = ReplayDataset(store, sys.argv[2], front_end=CED)
loader = DataLoader(data, batch_size=32, shuffle=True)

student = nn.Sequential(
    nn.BatchNorm1d(64),
    nn.Conv1d(64, 128, kernel_size=9, stride=4),
    nn.ReLU(),
    nn.Conv1d(128, 128, kernel_size=9, stride=4),
    nn.ReLU(),
    nn.AdaptiveAvgPool1d(1),
    nn.Flatten(),
    nn.Linear(128, len(store.manifest.classes)),
)
optimizer = torch.optim.AdamW(student.parameters(), lr=2e-3)

for epoch in range(epochs):
    data.set_epoch(epoch)  # the next view of every clip
    losses = []
    for batch in loader:
        logits = student(batch["log_mel"])  # (B, 64, T) -> (B, C)
        loss = binary_cross_entropy_with_logits(logits, batch["target"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    print(f"epoch {epoch}: loss {sum(losses) / len(losses):.4f}")
