"""CED's own recipe (arXiv 2308.11957), of its published code and configs: github.com/RicherMans/CED.

``ced-SIZE`` is the config for the whole of AudioSet, ``ced-SIZE-balanced`` that for its balanced set of 20,550 clips.
What is not here is the same by default: the loss, betas and epsilon, no EMA, clipping, dropout or drop
path, sampling without weights. Of the store it wants the recipe ``ced``, 20 classes a view, and 40 views.
"""

from students.presets import Preset

#: The highest learning rate, whatever the batch.
_RATES = {"ced-tiny": 1e-3, "ced-mini": 1e-3, "ced-small": 3e-4, "ced-base": 3e-4}

_ALWAYS = {
    "optimizer": "adam8bit",
    "weight_decay": 0.0,
    "floor": 0.1,
    "cosine": "all",
    "precision": "fp16",
    "epochs": 300,
    "tail": "zero",
    "hold_out": 0.0,  # it learns from every clip
    "average_best": 4,
    "patience": 10,  # measurements, not epochs
    "select_by": "mAP",
}
_WHOLE = {"batch_size": 128, "epoch_steps": 6_250, "warm_up": 62_500, "eval_every": 3}
_BALANCED = {"batch_size": 32, "warm_up": 5_000, "eval_every": 5, "mixup": 0.5}

_START = "weights that a masked autoencoder of its size learnt on AudioSet"
_INIT = "--init ced:FILE --new-head"

PRESETS = {
    f"{size}{ending}": Preset({"student": size, "lr": rate, **_ALWAYS, **own}, _START, _INIT)
    for ending, own in (("", _WHOLE), ("-balanced", _BALANCED))
    for size, rate in _RATES.items()
}
