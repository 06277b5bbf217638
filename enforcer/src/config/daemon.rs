//! `[daemon]`.

use std::{path::PathBuf, time::Duration};

use toml::Spanned;

use super::{Daemon, draft::Draft, duration::Zero, raw::RawDaemon};

/// Room for `/gateway-PID.sock` and the like below the 107 bytes that a socket's path may have.
const LONGEST_RUNTIME_DIR: usize = 80;

/// More entries than any host has connections for.
const MOST_ENTRIES: u32 = 16_777_216;

impl Default for Daemon {
    fn default() -> Self {
        Self {
            state_dir: PathBuf::from("/var/lib/enforcer"),
            runtime_dir: PathBuf::from("/run/enforcer"),
            bpf_dir: PathBuf::from("/sys/fs/bpf/enforcer"),
            cgroup: None,
            user: "nobody".to_owned(),
            admin_group: None,
            pre_authentication_timeout: Duration::from_secs(10),
            max_sessions: 65_536,
            max_connections: 131_072,
            watch: false,
        }
    }
}

pub(super) fn convert(draft: &mut Draft<'_>, raw: RawDaemon) -> Daemon {
    let default = Daemon::default();
    let resolve = |draft: &Draft<'_>, path: Option<PathBuf>, default: PathBuf| {
        path.map_or(default, |path| draft.resolve(&path))
    };
    Daemon {
        state_dir: resolve(draft, raw.state_dir, default.state_dir),
        runtime_dir: raw
            .runtime_dir
            .and_then(|path| runtime_dir(draft, &path))
            .unwrap_or(default.runtime_dir),
        bpf_dir: resolve(draft, raw.bpf_dir, default.bpf_dir),
        cgroup: raw.cgroup.map(|path| draft.resolve(&path)),
        user: raw
            .user
            .and_then(|name| account(draft, "user", name))
            .unwrap_or(default.user),
        admin_group: raw
            .admin_group
            .and_then(|name| account(draft, "admin_group", name)),
        pre_authentication_timeout: draft.duration_or(
            "pre_authentication_timeout",
            raw.pre_authentication_timeout.as_ref(),
            Zero::Refused,
            default.pre_authentication_timeout,
        ),
        max_sessions: entries(
            draft,
            "max_sessions",
            raw.max_sessions,
            default.max_sessions,
        ),
        max_connections: entries(
            draft,
            "max_connections",
            raw.max_connections,
            default.max_connections,
        ),
        watch: raw.watch,
    }
}

fn runtime_dir(draft: &mut Draft<'_>, value: &Spanned<PathBuf>) -> Option<PathBuf> {
    let path = draft.resolve(value.get_ref());
    if path.as_os_str().len() > LONGEST_RUNTIME_DIR {
        draft.report(
            value,
            "`runtime_dir` is too long for the path of a socket",
            format!("write a path of at most {LONGEST_RUNTIME_DIR} bytes"),
        );
        return None;
    }
    Some(path)
}

/// The name of a user or group.
fn account(draft: &mut Draft<'_>, key: &str, value: Spanned<String>) -> Option<String> {
    let name = value.get_ref();
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control() || c == ':') {
        let what = format!("`{key}` cannot be `{}`", name.escape_debug());
        let help = format!("write the name of an account such as `{key} = \"enforcer\"`");
        draft.report(&value, what, help);
        return None;
    }
    Some(value.into_inner())
}

/// The size of a map.
fn entries(draft: &mut Draft<'_>, key: &str, value: Option<Spanned<i64>>, default: u32) -> u32 {
    let Some(value) = value else {
        return default;
    };
    let number = u32::try_from(*value.get_ref()).ok();
    let fitting = number.filter(|number| (1..=MOST_ENTRIES).contains(number));
    if fitting.is_none() {
        draft.report(
            &value,
            format!("`{key}` cannot be {}", value.get_ref()),
            format!("write a number from 1 to {MOST_ENTRIES}, such as `{key} = {default}`"),
        );
    }
    fitting.unwrap_or(default)
}
