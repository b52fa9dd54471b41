"""Pictures that lie on the device: the same batches, and no picture is copied in a step."""

from dataclasses import replace

import pytest
import torch

from semimedref_core.anatomy import THIRDS
from semimedref_core.batch import Batch
from semimedref_core.config import Config
from semimedref_core.data import resident
from semimedref_core.data.batches import Batches
from semimedref_core.data.phantom import phantom
from semimedref_core.networks import build_texts
from semimedref_core.runtime.graphed import WARM_UP, Graphed, tensors_of
from semimedref_core.step import schedule

CONFIG = Config(image_size=32, batch_size=4)
PICTURE = 32 * 32  # bytes of a grey one


@pytest.fixture(scope="module")
def pairs():
    train = phantom("train", 12, size=32)
    return train.subset(range(6)), train.subset(range(6, 12), masks=False)


def both(labelled, unlabelled, *about):
    """The makers of batches, as ever and with resident pictures."""
    texts = build_texts()
    return [Batches(labelled, unlabelled, CONFIG, texts, THIRDS, *about, resident=kept) for kept in (False, True)]


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("both_kinds", [True, False], ids=["with unlabelled pairs", "without"])
def test_batches_are_the_same_wherever_the_pictures_lie(pairs, rank, channels, both_kinds):
    labelled, unlabelled = (each.with_channels(channels) for each in pairs)
    as_ever, kept = both(labelled, unlabelled if both_kinds else None, "cpu", rank, 2)
    for step in range(3):  # more than an epoch
        ours, theirs = tensors_of(kept(step)), tensors_of(as_ever(step))
        assert len(ours) == len(theirs)
        for mine, yours in zip(ours, theirs, strict=True):
            assert torch.equal(mine, yours) and mine.dtype == yours.dtype and mine.stride() == yours.stride()


def test_pictures_that_lie_on_their_side_are_picked_too(pairs):
    labelled, unlabelled = (each.transposed() for each in pairs)
    as_ever, kept = both(labelled, unlabelled)
    assert torch.equal(kept(0).labelled.masks, as_ever(0).labelled.masks)
    assert torch.equal(kept(0).unlabelled.images, as_ever(0).unlabelled.images)


def test_a_step_copies_numbers_instead_of_pictures(pairs, monkeypatch):
    """Counted where memory is pinned for the copy; the device ``meta`` stands in for a GPU."""
    copied = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda value: copied.append(value) or value)
    as_ever, kept = both(*pairs, "meta")
    bytes_of = {}
    for maker in (as_ever, kept):
        copied.clear()
        batch = maker(0)
        bytes_of[maker] = sum(value.nbytes for value in copied)
        assert {value.device.type for value in tensors_of(batch)} == {"meta"}
    largest = max(value.nbytes for value in copied)
    assert largest == batch.unlabelled.text_choices.nbytes  # what texts the student may read
    # Pictures, masks, pictures and regions; in their place four lists of numbers.
    lists = 4 * CONFIG.batch_size * 8
    assert bytes_of[as_ever] - bytes_of[kept] == 4 * CONFIG.batch_size * PICTURE - lists


def test_a_graph_reads_what_was_picked_for_its_step(pairs):
    """A recorded step knows only the memory of its first batch."""
    as_ever, kept = both(*pairs)

    def look(batch: Batch, now) -> dict[str, torch.Tensor]:
        return {"sum": batch.labelled.images.sum() + batch.unlabelled.regions.sum() + batch.unlabelled.images.sum()}

    graphed, now = Graphed(look, None, lambda work: work), schedule(CONFIG, 1)
    for step in range(WARM_UP + 3):
        assert graphed(kept(step), now)["sum"] == look(as_ever(step), now)["sum"]
    assert graphed.replay is not None


def test_pictures_go_to_a_gpu_that_has_room_for_them(pairs, monkeypatch, capsys):
    gpu, taken = torch.device("cuda"), (6 + 6 + 6) * PICTURE
    for free, there in ((taken / resident.SHARE, True), (taken / resident.SHARE - 1, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 2 * free))
        assert resident.fit(pairs, gpu) == there
        assert capsys.readouterr().out.count("note: each step copies its pictures") == (not there)
    assert not resident.fit(pairs, gpu, tell=False) and not resident.fit(pairs, torch.device("cpu"))
    assert capsys.readouterr().out == ""
    assert resident.fit([replace(pairs[1], images=pairs[1].images[:0], reports=(), names=())], gpu)
