//! What passed the cable, recorded by tcpdump at the client's end.

use std::{
    fs::{self, File},
    io::BufReader,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, bail, ensure};
use enforcer::clock::WallInstant;
use etherparse::{IpNumber, LaxNetSlice, LaxSlicedPacket, TransportSlice};
use pcap_file::{TsResolution, pcap::PcapReader};
use rustix::process::Signal;

use crate::{
    bed::{self, Bed},
    namespace::Namespace,
    process::{Process, ended_by},
    wait,
    wire::{Flags, Segment, Wire},
};

/// Enough for every header there is, of packets within others, too.
const SNAPSHOT_LENGTH: &str = "192";
const BUFFER_KIB: &str = "65536";

/// A datagram to this port marks the end: what was sent before it has been recorded once it shows.
const MARKER_PORT: u16 = 9;

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Process,
    file: PathBuf,
    messages: PathBuf,
    client: Namespace,
}

impl Capture {
    /// Records until [`Capture::finish`]; returns once it does.
    pub fn start(bed: &Bed) -> Result<Self> {
        let file = bed.path("cable.pcap");
        let messages = bed.path("tcpdump.log");
        let log = File::create(&messages).context("make tcpdump's log")?;
        let encapsulated = "ip6[6] = 43";
        let filter = format!("tcp or udp port {MARKER_PORT} or ({encapsulated})");
        let mut command = bed.command(bed.client(), "tcpdump")?;
        command
            .args(["-i", bed::CABLE, "-n", "--immediate-mode", "-U"])
            .args(["--time-stamp-precision=nano", "-s", SNAPSHOT_LENGTH])
            .args(["-B", BUFFER_KIB, "-Z", "root", "-w"])
            .arg(&file)
            .arg(filter)
            .stdout(Stdio::null())
            .stderr(log);
        let capture = Self {
            tcpdump: Process::spawn(&mut command, "tcpdump")?,
            file,
            messages,
            client: bed.client().clone(),
        };
        wait::until("tcpdump listened", || {
            capture.said().contains("listening on").then_some(())
        })
        .with_context(|| capture.said())?;
        Ok(capture)
    }

    /// Ends the capture and reads it.
    pub fn finish(mut self) -> Result<Wire> {
        self.mark()?;
        wait::until("tcpdump had recorded everything", || {
            let records = read(&self.file).ok()?;
            records.contains(&Record::Marker).then_some(())
        })?;
        self.tcpdump.signal(Signal::INT)?;
        let status = self.tcpdump.wait()?;
        ensure!(
            status.success() || ended_by(status, Signal::INT),
            "tcpdump failed: {}",
            self.said()
        );
        let said = self.said();
        if !said.contains("\n0 packets dropped by kernel") {
            bail!("the capture has holes: {said}");
        }
        let segments = read(&self.file)?
            .into_iter()
            .filter_map(|record| match record {
                Record::Segment(segment) => Some(segment),
                Record::Marker => None,
            });
        Ok(Wire::new(segments.collect()))
    }

    fn mark(&self) -> Result<()> {
        let runtime = self.client.runtime(1)?;
        let send = async || -> std::io::Result<()> {
            let socket = UdpSocket::bind((bed::CLIENT_IPV4, 0))?;
            socket.send_to(b"end", (bed::DAEMON_IPV4, MARKER_PORT))?;
            Ok(())
        };
        let sent = crate::namespace::Task::spawn(&runtime, send()).join()?;
        sent.context("mark the end of the capture")
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.messages).unwrap_or_default()
    }
}

#[derive(PartialEq)]
enum Record {
    Segment(Segment),
    Marker,
}

fn read(file: &Path) -> Result<Vec<Record>> {
    let file = File::open(file).context("open the capture")?;
    let mut reader = PcapReader::new(BufReader::new(file)).context("read the capture")?;
    ensure!(
        reader.header().ts_resolution == TsResolution::NanoSecond,
        "the capture's times are too coarse"
    );
    let mut records = Vec::new();
    while let Some(packet) = reader.next_raw_packet() {
        let packet = packet.context("the capture is damaged")?;
        let at = i64::from(packet.ts_sec) * 1_000_000_000 + i64::from(packet.ts_frac);
        records.extend(record(WallInstant::from_unix_nanos(at), &packet.data)?);
    }
    Ok(records)
}

fn record(at: WallInstant, frame: &[u8]) -> Result<Option<Record>> {
    let mut frame = LaxSlicedPacket::from_ethernet(frame).context("a frame without a header")?;
    let within = frame
        .ip_payload()
        .filter(|within| within.ip_number == IpNumber::IPV6);
    if let Some(packet) = within {
        frame = LaxSlicedPacket::from_ip(packet.payload).context("a packet without a header")?;
    }
    let (from, to, ip_payload) = match &frame.net {
        Some(LaxNetSlice::Ipv4(ip)) => {
            let header = ip.header();
            let length = usize::from(header.total_len()) - header.slice().len();
            let (from, to) = (header.source_addr(), header.destination_addr());
            (IpAddr::V4(from), IpAddr::V4(to), length)
        }
        Some(LaxNetSlice::Ipv6(ip)) => {
            let header = ip.header();
            let length = usize::from(header.payload_length());
            let (from, to) = (header.source_addr(), header.destination_addr());
            (IpAddr::V6(from), IpAddr::V6(to), length)
        }
        _ => return Ok(None),
    };
    let tcp = match &frame.transport {
        Some(TransportSlice::Tcp(tcp)) => tcp,
        Some(TransportSlice::Udp(_)) => return Ok(Some(Record::Marker)),
        _ => return Ok(None),
    };
    let header_length = usize::from(tcp.data_offset()) * 4;
    let payload = ip_payload.checked_sub(header_length);
    Ok(Some(Record::Segment(Segment {
        at,
        from: SocketAddr::new(from, tcp.source_port()),
        to: SocketAddr::new(to, tcp.destination_port()),
        sequence: tcp.sequence_number(),
        acknowledgment: tcp.ack().then(|| tcp.acknowledgment_number()),
        payload: payload.context("a segment shorter than its header")?,
        flags: Flags {
            syn: tcp.syn(),
            fin: tcp.fin(),
            rst: tcp.rst(),
        },
    })))
}
