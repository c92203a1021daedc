"""The draft's own vocabulary: what goes wrong with `d2t` and `t2d`."""

from __future__ import annotations

import torch

from .trigger import Findings, Make, Triggers, validate

TRIGGERS = Triggers()


@TRIGGERS.rule("d2t-missing")
def a_reduced_head_without_its_table(make: Make, broken: bool) -> Findings:
    draft = make.eagle3()
    if broken:
        del draft.tensors["d2t"], draft.tensors["t2d"]
    return validate(draft)


@TRIGGERS.rule("d2t-inconsistent")
def two_draft_tokens_for_one(make: Make, broken: bool) -> Findings:
    draft = make.eagle3()
    if broken:
        draft.tensors["d2t"][7] -= 1  # rows 6 and 7 then stand for the same token
    return validate(draft)


@TRIGGERS.rule("d2t-ambiguous")
def a_table_that_was_never_filled(make: Make, broken: bool) -> Findings:
    draft = make.eagle3()
    del draft.tensors["t2d"]
    if broken:
        draft.tensors["d2t"].zero_()
    return validate(draft)


@TRIGGERS.rule("vocabulary-map-dtype")
def a_table_that_was_cast_with_the_weights(make: Make, broken: bool) -> Findings:
    draft = make.eagle3()
    if broken:
        draft.tensors["d2t"] = draft.tensors["d2t"].to(torch.bfloat16)
    return validate(draft)


@TRIGGERS.rule("draft-vocabulary-too-large")
def more_draft_tokens_than_tokens(make: Make, broken: bool) -> Findings:
    return validate(make.eagle3(draft_vocab_size=33 if broken else 20))


@TRIGGERS.rule("d2t-absolute")
def ids_in_place_of_offsets(make: Make, broken: bool) -> Findings:
    draft = make.eagle3()
    if broken:
        draft.tensors["d2t"] += torch.arange(20)
    return validate(draft)


@TRIGGERS.rule("t2d-rebuilt")
def one_table_of_two(make: Make, broken: bool) -> Findings:
    draft = make.eagle3()
    if broken:
        del draft.tensors["t2d"]
    return validate(draft)


@TRIGGERS.rule("token-map-left-out")
def a_list_of_frequent_tokens_beside_the_weights(make: Make, broken: bool) -> Findings:
    draft = make.eagle()
    if broken:
        torch.save([3, 1, 2], draft.write() / "freq_3.pt")
    return validate(draft)
