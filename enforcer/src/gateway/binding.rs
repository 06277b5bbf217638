//! What ties a connection to its session, and which credentials may use it. Pure.

use std::sync::Arc;

use crate::{
    channel::Refusal,
    clock::BootInstant,
    gateway::sessions::{SessionHandle, SessionState},
    session::{Credential, SessionKey},
};

/// A connection's session.
#[derive(Clone, Debug)]
pub(super) struct Binding {
    session: SessionHandle,
    /// The credential that bound the connection.
    credential: Arc<Credential>,
    /// Keys of the credentials that have renewed the session here since.
    renewed_by: Vec<SessionKey>,
}

/// What a request needs the warden for, on a connection that has a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Needed {
    pub(super) renewal: bool,
    pub(super) policies: bool,
}

impl Binding {
    pub(super) fn new(session: SessionHandle, credential: Arc<Credential>) -> Self {
        Self {
            session,
            credential,
            renewed_by: Vec::new(),
        }
    }

    pub(super) fn session(&self) -> &SessionHandle {
        &self.session
    }

    /// The credential has renewed the session.
    pub(super) fn learn(&mut self, credential: &Credential) {
        if !self.knows(credential) {
            self.renewed_by.push(credential.key);
        }
    }

    fn knows(&self, credential: &Credential) -> bool {
        self.credential.key == credential.key || self.renewed_by.contains(&credential.key)
    }

    /// A newer token of the same principal and client, where tokens don't name their session.
    fn is_succeeded_by(&self, credential: &Credential) -> bool {
        !self.credential.names_session
            && !credential.names_session
            && self.credential.principal == credential.principal
            && self.credential.authorized_party == credential.authorized_party
    }

    /// What a request under `policies` needs.
    pub(super) fn needs(
        &self,
        state: &SessionState,
        credential: &Credential,
        policies: &[String],
        now: BootInstant,
    ) -> Result<Needed, Refusal> {
        let applied = &state.view.policies;
        Ok(Needed {
            renewal: self.admit(state, credential, now)?,
            policies: !policies.iter().all(|policy| applied.contains(policy)),
        })
    }

    /// Whether the credential may use the connection. True: it is newer than the session's.
    pub(super) fn admit(
        &self,
        state: &SessionState,
        credential: &Credential,
        now: BootInstant,
    ) -> Result<bool, Refusal> {
        let newer = credential.good_until() > state.view.token_expires_at;
        // At the limit the warden decides whether a newer token still came in time.
        if state.is_over(now) || (state.is_halted(now) && !newer) {
            return Err(Refusal::SessionEnded(state.reason()));
        }
        let belongs = self.knows(credential) || (newer && self.is_succeeded_by(credential));
        if !belongs {
            return Err(Refusal::AnotherSession);
        }
        Ok(newer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::WallInstant,
        gateway::sessions::{
            SessionTable,
            tests::{at, view},
        },
        session::{EndReason, Principal},
    };

    fn credential(sid: Option<&str>, jti: &str, expires_at: i64) -> Credential {
        let principal = Principal {
            issuer: "i".to_owned(),
            subject: "s".to_owned(),
        };
        Credential {
            key: match sid {
                Some(sid) => SessionKey::from_sid(&principal, sid),
                None => SessionKey::from_token_id(&principal, jti),
            },
            names_session: sid.is_some(),
            principal,
            authorized_party: None,
            authenticated_at: None,
            expires_at: WallInstant::from_unix_seconds(expires_at),
            assumed_expiry: false,
            signing_key: None,
            certificate: None,
        }
    }

    fn needs(
        first: Credential,
        then: &Credential,
        policy: &str,
        now: u64,
    ) -> Result<Needed, Refusal> {
        let session = SessionTable::default().opened(view(100));
        let binding = Binding::new(session, Arc::new(first));
        let policies = [policy.to_owned()];
        binding.needs(&SessionState::new(view(100)), then, &policies, at(now))
    }

    const NOTHING: Needed = Needed {
        renewal: false,
        policies: false,
    };

    #[test]
    fn the_same_token_needs_nothing() {
        let token = credential(None, "a", 1000);
        assert_eq!(needs(token.clone(), &token, "default", 0), Ok(NOTHING));
        let other_policy = needs(token.clone(), &token, "strict", 0).unwrap();
        assert!(other_policy.policies && !other_policy.renewal);
    }

    #[test]
    fn a_newer_token_renews_and_an_older_one_does_not() {
        let first = || credential(Some("x"), "a", 1000);
        let renewal = |expires_at| {
            needs(
                first(),
                &credential(Some("x"), "b", expires_at),
                "default",
                0,
            )
            .unwrap()
            .renewal
        };
        assert!(renewal(1001));
        assert!(!renewal(1000));
        assert!(!renewal(999));
    }

    #[test]
    fn without_a_named_session_the_principals_newer_token_renews() {
        let first = || credential(None, "a", 1000);
        let newer = credential(None, "b", 1001);
        assert!(needs(first(), &newer, "default", 0).unwrap().renewal);
        for other in [
            credential(None, "b", 1000),
            credential(Some("x"), "b", 1001),
            Credential {
                authorized_party: Some("app".to_owned()),
                ..newer.clone()
            },
            Credential {
                principal: Principal {
                    issuer: "i".to_owned(),
                    subject: "t".to_owned(),
                },
                ..newer.clone()
            },
        ] {
            assert_eq!(
                needs(first(), &other, "default", 0),
                Err(Refusal::AnotherSession)
            );
        }
        let named = credential(Some("x"), "a", 1000);
        assert_eq!(
            needs(named, &newer, "default", 0),
            Err(Refusal::AnotherSession)
        );
    }

    #[test]
    fn nothing_is_served_at_the_deadline() {
        let token = credential(None, "a", 1000);
        assert_eq!(
            needs(token.clone(), &token, "default", 100),
            Err(Refusal::SessionEnded(EndReason::Deadline))
        );
    }
}
