"""Bundles that are fetched by their sha256: whole and checked, or not at all, and once a machine."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from warpfuse.cluster.bundle_store import BundleStore, folder_origin
from warpfuse.engine.bundle import DESCRIPTION, load_bundle, sha256_of
from warpfuse.engine.errors import BundleError


@pytest.fixture
def store(tmp_path):
    return BundleStore(tmp_path / "store")


@pytest.fixture
def bundle(tmp_path, exact_bundle):
    """A bundle of its own, to be changed."""
    return Path(shutil.copytree(exact_bundle, tmp_path / "exact"))


def files_in(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def left(store):
    return [path.name for path in store.folder.iterdir() if path.suffix != ".lock"] if store.folder.is_dir() else []


def test_a_kept_bundle_is_named_by_the_sha256_of_its_description_and_has_the_same_files(store, bundle):
    pinned = store.keep(bundle)
    assert pinned == f"exact@sha256:{sha256_of(bundle / DESCRIPTION)}"
    place = store.find(pinned.partition(":")[2])
    assert files_in(place) == files_in(bundle)
    load_bundle(str(place))
    assert store.keep(bundle) == pinned and left(store) == [place.name]


def test_it_is_fetched_once(store, bundle, tmp_path):
    pinned, asked = BundleStore(tmp_path / "head").keep(bundle), []

    def counted(file):
        asked.append(file)
        return folder_origin(bundle)(file)

    first = store.fetch(pinned, counted, "here")
    assert len(asked) == len(files_in(bundle)) and store.fetch(pinned, counted, "here") == first
    assert len(asked) == len(files_in(bundle))


@pytest.mark.parametrize("changed", [DESCRIPTION, "unet.onnx"])
def test_a_wrong_sum_is_one_line_and_nothing_is_kept(store, bundle, tmp_path, changed):
    pinned = BundleStore(tmp_path / "head").keep(bundle)
    (bundle / changed).write_bytes((bundle / changed).read_bytes() + b" ")
    with pytest.raises(
        BundleError, match=rf"bundle exact from over there: {changed} has the sha256 .*nothing was kept"
    ) as said:
        store.fetch(pinned, folder_origin(bundle), "over there")
    assert "\n" not in str(said.value) and left(store) == []


def test_a_fetch_that_breaks_off_leaves_nothing_and_what_a_killed_one_has_left_is_removed(store, bundle, tmp_path):
    pinned = BundleStore(tmp_path / "head").keep(bundle)

    @contextmanager
    def breaking(file):
        if file != DESCRIPTION:
            raise OSError(5, "Input/output error")
        with folder_origin(bundle)(file) as source:
            yield source

    with pytest.raises(BundleError, match="bundle exact cannot be had from over there: Input/output error"):
        store.fetch(pinned, breaking, "over there")
    assert left(store) == []
    killed = store.folder / f".{pinned.partition(':')[2]}.1-2.tmp"
    killed.mkdir()
    (killed / DESCRIPTION).write_text("half")
    store.fetch(pinned, folder_origin(bundle), "over there")
    assert left(store) == [pinned.partition(":")[2]]


def test_hosts_of_one_machine_that_fetch_at_once_get_one_whole_bundle(store, bundle, tmp_path):
    pinned, asked = BundleStore(tmp_path / "head").keep(bundle), []

    def counted(file):
        asked.append(file)
        return folder_origin(bundle)(file)

    with ThreadPoolExecutor(4) as hosts:
        found = set(hosts.map(lambda _: BundleStore(store.folder).fetch(pinned, counted, "here"), range(4)))
    assert found == {store.find(pinned.partition(":")[2])} and len(asked) == len(files_in(bundle))
    assert files_in(store.find(pinned.partition(":")[2])) == files_in(bundle)


@pytest.mark.parametrize("name", ["exact", "exact@sha256:12", "../x@sha256:" + "0" * 64])
def test_a_name_without_a_sha256_is_told(store, bundle, name):
    with pytest.raises(BundleError, match="expected NAME@sha256: and 64 digits"):
        store.fetch(name, folder_origin(bundle), "here")
