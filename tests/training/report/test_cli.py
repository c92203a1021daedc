"""`spec-convert report`: where the page goes, what is printed, what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from spec_convert.training.report.run import read_run

from ...cli.conftest import _plain_environment, cli  # noqa: F401  as tests of the command line run them
from ...test_architecture import COMMAND, loaded_after
from .sample import log, write_run, write_training


def test_the_page_lies_in_the_folder_and_the_command_says_where(tmp_path: Path, cli: Any) -> None:  # noqa: F811
    folder = write_run(tmp_path / "run")
    ran = cli("report", folder)
    assert (ran.code, ran.out, ran.err) == (0, f"report      {folder / 'report.html'}\n", "")
    assert (folder / "report.html").read_text().startswith("<!DOCTYPE html>")
    assert list(folder.glob(".*")) == []


def test_the_page_goes_where_output_says_and_the_folder_stays_as_it_was(
    tmp_path: Path, cli: Any  # noqa: F811
) -> None:  # fmt: skip
    folder = write_training(tmp_path / "run", list(log()))
    before = sorted(folder.rglob("*"))
    ran = cli("report", folder, "--output", tmp_path / "page.html")
    assert ran.out == f"report      {tmp_path / 'page.html'}\n"
    assert sorted(folder.rglob("*")) == before


def test_json_is_printed_and_a_page_written_only_where_one_is_asked_for(
    tmp_path: Path, cli: Any  # noqa: F811
) -> None:  # fmt: skip
    folder = write_run(tmp_path / "run")
    printed = cli("report", folder, "--json").json
    assert printed | {"read": ""} == json.loads(json.dumps(read_run(folder).to_json())) | {"read": ""}
    assert not (folder / "report.html").exists()
    assert cli("report", folder, "--json", "--output", tmp_path / "page.html").json["schema_version"] == 1
    assert (tmp_path / "page.html").exists()


def test_what_is_no_run_or_cannot_be_written_is_refused_with_what_to_type(
    tmp_path: Path, cli: Any  # noqa: F811
) -> None:  # fmt: skip
    ran = cli("report", tmp_path)
    assert (ran.code, ran.out) == (2, "")
    assert f"error: {tmp_path} holds nothing of a run" in ran.err
    assert "hint: give the folder of `spec-convert pipeline`" in ran.err
    folder = write_run(tmp_path / "run")
    ran = cli("report", folder, "--output", tmp_path / "none" / "page.html")
    assert ran.code == 2
    assert f"cannot write {tmp_path / 'none' / 'page.html'}: No such file or directory" in ran.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_part_that_may_not_be_read_is_named(tmp_path: Path, cli: Any) -> None:  # noqa: F811
    folder = write_run(tmp_path / "run")
    (folder / "evaluation.json").chmod(0)
    assert "evaluation.json cannot be read: Permission denied" in cli("report", folder).err


def test_a_report_needs_no_torch(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    assert not {"torch", "transformers", "vllm", "datasets"} & loaded_after(COMMAND, "report", str(folder))
