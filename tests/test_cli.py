"""The commands as a shell sees them: what they print, where they write, and how they end."""
import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from conftest import ROOT
from drawings import beside, drawn
from fastcore.docments import docments
from PIL import Image
from safetensors.torch import load_file, save_file
from systems import linux
from torch import zeros

from s5_mnist import __version__, benchmark, cli
from s5_mnist import data as data_module
from s5_mnist.augment import shifted_views
from s5_mnist.benchmark import speed_report
from s5_mnist.core import InputError, read_json
from s5_mnist.data import loaders
from s5_mnist.pretrained import load_pretrained, pretrained_report
from s5_mnist.runs import Stopped, load_run
from s5_mnist.sweeps import read_sweep, sweep_line
from s5_mnist.training import evaluate

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
    "One line per option, with its default"
    status, out, err = shell(name, '--help')
    words = ' '.join(out.split())
    assert status == 0 and err == '' and COMMANDS[name].__doc__ in words
    for option, p in docments(COMMANDS[name], full=True, returns=False).items():
        assert option in words or f'--{option.replace("_", "-")}' in words
        assert ' '.join(p.docment.split()) in words
    assert shell(name, '--version') == (0, f's5_mnist {__version__}\n', '')


def test_help_of_training(shell):
    words = ' '.join(shell('s5_train', '--help')[1].split())
    for option in ('--recipe', '--data', '--root', '--epochs', '--bs', '--lr', '--seed', '--n-valid', '--device',
                   '--precision', '--disable', '--out', '--deterministic', '--resume', '--save-interval-s'):
        assert option in words
    assert 'default: fast' in words and 'an integer between 1 and 100,000' in words and 'Folder of a finished run' in ' '.join(shell('s5_eval', '--help')[1].split())


@pytest.mark.parametrize('args, message', [
    (['s5_train', '--epoks', '3'], 'unrecognized arguments: --epoks 3'),
    (['s5_train', '--epochs'], 'argument --epochs: expected one argument'),
    (['s5_eval'], 'the following arguments are required: run'),
    (['s5_predict'], 'the following arguments are required: files')])
def test_bad_usage_is_one_line_and_status_2(shell, args, message):
    assert shell(*args) == (2, '', f'{args[0]}: {message}; see {args[0]} --help\n')


WRONG = [
    (['s5_train', '--recipe', 'quick'], "recipe must be one of s5, fast, best, got 'quick'"),
    (['s5_train', '--epochs', 'x'], "epochs must be an integer between 1 and 100,000, got 'x'"),
    (['s5_train', '--resume', ''], "a path must name a file or folder, got ''"),
    (['s5_train', '--epochs', '-3'], "epochs must be an integer between 1 and 100,000, got '-3'"),
    (['s5_train', '--epochs', '0'], "epochs must be an integer between 1 and 100,000, got '0'"),
    (['s5_train', '--lr', 'nan'], "lr must be a number between 1e-09 and 1000, got 'nan'"),
    (['s5_train', '--seed', '-1'], "seed must be an integer between 0 and 4,294,967,295, got '-1'"),
    (['s5_train', '--data', 'digits', '--n-valid', '300'], 'n_valid must be 0 to 299, got 300'),
    (['s5_train', '--data', 'cifar'], "data must be one of auto, mnist, digits, got 'cifar'"),
    (['s5_train', '--data', 'mnist'], 'could not be downloaded'),
    (['s5_train', '--device', 'tpu'], "device must be auto or one of "),
    (['s5_train', '--device', 'cuda:77'], "on this machine, got 'cuda:77'"),
    (['s5_train', '--precision', 'fp8'], "precision must be one of auto, float32, bf16, got 'fp8'"),
    (['s5_train', '--data', 'digits', '--out', 'file/run'], 'file/run must be a folder, but '),
    (['s5_train', '--data', 'digits', '--out', 'full'], 'full must be empty, found files in it; choose another folder'),
    (['s5_train', '--data', 'mnist', '--root', 'damaged'],
     'found an empty file'),
    (['s5_train', '--root', 'file'], 'root=file is not a folder'),
    (['s5_train', '--disable', 'warp'],
     "disable must name some of channels_last, retain_freed_memory, fused, got 'warp'"),
    (['s5_train', '--data', 'digits', '--save-interval-s', '-1'], "save_interval_s must be a number between 0 and 1e+09, got '-1'"),
    (['s5_eval', 'nothing'], 'nothing/config.json does not exist; check the path'),
    (['s5_eval', 'stopped'], 'stopped is not finished; continue with: s5_train --resume stopped'),
    (['s5_train', '--data', 'digits', '--out', 'stopped'],
     'stopped must be empty, found files in it; choose another folder, or continue the run in it: '
     's5_train --resume stopped'),
    (['s5_train', '--resume', 'nothing'], 'nothing is not a run; name the folder of a stopped run'),
    (['s5_train', '--resume', 'stopped', '--epochs', '5', '--out', 'x'],
     '--resume continues a run as it was started; leave out --epochs --out'),
    (['s5_train', '--resume', 'stopped', '--n-valid', '5', '--deterministic'], 'leave out --n-valid --deterministic'),
    (['s5_eval', 'other', '--device', 'cpu'], 'other/model.safetensors is of another model'),
    (['s5_eval', 'pretrained', '--data', 'cifar'], "data must be one of auto, mnist, digits, got 'cifar'"),
]


@pytest.fixture
def odd_folders(here):
    "A file, and folders that hold something other than a finished run"
    (here/'file').write_text('')
    (here/'damaged').mkdir()
    (here/'damaged'/'train-images-idx3-ubyte').write_text('')
    for name in ('full', 'other'):
        (here/name).mkdir()
        (here/name/'config.json').write_text('{"version": 2, "data": "MNIST", "recipe": {}}')
        (here/name/'report.json').write_text('{}')
        (here/name/'history.csv').write_text('epoch\n1\n')
        save_file({'conv1.weight': zeros(3)}, here/name/'model.safetensors')
    (here/'stopped').mkdir()
    for name in ('config.json', 'last.ckpt'):
        (here/'stopped'/name).write_text('{"version": 2, "data": "MNIST", "recipe": {}}')


@pytest.mark.parametrize('args, message', WRONG, ids=[' '.join(a) for a, _ in WRONG])
def test_bad_input_is_one_line_and_status_2(shell, odd_folders, here, args, message):
    status, out, err = shell(*args)
    assert status == 2 and len(err.splitlines()) == 1 and err.startswith(f'{args[0]}: '), (status, out, err)
    assert message in err
    assert not (here/'runs').exists()


@linux('/proc, a folder that nobody can write to')
@pytest.mark.parametrize('args', [['s5_train', '--data', 'digits'], ['s5_bench']],
                         ids=' '.join)
def test_a_folder_that_cannot_be_written_is_one_line_and_status_2(shell, args):
    status, out, err = shell(*args, '--out', '/proc/x')
    assert (status, err.splitlines()) == (2, [err[:-1]]) and f'{args[0]}: /proc/x cannot be written' in err


@pytest.mark.parametrize('error, status, message', [
    (InputError('no'), 2, 'x: no'), (FileNotFoundError(2, 'gone', 'f'), 2, "x: [Errno 2] gone: 'f'"),
    (KeyboardInterrupt(), 130, 'x: interrupted'),
    (Stopped(15, 'run'), 143, 'x: stopped; continue with: s5_train --resume run'),
    (ZeroDivisionError('bug'), None, '')])
def test_how_a_command_ends(error, status, message, capsys):
    "A fault of ours keeps its traceback"
    with pytest.raises(SystemExit if status else type(error)) as e:
        with cli.one_line_errors('x'):
            raise error
    assert getattr(e.value, 'code', None) == status and capsys.readouterr().err.rstrip('\n') == message


# --- training and scoring ---------------------------------------------------------------------------------------

def test_without_mnist_it_trains_on_generated_digits_and_says_so(shell, here):
    status, out, err = shell('s5_train', '--device', 'cpu', '--seed', 2, '--bs', 32)
    lines = [x for x in out.splitlines() if not x.startswith('Downloading')]
    assert status == 0 and err == ''
    assert lines[0].startswith('MNIST is not available; using generated digits instead. ')
    assert lines[1] == 'fast on generated digits'
    assert [x.startswith('epoch') for x in lines] == [False]*3+[True]+[False]*2 # Where no terminal is, no bar
    config, report = (json.loads((here/'runs'/'fast-2'/f'{n}.json').read_text()) for n in ('config', 'report'))
    assert config['data'] == 'generated digits' and report['held_out'] == 'generated digits, test images'
    result = f'{report["correct"]}/130 = {report["accuracy"]:.2f} % of generated digits, test images; recipe fast, '
    assert lines[-2] == result+'bs=32, seed=2'
    assert lines[-1] == f'{report["seconds"]:.1f} s; saved in runs/fast-2'

    assert shell('s5_eval', 'runs/fast-2', '--device', 'cpu') == (0, lines[-2]+'\n', '')
    status, out, _ = shell('s5_eval', 'runs/fast-2', '--device', 'cpu', '--data', 'digits', '--tta')
    score = evaluate(load_run('runs/fast-2', 'cpu').net, loaders(data_module.generated_data()).test, tta=shifted_views)
    assert out.startswith(f'{score} of generated digits, test images in nine positions each; recipe fast, ')


def test_the_command_prints_its_compute_options_once(shell):
    from s5_mnist.device import pick_compute_options, pick_device
    out = shell('s5_train', '--data', 'digits', '--device', 'cpu', '--precision', 'float32', '--disable', 'fused')[1]
    options = str(pick_compute_options(pick_device('cpu'), 'float32', 'fused'))
    assert out.count(options) == 1 and 'channels_last' in options and 'fused' not in options


def test_a_stopped_run_is_resumed_on_the_data_that_it_names(shell, here, monkeypatch):
    from s5_mnist import runs
    with monkeypatch.context() as m:
        m.setattr(runs, '_save_run', lambda run: run)
        assert shell('s5_train', '--data', 'digits', '--device', 'cpu', '--out', 'run', '--bs', 100)[0] == 0
    status, out, err = shell('s5_train', '--resume', 'run', '--device', 'cpu')
    assert (status, err) == (0, '') and out.splitlines()[-1].endswith('saved in run')
    assert load_run('run', 'cpu').recipe.bs == 100
    status, out, err = shell('s5_train', '--resume', 'run')
    assert status == 2 and err == 's5_train: run is finished; s5_eval scores it, load_run loads it\n'


# --- predicting and exporting -----------------------------------------------------------------------------------

def test_predict_prints_a_line_for_each_file_and_goes_on(shell, here):
    for d in '05':
        drawn(d).save(f'{d}.png')
    (here/'notes.txt').write_text('no digit')
    status, out, err = shell('s5_predict', '0.png', 'notes.txt', 'gone.png', '5.png')
    assert status == 1
    assert [line.split(' (')[0] for line in out.splitlines()] == ['0.png: 0', '5.png: 5']
    assert err.splitlines() == ['s5_predict: notes.txt is not a picture in a known format; use PNG or JPEG',
                                's5_predict: gone.png does not exist; check the path']
    status, out, err = shell('s5_predict', '5.png', '--json')
    found = json.loads(out)
    assert (status, err) == (0, '') and found.keys() == {'file', 'digit', 'probs', 'typicality', 'is_digit'}
    assert (found['file'], found['digit']) == ('5.png', 5)
    assert len(found['probs']) == 10 and sum(found['probs']) == pytest.approx(1, abs=1e-4)


def test_predict_reads_numbers(shell, here):
    Image.fromarray(255-beside('208')).save('208.png')
    Image.new('L', (90, 90), 255).save('blank.png')
    status, out, err = shell('s5_predict', '--numbers', '208.png', 'blank.png')
    assert (status, out) == (1, '208.png: 208\n') and err.startswith('s5_predict: blank.png is blank')
    assert '\n  check by eye: 2 (' in shell('s5_predict', '--numbers', '208.png', '--at-least', '1')[1]
    found = json.loads(shell('s5_predict', '--numbers', '208.png', '--json')[1])
    assert (found['file'], found['text'], found['unsure'], len(found['digits'])) == ('208.png', '208', 0, 3)
    status, out, err = shell('s5_predict', '208.png')
    assert status == 1 and 'or read_numbers' in err


def test_predict_refuses_a_folder_without_a_run(shell, here):
    status, out, err = shell('s5_predict', '5.png', '--run', here)
    assert (status, out) == (2, '') and str(here) in err


def test_export_writes_weights_with_their_report(shell, here):
    status, out, err = shell('s5_export', 'pretrained', '--format', 'safetensors')
    size = (here/'s5_mnist.safetensors').stat().st_size
    assert (status, out, err) == (0, f's5_mnist.safetensors: {size:,} bytes\n', '')
    state = load_pretrained().state_dict()
    assert all(v.equal(state[k]) for k, v in load_file('s5_mnist.safetensors').items())
    assert pretrained_report('s5_mnist.safetensors') == pretrained_report() | dict(weights='float32')


@pytest.mark.slow
def test_export_writes_onnx(shell, here):
    pytest.importorskip('onnxscript')
    status, out, err = shell('s5_export', 'pretrained', '--out', 'net.onnx')
    assert status == 0 and 'net.onnx: 2,' in out and [p.name for p in here.iterdir()] == ['net.onnx']


@pytest.mark.parametrize('args, message', [
    (['nowhere'], 'nowhere'), (['pretrained', '--format', 'pickle'], "got 'pickle'"),
    (['pretrained', '--format', 'safetensors', '--half'], 'maps and half need onnx, got safetensors')])
def test_export_refuses(args, message, shell, here):
    status, out, err = shell('s5_export', *args)
    assert (status, out) == (2, '') and message in err and not list(here.iterdir())


# --- measuring --------------------------------------------------------------------------------------------------

WRONG_MEASUREMENTS = [
    (['s5_bench', '--reps', '0'], 'reps must be an integer between 1 and 1,000, got \'0\''),
    (['s5_bench', '--batches', '0'], 'batches must be an integer between 1 and 100, got \'0\''),
    (['s5_bench', '--jobs', '-1'], 'jobs must be an integer between 0 and 1,000, got \'-1\''),
    (['s5_bench', '--recipe', 'slow'], "recipe must be one of s5, fast, best, got 'slow'"),
    (['s5_bench', '--out', 'file'], 'file is a file; name another folder'),
    (['s5_bench', '--out', 'file/x/y'], 'file is a file; name another folder'),
    (['s5_bench', '--data', 'digits'],
     '5,632 training images are needed, generated digits has 300; time fewer batches'),
    (['s5_sweep', '--seeds', '0', '--data', 'digits'], "seeds must be an integer between 1 and 10,000, got '0'"),
    (['s5_sweep', '--change', 'bs=x'], "bs must be"),
    (['s5_sweep', '--change', 'rl=1'], 'a field must be one of name, epochs, bs, skip_easy_frac'),
    (['s5_sweep', '--data', 'digits', '--out', 'full/config.json'],
     'full/config.json must be a table that sweep wrote'),
]


@pytest.mark.parametrize('args, message', WRONG_MEASUREMENTS, ids=[' '.join(a) for a, _ in WRONG_MEASUREMENTS])
def test_bad_measurements_are_one_line_and_status_2(shell, odd_folders, here, args, message):
    before = sorted(here.iterdir())
    status, out, err = shell(*args)
    assert status == 2 and len(err.splitlines()) == 1 and err.startswith(f'{args[0]}: '), (status, out, err)
    assert message in err
    assert sorted(here.iterdir()) == before


def test_the_sweep_command_writes_a_table_and_continues_it(shell, here):
    args = ['s5_sweep', '--data', 'digits', '--device', 'cpu', '--precision', 'float32', '--change', 'bs=100',
            '--n-valid', '50', '--seeds']
    status, out, _ = shell(*args, 1)
    assert status == 0 and out.endswith(f'fast, {sweep_line(read_sweep("fast.csv"))}; rows in fast.csv\n')
    status, out, _ = shell(*args, 2, '--keep', 'kept')
    rows = read_sweep('fast.csv')
    assert status == 0 and [r['seed'] for r in rows] == ['0', '1'] and sweep_line(rows) in out
    assert {r['validation_n'] for r in rows} == {'50'} and '"bs": 100' in rows[0]['settings']
    assert sorted(p.name for p in (here/'kept').iterdir()) == ['fast-1']


def test_the_benchmark_command_prints_and_saves(shell, here, monkeypatch):
    found = read_json(ROOT/'nbs/runs/bench/bench.json')
    asked = []
    monkeypatch.setattr(benchmark, 'measure_speed', lambda *args: asked.append(args) or found)
    status, out, _ = shell('s5_bench', '--data', 'digits', '--device', 'cpu', '--reps', 2, '--out', 'new/bench')
    assert status == 0 and asked == [('digits', None, 'cpu', 2, 6, 3, 'fast')]
    assert speed_report(found) in out and out.endswith('saved in new/bench\n')
    assert sorted(p.name for p in (here/'new'/'bench').iterdir()) == ['bench.csv', 'bench.json', 'ladder.png']


# --- in a process of its own ------------------------------------------------------------------------------------

def test_the_installed_command(odd_folders, here):
    done = subprocess.run([BIN/'s5_eval', 'nothing'], capture_output=True, text=True, cwd=here)
    assert (done.returncode, done.stdout) == (2, '')
    assert done.stderr.replace(os.sep, '/') == 's5_eval: nothing/config.json does not exist; check the path\n'


def test_training_does_without_what_is_slow_to_import(tmp_path):
    "torchvision takes as long to import as torch, and torch's compiler a second"
    code = ('import sys; from s5_mnist import cli, runs; from s5_mnist.data import generated_data; '
            'runs.load_data = lambda *a: generated_data(200, 50); '
            f'cli.s5_train.main(["--device", "cpu", "--out", {str(tmp_path/"run")!r}]); '
            'bad = {"torchvision", "torch._dynamo", "scipy"} & set(sys.modules); assert not bad, bad')
    subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


# --- from the wheel ---------------------------------------------------------------------------------------------

@pytest.fixture(scope='session')
def installed(tmp_path_factory):
    "A folder into which the wheel was installed"
    folder = tmp_path_factory.mktemp('wheel')
    pip = [sys.executable, '-m', 'pip', '--quiet', '--disable-pip-version-check']
    subprocess.run([*pip, 'wheel', '--no-deps', '--no-build-isolation', '-w', folder, ROOT], check=True)
    wheel, = folder.glob('*.whl')
    subprocess.run([*pip, 'install', '--no-deps', '--no-warn-conflicts', '--target', folder/'site', wheel], check=True)
    return folder/'site'


@pytest.fixture
def from_wheel(installed, tmp_path):
    "A function that runs an installed command in an empty folder, without MNIST and without a network"
    def call(command, *args, **env):
        clean = {k: v for k, v in os.environ.items() if k not in ('S5_MNIST_DATA', 'PYTHONPATH')}
        offline = {k: 'http://127.0.0.1:9' for k in ('http_proxy', 'https_proxy')} # A port where nobody answers
        env = {**clean, **offline, 'PYTHONPATH': str(installed), 'XDG_CACHE_HOME': str(tmp_path/'cache'), **env}
        return subprocess.run([sys.executable, installed/'bin'/command, *map(str, args)], env=env, cwd=tmp_path,
                              capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return call


@pytest.mark.slow
def test_the_wheel_is_what_runs(from_wheel, installed):
    (installed/'bin'/'where').write_text('import s5_mnist; print(s5_mnist.__file__)')
    assert from_wheel('where').stdout.startswith(str(installed))


@pytest.mark.slow
@pytest.mark.parametrize('name', COMMANDS)
def test_the_wheel_has_the_command(from_wheel, name):
    done = from_wheel(name, '--help')
    assert done.returncode == 0 and done.stdout.startswith(f'usage: {name} ') and done.stderr == ''


@pytest.mark.slow
def test_the_wheel_trains_scores_and_predicts(from_wheel, tmp_path):
    "On generated digits, because there is no MNIST"
    done = from_wheel('s5_train', '--device', 'cpu', '--seed', 2)
    assert done.returncode == 0, done.stderr
    lines = [x for x in done.stdout.splitlines() if not x.startswith('Downloading')]
    assert 'using generated digits instead' in lines[0] and lines[1].startswith('fast on generated digits')
    assert len([x for x in lines if x.startswith('epoch')]) == 1
    assert 'of generated digits, test images; recipe fast, seed=2' in lines[-2] and 'runs/fast-2' in lines[-1]
    config, report = (json.loads((tmp_path/'runs'/'fast-2'/f'{n}.json').read_text()) for n in ('config', 'report'))
    assert config['data'] == 'generated digits' and report['held_out'] == 'generated digits, test images'
    assert report['n'] == 2000 and report['correct'] > 1950
    assert f'{report["correct"]}/2000' in lines[-2]
    assert done.stderr == ''

    again = from_wheel('s5_eval', 'runs/fast-2', '--device', 'cpu')
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith(f'{report["correct"]}/2000 = {report["accuracy"]:.2f} % of generated digits')
    read = from_wheel('s5_predict', ROOT/'nbs'/'site'/'favicon.png')
    assert read.returncode == 0 and 'favicon.png: 5 (' in read.stdout


@pytest.mark.slow
def test_the_wheel_ends_with_one_line_and_status_2(from_wheel):
    done = from_wheel('s5_train', '--data', 'mnist')
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith('s5_train: ') and 'could not be downloaded' in done.stderr
