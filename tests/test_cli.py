"""The commands as a shell sees them: what they print, where they write, and how they end."""
import json
import os
import subprocess
import sys
import sysconfig
from inspect import signature
from pathlib import Path

import pytest
from conftest import ROOT
from drawings import beside, drawn
from fastcore.docments import docments
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import zeros

from s5_mnist import __version__, cli, runs
from s5_mnist import data as data_module
from s5_mnist.core import describe, read_json
from s5_mnist.numbers import read_numbers
from s5_mnist.recipes import RECIPES
from s5_mnist.runs import load_pretrained, load_run, pretrained_report
from s5_mnist.sweeps import read_sweep
from s5_mnist.typicality import TYPICAL

COMMANDS = {name: getattr(cli, name) for name in cli.__all__ if name.startswith('s5_')}
BIN = Path(sysconfig.get_path('scripts'))


@pytest.fixture
def here(tmp_path, monkeypatch, small):
    "An empty folder, without MNIST and without a network, where few digits pass for the generated ones"
    from torchvision.datasets import MNIST
    digits = small._replace(name='generated digits')
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('S5_MNIST_DATA', raising=False)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'cache'))
    monkeypatch.setattr(MNIST, 'mirrors', ['http://127.0.0.1:9/'])    # A port where nobody answers
    monkeypatch.setattr(data_module, 'generated_data', lambda: digits)
    return tmp_path


@pytest.fixture
def shell(here, capsys):
    "A function that runs a command line in this process; it returns status, stdout and stderr"
    def shell(command, *args):
        capsys.readouterr()
        status = 0
        try:
            COMMANDS[command].main([str(a) for a in args])
        except SystemExit as e:
            status = e.code or 0
        return status, *(t.replace(os.sep, '/') for t in capsys.readouterr()) # Windows writes a\b for the path a/b
    return shell


# --- help and usage ---------------------------------------------------------------------------------------------

def test_the_commands_are_those_of_the_package():
    settings = (ROOT/'settings.ini').read_text()
    assert list(COMMANDS) == ['s5_train', 's5_eval', 's5_predict', 's5_export', 's5_bench', 's5_sweep']
    assert all(f'{name}=s5_mnist.cli:{name}.main' in settings for name in COMMANDS)


@pytest.mark.parametrize('name', COMMANDS)
def test_help_comes_from_the_docments(shell, name):
    "Every option with its explanation; and what the help says is so"
    status, out, err = shell(name, '--help')
    words = ' '.join(out.split())
    assert status == 0 and err == '' and COMMANDS[name].__doc__ in words
    for option, p in docments(COMMANDS[name], full=True, returns=False).items():
        assert option in words or f'--{option.replace("_", "-")}' in words
        assert ' '.join(p.docment.split()) in words
        if option == 'recipe':
            assert '|'.join(RECIPES) in words and describe(p.anno).endswith(', '.join(RECIPES))
    assert shell(name, '--version') == (0, f's5_mnist {__version__}\n', '')


def test_help_shows_ranges_and_defaults(shell):
    words = ' '.join(shell('s5_train', '--help')[1].split())
    assert 'default: fast' in words and 'an integer between 1 and 100,000' in words
    assert TYPICAL == .005 and signature(read_numbers).parameters['at_least'].default == .9 # As that of s5_predict says


WRONG = [
    (['s5_train', '--epoks', '3'], 'epoks'), (['s5_train', '--epochs'], 'one argument'), (['s5_eval'], 'required'),
    (['s5_predict'], 'required'), (['s5_train', '--recipe', 'quick'], 'fast, best'),
    (['s5_train', '--epochs', 'x'], 'integer'), (['s5_train', '--epochs', '-3'], 'between 1'),
    (['s5_train', '--lr', 'nan'], 'number'), (['s5_train', '--seed', '-1'], 'between 0'),
    (['s5_train', '--data', 'digits', '--n-valid', '300'], 'n_valid'), (['s5_train', '--data', 'cifar'], 'mnist, digits'),
    (['s5_train', '--data', 'mnist'], 'could not be downloaded'), (['s5_train', '--device', 'tpu'], 'device'),
    (['s5_train', '--precision', 'fp8'], 'precision'), (['s5_train', '--disable', 'warp'], 'warp'),
    (['s5_train', '--root', 'file'], 'file'), (['s5_train', '--data', 'digits', '--out', 'file/run'], 'file/run'),
    (['s5_train', '--data', 'digits', '--out', 'full'], 'must be empty'),
    (['s5_train', '--data', 'digits', '--out', 'stopped'], 's5_train --resume stopped'),
    (['s5_train', '--resume', 'nothing'], 'nothing'), (['s5_train', '--resume', ''], 'config.json'),
    (['s5_train', '--resume', 'full'], 'finished'),
    (['s5_train', '--resume', 'stopped', '--n-valid', '5', '--deterministic'], 'leave out --n-valid --deterministic'),
    (['s5_eval', 'nothing'], 'nothing'), (['s5_eval', 'stopped'], 's5_train --resume stopped'),
    (['s5_eval', 'full', '--device', 'cpu'], 'full/model.safetensors'), (['s5_eval', 'file'], 'file'),
    (['s5_predict', '5.png', '--run', 'nothing'], 'nothing'), (['s5_predict', '5.png', '--at-least', '2'], 'between 0'),
    (['s5_export', 'nowhere'], 'nowhere'), (['s5_export', 'pretrained', '--format', 'pickle'], 'pickle'),
    (['s5_export', 'pretrained', '--format', 'safetensors', '--half'], 'onnx'),
    (['s5_export', 'pretrained', '--format', 'safetensors', '--out', 'file'], 'force'),
    (['s5_bench', '--reps', '0'], 'between 1'), (['s5_bench', '--out', 'old'], 'force'),
    (['s5_bench', '--data', 'digits'], 'images'),
    (['s5_sweep', '--seeds', '0', '--data', 'digits'], 'between 1'), (['s5_sweep', '--change', 'bs=x'], 'bs'),
    (['s5_sweep', '--change', 'rl=1'], 'field'), (['s5_sweep', '--data', 'digits', '--out', 'full/config.json'], 'config.json'),
]


@pytest.fixture
def odd_folders(here):
    "A file, and folders that hold something other than a finished run"
    (here/'file').write_text('')
    (here/'old').mkdir()
    (here/'old'/'bench.json').write_text('{}')
    config = json.dumps(dict(data='generated digits', recipe={}, precision='float32', channels_last=False,
                             retain_freed_memory=False, fused=False, deterministic=False))
    for name in ('full', 'stopped'):
        (here/name).mkdir()
        (here/name/'config.json').write_text(config)
    (here/'full'/'report.json').write_text('{}')
    (here/'full'/'history.csv').write_text('epoch\n1\n')
    save_file({'conv1.weight': zeros(3)}, here/'full'/'model.safetensors')


def contents(folder):
    return {p.relative_to(folder): p.is_file() and p.read_bytes() for p in folder.rglob('*')}


@pytest.mark.parametrize('args, message', WRONG, ids=[' '.join(a)[:60] for a, _ in WRONG])
def test_bad_input_is_one_line_and_status_2(shell, odd_folders, here, args, message):
    "And nothing is lost"
    before = contents(here)
    status, out, err = shell(*args)
    assert status == 2 and len(err.splitlines()) == 1 and err.startswith(f'{args[0]}: '), (status, out, err)
    assert message in err.lower() or message in err
    assert contents(here) == before


@pytest.mark.skipif(sys.platform != 'linux', reason='needs Linux: /proc, a folder that nobody can write to')
@pytest.mark.parametrize('args', [['s5_train', '/proc/x'], ['s5_train', 'a'*300], ['s5_sweep', '/proc/x.csv']])
def test_a_path_that_cannot_be_written_is_one_line_and_status_2(shell, here, args):
    status, out, err = shell(args[0], '--data', 'digits', '--device', 'cpu', '--out', args[1])
    assert status == 2 and len(err.splitlines()) == 1 and args[1][:5] in err and not list(here.iterdir())


@pytest.mark.parametrize('error, status', [
    (ValueError('no'), 2), (FileNotFoundError(2, 'gone', 'f'), 2), (KeyboardInterrupt(), 130), (ZeroDivisionError('bug'), None)])
def test_how_a_command_ends(error, status, capsys):
    "A fault of ours keeps its traceback"
    @cli.command
    def fails():
        raise error
    with pytest.raises(SystemExit if status else type(error)) as e:
        fails.main([])
    assert getattr(e.value, 'code', None) == status and len(capsys.readouterr().err.splitlines()) == (status == 2)


# --- training and scoring ---------------------------------------------------------------------------------------

def test_without_mnist_it_trains_on_generated_digits_and_says_so(shell, here):
    status, out, err = shell('s5_train', '--device', 'cpu', '--seed', 2, '--bs', 32, '--disable', 'fused')
    assert status == 0 and err == '' and 'MNIST is not available' in out and out.count('channels_last') == 1
    config, report = (json.loads((here/'runs'/'fast-2'/f'{n}.json').read_text()) for n in ('config', 'report'))
    assert config['data'] == 'generated digits' and not config['fused']
    result = f'{report["correct"]}/130 = {report["accuracy"]:.2f} % of generated digits, test images; recipe fast, '
    lines = out.splitlines()
    assert lines[-2] == f'{result}bs=32, seed=2' and lines[-1] == f'{report["seconds"]:.1f} s; saved in runs/fast-2'

    assert shell('s5_eval', 'runs/fast-2', '--device', 'cpu') == (0, f'{lines[-2]}\n', '')
    status, out, err = shell('s5_eval', 'runs/fast-2', '--device', 'cpu', '--data', 'digits', '--tta')
    assert (status, err) == (0, '') and 'nine positions' in out


def test_an_interrupted_run_says_how_to_continue_and_does(shell, here, monkeypatch):
    def interrupt(run): raise KeyboardInterrupt
    with monkeypatch.context() as m:
        m.setattr(runs, 'fit', lambda *args, **kwargs: interrupt(None))
        status, out, err = shell('s5_train', '--data', 'digits', '--device', 'cpu', '--out', 'run', '--bs', 100)
    assert status == 130 and err.splitlines() == ['interrupted; continue with: s5_train --resume run']
    status, out, err = shell('s5_train', '--resume', 'run', '--device', 'cpu')
    assert (status, err) == (0, '') and out.endswith('saved in run\n') and load_run('run', 'cpu').recipe.bs == 100


# --- predicting and exporting -----------------------------------------------------------------------------------

def test_predict_prints_a_line_for_each_file_and_goes_on(shell, here):
    for d in '05':
        drawn(d).save(f'{d}.png')
    (here/'notes.txt').write_text('no digit')
    dash = Image.new('L', (340, 120), 255)
    dash.paste(0, (140, 58, 200, 62))
    dash.save('dash.png')
    status, out, err = shell('s5_predict', 'dash.png', '0.png', 'notes.txt', 'gone\n.png', '5.png')
    assert status == 1 and [line.split(' (')[0] for line in out.splitlines()] == ['0.png: 0', '5.png: 5']
    assert [line[:18] for line in err.splitlines()] == ['s5_predict: dash.p', 's5_predict: notes.', 's5_predict: gone\\n']
    status, out, err = shell('s5_predict', '5.png', '--json')
    found = json.loads(out)
    assert (status, err) == (0, '') and found.keys() == {'file', 'digit', 'probs', 'typicality', 'is_digit'}
    assert (found['file'], found['digit']) == ('5.png', 5) and sum(found['probs']) == pytest.approx(1, abs=1e-4)


def test_predict_reads_numbers(shell, here):
    Image.fromarray(255-beside('208')).save('208.png')
    Image.new('L', (90, 90), 255).save('blank.png')
    status, out, err = shell('s5_predict', '--numbers', '208.png', 'blank.png')
    assert (status, out) == (1, '208.png: 208\n') and 'blank' in err
    assert 'check by eye' in shell('s5_predict', '--numbers', '208.png', '--at-least', '1')[1]
    found = json.loads(shell('s5_predict', '--numbers', '208.png', '--json')[1])
    assert (found['file'], found['text'], found['unsure'], len(found['digits'])) == ('208.png', '208', 0, 3)
    status, out, err = shell('s5_predict', '208.png')
    assert status == 1 and 'numbers' in err


def test_export_writes_weights_with_their_report(shell, here):
    status, out, err = shell('s5_export', 'pretrained', '--format', 'safetensors')
    assert (status, err) == (0, '') and f'{(here/"s5_mnist.safetensors").stat().st_size:,}' in out
    state = load_pretrained().state_dict()
    assert all(v.equal(state[k]) for k, v in load_file('s5_mnist.safetensors').items())
    assert pretrained_report('s5_mnist.safetensors') == pretrained_report() | dict(weights='float32')


@pytest.mark.slow
def test_export_writes_onnx(shell, here):
    pytest.importorskip('onnxscript')
    status, out, err = shell('s5_export', 'pretrained', '--out', 'net.onnx')
    assert status == 0 and 'net.onnx: 2,' in out and [p.name for p in here.iterdir()] == ['net.onnx']


# --- measuring --------------------------------------------------------------------------------------------------

def test_the_sweep_command_writes_a_table_and_continues_it(shell, here):
    args = ['s5_sweep', '--data', 'digits', '--device', 'cpu', '--precision', 'float32', '--change', 'bs=100',
            '--n-valid', '50', '--seeds']
    assert shell(*args, 1)[0] == 0 and [r['seed'] for r in read_sweep('fast.csv')] == ['0']
    status, out, _ = shell(*args, 2, '--keep', 'kept')
    rows = read_sweep('fast.csv')
    assert status == 0 and [r['seed'] for r in rows] == ['0', '1'] and out.endswith('rows in fast.csv\n')
    assert {r['validation_n'] for r in rows} == {'50'} and '"bs": 100' in rows[0]['settings']
    assert [p.name for p in (here/'kept').iterdir()] == ['fast-1']


def test_the_benchmark_command_prints_and_saves(shell, here, monkeypatch):
    from s5_mnist import speed
    found, asked = read_json(ROOT/'nbs/runs/bench/bench.json'), []
    monkeypatch.setattr(speed, 'measure_speed', lambda *args: asked.append(args) or found)
    status, out, _ = shell('s5_bench', '--data', 'digits', '--device', 'cpu', '--reps', 2, '--out', 'new/bench')
    assert status == 0 and asked == [('digits', None, 'cpu', 2, 6, 3, 'fast')]
    assert speed.speed_report(found) in out and 'saved in new/bench' in out
    assert sorted(p.name for p in (here/'new'/'bench').iterdir()) == ['bench.csv', 'bench.json', 'ladder.png']


# --- in a process of its own ------------------------------------------------------------------------------------

def process(command, *args, **options):
    return subprocess.run([BIN/command, *map(str, args)], text=True, timeout=120,
                          **dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE) | options)


@pytest.mark.parametrize('environment', [dict(LC_ALL='C', PYTHONUTF8='0', PYTHONCOERCECLOCALE='0', MPLBACKEND='wrong')])
def test_any_name_can_be_printed_in_any_locale(tmp_path, environment):
    Image.new('L', (40, 40)).save(tmp_path/'é€.png')
    done = process('s5_predict', 'é€.png', 'none\n\x1b[2J.png', cwd=tmp_path, env=os.environ | environment)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 2 and '\x1b' not in done.stderr


@pytest.mark.skipif(os.name == 'nt', reason='no pipes that break on Windows')
def test_a_reader_that_leaves_is_no_error(tmp_path):
    read, write = os.pipe()
    os.close(read)
    done = process('s5_predict', ROOT/'nbs'/'site'/'favicon.png', stdout=write)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, '')


def test_training_does_without_what_is_slow_to_import(tmp_path):
    "torchvision takes as long to import as torch"
    code = ('import sys; from s5_mnist import cli, runs; from s5_mnist.data import generated_data; '
            'runs.load_data = lambda *a: generated_data(200, 50); '
            f'cli.s5_train.main(["--device", "cpu", "--out", {str(tmp_path/"run")!r}]); '
            'bad = {"torchvision", "matplotlib.pyplot", "scipy"} & set(sys.modules); assert not bad, bad')
    subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


# --- from the wheel ---------------------------------------------------------------------------------------------

@pytest.mark.slow
def test_the_wheel_trains_scores_and_predicts(tmp_path):
    "In an empty folder, without MNIST and without a network"
    pip = [sys.executable, '-m', 'pip', '--quiet', '--disable-pip-version-check']
    subprocess.run([*pip, 'wheel', '--no-deps', '--no-build-isolation', '-w', tmp_path, ROOT], check=True)
    wheel, = tmp_path.glob('*.whl')
    site = tmp_path/'site'
    subprocess.run([*pip, 'install', '--no-deps', '--no-warn-conflicts', '--target', site, wheel], check=True)
    clean = {k: v for k, v in os.environ.items() if k != 'S5_MNIST_DATA'}
    offline = {k: 'http://127.0.0.1:9' for k in ('http_proxy', 'https_proxy')} # A port where nobody answers
    env = {**clean, **offline, 'PYTHONPATH': str(site), 'XDG_CACHE_HOME': str(tmp_path/'cache')}

    def run(command, *args):
        return subprocess.run([sys.executable, site/'bin'/command, *map(str, args)], env=env, cwd=tmp_path,
                              capture_output=True, text=True, stdin=subprocess.DEVNULL)
    (site/'bin'/'where').write_text('import s5_mnist; print(s5_mnist.__file__)')
    assert run('where').stdout.startswith(str(site))
    for name in COMMANDS:
        done = run(name, '--help')
        assert done.stdout.startswith(f'usage: {name} ') and (done.returncode, done.stderr) == (0, '')
    done = run('s5_train', '--device', 'cpu', '--seed', 2)
    assert (done.returncode, done.stderr) == (0, '') and 'using generated digits instead' in done.stdout
    report = read_json(tmp_path/'runs'/'fast-2'/'report.json')
    assert report['n'] == 2000 and report['correct'] > 1950
    assert run('s5_eval', 'runs/fast-2', '--device', 'cpu').stdout.startswith(f'{report["correct"]}/2000')
    assert 'favicon.png: 5 (' in run('s5_predict', ROOT/'nbs'/'site'/'favicon.png').stdout
    done = run('s5_train', '--data', 'mnist')
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and 'could not be downloaded' in done.stderr
