"""What is stored in the notebooks is what running them gives, and numbers are those of the committed files."""
import csv
import json
import re
import statistics

import pytest
from conftest import NOTEBOOKS, ROOT
from notebooks import SKIPPED, WIDGET, cells, figures, marked, run, source, text

from s5_mnist.speed import assignment_seconds
from s5_mnist.runs import load_history
from s5_mnist.recipes import RECIPES, first_cycle
from s5_mnist.sweeps import mean_interval, read_sweep

NUMBER = re.compile(r'\d+\.\d+(?:e[-+]?\d+)?')
SHORT = {'core', 'device', 'digits'}                              # Notebooks that take a few seconds each
READERS = {'10_benchmark', '11_sweeps', '12_results'}             # Most of their numbers come from committed files


def difference(stored, fresh, trained=False, exact=False):
    """The first line that differs, or None. Decimal numbers may differ by 2 % (another processor rounds differently)
    unless they must be `exact`, seconds and the names of processors by any amount; whole numbers and words may not differ. Of what was `trained`,
    only the form is compared: rounding errors grow with every step, and the cells assert what must hold."""
    a, b = (re.sub(r'^.*, \d+ threads?\b.*$', 'some processor', t, flags=re.M) for t in (stored, fresh))
    a, b = (re.sub(r'\d+(\.\d+)? s(econds)?\b', 'some s', t) for t in (a, b))
    if trained:
        a, b = (re.sub(r'\s*\d+(\.\d+)?', ' #', t) for t in (a, b))
    a, b = a.splitlines(), b.splitlines()
    for x, y in zip(a, b):
        close = all(p == q if exact else abs(float(p)-float(q)) <= 0.02*abs(float(p))+0.005
                    for p, q in zip(NUMBER.findall(x), NUMBER.findall(y)))
        if NUMBER.sub('#', x) != NUMBER.sub('#', y) or not close:
            return f'stored {x!r}, now {y!r}'
    return None if len(a) == len(b) else f'stored {len(a)} lines, now {len(b)}'


def alike(stored, fresh):
    "Whether figures are as many and as large, up to the width of a font; Jupyter draws half as large as execnb"
    return len(stored) == len(fresh) and all(
        any(all(abs(s*a-b) <= .05*b for a, b in zip(p, q)) for s in (1, 2)) for p, q in zip(stored, fresh))


def test_difference_sees_what_matters():
    assert alike([(100, 50)], [(103, 50)]) and alike([(100, 50)], [(204, 100)])
    assert not alike([(100, 50)], [(100, 60)]) and not alike([(100, 50)], [(200, 50)]) and not alike([(9, 9)], [])
    assert difference('epoch 1: loss 0.500, 3.1 s', 'epoch 1: loss 0.501, 9.7 s') is None
    assert difference('epoch 1: loss 0.500', 'epoch 1: loss 0.600')
    assert difference('AMD EPYC, 2 threads; bf16, fused\n3', 'Intel, 1 thread; float32\n3') is None
    assert difference('AMD EPYC, 2 threads; bf16, fused\n3', 'Intel, 1 thread; float32\n4')
    assert difference('epoch 1: loss 0.500', 'epoch 1: loss 0.501', exact=True)
    assert difference('9934 correct', '9935 correct')
    assert difference('a\nb', 'a')
    assert difference('correct', 'wrong')
    assert difference('loss 0.5, 81 %', 'loss 0.7, 9 %', trained=True) is None
    assert difference('loss 0.5', 'loss 0.5; 3', trained=True)
    assert difference('printed', '') and difference('', 'printed')


def test_tables_are_compared_as_markdown():
    def table(n): return [dict(data={'text/plain': ['<Table>'], 'text/markdown': [f'| a |\n| --: |\n| {n} |']})]
    assert difference(text(table(1)), text(table(1))) is None and difference(text(table(1)), text(table(2)))


@pytest.mark.parametrize('path', [pytest.param(p, id=p.stem, marks=() if p.stem in SHORT else pytest.mark.slow)
                                  for p in NOTEBOOKS])
def test_stored_outputs_are_true(path, request):
    skip = set(SKIPPED)
    if any(marked(c, 'mnist') for c in cells(path)):
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
        exact = path.stem in READERS and not marked(cell, 'mnist')
        found = difference(text(stored), text(fresh), marked(cell, 'trained'), exact)
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
    for i, cell in enumerate(cells(path)):
        if cell['cell_type'] != 'code':
            continue
        out = json.dumps([{k: v for k, v in o.items() if k != 'data'} | {'data': [
            v for k, v in o.get('data', {}).items() if k != 'image/png']} for o in cell['outputs']])
        bad = re.search(r'(?<![\w:/.])/(root|home|tmp|work|Users|opt|var)/|Traceback \(most recent|Warning:', out)
        assert not bad, f'{path.name} cell {i}: {bad.group()}'
        assert not any(WIDGET in o.get('data', {}) for o in cell['outputs']), f'{path.name} cell {i} holds a widget; clear it'
        assert all(o.get('name') != 'stderr' for o in cell['outputs']), f'{path.name} cell {i} writes to stderr'
        if marked(cell, 'slow', 'mnist') and 'print' in source(cell):
            assert cell['outputs'], f'{path.name} cell {i} was never run'


# --- numbers ----------------------------------------------------------------------------------------------------

def table_rows(markdown):
    "The rows of all tables in a page, as lists of text without emphasis"
    lines = [line.strip() for line in markdown.splitlines() if line.strip().startswith('|')]
    return [[c.strip(' *`') for c in line.strip('|').split('|')] for line in lines]


def test_rows_of_tables_are_read():
    assert table_rows('a | b\n| a | *b* |\n|--|-:|\n|`1`|  |\n') == [['a', 'b'], ['--', '-:'], ['1', '']]


def test_the_walkthrough_reports_the_committed_run():
    "The number in S5.ipynb is that of nbs/runs/s5-0"
    report = json.loads((ROOT/'nbs/runs/s5-0/report.json').read_text())
    printed = '\n'.join(text(c['outputs']) for c in cells(ROOT/'nbs/S5.ipynb') if c['cell_type'] == 'code')
    correct, n, accuracy = (f'{report["correct"]:,}', f'{report["n"]:,}', f'{report["accuracy"]:.2f}')
    assert ['2. network, test images', correct, n, accuracy] in table_rows(printed)
    for name, (k, half) in zip(('first', 'second'), report['halves']):
        assert [f'the {name} half of them', f'{k:,}', f'{half:,}', f'{100*k/half:.2f}'] in table_rows(printed)
    assert f'{report["correct"]}/{report["n"]} of {report["held_out"]}; seed {report["seed"]}' in printed
    assert 'training losses equal: True' in printed
    assert re.search(r'test losses differ by \de-(08|09|1\d) at most', printed)
    assert report['held_out'] == 'MNIST, test images' and report['changes'] == {}
    assert report['accuracy'] == 100*report['correct']/report['n']
    assert sum(h[0] for h in report['halves']) == report['correct']


def test_each_number_in_the_readme_is_that_of_its_rows():
    "Numbers of sweeps and benchmarks are those of the committed files; nothing else may look like a measurement"
    readme, runs = (ROOT/'README.md').read_text(), ROOT/'nbs/runs'
    bench = json.loads((runs/'bench/bench.json').read_text())
    crops, whole = load_history(runs/'best-epochs.csv').column('seconds')
    recipe, crop_epochs = RECIPES['best'], RECIPES['best'].center_crop_frac*first_cycle(RECIPES['best'])
    seconds = dict(fast=statistics.median(j['seconds'] for j in bench['jobs']),
                   best=crop_epochs*crops+(recipe.epochs-crop_epochs)*whole)
    machines, torches = {bench['device']}, {bench['versions']['torch']}
    for name in ('s5', 'fast', 'best'):
        rows = read_sweep(runs/f'{name}.csv')
        correct = [int(r['test_correct'])/100 for r in rows]
        low, high = mean_interval(correct)
        claim = [name, f'{statistics.mean(correct):.3f}', f'{low:.3f} to {high:.3f}',
                 f'{statistics.stdev(correct):.3f}', str(len(rows)), '', '']
        if name in seconds:
            claim[-2:] = f'{seconds[name]:,.0f}', f'{assignment_seconds(bench)/seconds[name]:.3g}'
        assert claim in table_rows(readme)
        machines |= {f'{r["device"]}, {r["precision"]}' for r in rows}
        torches |= {r['torch'] for r in rows}
    prose = '\n'.join(line for line in readme.splitlines() if not line.startswith('|'))
    prose = re.sub(r'<img .*?>|\]\(\S*?\)', ' ', ' '.join(prose.split())) # Neither alternative texts nor addresses
    for words in sorted(machines | torches, key=len, reverse=True):
        assert words in prose, words
        prose = prose.replace(words, '')
    assert len(torches) == 1 and bench['data'] == 'MNIST' and len(bench['scoring']) >= 5
    assert len(bench['jobs']) >= 3 and {j['recipe'] for j in bench['jobs']} == {'fast'}
    rest = {'99.19', '3.10', '2.0'}                               # The assignment's claim, Python, the licence
    assert set(re.findall(r'[\d,]*\d\.\d+', prose)) == rest


def test_the_first_row_of_s5_is_the_committed_run():
    report, row = json.loads((ROOT/'nbs/runs/s5-0/report.json').read_text()), read_sweep(ROOT/'nbs/runs/s5.csv')[0]
    assert (row['seed'], int(row['test_correct'])) == ('0', report['correct'])
    assert [int(row['first_half']), int(row['second_half'])] == [h[0] for h in report['halves']]
    assert float(row['seconds']) == round(report['seconds'], 2) and row['torch'] == report['versions']['torch']


@pytest.mark.parametrize('path', sorted((ROOT/'nbs/runs/ladder').glob('*.csv')), ids=lambda p: p.stem)
def test_the_ladder_was_measured_on_validation_images(path):
    rows = read_sweep(path)
    assert [r['seed'] for r in rows] == [str(i) for i in range(len(rows))] and len(rows) >= 3
    assert {(r['recipe'], r['validation_n'], r['test_n'], r['data']) for r in rows} == {('best', '5000', '', 'MNIST')}


@pytest.mark.parametrize('name, n', [('choice-fast', 5000), ('tried-fast', 5000), ('choice-faster', 10_000),
                                     ('tried-faster', 10_000)])
def test_choices_were_made_on_validation_images(name, n):
    with open(ROOT/f'nbs/runs/{name}.csv', newline='') as f:
        rows = list(csv.DictReader(f))
    for candidate in {r['candidate'] for r in rows}:
        seeds = [r for r in rows if r['candidate'] == candidate]
        assert len(seeds) >= 3 and all(int(r['n']) == n >= int(r['correct']) for r in seeds), candidate


def test_the_look_at_the_test_set_is_told_as_it_was():
    with open(ROOT/'nbs/runs/hardest.csv', newline='') as f:
        rows = list(csv.DictReader(f))
    assert [r['seed'] for r in rows] == ['0', '1', '2'] and {r['n'] for r in rows} == {'10000'}
    assert all(int(r['first_half'])+int(r['second_half']) == int(r['correct']) for r in rows)
