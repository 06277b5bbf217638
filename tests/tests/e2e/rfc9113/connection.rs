//! Starting and ending a connection: preface, SETTINGS, PING, GOAWAY, reuse (sections 3.4, 5.4, 6.5,
//! 6.7, 6.8, 9.1).

use anyhow::{Result, ensure};
use enforcer_tests::client::http2::{Code, Frame, PREFACE, Peer, block, flag, kind, setting};

use super::{Case, LESS_EXACT, Stage, case};

/// A request in another session than the connection's.
fn misdirected(stage: &Stage, peer: &Peer, stream: u32) -> Frame {
    let mut fields = peer.request("GET", "/headers");
    fields.retain(|(name, _)| *name != "authorization");
    fields.push(("authorization", &stage.other_token));
    Frame::only_headers(stream, block(&fields))
}

/// GOAWAY comes for streams that may have been begun by then, and once the client has heard of it for
/// all but those up to the last.
pub(super) fn check_leaving(peer: &mut Peer, last: u32) -> Result<()> {
    let goaway = |frame: &Frame| frame.kind == kind::GOAWAY;
    let first = peer.wait_for("GOAWAY", goaway)?;
    let announced = (first.number(0), first.number(4));
    ensure!(announced == (Some(u32::MAX >> 1), Some(0)), "{first:?}");
    let ping = peer.wait_for("a ping", |it| it.kind == kind::PING && !it.has(flag::ACK))?;
    peer.send(&[ping.with_flags(flag::ACK)])?;
    let second = peer.wait_for("another GOAWAY", goaway)?;
    let final_word = (second.number(0), second.number(4));
    ensure!(final_word == (Some(last), Some(0)), "{second:?}");
    Ok(())
}

pub(super) const CASES: &[Case] = &[
    case(
        "3.4",
        "the server's preface is SETTINGS, also for an empty SETTINGS",
        |stage| stage.peer()?.check_alive(),
    ),
    case(
        "3.4",
        "a preface that is none ends the connection; GOAWAY may be omitted",
        |stage| {
            let mut peer = Peer::silent(&stage.client, &stage.token)?;
            peer.write(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n")?;
            peer.check_end()
        },
    ),
    case("3.4", "so does HTTP/1.1", |stage| {
        let mut peer = Peer::silent(&stage.client, &stage.token)?;
        peer.write(b"GET / HTTP/1.1\r\nHost: enforcer.test\r\n\r\n")?;
        peer.check_end()
    }),
    case(
        "3.4",
        "a preface without SETTINGS is a connection error",
        |stage| {
            let mut peer = Peer::silent(&stage.client, &stage.token)?;
            peer.write([PREFACE, &peer.get(1, "/headers").encode()].concat())?;
            ensure!(peer.reply(1)?.status == 200);
            Ok(())
        },
    )
    .but("the request is served: nothing in it depends on the settings"),
    case(
        "5.4.1",
        "GOAWAY of an error names the last stream that was taken up",
        |stage| {
            let mut peer = stage.peer()?;
            peer.check_served(1)?;
            peer.check_served(3)?;
            peer.send(&[Frame::data(0, "x")])?;
            let goaway = peer.wait_for("GOAWAY", |frame| frame.kind == kind::GOAWAY)?;
            ensure!(goaway.number(0) == Some(3), "{goaway:?}");
            peer.check_end()
        },
    ),
    case("6.5", "SETTINGS are acknowledged, each", |stage| {
        let mut peer = stage.peer()?;
        peer.send(&[
            Frame::settings(&[]),
            Frame::settings(&[(setting::ENABLE_PUSH, 0)]),
        ])?;
        for _ in 0..2 {
            let ack = peer.wait_for("an answer", |frame| frame.kind == kind::SETTINGS)?;
            ensure!(ack.flags == flag::ACK && ack.payload.is_empty(), "{ack:?}");
        }
        Ok(())
    }),
    case(
        "6.5",
        "an acknowledgement with a payload is FRAME_SIZE_ERROR",
        |stage| {
            stage.ends(Code::ProtocolError, |_| {
                vec![Frame::settings(&[(setting::ENABLE_PUSH, 0)]).with_flags(flag::ACK)]
            })
        },
    )
    .but(LESS_EXACT),
    case("6.5", "SETTINGS on a stream is PROTOCOL_ERROR", |stage| {
        stage.ends(Code::ProtocolError, |_| {
            vec![Frame::new(kind::SETTINGS, 0, 1, [])]
        })
    }),
    case(
        "6.5",
        "a length that is no multiple of 6 is FRAME_SIZE_ERROR",
        |stage| {
            stage.ends(Code::ProtocolError, |_| {
                vec![Frame::new(kind::SETTINGS, 0, 0, [0, 2, 0])]
            })
        },
    )
    .but(LESS_EXACT),
    case(
        "6.5.2",
        "ENABLE_PUSH other than 0 and 1 is PROTOCOL_ERROR",
        |stage| {
            stage.ends(Code::ProtocolError, |_| {
                vec![Frame::settings(&[(setting::ENABLE_PUSH, 2)])]
            })
        },
    ),
    case(
        "6.5.2",
        "INITIAL_WINDOW_SIZE above 2^31-1 is FLOW_CONTROL_ERROR",
        |stage| {
            stage.ends(Code::ProtocolError, |_| {
                vec![Frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 1 << 31)])]
            })
        },
    )
    .but(LESS_EXACT),
    case(
        "6.5.2",
        "MAX_FRAME_SIZE below 2^14 is PROTOCOL_ERROR",
        |stage| {
            stage.ends(Code::ProtocolError, |_| {
                vec![Frame::settings(&[(setting::MAX_FRAME_SIZE, (1 << 14) - 1)])]
            })
        },
    ),
    case(
        "6.5.2",
        "MAX_FRAME_SIZE above 2^24-1 is PROTOCOL_ERROR",
        |stage| {
            stage.ends(Code::ProtocolError, |_| {
                vec![Frame::settings(&[(setting::MAX_FRAME_SIZE, 1 << 24)])]
            })
        },
    ),
    case(
        "6.5.2",
        "a parameter that nobody knows is ignored",
        |stage| stage.ignores(|_| vec![Frame::settings(&[(0xff, 1)])]),
    ),
    case(
        "6.5.2",
        "frames to the client are no longer than MAX_FRAME_SIZE",
        |stage| {
            let mut peer = stage.peer()?;
            peer.send(&[peer.get(1, "/download?length=60000")])?;
            let mut received = 0;
            while received < 60_000 {
                let data = peer.wait_for("data", |frame| frame.kind == kind::DATA)?;
                ensure!(
                    data.payload.len() <= 1 << 14,
                    "{} bytes",
                    data.payload.len()
                );
                received += data.payload.len();
            }
            Ok(())
        },
    ),
    case("6.5.2", "a header table of no size is kept to", |stage| {
        // With a dynamic table, the decoder would find the second answer's fields there.
        let settings = [(setting::HEADER_TABLE_SIZE, 0)];
        let mut peer = Peer::with_settings(&stage.client, &stage.token, &settings)?;
        peer.limit_table(0);
        peer.check_served(1)?;
        peer.check_served(3)
    }),
    case(
        "6.5.2",
        "MAX_CONCURRENT_STREAMS of a client limits pushes, not its requests",
        |stage| {
            let settings = [(setting::MAX_CONCURRENT_STREAMS, 0)];
            Peer::with_settings(&stage.client, &stage.token, &settings)?.check_served(1)
        },
    ),
    case(
        "6.5.3",
        "of a parameter given twice the last value counts",
        |stage| {
            let settings = [
                (setting::INITIAL_WINDOW_SIZE, 100),
                (setting::INITIAL_WINDOW_SIZE, 1),
            ];
            let mut peer = Peer::with_settings(&stage.client, &stage.token, &settings)?;
            peer.send(&[peer.get(1, "/headers")])?;
            let data = peer.wait_for("data", |frame| frame.kind == kind::DATA)?;
            ensure!(data.payload.len() == 1, "{data:?}");
            Ok(())
        },
    ),
    case("6.7", "a PING is answered with its payload", |stage| {
        stage.peer()?.check_alive()
    }),
    case("6.7", "the answer to a PING is not answered", |stage| {
        let mut peer = stage.peer()?;
        peer.send(&[
            Frame::ping(*b"answered").with_flags(flag::ACK),
            Frame::ping(*b"question"),
        ])?;
        let answer = peer.wait_for("an answer", |frame| frame.kind == kind::PING)?;
        ensure!(answer.payload == b"question", "{answer:?}");
        Ok(())
    }),
    case("6.7", "PING on a stream is PROTOCOL_ERROR", |stage| {
        stage.ends(Code::ProtocolError, |_| {
            vec![Frame::new(kind::PING, 0, 1, [0; 8])]
        })
    }),
    case(
        "6.7",
        "a PING of another length than 8 is FRAME_SIZE_ERROR",
        |stage| {
            stage.ends(Code::ProtocolError, |_| {
                vec![Frame::new(kind::PING, 0, 0, [0; 6])]
            })
        },
    )
    .but(LESS_EXACT),
    case("6.8", "GOAWAY on a stream is PROTOCOL_ERROR", |stage| {
        stage.ends(Code::ProtocolError, |_| {
            vec![Frame::new(kind::GOAWAY, 0, 1, [0; 8])]
        })
    }),
    case(
        "6.8",
        "a GOAWAY that is too short is FRAME_SIZE_ERROR",
        |stage| {
            stage.ends(Code::ProtocolError, |_| {
                vec![Frame::new(kind::GOAWAY, 0, 0, [0; 7])]
            })
        },
    )
    .but(LESS_EXACT),
    case(
        "6.8",
        "what is under way when a client says GOAWAY is answered to its end",
        |stage| {
            let mut peer = stage.peer()?;
            let goaway = Frame::new(kind::GOAWAY, 0, 0, [0; 8]);
            peer.send(&[peer.get(1, "/download?rate=100000&length=20000"), goaway])?;
            let reply = peer.reply(1)?;
            ensure!(reply.body.len() == 20_000, "{} bytes", reply.body.len());
            peer.check_end()
        },
    ),
    case(
        "6.8",
        "a graceful GOAWAY is said twice, and what was taken up is answered to its end",
        |stage| {
            let mut peer = stage.peer()?;
            peer.check_served(1)?;
            peer.send(&[
                peer.get(3, "/download?rate=100000&length=20000"),
                misdirected(stage, &peer, 5),
            ])?;
            check_leaving(&mut peer, 5)?;
            // Too late: its client may send it again elsewhere.
            peer.send(&[peer.get(7, "/headers")])?;
            let reply = peer.reply(3)?;
            ensure!(reply.body.len() == 20_000, "{} bytes", reply.body.len());
            peer.check_end()?;
            ensure!(peer.take_fields(7).is_none(), "it was answered");
            Ok(())
        },
    ),
    case(
        "9.1.1",
        "a request of another session is misdirected: 421",
        |stage| {
            let mut peer = stage.peer()?;
            peer.check_served(1)?;
            peer.send(&[misdirected(stage, &peer, 3)])?;
            let status = peer.reply(3)?.status;
            ensure!(status == 421, "the answer was {status}");
            check_leaving(&mut peer, 3)?;
            peer.check_end()
        },
    ),
];
