//! The paths of the client port, and what each of their methods needs from a client.
//!
//! [`Route::rule`] is the only place that decides which requests need credentials. A new path cannot be forgotten: the
//! `match` has no default.

use super::{snapshot, trace};

/// An endpoint, by its decoded and cleaned path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// `/v2/keys`, with the part of the path after it.
    Keys(&'a [u8]),
    /// `/v2/members`, with the part of the path after it.
    Members(&'a [u8]),
    /// `/v2/auth/enable`
    AuthEnable,
    /// `/v2/auth/users`
    Users,
    /// `/v2/auth/users/NAME`
    User(&'a [u8]),
    /// `/v2/auth/roles`
    Roles,
    /// `/v2/auth/roles/NAME`
    Role(&'a [u8]),
    /// A longer path below users or roles.
    AuthInvalid,
    /// `/v2/machines`
    Machines,
    /// `/v2/stats/self`
    StatsSelf,
    /// `/v2/stats/leader`
    StatsLeader,
    /// `/v2/stats/store`
    StatsStore,
    /// `/version`
    Version,
    /// `/health`
    Health,
    /// `/livez`
    Livez,
    /// `/readyz`
    Readyz,
    /// `/debug/vars`
    Vars,
    /// `/config/local/log`
    LogLevel,
    /// `/edgetcd/snapshot`
    Snapshot,
    /// `/edgetcd/trace`
    Trace,
    /// `/edgetcd/status`
    Status,
    /// `/edgetcd/keys`
    Search,
    /// `/edgetcd/history`
    Past,
    /// `/metrics`
    Metrics,
    /// `/`
    Page,
    /// No endpoint.
    Unknown,
}

/// What a request needs while authentication is enabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Nothing.
    Open,
    /// A role that allows the key ([`Store::allows`](crate::auth::Store::allows)).
    Key,
    /// The role `root`.
    Root,
}

impl<'a> Route<'a> {
    /// The endpoint of a path.
    pub fn of(path: &'a [u8]) -> Route<'a> {
        if let Some(rest) = below(path, b"/v2/keys") {
            return Route::Keys(rest);
        }
        if let Some(rest) = below(path, b"/v2/members") {
            return Route::Members(rest);
        }
        if let Some(rest) = below(path, b"/v2/auth/users") {
            return named(rest, Route::Users, Route::User);
        }
        if let Some(rest) = below(path, b"/v2/auth/roles") {
            return named(rest, Route::Roles, Route::Role);
        }
        match path {
            b"/v2/auth/enable" => Route::AuthEnable,
            b"/v2/machines" => Route::Machines,
            b"/v2/stats/self" => Route::StatsSelf,
            b"/v2/stats/leader" => Route::StatsLeader,
            b"/v2/stats/store" => Route::StatsStore,
            b"/version" => Route::Version,
            b"/health" => Route::Health,
            b"/livez" => Route::Livez,
            b"/readyz" => Route::Readyz,
            b"/debug/vars" => Route::Vars,
            b"/config/local/log" => Route::LogLevel,
            snapshot::PATH => Route::Snapshot,
            trace::PATH => Route::Trace,
            b"/edgetcd/status" => Route::Status,
            b"/edgetcd/keys" => Route::Search,
            b"/edgetcd/history" => Route::Past,
            b"/metrics" => Route::Metrics,
            b"/" => Route::Page,
            _ => Route::Unknown,
        }
    }

    /// What a request with this method needs. A method that the endpoint does not have needs nothing, because it is only
    /// refused. The rules are etcd's, and a backup is for `root` because it contains all keys and all password
    /// hashes.
    pub fn rule(self, method: &str) -> Rule {
        let root_for = |methods: &[&str]| match methods.contains(&method) {
            true => Rule::Root,
            false => Rule::Open,
        };
        match self {
            Route::Keys(_) | Route::Search | Route::Past => Rule::Key,
            Route::Members(_) => root_for(&["POST", "PUT", "DELETE"]),
            Route::AuthEnable => root_for(&["PUT", "DELETE"]),
            Route::Users | Route::Roles => root_for(&["GET"]),
            Route::User(_) | Route::Role(_) => root_for(&["GET", "PUT", "DELETE"]),
            Route::Snapshot => root_for(&["GET"]),
            Route::AuthInvalid
            | Route::Machines
            | Route::StatsSelf
            | Route::StatsLeader
            | Route::StatsStore
            | Route::Version
            | Route::Health
            | Route::Livez
            | Route::Readyz
            | Route::Vars
            | Route::LogLevel
            | Route::Trace
            | Route::Status
            | Route::Metrics
            | Route::Page
            | Route::Unknown => Rule::Open,
        }
    }
}

/// A list, or one of its items. A slash at the end does not matter.
fn named<'a>(
    rest: &'a [u8],
    list: Route<'a>,
    item: impl FnOnce(&'a [u8]) -> Route<'a>,
) -> Route<'a> {
    let name = rest.strip_prefix(b"/").unwrap_or(rest);
    let name = name.strip_suffix(b"/").unwrap_or(name);
    match name {
        b"" => list,
        name if name.contains(&b'/') => Route::AuthInvalid,
        name => item(name),
    }
}

/// The part of `path` after the endpoint's path `page`: nothing, or something that begins with a slash.
fn below<'a>(path: &'a [u8], page: &[u8]) -> Option<&'a [u8]> {
    path.strip_prefix(page)
        .filter(|rest| rest.is_empty() || rest[0] == b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_and_what_is_below_it() {
        assert_eq!(below(b"/v2/keys", b"/v2/keys"), Some(&b""[..]));
        assert_eq!(below(b"/v2/keys/a", b"/v2/keys"), Some(&b"/a"[..]));
        assert_eq!(below(b"/v2/keysa", b"/v2/keys"), None);
    }

    /// Each path with the rules for GET, PUT, POST and DELETE.
    #[test]
    fn each_method_of_each_path_has_a_rule() {
        use Rule::{Key, Open, Root};
        let all_root = [Root, Root, Open, Root];
        let list = [Root, Open, Open, Open];
        let open = [Open; 4];
        let table: [(&str, Route<'_>, [Rule; 4]); 31] = [
            ("/v2/keys", Route::Keys(b""), [Key; 4]),
            ("/v2/keys/a/", Route::Keys(b"/a/"), [Key; 4]),
            ("/v2/members", Route::Members(b""), [Open, Root, Root, Root]),
            (
                "/v2/members/1",
                Route::Members(b"/1"),
                [Open, Root, Root, Root],
            ),
            (
                "/v2/auth/enable",
                Route::AuthEnable,
                [Open, Root, Open, Root],
            ),
            ("/v2/auth/enable/", Route::Unknown, open),
            ("/v2/auth", Route::Unknown, open),
            ("/v2/auth/users", Route::Users, list),
            ("/v2/auth/users/", Route::Users, list),
            ("/v2/auth/users/a", Route::User(b"a"), all_root),
            ("/v2/auth/users/a/", Route::User(b"a"), all_root),
            ("/v2/auth/users/a/b", Route::AuthInvalid, open),
            ("/v2/auth/usersx", Route::Unknown, open),
            ("/v2/auth/roles", Route::Roles, list),
            ("/v2/auth/roles/a", Route::Role(b"a"), all_root),
            ("/v2/auth/roles/a/b", Route::AuthInvalid, open),
            ("/v2/machines", Route::Machines, open),
            ("/v2/stats/self", Route::StatsSelf, open),
            ("/version", Route::Version, open),
            ("/health", Route::Health, open),
            ("/livez", Route::Livez, open),
            ("/readyz", Route::Readyz, open),
            ("/debug/vars", Route::Vars, open),
            ("/config/local/log", Route::LogLevel, open),
            ("/edgetcd/snapshot", Route::Snapshot, list),
            ("/edgetcd/trace", Route::Trace, open),
            ("/edgetcd/status", Route::Status, open),
            ("/edgetcd/keys", Route::Search, [Key; 4]),
            ("/edgetcd/history", Route::Past, [Key; 4]),
            ("/metrics", Route::Metrics, open),
            ("/", Route::Page, open),
        ];
        for (path, route, rules) in table {
            assert_eq!(Route::of(path.as_bytes()), route, "{path}");
            let methods = ["GET", "PUT", "POST", "DELETE"];
            let found = methods.map(|method| route.rule(method));
            assert_eq!(found, rules, "{path}");
        }
    }
}
