"""What hypercorn's own command does with the exit code of its worker."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.deadlines import HANG_SECONDS


@pytest.mark.parametrize(("workers", "code"), [("0", 2), ("1", 0)])
@pytest.mark.promise("p-hypercorn-exit-code")
def test_the_exit_code_of_an_only_worker_that_failed_is_forgotten(workers: str, code: int, tmp_path: Path) -> None:
    """`run` asks `_join_exited` a second time, with nobody left to ask (hypercorn 0.18, run.py; its issue 269).

    Where this fails, the command hands the code on, and README and operations may stop saying that it does not.
    """
    (tmp_path / "ends.py").write_text("import sys\nsys.exit(2)\n")
    command = [sys.executable, "-m", "hypercorn", "-k", "trio", "--bind", "127.0.0.1:0", "--workers", workers, "ends:app"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=HANG_SECONDS, check=False).returncode == code
