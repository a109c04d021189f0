"""Several processes, on one machine or more, that share their work."""

import argparse
import re

from vbss.cli.arguments import Parser, at_least
from vbss.errors import InputError

_ADDRESS = re.compile(r".+:([0-9]{1,5})")


def add_processes(parser: Parser) -> None:
    """Where the processes meet, how many there are, and which this one is."""
    group = parser.add_argument_group("several processes")
    group.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        help="where process 0 runs, and a port that is free there; auto where JAX knows the cluster (Slurm, Open MPI, "
        "Kubernetes, TPU)",
    )
    group.add_argument("--processes", type=at_least(1), metavar="N", help="how many there are")
    group.add_argument("--process", type=at_least(0), metavar="I", help="which this one is, counted from 0")


def check_processes(arguments: argparse.Namespace) -> None:
    """An `InputError` where what was said of the processes cannot be."""
    coordinator, total, own = arguments.coordinator, arguments.processes, arguments.process
    if coordinator is None and (total is not None or own is not None):
        raise InputError("--processes and --process need --coordinator, which says where the processes meet.")
    if coordinator in (None, "auto"):
        return
    address = _ADDRESS.fullmatch(coordinator)
    if address is None or not 1 <= int(address[1]) <= 65535:
        raise InputError(f"--coordinator must be HOST:PORT or auto, got {coordinator!r}.")
    if total is None or own is None or own >= total:
        raise InputError(f"--process must be below --processes, and both be given; got {own} and {total}.")


def joined(arguments: argparse.Namespace) -> tuple[int, int]:
    """Which process this is, from 0, and how many there are, as soon as all are there; JAX must not be in use yet.

    Afterwards they do not depend on each other: what they compute stays on their own devices.
    """
    if arguments.coordinator is None:
        return 0, 1
    import jax

    coordinator = None if arguments.coordinator == "auto" else arguments.coordinator
    try:
        jax.distributed.initialize(coordinator, arguments.processes, arguments.process)
        # Backends, which tell these numbers, are made while the processes are together. A process that stayed would
        # end with any other that fails.
        found = jax.process_index(), jax.process_count()
        jax.distributed.shutdown()
    except (RuntimeError, ValueError) as error:
        raise InputError(f"--coordinator {arguments.coordinator!r}: the processes did not meet ({error}).") from error
    return found
