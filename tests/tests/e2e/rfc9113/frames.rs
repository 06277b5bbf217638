//! Frames as such: format, size, padding, and kinds that have gone or never were (sections 4.1, 4.2,
//! 5.5, 6.1 to 6.4, 6.6).

use anyhow::ensure;
use enforcer_tests::client::http2::{Code, Frame, Peer, block, flag, kind};

use super::{Case, LESS_EXACT, WHOLE_CONNECTION, case};

const LARGEST: usize = 1 << 14;

/// A payload with a padding length that it does not have.
fn overpadded(payload: &[u8]) -> Vec<u8> {
    [&[payload.len() as u8 + 1], payload].concat()
}

fn padded_request(peer: &Peer) -> Frame {
    let block = block(&peer.request("GET", "/headers"));
    let payload = [&[3], &block[..], &[0; 3]].concat();
    Frame::only_headers(1, payload).with_flags(flag::PADDED | flag::END_HEADERS | flag::END_STREAM)
}

pub(super) const CASES: &[Case] = &[
    case("4.1", "flags without a meaning are ignored", |stage| {
        let mut peer = stage.peer()?;
        peer.send(&[Frame::ping(*b"flagged.").with_flags(0xf6)])?;
        let answer = peer.wait_for("an answer", |frame| frame.kind == kind::PING)?;
        ensure!(answer.payload == b"flagged.", "{answer:?}");
        Ok(())
    }),
    case("4.1", "the reserved bit is ignored", |stage| {
        let mut peer = stage.peer()?;
        peer.send(&[Frame {
            stream: 1 << 31,
            ..Frame::ping(*b"reserved")
        }])?;
        let answer = peer.wait_for("an answer", |frame| frame.kind == kind::PING)?;
        ensure!(answer.stream == 0, "{answer:?}");
        Ok(())
    }),
    case("4.2", "a frame of 2^14 bytes is taken", |stage| {
        let mut peer = stage.peer()?;
        peer.send(&[
            peer.post(1, "/upload"),
            Frame::last_data(1, vec![0; LARGEST]),
        ])?;
        let reply = peer.reply(1)?;
        ensure!(reply.body == LARGEST.to_string().as_bytes(), "{reply:?}");
        Ok(())
    }),
    case("4.2", "a larger DATA is FRAME_SIZE_ERROR", |stage| {
        stage.ends(Code::FrameSizeError, |peer| {
            vec![
                peer.post(1, "/upload"),
                Frame::data(1, vec![0; LARGEST + 1]),
            ]
        })
    }),
    case(
        "4.2",
        "a larger HEADERS is FRAME_SIZE_ERROR of the connection",
        |stage| {
            stage.ends(Code::FrameSizeError, |_| {
                vec![Frame::headers(1, vec![0; LARGEST + 1])]
            })
        },
    ),
    case(
        "5.5",
        "a frame of a kind that nobody knows is ignored",
        |stage| {
            stage.ignores(|_| {
                vec![
                    Frame::new(0x16, 0xff, 0, [0; 8]),
                    Frame::new(0x16, 0, 9, []),
                ]
            })
        },
    ),
    case(
        "5.5",
        "within a header block it is PROTOCOL_ERROR",
        |stage| {
            stage.ends(Code::ProtocolError, |peer| {
                vec![
                    peer.get(1, "/headers").with_flags(flag::END_STREAM),
                    Frame::new(0x16, 0, 1, []),
                ]
            })
        },
    ),
    case("6.1", "DATA on stream 0 is PROTOCOL_ERROR", |stage| {
        stage.ends(Code::ProtocolError, |_| vec![Frame::data(0, "x")])
    }),
    case("6.1", "padding of DATA is no content", |stage| {
        let mut peer = stage.peer()?;
        let padded = Frame::data(1, [&[4], &b"content"[..], &[0; 4]].concat());
        let padded = padded.with_flags(flag::PADDED | flag::END_STREAM);
        peer.send(&[peer.post(1, "/upload"), padded])?;
        let reply = peer.reply(1)?;
        ensure!(reply.body == b"7", "{reply:?}");
        Ok(())
    }),
    case(
        "6.1",
        "DATA with more padding than payload is PROTOCOL_ERROR",
        |stage| {
            stage.ends(Code::ProtocolError, |peer| {
                let data = Frame::data(1, overpadded(b"content")).with_flags(flag::PADDED);
                vec![peer.post(1, "/upload"), data]
            })
        },
    ),
    case("6.2", "HEADERS on stream 0 is PROTOCOL_ERROR", |stage| {
        stage.ends(Code::ProtocolError, |peer| vec![peer.get(0, "/headers")])
    }),
    case("6.2", "padding of HEADERS is no header block", |stage| {
        let mut peer = stage.peer()?;
        peer.send(&[padded_request(&peer)])?;
        ensure!(peer.reply(1)?.status == 200);
        Ok(())
    }),
    case(
        "6.2",
        "HEADERS with more padding than payload is PROTOCOL_ERROR",
        |stage| {
            stage.ends(Code::ProtocolError, |peer| {
                let flags = flag::PADDED | flag::END_HEADERS | flag::END_STREAM;
                let payload = vec![0xff; 20];
                vec![
                    Frame {
                        payload,
                        ..peer.get(1, "/")
                    }
                    .with_flags(flags),
                ]
            })
        },
    ),
    case("6.2", "the priority in HEADERS is passed over", |stage| {
        let mut peer = stage.peer()?;
        let request = peer.get(1, "/headers");
        let flags = request.flags | flag::PRIORITY;
        let payload = [&[0, 0, 0, 0, 16], &request.payload[..]].concat();
        peer.send(&[Frame { payload, ..request }.with_flags(flags)])?;
        ensure!(peer.reply(1)?.status == 200);
        Ok(())
    }),
    case(
        "6.3",
        "PRIORITY is ignored, on any stream in any state",
        |stage| {
            stage.ignores(|peer| {
                let of_idle = Frame::priority(7, 0);
                vec![of_idle, peer.get(1, "/slow"), Frame::priority(1, 3)]
            })
        },
    ),
    case("6.3", "PRIORITY on stream 0 is PROTOCOL_ERROR", |stage| {
        stage.ends(Code::ProtocolError, |_| vec![Frame::priority(0, 1)])
    }),
    case(
        "6.3",
        "PRIORITY of another length than 5 is a stream's FRAME_SIZE_ERROR",
        |stage| {
            stage.ends(Code::ProtocolError, |peer| {
                vec![
                    peer.get(1, "/slow"),
                    Frame::new(kind::PRIORITY, 0, 1, [0; 4]),
                ]
            })
        },
    )
    .but(WHOLE_CONNECTION),
    case(
        "RFC 7540, 5.3.1",
        "a stream that depends on itself is reset with PROTOCOL_ERROR",
        |stage| {
            stage.resets(Code::ProtocolError, |peer| {
                vec![peer.get(1, "/slow"), Frame::priority(1, 1)]
            })
        },
    ),
    case(
        "6.4",
        "RST_STREAM ends a stream and nothing else",
        |stage| stage.ignores(|peer| vec![peer.get(1, "/slow"), Frame::reset(1, Code::Cancel)]),
    ),
    case("6.4", "RST_STREAM on stream 0 is PROTOCOL_ERROR", |stage| {
        stage.ends(Code::ProtocolError, |_| vec![Frame::reset(0, Code::Cancel)])
    }),
    case(
        "6.4",
        "RST_STREAM on an idle stream is PROTOCOL_ERROR",
        |stage| stage.ends(Code::ProtocolError, |_| vec![Frame::reset(1, Code::Cancel)]),
    ),
    case(
        "6.4",
        "RST_STREAM of another length than 4 is FRAME_SIZE_ERROR",
        |stage| {
            stage.ends(Code::ProtocolError, |peer| {
                vec![
                    peer.get(1, "/slow"),
                    Frame::new(kind::RST_STREAM, 0, 1, [0; 3]),
                ]
            })
        },
    )
    .but(LESS_EXACT),
    case(
        "6.6",
        "PUSH_PROMISE of a client is PROTOCOL_ERROR",
        |stage| {
            stage.ends(Code::ProtocolError, |peer| {
                let block = block(&peer.request("GET", "/headers"));
                let payload = [&[0, 0, 0, 2], &block[..]].concat();
                vec![
                    peer.get(1, "/slow"),
                    Frame::new(kind::PUSH_PROMISE, flag::END_HEADERS, 1, payload),
                ]
            })
        },
    ),
];
