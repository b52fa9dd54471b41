"""The stopwatch and ``semimedref profile``: every part is named, timed by itself, and none is counted twice."""

import json
import threading
import time

import pytest

from semimedref_core import stopwatch
from semimedref_core.profiling import PARTS, profile
from semimedref_core.stopwatch import Stopwatch, part

SETTINGS = {"image_size": 32, "batch_size": 2, "steps": 10, "label_ratio": 0.25, "device": "cpu", "count": 2}


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still but for ``clock(seconds)``."""
    now = [0.0]
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: now[0])
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


def test_parts_inside_one_another_are_timed_each_for_itself(clock):
    @part("outer")
    def outer():
        clock(1)
        with part("inner"):
            clock(10)
        clock(2)

    outer()  # not timed: no stopwatch runs
    with Stopwatch() as watch:
        clock(100)
        outer()
        outer()
    outer()
    assert watch.seconds == {"other": 100, "outer": 6, "inner": 20}


def test_an_error_inside_a_part_ends_it(clock):
    with Stopwatch() as watch:
        with pytest.raises(ValueError, match="inside"), part("broken"):
            clock(1)
            raise ValueError("inside")
        clock(5)
    assert watch.seconds == {"other": 5, "broken": 1}
    with pytest.raises(ValueError, match="whole"), Stopwatch():
        raise ValueError("whole")
    with Stopwatch():
        pass


def test_what_another_thread_does_is_not_counted(clock):
    with Stopwatch() as watch:
        thread = threading.Thread(target=part("elsewhere")(lambda: clock(3)))
        thread.start()
        thread.join()
    assert watch.seconds == {"other": 3}


def test_every_change_of_parts_waits_for_the_device(clock):
    """Work that is still under way is counted where it was begun."""
    queued = []
    with Stopwatch(wait=lambda: clock(queued.pop() if queued else 0)) as watch:
        with part("forward"):
            queued.append(7)
        with part("backward"):
            queued.append(9)
    assert watch.seconds == {"other": 0, "forward": 7, "backward": 9}


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
    from semimedref_core.config import Config
    from semimedref_core.data.phantom import COUNTS

    with pytest.MonkeyPatch.context() as patch:
        for split in COUNTS:
            patch.setitem(COUNTS, split, 8)
        config = Config(image_size=32, batch_size=2, steps=2, label_ratio=0.5, method="supervised")
        started = time.perf_counter()
        found = profile(config, "cpu", count=1)
        assert sum(found.milliseconds.values()) == pytest.approx(found.step)  # of one step, parts are the whole
        assert found.step < 1000 * (time.perf_counter() - started)
    assert stopwatch._running is None


def test_a_count_of_no_steps_is_refused(semimedref):
    outcome = semimedref("profile", **{**SETTINGS, "count": 0})
    assert outcome.status == 1 and "count must be at least 1, got 0" in outcome.errors
