"""The EMA teacher and the ramps."""

import pytest
import torch
from torch import nn

from semimedref_core.teacher import Teacher, ema_decay, ramp


def networks():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5))


def test_the_teacher_is_the_moving_average_of_parameters_and_buffers():
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
    assert [ramp(step, start=10, length=4) for step in (0, 9, 10, 11, 12, 14, 100)] == [0, 0, 0, 0.25, 0.5, 1, 1]
    assert ramp(10, 10, 0) == 1.0


def test_the_decay_rises_after_burn_in_and_forgets_the_untrained_start():
    assert ema_decay(0, 100, 200, 0.99, 0.999) == pytest.approx(0.1)
    assert ema_decay(1000, 2000, 200, 0.99, 0.999) == 0.99
    assert ema_decay(2100, 2000, 200, 0.99, 0.999) == pytest.approx(0.9945)
    assert ema_decay(9000, 2000, 200, 0.99, 0.999) == pytest.approx(0.999 if 9001 / 9010 > 0.999 else 9001 / 9010)
