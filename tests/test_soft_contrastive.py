"""The soft-positive contrastive loss as an op: against a dense float64 reference, in its plain and its Triton form."""

import os
import subprocess
import sys
from itertools import accumulate
from pathlib import Path

import pytest
import torch
from torch.library import opcheck
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from semimedref_kernels import soft_contrastive_loss
from semimedref_kernels.choices import CANDIDATES
from semimedref_kernels.soft_contrastive import _backward, _forward

ABSENT = """
import sys
sys.modules["triton"] = None
import torch, semimedref_kernels
u = torch.eye(4, requires_grad=True)
semimedref_kernels.soft_contrastive_loss(u, u, torch.tensor([1, 2, 4, 8]), 0.07).backward()
print(u.grad.shape)
"""


def sample(n, m=None, width=8, codes="mixed", tau=0.07, dtype=torch.float32, lengths=None):
    """Embeddings on the unit sphere, or of many lengths to be normalised; codes of every kind, or all the same."""
    generator = torch.Generator().manual_seed(100 * n + (m or 0))
    u, v = (
        torch.nn.functional.normalize(torch.randn(k, width, generator=generator, dtype=torch.float64), dim=1).to(dtype)
        for k in (n, m or n)
    )
    if codes == "mixed":
        a, b = (torch.randint(0, 64, (len(x),), generator=generator) for x in (u, v))
        a[::3] = b[::4] = 0
        b = b if m else a
    else:
        a, b = (torch.full((len(x),), codes) for x in (u, v))
    if lengths:
        u, v = (x * torch.linspace(*lengths, len(x), dtype=dtype)[:, None] for x in (u, v))
    return {"u": u, "v": v, "codes": a, "codes_v": b, "tau": tau, "normalize": lengths is not None}


def dense(u, v, codes, codes_v, tau, normalize, offset=0, rows_only=False):
    """The loss as the paper has it, with N x M matrices, in float64."""
    if normalize:
        u, v = torch.nn.functional.normalize(u.double(), dim=1), torch.nn.functional.normalize(v.double(), dim=1)
    bits = torch.arange(6)
    a, b = (((x[:, None] >> bits) & 1).double() for x in (codes, codes_v))
    both = a @ b.T
    p = both / (a.sum(1)[:, None] + b.sum(1) - both).clamp(min=1)
    if offset < len(v):
        p.diagonal(offset).fill_(1)
    z = u.double() @ v.double().T / tau

    def direction(p, z):
        return (-(p * z.log_softmax(1)).sum(1) / p.sum(1).clamp(min=1e-300)).mean()

    return direction(p, z) if rows_only else (direction(p, z) + direction(p.T, z.T)) / 2


def differentiated(loss, u, v, codes, codes_v, tau, normalize, **about):
    """Loss and its gradients for u and v."""
    u, v = u.detach().clone().requires_grad_(), v.detach().clone().requires_grad_()
    value = loss(u, v, codes, codes_v, tau, normalize, **about)
    return value.detach(), *torch.autograd.grad(value, (u, v))


def op(u, v, codes, codes_v, tau, normalize, **about):
    return soft_contrastive_loss(u, v, codes, tau, codes_v=codes_v, normalize=normalize, **about)


def reference(case):
    return differentiated(dense, **{**case, "u": case["u"].double(), "v": case["v"].double()})


def assert_close(found, expected, of_loss, of_gradients, tau):
    """The loss relative to itself; 0 (one pair), and gradients, relative to the terms that they are differences of."""
    loss, *gradients = found
    scale = expected[0].abs().item() or 1 / tau
    assert abs(loss.item() - expected[0].item()) <= of_loss * scale
    for gradient, wanted in zip(gradients, expected[1:], strict=True):
        terms = 1 / (tau * len(gradient))
        bound = of_gradients * (wanted.abs().max().item() if wanted.abs().max() > 1e-6 * terms else terms)
        assert (gradient.double() - wanted).abs().max() <= bound


CASES = {
    "a batch of training": sample(16, width=24),
    "one pair": sample(1),
    "one pair at a low temperature": sample(1, tau=0.005),
    "lowest temperature": sample(9, tau=0.005),
    "highest temperature": sample(9, tau=1.0),
    "all name the same": sample(9, codes=7),
    "all name nothing": sample(9, codes=0),
    "more texts than images": sample(5, 11),
    "more images than texts": sample(11, 5),
    "more texts, nothing named": sample(5, 11, codes=0),
    "wide embeddings": sample(7, width=70),
    "no multiple of a tile": sample(70, 131, width=24),
    "just above one tile": sample(65, width=8, tau=0.005),
    "many, nothing named": sample(66, 65, codes=0),
    "many with one code": sample(65, codes=63, tau=1.0),
    "normalised": sample(16, 11, width=40, lengths=(0.5, 3.0)),
    "many, normalised": sample(70, 66, width=24, lengths=(0.5, 3.0)),
    "many, normalised, at a low temperature": sample(66, width=24, lengths=(0.5, 3.0), tau=0.02),
    "own texts come later": sample(5, 11, width=24) | {"offset": 4},
    "own texts come later, images look alone": sample(5, 11, lengths=(0.5, 2.0)) | {"offset": 4, "rows_only": True},
    "some own texts are missing": sample(9, 8, codes=0) | {"offset": 5},
    "no own text is there": sample(4, 5) | {"offset": 7},
    "many, own texts come later": sample(70, 131, width=24, lengths=(0.5, 3.0)) | {"offset": 40},
    "many, own texts come later, images look alone": sample(66, 131, width=24) | {"offset": 65, "rows_only": True},
}


CHOSEN = {"thirty pairs": sample(30, 21, width=70, lengths=(0.5, 3.0)), "many": sample(70, 131, lengths=(0.5, 3.0))}
"""With each of the choices that a device's table may hold; one has 32 rows, one tiles."""

WITH_VARIANTS = ("a batch of training", "no multiple of a tile", "normalised", "many, normalised")


@pytest.mark.parametrize("name", CASES)
def test_the_plain_form_agrees_with_the_dense_reference(name):
    case = CASES[name]
    assert_close(differentiated(op, **case), reference(case), 1e-6, 1e-5, case["tau"])


@pytest.mark.parametrize("name", CASES)
def test_in_float64_it_agrees_to_twelve_digits(name):
    """Eq. 12: P is never formed, and is not missed."""
    case = {**CASES[name], "u": CASES[name]["u"].double(), "v": CASES[name]["v"].double()}
    assert_close(differentiated(op, **case), reference(case), 1e-12, 1e-12, case["tau"])


@pytest.fixture(scope="module", params=["1", pytest.param("0", marks=pytest.mark.gpu)], ids=["interpreter", "GPU"])
def kernels(request, tmp_path_factory):
    """Every case by the kernels, in Triton's interpreter or on a GPU."""
    folder = tmp_path_factory.mktemp("kernels")
    cases = {name: {**case, "grad": torch.tensor(1.0)} for name, case in CASES.items()}
    for name in WITH_VARIANTS:
        cases[f"{name}, bfloat16"] = {**cases[name], **{x: CASES[name][x].bfloat16() for x in "uv"}}
        cases[f"{name}, NaN"] = {**cases[name], "u": CASES[name]["u"].clone().index_fill(0, torch.tensor(1), torch.nan)}
        cases[f"{name}, twice the loss"] = {**cases[name], "grad": torch.tensor(2.0)}
        cases[f"{name}, more bits"] = {**cases[name], "codes": CASES[name]["codes"] + 64}
        cases[f"{name}, in blocks"] = {**cases[name], "block": 1}
        cases[f"{name}, for images"] = {**cases[name], "needs": (True, False)}
        cases[f"{name}, for texts"] = {**cases[name], "needs": (False, True)}
        cases[f"{name}, tau a tensor"] = {**cases[name], "tau": torch.tensor(CASES[name]["tau"])}
    for name, case in CHOSEN.items():
        for number in range(max(map(len, CANDIDATES.values()))):
            table = {of: each[number] for of, each in CANDIDATES.items() if number < len(each)}
            cases[f"{name}, choice {number}"] = {**case, "grad": torch.tensor(1.0), "table": table}
            half = {x: case[x].bfloat16() for x in "uv"}
            cases[f"{name}, choice {number}, bfloat16"] = {**cases[f"{name}, choice {number}"], **half}
    torch.save(cases, folder / "in.pt")
    driver = Path(__file__).parent / "soft_contrastive_kernels.py"
    environment = os.environ | {"TRITON_INTERPRET": request.param}
    subprocess.run([sys.executable, driver, folder / "in.pt", folder / "out.pt"], env=environment, check=True)
    return torch.load(folder / "out.pt", weights_only=True)


@pytest.mark.parametrize("name", CASES)
def test_the_kernels_agree_with_the_dense_reference(kernels, name):
    assert_close(kernels[name][0], reference(CASES[name]), 1e-6, 1e-5, CASES[name]["tau"])


@pytest.mark.parametrize("name", CHOSEN)
def test_whatever_a_device_chooses_the_loss_is_the_same(kernels, name):
    case = CHOSEN[name]
    found = {key: value[0] for key, value in kernels.items() if key.startswith(f"{name}, choice")}
    assert len(found) == 2 * max(map(len, CANDIDATES.values()))
    for key, value in found.items():
        half = key.endswith("bfloat16")
        given = {**case, **{x: case[x].bfloat16() for x in "uv"}} if half else case
        assert_close(value, reference(given), *((5e-3, 2e-2) if half else (1e-6, 1e-5)), case["tau"])


@pytest.mark.parametrize("name", WITH_VARIANTS)
def test_the_kernels_take_what_a_gpu_hands_them(kernels, name):
    whole = kernels[name][0]
    for x, y in zip(kernels[f"{name}, twice the loss"][0][1:], whole[1:], strict=True):
        torch.testing.assert_close(x, 2 * y)
    for x, y in zip(kernels[f"{name}, more bits"][0], whole, strict=True):
        assert torch.equal(x, y)  # bits above the sixth are ignored where checking them would make the host wait
    assert kernels[f"{name}, NaN"][0][0].isnan()


@pytest.mark.parametrize("name", [name for name in WITH_VARIANTS if len(CASES[name]["u"]) > 64])
def test_gradients_are_the_same_where_so_many_pairs_take_several_blocks(kernels, name):
    for x, y in zip(kernels[f"{name}, in blocks"][0], kernels[name][0], strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", WITH_VARIANTS)
def test_a_gradient_that_nobody_needs_is_not_computed(kernels, name):
    _, grad_u, grad_v = kernels[name][0]
    images, texts = kernels[f"{name}, for images"][0], kernels[f"{name}, for texts"][0]
    assert torch.equal(images[1], grad_u) and images[2] is None
    assert torch.equal(texts[2], grad_v) and texts[1] is None
    case, both = CASES[name], differentiated(op, **CASES[name])
    for k, x in enumerate("uv", 1):
        leaf = case[x].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(op(**{**case, x: leaf}), leaf)
        torch.testing.assert_close(gradient, both[k])


@pytest.mark.parametrize("name", WITH_VARIANTS)
def test_tau_may_come_as_a_tensor(kernels, name):
    for x, y in zip(kernels[f"{name}, tau a tensor"][0], kernels[name][0], strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-6)
    case = {**CASES[name], "tau": torch.tensor(CASES[name]["tau"], dtype=torch.float64)}
    assert all(map(torch.equal, differentiated(op, **case), differentiated(op, **CASES[name])))


@pytest.mark.parametrize("name", WITH_VARIANTS)
def test_the_kernels_take_bfloat16_and_sum_in_float32(kernels, name):
    case = {**CASES[name], **{x: CASES[name][x].bfloat16() for x in "uv"}}
    found, expected = kernels[f"{name}, bfloat16"][0], reference(case)
    assert [x.dtype for x in found] == [torch.float32, torch.bfloat16, torch.bfloat16]
    # Tiles are multiplied as bfloat16, so normalised embeddings are rounded to it before (cut off, in the interpreter).
    tolerance = 5e-3 if name == "many, normalised" else 1e-6
    assert_close(found, expected, tolerance, 1e-2, case["tau"])


def test_two_runs_give_the_same_bits(kernels):
    for name, (first, second) in kernels.items():
        for x, y in zip(first, second, strict=True):
            assert x is y is None or torch.equal(x.nan_to_num(), y.nan_to_num()), name
    case = CASES["no multiple of a tile"]
    assert all(torch.equal(x, y) for x, y in zip(differentiated(op, **case), differentiated(op, **case), strict=True))


@pytest.mark.parametrize(
    "case", [sample(3, 5, width=3), sample(4, 3, width=3, codes=0), sample(1), sample(3, 2, lengths=(0.5, 2.0))]
)
def test_gradcheck(case):
    u, v = (case[x].double().requires_grad_() for x in "uv")
    assert torch.autograd.gradcheck(lambda u, v: op(**{**case, "u": u, "v": v, "tau": 0.2}), (u, v))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("normalize", [True, False])
def test_opcheck(dtype, normalize):
    case = sample(3, 5, dtype=dtype)
    u, v = case["u"].requires_grad_(), case["v"].requires_grad_()
    inputs = (u, v, case["codes"], case["codes_v"], torch.tensor(0.1), normalize, 1, False)
    opcheck(_forward, inputs)
    loss, kept = (x.detach() for x in _forward(*inputs))
    detached = [x.detach() if isinstance(x, torch.Tensor) else x for x in inputs]
    opcheck(_backward, (torch.ones_like(loss), *detached[:6], kept, *detached[6:], True, False))


def test_normalising_is_that_of_torch_also_where_an_embedding_is_zero():
    case = sample(6, lengths=(0.0, 2.0))
    unit = {x: torch.nn.functional.normalize(case[x], dim=1) for x in "uv"}
    found, expected = (op(**{**case, **given}) for given in ({}, {**unit, "normalize": False}))
    torch.testing.assert_close(found, expected)


def test_forward_mode_is_refused():
    case = sample(4)
    with pytest.raises(
        NotImplementedError, match="soft_contrastive_loss has no forward-mode derivative.*autograd.grad"
    ):
        torch.func.jvp(lambda u: op(**{**case, "u": u}), (case["u"],), (case["v"],))


def test_the_shares_of_two_processes_make_the_loss_of_the_whole_batch():
    """As with open_clip's local loss: each has gathered all, and looks for those of its own alone."""
    case = sample(10, lengths=(0.5, 2.0))
    whole = differentiated(op, **case)

    def halves(u, v, codes, codes_v, tau, normalize):
        total = 0
        for first, last in ((0, 4), (4, 10)):
            own = slice(first, last)
            for mine, others in ((u, v), (v, u)):
                part = soft_contrastive_loss(
                    mine[own], others, codes[own], tau, codes_v=codes, normalize=True, offset=first, rows_only=True
                )
                total = total + part * (last - first) / 10 / 2
        return total

    for mine, expected in zip(differentiated(halves, **case), whole, strict=True):
        torch.testing.assert_close(mine, expected)


@pytest.mark.parametrize(("kind", "most"), [(torch.tensor, 1), (float, 2)], ids=["tensor", "number"])
def test_few_graphs_serve_every_temperature(kind, most):
    """Of numbers, the first has a graph of its own."""
    torch._dynamo.reset()
    graphs, case = [], sample(6)

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(lambda u, v, tau: op(**{**case, "u": u, "v": v, "tau": tau}), backend=backend)
    for tau in (0.07, 0.1, 0.2, 0.3):
        torch.testing.assert_close(compiled(case["u"], case["v"], kind(tau)), op(**{**case, "tau": tau}))
    assert len(graphs) == most


def test_it_compiles_into_one_graph():
    case = sample(6)
    results = []
    for loss in (soft_contrastive_loss, torch.compile(soft_contrastive_loss, fullgraph=True, backend="aot_eager")):
        u, v = case["u"].clone().requires_grad_(), case["v"].clone().requires_grad_()
        value = loss(u, v, case["codes"], case["tau"])
        results.append((value.detach(), *torch.autograd.grad(value, (u, v))))
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(eager, compiled)


def test_a_gradient_may_be_counted_though_the_loss_was_not():
    case = sample(6)
    u = case["u"].clone().requires_grad_()
    loss = op(**{**case, "u": u})
    with FlopCounterMode(display=False):
        loss.backward()
    torch.testing.assert_close(u.grad, differentiated(op, **case)[1])


def test_autocast_changes_nothing():
    case = sample(16, width=32)
    plain = differentiated(op, **case)
    with torch.autocast("cpu", torch.bfloat16):
        assert all(torch.equal(x, y) for x, y in zip(plain, differentiated(op, **case), strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_embeddings_give_a_float32_loss_and_gradients_of_their_own_type(dtype):
    case = sample(9, dtype=dtype)
    loss, grad_u, grad_v = found = differentiated(op, **case)
    assert (loss.dtype, grad_u.dtype, grad_v.dtype) == (torch.float32, dtype, dtype)
    assert_close(found, reference(case), 1e-6, 1e-2, case["tau"])


def most_bytes(run):
    """The most memory that it holds at once, by the allocator's own record, temporaries inside operators included."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as record:
        run()
    events = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))


def test_a_thousand_pairs_need_at_most_three_matrices_of_a_thousand_by_a_thousand():
    case = sample(1024, width=32)
    matrix = 4 * 1024**2
    assert matrix < most_bytes(lambda: differentiated(op, **case)) < 3 * matrix
    assert most_bytes(lambda: differentiated(dense, **case)) > 6 * matrix


def test_the_loss_of_tensors_without_values_has_a_shape():
    u = torch.empty(4, 8, device="meta", requires_grad=True)
    loss = soft_contrastive_loss(u, u, torch.empty(4, dtype=torch.long, device="meta"), 0.07)
    loss.backward()
    assert loss.shape == () and u.grad.shape == u.shape


def test_it_works_without_triton():
    done = subprocess.run([sys.executable, "-c", ABSENT], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "torch.Size([4, 4])"


def test_nan_embeddings_give_a_nan_loss():
    case = sample(4)
    case["v"][2] = float("nan")
    loss, *gradients = differentiated(op, **case)
    assert loss.isnan() and all(gradient.isnan().any() for gradient in gradients)


def test_a_sample_without_any_positive_adds_nothing_but_is_a_negative():
    """The second text belongs to no image and shares no zone with any; without it, the loss would be 0."""
    u, v = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    loss = soft_contrastive_loss(u, v, torch.tensor([1]), 1.0, codes_v=torch.tensor([1, 2]))
    image_to_text, text_to_image = torch.log1p(torch.tensor(-1.0).exp()), 0.0
    torch.testing.assert_close(loss, (image_to_text + text_to_image) / 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"u": torch.zeros(4)}, r"embeddings \(4,\)"),
        ({"v": torch.zeros(4, 9)}, r"and \(4, 9\)"),
        ({"v": torch.zeros(5, 8)}, "codes_v="),
        ({"u": torch.zeros(0, 8)}, "none 0"),
        ({"codes": torch.zeros(4)}, "codes of type torch.float32"),
        ({"codes": torch.zeros(4, dtype=torch.bool)}, "codes of type torch.bool"),
        ({"u": torch.zeros(4, 8).double()}, "one floating-point type"),
        ({"u": torch.zeros(4, 8).long(), "v": torch.zeros(4, 8).long()}, "one floating-point type"),
        ({"v": torch.zeros(4, 8, device="meta")}, "cpu, meta.*one device"),
        ({"codes": torch.tensor([1, 2, 64, 3])}, "codes must be 0 to 63, got 64"),
        ({"codes": torch.tensor([1, 2, -1, 3])}, "codes must be 0 to 63, got -1"),
        ({"tau": 0.0}, "tau must be above 0, got 0.0"),
        ({"tau": float("nan")}, "tau must be above 0, got nan"),
        ({"tau": torch.tensor(-0.07)}, "tau must be above 0, got -0.07"),
        ({"tau": torch.tensor(0.07, requires_grad=True)}, "with gradient; need one element, without"),
        ({"tau": torch.empty((), device="meta")}, "tau is a tensor .* on meta.*; need one element"),
        ({"tau": torch.ones(2)}, r"tau is a tensor of shape \(2,\)"),
        ({"offset": -1}, "offset must be 0 or more, got -1"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    case = {"u": torch.ones(4, 8), "v": torch.ones(4, 8), "codes": torch.arange(4), "tau": 0.07}
    with pytest.raises(ValueError, match=message):
        soft_contrastive_loss(**{**case, **change})


class Launches(TorchDispatchMode):
    """Counts what a GPU would have to start: kernels of ours (left out here) and of torch, but not views and memory."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        self.count += not (op.is_view or op.name().startswith(("aten::empty", "aten::new_empty", "aten::split")))
        return op(*args, **kwargs or {})


@pytest.mark.parametrize(("pairs", "forward", "backward"), [(32, 2, 1), (1024, 6, 7)])
def test_a_call_on_a_gpu_takes_few_launches(pairs, forward, backward, monkeypatch):
    triton_form = pytest.importorskip("semimedref_kernels.soft_contrastive_triton")
    counter = Launches()

    def run(launch):
        counter.count += 1

    monkeypatch.setattr("semimedref_kernels.launch.Launch.run", run)
    u, codes = torch.empty(pairs, 64, device="meta"), torch.empty(pairs, dtype=torch.int64, device="meta")
    with counter:
        loss, kept = triton_form.forward(u, u, codes, codes, 0.07, True)
        assert counter.count == forward
        triton_form.backward(loss, u, u, codes, codes, 0.07, True, kept)
    assert counter.count - forward == backward
