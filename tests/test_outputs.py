"""What is stored in the notebooks is what running them gives."""
import csv
import json
import re
import statistics

import pytest
from conftest import NOTEBOOKS, ROOT
from notebooks import SKIPPED, WIDGET, figures, marked, run, source, text

from s5_mnist.benchmark import assignment_seconds, mean_interval, read_sweep

NUMBER = re.compile(r'\d+\.\d+(?:e[-+]?\d+)?')


def difference(stored, fresh, trained=False):
    """The first line that differs, or None. Decimal numbers may differ by 2 % (another processor rounds
    differently), seconds by anything; whole numbers and words not at all. Of what was `trained`, only the form
    is compared: rounding grows with every step, and the cells assert what must hold."""
    a, b = (re.sub(r'\d+(\.\d+)? s(econds)?\b', 'some s', t) for t in (stored, fresh))
    if trained:
        a, b = (re.sub(r'\s*\d+(\.\d+)?', ' #', t) for t in (a, b))
    a, b = a.splitlines(), b.splitlines()
    for x, y in zip(a, b):
        close = all(abs(float(p)-float(q)) <= 0.02*abs(float(p))+0.005
                    for p, q in zip(NUMBER.findall(x), NUMBER.findall(y)))
        if NUMBER.sub('#', x) != NUMBER.sub('#', y) or not close:
            return f'stored {x!r}, now {y!r}'
    return None if len(a) == len(b) else f'stored {len(a)} lines, now {len(b)}'


def alike(stored, fresh):
    "As many figures, of the same sizes but for the width of a font; Jupyter draws half as large as execnb"
    return len(stored) == len(fresh) and all(
        any(all(abs(s*a-b) <= .05*b for a, b in zip(p, q)) for s in (1, 2)) for p, q in zip(stored, fresh))


def test_difference_sees_what_matters():
    assert alike([(100, 50)], [(103, 50)]) and alike([(100, 50)], [(204, 100)])
    assert not alike([(100, 50)], [(100, 60)]) and not alike([(100, 50)], [(200, 50)]) and not alike([(9, 9)], [])
    assert difference('epoch 1: loss 0.500, 3.1 s', 'epoch 1: loss 0.501, 9.7 s') is None
    assert difference('epoch 1: loss 0.500', 'epoch 1: loss 0.600')
    assert difference('9934 right', '9935 right')
    assert difference('a\nb', 'a')
    assert difference('right', 'wrong')
    assert difference('loss 0.5, 81 %', 'loss 0.7, 9 %', trained=True) is None
    assert difference('loss 0.5', 'loss 0.5; 3', trained=True)
    assert difference('printed', '') and difference('', 'printed')


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_stored_outputs_are_true(path, request):
    skip = set(SKIPPED)
    if any(marked(c, 'mnist') for c in json.loads(path.read_text())['cells']):
        try:
            request.getfixturevalue('mnist')
            skip -= {'mnist'}
        except pytest.skip.Exception:
            pass
    compared, stale = 0, []
    for i, cell, stored, fresh in run(path, skip):
        if fresh is None:
            continue
        compared += bool(stored)
        found = difference(text(stored), text(fresh), marked(cell, 'trained'))
        if found is None and not alike(figures(stored), figures(fresh)):
            found = f'stored figures of {figures(stored)} pixels, now {figures(fresh)}'
        if found:
            stale.append(f'cell {i} ({source(cell).splitlines()[0]}): {found}')
    assert not stale, '\n'.join([f'{path.name} is stale:', *stale])
    assert compared, 'no output was compared'


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_outputs_are_clean(path):
    """No machine's paths, no warnings, no tracebacks, no progress bars (`TQDM_DISABLE=1 jupyter lab` makes none);
    every cell that needs a long run has its outputs stored"""
    for i, cell in enumerate(json.loads(path.read_text())['cells']):
        if cell['cell_type'] != 'code':
            continue
        out = json.dumps([{k: v for k, v in o.items() if k != 'data'} | {'data': [
            v for k, v in o.get('data', {}).items() if k != 'image/png']} for o in cell['outputs']])
        bad = re.search(r'(?<![\w:/.])/(root|home|tmp|work|Users|opt|var)/|Traceback \(most recent|Warning:', out)
        assert not bad, f'{path.name} cell {i}: {bad.group()}'
        assert not any(WIDGET in o.get('data', {}) for o in cell['outputs']), f'{path.name} cell {i} holds a bar'
        assert all(o.get('name') != 'stderr' for o in cell['outputs']), f'{path.name} cell {i} writes to stderr'
        if marked(cell, 'slow', 'mnist') and 'print' in source(cell):
            assert cell['outputs'], f'{path.name} cell {i} was never run'


def test_the_walkthrough_reports_the_committed_run():
    "The number in S5.ipynb is that of nbs/runs/s5-0"
    report = json.loads((ROOT/'nbs/runs/s5-0/report.json').read_text())
    cells = json.loads((ROOT/'nbs/S5.ipynb').read_text())['cells']
    said = ''.join(text(c['outputs']) for c in cells if c['cell_type'] == 'code')
    assert re.search(rf'TEST: held-out images\s+{report["correct"]} / {report["n"]}', said)
    assert 'training losses equal: True' in said and re.search(r'test losses differ by \de-(08|09|1\d) at most', said)
    assert report['held_out'] == 'MNIST, test images' and report['changes'] == {}
    assert report['accuracy'] == 100*report['correct']/report['n']
    assert sum(h[0] for h in report['halves']) == report['correct']


def test_each_number_in_the_readme_is_that_of_its_rows():
    "Sweeps and benchmarks as they are committed; what else looks like a measurement is named here"
    readme, runs = (ROOT/'README.md').read_text(), ROOT/'nbs/runs'
    found = [json.loads((runs/name/'bench.json').read_text()) for name in ('bench', 'bench-best')]
    machines = [', '.join([f['device'], f'torch {f["versions"]["torch"]}']) for f in found]
    for name in ('s5', 'fast', 'best'):
        rows = read_sweep(runs/f'{name}.csv')
        right = [int(r['test_correct'])/100 for r in rows]
        low, high = mean_interval(right)
        claim = [name, f'{statistics.mean(right):.3f}', f'{low:.3f}', 'to', f'{high:.3f}',
                 f'{statistics.stdev(right):.3f}', str(len(rows))]
        for f in found:
            if f['jobs'][0]['recipe'] == name:
                took, whole = statistics.median(j['seconds'] for j in f['jobs']), assignment_seconds(f)
                claim += [f'{took:,.1f}', f'{whole:,.0f}', f'{whole/took:.3g}']
        line, = (x for x in readme.splitlines() if x.split() == claim)
        readme = readme.replace(line, '')
        machines += [', '.join([r['device'], r['precision'], f'torch {r["torch"]}']) for r in rows]
    for machine in sorted(set(machines), key=len, reverse=True):
        assert machine in readme
        readme = readme.replace(machine, '')
    rest = set(re.findall(r'[\d,]*\d\.\d+', readme))
    assert rest == {'99.19', '3.10', '2.0'} # The assignment's claim, Python, the licence
    assert all(f['data'] == 'MNIST' and len(f['scoring']) >= 5 for f in found)
    assert len(found[0]['jobs']) >= 3 and found[1]['jobs'][0]['recipe'] == 'best'


def test_the_first_row_of_s5_is_the_committed_run():
    report, row = json.loads((ROOT/'nbs/runs/s5-0/report.json').read_text()), read_sweep(ROOT/'nbs/runs/s5.csv')[0]
    assert (row['seed'], int(row['test_correct'])) == ('0', report['correct'])
    assert [int(row['first_half']), int(row['second_half'])] == [h[0] for h in report['halves']]
    assert float(row['seconds']) == round(report['seconds'], 2) and row['torch'] == report['versions']['torch']


@pytest.mark.parametrize('path', sorted((ROOT/'nbs/runs/ladder').glob('*.csv')), ids=lambda p: p.stem)
def test_the_ladder_was_climbed_on_validation_images(path):
    rows = read_sweep(path)
    assert [r['seed'] for r in rows] == [str(i) for i in range(len(rows))] and len(rows) >= 3
    assert {(r['recipe'], r['validation_n'], r['test_n'], r['data']) for r in rows} == {('best', '5000', '', 'MNIST')}


@pytest.mark.parametrize('name', ['choice-fast', 'tried-fast'])
def test_choices_were_made_on_validation_images(name):
    with open(ROOT/f'nbs/runs/{name}.csv', newline='') as f:
        rows = list(csv.DictReader(f))
    for candidate in {r['candidate'] for r in rows}:
        seeds = [r for r in rows if r['candidate'] == candidate]
        assert len(seeds) >= 3 and all(r['n'] == '5000' and int(r['correct']) <= 5000 for r in seeds), candidate
