"""The field's words: no private name is defined, and a docstring says what to do or what a thing is."""

import re
from pathlib import Path

import pytest

from helpers.paths import ROOT
from helpers.source_tree import PACKAGES, defined_names, docstrings, sources

FILES = sources(*PACKAGES)

# Fragments that a reader has to complete.
OPENINGS = {"Of", "What", "Whether", "Those", "As", "That", "Where", "Here"}

# private name -> the field's; a name that holds anything at all has no better word than what it holds
WORDS = {
    **{name: "what it holds" for name in ("found", "kind", "made", "told", "said", "number", "asked")},
    **{"ends": "pre_post_processing", "Ends": "TaskAdapter", "Surface": "IOSpec", "surface": "IOSpec"},
    **{"subject": "onnx_file", "Subject": "OnnxFile", "twin": "reference_copy", "stand_in": "placeholder"},
    **{
        "tells": "is_informative",
        "enliven": "perturb_classifier",
        "webpage": "html",
        "story": "search_report",
        "write_story": "write_search_report",
    },
    **{"surroundings": "environment", "views": "transforms", "begin": "init_stage", "shaken": "perturbed"},
    **{"sent": "to_device", "each": "parallel_map", "noted": "sigterm_flag", "Judge": "SelectionCriterion"},
    **{"halves": "even_odd_pixels", "lanes": "simd", "LANES": "SIMD_WIDTH", "pack": "prepack"},
    **{"quicken": "replace_with_fast_layers", "quick_norm": "fast_batch_norm", "in_parts": "parallel"},
    **{"Half": "sep_conv_block", "half_passes": "sep_conv_block", "half_loops": "sep_conv_block"},
    **{"finished": "completed_run", "Finished": "completed_run", "Look": "StageSnapshot", "look": "snapshot"},
    **{"taken_apart": "unbind_edges", "computed_again": "recompute", "Together": "ScalarStacker"},
    **{"Behind": "BackwardInputs", "WHOLE": "NO_PARTIAL_CHANNELS", "Summands": "NodeAccumulator"},
    **{
        "Turn": "StepContext",
        "Moment": "StepIndex",
        "moment": "step_index",
        "Standing": "RunState",
        "Keeper": "CheckpointManager",
    },
    **{"standing": "run_state", "keeper": "checkpoints", "kinds": "cell_types", "weigh": "compute_weights"},
    **{"narrowed": "restrict_candidates", "carry_on": "continue_from", "go_on": "load"},
    **{"pull": "grad_out", "pulls": "grad_out", "push": "grad_in", "lookup": "nasbench201_table"},
    **{"ship": "export_weights", "Published": "TorchvisionDataset", "least": "require_at_least"},
}


# phrase in a document, a docstring or a message -> the field's
PHRASES = {
    r"\b[Gg]oes on\b|\b[Gg]oing on\b|\b[Gg]o on (with|from)\b": "resumes",
    r"\b[Hh]alf [AB]\b": "training split, validation split",
    r"\b([Ii]s|[Aa]re|[Bb]een) told\b": "receives, is warned",
    r"\b[Bb]ehind (a step|any|every|each|it|its)\b": "after",
    r"\b[Ss]haken\b": "perturbed",
}
DOCUMENTS = [*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md")]
TEXTS = [path for path in FILES if path.parent.name != "kernels"] + sorted(DOCUMENTS)

# Words that mean something else in a folder: the first index of a compiled loop, its operands, dL/dy.
OTHER_MEANINGS = {"dots_zoo/kernels": {"begin", "each"}}


def test_the_files_are_seen() -> None:
    assert len(FILES) > 150 and len(DOCUMENTS) > 10


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_docstring_opens_with_a_fragment(path: Path) -> None:
    openings = {text.split()[0].strip(",:"): text for text in docstrings(path)}
    assert {word: text for word, text in openings.items() if word in OPENINGS} == {}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_private_name_is_defined(path: Path) -> None:
    meant = OTHER_MEANINGS.get(path.parent.relative_to(ROOT).as_posix(), set())
    assert {name: WORDS[name] for name in (defined_names(path) & WORDS.keys()) - meant} == {}


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_private_phrase_is_written(path: Path) -> None:
    text = " ".join(path.read_text("utf-8").split())
    assert {phrase: PHRASES[phrase] for phrase in PHRASES if re.search(phrase, text)} == {}


def test_names_and_docstrings_are_found(tmp_path: Path) -> None:
    path = tmp_path / "story.py"
    path.write_text('"""Of a thing."""\n\ndef _ends(kind):\n  """As it is."""\n  kind.sent = found = 1\n')
    assert defined_names(path) & WORDS.keys() == {"story", "ends", "kind", "sent", "found"}
    assert docstrings(path) == ["Of a thing.", "As it is."]
