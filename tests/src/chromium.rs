//! A browser that nobody here wrote: Debian's Chromium, without a screen.
//!
//! A test opens pages, and has their scripts do things, by the DevTools protocol over a pipe. What
//! a page then may do, and what it sees, is the browser's own business: cookies, origins, TLS and
//! the choice of HTTP versions.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, Stdio},
    sync::{Mutex, PoisonError, mpsc},
    thread,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{
    bed::{Bed, DAEMON_IPV4},
    certificates::SERVER_NAME,
    namespace::Namespace,
    process, wait,
};

/// A page whose script has `Talk`, `Events`, `download` and `ask` for tests to use.
pub const PAGE: &str = include_str!("chromium/page.html");

/// The browser reads what it is told from descriptor 3 and answers on 4.
const PIPES: &str = r#"exec "$@" 3<&0 4>&1 </dev/null >/dev/null"#;
/// Nothing that it would do by itself: no other traffic than the pages'.
const SETTINGS: [&str; 11] = [
    "--headless",
    "--remote-debugging-pipe",
    // It runs as root, in a namespace of the bed's.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
];

/// Cookies go wherever their `SameSite` lets them: what the gateway refuses, the browser must have sent.
const PREFERENCES: &str =
    r#"{"profile":{"block_third_party_cookies":false,"cookie_controls_mode":0}}"#;

/// A running browser in the client's namespace, with a profile of its own. It trusts the scene's
/// authority, and knows the daemon's address as [`SERVER_NAME`].
#[derive(Debug)]
pub struct Browser {
    child: Child,
    pipe: Mutex<Pipe>,
}

#[derive(Debug)]
struct Pipe {
    commands: ChildStdin,
    answers: mpsc::Receiver<Value>,
    last: u64,
}

/// When a cookie is sent.
#[derive(Clone, Copy, Debug)]
pub enum SameSite {
    /// With what pages of the same site ask for, and when a user follows a link.
    Lax,
    /// With everything.
    None,
}

impl Browser {
    /// Starts it.
    pub fn start(bed: &Bed) -> Result<Self> {
        let home = bed.path("browser");
        trust(&home, &bed.path("ca.pem"))?;
        let profile = home.join("profile");
        let preferences = profile.join("Default");
        fs::create_dir_all(&preferences).with_context(|| format!("make {preferences:?}"))?;
        fs::write(preferences.join("Preferences"), PREFERENCES).context("write preferences")?;
        wait_for_addresses(bed.client())?;
        let mut command = bed.command(bed.client(), "sh")?;
        command
            .args(["-c", PIPES, "sh", "chromium"])
            .args(SETTINGS)
            .arg(format!(
                "--host-resolver-rules=MAP {SERVER_NAME} {DAEMON_IPV4}"
            ))
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg("about:blank")
            .env("HOME", &home)
            .env("TMPDIR", &home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(home.join("log")).context("make a log")?);
        let mut child = command.spawn().context("start Chromium")?;
        let commands = child.stdin.take().context("the browser's input")?;
        let output = child.stdout.take().context("the browser's output")?;
        let (sender, answers) = mpsc::channel();
        thread::spawn(move || {
            for message in BufReader::new(output).split(0).map_while(Result::ok) {
                let message = serde_json::from_slice::<Value>(&message);
                // Nobody listens any more once the test is over.
                let _ = message.map(|message| sender.send(message));
            }
        });
        let browser = Self {
            child,
            pipe: Mutex::new(Pipe {
                commands,
                answers,
                last: 0,
            }),
        };
        let version = browser.call(None, "Browser.getVersion", json!({}));
        version.with_context(|| fs::read_to_string(home.join("log")).unwrap_or_default())?;
        Ok(browser)
    }

    /// Gives it a cookie, as an answer from `url` would: for the host alone, within TLS, and hidden
    /// from scripts.
    pub fn set_cookie(
        &self,
        url: &str,
        name: &str,
        value: &str,
        same_site: SameSite,
    ) -> Result<()> {
        let cookie = json!({
            "url": url, "name": name, "value": value, "path": "/",
            "secure": true, "httpOnly": true, "sameSite": format!("{same_site:?}"),
        });
        let cookies = json!({ "cookies": [cookie] });
        self.call(None, "Storage.setCookies", cookies).map(drop)
    }

    /// Opens a page in a tab of its own, and waits until it is there.
    pub fn open(&self, url: &str) -> Result<Page<'_>> {
        let target = json!({ "url": "about:blank" });
        let target = self.call(None, "Target.createTarget", target)?;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = self.call(None, "Target.attachToTarget", attach)?;
        let session = session["sessionId"].as_str().context("a session")?;
        let page = Page {
            browser: self,
            session: session.to_owned(),
        };
        let went = page.call("Page.navigate", json!({ "url": url }))?;
        ensure!(went["errorText"].is_null(), "cannot open {url}: {went}");
        page.run(
            "document.readyState === 'complete' || \
             new Promise((resolve) => addEventListener('load', () => resolve(true)))",
        )?;
        Ok(page)
    }

    fn call(&self, session: Option<&str>, method: &str, params: Value) -> Result<Value> {
        let mut pipe = self.pipe.lock().unwrap_or_else(PoisonError::into_inner);
        pipe.last += 1;
        let id = pipe.last;
        let mut command = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = session {
            command["sessionId"] = session.into();
        }
        let command = format!("{command}\0");
        let written = pipe.commands.write_all(command.as_bytes());
        written.with_context(|| format!("tell the browser {method}"))?;
        loop {
            let answer = pipe.answers.recv_timeout(wait::PATIENCE);
            let mut answer = answer.with_context(|| format!("no answer to {command}"))?;
            if answer["id"] != id {
                // An event, or what nobody waited for.
                continue;
            }
            ensure!(answer["error"].is_null(), "{command}: {answer}");
            return Ok(answer["result"].take());
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Fails only for a process that is gone, which is what is wanted. Its children end with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A page in a tab.
#[derive(Debug)]
pub struct Page<'a> {
    browser: &'a Browser,
    session: String,
}

impl Page<'_> {
    /// Evaluates an expression of JavaScript in the page; waits for what it promises.
    pub fn run(&self, expression: &str) -> Result<Value> {
        let evaluate = json!({
            "expression": expression, "awaitPromise": true, "returnByValue": true,
        });
        let mut outcome = self.call("Runtime.evaluate", evaluate)?;
        let thrown = &outcome["exceptionDetails"];
        if !thrown.is_null() {
            bail!("{expression}: {thrown}");
        }
        Ok(outcome["result"]["value"].take())
    }

    fn call(&self, method: &str, params: Value) -> Result<Value> {
        self.browser.call(Some(&self.session), method, params)
    }
}

/// Waits until no address is about to be there: a browser breaks off what it does when one comes.
fn wait_for_addresses(namespace: &Namespace) -> Result<()> {
    let Namespace::Named(name) = namespace else {
        return Ok(());
    };
    wait::until("the addresses were there", || {
        let tentative = ["-n", name, "address", "show", "tentative"];
        let tentative = process::run("ip", &tentative).ok()?;
        tentative.is_empty().then_some(())
    })
}

/// Makes a home whose user trusts what the authority signs, as users do on Linux: NSS's database.
fn trust(home: &Path, ca: &Path) -> Result<()> {
    let database = home.join(".pki/nssdb");
    fs::create_dir_all(&database).with_context(|| format!("make {database:?}"))?;
    let (database, ca) = (format!("sql:{}", database.display()), ca.to_string_lossy());
    process::run("certutil", &["-d", &database, "-N", "--empty-password"])?;
    let add = ["-A", "-n", "the bed's authority", "-t", "C,,", "-i", &ca];
    process::run("certutil", &[&["-d", &database][..], &add].concat()).map(drop)
}
