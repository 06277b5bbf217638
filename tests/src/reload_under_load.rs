//! A reload that changes the limits of very many live sessions, measured from outside: how long it
//! takes, and what others notice meanwhile.

use std::{
    sync::{
        Arc, Mutex,
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

use crate::{Scene, config::MAIN, daemon::Daemon, issuer::ISSUER, wait};

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
    let usual = (echo.times(), opens.times());

    let mut config = scene.config.clone();
    config.policy().max_session = "30m".to_owned();
    config.policy().idle_timeout = Some("10m".to_owned());
    let shorter = config.text()?;
    config.policy().max_session = "2h".to_owned();
    config.policy().idle_timeout = None;
    let longer = config.text()?;
    wait::until_wall(deadline.saturating_sub(LEAD));
    let shortening = reload(&daemon, &shorter, "shortened")?;
    let while_shortening = (echo.times(), opens.times());
    ending.end()?;
    let cut = daemon.wait_for_audit("session_ended", |record| record["subject"] == "bob")?;
    drop((echo.times(), opens.times()));
    let lengthening = reload(&daemon, &longer, "lengthened")?;
    let while_lengthening = (echo.stop()?, opens.stop()?);

    println!("\na reload with very many live sessions");
    for (what, (sessions, took)) in [("shortens", shortening), ("lengthens", lengthening)] {
        println!(
            "  {:<38}{} from the command to its answer",
            format!("{what} {sessions}"),
            millis(took)
        );
    }
    println!(
        "  a cut in the middle of the first      {} us from the deadline to the reset",
        cut["reset_lateness_us"]
    );
    println!(
        "  meanwhile, p99 and longest: of a WebSocket's round trip, of a request that opens a session"
    );
    for (when, (echo, opens)) in [
        ("before", usual),
        ("while it shortens", while_shortening),
        ("while it lengthens", while_lengthening),
    ] {
        println!("    {when:<36}{}{:>8}{}", spread(echo), "", spread(opens));
    }
    Ok(())
}

/// How many sessions changed, and how long it took.
fn reload(daemon: &Daemon<'_>, text: &str, effect: &str) -> Result<(u64, Duration)> {
    let begun = now();
    let outcome = daemon.reload(text, &["--json"])?;
    let took = begun.elapsed();
    ensure!(outcome.code == 0, "{outcome:?}");
    let changed = outcome.json()?["impact"][effect].as_u64();
    let changed = changed.filter(|changed| *changed >= SESSIONS);
    Ok((changed.context("not all are affected")?, took))
}

fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1_000.0)
}

fn spread(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |place: usize| times.get(place).copied().map_or("-".to_owned(), millis);
    let last = times.len().saturating_sub(1);
    format!("{:>9} {:>9}", at(last * 99 / 100), at(last))
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
            certificates: Vec::new(),
            policies: vec![MAIN.to_owned()],
            first_address: None,
            hours_end_at: None,
            warned_for: None,
            last_activity: now.wall,
        });
    }
    Ok(store.flush().wait()?)
}

/// Something that is done again and again, and how long it took each time.
struct Repeated {
    stop: Arc<AtomicBool>,
    times: Arc<Mutex<Vec<Duration>>>,
    thread: thread::JoinHandle<Result<()>>,
}

impl Repeated {
    fn start(mut act: impl FnMut(usize) -> Result<()> + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let times = Arc::<Mutex<Vec<_>>>::default();
        let (stopped, noted) = (Arc::clone(&stop), Arc::clone(&times));
        let thread = thread::spawn(move || {
            for number in 0.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let begun = now();
                act(number)?;
                let took = begun.elapsed();
                noted.lock().map_err(|_| anyhow!("poisoned"))?.push(took);
                thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        });
        Self {
            stop,
            times,
            thread,
        }
    }

    /// Those since it was asked last.
    fn times(&self) -> Vec<Duration> {
        let times = self.times.lock();
        times.map_or_else(|_| Vec::new(), |mut times| std::mem::take(&mut *times))
    }

    fn stop(self) -> Result<Vec<Duration>> {
        self.stop.store(true, Ordering::Relaxed);
        let times = self.times();
        let ended = self.thread.join();
        ended.map_err(|_| anyhow!("a thread panicked"))??;
        Ok(times)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "what is measured is how long it takes"
)]
fn now() -> Instant {
    Instant::now()
}
