//! Whether the upstream works on something for the client. Pure.
//!
//! ```text
//!         Query, FunctionCall, Sync; Flush after other messages
//!   quiet ------------------------------------------------------> busy
//!     ^                                                          |   |
//!     +--- ReadyForQuery for each; an answer for each flushed ---+   | CopyInResponse
//!                                                              busy  v
//!                                                                ^-- waiting for data
//!                                                  CopyDone, CopyFail, an error
//! ```
//!
//! A query that runs is the client's activity; a transaction that is open while nothing runs is
//! not, and neither is a COPY that waits for the client's data (the data is). What the upstream
//! sends by itself changes nothing.
//!
//! Counters are all that is kept, however long the pipeline. Each message of the extended protocol
//! has one answer that ends it, or an error takes the place of all up to the next Sync.

/// The messages that are on their way, and what they wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Exchange {
    /// Queries and function calls whose ReadyForQuery is to come.
    simple: u32,
    /// Syncs whose ReadyForQuery is to come.
    syncs: u32,
    /// Messages of the extended protocol since the last Sync that are to be answered.
    steps: u32,
    /// Those of them that the client has asked the answers of.
    flushed: u32,
    /// After an error everything up to the next Sync is passed over.
    failed: bool,
    /// The upstream waits for the client's data.
    copying_in: bool,
}

impl Exchange {
    /// The upstream has something to do that needs no more of the client.
    pub(super) fn is_busy(&self) -> bool {
        !self.copying_in && (self.is_ready_to_come() || self.flushed > 0)
    }

    fn is_ready_to_come(&self) -> bool {
        self.simple > 0 || self.syncs > 0
    }

    /// The client has sent a message of this type.
    pub(super) fn sent(&mut self, kind: u8) {
        match kind {
            // Query, FunctionCall
            b'Q' | b'F' => {
                self.simple = self.simple.saturating_add(1);
                self.end_batch();
            }
            // Within COPY these two are passed over.
            b'S' | b'H' if self.copying_in => {}
            b'S' => {
                self.syncs = self.syncs.saturating_add(1);
                self.end_batch();
            }
            b'H' => self.flushed = self.steps,
            // Parse, Bind, Describe, Execute, Close
            b'P' | b'B' | b'D' | b'E' | b'C' if !self.failed => {
                self.steps = self.steps.saturating_add(1);
            }
            // CopyDone, CopyFail
            b'c' | b'f' if self.copying_in => {
                self.copying_in = false;
                if self.simple == 0 {
                    // The Syncs that were sent before are passed over, and another has to come.
                    self.syncs = 0;
                    (self.steps, self.flushed) = (1, 1);
                }
            }
            _ => {}
        }
    }

    fn end_batch(&mut self) {
        (self.steps, self.flushed, self.failed) = (0, 0, false);
    }

    /// The upstream has sent a message of this type.
    pub(super) fn received(&mut self, kind: u8) {
        match kind {
            // ReadyForQuery
            b'Z' => {
                self.copying_in = false;
                if self.syncs > 0 {
                    self.syncs -= 1;
                } else {
                    self.simple = self.simple.saturating_sub(1);
                }
            }
            // CopyInResponse
            b'G' => self.copying_in = true,
            // ErrorResponse
            b'E' => {
                self.copying_in = false;
                if !self.is_ready_to_come() {
                    self.failed = self.steps > 0;
                    (self.steps, self.flushed) = (0, 0);
                }
            }
            // ParseComplete, BindComplete, CloseComplete; RowDescription, NoData; CommandComplete,
            // EmptyQueryResponse, PortalSuspended
            b'1' | b'2' | b'3' | b'T' | b'n' | b'C' | b'I' | b's' if !self.is_ready_to_come() => {
                self.steps = self.steps.saturating_sub(1);
                self.flushed = self.flushed.saturating_sub(1);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Plays a conversation: `>` before what the client sends, `<` before what it receives. After
    /// each `!` the upstream must be busy, after each `.` not.
    fn play(conversation: &str) {
        let mut exchange = Exchange::default();
        let mut from_client = true;
        for (at, kind) in conversation.bytes().enumerate() {
            match kind {
                b'>' => from_client = true,
                b'<' => from_client = false,
                b'!' => assert!(exchange.is_busy(), "{conversation} at {at}: {exchange:?}"),
                b'.' => assert!(!exchange.is_busy(), "{conversation} at {at}: {exchange:?}"),
                b' ' => {}
                kind if from_client => exchange.sent(kind),
                kind => exchange.received(kind),
            }
        }
    }

    #[test]
    fn a_query_runs_until_it_is_ready() {
        play(". >Q! <T!D!C!Z.");
        play(">Q! <E!Z.");
        play(">Q! <I!Z.");
        play(">F! <V!Z.");
        play(">QQ <CZ! CZ.");
    }

    #[test]
    fn what_the_upstream_says_by_itself_is_no_work() {
        play("<S.K.Z. <N.A.S. >Q! <NAS! CZ.");
    }

    #[test]
    fn an_extended_query_runs_until_its_sync_is_answered() {
        play(">PBDES! <12TDC! Z.");
        play(">PBDES! <1E! Z.");
        play(">PBESBESBES! <12CZ! 2CZ! 2CZ.");
        play(">PBESBES! <E! Z! 2CZ.");
    }

    #[test]
    fn a_flush_waits_for_the_answers_to_what_was_sent_before() {
        play(">PDS! <1tTZ. >BEH! <2!D!s. >EH! <C. >S! <Z.");
        // Nobody waits for the answers yet.
        play(">PBE. >H! <12C.");
        play(">PH! <E. >BEH. >S! <Z. >Q! <CZ.");
    }

    #[test]
    fn a_copy_waits_for_the_clients_data() {
        play(">Q! <G. >ddd. SH. >c! <C!Z.");
        play(">Q! <G. >d. >f! <E!Z.");
        // The upstream finds fault with the data; what is still on its way is passed over.
        play(">Q! <G. >d <E!Z. >dc. >Q! <CZ.");
    }

    #[test]
    fn the_sync_before_a_copy_is_passed_over() {
        play(">PBES! <12G. >dc! S! <C! Z.");
        play(">PBEH! <12G. >dd. >c! S! <C! Z.");
    }

    #[test]
    fn copies_out_and_replication_run_until_they_are_ready() {
        play(">Q! <Hddd! c! C! Z.");
        play(">Q! <W! d! >d! c! <d! c! C! Z.");
    }

    /// What a client does, with the answers of a server that does as the documentation says.
    #[derive(Clone, Debug)]
    enum Step {
        Query,
        FunctionCall,
        Batch { steps: usize, fails_at: usize },
        CopyIn { extended: bool, chunks: usize },
        CopyOut,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            Just(Step::Query),
            Just(Step::FunctionCall),
            (0..6_usize, 0..9_usize).prop_map(|(steps, fails_at)| Step::Batch { steps, fails_at }),
            (any::<bool>(), 0..3_usize)
                .prop_map(|(extended, chunks)| Step::CopyIn { extended, chunks }),
            Just(Step::CopyOut),
        ]
    }

    /// What the client sends at once, and what comes back, in rounds.
    fn rounds(step: &Step) -> Vec<(Vec<u8>, Vec<u8>)> {
        match step {
            Step::Query => vec![(b"Q".to_vec(), b"TDDCNZ".to_vec())],
            Step::FunctionCall => vec![(b"F".to_vec(), b"VZ".to_vec())],
            Step::Batch { steps, fails_at } => {
                let mut answers = vec![b'C'; *steps.min(fails_at)];
                answers.extend((fails_at < steps).then_some(b'E'));
                answers.push(b'Z');
                vec![([vec![b'E'; *steps], vec![b'S']].concat(), answers)]
            }
            Step::CopyIn { extended, chunks } => {
                let (start, end) = match extended {
                    true => (&b"PBES"[..], &b"cS"[..]),
                    false => (&b"Q"[..], &b"c"[..]),
                };
                let data = [&vec![b'd'; *chunks][..], end].concat();
                let started = if *extended { &b"12G"[..] } else { b"G" };
                vec![(start.to_vec(), started.to_vec()), (data, b"CZ".to_vec())]
            }
            Step::CopyOut => vec![(b"Q".to_vec(), b"HddcCZ".to_vec())],
        }
    }

    proptest! {
        /// One thing after the other: busy from its end of sending to its last answer.
        #[test]
        fn in_turn_it_is_busy_exactly_while_answers_are_to_come(
            steps in prop::collection::vec(step(), 0..8),
        ) {
            let mut exchange = Exchange::default();
            for (sent, received) in steps.iter().flat_map(rounds) {
                prop_assert!(!exchange.is_busy(), "{:?}", exchange);
                sent.iter().for_each(|kind| exchange.sent(*kind));
                for kind in received {
                    prop_assert!(exchange.is_busy(), "{:?} before {}", exchange, char::from(kind));
                    exchange.received(kind);
                }
            }
            prop_assert!(!exchange.is_busy());
            prop_assert_eq!(exchange.simple + exchange.syncs, 0);
        }

        /// Batches sent ahead of their answers, by any number.
        #[test]
        fn a_pipeline_is_busy_until_its_last_answer(
            batches in prop::collection::vec((0..6_usize, 0..9_usize), 1..8),
            ahead in 1..8_usize,
        ) {
            let mut exchange = Exchange::default();
            let rounds: Vec<_> = batches
                .iter()
                .map(|(steps, fails_at)| Step::Batch { steps: *steps, fails_at: *fails_at })
                .flat_map(|batch| rounds(&batch))
                .collect();
            for round in 0..rounds.len() + ahead {
                if let Some((sent, _)) = rounds.get(round) {
                    sent.iter().for_each(|kind| exchange.sent(*kind));
                }
                if let Some((_, received)) = round.checked_sub(ahead).and_then(|at| rounds.get(at)) {
                    prop_assert!(exchange.is_busy());
                    received.iter().for_each(|kind| exchange.received(*kind));
                }
            }
            prop_assert!(!exchange.is_busy());
        }

        #[test]
        fn arbitrary_conversations_never_panic(messages: Vec<(bool, u8)>) {
            let mut exchange = Exchange::default();
            for (from_client, kind) in messages {
                match from_client {
                    true => exchange.sent(kind),
                    false => exchange.received(kind),
                }
            }
        }
    }
}
