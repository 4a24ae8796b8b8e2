"""What a run looks like: its learning curve, and a film of its policy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import copy
import functools
import itertools
import math
import os
import pathlib
import subprocess
from typing import TYPE_CHECKING, NamedTuple

import chex
import imageio_ffmpeg
import jax
import mujoco
import numpy as np
from PIL import Image
from PIL import ImageDraw
from PIL import ImageFont

from armfarm.envs.camera import Marks
from armfarm.envs.foreign import Foreign
from armfarm.envs.foreign import ForeignHost
from armfarm.envs.host import Host
from armfarm.envs.task import Array
from armfarm.envs.task import Environment
from armfarm.envs.task import Task
from armfarm.workers import records

if TYPE_CHECKING:
  from matplotlib import figure  # here: runs start a fifth sooner without it
  from matplotlib.axes import Axes

Policy = Callable[[Array], Array]
Thinks = Callable[[Array], 'Thought']

BLUE, ORANGE, GREEN, GREY = '#2b6cb0', '#dd6b20', '#2f855a', '#718096'
PURPLE = '#6b46c1'
_HOLD = 1.0  # s that an episode is shown after it succeeded
_FRAME_RATE = 30.0  # Hz, at most


class CannotDraw(Exception):
  """There is nothing to be seen; the message says why, or what to install."""


class Thought(NamedTuple):
  """What a policy makes of what it sees.

  Attributes:
    text: for the caption.
    marks: for the picture.
  """

  text: str
  marks: Marks


class Stage(NamedTuple):
  """What a film is made of.

  Attributes:
    body: who acts.
    shoot: takes a picture of the present state, [H W 3], uint8; a stage of ours takes
      `marks` to draw in it.
    hertz: control steps/s.
    close: frees what drawing took.
  """

  body: Environment
  shoot: Callable[..., np.ndarray]
  hertz: float
  close: Callable[[], None]


class Curve(NamedTuple):
  """How a run went, [T] training episodes and [E] evaluations.

  Attributes:
    totals: undiscounted return of each training episode, [T].
    episodes: training episodes before each evaluation, [E].
    updates: of the learner before each, [E].
    seconds: of training before each, [E].
    success: share of the held-out episodes that succeeded, [E].
    evaluation_totals: their mean return, [E].
  """

  totals: np.ndarray
  episodes: np.ndarray
  updates: np.ndarray
  seconds: np.ndarray
  success: np.ndarray
  evaluation_totals: np.ndarray

  @property
  def solved(self) -> int | None:
    """Which evaluation was the first of two in a row with 100 %."""
    whole = self.success == 1.0
    twice = np.flatnonzero(whole[:-1] & whole[1:])
    return int(twice[0]) if twice.size else None

  @property
  def solved_at(self) -> int | None:
    """Training episodes at that evaluation."""
    return None if self.solved is None else int(self.episodes[self.solved])


def read_curve(workdir: pathlib.Path) -> Curve:
  """Reads `metrics.jsonl`; a last line that was cut short is left out."""
  episodes = records.read(workdir, 'episode')
  trials = sorted(records.read(workdir, 'evaluation'), key=lambda row: row['episodes'])
  fields = ('episodes', 'updates', 'seconds', 'success', 'total')
  return Curve(
    np.array([row['total'] for row in episodes]),
    *(np.array([row[field] for row in trials]) for field in fields),
  )


def draw_curve(workdir: pathlib.Path) -> pathlib.Path:
  """Draws how a run learned.

  Args:
    workdir: of the run, with its `metrics.jsonl`.

  Returns:
    Where the picture is, `curve.png`.
  """
  from matplotlib import figure  # here: runs start a fifth sooner without it

  curve = read_curve(workdir)
  picture = figure.Figure(figsize=(8, 5.6), layout='constrained')
  top, bottom = picture.subplots(2, 1, sharex=True)
  top.plot(curve.episodes, 100 * curve.success, '-o', color=BLUE, markersize=3.5)
  top.set(ylabel='success, %', ylim=(-4, 106))
  top.set_title('Held-out episodes', loc='left', fontsize=12)
  training = np.arange(1, len(curve.totals) + 1)
  bottom.plot(
    training, curve.totals, color=GREY, alpha=0.4, linewidth=0.8, label='training'
  )
  bottom.plot(
    curve.episodes,
    curve.evaluation_totals,
    '-o',
    color=BLUE,
    markersize=3.5,
    label='evaluation, mean',
  )
  bottom.set(ylabel='return, sum of rewards', xlabel='training episodes')
  bottom.set_xlim(left=0)
  bottom.legend(loc='lower right', framealpha=1, edgecolor='none', fontsize=10)
  for axes in (top, bottom):
    style(axes)
  _mark_solved(top, bottom, curve.solved_at)
  return save(picture, workdir / 'curve.png')


def style(axes: Axes) -> None:
  """Makes axes quiet and readable."""
  axes.spines[['top', 'right']].set_visible(False)
  axes.grid(axis='y', color='#e2e8f0', linewidth=0.8)
  axes.set_axisbelow(True)
  axes.tick_params(labelsize=10, color=GREY)
  axes.xaxis.label.set_fontsize(11)
  axes.yaxis.label.set_fontsize(11)
  axes.locator_params(axis='x', integer=True)


def save(picture: figure.Figure, path: pathlib.Path) -> pathlib.Path:
  """Writes a picture in one go: nobody finds half of it."""
  partial = path.with_name(f'.{path.name}')
  picture.savefig(partial, format='png', dpi=130, metadata={'Software': None})
  os.replace(partial, path)
  return path


def stage(
  task: Task, camera: str = 'over_view', width: int = 480, height: int = 360
) -> Stage:
  """Sets the stage for a task of ours.

  Args:
    task: what to do.
    camera: name of a camera of the model.
    width: pixels.
    height: pixels.

  Raises:
    CannotDraw: this machine cannot draw.
  """
  check_opengl()
  body = Host(_drawn_quickly(task))
  shoot = functools.partial(body.render, camera, width, height)
  return Stage(body, shoot, 1 / task.control_period, body.close)


def foreign_stage(task: Foreign) -> Stage:
  """Sets the stage for a Gymnasium environment, as that draws itself.

  Raises:
    CannotDraw: it does not, or not on this machine.
  """
  try:
    body = ForeignHost(task, 'rgb_array')
    body.reset(jax.random.key(0))
    body.render().astype(np.uint8)
  except Exception as error:  # whatever the makers of environments raise
    reason = ' '.join(str(error).split())
    raise CannotDraw(f'{task.id} cannot be filmed: {reason}') from error
  return Stage(body, body.render, body.hertz, body.close)


def film(
  stage: Stage,
  policy: Policy,
  keys: chex.PRNGKey,
  path: pathlib.Path,
  thinks: Thinks | None = None,
) -> pathlib.Path:
  """Films one episode for each key, at its own speed, and leaves the stage.

  An episode that succeeds is cut a second later.

  Args:
    stage: where it happens.
    policy: `observation [O] -> action [A]`.
    keys: of the episodes, [E]; consumed.
    path: of the mp4 to write.
    thinks: what the policy makes of an observation, for a stage of ours to show.

  Returns:
    The path.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(f'.{path.name}')
  try:
    every = math.ceil(stage.hertz / _FRAME_RATE)
    frames = _frames(stage, policy, keys, every, thinks)
    _encode(frames, partial, stage.hertz / every)
  finally:
    stage.close()
  os.replace(partial, path)
  return path


def ffmpeg() -> list[str]:
  """Returns how a command of ffmpeg begins that overwrites and tells errors alone."""
  return [imageio_ffmpeg.get_ffmpeg_exe(), '-loglevel', 'error', '-y']


def check_opengl() -> None:
  """Draws nothing on eight pixels.

  Raises:
    CannotDraw: this machine cannot draw.
  """
  try:
    mujoco.Renderer(mujoco.MjModel.from_xml_string('<mujoco/>'), 8, 8).close()
  except Exception as error:  # each OpenGL library fails in ways of its own
    message = 'OpenGL is missing, for the video: apt-get install libegl1 libgl1'
    raise CannotDraw(message) from error


def _mark_solved(top: Axes, bottom: Axes, episode: int | None) -> None:
  if episode is None:
    return
  for axes in (top, bottom):
    axes.axvline(episode, color=GREEN, linestyle='--', linewidth=1.2)
  text = f'100 % after {episode} episodes'
  top.set_title(text, loc='right', color=GREEN, fontsize=12)


def _drawn_quickly(task: Task) -> Task:
  """The same task, drawn twice as fast: a film does not show the difference."""
  model = copy.copy(task.model)
  quality = model.vis.quality
  quality.shadowsize = min(quality.shadowsize, 2048)
  quality.offsamples = min(quality.offsamples, 4)
  quality.numslices = min(quality.numslices, 24)
  quality.numstacks = min(quality.numstacks, 12)
  return task._replace(model=model)


def _frames(
  stage: Stage,
  policy: Policy,
  keys: chex.PRNGKey,
  every: int,
  thinks: Thinks | None,
) -> Iterator[np.ndarray]:
  """Yields a frame of `every` so many control steps, the first of each episode."""
  hold = math.ceil(_HOLD * stage.hertz)
  for number, key in enumerate(keys, 1):
    text = f'episode {number} of {len(keys)}'
    episode = _episode(stage.body, policy, key, hold)
    for success, observation in itertools.islice(episode, None, None, every):
      thought = thinks(observation) if thinks else None
      frame = stage.shoot(marks=thought.marks) if thought else stage.shoot()
      even = frame[: len(frame) // 2 * 2, : frame.shape[1] // 2 * 2]  # mp4 has no odd
      said = f'{text}   {thought.text}' if thought else text
      yield _captioned(even, said, success)


def _episode(
  body: Environment, policy: Policy, key: chex.PRNGKey, hold: int
) -> Iterator[tuple[bool, Array]]:
  """Runs an episode; yields whether the criterion holds, and what is observed.

  It does so before the first step and after each.

  It ends as well when the criterion has held for `hold` steps.
  """
  observation = body.reset(key)
  yield False, observation
  held, over = 0, False
  while not over and held < hold:
    step = body.step(np.asarray(policy(observation)))
    observation = step.observation
    over = bool(step.terminated or step.truncated)
    held = held + 1 if step.success else 0
    yield bool(step.success), observation


def _encode(frames: Iterator[np.ndarray], path: pathlib.Path, hertz: float) -> None:
  """Writes an mp4. imageio's own writer forks, which JAX's threads may not survive."""
  first = next(frames)
  size = f'{first.shape[1]}x{first.shape[0]}'
  command = [*ffmpeg(), '-f', 'rawvideo', '-pix_fmt', 'rgb24', '-s', size]
  command += ['-r', f'{hertz:g}', '-i', '-', '-c:v', 'libx264', '-crf', '20']
  command += ['-pix_fmt', 'yuv420p']  # browsers show no other
  command += ['-movflags', '+faststart', '-f', 'mp4', str(path)]
  with subprocess.Popen(command, stdin=subprocess.PIPE, process_group=0) as process:
    assert process.stdin is not None
    for frame in itertools.chain([first], frames):
      process.stdin.write(frame.tobytes())
  if process.returncode:
    raise RuntimeError(f'ffmpeg ended with code {process.returncode}')


def _captioned(frame: np.ndarray, text: str, success: bool) -> np.ndarray:
  """Returns a frame [H W 3] with a text in its lower left corner."""
  picture = Image.fromarray(frame)
  font = ImageFont.load_default(size=max(10, frame.shape[0] // 22))
  draw = ImageDraw.Draw(picture, 'RGBA')
  margin = frame.shape[0] // 30
  place = (2 * margin, frame.shape[0] - 2 * margin)
  left, top, right, bottom = draw.textbbox(place, text, font, anchor='ls')
  end = right + margin + draw.textlength('reached', font)
  box = (left - margin, top - margin // 2, end + margin, bottom + margin // 2 + 2)
  draw.rounded_rectangle(box, radius=margin, fill=(26, 32, 44, 150))
  draw.text(place, text, (255, 255, 255, 255), font, anchor='ls')
  if success:
    done = (right + margin, place[1])
    draw.text(done, 'reached', (154, 230, 180, 255), font, anchor='ls')
  return np.asarray(picture)
