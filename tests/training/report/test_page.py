"""The page of a run shows what lies in its folder, says what does not, and a hostile name stays a name."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from spec_convert.evaluation.page import page as page_of_evaluation
from spec_convert.reports.escape import finite, one_line
from spec_convert.training.report.curves import CURVES, compact
from spec_convert.training.report.page import page
from spec_convert.training.report.run import read_run

from ...page_reader import Reader
from .sample import (
    GREEDY,
    HOSTILE,
    REQUEST,
    SHA,
    VALIDATION,
    log,
    record,
    trained,
    write,
    write_hostile,
    write_run,
    write_training,
)


class Shown:
    """A page, and what of it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.html = page(read_run(folder))
        self.main = ET.fromstring(self.html[self.html.index("<main>") : self.html.index("</main>") + len("</main>")])

    @property
    def sections(self) -> list[str]:
        return [text(heading) for heading in self.main.iter("h2")]

    @property
    def charts(self) -> list[str]:
        return [text(svg[0]) for svg in self.main.iter("svg") if svg.get("role") == "img"]

    def tile(self, name: str) -> tuple[str, str]:
        """The figure with its unit, and what stands below it. The last of that name."""
        *_, found = (one for one in self.main.iterfind(".//dl[@class='tiles']/div") if text(one[0]).startswith(name))
        return " ".join(text(part) for part in found[1]), text(found[2])

    def rows(self, title: str) -> list[list[str]]:
        (table,) = (table for table in self.main.iter("table") if table.get("aria-label") == title)
        return [[text(cell) for cell in row] for row in table.iterfind("tbody/tr")]

    def figure(self, title: str) -> ET.Element:
        (found,) = (one for one in self.main.iter("figure") if text(one[0]) == title)
        return found

    @property
    def below(self) -> str:
        (found,) = (one for one in self.main.iter("p") if one.get("class") == "below")
        return text(found)


@pytest.fixture
def whole(tmp_path: Path) -> Shown:
    return Shown(write_run(tmp_path / "run"))


def text(element: ET.Element) -> str:
    return " ".join("".join(element.itertext()).split())


def titles(figure: ET.Element, kind: str) -> list[str]:
    groups = [one for one in figure.iter() if one.get("class", "").split()[:1] == [kind]]
    return [one.findtext("title") or "" for one in groups]


def test_the_page_is_well_formed_and_points_to_nothing_outside_itself(whole: Shown) -> None:
    reader = Reader(whole.html)
    assert (reader.open, reader.misplaced) == ([], [])
    assert not {"link", "img", "iframe", "object", "base", "use", "a"} & {tag for tag, _ in reader.tags}
    assert not {"src", "href", "xlink:href", "style"} & {name for _, attributes in reader.tags for name in attributes}


def test_the_page_carries_the_document_of_the_run(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run"))
    (script,) = Reader(page(run)).scripts
    assert json.loads(script) == json.loads(json.dumps(finite(run.to_json())))


def test_a_whole_run_has_every_section_and_every_chart(whole: Shown) -> None:
    assert whole.sections == [
        "Stages", "How it learned", "What is held out, after each epoch", "The draft's vocabulary",
        "Acceptance and speed", "The same in numbers", "Is it the verifier's text?", "How it was measured",
        "Validation", "What was asked for", "What it was made of",
    ]  # fmt: skip
    assert whole.charts[1:10] == [f"{curve.title}, by step" for curve in CURVES]
    assert len(whole.charts) == 1 + 9 + 1 + 3


def test_the_headline_names_what_was_simulated_and_what_was_measured(whole: Shown, tmp_path: Path) -> None:
    assert whole.tile("Acceptance length") == ("1.98 tokens", "per verifier pass, its own token included; at most 4")
    last = trained(540)
    assert whole.tile("Simulated length \N{GREEK SMALL LETTER TAU}, held out") == (
        f"{last['tau']:.2f} tokens", "after epoch 2, without a server; at most 4",
    )  # fmt: skip
    assert whole.tile("Best epoch") == ("2", "by what is held out; 2 drafts are kept")
    assert whole.tile("Trained on") == ("270,000 tokens", "in 540 steps; 3 steps left out")
    assert whole.tile("Time") == ("1 min 16 s", "evaluations and states included")
    assert whole.below == "5 of 6 stages are done; eagle3 for org/base: done after step 540"
    learned = [trained(step) for step in range(10, 210, 10)]
    alone = Shown(write_training(tmp_path / "alone", learned))
    mean = sum(line["tau"] for line in learned[-10:]) / 10
    assert alone.tile("Simulated length \N{GREEK SMALL LETTER TAU}, training")[0] == f"{mean:.2f} tokens"
    assert "on what it learns from" in alone.tile("Simulated length")[1]


def test_nothing_held_out_has_no_best_epoch(tmp_path: Path) -> None:
    folder = write_training(tmp_path / "run", [trained(10)])
    (folder / "best").unlink()
    assert Shown(folder).tile("Best epoch") == ("Not known", "nothing was held out; 2 drafts are kept")


def test_there_is_a_line_for_each_position_a_ring_for_each_evaluation_and_a_mark_for_each_step_left_out(
    whole: Shown,
) -> None:
    joint = whole.figure("Joint acceptance by position")
    assert [text(item) for item in joint.iter("li")] == ["position 1", "position 2", "position 3", "held out"]
    told = titles(joint, "reach")
    assert len(told) == 54
    first = trained(10)["joint"]
    assert told[0] == "step 10: " + ", ".join(f"position {at + 1} {100 * one:.1f}%" for at, one in enumerate(first))
    rings = [title for number in (1, 2, 3) for title in titles(joint, f"series-{number}") if title]
    assert len(rings) == 6
    assert rings[0] == f"held out, step 270, position 1: {100 * trained(270)['joint'][0]:.1f}%"
    assert titles(whole.figure("Loss"), "flag") == [
        f"step {step}: the step left out, gradients not finite" for step in (50, 60, 300)
    ]
    assert "Red marks: 3 steps left out" in text(whole.main)


def test_a_loss_that_changes_on_the_way_is_said_to(tmp_path: Path, whole: Shown) -> None:
    phases = [["smooth_l1=1.0", 0.8, 1.0], ["smooth_l1=1.0,top_k=1.0", 1.0, 0.3]]
    shown = Shown(write_training(tmp_path / "hass", list(log()), loss=phases))
    said = "What is minimised changes after 80% of the steps: at first smooth_l1=1.0, then smooth_l1=1.0,top_k=1.0."
    assert said in text(shown.main)
    assert "What is minimised changes" not in text(whole.main)


def test_what_was_not_measured_at_a_step_is_said_to_be_so(whole: Shown) -> None:
    told = titles(whole.figure("Accuracy by position"), "reach")
    assert told[-1] == "step 540: position 1 not measured, position 2 not measured, position 3 not measured"


def test_a_draft_of_one_step_has_one_loss(tmp_path: Path) -> None:
    charts = Shown(write_training(tmp_path / "run", list(log(positions=1)))).charts
    assert "Loss, by step" in charts
    assert "Loss by position, by step" not in charts
    assert len(charts) == 8


def test_thousands_of_lines_are_drawn_as_means_with_their_range_and_it_is_said(tmp_path: Path) -> None:
    shown = Shown(write_training(tmp_path / "run", [trained(step) for step in range(10, 24010, 10)]))
    assert "Of 2,400 logged lines 20 neighbours at a time are drawn as one" in text(shown.main)
    told = titles(shown.figure("Loss"), "reach")
    assert len(told) == 120
    some = [trained(step)["loss"] for step in range(10, 210, 10)]
    assert told[0] == f"steps 10 to 200: {sum(some) / 20:.4g} ({min(some):.4g} to {max(some):.4g})"
    assert len([one for one in shown.figure("Loss").iter("path") if one.get("class") == "band"]) == 1


def test_small_numbers_beside_large_ones_are_drawn_by_powers_of_ten(tmp_path: Path) -> None:
    lines = [trained(10, gradient_norm=5000.0), trained(20, gradient_norm=0.5)]
    figure = Shown(write_training(tmp_path / "run", lines)).figure("Gradient norm")
    assert text(figure[1]).endswith("The axis goes by powers of ten.")
    assert {"0.1", "1", "10"} & {text(one) for one in figure.iter("text")}


def test_a_running_training_says_how_far_it_is(tmp_path: Path) -> None:
    folder = write_training(tmp_path / "run", list(log())[:20])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 190')
    shown = Shown(folder)
    assert shown.below.startswith("eagle3 for org/base: not over, at step 180 of 2 epochs, last logged 2")
    assert shown.below.endswith("and its last line is just being written")
    assert shown.tile("Trained on")[0] == "90,000 tokens"


def test_numbers_of_which_none_is_one_are_told_to_be_missing(tmp_path: Path) -> None:
    shown = Shown(write_training(tmp_path / "run", [trained(10, tau=float("inf"))], epochs=1))
    assert shown.tile("Simulated length") == ("None", "nothing was logged that it could be told from")
    assert "Simulated acceptance length \N{GREEK SMALL LETTER TAU}, by step" not in shown.charts


def test_a_training_without_a_line_yet_is_a_page(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    write(tmp_path / "run" / "run.json", REQUEST)
    shown = Shown(tmp_path / "run")
    assert shown.charts == []
    assert shown.tile("Trained on") == ("None", "no step is logged yet")
    assert "How it learned" not in shown.sections


def test_the_vocabulary_is_shown_by_size_and_what_is_nearly_all_is_not_called_all(whole: Shown) -> None:
    figure = whole.figure("Share of the answers' tokens that a draft vocabulary covers")
    values = [text(one) for one in figure.iter("text") if one.get("class") == "value"]
    assert values == ["91.00%", "99.99%", "100.00%"]
    assert "64: this one" in text(figure)
    assert "the verifier's: 257; the draft has none" in text(whole.main)


def test_a_verifiers_whole_vocabulary_is_said_to_be_so(tmp_path: Path) -> None:
    shown = Shown(write_training(tmp_path / "run", list(log()), vocabulary=None))
    assert "It is the verifier's whole one" in text(shown.main)


def test_an_evaluation_is_shown_as_on_its_own_page(whole: Shown) -> None:
    own = page_of_evaluation(GREEDY)
    own_main = ET.fromstring(own[own.index("<main>") : own.index("</main>") + len("</main>")])
    theirs = [ET.tostring(one) for one in own_main.iter("section")]
    assert len(theirs) == 4
    assert theirs == [one for one in map(ET.tostring, whole.main.iter("section")) if one in theirs]


def test_stages_are_told_with_their_state_and_time(whole: Shown) -> None:
    rows = {row[0]: row for row in whole.rows("Stages")}
    assert rows["train"][1:4] == ["done", "2026-11-29T00:00:00Z", "1 h 01 min"]
    assert rows["evaluate"][1] == "failed"
    bars = whole.figure("Time by stage")
    assert titles(bars, "flag") == ["evaluate: failed, 12.5 s"]
    assert len(titles(bars, "series-1")) == 5


def test_a_finished_run_is_told_as_finished_by_its_last_stage(tmp_path: Path) -> None:
    """The stage that makes the page is running while it does."""
    folder, recorded = write_run(tmp_path / "run"), record()
    for name, stage in recorded["stages"].items():
        stage["state"] = "running" if name == "report" else "done"
    write(folder / "run.json", recorded)
    shown = Shown(folder)
    assert shown.below == "6 of 6 stages are done; eagle3 for org/base: done after step 540"
    assert [row[1] for row in shown.rows("Stages")] == ["done"] * 6
    assert len(titles(shown.figure("Time by stage"), "series-1")) == 6


def test_findings_are_listed(whole: Shown, tmp_path: Path) -> None:
    assert whole.rows("Findings") == [
        ["a-rule", "warning", "config.json: rope_theta", "is not the verifier's", "say it"]
    ]
    assert "Found: 1 warning." in text(whole.main)
    clean = VALIDATION | {"findings": [], "summary": {"errors": 0, "warnings": 0, "notes": 0, "checkpoints": 1}}
    write(tmp_path / "validation.json", clean)
    assert "Found: nothing." in text(Shown(tmp_path).main)


def test_every_setting_is_there(whole: Shown) -> None:
    settings = dict(row for row in whole.rows("Training"))
    assert settings["lr"] == "0.001"
    assert settings["max_steps"] == "null"
    assert settings["draft.transformer_layer_config.a"] == "1"
    assert REQUEST.keys() - {"data", "draft"} <= settings.keys()
    assert dict(whole.rows("Training: data"))["shards"] == json.dumps([SHA])
    assert dict(whole.rows("Run"))["train.draft"] == "eagle3"


def test_what_it_was_made_of_is_named_with_checksums(whole: Shown) -> None:
    facts = {text(row[0]): text(row[1]) for row in whole.main.iterfind(".//dl[@class='facts']/div")}
    assert facts["Verifier's identity"] == f"sha256:{SHA}"
    assert facts["Tokenizer and its fingerprint"] == f"org/base, {SHA}"
    assert ["states/shard-00000.safetensors", "1,234", SHA] in whole.rows("Checksums")
    assert [row[0] for row in whole.rows("Checksums")][-1] == "epoch_0002/model.safetensors"
    assert whole.rows("Drafts")[1][:4] == ["epoch_0002 (best)", "540", "2", "eagle3"]
    assert whole.rows("Data")[1][:3] == ["states", "hidden states", "1 of 1"]


def test_what_is_not_there_is_named_with_what_to_type(tmp_path: Path) -> None:
    shown = Shown(write_training(tmp_path / "run", [trained(10)]))
    missing = dict(row for row in shown.rows("And what makes it"))
    assert (
        missing["An evaluation after each epoch, and so a best one"] == "spec-convert train, with --val-data-path DIR"
    )
    assert len(missing) == 3


def test_hostile_names_and_numbers_are_shown_as_they_are_and_add_no_element(tmp_path: Path) -> None:
    shown = Shown(write_hostile(tmp_path / "run"))
    known = {tag for tag, _ in Reader(Shown(write_run(tmp_path / "sound")).html).tags}
    assert {tag for tag, _ in Reader(shown.html).tags} <= known
    assert {char for char in shown.html if not char.isprintable()} == {"\n"}
    assert [row[0] for row in shown.rows("Stages")] == [" ".join(one_line(HOSTILE).split())]
    assert shown.charts


@pytest.mark.parametrize(
    ("number", "short"),
    [(0, "0"), (0.001, "1e-3"), (2.5e-5, "2.5e-5"), (0.25, "0.25"), (1200, "1,200"), (2e6, "2e6"), (-0.5, "-0.5")],
)
def test_numbers_of_axes_are_short(number: float, short: str) -> None:
    assert compact(number) == short
