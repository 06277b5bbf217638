//! `enforcer top`: the live sessions as they run out, and a key to end one.
//!
//! ```text
//!   keys ----> model (pure) ----> view: drawn with what the model knows
//!                 |   ^
//!       effects   |   |  readings, once a second
//!                 v   |
//!               source: the admin socket; without a daemon the pinned maps, read-only
//! ```

mod model;
mod source;
mod view;

use std::{
    io::{self, IsTerminal},
    path::Path,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
};
use tokio::signal::unix::{SignalKind, signal};

use self::{
    model::{Effect, Key, Model},
    source::Source,
};
use crate::{
    clock::{BootInstant, boot_now},
    config::Daemon,
};

const REFRESH_INTERVAL: Duration = Duration::from_secs(1);
/// How soon a signal is noticed.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Shows the sessions of the daemon at `socket`, or those in its pinned maps, until a key or a
/// signal ends it.
///
/// # Errors
/// If there is no terminal, or neither daemon nor maps.
pub fn run(socket: &Path, daemon: Daemon) -> Result<ExitCode> {
    ensure!(
        io::stdin().is_terminal() && io::stdout().is_terminal(),
        "`enforcer top` needs a terminal: `enforcer sessions` prints to anything"
    );
    let mut source = Source::new(socket, daemon)?;
    let mut model = Model::default();
    // What is wrong from the start is said on the terminal as it is.
    model.read(source.read()?);
    let ended = until_signal()?;
    // Also puts the terminal in order when something panics.
    let mut terminal = ratatui::try_init().context("the terminal cannot be used")?;
    let shown = show(&mut terminal, &mut model, &mut source, &ended);
    ratatui::try_restore().context("the terminal cannot be put in order")?;
    shown.map(|()| ExitCode::SUCCESS)
}

fn show(
    terminal: &mut DefaultTerminal,
    model: &mut Model,
    source: &mut Source,
    ended: &AtomicBool,
) -> Result<()> {
    let mut next_at = boot_now().saturating_add(REFRESH_INTERVAL);
    while !ended.load(Ordering::Relaxed) {
        terminal.draw(|frame| view::draw(frame, model))?;
        let effect = next_key(next_at)?.and_then(|key| model.press(key));
        match effect {
            Some(Effect::Quit) => return Ok(()),
            Some(Effect::Revoke(id)) => {
                model.say(source.revoke(id));
                refresh(model, source);
            }
            None => {}
        }
        if boot_now() >= next_at {
            refresh(model, source);
            next_at = boot_now().saturating_add(REFRESH_INTERVAL);
        }
    }
    Ok(())
}

fn refresh(model: &mut Model, source: &mut Source) {
    match source.read() {
        Ok(reading) => model.read(reading),
        Err(error) => model.say(format!("{error:#}")),
    }
}

/// A key, if one is pressed soon.
fn next_key(until: BootInstant) -> Result<Option<Key>> {
    let patience = until.saturating_duration_since(boot_now());
    if !event::poll(patience.min(POLL_INTERVAL))? {
        return Ok(None);
    }
    match event::read()? {
        Event::Key(key) if key.kind != KeyEventKind::Release => Ok(meaning(key)),
        _ => Ok(None),
    }
}

fn meaning(key: KeyEvent) -> Option<Key> {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        // A raw terminal makes no signal of it.
        return (key.code == KeyCode::Char('c')).then_some(Key::Interrupt);
    }
    Some(match key.code {
        KeyCode::Up => Key::Up(1),
        KeyCode::Down => Key::Down(1),
        KeyCode::PageUp => Key::Up(10),
        KeyCode::PageDown => Key::Down(10),
        KeyCode::Home => Key::Up(usize::MAX),
        KeyCode::End => Key::Down(usize::MAX),
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Escape,
        KeyCode::Backspace => Key::Backspace,
        KeyCode::Delete => Key::Char('x'),
        KeyCode::Char(character) => Key::Char(character),
        _ => return None,
    })
}

/// Becomes true when the process is told to end.
fn until_signal() -> Result<Arc<AtomicBool>> {
    let ended = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (mut terminate, mut hangup) = {
        let _context = runtime.enter();
        (
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        )
    };
    let flag = Arc::clone(&ended);
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
            });
            flag.store(true, Ordering::Relaxed);
        })?;
    Ok(ended)
}
