"""The rows behind each number that is claimed: whose runs they are, and on which images they were scored."""
import json
import re

import pytest
from conftest import ROOT
from notebooks import cells, source

from s5_mnist.core import read_csv
from s5_mnist.speed import RUNGS
from s5_mnist.sweeps import mean_interval, read_sweep, sweep_scores

RUNS = ROOT/'nbs/runs'
LEAST = dict(s5=3, fast=10, best=10)
LADDER = {'base': {}, 'center_crop0': dict(center_crop_frac=0.), 'label_smoothing0': dict(label_smoothing=0.),
          'affine': dict(augment='affine'), 'affine_bilinear': dict(augment='affine_bilinear'),
          'mild_aug0': dict(mild_aug_epochs=0), 'sgd': dict(lr=.1, muon_lr=0.)}


@pytest.mark.parametrize('name', LEAST)
def test_sweeps_are_scored_on_all_test_images(name):
    rows = read_sweep(RUNS/f'{name}.csv')
    assert [r['seed'] for r in rows] == [str(i) for i in range(len(rows))] and len(rows) >= LEAST[name]
    for r in rows:
        assert (r['recipe'], r['data'], r['test_n'], r['validation_n']) == (name, 'MNIST', '10000', '')
        assert int(r['first_half'])+int(r['second_half']) == int(r['test_correct'])


def test_best_is_more_accurate_than_the_others_which_cannot_be_told_apart():
    s5, fast, best = (mean_interval(sweep_scores(read_sweep(RUNS/f'{name}.csv'))[1]) for name in LEAST)
    assert best[0] > max(s5[1], fast[1]) and s5[0] < fast[1] and fast[0] < s5[1]


def test_the_ladder_of_best_changes_one_thing_at_a_time_on_validation_images():
    assert {p.stem for p in (RUNS/'ladder').glob('*.csv')} == LADDER.keys()
    base = json.loads(read_sweep(RUNS/'ladder/base.csv')[0]['settings'])
    for name, changes in LADDER.items():
        rows = read_sweep(RUNS/f'ladder/{name}.csv')
        assert [r['seed'] for r in rows] == ['0', '1', '2']
        for r in rows:
            assert json.loads(r['settings']) == base | changes, name
            assert (r['recipe'], r['validation_n'], r['test_n'], r['data']) == ('best', '5000', '', 'MNIST')


@pytest.mark.parametrize('name, n', [('choice-fast', 5000), ('tried-fast', 5000), ('choice-faster', 10_000),
                                     ('tried-faster', 10_000), ('hardest', 10_000)])
def test_choices_rest_on_three_seeds_each(name, n):
    rows = read_csv(RUNS/f'{name}.csv')
    for candidate in {r['candidate'] for r in rows}:
        seeds = [r for r in rows if r['candidate'] == candidate]
        assert len(seeds) >= 3 and all(int(r['n']) == n >= int(r['correct']) for r in seeds), candidate


@pytest.mark.parametrize('name, recipe, n', [('bench', 'fast', 10), ('bench-second', 'best', 1)])
def test_benchmarks_are_of_all_rungs_and_complete_runs(name, recipe, n):
    found = json.loads((RUNS/name/'bench.json').read_text())
    assert list(found['epochs']) == [r.name for r in RUNGS] and all(len(v) == 5 for v in found['epochs'].values())
    assert [(j['recipe'], j['seed'], j['n'], j['held_out']) for j in found['jobs']] == [
        (recipe, seed, 10_000, 'MNIST, test images') for seed in range(n)]


def test_published_figures_have_a_source():
    for r in read_csv(RUNS/'published.csv'):
        assert re.fullmatch(r'99\.\d{2,3}', r['accuracy']) and r['source'].startswith('https://') and r['differently']


def test_the_doubtful_labels_are_those_that_most_people_did_not_choose():
    cell, = (c for c in map(source, cells(ROOT/'nbs/32_results.ipynb')) if 'doubted = [' in c)
    doubted = list(map(int, re.search(r'doubted = \[([\d,\s]+)\]', cell)[1].split(',')))
    votes = read_csv(ROOT/'tests/label_votes.csv')
    assert len(votes) == 87 and doubted == [int(r['index']) for r in votes if int(r['for_label']) < 3]


def test_the_walkthrough_and_the_first_row_of_s5_are_the_committed_run():
    report, row = json.loads((RUNS/'s5-0/report.json').read_text()), read_sweep(RUNS/'s5.csv')[0]
    assert (row['seed'], int(row['test_correct'])) == ('0', report['correct'])
    assert [int(row['first_half']), int(row['second_half'])] == [h[0] for h in report['halves']]
    assert report['held_out'] == 'MNIST, test images' and report['changes'] == {}
    last = read_csv(RUNS/'s5-0/history.csv')[-1]
    assert (int(last['epoch']), int(last['test_correct']), last['test_n']) == (20, report['correct'], '10000')
    assert f'| **2. network, test images** | {report["correct"]:,} | {report["n"]:,} |' in ' '.join(
        re.sub(' +', ' ', ''.join(o.get('data', {}).get('text/markdown', '')))
        for c in cells(ROOT/'nbs/S5.ipynb') for o in c.get('outputs', []))
