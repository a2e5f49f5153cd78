"""The rows behind each number that is claimed: whose runs they are, and on which images they were scored."""
import csv
import json
import re
import statistics

import pytest
from conftest import ROOT

from s5_mnist.speed import RUNGS
from s5_mnist.recipes import RECIPES, get_recipe
from s5_mnist.sweeps import mean_interval, read_sweep, sweep_scores

RUNS = ROOT/'nbs/runs'
LEAST = dict(s5=3, fast=10, best=10)
LADDER = {'base': {}, 'center_crop0': dict(center_crop_frac=0.), 'label_smoothing0': dict(label_smoothing=0.),
          'affine': dict(augment='affine'), 'affine_bilinear': dict(augment='affine_bilinear'),
          'mild_aug0': dict(mild_aug_epochs=0), 'sgd': dict(lr=.1, muon_lr=0.)}


@pytest.mark.parametrize('name', LEAST)
def test_sweeps_are_of_the_recipe_as_it_is_on_all_test_images(name):
    rows = read_sweep(RUNS/f'{name}.csv')
    assert [r['seed'] for r in rows] == [str(i) for i in range(len(rows))] and len(rows) >= LEAST[name]
    for r in rows:
        assert get_recipe(RECIPES[name], **json.loads(r['settings'])) == RECIPES[name]
        assert (r['recipe'], r['data'], r['test_n'], r['validation_n']) == (name, 'MNIST', '10000', '')
        assert int(r['first_half'])+int(r['second_half']) == int(r['test_correct'])


def test_best_is_more_accurate_than_the_others_which_cannot_be_told_apart():
    s5, fast, best = (mean_interval(sweep_scores(read_sweep(RUNS/f'{name}.csv'))[1]) for name in LEAST)
    assert best[0] > max(s5[1], fast[1]) and s5[0] < fast[1] and fast[0] < s5[1]


def test_the_ladder_of_best_changes_one_thing_at_a_time():
    assert {p.stem for p in (RUNS/'ladder').glob('*.csv')} == LADDER.keys()
    base = json.loads(read_sweep(RUNS/'ladder/base.csv')[0]['settings'])
    assert (base['epochs'], base['n_valid'], base['augment']) == (4, 5000, 'elastic')
    for name, changes in LADDER.items():
        for r in read_sweep(RUNS/f'ladder/{name}.csv'):
            assert json.loads(r['settings']) == base | changes, name
            assert (r['recipe'], r['validation_n'], r['test_n']) == ('best', '5000', '')


def test_what_the_chapter_says_of_the_ladder():
    "A tenth of a percent for Muon and for mild augmentation; less for the others; nothing lost by whole images"
    mean = {name: statistics.mean(sweep_scores(read_sweep(RUNS/f'ladder/{name}.csv'))[1]) for name in LADDER}
    below = {name: mean['base']-m for name, m in mean.items()}
    assert all(.1 < below[name] < .115 for name in ('sgd', 'mild_aug0')) and below['center_crop0'] < 0
    assert all(0 < below[name] < .08 for name in ('affine', 'affine_bilinear', 'label_smoothing0'))


@pytest.mark.parametrize('name, recipe, n', [('bench', 'fast', 10), ('bench-second', 'best', 1)])
def test_benchmarks_are_of_all_rungs_and_complete_runs(name, recipe, n):
    found = json.loads((RUNS/name/'bench.json').read_text())
    assert list(found['epochs']) == [r.name for r in RUNGS] and all(len(v) == 5 for v in found['epochs'].values())
    assert [(j['recipe'], j['seed'], j['n'], j['held_out']) for j in found['jobs']] == [
        (recipe, seed, 10_000, 'MNIST, test images') for seed in range(n)]
    assert (RUNS/name/'ladder.png').stat().st_size > 5000 and found['data'] == 'MNIST'


def test_published_figures_have_a_source():
    with open(RUNS/'published.csv', newline='', encoding='utf-8') as f:
        rows = list(csv.DictReader(f))
    assert len(rows) >= 5
    for r in rows:
        assert re.fullmatch(r'99\.\d{2,3}', r['accuracy']) and r['source'].startswith('https://') and r['differently']


def test_the_doubtful_labels_are_those_that_most_people_did_not_choose():
    source = json.loads((ROOT/'nbs/32_results.ipynb').read_text())
    cell, = (c for c in map(''.join, (c['source'] for c in source['cells'])) if 'doubted = [' in c)
    doubted = list(map(int, re.search(r'doubted = \[([\d,\s]+)\]', cell)[1].split(',')))
    with open(ROOT/'tests/label_votes.csv', newline='') as f:
        votes = list(csv.DictReader(f))
    assert len(votes) == 87 and doubted == [int(r['index']) for r in votes if int(r['for_label']) < 3]
