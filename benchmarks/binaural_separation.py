"""Localisation and separation with two ears: VESSL, MESSL, and what the truth allows, on the same scenes.

    python benchmarks/binaural_separation.py CORPUS --heads LABEL=PATH ... --out DIR [--scenes 30] [--split test]
        [--sources 1 2 3] [--systems NAME ...] [--calibration-head LABEL=PATH ...] [--all-directions] [--report]

CORPUS is a folder of speech, with splits.csv (speaker, split). PATH is what `vbss.scenes.HeadResponses.read` reads: a
head measured in a laboratory or in a room. Azimuths are from -80 to 80 degrees and elevations from -40 to 60; scenes
are drawn from the directions of the split and heads learnt from those for calibration, so that no direction of a scene
was ever calibrated. Where all directions are level with the ears, as of a ring of loudspeakers in a room, only azimuths
are sought.

With `--calibration-head`, systems that need a calibration have a row more: as learnt from the calibration directions of
that other set (those level with the ears, if the scenes are), such as the same head without a room. With
`--all-directions`, scenes come from all directions of their set, for one with too few to divide: then such other heads
alone calibrate. The BBC's listening room has seven loudspeakers at the ears' level in front: take its own head, a
KU 100, as measured in a laboratory.

Everything is done by one process, on one core and in one thread. What is finished lies in DIR and is not computed again
unless the scene, the system's settings, its calibration's directions, vbss's text or the versions it depends on have
changed; an interrupted run goes on where it was. Times are of compiled programs: each system is called once more for
each shape. At the end, DIR/report.md and DIR/report.png are written, and the report is printed; `--report` does only
that.
"""

import argparse
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from binaural_heads import Calibrations, named_path, read_heads
from binaural_quality import binaural_quality, scene_fingerprint
from binaural_report import write_report
from binaural_systems import SYSTEMS, Found, Row, rows, separate
from records import Records

from vbss.binaural import Calibration
from vbss.scenes import BinauralCondition, BinauralScene, HeadResponses, SpeechCorpus, random_binaural_scene

_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_PLATFORMS": "cpu",
}


@dataclass(frozen=True)
class Experiment:
    """The scenes of a table and the rows that are to be in it.

    Attributes:
        name: of the table and of its records.
        heads: directions that scenes are drawn from.
        condition: what is common to the scenes.
        rows: systems, calibrated.
    """

    name: str
    heads: HeadResponses
    condition: BinauralCondition
    rows: list[Row]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--heads", nargs="+", type=named_path, required=True, metavar="LABEL=PATH")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=30, help="for each head set and number of sources")
    parser.add_argument("--split", default="test", choices=["test", "dev"])
    parser.add_argument("--sources", nargs="+", type=int, default=[1, 2, 3], choices=[1, 2, 3])
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=list(SYSTEMS), metavar="NAME")
    parser.add_argument("--calibration-head", nargs="+", type=named_path, default=[], metavar="LABEL=PATH")
    parser.add_argument("--all-directions", action="store_true", help="scenes from all directions of their head set")
    parser.add_argument("--report", action="store_true", help="only report what is there")
    arguments = parser.parse_args()
    others = {label: read_heads(path) for label, path in arguments.calibration_head}
    if arguments.all_directions and not others:
        parser.error("--all-directions leaves nothing to calibrate by: give a --calibration-head.")
    experiments = []
    for label, path in arguments.heads:
        heads = read_heads(path)
        drawn = heads if arguments.all_directions else heads.split(arguments.split)
        for count in arguments.sources:
            chosen = rows(arguments.systems, heads, others, not arguments.all_directions, count)
            experiments.append(Experiment(f"{label}-{count}", drawn, BinauralCondition(num_sources=count), chosen))
    records = Records(arguments.out / "records" / arguments.split)
    if not arguments.report:
        corpus = SpeechCorpus.read(arguments.corpus, split=arguments.split)
        for experiment in experiments:
            fill_in(records, corpus, experiment, arguments.scenes, Calibrations(arguments.out / "calibrations"))
    print(write_report(records, {experiment.name: experiment.rows for experiment in experiments}, arguments.out))


def fill_in(
    records: Records, corpus: SpeechCorpus, experiment: Experiment, num_scenes: int, calibrations: Calibrations
) -> None:
    """Compute the records that are missing."""
    name, condition = experiment.name, experiment.condition
    scenes = [random_binaural_scene(corpus, experiment.heads, condition, index=index) for index in range(num_scenes)]
    marks = [scene_fingerprint(scene) for scene in scenes]
    for row in experiment.rows:
        missing = [i for i in range(num_scenes) if not records.finished(name, row.name, i, marks[i], row.identity)]
        print(f"{name}: {row.name}: {len(missing)} of {num_scenes} scenes to do", file=sys.stderr, flush=True)
        if not missing:
            continue
        calibration = calibrated(row, condition.sample_rate, calibrations)
        separate(row.system, scenes[missing[0]], calibration)  # compiles
        for index in missing:
            result = measured(row, scenes[index], calibration)
            records.write(name, row.name, index, marks[index], row.identity, result)


def calibrated(row: Row, sample_rate: int, calibrations: Calibrations) -> Calibration | None:
    """What a row's system knows of the head."""
    if row.heads is None or row.system.calibration is None:
        return None
    # Systems that share a setting share the calibration: their own settings do not count.
    identity = {key: value for key, value in row.identity.items() if key != "settings"}
    return calibrations.of(row.heads, row.system.calibration, sample_rate, identity)


def measured(row: Row, scene: BinauralScene, calibration: Calibration | None) -> dict[str, Any]:
    """The record of a scene; a system that gives what is not finite is given the mixture, and straight ahead."""
    started = time.process_time()
    found = separate(row.system, scene, calibration)
    seconds = time.process_time() - started
    failed = not all(np.isfinite(part).all() for part in found if part is not None)
    if failed:
        ahead = np.zeros(len(scene.images))
        guess = Found(ahead, ahead, ahead, np.repeat(scene.mixture[None], len(scene.images), axis=0), ahead)
        found = Found(*(None if part is None else other for part, other in zip(found, guess, strict=True)))
    known = {}
    if calibration is not None:
        known["pieces"] = len(calibration.ppam.log_weights)
        known["calibration_directions"] = len(calibration.directions)
    return {
        "failed": failed,
        "cpu_seconds": seconds,
        "audio_seconds": scene.mixture.shape[1] / scene.sample_rate,
        **known,
        **binaural_quality(scene, found),
    }


def run_in_one_thread() -> None:
    """Start this script again with what libraries must know before they are imported, on one core."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    if any(os.environ.get(name) != value for name, value in _ONE_THREAD.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **_ONE_THREAD})


if __name__ == "__main__":
    run_in_one_thread()
    main()
