"""The throw-away certificate authority of a test cluster: certificates, keys and kubeconfigs in one directory."""

import base64
import datetime as dt
import ipaddress
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = dt.timedelta(days=30)
CLOCK_SKEW = dt.timedelta(minutes=5)


def _distinguished_name(common_name: str, organization: str | None = None) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organization:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(attributes)


def _alternative_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write_secret(path: Path, data: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(data)


def _private_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


class CertificateAuthority:
    """A CA in a directory, made there when it is not yet: issues NAME.crt, NAME.key and NAME.kubeconfig."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        certificate, key = directory / "ca.crt", directory / "ca.key"
        if certificate.exists():
            self._certificate = x509.load_pem_x509_certificate(certificate.read_bytes())
            loaded = serialization.load_pem_private_key(key.read_bytes(), None)
            if not isinstance(loaded, ec.EllipticCurvePrivateKey):
                raise TypeError(f"{key} holds another kind of key than this program wrote")
            self._key = loaded
            return
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = _distinguished_name("test-ca")
        self._certificate = self._sign(name, self._key.public_key(), issuer=name)
        _write_secret(key, _private_pem(self._key))
        self._make_service_account_key()
        certificate.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def _make_service_account_key(self) -> None:
        key = rsa.generate_private_key(65537, 2048)
        _write_secret(self.directory / "sa.key", _private_pem(key))
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        (self.directory / "sa.pub").write_bytes(public)

    def _sign(
        self,
        subject: x509.Name,
        public_key: ec.EllipticCurvePublicKey,
        *,
        issuer: x509.Name | None = None,
        alternative_names: Sequence[str] = (),
    ) -> x509.Certificate:
        """Sign a certificate; with an issuer given, the CA's own."""
        authority = issuer is not None
        now = dt.datetime.now(dt.UTC)
        usage = x509.KeyUsage(
            digital_signature=True,
            key_encipherment=not authority,
            key_cert_sign=authority,
            crl_sign=authority,
            content_commitment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer or self._certificate.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - CLOCK_SKEW)
            .not_valid_after(now + LIFETIME)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            # Python since 3.13 verifies with VERIFY_X509_STRICT, which asks for both key identifiers.
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if not authority:
            purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        if alternative_names:
            names = x509.SubjectAlternativeName([_alternative_name(n) for n in alternative_names])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def issue(
        self,
        name: str,
        common_name: str,
        organization: str | None = None,
        alternative_names: Sequence[str] = (),
    ) -> None:
        """Write NAME.crt and NAME.key; Kubernetes reads the user from the common name, the group from the other."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _distinguished_name(common_name, organization)
        certificate = self._sign(subject, key.public_key(), alternative_names=alternative_names)
        _write_secret(self.directory / f"{name}.key", _private_pem(key))
        (self.directory / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def kubeconfig(self, name: str, server: str, user: dict[str, Any] | None = None) -> Path:
        """Write NAME.kubeconfig for the certificate issued as NAME, or for these user fields (a token, say)."""

        def encoded(file: str) -> str:
            return base64.b64encode((self.directory / file).read_bytes()).decode()

        user = user or {
            "client-certificate-data": encoded(f"{name}.crt"),
            "client-key-data": encoded(f"{name}.key"),
        }
        cluster = {"server": server, "certificate-authority-data": encoded("ca.crt")}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": name}}],
            "current-context": "test",
        }
        path = self.directory / f"{name}.kubeconfig"
        _write_secret(path, json.dumps(config, indent=1).encode())  # JSON is YAML
        return path
