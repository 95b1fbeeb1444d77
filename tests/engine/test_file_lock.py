"""A lock is held as long as its process lives, and no longer."""

import fcntl

from warpfuse.engine.file_lock import is_held


def test_a_lock_is_held_by_who_has_it_and_by_nobody_after(tmp_path):
    path = tmp_path / "lock"
    assert not is_held(path), "there is no file"
    with path.open("w") as file:
        assert not is_held(path), "open is not locked"
        fcntl.flock(file, fcntl.LOCK_EX)
        assert is_held(path)
    assert not is_held(path)


def test_a_link_is_not_followed(tmp_path):
    path, link = tmp_path / "lock", tmp_path / "link"
    link.symlink_to(path)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert is_held(path) and not is_held(link)
