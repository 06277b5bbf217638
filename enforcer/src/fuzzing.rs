//! Doors for the fuzz targets, built with `cfg(fuzzing)` only: each hands arbitrary bytes to one
//! parser and checks what must hold whatever they are.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use http::Uri;
use jsonwebtoken::Algorithm;

use crate::{
    authn::{Authenticator, KeySet, certificate, introspected},
    channel::{self, ToGateway, ToWarden},
    clock::{Now, WallInstant},
    config::{
        CertificateName, ClientProof, Config, Identity, Introspection, IntrospectionClient,
        JwtIssuer, KeySource, Outbound,
    },
    gateway,
};

/// Frames of a WebSocket, in pieces as long as the first byte says.
pub fn websocket_frames(input: &[u8]) {
    let Some((piece, stream)) = input.split_first() else {
        return;
    };
    gateway::fuzzing::scan_frames(stream, usize::from(*piece).max(1));
}

/// Requests of one connection, in pieces as long as the first byte says.
pub fn request_heads(input: &[u8]) {
    let Some((piece, stream)) = input.split_first() else {
        return;
    };
    gateway::fuzzing::inspect_requests(stream, usize::from(*piece).max(1));
}

/// Frames of an HTTP/2 connection, in pieces as long as the first byte says.
pub fn http2_frames(input: &[u8]) {
    let Some((piece, stream)) = input.split_first() else {
        return;
    };
    gateway::fuzzing::follow_frames(stream, usize::from(*piece).max(1));
}

/// A request's path.
pub fn request_paths(input: &[u8]) {
    if let Ok(path) = std::str::from_utf8(input) {
        gateway::fuzzing::parse_path(path);
    }
}

/// A bearer token.
pub fn tokens(input: &[u8]) {
    let Ok(token) = std::str::from_utf8(input) else {
        return;
    };
    let nobody = Identity {
        jwt: Vec::new(),
        introspection: Vec::new(),
    };
    let nobody = Authenticator::load(&nobody).expect("no keys to load");
    assert!(nobody.validate(token, Now::read()).is_err());
}

/// What an issuer publishes: a JWK set.
pub fn key_sets(input: &[u8]) {
    let rules = JwtIssuer {
        issuer: "https://idp.example".to_owned(),
        audience: vec!["api".to_owned()],
        keys: KeySource::JwksFile(PathBuf::new()),
        algorithms: vec![Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA],
        certificate_bound: false,
        leeway: Duration::ZERO,
    };
    if let Ok(keys) = KeySet::parse(&rules, input) {
        assert!(!keys.thumbprints().is_empty());
    }
}

/// What an issuer answers about a token.
pub fn introspection_answers(input: &[u8]) {
    let rules = Introspection {
        issuer: "https://idp.example".to_owned(),
        endpoint: Uri::from_static("https://idp.example/introspect"),
        audience: Vec::new(),
        token_prefix: String::new(),
        client: IntrospectionClient {
            id: "fuzz".to_owned(),
            proof: ClientProof::Tls,
        },
        active_ttl: Duration::ZERO,
        inactive_ttl: Duration::ZERO,
        stale_ttl: Duration::ZERO,
        recheck_interval: Duration::from_secs(1),
        default_token_lifetime: Duration::from_secs(1),
        certificate_bound: false,
        leeway: Duration::ZERO,
        outbound: Outbound::default(),
    };
    let now = WallInstant::from_unix_seconds(0);
    if let Ok(active) = introspected::read(input, "token", &rules, now) {
        assert!(!active.credential().principal.subject.is_empty());
    }
}

/// A client's certificate (DER).
pub fn certificates(input: &[u8]) {
    let now = WallInstant::from_unix_seconds(0);
    if let Ok(credential) = certificate::credential(input, &CertificateName::Any, now) {
        assert!(!credential.principal.subject.is_empty());
    }
}

/// What a PostgreSQL client sends and receives, in pieces as long as the first byte says.
pub fn postgres_messages(input: &[u8]) {
    let Some((piece, stream)) = input.split_first() else {
        return;
    };
    gateway::fuzzing::read_postgres(stream, usize::from(*piece).max(1));
}

/// A PROXY protocol header, in pieces as long as the first byte says.
pub fn proxy_headers(input: &[u8]) {
    let Some((piece, stream)) = input.split_first() else {
        return;
    };
    gateway::fuzzing::read_announcement(stream, usize::from(*piece).max(1));
}

/// A message between gateway and warden, either way.
pub fn channel_messages(input: &[u8]) {
    let _ = channel::decode::<ToWarden>(input);
    let _ = channel::decode::<ToGateway>(input);
}

/// A configuration.
pub fn configurations(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input) {
        let _ = Config::parse(text, Path::new("/fuzz.toml"));
    }
}
