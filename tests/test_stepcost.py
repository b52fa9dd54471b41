"""The recipe that a step is timed against: more passes, the same loss. No test asks how long anything took."""

from dataclasses import replace

import pytest
import torch

from semimedref_core.anatomy import THIRDS
from semimedref_core.config import Config
from semimedref_core.data.batches import Batches
from semimedref_core.data.datasets import load_training
from semimedref_core.networks import build_network, build_texts
from semimedref_core.teacher import Teacher
from semimedref_core.tools import step_cost as stepcost
from semimedref_core.tools.inspection import Passes

CONFIG = Config(image_size=32, batch_size=4, gate=0.0)
pytestmark = pytest.mark.usefixtures("small_phantom", "one_thread")


def test_the_recipe_makes_more_passes_for_the_same_loss_and_gradient():
    torch.manual_seed(0)
    student, pairs = build_network("compact"), load_training(CONFIG.dataset, CONFIG.label_ratio, CONFIG.image_size)
    teacher = Teacher(student)
    batch = Batches(pairs.labelled, pairs.unlabelled, CONFIG, build_texts(), THIRDS)(0)
    looked, learned, found = Passes(teacher.network), Passes(student), []
    for loss_of in (stepcost.ours, stepcost.recipe):
        looked.made.clear(), learned.made.clear(), student.zero_grad()
        torch.manual_seed(1)
        loss = loss_of(student, teacher, batch, CONFIG)
        loss.backward()
        gradient = torch.cat([parameter.grad.flatten() for parameter in student.parameters()])
        found.append((loss.item(), gradient, [*looked.made], [*learned.made]))
    (ours, gradient, *passes), (theirs, same, *more) = found
    assert passes == [[(4, 4)], [(12, 8)]] and more == [[(4, 4)] * 2, [(4, 4)] * 3]
    assert ours == pytest.approx(theirs, rel=1e-5) and (gradient - same).norm() < 1e-4 * gradient.norm()


def test_every_way_is_timed_against_the_recipe():
    small = {"model_type": "convnext", "hidden_sizes": [16, 32, 64, 128], "depths": [1, 1, 1, 1]}
    bert = {**stepcost.FROZEN_BERT, "hidden_size": 24, "num_hidden_layers": 2, "intermediate_size": 24}
    arguments = {"image": small, "text": bert, "frozen_text": True, "embedding": 16}
    table = stepcost.step_costs(replace(CONFIG, network="mmi_unet", batch_size=2), arguments, steps=1)
    assert list(table.index) == list(stepcost.WAYS) and (table["seconds"] > 0).all()
    assert table.loc["recipe", "times as fast"] == 1
    trained = stepcost.step_costs(CONFIG, {}, steps=1)
    assert list(trained.index) == ["recipe", "ours"]
