"""A digit classifier for `weft train`: the file's `make` says what to train, and on what.

    weft train examples/digits.py --epochs 10
    weft train examples/digits.py --epochs 20 --resume    # goes on, to the same bits

The 1,797 digits of 8 x 8 pixels come inside scikit-learn, which `weft[demo]` brings along.
"""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

import weft
from weft import data, nn, optim, train


def make(
    folder: str = "runs/small_digits",
) -> tuple[train.Trainer, data.DataLoader, data.DataLoader]:
    """The trainer, the training batches, the validation batches."""
    weft.manual_seed(0)
    found = load_digits()
    images = weft.from_numpy((found.images[:, None] / 16.0).astype(np.float32))
    rows = data.TensorDataset(images, weft.from_numpy(found.target))
    training, held_out = data.random_split(rows, [0.8, 0.2])

    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(32 * 4 * 4, 10),
    )
    optimizer = optim.AdamW(model.parameters(), lr=3e-3)
    trainer = train.Trainer(
        model,
        nn.CrossEntropyLoss(),
        optimizer,
        metrics={"accuracy": train.Accuracy()},
        scheduler=optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=2),
        callbacks=[
            train.Progress("image"),
            train.EarlyStopping("val_loss", patience=6),
            train.Checkpoint(every=10, monitor="val_loss"),
        ],
        loggers=[train.CSVLogger(f"{folder}/log.csv")],
        folder=folder,
    )
    batches = data.DataLoader(training, batch_size=64, shuffle=True)
    return trainer, batches, data.DataLoader(held_out, batch_size=256)
