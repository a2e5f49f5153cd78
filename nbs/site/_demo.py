"""Bring to the page to draw on what it shares with the package, the canvas, and what runs its network, ONNX Runtime.

Quarto calls this before rendering, in the folder that it renders: `nbs`, or its processed copy `_proc`. The runtime comes from
the folder `dist` of npm's onnxruntime-web, which S5_ONNXRUNTIME_WEB names; without it the page loads the runtime from a CDN.
"""
import os
import re
from importlib.resources import files
from pathlib import Path

page = Path('demo')
page.mkdir(exist_ok=True)
for name in ('draw.js', 'draw.css'):
    (page/name).write_bytes((files('s5_mnist')/name).read_bytes())
if dist := os.environ.get('S5_ONNXRUNTIME_WEB'):
    for name in re.findall(r"'(ort\S+)': 'sha384-", (page/'network.js').read_text()):
        (page/name).write_bytes((Path(dist)/name).read_bytes())
