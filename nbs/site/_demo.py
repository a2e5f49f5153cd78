"""Copy the canvas, which the package and the page to draw on share, to the page.

Quarto calls this before rendering, in the folder that it renders: `nbs`, or its processed copy `_proc`.
"""
from importlib.resources import files
from pathlib import Path

page = Path('demo')
page.mkdir(exist_ok=True)
for name in ('draw.js', 'draw.css'):
    (page/name).write_bytes((files('s5_mnist')/name).read_bytes())
