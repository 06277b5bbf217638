//! Header blocks: their pieces (sections 4.3, 6.2, 6.10) and their compression (RFC 7541).

use anyhow::ensure;
use enforcer_tests::client::http2::{Code, Frame, Peer, block, flag, integer, string};

use super::{Case, LESS_EXACT, case};

/// A good request with this before or behind its fields.
fn request_with(peer: &Peer, before: &[u8], behind: &[u8]) -> Vec<Frame> {
    let block = block(&peer.request("GET", "/headers"));
    vec![Frame::only_headers(1, [before, &block, behind].concat())]
}

/// A good request in three pieces.
fn pieces(peer: &Peer) -> [Frame; 3] {
    let block = block(&peer.request("GET", "/headers"));
    // In the middle of a field.
    let (first, rest) = block.split_at(15);
    let (second, third) = rest.split_at(20);
    [
        Frame::headers(1, first).with_flags(flag::END_STREAM),
        Frame::continuation(1, second, false),
        Frame::continuation(1, third, true),
    ]
}

pub(super) const CASES: &[Case] = &[
    case(
        "4.3",
        "a block that can't be decompressed is COMPRESSION_ERROR",
        |stage| {
            stage.ends(Code::ProtocolError, |_| {
                vec![Frame::only_headers(1, [0x40])]
            })
        },
    )
    .but(LESS_EXACT),
    case(
        "4.3",
        "the state of compression outlives a stream that is refused",
        |stage| {
            let mut peer = stage.peer()?;
            let mut refused = block(&peer.request("GET", "/headers"));
            // "x-kept: y", remembered; then a field that is not allowed.
            refused.extend(b"\x40\x06x-kept\x01y");
            refused.extend(block(&[("connection", "close")]));
            let mut second = block(&peer.request("GET", "/headers"));
            integer(&mut second, 0x80, 7, 62);
            peer.send(&[
                Frame::only_headers(1, refused),
                Frame::only_headers(3, second),
            ])?;
            let reply = peer.reply(3)?;
            let body = String::from_utf8_lossy(&reply.body).into_owned();
            ensure!(body.contains(r#"["x-kept","y"]"#), "{body}");
            Ok(())
        },
    ),
    case(
        "6.2",
        "another frame within a block is PROTOCOL_ERROR",
        |stage| {
            stage.ends(Code::ProtocolError, |peer| {
                let [first, _, _] = pieces(peer);
                vec![first, Frame::priority(1, 0)]
            })
        },
    ),
    case(
        "6.2",
        "HEADERS of another stream within a block is PROTOCOL_ERROR",
        |stage| {
            stage.ends(Code::ProtocolError, |peer| {
                let [first, _, _] = pieces(peer);
                vec![first, peer.get(3, "/headers")]
            })
        },
    ),
    case("6.10", "a block in pieces is a block", |stage| {
        let mut peer = stage.peer()?;
        peer.send(&pieces(&peer))?;
        ensure!(peer.reply(1)?.status == 200);
        Ok(())
    }),
    case("6.10", "DATA within a block is PROTOCOL_ERROR", |stage| {
        stage.ends(Code::ProtocolError, |peer| {
            let [first, second, _] = pieces(peer);
            vec![first, second, Frame::data(1, "x")]
        })
    }),
    case(
        "6.10",
        "CONTINUATION of another stream is PROTOCOL_ERROR",
        |stage| {
            stage.ends(Code::ProtocolError, |peer| {
                let [first, second, _] = pieces(peer);
                vec![
                    first,
                    Frame {
                        stream: 3,
                        ..second
                    },
                ]
            })
        },
    ),
    case(
        "6.10",
        "CONTINUATION on stream 0 is PROTOCOL_ERROR",
        |stage| {
            stage.ends(Code::ProtocolError, |peer| {
                let [first, second, _] = pieces(peer);
                vec![
                    first,
                    Frame {
                        stream: 0,
                        ..second
                    },
                ]
            })
        },
    ),
    case(
        "6.10",
        "CONTINUATION behind the end of a block is PROTOCOL_ERROR",
        |stage| {
            stage.ends(Code::ProtocolError, |peer| {
                let [first, second, third] = pieces(peer);
                vec![first, second, third.clone(), third]
            })
        },
    ),
    case(
        "RFC 7541, 2.3.3",
        "an index beyond the tables is a decoding error",
        |stage| {
            stage.ends(Code::ProtocolError, |peer| {
                request_with(peer, &[], &[0x80 | 70])
            })
        },
    )
    .but(LESS_EXACT),
    case(
        "RFC 7541, 2.3.3",
        "a name's index beyond the tables is a decoding error",
        |stage| {
            stage.ends(Code::ProtocolError, |peer| {
                let mut literal = Vec::new();
                integer(&mut literal, 0x40, 6, 70);
                string(&mut literal, b"empty");
                request_with(peer, &[], &literal)
            })
        },
    )
    .but(LESS_EXACT),
    case(
        "RFC 7541, 4.2",
        "a change of the table's size behind a field is a decoding error",
        |stage| stage.ends(Code::ProtocolError, |peer| request_with(peer, &[], &[0x20])),
    )
    .but(LESS_EXACT),
    case(
        "RFC 7541, 5.2",
        "Huffman padding of more than 7 bits is a decoding error",
        |stage| {
            stage.ends(Code::ProtocolError, |peer| {
                request_with(
                    peer,
                    &[],
                    b"\x00\x85\xf2\xb2\x4a\x84\xff\x84\x49\x50\x9f\xff",
                )
            })
        },
    )
    .but(LESS_EXACT),
    case(
        "RFC 7541, 5.2",
        "Huffman padding that is not of ones is a decoding error",
        |stage| {
            stage.ends(Code::ProtocolError, |peer| {
                request_with(peer, &[], b"\x00\x85\xf2\xb2\x4a\x84\xff\x83\x49\x50\x90")
            })
        },
    )
    .but(LESS_EXACT),
    case(
        "RFC 7541, 5.2",
        "a Huffman string with the end marker is a decoding error",
        |stage| {
            stage.ends(Code::ProtocolError, |peer| {
                request_with(
                    peer,
                    &[],
                    b"\x00\x85\xf2\xb2\x4a\x84\xff\x87\x49\x51\xff\xff\xff\xfa\x7f",
                )
            })
        },
    )
    .but(LESS_EXACT),
    case("RFC 7541, 6.1", "index 0 is a decoding error", |stage| {
        stage.ends(Code::ProtocolError, |peer| request_with(peer, &[], &[0x80]))
    })
    .but(LESS_EXACT),
    case(
        "RFC 7541, 6.3",
        "a table above HEADER_TABLE_SIZE is a decoding error",
        |stage| {
            stage.ends(Code::ProtocolError, |peer| {
                let mut update = Vec::new();
                integer(&mut update, 0x20, 5, 4097);
                request_with(peer, &update, &[])
            })
        },
    )
    .but(LESS_EXACT),
    case(
        "RFC 7541, 6.3",
        "a table that shrinks and grows again is taken",
        |stage| {
            stage.answers(200, |peer| {
                let mut updates = Vec::new();
                integer(&mut updates, 0x20, 5, 0);
                integer(&mut updates, 0x20, 5, 4096);
                request_with(peer, &updates, &[])
            })
        },
    ),
];
