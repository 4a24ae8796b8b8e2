"""Tables and plots, made from the rows in `docs/results` and from nothing else.

  python -m armfarm.experiments.results

It writes `docs/results/README.md`, a plot for every experiment with learning curves,
and the part of the project's README between its marks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import pathlib
import statistics
from typing import Any, NamedTuple

from absl import flags
from matplotlib import figure
from matplotlib.axes import Axes
import numpy as np

from armfarm.experiments import rows
from armfarm.experiments.rows import Row
from armfarm.launchers import app
from armfarm.launchers import pictures

_FOLDER = flags.DEFINE_string('results', 'docs/results', 'Folder of the rows.')
_README = flags.DEFINE_string('readme', 'README.md', 'Page with a part for results.')

_START, _END = '<!-- results -->', '<!-- /results -->'
_MADE = '<!-- Made by `make results` from the JSON files here: do not edit. -->'
_NONE = 'No experiment was run yet: `make experiments` does.'
# Axes of the learning curves: what is across, what is up.
_AXES = {
  rows.CURVE: ('training episodes', 'success on held-out episodes, %'),
  'return_after_': ('training episodes', 'return on held-out episodes'),
  'success_at_update_': ('updates', 'success on held-out episodes, %'),
  'return_at_update_': ('updates', 'return on held-out episodes'),
  'success_at_second_': ('seconds', 'success on held-out episodes, %'),
  'return_at_second_': ('seconds', 'return on held-out episodes'),
  'z_at_step_': ('step of an episode', 'command along z, mean'),
  'z_deviation_at_step_': ('step of an episode', 'command along z, standard deviation'),
} | {
  f'within_{far}_cm_at_iteration_': ('iterations', f'within {far} cm of the bottom, %')
  for far in (10, 5, 2)
}
_BY_STEP = ('z_at_step_', 'z_deviation_at_step_')  # of an episode: nothing is held
_COLORS = (
  pictures.BLUE,
  pictures.ORANGE,
  pictures.GREEN,
  pictures.GREY,
  pictures.PURPLE,
)
_AGENTS = {
  'naf': 'NAF',
  'ddpg': 'DDPG',
  'linear-naf': 'Linear-NAF',
  'sac': 'SAC',
  'gps': 'GPS',
  'agps': 'AGPS',
  'adgps-4': 'ADGPS-4',
  'adgps-8': 'ADGPS-8',
  'lqr': 'LQR',
  'pi2': 'PI²',
  'badmm': 'BADMM',
  'mdgps': 'MDGPS',
  'mdgps-on': 'MDGPS on policy',
  'badmm-pi2': 'first BADMM by PI²',
  'mdgps-pi2': 'then MDGPS by PI²',
  'qtopt': 'QT-Opt',
  'supervised': 'Supervised',
}
_LEARNERS = ('naf', 'ddpg', 'linear-naf')  # of Gu et al. 2016
_TO_100 = (
  'max_success',
  'success',
  'episodes_to_100',
  'episodes_to_100_paper',
  'wall_s_to_100',
)


class Story(NamedTuple):
  """How an experiment is shown.

  Attributes:
    title: of its section.
    text: what was done, one sentence or two.
    headlines: metrics that the project's README shows.
    command: what runs all of it, where it is no module of `experiments`.
    planned: seeds of each agent and variant; what is missing of them is marked.
  """

  title: str
  text: str
  headlines: tuple[str, ...]
  command: str = ''
  planned: tuple[tuple[str, str, int], ...] = ()


def _figure_4(task: str) -> Story:
  return Story(
    f'Figure 4: {task}',
    'Gu et al. 2016, V-B: batch normalisation, one update a step, in lock step. A run'
    " ends when both criteria hold, or at the paper's mean and one deviation of"
    " episodes (at DDPG's where the paper has none).",
    _TO_100,
    'python -m armfarm.experiments.figure4',
    tuple((agent, 'sync', 3) for agent in _LEARNERS),
  )


def _figure_5(task: str) -> Story:
  return Story(
    f'Figure 5: {task}',
    'Gu et al. 2016, V-C: layer normalisation; every worker takes one step in five'
    ' updates, in lock step (`sync`) or with the limiter of replay (`async`). Of the'
    ' three claims of the paper two hold here: with more workers fewer updates are'
    ' needed, and the policy at the end is better, by its return where all succeed. The'
    ' third, that at some number more do not help, does not show up to eight.',
    ('success', 'episodes_to_100', 'updates_to_100'),
    'python -m armfarm.experiments.figure5',
    tuple(
      ('naf', f'{runtime}-{workers}', seeds)
      for runtime, seeds in (('sync', 3), ('async', 1))
      for workers in (1, 2, 4, 8)
    ),
  )


def _study(title: str, text: str, agents: dict[str, str]) -> Story:
  return Story(
    title,
    f'Kalashnikov et al. 2018, {text}',
    ('success', 'success_at_half'),
    'python -m armfarm.experiments.grasp_studies',
    tuple((agent, variant, 3) for variant, agent in agents.items()),
  )


def _offline(title: str, text: str, *variants: str) -> Story:
  return Story(
    title,
    f'Kalashnikov et al. 2018, {text}',
    ('success', 'logged', 'updates'),
    'python -m armfarm.experiments.grasp_offline',
    tuple(('qtopt', variant, 3) for variant in variants),
  )


STORIES = {
  'grasp_state': Story(
    'Grasping by poses',
    'Kalashnikov et al. 2018 without a camera: 20,000 steps of the scripted policy,'
    ' then the noisy one, in lock step, two updates a step; success in 100 bins of'
    ' objects that nobody learned with.',
    ('success', 'env_steps_to_95', 'env_steps', 'updates'),
    planned=(('qtopt', 'sync', 3), ('supervised', 'sync', 3)),
  ),
  'grasp_protocols': Story(
    'Grasping what nobody learned with',
    'Kalashnikov et al. 2018, 6.1 and A, on unseen objects: attempts with replacement;'
    ' 28 objects and 30 attempts, five times; a first grasp that is disturbed; blocks'
    ' side by side.',
    ('replacement_success', 'first_10', 'first_20', 'first_30', 'emptied'),
  ),
  'grasp_polyak': _study(
    'Figure 7a: how slowly targets follow',
    'C, of grasping by poses in 5,000 episodes, with double Q-learning.',
    dict.fromkeys(('polyak-0.9', 'polyak-0.99', 'polyak-0.998'), 'qtopt'),
  ),
  'grasp_targets': _study(
    'Figures 7b and 9: double Q-learning, and clipped',
    'C, of grasping by poses in 5,000 episodes.',
    dict.fromkeys(('clipped', 'double', 'single'), 'qtopt'),
  ),
  'grasp_loss': _study(
    'Figure 8: cross-entropy against squares',
    'C, of grasping by poses in 5,000 episodes.',
    dict.fromkeys(('cross-entropy', 'squared'), 'qtopt'),
  ),
  'grasp_mdp': _study(
    'Table 7: discount, cost of a step, and who ends an episode',
    'C, of grasping by poses in 5,000 episodes; `ours` discounts by 0.98, the others by'
    ' 0.9 or 0.7. Its row without the status of the gripper is one for images.',
    dict.fromkeys(
      ('ours', 'learned-end', 'scripted-end', 'no-cost', 'no-cost-0.7'), 'qtopt'
    ),
  ),
  'grasp_farm': _study(
    'Collectors and Bellman updaters beside the trainer',
    '4.3, of grasping by poses in 5,000 episodes: in lock step, and two collectors, two'
    ' Bellman updaters and the trainer as processes around Reverb.',
    dict.fromkeys(('lock-step', 'farm'), 'qtopt'),
  ),
  'grasp_robots': _study(
    'Table 8: how many robots it takes',
    'C, of grasping by poses: as many updates for all, and experience like that of so'
    ' many robots, with 5,000 episodes for 60.',
    {
      **dict.fromkeys(('30-robots', '60-robots'), 'qtopt'),
      **{f'supervised-{n}': 'supervised' for n in (60, 280, 1000)},
    },
  ),
  'grasp_logs': Story(
    'Figure 11: logs that a script makes, and a policy',
    'Kalashnikov et al. 2018, C.1, of grasping by poses: what the scripted policy did,'
    ' what the evaluation policy of a run did that had learned little, and all that two'
    ' whole runs did.',
    ('success', 'episodes', 'env_steps'),
    planned=tuple(
      ('qtopt', name, 1)
      for name in ('scripted', 'explore', 'farm', 'farm-scripted-end')
    ),
  ),
  'grasp_offline_end': _offline(
    'Table 4: who ends an episode, on a log',
    'table 4, of grasping by poses from what a whole run did; `joint` learns from its'
    ' own experience, too, for as long again.',
    'automatic',
    'learned',
    'automatic-joint',
    'learned-joint',
  ),
  'grasp_offline_targets': _offline(
    'Table 5: clipped double Q-learning on a log',
    'table 5, of grasping by poses from what a whole run did; episodes end by rule.',
    'double',
    'clipped',
  ),
  'grasp_offline_size': _offline(
    'Table 6: how large a log has to be',
    'table 6, of grasping by poses from what a run did, and the first 55 % of it.',
    'all',
    '55-percent',
  ),
  'grasp_offline_mix': _offline(
    'Table 9: what a log has to be like',
    'table 9, of grasping by poses: 100,000 transitions of the script, of a policy that'
    ' grasps as seldom, 50,000 of each, and 67,000 and 87,000.',
    'scripted',
    'explore',
    'both',
    'more-of-both',
  ),
  'figure4_reach': _figure_4('reaching'),
  'figure4_door_pull': _figure_4('pulling a door open'),
  'figure4_door_push': _figure_4('pushing a door open'),
  'figure4_pick_place': _figure_4('pick and place'),
  'figure5_reach': _figure_5('reaching'),
  'figure5_door_push': _figure_5('pushing a door open'),
  'gps_faults': Story(
    'A farm of four, one robot lost and one too slow',
    'ADGPS-4 on reaching under torque control. When a third of the rollouts are in, one'
    ' pair of workers is killed, and another runs for a tenth of the time from there.',
    ('success', 'rate_kept', 'rate_kept_by_killed', 'rate_kept_by_slowed'),
    planned=(('adgps-4', 'async', 3),),
  ),
  'gps_peg': Story(
    'A peg and a hole, by every algorithm',
    'Four places of the hole, five rollouts of each in an iteration (PI²: 30), 30'
    ' iterations in lock step. The tip is within 10 cm of the bottom where the peg is'
    ' in. LQR and PI² are judged by the rollouts of their local controllers, with'
    ' their noise; the others, whose local controllers are LQR, by the global policy.'
    ' A run diverges where an iteration costs ten times the first.',
    ('within_5_cm_at_10', 'within_10_cm_at_12', 'within_5_cm', 'within_2_cm'),
    planned=tuple(
      (agent, 'sync', 5) for agent in ('lqr', 'pi2', 'badmm', 'mdgps', 'mdgps-on')
    ),
  ),
  'gps_reach': Story(
    'Figures 4 and 5 of Yahya et al. 2016: reaching under torque control',
    'Section V-A: BADMM and LQR, eight instances to train on and four to test; every'
    ' robot at real time. The threshold is 90 % of the drop of cost, the negative'
    ' return, of the median run of GPS. Who waits loses little here, 5 % of the'
    " robot's time, and AGPS is slower than GPS: it takes more rollouts. Why is open:"
    ' in one run each, its curve was the same up to 80 rollouts with seven times as'
    ' many updates, and GPS with one inner iteration, not four, was no slower.',
    (
      'wall_s_to_threshold',
      'episodes_to_threshold',
      'utilization',
      'distance',
      'late',
      'late_by_a_period',
      'cpu',
    ),
    'python -m armfarm.experiments.gps_reach',
    (
      ('gps', 'sync', 3),
      ('agps', 'async', 3),
      ('adgps-4', 'async', 3),
      ('adgps-8', 'async', 3),
    ),
  ),
  'gps_schedule': Story(
    'The peg by the schedule of Yahya et al. 2016, V-B',
    'Four robots, each with its place of the hole and a demonstration: four iterations'
    ' of BADMM by PI², then sixteen of MDGPS by PI², on policy, with the block'
    ' displaced by up to 5 cm at the start of each; all of it asynchronous. The policy'
    ' after each part is tried in 100 episodes with the block where it was shown, and'
    ' in 100 with the block displaced. The three seeds ran beside each other on two'
    ' cores: some 6 % of the steps came more than a period late.',
    ('success_in_place', 'success_displaced'),
    planned=tuple((agent, 'async', 3) for agent in ('badmm-pi2', 'mdgps-pi2')),
  ),
  'reach': Story(
    'Reaching',
    'Figure 4 of Gu et al. 2016: in lock step, one update a step. 100 % means'
    ' 20 of 20 held-out targets in two evaluations in a row, every 20 episodes;'
    " the paper's criterion is 5 of 5 random targets.",
    _TO_100,
  ),
  'reach_async': Story(
    'Reaching with a farm',
    'Section V-C of Gu et al. 2016: four collectors and the trainer as fast as they'
    ' go, the ratio of updates to steps held by replay.',
    ('success', 'episodes_to_100', 'updates_per_step', 'wall_s_to_100'),
  ),
  'reach_fused': Story(
    'Reaching in one program',
    'Sixteen instances on MJX, replay and updates in one scan (`fused`), on one'
    ' device and mapped over four virtual ones that share every minibatch; policies are'
    ' tried on native MuJoCo.',
    ('success', 'episodes_to_100', 'wall_s_to_100', 'traces'),
  ),
  'bodies': Story(
    'The bodies against MuJoCo alone',
    'Reaching, observation and reward included: 1,024 instances on MJX against'
    ' `mjx.step`, 64 on native MuJoCo against `mujoco.batch`, one thread, and the same'
    ' of a door (`native_door`); 64 instances on MJX in updates of NAF; blocks through'
    ' each replay. Medians of rounds in turn.',
    ('ratio', 'step_rate', 'step_in_updates', 'block_rate'),
    'python benchmarks/bodies.py',
  ),
  'pendulum': Story(
    'Pendulum of Gymnasium',
    'Our agents on `gym/Pendulum-v1`, in lock step, one update a step, 100 episodes;'
    ' the return is the mean of 20 held-out episodes, a success one of -200 or more.',
    ('return', 'success', 'env_steps'),
  ),
  'pusher': Story(
    "Pusher's return beside SBX's",
    'DDPG on `gym/Pusher-v5` for 50,000 steps, ours and SBX of the same sizes, rates'
    ' and noise; mean return of 20 episodes without noise.',
    ('return',),
  ),
  'sbx_reach': Story(
    "An agent of SBX's learns our task",
    'SAC of SBX, two layers of 100, on `armfarm/Reach-v0`, our task as an environment'
    ' of Gymnasium; success in 20 episodes without noise that it did not learn from.',
    ('success', 'env_steps'),
    'make sbx',
  ),
  'loop': Story(
    "The whole loop against SBX's",
    'DDPG on `gym/Pusher-v5`, one update a step, two layers of 100, minibatches of 64:'
    ' steps and updates in turn, in blocks of one or ten, over the same with SBX'
    ' (strictly in turn); medians of rounds in turn. Our collectors act with the'
    " variables of their episode's beginning.",
    ('ratio', 'loop_rate', 'sbx_rate'),
    'python benchmarks/loop.py',
  ),
  'trainer': Story(
    'The trainer against the bare update',
    'Updates a second of the trainer with sampling, publishing and metrics, fed through'
    ' replay, over the smaller of the same update bare in a scan and the sampler alone;'
    ' medians of rounds in turn.',
    ('ratio', 'trainer_rate', 'update_rate', 'sampler_rate'),
    'make bench',
  ),
  'grasp': Story(
    'Grasping, simulated',
    'Episodes of the scripted policy of QT-Opt, which looks at nothing, on the objects'
    ' to learn with and to test with: how many succeed, and control steps of 0.2 s a'
    ' second of one core, with and without what it takes to begin episodes. Pictures of'
    ' 64 x 64 pixels (`camera`). `load` is how many processes shared the two cores.',
    ('success', 'standard_error', 'step_rate', 'step_rate_with_resets', 'frame_rate'),
    'python benchmarks/grasp.py',
  ),
  'gps': Story(
    'An iteration of guided policy search against NumPy',
    'The size of the peg: 100 steps, 26 states, 7 actions, 5 rollouts, a mixture of 20'
    ' Gaussians; PI² with 30 rollouts. The same equations in NumPy, in double precision'
    ' on one core, with as many steps of expectation maximisation and passes of the'
    ' search; processor time, medians of rounds in turn. `load` is how many processes'
    ' shared the two cores.',
    ('iteration_ratio', 'search_ratio', 'pi2_ratio', 'iteration', 'search', 'pi2'),
    'python benchmarks/gps.py',
  ),
  'qtopt': Story(
    'What QT-Opt computes',
    'Random data on a CPU: 64 x 64 pixels, minibatches of 32, labels and updates apart,'
    ' in one program, and ten of these in a loop; an action by CEM with that network,'
    ' and searches with an MLP of two layers of 100, of one state and of 32, with the'
    ' share of two bare passes in the latter. `load` is how many processes shared the'
    ' two cores. Medians of rounds in turn.',
    (
      'labelled_steps',
      'labelled_steps_in_loop',
      'label',
      'update',
      'act',
      'search_1',
      'bare_of_search_32',
    ),
    'python benchmarks/qtopt.py',
  ),
}
# What a metric is called; those not listed follow under their own names.
_LABELS = {
  'max_success': 'success at the best evaluation',
  'success': 'success at the end',
  'episodes_to_100': 'episodes to 100 %',
  'episodes_to_100_paper': "episodes to 100 %, the paper's criterion",
  'updates_to_100': 'updates to 100 %',
  'success_at_half': 'success half-way',
  'env_steps_to_95': 'transitions to 95 %',
  'wall_s_to_100': 'training to 100 %, evaluation apart',
  'return': 'return at the end',
  'replacement_success': 'grasps that succeed, with replacement',
  'first_10': 'of the first 10 in a full bin',
  'first_20': 'of the first 20',
  'first_30': 'of all 30',
  'emptied': 'bins that were emptied',
  'disturbed_success': 'of grasps that were disturbed',
  'disturbed': 'grasps where that came about',
  'singulation_success': 'of grasps at a puzzle',
  'episodes': 'episodes',
  'env_steps': 'steps',
  'updates': 'updates',
  'updates_per_s': 'updates a second',
  'logged': 'transitions in the log',
  'updates_per_step': 'updates a step, measured',
  'updates_per_step_set': 'updates a step, set',
  'traces': 'times the program was traced',
  'wall_s_to_threshold': 'wall clock to the threshold',
  'episodes_to_threshold': 'rollouts to the threshold',
  'threshold': 'the threshold, cost',
  'rate_kept': 'rollouts a second, of those before, by each of the others at least',
  'rate_kept_by_killed': 'the same by the pair that was killed and replaced',
  'rate_kept_by_slowed': 'the same by the pair that was slowed',
  'distance': 'distance from the goal at the end',
  'utilization': "share of the robots' time in rollouts",
  'late': 'control steps that came late, worst robot',
  'late_by_a_period': 'control steps late by more than a period, worst robot',
  'cpu': 'share of the processors that it took',
  'staleness': 'mean staleness of gradients',
  'rollbacks': 'rollbacks',
  'success_in_place': 'the block where it was shown',
  'success_displaced': 'the block displaced',
  'within_5_cm_at_10': 'within 5 cm after 10 iterations',
  'within_10_cm_at_12': 'within 10 cm after 12 iterations',
  'within_5_cm': 'within 5 cm at the end',
  'within_2_cm': 'within 2 cm at the end',
  'exceptions': 'runs that ended in an exception, and were resumed',
  'not_finite': 'rollouts that were not finite',
  'diverged': 'iterations that had diverged',
  'anchors_kept': 'improvements that kept their anchor',
  'iteration_ratio': 'an iteration, how many times as fast',
  'search_ratio': 'the dual search, likewise',
  'pi2_ratio': 'PI², likewise',
  'ratio': 'ratio',
  'step_rate': 'control steps a second',
  'step_in_updates': 'a control step of 64, in updates',
  'block_rate': 'blocks a second',
  'loop_rate': 'our loop',
  'sbx_rate': "SBX's loop",
  'trainer_rate': 'trainer',
  'update_rate': 'bare update',
  'sampler_rate': 'sampler',
}
_IMPLIED = (
  '',
  'episodes',
  'steps',
  'updates',
  'updates/s',
  'steps/s',
  'updates/step',
  'blocks/s',
)


def folder() -> pathlib.Path:
  """Returns the folder of the rows."""
  return pathlib.Path(_FOLDER.value)


def seeds(name: str, agent: str, variant: str = 'sync') -> int:
  """Returns how many seeds are planned of an experiment's agent and variant."""
  planned = {(who, how): count for who, how, count in STORIES[name].planned}
  return planned[agent, variant]


def films(place: pathlib.Path, name: str = '*') -> list[pathlib.Path]:
  """Returns the films in a folder, all or of one experiment; see `films.py`."""
  return sorted(place.glob(f'{name}.*.webp'))


def write() -> None:
  """Writes all pages and plots anew.

  Raises:
    UserError: a file of rows is not valid, or the README is not there or has no marks.
  """
  readme = pathlib.Path(_README.value)
  try:
    found = rows.read_all(folder())
    text = filled(readme.read_text(), block(found))
    rows.write_text(folder() / 'README.md', page(found, films(folder())))
    for name, content in found.items():
      draw(content, folder() / f'{name}.png')
    rows.write_text(readme, text)
  except (OSError, ValueError) as error:
    raise app.UserError(str(error)) from error


def page(found: dict[str, list[Row]], moving: Sequence[pathlib.Path] = ()) -> str:
  """Returns the page of all results, with all that is needed to repeat them.

  Args:
    found: the rows, by experiment.
    moving: films beside the page, shown with their experiments.
  """
  parts = ['# Results', _MADE]
  for name, content in found.items():
    metrics = sorted({row.metric for row in _numbers(content)}, key=_rank)
    parts += [f'## {_story(name).title}', _story(name).text]
    parts += [table(content, metrics), *_open(name, content)]
    parts += [f'![Learning curves]({name}.png)'] if _has_curve(content) else []
    parts += [_film(path) for path in moving if path.name.startswith(f'{name}.')]
    parts += [_sources(content)]
  return '\n\n'.join(parts if found else [*parts, _NONE]) + '\n'


def block(found: dict[str, list[Row]]) -> str:
  """Returns the part of the project's README that shows the headlines."""
  parts = []
  for name, content in found.items():
    story = _story(name)
    shown = {row.metric for row in _numbers(content)}
    metrics = [metric for metric in story.headlines or shown if metric in shown]
    command = story.command or f'python -m armfarm.experiments.{name}'
    parts += [f'### {story.title}', f'{story.text} `{command}`']
    parts += [table(content, sorted(metrics, key=_rank)), *_open(name, content)]
    image = f'![Learning curves](docs/results/{name}.png)'
    parts += [image] if _has_curve(content) else []
  more = 'Every number, command and machine: [docs/results](docs/results/README.md).'
  return '\n\n'.join([*parts, more] if parts else [_NONE])


def filled(text: str, content: str) -> str:
  """Returns a text with new content between the marks.

  Raises:
    ValueError: the text has not one pair of marks.
  """
  before, start, rest = text.partition(_START)
  _, end, after = rest.partition(_END)
  if not (start and end) or _START in rest or _END in after:
    raise ValueError(f'the README needs one {_START} with {_END} behind it')
  return f'{before}{_START}\n\n{content}\n\n{_END}{after}'


def table(content: Sequence[Row], metrics: Iterable[str]) -> str:
  """Returns metrics by systems: the median over seeds, and the range."""
  systems = _systems(content)
  seeds = [str(len({row.seed for row in part})) for part in systems.values()]
  lines = [_line(['', *systems]), _line(['---'] * (len(systems) + 1))]
  lines += [_line(['seeds', *seeds])]
  for metric in metrics:
    parts = [[r for r in part if r.metric == metric] for part in systems.values()]
    lines += [_line([_LABELS.get(metric, metric), *map(_cell, parts)])]
    papers = [_paper_cell(part) for part in parts]
    lines += [_line(['— in the paper', *papers])] if any(papers) else []
  note = 'The median over seeds, with the range where they differ.'
  return '\n'.join([*lines, '', note])


def _film(path: pathlib.Path) -> str:
  agent, _, seed = path.stem.partition('.')[2].rpartition('-')
  return f'![A policy of {agent}, seed {seed}]({path.name})'


def draw(content: Sequence[Row], path: pathlib.Path) -> None:
  """Draws the learning curves among some rows, if there are any, a panel for each kind.

  A run ends when it has learned its task; its last value is held from there on.
  """
  curves = [row for row in content if row.point]
  kinds = {row.point[0] for row in curves if row.point}
  if not curves:
    return
  picture = figure.Figure(figsize=(max(8, 5 * len(kinds)), 4.2), layout='constrained')
  panels = picture.subplots(1, len(kinds), squeeze=False)[0]
  for axes, kind in zip(panels, sorted(kinds, key=rows.CURVES.index), strict=True):
    _draw_panel(axes, kind, [row for row in curves if row.metric.startswith(kind)])
  pictures.save(picture, path)


def main(argv: list[str]) -> None:
  """Writes everything."""
  app.no_arguments(argv)
  write()


def _draw_panel(axes: Axes, kind: str, curves: Sequence[Row]) -> None:
  last = max(map(_place, curves))
  for number, (system, part) in enumerate(_systems(curves).items()):
    end = max(map(_place, part)) if kind in _BY_STEP else last
    _draw_system(axes, system, part, end, _COLORS[number % len(_COLORS)])
  across, up = _AXES[kind]
  axes.set(xlabel=across, ylabel=up, xlim=(0, last))
  if curves[0].unit == '%':
    axes.set(ylim=(-4, 106))
  place: dict[str, Any] = {'loc': 'lower right'}
  if kind in _BY_STEP:  # curves are everywhere
    place = {'loc': 'lower center', 'bbox_to_anchor': (0.5, 1.0), 'ncols': 2}
  axes.legend(**place, frameon=False, fontsize=10)
  pictures.style(axes)


def _draw_system(
  axes: Axes, system: str, part: Sequence[Row], last: int, color: str
) -> None:
  seeds = sorted({row.seed for row in part})
  curves = [_curve([row for row in part if row.seed == seed]) for seed in seeds]
  starts = [episodes[0] for episodes, _ in curves]
  grid = np.unique(np.concatenate([[last], *(episodes for episodes, _ in curves)]))
  grid = grid[grid >= max(starts)]
  held = [np.interp(grid, episodes, success) for episodes, success in curves]
  low, middle, high = np.min(held, 0), np.median(held, 0), np.max(held, 0)
  label = f'{system}: 1 seed'
  if len(seeds) > 1:
    label = f'{system}: median and range of {len(seeds)} seeds'
  axes.plot(grid, middle, color=color, linewidth=1.8, label=label)
  axes.fill_between(grid, low, high, color=color, alpha=0.15, linewidth=0)


def _curve(part: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
  ordered = sorted(part, key=_place)
  return (
    np.array([_place(row) for row in ordered]),
    np.array([row.value for row in ordered]),
  )


def _place(row: Row) -> int:
  """Where a point of a learning curve is."""
  assert row.point is not None
  return row.point[1]


def _open(name: str, content: Sequence[Row]) -> list[str]:
  """Says which of the planned runs are not there yet, if any."""
  there = {(row.agent, row.variant, row.seed) for row in content}
  missing = []
  for agent, variant, seeds in _story(name).planned:
    count = sum((agent, variant, seed) not in there for seed in range(seeds))
    called = _AGENTS.get(agent, agent) + f', {variant.replace("-", " ")}'
    missing += [f'{called}: {count} of {seeds} seeds'] if count else []
  return [f'**Still open:** {"; ".join(missing)}.'] if missing else []


def _story(name: str) -> Story:
  return STORIES.get(name, Story(name.replace('_', ' '), '', ()))


def _rank(metric: str) -> tuple[int, str]:
  known = list(_LABELS)
  return (known.index(metric) if metric in known else len(known), metric)


def _numbers(content: Iterable[Row]) -> list[Row]:
  return [row for row in content if not row.curve]


def _has_curve(content: Sequence[Row]) -> bool:
  return len(_numbers(content)) < len(content)


def _systems(content: Iterable[Row]) -> dict[str, list[Row]]:
  """Returns the rows by what to call who made them, in the order of `_AGENTS`."""
  content = list(content)
  agents = {row.agent for row in content}
  variants = {row.variant for row in content}
  order = [*_AGENTS, *sorted(agents - _AGENTS.keys())]
  found: dict[str, list[Row]] = {}
  for row in sorted(content, key=lambda row: order.index(row.agent)):
    parts = [_AGENTS.get(row.agent, row.agent)] if len(agents) > 1 else []
    parts += [row.variant.replace('-', ' ')] if len(variants) > 1 else []
    name = ', '.join(parts) or _AGENTS.get(row.agent, row.agent)
    found.setdefault(name, []).append(row)
  return found


def _cell(part: Sequence[Row]) -> str:
  """Returns the median of some values, and their range if they differ."""
  if not part:
    return ''
  values = [np.inf if row.value is None else row.value for row in part]
  low, high = _text(min(values)), _text(max(values))
  middle = statistics.median(values)
  unit = '' if np.isinf(middle) else _unit(part[0])
  span = '' if low == high else f' ({low} – {high})'
  return f'{_text(middle)}{unit}{span}'


def _paper_cell(part: Sequence[Row]) -> str:
  values = {row.paper_value for row in part if row.paper_value is not None}
  return ', '.join(f'{_text(value)}{_unit(part[0])}' for value in sorted(values))


def _unit(row: Row) -> str:
  return '' if row.unit in _IMPLIED else f' {row.unit}'


def _text(value: float) -> str:
  if np.isinf(value):
    return 'not reached'
  return f'{value:.0f}' if abs(value) >= 100 or value == int(value) else f'{value:.3g}'


def _line(cells: Iterable[str]) -> str:
  return f'| {" | ".join(cells)} |'


def _sources(content: Sequence[Row]) -> str:
  """Returns the commands of one seed, and all commits and machines."""
  first = min(row.seed for row in content)
  commands = sorted({row.command for row in content if row.seed == first})
  commits = ', '.join(sorted({row.commit for row in content}))
  machines = '; '.join(sorted({row.machine for row in content}))
  lines = ['```', *commands, '```', '', f'Commit {commits}. Machine: {machines}.']
  return '\n'.join([f'Commands of seed {first}, the others likewise:', '', *lines])


if __name__ == '__main__':
  app.run(main)
