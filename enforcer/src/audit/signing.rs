//! Signed statements about a chain: a head ("up to here this is the chain"), and an anchor ("what
//! was before this was removed in good order").
//!
//! The key is Ed25519, made at the first start. What is signed is text, so that it can be checked
//! with other tools:
//!
//! ```text
//! enforcer audit head
//! CHAIN
//! SEQUENCE
//! HASH
//! TIME
//! ```

use std::{
    fmt,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use rustls::pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer, pem::PemObject};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    chain::{ChainId, Hash, Position},
    rfc3339,
};
use crate::clock::WallInstant;

/// Name of the private key in `state_dir`.
const KEY_NAME: &str = "audit.key";
/// Name of the public key in `state_dir`.
pub const PUBLIC_KEY_NAME: &str = "audit.pub";
/// What stands before the 32 bytes of an Ed25519 key in a SubjectPublicKeyInfo (RFC 8410).
const SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];
/// Characters in a line of PEM.
const PEM_LINE: usize = 64;

/// What a statement states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// The chain up to this record is as its hash says.
    Head,
    /// The records up to this one were removed.
    Anchor,
}

impl Claim {
    const fn word(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Anchor => "anchor",
        }
    }
}

/// A signed statement about a chain. As JSON it is one line of the file of heads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// The chain.
    pub chain: ChainId,
    /// Number of the record.
    pub sequence: u64,
    /// Its hash.
    pub hash: Hash,
    /// When this was signed.
    #[serde(with = "rfc3339")]
    pub time: WallInstant,
    /// Ed25519, in base64.
    pub signature: String,
}

impl Statement {
    /// The record that it is about.
    pub const fn position(&self) -> Position {
        Position {
            sequence: self.sequence,
            hash: self.hash,
        }
    }
}

fn signed_text(claim: Claim, chain: ChainId, position: Position, time: WallInstant) -> String {
    let Position { sequence, hash } = position;
    let claim = claim.word();
    format!("enforcer audit {claim}\n{chain}\n{sequence}\n{hash}\n{time}\n")
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file can't be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file can't be made.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// It is no key of this kind.
    #[error("{0} is not a PEM file with an Ed25519 key")]
    NotAKey(PathBuf),
    /// The library can't make one.
    #[error("cannot make an Ed25519 key")]
    Generate,
}

/// Signs statements.
pub(super) struct SigningKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl SigningKey {
    /// The key in `state_dir`; it is made if there is none, and the second value says so.
    pub(super) fn provide(state_dir: &Path) -> Result<(Self, bool), KeyError> {
        let path = state_dir.join(KEY_NAME);
        let (pair, made) = match read_private(&path)? {
            Some(pair) => (pair, false),
            None => (make_private(&path)?, true),
        };
        let public = PublicKey::of(&pair);
        let key = Self { pair, public };
        key.export_public(&state_dir.join(PUBLIC_KEY_NAME))?;
        Ok((key, made))
    }

    /// The public half.
    pub(super) const fn public(&self) -> &PublicKey {
        &self.public
    }

    pub(super) fn sign(
        &self,
        claim: Claim,
        chain: ChainId,
        position: Position,
        time: WallInstant,
    ) -> Statement {
        let text = signed_text(claim, chain, position, time);
        Statement {
            chain,
            sequence: position.sequence,
            hash: position.hash,
            time,
            signature: BASE64.encode(self.pair.sign(text.as_bytes())),
        }
    }

    fn export_public(&self, path: &Path) -> Result<(), KeyError> {
        let text = self.public.to_pem();
        if fs::read_to_string(path).is_ok_and(|found| found == text) {
            return Ok(());
        }
        write(path, 0o644, text.as_bytes()).map_err(|source| KeyError::Write {
            path: path.to_owned(),
            source,
        })
    }
}

fn read_private(path: &Path) -> Result<Option<Ed25519KeyPair>, KeyError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(KeyError::Read {
                path: path.to_owned(),
                source,
            });
        }
    };
    let not_a_key = || KeyError::NotAKey(path.to_owned());
    let der = PrivatePkcs8KeyDer::from_pem_slice(&text).map_err(|_| not_a_key())?;
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der());
    pair.map(Some).map_err(|_| not_a_key())
}

fn make_private(path: &Path) -> Result<Ed25519KeyPair, KeyError> {
    let pair = Ed25519KeyPair::generate().map_err(|_| KeyError::Generate)?;
    let document = pair.to_pkcs8v1().map_err(|_| KeyError::Generate)?;
    let text = pem("PRIVATE KEY", document.as_ref());
    write(path, 0o600, text.as_bytes()).map_err(|source| KeyError::Write {
        path: path.to_owned(),
        source,
    })?;
    Ok(pair)
}

/// Writes a file that is there whole or not at all.
fn write(path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let _ = fs::remove_file(&draft);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&draft)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&draft, path)
}

fn pem(label: &str, der: &[u8]) -> String {
    let digits = BASE64.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in digits.as_bytes().chunks(PEM_LINE) {
        text.extend(line.iter().map(|byte| char::from(*byte)));
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}

/// Checks statements.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    fn of(pair: &Ed25519KeyPair) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(pair.public_key().as_ref());
        Self(bytes)
    }

    /// Reads a PEM file (SubjectPublicKeyInfo).
    ///
    /// # Errors
    /// If it can't be read or holds something else.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let text = fs::read(path).map_err(|source| KeyError::Read {
            path: path.to_owned(),
            source,
        })?;
        let not_a_key = || KeyError::NotAKey(path.to_owned());
        let der = SubjectPublicKeyInfoDer::from_pem_slice(&text).map_err(|_| not_a_key())?;
        let bytes = der.strip_prefix(&SPKI_PREFIX[..]).ok_or_else(not_a_key)?;
        Ok(Self(bytes.try_into().map_err(|_| not_a_key())?))
    }

    fn to_pem(&self) -> String {
        pem("PUBLIC KEY", &[&SPKI_PREFIX[..], &self.0].concat())
    }

    /// Whether the owner of the key made the statement.
    pub(super) fn verifies(&self, claim: Claim, statement: &Statement) -> bool {
        let position = statement.position();
        let text = signed_text(claim, statement.chain, position, statement.time);
        let Ok(signature) = BASE64.decode(&statement.signature) else {
            return false;
        };
        UnparsedPublicKey::new(&ED25519, &self.0)
            .verify(text.as_bytes(), &signature)
            .is_ok()
    }
}

/// The fingerprint: the begin of the key's SHA-256.
impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = Sha256::digest([&SPKI_PREFIX[..], &self.0].concat());
        digest[..8]
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn statement(key: &SigningKey) -> Statement {
        let chain = ChainId::from_bytes([7; 16]);
        let position = chain.origin().next("{}");
        let time = WallInstant::from_unix_seconds(1);
        key.sign(Claim::Head, chain, position, time)
    }

    #[test]
    fn a_key_is_made_once_and_its_private_half_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let (key, made) = SigningKey::provide(folder.path()).unwrap();
        assert!(made);
        let metadata = fs::metadata(folder.path().join(KEY_NAME)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        let (again, made) = SigningKey::provide(folder.path()).unwrap();
        assert!(!made);
        let exported = PublicKey::read(&folder.path().join(PUBLIC_KEY_NAME)).unwrap();
        assert!(exported.verifies(Claim::Head, &statement(&key)));
        assert!(exported.verifies(Claim::Head, &statement(&again)));
    }

    #[test]
    fn a_statement_holds_for_its_words_and_its_claim_only() {
        let folder = tempfile::tempdir().unwrap();
        let (key, _) = SigningKey::provide(folder.path()).unwrap();
        let statement = statement(&key);
        let line = serde_json::to_string(&statement).unwrap();
        let read: Statement = serde_json::from_str(&line).unwrap();
        assert_eq!(read, statement);
        let public = key.public();
        assert!(public.verifies(Claim::Head, &read));
        assert!(!public.verifies(Claim::Anchor, &read));
        let mut forged = read.clone();
        forged.sequence += 1;
        assert!(!public.verifies(Claim::Head, &forged));
        forged = read;
        forged.signature = "AAAA".to_owned();
        assert!(!public.verifies(Claim::Head, &forged));
    }

    #[test]
    fn what_is_no_key_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(KEY_NAME);
        fs::write(
            &path,
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        )
        .unwrap();
        assert!(matches!(
            SigningKey::provide(folder.path()),
            Err(KeyError::NotAKey(_))
        ));
        assert!(path.exists());
    }
}
