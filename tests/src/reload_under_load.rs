//! A reload that changes the limits of very many live sessions, measured from outside: how long it
//! takes, and what others notice meanwhile.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use enforcer::{
    clock::Now,
    session::{KeyUse, Principal, SessionId, SessionKey},
    warden::store::{DATABASE_NAME, Store, StoredSession},
};

use crate::{Scene, config::MAIN, issuer::ISSUER, wait};

/// Live sessions.
const SESSIONS: u64 = 100_000;
/// Time to see what is usual.
const BEFORE: Duration = Duration::from_secs(2);
/// How long before a deadline the reload begins, which therefore is met in the middle of it.
const LEAD: Duration = Duration::from_millis(250);

/// Measures and prints.
///
/// # Errors
/// If anything is not as it should be.
pub fn run() -> Result<()> {
    let mut scene = Scene::new("bench-reload")?;
    scene.config.daemon.max_sessions = Some(131_072);
    fill(&scene).context("fill the store")?;
    let daemon = scene.start()?;
    let client = scene.client()?;

    let deadline = wait::whole_second_after(BEFORE + Duration::from_secs(2));
    let ending = client
        .websocket("/ticks", &scene.token_until("bob", deadline)?)?
        .talk(crate::client::Pattern::default());
    let socket = client.websocket("/echo", &scene.token("alice")?)?;
    let echo = Repeated::start(move |_| socket.echo("again"));
    let tokens = (0..20_000).map(|number| scene.token(&format!("new {number}")));
    let tokens = tokens.collect::<Result<Vec<_>>>()?;
    let opens = Repeated::start(move |number| {
        let answer = client.get("/headers", &tokens[number % tokens.len()])?;
        ensure!(answer.status == 200, "{}: {:?}", answer.status, answer.body);
        Ok(())
    });
    thread::sleep(BEFORE);
    let usual = (echo.longest(), opens.longest());

    let mut config = scene.config.clone();
    config.policy().max_session = "30m".to_owned();
    config.policy().idle_timeout = Some("10m".to_owned());
    let text = config.text()?;
    wait::until_wall(deadline.saturating_sub(LEAD));
    let begun = now();
    let outcome = daemon.reload(&text, &["--json"])?;
    let took = begun.elapsed();
    ensure!(outcome.code == 0, "{outcome:?}");
    let impact = outcome.json()?["impact"].clone();
    let meanwhile = (echo.stop()?, opens.stop()?);
    ending.end()?;
    let cut = daemon.wait_for_audit("session_ended", |record| record["subject"] == "bob")?;

    let millis = |duration: Duration| format!("{:.1} ms", duration.as_secs_f64() * 1_000.0);
    println!(
        "a reload that shortens {} live sessions",
        impact["shortened"]
    );
    println!("  from the command to its answer        {}", millis(took));
    println!(
        "  longest round trip of a WebSocket     {} ({} before)",
        millis(meanwhile.0),
        millis(usual.0)
    );
    println!(
        "  longest request that opens a session  {} ({} before)",
        millis(meanwhile.1),
        millis(usual.1)
    );
    println!(
        "  a cut in the middle of it             reset {} us after the deadline",
        cut["reset_lateness_us"]
    );
    Ok(())
}

/// As if these sessions had been live when the machine went down: the daemon takes them up again.
fn fill(scene: &Scene) -> Result<()> {
    let now = Now::read();
    let state = &scene.config.daemon.state_dir;
    std::fs::create_dir_all(state)?;
    let (store, _) = Store::open(&state.join(DATABASE_NAME), now.wall)?;
    let hour = Duration::from_secs(3600);
    for number in 1..=SESSIONS {
        store.save(StoredSession {
            id: SessionId::from_u64(number).context("an id")?,
            keys: vec![KeyUse {
                key: SessionKey::from_token(&number.to_le_bytes()),
                until: now.wall.saturating_add(hour * 24),
            }],
            principal: Principal {
                issuer: ISSUER.to_owned(),
                subject: format!("user {number}"),
            },
            authorized_party: None,
            names_session: false,
            started_at: now.wall,
            opened_at: now.wall,
            deadline: now.wall.saturating_add(hour),
            token_expires_at: now.wall.saturating_add(hour * 24),
            signing_key: None,
            certificate: None,
            policies: vec![MAIN.to_owned()],
            first_address: None,
            hours_end_at: None,
            warned_for: None,
            last_activity: now.wall,
        });
    }
    Ok(store.flush().wait()?)
}

/// Something that is done again and again, and how long it took at most.
struct Repeated {
    stop: Arc<AtomicBool>,
    longest: Arc<std::sync::Mutex<Duration>>,
    thread: thread::JoinHandle<Result<()>>,
}

impl Repeated {
    fn start(mut act: impl FnMut(usize) -> Result<()> + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let longest = Arc::new(std::sync::Mutex::new(Duration::ZERO));
        let (stopped, noted) = (Arc::clone(&stop), Arc::clone(&longest));
        let thread = thread::spawn(move || {
            for number in 0.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let begun = now();
                act(number)?;
                let mut longest = noted.lock().map_err(|_| anyhow!("poisoned"))?;
                *longest = begun.elapsed().max(*longest);
                drop(longest);
                thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        });
        Self {
            stop,
            longest,
            thread,
        }
    }

    /// The longest so far; it is counted anew from here on.
    fn longest(&self) -> Duration {
        self.longest
            .lock()
            .map_or(Duration::ZERO, |mut longest| std::mem::take(&mut *longest))
    }

    fn stop(self) -> Result<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        let longest = self.longest();
        let ended = self.thread.join();
        ended.map_err(|_| anyhow!("a thread panicked"))??;
        Ok(longest)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "what is measured is how long it takes"
)]
fn now() -> Instant {
    Instant::now()
}
