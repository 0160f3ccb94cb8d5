"""The run: from the first step, or the last checkpoint, to the last step or a collapse.

Killed at any moment and started again, a run goes on from its last checkpoint and, on a CPU, ends in the same bits: the
place in the data, targets' queues, optimiser, monitor and log are put back, and all that is random follows from the
seed and the step.
"""

import contextlib
import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from patchatlas.encoders.precision import choose_precision
from patchatlas.encoders.protocol import Encoder
from patchatlas.errors import UsageError
from patchatlas.files import replacing
from patchatlas.io.disk import disk_errors
from patchatlas.pretrain import checkpoint, distributed
from patchatlas.pretrain.config import PretrainConfig
from patchatlas.pretrain.data import Opened, batches, open_source, samples_of_step
from patchatlas.pretrain.distilled import open_distilled, with_stamp
from patchatlas.pretrain.distributed import Process, processes
from patchatlas.pretrain.export import write_encoder
from patchatlas.pretrain.model import make_student, make_teacher, with_mean_std
from patchatlas.pretrain.monitors.log import JsonLines, TensorBoard, require_tensorboard
from patchatlas.pretrain.monitors.metrics import ema_gap
from patchatlas.pretrain.monitors.monitor import Monitor
from patchatlas.pretrain.monitors.verdict import Alarm, Verdict
from patchatlas.pretrain.objective import Objective
from patchatlas.pretrain.optimiser import make_optimiser
from patchatlas.pretrain.run_folder import RunFolder, hold_run, open_run
from patchatlas.pretrain.schedules import Schedules
from patchatlas.pretrain.step import Learner, Taken, micro_batches_of, take_step
from patchatlas.pretrain.student import Network
from patchatlas.pretrain.watch import grown, observe, show

log = logging.getLogger(__name__)

LEVELS = ("ok", "warn", "collapse")


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        folder: of the run.
        began: steps that were done before.
        done: steps done.
        level: the last verdict: ok, warn or collapse.
        sentence: the last verdict in words.
        stopped: whether it ended before its last step, on a collapse.
        good: steps done at the last checkpoint at which no rule of collapse was alarmed, whether it spoke yet or not;
            `None` if there was none.
        encoder: the encoder of that checkpoint.
        skipped: name of each file of the data that could not be used, and why.
        first: whether this is the process that speaks.
    """

    folder: Path
    began: int
    done: int
    level: str
    sentence: str
    stopped: bool
    good: int | None
    encoder: Path | None
    skipped: tuple[tuple[str, str], ...]
    first: bool


def train(
    config: PretrainConfig,
    folder: str | Path,
    *,
    opened: Opened | None = None,
    from_good: bool = False,
    distilled: Encoder | None = None,
    on_step: Callable[[int, dict[str, float], str], None] | None = None,
) -> Outcome:
    """Do a run, or what is left of it.

    Args:
        config: all settings.
        folder: of the run; it is made, or gone on in. No other process may work in it.
        opened: what to learn from; what `config.data` names if not given.
        from_good: go back to the last good checkpoint and do the steps after it anew; settings of `config.FROM_GOOD`
            may then be others than the run's.
        distilled: the encoder that `config.loss.distil` names; it is loaded by that name if not given.
        on_step: called on the first process after each step with the steps done, the numbers and the verdict's level.

    Raises:
        UsageError: settings that do not fit the folder, the data or the machine; another process trains in the
            folder; or the run stopped on a collapse and would again.
        InputError: data that is not there.
        WeightsError: weights to begin from, or an encoder to distil, that cannot be had.
        MissingExtraError: the encoder to distil needs what is not installed.
        ResourceError: the disk is full, or the folder may not be written.
    """
    if config.train.tensorboard:
        require_tensorboard()
    config = with_mean_std(config)
    opened = open_source(config) if opened is None else opened
    with processes(config.train.device) as process, contextlib.ExitStack() as held:
        distilled = open_distilled(config, device=process.device, given=distilled)
        config = with_stamp(config, distilled)
        if process.first:
            held.enter_context(hold_run(folder))
            with disk_errors(Path(folder)):
                open_run(folder, config, fingerprint=opened.fingerprint, from_good=from_good)
        process.wait()
        return _Run(config, RunFolder(Path(folder)), opened, process, on_step, distilled).go()


class _Run:
    """A run as it goes on in one process."""

    def __init__(
        self,
        config: PretrainConfig,
        folder: RunFolder,
        opened: Opened,
        process: Process,
        on_step: Callable[[int, dict[str, float], str], None] | None,
        distilled: Encoder | None = None,
    ) -> None:
        self.config = config
        self.folder = folder
        self.opened = opened
        self.process = process
        self.on_step = on_step
        self.learner = make_learner(config, process, distilled=distilled)
        self.monitor = Monitor(config.monitor, seed=config.train.seed, warm_up=grown(config.optim))
        self.began = self.done = 0
        self.good: int | None = None
        self.verdict: Verdict | None = None
        self.level = 0

    def go(self) -> Outcome:
        """From the last checkpoint to the end."""
        config, train = self.config, self.config.train
        self._resume()
        self.began = self.done
        feed = batches(
            self.opened.source,
            config,
            self.process.ranks,
            first_step=self.done,
            pin=self.process.device.type == "cuda",
        )
        writers: list[JsonLines | TensorBoard] = []
        if self.process.first:
            writers.append(JsonLines(self.folder.log, resume_step=self.done))
            if train.tensorboard:
                writers.append(TensorBoard(self.folder.tensorboard, resume_step=self.done))
        stopped = self.done == train.steps and self._stops
        try:
            while self.done < train.steps and not stopped:
                began = time.perf_counter()
                self._refresh_gram()
                taken = take_step(
                    self.learner, micro_batches_of(feed, train.accumulate), self.done, config, self.process
                )
                numbers = self._judge(taken)
                numbers["samples_a_second"] = samples_of_step(config, self.process.ranks) / (
                    time.perf_counter() - began
                )
                with disk_errors(self.folder.path):
                    for writer in writers:
                        writer.write(self.done, numbers, self.verdict)
                self.done += 1
                stopped = self._stops
                if self.done % train.save_every == 0 or self.done == train.steps or stopped:
                    self._save()
                if self.on_step is not None and self.process.first:
                    self.on_step(self.done, numbers, LEVELS[self.level])
        finally:
            with disk_errors(self.folder.path):
                for writer in writers:
                    writer.close()
        return self._outcome(stopped)

    @property
    def _stops(self) -> bool:
        """Whether the last verdict ends the run."""
        return self.level == 2 and self.config.monitor.on_collapse == "stop"

    def _judge(self, taken: Taken) -> dict[str, float]:
        """The numbers of a step; the verdict on it is the first process's, and all know its level."""
        schedules = self.learner.schedules
        prototypes = None
        looked = (self.done + 1) % self.config.monitor.spectra_every == 0
        if looked and self.learner.network.dino_head is not None:
            prototypes = _whole(self.learner.network.dino_head.prototypes)
        if not self.process.first:
            self.level = self.process.decided(0)
            return {}
        numbers = observe(taken, self.done, self.config, schedules)
        if looked and not distributed.is_sharded(self.learner.network):
            numbers["ema_gap"] = ema_gap(self.learner.network.parameters(), self.learner.teacher.parameters())
        if taken.moved:  # else what the teacher gave may not be finite, and would be looked at again and again
            show(self.monitor, taken, self.done, self.config, schedules)
        self.verdict = self.monitor.update(self.done, numbers, prototypes=prototypes)
        self.level = self.process.decided(LEVELS.index(self.verdict.level))
        return dict(self.monitor.numbers)

    def _refresh_gram(self) -> None:
        """Put the teacher of the day in the Gram teacher's place on the steps that the settings name."""
        gram = self.config.loss.gram
        if not gram.weight or self.done < gram.from_step:
            return
        since = self.done - gram.from_step
        if self.learner.gram is None or (gram.refresh_every and since % gram.refresh_every == 0):
            self.learner.gram = self._frozen_teacher()

    def _frozen_teacher(self) -> Network:
        """The teacher as it is now, by itself."""
        teacher = self.learner.teacher
        if not distributed.is_sharded(teacher):
            return make_teacher(teacher)
        copy = make_teacher(make_student(self.config, distil=self._distil).to(self.process.device))
        distributed.shard(copy, learns=False)
        distributed.put_state(copy, distributed.whole_state(teacher))
        return copy

    @property
    def _distil(self) -> int | None:
        """Length of the tokens of what is distilled."""
        return None if self.learner.distilled is None else self.learner.distilled.spec.dim

    def _save(self) -> None:
        """Write the checkpoint of now: its teacher first, so that where there is a state there is one.

        It is a good one if no rule of collapse is alarmed, whether it speaks yet or not: what is seen only after
        hundreds of steps was there before.
        """
        teacher = distributed.whole_state(self.learner.teacher)
        state = self._state(teacher)
        if self.process.decided(int(self.level < 2 and self.monitor.suspected is None)):
            self.good = self.done
        if self.process.first:
            vit = self.learner.network.vit.config
            path = self.folder.teacher(self.done)
            with disk_errors(path):
                write_encoder(path, teacher, vit, self.config, step=self.done, spacing_mm=self.opened.spacing_mm)
            with disk_errors(self.folder.states):
                checkpoint.save(self.folder.states, self.done, state | {"good": self.good, "verdict": self._told})
            self._settle()
        self.process.wait()

    def _settle(self) -> None:
        """Bring what lies beside the states in line with the last of them, also after a kill between the two."""
        with disk_errors(self.folder.path):
            if self.good is not None:
                with replacing(self.folder.encoder) as temporary:
                    shutil.copyfile(self.folder.teacher(self.good), temporary)
            checkpoint.prune(self.folder.states, keep=self.config.train.keep, good=self.good)
            self.folder.write_facts(
                data=self.opened.fingerprint,
                steps=self.config.train.steps,
                done=self.done,
                good=self.good,
                verdict=self._told,
                went_back=self.folder.read_facts().get("went_back", []),
            )

    @property
    def _told(self) -> dict[str, Any] | None:
        """The last verdict, as files hold it."""
        return None if self.verdict is None else self.verdict.to_json()

    def _state(self, teacher: dict[str, Any]) -> dict[str, Any]:
        learner = self.learner
        remembered: list[Any] = [learner.objective.state_dict()]
        if self.process.ranks.size > 1:
            remembered = [None] * self.process.ranks.size
            dist.all_gather_object(remembered, _on_cpu(learner.objective.state_dict()))
        return {
            "data": self.opened.fingerprint,
            "student": distributed.whole_state(learner.network),
            "teacher": teacher,
            "gram": None if learner.gram is None else distributed.whole_state(learner.gram),
            "optimiser": distributed.whole_optimiser(learner.network, learner.optimiser),
            "objective": _on_cpu(remembered),
            "monitor": _on_cpu(self.monitor.state_dict()),
        }

    def _resume(self) -> None:
        """Put back the last checkpoint, if there is one; the first process says which."""
        found = checkpoint.steps(self.folder.states)
        step = self.process.decided(found[-1] if found else 0)
        if not step:
            return
        state = checkpoint.load(checkpoint.path_of(self.folder.states, step))
        learner, device = self.learner, self.process.device
        if len(state["objective"]) != self.process.ranks.size:
            raise UsageError(
                f"the run in {self.folder.path} was of {len(state['objective'])} processes, now there are "
                f"{self.process.ranks.size}; start as many"
            )
        distributed.put_state(learner.network, state["student"])
        distributed.put_state(learner.teacher, state["teacher"])
        if state["gram"] is not None:
            learner.gram = self._frozen_teacher()
            distributed.put_state(learner.gram, state["gram"])
        self._put_optimiser(state["optimiser"])
        learner.objective.load_state_dict(state["objective"][self.process.ranks.rank], device)
        self.monitor.load_state_dict(_moved(state["monitor"], device))
        self.done, self.good = step, state["good"]
        if state.get("verdict") is not None:
            self.verdict = self.monitor.still(_verdict_of(state["verdict"], step=step - 1))
            self.level = LEVELS.index(self.verdict.level)
        if self.process.first:
            self._settle()
        log.info("going on after step %d", step)

    def _put_optimiser(self, state: dict[str, Any]) -> None:
        """Put back what the optimiser remembers; its settings are those of the config, for a run that goes back may
        have others than before."""
        optimiser = self.learner.optimiser
        settings = [{name: value for name, value in one.items() if name != "params"} for one in optimiser.param_groups]
        distributed.put_optimiser(self.learner.network, optimiser, state)
        for group, own in zip(optimiser.param_groups, settings, strict=True):
            group.update(own)

    def _outcome(self, stopped: bool) -> Outcome:
        sentence = f"step {self.done}: {LEVELS[self.level]}" if self.verdict is None else self.verdict.sentence
        return Outcome(
            folder=self.folder.path,
            began=self.began,
            done=self.done,
            level=LEVELS[self.level],
            sentence=sentence,
            stopped=stopped,
            good=self.good,
            encoder=self.folder.encoder if self.folder.encoder.exists() else None,
            skipped=self.opened.skipped,
            first=self.process.first,
        )


def make_learner(config: PretrainConfig, process: Process, *, distilled: Encoder | None = None) -> Learner:
    """The networks of a run as they are before the first step, on their device.

    Args:
        config: of the run.
        process: this one.
        distilled: the encoder that the student is to be like, as `open_distilled` gives it.

    Raises:
        WeightsError: weights to begin from that cannot be had.
        UsageError: weights that do not fit the crops; an encoder to distil without that term, or the term without one.
    """
    if bool(config.loss.distil.weight) != (distilled is not None):
        raise UsageError(
            f"loss.distil.weight is {config.loss.distil.weight} and the encoder to distil "
            f"{'none' if distilled is None else distilled.spec.name}; a term needs one, and no other does"
        )
    student = make_student(config, distil=None if distilled is None else distilled.spec.dim)
    depth = student.vit.config.depth
    student.to(process.device)
    teacher = make_teacher(student)
    if config.train.compile:
        # On a CPU the teacher goes input by input, in blocks (`encoders/attention.py`): minutes to compile for nothing.
        for vit in (student.vit,) if process.device.type == "cpu" else (student.vit, teacher.vit):
            for block in vit.blocks:
                block.compile()
    wrapped = distributed.spread(student, process, config.train.strategy)
    if process.ranks.size > 1 and config.train.strategy == "fsdp":
        distributed.shard(teacher, learns=False)
    return Learner(
        network=student,
        wrapped=wrapped,
        teacher=teacher,
        gram=None,
        optimiser=make_optimiser(student, config.optim, depth=depth),
        objective=Objective(config.loss, process.ranks),
        schedules=Schedules.of(config.optim, steps=config.train.steps, samples=samples_of_step(config, process.ranks)),
        mean_std=torch.tensor(config.mean_std, device=process.device),
        bf16=choose_precision(config.train.precision, process.device) == "bf16",
        distilled=distilled,
    )


def _verdict_of(told: dict[str, Any], *, step: int) -> Verdict:
    """The inverse of `Verdict.to_json`."""
    alarms = tuple(Alarm(**alarm) for alarm in told["alarms"])
    return Verdict(step=step, level=told["level"], alarms=alarms, judged_from=told.get("judged_from", 0))


def _whole(parameter: Tensor) -> Tensor:
    """All of a parameter, of which this process may hold a part."""
    return parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter


def _on_cpu(state: Any) -> Any:
    return _moved(state, torch.device("cpu"))


def _moved(state: Any, device: torch.device) -> Any:
    """The same dicts, lists and tuples with their tensors on a device."""
    if isinstance(state, Tensor):
        return state.to(device)
    if isinstance(state, dict):
        return {key: _moved(value, device) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(_moved(value, device) for value in state)
    return state
