"""The moving pictures are small enough for a page, and of the code as it is."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semimedref_core.figures.moving import drawn
from semimedref_core.teaching import moving_pictures

FOLDER = Path(__file__).parent.parent / "notebooks" / "pictures"


def frames(name):
    with Image.open(FOLDER / name) as picture:
        for k in range(picture.n_frames):
            picture.seek(k)
            yield np.asarray(picture.convert("RGB")).astype(int)


def apart(shown, figure) -> float:
    """Share of the pixels that differ by more than a palette of few colours makes them; a digit is some 0.0002."""
    return (np.abs(shown - np.asarray(drawn(figure))).max(-1) > 60).mean()


@pytest.mark.parametrize("name", ["mixing.gif", "posaug.gif", "teacher.gif"])
def test_a_moving_picture_moves_and_is_small(name):
    assert (FOLDER / name).stat().st_size < 400_000
    first, *others = frames(name)
    assert len(others) >= 4 and all((other != first).any() for other in others)


@pytest.mark.parametrize("name", ["mixing", "posaug"])
def test_every_frame_is_what_the_code_draws_today(name):
    shown, figures = list(frames(f"{name}.gif")), list(getattr(moving_pictures, name)())
    assert max(apart(frame, figure) for frame, figure in zip(shown, figures, strict=True)) < 0.0001


def test_the_training_that_is_shown_has_todays_settings_data_and_first_teacher():
    with Image.open(FOLDER / "teacher.gif") as picture:
        assert picture.info["comment"].decode() == moving_pictures.settings()
    (figure,) = moving_pictures.teacher((0,))
    assert apart(next(frames("teacher.gif")), figure) < 0.0001
