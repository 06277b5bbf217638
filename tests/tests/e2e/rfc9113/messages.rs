//! Requests as messages: fields, pseudo-fields, content and trailers (section 8).

use anyhow::{Result, ensure};
use enforcer_tests::client::http2::{Code, Frame, Peer, block, flag, kind};

use super::{Case, Stage, WHOLE_CONNECTION, case};

/// A request with one more field.
fn with_field(peer: &Peer, name: &'static str, value: &'static str) -> Vec<Frame> {
    let mut fields = peer.request("GET", "/headers");
    fields.push((name, value));
    vec![Frame::only_headers(1, block(&fields))]
}

/// A request with this pseudo-field's value changed; without it if there is none.
fn with_pseudo(peer: &Peer, name: &str, value: Option<&'static str>) -> Vec<Frame> {
    let mut fields = peer.request("GET", "/headers");
    match value {
        None => fields.retain(|(known, _)| *known != name),
        Some(value) => fields
            .iter_mut()
            .filter(|(known, _)| *known == name)
            .for_each(|field| field.1 = value),
    }
    vec![Frame::only_headers(1, block(&fields))]
}

/// A request with a field in front of all others.
fn beginning_with(peer: &Peer, name: &'static str, value: &'static str) -> Vec<Frame> {
    let mut fields = peer.request("GET", "/headers");
    fields.insert(0, (name, value));
    vec![Frame::only_headers(1, block(&fields))]
}

/// An upload that says how long it is.
fn upload(peer: &Peer, length: &'static str, content: &[&'static str]) -> Vec<Frame> {
    let mut fields = peer.request("POST", "/upload");
    fields.push(("content-length", length));
    let mut frames = vec![Frame::headers(1, block(&fields))];
    frames.extend(content.iter().map(|data| Frame::data(1, *data)));
    if let Some(last) = frames.last_mut() {
        last.flags |= flag::END_STREAM;
    }
    frames
}

/// An upload with trailers.
fn with_trailers(peer: &Peer, trailers: &[(&str, &str)]) -> Vec<Frame> {
    let trailers = Frame::only_headers(1, block(trailers));
    vec![peer.post(1, "/upload"), Frame::data(1, "content"), trailers]
}

/// The request is malformed.
fn malformed(stage: &Stage, frames: impl FnOnce(&Peer) -> Vec<Frame>) -> Result<()> {
    stage.resets(Code::ProtocolError, frames)
}

pub(super) const CASES: &[Case] = &[
    case(
        "8.1",
        "trailers without END_STREAM are malformed",
        |stage| {
            malformed(stage, |peer| {
                let trailers = Frame::headers(1, block(&[("x", "y")]));
                vec![peer.post(1, "/upload"), Frame::data(1, "content"), trailers]
            })
        },
    ),
    case("8.1", "trailers pass", |stage| {
        stage.answers(200, |peer| with_trailers(peer, &[("x-sum", "7")]))
    }),
    case("8.1", "pseudo-fields in trailers are malformed", |stage| {
        stage.answers(200, |peer| with_trailers(peer, &[(":method", "GET")]))
    })
    .but("they are dropped: nobody behind the gateway sees them"),
    case(
        "8.1.1",
        "content longer than Content-Length is malformed",
        |stage| malformed(stage, |peer| upload(peer, "1", &["content"])),
    ),
    case(
        "8.1.1",
        "content shorter than Content-Length is malformed",
        |stage| malformed(stage, |peer| upload(peer, "8", &["content"])),
    ),
    case("8.1.1", "the same in several frames", |stage| {
        malformed(stage, |peer| upload(peer, "8", &["con", "tent", "s!"]))
    }),
    case(
        "8.1.1",
        "no content where Content-Length promises some is malformed",
        |stage| malformed(stage, |peer| upload(peer, "8", &[])),
    ),
    case(
        "8.1.1",
        "content as long as Content-Length passes",
        |stage| stage.answers(200, |peer| upload(peer, "7", &["con", "tent"])),
    ),
    case(
        "8.1.1",
        "a Content-Length that is no number is malformed",
        |stage| malformed(stage, |peer| upload(peer, "7x", &["content"])),
    ),
    case(
        "8.1.1",
        "different Content-Lengths are malformed, the same twice are refused",
        |stage| {
            let lengths = |peer: &Peer, second| {
                let mut fields = peer.request("POST", "/upload");
                fields.extend([("content-length", "7"), ("content-length", second)]);
                let head = Frame::headers(1, block(&fields));
                vec![head, Frame::last_data(1, "content")]
            };
            malformed(stage, |peer| lengths(peer, "8"))?;
            stage.answers(400, |peer| lengths(peer, "7"))
        },
    ),
    case(
        "8.1.1",
        "an answer to HEAD, and 204 and 304, have no content",
        |stage| {
            for (method, path) in [
                ("HEAD", "/headers"),
                ("GET", "/status?code=204"),
                ("GET", "/status?code=304"),
            ] {
                let mut peer = stage.peer()?;
                let fields = peer.request(method, path);
                peer.send(&[Frame::only_headers(1, block(&fields))])?;
                let head = peer.wait_for("an answer", |frame| frame.stream == 1)?;
                let whole = head.kind == kind::HEADERS && head.has(flag::END_STREAM);
                ensure!(whole, "{method} {path}: {head:?}");
            }
            Ok(())
        },
    ),
    case("8.2.1", "uppercase in a name is malformed", |stage| {
        stage.ends(Code::ProtocolError, |peer| {
            with_field(peer, "X-Upper", "case")
        })
    })
    .but(WHOLE_CONNECTION),
    case("8.2.1", "a space in a name is malformed", |stage| {
        stage.ends(Code::ProtocolError, |peer| with_field(peer, "x y", "z"))
    })
    .but(WHOLE_CONNECTION),
    case("8.2.1", "a colon in a name is malformed", |stage| {
        stage.ends(Code::ProtocolError, |peer| with_field(peer, "x:y", "z"))
    })
    .but(WHOLE_CONNECTION),
    case("8.2.1", "an empty name is malformed", |stage| {
        stage.ends(Code::ProtocolError, |peer| with_field(peer, "", "z"))
    })
    .but(WHOLE_CONNECTION),
    case("8.2.1", "a line break in a value is malformed", |stage| {
        stage.ends(Code::ProtocolError, |peer| {
            with_field(peer, "x", "y\r\nz: w")
        })
    })
    .but(WHOLE_CONNECTION),
    case("8.2.1", "a NUL in a value is malformed", |stage| {
        stage.ends(Code::ProtocolError, |peer| with_field(peer, "x", "y\0"))
    })
    .but(WHOLE_CONNECTION),
    case("8.2.1", "space around a value is malformed", |stage| {
        for value in [" y", "y ", "\ty", "y\t", " "] {
            stage.answers(400, |peer| with_field(peer, "x", value))?;
        }
        Ok(())
    }),
    case("8.2.1", "so it is around a trailer's", |stage| {
        stage.answers(400, |peer| with_trailers(peer, &[("x-sum", " 7")]))
    }),
    case("8.2.1", "space within a value passes", |stage| {
        stage.answers(200, |peer| with_field(peer, "x", "y z\tw"))
    }),
    case("8.2.2", "Connection is malformed", |stage| {
        malformed(stage, |peer| with_field(peer, "connection", "keep-alive"))
    }),
    case("8.2.2", "Keep-Alive is malformed", |stage| {
        malformed(stage, |peer| with_field(peer, "keep-alive", "timeout=5"))
    }),
    case("8.2.2", "Proxy-Connection is malformed", |stage| {
        malformed(stage, |peer| {
            with_field(peer, "proxy-connection", "keep-alive")
        })
    }),
    case("8.2.2", "Transfer-Encoding is malformed", |stage| {
        malformed(stage, |peer| {
            with_field(peer, "transfer-encoding", "chunked")
        })
    }),
    case("8.2.2", "Upgrade is malformed", |stage| {
        malformed(stage, |peer| with_field(peer, "upgrade", "websocket"))
    }),
    case("8.2.2", "TE other than trailers is malformed", |stage| {
        malformed(stage, |peer| with_field(peer, "te", "trailers, deflate"))
    }),
    case("8.2.2", "TE: trailers passes", |stage| {
        stage.answers(200, |peer| with_field(peer, "te", "trailers"))
    }),
    case(
        "8.2.3",
        "a cookie in pieces reaches an HTTP/1.1 upstream as one",
        |stage| {
            let mut peer = stage.peer()?;
            let mut fields = peer.request("GET", "/headers");
            fields.extend([("cookie", "a=1"), ("cookie", "b=2")]);
            peer.send(&[Frame::only_headers(1, block(&fields))])?;
            let reply = peer.reply(1)?;
            let body = String::from_utf8_lossy(&reply.body).into_owned();
            ensure!(body.contains(r#"["cookie","a=1; b=2"]"#), "{body}");
            Ok(())
        },
    ),
    case(
        "8.3",
        "a pseudo-field that nobody knows is malformed",
        |stage| {
            stage.ends(Code::ProtocolError, |peer| {
                beginning_with(peer, ":nobody", "knows")
            })
        },
    )
    .but(WHOLE_CONNECTION),
    case("8.3", "a pseudo-field of responses is malformed", |stage| {
        malformed(stage, |peer| beginning_with(peer, ":status", "200"))
    }),
    case(
        "8.3",
        "a pseudo-field behind another field is malformed",
        |stage| malformed(stage, |peer| beginning_with(peer, "x", "y")),
    ),
    case(
        "8.3.1",
        "a pseudo-field given twice is malformed",
        |stage| malformed(stage, |peer| beginning_with(peer, ":path", "/elsewhere")),
    ),
    case("8.3.1", "a request without :method is malformed", |stage| {
        malformed(stage, |peer| with_pseudo(peer, ":method", None))
    }),
    case("8.3.1", "a request without :scheme is malformed", |stage| {
        malformed(stage, |peer| with_pseudo(peer, ":scheme", None))
    }),
    case("8.3.1", "a request without :path is malformed", |stage| {
        malformed(stage, |peer| with_pseudo(peer, ":path", None))
    }),
    case("8.3.1", "an empty :path is malformed", |stage| {
        malformed(stage, |peer| with_pseudo(peer, ":path", Some("")))
    }),
    case(
        "8.3.1",
        "a request without :authority and Host is refused",
        |stage| stage.answers(400, |peer| with_pseudo(peer, ":authority", None)),
    ),
    case("8.3.1", "Host must agree with :authority", |stage| {
        stage.answers(400, |peer| with_field(peer, "host", "elsewhere.test"))
    }),
    case("8.3.1", "in whatever case, and with its port", |stage| {
        for host in ["Enforcer.TEST", "enforcer.test:443"] {
            stage.answers(200, |peer| with_field(peer, "host", host))?;
        }
        stage.answers(400, |peer| with_field(peer, "host", "enforcer.test:80"))
    }),
    case(
        "8.3.1",
        "OPTIONS of the server itself has the :path *",
        |stage| {
            let options = |peer: &Peer, path| {
                let fields = peer.request("OPTIONS", path);
                vec![Frame::only_headers(1, block(&fields))]
            };
            stage.answers(204, |peer| options(peer, "*"))?;
            malformed(stage, |peer| options(peer, "*x"))?;
            stage.answers(400, |peer| with_pseudo(peer, ":path", Some("*")))
        },
    ),
    case(
        "8.3.1",
        "user information in :authority is refused",
        |stage| {
            stage.answers(400, |peer| {
                with_pseudo(peer, ":authority", Some("eve@enforcer.test"))
            })
        },
    ),
    case("8.5", "CONNECT with :path is malformed", |stage| {
        malformed(stage, |peer| with_pseudo(peer, ":method", Some("CONNECT")))
    }),
    case(
        "10.3",
        "what would be two lines to an HTTP/1.1 upstream never is",
        |stage| {
            malformed(stage, |peer| {
                with_pseudo(peer, ":path", Some("/ HTTP/1.1\r\nx: y"))
            })
        },
    ),
    case(
        "10.5.1",
        "a header list above the limit is answered with 431",
        |stage| {
            let mut peer = stage.peer()?;
            let long = "v".repeat(8_000);
            let mut frames = Vec::new();
            for number in 0..9 {
                let mut fields = if number == 0 {
                    peer.request("GET", "/headers")
                } else {
                    Vec::new()
                };
                fields.push(("x-long", &long));
                frames.push(Frame::continuation(1, block(&fields), number == 8));
            }
            frames[0].kind = kind::HEADERS;
            frames[0].flags = flag::END_STREAM;
            // Two to a frame would be too long for it; nine are more than a head may come in.
            let joined: Vec<_> = frames.chunks(2).map(join).collect();
            peer.send(&joined)?;
            ensure!(peer.reply(1)?.status == 431);
            Ok(())
        },
    ),
];

/// One frame with the payloads and flags of several.
fn join(frames: &[Frame]) -> Frame {
    let mut joined = frames[0].clone();
    for frame in &frames[1..] {
        joined.payload.extend(&frame.payload);
        joined.flags |= frame.flags;
    }
    joined
}
