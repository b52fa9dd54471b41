"""The instruments with which a step is looked into: they must find what is there, and what is not."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from semimedref_core.data.batches import Batch, Labelled
from semimedref_core.networks import NETWORKS, build_network
from semimedref_core.tools.inspection import HostReads, Passes, gradient_norms, named_tensors, shape_text, tensor_table

MASK = torch.tensor([True, False, True])


@pytest.mark.parametrize(
    ("wait", "operation"),
    [
        (lambda x: x.sum().item(), "aten._local_scalar_dense.default"),
        (lambda x: bool(x.any()), "aten._local_scalar_dense.default"),
        (lambda x: torch.equal(x, x + 1), "aten.equal.default"),
        (lambda x: x.nonzero(), "aten.nonzero.default"),
        (lambda x: x[MASK], "aten.index.Tensor"),
        (lambda x: x.clone().__setitem__(MASK, torch.zeros(2)), "aten.index_put_.default"),
        (lambda x: x.masked_select(MASK), "aten.masked_select.default"),
        (lambda x: x.unique(), "aten._unique2.default"),
    ],
)
def test_what_makes_a_gpu_wait_is_counted(wait, operation):
    with HostReads() as host:
        wait(torch.arange(3.0))
    assert host.reads == [operation]


def test_what_does_not_make_it_wait_is_not():
    x = torch.arange(3.0, requires_grad=True)
    with HostReads() as host:
        y = torch.where(x > 1, x, 0)[torch.tensor([2, 0])]
        y.clone()[torch.tensor([1])] = 0.0
        y.sum().backward()
    assert host.reads == [] and host.operations > 5


class Halves(nn.Module):
    parts = {"front": ("a",), "back": ("b",), "aside": ("c",)}  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 4), nn.Linear(4, 1), nn.Linear(2, 2)

    def forward(self, x):
        return self.b(self.a(x).relu())


def test_gradient_norms_are_those_of_backward_and_nan_where_no_path_leads():
    torch.manual_seed(0)
    network, x = Halves(), torch.randn(5, 3)
    terms = {"all": network(x).square().mean(), "front only": network.a(x).mean()}
    table = gradient_norms(terms, network)
    assert table.shape == (2, 3) and table["aside"].isna().all() and table.isna().loc["front only", "back"]
    terms["all"].backward()
    for part, module in (("front", network.a), ("back", network.b)):
        gradient = torch.cat([parameter.grad.flatten() for parameter in module.parameters()])
        assert table.loc["all", part] == pytest.approx(gradient.norm().item(), rel=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_each_parameter_of_a_network_belongs_to_one_part(name):
    network = build_network(name)
    listed = [module for modules in network.parts.values() for module in modules]
    assert sorted(listed) == sorted(child for child, _ in network.named_children())
    assert not list(network.parameters(recurse=False))


def test_a_record_is_told_tensor_by_tensor():
    ids = torch.tensor([[1, 2]])
    labelled = Labelled(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2), torch.zeros(1, 2, 3), ids, ids[:, 0])
    tensors = named_tensors(Batch(labelled, None)) | named_tensors({"more": {"deep": torch.tensor(2.5)}})
    assert list(tensors) == [
        *(f"labelled.{name}" for name in ("images", "masks", "affine", "input_ids", "codes")),
        "more.deep",
    ]
    assert [shape_text(tensors[name]) for name in ("labelled.masks", "more.deep")] == ["1 x 1 x 2 x 2", "scalar"]
    row = tensor_table(tensors).loc["labelled.input_ids"]
    assert row.to_dict() == {"shape": "1 x 2", "dtype": "int64", "min": "1", "max": "2", "bytes": 16}


def test_passes_are_noted_with_what_was_seen_and_decoded():
    class Network(nn.Module):
        def forward(self, seen, decoded):
            return SimpleNamespace(image_embedding=torch.zeros(seen, 1), logits=torch.zeros(decoded, 1))

    network = Network()
    network(1, 1)
    passes = Passes(network)
    network(3, 2)
    network(4, 4)
    assert passes.made == [(3, 2), (4, 4)]
