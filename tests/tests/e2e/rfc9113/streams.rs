//! The states of streams, and their identifiers (section 5.1).

use anyhow::ensure;
use enforcer_tests::client::http2::{Code, Frame, Peer, block, kind};

use super::{Case, LESS_EXACT, Stage, WHOLE_CONNECTION, case};

/// A connection whose stream 1 has been answered.
fn answered(stage: &Stage) -> anyhow::Result<Peer> {
    let mut peer = stage.peer()?;
    peer.check_served(1)?;
    Ok(peer)
}

/// A connection whose stream 1 the client has reset.
fn given_up(stage: &Stage) -> anyhow::Result<Peer> {
    let mut peer = stage.peer()?;
    peer.send(&[peer.get(1, "/slow"), Frame::reset(1, Code::Cancel)])?;
    peer.check_alive()?;
    Ok(peer)
}

pub(super) const CASES: &[Case] = &[
    case("5.1", "DATA on an idle stream is PROTOCOL_ERROR", |stage| {
        stage.ends(Code::ProtocolError, |_| vec![Frame::data(1, "x")])
    }),
    case(
        "5.1",
        "WINDOW_UPDATE on an idle stream is PROTOCOL_ERROR",
        |stage| stage.ends(Code::ProtocolError, |_| vec![Frame::window_update(1, 100)]),
    ),
    case(
        "5.1",
        "CONTINUATION on an idle stream is PROTOCOL_ERROR",
        |stage| {
            stage.ends(Code::ProtocolError, |_| {
                vec![Frame::continuation(1, [], true)]
            })
        },
    ),
    case(
        "5.1",
        "DATA after the end of the stream is STREAM_CLOSED",
        |stage| {
            stage.ends(Code::ProtocolError, |peer| {
                vec![peer.get(1, "/slow"), Frame::data(1, "x")]
            })
        },
    )
    .but(WHOLE_CONNECTION),
    case(
        "5.1",
        "HEADERS after the end of the stream is STREAM_CLOSED",
        |stage| {
            stage.ends(Code::ProtocolError, |peer| {
                vec![peer.get(1, "/slow"), peer.get(1, "/slow")]
            })
        },
    )
    .but(WHOLE_CONNECTION),
    case(
        "5.1",
        "CONTINUATION after the end of the stream is PROTOCOL_ERROR",
        |stage| {
            stage.ends(Code::ProtocolError, |peer| {
                vec![peer.get(1, "/slow"), Frame::continuation(1, [], true)]
            })
        },
    ),
    case(
        "5.1",
        "WINDOW_UPDATE and PRIORITY after the end of the stream are taken",
        |stage| {
            stage.ignores(|peer| {
                let window = Frame::window_update(1, 100);
                vec![peer.get(1, "/slow"), window, Frame::priority(1, 0)]
            })
        },
    ),
    case(
        "5.1",
        "DATA on a stream that was reset is STREAM_CLOSED",
        |stage| {
            let mut peer = given_up(stage)?;
            peer.send(&[Frame::data(1, "x")])?;
            peer.check_stream_error(1, Code::StreamClosed)
        },
    ),
    case(
        "5.1",
        "HEADERS on a stream that was reset is STREAM_CLOSED",
        |stage| {
            let mut peer = given_up(stage)?;
            peer.send(&[peer.get(1, "/headers")])?;
            peer.check_connection_error(Code::ProtocolError)
        },
    )
    .but(LESS_EXACT),
    case(
        "5.1",
        "DATA on a stream that was answered is STREAM_CLOSED",
        |stage| {
            let mut peer = answered(stage)?;
            peer.send(&[Frame::data(1, "x")])?;
            peer.check_stream_error(1, Code::StreamClosed)
        },
    ),
    case(
        "5.1",
        "HEADERS on a stream that was answered is STREAM_CLOSED",
        |stage| {
            let mut peer = answered(stage)?;
            peer.send(&[peer.get(1, "/headers")])?;
            peer.check_connection_error(Code::ProtocolError)
        },
    )
    .but(LESS_EXACT),
    case(
        "5.1",
        "WINDOW_UPDATE, RST_STREAM and PRIORITY on a closed stream are ignored",
        |stage| {
            let mut peer = answered(stage)?;
            peer.send(&[
                Frame::window_update(1, 100),
                Frame::reset(1, Code::Cancel),
                Frame::priority(1, 0),
            ])?;
            peer.check_served(3)
        },
    ),
    case(
        "5.1.1",
        "a stream with an even number is PROTOCOL_ERROR",
        |stage| stage.ends(Code::ProtocolError, |peer| vec![peer.get(2, "/headers")]),
    ),
    case(
        "5.1.1",
        "a stream below one that was opened is PROTOCOL_ERROR",
        |stage| {
            stage.ends(Code::ProtocolError, |peer| {
                vec![peer.get(5, "/slow"), peer.get(3, "/headers")]
            })
        },
    ),
    case("5.1.1", "numbers may be left out", |stage| {
        let mut peer = stage.peer()?;
        peer.check_served(7)?;
        peer.check_served(1_000_001)
    }),
    case(
        "5.1.2",
        "a stream beyond MAX_CONCURRENT_STREAMS is refused, and no other",
        |stage| {
            let mut peer = stage.peer()?;
            let streams: Vec<_> = (0..=128).map(|number| 2 * number + 1).collect();
            let requests: Vec<_> = streams.iter().map(|id| peer.get(*id, "/slow")).collect();
            peer.send(&requests)?;
            peer.check_stream_error(257, Code::RefusedStream)?;
            // Which makes room for one more.
            peer.send(&[Frame::reset(1, Code::Cancel)])?;
            peer.check_served(259)
        },
    ),
    case("5.1.2", "streams are answered in any order", |stage| {
        let mut peer = stage.peer()?;
        peer.send(&[
            peer.get(1, "/download?rate=100000&length=10000"),
            peer.get(3, "/headers"),
        ])?;
        let first = peer.wait_for("an answer", |frame| frame.has(0x1) && frame.stream != 0)?;
        ensure!(first.stream == 3, "{first:?}");
        ensure!(peer.reply(1)?.body.len() == 10_000);
        Ok(())
    }),
    case("5.4.2", "a stream error leaves the others alone", |stage| {
        let mut peer = stage.peer()?;
        let mut request = peer.request("GET", "/headers");
        request.push(("connection", "close"));
        let wrong = Frame::only_headers(3, block(&request));
        peer.send(&[peer.get(1, "/download?rate=100000&length=10000"), wrong])?;
        peer.check_stream_error(3, Code::ProtocolError)?;
        ensure!(peer.reply(1)?.body.len() == 10_000);
        Ok(())
    }),
    case(
        "8.1",
        "an answer before the end of the request ends with NO_ERROR",
        |stage| {
            let mut peer = stage.peer()?;
            let mut request = peer.request("POST", "/upload");
            request.pop();
            peer.send(&[
                Frame::headers(1, block(&request)),
                Frame::data(1, "a body that"),
            ])?;
            ensure!(peer.reply(1)?.status == 401);
            let reset = peer.wait_for("a reset", |frame| frame.kind == kind::RST_STREAM)?;
            ensure!(reset.number(0) == Some(Code::NoError as u32), "{reset:?}");
            peer.check_served(3)
        },
    ),
];
