"""The walkthrough, every cell of it, in Jupyter, on a small set."""
import shutil

from conftest import ROOT
from notebooks import Jupyter, cells, figures, source, text


def test_whole_walkthrough(tmp_path):
    shutil.copytree(ROOT/'nbs'/'runs', tmp_path/'runs')
    printed, shown = '', 0
    with Jupyter(tmp_path) as jupyter:
        jupyter('from s5_mnist import data as data_module\n'
                'small = data_module.generated_data(1500, 400)\n'
                'data_module.load_mnist = lambda root=None: small')
        for i, cell in enumerate(cells(ROOT/'nbs'/'S5.ipynb')):
            if cell['cell_type'] != 'code':
                continue
            outputs = jupyter(source(cell).replace('epochs, seed = 20, 0', 'epochs, seed = 3, 1').replace('bs=512', 'bs=20'))
            printed, shown = printed+text(outputs), shown+len(figures(outputs))
        assert jupyter.value('data is small and len(hist.rows)') == 3
        assert jupyter.value('score.n, own.n') == (400, 1500)
        right, own, name = jupyter.value('score.correct, own.correct, small.name')
    assert f'2. TEST: held-out images                   {right:6} / 400' in printed
    assert f'augmented training set {own:6} / 1500' in printed.replace("3. the assignment's: ", '')
    assert f'{name}: 1,500 training images, 400 test images' in printed
    assert right > .8*400 and shown >= 2
    assert (tmp_path/'runs'/'walkthrough'/'last.ckpt').exists()
