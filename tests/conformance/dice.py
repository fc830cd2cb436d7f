"""Random requests, valid and invalid: the possible steps and their frequencies."""

import json
import random

from pair import Step
from users import ODD_NAMES as ODD_USERS, ROLES, ROOT, ROOT_PASSWORD, USERS, basic

FORM = "application/x-www-form-urlencoded"

NAMES = ["a", "b", "c", "a", "b", "d", "_h", "_i", "ab", "e%20f", "g+h", "%ec%82%ac", "p%25q", "...", ".x", "A", "x;y", "00000000000000000001"]
DIRECTORIES = ["a", "b", "c", "_h"]
FILES = ["x", "y", "z", "_s"]
ODD_NAMES = ["%00", "%0a", "%22", "%ff", "%5c", "%3f", "%23", "%e2%80%a8", "%3Cb%3E", "\xec\x82\xac", "\xff", "%7B", "n" * 300, "%2e%2e%2e", "a%3Db", "a=b", "a&b", "$", "'", "(", "%c3%28", "|", "^", "[x]", "\"", "<", "`"]
ODD_PIECES = ["//", "/./", "/../", "%2F", "%2f%2F", "/%2e%2e/", "/%2e/", "%zz", "%", "%2", "/", "//..//", "%2G", "/.", "/..", "%5C.."]

VALUES = ["1", "2", "v", "w", "", "a+b", "two%20words", "%ec%82%ac%ea%b3%bc", "%3Ctag%3E%26", "line%0Aend", "%22quoted%22", "%e2%80%a8", "%ff%fe", "%00", "true", "%7B%22j%22%3A1%7D", "%5C", "\xec\x82\xac"]
TTLS = ["1000", "2000", "5000", "100000", "1000000000", "7000000000", "01000"]
BAD_TTLS = ["abc", "-1", "1.5", "+1000", "0x10", "18446744073709551616", "1e3", "%20", "1000%20", "%d9%a3"]
GOOD_BOOLEANS = ["true", "false", "1", "0", "t", "f", "T", "F", "TRUE", "FALSE", "True", "False"]
BAD_BOOLEANS = ["", "yes", "no", "tRue", "2", "-1", "on", "true%20", "truee", "%00"]
INDEXES = ["{m}", "{m}", "{m}", "{m-1}", "{m+1}", "{i}", "{i-1}", "0", "00", "1", "0{m}", "18446744073709551615"]
BAD_INDEXES = ["", "abc", "-1", "%2B5", "+5", "0x5", "18446744073709551616", "5.0", "1e3", "%205", "99999999999999999999999"]
WAIT_INDEXES = ["{i}", "{i-1}", "{i-2}", "{i-5}", "{i-20}", "{i-200}", "{i-900}", "{i-990}", "{m}", "{m+1}", "{m-1}", "{i+1}", "{i+2}", "{i+5}", "0", "1", "2"]

TYPES = [FORM, FORM, FORM, FORM, FORM.upper(), FORM + "; charset=utf-8", FORM + ";charset=UTF-8", FORM + ";", FORM + " ; a=b"]
OTHER_TYPES = ["text/plain", "application/json", "multipart/form-data; boundary=x", "", "form", "application/x-www-form-urlencodedx", "*/*", "text/plain;"]
BROKEN_TYPES = [FORM + "; charset", FORM + "; =x", FORM + "; charset=\"x", "text/plain; a=b; a=c", FORM + "; ;", FORM + "; a=b c"]

OTHER_PATHS = ["/", "/v2", "/v2/", "/v2/key", "/v2/keysa", "/v2/Keys", "/v1/keys/a", "/v2/admin", "/v2/leader", "/version", "/version/", "/health", "/health/", "/v2/machines", "/v2/machines/", "/v2/members", "/v2/members/", "/v2/members/leader", "/v2/members/nobody", "/v2/members/1", "/v2/stats", "/v2/stats/", "/v2/stats/self", "/v2/stats/store", "/v2/stats/leader", "/v2/stats/none", "/v2/auth", "/v2/auth/enable", "/v2/auth/enable/", "/metrics", "/debug/vars", "/debug", "/config/local/log", "/favicon.ico", "/%76ersion", "/version?x=1", "/v2/../version", "//version", "/v2/keys/../stats/store", "/v2//keys/a", "/./health", "/v2/%6beys/a", "/v2/stats/../members"]
ODD_METHODS = ["PATCH", "TRACE", "OPTIONS", "OPTIONS", "get", "put", "Put", "FOO", "LINK", "PROPFIND"]

PASSWORDS = ["1", "2", "long " * 20]
# The reference does not answer a request that it compares with an empty pattern.
PATTERNS = ["/*", "*", "/{p}/*", "/{p}/a/*", "/{p}/b*", "/{p}/a", "/{p}/a/", "/{p}", "/{p}/b/x", "/{p}/%", "/{p}/<&>"]
ODD_BODIES = ["", "null", "{}", "[]", "1", "x", '{"user":1}', '{"role":1}', '{"user":"a","password":1}', '{"user":"a","roles":"r"}', '{"user":"a"} trailing', '{"USER":"a","PASSWORD":"1"}', '{"user":"a","user":"b","password":"1"}', '{"role":"r","grant":5}', '{"role":"r","permissions":null}', '{"role":"r","grant":{"KV":{"READ":["/x"]}}}', '{"role":"r","permissions":{"kv":{"read":null,"write":[]}}}', '{"user":"a"']
ODD_CREDENTIALS = ["Basic", "Basic ", "Basic cm9vdDpw=", "basic cm9vdDpw", "Basic  cm9vdDpw", "Bearer cm9vdDpw", "Basic cm9vdA==", "Basic cm9vdDo=", ""]
# Steps for which users and roles are enforced. The reference compares a password for each of them, which takes it about
# a tenth of a second.
EPISODE = (5, 40)


class Dice:
    """All random choices of one seed."""

    def __init__(self, seed, auth=True):
        self.random = random.Random(seed)
        self.open = []          # names of watches that may be open
        self.auth = auth
        self.enforced = 0       # steps until authentication is disabled again; 0: it is disabled
        self.passwords = {"root": ROOT_PASSWORD}

    def chance(self, share):
        return self.random.random() < share

    def one(self, choices):
        return self.random.choice(choices)

    # ---- steps

    def step(self):
        if self.auth:
            if self.enforced:
                self.enforced -= 1
                if not self.enforced:
                    return Step("auth", "DELETE", "/v2/auth/enable", ROOT)
            if self.chance(0.02):
                return self.auth_step()
        return self.with_credentials(self.other_step())

    def other_step(self):
        roll = self.random.random()
        if roll < 0.07:
            return self.watch()
        if roll < 0.085 and self.open:
            return Step("close", name=self.open.pop(0))
        if roll < 0.125:
            return self.other_path()
        if roll < 0.128:
            return self.expiring()
        if roll < 0.131:
            return Step("ask", "DELETE", "/v2/keys/{p}?recursive=true", key="")
        if roll < 0.133:
            return Step("member", name=self.one(["localhost", "127.0.0.1"]))
        return self.key_request()

    def key_request(self):
        method = self.one(["PUT"] * 9 + ["GET"] * 6 + ["DELETE"] * 4 + ["POST"] * 2 + ["HEAD"])
        if self.chance(0.01):
            method = self.one(ODD_METHODS)
        key, path = self.path(method)
        if method in ("PUT", "DELETE") and self.chance(0.1):
            return self.place(method, path, key, self.swap_pairs(method))
        if method in ("PUT", "POST") and self.chance(0.8):
            pairs = self.write_pairs(method)
        elif method == "DELETE":
            pairs = self.delete_pairs()
        elif method in ("GET", "HEAD"):
            pairs = self.read_pairs()
        else:
            pairs = self.write_pairs(method)
        if self.chance(0.06):
            pairs += self.bad_pairs()
        if self.chance(0.05):
            self.random.shuffle(pairs)
        return self.place(method, path, key, pairs)

    def expiring(self):
        """A key with a very short time to live. It must have expired on both servers before the next step."""
        key, path = self.plain_key()
        body = "value=%s&ttl=%s" % (self.one(VALUES), self.one(["0", "1"]))
        return Step("expire", "PUT", "/v2/keys/{p}" + path, (("Content-Type", FORM),), body, key)

    def watch(self):
        key, path = self.path()
        if self.chance(0.05):
            path, key = "", ""
        pairs = ["wait=" + ("true" if self.chance(0.9) else self.one(GOOD_BOOLEANS))]
        if self.chance(0.5):
            pairs.append("recursive=true")
        if self.chance(0.5):
            pairs.append("waitIndex=" + self.one(WAIT_INDEXES))
        if self.chance(0.3):
            pairs.append("stream=true")
        if self.chance(0.04):
            pairs.append("quorum=true")
        if self.chance(0.04):
            pairs += self.bad_pairs()
        name = "w%d" % self.random.randrange(6)
        self.open.append(name)
        self.open = self.open[-6:]
        return Step("ask", "GET", "/v2/keys/{p}%s?%s" % (path, "&".join(pairs)), (), None, key, name)

    def other_path(self):
        path = self.one(OTHER_PATHS)
        method = self.one(["GET"] * 8 + ["HEAD", "PUT", "POST", "DELETE"] + ODD_METHODS)
        if self.chance(0.1):
            return Step("ask", "OPTIONS", self.one(["*", "/v2/keys/{p}/a", "/nothing", "/v2/auth/users"]))
        allowed = {"/v2/members": ("GET", "HEAD"), "/v2/auth/enable": ("GET", "HEAD", "POST")}
        for start, methods in allowed.items():
            # Members and auth are changed by nobody here: only what is refused at the HTTP server, and reads.
            if path.startswith(start) and method in ("PUT", "POST", "DELETE") and method not in methods:
                method = "PATCH"
        if path == "/v2/stats/../members" and method != "GET":
            method = "PATCH"
        if path.startswith("/config") and method == "PUT":
            body = self.one(['{"Level":"INFO"}', '{"Level":"NONE"}', "not json"])
            return Step("ask", "PUT", path, (("Content-Type", "application/json"),), body)
        if path in ("/v2/members", "/v2/members/") and self.chance(0.2):
            return Step("ask", self.one(["PUT", "DELETE"]), "/v2/members")
        if "keys" in path and method in ("PUT", "DELETE", "POST") and ".." not in path:
            method = "GET"
        return Step("ask", method, path)

    # ---- users and roles

    def with_credentials(self, step):
        """The step with the credentials of somebody, mostly while it matters."""
        if step.kind not in ("ask", "expire") or not self.chance(0.85 if self.enforced else 0.01):
            return step
        step.headers = tuple(step.headers) + self.credentials(0.5)
        return step

    def credentials(self, root):
        """`root`: how often they are those of root."""
        if self.chance(root):
            return ROOT
        if self.chance(0.1):
            return (("Authorization", self.one(ODD_CREDENTIALS)),)
        name = self.one(USERS + ["nobody"])
        password = self.passwords.get(name, "1") if self.chance(0.8) else self.one(PASSWORDS)
        return basic(name, password)

    def auth_step(self):
        kind = self.one(["user"] * 5 + ["role"] * 5 + ["delete user", "delete role", "read", "read", "odd"]
                        + ["enable"] * 4)
        headers = self.credentials(0.85)
        if kind == "enable":
            self.enforced = self.enforced or self.random.randint(*EPISODE)
            return Step("auth", "PUT", "/v2/auth/enable", headers)
        if kind == "user":
            return self.put_user(headers)
        if kind == "role":
            return self.put_role(headers)
        if kind == "odd":
            name = self.one(["a", "r"] + ODD_USERS)
            body = self.one(ODD_BODIES + ['{"user":"%s","password":"1"}' % name])
            target = "/v2/auth/%s/%s" % (self.one(["users", "roles"]), name)
            return Step("auth", self.one(["PUT"] * 3 + ["GET", "DELETE", "POST"]), target, headers, body)
        user, role = self.one(USERS), self.one(ROLES)
        if kind == "delete user":
            return Step("auth", "DELETE", "/v2/auth/users/" + user, headers)
        if kind == "delete role":
            return Step("auth", "DELETE", "/v2/auth/roles/" + role, headers)
        pages = ["enable", "users", "users/", "users/" + user, "users/" + user + "/", "users/a/b",
                 "roles", "roles/" + role, "roles/a/b", "users/none"]
        return Step("auth", "GET", "/v2/auth/" + self.one(pages), headers)

    def put_user(self, headers):
        name = self.one(USERS + ["root"])
        body = {"user": name}
        if self.chance(0.75):
            # The programs that compare need root's password.
            body["password"] = ROOT_PASSWORD if name == "root" else self.one(PASSWORDS)
            self.passwords[name] = body["password"]
        for field, share in (("roles", 0.3), ("grant", 0.3), ("revoke", 0.15)):
            if self.chance(share):
                body[field] = self.some(ROLES)
        return Step("auth", "PUT", "/v2/auth/users/" + name, headers, json.dumps(body))

    def put_role(self, headers):
        name = self.one(ROLES[:5])
        body = {"role": name}
        for field, share in (("permissions", 0.6), ("grant", 0.4), ("revoke", 0.2)):
            if self.chance(share):
                body[field] = {"kv": {right: self.some(PATTERNS) for right in ("read", "write") if self.chance(0.8)}}
        return Step("auth", "PUT", "/v2/auth/roles/" + name, headers, json.dumps(body))

    def some(self, choices):
        return [self.one(choices) for _ in range(self.random.choice([0, 1, 1, 2, 3]))]

    # ---- keys

    def plain_key(self):
        names = [self.one(NAMES[:6]) for _ in range(self.random.choice([1, 1, 2, 2, 3]))]
        path = "/" + "/".join(names)
        return path, path

    def usual_names(self, method):
        """A key at most two levels deep, so that conditions apply to keys more often than to directories."""
        names = [self.one(DIRECTORIES) for _ in range(self.random.choice([0, 1, 1, 2]))]
        if method != "POST" or self.chance(0.2):
            names.append(self.one(FILES))
        return names or ["a"]

    def path(self, method=""):
        """The key that a condition refers to, and the path as it is sent."""
        if self.chance(0.7):
            names = self.usual_names(method)
        else:
            names = [self.one(NAMES[:6] if self.chance(0.8) else NAMES)
                     for _ in range(self.random.choice([1, 1, 1, 2, 2, 2, 3, 3, 4]))]
        if self.chance(0.03):
            names[self.random.randrange(len(names))] = self.one(ODD_NAMES)
        path = "/" + "/".join(names)
        key = path
        if self.chance(0.03):
            path += "/"
        if self.chance(0.03):
            cut = self.random.randrange(len(path) + 1)
            path = path[:cut] + self.one(ODD_PIECES) + path[cut:]
        if self.chance(0.004):
            path = "/" + "/".join(self.one(NAMES[:6]) for _ in range(self.one([20, 60, 200])))
        return key, path

    # ---- parameters

    def write_pairs(self, method):
        pairs = []
        if self.chance(0.9):
            pairs.append("value=" + self.value())
        if self.chance(0.15):
            pairs.append("ttl=" + self.one(TTLS))
        if self.chance(0.12):
            pairs.append("dir=" + self.boolean())
        if self.chance(0.2):
            pairs.append("prevExist=" + self.boolean())
        if self.chance(0.12):
            pairs.append("prevValue=" + (self.one(["{v}", "{v}", "{v}x"]) if self.chance(0.8) else self.one(VALUES)))
        if self.chance(0.12):
            pairs.append("prevIndex=" + self.one(INDEXES))
        if self.chance(0.06):
            pairs = [pair for pair in pairs if not pair.startswith("value=") or self.chance(0.1)]
            pairs += ["refresh=" + self.boolean(), "ttl=" + self.one(TTLS)]
        if self.chance(0.05):
            pairs.append("noValueOnSuccess=" + self.boolean())
        if method == "POST" and self.chance(0.7):
            pairs = pairs[:2]
        return pairs

    def swap_pairs(self, method):
        """A condition that is often true, and few other parameters."""
        pairs = ["value=" + self.value()] if method == "PUT" else []
        if self.chance(0.6):
            pairs.append("prevValue=" + self.one(["{v}"] * 4 + ["wrong"]))
        if self.chance(0.6):
            pairs.append("prevIndex=" + self.one(["{m}"] * 4 + ["{m-1}", "0"]))
        if method == "PUT" and self.chance(0.2):
            pairs.append(self.one(["ttl=1000", "noValueOnSuccess=true", "prevExist=true", "dir=true"]))
        return pairs

    def delete_pairs(self):
        pairs = []
        if self.chance(0.3):
            pairs.append("recursive=" + self.boolean())
        if self.chance(0.3):
            pairs.append("dir=" + self.boolean())
        if self.chance(0.15):
            pairs.append("prevValue=" + self.one(["{v}", "{v}", "x"]))
        if self.chance(0.15):
            pairs.append("prevIndex=" + self.one(INDEXES))
        return pairs

    def read_pairs(self):
        pairs = []
        for name, share in (("recursive", 0.35), ("sorted", 0.4), ("quorum", 0.1), ("dir", 0.03), ("stream", 0.02)):
            if self.chance(share):
                pairs.append("%s=%s" % (name, self.boolean()))
        if self.chance(0.03):
            pairs.append("waitIndex=" + self.one(INDEXES))
        return pairs

    def bad_pairs(self):
        """One or two parameters that are invalid, unusual or repeated."""
        def one():
            name = self.one(["recursive", "sorted", "wait", "dir", "quorum", "stream", "prevExist", "refresh", "noValueOnSuccess"])
            return self.one([
                lambda: "%s=%s" % (name, self.one(BAD_BOOLEANS)),
                lambda: "%s=%s&%s=%s" % (name, self.one(GOOD_BOOLEANS), name, self.one(GOOD_BOOLEANS + BAD_BOOLEANS)),
                lambda: name,
                lambda: "prevIndex=" + self.one(BAD_INDEXES),
                lambda: "waitIndex=" + self.one(BAD_INDEXES),
                lambda: "ttl=" + self.one(BAD_TTLS),
                lambda: "ttl=",
                lambda: "prevValue=",
                lambda: "prevValue",
                lambda: "value=%zz",
                lambda: "value=%",
                lambda: "value=1%2",
                lambda: "a;b=c",
                lambda: "&&",
                lambda: "=x",
                lambda: "=",
                lambda: "recurisive=true",
                lambda: "Recursive=true",
                lambda: "value=" + self.value(),
                lambda: "%76alue=enc",
                lambda: "v%zzlue=1",
                lambda: "refresh=true",
                lambda: "refresh=true&value=1&ttl=1000",
                lambda: "wait=true",
                lambda: "x?y=z",
            ])()
        return [one() for _ in range(self.one([1, 1, 1, 2]))]

    def boolean(self):
        return "true" if self.chance(0.7) else self.one(GOOD_BOOLEANS)

    def value(self):
        if self.chance(0.004):
            return "long" * self.one([300, 3000, 20000])
        return self.one(VALUES)

    def place(self, method, path, key, pairs):
        """Puts the parameters into query and form, with a random content type."""
        base = "/v2/keys/{p}" + path
        if self.chance(0.006):
            base, key = self.one(["/v2/keys", "/v2/keys/", "/v2/keys/{p}", "/v2/keys/{p}/"]), ""
            if method == "DELETE":
                pairs = [pair for pair in pairs if not pair.startswith("recursive")]
        if self.chance(0.003):
            base = "http://somewhere:80" + base
        long = sum(map(len, pairs)) > 30000      # more than a request line may hold
        in_form = long or method in ("PUT", "POST") and self.chance(0.8) or self.chance(0.03)
        if not in_form:
            query = "?" + "&".join(pairs) if pairs or self.chance(0.02) else ""
            return Step("ask", method, base + query, (), None, key)
        cut = self.random.randrange(len(pairs) + 1) if self.chance(0.2) and not long else 0
        query = "?" + "&".join(pairs[:cut]) if cut else ""
        content_type = self.content_type()
        headers = (("Content-Type", content_type),) if content_type is not None else ()
        body = "&".join(pairs[cut:])
        if self.chance(0.02):
            pieces = body.partition("&")
            return Step("ask", method, base + query, headers, tuple(pieces), key)   # sent chunked
        return Step("ask", method, base + query, headers, body, key)

    def content_type(self):
        roll = self.random.random()
        if roll < 0.9:
            return FORM
        if roll < 0.95:
            return self.one(TYPES)
        if roll < 0.985:
            return self.one(OTHER_TYPES)
        if roll < 0.99:
            return None
        return self.one(BROKEN_TYPES)
