"""What is stored in the notebooks is what running them gives."""
import csv
import json
import re

import pytest
from conftest import NOTEBOOKS, ROOT
from notebooks import SKIPPED, figures, marked, run, source, text

from s5_mnist.benchmark import job_lines, read_sweep, sweep_table

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


def test_difference_sees_what_matters():
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
        if found is None and figures(stored) != figures(fresh):
            found = f'stored {figures(stored)} figures, now {figures(fresh)}'
        if found:
            stale.append(f'cell {i} ({source(cell).splitlines()[0]}): {found}')
    assert not stale, '\n'.join([f'{path.name} is stale:', *stale])
    assert compared, 'no output was compared'


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_outputs_are_clean(path):
    "No machine's paths, no warnings, no tracebacks; every cell that needs a long run has its outputs stored"
    for i, cell in enumerate(json.loads(path.read_text())['cells']):
        if cell['cell_type'] != 'code':
            continue
        out = json.dumps([{k: v for k, v in o.items() if k != 'data'} | {'data': [
            v for k, v in o.get('data', {}).items() if k != 'image/png']} for o in cell['outputs']])
        bad = re.search(r'(?<![\w:/.])/(root|home|tmp|work|Users|opt|var)/|Traceback \(most recent|Warning:', out)
        assert not bad, f'{path.name} cell {i}: {bad.group()}'
        assert all(o.get('name') != 'stderr' for o in cell['outputs']), f'{path.name} cell {i} writes to stderr'
        if marked(cell, 'slow', 'mnist') and 'print' in source(cell):
            assert cell['outputs'], f'{path.name} cell {i} was never run'


def test_the_walkthrough_reports_the_committed_run():
    "The number in S5.ipynb is that of nbs/runs/s5-0"
    report = json.loads((ROOT/'nbs/runs/s5-0/report.json').read_text())
    cells = json.loads((ROOT/'nbs/S5.ipynb').read_text())['cells']
    said = ''.join(text(c['outputs']) for c in cells if c['cell_type'] == 'code')
    assert re.search(rf'TEST: held-out images\s+{report["correct"]} / {report["n"]}', said)
    assert 'training losses equal: True' in said and 'test losses equal:     True' in said
    assert report['held_out'] == 'MNIST, test images' and report['changes'] == {}
    assert report['accuracy'] == 100*report['correct']/report['n']
    assert sum(h[0] for h in report['halves']) == report['correct']


def test_each_number_in_the_readme_is_that_of_its_rows():
    "Sweeps and benchmarks as they are committed; what else looks like a measurement is named here"
    readme, runs = (ROOT/'README.md').read_text(), ROOT/'nbs/runs'
    found = json.loads((runs/'bench'/'bench.json').read_text())
    s5 = json.loads((runs/'s5-0/report.json').read_text())
    claims = [f's5, seed 0: {s5["correct"]}/{s5["n"]} = {s5["accuracy"]:.2f} %',
              sweep_table(*(read_sweep(runs/f'{name}.csv') for name in ('fast', 'best'))),
              '\n'.join(job_lines(found).splitlines()[:3])]
    for name in ('fast', 'best'):
        claims += {'{recipe} on {device}, {precision}, torch {torch}'.format(**r) for r in read_sweep(runs/f'{name}.csv')}
    for claim in claims:
        for line in claim.splitlines():
            assert readme.count(line) >= 1, line
            readme = readme.replace(line, '')
    rest = set(re.findall(r'[\d,]*\d\.\d+', readme))
    assert rest == {'99.19', '3.10', '2.0'} # The assignment's claim, Python, the licence
    assert found['data'] == 'MNIST' and len(found['scoring']) >= 5 and len(found['jobs']) >= 3


@pytest.mark.parametrize('name', ['choice-fast', 'tried-fast'])
def test_choices_were_made_on_validation_images(name):
    with open(ROOT/f'nbs/runs/{name}.csv', newline='') as f:
        rows = list(csv.DictReader(f))
    for candidate in {r['candidate'] for r in rows}:
        seeds = [r for r in rows if r['candidate'] == candidate]
        assert len(seeds) >= 3 and all(r['n'] == '5000' and int(r['correct']) <= 5000 for r in seeds), candidate
