"""A server with batching, TLS with client certificates and tight limits."""

from __future__ import annotations

import concurrent.futures
import datetime
import signal
import ssl
import time

import grpc
import pytest

from serving.client import connect
from serving.server.status import Code, ServingError
from tests.serving import saved_models

pytestmark = pytest.mark.slow


def certificates():
    """A CA and a server and a client certificate of it, all PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    now = datetime.datetime.now(datetime.UTC)

    def make(name, issuer=None, issuer_key=None):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        signer = issuer_key or key
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.subject if issuer else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        )
        if issuer is None:
            usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
            builder = builder.add_extension(usage, critical=True)
        return builder.sign(signer, hashes.SHA256()), key

    def pem(certificate, key):
        encoding = serialization.Encoding.PEM
        private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return private, certificate.public_bytes(encoding)

    ca, ca_key = make("test CA")
    return pem(ca, ca_key)[1], pem(*make("localhost", ca, ca_key)), pem(*make("client", ca, ca_key))


@pytest.fixture(scope="module")
def tls():
    return certificates()


@pytest.fixture(scope="module")
def server(start_server, tmp_path_factory, tls):
    folder = tmp_path_factory.mktemp("limits")
    saved_models.spinning(folder / "m")
    roots, (key, certificate), _ = tls
    ssl_config = folder / "ssl.config"

    def quoted(data):
        return '"' + data.decode().replace("\n", "\\n") + '"'

    ssl_config.write_text(
        f"server_key: {quoted(key)} server_cert: {quoted(certificate)} custom_ca: {quoted(roots)} client_verify: true"
    )
    batching = folder / "batching.config"
    batching.write_text(
        "max_batch_size { value: 4 } batch_timeout_micros { value: 1000 } num_batch_threads { value: 2 }"
    )
    return start_server(
        "--model_name=m",
        f"--model_base_path={folder / 'm'}",
        f"--ssl_config_file={ssl_config}",
        "--enable_batching=true",
        f"--batching_parameters_file={batching}",
        "--max_concurrent_requests=8",
        "--shutdown_grace_seconds=60",
        wait=False,
    )


@pytest.fixture(scope="module")
def options(server, tls):
    roots, _, client_certificate = tls
    options = {"root_certificates": roots, "client_certificate": client_certificate}
    credentials = grpc.ssl_channel_credentials(roots, *client_certificate)
    with grpc.secure_channel(server.grpc_address, credentials) as channel:
        grpc.channel_ready_future(channel).result(120)
    for _ in range(200):  # REST comes a moment after gRPC
        try:
            with connect(f"https://{server.rest_address}", "m", retries=0, **options) as client:
                client.status()
                return options
        except ServingError:
            time.sleep(0.05)
    raise AssertionError(server.stderr())


def test_certificates_are_asked_for_on_both_protocols(server, options):
    for target in (f"grpcs://{server.grpc_address}", f"https://{server.rest_address}"):
        with connect(target, "m", **options) as client:
            assert client.predict({"turns": [1, 2, 3]}).outputs["y"].tolist() == [1, 2, 3]
        for less in ({"root_certificates": options["root_certificates"]}, {}):
            with connect(target, "m", retries=0, timeout=5, **less) as client, pytest.raises(ServingError) as caught:
                client.status()
            assert caught.value.code in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED)
    with connect(f"grpc://{server.grpc_address}", "m", retries=0, timeout=5) as client, pytest.raises(ServingError):
        client.status()
    assert ssl.OPENSSL_VERSION  # the client's TLS is the system's


def test_batches_have_a_limit(server, options):
    with connect(f"grpcs://{server.grpc_address}", "m", **options) as client:
        with pytest.raises(ServingError, match="Task size 5 is larger than maximum input batch size 4"):
            client.predict({"turns": [1] * 5})
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda n: client.predict({"turns": [n]}).outputs["y"].tolist(), range(40)))
    assert answers == [[number] for number in range(40)]


def test_overload_is_told_at_once_and_does_not_grow(server, options):
    with connect(f"grpcs://{server.grpc_address}", "m", retries=0, timeout=120, **options) as client:

        def ask(_):
            try:
                return client.predict({"turns": [100_000]}).outputs["y"].tolist()
            except ServingError as error:
                return error.code.name

        ask(0)
        with concurrent.futures.ThreadPoolExecutor(40) as pool:
            answers = list(pool.map(ask, range(40)))
    assert answers.count([100_000]) >= 8
    assert "RESOURCE_EXHAUSTED" in answers
    assert {answer for answer in answers if isinstance(answer, str)} == {"RESOURCE_EXHAUSTED"}


def test_a_stopping_server_answers_what_it_has_taken(server, options):
    targets = (f"grpcs://{server.grpc_address}", f"https://{server.rest_address}")
    clients = [connect(target, "m", retries=0, timeout=120, **options) for target in targets]
    for client in clients:
        client.predict({"turns": [1]})
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        slow = [pool.submit(client.predict, {"turns": [600_000]}) for client in clients]
        time.sleep(0.3)
        assert not any(each.done() for each in slow), "the slow request was not slow"
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        for client in clients:
            with pytest.raises(ServingError) as caught:
                client.predict({"turns": [1]})
            assert caught.value.code is Code.UNAVAILABLE
        assert [each.result().outputs["y"].tolist() for each in slow] == [[600_000]] * 2
    assert server.process.wait(30) == 0
    for client in clients:
        client.close()
