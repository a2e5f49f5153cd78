"""Devices, precisions and compute options: every option computes the same up to rounding."""
import os
import platform
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from torch.nn import functional as F

from s5_mnist import device
from s5_mnist.device import (COMPUTE_OPTIONS, Autocast, ComputeOptions, device_name, native_bf16, pick_compute_options,
                             pick_device, pick_precision, retain_freed_memory)
from s5_mnist.recipes import build_training, get_recipe

CPU, GPU = torch.device('cpu'), torch.device('cuda')


# --- choices ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('name', ['tpu', 'cuda:77', 'cpu:1', 'meta', '', 'CPU', 'cpu '])
def test_a_device_that_is_missing_is_refused(name):
    with pytest.raises(ValueError, match='device must be'):
        pick_device(name)


def test_the_fastest_device_is_picked(monkeypatch):
    monkeypatch.setattr('torch.backends.mps.is_available', lambda: False)
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    assert pick_device() == CPU
    monkeypatch.setattr('torch.cuda.is_available', lambda: True)
    monkeypatch.setattr('torch.cuda.device_count', lambda: 2)
    assert pick_device() == GPU and pick_device('cuda:1') == torch.device('cuda:1')
    with pytest.raises(ValueError, match='cuda:2'):
        pick_device('cuda:2')


@pytest.mark.parametrize('caps, isa, expected', [
    ({'avx512_bf16': True}, 'AVX512', True), ({'avx512_bf16': False, 'avx512_f': True}, 'AVX512', False),
    ({'avx512_bf16': True}, 'AVX2', False), ({'bf16': True}, 'DEFAULT', True)])
def test_bf16_is_chosen_where_it_is_native(monkeypatch, caps, isa, expected):
    monkeypatch.setattr('torch.cpu.get_capabilities', lambda: caps, raising=False)
    monkeypatch.setattr('torch.backends.cpu.get_cpu_capability', lambda: isa)
    monkeypatch.setattr(device, '_native_on_cpu', device._native_on_cpu.__wrapped__) # Without its cache
    assert native_bf16(CPU) is expected


def test_precision():
    assert [pick_precision(p, CPU) for p in ('bf16', 'float32')] == ['bf16', 'float32']
    assert pick_precision('auto', CPU) == ('bf16' if native_bf16(CPU) else 'float32')
    assert pick_precision('auto', torch.device('mps')) == 'float32' # It computes bf16 in software, if at all
    for call in (lambda: pick_precision('fp8', CPU), lambda: Autocast(torch.nn.Linear(1, 1), 'auto')):
        with pytest.raises(ValueError, match='precision'):
            call()


@pytest.mark.skipif(platform.machine() not in ('x86_64', 'AMD64'), reason='not an x86 processor')
def test_torch_can_be_told_to_compute_as_an_older_processor():
    code = 'import torch; from s5_mnist.device import *; print(pick_precision("auto", torch.device("cpu")))'
    env = {**os.environ, 'ATEN_CPU_CAPABILITY': 'avx2'}
    assert subprocess.check_output([sys.executable, '-c', code], cwd=ROOT, env=env, text=True) == 'float32\n'


def test_compute_options():
    options = pick_compute_options(CPU, 'float32')
    assert options.channels_last and options.fused and not options.deterministic
    assert options.retain_freed_memory == (platform.libc_ver()[0] == 'glibc')
    assert pick_compute_options(CPU, 'float32', ','.join(COMPUTE_OPTIONS)) == ComputeOptions()
    assert pick_compute_options(GPU, 'float32', 'fused', True) == ComputeOptions(channels_last=True, deterministic=True)
    assert str(ComputeOptions('bf16', True, deterministic=True)) == 'bf16, channels_last, deterministic'
    with pytest.raises(ValueError, match='warp'):
        pick_compute_options(CPU, disable='fused,warp')


def test_the_name_of_a_cpu_includes_its_threads():
    threads = torch.get_num_threads()
    try:
        for n, words in ((1, '1 thread'), (2, '2 threads')):
            torch.set_num_threads(n)
            assert device_name(CPU).endswith(f', {words}')
    finally:
        torch.set_num_threads(threads)


# --- what they change -------------------------------------------------------------------------------------------

def loss_curve(data, options):
    "The loss of every batch of an epoch"
    if options.retain_freed_memory:
        retain_freed_memory()
    net, dls, opt, _ = build_training(get_recipe('s5', lr=.001, bs=25, init='orthogonal'), data, CPU, options)
    net, losses = Autocast(net.train(), options.precision), []
    for x, y in dls.train:
        losses.append(F.cross_entropy(net(x), y))
        opt.zero_grad()
        losses[-1].backward()
        opt.step()
    return torch.stack(losses).detach()


@pytest.fixture(scope='module')
def plain(small):
    "The loss curve without any option"
    return loss_curve(small, ComputeOptions())


@pytest.mark.parametrize('option', COMPUTE_OPTIONS)
def test_options_follow_the_plain_loss_curve(small, plain, option):
    "The same loss in every batch of an epoch, up to rounding"
    curve = loss_curve(small, ComputeOptions(**{option: True}))
    torch.testing.assert_close(curve, plain, rtol=5e-3, atol=1e-3)
    assert plain[-3:].mean() < plain[:3].mean() and (option != 'retain_freed_memory' or curve.equal(plain))


@pytest.mark.skipif(not native_bf16(CPU), reason='no native bf16')
def test_bf16_stays_near_the_plain_loss_curve(small, plain):
    curve = loss_curve(small, ComputeOptions('bf16', True, True, True))
    torch.testing.assert_close(curve, plain, rtol=0.05, atol=0.05)
    assert not curve.equal(plain)


@pytest.mark.cuda
def test_an_epoch_never_waits_for_the_gpu(small):
    "From the second batch to the last, CUDA is told to refuse whatever synchronises"
    from s5_mnist.training import fit

    class Watched:
        def __init__(self, dl): self.dl, self.set_epoch, self.n = dl, dl.set_epoch, dl.n
        def __len__(self): return len(self.dl)
        def __iter__(self):
            for i, batch in enumerate(self.dl):
                if i == 1:
                    torch.cuda.set_sync_debug_mode('error')
                yield batch
            torch.cuda.set_sync_debug_mode('default')

    for recipe in ('s5', 'fast'):
        options = pick_compute_options(GPU, 'bf16')
        net, dls, opt, _ = build_training(get_recipe(recipe, bs=32), small, GPU, options)
        try:
            fit(Autocast(net), Watched(dls.train), None, opt, epochs=1, callback=lambda hist: None)
        finally:
            torch.cuda.set_sync_debug_mode('default')
