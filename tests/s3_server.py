"""A real S3 server: moto's, in a process of its own on this machine. It can be stopped, frozen and started again."""

import os
import signal
import socket
import subprocess
import sys
import time
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import boto3.session

STARTING_SECONDS = 60


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class S3Server:
    """A context manager. `certificate` and `key`: it then speaks HTTPS."""

    def __init__(self, folder: Path, *, certificate: Path | None = None, key: Path | None = None) -> None:
        self.port = free_port()
        self.certificate = certificate
        self._options = ["-c", str(certificate), "-k", str(key)] if certificate else []
        self._log = folder / "s3-server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._kept: dict[str, dict[str, bytes]] = {}

    @property
    def url(self) -> str:
        return f"{'https' if self.certificate else 'http'}://127.0.0.1:{self.port}"

    @cached_property
    def client(self) -> Any:
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
            verify=str(self.certificate) if self.certificate else None,
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def start(self) -> None:
        """Start the process; what was stored when it was stopped is there again, which moto keeps in memory alone."""
        if self._process is not None:
            return
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port), *self._options],
                stdout=log,
                stderr=log,
            )
        until = time.monotonic() + STARTING_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the S3 server does not start: {self._log.read_text()[-2000:]}")
            time.sleep(0.05)
        for bucket, objects in self._kept.items():
            self.client.create_bucket(Bucket=bucket)
            for key, body in objects.items():
                self.client.put_object(Bucket=bucket, Key=key, Body=body)

    def stop(self) -> None:
        self._kept = {bucket: self.objects(bucket) for bucket in self.buckets()}
        self._end()

    def freeze(self) -> None:
        """It takes connections, and answers nothing."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def buckets(self) -> list[str]:
        return [one["Name"] for one in self.client.list_buckets()["Buckets"]]

    def objects(self, bucket: str) -> dict[str, bytes]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        keys = [one["Key"] for page in pages for one in page.get("Contents", [])]
        return {key: self.client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
        except OSError:
            return False

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
