"""The cluster file: what it says, and what is refused, by its place, before anything starts."""

import re
from fractions import Fraction

import pytest
import yaml

from warpfuse.cluster.config import cluster_config, read_cluster_file
from warpfuse.graph.errors import ConfigError

FILE = """
cluster: {name: yard, lease_s: 4, reserve: 2}
prompt: ink
pools:
  cards: {gpu: L4, sizes: ["512x288"]}
secrets: {dir: /run/secrets}
streams:
  yard: {source: "rtsp://${secret:yard}@10.0.1.11/1", sinks: ["rtsp://media:8554/yard"], fps: 15}
  door: {source: "rtsp://10.0.1.12/1", sinks: ["null:"], prompt: mosaic, unique: true, needs: {site: south}}
"""


def test_a_file_is_read_as_it_says(tmp_path):
    path = tmp_path / "cluster.yaml"
    path.write_text(FILE)
    config = read_cluster_file(path)
    yard, door = config.streams["yard"], config.streams["door"]
    assert (config.cluster.name, config.cluster.lease_s, config.cluster.reserve) == ("yard", 4.0, 2)
    assert (yard.pool, yard.rate, yard.unique, yard.graph.size) == ("cards", 15.0, False, (512, 288))
    assert yard.graph.fps == Fraction(15) and (door.rate, door.unique, door.needs) == (25.0, True, {"site": "south"})
    assert (yard.graph.prompt, door.graph.prompt) == ("ink", "mosaic")
    assert config.host_keys == {} and "unique" not in door.keys
    assert yard.digest == read_cluster_file(path).streams["yard"].digest != door.digest


def stream(**keys):
    return {"streams": {"yard": {"source": "x.mp4", "sinks": ["null:"], **keys}}}


@pytest.mark.parametrize(
    "change, says",
    [
        ({"cluster": {"lease": 6}}, "cluster: unknown key 'lease'; did you mean 'lease_s'"),
        ({"cluster": {"lease_s": 0}}, "cluster: lease_s: input should be greater than or equal to 1, got 0"),
        ({"pools": {"cards": {"gpus": "L4"}}}, r"pools\.cards: unknown key 'gpus'; did you mean 'gpu'"),
        ({"pools": []}, "pools: expected names with their keys"),
        ({"pools": {"a": {}, "b": {}}}, r"streams\.yard\.pool: expected one of a, b, got ''"),
        (stream(size="64x64"), r"yard\.size: pool cards takes 512x288"),
        (stream(promt="a"), r"streams\.yard: unknown key 'promt'"),
        (stream(rate=0), r"streams\.yard: rate: input should be"),
        ({"promt": "ink"}, "unknown key 'promt'; did you mean 'prompt'"),
    ],
)
def test_a_mistake_is_told_with_its_place(change, says):
    with pytest.raises(ConfigError, match=says):
        cluster_config({**yaml.safe_load(FILE), **change})


@pytest.mark.parametrize(
    "key, url", [("source", "rtsp://me:hunter2@cam/1"), ("sinks", ["rtmp://a/x", "rtsp://hunter2@b/"])]
)
def test_a_password_in_an_address_is_refused_and_not_repeated(key, url):
    says = rf"streams\.yard\.{key} holds a user or password.*\$\{{secret:yard\}}"
    with pytest.raises(ConfigError, match=says) as refused:
        cluster_config(stream(**{key: url}))
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "cluster, says",
    [
        ({"store": "head"}, "cluster.store: the head gives bundles through its page: give cluster.page, a port"),
        ({"store": "share"}, "cluster.store: expected head or an absolute folder, got 'share'"),
        ({"page": 0}, "cluster: page: input should be greater than or equal to 1, got 0"),
    ],
)
def test_a_store_or_a_page_that_cannot_be_is_told(cluster, says):
    with pytest.raises(ConfigError, match=re.escape(says)) as refused:
        cluster_config({"cluster": cluster, "streams": {}})
    assert "\n" not in str(refused.value)


def test_the_sizes_of_a_cluster_are_those_of_its_pools_and_streams():
    keys = {"source": "pattern:64x48@25", "sinks": ["null:"], "size": "96x64"}
    assert cluster_config({"streams": {"a": keys}}).sizes == ((96, 64),)
    pools = {"cards": {"sizes": ["96x64", "128x96"]}}
    assert cluster_config({"pools": pools, "streams": {"a": keys}}).sizes == ((96, 64), (128, 96))
