//! CONNECT, and what flows on its stream (section 8.5).

use std::io;

use anyhow::{Result, ensure};
use enforcer_tests::{
    client::http2::{Code, Frame, Peer, block, flag, kind},
    upstream::stream::StreamUpstream,
};

use super::{Case, Stage, case};

/// A tunnel on stream 1, and its target.
struct Tunnel {
    peer: Peer,
    target: StreamUpstream,
}

impl Tunnel {
    fn new(stage: &Stage) -> Result<Self> {
        let target = StreamUpstream::start(stage.scene.bed.daemon())?;
        let mut peer = stage.peer()?;
        let address = target.address().to_string();
        let fields = [
            (":method", "CONNECT"),
            (":authority", &*address),
            ("proxy-authorization", &*stage.token),
        ];
        peer.send(&[Frame::headers(1, block(&fields))])?;
        let head = peer.wait_for("an answer", |frame| frame.kind == kind::HEADERS)?;
        ensure!(!head.has(flag::END_STREAM), "{head:?}");
        let fields = peer.take_fields(1).unwrap_or_default();
        let connected = fields.contains(&(":status".to_owned(), "200".to_owned()));
        ensure!(connected, "{fields:?}");
        Ok(Self { peer, target })
    }

    /// One on which bytes have come back.
    fn echoing(stage: &Stage) -> Result<Self> {
        let mut tunnel = Self::new(stage)?;
        tunnel.peer.send(&[Frame::data(1, "echo\nto and fro")])?;
        let back = tunnel.peer.wait_for("data", |it| it.kind == kind::DATA)?;
        ensure!(back.payload == b"to and fro", "{back:?}");
        Ok(tunnel)
    }

    /// The target's connection has broken off, and not ended.
    fn check_target_reset(&self) -> Result<()> {
        let log = self.target.log();
        let ended = log.wait_for_connections("the target's connection ended", |all| {
            all.first().is_some_and(|one| one.ended.is_some())
        })?;
        let how = ended[0].ended.map(|(_, how)| how);
        let reset = Some(Err(io::ErrorKind::ConnectionReset));
        ensure!(how == reset, "the target's connection ended: {how:?}");
        Ok(())
    }

    /// The frames are a stream error, on either side of the gateway.
    fn breaks(mut self, frames: &[Frame]) -> Result<()> {
        self.peer.send(frames)?;
        self.peer.check_stream_error(1, Code::ProtocolError)?;
        self.check_target_reset()?;
        self.peer.check_served(3)
    }
}

pub(super) const CASES: &[Case] = &[
    case("8.5", "what flows in DATA is the target's", |stage| {
        Tunnel::echoing(stage)?.peer.check_alive()
    }),
    case(
        "8.5",
        "END_STREAM is the end of one direction, as FIN is",
        |stage| {
            let mut tunnel = Tunnel::new(stage)?;
            tunnel.peer.send(&[Frame::last_data(1, "count\n12345")])?;
            let counted = tunnel.peer.wait_for("data", |it| it.kind == kind::DATA)?;
            ensure!(counted.payload == b"5", "{counted:?}");
            tunnel.peer.wait_for("the end", |frame| {
                frame.stream == 1 && frame.has(flag::END_STREAM)
            })?;
            tunnel.peer.check_served(3)
        },
    ),
    case(
        "8.5",
        "trailers on a connected stream are a stream error",
        |stage| {
            let trailers = Frame::only_headers(1, block(&[("x", "y")]));
            Tunnel::echoing(stage)?.breaks(&[trailers])
        },
    ),
    case("8.5", "so are trailers behind data", |stage| {
        let trailers = Frame::only_headers(1, []);
        Tunnel::echoing(stage)?.breaks(&[Frame::data(1, "cut sho"), trailers])
    }),
    case("8.5", "so are HEADERS without END_STREAM", |stage| {
        let more = Frame::headers(1, block(&[("x", "y")]));
        Tunnel::echoing(stage)?.breaks(&[more])
    }),
    case(
        "8.5",
        "WINDOW_UPDATE and PRIORITY on a connected stream are taken",
        |stage| {
            let mut tunnel = Tunnel::echoing(stage)?;
            tunnel.peer.send(&[
                Frame::window_update(1, 100),
                Frame::priority(1, 0),
                Frame::data(1, "more"),
            ])?;
            let back = tunnel.peer.wait_for("data", |it| it.kind == kind::DATA)?;
            ensure!(back.payload == b"more", "{back:?}");
            Ok(())
        },
    ),
    case(
        "8.5",
        "a target that breaks off is CONNECT_ERROR",
        |stage| {
            let mut tunnel = Tunnel::new(stage)?;
            tunnel.peer.send(&[Frame::data(1, "reset\n")])?;
            tunnel.peer.check_stream_error(1, Code::ConnectError)?;
            tunnel.peer.check_served(3)
        },
    ),
    case(
        "8.5",
        "RST_STREAM, whatever its code, is RST at the target",
        |stage| {
            for code in [Code::Cancel, Code::NoError, Code::ConnectError] {
                let mut tunnel = Tunnel::echoing(stage)?;
                tunnel.peer.send(&[Frame::reset(1, code)])?;
                tunnel.check_target_reset()?;
                tunnel.peer.check_served(3)?;
            }
            Ok(())
        },
    ),
];
