"""``semimedref profile``: every part of a step is named, timed by itself, and none is counted twice."""

import json
import threading
import time

import pytest
import torch
from torch.profiler import ProfilerActivity, record_function

from semimedref_core.config import Config
from semimedref_core.experiments.estimate import estimate, few_pairs
from semimedref_core.tools.profiling import PARTS, _own_milliseconds, profile

SETTINGS = {"image_size": 32, "batch_size": 2, "steps": 10, "label_ratio": 0.25, "device": "cpu", "count": 2}


def own(program) -> dict[str, float]:
    """The milliseconds of each part that a program spends, without the parts inside it."""
    with torch.profiler.profile(activities=[ProfilerActivity.CPU]) as profiler, record_function("other"):
        program()
    return _own_milliseconds(profiler.events(), on_gpu=False)


@record_function("mixing")
def outer():
    time.sleep(0.02)
    with record_function("losses"):
        time.sleep(0.1)
        torch.ones(3).sum()
    time.sleep(0.02)


def test_parts_inside_one_another_are_timed_each_for_itself():
    found = own(lambda: (outer(), outer(), time.sleep(0.05)))
    assert found["losses"] >= 200 and 80 <= found["mixing"] < 200 and 50 <= found["other"] < 200
    assert {name for name, taken in found.items() if taken} == {"losses", "mixing", "other"}


def test_an_error_inside_a_part_ends_it():
    def program():
        with pytest.raises(ValueError, match="inside"), record_function("mixing"):
            raise ValueError("inside")
        time.sleep(0.05)

    found = own(program)
    assert found["mixing"] < 50 <= found["other"]


def test_what_another_thread_does_is_not_counted():
    def program():
        thread = threading.Thread(target=record_function("batch")(lambda: time.sleep(0.1)))
        thread.start()
        thread.join()

    found = own(program)
    assert found["batch"] == 0 and found["other"] >= 100


def test_the_command_prints_where_a_step_s_time_goes(semimedref, tmp_path):
    outcome = semimedref("profile", json=tmp_path / "profile.json", **SETTINGS)
    assert outcome.status == 0, outcome.errors
    found = json.loads((tmp_path / "profile.json").read_text())
    parts = found["milliseconds"]
    assert list(parts) == list(PARTS) and all(parts[name] > 0 for name in PARTS)
    assert 0 < sum(parts.values()) < 1.5 * found["step"]  # medians of parts do not quite add up to that of the whole
    assert max(parts, key=parts.get) != "other"
    assert found["running"] > 0 and found["peak_memory"] > 0 and found["parameters"] > 500_000
    for name in PARTS:
        assert name in outcome.text
    assert f"{found['parameters']:,} parameters on CPU" in outcome.text and "peak memory" in outcome.text


def test_two_networks_are_timed_as_one_student(command_line):
    outcome = command_line("profile", "--method=cps", *(f"--{k.replace('_', '-')}={v}" for k, v in SETTINGS.items()))
    rows = {line[:16].strip(): line[16:].split() for line in outcome.text.splitlines() if line[:1].isalpha()}
    assert float(rows["student forward"][0]) > 0 and float(rows["teacher forward"][0]) == 0


def test_nothing_is_left_running_or_hooked():
    """Else training after a profile would be slower, or a second profile would fail."""
    config = Config(image_size=32, batch_size=2, steps=2, method="supervised")
    for _ in range(2):
        started = time.perf_counter()
        found = profile(config, "cpu", 1, few_pairs(32))
        assert sum(found.milliseconds.values()) == pytest.approx(found.step)  # of one step, parts are the whole
        assert found.step < 1000 * (time.perf_counter() - started)


@pytest.mark.parametrize("size", [16, 48])
def test_steps_of_any_size_can_be_timed_before_a_sweep(size):
    """Also of sizes that the phantom is not drawn at."""
    pairs = few_pairs(size)
    assert pairs.labelled.images.shape == (8, size, size) and pairs.unlabelled.masks is None
    assert estimate([Config(image_size=size, batch_size=2, steps=100)], 1, 1).steps > 0


def test_a_count_of_no_steps_is_refused(semimedref):
    outcome = semimedref("profile", **{**SETTINGS, "count": 0})
    assert outcome.status == 2 and "argument --count: must be a whole number from 1" in outcome.errors
