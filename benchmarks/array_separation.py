"""Separation and localisation with a microphone array: vbss, its peers and oracles on the same scenes.

    python benchmarks/array_separation.py CORPUS --out DIR [--scenes 30] [--conditions clean 30dB] [--systems NAME ...]

CORPUS is a folder of speech, with splits.csv (speaker, split). Every system works in a process of its own, on one core
and in one thread. What is finished lies in DIR and is not computed again unless the scene, the system's settings or the
versions it depends on have changed; an interrupted run goes on where it was. At the end, DIR/report.md and
DIR/report.png are written, and the report is printed; `--report` does only that.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from conditions import CONDITIONS, named_condition
from observation import Estimate
from quality import quality
from records import Records, fingerprint
from report import write_report
from systems import SYSTEMS

from vbss.scenes import Scene, SpeechCorpus, random_scene

_WORKER = Path(__file__).with_name("worker.py")
_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_PLATFORMS": "cpu",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=30, help="for each condition")
    parser.add_argument("--conditions", nargs="+", default=["clean", "30dB"], choices=CONDITIONS, metavar="NAME")
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=list(SYSTEMS), metavar="NAME")
    parser.add_argument("--split", default="test")
    parser.add_argument("--report", action="store_true", help="only report what is there")
    arguments = parser.parse_args()
    records = Records(arguments.out / "records" / arguments.split)
    if not arguments.report:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # the workers inherit this, too
        corpus = SpeechCorpus.read(arguments.corpus, split=arguments.split)
        for condition in arguments.conditions:
            _fill_in(records, corpus, condition, arguments.systems, arguments.scenes, arguments.out / "scenes")
    print(write_report(records, arguments.conditions, arguments.out))


def _fill_in(
    records: Records, corpus: SpeechCorpus, condition: str, systems: list[str], num_scenes: int, cache: Path
) -> None:
    """Compute the records that are missing."""
    drawn = named_condition(condition, corpus.folder)
    scenes = [random_scene(corpus, drawn, index=index, cache=cache) for index in range(num_scenes)]
    marks = [fingerprint(scene) for scene in scenes]
    for name in systems:
        identity = SYSTEMS[name].identity()
        missing = [i for i in range(num_scenes) if not records.finished(condition, name, i, marks[i], identity)]
        print(f"{condition}: {name}: {len(missing)} of {num_scenes} scenes to do", file=sys.stderr, flush=True)
        if not missing:
            continue
        with _worker(name) as separate:
            for index in missing:
                estimate, measured = separate(scenes[index])
                result = {**measured, **quality(scenes[index], estimate)}
                records.write(condition, name, index, marks[index], identity, result)


@contextmanager
def _worker(system: str) -> Iterator[Any]:
    """A function that lets a process of its own separate a scene; it returns the estimate and what it cost."""
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(
            [sys.executable, str(_WORKER), system],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **_ONE_THREAD},
        ) as process,
    ):
        files = {"scene": str(Path(folder) / "scene.npz"), "estimate": str(Path(folder) / "estimate.npz")}

        def separate(scene: Scene) -> tuple[Estimate, dict[str, Any]]:
            arrays = {field.name: getattr(scene, field.name) for field in fields(scene) if field.name != "description"}
            np.savez(files["scene"], **arrays)
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(json.dumps(files) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
            if not answer:
                raise RuntimeError(f"the process of {system} ended early; its own message stands above.")
            with np.load(files["estimate"]) as found:
                return Estimate(**found), json.loads(answer)

        yield separate


if __name__ == "__main__":
    main()
