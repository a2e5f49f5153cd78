"""The speed ladder: its rungs, single measurements, the order in which they are taken, and what is reported and saved."""
import contextlib
import json
import os
import statistics

import pytest
import torch
from conftest import ROOT

from s5_mnist import cli, speed
from s5_mnist.augment import s5_transforms
from s5_mnist.core import read_csv
from s5_mnist.data import loaders
from s5_mnist.device import ComputeOptions
from s5_mnist.recipes import RECIPES
from s5_mnist.speed import (RUNGS, assignment_seconds, job_table, ladder_table, limit_table, matmul_peak,
                            measure_speed, parts_table, plot_ladder, recipe_seconds, save_speed,
                            speed_report, time_command, time_inference, time_parts, time_rung, time_scoring, training_flops)

RUNS = ROOT/'nbs/runs'
PARTS = ['batches', 'forward', 'backward', 'optimizer', 'scoring']


@pytest.fixture(params=['bench', 'bench-second'])
def found(request):
    "The measurements in the repository"
    return json.loads((RUNS/request.param/'bench.json').read_text())


# --- what is measured -------------------------------------------------------------------------------------------

def test_each_rung_changes_one_thing():
    for a, b in zip(RUNGS, RUNGS[1:]):
        assert sum([a.batches != b.batches, *(p != q for p, q in zip(a.options, b.options))]) == 1, b.name


@pytest.mark.parametrize('options, n', [
    (ComputeOptions(), 3), (ComputeOptions('float32', True, True, True), 4), (ComputeOptions('bf16', True, True), 6)])
def test_only_the_rungs_that_a_device_has_are_climbed(options, n):
    assert speed._available_rungs(options) == list(RUNGS[:n])


def test_the_work_of_an_epoch():
    assert training_flops(1) == 2*(3*37_263_988 - 26*26*32*9) and training_flops() == 60_000*training_flops(1)


def test_the_sources_of_batches_deliver_the_same_images(small):
    "As torchvision's MNIST would, and as our own batches do"
    from torchvision.datasets import MNIST
    digits = speed.PilDigits(small.test_x, small.test_y, s5_transforms(False))
    theirs = MNIST.__new__(MNIST)                             # Without its files
    theirs.data, theirs.targets, theirs.transform, theirs.target_transform = *small[2:4], s5_transforms(False), None
    x, y = next(iter(loaders(small).test))
    for i in (0, 5):
        assert digits[i][0].equal(theirs[i][0]) and digits[i][0].equal(x[i]) and digits[i][1] == theirs[i][1] == y[i]
    for source in ('dataloader', 'per image', 'per batch'):
        x, y = next(iter(speed._training_batches(source, small, loaders(small, bs=40), 40)))
        assert x.shape == (40, 1, 28, 28) and y.shape == (40,) and abs(x.mean()) < .5


def test_single_measurements_are_taken(small):
    assert time_rung(RUNGS[3], small, batches=1, bs=20) > 0
    assert time_scoring(small, bs=30) > 0 and time_inference(10, ComputeOptions(), small) > 0
    assert matmul_peak(n=64, repeats=1) > 0
    threads = torch.get_num_threads()
    assert list(time_parts(RECIPES['fast'], small, threads=1)) == PARTS and torch.get_num_threads() == threads


def test_a_failed_command_is_no_measurement():
    with pytest.raises(ValueError, match='ModuleNotFoundError'):
        time_command('-c', 'import nothing_of_this_name')
    assert time_command('-c', 'print(5)')[1] == '5\n'


@pytest.fixture
def dry(small, monkeypatch):
    "The benchmark with all measurements replaced by numbers; the list of those that it asks for"
    asked, seconds = [], iter(range(1, 1000))

    @contextlib.contextmanager
    def processes(kind, root):
        def measure(retain, f):
            asked.append((retain, f.func.__name__, *f.args))
            return dict.fromkeys(PARTS, next(seconds)) if f.func is time_parts else next(seconds)
        yield measure

    def job(recipe, kind, root, device, seed):
        return dict(recipe=recipe, seed=seed, held_out='x', correct=9, n=10, seconds=2., wall=3., peak_bytes=None)

    monkeypatch.setattr(speed, '_measuring_processes', processes)
    monkeypatch.setattr(speed, 'time_job', job)
    many = small._replace(train_x=small.train_x.repeat(20, 1, 1))
    monkeypatch.setattr(speed, 'load_data', lambda kind, root: many)
    monkeypatch.setattr(speed, 'pick_compute_options', lambda device: ComputeOptions('bf16', True, True, True))
    return asked


def test_each_repetition_goes_through_all_measurements(dry):
    found = measure_speed('digits', device='cpu', reps=2, batches=4, jobs=2)
    timed = [(retain, rung.name) for retain, name, rung, *_ in (a for a in dry if a[1] == 'time_rung')]
    assert timed == [(r.options.retain_freed_memory, r.name) for r in RUNGS]*2
    assert list(found['epochs']) == [r.name for r in RUNGS] and all(len(v) == 2 for v in found['epochs'].values())
    assert len(found['scoring']) == 2 and list(found['peaks']) == ['float32', 'bf16'] and list(found['parts']) == PARTS
    assert list(found['inference']) == [f'batch {n}, {p}' for n in (1, 512) for p in ('float32', 'bf16')]
    assert [j['seed'] for j in found['jobs']] == [0, 1] and 'unknown' in speed_report(found)
    bare = measure_speed('digits', device='cpu', reps=1, jobs=0)
    assert 'parts' not in bare and 'command' not in speed_report(bare)


def test_a_small_data_set_is_refused(small, monkeypatch):
    monkeypatch.setattr(speed, 'load_data', lambda kind, root: small)
    with pytest.raises(ValueError, match='3,072'):
        measure_speed('digits', device='cpu', batches=1, jobs=0)


@pytest.mark.slow
def test_two_processes_measure():
    with speed._measuring_processes('digits', None) as measure:
        assert len({measure(True, _process), measure(False, _process), os.getpid()}) == 3


def _process(data): return os.getpid()


@pytest.mark.slow
def test_the_benchmark_measures_all_it_names(tmp_path, capsys):
    cli.s5_bench.main(['--data', 'digits', '--device', 'cpu', '--reps', '1', '--batches', '1', '--jobs', '1',
                       '--out', str(tmp_path/'bench')])
    out, found = capsys.readouterr().out, json.loads((tmp_path/'bench'/'bench.json').read_text())
    assert all(out.count(name) >= 2 for name in found['epochs']) and found['images'] == 10_000
    assert found['jobs'][0]['n'] == 2000 and list(found['parts']) == PARTS
    rows = read_csv(tmp_path/'bench'/'bench.csv')
    assert {r['part'] for r in rows} == {'epochs', 'peaks', 'inference', 'startup', 'scoring', 'job', 'parts', 'growth'}
    assert all(float(r['value'] or 1) > 0 for r in rows) and (tmp_path/'bench'/'ladder.png').stat().st_size > 5000


# --- reports ----------------------------------------------------------------------------------------------------

def test_the_tables_hold_what_was_measured(found):
    for row, values in zip(ladder_table(found).rows[1:], found['epochs'].values()):
        low, mid, high = (sorted(values)[i] for i in (0, 2, 4))
        assert row[1:3] == [f'{mid:.1f} ({low:.1f} to {high:.1f})', f'{60_000/mid:,.0f}']
    first, *_ = found['epochs'].values()
    assert assignment_seconds(found) == 20*(sorted(first)[2]+sorted(found['scoring'])[2])
    for precision, peak, limit, best, share in limit_table(found).rows[1:]:
        assert peak == f'{statistics.median(found["peaks"][precision])/1e9:,.0f}'
        assert abs(float(share.strip('%'))-100*float(limit)/float(best)) < 1
    seconds = statistics.median(j['seconds'] for j in found['jobs'])
    assert job_table(found).rows[2][2] == f'{assignment_seconds(found)/seconds:.3g}'
    if 'parts' in found:
        assert {row[0]: row[1] for row in parts_table(found).rows[1:]}['backward'] == \
            f'{statistics.median(found["parts"]["backward"]):.2f}'


def test_the_arithmetic_of_the_parts_is_that_of_each_step():
    "fast, by hand: crops, then whole images; at first every layer learns, then those from conv3 on"
    recipe = RECIPES['fast']
    found = dict(images=60_000, peaks=dict(bf16=[1e9]), jobs=[dict(recipe='fast', n=10_000)])
    whole = [26*26*32*9, 24*24*64*288, 10*10*128*576, 8*8*256*1152, 4096*50, 500]
    crop = [18*18*32*9, 16*16*64*288, 6*6*128*576, 4*4*256*1152, 4096*50, 500]
    n = round(.7*36_000)
    sizes = [min(128, n-i) for i in range(0, n, 128)]
    crops, learning = round(recipe.center_crop_frac*len(sizes)), len(sizes)-round(recipe.frozen_frac*len(sizes))
    forward = backward = 0
    for step, size in enumerate(sizes):
        macs = crop if step < crops else whole
        forward += 2*size*sum(macs)
        backward += 2*size*(2*sum(macs)-macs[0] if step < learning else 2*sum(macs[2:])-macs[2])
    assert speed._part_limits(found) == pytest.approx(
        dict(forward=forward/1e9, backward=backward/1e9, scoring=2*sum(whole)*1e4/1e9))


def test_the_picture_shows_what_was_measured(found):
    ax, = plot_ladder(found).axes
    assert [t.get_text() for t in ax.get_yticklabels()] == list(found['epochs']) and ax.yaxis_inverted()
    assert [b.get_width() for b in ax.patches] == [sorted(v)[2] for v in found['epochs'].values()]


def test_measurements_are_saved_whole(found, tmp_path):
    save_speed(found, tmp_path/'new'/'bench')
    folder = RUNS/('bench' if found['jobs'][0]['recipe'] == 'fast' else 'bench-second')
    assert (tmp_path/'new'/'bench'/'bench.json').read_text() == (folder/'bench.json').read_text()
    key = lambda r: tuple(r.values())
    assert sorted(read_csv(tmp_path/'new'/'bench'/'bench.csv'), key=key) == sorted(read_csv(folder/'bench.csv'), key=key)



def test_a_recipe_takes_as_long_as_its_epochs(tmp_path):
    (tmp_path/'x.csv').write_text('epoch,seconds,epochs\n1,2.5,4\n2,3,10\n')
    assert recipe_seconds(tmp_path/'x.csv') == 40
