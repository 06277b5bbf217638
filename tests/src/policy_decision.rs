//! How long a policy decision takes where there are many policies and routes.

use std::{fmt::Write as _, hint::black_box, path::Path};

use anyhow::{Context as _, Result, ensure};
use enforcer::{
    clock::{self, WallInstant},
    config::Config,
    policy::{Claims, PolicySet, Purpose, Request},
    session::Principal,
};
use serde_json::json;

const POLICIES: usize = 1_000;
const ROUTES: usize = 10_000;
/// Decisions in a row, timed together.
const BATCH: usize = 1_000;
const BATCHES: usize = 100;

/// Measures decisions and prints what they take.
pub fn measure() -> Result<()> {
    let config = Config::parse(&configuration()?, Path::new("/bench.toml"))?;
    let policies = PolicySet::new(&config.policies, &config.routes, &config.tunnels);
    println!(
        "policy decision, {POLICIES} policies, {ROUTES} routes   p50 and max of {BATCHES} batches"
    );
    for (what, groups) in [("one policy applies", 0), ("20 policies apply", 19)] {
        let groups: Vec<_> = (0..groups)
            .map(|number| format!("group {number}"))
            .collect();
        let claims = match json!({"groups": groups, "acr": "aal2", "scope": "read write"}) {
            serde_json::Value::Object(object) => Claims::new(object),
            _ => Claims::default(),
        };
        let mut times = Vec::with_capacity(BATCHES);
        for batch in 0..BATCHES {
            times.push(time_batch(&policies, &claims, batch)?);
        }
        times.sort_unstable();
        let micros = |nanos: u64| nanos as f64 / 1e3 / BATCH as f64;
        let p50 = times.get(BATCHES / 2).context("the median")?;
        let max = times.last().context("the slowest")?;
        println!(
            "  {what:<24}{:>8.2} us{:>8.2} us",
            micros(*p50),
            micros(*max)
        );
    }
    Ok(())
}

fn time_batch(policies: &PolicySet, claims: &Claims, batch: usize) -> Result<u64> {
    let principal = Principal {
        issuer: "https://idp.example".to_owned(),
        subject: "alice".to_owned(),
    };
    let started_at = clock::boot_now();
    let mut allowed = 0;
    for number in 0..BATCH {
        let request = Request {
            purpose: Purpose::Route((batch * BATCH + number * 7) % ROUTES),
            principal: &principal,
            claims,
            authenticated_at: None,
            client: [192, 0, 2, 7].into(),
            now: WallInstant::from_unix_seconds(1_767_603_600),
        };
        allowed += usize::from(black_box(policies.decide(black_box(&request))).is_ok());
    }
    let took = clock::boot_now().saturating_duration_since(started_at);
    ensure!(allowed == BATCH, "{allowed} of {BATCH} were let in");
    Ok(u64::try_from(took.as_nanos())?)
}

/// Every other policy is for a group, the others for networks, subjects or routes.
fn configuration() -> Result<String> {
    let mut text = String::from(
        "[listeners.public]\naddress = \"[::]:8443\"\n\
         tls = { certificate = \"c\", private_key = \"k\" }\n\
         [[identity.jwt]]\nissuer = \"https://idp.example\"\naudience = \"a\"\n\
         secret_file = \"s\"\nalgorithms = [\"HS256\"]\n",
    );
    for number in 0..POLICIES {
        let (low, high) = (number % 256, number / 256);
        let condition = match number % 4 {
            0 | 2 => format!("match = {{ groups = \"group {}\" }}", number / 2),
            1 => format!("match = {{ networks = \"10.{high}.{low}.0/24\" }}"),
            _ => format!("match = {{ subject = \"user {number}\", acr = \"aal3\" }}"),
        };
        write!(
            text,
            "[policies.p{number}]\nmax_session = \"8h\"\nrequire = {{ acr = \"aal2\" }}\n{condition}\n"
        )?;
    }
    for number in 0..ROUTES {
        let policy = number % POLICIES;
        write!(
            text,
            "[[routes]]\nlistener = \"public\"\npath = \"/route/{number}\"\n\
             upstream = \"http://127.0.0.1:9000\"\npolicy = \"p{policy}\"\n"
        )?;
    }
    Ok(text)
}
