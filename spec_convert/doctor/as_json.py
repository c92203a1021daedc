"""An examination as JSON: what `doctor --json` prints."""

from __future__ import annotations

from typing import Any

from spec_convert.doctor.diagnosis import Tried
from spec_convert.doctor.examination import Examination
from spec_convert.doctor.scoring import Gain, Score

SCHEMA_VERSION = 1


def to_json(examined: Examination) -> dict[str, Any]:
    diagnosis = examined.diagnosis
    return {
        "schema_version": SCHEMA_VERSION,
        "draft": examined.source,
        "examined": examined.draft,
        "format": examined.format,
        "verifier": examined.verifier,
        "answers": examined.answers,
        "rows": examined.rows,
        "verdict": diagnosis.verdict,
        "as_it_is": _score(diagnosis.at_first),
        "with_states_of_other_tokens": _score(diagnosis.blind),
        "mended": _score(diagnosis.at_last) if diagnosis.causes else None,
        "gain": _gain(diagnosis.gain) if diagnosis.causes else None,
        "causes": [
            {
                "code": cause.hypothesis.code,
                "says": cause.hypothesis.says,
                "flags": cause.hypothesis.fix.flags,
                "do": cause.hypothesis.fix.words,
                "as_good": [one.hypothesis.code for one in diagnosis.as_good(cause)],
            }
            for cause in diagnosis.causes
        ],
        "layer_ids_count": examined.counting,
        "command": examined.command,
        "hypotheses": [_tried(one) for one in diagnosis.tried],
        "findings": [finding.to_json() for finding in examined.findings],
    }


def _tried(tried: Tried) -> dict[str, Any]:
    return {
        "code": tried.hypothesis.code,
        "says": tried.hypothesis.says,
        "beside": tried.beside,
        **_score(tried.score),
        "gain": _gain(tried.gain),
    }


def _score(score: Score) -> dict[str, Any]:
    return {
        "first": score.first,
        "second": score.second,
        "alpha": score.alpha,
        "refused": score.refused or None,
        "rows_without_numbers": score.no_numbers,
    }


def _gain(gain: Gain) -> dict[str, Any]:
    return {"tokens": gain.tokens, "standard_error": gain.error, "sure": gain.sure}
