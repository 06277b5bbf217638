//! Flow control, both ways (section 6.9).

use anyhow::{Result, ensure};
use enforcer_tests::client::http2::{Code, Frame, Peer, kind, setting};

use super::{Case, LESS_EXACT, Stage, WHOLE_CONNECTION, case};

/// What the gateway lets a client send before it takes some of it.
const STREAM_WINDOW: usize = 256 * 1024;
const LARGEST: usize = 1 << 14;
const MOST: u32 = (1 << 31) - 1;

/// A connection whose streams have windows of this size.
fn with_window(stage: &Stage, size: u32) -> Result<Peer> {
    let settings = [(setting::INITIAL_WINDOW_SIZE, size)];
    Peer::with_settings(&stage.client, &stage.token, &settings)
}

fn opens(frame: &Frame) -> bool {
    frame.kind == kind::WINDOW_UPDATE
}

/// A request body on stream 1 that heeds the gateway's windows.
struct Upload {
    sent: usize,
    granted: usize,
    granted_to_connection: usize,
}

impl Default for Upload {
    fn default() -> Self {
        Self {
            sent: 0,
            granted: STREAM_WINDOW,
            granted_to_connection: 65_535,
        }
    }
}

impl Upload {
    /// How much may be sent in a frame now.
    fn room(&mut self, peer: &mut Peer) -> usize {
        while let Some(update) = peer.take_waiting(opens) {
            self.heed(&update);
        }
        let granted = self.granted.min(self.granted_to_connection);
        granted.saturating_sub(self.sent).min(LARGEST - 1)
    }

    fn wait(&mut self, peer: &mut Peer) -> Result<()> {
        let update = peer.wait_for("a window was opened", opens)?;
        self.heed(&update);
        Ok(())
    }

    fn heed(&mut self, update: &Frame) {
        let increment = update.number(0).unwrap_or_default() as usize;
        match update.stream {
            0 => self.granted_to_connection += increment,
            _ => self.granted += increment,
        }
    }

    fn send(&mut self, peer: &Peer, data: Frame) -> Result<()> {
        self.sent += data.payload.len();
        peer.send(&[data])
    }
}

/// Waits for this much data, and makes sure that no more comes.
fn expect_data(peer: &mut Peer, length: usize) -> Result<()> {
    let mut received = 0;
    while received < length {
        let data = peer.wait_for("data", |frame| frame.kind == kind::DATA)?;
        received += data.payload.len();
    }
    peer.check_alive()?;
    ensure!(received == length, "{received} bytes came for {length}");
    ensure!(
        !peer.has_waiting(kind::DATA),
        "more than {length} bytes came"
    );
    Ok(())
}

pub(super) const CASES: &[Case] = &[
    case(
        "6.9",
        "an increment of 0 on the connection is PROTOCOL_ERROR",
        |stage| stage.ends(Code::ProtocolError, |_| vec![Frame::window_update(0, 0)]),
    ),
    case(
        "6.9",
        "an increment of 0 on a stream is a stream's PROTOCOL_ERROR",
        |stage| {
            stage.ends(Code::ProtocolError, |peer| {
                vec![peer.get(1, "/slow"), Frame::window_update(1, 0)]
            })
        },
    )
    .but(WHOLE_CONNECTION),
    case(
        "6.9",
        "a WINDOW_UPDATE of another length than 4 is FRAME_SIZE_ERROR",
        |stage| {
            stage.ends(Code::ProtocolError, |_| {
                vec![Frame::new(kind::WINDOW_UPDATE, 0, 0, [0; 3])]
            })
        },
    )
    .but(LESS_EXACT),
    case(
        "6.9.1",
        "no more than the window is sent, and as much as the window",
        |stage| {
            let mut peer = with_window(stage, 1)?;
            peer.send(&[peer.get(1, "/download?length=1000")])?;
            expect_data(&mut peer, 1)?;
            peer.send(&[Frame::window_update(1, 99)])?;
            expect_data(&mut peer, 99)?;
            peer.send(&[Frame::window_update(1, 1000)])?;
            expect_data(&mut peer, 900)
        },
    ),
    case(
        "6.9.1",
        "the connection's window holds for all streams together",
        |stage| {
            let mut peer = with_window(stage, MOST)?;
            peer.send(&[
                peer.get(1, "/download?length=50000"),
                peer.get(3, "/download?length=50000"),
            ])?;
            expect_data(&mut peer, 65_535)?;
            peer.send(&[Frame::window_update(0, 65_535)])?;
            expect_data(&mut peer, 100_000 - 65_535)
        },
    ),
    case(
        "6.9.1",
        "a stream that waits for its window holds up no other",
        |stage| {
            let mut peer = with_window(stage, 0)?;
            peer.send(&[
                peer.get(1, "/download?length=1000"),
                peer.get(3, "/headers"),
            ])?;
            peer.send(&[Frame::window_update(3, 65_535)])?;
            ensure!(peer.reply(3)?.status == 200);
            Ok(())
        },
    ),
    case(
        "6.9.1",
        "a connection's window above 2^31-1 is FLOW_CONTROL_ERROR",
        |stage| {
            stage.ends(Code::FlowControlError, |_| {
                vec![Frame::window_update(0, MOST), Frame::window_update(0, 1)]
            })
        },
    ),
    case(
        "6.9.1",
        "a stream's window above 2^31-1 is a stream's FLOW_CONTROL_ERROR",
        |stage| {
            stage.resets(Code::FlowControlError, |peer| {
                let twice = [Frame::window_update(1, MOST), Frame::window_update(1, 1)];
                [&[peer.get(1, "/slow")][..], &twice].concat()
            })
        },
    ),
    case(
        "6.9.1",
        "more than the gateway's window of a stream is FLOW_CONTROL_ERROR",
        |stage| {
            // Nobody takes it: the upstream does not answer, and its socket's buffer is full some day.
            let mut peer = stage.peer()?;
            peer.send(&[peer.post(1, "/slow")])?;
            let mut upload = Upload::default();
            while !peer.has_waiting(kind::RST_STREAM) {
                // One byte more than was granted.
                let room = upload.room(&mut peer) + 1;
                upload.send(&peer, Frame::data(1, vec![0; room]))?;
                peer.check_alive()?;
            }
            peer.check_stream_error(1, Code::FlowControlError)
        },
    ),
    case(
        "6.9.1",
        "an upload's windows are opened as it is taken",
        |stage| {
            const LENGTH: usize = 2_000_000;
            let mut peer = stage.peer()?;
            peer.send(&[peer.post(1, "/upload")])?;
            let mut upload = Upload::default();
            while upload.sent < LENGTH {
                let room = upload.room(&mut peer).min(LENGTH - upload.sent);
                if room == 0 {
                    upload.wait(&mut peer)?;
                    continue;
                }
                upload.send(&peer, Frame::data(1, vec![0; room]))?;
            }
            peer.send(&[Frame::last_data(1, [])])?;
            let reply = peer.reply(1)?;
            ensure!(reply.body == LENGTH.to_string().as_bytes(), "{reply:?}");
            Ok(())
        },
    ),
    case(
        "6.9.2",
        "INITIAL_WINDOW_SIZE changes the windows of open streams",
        |stage| {
            let mut peer = with_window(stage, 0)?;
            peer.send(&[peer.get(1, "/download?length=1000")])?;
            peer.wait_for("an answer", |frame| frame.kind == kind::HEADERS)?;
            expect_data(&mut peer, 0)?;
            peer.send(&[Frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 10)])])?;
            expect_data(&mut peer, 10)
        },
    ),
    case(
        "6.9.2",
        "a window may become negative, and is made up for first",
        |stage| {
            let mut peer = with_window(stage, 100)?;
            peer.send(&[peer.get(1, "/download?length=1000")])?;
            expect_data(&mut peer, 100)?;
            peer.send(&[Frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 20)])])?;
            peer.send(&[Frame::window_update(1, 80)])?;
            expect_data(&mut peer, 0)?;
            peer.send(&[Frame::window_update(1, 1)])?;
            expect_data(&mut peer, 1)
        },
    ),
    case(
        "6.9.2",
        "settings that overflow a stream's window are FLOW_CONTROL_ERROR",
        |stage| {
            let mut peer = stage.peer()?;
            peer.send(&[
                peer.get(1, "/slow"),
                Frame::window_update(1, MOST - 65_535),
                Frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 65_536)]),
            ])?;
            peer.check_connection_error(Code::FlowControlError)
        },
    ),
];
