"""A lock is held as long as its process lives, and no longer."""

import fcntl
import os
import threading

from warpfuse.engine.file_lock import is_held, try_lock


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


def test_who_asks_whether_it_is_held_keeps_nobody_from_locking_it(tmp_path):
    path, over, seen = tmp_path / "lock", threading.Event(), []
    path.touch()

    def ask():
        while not over.is_set():
            seen.append(is_held(path))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    locked = []
    for _ in range(2000):
        handle = os.open(path, os.O_RDWR)
        locked.append(try_lock(handle))
        os.close(handle)
    over.set()
    for thread in threads:
        thread.join()
    assert all(locked)


def test_two_who_ask_do_not_see_one_another(tmp_path):
    path = tmp_path / "lock"
    path.touch()
    with path.open("r+") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        assert not is_held(path)
        fcntl.flock(other, fcntl.LOCK_EX)
        assert is_held(path), "control"
