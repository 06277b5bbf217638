//! Doors for the fuzz targets, built with `cfg(fuzzing)` only: each hands arbitrary bytes to one
//! parser and checks what must hold whatever they are.

use std::path::Path;

use crate::{
    authn::{Authenticator, certificate},
    channel::{self, ToGateway, ToWarden},
    clock::{Now, WallInstant},
    config::{CertificateName, Config, Identity},
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

/// A client's certificate (DER).
pub fn certificates(input: &[u8]) {
    let now = WallInstant::from_unix_seconds(0);
    if let Ok(credential) = certificate::credential(input, CertificateName::Any, now) {
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
