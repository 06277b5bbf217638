//! Configurations that were applied, kept in a folder of the state folder: one file each, readable
//! by root alone. Secrets are not in them: a configuration names files.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{audit::rfc3339, clock::WallInstant};

/// Name of the folder in `state_dir`.
pub const FOLDER: &str = "configurations";
/// Versions that are kept; the oldest go.
const KEPT: usize = 50;

/// A configuration that was applied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Version {
    /// Its number; grows with every one.
    pub version: u64,
    /// When it was applied.
    #[serde(with = "rfc3339")]
    pub applied_at: WallInstant,
    /// What made the daemon apply it: `start`, `reload`, `signal`, `watch` or `rollback`.
    pub origin: String,
    /// Who asked for it, where somebody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// SHA-256 of its text.
    pub sha256: String,
    /// What it changed of the one before.
    pub changes: Vec<String>,
    /// Its file.
    pub path: PathBuf,
    /// Its text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
}

/// SHA-256 of a text, in hexadecimal digits.
pub fn digest(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// All versions in the folder, the newest last. What is no version is passed over.
///
/// # Errors
/// If the folder can't be read; one that isn't there is empty.
pub fn list(folder: &Path) -> io::Result<Vec<Version>> {
    let mut versions = Vec::new();
    for number in numbers(folder)? {
        versions.extend(read(folder, number));
    }
    Ok(versions)
}

/// One version.
///
/// # Errors
/// If there is none with this number, or it can't be read.
pub fn read(folder: &Path, number: u64) -> io::Result<Version> {
    let text = fs::read_to_string(file(folder, number))?;
    serde_json::from_str(&text).map_err(io::Error::from)
}

/// Keeps a version under the next number, which is returned, and lets the oldest go.
///
/// # Errors
/// If it can't be written.
pub fn keep(folder: &Path, version: Version) -> io::Result<u64> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let numbers = numbers(folder)?;
    let number = numbers.last().map_or(1, |last| last + 1);
    let version = Version {
        version: number,
        ..version
    };
    let partial = folder.join("partial");
    // One that an earlier attempt left may have any mode.
    let _ = fs::remove_file(&partial);
    let written = write(&partial, &version).and_then(|()| {
        fs::rename(&partial, file(folder, number))?;
        fs::File::open(folder)?.sync_all()
    });
    if written.is_err() {
        let _ = fs::remove_file(&partial);
    }
    written?;
    let too_many = (numbers.len() + 1).saturating_sub(KEPT);
    for old in &numbers[..too_many.min(numbers.len())] {
        fs::remove_file(file(folder, *old))?;
    }
    Ok(number)
}

fn write(path: &Path, version: &Version) -> io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(&serde_json::to_vec_pretty(version)?)?;
    file.sync_all()
}

fn file(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:06}.json"))
}

/// Numbers of the versions in the folder, in order.
fn numbers(folder: &Path) -> io::Result<Vec<u64>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut numbers = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".json"));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn version(text: &str) -> Version {
        Version {
            version: 0,
            applied_at: WallInstant::from_unix_seconds(0),
            origin: "reload".to_owned(),
            uid: Some(0),
            sha256: digest(text),
            changes: vec!["policy `a` added".to_owned()],
            path: "/etc/enforcer.toml".into(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn versions_are_numbered_kept_privately_and_bounded() {
        let state = tempfile::tempdir().unwrap();
        let folder = state.path().join(FOLDER);
        assert!(list(&folder).unwrap().is_empty());
        for number in 1..=KEPT as u64 + 3 {
            assert_eq!(keep(&folder, version(&number.to_string())).unwrap(), number);
        }
        let versions = list(&folder).unwrap();
        assert_eq!(versions.len(), KEPT);
        assert_eq!((versions[0].version, versions[0].text.as_str()), (4, "4"));
        assert_eq!(read(&folder, 10).unwrap().text, "10");
        assert!(read(&folder, 3).is_err());
        let mode = fs::metadata(file(&folder, 10))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(
            digest(""),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }

    #[test]
    fn what_is_no_version_is_passed_over() {
        let state = tempfile::tempdir().unwrap();
        let folder = state.path().join(FOLDER);
        keep(&folder, version("a")).unwrap();
        fs::write(folder.join("000007.json"), "{torn").unwrap();
        fs::write(folder.join("notes"), "").unwrap();
        assert_eq!(list(&folder).unwrap().len(), 1);
        assert_eq!(keep(&folder, version("b")).unwrap(), 8);
    }
}
