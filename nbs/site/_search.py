"""Give every public symbol an entry of its own in the site's search.

Quarto calls this after rendering. By itself its index ends at sections of the second level, and symbols are on the third.
"""
import json
import os
from importlib import import_module
from pathlib import Path

from s5_mnist._modidx import d as index


def entries(folder, pages):
    "An entry for each public class and function, and for each method that has a heading"
    for module, symbols in index['syms'].items():
        for path, (href, _) in symbols.items():
            name, page = path.removeprefix(f'{module}.'), href.split('#')[0]
            if any(part.startswith('_') for part in name.split('.')) or page not in pages:
                continue
            html, anchor = (folder/page).read_text(encoding='utf-8'), href.split('#')[1]
            if f'data-anchor-id="{anchor}"' in html:
                value = import_module(module)
                for part in name.split('.'):
                    value = getattr(value, part)
                yield pages[page] | dict(objectID=href, href=href, section=name, text=value.__doc__ or '')


folder = Path(os.environ['QUARTO_PROJECT_OUTPUT_DIR'])
file = folder/'search.json'
if file.exists(): # It does not when a single file is rendered, such as README.md
    found = json.loads(file.read_text(encoding='utf-8'))
    known = {e['objectID'] for e in found}
    pages = {e['href']: e for e in found if '#' not in e['href']}
    found += [e for e in entries(folder, pages) if e['objectID'] not in known]
    file.write_text(json.dumps(found, indent=2, ensure_ascii=False), encoding='utf-8')
