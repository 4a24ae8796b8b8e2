"""The distribution: the folders at the top, installed as `armfarm.<folder>`."""

import pathlib

import setuptools

_TOP = ('agents', 'configs', 'envs', 'experiments', 'launchers', 'replay', 'workers')
_HERE = pathlib.Path(__file__).parent

setuptools.setup(
  name='armfarm',
  version='0.1.0',
  description='Robot arms that learn to manipulate, on a farm of robots, in JAX.',
  long_description=(_HERE / 'README.md').read_text(encoding='utf-8'),
  long_description_content_type='text/markdown',
  author='The armfarm authors',
  license='Apache-2.0',
  python_requires='>=3.11',
  package_dir={f'armfarm.{top}': top for top in _TOP},
  packages=[
    f'armfarm.{name}'
    for name in setuptools.find_packages(
      str(_HERE), include=[p for top in _TOP for p in (top, f'{top}.*')]
    )
  ],
  package_data={'': ['py.typed', 'assets/*.xml']},
  install_requires=[
    'absl-py',
    'brax',
    'chex',
    'flashbax',
    'flax',
    'imageio-ffmpeg',
    'jax>=0.7.1',
    'matplotlib',
    'ml-collections',
    'mujoco-mjx==3.17.0',  # unpinned, it brings a mujoco with a solver bug
    'mujoco==3.17.0',
    'numpy',
    'optax',
    'orbax-checkpoint',
    'pillow',
    'portpicker',
    'setproctitle',
    'tensorboardX',
  ],
  extras_require={
    'gym': ['gymnasium'],
    'jaco': ['dm-control'],
    'log': ['array-record', 'grain'],
    'notebook': ['ipykernel', 'ipython'],
  },
)
