"""The speed ladder: what its rungs are, in which order they are measured, and what is reported and saved."""
import contextlib
import csv
import json
import statistics
import tempfile

import pytest
import torch
from conftest import ROOT

from s5_mnist import benchmark, cli
from s5_mnist.speed import RUNGS, assignment_seconds, import_table, inference_table, job_table, ladder_table, limit_table, measure_speed, parts_table, plot_growth, plot_ladder, plot_parts, run_table, save_speed, speed_report, training_flops
from s5_mnist.core import check_folder
from s5_mnist.device import COMPUTE_OPTIONS, ComputeOptions, native_bf16
from s5_mnist.recipes import RECIPES

RUNS = ROOT/'nbs/runs'
PARTS = ['batches', 'forward', 'backward', 'optimizer', 'scoring']


@pytest.fixture(params=['bench', 'bench-second'])
def found(request):
    "The measurements in the repository"
    return json.loads((RUNS/request.param/'bench.json').read_text())


@pytest.fixture
def bench():
    "The measurements of fast"
    return json.loads((RUNS/'bench'/'bench.json').read_text())


# --- the ladder -------------------------------------------------------------------------------------------------

def test_each_rung_changes_one_thing():
    assert len({r.name for r in RUNGS}) == len(RUNGS) == 7
    for a, b in zip(RUNGS, RUNGS[1:]):
        changed = [a.batches != b.batches, *(p != q for p, q in zip(a.options, b.options))]
        assert sum(changed) == 1, b.name


def test_the_work_of_an_epoch():
    assert training_flops(1) == 2*(3*37_263_988 - 26*26*32*9) and training_flops() == 60_000*training_flops(1)


@pytest.mark.parametrize('options, n', [
    (ComputeOptions(), 3), (ComputeOptions('float32', True, True, True), 4),
    (ComputeOptions('bf16', True, True, False), 6), (ComputeOptions('bf16', True, True, True), 7)])
def test_only_the_rungs_that_a_device_has_are_climbed(options, n):
    assert benchmark._available_rungs(options) == list(RUNGS[:n])


@pytest.fixture
def dry(small, monkeypatch):
    "The benchmark with all measurements replaced by numbers; the list of the measurements that it asks for"
    asked, seconds = [], iter(range(1, 1000))

    @contextlib.contextmanager
    def processes():
        def measure(retain, f, *args):
            asked.append((retain, f.__name__, *args))
            if f is benchmark._matmul_peaks: return dict(float32=1e11)
            if f is benchmark.time_parts: return dict.fromkeys(PARTS, float(next(seconds)))
            return float(next(seconds))
        yield measure

    def job(recipe, kind, root, device, seed):
        return dict(recipe=recipe, seed=seed, held_out='x', correct=9, n=10, seconds=2., wall=3., peak_bytes=None)

    monkeypatch.setattr(benchmark, '_measuring_processes', processes)
    monkeypatch.setattr(benchmark, 'time_command', lambda *args: (1., None))
    monkeypatch.setattr(benchmark, 'time_job', job)
    monkeypatch.setattr(benchmark, 'load_data', lambda kind, root: small)
    monkeypatch.setattr(benchmark, '_load_enough', lambda kind, root, n: small)
    monkeypatch.setattr(benchmark, 'pick_compute_options', lambda device: ComputeOptions('bf16', True, True, True))
    return asked


def test_each_repetition_goes_through_all_rungs(dry, capsys):
    found = measure_speed('digits', device='cpu', reps=2, batches=4, jobs=2)
    assert list(found['epochs']) == [r.name for r in RUNGS] and all(len(v) == 2 for v in found['epochs'].values())
    timed = [(retain, rung.name) for retain, name, rung, *_ in (a for a in dry if a[1] == 'time_rung')]
    assert timed == [(r.options.retain_freed_memory, r.name) for r in RUNGS]*2
    assert found['epochs'][RUNGS[0].name][0] == 60_000/512 # The first number, scaled from a batch to an epoch
    assert len(found['scoring']) == 2 and found['peaks'] == dict(float32=[1e11, 1e11])
    assert found['work'] == training_flops()
    assert list(found['inference']) == ['batch 1, float32', 'batch 1, bf16', 'batch 512, float32', 'batch 512, bf16']
    assert found['startup'] == {'torch': [1., 1.], 's5_mnist.model': [1., 1.]}
    assert [j['seed'] for j in found['jobs']] == [0, 1] and found['versions']['torch'] == torch.__version__
    assert all(capsys.readouterr().out.count(r.name) == 2 for r in RUNGS[:1])
    assert 'peak memory' not in speed_report(found)


def test_two_processes_measure_and_one_of_them_retains_memory():
    "The function runs elsewhere, with what it is given"
    import os
    with benchmark._measuring_processes() as measure:
        assert measure(False, divmod, 17, 5) == (3, 2)
        assert len({measure(True, os.getpid), measure(False, os.getpid), os.getpid()}) == 3


@pytest.mark.parametrize('kw, message', [
    (dict(reps=0), 'reps must be an integer between 1 and 1,000, got 0'),
    (dict(batches=0), 'batches must be an integer between 1 and 100, got 0'),
    (dict(jobs=-1), 'jobs must be an integer between 0 and 1,000, got -1'),
    (dict(recipe='slow'), 'recipe must be one of s5, fast, best'),
    (dict(device='tpu'), 'device must be auto or one of')])
def test_the_benchmark_refuses_before_it_measures(kw, message, monkeypatch):
    monkeypatch.setattr(benchmark, 'load_data', lambda *args: pytest.fail('data was loaded'))
    with pytest.raises(ValueError, match=message):
        measure_speed('digits', **{'device': 'cpu', 'jobs': 0, **kw})


def test_a_small_data_set_is_refused(small, monkeypatch):
    monkeypatch.setattr(benchmark, 'load_data', lambda kind, root: small)
    with pytest.raises(ValueError, match='3,072 training images are needed, generated .* has 300; time fewer batches'):
        measure_speed('digits', device='cpu', batches=1, jobs=0)


@pytest.mark.slow
def test_the_benchmark_measures_all_it_names(tmp_path, capsys):
    cli.s5_bench.main(['--data', 'digits', '--device', 'cpu', '--reps', '1', '--batches', '1', '--jobs', '1',
                       '--out', str(tmp_path/'bench')])
    out = capsys.readouterr().out
    found = json.loads((tmp_path/'bench'/'bench.json').read_text())
    rungs = [r.name for r in RUNGS if r.options.precision == 'float32' or native_bf16(torch.device('cpu'))]
    assert list(found['epochs']) == rungs
    for name, seconds in found['epochs'].items():
        assert len(seconds) == 1 and 1 < seconds[0] < 3600, name
        assert out.count(name) >= 2
    assert found['work'] == training_flops() and found['peaks']['float32'][0] > 1e9
    assert found['jobs'][0]['n'] == 2000 and found['jobs'][0]['wall'] > found['jobs'][0]['seconds']
    assert found['jobs'][0]['peak_bytes'] > 200e6
    assert all(v[0] > 0 for part in ('inference', 'startup') for v in found[part].values())
    with open(tmp_path/'bench'/'bench.csv') as f:
        rows = list(csv.DictReader(f))
    assert {r['part'] for r in rows} == {'epochs', 'peaks', 'inference', 'startup', 'scoring', 'job', 'parts', 'growth'}
    assert list(found['parts']) == PARTS and all(v[0] > 0 for v in found['parts'].values())
    assert len(found['growth']) == 4*len({1, torch.get_num_threads()}) and found['images'] == 10_000
    assert (tmp_path/'bench'/'ladder.png').stat().st_size > 5000


# --- reports ----------------------------------------------------------------------------------------------------

def test_the_tables_hold_what_was_measured(found):
    names = list(found['epochs'])
    assert names == [r.name for r in RUNGS]
    first, *rows = str(ladder_table(found)).splitlines()
    assert 'median of 5' in first and [r.split('  ')[0] for r in rows] == names
    for row, values in zip(rows, found['epochs'].values()):
        low, mid, high = (sorted(values)[i] for i in (0, 2, 4))
        assert f' {mid:.1f} ({low:.1f} to {high:.1f}) ' in row and f' {60_000/mid:,.0f} ' in row
    assert rows[0].endswith(' 1.00')
    assert assignment_seconds(found) == 20*(sorted(found['epochs'][names[0]])[2]+sorted(found['scoring'])[2])
    for precision, peak, limit, best, share in limit_table(found).rows[1:]:
        assert peak == f'{statistics.median(found["peaks"][precision])/1e9:,.0f}'
        assert abs(float(share.strip('%'))-100*float(limit)/float(best)) < 1
    assert [r[2] for r in run_table(found).rows[1:]] == [f'{j["correct"]:,}' for j in found['jobs']]
    seconds = statistics.median(j['seconds'] for j in found['jobs'])
    assert job_table(found).rows[2][2] == f'{assignment_seconds(found)/seconds:.3g}'
    assert [r[0] for r in inference_table(found).rows[1:]] == ['1', '512']
    assert [r[0] for r in import_table(found).rows[1:]] == ['torch', 's5_mnist.model']


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
    limits = benchmark._part_limits(found)
    assert limits == pytest.approx(dict(forward=forward/1e9, backward=backward/1e9, scoring=2*sum(whole)*1e4/1e9))


def test_parts_and_growth_are_drawn_as_measured(bench):
    table = {row[0]: row[1:] for row in parts_table(bench).rows[1:]}
    medians = {k: statistics.median(v) for k, v in bench['parts'].items()}
    assert list(medians) == PARTS
    assert {k: table[k][0] for k in PARTS} == {k: f'{v:.2f}' for k, v in medians.items()}
    training = sum(v for k, v in medians.items() if k != 'scoring')
    assert table['training'][0] == f'{training:.2f}'
    fig = plot_parts(bench)
    bars = [p.get_width() for p in fig.axes[0].patches]
    assert bars[:5] == pytest.approx(list(medians.values())) and len(bars) == 10
    fig = plot_growth(bench)
    lines = fig.axes[0].get_lines()
    assert [line.get_linestyle() for line in lines] == ['-', '--']*2
    for line, threads in zip(lines[::2], (1, 2)):
        assert list(line.get_xdata()) == [10_000, 20_000, 40_000, 60_000]
        assert list(line.get_ydata()) == [statistics.median(bench['growth'][f'{n} images, {threads} threads'])
                                          for n in (10_000, 20_000, 40_000, 60_000)]
    one, two = (line.get_ydata()[-1] for line in lines[1::2])
    assert [one, 2*two] == pytest.approx([6*lines[0].get_ydata()[0]]*2) # The ideal


def test_the_report_fits_a_terminal(found):
    bare = {k: v for k, v in found.items() if k != 'parts'} | dict(jobs=[])
    for f in (found, bare):
        report = speed_report(f)
        assert max(map(len, report.splitlines())) <= 88
        parts = [ladder_table, limit_table, inference_table, import_table, *[job_table, run_table]*bool(f['jobs']),
                 *[parts_table]*('parts' in f)]
        assert all(str(part(f)) in report for part in parts)
        assert ('whole command' in report) == bool(f['jobs']) and report.startswith(f['device'])


def test_the_picture_shows_each_rung_and_the_limit(found):
    ax, = plot_ladder(found).axes
    assert [t.get_text() for t in ax.get_yticklabels()] == list(found['epochs'])
    assert [b.get_width() for b in ax.patches] == [sorted(v)[2] for v in found['epochs'].values()]
    assert ax.yaxis_inverted() and 'second' in ax.get_xlabel() and any('limit: ' in t.get_text() for t in ax.texts)


def test_saved_measurements_are_those_in_the_repository(found, tmp_path):
    save_speed(found, tmp_path/'new'/'bench')
    folder = RUNS/('bench' if found['jobs'][0]['recipe'] == 'fast' else 'bench-second')
    for name in ('bench.json', 'bench.csv'):
        assert (tmp_path/'new'/'bench'/name).read_text() == (folder/name).read_text()
    assert (tmp_path/'new'/'bench'/'ladder.png').stat().st_size > 5000


def test_a_folder_is_checked_and_not_made(tmp_path, monkeypatch):
    assert check_folder(tmp_path/'a'/'b') == tmp_path/'a'/'b' and not list(tmp_path.iterdir())
    (tmp_path/'file').write_text('')
    monkeypatch.chdir(tmp_path)
    for name in ('file', 'file/bench', tmp_path/'file'):
        with pytest.raises(ValueError, match='must be a folder, but .*file is a file; name another folder'):
            check_folder(name)

    def full(**kwargs): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(tempfile, 'TemporaryFile', full)
    with pytest.raises(ValueError, match='bench cannot be written .No space left on device.; name'):
        check_folder('bench')


def test_compute_options_of_the_rungs_are_those_there_are():
    assert all(any(getattr(r.options, o) for r in RUNGS) for o in COMPUTE_OPTIONS)
