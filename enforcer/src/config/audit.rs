//! `[audit]`.

use std::{collections::BTreeMap, path::Path, time::Duration};

use bytesize::ByteSize;
use toml::Spanned;

use super::{
    Audit, Daemon, Export,
    draft::Draft,
    duration::Zero,
    outbound,
    raw::{Named, RawAudit, RawExport},
    syslog,
};
use crate::audit::HEADS_NAME;

const DEFAULT_MAX_SIZE: ByteSize = ByteSize::gib(1);
/// Less holds no useful log.
const LEAST_SIZE: ByteSize = ByteSize::mib(1);
const DEFAULT_HEADS_INTERVAL: Duration = Duration::from_secs(60);

impl Audit {
    /// The defaults of a daemon with this `state_dir`.
    pub fn within(state_dir: &Path) -> Self {
        Self {
            keep: None,
            max_size: DEFAULT_MAX_SIZE.as_u64(),
            heads_file: state_dir.join(HEADS_NAME),
            heads_interval: DEFAULT_HEADS_INTERVAL,
            exports: BTreeMap::new(),
        }
    }
}

pub(super) fn convert(draft: &mut Draft<'_>, raw: RawAudit, daemon: &Daemon) -> Audit {
    let default = Audit::within(&daemon.state_dir);
    Audit {
        keep: raw
            .keep
            .and_then(|keep| draft.duration("keep", &keep, Zero::Refused)),
        max_size: raw
            .max_size
            .and_then(|size| max_size(draft, &size))
            .map_or(default.max_size, |size| size.as_u64()),
        heads_file: raw
            .heads_file
            .map_or(default.heads_file, |path| draft.resolve(&path)),
        heads_interval: draft.duration_or(
            "heads_interval",
            raw.heads_interval.as_ref(),
            Zero::Refused,
            default.heads_interval,
        ),
        exports: exports(draft, raw.exports),
    }
}

fn exports(draft: &mut Draft<'_>, raw: Named<RawExport>) -> BTreeMap<String, Export> {
    let mut exports = BTreeMap::new();
    for (name, raw) in raw {
        draft.name("export", &name);
        if let Some(export) = export(draft, &name, raw) {
            exports.insert(name.into_inner(), export);
        }
    }
    exports
}

fn export(draft: &mut Draft<'_>, name: &Spanned<String>, raw: RawExport) -> Option<Export> {
    let network = raw.otlp.as_ref().or(raw.syslog.as_ref());
    if let Some(section) = &raw.outbound
        && network.is_none_or(|address| !address.get_ref().contains("://"))
    {
        let help = "remove it, or write `otlp` or `syslog` as a URL";
        draft.report(section, "`outbound` says how a network is reached", help);
    }
    match (raw.json_file, raw.syslog, raw.otlp) {
        (Some(path), None, None) => Some(Export::JsonFile(draft.resolve(&path))),
        (None, Some(place), None) => syslog::convert(draft, &place, raw.outbound.as_ref()),
        (None, None, Some(url)) => {
            let outbound = outbound::convert(draft, raw.outbound.as_ref());
            let url = outbound::url(draft, "otlp", &url)?;
            Some(Export::Otlp { url, outbound })
        }
        _ => {
            draft.report(
                name,
                format!("export `{}` does not go to one place", name.get_ref()),
                "write exactly one of `json_file`, `syslog` and `otlp`",
            );
            None
        }
    }
}

/// A size with its unit.
fn max_size(draft: &mut Draft<'_>, value: &Spanned<String>) -> Option<ByteSize> {
    let text = value.get_ref().trim();
    let what = match text.parse::<ByteSize>() {
        Ok(_) if text.bytes().all(|byte| byte.is_ascii_digit()) => "has no unit",
        Ok(size) if size < LEAST_SIZE => "is less than 1MiB",
        Ok(size) => return Some(size),
        Err(_) => "is not a size",
    };
    draft.report(
        value,
        format!("`max_size` {what}: `{text}`"),
        "write a size such as `max_size = \"1GiB\"`",
    );
    None
}
