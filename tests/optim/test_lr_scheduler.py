"""Schedules against recorded values of torch's, and against their closed forms."""

import json
import pickle
import warnings
from pathlib import Path

import pytest

import weft
from weft import optim
from weft.optim import lr_scheduler

RECORD = json.loads((Path(__file__).parents[1] / "fixtures/optim.json").read_text())
SCHEDULES = RECORD["schedules"]
PLAIN = SCHEDULES["plain"]


def make():
    params = [weft.Parameter(weft.zeros(2)) for _ in range(2)]
    groups = [{"params": [p], "lr": lr} for p, lr in zip(params, RECORD["lrs"], strict=True)]
    return optim.SGD(groups, momentum=0.9)


def now(optimizer):
    return [[g["lr"] for g in optimizer.param_groups], optimizer.param_groups[0]["momentum"]]


def follow(scheduler, optimizer, metrics=None, steps=24):
    rows = [now(optimizer)]
    for i in range(steps):
        optimizer.step()
        scheduler.step(*([] if metrics is None else [metrics[i]]))
        rows.append(now(optimizer))
    return rows


@pytest.mark.parametrize("case", PLAIN, ids=[f"{c['class']}-{i}" for i, c in enumerate(PLAIN)])
def test_values_equal_torchs_to_the_bit(case):
    optimizer = make()
    scheduler = getattr(lr_scheduler, case["class"])(optimizer, **case["settings"])
    assert follow(scheduler, optimizer) == case["rows"]
    assert scheduler.get_last_lr() == now(optimizer)[0]


@pytest.mark.parametrize("case", SCHEDULES["plateau"])
def test_plateau_equals_torchs(case):
    optimizer = make()
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, **case["settings"])
    assert follow(scheduler, optimizer, RECORD["metrics"]) == case["rows"]


def test_composed_schedules_equal_torchs():
    wanted = SCHEDULES["composed"]
    o = make()
    s = lr_scheduler.LambdaLR(o, [lambda t: 0.9**t, lambda t: 1 / (1 + t)])
    assert follow(s, o) == wanted["lambda"]
    o = make()
    assert follow(lr_scheduler.MultiplicativeLR(o, lambda t: 0.95), o) == wanted["multiplicative"]
    o = make()
    parts = [
        lr_scheduler.ConstantLR(o, 0.1, 3),
        lr_scheduler.LinearLR(o, 0.2, 1.0, 4),
        lr_scheduler.CosineAnnealingLR(o, 9),
    ]
    assert follow(lr_scheduler.SequentialLR(o, parts, [3, 8]), o) == wanted["sequential"]
    o = make()
    parts = [lr_scheduler.ConstantLR(o, 0.1, 5), lr_scheduler.ExponentialLR(o, 0.9)]
    assert follow(lr_scheduler.ChainedScheduler(parts), o) == wanted["chained"]


@pytest.mark.parametrize("case", PLAIN, ids=[f"{c['class']}-{i}" for i, c in enumerate(PLAIN)])
def test_a_restored_schedule_goes_on(case):
    optimizer, other = make(), make()
    cls = getattr(lr_scheduler, case["class"])
    scheduler = cls(optimizer, **case["settings"])
    for _ in range(7):
        optimizer.step()
        scheduler.step()
    again = cls(other, **case["settings"])
    again.load_state_dict(pickle.loads(pickle.dumps(scheduler.state_dict())))
    other.load_state_dict(optimizer.state_dict())
    other.step()
    assert follow(scheduler, optimizer, steps=12) == follow(again, other, steps=12)


@pytest.mark.parametrize("name", ["StepLR", "CosineAnnealingLR", "LinearLR", "PolynomialLR"])
def test_closed_forms_agree_with_the_steps(name):
    case = next(c for c in PLAIN if c["class"] == name)
    optimizer, other = make(), make()
    cls = getattr(lr_scheduler, name)
    scheduler, direct = cls(optimizer, **case["settings"]), cls(other, **case["settings"])
    for epoch in range(1, 10):
        optimizer.step()
        other.step()
        scheduler.step()
        with pytest.warns(UserWarning, match="epoch parameter"):
            direct.step(epoch)
        assert now(optimizer)[0] == pytest.approx(now(other)[0], rel=1e-9, abs=1e-12)


def test_warns_when_stepped_before_the_optimizer():
    optimizer = make()
    scheduler = lr_scheduler.StepLR(optimizer, 2)
    with pytest.warns(UserWarning, match=r"before `optimizer\.step"):
        scheduler.step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scheduler.step()


def test_betas_move_with_one_cycle():
    p = weft.Parameter(weft.zeros(1))
    optimizer = optim.Adam([p], betas=(0.9, 0.98))
    scheduler = lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=10)
    assert optimizer.param_groups[0]["betas"] == (0.95, 0.98)
    for _ in range(2):
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["betas"] == (pytest.approx(0.85), 0.98)
    for _ in range(8):
        scheduler.step()
    with pytest.raises(ValueError, match="Tried to step 11 times"):
        scheduler.step()


def test_a_tensor_lr_changes_in_place():
    p = weft.Parameter(weft.zeros(1))
    lr = weft.tensor(0.5)
    optimizer = optim.SGD([p], lr=lr)
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] is lr and lr.item() == 0.25
    assert scheduler.base_lrs[0].item() == 0.5


def test_arguments_are_checked():
    o = make()
    with pytest.raises(TypeError, match="is not an Optimizer"):
        lr_scheduler.StepLR(3, 1)
    with pytest.raises(KeyError, match="initial_lr"):
        lr_scheduler.StepLR(o, 1, last_epoch=3)
    with pytest.raises(ValueError, match="Expected 2 lr_lambdas, but got 1"):
        lr_scheduler.LambdaLR(o, [lambda t: t])
    with pytest.raises(ValueError, match="total_steps OR"):
        lr_scheduler.OneCycleLR(o, 0.1)
    with pytest.raises(ValueError, match=r"Factor should be < 1\.0"):
        lr_scheduler.ReduceLROnPlateau(o, factor=1.0)
    with pytest.raises(ValueError, match="belong to the same optimizer"):
        parts = [lr_scheduler.StepLR(o, 1), lr_scheduler.StepLR(make(), 1)]
        lr_scheduler.SequentialLR(o, parts, [2])
    with pytest.raises(ValueError, match="one more than"):
        lr_scheduler.SequentialLR(o, [lr_scheduler.StepLR(o, 1)], [2])
