"""The walkthrough, every cell of it, in Jupyter, on a small set."""
import re
import shutil

import pytest
from conftest import ROOT
from notebooks import Jupyter, cells, figures, source, text
from test_outputs import table_rows


@pytest.mark.slow
def test_the_whole_walkthrough(tmp_path):
    shutil.copytree(ROOT/'nbs'/'runs', tmp_path/'runs', ignore=shutil.ignore_patterns('walkthrough'))
    printed, shown = '', 0
    with Jupyter(tmp_path) as jupyter:
        jupyter('from s5_mnist import data as data_module\n'
                'few_digits = data_module.generated_data(1500, 400)\n'
                'data_module.load_mnist = lambda root=None: few_digits')
        for cell in cells(ROOT/'nbs'/'S5.ipynb'):
            if cell['cell_type'] != 'code':
                continue
            code = source(cell).replace('epochs, seed = 20, 0', 'epochs, seed = 3, 1').replace('bs=512', 'bs=20')
            outputs = jupyter(re.sub(r'^assert .*nearest_neighbour.*', '', code, flags=re.M)) # True of MNIST
            printed, shown = f'{printed}{text(outputs)}\n', shown+len(figures(outputs))
        assert jupyter.value('data is few_digits and len(hist.rows)') == 3
        assert jupyter.value('score.n, own.n') == (400, 1500)
        correct, own, name = jupyter.value('score.correct, own.correct, few_digits.name')
    rows = {row[0]: row[1:3] for row in table_rows(printed)}
    assert rows['2. network, test images'] == [f'{correct}', '400']
    assert rows["3. the assignment's metric: training images"] == [f'{own:,}', '1,500']
    assert f'{name}: 1,500 training images, 400 test images' in printed
    assert correct > .8*400 and shown >= 2
    assert (tmp_path/'runs'/'walkthrough'/'last.ckpt').exists()
