"""`warpfuse comfy install` and `uninstall`, and the folder for ComfyUI's registry."""

import tomllib
from importlib import resources
from pathlib import Path

import pytest

from warpfuse import cli
from warpfuse.version import __version__

NAME = "comfyui-warpfuse"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "nodes.py").touch()
    (tmp_path / "comfy").mkdir()
    (tmp_path / "custom_nodes").mkdir()
    return tmp_path


@pytest.fixture
def say(monkeypatch, capsys):
    """(words of `warpfuse comfy`) -> (exit code, what it printed)."""

    def run(*words):
        monkeypatch.setattr("sys.argv", ["warpfuse", "comfy", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, "".join(capsys.readouterr())

    return run


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_install_and_uninstall_leave_comfyui_as_it_was(folder, say):
    before = tree(folder)
    code, line = say("install", folder)
    assert code == 0 and str(folder / "custom_nodes" / NAME) in line
    written = tree(folder / "custom_nodes" / NAME)
    assert {"__init__.py", "pyproject.toml", "requirements.txt", "icon.svg"} == written.keys()
    assert tree(folder).items() >= before.items()
    assert say("uninstall", folder)[0] == 0
    assert tree(folder) == before and list((folder / "custom_nodes").iterdir()) == []


def test_install_once_more_replaces_what_is_there(folder, say):
    say("install", folder)
    (folder / "custom_nodes" / NAME / "__init__.py").write_text("broken")
    assert say("install", folder)[0] == 0
    assert "comfy_entrypoint" in (folder / "custom_nodes" / NAME / "__init__.py").read_text()
    assert [path.name for path in (folder / "custom_nodes").iterdir()] == [NAME]


def test_the_folder_it_is_called_in_is_taken(folder, say, monkeypatch):
    monkeypatch.chdir(folder)
    assert say("install")[0] == 0
    assert (folder / "custom_nodes" / NAME).is_dir()


@pytest.mark.parametrize("lacking", ["nodes.py", "comfy"])
def test_a_folder_that_is_no_comfyui_is_refused(folder, say, lacking):
    path = folder / lacking
    path.unlink() if path.is_file() else path.rmdir()
    code, line = say("install", folder)
    assert code == cli.BAD_INPUT and line.count("\n") == 1
    assert f"{folder} is no ComfyUI: it has no {lacking}." in line
    assert list((folder / "custom_nodes").iterdir()) == []


def test_a_folder_of_somebody_else_stays(folder, say):
    theirs = folder / "custom_nodes" / NAME
    theirs.mkdir()
    (theirs / "__init__.py").write_text("NODE_CLASS_MAPPINGS = {}")
    for command in ("install", "uninstall"):
        code, line = say(command, folder)
        assert code == cli.BAD_INPUT and "is not of warpfuse" in line
    assert tree(theirs) == {"__init__.py": b"NODE_CLASS_MAPPINGS = {}"}


def test_there_is_nothing_to_uninstall_twice(folder, say):
    code, line = say("uninstall", folder)
    assert code == cli.BAD_INPUT and "nothing to uninstall" in line


def test_the_registry_is_told_what_it_asks_for():
    """https://docs.comfy.org/registry/specifications: three numbers, a licence as text or file, a repository."""
    pack = Path(str(resources.files("warpfuse.comfy") / "pack"))
    about = tomllib.loads((pack / "pyproject.toml").read_text())
    assert about["project"]["name"] == NAME and about["project"]["version"] == __version__
    assert about["project"]["license"] == {"text": "Apache-2.0"}
    assert about["project"]["dependencies"] == (pack / "requirements.txt").read_text().split() == ["warpfuse[cpu]"]
    assert about["project"]["urls"]["Repository"].startswith("https://")
    registry = about["tool"]["comfy"]
    assert {"PublisherId", "DisplayName", "Icon", "requires-comfyui"} <= registry.keys()
    assert registry["Icon"].endswith("/app/comfy/pack/icon.svg") and (pack / "icon.svg").is_file()
