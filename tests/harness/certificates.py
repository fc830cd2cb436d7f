"""Makes certificates with openssl, for the tests in Python."""

import pathlib
import ssl
import subprocess


def openssl(*words, **more):
    subprocess.run(["openssl", *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **more)


class Authority:
    """A CA whose files are in a folder. `ca` is the path of its certificate."""

    def __init__(self, folder, name="ca"):
        self.folder = pathlib.Path(folder)
        self.ca, self.key = self.folder / ("%s.crt" % name), self.folder / ("%s.key" % name)
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                "-subj", "/CN=%s" % name, "-keyout", str(self.key), "-out", str(self.ca))

    def sign(self, name, addresses):
        """A certificate for these addresses, as a server and as a client. Returns the paths of its file and its key."""
        cert, key, request = (self.folder / (name + end) for end in (".crt", ".key", ".csr"))
        openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                "-subj", "/CN=%s" % name, "-keyout", str(key), "-out", str(request))
        names = "subjectAltName=" + ",".join("IP:" + address for address in addresses)
        extensions = self.folder / (name + ".extensions")
        extensions.write_text(names + "\nextendedKeyUsage=serverAuth,clientAuth\n")
        openssl("x509", "-req", "-in", str(request), "-CA", str(self.ca), "-CAkey", str(self.key), "-CAcreateserial",
                "-days", "1", "-extfile", str(extensions), "-out", str(cert))
        return cert, key

    def context(self, pair=None):
        """For a client that trusts this CA, with a certificate or without."""
        context = ssl.create_default_context(cafile=str(self.ca))
        if pair:
            context.load_cert_chain(*map(str, pair))
        return context
