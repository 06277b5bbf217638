//! `cargo xtask bench`: the measurements, or those of them that are named.

use anyhow::{Context as _, Result, bail};
use enforcer_tests::{
    audit_load, cut_lateness, pgbench, policy_decision, reload_under_load, throughput,
};

/// A name, and what it measures and prints.
type Part = (&'static str, fn() -> Result<()>);

const PARTS: [Part; 6] = [
    ("policy", policy_decision::measure),
    ("throughput", throughput::measure),
    ("pgbench", pgbench::measure),
    ("cut", cut_lateness::measure),
    ("audit", audit_load::measure),
    ("reload", reload_under_load::run),
];

fn main() -> Result<()> {
    let wanted: Vec<_> = std::env::args().skip(1).collect();
    let known = |name: &String| PARTS.iter().any(|(part, _)| part == name);
    if let Some(unknown) = wanted.iter().find(|name| !known(name)) {
        let names: Vec<_> = PARTS.iter().map(|(name, _)| *name).collect();
        bail!(
            "nothing is called `{unknown}`: name some of {}",
            names.join(", ")
        );
    }
    for (name, measure) in PARTS {
        if wanted.is_empty() || wanted.iter().any(|it| it == name) {
            measure().context(name)?;
        }
    }
    Ok(())
}
