"""Sends the head of a Ray cluster one request: whether it answers, and whether it needs a token.

Ray itself repeats a request that is refused for 20 s, with a line on standard error for each, and
reports in the end that there is no connection. A driver with a token at a cluster without one fails
even later: the workers cannot answer it.
"""

import socket

import grpc

TIMEOUT_S = 10.0
METHOD = "/ray.rpc.NodeInfoGcsService/GetClusterId"
EMPTY_REQUEST = b""  # a protocol buffer without fields
SILENT = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


class NoAnswerError(Exception):
    """No Ray cluster answers at an address; the message is the cause."""


def accepts(address: str, token: str | None = None, timeout_s: float = TIMEOUT_S) -> bool:
    """Returns whether the head at HOST:PORT accepts requests with this token, or without one.

    Raises:
        NoAnswerError: nobody listens at the address, or not a Ray cluster.
    """
    _check_connection(address, timeout_s)
    metadata: list[tuple[str, str]] = []
    if token is not None:
        metadata.append(("authorization", f"Bearer {token}"))

    options = [("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(address, options) as channel:
        request = channel.unary_unary(METHOD)
        try:
            request(EMPTY_REQUEST, timeout=timeout_s, metadata=metadata)
        except grpc.RpcError as error:
            status = error.code()
            if status in SILENT:
                raise NoAnswerError("it is not a Ray cluster, or it hangs") from error
            return bool(status != grpc.StatusCode.UNAUTHENTICATED)
    return True


def _check_connection(address: str, timeout_s: float) -> None:
    host, _, port = address.rpartition(":")
    try:
        connection = socket.create_connection((host.strip("[]"), int(port)), timeout_s)
    except (OSError, OverflowError) as error:
        raise NoAnswerError(str(error)) from error
    connection.close()
