//! `enforcer audit verify`.

use std::process::ExitCode;

use anyhow::Result;

use super::{
    super::{
        output::{print, print_json},
        text::{count, printable},
    },
    VerifyArgs,
};
use crate::audit::{AuditSettings, Evidence, PublicKey, Verification, verify};

/// Verifies the log that `settings` and `args` name, and prints what was found.
///
/// # Errors
/// If it can't be read.
pub(super) fn run(args: VerifyArgs, settings: &AuditSettings) -> Result<ExitCode> {
    // Another database is not this daemon's: it is held against what is named.
    let own = args.database.is_none();
    let database = args.database.unwrap_or_else(|| settings.database());
    let heads = args.heads.or_else(|| {
        let usual = &settings.heads_file;
        (own && usual.exists()).then(|| usual.clone())
    });
    let public_key = match args.public_key {
        Some(path) => Some(PublicKey::read(&path)?),
        None => {
            let usual = settings.public_key();
            usual
                .exists()
                .then(|| PublicKey::read(&usual))
                .transpose()?
        }
    };
    let evidence = Evidence { heads, public_key };
    let verification = verify(&database, &evidence)?;
    if args.json {
        print_json(&verification)?;
    } else {
        let text = for_people(&verification, &evidence);
        print(|out| writeln!(out, "{text}"))?;
    }
    Ok(if verification.intact {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn for_people(verification: &Verification, evidence: &Evidence) -> String {
    let Verification {
        intact,
        chain,
        records,
        first,
        last,
        removed_in_order,
        heads,
        vouched_for,
        ..
    } = verification;
    let state = if *intact { "intact" } else { "NOT INTACT" };
    let records = count(usize::try_from(*records).unwrap_or(usize::MAX), "record");
    let mut lines = vec![
        format!("{state}: {records}, {first} to {last}"),
        format!("chain      {chain}"),
    ];
    if *removed_in_order > 0 {
        lines.push(format!("removed    1 to {removed_in_order}, in good order"));
    }
    lines.push(match (&evidence.heads, &evidence.public_key) {
        (None, _) => "heads      none: records missing at the end would not be noticed".to_owned(),
        (Some(_), None) => {
            format!("heads      {heads} agree, signatures not checked: no public key")
        }
        (Some(_), Some(key)) => {
            format!("heads      {heads} met, vouched for up to {vouched_for}, key {key}")
        }
    });
    for chain in &verification.moved_aside {
        lines.push(format!(
            "before     chain {chain} was damaged and moved aside: verify it with --database"
        ));
    }
    for finding in &verification.findings {
        lines.push(format!("fault      {}", printable(&finding.message)));
    }
    if verification.more > 0 {
        lines.push(format!("fault      and {} more", verification.more));
    }
    lines.join("\n")
}
