"""What is stored in the notebooks is what running them gives."""
import csv
import json
import re

import pytest
from conftest import NOTEBOOKS, ROOT
from notebooks import SKIPPED, figures, marked, run, source, text

from s5_mnist.benchmark import job_lines, read_sweep, sweep_line

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


def test_walkthrough_and_readme_report_the_committed_run():
    "The number in S5.ipynb is that of nbs/runs/s5-0"
    report = json.loads((ROOT/'nbs/runs/s5-0/report.json').read_text())
    cells = json.loads((ROOT/'nbs/S5.ipynb').read_text())['cells']
    said = ''.join(text(c['outputs']) for c in cells if c['cell_type'] == 'code')
    assert re.search(rf'TEST: held-out images\s+{report["correct"]} / {report["n"]}', said)
    assert 'training losses equal: True' in said and 'test losses equal:     True' in said
    readme = (ROOT/'README.md').read_text()
    assert f'{report["correct"]}/{report["n"]} = {report["accuracy"]:.2f} %' in readme and report['n'] == 10_000
    assert report['held_out'] == 'MNIST, test images' and report['changes'] == {}
    assert report['accuracy'] == 100*report['correct']/report['n']
    assert sum(h[0] for h in report['halves']) == report['correct']


def test_readme_reports_the_committed_sweep_and_benchmark():
    "Ten seeds of the recipe as it is now, each scored on all test images; and the speed that was measured"
    rows, readme = read_sweep(ROOT/'nbs/runs/fast.csv'), (ROOT/'README.md').read_text()
    assert [r['seed'] for r in rows] == [str(i) for i in range(10)]
    for r in rows:
        assert r['test_n'] == '10000' and r['validation_n'] == ''
        assert int(r['first_half'])+int(r['second_half']) == int(r['test_correct'])
    assert sweep_line(rows).split('; ')[0] in readme
    found = json.loads((ROOT/'nbs/runs/bench/bench.json').read_text())
    assert all(line in readme for line in job_lines(found).splitlines()[:3])
    assert found['data'] == 'MNIST' and len(found['scoring']) >= 5 and len(found['jobs']) >= 3


@pytest.mark.parametrize('name', ['choice-fast', 'tried-fast'])
def test_choices_were_made_on_validation_images(name):
    with open(ROOT/f'nbs/runs/{name}.csv', newline='') as f:
        rows = list(csv.DictReader(f))
    for candidate in {r['candidate'] for r in rows}:
        seeds = [r for r in rows if r['candidate'] == candidate]
        assert len(seeds) >= 3 and all(r['n'] == '5000' and int(r['correct']) <= 5000 for r in seeds), candidate
