"""Memory stays flat: drafts of 850 MB and more are looked at number by number in far less than they weigh."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "validate.py"


@pytest.mark.long
def test_a_draft_of_850_mb_is_validated_in_less_than_500_mib(tmp_path: Path) -> None:
    """In processes of their own: the benchmark measures, and fails when a peak is over its limit."""
    command = [sys.executable, SCRIPT, "--rounds", "1", "--folder", tmp_path]
    ran = subprocess.run([*command, "--most", "500"], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert [line for line in ran.stdout.splitlines() if "850 MB" in line and "--verifier" in line]
