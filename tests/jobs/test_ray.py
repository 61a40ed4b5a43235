"""Builds on a real Ray cluster of several nodes: the bytes are those of one process, whatever dies meanwhile."""

import copy
import logging
import os
import secrets
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import boto3
import pytest

ray = pytest.importorskip("ray", reason="the extra ray is not installed")
pytest.importorskip("ray.data", reason="likewise")

from ray._raylet import Config  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402

from logitstore.audio.clips import ClipAudio  # noqa: E402
from logitstore.errors import AudioError, MissingExtraError, ModelOutputError, StoreError, UsageError  # noqa: E402
from logitstore.jobs.build.job import Progress, build, prepare  # noqa: E402
from logitstore.store.storage import open_storage  # noqa: E402
from tests.s3 import s3_server  # noqa: E402
from tests.stores import contents, inside, options, write_audio  # noqa: E402

REPOSITORY = Path(__file__).parents[2]
CLIPS = 30
VIEWS = (CLIPS + 1) * 3
#: One node in three does nothing but keep the cluster together; a node of the others has room for one of each stage.
WORKER = {"num_cpus": 2, "object_store_memory": 80 << 20}

SLOW = '''
"""The tone teachers, slowly, each call in a log: which process of which node was asked about how many views."""
import os, time
import ray, tones

def slow():
    teacher = tones.plain()
    forward = teacher.forward
    def logged(waveforms, masks=None):
        time.sleep(0.1)
        if ray.is_initialized() and ray.get_runtime_context().get_actor_id():
            with open("asked.log", "a") as log:
                log.write(f"{ray.get_runtime_context().get_node_id()} {os.getpid()} {len(waveforms)}\\n")
        return forward(waveforms, masks)
    teacher.forward = logged
    return teacher

def failing():
    teacher = tones.plain()
    forward = teacher.forward
    def broken(waveforms, masks=None):
        said = forward(waveforms, masks)
        if ray.is_initialized() and ray.get_runtime_context().get_actor_id():
            said[1, 0] = float("nan")
        return said
    teacher.forward = broken
    return teacher
'''


@pytest.fixture(scope="module")
def cluster():
    """A head and two nodes, that this process is connected to; all of it ends with the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        patch.setenv("RAY_health_check_period_ms", "1000")
        patch.setenv("RAY_health_check_failure_threshold", "10")
        patch.setenv("RAY_BACKEND_LOG_LEVEL", "fatal")
        patch.setenv("RAY_enable_worker_prestart", "0")
        patch.setenv("RAY_prestart_worker_first_driver", "0")
        Config.initialize("")  # or Ray would not see the token, which it looks for as it is imported
        started = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 80 << 20})
        try:
            started.workers = [started.add_node(**WORKER) for _ in range(2)]
            ray.init(address=started.address, log_to_driver=False, logging_level=logging.ERROR)
            yield started
        finally:
            ray.shutdown()
            started.shutdown()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Audio with a clip that cannot be read, and the store that one process makes of it, in the current folder."""
    folder = tmp_path_factory.mktemp("ray")
    write_audio(folder / "audio", CLIPS)
    (folder / "audio" / "text.wav").write_text("no audio")
    with inside(folder):
        (folder / "slow.py").write_text(SLOW)
        build(asked(folder, out=folder / "single"))
        yield folder


@pytest.fixture
def bucket():
    """The URL of a folder of an S3 API on 127.0.0.1."""
    with s3_server():
        boto3.client("s3").create_bucket(Bucket="logits")
        yield "s3://logits/ray"


def asked(root: Path, **changes):
    return options(
        root,
        **{
            "teachers": ["python:slow:slow", "python:tones:steep"],
            "shard_clips": 4,
            "batch_size": 5,
            "clip_seconds": 1.0,
            "keep_members": True,
            "workers": 1,
            **changes,
        },
    )


def on_ray(root: Path, cluster, **changes):
    return asked(root, engine="ray", ray_address=cluster.address, ray_actors="1:2", **changes)


class Failing:
    """Kills the node where the teachers are and adds another, once; and keeps a log of it."""

    def __init__(self, cluster):
        self.cluster, self.began, self.log = cluster, time.monotonic(), []
        Path("asked.log").unlink(missing_ok=True)

    def tell(self, event):
        self.log.append(f"{time.monotonic() - self.began:5.1f} s  {event}")

    def asked(self):
        """The node, the process and the number of views of each call of a teacher."""
        try:
            return [line.split() for line in Path("asked.log").read_text().split("\n")[:-1]]
        except FileNotFoundError:
            return []

    def kill(self):
        workers = self.cluster.workers
        name = self.asked()[-1][0]
        node = next(each for each in workers if each.node_id == name)
        self.cluster.remove_node(node, allow_graceful=False)
        workers.remove(node)
        self.tell(f"killed node {name[:8]}, where the teachers are")
        workers.append(self.cluster.add_node(**WORKER))
        self.tell(f"added node {workers[-1].node_id[:8]}")

    def check(self, out, single):
        """The bytes are there, and it was no easy ride."""
        there = open_storage(out)
        assert {name: there.get(name) for name in there.names()} == single
        by_process = Counter()
        for node, process, views in self.asked():
            by_process[f"process {process} of node {node[:8]}"] += int(views)
        self.tell(f"the teachers were asked about {sum(by_process.values())} views: {dict(by_process)}")
        assert len(by_process) > 1
        assert sum(by_process.values()) >= VIEWS
        if "RAY_TEST_LOG" in os.environ:
            with Path(os.environ["RAY_TEST_LOG"]).open("a") as file:
                file.write("\n".join([out, *self.log, ""]))


def test_the_bytes_are_those_of_one_process_when_a_node_dies_and_another_joins(root, cluster):
    failing, done = Failing(cluster), 0

    def advance(views):
        nonlocal done
        before, done = done, done + views
        if before < VIEWS // 3 <= done:
            failing.tell(f"{done} views have come")
            failing.kill()

    summary = build(on_ray(root, cluster, out=root / "store"), Progress(advance=advance, note=failing.tell))
    failing.tell(f"{summary.made_views} views made")
    failing.check(str(root / "store"), contents(root / "single"))


def test_the_script_of_the_documents_fills_a_bucket_while_a_node_dies_and_another_joins(root, cluster, bucket):
    told = {
        "AUDIO": "audio", "STORE": bucket, "TEACHER": "python:slow:slow", "VIEWS": "3", "DEVICE": "cpu",
        "MORE": "--teacher python:tones:steep --topk 4 --clip-seconds 1 --batch-size 5 --shard-clips 4 --keep-members",
        "RAY_ADDRESS": cluster.address, "ACTORS": "1:2",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(root)]),
    }  # fmt: skip
    failing = Failing(cluster)
    run = subprocess.Popen(
        [REPOSITORY / "docs" / "scaling" / "ray.sh"], cwd=root, env=os.environ | told, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while len(failing.asked()) < VIEWS // 3 // 5:
        assert run.poll() is None, run.communicate()
        time.sleep(0.05)
    failing.kill()
    out, err = run.communicate(timeout=300)
    assert run.returncode == 0, err
    lines = f"store      {bucket}\nclips      31 x 3 views, in 8 blocks\nmade       90 views in "
    assert out.startswith(lines)
    assert f"note       Ray {ray.__version__}, {cluster.address}: 3 nodes, 4 CPUs, 0 GPUs" in err
    failing.check(bucket, contents(root / "single"))


def test_an_error_on_the_cluster_is_the_one_line_of_a_single_process(root, cluster):
    with pytest.raises(AudioError, match=r"^text.wav: not readable as audio.*; without --strict it is recorded"):
        build(on_ray(root, cluster, out=root / "strict", strict=True, shards="7:"))
    with pytest.raises(ModelOutputError, match=r"^[ab]/00\d.wav, view \d: teacher 'python:slow:failing' gave NaN"):
        build(on_ray(root, cluster, out=root / "nan", teachers=["python:slow:failing"], shards=":1"))
    assert not list((root / "strict").glob("c[ol][ma]*/*.json"))
    assert not list((root / "nan").glob("c[ol][ma]*/*.json"))


def test_what_a_cluster_cannot_do_is_refused_at_once(root, monkeypatch):
    def refused(error, words, **changes):
        with pytest.raises(error, match=words):
            prepare(asked(root, out=root / "never", **changes))

    refused(UsageError, "--ray-address is of a build on Ray; give --engine ray", ray_address="auto")
    refused(UsageError, "--ray-actors is of a build on Ray", ray_actors="4")
    on = {"engine": "ray"}
    refused(UsageError, "Ray Client", ray_address="ray://head:10001", **on)
    refused(UsageError, "no address of a Ray cluster; give HOST:PORT", ray_address="head", **on)
    refused(StoreError, r"no Ray cluster at 127.0.0.1:1 \(Connection refused\)", ray_address="127.0.0.1:1", **on)
    refused(UsageError, "not of the form A:B", ray_actors="many", **on)
    refused(UsageError, "at least 1 is needed", ray_actors="4:2", **on)
    refused(UsageError, "names one GPU of many on a cluster; give cuda", device="cuda:1", **on)
    refused(UsageError, "--retry-failed is done by one process", retry_failed=True, **on)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    refused(MissingExtraError, r"pip install 'logitstore\[ray\]'", **on)
    for name, value in {
        "RANK": "0",
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "x",
        "MASTER_PORT": "1",
    }.items():
        monkeypatch.setenv(name, value)
    refused(UsageError, "start it without torchrun", **on)


def test_a_node_without_the_audio_or_the_folder_fails_instead_of_recording_failures(root):
    from logitstore.jobs.build.on_ray import Setting, _require_audio

    job = prepare(asked(root, out=root / "never"))
    table = job.clip_table.slice(0, 4)
    _require_audio(ClipAudio(job.source, table, 16_000), table)
    elsewhere = copy.copy(job.source)
    elsewhere.root = root / "not-mounted"
    with pytest.raises(StoreError, match=r"node .* cannot read audio that was there when it was scanned \(a/000.wav: "):
        _require_audio(ClipAudio(elsewhere, table, 16_000), table)
    setting = Setting.of(job.options, job.manifest, job.source, "cpu", None, None)
    with pytest.raises(UsageError, match="has no folder /nowhere, which the command was started in"):
        replace(setting, folder="/nowhere").enter()
    (root / "tones.py").write_text((root / "tones.py").read_text().replace("slope=4.0", "slope=5.0"))
    with inside(root), pytest.raises(UsageError, match=r"the store has .*; see that all nodes have the same files"):
        setting.load()
