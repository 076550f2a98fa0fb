import socket
import threading

import pytest

from jobs.cluster.probe import NoAnswerError, accepts
from tests.jobs.cluster.fake_ray import closed_address, head


def test_head_without_a_token_accepts_everybody() -> None:
    with head() as address:
        assert accepts(address)
        assert accepts(address, "token")


def test_head_with_a_token_accepts_only_that() -> None:
    with head("token") as address:
        assert not accepts(address)
        assert not accepts(address, "other")
        assert accepts(address, "token")


@pytest.mark.parametrize("address", ["127.0.0.1:99999", "host.invalid:6379"])
def test_address_that_does_not_exist_does_not_answer(address: str) -> None:
    with pytest.raises(NoAnswerError):
        accepts(address)


def test_address_where_nobody_listens_does_not_answer() -> None:
    with pytest.raises(NoAnswerError, match="refused"):
        accepts(closed_address())


def test_server_of_another_kind_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        with pytest.raises(NoAnswerError, match="it is not a Ray cluster, or it hangs"):
            accepts(f"127.0.0.1:{server.getsockname()[1]}")
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
