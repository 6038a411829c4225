"""An S3 store on this machine: real HTTP on 127.0.0.1, by moto."""

from collections.abc import Iterator
from contextlib import contextmanager

import fsspec.config
from moto.server import ThreadedMotoServer


@contextmanager
def serve_s3(bucket: str) -> Iterator[str]:
    """Run a store with an empty bucket, of which all code in this process knows, and give its address."""
    import s3fs

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    before = fsspec.config.conf.get("s3")
    fsspec.config.conf["s3"] = {"endpoint_url": address, "key": "test", "secret": "test"}
    try:
        s3fs.S3FileSystem(skip_instance_cache=True).makedirs(bucket, exist_ok=True)
        yield address
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
        fsspec.config.conf.pop("s3")
        if before is not None:
            fsspec.config.conf["s3"] = before
        server.stop()
