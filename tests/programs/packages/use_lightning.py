"""lightning: a module trained by its Trainer, with validation, a schedule and a checkpoint."""

import logging
import tempfile
import warnings
from pathlib import Path

import lightning as L
import torch
from torch.utils.data import DataLoader, TensorDataset

warnings.simplefilter("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Classifier(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)
        )

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = torch.nn.functional.cross_entropy(self.net(x), y)
        self.log("loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val", torch.nn.functional.cross_entropy(self.net(x), y))

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), 1e-2)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]


L.seed_everything(0, verbose=False)
data = TensorDataset(torch.randn(64, 4), torch.randint(2, (64,)))
model, folder = Classifier(), tempfile.mkdtemp()
trainer = L.Trainer(
    max_epochs=2,
    accelerator="cpu",
    logger=False,
    enable_progress_bar=False,
    enable_model_summary=False,
    default_root_dir=folder,
)
trainer.fit(model, DataLoader(data, 16, shuffle=True), DataLoader(data, 16))
print({k: round(v.item(), 5) for k, v in trainer.callback_metrics.items()}, trainer.global_step)
(checkpoint,) = Path(folder).rglob("*.ckpt")
state = torch.load(checkpoint, weights_only=False)
print(checkpoint.name, sorted(state["state_dict"]), state["global_step"])
