"""The demo, step by step: a small draft is made, published as its authors would, converted, proven equal and measured.

Read it as an example of the Python API: `detect`, `convert`, `validate` and `load_draft` do the main job.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from spec_convert import convert, detect, load_draft, validate
from spec_convert.demo.smollm2 import require_extras, smollm2_folder
from spec_convert.errors import SpecConvertError
from spec_convert.narration import say
from spec_convert.verifier import Verifier, open_verifier

if TYPE_CHECKING:
    from spec_convert.demo.answers import Answer
    from spec_convert.demo.drafting import Acceptance

TOLERANCE = 1e-5  # between two runs of one function in float32
DRAFTED = 3  # tokens a chain, as in the published measurements


def tell(folder: Path, *, seconds: float = 75) -> None:
    """Run the demo in ``folder``; the draft learns for ``seconds``. What an earlier run made there is used again."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # all is on this machine: nothing may wait for a network
    require_extras()
    verifier, draft, unified = (folder / name for name in ("verifier", "draft", "unified"))
    _chapter("1. A verifier: SmolLM2-135M-Instruct")
    make_verifier(verifier)
    _chapter("2. The verifier answers questions")
    learn_from, held_out = answer_questions(verifier, folder / "answers")
    _chapter("3. A toy EAGLE-1 draft learns from the answers, and is saved as EAGLE's authors publish theirs")
    train_draft(verifier, learn_from, draft, seconds)
    _chapter("4. The main job: what is it, convert it, is it right")
    convert_draft(draft, unified, verifier)
    _chapter("5. The proof: before and after compute the same")
    prove_equal(draft, unified, verifier, held_out[0])
    _chapter("6. Does it help: drafted tokens that the verifier would accept, on questions it has not learned from")
    measure(unified, verifier, held_out)
    farewell(folder)


def make_verifier(folder: Path) -> None:
    there = (folder / "config.json").exists()
    say(f"Already there: {folder}" if there else "Unpacking the model, some 20 seconds")
    smollm2_folder(folder)


def answer_questions(verifier: Path, folder: Path) -> tuple[list[Answer], list[Answer]]:
    """The verifier's greedy answers to questions to learn from, and to others that are held out."""
    import json
    from importlib.resources import files

    from spec_convert.demo.answers import ask, load, save
    from spec_convert.demo.once import appearing

    questions = json.loads(files("spec_convert.demo").joinpath("prompts.json").read_text(encoding="utf-8"))
    if (folder / "held_out.pt").exists():
        say(f"Already there: {folder}")
    else:
        say(f"Asking {sum(map(len, questions.values()))} questions")
        with appearing(folder) as unfinished:
            for name, asked in questions.items():
                save(ask(verifier, asked), unfinished / f"{name}.pt")
    learn_from, held_out = (load(folder / f"{name}.pt") for name in ("learn_from", "held_out"))
    tokens = sum(len(answer.token_ids) - answer.start for answer in learn_from)
    click.echo(f"{len(learn_from)} answers of {tokens} tokens to learn from, {len(held_out)} answers held out")
    return learn_from, held_out


def train_draft(verifier: Path, learn_from: list[Answer], folder: Path, seconds: float) -> None:
    """A draft trained on ``learn_from``, in the original authors' layout."""
    from spec_convert.demo.eagle1 import fresh_draft, save_as_published, shared_tables
    from spec_convert.demo.learning import learn
    from spec_convert.demo.once import appearing

    if (folder / "config.json").exists():
        say(f"Already there: {folder}")
        return
    opened = open_verifier(verifier)
    draft = fresh_draft(opened, shared_tables(opened))
    learn(draft, learn_from, seconds=seconds)
    with appearing(folder) as unfinished:
        save_as_published(draft, opened, unfinished)
    click.echo(f"saved to {folder}: {', '.join(sorted(file.name for file in folder.iterdir()))}")


def convert_draft(draft: Path, unified: Path, verifier: Path) -> None:
    """`spec-convert detect`, `convert` and `validate`, from Python."""
    detection = detect(draft)
    click.echo(f"{detection.format} (confidence {detection.confidence:g}): {detection.winner.title}")
    for words in detection.evidence.supports:
        click.echo(f"  + {words}")
    result = convert(draft, unified, verifier=verifier, validate=True, force=True)
    for finding in result.findings:
        click.echo(f"  {finding.level}: {finding.message}")
    click.echo(f"{len(result.plan.tensors)} tensors moved in {result.seconds:.1f} s")
    report = validate(unified, verifier=verifier, level="tensors")
    for finding in report.checked[0].findings:
        click.echo(f"  {finding.level}: {finding.message}")
    click.echo(f"validate: {report.in_words}")
    if report.has_errors:
        raise SpecConvertError("the converted draft is not right", hint=f"spec-convert validate {unified}")


def prove_equal(draft: Path, unified: Path, verifier: Path, answer: Answer) -> None:
    """The published tensors in a module of their own, against the unified directory: the same rows through both."""
    import torch

    from spec_convert.demo.eagle1 import published_draft, shared_tables

    opened = open_verifier(verifier)
    before = published_draft(draft, opened, shared_tables(opened))
    after = load_draft(unified, verifier)
    rows = answer.token_ids[None, 1:], answer.states[None]
    with torch.inference_mode():
        expected, found = before(*rows), after(*rows)
    pairs = zip(expected, found, strict=True)
    logits, states = (float((one - other).abs().max()) for one, other in pairs)
    click.echo(
        f"largest difference over {len(answer.states)} rows: {logits:.1e} in the logits, {states:.1e} in the states"
    )
    if not max(logits, states) <= TOLERANCE:
        raise SpecConvertError("the converted draft computes something else", hint=f"remove {unified} and try again")


def measure(unified: Path, verifier: Path, held_out: list[Answer]) -> None:
    """Acceptance of the converted draft beside that of a fresh one, without which the number would mean nothing."""
    from spec_convert.demo.drafting import acceptance
    from spec_convert.demo.eagle1 import fresh_draft, shared_tables

    opened: Verifier = open_verifier(verifier)
    drafts = {"untrained": fresh_draft(opened, shared_tables(opened)), "converted": load_draft(unified, verifier)}
    click.echo(f"{'draft':9}  {'  '.join(f'token {n}' for n in range(1, DRAFTED + 1))}  tokens a verifier pass")
    for name, draft in drafts.items():
        click.echo(f"{name:9}  {_row(acceptance(draft, held_out, tokens=DRAFTED))}")
    click.echo("A toy: it learned from a few dozen answers, published drafts learn from tens of thousands.")


def farewell(folder: Path) -> None:
    click.echo(
        f"""
Everything lies in {folder}: verifier, answers, draft (as its authors would publish it), unified (for vLLM).
Remove a folder there to make it anew. The same for a draft of your own, a folder or a Hub id:
  spec-convert detect   YOUR_DRAFT
  spec-convert convert  YOUR_DRAFT OUTPUT --verifier BASE_MODEL --validate
  spec-convert validate OUTPUT --level tensors"""
    )


def _chapter(title: str) -> None:
    click.secho(f"\n{title}", bold=True)


def _row(measured: Acceptance) -> str:
    shares = "  ".join(f"{share:7.1%}" for share in measured.by_position)
    return f"{shares}  {measured.mean_length:.2f}"
