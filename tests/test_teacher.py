"""The EMA teacher and the ramps."""

import math

import pytest
import torch
from torch import nn

from semimedref_core.config import Config
from semimedref_core.step import learning_rate, schedule
from semimedref_core.teacher import Teacher, ema_decay, follow, half_life, ramp


def networks():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5))


def test_the_teacher_is_the_moving_average_of_parameters_and_buffers():
    """Eq. 14"""
    student = networks()
    teacher = Teacher(student)
    expected = {name: value.clone().double() for name, value in student.state_dict().items()}
    for step, decay in enumerate((0.9, 0.5, 0.99)):
        student(torch.randn(4, 1, 8, 8) + step)  # moves the running statistics
        for parameter in student.parameters():
            parameter.data += torch.randn_like(parameter)
        teacher.update(student, decay)
        for name, value in student.state_dict().items():
            if value.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * value.double()
            else:
                expected[name] = value.double()
    for name, value in teacher.network.state_dict().items():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-6)


def followed(average, network, share):
    """Eq. 14 by the names of ``state_dict``."""
    for name, ours in average.state_dict().items():
        theirs = network.state_dict()[name]
        if not ours.is_floating_point():
            ours.copy_(theirs)
        elif isinstance(share, torch.Tensor):
            ours.add_((theirs - ours) * share)
        else:
            ours.lerp_(theirs, share)


def assert_same(first, second):
    ours, theirs = first.state_dict(), second.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("share", [0.01, torch.tensor(0.01)], ids=["number", "tensor"])
def test_it_follows_bit_for_bit_whatever_happens_to_the_networks_between(share):
    """Its list of tensors is made once; loading and moving put other tensors in their places."""
    student = networks()
    teacher, expected = Teacher(student).network, Teacher(student).network
    other = networks().double()

    def moved():
        with torch.no_grad():
            for parameter in student.parameters():
                parameter.add_(torch.randn_like(parameter))
        student.train()(torch.randn(4, 1, 8, 8, dtype=student[0].weight.dtype))
        follow(teacher, student, share)
        followed(expected, student, share)
        assert_same(teacher, expected)

    moved()
    student.load_state_dict(networks().state_dict())
    moved()
    for network in (student, teacher, expected):
        network.double()
    moved()
    student.load_state_dict(other.state_dict(), assign=True)
    moved()
    assert student[1].num_batches_tracked == teacher[1].num_batches_tracked > 0
    for network in (student, teacher):
        network.to("meta")
    follow(teacher, student, share)  # which takes tensors of one device only


def test_a_step_of_it_walks_no_modules(monkeypatch):
    student = networks()
    teacher = Teacher(student)
    teacher.update(student, 0.9)
    monkeypatch.setattr(nn.Module, "state_dict", None)
    monkeypatch.setattr(nn.Module, "named_modules", None)
    teacher.update(student, 0.9)


def test_it_is_always_in_eval_mode_without_gradients_and_apart_from_the_student():
    student = networks().train()
    teacher = Teacher(student)
    assert not teacher.network.training and student.training
    assert not any(parameter.requires_grad for parameter in teacher.network.parameters())
    x = torch.randn(2, 1, 8, 8)
    before = teacher(x)
    for parameter in student.parameters():
        parameter.data.zero_()
    assert torch.equal(teacher(x), before)


def test_the_unsupervised_weight_is_0_in_burn_in_then_rises_linearly_to_1():
    """Eq. 15"""
    assert [ramp(step, start=10, length=4) for step in (0, 9, 10, 11, 12, 14, 100)] == [0, 0, 0, 0.25, 0.5, 1, 1]
    assert ramp(10, 10, 0) == 1.0


def test_the_decay_rises_after_burn_in_and_forgets_the_untrained_start():
    """Eq. 16"""
    assert ema_decay(0, 100, 200, 0.99, 0.999) == pytest.approx(0.1)
    assert ema_decay(1000, 2000, 200, 0.99, 0.999) == 0.99
    assert ema_decay(2100, 2000, 200, 0.99, 0.999) == pytest.approx(0.9945)
    assert ema_decay(9000, 2000, 200, 0.99, 0.999) == pytest.approx(0.999 if 9001 / 9010 > 0.999 else 9001 / 9010)


def test_the_early_bound_makes_the_teacher_look_back_over_a_tenth_of_the_steps():
    """Weights of the student's past in the teacher, from the decays alone: they sum to 1 and their mean age is T/10."""
    steps = 2000
    decays = [ema_decay(step, steps, 0, 1.0, 1.0) for step in range(steps)]
    later = [math.prod(decays[step + 1 :]) for step in range(steps)]
    weights = [(1 - decay) * kept for decay, kept in zip(decays, later, strict=True)]
    assert sum(weights) == pytest.approx(1, abs=1e-12)
    age = sum(weight * (steps - 1 - step) for step, weight in enumerate(weights))
    assert age == pytest.approx(steps / 10, rel=0.01)


def test_the_half_life_is_when_half_is_forgotten():
    assert 0.99 ** half_life(0.99) == pytest.approx(0.5)
    assert half_life(0.5) == 1


def test_the_schedule_of_a_run_brings_weight_and_decay_up_together():
    """Eq. 15 and Eq. 16, from the settings: burn-in and ramp are shares of the steps."""
    config = Config(
        steps=10_000, burn_in=0.2, ramp=0.5, unsupervised_weight=0.3, ema_decay=0.99, ema_decay_last=0.998, lr=1e-3
    )
    burnt_in, half, risen, last = (schedule(config, step) for step in (2000, 4500, 7000, 9999))
    assert [now.w_u for now in (burnt_in, half, risen, last)] == pytest.approx([0, 0.15, 0.3, 0.3])
    assert [now.decay for now in (burnt_in, half, risen, last)] == pytest.approx([0.99, 0.994, 0.998, 0.998])
    assert last.lr == learning_rate(config, 9999) < 1e-9 < schedule(config, 0).lr
    assert schedule(config, 1000).lr == pytest.approx(1e-3)
