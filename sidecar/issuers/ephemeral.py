"""A certificate authority in memory: for the demo and for tests, gone with the process."""

from datetime import UTC, datetime, timedelta
from typing import Final, final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sidecar.model.identity import Secret

_SKEW: Final = timedelta(minutes=5)  # clocks of other hosts may be behind


@final
class Authority:
    """Issues workload certificates (X.509-SVIDs) for one trust domain."""

    def __init__(self, trust_domain: str) -> None:
        self._key: Final = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{trust_domain} root")])
        now = datetime.now(UTC)
        identifier = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        self._certificate: Final = (
            _builder(name, name, self._key.public_key(), now - _SKEW, now + timedelta(days=3650))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .add_extension(identifier, critical=False)
            .add_extension(
                x509.SubjectAlternativeName(
                    [x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")]
                ),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )

    @property
    def roots(self) -> bytes:
        """PEM: the root certificate."""
        return self._certificate.public_bytes(Encoding.PEM)

    def issue(
        self,
        identity: str,
        *,
        dns: tuple[str, ...] = (),
        lifetime: float = 86400.0,
        begins: float = -300.0,
    ) -> Secret:
        """Return key material for `identity`, valid from `begins` seconds from now, `lifetime` long."""
        key = ec.generate_private_key(ec.SECP256R1())
        start = datetime.now(UTC) + timedelta(seconds=begins)
        end = start + timedelta(seconds=lifetime)
        names: list[x509.GeneralName] = [x509.DNSName(n) for n in dns]
        if identity:
            names.insert(0, x509.UniformResourceIdentifier(identity))
        builder = (
            _builder(x509.Name([]), self._certificate.subject, key.public_key(), start, end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage(
                    [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
                ),
                critical=False,
            )
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            # Python 3.13 refuses a certificate without it.
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
        certificate = builder.sign(self._key, hashes.SHA256())
        return Secret(
            certificate=certificate.public_bytes(Encoding.PEM),
            key=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            roots=self.roots,
        )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    start: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )
