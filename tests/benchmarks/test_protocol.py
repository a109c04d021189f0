import pytest
from protocol import check_protocol

from vbss.errors import InputError


def test_results_of_something_else_are_refused(tmp_path):
    folder = tmp_path / "results"
    for _ in range(2):
        check_protocol(folder, speakers=[("ann", True)], times=8)
    with pytest.raises(InputError, match="another times: name another --out"):
        check_protocol(folder, speakers=[("ann", True)], times=4)
    with pytest.raises(InputError, match="another split"):
        check_protocol(folder, speakers=[("ann", True)], times=8, split="test")
