//! The demonstration, as whoever tries enforcer runs it: it ends by itself or at Ctrl-C, shows what it
//! promises, and leaves nothing behind.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use enforcer_tests::{Bed, bed, process, wait};
use rustix::process::Signal;

/// A session of the demonstration's, and what a busy machine adds.
const LONGEST_SILENCE: Duration = Duration::from_secs(40);

/// A running demonstration, in the network of a bed so that its ports are free.
struct Show {
    child: Child,
    lines: mpsc::Receiver<String>,
    seen: String,
}

impl Show {
    fn start(bed: &Bed, flags: &[&str]) -> Self {
        let mut command = bed
            .command(bed.daemon(), env!("CARGO_BIN_EXE_demo"))
            .unwrap();
        command.args(flags).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                // Nobody listens any more once the test is over.
                let _ = sender.send(line);
            }
        });
        Self {
            child,
            lines,
            seen: String::new(),
        }
    }

    fn see(&mut self, text: &str) {
        while !self.seen.contains(text) {
            let line = self.lines.recv_timeout(LONGEST_SILENCE);
            let line = line.unwrap_or_else(|error| panic!("no {text:?} ({error}): {}", self.seen));
            self.seen += &(line + "\n");
        }
    }

    /// Sees the rest and waits for the end.
    fn see_all(&mut self) -> ExitStatus {
        loop {
            match self.lines.recv_timeout(LONGEST_SILENCE) {
                Ok(line) => self.seen += &(line + "\n"),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("it goes on: {}", self.seen),
            }
        }
        wait::until("the demonstration ended", || self.child.try_wait().unwrap()).unwrap()
    }

    /// What it has made, and the processes that it has started.
    fn possessions(&self) -> (Vec<PathBuf>, Vec<u32>) {
        let traces = bed::traces_of(self.child.id()).unwrap();
        let mut pids = Vec::new();
        for folder in &traces {
            collect_processes(folder, &mut pids);
        }
        (traces, pids)
    }

    #[track_caller]
    fn check_clean(&self, pids: &[u32]) {
        let (traces, _) = self.possessions();
        assert!(traces.is_empty(), "{traces:?}");
        for pid in pids {
            assert!(!process::is_alive(*pid), "process {pid} is left");
        }
    }
}

impl Drop for Show {
    fn drop(&mut self) {
        // Fails only for a process that is gone, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The processes of a cgroup and of those below it; none if the folder is no cgroup.
fn collect_processes(folder: &std::path::Path, pids: &mut Vec<u32>) {
    let Ok(members) = fs::read_to_string(folder.join("cgroup.procs")) else {
        return;
    };
    pids.extend(members.lines().map(|pid| pid.parse::<u32>().unwrap()));
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            collect_processes(&entry.path(), pids);
        }
    }
}

/// `1.234 ms before` is -1.234.
fn milliseconds(number: &str, side: &str) -> f64 {
    let number = number.parse::<f64>().unwrap();
    match side {
        "before" => -number,
        "after" => number,
        _ => panic!("{side} is no side of a deadline"),
    }
}

#[test]
fn two_acts_are_shown_with_what_was_measured_and_nothing_is_left() {
    let bed = Bed::new("demo").unwrap();
    let mut show = Show::start(&bed, &[]);
    show.see("2. The same once more");
    show.see("SIGSTOP to the gateway");
    let (traces, pids) = show.possessions();
    // Files, pins, a cgroup, two namespaces; a warden, a gateway and tcpdump.
    assert_eq!(traces.len(), 5, "{traces:?}");
    assert!(pids.len() >= 3, "{pids:?}");
    let status = show.see_all();
    assert_eq!(status.code(), Some(0), "{}", show.seen);

    let (first, second) = show.seen.split_once("2. The same once more").unwrap();
    assert!(first.contains("1. Two sessions of 10 s"), "{first}");
    assert!(first.contains("SESSIONS"), "no maps: {first}");
    for (act, subjects) in [(first, ["alice", "bob"]), (second, ["carol", "dave"])] {
        for (what, subject) in ["WebSocket ", "download "].into_iter().zip(subjects) {
            let line = act.lines().find(|line| line.trim().starts_with(what));
            let line = line.unwrap_or_else(|| panic!("no cut of a {what}: {act}"));
            let words: Vec<_> = line.split_whitespace().skip(1).collect();
            let [
                last,
                "ms",
                last_side,
                reset,
                "ms",
                reset_side,
                _,
                "ms",
                "after",
                _,
            ] = words[..]
            else {
                panic!("not what is measured of a cut: {line}");
            };
            assert!(milliseconds(last, last_side) < 0.0, "{line}");
            let reset = milliseconds(reset, reset_side);
            assert!((0.0..500.0).contains(&reset), "{line}");
            let record = format!("\"subject\":\"{subject}\"");
            assert!(act.contains(&record), "no record of {subject}: {act}");
        }
    }
    show.check_clean(&pids);
}

#[test]
fn what_stays_can_be_tried_as_it_says_until_ctrl_c() {
    let bed = Bed::new("demo-stay").unwrap();
    let mut show = Show::start(&bed, &["--stay"]);
    show.see("Ctrl-C ends all of it.");
    let (traces, pids) = show.possessions();
    // Files, pins and a cgroup.
    assert_eq!(traces.len(), 3, "{traces:?}");
    assert!(pids.len() >= 2, "{pids:?}");

    let said = |mark: &str| {
        let line = show.seen.lines().find(|line| line.contains(mark));
        line.unwrap_or_else(|| panic!("no {mark:?}: {}", show.seen))
            .trim()
    };
    let script = format!(
        "{}\n{}\n{}\n{}\n",
        said("TOKEN=ey"),
        said("/headers"),
        said("TOKEN=$(curl"),
        said("sessions --config"),
    );
    let mut shell = bed.command(bed.daemon(), "sh").unwrap();
    let tried = shell.args(["-euc", &script]).output().unwrap();
    let answers = String::from_utf8_lossy(&tried.stdout);
    assert!(tried.status.success(), "{script}{tried:?}");
    assert!(
        answers.contains(r#"["x-enforcer-subject","alice"]"#),
        "{answers}"
    );
    assert!(answers.contains("EXPIRES IN"), "{answers}");

    process::send(show.child.id(), Signal::INT).unwrap();
    let status = show.see_all();
    // As shells say of a process that Ctrl-C ended.
    assert_eq!(status.code(), Some(130), "{}", show.seen);
    assert!(
        show.seen.contains("everything is cleaned up"),
        "{}",
        show.seen
    );
    show.check_clean(&pids);
}
