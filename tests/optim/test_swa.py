"""Averaged models and the schedule towards them."""

import json
from pathlib import Path

import numpy as np
import pytest

import weft
from weft import nn, optim
from weft.optim import swa_utils

RECORD = json.loads((Path(__file__).parents[1] / "fixtures/optim.json").read_text())


@pytest.mark.parametrize("case", RECORD["swalr"])
def test_swalr_is_torchs(case):
    params = [weft.Parameter(weft.zeros(2)) for _ in range(2)]
    groups = [{"params": [p], "lr": lr} for p, lr in zip(params, RECORD["lrs"], strict=True)]
    optimizer = optim.SGD(groups, momentum=0.9)
    scheduler = swa_utils.SWALR(optimizer, **case["settings"])
    for row in case["rows"]:
        assert [g["lr"] for g in optimizer.param_groups] == pytest.approx(row[0], rel=1e-12)
        optimizer.step()
        scheduler.step()


def walk(averaged, model, steps=4):
    seen = []
    for i in range(steps):
        with weft.no_grad():
            model.weight.fill_(float(i * i + 1))
        seen.append(float(i * i + 1))
        averaged.update_parameters(model)
    assert averaged.n_averaged.item() == steps
    return averaged.module.weight.detach().numpy(), seen


def test_the_equal_mean():
    model = nn.Linear(2, 3)
    for fn in (None, swa_utils.get_swa_multi_avg_fn()):
        got, seen = walk(swa_utils.AveragedModel(model, multi_avg_fn=fn), model)
        np.testing.assert_allclose(got, np.full((3, 2), np.mean(seen)), rtol=1e-6)


@pytest.mark.parametrize("kind", ["one", "many"])
def test_the_moving_mean(kind):
    model = nn.Linear(2, 3)
    if kind == "one":
        averaged = swa_utils.AveragedModel(model, avg_fn=swa_utils.get_ema_avg_fn(0.75))
    else:
        averaged = swa_utils.AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.75))
    got, seen = walk(averaged, model)
    mean = seen[0]
    for x in seen[1:]:
        mean = 0.75 * mean + 0.25 * x
    np.testing.assert_allclose(got, np.full((3, 2), mean), rtol=1e-6)


def test_buffers_are_copied_or_averaged():
    model = nn.BatchNorm1d(2)
    copied = swa_utils.AveragedModel(model)
    both = swa_utils.AveragedModel(model, use_buffers=True)
    for value in (1.0, 3.0):
        model.running_mean.fill_(value)
        copied.update_parameters(model)
        both.update_parameters(model)
    assert copied.module.running_mean.tolist() == [3, 3]
    assert both.module.running_mean.tolist() == [2, 2]


def test_update_bn_computes_the_statistics_of_the_loader():
    rng = np.random.default_rng(0)
    batches = [weft.from_numpy(rng.standard_normal((8, 3)).astype(np.float32)) for _ in range(3)]
    model = nn.Sequential(nn.BatchNorm1d(3)).eval()
    swa_utils.update_bn([(b, 0) for b in batches], model)
    mean = np.mean([b.numpy().mean(0) for b in batches], axis=0)
    var = np.mean([b.numpy().var(0, ddof=1) for b in batches], axis=0)
    np.testing.assert_allclose(model[0].running_mean.numpy(), mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(model[0].running_var.numpy(), var, rtol=1e-4)
    assert model[0].momentum == 0.1 and not model.training
