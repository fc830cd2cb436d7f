"""Names of users and roles, and their credentials as a header."""

import base64

USERS = ["root", "a", "b", "c", "_u"]
ROLES = ["r", "s", "guest", "_r", "root", "none"]
# Sent, and escaped in the path.
ODD_NAMES = ["%20", "a%00b", "%ff", "%e2%82%ac", "x%2Fy", "<&>"]


def basic(name, password):
    """The header of a user."""
    return (("Authorization", "Basic " + base64.b64encode(("%s:%s" % (name, password)).encode()).decode()),)


# The programs that compare may always do everything. Without authentication the header has no effect.
ROOT_PASSWORD = "p"
ROOT = basic("root", ROOT_PASSWORD)
