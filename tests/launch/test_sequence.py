"""Several launches in one call: what they compute, and that nothing is written where a tensor is another one."""

from __future__ import annotations

import numpy as np
import pytest

from fq_tvm import LaunchError, interruption, reference
from fq_tvm.launch import native
from fq_tvm.launch import sequence as sequences
from fq_tvm.launch.arguments import ObservedParameters, Operands, check, describe
from fq_tvm.launch.registry import launch_of, prepare
from fq_tvm.launch.runtime import AddressTensor
from fq_tvm.launch.sequence import (
    ANY,
    CHANGED,
    DONE,
    MOST_ARGUMENTS,
    OFF,
    ON,
    STOPPED,
    Fixed,
    Given,
    Scratch,
    Sequence,
    Step,
)

torch = pytest.importorskip("torch")

SHAPE = (3, 50, 7)


class Case:
    """x, scale, zero point, out, mask, and two switches, of which the vectors and the switches stay where they are."""

    def __init__(self, rng, says=ON, shape=SHAPE):
        self.x = torch.from_numpy(np.float32(rng.standard_normal(shape) * 40))
        self.scale = torch.from_numpy(np.float32(rng.random(shape[1]) + 0.5))
        self.zero_point = torch.from_numpy(rng.integers(-5, 5, shape[1], np.int32))
        self.out, self.mask = torch.full(shape, 7.0), torch.zeros(shape, dtype=torch.bool)
        self.switch, self.number = torch.tensor([int(says == ON)]), torch.tensor([3], dtype=torch.int32)
        described = [describe(each, "tensor") for each in self.tensors]
        launch = launch_of(check(Operands(*described[:5]), 1, -20, 30))
        fixed = [Fixed(each) for each in described[1:3]], [Fixed(described[5], says), Fixed(described[6], ANY)]
        tensors = [described[0], *fixed[0], *described[3:5], *fixed[1]]
        self.sequence = Sequence(tensors, [Step(launch, [Given(i) for i in range(5)])])

    @property
    def tensors(self):
        return [self.x, self.scale, self.zero_point, self.out, self.mask, self.switch, self.number]

    def is_done(self):
        want = reference.fake_quant(*(t.numpy() for t in self.tensors[:3]), 1, -20, 30)
        return all(np.array_equal(got.numpy(), each) for got, each in zip((self.out, self.mask), want, strict=True))

    def is_untouched(self):
        return bool((self.out == 7).all() and not self.mask.any())


@pytest.fixture
def rng(request):
    return np.random.default_rng(len(request.node.name))


@pytest.mark.parametrize("says", [ON, OFF])
def test_what_it_launches(rng, says):
    case = Case(rng, says)
    for _ in range(3):
        case.out.fill_(7)
        assert case.sequence(*case.tensors) == DONE
        assert case.is_done()
    case.x = torch.randn(SHAPE)  # lies elsewhere
    case.out, case.mask = torch.empty(SHAPE), torch.empty(SHAPE, dtype=torch.bool)
    assert case.sequence(*case.tensors) == DONE
    assert case.is_done()


CHANGES = {
    "dtype": lambda t: t.to(torch.float64 if t.dtype != torch.float64 else torch.float32),
    "bits alike": lambda t: t.view({4: torch.int32, 8: torch.float64, 1: torch.uint8}[t.element_size()])
    if t.dtype != torch.int32 else t.view(torch.float32),
    "shape": lambda t: t.new_zeros((*t.shape[:-1], t.shape[-1] + 1)),
    "rank": lambda t: t.unsqueeze(0),
    "strides": lambda t: t.new_zeros((*t.shape, 2))[..., 0] if t.numel() > 1 else t.unsqueeze(-1),
    "not a tensor": lambda t: t.data_ptr(),
    "an address": lambda t: AddressTensor(t.data_ptr()),
    "nothing": lambda _: None,
    "no memory": lambda t: torch.empty(0, dtype=t.dtype).set_(torch.UntypedStorage(0), 0, (0,), (1,)),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("which", range(7))
def test_a_tensor_of_another_kind(rng, which, change):
    case = Case(rng)
    given = case.tensors
    given[which] = CHANGES[change](given[which])
    assert case.sequence(*given) == CHANGED
    assert case.is_untouched()


@pytest.mark.parametrize("which", [1, 2, 5, 6])
def test_a_tensor_in_another_place(rng, which):
    case = Case(rng)
    given = case.tensors
    given[which] = given[which].clone()
    assert case.sequence(*given) == CHANGED
    assert case.is_untouched()


@pytest.mark.parametrize("says", [ON, OFF])
@pytest.mark.parametrize("value", [0, 1, -1, 256, 2**40, -(2**63)])
def test_a_switch(rng, says, value):
    """Any number that is not 0 is on, whichever of its bytes say so."""
    case = Case(rng, says)
    case.switch.fill_(value)
    assert case.sequence(*case.tensors) == (DONE if bool(value) == (says == ON) else CHANGED)
    assert case.is_done() if bool(value) == (says == ON) else case.is_untouched()


@pytest.mark.parametrize("count", [0, 1, 6, 8, 20])
def test_another_number_of_tensors(rng, count):
    case = Case(rng)
    assert case.sequence(*(case.tensors * 3)[:count]) == CHANGED
    assert case.is_untouched()


@pytest.mark.parametrize("seed", range(20))
def test_drawn_sequences(seed):
    """Of steps that write to one another's memory, on any number of threads, with one tensor changed now and then."""
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(1, (4, 60, 400)))
    values = [torch.from_numpy(np.float32(rng.standard_normal(shape) * 30)) for _ in range(3)]
    scale, zero_point = torch.rand(shape[1]) + 0.5, torch.zeros(shape[1], dtype=torch.int32)
    mask = torch.zeros(shape, dtype=torch.bool)
    tensors = [*values, mask, scale, zero_point]
    described = [describe(each, "tensor") for each in tensors]
    wanted, steps = [each.numpy().copy() for each in values], []
    for _ in range(int(rng.integers(1, 6))):
        source, to = (int(n) for n in rng.choice(3, 2, replace=False))
        low = int(rng.integers(-20, 0))
        launch = launch_of(check(Operands(described[source], *described[4:], described[to], described[3]), 1, low, 9))
        steps.append(Step(launch, [Given(n) for n in (source, 4, 5, to, 3)]))
        wanted[to], _ = reference.fake_quant(wanted[source], scale.numpy(), zero_point.numpy(), 1, low, 9)
    sequence = Sequence(described, steps)
    before = [each.clone() for each in values]
    other = [*tensors]
    other[int(rng.integers(6))] = torch.zeros(3)
    assert sequence(*other) == CHANGED
    assert all(map(torch.equal, before, values))
    assert sequence(*tensors) == DONE
    assert all(np.array_equal(got.numpy(), want) for got, want in zip(values, wanted, strict=True))


@pytest.mark.parametrize("bound", [1.0, float("inf")])
def test_a_step_that_ends_it(bound):
    """Parameters of an observed range say whether they were chosen; what follows is done only then."""
    least, greatest = torch.tensor([-1.0]), torch.tensor([bound])
    running = [torch.tensor([0.0]), torch.tensor([0.0]), torch.ones(1), torch.zeros(1, dtype=torch.int32)]
    x, out, mask = torch.linspace(-2, 2, 40), torch.full((40,), 7.0), torch.zeros(40, dtype=torch.bool)
    tensors = [least, greatest, *running, x, out, mask]
    described = [describe(each, "tensor") for each in tensors]
    choose = prepare(ObservedParameters(1, False, 0.5, 0, 255, True, True))
    quantize = launch_of(check(Operands(*(described[i] for i in (6, 4, 5, 7, 8))), None, 0, 255))
    served = Scratch(1)
    steps = [
        Step(choose, [*(Given(i) for i in range(6)), served], proceed=served),
        Step(quantize, [Given(i) for i in (6, 4, 5, 7, 8)]),
    ]
    sequence = Sequence(described, steps, scratch=(100, 4))
    done = sequence(*tensors)
    if bound == 1:
        assert done == DONE
        want = reference.fake_quant(x.numpy(), *(each.numpy() for each in running[2:]), None, 0, 255)
        assert running[0] != 0
        assert all(np.array_equal(got.numpy(), each) for got, each in zip((out, mask), want, strict=True))
    else:
        assert done == STOPPED
        assert running[0] == 0
        assert (out == 7).all()


def test_an_error_of_a_kernel(rng):
    case = Case(rng)
    launch = launch_of(check(Operands(*(describe(each, "tensor") for each in case.tensors[:5])), 1, -20, 30))
    nowhere = Step(launch, [Given(0), Given(1), Given(2), Given(3), AddressTensor(0)])
    sequence = Sequence([describe(each, "tensor") for each in case.tensors[:4]], [nowhere])
    with pytest.raises(LaunchError, match="mask has no memory"):
        sequence(*case.tensors[:4])


def test_a_fork_waits_until_its_code_is_loaded(monkeypatch):
    steps = []
    monkeypatch.setattr(native, "load", lambda name: lambda function: steps.append(len(interruption._steps)))
    sequences._function.__wrapped__()
    assert steps == [1]


def test_too_many_arguments():
    class Large:
        workspace_size = 0

        def bare_calls(self, *tensors, from_torch):
            return [(None, (*tensors, *[0] * MOST_ARGUMENTS))]

    with pytest.raises(ValueError, match=f"has {MOST_ARGUMENTS + 1} arguments; expected at most {MOST_ARGUMENTS}"):
        Sequence([], [Step(Large(), [Given(0)])])
