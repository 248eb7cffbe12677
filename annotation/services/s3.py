"""The S3-compatible storage: django-storages' own, with time-outs, and errors that say which file and why."""

from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeVar

from boto3.exceptions import Boto3Error, RetriesExceededError
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    ReadTimeoutError,
    SSLError,
)
from botocore.exceptions import ConnectionError as NotConnected
from storages.backends.s3 import S3Storage

from annotation.services.patience import AWAY, DAMAGED, REFUSED, StorageError, patiently

CONNECT_SECONDS = 3
MIB = 1 << 20
# What servers say that are overloaded, or whose clock or disks will be mended.
PASSING = {"SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "Throttling", "503", "500"}

T = TypeVar("T")


class RemoteStorage(S3Storage):  # type: ignore[misc]
    """Raises StorageError in place of the errors of boto3, FileNotFoundError for what is not there.

    Objects are private: no ACL is sent, no address of one is given out. A name that is written again is replaced, by
    the server and in one step. timeout: seconds that the server may be silent; every request is tried twice.
    """

    def __init__(self, *, timeout: float = 10, **options: Any) -> None:
        own_server = bool(options.get("endpoint_url"))
        # The checksums that boto3 adds of its own accord are unknown to many servers that are not Amazon's.
        checksums = "when_required" if own_server else "when_supported"
        super().__init__(
            client_config=Config(
                connect_timeout=CONNECT_SECONDS,
                read_timeout=timeout,
                retries={"mode": "standard", "total_max_attempts": 2},
                s3={"addressing_style": options.get("addressing_style", "auto")},
                request_checksum_calculation=checksums,
                response_checksum_validation=checksums,
            ),
            transfer_config=TransferConfig(
                multipart_threshold=16 * MIB,
                multipart_chunksize=16 * MIB,
                max_concurrency=4,
                num_download_attempts=2,
                preferred_transfer_client="classic",
            ),
            max_memory_size=16 * MIB,  # of an opened file; the rest of it lies in a temporary one
            file_overwrite=True,
            default_acl=None,
            **options,
        )
        self.timeout = timeout

    def fetch(self, name: str, path: Path) -> None:
        """Download into a local file, whose size is compared with what the server says."""

        def download() -> None:
            size = self._head(name)
            with path.open("wb") as file:
                client = self.connection.meta.client
                client.download_fileobj(self.bucket_name, self._key(name), file, Config=self.transfer_config)
            if path.stat().st_size != size:
                raise StorageError(name, f"{path.stat().st_size} bytes of {size}", DAMAGED)

        self._ask(name, download)

    def stream(self, name: str, first: int = 0) -> tuple[IO[bytes], int]:
        """The stored file from this byte on as it comes from the server, and the size in bytes of all of it."""

        def begin() -> tuple[IO[bytes], int]:
            part = {"Range": f"bytes={first}-"} if first else {}
            answer = self.connection.meta.client.get_object(Bucket=self.bucket_name, Key=self._key(name), **part)
            return answer["Body"], first + int(answer["ContentLength"])

        return self._ask(name, begin)

    def exists(self, name: str) -> bool:
        return bool(self._ask(name, lambda: super(RemoteStorage, self).exists(name)))

    def size(self, name: str) -> int:
        return self._ask(name, lambda: self._head(name))

    def delete(self, name: str) -> None:
        self._ask(name, lambda: super(RemoteStorage, self).delete(name))

    def listdir(self, name: str) -> tuple[list[str], list[str]]:
        found: tuple[list[str], list[str]] = self._ask(name, lambda: super(RemoteStorage, self).listdir(name))
        return found

    def _open(self, name: str, mode: str = "rb") -> Any:
        return self._ask(name, lambda: super(RemoteStorage, self)._open(name, mode))

    def _save(self, name: str, content: Any) -> str:
        return str(self._ask(name, lambda: super(RemoteStorage, self)._save(name, content)))

    def _key(self, name: str) -> str:
        return str(self._normalize_name(name))

    def _head(self, name: str) -> int:
        answer = self.connection.meta.client.head_object(Bucket=self.bucket_name, Key=self._key(name))
        return int(answer["ContentLength"])

    def _ask(self, name: str, request: Callable[[], T]) -> T:
        def asked() -> T:
            try:
                return request()
            except (BotoCoreError, ClientError, Boto3Error) as error:
                raise self._told(name, error) from error

        return patiently(asked)

    def _told(self, name: str, error: Exception) -> Exception:
        """What is raised in place of an error of boto3."""
        cause: BaseException = error
        if isinstance(error, RetriesExceededError):
            cause = error.last_exception
        elif isinstance(error, Boto3Error) and error.__context__ is not None:  # an upload's, which only has the text
            cause = error.__context__
        if isinstance(cause, ClientError):
            return _answered(name, cause)
        if isinstance(cause, NoCredentialsError):
            return StorageError(name, "no access key is set", REFUSED)
        if isinstance(cause, SSLError):
            return StorageError(name, f"its certificate: {cause.kwargs.get('error', cause)}", REFUSED)
        if isinstance(cause, FlexibleChecksumError):
            return StorageError(name, "its checksum is another", DAMAGED)
        where = self.endpoint_url or "S3"
        if isinstance(cause, ConnectTimeoutError):
            return StorageError(name, f"no connection to {where} within {CONNECT_SECONDS} s")
        if isinstance(cause, ReadTimeoutError):
            return StorageError(name, f"no answer of {where} within {self.timeout:g} s")
        if isinstance(cause, NotConnected):
            return StorageError(name, f"no connection to {where}")
        if isinstance(cause, (HTTPClientError, IncompleteReadError, RetriesExceededError)):
            return StorageError(name, f"the connection to {where} broke off")
        return StorageError(name, str(cause), REFUSED if isinstance(cause, BotoCoreError) else AWAY)


def _answered(name: str, error: ClientError) -> Exception:
    """Of an answer that is an error."""
    code, status = str(error.response["Error"].get("Code")), error.response["ResponseMetadata"].get("HTTPStatusCode", 0)
    if code == "NoSuchBucket":
        return StorageError(name, "there is no such bucket", REFUSED)
    if status == 404:
        return FileNotFoundError(f"{name} is not in storage")
    passing = status >= 500 or status == 429 or code in PASSING
    reason = error.response["Error"].get("Message") or code
    return StorageError(name, f"{reason} ({status})" if status else reason, AWAY if passing else REFUSED)
