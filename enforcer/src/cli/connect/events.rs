//! What the gateway tells about the session, as server-sent events.

use std::sync::Arc;

use h2::RecvStream;
use http::Method;

use super::gateway::Line;

const EVENTS: &str = "/.well-known/enforcer/session/events";
/// No event is longer.
const MAX_BUFFERED: usize = 64 * 1024;

/// What happens to the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Warning { reason: String, expires_in: u64 },
    Renewed { expires_in: u64 },
    Ended { reason: String },
}

/// The stream of them.
pub(super) struct Events {
    body: Option<RecvStream>,
    parser: Parser,
}

impl Events {
    /// Asks for those of the connection's session. Without them there is less to tell, and nothing
    /// else is missing.
    pub(super) async fn of(line: &Arc<Line>) -> Self {
        let answer = line.ask(Method::GET, EVENTS, &line.token()).await;
        Self {
            body: answer.ok().map(http::Response::into_body),
            parser: Parser::default(),
        }
    }

    /// None will ever come.
    pub(super) fn none() -> Self {
        Self {
            body: None,
            parser: Parser::default(),
        }
    }

    /// The next one; `None` once when there are no more, and never again.
    pub(super) async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.parser.next() {
                return Some(event);
            }
            let Some(body) = &mut self.body else {
                return std::future::pending().await;
            };
            match body.data().await {
                Some(Ok(data)) if self.parser.take(&data) => {
                    let _ = body.flow_control().release_capacity(data.len());
                }
                _ => {
                    self.body = None;
                    return None;
                }
            }
        }
    }
}

/// Takes the stream apart.
#[derive(Debug, Default)]
struct Parser(Vec<u8>);

impl Parser {
    /// False: it is too long to be true.
    fn take(&mut self, data: &[u8]) -> bool {
        self.0.extend_from_slice(data);
        self.0.len() <= MAX_BUFFERED
    }

    /// The next event that is known here.
    fn next(&mut self) -> Option<Event> {
        loop {
            let end = self.0.windows(2).position(|two| two == b"\n\n")?;
            let block: Vec<u8> = self.0.drain(..end + 2).collect();
            if let Some(event) = parse(&String::from_utf8_lossy(&block)) {
                return Some(event);
            }
        }
    }
}

fn parse(block: &str) -> Option<Event> {
    let field = |name: &str| {
        let mut lines = block.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    };
    let data: serde_json::Value = serde_json::from_str(field("data")?).ok()?;
    let reason = || data["reason"].as_str().map(str::to_owned);
    let expires_in = || data["expires_in_seconds"].as_u64();
    Some(match field("event")? {
        "warning" | "ending" => Event::Warning {
            reason: reason()?,
            expires_in: expires_in()?,
        },
        "renewed" => Event::Renewed {
            expires_in: expires_in()?,
        },
        "ended" => Event::Ended { reason: reason()? },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_pieces_between_comments() {
        let text = ":\n\nevent: warning\ndata: {\"reason\":\"idle\",\"expires_in_seconds\":9}\n\n\
                    event: news\ndata: {}\n\nevent: renewed\ndata: {\"expires_in_seconds\":60}\n\n\
                    event: ended\ndata: {\"reason\":\"deadline\"}\n\n";
        let mut parser = Parser::default();
        let mut events = Vec::new();
        for piece in text.as_bytes().chunks(7) {
            assert!(parser.take(piece));
            events.extend(std::iter::from_fn(|| parser.next()));
        }
        let wanted = [
            Event::Warning {
                reason: "idle".to_owned(),
                expires_in: 9,
            },
            Event::Renewed { expires_in: 60 },
            Event::Ended {
                reason: "deadline".to_owned(),
            },
        ];
        assert_eq!(events, wanted);
        assert!(!parser.take(&[b'x'; MAX_BUFFERED + 1]));
    }
}
