"""Installs the package as settings.ini describes it."""
import re
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
ini = ConfigParser(delimiters=['='])
ini.read(here/'settings.ini', encoding='utf-8')
cfg = ini['DEFAULT']
export, widget, notebooks, dev = (cfg[f'{name}_requirements'].split()
                                  for name in ('export', 'widget', 'notebooks', 'dev'))
notebooks += export + widget


def absolute(readme):
    "README for PyPI and other sites, which have none of our files: links and pictures lead to the repository"
    readme = re.sub(r'(]\()(?![a-z]+:|#)', rf'\1{cfg["git_url"]}/blob/{cfg["branch"]}/', readme)
    return re.sub(r'(<img src=")(?![a-z]+:)', rf'\1{cfg["git_url"]}/raw/{cfg["branch"]}/', readme)


setup(
    name=cfg['lib_name'],
    version=cfg['version'],
    description=cfg['description'],
    long_description=absolute((here/'README.md').read_text(encoding='utf-8')),
    long_description_content_type='text/markdown',
    author=cfg['author'],
    author_email=cfg['author_email'],
    url=cfg['git_url'],
    license='Apache-2.0',
    keywords=cfg['keywords'].split(),
    packages=find_packages(include=['s5_mnist', 's5_mnist.*']),
    package_data={'s5_mnist': ['*.safetensors', '*.js', '*.css']},
    python_requires=f'>={cfg["min_python"]}',
    install_requires=cfg['requirements'].split(),
    extras_require={'export': export, 'widget': widget, 'notebooks': notebooks, 'dev': dev + notebooks},
    entry_points={'console_scripts': cfg['console_scripts'].split(),
                  'nbdev': [f'{cfg["lib_name"]}={cfg["lib_name"]}._modidx:d']},
    classifiers=['Development Status :: 4 - Beta', 'Intended Audience :: Education',
                 'Programming Language :: Python :: 3', 'Topic :: Scientific/Engineering :: Artificial Intelligence'],
)
