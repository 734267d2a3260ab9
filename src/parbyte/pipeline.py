"""The driver: run the stages of a recipe, skip what is whole, redo what a change touches.

A stage is skipped when the hash of its inputs (settings, files of the stages it needs, package
version) is the recorded one and its files are unchanged. One that was interrupted is begun again;
training then goes on from its checkpoint.
"""

import json
import resource

import parbyte
from parbyte.base.clock import Stopwatch
from parbyte.base.errors import DataError, ParbyteError
from parbyte.base.files import sha256_bytes, sha256_file
from parbyte.base.machine import process_peak_bytes
from parbyte.base.world import broadcast_floats, init_process_group, leave_process_group
from parbyte.run_folder import (
    ARTIFACT_FILE,
    BITSTREAM_FILE,
    REPORT_FILE,
    SCORECARD_FILE,
    STAGES_FILE,
    Record,
    Records,
    Run,
    damaged_outputs,
    opened,
)
from parbyte.scorecard import write_scorecard
from parbyte.stages import STAGES, Stage

LAST_STAGE = "report"
_SHARED_STAGE = "train"
_PROOF_STAGE = "prove"
_BEFORE_PROOF = ("data", "train", "pack", "score", "compress")


def run_stages(run: Run, *, until: str = LAST_STAGE) -> Records:
    """Bring a run up to and including stage `until` and return its book.

    Raises ParbyteError for whatever the user can cause; an interrupt loses at most what training
    did since its last checkpoint.
    """
    if not run.world.is_main:
        _follow(run)
        return Records(run.folder)
    with opened(run):
        records = Records(run.folder)
        for stage in STAGES:
            inputs = _inputs_sha256(stage, run, records)
            needed = _is_needed(stage, run, records, inputs)
            if stage.name == _SHARED_STAGE:
                _gather_ranks(run, needed)
            if needed:
                _do(stage, run, records, inputs)
            if stage.name == _SHARED_STAGE and run.world.size > 1:
                leave_process_group(run.world)
            if stage.name == _PROOF_STAGE:
                write_scorecard(run, records)
            if stage.name == until:
                break
    return records


def prove_again(run: Run) -> Records:
    """Prove the artifact and the bitstream that stand in a run folder, just as they are.

    Nothing is trained, packed or coded again, even if a file was changed: then the proof fails.
    Raises DataError if the run never got as far as a bitstream; ArtifactError or BitstreamError,
    with the run left as it was, if another version of parbyte is needed to read it.
    """
    from parbyte.audit.proof import refuse_other_versions

    records = Records(run.folder)
    unfinished = [name for name in _BEFORE_PROOF if not _is_finished(records, name)]
    absent = [name for name in (ARTIFACT_FILE, BITSTREAM_FILE) if not run.path(name).is_file()]
    if unfinished or absent:
        raise DataError(
            f"'{run.folder}' holds nothing to prove ({(unfinished + absent)[0]} is missing): "
            f"finish it with `parbyte run {run.folder}`"
        )
    refuse_other_versions(run.path(ARTIFACT_FILE), run.path(BITSTREAM_FILE))
    with opened(run):
        _do_again(_PROOF_STAGE, run, records)
        write_scorecard(run, records)
        try:
            _do_again(LAST_STAGE, run, records)
        except ParbyteError as error:
            # The verdict stands: what keeps the page from being drawn is a lesser matter.
            run.console.say(f"{LAST_STAGE}: left out: {error}")
    return records


def report_again(run: Run) -> None:
    """Write the report of a finished run anew: a verdict has come to stand beside it."""
    records = Records(run.folder)
    if not _is_finished(records, LAST_STAGE):
        return
    with opened(run):
        _do_again(LAST_STAGE, run, records)


def _do_again(name: str, run: Run, records: Records) -> None:
    stage = next(stage for stage in STAGES if stage.name == name)
    _do(stage, run, records, _inputs_sha256(stage, run, records))


def _is_finished(records: Records, stage: str) -> bool:
    record = records.get(stage)
    return record is not None and record.finished


def _is_needed(stage: Stage, run: Run, records: Records, inputs: str) -> bool:
    record = records.get(stage.name)
    if record is None or not record.finished:
        return True
    if record.inputs != inputs:
        run.console.say(f"{stage.name}: its inputs changed, done again")
        return True
    damaged = damaged_outputs(run.folder, record)
    if damaged:
        run.console.say(f"{stage.name}: '{damaged[0]}' is missing or damaged, done again")
        return True
    run.console.say(f"{stage.name}: finished before, skipped")
    return False


def _inputs_sha256(stage: Stage, run: Run, records: Records) -> str:
    left = {name: sha256 for record in records.all() for name, sha256 in record.outputs.items()}
    for name in stage.needs:
        if name not in left:
            raise DataError(
                f"'{run.path(STAGES_FILE)}' knows of no '{name}': another version of parbyte made "
                f"this run; delete that file and do `parbyte run {run.folder}`"
            )
    needed = {name: left[name] for name in stage.needs}
    inputs = [parbyte.__version__, stage.name, stage.depends_on(run, records), needed]
    return sha256_bytes(json.dumps(inputs, sort_keys=True).encode())


def _do(stage: Stage, run: Run, records: Records, inputs: str) -> None:
    # What the last lines of an older run say would no longer be true.
    stale = (REPORT_FILE,) if stage.name == LAST_STAGE else (REPORT_FILE, SCORECARD_FILE)
    for name in stale:
        run.path(name).unlink(missing_ok=True)
    run.console.say(f"{stage.name}: begins")
    watch = Stopwatch()
    result = stage.work(run, records)
    seconds = watch.elapsed_s()
    records.put(
        stage.name,
        Record(
            inputs=inputs,
            outputs={name: sha256_file(run.path(name)) for name in result.outputs},
            figures=result.figures,
            seconds=seconds,
            peak_memory_bytes=_peak_memory_bytes(),
            finished=result.finished,
        ),
    )


def _gather_ranks(run: Run, needed: bool) -> bool:
    """Join the ranks of a torchrun launch and tell them whether there is anything to train."""
    if run.world.size == 1:
        return needed
    from parbyte.train.device import pick_device

    device = pick_device(run.recipe.train.device, run.world)
    init_process_group(run.world, device.type)
    return broadcast_floats(run.world, [float(needed)], device.type)[0] > 0


def _follow(run: Run) -> None:
    """Be a rank above 0: take part in training, leave everything else to rank 0."""
    if _gather_ranks(run, False):
        train = next(stage for stage in STAGES if stage.name == _SHARED_STAGE)
        train.work(run, Records(run.folder))
    leave_process_group(run.world)


def _peak_memory_bytes() -> int:
    """Return the largest memory that this process or one of its children has held so far."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return max(process_peak_bytes(), children)
