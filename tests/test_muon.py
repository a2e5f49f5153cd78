"""Muon: its iteration on the singular values, and its steps."""
import pytest
import torch
from conftest import flat
from torch.nn import functional as F
from torch.optim import SGD

from s5_mnist import muon
from s5_mnist.model import Net, init_weights
from s5_mnist.muon import NEWTON_SCHULZ, Muon, newton_schulz
from s5_mnist.recipes import get_recipe, make_optimizer
from s5_mnist.utils import set_seed


@pytest.mark.parametrize('name', NEWTON_SCHULZ)
@pytest.mark.parametrize('shape', [(50, 300), (300, 50), (64, 64)])
@pytest.mark.parametrize('dtype, bound', [(torch.float32, 1e-3), (torch.bfloat16, .04)])
def test_newton_schulz_applies_its_polynomials_to_each_singular_value(name, shape, dtype, bound):
    "By way of the Gram matrix, as they would be in double precision"
    m = torch.randn(shape, generator=torch.Generator().manual_seed(0)).double()
    u, s, v = torch.linalg.svd(m/m.norm(), full_matrices=False)
    for a, b, c in NEWTON_SCHULZ[name]: s = a*s + b*s**3 + c*s**5
    expected = u@s.diag()@v
    found = newton_schulz(m.to(dtype), NEWTON_SCHULZ[name])
    assert found.dtype == dtype and (found.double()-expected).norm() < bound*expected.norm()


def test_a_gradient_of_zeros_gives_a_step_of_zeros():
    assert not newton_schulz(torch.zeros(4, 4)).any()


def test_muon_multiplies_in_bf16_only_where_it_is_native(monkeypatch):
    seen = []
    monkeypatch.setattr(muon, 'newton_schulz', lambda m, steps: seen.append(m.dtype) or m)
    for native in (True, False):
        monkeypatch.setattr(muon, 'native_bf16', lambda device: native)
        p = torch.nn.Parameter(torch.ones(4, 3))
        p.grad = torch.ones(4, 3)
        Muon([dict(params=[p], lr=.1, muon=True)]).step()
    assert seen == [torch.bfloat16, torch.float32]


def test_muon_takes_a_closure_as_torch_s_optimisers_do():
    p = torch.nn.Parameter(torch.ones(4, 3))
    opt = Muon([dict(params=[p], lr=.1, muon=True)])

    def closure():
        opt.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss
    losses = [opt.step(closure).item() for _ in range(3)]
    assert losses[0] == 12 and losses == sorted(losses, reverse=True) and len(set(losses)) == 3


def test_muon_is_the_same_in_either_memory_layout():
    nets = [init_weights(Net(), 'orthogonal', set_seed(0)).to(memory_format=layout)
            for layout in (torch.contiguous_format, torch.channels_last)]
    x, y = torch.randn(8, 1, 28, 28), torch.arange(8)
    before = flat(nets[0])
    for net in nets:
        opt = make_optimizer(net, get_recipe('fast'), 10)[0]
        F.cross_entropy(net(x), y).backward()
        opt.step()
    assert not flat(nets[0]).equal(before)
    for p, q in zip(*(net.parameters() for net in nets)): assert torch.allclose(p, q, atol=1e-4)


def test_muon_without_its_groups_is_sgd_with_nesterov_momentum():
    a, b = (torch.nn.Parameter(torch.linspace(-1, 1, 6).view(2, 3)) for _ in range(2))
    ours = Muon([dict(params=[a], lr=.1)], momentum=.8, weight_decay=.01)
    theirs = SGD([b], lr=.1, momentum=.8, weight_decay=.01, nesterov=True)
    for step in range(4):
        for p, opt in ((a, ours), (b, theirs)):
            p.grad = torch.sin(p.detach()*3+step)
            opt.step()
    assert torch.allclose(a, b, atol=1e-6)


def test_muon_s_decay_is_decoupled():
    "It multiplies the weights by 1 - lr * decay, whatever the gradient"
    p = torch.nn.Parameter(torch.ones(4, 3))
    opt = Muon([dict(params=[p], lr=.1, muon=True)], muon_weight_decay=.5)
    p.grad = torch.zeros(4, 3)
    opt.step()
    assert torch.allclose(p, torch.full((4, 3), .95))
