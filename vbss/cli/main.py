"""The entry points of the command line, and what every command has in common: exit codes, errors, the cache."""

import gc
import os
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

from vbss.cli import batch, calibrate, demo, enhance, localize, separate, simulate, train
from vbss.cli.arguments import EXIT_BAD_INPUT, Parser, fail
from vbss.cli.inference import InferenceFailed

EXIT_INFERENCE_FAILED = 1
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

_CACHE_BYTES = 512 * 2**20  # what was not used for longest is dropped beyond this


def console() -> int:
    """What the installed command `vbss` runs: `main`, with everything compiled kept for the next time.

    The cache is the folder `vbss` in the user's cache folder, or in the one that `JAX_COMPILATION_CACHE_DIR` names;
    JAX's own `JAX_ENABLE_COMPILATION_CACHE=false` turns it off.
    """
    import platformdirs

    # A folder of its own: JAX limits the size of no folder that was filled without a limit.
    folder = Path(os.environ.get("JAX_COMPILATION_CACHE_DIR", platformdirs.user_cache_dir())) / "vbss"
    # Variables of the environment, as they reach JAX without its being imported for `--help`.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"] = str(_CACHE_BYTES)
    # Without a usable folder everything is compiled again, which is slow but no reason for pages of warnings.
    warnings.filterwarnings("ignore", message=".*persistent compilation cache.*")
    # By default only what takes a second to compile is kept; here it is the many small parts that add up.
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    # Tracing makes very many small objects, which the collector would walk through again and again.
    gc.set_threshold(200_000, 50, 50)
    code = main()
    if code == EXIT_INTERRUPTED:
        # What was interrupted may still be computing or compiling in threads that do not survive an orderly end.
        sys.stderr.flush()
        os._exit(code)
    return code


def main(argv: list[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's own arguments) and return the exit code.

    0: done. 1: inference failed or memory ran out, or some of many recordings failed. 2: the input is wrong. 130:
    interrupted. 141: nobody read what was printed. In all other cases but 0, one line on stderr says why, and nothing
    was written but what was finished of many recordings, and the checkpoint from which a training goes on.
    """
    try:
        arguments = _parser().parse_args(argv)
        arguments.run(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where it can fail in one line
    except SystemExit as stop:  # argparse, after --help or a usage error
        return stop.code if isinstance(stop.code, int) else 0
    except KeyboardInterrupt:
        return fail("interrupted", EXIT_INTERRUPTED)
    except InferenceFailed as error:
        return fail(f"error: {error}", EXIT_INFERENCE_FAILED)
    except MemoryError as error:
        return fail(f"error: out of memory. {error}", EXIT_INFERENCE_FAILED)
    except BrokenPipeError:  # whoever reads has heard enough
        sys.stdout = None  # nor may the end of the process try to print what is left
        return EXIT_BROKEN_PIPE
    except (ValueError, OSError) as error:
        return fail(f"error: {error}", EXIT_BAD_INPUT)
    except RuntimeError as error:
        # JAX's error for a device without enough memory, told by its text as its type is not public.
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return fail(
            "error: out of memory; shorter recordings, fewer sources, or smaller networks and batches need less.",
            EXIT_INFERENCE_FAILED,
        )
    return 0


def _parser() -> Parser:
    parser = Parser(prog="vbss", description="Variational Bayesian separation and localisation of sound sources.")
    parser.add_argument("--version", action="version", version=f"vbss {version('vbss')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (separate, localize, enhance, calibrate, train, batch, simulate, demo):
        command.add(commands)
    return parser
