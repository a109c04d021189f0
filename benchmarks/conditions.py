"""The named conditions of the benchmarks."""

from pathlib import Path

from vbss.errors import InputError
from vbss.scenes import Condition

_SIMULATED = {
    "clean": Condition(),
    "30dB": Condition(sensor_noise=30.0),
    "20dB": Condition(sensor_noise=20.0),
    "babble": Condition(babble=10.0),
    "16k-30dB": Condition(sample_rate=16000, sensor_noise=30.0),
    "3sources-clean": Condition(num_sources=3),
    "3sources-30dB": Condition(num_sources=3, sensor_noise=30.0),
    "4sources-30dB": Condition(num_sources=4, sensor_noise=30.0),
}
_MEASURED = "r3vival100-30dB"
CONDITIONS = (*_SIMULATED, _MEASURED)


def named_condition(name: str, corpus: Path) -> Condition:
    """The condition of a name among `CONDITIONS`; the measured responses are those in the corpus' `array/r3vival`.

    Raises:
        InputError: if the name is unknown.
    """
    if name == _MEASURED:
        return Condition(sample_rate=16000, sensor_noise=30.0, responses=corpus / "array" / "r3vival", room="100")
    if name not in _SIMULATED:
        raise InputError(f"condition must be one of {', '.join(CONDITIONS)}, got {name!r}.")
    return _SIMULATED[name]
