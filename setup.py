"""Installs the package as settings.ini describes it."""
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
ini = ConfigParser(delimiters=['='])
ini.read(here/'settings.ini', encoding='utf-8')
cfg = ini['DEFAULT']
export, widget = (cfg[f'{name}_requirements'].split() for name in ('export', 'widget'))
# PyPI and other sites load the pictures of README from the repository
pictures = f'{cfg["git_url"]}/raw/{cfg["branch"]}/index_files'

setup(
    name=cfg['lib_name'],
    version=cfg['version'],
    description=cfg['description'],
    long_description=(here/'README.md').read_text(encoding='utf-8').replace('index_files/', f'{pictures}/'),
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
    extras_require={'export': export, 'widget': widget, 'dev': cfg['dev_requirements'].split() + export + widget},
    entry_points={'console_scripts': cfg['console_scripts'].split(),
                  'nbdev': [f'{cfg["lib_name"]}={cfg["lib_name"]}._modidx:d']},
    classifiers=['Development Status :: 4 - Beta', 'Intended Audience :: Education',
                 'Programming Language :: Python :: 3', 'Topic :: Scientific/Engineering :: Artificial Intelligence'],
)
