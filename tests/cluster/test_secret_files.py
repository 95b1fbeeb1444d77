"""What `${secret:NAME}` stands for: read from a file that only its user reads, and kept out of what is told."""

import pytest

from warpfuse.cluster.secret_files import SecretFiles
from warpfuse.graph.errors import ConfigError


@pytest.fixture
def folder(tmp_path):
    for name, text in (("yard", "me:pa ss/3\n"), ("a", "1"), ("empty", "\n"), ("long", "a\nb\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    return tmp_path


def test_a_secret_is_a_reference_until_it_is_filled_in(folder):
    keys = {"source": "rtsp://${secret:yard}@cam/1", "sinks": ["rtsp://${secret:a}:${secret:a}@x/"], "steps": 2}
    told = SecretFiles(folder).filled_in(keys)
    assert told == {"source": "rtsp://me:pa ss/3@cam/1", "sinks": ["rtsp://1:1@x/"], "steps": 2}


@pytest.mark.parametrize(
    "name, says",
    [
        ("gate", r"secret gate: .*gate cannot be read \(No such file.*put it there, with mode 0600"),
        ("empty", "holds nothing; expected one line"),
        ("long", "holds several lines; expected one line"),
    ],
)
def test_a_secret_that_is_not_there_is_named(folder, name, says):
    with pytest.raises(ConfigError, match=says):
        SecretFiles(folder).filled_in("rtsp://${secret:" + name + "}@cam/1")


def test_a_secret_that_others_may_read_is_refused(folder):
    (folder / "yard").chmod(0o640)
    with pytest.raises(ConfigError, match=r"secret yard: others may read .*chmod 600"):
        SecretFiles(folder).filled_in("${secret:yard}")


def test_what_was_read_is_hidden_wherever_it_stands(folder):
    secrets = SecretFiles(folder)
    line = "no answer to me:pa ss/3 from the camera"
    assert secrets.hidden(line) == line, "control: it has not been read"
    secrets.filled_in("${secret:yard}")
    assert secrets.hidden(line) == "no answer to *** from the camera"
