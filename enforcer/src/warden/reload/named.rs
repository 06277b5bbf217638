//! The files that a configuration names, as they were when it was looked at.

use std::{
    fs,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use crate::config::Config;

/// Which files, and what was in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NamedFiles {
    paths: Vec<PathBuf>,
    digest: [u8; 32],
}

impl NamedFiles {
    /// Of the configuration with this text. Reads them.
    pub(super) fn look(text: &str, path: &Path) -> Self {
        let paths = Config::named_files(text, path);
        let mut digest = Sha256::new();
        for path in &paths {
            // One that can't be read differs from one that is empty.
            let content = fs::read(path).ok();
            digest.update([u8::from(content.is_some())]);
            digest.update(Sha256::digest(content.unwrap_or_default()));
        }
        Self {
            paths,
            digest: digest.finalize().into(),
        }
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.paths.iter().map(PathBuf::as_path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_file_that_changes_is_another_state_and_the_same_again_is_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("enforcer.toml");
        let text = "[listeners.a]\naddress = \"127.0.0.1:1\"\n\
            tls = { certificate = \"c.pem\", private_key = \"k.pem\" }\n\
            [[identity.jwt]]\nissuer = \"https://i.example\"\naudience = \"a\"\n\
            jwks_file = \"j.json\"\nalgorithms = [\"RS256\"]\n\
            [policies.p]\nmax_session = \"1h\"\n\
            [[routes]]\nlistener = \"a\"\nupstream = \"http://127.0.0.1:2\"\npolicy = \"p\"\n";
        let look = || NamedFiles::look(text, &path);
        let absent = look();
        assert_eq!(absent.paths().count(), 3);
        let mut seen = vec![absent];
        for name in ["c.pem", "k.pem", "j.json"] {
            for content in ["", "x"] {
                fs::write(folder.path().join(name), content).unwrap();
                let now = look();
                assert!(!seen.contains(&now), "{name}: {content}");
                assert_eq!(now, look());
                seen.push(now);
            }
        }
    }
}
