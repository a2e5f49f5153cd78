"""What is stored in the notebooks is what running them gives, and the README's table is that of the rows."""
import json
import re
import statistics

import pytest
from conftest import NOTEBOOKS, ROOT
from notebooks import SKIPPED, WIDGET, cells, figures, marked, run, source, text

from s5_mnist.core import read_json
from s5_mnist.speed import assignment_seconds, recipe_seconds
from s5_mnist.sweeps import mean_interval, read_sweep

NUMBER = re.compile(r'\d+\.\d+(?:e[-+]?\d+)?')
SHORT = {'40_core', '41_mnist_files', '43_device'}                # Notebooks that take a few seconds each
READERS = {'31_speed', '30_sweeps', '32_results'}                 # Most of their numbers come from committed files


def difference(stored, fresh, trained=False, exact=False):
    """The first line that differs, or None. Decimal numbers may differ by 2 % (another processor rounds differently)
    unless they must be `exact`, seconds and the names of processors by any amount; whole numbers and words may not
    differ. Of what was `trained`, only the form is compared: rounding errors grow with every step."""
    a, b = (re.sub(r'^.*, \d+ threads?\b.*$', 'some processor', t, flags=re.M) for t in (stored, fresh))
    a, b = (re.sub(r'\d+(\.\d+)? s(econds)?\b', 'some s', t) for t in (a, b))
    if trained:
        a, b = (re.sub(r'[ :-]*\d+(\.\d+)?', ' #', re.sub(r'\|[ :-]+(?=\|)', '|', t)) for t in (a, b))
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


@pytest.mark.parametrize('path', [pytest.param(p, id=p.stem, marks=() if p.stem in SHORT else pytest.mark.slow)
                                  for p in NOTEBOOKS])
def test_stored_outputs_are_true(path, request):
    skip = set(SKIPPED)
    if any('load_data(' in source(c) and not marked(c, 'export', 'exports') for c in cells(path)):
        request.getfixturevalue('mnist')                          # Without it, load_data generates digits: skip
    if any(marked(c, 'mnist') for c in cells(path)):
        try:
            request.getfixturevalue('mnist')
            skip -= {'mnist'}
        except pytest.skip.Exception:
            pass
    stale = []
    for i, cell, stored, fresh in run(path, skip):
        if fresh is None:
            continue
        exact = path.stem in READERS and not marked(cell, 'mnist')
        found = difference(text(stored), text(fresh), marked(cell, 'trained'), exact)
        if found is None and not alike(figures(stored), figures(fresh)):
            found = f'stored figures of {figures(stored)} pixels, now {figures(fresh)}'
        if found:
            stale.append(f'cell {i} ({source(cell).splitlines()[0]}): {found}')
    assert not stale, '\n'.join([f'{path.name} is stale:', *stale])


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_outputs_are_clean(path):
    "No machine's paths, no warnings, no tracebacks, no progress bars, no widgets"
    for i, cell in enumerate(cells(path)):
        for o in cell.get('outputs', []):
            out = json.dumps({k: v for k, v in o.get('data', {}).items() if k != 'image/png'} | dict(text=o.get('text')))
            bad = re.search(r'(?<![\w:/.])/(root|home|tmp|work|Users|opt|var)/|Traceback \(most recent|Warning:|\dit/s\]', out)
            assert not bad, f'{path.name} cell {i}: {bad.group()}'
            assert WIDGET not in o.get('data', {}), f'{path.name} cell {i} holds a widget; clear it'
            assert o.get('name') != 'stderr', f'{path.name} cell {i} writes to stderr'


def test_the_table_in_the_readme_is_that_of_the_rows():
    lines = [line.strip() for line in (ROOT/'README.md').read_text().splitlines() if line.startswith('|')]
    table, runs = [[c.strip(' *`') for c in line.strip('|').split('|')] for line in lines], ROOT/'nbs/runs'
    bench = read_json(runs/'bench/bench.json')
    seconds = dict(fast=statistics.median(j['seconds'] for j in bench['jobs']), best=recipe_seconds(runs/'best-epochs.csv'))
    for name in ('s5', 'fast', 'best'):
        correct = [int(r['test_correct'])/100 for r in read_sweep(runs/f'{name}.csv')]
        low, high = mean_interval(correct)
        claim = [name, f'{statistics.mean(correct):.3f}', f'{low:.3f} to {high:.3f}',
                 f'{statistics.stdev(correct):.3f}', str(len(correct)), '', '']
        if name in seconds:
            claim[-2:] = f'{seconds[name]:,.0f}', f'{assignment_seconds(bench)/seconds[name]:.3g}'
        assert claim in table, claim
