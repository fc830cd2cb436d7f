"""python-etcd over TLS: writes a key and reads it. Prints the value, or that no request was answered.

    secure.py PORT CA [CERT KEY]
"""

import sys

import etcd

port, authority, *pair = sys.argv[1:]
client = etcd.Client(host="127.0.0.1", port=int(port), protocol="https", ca_cert=authority, cert=tuple(pair) or None)
try:
    client.write("/secure", "written over TLS")
    print(client.read("/secure").value)
except etcd.EtcdConnectionFailed:
    print("not answered")
