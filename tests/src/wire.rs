//! What a capture shows of a connection, and whether it was cut as promised.

use std::{collections::HashMap, fmt, net::SocketAddr};

use anyhow::{Context as _, Result, ensure};
use enforcer::clock::WallInstant;
use jiff::SignedDuration;

/// A TCP segment on the cable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// When it passed.
    pub at: WallInstant,
    /// Who sent it.
    pub from: SocketAddr,
    /// Who it is for.
    pub to: SocketAddr,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgment number, where the flag is set.
    pub acknowledgment: Option<u32>,
    /// Bytes of payload.
    pub payload: usize,
    /// Its flags.
    pub flags: Flags,
}

/// Flags of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the flags of TCP")]
pub struct Flags {
    pub syn: bool,
    pub fin: bool,
    pub rst: bool,
}

impl Segment {
    /// Sequence number after the payload.
    fn end(&self) -> u32 {
        self.sequence.wrapping_add(self.payload as u32)
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} > {}", self.at, self.from, self.to)?;
        write!(f, " {} bytes at {}", self.payload, self.sequence)?;
        if let Some(acknowledgment) = self.acknowledgment {
            write!(f, " ack {acknowledgment}")?;
        }
        let Flags { syn, fin, rst } = self.flags;
        for (set, name) in [(syn, " SYN"), (fin, " FIN"), (rst, " RST")] {
            f.write_str(if set { name } else { "" })?;
        }
        Ok(())
    }
}

/// Everything that passed.
#[derive(Clone, Debug)]
pub struct Wire {
    segments: Vec<Segment>,
    by_end: HashMap<SocketAddr, Vec<usize>>,
}

impl Wire {
    /// What these segments show.
    pub fn new(segments: Vec<Segment>) -> Self {
        let mut by_end = HashMap::<_, Vec<_>>::new();
        for (index, segment) in segments.iter().enumerate() {
            for end in [segment.from, segment.to] {
                by_end.entry(end).or_default().push(index);
            }
        }
        Self { segments, by_end }
    }

    /// The connection whose client's end is this.
    pub fn conversation(&self, client: SocketAddr) -> Conversation {
        let ours = self.by_end.get(&client).into_iter().flatten();
        Conversation {
            client,
            segments: ours.map(|index| self.segments[*index].clone()).collect(),
        }
    }
}

/// One connection.
#[derive(Clone, Debug)]
pub struct Conversation {
    client: SocketAddr,
    segments: Vec<Segment>,
}

/// How late a cut was; negative is before the deadline.
#[derive(Clone, Copy, Debug)]
pub struct Lateness {
    /// The last payload on the cable that took effect.
    pub last_payload: SignedDuration,
    /// The reset on the cable.
    pub reset: SignedDuration,
}

impl Conversation {
    /// Checks the promise: from `deadline` on no payload passes in either direction, and a reset
    /// leaves the daemon. An error says which segment breaks it.
    pub fn check_cut(&self, deadline: WallInstant) -> Result<Lateness> {
        self.check_silence(deadline)?;
        let reset = self.reset().context("no reset left the daemon")?;
        Ok(Lateness {
            last_payload: difference(self.last_payload_before(deadline)?, deadline),
            reset: difference(reset, deadline),
        })
    }

    /// Checks the half of the promise that needs nobody: no payload passes from `deadline` on.
    ///
    /// The client's own sending can't be prevented; what it sends must not be taken.
    pub fn check_silence(&self, deadline: WallInstant) -> Result<()> {
        ensure!(
            !self.segments.is_empty(),
            "the capture has nothing of {}",
            self.client
        );
        let late = self
            .from_daemon()
            .find(|segment| segment.payload > 0 && segment.at >= deadline);
        if let Some(segment) = late {
            let after = millis(difference(segment.at, deadline));
            anyhow::bail!("{after} after the deadline the daemon sent: {segment}");
        }
        let taken = self.bytes_taken_after(deadline);
        ensure!(
            taken == 0,
            "{taken} bytes sent after the deadline were taken by the daemon"
        );
        Ok(())
    }

    /// How many bytes the daemon acknowledged beyond what the client had sent before `deadline`.
    pub fn bytes_taken_after(&self, deadline: WallInstant) -> u32 {
        let Some(start) = self.from_client().map(|segment| segment.sequence).next() else {
            return 0;
        };
        let offset = |sequence: u32| sequence.wrapping_sub(start);
        let sent_in_time = self
            .from_client()
            .filter(|segment| segment.at < deadline)
            // A SYN or FIN takes a number too.
            .map(|segment| offset(segment.end()) + u32::from(segment.flags.syn | segment.flags.fin))
            .max();
        let acknowledged = self
            .from_daemon()
            .filter_map(|segment| segment.acknowledgment)
            .map(offset)
            .max();
        let sent_in_time = sent_in_time.unwrap_or(0);
        acknowledged.unwrap_or(0).saturating_sub(sent_in_time)
    }

    /// The last payload, in either direction, before `deadline`.
    pub fn last_payload_before(&self, deadline: WallInstant) -> Result<WallInstant> {
        let segments = self.segments.iter();
        let in_time = segments.filter(|segment| segment.payload > 0 && segment.at < deadline);
        in_time
            .map(|segment| segment.at)
            .max()
            .context("no payload passed at all")
    }

    /// When a reset left the daemon.
    pub fn reset(&self) -> Option<WallInstant> {
        let mut resets = self.from_daemon().filter(|segment| segment.flags.rst);
        resets.next().map(|segment| segment.at)
    }

    /// Segments from the daemon's side.
    pub fn from_daemon(&self) -> impl Iterator<Item = &Segment> {
        self.segments
            .iter()
            .filter(|segment| segment.to == self.client)
    }

    /// Segments from the client's side.
    pub fn from_client(&self) -> impl Iterator<Item = &Segment> {
        self.segments
            .iter()
            .filter(|segment| segment.from == self.client)
    }
}

/// `at - reference`.
pub fn difference(at: WallInstant, reference: WallInstant) -> SignedDuration {
    SignedDuration::from_nanos(at.as_unix_nanos() - reference.as_unix_nanos())
}

/// Milliseconds with three digits, for people.
pub fn millis(duration: SignedDuration) -> String {
    format!("{:.3} ms", duration.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: &str = "10.0.0.1:5000";
    const DAEMON: &str = "10.0.0.2:443";

    /// A segment `millis` after the deadline.
    fn segment(millis: i64, from_client: bool, sequence: u32, payload: usize, ack: u32) -> Segment {
        let (client, daemon) = (CLIENT.parse().unwrap(), DAEMON.parse().unwrap());
        let (from, to) = if from_client {
            (client, daemon)
        } else {
            (daemon, client)
        };
        Segment {
            at: at(millis),
            from,
            to,
            sequence,
            acknowledgment: Some(ack),
            payload,
            flags: Flags::default(),
        }
    }

    fn at(millis: i64) -> WallInstant {
        WallInstant::from_unix_nanos(1_000_000_000_000 + millis * 1_000_000)
    }

    fn reset(millis: i64, ack: u32) -> Segment {
        let mut reset = segment(millis, false, 900, 0, ack);
        reset.flags.rst = true;
        reset
    }

    fn check(segments: Vec<Segment>) -> Result<Lateness> {
        let wire = Wire::new(segments);
        wire.conversation(CLIENT.parse().unwrap()).check_cut(at(0))
    }

    /// The client's numbers wrap around.
    const START: u32 = u32::MAX - 5;

    fn before() -> Vec<Segment> {
        vec![
            segment(-20, true, START, 10, 0),
            segment(-10, false, 500, 400, 4),
        ]
    }

    #[test]
    fn a_cut_in_time_is_measured() {
        let lateness = check([before(), vec![reset(1, 4)]].concat()).unwrap();
        assert_eq!(lateness.last_payload, SignedDuration::from_millis(-10));
        assert_eq!(lateness.reset, SignedDuration::from_millis(1));
    }

    #[test]
    fn what_the_client_sends_late_may_be_dropped() {
        let late = segment(1, true, 4, 50, 900);
        check([before(), vec![late, reset(2, 4)]].concat()).unwrap();
    }

    #[test]
    fn what_the_client_sends_late_must_not_be_taken() {
        let late = segment(1, true, 4, 50, 900);
        let taken = check([before(), vec![late, reset(2, 54)]].concat());
        assert!(taken.unwrap_err().to_string().starts_with("50 bytes"));
    }

    #[test]
    fn payload_from_the_daemon_at_the_deadline_is_late() {
        let late = segment(0, false, 900, 1, 4);
        let late = check([before(), vec![late, reset(2, 4)]].concat());
        assert!(late.unwrap_err().to_string().contains("the daemon sent"));
    }

    #[test]
    fn a_cut_without_a_reset_is_none() {
        let silent = check(before());
        assert!(silent.unwrap_err().to_string().contains("no reset"));
    }
}
