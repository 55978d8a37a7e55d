"""lightning's callbacks: early stopping, checkpoints by score, learning-rate monitor, averaging."""

import logging
import tempfile
import warnings

import lightning as L
import torch
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    GradientAccumulationScheduler,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from torch.utils.data import DataLoader, TensorDataset

warnings.simplefilter("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Regression(L.LightningModule):
    def __init__(self, width=8):
        super().__init__()
        self.save_hyperparameters()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(4, width), torch.nn.Tanh(), torch.nn.Linear(width, 1)
        )

    def training_step(self, batch, i):
        return torch.nn.functional.mse_loss(self.net(batch[0]), batch[1])

    def validation_step(self, batch, i):
        self.log("val", torch.nn.functional.mse_loss(self.net(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.05)


class Seen(Callback):
    def __init__(self):
        self.lines = []

    def on_validation_epoch_end(self, trainer, module):
        self.lines.append(f"{trainer.callback_metrics['val']:.5f}")


L.seed_everything(0, verbose=False)
x = torch.randn(64, 4)
data = TensorDataset(x, x.sum(1, keepdim=True))
seen, folder = Seen(), tempfile.mkdtemp()
best = ModelCheckpoint(folder, "best-{epoch}", monitor="val", save_top_k=1)
trainer = L.Trainer(
    max_epochs=6,
    accelerator="cpu",
    logger=False,
    enable_progress_bar=False,
    enable_model_summary=False,
    num_sanity_val_steps=0,
    gradient_clip_val=1.0,
    callbacks=[
        seen,
        best,
        EarlyStopping("val", min_delta=10.0, patience=3),
        GradientAccumulationScheduler({1: 2}),
        StochasticWeightAveraging(0.01),
    ],
)
model = Regression()
trainer.fit(model, DataLoader(data, 16), DataLoader(data, 16))
print(seen.lines, trainer.current_epoch, trainer.global_step)
again = Regression.load_from_checkpoint(best.best_model_path)
print(best.best_model_path.rpartition("/")[2], again.hparams.width)
print([f"{r['val']:.5f}" for r in trainer.validate(again, DataLoader(data, 16), verbose=False)])
