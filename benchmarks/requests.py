"""What a store on an object store costs in requests: a build, the same again, its status, a verification, a training.

    python -m benchmarks.requests                     # 1,000 shards of one clip of 0.1 s, some minutes
    python -m benchmarks.requests --shards 100

moto serves S3's API on this machine's loopback and counts what it is asked; the teacher is fake. Requests do not depend
on what a shard holds, but every 20 seconds a builder renews the claim that it holds (a GET and a PUT). Beside what was
counted stands what docs/cloud.md says for so many shards, without these.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import soundfile

from logitstore.store import requests

RATE = 16_000
SECONDS = 0.1
PAGE = 1000  # names in an answer to a listing
TEACHER = """
import torch


class Fake(torch.nn.Module):
    classes, sample_rate, scores = [f"class {number}" for number in range(8)], 16_000, "sigmoid"

    def forward(self, waveforms, masks=None):
        return torch.sigmoid(waveforms[:, :8])


def fake():
    return Fake()
"""


def stated(shards: int) -> dict[str, int]:
    """Requests as docs/cloud.md states them, by what is done, for a store of so many shards of one block each."""
    commits, blocks = -(-shards // PAGE), -(-3 * shards // PAGE)  # pages of their names
    every = -(-(4 * shards + 2) // PAGE)
    return {
        "build": 9 * shards + 13 + commits + blocks + every,
        "build again": shards + 10 + 5 * commits + blocks + every,
        "status": shards + 4 + commits,
        "verify": 4 * shards + 6 + commits + every,
    }


def served() -> tuple[str, Counter[str]]:
    """The URL of a new S3 API with the bucket ``logits``, and how often it is asked, by method and kind."""
    import boto3  # type: ignore[import-untyped]
    from moto.moto_server import threaded_moto_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    asked: Counter[str] = Counter()

    moto: Any = threaded_moto_server
    application = moto.DomainDispatcherApplication

    class Counting(application):  # type: ignore[misc, valid-type]
        def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
            listing = "list-type=2" in environ.get("QUERY_STRING", "")
            kind = "LIST" if listing else environ["REQUEST_METHOD"]
            asked[{"POST": "DELETE"}.get(kind, kind)] += 1  # obstore deletes by POST
            return super().__call__(environ, start_response)

    moto.DomainDispatcherApplication = Counting
    serving = threaded_moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    serving.start()
    host, port = serving.get_host_and_port()
    url = f"http://{host}:{port}"
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ |= {
        "AWS_ENDPOINT_URL": url, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "me",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }  # fmt: skip
    boto3.client("s3", endpoint_url=url, region_name="us-east-1").create_bucket(Bucket="logits")
    asked.clear()
    return url, asked


def write_clips(folder: Path, count: int) -> None:
    """So many files of noise, 100 in a folder."""
    random = np.random.default_rng(0)
    for number in range(count):
        target = folder / f"{number // 100:04d}" / f"{number:06d}.wav"
        target.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(target, 0.1 * random.standard_normal(int(SECONDS * RATE)), RATE, subtype="PCM_16")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=1000)
    shards = parser.parse_args(arguments).shards

    from logitstore.jobs.build.job import build
    from logitstore.jobs.options import BuildOptions, VerifyOptions
    from logitstore.jobs.status import status
    from logitstore.jobs.verify.job import verify

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_clips(folder / "audio", shards)
        (folder / "faketeacher.py").write_text(TEACHER)
        sys.path.insert(0, name)
        os.chdir(name)
        _, asked = served()
        store = "s3://logits/store"
        options = BuildOptions(
            source=str(folder / "audio"), out=store, teachers=["python:faketeacher:fake"], views=1, topk=4,
            batch_size=1, clip_seconds=SECONDS, shard_clips=1, workers=1, device="cpu",
        )  # fmt: skip
        acts: dict[str, Callable[[], Any]] = {
            "build": lambda: build(options),
            "build again": lambda: build(options),
            "status": lambda: status(store),
            "verify": lambda: verify(VerifyOptions(store=store)),
        }
        print(f"{shards:,} shards; requests by kind\n")
        print("| | GET | PUT | LIST | DELETE | all | stated | a shard | seconds |")
        print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
        for what, act in acts.items():
            asked.clear()
            before, began = requests.sent(), time.monotonic()
            act()
            seconds, made = time.monotonic() - began, requests.sent() - before
            kinds = [made.gets, made.puts, made.listings, made.deletes]
            served_kinds = [asked[kind] for kind in ("GET", "PUT", "LIST", "DELETE")]
            if kinds != served_kinds or made.heads or asked["HEAD"]:
                raise SystemExit(f"{what}: counted {kinds}, and the server was asked {served_kinds}")
            shown = " | ".join(f"{count:,}" for count in kinds)
            print(
                f"| {what} | {shown} | {made.total:,} | {stated(shards)[what]:,} | {made.total / shards:.2f} | "
                f"{seconds:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
