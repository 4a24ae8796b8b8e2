"""Films of policies that learned their tasks, for the page of results.

  python -m armfarm.experiments.films --tasks=door_pull,pick_place

Of each task of Figure 4 and of the peg and the bin, the first finished run among those
of its experiment that ended well, as a picture that moves. What was filmed before goes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
import functools
import itertools
import os
import pathlib
import subprocess
import tempfile

from armfarm.experiments import figure4
from armfarm.experiments import gps_peg
from armfarm.experiments import grasp_state
from armfarm.experiments import jobs
from armfarm.experiments import results
from armfarm.launchers import app
from armfarm.launchers import pictures
from armfarm.launchers import policy

_EPISODES = 3
_SEEDS = range(10)
_LEARNED = {'grasp_state': 0.9}  # success; 1.0 of the others
_SIZE, _FRAME_RATE = 320, 10  # pixels across, Hz: a quarter of a megabyte

MakeJob = Callable[[str, int], jobs.Job]


def experiments() -> dict[str, tuple[Iterable[str], MakeJob]]:
  """Returns whose runs of which experiment may be filmed, by task, best first."""
  found: dict[str, tuple[Iterable[str], MakeJob]] = {
    task: (('naf', 'ddpg', 'linear-naf'), functools.partial(figure4.make_job, task))
    for task in ('reach', 'door_push', 'door_pull', 'pick_place')
  }
  found['peg'] = (('mdgps', 'badmm'), gps_peg.make_job)
  found['grasp_state'] = (('qtopt',), grasp_state.make_job)
  return found


def learned(task: str) -> Iterator[jobs.Job]:
  """Yields the finished runs that learned a task."""
  agents, make_job = experiments()[task]
  for agent, seed in itertools.product(agents, _SEEDS):
    job = make_job(agent, seed)
    if job.summary().get('success', 0.0) >= _LEARNED.get(task, 1.0):
      yield job


def film(job: jobs.Job) -> pathlib.Path:
  """Films the policy of a run, in place of whatever its experiment shows.

  Returns:
    The path: of the experiment, agent and seed.

  Raises:
    UserError: this machine cannot draw.
  """
  folder = results.folder()
  path = folder / f'{job.name}.{job.agent}-{job.seed}.webp'
  with tempfile.TemporaryDirectory(dir=folder) as temporary:
    movie = pathlib.Path(temporary) / 'policy.mp4'
    moving = movie.with_suffix('.webp')
    try:
      policy.film(policy.load(job.workdir), movie, _EPISODES, seed=0)
    except pictures.CannotDraw as error:
      raise app.UserError(str(error)) from error
    animate(movie, moving)
    for old in results.films(folder, job.name):
      old.unlink()
    os.replace(moving, path)
  return path


def animate(movie: pathlib.Path, path: pathlib.Path) -> None:
  """Turns a film into a WebP that moves, small enough for a page."""
  shape = f'fps={_FRAME_RATE},scale={_SIZE}:-2'
  command = [*pictures.ffmpeg(), '-i', str(movie), '-vf', shape]
  command += ['-c:v', 'libwebp_anim', '-loop', '0']
  command += ['-quality', '60', '-compression_level', '6', str(path)]
  subprocess.run(command, check=True)


def main(argv: list[str]) -> int:
  """Films what there is; returns the exit code, 1 if a task has not been learned."""
  jobs.check_flags(argv, 'tasks')
  missing = 0
  try:
    for task in jobs.chosen(jobs.TASKS.value, experiments()):
      job = next(learned(task), None)
      missing += job is None
      print(f'{task}: {film(job) if job else "no run has learned it yet"}', flush=True)
  finally:
    results.write()
  return int(missing > 0)


if __name__ == '__main__':
  app.run(main)
