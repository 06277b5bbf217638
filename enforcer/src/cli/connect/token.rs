//! Where the bearer token comes from. It is read anew for each connection to the gateway, and to
//! renew the session.

use std::{fmt, path::PathBuf, process::Stdio, time::Duration};

use http::HeaderValue;
use tokio::{process::Command, time::timeout};

/// Longest wait for a command that prints a token: it may have to ask somebody.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(120);
/// No token is longer.
const MAX_LENGTH: usize = 16 * 1024;

/// Where the token is.
#[derive(Clone, Debug)]
pub(super) enum TokenSource {
    File(PathBuf),
    Environment(String),
    /// A command line for the shell.
    Command(String),
    /// There is none: the client's certificate says who it is.
    Certificate,
}

/// A bearer token, or none.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Token(Option<String>);

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("cannot read the token from {0}")]
    File(PathBuf, #[source] std::io::Error),
    #[error("the environment has no variable {0} with a token")]
    Environment(String),
    #[error("cannot run the token command")]
    Spawn(#[source] std::io::Error),
    #[error("the token command failed: {0}")]
    Failed(std::process::ExitStatus),
    #[error("the token command printed no token in {} s", COMMAND_TIMEOUT.as_secs())]
    Timeout,
    #[error("what {0} holds is no token: one line of visible characters is expected")]
    Malformed(&'static str),
}

impl TokenSource {
    /// What it means that asking again gave nothing else.
    pub(super) fn unchanged(&self) -> &'static str {
        match self {
            Self::File(_) | Self::Command(_) => "the token is still the same",
            Self::Environment(_) => "there is no newer token where it comes from",
            Self::Certificate => "what a certificate has opened is not renewed",
        }
    }

    /// Reads the token as it is now.
    pub(super) async fn read(&self) -> Result<Token, TokenError> {
        match self {
            Self::File(path) => {
                let text = tokio::fs::read(path).await;
                let text = text.map_err(|error| TokenError::File(path.clone(), error))?;
                Token::parse(&text).ok_or(TokenError::Malformed("the token file"))
            }
            Self::Environment(name) => {
                let text = std::env::var_os(name).unwrap_or_default();
                if text.is_empty() {
                    return Err(TokenError::Environment(name.clone()));
                }
                let token = Token::parse(text.as_encoded_bytes());
                token.ok_or(TokenError::Malformed("the variable"))
            }
            Self::Command(line) => run(line).await,
            Self::Certificate => Ok(Token(None)),
        }
    }
}

async fn run(line: &str) -> Result<Token, TokenError> {
    let child = Command::new("sh")
        .args(["-c", line])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(TokenError::Spawn)?;
    let output = timeout(COMMAND_TIMEOUT, child.wait_with_output())
        .await
        .map_err(|_| TokenError::Timeout)?
        .map_err(TokenError::Spawn)?;
    if !output.status.success() {
        return Err(TokenError::Failed(output.status));
    }
    Token::parse(&output.stdout).ok_or(TokenError::Malformed("the token command"))
}

impl Token {
    /// The token in a text, with white space around it.
    fn parse(text: &[u8]) -> Option<Self> {
        let token = str::from_utf8(text).ok()?.trim();
        let fits = !token.is_empty()
            && token.len() <= MAX_LENGTH
            && token.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then(|| Self(Some(token.to_owned())))
    }

    /// The field's value, kept out of logs and compression tables.
    pub(super) fn bearer(&self) -> Option<HeaderValue> {
        let token = self.0.as_ref()?;
        // A token is visible ASCII, which a field may hold.
        let mut value = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_word() {
        let parse = |text: &str| Token::parse(text.as_bytes()).and_then(|token| token.0);
        assert_eq!(parse(" a.b-c_d\r\n").as_deref(), Some("a.b-c_d"));
        for text in [
            "",
            "\n",
            "a b",
            "a\nb",
            "\u{e9}",
            &"a".repeat(MAX_LENGTH + 1),
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
        let token = Token(Some("secret".to_owned()));
        assert!(!format!("{token:?} {:?}", token.bearer()).contains("secret"));
    }

    #[tokio::test]
    async fn each_source_gives_the_token_of_now() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let file = TokenSource::File(path.clone());
        assert!(matches!(file.read().await, Err(TokenError::File(..))));
        for text in ["first", "second"] {
            std::fs::write(&path, format!("{text}\n")).unwrap();
            assert_eq!(file.read().await.unwrap().0.as_deref(), Some(text));
            let command = TokenSource::Command(format!("cat '{}'", path.display()));
            assert_eq!(command.read().await.unwrap().0.as_deref(), Some(text));
        }
        let failing = TokenSource::Command("echo nothing >&2; exit 3".to_owned());
        assert!(matches!(failing.read().await, Err(TokenError::Failed(_))));
        let silent = TokenSource::Command("true".to_owned());
        assert!(matches!(silent.read().await, Err(TokenError::Malformed(_))));
        let missing = TokenSource::Environment("NO_SUCH_VARIABLE".to_owned());
        assert!(matches!(
            missing.read().await,
            Err(TokenError::Environment(_))
        ));
    }
}
