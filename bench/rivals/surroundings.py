"""What rivals find in their environment: where to send, and whom to trust."""

import os
import ssl
from pathlib import Path

from bench import sink
from bench.sink import Sink


def environment(to: Sink, folder: Path) -> dict[str, str]:
    """This process's environment, and where the mail server is.

    Where it speaks TLS, the system's file of CA certificates is extended by the sink's: a rival that reads the system's
    certificates has as much to read as anywhere.
    """
    given = {**os.environ, "SMTP_HOST": sink.HOST, "SMTP_PORT": str(to.port)}
    if to.ca_file is None:
        return given
    trusted = folder / "trusted.pem"
    systems = ssl.get_default_verify_paths().cafile
    trusted.write_bytes((Path(systems).read_bytes() if systems else b"") + to.ca_file.read_bytes())
    return {
        **given,
        "SMTP_LOGIN": sink.LOGIN,
        "SMTP_PASSWORD": sink.PASSWORD,
        "SMTP_CA_FILE": str(to.ca_file),
        "SSL_CERT_FILE": str(trusted),
    }
