"""--resume goes on in a folder of its own command alone: what anybody else has written stays as it is."""

import shutil
from pathlib import Path

import pytest

from dots_zoo.commands.cli import main
from dots_zoo.openmm.progress import quiet
from dots_zoo.search.run.run import run_search
from dots_zoo.search.run.seeds import search_seeds
from helpers.toy_search import TINY_SPACE, toy_config, toy_data, toy_derivation, toy_training

with quiet():
    from helpers.tiny_mm import make_camvid, write_config

TRAIN = "train darts_v1 --data digits --channels 2 --layers 3 --batch-size 719 --epochs 1".split()
TRAIN += ["--augmentation.crop-padding", "1", "--aux-weight", "0"]
SEARCH = "search random_search --data digits --layers 3 --epochs 1 --channels 2".split()
SEARCH += ["--training.batch-size", "720"]
COMMANDS = {"search": SEARCH, "search --seeds": [*SEARCH, "--seeds", "2"], "train": TRAIN}
RESULTS = {"search": "genotype.json", "search --seeds": "seeds.json", "train": "model.safetensors"}


def run(command: str, out: Path, resume: bool = False) -> None:
    """What a command does, of the smallest size."""
    if command == "train":
        assert main([*TRAIN, "--out", str(out), *(["--resume"] if resume else [])]) == 0
        return
    config = toy_config("darts", epochs=1, warm_up=0, channels=2, training=toy_training(4))
    what = ("darts", config, toy_derivation(), TINY_SPACE, toy_data(64), out)
    if command == "search":
        run_search(*what, resume=resume, progress=False)
    else:
        search_seeds((4, 5), *what, resume=resume, progress=False)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder that each command has written."""
    folders = {command: tmp_path_factory.mktemp("runs") / "run" for command in COMMANDS}
    for command, out in folders.items():
        run(command, out)
    return folders


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file and folder below a folder."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def refusal(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(words) == 2
    [line] = capsys.readouterr().err.splitlines()
    return line.removeprefix("dots-zoo: error: ")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "files",
    [
        {"README.md": "mine"},
        {"config.yaml": "lr: 0.1\n", "run.json": "{}", "metrics.jsonl": ""},
        {"checkpoint/model.safetensors": "mine"},
        {"seed1/thesis.txt": "mine", "genotypes/darts.json": "{}"},
    ],
    ids=lambda files: next(iter(files)),
)
def test_somebody_elses_files_are_refused_and_stay(
    command: str, files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    before = contents(tmp_path)
    assert refusal([*COMMANDS[command], "--out", str(tmp_path), "--resume"], capsys) == (
        f"{tmp_path}: --resume expected an empty folder or a run of dots-zoo {command}, got other files, "
        "which are left as they are; choose another folder"
    )
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("command", "there"), [(one, other) for one in COMMANDS for other in COMMANDS if one != other]
)
def test_a_run_of_another_command_is_refused_and_stays(
    command: str, there: str, runs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(runs[there])
    told = refusal([*COMMANDS[command], "--out", str(runs[there]), "--resume"], capsys)
    assert told.startswith(f"{runs[there]}: --resume expected an empty folder or a run of dots-zoo {command}")
    assert there == "search --seeds" or f"got a run of dots-zoo {there};" in told
    assert contents(runs[there]) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_a_taken_folder_is_refused_without_resume(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    told = refusal([*COMMANDS[command], "--out", str(tmp_path)], capsys)
    assert told == (
        f"{tmp_path}: expected a new or an empty folder for the run, got one that holds thesis.txt; "
        "choose another, or pass --resume if it is a run's"
    )
    assert contents(tmp_path) == {str(tmp_path / "thesis.txt"): b"mine"}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("resume", [[], ["--resume"]])
def test_a_file_in_place_of_the_folder_is_refused(
    command: str, resume: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "file"
    out.write_text("mine")
    told = refusal([*COMMANDS[command], "--out", str(out), *resume], capsys)
    assert told.startswith(f"{out}: expected a new or an empty folder for the run, got a file")
    assert out.read_text() == "mine"


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("left", ["nothing", "an unfinished file", "config.yaml", "a whole run"])
def test_what_a_killed_run_of_the_command_leaves_goes_on(
    command: str, left: str, runs: dict[str, Path], tmp_path: Path
) -> None:
    """A new folder, the first file half written, no checkpoint yet, or all of it."""
    out = tmp_path / "run"
    if left == "a whole run":
        shutil.copytree(runs[command], out)
    else:
        first = out / "seed4" if command == "search --seeds" else out
        first.mkdir(parents=True)
        if left == "an unfinished file":
            (first / ".0123456789abcdef.tmp").write_text("# dots-z")
        if left == "config.yaml":
            source = runs[command] / "seed4" if command == "search --seeds" else runs[command]
            shutil.copy(source / left, first)
    run(command, out, resume=True)
    if left == "a whole run":
        assert (out / RESULTS[command]).read_bytes() == (runs[command] / RESULTS[command]).read_bytes()
    assert (out / RESULTS[command]).is_file()


def test_segmentation_leaves_other_files_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = make_camvid(tmp_path / "data", {"train": 4, "val": 1, "test": 1})
    own = tmp_path / "own"
    own.mkdir()
    config = write_config(own / "tiny.py", "seg", 1)
    words = ["seg", "train", str(config), "--data-root", str(data), "--out"]
    before = contents(own)
    assert refusal([*words, str(own), "--resume"], capsys).startswith(
        f"{own}: --resume expected an empty folder or a run of dots-zoo det or seg train, got other files"
    )
    out = tmp_path / "run"
    quick = ["--cfg-options", "train_dataloader.batch_size=4"]
    out.mkdir()
    assert main([*words, str(out), "--resume", *quick]) == 0  # begins where there is nothing
    weights = str(tmp_path / "epoch_1.pth")
    for path in (out / "epoch_1.pth", *out.glob("best_*.pth")):  # killed before the first checkpoint
        path.rename(tmp_path / path.name)
    assert main([*words, str(out), "--resume", *quick]) == 0
    test = ["seg", "test", str(config), weights, "--data-root", str(data), "--out"]
    told = refusal([*test, str(own)], capsys)
    assert told.startswith(f"{config}: expected a folder without it") and contents(own) == before
    assert main([*test, str(out)]) == 0  # the folder of the training has such a file, which is mmengine's
