"""Devices, precisions and compute options: every option computes the same up to rounding."""
import os
import platform
import subprocess
import sys

import pytest
import torch
from conftest import ROOT

from s5_mnist.augment import s5_augment
from s5_mnist.speed import RUNGS

from s5_mnist.data import loaders
from s5_mnist.device import COMPUTE_OPTIONS, ComputeOptions, autocast, device_name, native_bf16, pick_compute_options, pick_device, pick_precision, retain_freed_memory
from s5_mnist.model import Net, init_weights
from s5_mnist.recipes import get_recipe, make_optimizer
from s5_mnist.training import train_epoch

CPU = torch.device('cpu')


# --- choices ----------------------------------------------------------------------------------------------------

def test_the_cpu_is_always_there():
    assert pick_device('cpu') == CPU and pick_device().type in ('cuda', 'mps', 'cpu')


@pytest.mark.parametrize('name', ['tpu', 'cuda:77', 'cpu:1', 'meta', '', 'CPU', 'cpu '])
def test_a_device_that_is_missing_is_refused(name):
    with pytest.raises(ValueError, match=f'device must be auto or one of .*cpu on this machine, got {name!r}'):
        pick_device(name)


def test_precision():
    assert [pick_precision(p, CPU) for p in ('bf16', 'float32')] == ['bf16', 'float32']
    assert pick_precision('auto', CPU) == ('bf16' if native_bf16(CPU) else 'float32')
    assert pick_precision('auto', torch.device('mps')) == 'float32' # It computes bf16 in software, if at all
    with pytest.raises(ValueError, match="precision must be one of auto, float32, bf16, got 'fp8'"):
        pick_precision('fp8', CPU)


def test_without_avx512_nothing_is_native_bf16():
    "As on an older processor, which this stands for in the tests"
    code = ('import torch; from s5_mnist.device import native_bf16, pick_precision; cpu = torch.device("cpu"); '
            'assert not native_bf16(cpu) and pick_precision("auto", cpu) == "float32"')
    env = {**os.environ, 'ATEN_CPU_CAPABILITY': 'avx2'}
    if platform.machine() in ('x86_64', 'AMD64'):
        subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT, env=env)


@pytest.mark.parametrize('before, expected', [('', 'PASSIVE'), ('import torch; ', 'None'),
                                              ('import os; os.environ["OMP_WAIT_POLICY"] = "ACTIVE"; ', 'ACTIVE')])
def test_threads_wait_kindly_unless_told_otherwise(before, expected):
    code = f'{before}import s5_mnist, os; print(os.environ.get("OMP_WAIT_POLICY"))'
    env = {k: v for k, v in os.environ.items() if k != 'OMP_WAIT_POLICY'}
    done = subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.stdout.strip() == expected


def test_autocast_is_on_for_bf16_alone():
    x = torch.ones(2, 2)
    with autocast(CPU, 'bf16'):
        assert (x@x).dtype == torch.bfloat16
    with autocast(CPU, 'float32'):
        assert (x@x).dtype == torch.float32
    with pytest.raises(ValueError, match="precision must be one of float32, bf16, got 'auto'"):
        autocast(CPU, 'auto')


def test_compute_options_of_a_cpu():
    options = pick_compute_options(CPU, 'float32')
    assert options.channels_last and options.fused and not options.deterministic
    assert options.retain_freed_memory == (platform.libc_ver()[0] == 'glibc')
    assert not any(getattr(pick_compute_options(CPU, disable=','.join(COMPUTE_OPTIONS)), o) for o in COMPUTE_OPTIONS)
    without = pick_compute_options(CPU, 'float32', 'fused, channels_last', deterministic=True)
    assert without == options._replace(fused=False, channels_last=False, deterministic=True)


def test_an_unknown_compute_option_is_refused():
    with pytest.raises(ValueError, match="must name some of channels_last, retain_freed_memory, fused, got 'x'"):
        pick_compute_options(CPU, disable='fused,x')


def test_compute_options_are_described():
    assert str(ComputeOptions()) == 'float32'
    assert str(ComputeOptions('bf16', True, True, True, True)) == \
        'bf16, channels_last, retain_freed_memory, fused, deterministic'


def test_the_name_of_a_cpu_includes_its_threads():
    threads = torch.get_num_threads()
    try:
        for n, words in ((1, '1 thread'), (2, '2 threads')):
            torch.set_num_threads(n)
            assert device_name(CPU).endswith(f', {words}')
    finally:
        torch.set_num_threads(threads)


def test_muon_does_not_import_the_compiler():
    "It takes a second"
    code = ('import sys, torch; from s5_mnist.device import skip_compiler_import; skip_compiler_import(); '
            'from s5_mnist.recipes import Muon; p = torch.nn.Parameter(torch.ones(2)); p.grad = torch.ones(2); '
            'o = Muon([dict(params=[p], lr=.5)], momentum=0.); o.step(); o.zero_grad(); assert p.tolist() == [.5, .5]; '
            'assert "torch._dynamo" not in sys.modules')
    subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT)


# --- what they change -------------------------------------------------------------------------------------------

def loss_curve(data, options, device='cpu'):
    "The loss of every batch of an epoch"
    recipe, g = get_recipe('s5', lr=0.001), torch.Generator().manual_seed(0)
    layout = torch.channels_last if options.channels_last else torch.contiguous_format
    net = init_weights(Net(), 'orthogonal', g).to(device, memory_format=layout)
    opt, _ = make_optimizer(net, recipe, 1, options.fused)
    if options.retain_freed_memory:
        retain_freed_memory()
    dl = loaders(data, bs=20, augment=s5_augment, device=device, generator=g).train
    return torch.tensor([train_epoch(net, [b], opt, precision=options.precision)[0] for b in dl])


@pytest.fixture(scope='module')
def plain(small):
    "The loss curve without any option"
    return loss_curve(small, ComputeOptions())


CHOICES = [r.options for r in RUNGS if r.options.precision == 'float32' and r.options != ComputeOptions()]
CHOICES += [ComputeOptions(**{o: True}) for o in COMPUTE_OPTIONS if ComputeOptions(**{o: True}) not in CHOICES]
CHOICES += [ComputeOptions('float32', True, True, True)]


@pytest.mark.parametrize('options', [pytest.param(o, id=str(o), marks=() if o == CHOICES[-1] else pytest.mark.slow)
                                     for o in CHOICES])
def test_options_in_float32_follow_the_plain_loss_curve(small, plain, options):
    "The same loss in every batch of an epoch, up to rounding"
    assert len(plain) == 15 and plain[-3:].mean() < 2 # Chance is 2.3
    torch.testing.assert_close(loss_curve(small, options), plain, rtol=2e-3, atol=1e-4)


def test_bf16_stays_near_the_plain_loss_curve(small, plain):
    curve = loss_curve(small, RUNGS[-1].options)
    torch.testing.assert_close(curve, plain, rtol=0.05, atol=0.05)
    assert not curve.equal(plain)


def test_retained_memory_changes_no_bit(small, plain):
    assert loss_curve(small, ComputeOptions(retain_freed_memory=True)).equal(plain)


@pytest.mark.cuda
def test_an_epoch_never_waits_for_the_gpu(small):
    "From the second batch to the last, CUDA is told to refuse whatever synchronises"
    from s5_mnist.augment import AUGMENTS

    def watched(dl):
        for i, batch in enumerate(dl):
            if i == 1:
                torch.cuda.set_sync_debug_mode('error')
            yield batch
        torch.cuda.set_sync_debug_mode('default')

    for recipe in ('s5', 'fast'):
        recipe = get_recipe(recipe)
        net = Net().cuda().to(memory_format=torch.channels_last)
        opt, sched = make_optimizer(net, recipe, 10, fused=True)
        g = torch.Generator('cuda').manual_seed(0)
        dl = loaders(small, 32, AUGMENTS[recipe.augment], device='cuda', generator=g).train
        try:
            train_epoch(net, watched(dl), opt, sched, precision='bf16')
        finally:
            torch.cuda.set_sync_debug_mode('default')
