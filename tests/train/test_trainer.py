"""The Trainer beside a loop written by hand, and each of its events."""

from __future__ import annotations

import io as textio
import json
import math

import numpy as np
import pytest

import weft
import weft.nn.functional as F
from weft import data, nn, optim, train


def points(n: int = 20, seed: int = 0) -> data.TensorDataset:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 3)).astype(np.float32)
    return data.TensorDataset(weft.tensor(x), weft.tensor((x[:, 0] > 0).astype(np.int64)))


def net() -> nn.Sequential:
    weft.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2))


def trainer_of(model: nn.Module, folder, **kw) -> train.Trainer:
    lr = kw.pop("lr", 0.1)
    return train.Trainer(
        model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=lr), folder=folder, **kw
    )


def loader(n: int = 20, **kw) -> data.DataLoader:
    return data.DataLoader(points(n), batch_size=6, **kw)


@pytest.mark.parametrize("compile", [False, True])
def test_fit_is_the_loop_one_would_write(compile, tmp_path):
    rows, model = points(), net()
    optimizer = optim.AdamW(model.parameters(), lr=0.01)
    schedule = optim.lr_scheduler.StepLR(optimizer, 3, 0.5)
    weft.manual_seed(2)
    wanted = []
    for _ in range(3):
        model.train()
        total = 0.0
        for x, y in data.DataLoader(rows, batch_size=6, shuffle=True):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            schedule.step()
            total += loss.item() * len(y)
        wanted.append(total / len(rows))

    other = net()
    optimizer = optim.AdamW(other.parameters(), lr=0.01)
    weft.manual_seed(2)
    trainer = train.Trainer(
        other, nn.CrossEntropyLoss(), optimizer, folder=tmp_path, compile=compile, max_norm=0.5,
        scheduler=optim.lr_scheduler.StepLR(optimizer, 3, 0.5), schedule="step",
    )  # fmt: skip
    history = trainer.fit(data.DataLoader(rows, batch_size=6, shuffle=True), epochs=3)
    assert [h["loss"] for h in history] == wanted
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert a.detach().numpy().tobytes() == b.detach().numpy().tobytes()
    assert (trainer.epoch, trainer.step, trainer.batch) == (3, 12, 0)


def test_validate_test_and_predict(tmp_path):
    model = net()
    trainer = trainer_of(model, tmp_path, metrics={"accuracy": train.Accuracy()})
    rows = points(13)
    x, y = rows.tensors
    model.eval()
    logits = model(x).detach()
    model.train()
    found = trainer.validate(data.DataLoader(rows, batch_size=5))
    share = float((logits.numpy().argmax(1) == y.numpy()).mean())
    assert found["val_accuracy"] == pytest.approx(share, abs=1e-12)
    assert found["val_loss"] == pytest.approx(F.cross_entropy(logits, y).item(), rel=1e-6)
    assert trainer.test(data.DataLoader(rows, batch_size=5)) == {
        f"test_{k[4:]}": v for k, v in found.items()
    }
    with_targets = trainer.predict(data.DataLoader(rows, batch_size=5))
    inputs_only = trainer.predict(x.split(4))
    assert (
        with_targets.numpy().tobytes() == inputs_only.numpy().tobytes() == logits.numpy().tobytes()
    )
    assert model.training and not with_targets.requires_grad
    with pytest.raises(ValueError, match="no batches"):
        trainer.predict([])


def test_validation_does_not_touch_the_training_metrics(tmp_path):
    trainer = trainer_of(net(), tmp_path, metrics={"accuracy": train.Accuracy()})
    trainer.fit(loader(), loader(9), epochs=1)
    assert trainer.running()["loss"] == trainer.history[0]["loss"]
    assert trainer.metrics["accuracy"].count == 20


def test_clipping_bounds_the_update(tmp_path):
    model = nn.Sequential(nn.Linear(3, 2))
    before = [p.detach().clone() for p in model.parameters()]
    trainer = trainer_of(model, tmp_path, lr=1.0, max_norm=1e-3)
    trainer.fit(loader(6), epochs=1)
    moved = math.sqrt(sum(((p - q) ** 2).sum().item() for p, q in zip(model.parameters(), before)))
    assert moved == pytest.approx(1e-3, rel=1e-3)


def test_plateau_schedule_follows_the_monitored_value(tmp_path):
    model = net()
    optimizer = optim.SGD(model.parameters(), lr=0.0)  # nothing becomes better
    optimizer.param_groups[0]["lr"] = 0.0
    plateau = optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=1)
    trainer = train.Trainer(
        model, nn.CrossEntropyLoss(), optimizer, scheduler=plateau, folder=tmp_path
    )
    seen = []

    class Rates(train.Callback):
        def on_epoch_end(self, trainer):
            seen.append(optimizer.param_groups[0]["lr"])
            optimizer.param_groups[0]["lr"] = max(seen[-1], 0.0)

    trainer.callbacks.append(Rates())
    trainer.fit(loader(), loader(9), epochs=2)
    assert plateau.num_bad_epochs == 1 and plateau.best == trainer.history[0]["val_loss"]
    with pytest.raises(KeyError, match="val_loss"):
        trainer_of(net(), tmp_path, scheduler=plateau).fit(loader(), epochs=1)


def test_early_stopping_counts_epochs_without_progress(tmp_path):
    model = net()
    stop = train.EarlyStopping("loss", patience=2)
    trainer = trainer_of(model, tmp_path, callbacks=[stop], compile=False)
    values = iter([3.0, 2.0, 2.5, float("nan"), 1.0])
    trainer.running = lambda: {"loss": next(values)}  # type: ignore[method-assign]
    assert len(trainer.fit(loader(), epochs=5)) == 4
    assert (stop.best, stop.waited) == (2.0, 2)


@pytest.mark.parametrize(
    ("mode", "min_delta", "values", "epochs"),
    [("max", 0.0, [1, 2, 3, 4], 4), ("max", 1.5, [1, 2, 3, 4], 2), ("min", 0.0, [1, 1, 0, 0], 2)],
)
def test_early_stopping_mode_and_margin(mode, min_delta, values, epochs, tmp_path):
    stop = train.EarlyStopping("loss", patience=1, min_delta=min_delta, mode=mode)
    trainer = trainer_of(net(), tmp_path, callbacks=[stop], compile=False)
    left = iter(values)
    trainer.running = lambda: {"loss": float(next(left))}  # type: ignore[method-assign]
    assert len(trainer.fit(loader(), epochs=4)) == epochs


def test_checkpoint_keeps_the_best_epoch(tmp_path):
    model = net()
    keep = train.Checkpoint(monitor="val_loss", mode="max")
    trainer = trainer_of(model, tmp_path, callbacks=[keep], compile=False)
    values = iter([1.0, 3.0, 2.0])
    trainer.validate = lambda _: {"val_loss": next(values)}  # type: ignore[method-assign]
    trainer.fit(loader(), loader(), epochs=3)
    other = trainer_of(net(), tmp_path, callbacks=[train.Checkpoint()], compile=False)
    assert other.load_checkpoint(tmp_path / "best.weft")
    assert (other.epoch, other.results["val_loss"]) == (2, 3.0)
    assert not other.load_checkpoint(tmp_path / "none.weft")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.weft", "last.weft"]


def test_checkpoints_come_after_the_other_callbacks(tmp_path):
    keep, stop = train.Checkpoint(), train.EarlyStopping("loss")
    assert trainer_of(net(), tmp_path, callbacks=[keep, stop]).callbacks == [stop, keep]


def test_monitors_log_what_each_step_used(tmp_path):
    model = net()
    optimizer = optim.SGD(
        [{"params": model[0].parameters()}, {"params": model[3].parameters()}], 0.5
    )
    schedule = optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    logger = train.CSVLogger(tmp_path / "log.csv")
    trainer = train.Trainer(
        model, nn.CrossEntropyLoss(), optimizer, scheduler=schedule, schedule="step",
        callbacks=[train.LearningRateMonitor(), train.LossMonitor(2)], loggers=[logger],
        folder=tmp_path,
    )  # fmt: skip
    trainer.fit(loader(), epochs=1)
    rows = [r.split(",") for r in (tmp_path / "log.csv").read_text().splitlines()]
    assert rows[0] == ["step", "name", "value"]
    assert [r for r in rows if r[1] == "lr/0"] == [
        [str(i + 1), "lr/0", str(0.5 * 0.5**i)] for i in range(4)
    ]
    assert [r[0] for r in rows if r[1] == "loss_step"] == ["2", "4"]
    assert float(next(r[2] for r in rows if r[1] == "loss")) == trainer.history[0]["loss"]


class Terminal(textio.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_text(terminal, tmp_path):
    out = Terminal() if terminal else textio.StringIO()
    trainer = trainer_of(
        net(), tmp_path, metrics={"accuracy": train.Accuracy()},
        callbacks=[train.Progress("point", out)],
    )  # fmt: skip
    history = trainer.fit(loader(), loader(9), epochs=2)
    lines = [x for x in out.getvalue().replace("\r", "\n").split("\n") if x]
    last = lines[-1]
    assert last.startswith("epoch 2/2")
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert f"{name} {history[-1][name]:.4f}" in last
    assert "points/s" in last
    assert any(" 0/4" in x for x in lines) == terminal  # the bar, cleared before the line
    assert sum("val_loss" in x for x in lines) == 2
    assert terminal or len(lines) == 2


def test_an_exception_ends_the_bar_and_flushes_the_logs(tmp_path):
    class Fails(train.Callback):
        def on_step_end(self, trainer):
            raise ArithmeticError

    out = Terminal()
    trainer = trainer_of(
        net(), tmp_path, callbacks=[train.LossMonitor(), train.Progress(file=out), Fails()],
        loggers=[train.CSVLogger(tmp_path / "log.csv")],
    )  # fmt: skip
    with pytest.raises(ArithmeticError):
        trainer.fit(loader(), epochs=1)
    assert out.getvalue().endswith("\r")  # the bar is cleared
    assert "1,loss_step," in (tmp_path / "log.csv").read_text()


def test_mistakes_are_named(tmp_path):
    with pytest.raises(ValueError, match="'step' or 'epoch', not 'batch'"):
        trainer_of(net(), tmp_path, schedule="batch")
    with pytest.raises(ValueError, match="another name"):
        trainer_of(net(), tmp_path, metrics={"loss": train.Mean()})
    with pytest.raises(ValueError, match="every is a number of steps >= 1, not 0"):
        train.Checkpoint(0)
    with pytest.raises(ValueError, match="'min' or 'max', not 'best'"):
        train.EarlyStopping(mode="best")
    stop = train.EarlyStopping("val_f1")
    with pytest.raises(KeyError, match="'val_f1'; the results are"):
        trainer_of(net(), tmp_path, callbacks=[stop]).fit(loader(), epochs=1)
    batches = list(loader())
    keep = train.Checkpoint(every=2)
    with pytest.raises(RuntimeError, match=r"after batch 2 .* this list has none"):
        trainer_of(net(), tmp_path, callbacks=[keep]).fit(batches, epochs=1)


def test_a_plain_list_of_batches_resumes_at_epochs(tmp_path):
    batches = list(loader())
    for epochs in (1, 3):
        model = net()
        trainer = trainer_of(model, tmp_path / "two", callbacks=[train.Checkpoint()])
        trainer.fit(batches, epochs=epochs, resume=True)
    whole = net()
    once = trainer_of(whole, tmp_path / "one", callbacks=[train.Checkpoint()])
    once.fit(batches, epochs=3)
    assert json.dumps(once.history) == json.dumps(trainer.history)
    for a, b in zip(model.parameters(), whole.parameters(), strict=True):
        assert weft.equal(a, b)
