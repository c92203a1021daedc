"""Layer ids of EAGLE-3: boundary ids in the output, whatever the source counts, and refused where it is doubtful.

The verifier has eight layers: the default of those who count inputs is [2, 4, 5], of those who count outputs [1, 3, 4].
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from spec_convert import load_draft
from spec_convert.errors import UsageError

Make = Callable[..., Any]
KEY = "eagle_aux_hidden_state_layer_ids"


def ways(**readings: str) -> str:
    """The hint that gives these readings of ids by the flag that chooses them."""
    return " or ".join(f"`--aux-layer-convention {way}` (`--aux-layer-ids {ids}`)" for way, ids in readings.items())


def test_the_default_layer_ids_are_the_authors(eagle3: Make) -> None:
    assert eagle3().convert().config["eagle_aux_hidden_state_layer_ids"] == [2, 4, 5]


def test_default_layer_ids_that_collapse_are_refused(eagle3: Make, make_verifier: Make) -> None:
    refused = eagle3().refusal(verifier=make_verifier("shallow", num_hidden_layers=6))["aux-layer-ids"]
    assert "[2, 3, 3]" in refused.message
    assert "--aux-layer-ids" in refused.hint


def test_the_flag_gives_layer_ids_to_a_verifier_whose_default_ids_collapse(eagle3: Make, make_verifier: Make) -> None:
    shallow = make_verifier("shallow", num_hidden_layers=6)
    converted = eagle3().convert(verifier=shallow, aux_layer_ids=[1, 3, 5])
    assert converted.config["eagle_aux_hidden_state_layer_ids"] == [1, 3, 5]


def test_the_flag_wins_over_the_config(eagle3: Make) -> None:
    draft = eagle3(eagle_config={"eagle_aux_hidden_state_layer_ids": [1, 2, 3]})
    assert draft.convert(aux_layer_ids=[0, 4, 8]).config["eagle_aux_hidden_state_layer_ids"] == [0, 4, 8]


@pytest.mark.parametrize("ids", [[1], [0, 2, 4, 6]])
def test_any_number_of_verifier_states_is_fused_when_ids_are_given(eagle3: Make, ids: list[int]) -> None:
    converted = eagle3(states=len(ids), eagle_aux_hidden_state_layer_ids=ids).convert(validate=True)
    assert converted.layer["num_aux_hidden_states"] == len(ids)
    assert load_draft(converted.output).fc.in_features == len(ids) * 16


@pytest.mark.parametrize("states", [1, 2, 4])
def test_other_than_three_states_have_no_default_ids(eagle3: Make, states: int) -> None:
    assert f"fuses {states} " in eagle3(states=states).refusal()["aux-layer-ids"].message


@pytest.mark.parametrize("ids", [[2, 2, 5], [5, 4, 2], [-1, 4, 5], [2, 4, 9]])
def test_layer_ids_that_servers_would_read_otherwise_are_refused(eagle3: Make, ids: list[int]) -> None:
    draft = eagle3(eagle_aux_hidden_state_layer_ids=ids)
    assert str(ids) in draft.refusal()["aux-layer-ids"].message
    assert draft.refusal(aux_layer_ids=ids)["aux-layer-ids"].where == "--aux-layer-ids"


@pytest.mark.parametrize("ids", ["2,4,5", [2, True, 5], [2.0, 4, 5], {"0": 2}])
def test_layer_ids_that_are_no_list_of_numbers_are_refused(eagle3: Make, ids: object) -> None:
    assert "config-key-invalid" in eagle3(eagle_aux_hidden_state_layer_ids=ids).refusal()


def test_a_verifier_without_a_layer_count_is_named_as_the_cause(eagle3: Make, make_verifier: Make) -> None:
    with pytest.raises(Exception, match="num_hidden_layers"):
        eagle3().convert(verifier=make_verifier("nameless", num_hidden_layers=...))


def test_specforge_ids_count_outputs_and_become_boundary_ids(specforge: Make) -> None:
    converted = specforge(eagle_config={"eagle_aux_hidden_state_layer_ids": [1, 4, 6]}).convert(validate=True)
    assert converted.conversion.format == "eagle3-specforge"
    assert converted.config["eagle_aux_hidden_state_layer_ids"] == [2, 5, 7]


def test_ids_given_by_flag_are_boundary_ids_already(specforge: Make) -> None:
    draft = specforge(eagle_config={"eagle_aux_hidden_state_layer_ids": [1, 4, 6]})
    assert draft.convert(aux_layer_ids=[1, 4, 6]).config["eagle_aux_hidden_state_layer_ids"] == [1, 4, 6]


def test_the_last_output_of_the_verifier_is_its_last_boundary(specforge: Make) -> None:
    draft = specforge(eagle_config={"eagle_aux_hidden_state_layer_ids": [1, 4, 7]})
    assert draft.convert().config["eagle_aux_hidden_state_layer_ids"] == [2, 5, 8]


def test_ids_of_outputs_that_are_the_default_of_inputs_are_refused(specforge: Make) -> None:
    draft = specforge(eagle_config={KEY: [2, 4, 5]})
    refused = draft.refusal()["aux-layer-ids"]
    assert "[2, 4, 5]" in refused.message
    assert refused.hint == ways(boundary="2,4,5", output="3,5,6")
    assert draft.convert(aux_layer_ids=[3, 5, 6]).config[KEY] == [3, 5, 6]


@pytest.mark.parametrize("place", [{KEY: [1, 3, 4]}, {"eagle_config": {KEY: [1, 3, 4]}}])
def test_ids_of_inputs_that_are_the_default_of_outputs_are_refused(eagle3: Make, place: dict[str, Any]) -> None:
    assert eagle3(**place).refusal()["aux-layer-ids"].hint == ways(boundary="1,3,4", output="2,4,5")


def test_the_last_layer_has_no_output_of_its_number(specforge: Make) -> None:
    refused = specforge(eagle_config={KEY: [4, 6, 8]}).refusal()["aux-layer-ids"]
    assert "[4, 6, 8]" in refused.message
    assert refused.hint == ways(boundary="4,6,8")


def test_ids_out_of_range_are_shown_as_the_file_has_them(specforge: Make) -> None:
    assert "[4, 6, 9]" in specforge(eagle_config={KEY: [4, 6, 9]}).refusal()["aux-layer-ids"].message


def test_ids_at_the_top_level_that_contradict_eagle_config_are_refused(eagle3: Make) -> None:
    draft = eagle3(**{KEY: [1, 2, 3], "eagle_config": {KEY: [3, 4, 5]}})
    refused = draft.refusal()["aux-layer-ids"]
    assert "[1, 2, 3] at the top level and [3, 4, 5] in eagle_config" in refused.message


def test_the_same_ids_in_both_places_are_no_contradiction(eagle3: Make) -> None:
    assert eagle3(**{KEY: [1, 2, 3], "eagle_config": {KEY: [1, 2, 3]}}).convert().config[KEY] == [1, 2, 3]


def test_ids_that_only_servers_read_are_doubtful_where_trainers_count_outputs(specforge: Make) -> None:
    draft = specforge(**{KEY: [1, 2, 3]})
    assert draft.refusal()["aux-layer-ids"].hint == ways(boundary="1,2,3", output="2,3,4")
    assert draft.convert(aux_layer_ids=[1, 2, 3]).config[KEY] == [1, 2, 3]


def test_a_unified_directory_with_the_default_of_outputs_gets_a_warning(eagle3: Make) -> None:
    draft = eagle3()
    converted = draft.convert()
    draft.config, draft.tensors = converted.config | {KEY: [1, 3, 4]}, converted.tensors
    again = draft.convert()
    assert again.config[KEY] == [1, 3, 4]
    assert "--aux-layer-ids 2,4,5" in again.findings["aux-layer-ids-suspicious"].hint
    assert again.findings["aux-layer-ids-suspicious"].level == "warning"


def test_the_research_trainers_ids_are_never_taken_for_the_usual_ones(eagle3: Make) -> None:
    draft = eagle3(prefix="layers.0.")
    assert "3, N//2+1, N-2" in draft.refusal(norm_before_residual=True)["aux-layer-ids-unknown"].hint
    assert draft.convert(norm_before_residual=False).config[KEY] == [2, 4, 5]


@pytest.mark.parametrize(("said", "taken"), [("boundary", [2, 4, 5]), ("output", [3, 5, 6])])
@pytest.mark.parametrize("place", [{KEY: [2, 4, 5]}, {"eagle_config": {KEY: [2, 4, 5]}}])
def test_the_convention_given_by_flag_settles_how_ids_are_counted(
    specforge: Make, place: dict[str, Any], said: str, taken: list[int]
) -> None:
    assert specforge(**place).convert(aux_layer_convention=said).config[KEY] == taken


@pytest.mark.parametrize(("said", "taken"), [("boundary", [1, 3, 4]), ("output", [2, 4, 5])])
def test_the_convention_given_by_flag_counts_the_trainers_default(specforge: Make, said: str, taken: list[int]) -> None:
    assert specforge().convert(aux_layer_convention=said).config[KEY] == taken


def test_the_convention_given_by_flag_is_recorded(specforge: Make) -> None:
    output = specforge().convert(aux_layer_convention="output").output
    assert json.loads((output / "conversion.json").read_text())["flags"] == {"aux_layer_convention": "output"}


@pytest.mark.parametrize(("said", "taken"), [("boundary", [1, 3, 4]), ("output", [2, 4, 5])])
def test_the_convention_corrects_a_unified_directory(eagle3: Make, said: str, taken: list[int]) -> None:
    draft = eagle3()
    converted = draft.convert()
    draft.config, draft.tensors = converted.config | {KEY: [1, 3, 4]}, converted.tensors
    again = draft.convert(aux_layer_convention=said)
    assert again.config[KEY] == taken
    assert "aux-layer-ids-suspicious" not in again.findings


def test_ids_that_no_convention_puts_inside_the_verifier_are_refused_all_the_same(specforge: Make) -> None:
    draft = specforge(eagle_config={KEY: [4, 6, 8]})
    assert "[4, 6, 8]" in draft.refusal(aux_layer_convention="output")["aux-layer-ids"].message
    assert draft.convert(aux_layer_convention="boundary").config[KEY] == [4, 6, 8]


def test_a_convention_does_not_settle_which_of_two_lists_is_meant(eagle3: Make) -> None:
    draft = eagle3(**{KEY: [1, 2, 3], "eagle_config": {KEY: [3, 4, 5]}})
    assert "differ" in draft.refusal(aux_layer_convention="boundary")["aux-layer-ids"].message


@pytest.mark.parametrize(
    "flags", [{"aux_layer_convention": "inputs"}, {"aux_layer_convention": "output", "aux_layer_ids": [1, 2, 3]}]
)
def test_a_convention_that_says_nothing_is_a_usage_error(specforge: Make, flags: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="convention"):
        specforge().convert(**flags)
