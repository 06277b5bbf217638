//! `enforcer top` in a terminal that nobody here wrote.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use enforcer_tests::{
    Scene,
    client::{End, Pattern},
    daemon::binary,
    namespace::Namespace,
    process, wait,
};
use rustix::process::Signal;

/// A terminal in which `enforcer top` runs, and then says how it ended.
struct Terminal<'scene> {
    scene: &'scene Scene,
    socket: PathBuf,
}

impl<'scene> Terminal<'scene> {
    fn start(scene: &'scene Scene) -> Self {
        let terminal = Self {
            scene,
            socket: scene.bed.path("tmux.sock"),
        };
        let top = format!(
            "{} top --config {}; echo \"ended with $?\"; stty -a; sleep 600",
            binary().expect("the terminal does as it is told").display(),
            scene.bed.path("enforcer.toml").display()
        );
        let size = ["-x", "130", "-y", "20"];
        let start = [
            &["-f", "/dev/null", "new-session", "-d"],
            &size[..],
            &[&top],
        ]
        .concat();
        terminal
            .tmux(&start)
            .expect("the terminal does as it is told");
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> Result<String> {
        let mut tmux = self.scene.bed.command(&Namespace::Host, "tmux")?;
        tmux.arg("-S").arg(&self.socket).args(arguments);
        let output = tmux
            .env("TERM", "xterm-256color")
            .output()
            .context("run tmux")?;
        ensure!(output.status.success(), "tmux {arguments:?}: {output:?}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn press(&self, keys: &str) {
        self.tmux(&["send-keys", keys])
            .expect("the terminal does as it is told");
    }

    /// The screen, once it shows this.
    fn shows(&self, text: &str) -> String {
        let screen = || self.tmux(&["capture-pane", "-p"]).unwrap_or_default();
        let found = wait::until(&format!("the terminal showed {text:?}"), || {
            Some(screen()).filter(|screen| screen.contains(text))
        });
        found.unwrap_or_else(|error| panic!("{error}\n{}", screen()))
    }

    /// The process that runs in it.
    fn top(&self) -> u32 {
        let shell = self
            .tmux(&["list-panes", "-F", "#{pane_pid}"])
            .expect("the terminal does as it is told");
        let child =
            process::run("pgrep", &["-P", shell.trim()]).expect("the terminal does as it is told");
        child
            .trim()
            .parse()
            .expect("the terminal does as it is told")
    }
}

#[test]
fn a_live_session_is_shown_and_revoked_after_a_yes() {
    let scene = Scene::new("top").unwrap();
    let _daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let talk = |subject| {
        let token = scene.token(subject).unwrap();
        let socket = client.websocket("/echo", &token).unwrap();
        socket.talk(Pattern::default())
    };
    let (alice, bob) = (talk("alice"), talk("bob"));
    let terminal = Terminal::start(&scene);
    let screen = terminal.shows("2 sessions, by time left");
    assert!(
        screen.contains("alice") && screen.contains("bob"),
        "{screen}"
    );
    assert!(screen.contains("█"), "{screen}");
    terminal.press("/");
    terminal.press("bob");
    terminal.press("Enter");
    terminal.shows("1 of 2 sessions");
    terminal.press("x");
    terminal.shows("of bob with 2 connections? y/n");
    terminal.press("y");
    terminal.shows("is revoked");
    assert_eq!(bob.end().unwrap().ending.how, End::Reset);
    assert!(alice.is_running());
    terminal.press("q");
    terminal.shows("ended with 0");
    terminal.shows(" icanon");
}

#[test]
fn a_dead_daemons_sessions_are_shown_and_a_signal_leaves_the_terminal_in_order() {
    let scene = Scene::new("top-dead").unwrap();
    let mut daemon = scene.start().unwrap();
    let client = scene.client().unwrap();
    let socket = client
        .websocket("/echo", &scene.token("alice").unwrap())
        .unwrap();
    socket.echo("here").unwrap();
    let terminal = Terminal::start(&scene);
    terminal.shows("alice");
    daemon.kill_warden().unwrap();
    let screen = terminal.shows("read-only");
    assert!(
        !screen.contains("alice") && screen.contains("59m"),
        "{screen}"
    );
    terminal.press("x");
    terminal.shows("nothing can be revoked");
    process::send(terminal.top(), Signal::TERM).unwrap();
    terminal.shows("ended with 0");
    terminal.shows(" icanon");
}
