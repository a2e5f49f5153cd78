"""Sweeps: one row per run, saved, continued and read back, and what a mean of them is worth."""
import json
import random
import statistics

import pytest
import torch
from conftest import QUICK, ROOT

from s5_mnist import sweeps
from s5_mnist.core import write_csv
from s5_mnist.data import Batches
from s5_mnist.recipes import RECIPES, Recipe, get_recipe
from s5_mnist.runs import load_run, train
from s5_mnist.sweeps import fold_table, mean_interval, misread_images, read_sweep, recipe_settings, sweep, sweep_line, sweep_scores, sweep_table
from s5_mnist.training import evaluate
from s5_mnist.sweeps import best_logit_scale, fold_positions

RUNS = ROOT/'nbs/runs'


@pytest.fixture(scope='module')
def one_row(small, tmp_path_factory):
    "The text of a table with one run, and its row"
    path = tmp_path_factory.mktemp('sweep')/'fast.csv'
    row, = sweep('fast', 1, path, small, **QUICK)
    return path.read_text(), row


@pytest.fixture
def table(one_row, tmp_path):
    "A table with one run, to be continued or damaged"
    (tmp_path/'fast.csv').write_text(one_row[0])
    return tmp_path/'fast.csv'


# --- training ---------------------------------------------------------------------------------------------------

def test_a_sweep_keeps_a_row_per_seed_and_continues(small, table, one_row, monkeypatch):
    text, runs = table.read_text(), []
    monkeypatch.setattr(sweeps, 'train', lambda *a, **kw: runs.append(a[0].seed) or train(*a, **kw))
    rows = sweep('fast', 3, table, small, **QUICK)
    assert runs == [1, 2] and table.read_text().startswith(text) # The first is neither lost nor run again
    assert [r['seed'] for r in rows] == ['0', '1', '2'] and rows[0] == one_row[1] and read_sweep(table) == rows
    for r in rows:
        assert int(r['first_half'])+int(r['second_half']) == int(r['test_correct']) <= int(r['test_n']) == 130
        assert r['validation_n'] == '' and r['precision'] == 'float32' and r['torch'] == torch.__version__
        assert float(r['seconds']) > 0 and r['data'] == small.name and 'thread' in r['device']
    accuracies = [100*int(r['test_correct'])/130 for r in rows]
    assert sweep_line(rows).startswith(f'test mean {sum(accuracies)/3:.3f} % (95 % interval ')
    assert ', n = 3, ' in sweep_line(rows)


def test_seeds_in_any_order_are_not_run_again(small, table, one_row, monkeypatch):
    "Only the seeds that are missing are trained"
    header, line = one_row[0].splitlines()
    table.write_text('\n'.join([header, line.replace(f'{small.name}",0,', f'{small.name}",2,'), line])+'\n')
    monkeypatch.setattr(sweeps, 'train', lambda *a, **kw: train(*a, **kw) if a[0].seed == 1 else
                        pytest.fail(f'seed {a[0].seed}'))
    assert [r['seed'] for r in sweep('fast', 3, table, small, **QUICK)] == ['2', '0', '1']


def test_a_sweep_stopped_in_a_run_has_the_rows_before(small, table, one_row, monkeypatch):
    def stop(*args, **kwargs): raise KeyboardInterrupt
    monkeypatch.setattr(sweeps, 'train', stop)
    with pytest.raises(KeyboardInterrupt):
        sweep('fast', 2, table, small, **QUICK)
    assert table.read_text() == one_row[0]


def test_a_sweep_by_validation_never_meets_the_test_set(small, tmp_path):
    rows = sweep('fast', 1, tmp_path/'v.csv', small, n_valid=100, **QUICK)
    assert rows[0]['validation_n'] == '100' and rows[0]['test_n'] == rows[0]['test_correct'] == ''
    assert sweep_line(rows).startswith('validation mean ') and ' sd ' not in sweep_line(rows)


@pytest.fixture(scope='module')
def folded(small, tmp_path_factory):
    "A sweep over three folds, and its file"
    path = tmp_path_factory.mktemp('folds')/'folds.csv'
    return sweep('fast', 1, path, small, folds=3, **QUICK), path


def test_folds_score_each_training_image_once(small, folded):
    rows, path = folded
    assert [r['fold'] for r in rows] == ['1/3', '2/3', '3/3'] and read_sweep(path) == rows
    assert sum(int(r['validation_n']) for r in rows) == len(small.train_y)
    for r, held in zip(rows, fold_positions(len(small.train_y), 3)):
        assert misread_images(r) <= set(held.tolist()) and r['test_n'] == '' and r['data'] == small.name
        assert len(misread_images(r)) == int(r['validation_n'])-int(r['validation_correct']) > 0
        assert json.loads(r['settings'])['n_valid'] == 0


def test_a_fold_is_not_trained_on_and_its_mistakes_are_those_of_the_network(small, tmp_path, monkeypatch):
    runs = []
    monkeypatch.setattr(sweeps, 'train', lambda *a, **kw: runs.append((a, train(*a, **kw))) or runs[-1][1])
    rows = sweep('fast', 1, tmp_path/'f.csv', small, folds=2, keep=tmp_path/'kept', **QUICK)
    for ((recipe, data, *_), run), row, held in zip(runs, rows, fold_positions(len(small.train_y), 2)):
        assert recipe.n_valid == len(held) and data.train_x[-len(held):].equal(small.train_x[held])
        score = evaluate(run.net, Batches(small.train_x[held], small.train_y[held]))
        assert misread_images(row) == set(held[score.wrong].tolist())
        assert float(row['loss']) == pytest.approx(best_logit_scale(score.probs, small.train_y[held])[1], abs=1e-5)
    monkeypatch.setattr(sweeps, 'train', lambda *a, **kw: pytest.fail('a run was repeated'))
    assert sweep('fast', 1, tmp_path/'again.csv', small, folds=2, keep=tmp_path/'kept', **QUICK) == rows


def test_folds_are_continued_and_not_mixed_with_others(small, folded, tmp_path, monkeypatch):
    rows, path = folded
    lines = path.read_text().splitlines(True)
    (tmp_path/'f.csv').write_text(''.join(lines[:2]))
    started = []
    monkeypatch.setattr(sweeps, 'train', lambda *a, **kw: started.append(a[1].name) or train(*a, **kw))
    again = sweep('fast', 1, tmp_path/'f.csv', small, folds=3, **QUICK)
    assert started == [f'{small.name}, fold {i} of 3' for i in (2, 3)]
    assert [r['misread'] for r in again] == [r['misread'] for r in rows]
    for kw in (dict(folds=2), dict()):
        with pytest.raises(ValueError, match='must hold runs of fast'):
            sweep('fast', 1, tmp_path/'f.csv', small, **QUICK, **kw)
    with pytest.raises(ValueError, match='n_valid must be 0 with folds, got 50'):
        sweep('fast', 1, tmp_path/'g.csv', small, folds=2, n_valid=50, **QUICK)
    with pytest.raises(ValueError, match='folds must be an integer between 2 and 100'):
        sweep('fast', 1, tmp_path/'g.csv', small, folds=1, **QUICK)


@pytest.mark.parametrize('name, value', [('fold', '4/3'), ('fold', '0/3'), ('fold', 'one'), ('misread', '1 2'),
                                         ('misread', 'x'), ('loss', 'nan'), ('logit_scale', '-1')])
def test_damaged_rows_of_folds_are_refused(folded, tmp_path, name, value):
    row = folded[0][0] | {name: value}
    write_csv(tmp_path/'f.csv', [row])
    with pytest.raises(ValueError, match=f'{name}.*|row 1'):
        read_sweep(tmp_path/'f.csv')


def test_candidates_are_compared_on_the_folds_that_both_have(folded):
    rows, _ = folded
    other = [r | dict(misread='', validation_correct=r['validation_n'], loss='0.5') for r in rows[:2]]
    head, base, line = str(fold_table({'as it is': rows, 'perfect': other})).splitlines()
    wrong = sum(len(misread_images(r)) for r in rows[:2])
    n = sum(int(r['validation_n']) for r in rows[:2])
    assert f' {-100*wrong/n:+.3f} ' in line and line.split()[1:3] == ['0', f'{n:,}']
    assert base.split()[3:4] == [str(sum(len(misread_images(r)) for r in rows))]
    with pytest.raises(ValueError, match='same folds'):
        fold_table({'a': rows, 'b': [r | dict(seed='7') for r in rows]})


def test_a_sweep_refuses_rows_of_another(small, table):
    before = table.read_bytes()
    for kw in (dict(bs=32), dict(n_valid=50)):
        with pytest.raises(ValueError, match='must hold runs of fast .* has rows of fast on generated .* with other'):
            sweep('fast', 2, table, small, **QUICK, **kw)
    with pytest.raises(ValueError, match='must hold runs of fast on mine with'):
        sweep('fast', 2, table, small._replace(name='mine'), **QUICK)
    assert table.read_bytes() == before


@pytest.mark.parametrize('damage', [
    lambda t: 'a,b\n1,2\n', lambda t: '', lambda t: t+'1,2\n', lambda t: t.replace('fast', 'fast,', 2),
    lambda t: t.replace('"{', '"['), lambda t: t.replace(',130,', ',12,'), lambda t: t.replace('seed', 'sead'),
    lambda t: '\x00'], ids=['another', 'empty', 'short row', 'long row', 'settings', 'count', 'column', 'null'])
def test_a_sweep_refuses_what_is_no_table(small, table, damage):
    table.write_text(text := damage(table.read_text()))
    with pytest.raises(ValueError, match='fast.csv(: row 1.* must|: row 1: settings is damaged| must be a table that sweep wrote, but it holds)'):
        sweep('fast', 2, table, small, **QUICK)
    assert table.read_text() == text


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path/'x.csv').write_bytes(b'\xff\xfe\x00')
    with pytest.raises(ValueError, match='must be a table that sweep wrote'):
        read_sweep(tmp_path/'x.csv')
    assert read_sweep(tmp_path/'none.csv') == []


def test_no_seeds_are_refused(small, tmp_path):
    with pytest.raises(ValueError, match='seeds must be an integer between 1 and 10,000, got 0'):
        sweep('fast', 0, tmp_path/'new.csv', small)
    assert not list(tmp_path.iterdir())


def test_a_sweep_outlives_a_new_field_with_its_default(small, table, one_row):
    "Rows are compared as recipes, not as text"
    table.write_text(table.read_text().replace(', ""logit_scale"": 1.0', ''))
    rows = sweep('fast', 2, table, small, **QUICK)
    assert [r['seed'] for r in rows] == ['0', '1']
    assert 'logit_scale' not in rows[0]['settings'] != one_row[1]['settings']


def test_a_sweep_keeps_its_runs_where_it_is_told(small, tmp_path):
    row, = sweep('fast', 1, tmp_path/'fast.csv', small, keep=tmp_path/'runs', **QUICK)
    assert load_run(tmp_path/'runs/fast-0', 'cpu').report['correct'] == int(row['test_correct'])


# --- rows and what they are worth -------------------------------------------------------------------------------

def test_settings_are_the_recipe():
    settings = json.loads(recipe_settings(RECIPES['fast']))
    assert not settings.keys() & {'name', 'seed'} and get_recipe(Recipe('fast'), **settings) == RECIPES['fast']


@pytest.mark.parametrize('n, t', [(2, 12.706), (3, 4.303), (5, 2.776), (10, 2.262), (31, 2.042)])
def test_the_interval_is_student_s(n, t):
    "Against the printed tables of the t distribution"
    values = [random.Random(n).gauss(0, 1) for _ in range(n)]
    mean, half = statistics.mean(values), t*statistics.stdev(values)/n**.5
    assert mean_interval(values) == pytest.approx((mean-half, mean+half), abs=1e-3*half)


@pytest.mark.parametrize('values', [[], [1.]])
def test_an_interval_needs_two_values(values):
    with pytest.raises(ValueError, match=f'an interval needs at least two values, got {len(values)} values'):
        mean_interval(values)


def test_the_table_holds_what_the_rows_hold():
    rows = read_sweep(RUNS/'fast.csv')
    accuracies = [int(r['test_correct'])/100 for r in rows]
    head, line = str(sweep_table(rows)).splitlines()
    low, high = mean_interval(accuracies)
    assert line.split() == ['fast', '10', f'{statistics.mean(accuracies):.3f}', f'{low:.3f}', 'to', f'{high:.3f}',
                            f'{statistics.stdev(accuracies):.3f}',
                            f'{min(accuracies):.2f}', 'to', f'{max(accuracies):.2f}',
                            *(f'{statistics.mean(int(r[k]) for r in rows)/50:.2f}'
                              for k in ('first_half', 'second_half')),
                            f'{statistics.median(float(r["seconds"]) for r in rows):.1f}']
    assert low < statistics.mean(accuracies) < high and sweep_scores(rows) == ('test', pytest.approx(accuracies))
    assert max(map(len, (head, line, sweep_line(rows)))) <= 88


def test_sweeps_are_compared_in_one_table():
    rows = [read_sweep(RUNS/f'{name}.csv') for name in ('s5', 'fast', 'best')]
    lines = str(sweep_table(*rows)).splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [['s5', '3'], ['fast', '10'], ['best', '10']]
    assert max(map(len, lines)) <= 88


@pytest.mark.parametrize('path', sorted(RUNS.glob('ladder/*.csv')) + [RUNS/f'{n}.csv' for n in ('best', 'fast', 's5')],
                         ids=lambda p: p.stem)
def test_tables_in_the_repository_can_be_continued(path, monkeypatch, mnist_name):
    "Their settings are those of a recipe of today: the same sweep has nothing left to do"
    rows = read_sweep(path)
    recipe = get_recipe(Recipe(rows[0]['recipe']), **json.loads(rows[0]['settings']))
    monkeypatch.setattr(sweeps, 'train', lambda *a, **kw: pytest.fail('a run was repeated'))
    before = path.read_bytes()
    assert sweep(recipe, len(rows), path, mnist_name) == rows and path.read_bytes() == before


@pytest.fixture
def mnist_name(small):
    "A few digits by the name of MNIST"
    return small._replace(name='MNIST')
